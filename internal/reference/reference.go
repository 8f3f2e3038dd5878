// Package reference runs a graph in plain float32 through gorgonia: the
// accuracy oracle, and the local side of comparisons.
package reference

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/securenets/securenets/internal/graph"
)

// Model is a graph compiled for one batch size. It is not safe for concurrent use.
type Model struct {
	n       int
	in, out graph.Shape
	node    *gorgonia.Node // the input
	input   *tensor.Dense  // n x C x H x W
	result  gorgonia.Value // n x C x H x W
	output  []float32      // NHWC
	machine gorgonia.VM
}

// New compiles g for batches of n samples. It returns an *UnsupportedError if g has an operator
// that gorgonia does not compute.
func New(g *graph.Graph, n int) (*Model, error) {
	shapes, err := g.Shapes()
	if err != nil {
		return nil, err
	}
	e, err := Express(g, n)
	if err != nil {
		return nil, err
	}
	m := &Model{
		n:     n,
		in:    g.Input,
		out:   shapes[g.Output],
		node:  e.Input,
		input: tensor.New(tensor.Of(tensor.Float32), tensor.WithShape(e.Input.Shape()...)),
	}
	m.output = make([]float32, n*m.out.Len())
	gorgonia.Read(e.Output, &m.result)
	m.machine = gorgonia.NewTapeMachine(e.Graph)
	return m, nil
}

// Forward computes the outputs of 1 to n samples (NHWC, sample-major), which
// are valid until the next call. Fewer than n take as long as n: the rest of the batch is left
// over from earlier calls and computed again. No sample depends on another.
func (m *Model) Forward(x []float32) ([]float32, error) {
	k := len(x) / m.in.Len()
	if k < 1 || k > m.n || k*m.in.Len() != len(x) {
		return nil, fmt.Errorf("reference: input of %d words, want 1 to %d samples of %d", len(x), m.n, m.in.Len())
	}
	input := m.input.Data().([]float32)
	graph.HWCToCHW(input[:len(x)], x, k, m.in)
	if err := gorgonia.Let(m.node, m.input); err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	defer m.machine.Reset()
	if err := m.machine.RunAll(); err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	y := m.output[:k*m.out.Len()]
	graph.CHWToHWC(y, m.result.Data().([]float32)[:len(y)], k, m.out)
	return y, nil
}

// Close frees the model. No Forward may follow.
func (m *Model) Close() error { return m.machine.Close() }
