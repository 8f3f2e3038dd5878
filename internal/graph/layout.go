package graph

// CHWToHWC sets dst to the n samples of src, taken from C, H, W order (ONNX's)
// to H, W, C order. Both hold n·s.Len() elements and must not overlap.
func CHWToHWC(dst, src []float32, n int, s Shape) { transpose(dst, src, n, s.C, s.H*s.W) }

// HWCToCHW is the inverse of CHWToHWC.
func HWCToCHW(dst, src []float32, n int, s Shape) { transpose(dst, src, n, s.H*s.W, s.C) }

// transpose sets dst to the transposes of n row-major matrices of rows x cols.
func transpose(dst, src []float32, n, rows, cols int) {
	l := rows * cols
	if len(dst) != n*l || len(src) != n*l {
		panic("graph: batch of the wrong length")
	}
	if rows == 1 || cols == 1 {
		copy(dst, src)
		return
	}
	// A block's rows of dst and src stay in the first-level cache together.
	const block = 32
	for ; n > 0; n, dst, src = n-1, dst[l:], src[l:] {
		for i0 := 0; i0 < rows; i0 += block {
			i1 := min(i0+block, rows)
			for j := range cols {
				d := dst[j*rows:][:rows]
				for i := i0; i < i1; i++ {
					d[i] = src[i*cols+j]
				}
			}
		}
	}
}
