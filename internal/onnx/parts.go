package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

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

// blocks reads DepthToSpace and SpaceToDepth.
func (p *parser) blocks(n *node) (operand, error) {
	x, err := p.variable(n, 0, 4)
	if err != nil {
		return x, err
	}
	b := n.int("blocksize", 0)
	c, h, w := int64(x.shape.C), int64(x.shape.H), int64(x.shape.W)
	if b <= 0 || b > math.MaxInt32 {
		return x, fmt.Errorf("%w: blocks of %d", ErrInvalid, b)
	}
	var dims, to []int64
	var perm []int
	if n.op == "DepthToSpace" {
		if c%(b*b) != 0 {
			return x, fmt.Errorf("%w: %d channels in blocks of %d", ErrInvalid, c, b)
		}
		dims, perm = []int64{b, b, c / (b * b), h, w}, []int{2, 3, 0, 4, 1}
		if mode, given := n.attribute("mode"); given && string(mode.s) == "CRD" {
			dims, perm = []int64{c / (b * b), b, b, h, w}, []int{0, 3, 1, 4, 2}
		} else if given && string(mode.s) != "DCR" {
			return x, fmt.Errorf("%w: unknown mode", ErrInvalid)
		}
		to = []int64{c / (b * b), h * b, w * b}
	} else {
		if h%b != 0 || w%b != 0 {
			return x, fmt.Errorf("%w: a map of %d x %d in blocks of %d", ErrInvalid, h, w, b)
		}
		dims, perm = []int64{c, h / b, b, w / b, b}, []int{2, 4, 0, 1, 3}
		to = []int64{c * b * b, h / b, w / b}
	}
	first := []size{{n: 1, batch: true}}
	for _, d := range dims {
		first = append(first, size{n: d})
	}
	y, _ := p.regrouped(x, first) // of what divides the extents
	perm = append([]int{0}, perm...)
	for i := range perm[1:] {
		perm[i+1]++
	}
	y, err = p.reshaped(n, p.turned(y, perm), to)
	if err == nil {
		y, _, err = p.settled(y)
	}
	return y, err
}

// expand reads an Expand of a value along H, W or C. What it makes is never made: it can
// be read by arithmetic with a value of its shape alone, which broadcasts.
func (p *parser) expand(n *node) (operand, error) {
	x, err := p.operand(n, 0)
	if err != nil {
		return x, err
	}
	to, err := p.sizes(n, 1)
	if err != nil {
		return x, err
	}
	if x.constant != nil {
		return p.expandConstant(n, x.constant, to)
	}
	if x, err = p.variable(n, 0, 0); err != nil {
		return x, err
	}
	if len(to.dims) != 1 || len(to.v) != x.rank() {
		return x, p.refuse(n, "to another rank")
	}
	if b := to.v[0]; !b.batch && b.n != 1 && (p.batch == 0 || b.n != p.batch) {
		return x, p.refuse(n, "across samples")
	}
	dims := x.dims()
	for i, d := range to.v[1:] {
		switch {
		case d.batch:
			return x, p.refuse(n, "across samples")
		case dims[i] == 1:
			dims[i] = d.n
		case d.n != 1 && d.n != dims[i]:
			return x, fmt.Errorf("%w: %d elements for %d", ErrInvalid, dims[i], d.n)
		}
	}
	if _, ok := extent(dims); !ok {
		return x, fmt.Errorf("%w: expanded to %d", ErrInvalid, dims)
	}
	if wide := shaped(x.axes, dims); wide != x.shape {
		x.wide = &wide
	}
	return x, nil
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
