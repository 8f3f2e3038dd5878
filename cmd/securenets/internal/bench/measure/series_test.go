package measure

import (
	"math"
	"testing"
)

// TestQuartiles: between two figures in proportion, to five digits, of any number of them.
func TestQuartiles(t *testing.T) {
	for _, c := range []struct {
		s    Series
		want [3]float64
	}{
		{Series{7}, [3]float64{7, 7, 7}},
		{Series{3, 1}, [3]float64{1.5, 2, 2.5}},
		{Series{1, 3, 2}, [3]float64{1.5, 2, 2.5}},
		{Series{5, 4, 3, 2, 1}, [3]float64{2, 3, 4}},
		{Series{0.000123456789, 123456789}, [3]float64{30864000, 61728000, 92593000}},
		{Series{0.000123456789}, [3]float64{0.00012346, 0.00012346, 0.00012346}},
	} {
		for q, want := range c.want {
			if got := c.s.Quartile(q + 1); got != want {
				t.Errorf("quartile %d of %v is %v, want %v", q+1, c.s, got, want)
			}
		}
	}
	if s := (Series{5, 1}); s.Median() != 3 || s[0] != 5 {
		t.Errorf("%v: reordered", s)
	}
}

// TestRound: five digits, of numbers of any size and sign.
func TestRound(t *testing.T) {
	for v, want := range map[float64]float64{0: 0, 123456: 123460, 1.23456: 1.2346, -0.000123456: -0.00012346, 99999.6: 100000} {
		if got := Round(v); math.Abs(got-want) > 1e-9*math.Abs(want) {
			t.Errorf("round(%v) = %v, want %v", v, got, want)
		}
	}
}
