//go:build !purego

package cpu

import "github.com/securenets/securenets/internal/ring"

// avx2 multiplies with AVX2: 16 products of bytes, as words of 16 bits, an instruction.
var avx2 = vectorUnit{name: "avx2", split: split2, multiply: multiply2}

// split2 has the vector unit take whole blocks of words, and the tail as one more.
func split2(dst []uint8, plane int, src []uint32, c []splitting) {
	const block = 32
	n := len(src) &^ (block - 1)
	if n > 0 {
		_ = dst[(len(c)-1)*plane+n-1]
		splitAVX2(&dst[0], plane, &src[0], n, &c[0], len(c))
	}
	if n < len(src) {
		var words [block]uint32
		var bytes [ring.MaxPrimes][block]uint8
		copy(words[:], src[n:])
		splitAVX2(&bytes[0][0], block, &words[0], block, &c[0], len(c))
		for i := range c {
			copy(dst[i*plane+n:], bytes[i][:len(src)-n])
		}
	}
}

// multiply2 takes 4 rows and 16 lanes at a time.
func multiply2(t *tile) {
	const rows, lanes = 4, 16
	sums := [rows]func(t *tile, w *int8, x *uint8, sums *uint32){sums1AVX2, sums2AVX2, sums3AVX2, sums4AVX2}
	for prime := range t.primes {
		for lane := 0; lane < t.lanes; lane += lanes {
			w := &t.w[prime*t.image+4*lane]
			for row := 0; row < t.rows; row += rows {
				sums[min(rows, t.rows-row)-1](t, w, &t.x[prime*t.plane+row*t.stride], t.sum(prime, row, lane))
			}
		}
	}
	if t.crt != nil {
		crtAVX2(t)
	}
}

// splitAVX2 takes a multiple of 32 words, one or more.
//
//go:noescape
func splitAVX2(dst *uint8, plane int, src *uint32, n int, c *splitting, primes int)

// sumsNAVX2 computes the sums of N rows and 16 lanes modulo one prime.
//
//go:noescape
func sums1AVX2(t *tile, w *int8, x *uint8, sums *uint32)

//go:noescape
func sums2AVX2(t *tile, w *int8, x *uint8, sums *uint32)

//go:noescape
func sums3AVX2(t *tile, w *int8, x *uint8, sums *uint32)

//go:noescape
func sums4AVX2(t *tile, w *int8, x *uint8, sums *uint32)

//go:noescape
func crtAVX2(t *tile)
