package hostclient_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/onnx"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/transform"
)

// An emulator gives what clouds give, bit for bit, in every ring, with and without
// calibration.
func TestEmulator(t *testing.T) {
	for name, g := range nets() {
		const n = 5
		in := g.Input.Len()
		x := gaussian(rand.New(rand.NewPCG(31, 1)), n*in)
		for _, o := range []hostclient.SealOptions{
			{}, {Calibration: x[:2*in]}, {Ring: hostclient.RingQ3}, {Ring: hostclient.RingQ3, Calibration: x[:2*in]},
		} {
			o.Scheme, o.Multiplier = split, kernel
			r := &rig{}
			var err error
			if r.models, r.secret, err = hostclient.Seal(t.Context(), model(g), o); err != nil {
				t.Fatal(err)
			}
			r.push(t)
			want := infer(t, r.open(t, hostclient.Options{}), x, n)
			e, err := hostclient.NewEmulator(t.Context(), model(g), o)
			if err != nil {
				t.Fatal(err)
			}
			y, err := e.Infer(t.Context(), x, n)
			if err != nil || !slices.Equal(bits(y), bits(want)) {
				t.Errorf("%s: %v, or other values", name, err)
			}
			if !slices.Equal(e.XMax(), xmax(r.secret)) {
				t.Errorf("%s: largest inputs %v, want %v", name, e.XMax(), xmax(r.secret))
			}
			if _, err := e.Infer(t.Context(), x[1:], n); !errors.Is(err, hostclient.ErrInput) {
				t.Errorf("%s: %v", name, err)
			}
			x := slices.Clone(x)
			x[1] = float32(math.Inf(1))
			if _, err := e.Infer(t.Context(), x, n); !errors.Is(err, hostclient.ErrInput) {
				t.Errorf("%s: %v", name, err)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := hostclient.NewEmulator(t.Context(), model(g), hostclient.SealOptions{}); !errors.Is(err, hostclient.ErrMultiplier) {
			t.Error(err)
		}
	}
}

// Outputs that leave the range of float32 are an error, as in a session.
func TestEmulatorOutOfRange(t *testing.T) {
	g := chain(graph.Vector(2), &graph.Dense{In: 2, Out: 1, W: []float32{3e38, 3e38}})
	e, err := hostclient.NewEmulator(t.Context(), model(g), hostclient.SealOptions{Multiplier: kernel})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if y, err := e.Infer(t.Context(), []float32{3e38, 3e38}, 1); y != nil || !errors.Is(err, hostclient.ErrInput) {
		t.Errorf("%v, %v", y, err)
	}
}

// A preview says what sealing then makes.
func TestPreview(t *testing.T) {
	for name, g := range nets() {
		for _, scheme := range schemes {
			for _, in := range hostclient.Rings() {
				got, err := hostclient.Preview(model(g), scheme, in)
				if err != nil {
					t.Fatal(err)
				}
				_, secret, err := hostclient.Seal(t.Context(), model(g), hostclient.SealOptions{Scheme: scheme, Ring: in})
				if err != nil {
					t.Fatal(err)
				}
				want := secret.Describe()
				want.Digests = nil
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%s, %v, %s: %+v, want %+v", name, scheme, in, got, want)
				}
			}
		}
	}
	if _, err := hostclient.Preview([]byte("none"), split, ""); !errors.Is(err, onnx.ErrFormat) {
		t.Error(err)
	}
	if _, err := hostclient.Preview(model(chain(graph.Vector(2), graph.ReLU{})), split, ""); !errors.Is(err, graph.ErrInvalid) {
		t.Error(err)
	}
	const side = 1 << 11 // 16 MiB of words, which no message holds
	huge := &graph.Conv2D{Geometry: plan.Conv2D{H: side, W: side, C: 1, OutC: 1, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}, W: []float32{1}}
	if _, err := hostclient.Preview(model(chain(graph.Shape{H: side, W: side, C: 1}, huge)), split, ""); !errors.Is(err, hostclient.ErrTooLarge) {
		t.Error(err)
	}
}

// TestTooLarge: a few bytes of a model ask for gigabytes of the host, and are refused
// before it takes them.
func TestTooLarge(t *testing.T) {
	point := func(h, w int) graph.Op {
		c := plan.Conv2D{H: h, W: w, C: 1, OutC: 1, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}
		return &graph.Conv2D{Geometry: c, W: []float32{1}}
	}
	doubled := &graph.Graph{Input: graph.Vector(4)}
	add := func(op graph.Op, inputs ...graph.Value) {
		doubled.Nodes = append(doubled.Nodes, graph.Node{Op: op, Inputs: inputs})
		doubled.Output++
	}
	for range 25 {
		add(graph.Concat{}, doubled.Output, doubled.Output)
	}
	add(graph.Reshape{To: graph.Shape{H: 1 << 14, W: 1 << 13, C: 1}}, doubled.Output)
	add(graph.MaxPool{Pool: graph.Pool{KH: 1 << 14, KW: 1 << 13, SH: 1, SW: 1}}, doubled.Output)
	add(&graph.Dense{In: 1, Out: 1, W: []float32{1}}, doubled.Output)

	const side = 2000 // the keys of a layer take 64 MB
	deep := func(layers int) *graph.Graph {
		return chain(graph.Shape{H: side, W: side, C: 1}, slices.Repeat([]graph.Op{point(side, side)}, layers)...)
	}
	for _, test := range []struct {
		what   string
		g      *graph.Graph
		scheme transform.Scheme
		want   error
	}{
		{"a value that no cloud sees", doubled, permutePad, hostclient.ErrTooLarge},
		{"a map that the host unrolls", chain(graph.Shape{H: 1 << 14, W: 1 << 13, C: 1}, point(1<<14, 1<<13)), permute, hostclient.ErrTooLarge},
		{"the keys of all layers", deep(68), permutePad, hostclient.ErrTooLarge},
		{"one layer less", deep(67), permutePad, nil},
		{"more layers than a plan has", chain(graph.Shape{H: 1, W: 1, C: 1}, slices.Repeat([]graph.Op{point(1, 1)}, plan.MaxLayers+1)...), permutePad, plan.ErrInvalid},
	} {
		if _, err := hostclient.Preview(model(test.g), test.scheme, ""); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", test.what, err)
		}
	}
}
