package graph

import "slices"

// Simplify returns a graph of the same function, up to rounding, without the
// nodes that its output does not depend on, and with every Affine folded that
// directly follows an operator whose result nothing else reads, if that is
//
//	a linear one:      into its weights and bias,
//	another Affine:    into one,
//	an AvgPool:        into a SumPool, where it takes the mean back.
//
// g must be valid but for values that nothing reads, and is left as it is.
func Simplify(g *Graph) *Graph {
	// First among themselves, so that each linear operator is changed once.
	return fold(fold(g, combine), absorb)
}

// fold prunes g, and replaces each pair of an operator and an Affine behind it
// by what join returns, unless that is nil.
func fold(g *Graph, join func(Op, *Affine) Op) *Graph {
	readers := make([]int, len(g.Nodes)+1)
	readers[g.Output] = 1
	for i := len(g.Nodes) - 1; i >= 0; i-- {
		if readers[i+1] > 0 {
			for _, v := range g.Nodes[i].Inputs {
				readers[v]++
			}
		}
	}
	out := &Graph{Input: g.Input}
	to := make([]Value, len(g.Nodes)+1) // from a value of g to out's
	for i, n := range g.Nodes {
		if readers[i+1] == 0 {
			continue
		}
		if a, ok := n.Op.(*Affine); ok && n.Inputs[0] > 0 && readers[n.Inputs[0]] == 1 {
			v := to[n.Inputs[0]]
			if op := join(out.Nodes[v-1].Op, a); op != nil {
				out.Nodes[v-1].Op, to[i+1] = op, v
				continue
			}
		}
		inputs := make([]Value, len(n.Inputs))
		for j, v := range n.Inputs {
			inputs[j] = to[v]
		}
		out.Nodes = append(out.Nodes, Node{n.Op, inputs})
		to[i+1] = Value(len(out.Nodes))
	}
	out.Output = to[g.Output]
	return out
}

// combine returns a after op as one, if op is an Affine.
func combine(op Op, a *Affine) Op {
	if first, ok := op.(*Affine); ok {
		scale, shift := a.after(first.Scale, first.Shift)
		return &Affine{scale, shift}
	}
	return nil
}

// absorb returns a after op as one of op's kind, or nil.
func absorb(op Op, a *Affine) Op {
	switch op := op.(type) {
	case *Dense:
		_, b := a.after(nil, op.B)
		return &Dense{op.In, op.Out, scaleRows(op.W, a.Scale), b}
	case *Conv2D:
		_, b := a.after(nil, op.B)
		return &Conv2D{op.Geometry, scaleRows(op.W, a.Scale), b}
	case AvgPool:
		size := float32(op.KH * op.KW)
		whole := op.CountPad || op.Top|op.Left|op.Bot|op.Right == 0
		if whole && a.Shift == nil && !slices.ContainsFunc(a.Scale, func(v float32) bool { return v != size }) {
			return SumPool{op.Pool}
		}
	}
	return nil
}

// scaleRows returns the matrix w with row i times scale[i]. A nil scale is 1.
func scaleRows(w, scale []float32) []float32 {
	if w == nil || scale == nil {
		return w
	}
	u := make([]float32, len(w))
	for i, s := range scale {
		terms := len(w) / len(scale)
		for j, v := range w[i*terms:][:terms] {
			u[i*terms+j] = s * v
		}
	}
	return u
}
