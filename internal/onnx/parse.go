package onnx

import (
	"errors"
	"fmt"
	"slices"

	"github.com/securenets/securenets/internal/graph"
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

// readOpset reads the opset of ONNX's own operators.
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
