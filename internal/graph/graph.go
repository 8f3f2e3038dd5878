// Package graph is a whole network as the trusted host knows it: linear
// operators with their float32 weights and biases, and everything between them.
//
// A value is one tensor a sample. Feature maps are NHWC; a vector is a map of
// 1 x 1 x C. A batch is sample-major. See docs/spec.md, section 3.
package graph

import (
	"errors"
	"fmt"

	"github.com/securenets/securenets/internal/plan"
)

// ErrInvalid reports a graph whose operators, shapes or weights do not fit together.
var ErrInvalid = errors.New("graph: invalid")

// Shape is the extent of one sample: H x W x C. A vector of n is 1 x 1 x n.
type Shape struct{ H, W, C int }

// Vector returns the shape of a vector of n.
func Vector(n int) Shape { return Shape{1, 1, n} }

// Len returns the elements of one sample.
func (s Shape) Len() int { return s.H * s.W * s.C }

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

// Graph is a network in topological order: a node reads only values before its own.
type Graph struct {
	Input  Shape
	Nodes  []Node
	Output Value
}

// Op is an operator. It is a Linear or an Elementary.
type Op interface {
	// Name is the operator's name for people, for example "conv2d".
	Name() string
	// OutShape returns the output's shape, or an error wrapping ErrInvalid
	// where the input shapes (one an input) do not suit.
	OutShape(in ...Shape) (Shape, error)
}

// Linear is an operator that can be sent to the cloud. Its bias is added by the host.
type Linear interface {
	Op
	// Plan returns the operator's shape.
	Plan() plan.Op
	// Weights returns the row-major weight matrix, Plan().Rows() x Plan().Terms().
	Weights() []float32
	// Bias returns one value a row, or nil for none.
	Bias() []float32
}

// Elementary is an operator that the host computes itself, in the clear.
type Elementary interface {
	Op
	// Apply computes the operator for n samples, sample-major. in holds one
	// slice an input, of n times the input shape's length. dst may be in[0]
	// where InPlace says so.
	Apply(dst []float32, n int, shapes []Shape, in ...[]float32)
	// InPlace reports whether Apply may be given dst == in[0].
	InPlace() bool
}

// Dense is y = W x + b.
type Dense struct {
	In, Out int
	W       []float32 // Out x In, row-major
	B       []float32 // Out, or nil
}

// Conv2D is a convolution plus a bias a channel.
type Conv2D struct {
	Geometry plan.Conv2D
	W        []float32 // OutC x KH x KW x C/Groups
	B        []float32 // OutC, or nil
}

// Pool is the geometry of a pooling window.
type Pool struct {
	KH, KW                int
	SH, SW                int
	Top, Left, Bot, Right int
}

type (
	// ReLU is max(x, 0).
	ReLU struct{}
	// Square is x².
	Square struct{}
	// MaxPool takes the largest element under the window; padding never wins.
	MaxPool struct{ Pool }
	// AvgPool takes the mean under the window.
	AvgPool struct {
		Pool
		CountPad bool // padding counts in the divisor
	}
	// Reshape reads a sample in C, H, W order, as ONNX does, and gives it a
	// new shape in that order. Flatten is a Reshape to a vector.
	Reshape struct{ To Shape }
	// Softmax is exp(x_i)/Σ exp(x_j) over the channels of every position.
	Softmax struct{}
)

// Shapes returns the shape of every value (index 0 is the input) after checking
// the whole graph: order, shapes, lengths of weights and biases, finiteness.
func (g *Graph) Shapes() ([]Shape, error) {
	return nil, errors.New("graph: not written yet")
}
