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
		d, x := dst[i:][:c], src[i:][:c]
		if a.Scale == nil {
			copy(d, x)
		}
		for j, v := range a.Scale {
			d[j] = v * x[j]
		}
		for j, v := range a.Shift {
			d[j] += v
		}
	}
}

// after returns the scale and shift of a(s x + t) + b. Each step is rounded, so
// that it makes no difference whether a comes whole or as its scale and its shift.
func (a *Affine) after(s, t []float32) (scale, shift []float32) {
	scale, shift = slices.Clone(s), slices.Clone(t)
	if scale == nil {
		scale = slices.Clone(a.Scale)
	} else {
		multiply(scale, a.Scale)
	}
	multiply(shift, a.Scale)
	if shift == nil {
		return scale, slices.Clone(a.Shift)
	}
	for i, v := range a.Shift {
		shift[i] += v
	}
	return scale, shift
}

// multiply multiplies v by the elements of by. Either may be nil.
func multiply(v, by []float32) {
	for i := range min(len(v), len(by)) {
		v[i] *= by[i]
	}
}
