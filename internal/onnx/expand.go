package onnx

import (
	"fmt"
	"slices"
)

// Expand of a value and of a constant.

// expand reads an Expand of a value along H, W or C. What it makes is never made: it can
// be read by arithmetic with a value of its shape alone, which broadcasts.
func (p *parser) expand(n *node) (operand, error) {
	x, err := p.operand(n, 0)
	if err != nil {
		return x, err
	}
	to, err := p.sizes(n, 1)
	if err != nil {
		return x, err
	}
	if x.constant != nil {
		return p.expandConstant(n, x.constant, to)
	}
	if x, err = p.variable(n, 0, 0); err != nil {
		return x, err
	}
	if len(to.dims) != 1 || len(to.v) != x.rank() {
		return x, p.refuse(n, "to another rank")
	}
	if b := to.v[0]; b.n != 1 && !p.isBatch(b) {
		return x, p.refuse(n, "across samples")
	}
	dims := x.dims()
	for i, d := range to.v[1:] {
		switch {
		case d.batch:
			return x, p.refuse(n, "across samples")
		case dims[i] == 1:
			dims[i] = d.n
		case d.n != 1 && d.n != dims[i]:
			return x, fmt.Errorf("%w: %d elements for %d", ErrInvalid, dims[i], d.n)
		}
	}
	if _, ok := extent(dims); !ok {
		return x, fmt.Errorf("%w: expanded to %d", ErrInvalid, dims)
	}
	if wide := shaped(x.axes, dims); wide != x.shape {
		x.wide = &wide
	}
	return x, nil
}

// widened returns x as what an Expand makes of it, made; others are left as they are.
func (p *parser) widened(x operand) (operand, error) {
	if x.wide == nil {
		return x, nil
	}
	to, from := shapedDims(*x.wide, x.axes), shapedDims(x.shape, x.axes)
	x.wide = nil
	for i, d := range to {
		if d == from[i] {
			continue
		}
		if err := p.charge(int(d)); err != nil {
			return x, err
		}
		y, err := p.gathered(x, 1+i, slices.Repeat([]int{0}, int(d)))
		if err != nil {
			return x, err
		}
		y.alike(x)
		x = y
	}
	return x, nil
}

// expandConstant reads an Expand of a constant to as many samples as there are, which are
// all the same.
func (p *parser) expandConstant(n *node, t *tensor, to *sizes) (operand, error) {
	if len(to.dims) != 1 || len(to.v) == 0 || len(to.v) < len(t.dims) {
		return operand{}, p.refuse(n, "of a constant")
	}
	c := *t
	c.dims = append(slices.Repeat([]int64{1}, len(to.v)-len(t.dims)), t.dims...)
	for i, d := range to.v {
		samples := i == 0 && p.isBatch(d)
		if d.batch && !samples || !samples && d.n != 1 && d.n != c.dims[i] || samples && c.dims[i] != 1 {
			return p.commonOf(n, t, to)
		}
	}
	return operand{constant: &c, shared: to.v[0].batch}, nil
}
