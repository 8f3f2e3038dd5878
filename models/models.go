// Package models holds the demonstration networks, trained by models/train, and
// the test set of Fashion-MNIST, which they classify. All are embedded.
package models

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"path"

	"github.com/securenets/securenets/internal/dataset"
)

//go:embed */model.onnx
var networks embed.FS

//go:embed fashion-mnist/t10k-images-idx3-ubyte.gz
var testImages []byte

//go:embed fashion-mnist/t10k-labels-idx1-ubyte.gz
var testLabels []byte

// Names returns the networks' names, sorted.
func Names() []string {
	entries, err := networks.ReadDir(".")
	if err != nil {
		panic(err) // an embedded folder is there
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

// ErrNoNetwork: no network has that name.
var ErrNoNetwork = errors.New("models: no network")

// ONNX returns the named network as an ONNX file.
func ONNX(name string) ([]byte, error) {
	b, err := networks.ReadFile(path.Join(name, "model.onnx"))
	if err != nil {
		return nil, fmt.Errorf("%w %q, there are %q", ErrNoNetwork, name, Names())
	}
	return b, nil
}

// TestSet returns the 10,000 test images of Fashion-MNIST, each 28 x 28 x 1 in
// [0, 1], and their labels, each below 10. Fit makes of them what cifar-cnn, of
// another input, was trained on.
func TestSet() (*dataset.Images, []uint8, error) {
	images, err := dataset.ReadIDX(bytes.NewReader(testImages))
	if err != nil {
		return nil, nil, fmt.Errorf("models: test images: %w", err)
	}
	labels, err := dataset.ReadIDXLabels(bytes.NewReader(testLabels))
	if err != nil {
		return nil, nil, fmt.Errorf("models: test labels: %w", err)
	}
	if len(labels) != images.N {
		return nil, nil, fmt.Errorf("models: %d labels of %d test images", len(labels), images.N)
	}
	return images, labels, nil
}
