package onnx

import (
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of onnx.proto3, as far as they are read. Byte slices and packed
// numbers are views of the file or grow with it: nothing is allocated by a
// declared size. Nothing here recurses: a subgraph is noted and not read.

type model struct {
	irVersion int64
	opsets    []opset
	graph     *graphProto
	functions bool // model-local functions, which may redefine operators
}

type opset struct {
	domain  string
	version int64
}

type graphProto struct {
	nodes        []node
	initializers []*tensor
	inputs       []valueInfo
	outputs      []valueInfo
	sparse       bool // sparse initializers
}

type node struct {
	inputs     []string
	outputs    []string
	op         string
	domain     string
	attributes []attribute
}

// Attribute types of AttributeProto.
const (
	attributeFloat   = 1
	attributeInt     = 2
	attributeString  = 3
	attributeTensor  = 4
	attributeFloats  = 6
	attributeInts    = 7
	attributeStrings = 8
)

type attribute struct {
	name    string
	kind    int64
	f       float32
	i       int64
	s       []byte
	t       *tensor
	floats  []float32
	ints    []int64
	strings [][]byte
}

// Element types of TensorProto.
const (
	typeFloat  = 1
	typeUint8  = 2
	typeInt32  = 6
	typeInt64  = 7
	typeBool   = 9
	typeDouble = 11
)

// maxRank bounds the rank of tensors, so that passing over a shape is no work.
const maxRank = 16

type tensor struct {
	name    string
	dims    []int64
	kind    int64
	floats  []float32
	int32s  []int64 // bools too
	int64s  []int64
	doubles []float64
	raw     []byte
	stored  *section // instead of raw, where that is left in a file
	of      *tensor  // instead of all data: the matrix of which this is the transpose
}

type valueInfo struct {
	name string
	kind int64   // element type
	dims []int64 // 0 where a size is symbolic; nil where no shape is given
	// params are the names of sizes that are symbolic, one a dimension; "" where there is none.
	params []string
}

// field is one protobuf field. Scalars are in v, length-delimited bytes in b.
type field struct {
	tag uint64 // number<<3 | wire type
	v   uint64
	b   []byte
}

// packed reports whether a repeated scalar's field holds many of them.
func (f field) packed() bool { return f.tag&7 == bytes }

// Wire types, for tags.
const (
	varint  = uint64(protowire.VarintType)
	fixed64 = uint64(protowire.Fixed64Type)
	bytes   = uint64(protowire.BytesType)
	fixed32 = uint64(protowire.Fixed32Type)
)

// fields calls f for each field of a message. ONNX has no groups.
func fields(b []byte, f func(field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: broken field", ErrFormat)
		}
		b = b[n:]
		fd := field{tag: protowire.EncodeTag(num, typ)}
		switch typ {
		case protowire.VarintType:
			fd.v, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			fd.v = uint64(v)
		case protowire.Fixed64Type:
			fd.v, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			fd.b, n = protowire.ConsumeBytes(b)
		default:
			n = -1
		}
		if n < 0 {
			return fmt.Errorf("%w: broken field %d", ErrFormat, num)
		}
		b = b[n:]
		if err := f(fd); err != nil {
			return err
		}
	}
	return nil
}

func decodeModel(b []byte) (*model, error) {
	m := new(model)
	err := fields(b, func(f field) (err error) {
		switch f.tag {
		case 1<<3 | varint:
			m.irVersion = int64(f.v)
		case 7<<3 | bytes:
			if m.graph != nil {
				return fmt.Errorf("%w: two graphs", ErrFormat)
			}
			m.graph, err = decodeGraph(f.b)
		case 8<<3 | bytes:
			var o opset
			o, err = decodeOpset(f.b)
			m.opsets = append(m.opsets, o)
		case 25<<3 | bytes:
			m.functions = true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if m.irVersion <= 0 || m.graph == nil {
		return nil, fmt.Errorf("%w: no IR version or no graph", ErrFormat)
	}
	return m, nil
}

func decodeOpset(b []byte) (o opset, err error) {
	err = fields(b, func(f field) error {
		switch f.tag {
		case 1<<3 | bytes:
			o.domain = string(f.b)
		case 2<<3 | varint:
			o.version = int64(f.v)
		}
		return nil
	})
	return o, err
}

func decodeGraph(b []byte) (*graphProto, error) {
	g := new(graphProto)
	err := fields(b, func(f field) error {
		switch f.tag {
		case 1<<3 | bytes:
			n, err := decodeNode(f.b)
			if err != nil {
				return err
			}
			g.nodes = append(g.nodes, n)
		case 5<<3 | bytes:
			t, err := decodeTensor(f.b)
			if err != nil {
				return err
			}
			g.initializers = append(g.initializers, t)
		case 11<<3 | bytes:
			v, err := decodeValueInfo(f.b)
			if err != nil {
				return err
			}
			g.inputs = append(g.inputs, v)
		case 12<<3 | bytes:
			v, err := decodeValueInfo(f.b)
			if err != nil {
				return err
			}
			g.outputs = append(g.outputs, v)
		case 15<<3 | bytes:
			g.sparse = true
		}
		return nil
	})
	return g, err
}

func decodeNode(b []byte) (n node, err error) {
	err = fields(b, func(f field) error {
		switch f.tag {
		case 1<<3 | bytes:
			n.inputs = append(n.inputs, string(f.b))
		case 2<<3 | bytes:
			n.outputs = append(n.outputs, string(f.b))
		case 4<<3 | bytes:
			n.op = string(f.b)
		case 5<<3 | bytes:
			a, err := decodeAttribute(f.b)
			if err != nil {
				return err
			}
			n.attributes = append(n.attributes, a)
		case 7<<3 | bytes:
			n.domain = string(f.b)
		}
		return nil
	})
	if err == nil && n.op == "" {
		err = fmt.Errorf("%w: node without an operator", ErrFormat)
	}
	return n, err
}

func decodeAttribute(b []byte) (a attribute, err error) {
	err = fields(b, func(f field) (err error) {
		switch f.tag {
		case 1<<3 | bytes:
			a.name = string(f.b)
		case 2<<3 | fixed32:
			a.f = math.Float32frombits(uint32(f.v))
		case 3<<3 | varint:
			a.i = int64(f.v)
		case 4<<3 | bytes:
			a.s = f.b
		case 5<<3 | bytes:
			a.t, err = decodeTensor(f.b)
		case 7<<3 | fixed32, 7<<3 | bytes:
			a.floats, err = appendFloats(a.floats, f)
		case 8<<3 | varint, 8<<3 | bytes:
			a.ints, err = appendInts(a.ints, f)
		case 9<<3 | bytes:
			a.strings = append(a.strings, f.b)
		case 20<<3 | varint:
			a.kind = int64(f.v)
		case 21<<3 | bytes: // stands for a function's attribute
			return fmt.Errorf("%w: attribute by reference outside of a function", ErrFormat)
		}
		return err
	})
	if err == nil && a.name == "" {
		err = fmt.Errorf("%w: attribute without a name", ErrFormat)
	}
	return a, err
}

func decodeTensor(b []byte) (*tensor, error) {
	t := new(tensor)
	err := fields(b, func(f field) (err error) {
		switch f.tag {
		case 1<<3 | varint, 1<<3 | bytes:
			t.dims, err = appendInts(t.dims, f)
		case 2<<3 | varint:
			t.kind = int64(f.v)
		case 3<<3 | bytes:
			return fmt.Errorf("%w: tensor in segments", ErrInvalid)
		case 4<<3 | fixed32, 4<<3 | bytes:
			t.floats, err = appendFloats(t.floats, f)
		case 5<<3 | varint, 5<<3 | bytes:
			t.int32s, err = appendInts(t.int32s, f)
		case 7<<3 | varint, 7<<3 | bytes:
			t.int64s, err = appendInts(t.int64s, f)
		case 8<<3 | bytes:
			t.name = string(f.b)
		case 9<<3 | bytes:
			t.raw = f.b
		case 10<<3 | fixed64, 10<<3 | bytes:
			t.doubles, err = appendDoubles(t.doubles, f)
		case 13<<3 | bytes:
			return ErrExternalData
		case 14<<3 | varint:
			if f.v != 0 {
				return ErrExternalData
			}
		}
		return err
	})
	if len(t.dims) > maxRank {
		err = fmt.Errorf("%w: tensor of rank %d", ErrInvalid, len(t.dims))
	}
	return t, err
}

func decodeValueInfo(b []byte) (v valueInfo, err error) {
	var typ []byte
	err = fields(b, func(f field) error {
		switch f.tag {
		case 1<<3 | bytes:
			v.name = string(f.b)
		case 2<<3 | bytes:
			typ = f.b
		}
		return nil
	})
	if err != nil {
		return v, err
	}
	// TypeProto, its field 1 TypeProto.Tensor, its field 2 TensorShapeProto,
	// its field 1 Dimension, its field 1 dim_value and field 2 dim_param.
	var shape []byte
	err = fields(typ, func(f field) error {
		if f.tag != 1<<3|bytes {
			return nil
		}
		return fields(f.b, func(f field) error {
			switch f.tag {
			case 1<<3 | varint:
				v.kind = int64(f.v)
			case 2<<3 | bytes:
				shape = f.b
			}
			return nil
		})
	})
	if err != nil {
		return v, err
	}
	err = fields(shape, func(f field) error {
		if f.tag != 1<<3|bytes {
			return nil
		}
		var d int64
		var name string
		err := fields(f.b, func(f field) error {
			switch f.tag {
			case 1<<3 | varint:
				d, name = int64(f.v), ""
			case 2<<3 | bytes:
				d, name = 0, string(f.b)
			}
			return nil
		})
		v.dims, v.params = append(v.dims, d), append(v.params, name)
		return err
	})
	return v, err
}

// The three functions below append a repeated scalar's field, packed or single.

func appendInts(v []int64, f field) ([]int64, error) {
	if !f.packed() {
		return append(v, int64(f.v)), nil
	}
	for b := f.b; len(b) > 0; {
		x, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, fmt.Errorf("%w: broken integers", ErrFormat)
		}
		v, b = append(v, int64(x)), b[n:]
	}
	return v, nil
}

func appendFloats(v []float32, f field) ([]float32, error) {
	if !f.packed() {
		return append(v, math.Float32frombits(uint32(f.v))), nil
	}
	if len(f.b)%4 != 0 {
		return nil, fmt.Errorf("%w: broken floats", ErrFormat)
	}
	v = slices.Grow(v, len(f.b)/4)
	for b := f.b; len(b) > 0; b = b[4:] {
		x, _ := protowire.ConsumeFixed32(b)
		v = append(v, math.Float32frombits(x))
	}
	return v, nil
}

func appendDoubles(v []float64, f field) ([]float64, error) {
	if !f.packed() {
		return append(v, math.Float64frombits(f.v)), nil
	}
	if len(f.b)%8 != 0 {
		return nil, fmt.Errorf("%w: broken doubles", ErrFormat)
	}
	v = slices.Grow(v, len(f.b)/8)
	for b := f.b; len(b) > 0; b = b[8:] {
		x, _ := protowire.ConsumeFixed64(b)
		v = append(v, math.Float64frombits(x))
	}
	return v, nil
}
