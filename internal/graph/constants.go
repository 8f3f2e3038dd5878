package graph

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// longest is how many elements of a constant a structure holds as numbers, at most. Longer ones,
// as the mask that each layer of a decoder has, are constants beside it, equal ones once.
const longest = 1 << 10

// constants are those of a structure, by number.
type constants struct {
	list  [][]float32
	at    map[*float32]int // by where they are, and
	equal map[[sha256.Size]byte]int
}

// number returns that of a constant.
func (c *constants) number(v []float32) int {
	if i, ok := c.at[&v[0]]; ok && len(c.list[i]) == len(v) {
		return i
	}
	h := sha256.New()
	var b [4 << 10]byte
	for rest := v; len(rest) > 0; {
		n := min(len(rest), len(b)/4)
		for i, x := range rest[:n] {
			w := math.Float32bits(x)
			b[4*i], b[4*i+1], b[4*i+2], b[4*i+3] = byte(w), byte(w>>8), byte(w>>16), byte(w>>24)
		}
		h.Write(b[:4*n])
		rest = rest[n:]
	}
	sum := [sha256.Size]byte(h.Sum(nil))
	i, ok := c.equal[sum]
	if !ok {
		i = len(c.list)
		c.list = append(c.list, v)
		c.equal[sum] = i
	}
	c.at[&v[0]] = i
	return i
}

// elementAffine is an ElementAffine as JSON, of which a number stands for a long constant.
type elementAffine[T any] struct {
	Extent       Shape
	Scale, Shift T
}

// encode returns the parameters of an operator.
func (c *constants) encode(op *ElementAffine) ([]byte, error) {
	form := elementAffine[any]{op.Extent, op.Scale, op.Shift}
	if len(op.Scale) > longest {
		form.Scale = c.number(op.Scale)
	}
	if len(op.Shift) > longest {
		form.Shift = c.number(op.Shift)
	}
	return json.Marshal(form)
}

// decodeElementAffine reads what encode writes.
func decodeElementAffine(p json.RawMessage, list [][]float32) (Op, error) {
	var form elementAffine[json.RawMessage]
	if err := unmarshal(p, &form); err != nil {
		return nil, err
	}
	op := &ElementAffine{Extent: form.Extent}
	shared, err := decodeConstant(form.Scale, list, &op.Scale)
	if err != nil {
		return nil, err
	}
	if shared != nil {
		op.Scale = shared
	}
	if shared, err = decodeConstant(form.Shift, list, &op.Shift); err != nil {
		return nil, err
	}
	if shared != nil {
		op.Shift = shared
	}
	return op, nil
}

// decodeConstant returns the constant whose number stands in text. Where it is no number it decodes text
// to own, and returns nil.
func decodeConstant(text json.RawMessage, list [][]float32, own any) ([]float32, error) {
	number, err := strconv.ParseUint(string(text), 10, 31)
	switch {
	case err != nil && len(text) == 0: // it is missing, which DecodeShared finds out
		return nil, nil
	case err != nil:
		return nil, unmarshal(text, own)
	case number >= uint64(len(list)):
		return nil, fmt.Errorf("%w: constant %d, there are %d", ErrInvalid, number, len(list))
	}
	return list[number], nil
}
