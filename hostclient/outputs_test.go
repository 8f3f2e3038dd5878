package hostclient_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/transform"
)

// twoHeads is a map of 3 x 2 x 2 (C, H, W), and a layer of it, beside each other.
func twoHeads(rnd *rand.Rand) *graph.Graph {
	return &graph.Graph{
		Input: graph.Shape{H: 2, W: 2, C: 1},
		Nodes: []graph.Node{
			{Op: conv(rnd, plan.Conv2D{H: 2, W: 2, C: 1, OutC: 3, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}), Inputs: []graph.Value{0}},
			{Op: graph.Reshape{To: graph.Vector(12)}, Inputs: []graph.Value{1}},
			{Op: graphtest.Dense(rnd, 12, 4), Inputs: []graph.Value{2}},
			{Op: graph.Outputs{}, Inputs: []graph.Value{2, 3}},
		},
		Output:  4,
		Results: []graph.Result{{Name: "map", Dims: []int{3, 2, 2}}, {Name: "scores", Dims: []int{4}}},
	}
}

func TestOutputs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(51, 1))
	g := twoHeads(rnd)
	const n = 3
	x := gaussian(rnd, n*4)
	want := []hostclient.OutputDescription{{Name: "map", Shape: []int{3, 2, 2}}, {Name: "scores", Shape: []int{4}}}
	for _, scheme := range schemes {
		r := newRig(t, g, scheme)
		r.throughFile(t)
		if d := r.secret.Describe(); !reflect.DeepEqual(d.Outputs, want) || d.Output != 16 {
			t.Errorf("%v: %+v, %d elements", scheme, d.Outputs, d.Output)
		}
		y := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, n)
		all := graphtest.Evaluate(g, x, n)
		for i, v := range y {
			if math.Abs(float64(v)-all[i]) > 1e-3 {
				t.Errorf("%v: element %d of sample %d is %v, want %v", scheme, i%16, i/16, v, all[i])
			}
		}
	}
}

// Of one output nothing is said that was not before, and only the layers that it needs are sealed.
func TestOneOfOutputs(t *testing.T) {
	g := twoHeads(rand.New(rand.NewPCG(52, 1)))
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, model(g), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		outputs []string
		all     int // outputs that are described
		layers  int // that a cloud evaluates
	}{{nil, 2, 2}, {[]string{"scores", "map"}, 2, 2}, {[]string{"map"}, 0, 1}, {[]string{"scores"}, 0, 2}} {
		m, err := hostclient.OpenModelWith(path, hostclient.ModelOptions{Outputs: c.outputs})
		if err != nil {
			t.Fatal(err)
		}
		d, err := m.Preview(transform.DefaultScheme(), "")
		if err != nil {
			t.Fatal(err)
		}
		sent := 0
		for _, l := range d.Layers {
			if l.Cloud != "" {
				sent++
			}
		}
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Outputs) != c.all || sent != c.layers || strings.Contains(string(text), `"outputs":`) != (c.all > 0) {
			t.Errorf("%q: outputs %v, %d layers, %s", c.outputs, d.Outputs, sent, text)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := hostclient.OpenModelWith(path, hostclient.ModelOptions{Outputs: []string{"none"}}); err == nil || !strings.Contains(err.Error(), "there are map, scores") {
		t.Error(err)
	}
}

// Inputs that only other outputs depend on are neither described nor sealed, and one that is left is as
// a single one.
func TestInputsOfOneOutput(t *testing.T) {
	rnd := rand.New(rand.NewPCG(55, 1))
	cut := func(from, to int) graph.Slice {
		return graph.Slice{H: graph.Range{To: 1}, W: graph.Range{To: 1}, C: graph.Range{From: from, To: to}}
	}
	g := &graph.Graph{
		Input: graph.Vector(5),
		Parts: []graph.Part{{Name: "a", Shape: graph.Vector(2)}, {Name: "b", Shape: graph.Vector(3)}},
		Nodes: []graph.Node{
			{Op: cut(0, 2), Inputs: []graph.Value{0}}, {Op: cut(2, 5), Inputs: []graph.Value{0}},
			{Op: graphtest.Dense(rnd, 2, 4), Inputs: []graph.Value{1}}, {Op: graphtest.Dense(rnd, 3, 2), Inputs: []graph.Value{2}},
			{Op: graph.Outputs{}, Inputs: []graph.Value{3, 4}},
		},
		Output:  5,
		Results: []graph.Result{{Name: "of a", Dims: []int{4}}, {Name: "of b", Dims: []int{2}}},
	}
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, model(g), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := hostclient.OpenModelWith(path, hostclient.ModelOptions{Outputs: []string{"of b"}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	d, err := m.Preview(transform.DefaultScheme(), "")
	if err != nil || d.Inputs != nil || d.Input != [3]int{3, 1, 1} || d.Output != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	e, err := m.NewEmulator(t.Context(), hostclient.SealOptions{Multiplier: kernel})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	x := gaussian(rnd, 5)
	y, err := e.Infer(t.Context(), x[2:], 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range graphtest.Evaluate(g, x, 1)[4:] {
		if math.Abs(float64(y[i])-want) > 1e-3 {
			t.Errorf("element %d is %v, want %v", i, y[i], want)
		}
	}
}
