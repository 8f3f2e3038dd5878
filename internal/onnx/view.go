package onnx

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// A split is a tensor whose dimensions are not axes of a graph's shape, one each and the
// batch first: a value's axes in parts, as attention has them of its heads, or the batch
// elsewhere, as torch's modules take it second. Reshape and Transpose change the split
// alone; a value is moved where an operator needs its dimensions along certain axes.
type split struct {
	parts []int64 // the extents that C, H and W are products of, in this order; none is 1
	// dims has, for each dimension of the tensor, the parts that it is made of, as indices,
	// the last varying fastest. One of them is the batch. A dimension of 1 has none.
	dims [][]int
}

// batch stands among a split's dimensions for the samples.
const batch = -1

// maxSplit bounds the dimensions of a split after the first, and its parts.
const maxSplit = 7

// view returns x as a split.
func (x operand) view() *split {
	if x.split != nil {
		return x.split
	}
	s := &split{dims: [][]int{{batch}}}
	at := [3]int{-1, -1, -1}
	for a, e := range extents(x.shape) {
		if e != 1 {
			at[a] = len(s.parts)
			s.parts = append(s.parts, int64(e))
		}
	}
	for _, a := range x.axes {
		var d []int
		if at[a] >= 0 {
			d = []int{at[a]}
		}
		s.dims = append(s.dims, d)
	}
	return s
}

// size returns dimension i of s.
func (s *split) size(i int) size {
	d := size{n: 1}
	for _, k := range s.dims[i] {
		if k == batch {
			d.batch = true
		} else {
			d.n *= s.parts[k]
		}
	}
	return d
}

// sizes returns all dimensions of s.
func (s *split) sizes() (v []size) {
	for i := range s.dims {
		v = append(v, s.size(i))
	}
	return v
}

// samples returns the dimension that the batch is part of, and how many elements of that
// dimension lie before it.
func (s *split) samples() (dim int, before int64) {
	for i, d := range s.dims {
		if k := slices.Index(d, batch); k >= 0 {
			before = 1
			for _, j := range d[:k] {
				before *= s.parts[j]
			}
			return i, before
		}
	}
	return -1, 0 // never: a split has a batch
}

// own returns the parts of dimension i of s without the batch.
func (s *split) own(i int) []int {
	return slices.DeleteFunc(slices.Clone(s.dims[i]), func(k int) bool { return k == batch })
}

// single returns s with a batch of one sample where it is least in the way, as it may be
// anywhere: in the first dimension of 1, or else first of all.
func (s *split) single() *split {
	t := &split{parts: s.parts}
	for i := range s.dims {
		t.dims = append(t.dims, s.own(i))
	}
	i := max(slices.IndexFunc(t.dims, func(d []int) bool { return len(d) == 0 }), 0)
	t.dims[i] = append([]int{batch}, t.dims[i]...)
	return t
}

// samplesFirst returns s with the batch alone in the first dimension, if it is, or may be,
// as a batch of one may be anywhere.
func (p *parser) samplesFirst(s *split) (*split, bool) {
	dim, _ := s.samples()
	if dim == 0 && len(s.dims[0]) == 1 {
		return s, true
	}
	if p.batch != 1 || s.size(0).n != 1 {
		return s, false
	}
	t := &split{parts: s.parts, dims: slices.Clone(s.dims)}
	t.dims[dim] = s.own(dim)
	t.dims[0] = []int{batch}
	return t, true
}

// axesOf returns the parts that C, H and W are made of.
func (s *split) axesOf(shape graph.Shape) (of [3][]int) {
	k := 0
	for a, e := range extents(shape) {
		for n := int64(1); n < int64(e); k++ {
			n *= s.parts[k]
			of[a] = append(of[a], k)
		}
	}
	return of
}

// seen returns x, of split s, as one with axes, if its dimensions are axes each.
func (p *parser) seen(x operand, s *split) operand {
	if p.batch == 1 {
		s = s.single()
	}
	x.split, x.axes = s, nil
	first, ok := p.samplesFirst(s)
	if !ok || len(first.dims) > len(canonical) || len(first.dims) < 2 {
		return x
	}
	of := s.axesOf(x.shape)
	axes := make([]axis, len(first.dims)-1)
	free := []axis{}
	for a := range of {
		if len(of[a]) == 0 {
			free = append(free, axis(a))
		}
	}
	for i, d := range first.dims[1:] {
		a := slices.IndexFunc(of[:], func(parts []int) bool { return slices.Equal(parts, d) })
		switch {
		case len(d) == 0 && len(free) > 0:
			axes[i], free = free[0], free[1:]
		case len(d) == 0 || a < 0:
			return x
		default:
			axes[i] = axis(a)
		}
	}
	x.split, x.axes = nil, axes
	return x
}

// placed returns x with the given dimensions, all but the batch's alone among them once,
// along C, H and W, each of them in order.
func (p *parser) placed(x operand, c, h, w []int) (operand, error) {
	s := x.view()
	t := &split{dims: make([][]int, len(s.dims))}
	var perm []int
	dim, _ := s.samples()
	t.dims[dim] = s.dims[dim] // if it is placed, it is set below; if not, it is alone
	along := [3]int{1, 1, 1}
	for a, list := range [][]int{c, h, w} {
		for _, i := range list {
			t.dims[i] = nil
			for _, k := range s.dims[i] {
				if k == batch {
					t.dims[i] = append(t.dims[i], batch)
					continue
				}
				t.dims[i] = append(t.dims[i], len(t.parts))
				t.parts = append(t.parts, s.parts[k])
				perm = append(perm, k)
				along[a] *= int(s.parts[k])
			}
		}
	}
	to := graph.Shape{C: along[0], H: along[1], W: along[2]}
	x, err := p.moved(x, s.parts, perm, to)
	if err != nil {
		return x, err
	}
	x = p.seen(x, t)
	all := slices.Concat(c, h, w)
	if x.split != nil || len(all) != len(x.axes) || slices.Contains(all, 0) || max(len(c), len(h), len(w)) > 1 {
		return x, nil
	}
	// Extents of 1 are along the axes that were asked for, too.
	for a, list := range [][]int{c, h, w} {
		for _, i := range list {
			x.axes[i-1] = axis(a)
		}
	}
	return x, nil
}

// others returns the dimensions of x in order, but for the given ones, and for the first if
// that is the batch alone.
func (s *split) others(but ...int) (list []int) {
	for i, d := range s.dims {
		if !slices.Contains(but, i) && !slices.Equal(d, []int{batch}) {
			list = append(list, i)
		}
	}
	return list
}

// alongC returns x with dimension i along C and all others along W, unless i is along C
// alone as it is.
func (p *parser) alongC(x operand, i int) (operand, error) {
	s := x.view()
	if slices.Equal(s.axesOf(x.shape)[axisC], s.dims[i]) {
		return x, nil
	}
	return p.placed(x, []int{i}, nil, s.others(i))
}

// resized returns y, which was made of x with dimension i, all of axis a, of another extent,
// with its dimensions as in x.
func (p *parser) resized(y, x operand, i int, a axis) operand {
	s := x.view()
	at := 0 // where the axis's parts begin
	for b, of := range s.axesOf(x.shape) {
		if axis(b) < a {
			at += len(of)
		}
	}
	less, more := len(s.own(i)), 0
	t := &split{parts: slices.Delete(slices.Clone(s.parts), at, at+less)}
	if n := extents(y.shape)[a]; n != 1 {
		more = 1
		t.parts = slices.Insert(t.parts, at, int64(n))
	}
	for j, d := range s.dims {
		var list []int
		for _, k := range d {
			switch {
			case k == batch || j != i && k < at:
				list = append(list, k)
			case j != i:
				list = append(list, k+more-less)
			}
		}
		if j == i {
			list = append(list, []int{at}[:more]...)
		}
		t.dims = append(t.dims, list)
	}
	return p.seen(y, t)
}

// alone returns x with dimension i, which is no batch, alone along an axis, and which that is.
func (p *parser) alone(x operand, i int) (operand, axis, error) {
	s := x.view()
	for a, of := range s.axesOf(x.shape) {
		if x.split != nil && len(of) > 0 && slices.Equal(of, s.dims[i]) {
			return x, axis(a), nil
		}
	}
	along, err := axisC, error(nil)
	if last := len(s.dims) - 1; x.split != nil && i == last {
		x, err = p.placed(x, []int{i}, nil, s.others(i))
	} else if x.split != nil {
		along = axisW
		x, err = p.placed(x, []int{last}, s.others(i, last), []int{i})
	}
	if x.split == nil && err == nil {
		along = x.axes[i-1] // of placed too, as an extent of 1 may have got another
	}
	return x, along, err
}

// along returns op of x, which gives another extent to an axis that is all of dimension i.
func (p *parser) along(op graph.Op, x operand, i int, a axis) (operand, error) {
	y, err := p.apply(op, nil, operand{value: x.value, shape: x.shape})
	if err != nil {
		return x, err
	}
	if y = p.resized(y, x, i, a); y.split == nil && x.split == nil {
		y.axes = x.axes
	}
	return y, nil
}

// settled returns x with axes, in ONNX's order, and whether it can be: the batch first, and
// no more dimensions than a shape has.
func (p *parser) settled(x operand) (operand, bool, error) {
	if x.split == nil {
		return x, true, nil
	}
	s, ok := p.samplesFirst(x.split)
	if !ok || len(s.dims) > len(canonical) || len(s.dims) < 2 {
		return x, false, nil
	}
	x.split = s
	var at [3][]int
	for i, a := range canonical[len(s.dims)-1] {
		at[a] = []int{i + 1}
	}
	x, err := p.placed(x, at[axisC], at[axisH], at[axisW])
	return x, err == nil, err
}

// viewed returns input i of n, a value of the graph, split or not.
func (p *parser) viewed(n *node, i int) (operand, error) {
	o, err := p.operand(n, i)
	switch {
	case err != nil:
	case !o.known:
		err = p.refuse(n, "constant input %d", i)
	case o.whole && !movement[n.op] && !exact[n.op]:
		err = p.refuse(n, "of integers")
	case o.truth != nil && !movement[n.op]:
		err = p.refuse(n, "of a comparison")
	case o.masked && !movement[n.op] && !passes[n.op]:
		err = p.refuse(n, "of infinities")
	case o.wide != nil:
		return p.widened(o)
	}
	return o, err
}

// index returns the dimension that n's axis i is of s, and notes where the batch is in it,
// unless that is of one sample.
func (p *parser) index(n *node, s *split, i int64) (int, error) {
	r := int64(len(s.dims))
	if i < -r || i >= r {
		return 0, fmt.Errorf("%w: axis %d of rank %d", ErrInvalid, i, r)
	}
	at := int((i + r) % r)
	if d := s.size(at); d.batch && (p.batch != 1 || d.n == 1) {
		return 0, p.refuse(n, "across samples")
	}
	return at, nil
}

// regrouped returns x with the dimensions to, none of which is 0 or -1, if these are made
// of its parts and of parts of those. None of them may be the batch's, if that is fixed: it
// then counts as the number that it is.
func (p *parser) regrouped(x operand, to []size) (operand, bool) {
	s := x.view()
	samples := slices.IndexFunc(to, func(d size) bool { return d.batch })
	if samples < 0 && p.batch == 0 {
		return x, false
	}
	type part struct {
		at int // in s, or batch
		n  int64
	}
	var left []part
	for _, d := range s.dims {
		for _, k := range d {
			if k != batch {
				left = append(left, part{k, s.parts[k]})
			} else if p.batch != 1 {
				left = append(left, part{batch, max(p.batch, 1)})
			}
		}
	}
	pieces := make([][]int64, len(s.parts)) // that each part is divided into
	for k, n := range s.parts {
		pieces[k] = []int64{n}
	}
	type piece struct{ part, piece int }
	dims := make([][]piece, len(to))
	if p.batch == 1 {
		dims[max(samples, 0)] = []piece{{part: batch}}
	}
	for i, d := range to {
		need, sought := d.n, d.batch && p.batch != 1
		for need > 1 || sought {
			if len(left) == 0 {
				return x, false
			}
			l := &left[0]
			switch {
			case l.at == batch && sought:
				sought = false
			case l.at == batch && (samples >= 0 || need%l.n != 0):
				return x, false
			case need%l.n == 0:
				need /= l.n
			case need > 1 && l.n%need == 0:
				last := len(pieces[l.at]) - 1
				pieces[l.at] = append(pieces[l.at][:last], need, l.n/need)
				dims[i] = append(dims[i], piece{l.at, last})
				l.n /= need
				need = 1
				continue
			default:
				return x, false
			}
			taken := piece{part: l.at}
			if l.at != batch {
				taken.piece = len(pieces[l.at]) - 1
			}
			dims[i] = append(dims[i], taken)
			left = left[1:]
		}
	}
	t := new(split)
	first := make([]int, len(pieces)) // of each part, the number of its first piece
	for k, of := range pieces {
		first[k] = len(t.parts)
		t.parts = append(t.parts, of...)
	}
	if len(left) > 0 || len(t.parts) > maxSplit {
		return x, false
	}
	for _, d := range dims {
		var list []int
		for _, k := range d {
			if k.part == batch {
				list = append(list, batch)
			} else {
				list = append(list, first[k.part]+k.piece)
			}
		}
		t.dims = append(t.dims, list)
	}
	return p.seen(x, t), true
}

// reshaped gives x the sizes dims after the batch, which must be first.
func (p *parser) reshaped(n *node, x operand, dims []int64) (operand, error) {
	if len(dims) == 0 || len(dims) > maxSplit {
		return x, p.refuse(n, "to rank %d", 1+len(dims))
	}
	s := x.view()
	var order []int // of x's parts
	for _, i := range s.others() {
		order = append(order, s.dims[i]...)
	}
	few := len(dims) < len(canonical)
	if few {
		axes := canonical[len(dims)]
		// Dimensions that have an order of their own, as heads, are left to what reads them.
		own := len(dims) == 2 || x.split == nil && !slices.Equal(x.axes, canonical[len(x.axes)]) || x.split != nil && len(s.dims) <= len(canonical)
		op := graph.NewTranspose(asInts(s.parts), order, shaped(axes, dims))
		if op == (graph.Reshape{To: x.shape}) && (x.split != nil || !slices.Equal(x.axes, axes)) {
			// N x C against N x C x 1 x 1: one and the same to the graph.
			x.axes, x.split = axes, nil
			return x, nil
		}
		if !own {
			return p.apply(op, axes, operand{value: x.value, shape: x.shape})
		}
	}
	to := []size{{n: 1, batch: true}}
	for _, d := range dims {
		to = append(to, size{n: d})
	}
	if y, ok := p.regrouped(x, to); ok {
		return y, nil
	}
	// In other parts than it is made of.
	t := &split{dims: [][]int{{batch}}}
	for _, d := range dims {
		var list []int
		if d != 1 {
			list = []int{len(t.parts)}
			t.parts = append(t.parts, d)
		}
		t.dims = append(t.dims, list)
	}
	flat := graph.Vector(x.shape.Len())
	if few {
		flat = shaped(canonical[len(dims)], dims)
	}
	y, err := p.moved(x, s.parts, order, flat)
	return p.seen(y, t), err
}

// moved returns x, as a tensor of parts, transposed by perm to shape to, if that is not what
// it is. What several operators ask for is moved once.
func (p *parser) moved(x operand, parts []int64, perm []int, to graph.Shape) (operand, error) {
	op := graph.NewTranspose(asInts(parts), perm, to)
	if op == (graph.Reshape{To: x.shape}) {
		return x, nil
	}
	key := fmt.Sprint(x.value, parts, perm, to)
	y, known := p.moves[key]
	if !known {
		var err error
		if y, err = p.apply(op, nil, operand{value: x.value, shape: x.shape}); err != nil {
			return x, err
		}
		p.moves[key] = y
	}
	x.value, x.shape = y.value, y.shape
	return x, nil
}

// asInts returns sizes as graphs have them.
func asInts(v []int64) (dims []int) {
	for _, d := range v {
		dims = append(dims, int(d))
	}
	return dims
}

// turned returns x with its dimensions permuted.
func (p *parser) turned(x operand, perm []int) operand {
	s := x.view()
	t := &split{parts: s.parts}
	for _, i := range perm {
		t.dims = append(t.dims, s.dims[i])
	}
	return p.seen(x, t)
}

// cutOff returns the part of x that lies from from on and before to along dimension i.
func (p *parser) cutOff(x operand, i int, from, to int64) (operand, error) {
	if x.split == nil {
		part := newSlicing(x)
		part.cut(i-1, from, to)
		return part.apply(p)
	}
	leading := func(x operand) (a, rest int) {
		s := x.view()
		for a, of := range s.axesOf(x.shape) {
			if d := s.own(i); len(d) > 0 && len(d) <= len(of) && slices.Equal(of[:len(d)], d) {
				return a, int(int64(extents(x.shape)[a]) / s.size(i).n)
			}
		}
		return -1, 0
	}
	s := x.view()
	if from == 0 && to == s.size(i).n {
		return x, nil
	}
	a, rest := leading(x)
	if a < 0 {
		var err error
		last := len(s.dims) - 1
		if i == last {
			x, err = p.placed(x, []int{i}, nil, s.others(i))
		} else {
			x, err = p.placed(x, s.others(append(s.others(last), i)...), []int{i}, s.others(i, last))
		}
		if err != nil {
			return x, err
		}
		s = x.view()
		a, rest = leading(x)
	}
	part := newSlicing(x)
	*[]*graph.Range{&part.part.C, &part.part.H, &part.part.W}[a] = graph.Range{From: int(from) * rest, To: int(to) * rest}
	y, err := p.apply(part.part, nil, operand{value: x.value, shape: x.shape})
	if err != nil {
		return x, err
	}
	// The dimension's parts become one, or none.
	t, own := &split{}, s.own(i)
	number := make([]int, len(s.parts))
	for k, n := range s.parts {
		number[k] = len(t.parts)
		if at := slices.Index(own, k); at > 0 || at == 0 && to-from == 1 {
			continue
		} else if at == 0 {
			n = to - from
		}
		t.parts = append(t.parts, n)
	}
	for j, d := range s.dims {
		var list []int
		for _, k := range d {
			switch {
			case k == batch:
				list = append(list, batch)
			case !slices.Contains(own, k):
				list = append(list, number[k])
			}
		}
		if j == i && to-from > 1 {
			list = append(list, number[own[0]])
		}
		t.dims = append(t.dims, list)
	}
	return p.seen(y, t), nil
}
