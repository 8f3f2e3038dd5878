package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
)

// places returns input i of n, integers, and their rank.
func (p *parser) places(n *node, i int) ([]int64, int, error) {
	o, err := p.operand(n, i)
	if err != nil {
		return nil, 0, err
	}
	if o.sizes == nil {
		t, err := p.constant(n, i)
		if err != nil {
			return nil, 0, err
		}
		l, err := t.len()
		if err == nil {
			err = p.charge(l)
		}
		if err != nil {
			return nil, 0, err
		}
		v, err := p.integers(n, t, l)
		return v, len(t.dims), err
	}
	var v []int64
	for _, d := range o.sizes.v {
		if d.batch {
			return nil, 0, p.refuse(n, "by the batch's size")
		}
		v = append(v, d.n)
	}
	return v, len(o.sizes.dims), nil
}

// dimsOf returns the dimensions of integers that places returned.
func (p *parser) dimsOf(name string) []int64 {
	if o := p.operands[name]; o.sizes == nil {
		return o.constant.dims
	} else {
		return o.sizes.dims
	}
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

// gatherValue reads a Gather of places of a value, or of one, with or without its dimension.
func (p *parser) gatherValue(n *node) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
	if p.operands[n.inputs[1]].shared {
		return p.gatherOwn(n, x)
	}
	list, rank, err := p.places(n, 1)
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
	if x, err = p.gathered(x, i, places); err != nil || rank == 1 {
		return x, err
	}
	s := x.view()
	if rank > 1 { // a dimension is as many as the indices have
		var of []size
		for _, d := range p.dimsOf(n.inputs[1]) {
			of = append(of, size{n: d})
		}
		to := slices.Concat(s.sizes()[:i], of, s.sizes()[i+1:])
		if len(to) > 1+maxSplit {
			return x, p.refuse(n, "to rank %d", len(to))
		}
		y, ok := p.regrouped(x, to)
		if !ok {
			return x, p.refuse(n, "across samples")
		}
		return y, nil
	}
	if len(s.dims) < 3 {
		return x, p.refuse(n, "to rank 1")
	}
	if x.split == nil && i > 0 {
		x.axes = slices.Delete(slices.Clone(x.axes), i-1, i)
		return x, nil
	}
	dims := slices.Delete(slices.Clone(s.dims), i, i+1)
	if s.size(i).batch { // of one sample
		dims[0] = append([]int{batch}, dims[0]...)
	}
	return p.seen(x, &split{s.parts, dims}), nil
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

// pad reads a Pad. Before opset 11 its inputs are attributes.
func (p *parser) pad(n *node) (operand, error) {
	mode := "constant"
	if a, given := n.attribute("mode"); given {
		mode = string(a.s)
	}
	if mode != "constant" && mode != "reflect" && mode != "edge" && mode != "wrap" {
		return operand{}, p.refuse(n, "mode=%s", clean(mode))
	}
	x, err := p.variable(n, 0, 0)
	if err != nil {
		return x, err
	}
	pads, err := p.list(n, "pads", 1)
	if err != nil {
		return x, err
	}
	value := n.float("value", 0)
	if n.has(2) && mode == "constant" {
		t, err := p.constant(n, 2)
		if err != nil {
			return x, err
		}
		v, err := p.floats32(n, t)
		if err != nil {
			return x, err
		}
		if len(v) != 1 {
			return x, fmt.Errorf("%w: %d values to pad with", ErrInvalid, len(v))
		}
		value = v[0]
	}
	var axes []int64
	if n.has(3) {
		if axes, err = p.list(n, "axes", 3); err != nil {
			return x, err
		}
	}
	dims, err := p.dimensions(n, x, axes, n.has(3))
	if err != nil {
		return x, err
	}
	if len(pads) != 2*len(dims) {
		return x, fmt.Errorf("%w: %d pads for %d axes", ErrInvalid, len(pads), len(dims))
	}
	op := graph.Pad{Value: value}
	before := []*int{&op.Before.C, &op.Before.H, &op.Before.W}
	after := []*int{&op.After.C, &op.After.H, &op.After.W}
	part, extents := newSlicing(x), x.dims()
	seen := map[int]bool{}
	for k, i := range dims {
		from, to := pads[k], pads[k+len(dims)]
		if seen[i] {
			return x, fmt.Errorf("%w: an axis twice", ErrInvalid)
		}
		seen[i] = true
		if from == 0 && to == 0 {
			continue
		}
		if i < 0 {
			return x, p.refuse(n, "across samples")
		}
		if max(from, to) > math.MaxInt32 || min(from, to) < -math.MaxInt32 {
			return x, fmt.Errorf("%w: padding of %d, %d", ErrInvalid, from, to)
		}
		if mode != "constant" {
			if x, err = p.mirrored(n, x, i, mode, from, to); err != nil {
				return x, err
			}
			continue
		}
		// Where a pad is negative, so much of the value is left out.
		left, right := max(-from, 0), extents[i]-max(-to, 0)
		if left >= right {
			return x, fmt.Errorf("%w: padding of %d, %d for %d elements", ErrInvalid, from, to, extents[i])
		}
		part.cut(i, left, right)
		*before[x.axes[i]], *after[x.axes[i]] = int(max(from, 0)), int(max(to, 0))
	}
	if mode != "constant" {
		return x, nil
	}
	if x, err = part.apply(p); err != nil || op.Before == (graph.Shape{}) && op.After == (graph.Shape{}) {
		return x, err
	}
	return p.apply(op, x.axes, x)
}

// mirrored pads x along dimension i with elements of its own.
func (p *parser) mirrored(n *node, x operand, i int, mode string, from, to int64) (operand, error) {
	l := x.dims()[i]
	if from < 0 || to < 0 {
		return x, p.refuse(n, "negative pads, mode=%s", mode)
	}
	if mode == "reflect" && max(from, to) >= l || mode == "wrap" && max(from, to) > l {
		return x, p.refuse(n, "more than there is, mode=%s", mode)
	}
	if err := p.charge(int(from + l + to)); err != nil {
		return x, err
	}
	var places []int
	for j := -from; j < l+to; j++ {
		at := min(max(j, 0), l-1)
		switch {
		case mode == "reflect" && j != at:
			at = 2*at - j
		case mode == "wrap":
			at = (j + l) % l
		}
		places = append(places, int(at))
	}
	return p.gathered(x, 1+i, places)
}

// largest reads Max and Min of values and numbers.
func (p *parser) largest(n *node) (operand, error) {
	var x operand // of the values so far
	var numbers []float32
	for i := range n.inputs {
		y, err := p.operand(n, i)
		switch {
		case err != nil:
			return y, err
		case y.known && !x.known:
			x, err = p.variable(n, i, 0)
		case y.known:
			x, err = p.ofTwo(n, x, y)
		default:
			v, single, wrong := p.number(n, i, math.MaxInt)
			if wrong == nil && !single {
				wrong = p.refuse(n, "constant of more than one number")
			}
			numbers, err = append(numbers, v), wrong
		}
		if err != nil {
			return x, err
		}
	}
	if !x.known {
		return x, p.refuse(n, "constant input 0")
	}
	for _, v := range numbers {
		clip := graph.Clip{Min: v, Max: math.MaxFloat32}
		if n.op == "Min" {
			clip = graph.Clip{Min: -math.MaxFloat32, Max: v}
		}
		var err error
		if x, err = p.apply(clip, x.axes, x); err != nil {
			return x, err
		}
	}
	return x, nil
}

// tile reads a Tile that keeps samples apart.
func (p *parser) tile(n *node) (operand, error) {
	x, err := p.viewed(n, 0)
	if err != nil {
		return x, err
	}
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

// gather writes op of x.
func (w *writer) gather(op *graph.Gather, x, name string) {
	places := make([]int64, len(op.From))
	for i, v := range op.From {
		places[i] = int64(v)
	}
	axis := map[string]int{"C": 1, "H": 2, "W": 3}[op.Along]
	w.emit("Gather", []string{x, w.ints(name+".places", places...)}, name, intAttribute("axis", axis))
}
