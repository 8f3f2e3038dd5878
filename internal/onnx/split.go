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

// single returns s with a batch of one sample where it is least in the way, as it may be
// anywhere: in the first dimension of 1, or else first of all.
func (s *split) single() *split {
	return s.batchAt(max(slices.IndexFunc(s.owned(), func(d []int) bool { return len(d) == 0 }), 0))
}

// owned returns the dimensions of s without the batch.
func (s *split) owned() (dims [][]int) {
	for i := range s.dims {
		dims = append(dims, s.own(i))
	}
	return dims
}

// batchAt returns s with the batch at the beginning of dimension i, and nowhere else.
func (s *split) batchAt(i int) *split {
	t := &split{s.parts, s.owned()}
	t.dims[i] = slices.Insert(t.dims[i], 0, batch)
	return t
}

// gone stands for a part that a tensor has no more, see renumbered.
const gone = -2

// renumbered returns dims with to[k] for each part k, unless that is gone. The batch stays.
func renumbered(dims [][]int, to []int) [][]int {
	out := make([][]int, len(dims))
	for i, d := range dims {
		for _, k := range d {
			if k != batch {
				k = to[k]
			}
			if k != gone {
				out[i] = append(out[i], k)
			}
		}
	}
	return out
}

// without returns s without less parts from at on, and with more in their place, which no
// dimension has yet.
func (s *split) without(at, less int, more ...int64) *split {
	to := make([]int, len(s.parts))
	for k := range to {
		switch {
		case k < at:
			to[k] = k
		case k < at+less:
			to[k] = gone
		default:
			to[k] = k + len(more) - less
		}
	}
	return &split{slices.Replace(slices.Clone(s.parts), at, at+less, more...), renumbered(s.dims, to)}
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
	return s.batchAt(0), true
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
		if y, err = p.apply(op, nil, x.bare()); err != nil {
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

// alongC returns x with dimension i along C and all others along W, unless i is along C
// alone as it is.
func (p *parser) alongC(x operand, i int) (operand, error) {
	s := x.view()
	if slices.Equal(s.axesOf(x.shape)[axisC], s.dims[i]) {
		return x, nil
	}
	return p.placed(x, []int{i}, nil, s.others(i))
}

// lastAlongC returns x with its last dimension along C, and which that is.
func (p *parser) lastAlongC(n *node, x operand) (operand, int, error) {
	s := x.view()
	last := len(s.dims) - 1
	if s.size(last).batch {
		return x, last, p.refuse(n, "across samples")
	}
	var err error
	if x.split == nil {
		x, err = p.channelsAt(x, last-1)
	} else {
		x, err = p.alongC(x, last)
	}
	return x, last, err
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
	// Of placed too, as an extent of 1 may have got another; but one that stands first may have
	// become the batch of one sample, which has none.
	if x.split == nil && err == nil && i > 0 {
		along = x.axes[i-1]
	}
	return x, along, err
}

// along returns op of x, which gives another extent to an axis that is all of dimension i.
func (p *parser) along(op graph.Op, x operand, i int, a axis) (operand, error) {
	y, err := p.apply(op, nil, x.bare())
	if err != nil {
		return x, err
	}
	if y = p.resized(y, x, i, a); y.split == nil && x.split == nil {
		y.axes = x.axes
	}
	return y, nil
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
	less := len(s.own(i))
	if n := extents(y.shape)[a]; n != 1 {
		t := s.without(at, less, int64(n))
		t.dims[i] = append(t.dims[i], at)
		return p.seen(y, t)
	}
	return p.seen(y, s.without(at, less))
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

// turned returns x with its dimensions permuted.
func (p *parser) turned(x operand, perm []int) operand {
	s := x.view()
	t := &split{parts: s.parts}
	for _, i := range perm {
		t.dims = append(t.dims, s.dims[i])
	}
	return p.seen(x, t)
}

// aside returns x with a batch of one sample, which may be anywhere, in another dimension
// than that of the given axis.
func (p *parser) aside(x operand, axis int64) operand {
	s := x.view()
	at, err := fromStart(axis, len(s.dims))
	if err != nil || p.batch != 1 || len(s.dims) < 2 || !s.size(at).batch {
		return x // an axis that x has not is for others to refuse
	}
	own, to := s.owned(), -1 // the first other dimension, of 1 if there is one
	for i := range own {
		if i != at && (to < 0 || len(own[to]) > 0 && len(own[i]) == 0) {
			to = i
		}
	}
	x.split, x.axes = s.batchAt(to), nil
	return x
}

// regrouped returns x with the dimensions to, none of which is 0 or -1, if these are made
// of its parts and of parts of those. None of them may be the batch's, if that is fixed: it
// then counts as the number that it is.
func (p *parser) regrouped(x operand, to []size) (operand, bool) {
	samples := sizes{v: to}.batch()
	if samples < 0 && p.batch == 0 {
		return x, false
	}
	r := p.newRegrouping(x.view(), samples < 0)
	dims, ok := make([][]piece, len(to)), false
	for i, d := range to {
		if dims[i], ok = r.take(d.n, d.batch && p.batch != 1); !ok {
			return x, false
		}
	}
	if p.batch == 1 {
		i := max(samples, 0)
		dims[i] = slices.Insert(dims[i], 0, piece{part: batch})
	}
	t := r.split(dims)
	if len(r.left) > 0 || len(t.parts) > maxSplit {
		return x, false
	}
	return p.seen(x, t), true
}

// regroupedFor is regrouped of what n gives these dimensions.
func (p *parser) regroupedFor(n *node, x operand, to []size) (operand, error) {
	if len(to) > 1+maxSplit {
		return x, p.refuse(n, "to rank %d", len(to))
	}
	y, ok := p.regrouped(x, to)
	if !ok {
		return x, p.refuse(n, "across samples")
	}
	return y, nil
}

// A regrouping gives new dimensions the parts of a split, in order, and divides those that two of them
// share.
type regrouping struct {
	left   []leftPart // which no dimension has yet
	pieces [][]int64  // that each part is divided into: their extents, the last of which may be left
	fixed  bool       // the batch counts as the number that it is
}

// A leftPart is a part of a split, or what is left of it, or the batch.
type leftPart struct {
	part   int // or batch
	extent int64
}

// A piece is one of those that a part is divided into, or the batch.
type piece struct{ part, number int }

// newRegrouping begins one of s. A batch of one sample is left out.
func (p *parser) newRegrouping(s *split, fixed bool) *regrouping {
	r := &regrouping{fixed: fixed}
	for _, k := range slices.Concat(s.dims...) {
		if k != batch {
			r.left = append(r.left, leftPart{k, s.parts[k]})
		} else if p.batch != 1 {
			r.left = append(r.left, leftPart{batch, max(p.batch, 1)})
		}
	}
	for _, n := range s.parts {
		r.pieces = append(r.pieces, []int64{n})
	}
	return r
}

// take takes what a dimension of so many elements is made of, with the batch among it if that is
// sought, or fails.
func (r *regrouping) take(elements int64, sought bool) (of []piece, ok bool) {
	for elements > 1 || sought {
		if len(r.left) == 0 {
			return nil, false
		}
		next := &r.left[0]
		switch {
		case next.part == batch && sought:
			sought = false
		case next.part == batch && (!r.fixed || elements%next.extent != 0):
			return nil, false
		case elements%next.extent == 0:
			elements /= next.extent
		case elements > 1 && next.extent%elements == 0:
			of = append(of, r.last(next.part))
			r.divide(next, elements)
			elements = 1
			continue
		default:
			return nil, false
		}
		of = append(of, r.last(next.part))
		r.left = r.left[1:]
	}
	return of, true
}

// last returns the last piece of a part.
func (r *regrouping) last(part int) piece {
	if part == batch {
		return piece{part: batch}
	}
	return piece{part, len(r.pieces[part]) - 1}
}

// divide divides the last piece of a part, which is all that is left of it, in two: the first of the
// given extent, and what is left then.
func (r *regrouping) divide(of *leftPart, extent int64) {
	last := r.last(of.part).number
	of.extent /= extent
	r.pieces[of.part] = append(r.pieces[of.part][:last], extent, of.extent)
}

// split returns the split whose parts are all pieces, and whose dimensions are made of the given ones.
func (r *regrouping) split(dims [][]piece) *split {
	t := &split{dims: make([][]int, len(dims))}
	first := make([]int, len(r.pieces)) // of each part, the number of its first piece
	for k, of := range r.pieces {
		first[k] = len(t.parts)
		t.parts = append(t.parts, of...)
	}
	for i, d := range dims {
		for _, of := range d {
			k := batch
			if of.part != batch {
				k = first[of.part] + of.number
			}
			t.dims[i] = append(t.dims[i], k)
		}
	}
	return t
}

// ofEachSample returns x, whose first dimension begins with the samples, with that in two: the
// samples', and what each of them has.
func (p *parser) ofEachSample(x operand) (operand, bool) {
	all := x.view().sizes()
	if !all[0].batch {
		return x, false
	}
	return p.regrouped(x, slices.Concat([]size{{1, true}, {n: all[0].n}}, all[1:]))
}

// index returns the dimension that n's axis i is of s, and notes where the batch is in it,
// unless that is of one sample.
func (p *parser) index(n *node, s *split, i int64) (int, error) {
	at, err := fromStart(i, len(s.dims))
	if err != nil {
		return 0, err
	}
	if d := s.size(at); d.batch && (p.batch != 1 || d.n == 1) {
		return 0, p.refuse(n, "across samples")
	}
	return at, nil
}

// same reports whether two sizes are one; a batch of one sample counts for nothing.
func (p *parser) same(x, y size) bool { return x.n == y.n && (x.batch == y.batch || p.batch == 1) }

// sameSamples reports whether two splits of alike dimensions have the batch in one place,
// where that matters.
func (p *parser) sameSamples(s, t *split) bool {
	if p.batch == 1 {
		return true
	}
	i, before := s.samples()
	j, other := t.samples()
	return i == j && before == other
}

// together returns two values of one rank, one of which is a split, with their dimensions
// along the same axes.
func (p *parser) together(n *node, a, b operand) (operand, operand, error) {
	s, t := a.view(), b.view()
	if a.split != nil && b.split != nil && a.shape == b.shape && slices.Equal(s.parts, t.parts) && slices.EqualFunc(s.dims, t.dims, slices.Equal) {
		return a, b, nil
	}
	if !p.sameSamples(s, t) {
		return a, b, p.refuse(n, "values of unlike shapes")
	}
	// Along H what one has a single element of, as Suits has it of an axis.
	var c, h, w []int
	for i := range s.dims {
		x, y := s.size(i), t.size(i)
		switch {
		case x.n != y.n && (x.n != 1 && y.n != 1 || x.batch && p.batch != 1):
			return a, b, p.refuse(n, "values of unlike shapes")
		case i == len(s.dims)-1:
			c = []int{i}
		case x.n != y.n:
			h = append(h, i)
		case x.n != 1:
			w = append(w, i)
		}
	}
	a, err := p.placed(a, c, h, w)
	if err == nil {
		b, err = p.placed(b, c, h, w)
	}
	return a, b, err
}
