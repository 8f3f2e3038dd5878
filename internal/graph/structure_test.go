package graph_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
	"github.com/securenets/securenets/plan"
)

// everyOperator returns a graph that uses each operator.
func everyOperator() *graph.Graph {
	r := source(1)
	conv := graphtest.Conv(r, plan.Conv2D{H: 6, W: 5, C: 2, OutC: 4, KH: 3, KW: 2, SH: 1, SW: 2, DH: 1, DW: 2, Top: 1, Right: 1, Groups: 2})
	dense := graphtest.Dense(r, 12, 3)
	dense.B = nil
	g := graphtest.Chain(graph.Shape{H: 6, W: 5, C: 2}, conv, graph.ReLU{}, graph.Square{},
		&graph.Affine{Scale: graphtest.Normal(r, 4, 1)}, &graph.Affine{Shift: graphtest.Normal(r, 4, 1)},
		graph.MaxPool{Pool: pool(2, 1, 1, 1)}, graph.AvgPool{Pool: pool(3, 2, 2, 1, 1, 0, 1, 1), CountPad: true},
		graph.AvgPool{Pool: pool(1, 1, 1, 1)}, graph.SumPool{Pool: pool(1, 1, 1, 1)}, graph.Reshape{To: graph.Vector(16)},
		graphtest.Dense(r, 16, 12), graph.LeakyReLU{Alpha: 0.1}, graph.Clip{Min: -math.MaxFloat32, Max: 6},
		graph.Sigmoid{}, graph.Add{}, graph.Tanh{}, graph.Concat{}, graph.Reshape{To: graph.Vector(24)},
		graphtest.Dense(r, 24, 12), dense, graph.Softmax{}, graph.Sub{}, graph.Mul{}, graph.Div{}, graph.Max{}, graph.Min{}, graph.Step{}, graph.Select{},
		graph.ELU{Alpha: 0.5}, graph.Softplus{}, graph.Erf{}, graph.Exp{}, graph.Log{}, graph.Abs{}, graph.Reciprocal{}, graph.Sqrt{}, &graph.PReLU{Slope: graphtest.Normal(r, 3, 1)}, graph.LogSoftmax{},
		graph.Pad{Before: graph.Shape{H: 1}, After: graph.Shape{W: 1}, Value: 0.25}, &graph.Transpose{Dims: []int{3, 4}, Perm: []int{1, 0}, To: graph.Shape{H: 2, W: 2, C: 3}},
		graph.Slice{H: graph.Range{To: 2}, W: graph.Range{From: 1, To: 2}, C: graph.Range{To: 3}}, graph.ChannelMean{},
		&graph.Gather{Along: "H", From: []int{1, 0, 1}}, graph.Resize{H: 4, W: 2, ScaleH: 4. / 3, ScaleW: 2, Mode: "nearest", Places: "half_pixel", Rounding: "floor"},
		&graph.Recurrence{Cell: "rnn", Direction: "reverse", Functions: []string{"tanh"}, Hidden: 1, R: graphtest.Normal(r, 1, 1), H: graphtest.Normal(r, 1, 1)},
		graph.Product{Transposed: true}, &graph.ElementAffine{Extent: graph.Shape{H: 2, W: 1, C: 1}, Shift: []float32{0.5, float32(math.Inf(-1))}},
		graph.CumSum{}, &graph.Embedding{Rows: 2, Width: 3, Table: graphtest.Normal(r, 6, 1)}, graph.Reshape{To: graph.Vector(48)}, graph.Outputs{})
	g.Results = []graph.Result{{Name: "a", Dims: []int{3, 16}}, {Name: "b", Dims: []int{48}}}
	for i, n := range g.Nodes {
		switch n.Op.(type) {
		case graph.Add, graph.Sub, graph.Mul, graph.Div, graph.Concat, graph.Max, graph.Min:
			g.Nodes[i].Inputs = []graph.Value{graph.Value(i), graph.Value(i - 1)}
		case graph.Outputs:
			g.Nodes[i].Inputs = []graph.Value{graph.Value(i), graph.Value(i)}
		case graph.Select:
			g.Nodes[i].Inputs = []graph.Value{graph.Value(i), graph.Value(i - 1), graph.Value(i)}
		case graph.Product:
			g.Nodes[i].Inputs = []graph.Value{graph.Value(i), graph.Value(i)}
		}
	}
	return g
}

// withoutWeights returns g with the weights of its linear operators left out.
func withoutWeights(g *graph.Graph) *graph.Graph {
	c := *g
	c.Nodes = nil
	for _, n := range g.Nodes {
		switch op := n.Op.(type) {
		case *graph.Dense:
			d := *op
			d.W = nil
			n.Op = &d
		case *graph.Embedding:
			d := *op
			d.Table = nil
			n.Op = &d
		case *graph.Conv2D:
			d := *op
			d.W = nil
			n.Op = &d
		}
		c.Nodes = append(c.Nodes, n)
	}
	return &c
}

func TestStructure(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range everyOperator().Nodes {
		seen[n.Op.Name()] = true
	}
	if len(seen) != 45 {
		t.Fatalf("%d operators", len(seen))
	}
	for _, g := range []*graph.Graph{everyOperator(), graphtest.MNIST(source(2))} {
		b, err := graph.EncodeStructure(g)
		if err != nil {
			t.Fatal(err)
		}
		back, err := graph.DecodeStructure(b)
		if err != nil {
			t.Fatal(err)
		}
		if want := withoutWeights(g); !reflect.DeepEqual(back, want) {
			t.Errorf("%+v, want %+v", back, want)
		}
		if again, err := graph.EncodeStructure(back); err != nil || !bytes.Equal(again, b) {
			t.Errorf("encoded again: %s, %v", again, err)
		}
		var indented bytes.Buffer
		json.Indent(&indented, b, "", "\t")
		if again, err := graph.DecodeStructure(indented.Bytes()); err != nil || !reflect.DeepEqual(again, back) {
			t.Errorf("indented: %v", err)
		}
	}
}

// The form is part of a file format.
const structureForm = `{"Input":{"H":1,"W":2,"C":1},"Nodes":[` +
	`{"Op":"reshape","Inputs":[0],"Parameters":{"To":{"H":1,"W":1,"C":2}}},` +
	`{"Op":"dense","Inputs":[1],"Parameters":{"In":2,"Out":1,"B":[-0.1]}},` +
	`{"Op":"relu","Inputs":[2],"Parameters":{}},` +
	`{"Op":"affine","Inputs":[3],"Parameters":{"Scale":[0.125],"Shift":null}},` +
	`{"Op":"add","Inputs":[3,4],"Parameters":{}},` +
	`{"Op":"clip","Inputs":[5],"Parameters":{"Min":0.1,"Max":3.4028235e+38}}],"Output":6}`

func TestStructureForm(t *testing.T) {
	g := graphtest.Chain(graph.Shape{H: 1, W: 2, C: 1}, graph.Reshape{To: graph.Vector(2)},
		&graph.Dense{In: 2, Out: 1, W: []float32{1, 2}, B: []float32{-0.1}}, graph.ReLU{},
		&graph.Affine{Scale: []float32{0.125}}, graph.Add{}, graph.Clip{Min: 0.1, Max: math.MaxFloat32})
	g.Nodes[4].Inputs = []graph.Value{3, 4}
	if b, err := graph.EncodeStructure(g); err != nil || string(b) != structureForm {
		t.Errorf("%s, %v", b, err)
	}
}

func TestDecodeStructureRejects(t *testing.T) {
	if _, err := graph.DecodeStructure([]byte(structureForm)); err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) string {
		if !strings.Contains(structureForm, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(structureForm, old, new, 1)
	}
	for name, b := range map[string]string{
		"nothing":            "",
		"null":               "null",
		"another type":       "[]",
		"cut":                structureForm[:len(structureForm)-1],
		"trailing data":      structureForm + "{}",
		"trailing bracket":   structureForm + "]",
		"unknown field":      edit(`"Output"`, `"Extra":1,"Output"`),
		"unknown parameter":  edit(`"In":2`, `"W":[1,2],"In":2`),
		"repeated field":     edit(`"Output":6`, `"Output":6,"Output":6`),
		"field in lowercase": edit(`"Out":1`, `"out":1`),
		"missing field":      edit(`,"B":[-0.1]`, ``),
		"parameters of null": edit(`{"In":2,"Out":1,"B":[-0.1]}`, `null`),
		"empty parameters":   edit(`{}`, `null`),
		"missing parameters": edit(`,"Parameters":{}`, ``),
		"unknown operator":   edit(`relu`, `gelu`),
		"no operators":       `{"Input":{"H":1,"W":2,"C":1},"Nodes":[],"Output":0}`,
		"a cycle":            edit(`[0]`, `[2]`),
		"shapes":             edit(`"In":2`, `"In":3`),
		"bias":               edit(`[-0.1]`, `[-0.1,1]`),
		"bias out of range":  edit(`-0.1`, `1e39`),
		"other number":       edit(`-0.1`, `-0.10`),
		"scale":              edit(`[0.125]`, `[0.125,1]`),
		"no scale":           edit(`[0.125]`, `null`),
		"scale out of range": edit(`0.125`, `1e39`),
		"missing shift":      edit(`,"Shift":null`, ``),
		"missing input":      edit(`[3,4]`, `[3]`),
		"bound of null":      edit(`0.1,"Max"`, `null,"Max"`),
		"bound out of range": edit(`3.4028235e+38`, `3.5e+38`),
		"fractional size":    edit(`"In":2`, `"In":2.5`),
		"size out of range":  edit(`"C":2`, `"C":2e30`),
	} {
		if g, err := graph.DecodeStructure([]byte(b)); !errors.Is(err, graph.ErrInvalid) {
			t.Errorf("%s: %v, %v", name, g, err)
		} else if strings.Contains(err.Error(), "0.1") || strings.Contains(err.Error(), "3.5") || strings.Contains(err.Error(), "1e39") {
			t.Errorf("%s: the error shows a parameter: %v", name, err)
		}
	}
}

func TestEncodeStructureRejects(t *testing.T) {
	for name, g := range map[string]*graph.Graph{
		"invalid":             {},
		"operator of a stray": graphtest.Chain(graph.Vector(1), stray{}),
	} {
		if _, err := graph.EncodeStructure(g); !errors.Is(err, graph.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// stray is an operator that the package does not know.
type stray struct{ graph.ReLU }

func (stray) Name() string { return "stray" }

func FuzzDecodeStructure(f *testing.F) {
	f.Add([]byte(structureForm))
	b, err := graph.EncodeStructure(everyOperator())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := graph.DecodeStructure(b)
		if err != nil {
			if !errors.Is(err, graph.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if _, err := g.Shapes(); err != nil {
			t.Fatal(err)
		}
		again, err := graph.EncodeStructure(g)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := graph.DecodeStructure(again); err != nil || !reflect.DeepEqual(back, g) {
			t.Fatalf("%+v became %+v, %v", g, back, err)
		}
	})
}
