package hostclient

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// network is a checked graph, ready to run. Its linear operators, in order, are
// the layers.
type network struct {
	*graph.Graph
	shapes []graph.Shape   // of every value
	dies   [][]graph.Value // by node: the values that nothing reads after it
	layers []graph.Linear
}

func newNetwork(g *graph.Graph) (*network, error) {
	shapes, err := g.Shapes()
	if err != nil {
		return nil, err
	}
	nw := &network{Graph: g, shapes: shapes, dies: g.LastUses()}
	for _, node := range g.Nodes {
		if op, ok := node.Op.(graph.Linear); ok {
			nw.layers = append(nw.layers, op)
		}
	}
	if len(nw.layers) == 0 {
		return nil, fmt.Errorf("%w: no linear layer, so nothing for a cloud to do", graph.ErrInvalid)
	}
	return nw, nw.checkMemory()
}

// bare returns nw without the weights of its layers. The tables of embeddings and long constants
// are nw's, of equal ones the first.
func (nw *network) bare() (*network, error) {
	structure, shared, err := graph.EncodeShared(nw.Graph)
	if err != nil {
		return nil, err
	}
	g, err := graph.DecodeShared(structure, shared)
	if err != nil {
		return nil, err
	}
	bare := g.Embeddings()
	for i, e := range nw.Embeddings() {
		bare[i].Table = e.Table // which stays with the host
	}
	return newNetwork(g)
}

// maxValue bounds the elements of one sample of a value: 256 MiB.
const maxValue = 1 << 26

// checkMemory returns ErrTooLarge where sizes that a model may name in few bytes would take
// gigabytes: of a value, or of the keys of all layers and tables, which a secret must have
// room for.
func (nw *network) checkMemory() error {
	for v, s := range nw.shapes {
		if s.Len() > maxValue {
			return fmt.Errorf("%w: value %d, %v", ErrTooLarge, v, s)
		}
	}
	keys := int64(0) // bytes, with tables
	for _, e := range nw.Embeddings() {
		keys += 4 * int64(e.Rows) * int64(e.Width)
	}
	for _, l := range nw.layers {
		keys += 8 * int64(l.Plan().InLen()+l.Plan().OutLen())
	}
	if keys > maxSecret {
		return fmt.Errorf("%w: keys and tables of %d bytes", ErrTooLarge, keys)
	}
	return nil
}

// widest returns the elements of one sample of the largest value.
func (nw *network) widest() int {
	w := 0
	for _, s := range nw.shapes {
		w = max(w, s.Len())
	}
	return w
}

// oneLayer is memory for the weights of one layer at a time.
type oneLayer []float32

// oneLayer returns memory for any layer.
func (nw *network) oneLayer() oneLayer {
	n := 0
	for _, l := range nw.layers {
		n = max(n, l.Plan().Rows()*l.Plan().Terms())
	}
	return make(oneLayer, n)
}

// read returns the weights of a layer, in place of the one before.
func (m oneLayer) read(l graph.Linear) ([]float32, error) {
	w := m[:l.Plan().Rows()*l.Plan().Terms()]
	return w, graph.ReadWeights(w, l)
}

// run takes n samples in C, H, W order through the network and returns its
// outputs in that order. multiply computes layer l, bias included, to memory of
// floats; it may not keep x. Values are computed in place where they may be, and
// their memory serves others after their last use.
func (nw *network) run(x []float32, n int, multiply func(l int, x []float32) ([]float32, error)) ([]float32, error) {
	values := make([][]float32, len(nw.shapes))
	values[0] = floats.Get(len(x))
	graph.CHWToHWC(values[0], x, n, nw.Input)
	l := 0
	for i, node := range nw.Nodes {
		shapes := make([]graph.Shape, len(node.Inputs))
		in := make([][]float32, len(node.Inputs))
		for j, v := range node.Inputs {
			shapes[j], in[j] = nw.shapes[v], values[v]
		}
		var out []float32
		switch op := node.Op.(type) {
		case graph.Linear:
			var err error
			if out, err = multiply(l, in[0]); err != nil {
				return nil, err
			}
			l++
		case graph.Elementary:
			if op.InPlace() && slices.Contains(nw.dies[i], node.Inputs[0]) {
				out = in[0]
			} else {
				out = floats.Get(n * nw.shapes[i+1].Len())
			}
			op.Apply(out, n, shapes, in...)
		}
		for _, v := range nw.dies[i] {
			if &values[v][0] != &out[0] { // else it lives on in its place
				floats.Put(values[v])
			}
			values[v] = nil
		}
		values[i+1] = out
	}
	shape := nw.shapes[nw.Output]
	y := make([]float32, n*shape.Len())
	graph.HWCToCHW(y, values[nw.Output], n, shape)
	floats.Put(values[nw.Output])
	return y, nil
}

// inBlocks is run, a block of samples at a time: multiply computes layer l of samples i to i+k-1.
func (nw *network) inBlocks(x []float32, n int, multiply func(l, i, k int, x []float32) ([]float32, error)) ([]float32, error) {
	in, block := nw.Input.Len(), blockRows(nw.widest())
	out := make([]float32, 0, n*nw.shapes[nw.Output].Len())
	for i := 0; i < n; i += block {
		k := min(block, n-i)
		y, err := nw.run(x[i*in:(i+k)*in], k, func(l int, x []float32) ([]float32, error) {
			y, err := multiply(l, i, k, x)
			if err != nil {
				return nil, fmt.Errorf("layer %d: %w", l, err)
			}
			return y, nil
		})
		if err != nil {
			return nil, err
		}
		out = append(out, y...)
	}
	return out, nil
}

// infer returns what run makes of n samples x, which it may take, if that is finite.
func (nw *network) infer(x []float32, n int, run func() ([]float32, error)) ([]float32, error) {
	if have, err := nw.samples(x); err != nil {
		return nil, err
	} else if have != n {
		return nil, fmt.Errorf("%w: %d samples, want %d", ErrInput, have, n)
	}
	y, err := run()
	if err == nil {
		err = checkOutputs(y, n)
	}
	if err != nil {
		return nil, err
	}
	return y, nil
}
