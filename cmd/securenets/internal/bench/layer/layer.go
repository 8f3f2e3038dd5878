// Package layer gets a call of a sealed layer answered, so that the host's work for it
// can be timed pass by pass.
package layer

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// XMax is the largest magnitude of an input's integer.
const XMax = 1<<11 - 1

// Call is one call, to be made again and again: with the same pads, which are for that
// alone, so that the same answers are right.
type Call struct {
	Op      plan.Op
	N       int // samples
	Masks   *transform.Layer
	Key     *verify.Key
	Pads    transform.PadsState
	First   *transform.Call // that was answered
	Answers []ring.Matrix
	To      verify.Scale
	Weights []float32
	W       []int32 // the weights' integers
	Values  []float32
	Floats  []float32 // room for the call's products

	// Of single passes.
	X       []int32   // the values' integers
	Y       []int32   // the products'; nil until the caller has them
	Samples []float32 // scales
	R       []uint32  // of one sample
}

// New seals a layer of random weights for a scheme of one role, has pads made where there
// are some, and a call of n samples of random values answered.
func New(ctx context.Context, b plan.Multiplier, op plan.Op, n int, scheme transform.Scheme) (_ *Call, err error) {
	rng := rand.New(rand.NewPCG(0, 0))
	normal := func(values int) []float32 {
		v := make([]float32, values)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		return v
	}
	in, out := op.InLen(), op.OutLen()
	c := &Call{
		Op: op, N: n, Weights: normal(op.Rows() * op.Terms()), Values: normal(n * in), X: make([]int32, n*in), Samples: make([]float32, n),
		R: make([]uint32, in), Floats: make([]float32, n*out),
	}
	q, err := transform.QuantizeWeights(ring.Q4(), op, c.Weights, XMax)
	if err != nil {
		return nil, err
	}
	c.W = q.W
	if c.To, err = verify.NewScale(q.Scale, nil); err != nil {
		return nil, err
	}
	if c.Key, err = verify.NewKey(verify.DefaultField(), op, q.W); err != nil {
		return nil, err
	}
	if c.Masks, err = transform.NewLayer(ring.Q4(), scheme, op); err != nil {
		return nil, err
	}
	what, err := c.Masks.Seal(q.W)
	if err != nil {
		return nil, err
	}
	product, err := b.Load(ctx, ring.Q4(), c.Masks.CloudOp(), what[0])
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, product.Close()) }()
	if err := transform.QuantizeInputs(c.X, c.Samples, c.Values, n, XMax); err != nil {
		return nil, err
	}
	var pads *transform.Pads
	if scheme.Inputs == transform.InputPad {
		if pads, err = c.Masks.NewPads(ctx, product, n); err != nil {
			return nil, err
		}
		c.Pads = pads.State()
		if pads, err = c.Masks.RestorePads(c.Pads); err != nil {
			return nil, err
		}
	}
	if c.First, err = c.Masks.Mask(c.X, n, pads); err != nil {
		return nil, err
	}
	xhat, _ := c.First.Masked()[0].Words()
	c.Answers = []ring.Matrix{ring.NewMatrix(xhat.Rows, c.Masks.CloudOp().OutLen())}
	return c, product.Evaluate(ctx, c.Answers[0], xhat)
}
