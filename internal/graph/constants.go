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
	for i, text := range []json.RawMessage{form.Scale, form.Shift} {
		to, value := (*[]float32)(&op.Shift), any(&op.Shift)
		if i == 0 {
			to, value = &op.Scale, &op.Scale
		}
		number, err := strconv.ParseUint(string(text), 10, 31)
		switch {
		case err != nil && len(text) > 0:
			if err := unmarshal(text, value); err != nil {
				return nil, err
			}
		case err != nil: // it is missing, which is found out later
		case number >= uint64(len(list)):
			return nil, fmt.Errorf("%w: a constant that is not there", ErrInvalid)
		default:
			*to = list[number]
		}
	}
	return op, nil
}
