// Package reference runs a graph in plain float32 through gorgonia: the
// accuracy oracle, and the local side of comparisons.
package reference

import (
	"errors"

	"github.com/securenets/securenets/internal/graph"
)

// Model is a graph compiled for one batch size. It is not safe for concurrent use.
type Model struct{}

// New compiles g for batches of n samples. Operators that gorgonia cannot
// compute exactly as ONNX defines them are refused by name.
func New(g *graph.Graph, n int) (*Model, error) { return nil, errors.New("reference: not written yet") }

// Forward computes the outputs of n samples (NHWC, sample-major), which are
// valid until the next call.
func (m *Model) Forward(x []float32) ([]float32, error) {
	return nil, errors.New("reference: not written yet")
}

// Close frees the model.
func (m *Model) Close() error { return nil }
