package onnx

import (
	"fmt"
	"math"
	"slices"
)

// Shapes, and what is computed with them where the batch's size is among them.

// sizes is a tensor of integers of at most maxRank elements, of rank 0, 1 or 2: the
// shape of a value, or what a shape or pads are computed with.
type sizes struct {
	v    []size
	dims []int64
}

// row returns sizes of rank 1.
func row(v []size) *sizes { return &sizes{v, []int64{int64(len(v))}} }

// size is a number, or that many times the batch's size, whatever that will be.
type size struct {
	n     int64
	batch bool
}

// batch returns the index of the first that is the batch's, or -1.
func (s sizes) batch() int { return slices.IndexFunc(s.v, func(d size) bool { return d.batch }) }

// isBatch reports whether d is the batch's size, or the number that it is.
func (p *parser) isBatch(d size) bool {
	return d == size{1, true} || p.batch > 0 && d == size{n: p.batch}
}

// sizes returns input i of n, constant integers or a part of a shape.
func (p *parser) sizes(n *node, i int) (*sizes, error) {
	o, err := p.operand(n, i)
	if err != nil || o.sizes != nil {
		return o.sizes, err
	}
	t, err := p.constant(n, i)
	if err != nil {
		return nil, err
	}
	if len(t.dims) > 2 {
		return nil, p.refuse(n, "sizes of rank %d", len(t.dims))
	}
	if len(t.dims) == 1 && t.dims[0] == 0 && len(t.raw) == 0 {
		return row(nil), nil
	}
	ints, err := p.ints(n, t)
	if err != nil {
		return nil, err
	}
	s := &sizes{make([]size, len(ints)), t.dims}
	for j, v := range ints {
		s.v[j].n = v
	}
	return s, nil
}

// list returns the integers of an attribute or of input i of n, constants or what
// is computed of a shape, or nil where there are neither.
func (p *parser) list(n *node, name string, i int) ([]int64, error) {
	if !n.has(i) {
		a, _ := n.attribute(name)
		return a.ints, nil
	}
	s, err := p.sizes(n, i)
	if err != nil {
		return nil, err
	}
	if len(s.dims) > 1 {
		return nil, p.refuse(n, "sizes of rank %d", len(s.dims))
	}
	list := make([]int64, len(s.v))
	for j, d := range s.v {
		if d.batch {
			return nil, p.refuse(n, "%s of the batch's size", name)
		}
		list[j] = d.n
	}
	return list, nil
}

// shape reads a Shape, all of it or a part.
func (p *parser) shape(n *node) (operand, error) {
	x, err := p.any(n, 0)
	if err != nil {
		return x, err
	}
	var dims []size
	var of []int64
	switch {
	case x.split != nil:
		dims = x.split.sizes()
	case x.known:
		dims, of = []size{{n: 1, batch: true}}, x.dims()
	case x.constant != nil:
		of = x.constant.dims
	default:
		of = x.sizes.dims
	}
	for _, d := range of {
		dims = append(dims, size{n: d})
	}
	if x.shared {
		dims[0].batch = true
	}
	return operand{sizes: row(subrange(dims, n.int("start", 0), n.int("end", math.MaxInt64)))}, nil
}

// calculate reads an arithmetic operator of sizes, one of which may be single.
func (p *parser) calculate(n *node) (operand, error) {
	a, err := p.sizes(n, 0)
	if err != nil {
		return operand{}, err
	}
	b, err := p.sizes(n, 1)
	if err != nil {
		return operand{}, err
	}
	if n.int("fmod", 0) != 0 {
		return operand{}, p.refuse(n, "fmod=1")
	}
	few, many := min(len(a.v), len(b.v)), max(len(a.v), len(b.v))
	if few != 1 && few != many {
		return operand{}, fmt.Errorf("%w: %d sizes with %d", ErrInvalid, len(a.v), len(b.v))
	}
	if max(len(a.dims), len(b.dims)) > 1 {
		return operand{}, p.refuse(n, "of sizes in two dimensions")
	}
	c := &sizes{make([]size, many), []int64{int64(many)}[:max(len(a.dims), len(b.dims))]}
	for i := range c.v {
		x, y := a.v[i%len(a.v)], b.v[i%len(b.v)]
		var err error
		if c.v[i], err = p.calculated(n, x, y); err != nil {
			return operand{}, err
		}
	}
	return operand{sizes: c}, nil
}

// calculated returns what n computes of two sizes.
func (p *parser) calculated(n *node, x, y size) (size, error) {
	// No result is then larger than 64 bits.
	if max(x.n, y.n) > math.MaxInt32 || min(x.n, y.n) < -math.MaxInt32 || (n.op == "Div" || n.op == "Mod") && y.n == 0 {
		return size{}, fmt.Errorf("%w: %s of %d and %d", ErrInvalid, n.op, x.n, y.n)
	}
	if x.batch || y.batch {
		switch {
		case n.op == "Mul" && x.batch != y.batch && min(x.n, y.n) > 0:
			return size{x.n * y.n, true}, nil
		case n.op == "Div" && !y.batch && y.n > 0 && x.n%y.n == 0:
			return size{x.n / y.n, true}, nil
		case n.op == "Mod" && !y.batch && y.n > 0 && x.n%y.n == 0:
			return size{}, nil
		case n.op == "Equal" && (x == y || x.batch != y.batch && min(x.n, y.n) <= 0):
			return size{n: truthOf(x == y)}, nil
		}
		return size{}, p.refuse(n, "of the batch's size")
	}
	v, _ := pairwise[n.op].ints(x.n, y.n) // which 64 bits have, see above
	return size{n: v}, nil
}

// whereSizes reads a Where of sizes.
func (p *parser) whereSizes(n *node) (operand, error) {
	var v [3]*sizes
	many := 1
	for i := range v {
		s, err := p.sizes(n, i)
		if err != nil {
			return operand{}, err
		}
		if len(s.dims) > 1 || len(s.v) == 0 {
			return operand{}, p.refuse(n, "of sizes of rank %d", len(s.dims))
		}
		v[i], many = s, max(many, len(s.v))
	}
	to := &sizes{make([]size, many), []int64{int64(many)}[:max(len(v[0].dims), len(v[1].dims), len(v[2].dims))]}
	for i := range to.v {
		var of [3]size
		for k, s := range v {
			if len(s.v) != 1 && len(s.v) != many {
				return operand{}, fmt.Errorf("%w: %d sizes with %d", ErrInvalid, len(s.v), many)
			}
			of[k] = s.v[i%len(s.v)]
		}
		switch {
		case of[0].batch:
			return operand{}, p.refuse(n, "of the batch's size")
		case of[0].n != 0:
			to.v[i] = of[1]
		default:
			to.v[i] = of[2]
		}
	}
	return operand{sizes: to}, nil
}

// reshapeSizes reads a Reshape of sizes.
func (p *parser) reshapeSizes(n *node, to []int64, zeros bool) (operand, error) {
	from, err := p.sizes(n, 0)
	if err != nil {
		return operand{}, err
	}
	if len(to) < 1 || len(to) > 2 || len(from.v) == 0 {
		return operand{}, p.refuse(n, "of sizes to rank %d", len(to))
	}
	dims, err := resolve(to, from.dims, len(from.v), zeros)
	return operand{sizes: &sizes{from.v, dims}}, err
}

// transposeSizes reads a Transpose of sizes in two dimensions.
func (p *parser) transposeSizes(n *node) (operand, error) {
	from, err := p.sizes(n, 0)
	if err != nil {
		return operand{}, err
	}
	if a, given := n.attribute("perm"); len(from.dims) != 2 || given && !slices.Equal(a.ints, []int64{1, 0}) {
		return operand{}, p.refuse(n, "of sizes")
	}
	rows, cols := int(from.dims[0]), int(from.dims[1])
	to := &sizes{make([]size, len(from.v)), []int64{from.dims[1], from.dims[0]}}
	for i := range to.v {
		to.v[i] = from.v[i%rows*cols+i/rows]
	}
	return operand{sizes: to}, nil
}

// squeezeSize reads a Squeeze or an Unsqueeze of a size.
func (p *parser) squeezeSize(n *node) (operand, error) {
	axes, err := p.list(n, "axes", 1)
	if err != nil {
		return operand{}, err
	}
	// A Squeeze without axes takes away all of 1.
	if all := n.op == "Squeeze" && len(axes) == 0; !all && (len(axes) != 1 || axes[0] != 0 && axes[0] != -1) {
		return operand{}, p.refuse(n, "axes=%v", axes)
	}
	from, to := 1, 0 // ranks
	if n.op == "Unsqueeze" {
		from, to = to, from
	}
	s, err := p.sizes(n, 0)
	if err != nil {
		return operand{}, err
	}
	if len(s.dims) != from || len(s.v) != 1 {
		return operand{}, p.refuse(n, "of %d sizes of rank %d", len(s.v), len(s.dims))
	}
	return operand{sizes: &sizes{s.v, []int64{1}[:to]}}, nil
}
