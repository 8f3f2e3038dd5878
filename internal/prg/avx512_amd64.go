//go:build !purego

package prg

import "github.com/securenets/securenets/internal/cpuid"

// tiers are those that this machine can run, the fastest first.
var tiers = func() (t []tier) {
	if cpuid.AVX512() {
		t = append(t, avx512)
	}
	return append(t, generic)
}()

// avx512 encrypts 4 blocks an instruction and keeps words of 16 at a time.
var avx512 = tier{
	name: "avx512",
	expand: func(seed Seed) fill {
		keys := new(roundKeys)
		expandKeyAES(keys, &seed)
		return func(dst []uint32, i uint64, w words) {
			if len(dst) > 0 {
				fillAVX512(&dst[0], len(dst), keys, i, &w)
			}
		}
	},
}

// roundKeys are those of AES-256.
type roundKeys [15 * 16]byte

//go:noescape
func expandKeyAES(keys *roundKeys, seed *Seed)

//go:noescape
func fillAVX512(dst *uint32, n int, keys *roundKeys, i uint64, w *words)
