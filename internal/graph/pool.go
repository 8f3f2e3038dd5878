package graph

import (
	"fmt"
	"math"
)

// Pool is the geometry of a pooling window. All sizes are in elements; padding
// is smaller than the window, so that every window holds some of the map.
type Pool struct {
	KH, KW                int // window
	SH, SW                int // stride
	Top, Left, Bot, Right int // padding
}

type (
	// MaxPool takes the largest element under the window; padding never wins.
	MaxPool struct{ Pool }
	// AvgPool takes the mean under the window.
	AvgPool struct {
		Pool
		CountPad bool // padding counts in the divisor
	}
	// SumPool takes the sum under the window: the "scaled mean pool" of CryptoNets.
	SumPool struct{ Pool }
)

func (MaxPool) Name() string { return "max_pool" }
func (AvgPool) Name() string { return "avg_pool" }
func (SumPool) Name() string { return "sum_pool" }
func (Pool) InPlace() bool   { return false }

func (p Pool) OutShape(in ...Shape) (Shape, error) {
	s, err := single(in)
	if err != nil {
		return Shape{}, err
	}
	for _, v := range []int{s.H, s.W, s.C, p.KH, p.KW, p.SH, p.SW} {
		if v <= 0 || v > math.MaxInt32 {
			return Shape{}, fmt.Errorf("%w: size %d", ErrInvalid, v)
		}
	}
	if min(p.Top, p.Left, p.Bot, p.Right) < 0 || max(p.Top, p.Bot) >= p.KH || max(p.Left, p.Right) >= p.KW {
		return Shape{}, fmt.Errorf("%w: padding %d, %d, %d, %d of a %dx%d window",
			ErrInvalid, p.Top, p.Left, p.Bot, p.Right, p.KH, p.KW)
	}
	// Every size is below 2^31, so no sum overflows.
	h, w := s.H+p.Top+p.Bot-p.KH, s.W+p.Left+p.Right-p.KW
	if h < 0 || w < 0 {
		return Shape{}, fmt.Errorf("%w: %dx%d window over %v", ErrInvalid, p.KH, p.KW, s)
	}
	out := Shape{h/p.SH + 1, w/p.SW + 1, s.C}
	return out, out.Check()
}

// windows calls f for every output position of n samples, in order, with the
// position's number and the part of its window that is on the map: rows x cols
// pixels from pixel number from on, its rows s.W pixels apart.
func (p Pool) windows(n int, s Shape, f func(at, from, rows, cols int)) {
	out, err := p.OutShape(s)
	if err != nil {
		panic(err) // the graph was validated
	}
	at := 0
	for i := range n {
		for y := range out.H {
			y0 := y*p.SH - p.Top
			top, bot := max(y0, 0), min(y0+p.KH, s.H)
			for x := range out.W {
				x0 := x*p.SW - p.Left
				left, right := max(x0, 0), min(x0+p.KW, s.W)
				f(at, (i*s.H+top)*s.W+left, bot-top, right-left)
				at++
			}
		}
	}
}

// Apply takes the largest of the rows under a row of windows first, and of their columns then:
// loops are over elements that are side by side.
func (p MaxPool) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	s, src := shapes[0], in[0]
	out, err := p.OutShape(s)
	if err != nil {
		panic(err) // the graph was validated
	}
	width, largest := s.W*s.C, make([]float32, s.W*s.C)
	// Windows from first on and before last have all of their columns on the map.
	first, last := min((p.Left+p.SW-1)/p.SW, out.W), 0
	if right := s.W + p.Left - p.KW; right >= 0 {
		last = min(right/p.SW+1, out.W)
	}
	last = max(first, last)
	for i := range n {
		for y := range out.H {
			y0 := y*p.SH - p.Top
			top, bot := max(y0, 0), min(y0+p.KH, s.H)
			row := func(h int) []float32 { return src[(i*s.H+h)*width:][:width] }
			rows := row(top)
			for h := top + 1; h < bot; h++ {
				vectors.maximum(largest, rows, row(h), width, width, width)
				rows = largest
			}
			d := dst[(i*out.H+y)*out.W*s.C:][:out.W*s.C]
			// columns does windows x to end, the first of which is over columns left to right.
			columns := func(x, end, left, right int) {
				if x == end {
					return
				}
				d, stride := d[x*s.C:end*s.C], p.SW*s.C
				vectors.maximum(d, rows[left*s.C:], rows[min(left+1, right-1)*s.C:], s.C, stride, stride)
				for k := left + 2; k < right; k++ {
					vectors.maximum(d, d, rows[k*s.C:], s.C, s.C, stride)
				}
			}
			clipped := func(x int) {
				x0 := x*p.SW - p.Left
				columns(x, x+1, max(x0, 0), min(x0+p.KW, s.W))
			}
			for x := range first {
				clipped(x)
			}
			columns(first, last, first*p.SW-p.Left, first*p.SW-p.Left+p.KW)
			for x := last; x < out.W; x++ {
				clipped(x)
			}
		}
	}
}

func (p SumPool) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	p.sums(dst, n, shapes[0], in[0], func([]float32, int) {})
}

func (p AvgPool) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	p.sums(dst, n, shapes[0], in[0], func(d []float32, pixels int) {
		div := float32(pixels)
		if p.CountPad {
			div = float32(p.KH * p.KW)
		}
		for i := range d {
			d[i] /= div
		}
	})
}

// sums sets dst to the sums under the windows, and calls f for every output
// position, in order, with its channels and the pixels of the map under its window.
func (p Pool) sums(dst []float32, n int, s Shape, src []float32, f func(d []float32, pixels int)) {
	p.windows(n, s, func(at, from, rows, cols int) {
		d := dst[at*s.C:][:s.C]
		clear(d)
		for r := range rows {
			for q := range cols {
				for i, v := range src[(from+r*s.W+q)*s.C:][:len(d)] {
					d[i] += v
				}
			}
		}
		f(d, rows*cols)
	})
}
