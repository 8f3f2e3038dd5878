package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// Transposed convolutions.

// convTranspose reads y[o, s i + d a - pad] = Σ w[c, o, a] x[c, i], as one convolution of stride 1
// that has a channel for each phase of the output, of which there are as many as the stride
// has elements, and a shuffle of channels to pixels. So a word goes up for each element of the input,
// as for a convolution over the map with zeros between its elements, and stride² times fewer, and one
// comes back for each of the output and few more. Of a product with all of the kernel, whose
// results would be added where they overlap, kernel²/stride² would come back for each.
func (p *parser) convTranspose(n *node) (operand, error) {
	t, w, x, err := p.convolved(n)
	if err != nil {
		return x, err
	}
	c, per := int64(x.shape.C), t.dims[1]
	group := n.int("group", 1)
	if group <= 0 || group > c || c%group != 0 || t.dims[0] != c || per <= 0 {
		return x, fmt.Errorf("%w: weights of %d for %d channels in %d groups", ErrInvalid, t.dims, c, group)
	}
	out, err := p.transposedExtents(n, w, x.shape)
	if err != nil {
		return x, err
	}
	if rows, ok := extent([]int64{group, per, w.strides[0], w.strides[1]}); !ok || rows > p.words {
		return x, p.charge(math.MaxInt)
	}
	v := transposition{group: int(group), per: int(per), w: w}
	for i, size := range []int{x.shape.H, x.shape.W} {
		v.along[i] = newPhases(size, int(w.kernel[i]), int(w.strides[i]), int(w.dilations[i]), int(w.pads[i]), out[i])
	}
	conv := &graph.Conv2D{Geometry: v.geometry(x.shape)}
	g := conv.Geometry
	if err := conv.Plan().Validate(); err != nil {
		return x, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := p.charge(g.OutC * g.Patch()); err != nil {
		return x, err
	}
	line := int(w.kernel[0] * w.kernel[1]) // a kernel, from one channel to one
	read, err := p.weights(n, t, line, func(dst []float32, first int, lines []float32) { v.arrange(dst, first, lines, g) })
	if err != nil {
		return x, err
	}
	conv.From = func(dst []float32) error {
		clear(dst) // where a phase has no tap
		return read(dst)
	}
	if n.has(2) {
		if conv.B, err = p.phasesBias(n, v); err != nil {
			return x, err
		}
	}
	y, err := p.apply(conv, x.axes, x)
	if err != nil {
		return x, err
	}
	if y, err = p.phasesToPixels(y, v); err != nil {
		return x, err
	}
	part := newSlicing(y)
	for i, r := range []*graph.Range{&part.part.H, &part.part.W} {
		*r = graph.Range{From: v.along[i].shift, To: v.along[i].shift + out[i]}
	}
	return part.apply(p)
}

// phasesBias returns n's bias for each channel of the convolution of stride 1.
func (p *parser) phasesBias(n *node, v transposition) (all []float32, err error) {
	bias, err := p.vector(n, 2, v.group*v.per)
	if err != nil {
		return nil, err
	}
	if err := p.charge(len(bias) * v.phases()); err != nil {
		return nil, err
	}
	for b := range slices.Chunk(bias, v.per) {
		all = append(all, slices.Repeat(b, v.phases())...)
	}
	return all, nil
}

// transposedExtents returns the rows and columns that the transposed convolution n makes of a map of
// shape s. It sets the padding of its window where that follows from them, and the stride of a
// single row or column.
func (p *parser) transposedExtents(n *node, w *window, s graph.Shape) (out [2]int, err error) {
	more, wanted := []int64{0, 0}, []int64(nil) // rows and columns past the last, and in all
	if a, given := n.attribute("output_padding"); given {
		if more = a.ints; w.rank == 3 {
			more = slices.Insert(slices.Clone(more), 0, 0)
		}
	}
	if a, given := n.attribute("output_shape"); given {
		if wanted = a.ints; w.rank == 3 {
			wanted = slices.Insert(slices.Clone(wanted), 0, 1)
		}
	}
	if len(more) != 2 || wanted != nil && len(wanted) != 2 {
		return out, fmt.Errorf("%w: output_padding or output_shape of the wrong length", ErrInvalid)
	}
	w.strides = slices.Clone(w.strides) // which may be the file's
	for i, from := range []int{s.H, s.W} {
		reach := w.dilations[i] * (w.kernel[i] - 1) // < 2^62
		if wanted != nil && (wanted[i] <= 0 || wanted[i] > plan.MaxExtent) {
			return out, fmt.Errorf("%w: output of %d", ErrInvalid, wanted[i])
		}
		if reach > plan.MaxExtent || more[i] < 0 || more[i] > math.MaxInt32 {
			return out, fmt.Errorf("%w: kernel over %d elements, and %d more", ErrInvalid, reach, more[i])
		}
		l := w.strides[i]*int64(from-1) + reach + 1 + more[i]
		if w.same() || wanted != nil {
			over := l - w.strides[i]*int64(from) // is cut off
			if wanted != nil {
				over = l - wanted[i]
			}
			if over < 0 {
				return out, p.refuse(n, "to more than the kernel reaches")
			}
			w.pads[i], w.pads[i+2] = over-over/2, over/2
			if w.autoPad == "SAME_UPPER" {
				w.pads[i], w.pads[i+2] = over/2, over-over/2
			}
		}
		l -= w.pads[i] + w.pads[i+2]
		if l <= 0 || l > plan.MaxExtent {
			return out, fmt.Errorf("%w: output of %d", ErrInvalid, l)
		}
		if out[i] = int(l); from == 1 && w.pads[i] == 0 && w.pads[i+2] == 0 {
			w.strides[i] = l // a single element's stride may be any: all of the output is at one place
		}
	}
	return out, nil
}

// A transposition is a transposed convolution as one of stride 1, whose channels are, group by group,
// the phases in order, those of a phase side by side.
type transposition struct {
	group, per int // groups, and output channels of each
	w          *window
	along      [2]phases // rows and columns
}

// phases returns how many channels stand for one of the output.
func (v *transposition) phases() int { return int(v.w.strides[0] * v.w.strides[1]) }

// geometry returns that of the convolution of stride 1, over a map of shape s.
func (v *transposition) geometry(s graph.Shape) plan.Conv2D {
	rows, cols := v.along[0], v.along[1]
	return plan.Conv2D{
		H: s.H, W: s.W, C: s.C, OutC: v.group * v.per * v.phases(),
		KH: rows.taps, KW: cols.taps, SH: 1, SW: 1, DH: 1, DW: 1,
		Top: -rows.first, Bot: rows.places + rows.first + rows.taps - 1 - s.H,
		Left: -cols.first, Right: cols.places + cols.first + cols.taps - 1 - s.W,
		Groups: v.group,
	}
}

// arrange puts kernels, each from one channel of the input to one of a group's output and the first
// one of that number, where the convolution of geometry g has their elements.
func (v *transposition) arrange(dst []float32, first int, kernels []float32, g plan.Conv2D) {
	kernel, strides, dilations, pads := v.w.kernel, v.w.strides, v.w.dilations, v.w.pads
	line, in := int(kernel[0]*kernel[1]), g.C/g.Groups
	for k, e := range kernels {
		b := k % int(kernel[1])
		a := k / int(kernel[1]) % int(kernel[0])
		k = first + k/line
		o, i := k%v.per, k/v.per
		row, tapH := v.along[0].at(a, int(strides[0]), int(dilations[0]), int(pads[0]))
		col, tapW := v.along[1].at(b, int(strides[1]), int(dilations[1]), int(pads[1]))
		o += (i/in*v.phases() + row*int(strides[1]) + col) * v.per
		dst[((o*g.KH+tapH)*g.KW+tapW)*in+i%in] = e
	}
}

// phasesToPixels returns y, which the convolution of stride 1 makes, with its phases side by side.
func (p *parser) phasesToPixels(y operand, v transposition) (operand, error) {
	if v.phases() == 1 {
		return y, nil
	}
	sh, sw := int(v.w.strides[0]), int(v.w.strides[1])
	h, w := y.shape.H, y.shape.W
	return p.apply(graph.NewTranspose(
		[]int{v.group, sh, sw, v.per, h, w}, []int{0, 3, 4, 1, 5, 2},
		graph.Shape{H: h * sh, W: w * sw, C: v.group * v.per}), y.axes, y)
}

// phases is one axis of a transposed convolution of stride s as a convolution of stride 1: what
// it makes at place m, on s channels for one, are the s elements from s m - shift on.
type phases struct {
	shift  int // elements before the first
	places int // of the convolution's output
	first  int // the kernel's first tap at place m is on element m + first
	taps   int
}

// at returns the phase and the tap of the kernel's element a, of n elements that become out.
func (f phases) at(a, s, d, before int) (phase, tap int) {
	// Element i of the input times a falls on i s + a d - before = s m + phase - shift.
	v := f.shift - before + a*d
	m := v / s
	if v < m*s {
		m-- // v/s, rounded down
	}
	return v - m*s, -m - f.first
}

// newPhases returns the fewest multiply-adds, and of those the fewest words: shifts differ in how
// many taps have all phases in reach, and in how many places begin or end outside of the output.
// (A kernel of 4 with stride 2 and padding 1 has two taps over n + 1 places, or three over n. A row
// and a column more cost less than more than twice the weights, and the pads' products with them.)
func newPhases(n, k, s, d, before, out int) phases {
	var best phases
	for shift := range s {
		f := phases{shift: shift, places: (out + shift + s - 1) / s}
		// Taps that no phase has are zeros, which let the padding be less than the kernel.
		_, last := f.at(0, s, d, before)
		_, first := f.at(k-1, s, d, before)
		f.first = min(first, 0, n-f.places)
		f.taps = max(last, 0, n-f.places) - f.first + 1
		if c := f.places*f.taps - best.places*best.taps; shift == 0 || c < 0 || c == 0 && f.places < best.places {
			best = f
		}
	}
	return best
}
