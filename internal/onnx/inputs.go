package onnx

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/securenets/securenets/internal/few"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// The graph's inputs.

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
		part.From, part.Below, part.Type = 0, 256, "uint8"
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

// symbolic notes the dimensions of an input that have no size.
func (p *parser) symbolic(v valueInfo) {
	for i, d := range v.dims {
		switch {
		case i == 0 || d != 0:
		case v.params[i] == "":
			p.unsupported["input of symbolic size without a name"] = true
		case v.params[i] == v.params[0]:
			p.unsupported[fmt.Sprintf("input of symbolic size %s, which is the batch's", clean(v.params[i]))] = true
		default:
			p.unsupported[fmt.Sprintf("input of symbolic size %s (--size %[1]s=N fixes it)", clean(v.params[i]))] = true
		}
	}
}

// ErrSize reports a size for a dimension that a model does not have, or that it cannot have.
var ErrSize = errors.New("onnx: no such size")

// Sizes fixes dimensions of a model's inputs that have a name and no size, by that name: a
// sequence length, say. The batch needs none, and takes none.
type Sizes map[string]int

// fix gives inputs the sizes.
func (s Sizes) fix(inputs []valueInfo) error {
	own, batches := map[string]bool{}, map[string]bool{}
	for _, v := range inputs {
		for i, name := range v.params {
			switch {
			case name == "":
			case i == 0:
				batches[name] = true
			default:
				own[name] = true
			}
		}
	}
	maps.DeleteFunc(own, func(name string, _ bool) bool { return batches[name] })
	for _, name := range slices.Sorted(maps.Keys(s)) {
		size := s[name]
		switch {
		case batches[name]:
			return fmt.Errorf("%w: %s is the batch, which may have any size: %s", ErrSize, clean(name), there(own))
		case !own[name]:
			return fmt.Errorf("%w: no dimension of an input is named %s: %s", ErrSize, clean(name), there(own))
		case size < 1 || size > plan.MaxExtent:
			return fmt.Errorf("%w: %d of dimension %s: want 1 to %d", ErrSize, size, clean(name), plan.MaxExtent)
		}
	}
	for _, v := range inputs {
		for i, name := range v.params {
			if size := s[name]; size > 0 {
				v.dims[i] = int64(size)
			}
		}
	}
	return nil
}

// there says which dimensions can be fixed.
func there(names map[string]bool) string {
	if len(names) == 0 {
		return "there is none to fix"
	}
	return few.There(slices.Sorted(maps.Keys(names)), clean)
}
