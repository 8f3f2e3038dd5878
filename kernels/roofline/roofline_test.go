package roofline

import "testing"

func TestCounts(t *testing.T) {
	there := 0.0
	if Available() {
		there = 1
	}
	for _, test := range []struct {
		name      string
		got, want float64
	}{
		{"VNNI", VNNI(3), 3 * loop * 12 * 64 * there},
		{"FMA", FMA(3), 3 * loop * 12 * 8 * there},
		{"Read", Read(make([]byte, 1000)), 960 * there},
		{"VNNI of nothing", VNNI(0), 0},
		{"FMA of nothing", FMA(0), 0},
		{"Read of less than a line", Read(make([]byte, 63)), 0},
		{"Read of nothing", Read(nil), 0},
	} {
		if test.got != test.want {
			t.Errorf("%s: %v, want %v", test.name, test.got, test.want)
		}
	}
}

func TestRound(t *testing.T) {
	for _, threads := range []int{1, 3} {
		calls := 0
		r := NewMeter(threads, 1<<20).Round(func() float64 {
			calls++
			return 1
		})
		if calls != 2 || r.Work <= 0 {
			t.Errorf("%d threads: %d calls, a rate of %v", threads, calls, r.Work)
		}
		for name, limit := range map[string]float64{"VNNI": r.VNNI, "FMA": r.FMA, "Read": r.Read} {
			if limit > 0 != Available() {
				t.Errorf("%d threads: %s %v", threads, name, limit)
			}
		}
	}
}
