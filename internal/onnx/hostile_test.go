package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
)

// file is an ONNX file under construction. What is not given is that of a valid
// model from x (N x 4) to y, of opset 13.
type file struct {
	nodes   []message
	tensors []message
	inputs  []message
	outputs []message
	opsets  []message
	graph   message // further fields of the graph
	model   message // and of the model
}

func (f file) bytes() []byte {
	if f.inputs == nil {
		f.inputs = []message{declare("x", typeFloat, "N", 4)}
	}
	if f.outputs == nil {
		f.outputs = []message{declare("y", typeFloat)}
	}
	if f.opsets == nil {
		f.opsets = []message{opsetOf("", 13)}
	}
	var g, m message
	for _, list := range []struct {
		num      protowire.Number
		messages []message
	}{{1, f.nodes}, {5, f.tensors}, {11, f.inputs}, {12, f.outputs}} {
		for _, e := range list.messages {
			g.bytes(list.num, e)
		}
	}
	g = append(g, f.graph...)
	m.int(1, 8)
	m.bytes(7, g)
	for _, o := range f.opsets {
		m.bytes(8, o)
	}
	return append(m, f.model...)
}

// nodes returns a file of the given nodes.
func nodes(n ...message) file { return file{nodes: n} }

// with returns the file with more tensors.
func (f file) with(t ...message) file {
	f.tensors = append(slices.Clip(f.tensors), t...)
	return f
}

// on returns the file with the given sizes for x.
func (f file) on(dims ...any) file {
	f.inputs = []message{declare("x", typeFloat, dims...)}
	return f
}

// at returns the file in another opset.
func (f file) at(opset int64) file {
	f.opsets = []message{opsetOf("", opset)}
	return f
}

// op returns a node; names are separated by spaces and "_" is none.
func op(kind, inputs, outputs string, attributes ...message) (n message) {
	for _, name := range strings.Fields(inputs) {
		n.string(1, strings.Trim(name, "_"))
	}
	for _, name := range strings.Fields(outputs) {
		n.string(2, strings.Trim(name, "_"))
	}
	n.string(4, kind)
	for _, a := range attributes {
		n.bytes(5, a)
	}
	return n
}

func opsetOf(domain string, version int64) (m message) {
	m.string(1, domain)
	m.int(2, version)
	return m
}

// declare returns a ValueInfoProto; a size is an int or a symbol.
func declare(name string, kind int64, dims ...any) (m message) {
	var shape, tensor, typ message
	for _, d := range dims {
		var dim message
		switch d := d.(type) {
		case int:
			dim.int(1, int64(d))
		case string:
			dim.string(2, d)
		}
		shape.bytes(1, dim)
	}
	tensor.int(1, kind)
	tensor.bytes(2, shape)
	typ.bytes(1, tensor)
	m.string(1, name)
	m.bytes(2, typ)
	return m
}

// header returns a TensorProto without data.
func header(name string, kind int64, dims ...int64) (m message) {
	for _, d := range dims {
		m.int(1, d)
	}
	m.int(2, kind)
	m.string(8, name)
	return m
}

// floats returns a float tensor whose elements are 1, 2, 3, ...
func floats(name string, dims ...int64) message {
	m := header(name, typeFloat, dims...)
	size := int64(1)
	for _, d := range dims {
		size *= d
	}
	var raw []byte
	for i := range size {
		raw = protowire.AppendFixed32(raw, math.Float32bits(float32(i+1)))
	}
	m.bytes(9, raw)
	return m
}

func int64s(name string, v ...int64) message {
	m := header(name, typeInt64, int64(len(v)))
	for _, x := range v {
		m.int(7, x)
	}
	return m
}

func tensorAttribute(name string, v message) (a message) {
	a.string(1, name)
	a.bytes(5, v)
	a.int(20, attributeTensor)
	return a
}

// cat concatenates messages.
func cat(m ...message) message { return slices.Concat(m...) }

// num returns a message of one integer field.
func num(n protowire.Number, v int64) (m message) { m.int(n, v); return m }

// sub returns a message of one length-delimited field.
func sub(n protowire.Number, v []byte) (m message) { m.bytes(n, v); return m }

// dense is a valid file of one dense layer.
func dense() file { return nodes(op("Gemm", "x w", "y")).with(floats("w", 4, 3)) }

// conv is a valid file of one convolution with the given attributes.
func conv(attributes ...message) file {
	return nodes(op("Conv", "x w", "y", attributes...)).with(floats("w", 2, 1, 3, 3)).on("N", 1, 5, 5)
}

// transposed is a ConvTranspose of a 1 x 5 x 5 map, by 2 x 3 x 3.
func transposed(attributes ...message) file {
	return nodes(op("ConvTranspose", "x w", "y", attributes...)).with(floats("w", 1, 2, 3, 3)).on("N", 1, 5, 5)
}

// resize is a Resize of a 1 x 5 x 5 map by the scales s.
func resize(output string, s message, attributes ...message) file {
	return nodes(op("Resize", "x _ s", output, attributes...)).with(s).on("N", 1, 5, 5)
}

// matrix is a tensor of rows of n integers.
func matrix(name string, n int64, v ...int64) (m message) {
	m.int(1, int64(len(v))/n)
	m.int(1, n)
	return cat(m, int64s(name, v...)[2:])
}

// values is a tensor of the given values.
func values(name string, v ...float32) message {
	m := header(name, typeFloat, int64(len(v)))
	var raw []byte
	for _, x := range v {
		raw = protowire.AppendFixed32(raw, math.Float32bits(x))
	}
	m.bytes(9, raw)
	return m
}

func pool(kind string, attributes ...message) file {
	return nodes(op(kind, "x", "y", append(attributes, intsAttribute("kernel_shape", 2, 2))...)).on("N", 1, 5, 5)
}

// view is a file that reshapes x by v, which n computes from x's shape s.
func view(n ...message) file {
	return nodes(slices.Concat([]message{op("Shape", "x", "s")}, n, []message{op("Reshape", "x v", "y")})...).on("N", 2, 3, 4).
		with(int64s("zero", 0), int64s("one", 1), int64s("two", 2), int64s("minus", -1), int64s("far", math.MaxInt64))
}

func TestFixturesAreValid(t *testing.T) {
	for i, f := range []file{dense(), conv(), pool("MaxPool"), pool("AveragePool"), nodes(op("Relu", "x", "y")), view(op("Slice", "s zero far", "v"))} {
		if _, err := Parse(f.bytes()); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// whole has a big matrix's shape and no data to it.
func whole(dims ...int64) file {
	return nodes(op("Gemm", "x w", "y")).with(header("w", typeFloat, dims...))
}

func TestParseRejects(t *testing.T) {
	nan := func(bits uint32) message {
		m := header("w", typeFloat, 4, 1)
		m.bytes(9, slices.Concat(make([]byte, 12), protowire.AppendFixed32(nil, bits)))
		return m
	}
	relu := op("Relu", "x", "y")
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		// Not ONNX.
		{"nothing", nil, ErrFormat},
		{"text", []byte("GIF89a and so on"), ErrFormat},
		{"a group", []byte{3<<3 | 3, 3<<3 | 4}, ErrFormat},
		{"nested groups", slices.Repeat([]byte{3<<3 | 3}, 1<<20), ErrFormat},
		{"field number 0", []byte{0, 0}, ErrFormat},
		{"endless varint", append([]byte{1 << 3}, slices.Repeat([]byte{0xff}, 20)...), ErrFormat},
		{"length past the end", []byte{7<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0x0f}, ErrFormat},
		{"length past 2^63", append([]byte{7<<3 | 2}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), ErrFormat},
		{"no graph", num(1, 8), ErrFormat},
		{"no IR version", sub(7, nil), ErrFormat},
		{"two graphs", file{nodes: []message{relu}, model: sub(7, nil)}.bytes(), ErrFormat},
		{"broken node", file{graph: sub(1, []byte{0x80})}.bytes(), ErrFormat},
		{"node of nothing", file{graph: sub(1, nil)}.bytes(), ErrFormat},
		{"attribute of nothing", nodes(cat(relu, sub(5, nil))).bytes(), ErrFormat},
		{"attribute by reference", nodes(cat(relu, sub(5, cat(intAttribute("a", 1), sub(21, []byte("b")))))).bytes(), ErrFormat},
		{"cut floats", dense().with(cat(header("v", typeFloat, 1), sub(4, make([]byte, 3)))).bytes(), ErrFormat},
		{"cut doubles", dense().with(cat(header("v", typeDouble, 1), sub(10, make([]byte, 7)))).bytes(), ErrFormat},
		{"cut integers", dense().with(cat(header("v", typeInt64, 1), sub(7, []byte{0x80}))).bytes(), ErrFormat},
		{"broken shape of the input", file{nodes: []message{relu}, inputs: []message{cat(sub(1, []byte("x")), sub(2, sub(1, sub(2, []byte{8}))))}}.bytes(), ErrFormat},

		// Names and order.
		{"no opset", file{nodes: []message{relu}, opsets: []message{opsetOf("other", 1)}}.bytes(), ErrInvalid},
		{"two opsets", file{nodes: []message{relu}, opsets: []message{opsetOf("", 13), opsetOf("ai.onnx", 13)}}.bytes(), ErrInvalid},
		{"no input", file{nodes: []message{relu}, inputs: []message{}}.bytes(), ErrInvalid},
		{"no output", file{nodes: []message{relu}, outputs: []message{}}.bytes(), ErrInvalid},
		{"undefined", nodes(op("Relu", "z", "y")).bytes(), ErrUndefined},
		{"undefined output", nodes(op("Relu", "x", "z")).bytes(), ErrUndefined},
		{"a loop", nodes(op("Relu", "y", "y")).bytes(), ErrUndefined},
		{"a cycle", nodes(op("Relu", "b", "a"), op("Relu", "a", "b"), op("Mul", "x b", "y")).bytes(), ErrUndefined},
		{"out of order", nodes(op("Relu", "a", "y"), op("Relu", "x", "a")).bytes(), ErrUndefined},
		{"output defined twice", nodes(relu, relu).bytes(), ErrInvalid},
		{"input defined again", nodes(op("Relu", "x", "x"), relu).bytes(), ErrInvalid},
		{"tensors of one name", dense().with(floats("w", 4, 3)).bytes(), ErrInvalid},
		{"tensor named like an output", dense().with(floats("y", 1)).bytes(), ErrInvalid},
		{"tensor without a name", dense().with(floats("", 1)).bytes(), ErrInvalid},
		{"input without a name", file{nodes: []message{relu}, inputs: []message{declare("", typeFloat, 1, 1)}}.bytes(), ErrInvalid},
		{"no output name", nodes(op("Relu", "x", "")).bytes(), ErrInvalid},
		{"empty output name", nodes(op("Relu", "x", "_")).bytes(), ErrInvalid},
		{"no operators", nodes(op("Identity", "x", "y")).bytes(), ErrInvalid},
		{"constant output", nodes(op("Constant", "", "y", floatAttribute("value_float", 1))).bytes(), ErrInvalid},
		{"unread input", nodes(op("Constant", "", "a", floatAttribute("value_float", 1)), op("Identity", "a", "y")).bytes(), ErrInvalid},

		// Nodes.
		{"missing input", nodes(op("Relu", "", "y")).bytes(), ErrInvalid},
		{"missing weights", nodes(op("Gemm", "x", "y")).bytes(), ErrInvalid},
		{"empty weights", nodes(op("Gemm", "x _", "y")).bytes(), ErrInvalid},
		{"too many inputs", nodes(op("Relu", "x x", "y")).bytes(), ErrInvalid},
		{"attribute twice", pool("MaxPool", intsAttribute("strides", 1, 1), intsAttribute("strides", 1, 1)).bytes(), ErrInvalid},
		{"attribute of another type", pool("MaxPool", intAttribute("strides", 1)).bytes(), ErrInvalid},
		{"map into Gemm", dense().on("N", 4, 1, 1).bytes(), ErrInvalid},
		{"vector into MaxPool", pool("MaxPool").on("N", 4).bytes(), ErrInvalid},
		{"vector into Conv", conv().on("N", 4).bytes(), ErrInvalid},
		{"Gemm of other sizes", dense().on("N", 5).bytes(), ErrInvalid},
		{"Conv of other channels", conv().on("N", 2, 5, 5).bytes(), ErrInvalid},
		{"Conv weights of rank 2", nodes(op("Conv", "x w", "y")).with(floats("w", 2, 2)).on("N", 2, 5, 5).bytes(), ErrInvalid},
		{"kernel_shape of other weights", conv(intsAttribute("kernel_shape", 2, 3)).bytes(), ErrInvalid},
		{"groups that do not divide", conv(intAttribute("group", 3)).bytes(), ErrInvalid},
		{"negative groups", conv(intAttribute("group", -1)).bytes(), ErrInvalid},
		{"groups by overflow", nodes(op("Conv", "x w", "y", intAttribute("group", math.MinInt64))).with(floats("w", 2, 2, 1, 1)).on("N", 4, 5, 5).bytes(), ErrInvalid},
		{"zero stride", conv(intsAttribute("strides", 0, 1)).bytes(), ErrInvalid},
		{"one stride", conv(intsAttribute("strides", 1)).bytes(), ErrInvalid},
		{"huge stride", conv(intsAttribute("strides", 1<<40, 1)).bytes(), ErrInvalid},
		{"negative dilation", conv(intsAttribute("dilations", 1, -1)).bytes(), ErrInvalid},
		{"huge dilation and SAME", nodes(op("Conv", "x w", "y", intsAttribute("dilations", math.MaxInt32, 1), stringAttribute("auto_pad", "SAME_UPPER"))).
			with(floats("w", 1, 1, 9, 1)).on("N", 1, 5, 5).bytes(), ErrInvalid},
		{"negative pads", conv(intsAttribute("pads", 0, -1, 0, 0)).bytes(), ErrInvalid},
		{"two pads", conv(intsAttribute("pads", 0, 1)).bytes(), ErrInvalid},
		{"huge pads", pool("MaxPool", intsAttribute("pads", math.MaxInt32, 0, math.MaxInt32, 0)).bytes(), ErrInvalid},
		{"pads and auto_pad", conv(intsAttribute("pads", 0, 1, 0, 0), stringAttribute("auto_pad", "VALID")).bytes(), ErrInvalid},
		{"unknown auto_pad", conv(stringAttribute("auto_pad", "SOME")).bytes(), ErrInvalid},
		{"kernel larger than the map", conv().on("N", 1, 2, 5).bytes(), ErrInvalid},
		{"no kernel_shape", nodes(op("MaxPool", "x", "y")).on("N", 1, 5, 5).bytes(), ErrInvalid},
		{"empty kernel_shape", nodes(op("MaxPool", "x", "y", intsAttribute("kernel_shape"))).on("N", 1, 5, 5).bytes(), ErrInvalid},
		{"bias of another length", nodes(op("Conv", "x w b", "y")).with(floats("w", 2, 1, 3, 3), floats("b", 3)).on("N", 1, 5, 5).bytes(), ErrInvalid},
		{"Reshape to other sizes", nodes(op("Reshape", "x s", "y")).with(int64s("s", 0, 5)).bytes(), ErrInvalid},
		{"Reshape to a negative size", nodes(op("Reshape", "x s", "y")).with(int64s("s", 0, -4)).bytes(), ErrInvalid},
		{"Reshape with two -1", nodes(op("Reshape", "x s", "y")).with(int64s("s", 0, -1, -1, 1)).bytes(), ErrInvalid},
		{"Reshape by overflow", nodes(op("Reshape", "x s", "y")).with(int64s("s", 0, 1<<62, 4, 4)).bytes(), ErrInvalid},
		{"Reshape of 0 beyond the rank", nodes(op("Reshape", "x s", "y")).with(int64s("s", 0, 4, 0, 1)).bytes(), ErrInvalid},
		{"Reshape by a long shape", nodes(op("Reshape", "x s", "y")).with(int64s("s", make([]int64, 100)...)).bytes(), ErrInvalid},
		{"Reshape of weights to other sizes", nodes(op("Reshape", "w s", "v"), op("Gemm", "x v", "y")).with(floats("w", 4, 3), int64s("s", 4, 4)).bytes(), ErrInvalid},
		{"Concat of two maps", nodes(op("MaxPool", "x", "a", intsAttribute("kernel_shape", 2, 2)), op("Concat", "x a", "y", intAttribute("axis", 1))).on("N", 1, 5, 5).bytes(), ErrInvalid},
		{"Concat of two ranks", nodes(op("Flatten", "x", "a"), op("Concat", "x a", "y", intAttribute("axis", 1))).on("N", 4, 1, 1).bytes(), ErrInvalid},
		{"Concat of nothing", nodes(op("Concat", "", "y", intAttribute("axis", 1))).bytes(), ErrInvalid},
		{"Concat without an axis", nodes(op("Concat", "x x", "y")).bytes(), ErrInvalid},
		{"Concat of too much", nodes(op("Concat", "x x x", "y", intAttribute("axis", 1))).on("N", 1<<30).bytes(), ErrInvalid},
		{"batch norm of other channels", nodes(op("BatchNormalization", "x b b b b", "y")).with(floats("b", 3)).bytes(), ErrInvalid},
		{"batch norm of a matrix", nodes(op("BatchNormalization", "x b b b b", "y")).with(floats("b", 2, 2)).bytes(), ErrInvalid},
		{"batch norm without a variance", nodes(op("BatchNormalization", "x b b b", "y")).with(floats("b", 4)).bytes(), ErrInvalid},
		{"negative variance", nodes(op("BatchNormalization", "x b b b b", "y", floatAttribute("epsilon", -9))).with(floats("b", 4)).bytes(), graph.ErrNotFinite},
		{"variance of 0", nodes(op("BatchNormalization", "x b b b b", "y", floatAttribute("epsilon", -1))).with(floats("b", 4)).bytes(), graph.ErrNotFinite},
		{"Div by 0", nodes(op("Sub", "x b", "a"), op("Div", "a c", "y")).with(floats("b", 4), cat(header("c", typeFloat, 1), sub(9, make([]byte, 4)))).bytes(), graph.ErrNotFinite},
		{"scales that overflow", nodes(slices.Concat([]message{op("Mul", "x b", "a0")}, muls(20), []message{op("Relu", "a20", "y")})...).with(floats("b", 4), cat(header("c", typeFloat), sub(9, []byte{0, 0, 0, 0x50}))).bytes(), graph.ErrNotFinite},
		{"bounds of NaN", nodes(op("Clip", "x w", "y")).with(cat(header("w", typeFloat), sub(9, []byte{0, 0, 0xc0, 0x7f}))).bytes(), graph.ErrNotFinite},
		{"two bounds in one", nodes(op("Clip", "x w", "y")).with(floats("w", 2)).bytes(), ErrInvalid},
		{"infinite slope", nodes(op("LeakyRelu", "x", "y", floatAttribute("alpha", float32(math.Inf(1))))).bytes(), graph.ErrNotFinite},
		{"vector into a global pool", nodes(op("GlobalMaxPool", "x", "y")).bytes(), ErrInvalid},
		{"sum of a vector's columns", nodes(op("ReduceSum", "x a", "y")).with(int64s("a", 2, 3)).bytes(), ErrInvalid},
		{"Squeeze of a map", nodes(op("Squeeze", "x", "y", intsAttribute("axes", 3, 2))).on("N", 1, 5, 5).bytes(), ErrInvalid},
		{"Squeeze of one sample's map", nodes(op("Squeeze", "x", "y", intsAttribute("axes", 0, 1))).on(1, 4).bytes(), ErrInvalid},
		{"Unsqueeze of one sample past the rank", nodes(op("Unsqueeze", "x", "y", intsAttribute("axes", 0, 7))).on(1, 4).bytes(), ErrInvalid},
		{"Squeeze of an axis twice", nodes(op("Squeeze", "x", "y", intsAttribute("axes", 3, -1))).on("N", 1, 5, 1).bytes(), ErrInvalid},
		{"Unsqueeze past the rank", nodes(op("Unsqueeze", "x", "y", intsAttribute("axes", 3))).bytes(), ErrInvalid},
		{"Transpose of another rank", nodes(op("Transpose", "x", "y", intsAttribute("perm", 0, 2, 1))).bytes(), ErrInvalid},
		{"Transpose by no permutation", nodes(op("Transpose", "x", "y", intsAttribute("perm", 0, 0))).bytes(), ErrInvalid},
		{"Transpose by far", nodes(op("Transpose", "x", "y", intsAttribute("perm", 0, math.MaxInt64))).bytes(), ErrInvalid},
		{"Slice of nothing", nodes(op("Slice", "x a b c", "y")).with(int64s("a", 2), int64s("b", 2), int64s("c", 1)).bytes(), ErrInvalid},
		{"Slice of an axis twice", nodes(op("Slice", "x a b c", "y")).with(int64s("a", 0, 0), int64s("b", 2, 2), int64s("c", 1, -1)).bytes(), ErrInvalid},
		{"Slice past the rank", nodes(op("Slice", "x a b c", "y")).with(int64s("a", 0), int64s("b", 2), int64s("c", 2)).bytes(), ErrInvalid},
		{"Slice of more ends", nodes(op("Slice", "x a b c", "y")).with(int64s("a", 0), int64s("b", 2, 2), int64s("c", 1)).bytes(), ErrInvalid},
		{"Gather past the end", nodes(op("Gather", "x i", "y", intAttribute("axis", 1))).with(int64s("i", 4)).bytes(), ErrInvalid},
		{"Split of more", nodes(op("Split", "x s", "y z", intAttribute("axis", 1))).with(int64s("s", 2, 3)).bytes(), ErrInvalid},
		{"Split of less", nodes(op("Split", "x s", "y z", intAttribute("axis", 1))).with(int64s("s", 2, 1)).bytes(), ErrInvalid},
		{"Split into more than there is", nodes(op("Split", "x", "y a b c d", intAttribute("axis", 1))).bytes(), ErrInvalid},
		{"Split by overflow", nodes(op("Split", "x s", "y z", intAttribute("axis", 1))).with(int64s("s", math.MaxInt64, math.MaxInt64)).bytes(), ErrInvalid},
		{"Pad of another rank", nodes(op("Pad", "x p", "y")).with(int64s("p", 0, 1)).bytes(), ErrInvalid},
		{"Pad of an axis twice", nodes(op("Pad", "x p _ a", "y")).with(int64s("p", 1, 1, 1, 1), int64s("a", 1, -1)).bytes(), ErrInvalid},
		{"Pad by overflow", nodes(op("Pad", "x p", "y")).with(int64s("p", 0, math.MaxInt64, 0, 0)).bytes(), ErrInvalid},
		{"Pad with too much", nodes(op("Pad", "x p", "y")).with(int64s("p", 0, 0, 1<<30, 1<<30, 0, 0, 0, 0)).on("N", 1, 5, 5).bytes(), ErrInvalid},
		{"Pad with NaN", nodes(op("Pad", "x p v", "y")).with(int64s("p", 0, 1, 0, 0), cat(header("v", typeFloat), sub(9, []byte{0, 0, 0xc0, 0x7f}))).bytes(), graph.ErrNotFinite},
		{"PRelu of NaN", nodes(op("PRelu", "x v", "y")).with(cat(header("v", typeFloat), sub(9, []byte{0, 0, 0xc0, 0x7f}))).bytes(), graph.ErrNotFinite},
		{"ConvTranspose of other channels", transposed().on("N", 2, 5, 5).bytes(), ErrInvalid},
		{"ConvTranspose in 2 groups", transposed(intAttribute("group", 2)).bytes(), ErrInvalid},
		{"ConvTranspose in no groups", transposed(intAttribute("group", 0)).bytes(), ErrInvalid},
		{"ConvTranspose to three extents", transposed(intsAttribute("output_shape", 7, 7, 7)).bytes(), ErrInvalid},
		{"ConvTranspose to less than nothing", transposed(intsAttribute("output_shape", -7, 7)).bytes(), ErrInvalid},
		{"ConvTranspose to the least", transposed(intsAttribute("output_shape", math.MinInt64, 7)).bytes(), ErrInvalid},
		{"ConvTranspose to nothing", transposed(intsAttribute("pads", 4, 0, 4, 0)).bytes(), ErrInvalid},
		{"ConvTranspose with huge pads", transposed(intsAttribute("pads", math.MaxInt32, 0, 0, 0)).bytes(), ErrInvalid},
		{"ConvTranspose with huge strides", transposed(intsAttribute("strides", math.MaxInt32, math.MaxInt32)).bytes(), ErrInvalid},
		{"ConvTranspose with strides of the file's size", transposed(intsAttribute("strides", 60, 1)).bytes(), ErrInvalid},
		{"ConvTranspose with a huge dilation", transposed(intsAttribute("dilations", math.MaxInt32, 1)).bytes(), ErrInvalid},
		{"ConvTranspose to more by less", transposed(intsAttribute("output_padding", -1, 0)).bytes(), ErrInvalid},
		{"ConvTranspose to more of three", transposed(intsAttribute("output_padding", 1, 1, 1)).bytes(), ErrInvalid},
		{"ConvTranspose to much more", transposed(intsAttribute("output_padding", 1<<40, 0)).bytes(), ErrInvalid},
		{"ConvTranspose with a bias of another length", nodes(op("ConvTranspose", "x w b", "y")).with(floats("w", 1, 2, 3, 3), floats("b", 3)).on("N", 1, 5, 5).bytes(), ErrInvalid},
		{"Resize by nothing", nodes(op("Resize", "x", "y")).on("N", 1, 5, 5).bytes(), ErrInvalid},
		{"Resize by two scales", resize("y", values("s", 2, 2)).bytes(), ErrInvalid},
		{"Resize by a matrix", resize("y", floats("s", 2, 2)).bytes(), ErrInvalid},
		{"Resize to nothing", resize("y", values("s", 1, 1, 0.1, 1)).bytes(), ErrInvalid},
		{"Resize by less than nothing", resize("y", values("s", 1, 1, -2, 1)).bytes(), ErrInvalid},
		{"Resize by NaN", resize("y", values("s", 1, 1, float32(math.NaN()), 1)).bytes(), ErrInvalid},
		{"Resize by infinity", resize("y", values("s", 1, 1, float32(math.Inf(1)), 1)).bytes(), ErrInvalid},
		{"Resize to too much", resize("y", values("s", 1, 1, 1e5, 1e5)).bytes(), ErrInvalid},
		{"Resize of an axis twice", resize("y", values("s", 2, 2), intsAttribute("axes", 2, -2)).at(18).bytes(), ErrInvalid},
		{"Resize past the rank", resize("y", values("s", 2), intsAttribute("axes", 4)).at(18).bytes(), ErrInvalid},
		{"GatherND past the end", nodes(op("Transpose", "x", "a", intsAttribute("perm", 1, 0)), op("GatherND", "a i", "b"), op("Transpose", "b", "y", intsAttribute("perm", 1, 0))).with(matrix("i", 1, 4)).bytes(), ErrInvalid},
		{"Tile of more rank", nodes(op("Tile", "x r", "y")).with(int64s("r", 1, 1, 2)).bytes(), ErrInvalid},
		{"Tile to nothing", nodes(op("Tile", "x r", "y")).with(int64s("r", 1, 0)).bytes(), ErrInvalid},
		{"Tile of the file's size", nodes(op("Tile", "x r", "y")).with(int64s("r", 1, 1<<20)).bytes(), ErrInvalid},
		{"Squeeze of what is split", nodes(op("Unsqueeze", "x", "a", intsAttribute("axes", 2, 3)), op("Squeeze", "a", "y", intsAttribute("axes", 1))).on("N", 4, 1, 1).bytes(), ErrInvalid},
		{"dilated past the map", pool("MaxPool", intsAttribute("dilations", 5, 1)).bytes(), ErrInvalid},
		{"a window of no channels", nodes(op("LRN", "x", "y", intAttribute("size", 0))).bytes(), ErrInvalid},
		{"Pad to nothing", nodes(op("Pad", "x p", "y")).with(int64s("p", 0, -2, 0, -2)).bytes(), ErrInvalid},
		{"edges of the file's size", nodes(op("Pad", "x p", "y", stringAttribute("mode", "edge"))).with(int64s("p", 0, 0, 0, 1<<20)).bytes(), ErrInvalid},
		{"Slice backwards of nothing", nodes(op("Slice", "x a b c d", "y")).with(int64s("a", 0), int64s("b", -1), int64s("c", 1), int64s("d", -1)).bytes(), ErrInvalid},
		{"Slice backwards of much", nodes(op("Slice", "x a b c d", "y")).on("N", 1<<30).with(int64s("a", -1), int64s("b", -1<<40), int64s("c", 1), int64s("d", -1)).bytes(), ErrInvalid},
		{"instance norm of a vector", nodes(op("InstanceNormalization", "x b b", "y")).with(floats("b", 4)).bytes(), ErrInvalid},
		{"instance norm of other channels", nodes(op("InstanceNormalization", "x b b", "y")).with(floats("b", 4)).on("N", 1, 5, 5).bytes(), ErrInvalid},
		{"groups of no channels", nodes(op("GroupNormalization", "x b b", "y", intAttribute("num_groups", 0))).with(floats("b", 4)).bytes(), ErrInvalid},
		{"groups that do not divide channels", nodes(op("GroupNormalization", "x b b", "y", intAttribute("num_groups", 3))).with(floats("b", 4)).bytes(), ErrInvalid},
		{"constant repeated too often", nodes(op("Reshape", "x s", "a"), op("Add", "a b", "c"), op("Flatten", "c", "y")).with(int64s("s", 0, 2, 1<<27, 1, 1), floats("b", 2, 1, 1, 1)).on("N", 1<<28).bytes(), ErrInvalid},
		{"tokens of too many elements", nodes(op("Shape", "x", "n"), op("Gather", "n i", "m"), op("Concat", "m c", "s", intAttribute("axis", 0)), op("Expand", "b s", "t"), op("Concat", "t x", "y", intAttribute("axis", 1))).
			with(int64s("i", 0), int64s("c", 1), floats("b", 1, 1)).on("N", 1<<28).bytes(), ErrInvalid},
		{"products of unlike lengths", nodes(op("MatMul", "x x", "y")).on("N", 2, 4, 5).bytes(), ErrInvalid},
		{"products past the rank", nodes(op("Softmax", "x", "a", intAttribute("axis", -3)), op("MatMul", "a x", "y")).on("N", 4).bytes(), ErrInvalid},
		{"a size by nothing", nodes(op("Shape", "x", "s"), op("Mod", "s z", "v"), op("Reshape", "x v", "y")).with(int64s("z", 0)).bytes(), ErrInvalid},
		{"a number by nothing", nodes(op("Sqrt", "b", "a"), op("Pow", "a", "c"), op("Add", "x c", "y")).with(floats("b", 1)).bytes(), ErrInvalid},
		{"layer norm past the rank", nodes(op("LayerNormalization", "x b", "y", intAttribute("axis", 2))).with(floats("b", 4)).bytes(), ErrInvalid},
		{"unknown Gelu", nodes(op("Gelu", "x", "y", stringAttribute("approximate", "some"))).bytes(), ErrInvalid},
		{"a shape as output", nodes(op("Shape", "x", "y")).bytes(), ErrInvalid},
		{"size beyond the shape", view(op("Gather", "s far", "v")).bytes(), ErrInvalid},
		{"size before the shape", view(op("Mul", "two minus", "a"), op("Mul", "a two", "b"), op("Mul", "b two", "c"), op("Gather", "s c", "v")).bytes(), ErrInvalid},
		{"sizes along axis 1", view(op("Gather", "s zero", "v", intAttribute("axis", 1))).bytes(), ErrInvalid},
		{"slice of two axes", view(op("Slice", "s pair pair", "v")).with(int64s("pair", 0, 1)).bytes(), ErrInvalid},
		{"slice along no axis", view(op("Slice", "s zero far none", "v")).with(int64s("none")).bytes(), ErrInvalid},
		{"slice by no step", view(op("Slice", "s zero far zero none", "v")).with(int64s("none")).bytes(), ErrInvalid},
		{"slice past the rank", view(op("Slice", "s zero far one", "v")).bytes(), ErrInvalid},
		{"slice without an end", view(op("Slice", "s zero", "v")).bytes(), ErrInvalid},
		{"a size of a size", view(op("Squeeze", "two zero", "a"), op("Gather", "a zero", "v")).bytes(), ErrInvalid},
		{"Concat of single sizes", view(op("Squeeze", "two zero", "a"), op("Concat", "a a", "v", intAttribute("axis", 0))).bytes(), ErrInvalid},
		{"Concat of sizes along axis 1", view(op("Concat", "s s", "v", intAttribute("axis", 1))).bytes(), ErrInvalid},
		{"a shape of 20", view(op("Concat", "s s s s s", "v", intAttribute("axis", 0))).bytes(), ErrInvalid},
		{"division by 0", view(op("Div", "two zero", "v")).bytes(), ErrInvalid},
		{"rest by 0", view(op("Mod", "two zero", "v")).bytes(), ErrInvalid},
		{"sizes by overflow", view(op("Mul", "far two", "v")).bytes(), ErrInvalid},
		{"unlike sizes", view(op("Slice", "s one far", "a"), op("Concat", "two two", "b", intAttribute("axis", 0)), op("Add", "a b", "v")).bytes(), ErrInvalid},
		{"no sizes", view(op("Slice", "s two one", "a"), op("Add", "a two", "v")).bytes(), ErrInvalid},
		{"Constant without a value", nodes(op("Constant", "", "a"), relu).bytes(), ErrInvalid},
		{"Constant of two", nodes(op("Constant", "", "a", floatAttribute("value_float", 1), intAttribute("value_int", 1)), relu).bytes(), ErrInvalid},
		{"Constant of no tensor", nodes(op("Constant", "", "a", cat(sub(1, []byte("value")), num(20, attributeTensor))), relu).bytes(), ErrInvalid},

		// Tensors.
		{"external data by location", dense().with(cat(header("v", typeFloat, 1), num(14, 1))).bytes(), ErrExternalData},
		{"external data by entries", dense().with(cat(header("v", typeFloat, 1), sub(13, nil))).bytes(), ErrExternalData},
		{"external data of a Constant", nodes(op("Constant", "", "a", tensorAttribute("value", num(14, 1))), relu).bytes(), ErrExternalData},
		{"segments", dense().with(cat(header("v", typeFloat, 1), sub(3, nil))).bytes(), ErrInvalid},
		{"rank 17", dense().with(floats("v", slices.Repeat([]int64{1}, 17)...)).bytes(), ErrInvalid},
		{"no data", whole(4, 3).bytes(), ErrInvalid},
		{"no data for much", whole(4, 1<<28).bytes(), ErrInvalid},
		{"overflow to 0", whole(1<<32, 1<<32).bytes(), ErrInvalid},
		{"overflow to 4", whole(1<<62+1, 4).bytes(), ErrInvalid},
		{"negative sizes", whole(-4, -3).bytes(), ErrInvalid},
		{"no elements", whole(4, 0).bytes(), ErrInvalid},
		{"less data", nodes(op("Gemm", "x w", "y")).with(cat(header("w", typeFloat, 4, 3), sub(9, make([]byte, 47)))).bytes(), ErrInvalid},
		{"more data", nodes(op("Gemm", "x w", "y")).with(cat(header("w", typeFloat, 4, 3), sub(9, make([]byte, 52)))).bytes(), ErrInvalid},
		{"more typed data", nodes(op("Gemm", "x w", "y")).with(cat(header("w", typeFloat, 4, 3), sub(4, make([]byte, 52)))).bytes(), ErrInvalid},
		{"data twice", nodes(op("Gemm", "x w", "y")).with(cat(floats("w", 4, 3), sub(4, make([]byte, 48)))).bytes(), ErrInvalid},
		{"data of another type", nodes(op("Gemm", "x w", "y")).with(cat(header("w", typeDouble, 4, 3), sub(4, make([]byte, 48)))).bytes(), ErrInvalid},
		{"NaN weight", nodes(op("Gemm", "x w", "y")).with(nan(0x7fc00000)).bytes(), graph.ErrNotFinite},
		{"signalling NaN weight", nodes(op("Gemm", "x w", "y")).with(nan(0xff800001)).bytes(), graph.ErrNotFinite},
		{"infinite weight", nodes(op("Gemm", "x w", "y")).with(nan(0xff800000)).bytes(), graph.ErrNotFinite},
		{"infinite bias", nodes(op("Gemm", "x v b", "y")).with(floats("v", 4, 4), cat(header("b", typeFloat, 1), sub(9, []byte{0, 0, 0x80, 0x7f}))).bytes(), graph.ErrNotFinite},
		{"weights that alpha makes infinite", nodes(op("Gemm", "x w", "y", floatAttribute("alpha", 3e38))).with(floats("w", 4, 3)).bytes(), graph.ErrNotFinite},
		{"double out of range", nodes(op("Gemm", "x w", "y")).with(cat(header("w", typeDouble, 4, 1), sub(10, slices.Repeat(protowire.AppendFixed64(nil, math.Float64bits(1e39)), 4)))).bytes(), graph.ErrNotFinite},
		{"contraction of 65,537", nodes(op("Gemm", "x w", "y")).with(floats("w", 1<<16+1, 1)).on("N", 1<<16+1).bytes(), ErrInvalid},

		// The input.
		{"negative size", nodes(relu).on("N", -4).bytes(), ErrInvalid},
		{"negative batch", nodes(relu).on(-1, 4).bytes(), ErrInvalid},
		{"input by overflow", nodes(relu).on("N", 1<<32, 1<<32, 1).bytes(), ErrInvalid},
	} {
		g, err := Parse(c.b)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, g, err, c.want)
		}
		checkTyped(t, c.name, err)
	}
}

// checkTyped checks that err is of exactly one of the kinds that Parse promises.
func checkTyped(t testing.TB, name string, err error) {
	t.Helper()
	var u *UnsupportedError
	kinds := 0
	for _, is := range []bool{errors.Is(err, ErrFormat), errors.Is(err, ErrInvalid), errors.As(err, &u)} {
		if is {
			kinds++
		}
	}
	if kinds != 1 || errors.Is(err, errSkip) {
		t.Errorf("%s: error of no or several kinds: %v", name, err)
	}
}

// TestSamplesKept: axes that name the samples, of which nothing is done, are fine.
func TestSamplesKept(t *testing.T) {
	for _, axis := range []int64{0, -2} {
		b := nodes(op("Pad", "x p _ a", "y")).with(int64s("p", 0, 1, 0, 2), int64s("a", axis, 1)).bytes()
		g, err := Parse(b)
		if err != nil {
			t.Errorf("axis %d: %v", axis, err)
			continue
		}
		shapes, err := g.Shapes()
		if err != nil || shapes[len(shapes)-1].Len() != g.Input.Len()+3 {
			t.Errorf("axis %d: %v, %v", axis, shapes, err)
		}
	}
}

// text returns a network of ids and of a mask of bools, with a table of 3 rows.
func text(nodes ...message) file {
	infinite := make([]byte, 16) // 2 x 2, of which one is infinite
	binary.LittleEndian.PutUint32(infinite[4:], math.Float32bits(float32(math.Inf(-1))))
	return file{
		nodes:   nodes,
		inputs:  []message{declare("ids", typeInt64, "N", 2), declare("mask", typeBool, "N", 2)},
		tensors: []message{floats("table", 3, 2), int64s("two", 2), int64s("zero", 0), int64s("one", 1), cat(header("inf", typeFloat, 2, 2), sub(9, infinite))},
	}
}

func TestParseUnsupported(t *testing.T) {
	x4 := []any{"N", 1, 5, 5}
	relu := op("Relu", "x", "y")
	graphAttribute := cat(sub(1, []byte("body")), sub(6, file{}.bytes()), num(20, 5))
	foreign := cat(op("FusedConv", "x", "y"), sub(7, []byte("com.example")))
	for name, c := range map[string]struct {
		f    file
		want []string
	}{
		"all at once": {nodes(
			op("Det", "x", "a"), op("AveragePool", "a", "b", intsAttribute("dilations", 2, 2), intsAttribute("kernel_shape", 2, 2)),
			op("Det", "b", "c"), op("Gemm", "c c", "d", intAttribute("transA", 1)), op("Einsum", "d", "y")),
			[]string{"AveragePool(dilations)", "Det", "Einsum", "Gemm(transA=1)"}},
		"dilated means":            {pool("AveragePool", intsAttribute("dilations", 1, 2)), []string{"AveragePool(dilations)"}},
		"dilated, rounded up":      {pool("MaxPool", intsAttribute("dilations", 1, 2), intAttribute("ceil_mode", 1)), []string{"MaxPool(dilations)"}},
		"dilated, padded to same":  {pool("MaxPool", intsAttribute("dilations", 2, 2), stringAttribute("auto_pad", "SAME_UPPER")), []string{"MaxPool(dilations)"}},
		"windows apart":            {nodes(op("MaxPool", "x", "y", intsAttribute("kernel_shape", 1, 1), intsAttribute("strides", 3, 3), stringAttribute("auto_pad", "SAME_UPPER"))).on("N", 1, 9, 9), []string{"MaxPool(auto_pad=SAME_UPPER of negative padding)"}},
		"kernels apart":            {nodes(op("Conv", "x w", "y", intsAttribute("strides", 1, 4), stringAttribute("auto_pad", "SAME_LOWER"))).with(floats("w", 1, 1, 1, 1)).on("N", 1, 9, 8), []string{"Conv(auto_pad=SAME_LOWER of negative padding)"}},
		"dilated and long":         {nodes(op("MaxPool", "x", "y", intsAttribute("kernel_shape", 1, 8), intsAttribute("dilations", 1, 2))).on("N", 1, 5, 50), []string{"MaxPool(dilations)"}},
		"channels around of -1":    {nodes(op("LRN", "x", "y", intAttribute("size", 3), floatAttribute("bias", -1))), []string{"LRN(bias=-1)"}},
		"comparison as output":     {nodes(op("Greater", "x b", "y")).with(floats("b", 1)), []string{"output of a comparison"}},
		"comparison computed":      {nodes(op("Greater", "x b", "a"), op("Flatten", "a", "b2"), op("Relu", "a", "y")).with(floats("b", 1)), []string{"Relu(of a comparison)"}},
		"ids that are computed":    {text(op("Mul", "ids ids", "a"), op("Gather", "table a", "y")), []string{"Mul(of integers of more than 16777216)"}},
		"ids before a large one":   {text(op("Less", "ids far", "a"), op("Cast", "a", "y", intAttribute("to", typeFloat))).with(int64s("far", graph.MaxInteger+1)), []string{"Less(of integers of more than 16777216)"}},
		"ids beside large ones":    {text(op("Equal", "ids far", "a"), op("Cast", "a", "y", intAttribute("to", typeFloat))).with(int64s("far", 1, -graph.MaxInteger-1)), []string{"Equal(of integers of more than 16777216)"}},
		"ids by the least integer": {text(op("Mul", "ids far", "a"), op("Cast", "a", "y", intAttribute("to", typeFloat))).with(int64s("far", math.MinInt64)), []string{"Mul(of integers of more than 16777216)"}},
		"ids past their table":     {text(op("Cast", "mask", "a", intAttribute("to", typeInt64)), op("Add", "a two", "b"), op("Gather", "table b", "y")), []string{"Gather(of 3 rows by integers of 2 to 3)"}},
		"ids that are floats":      {text(op("Cast", "ids", "a", intAttribute("to", typeFloat)), op("Gather", "table a", "y")), []string{"Gather(by what are no integers)"}},
		"ids behind a constant":    {text(op("Concat", "first ids", "a", intAttribute("axis", 1)), op("Gather", "table a", "y")).with(matrix("first", 1, 1)), []string{"Concat(of constants other than floats and values)"}},
		"columns of a table":       {text(op("Gather", "table ids", "y", intAttribute("axis", 1))), []string{"Gather(by an input, of axis 1 of rank 2)"}},
		"infinities compared":      {text(op("Gather", "table ids", "a"), op("Add", "a inf", "b"), op("Less", "b a", "c"), op("Where", "c a a", "y")), []string{"Less(of infinities)"}},
		"infinities multiplied":    {text(op("Gather", "table ids", "a"), op("Add", "a inf", "b"), op("Add", "b b", "d"), op("Mul", "d d", "y")), []string{"Mul(of infinities)"}},
		"infinities in a layer":    {text(op("Gather", "table ids", "a"), op("Add", "a inf", "b"), op("MatMul", "b inf", "y")), []string{"MatMul(of infinities)"}},
		"infinities as a result":   {text(op("Gather", "table ids", "a"), op("Add", "a inf", "y")), []string{"output of infinities"}},
		"no softmax that is NaN":   {text(op("Gather", "table ids", "a"), op("IsNaN", "a", "b"), op("Where", "b a a", "y")), []string{"IsNaN(of what is no softmax)"}},
		"power by sample":          {text(op("Shape", "ids", "s"), op("Gather", "s zero", "n"), op("Squeeze", "n", "m"), op("Range", "zero m one", "r"), op("Unsqueeze", "r one", "e"), op("Pow", "half e", "h"), op("Gather", "table ids", "g"), op("ReduceSum", "g two", "a", intAttribute("keepdims", 0)), op("Mul", "a h", "y")).with(values("half", 0.5)), []string{"Pow(of what is expanded)"}},
		"numbers of samples":       {text(op("Shape", "ids", "s"), op("Gather", "s zero", "n"), op("Squeeze", "n", "m"), op("Range", "zero m one", "r"), op("Gather", "table r", "y")), []string{"Gather(element type 1)"}},
		"another sample's mask":    {text(op("Shape", "ids", "s"), op("Gather", "s zero", "n"), op("Squeeze", "n", "m"), op("Range", "zero m one", "r"), op("Add", "r one", "q"), op("Gather", "mask q", "a"), op("Gather", "table ids", "b"), op("Where", "a b b", "y")), []string{"Gather(across samples)"}},
		"inputs of two batches":    {file{nodes: []message{relu}, inputs: []message{declare("x", 1, 2, 4), declare("z", 1, 3, 4)}}, []string{"inputs of unlike batches"}},
		"comparison to integers":   {nodes(op("Greater", "x b", "a"), op("Cast", "a", "y", intAttribute("to", typeInt64))).with(floats("b", 1)), []string{"output of integers"}},
		"chosen integers divided":  {nodes(op("Greater", "x b", "a"), op("Where", "a seven one", "c"), op("Where", "a two one", "d"), op("Div", "c d", "e"), op("Cast", "e", "y", intAttribute("to", typeFloat))).with(floats("b", 1), int64s("seven", 7), int64s("one", 1), int64s("two", 2)), []string{"Div(of integers)"}},
		"chosen ids past a table":  {nodes(op("Greater", "x b", "a"), op("Where", "a seven one", "c"), op("Gather", "table c", "y")).with(floats("b", 1), floats("table", 7, 2), int64s("seven", 7), int64s("one", 1)), []string{"Gather(of 7 rows by integers of 1 to 7)"}},
		"comparison of numbers":    {nodes(op("Greater", "b b", "a"), op("Where", "a x x", "y")).with(floats("b", 1)), []string{"Where(by a constant, of two values)"}},
		"comparison of lengths":    {nodes(op("Gemm", "x w", "a"), op("Less", "a x", "b"), op("Where", "b x x", "y")).with(floats("w", 4, 3)), []string{"Less(values of unlike shapes)"}},
		"Where of a value":         {nodes(op("Where", "x x x", "y")), []string{"Where(of what is no comparison)"}},
		"Where of comparisons":     {nodes(op("Greater", "x b", "a"), op("Where", "a a x", "y")).with(floats("b", 1)), []string{"Where(of a comparison)"}},
		"Where of many numbers":    {nodes(op("Greater", "x b", "a"), op("Where", "a x b4", "y")).with(floats("b", 1), floats("b4", 4)), []string{"Where(constant of more than one number)"}},
		"Where of lengths":         {nodes(op("Gemm", "x w", "c"), op("Greater", "x b", "a"), op("Where", "a c x", "y")).with(floats("b", 1), floats("w", 4, 3)), []string{"Where(values of unlike shapes)"}},
		"Or of values":             {nodes(op("Or", "x x", "y")), []string{"Or(of what is no comparison)"}},
		"Tile of samples":          {nodes(op("Tile", "x r", "y")).with(int64s("r", 2, 1)), []string{"Tile(across samples)"}},
		"samples turned":           {nodes(op("Transpose", "x", "a"), op("Sign", "a", "y")), []string{"Sign(across samples)"}},
		"GatherND of samples":      {nodes(op("GatherND", "x i", "y")).with(matrix("i", 1, 0)), []string{"GatherND(across samples)"}},
		"GatherND of samples too":  {nodes(op("Transpose", "x", "a"), op("GatherND", "a i", "y")).with(matrix("i", 2, 0, 0)), []string{"GatherND(by indices of shape [1 2])"}},
		"GatherND of no grid":      {nodes(op("Transpose", "x", "a", intsAttribute("perm", 2, 3, 0, 1)), op("GatherND", "a i", "y")).with(matrix("i", 2, 0, 0, 1, 1)).on(x4...), []string{"GatherND(of no grid)"}},
		"GatherND by batches":      {nodes(op("GatherND", "x i", "y", intAttribute("batch_dims", 1))).with(matrix("i", 1, 0)), []string{"GatherND(batch_dims=1)"}},
		"length of a split":        {nodes(op("Reshape", "x s", "a"), op("ReduceL2", "a", "y", intsAttribute("axes", 0))).with(int64s("s", 0, 2, 2, 1, 1)), []string{"ReduceL2(across samples)"}},
		"another domain":           {nodes(foreign), []string{"com.example.FusedConv"}},
		"a subgraph":               {nodes(op("If", "x", "y", graphAttribute)), []string{"If"}},
		"a stray subgraph":         {nodes(op("Relu", "x", "y", graphAttribute)), []string{"Relu(body)"}},
		"an odd name":              {nodes(op("Re\nlu", "x", "y")), []string{`"Re\nlu"`}},
		"a long name":              {nodes(op(strings.Repeat("a", 1000), "x", "y")), []string{strings.Repeat("a", 64)}},
		"unused first output":      {nodes(op("Det", "x", "_ y")), []string{"Det"}},
		"old opset":                {nodes(relu).at(6), []string{"opset 6"}},
		"opset of the future":      {nodes(relu).at(maxOpset + 1), []string{fmt.Sprint("opset ", maxOpset+1)}},
		"functions":                {file{nodes: []message{relu}, model: sub(25, nil)}, []string{"model-local functions"}},
		"sparse weights":           {file{nodes: []message{relu}, graph: sub(15, nil)}, []string{"sparse initializers"}},
		"two outputs, of integers": {file{nodes: []message{relu, op("ArgMax", "x", "z")}, outputs: []message{declare("z", 7), declare("z", 7)}}, []string{"ArgMax"}},
		"two outputs, one across":  {file{nodes: []message{op("Flatten", "x", "y", intAttribute("axis", 0)), op("Relu", "x", "z")}, outputs: []message{declare("y", 1), declare("z", 1)}}, []string{"output across samples"}},
		"integer input":            {file{nodes: []message{relu}, inputs: []message{declare("x", typeInt64, "N", 4)}}, []string{"Relu(of integers)"}},
		"symbolic input":           {nodes(relu).on("N", 3, "H", "W"), []string{"input of symbolic size H (--size H=N fixes it)", "input of symbolic size W (--size W=N fixes it)"}},
		"input of rank 0":          {nodes(relu).on(), []string{"input of rank 0"}},
		"3-D conv":                 {nodes(op("Conv", "x w", "y")).with(floats("w", 2, 1, 3, 3, 3)).on("N", 1, 9, 9, 9), []string{"Conv(3-D)", "input of rank 5"}},
		"indices":                  {nodes(op("MaxPool", "x", "a i", intsAttribute("kernel_shape", 2, 2)), op("Mul", "i i", "y")).on(x4...), []string{"MaxPool(output 1)"}},
		"indices as output": {file{nodes: []message{op("MaxPool", "x", "a y", intsAttribute("kernel_shape", 2, 2))},
			inputs: []message{declare("x", 1, x4...)}}, []string{"MaxPool(output 1)"}},
		"weights computed":     {nodes(op("Relu", "x", "a"), op("MatMul", "x a", "y")), []string{"MatMul(values of ranks 2 and 2)"}},
		"MatMul from the left": {nodes(op("MatMul", "w x", "y")).with(floats("w", 3, 4)), []string{"MatMul(constant input 0)"}},
		"MatMul by a vector":   {nodes(op("MatMul", "x w", "y")).with(floats("w", 4)), []string{"MatMul(weights of rank 1)"}},
		"bias a sample":        {nodes(op("Gemm", "x w b", "y")).with(floats("w", 4, 3), floats("b", 2, 3)), []string{"Gemm(constant not of one value a channel)"}},
		"bias of more rank":    {nodes(op("Gemm", "x w", "a"), op("Add", "a b", "y")).with(floats("w", 4, 3), floats("b", 1, 1, 3)), []string{"Add(constant not of one value a channel)"}},
		"Add of two lengths":   {nodes(op("Gemm", "x w", "a"), op("Add", "a x", "y")).with(floats("w", 4, 3)), []string{"Add(values of unlike shapes)"}},
		"Add of two ranks":     {nodes(op("Flatten", "x", "a"), op("Add", "x a", "y")).on("N", 4, 1, 1), []string{"Add(values of unlike ranks)"}},
		"Add of constants":     {nodes(op("Add", "b b", "c"), op("Gemm", "x c", "y")).with(floats("b", 4)), []string{"Gemm(weights of rank 1)"}},
		"Add of two images":    {nodes(op("Add", "x b", "y")).with(floats("b", 2, 1, 5, 5)).on(x4...), []string{"Add(constant for each sample)"}},
		"Add of less":          {nodes(op("Add", "x b", "y")).with(floats("b", 5, 4)).on(x4...), []string{"Add(constant of another shape)"}},
		"Add of more rank":     {nodes(op("Add", "x b", "y")).with(floats("b", 2, 1, 1, 5, 5)).on(x4...), []string{"Add(constant of more dimensions)"}},
		"product of two ranks": {nodes(op("Reshape", "x s", "a"), op("MatMul", "x a", "y")).with(int64s("s", 0, 1, 5, 5, 1)).on(x4...), []string{"MatMul(values of ranks 4 and 5)"}},
		"product of unlikes":   {nodes(op("GlobalMaxPool", "x", "a"), op("Transpose", "x", "b", intsAttribute("perm", 0, 2, 1, 3)), op("MatMul", "b a", "y")).on(x4...), []string{"MatMul(values of unlike shapes)"}},
		"product over samples": {nodes(op("Transpose", "x", "a", intsAttribute("perm", 2, 1, 0, 3)), op("MatMul", "a a", "y")).on(x4...), []string{"MatMul(across samples)"}},
		"product beside another's samples": {nodes(op("Transpose", "x", "a", intsAttribute("perm", 1, 0, 2, 3)), op("Reshape", "a s", "b"), op("Reshape", "x s", "c"), op("MatMul", "b c", "y")).with(int64s("s", -1, 5, 5)).on("N", 2, 5, 5),
			[]string{"MatMul(across samples)"}},
		"sum beside another's samples": {nodes(op("Transpose", "x", "a", intsAttribute("perm", 1, 0, 2, 3)), op("Reshape", "a s", "b"), op("Reshape", "x s", "c"), op("Add", "b c", "y")).with(int64s("s", -1, 5, 5)).on("N", 2, 5, 5),
			[]string{"Add(values of unlike shapes)"}},
		"Conv of samples apart":  {nodes(op("Transpose", "x", "a", intsAttribute("perm", 1, 0, 2, 3)), op("Conv", "a w", "y")).with(floats("w", 1, 1, 1, 1)).on(x4...), []string{"Conv(across samples)"}},
		"Gemm over samples":      {nodes(op("Transpose", "x", "a"), op("Gemm", "a w", "y")).with(floats("w", 4, 3)), []string{"Gemm(across samples)"}},
		"layer norm of samples":  {nodes(op("Transpose", "x", "a"), op("LayerNormalization", "a s", "y")).with(floats("s", 4)), []string{"LayerNormalization(across samples)"}},
		"where of floats":        {nodes(op("Where", "x x x", "y")), []string{"Where(of what is no comparison)"}},
		"remainder":              {nodes(op("Mod", "x b", "y")).with(floats("b", 4)), []string{"Mod(input 0 not constant)"}},
		"token for some samples": {nodes(op("Expand", "b s", "t"), op("Concat", "t x", "y", intAttribute("axis", 1))).with(floats("b", 1, 4), int64s("s", 2, 4)), []string{"Concat(constant input 0)"}},
		"token made wide":        {view(op("Gather", "s zero", "n"), op("Concat", "n two", "m", intAttribute("axis", 0)), op("Expand", "w m", "t"), op("Relu", "t", "v")).with(floats("w", 1, 1)), []string{"Relu(of what is expanded)"}},
		"half the batch":         {view(op("Gather", "s zero", "n"), op("Div", "n two", "m"), op("Concat", "m minus", "v", intAttribute("axis", 0))), []string{"Div(of the batch's size)"}},
		"Add of the batch":       {nodes(op("Shape", "x", "s"), op("Add", "x s", "y")), []string{"Add(input 1 not constant)"}},
		"Mul of two ranks":       {nodes(op("Flatten", "x", "a"), op("Mul", "x a", "y")).on("N", 4, 1, 1), []string{"Mul(values of unlike ranks)"}},
		"batch norm in training": {nodes(op("BatchNormalization", "x b b b b", "y", intAttribute("training_mode", 1), intAttribute("spatial", 0))).with(floats("b", 4)),
			[]string{"BatchNormalization(spatial=0)", "BatchNormalization(training_mode=1)"}},
		"batch norm computed":       {nodes(op("BatchNormalization", "x x x x x", "y")), []string{"BatchNormalization(input 1 not constant)"}},
		"running mean":              {nodes(op("BatchNormalization", "x b b b b", "a m"), op("Add", "a m", "y")).with(floats("b", 4)), []string{"BatchNormalization(output 1)"}},
		"Clip to computed":          {nodes(op("Clip", "x x", "y")), []string{"Clip(input 1 not constant)"}},
		"Concat of samples":         {nodes(op("Concat", "x x", "y", intAttribute("axis", 0))), []string{"Concat(across samples)"}},
		"Concat of a constant":      {nodes(op("Concat", "x b", "y", intAttribute("axis", 1))).with(floats("b", 1, 4)), []string{"Concat(constant input 1)"}},
		"mean of all":               {nodes(op("ReduceMean", "x", "y")).on(x4...), []string{"ReduceMean(across samples)"}},
		"Squeeze of all":            {nodes(op("Squeeze", "x", "y")).on("N", 4, 1, 1), []string{"Squeeze(axes=[])"}},
		"Unsqueeze to rank 9":       {nodes(op("Unsqueeze", "x", "y", intsAttribute("axes", 2, 3, 4, 5, 6))).on("N", 4, 1, 1), []string{"Unsqueeze(to rank 9)"}},
		"Cast to half":              {nodes(op("Cast", "x", "y", intAttribute("to", 10))), []string{"Cast(to=10)"}},
		"Pow":                       {nodes(op("Pow", "x e", "y")).with(int64s("e", 4)), []string{"Pow(exponent of 4)"}},
		"Pow by integers":           {nodes(op("Pow", "x e", "y")).with(int64s("e", 2, 2, 2, 2)), []string{"Pow(exponent of more than one number)"}},
		"Pow to more rank":          {nodes(op("Pow", "x e", "y")).with(cat(header("e", typeInt64, 1, 1, 1), num(7, 2))), []string{"Pow(exponent of more than one number)"}},
		"Pow by float16":            {nodes(op("Pow", "x e", "y")).with(header("e", 10, 1)), []string{"Pow(element type 10)"}},
		"float16 weights":           {nodes(op("Gemm", "x w", "y")).with(header("w", 10, 4, 3)), []string{"Gemm(element type 10)"}},
		"Flatten of all":            {nodes(op("Flatten", "x", "y", intAttribute("axis", 0))), []string{"output across samples"}},
		"Softmax over a map":        {nodes(op("Softmax", "x", "y")).on(x4...).at(11), []string{"Softmax(axis=1 of rank 4 in opset 11)"}},
		"Softmax over samples":      {nodes(op("Softmax", "x", "y", intAttribute("axis", 0))), []string{"Softmax(across samples)"}},
		"Reshape computed":          {nodes(op("Reshape", "x x", "y")), []string{"Reshape(input 1 not constant)"}},
		"Reshape by floats":         {nodes(op("Reshape", "x s", "y")).with(floats("s", 2)), []string{"Reshape(element type 1)"}},
		"Reshape of samples":        {nodes(op("Reshape", "x s", "y")).with(int64s("s", 1, -1)), []string{"output across samples"}},
		"Reshape into samples":      {nodes(op("Reshape", "x s", "y")).with(int64s("s", -1, 2)), []string{"output across samples"}},
		"Reshape of a batch":        {nodes(op("Reshape", "x s", "y")).with(int64s("s", 4, 2)).on(2, 4), []string{"output across samples"}},
		"Reshape to 0":              {nodes(op("Reshape", "x s", "y", intAttribute("allowzero", 1))).with(int64s("s", -1, 0)), []string{"Reshape(across samples)"}},
		"Reshape by a matrix":       {nodes(op("Reshape", "x s", "y")).with(cat(header("s", typeInt64, 1, 2), num(7, 0), num(7, 4))), []string{"Reshape(sizes of rank 2)"}},
		"Reshape to channels first": {view(op("Slice", "s one two", "n"), op("Concat", "n minus", "v", intAttribute("axis", 0))), []string{"Reshape(across samples)"}},
		"Reshape to two batches":    {view(op("Slice", "s zero one", "n"), op("Concat", "n n", "v", intAttribute("axis", 0))), []string{"Reshape(across samples)"}},
		"twice the batch":           {view(op("Gather", "s zero", "n"), op("Mul", "n two", "m"), op("Concat", "m minus", "v", intAttribute("axis", 0))), []string{"output across samples"}},
		"sizes by the batch":        {view(op("Gather", "s zero", "n"), op("Gather", "s n", "v")), []string{"Gather(by the batch's size)"}},
		"sizes from back to front":  {view(op("Slice", "s two zero zero minus", "v")), []string{"Slice(step -1)"}},
		"sizes in two dimensions":   {view(op("Unsqueeze", "s zero", "v")), []string{"Unsqueeze(of 4 sizes of rank 1)"}},
		"a size in two dimensions":  {view(op("Unsqueeze", "two zero", "v")), []string{"Reshape(sizes of rank 2)"}},
		"a size of many":            {view(op("Squeeze", "s zero", "v")), []string{"Squeeze(of 4 sizes of rank 1)"}},
		"sizes as floats":           {view(op("Cast", "s", "v", intAttribute("to", typeFloat))), []string{"Cast(of the batch's size)"}},
		"part of a value":           {view(op("Gather", "x zero", "v")), []string{"Gather(across samples)"}},
		"weights by the batch":      {nodes(op("Shape", "x", "s"), op("Reshape", "w s", "v"), op("Gemm", "x v", "y")).with(floats("w", 4, 4)), []string{"Reshape(constant input 0)"}},
		"shape of a constant":       {nodes(op("Shape", "w", "s"), op("Reshape", "x s", "y")).with(floats("w", 4)), []string{"Reshape(across samples)"}},
		"Dropout in training": {nodes(op("Dropout", "x _ t", "a"), op("Relu", "a", "y")).with(cat(header("t", typeBool), sub(9, []byte{1}))),
			[]string{"Dropout(training_mode=1)"}},
		"Reshape to rank 9":          {nodes(op("Reshape", "x s", "y")).with(int64s("s", 0, 4, 1, 1, 1, 1, 1, 1, 1)), []string{"Reshape(to rank 9)"}},
		"a value of rank 5":          {nodes(op("Reshape", "x s", "a"), op("GlobalMaxPool", "a", "y")).with(int64s("s", 0, 2, 2, 1, 1)), []string{"GlobalMaxPool(input of rank 5)"}},
		"integers":                   {file{nodes: []message{relu}, inputs: []message{declare("x", typeUint8, "N", 4)}}, []string{"Relu(of integers)"}},
		"sum of bytes":               {file{nodes: []message{op("Add", "x x", "a"), op("Cast", "a", "y", intAttribute("to", typeFloat))}, inputs: []message{declare("x", typeUint8, "N", 4)}}, []string{"Add(of bytes)"}},
		"integers as output":         {file{nodes: []message{op("Identity", "x", "y")}, inputs: []message{declare("x", typeUint8, "N", 4)}}, []string{"output of integers"}},
		"Transpose of sizes":         {view(op("Transpose", "s", "v")), []string{"Transpose(of sizes)"}},
		"mean to one number":         {nodes(op("ReduceMean", "x", "y", intsAttribute("axes", 1), intAttribute("keepdims", 0))), []string{"ReduceMean(to rank 1)"}},
		"mean of samples":            {nodes(op("ReduceMean", "x", "y", intsAttribute("axes", 0))), []string{"ReduceMean(across samples)"}},
		"Slice of samples":           {nodes(op("Slice", "x a b", "y")).with(int64s("a", 1), int64s("b", 2)), []string{"Slice(across samples)"}},
		"Slice to the batch's size":  {view(op("Gather", "s zero", "n"), op("Slice", "x zero n one", "v")), []string{"Slice(ends of the batch's size)"}},
		"slice along axis 1":         {view(op("Reshape", "s rows", "r"), op("Slice", "r zero far one", "v")).with(int64s("rows", 1, -1)), []string{"Slice(axis 1 of sizes)"}},
		"Expand as output":           {nodes(op("GlobalMaxPool", "x", "a"), op("Expand", "a s", "y")).with(int64s("s", 1, 1, 5, 5)).on(x4...), []string{"output of what is expanded"}},
		"Expand beside another":      {nodes(op("GlobalMaxPool", "x", "a"), op("Expand", "a s", "b"), op("Mul", "x b", "y")).with(int64s("s", 1, 1, 5, 4)).on("N", 1, 5, 5), []string{"Mul(of what is expanded)"}},
		"Expand of samples":          {nodes(op("Expand", "x s", "y")).with(int64s("s", 2, 4)), []string{"Expand(across samples)"}},
		"Expand to more rank":        {nodes(op("Expand", "x s", "y")).with(int64s("s", 1, 1, 4)), []string{"Expand(to another rank)"}},
		"zeros as floats":            {view(op("ConstantOfShape", "one", "v")), []string{"Reshape(element type 1)"}},
		"Gather of one number":       {nodes(op("Gather", "x i", "y", intAttribute("axis", 1))).with(cat(header("i", typeInt64), num(7, 2))), []string{"Gather(to rank 1)"}},
		"Split of samples":           {nodes(op("Split", "x", "y z")), []string{"Split(across samples)"}},
		"Pad of samples":             {nodes(op("Pad", "x p", "y")).with(int64s("p", 1, 0, 0, 0)), []string{"Pad(across samples)"}},
		"Pad of samples by axis":     {nodes(op("Pad", "x p _ a", "y")).with(int64s("p", 1, 0), int64s("a", 0)), []string{"Pad(across samples)"}},
		"Pad of samples from behind": {nodes(op("Pad", "x p _ a", "y")).with(int64s("p", 0, 1), int64s("a", -2)), []string{"Pad(across samples)"}},
		"Celu of a negative alpha":   {nodes(op("Celu", "x", "y", floatAttribute("alpha", -1))), []string{"Celu(alpha=-1)"}},
		"PRelu of a slope a column":  {nodes(op("PRelu", "x s", "y")).with(floats("s", 5, 5)).on(x4...), []string{"PRelu(constant not of one value a channel)"}},
		"scales of all elements":     {nodes(op("LayerNormalization", "x s", "y", intAttribute("axis", 1))).with(floats("s", 1, 5, 4)).on(x4...), []string{"LayerNormalization(constant of another shape)"}},
		"ceil_mode past the map":     {nodes(op("MaxPool", "x", "y", intsAttribute("kernel_shape", 2, 2), intsAttribute("strides", 3, 3), intAttribute("ceil_mode", 1), intsAttribute("pads", 0, 0, 1, 1))).on(x4...), []string{"MaxPool(ceil_mode=1 with a window of padding)"}},
		"ceil_mode counting":         {pool("AveragePool", intsAttribute("strides", 2, 2), intAttribute("ceil_mode", 1), intAttribute("count_include_pad", 1), intsAttribute("pads", 1, 0, 0, 0)), []string{"AveragePool(ceil_mode=1 with count_include_pad=1)"}},
		"maps of unlike extents":     {nodes(op("MaxPool", "x", "a", intsAttribute("kernel_shape", 1, 5)), op("MaxPool", "x", "b", intsAttribute("kernel_shape", 5, 1)), op("Add", "a b", "y")).on(x4...), []string{"Add(values of unlike shapes)"}},
		"Div of less by more":        {nodes(op("GlobalMaxPool", "x", "a"), op("Div", "a x", "y")).on(x4...), []string{"Div(values of unlike shapes)"}},
		"Pad by some mode":           {nodes(op("Pad", "x p", "y", stringAttribute("mode", "some"))).with(int64s("p", 0, 1, 0, 1)), []string{"Pad(mode=some)"}},
		"reflection of all":          {nodes(op("Pad", "x p", "y", stringAttribute("mode", "reflect"))).with(int64s("p", 0, 4, 0, 0)), []string{"Pad(more than there is, mode=reflect)"}},
		"edges to less":              {nodes(op("Pad", "x p", "y", stringAttribute("mode", "edge"))).with(int64s("p", 0, -1, 0, 4)), []string{"Pad(negative pads, mode=edge)"}},
		"Slice by 0":                 {nodes(op("Slice", "x a b c d", "y")).with(int64s("a", 0), int64s("b", 4), int64s("c", 1), int64s("d", 0)), []string{"Slice(step 0)"}},
		"Max of a number a channel":  {nodes(op("Max", "x b", "y")).with(floats("b", 4)), []string{"Max(constant of more than one number)"}},
		"Resize of samples":          {resize("y", values("s", 2, 1, 1, 1)), []string{"Resize(across samples)"}},
		"Resize of channels":         {resize("y", values("s", 1, 2, 1, 1)), []string{"Resize(of channels)"}},
		"Resize to the same":         {resize("y", values("s", 1, 1, 1.1, 1)), []string{"Resize(scales that change no extent)"}},
		"Resize by much at once": {resize("y", values("s", 1, 1, 2, 2), stringAttribute("mode", "some"), stringAttribute("coordinate_transformation_mode", "tf_crop_and_resize"), intAttribute("antialias", 1), intAttribute("exclude_outside", 1), stringAttribute("keep_aspect_ratio_policy", "not_larger")),
			[]string{"Resize(antialias=1)", "Resize(coordinate_transformation_mode=tf_crop_and_resize)", "Resize(exclude_outside=1)", "Resize(keep_aspect_ratio_policy=not_larger)", "Resize(mode=some)"}},
		"Resize by another cubic":    {resize("y", values("s", 1, 1, 2, 2), stringAttribute("mode", "cubic"), floatAttribute("cubic_coeff_a", -0.5)), []string{"Resize(cubic_coeff_a=-0.5)"}},
		"Resize to the nearest some": {resize("y", values("s", 1, 1, 2, 2), stringAttribute("nearest_mode", "some")), []string{"Resize(nearest_mode=some)"}},
		"Resize to the batch's size": {nodes(op("Shape", "x", "h"), op("Gather", "h z", "n"), op("Concat", "n one n one", "s", intAttribute("axis", 0)), op("Resize", "x _ _ s", "y")).with(int64s("z", 0), int64s("one", 1)).on(x4...), []string{"Resize(across samples)"}},
		"Resize to two batches":      {nodes(op("Shape", "x", "h"), op("Gather", "h z", "n"), op("Mul", "n two", "m"), op("Concat", "m one five five", "s", intAttribute("axis", 0)), op("Resize", "x _ _ s", "a"), op("Relu", "a", "y")).with(int64s("z", 0), int64s("one", 1), int64s("two", 2), int64s("five", 5)).on(x4...), []string{"Resize(across samples)"}},
		"Expand to two batches":      {nodes(op("Shape", "x", "s"), op("Slice", "s z one", "n"), op("Mul", "n two", "m"), op("Concat", "m four", "t", intAttribute("axis", 0)), op("Expand", "x t", "a"), op("Relu", "a", "y")).with(int64s("z", 0), int64s("one", 1), int64s("two", 2), int64s("four", 4)), []string{"Expand(across samples)"}},
		"constant for three batches": {nodes(op("Shape", "x", "s"), op("Slice", "s z one", "n"), op("Mul", "n three", "m"), op("Concat", "m four", "t", intAttribute("axis", 0)), op("Expand", "w t", "a"), op("Concat", "a x", "y", intAttribute("axis", 1))).with(int64s("z", 0), int64s("one", 1), int64s("three", 3), int64s("four", 4), floats("w", 1, 4)).on(3, 4), []string{"Concat(of what is expanded)"}},
		"Upsample to less":           {nodes(op("Upsample", "x s", "y")).with(values("s", 1, 1, 0.5, 0.5)).on(x4...).at(9), []string{"Upsample(scale of 0.5)"}},
		"ConvTranspose of few":       {transposed(stringAttribute("auto_pad", "SAME_UPPER"), intsAttribute("strides", 4, 4)), []string{"ConvTranspose(to more than the kernel reaches)"}},
		"ConvTranspose to much":      {transposed(intsAttribute("output_shape", 7, 9)), []string{"ConvTranspose(to more than the kernel reaches)"}},
		"3-D ConvTranspose":          {nodes(op("ConvTranspose", "x w", "y")).with(floats("w", 1, 2, 3, 3, 3)).on("N", 1, 9, 9, 9), []string{"ConvTranspose(3-D)", "input of rank 5"}},
		"Mod of floats' sign":        {view(op("Mod", "two two", "v", intAttribute("fmod", 1))), []string{"Mod(fmod=1)"}},
		"mask":                       {nodes(op("Dropout", "x", "a m"), op("Mul", "m m", "y")), []string{"Dropout(output 1)"}},
		"strings":                    {nodes(op("Constant", "", "a", stringAttribute("value_string", "s")), relu), []string{"Constant(value_string)"}},
		"old attributes":             {nodes(op("Relu", "x", "y", intsAttribute("consumed_inputs", 0))), []string{"Relu(consumed_inputs)"}},
	} {
		g, err := Parse(c.f.bytes())
		var u *UnsupportedError
		if !errors.As(err, &u) || !slices.Equal(u.Ops, c.want) {
			t.Errorf("%s: %v, %v, want %q", name, g, err, c.want)
			continue
		}
		checkTyped(t, name, err)
		for _, op := range c.want {
			if !strings.Contains(err.Error(), op) {
				t.Errorf("%s: %v does not name %s", name, err, op)
			}
		}
	}
}

// muls returns n nodes that multiply a0 by c.
func muls(n int) (m []message) {
	for i := range n {
		m = append(m, op("Mul", fmt.Sprintf("a%d c", i), fmt.Sprintf("a%d", i+1)))
	}
	return m
}

// doubles returns n nodes, each of which doubles the channels, from x to v<n>.
func doubles(n int) (m []message) {
	last := "x"
	for i := range n {
		next := fmt.Sprintf("v%d", i+1)
		m, last = append(m, op("Concat", last+" "+last, next, intAttribute("axis", 1))), next
	}
	return m
}

// stack returns n nodes of one kind, from x to v<n>, with v in the place of each one's input.
func stack(kind, inputs string, n int, attributes ...message) (m []message) {
	last := "x"
	for i := range n {
		next := fmt.Sprintf("v%d", i+1)
		m, last = append(m, op(kind, strings.Replace(inputs, "v", last, 1), next, attributes...)), next
	}
	return m
}

// slicesOf returns n nodes that each leave out the first place along W, from x to s<n>.
func slicesOf(x string, n int) (m []message) {
	for i := range n {
		next := fmt.Sprintf("s%d", i+1)
		m, x = append(m, op("Slice", x+" one far w3", next)), next
	}
	return m
}

// turns returns n nodes that transpose weights, from w0 to w<n>.
func turns(n int) (m []message) {
	for i := range n {
		m = append(m, op("Transpose", fmt.Sprintf("w%d", i), fmt.Sprintf("w%d", i+1)))
	}
	return m
}

// mapTurns returns n nodes that each read what takes the axes of x in another order, from x to v<n>.
func mapTurns(n int) (m []message) {
	last := "x"
	for i := range n {
		next := fmt.Sprintf("v%d", i+1)
		m = append(m, op("Transpose", last, next+"t", intsAttribute("perm", 0, 2, 3, 1)), op("MaxPool", next+"t", next, intsAttribute("kernel_shape", 1, 1)))
		last = next
	}
	return m
}

// scaledTurns returns a convolution and n times what moves its channels and scales them.
func scaledTurns(n int) []message {
	m := []message{op("Conv", "x w", "v0")}
	for i := range n {
		kind := []string{"DepthToSpace", "SpaceToDepth"}[i%2]
		m = append(m, op(kind, fmt.Sprint("v", i), fmt.Sprint("t", i), intAttribute("blocksize", 8)), op("Mul", fmt.Sprintf("t%d c", i), fmt.Sprint("v", i+1)))
	}
	return m
}

// lists returns n nodes that each give 16 sizes.
func lists(n int) (m []message) {
	for i := range n {
		m = append(m, op("Gather", "l i", fmt.Sprintf("l%d", i)))
	}
	return m
}

// Of several outputs one of floats is read, and not what the others need.
func TestParseOneOutput(t *testing.T) {
	f := dense()
	f.nodes = []message{op("Gemm", "x w", "a"), op("ArgMax", "a", "label"), op("Softmax", "a", "y"), op("Cast", "label", "z", intAttribute("to", typeInt64))}
	f.outputs = []message{declare("z", typeInt64), declare("y", typeFloat)}
	g, err := Parse(f.bytes())
	if err != nil || len(g.Nodes) != 2 || g.Nodes[1].Op != (graph.Softmax{}) {
		t.Errorf("%+v, %v", g, err)
	}
}

// Several outputs of floats are one vector, in the model's order, each with its dimensions.
func TestParseOutputs(t *testing.T) {
	f := dense()
	f.nodes = []message{
		op("Gemm", "x w", "a"), op("ArgMax", "a", "label"), op("Softmax", "a", "p"),
		op("Reshape", "a s", "r"), op("Transpose", "r", "t", intsAttribute("perm", 1, 0, 2)), op("Gemm", "x w", "aux"),
	}
	f.tensors = append(f.tensors, int64s("s", 0, 1, -1))
	declared := []message{declare("p", typeFloat), declare("label", typeInt64), declare("t", typeFloat), declare("aux", typeFloat)}
	f.outputs = declared
	g, err := Parse(f.bytes())
	if err != nil {
		t.Fatal(err)
	}
	width := g.Nodes[0].Op.(*graph.Dense).Out
	want := []graph.Result{{Name: "p", Dims: []int{width}}, {Name: "t", Dims: []int{1, width}}, {Name: "aux", Dims: []int{width}}}
	if !reflect.DeepEqual(g.Results, want) {
		t.Errorf("%v, want %v", g.Results, want)
	}
	if join := g.Nodes[g.Output-1]; join.Op != (graph.Outputs{}) || len(join.Inputs) != 3 || len(g.Nodes) != 4 {
		t.Errorf("%v", g.Nodes)
	}

	g, err = ParseWith(f.bytes(), Options{Outputs: []string{"aux", "p"}})
	if want := []graph.Result{want[0], want[2]}; err != nil || !reflect.DeepEqual(g.Results, want) {
		t.Errorf("%+v, %v", g, err)
	}
	g, err = ParseWith(f.bytes(), Options{Outputs: []string{"aux"}})
	if err != nil || g.Results != nil || len(g.Nodes) != 1 {
		t.Errorf("%+v, %v", g, err)
	}
	if _, err = ParseWith(f.bytes(), Options{Outputs: []string{"p", "none"}}); !errors.Is(err, ErrOutput) || !strings.Contains(err.Error(), "there are p, label, t, aux") {
		t.Error(err)
	}
	f.outputs = append(declared, declare("p", typeFloat))
	if _, err = Parse(f.bytes()); !errors.Is(err, ErrInvalid) {
		t.Errorf("one output twice: %v", err)
	}
}

// An optional input that is left out has no name, as has an output: one does not depend on the other.
func TestParseChosenWithoutName(t *testing.T) {
	f := nodes(
		op("Gemm", "x v", "b"), op("Frobnicate", "b", "_ z"),
		op("Clip", "x _ hi", "a"), op("Gemm", "a w", "y"),
	).with(values("hi", 1), floats("w", 4, 3), floats("v", 4, 2))
	f.outputs = []message{declare("y", typeFloat), declare("z", typeFloat)}
	g, err := ParseWith(f.bytes(), Options{Outputs: []string{"y"}})
	if err != nil || len(g.Nodes) != 2 {
		t.Errorf("%+v, %v", g, err)
	}
}

// An output may be one number a sample, or of more dimensions than a map, but not of several samples.
func TestParseOutputRanks(t *testing.T) {
	for name, c := range map[string]struct {
		f    file
		want graph.Shape // or none, for what is refused
	}{
		"rank 5":             {nodes(op("Relu", "x", "a"), op("Reshape", "a s", "y")).with(int64s("s", 0, 2, 2, 1, 1)), graph.Vector(4)},
		"rank 5, batch last": {nodes(op("Relu", "x", "a"), op("Reshape", "a s", "b"), op("Transpose", "b", "y", intsAttribute("perm", 1, 2, 3, 4, 0))).with(int64s("s", 0, 2, 2, 1, 1)), graph.Vector(4)},
		"rank 1":             {nodes(op("Relu", "x", "a"), op("Squeeze", "a i", "y")).with(int64s("i", 1)).on("N", 1), graph.Vector(1)},
		"samples in a row":   {nodes(op("Relu", "x", "a"), op("Reshape", "a s", "y")).with(int64s("s", -1)), graph.Shape{}},
		"one sample's row":   {nodes(op("Relu", "x", "a"), op("Reshape", "a s", "y")).with(int64s("s", -1)).on(1, 4), graph.Shape{}},
		"two samples' row":   {nodes(op("Relu", "x", "a"), op("Reshape", "a s", "y")).with(int64s("s", 8)).on(2, 4), graph.Shape{}},
	} {
		for _, outputs := range [][]message{{declare("y", typeFloat)}, {declare("y", typeFloat), declare("a", typeFloat)}} {
			c.f.outputs = outputs
			g, err := Parse(c.f.bytes())
			if c.want == (graph.Shape{}) {
				if err == nil {
					t.Errorf("%s, %d outputs: %v", name, len(outputs), g)
				}
				checkTyped(t, name, err)
				continue
			}
			if err != nil {
				t.Errorf("%s, %d outputs: %v", name, len(outputs), err)
				continue
			}
			shapes, err := g.Shapes()
			if got := shapes[g.Output].Len(); err != nil || len(outputs) == 1 && got != c.want.Len() || len(outputs) == 2 && got != 2*c.want.Len() {
				t.Errorf("%s, %d outputs: %d elements, %v", name, len(outputs), got, err)
			}
		}
	}
}

// The dimension of a batch of one sample may be repeated, and another of 1 is then the batch's.
func TestGatherOfOneSample(t *testing.T) {
	for _, dims := range [][]any{{1, 2, 1, 2}, {1, 1, 4}, {1, 4}} {
		g, err := Parse(nodes(op("Gather", "x three", "g"), op("Reshape", "g to", "y")).
			with(int64s("three", 0, 0, 0), int64s("to", 1, 12)).on(dims...).bytes())
		if err != nil {
			t.Errorf("%d: %v", dims, err)
			continue
		}
		x := []float32{1, 2, 3, 4}
		if g.Input.H > 1 || g.Input.W > 1 {
			graph.CHWToHWC(x, []float32{1, 2, 3, 4}, 1, g.Input)
		}
		if y := graphtest.Run(g, x, 1); !slices.Equal(y, []float32{1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4}) {
			t.Errorf("%d: %v", dims, y)
		}
	}
}

// Samples come first in an output, wherever the model has them.
func TestParseTurnedOutput(t *testing.T) {
	g, err := Parse(nodes(op("Transpose", "x", "a"), op("Relu", "a", "y")).bytes())
	if err != nil || len(g.Nodes) != 1 || g.Output != 1 {
		t.Errorf("%+v, %v", g, err)
	}
}

// A bias is added to a layer only where nothing else reads the layer's result.
func TestBiasOfSharedResult(t *testing.T) {
	matMul := op("MatMul", "x w", "a")
	for name, nodesOf := range map[string][]message{
		"by two nodes":         {matMul, op("Add", "a b", "c"), op("Add", "a c", "y")},
		"after the other":      {matMul, op("Relu", "a", "c"), op("Add", "a b", "d"), op("Add", "c d", "y")},
		"by way of Identity":   {matMul, op("Identity", "a", "i"), op("Add", "i b", "c"), op("Add", "a c", "y")},
		"by two of Identity's": {matMul, op("Identity", "a", "i"), op("Add", "i b", "c"), op("Add", "i c", "y")},
	} {
		g, err := Parse(nodes(nodesOf...).with(floats("w", 4, 3), floats("b", 3)).bytes())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if b := g.Nodes[0].Op.(graph.Linear).Bias(); b != nil || len(g.Nodes) < 3 {
			t.Errorf("%s: bias %v, %v", name, b, g.Nodes)
		}
	}
	for name, nodesOf := range map[string][]message{
		"by way of Identity":       {matMul, op("Identity", "a", "i"), op("Add", "i b", "c"), op("Mul", "c c", "y")},
		"beside its shape":         {matMul, op("Shape", "a", "s"), op("Add", "a b", "c"), op("Mul", "c c", "d"), op("Reshape", "d s", "y")},
		"beside what nothing uses": {matMul, op("Relu", "a", "z"), op("Add", "a b", "c"), op("Mul", "c c", "y")},
	} {
		g, err := Parse(nodes(nodesOf...).with(floats("w", 4, 3), floats("b", 3)).bytes())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if b := g.Nodes[0].Op.(graph.Linear).Bias(); !slices.Equal(b, []float32{1, 2, 3}) {
			t.Errorf("%s: bias %v", name, b)
		}
	}
}

// The numbers of a tensor may stand in the file in several ways.
func TestTensorForms(t *testing.T) {
	want := []float32{1, 3, 5, 7, 2, 4, 6, 8} // 4 x 2, transposed
	var single, packed, doubles, packedDoubles, rawDoubles message
	for i := range 8 {
		v := float32(i + 1)
		single = protowire.AppendFixed32(protowire.AppendTag(single, 4, protowire.Fixed32Type), math.Float32bits(v))
		packed = protowire.AppendFixed32(packed, math.Float32bits(v))
		doubles = protowire.AppendFixed64(protowire.AppendTag(doubles, 10, protowire.Fixed64Type), math.Float64bits(float64(v)))
		packedDoubles = protowire.AppendFixed64(packedDoubles, math.Float64bits(float64(v)))
	}
	rawDoubles = packedDoubles
	var packedDims message
	packedDims.bytes(1, []byte{4, 2})
	for name, tensor := range map[string]message{
		"raw floats":     floats("w", 4, 2),
		"single floats":  cat(header("w", typeFloat, 4, 2), single),
		"packed floats":  cat(header("w", typeFloat, 4, 2), sub(4, packed)),
		"packed parts":   cat(header("w", typeFloat, 4, 2), sub(4, packed[:12]), sub(4, packed[12:])),
		"packed sizes":   cat(header("w", typeFloat), packedDims, sub(9, packed)),
		"single doubles": cat(header("w", typeDouble, 4, 2), doubles),
		"packed doubles": cat(header("w", typeDouble, 4, 2), sub(10, packedDoubles)),
		"raw doubles":    cat(header("w", typeDouble, 4, 2), sub(9, rawDoubles)),
	} {
		g, err := Parse(nodes(op("MatMul", "x w", "y")).with(tensor).bytes())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if w := g.Nodes[0].Op.(graph.Linear).Weights(); !slices.Equal(w, want) {
			t.Errorf("%s: %v", name, w)
		}
	}
}

// Unknown fields are passed over, as protobuf has it.
func TestParseUnknownFields(t *testing.T) {
	f := dense()
	f.model = cat(num(99, 1), sub(98, []byte("x")), message{97<<3&0x7f | 1 | 0x80, 97 >> 4, 1, 2, 3, 4, 5, 6, 7, 8})
	if _, err := Parse(f.bytes()); err != nil {
		t.Error(err)
	}
}

// allocated returns the bytes that f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Memory grows with the file alone: not with what it declares, and not with how
// often one tensor is used.
func TestParseMemory(t *testing.T) {
	var products []message
	for i := range 5000 {
		products = append(products, op("MatMul", fmt.Sprintf("v%d w", i), fmt.Sprintf("v%d", i+1)))
	}
	shared := file{nodes: products, inputs: []message{declare("v0", typeFloat, "N", 64)}, outputs: []message{declare("v5000", typeFloat)}}
	var biases []message
	for i := range 1000 {
		biases = append(biases, op("Gemm", fmt.Sprintf("v%d w b", i), fmt.Sprintf("v%d", i+1)))
	}
	wide := file{nodes: biases, inputs: []message{declare("v0", typeFloat, "N", 64)}, outputs: []message{declare("v1000", typeFloat)}}
	for name, b := range map[string][]byte{
		"declared weights":     whole(4, 1<<29).bytes(),
		"declared doubles":     nodes(op("Gemm", "x w", "y")).with(header("w", typeDouble, 4, 1<<28)).bytes(),
		"declared shape":       nodes(op("Reshape", "x s", "y")).with(header("s", typeInt64, 1<<30)).bytes(),
		"declared input":       nodes(op("Relu", "x", "y")).on("N", 1, 1<<15, 1<<15).bytes(),
		"tensor used often":    shared.with(floats("w", 64, 64)).bytes(),
		"bias used often":      wide.with(floats("w", 64, 64), floats("b", 1)).bytes(),
		"scalar used often":    nodes(slices.Concat([]message{op("Relu", "x", "a0")}, muls(1000), []message{op("Relu", "a1000", "y")})...).on("N", 1<<20).with(floats("c")).bytes(),
		"wide and often":       nodes(slices.Concat([]message{op("Mul", "x w", "a0")}, muls(1000), []message{op("Relu", "a1000", "y")})...).on("N", 1<<15).with(floats("w", 1<<15), floats("c")).bytes(),
		"scaled often":         nodes(slices.Concat([]message{op("Gemm", "x w", "a0")}, muls(5000), []message{op("Relu", "a5000", "y")})...).on("N", 1<<15).with(floats("w", 1<<15, 1), floats("c")).bytes(),
		"channels doubled":     nodes(slices.Concat(doubles(40), []message{op("Relu", "v40", "y")})...).on("N", 1).bytes(),
		"many sizes":           view(slices.Concat([]message{op("Concat", "s s s s", "l", intAttribute("axis", 0))}, lists(3000), []message{op("Slice", "s zero far", "v")})...).with(int64s("i", make([]int64, 16)...)).bytes(),
		"wide Concat":          nodes(op("Concat", strings.Repeat("x ", 20000), "y", intAttribute("axis", 1))).bytes(),
		"many activations":     nodes(slices.Concat(stack("Gelu", "v", 20000), []message{op("Relu", "v20000", "y")})...).on("N", 1).bytes(),
		"many norms":           nodes(slices.Concat(stack("LayerNormalization", "v c", 10000), []message{op("Relu", "v10000", "y")})...).on("N", 1).with(floats("c", 1)).bytes(),
		"weights turned often": nodes(append(turns(1000), op("Gemm", "x w1000", "y"))...).with(cat(floats("w0", 4, 4))).bytes(),
		"maps turned often":    nodes(append(mapTurns(5000), op("Relu", "v5000", "y"))...).on("N", 2, 3, 4).with(floats("c", 1, 1, 1, 1)).bytes(),
		"wide strides":         transposed(intsAttribute("strides", 1<<14, 1<<14)).bytes(),
		"dilated often":        nodes(slices.Concat(stack("MaxPool", "v", 3000, intsAttribute("kernel_shape", 7, 7), intsAttribute("dilations", 2, 2), intsAttribute("pads", 6, 6, 6, 6)), []message{op("Relu", "v3000", "y")})...).on("N", 1, 1, 1).bytes(),
		"tiles often":          nodes(slices.Concat(stack("Tile", "v r", 5000), []message{op("Relu", "v5000", "y")})...).on("N", 1<<12).with(int64s("r", 1, 2)).bytes(),
		"edges often":          nodes(slices.Concat(stack("Pad", "v p", 5000, stringAttribute("mode", "edge")), []message{op("Relu", "v5000", "y")})...).on("N", 1).with(int64s("p", 0, 0, 0, 1)).bytes(),
		"scaled before moves":  nodes(append(scaledTurns(3000), op("Relu", "v3000", "y"))...).on("N", 1, 8, 8).with(floats("w", 64, 1, 1, 1), floats("c", 1, 1, 1, 1)).bytes(),
		"scaled before a line": nodes(op("Conv", "x w", "a"), op("SpaceToDepth", "a", "b", intAttribute("blocksize", 1<<9)), op("DepthToSpace", "b", "d", intAttribute("blocksize", 1<<9)), op("Mul", "d c", "y")).on("N", 1, 1<<10, 1<<10).with(floats("w", 1, 1, 1, 1), floats("c", 1, 1, 1, 1)).bytes(),
		"sizes up and up":      nodes(op("Resize", "x _ s", "a"), op("Relu", "a", "y")).on("N", 1, 1<<10, 1<<10).with(values("s", 1, 1, 16, 16)).bytes(),
		"many small nodes":     nodes(slices.Repeat([]message{op("A", "", "a")}, 20000)...).bytes(),
		"many symbols":         file{graph: slices.Repeat(sub(12, nil), 20000)}.bytes(),
		"states cut often": nodes(slices.Concat([]message{op("Shape", "x", "s"), op("Slice", "s zero one", "n"), op("Concat", "one n k", "to", intAttribute("axis", 0)), op("ConstantOfShape", "to", "z")},
			often(1000, "Slice", "z zero far two"))...).with(int64s("zero", 0), int64s("one", 1), int64s("two", 2), int64s("far", math.MaxInt64), int64s("k", 20000)).bytes(),
		"slices moved often": nodes(slices.Concat(stack("Conv", "v w", 1000), slicesOf("v1000", 1000), []message{op("Relu", "s1000", "y")})...).
			on("N", 1, 2, 2000).with(floats("w", 1, 1, 1, 1), int64s("one", 1), int64s("far", math.MaxInt64), int64s("w3", 3)).bytes(),
		"many unknown names": nodes(slices.Repeat([]message{op("Relu", "x", "y", intAttribute("b", 1))}, 5000)...).bytes(),
	} {
		var err error
		bytes := allocated(func() { _, err = Parse(b) })
		if limit := uint64(256*len(b) + 64<<10); bytes > limit {
			t.Errorf("%s: %d bytes for a file of %d, %v", name, bytes, len(b), err)
		}
	}
	if _, err := Parse(shared.with(floats("w", 64, 64)).bytes()); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}

// often returns n nodes of which nothing is read, and one that is.
func often(n int, kind, inputs string) (all []message) {
	for i := range n {
		all = append(all, op(kind, inputs, fmt.Sprint("often", i)))
	}
	return append(all, op("Relu", "x", "y"))
}

// TestParseConstantsOften: reading constants over and over takes time, though nothing be made of them.
func TestParseConstantsOften(t *testing.T) {
	big := op("ConstantOfShape", "many", "c", tensorAttribute("value", int64s("", 0)))
	truths := op("Cast", "c", "b", intAttribute("to", typeBool))
	steps := []message{op("Shape", "x", "s"), op("Gather", "s place", "n"), op("Range", "place n step", "r"), op("Unsqueeze", "r one", "rows"), op("Unsqueeze", "c zero", "row"), op("Add", "rows row", "each")}
	for name, n := range map[string][]message{
		"bools":          slices.Concat([]message{big, truths}, often(200, "Unsqueeze", "b zero")),
		"int32s":         slices.Concat([]message{big, op("Cast", "c", "i", intAttribute("to", typeInt32))}, often(200, "Reshape", "i line")),
		"an empty table": slices.Concat([]message{big}, often(200, "Gather", "empty c")),
		"steps":          slices.Concat([]message{big}, steps, often(200, "Mul", "each each")),
	} {
		f := nodes(n...).with(int64s("many", 1<<20), int64s("line", -1), header("empty", typeFloat, 5, 0), int64s("zero", 0), int64s("one", 1),
			cat(header("place", typeInt64), num(7, 0)), cat(header("step", typeInt64), num(7, 1)))
		if _, err := Parse(f.bytes()); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "too often") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is known of a constant in its shape alone is not computed with.
func TestParseUnknownConstant(t *testing.T) {
	f := nodes(op("Shape", "x", "s"), op("Gather", "s zero", "n"), op("Range", "zero n one", "r"), op("Max", "r one one", "m"), op("Relu", "x", "y")).
		with(cat(header("zero", typeInt64), num(7, 0)), cat(header("one", typeInt64), num(7, 1)))
	var unsupported *UnsupportedError
	if _, err := Parse(f.bytes()); !errors.As(err, &unsupported) {
		t.Error(err)
	}
}

// A tensor may serve several nodes within that bound.
func TestParseTiedWeights(t *testing.T) {
	g, err := Parse(nodes(op("MatMul", "x w", "a"), op("Gemm", "a w", "y", floatAttribute("alpha", 2))).with(floats("w", 4, 4)).bytes())
	if err != nil {
		t.Fatal(err)
	}
	a, b := g.Nodes[0].Op.(graph.Linear).Weights(), g.Nodes[1].Op.(graph.Linear).Weights()
	if a[1] != 5 || b[1] != 10 {
		t.Errorf("%v, %v", a, b)
	}
}

func TestParseCutAndFlipped(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	var seeds [][]byte
	for range 20 {
		b, err := Marshal(graphtest.Random(r, 1+r.IntN(5)))
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, b)
	}
	for _, b := range seeds {
		for i := range b {
			if _, err := Parse(b[:i]); err == nil {
				t.Fatalf("accepted %d of %d bytes", i, len(b))
			} else {
				checkTyped(t, "cut", err)
			}
		}
		for i := range b {
			c := slices.Clone(b)
			c[i] ^= 1 << r.IntN(8)
			checkParse(t, c)
		}
	}
}

// checkParse checks what holds for the parsing of any bytes.
func checkParse(t testing.TB, b []byte) {
	t.Helper()
	g, err := Parse(b)
	if err != nil {
		checkTyped(t, "", err)
		return
	}
	if err := g.Validate(); err != nil {
		t.Fatalf("accepted a graph that is invalid: %v", err)
	}
	if len(g.Parts) == 0 { // of others not all can be written
		checkRoundTrip(t, g)
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add(v.Model)
	}
	for _, file := range []file{dense(), conv(), pool("MaxPool"), whole(4, 1<<29), nodes(op("Relu", "y", "y"))} {
		f.Add(file.bytes())
	}
	b, err := Marshal(graphtest.Chain(graph.Vector(3), graphtest.Dense(rand.New(rand.NewPCG(1, 1)), 3, 2), graph.Softmax{}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) { checkParse(t, b) })
}
