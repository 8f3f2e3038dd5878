package onnx

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// Recurrent layers, and the states that they begin with.

var recurrentAttributes = map[string]int64{
	"activations": attributeStrings, "direction": attributeString, "hidden_size": attributeInt, "layout": attributeInt,
}

// recurrent reads LSTM, GRU and RNN: a linear operator that makes all gates of all steps and
// directions of the layer's inputs, and a graph.Recurrence of these. It returns Y, Y_h and,
// where something reads it, Y_c.
func (p *parser) recurrent(n *node) ([]operand, error) {
	op := &graph.Recurrence{Cell: strings.ToLower(n.op), Direction: "forward"}
	if a, given := n.attribute("direction"); given {
		op.Direction = string(a.s)
	}
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
	for i, name := range map[int]string{4: "sequence_lens", 7: "peepholes"} {
		if n.has(i) {
			return nil, p.refuse(n, "%s", name)
		}
	}
	if err := p.functions(n, op, dirs); err != nil {
		return nil, err
	}

	r, err := p.constant(n, 2)
	if err != nil {
		return nil, err
	}
	if len(r.dims) != 3 {
		return nil, fmt.Errorf("%w: recurrent weights of rank %d", ErrInvalid, len(r.dims))
	}
	gates, hidden := int64(graph.Gates(op.Cell)), r.dims[2]
	if hidden <= 0 || hidden > plan.MaxExtent || !slices.Equal(r.dims, []int64{int64(dirs), gates * hidden, hidden}) || n.int("hidden_size", hidden) != hidden {
		return nil, fmt.Errorf("%w: recurrent weights of %d, for %d directions of %d hidden", ErrInvalid, r.dims, dirs, n.int("hidden_size", hidden))
	}
	op.Hidden = int(hidden)
	if op.R, err = p.floats32(n, r); err != nil {
		return nil, err
	}
	layer, err := p.inputLayer(n, op, dirs, int(gates))
	if err != nil {
		return nil, err
	}

	x, err := p.viewed(n, 0)
	if err != nil {
		return nil, err
	}
	if x.rank() != 3 {
		return nil, fmt.Errorf("%w: input of rank %d, want 3", ErrInvalid, x.rank())
	}
	s, step, of := x.view(), 0, 1 // the dimensions of steps and samples
	if layout == 1 {
		step, of = of, step
	}
	if p.batch == 1 { // of one sample, the batch may be anywhere
		t := &split{parts: s.parts}
		for i := range s.dims {
			t.dims = append(t.dims, s.own(i))
		}
		t.dims[of] = append([]int{batch}, t.dims[of]...)
		s = t
	}
	if !s.size(of).batch {
		return nil, p.refuse(n, "across samples")
	}
	sequences, steps := s.own(of), int(s.size(step).n)
	rows := 1 // sequences of a sample
	for _, k := range sequences {
		rows *= int(s.parts[k])
	}
	perm := slices.Concat(s.dims[2], sequences, s.dims[step])
	if x, err = p.moved(x, s.parts, perm, graph.Shape{C: int(s.size(2).n), H: rows, W: steps}); err != nil {
		return nil, err
	}
	for i, to := range []*graph.Floats{&op.H, &op.C} {
		if *to, err = p.state(n, 5+i, []string{"initial_h", "initial_c"}[i], layout, dirs, op.Hidden, rows); err != nil {
			return nil, err
		}
	}
	op.Cells = len(n.outputs) > 2 && p.uses[n.outputs[2]] > 0
	y, err := p.apply(overPositions(layer, x.shape), nil, operand{value: x.value, shape: x.shape})
	if err != nil {
		return nil, err
	}
	if y, err = p.apply(op, nil, y); err != nil {
		return nil, err
	}

	// The parts of what comes out: of C, directions and hidden units, of H, the sequences of a
	// sample, and of W, steps.
	samples := slices.Index(s.dims[of], batch)
	out := func(y operand, steps int, withSteps bool) operand {
		t := new(split)
		part := func(n int64) []int {
			if n == 1 {
				return nil
			}
			t.parts = append(t.parts, n)
			return []int{len(t.parts) - 1}
		}
		direction, unit := part(int64(dirs)), part(hidden)
		var sample []int
		for i, k := range sequences {
			if i == samples {
				sample = append(sample, batch)
			}
			sample = append(sample, part(s.parts[k])...)
		}
		if samples == len(sequences) {
			sample = append(sample, batch)
		}
		t.dims = [][]int{direction, sample, unit}
		at := 0 // of the steps, before directions and samples
		if layout == 1 {
			t.dims[0], t.dims[1] = t.dims[1], t.dims[0]
			at = 1
		}
		if withSteps {
			t.dims = slices.Insert(t.dims, at, part(int64(steps)))
		}
		return p.seen(y, t)
	}
	all, err := p.part(y, graph.Range{To: steps}, graph.Range{To: y.shape.C})
	if err != nil {
		return nil, err
	}
	var last, cells operand
	if op.Cells {
		if cells, err = p.part(y, graph.Range{From: steps, To: steps + 1}, graph.Range{To: y.shape.C}); err != nil {
			return nil, err
		}
	}
	// at returns step t of one direction.
	at := func(t, d int) (operand, error) {
		return p.part(all, graph.Range{From: t, To: t + 1}, graph.Range{From: d * op.Hidden, To: (d + 1) * op.Hidden})
	}
	switch op.Direction {
	case "forward":
		last, err = at(steps-1, 0)
	case "reverse":
		last, err = at(0, 0)
	default:
		last, err = at(steps-1, 0)
		var first operand
		if err == nil {
			first, err = at(0, 1)
		}
		if err == nil {
			last, err = p.apply(graph.Concat{}, nil, last, first)
		}
	}
	if err != nil {
		return nil, err
	}
	results := []operand{out(all, steps, true), out(last, 1, false)}
	if op.Cells {
		results = append(results, out(cells, 1, false))
	}
	return results, nil
}

// part returns the steps and channels of x within the given ranges.
func (p *parser) part(x operand, steps, channels graph.Range) (operand, error) {
	s := graph.Slice{H: graph.Range{To: x.shape.H}, W: steps, C: channels}
	if steps == (graph.Range{To: x.shape.W}) && channels == (graph.Range{To: x.shape.C}) {
		return x, nil
	}
	return p.apply(s, nil, operand{value: x.value, shape: x.shape})
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

// overPositions returns d as an operator of a map: of every position.
func overPositions(d *graph.Dense, s graph.Shape) graph.Op {
	if s.H == 1 && s.W == 1 {
		return d
	}
	return &graph.Conv2D{From: d.From, B: d.B, Geometry: plan.Conv2D{
		H: s.H, W: s.W, C: d.In, OutC: d.Out, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1,
	}}
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

func allZero(v []float32) bool {
	return !slices.ContainsFunc(v, func(f float32) bool { return f != 0 })
}

// common is a tensor of constants that has, along one dimension, the same for all samples, as
// first states have. That dimension is -1, or less by as many as stand for each sample, and v
// has one element along it.
type common struct {
	dims []int64
	v    []float32
}

// readsCommon are the operators that take it.
var readsCommon = []string{"Identity", "Slice", "Squeeze", "Unsqueeze", "LSTM", "GRU", "RNN"}

// len returns how many elements of v there are along dimension i.
func (c *common) len(i int) int { return int(max(c.dims[i], 1)) }

// constantOfShape reads a ConstantOfShape, of floats or of integers.
func (p *parser) constantOfShape(n *node) (operand, error) {
	value := float32(0)
	if a, given := n.attribute("value"); given {
		if a.t == nil || a.t.kind != typeFloat {
			return p.filled(n)
		}
		v, err := p.floats32(n, a.t)
		if err != nil {
			return operand{}, err
		}
		if len(v) != 1 {
			return operand{}, fmt.Errorf("%w: %d values", ErrInvalid, len(v))
		}
		value = v[0]
	}
	to, err := p.sizes(n, 0)
	if err != nil {
		return operand{}, err
	}
	if len(to.dims) != 1 || len(to.v) == 0 {
		return operand{}, p.refuse(n, "of sizes of rank %d", len(to.dims))
	}
	return p.commonOf(n, &tensor{kind: typeFloat, floats: []float32{value}}, to)
}

// commonOf returns a constant expanded to the given sizes, of which one may be the batch's.
func (p *parser) commonOf(n *node, t *tensor, to *sizes) (operand, error) {
	if t.kind != typeFloat && t.kind != typeDouble {
		return operand{}, p.refuse(n, "of a constant")
	}
	v, err := p.floats32(n, t)
	if err != nil {
		return operand{}, err
	}
	before := len(to.v) - len(t.dims) // which is 0 or more
	c, batches := new(common), 0
	strides, stride := make([]int, len(to.v)), 1 // in v
	all := int64(1)
	for i := len(to.v) - 1; i >= 0; i-- {
		own, d := int64(1), to.v[i]
		if i >= before {
			own = t.dims[i-before]
		}
		if d.batch && own != 1 && p.batch > 0 && d.n <= plan.MaxExtent && p.batch <= plan.MaxExtent {
			d = size{n: d.n * p.batch} // the number that it is
		}
		switch {
		case d.n <= 0 || d.n > plan.MaxExtent || own != 1 && d.n != 1 && d.n != own:
			return operand{}, fmt.Errorf("%w: %d elements for %d", ErrInvalid, own, d.n)
		case d.batch && p.batch != 1:
			if batches++; own != 1 || batches > 1 {
				return operand{}, p.refuse(n, "of a constant")
			}
			c.dims = append(c.dims, -d.n)
			continue
		case own != 1:
			strides[i], d.n = stride, own
			stride *= int(own)
		}
		if all > plan.MaxExtent/d.n {
			return operand{}, fmt.Errorf("%w: a constant of too many elements", ErrInvalid)
		}
		all *= d.n
		c.dims = append(c.dims, d.n)
	}
	slices.Reverse(c.dims)
	if err := p.charge(int(all)); err != nil {
		return operand{}, err
	}
	places := []int{0}
	for i := range c.dims {
		var next []int
		for _, at := range places {
			for k := range c.len(i) {
				next = append(next, at+k*strides[i])
			}
		}
		places = next
	}
	for _, at := range places {
		c.v = append(c.v, v[at])
	}
	return c.operand(), nil
}

// operand returns c, which is a constant where it has no samples.
func (c *common) operand() operand {
	if slices.Min(c.dims) > 0 {
		return operand{constant: &tensor{kind: typeFloat, dims: c.dims, floats: c.v}}
	}
	return operand{common: c}
}

// asCommon returns the floats that o has, or nil where those are none, or no constants.
func (p *parser) asCommon(n *node, o operand) (*common, error) {
	t := o.constant
	if o.common != nil || t == nil || t.kind != typeFloat && t.kind != typeDouble || len(t.dims) == 0 {
		return o.common, nil
	}
	v, err := p.floats32(n, t)
	c := &common{slices.Clone(t.dims), v}
	if o.shared && p.batch != 1 {
		c.dims[0] = -1
	}
	return c, err
}

// aside returns x with a batch of one sample, which may be anywhere, in another dimension
// than that of the given axis.
func (p *parser) aside(x operand, axis int64) operand {
	s := x.view()
	r := int64(len(s.dims))
	if p.batch != 1 || r < 2 || axis < -r || axis >= r || !s.size(int((axis+r)%r)).batch {
		return x
	}
	t := &split{parts: s.parts}
	to := -1
	for i := range s.dims {
		t.dims = append(t.dims, s.own(i))
		if int64(i) != (axis+r)%r && (to < 0 || len(t.dims[to]) > 0 && len(t.dims[i]) == 0) {
			to = i
		}
	}
	t.dims[to] = append([]int{batch}, t.dims[to]...)
	x.split, x.axes = t, nil
	return x
}

// sliceCommon reads a Slice of it, forwards and without steps.
func (p *parser) sliceCommon(n *node, c *common, starts, ends, axes, steps []int64) (operand, error) {
	if axes == nil {
		for i := range starts {
			axes = append(axes, int64(i))
		}
	}
	if len(starts) != len(ends) || len(axes) != len(starts) || steps != nil && len(steps) != len(starts) {
		return operand{}, fmt.Errorf("%w: lists of unlike lengths", ErrInvalid)
	}
	r := int64(len(c.dims))
	seen := map[int64]bool{}
	for k, a := range axes {
		if a < -r || a >= r || seen[(a+r)%r] {
			return operand{}, fmt.Errorf("%w: axis %d of rank %d", ErrInvalid, a, r)
		}
		a = (a + r) % r
		seen[a] = true
		l := c.dims[a]
		switch {
		case steps != nil && steps[k] != 1:
			return operand{}, p.refuse(n, "step %d", steps[k])
		case l < 0 && starts[k] == 0 && ends[k] >= math.MaxInt32:
			continue
		case l < 0:
			return operand{}, p.refuse(n, "across samples")
		}
		if err := p.charge(len(c.v)); err != nil { // which what is made has too, but for a part
			return operand{}, err
		}
		places := make([]int, l)
		for i := range places {
			places[i] = i
		}
		places = cut(places, starts[k], ends[k])
		if len(places) == 0 {
			return operand{}, fmt.Errorf("%w: an empty Slice", ErrInvalid)
		}
		inner := 1
		for i := int(a) + 1; i < len(c.dims); i++ {
			inner *= c.len(i)
		}
		to := &common{dims: slices.Clone(c.dims)}
		to.dims[a] = int64(len(places))
		for block := range slices.Chunk(c.v, int(l)*inner) {
			to.v = append(to.v, block[places[0]*inner:][:len(places)*inner]...)
		}
		c = to
	}
	return c.operand(), nil
}

// squeezeCommon reads a Squeeze or an Unsqueeze of it.
func (p *parser) squeezeCommon(n *node, x operand) (operand, error) {
	c, err := p.asCommon(n, x)
	if err != nil {
		return x, err
	}
	if c == nil {
		return x, p.refuse(n, "of what is expanded")
	}
	dims, err := squeezed(p, n, c.dims, 0, func(d int64) bool { return d == 1 }, 1)
	if err == nil && len(dims) > maxRank {
		err = fmt.Errorf("%w: tensor of rank %d", ErrInvalid, len(dims))
	}
	if err != nil {
		return x, err
	}
	return (&common{dims, c.v}).operand(), nil
}

// inputLayers returns, by value, the linear operators of g that are written as parts of layers:
// those over channels alone that a Recurrence alone reads.
func inputLayers(g *graph.Graph) map[graph.Value]*graph.Node {
	readers := make([]int, len(g.Nodes)+1)
	readers[g.Output]++
	for _, n := range g.Nodes {
		for _, v := range n.Inputs {
			readers[v]++
		}
	}
	layers := map[graph.Value]*graph.Node{}
	for _, n := range g.Nodes {
		v := n.Inputs[0]
		if _, ok := n.Op.(*graph.Recurrence); !ok || v == 0 || readers[v] != 1 {
			continue
		}
		switch l := g.Nodes[v-1].Op.(type) {
		case *graph.Dense:
			layers[v] = &g.Nodes[v-1]
		case *graph.Conv2D:
			s := graph.Shape{H: l.Geometry.H, W: l.Geometry.W, C: l.Geometry.C}
			if like := overPositions(&graph.Dense{In: s.C, Out: l.Geometry.OutC}, s).(*graph.Conv2D); l.Geometry == like.Geometry {
				layers[v] = &g.Nodes[v-1]
			}
		}
	}
	return layers
}

// recurrence writes op and the linear operator before it as one layer. Its sequences are the
// samples' rows.
func (w *writer) recurrence(op *graph.Recurrence, n graph.Node, shapes []graph.Shape, name string) error {
	layer := w.layers[n.Inputs[0]]
	if layer == nil || layer.Op.(graph.Linear).Weights() == nil {
		return &UnsupportedError{Ops: []string{op.Name()}}
	}
	x, l := layer.Inputs[0], layer.Op.(graph.Linear)
	s, gates, hidden := shapes[x], graph.Gates(op.Cell), op.Hidden
	each := gates * hidden
	dirs := l.Plan().Rows() / each
	w.emit("Transpose", []string{w.ranked(x, s, 4, name+".input")}, name+".steps", intsAttribute("perm", 3, 0, 2, 1))
	w.emit("Reshape", []string{name + ".steps", w.ints(name+".dims", int64(s.W), -1, int64(s.C))}, name+".sequences")
	inputs := []string{name + ".sequences", w.floats(name+".weight", l.Weights(), dirs, each, s.C), w.floats(name+".recurrence", op.R, dirs, each, hidden), "", "", ""}
	if l.Bias() != nil || op.B != nil {
		b := make([]float32, 2*dirs*each)
		for d := range dirs {
			if l.Bias() != nil {
				copy(b[2*d*each:], l.Bias()[d*each:][:each])
			}
			if op.B != nil {
				copy(b[2*(d+1)*each-hidden:], op.B[d*hidden:][:hidden])
			}
		}
		inputs[3] = w.floats(name+".bias", b, dirs, 2*each)
	}
	for i, v := range []graph.Floats{op.H, op.C}[:1+gates/4] {
		inputs = append(inputs[:5+i], "")
		if v == nil {
			continue
		}
		// The same for all samples: expanded to as many as there are.
		state, to := fmt.Sprint(name, ".state", i), fmt.Sprint(name, ".states", i)
		w.emit("Shape", []string{name + ".sequences"}, to+".all")
		w.emit("Slice", []string{to + ".all", w.ints(to+".from", 1), w.ints(to+".to", 2)}, to+".samples")
		w.emit("Concat", []string{w.ints(to+".directions", int64(dirs)), to + ".samples", w.ints(to+".hidden", int64(hidden))}, to+".shape", intAttribute("axis", 0))
		w.emit("Expand", []string{w.floats(state, v, dirs, 1, hidden), to + ".shape"}, to)
		inputs[5+i] = to
	}
	for inputs[len(inputs)-1] == "" {
		inputs = inputs[:len(inputs)-1]
	}
	kind := strings.ToUpper(op.Cell)
	attributes := []message{intAttribute("hidden_size", hidden), stringAttribute("direction", op.Direction)}
	var functions message
	functions.string(1, "activations")
	for range dirs {
		for _, f := range op.Functions {
			functions.string(9, strings.ToUpper(f[:1])+f[1:])
		}
	}
	functions.int(20, attributeStrings)
	attributes = append(attributes, functions)
	if op.ResetAfter {
		attributes = append(attributes, intAttribute("linear_before_reset", 1))
	}
	outputs := []string{name + ".all"}
	if op.Cells {
		outputs = append(outputs, "", name+".last")
	}
	w.emitAll(kind, inputs, outputs, attributes...)
	d, rows, h := int64(dirs), int64(s.H), int64(hidden)
	w.emit("Reshape", []string{name + ".all", w.ints(name+".all.dims", int64(s.W), d, -1, rows, h)}, name+".split")
	w.emit("Transpose", []string{name + ".split"}, name+".turned", intsAttribute("perm", 2, 1, 4, 3, 0))
	w.emit("Reshape", []string{name + ".turned", w.ints(name+".shape", 0, d*h, rows, int64(s.W))}, name)
	if op.Cells {
		c := name + ".cells"
		// By way of more dimensions than values have, so that the last Reshape moves nothing.
		w.emit("Reshape", []string{name + ".last", w.ints(c+".dims", d, -1, rows, h, 1)}, c+".split")
		w.emit("Transpose", []string{c + ".split"}, c+".turned", intsAttribute("perm", 1, 0, 3, 2, 4))
		w.emit("Reshape", []string{c + ".turned", w.ints(c+".shape", 0, d*h, rows, 1)}, c)
		w.cells[graph.Value(len(w.values))] = c
	}
	return nil
}

// ofCells writes what reads a Recurrence with cells, if n does, which ONNX has as two values:
// a Slice of all steps or of the cells.
func (w *writer) ofCells(n graph.Node, shapes []graph.Shape, name string) (bool, error) {
	for _, v := range n.Inputs {
		c, ok := w.cells[v]
		if !ok {
			continue
		}
		s := shapes[v]
		part := graph.Slice{H: graph.Range{To: s.H}, W: graph.Range{To: s.W - 1}, C: graph.Range{To: s.C}}
		if n.Op == part {
			c = w.values[v].name
		} else if part.W = (graph.Range{From: s.W - 1, To: s.W}); n.Op != part {
			return true, &UnsupportedError{Ops: []string{n.Op.Name() + " of cells"}}
		}
		w.emit("Identity", []string{c}, name)
		return true, nil
	}
	return false, nil
}
