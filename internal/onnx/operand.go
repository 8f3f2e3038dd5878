package onnx

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// What the names of a model stand for, and how operators read their inputs: any takes all that a name
// may be, operand all but what the samples share, constant and viewed one kind each, and variable a
// value whose dimensions are along axes.

// operand is what a name stands for: a constant, one for each sample, a part of a shape, a value of
// the graph, or the zero operand, the result of a node that is not supported.
type operand struct {
	constant *tensor
	shared   bool    // a constant that has for its first dimension of 1 one of the batch's size
	steps    []int64 // by how much its elements change from sample to sample, or nil for not at all
	sizes    *sizes  // a part of a shape, or what is computed of one
	common   *common // a constant with the samples in any dimension

	known bool // a value of the graph: the fields below are set
	value graph.Value
	shape graph.Shape
	// The dimensions: along these axes after the batch, or else a split.
	axes  []axis
	split *split
	wide  *graph.Shape // what an Expand makes of the shape, or nil

	// What is known of the elements, which movement keeps (see alike).
	truth    *truth   // where the value is or is not above 0, as a comparison gives; or nil
	whole    bool     // integers, of which only exact operators compute before they are floats
	bounds   [2]int64 // of integers: the least and the largest
	part     int      // 1 + the number of the graph's part that the elements are of, or 0; it is of integers
	masked   bool     // it may be negative infinity, see passes
	softened bool     // what a softmax gives, never NaN
}

// bare returns x as a value alone, of which no dimensions are known.
func (x operand) bare() operand { return operand{value: x.value, shape: x.shape} }

// alike notes that o's elements are x's.
func (o *operand) alike(x operand) {
	o.truth, o.whole, o.part, o.softened, o.bounds, o.masked = x.truth, x.whole, x.part, x.softened, x.bounds, x.masked
}

// any returns what operand does, and what is shared by the samples too.
func (p *parser) any(n *node, i int) (operand, error) {
	if !n.has(i) {
		return operand{}, fmt.Errorf("%w: no input %d", ErrInvalid, i)
	}
	o := p.operands[n.inputs[i]]
	if o.common != nil {
		if !slices.Contains(readsCommon, n.op) {
			return o, p.refuse(n, "of what is expanded")
		}
		return o, nil
	}
	if !o.known && o.constant == nil && o.sizes == nil {
		return o, errSkip
	}
	if t := o.constant; t != nil && t.of != nil && n.op != "Identity" && (i != 1 || n.op != "MatMul" && n.op != "Gemm") {
		// What is no matrix of weights is held in memory.
		var err error
		if o.constant, err = p.transposed(n, t.of, []int{1, 0}); err != nil {
			return o, err
		}
		p.operands[n.inputs[i]] = o
	}
	if o.truth != nil && !movement[n.op] && !slices.Contains([]string{"And", "Or", "Not", "Where", "Cast", "Shape"}, n.op) {
		return o, p.refuse(n, "of a comparison")
	}
	return o, nil
}

// operand returns input i of n, which must be given.
func (p *parser) operand(n *node, i int) (operand, error) {
	o, err := p.any(n, i)
	if err == nil && o.shared {
		return o, p.refuse(n, "of what is expanded")
	}
	return o, err
}

// constant returns input i of n, which must be a constant.
func (p *parser) constant(n *node, i int) (*tensor, error) {
	o, err := p.operand(n, i)
	if err != nil {
		return nil, err
	}
	if o.constant == nil {
		return nil, p.refuse(n, "input %d not constant", i)
	}
	return o.constant, nil
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
	default:
		return p.widened(o)
	}
	return o, err
}

// variable returns input i of n, which must be a value of the graph, of the
// given rank unless that is 0. With a rank its dimensions are in ONNX's order.
func (p *parser) variable(n *node, i, rank int) (operand, error) {
	o, err := p.viewed(n, i)
	if err != nil {
		return o, err
	}
	if rank != 0 && o.rank() != rank {
		return o, fmt.Errorf("%w: input of rank %d, want %d", ErrInvalid, o.rank(), rank)
	}
	if o, err = p.plain(n, o); err != nil || rank == 0 {
		return o, err
	}
	return p.ordered(o)
}

// plain returns x, which n reads, with axes.
func (p *parser) plain(n *node, x operand) (operand, error) {
	r := x.rank()
	x, ok, err := p.settled(x)
	switch {
	case err != nil || ok:
		return x, err
	case r > len(canonical) || r < 2:
		return x, p.refuse(n, "input of rank %d", r)
	}
	return x, p.refuse(n, "across samples")
}

// apply appends a node that reads x to the graph. Its output has the given axes, or the
// dimensions of the first of x if that is a split of its shape.
func (p *parser) apply(op graph.Op, axes []axis, x ...operand) (operand, error) {
	values, shapes := make([]graph.Value, len(x)), make([]graph.Shape, len(x))
	for i, o := range x {
		values[i], shapes[i] = o.value, o.shape
	}
	shape, err := op.OutShape(shapes...)
	if err != nil {
		return operand{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	p.graph.Nodes = append(p.graph.Nodes, graph.Node{Op: op, Inputs: values})
	y := operand{known: true, value: graph.Value(len(p.graph.Nodes)), shape: shape, axes: axes}
	if x[0].split != nil && shape == x[0].shape {
		y.split = x[0].split
	}
	return y, nil
}

// movement are the operators that give elements of their first input as they are.
var movement = map[string]bool{
	"Reshape": true, "Flatten": true, "Squeeze": true, "Unsqueeze": true, "Transpose": true, "Slice": true,
	"Gather": true, "GatherND": true, "Split": true, "Expand": true, "Tile": true, "Identity": true,
}

// passes are the operators, beside those of movement, that take a masked value: others would make
// NaN of negative infinities.
var passes = map[string]bool{"Add": true, "Where": true, "Softmax": true, "Dropout": true}

// exact are the operators of integers too, which floats have as they are: where they compute, as
// long as results are no larger than graph.MaxInteger (see ofIntegers).
var exact = map[string]bool{
	"Greater": true, "Less": true, "GreaterOrEqual": true, "LessOrEqual": true, "Equal": true,
	"Add": true, "Sub": true, "Mul": true, "CumSum": true,
}

// sameElements notes of n's results what is known of its input's elements.
func (p *parser) sameElements(n *node, results []operand) {
	x := p.operands[n.inputs[0]]
	if !x.known {
		return // a table, of which an input had the places
	}
	for i := range results {
		if o := &results[i]; o.known {
			o.alike(x)
		}
	}
}
