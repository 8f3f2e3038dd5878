package onnx

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// Constants of the file: their elements, and what may be made of them.

// extent returns the product of sizes, if each is positive and it is at most plan.MaxExtent.
func extent(dims []int64) (int, bool) {
	n := int64(1)
	for _, d := range dims {
		if d <= 0 || d > plan.MaxExtent/n {
			return 0, false
		}
		n *= d
	}
	return int(n), true
}

// len returns the number of elements, and an error unless each size is positive.
func (t *tensor) len() (int, error) {
	n, ok := extent(t.dims)
	if !ok {
		return 0, fmt.Errorf("%w: tensor %s has an empty or excessive shape", ErrInvalid, clean(t.name))
	}
	return n, nil
}

// checkData returns the number of elements, and an error unless the data, of
// width bytes an element where they are raw, are as many: typed elements or raw
// bytes, and not both.
func (t *tensor) checkData(typed, width int) (int, error) {
	n, err := t.len()
	if err != nil {
		return 0, err
	}
	raw := int64(len(t.raw))
	if t.stored != nil {
		raw = t.stored.size
	}
	if typed != 0 && (t.raw != nil || t.stored != nil) || typed == 0 && raw != int64(n)*int64(width) || typed != 0 && typed != n {
		return 0, fmt.Errorf("%w: tensor %s has data of another length than its shape", ErrInvalid, clean(t.name))
	}
	return n, nil
}

// charge counts n elements that are about to be made.
func (p *parser) charge(n int) error {
	if p.words -= n; p.words < 0 {
		return fmt.Errorf("%w: tensors are used too often for the file's size", ErrInvalid)
	}
	return nil
}

// floating checks that t holds as many floats as its shape says, charges for them, and
// returns their number.
func (p *parser) floating(n *node, t *tensor) (int, error) {
	var typed, width int
	switch t.kind {
	case typeFloat:
		typed, width = len(t.floats), 4
	case typeDouble:
		typed, width = len(t.doubles), 8
	default:
		return 0, p.refuse(n, "element type %d", t.kind)
	}
	size, err := t.checkData(typed, width)
	if err == nil {
		err = p.charge(size)
	}
	return size, err
}

// floats32 returns a copy of the elements, rounded to float32.
func (p *parser) floats32(n *node, t *tensor) ([]float32, error) {
	size, err := p.floating(n, t)
	if err != nil {
		return nil, err
	}
	v := make([]float32, size)
	return v, t.read(v, 0, t.piece())
}

// scalar returns input i of n, a constant of one element. An error calls it what.
func (p *parser) scalar(n *node, i int, what string) (float32, error) {
	t, err := p.constant(n, i)
	if err != nil {
		return 0, err
	}
	v, err := p.floats32(n, t)
	if err != nil {
		return 0, err
	}
	if len(v) != 1 {
		return 0, fmt.Errorf("%w: %d elements for %s, want 1", ErrInvalid, len(v), what)
	}
	return v[0], nil
}

// vector returns input i of n, a constant vector of one value for each of so many channels.
func (p *parser) vector(n *node, i, channels int) ([]float32, error) {
	t, err := p.constant(n, i)
	if err != nil {
		return nil, err
	}
	if len(t.dims) != 1 || t.dims[0] != int64(channels) {
		return nil, fmt.Errorf("%w: input %d of shape %d, want one value for each of %d channels", ErrInvalid, i, t.dims, channels)
	}
	return p.floats32(n, t)
}

// piece returns what read needs.
func (t *tensor) piece() []byte {
	if t.stored == nil {
		return nil
	}
	return make([]byte, min(t.stored.size, pieceBytes))
}

// read sets dst to the elements from at on, of those that floating found, rounded to
// float32. It uses piece.
func (t *tensor) read(dst []float32, at int, piece []byte) error {
	double := t.kind == typeDouble
	switch {
	case !double && t.floats != nil:
		copy(dst, t.floats[at:])
		return nil
	case t.doubles != nil:
		for i := range dst {
			dst[i] = float32(t.doubles[at+i])
		}
		return nil
	}
	width := 4
	if double {
		width = 8
	}
	for len(dst) > 0 {
		n := min(len(dst), pieceBytes/width)
		b := t.raw
		if t.stored != nil {
			b = piece[:n*width]
			if err := t.stored.read(b, int64(at)*int64(width)); err != nil {
				return fmt.Errorf("tensor %s: %w", clean(t.name), err)
			}
		} else {
			b = b[at*width:][:n*width]
		}
		for i := range n {
			if double {
				dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:])))
			} else {
				dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
			}
		}
		dst, at = dst[n:], at+n
	}
	return nil
}

// pieceBytes is how much of a tensor is read at once.
const pieceBytes = 1 << 18

// weights returns what reads t as weights. Those are t's lines of length elements each,
// some at a time, where arrange puts them.
func (p *parser) weights(n *node, t *tensor, length int, arrange func(dst []float32, first int, lines []float32)) (graph.Source, error) {
	size, err := p.floating(n, t)
	if err != nil {
		return nil, err
	}
	return func(dst []float32) error {
		lines, piece := make([]float32, min(size, max(length, pieceBytes/4/length*length))), t.piece()
		for at := 0; at < size; at += len(lines) {
			lines = lines[:min(len(lines), size-at)]
			if err := t.read(lines, at, piece); err != nil {
				return err
			}
			arrange(dst, at/length, lines)
		}
		return nil
	}, nil
}

// ints returns the elements of a tensor of integers or bools that has no more
// than a shape has.
func (p *parser) ints(n *node, t *tensor) ([]int64, error) { return p.integers(n, t, maxRank) }

// integers returns the elements of a tensor of integers or bools that has no more than most.
func (p *parser) integers(n *node, t *tensor, most int) ([]int64, error) {
	typed, width := t.int32s, 4
	switch t.kind {
	case typeInt32:
	case typeInt64:
		typed, width = t.int64s, 8
	case typeBool:
		width = 1
	default:
		return nil, p.refuse(n, "element type %d", t.kind)
	}
	size, err := t.checkData(len(typed), width)
	if err != nil {
		return nil, err
	}
	if size > most {
		return nil, fmt.Errorf("%w: tensor %s is too long for its use", ErrInvalid, clean(t.name))
	}
	if typed != nil {
		return typed, nil
	}
	raw := t.raw
	if t.stored != nil {
		raw = make([]byte, t.stored.size)
		if err := t.stored.read(raw, 0); err != nil {
			return nil, fmt.Errorf("tensor %s: %w", clean(t.name), err)
		}
	}
	v := make([]int64, size)
	for i := range v {
		switch width {
		case 1:
			v[i] = int64(raw[i])
		case 4:
			v[i] = int64(int32(binary.LittleEndian.Uint32(raw[4*i:])))
		case 8:
			v[i] = int64(binary.LittleEndian.Uint64(raw[8*i:]))
		}
	}
	return v, nil
}

// number returns input i of n, a constant, if that is a single number, of a rank that changes none of
// the given one.
func (p *parser) number(n *node, i, rank int) (float32, bool, error) {
	t, err := p.constant(n, i)
	if err != nil {
		return 0, false, err
	}
	if size, err := t.len(); err != nil || size != 1 || len(t.dims) > rank {
		return 0, false, nil
	}
	if t.kind == typeInt32 || t.kind == typeInt64 {
		v, err := p.ints(n, t)
		if err != nil || large(v[0]) {
			return 0, false, err
		}
		return float32(v[0]), true, nil
	}
	v, err := p.floats32(n, t)
	if err != nil {
		return 0, false, err
	}
	return v[0], true, nil
}

// large reports whether floats do not have all integers of v's magnitude.
func large(v int64) bool { return v < -graph.MaxInteger || v > graph.MaxInteger }

// repeated returns v once a channel.
func (p *parser) repeated(v float32, channels int) ([]float32, error) {
	if err := p.charge(channels); err != nil {
		return nil, err
	}
	return slices.Repeat([]float32{v}, channels), nil
}

// transposed returns a float tensor with its axes permuted.
func (p *parser) transposed(n *node, t *tensor, perm []int) (*tensor, error) {
	v, err := p.floats32(n, t)
	if err != nil {
		return nil, err
	}
	if err := p.charge(len(v)); err != nil {
		return nil, err
	}
	u := &tensor{name: t.name, kind: typeFloat, floats: make([]float32, len(v))}
	dims, strides := permuted(t.dims, perm)
	u.dims = dims
	for i, index := range indices(dims) {
		u.floats[i] = v[offset(index, strides)]
	}
	return u, nil
}

// allZero reports whether v is of zeros, or empty.
func allZero(v []float32) bool {
	return !slices.ContainsFunc(v, func(f float32) bool { return f != 0 })
}

// negativeInfinity reports whether v is that, as masks have it.
func negativeInfinity(v float32) bool { return math.IsInf(float64(v), -1) }

// stridesOf returns how far apart elements are along each of dims.
func stridesOf(dims []int64) []int {
	strides, stride := make([]int, len(dims)), 1
	for i := len(dims) - 1; i >= 0; i-- {
		strides[i] = stride
		stride *= int(dims[i])
	}
	return strides
}

// indices yields the index of each element of a tensor of the given dimensions, which are positive,
// in order. An index is valid until the next one.
func indices(dims []int64) iter.Seq2[int, []int64] {
	return func(yield func(int, []int64) bool) {
		index := make([]int64, len(dims))
		for i := 0; yield(i, index); i++ {
			k := len(dims) - 1
			for ; k >= 0; k-- {
				if index[k]++; index[k] < dims[k] {
					break
				}
				index[k] = 0
			}
			if k < 0 {
				return
			}
		}
	}
}

// offset returns how far an index is from the first element, by strides of its dimensions.
func offset(index []int64, strides []int) (at int) {
	for i, v := range index {
		at += int(v) * strides[i]
	}
	return at
}

// permutation returns the order in which the Transpose n has the axes of a tensor of the given rank.
func permutation(n *node, rank int) ([]int, error) {
	perm := make([]int, rank)
	a, given := n.attribute("perm")
	if given && len(a.ints) != rank {
		return nil, fmt.Errorf("%w: rank %d, transposed by %d", ErrInvalid, rank, a.ints)
	}
	seen := make([]bool, rank)
	for i := range perm {
		v := int64(rank - 1 - i)
		if given {
			v = a.ints[i]
		}
		if v < 0 || v >= int64(rank) || seen[v] {
			return nil, fmt.Errorf("%w: transposed by %d", ErrInvalid, a.ints)
		}
		perm[i], seen[v] = int(v), true
	}
	return perm, nil
}

// permuted returns the dimensions of a tensor whose axes are permuted, and how far apart its elements
// lie along each of them in the tensor as it was.
func permuted(dims []int64, perm []int) (to []int64, strides []int) {
	from := stridesOf(dims)
	for _, a := range perm {
		to, strides = append(to, dims[a]), append(strides, from[a])
	}
	return to, strides
}
