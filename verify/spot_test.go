package verify

import (
	"bytes"
	"crypto/rand"
	"errors"
	"math"
	"math/big"
	"math/bits"
	mathrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/securenets/securenets/plan"
)

// TestSpotCheckSeesAll: a spot check of one entry detects that this one is wrong, and that alone;
// a check of all entries detects a wrong one wherever it is.
func TestSpotCheckSeesAll(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(9, 1))
	for _, o := range ops {
		t.Run(o.name, func(t *testing.T) {
			const n = 2
			w := signed(rng, o.op.Rows()*o.op.Terms(), 1000)
			x := signed(rng, n*o.op.InLen(), 1000)
			y := answers(o.op, w, x, n)
			for _, c := range []int{1, len(y), len(y) + 1, math.MaxInt} {
				if ok, err := SpotCheck(o.op, w, x, NewCandidate(y, n), c); !ok || err != nil {
					t.Fatalf("c = %d: right products do not pass: %v", c, err)
				}
			}
			atOnce := LazyCandidate(n, len(y)/n, math.MaxInt, func(dst, _ []int32, i, at int) { copy(dst, y[i*len(y)/n+at:]) })
			if ok, err := SpotCheck(o.op, w, x, atOnce, len(y)); !ok || err != nil {
				t.Fatalf("right products of samples that are read at once do not pass: %v", err)
			}
			wrong := slices.Clone(y)
			for i := range wrong {
				wrong[i]++
			}
			// one checks entry i alone: crypto/rand reads it, big-endian, in the bytes of len(y)-1.
			one := func(y []int32, i int) (bool, error) {
				drawn := big.NewInt(int64(i)).FillBytes(make([]byte, (bits.Len(uint(len(y)-1))+7)/8))
				return spotCheck(o.op, w, x, NewCandidate(y, n), 1, bytes.NewReader(drawn))
			}
			for i := range y {
				y[i], wrong[i] = wrong[i], y[i]
				if ok, err := one(y, i); ok || err != nil {
					t.Fatalf("entry %d is wrong and passes: %v", i, err)
				}
				if ok, err := one(wrong, i); !ok || err != nil {
					t.Fatalf("entry %d alone is right and does not pass: %v", i, err)
				}
				// All for each would take the square of the time.
				if i%(1+len(y)/50) == 0 || i == len(y)-1 {
					if ok, err := SpotCheck(o.op, w, x, NewCandidate(y, n), len(y)); ok || err != nil {
						t.Fatalf("entry %d of all is wrong and passes: %v", i, err)
					}
				}
				y[i], wrong[i] = wrong[i], y[i]
			}
			// A check of all leaves none out.
			all, err := choose(len(y), len(y), rand.Reader)
			if slices.Sort(all); err != nil || len(all) != len(y) || len(slices.Compact(all)) != len(y) || all[0] != 0 || all[len(y)-1] != len(y)-1 {
				t.Errorf("all of %d entries: %v, %v", len(y), all, err)
			}
		})
	}
}

// TestSpotCheckRate measures the paper's check: it detects k wrong entries of N with probability
// 1 - C(N-k, c)/C(N, c), which is c/N for k = 1, within 3 standard deviations. The real check
// detects all of them.
func TestSpotCheckRate(t *testing.T) {
	const n = 4
	trials := 20_000
	if testing.Short() { // slow under the race detector, which has nothing new to check here
		trials = 2_000
	}
	op := plan.Dense(3, 25) // N = 100
	rng := mathrand.New(mathrand.NewPCG(10, 1))
	source := mathrand.NewChaCha8([32]byte{1}) // a fixed stream: the outcome does not depend on luck
	w, x := signed(rng, 75, 1000), signed(rng, n*3, 1000)
	y := answers(op, w, x, n)
	key, err := NewKey(DefaultField(), op, w)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ c, wrong int }{{1, 1}, {10, 1}, {50, 1}, {99, 1}, {10, 5}} {
		miss := 1.0
		for i := range test.c {
			miss *= float64(len(y)-test.wrong-i) / float64(len(y)-i)
		}
		seen := 0
		for range trials {
			forged := slices.Clone(y)
			for _, e := range rng.Perm(len(y))[:test.wrong] {
				forged[e] ^= 1
			}
			if ok, err := spotCheck(op, w, x, NewCandidate(forged, n), test.c, source); err != nil {
				t.Fatal(err)
			} else if !ok {
				seen++
			}
			if _, err := key.Open(NewCandidate(forged, n), x); !errors.Is(err, ErrRejected) {
				t.Fatalf("the real check: %v", err)
			}
		}
		want, got := 1-miss, float64(seen)/float64(trials)
		sigma := math.Sqrt(want * (1 - want) / float64(trials))
		t.Logf("c = %d, %d of %d wrong: seen %.4f, want %.4f, sigma %.4f", test.c, test.wrong, len(y), got, want, sigma)
		if math.Abs(got-want) > 3*sigma {
			t.Errorf("c = %d: %.1f standard deviations off", test.c, (got-want)/sigma)
		}
	}
}

// TestChoose: every set of c of n elements is equally likely.
func TestChoose(t *testing.T) {
	const n, c, trials = 5, 2, 20_000
	counts := map[[c]int]float64{}
	source := mathrand.NewChaCha8([32]byte{2})
	for range trials {
		s, err := choose(n, c, source)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(s)
		counts[[c]int(s)]++
	}
	const sets = 10
	chi, want := 0.0, float64(trials)/sets
	for s, k := range counts {
		if s[0] == s[1] || s[0] < 0 || s[1] >= n {
			t.Errorf("%v was chosen", s)
		}
		chi += (k - want) * (k - want) / want
	}
	if limit := sets - 1 + 8*math.Sqrt(2*(sets-1)); len(counts) != sets || chi > limit {
		t.Errorf("%d of %d sets, chi-square %.0f > %.0f", len(counts), sets, chi, limit)
	}
	if s, err := choose(3, 7, source); err != nil || len(s) != 3 {
		t.Errorf("%v of 3, %v", s, err)
	}
	if _, err := choose(3, 1, bytes.NewReader(nil)); err == nil {
		t.Error("a choice without randomness")
	}
}

func TestSpotCheckRefuses(t *testing.T) {
	op := plan.Dense(4, 2)
	w, x, y := make([]int32, 8), make([]int32, 8), make([]int32, 4)
	for _, c := range []struct{ w, x, y, n int }{{7, 8, 4, 2}, {8, 7, 4, 2}, {8, 8, 3, 2}, {8, 8, 4, 1}, {8, 0, 0, -1}, {8, 8, 4, math.MaxInt}} {
		var e *LengthError
		if ok, err := SpotCheck(op, w[:c.w], x[:c.x], NewCandidate(y[:c.y], c.n), 1); !errors.As(err, &e) || ok {
			t.Errorf("%+v: error %v, want a *LengthError", c, err)
		}
	}
	for _, c := range []int{0, -1} {
		if ok, err := SpotCheck(op, w, x, NewCandidate(y, 2), c); err == nil || ok {
			t.Errorf("%d entries pass", c)
		}
	}
	if ok, err := SpotCheck(plan.Op{}, w, x, NewCandidate(y, 2), 1); !errors.Is(err, plan.ErrInvalid) || ok {
		t.Errorf("no operator: %v", err)
	}
}
