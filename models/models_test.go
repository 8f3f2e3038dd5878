package models

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/internal/reference"
)

// The embedded files are those that the package of the training set carries.
func TestTestSetIsFashionMNIST(t *testing.T) {
	script, err := os.ReadFile("fashion-mnist/fetch.sh")
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"t10k-images-idx3-ubyte.gz": testImages,
		"t10k-labels-idx1-ubyte.gz": testLabels,
	} {
		if line := fmt.Sprintf("%x  %s\n", sha256.Sum256(b), name); !strings.Contains(string(script), line) {
			t.Errorf("%s has another sum than fetch.sh checks", name)
		}
	}
}

func TestTestSet(t *testing.T) {
	images, labels, err := TestSet()
	if err != nil {
		t.Fatal(err)
	}
	if images.N != 10000 || images.C != 1 || images.H != 28 || images.W != 28 {
		t.Errorf("%d x %d x %d x %d", images.N, images.C, images.H, images.W)
	}
	var perClass [10]int
	for _, l := range labels {
		perClass[l]++
	}
	for class, n := range perClass {
		if n != 1000 {
			t.Errorf("%d images of class %d", n, class)
		}
	}
	// The set's sum of bytes.
	sum := 0
	for _, v := range images.Data {
		sum += int(v*255 + 0.5)
	}
	if sum != 573469082 {
		t.Errorf("sum of pixels %d", sum)
	}
}

var accuracyLine = regexp.MustCompile(`test accuracy ([0-9.]+) %`)

// Every network classifies the test set as well as its log says.
func TestAccuracy(t *testing.T) {
	const batch = 250
	images, labels, err := TestSet()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			b, err := ONNX(name)
			if err != nil {
				t.Fatal(err)
			}
			g, err := onnx.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			shapes, err := g.Shapes()
			if err != nil {
				t.Fatal(err)
			}
			if shapes[g.Output] != graph.Vector(10) {
				t.Fatalf("%v to %v", g.Input, shapes[g.Output])
			}
			images, err := images.Fit(g.Input.C, g.Input.H, g.Input.W)
			if err != nil {
				t.Fatal(err)
			}
			m, err := reference.New(g, batch)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			x := make([]float32, batch*g.Input.Len())
			right := 0
			for i := 0; i < images.N; i += batch {
				graph.CHWToHWC(x, images.Range(i, i+batch), batch, g.Input)
				y, err := m.Forward(x)
				if err != nil {
					t.Fatal(err)
				}
				for j := range batch {
					if row := y[10*j : 10*j+10]; slices.Index(row, slices.Max(row)) == int(labels[i+j]) {
						right++
					}
				}
			}
			accuracy := 100 * float64(right) / float64(images.N)
			t.Logf("%.2f %%", accuracy)

			log, err := os.ReadFile(path.Join(name, "train.log"))
			if err != nil {
				t.Fatal(err)
			}
			epochs := accuracyLine.FindAllStringSubmatch(string(log), -1)
			if len(epochs) == 0 {
				t.Fatal("no accuracy in train.log")
			}
			// One image is 0.01 %: two may fall to the other side of a tie
			// where another processor rounds otherwise.
			want, err := strconv.ParseFloat(epochs[len(epochs)-1][1], 64)
			if err != nil || accuracy < want-0.021 || accuracy > want+0.021 {
				t.Errorf("accuracy %.2f %%, train.log says %v", accuracy, want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	if want := []string{"cifar-cnn", "cryptonets", "mlp", "mnist-cnn"}; !slices.Equal(Names(), want) {
		t.Errorf("%q, want %q", Names(), want)
	}
	for _, name := range []string{"", "absent", "../models/mnist-cnn", "fashion-mnist"} {
		if _, err := ONNX(name); err == nil {
			t.Errorf("%q was found", name)
		}
	}
}
