package onnx

import (
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// Where, by a comparison or by a constant.

// where reads a Where of a comparison, and of values or numbers; by a constant; or one of sizes.
func (p *parser) where(n *node) (operand, error) {
	for i := range 3 {
		if _, err := p.any(n, i); err != nil {
			return operand{}, err
		}
	}
	x := p.operands[n.inputs[0]]
	if !x.known {
		if x.constant != nil && (p.operands[n.inputs[1]].known || p.operands[n.inputs[2]].known) {
			return p.chosen(n)
		}
		return p.whereSizes(n)
	}
	if x.truth != nil && x.truth.never {
		return p.whereNever(n, x)
	}
	x, is, err := p.truths(n, 0)
	if err != nil {
		return x, err
	}
	wide := x.wide
	x.wide = nil
	if x, err = p.plain(n, x); err != nil {
		return x, err
	}
	if wide != nil && (p.operands[n.inputs[1]].known || p.operands[n.inputs[2]].known) {
		x.wide, wide = wide, nil
		if x, err = p.widened(x); err != nil {
			return x, err
		}
	}
	three, masked := []operand{x, {}, {}}, false
	for i := 1; i < 3; i++ {
		o, err := p.choice(n, i, x)
		if err != nil {
			return o, err
		}
		masked = masked || o.masked
		if is.negated {
			three[3-i] = o
		} else {
			three[i] = o
		}
	}
	if _, err := (graph.Select{}).OutShape(three[0].shape, three[1].shape, three[2].shape); err != nil {
		return x, p.refuse(n, "values of unlike shapes")
	}
	y, err := p.apply(graph.Select{}, x.axes, three...)
	y.wide, y.masked = wide, masked
	if a, b := three[1], three[2]; a.whole && b.whole {
		y.whole, y.bounds = true, [2]int64{min(a.bounds[0], b.bounds[0]), max(a.bounds[1], b.bounds[1])}
	}
	return y, err
}

// whereNever reads a Where by x, which is nowhere true: its third input, to which the others
// broadcast.
func (p *parser) whereNever(n *node, x operand) (operand, error) {
	y, err := p.viewed(n, 2)
	if err != nil {
		return y, err
	}
	_, single, err := p.number(n, 1, y.rank())
	if err != nil {
		return y, err
	}
	if !single || !p.fitsValue(x, y) {
		return y, p.refuse(n, "by IsNaN")
	}
	return y, nil
}

// choice returns input i of the Where n, a value or a number, along the axes of the condition x. A
// number becomes a value of x's shape.
func (p *parser) choice(n *node, i int, x operand) (operand, error) {
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
		y, err := p.reordered(o, x.axes)
		y.masked = o.masked
		return y, err
	}
	v, single, err := p.number(n, i, x.rank())
	if err != nil {
		return x, err
	}
	if !single {
		return x, p.refuse(n, "constant of more than one number")
	}
	if !negativeInfinity(v) {
		y, err := p.apply(graph.Clip{Min: v, Max: v}, x.axes, x)
		if kind := o.constant.kind; kind == typeInt32 || kind == typeInt64 {
			y.whole, y.bounds = true, [2]int64{int64(v), int64(v)}
		}
		return y, err
	}
	shift, err := p.repeated(v, x.shape.C)
	if err != nil {
		return x, err
	}
	y, err := p.apply(&graph.ElementAffine{Extent: graph.Vector(x.shape.C), Shift: shift}, x.axes, x)
	y.masked = true
	return y, err
}

// chosen reads a Where by a constant, of which at least one choice is a value.
func (p *parser) chosen(n *node) (operand, error) {
	at := 1
	if !p.operands[n.inputs[1]].known {
		at = 2
	}
	x, err := p.viewed(n, at)
	if err != nil {
		return x, err
	}
	is, err := p.condition(n, x)
	if err != nil {
		return x, err
	}
	taken := int64(2 - at) // what the condition is where x is taken
	everywhere := !slices.Contains(is.ints, 1-taken)
	if p.operands[n.inputs[3-at]].known {
		y, err := p.viewed(n, 3-at)
		if err != nil {
			return x, err
		}
		if !p.fitsValue(y, x) || !everywhere {
			return x, p.refuse(n, "by a constant, of two values")
		}
		return x, nil
	}
	other, err := p.alternative(n, 3-at, x)
	if err != nil || everywhere {
		return x, err
	}
	return p.replaced(n, x, is, taken, other)
}

// condition returns the condition of the Where n, a constant that broadcasts to x.
func (p *parser) condition(n *node, x operand) (*array, error) {
	t, err := p.constantFor(n, 0, x)
	if err != nil {
		return nil, err
	}
	is, err := p.array(n, 0)
	switch {
	case err != nil:
		return nil, err
	case is == nil || is.kind != typeBool || is.len() == 0:
		return nil, p.refuse(n, "by a constant of element type %d", t.kind)
	case !p.fits(is, x):
		return nil, p.refuse(n, "values of unlike shapes")
	}
	return is, nil
}

// alternative returns input i of the Where n, a constant of floats that broadcasts to the other
// choice, x.
func (p *parser) alternative(n *node, i int, x operand) (*array, error) {
	if _, err := p.constantFor(n, i, x); err != nil {
		return nil, err
	}
	v, err := p.array(n, i)
	switch {
	case err != nil:
		return nil, err
	case v == nil || !v.float() || v.len() == 0 || v.steps != nil:
		return nil, p.refuse(n, "by a constant")
	case !p.fits(v, x):
		return nil, p.refuse(n, "values of unlike shapes")
	}
	return v, nil
}

// replaced returns x where the condition is as taken says, and elsewhere the elements of other:
// a x + b, with a and b for each element.
func (p *parser) replaced(n *node, x operand, is *array, taken int64, other *array) (operand, error) {
	a, b, err := p.blend(is, taken, other)
	if err != nil {
		return x, err
	}
	x, shift, extent, err := p.spread(n, b, x)
	if err != nil {
		return x, err
	}
	op := &graph.Affine{Shift: shift}
	masked := x.masked || slices.ContainsFunc(shift, negativeInfinity)
	if scaled := slices.Contains(a.floats, 0); scaled && x.masked {
		return x, p.refuse(n, "of infinities")
	} else if scaled {
		y, scale, along, err := p.spread(n, a, x)
		if err != nil {
			return x, err
		}
		if along != extent || y.value != x.value { // what is alike everywhere in one is not in the other
			return x, p.refuse(n, "by a constant")
		}
		op.Scale = scale
	}
	y, err := p.apply(elementAffine(extent, op, x), x.axes, x)
	y.masked = masked
	return y, err
}

// blend returns scales and shifts that leave a value where a condition is as taken says: 1 and 0.
// Elsewhere they are 0 and the other's element, or 1 and minus infinity.
func (p *parser) blend(is *array, taken int64, other *array) (scales, shifts *tensor, err error) {
	is.shared, other.shared = false, false
	dims, _, _ := p.broadcast(is, other)
	if is, err = p.spreadTo(is, dims); err != nil {
		return nil, nil, err
	}
	if other, err = p.spreadTo(other, dims); err != nil {
		return nil, nil, err
	}
	if err := p.compute(2 * is.len()); err != nil {
		return nil, nil, err
	}
	scales = &tensor{kind: typeFloat, dims: dims, floats: slices.Repeat([]float32{1}, is.len())}
	shifts = &tensor{kind: typeFloat, dims: dims, floats: make([]float32, is.len())}
	for i, v := range is.ints {
		if v == taken {
			continue
		}
		if shifts.floats[i] = other.floats[i]; !negativeInfinity(other.floats[i]) {
			scales.floats[i] = 0
		}
	}
	return scales, shifts, nil
}

// constantFor returns input i of n, a constant, as one for each sample of x, which may be shared by
// all of them. It has no more dimensions than x.
func (p *parser) constantFor(n *node, i int, x operand) (*tensor, error) {
	o, err := p.any(n, i)
	if err != nil {
		return nil, err
	}
	switch {
	case o.constant == nil && o.sizes == nil:
		return nil, p.refuse(n, "input %d not constant", i)
	case o.sizes != nil:
		return p.constant(n, i)
	}
	if t := o.constant; x.whole && (t.kind == typeInt32 || t.kind == typeInt64) {
		a, err := p.array(n, i)
		if err != nil {
			return nil, err
		}
		if err := p.compute(a.len()); err != nil {
			return nil, err
		}
		u := &tensor{kind: typeFloat, dims: t.dims}
		for _, v := range a.ints {
			if large(v) {
				return nil, p.refuse(n, "of integers of more than %d", graph.MaxInteger)
			}
			u.floats = append(u.floats, float32(v))
		}
		o.constant = u
	}
	if !o.shared {
		return o.constant, nil
	}
	s := x.view()
	if o.steps != nil || len(o.constant.dims) != len(s.dims) || !slices.Equal(s.dims[0], []int{batch}) {
		return nil, p.refuse(n, "of what is expanded")
	}
	return o.constant, nil
}

// fits reports whether a broadcasts to x.
func (p *parser) fits(a *array, x operand) bool {
	s := x.view()
	before := len(s.dims) - len(a.dims)
	if before < 0 {
		return false
	}
	for i, d := range a.dims {
		if of := s.size(before + i); d != 1 && (of.batch || of.n != d) {
			return false
		}
	}
	return true
}

// fitsValue reports whether y broadcasts to x.
func (p *parser) fitsValue(y, x operand) bool {
	s, t := x.view(), y.view()
	if len(s.dims) != len(t.dims) || !p.sameSamples(s, t) {
		return false
	}
	for i := range s.dims {
		if of := t.size(i); of != (size{n: 1}) && of != s.size(i) {
			return false
		}
	}
	return true
}
