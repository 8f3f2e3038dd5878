// Package onnx reads the networks that this project runs from ONNX files, and
// writes them. It treats its input as hostile: memory is bounded by the file's
// size, and external data, cycles, overflows and weights that are not finite
// are refused with typed errors.
//
// Opsets 7 to 28 of the operators
//
//	Gemm, MatMul and Conv with constant weights,
//	Relu, LeakyRelu, Clip, Sigmoid, HardSigmoid, Tanh, Mul(x, x), Pow(x, 2),
//	MaxPool, AveragePool, GlobalMaxPool, GlobalAveragePool,
//	ReduceMax, ReduceMean and ReduceSum over H and W,
//	BatchNormalization; Add, Sub, Mul and Div with a constant a channel,
//	Add of two values, Concat of channels, Softmax over channels,
//	Flatten, Reshape, Squeeze and Unsqueeze of H and W,
//	Constant, Identity, Dropout, Cast to float
//
// are read, on vectors (N x C) and maps (N x C x H x W), which become NHWC. The
// batch N may be symbolic or fixed: what is read takes any. A shape may be
// computed, from constants and from Shape, by Gather, Slice, Concat, Squeeze,
// Unsqueeze, Cast, Add, Sub, Mul and Div, as exporters write a view of a tensor.
//
// What is read is simplified as graph.Simplify does it: batch norms and the like
// go into the weights before them. ONNX has no sum pooling; it is written, and
// read, as AveragePool times the size of its window.
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
	// "LSTM", or a use of one, as "MaxPool(ceil_mode=1)".
	Ops []string
}

func (e *UnsupportedError) Error() string {
	return "onnx: unsupported: " + strings.Join(e.Ops, ", ")
}
