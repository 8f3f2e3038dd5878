package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

func (p *parser) neg(n *node) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	return p.scaled(x, -1, 0)
}

func (p *parser) elu(n *node) (operand, error) {
	return elementary(graph.ELU{Alpha: n.float("alpha", 1)})(p, n)
}

// celu reads max(0, x) + min(0, alpha (exp(x/alpha) - 1)).
func (p *parser) celu(n *node) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	alpha := n.float("alpha", 1)
	if !(alpha > 0) {
		return x, p.refuse(n, "alpha=%v", alpha)
	}
	if x, err = p.scaled(x, 1/alpha, 0); err != nil {
		return x, err
	}
	if x, err = p.apply(graph.ELU{Alpha: 1}, x.axes, x); err != nil {
		return x, err
	}
	return p.scaled(x, alpha, 0)
}

// selu reads gamma x where x > 0, and gamma alpha (exp(x) - 1) elsewhere.
func (p *parser) selu(n *node) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	if x, err = p.apply(graph.ELU{Alpha: n.float("alpha", 1.67326319217681884765625)}, x.axes, x); err != nil {
		return x, err
	}
	return p.scaled(x, n.float("gamma", 1.05070102214813232421875), 0)
}

// prelu reads slopes of one value a channel.
func (p *parser) prelu(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
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

// times returns x y, where y came of x.
func (p *parser) times(x, y operand, err error) (operand, error) {
	if err != nil {
		return x, err
	}
	return p.apply(graph.Mul{}, x.axes, x, y)
}

// hardSwish reads x max(0, min(1, x/6 + 1/2)).
func (p *parser) hardSwish(n *node) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	y, err := p.ramp(x, 1./6, 0.5)
	return p.times(x, y, err)
}

// swish reads x / (1 + exp(-alpha x)).
func (p *parser) swish(n *node) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	y, err := p.scaled(x, n.float("alpha", 1), 0)
	if err == nil {
		y, err = p.apply(graph.Sigmoid{}, x.axes, y)
	}
	return p.times(x, y, err)
}

// mish reads x tanh(log(1 + exp(x))).
func (p *parser) mish(n *node) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	y, err := p.apply(graph.Softplus{}, x.axes, x)
	if err == nil {
		y, err = p.apply(graph.Tanh{}, x.axes, y)
	}
	return p.times(x, y, err)
}

// gelu reads x (1 + erf(x/√2)) / 2, or x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
func (p *parser) gelu(n *node) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	approximate, given := n.attribute("approximate")
	var y operand
	switch kind := string(approximate.s); {
	case !given || kind == "none":
		if y, err = p.scaled(x, math.Sqrt2/2, 0); err == nil {
			y, err = p.apply(graph.Erf{}, x.axes, y)
		}
	case kind == "tanh":
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

// normalised returns x less its mean, over axes, and divided by the root of its variance plus epsilon.
func (p *parser) normalised(x operand, over map[axis]bool, epsilon float32) (operand, error) {
	mean, err := p.reduced("ReduceMean", x, over)
	if err != nil {
		return x, err
	}
	d, err := p.apply(graph.Sub{}, x.axes, x, mean)
	if err != nil {
		return x, err
	}
	y, err := p.apply(graph.Square{}, x.axes, d)
	if err == nil {
		y, err = p.reduced("ReduceMean", y, over)
	}
	if err == nil {
		y, err = p.scaled(y, 1, epsilon)
	}
	if err == nil {
		y, err = p.apply(graph.Sqrt{}, x.axes, y)
	}
	if err != nil {
		return x, err
	}
	return p.apply(graph.Div{}, x.axes, d, y)
}

// layerNorm reads a LayerNormalization.
func (p *parser) layerNorm(n *node) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	s := x.view()
	from, err := p.index(n, s, n.int("axis", -1))
	if err != nil {
		return x, err
	}
	for i := from + 1; i < len(s.dims); i++ {
		if s.size(i).batch {
			return x, p.refuse(n, "across samples")
		}
	}
	over := map[axis]bool{}
	if last := len(s.dims) - 1; x.split == nil && from < last {
		for _, a := range x.axes[from-1:] {
			over[a] = true
		}
	} else {
		if from == last {
			x, _, err = p.lastAlongC(n, x)
		} else {
			var all []int
			for i := range last + 1 - from {
				all = append(all, from+i)
			}
			x, err = p.placed(x, all, nil, s.others(all...))
		}
		if err != nil {
			return x, err
		}
		over[axisC] = true
	}
	y, err := p.normalised(x, over, n.float("epsilon", 1e-5))
	if err != nil {
		return x, err
	}
	// Scales and shifts, each of its own extent.
	for i := 1; i < 3 && (i == 1 || n.has(2)); i++ {
		t, err := p.constant(n, i)
		if err != nil {
			return x, err
		}
		y2, v, extent, err := p.spread(n, t, y)
		if err != nil {
			return x, err
		}
		a := &graph.Affine{Scale: v}
		if i == 2 {
			a = &graph.Affine{Shift: v}
		}
		if y, err = p.apply(elementAffine(extent, a, y2), y2.axes, y2); err != nil {
			return x, err
		}
	}
	return y, nil
}

// instanceNorm reads an InstanceNormalization: of each channel, over its map.
func (p *parser) instanceNorm(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	if len(x.axes) < 2 {
		return x, fmt.Errorf("%w: input of rank %d", ErrInvalid, x.rank())
	}
	if x, err = p.channelsAt(x, 0); err != nil {
		return x, err
	}
	if x, err = p.normalised(x, map[axis]bool{axisH: true, axisW: true}, n.float("epsilon", 1e-5)); err != nil {
		return x, err
	}
	return p.scaledBy(n, x, 1)
}

// scaledBy returns x times input 1 of n plus input 2, each of which has repeat channels a value.
func (p *parser) scaledBy(n *node, x operand, repeat int) (operand, error) {
	a := new(graph.Affine)
	for i, v := range []*[]float32{&a.Scale, &a.Shift} {
		t, err := p.constant(n, i+1)
		if err != nil {
			return x, err
		}
		f, err := p.floats32(n, t)
		if err != nil {
			return x, err
		}
		if len(t.dims) != 1 || len(f)*repeat != x.shape.C {
			return x, fmt.Errorf("%w: %d scales or shifts for %d channels", ErrInvalid, len(f), x.shape.C)
		}
		if err := p.charge(x.shape.C); err != nil {
			return x, err
		}
		for _, s := range f {
			*v = append(*v, slices.Repeat([]float32{s}, repeat)...)
		}
	}
	return p.apply(a, x.axes, x)
}

// groupNorm reads a GroupNormalization. Its scale and bias have a value a group
// before opset 21.
func (p *parser) groupNorm(n *node) (operand, error) {
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	dims := x.dims()
	groups := n.int("num_groups", 0)
	if groups <= 0 || dims[0]%groups != 0 {
		return x, fmt.Errorf("%w: %d channels in %d groups", ErrInvalid, dims[0], groups)
	}
	y, err := p.reshaped(n, x, []int64{groups, int64(x.shape.Len()) / groups})
	if err == nil {
		y, _, err = p.settled(y) // which is no more than N x C x L
	}
	if err == nil {
		y, err = p.normalised(y, map[axis]bool{axisW: true}, n.float("epsilon", 1e-5))
	}
	if err == nil {
		y, err = p.reshaped(n, y, dims)
	}
	if err == nil {
		y, _, err = p.settled(y)
	}
	if err != nil {
		return x, err
	}
	repeat := 1
	if p.opset < 21 {
		repeat = int(dims[0] / groups)
	}
	return p.scaledBy(n, y, repeat)
}
