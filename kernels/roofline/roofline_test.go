package roofline

import "testing"

func TestCounts(t *testing.T) {
	var there, vnni float64
	lanes := 4.0
	if Available() {
		there = 1
	}
	if HasVNNI() {
		vnni, lanes = 1, 8
	}
	for _, test := range []struct {
		name      string
		got, want float64
	}{
		{"VNNI", VNNI(3), 3 * loop * 12 * 64 * vnni},
		{"Words", Words(3), 3 * loop * 6 * 16 * there},
		{"Wide", Wide(3), 3 * loop * 3 * 16 * there},
		{"FMA", FMA(3), 3 * loop * 12 * lanes * there},
		{"Read", Read(make([]byte, 1000)), 960 * there},
		{"VNNI of nothing", VNNI(0), 0},
		{"Words of nothing", Words(0), 0},
		{"Wide of nothing", Wide(0), 0},
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
		m := NewMeter(threads, 1<<20)
		if m.AVX2 != (Available() && !HasVNNI()) {
			t.Errorf("AVX2 is %t", m.AVX2)
		}
		for range 2 {
			calls := 0
			r := m.Round(func() float64 {
				calls++
				return 1
			})
			if calls != 2 || r.Work <= 0 {
				t.Errorf("%d threads: %d calls, a rate of %v", threads, calls, r.Work)
			}
			for _, test := range []struct {
				name  string
				rate  float64
				there bool
			}{
				{"VNNI", r.VNNI, HasVNNI() && !m.AVX2},
				{"Words", r.Words, Available() && m.AVX2},
				{"Wide", r.Wide, Available() && m.AVX2},
				{"FMA", r.FMA, Available()},
				{"Read", r.Read, Available()},
				{"Products", min(r.Products(false), r.Products(true)), Available()},
			} {
				if test.rate > 0 != test.there {
					t.Errorf("%d threads, AVX2 %t: %s %v", threads, m.AVX2, test.name, test.rate)
				}
			}
			m.AVX2 = Available()
		}
	}
}

func TestProducts(t *testing.T) {
	for _, test := range []struct {
		r           Rates
		wide, bytes float64
	}{
		{Rates{VNNI: 12}, 3, 3},
		{Rates{Words: 12, Wide: 8}, 4, 6},
		{Rates{}, 0, 0},
	} {
		if wide, bytes := test.r.Products(false), test.r.Products(true); wide != test.wide || bytes != test.bytes {
			t.Errorf("%+v: %v and %v, want %v and %v", test.r, wide, bytes, test.wide, test.bytes)
		}
	}
}
