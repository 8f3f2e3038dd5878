package hostclient_test

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// chain returns the graph of operators that each read the one before.
func chain(input graph.Shape, ops ...graph.Op) *graph.Graph {
	g := &graph.Graph{Input: input, Output: graph.Value(len(ops))}
	for i, op := range ops {
		g.Nodes = append(g.Nodes, graph.Node{Op: op, Inputs: []graph.Value{graph.Value(i)}})
	}
	return g
}

// dense and conv return layers whose rows have an L1 norm of about 1, so that
// errors are not amplified from layer to layer and bounds stay near the truth.
func dense(rnd *rand.Rand, in, out int) *graph.Dense {
	return &graph.Dense{In: in, Out: out, W: weights(rnd, out, in), B: gaussian(rnd, out)}
}

func conv(rnd *rand.Rand, c plan.Conv2D) *graph.Conv2D {
	return &graph.Conv2D{Geometry: c, W: weights(rnd, c.OutC, c.Patch()), B: gaussian(rnd, c.OutC)}
}

func weights(rnd *rand.Rand, rows, terms int) []float32 {
	w := gaussian(rnd, rows*terms)
	for i := range w {
		w[i] /= float32(terms)
	}
	return w
}

func gaussian(rnd *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rnd.NormFloat64())
	}
	return v
}

// nets are small networks that together have every operator.
func nets() map[string]*graph.Graph {
	rnd := rand.New(rand.NewPCG(1, 2))
	pool := graph.Pool{KH: 2, KW: 2, SH: 2, SW: 2}
	unbiased := dense(rnd, 6, 5)
	unbiased.B = nil
	return map[string]*graph.Graph{
		"mlp": chain(graph.Vector(7), dense(rnd, 7, 9), graph.ReLU{}, dense(rnd, 9, 6), graph.ReLU{}, unbiased, graph.Softmax{}),
		"cnn": chain(graph.Shape{H: 9, W: 8, C: 2},
			conv(rnd, plan.Conv2D{H: 9, W: 8, C: 2, OutC: 4, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Left: 1, Bot: 1, Right: 1, Groups: 1}),
			graph.ReLU{}, graph.MaxPool{Pool: pool},
			conv(rnd, plan.Conv2D{H: 4, W: 4, C: 4, OutC: 6, KH: 3, KW: 2, SH: 1, SW: 2, DH: 1, DW: 1, Bot: 1, Groups: 1}),
			graph.ReLU{}, graph.Reshape{To: graph.Vector(36)}, dense(rnd, 36, 5)),
		"squares": chain(graph.Shape{H: 6, W: 6, C: 1},
			conv(rnd, plan.Conv2D{H: 6, W: 6, C: 1, OutC: 3, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}),
			graph.Square{}, graph.AvgPool{Pool: pool}, graph.Reshape{To: graph.Vector(12)}, dense(rnd, 12, 4)),
		// The output is a map, so its order counts.
		"map": chain(graph.Shape{H: 5, W: 4, C: 3},
			conv(rnd, plan.Conv2D{H: 5, W: 4, C: 3, OutC: 4, KH: 2, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}), graph.ReLU{}),
	}
}

func model(g *graph.Graph) []byte {
	b, err := onnx.Marshal(g)
	if err != nil {
		panic(err)
	}
	return b
}

// plain evaluates a chain in float64 by the definitions, one sample in C, H, W
// order throughout. eps bounds, for every output, how far off the quantised
// network may be, whose layer l has inputs of at most xmax[l]: the error that
// comes in is amplified by a row's L1 norm at most, and rounding adds half a unit
// of the scales of docs/spec.md, section 3.
func plain(g *graph.Graph, xmax []int32, x []float32) (y []float64, eps float64) {
	shapes, err := g.Shapes()
	if err != nil {
		panic(err)
	}
	v := make([]float64, len(x))
	for i := range x {
		v[i] = float64(x[i])
	}
	for i, node := range g.Nodes {
		in, out := shapes[i], shapes[i+1]
		next := make([]float64, out.Len())
		switch op := node.Op.(type) {
		case *graph.Dense:
			for o := range next {
				for j := range v {
					next[o] += float64(op.W[o*op.In+j]) * v[j]
				}
			}
			next, eps = finish(op, next, v, eps, xmax[0], 1)
			xmax = xmax[1:]
		case *graph.Conv2D:
			c := op.Geometry
			for o := range c.OutC {
				for p := range out.H {
					for q := range out.W {
						sum := 0.0
						for a := range c.KH {
							for b := range c.KW {
								h, w := p*c.SH+a-c.Top, q*c.SW+b-c.Left
								if h < 0 || h >= in.H || w < 0 || w >= in.W {
									continue
								}
								for k := range in.C {
									sum += float64(op.W[((o*c.KH+a)*c.KW+b)*in.C+k]) * v[(k*in.H+h)*in.W+w]
								}
							}
						}
						next[(o*out.H+p)*out.W+q] = sum
					}
				}
			}
			next, eps = finish(op, next, v, eps, xmax[0], out.H*out.W)
			xmax = xmax[1:]
		case graph.ReLU:
			for j := range next {
				next[j] = max(0, v[j])
			}
		case graph.Square:
			for j := range next {
				next[j] = v[j] * v[j]
			}
			eps *= 2*peak(v) + eps
		case graph.MaxPool:
			window(op.Pool, in, out, func(at int, under []int) {
				next[at] = math.Inf(-1)
				for _, j := range under {
					next[at] = max(next[at], v[j])
				}
			})
		case graph.AvgPool:
			window(op.Pool, in, out, func(at int, under []int) {
				for _, j := range under {
					next[at] += v[j] / float64(len(under))
				}
			})
		case graph.Reshape:
			copy(next, v)
		case graph.Softmax: // moves by less than its input
			sum := 0.0
			for j := range next {
				next[j] = math.Exp(v[j])
				sum += next[j]
			}
			for j := range next {
				next[j] /= sum
			}
		default:
			panic(fmt.Sprintf("%T", op))
		}
		v = next
		eps += 8 * peak(v) / (1 << 24) // float32 arithmetic
	}
	return v, eps
}

// finish adds the bias to y = W x, each row of which stands at some positions,
// and returns y with its error bound.
func finish(op graph.Linear, y, x []float64, eps float64, xmax int32, positions int) ([]float64, float64) {
	p := op.Plan()
	terms, top := float64(p.Terms()), peak(x)+eps
	unitX := top / float64(xmax)
	worst := 0.0
	for o := range p.Rows() {
		l1 := 0.0
		for _, w := range op.Weights()[o*p.Terms() : (o+1)*p.Terms()] {
			l1 += math.Abs(float64(w))
		}
		// Rounding K weights adds K/2 at most, so this scale always holds (1);
		// the search for one gives up less than 1 % more.
		unitW := l1 / (float64(ring.Q4().Max())/float64(xmax) - terms/2 - 1) / 0.99
		worst = max(worst, l1*eps+l1*unitX/2+terms*unitW/2*top+terms*unitW*unitX/4)
		if b := op.Bias(); b != nil {
			for j := range positions {
				y[o*positions+j] += float64(b[o])
			}
		}
	}
	return y, worst
}

// window calls f for every output of an unpadded pool with the inputs under it.
func window(p graph.Pool, in, out graph.Shape, f func(at int, under []int)) {
	for c := range out.C {
		for h := range out.H {
			for w := range out.W {
				var under []int
				for a := range p.KH {
					for b := range p.KW {
						under = append(under, (c*in.H+h*p.SH+a)*in.W+w*p.SW+b)
					}
				}
				f((c*out.H+h)*out.W+w, under)
			}
		}
	}
}

func peak(v []float64) float64 {
	top := 0.0
	for _, x := range v {
		top = max(top, math.Abs(x))
	}
	return top
}
