package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// Pools.

// pool reads MaxPool and AveragePool.
func (p *parser) pool(n *node) (operand, error) {
	w, err := p.window(n, nil)
	if err != nil {
		return operand{}, err
	}
	dilated := slices.Max(w.dilations) > 1
	if dilated && (n.op != "MaxPool" || w.same() || n.int("ceil_mode", 0) != 0 || slices.Max(w.kernel) > maxDilated) {
		return operand{}, p.refuse(n, "dilations") // with auto_pad SAME, runtimes differ
	}
	x, err := p.variable(n, 0, w.rank)
	if err != nil {
		return x, err
	}
	if err := p.padSame(n, w, x.shape); err != nil {
		return x, err
	}
	if dilated {
		return p.dilated(w, x)
	}
	count := n.int("count_include_pad", 0) != 0
	if n.int("ceil_mode", 0) != 0 && (w.autoPad == "NOTSET" || w.autoPad == "VALID") {
		given := slices.Clone(w.pads)
		if err := p.ceil(n, w, x.shape); err != nil {
			return x, err
		}
		count = count && slices.Equal(w.pads, given)
	}
	pool := graph.Pool{
		KH: int(w.kernel[0]), KW: int(w.kernel[1]),
		SH: int(w.strides[0]), SW: int(w.strides[1]),
		Top: int(w.pads[0]), Left: int(w.pads[1]), Bot: int(w.pads[2]), Right: int(w.pads[3]),
	}
	if n.op == "MaxPool" {
		return p.apply(graph.MaxPool{Pool: pool}, x.axes, x)
	}
	return p.apply(graph.AvgPool{Pool: pool, CountPad: count}, x.axes, x)
}

// ceil adds the padding at the end with which the number of windows, rounded down, is
// the one that is rounded up without it. What the last window then has of the map is
// the same, and the padding counts for nothing: where it would count, or where a window
// has none of the map, runtimes differ, and it is refused.
func (p *parser) ceil(n *node, w *window, s graph.Shape) error {
	given := slices.Clone(w.pads)
	for i, size := range []int64{int64(s.H), int64(s.W)} {
		start, end := w.pads[i], w.pads[i+2]
		over := (size + start + end - w.kernel[i]) % w.strides[i]
		if over <= 0 { // none, or a window larger than the map, which is refused elsewhere
			continue
		}
		more := w.strides[i] - over
		switch {
		case end+more >= w.kernel[i]:
			return p.refuse(n, "ceil_mode=1 with a window of padding")
		case n.int("count_include_pad", 0) != 0 && slices.Max(given) > 0:
			return p.refuse(n, "ceil_mode=1 with count_include_pad=1")
		}
		w.pads[i+2] += more
	}
	return nil
}

// maxDilated bounds the rows and columns of a dilated window, each of which is an operator.
const maxDilated = 7

// dilated returns the largest elements under dilated windows: of parts of the map that are as far
// apart as the windows' elements.
func (p *parser) dilated(w *window, x operand) (operand, error) {
	pad := graph.Pad{Value: -math.MaxFloat32} // never more than what is on the map
	pad.Before.H, pad.Before.W, pad.After.H, pad.After.W = int(w.pads[0]), int(w.pads[1]), int(w.pads[2]), int(w.pads[3])
	if err := p.charge(16 * int(w.kernel[0]+w.kernel[1])); err != nil { // about a node's bytes
		return x, err
	}
	var err error
	if pad.Before != (graph.Shape{}) || pad.After != (graph.Shape{}) {
		if x, err = p.apply(pad, x.axes, x); err != nil {
			return x, err
		}
	}
	for i, a := range []axis{axisH, axisW} {
		at := slices.Index(x.axes, a) // -1 where a sequence has no rows
		if w.kernel[i] == 1 {
			continue
		}
		l := x.dims()[at] - (w.kernel[i]-1)*w.dilations[i]
		if l <= 0 {
			return x, fmt.Errorf("%w: a window larger than the map", ErrInvalid)
		}
		var y operand
		for k := range w.kernel[i] {
			part := newSlicing(x)
			part.cut(at, k*w.dilations[i], k*w.dilations[i]+l)
			z, err := part.apply(p)
			if err == nil && k > 0 {
				z, err = p.apply(graph.Max{}, x.axes, y, z)
			}
			if y = z; err != nil {
				return x, err
			}
		}
		x = y
	}
	if w.strides[0] == 1 && w.strides[1] == 1 {
		return x, nil
	}
	every := graph.Pool{KH: 1, KW: 1, SH: int(w.strides[0]), SW: int(w.strides[1])}
	return p.apply(graph.MaxPool{Pool: every}, x.axes, x)
}

// globalPool reads GlobalMaxPool and GlobalAveragePool: of each channel, over its map.
func (p *parser) globalPool(n *node, x operand) (operand, error) {
	if len(x.axes) < 2 {
		return x, fmt.Errorf("%w: input of rank %d", ErrInvalid, x.rank())
	}
	x, err := p.ordered(x)
	if err != nil {
		return x, err
	}
	if n.op == "GlobalMaxPool" {
		return p.apply(graph.MaxPool{Pool: global(x.shape)}, x.axes, x)
	}
	return p.apply(graph.AvgPool{Pool: global(x.shape)}, x.axes, x)
}

// global is the window of all of a map.
func global(s graph.Shape) graph.Pool { return graph.Pool{KH: s.H, KW: s.W, SH: 1, SW: 1} }
