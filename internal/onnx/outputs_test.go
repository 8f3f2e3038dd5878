package onnx

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
)

// Outputs that are chosen have the numbers that they have among all, and only the layers that they
// depend on.
func TestChosenOutputs(t *testing.T) {
	r := rand.New(rand.NewPCG(53, 1))
	tried := 0
	for tried < 300 {
		g := graphtest.Random(r, 2+r.IntN(12))
		if len(g.Results) == 0 {
			continue
		}
		tried++
		b, err := Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		all, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		const n = 2
		x := graphtest.Normal(r, n*g.Input.Len(), 1)
		want, each := run(t, all, x, n)
		var names []string
		var chosen []graph.Value // of g
		var wanted []float64
		for s := range n {
			at := s * each
			for i, res := range g.Results {
				if s == 0 && r.IntN(len(g.Results)) == 0 || s == 0 && i == len(g.Results)-1 && names == nil {
					names = append(names, res.Name)
					chosen = append(chosen, g.Nodes[g.Output-1].Inputs[i])
				}
				if slices.Contains(names, res.Name) {
					wanted = append(wanted, want[at:at+res.Len()]...)
				}
				at += res.Len()
			}
		}
		r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		some, err := ParseWith(b, Options{Outputs: names})
		if err != nil {
			t.Fatalf("%q of %+v: %v", names, g.Results, err)
		}
		got, _ := run(t, some, x, n)
		if len(got) != len(wanted) {
			t.Fatalf("%q of %+v: %d elements, want %d", names, g.Results, len(got), len(wanted))
		}
		for i, v := range got {
			// Affines go into other layers where less reads them.
			if w := wanted[i]; math.Abs(v-w) > 1e-4*max(1, math.Abs(w)) || math.IsNaN(v) != math.IsNaN(w) {
				t.Errorf("%q of %+v: element %d is %v, want %v", names, g.Results, i, v, w)
				break
			}
		}
		if have, want := layersOf(some, some.Output), layersOf(g, chosen...); have != want {
			t.Errorf("%q of %+v: %d layers, want %d", names, g.Results, have, want)
		}
	}
}

// Of many outputs and dimensions, errors name a few.
func TestManyNames(t *testing.T) {
	var ops, outputs []message
	input := []any{"N"}
	for i := range 20 {
		name := fmt.Sprintf("y%d", i)
		ops, outputs = append(ops, op("Relu", "x", name)), append(outputs, declare(name, typeFloat))
		if i < 8 {
			input = append(input, fmt.Sprintf("d%d", i))
		}
	}
	b := file{nodes: ops, outputs: outputs, inputs: []message{declare("x", typeFloat, input...)}}.bytes()
	if _, err := ParseWith(b, Options{Outputs: []string{"none"}}); err == nil || !strings.HasSuffix(err.Error(), "none is named none: there are y0, y1, y2, y3, y4, y5 and 14 more") {
		t.Error(err)
	}
	if _, err := ParseWith(b, Options{Sizes: Sizes{"none": 1}}); err == nil || !strings.HasSuffix(err.Error(), "is named none: there are d0, d1, d2, d3, d4, d5 and 2 more") {
		t.Error(err)
	}
}

// run returns the output of n samples in C, H, W order, and the elements of each.
func run(t *testing.T, g *graph.Graph, x []float32, n int) ([]float64, int) {
	t.Helper()
	shapes, err := g.Shapes()
	if err != nil {
		t.Fatal(err)
	}
	s := shapes[g.Output]
	y := graphtest.Evaluate(g, x, n)
	ordered := make([]float64, 0, len(y))
	for sample := range slices.Chunk(y, s.Len()) {
		for c := range s.C {
			for at := range s.H * s.W {
				ordered = append(ordered, sample[at*s.C+c])
			}
		}
	}
	return ordered, s.Len()
}

// layersOf returns how many layers values depend on.
func layersOf(g *graph.Graph, values ...graph.Value) (layers int) {
	needed := make([]bool, len(g.Nodes)+1)
	for _, v := range values {
		needed[v] = true
	}
	for i := len(g.Nodes) - 1; i >= 0; i-- {
		if !needed[i+1] {
			continue
		}
		for _, v := range g.Nodes[i].Inputs {
			needed[v] = true
		}
		if _, ok := g.Nodes[i].Op.(graph.Linear); ok {
			layers++
		}
	}
	return layers
}
