package graph_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/graph"
)

// A graph's results are what its last node puts together, in order.
func TestResults(t *testing.T) {
	good := func() *graph.Graph {
		return &graph.Graph{
			Input: graph.Vector(6),
			Nodes: []graph.Node{
				{Op: graph.ReLU{}, Inputs: []graph.Value{0}},
				{Op: graph.Slice{H: graph.Range{To: 1}, W: graph.Range{To: 1}, C: graph.Range{From: 2, To: 3}}, Inputs: []graph.Value{0}},
				{Op: graph.Outputs{}, Inputs: []graph.Value{1, 2}},
			},
			Output:  3,
			Results: []graph.Result{{Name: "a", Dims: []int{2, 3}}, {Name: "b", Dims: []int{}}},
		}
	}
	g := good()
	b, err := graph.EncodeStructure(g)
	if err != nil || !strings.HasSuffix(string(b), `,"Results":[{"Name":"a","Dims":[2,3]},{"Name":"b","Dims":[]}]}`) {
		t.Fatalf("%s, %v", b, err)
	}
	if back, err := graph.DecodeStructure(b); err != nil || !slices.EqualFunc(back.Results, g.Results, func(a, b graph.Result) bool { return a.Name == b.Name && slices.Equal(a.Dims, b.Dims) }) {
		t.Errorf("%v, %v", back, err)
	}
	for name, change := range map[string]func(*graph.Graph){
		"no results":          func(g *graph.Graph) { g.Results = nil },
		"one result":          func(g *graph.Graph) { g.Results = []graph.Result{{Name: "a", Dims: []int{7}}} },
		"more results":        func(g *graph.Graph) { g.Results = append(g.Results, graph.Result{Name: "c", Dims: []int{1}}) },
		"one name":            func(g *graph.Graph) { g.Results[1].Name = "a" },
		"no name":             func(g *graph.Graph) { g.Results[0].Name = "" },
		"no text":             func(g *graph.Graph) { g.Results[0].Name = "\xff" },
		"a line's end":        func(g *graph.Graph) { g.Results[0].Name = "a\nb" },
		"a terminal's escape": func(g *graph.Graph) { g.Results[0].Name = "a\x1b[2J" },
		"one of C1":           func(g *graph.Graph) { g.Results[0].Name = "a\u009b2J" },
		"writing turned":      func(g *graph.Graph) { g.Results[0].Name = "a\u202eb" },
		"a long name":         func(g *graph.Graph) { g.Results[0].Name = strings.Repeat("a", 1<<10+1) },
		"elements moved":      func(g *graph.Graph) { g.Results[0].Dims, g.Results[1].Dims = []int{5}, []int{2} },
		"other elements":      func(g *graph.Graph) { g.Results[0].Dims = []int{5} },
		"negative dimensions": func(g *graph.Graph) { g.Results[0].Dims = []int{-2, -3} },
		"overflow":            func(g *graph.Graph) { g.Results[0].Dims = []int{1 << 32, 1 << 32, 6} },
		"many dimensions":     func(g *graph.Graph) { g.Results[0].Dims = append(slices.Repeat([]int{1}, 20), 6) },
		"a Concat":            func(g *graph.Graph) { g.Nodes[2].Op = graph.Concat{} },
		"not the output": func(g *graph.Graph) {
			g.Nodes, g.Output = append(g.Nodes, graph.Node{Op: graph.ReLU{}, Inputs: []graph.Value{3}}), 4
		},
		"outputs twice": func(g *graph.Graph) {
			g.Nodes[0].Op = graph.Outputs{}
		},
	} {
		g := good()
		change(g)
		if _, err := g.Shapes(); !errors.Is(err, graph.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
