package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// Slice and Split.

// slice reads a Slice of sizes or of a value. Opsets before 10 have attributes for inputs.
func (p *parser) slice(n *node) (operand, error) {
	x, err := p.any(n, 0)
	if err != nil {
		return x, err
	}
	var lists [4][]int64
	for i, name := range []string{"starts", "ends", "axes", "steps"} {
		if lists[i], err = p.list(n, name, i+1); err != nil {
			return operand{}, err
		}
	}
	starts, ends, axes, steps := lists[0], lists[1], lists[2], lists[3]
	if x.known {
		return p.sliceValue(n, starts, ends, axes, steps)
	}
	if c, err := p.asCommon(n, x); c != nil || err != nil {
		if err != nil {
			return x, err
		}
		return p.sliceCommon(n, c, starts, ends, axes, steps)
	}
	from, err := p.sizes(n, 0)
	if err != nil {
		return operand{}, err
	}
	if len(starts) != 1 || len(ends) != 1 || len(from.dims) == 0 || len(axes) > 1 || len(steps) > 1 {
		return operand{}, fmt.Errorf("%w: not of one axis", ErrInvalid)
	}
	if axes != nil && axes[0] != 0 && axes[0] != -int64(len(from.dims)) {
		return operand{}, p.refuse(n, "axis %d of sizes", axes[0])
	}
	per := 1 // elements a row
	if len(from.dims) == 2 {
		per = int(from.dims[1])
	}
	rows := slices.Collect(slices.Chunk(from.v, per))
	switch {
	case steps == nil || steps[0] == 1:
		rows = cut(rows, starts[0], ends[0])
	case steps[0] == -1 && starts[0] == -1 && ends[0] <= -math.MaxInt32: // as pads are turned about
		slices.Reverse(rows)
	default:
		return operand{}, p.refuse(n, "step %d", steps[0])
	}
	to := &sizes{slices.Concat(rows...), slices.Clone(from.dims)}
	to.dims[0] = int64(len(rows))
	return operand{sizes: to}, nil
}

// sliceValue reads a Slice of a value.
func (p *parser) sliceValue(n *node, starts, ends, axes, steps []int64) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	if axes == nil {
		for i := range starts {
			axes = append(axes, int64(i))
		}
	}
	if len(ends) != len(starts) || len(axes) != len(starts) || steps != nil && len(steps) != len(starts) {
		return x, fmt.Errorf("%w: starts, ends, axes and steps of unlike lengths", ErrInvalid)
	}
	steady := !slices.ContainsFunc(steps, func(s int64) bool { return s != 1 })
	if x.split != nil && steady {
		return p.sliceView(n, x, starts, ends, axes)
	}
	if x, err = p.variable(n, 0, 0); err != nil {
		return x, err
	}
	seen := map[int]bool{}
	part, every := newSlicing(x), graph.Pool{KH: 1, KW: 1, SH: 1, SW: 1}
	places := map[int][]int{} // by dimension
	for k, a := range axes {
		step := int64(1)
		if steps != nil {
			step = steps[k]
		}
		if step == 0 || step > math.MaxInt32 || step < -math.MaxInt32 {
			return x, p.refuse(n, "step %d", step)
		}
		r := int64(x.rank())
		if all := starts[k] == 0 && ends[k] >= math.MaxInt32 && step == 1; all && (a == 0 || a == -r) {
			continue
		}
		i, err := p.dimension(n, x, a)
		if err != nil {
			return x, err
		}
		if seen[i] {
			return x, fmt.Errorf("%w: axis %d twice", ErrInvalid, a)
		}
		seen[i] = true
		l := x.dims()[i]
		from, to := clamped(starts[k], ends[k], step, l)
		if (to-from)*step <= 0 {
			return x, fmt.Errorf("%w: an empty Slice", ErrInvalid)
		}
		switch {
		case step == 1:
			part.cut(i, from, to)
		case step > 1 && x.axes[i] == axisH:
			part.cut(i, from, to)
			every.SH = int(step)
		case step > 1 && x.axes[i] == axisW:
			part.cut(i, from, to)
			every.SW = int(step)
		default:
			if err := p.charge(int((to-from)/step) + 1); err != nil {
				return x, err
			}
			for j := from; (to-j)*step > 0; j += step {
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
func (p *parser) sliceView(n *node, x operand, starts, ends, axes []int64) (operand, error) {
	seen := map[int]bool{}
	for k, a := range axes {
		s := x.view()
		r := int64(len(s.dims))
		if starts[k] == 0 && ends[k] >= math.MaxInt32 && a >= -r && a < r {
			continue
		}
		i, err := p.index(n, s, a)
		if err != nil {
			return x, err
		}
		if seen[i] {
			return x, fmt.Errorf("%w: axis %d twice", ErrInvalid, a)
		}
		seen[i] = true
		l := s.size(i).n
		at := func(v int64) int64 {
			if v < 0 {
				v += l
			}
			return min(max(v, 0), l)
		}
		from, to := at(starts[k]), at(ends[k])
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
	leading := func(x operand) (a, rest int) {
		s := x.view()
		for a, of := range s.axesOf(x.shape) {
			if d := s.own(i); len(d) > 0 && len(d) <= len(of) && slices.Equal(of[:len(d)], d) {
				return a, int(int64(extents(x.shape)[a]) / s.size(i).n)
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
	*[]*graph.Range{&part.part.C, &part.part.H, &part.part.W}[a] = graph.Range{From: int(from) * rest, To: int(to) * rest}
	y, err := p.apply(part.part, nil, operand{value: x.value, shape: x.shape})
	if err != nil {
		return x, err
	}
	// The dimension's parts become one, or none.
	t, own := &split{}, s.own(i)
	number := make([]int, len(s.parts))
	for k, n := range s.parts {
		number[k] = len(t.parts)
		if at := slices.Index(own, k); at > 0 || at == 0 && to-from == 1 {
			continue
		} else if at == 0 {
			n = to - from
		}
		t.parts = append(t.parts, n)
	}
	for j, d := range s.dims {
		var list []int
		for _, k := range d {
			switch {
			case k == batch:
				list = append(list, batch)
			case !slices.Contains(own, k):
				list = append(list, number[k])
			}
		}
		if j == i && to-from > 1 {
			list = append(list, number[own[0]])
		}
		t.dims = append(t.dims, list)
	}
	return p.seen(y, t), nil
}

// A slicing is a part of a value under construction.
type slicing struct {
	x    operand
	part graph.Slice
}

func newSlicing(x operand) *slicing {
	s := x.shape
	return &slicing{x, graph.Slice{H: graph.Range{To: s.H}, W: graph.Range{To: s.W}, C: graph.Range{To: s.C}}}
}

// cut takes what lies from from on and before to, along dimension i after the batch.
func (s *slicing) cut(i int, from, to int64) {
	*[]*graph.Range{&s.part.C, &s.part.H, &s.part.W}[s.x.axes[i]] = graph.Range{From: int(from), To: int(to)}
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

// cut returns v[start:end] as ONNX has it: negative counts from the end, and what
// lies outside of v is brought to its ends.
func cut[T any](v []T, start, end int64) []T {
	from, to := clamped(start, end, 1, int64(len(v)))
	return v[from:max(from, to)]
}
