package main

import (
	"math"
	"math/rand/v2"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/plan"
)

// network is one row of PAPER.md's table and how it is trained.
type network struct {
	// build returns the network without its softmax, which training folds
	// into the loss, with first weights drawn from r.
	build func(r *rand.Rand) *graph.Graph
	rate  float64 // Adam's first learning rate
}

var networks = map[string]network{
	"mnist-cnn": {build: mnistCNN, rate: 2e-3},
}

// mnistCNN is conv 5x5 x16, pool 2x2, conv 5x5 x32, pool 2x2, FC 10, each
// convolution of stride 1 without padding and followed by ReLU.
func mnistCNN(r *rand.Rand) *graph.Graph {
	pool := graph.MaxPool{Pool: graph.Pool{KH: 2, KW: 2, SH: 2, SW: 2}}
	return chain(graph.Shape{H: 28, W: 28, C: 1},
		conv(r, 28, 28, 1, 16), graph.ReLU{}, pool,
		conv(r, 12, 12, 16, 32), graph.ReLU{}, pool,
		graph.Reshape{To: graph.Vector(4 * 4 * 32)},
		dense(r, 4*4*32, 10),
	)
}

// chain returns the graph in which each operator reads the one before it.
func chain(in graph.Shape, ops ...graph.Op) *graph.Graph {
	g := &graph.Graph{Input: in, Output: graph.Value(len(ops))}
	for i, op := range ops {
		g.Nodes = append(g.Nodes, graph.Node{Op: op, Inputs: []graph.Value{graph.Value(i)}})
	}
	return g
}

// conv returns a 5x5 convolution of stride 1 without padding.
func conv(r *rand.Rand, h, w, in, out int) *graph.Conv2D {
	c := plan.Conv2D{H: h, W: w, C: in, OutC: out, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}
	return &graph.Conv2D{Geometry: c, W: he(r, out, c.Patch()), B: make([]float32, out)}
}

func dense(r *rand.Rand, in, out int) *graph.Dense {
	return &graph.Dense{In: in, Out: out, W: he(r, out, in), B: make([]float32, out)}
}

// he draws rows x terms weights of variance 2/terms (He et al., ICCV 2015,
// equation 10), which keeps the variance of activations through ReLU layers.
func he(r *rand.Rand, rows, terms int) []float32 {
	w := make([]float32, rows*terms)
	for i := range w {
		w[i] = float32(r.NormFloat64() * math.Sqrt(2/float64(terms)))
	}
	return w
}
