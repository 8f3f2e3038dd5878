package graph

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/securenets/securenets/plan"
)

const (
	// part is how many products are summed in float32; these sums are added in float64. gonum cuts
	// what it spreads over cores into blocks of as many terms: within one, a sum has one order.
	part = 64
	// tileRows and tileColumns bound what is multiplied at a time, and patchWords the elements of
	// patches in it, unless one row has more.
	tileRows    = 1 << 9
	tileColumns = 1 << 9
	patchWords  = 1 << 20
)

// Multiply sets dst to W x + b of n samples, sample-major, as no cloud computes it: in floats.
// W are the weights of l, Plan().Rows() x Plan().Terms(). A sample's result does not depend on the
// others.
func Multiply(l Linear, w, dst []float32, n int, x []float32) {
	op, b := l.Plan(), l.Bias()
	outs, terms := op.Rows(), op.Terms()
	rows, groups, high := n, 1, tileRows
	conv := op.Kind == plan.KindConv2D
	if conv {
		groups = op.Conv.Groups
		rows *= op.Conv.Positions()
		high = max(1, min(high, patchWords/terms))
	}
	high = min(high, rows)
	own := outs / groups
	wide := min(own, tileColumns)
	sums, buf := make([]float64, high*wide), make([]float32, high*wide)
	var patches []float32
	if conv {
		patches = make([]float32, high*terms)
	}
	for i := 0; i < rows; i += high {
		k := min(high, rows-i)
		for g := range groups {
			in := patches
			if conv {
				unroll(patches, &op.Conv, x, i, k, g)
			} else {
				in = x[i*terms:]
			}
			for j := g * own; j < (g+1)*own; j += wide {
				width := min(wide, (g+1)*own-j)
				y := sums[:k*width]
				product(y, buf, in[:k*terms], w[j*terms:][:width*terms], terms)
				var bias []float32
				if b != nil {
					bias = b[j:][:width]
				}
				round(dst[i*outs+j:], outs, y, width, bias)
			}
		}
	}
}

// unroll sets patches to those of group g at k output positions from i on, which go on from sample
// to sample.
func unroll(patches []float32, c *plan.Conv2D, x []float32, i, k, g int) {
	terms, positions, outW, in := c.Patch(), c.Positions(), c.OutW(), c.H*c.W*c.C
	for r := range k {
		at := (i + r) % positions
		plan.Patch(patches[r*terms:][:terms], c, x[(i+r)/positions*in:][:in], at/outW, at%outW, g)
	}
}

// product sets y to x wᵀ, whose rows have so many terms. Buf holds as many floats as y, or more.
// The order of a sum depends on where in memory w lies, to 16 bytes, and on nothing of x.
func product(y []float64, buf, x, w []float32, terms int) {
	rows, cols := len(x)/terms, len(w)/terms
	clear(y)
	for k := 0; k < terms; k += part {
		depth := min(part, terms-k)
		blas32.Gemm(blas.NoTrans, blas.Trans, 1,
			blas32.General{Rows: rows, Cols: depth, Stride: terms, Data: x[k:]},
			blas32.General{Rows: cols, Cols: depth, Stride: terms, Data: w[k:]},
			0, blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: buf})
		for i := range y {
			y[i] += float64(buf[i])
		}
	}
}

// round sets rows of dst, stride apart, to those of y, of width sums, plus b unless it is nil.
func round(dst []float32, stride int, y []float64, width int, b []float32) {
	for r := 0; len(y) > 0; r, y = r+1, y[width:] {
		to := dst[r*stride:][:width]
		for c, s := range y[:width] {
			if b != nil {
				s += float64(b[c])
			}
			to[c] = float32(s)
		}
	}
}
