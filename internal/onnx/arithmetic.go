package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// Arithmetic of two values, of a value and a constant, and of single numbers.

// arithmetic reads Add, Sub, Mul and Div of values, of constants a channel, and of sizes.
func (p *parser) arithmetic(n *node) (operand, error) {
	a, err := p.any(n, 0)
	if err != nil {
		return a, err
	}
	b, err := p.any(n, 1)
	if err != nil {
		return b, err
	}
	switch {
	case a.known && a.whole || b.known && b.whole:
		return p.ofIntegers(n, a, b)
	case a.known && b.known:
		return p.ofTwo(n, a, b)
	case a.known:
		return p.affine(n, n.op, 0)
	case b.known:
		return p.affine(n, n.op, 1)
	}
	if t := a.constant; t != nil && (t.kind == typeFloat || t.kind == typeDouble) {
		return p.calculateFloats(n)
	}
	return p.calculate(n)
}

// ofTwo reads an arithmetic operator of two values of the graph.
func (p *parser) ofTwo(n *node, a, b operand) (operand, error) {
	// What is expanded to the other's shape broadcasts as it is.
	masked := a.masked || b.masked
	if masked && n.op != "Add" {
		return a, p.refuse(n, "of infinities")
	}
	wide := []*graph.Shape{a.wide, b.wide}
	a.wide, b.wide = nil, nil
	for i, o := range []operand{a, b} {
		if o.whole && !exact[n.op] || wide[i] != nil && (wide[1-i] != nil || o.split != nil || []operand{a, b}[1-i].split != nil) {
			_, err := p.viewed(n, i)
			return a, err
		}
	}
	// ONNX aligns shapes at the right: with unlike ranks, channels with samples.
	if a.rank() != b.rank() {
		return a, p.refuse(n, "values of unlike ranks")
	}
	for i, o := range []operand{a, b} {
		if wide[i] == nil {
			continue
		}
		own, of := o.dims(), []operand{a, b}[1-i].dims()
		for k, d := range shapedDims(*wide[i], o.axes) {
			if d != own[k] && d != of[k] {
				return a, p.refuse(n, "of what is expanded")
			}
		}
	}
	var err error
	if a.split != nil || b.split != nil {
		a, b, err = p.together(n, a, b)
	} else {
		b, err = p.reordered(b, a.axes)
	}
	if err != nil {
		return a, err
	}
	if n.op == "Mul" && a.value == b.value {
		return p.apply(graph.Square{}, a.axes, a)
	}
	swapped := !b.shape.Suits(a.shape)
	if swapped {
		a, b = b, a
	}
	if !b.shape.Suits(a.shape) || swapped && n.op == "Div" {
		return a, p.refuse(n, "values of unlike shapes")
	}
	op := map[string]graph.Op{"Add": graph.Add{}, "Sub": graph.Sub{}, "Mul": graph.Mul{}, "Div": graph.Div{}, "Max": graph.Max{}, "Min": graph.Min{},
		"Equal": graph.Sub{}, "And": graph.Min{}, "Or": graph.Max{}, "Greater": graph.Sub{}, "Less": graph.Sub{}, "GreaterOrEqual": graph.Sub{}, "LessOrEqual": graph.Sub{}}[n.op]
	y, err := p.apply(op, a.axes, a, b)
	y.masked = masked
	if err != nil || !swapped || op != (graph.Sub{}) {
		return y, err
	}
	return p.scaled(y, -1, 0)
}

// ofIntegers reads Add, Sub and Mul of integers, of which one at least is a value: as of floats, of
// which none may become too large for that.
func (p *parser) ofIntegers(n *node, a, b operand) (operand, error) {
	x, err := p.boundsOf(n, 0)
	if err != nil {
		return a, err
	}
	y, err := p.boundsOf(n, 1)
	if err != nil {
		return a, err
	}
	if p.ofBytes(a) || p.ofBytes(b) { // which are modulo 256
		return a, p.refuse(n, "of bytes")
	}
	var of []int64
	for _, v := range x {
		for _, w := range y {
			if large(v) || large(w) {
				return a, p.refuse(n, "of integers of more than %d", graph.MaxInteger)
			}
			switch n.op {
			case "Add":
				of = append(of, v+w)
			case "Sub":
				of = append(of, v-w)
			case "Mul":
				of = append(of, v*w)
			default:
				return a, p.refuse(n, "of integers")
			}
		}
	}
	bounds := [2]int64{slices.Min(of), slices.Max(of)}
	if large(bounds[0]) || large(bounds[1]) {
		return a, p.refuse(n, "of integers of more than %d", graph.MaxInteger)
	}
	var z operand
	switch {
	case a.known && b.known:
		z, err = p.ofTwo(n, a, b)
	case a.known:
		z, err = p.affine(n, n.op, 0)
	default:
		z, err = p.affine(n, n.op, 1)
	}
	z.whole, z.bounds = true, bounds
	return z, err
}

// ofBytes reports whether x is of an input's bytes, as such: nothing else is of bytes.
func (p *parser) ofBytes(x operand) bool {
	return x.whole && x.part > 0 && p.graph.Parts[x.part-1].Type == "uint8"
}

// boundsOf returns the least and the largest of integers, values or constants.
func (p *parser) boundsOf(n *node, i int) ([2]int64, error) {
	if o := p.operands[n.inputs[i]]; o.known {
		if !o.whole {
			return o.bounds, p.refuse(n, "of integers and others")
		}
		return o.bounds, nil
	}
	a, err := p.array(n, i)
	if err == nil && (a == nil || a.float() || a.kind == typeBool || a.len() == 0 || a.steps != nil) {
		err = p.refuse(n, "of integers and others")
	}
	if err != nil {
		return [2]int64{}, err
	}
	return [2]int64{slices.Min(a.ints), slices.Max(a.ints)}, nil
}

// largest reads Max and Min of values and numbers.
func (p *parser) largest(n *node) (operand, error) {
	var x operand // of the values so far
	var numbers []float32
	for i := range n.inputs {
		y, err := p.operand(n, i)
		switch {
		case err != nil:
			return y, err
		case y.known && !x.known:
			x, err = p.variable(n, i, 0)
		case y.known:
			x, err = p.ofTwo(n, x, y)
		default:
			v, single, wrong := p.number(n, i, math.MaxInt)
			if wrong == nil && !single {
				wrong = p.refuse(n, "constant of more than one number")
			}
			numbers, err = append(numbers, v), wrong
		}
		if err != nil {
			return x, err
		}
	}
	if !x.known {
		return x, p.refuse(n, "constant input 0")
	}
	for _, v := range numbers {
		clip := graph.Clip{Min: v, Max: math.MaxFloat32}
		if n.op == "Min" {
			clip = graph.Clip{Min: -math.MaxFloat32, Max: v}
		}
		var err error
		if x, err = p.apply(clip, x.axes, x); err != nil {
			return x, err
		}
	}
	return x, nil
}

// affine returns what an arithmetic operator makes of n's input at, a value x, and of the other, a constant.
func (p *parser) affine(n *node, op string, at int) (operand, error) {
	x, err := p.viewed(n, at)
	if err != nil {
		return x, err
	}
	i := 1 - at
	t, err := p.constantFor(n, i, x)
	if err != nil {
		return x, err
	}
	if op == "Div" && i == 0 {
		if x, err = p.apply(graph.Reciprocal{}, x.axes, x); err != nil {
			return x, err
		}
	}
	x, v, extent, err := p.spread(n, t, x)
	if err != nil {
		return x, err
	}
	a := new(graph.Affine)
	switch op {
	case "Add":
		a.Shift = v
	case "Sub":
		a.Shift = v
		if i == 0 {
			if a.Scale, err = p.repeated(-1, len(v)); err != nil {
				return x, err
			}
		} else {
			for j := range v {
				v[j] = -v[j]
			}
		}
	case "Mul":
		a.Scale = v
	case "Div":
		a.Scale = v
		for j := range v {
			if i == 1 {
				v[j] = 1 / v[j]
			}
		}
	}
	y, err := p.apply(elementAffine(extent, a, x), x.axes, x)
	y.masked = x.masked || slices.ContainsFunc(a.Shift, negativeInfinity)
	return y, err
}

// scaled returns scale x + shift. A scale of 1 and a shift of 0 are left out.
func (p *parser) scaled(x operand, scale, shift float32) (operand, error) {
	a := new(graph.Affine)
	var err error
	if scale != 1 {
		a.Scale, err = p.repeated(scale, x.shape.C)
	}
	if shift != 0 && err == nil {
		a.Shift, err = p.repeated(shift, x.shape.C)
	}
	if err != nil || a.Scale == nil && a.Shift == nil {
		return x, err
	}
	return p.apply(a, x.axes, x)
}

// elementAffine returns a, of scales and shifts of the given extent, as an operator of x.
func elementAffine(extent graph.Shape, a *graph.Affine, x operand) graph.Op {
	infinite := slices.ContainsFunc(a.Shift, negativeInfinity) // as masks have it
	if extent == graph.Vector(x.shape.C) && !infinite {
		return a
	}
	return &graph.ElementAffine{Extent: extent, Scale: a.Scale, Shift: a.Shift}
}

// spread returns t as scales or shifts of x, which is returned with its dimensions in
// another order if that helps: of as many elements as the extent says, which repeat.
func (p *parser) spread(n *node, t *tensor, x operand) (operand, []float32, graph.Shape, error) {
	many := 0
	for _, d := range t.dims {
		if d != 1 {
			many++
		}
	}
	if x.split == nil && many < 2 || many == 0 && len(t.dims) <= x.rank() {
		if x.split != nil {
			v, err := p.floats32(n, t)
			if err == nil {
				v, err = p.repeated(v[0], x.shape.C)
			}
			return x, v, graph.Vector(x.shape.C), err
		}
		x, v, err := p.perChannel(n, t, x)
		return x, v, graph.Vector(x.shape.C), err
	}
	s := x.view()
	strides, err := p.stridesIn(n, t, s)
	if err != nil {
		return x, nil, graph.Shape{}, err
	}
	var places [3][]int // along each axis, of t's elements
	for a, parts := range s.axesOf(x.shape) {
		if places[a], err = p.placesAlong(s, parts, strides); err != nil {
			return x, nil, graph.Shape{}, err
		}
	}
	extent := graph.Shape{C: len(places[axisC]), H: len(places[axisH]), W: len(places[axisW])}
	from, err := p.floats32(n, t)
	if err == nil {
		err = p.charge(extent.Len()) // which is no more than x has
	}
	if err != nil {
		return x, nil, extent, err
	}
	v := make([]float32, 0, extent.Len())
	for _, h := range places[axisH] {
		for _, w := range places[axisW] {
			for _, c := range places[axisC] {
				v = append(v, from[h+w+c])
			}
		}
	}
	return x, v, extent, nil
}

// stridesIn returns how far apart t's elements are along each part of s, to which it broadcasts: 0
// where they are the same.
func (p *parser) stridesIn(n *node, t *tensor, s *split) ([]int, error) {
	before := len(s.dims) - len(t.dims)
	if before < 0 {
		return nil, p.refuse(n, "constant of more dimensions")
	}
	strides, stride := make([]int, len(s.parts)), 1
	for i, d := range slices.Backward(t.dims) {
		if d == 1 {
			continue
		}
		switch of := s.size(before + i); {
		case of.batch:
			return nil, p.refuse(n, "constant for each sample")
		case of.n != d:
			return nil, p.refuse(n, "constant of another shape")
		}
		for _, k := range slices.Backward(s.dims[before+i]) {
			strides[k] = stride
			stride *= int(s.parts[k])
		}
	}
	return strides, nil
}

// placesAlong returns where a constant's elements are along an axis of the given parts, from the first
// part on along which they differ.
func (p *parser) placesAlong(s *split, parts, strides []int) ([]int, error) {
	for len(parts) > 0 && strides[parts[0]] == 0 {
		parts = parts[1:]
	}
	places := []int{0}
	for _, k := range parts {
		l := int(s.parts[k])
		if len(places) > plan.MaxExtent/l {
			return nil, fmt.Errorf("%w: a constant of too many elements", ErrInvalid)
		}
		if err := p.charge(len(places) * l); err != nil {
			return nil, err
		}
		next := make([]int, 0, len(places)*l)
		for _, at := range places {
			for i := range l {
				next = append(next, at+i*strides[k])
			}
		}
		places = next
	}
	return places, nil
}

// perChannel returns x, its dimensions in another order if that helps, and t as channels does.
func (p *parser) perChannel(n *node, t *tensor, x operand) (operand, []float32, error) {
	if !alongChannels(t, x.shape, x.axes) {
		// Its one dimension that is not 1, if there is one alone, is to be the channels'.
		for i, d := range t.dims {
			if at := 1 + len(x.axes) - len(t.dims) + i; d != 1 && at > 0 {
				y, err := p.channelsAt(x, at-1)
				if err != nil {
					return x, nil, err
				}
				x = y
				break
			}
		}
	}
	v, err := p.channels(n, t, x.shape, x.axes)
	return x, v, err
}

// channels returns a constant as one value a channel, if it broadcasts over
// everything else of a tensor of the given shape along the given axes.
func (p *parser) channels(n *node, t *tensor, s graph.Shape, axes []axis) ([]float32, error) {
	if !alongChannels(t, s, axes) {
		return nil, p.refuse(n, "constant not of one value a channel")
	}
	v, err := p.floats32(n, t)
	if err != nil || len(v) == s.C {
		return v, err
	}
	return p.repeated(v[0], s.C)
}

// alongChannels reports whether t has one value, or one a channel, of a tensor of the
// given shape along the given axes, which it broadcasts to.
func alongChannels(t *tensor, s graph.Shape, axes []axis) bool {
	before := 1 + len(axes) - len(t.dims) // the first dimension's number, aligned at the right
	for i, d := range t.dims {
		if d != 1 && (before+i < 1 || axes[before+i-1] != axisC || d != int64(s.C)) {
			return false
		}
	}
	return before >= 0
}

// calculateFloats reads an operator of single numbers that constants are not computed with, as are
// doubles that no float32 is.
func (p *parser) calculateFloats(n *node) (operand, error) {
	op, inputs := pairwise[n.op], 2
	if one, ok := single[n.op]; ok {
		op, inputs = one, 1
	}
	var v [2]float64
	t := &tensor{kind: typeFloat}
	for i := range inputs {
		c, err := p.constant(n, i)
		if err != nil {
			return operand{}, err
		}
		f, err := p.floats32(n, c)
		if err != nil {
			return operand{}, err
		}
		if len(f) != 1 || len(c.dims) > maxRank {
			return operand{}, p.refuse(n, "of constants of %d elements", len(f))
		}
		v[i] = float64(f[0])
		if len(c.dims) > len(t.dims) {
			t.dims = c.dims
		}
	}
	x := op.floats(v[0], v[1])
	t.floats = []float32{float32(x)}
	return operand{constant: t}, nil
}
