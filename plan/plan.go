// Package plan describes the linear operators of a network: their shapes and their ring.
// The cloud's side knows nothing else of a network.
//
// This notation is used everywhere: a feature map is H x W x C in NHWC order (channels
// last), a batch is sample-major, a vector is 1 x 1 x C. A weight matrix has one row per
// output (channel) and one column per input of the contraction:
//
//	dense    y[o]       = Σ_i          w[o, i] · x[i]
//	conv2d   y[p, q, o] = Σ_{a, b, i}  w[o, (a·KW + b)·C/G + i] · x[p·SH + a·DH - top, q·SW + b·DW - left, g·C/G + i]
//
// where g is the group of output channel o, and x is zero outside the map.
package plan

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/securenets/securenets/ring"
)

// Limits on what a plan from outside may ask for. Every product of sizes in a
// valid plan fits an int.
const (
	MaxLayers = 1024
	// MaxExtent bounds every single size, and the number of words in a sample and in a
	// weight matrix.
	MaxExtent = 1 << 31
)

// ErrInvalid reports an operator or plan whose sizes make no sense or exceed a limit.
var ErrInvalid = errors.New("plan: invalid")

// Kind names an operator.
type Kind string

const (
	KindDense  Kind = "dense"
	KindConv2D Kind = "conv2d"
)

// Conv2D is the geometry of a convolution. All sizes are in elements.
type Conv2D struct {
	H, W, C               int // input map
	OutC                  int // output channels
	KH, KW                int // kernel
	SH, SW                int // stride
	DH, DW                int // dilation, 1 for none
	Top, Left, Bot, Right int // zero padding
	Groups                int // 1 for none
}

// Op is one linear operator. It is a comparable value. Its sizes may come from outside:
// Validate and String take any sizes, the other methods only valid ones.
type Op struct {
	Kind Kind
	// In and Out are the vector lengths of a dense operator; 0 for others.
	In, Out int
	// Conv is the geometry of a convolution; zero for others.
	Conv Conv2D
}

// Dense returns the operator y = W x with W out x in.
func Dense(in, out int) Op { return Op{Kind: KindDense, In: in, Out: out} }

// Conv returns the convolution of the given geometry.
func Conv(c Conv2D) Op { return Op{Kind: KindConv2D, Conv: c} }

// AsConv returns the operator as a convolution: a dense operator is a convolution of a
// 1x1 map.
func (o Op) AsConv() Conv2D {
	if o.Kind == KindConv2D {
		return o.Conv
	}
	return Conv2D{H: 1, W: 1, C: o.In, OutC: o.Out, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}
}

// OutH returns the rows of the output map.
func (c Conv2D) OutH() int { return (c.H+c.Top+c.Bot-c.DH*(c.KH-1)-1)/c.SH + 1 }

// OutW returns the columns of the output map.
func (c Conv2D) OutW() int { return (c.W+c.Left+c.Right-c.DW*(c.KW-1)-1)/c.SW + 1 }

// Positions returns OutH·OutW.
func (c Conv2D) Positions() int { return c.OutH() * c.OutW() }

// Patch returns KH·KW·C/Groups, the length of one contraction.
func (c Conv2D) Patch() int { return c.KH * c.KW * (c.C / c.Groups) }

// InLen returns the number of words in one input sample.
func (o Op) InLen() int {
	if o.Kind == KindConv2D {
		return o.Conv.H * o.Conv.W * o.Conv.C
	}
	return o.In
}

// OutLen returns the number of words in one output sample.
func (o Op) OutLen() int {
	if o.Kind == KindConv2D {
		return o.Conv.Positions() * o.Conv.OutC
	}
	return o.Out
}

// Rows returns the number of rows of the weight matrix, one per output (channel).
func (o Op) Rows() int {
	if o.Kind == KindConv2D {
		return o.Conv.OutC
	}
	return o.Out
}

// Terms returns the number of columns of the weight matrix, which is the length of one
// contraction.
func (o Op) Terms() int {
	if o.Kind == KindConv2D {
		return o.Conv.Patch()
	}
	return o.In
}

// MulAdds returns the multiply-adds of one sample, padding counted.
func (o Op) MulAdds() int64 { return int64(o.OutLen()) * int64(o.Terms()) }

func (o Op) String() string {
	if o.Validate() != nil {
		return fmt.Sprintf("invalid %.32q", string(o.Kind))
	}
	if o.Kind == KindDense {
		return fmt.Sprintf("%s %d->%d", o.Kind, o.In, o.Out)
	}
	c := o.Conv
	return fmt.Sprintf("conv2d %dx%dx%d->%dx%dx%d kernel %dx%d", c.H, c.W, c.C, c.OutH(), c.OutW(), c.OutC, c.KH, c.KW)
}

// Validate returns an error wrapping ErrInvalid unless every size is positive
// (padding: not negative), within the limits, and the contraction is at most
// ring.MaxTerms long.
func (o Op) Validate() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w %s: %s", ErrInvalid, o.Kind, fmt.Sprintf(format, a...))
	}
	switch o.Kind {
	case KindDense:
		if o.Conv != (Conv2D{}) {
			return bad("convolution sizes given")
		}
		if o.In <= 0 || o.Out <= 0 || o.In > MaxExtent || o.Out > MaxExtent {
			return bad("%d inputs, %d outputs", o.In, o.Out)
		}
	case KindConv2D:
		c := o.Conv
		if o.In != 0 || o.Out != 0 {
			return bad("dense sizes given")
		}
		for _, v := range []int{c.H, c.W, c.C, c.OutC, c.KH, c.KW, c.SH, c.SW, c.DH, c.DW, c.Groups} {
			if v <= 0 || v > math.MaxInt32 {
				return bad("size %d", v)
			}
		}
		for _, v := range []int{c.Top, c.Left, c.Bot, c.Right} {
			if v < 0 || v > math.MaxInt32 {
				return bad("padding %d", v)
			}
		}
		if c.C%c.Groups != 0 || c.OutC%c.Groups != 0 {
			return bad("%d groups do not divide %d and %d channels", c.Groups, c.C, c.OutC)
		}
		// Below: each factor is under 2^31, so each product of two fits.
		if kh := c.DH*(c.KH-1) + 1; kh > c.H+c.Top+c.Bot {
			return bad("kernel of %d rows over %d", kh, c.H+c.Top+c.Bot)
		}
		if kw := c.DW*(c.KW-1) + 1; kw > c.W+c.Left+c.Right {
			return bad("kernel of %d columns over %d", kw, c.W+c.Left+c.Right)
		}
		if c.Top >= c.DH*(c.KH-1)+1 || c.Bot >= c.DH*(c.KH-1)+1 || c.Left >= c.DW*(c.KW-1)+1 || c.Right >= c.DW*(c.KW-1)+1 {
			return bad("padding reaches the kernel's size")
		}
		if !fits(c.H, c.W, c.C) || !fits(c.OutH(), c.OutW(), c.OutC) || !fits(c.KH, c.KW, c.C/c.Groups) {
			return bad("a map or kernel has more than %d words", MaxExtent)
		}
	default:
		return fmt.Errorf("%w: unknown operator %.32q", ErrInvalid, string(o.Kind))
	}
	if o.Terms() > ring.MaxTerms {
		return bad("contraction over %d terms, at most %d are exact", o.Terms(), ring.MaxTerms)
	}
	if !fits(o.Rows(), o.Terms()) {
		return bad("the weight matrix has more than %d words", MaxExtent)
	}
	return nil
}

// fits reports whether the product of positive sizes is at most MaxExtent.
func fits(sizes ...int) bool {
	p := 1
	for _, s := range sizes {
		if s > MaxExtent/p {
			return false
		}
		p *= s
	}
	return true
}

// Plan is the linear part of a network: numbered operators over one ring.
type Plan struct {
	Ring ring.Ring
	Ops  []Op
}

// Validate returns an error wrapping ErrInvalid unless the ring is valid, there are 1 to
// MaxLayers operators, and each is valid.
func (p Plan) Validate() error {
	if !p.Ring.Valid() {
		return fmt.Errorf("%w: no ring", ErrInvalid)
	}
	if len(p.Ops) == 0 || len(p.Ops) > MaxLayers {
		return fmt.Errorf("%w: %d operators, want 1 to %d", ErrInvalid, len(p.Ops), MaxLayers)
	}
	for i, o := range p.Ops {
		if err := o.Validate(); err != nil {
			return fmt.Errorf("operator %d: %w", i, err)
		}
	}
	return nil
}

// A Product computes exact products with one loaded weight matrix.
// It may be used by several goroutines at once.
type Product interface {
	// Evaluate sets y = W x over the ring for a batch: row s of x (InLen words) gives row
	// s of y (OutLen words). Both are row-major; x is canonical and y comes out
	// canonical. y and x must not overlap. Once it has returned, with an error or not,
	// nothing reads x or writes y.
	Evaluate(ctx context.Context, y, x ring.Matrix) error
	// Close frees what the product holds. No Evaluate may be in progress or follow.
	Close() error
}

// A Multiplier loads weight matrices. It may be used by several goroutines at once.
type Multiplier interface {
	// Load prepares products with w, the op.Rows() x op.Terms() row-major
	// canonical weight matrix. It keeps no reference to w.
	Load(ctx context.Context, r ring.Ring, op Op, w ring.Matrix) (Product, error)
}
