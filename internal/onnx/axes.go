package onnx

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// An axis is one of a graph's shape. A tensor of ONNX has one for each of its
// dimensions after the batch; the shape's extents along all others are 1. So a
// Transpose costs nothing where what reads it takes the axes in any order.
type axis int

// In the order of ONNX's maps.
const (
	axisC axis = iota
	axisH
	axisW
)

// The axes of N x C, N x C x L and N x C x H x W.
var canonical = [][]axis{{}, {axisC}, {axisC, axisW}, {axisC, axisH, axisW}}

var axesC, axesCHW = canonical[1], canonical[3]

// extents returns a shape's extents along C, H and W.
func extents(s graph.Shape) []int { return []int{s.C, s.H, s.W} }

// shaped returns the shape of the given extents along the given axes.
func shaped(axes []axis, dims []int64) graph.Shape {
	e := []int{1, 1, 1}
	for i, a := range axes {
		e[a] = int(dims[i])
	}
	return graph.Shape{C: e[axisC], H: e[axisH], W: e[axisW]}
}

// rank returns the dimensions of x, with the batch.
func (x operand) rank() int {
	if x.split != nil {
		return len(x.split.dims)
	}
	return 1 + len(x.axes)
}

// dims returns the extents of x after the batch, which is no split.
func (x operand) dims() (dims []int64) {
	if x.wide != nil {
		return shapedDims(*x.wide, x.axes)
	}
	return shapedDims(x.shape, x.axes)
}

// shapedDims returns a shape's extents along axes.
func shapedDims(s graph.Shape, axes []axis) (dims []int64) {
	for _, a := range axes {
		dims = append(dims, int64(extents(s)[a]))
	}
	return dims
}

// order returns how a sample in C, H, W order becomes x's elements in order: as a
// tensor of dims, transposed by perm. x is no split.
func (x operand) order() (dims, perm []int) {
	for _, a := range x.axes {
		perm = append(perm, int(a))
	}
	for a := range 3 { // extents of 1 may stand anywhere
		if !slices.Contains(perm, a) {
			perm = append(perm, a)
		}
	}
	return extents(x.shape), perm
}

// reordered returns x with its dimensions along the given axes.
func (p *parser) reordered(x operand, axes []axis) (operand, error) {
	if slices.Equal(x.axes, axes) {
		return x, nil
	}
	dims, _ := x.order()
	perm := []int{-1, -1, -1} // from which axis comes the result's
	free := slices.DeleteFunc([]int{0, 1, 2}, func(a int) bool { return slices.Contains(x.axes, axis(a)) })
	for i, a := range axes {
		perm[a] = int(x.axes[i])
	}
	for a, from := range perm {
		if from < 0 {
			perm[a], free = free[0], free[1:]
		}
	}
	to := shaped(axes, x.dims())
	if to == x.shape {
		if t, ok := graph.NewTranspose(dims, perm, to).(graph.Reshape); ok && t.To == to {
			x.axes = axes
			return x, nil
		}
	}
	return p.apply(graph.NewTranspose(dims, perm, to), axes, x)
}

// ordered returns x with its dimensions along the axes that its rank has in ONNX's order.
func (p *parser) ordered(x operand) (operand, error) { return p.reordered(x, canonical[len(x.axes)]) }

// channelsAt returns x with the channels at dimension i of those after the batch, and
// the others' order kept.
func (p *parser) channelsAt(x operand, i int) (operand, error) {
	if x.axes[i] == axisC {
		return x, nil
	}
	rest := slices.Clone(canonical[len(x.axes)][1:])
	return p.reordered(x, slices.Insert(rest, i, axisC))
}

// dimension returns the dimension after the batch that n's axis i is of x, and
// notes where it is none.
func (p *parser) dimension(n *node, x operand, i int64) (int, error) {
	r := int64(x.rank())
	if i < -r || i >= r {
		return 0, fmt.Errorf("%w: axis %d of rank %d", ErrInvalid, i, r)
	}
	if i = (i + r) % r; i == 0 {
		return 0, p.refuse(n, "across samples")
	}
	return int(i - 1), nil
}

// dimensions returns those of x at so many axes, or all; -1 is the samples'.
func (p *parser) dimensions(n *node, x operand, axes []int64, given bool) (dims []int, err error) {
	if !given {
		for i := range x.rank() {
			dims = append(dims, i-1)
		}
		return dims, nil
	}
	for _, a := range axes {
		i := -1
		if a != 0 && a != -int64(x.rank()) {
			if i, err = p.dimension(n, x, a); err != nil {
				return nil, err
			}
		}
		dims = append(dims, i)
	}
	return dims, nil
}

// transpose reads a Transpose of a value or of a constant.
func (p *parser) transpose(n *node) (operand, error) {
	x, err := p.operand(n, 0)
	if err != nil {
		return x, err
	}
	if t := x.constant; x.sizes != nil || t != nil && (t.kind == typeInt32 || t.kind == typeInt64) {
		return p.transposeSizes(n)
	}
	if x.known {
		if x, err = p.viewed(n, 0); err != nil {
			return x, err
		}
	}
	rank := x.rank()
	if !x.known {
		rank = len(x.constant.dims)
	}
	var perm []int
	a, given := n.attribute("perm")
	for i := range rank {
		perm = append(perm, rank-1-i)
	}
	if given {
		perm = perm[:0]
		for _, v := range a.ints {
			perm = append(perm, int(min(max(v, -1), maxRank)))
		}
	}
	for i, v := range slices.Sorted(slices.Values(perm)) {
		if v != i {
			return x, fmt.Errorf("%w: transposed by %d", ErrInvalid, a.ints)
		}
	}
	if len(perm) != rank {
		return x, fmt.Errorf("%w: rank %d, transposed by %d", ErrInvalid, rank, a.ints)
	}
	if t := x.constant; !x.known && rank == 2 && perm[0] == 1 && (t.kind == typeFloat || t.kind == typeDouble) {
		return operand{constant: &tensor{name: t.name, kind: t.kind, dims: []int64{t.dims[1], t.dims[0]}, of: t}}, nil
	}
	if !x.known {
		t, err := p.transposed(n, x.constant, perm)
		return operand{constant: t}, err
	}
	if perm[0] != 0 || x.split != nil {
		return p.turned(x, perm), nil
	}
	axes := make([]axis, len(x.axes))
	for i, v := range perm[1:] {
		axes[i] = x.axes[v-1]
	}
	x.axes = axes
	return x, nil
}

// transposed returns a float tensor with its axes permuted.
func (p *parser) transposed(n *node, t *tensor, perm []int) (*tensor, error) {
	v, err := p.floats32(n, t)
	if err != nil {
		return nil, err
	}
	if err := p.charge(len(v)); err != nil {
		return nil, err
	}
	u := &tensor{name: t.name, kind: typeFloat, floats: make([]float32, len(v))}
	strides, stride := make([]int, len(perm)), 1
	for i := len(perm) - 1; i >= 0; i-- {
		strides[i] = stride
		stride *= int(t.dims[i])
	}
	for _, a := range perm {
		u.dims = append(u.dims, t.dims[a])
	}
	index, at := make([]int64, len(perm)), 0
	for i := range u.floats {
		u.floats[i] = v[at]
		for j := len(perm) - 1; j >= 0; j-- {
			s := strides[perm[j]]
			index[j]++
			if at += s; index[j] < u.dims[j] {
				break
			}
			at -= int(u.dims[j]) * s
			index[j] = 0
		}
	}
	return u, nil
}

// squeeze reads Squeeze and Unsqueeze.
func (p *parser) squeeze(n *node) (operand, error) {
	x, err := p.any(n, 0)
	if err != nil {
		return x, err
	}
	if t := x.constant; x.sizes != nil || t != nil && (t.kind == typeInt32 || t.kind == typeInt64) {
		return p.squeezeSize(n)
	}
	if x.common != nil || x.shared {
		return p.squeezeCommon(n, x)
	}
	if t := x.constant; t != nil {
		c := *t
		c.dims, err = squeezed(p, n, t.dims, 0, func(d int64) bool { return d == 1 }, 1)
		if len(c.dims) > maxRank {
			err = fmt.Errorf("%w: tensor of rank %d", ErrInvalid, len(c.dims))
		}
		return operand{constant: &c}, err
	}
	if x, err = p.viewed(n, 0); err != nil {
		return x, err
	}
	if list, err := p.list(n, "axes", 1); err != nil || x.split != nil || n.op == "Unsqueeze" && (len(list)+x.rank() > len(canonical) || slices.Contains(list, 0)) || p.batch == 1 && slices.Contains(list, 0) {
		s := x.view()
		if p.batch == 1 { // of one sample any dimension of 1 may be
			t := &split{parts: s.parts}
			for i := range s.dims {
				t.dims = append(t.dims, s.own(i))
			}
			s = t
		}
		dims, err := squeezed(p, n, s.dims, 0, func(d []int) bool { return len(d) == 0 }, nil)
		if err == nil && (len(dims) == 0 || len(dims) > 1+maxSplit) {
			err = p.refuse(n, "to rank %d", len(dims))
		}
		if p.batch == 1 && err == nil {
			dims[0] = append([]int{batch}, dims[0]...)
		}
		return p.seen(x, &split{s.parts, dims}), err
	}
	of := extents(x.shape)
	axes, err := squeezed(p, n, x.axes, 1, func(a axis) bool { return of[a] == 1 }, -1)
	if err != nil {
		return x, err
	}
	if len(axes) == 0 || len(axes) > len(axesCHW) {
		return x, p.refuse(n, "to rank %d", len(axes)+1)
	}
	// What is new is along the axes that are left over, in ONNX's order.
	free := slices.DeleteFunc(slices.Clone(axesCHW), func(a axis) bool { return slices.Contains(axes, a) })
	for i, a := range axes {
		if a < 0 {
			axes[i], free = free[0], free[1:]
		}
	}
	x.axes = axes
	return x, nil
}

// squeezed returns dims, of a tensor with batch dimensions before them, without those
// that the Squeeze n takes away, which must be single, or with one more where the
// Unsqueeze n adds one.
func squeezed[T any](p *parser, n *node, dims []T, batch int, single func(T) bool, one T) ([]T, error) {
	rank := batch + len(dims)
	list, err := p.list(n, "axes", 1)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 || len(list) > maxRank {
		return nil, p.refuse(n, "axes=%v", list)
	}
	if n.op == "Unsqueeze" {
		rank += len(list)
	}
	named := make([]bool, rank)
	for _, a := range list {
		if a < -int64(rank) || a >= int64(rank) || named[(a+int64(rank))%int64(rank)] {
			return nil, fmt.Errorf("%w: axes %d of rank %d", ErrInvalid, list, rank)
		}
		named[(a+int64(rank))%int64(rank)] = true
	}
	if batch > 0 && named[0] {
		return nil, p.refuse(n, "across samples")
	}
	var out []T
	for _, here := range named[batch:] {
		switch {
		case n.op == "Unsqueeze" && here:
			out = append(out, one)
			continue
		case here && !single(dims[0]):
			return nil, fmt.Errorf("%w: %s of what is not 1", ErrInvalid, n.op)
		case !here:
			out = append(out, dims[0])
		}
		dims = dims[1:]
	}
	return out, nil
}
