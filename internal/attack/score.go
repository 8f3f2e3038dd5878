package attack

import (
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/transform"
)

// What is here knows the secrets. It says what attacks got right, and is no part of them.

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

// quotient is a reduced fraction; that of x and 0 is 0/0.
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

// scaled returns how many of g's integers are those of want times one rational number a row
// and one a column, the numbers that suit most of each. Both are in the order of What.
func (g *Weights) scaled(want []int32) int {
	at := func(k, t int) (got, truth int64) {
		i := k*g.Terms + t
		if !g.Known[i] {
			return 0, 0
		}
		return int64(g.W[i]), int64(want[i])
	}
	columns := len(g.Column)
	// Rows, against the first.
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
		delete(seen, quotient{0, 1}) // a column times 0 is not known
		right += zeros + seen[seen.mode()]
	}
	return right
}
