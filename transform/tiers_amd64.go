//go:build !purego

package transform

import "github.com/securenets/securenets/internal/cpuid"

// tiers are the tiers that this machine can run, the fastest first.
var tiers = func() (t []passes) {
	if cpuid.AVX512() {
		p := vector("avx512", routines{
			lanes: 16, top: topAVX512, add: addAVX512, sub: subAVX512, lift: liftAVX512,
			subScaled: subScaledAVX512, subSmall: subSmallAVX512, liftScaled: liftScaledAVX512, scale: scaleAVX512, round: roundAVX512,
		})
		t = append(t, withPairs(withNear(p), pairs{lanes: 16, round: roundPairsAVX512, sub: subPairsAVX512, lift: liftPairsAVX512}))
	}
	if cpuid.AVX2() {
		p := vector("avx2", routines{
			lanes: 8, top: topAVX2, add: addAVX2, sub: subAVX2, lift: liftAVX2,
			subScaled: subScaledAVX2, subSmall: subSmallAVX2, liftScaled: liftScaledAVX2, scale: scaleAVX2, round: roundAVX2,
		})
		t = append(t, withPairs(p, pairs{lanes: 8, round: roundPairsAVX2, sub: movedPairsAVX2, lift: liftPairsAVX2}))
	}
	return append(t, generic)
}()

// routines take n words, a positive multiple of lanes.
type routines struct {
	lanes int
	top   func(v *uint32, n int, bias, mask uint32) uint32
	add   func(m uint32, n int, dst *uint32, x *int32)
	sub   func(m uint32, n int, dst, a, b *uint32)
	lift  func(m uint32, n int, dst *int32, v *uint32)
	// These read their operands in order, without a table's places.
	subScaled  func(m uint32, n int, dst *uint32, x *int32, high, low *uint32)
	subSmall   func(m uint32, n int, dst *uint32, x *int32, unit *uint32, ratio *float32)
	liftScaled func(m uint32, n int, dst *int32, v, w, high, low *uint32)
	scale      func(m uint32, n int, dst, v *uint32, high, low uint32)
	round      func(n int, dst *int32, v *float32, inverse float64)
}

// vector returns passes that use the routines for whole vectors and generic for the rest.
func vector(name string, by routines) passes {
	whole := func(n int) int { return n &^ (by.lanes - 1) }
	return passes{
		name: name,
		top: func(v []uint32, bias, mask uint32) uint32 {
			n, top := whole(len(v)), uint32(0)
			if n > 0 {
				top = by.top(&v[0], n, bias, mask)
			}
			return max(top, generic.top(v[n:], bias, mask))
		},
		add: func(m uint32, dst []uint32, x []int32) {
			n := whole(len(dst))
			if n > 0 {
				by.add(m, n, &dst[0], &x[:n][0])
			}
			generic.add(m, dst[n:], x[n:])
		},
		sub: func(m uint32, dst, a, b []uint32) {
			n := whole(len(dst))
			if n > 0 {
				by.sub(m, n, &dst[0], &a[:n][0], &b[:n][0])
			}
			generic.sub(m, dst[n:], a[n:], b[n:])
		},
		lift: func(m uint32, dst []int32, v []uint32) {
			n := whole(len(dst))
			if n > 0 {
				by.lift(m, n, &dst[0], &v[:n][0])
			}
			generic.lift(m, dst[n:], v[n:])
		},
		// Words from a table's places are moved first, one by one: that is faster than gather
		// instructions.
		subMasked: func(m uint32, dst []uint32, x []int32, t table, moved []int32) {
			for n := min(whole(len(dst)), moves); n > 0; n = min(whole(len(dst)), moves) {
				move(n, &moved[:n][0], &x[0], &t.from[:n][0])
				by.subScaled(m, n, &dst[0], &moved[0], &t.high[:n][0], &t.low[:n][0])
				dst, t = dst[n:], t.after(n)
			}
			generic.subMasked(m, dst, x, t, nil)
		},
		subSmall: func(m uint32, dst []uint32, x []int32, t table, moved []int32) {
			for n := min(whole(len(dst)), moves); n > 0; n = min(whole(len(dst)), moves) {
				move(n, &moved[:n][0], &x[0], &t.from[:n][0])
				by.subSmall(m, n, &dst[0], &moved[0], &t.unit[:n][0], &t.ratio[:n][0])
				dst, t = dst[n:], t.after(n)
			}
			generic.subSmall(m, dst, x, t, nil)
		},
		liftMasked: func(m uint32, dst []int32, v, w []uint32, t table, moved []int32) {
			n := whole(len(dst))
			if n > 0 {
				by.liftScaled(m, n, &moved[:n][0], &v[:n][0], &w[:n][0], &t.high[:n][0], &t.low[:n][0])
			}
			liftScaled(m, moved[n:len(dst)], v[n:], w[n:], t.after(n))
			if n > 0 {
				move(n, &dst[0], &moved[0], &t.from[:n][0])
			}
			for i, j := range t.from[n:len(dst)] {
				dst[n+i] = moved[j]
			}
		},
		scale: func(m uint32, dst, v []uint32, high, low uint32) {
			n := whole(len(dst))
			if n > 0 {
				by.scale(m, n, &dst[0], &v[:n][0], high, low)
			}
			generic.scale(m, dst[n:], v[n:], high, low)
		},
		round: func(dst []int32, v []float32, inverse float64) {
			n := whole(len(dst))
			if n > 0 {
				by.round(n, &dst[0], &v[:n][0], inverse)
			}
			generic.round(dst[n:], v[n:], inverse)
		},
		roundPairs: generic.roundPairs, subPairs: generic.subPairs, liftPairs: generic.liftPairs,
	}
}

// pairs are routines for two samples at once. They take n places, a positive multiple of
// lanes; sub uses 2n words of moved.
type pairs struct {
	lanes int
	round func(n int, dst *int32, v0, v1 *float32, inverse0, inverse1 float64)
	sub   func(m uint32, n int, dst0, dst1 *uint32, x, from *int32, unit *uint32, ratio *float32, moved *int32)
	lift  func(m uint32, n int, dst *int32, v0, w0, v1, w1, high, low *uint32)
}

// withPairs returns p with passes over two samples at once.
func withPairs(p passes, by pairs) passes {
	whole := func(n int) int { return n &^ (by.lanes - 1) }
	p.pairs = true
	p.roundPairs = func(dst []int32, v0, v1 []float32, inverse [2]float64) {
		n := whole(len(v0))
		if n > 0 {
			by.round(n, &dst[:2*n][0], &v0[0], &v1[:n][0], inverse[0], inverse[1])
		}
		generic.roundPairs(dst[2*n:], v0[n:], v1[n:], inverse)
	}
	p.subPairs = func(m uint32, dst0, dst1 []uint32, x []int32, t table, moved []int32) {
		for n := min(whole(len(dst0)), moves); n > 0; n = min(whole(len(dst0)), moves) {
			by.sub(m, n, &dst0[0], &dst1[:n][0], &x[0], &t.from[:n][0], &t.unit[:n][0], &t.ratio[:n][0], &moved[:2*n][0])
			dst0, dst1, t = dst0[n:], dst1[n:], t.after(n)
		}
		generic.subPairs(m, dst0, dst1, x, t, nil)
	}
	p.liftPairs = func(m uint32, dst []int32, v0, w0, v1, w1 []uint32, t table, moved []int32) {
		n := whole(len(v0))
		if n > 0 {
			by.lift(m, n, &moved[:2*n][0], &v0[0], &w0[:n][0], &v1[:n][0], &w1[:n][0], &t.high[:n][0], &t.low[:n][0])
		}
		liftScaledPairs(m, moved[2*n:], v0[n:], w0[n:], v1[n:], w1[n:], t.after(n))
		if n > 0 {
			movePairs(n, &dst[:2*n][0], &moved[0], &t.from[:n][0])
		}
		for i, j := range t.from[n:len(v0)] {
			dst[2*(n+i)], dst[2*(n+i)+1] = moved[2*j], moved[2*j+1]
		}
	}
	return p
}

// movedPairsAVX2 moves all pairs before it multiplies them.
func movedPairsAVX2(m uint32, n int, dst0, dst1 *uint32, x, from *int32, unit *uint32, ratio *float32, moved *int32) {
	movePairs(n, moved, x, from)
	subPairsAVX2(m, n, dst0, dst1, moved, unit, ratio)
}

// withNear returns p with AVX-512 routines for near tables.
func withNear(p passes) passes {
	far := p
	p.near = true
	p.subMasked = func(m uint32, dst []uint32, x []int32, t table, moved []int32) {
		if !t.near {
			far.subMasked(m, dst, x, t, moved)
			return
		}
		n := len(dst) &^ 31
		if n > 0 {
			subNearAVX512(m, n, &dst[0], &x[:n][0], &t.from[:n][0], &t.high[:n][0], &t.low[:n][0])
		}
		generic.subMasked(m, dst[n:], x, t.after(n), nil)
	}
	p.subSmall = func(m uint32, dst []uint32, x []int32, t table, moved []int32) {
		if !t.near {
			far.subSmall(m, dst, x, t, moved)
			return
		}
		n := len(dst) &^ 31
		if n > 0 {
			subSmallNearAVX512(m, n, &dst[0], &x[:n][0], &t.from[:n][0], &t.unit[:n][0], &t.ratio[:n][0])
		}
		generic.subSmall(m, dst[n:], x, t.after(n), nil)
	}
	p.liftMasked = func(m uint32, dst []int32, v, w []uint32, t table, moved []int32) {
		if !t.near {
			far.liftMasked(m, dst, v, w, t, moved)
			return
		}
		n := len(dst) &^ 31
		if n > 0 {
			liftNearAVX512(m, n, &dst[0], &v[:n][0], &w[:n][0], &t.from[:n][0], &t.high[:n][0], &t.low[:n][0])
		}
		liftScaled(m, moved[n:len(dst)], v[n:], w[n:], t.after(n))
		for i, j := range t.from[n:len(dst)] {
			dst[n+i] = moved[j]
		}
	}
	return p
}

// move sets dst[i] to src[from[i]] for n words, a positive multiple of 8.
//
//go:noescape
func move(n int, dst, src, from *int32)

// movePairs is move for pairs of words.
//
//go:noescape
func movePairs(n int, dst, src, from *int32)

//go:noescape
func roundPairsAVX512(n int, dst *int32, v0, v1 *float32, inverse0, inverse1 float64)

//go:noescape
func subPairsAVX512(m uint32, n int, dst0, dst1 *uint32, x, from *int32, unit *uint32, ratio *float32, moved *int32)

//go:noescape
func liftPairsAVX512(m uint32, n int, dst *int32, v0, w0, v1, w1, high, low *uint32)

//go:noescape
func roundPairsAVX2(n int, dst *int32, v0, v1 *float32, inverse0, inverse1 float64)

//go:noescape
func subPairsAVX2(m uint32, n int, dst0, dst1 *uint32, moved *int32, unit *uint32, ratio *float32)

//go:noescape
func liftPairsAVX2(m uint32, n int, dst *int32, v0, w0, v1, w1, high, low *uint32)

//go:noescape
func topAVX512(v *uint32, n int, bias, mask uint32) uint32

//go:noescape
func addAVX512(m uint32, n int, dst *uint32, x *int32)

//go:noescape
func subAVX512(m uint32, n int, dst, a, b *uint32)

//go:noescape
func liftAVX512(m uint32, n int, dst *int32, v *uint32)

//go:noescape
func subScaledAVX512(m uint32, n int, dst *uint32, x *int32, high, low *uint32)

//go:noescape
func subSmallAVX512(m uint32, n int, dst *uint32, x *int32, unit *uint32, ratio *float32)

//go:noescape
func liftScaledAVX512(m uint32, n int, dst *int32, v, w, high, low *uint32)

//go:noescape
func scaleAVX512(m uint32, n int, dst, v *uint32, high, low uint32)

//go:noescape
func roundAVX512(n int, dst *int32, v *float32, inverse float64)

//go:noescape
func topAVX2(v *uint32, n int, bias, mask uint32) uint32

//go:noescape
func addAVX2(m uint32, n int, dst *uint32, x *int32)

//go:noescape
func subAVX2(m uint32, n int, dst, a, b *uint32)

//go:noescape
func liftAVX2(m uint32, n int, dst *int32, v *uint32)

//go:noescape
func subScaledAVX2(m uint32, n int, dst *uint32, x *int32, high, low *uint32)

//go:noescape
func subSmallAVX2(m uint32, n int, dst *uint32, x *int32, unit *uint32, ratio *float32)

//go:noescape
func liftScaledAVX2(m uint32, n int, dst *int32, v, w, high, low *uint32)

//go:noescape
func scaleAVX2(m uint32, n int, dst, v *uint32, high, low uint32)

//go:noescape
func roundAVX2(n int, dst *int32, v *float32, inverse float64)

//go:noescape
func subNearAVX512(m uint32, n int, dst *uint32, x *int32, from *int32, high, low *uint32)

//go:noescape
func subSmallNearAVX512(m uint32, n int, dst *uint32, x, from *int32, unit *uint32, ratio *float32)

//go:noescape
func liftNearAVX512(m uint32, n int, dst *int32, v, w *uint32, from *int32, high, low *uint32)
