// Package graph is a whole network as the trusted host knows it: linear
// operators with their float32 weights and biases, and everything between them.
//
// A value is one tensor a sample. Feature maps are NHWC; a vector is a map of
// 1 x 1 x C. A batch is sample-major. See docs/spec.md, section 3. Where an operator says
// that it reads or gives C, H, W order, that is ONNX's; layout.go goes from one to the other.
//
// A Graph is built by package onnx or by hand, made smaller by Simplify, checked by Validate, and
// kept in a secret as the JSON of EncodeStructure, its weights beside it. Package hostclient
// executes it: linear operators on the cloud or here, all else by Elementary.Apply.
//
// To read it, begin with graph.go (values, nodes, what an operator is, the checks) and parts.go (several
// inputs and outputs). The operators follow, each kind in a file:
//
//	linear.go       Dense, Conv2D: what can be sent
//	elementwise.go  functions of one element        pairs.go, select.go  of two or three values
//	affine.go       scales and shifts               channels.go          over a position's channels
//	pool.go         windows                         resize.go            interpolation
//	moves.go        what only moves elements        transpose.go         the same, of axes
//	product.go      products of two values          embedding.go         rows of a table
//	recurrence.go   recurrent layers
//
// Then simplify.go, with fold.go for what goes into weights; structure.go, with constants.go and
// floats.go for how floats stand in it; and vector.go for loops that have assembly.
//
// The time of the operators here depends on shapes alone, but for those that take
// exponentials, logarithms and the like of the standard library, for ELU, for Product,
// which passes over zeros of the first, and for Embedding, which reads memory where an id says.
package graph

import (
	"errors"
	"fmt"

	"github.com/securenets/securenets/plan"
)

// ErrInvalid reports a graph whose operators, shapes or weights do not fit together.
var ErrInvalid = errors.New("graph: invalid")

// ErrNotFinite reports a weight, bias or other parameter that is NaN or infinite.
// It wraps ErrInvalid.
var ErrNotFinite = fmt.Errorf("%w: not finite", ErrInvalid)

// Shape is the extent of one sample: H x W x C. A vector of n is 1 x 1 x n.
type Shape struct{ H, W, C int }

// Vector returns the shape of a vector of n.
func Vector(n int) Shape { return Shape{1, 1, n} }

// Len returns the elements of one sample.
func (s Shape) Len() int { return s.H * s.W * s.C }

// flat reports whether C, H, W order and H, W, C order are the same.
func (s Shape) flat() bool { return s.C == 1 || s.H == 1 && s.W == 1 }

// Check returns an error unless every size is positive and the product is at
// most plan.MaxExtent.
func (s Shape) Check() error {
	p := 1
	for _, v := range []int{s.H, s.W, s.C} {
		if v <= 0 || v > plan.MaxExtent/p {
			return fmt.Errorf("%w: shape %dx%dx%d", ErrInvalid, s.H, s.W, s.C)
		}
		p *= v
	}
	return nil
}

func (s Shape) String() string {
	if s.H == 1 && s.W == 1 {
		return fmt.Sprint(s.C)
	}
	return fmt.Sprintf("%dx%dx%d", s.H, s.W, s.C)
}

// Value numbers a tensor: 0 is the graph's input, i+1 the output of Nodes[i].
type Value int

// Node is one operator and the values that it reads.
type Node struct {
	Op     Op
	Inputs []Value
}

// shapesOf returns the shapes of what n reads, given those of all values before it.
func (n Node) shapesOf(values []Shape) []Shape {
	in := make([]Shape, len(n.Inputs))
	for j, v := range n.Inputs {
		in[j] = values[v]
	}
	return in
}

// Graph is a network in topological order: a node reads only values before its
// own. Every value is read by some node, or is the output.
type Graph struct {
	Input Shape
	// Parts are the inputs of which Input holds the elements, if it is not one of floats.
	Parts  []Part
	Nodes  []Node
	Output Value
	// Results are the outputs of which Output, a vector, holds the elements, if there are several.
	Results []Result
}

// Op is an operator. It is a Linear or an Elementary.
//
// Those of this package that hold slices are pointers (*Dense, *Conv2D, *Affine);
// the others are plain values that can be compared (ReLU{}, MaxPool{...}).
type Op interface {
	// Name is the operator's name for people, for example "conv2d".
	Name() string
	// OutShape returns the output's shape, or an error wrapping ErrInvalid
	// where the operator's parameters make no sense or the input shapes (one
	// an input, each positive) do not suit.
	OutShape(in ...Shape) (Shape, error)
}

// Linear is an operator that can be sent to the cloud. Its bias is added by the
// host. It has one input.
type Linear interface {
	Op
	// Plan returns the operator's shape.
	Plan() plan.Op
	// Weights returns the row-major weight matrix, Plan().Rows() x
	// Plan().Terms(), or nil where they are stored, or left out (see DecodeStructure).
	Weights() []float32
	// Stored returns what reads weights that are kept elsewhere, or nil.
	Stored() Source
	// Bias returns one value a row, or nil for none.
	Bias() []float32
}

// Elementary is an operator that the host computes itself, in the clear.
type Elementary interface {
	Op
	// Apply computes the operator for n samples, sample-major. in holds one
	// slice an input, of n times the input shape's length, and dst n times the
	// output shape's; shapes holds the shapes of the inputs. dst must not
	// overlap an input, except that it may be in[0] where InPlace says so; the
	// other inputs may then be in[0] too.
	Apply(dst []float32, n int, shapes []Shape, in ...[]float32)
	// InPlace reports whether Apply may be given dst == in[0].
	InPlace() bool
}

// Shapes returns the shape of every value (index 0 is the input) after checking
// everything that the graph holds: order, parameters, shapes, lengths of weights
// and biases, finiteness. Weights that are nil are stored or left out and pass; Validate
// refuses those left out. Its errors wrap ErrInvalid.
func (g *Graph) Shapes() ([]Shape, error) {
	if err := g.Input.Check(); err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	if err := g.checkParts(); err != nil {
		return nil, err
	}
	if len(g.Nodes) == 0 {
		return nil, fmt.Errorf("%w: no operators", ErrInvalid)
	}
	if g.Output < 0 || int(g.Output) > len(g.Nodes) {
		return nil, fmt.Errorf("%w: output is value %d of %d", ErrInvalid, g.Output, len(g.Nodes)+1)
	}
	shapes := make([]Shape, 1, len(g.Nodes)+1)
	shapes[0] = g.Input
	read := make([]bool, len(g.Nodes)+1)
	read[g.Output] = true
	checked := map[constant]bool{}
	for i, n := range g.Nodes {
		if n.Op == nil {
			return nil, fmt.Errorf("%w: node %d has no operator", ErrInvalid, i)
		}
		for _, v := range n.Inputs {
			if v < 0 || int(v) > i {
				return nil, fmt.Errorf("%w: node %d (%s) reads value %d, which is not before it", ErrInvalid, i, n.Op.Name(), v)
			}
			read[v] = true
		}
		out, err := outShape(n.Op, n.shapesOf(shapes), checked)
		if err != nil {
			return nil, fmt.Errorf("node %d (%s): %w", i, n.Op.Name(), err)
		}
		shapes = append(shapes, out)
	}
	for v, r := range read {
		if !r {
			return nil, fmt.Errorf("%w: nothing reads value %d", ErrInvalid, v)
		}
	}
	if err := g.checkResults(shapes); err != nil {
		return nil, err
	}
	return shapes, nil
}

// outShape checks op and all that it holds, and returns the shape of its result. Constants in checked,
// which it adds to, are not looked at again.
func outShape(op Op, in []Shape, checked map[constant]bool) (out Shape, err error) {
	if a, ok := op.(*ElementAffine); ok {
		if out, err = a.outShape(in); err == nil {
			err = a.check(checked)
		}
	} else {
		out, err = op.OutShape(in...)
	}
	if err == nil {
		err = out.Check()
	}
	if l, ok := op.(Linear); ok && err == nil {
		err = checkParameters(l)
	}
	return out, err
}

// Validate checks what Shapes checks, and that no weights are left out. Those that are
// stored are not read.
func (g *Graph) Validate() error {
	if _, err := g.Shapes(); err != nil {
		return err
	}
	for i, n := range g.Nodes {
		l, linear := n.Op.(Linear)
		e, embedding := n.Op.(*Embedding)
		if linear && l.Weights() == nil && l.Stored() == nil || embedding && e.Table == nil && e.From == nil {
			return fmt.Errorf("%w: node %d (%s) has no weights", ErrInvalid, i, n.Op.Name())
		}
	}
	return nil
}

// LastUses returns, for each node, the values that it is the last to read: an
// executor may free them once the node is computed, or compute it in place of
// the first. The graph must be valid: its output is then among none of them.
func (g *Graph) LastUses() [][]Value {
	dies := make([][]Value, len(g.Nodes))
	seen := make([]bool, len(g.Nodes)+1)
	for i := len(g.Nodes) - 1; i >= 0; i-- {
		for _, v := range g.Nodes[i].Inputs {
			if !seen[v] {
				seen[v] = true
				dies[i] = append(dies[i], v)
			}
		}
	}
	return dies
}
