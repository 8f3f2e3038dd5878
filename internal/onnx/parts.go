package onnx

import (
	"fmt"
	"math"

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

// sliceValue reads a Slice of a value, forwards; in steps of rows and columns alone.
func (p *parser) sliceValue(n *node, starts, ends, axes, steps []int64) (operand, error) {
	x, err := p.variable(n, 0, 0)
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
	seen := map[int]bool{}
	part, every := newSlicing(x), graph.Pool{KH: 1, KW: 1, SH: 1, SW: 1}
	for k, a := range axes {
		step := int64(1)
		if steps != nil {
			step = steps[k]
		}
		if step < 1 || step > math.MaxInt32 {
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
		part.cut(i, from, to)
		switch x.axes[i] {
		case axisH:
			every.SH = int(step)
		case axisW:
			every.SW = int(step)
		default:
			if step != 1 {
				return x, p.refuse(n, "step %d of channels", step)
			}
		}
	}
	if x, err = part.apply(p); err != nil || every.SH == 1 && every.SW == 1 {
		return x, err
	}
	return p.apply(graph.MaxPool{Pool: every}, x.axes, x) // of one element each
}

// gatherValue reads a Gather of one place of a value, with or without its dimension.
func (p *parser) gatherValue(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	indices, err := p.sizes(n, 1)
	if err != nil {
		return x, err
	}
	i, err := p.dimension(n, x, n.int("axis", 0))
	if err != nil {
		return x, err
	}
	l := x.dims()[i]
	for j, d := range indices.v {
		if d.batch {
			return x, p.refuse(n, "by the batch's size")
		}
		if d.n < -l || d.n >= l {
			return x, fmt.Errorf("%w: element %d of %d", ErrInvalid, d.n, l)
		}
		indices.v[j].n = (d.n + l) % l
	}
	if len(indices.dims) > 1 || len(indices.v) == 0 {
		return x, p.refuse(n, "by indices of rank %d", len(indices.dims))
	}
	if len(indices.v) > 1 {
		return p.gathered(x, i, indices.v)
	}
	at := indices.v[0].n
	axes := x.axes
	part := newSlicing(x)
	part.cut(i, at, at+1)
	if x, err = part.apply(p); err != nil || len(indices.dims) == 1 {
		return x, err
	}
	if len(axes) == 1 {
		return x, p.refuse(n, "to rank 1")
	}
	x.axes = append(append([]axis{}, axes[:i]...), axes[i+1:]...)
	return x, nil
}

// gathered returns the given places of x along dimension i after the batch.
func (p *parser) gathered(x operand, i int, places []size) (operand, error) {
	x, err := p.channelsAt(x, i)
	if err != nil {
		return x, err
	}
	var parts []operand
	for len(places) > 0 {
		run := 1 // of places one after the other
		for run < len(places) && places[run].n == places[0].n+int64(run) {
			run++
		}
		part := newSlicing(x)
		part.cut(i, places[0].n, places[0].n+int64(run))
		y, err := part.apply(p)
		if err != nil {
			return x, err
		}
		parts, places = append(parts, y), places[run:]
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	return p.apply(graph.Concat{}, x.axes, parts...)
}

// parts reads a Split. Before opset 13 the sizes are an attribute.
func (p *parser) parts(n *node) ([]operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return nil, err
	}
	i, err := p.dimension(n, x, n.int("axis", 0))
	if err != nil {
		return nil, err
	}
	sizes, err := p.list(n, "split", 1)
	if err != nil {
		return nil, err
	}
	l, k := x.dims()[i], int64(len(n.outputs))
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
		part := newSlicing(x)
		part.cut(i, at, at+size)
		y, err := part.apply(p)
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

// pad reads a Pad with a constant. Before opset 11 its inputs are attributes.
func (p *parser) pad(n *node) (operand, error) {
	if a, given := n.attribute("mode"); given && string(a.s) != "constant" {
		return operand{}, p.refuse(n, "mode=%s", clean(string(a.s)))
	}
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	pads, err := p.list(n, "pads", 1)
	if err != nil {
		return x, err
	}
	value := n.float("value", 0)
	if n.has(2) {
		t, err := p.constant(n, 2)
		if err != nil {
			return x, err
		}
		v, err := p.floats32(n, t)
		if err != nil {
			return x, err
		}
		if len(v) != 1 {
			return x, fmt.Errorf("%w: %d values to pad with", ErrInvalid, len(v))
		}
		value = v[0]
	}
	var dims []int // after the batch, or -1
	if n.has(3) {
		list, err := p.list(n, "axes", 3)
		if err != nil {
			return x, err
		}
		for _, a := range list {
			i, err := p.dimension(n, x, a)
			if err != nil {
				return x, err
			}
			dims = append(dims, i)
		}
	} else {
		for i := range x.rank() {
			dims = append(dims, i-1)
		}
	}
	if len(pads) != 2*len(dims) {
		return x, fmt.Errorf("%w: %d pads for %d axes", ErrInvalid, len(pads), len(dims))
	}
	op := graph.Pad{Value: value}
	before := []*int{&op.Before.C, &op.Before.H, &op.Before.W}
	after := []*int{&op.After.C, &op.After.H, &op.After.W}
	seen := map[int]bool{}
	for k, i := range dims {
		from, to := pads[k], pads[k+len(dims)]
		switch {
		case seen[i]:
			return x, fmt.Errorf("%w: an axis twice", ErrInvalid)
		case from == 0 && to == 0:
		case i < 0:
			return x, p.refuse(n, "across samples")
		case from < 0 || to < 0:
			return x, p.refuse(n, "negative pads")
		case from > math.MaxInt32 || to > math.MaxInt32:
			return x, fmt.Errorf("%w: padding of %d, %d", ErrInvalid, from, to)
		default:
			*before[x.axes[i]], *after[x.axes[i]] = int(from), int(to)
		}
		seen[i] = true
	}
	if op.Before == (graph.Shape{}) && op.After == (graph.Shape{}) {
		return x, nil
	}
	return p.apply(op, x.axes, x)
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
	x.split = &split{dims, perm}
	return p.reshaped(n, x, to)
}

// expand reads an Expand of a value along H, W or C. What it makes is never made: it can
// be read by arithmetic with a value of its shape alone, which broadcasts.
func (p *parser) expand(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	to, err := p.sizes(n, 1)
	if err != nil {
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
