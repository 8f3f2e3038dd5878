package models

import (
	"crypto/sha256"
	"fmt"
	"math"
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

// counted are the networks that were counted in full: the sum of the file, how many of
// the test set it classifies right, and how many of the first few images.
var counted = map[string]struct {
	sum        string
	all, first int
}{
	"cifar-cnn":  {"a2cbd1cc62c6661df547c1eb29085b7bf4a2d37a267636c64ede1e11539c30ec", 9147, 1839},
	"cryptonets": {"efc0d0617ee226c0a32b1e2db3c397434ba72ac67f4dead0c2a6d67b7a9dafec", 8878, 1787},
	"mlp":        {"60ec17db398520349d2dbae8e25fdffa07e80d0f77924cbbb2972051ea34df98", 9035, 1822},
	"mnist-cnn":  {"14e08b9d65b8132f5e396253f6595cc6d3dafd96f9cc7fba5d18302ab371d732", 9028, 1817},
}

// Every network classifies the test set as well as its log says. A file that was counted in
// full, whose sum is known, has only the first few images counted again; another has all.
func TestAccuracy(t *testing.T) {
	const batch, few = 250, 2000
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
			known, of := counted[name], images.N
			if fmt.Sprintf("%x", sha256.Sum256(b)) == known.sum {
				of = few
			}
			x := make([]float32, batch*g.Input.Len())
			right, first := 0, 0
			for i := 0; i < of; i += batch {
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
				if i+batch == few {
					first = right
				}
			}
			// Two may fall to the other side of a tie where another processor rounds otherwise.
			const ties = 2
			t.Logf("%d of %d right, %d of the first %d, sum %x", right, of, first, few, sha256.Sum256(b))
			if of == few {
				if first < known.first-ties || first > known.first+ties {
					t.Errorf("%d of the first %d images right, %d when all were counted", first, few, known.first)
				}
				right = known.all
			}
			accuracy := 100 * float64(right) / float64(images.N)

			log, err := os.ReadFile(path.Join(name, "train.log"))
			if err != nil {
				t.Fatal(err)
			}
			epochs := accuracyLine.FindAllStringSubmatch(string(log), -1)
			if len(epochs) == 0 {
				t.Fatal("no accuracy in train.log")
			}
			want, err := strconv.ParseFloat(epochs[len(epochs)-1][1], 64)
			if err != nil || math.Abs(accuracy-want) > 100*(ties+0.1)/float64(images.N) {
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
