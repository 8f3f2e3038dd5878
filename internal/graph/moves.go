package graph

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/plan"
)

// Transpose reads a sample in C, H, W order, as ONNX does, as a tensor of Dims,
// and permutes its axes: axis i of the result is axis Perm[i]. What comes out
// gets the shape To, in C, H, W order again. The shuffle of groups of channels is
// one, and so is what takes channels from the last axis to the first.
//
// Dims are as few as can be: none is 1, and no two neighbours stay neighbours.
// NewTranspose makes them so.
type Transpose struct {
	Dims, Perm []int
	To         Shape
}

type (
	// Range is what lies from From on and before To.
	Range struct{ From, To int }
	// Slice is the part of a map within the given rows, columns and channels, less than all.
	Slice struct{ H, W, C Range }
	// Pad puts elements of one value around a map: as many before and after it
	// as the shapes' extents say, and at least one.
	Pad struct {
		Before, After Shape
		Value         float32
	}
)

// maxDims bounds the axes of a Transpose.
const maxDims = 8

// NewTranspose returns the operator that reads a sample as a tensor of dims,
// permutes it by perm, and gives it the shape to: a Transpose, or a Reshape where
// nothing moves. Dims that are not positive and what is no permutation stay, for
// OutShape to refuse.
func NewTranspose(dims, perm []int, to Shape) Elementary {
	if !permutes(perm, len(dims)) {
		return &Transpose{dims, perm, to}
	}
	// In the order of the result, axes that follow each other are one, and those
	// of 1 are none.
	type run struct{ first, size int } // the first axis in dims
	var runs []run
	last := -1
	for _, a := range perm {
		if dims[a] == 1 {
			continue
		}
		between := last < 0 || a < last || slices.ContainsFunc(dims[last+1:a], func(d int) bool { return d != 1 })
		if last = a; !between && runs[len(runs)-1].size <= plan.MaxExtent/max(dims[a], 1) {
			runs[len(runs)-1].size *= dims[a]
			continue
		}
		runs = append(runs, run{a, dims[a]})
	}
	if len(runs) < 2 {
		return Reshape{to}
	}
	sorted := slices.Clone(runs)
	slices.SortFunc(sorted, func(a, b run) int { return a.first - b.first })
	t := &Transpose{To: to}
	for _, r := range sorted {
		t.Dims = append(t.Dims, r.size)
	}
	for _, r := range runs {
		t.Perm = append(t.Perm, slices.Index(sorted, r))
	}
	return t
}

// permutes reports whether perm holds each of 0 to n-1 once.
func permutes(perm []int, n int) bool {
	sorted := slices.Sorted(slices.Values(perm))
	for i, v := range sorted {
		if v != i {
			return false
		}
	}
	return len(perm) == n
}

func (*Transpose) Name() string { return "transpose" }
func (Slice) Name() string      { return "slice" }
func (Pad) Name() string        { return "pad" }

func (*Transpose) InPlace() bool { return false }
func (Slice) InPlace() bool      { return false }
func (Pad) InPlace() bool        { return false }

func (t *Transpose) OutShape(in ...Shape) (Shape, error) {
	s, err := single(in)
	if err != nil {
		return Shape{}, err
	}
	bad := fmt.Errorf("%w: %v as %d, transposed by %d", ErrInvalid, s, t.Dims, t.Perm)
	if len(t.Dims) < 2 || len(t.Dims) > maxDims || !permutes(t.Perm, len(t.Dims)) {
		return Shape{}, bad
	}
	l := 1
	for _, d := range t.Dims {
		if d < 2 || d > plan.MaxExtent/l {
			return Shape{}, bad
		}
		l *= d
	}
	for i, a := range t.Perm[1:] {
		if a == t.Perm[i]+1 {
			return Shape{}, bad
		}
	}
	if l != s.Len() {
		return Shape{}, bad
	}
	return Reshape{t.To}.OutShape(s)
}

func (s Slice) OutShape(in ...Shape) (Shape, error) {
	x, err := single(in)
	if err != nil {
		return Shape{}, err
	}
	for _, r := range []struct {
		Range
		extent int
	}{{s.H, x.H}, {s.W, x.W}, {s.C, x.C}} {
		if r.From < 0 || r.From >= r.To || r.To > r.extent {
			return Shape{}, fmt.Errorf("%w: %d to %d of %d", ErrInvalid, r.From, r.To, r.extent)
		}
	}
	out := Shape{s.H.To - s.H.From, s.W.To - s.W.From, s.C.To - s.C.From}
	if out == x {
		return Shape{}, fmt.Errorf("%w: a slice of everything", ErrInvalid)
	}
	return out, nil
}

func (p Pad) OutShape(in ...Shape) (Shape, error) {
	s, err := finite(in, p.Value)
	if err != nil {
		return Shape{}, err
	}
	for _, v := range []int{p.Before.H, p.Before.W, p.Before.C, p.After.H, p.After.W, p.After.C} {
		if v < 0 || v > plan.MaxExtent {
			return Shape{}, fmt.Errorf("%w: padding of %d", ErrInvalid, v)
		}
	}
	if p.Before == (Shape{}) && p.After == (Shape{}) {
		return Shape{}, fmt.Errorf("%w: no padding", ErrInvalid)
	}
	out := Shape{p.Before.H + s.H + p.After.H, p.Before.W + s.W + p.After.W, p.Before.C + s.C + p.After.C}
	return out, out.Check()
}

func (t *Transpose) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	s, l := shapes[0], shapes[0].Len()
	k, src := len(t.Dims)-1, in[0]
	if s.H == t.To.H && s.W == t.To.W && t.Perm[k] == k && t.Dims[k] == s.H*s.W {
		// Channels change places among themselves, alike at every position.
		l, n = s.C, n*s.H*s.W
		dims, perm := t.Dims[:k], t.Perm[:k]
		t, s = &Transpose{dims, perm, Vector(l)}, Vector(l)
	} else if runs := t.runs(s); runs != nil {
		for ; n > 0; n, src = n-1, src[l:] {
			dst = gather(dst, src[:l], runs)
		}
		return
	}
	from := t.sources(s)
	for ; n > 0; n, dst, src = n-1, dst[l:], src[l:] {
		d, x := dst[:l], src[:l]
		for i, j := range from {
			d[i] = x[j]
		}
	}
}

// sources returns, for each element of a result in H, W, C order, the element of a
// sample of shape s that it is.
func (t *Transpose) sources(s Shape) []uint32 {
	from := make([]uint32, s.Len())
	strides, stride := make([]int, len(t.Dims)), 1 // of the sample's axes, in C, H, W order
	for a := len(t.Dims) - 1; a >= 0; a-- {
		strides[a] = stride
		stride *= t.Dims[a]
	}
	index := make([]int, len(t.Perm)) // of the result's axes
	at := 0                           // in the sample
	for c := range t.To.C {
		for p := range t.To.H * t.To.W {
			from[p*t.To.C+c] = uint32(at%(s.H*s.W)*s.C + at/(s.H*s.W))
			for i := len(index) - 1; i >= 0; i-- {
				a := t.Perm[i]
				index[i]++
				at += strides[a]
				if index[i] < t.Dims[a] {
					break
				}
				index[i] = 0
				at -= t.Dims[a] * strides[a]
			}
		}
	}
	return from
}

func (s Slice) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	x := shapes[0]
	c := s.C.To - s.C.From
	for i := range n {
		for y := s.H.From; y < s.H.To; y++ {
			for q := s.W.From; q < s.W.To; q++ {
				copy(dst[:c], in[0][((i*x.H+y)*x.W+q)*x.C+s.C.From:])
				dst = dst[c:]
			}
		}
	}
}

func (p Pad) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	for i := range dst {
		dst[i] = p.Value
	}
	x, src := shapes[0], in[0]
	h, w, c := p.Before.H+x.H+p.After.H, p.Before.W+x.W+p.After.W, p.Before.C+x.C+p.After.C
	for i := range n {
		for y := range x.H {
			for q := range x.W {
				copy(dst[((i*h+p.Before.H+y)*w+p.Before.W+q)*c+p.Before.C:][:x.C], src)
				src = src[x.C:]
			}
		}
	}
}
