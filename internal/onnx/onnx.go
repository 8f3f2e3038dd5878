// Package onnx reads the networks that this project runs from ONNX files, and
// writes them. It treats its input as hostile: memory is bounded by the file's
// size, and external data (but for ReadFile), cycles, overflows and weights that are
// not finite are refused with typed errors.
//
// Opsets 7 to 28 of the operators
//
//	Gemm, MatMul, Conv and ConvTranspose with constant weights, MatMul of two values,
//	Relu, LeakyRelu, PRelu, Elu, Selu, Celu, Clip, Sigmoid, HardSigmoid, Tanh,
//	HardSwish, Swish, Mish, Gelu, Softplus, Erf, Exp, Log, Sqrt, Abs, Neg, Reciprocal,
//	Sign, Pow by 0.5, 1, 2 and 3,
//	MaxPool, AveragePool, GlobalMaxPool, GlobalAveragePool, with ceil_mode; MaxPool dilated,
//	ReduceMax, ReduceMean, ReduceSum and ReduceL2 of any axes but the batch, LRN,
//	BatchNormalization, LayerNormalization; InstanceNormalization and
//	GroupNormalization with scales a channel,
//	Add, Sub, Mul and Div with a constant that is the same for all samples, or of two
//	values, one of which may broadcast to the other, Max and Min of values and numbers,
//	Greater, Less, GreaterOrEqual and LessOrEqual, And, Or and Not of these, and Where by them,
//	Equal; IsNaN of a softmax, which never is,
//	CumSum of any axis but the batch, forwards,
//	Gather of a constant table's rows by integers of an input, or that are known to be rows,
//	Concat, Split, Slice and Gather of any axis but the batch, GatherND of grids of places, Tile,
//	Pad in all modes,
//	Resize and Upsample of rows and columns: nearest, linear and cubic, without antialias,
//	Transpose, DepthToSpace, SpaceToDepth, Expand where arithmetic reads it, and of a
//	constant to the batch where Concat or a recurrent layer reads it,
//	LSTM, GRU and RNN with Sigmoid, Tanh and Relu, alike for both directions, whose first states are
//	zeros or constants that are the same for all samples; without lengths, peepholes, clip and
//	coupled gates,
//	Softmax and LogSoftmax over any axis but the batch,
//	Flatten, Reshape, Squeeze and Unsqueeze,
//	Constant, Identity, Dropout, Cast to float, bool and, of integers and comparisons, integers
//
// are read, on vectors (N x C), sequences (N x C x L) and maps (N x C x H x W), which
// become NHWC, sequences as maps of one row. The batch N may be symbolic or fixed: what
// is read takes any. A shape may be computed, from constants and from Shape, by Gather,
// Slice, Concat, Squeeze, Unsqueeze, Cast, Add, Sub, Mul, Div, Mod, Equal and Where, and
// pads by ConstantOfShape, Reshape and Transpose too, as exporters write them.
//
// Inputs are of floats, bytes, integers or bools, their sizes fixed in the file or by Sizes. Several
// are parts of the graph's input, one after the other. Integers are floats in the graph, which has all of those up to 2^24; what may become
// larger is refused. Values that may be minus infinity, as scores are that a mask is added to, are
// taken by Add, Where, Softmax and what only moves elements, and refused by all else.
//
// What constants alone make (masks, positions) is computed as the model is read, see foldable: with
// Range, Trilu, GatherElements, Xor, Cos and Sin beside operators from above. So is what is the same
// for all samples, and what counts them, as where torch picks each sample's own mask.
//
// All outputs of floats are read, or those that Options name, and not what only others need: of a
// classifier its probabilities, not its labels. Several are one vector, their elements one after
// the other. The batch comes first in them, wherever the model has it.
//
// Of a Transpose only the order of axes is noted, and what reads it asks for the order
// that it needs: between NHWC and NCHW nothing is moved. Between operators a value may have
// more dimensions than a map, and its batch anywhere among them, as attention has it: Gemm,
// MatMul, Softmax, LayerNormalization, elementwise operators, reductions, Concat, Slice, Gather,
// Tile and Split take it as it is (see split), and others if it is a map once more. A dense
// layer over the last axis of more than a vector is a convolution of 1 x 1, a transposed
// convolution one of stride 1 whose channels a Transpose makes pixels of. A recurrent layer is
// one such operator, of its inputs at all steps and for both directions, and a Recurrence. Other
// operators become several of package graph where they are sums and products of those.
//
// What is read is simplified as graph.Simplify does it: batch norms and the like
// go into the weights before them. ONNX has no sum pooling; it is written, and
// read, as AveragePool times the size of its window.
//
// # How the package is cut
//
// To read a model, first come bytes: proto.go has the messages, external.go the files and those
// beside them, tensor.go the elements of constants. Then nodes, one by one: parse.go goes over
// them, inputs.go begins with what the graph is given, operators.go says which operators there are
// and what reads them, and operand.go what a name stands for and how an operator asks for an input.
//
// A value of the graph has its dimensions along the axes of a shape (axes.go), or, where these are
// not enough, in parts of them (split.go). Read both before any operator of values: they say when a
// value is moved. The operators are then a file each for
//
//	linear.go, conv.go, convtranspose.go   what goes to the cloud
//	pool.go, reduce.go, normalise.go       what takes sums or maxima
//	activations.go, arithmetic.go          element by element
//	compare.go, where.go                   truths, and choices by them
//	reshape.go, expand.go                  dimensions
//	slice.go, concat.go, gather.go, pad.go, resize.go
//	recurrence.go, common.go               recurrent layers, and their first states
//
// What is no value is a constant (constants.go), a shape with the batch's size in it (sizes.go), or
// what constants alone make: fold.go has its rules, foldelements.go and foldmoves.go the operators.
// A node is offered to fold.go first, so that every other file may take what it left.
//
// To write one, marshal.go goes over a graph, write.go has the operators of more than one node, and
// message.go the bytes.
package onnx

import (
	"errors"
	"fmt"
	"strings"
)

// Opsets that Parse reads. An operator's meaning may change with a later one.
const (
	minOpset = 7
	maxOpset = 28
)

var (
	// ErrFormat reports bytes that are not an ONNX model.
	ErrFormat = errors.New("onnx: not an ONNX model")
	// ErrInvalid reports a model that breaks ONNX's rules, or whose sizes do
	// not fit together or pass a limit.
	ErrInvalid = errors.New("onnx: invalid model")
	// ErrUndefined reports a node that reads what no node before it defines, as
	// in a cycle. It wraps ErrInvalid.
	ErrUndefined = fmt.Errorf("%w: undefined value", ErrInvalid)
	// ErrExternalData reports tensors kept in other files. It wraps ErrInvalid.
	ErrExternalData = fmt.Errorf("%w: external data", ErrInvalid)
)

// UnsupportedError reports a model that uses what this package cannot read.
type UnsupportedError struct {
	// Ops names each such thing once, in alphabetical order: an operator, as
	// "Einsum", or a use of one, as "MaxPool(ceil_mode=1)".
	Ops []string
}

func (e *UnsupportedError) Error() string {
	return "onnx: unsupported: " + strings.Join(e.Ops, ", ")
}
