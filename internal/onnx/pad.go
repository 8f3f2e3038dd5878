package onnx

import (
	"fmt"
	"math"

	"github.com/securenets/securenets/internal/graph"
)

// Pad.

// pad reads a Pad. Before opset 11 its inputs are attributes.
func (p *parser) pad(n *node) (operand, error) {
	mode := n.text("mode", "constant")
	if mode != "constant" && mode != "reflect" && mode != "edge" && mode != "wrap" {
		return operand{}, p.refuse(n, "mode=%s", clean(mode))
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
	if n.has(2) && mode == "constant" {
		if value, err = p.scalar(n, 2, "the padding's value"); err != nil {
			return x, err
		}
	}
	var axes []int64
	if n.has(3) {
		if axes, err = p.list(n, "axes", 3); err != nil {
			return x, err
		}
	}
	dims, err := p.dimensions(n, x, axes, n.has(3))
	if err != nil {
		return x, err
	}
	if len(pads) != 2*len(dims) {
		return x, fmt.Errorf("%w: %d pads for %d axes", ErrInvalid, len(pads), len(dims))
	}
	constant := padding{slicing: newSlicing(x), op: graph.Pad{Value: value}}
	seen := map[int]bool{}
	for k, i := range dims {
		from, to := pads[k], pads[k+len(dims)]
		switch {
		case seen[i]:
			return x, fmt.Errorf("%w: an axis twice", ErrInvalid)
		case from == 0 && to == 0:
		case i < 0:
			return x, p.refuse(n, "across samples")
		case max(from, to) > math.MaxInt32 || min(from, to) < -math.MaxInt32:
			return x, fmt.Errorf("%w: padding of %d, %d", ErrInvalid, from, to)
		case mode == "constant":
			err = constant.along(i, from, to)
		default:
			x, err = p.mirrored(n, x, i, mode, from, to)
		}
		if err != nil {
			return x, err
		}
		seen[i] = true
	}
	if mode != "constant" {
		return x, nil
	}
	return constant.apply(p)
}

// A padding is what a Pad with constants makes of a value, under construction: a part of it, padded.
type padding struct {
	*slicing
	op graph.Pad
}

// along pads dimension i after the batch. Where a pad is negative, so much of the value is left out.
func (d *padding) along(i int, from, to int64) error {
	l := d.x.dims()[i]
	left, right := max(-from, 0), l-max(-to, 0)
	if left >= right {
		return fmt.Errorf("%w: padding of %d, %d for %d elements", ErrInvalid, from, to, l)
	}
	d.cut(i, left, right)
	a := d.x.axes[i]
	*extentOf(&d.op.Before, a), *extentOf(&d.op.After, a) = int(max(from, 0)), int(max(to, 0))
	return nil
}

// apply returns the padded value.
func (d *padding) apply(p *parser) (operand, error) {
	x, err := d.slicing.apply(p)
	if err != nil || d.op.Before == (graph.Shape{}) && d.op.After == (graph.Shape{}) {
		return x, err
	}
	return p.apply(d.op, x.axes, x)
}

// mirrored pads x along dimension i with elements of its own.
func (p *parser) mirrored(n *node, x operand, i int, mode string, from, to int64) (operand, error) {
	l := x.dims()[i]
	if from < 0 || to < 0 {
		return x, p.refuse(n, "negative pads, mode=%s", mode)
	}
	if mode == "reflect" && max(from, to) >= l || mode == "wrap" && max(from, to) > l {
		return x, p.refuse(n, "more than there is, mode=%s", mode)
	}
	if err := p.charge(int(from + l + to)); err != nil {
		return x, err
	}
	var places []int
	for j := -from; j < l+to; j++ {
		at := min(max(j, 0), l-1)
		switch {
		case mode == "reflect" && j != at:
			at = 2*at - j
		case mode == "wrap":
			at = (j + l) % l
		}
		places = append(places, int(at))
	}
	return p.gathered(x, 1+i, places)
}
