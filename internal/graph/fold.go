package graph

import "slices"

// A join returns an operator that does what op and then a do, but for what it
// leaves over of a, if anything; or nil, where there is none.
type join func(op Op, a *Affine) (Op, *Affine)

// fold prunes g, and joins operators and the Affines behind them, and ElementAffines of one extent.
func fold(g *Graph, j join) *Graph {
	out, readers := g.rewrite(), g.readers()
	for i, n := range g.Nodes {
		if readers[i+1] == 0 {
			continue
		}
		op, inputs := n.Op, out.inputs(n)
		if v := n.Inputs[0]; v > 0 && readers[v] == 1 {
			before := &out.Nodes[inputs[0]-1]
			var joined Op
			var rest *Affine
			switch a := op.(type) {
			case *Affine:
				joined, rest = j(before.Op, a)
			case *ElementAffine:
				joined = joinElements(before.Op, a)
			}
			if joined != nil {
				before.Op = joined
				if rest == nil {
					out.to[i+1] = inputs[0]
					continue
				}
				op = rest
			}
		}
		out.add(i, op, inputs)
	}
	return out.done(g)
}

// joinElements joins an ElementAffine and another behind it, of its extent, unless one masks: minus
// infinity times 0 is NaN.
func joinElements(op Op, a *ElementAffine) Op {
	before, ok := op.(*ElementAffine)
	if !ok || before.Extent != a.Extent || before.masks() || a.masks() {
		return nil
	}
	scale, shift := (&Affine{a.Scale, a.Shift}).after(before.Scale, before.Shift)
	return &ElementAffine{a.Extent, scale, shift}
}

// throughMoves joins convolutions and the Affines behind Transposes and Slices of their results.
func throughMoves(g *Graph) *Graph {
	if !slices.ContainsFunc(g.Nodes, g.scalesMoved) {
		return g
	}
	out, readers := g.rewrite(), g.readers()
	uses := []int{readers[0]} // readers of out's values
	for i, n := range g.Nodes {
		inputs := out.inputs(n)
		if a, ok := n.Op.(*Affine); ok && out.absorbBefore(inputs[0], a, uses) {
			out.to[i+1], uses[inputs[0]] = inputs[0], readers[i+1]
			continue
		}
		out.add(i, n.Op, inputs)
		uses = append(uses, readers[i+1])
	}
	return out.done(g)
}

// scalesMoved reports whether n is an Affine of what a Transpose or a Slice gives.
func (g *Graph) scalesMoved(n Node) bool {
	if _, scales := n.Op.(*Affine); scales && n.Inputs[0] > 0 {
		switch g.Nodes[n.Inputs[0]-1].Op.(type) {
		case *Transpose, Slice:
			return true
		}
	}
	return false
}

// maxMoves bounds the operators between an Affine and its convolution, and so how often one changes.
const maxMoves = 3

// absorbBefore joins a, of value v, to a convolution whose result v is part of in another order, and
// reports whether there is one and nothing else reads it.
func (g *Graph) absorbBefore(v Value, a *Affine, uses []int) bool {
	var moves []Op // the last one first
	for ; v > 0 && uses[v] == 1 && len(moves) <= maxMoves; v = g.Nodes[v-1].Inputs[0] {
		switch op := g.Nodes[v-1].Op.(type) {
		case *Transpose, Slice:
			moves = append(moves, op)
		case *Conv2D:
			scale, shift, ok := a.before(moves, Shape{op.Geometry.OutH(), op.Geometry.OutW(), op.Geometry.OutC})
			if ok && len(moves) > 0 {
				g.Nodes[v-1].Op, _ = absorb(op, &Affine{scale, shift})
			}
			return ok && len(moves) > 0
		default:
			return false
		}
	}
	return false
}

// before returns the scale and shift of a sample of shape s that, before moves of it, do what a
// does after them, if there are any.
func (a *Affine) before(moves []Op, s Shape) (scale, shift []float32, ok bool) {
	scale, shift = a.Scale, a.Shift
	shapes := []Shape{s}
	for _, op := range slices.Backward(moves) {
		s, _ = op.OutShape(s) // which is valid
		shapes = append(shapes, s)
	}
	for i, op := range moves {
		in := shapes[len(moves)-1-i]
		if in.C > shapes[0].C { // more memory than the convolution's own
			return nil, nil, false
		}
		if t, transposes := op.(*Transpose); transposes {
			if scale, ok = t.channels(in, scale); ok {
				shift, ok = t.channels(in, shift)
			}
		} else {
			ok = op.(Slice).C == Range{0, in.C}
		}
		if !ok {
			return nil, nil, false
		}
	}
	return scale, shift, true
}

// channels returns values of the result's channels by the channels of a sample of shape s, if one of
// those goes to one channel alone.
func (t *Transpose) channels(s Shape, v []float32) ([]float32, bool) {
	dims, perm, from, to, ok := t.refined(s)
	if !ok || slices.ContainsFunc(perm[:to], func(a int) bool { return a >= from }) {
		return nil, false
	}
	if v == nil {
		return nil, true
	}
	u := make([]float32, s.C)
	index := make([]int, from)
	for c := range u {
		rest := c
		for a := from - 1; a >= 0; a-- {
			index[a], rest = rest%dims[a], rest/dims[a]
		}
		k := 0
		for _, a := range perm[:to] {
			k = k*dims[a] + index[a]
		}
		u[c] = v[k]
	}
	return u, true
}

// combine joins an Affine or an AvgPool and an Affine.
func combine(op Op, a *Affine) (Op, *Affine) {
	switch op := op.(type) {
	case *Affine:
		scale, shift := a.after(op.Scale, op.Shift)
		return &Affine{scale, shift}, nil
	case AvgPool:
		size := float32(op.KH * op.KW)
		pads := op.Top|op.Left|op.Bot|op.Right != 0
		if a.Scale == nil || pads && !op.CountPad || slices.ContainsFunc(a.Scale, func(v float32) bool { return v != size }) {
			break
		}
		if a.Shift == nil {
			return SumPool{op.Pool}, nil
		}
		return SumPool{op.Pool}, &Affine{Shift: a.Shift}
	}
	return nil, nil
}

// absorb joins a linear operator and an Affine, or what combine does.
func absorb(op Op, a *Affine) (Op, *Affine) {
	switch op := op.(type) {
	case *Dense:
		_, b := a.after(nil, op.B)
		return &Dense{op.In, op.Out, scaleRows(op.W, a.Scale), scaleStored(op.From, a.Scale), b}, nil
	case *Conv2D:
		_, b := a.after(nil, op.B)
		return &Conv2D{op.Geometry, scaleRows(op.W, a.Scale), scaleStored(op.From, a.Scale), b}, nil
	}
	return combine(op, a)
}

// after returns the scale and shift of a(s x + t) + b. Each step is rounded, so
// that it makes no difference whether a comes whole or as its scale and its shift.
func (a *Affine) after(s, t []float32) (scale, shift []float32) {
	scale, shift = slices.Clone(s), slices.Clone(t)
	if scale == nil {
		scale = slices.Clone(a.Scale)
	} else {
		multiply(scale, a.Scale)
	}
	multiply(shift, a.Scale)
	if shift == nil {
		return scale, slices.Clone(a.Shift)
	}
	for i, v := range a.Shift {
		shift[i] += v
	}
	return scale, shift
}

// multiply multiplies v by the elements of by. Either may be nil.
func multiply(v, by []float32) {
	for i := range min(len(v), len(by)) {
		v[i] *= by[i]
	}
}

// scaleRows returns the matrix w with row i times scale[i]. A nil scale is 1.
func scaleRows(w, scale []float32) []float32 {
	if w == nil || scale == nil {
		return w
	}
	u := slices.Clone(w)
	timesRows(u, scale)
	return u
}

// scaleStored is scaleRows of what is read.
func scaleStored(read Source, scale []float32) Source {
	if read == nil || scale == nil {
		return read
	}
	return func(dst []float32) error {
		if err := read(dst); err != nil {
			return err
		}
		timesRows(dst, scale)
		return nil
	}
}

// timesRows multiplies row i of w by scale[i].
func timesRows(w, scale []float32) {
	terms := len(w) / len(scale)
	for i, s := range scale {
		for j := range w[i*terms:][:terms] {
			w[i*terms+j] *= s
		}
	}
}
