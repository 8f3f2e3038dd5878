package graph_test

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
)

// Long constants are beside the structure, equal ones once, and come back as they were.
func TestEncodeShared(t *testing.T) {
	const n = 1025
	ramp := func(last float32) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(i)
		}
		v[n-1] = last
		return v
	}
	infinite := float32(math.Inf(-1))
	extent := graph.Vector(n)
	g := graphtest.Chain(extent,
		&graph.ElementAffine{Extent: extent, Shift: ramp(infinite)},
		&graph.ElementAffine{Extent: extent, Scale: ramp(0)},
		&graph.ElementAffine{Extent: extent, Scale: ramp(float32(math.Copysign(0, -1))), Shift: ramp(0)},
		&graph.ElementAffine{Extent: extent, Shift: ramp(infinite)},
		&graph.ElementAffine{Extent: graph.Vector(1), Scale: []float32{2}},
	)
	b, shared, err := graph.EncodeShared(g)
	if err != nil || len(shared) != 3 || len(b) > 1000 {
		t.Fatalf("%d bytes, %d constants, %v", len(b), len(shared), err)
	}
	if again, all, err := graph.EncodeShared(g); err != nil || !bytes.Equal(again, b) || len(all) != 3 {
		t.Errorf("encoded again: %s, %d constants, %v", again, len(all), err)
	}
	inline, err := graph.EncodeStructure(g)
	if err != nil {
		t.Fatal(err)
	}
	for name, decode := range map[string]func() (*graph.Graph, error){
		"shared": func() (*graph.Graph, error) { return graph.DecodeShared(b, shared) },
		"inline": func() (*graph.Graph, error) { return graph.DecodeStructure(inline) },
	} {
		back, err := decode()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(back, g) {
			t.Errorf("%s: another graph", name)
		}
		// 0 and -0 are equal, but not the same.
		if again, err := graph.EncodeStructure(back); err != nil || !bytes.Equal(again, inline) {
			t.Errorf("%s: another structure, %v", name, err)
		}
	}
	back, err := graph.DecodeShared(b, shared)
	if err != nil {
		t.Fatal(err)
	}
	if of := func(i int) *float32 { return &back.Nodes[i].Op.(*graph.ElementAffine).Shift[0] }; of(0) != of(3) {
		t.Error("one constant is held twice")
	}
	swapped := slices.Clone(shared)
	swapped[0], swapped[2] = swapped[2], swapped[0]
	with := func(v []float32) [][]float32 { return append(slices.Clone(shared[:2]), v) }
	nan := ramp(float32(math.NaN()))
	for name, c := range map[string]struct {
		structure []byte
		shared    [][]float32
	}{
		"none":        {b, nil},
		"too few":     {b, shared[:2]},
		"too many":    {b, append(slices.Clone(shared), ramp(5))},
		"equal ones":  {b, with(slices.Clone(shared[1]))},
		"another one": {b, with(ramp(5)[:n-1])},
		"infinite":    {b, swapped},
		"not finite":  {b, with(nan)},
		"nothing":     {b, with(nil)},
		"inline":      {inline, shared},
		"no number":   {bytes.Replace(b, []byte(`"Shift":0`), []byte(`"Shift":-1`), 1), shared},
		"another":     {bytes.Replace(b, []byte(`"Shift":0`), []byte(`"Shift":9`), 1), shared},
		"text":        {bytes.Replace(b, []byte(`"Shift":0`), []byte(`"Shift":"0"`), 1), shared},
		"missing":     {bytes.Replace(b, []byte(`,"Shift":0`), nil, 1), shared},
	} {
		if _, err := graph.DecodeShared(c.structure, c.shared); !errors.Is(err, graph.ErrInvalid) && !errors.Is(err, graph.ErrNotFinite) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !strings.Contains(string(b), `"Shift":0`) {
		t.Errorf("no constant 0 in %s", b)
	}
}

// TestSharedChecked: a constant that many operators share is looked at once. Each of so many would
// take minutes, in all.
func TestSharedChecked(t *testing.T) {
	const n, many = 1 << 22, 20000
	v := make([]float32, n)
	g := &graph.Graph{Input: graph.Vector(n), Output: many}
	for i := range many {
		op := &graph.ElementAffine{Extent: graph.Vector(n), Scale: v}
		if i%2 > 0 {
			op.Shift = v
		}
		g.Nodes = append(g.Nodes, graph.Node{Op: op, Inputs: []graph.Value{graph.Value(i)}})
	}
	b, shared, err := graph.EncodeShared(g)
	if err != nil || len(shared) != 1 {
		t.Fatalf("%d constants, %v", len(shared), err)
	}
	if _, err := graph.DecodeShared(b, shared); err != nil {
		t.Error(err)
	}
	v[0] = float32(math.Inf(-1)) // which a shift may have
	if _, err := graph.DecodeShared(b, shared); !errors.Is(err, graph.ErrNotFinite) {
		t.Error(err)
	}
	g.Nodes[0].Op = &graph.ElementAffine{Extent: graph.Vector(n), Shift: v}
	if _, err := g.Shapes(); !errors.Is(err, graph.ErrNotFinite) {
		t.Errorf("a scale that is a shift before: %v", err)
	}
}
