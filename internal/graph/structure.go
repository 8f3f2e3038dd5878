package graph

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
)

// A structure is a graph without the weights of its linear operators and the tables of
// embeddings, as JSON.
type structure struct {
	Input   Shape
	Parts   []Part `json:",omitempty"`
	Nodes   []structureNode
	Output  Value
	Results []Result `json:",omitempty"`
}

type structureNode struct {
	Op         string // Op.Name
	Inputs     []Value
	Parameters json.RawMessage // the operator's fields
}

// decoders has an operator's decoder by name.
var decoders = map[string]func(json.RawMessage) (Op, error){
	(*Dense)(nil).Name():      decodePointer[Dense],
	(*Conv2D)(nil).Name():     decodePointer[Conv2D],
	(*Affine)(nil).Name():     decodePointer[Affine],
	(*PReLU)(nil).Name():      decodePointer[PReLU],
	(*Transpose)(nil).Name():  decodePointer[Transpose],
	(*Embedding)(nil).Name():  decodePointer[Embedding],
	(*Gather)(nil).Name():     decodePointer[Gather],
	(*Recurrence)(nil).Name(): decodePointer[Recurrence],
	ReLU{}.Name():             decodeValue[ReLU],
	LeakyReLU{}.Name():        decodeValue[LeakyReLU],
	Clip{}.Name():             decodeValue[Clip],
	Sigmoid{}.Name():          decodeValue[Sigmoid],
	Tanh{}.Name():             decodeValue[Tanh],
	Square{}.Name():           decodeValue[Square],
	Add{}.Name():              decodeValue[Add],
	Concat{}.Name():           decodeValue[Concat],
	MaxPool{}.Name():          decodeValue[MaxPool],
	AvgPool{}.Name():          decodeValue[AvgPool],
	SumPool{}.Name():          decodeValue[SumPool],
	Reshape{}.Name():          decodeValue[Reshape],
	Softmax{}.Name():          decodeValue[Softmax],
	LogSoftmax{}.Name():       decodeValue[LogSoftmax],
	ELU{}.Name():              decodeValue[ELU],
	Softplus{}.Name():         decodeValue[Softplus],
	Erf{}.Name():              decodeValue[Erf],
	Exp{}.Name():              decodeValue[Exp],
	Log{}.Name():              decodeValue[Log],
	Abs{}.Name():              decodeValue[Abs],
	Reciprocal{}.Name():       decodeValue[Reciprocal],
	Sqrt{}.Name():             decodeValue[Sqrt],
	Sub{}.Name():              decodeValue[Sub],
	Mul{}.Name():              decodeValue[Mul],
	Div{}.Name():              decodeValue[Div],
	ChannelMean{}.Name():      decodeValue[ChannelMean],
	Slice{}.Name():            decodeValue[Slice],
	Pad{}.Name():              decodeValue[Pad],
	Resize{}.Name():           decodeValue[Resize],
	Step{}.Name():             decodeValue[Step],
	Select{}.Name():           decodeValue[Select],
	Max{}.Name():              decodeValue[Max],
	Min{}.Name():              decodeValue[Min],
	CumSum{}.Name():           decodeValue[CumSum],
	Product{}.Name():          decodeValue[Product],
	Outputs{}.Name():          decodeValue[Outputs],
}

// decodePointer decodes an operator that is a pointer.
func decodePointer[T any, P interface {
	*T
	Op
}](p json.RawMessage) (Op, error) {
	op := P(new(T))
	return op, unmarshal(p, op)
}

// decodeValue decodes an operator that is a plain value.
func decodeValue[T Elementary](p json.RawMessage) (Op, error) {
	var op T
	err := unmarshal(p, &op)
	return op, err
}

// EncodeStructure returns a valid graph as compact JSON: its order, the
// operators' parameters and biases. The weights of linear operators and the tables of
// embeddings are left out.
// The bytes are a function of the graph alone. Biases, scales and shifts make
// them secret.
func EncodeStructure(g *Graph) ([]byte, error) { return encodeStructure(g, nil) }

// EncodeShared is EncodeStructure, but for constants of many elements: the bytes have their numbers,
// and equal ones are there once.
func EncodeShared(g *Graph) (b []byte, shared [][]float32, err error) {
	c := &constants{at: map[*float32]int{}, equal: map[[sha256.Size]byte]int{}}
	b, err = encodeStructure(g, c)
	return b, c.list, err
}

// encodeStructure encodes a graph, with long constants in c unless that is nil.
func encodeStructure(g *Graph, c *constants) ([]byte, error) {
	if _, err := g.Shapes(); err != nil {
		return nil, err
	}
	s := structure{Input: g.Input, Parts: g.Parts, Nodes: make([]structureNode, len(g.Nodes)), Output: g.Output, Results: g.Results}
	for i, n := range g.Nodes {
		name := n.Op.Name()
		affine, ok := n.Op.(*ElementAffine)
		if decoders[name] == nil && !ok {
			return nil, fmt.Errorf("%w: node %d (%s) has no encoding", ErrInvalid, i, name)
		}
		var p []byte
		var err error
		if ok && c != nil {
			p, err = c.encode(affine)
		} else {
			p, err = json.Marshal(n.Op)
		}
		if err != nil {
			return nil, fmt.Errorf("graph: node %d (%s): %w", i, name, err)
		}
		s.Nodes[i] = structureNode{name, n.Inputs, p}
	}
	return json.Marshal(s)
}

// DecodeStructure reads what EncodeStructure writes, but for white space between
// tokens, and nothing else: unknown, repeated and missing fields are refused. In
// the graph that it returns every check of Shapes holds, and linear operators
// have nil weights and embeddings nil tables. Its errors wrap ErrInvalid and hold no parameters but sizes.
func DecodeStructure(b []byte) (*Graph, error) { return DecodeShared(b, nil) }

// DecodeShared reads what EncodeShared writes, and without constants what EncodeStructure does. The
// graph's operators have the constants themselves.
func DecodeShared(b []byte, shared [][]float32) (*Graph, error) {
	var s structure
	if err := unmarshal(b, &s); err != nil {
		return nil, err
	}
	g := &Graph{Input: s.Input, Parts: s.Parts, Nodes: make([]Node, len(s.Nodes)), Output: s.Output, Results: s.Results}
	for i, n := range s.Nodes {
		decode := decoders[n.Op]
		if n.Op == (*ElementAffine)(nil).Name() {
			decode = func(p json.RawMessage) (Op, error) { return decodeElementAffine(p, shared) }
		}
		if decode == nil {
			return nil, fmt.Errorf("%w: node %d: unknown operator %.32q", ErrInvalid, i, n.Op)
		}
		op, err := decode(n.Parameters)
		if err != nil {
			return nil, fmt.Errorf("node %d (%s): %w", i, n.Op, err)
		}
		g.Nodes[i] = Node{op, n.Inputs}
	}
	again, all, err := []byte(nil), [][]float32(nil), error(nil)
	if len(shared) == 0 {
		again, err = EncodeStructure(g)
	} else {
		again, all, err = EncodeShared(g)
	}
	if err != nil {
		return nil, err
	}
	if len(all) != len(shared) {
		return nil, fmt.Errorf("%w: %d constants, %d are read", ErrInvalid, len(shared), len(all))
	}
	// encoding/json takes unknown, repeated and missing fields, and names in any case.
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil || !bytes.Equal(compact.Bytes(), again) {
		return nil, fmt.Errorf("%w: structure is not in the form that EncodeStructure writes", ErrInvalid)
	}
	return g, nil
}

// unmarshal decodes one JSON value. What encoding/json says of a bad one may
// quote it, so that is not passed on.
func unmarshal(b []byte, v any) error {
	if json.Unmarshal(b, v) != nil {
		return fmt.Errorf("%w: malformed structure", ErrInvalid)
	}
	return nil
}
