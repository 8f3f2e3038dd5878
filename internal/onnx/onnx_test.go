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
	"testing"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
	"github.com/securenets/securenets/internal/plan"
)

// vector is a model and what onnxruntime computes from it; see testdata/vectors.py.
type vector struct {
	Name          string
	Samples       int
	Model         []byte
	Input, Output []byte
}

func readVectors(t testing.TB) []vector {
	b, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v []vector
	if err := json.Unmarshal(b, &v); err != nil || len(v) == 0 {
		t.Fatalf("%d vectors, %v", len(v), err)
	}
	return v
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
			g, err := Parse(v.Model)
			if err != nil {
				t.Fatal(err)
			}
			shapes, err := g.Shapes()
			if err != nil {
				t.Fatal(err)
			}
			chw := floatsOf(v.Input)
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
			checkRoundTrip(t, g)
		})
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
	if !reflect.DeepEqual(back, g) {
		t.Fatalf("%+v came back as %+v", g, back)
	}
	if again, err := Marshal(back); err != nil || !slices.Equal(again, b) {
		t.Fatalf("written differently again, %v", err)
	}
}

// randomGraph returns a chain of any operators.
func randomGraph(r *rand.Rand) *graph.Graph {
	input := graph.Shape{H: 1 + r.IntN(6), W: 1 + r.IntN(6), C: 1 + r.IntN(4)}
	if r.IntN(4) == 0 {
		input = graph.Vector(1 + r.IntN(9))
	}
	var ops []graph.Op
	for s := input; len(ops) < 1+r.IntN(6); {
		var op graph.Op
		kh, kw := 1+r.IntN(s.H), 1+r.IntN(s.W)
		pool := graph.Pool{
			KH: kh, KW: kw, SH: 1 + r.IntN(2), SW: 1 + r.IntN(2),
			Top: r.IntN(kh), Left: r.IntN(kw), Bot: r.IntN(kh), Right: r.IntN(kw),
		}
		switch r.IntN(9) {
		case 0:
			op = graph.ReLU{}
		case 1:
			op = graph.Square{}
		case 2:
			op = graph.Softmax{}
		case 3:
			op = graph.MaxPool{Pool: pool}
		case 4:
			op = graph.AvgPool{Pool: pool, CountPad: r.IntN(2) == 0}
		case 5:
			op = graph.Reshape{To: graph.Vector(s.Len())}
		case 6:
			op = graph.Reshape{To: graph.Shape{H: s.C, W: s.H, C: s.W}}
		case 7:
			if s != graph.Vector(s.C) {
				continue
			}
			op = graphtest.Dense(r, s.C, 1+r.IntN(5))
		case 8:
			groups := 1
			if s.C%2 == 0 {
				groups += r.IntN(2)
			}
			op = graphtest.Conv(r, plan.Conv2D{
				H: s.H, W: s.W, C: s.C, OutC: groups * (1 + r.IntN(2)), KH: kh, KW: kw, SH: pool.SH, SW: pool.SW, DH: 1, DW: 1,
				Top: pool.Top, Left: pool.Left, Bot: pool.Bot, Right: pool.Right, Groups: groups,
			})
		}
		next, err := op.OutShape(s)
		if err != nil {
			panic(err)
		}
		ops, s = append(ops, op), next
	}
	return graphtest.Chain(input, ops...)
}

func TestMarshalRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	checkRoundTrip(t, graphtest.MNIST(r))
	for range 500 {
		g := randomGraph(r)
		if d, ok := g.Nodes[0].Op.(*graph.Dense); ok {
			d.B = nil
		}
		checkRoundTrip(t, g)
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
