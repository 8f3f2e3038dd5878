package onnx

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// Concat.

// concat reads a Concat of values, of one value and constants, or of sizes.
func (p *parser) concat(n *node) (operand, error) {
	a, ok := n.attribute("axis")
	if !ok {
		return operand{}, fmt.Errorf("%w: no axis", ErrInvalid)
	}
	x, err := p.any(n, 0)
	if err != nil {
		return x, err
	}
	float := func(x operand) bool { return x.constant != nil && x.constant.kind == typeFloat }
	if float(x) || x.known && slices.ContainsFunc(n.inputs, func(name string) bool { return float(p.operands[name]) }) {
		return p.concatConstants(n, a.i)
	}
	if !x.known {
		if slices.ContainsFunc(n.inputs, func(name string) bool { return p.operands[name].known }) {
			return x, p.refuse(n, "of constants other than floats and values")
		}
		return p.concatSizes(n, a.i)
	}
	values := make([]operand, len(n.inputs))
	for i := range values {
		if values[i], err = p.viewed(n, i); err != nil {
			return x, err
		}
		if values[i].rank() != values[0].rank() {
			return x, fmt.Errorf("%w: inputs of ranks %d and %d", ErrInvalid, values[0].rank(), values[i].rank())
		}
	}
	for i, v := range values {
		values[i] = p.aside(v, a.i)
	}
	if slices.ContainsFunc(values, func(v operand) bool { return v.split != nil }) {
		return p.concatViews(n, a.i, values)
	}
	at, err := p.dimension(n, values[0], a.i)
	if err != nil {
		return x, err
	}
	// Along the axes of the first, if those have channels there, or else of the others' order.
	for i := range values {
		if i == 0 || !slices.Equal(values[i].axes, values[0].axes) {
			if values[i], err = p.channelsAt(values[i], at); err != nil {
				return x, err
			}
		}
		if i > 0 {
			if values[i], err = p.reordered(values[i], values[0].axes); err != nil {
				return x, err
			}
		}
	}
	return p.apply(graph.Concat{}, values[0].axes, values...)
}

// concatSizes reads a Concat of sizes of rank 1.
func (p *parser) concatSizes(n *node, axis int64) (operand, error) {
	all := row(nil)
	for i := range n.inputs {
		s, err := p.sizes(n, i)
		if err != nil {
			return operand{}, err
		}
		if all = row(append(all.v, s.v...)); len(s.dims) != 1 || len(all.v) > maxRank || axis != 0 && axis != -1 {
			return operand{}, fmt.Errorf("%w: sizes that are no shape", ErrInvalid)
		}
	}
	return operand{sizes: all}, nil
}

// concatViews reads a Concat of values of one rank, some of them splits.
func (p *parser) concatViews(n *node, axis int64, values []operand) (operand, error) {
	first := values[0].view()
	i, err := p.index(n, first, axis)
	if err != nil {
		return values[0], err
	}
	for k, x := range values {
		s := x.view()
		for j := range s.dims {
			if j != i && !p.same(s.size(j), first.size(j)) {
				return x, p.refuse(n, "values of unlike shapes")
			}
		}
		if s.size(i).batch && p.batch != 1 || !p.sameSamples(s, first) {
			return x, p.refuse(n, "across samples")
		}
		if values[k], err = p.placed(x, []int{i}, nil, first.others(i)); err != nil {
			return x, err
		}
	}
	plain := make([]operand, len(values))
	for k, x := range values {
		plain[k] = x.bare()
	}
	y, err := p.apply(graph.Concat{}, nil, plain...)
	if err != nil {
		return y, err
	}
	return p.resized(y, values[0], i, axisC), nil
}

// concatConstants reads a Concat of one value and constants, which are the same for all
// samples, such as class tokens: of the value padded with zeros, to which they are added.
func (p *parser) concatConstants(n *node, axis int64) (operand, error) {
	at := slices.IndexFunc(n.inputs, func(name string) bool { return p.operands[name].known })
	if at < 0 {
		return operand{}, p.refuse(n, "constant input 0")
	}
	x, err := p.viewed(n, at)
	if err != nil {
		return x, err
	}
	s := x.view()
	i, err := p.index(n, s, axis)
	if err != nil {
		return x, err
	}
	if dim, _ := s.samples(); dim != 0 || len(s.dims[0]) != 1 {
		return x, p.refuse(n, "of constants, across samples")
	}
	dims := []int64{1} // of the value
	for j := 1; j < len(s.dims); j++ {
		dims = append(dims, s.size(j).n)
	}
	added, before, after, err := p.besideValue(n, at, i, dims)
	if err != nil {
		return x, err
	}
	x, along, err := p.alone(x, i)
	if err != nil {
		return x, err
	}
	op := graph.Pad{}
	*extentOf(&op.Before, along) = int(before)
	*extentOf(&op.After, along) = int(after)
	y, err := p.along(op, x, i, along)
	if err != nil {
		return x, err
	}
	y, v, extent, err := p.spread(n, added, y)
	if err != nil {
		return x, err
	}
	return p.apply(elementAffine(extent, &graph.Affine{Shift: v}, y), y.axes, y)
}

// besideValue returns the constants that n concatenates along dimension i to its input at, a value of
// the given dimensions: as one tensor that has zeros for the value's elements, and how many elements
// along i lie before and after those.
func (p *parser) besideValue(n *node, at, i int, dims []int64) (t *tensor, before, after int64, err error) {
	parts := make([][]float32, len(n.inputs))
	for k := range n.inputs {
		if k == at {
			continue
		}
		c, err := p.constantBeside(n, k, i, dims)
		if err != nil {
			return nil, 0, 0, err
		}
		if parts[k], err = p.floats32(n, c); err != nil {
			return nil, 0, 0, err
		}
		if k < at {
			before += c.dims[i]
		} else {
			after += c.dims[i]
		}
	}
	outer, _ := extent(dims[:i])
	rest, _ := extent(dims[i:]) // elements of the value that lie side by side
	dims = slices.Clone(dims)
	dims[i] += before + after
	all, ok := extent(dims)
	if before+after > plan.MaxExtent || !ok {
		return nil, 0, 0, fmt.Errorf("%w: too many constants", ErrInvalid)
	}
	if err := p.charge(all); err != nil {
		return nil, 0, 0, err
	}
	t = &tensor{kind: typeFloat, dims: dims}
	for o := range outer {
		for k, v := range parts {
			if k == at {
				t.floats = append(t.floats, make([]float32, rest)...)
				continue
			}
			l := len(v) / outer
			t.floats = append(t.floats, v[o*l:][:l]...)
		}
	}
	return t, before, after, nil
}

// constantBeside returns input k of n, a constant of floats that is the same for all samples, and has
// the given dimensions but for dimension i.
func (p *parser) constantBeside(n *node, k, i int, dims []int64) (*tensor, error) {
	o, err := p.any(n, k)
	if err != nil {
		return nil, err
	}
	t := o.constant
	if t == nil || !o.shared && p.batch != 1 {
		return nil, p.refuse(n, "constant input %d", k)
	}
	if len(t.dims) != len(dims) {
		return nil, fmt.Errorf("%w: inputs of ranks %d and %d", ErrInvalid, len(dims), len(t.dims))
	}
	for j, d := range t.dims {
		if j == 0 && d != 1 {
			return nil, p.refuse(n, "constant for each sample")
		}
		if j != i && d != dims[j] {
			return nil, fmt.Errorf("%w: constant of another shape", ErrInvalid)
		}
	}
	return t, nil
}
