package hostclient

import (
	"context"
	"errors"
	"fmt"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/transform"
)

// Preview describes what Seal would make of an ONNX model, without doing it. It
// refuses what Seal refuses for its operators and sizes.
func Preview(model []byte, s transform.Scheme) (Description, error) {
	g, err := onnx.Parse(model)
	if err != nil {
		return Description{}, fmt.Errorf("hostclient: %w", err)
	}
	nw, err := newNetwork(g)
	if err != nil {
		return Description{}, fmt.Errorf("hostclient: %w", err)
	}
	secret := &Secret{scheme: s, ring: defaultRing(), net: nw}
	for l, linear := range nw.layers {
		op := linear.Plan()
		masks, err := transform.NewLayer(secret.ring, s, op)
		if err == nil {
			err = checkSize(secret.ring, masks.CloudOp())
		}
		if err != nil {
			return Description{}, fmt.Errorf("hostclient: layer %d: %w", l, err)
		}
		secret.add(layer{masks: masks, xmax: transform.ChooseXMax(secret.ring, op, linear.Weights(), 0)})
	}
	return secret.Describe(), nil
}

// Emulator runs a network as a sealed one runs, quantised, but in the clear and
// on this machine alone: its results are those of Session.Infer, bit for bit. It
// may be used by several goroutines at once.
type Emulator struct {
	net      *network
	ring     ring.Ring
	weights  []*transform.Quantized
	products []plan.Product
	block    int // samples that are in work at once
}

// NewEmulator prepares an ONNX model with the options that Seal would be given,
// of which it needs the Multiplier always.
func NewEmulator(ctx context.Context, model []byte, o SealOptions) (*Emulator, error) {
	g, err := onnx.Parse(model)
	if err != nil {
		return nil, fmt.Errorf("hostclient: emulate: %w", err)
	}
	r := defaultRing()
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
	e := &Emulator{net: nw, ring: r, block: blockRows(nw.widest())}
	for l, linear := range nw.layers {
		op := linear.Plan()
		xmax := transform.ChooseXMax(r, op, linear.Weights(), rho[l])
		w, err := transform.QuantizeWeights(r, op, linear.Weights(), xmax)
		if err == nil {
			var p plan.Product
			if p, err = m.Load(ctx, r, op, words(r, op.Rows(), op.Terms(), w.W)); err == nil {
				e.weights, e.products = append(e.weights, w), append(e.products, p)
			}
		}
		if err != nil {
			e.Close()
			return nil, fmt.Errorf("layer %d: %w", l, err)
		}
	}
	return e, nil
}

// Close frees what the multiplier holds. Nothing else may run meanwhile.
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
	if have, err := e.net.samples(x); err != nil {
		return nil, err
	} else if have != n {
		return nil, fmt.Errorf("%w: %d samples, want %d", ErrInput, have, n)
	}
	y, err := e.run(ctx, x, n, func(int, int, []float32) {})
	if err == nil {
		err = checkOutputs(y, n)
	}
	if err != nil {
		return nil, err
	}
	return y, nil
}

// run calls see with the input of every layer l, of n samples at a time.
func (e *Emulator) run(ctx context.Context, x []float32, n int, see func(l, n int, x []float32)) ([]float32, error) {
	in := e.net.Input.Len()
	var out []float32
	for i := 0; i < n; i += e.block {
		k := min(e.block, n-i)
		y, err := e.net.run(x[i*in:(i+k)*in], k, func(l int, x []float32) ([]float32, error) {
			see(l, k, x)
			w := e.weights[l]
			y, err := inClear(ctx, e.ring, e.products[l], e.net.layers[l], w.Scale, w.XMax, x, k)
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

// words returns the rows x cols matrix of v mod M, |v| <= (M-1)/2.
func words(r ring.Ring, rows, cols int, v []int32) ring.Matrix {
	m := ring.NewMatrix(rows, cols)
	transform.ToRing(r, m.Data, v)
	return m
}

// inClear computes a layer of n samples without clouds: W x + bias, in the integers
// that they would compute with. The product holds W; scale has one a row.
func inClear(ctx context.Context, r ring.Ring, w plan.Product, linear graph.Linear, scale []float32, xmax int32, x []float32, n int) ([]float32, error) {
	op := linear.Plan()
	q, samples := make([]int32, len(x)), make([]float32, n)
	if err := transform.QuantizeInputs(q, samples, x, n, xmax); err != nil {
		return nil, fmt.Errorf("%w: activations: %w", ErrInput, err)
	}
	y := ring.NewMatrix(n, op.OutLen())
	if err := w.Evaluate(ctx, y, words(r, n, op.InLen(), q)); err != nil {
		return nil, err
	}
	signed := make([]int32, len(y.Data))
	transform.FromRing(r, signed, y.Data)
	return dequantize(signed, samples, scale, linear.Bias()), nil
}
