package hostclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/internal/pool"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// Preview describes what Seal would make of an ONNX model in a ring, with every layer
// sent, without sealing it. It refuses what Seal refuses because of its operators and
// sizes.
func Preview(model []byte, s transform.Scheme, in Ring) (Description, error) {
	g, err := onnx.ParseStored(model)
	if err != nil {
		return Description{}, fmt.Errorf("hostclient: %w", err)
	}
	return preview(g, s, in)
}

// preview is Preview of a graph.
func preview(g *graph.Graph, s transform.Scheme, in Ring) (Description, error) {
	r, err := in.ring()
	if err != nil {
		return Description{}, err
	}
	nw, err := newNetwork(g)
	if err != nil {
		return Description{}, fmt.Errorf("hostclient: %w", err)
	}
	secret := &Secret{&content{scheme: s, ring: r, net: nw}}
	sent := plan.Plan{Ring: r}
	memory := nw.oneLayer()
	for l, linear := range nw.layers {
		op := linear.Plan()
		var weights []float32
		masks, err := transform.NewLayer(secret.ring, s, op)
		if err == nil {
			err = checkSize(secret.ring, masks.CloudOp())
		}
		if err == nil {
			weights, err = memory.read(linear)
		}
		if err != nil {
			return Description{}, fmt.Errorf("hostclient: layer %d: %w", l, err)
		}
		sent.Ops = append(sent.Ops, masks.CloudOp())
		secret.layers = append(secret.layers, layer{masks: masks, xmax: transform.ChooseXMax(secret.ring, op, weights, 0)})
	}
	secret.number()
	if err := sent.Validate(); err != nil {
		return Description{}, fmt.Errorf("hostclient: %w", err)
	}
	return secret.Describe(), nil
}

// Emulator runs a network quantised as a sealed one is, but in the clear and on this
// machine alone. Its results are those of Session.Infer, bit for bit. It may be used by
// several goroutines at once.
type Emulator struct {
	net      *network
	ring     ring.Ring
	xmax     []int32 // by layer
	scales   []verify.Scale
	products []plan.Product
}

// Format prints the emulator redacted, whatever the verb.
func (*Emulator) Format(f fmt.State, _ rune) { io.WriteString(f, "hostclient.Emulator(redacted)") }

// NewEmulator prepares an ONNX model with the options that Seal would be given. It always
// needs their Multiplier.
func NewEmulator(ctx context.Context, model []byte, o SealOptions) (*Emulator, error) {
	g, err := onnx.ParseStored(model)
	if err != nil {
		return nil, fmt.Errorf("hostclient: emulate: %w", err)
	}
	return emulate(ctx, g, o)
}

// emulate is NewEmulator of a graph.
func emulate(ctx context.Context, g *graph.Graph, o SealOptions) (*Emulator, error) {
	r, err := o.Ring.ring()
	if err != nil {
		return nil, err
	}
	nw, rho, err := prepare(ctx, r, g, o)
	if err != nil {
		return nil, fmt.Errorf("hostclient: emulate: %w", err)
	}
	e, err := newEmulator(ctx, r, nw, rho, o.Multiplier)
	if err != nil {
		return nil, fmt.Errorf("hostclient: emulate: %w", err)
	}
	return e, nil
}

// newEmulator quantises nw's weights for inputs of the given rms/peak, one a
// layer, where 0 is transform's default.
func newEmulator(ctx context.Context, r ring.Ring, nw *network, rho []float64, m plan.Multiplier) (*Emulator, error) {
	if m == nil {
		return nil, ErrMultiplier
	}
	bare, err := nw.bare()
	if err != nil {
		return nil, err
	}
	e := &Emulator{net: bare, ring: r}
	memory := nw.oneLayer()
	for l, linear := range nw.layers {
		weights, err := memory.read(linear)
		if err == nil {
			err = e.add(ctx, linear, weights, rho[l], m)
		}
		if err != nil {
			e.Close()
			return nil, fmt.Errorf("layer %d: %w", l, err)
		}
	}
	return e, nil
}

// add loads a layer of the given weights, which it overwrites.
func (e *Emulator) add(ctx context.Context, linear graph.Linear, weights []float32, rho float64, m plan.Multiplier) error {
	op := linear.Plan()
	xmax := transform.ChooseXMax(e.ring, op, weights, rho)
	q, err := transform.QuantizeInPlace(e.ring, op, weights, xmax)
	if err != nil {
		return err
	}
	scale, err := verify.NewScale(q.Scale, linear.Bias())
	if err != nil {
		return err
	}
	p, err := m.Load(ctx, e.ring, op, words(e.ring, op.Rows(), op.Terms(), q.W))
	if err != nil {
		return err
	}
	e.xmax, e.scales, e.products = append(e.xmax, xmax), append(e.scales, scale), append(e.products, p)
	return nil
}

// XMax returns the largest magnitude of each linear layer's quantised inputs, in the order of the
// layers: LayerDescription.XMax of a network sealed with the same options.
func (e *Emulator) XMax() []int32 { return slices.Clone(e.xmax) }

// Close frees what the multiplier holds. It must not run beside another method.
func (e *Emulator) Close() error {
	var errs []error
	for _, p := range e.products {
		errs = append(errs, p.Close())
	}
	e.products = nil
	return errors.Join(errs...)
}

// Infer is Session.Infer without clouds.
func (e *Emulator) Infer(ctx context.Context, x []float32, n int) ([]float32, error) {
	return e.net.infer(x, n, func() ([]float32, error) { return e.run(ctx, x, n, func(int, int, []float32) {}) })
}

// run calls see with the input of every layer l, of n samples at a time.
func (e *Emulator) run(ctx context.Context, x []float32, n int, see func(l, n int, x []float32)) ([]float32, error) {
	return e.net.inBlocks(x, n, func(l, i, k int, x []float32) ([]float32, error) {
		see(l, k, x)
		return inClear(ctx, e.ring, e.products[l], e.net.layers[l].Plan(), e.scales[l], e.xmax[l], x, i, k)
	})
}

// badActivations returns err of samples that are counted from first on.
func badActivations(err error, first int) error {
	var wrong *transform.NotFiniteError
	if !errors.As(err, &wrong) {
		return err
	}
	return &SampleError{first + wrong.Index, errors.New("its activations leave the range of float32")}
}

// words returns the rows x cols matrix of v mod M, |v| <= (M-1)/2.
func words(r ring.Ring, rows, cols int, v []int32) ring.Matrix {
	m := ring.NewMatrix(rows, cols)
	transform.ToRing(r, m.Data, v)
	return m
}

// inner lends the words of layers that are computed in the clear. They never leave
// the host.
var inner pool.Of[uint32]

// inClear computes a layer of n samples without clouds: W x + bias, in the integers
// that they would compute with, to memory of floats. The product holds W. The first is
// the batch's sample first.
func inClear(ctx context.Context, r ring.Ring, w plan.Product, op plan.Op, to verify.Scale, xmax int32, x []float32, first, n int) ([]float32, error) {
	in, out := op.InLen(), op.OutLen()
	scale, tile := make([]float32, n), make([]int32, max(in, out)) // of one sample
	words := ring.Matrix{Rows: n, Cols: in, Data: inner.Get(n * in)}
	defer inner.Put(words.Data)
	for i := range n {
		err := transform.QuantizeInputs(tile[:in], scale[i:i+1], x[i*in:(i+1)*in], 1, xmax)
		if err != nil {
			return nil, badActivations(err, first+i)
		}
		transform.ToRing(r, words.Row(i), tile[:in])
	}
	products := ring.Matrix{Rows: n, Cols: out, Data: inner.Get(n * out)}
	defer inner.Put(products.Data)
	if err := w.Evaluate(ctx, products, words); err != nil {
		return nil, err
	}
	y := floats.Get(n * out)
	for i := range n {
		transform.FromRing(r, tile[:out], products.Row(i))
		to.Floats(y[i*out:(i+1)*out], tile[:out], scale[i:i+1])
	}
	return y, nil
}
