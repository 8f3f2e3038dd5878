package graph

// vector are loops over floats, in one tier. All tiers give the same floats, bit for bit
// but for which NaN one is.
type vector struct {
	name string
	// maximum sets dst, runs of n elements that follow one another, to the larger of a's and b's,
	// whose runs begin so far apart. Dst may be a or b where its runs are at the same places.
	maximum func(dst, a, b []float32, n, strideA, strideB int)
	// rectify sets dst to max(v, 0). Dst may be v.
	rectify func(dst, v []float32)
	// accumulate adds to dst, of panel floats, row after row of m, as long, each times its element of h.
	accumulate func(dst, h, m []float32)
}

// panel is how many columns of a matrix are summed at once.
const panel = 32

// vectors is the tier in use.
var vectors = tiers[0]

// scalar is the twin that others are compared with.
var scalar = vector{
	name: "scalar",
	maximum: func(dst, a, b []float32, n, strideA, strideB int) {
		for i := range len(dst) / n {
			d, a, b := dst[i*n:][:n], a[i*strideA:][:n], b[i*strideB:][:n]
			for k := range d {
				d[k] = max(a[k], b[k])
			}
		}
	},
	rectify: func(dst, v []float32) {
		v = v[:len(dst)]
		for i := range dst {
			dst[i] = max(v[i], 0)
		}
	},
	accumulate: func(dst, h, m []float32) {
		dst = dst[:panel]
		for k, v := range h {
			row := m[k*panel:][:panel]
			for i := range dst {
				dst[i] += float32(v * row[i]) // rounded twice, by every tier
			}
		}
	},
}
