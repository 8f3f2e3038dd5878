package onnx

import (
	"fmt"
	"math"
	"slices"
)

// What is made of constants' elements as they are, and of no constants.

// foldReshape computes a Reshape or a Flatten.
func (p *parser) foldReshape(n *node, in []*array) (*array, error) {
	a := in[0]
	if a == nil || a.len() == 0 {
		return nil, nil
	}
	if n.op == "Flatten" {
		axis := n.int("axis", 1)
		if axis < 0 {
			axis += int64(len(a.dims))
		}
		if axis < 0 || axis > int64(len(a.dims)) || a.shared && axis != 1 {
			return nil, nil
		}
		first, _ := extent(a.dims[:axis])
		b := *a
		b.dims = []int64{int64(first), int64(a.len() / first)}
		return &b, nil
	}
	to, err := p.sizes(n, 1)
	if err != nil || len(to.dims) != 1 {
		return nil, err
	}
	dims, shared, ok := p.ofAllSamples(to.v)
	if !ok || len(dims) > maxRank {
		return nil, nil
	}
	zeros := n.int("allowzero", 0) != 0
	switch {
	case !shared && !a.shared:
	case shared != a.shared && !(a.shared && len(dims) > 0 && (dims[0] == -1 || dims[0] == 0 && !zeros)):
		return nil, nil
	case dims[0] == -1 || dims[0] == 0: // of what the samples have, which is then all
		dims[0] = 1
	}
	b := *a
	if b.dims, err = resolve(dims, a.dims, a.len(), zeros); err != nil {
		if a.shared { // which would have been across samples
			return nil, nil
		}
		return nil, err
	}
	return &b, nil
}

// foldSqueeze computes a Squeeze or an Unsqueeze.
func (p *parser) foldSqueeze(n *node, in []*array) (*array, error) {
	a := in[0]
	if a == nil {
		return nil, nil
	}
	if _, given := n.attribute("axes"); n.op == "Squeeze" && !n.has(1) && !given {
		if a.shared {
			return nil, nil
		}
		b := *a
		b.dims = slices.DeleteFunc(slices.Clone(a.dims), func(d int64) bool { return d == 1 })
		return &b, nil
	}
	list, err := p.list(n, "axes", 1)
	if err != nil {
		return nil, err
	}
	rank := int64(len(a.dims))
	if n.op == "Unsqueeze" {
		rank += int64(len(list))
	}
	if a.shared && slices.ContainsFunc(list, func(v int64) bool { return v == 0 || v == -rank }) {
		return nil, nil
	}
	b := *a
	b.dims, err = p.squeezedConstant(n, a.dims)
	return &b, err
}

// foldExpand computes an Expand.
func (p *parser) foldExpand(n *node, in []*array) (*array, error) {
	to, err := p.sizes(n, 1)
	if err != nil || len(to.dims) != 1 {
		return nil, err
	}
	dims, shared, ok := p.ofAllSamples(to.v)
	if !ok || in[0] == nil {
		return nil, nil
	}
	all, of, ok := p.broadcast(in[0], &array{dims: dims, shared: shared})
	if !ok {
		return nil, nil
	}
	y, err := p.spreadTo(in[0], all)
	if y == nil || err != nil {
		return nil, err
	}
	z := *y
	z.shared = of
	return &z, nil
}

// ofAllSamples returns dimensions with 1 for the batch, and whether that is the first; the last
// result is false where it is another, or a part of one.
func (p *parser) ofAllSamples(v []size) (dims []int64, shared, ok bool) {
	for i, d := range v {
		if d.batch && p.batch != 1 {
			if i > 0 || d.n != 1 {
				return nil, false, false
			}
			shared = true
		}
		dims = append(dims, d.n)
	}
	return dims, shared, true
}

// foldTranspose computes a Transpose, of what is no matrix of weights.
func (p *parser) foldTranspose(n *node, in []*array) (*array, error) {
	a := in[0]
	if a == nil || a.len() == 0 {
		return nil, nil
	}
	perm, err := permutation(n, len(a.dims))
	if err != nil {
		return nil, err
	}
	if a.shared && perm[0] != 0 {
		return nil, nil
	}
	dims, strides := permuted(a.dims, perm)
	return p.picked(a, dims, func(index []int64) int { return offset(index, strides) })
}

// foldSlice computes a Slice.
func (p *parser) foldSlice(n *node, in []*array) (*array, error) {
	a := in[0]
	if a == nil || a.len() == 0 {
		return nil, nil
	}
	lists, err := p.cutLists(n)
	if err != nil {
		return nil, err
	}
	cuts, err := p.cuts(n, lists, len(a.dims))
	if err != nil {
		return nil, err
	}
	strides, first, dims := stridesOf(a.dims), 0, slices.Clone(a.dims)
	seen := map[int]bool{}
	for _, c := range cuts {
		if seen[c.axis] {
			return nil, fmt.Errorf("%w: axis %d twice", ErrInvalid, c.axis)
		}
		seen[c.axis] = true
		if a.shared && c.axis == 0 {
			if !c.all() {
				return nil, nil
			}
			continue
		}
		from, to := c.within(a.dims[c.axis])
		dims[c.axis] = max(0, (to-from+c.step-sign(c.step))/c.step)
		first += int(from) * strides[c.axis]
		strides[c.axis] *= int(c.step)
	}
	return p.picked(a, dims, func(index []int64) int { return first + offset(index, strides) })
}

// foldConcat computes a Concat.
func (p *parser) foldConcat(n *node, in []*array) (*array, error) {
	attribute, ok := n.attribute("axis")
	if !ok || slices.Contains(in, nil) {
		return nil, nil
	}
	rank := len(in[0].dims)
	axis, err := fromStart(attribute.i, rank)
	if err != nil {
		return nil, err
	}
	like := *in[0]
	like.steps = nil
	dims := slices.Clone(in[0].dims)
	dims[axis] = 0
	for _, a := range in {
		if a.kind != like.kind || a.shared != like.shared || len(a.dims) != rank || a.shared && axis == 0 || a.len() == 0 && slices.Contains(a.dims, 0) && rank > 1 {
			return nil, nil
		}
		for i, d := range a.dims {
			if i != axis && d != dims[i] {
				return nil, fmt.Errorf("%w: constant of another shape", ErrInvalid)
			}
		}
		if dims[axis] += a.dims[axis]; dims[axis] > math.MaxInt32 {
			return nil, fmt.Errorf("%w: too many constants", ErrInvalid)
		}
		if a.steps != nil {
			like.steps = a.steps
		}
	}
	y, err := p.made(&like, dims)
	if y == nil || err != nil {
		return nil, err
	}
	inner, _ := extent(dims[axis:])
	at := 0
	for _, a := range in {
		rows := inner / int(dims[axis]) * int(a.dims[axis])
		for j := range a.len() {
			y.set(at+j/rows*inner+j%rows, a, j)
		}
		at += rows
	}
	return y, nil
}

// foldGather computes a Gather, of a table's rows among others: only those are read.
func (p *parser) foldGather(n *node, in []*array) (*array, error) {
	if len(in) != 2 || in[1] == nil || in[1].float() || in[1].kind == typeBool || in[1].steps != nil || in[1].len() == 0 {
		return nil, nil
	}
	t, ids := p.operands[n.inputs[0]].constant, in[1]
	if t == nil { // of sizes
		a, err := p.array(n, 0)
		if a == nil || err != nil {
			return nil, err
		}
		t = a.operand().constant
	}
	from := p.operands[n.inputs[0]]
	axis, err := fromStart(n.int("axis", 0), len(t.dims))
	if err != nil {
		return nil, err
	}
	l := t.dims[axis]
	places, err := elements(ids.ints, l)
	if err != nil {
		return nil, err
	}
	if ids.shared && axis != 0 || from.shared && (axis == 0 || ids.shared) {
		return nil, nil
	}
	dims := slices.Concat(t.dims[:axis], ids.dims, t.dims[axis+1:])
	if t.kind == typeFloat && axis == 0 && t.of == nil && len(t.dims) > 1 {
		y, err := p.tableRows(t, places, dims)
		if y != nil {
			y.shared = ids.shared
		}
		return y, err
	}
	a, err := p.array(n, 0)
	if a == nil || err != nil || a.len() == 0 {
		return nil, err
	}
	strides, own := stridesOf(a.dims), stridesOf(ids.dims)
	y, err := p.picked(a, dims, func(index []int64) int {
		behind := axis + len(own)
		id := offset(index[axis:behind], own)
		return offset(index[:axis], strides) + places[id]*strides[axis] + offset(index[behind:], strides[axis+1:])
	})
	if y != nil {
		y.shared = a.shared || ids.shared
	}
	return y, err
}

// tableRows returns the given rows of t, of floats, as an array of the given dimensions.
func (p *parser) tableRows(t *tensor, rows []int, dims []int64) (*array, error) {
	width, ok := extent(t.dims[1:])
	if !ok {
		return nil, nil
	}
	if _, err := t.checkData(len(t.floats), 4); err != nil {
		return nil, err
	}
	y, err := p.made(&array{kind: typeFloat}, dims)
	if y == nil || err != nil {
		return nil, err
	}
	piece := t.piece()
	for i, at := range rows {
		if err := t.read(y.floats[i*width:][:width], at*width, piece); err != nil {
			return nil, err
		}
	}
	return y, nil
}

// foldGatherElements computes a GatherElements.
func (p *parser) foldGatherElements(n *node, in []*array) (*array, error) {
	if len(in) != 2 || in[0] == nil || in[1] == nil || in[1].float() || in[1].kind == typeBool || in[1].steps != nil || len(in[0].dims) != len(in[1].dims) {
		return nil, nil
	}
	a, ids := in[0], in[1]
	axis, err := fromStart(n.int("axis", 0), len(a.dims))
	if err != nil {
		return nil, err
	}
	if a.shared != ids.shared || a.shared && axis == 0 {
		return nil, nil
	}
	for i, d := range ids.dims {
		if i != axis && d > a.dims[i] {
			return nil, fmt.Errorf("%w: indices of %d for %d", ErrInvalid, ids.dims, a.dims)
		}
	}
	places, err := elements(ids.ints, a.dims[axis])
	if err != nil {
		return nil, err
	}
	strides, own := stridesOf(a.dims), stridesOf(ids.dims)
	return p.picked(a, ids.dims, func(index []int64) int {
		place := places[offset(index, own)] - int(index[axis])
		return offset(index, strides) + place*strides[axis]
	})
}

// foldGatherND computes a GatherND.
func (p *parser) foldGatherND(n *node, in []*array) (*array, error) {
	if len(in) != 2 || in[0] == nil || in[1] == nil || in[1].float() || len(in[1].dims) == 0 || n.int("batch_dims", 0) != 0 || in[0].len() == 0 || in[1].len() == 0 {
		return nil, nil
	}
	a, ids := in[0], in[1]
	last := len(ids.dims) - 1
	many := int(ids.dims[last])
	if many < 1 || many > len(a.dims) || ids.kind == typeBool {
		return nil, nil
	}
	strides := stridesOf(a.dims)
	starts := make([]int, ids.len()/many)
	for i := range starts {
		for k := range many {
			v, l := ids.ints[i*many+k], a.dims[k]
			if a.shared && k == 0 {
				// Of each sample its own, which is the same for all.
				if a.steps != nil || v != 0 || ids.steps != nil && ids.steps[i*many] != 1 {
					return nil, nil
				}
				continue
			}
			if ids.steps != nil && ids.steps[i*many+k] != 0 {
				return nil, nil
			}
			if v < -l || v >= l {
				return nil, fmt.Errorf("%w: element %d of %d", ErrInvalid, v, l)
			}
			starts[i] += int((v+l)%l) * strides[k]
		}
	}
	dims := slices.Concat(ids.dims[:last], a.dims[many:])
	own := stridesOf(ids.dims[:last])
	y, err := p.picked(a, dims, func(index []int64) int {
		return starts[offset(index[:last], own)] + offset(index[last:], strides[many:])
	})
	if y != nil {
		y.shared = ids.shared
	}
	return y, err
}

// foldTrilu computes a Trilu.
func (p *parser) foldTrilu(n *node, in []*array) (*array, error) {
	a, k := in[0], int64(0)
	if a == nil || len(a.dims) < 2 || a.steps != nil || a.shared && len(a.dims) < 3 || a.len() == 0 {
		return nil, nil
	}
	if n.has(1) {
		if b := in[1]; b.float() || b.len() != 1 || b.steps != nil {
			return nil, nil
		}
		k = in[1].ints[0]
	}
	y, err := p.made(a, a.dims)
	if y == nil || err != nil {
		return nil, err
	}
	rows, cols := a.dims[len(a.dims)-2], a.dims[len(a.dims)-1]
	upper := n.int("upper", 1) != 0
	k = min(max(k, -math.MaxInt32), math.MaxInt32)
	for i := range y.len() {
		row, col := int64(i)/cols%rows, int64(i)%cols
		if upper && col-row >= k || !upper && col-row <= k {
			y.set(i, a, i)
		}
	}
	return y, nil
}

// foldCumSum computes a CumSum.
func (p *parser) foldCumSum(n *node, in []*array) (*array, error) {
	if len(in) != 2 || in[0] == nil || in[1] == nil || in[1].float() || in[1].len() != 1 || in[0].kind == typeBool || in[0].steps != nil || in[0].len() == 0 {
		return nil, nil
	}
	a := in[0]
	axis, err := fromStart(in[1].ints[0], len(a.dims))
	if err != nil {
		return nil, err
	}
	if a.shared && axis == 0 || n.int("exclusive", 0) != 0 || n.int("reverse", 0) != 0 {
		return nil, nil
	}
	y, err := p.made(a, a.dims)
	if y == nil || err != nil {
		return nil, err
	}
	stride := stridesOf(a.dims)[axis]
	for i := range y.len() {
		y.set(i, a, i)
		if int64(i/stride)%a.dims[axis] == 0 {
			continue
		}
		if a.float() {
			y.floats[i] += y.floats[i-stride]
		} else if v, ok := sum(y.ints[i], y.ints[i-stride]); ok {
			y.ints[i] = v
		} else {
			return nil, fmt.Errorf("%w: sums past 64 bits", ErrInvalid)
		}
	}
	return y, nil
}

// foldRange computes a Range of integers, or the numbers of all samples.
func (p *parser) foldRange(n *node, in []*array) (*array, error) {
	if len(in) != 3 || in[0] == nil || in[2] == nil || in[0].float() || in[2].float() || in[0].len() != 1 || in[2].len() != 1 || in[0].steps != nil {
		return nil, nil
	}
	limit, err := p.sizes(n, 1)
	if err != nil || len(limit.v) != 1 {
		return nil, err
	}
	start, end, delta := in[0].ints[0], limit.v[0], in[2].ints[0]
	like := &array{kind: in[0].kind}
	if end.batch && p.batch != 1 {
		if start != 0 || end.n != 1 || delta != 1 {
			return nil, nil
		}
		return &array{kind: in[0].kind, dims: []int64{1}, ints: []int64{0}, shared: true, steps: []int64{1}}, nil
	}
	if delta == 0 || max(start, end.n, delta) > math.MaxInt32 || min(start, end.n, delta) < -math.MaxInt32 {
		return nil, fmt.Errorf("%w: a range from %d to %d by %d", ErrInvalid, start, end.n, delta)
	}
	many := (end.n - start + delta - sign(delta)) / delta
	if many <= 0 {
		return nil, nil
	}
	y, err := p.made(like, []int64{many})
	if y == nil || err != nil {
		return nil, err
	}
	for i := range y.ints {
		y.ints[i] = start + int64(i)*delta
	}
	return y, nil
}

// foldFilled computes a ConstantOfShape.
func (p *parser) foldFilled(n *node, _ []*array) (*array, error) {
	to, err := p.sizes(n, 0)
	if err != nil || len(to.dims) != 1 {
		return nil, err
	}
	like := &array{kind: typeFloat, floats: []float32{0}}
	if a, given := n.attribute("value"); given {
		if a.t == nil {
			return nil, fmt.Errorf("%w: no value", ErrInvalid)
		}
		if like, err = p.arrayOf(n, operand{constant: a.t}); like == nil || err != nil || like.len() != 1 {
			return nil, err
		}
	}
	dims, shared, ok := p.ofAllSamples(to.v)
	if !ok || slices.ContainsFunc(dims, func(d int64) bool { return d < 0 }) {
		return nil, nil
	}
	y, err := p.picked(like, dims, func([]int64) int { return 0 })
	if y != nil {
		y.shared = shared
	}
	return y, err
}
