package graph

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

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

// ElementAffine is y = a x + b with an a and b for each element, in H, W, C order, as of
// a position embedding, of a mask, or of a layer norm over a map. Extent divides the
// value's along each axis, and what it holds is repeated. They are secrets of the model,
// as weights are.
type ElementAffine struct {
	Extent Shape
	Scale  []float32 // a; nil for 1
	Shift  Shifts    // b; nil for 0. One of the two is given.
}

// Shifts are finite, or negative infinity, as masks of attention have it where a softmax is to
// give 0.
type Shifts []float32

// infinite stands for negative infinity in JSON, which has no number for it.
const infinite = "-inf"

// MarshalJSON writes them as numbers.
func (s Shifts) MarshalJSON() ([]byte, error) {
	if notFinite(s) < 0 {
		return json.Marshal([]float32(s))
	}
	v := make([]any, len(s))
	for i, x := range s {
		if v[i] = x; negativeInfinity(x) {
			v[i] = infinite
		}
	}
	return json.Marshal(v)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Shifts) UnmarshalJSON(b []byte) error {
	var v []shift
	if err := json.Unmarshal(b, &v); err != nil || v == nil {
		*s = nil
		return err
	}
	*s = make(Shifts, len(v))
	for i, x := range v {
		(*s)[i] = float32(x)
	}
	return nil
}

// shift is one of Shifts.
type shift float32

func (s *shift) UnmarshalJSON(b []byte) error {
	if string(b) == strconv.Quote(infinite) {
		*s = shift(math.Inf(-1))
		return nil
	}
	return json.Unmarshal(b, (*float32)(s))
}

func negativeInfinity(v float32) bool { return v < -math.MaxFloat32 }

// masks reports whether a shift is infinite.
func (a *ElementAffine) masks() bool { return notFinite(a.Shift) >= 0 }

func (Product) Name() string        { return "product" }
func (*ElementAffine) Name() string { return "element_affine" }

func (Product) InPlace() bool        { return false }
func (*ElementAffine) InPlace() bool { return true }

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

func (a *ElementAffine) OutShape(in ...Shape) (Shape, error) {
	s, err := a.outShape(in)
	if err == nil {
		err = a.check(map[constant]bool{})
	}
	return s, err
}

// A constant is one by where it is, and what it may hold.
type constant struct {
	first *float32
	n     int
	shift bool
}

// check returns an error unless scales are finite, and shifts so or masks. It looks at none that
// is checked already: operators may share what takes long to look at.
func (a *ElementAffine) check(checked map[constant]bool) error {
	done := func(v []float32, shift bool) bool {
		if len(v) == 0 {
			return true
		}
		c := constant{&v[0], len(v), shift}
		was := checked[c]
		checked[c] = true
		return was
	}
	if !done(a.Scale, false) {
		if i := notFinite(a.Scale); i >= 0 {
			return fmt.Errorf("%w: scale %d", ErrNotFinite, i)
		}
	}
	if !done(a.Shift, true) {
		if i := slices.IndexFunc(a.Shift, func(v float32) bool { return v-v != 0 && !negativeInfinity(v) }); i >= 0 {
			return fmt.Errorf("%w: shift %d", ErrNotFinite, i)
		}
	}
	return nil
}

// outShape is OutShape, but for what check looks at.
func (a *ElementAffine) outShape(in []Shape) (Shape, error) {
	s, err := single(in)
	if err != nil {
		return Shape{}, err
	}
	e := a.Extent
	if err := e.Check(); err != nil {
		return Shape{}, err
	}
	if a.Scale == nil && a.Shift == nil {
		return Shape{}, fmt.Errorf("%w: neither scale nor shift", ErrInvalid)
	}
	if s.H%e.H != 0 || s.W%e.W != 0 || s.C%e.C != 0 {
		return Shape{}, fmt.Errorf("%w: scales or shifts of %v for %v", ErrInvalid, e, s)
	}
	for _, v := range [][]float32{a.Scale, a.Shift} {
		if v != nil && len(v) != e.Len() {
			return Shape{}, fmt.Errorf("%w: %d scales or shifts for %v", ErrInvalid, len(v), e)
		}
	}
	return s, nil
}

func (a *ElementAffine) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	s, e, src := shapes[0], a.Extent, in[0]
	for y := range n * s.H {
		for x := range s.W {
			from := (y%s.H%e.H*e.W + x%e.W) * e.C
			for at := (y*s.W + x) * s.C; at < (y*s.W+x+1)*s.C; at += e.C {
				d, v := dst[at:][:e.C], src[at:][:e.C]
				if a.Scale == nil {
					copy(d, v)
				} else {
					for i, w := range a.Scale[from:][:len(d)] {
						d[i] = w * v[i]
					}
				}
				if a.Shift != nil {
					for i, w := range a.Shift[from:][:len(d)] {
						d[i] += w
					}
				}
			}
		}
	}
}
