package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/plan"
)

// Dense is y = W x + b.
type Dense struct {
	In, Out int
	W       []float32 `json:"-"` // Out x In, row-major
	From    Source    `json:"-"` // what reads W where that is nil, or nil
	B       []float32 // Out, or nil
}

// Conv2D is a convolution plus a bias a channel.
type Conv2D struct {
	Geometry plan.Conv2D
	W        []float32 `json:"-"` // OutC x (KH·KW·C/Groups), row-major, columns as in package plan
	From     Source    `json:"-"` // as Dense has it
	B        []float32 // OutC, or nil
}

type (
	// ReLU is max(x, 0).
	ReLU struct{}
	// LeakyReLU is max(x, 0) + Alpha min(x, 0).
	LeakyReLU struct{ Alpha float32 }
	// Clip is min(max(x, Min), Max), in that order. No bound is ±math.MaxFloat32.
	Clip struct{ Min, Max float32 }
	// Sigmoid is 1/(1 + exp(-x)).
	Sigmoid struct{}
	// Tanh is the hyperbolic tangent.
	Tanh struct{}
	// Square is x².
	Square struct{}
	// Concat puts the channels of its inputs, one or more, one after the other.
	Concat struct{}
	// Reshape reads a sample in C, H, W order, as ONNX does, and gives it a
	// new shape in that order. Flatten is a Reshape to a vector.
	Reshape struct{ To Shape }
	// Softmax is exp(x_i)/Σ exp(x_j) over the channels of every position: exactly 0 where x_i is
	// negative infinity, at a position where all are too.
	Softmax struct{}
)

func (*Dense) Name() string    { return "dense" }
func (*Conv2D) Name() string   { return "conv2d" }
func (ReLU) Name() string      { return "relu" }
func (LeakyReLU) Name() string { return "leaky_relu" }
func (Clip) Name() string      { return "clip" }
func (Sigmoid) Name() string   { return "sigmoid" }
func (Tanh) Name() string      { return "tanh" }
func (Square) Name() string    { return "square" }
func (Concat) Name() string    { return "concat" }
func (Reshape) Name() string   { return "reshape" }
func (Softmax) Name() string   { return "softmax" }

func (d *Dense) Plan() plan.Op      { return plan.Dense(d.In, d.Out) }
func (d *Dense) Weights() []float32 { return d.W }
func (d *Dense) Stored() Source     { return d.From }
func (d *Dense) Bias() []float32    { return d.B }

func (c *Conv2D) Plan() plan.Op      { return plan.Conv(c.Geometry) }
func (c *Conv2D) Weights() []float32 { return c.W }
func (c *Conv2D) Stored() Source     { return c.From }
func (c *Conv2D) Bias() []float32    { return c.B }

func (d *Dense) OutShape(in ...Shape) (Shape, error) {
	return linearShape(d.Plan(), Vector(d.In), in, func() Shape { return Vector(d.Out) })
}

func (c *Conv2D) OutShape(in ...Shape) (Shape, error) {
	g := c.Geometry
	return linearShape(c.Plan(), Shape{g.H, g.W, g.C}, in, func() Shape { return Shape{g.OutH(), g.OutW(), g.OutC} })
}

// linearShape checks the operator and its one input; out is called where both are valid.
func linearShape(p plan.Op, want Shape, in []Shape, out func() Shape) (Shape, error) {
	if err := p.Validate(); err != nil {
		return Shape{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	got, err := single(in)
	if err != nil {
		return Shape{}, err
	}
	if got != want {
		return Shape{}, fmt.Errorf("%w: input of %v, want %v", ErrInvalid, got, want)
	}
	return out(), nil
}

// single returns the shape of the one input.
func single(in []Shape) (Shape, error) {
	if len(in) != 1 {
		return Shape{}, fmt.Errorf("%w: %d inputs, want 1", ErrInvalid, len(in))
	}
	return in[0], nil
}

func (ReLU) OutShape(in ...Shape) (Shape, error)        { return single(in) }
func (l LeakyReLU) OutShape(in ...Shape) (Shape, error) { return finite(in, l.Alpha) }
func (c Clip) OutShape(in ...Shape) (Shape, error)      { return finite(in, c.Min, c.Max) }
func (Sigmoid) OutShape(in ...Shape) (Shape, error)     { return single(in) }
func (Tanh) OutShape(in ...Shape) (Shape, error)        { return single(in) }
func (Square) OutShape(in ...Shape) (Shape, error)      { return single(in) }
func (Softmax) OutShape(in ...Shape) (Shape, error)     { return single(in) }

// finite returns the shape of the one input of an operator with the given parameters.
func finite(in []Shape, parameters ...float32) (Shape, error) {
	if i := notFinite(parameters); i >= 0 {
		return Shape{}, fmt.Errorf("%w: parameter %d", ErrNotFinite, i)
	}
	return single(in)
}

func (Concat) OutShape(in ...Shape) (Shape, error) {
	if len(in) == 0 {
		return Shape{}, fmt.Errorf("%w: no inputs", ErrInvalid)
	}
	out := Shape{in[0].H, in[0].W, 0}
	for _, s := range in {
		if s.H != out.H || s.W != out.W {
			return Shape{}, fmt.Errorf("%w: channels of %v beside those of %v", ErrInvalid, s, in[0])
		}
		out.C += s.C // each at most plan.MaxExtent
		if out.C > plan.MaxExtent {
			break // for check to refuse
		}
	}
	return out, out.Check()
}

func (r Reshape) OutShape(in ...Shape) (Shape, error) {
	s, err := single(in)
	if err != nil {
		return Shape{}, err
	}
	if err := r.To.Check(); err != nil {
		return Shape{}, err
	}
	if s.Len() != r.To.Len() {
		return Shape{}, fmt.Errorf("%w: %v has %d elements, %v has %d", ErrInvalid, s, s.Len(), r.To, r.To.Len())
	}
	return r.To, nil
}

func (ReLU) InPlace() bool      { return true }
func (LeakyReLU) InPlace() bool { return true }
func (Clip) InPlace() bool      { return true }
func (Sigmoid) InPlace() bool   { return true }
func (Tanh) InPlace() bool      { return true }
func (Square) InPlace() bool    { return true }
func (Concat) InPlace() bool    { return false }
func (Reshape) InPlace() bool   { return true }
func (Softmax) InPlace() bool   { return true }

func (ReLU) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	vectors.rectify(dst, in[0])
}

func (l LeakyReLU) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		dst[i] = max(v, 0) + l.Alpha*min(v, 0) // one of the two is 0
	}
}

func (c Clip) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		dst[i] = min(max(v, c.Min), c.Max)
	}
}

func (Sigmoid) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		dst[i] = float32(1 / (1 + math.Exp(-float64(v))))
	}
}

func (Tanh) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) { each(dst, in[0], math.Tanh) }

func (Square) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		dst[i] = v * v
	}
}

func (Concat) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	positions := n * shapes[0].H * shapes[0].W
	width := len(dst) / positions
	at := 0
	for k, src := range in {
		c := shapes[k].C
		for i := range positions {
			copy(dst[i*width+at:][:c], src[i*c:])
		}
		at += c
	}
}

// Apply moves nothing where both shapes have one position or one channel, as C, H, W
// order and H, W, C order are then the same, nor where the channels stay.
func (r Reshape) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	from, src := shapes[0], in[0]
	if from.C == r.To.C || from.flat() && r.To.flat() {
		copy(dst, src)
		return
	}
	// One sample is permuted at a time, by way of its C, H, W order.
	l := from.Len()
	chw := make([]float32, l)
	for ; n > 0; n, dst, src = n-1, dst[l:], src[l:] {
		HWCToCHW(chw, src[:l], 1, from)
		CHWToHWC(dst[:l], chw, 1, r.To)
	}
}

// Apply subtracts the largest channel first, so that no exponential overflows.
func (Softmax) Apply(dst []float32, _ int, shapes []Shape, in ...[]float32) {
	c := shapes[0].C
	for src := in[0][:len(dst)]; len(src) > 0; src, dst = src[c:], dst[c:] {
		top := slices.Max(src[:c])
		if negativeInfinity(top) {
			clear(dst[:c])
			continue
		}
		sum := 0.0 // in [1, c]
		for i, v := range src[:c] {
			e := math.Exp(float64(v) - float64(top))
			dst[i] = float32(e)
			sum += e
		}
		for i := range dst[:c] {
			dst[i] = float32(float64(dst[i]) / sum)
		}
	}
}
