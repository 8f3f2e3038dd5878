package onnx

import (
	"errors"
	"fmt"
	"maps"
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

// Outputs that are chosen are what onnxruntime computes of all inputs, and take those alone that
// they depend on.
func TestChosenOutputsAgainstRuntime(t *testing.T) {
	left := map[string]int{} // inputs
	for _, v := range readVectors(t) {
		if v.Outputs == nil {
			continue
		}
		all, err := ParseWith(v.Model, Options{Sizes: v.Sizes})
		if err != nil {
			t.Fatal(err)
		}
		input, output := floatsOf(v.Input), floatsOf(v.Output)
		each := len(output) / v.Samples
		at := 0
		for _, out := range v.Outputs {
			g, err := ParseWith(v.Model, Options{Sizes: v.Sizes, Outputs: []string{out.Name}})
			if err != nil {
				t.Fatalf("%s, %s: %v", v.Name, out.Name, err)
			}
			chw := input
			if all.Parts != nil {
				chw = partsOf(t, g, all, input, v.Samples)
				if n := len(all.Parts) - len(g.Parts); n > 0 {
					left[v.Name+", "+out.Name] = n
				}
			}
			x := make([]float32, len(chw))
			graph.CHWToHWC(x, chw, v.Samples, g.Input)
			shapes, err := g.Shapes()
			if err != nil {
				t.Fatal(err)
			}
			y := graphtest.Run(g, x, v.Samples)
			got := make([]float32, len(y))
			graph.HWCToCHW(got, y, v.Samples, shapes[g.Output])
			own := out.Len()
			if len(got) != v.Samples*own {
				t.Fatalf("%s, %s: %d elements, want %d", v.Name, out.Name, len(got), v.Samples*own)
			}
			for i, y := range got {
				want := output[i/own*each+at+i%own]
				if d := math.Abs(float64(y - want)); !(d <= 2e-5*(1+math.Abs(float64(want)))) {
					t.Errorf("%s, %s: element %d is %v, want %v", v.Name, out.Name, i, y, want)
					break
				}
			}
			at += own
		}
	}
	// The keys and values of the first layer of two are of the new token and the cache alone.
	want := map[string]int{
		"GPT-2, a step with a cache, TorchScript, out1": 4, "GPT-2, a step with a cache, TorchScript, out2": 4,
		"GPT-2, a step with a cache, TorchScript, out3": 1, "GPT-2, a step with a cache, TorchScript, out4": 1,
		"GPT-2, a step with a cache, dynamo, out1": 4, "GPT-2, a step with a cache, dynamo, out2": 4, "GPT-2, a step with a cache, dynamo, out4": 1,
	}
	if !maps.Equal(left, want) {
		t.Errorf("inputs left out: %v, want %v", left, want)
	}
}

// partsOf returns of samples with all the inputs of a network those that g takes.
func partsOf(t *testing.T, g, all *graph.Graph, x []float32, n int) (own []float32) {
	t.Helper()
	if g.Parts == nil {
		t.Fatal("a single input of floats has no name")
	}
	for sample := range slices.Chunk(x, len(x)/n) {
		for _, p := range all.Parts {
			k := p.Shape.Len()
			if slices.ContainsFunc(g.Parts, func(q graph.Part) bool { return q.Name == p.Name }) {
				own = append(own, sample[:k]...)
			}
			sample = sample[k:]
		}
	}
	return own
}

// An input that no chosen output depends on may be of a kind that is not supported. Where no output
// is left out, no input is, and one that stands for an output is read.
func TestInputsOfChosenOutputs(t *testing.T) {
	b := file{
		nodes: []message{op("Relu", "x", "y"), op("Strange", "s m", "z"), op("Mul", "x m", "both")},
		inputs: []message{
			declare("s", 8, "M"), declare("x", typeFloat, "N", 3), declare("unread", typeFloat, "N", 2), declare("m", typeFloat, "N", 3), declare("w", typeFloat, "N", "L"),
		},
		outputs: []message{declare("y", typeFloat), declare("z", 8), declare("both", typeFloat), declare("w", typeFloat)},
	}.bytes()
	for _, c := range []struct {
		outputs []string
		want    []string // inputs, if there are several
		ok      bool
	}{
		{[]string{"y"}, nil, true}, {[]string{"both"}, []string{"x", "m"}, true}, {[]string{"both", "y"}, []string{"x", "m"}, true},
		{[]string{"z"}, nil, false}, {[]string{"w"}, nil, false}, {nil, nil, false}, {[]string{"y", "z", "both", "w"}, nil, false},
	} {
		g, err := ParseWith(b, Options{Outputs: c.outputs})
		if !c.ok {
			if unsupported := new(UnsupportedError); !errors.As(err, &unsupported) {
				t.Errorf("%q: %v", c.outputs, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.outputs, err)
			continue
		}
		var got []string
		for _, p := range g.Parts {
			got = append(got, p.Name)
		}
		if !slices.Equal(got, c.want) || g.Input.Len() != 3*max(1, len(c.want)) {
			t.Errorf("%q: inputs %q of %d elements, want %q", c.outputs, got, g.Input.Len(), c.want)
		}
	}
	g, err := ParseWith(b, Options{Outputs: []string{"w", "y"}, Sizes: Sizes{"L": 2}})
	if err != nil || len(g.Parts) != 2 || g.Parts[1].Name != "w" || len(g.Results) != 2 {
		t.Errorf("an output that is an input: %+v, %v", g, err)
	}
	all := file{nodes: []message{op("Relu", "x", "y")}, inputs: []message{declare("x", typeFloat, "N", 3), declare("unread", typeFloat, "N", 2)}, outputs: []message{declare("y", typeFloat)}}.bytes()
	for _, outputs := range [][]string{nil, {"y"}} {
		if g, err := ParseWith(all, Options{Outputs: outputs}); err != nil || len(g.Parts) != 2 {
			t.Errorf("all outputs, %q: %+v, %v", outputs, g, err)
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
	one := file{nodes: []message{op("Relu", "x", "y")}}.bytes()
	if _, err := ParseWith(one, Options{Outputs: []string{"none"}}); err == nil || !strings.HasSuffix(err.Error(), "none is named none: there is only y") {
		t.Errorf("one output: %v", err)
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
