package graph

import (
	"fmt"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// Product is the matrix product of two values: for each row of the map, a b, where a of
// W x C is that row of the first, with C for its columns, and b that of the second. In the
// terms of attention a row of the map is a head, and both are products of sequences:
// scores are q kᵀ, and what they weigh is p v.
type Product struct {
	Transposed bool // a bᵀ
}

func (Product) Name() string  { return "product" }
func (Product) InPlace() bool { return false }

func (p Product) OutShape(in ...Shape) (Shape, error) {
	if len(in) != 2 {
		return Shape{}, fmt.Errorf("%w: %d inputs, want 2", ErrInvalid, len(in))
	}
	a, b := in[0], in[1]
	inner, out := b.W, b.C
	if p.Transposed {
		inner, out = out, inner
	}
	if a.H != b.H || a.C != inner {
		return Shape{}, fmt.Errorf("%w: product of %v and %v", ErrInvalid, a, b)
	}
	return Shape{a.H, a.W, out}, nil
}

// Apply leaves the products to gonum, which spreads large ones over cores. What is to be
// transposed is so before: gonum's own product with a transposed matrix is of sums in an
// order that hangs on where in memory the matrix lies.
func (p Product) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	s, t := shapes[0], shapes[1]
	inner, out := t.W, t.C
	var turned []float32
	if p.Transposed {
		inner, out = out, inner
		turned = make([]float32, inner*out)
	}
	matrix := func(rows, cols int, data []float32) blas32.General {
		return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data[:rows*cols]}
	}
	for i := range n * s.H {
		b := in[1][i*inner*out:][:inner*out]
		if p.Transposed {
			transpose(turned, b, 1, out, inner)
			b = turned
		}
		blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, matrix(s.W, inner, in[0][i*s.W*inner:]), matrix(inner, out, b), 0, matrix(s.W, out, dst[i*s.W*out:]))
	}
}
