package onnx

import (
	"fmt"
	"strings"

	"github.com/securenets/securenets/internal/graph"
)

// How single operators are written.

// affine writes op of x as Mul, Add or both.
func (w *writer) affine(op *graph.Affine, x value, name string) {
	dims := func(v []float32) []int { return []int{len(v), 1, 1}[:x.rank-1] }
	if op.Shift == nil {
		w.emit("Mul", []string{x.name, w.floats(name+".scale", op.Scale, dims(op.Scale)...)}, name)
		return
	}
	if op.Scale != nil {
		w.emit("Mul", []string{x.name, w.floats(name+".scale", op.Scale, dims(op.Scale)...)}, name+".scaled")
		x.name = name + ".scaled"
	}
	w.emit("Add", []string{x.name, w.floats(name+".shift", op.Shift, dims(op.Shift)...)}, name)
}

// elementAffine writes op of x, of shape s, as Mul, Add or both, by way of a tensor that has
// a dimension for what is repeated.
func (w *writer) elementAffine(op *graph.ElementAffine, x string, s graph.Shape, name string, rank int) {
	dims, constant := []int64{0}, []int{1}
	for a, e := range extents(op.Extent) {
		dims, constant = append(dims, int64(extents(s)[a]/e), int64(e)), append(constant, 1, e)
	}
	chw := func(v []float32) []float32 {
		u := make([]float32, len(v))
		graph.HWCToCHW(u, v, 1, op.Extent)
		return u
	}
	w.emit("Reshape", []string{x, w.ints(name+".dims", dims...)}, name+".split")
	x = name + ".split"
	if op.Scale != nil {
		w.emit("Mul", []string{x, w.floats(name+".scale", chw(op.Scale), constant...)}, name+".scaled")
		x = name + ".scaled"
	}
	if op.Shift != nil {
		w.emit("Add", []string{x, w.floats(name+".shift", chw(op.Shift), constant...)}, name+".shifted")
		x = name + ".shifted"
	}
	w.reshape(x, name, s, rank)
}

// average writes an AveragePool of x.
func (w *writer) average(op graph.AvgPool, x, name string) {
	count := 0
	if op.CountPad {
		count = 1
	}
	w.emit("AveragePool", []string{x}, name, append(poolAttributes(op.Pool), intAttribute("count_include_pad", count))...)
}

// slice writes op of x.
func (w *writer) slice(op graph.Slice, x value, name string) {
	var starts, ends, axes []int64
	for i, r := range []graph.Range{op.C, op.H, op.W}[:x.rank-1] {
		starts, ends, axes = append(starts, int64(r.From)), append(ends, int64(r.To)), append(axes, int64(1+i))
	}
	w.emit("Slice", []string{x.name, w.ints(name+".starts", starts...), w.ints(name+".ends", ends...), w.ints(name+".axes", axes...)}, name)
}

// gather writes op of x.
func (w *writer) gather(op *graph.Gather, x, name string) {
	places := make([]int64, len(op.From))
	for i, v := range op.From {
		places[i] = int64(v)
	}
	axis := map[string]int{"C": 1, "H": 2, "W": 3}[op.Along]
	w.emit("Gather", []string{x, w.ints(name+".places", places...)}, name, intAttribute("axis", axis))
}

// resize writes op of x, a map of the given shape.
func (w *writer) resize(op graph.Resize, from graph.Shape, x, name string) {
	attributes := []message{stringAttribute("mode", op.Mode), stringAttribute("coordinate_transformation_mode", op.Places)}
	if op.Rounding != "" {
		attributes = append(attributes, stringAttribute("nearest_mode", op.Rounding))
	}
	if op.H == graph.Scaled(from.H, op.ScaleH) && op.W == graph.Scaled(from.W, op.ScaleW) {
		scales := w.floats(name+".scales", []float32{1, 1, op.ScaleH, op.ScaleW}, 4)
		w.emit("Resize", []string{x, "", scales}, name, attributes...)
		return
	}
	// The batch's size is in the shape alone.
	w.emit("Shape", []string{x}, name+".shape")
	w.emit("Slice", []string{name + ".shape", w.ints(name+".from", 0), w.ints(name+".to", 2)}, name+".kept")
	w.emit("Concat", []string{name + ".kept", w.ints(name+".map", int64(op.H), int64(op.W))}, name+".sizes", intAttribute("axis", 0))
	w.emit("Resize", []string{x, "", "", name + ".sizes"}, name, attributes...)
}

// transpose writes op of x, by way of a tensor of more dimensions than values have.
func (w *writer) transpose(op *graph.Transpose, x, name string, rank int) {
	dims, perm := []int64{0}, []int{0}
	more := max(len(canonical)-len(op.Dims), 0)
	for i := range more {
		dims, perm = append(dims, 1), append(perm, 1+i)
	}
	for _, d := range op.Dims {
		dims = append(dims, int64(d))
	}
	for _, a := range op.Perm {
		perm = append(perm, 1+more+a)
	}
	w.emit("Reshape", []string{x, w.ints(name+".dims", dims...)}, name+".split")
	w.emit("Transpose", []string{name + ".split"}, name+".transposed", intsAttribute("perm", perm...))
	to := append([]int64{0}, dimsOf(op.To, rank)...)
	w.emit("Reshape", []string{name + ".transposed", w.ints(name+".shape", to...)}, name)
}

// product writes op by way of tensors with channels last.
func (w *writer) product(op graph.Product, n graph.Node, shapes []graph.Shape, name string) {
	inputs := make([]string, 2)
	for i, v := range n.Inputs {
		perm := []int{0, 2, 3, 1}
		if i == 1 && op.Transposed {
			perm = []int{0, 2, 1, 3}
		}
		inputs[i] = fmt.Sprint(name, ".matrices", i)
		w.emit("Transpose", []string{w.ranked(v, shapes[v], 4, fmt.Sprint(name, ".input", i))}, inputs[i], intsAttribute("perm", perm...))
	}
	w.emit("MatMul", inputs, name+".products")
	w.emit("Transpose", []string{name + ".products"}, name, intsAttribute("perm", 0, 3, 1, 2))
}

// embedding writes op of x, a vector of many elements.
func (w *writer) embedding(op *graph.Embedding, x string, many int, name string) {
	w.emit("Cast", []string{x}, name+".rows", intAttribute("to", typeInt64))
	w.emit("Gather", []string{w.floats(name+".table", op.Table, op.Rows, op.Width), name + ".rows"}, name+".last", intAttribute("axis", 0))
	w.emit("Transpose", []string{name + ".last"}, name+".first", intsAttribute("perm", 0, 2, 1))
	w.reshape(name+".first", name, graph.Shape{H: 1, W: many, C: op.Width}, 4)
}

// recurrence writes op and the linear operator before it as one layer. Its sequences are the
// samples' rows.
func (w *writer) recurrence(op *graph.Recurrence, n graph.Node, shapes []graph.Shape, name string) error {
	layer := w.layers[n.Inputs[0]]
	if layer == nil || layer.Op.(graph.Linear).Weights() == nil {
		return &UnsupportedError{Ops: []string{op.Name()}}
	}
	x, l := layer.Inputs[0], layer.Op.(graph.Linear)
	s, gates, hidden := shapes[x], graph.Gates(op.Cell), op.Hidden
	each := gates * hidden
	dirs := l.Plan().Rows() / each
	w.emit("Transpose", []string{w.ranked(x, s, 4, name+".input")}, name+".steps", intsAttribute("perm", 3, 0, 2, 1))
	w.emit("Reshape", []string{name + ".steps", w.ints(name+".dims", int64(s.W), -1, int64(s.C))}, name+".sequences")
	inputs := []string{name + ".sequences", w.floats(name+".weight", l.Weights(), dirs, each, s.C), w.floats(name+".recurrence", op.R, dirs, each, hidden), "", "", ""}
	if l.Bias() != nil || op.B != nil {
		b := make([]float32, 2*dirs*each)
		for d := range dirs {
			if l.Bias() != nil {
				copy(b[2*d*each:], l.Bias()[d*each:][:each])
			}
			if op.B != nil {
				copy(b[2*(d+1)*each-hidden:], op.B[d*hidden:][:hidden])
			}
		}
		inputs[3] = w.floats(name+".bias", b, dirs, 2*each)
	}
	for i, v := range []graph.Floats{op.H, op.C}[:1+gates/4] {
		inputs = append(inputs[:5+i], "")
		if v == nil {
			continue
		}
		// The same for all samples: expanded to as many as there are.
		state, to := fmt.Sprint(name, ".state", i), fmt.Sprint(name, ".states", i)
		w.emit("Shape", []string{name + ".sequences"}, to+".all")
		w.emit("Slice", []string{to + ".all", w.ints(to+".from", 1), w.ints(to+".to", 2)}, to+".samples")
		w.emit("Concat", []string{w.ints(to+".directions", int64(dirs)), to + ".samples", w.ints(to+".hidden", int64(hidden))}, to+".shape", intAttribute("axis", 0))
		w.emit("Expand", []string{w.floats(state, v, dirs, 1, hidden), to + ".shape"}, to)
		inputs[5+i] = to
	}
	for inputs[len(inputs)-1] == "" {
		inputs = inputs[:len(inputs)-1]
	}
	kind := strings.ToUpper(op.Cell)
	attributes := []message{intAttribute("hidden_size", hidden), stringAttribute("direction", op.Direction)}
	var functions message
	functions.string(1, "activations")
	for range dirs {
		for _, f := range op.Functions {
			functions.string(9, strings.ToUpper(f[:1])+f[1:])
		}
	}
	functions.int(20, attributeStrings)
	attributes = append(attributes, functions)
	if op.ResetAfter {
		attributes = append(attributes, intAttribute("linear_before_reset", 1))
	}
	outputs := []string{name + ".all"}
	if op.Cells {
		outputs = append(outputs, "", name+".last")
	}
	w.emitAll(kind, inputs, outputs, attributes...)
	d, rows, h := int64(dirs), int64(s.H), int64(hidden)
	w.emit("Reshape", []string{name + ".all", w.ints(name+".all.dims", int64(s.W), d, -1, rows, h)}, name+".split")
	w.emit("Transpose", []string{name + ".split"}, name+".turned", intsAttribute("perm", 2, 1, 4, 3, 0))
	w.emit("Reshape", []string{name + ".turned", w.ints(name+".shape", 0, d*h, rows, int64(s.W))}, name)
	if op.Cells {
		c := name + ".cells"
		// By way of more dimensions than values have, so that the last Reshape moves nothing.
		w.emit("Reshape", []string{name + ".last", w.ints(c+".dims", d, -1, rows, h, 1)}, c+".split")
		w.emit("Transpose", []string{c + ".split"}, c+".turned", intsAttribute("perm", 1, 0, 3, 2, 4))
		w.emit("Reshape", []string{c + ".turned", w.ints(c+".shape", 0, d*h, rows, 1)}, c)
		w.cells[graph.Value(len(w.values))] = c
	}
	return nil
}

// ofCells writes what reads a Recurrence with cells, if n does, which ONNX has as two values:
// a Slice of all steps or of the cells.
func (w *writer) ofCells(n graph.Node, shapes []graph.Shape, name string) (bool, error) {
	for _, v := range n.Inputs {
		c, ok := w.cells[v]
		if !ok {
			continue
		}
		s := shapes[v]
		part := graph.Slice{H: graph.Range{To: s.H}, W: graph.Range{To: s.W - 1}, C: graph.Range{To: s.C}}
		if n.Op == part {
			c = w.values[v].name
		} else if part.W = (graph.Range{From: s.W - 1, To: s.W}); n.Op != part {
			return true, &UnsupportedError{Ops: []string{n.Op.Name() + " of cells"}}
		}
		w.emit("Identity", []string{c}, name)
		return true, nil
	}
	return false, nil
}

// inputLayers returns, by value, the linear operators of g that are written as parts of layers:
// those over channels alone that a Recurrence alone reads.
func inputLayers(g *graph.Graph) map[graph.Value]*graph.Node {
	readers := make([]int, len(g.Nodes)+1)
	readers[g.Output]++
	for _, n := range g.Nodes {
		for _, v := range n.Inputs {
			readers[v]++
		}
	}
	layers := map[graph.Value]*graph.Node{}
	for _, n := range g.Nodes {
		v := n.Inputs[0]
		if _, ok := n.Op.(*graph.Recurrence); !ok || v == 0 || readers[v] != 1 {
			continue
		}
		switch l := g.Nodes[v-1].Op.(type) {
		case *graph.Dense:
			layers[v] = &g.Nodes[v-1]
		case *graph.Conv2D:
			s := graph.Shape{H: l.Geometry.H, W: l.Geometry.W, C: l.Geometry.C}
			if like := overPositions(&graph.Dense{In: s.C, Out: l.Geometry.OutC}, s).(*graph.Conv2D); l.Geometry == like.Geometry {
				layers[v] = &g.Nodes[v-1]
			}
		}
	}
	return layers
}
