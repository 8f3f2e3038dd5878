package graph_test

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
	"github.com/securenets/securenets/plan"
)

var infinite = float32(math.Inf(-1))

func TestEmbedding(t *testing.T) {
	e := &graph.Embedding{Rows: 3, Width: 2, Table: []float32{1, 2, 3, 4, 5, 6}}
	out, err := e.OutShape(graph.Shape{H: 2, W: 1, C: 2})
	if err != nil || out != (graph.Shape{H: 2, W: 2, C: 2}) {
		t.Fatalf("%v, %v", out, err)
	}
	got := make([]float32, 16)
	e.Apply(got, 2, []graph.Shape{{H: 2, W: 1, C: 2}}, []float32{2, 0, 1, 1, 0, 0, 0, 2})
	if want := []float32{5, 6, 1, 2, 3, 4, 3, 4, 1, 2, 1, 2, 1, 2, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// What no row has is no number, and nothing of another row.
	for _, id := range []float32{-1, 3, 0.5, 1 << 30, infinite, float32(math.NaN())} {
		row := []float32{9, 9}
		e.Apply(row, 1, []graph.Shape{graph.Vector(1)}, []float32{id})
		if row[0] == row[0] || row[1] == row[1] {
			t.Errorf("row %v is %v", id, row)
		}
	}
	for _, bad := range []*graph.Embedding{{Rows: 0, Width: 2}, {Rows: 1<<24 + 1, Width: 1}, {Rows: 1, Width: -1}, {Rows: 1 << 20, Width: 1 << 20}, {Rows: 2, Width: 2, Table: make([]float32, 3)}} {
		if _, err := bad.OutShape(graph.Vector(1)); !errors.Is(err, graph.ErrInvalid) {
			t.Errorf("%d x %d: %v", bad.Rows, bad.Width, err)
		}
	}
	if err := (&graph.Embedding{Rows: 1, Width: 1, Table: []float32{infinite}}).Load(); !errors.Is(err, graph.ErrNotFinite) {
		t.Errorf("a table that is not finite: %v", err)
	}
	if err := (&graph.Embedding{Rows: 1, Width: 1}).Load(); !errors.Is(err, graph.ErrInvalid) {
		t.Errorf("no table: %v", err)
	}
}

func TestCheckInput(t *testing.T) {
	g := &graph.Graph{Input: graph.Vector(5), Parts: []graph.Part{
		{Name: "ids", Shape: graph.Vector(2), Below: 4}, {Name: "x", Shape: graph.Vector(1)}, {Name: "n", Shape: graph.Vector(2), From: -3, Below: 1},
	}}
	good := []float32{0, 3, 0.25, -3, 0, 1, 2, 1e30, -1, -2}
	if err := g.CheckInput(good); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   int
		v    float32
		want graph.IntegerError
	}{
		{1, 4, graph.IntegerError{Sample: 0, Part: "ids", Element: 1, Below: 4}},
		{5, -1, graph.IntegerError{Sample: 1, Part: "ids", Element: 0, Below: 4}},
		{6, 1.5, graph.IntegerError{Sample: 1, Part: "ids", Element: 1, Below: 4}},
		{0, float32(math.NaN()), graph.IntegerError{Sample: 0, Part: "ids", Element: 0, Below: 4}},
		{9, 1, graph.IntegerError{Sample: 1, Part: "n", Element: 1, From: -3, Below: 1}},
		{3, -4, graph.IntegerError{Sample: 0, Part: "n", Element: 0, From: -3, Below: 1}},
	} {
		x := slices.Clone(good)
		x[c.at] = c.v
		var got *graph.IntegerError
		if err := g.CheckInput(x); !errors.As(err, &got) || *got != c.want {
			t.Errorf("%v at %d: %v, want %v", c.v, c.at, err, &c.want)
		}
	}
	for name, parts := range map[string][]graph.Part{
		"fewer elements":     {{Name: "a", Shape: graph.Vector(4)}},
		"another shape":      {{Name: "a", Shape: graph.Shape{H: 5, W: 1, C: 1}}},
		"two of one name":    {{Name: "a", Shape: graph.Vector(4)}, {Name: "a", Shape: graph.Vector(1)}},
		"no name":            {{Shape: graph.Vector(5)}},
		"no text":            {{Name: "\xff", Shape: graph.Vector(5)}},
		"a line's end":       {{Name: "a\n", Shape: graph.Vector(5)}},
		"an empty range":     {{Name: "a", Shape: graph.Vector(5), From: 1, Below: 0}},
		"too large integers": {{Name: "a", Shape: graph.Vector(5), Below: 1<<24 + 2}},
		"too small integers": {{Name: "a", Shape: graph.Vector(5), From: -1<<24 - 1, Below: 1}},
		"the least integer":  {{Name: "a", Shape: graph.Vector(5), From: math.MinInt, Below: 1}},
		"floats from 1":      {{Name: "a", Shape: graph.Vector(5), From: 1, Below: 1}},
		"floats as integers": {{Name: "a", Shape: graph.Vector(5), Type: "int64"}},
		"ids as bools":       {{Name: "a", Shape: graph.Vector(5), Below: 3, Type: "bool"}},
		"bytes past 255":     {{Name: "a", Shape: graph.Vector(5), Below: 257, Type: "uint8"}},
		"bytes below 0":      {{Name: "a", Shape: graph.Vector(5), From: -1, Below: 3, Type: "uint8"}},
		"floats as bytes":    {{Name: "a", Shape: graph.Vector(5), Type: "uint8"}},
		"another type":       {{Name: "a", Shape: graph.Vector(5), Below: 2, Type: "uint4"}},
		"no elements":        {{Name: "a", Shape: graph.Vector(5)}, {Name: "b"}},
	} {
		g := graphtest.Chain(graph.Vector(5), graph.ReLU{})
		g.Parts = parts
		if err := g.Validate(); !errors.Is(err, graph.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A masked element is exactly 0, whatever else there is, and a row of none but masked ones too.
func TestMaskedSoftmax(t *testing.T) {
	x := []float32{1, infinite, 1, infinite, infinite, infinite, -3e38, infinite, infinite, 0, -math.MaxFloat32, infinite}
	mask := &graph.ElementAffine{Extent: graph.Vector(3), Shift: []float32{0, infinite, 0}}
	if _, err := mask.OutShape(graph.Vector(3)); err != nil {
		t.Fatal(err)
	}
	y := make([]float32, 12)
	graph.Softmax{}.Apply(y, 4, []graph.Shape{graph.Vector(3)}, x)
	if want := []float32{.5, 0, .5, 0, 0, 0, 1, 0, 0, 1, 0, 0}; !slices.Equal(y, want) {
		t.Errorf("%v, want %v", y, want)
	}
	mask.Apply(y, 4, []graph.Shape{graph.Vector(3)}, make([]float32, 12))
	graph.Softmax{}.Apply(y, 4, []graph.Shape{graph.Vector(3)}, y)
	if want := []float32{.5, 0, .5}; !slices.Equal(y[9:], want) {
		t.Errorf("%v, want %v", y[9:], want)
	}
	for _, bad := range []*graph.ElementAffine{
		{Extent: graph.Vector(1), Shift: []float32{-infinite}}, {Extent: graph.Vector(1), Shift: []float32{float32(math.NaN())}}, {Extent: graph.Vector(1), Scale: []float32{infinite}},
	} {
		if _, err := bad.OutShape(graph.Vector(3)); !errors.Is(err, graph.ErrNotFinite) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	// Masks go into no weights, nor do masks and what follows them become one.
	g := graph.Simplify(graphtest.Chain(graph.Vector(3), graphtest.Dense(source(1), 3, 3), mask, &graph.ElementAffine{Extent: graph.Vector(3), Scale: []float32{0, 0, 0}}))
	if len(g.Nodes) < 2 || g.Nodes[1].Op != graph.Op(mask) {
		t.Errorf("%d operators", len(g.Nodes))
	}
}

func TestShifts(t *testing.T) {
	for text, want := range map[string]graph.Shifts{"null": nil, "[]": {}, "[0.1,-2]": {0.1, -2}, `[0,"-inf",3e-20]`: {0, infinite, 3e-20}} {
		b, err := json.Marshal(want)
		if err != nil || string(b) != text {
			t.Errorf("%v: %s, %v", want, b, err)
		}
		var got graph.Shifts
		if err := json.Unmarshal([]byte(text), &got); err != nil || !slices.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{`["inf"]`, `["-inf"`, `["NaN"]`, `[1e99]`, `"-inf"`, `[["-inf"]]`} {
		if err := json.Unmarshal([]byte(text), new(graph.Shifts)); err == nil {
			t.Errorf("%s was read", text)
		}
	}
}

func TestCumSum(t *testing.T) {
	y := []float32{1, 2, 3, -4, 5, 6}
	graph.CumSum{}.Apply(y, 1, []graph.Shape{{H: 1, W: 2, C: 3}}, y)
	if want := []float32{1, 3, 6, -4, 1, 7}; !slices.Equal(y, want) {
		t.Errorf("%v, want %v", y, want)
	}
}

// Of logits those that are taken alone are computed.
func TestSliceBeforeConvolution(t *testing.T) {
	r := source(3)
	one := plan.Conv2D{H: 2, W: 5, C: 3, OutC: 4, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}
	last := graph.Slice{H: graph.Range{To: 2}, W: graph.Range{From: 4, To: 5}, C: graph.Range{To: 4}}
	conv := graphtest.Conv(r, one)
	g := graphtest.Chain(graph.Shape{H: 2, W: 5, C: 3}, conv, last)
	s := graph.Simplify(g)
	if c, ok := s.Nodes[1].Op.(*graph.Conv2D); !ok || len(s.Nodes) != 2 || c.Geometry.H*c.Geometry.W != 2 {
		t.Fatalf("%v then %v", s.Nodes[0].Op, s.Nodes[1].Op)
	}
	x := graphtest.Normal(r, 60, 1)
	if got, want := graphtest.Evaluate(s, x, 2), graphtest.Evaluate(g, x, 2); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// Not where channels are taken too, the kernel is larger, or others read the convolution.
	few := last
	few.C.To = 3
	wide := one
	wide.KW, wide.Left, wide.Right = 3, 1, 1
	both := graphtest.Chain(graph.Shape{H: 2, W: 5, C: 3}, conv, last, graph.Add{})
	both.Nodes[2].Inputs = []graph.Value{1, 2}
	for name, g := range map[string]*graph.Graph{
		"channels": graphtest.Chain(graph.Shape{H: 2, W: 5, C: 3}, conv, few),
		"kernel":   graphtest.Chain(graph.Shape{H: 2, W: 5, C: 3}, graphtest.Conv(r, wide), last),
		"readers":  both,
	} {
		if s := graph.Simplify(g); s.Nodes[0].Op.Name() != "conv2d" {
			t.Errorf("%s: %s first", name, s.Nodes[0].Op.Name())
		}
	}
}
