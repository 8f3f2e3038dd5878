package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// Normalisations.

// batchNorm reads Y = scale (X - mean) / sqrt(variance + epsilon) + bias.
func (p *parser) batchNorm(n *node) (operand, error) {
	var err error
	if n.int("training_mode", 0) != 0 {
		err = p.refuse(n, "training_mode=1")
	}
	if n.int("spatial", 1) != 1 {
		err = p.refuse(n, "spatial=0")
	}
	if err != nil {
		return operand{}, err
	}
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	if x, err = p.channelsAt(x, 0); err != nil {
		return x, err
	}
	var v [4][]float32 // scale, bias, mean, variance
	for i := range v {
		if v[i], err = p.vector(n, i+1, x.shape.C); err != nil {
			return x, err
		}
	}
	a, epsilon := &graph.Affine{Scale: v[0], Shift: v[1]}, float64(n.float("epsilon", 1e-5))
	for i := range a.Scale {
		s := float64(a.Scale[i]) / math.Sqrt(float64(v[3][i])+epsilon)
		a.Scale[i], a.Shift[i] = float32(s), float32(float64(a.Shift[i])-s*float64(v[2][i]))
	}
	return p.apply(a, x.axes, x)
}

// layerNorm reads a LayerNormalization.
func (p *parser) layerNorm(n *node, x operand) (operand, error) {
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
func (p *parser) instanceNorm(n *node, x operand) (operand, error) {
	if len(x.axes) < 2 {
		return x, fmt.Errorf("%w: input of rank %d", ErrInvalid, x.rank())
	}
	x, err := p.channelsAt(x, 0)
	if err != nil {
		return x, err
	}
	if x, err = p.normalised(x, map[axis]bool{axisH: true, axisW: true}, n.float("epsilon", 1e-5)); err != nil {
		return x, err
	}
	return p.scaledBy(n, x, 1)
}

// groupNorm reads a GroupNormalization. Its scale and bias have a value a group
// before opset 21.
func (p *parser) groupNorm(n *node, x operand) (operand, error) {
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

// lrn reads x / (bias + alpha/size Σ x²)^beta, the sum going over channels around.
func (p *parser) lrn(n *node, x operand) (operand, error) {
	x, err := p.channelsAt(x, 0)
	if err != nil {
		return x, err
	}
	size, bias := n.int("size", 0), n.float("bias", 1)
	if size <= 0 || size > math.MaxInt32 {
		return x, fmt.Errorf("%w: a window of %d channels", ErrInvalid, size)
	}
	if size%2 == 0 { // runtimes differ in what is around, if they read it at all
		return x, p.refuse(n, "size=%d", size)
	}
	if !(bias > 0) || !(n.float("alpha", 1e-4) >= 0) { // what is below 0 has no power
		return x, p.refuse(n, "bias=%v", bias)
	}
	axes := slices.Clone(x.axes)
	y, err := p.apply(graph.Square{}, axes, x)
	if err != nil {
		return x, err
	}
	// Channels are pooled as columns.
	turned := slices.Clone(axes)
	for i, a := range axes {
		turned[i] = map[axis]axis{axisC: axisW, axisH: axisH, axisW: axisC}[a]
	}
	if y, err = p.reordered(y, turned); err == nil {
		y, err = p.apply(graph.AvgPool{CountPad: true, Pool: graph.Pool{
			KH: 1, KW: int(size), SH: 1, SW: 1, Left: int(size / 2), Right: int(size / 2),
		}}, turned, y)
	}
	if err == nil {
		y, err = p.reordered(y, axes)
	}
	if err == nil {
		y, err = p.scaled(y, n.float("alpha", 1e-4), bias)
	}
	if err == nil {
		y, err = p.apply(graph.Log{}, axes, y)
	}
	if err == nil {
		y, err = p.scaled(y, -n.float("beta", 0.75), 0)
	}
	if err == nil {
		y, err = p.apply(graph.Exp{}, axes, y)
	}
	return p.times(x, y, err)
}
