//go:build !purego

package prg

import (
	"crypto/aes"

	"github.com/securenets/securenets/internal/cpuid"
)

// tiers are the tiers that this machine can run, the fastest first.
var tiers = func() (t []tier) {
	if cpuid.AVX512() {
		t = append(t, avx512)
	}
	if cpuid.VAES() {
		t = append(t, vaes)
	}
	if cpuid.AVX2() {
		t = append(t, avx2)
	}
	return append(t, generic)
}()

// avx512 encrypts 4 blocks per instruction and filters 16 words at a time.
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

// vaes encrypts 2 blocks per instruction and filters 8 words at a time.
var vaes = tier{
	name: "vaes",
	expand: func(seed Seed) fill {
		keys := new(roundKeys)
		expandKeyAES(keys, &seed)
		return func(dst []uint32, i uint64, w words) {
			block := uint64(0)
			fillByChunks(func(buf []byte) {
				encryptVAES(&buf[0], len(buf)/turnBytes, keys, i, block)
				block += uint64(len(buf) / aes.BlockSize)
			}, words.keepAVX2, dst, w)
		}
	},
}

// avx2 encrypts with the standard library and filters 8 words at a time.
var avx2 = tier{
	name:   "avx2",
	expand: func(seed Seed) fill { return byLibrary(seed, words.keepAVX2) },
}

// keepAVX2 is keep for src with spare readable bytes after it.
func (w words) keepAVX2(dst []uint32, src []byte) int {
	n, kept := len(dst)&^7, 0
	if n > 0 {
		kept = keep8AVX2(&dst[0], &src[0], n, &w, &squeezes)
	}
	return kept + w.keep(dst[kept:][:len(dst)-n], src[n*w.width:])
}

// squeezes has, for every set of skipped words among 8, the places of the kept ones in order,
// then arbitrary ones.
var squeezes = func() (s [256][8]byte) {
	for skipped := range s {
		at := 0
		for i := range byte(8) {
			if skipped>>i&1 == 0 {
				s[skipped][at] = i
				at++
			}
		}
	}
	return
}()

// keep8AVX2 is keep for n words, a positive multiple of 8. It reads up to 16 bytes past src.
//
//go:noescape
func keep8AVX2(dst *uint32, src *byte, n int, w *words, squeezes *[256][8]byte) (kept int)

// roundKeys are the round keys of AES-256.
type roundKeys [15 * 16]byte

//go:noescape
func expandKeyAES(keys *roundKeys, seed *Seed)

// encryptVAES sets dst to one or more turns of sample i's keystream, from the given block on.
//
//go:noescape
func encryptVAES(dst *byte, turns int, keys *roundKeys, i, block uint64)

//go:noescape
func fillAVX512(dst *uint32, n int, keys *roundKeys, i uint64, w *words)
