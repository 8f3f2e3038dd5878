//go:build !purego

package transform

import "github.com/securenets/securenets/internal/cpuid"

// tiers are those that this machine can run, the fastest first.
var tiers = func() (t []passes) {
	if cpuid.AVX512() {
		t = append(t, avx512)
	}
	return append(t, generic)
}()

// avx512 takes 16 words an instruction, and leaves what is over to generic.
var avx512 = passes{
	name: "avx512",
	top: func(v []uint32, bias, mask uint32) uint32 {
		n, top := len(v)&^15, uint32(0)
		if n > 0 {
			top = topAVX512(&v[0], n, bias, mask)
		}
		return max(top, generic.top(v[n:], bias, mask))
	},
	add: func(m uint32, dst []uint32, x []int32) {
		n := len(dst) &^ 15
		if n > 0 {
			addAVX512(m, n, &dst[0], &x[:n][0])
		}
		generic.add(m, dst[n:], x[n:])
	},
	sub: func(m uint32, dst, a, b []uint32) {
		n := len(dst) &^ 15
		if n > 0 {
			subAVX512(m, n, &dst[0], &a[:n][0], &b[:n][0])
		}
		generic.sub(m, dst[n:], a[n:], b[n:])
	},
	lift: func(m uint32, dst []int32, v []uint32) {
		n := len(dst) &^ 15
		if n > 0 {
			liftAVX512(m, n, &dst[0], &v[:n][0])
		}
		generic.lift(m, dst[n:], v[n:])
	},
	addMasked: func(m uint32, dst []uint32, x []int32, t table) {
		n, add := len(dst)&^15, addFarAVX512
		if t.near {
			n, add = len(dst)&^31, addNearAVX512
		}
		if n > 0 {
			add(m, n, &dst[0], &x[:n][0], &t.from[:n][0], &t.high[:n][0], &t.low[:n][0])
		}
		generic.addMasked(m, dst[n:], x, t.after(n))
	},
	liftMasked: func(m uint32, dst []int32, v []uint32, t table) {
		n, lift := len(dst)&^15, liftFarAVX512
		if t.near {
			n, lift = len(dst)&^31, liftNearAVX512
		}
		if n > 0 {
			lift(m, n, &dst[0], &v[:n][0], &t.from[:n][0], &t.high[:n][0], &t.low[:n][0])
		}
		generic.liftMasked(m, dst[n:], v, t.after(n))
	},
	scale: func(m uint32, dst, v []uint32, high, low uint32) {
		n := len(dst) &^ 15
		if n > 0 {
			scaleAVX512(m, n, &dst[0], &v[:n][0], high, low)
		}
		generic.scale(m, dst[n:], v[n:], high, low)
	},
	round: func(dst []int32, v []float32, inverse float64) {
		n := len(dst) &^ 15
		if n > 0 {
			roundAVX512(n, &dst[0], &v[:n][0], inverse)
		}
		generic.round(dst[n:], v[n:], inverse)
	},
}

//go:noescape
func topAVX512(v *uint32, n int, bias, mask uint32) uint32

//go:noescape
func addAVX512(m uint32, n int, dst *uint32, x *int32)

//go:noescape
func subAVX512(m uint32, n int, dst, a, b *uint32)

//go:noescape
func liftAVX512(m uint32, n int, dst *int32, v *uint32)

//go:noescape
func addFarAVX512(m uint32, n int, dst *uint32, x *int32, from *int32, high, low *uint32)

//go:noescape
func addNearAVX512(m uint32, n int, dst *uint32, x *int32, from *int32, high, low *uint32)

//go:noescape
func liftFarAVX512(m uint32, n int, dst *int32, x *uint32, from *int32, high, low *uint32)

//go:noescape
func liftNearAVX512(m uint32, n int, dst *int32, x *uint32, from *int32, high, low *uint32)

//go:noescape
func scaleAVX512(m uint32, n int, dst, v *uint32, high, low uint32)

//go:noescape
func roundAVX512(n int, dst *int32, v *float32, inverse float64)
