package onnx

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/plan"
)

// The states that recurrent layers begin with: constants that are the same for all samples.

// common is a tensor of constants that has, along one dimension, the same for all samples, as
// first states have. That dimension is -1, or less by as many as stand for each sample, and v
// has one element along it.
type common struct {
	dims []int64
	v    []float32
}

// readsCommon are the operators that take it.
var readsCommon = []string{"Identity", "Slice", "Squeeze", "Unsqueeze", "LSTM", "GRU", "RNN"}

// len returns how many elements of v there are along dimension i.
func (c *common) len(i int) int { return int(max(c.dims[i], 1)) }

// operand returns c, which is a constant where it has no samples.
func (c *common) operand() operand {
	if slices.Min(c.dims) > 0 {
		return operand{constant: &tensor{kind: typeFloat, dims: c.dims, floats: c.v}}
	}
	return operand{common: c}
}

// asCommon returns the floats that o has, or nil where those are none, or no constants.
func (p *parser) asCommon(n *node, o operand) (*common, error) {
	t := o.constant
	if o.common != nil || t == nil || t.kind != typeFloat && t.kind != typeDouble || len(t.dims) == 0 {
		return o.common, nil
	}
	v, err := p.floats32(n, t)
	c := &common{slices.Clone(t.dims), v}
	if o.shared && p.batch != 1 {
		c.dims[0] = -1
	}
	return c, err
}

// commonOf returns a constant expanded to the given sizes, of which one may be the batch's.
func (p *parser) commonOf(n *node, t *tensor, to *sizes) (operand, error) {
	if t.kind != typeFloat && t.kind != typeDouble {
		return operand{}, p.refuse(n, "of a constant")
	}
	v, err := p.floats32(n, t)
	if err != nil {
		return operand{}, err
	}
	before := len(to.v) - len(t.dims) // which is 0 or more
	c, batches := new(common), 0
	strides, stride := make([]int, len(to.v)), 1 // in v
	all := int64(1)
	for i := len(to.v) - 1; i >= 0; i-- {
		own, d := int64(1), to.v[i]
		if i >= before {
			own = t.dims[i-before]
		}
		if d.batch && own != 1 && p.batch > 0 && d.n <= plan.MaxExtent && p.batch <= plan.MaxExtent {
			d = size{n: d.n * p.batch} // the number that it is
		}
		switch {
		case d.n <= 0 || d.n > plan.MaxExtent || own != 1 && d.n != 1 && d.n != own:
			return operand{}, fmt.Errorf("%w: %d elements for %d", ErrInvalid, own, d.n)
		case d.batch && p.batch != 1:
			if batches++; own != 1 || batches > 1 {
				return operand{}, p.refuse(n, "of a constant")
			}
			c.dims = append(c.dims, -d.n)
			continue
		case own != 1:
			strides[i], d.n = stride, own
			stride *= int(own)
		}
		if all > plan.MaxExtent/d.n {
			return operand{}, fmt.Errorf("%w: a constant of too many elements", ErrInvalid)
		}
		all *= d.n
		c.dims = append(c.dims, d.n)
	}
	slices.Reverse(c.dims)
	if err := p.charge(int(all)); err != nil {
		return operand{}, err
	}
	lens := make([]int64, len(c.dims))
	for i := range lens {
		lens[i] = int64(c.len(i))
	}
	for _, index := range indices(lens) {
		c.v = append(c.v, v[offset(index, strides)])
	}
	return c.operand(), nil
}

// sliceCommon reads a Slice of c, forwards and without steps.
func (p *parser) sliceCommon(n *node, c *common, lists cutLists) (operand, error) {
	cuts, err := p.cuts(n, lists, len(c.dims))
	if err != nil {
		return operand{}, err
	}
	seen := map[int]bool{}
	for _, of := range cuts {
		if seen[of.axis] {
			return operand{}, fmt.Errorf("%w: axis %d twice", ErrInvalid, of.axis)
		}
		seen[of.axis] = true
		l := c.dims[of.axis]
		switch {
		case of.step != 1:
			return operand{}, p.refuse(n, "step %d", of.step)
		case l < 0 && of.all():
			continue
		case l < 0:
			return operand{}, p.refuse(n, "across samples")
		}
		if err := p.charge(len(c.v)); err != nil { // which what is made has too, but for a part
			return operand{}, err
		}
		from, to := of.within(l)
		if from >= to {
			return operand{}, fmt.Errorf("%w: an empty Slice", ErrInvalid)
		}
		inner := 1
		for i := of.axis + 1; i < len(c.dims); i++ {
			inner *= c.len(i)
		}
		less := &common{dims: slices.Clone(c.dims)}
		less.dims[of.axis] = to - from
		for block := range slices.Chunk(c.v, int(l)*inner) {
			less.v = append(less.v, block[int(from)*inner:int(to)*inner]...)
		}
		c = less
	}
	return c.operand(), nil
}

// squeezeCommon reads a Squeeze or an Unsqueeze of it.
func (p *parser) squeezeCommon(n *node, x operand) (operand, error) {
	c, err := p.asCommon(n, x)
	if err != nil {
		return x, err
	}
	if c == nil {
		return x, p.refuse(n, "of what is expanded")
	}
	dims, err := p.squeezedConstant(n, c.dims)
	if err != nil {
		return x, err
	}
	return (&common{dims, c.v}).operand(), nil
}
