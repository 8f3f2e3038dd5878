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

// sliceValue reads a Slice of a value, in steps of 1.
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
	part := newSlicing(x)
	for k, a := range axes {
		if steps != nil && steps[k] != 1 {
			return x, p.refuse(n, "step %d", steps[k])
		}
		r := int64(x.rank())
		if all := starts[k] == 0 && ends[k] == math.MaxInt64; all && (a == 0 || a == -r) {
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
	}
	return part.apply(p)
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
	if len(indices.v) != 1 || indices.v[0].batch {
		return x, p.refuse(n, "of several places")
	}
	l, at := x.dims()[i], indices.v[0].n
	if at < -l || at >= l {
		return x, fmt.Errorf("%w: element %d of %d", ErrInvalid, at, l)
	}
	at = (at + l) % l
	axes := x.axes
	part := newSlicing(x)
	part.cut(i, at, at+1)
	if x, err = part.apply(p); err != nil || indices.rank == 1 {
		return x, err
	}
	if len(axes) == 1 {
		return x, p.refuse(n, "to rank 1")
	}
	x.axes = append(append([]axis{}, axes[:i]...), axes[i+1:]...)
	return x, nil
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
