//go:build unix

package verify

import (
	mathrand "math/rand/v2"
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
