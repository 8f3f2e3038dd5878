//go:build !purego

package verify

import (
	"math/bits"

	"github.com/securenets/securenets/internal/cpuid"
)

// tiers are those that this machine can run, the fastest first.
var tiers = func() (t []tier) {
	if cpuid.AVX512() {
		t = append(t, tier{"avx512", sumAVX512})
	}
	return append(t, generic)
}()

// sumAVX512 takes 32 terms at a time and leaves what is left over to generic.
func sumAVX512(a []uint64, y []int32) (hi, lo uint64) {
	n := len(a) &^ 31
	hi, lo = generic.sum(a[n:], y[n:])
	a, y = a[:n], y[:n]
	for len(a) > 0 {
		// Halves are below 2^52 and 2^32, and a lane takes one term in 8: 2^12 of
		// them stay below 2^64.
		n := min(len(a), 1<<15)
		var low, high [8]uint64
		dotAVX512(&a[0], &y[0], n, &low, &high)
		a, y = a[n:], y[n:]

		var top, c uint64 // top < 2^15·2^32
		for i, l := range low {
			top += high[i]
			lo, c = bits.Add64(lo, l, 0)
			hi += c
		}
		lo, c = bits.Add64(lo, top<<52, 0)
		hi += top>>12 + c
	}
	return hi, lo
}

// dotAVX512 sets lo and hi to the sums, one a lane, of the low 52 bits of
// a·(y + 2^31) and of the bits above, n being a multiple of 32 that is not 0.
//
//go:noescape
func dotAVX512(a *uint64, y *int32, n int, lo, hi *[8]uint64)
