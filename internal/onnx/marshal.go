package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/securenets/securenets/internal/graph"
)

// What Marshal writes: the first opset whose Softmax has today's meaning, and
// the IR version of its time.
const (
	writtenIR    = 7
	writtenOpset = 13
)

// Marshal writes g as an ONNX model that Parse reads back to an equal graph, if
// graph.Simplify finds nothing to do in g, and otherwise to what that makes of
// it; of several outputs, operators may come back in another order. Its batch is
// symbolic. The bytes are a function of the graph alone. Its errors wrap
// graph.ErrInvalid, or are an *UnsupportedError.
func Marshal(g *graph.Graph) ([]byte, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	shapes, err := g.Shapes()
	if err != nil {
		return nil, err
	}
	w := &writer{prefix: prefixOf(g), graph: g.Nodes, parts: g.Parts, values: []value{{"input", naturalRank(g.Input)}}, layers: inputLayers(g), cells: map[graph.Value]string{}}
	inputs := []message{valueInfoMessage(w.values[0], g.Input)}
	if len(g.Parts) > 0 {
		if inputs, err = w.partInputs(); err != nil {
			return nil, err
		}
	}
	var outputs []message
	for i, n := range g.Nodes {
		if w.layers[graph.Value(i+1)] != nil {
			w.values = append(w.values, value{}) // written with the recurrence behind it
			continue
		}
		if len(g.Results) > 0 && graph.Value(i+1) == g.Output {
			if outputs, err = w.results(n, g.Results, shapes); err != nil {
				return nil, err
			}
			continue
		}
		name := fmt.Sprint(w.prefix, "v", i+1)
		if graph.Value(i+1) == g.Output {
			name = w.prefix + "output"
		}
		if err := w.node(n, shapes, name); err != nil {
			return nil, err
		}
	}
	if outputs == nil {
		outputs = []message{valueInfoMessage(w.values[g.Output], shapes[g.Output])}
	}
	return w.model(inputs, outputs), nil
}

// model returns the model of all that was written.
func (w *writer) model(inputs, outputs []message) message {
	var gr message
	for _, n := range w.nodes {
		gr.bytes(1, n)
	}
	gr.string(2, "network")
	for _, t := range w.initializers {
		gr.bytes(5, t)
	}
	for _, in := range inputs {
		gr.bytes(11, in)
	}
	for _, out := range outputs {
		gr.bytes(12, out)
	}

	var opset message
	opset.string(1, "")
	opset.int(2, writtenOpset)

	var m message
	m.int(1, writtenIR)
	m.string(2, "securenets")
	m.bytes(7, gr)
	m.bytes(8, opset)
	return m
}

// naturalRank is the rank that a value of shape s has in the file, if nothing
// asks for the other: 2 (N x C) for vectors, 4 (N x C x H x W) for maps.
func naturalRank(s graph.Shape) int {
	if s.H == 1 && s.W == 1 {
		return 2
	}
	return 4
}

// dimsOf returns the sizes after the batch of a value of shape s.
func dimsOf(s graph.Shape, rank int) []int64 {
	if rank == 2 {
		return []int64{int64(s.C)}
	}
	return []int64{int64(s.C), int64(s.H), int64(s.W)}
}

// value is how a value of the graph stands in the file.
type value struct {
	name string
	rank int
}

type writer struct {
	nodes, initializers []message
	values              []value // of the graph, so far
	graph               []graph.Node
	parts               []graph.Part
	prefix              string // of names, so that they are no part's and no result's
	layers              map[graph.Value]*graph.Node
	cells               map[graph.Value]string
}

// prefixOf returns what no input or output of several begins with, or nothing where there are not
// several.
func prefixOf(g *graph.Graph) (prefix string) {
	taken := func(name string) bool { return strings.HasPrefix(name, prefix) }
	for slices.ContainsFunc(g.Parts, func(p graph.Part) bool { return taken(p.Name) }) ||
		slices.ContainsFunc(g.Results, func(r graph.Result) bool { return taken(r.Name) }) {
		prefix += "_"
	}
	return prefix
}

// results writes the outputs that the last node, n, puts together.
func (w *writer) results(n graph.Node, results []graph.Result, shapes []graph.Shape) ([]message, error) {
	var outputs []message
	for i, r := range results {
		v := n.Inputs[i]
		if shapes[v].Len() != r.Len() {
			return nil, &UnsupportedError{[]string{"several outputs that are not put together at the end"}}
		}
		dims := []int64{0} // the batch's
		for _, d := range r.Dims {
			dims = append(dims, int64(d))
		}
		if len(r.Dims) == 0 {
			w.emit("Squeeze", []string{w.ranked(v, shapes[v], 2, fmt.Sprint(w.prefix, "number", i)), w.ints(fmt.Sprint(w.prefix, "axis", i), 1)}, r.Name)
		} else {
			w.emit("Reshape", []string{w.values[v].name, w.ints(fmt.Sprint(w.prefix, "shape", i), dims...)}, r.Name)
		}
		outputs = append(outputs, infoMessage(r.Name, dims[1:], typeFloat))
	}
	return outputs, nil
}

// partInputs returns the inputs that the parts are, which are vectors where there are several. Integers
// are read as floats, and those of several parts as the Slices of what holds all.
func (w *writer) partInputs() ([]message, error) {
	var inputs []message
	for _, p := range w.parts {
		if len(w.parts) > 1 && p.Shape != graph.Vector(p.Shape.C) {
			return nil, &UnsupportedError{[]string{"several inputs of maps"}}
		}
		kind := typeFloat
		switch {
		case p.Type == "bool":
			kind = typeBool
		case p.Type == "int32":
			kind = typeInt32
		case p.Type == "uint8":
			kind = typeUint8
		case p.From != p.Below:
			kind = typeInt64
		}
		inputs = append(inputs, typedInfoMessage(p.Name, naturalRank(p.Shape), p.Shape, kind))
	}
	if len(w.parts) == 1 {
		w.values[0].name = w.partFloats(0)
	}
	return inputs, nil
}

// partFloats returns the name of a part's elements as floats.
func (w *writer) partFloats(i int) string {
	p := w.parts[i]
	if p.From == p.Below {
		return p.Name
	}
	name := w.prefix + p.Name + ".floats"
	w.emit("Cast", []string{p.Name}, name, intAttribute("to", typeFloat))
	return name
}

// given reports whether a value has the elements of an input as they are.
func (w *writer) given(v graph.Value) bool {
	for v > 0 {
		switch n := w.graph[v-1]; n.Op.(type) {
		case graph.Slice, graph.Reshape:
			v = n.Inputs[0]
		default:
			return false
		}
	}
	return true
}

// part returns the number of the part that op takes of the input, or -1.
func (w *writer) part(op graph.Slice) int {
	at := 0
	for i, p := range w.parts {
		if len(w.parts) > 1 && op.C == (graph.Range{From: at, To: at + p.Shape.C}) {
			return i
		}
		at += p.Shape.C
	}
	return -1
}

// Operators of graph that have no parameters, by name, as ONNX calls them: of one value, and of two.
var (
	writtenOfOne = map[string]string{
		graph.ReLU{}.Name(): "Relu", graph.Sigmoid{}.Name(): "Sigmoid", graph.Tanh{}.Name(): "Tanh", graph.Softplus{}.Name(): "Softplus",
		graph.Erf{}.Name(): "Erf", graph.Exp{}.Name(): "Exp", graph.Log{}.Name(): "Log", graph.Abs{}.Name(): "Abs",
		graph.Reciprocal{}.Name(): "Reciprocal", graph.Sqrt{}.Name(): "Sqrt",
	}
	writtenOfTwo = map[string]string{
		graph.Add{}.Name(): "Add", graph.Sub{}.Name(): "Sub", graph.Mul{}.Name(): "Mul", graph.Div{}.Name(): "Div", graph.Max{}.Name(): "Max", graph.Min{}.Name(): "Min",
	}
)

// node writes one node of the graph, whose output gets the given name, and notes the output's rank.
func (w *writer) node(n graph.Node, shapes []graph.Shape, name string) error {
	rank, err := w.operator(n, shapes, name)
	w.values = append(w.values, value{name, rank})
	return err
}

// operator writes what node does, and returns the output's rank.
func (w *writer) operator(n graph.Node, shapes []graph.Shape, name string) (rank int, err error) {
	x, from := n.Inputs[0], shapes[n.Inputs[0]]
	in := w.values[x].name
	rank = w.values[x].rank
	if done, err := w.ofCells(n, shapes, name); done || err != nil {
		return rank, err
	}
	// ofMap returns the input as a map, as which the output is written too.
	ofMap := func() string {
		rank = 4
		return w.ranked(x, from, 4, name+".input")
	}
	if kind, ok := writtenOfOne[n.Op.Name()]; ok {
		w.emit(kind, []string{in}, name)
		return rank, nil
	}
	if kind, ok := writtenOfTwo[n.Op.Name()]; ok {
		w.emit(kind, w.alike(n, shapes, name), name)
		return rank, nil
	}
	switch op := n.Op.(type) {
	case *graph.Dense:
		inputs := []string{w.ranked(x, from, 2, name+".input"), w.floats(name+".weight", op.W, op.Out, op.In)}
		if op.B != nil {
			inputs = append(inputs, w.floats(name+".bias", op.B, op.Out))
		}
		rank = 2
		w.emit("Gemm", inputs, name, intAttribute("transB", 1))
	case *graph.Conv2D:
		g := op.Geometry
		per := g.C / g.Groups
		oihw := make([]float32, len(op.W))
		graph.HWCToCHW(oihw, op.W, g.OutC, graph.Shape{H: g.KH, W: g.KW, C: per})
		inputs := []string{ofMap(), w.floats(name+".weight", oihw, g.OutC, per, g.KH, g.KW)}
		if op.B != nil {
			inputs = append(inputs, w.floats(name+".bias", op.B, g.OutC))
		}
		w.emit("Conv", inputs, name,
			intsAttribute("kernel_shape", g.KH, g.KW), intsAttribute("strides", g.SH, g.SW),
			intsAttribute("dilations", g.DH, g.DW), intsAttribute("pads", g.Top, g.Left, g.Bot, g.Right),
			intAttribute("group", g.Groups))
	case *graph.Affine:
		w.affine(op, w.values[x], name)
	case graph.LeakyReLU:
		w.emit("LeakyRelu", []string{in}, name, floatAttribute("alpha", op.Alpha))
	case graph.Clip:
		w.emit("Clip", []string{in, w.floats(name+".min", []float32{op.Min}), w.floats(name+".max", []float32{op.Max})}, name)
	case graph.ELU:
		w.emit("Elu", []string{in}, name, floatAttribute("alpha", op.Alpha))
	case graph.CumSum:
		w.emit("CumSum", []string{in, w.ints(name+".axis", 1)}, name)
	case graph.LogSoftmax:
		w.emit("LogSoftmax", []string{in}, name, intAttribute("axis", 1))
	case graph.ChannelMean:
		w.emit("ReduceMean", []string{in}, name, intsAttribute("axes", 1), intAttribute("keepdims", 1))
	case *graph.PReLU:
		slope := w.floats(name+".slope", op.Slope, []int{from.C, 1, 1}[:rank-1]...)
		w.emit("PRelu", []string{in, slope}, name)
	case *graph.Transpose:
		rank = naturalRank(op.To)
		w.transpose(op, in, name, rank)
	case graph.Product:
		rank = 4
		w.product(op, n, shapes, name)
	case *graph.Recurrence:
		rank = 4
		if err := w.recurrence(op, n, shapes, name); err != nil {
			return rank, err
		}
	case *graph.ElementAffine:
		rank = naturalRank(from)
		w.elementAffine(op, in, from, name, rank)
	case *graph.Embedding:
		if from != graph.Vector(from.C) || !w.given(x) {
			return rank, &UnsupportedError{[]string{"embedding of a map, or of what no input gives"}}
		}
		rank = 4
		w.embedding(op, w.ranked(x, from, 2, name+".input"), from.C, name)
	case graph.Slice:
		if len(w.parts) > 1 && x == 0 {
			i := w.part(op)
			if i < 0 {
				return rank, &UnsupportedError{[]string{"several inputs as one"}}
			}
			w.emit("Identity", []string{w.partFloats(i)}, name)
			break
		}
		w.slice(op, w.values[x], name)
	case graph.Pad:
		b, a := op.Before, op.After
		pads := w.ints(name+".pads", 0, int64(b.C), int64(b.H), int64(b.W), 0, int64(a.C), int64(a.H), int64(a.W))
		w.emit("Pad", []string{ofMap(), pads, w.floats(name+".value", []float32{op.Value})}, name)
	case graph.Concat:
		w.emit("Concat", w.alike(n, shapes, name), name, intAttribute("axis", 1))
	case graph.Square:
		w.emit("Mul", []string{in, in}, name)
	case graph.MaxPool:
		w.emit("MaxPool", []string{ofMap()}, name, poolAttributes(op.Pool)...)
	case graph.AvgPool:
		w.average(op, ofMap(), name)
	case graph.SumPool:
		w.average(graph.AvgPool{Pool: op.Pool, CountPad: true}, ofMap(), name+".mean")
		size := slices.Repeat([]float32{float32(op.KH * op.KW)}, from.C)
		w.affine(&graph.Affine{Scale: size}, value{name + ".mean", 4}, name)
	case graph.Step:
		w.emit("Greater", []string{in, w.floats(name+".zero", []float32{0})}, name+".above")
		w.emit("Cast", []string{name + ".above"}, name, intAttribute("to", typeFloat))
	case graph.Select:
		var of []string
		for _, v := range n.Inputs {
			rank = max(rank, w.values[v].rank)
		}
		for i, v := range n.Inputs {
			of = append(of, w.ranked(v, shapes[v], rank, fmt.Sprint(name, ".input", i)))
		}
		w.emit("Greater", []string{of[0], w.floats(name+".zero", []float32{0})}, name+".above")
		w.emit("Where", []string{name + ".above", of[1], of[2]}, name)
	case *graph.Gather:
		if op.Along != "C" {
			in = ofMap()
		}
		w.gather(op, in, name)
	case graph.Resize:
		w.resize(op, from, ofMap(), name)
	case graph.Reshape:
		if op.To != from {
			rank = naturalRank(op.To)
		}
		w.reshape(in, name, op.To, rank)
	case graph.Softmax:
		w.emit("Softmax", []string{in}, name, intAttribute("axis", 1))
	default:
		return rank, &UnsupportedError{Ops: []string{n.Op.Name()}}
	}
	return rank, nil
}

// ranked returns the name of value v in the given rank; as is the name that it
// gets if that has to be made.
func (w *writer) ranked(v graph.Value, s graph.Shape, rank int, as string) string {
	if w.values[v].rank == rank {
		return w.values[v].name
	}
	w.reshape(w.values[v].name, as, s, rank)
	return as
}

// alike returns the names of a node's inputs in the rank of the first.
func (w *writer) alike(n graph.Node, shapes []graph.Shape, name string) []string {
	names := make([]string, len(n.Inputs))
	for i, v := range n.Inputs {
		names[i] = w.ranked(v, shapes[v], w.values[n.Inputs[0]].rank, fmt.Sprint(name, ".input", i))
	}
	return names
}

// reshape writes the node that gives x the shape s in the given rank.
func (w *writer) reshape(x, name string, s graph.Shape, rank int) {
	if rank == 2 {
		w.emit("Flatten", []string{x}, name, intAttribute("axis", 1))
		return
	}
	// The size 0 keeps the batch.
	w.emit("Reshape", []string{x, w.ints(name+".shape", append([]int64{0}, dimsOf(s, rank)...)...)}, name)
}

// ints writes a list of integers, and returns its name.
func (w *writer) ints(name string, v ...int64) string {
	var t message
	t.int(1, int64(len(v)))
	t.int(2, typeInt64)
	t.string(8, name)
	var raw []byte
	for _, d := range v {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(d))
	}
	t.bytes(9, raw)
	w.initializers = append(w.initializers, t)
	return name
}

// floats writes a weight tensor, and returns its name.
func (w *writer) floats(name string, v []float32, dims ...int) string {
	var t message
	for _, d := range dims {
		t.int(1, int64(d))
	}
	t.int(2, typeFloat)
	t.string(8, name)
	raw := make([]byte, 0, 4*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	t.bytes(9, raw)
	w.initializers = append(w.initializers, t)
	return name
}

// emit writes a node of one output, after which it is named.
func (w *writer) emit(op string, inputs []string, output string, attributes ...message) {
	w.emitAll(op, inputs, []string{output}, attributes...)
}

// emitAll is emit of a node of several outputs, some without a name.
func (w *writer) emitAll(op string, inputs, outputs []string, attributes ...message) {
	var n message
	for _, in := range inputs {
		n.string(1, in)
	}
	for _, out := range outputs {
		n.string(2, out)
	}
	n.string(3, outputs[0])
	n.string(4, op)
	for _, a := range attributes {
		n.bytes(5, a)
	}
	w.nodes = append(w.nodes, n)
}
