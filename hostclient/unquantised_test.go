package hostclient_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
)

// A runtimeVector is a model and what onnxruntime computes from it; see internal/onnx/testdata.
type runtimeVector struct {
	Name          string
	Samples       int
	Model         []byte
	Input, Output []byte
	Sizes         map[string]int
}

func readRuntimeVectors(t testing.TB, file string) (all []runtimeVector) {
	b, err := os.ReadFile("../internal/onnx/testdata/" + file + ".json")
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func floatsOf(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}

// TestAgainstRuntime: networks as exporters write them, of images, text and sequences, give
// onnxruntime's results unquantised; and some of them quantised on this machine, in either ring, what
// a cloud gives bit for bit, which is near.
func TestAgainstRuntime(t *testing.T) {
	for file, least := range map[string]int{"exports": 45, "text": 35, "recurrent": 25} {
		ran := 0
		for _, v := range readRuntimeVectors(t, file) {
			path := filepath.Join(t.TempDir(), "m.onnx")
			if err := os.WriteFile(path, v.Model, 0o600); err != nil {
				t.Fatal(err)
			}
			m, err := hostclient.OpenModelWith(path, hostclient.ModelOptions{Sizes: v.Sizes})
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			defer m.Close()
			u, err := m.NewUnquantised(t.Context())
			if errors.Is(err, graph.ErrInvalid) && strings.Contains(err.Error(), "no linear layer") {
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			ran++
			x, want := floatsOf(v.Input), floatsOf(v.Output)
			y, err := u.Infer(t.Context(), x, v.Samples)
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			if d := furthest(t, y, want); !(d <= 1e-5) {
				t.Errorf("%s: %g of the largest output from onnxruntime's", v.Name, d)
			}
			switch ran % 8 { // each takes a cloud of its own
			case 0:
				sameAsCloud(t, v, m, hostclient.RingQ4, x, y, 0.002)
			case 4:
				sameAsCloud(t, v, m, hostclient.RingQ3, x, y, 0.05)
			}
		}
		if ran < least {
			t.Errorf("%d networks of %s", ran, file)
		}
	}
}

// furthest returns the largest difference, as a fraction of the largest value.
func furthest(t *testing.T, y, want []float32) float64 {
	t.Helper()
	if len(y) != len(want) {
		t.Fatalf("%d outputs, want %d", len(y), len(want))
	}
	difference, top := 0.0, 0.0
	for i, v := range want {
		difference, top = max(difference, math.Abs(float64(y[i])-float64(v))), max(top, math.Abs(float64(v)))
	}
	return difference / top
}

// sameAsCloud compares what an emulator gives with a cloud's bits, and with float32.
func sameAsCloud(t *testing.T, v runtimeVector, m *hostclient.ModelFile, ring hostclient.Ring, x, float []float32, most float64) {
	t.Helper()
	o := hostclient.SealOptions{Scheme: permutePad, Ring: ring, Multiplier: kernel}
	e, err := m.NewEmulator(t.Context(), o)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	defer e.Close()
	y, err := e.Infer(t.Context(), x, v.Samples)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	if d := furthest(t, y, float); !(d <= most) {
		t.Errorf("%s in %s: %g of the largest output from float32", v.Name, ring, d)
	}
	dir, id := filepath.Join(t.TempDir(), "net"), identity(t)
	r := &rig{}
	if r.secret, _, err = m.SealDir(t.Context(), dir, o, id.Recipient()); err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	if r.models, err = hostclient.ReadModels(dir); err != nil {
		t.Fatal(err)
	}
	r.push(t)
	if z := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, v.Samples); !slices.Equal(bits(y), bits(z)) {
		t.Errorf("%s in %s: a cloud gives other results", v.Name, ring)
	}
}

// TestUnquantised: samples of several blocks are each their own, what is refused is what a session
// refuses, and it ends with its context.
func TestUnquantised(t *testing.T) {
	const side = 1500 // of a map of which a block has one
	g := chain(graph.Shape{H: side, W: side, C: 1},
		&graph.Conv2D{Geometry: plan.Conv2D{H: side, W: side, C: 1, OutC: 1, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}, W: []float32{2}, B: []float32{0.5}},
		graph.AvgPool{Pool: graph.Pool{KH: side, KW: side, SH: 1, SW: 1}})
	u, err := openModel(t, g).NewUnquantised(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x := append(slices.Repeat([]float32{1}, side*side), slices.Repeat([]float32{-2}, side*side)...)
	if y, err := u.Infer(t.Context(), x, 2); err != nil || !slices.Equal(y, []float32{2.5, -3.5}) {
		t.Errorf("%v, %v", y, err)
	}
	if _, err := u.Infer(t.Context(), x, 1); !errors.Is(err, hostclient.ErrInput) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := u.Infer(ctx, x, 2); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if u, err = openModel(t, nets()["map"]).NewUnquantised(t.Context()); err != nil || u.Output() != [3]int{4, 4, 2} {
		t.Errorf("output of %v, %v", u.Output(), err)
	}
	if u, err = openModel(t, chain(graph.Vector(2), &graph.Dense{In: 2, Out: 1, W: []float32{3e38, 3e38}})).NewUnquantised(t.Context()); err != nil {
		t.Fatal(err)
	}
	if y, err := u.Infer(t.Context(), []float32{3e38, 3e38}, 1); y != nil || !errors.Is(err, hostclient.ErrInput) {
		t.Errorf("%v, %v", y, err)
	}
}
