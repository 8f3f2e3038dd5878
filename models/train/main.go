// Command train trains this project's demonstration networks with gorgonia and
// exports them as ONNX:
//
//	go run ./models/train -network mnist-cnn -data data/fashion-mnist -out models/mnist-cnn
//
// The seed fixes the first weights and the order of the samples. After every
// epoch it writes model.onnx anew and adds a line to train.log.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/securenets/securenets/internal/graph"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("train: ")
	names := slices.Sorted(maps.Keys(networks))
	var (
		name = flag.String("network", "mnist-cnn", "network: "+strings.Join(names, ", "))
		data = flag.String("data", "data/fashion-mnist", "`folder` of the four files of the training and test set")
		out  = flag.String("out", "", "`folder` for model.onnx and train.log")
		seed = flag.Uint64("seed", 1, "seed of the first weights and of the order of samples")
	)
	flag.Parse()
	net, ok := networks[*name]
	if !ok || *out == "" || flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(net, *name, *data, *out, *seed); err != nil {
		log.Fatal(err)
	}
}

func run(net network, name, data, out string, seed uint64) error {
	train, err := readSet(data, "train")
	if err != nil {
		return err
	}
	test, err := readSet(data, "t10k")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	logFile, err := os.Create(filepath.Join(out, "train.log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	progress := io.MultiWriter(os.Stdout, logFile)

	fmt.Fprintf(progress, "network %s, seed %d, %d epochs, batch %d, Adam with rate %g falling to 0, %d training and %d test samples\n",
		name, seed, net.epochs, batch, net.rate, train.images.N, test.images.N)
	save := func(g *graph.Graph) error { return export(filepath.Join(out, "model.onnx"), g) }
	if err := net.train(train, test, seed, progress, save); err != nil {
		return err
	}
	return logFile.Close()
}
