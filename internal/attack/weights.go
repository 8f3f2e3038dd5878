package attack

import (
	"context"
	"fmt"
	"math"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// Weights are the recovered integers behind a masked weight matrix:
//
//	W[k, t] = What[k, t] · Row[k] · Column[c],   c the input (channel) of term t
//
// They equal the weights, permuted, up to a sign and a common factor for each row and
// input. Row and Column are 0 where a unit was not found.
type Weights struct {
	Rows, Terms int
	W           []int32 // row-major
	Known       []bool  // W[i] was found
	Row, Column []uint32

	ring ring.Ring
	what ring.Matrix
}

// Recover recovers the integers behind What = E D W F U of the operator that the cloud
// evaluates. It tries at most search fractions for the first unit, and returns nil if it
// finds none.
//
// A kernel of a convolution, 3 words or more, is one unit times a vector of small integers,
// and shrink finds these. If every column has a unit of its own, the search starts from two
// rows i and k: the f_j cancel in the ratios of their words,
//
//	What[i, j] / What[k, j]  =  rho · W[i, j] / W[k, j],   rho = d_i / d_k
//
// so the word of one column j leaves as many candidates for rho as there are ratios of two
// small integers. The right one makes the ratios of all other columns ratios of small
// integers, too. After that every row, then every column, is a vector under a single unit.
//
// Several matrices of integers may fit: in one, a row may be half of what it should be, and
// the columns where it is odd twice that. unhalve corrects such rows where that makes the
// integers shorter. The result is the shortest of a few matrices, from different rows.
func Recover(ctx context.Context, r ring.Ring, op plan.Op, what ring.Matrix, search int) (*Weights, error) {
	if c := op.AsConv(); c.Groups != 1 {
		return nil, fmt.Errorf("attack: a convolution of %d groups", c.Groups)
	}
	if what.Cols >= 3*op.AsConv().C {
		g := newWeights(r, op, what)
		g.Row[0] = 1
		g.columns(exact)
		g.refine()
		return g, nil
	}
	var best *Weights
	starts := 4
	if len(what.Data) > 1<<17 {
		starts = 2 // large matrices take longer, and their results differ less
	}
	for k := 0; k+1 < what.Rows && k < 2*starts; k += 2 {
		rho, err := ratio(ctx, r, what.Row(k+1), what.Row(k), search)
		if err != nil {
			return nil, err
		}
		if rho == 0 {
			continue
		}
		g := newWeights(r, op, what)
		m := r.Modulus()
		for j := range g.Column {
			a, b := what.At(k+1, j), what.At(k, j)
			if inv := invert(m, r.Mul(rho, b)); inv != 0 { // a/(rho·b) = x/y, the ratio of the weights
				_, y := fraction(m, r.Mul(a, inv))
				g.Column[j] = r.Mul(uint32(y), invert(m, b))
			}
		}
		g.rows(mixed)
		g.columns(exact)
		g.refine()
		if g.unhalve(); best == nil || g.bits() < best.bits() {
			best = g
		}
	}
	return best, nil
}

func newWeights(r ring.Ring, op plan.Op, what ring.Matrix) *Weights {
	return &Weights{
		Rows: what.Rows, Terms: what.Cols,
		W: make([]int32, len(what.Data)), Known: make([]bool, len(what.Data)),
		Row: make([]uint32, what.Rows), Column: make([]uint32, op.AsConv().C),
		ring: r, what: what,
	}
}

// refine computes the units of rows and columns anew from the known ones, then the integers.
func (g *Weights) refine() {
	g.rows(exact)
	g.columns(exact)
	g.rows(exact)
	g.integers()
}

// integers computes the integers from the units of rows and columns.
func (g *Weights) integers() {
	clear(g.W)
	clear(g.Known)
	for k := range g.Rows {
		for t := range g.Terms {
			unit := g.ring.Mul(g.Row[k], g.Column[t%len(g.Column)])
			w := g.ring.Lift(g.ring.Mul(unit, g.what.At(k, t)))
			if unit != 0 && max(w, -w) <= small {
				g.W[k*g.Terms+t], g.Known[k*g.Terms+t] = w, true
			}
		}
	}
}

// bits returns the total length of the integers in bits, 32 for each one not found.
func (g *Weights) bits() (sum float64) {
	for i, w := range g.W {
		if g.Known[i] {
			sum += math.Log2(float64(max(w, -w, 1)))
		} else {
			sum += 32
		}
	}
	return sum
}

// rows computes the units of rows from the known units of columns.
func (g *Weights) rows(lost float64) {
	v := make([]uint32, g.Terms)
	for k := range g.Row {
		for t, a := range g.what.Row(k) {
			v[t] = g.ring.Mul(a, g.Column[t%len(g.Column)])
		}
		g.Row[k] = shrink(g.ring, v, lost)
	}
}

// columns computes the units of columns from the known units of rows.
func (g *Weights) columns(lost float64) {
	var v []uint32
	for c := range g.Column {
		v = v[:0]
		for k, unit := range g.Row {
			for t := c; t < g.Terms; t += len(g.Column) {
				v = append(v, g.ring.Mul(unit, g.what.At(k, t)))
			}
		}
		g.Column[c] = shrink(g.ring, v, lost)
	}
}

// ratio returns the rho for which a[j]/(rho·b[j]) is a ratio of small integers for
// nearly all j, or 0 if it does not find one in the given number of tries.
func ratio(ctx context.Context, r ring.Ring, a, b []uint32, tries int) (uint32, error) {
	const (
		most   = 1 << 14 // such integers: a uniform word is a ratio of two with probability 0.1
		checks = 40      // columns that a candidate is checked on
		top    = 1 << 12 // largest integer of a candidate
	)
	m := r.Modulus()
	var t []uint32
	for j := range a {
		if r.IsUnit(a[j]) && r.IsUnit(b[j]) {
			t = append(t, r.Mul(a[j], invert(m, b[j])))
		}
	}
	if len(t) < 16 {
		return 0, nil
	}
	inverses := make([]uint32, top+1)
	for y := range inverses {
		inverses[y] = invert(m, uint32(y))
	}
	others := make([]uint32, min(len(t), checks)) // t[l]/t[j]
	// right reports whether t[l]/rho is a fraction for nearly all l, where u = t[j]/rho.
	right := func(u uint32) bool {
		passed, failed := 0, 0
		for _, s := range others {
			if isFraction(m, r.Mul(s, u), most) {
				passed++
			} else if failed++; failed > 1+passed/8 {
				return false
			}
		}
		return true
	}
	for limit := 16; limit <= top; limit *= 2 { // small integers first, for all columns
		for _, tj := range t {
			inv := invert(m, tj)
			for l := range others {
				others[l] = r.Mul(t[l], inv)
			}
			for x := 1; x <= limit; x++ {
				if err := ctx.Err(); err != nil {
					return 0, err
				}
				first := 1
				if x <= limit/2 && limit > 16 {
					first = limit/2 + 1 // smaller ones were tried before
				}
				for y := first; y <= limit; y++ {
					if x&1 == 0 && y&1 == 0 || inverses[y] == 0 {
						continue
					}
					u := r.Mul(uint32(x), inverses[y])
					if tries -= 2; tries < 0 {
						return 0, nil
					}
					for _, u := range []uint32{u, m - u} {
						if right(u) {
							return r.Mul(tj, invert(m, best(r, others, u, inverses))), nil
						}
					}
				}
			}
		}
	}
	return 0, nil
}

// best returns u times the ratio of two integers up to 32 that makes the fractions of u·s
// shortest: a layer's integers stay small when multiplied by those, so right accepts
// several u.
func best(r ring.Ring, s []uint32, u uint32, inverses []uint32) (best uint32) {
	const little = 32
	least := math.Inf(1)
	for x := uint32(1); x <= little; x++ {
		for y := uint32(1); y <= little; y++ {
			v, length := r.Mul(u, r.Mul(x, inverses[y])), 0.0
			for _, a := range s {
				num, den := fraction(r.Modulus(), r.Mul(a, v))
				length += math.Log2(float64(max(num, -num, 1))) + math.Log2(float64(den))
			}
			if length < least {
				best, least = v, length
			}
		}
	}
	return best
}
