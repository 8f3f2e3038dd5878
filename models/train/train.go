package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	_ "go4.org/unsafe/assume-no-moving-gc" // pins the version that starts on this Go
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/securenets/securenets/internal/dataset"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/internal/reference"
)

const (
	batch   = 100 // samples a step; divides both sets
	classes = 10
)

// set is labelled images.
type set struct {
	images *dataset.Images
	labels []uint8
}

// readSet reads one of the two sets, "train" or "t10k".
func readSet(folder, name string) (*set, error) {
	images, err := dataset.Open(filepath.Join(folder, name+"-images-idx3-ubyte.gz"), 1)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(folder, name+"-labels-idx1-ubyte.gz"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	labels, err := dataset.ReadIDXLabels(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if len(labels) != images.N {
		return nil, fmt.Errorf("%s: %d labels for %d images", name, len(labels), images.N)
	}
	if slices.Max(labels) >= classes {
		return nil, fmt.Errorf("%s: a label over %d", name, classes-1)
	}
	return &set{images, labels}, nil
}

// fit returns the set for a network's input.
func (s *set) fit(in graph.Shape) (*set, error) {
	images, err := s.images.Fit(in.C, in.H, in.W)
	return &set{images, s.labels}, err
}

// train minimises the cross entropy with Adam, the learning rate falling
// linearly to 0. After every epoch it saves the network with its softmax.
func (net network) train(train, test *set, seed uint64, progress io.Writer, save func(*graph.Graph) error) error {
	r := rand.New(rand.NewPCG(seed, 0))
	g := net.build(r)
	train, err := train.fit(g.Input)
	if err != nil {
		return err
	}
	if test, err = test.fit(g.Input); err != nil {
		return err
	}
	step, err := newStepper(g)
	if err != nil {
		return err
	}
	defer step.machine.Close()

	start := time.Now()
	order := r.Perm(train.images.N)
	batches := train.images.N / batch
	for epoch := range net.epochs {
		r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		var loss float64
		var right int
		for b := range batches {
			rate := net.rate * (1 - float64(epoch*batches+b)/float64(net.epochs*batches))
			l, k, err := step.step(train, order[b*batch:(b+1)*batch], rate)
			if err != nil {
				return err
			}
			loss += l
			right += k
		}
		step.net.Store()
		accuracy, err := evaluate(g, test)
		if err != nil {
			return err
		}
		fmt.Fprintf(progress, "epoch %2d: loss %.4f, training accuracy %.2f %%, test accuracy %.2f %%, %v\n", epoch+1,
			loss/float64(batches), 100*float64(right)/float64(batches*batch), 100*accuracy, time.Since(start).Round(time.Second))
		if err := save(withSoftmax(g)); err != nil {
			return err
		}
	}
	return nil
}

// withSoftmax returns g, its parameters shared, with a softmax at the end.
func withSoftmax(g *graph.Graph) *graph.Graph {
	softmax := graph.Node{Op: graph.Softmax{}, Inputs: []graph.Value{g.Output}}
	nodes := append(slices.Clone(g.Nodes), softmax)
	return &graph.Graph{Input: g.Input, Nodes: nodes, Output: graph.Value(len(nodes))}
}

// stepper does steps of training on one network.
type stepper struct {
	net     *reference.Expression
	target  *gorgonia.Node
	x, y    *tensor.Dense
	loss    gorgonia.Value
	logits  gorgonia.Value
	machine gorgonia.VM
	solver  *gorgonia.AdamSolver
}

func newStepper(g *graph.Graph) (*stepper, error) {
	net, err := reference.Express(g, batch)
	if err != nil {
		return nil, err
	}
	s := &stepper{
		net:    net,
		target: gorgonia.NewMatrix(net.Graph, tensor.Float32, gorgonia.WithName("target"), gorgonia.WithShape(batch, classes)),
		x:      tensor.New(tensor.Of(tensor.Float32), tensor.WithShape(net.Input.Shape()...)),
		y:      tensor.New(tensor.Of(tensor.Float32), tensor.WithShape(batch, classes)),
		solver: gorgonia.NewAdamSolver(),
	}
	logits, err := gorgonia.Reshape(net.Output, tensor.Shape{batch, classes})
	if err != nil {
		return nil, err
	}
	loss, err := crossEntropy(logits, s.target)
	if err != nil {
		return nil, err
	}
	gorgonia.Read(logits, &s.logits)
	gorgonia.Read(loss, &s.loss)
	if _, err := gorgonia.Grad(loss, net.Params...); err != nil {
		return nil, err
	}
	s.machine = gorgonia.NewTapeMachine(net.Graph, gorgonia.BindDualValues(net.Params...))
	return s, nil
}

// crossEntropy returns -Σ target · log softmax(logits) / batch.
func crossEntropy(logits, target *gorgonia.Node) (*gorgonia.Node, error) {
	logp, err := gorgonia.LogSoftMax(logits, 1)
	if err != nil {
		return nil, err
	}
	terms, err := gorgonia.HadamardProd(logp, target)
	if err != nil {
		return nil, err
	}
	sum, err := gorgonia.Sum(terms)
	if err != nil {
		return nil, err
	}
	return gorgonia.Mul(sum, gorgonia.NewConstant(float32(-1.0/batch)))
}

// step moves the parameters once, for the samples of the given indices. It
// returns the mean loss and the number of samples that were classified right
// before the move.
func (s *stepper) step(from *set, indices []int, rate float64) (loss float64, right int, err error) {
	x, y := s.x.Data().([]float32), s.y.Data().([]float32)
	clear(y)
	size := len(x) / batch
	for i, index := range indices {
		copy(x[i*size:], from.images.Range(index, index+1))
		y[i*classes+int(from.labels[index])] = 1
	}
	if err := gorgonia.Let(s.net.Input, s.x); err != nil {
		return 0, 0, err
	}
	if err := gorgonia.Let(s.target, s.y); err != nil {
		return 0, 0, err
	}
	if err := s.machine.RunAll(); err != nil {
		return 0, 0, err
	}
	logits := s.logits.Data().([]float32)
	for i, index := range indices {
		if argmax(logits[i*classes:(i+1)*classes]) == int(from.labels[index]) {
			right++
		}
	}
	loss = float64(s.loss.Data().(float32))
	gorgonia.WithLearnRate(rate)(s.solver)
	if err := s.solver.Step(gorgonia.NodesToValueGrads(s.net.Params)); err != nil {
		return 0, 0, err
	}
	s.machine.Reset()
	return loss, right, nil
}

// evaluate returns the part of the set that g classifies right.
func evaluate(g *graph.Graph, on *set) (float64, error) {
	m, err := reference.New(g, batch)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	x := make([]float32, batch*g.Input.Len())
	right := 0
	for i := 0; i+batch <= on.images.N; i += batch {
		graph.CHWToHWC(x, on.images.Range(i, i+batch), batch, g.Input)
		y, err := m.Forward(x)
		if err != nil {
			return 0, err
		}
		for j := range batch {
			if argmax(y[j*classes:(j+1)*classes]) == int(on.labels[i+j]) {
				right++
			}
		}
	}
	return float64(right) / float64(on.images.N), nil
}

func argmax(v []float32) int {
	best := 0
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return best
}

// export writes g as ONNX.
func export(path string, g *graph.Graph) error {
	b, err := onnx.Marshal(g)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}
