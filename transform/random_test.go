package transform

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// uniform fails if counts of n draws over bins are not uniform. Chi-square of d
// degrees of freedom is d + 2√(dt) + 2t or more with probability e^-t at most (Laurent and
// Massart, "Adaptive estimation of a quadratic functional by model selection", 2000, lemma 1),
// here 1e-9.
func uniform[K comparable](t *testing.T, what string, counts map[K]int, n, bins int) {
	t.Helper()
	if len(counts) > bins {
		t.Errorf("%s: %d values, want %d", what, len(counts), bins)
	}
	want := float64(n) / float64(bins)
	chi := float64(bins-len(counts)) * want
	for _, c := range counts {
		chi += (float64(c) - want) * (float64(c) - want) / want
	}
	d, tail := float64(bins-1), math.Log(1e9)
	if limit := d + 2*math.Sqrt(d*tail) + 2*tail; chi > limit {
		t.Errorf("%s: chi-square %.0f > %.0f", what, chi, limit)
	}
}

func TestDraws(t *testing.T) {
	toy, err := ring.New(3, 5)
	if err != nil {
		t.Fatal(err)
	}
	var src source
	const n = 300_000
	for _, below := range []uint32{1, 2, 3, 9, 16, 17} {
		counts := map[uint32]int{}
		for range n {
			counts[src.below(below)]++
		}
		uniform(t, fmt.Sprintf("below %d", below), counts, n, int(below))
	}
	// All 32 bits of a word are in use.
	var any uint32
	for range 200 {
		any |= src.below(math.MaxUint32)
	}
	if any != math.MaxUint32 {
		t.Errorf("bits %032b in 200 words", any)
	}

	units, orders := map[uint32]int{}, map[string]int{}
	for _, a := range src.units(toy, n) {
		units[a]++
		if !toy.IsUnit(a) {
			t.Fatal("not a unit")
		}
	}
	uniform(t, "units of Z_15", units, n, 8)
	for range n {
		v := src.permutation(4)
		if !isPermutation(v) {
			t.Fatal("not a permutation")
		}
		orders[fmt.Sprint(v)]++
	}
	uniform(t, "permutations of 4", orders, n, 24)
}

func TestInverses(t *testing.T) {
	var src source
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		for _, n := range []int{0, 1, 2, 100} {
			units := src.units(r, n)
			for i, inv := range inverses(r, units) {
				if want, _ := r.Inv(units[i]); inv != want || inv >= r.Modulus() {
					t.Fatalf("%v: inverse %d of %d is wrong", r, i, n)
				}
			}
		}
	}
}

// TestUsedPadsAreFreed: neither the pads that were taken from nor a finished call holds u.
func TestUsedPadsAreFreed(t *testing.T) {
	l, err := NewLayer(ring.Q4(), DefaultScheme(), plan.Dense(2, 2))
	if err != nil {
		t.Fatal(err)
	}
	s := &sheet{layer: l, u: [][]uint32{{1, 2}, {3, 4}, {5, 6}}}
	all := s.u
	part := s.take(2)
	if all[0] != nil || all[1] != nil || len(s.u) != 1 || s.first != 2 {
		t.Error("pads that were taken stay")
	}
	if part.first != 0 || !slices.Equal(part.u[1], []uint32{3, 4}) {
		t.Error("the wrong pads were taken")
	}
	call := &Call{layer: l, n: 2, masked: make([]Masked, 1), u: part.u}
	if _, err := call.Unmask([]ring.Matrix{ring.NewMatrix(2, 2)}); err != nil {
		t.Fatal(err)
	}
	if call.u != nil {
		t.Error("a call that is over holds pads")
	}
}
