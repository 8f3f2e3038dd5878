package onnx

import (
	"fmt"
	"math"

	"github.com/securenets/securenets/internal/graph"
)

// Functions of one value, element by element.

// leakyReLU reads max(0, x) + alpha min(0, x).
func (p *parser) leakyReLU(n *node) (operand, error) {
	return elementary(graph.LeakyReLU{Alpha: n.float("alpha", 0.01)})(p, n)
}

// elu reads x where x > 0, and alpha (exp(x) - 1) elsewhere.
func (p *parser) elu(n *node) (operand, error) {
	return elementary(graph.ELU{Alpha: n.float("alpha", 1)})(p, n)
}

// celu reads max(0, x) + min(0, alpha (exp(x/alpha) - 1)).
func (p *parser) celu(n *node, x operand) (operand, error) {
	alpha := n.float("alpha", 1)
	if !(alpha > 0) {
		return x, p.refuse(n, "alpha=%v", alpha)
	}
	x, err := p.scaled(x, 1/alpha, 0)
	if err != nil {
		return x, err
	}
	if x, err = p.apply(graph.ELU{Alpha: 1}, x.axes, x); err != nil {
		return x, err
	}
	return p.scaled(x, alpha, 0)
}

// selu reads gamma x where x > 0, and gamma alpha (exp(x) - 1) elsewhere.
func (p *parser) selu(n *node, x operand) (operand, error) {
	x, err := p.apply(graph.ELU{Alpha: n.float("alpha", 1.67326319217681884765625)}, x.axes, x)
	if err != nil {
		return x, err
	}
	return p.scaled(x, n.float("gamma", 1.05070102214813232421875), 0)
}

// prelu reads slopes of one value a channel.
func (p *parser) prelu(n *node, x operand) (operand, error) {
	t, err := p.constant(n, 1)
	if err != nil {
		return x, err
	}
	x, slope, err := p.perChannel(n, t, x)
	if err != nil {
		return x, err
	}
	return p.apply(&graph.PReLU{Slope: slope}, x.axes, x)
}

// clip reads bounds from attributes, as before opset 11, or from inputs.
func (p *parser) clip(n *node) (operand, error) {
	bounds := [2]float32{n.float("min", -math.MaxFloat32), n.float("max", math.MaxFloat32)}
	for i := range bounds {
		if n.has(i + 1) {
			v, err := p.scalar(n, i+1, "a bound")
			if err != nil {
				return operand{}, err
			}
			bounds[i] = v
		}
		// An infinite bound is none; NaN stays, to be refused.
		bounds[i] = min(max(bounds[i], -math.MaxFloat32), math.MaxFloat32)
	}
	return elementary(graph.Clip{Min: bounds[0], Max: bounds[1]})(p, n)
}

// hardSigmoid reads max(0, min(1, alpha x + beta)).
func (p *parser) hardSigmoid(n *node, x operand) (operand, error) {
	return p.ramp(x, n.float("alpha", 0.2), n.float("beta", 0.5))
}

// hardSwish reads x max(0, min(1, x/6 + 1/2)).
func (p *parser) hardSwish(n *node, x operand) (operand, error) {
	y, err := p.ramp(x, 1./6, 0.5)
	return p.times(x, y, err)
}

// ramp returns max(0, min(1, scale x + shift)).
func (p *parser) ramp(x operand, scale, shift float32) (operand, error) {
	x, err := p.scaled(x, scale, shift)
	if err != nil {
		return x, err
	}
	return p.apply(graph.Clip{Max: 1}, x.axes, x)
}

// swish reads x / (1 + exp(-alpha x)).
func (p *parser) swish(n *node, x operand) (operand, error) {
	y, err := p.scaled(x, n.float("alpha", 1), 0)
	if err == nil {
		y, err = p.apply(graph.Sigmoid{}, x.axes, y)
	}
	return p.times(x, y, err)
}

// mish reads x tanh(log(1 + exp(x))).
func (p *parser) mish(n *node, x operand) (operand, error) {
	y, err := p.apply(graph.Softplus{}, x.axes, x)
	if err == nil {
		y, err = p.apply(graph.Tanh{}, x.axes, y)
	}
	return p.times(x, y, err)
}

// gelu reads x (1 + erf(x/√2)) / 2, or x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
func (p *parser) gelu(n *node, x operand) (operand, error) {
	var y operand
	var err error
	switch n.text("approximate", "none") {
	case "none":
		if y, err = p.scaled(x, math.Sqrt2/2, 0); err == nil {
			y, err = p.apply(graph.Erf{}, x.axes, y)
		}
	case "tanh":
		const root = 0.7978845608028654 // √(2/π)
		if y, err = p.apply(graph.Square{}, x.axes, x); err == nil {
			y, err = p.scaled(y, root*0.044715, root)
		}
		if y, err = p.times(x, y, err); err == nil {
			y, err = p.apply(graph.Tanh{}, x.axes, y)
		}
	default:
		return x, fmt.Errorf("%w: unknown approximation", ErrInvalid)
	}
	if err == nil {
		y, err = p.scaled(y, 0.5, 0.5)
	}
	return p.times(x, y, err)
}

// neg reads -x.
func (p *parser) neg(n *node, x operand) (operand, error) {
	return p.scaled(x, -1, 0)
}

// sign reads 1 where x > 0 less 1 where x < 0.
func (p *parser) sign(n *node, x operand) (operand, error) {
	y, err := p.apply(graph.Step{}, x.axes, x)
	if err == nil {
		x, err = p.scaled(x, -1, 0)
	}
	if err == nil {
		x, err = p.apply(graph.Step{}, x.axes, x)
	}
	if err != nil {
		return x, err
	}
	return p.apply(graph.Sub{}, x.axes, y, x)
}

// sqrt reads a Sqrt of a value or of a number.
func (p *parser) sqrt(n *node) (operand, error) {
	if x, err := p.operand(n, 0); err == nil && x.constant != nil {
		return p.calculateFloats(n)
	}
	return elementary(graph.Sqrt{})(p, n)
}

// pow reads x to the power of one number: 0.5, 1, 2 or 3. Of a number it computes it.
func (p *parser) pow(n *node) (operand, error) {
	x, err := p.operand(n, 0)
	if err != nil {
		return x, err
	}
	if x.constant != nil {
		return p.calculateFloats(n)
	}
	if x, err = p.viewed(n, 0); err != nil {
		return x, err
	}
	e, single, err := p.number(n, 1, x.rank())
	if err != nil {
		return x, err
	}
	if !single {
		return x, p.refuse(n, "exponent of more than one number")
	}
	switch e {
	case 0.5:
		return p.apply(graph.Sqrt{}, x.axes, x)
	case 1:
		return x, nil
	case 2:
		return p.apply(graph.Square{}, x.axes, x)
	case 3:
		y, err := p.apply(graph.Square{}, x.axes, x)
		return p.times(x, y, err)
	}
	return x, p.refuse(n, "exponent of %v", e)
}

// times returns x y, where y came of x.
func (p *parser) times(x, y operand, err error) (operand, error) {
	if err != nil {
		return x, err
	}
	return p.apply(graph.Mul{}, x.axes, x, y)
}
