package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// Inputs of integers, as of text: ids of tokens, whose rows are looked up in tables, and masks.

// readInputs defines the graph's inputs. Several, or one of integers, are its parts.
func (p *parser) readInputs(inputs []valueInfo) error {
	p.batch = 0
	if dims := inputs[0].dims; len(dims) > 0 {
		p.batch = dims[0]
	}
	parts := make([]graph.Part, len(inputs))
	operands := make([]operand, len(inputs))
	total := 0
	for i, v := range inputs {
		o, part, err := p.input(v)
		if err != nil {
			return err
		}
		if o.known && v.dims[0] != p.batch {
			p.unsupported["inputs of unlike batches"] = true
		}
		operands[i], parts[i] = o, part
		if total += part.Shape.Len(); total > plan.MaxExtent {
			return fmt.Errorf("%w: inputs of too many elements", ErrInvalid)
		}
	}
	if len(p.unsupported) > 0 { // among others, an input that is none of these
		operands = make([]operand, len(inputs))
	}
	if len(inputs) == 1 {
		p.graph.Input = parts[0].Shape
	} else {
		p.graph.Input = graph.Vector(max(total, 1))
	}
	if len(inputs) > 1 || parts[0].From != parts[0].Below {
		p.graph.Parts = parts
	}
	at := 0
	for i, v := range inputs {
		o := operands[i]
		if p.graph.Parts != nil && parts[i].From != parts[i].Below {
			o.part = 1 + i
		}
		if o.known && len(inputs) > 1 {
			// Its elements are in C, H, W order.
			own := graph.Slice{H: graph.Range{To: 1}, W: graph.Range{To: 1}, C: graph.Range{From: at, To: at + o.shape.Len()}}
			x, err := p.apply(own, axesC, operand{shape: p.graph.Input})
			if err == nil && x.shape != o.shape {
				x, err = p.apply(graph.Reshape{To: o.shape}, o.axes, x)
			}
			if err != nil {
				return err
			}
			o.value = x.value
		}
		at += parts[i].Shape.Len()
		if err := p.define(v.name, o); err != nil {
			return err
		}
	}
	return nil
}

// input returns the operand of one of the graph's inputs, as if it were alone, and its part.
func (p *parser) input(v valueInfo) (operand, graph.Part, error) {
	rank := len(v.dims)
	kind := v.kind
	switch {
	case !slices.Contains([]int64{typeFloat, typeDouble, typeUint8, typeInt32, typeInt64, typeBool}, kind):
		p.unsupported[fmt.Sprintf("input of element type %d", kind)] = true
		return operand{}, graph.Part{}, nil
	case rank < 2 || rank > len(canonical):
		p.unsupported[fmt.Sprintf("input of rank %d", rank)] = true
		return operand{}, graph.Part{}, nil
	case slices.Contains(v.dims[1:], 0):
		p.symbolic(v)
		return operand{}, graph.Part{}, nil
	}
	if _, ok := extent(v.dims[1:]); !ok || v.dims[0] < 0 {
		return operand{}, graph.Part{}, fmt.Errorf("%w: input of size %d", ErrInvalid, v.dims)
	}
	axes := canonical[rank-1]
	o := operand{known: true, shape: shaped(axes, v.dims[1:]), axes: axes}
	part := graph.Part{Name: v.name, Shape: o.shape}
	switch kind {
	case typeUint8:
		o.whole, o.bounds = true, [2]int64{0, 255}
	case typeInt32, typeInt64:
		o.whole = true
		part.From, part.Below, part.Type = -graph.MaxInteger, graph.MaxInteger+1, "int64"
		if kind == typeInt32 {
			part.Type = "int32"
		}
		o.bounds = [2]int64{-graph.MaxInteger, graph.MaxInteger}
	case typeBool:
		o.truth = &truth{}
		part.From, part.Below, part.Type = 0, 2, "bool"
	}
	return o, part, nil
}

// chooses notes that x are numbers of so many rows, from 0 on. Those of an input will be checked;
// others must be known to be.
func (p *parser) chooses(n *node, x operand, rows int64) error {
	switch {
	case !x.whole:
		return p.refuse(n, "by what are no integers")
	case rows > graph.MaxInteger:
		return p.refuse(n, "of %d rows", rows)
	case x.part > 0: // no id may be past any of the tables
		part := &p.graph.Parts[x.part-1]
		part.From, part.Below = 0, min(part.Below, int(rows))
	case x.bounds[0] < 0 || x.bounds[1] >= rows:
		return p.refuse(n, "of %d rows by integers of %d to %d", rows, x.bounds[0], x.bounds[1])
	}
	return nil
}

// gatherElements reads a GatherElements of a constant that is the same everywhere, as of the types
// of tokens that torch's networks have where none are given.
func (p *parser) gatherElements(n *node) (operand, error) {
	x, err := p.any(n, 1)
	if err != nil {
		return x, err
	}
	if _, err := p.any(n, 0); err != nil {
		return x, err
	}
	a, err := p.array(n, 0)
	if err != nil {
		return x, err
	}
	axis := n.int("axis", 0)
	dims, shared, ok := p.ofAllSamples(x.view().sizes())
	if axis < 0 {
		axis += int64(len(dims))
	}
	if !x.known || a == nil || a.len() == 0 || a.steps != nil || len(a.dims) != len(dims) || !ok || axis < 0 || axis >= int64(len(dims)) || shared && axis == 0 || x.wide != nil {
		return x, p.refuse(n, "of what is no constant")
	}
	for i, d := range dims {
		if int64(i) != axis && d > a.dims[i] || i == 0 && shared != a.shared {
			return x, p.refuse(n, "of another shape")
		}
	}
	for i := range a.len() {
		if a.float() && a.floats[i] != a.floats[0] || !a.float() && a.ints[i] != a.ints[0] {
			return x, p.refuse(n, "of a constant that is not the same everywhere")
		}
	}
	if err := p.chooses(n, x, a.dims[axis]); err != nil {
		return x, err
	}
	y, err := p.picked(a, dims, func([]int64) int { return 0 })
	if err != nil {
		return x, err
	}
	return y.operand(), nil
}

// lookedUp reads a Gather of a constant table's rows by integers of an input.
func (p *parser) lookedUp(n *node) (operand, error) {
	t, err := p.constant(n, 0)
	if err != nil {
		return operand{}, err
	}
	x := p.operands[n.inputs[1]]
	switch axis := n.int("axis", 0); {
	case len(t.dims) != 2 || axis != 0 && axis != -2:
		return x, p.refuse(n, "by an input, of axis %d of rank %d", axis, len(t.dims))
	}
	if err := p.chooses(n, x, t.dims[0]); err != nil {
		return x, err
	}
	if x.wide != nil {
		if x, err = p.widened(x); err != nil {
			return x, err
		}
	}
	read, err := p.weights(n, t, int(t.dims[1]), func(dst []float32, first int, lines []float32) {
		copy(dst[first*int(t.dims[1]):], lines)
	})
	if err != nil {
		return x, err
	}
	s := x.view()
	if len(s.dims) > maxSplit {
		return x, p.refuse(n, "to rank %d", len(s.dims)+1)
	}
	y, err := p.apply(&graph.Embedding{Rows: int(t.dims[0]), Width: int(t.dims[1]), From: read}, nil, operand{value: x.value, shape: x.shape})
	if err != nil {
		return x, err
	}
	// The rows' channels come first, the parts that were along C after those along W.
	to := new(split)
	along := s.axesOf(x.shape)
	if t.dims[1] > 1 {
		to.parts = append(to.parts, t.dims[1])
	}
	first := len(to.parts)
	number := make([]int, len(s.parts))
	for _, k := range slices.Concat(along[axisH], along[axisW], along[axisC]) {
		number[k] = len(to.parts)
		to.parts = append(to.parts, s.parts[k])
	}
	for _, d := range s.dims {
		var list []int
		for _, k := range d {
			if k == batch {
				list = append(list, batch)
			} else {
				list = append(list, number[k])
			}
		}
		to.dims = append(to.dims, list)
	}
	to.dims = append(to.dims, []int{0}[:first])
	return p.seen(y, to), nil
}

// boundsOf returns the least and the largest of integers, values or constants.
func (p *parser) boundsOf(n *node, i int) ([2]int64, error) {
	if o := p.operands[n.inputs[i]]; o.known {
		if !o.whole {
			return o.bounds, p.refuse(n, "of integers and others")
		}
		return o.bounds, nil
	}
	a, err := p.array(n, i)
	if err == nil && (a == nil || a.float() || a.kind == typeBool || a.len() == 0 || a.steps != nil) {
		err = p.refuse(n, "of integers and others")
	}
	if err != nil {
		return [2]int64{}, err
	}
	return [2]int64{slices.Min(a.ints), slices.Max(a.ints)}, nil
}

// ofIntegers reads Add, Sub and Mul of integers, of which one at least is a value: as of floats, of
// which none may become too large for that.
func (p *parser) ofIntegers(n *node, a, b operand) (operand, error) {
	x, err := p.boundsOf(n, 0)
	if err != nil {
		return a, err
	}
	y, err := p.boundsOf(n, 1)
	if err != nil {
		return a, err
	}
	var of []int64
	for _, v := range x {
		for _, w := range y {
			if max(v, -v, w, -w) > graph.MaxInteger {
				return a, p.refuse(n, "of integers of more than %d", graph.MaxInteger)
			}
			switch n.op {
			case "Add":
				of = append(of, v+w)
			case "Sub":
				of = append(of, v-w)
			case "Mul":
				of = append(of, v*w)
			default:
				return a, p.refuse(n, "of integers")
			}
		}
	}
	bounds := [2]int64{slices.Min(of), slices.Max(of)}
	if max(-bounds[0], bounds[1]) > graph.MaxInteger {
		return a, p.refuse(n, "of integers of more than %d", graph.MaxInteger)
	}
	var z operand
	switch {
	case a.known && b.known:
		z, err = p.ofTwo(n, a, b)
	case a.known:
		z, err = p.affine(n, n.op, 0)
	default:
		z, err = p.affine(n, n.op, 1)
	}
	z.whole, z.bounds = true, bounds
	return z, err
}

// cumSum reads a CumSum of a value.
func (p *parser) cumSum(n *node) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	list, err := p.list(n, "", 1)
	if err != nil {
		return x, err
	}
	if len(list) != 1 || n.int("exclusive", 0) != 0 || n.int("reverse", 0) != 0 {
		return x, p.refuse(n, "exclusive, reverse or of several axes")
	}
	i, err := p.index(n, x.view(), list[0])
	if err != nil {
		return x, err
	}
	l := x.view().size(i).n
	bounds := [2]int64{min(x.bounds[0], l*x.bounds[0]), max(x.bounds[1], l*x.bounds[1])}
	if x.whole && max(-bounds[0], bounds[1]) > graph.MaxInteger {
		return x, p.refuse(n, "of integers of more than %d", graph.MaxInteger)
	}
	whole := x.whole
	if x.split == nil {
		x, err = p.channelsAt(x, i-1)
	} else {
		x, err = p.alongC(x, i)
	}
	if err != nil {
		return x, err
	}
	y, err := p.apply(graph.CumSum{}, x.axes, x)
	y.whole, y.bounds = whole, bounds
	return y, err
}

// widened returns what an Expand makes of x, made.
func (p *parser) widened(x operand) (operand, error) {
	to, from := shapedDims(*x.wide, x.axes), shapedDims(x.shape, x.axes)
	x.wide = nil
	for i, d := range to {
		if d == from[i] {
			continue
		}
		if err := p.charge(int(d)); err != nil {
			return x, err
		}
		y, err := p.gathered(x, 1+i, slices.Repeat([]int{0}, int(d)))
		if err != nil {
			return x, err
		}
		y.alike(x)
		x = y
	}
	return x, nil
}

// ofEachSample returns x, of which dimension i begins with the samples or is that of one, with that
// dimension in two: the samples', and what each of them has.
func (p *parser) ofEachSample(x operand, i int) (operand, bool) {
	s := x.view()
	to := slices.Clone(s.sizes())
	to = slices.Insert(slices.Delete(to, i, i+1), i, size{1, true}, size{n: s.size(i).n})
	if i > 0 || !s.size(i).batch {
		return x, false
	}
	return p.regrouped(x, to)
}

// gatherOwn reads a Gather of a value by indices that count the samples' elements one after the
// other, as torch's masks have it, or a GatherND by each sample's own number and a place: of each
// sample, elements of its own.
func (p *parser) gatherOwn(n *node, x operand) (operand, error) {
	a, err := p.array(n, 1)
	if err != nil {
		return x, err
	}
	if a == nil || a.float() || a.kind == typeBool || len(a.dims) == 0 || len(a.ints) == 0 {
		return x, p.refuse(n, "across samples")
	}
	places := make([]int64, 0, len(a.ints))
	dims := a.dims
	s := x.view()
	switch n.op {
	case "GatherND":
		last := len(dims) - 1
		if dims[last] != 2 || len(s.dims) < 2 || !slices.Equal(s.dims[0], []int{batch}) {
			return x, p.refuse(n, "across samples")
		}
		dims = dims[:last]
		for i := 0; i < len(a.ints); i += 2 {
			step, other := int64(1), int64(0)
			if a.steps != nil {
				step, other = a.steps[i], a.steps[i+1]
			} else if p.batch != 1 {
				return x, p.refuse(n, "across samples")
			}
			if own := a.ints[i] == 0 || p.batch == 1 && a.ints[i] == -1; !own || step != 1 || other != 0 {
				return x, p.refuse(n, "across samples")
			}
			places = append(places, a.ints[i+1])
		}
	default:
		y, ok := p.ofEachSample(x, 0)
		if !ok || n.int("axis", 0) != 0 && n.int("axis", 0) != -int64(len(s.dims)) {
			return x, p.refuse(n, "across samples")
		}
		each := y.view().size(1).n
		for i, v := range a.ints {
			if p.batch != 1 && (a.steps == nil || a.steps[i] != each || v < 0 || v >= each) {
				return x, p.refuse(n, "across samples")
			}
			places = append(places, v)
		}
		x = y
	}
	if p.batch != 1 && !a.shared {
		return x, p.refuse(n, "across samples")
	}
	// Of two dimensions, the samples' and their elements', become those of the indices.
	rest := x.view().sizes()[2:]
	at, err := elements(places, x.view().size(1).n)
	if err != nil {
		return x, err
	}
	if x, err = p.gathered(x, 1, at); err != nil {
		return x, err
	}
	var to []size
	for i, d := range dims {
		to = append(to, size{n: d, batch: i == 0 && a.shared})
	}
	if to = append(to, rest...); len(to) > 1+maxSplit {
		return x, p.refuse(n, "to rank %d", len(to))
	}
	y, ok := p.regrouped(x, to)
	if !ok {
		return x, p.refuse(n, "across samples")
	}
	return y, nil
}

// constantFor returns input i of n, a constant, as one for each sample of x, which may be shared by
// all of them. It has no more dimensions than x.
func (p *parser) constantFor(n *node, i int, x operand) (*tensor, error) {
	o, err := p.any(n, i)
	if err != nil {
		return nil, err
	}
	switch {
	case o.constant == nil && o.sizes == nil:
		return nil, p.refuse(n, "input %d not constant", i)
	case o.sizes != nil:
		return p.constant(n, i)
	}
	if t := o.constant; x.whole && (t.kind == typeInt32 || t.kind == typeInt64) {
		a, err := p.array(n, i) // of integers that floats have, see ofIntegers
		if err != nil {
			return nil, err
		}
		if err := p.compute(a.len()); err != nil {
			return nil, err
		}
		u := &tensor{kind: typeFloat, dims: t.dims}
		for _, v := range a.ints {
			u.floats = append(u.floats, float32(v))
		}
		o.constant = u
	}
	if !o.shared {
		return o.constant, nil
	}
	s := x.view()
	if o.steps != nil || len(o.constant.dims) != len(s.dims) || !slices.Equal(s.dims[0], []int{batch}) {
		return nil, p.refuse(n, "of what is expanded")
	}
	return o.constant, nil
}

// chosen reads a Where by a constant, of which at least one choice is a value.
func (p *parser) chosen(n *node) (operand, error) {
	at := 1
	if !p.operands[n.inputs[1]].known {
		at = 2
	}
	x, err := p.viewed(n, at)
	if err != nil {
		return x, err
	}
	condition, err := p.constantFor(n, 0, x)
	if err != nil {
		return x, err
	}
	is, err := p.array(n, 0)
	if err != nil {
		return x, err
	}
	if is == nil || is.kind != typeBool || is.len() == 0 {
		return x, p.refuse(n, "by a constant of element type %d", condition.kind)
	}
	all := !slices.Contains(is.ints, int64(at-1)) // Where takes the second input for 0
	if !p.fits(is, x) {
		return x, p.refuse(n, "values of unlike shapes")
	}
	if p.operands[n.inputs[3-at]].known {
		y, err := p.viewed(n, 3-at)
		if err != nil {
			return x, err
		}
		if !p.fitsValue(y, x) || !all {
			return x, p.refuse(n, "by a constant, of two values")
		}
		return x, nil
	}
	if _, err := p.constantFor(n, 3-at, x); err != nil {
		return x, err
	}
	v, err := p.array(n, 3-at)
	if err != nil {
		return x, err
	}
	if v == nil || !v.float() || v.len() == 0 || v.steps != nil {
		return x, p.refuse(n, "by a constant")
	}
	if !p.fits(v, x) {
		return x, p.refuse(n, "values of unlike shapes")
	}
	if all {
		return x, nil
	}
	// a x + b, with a and b for each element: 1 and 0 where x is taken, else 0 and the constant;
	// or 1 and minus infinity.
	is.shared, v.shared = false, false
	dims, _, _ := p.broadcast(is, v)
	if is, err = p.spreadTo(is, dims); err != nil {
		return x, err
	}
	if v, err = p.spreadTo(v, dims); err != nil {
		return x, err
	}
	if err := p.compute(2 * is.len()); err != nil {
		return x, err
	}
	a := &tensor{kind: typeFloat, dims: dims, floats: make([]float32, is.len())}
	b := &tensor{kind: typeFloat, dims: dims, floats: make([]float32, is.len())}
	scaled := false
	for i, take := range is.ints {
		a.floats[i] = 1
		if take == int64(2-at) {
			continue
		}
		if b.floats[i] = v.floats[i]; !negativeInfinity(v.floats[i]) {
			a.floats[i], scaled = 0, true
		}
	}
	x, shift, extent, err := p.spread(n, b, x)
	if err != nil {
		return x, err
	}
	op := &graph.Affine{Shift: shift}
	masked := x.masked || slices.ContainsFunc(shift, negativeInfinity)
	if scaled && x.masked {
		return x, p.refuse(n, "of infinities")
	}
	if scaled {
		y, scale, other, err := p.spread(n, a, x)
		if err != nil {
			return x, err
		}
		if other != extent || y.value != x.value { // what is alike everywhere in one is not in the other
			return x, p.refuse(n, "by a constant")
		}
		op.Scale = scale
	}
	y, err := p.apply(elementAffine(extent, op, x), x.axes, x)
	y.masked = masked
	return y, err
}

func negativeInfinity(v float32) bool { return math.IsInf(float64(v), -1) }

// fits reports whether a broadcasts to x.
func (p *parser) fits(a *array, x operand) bool {
	s := x.view()
	before := len(s.dims) - len(a.dims)
	if before < 0 {
		return false
	}
	for i, d := range a.dims {
		if of := s.size(before + i); d != 1 && (of.batch || of.n != d) {
			return false
		}
	}
	return true
}

// fitsValue reports whether y broadcasts to x.
func (p *parser) fitsValue(y, x operand) bool {
	s, t := x.view(), y.view()
	if len(s.dims) != len(t.dims) || !p.sameSamples(s, t) {
		return false
	}
	for i := range s.dims {
		if of := t.size(i); of != (size{n: 1}) && of != s.size(i) {
			return false
		}
	}
	return true
}
