package onnx

import (
	"fmt"
	"slices"
	"strings"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// Recurrent layers. The states that they begin with are in common.go.

// recurrent reads LSTM, GRU and RNN: a linear operator that makes all gates of all steps and
// directions of the layer's inputs, and a graph.Recurrence of these. It returns Y, Y_h and,
// where something reads it, Y_c.
func (p *parser) recurrent(n *node) ([]operand, error) {
	op := &graph.Recurrence{Cell: strings.ToLower(n.op), Direction: n.text("direction", "forward")}
	dirs := map[string]int{"forward": 1, "reverse": 1, "bidirectional": 2}[op.Direction]
	if dirs == 0 {
		return nil, fmt.Errorf("%w: direction %s", ErrInvalid, clean(op.Direction))
	}
	layout := n.int("layout", 0)
	if layout != 0 && layout != 1 {
		return nil, fmt.Errorf("%w: layout %d", ErrInvalid, layout)
	}
	op.ResetAfter = n.int("linear_before_reset", 0) != 0
	if v := n.int("input_forget", 0); v != 0 {
		return nil, p.refuse(n, "input_forget=%d", v)
	}
	switch {
	case n.has(4):
		return nil, p.refuse(n, "sequence_lens")
	case n.has(7):
		return nil, p.refuse(n, "peepholes")
	}
	if err := p.functions(n, op, dirs); err != nil {
		return nil, err
	}
	if err := p.recurrentWeights(n, op, dirs); err != nil {
		return nil, err
	}
	layer, err := p.inputLayer(n, op, dirs, graph.Gates(op.Cell))
	if err != nil {
		return nil, err
	}
	x, of, err := p.sequences(n, layout == 1)
	if err != nil {
		return nil, err
	}
	for i, to := range []*graph.Floats{&op.H, &op.C} {
		if *to, err = p.state(n, 5+i, []string{"initial_h", "initial_c"}[i], layout, dirs, op.Hidden, x.shape.H); err != nil {
			return nil, err
		}
	}
	op.Cells = len(n.outputs) > 2 && p.uses[n.outputs[2]] > 0
	y, err := p.apply(overPositions(layer, x.shape), nil, x.bare())
	if err != nil {
		return nil, err
	}
	if y, err = p.apply(op, nil, y); err != nil {
		return nil, err
	}
	return p.recurrentOutputs(y, op, of, dirs, x.shape.W)
}

// recurrentWeights reads R, of directions x gates·hidden x hidden.
func (p *parser) recurrentWeights(n *node, op *graph.Recurrence, dirs int) error {
	r, err := p.constant(n, 2)
	if err != nil {
		return err
	}
	if len(r.dims) != 3 {
		return fmt.Errorf("%w: recurrent weights of rank %d", ErrInvalid, len(r.dims))
	}
	gates, hidden := int64(graph.Gates(op.Cell)), r.dims[2]
	if hidden <= 0 || hidden > plan.MaxExtent || !slices.Equal(r.dims, []int64{int64(dirs), gates * hidden, hidden}) || n.int("hidden_size", hidden) != hidden {
		return fmt.Errorf("%w: recurrent weights of %d, for %d directions of %d hidden", ErrInvalid, r.dims, dirs, n.int("hidden_size", hidden))
	}
	op.Hidden = int(hidden)
	op.R, err = p.floats32(n, r)
	return err
}

// sequenceDims say what of a recurrent layer's input is a sequence's own: the other dimension than that
// of steps and that of channels.
type sequenceDims struct {
	layout1 bool    // samples before steps
	before  int     // of parts, those before the batch
	parts   []int64 // the extents of its parts, but for the batch
}

// sequences returns the input of the recurrent layer n with steps along W, channels along C, and a
// sample's sequences along H.
func (p *parser) sequences(n *node, layout1 bool) (operand, sequenceDims, error) {
	d := sequenceDims{layout1: layout1}
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, d, err
	}
	if x.rank() != 3 {
		return x, d, fmt.Errorf("%w: input of rank %d, want 3", ErrInvalid, x.rank())
	}
	s, step, of := x.view(), 0, 1 // the dimensions of steps and samples
	if layout1 {
		step, of = of, step
	}
	if p.batch == 1 { // of one sample, the batch may be anywhere
		s = s.batchAt(of)
	}
	if !s.size(of).batch {
		return x, d, p.refuse(n, "across samples")
	}
	d.before = slices.Index(s.dims[of], batch)
	own, rows := s.own(of), 1
	for _, k := range own {
		d.parts = append(d.parts, s.parts[k])
		rows *= int(s.parts[k])
	}
	perm := slices.Concat(s.dims[2], own, s.dims[step])
	x, err = p.moved(x, s.parts, perm, graph.Shape{C: int(s.size(2).n), H: rows, W: int(s.size(step).n)})
	return x, d, err
}

// recurrentOutputs returns Y, Y_h and, with op.Cells, Y_c, of y, which op makes of so many steps.
func (p *parser) recurrentOutputs(y operand, op *graph.Recurrence, of sequenceDims, dirs, steps int) ([]operand, error) {
	all, err := p.part(y, graph.Range{To: steps}, graph.Range{To: y.shape.C})
	if err != nil {
		return nil, err
	}
	var cells operand
	if op.Cells {
		if cells, err = p.part(y, graph.Range{From: steps, To: steps + 1}, graph.Range{To: y.shape.C}); err != nil {
			return nil, err
		}
	}
	// Each direction's last step: forwards that of the sequence, in reverse its first one.
	ends := make([]operand, dirs)
	for d := range ends {
		t := steps - 1
		if op.Direction == "reverse" || d == 1 {
			t = 0
		}
		if ends[d], err = p.part(all, graph.Range{From: t, To: t + 1}, graph.Range{From: d * op.Hidden, To: (d + 1) * op.Hidden}); err != nil {
			return nil, err
		}
	}
	last := ends[0]
	if dirs > 1 {
		if last, err = p.apply(graph.Concat{}, nil, ends...); err != nil {
			return nil, err
		}
	}
	results := []operand{p.seen(all, of.split(dirs, op.Hidden, steps)), p.seen(last, of.split(dirs, op.Hidden, 0))}
	if op.Cells {
		results = append(results, p.seen(cells, of.split(dirs, op.Hidden, 0)))
	}
	return results, nil
}

// split returns the dimensions of a recurrent layer's result: steps (unless 0), directions, samples
// and hidden units, or, in layout 1, samples, steps, directions and hidden units. C holds directions
// and units, H a sample's sequences, W steps.
func (d sequenceDims) split(dirs, hidden, steps int) *split {
	t := new(split)
	part := func(n int64) []int {
		if n == 1 {
			return nil
		}
		t.parts = append(t.parts, n)
		return []int{len(t.parts) - 1}
	}
	direction, unit := part(int64(dirs)), part(int64(hidden))
	var sample []int
	for _, n := range d.parts {
		sample = append(sample, part(n)...)
	}
	sample = slices.Insert(sample, d.before, batch)
	t.dims = [][]int{direction, sample, unit}
	at := 0 // of the steps, before directions and samples
	if d.layout1 {
		t.dims[0], t.dims[1] = t.dims[1], t.dims[0]
		at = 1
	}
	if steps > 0 {
		t.dims = slices.Insert(t.dims, at, part(int64(steps)))
	}
	return t
}

// functions reads n's activations, which must be the same for all directions.
func (p *parser) functions(n *node, op *graph.Recurrence, dirs int) error {
	otherwise := map[string][]string{"lstm": {"sigmoid", "tanh", "tanh"}, "gru": {"sigmoid", "tanh"}, "rnn": {"tanh"}}[op.Cell]
	a, given := n.attribute("activations")
	if !given {
		op.Functions = otherwise
		return nil
	}
	if len(a.strings) != dirs*len(otherwise) {
		return fmt.Errorf("%w: %d activations", ErrInvalid, len(a.strings))
	}
	for i, b := range a.strings {
		f := strings.ToLower(string(b))
		if f != "sigmoid" && f != "tanh" && f != "relu" {
			return p.refuse(n, "activations=%s", clean(string(b)))
		}
		if i >= len(otherwise) {
			if f != op.Functions[i-len(otherwise)] {
				return p.refuse(n, "activations that differ by direction")
			}
			continue
		}
		op.Functions = append(op.Functions, f)
	}
	return nil
}

// inputLayer returns W x + b of n, of all gates of all directions. Of the recurrent biases it
// has all but those that op takes, which are set.
func (p *parser) inputLayer(n *node, op *graph.Recurrence, dirs, gates int) (*graph.Dense, error) {
	w, err := p.constant(n, 1)
	if err != nil {
		return nil, err
	}
	each := gates * op.Hidden // of all directions and gates, no more than op.R has
	if len(w.dims) != 3 || w.dims[0] != int64(dirs) || w.dims[1] != int64(each) || w.dims[2] <= 0 || w.dims[2] > plan.MaxExtent {
		return nil, fmt.Errorf("%w: weights of %d, for %d directions of %d", ErrInvalid, w.dims, dirs, each)
	}
	d := &graph.Dense{In: int(w.dims[2]), Out: dirs * each}
	d.From, err = p.weights(n, w, d.In, func(dst []float32, first int, lines []float32) { copy(dst[first*d.In:], lines) })
	if err != nil || !n.has(3) {
		return d, err
	}
	t, err := p.constant(n, 3)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(t.dims, []int64{int64(dirs), int64(2 * each)}) {
		return nil, fmt.Errorf("%w: biases of %d", ErrInvalid, t.dims)
	}
	b, err := p.floats32(n, t)
	if err != nil {
		return nil, err
	}
	for pair := range slices.Chunk(b, 2*each) {
		of, r := pair[:each], pair[each:]
		if op.ResetAfter { // the last gate's own
			op.B = append(op.B, r[each-op.Hidden:]...)
			r = r[:each-op.Hidden]
		}
		for i, v := range r {
			if v != 0 { // which keeps -0
				of[i] += v
			}
		}
		d.B = append(d.B, of...)
	}
	if allZero(op.B) {
		op.B = nil
	}
	return d, nil
}

// part returns the steps and channels of x within the given ranges.
func (p *parser) part(x operand, steps, channels graph.Range) (operand, error) {
	s := graph.Slice{H: graph.Range{To: x.shape.H}, W: steps, C: channels}
	if steps == (graph.Range{To: x.shape.W}) && channels == (graph.Range{To: x.shape.C}) {
		return x, nil
	}
	return p.apply(s, nil, x.bare())
}

// state returns input i of n, the first states of all directions, which must be the same for
// all samples and their sequences, of which each has so many; or nil for zeros.
func (p *parser) state(n *node, i int, name string, layout int64, dirs, hidden, rows int) (graph.Floats, error) {
	if !n.has(i) {
		return nil, nil
	}
	o, err := p.any(n, i)
	if err != nil {
		return nil, err
	}
	c, err := p.asCommon(n, o)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, p.refuse(n, "%s not constant", name)
	}
	of, dir := 1, 0
	if layout == 1 {
		of, dir = dir, of
	}
	if len(c.dims) != 3 || c.dims[dir] != int64(dirs) || c.dims[2] != int64(hidden) {
		return nil, fmt.Errorf("%w: %s of %d", ErrInvalid, name, c.dims)
	}
	samples, given := 1, c.dims[of] // how many there are in c
	switch {
	case given == -int64(rows), given == 1 && p.batch > 0: // see expandConstant
	case given < 0 || p.batch > 0 && (given%p.batch != 0 || given/p.batch != int64(rows)):
		return nil, fmt.Errorf("%w: %s of %d", ErrInvalid, name, c.dims)
	case p.batch == 0:
		return nil, p.refuse(n, "%s of a fixed number of samples", name)
	default:
		samples = int(given)
	}
	var v graph.Floats
	for d := range dirs {
		for k := range samples {
			at := d*samples + k
			if layout == 1 {
				at = k*dirs + d
			}
			row := c.v[at*hidden:][:hidden]
			if k == 0 {
				v = append(v, row...)
			} else if !slices.Equal(row, v[d*hidden:]) {
				return nil, p.refuse(n, "%s for each sample", name)
			}
		}
	}
	if allZero(v) {
		return nil, nil
	}
	return v, nil
}
