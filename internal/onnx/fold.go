package onnx

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// What is computed of constants alone, as masks and positions are, is computed as the model is
// read.

// An array is a constant as it is computed with: integers, of which bools are 0 and 1, or floats.
type array struct {
	kind   int64 // typeInt32, typeInt64, typeBool or typeFloat
	dims   []int64
	ints   []int64   // unless it is of floats
	floats []float32 // of which there are as many
	// shared says that the first dimension, of 1, stands for all samples. Each has the same, plus,
	// where steps are given, as many times those as samples are before it.
	shared bool
	steps  []int64
}

// unknown is the kind of a constant of which the shape alone is known, as that of what two ranges
// make together, which torch asks for no more of.
const unknown = -1

func (a *array) len() int { return max(len(a.ints), len(a.floats)) }

// float reports whether a is of floats.
func (a *array) float() bool { return a.kind == typeFloat }

// operand returns a as a constant.
func (a *array) operand() operand {
	t := &tensor{kind: a.kind, dims: a.dims, floats: a.floats, int64s: a.ints}
	if a.kind == typeInt32 || a.kind == typeBool {
		t.int64s, t.int32s = nil, a.ints
	}
	return operand{constant: t, shared: a.shared, steps: a.steps}
}

// foldable says how constants are computed with, by operator. A nil array leaves the node to
// what reads it of values and sizes.
var foldable map[string]func(*parser, *node, []*array) (*array, error)

func init() { // which refer to it
	foldable = map[string]func(*parser, *node, []*array) (*array, error){
		"Range": (*parser).foldRange, "Trilu": (*parser).foldTrilu, "CumSum": (*parser).foldCumSum,
		"Expand": (*parser).foldExpand, "Reshape": (*parser).foldReshape, "Flatten": (*parser).foldReshape,
		"Unsqueeze": (*parser).foldSqueeze, "Squeeze": (*parser).foldSqueeze, "Transpose": (*parser).foldTranspose,
		"Slice": (*parser).foldSlice, "Gather": (*parser).foldGather, "GatherElements": (*parser).foldGatherElements,
		"Concat": (*parser).foldConcat, "Cast": (*parser).foldCast, "Where": (*parser).foldWhere,
		"ConstantOfShape": (*parser).foldFilled, "GatherND": (*parser).foldGatherND,
	}
	for name := range pairwise {
		foldable[name] = (*parser).foldPairs
	}
	for name := range single {
		foldable[name] = (*parser).foldSingle
	}
}

// A pair is what an operator makes of two elements. An error says why it makes nothing of them.
type pair struct {
	ints    func(x, y int64) (int64, bool)
	floats  func(x, y float64) float64
	compare bool // the result is a bool, of floats and ints alike: ints are compared
	logic   bool // of bools alone
}

func truthOf(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

var pairwise = map[string]pair{
	"Add": {ints: func(x, y int64) (int64, bool) { return sum(x, y) }, floats: func(x, y float64) float64 { return x + y }},
	"Sub": {ints: func(x, y int64) (int64, bool) {
		if y == math.MinInt64 {
			return 0, false
		}
		return sum(x, -y)
	}, floats: func(x, y float64) float64 { return x - y }},
	"Mul": {ints: times, floats: func(x, y float64) float64 { return x * y }},
	"Div": {ints: func(x, y int64) (int64, bool) {
		if y == 0 || y == -1 && x == math.MinInt64 {
			return 0, false
		}
		return x / y, true
	}, floats: func(x, y float64) float64 { return x / y }},
	"Mod": {ints: func(x, y int64) (int64, bool) {
		if y == 0 || y == -1 {
			return 0, y != 0
		}
		m := x % y
		if m != 0 && (m < 0) != (y < 0) { // of the divisor's sign
			m += y
		}
		return m, true
	}},
	"Max":            {ints: func(x, y int64) (int64, bool) { return max(x, y), true }, floats: math.Max},
	"Min":            {ints: func(x, y int64) (int64, bool) { return min(x, y), true }, floats: math.Min},
	"Pow":            {floats: math.Pow},
	"Equal":          {compare: true, ints: func(x, y int64) (int64, bool) { return truthOf(x == y), true }, floats: func(x, y float64) float64 { return float64(truthOf(x == y)) }},
	"Less":           {compare: true, ints: func(x, y int64) (int64, bool) { return truthOf(x < y), true }, floats: func(x, y float64) float64 { return float64(truthOf(x < y)) }},
	"LessOrEqual":    {compare: true, ints: func(x, y int64) (int64, bool) { return truthOf(x <= y), true }, floats: func(x, y float64) float64 { return float64(truthOf(x <= y)) }},
	"Greater":        {compare: true, ints: func(x, y int64) (int64, bool) { return truthOf(x > y), true }, floats: func(x, y float64) float64 { return float64(truthOf(x > y)) }},
	"GreaterOrEqual": {compare: true, ints: func(x, y int64) (int64, bool) { return truthOf(x >= y), true }, floats: func(x, y float64) float64 { return float64(truthOf(x >= y)) }},
	"And":            {logic: true, ints: func(x, y int64) (int64, bool) { return x & y, true }},
	"Or":             {logic: true, ints: func(x, y int64) (int64, bool) { return x | y, true }},
	"Xor":            {logic: true, ints: func(x, y int64) (int64, bool) { return x ^ y, true }},
}

// single is what an operator makes of one element.
var single = map[string]pair{
	"Neg": {ints: func(x, _ int64) (int64, bool) { return -x, x != math.MinInt64 }, floats: func(x, _ float64) float64 { return -x }},
	"Abs": {ints: func(x, _ int64) (int64, bool) { return max(x, -x), x != math.MinInt64 }, floats: func(x, _ float64) float64 { return math.Abs(x) }},
	"Not": {logic: true, ints: func(x, _ int64) (int64, bool) { return 1 - x, true }},
	"Sqrt": {floats: func(x, _ float64) float64 {
		return math.Sqrt(x)
	}},
	"Cos": {floats: func(x, _ float64) float64 { return math.Cos(x) }},
	"Sin": {floats: func(x, _ float64) float64 { return math.Sin(x) }},
	"Exp": {floats: func(x, _ float64) float64 { return math.Exp(x) }},
	"Log": {floats: func(x, _ float64) float64 { return math.Log(x) }},
	"Reciprocal": {floats: func(x, _ float64) float64 {
		return 1 / x
	}},
}

// sum and times return a sum and a product, and whether there is one of 64 bits.
func sum(x, y int64) (int64, bool) {
	z := x + y
	return z, (z < x) == (y < 0)
}

func times(x, y int64) (int64, bool) {
	if x == math.MinInt64 || y == math.MinInt64 {
		return 0, false
	}
	hi, lo := bits.Mul64(uint64(max(x, -x)), uint64(max(y, -y)))
	return x * y, hi == 0 && lo <= math.MaxInt64
}

// folded returns what n makes of constants, if it is that: the last result says so.
func (p *parser) folded(n *node) (operand, bool, error) {
	f := foldable[n.op]
	if f == nil || n.domain != "" && n.domain != "ai.onnx" || len(n.inputs) == 0 {
		return operand{}, false, nil
	}
	for i := range n.inputs {
		o := p.operands[n.inputs[i]]
		t := o.constant
		weights := t != nil && !o.shared && (t.kind == typeFloat || t.kind == typeDouble)
		switch to := n.int("to", 0); {
		case n.has(i) && t == nil && o.sizes == nil: // a value, or what is not supported
			return operand{}, false, nil
		case weights && i == 0 && (n.op == "Reshape" || n.op == "Unsqueeze" || n.op == "Squeeze" && n.has(1) || n.op == "Transpose" || n.op == "Cast" && to == typeFloat && t.kind == typeFloat):
			return operand{}, false, nil // which stay in the file
		}
	}
	in := make([]*array, len(n.inputs))
	for i := range n.inputs {
		if !n.has(i) {
			continue
		}
		if n.op == "Gather" && i == 0 && p.operands[n.inputs[0]].constant != nil { // of a table, rows are read
			in[i] = &array{}
			continue
		}
		// Shapes may have the batch's size in them, and are read as such.
		if i == 1 && (n.op == "Expand" || n.op == "Reshape") || i == 0 && n.op == "ConstantOfShape" || i == 1 && n.op == "Range" {
			if o := p.operands[n.inputs[i]]; o.constant != nil || o.sizes != nil {
				in[i] = &array{}
				continue
			}
		}
		a, err := p.array(n, i)
		if a == nil || err != nil {
			return operand{}, false, err
		}
		in[i] = a
	}
	a, err := f(p, n, in)
	if a == nil || err != nil {
		return operand{}, false, err
	}
	if a.kind == typeInt32 {
		for _, v := range a.ints {
			if v != int64(int32(v)) {
				return operand{}, false, p.refuse(n, "of constants past 32 bits")
			}
		}
	}
	return a.operand(), true, nil
}

// array returns input i of n as an array, or nil where it is no constant, or one that is not
// computed with.
func (p *parser) array(n *node, i int) (*array, error) {
	o := p.operands[n.inputs[i]]
	if t := o.constant; t != nil && t.of != nil {
		var err error
		if o, err = p.any(n, i); err != nil || o.constant.of != nil {
			return nil, err
		}
	}
	return p.arrayOf(n, o)
}

// arrayOf is array of an operand.
func (p *parser) arrayOf(n *node, o operand) (*array, error) {
	if s := o.sizes; s != nil {
		a := &array{kind: typeInt64, dims: s.dims}
		for _, d := range s.v {
			if d.batch && p.batch != 1 {
				return nil, nil
			}
			a.ints = append(a.ints, d.n)
		}
		return a, nil
	}
	t := o.constant
	if t == nil {
		return nil, nil
	}
	a := &array{kind: t.kind, dims: t.dims, shared: o.shared, steps: o.steps}
	size := 0
	if !slices.Contains(t.dims, 0) {
		var err error
		if size, err = t.len(); err != nil {
			return nil, err
		}
	}
	switch t.kind {
	case typeFloat, typeDouble:
		if t.kind == typeFloat && t.floats != nil && len(t.floats) == size {
			a.floats = t.floats
			return a, nil
		}
		if err := p.compute(size); err != nil || size == 0 {
			return nil, err
		}
		width, typed := 4, len(t.floats)
		if t.kind == typeDouble {
			width, typed = 8, len(t.doubles)
		}
		if _, err := t.checkData(typed, width); err != nil {
			return nil, err
		}
		a.kind, a.floats = typeFloat, make([]float32, size)
		if err := t.read(a.floats, 0, t.piece()); err != nil {
			return nil, err
		}
		if t.kind == typeDouble && !t.rounded(a.floats) {
			return nil, nil
		}
	case typeInt32, typeInt64, typeBool:
		if size == 0 {
			if len(t.int32s)+len(t.int64s)+len(t.raw) > 0 {
				return nil, fmt.Errorf("%w: an empty tensor with data", ErrInvalid)
			}
			return a, nil
		}
		if err := p.look(size); err != nil {
			return nil, err
		}
		if t.raw != nil || t.stored != nil {
			if err := p.compute(size); err != nil {
				return nil, err
			}
		}
		var err error
		if a.ints, err = p.integers(n, t, size); err != nil {
			return nil, err
		}
		if t.kind == typeBool && slices.ContainsFunc(a.ints, func(v int64) bool { return v != 0 && v != 1 }) {
			return nil, fmt.Errorf("%w: a bool that is none", ErrInvalid)
		}
	default:
		return nil, nil
	}
	return a, nil
}

// rounded reports whether t's doubles, which are v rounded, are floats as they are.
func (t *tensor) rounded(v []float32) bool {
	if t.doubles == nil {
		return false
	}
	for i, d := range t.doubles {
		if float64(v[i]) != d {
			return false
		}
	}
	return true
}

// compute counts n elements that are about to be computed of constants.
func (p *parser) compute(n int) error {
	if p.computed -= n; n < 0 || p.computed < 0 {
		return fmt.Errorf("%w: constants take too much to compute", ErrInvalid)
	}
	return nil
}

// look counts n elements of a constant that are about to be looked at, whatever is made of them.
func (p *parser) look(n int) error {
	if p.looked -= n; p.looked < 0 {
		return fmt.Errorf("%w: constants are looked at too often", ErrInvalid)
	}
	return nil
}

// foldedFrom is how many elements may be computed of constants, however small a file is, and
// each of them be looked at so often.
const (
	foldedFrom = 1 << 22
	foldedRead = 16
)

// made returns an array of the given dimensions like a, for its elements to be set; or nil if
// there are none.
func (p *parser) made(a *array, dims []int64) (*array, error) {
	if len(dims) > maxRank {
		return nil, fmt.Errorf("%w: tensor of rank %d", ErrInvalid, len(dims))
	}
	size, ok := extent(dims)
	if !ok {
		if slices.Contains(dims, 0) {
			return nil, nil
		}
		return nil, fmt.Errorf("%w: a constant of %d", ErrInvalid, dims)
	}
	if err := p.compute(size); err != nil {
		return nil, err
	}
	b := &array{kind: a.kind, dims: slices.Clone(dims), shared: a.shared}
	if a.float() {
		b.floats = make([]float32, size)
		return b, nil
	}
	b.ints = make([]int64, size)
	if a.steps != nil {
		b.steps = make([]int64, size)
	}
	return b, nil
}

// set sets element i to element j of a.
func (b *array) set(i int, a *array, j int) {
	if a.float() {
		b.floats[i] = a.floats[j]
		return
	}
	b.ints[i] = a.ints[j]
	if a.steps != nil {
		b.steps[i] = a.steps[j]
	}
}

// picked returns an array of the given dimensions, whose elements are those of a that places
// gives for each of its own.
func (p *parser) picked(a *array, dims []int64, place func(index []int64) int) (*array, error) {
	b, err := p.made(a, dims)
	if b == nil || err != nil {
		return nil, err
	}
	index := make([]int64, len(dims))
	for i := range b.len() {
		b.set(i, a, place(index))
		for k := len(dims) - 1; k >= 0; k-- {
			if index[k]++; index[k] < dims[k] {
				break
			}
			index[k] = 0
		}
	}
	return b, nil
}

// stridesOf returns how far apart elements are along each of dims.
func stridesOf(dims []int64) []int {
	strides, stride := make([]int, len(dims)), 1
	for i := len(dims) - 1; i >= 0; i-- {
		strides[i] = stride
		stride *= int(dims[i])
	}
	return strides
}

// broadcast returns the dimensions that arrays have together, and whether the first of them is that
// of all samples; or false where they have none, or where samples meet something else.
func (p *parser) broadcast(in ...*array) (dims []int64, shared, ok bool) {
	rank := 0
	for _, a := range in {
		rank = max(rank, len(a.dims))
	}
	dims = slices.Repeat([]int64{1}, rank)
	for _, a := range in {
		for i, d := range a.dims {
			at := rank - len(a.dims) + i
			if d != 1 && dims[at] != 1 && d != dims[at] {
				return nil, false, false
			}
			if d != 1 {
				dims[at] = d
			}
		}
		if a.shared {
			if len(a.dims) != rank {
				return nil, false, false
			}
			shared = true
		}
	}
	return dims, shared, !shared || dims[0] == 1
}

// placeIn returns where the element of a is that broadcasts to an index of rank dimensions.
func (a *array) placeIn(rank int) func(index []int64) int {
	strides := stridesOf(a.dims)
	for i, d := range a.dims {
		if d == 1 {
			strides[i] = 0
		}
	}
	return func(index []int64) int {
		at := 0
		for i, s := range strides {
			at += int(index[rank-len(strides)+i]) * s
		}
		return at
	}
}

// spreadTo returns a broadcast to dims, which it broadcasts to.
func (p *parser) spreadTo(a *array, dims []int64) (*array, error) {
	if slices.Equal(a.dims, dims) {
		return a, nil
	}
	b, err := p.picked(a, dims, a.placeIn(len(dims)))
	if b != nil {
		b.shared = a.shared
	}
	return b, err
}

// foldPairs computes of two arrays element by element, or of more for Max and Min.
func (p *parser) foldPairs(n *node, in []*array) (*array, error) {
	op := pairwise[n.op]
	if n.op == "Max" || n.op == "Min" {
		if len(in) == 1 {
			return in[0], nil
		}
	} else if len(in) != 2 {
		return nil, fmt.Errorf("%w: %d inputs", ErrInvalid, len(in))
	}
	if n.op == "Mod" && n.int("fmod", 0) != 0 {
		return nil, nil
	}
	a := in[0]
	for _, b := range in[1:] {
		if a == nil || b == nil {
			return nil, fmt.Errorf("%w: an input is missing", ErrInvalid)
		}
		if a.kind == unknown { // which nothing more is computed with
			return nil, nil
		}
		var err error
		if a, err = p.foldPair(n, op, a, b); a == nil || err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (p *parser) foldPair(n *node, op pair, a, b *array) (*array, error) {
	exponent := n.op == "Pow" && a.float() && !b.float()
	if a.kind != b.kind && !exponent && (a.float() != b.float() || a.kind == typeBool || b.kind == typeBool) ||
		op.logic != (a.kind == typeBool) && n.op != "Equal" {
		return nil, nil
	}
	if a.float() && op.floats == nil || !a.float() && op.ints == nil {
		return nil, nil
	}
	dims, shared, ok := p.broadcast(a, b)
	if !ok {
		return nil, nil
	}
	if exponent {
		c := &array{kind: typeFloat, dims: b.dims, shared: b.shared}
		for _, v := range b.ints {
			c.floats = append(c.floats, float32(v))
		}
		if b = c; len(b.floats) == 0 || c.steps != nil {
			return nil, nil
		}
	}
	var err error
	if a, err = p.spreadTo(a, dims); a == nil || err != nil {
		return nil, err
	}
	if b, err = p.spreadTo(b, dims); b == nil || err != nil {
		return nil, err
	}
	like := &array{kind: a.kind, shared: shared}
	if op.compare {
		like.kind = typeBool
	}
	steps, ok := stepsOf(n.op, a, b)
	if !ok {
		return &array{kind: unknown, dims: dims, shared: shared}, nil
	}
	y, err := p.made(like, dims)
	if y == nil || err != nil {
		return nil, err
	}
	y.steps = steps
	for i := range y.len() {
		switch {
		case y.float():
			y.floats[i] = float32(op.floats(float64(a.floats[i]), float64(b.floats[i])))
		case a.float():
			y.ints[i] = int64(op.floats(float64(a.floats[i]), float64(b.floats[i])))
		default:
			if y.ints[i], ok = op.ints(a.ints[i], b.ints[i]); !ok {
				return nil, fmt.Errorf("%w: %s of %d and %d", ErrInvalid, n.op, a.ints[i], b.ints[i])
			}
		}
	}
	return y, nil
}

// stepsOf returns by how much the results of an operator change from sample to sample, and
// whether that is known.
func stepsOf(op string, a, b *array) ([]int64, bool) {
	if a.steps == nil && b.steps == nil {
		return nil, true
	}
	at := func(v []int64, i int) int64 {
		if v == nil {
			return 0
		}
		return v[i]
	}
	steps := make([]int64, a.len())
	for i := range steps {
		s, t := at(a.steps, i), at(b.steps, i)
		if max(s, -s, t, -t) > math.MaxInt32 {
			return nil, false
		}
		switch {
		case op == "Add":
			steps[i] = s + t
		case op == "Sub":
			steps[i] = s - t
		case op == "Mul" && t == 0 && max(b.ints[i], -b.ints[i]) <= math.MaxInt32:
			steps[i] = s * b.ints[i]
		case op == "Mul" && s == 0 && max(a.ints[i], -a.ints[i]) <= math.MaxInt32:
			steps[i] = t * a.ints[i]
		case s == 0 && t == 0:
		case s == t && (op == "Equal" || op == "Less" || op == "LessOrEqual" || op == "Greater" || op == "GreaterOrEqual"):
		default:
			return nil, false
		}
	}
	if !slices.ContainsFunc(steps, func(s int64) bool { return s != 0 }) {
		steps = nil
	}
	return steps, true
}

// foldSingle computes of one array element by element.
func (p *parser) foldSingle(n *node, in []*array) (*array, error) {
	op, a := single[n.op], in[0]
	if len(in) != 1 || a == nil || a.steps != nil || op.logic != (a.kind == typeBool) || a.float() && op.floats == nil || !a.float() && op.ints == nil {
		return nil, nil
	}
	y, err := p.made(a, a.dims)
	if y == nil || err != nil {
		return nil, err
	}
	for i := range y.len() {
		if a.float() {
			y.floats[i] = float32(op.floats(float64(a.floats[i]), 0))
		} else if v, ok := op.ints(a.ints[i], 0); !ok {
			return nil, fmt.Errorf("%w: %s of %d", ErrInvalid, n.op, a.ints[i])
		} else {
			y.ints[i] = v
		}
	}
	return y, nil
}

// foldRange computes a Range of integers, or the numbers of all samples.
func (p *parser) foldRange(n *node, in []*array) (*array, error) {
	if len(in) != 3 || in[0] == nil || in[2] == nil || in[0].float() || in[2].float() || in[0].len() != 1 || in[2].len() != 1 || in[0].steps != nil {
		return nil, nil
	}
	limit, err := p.sizes(n, 1)
	if err != nil || len(limit.v) != 1 {
		return nil, err
	}
	start, end, delta := in[0].ints[0], limit.v[0], in[2].ints[0]
	like := &array{kind: in[0].kind}
	if end.batch && p.batch != 1 {
		if start != 0 || end.n != 1 || delta != 1 {
			return nil, nil
		}
		return &array{kind: in[0].kind, dims: []int64{1}, ints: []int64{0}, shared: true, steps: []int64{1}}, nil
	}
	if delta == 0 || max(start, end.n, delta) > math.MaxInt32 || min(start, end.n, delta) < -math.MaxInt32 {
		return nil, fmt.Errorf("%w: a range from %d to %d by %d", ErrInvalid, start, end.n, delta)
	}
	many := (end.n - start + delta - sign(delta)) / delta
	if many <= 0 {
		return nil, nil
	}
	y, err := p.made(like, []int64{many})
	if y == nil || err != nil {
		return nil, err
	}
	for i := range y.ints {
		y.ints[i] = start + int64(i)*delta
	}
	return y, nil
}

func sign(v int64) int64 {
	if v < 0 {
		return -1
	}
	return 1
}

// foldFilled computes a ConstantOfShape.
func (p *parser) foldFilled(n *node, _ []*array) (*array, error) {
	to, err := p.sizes(n, 0)
	if err != nil || len(to.dims) != 1 {
		return nil, err
	}
	like := &array{kind: typeFloat, floats: []float32{0}}
	if a, given := n.attribute("value"); given {
		if a.t == nil {
			return nil, fmt.Errorf("%w: no value", ErrInvalid)
		}
		if like, err = p.arrayOf(n, operand{constant: a.t}); like == nil || err != nil || like.len() != 1 {
			return nil, err
		}
	}
	dims, shared, ok := p.ofAllSamples(to.v)
	if !ok || slices.ContainsFunc(dims, func(d int64) bool { return d < 0 }) {
		return nil, nil
	}
	y, err := p.picked(like, dims, func([]int64) int { return 0 })
	if y != nil {
		y.shared = shared
	}
	return y, err
}

// ofAllSamples returns dimensions with 1 for the batch, and whether that is the first; the last
// result is false where it is another, or a part of one.
func (p *parser) ofAllSamples(v []size) (dims []int64, shared, ok bool) {
	for i, d := range v {
		if d.batch && p.batch != 1 {
			if i > 0 || d.n != 1 {
				return nil, false, false
			}
			shared = true
		}
		dims = append(dims, d.n)
	}
	return dims, shared, true
}

// foldExpand computes an Expand.
func (p *parser) foldExpand(n *node, in []*array) (*array, error) {
	to, err := p.sizes(n, 1)
	if err != nil || len(to.dims) != 1 {
		return nil, err
	}
	dims, shared, ok := p.ofAllSamples(to.v)
	if !ok || in[0] == nil {
		return nil, nil
	}
	all, of, ok := p.broadcast(in[0], &array{dims: dims, shared: shared})
	if !ok {
		return nil, nil
	}
	y, err := p.spreadTo(in[0], all)
	if y == nil || err != nil {
		return nil, err
	}
	z := *y
	z.shared = of
	return &z, nil
}

// foldReshape computes a Reshape or a Flatten.
func (p *parser) foldReshape(n *node, in []*array) (*array, error) {
	a := in[0]
	if a == nil || a.len() == 0 {
		return nil, nil
	}
	if n.op == "Flatten" {
		axis := n.int("axis", 1)
		if axis < 0 {
			axis += int64(len(a.dims))
		}
		if axis < 0 || axis > int64(len(a.dims)) || a.shared && axis != 1 {
			return nil, nil
		}
		first, _ := extent(a.dims[:axis])
		b := *a
		b.dims = []int64{int64(first), int64(a.len() / first)}
		return &b, nil
	}
	to, err := p.sizes(n, 1)
	if err != nil || len(to.dims) != 1 {
		return nil, err
	}
	dims, shared, ok := p.ofAllSamples(to.v)
	if !ok || len(dims) > maxRank {
		return nil, nil
	}
	zeros := n.int("allowzero", 0) != 0
	switch {
	case !shared && !a.shared:
	case shared != a.shared && !(a.shared && len(dims) > 0 && (dims[0] == -1 || dims[0] == 0 && !zeros)):
		return nil, nil
	case dims[0] == -1 || dims[0] == 0: // of what the samples have, which is then all
		dims[0] = 1
	}
	b := *a
	if b.dims, err = resolve(dims, a.dims, a.len(), zeros); err != nil {
		if a.shared { // which would have been across samples
			return nil, nil
		}
		return nil, err
	}
	return &b, nil
}

// foldSqueeze computes a Squeeze or an Unsqueeze.
func (p *parser) foldSqueeze(n *node, in []*array) (*array, error) {
	a := in[0]
	if a == nil {
		return nil, nil
	}
	if _, given := n.attribute("axes"); n.op == "Squeeze" && !n.has(1) && !given {
		if a.shared {
			return nil, nil
		}
		b := *a
		b.dims = slices.DeleteFunc(slices.Clone(a.dims), func(d int64) bool { return d == 1 })
		return &b, nil
	}
	list, err := p.list(n, "axes", 1)
	if err != nil {
		return nil, err
	}
	rank := int64(len(a.dims))
	if n.op == "Unsqueeze" {
		rank += int64(len(list))
	}
	if a.shared && slices.ContainsFunc(list, func(v int64) bool { return v == 0 || v == -rank }) {
		return nil, nil
	}
	b := *a
	b.dims, err = squeezed(p, n, a.dims, 0, func(d int64) bool { return d == 1 }, 1)
	if err == nil && len(b.dims) > maxRank {
		err = fmt.Errorf("%w: tensor of rank %d", ErrInvalid, len(b.dims))
	}
	return &b, err
}

// foldTranspose computes a Transpose, of what is no matrix of weights.
func (p *parser) foldTranspose(n *node, in []*array) (*array, error) {
	a := in[0]
	if a == nil || a.len() == 0 {
		return nil, nil
	}
	rank := len(a.dims)
	perm, given := n.attribute("perm")
	if !given {
		for i := range rank {
			perm.ints = append(perm.ints, int64(rank-1-i))
		}
	}
	for i, v := range slices.Sorted(slices.Values(perm.ints)) {
		if v != int64(i) {
			return nil, fmt.Errorf("%w: transposed by %d", ErrInvalid, perm.ints)
		}
	}
	if len(perm.ints) != rank {
		return nil, fmt.Errorf("%w: rank %d, transposed by %d", ErrInvalid, rank, perm.ints)
	}
	if a.shared && perm.ints[0] != 0 {
		return nil, nil
	}
	from, strides, dims := stridesOf(a.dims), make([]int, rank), make([]int64, rank)
	for i, v := range perm.ints {
		strides[i], dims[i] = from[v], a.dims[v]
	}
	return p.picked(a, dims, func(index []int64) int {
		at := 0
		for i, v := range index {
			at += int(v) * strides[i]
		}
		return at
	})
}

// foldSlice computes a Slice.
func (p *parser) foldSlice(n *node, in []*array) (*array, error) {
	a := in[0]
	if a == nil || a.len() == 0 {
		return nil, nil
	}
	var lists [4][]int64
	for i, name := range []string{"starts", "ends", "axes", "steps"} {
		var err error
		if lists[i], err = p.list(n, name, i+1); err != nil {
			return nil, err
		}
	}
	starts, ends, axes, steps := lists[0], lists[1], lists[2], lists[3]
	rank := int64(len(a.dims))
	if axes == nil {
		for i := range starts {
			axes = append(axes, int64(i))
		}
	}
	if len(ends) != len(starts) || len(axes) != len(starts) || steps != nil && len(steps) != len(starts) {
		return nil, fmt.Errorf("%w: starts, ends, axes and steps of unlike lengths", ErrInvalid)
	}
	first, by, dims := make([]int64, rank), slices.Repeat([]int64{1}, int(rank)), slices.Clone(a.dims)
	seen := map[int64]bool{}
	for k, axis := range axes {
		if axis < 0 {
			axis += rank
		}
		if axis < 0 || axis >= rank || seen[axis] {
			return nil, fmt.Errorf("%w: axes %d of rank %d", ErrInvalid, axes, rank)
		}
		seen[axis] = true
		step := int64(1)
		if steps != nil {
			step = steps[k]
		}
		if step == 0 || max(step, -step) > math.MaxInt32 {
			return nil, fmt.Errorf("%w: step %d", ErrInvalid, step)
		}
		if a.shared && axis == 0 {
			if starts[k] != 0 || ends[k] < math.MaxInt32 || step != 1 {
				return nil, nil
			}
			continue
		}
		l := a.dims[axis]
		from, to := clamped(starts[k], ends[k], step, l)
		first[axis], by[axis], dims[axis] = from, step, max(0, (to-from+step-sign(step))/step)
	}
	strides := stridesOf(a.dims)
	return p.picked(a, dims, func(index []int64) int {
		at := 0
		for i, v := range index {
			at += int(first[i]+v*by[i]) * strides[i]
		}
		return at
	})
}

// foldGather computes a Gather, of a table's rows among others: only those are read.
func (p *parser) foldGather(n *node, in []*array) (*array, error) {
	if len(in) != 2 || in[1] == nil || in[1].float() || in[1].kind == typeBool || in[1].steps != nil || in[1].len() == 0 {
		return nil, nil
	}
	t, ids := p.operands[n.inputs[0]].constant, in[1]
	if t == nil { // of sizes
		a, err := p.array(n, 0)
		if a == nil || err != nil {
			return nil, err
		}
		t = a.operand().constant
	}
	from := p.operands[n.inputs[0]]
	rank := int64(len(t.dims))
	axis := n.int("axis", 0)
	if axis < -rank || axis >= rank {
		return nil, fmt.Errorf("%w: axis %d of rank %d", ErrInvalid, axis, rank)
	}
	if axis < 0 {
		axis += rank
	}
	l := t.dims[axis]
	places, err := elements(ids.ints, l)
	if err != nil {
		return nil, err
	}
	if ids.shared && axis != 0 || from.shared && (axis == 0 || ids.shared) {
		return nil, nil
	}
	dims := slices.Concat(t.dims[:axis], ids.dims, t.dims[axis+1:])
	if t.kind == typeFloat && axis == 0 && t.of == nil && rank > 1 {
		width, ok := extent(t.dims[1:])
		if !ok {
			return nil, nil
		}
		if _, err := t.checkData(len(t.floats), 4); err != nil {
			return nil, err
		}
		y, err := p.made(&array{kind: typeFloat}, dims)
		if y == nil || err != nil {
			return nil, err
		}
		piece := t.piece()
		for i, at := range places {
			if err := t.read(y.floats[i*width:][:width], at*width, piece); err != nil {
				return nil, err
			}
		}
		y.shared = ids.shared
		return y, nil
	}
	a, err := p.array(n, 0)
	if a == nil || err != nil || a.len() == 0 {
		return nil, err
	}
	strides, own := stridesOf(a.dims), stridesOf(ids.dims)
	y, err := p.picked(a, dims, func(index []int64) int {
		at, id := 0, 0
		for i, s := range own {
			id += int(index[int(axis)+i]) * s
		}
		for i, s := range strides {
			switch {
			case i < int(axis):
				at += int(index[i]) * s
			case i == int(axis):
				at += places[id] * s
			default:
				at += int(index[i-1+len(own)]) * s
			}
		}
		return at
	})
	if y != nil {
		y.shared = a.shared || ids.shared
	}
	return y, err
}

// foldGatherElements computes a GatherElements.
func (p *parser) foldGatherElements(n *node, in []*array) (*array, error) {
	if len(in) != 2 || in[0] == nil || in[1] == nil || in[1].float() || in[1].kind == typeBool || in[1].steps != nil || len(in[0].dims) != len(in[1].dims) {
		return nil, nil
	}
	a, ids := in[0], in[1]
	rank := int64(len(a.dims))
	axis := n.int("axis", 0)
	if axis < -rank || axis >= rank {
		return nil, fmt.Errorf("%w: axis %d of rank %d", ErrInvalid, axis, rank)
	}
	if axis < 0 {
		axis += rank
	}
	if a.shared != ids.shared || a.shared && axis == 0 {
		return nil, nil
	}
	for i, d := range ids.dims {
		if int64(i) != axis && d > a.dims[i] {
			return nil, fmt.Errorf("%w: indices of %d for %d", ErrInvalid, ids.dims, a.dims)
		}
	}
	places, err := elements(ids.ints, a.dims[axis])
	if err != nil {
		return nil, err
	}
	strides, own := stridesOf(a.dims), stridesOf(ids.dims)
	return p.picked(a, ids.dims, func(index []int64) int {
		at, id := 0, 0
		for i, v := range index {
			id += int(v) * own[i]
			if int64(i) != axis {
				at += int(v) * strides[i]
			}
		}
		return at + places[id]*strides[axis]
	})
}

// foldGatherND computes a GatherND.
func (p *parser) foldGatherND(n *node, in []*array) (*array, error) {
	if len(in) != 2 || in[0] == nil || in[1] == nil || in[1].float() || len(in[1].dims) == 0 || n.int("batch_dims", 0) != 0 || in[0].len() == 0 || in[1].len() == 0 {
		return nil, nil
	}
	a, ids := in[0], in[1]
	last := len(ids.dims) - 1
	many := int(ids.dims[last])
	if many < 1 || many > len(a.dims) || ids.kind == typeBool {
		return nil, nil
	}
	strides := stridesOf(a.dims)
	starts := make([]int, ids.len()/many)
	for i := range starts {
		for k := range many {
			v, l := ids.ints[i*many+k], a.dims[k]
			if a.shared && k == 0 {
				// Of each sample its own, which is the same for all.
				if a.steps != nil || v != 0 || ids.steps != nil && ids.steps[i*many] != 1 {
					return nil, nil
				}
				continue
			}
			if ids.steps != nil && ids.steps[i*many+k] != 0 {
				return nil, nil
			}
			if v < -l || v >= l {
				return nil, fmt.Errorf("%w: element %d of %d", ErrInvalid, v, l)
			}
			starts[i] += int((v+l)%l) * strides[k]
		}
	}
	dims := slices.Concat(ids.dims[:last], a.dims[many:])
	own := stridesOf(ids.dims[:last])
	y, err := p.picked(a, dims, func(index []int64) int {
		id, at := 0, 0
		for i, s := range own {
			id += int(index[i]) * s
		}
		for i, s := range strides[many:] {
			at += int(index[last+i]) * s
		}
		return starts[id] + at
	})
	if y != nil {
		y.shared = ids.shared
	}
	return y, err
}

// foldConcat computes a Concat.
func (p *parser) foldConcat(n *node, in []*array) (*array, error) {
	attribute, ok := n.attribute("axis")
	if !ok || slices.Contains(in, nil) {
		return nil, nil
	}
	rank := int64(len(in[0].dims))
	axis := attribute.i
	if axis < -rank || axis >= rank {
		return nil, fmt.Errorf("%w: axis %d of rank %d", ErrInvalid, axis, rank)
	}
	if axis < 0 {
		axis += rank
	}
	like := *in[0]
	like.steps = nil
	dims := slices.Clone(in[0].dims)
	dims[axis] = 0
	for _, a := range in {
		if a.kind != like.kind || a.shared != like.shared || int64(len(a.dims)) != rank || a.shared && axis == 0 || a.len() == 0 && slices.Contains(a.dims, 0) && rank > 1 {
			return nil, nil
		}
		for i, d := range a.dims {
			if int64(i) != axis && d != dims[i] {
				return nil, fmt.Errorf("%w: constant of another shape", ErrInvalid)
			}
		}
		if dims[axis] += a.dims[axis]; dims[axis] > math.MaxInt32 {
			return nil, fmt.Errorf("%w: too many constants", ErrInvalid)
		}
		if a.steps != nil {
			like.steps = a.steps
		}
	}
	y, err := p.made(&like, dims)
	if y == nil || err != nil {
		return nil, err
	}
	inner, _ := extent(dims[axis:])
	at := 0
	for _, a := range in {
		rows := inner / int(dims[axis]) * int(a.dims[axis])
		for j := range a.len() {
			y.set(at+j/rows*inner+j%rows, a, j)
		}
		at += rows
	}
	return y, nil
}

// foldCast computes a Cast.
func (p *parser) foldCast(n *node, in []*array) (*array, error) {
	a, to := in[0], n.int("to", 0)
	if a == nil || a.len() == 0 {
		return nil, nil
	}
	switch to {
	case typeDouble:
		to = typeFloat
		if !a.float() && a.kind != typeBool {
			return nil, nil // what float32 has not
		}
	case typeFloat, typeInt32, typeInt64, typeBool:
	default:
		return nil, nil
	}
	if a.kind == to {
		return a, nil
	}
	if a.steps != nil && to != typeInt32 && to != typeInt64 {
		return nil, nil
	}
	like := *a
	like.kind = to
	y, err := p.made(&like, a.dims)
	if y == nil || err != nil {
		return nil, err
	}
	for i := range y.len() {
		switch {
		case a.float() && to == typeBool:
			y.ints[i] = truthOf(a.floats[i] != 0)
		case a.float():
			v := math.Trunc(float64(a.floats[i]))
			if !(math.Abs(v) < 1<<62) || to == typeInt32 && !(math.Abs(v) <= math.MaxInt32) {
				return nil, p.refuse(n, "of a constant that is no integer")
			}
			y.ints[i] = int64(v)
		case to == typeFloat:
			y.floats[i] = float32(a.ints[i])
		case to == typeBool:
			y.ints[i] = truthOf(a.ints[i] != 0)
		default:
			y.set(i, a, i)
		}
	}
	return y, nil
}

// foldWhere computes a Where.
func (p *parser) foldWhere(n *node, in []*array) (*array, error) {
	if len(in) != 3 || slices.Contains(in, nil) || in[1].float() != in[2].float() || in[0].float() || in[0].steps != nil {
		return nil, nil
	}
	dims, shared, ok := p.broadcast(in...)
	if !ok {
		return nil, nil
	}
	var v [3]*array
	for i, a := range in {
		var err error
		if v[i], err = p.spreadTo(a, dims); v[i] == nil || err != nil {
			return nil, err
		}
	}
	like := &array{kind: v[1].kind, shared: shared}
	if v[1].steps != nil || v[2].steps != nil {
		like.steps = []int64{}
	}
	y, err := p.made(like, dims)
	if y == nil || err != nil {
		return nil, err
	}
	for i := range y.len() {
		if v[0].ints[i] != 0 {
			y.set(i, v[1], i)
		} else {
			y.set(i, v[2], i)
		}
	}
	return y, nil
}

// foldTrilu computes a Trilu.
func (p *parser) foldTrilu(n *node, in []*array) (*array, error) {
	a, k := in[0], int64(0)
	if a == nil || len(a.dims) < 2 || a.steps != nil || a.shared && len(a.dims) < 3 || a.len() == 0 {
		return nil, nil
	}
	if n.has(1) {
		if b := in[1]; b.float() || b.len() != 1 || b.steps != nil {
			return nil, nil
		}
		k = in[1].ints[0]
	}
	y, err := p.made(a, a.dims)
	if y == nil || err != nil {
		return nil, err
	}
	rows, cols := a.dims[len(a.dims)-2], a.dims[len(a.dims)-1]
	upper := n.int("upper", 1) != 0
	k = min(max(k, -math.MaxInt32), math.MaxInt32)
	for i := range y.len() {
		row, col := int64(i)/cols%rows, int64(i)%cols
		if upper && col-row >= k || !upper && col-row <= k {
			y.set(i, a, i)
		}
	}
	return y, nil
}

// foldCumSum computes a CumSum.
func (p *parser) foldCumSum(n *node, in []*array) (*array, error) {
	if len(in) != 2 || in[0] == nil || in[1] == nil || in[1].float() || in[1].len() != 1 || in[0].kind == typeBool || in[0].steps != nil || in[0].len() == 0 {
		return nil, nil
	}
	a, axis, rank := in[0], in[1].ints[0], int64(len(in[0].dims))
	if axis < -rank || axis >= rank {
		return nil, fmt.Errorf("%w: axis %d of rank %d", ErrInvalid, axis, rank)
	}
	if axis < 0 {
		axis += rank
	}
	if a.shared && axis == 0 || n.int("exclusive", 0) != 0 || n.int("reverse", 0) != 0 {
		return nil, nil
	}
	y, err := p.made(a, a.dims)
	if y == nil || err != nil {
		return nil, err
	}
	stride := stridesOf(a.dims)[axis]
	for i := range y.len() {
		y.set(i, a, i)
		if int64(i/stride)%a.dims[axis] == 0 {
			continue
		}
		if a.float() {
			y.floats[i] += y.floats[i-stride]
		} else if v, ok := sum(y.ints[i], y.ints[i-stride]); ok {
			y.ints[i] = v
		} else {
			return nil, fmt.Errorf("%w: sums past 64 bits", ErrInvalid)
		}
	}
	return y, nil
}
