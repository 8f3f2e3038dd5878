package onnx

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// Reductions, Softmax and CumSum: what goes over one or more axes.

// reduce reads ReduceMax, ReduceMean, ReduceSum and ReduceL2 of one or more axes.
func (p *parser) reduce(n *node, x operand) (operand, error) {
	list, err := p.list(n, "axes", 1)
	if err != nil {
		return x, err
	}
	if x.split != nil && len(list) > 0 {
		return p.reduceView(n, x, list)
	}
	if x, err = p.plain(n, x); err != nil {
		return x, err
	}
	if len(list) == 0 && n.int("noop_with_empty_axes", 0) != 0 {
		if n.op == "ReduceL2" { // of each element alone
			return p.apply(graph.Abs{}, x.axes, x)
		}
		return x, nil
	}
	if len(list) == 0 {
		return x, p.refuse(n, "across samples")
	}
	over := map[axis]bool{}
	for _, i := range list {
		d, err := p.dimension(n, x, i)
		if err != nil {
			return x, err
		}
		over[x.axes[d]] = true
	}
	if n.op == "ReduceL2" {
		if x, err = p.apply(graph.Square{}, x.axes, x); err != nil {
			return x, err
		}
	}
	y, err := p.reducedOver(n.op, x, over)
	if err == nil && n.op == "ReduceL2" {
		y, err = p.apply(graph.Sqrt{}, y.axes, y)
	}
	if err != nil || n.int("keepdims", 1) != 0 {
		return y, err
	}
	var axes []axis
	for i, a := range x.axes {
		if !over[a] {
			axes = append(axes, y.axes[i])
		}
	}
	if y.axes = axes; len(axes) == 0 {
		// One number a sample is a tensor of rank 1.
		return y, p.refuse(n, "to rank 1")
	}
	return y, nil
}

// reducedOver is reduced, also of channels: as rows or columns, after those if they are to be, too.
func (p *parser) reducedOver(op string, x operand, over map[axis]bool) (operand, error) {
	if !over[axisC] || op == "ReduceMean" {
		return p.reduced(op, x, over)
	}
	y, err := p.reduced(op, x, map[axis]bool{axisH: over[axisH], axisW: over[axisW]})
	if err != nil {
		return x, err
	}
	axes, at := slices.Clone(x.axes), slices.Index(x.axes, axisC)
	if axes[at] = axisH; len(axes) > 1 {
		other := (at + 1) % len(axes)
		axes[at], axes[other] = x.axes[other], axisC
	}
	if y, err = p.reordered(y, axes); err != nil {
		return x, err
	}
	return p.reduced(op, y, map[axis]bool{axes[at]: true})
}

// reduced reduces x over axes, in place; over channels to their mean alone. ReduceL2 is
// the sum here.
func (p *parser) reduced(op string, x operand, over map[axis]bool) (operand, error) {
	pool := graph.Pool{KH: 1, KW: 1, SH: 1, SW: 1}
	if over[axisH] {
		pool.KH = x.shape.H
	}
	if over[axisW] {
		pool.KW = x.shape.W
	}
	var err error
	if over[axisH] || over[axisW] {
		switch op {
		case "ReduceMax":
			x, err = p.apply(graph.MaxPool{Pool: pool}, x.axes, x)
		case "ReduceSum", "ReduceL2":
			x, err = p.apply(graph.SumPool{Pool: pool}, x.axes, x)
		default:
			x, err = p.apply(graph.AvgPool{Pool: pool}, x.axes, x)
		}
	}
	if err == nil && over[axisC] {
		x, err = p.apply(graph.ChannelMean{}, x.axes, x)
	}
	return x, err
}

// reduceView reads a reduction of a split.
func (p *parser) reduceView(n *node, x operand, axes []int64) (operand, error) {
	s := x.view()
	var over []int
	for _, a := range axes {
		i, err := p.index(n, s, a)
		if err != nil {
			return x, err
		}
		if slices.Contains(over, i) {
			return x, fmt.Errorf("%w: axis %d twice", ErrInvalid, a)
		}
		over = append(over, i)
	}
	slices.Sort(over)
	var err error
	if n.op == "ReduceL2" {
		if x, err = p.apply(graph.Square{}, nil, x); err != nil {
			return x, err
		}
	}
	// Means go over channels, all else over rows.
	along, rest := axisC, s.others(over...)
	if n.op == "ReduceMean" {
		x, err = p.placed(x, over, nil, rest)
	} else {
		along = axisH
		last := max(len(rest)-1, 0)
		x, err = p.placed(x, rest[last:], over, rest[:last])
	}
	if err != nil {
		return x, err
	}
	y, err := p.reduced(n.op, x.bare(), map[axis]bool{along: true})
	if err == nil && n.op == "ReduceL2" {
		y, err = p.apply(graph.Sqrt{}, nil, y)
	}
	if err != nil {
		return x, err
	}
	// All of the axis is one element.
	s = x.view()
	of := s.axesOf(x.shape)
	at, less := 0, len(of[along])
	if along != axisC {
		at = len(of[axisC])
	}
	t := s.without(at, less)
	if n.int("keepdims", 1) == 0 {
		for _, i := range slices.Backward(over) {
			t.dims = slices.Delete(t.dims, i, i+1)
		}
	}
	if len(t.dims) < 2 {
		return y, p.refuse(n, "to rank 1")
	}
	if dim, _ := t.samples(); dim < 0 { // one sample, in what is left out
		t = t.batchAt(0)
	}
	return p.seen(y, t), nil
}

// softmax reads Softmax and LogSoftmax. Before opset 13 they go over all axes from one on.
func (p *parser) softmax(n *node, x operand) (operand, error) {
	otherwise := int64(-1)
	if p.opset < 13 {
		otherwise = 1
	}
	axis := n.int("axis", otherwise)
	if x.split != nil && p.opset >= 13 {
		i, err := p.index(n, x.split, axis)
		if err != nil {
			return x, err
		}
		if x, err = p.alongC(x, i); err != nil {
			return x, err
		}
		return p.overChannels(n, x)
	}
	x, err := p.plain(n, x)
	if err != nil {
		return x, err
	}
	at, err := p.dimension(n, x, axis)
	if err != nil {
		return x, err
	}
	// Before opset 13 the sum goes over the axis and all that follow.
	for _, d := range x.dims()[at+1:] {
		if p.opset < 13 && d > 1 {
			return x, p.refuse(n, "axis=%d of rank %d in opset %d", axis, x.rank(), p.opset)
		}
	}
	if x, err = p.channelsAt(x, at); err != nil {
		return x, err
	}
	return p.overChannels(n, x)
}

// overChannels applies Softmax or LogSoftmax.
func (p *parser) overChannels(n *node, x operand) (operand, error) {
	if n.op == "LogSoftmax" {
		return p.apply(graph.LogSoftmax{}, x.axes, x)
	}
	y, err := p.apply(graph.Softmax{}, x.axes, x)
	y.softened = true
	return y, err
}

// cumSum reads a CumSum of a value.
func (p *parser) cumSum(n *node, x operand) (operand, error) {
	list, err := p.list(n, "", 1)
	if err != nil {
		return x, err
	}
	if len(list) != 1 || n.int("exclusive", 0) != 0 || n.int("reverse", 0) != 0 {
		return x, p.refuse(n, "exclusive, reverse or of several axes")
	}
	i, err := p.index(n, x.view(), list[0])
	if err != nil {
		return x, err
	}
	l := x.view().size(i).n
	bounds := [2]int64{min(x.bounds[0], l*x.bounds[0]), max(x.bounds[1], l*x.bounds[1])}
	if x.whole && max(-bounds[0], bounds[1]) > graph.MaxInteger {
		return x, p.refuse(n, "of integers of more than %d", graph.MaxInteger)
	}
	whole := x.whole
	if x.split == nil {
		x, err = p.channelsAt(x, i-1)
	} else {
		x, err = p.alongC(x, i)
	}
	if err != nil {
		return x, err
	}
	y, err := p.apply(graph.CumSum{}, x.axes, x)
	y.whole, y.bounds = whole, bounds
	return y, err
}
