package attack

import (
	mathrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// Rows divided by a prime, and the columns multiplied by it to stay integers, are corrected.
func TestUnhalve(t *testing.T) {
	r, op := ring.Q4(), plan.Dense(25, 16)
	m, rng := r.Modulus(), mathrand.New(mathrand.NewPCG(27, 28))
	unit := func() (a uint32) {
		for !r.IsUnit(a) {
			a = rng.Uint32N(m)
		}
		return a
	}
	for _, c := range []struct {
		p    uint32
		rows []int
	}{{2, []int{15}}, {2, []int{3, 7}}, {3, []int{0}}, {5, []int{4, 5}}, {2, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}} {
		what, want := ring.NewMatrix(op.Rows(), op.Terms()), make([]int32, op.Rows()*op.Terms())
		g := newWeights(r, op, what)
		for k := range g.Row {
			g.Row[k] = unit()
		}
		for j := range g.Column {
			g.Column[j] = unit()
		}
		for i := range want {
			want[i] = rng.Int32N(4001) - 2000
			what.Data[i] = r.Mul(r.FromSigned(want[i]), invert(m, r.Mul(g.Row[i/25], g.Column[i%25])))
		}
		for j := range g.Column {
			if slices.ContainsFunc(c.rows, func(k int) bool { return want[k*25+j]%int32(c.p) != 0 }) {
				g.Column[j] = r.Mul(g.Column[j], c.p)
			}
		}
		for _, k := range c.rows {
			g.Row[k] = r.Mul(g.Row[k], invert(m, c.p))
		}
		if g.integers(); slices.Contains(g.Known, false) || slices.Equal(g.W, want) {
			t.Fatalf("%+v: starts with unknown or with right integers", c)
		}
		if g.unhalve(); !slices.Equal(g.W, want) {
			t.Errorf("%+v: %v, want %v", c, g.W, want)
		}
	}
}

// The rows selected gain as much as the best of all choices of rows.
func TestSelected(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(29, 30))
	none, some := 0, 0
	for range 2000 {
		columns, rows := 1+rng.IntN(8), 1+rng.IntN(8)
		n := newFlowNetwork(columns, rows)
		for k := range n.costs {
			n.costs[k] = rng.IntN(10)
		}
		for c := range n.gains {
			n.gains[c] = rng.IntN(10)
			for k := range n.needs[c] {
				n.needs[c][k] = rng.IntN(3) == 0
			}
		}
		gains, costs := slices.Clone(n.gains), slices.Clone(n.costs)
		profit := func(chosen []bool) (sum int) {
			for k, is := range chosen {
				if is {
					sum -= costs[k]
				}
			}
			for c, gain := range gains {
				if n.closed(c, chosen) {
					sum += gain
				}
			}
			return sum
		}
		want, chosen := 0, make([]bool, rows)
		for choice := range 1 << rows {
			for k := range chosen {
				chosen[k] = choice>>k&1 == 1
			}
			want = max(want, profit(chosen))
		}
		n.saturate()
		got := n.selected()
		if got == nil {
			none++
			got = make([]bool, rows)
		} else {
			some++
		}
		if p := profit(got); p != want {
			t.Fatalf("gains %v, costs %v, needs %v: rows %v gain %d, want %d", gains, costs, n.needs, got, p, want)
		}
	}
	if none < 100 || some < 100 {
		t.Errorf("%d networks without a gain and %d with one: want 100 of each", none, some)
	}
}
