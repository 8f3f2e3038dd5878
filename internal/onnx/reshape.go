package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// What changes the dimensions of a value and moves nothing, or as little as can be.

// reshape reads a Reshape of a value, of a constant or of sizes.
func (p *parser) reshape(n *node) (operand, error) {
	to, err := p.sizes(n, 1)
	if err != nil {
		return operand{}, err
	}
	if len(to.dims) != 1 {
		return operand{}, p.refuse(n, "sizes of rank %d", len(to.dims))
	}
	dims := make([]int64, len(to.v))
	for i, d := range to.v {
		if d.batch && d.n != 1 { // only a value's may be
			d.n = 0
		}
		dims[i] = d.n
	}
	x, err := p.operand(n, 0)
	if err != nil {
		return x, err
	}
	zeros := n.int("allowzero", 0) != 0
	if x.constant != nil && to.batch() < 0 {
		size, err := x.constant.len()
		if err != nil {
			return x, err
		}
		c := *x.constant
		if c.dims, err = resolve(dims, c.dims, size, zeros); err != nil {
			return x, err
		}
		return operand{constant: &c}, nil
	}
	if x.sizes != nil && to.batch() < 0 {
		return p.reshapeSizes(n, dims, zeros)
	}
	if !x.known {
		return x, p.refuse(n, "constant input 0")
	}
	if x, err = p.viewed(n, 0); err != nil {
		return x, err
	}
	if len(dims) == 0 {
		return x, p.refuse(n, "to rank 0")
	}
	return p.reshapeValue(n, x, to.v, zeros)
}

// reshapeValue gives x the dimensions to, of which one may be -1, and 0, unless zeros, is
// x's own.
func (p *parser) reshapeValue(n *node, x operand, to []size, zeros bool) (operand, error) {
	dims, err := p.newSizes(n, x, to, zeros)
	if err != nil {
		return x, err
	}
	fixed := sizes{v: dims}.batch() < 0 && p.isBatch(dims[0])
	first, ok := p.samplesFirst(x.view())
	if !ok || !fixed && dims[0] != (size{1, true}) {
		return p.regroupedFor(n, x, dims)
	}
	if x.split != nil {
		x.split = first
	}
	var rest []int64
	for _, d := range dims[1:] {
		rest = append(rest, d.n)
	}
	return p.reshaped(n, x, rest)
}

// newSizes returns what to stands for where n gives x these dimensions: 0, unless zeros, for x's own,
// and one -1 for what is left.
func (p *parser) newSizes(n *node, x operand, to []size, zeros bool) ([]size, error) {
	s := x.view()
	unlike := fmt.Errorf("%w: %d elements do not have the new shape", ErrInvalid, x.shape.Len())
	dims, free, samples, known := slices.Clone(to), -1, 0, int64(1)
	for i, d := range to {
		if d.n == 0 && !zeros {
			if i >= len(s.dims) {
				return nil, unlike
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
			return nil, p.refuse(n, "across samples")
		case d.n <= 0 || d.n > plan.MaxExtent/known:
			return nil, unlike
		default:
			known *= d.n
		}
	}
	total := int64(x.shape.Len())
	if samples == 0 && p.batch > 0 { // numbers alone
		if p.batch > math.MaxInt32 {
			return nil, unlike
		}
		total *= p.batch
	}
	if samples > 1 || samples == 0 && p.batch == 0 && free < 0 {
		return nil, p.refuse(n, "across samples")
	}
	if free >= 0 {
		if dims[free] = (size{total / known, samples == 0 && p.batch == 0}); dims[free].n == 0 {
			return nil, unlike
		}
		known *= dims[free].n
	}
	switch {
	case known == total:
		return dims, nil
	case !p.isBatch(dims[0]):
		return nil, p.refuse(n, "across samples")
	}
	return nil, unlike
}

// reshaped gives x the sizes dims after the batch, which must be first.
func (p *parser) reshaped(n *node, x operand, dims []int64) (operand, error) {
	if len(dims) == 0 || len(dims) > maxSplit {
		return x, p.refuse(n, "to rank %d", 1+len(dims))
	}
	s := x.view()
	var order []int // of x's parts
	for _, i := range s.others() {
		order = append(order, s.dims[i]...)
	}
	few := len(dims) < len(canonical)
	if few {
		axes := canonical[len(dims)]
		// Dimensions that have an order of their own, as heads, are left to what reads them.
		own := len(dims) == 2 || x.split == nil && !slices.Equal(x.axes, canonical[len(x.axes)]) || x.split != nil && len(s.dims) <= len(canonical)
		op := graph.NewTranspose(asInts(s.parts), order, shaped(axes, dims))
		if op == (graph.Reshape{To: x.shape}) && (x.split != nil || !slices.Equal(x.axes, axes)) {
			// N x C against N x C x 1 x 1: one and the same to the graph.
			x.axes, x.split = axes, nil
			return x, nil
		}
		if !own {
			return p.apply(op, axes, x.bare())
		}
	}
	to := []size{{n: 1, batch: true}}
	for _, d := range dims {
		to = append(to, size{n: d})
	}
	if y, ok := p.regrouped(x, to); ok {
		return y, nil
	}
	// In other parts than it is made of.
	t := &split{dims: [][]int{{batch}}}
	for _, d := range dims {
		var list []int
		if d != 1 {
			list = []int{len(t.parts)}
			t.parts = append(t.parts, d)
		}
		t.dims = append(t.dims, list)
	}
	flat := graph.Vector(x.shape.Len())
	if few {
		flat = shaped(canonical[len(dims)], dims)
	}
	y, err := p.moved(x, s.parts, order, flat)
	return p.seen(y, t), err
}

// resolve returns the sizes that dims stand for, of size elements in all: 0 for
// the size in from (unless zeros), and at most one -1 for what is left.
func resolve(dims, from []int64, size int, zeros bool) ([]int64, error) {
	to := substitute(dims, from, zeros)
	free := slices.Index(to, -1)
	if free >= 0 {
		to[free] = 1
		if rest, ok := extent(to); ok && size%rest == 0 {
			to[free] = int64(size / rest)
		}
	}
	if n, ok := extent(to); !ok || n != size {
		return nil, fmt.Errorf("%w: %d elements do not have the new shape", ErrInvalid, size)
	}
	return to, nil
}

// substitute returns dims with each 0 replaced by the size in from, unless zeros says that 0 means 0.
func substitute(dims, from []int64, zeros bool) []int64 {
	to := slices.Clone(dims)
	for i, d := range to {
		if d == 0 && !zeros && i < len(from) {
			to[i] = from[i]
		}
	}
	return to
}

// flatten reads a Flatten: to two dimensions, the first of which is the samples' as a rule.
func (p *parser) flatten(n *node) (operand, error) {
	x, err := p.operand(n, 0)
	if err != nil {
		return x, err
	}
	if !x.known {
		return x, p.refuse(n, "constant input 0")
	}
	if x, err = p.viewed(n, 0); err != nil {
		return x, err
	}
	if axis := n.int("axis", 1); axis != 1 && axis != 1-int64(x.rank()) {
		rank := int64(x.rank())
		if axis < -rank || axis > rank {
			return x, fmt.Errorf("%w: axis %d of rank %d", ErrInvalid, axis, rank)
		}
		if axis < 0 {
			axis += rank
		}
		to := []size{{n: 1}, {n: 1}}
		for i, d := range x.view().sizes() {
			of := &to[truthOf(int64(i) >= axis)]
			of.n, of.batch = of.n*d.n, of.batch || d.batch
		}
		return p.reshapeValue(n, x, to, true)
	}
	if s, ok := p.samplesFirst(x.view()); !ok {
		return x, p.refuse(n, "across samples")
	} else if x.split != nil {
		x.split = s
	}
	return p.flattened(x)
}

// flattened returns x, whose batch is first, as a vector.
func (p *parser) flattened(x operand) (operand, error) {
	return p.reshaped(nil, x, []int64{int64(x.shape.Len())})
}

// transpose reads a Transpose of a value or of a constant.
func (p *parser) transpose(n *node) (operand, error) {
	x, err := p.operand(n, 0)
	if err != nil {
		return x, err
	}
	if t := x.constant; x.sizes != nil || t != nil && (t.kind == typeInt32 || t.kind == typeInt64) {
		return p.transposeSizes(n)
	}
	if x.known {
		if x, err = p.viewed(n, 0); err != nil {
			return x, err
		}
	}
	rank := x.rank()
	if !x.known {
		rank = len(x.constant.dims)
	}
	perm, err := permutation(n, rank)
	if err != nil {
		return x, err
	}
	if t := x.constant; !x.known && rank == 2 && perm[0] == 1 && (t.kind == typeFloat || t.kind == typeDouble) {
		return operand{constant: &tensor{name: t.name, kind: t.kind, dims: []int64{t.dims[1], t.dims[0]}, of: t}}, nil
	}
	if !x.known {
		t, err := p.transposed(n, x.constant, perm)
		return operand{constant: t}, err
	}
	if perm[0] != 0 || x.split != nil {
		return p.turned(x, perm), nil
	}
	axes := make([]axis, len(x.axes))
	for i, v := range perm[1:] {
		axes[i] = x.axes[v-1]
	}
	x.axes = axes
	return x, nil
}

// squeeze reads Squeeze and Unsqueeze.
func (p *parser) squeeze(n *node) (operand, error) {
	x, err := p.any(n, 0)
	if err != nil {
		return x, err
	}
	if t := x.constant; x.sizes != nil || t != nil && (t.kind == typeInt32 || t.kind == typeInt64) {
		return p.squeezeSize(n)
	}
	if x.common != nil || x.shared {
		return p.squeezeCommon(n, x)
	}
	if t := x.constant; t != nil {
		c := *t
		c.dims, err = p.squeezedConstant(n, t.dims)
		return operand{constant: &c}, err
	}
	if x, err = p.viewed(n, 0); err != nil {
		return x, err
	}
	list, err := p.list(n, "axes", 1)
	if err != nil {
		return x, err
	}
	first := slices.Contains(list, 0)
	switch {
	case x.split != nil,
		n.op == "Unsqueeze" && (first || len(list)+x.rank() > len(canonical)),
		n.op == "Squeeze" && (first && p.batch == 1 || len(list) == len(x.axes)):
		return p.squeezeView(n, x)
	}
	of := extents(x.shape)
	axes, err := squeezed(p, n, x.axes, 1, func(a axis) bool { return of[a] == 1 }, -1)
	if err != nil {
		return x, err
	}
	if len(axes) == 0 || len(axes) > len(axesCHW) {
		return x, p.refuse(n, "to rank %d", len(axes)+1)
	}
	// What is new is along the axes that are left over, in ONNX's order.
	free := slices.DeleteFunc(slices.Clone(axesCHW), func(a axis) bool { return slices.Contains(axes, a) })
	for i, a := range axes {
		if a < 0 {
			axes[i], free = free[0], free[1:]
		}
	}
	x.axes = axes
	return x, nil
}

// squeezeView reads a Squeeze or an Unsqueeze of a value as a split.
func (p *parser) squeezeView(n *node, x operand) (operand, error) {
	s := x.view()
	if p.batch == 1 { // of one sample any dimension of 1 may be
		s = &split{s.parts, s.owned()}
	}
	dims, err := squeezed(p, n, s.dims, 0, func(d []int) bool { return len(d) == 0 }, nil)
	if err == nil && (len(dims) == 0 || len(dims) > 1+maxSplit) {
		err = p.refuse(n, "to rank %d", len(dims))
	}
	if err != nil {
		return x, err
	}
	if p.batch == 1 {
		dims[0] = slices.Insert(dims[0], 0, batch)
	}
	return p.seen(x, &split{s.parts, dims}), nil
}

// squeezedConstant returns the dimensions that the Squeeze or Unsqueeze n makes of a constant's.
func (p *parser) squeezedConstant(n *node, dims []int64) ([]int64, error) {
	to, err := squeezed(p, n, dims, 0, func(d int64) bool { return d == 1 }, 1)
	if err == nil && len(to) > maxRank {
		err = fmt.Errorf("%w: tensor of rank %d", ErrInvalid, len(to))
	}
	return to, err
}

// squeezed returns dims, of a tensor with batch dimensions before them, without those
// that the Squeeze n takes away, which must be single, or with one more where the
// Unsqueeze n adds one.
func squeezed[T any](p *parser, n *node, dims []T, batch int, single func(T) bool, one T) ([]T, error) {
	rank := batch + len(dims)
	list, err := p.list(n, "axes", 1)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 || len(list) > maxRank {
		return nil, p.refuse(n, "axes=%v", list)
	}
	if n.op == "Unsqueeze" {
		rank += len(list)
	}
	named := make([]bool, rank)
	for _, a := range list {
		if a < -int64(rank) || a >= int64(rank) || named[(a+int64(rank))%int64(rank)] {
			return nil, fmt.Errorf("%w: axes %d of rank %d", ErrInvalid, list, rank)
		}
		named[(a+int64(rank))%int64(rank)] = true
	}
	if batch > 0 && named[0] {
		return nil, p.refuse(n, "across samples")
	}
	var out []T
	for _, here := range named[batch:] {
		switch {
		case n.op == "Unsqueeze" && here:
			out = append(out, one)
			continue
		case here && !single(dims[0]):
			return nil, fmt.Errorf("%w: %s of what is not 1", ErrInvalid, n.op)
		case !here:
			out = append(out, dims[0])
		}
		dims = dims[1:]
	}
	return out, nil
}

// blocks reads DepthToSpace and SpaceToDepth.
func (p *parser) blocks(n *node) (operand, error) {
	x, err := p.variable(n, 0, 4)
	if err != nil {
		return x, err
	}
	b := n.int("blocksize", 0)
	c, h, w := int64(x.shape.C), int64(x.shape.H), int64(x.shape.W)
	if b <= 0 || b > math.MaxInt32 {
		return x, fmt.Errorf("%w: blocks of %d", ErrInvalid, b)
	}
	var dims, to []int64
	var perm []int
	if n.op == "DepthToSpace" {
		if c%(b*b) != 0 {
			return x, fmt.Errorf("%w: %d channels in blocks of %d", ErrInvalid, c, b)
		}
		dims, perm = []int64{b, b, c / (b * b), h, w}, []int{2, 3, 0, 4, 1}
		switch n.text("mode", "DCR") {
		case "DCR":
		case "CRD":
			dims, perm = []int64{c / (b * b), b, b, h, w}, []int{0, 3, 1, 4, 2}
		default:
			return x, fmt.Errorf("%w: unknown mode", ErrInvalid)
		}
		to = []int64{c / (b * b), h * b, w * b}
	} else {
		if h%b != 0 || w%b != 0 {
			return x, fmt.Errorf("%w: a map of %d x %d in blocks of %d", ErrInvalid, h, w, b)
		}
		dims, perm = []int64{c, h / b, b, w / b, b}, []int{2, 4, 0, 1, 3}
		to = []int64{c * b * b, h / b, w / b}
	}
	first := []size{{n: 1, batch: true}}
	for _, d := range dims {
		first = append(first, size{n: d})
	}
	y, _ := p.regrouped(x, first) // of what divides the extents
	perm = append([]int{0}, perm...)
	for i := range perm[1:] {
		perm[i+1]++
	}
	y, err = p.reshaped(n, p.turned(y, perm), to)
	if err == nil {
		y, _, err = p.settled(y)
	}
	return y, err
}
