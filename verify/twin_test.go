//go:build unix

package verify

import (
	"math"
	mathrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/fence"
)

// FuzzSum compares every tier with the generic one, with elements and integers
// fenced on one side.
func FuzzSum(f *testing.F) {
	for n := range uint32(70) {
		f.Add(uint64(n), n, n%2 == 0)
	}
	f.Add(uint64(1), uint32(1<<15), false)
	f.Add(uint64(1), uint32(3<<15+33), true)
	f.Add(uint64(2), uint32(512*3+16), true)
	f.Fuzz(func(t *testing.T, seed uint64, n uint32, atEnd bool) {
		rng := mathrand.New(mathrand.NewPCG(seed, 0))
		size := int(n % (1 << 18))
		a := fence.Of(t, elements(rng, DefaultField(), size), atEnd)
		y := fence.Of(t, signed(rng, size, 0), atEnd)
		hi, lo := generic.sum(a, y)
		for _, tier := range tiers {
			if h, l := tier.sum(a, y); h != hi || l != lo {
				t.Errorf("%s: %d terms: %d·2^64 + %d, want %d and %d", tier.name, size, h, l, hi, lo)
			}
		}
		second := signed(rng, size, 0)
		pairs := fence.Slice[int32](t, 2*size, atEnd)
		for i := range second {
			pairs[2*i], pairs[2*i+1] = y[i], second[i]
		}
		var want [2]sum
		want[0].add(generic, a, y)
		want[1].add(generic, a, second)
		for _, tier := range tiers {
			if got := tier.sumPairs(a, pairs); got != want {
				t.Errorf("%s: %d pairs: %v, want %v", tier.name, size, got, want)
			}
		}
	})
}

// FuzzFloats compares every tier with the generic one, bit for bit. All memory is fenced on one
// side, and floats beside the result on the other must not change.
func FuzzFloats(f *testing.F) {
	for n := range uint16(70) {
		f.Add(uint64(n), n, n%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, n uint16, atEnd bool) {
		rng := mathrand.New(mathrand.NewPCG(seed, 0))
		size := int(n % 3000)
		scales := func() []float32 {
			v := fence.Slice[float32](t, size, atEnd)
			for i := range v {
				v[i] = float32(math.Ldexp(rng.NormFloat64(), rng.IntN(80)-60))
			}
			return v
		}
		y, row, bias := fence.Of(t, signed(rng, size, 0), atEnd), scales(), scales()
		sample := float32(rng.ExpFloat64())
		want := make([]float32, size)
		floatsGeneric(want, y, row, bias, sample)
		second, sample2, want2 := signed(rng, size, 0), float32(rng.ExpFloat64()), make([]float32, size)
		floatsGeneric(want2, second, row, bias, sample2)
		pairs := fence.Slice[int32](t, 2*size, atEnd)
		for i := range second {
			pairs[2*i], pairs[2*i+1] = y[i], second[i]
		}
		const guard = 0x1p100
		guarded := func() (got, beside []float32) {
			all := fence.Slice[float32](t, size+16, atEnd)
			for i := range all {
				all[i] = guard
			}
			if !atEnd {
				return all[:size], all[size:]
			}
			return all[16:], all[:16]
		}
		check := func(name string, got, beside, want []float32) {
			t.Helper()
			for i, w := range want {
				if math.Float32bits(got[i]) != math.Float32bits(w) {
					t.Fatalf("%s: %d floats: number %d is %v, want %v", name, size, i, got[i], w)
				}
			}
			if slices.ContainsFunc(beside, func(v float32) bool { return v != guard }) {
				t.Errorf("%s: %d floats: wrote beside them", name, size)
			}
		}
		for _, tier := range tiers {
			got, beside := guarded()
			tier.floats(got, y, row, bias, sample)
			check(tier.name, got, beside, want)
			got, beside = guarded()
			got2, beside2 := guarded()
			tier.floatsPairs(got, got2, pairs, row, bias, [2]float32{sample, sample2})
			check(tier.name+", first of pairs", got, beside, want)
			check(tier.name+", second of pairs", got2, beside2, want2)
		}
	})
}
