package onnx

import (
	"github.com/securenets/securenets/internal/graph"
)

// A truth is what a comparison gives: where a value is above 0, or, negated, where it is not. It
// becomes a value as something reads it.
type truth struct{ negated bool }

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
	y.truth = &truth{n.op == "LessOrEqual" || n.op == "GreaterOrEqual"}
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

// truths returns input i of n, what a comparison gave.
func (p *parser) truths(n *node, i int) (operand, truth, error) {
	o, err := p.operand(n, i)
	if err != nil {
		return o, truth{}, err
	}
	if o.truth == nil {
		return o, truth{}, p.refuse(n, "of what is no comparison")
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

// logic reads And, Or and Not of comparisons.
func (p *parser) logic(n *node) (operand, error) {
	a, of, err := p.truths(n, 0)
	if err != nil {
		return a, err
	}
	if n.op == "Not" {
		a.truth = &truth{!of.negated}
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
		if a, err = p.bits(a, of); err == nil {
			b, err = p.bits(b, and)
		}
		if err != nil {
			return a, err
		}
	}
	y, err := p.ofTwo(&m, a, b)
	y.truth = &truth{of.negated && and.negated}
	return y, err
}

// sign reads 1 where x > 0 less 1 where x < 0.
func (p *parser) sign(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	y, err := p.apply(graph.Step{}, x.axes, x)
	if err == nil {
		x, err = p.scaled(x, -1, 0)
	}
	if err == nil {
		x, err = p.apply(graph.Step{}, x.axes, x)
	}
	if err != nil {
		return x, err
	}
	return p.apply(graph.Sub{}, x.axes, y, x)
}

// where reads a Where of a comparison, and of values or numbers; or one of sizes.
func (p *parser) where(n *node) (operand, error) {
	if x, err := p.operand(n, 0); err != nil || !x.known {
		if err != nil {
			return x, err
		}
		return p.whereSizes(n)
	}
	x, is, err := p.truths(n, 0)
	if err != nil {
		return x, err
	}
	if x, err = p.plain(n, x); err != nil {
		return x, err
	}
	three := []operand{x, {}, {}}
	for i := 1; i < 3; i++ {
		o, err := p.operand(n, i)
		if err != nil {
			return o, err
		}
		if o.known {
			if o, err = p.variable(n, i, 0); err != nil {
				return o, err
			}
			if o.rank() != x.rank() {
				return o, p.refuse(n, "values of unlike ranks")
			}
			o, err = p.reordered(o, x.axes)
		} else {
			v, single, wrong := p.number(n, i, x.rank())
			if wrong == nil && !single {
				wrong = p.refuse(n, "constant of more than one number")
			}
			if wrong != nil {
				return x, wrong
			}
			o, err = p.apply(graph.Clip{Min: v, Max: v}, x.axes, x)
		}
		if err != nil {
			return o, err
		}
		if is.negated {
			three[3-i] = o
		} else {
			three[i] = o
		}
	}
	if _, err := (graph.Select{}).OutShape(three[0].shape, three[1].shape, three[2].shape); err != nil {
		return x, p.refuse(n, "values of unlike shapes")
	}
	return p.apply(graph.Select{}, x.axes, three...)
}

// number returns input i of n, a constant, if that is a single number, of a rank that changes none of
// the given one.
func (p *parser) number(n *node, i, rank int) (float32, bool, error) {
	t, err := p.constant(n, i)
	if err != nil {
		return 0, false, err
	}
	if size, err := t.len(); err != nil || size != 1 || len(t.dims) > rank {
		return 0, false, nil
	}
	v, err := p.floats32(n, t)
	if err != nil {
		return 0, false, err
	}
	return v[0], true, nil
}
