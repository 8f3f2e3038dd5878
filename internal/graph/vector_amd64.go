//go:build !purego

package graph

import "github.com/securenets/securenets/internal/cpuid"

// tiers are those that this machine can run, the fastest first.
var tiers = func() []vector {
	if !cpuid.AVX2() {
		return []vector{scalar}
	}
	return []vector{{
		name: "avx2",
		maximum: func(dst, a, b []float32, n, strideA, strideB int) {
			runs, whole := len(dst)/n, n&^7
			if runs == 0 || whole == 0 || runs > 1 && whole < n {
				scalar.maximum(dst, a, b, n, strideA, strideB)
				return
			}
			maximumAVX2(&dst[0], &a[:(runs-1)*strideA+n][0], &b[:(runs-1)*strideB+n][0], whole, strideA, strideB, runs)
			if whole < n {
				scalar.maximum(dst[whole:], a[whole:], b[whole:], n-whole, 0, 0)
			}
		},
		rectify: func(dst, v []float32) {
			n := len(dst) &^ 7
			if n > 0 {
				rectifyAVX2(&dst[0], &v[:n][0], n)
			}
			scalar.rectify(dst[n:], v[n:])
		},
		accumulate: func(dst, h, m []float32) {
			if n := len(h); n > 0 {
				accumulateAVX2(&dst[:panel][0], &h[0], &m[:n*panel][0], n)
			}
		},
	}, scalar}
}()

// maximumAVX2 takes runs, one or more, of n elements, a multiple of 8 that is not 0.
//
//go:noescape
func maximumAVX2(dst, a, b *float32, n, strideA, strideB, runs int)

// rectifyAVX2 takes n elements, a multiple of 8 that is not 0.
//
//go:noescape
func rectifyAVX2(dst, v *float32, n int)

// accumulateAVX2 takes n rows, one or more.
//
//go:noescape
func accumulateAVX2(dst, h, m *float32, n int)
