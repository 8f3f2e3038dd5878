package graph

import (
	"fmt"
	"slices"
)

// Affine is y = a x + b with one a and b a channel, as of a batch norm or of a
// normalised input. Both are secrets of the model, as weights are.
type Affine struct {
	Scale []float32 // a; nil for 1
	Shift []float32 // b; nil for 0. One of the two is given.
}

func (*Affine) Name() string  { return "affine" }
func (*Affine) InPlace() bool { return true }

func (a *Affine) OutShape(in ...Shape) (Shape, error) {
	s, err := single(in)
	if err != nil {
		return Shape{}, err
	}
	if a.Scale == nil && a.Shift == nil {
		return Shape{}, fmt.Errorf("%w: neither scale nor shift", ErrInvalid)
	}
	for _, v := range [][]float32{a.Scale, a.Shift} {
		if v != nil && len(v) != s.C {
			return Shape{}, fmt.Errorf("%w: %d scales or shifts for %d channels", ErrInvalid, len(v), s.C)
		}
		if i := notFinite(v); i >= 0 {
			return Shape{}, fmt.Errorf("%w: scale or shift %d", ErrNotFinite, i)
		}
	}
	return s, nil
}

func (a *Affine) Apply(dst []float32, _ int, shapes []Shape, in ...[]float32) {
	src, c := in[0], shapes[0].C
	for i := 0; i < len(dst); i += c {
		scaleAndShift(dst[i:][:c], src[i:][:c], a.Scale, a.Shift)
	}
}

// scaleAndShift sets dst to scale x + shift, each of as many elements, rounded after either step. A nil
// scale is 1 and a nil shift 0. dst may be x.
func scaleAndShift(dst, x, scale, shift []float32) {
	if scale == nil {
		copy(dst, x)
	} else {
		x = x[:len(scale)]
		for i, v := range scale[:len(dst)] {
			dst[i] = v * x[i]
		}
	}
	if shift != nil {
		for i, v := range shift[:len(dst)] {
			dst[i] += v
		}
	}
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

// masks reports whether a shift is infinite.
func (a *ElementAffine) masks() bool { return notFinite(a.Shift) >= 0 }

func (*ElementAffine) Name() string  { return "element_affine" }
func (*ElementAffine) InPlace() bool { return true }

func (a *ElementAffine) OutShape(in ...Shape) (Shape, error) {
	s, err := a.outShape(in)
	if err == nil {
		err = a.check(map[constant]bool{})
	}
	return s, err
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

func (a *ElementAffine) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	s, e, src := shapes[0], a.Extent, in[0]
	for y := range n * s.H {
		for x := range s.W {
			scale, shift := a.at(y%s.H, x)
			for at := (y*s.W + x) * s.C; at < (y*s.W+x+1)*s.C; at += e.C {
				scaleAndShift(dst[at:][:e.C], src[at:][:e.C], scale, shift)
			}
		}
	}
}

// at returns the scales and shifts of the Extent.C channels at row y and column x, nil where a has none.
func (a *ElementAffine) at(y, x int) (scale, shift []float32) {
	e := a.Extent
	from := (y%e.H*e.W + x%e.W) * e.C
	if a.Scale != nil {
		scale = a.Scale[from:][:e.C]
	}
	if a.Shift != nil {
		shift = a.Shift[from:][:e.C]
	}
	return scale, shift
}
