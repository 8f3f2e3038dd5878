package graph

import (
	"fmt"
	"math"
	"slices"
)

type (
	// ELU is x where x > 0, and Alpha (exp(x) - 1) elsewhere.
	ELU struct{ Alpha float32 }
	// Softplus is log(1 + exp(x)).
	Softplus struct{}
	// Erf is the error function.
	Erf struct{}
	// Exp is the exponential.
	Exp struct{}
	// Log is the natural logarithm.
	Log struct{}
	// Abs is the magnitude.
	Abs struct{}
	// Reciprocal is 1/x.
	Reciprocal struct{}
	// Sqrt is the square root.
	Sqrt struct{}
	// LogSoftmax is x_i - log Σ exp(x_j) over the channels of every position.
	LogSoftmax struct{}
	// ChannelMean is the mean of the channels of every position.
	ChannelMean struct{}
)

// PReLU is max(x, 0) + Slope min(x, 0), with one slope a channel. Slopes are
// secrets of the model, as weights are.
type PReLU struct{ Slope []float32 }

func (ELU) Name() string         { return "elu" }
func (Softplus) Name() string    { return "softplus" }
func (Erf) Name() string         { return "erf" }
func (Exp) Name() string         { return "exp" }
func (Log) Name() string         { return "log" }
func (Abs) Name() string         { return "abs" }
func (Reciprocal) Name() string  { return "reciprocal" }
func (Sqrt) Name() string        { return "sqrt" }
func (LogSoftmax) Name() string  { return "log_softmax" }
func (ChannelMean) Name() string { return "channel_mean" }
func (*PReLU) Name() string      { return "prelu" }

func (ELU) InPlace() bool         { return true }
func (Softplus) InPlace() bool    { return true }
func (Erf) InPlace() bool         { return true }
func (Exp) InPlace() bool         { return true }
func (Log) InPlace() bool         { return true }
func (Abs) InPlace() bool         { return true }
func (Reciprocal) InPlace() bool  { return true }
func (Sqrt) InPlace() bool        { return true }
func (LogSoftmax) InPlace() bool  { return true }
func (ChannelMean) InPlace() bool { return false }
func (*PReLU) InPlace() bool      { return true }

func (e ELU) OutShape(in ...Shape) (Shape, error)      { return finite(in, e.Alpha) }
func (Softplus) OutShape(in ...Shape) (Shape, error)   { return single(in) }
func (Erf) OutShape(in ...Shape) (Shape, error)        { return single(in) }
func (Exp) OutShape(in ...Shape) (Shape, error)        { return single(in) }
func (Log) OutShape(in ...Shape) (Shape, error)        { return single(in) }
func (Abs) OutShape(in ...Shape) (Shape, error)        { return single(in) }
func (Reciprocal) OutShape(in ...Shape) (Shape, error) { return single(in) }
func (Sqrt) OutShape(in ...Shape) (Shape, error)       { return single(in) }
func (LogSoftmax) OutShape(in ...Shape) (Shape, error) { return single(in) }

func (ChannelMean) OutShape(in ...Shape) (Shape, error) {
	s, err := single(in)
	s.C = min(s.C, 1)
	return s, err
}

func (p *PReLU) OutShape(in ...Shape) (Shape, error) {
	s, err := finite(in, p.Slope...)
	if err == nil && len(p.Slope) != s.C {
		err = fmt.Errorf("%w: %d slopes for %d channels", ErrInvalid, len(p.Slope), s.C)
	}
	return s, err
}

func (e ELU) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		if v > 0 {
			dst[i] = v
		} else {
			dst[i] = float32(float64(e.Alpha) * math.Expm1(float64(v)))
		}
	}
}

// Apply takes the exponential of what is not positive, which does not overflow.
func (Softplus) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		x := float64(v)
		dst[i] = float32(max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))))
	}
}

func (Erf) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) { each(dst, in[0], math.Erf) }
func (Exp) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) { each(dst, in[0], math.Exp) }
func (Log) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) { each(dst, in[0], math.Log) }
func (Abs) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) { each(dst, in[0], math.Abs) }
func (Reciprocal) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		dst[i] = 1 / v
	}
}

func (Sqrt) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) { each(dst, in[0], math.Sqrt) }

// each sets dst to f of x, rounded once.
func each(dst, x []float32, f func(float64) float64) {
	for i, v := range x[:len(dst)] {
		dst[i] = float32(f(float64(v)))
	}
}

// Apply subtracts the largest channel first, as that of Softmax does.
func (LogSoftmax) Apply(dst []float32, _ int, shapes []Shape, in ...[]float32) {
	c := shapes[0].C
	for src := in[0][:len(dst)]; len(src) > 0; src, dst = src[c:], dst[c:] {
		top := slices.Max(src[:c])
		sum := 0.0 // in [1, c]
		for _, v := range src[:c] {
			sum += math.Exp(float64(v) - float64(top))
		}
		log := math.Log(sum)
		for i, v := range src[:c] {
			dst[i] = float32(float64(v) - float64(top) - log)
		}
	}
}

func (ChannelMean) Apply(dst []float32, _ int, shapes []Shape, in ...[]float32) {
	c := shapes[0].C
	for i := range dst {
		sum := 0.0
		for _, v := range in[0][i*c:][:c] {
			sum += float64(v)
		}
		dst[i] = float32(sum / float64(c))
	}
}

func (p *PReLU) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	c := len(p.Slope)
	for i := 0; i < len(dst); i += c {
		d, x := dst[i:][:c], in[0][i:][:c]
		for j, s := range p.Slope {
			d[j] = max(x[j], 0) + s*min(x[j], 0) // one of the two is 0
		}
	}
}
