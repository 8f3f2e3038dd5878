package onnx

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// Constant, ConstantOfShape, Cast, and what changes nothing.

// value reads a Constant.
func (p *parser) value(n *node) (operand, error) {
	if len(n.attributes) != 1 {
		return operand{}, fmt.Errorf("%w: want one attribute", ErrInvalid)
	}
	a := n.attributes[0]
	t := &tensor{name: n.outputs[0]}
	switch a.name {
	case "value":
		if a.t == nil {
			return operand{}, fmt.Errorf("%w: no value", ErrInvalid)
		}
		t = a.t
	case "value_float":
		t.kind, t.floats = typeFloat, []float32{a.f}
	case "value_floats":
		t.kind, t.floats, t.dims = typeFloat, a.floats, []int64{int64(len(a.floats))}
	case "value_int":
		t.kind, t.int64s = typeInt64, []int64{a.i}
	case "value_ints":
		t.kind, t.int64s, t.dims = typeInt64, a.ints, []int64{int64(len(a.ints))}
	}
	return operand{constant: t}, nil
}

// constantOfShape reads a ConstantOfShape of floats, or of no integers: others are folded.
func (p *parser) constantOfShape(n *node) (operand, error) {
	value := float32(0)
	if a, given := n.attribute("value"); given {
		if a.t == nil || a.t.kind != typeFloat {
			dims, err := p.list(n, "", 0)
			if err == nil && (a.t == nil || a.t.kind != typeInt32 && a.t.kind != typeInt64) {
				err = p.refuse(n, "not of integers")
			} else if err == nil && !slices.Equal(dims, []int64{0}) {
				err = p.refuse(n, "of shape %d", dims)
			}
			return operand{sizes: row(nil)}, err
		}
		v, err := p.floats32(n, a.t)
		if err != nil {
			return operand{}, err
		}
		if len(v) != 1 {
			return operand{}, fmt.Errorf("%w: %d values", ErrInvalid, len(v))
		}
		value = v[0]
	}
	to, err := p.sizes(n, 0)
	if err != nil {
		return operand{}, err
	}
	if len(to.dims) != 1 || len(to.v) == 0 {
		return operand{}, p.refuse(n, "of sizes of rank %d", len(to.dims))
	}
	return p.commonOf(n, &tensor{kind: typeFloat, floats: []float32{value}}, to)
}

// identity reads an Identity, of whatever it is.
func (p *parser) identity(n *node) (operand, error) { return p.any(n, 0) }

// dropout reads a Dropout that drops nothing, as in inference.
func (p *parser) dropout(n *node) (operand, error) {
	if n.has(2) {
		t, err := p.constant(n, 2)
		if err != nil {
			return operand{}, err
		}
		training, err := p.ints(n, t)
		if err != nil {
			return operand{}, err
		}
		if slices.Max(training) != 0 {
			return operand{}, p.refuse(n, "training_mode=1")
		}
	}
	return p.operand(n, 0)
}

// cast reads a Cast of a value, of sizes, or of a constant of floats that stays what it is.
func (p *parser) cast(n *node) (operand, error) {
	x, err := p.operand(n, 0)
	if err != nil {
		return x, err
	}
	to := n.int("to", 0)
	switch {
	case x.known && x.truth != nil:
		return p.castTruth(n, x, to)
	case x.known:
		return p.castValue(n, x, to)
	}
	if t := x.constant; t != nil && t.kind == typeFloat && to == typeFloat {
		return x, nil
	}
	if to != typeFloat && to != typeInt32 && to != typeInt64 {
		return x, p.refuse(n, "to=%d", to)
	}
	s, err := p.sizes(n, 0)
	if err != nil || to != typeFloat {
		return operand{sizes: s}, err
	}
	if len(s.v) > 0 { // numbers alone are folded
		return x, p.refuse(n, "of the batch's size")
	}
	return operand{constant: &tensor{kind: typeFloat, dims: s.dims}}, nil
}

// castTruth reads a Cast of a comparison: to numbers, 1 where it holds and 0 elsewhere.
func (p *parser) castTruth(n *node, x operand, to int64) (operand, error) {
	is, integer := *x.truth, to == typeInt32 || to == typeInt64
	number := integer || to == typeFloat || to == typeDouble
	switch {
	case to == typeBool:
		return x, nil
	case number && is == (truth{}) && x.part > 0 && p.graph.Parts[x.part-1].Type == "bool": // of 0 and 1
		x.truth, x.whole, x.bounds = nil, integer, [2]int64{0, 1}
		return x, nil
	case number && !is.never:
		x, err := p.widened(x)
		if err != nil {
			return x, err
		}
		x.truth = nil
		y, err := p.bits(x, is)
		y.whole, y.bounds = integer, [2]int64{0, 1}
		return y, err
	}
	return x, p.refuse(n, "to=%d", to)
}

// castValue reads a Cast of floats or integers.
func (p *parser) castValue(n *node, x operand, to int64) (operand, error) {
	switch {
	case to == typeBool: // what is not 0
		x, err := p.widened(x)
		if err != nil {
			return x, err
		}
		y, err := p.apply(graph.Abs{}, x.axes, x)
		y.truth = &truth{}
		return y, err
	case to == typeFloat || to == typeDouble:
		x.whole = false
		return x, nil
	case (to == typeInt32 || to == typeInt64) && (x.whole || x.part > 0): // of as many bits as its elements have
		x.whole = true
		if p.ofBytes(x) {
			x.part = 0 // its sums are no bytes
		}
		return x, nil
	}
	return x, p.refuse(n, "to=%d", to)
}
