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

// extentOf returns where s has its extent along a.
func extentOf(s *graph.Shape, a axis) *int { return [...]*int{&s.C, &s.H, &s.W}[a] }

// rangeOf returns where s has its range along a.
func rangeOf(s *graph.Slice, a axis) *graph.Range { return [...]*graph.Range{&s.C, &s.H, &s.W}[a] }

// shaped returns the shape of the given extents along the given axes.
func shaped(axes []axis, dims []int64) graph.Shape {
	e := []int{1, 1, 1}
	for i, a := range axes {
		e[a] = int(dims[i])
	}
	return graph.Shape{C: e[axisC], H: e[axisH], W: e[axisW]}
}

// shapedDims returns a shape's extents along axes.
func shapedDims(s graph.Shape, axes []axis) (dims []int64) {
	for _, a := range axes {
		dims = append(dims, int64(extents(s)[a]))
	}
	return dims
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
	at, err := fromStart(i, x.rank())
	if err != nil {
		return 0, err
	}
	if at == 0 {
		return 0, p.refuse(n, "across samples")
	}
	return at - 1, nil
}

// fromStart returns an axis of a tensor of the given rank, which counts from the end where it is
// negative, counted from the start.
func fromStart(axis int64, rank int) (int, error) {
	r := int64(rank)
	if axis < -r || axis >= r {
		return 0, fmt.Errorf("%w: axis %d of rank %d", ErrInvalid, axis, rank)
	}
	return int((axis + r) % r), nil
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
