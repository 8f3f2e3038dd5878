package reference

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/dataset"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/models"
	"github.com/securenets/securenets/plan"
)

// oracle computes one sample of a graph (NHWC) in float64, from the definitions.
func oracle(g *graph.Graph, x []float64) []float64 {
	values, shapes := [][]float64{x}, []graph.Shape{g.Input}
	for _, node := range g.Nodes {
		in := node.Inputs[0]
		y, s := oracleOp(node.Op, values[in], shapes[in])
		values, shapes = append(values, y), append(shapes, s)
	}
	return values[g.Output]
}

// pixel returns x at a position, and whether it lies inside the map.
func pixel(x []float64, s graph.Shape, h, w, c int) (float64, bool) {
	if h < 0 || h >= s.H || w < 0 || w >= s.W {
		return 0, false
	}
	return x[(h*s.W+w)*s.C+c], true
}

func oracleOp(op graph.Op, x []float64, s graph.Shape) ([]float64, graph.Shape) {
	each := func(f func(float64) float64) ([]float64, graph.Shape) {
		y := make([]float64, len(x))
		for i, v := range x {
			y[i] = f(v)
		}
		return y, s
	}
	// pool calls f with every window's elements inside the map.
	pool := func(p graph.Pool, f func([]float64) float64) ([]float64, graph.Shape) {
		out := graph.Shape{H: (s.H+p.Top+p.Bot-p.KH)/p.SH + 1, W: (s.W+p.Left+p.Right-p.KW)/p.SW + 1, C: s.C}
		var y []float64
		for h := range out.H {
			for w := range out.W {
				for c := range s.C {
					var window []float64
					for a := range p.KH {
						for b := range p.KW {
							if v, ok := pixel(x, s, h*p.SH+a-p.Top, w*p.SW+b-p.Left, c); ok {
								window = append(window, v)
							}
						}
					}
					y = append(y, f(window))
				}
			}
		}
		return y, out
	}
	sum := func(v []float64) (t float64) {
		for _, e := range v {
			t += e
		}
		return t
	}
	switch op := op.(type) {
	case *graph.Dense:
		y := make([]float64, op.Out)
		for o := range y {
			for i, v := range x {
				y[o] += float64(op.W[o*op.In+i]) * v
			}
			if op.B != nil {
				y[o] += float64(op.B[o])
			}
		}
		return y, graph.Vector(op.Out)
	case *graph.Conv2D:
		c := op.Geometry
		var y []float64
		for h := range c.OutH() {
			for w := range c.OutW() {
				for o := range c.OutC {
					t := 0.0
					if op.B != nil {
						t = float64(op.B[o])
					}
					for a := range c.KH {
						for b := range c.KW {
							for i := range c.C {
								v, _ := pixel(x, s, h*c.SH+a*c.DH-c.Top, w*c.SW+b*c.DW-c.Left, i)
								t += v * float64(op.W[((o*c.KH+a)*c.KW+b)*c.C+i])
							}
						}
					}
					y = append(y, t)
				}
			}
		}
		return y, graph.Shape{H: c.OutH(), W: c.OutW(), C: c.OutC}
	case graph.ReLU:
		return each(func(v float64) float64 { return max(v, 0) })
	case graph.Square:
		return each(func(v float64) float64 { return v * v })
	case graph.MaxPool:
		return pool(op.Pool, slices.Max[[]float64])
	case graph.AvgPool:
		return pool(op.Pool, func(window []float64) float64 {
			if op.CountPad {
				return sum(window) / float64(op.KH*op.KW)
			}
			return sum(window) / float64(len(window))
		})
	case graph.Softmax:
		y := make([]float64, len(x))
		for p := 0; p < len(x); p += s.C {
			for i := range s.C {
				y[p+i] = math.Exp(x[p+i])
			}
			total := sum(y[p : p+s.C])
			for i := range s.C {
				y[p+i] /= total
			}
		}
		return y, s
	case graph.Reshape:
		// Element (c, h, w) counts c·H·W + h·W + w in either shape.
		y := make([]float64, len(x))
		for i := range y {
			from := (i/s.W%s.H*s.W+i%s.W)*s.C + i/(s.H*s.W)
			to := (i/op.To.W%op.To.H*op.To.W+i%op.To.W)*op.To.C + i/(op.To.H*op.To.W)
			y[to] = x[from]
		}
		return y, op.To
	}
	panic(fmt.Sprintf("oracle of %T", op))
}

// chain returns the graph in which each operator reads the one before it.
func chain(in graph.Shape, ops ...graph.Op) *graph.Graph {
	g := &graph.Graph{Input: in, Output: graph.Value(len(ops))}
	for i, op := range ops {
		g.Nodes = append(g.Nodes, graph.Node{Op: op, Inputs: []graph.Value{graph.Value(i)}})
	}
	return g
}

func normal(r *rand.Rand, n int, deviation float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64() * deviation)
	}
	return v
}

func dense(r *rand.Rand, in, out int, bias bool) *graph.Dense {
	d := &graph.Dense{In: in, Out: out, W: normal(r, in*out, math.Sqrt(2/float64(in)))}
	if bias {
		d.B = normal(r, out, 1)
	}
	return d
}

func conv(r *rand.Rand, c plan.Conv2D, bias bool) *graph.Conv2D {
	d := &graph.Conv2D{Geometry: c, W: normal(r, c.OutC*c.Patch(), math.Sqrt(2/float64(c.Patch())))}
	if bias {
		d.B = normal(r, c.OutC, 1)
	}
	return d
}

// mnistCNN is the network of that name, with random weights.
func mnistCNN(r *rand.Rand) *graph.Graph {
	pool := graph.MaxPool{Pool: graph.Pool{KH: 2, KW: 2, SH: 2, SW: 2}}
	return chain(graph.Shape{H: 28, W: 28, C: 1},
		conv(r, plan.Conv2D{H: 28, W: 28, C: 1, OutC: 16, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}, true), graph.ReLU{}, pool,
		conv(r, plan.Conv2D{H: 12, W: 12, C: 16, OutC: 32, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}, true), graph.ReLU{}, pool,
		graph.Reshape{To: graph.Vector(512)}, dense(r, 512, 10, true), graph.Softmax{})
}

var networks = map[string]func(r *rand.Rand) *graph.Graph{
	"dense":             func(r *rand.Rand) *graph.Graph { return chain(graph.Vector(7), dense(r, 7, 5, true)) },
	"dense, no bias":    func(r *rand.Rand) *graph.Graph { return chain(graph.Vector(7), dense(r, 7, 5, false)) },
	"dense, one by one": func(r *rand.Rand) *graph.Graph { return chain(graph.Vector(1), dense(r, 1, 1, true)) },
	"conv": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 6, W: 9, C: 3},
			conv(r, plan.Conv2D{H: 6, W: 9, C: 3, OutC: 4, KH: 3, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}, true))
	},
	"conv, no bias": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 6, W: 9, C: 3},
			conv(r, plan.Conv2D{H: 6, W: 9, C: 3, OutC: 4, KH: 3, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}, false))
	},
	"conv, 1x1": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 4, W: 5, C: 3},
			conv(r, plan.Conv2D{H: 4, W: 5, C: 3, OutC: 2, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}, true))
	},
	"conv, strided, padded": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 7, W: 8, C: 2},
			conv(r, plan.Conv2D{H: 7, W: 8, C: 2, OutC: 3, KH: 3, KW: 4, SH: 2, SW: 3, DH: 1, DW: 1,
				Top: 1, Bot: 1, Left: 2, Right: 2, Groups: 1}, true))
	},
	"conv, dilated": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 9, W: 8, C: 2},
			conv(r, plan.Conv2D{H: 9, W: 8, C: 2, OutC: 3, KH: 3, KW: 3, SH: 1, SW: 2, DH: 2, DW: 3,
				Top: 1, Bot: 1, Groups: 1}, true))
	},
	"conv, every side padded by another size": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 5, W: 6, C: 2},
			conv(r, plan.Conv2D{H: 5, W: 6, C: 2, OutC: 3, KH: 4, KW: 4, SH: 1, SW: 2, DH: 1, DW: 1,
				Top: 0, Bot: 1, Left: 3, Right: 2, Groups: 1}, true))
	},
	"max pool": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 7, W: 6, C: 3}, graph.MaxPool{Pool: graph.Pool{KH: 3, KW: 2, SH: 2, SW: 1}})
	},
	"max pool, padded": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 7, W: 6, C: 3},
			graph.MaxPool{Pool: graph.Pool{KH: 3, KW: 3, SH: 2, SW: 2, Top: 1, Left: 2, Bot: 1, Right: 2}})
	},
	"max pool, padded at two sides": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 7, W: 6, C: 3},
			graph.MaxPool{Pool: graph.Pool{KH: 3, KW: 3, SH: 2, SW: 2, Left: 1, Bot: 2}})
	},
	"average pool": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 7, W: 6, C: 3}, graph.AvgPool{Pool: graph.Pool{KH: 3, KW: 2, SH: 2, SW: 1}})
	},
	"average pool, padded": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 7, W: 6, C: 3},
			graph.AvgPool{Pool: graph.Pool{KH: 3, KW: 3, SH: 2, SW: 2, Top: 1, Left: 2, Bot: 1, Right: 2}})
	},
	"average pool, padding counted": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 7, W: 6, C: 3},
			graph.AvgPool{Pool: graph.Pool{KH: 3, KW: 3, SH: 2, SW: 2, Top: 2, Right: 1}, CountPad: true})
	},
	"average pool over all": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 5, W: 4, C: 3}, graph.AvgPool{Pool: graph.Pool{KH: 5, KW: 4, SH: 1, SW: 1}}, dense(r, 3, 2, true))
	},
	"relu":         func(r *rand.Rand) *graph.Graph { return chain(graph.Shape{H: 3, W: 4, C: 2}, graph.ReLU{}) },
	"square":       func(r *rand.Rand) *graph.Graph { return chain(graph.Shape{H: 3, W: 4, C: 2}, graph.Square{}) },
	"softmax":      func(r *rand.Rand) *graph.Graph { return chain(graph.Vector(9), graph.Softmax{}) },
	"softmax, map": func(r *rand.Rand) *graph.Graph { return chain(graph.Shape{H: 3, W: 4, C: 5}, graph.Softmax{}) },
	"flatten": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 3, W: 4, C: 5}, graph.Reshape{To: graph.Vector(60)})
	},
	"reshape": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 3, W: 4, C: 5}, graph.Reshape{To: graph.Shape{H: 2, W: 3, C: 10}})
	},
	"vector to map": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Vector(24), graph.Reshape{To: graph.Shape{H: 2, W: 3, C: 4}})
	},
	"mlp": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Vector(30), dense(r, 30, 20, true), graph.ReLU{}, dense(r, 20, 10, true), graph.Softmax{})
	},
	"mnist-cnn": mnistCNN,
	"cryptonets": func(r *rand.Rand) *graph.Graph {
		return chain(graph.Shape{H: 28, W: 28, C: 1},
			conv(r, plan.Conv2D{H: 28, W: 28, C: 1, OutC: 5, KH: 5, KW: 5, SH: 2, SW: 2, DH: 1, DW: 1, Bot: 1, Right: 1, Groups: 1}, true),
			graph.Square{}, graph.Reshape{To: graph.Vector(845)}, dense(r, 845, 100, true), graph.Square{}, dense(r, 100, 10, true))
	},
}

// Full batches, a partial one and a full one again agree with the definitions: no batch affects
// the next.
func TestForward(t *testing.T) {
	const n = 4
	// Contractions here have at most 845 terms of size 1: float32 keeps 1e-5 of
	// the largest intermediate, of which the squares of cryptonets have few hundred.
	const tolerance = 1e-5
	for name, network := range networks {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			g := network(r)
			m, err := New(g, n)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range []int{n, n, 1, n} {
				x := normal(r, k*g.Input.Len(), 1)
				before := slices.Clone(x)
				y, err := m.Forward(x)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(x, before) {
					t.Fatal("the input was written to")
				}
				for s := range k {
					sample := make([]float64, g.Input.Len())
					for i := range sample {
						sample[i] = float64(x[s*len(sample)+i])
					}
					want := oracle(g, sample)
					if len(y) != k*len(want) {
						t.Fatalf("%d outputs, want %d", len(y), k*len(want))
					}
					scale := 1.0
					for _, v := range want {
						scale = max(scale, math.Abs(v))
					}
					for i, v := range want {
						if got := float64(y[s*len(want)+i]); !(math.Abs(got-v) <= tolerance*scale) {
							t.Fatalf("sample %d, output %d: %v, want %v", s, i, got, v)
						}
					}
				}
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The demonstration networks give test images the probabilities of the definitions.
func TestDemonstrationNetworks(t *testing.T) {
	const n = 4
	images, _, err := models.TestSet()
	if err != nil {
		t.Fatal(err)
	}
	images = &dataset.Images{N: n, C: images.C, H: images.H, W: images.W, Data: images.Range(0, n)}
	for _, name := range models.Names() {
		t.Run(name, func(t *testing.T) {
			b, err := models.ONNX(name)
			if err != nil {
				t.Fatal(err)
			}
			g, err := onnx.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			fitted, err := images.Fit(g.Input.C, g.Input.H, g.Input.W)
			if err != nil {
				t.Fatal(err)
			}
			x := make([]float32, n*g.Input.Len())
			graph.CHWToHWC(x, fitted.Data, n, g.Input)
			m, err := New(g, n)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			y, err := m.Forward(x)
			if err != nil {
				t.Fatal(err)
			}
			for s := range n {
				sample := make([]float64, g.Input.Len())
				for i := range sample {
					sample[i] = float64(x[s*len(sample)+i])
				}
				for i, want := range oracle(g, sample) {
					if got := float64(y[s*10+i]); !(math.Abs(got-want) <= 1e-5) {
						t.Errorf("image %d, class %d: %v, want %v", s, i, got, want)
					}
				}
			}
		})
	}
}

// Store writes every parameter back to its place.
func TestStore(t *testing.T) {
	g := mnistCNN(rand.New(rand.NewPCG(1, 2)))
	e, err := Express(g, 2)
	if err != nil {
		t.Fatal(err)
	}
	var want [][]float32
	for _, node := range g.Nodes {
		if l, ok := node.Op.(graph.Linear); ok {
			for _, v := range [][]float32{l.Weights(), l.Bias()} {
				want = append(want, slices.Clone(v))
				clear(v)
			}
		}
	}
	if len(e.Params) != len(want) {
		t.Fatalf("%d parameters, want %d", len(e.Params), len(want))
	}
	e.Store()
	for _, node := range g.Nodes {
		if l, ok := node.Op.(graph.Linear); ok {
			for _, v := range [][]float32{l.Weights(), l.Bias()} {
				if !slices.Equal(v, want[0]) {
					t.Errorf("%s: a parameter of %d changed", node.Op.Name(), len(v))
				}
				want = want[1:]
			}
		}
	}
}

// strange is an unknown operator.
type strange struct{ graph.ReLU }

func (strange) Name() string { return "strange" }

func TestRefused(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	grouped := plan.Conv2D{H: 4, W: 4, C: 4, OutC: 4, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 2}
	for name, g := range map[string]*graph.Graph{
		"conv2d":  chain(graph.Shape{H: 4, W: 4, C: 4}, conv(r, grouped, true)),
		"strange": chain(graph.Vector(4), strange{}),
	} {
		var unsupported *UnsupportedError
		if _, err := New(g, 1); !errors.As(err, &unsupported) || unsupported.Op != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(chain(graph.Vector(4), dense(r, 5, 3, true)), 1); !errors.Is(err, graph.ErrInvalid) {
		t.Errorf("wrong shape: %v", err)
	}
	if _, err := New(chain(graph.Vector(5), dense(r, 5, 3, true)), 0); err == nil {
		t.Error("a batch of 0 was accepted")
	}
	m, err := New(chain(graph.Vector(5), dense(r, 5, 3, true)), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, words := range []int{0, 4, 6, 11, 15} {
		if _, err := m.Forward(make([]float32, words)); err == nil {
			t.Errorf("an input of %d words was accepted", words)
		}
	}
}

// Run it with GOMAXPROCS=1 for the time of one thread.
func BenchmarkForward(b *testing.B) {
	const n = 256
	r := rand.New(rand.NewPCG(1, 2))
	g := mnistCNN(r)
	m, err := New(g, n)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	x := normal(r, n*g.Input.Len(), 1)
	for b.Loop() {
		if _, err := m.Forward(x); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e3/float64(b.N)/n, "ms/image")
}
