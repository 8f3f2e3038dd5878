package attack

import (
	"context"
	"fmt"
	"math"

	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
)

// Weights are the integers behind a masked weight matrix, as far as they were
// recovered: What[k, t] times Row[k] times Column[g], where g is the input (channel)
// that term t is of. They are those of W, permuted, up to a sign a row and an input and
// to common factors.
type Weights struct {
	Rows, Terms int
	W           []int32 // row-major
	Known       []bool  // which of W
	Row, Column []uint32

	ring ring.Ring
	what ring.Matrix
}

// Recover recovers the integers behind What = E D W F U of the operator that the cloud
// evaluates, trying at most so many fractions in its search for the first unit. It
// returns nil where it finds none.
//
// A kernel of a convolution (3 words or more under one unit) is a multiple of its short
// integers, and shrink finds them. In a matrix with a unit a column it takes two rows i
// and k: the ratios of their words are
//
//	What[i, j] / What[k, j]  =  rho · W[i, j] / W[k, j],   rho = d_i / d_k
//
// where no f_j is left. Of one column j, rho is one of the few ratios of two small
// integers; the right one makes those of all other columns ratios of small integers,
// too. After that every row, then every column, is a vector under a single unit.
//
// More than one matrix of integers may do: a row over 2, say, with the columns where it is odd
// times 2. Such rows are put right where that is shorter (see unhalve), and the shortest of a few
// matrices, from different rows, is the best guess.
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
		starts = 2 // which take longer, and differ less
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
			if inv := invert(m, r.Mul(rho, b)); inv != 0 { // a/(rho·b) = x/y, the weights
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

// refine finds the units of rows and columns by those that are known, and the integers by
// them.
func (g *Weights) refine() {
	g.rows(exact)
	g.columns(exact)
	g.rows(exact)
	g.integers()
}

// integers finds the integers by the units of rows and columns.
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

// bits returns the length of the integers, those that are not known with a word's.
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

// rows finds the units of rows by those of columns that are known.
func (g *Weights) rows(lost float64) {
	v := make([]uint32, g.Terms)
	for k := range g.Row {
		for t, a := range g.what.Row(k) {
			v[t] = g.ring.Mul(a, g.Column[t%len(g.Column)])
		}
		g.Row[k] = shrink(g.ring, v, lost)
	}
}

// columns finds the units of columns by those of rows that are known.
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

// ratio returns the rho with which a[j]/(rho·b[j]) is a ratio of small integers for
// nearly all j, or 0 where it is not among the first so many that it tries.
func ratio(ctx context.Context, r ring.Ring, a, b []uint32, tries int) (uint32, error) {
	const (
		most   = 1 << 14 // of such integers: two are a fraction of a uniform word with probability 0.1
		checks = 40      // columns that a candidate is tried on
		top    = 1 << 12 // of integers of candidates
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
	others := make([]uint32, min(len(t), checks)) // t[l] in units of t[j]
	// right reports whether t[l]/rho is a fraction for nearly all l, t[j]/rho being u.
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
	for limit := 16; limit <= top; limit *= 2 { // the least integers of all columns first
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
					first = limit/2 + 1 // the others were tried before
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

// best returns u times the ratio of two little integers that makes the fractions of u·s
// shortest: integers of a layer stay small where they are multiplied by little ones.
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
