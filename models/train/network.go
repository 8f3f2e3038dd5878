package main

import (
	"math"
	"math/rand/v2"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// network is one of the paper's networks and how it is trained.
type network struct {
	// build returns the network without its softmax, which training folds
	// into the loss, with first weights drawn from r.
	build  func(r *rand.Rand) *graph.Graph
	rate   float64 // Adam's first learning rate
	epochs int     // passes over the training set
}

var networks = map[string]network{
	"mlp":        {build: mlp, rate: 1e-3, epochs: 12},
	"mnist-cnn":  {build: mnistCNN, rate: 2e-3, epochs: 12},
	"cifar-cnn":  {build: cifarCNN, rate: 1e-3, epochs: 3},
	"cryptonets": {build: cryptoNets, rate: 1e-3, epochs: 15},
}

// grey is the input of the networks for MNIST's shape.
var grey = graph.Shape{H: 28, W: 28, C: 1}

// halve is max pooling of 2x2 windows side by side.
var halve = graph.MaxPool{Pool: graph.Pool{KH: 2, KW: 2, SH: 2, SW: 2}}

// mlp is 784-512-512-10 with ReLU.
func mlp(r *rand.Rand) *graph.Graph {
	return chain(grey,
		graph.Reshape{To: graph.Vector(28 * 28)},
		dense(r, 28*28, 512), graph.ReLU{},
		dense(r, 512, 512), graph.ReLU{},
		dense(r, 512, 10),
	)
}

// mnistCNN is conv 5x5 x16, pool 2x2, conv 5x5 x32, pool 2x2, FC 10, each
// convolution of stride 1 without padding and followed by ReLU.
func mnistCNN(r *rand.Rand) *graph.Graph {
	return chain(grey,
		conv(r, grey, 16), graph.ReLU{}, halve,
		conv(r, graph.Shape{H: 12, W: 12, C: 16}, 32), graph.ReLU{}, halve,
		graph.Reshape{To: graph.Vector(4 * 4 * 32)},
		dense(r, 4*4*32, 10),
	)
}

// cifarCNN is conv 5x5 x64, pool 2x2, conv 5x5 x64, pool 2x2, FC 384, FC 10,
// each convolution of stride 1 without padding; ReLU follows all but the last.
func cifarCNN(r *rand.Rand) *graph.Graph {
	colour := graph.Shape{H: 32, W: 32, C: 3}
	return chain(colour,
		conv(r, colour, 64), graph.ReLU{}, halve,
		conv(r, graph.Shape{H: 14, W: 14, C: 64}, 64), graph.ReLU{}, halve,
		graph.Reshape{To: graph.Vector(5 * 5 * 64)},
		dense(r, 5*5*64, 384), graph.ReLU{},
		dense(r, 384, 10),
	)
}

// cryptoNets is the network of CryptoNets (Gilad-Bachrach et al., ICML 2016),
// its mean pooling folded into the linear layer behind: conv 5x5 x5 of stride 2
// padded below and to the right, square, FC 100, square, FC 10.
func cryptoNets(r *rand.Rand) *graph.Graph {
	c := conv(r, grey, 5)
	c.Geometry.SH, c.Geometry.SW = 2, 2
	c.Geometry.Bot, c.Geometry.Right = 1, 1
	return chain(grey,
		c, graph.Square{},
		graph.Reshape{To: graph.Vector(13 * 13 * 5)},
		dense(r, 13*13*5, 100), graph.Square{},
		dense(r, 100, 10),
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
func conv(r *rand.Rand, in graph.Shape, out int) *graph.Conv2D {
	c := plan.Conv2D{H: in.H, W: in.W, C: in.C, OutC: out, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}
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
