package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// Slice and Split.

// A cut is what a Slice takes along one axis: every step'th element from start on and before end, as
// ONNX counts them.
type cut struct {
	axis             int // of the dimensions, the batch's among them
	start, end, step int64
}

// all reports whether c takes everything, whatever the extent is.
func (c cut) all() bool { return c.start == 0 && c.end >= math.MaxInt32 && c.step == 1 }

// within returns where c begins and ends in an axis of l elements.
func (c cut) within(l int64) (from, to int64) { return clamped(c.start, c.end, c.step, l) }

// cutLists are what a Slice says, axis by axis: starts, ends, axes and steps.
type cutLists [4][]int64

// cutLists reads those of n. Opsets before 10 have attributes for inputs.
func (p *parser) cutLists(n *node) (lists cutLists, err error) {
	for i, name := range []string{"starts", "ends", "axes", "steps"} {
		if lists[i], err = p.list(n, name, i+1); err != nil {
			return lists, err
		}
	}
	return lists, nil
}

// cuts returns what lists, of n, take of a tensor of the given rank.
func (p *parser) cuts(n *node, lists cutLists, rank int) ([]cut, error) {
	starts, ends, axes, steps := lists[0], lists[1], lists[2], lists[3]
	if len(ends) != len(starts) || axes != nil && len(axes) != len(starts) || steps != nil && len(steps) != len(starts) {
		return nil, fmt.Errorf("%w: starts, ends, axes and steps of unlike lengths", ErrInvalid)
	}
	cuts := make([]cut, len(starts))
	for k := range cuts {
		axis, step := int64(k), int64(1)
		if axes != nil {
			axis = axes[k]
		}
		if steps != nil {
			step = steps[k]
		}
		if step == 0 || step > math.MaxInt32 || step < -math.MaxInt32 {
			return nil, p.refuse(n, "step %d", step)
		}
		at, err := fromStart(axis, rank)
		if err != nil {
			return nil, err
		}
		cuts[k] = cut{at, starts[k], ends[k], step}
	}
	return cuts, nil
}

// slice reads a Slice of sizes or of a value.
func (p *parser) slice(n *node) (operand, error) {
	x, err := p.any(n, 0)
	if err != nil {
		return x, err
	}
	lists, err := p.cutLists(n)
	if err != nil {
		return x, err
	}
	if x.known {
		return p.sliceValue(n, lists)
	}
	if c, err := p.asCommon(n, x); c != nil || err != nil {
		if err != nil {
			return x, err
		}
		return p.sliceCommon(n, c, lists)
	}
	return p.sliceSizes(n, lists)
}

// sliceSizes reads a Slice of sizes along their first dimension.
func (p *parser) sliceSizes(n *node, lists cutLists) (operand, error) {
	from, err := p.sizes(n, 0)
	if err != nil {
		return operand{}, err
	}
	cuts, err := p.cuts(n, lists, len(from.dims))
	if err != nil {
		return operand{}, err
	}
	if len(cuts) != 1 {
		return operand{}, fmt.Errorf("%w: not of one axis", ErrInvalid)
	}
	c := cuts[0]
	if c.axis != 0 {
		return operand{}, p.refuse(n, "axis %d of sizes", c.axis)
	}
	per := 1 // elements a row
	if len(from.dims) == 2 {
		per = int(from.dims[1])
	}
	rows := slices.Collect(slices.Chunk(from.v, per))
	switch {
	case c.step == 1:
		rows = subrange(rows, c.start, c.end)
	case c.step == -1 && c.start == -1 && c.end <= -math.MaxInt32: // as pads are turned about
		slices.Reverse(rows)
	default:
		return operand{}, p.refuse(n, "step %d", c.step)
	}
	to := &sizes{slices.Concat(rows...), slices.Clone(from.dims)}
	to.dims[0] = int64(len(rows))
	return operand{sizes: to}, nil
}

// sliceValue reads a Slice of a value: ranges, of which rows and columns may be every step'th, and
// else places one by one.
func (p *parser) sliceValue(n *node, lists cutLists) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	cuts, err := p.cuts(n, lists, x.rank())
	if err != nil {
		return x, err
	}
	if x.split != nil && !slices.ContainsFunc(cuts, func(c cut) bool { return c.step != 1 }) {
		return p.sliceView(n, x, cuts)
	}
	if x, err = p.variable(n, 0, 0); err != nil {
		return x, err
	}
	seen := map[int]bool{}
	part, every := newSlicing(x), graph.Pool{KH: 1, KW: 1, SH: 1, SW: 1}
	places := map[int][]int{} // by dimension after the batch
	for _, c := range cuts {
		if c.all() && c.axis == 0 {
			continue
		}
		i, err := p.dimension(n, x, int64(c.axis))
		if err != nil {
			return x, err
		}
		if seen[i] {
			return x, fmt.Errorf("%w: axis %d twice", ErrInvalid, c.axis)
		}
		seen[i] = true
		from, to := c.within(x.dims()[i])
		if (to-from)*c.step <= 0 {
			return x, fmt.Errorf("%w: an empty Slice", ErrInvalid)
		}
		switch {
		case c.step == 1:
			part.cut(i, from, to)
		case c.step > 1 && x.axes[i] == axisH:
			part.cut(i, from, to)
			every.SH = int(c.step)
		case c.step > 1 && x.axes[i] == axisW:
			part.cut(i, from, to)
			every.SW = int(c.step)
		default:
			if err := p.charge(int((to-from)/c.step) + 1); err != nil {
				return x, err
			}
			for j := from; (to-j)*c.step > 0; j += c.step {
				places[i] = append(places[i], int(j))
			}
		}
	}
	if x, err = part.apply(p); err == nil && (every.SH > 1 || every.SW > 1) {
		x, err = p.apply(graph.MaxPool{Pool: every}, x.axes, x) // of one element each
	}
	for i := range x.axes {
		if places[i] != nil && err == nil {
			x, err = p.gathered(x, 1+i, places[i])
		}
	}
	return x, err
}

// sliceView reads a Slice of a split, forwards and without steps.
func (p *parser) sliceView(n *node, x operand, cuts []cut) (operand, error) {
	seen := map[int]bool{}
	for _, c := range cuts {
		if c.all() {
			continue
		}
		i, err := p.index(n, x.view(), int64(c.axis))
		if err != nil {
			return x, err
		}
		if seen[i] {
			return x, fmt.Errorf("%w: axis %d twice", ErrInvalid, c.axis)
		}
		seen[i] = true
		from, to := c.within(x.view().size(i).n)
		if from >= to {
			return x, fmt.Errorf("%w: an empty Slice", ErrInvalid)
		}
		if x, err = p.cutOff(x, i, from, to); err != nil {
			return x, err
		}
	}
	return x, nil
}

// parts reads a Split. Before opset 13 the sizes are an attribute.
func (p *parser) parts(n *node) ([]operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return nil, err
	}
	i, err := p.index(n, x.view(), n.int("axis", 0))
	if err != nil {
		return nil, err
	}
	sizes, err := p.list(n, "split", 1)
	if err != nil {
		return nil, err
	}
	l, k := x.view().size(i).n, int64(len(n.outputs))
	if sizes == nil {
		// Alike, but for a smaller last one.
		if _, given := n.attribute("num_outputs"); given && n.int("num_outputs", 0) != k {
			return nil, fmt.Errorf("%w: %d outputs", ErrInvalid, k)
		}
		size := (l + k - 1) / k
		for at := int64(0); len(sizes) < len(n.outputs); at += size {
			sizes = append(sizes, min(size, l-at))
		}
	}
	if int64(len(sizes)) != k {
		return nil, fmt.Errorf("%w: %d sizes for %d outputs", ErrInvalid, len(sizes), k)
	}
	var out []operand
	at := int64(0)
	for _, size := range sizes {
		if size <= 0 || size > l-at {
			return nil, fmt.Errorf("%w: parts of %d of %d", ErrInvalid, sizes, l)
		}
		y, err := p.cutOff(x, i, at, at+size)
		if err != nil {
			return nil, err
		}
		out = append(out, y)
		at += size
	}
	if at != l {
		return nil, fmt.Errorf("%w: parts of %d of %d", ErrInvalid, sizes, l)
	}
	return out, nil
}

// cutOff returns the part of x that lies from from on and before to along dimension i.
func (p *parser) cutOff(x operand, i int, from, to int64) (operand, error) {
	if x.split == nil {
		part := newSlicing(x)
		part.cut(i-1, from, to)
		return part.apply(p)
	}
	leading := func(x operand) (a axis, rest int) {
		s := x.view()
		for a, of := range s.axesOf(x.shape) {
			if d := s.own(i); len(d) > 0 && len(d) <= len(of) && slices.Equal(of[:len(d)], d) {
				return axis(a), int(int64(extents(x.shape)[a]) / s.size(i).n)
			}
		}
		return -1, 0
	}
	s := x.view()
	if from == 0 && to == s.size(i).n {
		return x, nil
	}
	a, rest := leading(x)
	if a < 0 {
		var err error
		last := len(s.dims) - 1
		if i == last {
			x, err = p.placed(x, []int{i}, nil, s.others(i))
		} else {
			x, err = p.placed(x, s.others(append(s.others(last), i)...), []int{i}, s.others(i, last))
		}
		if err != nil {
			return x, err
		}
		s = x.view()
		a, rest = leading(x)
	}
	part := newSlicing(x)
	*rangeOf(&part.part, a) = graph.Range{From: int(from) * rest, To: int(to) * rest}
	y, err := p.apply(part.part, nil, x.bare())
	if err != nil {
		return x, err
	}
	// The dimension's parts become one, or none.
	own := s.own(i)
	if to-from == 1 {
		return p.seen(y, s.without(own[0], len(own))), nil
	}
	t := s.without(own[0], len(own), to-from)
	t.dims[i] = append(t.dims[i], own[0])
	return p.seen(y, t), nil
}

// A slicing is a part of a value under construction.
type slicing struct {
	x    operand
	part graph.Slice
}

// newSlicing returns all of x.
func newSlicing(x operand) *slicing {
	s := x.shape
	return &slicing{x, graph.Slice{H: graph.Range{To: s.H}, W: graph.Range{To: s.W}, C: graph.Range{To: s.C}}}
}

// cut takes what lies from from on and before to, along dimension i after the batch.
func (s *slicing) cut(i int, from, to int64) {
	*rangeOf(&s.part, s.x.axes[i]) = graph.Range{From: int(from), To: int(to)}
}

// apply returns the part.
func (s *slicing) apply(p *parser) (operand, error) {
	if s.part == newSlicing(s.x).part {
		return s.x, nil
	}
	return p.apply(s.part, s.x.axes, s.x)
}

// clamped returns where a Slice of an axis of l elements begins and ends: as ONNX has it, places
// count from the end where they are negative, and the range depends on the step's direction.
func clamped(start, end, step, l int64) (from, to int64) {
	least, most := int64(0), l
	if step < 0 {
		least, most = -1, l-1
	}
	at := func(v int64) int64 {
		if v < 0 {
			v += l
		}
		return min(max(v, least), most)
	}
	return at(start), at(end)
}

// subrange returns v[start:end] as ONNX has it: negative counts from the end, and what
// lies outside of v is brought to its ends.
func subrange[T any](v []T, start, end int64) []T {
	from, to := clamped(start, end, 1, int64(len(v)))
	return v[from:max(from, to)]
}
