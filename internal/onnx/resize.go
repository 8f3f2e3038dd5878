package onnx

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// Resize and Upsample.

// resize reads Resize and Upsample, of rows and columns.
func (p *parser) resize(n *node) (operand, error) {
	named := func(name, otherwise string) string {
		if a, given := n.attribute(name); given {
			return string(a.s)
		}
		return otherwise
	}
	r := graph.Resize{Mode: named("mode", "nearest"), Places: "asymmetric", Rounding: "floor"}
	scales := 1 // the input that holds them
	if old := n.op == "Upsample" || p.opset < 11; !old {
		scales = 2
		r.Places = named("coordinate_transformation_mode", "half_pixel")
		r.Rounding = named("nearest_mode", "round_prefer_floor")
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
	if policy := named("keep_aspect_ratio_policy", "stretch"); policy != "stretch" {
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
	if err != nil {
		return operand{}, err
	}
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	a, given := n.attribute("axes")
	dims, err := p.dimensions(n, x, a.ints, given)
	if err != nil {
		return x, err
	}

	by, err := p.scales(n, scales)
	if err != nil {
		return x, err
	}
	var to *sizes
	if by == nil && n.has(3) {
		if to, err = p.sizes(n, 3); err != nil {
			return x, err
		}
	}
	if by == nil && to == nil || by != nil && len(by) != len(dims) || to != nil && (len(to.v) != len(dims) || len(to.dims) != 1) {
		return x, fmt.Errorf("%w: neither scales nor sizes for %d axes", ErrInvalid, len(dims))
	}
	result, s := x.dims(), []float32{1, 1, 1} // scales by axis
	seen := map[int]bool{}
	for k, i := range dims {
		if seen[i] {
			return x, fmt.Errorf("%w: an axis twice", ErrInvalid)
		}
		seen[i] = true
		if i < 0 {
			if by != nil && by[k] != 1 || to != nil && !to.v[k].batch && (p.batch == 0 || to.v[k].n != p.batch) {
				return x, p.refuse(n, "across samples")
			}
			continue
		}
		from := result[i]
		if by != nil {
			if p.opset < 11 && by[k] < 1 {
				return x, p.refuse(n, "scale of %v", by[k])
			}
			result[i], s[x.axes[i]] = int64(graph.Scaled(int(from), by[k])), by[k]
		} else if to.v[k].batch {
			return x, p.refuse(n, "across samples")
		} else {
			result[i], s[x.axes[i]] = to.v[k].n, float32(to.v[k].n)/float32(from)
		}
	}
	if _, ok := extent(result); !ok {
		return x, fmt.Errorf("%w: resized to %d", ErrInvalid, result)
	}
	out := shaped(x.axes, result)
	if s[axisC] != 1 || out.C != x.shape.C {
		return x, p.refuse(n, "of channels")
	}
	r.H, r.W, r.ScaleH, r.ScaleW = out.H, out.W, s[axisH], s[axisW]
	if out == x.shape {
		if r.ScaleH != 1 || r.ScaleW != 1 { // runtimes differ in whether that does something
			return x, p.refuse(n, "scales that change no extent")
		}
		return x, nil
	}
	return p.apply(r, x.axes, x)
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
