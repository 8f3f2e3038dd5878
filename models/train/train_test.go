package main

import (
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/dataset"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/reference"
	"github.com/securenets/securenets/plan"
)

// blobs returns n images of 6 x 6: a random one a class, plus noise.
func blobs(n int) *set {
	r := rand.New(rand.NewPCG(3, 4))
	s := &set{&dataset.Images{N: n, C: 1, H: 6, W: 6}, make([]uint8, n)}
	var prototypes [classes][36]float32
	for c := range prototypes {
		for i := range prototypes[c] {
			prototypes[c][i] = r.Float32()
		}
	}
	for i := range n {
		s.labels[i] = uint8(i % classes)
		for _, p := range prototypes[s.labels[i]] {
			s.images.Data = append(s.images.Data, p+float32(0.1*r.NormFloat64()))
		}
	}
	return s
}

// small has every kind of parameter.
var small = network{rate: 1e-2, epochs: 20, build: func(r *rand.Rand) *graph.Graph {
	c := plan.Conv2D{H: 6, W: 6, C: 1, OutC: 4, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}
	return chain(graph.Shape{H: 6, W: 6, C: 1},
		&graph.Conv2D{Geometry: c, W: he(r, c.OutC, c.Patch()), B: make([]float32, c.OutC)}, graph.ReLU{},
		graph.MaxPool{Pool: graph.Pool{KH: 2, KW: 2, SH: 2, SW: 2}},
		graph.Reshape{To: graph.Vector(16)}, dense(r, 16, classes))
}}

// Training learns what can be learned, saves after every epoch, and one seed
// always gives one network.
func TestTrain(t *testing.T) {
	on := blobs(5 * batch)
	train := func(seed uint64) (*graph.Graph, string) {
		var log strings.Builder
		var g *graph.Graph
		saved := 0
		err := small.train(on, on, seed, &log, func(now *graph.Graph) error {
			g, saved = now, saved+1
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(log.String(), "\n"); saved != small.epochs || lines != small.epochs {
			t.Errorf("%d networks and %d lines for %d epochs\n%s", saved, lines, small.epochs, &log)
		}
		return g, log.String()
	}
	g, log := train(1)
	if _, ok := g.Nodes[g.Output-1].Op.(graph.Softmax); !ok || int(g.Output) != len(g.Nodes) {
		t.Error("no softmax at the end")
	}
	accuracy, err := evaluate(g, on)
	if err != nil {
		t.Fatal(err)
	}
	if accuracy < 0.95 {
		t.Errorf("accuracy %v\n%s", accuracy, log)
	}
	if again, _ := train(1); !reflect.DeepEqual(again, g) {
		t.Error("one seed gave two networks")
	}
	if other, _ := train(2); reflect.DeepEqual(other, g) {
		t.Error("two seeds gave one network")
	}
	full := errors.New("disk full")
	if err := small.train(on, on, 1, io.Discard, func(*graph.Graph) error { return full }); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
}

// A step reports the loss and the hits of the network that the reference
// computes from the same weights.
func TestStep(t *testing.T) {
	on := blobs(batch)
	g := mnistCNN(rand.New(rand.NewPCG(1, 0)))
	on.images = &dataset.Images{N: batch, C: 1, H: 28, W: 28, Data: make([]float32, batch*28*28)}
	r := rand.New(rand.NewPCG(5, 6))
	for i := range on.images.Data {
		on.images.Data[i] = r.Float32()
	}
	m, err := reference.New(g, batch)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	logits, err := m.Forward(on.images.Data)
	if err != nil {
		t.Fatal(err)
	}
	loss, right := 0.0, 0
	for i := range batch {
		row, sum := logits[i*classes:(i+1)*classes], 0.0
		for _, v := range row {
			sum += math.Exp(float64(v))
		}
		loss += (math.Log(sum) - float64(row[on.labels[i]])) / batch
		if argmax(row) == int(on.labels[i]) {
			right++
		}
	}
	s, err := newStepper(g)
	if err != nil {
		t.Fatal(err)
	}
	defer s.machine.Close()
	order := rand.New(rand.NewPCG(7, 8)).Perm(batch)
	gotLoss, gotRight, err := s.step(on, order, 1e-3)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(gotLoss-loss) > 1e-5*loss || gotRight != right {
		t.Errorf("loss %v with %d right, want %v with %d", gotLoss, gotRight, loss, right)
	}
	// The step went downhill.
	if after, _, err := s.step(on, order, 0); err != nil || after >= gotLoss {
		t.Errorf("loss %v after a step from %v, %v", after, gotLoss, err)
	}
}

// The table's networks are the paper's.
func TestNetworks(t *testing.T) {
	paper := map[string][]string{
		"mlp": {"reshape", "dense 784->512", "relu", "dense 512->512", "relu", "dense 512->10"},
		"mnist-cnn": {
			"conv2d 28x28x1->24x24x16 kernel 5x5", "relu", "max_pool",
			"conv2d 12x12x16->8x8x32 kernel 5x5", "relu", "max_pool",
			"reshape", "dense 512->10",
		},
		"cifar-cnn": {
			"conv2d 32x32x3->28x28x64 kernel 5x5", "relu", "max_pool",
			"conv2d 14x14x64->10x10x64 kernel 5x5", "relu", "max_pool",
			"reshape", "dense 1600->384", "relu", "dense 384->10",
		},
		"cryptonets": {
			"conv2d 28x28x1->13x13x5 kernel 5x5", "square",
			"reshape", "dense 845->100", "square", "dense 100->10",
		},
	}
	for name, net := range networks {
		g := net.build(rand.New(rand.NewPCG(1, 0)))
		shapes, err := g.Shapes()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, node := range g.Nodes {
			if l, ok := node.Op.(graph.Linear); ok {
				got = append(got, l.Plan().String())
			} else {
				got = append(got, node.Op.Name())
			}
		}
		if !slices.Equal(got, paper[name]) || shapes[g.Output] != graph.Vector(classes) {
			t.Errorf("%s is %q", name, got)
		}
	}
}

func TestReadSet(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) {
		if err := os.WriteFile(dir+"/"+name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what string) {
		if _, err := readSet(dir, "t10k"); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	refused("no files")
	write("t10k-images-idx3-ubyte.gz", []byte{0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 8})
	refused("no labels")
	write("t10k-labels-idx1-ubyte.gz", []byte{0, 0, 8, 1, 0, 0, 0, 1, 4})
	refused("too few labels")
	write("t10k-labels-idx1-ubyte.gz", []byte{0, 0, 8, 1, 0, 0, 0, 2, 4, 10})
	refused("a label of 10")
	write("t10k-labels-idx1-ubyte.gz", []byte{0, 0, 8, 1, 0, 0, 0, 2, 4, 9})
	if s, err := readSet(dir, "t10k"); err != nil || s.images.N != 2 || s.labels[1] != 9 {
		t.Errorf("%v, %v", s, err)
	}
}

// run refuses a folder without data and leaves no empty files behind.
func TestRunWithoutData(t *testing.T) {
	out := t.TempDir() + "/out"
	if err := run(small, "small", t.TempDir(), out, 1); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Errorf("%s: %v", out, err)
	}
}
