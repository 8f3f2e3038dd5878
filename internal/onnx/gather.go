package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// Gather and its kin, by constant places or by integers of an input, and Tile.

// gather reads a Gather of sizes, or one of a single place of a value.
func (p *parser) gather(n *node) (operand, error) {
	if i, err := p.any(n, 1); err != nil || i.known {
		if err != nil {
			return i, err
		}
		return p.lookedUp(n)
	}
	if x, err := p.operand(n, 0); err != nil || x.known {
		if err != nil {
			return x, err
		}
		return p.gatherValue(n)
	}
	from, err := p.sizes(n, 0)
	if err != nil {
		return operand{}, err
	}
	indices, err := p.sizes(n, 1)
	if err != nil {
		return operand{}, err
	}
	if axis := n.int("axis", 0); len(from.dims) != 1 || axis != 0 && axis != -1 {
		return operand{}, fmt.Errorf("%w: axis %d of sizes of rank %d", ErrInvalid, axis, len(from.dims))
	}
	to := &sizes{make([]size, len(indices.v)), indices.dims}
	for i, j := range indices.v {
		l := int64(len(from.v))
		if j.batch {
			return operand{}, p.refuse(n, "by the batch's size")
		}
		if j.n < -l || j.n >= l {
			return operand{}, fmt.Errorf("%w: element %d of %d", ErrInvalid, j.n, l)
		}
		to.v[i] = from.v[(j.n+l)%l]
	}
	return operand{sizes: to}, nil
}

// gatherValue reads a Gather of places of a value, or of one, with or without its dimension.
func (p *parser) gatherValue(n *node) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	if p.operands[n.inputs[1]].shared {
		return p.gatherOwn(n, x)
	}
	list, dims, err := p.places(n, 1)
	if err != nil {
		return x, err
	}
	x = p.aside(x, n.int("axis", 0))
	i, err := p.index(n, x.view(), n.int("axis", 0))
	if err != nil {
		return x, err
	}
	places, err := elements(list, x.view().size(i).n)
	if err != nil {
		return x, err
	}
	if len(places) == 0 {
		return x, p.refuse(n, "by no indices")
	}
	if x, err = p.gathered(x, i, places); err != nil || len(dims) == 1 {
		return x, err
	}
	s := x.view()
	if len(dims) > 1 { // a dimension is as many as the indices have
		var of []size
		for _, d := range dims {
			of = append(of, size{n: d})
		}
		to := slices.Concat(s.sizes()[:i], of, s.sizes()[i+1:])
		return p.regroupedFor(n, x, to)
	}
	if len(s.dims) < 3 {
		return x, p.refuse(n, "to rank 1")
	}
	if x.split == nil && i > 0 {
		x.axes = slices.Delete(slices.Clone(x.axes), i-1, i)
		return x, nil
	}
	t := &split{s.parts, slices.Delete(slices.Clone(s.dims), i, i+1)}
	if s.size(i).batch { // of one sample
		t = t.batchAt(0)
	}
	return p.seen(x, t), nil
}

// gathered returns the given places, one or more, of x along dimension i.
func (p *parser) gathered(x operand, i int, places []int) (operand, error) {
	if graph.InOrder(places) {
		return p.cutOff(x, i, int64(places[0]), int64(places[0]+len(places)))
	}
	x, a, err := p.alone(x, i)
	if err != nil {
		return x, err
	}
	return p.along(&graph.Gather{Along: [...]string{"C", "H", "W"}[a], From: places}, x, i, a)
}

// gatherND reads a GatherND of a grid of places, along the first dimensions of a value that was
// transposed so that these are not the batch, as exporters write an index by lists.
func (p *parser) gatherND(n *node) (operand, error) {
	if d := n.int("batch_dims", 0); d != 0 {
		return operand{}, p.refuse(n, "batch_dims=%d", d)
	}
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	o, err := p.any(n, 1)
	if err != nil {
		return x, err
	}
	if t := o.constant; t != nil && len(t.dims) > 0 && (o.shared || p.batch == 1 && t.dims[len(t.dims)-1] == 2 && slices.Equal(x.view().dims[0], []int{batch})) {
		return p.gatherOwn(n, x)
	}
	t, err := p.constant(n, 1)
	if err != nil {
		return x, err
	}
	last := len(t.dims) - 1
	if last < 1 || t.dims[last] > 2 || t.dims[last] >= int64(x.rank()) {
		return x, p.refuse(n, "by indices of shape %d", t.dims)
	}
	list, _, err := p.places(n, 1)
	if err != nil {
		return x, err
	}
	lists, ok := grid(list, t.dims[:last], int(t.dims[last]))
	if !ok {
		return x, p.refuse(n, "of no grid")
	}
	for i, list := range lists {
		if _, err := p.index(n, x.view(), int64(i)); err != nil {
			return x, err
		}
		places, err := elements(list, x.view().size(i).n)
		if err != nil {
			return x, err
		}
		if x, err = p.gathered(x, i, places); err != nil {
			return x, err
		}
	}
	// The dimensions of the indices, then those of which nothing was taken.
	var to []size
	for _, d := range t.dims[:last] {
		to = append(to, size{n: d})
	}
	to = append(to, x.view().sizes()[len(lists):]...)
	y, ok := p.regrouped(x, to)
	if !ok || len(to) > 1+maxSplit {
		return x, p.refuse(n, "to rank %d", len(to))
	}
	return y, nil
}

// grid returns the lists of which indices of the given shape, each of one or two places, are all
// the pairs.
func grid(indices, shape []int64, places int) ([][]int64, bool) {
	if places == 1 {
		return [][]int64{indices}, true
	}
	cols := len(indices) / 2
	for k := 1; k < len(shape); k++ {
		cols /= int(shape[k-1])
		lists := make([][]int64, 2)
		for i := 0; i < len(indices); i += 2 * cols {
			lists[0] = append(lists[0], indices[i])
		}
		for i := range cols {
			lists[1] = append(lists[1], indices[2*i+1])
		}
		ok := true
		for i := range len(indices) / 2 {
			ok = ok && indices[2*i] == lists[0][i/cols] && indices[2*i+1] == lists[1][i%cols]
		}
		if ok {
			return lists, true
		}
	}
	return nil, false
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
	var places []int64
	dims := a.dims
	if n.op == "GatherND" {
		dims = dims[:len(dims)-1]
		places, err = p.pairedWithSamples(n, x.view(), a)
	} else {
		x, places, err = p.amongSamples(n, x, a)
	}
	if err == nil && p.batch != 1 && !a.shared {
		err = p.refuse(n, "across samples")
	}
	if err != nil {
		return x, err
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
	return p.regroupedFor(n, x, append(to, rest...))
}

// pairedWithSamples returns the places that the GatherND n takes of a split's second dimension, where
// the indices a are pairs of each sample's own number and a place.
func (p *parser) pairedWithSamples(n *node, s *split, a *array) (places []int64, err error) {
	if a.dims[len(a.dims)-1] != 2 || len(s.dims) < 2 || !slices.Equal(s.dims[0], []int{batch}) {
		return nil, p.refuse(n, "across samples")
	}
	for i := 0; i < len(a.ints); i += 2 {
		step, other := int64(1), int64(0)
		if a.steps != nil {
			step, other = a.steps[i], a.steps[i+1]
		} else if p.batch != 1 {
			return nil, p.refuse(n, "across samples")
		}
		if own := a.ints[i] == 0 || p.batch == 1 && a.ints[i] == -1; !own || step != 1 || other != 0 {
			return nil, p.refuse(n, "across samples")
		}
		places = append(places, a.ints[i+1])
	}
	return places, nil
}

// amongSamples returns x with its first dimension in two, the samples' and their elements', and the
// places among each sample's elements that the Gather n takes, where the indices a count all samples'.
func (p *parser) amongSamples(n *node, x operand, a *array) (operand, []int64, error) {
	y, ok := p.ofEachSample(x)
	if axis := n.int("axis", 0); !ok || axis != 0 && axis != -int64(x.rank()) {
		return x, nil, p.refuse(n, "across samples")
	}
	each := y.view().size(1).n
	for i, v := range a.ints {
		if p.batch != 1 && (a.steps == nil || a.steps[i] != each || v < 0 || v >= each) {
			return x, nil, p.refuse(n, "across samples")
		}
	}
	return y, a.ints, nil
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
	if x, err = p.widened(x); err != nil {
		return x, err
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
	y, err := p.apply(&graph.Embedding{Rows: int(t.dims[0]), Width: int(t.dims[1]), From: read}, nil, x.bare())
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
	to.dims = renumbered(s.dims, number)
	to.dims = append(to.dims, []int{0}[:first])
	return p.seen(y, to), nil
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

// tile reads a Tile that keeps samples apart.
func (p *parser) tile(n *node, x operand) (operand, error) {
	times, err := p.list(n, "", 1)
	if err != nil {
		return x, err
	}
	if len(times) != x.rank() {
		return x, fmt.Errorf("%w: %d repeats of rank %d", ErrInvalid, len(times), x.rank())
	}
	for i, r := range times {
		if r < 1 || r > math.MaxInt32 {
			return x, fmt.Errorf("%w: repeated %d times", ErrInvalid, r)
		}
		if r == 1 {
			continue
		}
		if _, err := p.index(n, x.view(), int64(i)); err != nil {
			return x, err
		}
		l := x.view().size(i).n
		if err := p.charge(int(l * r)); err != nil {
			return x, err
		}
		var places []int
		for j := range l * r {
			places = append(places, int(j%l))
		}
		if x, err = p.gathered(x, i, places); err != nil {
			return x, err
		}
	}
	return x, nil
}

// places returns input i of n, integers, and their dimensions.
func (p *parser) places(n *node, i int) (list, dims []int64, err error) {
	o, err := p.operand(n, i)
	if err != nil {
		return nil, nil, err
	}
	if o.sizes == nil {
		t, err := p.constant(n, i)
		if err != nil {
			return nil, nil, err
		}
		l, err := t.len()
		if err == nil {
			err = p.charge(l)
		}
		if err != nil {
			return nil, nil, err
		}
		list, err = p.integers(n, t, l)
		return list, t.dims, err
	}
	for _, d := range o.sizes.v {
		if d.batch {
			return nil, nil, p.refuse(n, "by the batch's size")
		}
		list = append(list, d.n)
	}
	return list, o.sizes.dims, nil
}

// elements returns the numbers of a list counted from the start, of l elements.
func elements(list []int64, l int64) ([]int, error) {
	places := make([]int, len(list))
	for j, v := range list {
		if v < -l || v >= l {
			return nil, fmt.Errorf("%w: element %d of %d", ErrInvalid, v, l)
		}
		places[j] = int((v + l) % l)
	}
	return places, nil
}
