package graph

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/securenets/securenets/plan"
)

const (
	// part is how many products are summed in float32; these sums are added in float64.
	part = 256
	// chunkRows and chunkWords bound what is multiplied at a time: rows, and the elements of
	// patches in them unless one row has more.
	chunkRows  = 1 << 12
	chunkWords = 1 << 21
	// narrow is how many columns are too few for a panel, as those of a depthwise convolution.
	narrow = 4
)

// Multiply sets dst to W x + b of n samples, sample-major, as no cloud computes it: in floats.
// W are the weights of l, Plan().Rows() x Plan().Terms(). A sample's result does not depend on the
// others.
func Multiply(l Linear, w, dst []float32, n int, x []float32) {
	op, b := l.Plan(), l.Bias()
	outs, terms := op.Rows(), op.Terms()
	rows, groups, high := n, 1, chunkRows
	if op.Kind == plan.KindConv2D {
		groups = op.Conv.Groups
		rows *= op.Conv.Positions()
		high = max(1, min(high, chunkWords/terms))
	}
	var patches []float32
	if op.Kind == plan.KindConv2D {
		patches = make([]float32, min(rows, high)*terms)
	}
	for i := 0; i < rows; i += high {
		k := min(high, rows-i)
		for g := range groups {
			in := patches
			if op.Kind == plan.KindConv2D {
				unroll(patches, &op.Conv, x, i, k, g)
			} else {
				in = x[i*terms:]
			}
			from, own := g*(outs/groups), outs/groups
			panels(own, func(j, width int) {
				j += from
				y := product(w[j*terms:][:width*terms], in[:k*terms], width, terms)
				for r := range k {
					to := dst[(i+r)*outs+j:][:width]
					for c := range to {
						s := y[r*width+c]
						if b != nil {
							s += float64(b[j+c])
						}
						to[c] = float32(s)
					}
				}
			})
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

// panels calls f, on all processors, for panels of columns.
func panels(columns int, f func(j, width int)) {
	count := (columns + panel - 1) / panel
	var next atomic.Int64
	work := func() {
		for {
			p := int(next.Add(1)) - 1
			if p >= count {
				return
			}
			f(p*panel, min(panel, columns-p*panel))
		}
	}
	var wg sync.WaitGroup
	for range min(count, runtime.GOMAXPROCS(0)) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}

// product returns the products of rows of x with each of width rows of w, all of terms elements.
func product(w, x []float32, width, terms int) []float64 {
	rows := len(x) / terms
	y := make([]float64, rows*width)
	if width < narrow {
		for r := range rows {
			for c := range width {
				row, sum := w[c*terms:][:terms], 0.0
				for k, v := range x[r*terms:][:terms] {
					sum += float64(v) * float64(row[k])
				}
				y[r*width+c] = sum
			}
		}
		return y
	}
	m := make([]float32, panel*min(part, terms)) // columns that there are not stay 0
	for k0 := 0; k0 < terms; k0 += part {
		depth := min(part, terms-k0)
		for c := range width {
			for k, v := range w[c*terms+k0:][:depth] {
				m[k*panel+c] = v
			}
		}
		for r := range rows {
			var sums [panel]float32
			vectors.accumulate(sums[:], x[r*terms+k0:][:depth], m[:depth*panel])
			for c, s := range sums[:width] {
				y[r*width+c] += float64(s)
			}
		}
	}
	return y
}
