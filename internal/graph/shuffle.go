package graph

import "slices"

// refined returns t's axes divided where a sample of shape s, or the result, goes over from channels
// to positions, and how many of them, of the sample and of the result, are channels; or false,
// where that is in the midst of an axis.
func (t *Transpose) refined(s Shape) (dims, perm []int, from, to int, ok bool) {
	dims, perm = slices.Clone(t.Dims), slices.Clone(t.Perm)
	divide := func(order func(int) int, positions int) (int, bool) {
		i := len(dims)
		for ; positions > 1; i-- {
			a := order(i - 1)
			d := dims[a]
			if d <= positions {
				if positions%d != 0 {
					return 0, false
				}
				positions /= d
				continue
			}
			if d%positions != 0 {
				return 0, false
			}
			// Axis a becomes a and a+1, the second of positions alone.
			dims = slices.Insert(dims, a, d/positions)
			dims[a+1] = positions
			for k, v := range perm {
				if v > a {
					perm[k]++
				}
			}
			perm = slices.Insert(perm, slices.Index(perm, a)+1, a+1)
			return i, true
		}
		return i, true
	}
	if from, ok = divide(func(i int) int { return i }, s.H*s.W); !ok {
		return nil, nil, 0, 0, false
	}
	before := len(dims)
	if to, ok = divide(func(i int) int { return perm[i] }, t.To.H*t.To.W); !ok {
		return nil, nil, 0, 0, false
	}
	if len(dims) > before { // a channels' axis of the sample may have been divided
		from = channelAxes(dims, s.C)
	}
	return dims, perm, from, to, true
}

// channelAxes returns how many of the first axes have as many elements as there are channels.
func channelAxes(dims []int, c int) (n int) {
	for p := 1; p < c; n++ {
		p *= dims[n]
	}
	return n
}

// A run is an axis of a result in memory: its extent and how far apart its elements lie in the sample.
type run struct{ extent, stride int }

// runs returns the axes of the result of a sample of shape s, the last one side by side in memory,
// or nil where it has none. As few as can be: none is 1, and no two can be one.
func (t *Transpose) runs(s Shape) []run {
	dims, perm, from, to, ok := t.refined(s)
	if !ok {
		return nil
	}
	// In memory, channels come last.
	strides, stride := make([]int, len(dims)), 1
	for i := from - 1; i >= 0; i-- {
		strides[i], stride = stride, stride*dims[i]
	}
	for i := len(dims) - 1; i >= from; i-- {
		strides[i], stride = stride, stride*dims[i]
	}
	var runs []run
	for _, a := range slices.Concat(perm[to:], perm[:to]) {
		r := run{dims[a], strides[a]}
		if k := len(runs) - 1; k >= 0 && runs[k].stride == r.extent*r.stride {
			runs[k] = run{runs[k].extent * r.extent, r.stride}
		} else if r.extent > 1 {
			runs = append(runs, r)
		}
	}
	return runs
}

// gather sets dst to the elements of src along runs.
func gather(dst, src []float32, runs []run) []float32 {
	r := runs[0]
	switch {
	case len(runs) == 1 && r.stride == 1:
		copy(dst[:r.extent], src)
		return dst[r.extent:]
	case len(runs) == 1:
		d := dst[:r.extent]
		for i := range d {
			d[i] = src[i*r.stride]
		}
		return dst[r.extent:]
	case len(runs) == 2 && runs[1].extent < min(r.extent, 8):
		// The longer loop is the inner one.
		for j := range runs[1].extent {
			from := src[j*runs[1].stride:]
			for i, at := 0, j; i < r.extent; i, at = i+1, at+runs[1].extent {
				dst[at] = from[i*r.stride]
			}
		}
		return dst[r.extent*runs[1].extent:]
	}
	for i := range r.extent {
		dst = gather(dst, src[i*r.stride:], runs[1:])
	}
	return dst
}

// throughMoves joins convolutions and the Affines behind Transposes and Slices of their results.
func throughMoves(g *Graph) *Graph {
	if !slices.ContainsFunc(g.Nodes, func(n Node) bool {
		if _, scales := n.Op.(*Affine); scales && n.Inputs[0] > 0 {
			switch g.Nodes[n.Inputs[0]-1].Op.(type) {
			case *Transpose, Slice:
				return true
			}
		}
		return false
	}) {
		return g
	}
	readers := g.readers()
	out := &Graph{Input: g.Input, Parts: g.Parts, Results: g.Results}
	to := make([]Value, len(g.Nodes)+1) // from a value of g to out's
	uses := []int{readers[0]}           // readers of out's values
	for i, n := range g.Nodes {
		inputs := make([]Value, len(n.Inputs))
		for k, v := range n.Inputs {
			inputs[k] = to[v]
		}
		if a, ok := n.Op.(*Affine); ok && out.absorbBefore(inputs[0], a, uses) {
			to[i+1], uses[inputs[0]] = inputs[0], readers[i+1]
			continue
		}
		out.Nodes = append(out.Nodes, Node{n.Op, inputs})
		uses = append(uses, readers[i+1])
		to[i+1] = Value(len(out.Nodes))
	}
	out.Output = to[g.Output]
	return out
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
