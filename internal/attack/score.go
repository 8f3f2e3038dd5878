package attack

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

// The code in this file knows the secrets. It scores attacks and is not part of any.

// ordered returns the integers w in the order of What's words: E W U.
func ordered(r ring.Ring, l *transform.Layer, s transform.Scheme, w []int32) ([]int32, error) {
	st := l.State()
	ones := func(n int) []uint32 {
		v := make([]uint32, n)
		for i := range v {
			v[i] = 1
		}
		return v
	}
	bare, err := transform.RestoreLayer(r, s, transform.LayerState{Op: st.Op, D: ones(len(st.D)), F: ones(len(st.F)), E: st.E, U: st.U})
	if err != nil {
		return nil, err
	}
	whats, err := bare.Seal(w)
	if err != nil {
		return nil, err
	}
	v := make([]int32, len(w))
	transform.FromRing(r, v, whats[0].Data)
	return v, nil
}

// quotient is a reduced fraction; x/0 is 0/0.
type quotient struct{ num, den int64 }

func reduced(x, y int64) quotient {
	if y == 0 {
		return quotient{}
	}
	d := gcd(x, y)
	if y < 0 {
		d = -d
	}
	return quotient{x / d, y / d}
}

// tally counts quotients.
type tally map[quotient]int

// mode returns the most frequent quotient.
func (t tally) mode() (best quotient) {
	for q, n := range t {
		if n > t[best] || n == t[best] && (q.den < best.den || q.den == best.den && q.num < best.num) {
			best = q
		}
	}
	return best
}

// scaled returns how many of g's integers equal those of want times one rational number per
// row and one per column: for each the one that fits most of its integers. Both are in the
// order of What.
func (g *Weights) scaled(want []int32) int {
	at := func(k, t int) (got, truth int64) {
		i := k*g.Terms + t
		if !g.Known[i] {
			return 0, 0
		}
		return int64(g.W[i]), int64(want[i])
	}
	columns := len(g.Column)
	// The factor of each row, relative to the first row.
	rows := make([]quotient, g.Rows)
	for k := range rows {
		seen := tally{}
		for t := range g.Terms {
			got, truth := at(k, t)
			got0, truth0 := at(0, t)
			if got != 0 && truth != 0 && got0 != 0 && truth0 != 0 {
				seen[reduced(got*truth0, truth*got0)]++
			}
		}
		rows[k] = seen.mode()
	}
	right := 0
	for c := range columns {
		seen, zeros := tally{}, 0
		for k, row := range rows {
			for t := c; t < g.Terms; t += columns {
				got, truth := at(k, t)
				switch {
				case row.num == 0:
				case truth != 0:
					seen[reduced(got*row.den, truth*row.num)]++
				case got == 0 && g.Known[k*g.Terms+t]:
					zeros++
				}
			}
		}
		delete(seen, quotient{0, 1}) // a factor of 0 recovers nothing
		right += zeros + seen[seen.mode()]
	}
	return right
}

// shuffledScaled returns the rate that scaled gives a guess with the operator's integers want
// in a random order: the mean over several orders. It is above 0 for any guess, as the best
// factor of a column makes at least one of its integers right.
func shuffledScaled(op plan.Op, want []int32) float64 {
	const least = 1 << 13 // integers in all orders together
	rng := rand.New(rand.NewPCG(17, uint64(len(want))))
	guess := &Weights{
		Rows: op.Rows(), Terms: op.Terms(), Column: make([]uint32, op.AsConv().C),
		W: slices.Clone(want), Known: slices.Repeat([]bool{true}, len(want)),
	}
	right, of := 0, 0
	for of < least {
		rng.Shuffle(len(want), func(i, j int) { guess.W[i], guess.W[j] = guess.W[j], guess.W[i] })
		right += guess.scaled(want)
		of += len(want)
	}
	return float64(right) / float64(of)
}

// pixelsRight returns how many of the rows of got that were not left out equal a row of want
// up to a common factor. want has no negative integers.
func pixelsRight(got, want [][]int32) (right, of int) {
	truth := map[string]bool{}
	for _, row := range want {
		truth[primitive(row)] = true
	}
	for _, row := range got {
		if row != nil && len(row) == 0 {
			continue
		}
		of++
		if row != nil && truth[primitive(row)] {
			right++
		}
	}
	return right, of
}

// primitive returns v divided by its common factor, as text.
func primitive(v []int32) string {
	var d int64
	for _, e := range v {
		d = gcd(d, int64(e))
	}
	w := make([]int64, len(v))
	for i, e := range v {
		w[i] = int64(e) / max(1, d)
	}
	return fmt.Sprint(w)
}

// vectors returns the unmasked inputs of the cloud's operator for n samples: the samples, or
// their patches if the host unrolls.
func vectors(l *transform.Layer, x []int32, n int) (all [][]int32) {
	op := l.Op()
	for sample := range slices.Chunk(x, len(x)/n) {
		if l.CloudOp() == op {
			all = append(all, sample)
			continue
		}
		for p := range op.Conv.Positions() {
			all = append(all, patch(op.Conv, sample, p))
		}
	}
	return all
}

// received returns vectors with columns in the order in which the cloud receives them: U^-1 X.
func received(l *transform.Layer, x []int32, n int) [][]int32 {
	all, u := vectors(l, x, n), l.State().U
	if u == nil {
		return all
	}
	for i, v := range all {
		moved := make([]int32, len(v))
		for j := range moved {
			moved[j] = v[j-j%len(u)+int(u[j%len(u)])]
		}
		all[i] = moved
	}
	return all
}

// patch returns the inputs of output position p (row-major) of a convolution.
func patch(c plan.Conv2D, x []int32, p int) []int32 {
	v := make([]int32, c.KH*c.KW*c.C)
	for t := range v {
		h := p/c.OutW()*c.SH + t/c.C/c.KW*c.DH - c.Top
		w := p%c.OutW()*c.SW + t/c.C%c.KW*c.DW - c.Left
		if h >= 0 && h < c.H && w >= 0 && w < c.W {
			v[t] = x[(h*c.W+w)*c.C+t%c.C]
		}
	}
	return v
}

// zerosSeen returns how many of the zeros behind a call show as zero words, counted column by
// column, and the number of zeros.
func zerosSeen(xhat ring.Matrix, truth [][]int32) (seen, of int) {
	zeros, words := make([]int, xhat.Cols), make([]int, xhat.Cols)
	for i, row := range truth {
		for j, e := range row {
			if e == 0 {
				zeros[j]++
				of++
			}
			if xhat.At(i, j) == 0 {
				words[j]++
			}
		}
	}
	for j := range zeros {
		seen += min(zeros[j], words[j])
	}
	return seen, of
}

// kernelsRight returns how many kernels of got equal those of want up to sign and common
// factor, and the number of kernels.
func kernelsRight(op plan.Op, got, want []int32) (right, of int) {
	channels, terms := op.AsConv().C, op.Terms()
	for k := range op.Rows() {
		for c := range channels {
			var scale quotient
			same := true
			for t := c; t < terms; t += channels {
				i := k*terms + t
				q := reduced(int64(got[i]), int64(want[i]))
				switch {
				case want[i] == 0 && got[i] == 0:
				case q.num == 0, scale.den != 0 && q != scale:
					same = false
				default:
					scale = q
				}
			}
			of++
			if same && scale.den != 0 {
				right++
			}
		}
	}
	return right, of
}

// foldedRight returns for how many inputs Folded gives the integers of all samples up to one
// factor, out of the inputs that are nonzero in 8 samples or more. truth has its columns in
// the order of xhat. The order of samples is permuted, so they are compared sorted.
func foldedRight(r ring.Ring, xhat ring.Matrix, truth [][]int32) (right, of int) {
	_, units := Folded(r, xhat)
	v, got, want := make([]uint32, xhat.Rows), make([]int32, xhat.Rows), make([]int32, xhat.Rows)
	for j := range xhat.Cols {
		nonzero := 0
		for i, row := range truth {
			if want[i] = row[j]; want[i] != 0 {
				nonzero++
			}
		}
		if nonzero < 8 {
			continue
		}
		of++
		if units == nil {
			continue
		}
		for i := range v {
			v[i] = r.Mul(xhat.At(i, j), invert(r.Modulus(), units[i]))
		}
		unit := shrink(r, v, exact)
		if unit == 0 {
			continue
		}
		for i, a := range v {
			e := r.Lift(r.Mul(unit, a))
			got[i] = max(e, -e)
		}
		slices.Sort(got)
		slices.Sort(want)
		if primitive(got) == primitive(want) {
			right++
		}
	}
	return right, of
}

// crossRatios draws cross ratios of four nonzero weights at random, and returns for how many
// fraction gives the numerator and the denominator, and how many there are. It cannot if
// these are too large for one word.
func (t *target) crossRatios(r ring.Ring, op plan.Op, what ring.Matrix, truth []int32) (right, of int) {
	rng := rand.New(rand.NewPCG(3, uint64(t.index)))
	channels := op.AsConv().C
	for range 1000 {
		i, k, j := rng.IntN(what.Rows), rng.IntN(what.Rows), rng.IntN(what.Cols)
		l := rng.IntN(what.Cols)
		if i == k || channels > 1 && j%channels == l%channels || j == l {
			continue
		}
		w := func(i, j int) int64 { return int64(truth[i*what.Cols+j]) }
		num, den := w(i, j)*w(k, l), w(i, l)*w(k, j)
		if num == 0 || den == 0 {
			continue // a weight of zero is visible: see divisible
		}
		inv := invert(r.Modulus(), r.Mul(what.At(i, l), what.At(k, j)))
		if inv == 0 {
			continue
		}
		of++
		x, y := fraction(r.Modulus(), r.Mul(r.Mul(what.At(i, j), what.At(k, l)), inv))
		if reduced(num, den) == (quotient{x, y}) {
			right++
		}
	}
	return right, of
}

// agree returns how many of guess equal want.
func agree(guess []int, want []uint32) (n int) {
	for i, e := range want {
		if guess[i] == int(e) {
			n++
		}
	}
	return n
}

// known returns rows with zeros in the columns whose units are not known, as in Pixels.
func (a *inputAttack) known(rows [][]int32) [][]int32 {
	v := make([][]int32, len(rows))
	for i, row := range rows {
		v[i] = slices.Clone(row)
		for j := range row {
			if a.column[j%len(a.column)] == 0 {
				v[i][j] = 0
			}
		}
	}
	return v
}

// divisible counts weights that the prime p divides, and words that are marked as such.
type divisible struct {
	p                         uint32
	both, any, divided, words int
}

// adds adds the result: how many marks are right.
func (d *divisible) adds(add add) {
	share := float64(d.divided) / float64(d.words) // of weights; random marks are right as often
	add(Result{Attack: "zeros", What: fmt.Sprintf("weights that %d divides, %.2f %% of all", d.p, 100*share)}, score{right: d.both, of: d.any, chance: share})
}

func (d *divisible) add(what ring.Matrix, truth []int32) {
	for i, mark := range Divisible(what, d.p) {
		divides := truth[i]%int32(d.p) == 0
		for _, c := range []struct {
			n  *int
			is bool
		}{{&d.both, mark && divides}, {&d.any, mark || divides}, {&d.divided, divides}, {&d.words, true}} {
			if c.is {
				*c.n++
			}
		}
	}
}
