package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// What transformers have beside layers: products of two values, constants of more than a
// value a channel, and what is computed of constants on the way.

// product reads a MatMul of two values: of matrices of their last two dimensions, one for
// each element of the others.
func (p *parser) product(n *node) (operand, error) {
	a, err := p.viewed(n, 0)
	if err != nil {
		return a, err
	}
	b, err := p.viewed(n, 1)
	if err != nil {
		return b, err
	}
	r, s, t := a.rank(), a.view(), b.view()
	if r < 3 || r != b.rank() {
		return a, p.refuse(n, "values of ranks %d and %d", r, b.rank())
	}
	rows, cols := r-2, r-1
	for i := range r {
		x, y := s.size(i), t.size(i)
		switch {
		case i >= rows && (x.batch || y.batch):
			return a, p.refuse(n, "across samples")
		case i < rows && !p.same(x, y):
			return a, p.refuse(n, "values of unlike shapes")
		}
	}
	if !p.sameSamples(s, t) {
		return a, p.refuse(n, "across samples")
	}
	if !p.same(s.size(cols), t.size(rows)) {
		return a, fmt.Errorf("%w: products of %d elements and of %d", ErrInvalid, s.size(cols).n, t.size(rows).n)
	}
	// The second is taken as its columns are in memory, side by side or not.
	op := graph.Product{Transposed: b.split == nil && b.axes[rows-1] == axisC}
	if along := t.axesOf(b.shape)[axisC]; b.split != nil && len(along) > 0 {
		last := t.dims[rows]
		op.Transposed = len(last) > 0 && last[len(last)-1] == along[len(along)-1]
	}
	lead := s.others(rows, cols)
	if a, err = p.placed(a, []int{cols}, lead, []int{rows}); err != nil {
		return a, err
	}
	if op.Transposed {
		b, err = p.placed(b, []int{rows}, lead, []int{cols})
	} else {
		b, err = p.placed(b, []int{cols}, lead, []int{rows})
	}
	if err != nil {
		return a, err
	}
	if a.split == nil {
		return p.apply(op, a.axes, a, b)
	}
	y, err := p.apply(op, nil, operand{value: a.value, shape: a.shape}, b)
	if err != nil {
		return a, err
	}
	return p.resized(y, a, cols, axisC), nil
}

// same reports whether two sizes are one; a batch of one sample counts for nothing.
func (p *parser) same(x, y size) bool { return x.n == y.n && (x.batch == y.batch || p.batch == 1) }

// sameSamples reports whether two splits of alike dimensions have the batch in one place,
// where that matters.
func (p *parser) sameSamples(s, t *split) bool {
	if p.batch == 1 {
		return true
	}
	i, before := s.samples()
	j, other := t.samples()
	return i == j && before == other
}

// lastAlongC returns x with its last dimension along C, and which that is.
func (p *parser) lastAlongC(n *node, x operand) (operand, int, error) {
	s := x.view()
	last := len(s.dims) - 1
	if s.size(last).batch {
		return x, last, p.refuse(n, "across samples")
	}
	var err error
	if x.split == nil {
		x, err = p.channelsAt(x, last-1)
	} else {
		x, err = p.alongC(x, last)
	}
	return x, last, err
}

// together returns two values of one rank, one of which is a split, with their dimensions
// along the same axes.
func (p *parser) together(n *node, a, b operand) (operand, operand, error) {
	s, t := a.view(), b.view()
	if a.split != nil && b.split != nil && a.shape == b.shape && slices.Equal(s.parts, t.parts) && slices.EqualFunc(s.dims, t.dims, slices.Equal) {
		return a, b, nil
	}
	if !p.sameSamples(s, t) {
		return a, b, p.refuse(n, "values of unlike shapes")
	}
	// Along H what one has a single element of, as Suits has it of an axis.
	var c, h, w []int
	for i := range s.dims {
		x, y := s.size(i), t.size(i)
		switch {
		case x.n != y.n && (x.n != 1 && y.n != 1 || x.batch && p.batch != 1):
			return a, b, p.refuse(n, "values of unlike shapes")
		case i == len(s.dims)-1:
			c = []int{i}
		case x.n != y.n:
			h = append(h, i)
		case x.n != 1:
			w = append(w, i)
		}
	}
	a, err := p.placed(a, c, h, w)
	if err == nil {
		b, err = p.placed(b, c, h, w)
	}
	return a, b, err
}

// reduceView reads a reduction of a split.
func (p *parser) reduceView(n *node, x operand, axes []int64) (operand, error) {
	s := x.view()
	var over []int
	for _, a := range axes {
		i, err := p.index(n, s, a)
		if err != nil {
			return x, err
		}
		if slices.Contains(over, i) {
			return x, fmt.Errorf("%w: axis %d twice", ErrInvalid, a)
		}
		over = append(over, i)
	}
	slices.Sort(over)
	var err error
	if n.op == "ReduceL2" {
		if x, err = p.apply(graph.Square{}, nil, x); err != nil {
			return x, err
		}
	}
	// Means go over channels, all else over rows.
	along, rest := axisC, s.others(over...)
	if n.op == "ReduceMean" {
		x, err = p.placed(x, over, nil, rest)
	} else {
		along = axisH
		last := max(len(rest)-1, 0)
		x, err = p.placed(x, rest[last:], over, rest[:last])
	}
	if err != nil {
		return x, err
	}
	y, err := p.reduced(n.op, operand{value: x.value, shape: x.shape}, map[axis]bool{along: true})
	if err == nil && n.op == "ReduceL2" {
		y, err = p.apply(graph.Sqrt{}, nil, y)
	}
	if err != nil {
		return x, err
	}
	// All of the axis is one element.
	s = x.view()
	of := s.axesOf(x.shape)
	at, less := 0, len(of[along])
	if along != axisC {
		at = len(of[axisC])
	}
	t := &split{parts: slices.Delete(slices.Clone(s.parts), at, at+less)}
	for i, d := range s.dims {
		if slices.Contains(over, i) && n.int("keepdims", 1) == 0 {
			continue
		}
		var list []int
		for _, k := range d {
			switch {
			case k < at: // or the batch
				list = append(list, k)
			case k >= at+less:
				list = append(list, k-less)
			}
		}
		t.dims = append(t.dims, list)
	}
	if len(t.dims) < 2 {
		return y, p.refuse(n, "to rank 1")
	}
	if dim, _ := t.samples(); dim < 0 { // one sample, in what is left out
		t.dims[0] = append([]int{batch}, t.dims[0]...)
	}
	return p.seen(y, t), nil
}

// spread returns t as scales or shifts of x, which is returned with its dimensions in
// another order if that helps: of as many elements as the extent says, which repeat.
func (p *parser) spread(n *node, t *tensor, x operand) (operand, []float32, graph.Shape, error) {
	many := 0
	for _, d := range t.dims {
		if d != 1 {
			many++
		}
	}
	if x.split == nil && many < 2 || many == 0 && len(t.dims) <= x.rank() {
		if x.split != nil {
			v, err := p.floats32(n, t)
			if err == nil {
				v, err = p.repeated(v[0], x.shape.C)
			}
			return x, v, graph.Vector(x.shape.C), err
		}
		x, v, err := p.perChannel(n, t, x)
		return x, v, graph.Vector(x.shape.C), err
	}
	s := x.view()
	before := len(s.dims) - len(t.dims)
	if before < 0 {
		return x, nil, graph.Shape{}, p.refuse(n, "constant of more dimensions")
	}
	// What a step along each of x's parts is in t, or 0.
	strides, stride := make([]int, len(s.parts)), 1
	for i := len(t.dims) - 1; i >= 0; i-- {
		d := t.dims[i]
		if d == 1 {
			continue
		}
		switch of := s.size(before + i); {
		case of.batch:
			return x, nil, graph.Shape{}, p.refuse(n, "constant for each sample")
		case of.n != d:
			return x, nil, graph.Shape{}, p.refuse(n, "constant of another shape")
		}
		parts := s.dims[before+i]
		for j := len(parts) - 1; j >= 0; j-- {
			strides[parts[j]] = stride
			stride *= int(s.parts[parts[j]])
		}
	}
	// Along each axis, from the first part that t has on, where its elements are.
	var places [3][]int
	for a, parts := range s.axesOf(x.shape) {
		places[a] = []int{0}
		for len(parts) > 0 && strides[parts[0]] == 0 {
			parts = parts[1:]
		}
		for _, k := range parts {
			if len(places[a]) > plan.MaxExtent/int(s.parts[k]) {
				return x, nil, graph.Shape{}, fmt.Errorf("%w: a constant of too many elements", ErrInvalid)
			}
			if err := p.charge(len(places[a]) * int(s.parts[k])); err != nil {
				return x, nil, graph.Shape{}, err
			}
			var next []int
			for _, at := range places[a] {
				for i := range int(s.parts[k]) {
					next = append(next, at+i*strides[k])
				}
			}
			places[a] = next
		}
	}
	extent := graph.Shape{C: len(places[axisC]), H: len(places[axisH]), W: len(places[axisW])}
	from, err := p.floats32(n, t)
	if err == nil {
		err = p.charge(extent.Len()) // which is no more than x has
	}
	if err != nil {
		return x, nil, extent, err
	}
	v := make([]float32, 0, extent.Len())
	for _, h := range places[axisH] {
		for _, w := range places[axisW] {
			for _, c := range places[axisC] {
				v = append(v, from[h+w+c])
			}
		}
	}
	return x, v, extent, nil
}

// elementAffine returns a, of scales and shifts of the given extent, as an operator of x.
func elementAffine(extent graph.Shape, a *graph.Affine, x operand) graph.Op {
	infinite := slices.ContainsFunc(a.Shift, negativeInfinity) // as masks have it
	if extent == graph.Vector(x.shape.C) && !infinite {
		return a
	}
	return &graph.ElementAffine{Extent: extent, Scale: a.Scale, Shift: a.Shift}
}

// reshapeValue gives x the dimensions to, of which one may be -1, and 0, unless zeros, is
// x's own.
func (p *parser) reshapeValue(n *node, x operand, to []size, zeros bool) (operand, error) {
	s := x.view()
	unlike := fmt.Errorf("%w: %d elements do not have the new shape", ErrInvalid, x.shape.Len())
	dims, free, samples, known := slices.Clone(to), -1, 0, int64(1)
	for i, d := range to {
		if d.n == 0 && !zeros {
			if i >= len(s.dims) {
				return x, unlike
			}
			d = s.size(i)
		}
		if dims[i] = d; d.batch {
			samples++
		}
		switch {
		case d.n == -1 && free < 0:
			free = i
		case d.n <= 0 && to[0].n == -1:
			return x, p.refuse(n, "across samples")
		case d.n <= 0 || d.n > plan.MaxExtent/known:
			return x, unlike
		default:
			known *= d.n
		}
	}
	total := int64(x.shape.Len())
	if samples == 0 && p.batch > 0 { // numbers alone
		if p.batch > math.MaxInt32 {
			return x, unlike
		}
		total *= p.batch
	}
	if samples > 1 || samples == 0 && p.batch == 0 && free < 0 {
		return x, p.refuse(n, "across samples")
	}
	if free >= 0 {
		if dims[free] = (size{total / known, samples == 0 && p.batch == 0}); dims[free].n == 0 {
			return x, unlike
		}
		known *= dims[free].n
	}
	if known != total {
		if !dims[0].batch && (p.batch == 0 || dims[0].n != p.batch) {
			return x, p.refuse(n, "across samples")
		}
		return x, unlike
	}
	first, ok := p.samplesFirst(s)
	if ok && (dims[0] == size{1, true} || samples == 0 && p.batch > 0 && dims[0].n == p.batch) {
		if x.split != nil {
			x.split = first
		}
		var rest []int64
		for _, d := range dims[1:] {
			rest = append(rest, d.n)
		}
		return p.reshaped(n, x, rest)
	}
	if len(dims) > 1+maxSplit {
		return x, p.refuse(n, "to rank %d", len(dims))
	}
	y, ok := p.regrouped(x, dims)
	if !ok {
		return x, p.refuse(n, "across samples")
	}
	return y, nil
}

// sliceView reads a Slice of a split, forwards and without steps.
func (p *parser) sliceView(n *node, x operand, starts, ends, axes []int64) (operand, error) {
	seen := map[int]bool{}
	for k, a := range axes {
		s := x.view()
		r := int64(len(s.dims))
		if starts[k] == 0 && ends[k] >= math.MaxInt32 && a >= -r && a < r {
			continue
		}
		i, err := p.index(n, s, a)
		if err != nil {
			return x, err
		}
		if seen[i] {
			return x, fmt.Errorf("%w: axis %d twice", ErrInvalid, a)
		}
		seen[i] = true
		l := s.size(i).n
		at := func(v int64) int64 {
			if v < 0 {
				v += l
			}
			return min(max(v, 0), l)
		}
		from, to := at(starts[k]), at(ends[k])
		if from >= to {
			return x, fmt.Errorf("%w: an empty Slice", ErrInvalid)
		}
		if x, err = p.cutOff(x, i, from, to); err != nil {
			return x, err
		}
	}
	return x, nil
}

// concatViews reads a Concat of values of one rank, some of them splits.
func (p *parser) concatViews(n *node, axis int64, values []operand) (operand, error) {
	first := values[0].view()
	i, err := p.index(n, first, axis)
	if err != nil {
		return values[0], err
	}
	for k, x := range values {
		s := x.view()
		for j := range s.dims {
			if j != i && !p.same(s.size(j), first.size(j)) {
				return x, p.refuse(n, "values of unlike shapes")
			}
		}
		if s.size(i).batch && p.batch != 1 || !p.sameSamples(s, first) {
			return x, p.refuse(n, "across samples")
		}
		if values[k], err = p.placed(x, []int{i}, nil, first.others(i)); err != nil {
			return x, err
		}
	}
	plain := make([]operand, len(values))
	for k, x := range values {
		plain[k] = operand{value: x.value, shape: x.shape}
	}
	y, err := p.apply(graph.Concat{}, nil, plain...)
	if err != nil {
		return y, err
	}
	return p.resized(y, values[0], i, axisC), nil
}

// concatConstants reads a Concat of one value and constants, which are the same for all
// samples, such as class tokens: of the value padded with zeros, to which they are added.
func (p *parser) concatConstants(n *node, axis int64) (operand, error) {
	at := slices.IndexFunc(n.inputs, func(name string) bool { return p.operands[name].known })
	if at < 0 {
		return operand{}, p.refuse(n, "constant input 0")
	}
	x, err := p.viewed(n, at)
	if err != nil {
		return x, err
	}
	s := x.view()
	i, err := p.index(n, s, axis)
	if err != nil {
		return x, err
	}
	if dim, _ := s.samples(); dim != 0 || len(s.dims[0]) != 1 {
		return x, p.refuse(n, "of constants, across samples")
	}
	var before, after int64
	dims := []int64{1}
	inner := 1
	for j := 1; j < len(s.dims); j++ {
		dims = append(dims, s.size(j).n)
		if j > i {
			inner *= int(s.size(j).n)
		}
	}
	parts := make([][]float32, len(n.inputs))
	for k := range n.inputs {
		if k == at {
			continue
		}
		o, err := p.any(n, k)
		if err != nil {
			return x, err
		}
		t := o.constant
		if t == nil || !o.shared && p.batch != 1 {
			return x, p.refuse(n, "constant input %d", k)
		}
		if len(t.dims) != len(dims) {
			return x, fmt.Errorf("%w: inputs of ranks %d and %d", ErrInvalid, len(dims), len(t.dims))
		}
		for j, d := range t.dims {
			if j == 0 && d != 1 {
				return x, p.refuse(n, "constant for each sample")
			}
			if j != i && d != dims[j] {
				return x, fmt.Errorf("%w: constant of another shape", ErrInvalid)
			}
		}
		if parts[k], err = p.floats32(n, t); err != nil {
			return x, err
		}
		if k < at {
			before += t.dims[i]
		} else {
			after += t.dims[i]
		}
	}
	if before+after > plan.MaxExtent {
		return x, fmt.Errorf("%w: too many constants", ErrInvalid)
	}
	own := dims[i]
	dims[i] += before + after
	all, ok := extent(dims)
	if !ok {
		return x, fmt.Errorf("%w: too many constants", ErrInvalid)
	}
	if err := p.charge(all); err != nil {
		return x, err
	}
	// In ONNX's order, with zeros for the value.
	added := &tensor{kind: typeFloat, dims: dims}
	for o := range all / int(dims[i]) / inner {
		for k := range parts {
			if k == at {
				added.floats = append(added.floats, make([]float32, int(own)*inner)...)
				continue
			}
			rows := len(parts[k]) * inner / (all / int(dims[i]))
			added.floats = append(added.floats, parts[k][o*rows:][:rows]...)
		}
	}
	x, along, err := p.alone(x, i)
	if err != nil {
		return x, err
	}
	op := graph.Pad{}
	*[]*int{&op.Before.C, &op.Before.H, &op.Before.W}[along] = int(before)
	*[]*int{&op.After.C, &op.After.H, &op.After.W}[along] = int(after)
	y, err := p.along(op, x, i, along)
	if err != nil {
		return x, err
	}
	y, v, extent, err := p.spread(n, added, y)
	if err != nil {
		return x, err
	}
	return p.apply(elementAffine(extent, &graph.Affine{Shift: v}, y), y.axes, y)
}

// expandConstant reads an Expand of a constant to as many samples as there are, which are
// all the same.
func (p *parser) expandConstant(n *node, t *tensor, to *sizes) (operand, error) {
	if len(to.dims) != 1 || len(to.v) == 0 || len(to.v) < len(t.dims) {
		return operand{}, p.refuse(n, "of a constant")
	}
	c := *t
	c.dims = append(slices.Repeat([]int64{1}, len(to.v)-len(t.dims)), t.dims...)
	for i, d := range to.v {
		samples := i == 0 && (d == size{1, true} || p.batch > 0 && d.n == p.batch)
		if d.batch && !samples || !samples && d.n != 1 && d.n != c.dims[i] || samples && c.dims[i] != 1 {
			return p.commonOf(n, t, to)
		}
	}
	return operand{constant: &c, shared: to.v[0].batch}, nil
}

// calculateFloats reads an operator of single numbers, as scales of attention are computed.
func (p *parser) calculateFloats(n *node) (operand, error) {
	var v [2]float64
	t := &tensor{kind: typeFloat}
	inputs := len(v)
	if n.op == "Sqrt" {
		inputs = 1
	}
	for i := range inputs {
		c, err := p.constant(n, i)
		if err != nil {
			return operand{}, err
		}
		f, err := p.floats32(n, c)
		if err != nil {
			return operand{}, err
		}
		if len(f) != 1 || len(c.dims) > maxRank {
			return operand{}, p.refuse(n, "of constants of %d elements", len(f))
		}
		v[i] = float64(f[0])
		if len(c.dims) > len(t.dims) {
			t.dims = c.dims
		}
	}
	x := v[0]
	switch n.op {
	case "Add":
		x += v[1]
	case "Sub":
		x -= v[1]
	case "Mul":
		x *= v[1]
	case "Div":
		x /= v[1]
	case "Pow":
		x = math.Pow(x, v[1])
	case "Sqrt":
		x = math.Sqrt(x)
	default:
		return operand{}, p.refuse(n, "of constants")
	}
	t.floats = []float32{float32(x)}
	return operand{constant: t}, nil
}

// sqrt reads a Sqrt of a value or of a number.
func (p *parser) sqrt(n *node) (operand, error) {
	if x, err := p.operand(n, 0); err == nil && x.constant != nil {
		return p.calculateFloats(n)
	}
	return elementary(graph.Sqrt{})(p, n)
}
