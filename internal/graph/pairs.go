package graph

import (
	"fmt"
	"slices"
)

// Operators of two values, element by element. The second may have an extent of 1
// along H, W or C where the first has more, and then counts for all along it.
type (
	// Add is the sum.
	Add struct{ pairwise }
	// Sub is the first less the second.
	Sub struct{ pairwise }
	// Mul is the product.
	Mul struct{ pairwise }
	// Div is the first divided by the second.
	Div struct{ pairwise }
	// Max is the larger one.
	Max struct{ pairwise }
	// Min is the smaller one.
	Min struct{ pairwise }
)

func (Add) Name() string { return "add" }
func (Sub) Name() string { return "sub" }
func (Mul) Name() string { return "mul" }
func (Div) Name() string { return "div" }
func (Max) Name() string { return "max" }
func (Min) Name() string { return "min" }

// pairwise is embedded in operators of two values: the result has the first one's shape, and may take
// its place.
type pairwise struct{}

func (pairwise) InPlace() bool { return true }

func (pairwise) OutShape(in ...Shape) (Shape, error) {
	if len(in) != 2 || !in[1].Suits(in[0]) {
		return Shape{}, fmt.Errorf("%w: inputs of %v, want two, the second of the first's shape or of 1 along an axis", ErrInvalid, in)
	}
	return in[0], nil
}

// Suits reports whether each extent is that of t or 1.
func (s Shape) Suits(t Shape) bool {
	return (s.H == t.H || s.H == 1) && (s.W == t.W || s.W == 1) && (s.C == t.C || s.C == 1)
}

func (Add) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	rows(dst, n, shapes, in, func(d, a, b []float32) {
		for i, v := range a[:len(d)] {
			d[i] = v + b[i]
		}
	})
}

func (Sub) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	rows(dst, n, shapes, in, func(d, a, b []float32) {
		for i, v := range a[:len(d)] {
			d[i] = v - b[i]
		}
	})
}

func (Mul) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	rows(dst, n, shapes, in, func(d, a, b []float32) {
		for i, v := range a[:len(d)] {
			d[i] = v * b[i]
		}
	})
}

func (Div) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	rows(dst, n, shapes, in, func(d, a, b []float32) {
		for i, v := range a[:len(d)] {
			d[i] = v / b[i]
		}
	})
}

func (Max) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	rows(dst, n, shapes, in, func(d, a, b []float32) { vectors.maximum(d, a, b, len(d), 0, 0) })
}

func (Min) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	rows(dst, n, shapes, in, func(d, a, b []float32) {
		for i, v := range a[:len(d)] {
			d[i] = min(v, b[i])
		}
	})
}

// rows calls f for the elements of dst and those of both inputs that belong to
// them: all at once where the shapes are one, otherwise a position's channels.
func rows(dst []float32, n int, shapes []Shape, in [][]float32, f func(d, a, b []float32)) {
	s, t := shapes[0], shapes[1]
	if s == t {
		f(dst, in[0][:len(dst)], in[1][:len(dst)])
		return
	}
	b := in[1]
	one := slices.Repeat([]float32{0}, s.C) // a channel that counts for all
	at := 0
	for i := range n {
		for y := range s.H {
			for x := range s.W {
				row := b[((i*t.H+y%t.H)*t.W+x%t.W)*t.C:][:t.C]
				if t.C < s.C {
					for c := range one {
						one[c] = row[0]
					}
					row = one
				}
				f(dst[at:][:s.C], in[0][at:][:s.C], row)
				at += s.C
			}
		}
	}
}
