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

func (Pool) InPlace() bool { return false }

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
	return out, out.check()
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

func (p MaxPool) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	s, src := shapes[0], in[0]
	p.windows(n, s, func(at, from, rows, cols int) {
		pixels := rows * cols
		pixel := func(k int) []float32 { // the last one, where there are no more
			k = min(k, pixels-1)
			return src[(from+k/cols*s.W+k%cols)*s.C:][:s.C]
		}
		d := dst[at*s.C:][:s.C]
		largest(d, pixel(0), pixel(1), pixel(2), pixel(3))
		for k := 4; k < pixels; k += 3 {
			largest(d, d, pixel(k), pixel(k+1), pixel(k+2))
		}
	})
}

// largest sets each element of dst to the largest of four.
func largest(dst, a, b, c, d []float32) {
	a, b, c, d = a[:len(dst)], b[:len(dst)], c[:len(dst)], d[:len(dst)]
	for i := range dst {
		dst[i] = max(a[i], b[i], c[i], d[i])
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
