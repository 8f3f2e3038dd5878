//go:build unix

package graph

import (
	"math"
	mathrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/fence"
)

// floats are of all kinds: equal ones, zeros of both signs, infinities, NaNs.
func floats(rng *mathrand.Rand, n int) []float32 {
	v := make([]float32, n)
	kinds := []float32{0, float32(math.Copysign(0, -1)), 1, -1, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), math.Float32frombits(0x7f800001), math.Float32frombits(1<<31 | 1)}
	for i := range v {
		if v[i] = float32(rng.NormFloat64()); rng.IntN(2) == 0 {
			v[i] = kinds[rng.IntN(len(kinds))]
		}
	}
	return v
}

// FuzzVector compares every tier with the scalar one, with floats fenced on one side.
func FuzzVector(f *testing.F) {
	for n := range uint8(40) {
		f.Add(uint64(n), n, n%5, n%3, n%7, n%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, size, times, apartA, apartB uint8, atEnd bool) {
		rng := mathrand.New(mathrand.NewPCG(seed, 0))
		n, runs := 1+int(size), int(times%16)
		strideA, strideB := n+int(apartA), n+int(apartB)
		of := func(stride int) []float32 { // to the last element that is read
			return fence.Of(t, floats(rng, max(0, (runs-1)*stride+n)), atEnd)
		}
		a, b, v := of(strideA), of(strideB), of(n)
		want, rectified := make([]float32, runs*n), make([]float32, len(v))
		scalar.maximum(want, a, b, n, strideA, strideB)
		scalar.rectify(rectified, v)
		start, m := floats(rng, panel), fence.Of(t, floats(rng, panel*len(v)), atEnd)
		accumulated := slices.Clone(start)
		scalar.accumulate(accumulated, v, m)
		for _, tier := range tiers {
			check := func(what string, got, want []float32) {
				t.Helper()
				for i, w := range want {
					if g := got[i]; math.Float32bits(g) != math.Float32bits(w) && (g == g || w == w) {
						t.Fatalf("%s: %s: element %d of %d in %d runs is %v, want %v", tier.name, what, i, n, runs, g, w)
					}
				}
			}
			got := fence.Slice[float32](t, runs*n, atEnd)
			tier.maximum(got, a, b, n, strideA, strideB)
			check("maximum", got, want)
			if strideA == n {
				copy(got, a)
				tier.maximum(got, got, b, n, n, strideB)
				check("maximum in place", got, want)
			}
			got = fence.Slice[float32](t, len(v), atEnd)
			tier.rectify(got, v)
			check("rectify", got, rectified)
			copy(got, v)
			tier.rectify(got, got)
			check("rectify in place", got, rectified)
			sums := fence.Of(t, start, atEnd)
			tier.accumulate(sums, v, m)
			check("accumulate", sums, accumulated)
		}
	})
}
