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
	})
}

// FuzzFloats compares every tier with the generic one, bit for bit, with all that is
// read or written fenced on one side, and floats beside what is written on the other.
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
		const guard = 0x1p100
		for _, tier := range tiers {
			all := fence.Slice[float32](t, size+16, atEnd)
			for i := range all {
				all[i] = guard
			}
			got, beside := all[16:], all[:16]
			if !atEnd {
				got, beside = all[:size], all[size:]
			}
			tier.floats(got, y, row, bias, sample)
			for i, w := range want {
				if math.Float32bits(got[i]) != math.Float32bits(w) {
					t.Fatalf("%s: %d floats: number %d is %v, want %v", tier.name, size, i, got[i], w)
				}
			}
			if slices.ContainsFunc(beside, func(v float32) bool { return v != guard }) {
				t.Errorf("%s: %d floats: wrote beside them", tier.name, size)
			}
		}
	})
}
