package onnx

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// What is computed of constants element by element.

// A pair is what an operator makes of two elements. An error says why it makes nothing of them.
type pair struct {
	ints    func(x, y int64) (int64, bool)
	floats  func(x, y float64) float64
	compare bool // the result is a bool, of floats and ints alike: ints are compared
	logic   bool // of bools alone
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

// truthOf returns a bool as arrays have it.
func truthOf(is bool) int64 {
	if is {
		return 1
	}
	return 0
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

// sign returns -1 below 0, and else 1.
func sign(v int64) int64 {
	if v < 0 {
		return -1
	}
	return 1
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

// foldPair computes op of two arrays, which broadcast to each other.
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
		if b.len() == 0 || b.steps != nil { // floats have no steps
			return nil, nil
		}
		c := &array{kind: typeFloat, dims: b.dims, shared: b.shared}
		for _, v := range b.ints {
			c.floats = append(c.floats, float32(v))
		}
		b = c
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
	return func(index []int64) int { return offset(index[rank-len(strides):], strides) }
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
