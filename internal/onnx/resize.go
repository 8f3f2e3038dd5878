package onnx

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// Resize and Upsample.

// resize reads Resize and Upsample, of rows and columns.
func (p *parser) resize(n *node) (operand, error) {
	r, err := p.interpolation(n)
	if err != nil {
		return operand{}, err
	}
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	dims, scales, err := p.resizedTo(n, x)
	if err != nil {
		return x, err
	}
	if _, ok := extent(dims); !ok {
		return x, fmt.Errorf("%w: resized to %d", ErrInvalid, dims)
	}
	to := shaped(x.axes, dims)
	if scales[axisC] != 1 || to.C != x.shape.C {
		return x, p.refuse(n, "of channels")
	}
	r.H, r.W, r.ScaleH, r.ScaleW = to.H, to.W, scales[axisH], scales[axisW]
	if to == x.shape {
		if r.ScaleH != 1 || r.ScaleW != 1 { // runtimes differ in whether that does something
			return x, p.refuse(n, "scales that change no extent")
		}
		return x, nil
	}
	return p.apply(r, x.axes, x)
}

// upsamples reports whether n has the inputs and the meaning of Upsample, as the first Resize had.
func (p *parser) upsamples(n *node) bool { return n.op == "Upsample" || p.opset < 11 }

// interpolation returns the Resize that n is, of no extents yet: which elements it makes of which.
func (p *parser) interpolation(n *node) (graph.Resize, error) {
	r := graph.Resize{Mode: n.text("mode", "nearest"), Places: "asymmetric", Rounding: "floor"}
	if !p.upsamples(n) {
		r.Places = n.text("coordinate_transformation_mode", "half_pixel")
		r.Rounding = n.text("nearest_mode", "round_prefer_floor")
	} else if r.Mode == "bilinear" { // before opset 9
		r.Mode = "linear"
	}
	err := error(nil)
	if !slices.Contains(graph.ResizeModes, r.Mode) {
		err = p.refuse(n, "mode=%s", clean(r.Mode))
	}
	if r.Mode != "nearest" {
		r.Rounding = ""
	} else if !slices.Contains(graph.ResizeRoundings, r.Rounding) {
		err = p.refuse(n, "nearest_mode=%s", clean(r.Rounding))
	}
	if !slices.Contains(graph.ResizePlaces, r.Places) {
		err = p.refuse(n, "coordinate_transformation_mode=%s", clean(r.Places))
	}
	if policy := n.text("keep_aspect_ratio_policy", "stretch"); policy != "stretch" {
		err = p.refuse(n, "keep_aspect_ratio_policy=%s", clean(policy))
	}
	if n.int("antialias", 0) != 0 {
		err = p.refuse(n, "antialias=1")
	}
	if a := n.float("cubic_coeff_a", -0.75); r.Mode == "cubic" && a != -0.75 {
		err = p.refuse(n, "cubic_coeff_a=%v", a)
	}
	if n.int("exclude_outside", 0) != 0 {
		err = p.refuse(n, "exclude_outside=1")
	}
	return r, err
}

// resizedTo returns the extents after the batch that n gives x, and how many times those that x has
// they are along each axis.
func (p *parser) resizedTo(n *node, x operand) (to []int64, scales [3]float32, err error) {
	to, scales = x.dims(), [3]float32{1, 1, 1}
	a, given := n.attribute("axes")
	dims, err := p.dimensions(n, x, a.ints, given)
	if err != nil {
		return to, scales, err
	}
	by, sizes, err := p.scalesOrSizes(n, len(dims))
	if err != nil {
		return to, scales, err
	}
	seen := map[int]bool{}
	for k, i := range dims {
		if seen[i] {
			return to, scales, fmt.Errorf("%w: an axis twice", ErrInvalid)
		}
		seen[i] = true
		switch {
		case i < 0 && (by != nil && by[k] == 1 || by == nil && p.isBatch(sizes[k])):
		case i < 0 || by == nil && sizes[k].batch:
			return to, scales, p.refuse(n, "across samples")
		case by == nil:
			scales[x.axes[i]] = float32(sizes[k].n) / float32(to[i])
			to[i] = sizes[k].n
		case by[k] < 1 && p.opset < 11:
			return to, scales, p.refuse(n, "scale of %v", by[k])
		default:
			scales[x.axes[i]] = by[k]
			to[i] = int64(graph.Scaled(int(to[i]), by[k]))
		}
	}
	return to, scales, nil
}

// scalesOrSizes returns what n says of so many dimensions: how much larger they become, or else their
// sizes.
func (p *parser) scalesOrSizes(n *node, dims int) (by []float32, to []size, err error) {
	i := 2
	if p.upsamples(n) {
		i = 1
	}
	if by, err = p.scales(n, i); err != nil {
		return nil, nil, err
	}
	ok := len(by) == dims && by != nil
	if by == nil && n.has(3) {
		s, err := p.sizes(n, 3)
		if err != nil {
			return nil, nil, err
		}
		to, ok = s.v, len(s.v) == dims && len(s.dims) == 1
	}
	if !ok {
		return nil, nil, fmt.Errorf("%w: neither scales nor sizes for %d axes", ErrInvalid, dims)
	}
	return by, to, nil
}

// scales returns the attribute, or input i, with which n says how much larger a value becomes
// along each axis, or nil where it is not given or empty.
func (p *parser) scales(n *node, i int) ([]float32, error) {
	if a, given := n.attribute("scales"); given {
		return a.floats, nil
	}
	if !n.has(i) {
		return nil, nil
	}
	t, err := p.constant(n, i)
	if err != nil || len(t.dims) == 1 && t.dims[0] == 0 {
		return nil, err
	}
	if len(t.dims) != 1 || t.dims[0] > maxRank {
		return nil, fmt.Errorf("%w: scales of shape %d", ErrInvalid, t.dims)
	}
	return p.floats32(n, t)
}
