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
	more, wanted := []int64{0, 0}, []int64(nil) // rows and columns past the last, and in all
	for name, v := range map[string]*[]int64{"output_padding": &more, "output_shape": &wanted} {
		if a, given := n.attribute(name); given {
			*v = a.ints
			if w.rank == 3 {
				*v = slices.Insert(slices.Clone(a.ints), 0, map[string]int64{"output_shape": 1}[name])
			}
		}
	}
	group := n.int("group", 1)
	c, per := int64(x.shape.C), t.dims[1]
	if group <= 0 || group > c || c%group != 0 || t.dims[0] != c || per <= 0 || len(more) != 2 || wanted != nil && len(wanted) != 2 {
		return x, fmt.Errorf("%w: weights of %d for %d channels in %d groups", ErrInvalid, t.dims, c, group)
	}
	size, s := [2]int{x.shape.H, x.shape.W}, slices.Clone(w.strides)
	var out [2]int
	for i, from := range size {
		reach := w.dilations[i] * (w.kernel[i] - 1) // < 2^62
		if wanted != nil && (wanted[i] <= 0 || wanted[i] > plan.MaxExtent) {
			return x, fmt.Errorf("%w: output of %d", ErrInvalid, wanted[i])
		}
		if reach > plan.MaxExtent || more[i] < 0 || more[i] > math.MaxInt32 {
			return x, fmt.Errorf("%w: kernel over %d elements, and %d more", ErrInvalid, reach, more[i])
		}
		l := s[i]*int64(from-1) + reach + 1 + more[i]
		same := w.autoPad == "SAME_UPPER" || w.autoPad == "SAME_LOWER"
		if same || wanted != nil {
			over := l - s[i]*int64(from) // is cut off
			if wanted != nil {
				over = l - wanted[i]
			}
			if over < 0 {
				return x, p.refuse(n, "to more than the kernel reaches")
			}
			w.pads[i], w.pads[i+2] = over-over/2, over/2
			if w.autoPad == "SAME_UPPER" {
				w.pads[i], w.pads[i+2] = over/2, over-over/2
			}
		}
		l -= w.pads[i] + w.pads[i+2]
		if l <= 0 || l > plan.MaxExtent {
			return x, fmt.Errorf("%w: output of %d", ErrInvalid, l)
		}
		if out[i] = int(l); from == 1 && w.pads[i] == 0 && w.pads[i+2] == 0 {
			s[i] = l // a single element's stride may be any: all of the output is at one place
		}
	}
	if rows, ok := extent([]int64{group, per, s[0], s[1]}); !ok || rows > p.words {
		return x, p.charge(math.MaxInt)
	}
	var f [2]phases
	for i := range f {
		f[i] = newPhases(size[i], int(w.kernel[i]), int(s[i]), int(w.dilations[i]), int(w.pads[i]), out[i])
	}
	conv := &graph.Conv2D{Geometry: plan.Conv2D{
		H: size[0], W: size[1], C: int(c), OutC: int(group*per*s[0]) * int(s[1]),
		KH: f[0].taps, KW: f[1].taps, SH: 1, SW: 1, DH: 1, DW: 1,
		Top: -f[0].first, Bot: f[0].places + f[0].first + f[0].taps - 1 - size[0],
		Left: -f[1].first, Right: f[1].places + f[1].first + f[1].taps - 1 - size[1],
		Groups: int(group),
	}}
	g := conv.Geometry
	if err := conv.Plan().Validate(); err != nil {
		return x, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := p.charge(g.OutC * g.Patch()); err != nil {
		return x, err
	}
	// A group's channels are the phases in order, and those of a phase side by side.
	cs := int(c / group)                   // of a group's input
	line := int(w.kernel[0] * w.kernel[1]) // from one channel to one
	read, err := p.weights(n, t, line, func(dst []float32, first int, lines []float32) {
		for k, e := range lines {
			b := k % int(w.kernel[1])
			a := k / int(w.kernel[1]) % int(w.kernel[0])
			k = first + k/line
			o, i := k%int(per), k/int(per)
			row, tapH := f[0].at(a, int(s[0]), int(w.dilations[0]), int(w.pads[0]))
			col, tapW := f[1].at(b, int(s[1]), int(w.dilations[1]), int(w.pads[1]))
			o += (i/cs*int(s[0]*s[1]) + row*int(s[1]) + col) * int(per)
			dst[((o*g.KH+tapH)*g.KW+tapW)*cs+i%cs] = e
		}
	})
	if err != nil {
		return x, err
	}
	conv.From = func(dst []float32) error {
		clear(dst) // where a phase has no tap
		return read(dst)
	}
	if n.has(2) {
		t, err := p.constant(n, 2)
		if err != nil {
			return x, err
		}
		if len(t.dims) != 1 || t.dims[0] != group*per {
			return x, fmt.Errorf("%w: bias of another shape than %d channels", ErrInvalid, group*per)
		}
		bias, err := p.floats32(n, t)
		if err != nil {
			return x, err
		}
		if err := p.charge(g.OutC); err != nil {
			return x, err
		}
		for b := range slices.Chunk(bias, int(per)) {
			conv.B = append(conv.B, slices.Repeat(b, int(s[0]*s[1]))...)
		}
	}
	y, err := p.apply(conv, x.axes, x)
	if err != nil {
		return x, err
	}
	h, wide := g.OutH(), g.OutW()
	if s[0] > 1 || s[1] > 1 {
		to := graph.Shape{H: h * int(s[0]), W: wide * int(s[1]), C: int(group * per)}
		y, err = p.apply(graph.NewTranspose(
			[]int{int(group), int(s[0]), int(s[1]), int(per), h, wide}, []int{0, 3, 4, 1, 5, 2}, to), x.axes, y)
		if err != nil {
			return x, err
		}
	}
	part := newSlicing(y)
	part.part.H = graph.Range{From: f[0].shift, To: f[0].shift + out[0]}
	part.part.W = graph.Range{From: f[1].shift, To: f[1].shift + out[1]}
	return part.apply(p)
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
