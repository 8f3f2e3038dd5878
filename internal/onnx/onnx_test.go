package onnx

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
)

// vector is a model and what onnxruntime computes from it; see testdata/vectors.py,
// of single operators, exports.py, of what exporters write, views.py, of dimensions
// divided, merged and permuted, text.py, of networks of text, recurrent.py, of recurrent
// networks, and outputs.py, of several outputs.
type vector struct {
	Name          string
	Samples       int
	Model         []byte
	Input, Output []byte
	Sizes         Sizes          // of dimensions that have none in the model
	Outputs       []graph.Result // if there are several
}

func readVectors(t testing.TB) []vector {
	var all []vector
	for _, name := range []string{"vectors", "exports", "views", "text", "recurrent", "outputs"} {
		b, err := os.ReadFile("testdata/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var v []vector
		if err := json.Unmarshal(b, &v); err != nil || len(v) == 0 {
			t.Fatalf("%d %s, %v", len(v), name, err)
		}
		all = append(all, v...)
	}
	return all
}

func floatsOf(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}

func TestParseAgainstRuntime(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			g, err := ParseWith(v.Model, Options{Sizes: v.Sizes})
			if err != nil {
				t.Fatal(err)
			}
			shapes, err := g.Shapes()
			if err != nil {
				t.Fatal(err)
			}
			chw := floatsOf(v.Input)
			if err := g.CheckInput(chw); err != nil {
				t.Fatal(err)
			}
			if len(chw) != v.Samples*g.Input.Len() {
				t.Fatalf("input is %v", g.Input)
			}
			x := make([]float32, len(chw))
			graph.CHWToHWC(x, chw, v.Samples, g.Input)
			y := graphtest.Run(g, x, v.Samples)
			got := make([]float32, len(y))
			graph.HWCToCHW(got, y, v.Samples, shapes[g.Output])
			want := floatsOf(v.Output)
			if len(got) != len(want) {
				t.Fatalf("%d outputs, want %d", len(got), len(want))
			}
			for i := range want {
				if d := math.Abs(float64(got[i] - want[i])); !(d <= 2e-5*(1+math.Abs(float64(want[i])))) {
					t.Fatalf("output %d is %v, want %v", i, got[i], want[i])
				}
			}
			if !reflect.DeepEqual(g.Results, v.Outputs) {
				t.Fatalf("outputs %v, want %v", g.Results, v.Outputs)
			}
			if !strings.HasPrefix(v.Name, "RoBERTa") && !strings.HasPrefix(v.Name, "GPT-2, a step") { // positions are computed; inputs are maps
				checkRoundTrip(t, g)
			}
		})
	}
}

// What stands in the file in many nodes is one operator where it can be.
func TestParseSimplifies(t *testing.T) {
	want := map[string][]string{
		"BatchNormalization after Conv, opset 9": {"conv2d", "relu"},
		"BatchNormalization after Gemm":          {"dense"},
		"BatchNormalization before Conv":         {"affine", "conv2d", "relu"},
		"residual blocks":                        {"conv2d", "relu", "conv2d", "add", "relu", "affine", "add", "add"},
		"normalised input":                       {"affine"},
		"scaled Conv and Gemm":                   {"conv2d", "dense"},
		"HardSigmoid, {}":                        {"affine", "clip"},
		"GlobalAveragePool":                      {"avg_pool"},
		"ReduceSum by input":                     {"sum_pool"},
		"sum pooling":                            {"sum_pool"},
		"sum pooling with pads":                  {"sum_pool", "affine"},
		"scaled mean with pads":                  {"avg_pool", "affine"},
		"view of all sizes":                      {"reshape"},
		"Squeeze and Unsqueeze, opset 13":        {"avg_pool", "dense"},
		"what nothing reads":                     {"dense", "relu"},
		"Pad before Conv":                        {"conv2d"},
		"Pad before SAME":                        {"conv2d"},
		"MatMul of channels last":                {"conv2d", "transpose"},
		"scaled channels last":                   {"affine"},
		"squeeze and excitation":                 {"avg_pool", "dense", "sigmoid", "mul"},
		"shuffle of channels":                    {"transpose"},
		"LSTM, two layers, bidirectional, all steps, TorchScript, batch N": {"transpose", "conv2d", "recurrence", "conv2d", "recurrence", "conv2d", "transpose"},
		"LSTM, last step, dynamo": {"transpose", "conv2d", "recurrence", "slice", "dense"},
		"attention, written out, dynamo": {"transpose", "conv2d", "slice", "slice", "slice", "transpose", "transpose", "product", "affine", "softmax",
			"transpose", "product", "transpose", "conv2d", "transpose"},
		"attention in windows, dynamo": {"transpose", "conv2d", "slice", "slice", "slice", "transpose", "transpose", "product", "affine", "element_affine", "softmax",
			"transpose", "product", "transpose", "conv2d", "transpose", "add"},
		"vision transformer, dynamo": {"conv2d", "reshape", "pad", "element_affine", "channel_mean", "sub", "square", "channel_mean", "affine", "sqrt", "div", "affine",
			"conv2d", "slice", "slice", "slice", "affine", "affine", "transpose", "transpose", "product", "softmax", "transpose", "product", "transpose", "conv2d", "add",
			"channel_mean", "sub", "square", "channel_mean", "affine", "sqrt", "div", "affine", "conv2d", "affine", "erf", "affine", "mul", "conv2d", "add",
			"channel_mean", "sub", "square", "channel_mean", "affine", "sqrt", "div", "affine", "slice", "dense"},
	}
	for _, v := range readVectors(t) {
		g, err := ParseWith(v.Model, Options{Sizes: v.Sizes})
		if err != nil || want[v.Name] == nil {
			continue
		}
		var got []string
		for _, n := range g.Nodes {
			got = append(got, n.Op.Name())
		}
		if !slices.Equal(got, want[v.Name]) {
			t.Errorf("%s: %v, want %v", v.Name, got, want[v.Name])
		}
		delete(want, v.Name)
	}
	if len(want) > 0 {
		t.Errorf("not tried: %v", want)
	}
}

func checkRoundTrip(t testing.TB, g *graph.Graph) {
	t.Helper()
	b, err := Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Results) > 0 { // operators may come back in another order
		shapes, err := g.Shapes()
		if err != nil {
			t.Fatal(err)
		}
		elements := 0
		for _, s := range shapes {
			elements += s.Len()
		}
		if elements > 1<<20 { // of a fuzzer's
			return
		}
		x := make([]float32, g.Input.Len())
		for i := range x {
			if g.Parts == nil {
				x[i] = float32(i%7 - 3)
			}
		}
		same := func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b }
		if !reflect.DeepEqual(back.Results, g.Results) || len(back.Nodes) != len(g.Nodes) || !slices.EqualFunc(graphtest.Run(back, x, 1), graphtest.Run(g, x, 1), same) {
			t.Fatalf("%+v came back as %+v", g, back)
		}
		return
	}
	if !reflect.DeepEqual(back, g) {
		t.Fatalf("%+v came back as %+v", g, back)
	}
	if again, err := Marshal(back); err != nil || !slices.Equal(again, b) {
		t.Fatalf("written differently again, %v", err)
	}
}

func TestMarshalRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	checkRoundTrip(t, graphtest.MNIST(r))
	for range 1000 {
		g := graphtest.Random(r, 1+r.IntN(8))
		b, err := Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		simple := graph.Simplify(g)
		if back, err := Parse(b); err != nil || !reflect.DeepEqual(back, simple) {
			t.Fatalf("%+v came back as %+v, %v", simple, back, err)
		}
		checkRoundTrip(t, simple)
	}
}

func TestMarshalRejects(t *testing.T) {
	if _, err := Marshal(graphtest.Chain(graph.Vector(2), &graph.Dense{In: 2, Out: 2})); !errors.Is(err, graph.ErrInvalid) {
		t.Errorf("no weights: %v", err)
	}
	var u *UnsupportedError
	if _, err := Marshal(graphtest.Chain(graph.Vector(2), stray{})); !errors.As(err, &u) || !slices.Equal(u.Ops, []string{"stray"}) {
		t.Errorf("unknown operator: %v", err)
	}
}

type stray struct{ graph.ReLU }

func (stray) Name() string { return "stray" }

func BenchmarkParse(b *testing.B) {
	g := graphtest.MNIST(rand.New(rand.NewPCG(1, 1)))
	g.Nodes[7].Op = graphtest.Dense(rand.New(rand.NewPCG(1, 1)), 512, 1000)
	g.Nodes = g.Nodes[:8]
	g.Output = 8
	m, err := Marshal(g)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(m)))
	for b.Loop() {
		if _, err := Parse(m); err != nil {
			b.Fatal(err)
		}
	}
}
