package graph

import (
	"fmt"

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

func (*Dense) Name() string          { return "dense" }
func (*Conv2D) Name() string         { return "conv2d" }
func (d *Dense) Plan() plan.Op       { return plan.Dense(d.In, d.Out) }
func (d *Dense) Weights() []float32  { return d.W }
func (d *Dense) Stored() Source      { return d.From }
func (d *Dense) Bias() []float32     { return d.B }
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

// Source sets dst, which is as long as the weights of a linear operator, to them. It may
// be called by several goroutines at once.
type Source func(dst []float32) error

// ReadWeights sets dst, of l.Plan().Rows() x l.Plan().Terms() elements, to l's weights,
// which it must have, and checks that they are finite.
func ReadWeights(dst []float32, l Linear) error {
	if read := l.Stored(); read != nil {
		if err := read(dst); err != nil {
			return err
		}
	} else if n := copy(dst, l.Weights()); n != len(dst) {
		return fmt.Errorf("%w: %d weights, want %d", ErrInvalid, n, len(dst))
	}
	if i := notFinite(dst); i >= 0 {
		return fmt.Errorf("%w: weight %d", ErrNotFinite, i)
	}
	return nil
}

// checkParameters checks the weights and the bias that a linear operator of
// valid shape holds.
func checkParameters(l Linear) error {
	p := l.Plan()
	if w := l.Weights(); w != nil {
		if len(w) != p.Rows()*p.Terms() {
			return fmt.Errorf("%w: %d weights, want %d x %d", ErrInvalid, len(w), p.Rows(), p.Terms())
		}
		if i := notFinite(w); i >= 0 {
			return fmt.Errorf("%w: weight %d", ErrNotFinite, i)
		}
	}
	if b := l.Bias(); b != nil {
		if len(b) != p.Rows() {
			return fmt.Errorf("%w: %d bias values, want %d", ErrInvalid, len(b), p.Rows())
		}
		if i := notFinite(b); i >= 0 {
			return fmt.Errorf("%w: bias %d", ErrNotFinite, i)
		}
	}
	return nil
}
