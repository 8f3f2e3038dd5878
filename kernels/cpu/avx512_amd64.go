//go:build !purego

package cpu

// avx512 multiplies with AVX-512 VNNI: 64 products of bytes per instruction.
var avx512 = vectorUnit{
	name:  "avx512",
	width: 1,
	ahead: 8 << 10,
	split: func(dst []uint8, plane int, src []uint32, c []splitting) {
		if len(src) > 0 {
			_ = dst[(len(c)-1)*plane+len(src)-1]
			splitAVX512(&dst[0], plane, &src[0], len(src), &c[0], len(c))
		}
	},
	multiply: tileAVX512,
}

//go:noescape
func splitAVX512(dst *uint8, plane int, src *uint32, n int, c *splitting, primes int)

//go:noescape
func tileAVX512(t *tile)
