package graph

import (
	"slices"

	"github.com/securenets/securenets/plan"
)

// Simplify returns a graph of the same function, up to rounding, without the
// nodes that its output does not depend on, and with every Affine folded that
// directly follows an operator whose result nothing else reads, if that is
//
//	a linear one:      into its weights and bias,
//	another Affine:    into one,
//	an AvgPool:        into a SumPool, where its scale is the window's size.
//
// An Affine goes into a convolution before it also where no more than a few Transposes and Slices
// that keep channels together lie between, as behind the convolution that a transposed one is read as.
//
// An ElementAffine that gives all positions the same is an Affine, and one that follows
// another of its extent joins it.
//
// A Reshape that reads a Reshape reads what that reads, and goes where it then does nothing.
//
// A Pad with zeros around a map goes into the padding of a convolution that reads it.
// A MaxPool that alone reads a ReLU or Clip goes before it: these keep the order of
// values, so that results are the same, of fewer of them. A Slice of rows and columns that alone
// reads convolutions of 1 x 1 goes before them, too: of a decoder's logits, say, only those of the
// last token are then computed.
//
// g must be valid but for values that nothing reads, and is left as it is.
func Simplify(g *Graph) *Graph {
	g = reshapeOnce(g)
	g = padInto(g)
	g = alikeEverywhere(g)
	g = fold(g, combine) // Affines among themselves first, so that each linear operator is changed once
	g = fold(g, absorb)
	g = throughMoves(g)
	g = poolFirst(g)
	return slicesFirst(g)
}

// A rewriting is a graph in the making, of the nodes of another in their order.
type rewriting struct {
	*Graph
	to []Value // the other's values in this graph; 0 for those that are left out
}

// rewrite returns a graph of g's inputs and outputs without nodes.
func (g *Graph) rewrite() *rewriting {
	return &rewriting{&Graph{Input: g.Input, Parts: g.Parts, Results: g.Results}, make([]Value, len(g.Nodes)+1)}
}

// inputs returns the values that a node of the other graph reads, in this graph.
func (r *rewriting) inputs(n Node) []Value {
	inputs := make([]Value, len(n.Inputs))
	for k, v := range n.Inputs {
		inputs[k] = r.to[v]
	}
	return inputs
}

// add appends a node, which stands for node i of the other graph.
func (r *rewriting) add(i int, op Op, inputs []Value) {
	r.Nodes = append(r.Nodes, Node{op, inputs})
	r.to[i+1] = Value(len(r.Nodes))
}

// done returns the graph, whose output is that of g.
func (r *rewriting) done(g *Graph) *Graph {
	r.Output = r.to[g.Output]
	return r.Graph
}

// reshapeOnce returns g with one Reshape at most between other operators.
func reshapeOnce(g *Graph) *Graph {
	if !slices.ContainsFunc(g.Nodes, isReshape) {
		return g
	}
	out, shapes := g.rewrite(), []Shape{g.Input} // of out's values
	for i, n := range g.Nodes {
		inputs := out.inputs(n)
		shape, _ := n.Op.OutShape(Node{n.Op, inputs}.shapesOf(shapes)...) // which is valid
		if isReshape(n) {
			if v := inputs[0]; v > 0 && isReshape(out.Nodes[v-1]) { // which reads none itself
				inputs[0] = out.Nodes[v-1].Inputs[0]
			}
			if v := inputs[0]; shapes[v] == shape && (v > 0 || Value(i+1) != g.Output) {
				out.to[i+1] = v
				continue
			}
		}
		out.add(i, n.Op, inputs)
		shapes = append(shapes, shape)
	}
	return out.done(g)
}

func isReshape(n Node) bool {
	_, ok := n.Op.(Reshape)
	return ok
}

// padInto returns g with convolutions that do the padding that a Pad before them does.
func padInto(g *Graph) *Graph {
	out := &Graph{g.Input, g.Parts, slices.Clone(g.Nodes), g.Output, g.Results}
	for i, n := range out.Nodes {
		c, ok := n.Op.(*Conv2D)
		for ok && n.Inputs[0] > 0 {
			before := g.Nodes[n.Inputs[0]-1]
			p, pads := before.Op.(Pad)
			if !pads || p.Value != 0 || p.Before.C != 0 || p.After.C != 0 {
				break
			}
			r := c.Geometry
			r.H, r.Top, r.Bot = r.H-p.Before.H-p.After.H, r.Top+p.Before.H, r.Bot+p.After.H
			r.W, r.Left, r.Right = r.W-p.Before.W-p.After.W, r.Left+p.Before.W, r.Right+p.After.W
			if plan.Conv(r).Validate() != nil { // for padding as large as the kernel, say
				break
			}
			c = &Conv2D{r, c.W, c.From, c.B}
			n = Node{c, before.Inputs}
			out.Nodes[i] = n
		}
	}
	return out
}

// alikeEverywhere makes Affines of what gives all positions the same, in place.
func alikeEverywhere(g *Graph) *Graph {
	shapes := make([]Shape, 1, len(g.Nodes)+1)
	shapes[0] = g.Input
	for i, n := range g.Nodes {
		out, _ := n.Op.OutShape(n.shapesOf(shapes)...) // which is valid
		shapes = append(shapes, out)
		if e, ok := n.Op.(*ElementAffine); ok && e.Extent.H == 1 && e.Extent.W == 1 && !e.masks() {
			a := new(Affine)
			if e.Scale != nil {
				a.Scale = slices.Repeat(e.Scale, out.C/e.Extent.C)
			}
			if e.Shift != nil {
				a.Shift = slices.Repeat(e.Shift, out.C/e.Extent.C)
			}
			g.Nodes[i].Op = a
		}
	}
	return g
}

// moves is how many nodes others are moved before, by node of a graph at most: many behind as
// many would take time by their square.
const moves = 16

// poolFirst moves each MaxPool before those of ReLU and Clip that it alone reads, in place.
func poolFirst(g *Graph) *Graph {
	readers, left := g.readers(), moves*len(g.Nodes)
	for i := range g.Nodes {
		for n := &g.Nodes[i]; left > 0; left-- {
			v := n.Inputs[0]
			if _, pools := n.Op.(MaxPool); !pools || v == 0 || readers[v] > 1 {
				break
			}
			before := &g.Nodes[v-1]
			switch before.Op.(type) {
			case ReLU, Clip:
				before.Op, n.Op = n.Op, before.Op
			}
			n = before
		}
	}
	return g
}

// slicesFirst moves each Slice of rows and columns before those convolutions of 1 x 1 that it alone
// reads, in place.
func slicesFirst(g *Graph) *Graph {
	readers, left := g.readers(), moves*len(g.Nodes)
	for i := range g.Nodes {
		for n := &g.Nodes[i]; left > 0; left-- {
			s, slices := n.Op.(Slice)
			v := n.Inputs[0]
			if !slices || v == 0 || readers[v] > 1 {
				break
			}
			before := &g.Nodes[v-1]
			c, ok := before.Op.(*Conv2D)
			if !ok || s.C != (Range{To: c.Geometry.OutC}) {
				break
			}
			r := c.Geometry
			if r.KH*r.KW*r.SH*r.SW != 1 || r.Top|r.Left|r.Bot|r.Right != 0 {
				break
			}
			before.Op = Slice{H: s.H, W: s.W, C: Range{To: r.C}}
			r.H, r.W = s.H.To-s.H.From, s.W.To-s.W.From
			n.Op = &Conv2D{r, c.W, c.From, c.B}
			n = before
		}
	}
	return g
}

// readers returns how many nodes read each value, the output being read once more; what no
// result depends on reads nothing.
func (g *Graph) readers() []int {
	readers := make([]int, len(g.Nodes)+1)
	readers[g.Output] = 1
	for i := len(g.Nodes) - 1; i >= 0; i-- {
		if readers[i+1] > 0 {
			for _, v := range g.Nodes[i].Inputs {
				readers[v]++
			}
		}
	}
	return readers
}
