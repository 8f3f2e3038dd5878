package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// Windows over maps, and convolutions.

// window is the geometry that convolutions and pools share; pads are top, left,
// bottom, right.
type window struct {
	kernel, strides, dilations []int64
	pads                       []int64
	autoPad                    string
	rank                       int // of the input: 4, or 3 for a sequence, whose window has one row
}

// window reads the attributes of n. Without a kernel the operator is not one of
// two dimensions, and is refused.
func (p *parser) window(n *node, kernel []int64) (*window, error) {
	if a, ok := n.attribute("kernel_shape"); ok {
		if kernel != nil && !slices.Equal(kernel, a.ints) {
			return nil, fmt.Errorf("%w: kernel_shape is not that of the weights", ErrInvalid)
		}
		kernel = a.ints
	}
	if len(kernel) == 0 {
		return nil, fmt.Errorf("%w: no kernel_shape", ErrInvalid)
	}
	dims := len(kernel)
	if dims > 2 {
		return nil, p.refuse(n, "%d-D", dims)
	}
	w := &window{kernel: kernel, strides: []int64{1, 1}[:dims], dilations: []int64{1, 1}[:dims], pads: make([]int64, 2*dims), autoPad: "NOTSET"}
	for _, a := range n.attributes {
		switch a.name {
		case "strides":
			w.strides = a.ints
		case "dilations":
			w.dilations = a.ints
		case "pads":
			w.pads = a.ints
		case "auto_pad":
			w.autoPad = string(a.s)
		}
	}
	if len(w.strides) != dims || len(w.dilations) != dims || len(w.pads) != 2*dims {
		return nil, fmt.Errorf("%w: strides, dilations or pads of the wrong length", ErrInvalid)
	}
	w.rank = dims + 2
	if dims == 1 { // a sequence is a map of one row
		one := func(v int64) []int64 { return []int64{1, v} }
		w.kernel, w.strides, w.dilations = one(w.kernel[0]), one(w.strides[0]), one(w.dilations[0])
		w.pads = []int64{0, w.pads[0], 0, w.pads[1]}
	}
	for _, v := range slices.Concat(w.kernel, w.strides, w.dilations) {
		if v <= 0 || v > math.MaxInt32 {
			return nil, fmt.Errorf("%w: kernel, stride or dilation of %d", ErrInvalid, v)
		}
	}
	for _, v := range w.pads {
		if v < 0 || v > math.MaxInt32 {
			return nil, fmt.Errorf("%w: padding of %d", ErrInvalid, v)
		}
	}
	switch w.autoPad {
	case "NOTSET":
	case "VALID", "SAME_UPPER", "SAME_LOWER":
		if slices.Max(w.pads) != 0 {
			return nil, fmt.Errorf("%w: both auto_pad and pads", ErrInvalid)
		}
	default:
		return nil, fmt.Errorf("%w: unknown auto_pad", ErrInvalid)
	}
	return w, nil
}

// same reports whether the padding follows from the map.
func (w *window) same() bool { return w.autoPad == "SAME_UPPER" || w.autoPad == "SAME_LOWER" }

// padSame sets the padding that auto_pad SAME asks for: that of an output of
// ceil(size / stride), halved, its odd row or column at the end or the start.
// Where windows leave out more than one at the map's ends, runtimes differ in which.
func (p *parser) padSame(n *node, w *window, s graph.Shape) error {
	if !w.same() {
		return nil
	}
	for i, size := range []int64{int64(s.H), int64(s.W)} {
		steps := (size - 1) / w.strides[i]          // steps·stride < size < 2^32
		reach := w.dilations[i]*(w.kernel[i]-1) + 1 // < 2^62
		total := steps*w.strides[i] + reach - size
		if total < -1 {
			return p.refuse(n, "auto_pad=%s of negative padding", w.autoPad)
		}
		total = max(total, 0)
		small, large := total/2, total-total/2
		if w.autoPad == "SAME_LOWER" {
			small, large = large, small
		}
		w.pads[i], w.pads[i+2] = small, large
	}
	return nil
}

// convolved returns the weights, the window and the input of a convolution, transposed or not.
func (p *parser) convolved(n *node) (t *tensor, w *window, x operand, err error) {
	if t, err = p.constant(n, 1); err != nil {
		return
	}
	if len(t.dims) < 3 {
		return t, w, x, fmt.Errorf("%w: weights of rank %d", ErrInvalid, len(t.dims))
	}
	if w, err = p.window(n, t.dims[2:]); err != nil {
		return
	}
	x, err = p.variable(n, 0, w.rank)
	return
}

// conv reads a Conv: weights of OutC x C/group x KH x KW, and a bias of OutC.
func (p *parser) conv(n *node) (operand, error) {
	t, w, x, err := p.convolved(n)
	if err != nil {
		return x, err
	}
	kernel := graph.Shape{H: int(w.kernel[0]), W: int(w.kernel[1]), C: int(t.dims[1])}
	read, err := p.weights(n, t, kernel.Len(), func(dst []float32, first int, lines []float32) { // of an output channel each
		graph.CHWToHWC(dst[first*kernel.Len():][:len(lines)], lines, len(lines)/kernel.Len(), kernel)
	})
	if err != nil {
		return x, err
	}
	group, per := n.int("group", 1), t.dims[1]
	if group <= 0 || group > int64(x.shape.C) || per*group != int64(x.shape.C) {
		return x, fmt.Errorf("%w: weights for %d channels in %d groups, input has %d", ErrInvalid, per, group, x.shape.C)
	}
	if err := p.padSame(n, w, x.shape); err != nil {
		return x, err
	}
	c := &graph.Conv2D{
		From: read,
		Geometry: plan.Conv2D{
			H: x.shape.H, W: x.shape.W, C: x.shape.C, OutC: int(t.dims[0]),
			KH: int(w.kernel[0]), KW: int(w.kernel[1]),
			SH: int(w.strides[0]), SW: int(w.strides[1]),
			DH: int(w.dilations[0]), DW: int(w.dilations[1]),
			Top: int(w.pads[0]), Left: int(w.pads[1]), Bot: int(w.pads[2]), Right: int(w.pads[3]),
			Groups: int(group),
		},
	}
	if n.has(2) {
		if c.B, err = p.vector(n, 2, c.Geometry.OutC); err != nil {
			return x, err
		}
	}
	return p.apply(c, x.axes, x)
}
