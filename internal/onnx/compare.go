package onnx

import (
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// Comparisons, and what And, Or and Not make of them.

// A truth is what a comparison gives: where a value is above 0, or, negated, where it is not. It
// becomes a value as something reads it.
type truth struct {
	negated bool
	never   bool // nowhere, whatever the value is
}

// compare reads Greater, Less and the same with OrEqual, of values and numbers.
func (p *parser) compare(n *node) (operand, error) {
	a, err := p.operand(n, 0)
	if err != nil {
		return a, err
	}
	b, err := p.operand(n, 1)
	if err != nil {
		return b, err
	}
	// a > b where a - b > 0, and a >= b where not b - a > 0.
	turned := n.op == "Less" || n.op == "GreaterOrEqual"
	var y operand
	switch {
	case a.known && b.known:
		if turned {
			a, b = b, a
		}
		y, err = p.ofTwo(n, a, b)
	case a.known:
		y, err = p.lessConstant(n, 0, turned)
	case b.known:
		y, err = p.lessConstant(n, 1, turned)
	default:
		return a, p.refuse(n, "constant input 0")
	}
	// A value less 0 is the value itself, whose elements may be anything.
	y.alike(operand{truth: &truth{negated: n.op == "LessOrEqual" || n.op == "GreaterOrEqual"}})
	return y, err
}

// lessConstant returns the difference of n's inputs, of which the one at is a value and the other
// constant; or, turned, the second less the first.
func (p *parser) lessConstant(n *node, at int, turned bool) (operand, error) {
	x, err := p.viewed(n, at)
	if err != nil {
		return x, err
	}
	v, single, err := p.number(n, 1-at, x.rank())
	switch {
	case err != nil:
		return x, err
	case single && v-v != 0:
		return x, p.refuse(n, "with what is not finite")
	case single && turned == (at == 1):
		return p.scaled(x, 1, -v)
	case single:
		return p.scaled(x, -1, v)
	}
	if x, err = p.affine(n, "Sub", at); err == nil && turned {
		x, err = p.scaled(x, -1, 0)
	}
	return x, err
}

// equal reads an Equal of values and numbers, or of sizes.
func (p *parser) equal(n *node) (operand, error) {
	a, err := p.any(n, 0)
	if err != nil {
		return a, err
	}
	b, err := p.any(n, 1)
	if err != nil || !a.known && !b.known {
		if err != nil {
			return b, err
		}
		return p.calculate(n)
	}
	y, err := p.compare(n)
	if err != nil {
		return y, err
	}
	// Where |a - b| is not above 0.
	y.truth = nil
	y, err = p.apply(graph.Abs{}, y.axes, y)
	y.truth = &truth{negated: true}
	return y, err
}

// isNaN reads an IsNaN of what a softmax gives, as torch guards rows of a mask that leave nothing:
// here they are 0.
func (p *parser) isNaN(n *node, x operand) (operand, error) {
	if !x.softened {
		return x, p.refuse(n, "of what is no softmax")
	}
	x.truth = &truth{never: true}
	return x, nil
}

// logic reads And, Or and Not of comparisons, and of constants.
func (p *parser) logic(n *node) (operand, error) {
	for i := range n.inputs {
		o, err := p.any(n, i)
		if err != nil {
			return o, err
		}
		if o.constant != nil {
			return p.withConstant(n, 1-i)
		}
	}
	a, of, err := p.truths(n, 0)
	if err != nil {
		return a, err
	}
	if n.op == "Not" {
		a.truth = &truth{negated: !of.negated}
		return a, nil
	}
	b, and, err := p.truths(n, 1)
	if err != nil {
		return b, err
	}
	// The larger of two is above 0 where one is, the smaller where both are.
	m := *n
	if of.negated && and.negated {
		m.op = map[string]string{"And": "Or", "Or": "And"}[n.op]
	} else if of.negated || and.negated {
		if a, err = p.widenedBits(a, of); err == nil {
			b, err = p.widenedBits(b, and)
		}
		if err != nil {
			return a, err
		}
	}
	y, err := p.ofTwo(&m, a, b)
	y.truth = &truth{negated: of.negated && and.negated}
	return y, err
}

// withConstant reads And and Or of n's input at, a comparison, and of the other, a constant.
func (p *parser) withConstant(n *node, at int) (operand, error) {
	if at < 0 || at >= len(n.inputs) {
		return operand{}, p.refuse(n, "of what is no comparison")
	}
	x, is, err := p.truths(n, at)
	if err != nil {
		return x, err
	}
	if x, err = p.widened(x); err != nil {
		return x, err
	}
	if _, err := p.constantFor(n, 1-at, x); err != nil {
		return x, err
	}
	c, err := p.array(n, 1-at)
	if err != nil {
		return x, err
	}
	if c == nil || c.kind != typeBool || c.len() == 0 || len(c.dims) > x.rank() {
		return x, p.refuse(n, "of a constant")
	}
	if x, err = p.expandedLike(n, x, c.dims); err != nil {
		return x, err
	}
	neutral := truthOf(n.op == "And") // what leaves a comparison as it is
	if !slices.Contains(c.ints, 1-neutral) {
		x.truth = &is
		return x, nil
	}
	if x, err = p.widenedBits(x, is); err != nil {
		return x, err
	}
	return p.decided(n, x, c, neutral)
}

// expandedLike returns x as an Expand to what it and a constant of the given dimensions broadcast to.
func (p *parser) expandedLike(n *node, x operand, dims []int64) (operand, error) {
	s := x.view()
	wide := x.shape
	for i, d := range dims {
		k := len(s.dims) - len(dims) + i
		switch of := s.size(k); {
		case d == 1 || of == size{n: d}:
		case of == size{n: 1} && x.split == nil && k > 0:
			*extentOf(&wide, x.axes[k-1]) = int(d)
		default:
			return x, p.refuse(n, "values of unlike shapes")
		}
	}
	if err := wide.Check(); err != nil {
		return x, invalid(err)
	}
	if wide != x.shape {
		x.wide = &wide
	}
	return x, nil
}

// decided returns x, of 0 and 1, where c is neutral for the And or Or n, and c elsewhere.
func (p *parser) decided(n *node, x operand, c *array, neutral int64) (operand, error) {
	if err := p.compute(2 * c.len()); err != nil {
		return x, err
	}
	scale := &tensor{kind: typeFloat, dims: c.dims, floats: make([]float32, c.len())}
	shift := &tensor{kind: typeFloat, dims: c.dims, floats: make([]float32, c.len())}
	for i, v := range c.ints {
		if v == neutral {
			scale.floats[i] = 1
		} else {
			shift.floats[i] = float32(v)
		}
	}
	x, a, extent, err := p.spread(n, scale, x)
	if err != nil {
		return x, err
	}
	op := &graph.Affine{Scale: a}
	if n.op == "Or" {
		if x, op.Shift, extent, err = p.spread(n, shift, x); err != nil {
			return x, err
		}
	}
	y, err := p.apply(elementAffine(extent, op, x), x.axes, x)
	y.truth = &truth{}
	return y, err
}

// truths returns input i of n, what a comparison gave.
func (p *parser) truths(n *node, i int) (operand, truth, error) {
	o, err := p.operand(n, i)
	if err != nil {
		return o, truth{}, err
	}
	if o.truth == nil {
		return o, truth{}, p.refuse(n, "of what is no comparison")
	}
	if o.truth.never {
		return o, truth{}, p.refuse(n, "of IsNaN")
	}
	is := *o.truth
	o.truth = nil
	return o, is, nil
}

// bits returns 1 where x is above 0, or, negated, where it is not, and 0 elsewhere.
func (p *parser) bits(x operand, is truth) (operand, error) {
	y, err := p.apply(graph.Step{}, x.axes, x)
	if err == nil && is.negated {
		y, err = p.scaled(y, -1, 1)
	}
	return y, err
}

// widenedBits is bits of what may be expanded.
func (p *parser) widenedBits(x operand, is truth) (operand, error) {
	x, err := p.widened(x)
	if err != nil {
		return x, err
	}
	return p.bits(x, is)
}
