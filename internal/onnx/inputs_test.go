package onnx

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/graph"
)

// What is read of a file depends on the type of an input, so that a graph has it, of one input too.
func TestInputTypes(t *testing.T) {
	for kind, want := range map[int64][]graph.Part{
		typeFloat: nil,
		typeUint8: {{Name: "x", Shape: graph.Shape{H: 2, W: 2, C: 3}, Below: 256, Type: "uint8"}},
		typeBool:  {{Name: "x", Shape: graph.Shape{H: 2, W: 2, C: 3}, Below: 2, Type: "bool"}},
		typeInt32: {{Name: "x", Shape: graph.Shape{H: 2, W: 2, C: 3}, From: -graph.MaxInteger, Below: graph.MaxInteger + 1, Type: "int32"}},
	} {
		f := file{nodes: []message{op("Cast", "x", "a", intAttribute("to", typeFloat)), op("Relu", "a", "y")}, inputs: []message{declare("x", kind, "N", 3, 2, 2)}}
		if g, err := Parse(f.bytes()); err != nil || !slices.Equal(g.Parts, want) {
			t.Errorf("type %d: %+v, %v", kind, g, err)
		}
	}
}

func TestSizes(t *testing.T) {
	two := file{nodes: []message{op("Cast", "n", "m", intAttribute("to", typeFloat)), op("Mul", "x m", "y")}, inputs: []message{
		declare("x", typeFloat, "batch", 3, "height", "width of it"), declare("n", typeInt64, "batch", 3, 1, "width of it"),
	}}.bytes()
	for _, c := range []struct {
		sizes Sizes
		want  string // of the error
	}{
		{Sizes{"height": 2, "width of it": 5}, ""},
		{Sizes{"height": 2}, `input of symbolic size "width of it" (--size "width of it"=N fixes it)`},
		{nil, "input of symbolic size height (--size height=N fixes it)"},
		{Sizes{"height": 0, "width of it": 5}, "0 of dimension height: want 1 to"},
		{Sizes{"height": -3, "width of it": 5}, "-3 of dimension height: want 1 to"},
		{Sizes{"height": 1<<31 + 1, "width of it": 5}, "2147483649 of dimension height: want 1 to"},
		{Sizes{"batch": 1, "height": 2, "width of it": 5}, `batch is the batch, which may have any size: there are height, "width of it"`},
		{Sizes{"Height": 2, "width of it": 5}, `no dimension of an input is named Height: there are height, "width of it"`},
		{Sizes{"": 2}, `no dimension of an input is named "": there are`},
	} {
		g, err := ParseWith(two, Options{Sizes: c.sizes})
		if c.want == "" {
			if err != nil || g.Parts[0].Shape != (graph.Shape{H: 2, W: 5, C: 3}) || g.Parts[1].Shape != (graph.Shape{H: 1, W: 5, C: 3}) {
				t.Errorf("%v: %v, %v", c.sizes, g, err)
			}
			continue
		}
		unsupported := new(UnsupportedError)
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.As(err, &unsupported) == errors.Is(err, ErrSize) {
			t.Errorf("%v: %v, want %s", c.sizes, err, c.want)
		}
	}
	fixed := nodes(op("Relu", "x", "y")).bytes()
	if _, err := ParseWith(fixed, Options{Sizes: Sizes{"sequence": 4}}); !errors.Is(err, ErrSize) || !strings.Contains(err.Error(), "there is none to fix") {
		t.Errorf("a model of fixed sizes: %v", err)
	}
	// One name for the batch and another dimension is the batch's.
	twice := nodes(op("Relu", "x", "y")).on("N", "N", 2).bytes()
	if _, err := ParseWith(twice, Options{Sizes: Sizes{"N": 4}}); !errors.Is(err, ErrSize) {
		t.Errorf("the batch's name: %v", err)
	}
	if _, err := Parse(twice); err == nil || !strings.Contains(err.Error(), "input of symbolic size N, which is the batch's") {
		t.Errorf("the batch's name, without sizes: %v", err)
	}
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, two, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenWith(path, Options{Sizes: Sizes{"height": 2, "width of it": 5}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Graph.Input != graph.Vector(30+15) {
		t.Errorf("from a file: input of %v", f.Graph.Input)
	}
	if _, err := Open(path); !errors.As(err, new(*UnsupportedError)) {
		t.Errorf("from a file, without sizes: %v", err)
	}
}
