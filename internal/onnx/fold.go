package onnx

import (
	"fmt"
	"slices"
)

// What is computed of constants alone, as masks and positions are, is computed as the model is
// read.

// foldable says how constants are computed with, by operator. A nil array leaves the node to
// what reads it of values and sizes.
var foldable map[string]func(*parser, *node, []*array) (*array, error)

func init() { // which refer to it
	foldable = map[string]func(*parser, *node, []*array) (*array, error){
		"Range": (*parser).foldRange, "Trilu": (*parser).foldTrilu, "CumSum": (*parser).foldCumSum,
		"Expand": (*parser).foldExpand, "Reshape": (*parser).foldReshape, "Flatten": (*parser).foldReshape,
		"Unsqueeze": (*parser).foldSqueeze, "Squeeze": (*parser).foldSqueeze, "Transpose": (*parser).foldTranspose,
		"Slice": (*parser).foldSlice, "Gather": (*parser).foldGather, "GatherElements": (*parser).foldGatherElements,
		"Concat": (*parser).foldConcat, "Cast": (*parser).foldCast, "Where": (*parser).foldWhere,
		"ConstantOfShape": (*parser).foldFilled, "GatherND": (*parser).foldGatherND,
	}
	for name := range pairwise {
		foldable[name] = (*parser).foldPairs
	}
	for name := range single {
		foldable[name] = (*parser).foldSingle
	}
}

// folded returns what n makes of constants, if it is that: the last result says so.
func (p *parser) folded(n *node) (operand, bool, error) {
	f := foldable[n.op]
	if f == nil || n.domain != "" && n.domain != "ai.onnx" || len(n.inputs) == 0 {
		return operand{}, false, nil
	}
	for i := range n.inputs {
		o := p.operands[n.inputs[i]]
		t := o.constant
		weights := t != nil && !o.shared && (t.kind == typeFloat || t.kind == typeDouble)
		switch to := n.int("to", 0); {
		case n.has(i) && t == nil && o.sizes == nil: // a value, or what is not supported
			return operand{}, false, nil
		case weights && i == 0 && (n.op == "Reshape" || n.op == "Unsqueeze" || n.op == "Squeeze" && n.has(1) || n.op == "Transpose" || n.op == "Cast" && to == typeFloat && t.kind == typeFloat):
			return operand{}, false, nil // which stay in the file
		}
	}
	in := make([]*array, len(n.inputs))
	for i := range n.inputs {
		if !n.has(i) {
			continue
		}
		if n.op == "Gather" && i == 0 && p.operands[n.inputs[0]].constant != nil { // of a table, rows are read
			in[i] = &array{}
			continue
		}
		// Shapes may have the batch's size in them, and are read as such.
		if i == 1 && (n.op == "Expand" || n.op == "Reshape") || i == 0 && n.op == "ConstantOfShape" || i == 1 && n.op == "Range" {
			if o := p.operands[n.inputs[i]]; o.constant != nil || o.sizes != nil {
				in[i] = &array{}
				continue
			}
		}
		a, err := p.array(n, i)
		if a == nil || err != nil {
			return operand{}, false, err
		}
		in[i] = a
	}
	a, err := f(p, n, in)
	if a == nil || err != nil {
		return operand{}, false, err
	}
	if a.kind == typeInt32 {
		for _, v := range a.ints {
			if v != int64(int32(v)) {
				return operand{}, false, p.refuse(n, "of constants past 32 bits")
			}
		}
	}
	return a.operand(), true, nil
}

// An array is a constant as it is computed with: integers, of which bools are 0 and 1, or floats.
type array struct {
	kind   int64 // typeInt32, typeInt64, typeBool or typeFloat
	dims   []int64
	ints   []int64   // unless it is of floats
	floats []float32 // of which there are as many
	// shared says that the first dimension, of 1, stands for all samples. Each has the same, plus,
	// where steps are given, as many times those as samples are before it.
	shared bool
	steps  []int64
}

// unknown is the kind of a constant of which the shape alone is known, as that of what two ranges
// make together, which torch asks for no more of.
const unknown = -1

// len returns the number of elements.
func (a *array) len() int { return max(len(a.ints), len(a.floats)) }

// float reports whether a is of floats.
func (a *array) float() bool { return a.kind == typeFloat }

// operand returns a as a constant.
func (a *array) operand() operand {
	t := &tensor{kind: a.kind, dims: a.dims, floats: a.floats, int64s: a.ints}
	if a.kind == typeInt32 || a.kind == typeBool {
		t.int64s, t.int32s = nil, a.ints
	}
	return operand{constant: t, shared: a.shared, steps: a.steps}
}

// array returns input i of n as an array, or nil where it is no constant, or one that is not
// computed with.
func (p *parser) array(n *node, i int) (*array, error) {
	o := p.operands[n.inputs[i]]
	if t := o.constant; t != nil && t.of != nil {
		var err error
		if o, err = p.any(n, i); err != nil || o.constant.of != nil {
			return nil, err
		}
	}
	return p.arrayOf(n, o)
}

// arrayOf is array of an operand.
func (p *parser) arrayOf(n *node, o operand) (*array, error) {
	if s := o.sizes; s != nil {
		a := &array{kind: typeInt64, dims: s.dims}
		for _, d := range s.v {
			if d.batch && p.batch != 1 {
				return nil, nil
			}
			a.ints = append(a.ints, d.n)
		}
		return a, nil
	}
	t := o.constant
	if t == nil {
		return nil, nil
	}
	a := &array{kind: t.kind, dims: t.dims, shared: o.shared, steps: o.steps}
	size := 0
	var err error
	if !slices.Contains(t.dims, 0) {
		if size, err = t.len(); err != nil {
			return nil, err
		}
	}
	switch t.kind {
	case typeFloat, typeDouble:
		a.kind = typeFloat
		if a.floats, err = p.computedFloats(t, size); a.floats == nil {
			return nil, err
		}
	case typeInt32, typeInt64, typeBool:
		if a.ints, err = p.computedInts(n, t, size); err != nil {
			return nil, err
		}
	default:
		return nil, nil
	}
	return a, nil
}

// computedFloats returns the elements of t, of so many floats, to compute with; or nil where there
// are none, or where they are no float32.
func (p *parser) computedFloats(t *tensor, size int) ([]float32, error) {
	if t.kind == typeFloat && t.floats != nil && len(t.floats) == size {
		return t.floats, nil
	}
	if err := p.compute(size); err != nil || size == 0 {
		return nil, err
	}
	width, typed := 4, len(t.floats)
	if t.kind == typeDouble {
		width, typed = 8, len(t.doubles)
	}
	if _, err := t.checkData(typed, width); err != nil {
		return nil, err
	}
	v := make([]float32, size)
	if err := t.read(v, 0, t.piece()); err != nil {
		return nil, err
	}
	if t.kind == typeDouble && !t.rounded(v) {
		return nil, nil
	}
	return v, nil
}

// computedInts returns the elements of t, of so many integers or bools, to compute with.
func (p *parser) computedInts(n *node, t *tensor, size int) ([]int64, error) {
	if size == 0 {
		if len(t.int32s)+len(t.int64s)+len(t.raw) > 0 {
			return nil, fmt.Errorf("%w: an empty tensor with data", ErrInvalid)
		}
		return nil, nil
	}
	if err := p.look(size); err != nil {
		return nil, err
	}
	if t.raw != nil || t.stored != nil {
		if err := p.compute(size); err != nil {
			return nil, err
		}
	}
	v, err := p.integers(n, t, size)
	if err != nil {
		return nil, err
	}
	if t.kind == typeBool && slices.ContainsFunc(v, func(v int64) bool { return v != 0 && v != 1 }) {
		return nil, fmt.Errorf("%w: a bool that is none", ErrInvalid)
	}
	return v, nil
}

// rounded reports whether t's doubles, which are v rounded, are floats as they are.
func (t *tensor) rounded(v []float32) bool {
	if t.doubles == nil {
		return false
	}
	for i, d := range t.doubles {
		if float64(v[i]) != d {
			return false
		}
	}
	return true
}

// foldedFrom is how many elements may be computed of constants, however small a file is, and
// each of them be looked at so often.
const (
	foldedFrom = 1 << 22
	foldedRead = 16
)

// compute counts n elements that are about to be computed of constants.
func (p *parser) compute(n int) error {
	if p.computed -= n; n < 0 || p.computed < 0 {
		return fmt.Errorf("%w: constants take too much to compute", ErrInvalid)
	}
	return nil
}

// look counts n elements of a constant that are about to be looked at, whatever is made of them.
func (p *parser) look(n int) error {
	if p.looked -= n; p.looked < 0 {
		return fmt.Errorf("%w: constants are looked at too often", ErrInvalid)
	}
	return nil
}

// made returns an array of the given dimensions like a, for its elements to be set; or nil if
// there are none.
func (p *parser) made(a *array, dims []int64) (*array, error) {
	if len(dims) > maxRank {
		return nil, fmt.Errorf("%w: tensor of rank %d", ErrInvalid, len(dims))
	}
	size, ok := extent(dims)
	if !ok {
		if slices.Contains(dims, 0) {
			return nil, nil
		}
		return nil, fmt.Errorf("%w: a constant of %d", ErrInvalid, dims)
	}
	if err := p.compute(size); err != nil {
		return nil, err
	}
	b := &array{kind: a.kind, dims: slices.Clone(dims), shared: a.shared}
	if a.float() {
		b.floats = make([]float32, size)
		return b, nil
	}
	b.ints = make([]int64, size)
	if a.steps != nil {
		b.steps = make([]int64, size)
	}
	return b, nil
}

// set sets element i to element j of a.
func (b *array) set(i int, a *array, j int) {
	if a.float() {
		b.floats[i] = a.floats[j]
		return
	}
	b.ints[i] = a.ints[j]
	if a.steps != nil {
		b.steps[i] = a.steps[j]
	}
}

// picked returns an array of the given dimensions, whose elements are those of a that places
// gives for each of its own.
func (p *parser) picked(a *array, dims []int64, place func(index []int64) int) (*array, error) {
	b, err := p.made(a, dims)
	if b == nil || err != nil {
		return nil, err
	}
	for i, index := range indices(b.dims) {
		b.set(i, a, place(index))
	}
	return b, nil
}
