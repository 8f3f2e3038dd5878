package onnx

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/securenets/securenets/internal/graph"
)

// The messages of onnx.proto3, as far as they are written.

// message is the bytes of a protobuf message, so far.
type message []byte

func (m *message) int(num protowire.Number, v int64) {
	*m = protowire.AppendVarint(protowire.AppendTag(*m, num, protowire.VarintType), uint64(v))
}

func (m *message) bytes(num protowire.Number, v []byte) {
	*m = protowire.AppendBytes(protowire.AppendTag(*m, num, protowire.BytesType), v)
}

func (m *message) string(num protowire.Number, v string) { m.bytes(num, []byte(v)) }

// poolAttributes returns the attributes of a window.
func poolAttributes(p graph.Pool) []message {
	return []message{
		intsAttribute("kernel_shape", p.KH, p.KW), intsAttribute("strides", p.SH, p.SW),
		intsAttribute("pads", p.Top, p.Left, p.Bot, p.Right),
	}
}

func floatAttribute(name string, v float32) (a message) {
	a.string(1, name)
	a = protowire.AppendTag(a, 2, protowire.Fixed32Type)
	a = protowire.AppendFixed32(a, math.Float32bits(v))
	a.int(20, attributeFloat)
	return a
}

func stringAttribute(name, v string) (a message) {
	a.string(1, name)
	a.string(4, v)
	a.int(20, attributeString)
	return a
}

func intAttribute(name string, v int) (a message) {
	a.string(1, name)
	a.int(3, int64(v))
	a.int(20, attributeInt)
	return a
}

func intsAttribute(name string, v ...int) (a message) {
	a.string(1, name)
	for _, x := range v {
		a.int(8, int64(x))
	}
	a.int(20, attributeInts)
	return a
}

// valueInfoMessage returns the ValueInfoProto of v: float, with batch N.
func valueInfoMessage(v value, s graph.Shape) message {
	return typedInfoMessage(v.name, v.rank, s, typeFloat)
}

// typedInfoMessage is valueInfoMessage of elements of any type.
func typedInfoMessage(name string, rank int, s graph.Shape, kind int) message {
	return infoMessage(name, dimsOf(s, rank), kind)
}

// infoMessage is typedInfoMessage of a tensor of any dimensions after the batch.
func infoMessage(name string, dims []int64, kind int) message {
	var shape, batch message
	batch.string(2, "N")
	shape.bytes(1, batch)
	for _, d := range dims {
		var dim message
		dim.int(1, d)
		shape.bytes(1, dim)
	}
	var tensor, typ, info message
	tensor.int(1, int64(kind))
	tensor.bytes(2, shape)
	typ.bytes(1, tensor)
	info.string(1, name)
	info.bytes(2, typ)
	return info
}
