package graph

import (
	"fmt"
	"math"
)

// unary is embedded in operators of one input that give every element its own result, or every
// position its own channels: the shape stays, and the result may take the input's place.
type unary struct{}

func (unary) InPlace() bool                       { return true }
func (unary) OutShape(in ...Shape) (Shape, error) { return single(in) }

// single returns the shape of the one input.
func single(in []Shape) (Shape, error) {
	if len(in) != 1 {
		return Shape{}, fmt.Errorf("%w: %d inputs, want 1", ErrInvalid, len(in))
	}
	return in[0], nil
}

// finite returns the shape of the one input of an operator with the given parameters.
func finite(in []Shape, parameters ...float32) (Shape, error) {
	if i := notFinite(parameters); i >= 0 {
		return Shape{}, fmt.Errorf("%w: parameter %d", ErrNotFinite, i)
	}
	return single(in)
}

// Functions of one element.
type (
	// ReLU is max(x, 0).
	ReLU struct{ unary }
	// LeakyReLU is max(x, 0) + Alpha min(x, 0).
	LeakyReLU struct {
		unary
		Alpha float32
	}
	// ELU is x where x > 0, and Alpha (exp(x) - 1) elsewhere.
	ELU struct {
		unary
		Alpha float32
	}
	// Clip is min(max(x, Min), Max), in that order. No bound is ±math.MaxFloat32.
	Clip struct {
		unary
		Min, Max float32
	}
	// Step is 1 where x > 0, and 0 elsewhere.
	Step struct{ unary }
	// Sigmoid is 1/(1 + exp(-x)).
	Sigmoid struct{ unary }
	// Tanh is the hyperbolic tangent.
	Tanh struct{ unary }
	// Softplus is log(1 + exp(x)).
	Softplus struct{ unary }
	// Erf is the error function.
	Erf struct{ unary }
	// Exp is the exponential.
	Exp struct{ unary }
	// Log is the natural logarithm.
	Log struct{ unary }
	// Sqrt is the square root.
	Sqrt struct{ unary }
	// Square is x².
	Square struct{ unary }
	// Abs is the magnitude.
	Abs struct{ unary }
	// Reciprocal is 1/x.
	Reciprocal struct{ unary }
)

// PReLU is max(x, 0) + Slope min(x, 0), with one slope a channel. Slopes are
// secrets of the model, as weights are.
type PReLU struct {
	unary
	Slope []float32
}

func (ReLU) Name() string       { return "relu" }
func (LeakyReLU) Name() string  { return "leaky_relu" }
func (ELU) Name() string        { return "elu" }
func (Clip) Name() string       { return "clip" }
func (Step) Name() string       { return "step" }
func (Sigmoid) Name() string    { return "sigmoid" }
func (Tanh) Name() string       { return "tanh" }
func (Softplus) Name() string   { return "softplus" }
func (Erf) Name() string        { return "erf" }
func (Exp) Name() string        { return "exp" }
func (Log) Name() string        { return "log" }
func (Sqrt) Name() string       { return "sqrt" }
func (Square) Name() string     { return "square" }
func (Abs) Name() string        { return "abs" }
func (Reciprocal) Name() string { return "reciprocal" }
func (*PReLU) Name() string     { return "prelu" }

func (l LeakyReLU) OutShape(in ...Shape) (Shape, error) { return finite(in, l.Alpha) }
func (e ELU) OutShape(in ...Shape) (Shape, error)       { return finite(in, e.Alpha) }
func (c Clip) OutShape(in ...Shape) (Shape, error)      { return finite(in, c.Min, c.Max) }

func (p *PReLU) OutShape(in ...Shape) (Shape, error) {
	s, err := finite(in, p.Slope...)
	if err == nil && len(p.Slope) != s.C {
		err = fmt.Errorf("%w: %d slopes for %d channels", ErrInvalid, len(p.Slope), s.C)
	}
	return s, err
}

func (ReLU) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) { vectors.rectify(dst, in[0]) }

func (l LeakyReLU) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		dst[i] = max(v, 0) + l.Alpha*min(v, 0) // one of the two is 0
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

func (e ELU) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		if v > 0 {
			dst[i] = v
		} else {
			dst[i] = float32(float64(e.Alpha) * math.Expm1(float64(v)))
		}
	}
}

func (c Clip) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		dst[i] = min(max(v, c.Min), c.Max)
	}
}

func (Step) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		dst[i] = 0
		if v > 0 {
			dst[i] = 1
		}
	}
}

func (Square) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		dst[i] = v * v
	}
}

func (Reciprocal) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		dst[i] = 1 / v
	}
}

func (Sigmoid) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		dst[i] = float32(1 / (1 + math.Exp(-float64(v))))
	}
}

// Apply takes the exponential of what is not positive, which does not overflow.
func (Softplus) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) {
	for i, v := range in[0][:len(dst)] {
		x := float64(v)
		dst[i] = float32(max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))))
	}
}

func (Tanh) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) { each(dst, in[0], math.Tanh) }
func (Erf) Apply(dst []float32, _ int, _ []Shape, in ...[]float32)  { each(dst, in[0], math.Erf) }
func (Exp) Apply(dst []float32, _ int, _ []Shape, in ...[]float32)  { each(dst, in[0], math.Exp) }
func (Log) Apply(dst []float32, _ int, _ []Shape, in ...[]float32)  { each(dst, in[0], math.Log) }
func (Sqrt) Apply(dst []float32, _ int, _ []Shape, in ...[]float32) { each(dst, in[0], math.Sqrt) }
func (Abs) Apply(dst []float32, _ int, _ []Shape, in ...[]float32)  { each(dst, in[0], math.Abs) }

// each sets dst to f of x, rounded once.
func each(dst, x []float32, f func(float64) float64) {
	for i, v := range x[:len(dst)] {
		dst[i] = float32(f(float64(v)))
	}
}
