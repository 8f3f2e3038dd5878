package graph

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/plan"
)

// Operators that move elements and compute nothing. Transpose is another: see transpose.go.
type (
	// Concat puts the channels of its inputs, one or more, one after the other.
	Concat struct{}
	// Reshape reads a sample in C, H, W order, as ONNX does, and gives it a
	// new shape in that order. Flatten is a Reshape to a vector.
	Reshape struct{ To Shape }
	// Slice is the part of a map within the given rows, columns and channels, less than all.
	Slice struct{ H, W, C Range }
	// Pad puts elements of one value around a map: as many before and after it
	// as the shapes' extents say, and at least one.
	Pad struct {
		Before, After Shape
		Value         float32
	}
	// Gather puts rows, columns or channels in another order, with some of them more than once or not
	// at all: place i of the result is place From[i]. Places in a row, one after the other, are a Slice.
	Gather struct {
		Along string // "H", "W" or "C"
		From  []int
	}
)

// Range is what lies from From on and before To.
type Range struct{ From, To int }

func (Concat) Name() string  { return "concat" }
func (Reshape) Name() string { return "reshape" }
func (Slice) Name() string   { return "slice" }
func (Pad) Name() string     { return "pad" }
func (*Gather) Name() string { return "gather" }

func (Concat) InPlace() bool  { return false }
func (Reshape) InPlace() bool { return true }
func (Slice) InPlace() bool   { return false }
func (Pad) InPlace() bool     { return false }
func (*Gather) InPlace() bool { return false }

func (Concat) OutShape(in ...Shape) (Shape, error) {
	if len(in) == 0 {
		return Shape{}, fmt.Errorf("%w: no inputs", ErrInvalid)
	}
	out := Shape{in[0].H, in[0].W, 0}
	for _, s := range in {
		if s.H != out.H || s.W != out.W {
			return Shape{}, fmt.Errorf("%w: channels of %v beside those of %v", ErrInvalid, s, in[0])
		}
		out.C += s.C // each at most plan.MaxExtent
		if out.C > plan.MaxExtent {
			break // for check to refuse
		}
	}
	return out, out.Check()
}

func (Concat) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	positions := n * shapes[0].H * shapes[0].W
	width := len(dst) / positions
	at := 0
	for k, src := range in {
		c := shapes[k].C
		for i := range positions {
			copy(dst[i*width+at:][:c], src[i*c:])
		}
		at += c
	}
}

func (r Reshape) OutShape(in ...Shape) (Shape, error) {
	s, err := single(in)
	if err != nil {
		return Shape{}, err
	}
	if err := r.To.Check(); err != nil {
		return Shape{}, err
	}
	if s.Len() != r.To.Len() {
		return Shape{}, fmt.Errorf("%w: %v has %d elements, %v has %d", ErrInvalid, s, s.Len(), r.To, r.To.Len())
	}
	return r.To, nil
}

// Apply moves nothing where both shapes have one position or one channel, as C, H, W
// order and H, W, C order are then the same, nor where the channels stay.
func (r Reshape) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	from, src := shapes[0], in[0]
	if from.C == r.To.C || from.flat() && r.To.flat() {
		copy(dst, src)
		return
	}
	// One sample is permuted at a time, by way of its C, H, W order.
	l := from.Len()
	chw := make([]float32, l)
	for ; n > 0; n, dst, src = n-1, dst[l:], src[l:] {
		HWCToCHW(chw, src[:l], 1, from)
		CHWToHWC(dst[:l], chw, 1, r.To)
	}
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

func (g *Gather) OutShape(in ...Shape) (Shape, error) {
	s, err := single(in)
	if err != nil {
		return Shape{}, err
	}
	out := s
	along := map[string]*int{"H": &out.H, "W": &out.W, "C": &out.C}[g.Along]
	if along == nil || len(g.From) == 0 {
		return Shape{}, fmt.Errorf("%w: %d places along %.8q", ErrInvalid, len(g.From), g.Along)
	}
	if i := slices.IndexFunc(g.From, func(v int) bool { return v < 0 || v >= *along }); i >= 0 {
		return Shape{}, fmt.Errorf("%w: place %d of %d", ErrInvalid, g.From[i], *along)
	}
	if InOrder(g.From) {
		return Shape{}, fmt.Errorf("%w: places in a row", ErrInvalid)
	}
	*along = len(g.From)
	return out, out.Check()
}

// InOrder reports whether places follow one another.
func InOrder(places []int) bool {
	for i, v := range places {
		if v != places[0]+i {
			return false
		}
	}
	return true
}

func (g *Gather) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	s := shapes[0]
	// A sample is a number of blocks, each of so many places of some floats.
	var places, size int
	switch g.Along {
	case "H":
		places, size = s.H, s.W*s.C
	case "W":
		places, size = s.W, s.C
	default:
		places, size = s.C, 1
	}
	for src := range slices.Chunk(in[0][:n*s.Len()], places*size) {
		if size == 1 {
			for i, j := range g.From {
				dst[i] = src[j]
			}
			dst = dst[len(g.From):]
			continue
		}
		for _, j := range g.From {
			copy(dst[:size], src[j*size:])
			dst = dst[size:]
		}
	}
}
