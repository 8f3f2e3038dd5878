package hostclient_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
	"github.com/securenets/securenets/internal/safetensors"
	"github.com/securenets/securenets/plan"
)

// textNet is a network of four ids and a mask of them: attention of one head.
func textNet(rnd *rand.Rand) *graph.Graph {
	const width = 3
	rows := func(from int) graph.Slice {
		return graph.Slice{H: graph.Range{To: 1}, W: graph.Range{To: 1}, C: graph.Range{From: from, To: from + 4}}
	}
	return &graph.Graph{
		Input: graph.Vector(8),
		Parts: []graph.Part{
			{Name: "input_ids", Shape: graph.Vector(4), Below: 5},
			{Name: "attention_mask", Shape: graph.Vector(4), From: -graph.MaxInteger, Below: graph.MaxInteger + 1, Type: "int32"},
		},
		Nodes: []graph.Node{
			{Op: rows(0), Inputs: []graph.Value{0}},
			{Op: rows(4), Inputs: []graph.Value{0}},
			{Op: &graph.Embedding{Rows: 5, Width: width, Table: gaussian(rnd, 5*width)}, Inputs: []graph.Value{1}},
			{Op: conv(rnd, plan.Conv2D{H: 1, W: 4, C: width, OutC: width, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}), Inputs: []graph.Value{3}},
			{Op: &graph.Affine{Scale: slices.Repeat([]float32{3e38}, 4), Shift: slices.Repeat([]float32{-3e38}, 4)}, Inputs: []graph.Value{2}},
			{Op: graph.Product{Transposed: true}, Inputs: []graph.Value{4, 4}},
			{Op: graph.Add{}, Inputs: []graph.Value{6, 5}},
			{Op: graph.Softmax{}, Inputs: []graph.Value{7}},
			{Op: graph.Product{}, Inputs: []graph.Value{8, 4}},
		},
		Output: 9,
	}
}

func TestText(t *testing.T) {
	g := textNet(rand.New(rand.NewPCG(41, 1)))
	x := []float32{0, 4, 2, 1, 1, 1, 1, 1, 3, 3, 0, 4, 1, 1, 1, 0}
	const n = 2
	for _, scheme := range schemes {
		r := newRig(t, g, scheme)
		r.throughFile(t) // the table is in it
		s := r.open(t, hostclient.Options{Multiplier: kernel})
		y := infer(t, s, x, n)
		for i, want := range graphtest.Evaluate(g, x, n) {
			// Outputs are in C, H, W order: 3 x 1 x 4 of 1 x 4 x 3.
			got := y[i/12*12+i%3*4+i%12/3]
			if math.Abs(float64(got)-want) > 1e-3 {
				t.Errorf("%v: output %d is %v, want %v", scheme, i, got, want)
			}
		}
		// What is masked makes no difference to others.
		other := slices.Clone(x)
		other[11] = 0
		for i, v := range infer(t, s, other, n)[12:] {
			if d := v - y[12+i]; i%4 != 3 && (d > 1e-3 || d < -1e-3) { // but for the scale that a sample has
				t.Errorf("%v: a masked id changes output %d", scheme, i)
			}
		}
		for at, v := range map[int]float32{1: 5, 8: -1, 10: 0.5, 12: 0.25, 13: 1 << 25} {
			bad := slices.Clone(x)
			bad[at] = v
			var which *graph.IntegerError
			if _, err := s.Infer(t.Context(), bad, n); !errors.Is(err, hostclient.ErrInput) || !errors.As(err, &which) || which.Sample != at/8 || which.Element != at%4 {
				t.Errorf("%v: %v at %d: %v", scheme, v, at, err)
			}
		}
		d := r.secret.Describe()
		want := []hostclient.InputDescription{
			{Name: "input_ids", Shape: [3]int{4, 1, 1}, Type: "int64", Integers: &[2]int{0, 4}},
			{Name: "attention_mask", Shape: [3]int{4, 1, 1}, Type: "int32", Integers: &[2]int{-1 << 24, 1 << 24}},
		}
		if !reflect.DeepEqual(d.Inputs, want) {
			t.Errorf("%v: inputs %+v", scheme, d.Inputs)
		}
	}
}

// What a cloud gets does not depend on the tables of embeddings.
func TestTableStays(t *testing.T) {
	g, h := textNet(rand.New(rand.NewPCG(43, 1))), textNet(rand.New(rand.NewPCG(43, 1)))
	for i := range h.Embeddings()[0].Table {
		h.Embeddings()[0].Table[i] *= 1.5
	}
	a, _ := seal(t, g, nonePad)
	b, _ := seal(t, h, nonePad)
	if !bytes.Equal(a[0].Bytes, b[0].Bytes) {
		t.Error("the sealed model depends on the table")
	}
	h.Nodes[3].Op.(*graph.Conv2D).W[0] *= 1.5
	if c, _ := seal(t, h, nonePad); bytes.Equal(a[0].Bytes, c[0].Bytes) {
		t.Error("the sealed model does not depend on the weights")
	}
}

func TestTextEmulator(t *testing.T) {
	g := textNet(rand.New(rand.NewPCG(45, 1)))
	x := []float32{0, 4, 2, 1, 1, 1, 0, 1}
	o := hostclient.SealOptions{Scheme: split, Multiplier: kernel, Calibration: x}
	r := &rig{}
	var err error
	if r.models, r.secret, err = hostclient.Seal(t.Context(), model(g), o); err != nil {
		t.Fatal(err)
	}
	r.push(t)
	want := infer(t, r.open(t, hostclient.Options{}), x, 1)
	e, err := hostclient.NewEmulator(t.Context(), model(g), o)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if y, err := e.Infer(t.Context(), x, 1); err != nil || !slices.Equal(bits(y), bits(want)) {
		t.Errorf("%v, want %v, %v", y, want, err)
	}
	o.Calibration = []float32{0, 5, 2, 1, 1, 1, 0, 1}
	if _, _, err := hostclient.Seal(t.Context(), model(g), o); !errors.Is(err, hostclient.ErrInput) {
		t.Errorf("calibrated with an id of no row: %v", err)
	}
}

// A long mask is in a secret once, whatever the number of layers that have it. Secrets that were
// written before have it in the structure.
func TestLongConstants(t *testing.T) {
	const n, layers = 1 << 12, 3
	mask := gaussian(rand.New(rand.NewPCG(47, 1)), n)
	mask[5] = float32(math.Inf(-1))
	var ops []graph.Op
	for range layers {
		ops = append(ops, &graph.ElementAffine{Extent: graph.Vector(n), Shift: slices.Clone(mask)}, graph.Softmax{})
	}
	ops = append(ops, &graph.Dense{In: n, Out: 1, W: gaussian(rand.New(rand.NewPCG(48, 1)), n)})
	g := chain(graph.Vector(n), ops...)
	r := newRig(t, g, nonePad)
	plain, err := r.secret.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Parse(plain)
	if err != nil {
		t.Fatal(err)
	}
	if f.Tensors[0].Name != "constant.0" || f.Tensors[1].Name != "structure" || len(f.Tensors[1].Data) > 1000 {
		t.Fatalf("the secret has %s, then %s of %d bytes", f.Tensors[0].Name, f.Tensors[1].Name, len(f.Tensors[1].Data))
	}
	structure, err := graph.EncodeStructure(g)
	if err != nil {
		t.Fatal(err)
	}
	f.Tensors = f.Tensors[1:]
	f.Tensors[0] = safetensors.New("structure", structure, len(structure))
	before, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	x := gaussian(rand.New(rand.NewPCG(49, 1)), n)
	want := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, 1)
	for name, b := range map[string][]byte{"as written": plain, "as written before": before} {
		if r.secret, err = hostclient.UnmarshalSecret(b); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if again, err := r.secret.Marshal(); err != nil || !bytes.Equal(again, plain) {
			t.Errorf("%s: written again it is another, %v", name, err)
		}
		if y := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, 1); !slices.Equal(bits(y), bits(want)) {
			t.Errorf("%s: %v, want %v", name, y, want)
		}
	}
}
