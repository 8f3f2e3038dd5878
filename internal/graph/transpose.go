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

func (*Transpose) Name() string  { return "transpose" }
func (*Transpose) InPlace() bool { return false }

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

// refined returns t's axes divided where a sample of shape s, or the result, goes over from channels
// to positions, and how many of them, of the sample and of the result, are channels; or false,
// where that is in the midst of an axis.
func (t *Transpose) refined(s Shape) (dims, perm []int, from, to int, ok bool) {
	dims, perm = slices.Clone(t.Dims), slices.Clone(t.Perm)
	divide := func(order func(int) int, positions int) (int, bool) {
		i := len(dims)
		for ; positions > 1; i-- {
			a := order(i - 1)
			d := dims[a]
			if d <= positions {
				if positions%d != 0 {
					return 0, false
				}
				positions /= d
				continue
			}
			if d%positions != 0 {
				return 0, false
			}
			// Axis a becomes a and a+1, the second of positions alone.
			dims = slices.Insert(dims, a, d/positions)
			dims[a+1] = positions
			for k, v := range perm {
				if v > a {
					perm[k]++
				}
			}
			perm = slices.Insert(perm, slices.Index(perm, a)+1, a+1)
			return i, true
		}
		return i, true
	}
	if from, ok = divide(func(i int) int { return i }, s.H*s.W); !ok {
		return nil, nil, 0, 0, false
	}
	before := len(dims)
	if to, ok = divide(func(i int) int { return perm[i] }, t.To.H*t.To.W); !ok {
		return nil, nil, 0, 0, false
	}
	if len(dims) > before { // a channels' axis of the sample may have been divided
		from = channelAxes(dims, s.C)
	}
	return dims, perm, from, to, true
}

// channelAxes returns how many of the first axes have as many elements as there are channels.
func channelAxes(dims []int, c int) (n int) {
	for p := 1; p < c; n++ {
		p *= dims[n]
	}
	return n
}

// A run is an axis of a result in memory: its extent and how far apart its elements lie in the sample.
type run struct{ extent, stride int }

// runs returns the axes of the result of a sample of shape s, the last one side by side in memory,
// or nil where it has none. As few as can be: none is 1, and no two can be one.
func (t *Transpose) runs(s Shape) []run {
	dims, perm, from, to, ok := t.refined(s)
	if !ok {
		return nil
	}
	// In memory, channels come last.
	strides, stride := make([]int, len(dims)), 1
	for i := from - 1; i >= 0; i-- {
		strides[i], stride = stride, stride*dims[i]
	}
	for i := len(dims) - 1; i >= from; i-- {
		strides[i], stride = stride, stride*dims[i]
	}
	var runs []run
	for _, a := range slices.Concat(perm[to:], perm[:to]) {
		r := run{dims[a], strides[a]}
		if k := len(runs) - 1; k >= 0 && runs[k].stride == r.extent*r.stride {
			runs[k] = run{runs[k].extent * r.extent, r.stride}
		} else if r.extent > 1 {
			runs = append(runs, r)
		}
	}
	return runs
}

// gather sets dst to the elements of src along runs.
func gather(dst, src []float32, runs []run) []float32 {
	r := runs[0]
	switch {
	case len(runs) == 1 && r.stride == 1:
		copy(dst[:r.extent], src)
		return dst[r.extent:]
	case len(runs) == 1:
		d := dst[:r.extent]
		for i := range d {
			d[i] = src[i*r.stride]
		}
		return dst[r.extent:]
	case len(runs) == 2 && runs[1].extent < min(r.extent, 8):
		// The longer loop is the inner one.
		for j := range runs[1].extent {
			from := src[j*runs[1].stride:]
			for i, at := 0, j; i < r.extent; i, at = i+1, at+runs[1].extent {
				dst[at] = from[i*r.stride]
			}
		}
		return dst[r.extent*runs[1].extent:]
	}
	for i := range r.extent {
		dst = gather(dst, src[i*r.stride:], runs[1:])
	}
	return dst
}
