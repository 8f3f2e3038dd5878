package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// Parse reads an ONNX model (the bytes of a .onnx file). Its errors wrap
// ErrFormat or ErrInvalid, or are an *UnsupportedError with all that is not
// supported. The graph that it returns is valid and keeps no reference to b.
func Parse(b []byte) (*graph.Graph, error) { return ParseWith(b, Options{}) }

// ParseWith is Parse as options say.
func ParseWith(b []byte, o Options) (*graph.Graph, error) {
	m, err := decodeModel(b)
	if err != nil {
		return nil, err
	}
	g, err := parse(m, len(b), o)
	if err != nil {
		return nil, err
	}
	for i, e := range g.Embeddings() {
		if err := e.Load(); err != nil {
			return nil, invalid(fmt.Errorf("embedding %d: %w", i, err))
		}
		e.From = nil
	}
	for i, n := range g.Nodes {
		l, ok := n.Op.(graph.Linear)
		if !ok || l.Stored() == nil {
			continue
		}
		w := make([]float32, l.Plan().Rows()*l.Plan().Terms())
		if err := graph.ReadWeights(w, l); err != nil {
			return nil, invalid(fmt.Errorf("node %d (%s): %w", i, l.Name(), err))
		}
		switch op := l.(type) {
		case *graph.Dense:
			g.Nodes[i].Op = &graph.Dense{In: op.In, Out: op.Out, W: w, B: op.B}
		case *graph.Conv2D:
			g.Nodes[i].Op = &graph.Conv2D{Geometry: op.Geometry, W: w, B: op.B}
		}
	}
	return g, nil
}

// ParseStored is Parse, but for the weights of linear operators and the tables of embeddings:
// the graph reads them from b as they are asked for, and they may be not finite.
func ParseStored(b []byte) (*graph.Graph, error) {
	m, err := decodeModel(b)
	if err != nil {
		return nil, err
	}
	return parse(m, len(b), Options{})
}

// invalid returns an error of package graph as one of this package.
func invalid(err error) error {
	if errors.Is(err, graph.ErrInvalid) {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return err
}

// parse reads a model of size bytes. The weights of its linear operators stay stored.
func parse(m *model, size int, o Options) (*graph.Graph, error) {
	p := &parser{
		words:       size,
		computed:    size + foldedFrom,
		looked:      foldedRead * (size + foldedFrom),
		operands:    map[string]operand{},
		moves:       map[string]operand{},
		uses:        map[string]int{},
		unsupported: map[string]bool{},
	}
	if m.functions {
		p.unsupported["model-local functions"] = true
	}
	if m.graph.sparse {
		p.unsupported["sparse initializers"] = true
	}
	if err := p.readOpset(m.opsets); err != nil {
		return nil, err
	}
	if err := p.readInterface(m.graph, o); err != nil {
		return nil, err
	}
	for i := range m.graph.nodes {
		if err := p.readNode(&m.graph.nodes[i]); err != nil {
			return nil, fmt.Errorf("node %d (%s): %w", i, clean(m.graph.nodes[i].op), err)
		}
	}
	for _, v := range m.graph.outputs {
		if _, ok := p.operands[v.name]; !ok {
			return nil, fmt.Errorf("%w: output %s", ErrUndefined, clean(v.name))
		}
	}
	if len(p.unsupported) > 0 {
		e := new(UnsupportedError)
		for op := range p.unsupported {
			e.Ops = append(e.Ops, op)
		}
		slices.Sort(e.Ops)
		return nil, e
	}
	if err := p.readOutputs(m.graph.outputs); err != nil {
		return nil, err
	}
	g := graph.Simplify(&p.graph)
	return g, invalid(g.Validate())
}

// errSkip is returned for a node that cannot be read because of something that
// is noted in parser.unsupported. It does not leave the parser.
var errSkip = errors.New("onnx: unsupported")

type parser struct {
	graph graph.Graph
	opset int64
	// batch is the input's first size, or 0 where it is symbolic.
	batch int64
	// words is how many more weights, biases and the like may be made. It starts
	// at the file's size, so that a tensor may serve several nodes, but memory
	// stays within 4 bytes a byte of the file, and time with it.
	words int
	// computed is how many more elements may be computed of constants, and looked how many more
	// of integers read for that.
	computed    int
	looked      int
	operands    map[string]operand
	moves       map[string]operand // values that were transposed, by what and how
	uses        map[string]int     // readers by name
	unsupported map[string]bool
}

// operand is what a name stands for: a constant, one for each sample, a part of a shape, a value of
// the graph, or the zero operand, the result of a node that is not supported.
type operand struct {
	constant *tensor
	shared   bool    // a constant that has for its first dimension of 1 one of the batch's size
	steps    []int64 // by how much its elements change from sample to sample, or nil for not at all
	sizes    *sizes
	common   *common
	known    bool // a value of the graph: the fields below are set
	value    graph.Value
	shape    graph.Shape
	axes     []axis // of the dimensions after the batch, nil in a split
	split    *split
	wide     *graph.Shape // what an Expand makes of the shape, or nil
	truth    *truth       // where the value is or is not above 0, as a comparison gives; or nil
	whole    bool         // integers, of which nothing is computed before they are floats
	bounds   [2]int64     // of integers: the least and the largest
	part     int          // 1 + the number of the graph's part that the elements are of, or 0; it is of integers
	masked   bool         // it may be negative infinity, see passes
	softened bool         // what a softmax gives, never NaN
}

// clean returns a name from the file for use in a message.
func clean(name string) string {
	const most = 64
	if len(name) > most {
		name = name[:most]
	}
	for _, r := range name {
		if (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && r != '_' && r != '.' {
			return fmt.Sprintf("%q", name)
		}
	}
	if name == "" {
		return `""`
	}
	return name
}

func (p *parser) readOpset(opsets []opset) error {
	for _, o := range opsets {
		if o.domain != "" && o.domain != "ai.onnx" {
			continue // the domain's operators are refused by name
		}
		if p.opset != 0 {
			return fmt.Errorf("%w: two opsets", ErrInvalid)
		}
		if o.version < minOpset || o.version > maxOpset {
			p.unsupported[fmt.Sprintf("opset %d", o.version)] = true
		}
		p.opset = o.version
	}
	if p.opset == 0 {
		return fmt.Errorf("%w: no opset", ErrInvalid)
	}
	return nil
}

// readInterface reads what the graph is given, and which outputs are asked of it.
func (p *parser) readInterface(g *graphProto, o Options) error {
	if err := g.choose(o.Outputs); err != nil {
		return err
	}
	for _, t := range g.initializers {
		if err := p.define(t.name, operand{constant: t}); err != nil {
			return err
		}
	}
	for i := range g.nodes {
		for _, name := range g.nodes[i].inputs {
			p.uses[name]++
		}
	}
	for _, v := range g.outputs {
		p.uses[v.name]++
	}
	var inputs []valueInfo
	for _, v := range g.inputs {
		if p.operands[v.name].constant == nil { // files before IR version 4 list the weights here too
			inputs = append(inputs, v)
		}
	}
	if len(inputs) == 0 || len(g.outputs) == 0 {
		return fmt.Errorf("%w: no input or no output", ErrInvalid)
	}
	if err := o.Sizes.fix(inputs); err != nil {
		return err
	}
	return p.readInputs(inputs)
}

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

// define names an operand. Names are defined once.
func (p *parser) define(name string, o operand) error {
	if name == "" {
		return fmt.Errorf("%w: value without a name", ErrInvalid)
	}
	if _, ok := p.operands[name]; ok {
		return fmt.Errorf("%w: %s is defined twice", ErrInvalid, clean(name))
	}
	p.operands[name] = o
	return nil
}

// refuse notes that n needs what is not supported. Its detail may be empty.
func (p *parser) refuse(n *node, format string, a ...any) error {
	name := clean(n.op)
	if n.domain != "" && n.domain != "ai.onnx" {
		name = clean(n.domain) + "." + name
	}
	if format != "" {
		name += "(" + fmt.Sprintf(format, a...) + ")"
	}
	p.unsupported[name] = true
	return errSkip
}

// readNode reads one node and defines its outputs.
func (p *parser) readNode(n *node) error {
	for _, name := range n.inputs {
		if _, ok := p.operands[name]; !ok && name != "" {
			return fmt.Errorf("%w: %s", ErrUndefined, clean(name))
		}
	}
	if len(n.outputs) == 0 {
		return fmt.Errorf("%w: no output", ErrInvalid)
	}
	results, err := p.results(n)
	if err != nil && !errors.Is(err, errSkip) {
		return err
	}
	for i, name := range n.outputs {
		if name == "" && (i > 0 || err != nil || len(results) > 1) {
			continue
		}
		o := operand{}
		if i < len(results) && err == nil {
			o = results[i]
		} else if err == nil && p.uses[name] > 0 {
			// Indices and masks are left out, where nothing reads them.
			p.refuse(n, "output %d", i)
		}
		if err := p.define(name, o); err != nil {
			return err
		}
	}
	return nil
}

// results returns what the first outputs of n stand for: one, but of a Split or a recurrent layer.
func (p *parser) results(n *node) ([]operand, error) {
	op, ok := operators[n.op]
	if !ok || n.domain != "" && n.domain != "ai.onnx" {
		return nil, p.refuse(n, "")
	}
	if len(n.inputs) > op.inputs {
		return nil, fmt.Errorf("%w: %d inputs", ErrInvalid, len(n.inputs))
	}
	for i, a := range n.attributes {
		kind, ok := op.attributes[a.name]
		if !ok {
			return nil, p.refuse(n, "%s", clean(a.name))
		}
		if kind != a.kind {
			return nil, fmt.Errorf("%w: attribute %s of type %d", ErrInvalid, a.name, a.kind)
		}
		for _, b := range n.attributes[:i] {
			if a.name == b.name {
				return nil, fmt.Errorf("%w: attribute %s stands twice", ErrInvalid, a.name)
			}
		}
	}
	if o, done, err := p.folded(n); done || err != nil {
		return []operand{o}, err
	}
	var results []operand
	var err error
	switch n.op {
	case "Split":
		results, err = p.parts(n)
	case "LSTM", "GRU", "RNN":
		results, err = p.recurrent(n)
	default:
		results = []operand{{}}
		results[0], err = op.read(p, n)
	}
	if err == nil && movement[n.op] {
		p.sameElements(n, results)
	}
	return results, err
}

// movement are the operators that give elements of their first input as they are.
var movement = map[string]bool{
	"Reshape": true, "Flatten": true, "Squeeze": true, "Unsqueeze": true, "Transpose": true, "Slice": true,
	"Gather": true, "GatherND": true, "Split": true, "Expand": true, "Tile": true, "Identity": true,
}

// alike notes that o's elements are x's.
func (o *operand) alike(x operand) {
	o.truth, o.whole, o.part, o.softened, o.bounds, o.masked = x.truth, x.whole, x.part, x.softened, x.bounds, x.masked
}

// passes are the operators, beside those of movement, that take a masked value: others would make
// NaN of negative infinities.
var passes = map[string]bool{"Add": true, "Where": true, "Softmax": true, "Dropout": true}

// sameElements notes of n's results what is known of its input's elements.
func (p *parser) sameElements(n *node, results []operand) {
	x := p.operands[n.inputs[0]]
	if !x.known {
		return // a table, of which an input had the places
	}
	for i := range results {
		if o := &results[i]; o.known {
			o.alike(x)
		}
	}
}

// has reports whether input i of n is given.
func (n *node) has(i int) bool { return i < len(n.inputs) && n.inputs[i] != "" }

// operand returns input i of n, which must be given.
func (p *parser) operand(n *node, i int) (operand, error) {
	o, err := p.any(n, i)
	if err == nil && o.shared {
		return o, p.refuse(n, "of what is expanded")
	}
	return o, err
}

// any returns what operand does, and what is shared by the samples too.
func (p *parser) any(n *node, i int) (operand, error) {
	if !n.has(i) {
		return operand{}, fmt.Errorf("%w: no input %d", ErrInvalid, i)
	}
	o := p.operands[n.inputs[i]]
	if o.common != nil {
		if !slices.Contains(readsCommon, n.op) {
			return o, p.refuse(n, "of what is expanded")
		}
		return o, nil
	}
	if !o.known && o.constant == nil && o.sizes == nil {
		return o, errSkip
	}
	if t := o.constant; t != nil && t.of != nil && n.op != "Identity" && (i != 1 || n.op != "MatMul" && n.op != "Gemm") {
		// What is no matrix of weights is held in memory.
		var err error
		if o.constant, err = p.transposed(n, t.of, []int{1, 0}); err != nil {
			return o, err
		}
		p.operands[n.inputs[i]] = o
	}
	if o.truth != nil && !movement[n.op] && !slices.Contains([]string{"And", "Or", "Not", "Where", "Cast", "Shape"}, n.op) {
		return o, p.refuse(n, "of a comparison")
	}
	return o, nil
}

// variable returns input i of n, which must be a value of the graph, of the
// given rank unless that is 0. With a rank its dimensions are in ONNX's order.
func (p *parser) variable(n *node, i, rank int) (operand, error) {
	o, err := p.viewed(n, i)
	if err != nil {
		return o, err
	}
	if rank != 0 && o.rank() != rank {
		return o, fmt.Errorf("%w: input of rank %d, want %d", ErrInvalid, o.rank(), rank)
	}
	if o, err = p.plain(n, o); err != nil || rank == 0 {
		return o, err
	}
	return p.ordered(o)
}

// plain returns x, which n reads, with axes.
func (p *parser) plain(n *node, x operand) (operand, error) {
	r := x.rank()
	x, ok, err := p.settled(x)
	switch {
	case err != nil || ok:
		return x, err
	case r > len(canonical) || r < 2:
		return x, p.refuse(n, "input of rank %d", r)
	}
	return x, p.refuse(n, "across samples")
}

// constant returns input i of n, which must be a constant.
func (p *parser) constant(n *node, i int) (*tensor, error) {
	o, err := p.operand(n, i)
	if err != nil {
		return nil, err
	}
	if o.constant == nil {
		return nil, p.refuse(n, "input %d not constant", i)
	}
	return o.constant, nil
}

// apply appends a node that reads x to the graph. Its output has the given axes, or the
// dimensions of the first of x if that is a split of its shape.
func (p *parser) apply(op graph.Op, axes []axis, x ...operand) (operand, error) {
	values, shapes := make([]graph.Value, len(x)), make([]graph.Shape, len(x))
	for i, o := range x {
		values[i], shapes[i] = o.value, o.shape
	}
	shape, err := op.OutShape(shapes...)
	if err != nil {
		return operand{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	p.graph.Nodes = append(p.graph.Nodes, graph.Node{Op: op, Inputs: values})
	y := operand{known: true, value: graph.Value(len(p.graph.Nodes)), shape: shape, axes: axes}
	if x[0].split != nil && shape == x[0].shape {
		y.split = x[0].split
	}
	return y, nil
}

func (n *node) attribute(name string) (attribute, bool) {
	for _, a := range n.attributes {
		if a.name == name {
			return a, true
		}
	}
	return attribute{}, false
}

func (n *node) float(name string, otherwise float32) float32 {
	if a, ok := n.attribute(name); ok {
		return a.f
	}
	return otherwise
}

func (n *node) int(name string, otherwise int64) int64 {
	if a, ok := n.attribute(name); ok {
		return a.i
	}
	return otherwise
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
