package reference

import (
	"fmt"
	"math"

	_ "go4.org/unsafe/assume-no-moving-gc" // pins the version that starts on this Go
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/securenets/securenets/internal/graph"
)

// UnsupportedError names an operator that gorgonia does not compute.
type UnsupportedError struct {
	Op     string // the operator's name
	Reason string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s is not supported: %s", e.Op, e.Reason)
}

// Expression is a network as gorgonia's expression graph, for one batch size.
// Every value of the network is a tensor of N x C x H x W; a vector has H = W = 1.
type Expression struct {
	Graph         *gorgonia.ExprGraph
	Input, Output *gorgonia.Node
	// Params are the weights and biases, in the order of the network's nodes.
	Params gorgonia.Nodes

	store []func() // one per parameter: writes it back to the network
}

// Express builds g for batches of n samples. The weights are copied; Store writes a solver's
// changes back.
func Express(g *graph.Graph, n int) (*Expression, error) {
	if n < 1 {
		return nil, fmt.Errorf("reference: batch of %d", n)
	}
	shapes, err := g.Shapes()
	if err != nil {
		return nil, err
	}
	e := &Expression{Graph: gorgonia.NewGraph()}
	e.Input = gorgonia.NewTensor(e.Graph, tensor.Float32, 4, gorgonia.WithName("input"),
		gorgonia.WithShape(n, g.Input.C, g.Input.H, g.Input.W))
	values := []*gorgonia.Node{e.Input}
	for i, node := range g.Nodes {
		y, err := e.apply(i, node.Op, values[node.Inputs[0]], shapes[i+1])
		if err != nil {
			return nil, fmt.Errorf("reference: node %d, %s: %w", i, node.Op.Name(), err)
		}
		values = append(values, y)
	}
	e.Output = values[g.Output]
	return e, nil
}

// Store writes the parameters' present values into the network given to Express.
func (e *Expression) Store() {
	for _, store := range e.store {
		store()
	}
}

// apply returns operator i of x. out is the shape of one sample of the result.
func (e *Expression) apply(i int, op graph.Op, x *gorgonia.Node, out graph.Shape) (*gorgonia.Node, error) {
	switch op := op.(type) {
	case *graph.Dense:
		return e.dense(i, op, x)
	case *graph.Conv2D:
		return e.conv(i, op, x)
	case graph.ReLU:
		return gorgonia.Rectify(x)
	case graph.Square:
		return gorgonia.Square(x)
	case graph.MaxPool:
		return e.maxPool(i, op, x)
	case graph.AvgPool:
		return e.avgPool(i, op, x, out)
	case graph.Reshape:
		return gorgonia.Reshape(x, tensor.Shape{x.Shape()[0], op.To.C, op.To.H, op.To.W})
	case graph.Softmax:
		return gorgonia.SoftMax(x, 1)
	}
	return nil, &UnsupportedError{Op: op.Name(), Reason: "unknown operator"}
}

func (e *Expression) dense(i int, op *graph.Dense, x *gorgonia.Node) (*gorgonia.Node, error) {
	n := x.Shape()[0]
	x, err := gorgonia.Reshape(x, tensor.Shape{n, op.In})
	if err != nil {
		return nil, err
	}
	// The node holds the transpose of W, so that its product with x is x Wᵀ.
	w := e.param(fmt.Sprintf("weights %d", i), tensor.Shape{op.In, op.Out}, op.W, func(j int) int {
		return j%op.Out*op.In + j/op.Out
	})
	y, err := gorgonia.Mul(x, w)
	if err != nil {
		return nil, err
	}
	if op.B != nil {
		b := e.param(fmt.Sprintf("bias %d", i), tensor.Shape{1, op.Out}, op.B, identity)
		if y, err = gorgonia.BroadcastAdd(y, b, nil, []byte{0}); err != nil {
			return nil, err
		}
	}
	return gorgonia.Reshape(y, tensor.Shape{n, op.Out, 1, 1})
}

func (e *Expression) conv(i int, op *graph.Conv2D, x *gorgonia.Node) (*gorgonia.Node, error) {
	c := op.Geometry
	if c.Groups != 1 {
		return nil, &UnsupportedError{Op: op.Name(), Reason: fmt.Sprintf("%d groups", c.Groups)}
	}
	x, pad, err := e.pad(i, x, c.Top, c.Left, c.Bot, c.Right, 0)
	if err != nil {
		return nil, err
	}
	w := e.param(fmt.Sprintf("weights %d", i), tensor.Shape{c.OutC, c.C, c.KH, c.KW}, op.W, func(j int) int {
		// From O, I, H, W order to O, H, W, I.
		j, kw := j/c.KW, j%c.KW
		j, kh := j/c.KH, j%c.KH
		o, in := j/c.C, j%c.C
		return ((o*c.KH+kh)*c.KW+kw)*c.C + in
	})
	y, err := gorgonia.Conv2d(x, w, tensor.Shape{c.KH, c.KW}, pad, []int{c.SH, c.SW}, []int{c.DH, c.DW})
	if err != nil || op.B == nil {
		return y, err
	}
	b := e.param(fmt.Sprintf("bias %d", i), tensor.Shape{1, c.OutC, 1, 1}, op.B, identity)
	return gorgonia.BroadcastAdd(y, b, nil, []byte{0, 2, 3})
}

func (e *Expression) maxPool(i int, op graph.MaxPool, x *gorgonia.Node) (*gorgonia.Node, error) {
	x, pad, err := e.pad(i, x, op.Top, op.Left, op.Bot, op.Right, -math.MaxFloat32)
	if err != nil {
		return nil, err
	}
	return gorgonia.MaxPool2D(x, tensor.Shape{op.KH, op.KW}, pad, []int{op.SH, op.SW})
}

// avgPool sums over the window by a convolution of each channel with ones, then divides:
// gorgonia v0.9.18's AveragePool2D divides by the map's width.
func (e *Expression) avgPool(i int, op graph.AvgPool, x *gorgonia.Node, out graph.Shape) (*gorgonia.Node, error) {
	n, c, h, w := x.Shape()[0], x.Shape()[1], x.Shape()[2], x.Shape()[3]
	x, err := gorgonia.Reshape(x, tensor.Shape{n * c, 1, h, w})
	if err != nil {
		return nil, err
	}
	x, pad, err := e.pad(i, x, op.Top, op.Left, op.Bot, op.Right, 0)
	if err != nil {
		return nil, err
	}
	ones := e.constant(fmt.Sprintf("window %d", i), tensor.Shape{1, 1, op.KH, op.KW}, func(int) float32 { return 1 })
	sum, err := gorgonia.Conv2d(x, ones, tensor.Shape{op.KH, op.KW}, pad, []int{op.SH, op.SW}, []int{1, 1})
	if err != nil {
		return nil, err
	}
	// inside returns how much of a window at p of size k lies in [0, size).
	inside := func(p, k, size int) int { return min(p+k, size) - max(p, 0) }
	counts := e.constant(fmt.Sprintf("counts %d", i), sum.Shape(), func(j int) float32 {
		if op.CountPad {
			return float32(op.KH * op.KW)
		}
		y, x := j/out.W%out.H, j%out.W
		return float32(inside(y*op.SH-op.Top, op.KH, h) * inside(x*op.SW-op.Left, op.KW, w))
	})
	mean, err := gorgonia.HadamardDiv(sum, counts)
	if err != nil {
		return nil, err
	}
	return gorgonia.Reshape(mean, tensor.Shape{n, c, out.H, out.W})
}

// pad returns x and the padding for an operator of gorgonia, which must be symmetric. If it is
// not, x is padded here.
func (e *Expression) pad(i int, x *gorgonia.Node, top, left, bot, right int, value float32) (*gorgonia.Node, []int, error) {
	if top == bot && left == right {
		return x, []int{top, left}, nil
	}
	// Axis 2 counts rows, axis 3 columns.
	for _, edge := range []struct {
		name       string
		axis, size int
		before     bool
	}{{"top", 2, top, true}, {"left", 3, left, true}, {"bottom", 2, bot, false}, {"right", 3, right, false}} {
		if edge.size == 0 {
			continue
		}
		shape := x.Shape().Clone()
		shape[edge.axis] = edge.size
		first, second := e.constant(fmt.Sprintf("%s %d", edge.name, i), shape, func(int) float32 { return value }), x
		if !edge.before {
			first, second = second, first
		}
		var err error
		if x, err = gorgonia.Concat(edge.axis, first, second); err != nil {
			return nil, nil, err
		}
	}
	return x, []int{0, 0}, nil
}

// constant adds a node whose element j is at(j).
func (e *Expression) constant(name string, shape tensor.Shape, at func(j int) float32) *gorgonia.Node {
	data := make([]float32, shape.TotalSize())
	for j := range data {
		data[j] = at(j)
	}
	return gorgonia.NewTensor(e.Graph, tensor.Float32, len(shape), gorgonia.WithName(name),
		gorgonia.WithShape(shape...), gorgonia.WithValue(tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))))
}

// param adds a node whose element j is values[at(j)].
func (e *Expression) param(name string, shape tensor.Shape, values []float32, at func(j int) int) *gorgonia.Node {
	node := e.constant(name, shape, func(j int) float32 { return values[at(j)] })
	e.Params = append(e.Params, node)
	e.store = append(e.store, func() {
		for j, v := range node.Value().Data().([]float32) {
			values[at(j)] = v
		}
	})
	return node
}

func identity(j int) int { return j }
