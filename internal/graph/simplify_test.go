package graph_test

import (
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
	"github.com/securenets/securenets/plan"
)

// A simplified graph is valid, computes the same, cannot be simplified further,
// and is made without a change to the first.
func TestSimplify(t *testing.T) {
	folded := 0
	for seed := range uint64(1000) {
		r := source(seed)
		g := graphtest.Random(r, 1+r.IntN(8))
		before, err := graph.EncodeStructure(g)
		if err != nil {
			t.Fatal(err)
		}
		n := 2
		x := graphtest.Normal(r, n*g.Input.Len(), 1)
		want := graphtest.Evaluate(g, x, n)
		s := graph.Simplify(g)
		if err := s.Validate(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		folded += len(g.Nodes) - len(s.Nodes)
		got := graphtest.Evaluate(s, x, n)
		top := 1.0
		for _, v := range want {
			top = max(top, math.Abs(v))
		}
		for i := range want {
			if math.Abs(got[i]-want[i]) > 1e-5*top {
				t.Fatalf("seed %d: output %d is %v, want %v", seed, i, got[i], want[i])
			}
		}
		if again := graph.Simplify(s); !reflect.DeepEqual(again, s) {
			t.Fatalf("seed %d: %+v, again %+v", seed, s, again)
		}
		if after, err := graph.EncodeStructure(g); err != nil || !slices.Equal(after, before) || !slices.Equal(graphtest.Evaluate(g, x, n), want) {
			t.Fatalf("seed %d: the graph has changed, %v", seed, err)
		}
	}
	if folded == 0 {
		t.Error("nothing was folded")
	}
}

func TestSimplifyByHand(t *testing.T) {
	scale := &graph.Affine{Scale: []float32{2, 3}}
	shift := &graph.Affine{Shift: []float32{1, -1}}
	both := &graph.Affine{Scale: []float32{2, 3}, Shift: []float32{1, -1}}
	dense := func(b []float32, w ...float32) *graph.Dense { return &graph.Dense{In: 2, Out: 2, W: w, B: b} }
	geometry := plan.Conv2D{H: 1, W: 1, C: 2, OutC: 2, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 2}
	four := &graph.Affine{Scale: []float32{4, 4}}
	mean := graph.AvgPool{Pool: pool(2, 2, 1, 1)}
	padded := graph.AvgPool{Pool: pool(2, 2, 1, 1, 1, 0, 0, 0)}
	largest := graph.MaxPool{Pool: pool(1, 2, 1, 1)}
	clip := graph.Clip{Min: -1, Max: 6}
	counted := graph.AvgPool{Pool: padded.Pool, CountPad: true}
	rows := func(scale, shift []float32) graph.Op {
		return &graph.ElementAffine{Extent: graph.Shape{H: 2, W: 1, C: 1}, Scale: scale, Shift: shift}
	}
	columns := &graph.ElementAffine{Extent: graph.Shape{H: 1, W: 2, C: 1}, Shift: []float32{1, 2}}
	for name, c := range map[string]struct{ ops, want []graph.Op }{
		"scale into weights":     {[]graph.Op{dense(nil, 1, 2, 3, 4), scale}, []graph.Op{dense(nil, 2, 4, 9, 12)}},
		"shift into no bias":     {[]graph.Op{dense(nil, 1, 2, 3, 4), shift}, []graph.Op{dense([]float32{1, -1}, 1, 2, 3, 4)}},
		"both into a bias":       {[]graph.Op{dense([]float32{5, 7}, 1, 2, 3, 4), both}, []graph.Op{dense([]float32{11, 20}, 2, 4, 9, 12)}},
		"one by one":             {[]graph.Op{dense([]float32{5, 7}, 1, 2, 3, 4), scale, shift}, []graph.Op{dense([]float32{11, 20}, 2, 4, 9, 12)}},
		"into a convolution":     {[]graph.Op{&graph.Conv2D{Geometry: geometry, W: []float32{5, 7}}, both}, []graph.Op{&graph.Conv2D{Geometry: geometry, W: []float32{10, 21}, B: []float32{1, -1}}}},
		"into an affine":         {[]graph.Op{graph.ReLU{}, both, both}, []graph.Op{graph.ReLU{}, &graph.Affine{Scale: []float32{4, 9}, Shift: []float32{3, -4}}}},
		"scale after shift":      {[]graph.Op{shift, scale}, []graph.Op{&graph.Affine{Scale: []float32{2, 3}, Shift: []float32{2, -3}}}},
		"shift after scale":      {[]graph.Op{scale, shift}, []graph.Op{both}},
		"shifts":                 {[]graph.Op{shift, shift}, []graph.Op{&graph.Affine{Shift: []float32{2, -2}}}},
		"not past an activation": {[]graph.Op{dense(nil, 1, 2, 3, 4), graph.ReLU{}, scale}, []graph.Op{dense(nil, 1, 2, 3, 4), graph.ReLU{}, scale}},
		"mean to sum":            {[]graph.Op{mean, four}, []graph.Op{graph.SumPool{Pool: mean.Pool}}},
		"mean to sum, counted":   {[]graph.Op{counted, four}, []graph.Op{graph.SumPool{Pool: counted.Pool}}},
		"mean to sum, by halves": {[]graph.Op{mean, &graph.Affine{Scale: []float32{2, 2}}, &graph.Affine{Scale: []float32{2, 2}}}, []graph.Op{graph.SumPool{Pool: mean.Pool}}},
		"mean not counted":       {[]graph.Op{padded, four}, []graph.Op{padded, four}},
		"mean by another scale":  {[]graph.Op{mean, &graph.Affine{Scale: []float32{4, 2}}}, []graph.Op{mean, &graph.Affine{Scale: []float32{4, 2}}}},
		"mean to sum, shifted":   {[]graph.Op{mean, &graph.Affine{Scale: four.Scale, Shift: shift.Shift}}, []graph.Op{graph.SumPool{Pool: mean.Pool}, shift}},
		"mean to sum, and on":    {[]graph.Op{mean, four, both}, []graph.Op{graph.SumPool{Pool: mean.Pool}, both}},
		"mean and a shift":       {[]graph.Op{mean, shift}, []graph.Op{mean, shift}},
		"elements alike":         {[]graph.Op{dense(nil, 1, 2, 3, 4), &graph.ElementAffine{Extent: graph.Vector(1), Scale: []float32{2}}}, []graph.Op{dense(nil, 2, 4, 6, 8)}},
		"elements of rows":       {[]graph.Op{mean, rows([]float32{2, 3}, nil), rows([]float32{4, 5}, []float32{6, 7})}, []graph.Op{mean, rows([]float32{8, 15}, []float32{6, 7})}},
		"elements of two kinds":  {[]graph.Op{mean, rows([]float32{2, 3}, nil), columns}, []graph.Op{mean, rows([]float32{2, 3}, nil), columns}},
		"largest before ReLU":    {[]graph.Op{largest, graph.ReLU{}, largest}, []graph.Op{largest, largest, graph.ReLU{}}},
		"largest before both":    {[]graph.Op{mean, clip, graph.ReLU{}, largest}, []graph.Op{mean, largest, clip, graph.ReLU{}}},
		"largest behind others":  {[]graph.Op{mean, graph.LeakyReLU{Alpha: -1}, largest}, []graph.Op{mean, graph.LeakyReLU{Alpha: -1}, largest}},
	} {
		in := graph.Vector(2)
		switch c.ops[0].(type) {
		case graph.AvgPool, graph.MaxPool:
			in = graph.Shape{H: 3, W: 3, C: 2}
		}
		if got, want := graph.Simplify(graphtest.Chain(in, c.ops...)), graphtest.Chain(in, c.want...); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// A convolution does the padding of a Pad with zeros before it, and of no other.
func TestSimplifyPads(t *testing.T) {
	in := graph.Shape{H: 3, W: 3, C: 2}
	conv := func(h, w int, pads ...int) *graph.Conv2D {
		return &graph.Conv2D{W: make([]float32, 18), Geometry: plan.Conv2D{
			H: h, W: w, C: 2, OutC: 1, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Top: pads[0], Left: pads[1], Bot: pads[2], Right: pads[3], Groups: 1}}
	}
	around := graph.Pad{Before: graph.Shape{H: 1}, After: graph.Shape{H: 2, W: 1}}
	ones, wide := around, graph.Pad{Before: graph.Shape{H: 3}}
	ones.Value = 1
	channel := graph.Pad{After: graph.Shape{C: 1}}
	thin := graph.Shape{H: 3, W: 3, C: 1}
	for name, c := range map[string]struct {
		in        graph.Shape
		ops, want []graph.Op
	}{
		"zeros":        {in, []graph.Op{around, conv(6, 4, 0, 0, 0, 0)}, []graph.Op{conv(3, 3, 1, 0, 2, 1)}},
		"beside its":   {in, []graph.Op{around, conv(6, 4, 1, 1, 0, 1)}, []graph.Op{conv(3, 3, 2, 1, 2, 2)}},
		"in two steps": {in, []graph.Op{graph.Pad{Before: graph.Shape{H: 1}}, graph.Pad{Before: graph.Shape{H: 1}}, conv(5, 3, 0, 0, 0, 0)}, []graph.Op{conv(3, 3, 2, 0, 0, 0)}},
		"ones":         {in, []graph.Op{ones, conv(6, 4, 0, 0, 0, 0)}, []graph.Op{ones, conv(6, 4, 0, 0, 0, 0)}},
		"too many":     {in, []graph.Op{wide, conv(6, 3, 0, 0, 0, 0)}, []graph.Op{wide, conv(6, 3, 0, 0, 0, 0)}},
		"channels":     {thin, []graph.Op{channel, conv(3, 3, 0, 0, 0, 0)}, []graph.Op{channel, conv(3, 3, 0, 0, 0, 0)}},
	} {
		if got, want := graph.Simplify(graphtest.Chain(c.in, c.ops...)), graphtest.Chain(c.in, c.want...); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// A scale a channel goes into a convolution through moves that keep channels together, and through few.
func TestSimplifyThroughMoves(t *testing.T) {
	conv := func(w, b []float32) *graph.Conv2D {
		return &graph.Conv2D{W: w, B: b, Geometry: plan.Conv2D{H: 1, W: 2, C: 1, OutC: 8, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}}
	}
	ones, in := []float32{1, 1, 1, 1, 1, 1, 1, 1}, graph.Shape{H: 1, W: 2, C: 1}
	// Channels are the four elements of a block, two each; or two blocks' four.
	shuffle := graph.NewTranspose([]int{2, 2, 2, 1, 2}, []int{2, 3, 0, 4, 1}, graph.Shape{H: 2, W: 4, C: 2})
	blocks := graph.NewTranspose([]int{2, 2, 2, 1, 2}, []int{0, 3, 1, 4, 2}, graph.Shape{H: 2, W: 4, C: 2})
	part := graph.Slice{H: graph.Range{From: 1, To: 2}, W: graph.Range{From: 1, To: 4}, C: graph.Range{To: 2}}
	first := graph.Slice{H: graph.Range{To: 2}, W: graph.Range{To: 4}, C: graph.Range{To: 1}}
	less := func(w int) graph.Op {
		return graph.Slice{H: graph.Range{To: 2}, W: graph.Range{To: w}, C: graph.Range{To: 2}}
	}
	mixed := graph.NewTranspose([]int{8, 2}, []int{1, 0}, graph.Shape{H: 2, W: 4, C: 2})
	both := &graph.Affine{Scale: []float32{2, 3}, Shift: []float32{1, -1}}
	one := &graph.Affine{Scale: []float32{2}}
	by2 := []float32{2, 3, 2, 3, 2, 3, 2, 3}
	for name, c := range map[string]struct{ ops, want []graph.Op }{
		"shuffle":          {[]graph.Op{conv(ones, nil), shuffle, both}, []graph.Op{conv(by2, []float32{1, -1, 1, -1, 1, -1, 1, -1}), shuffle}},
		"blocks and part":  {[]graph.Op{conv(ones, ones), blocks, part, both}, []graph.Op{conv([]float32{2, 2, 2, 2, 3, 3, 3, 3}, []float32{3, 3, 3, 3, 2, 2, 2, 2}), blocks, part}},
		"between":          {[]graph.Op{conv(ones, nil), shuffle, both, part, both, graph.ReLU{}}, []graph.Op{conv([]float32{4, 9, 4, 9, 4, 9, 4, 9}, []float32{3, -4, 3, -4, 3, -4, 3, -4}), shuffle, part, graph.ReLU{}}},
		"of some channels": {[]graph.Op{conv(ones, nil), shuffle, first, one}, []graph.Op{conv(ones, nil), shuffle, first, one}},
		"of positions":     {[]graph.Op{conv(ones, nil), mixed, both}, []graph.Op{conv(ones, nil), mixed, both}},
		"too many":         {[]graph.Op{conv(ones, nil), shuffle, less(3), less(2), less(1), both}, []graph.Op{conv(ones, nil), shuffle, less(3), less(2), less(1), both}},
		"no convolution":   {[]graph.Op{graph.Concat{}, graph.ReLU{}, part, both}, []graph.Op{graph.Concat{}, graph.ReLU{}, part, both}},
	} {
		in := in
		if name == "no convolution" {
			in = graph.Shape{H: 2, W: 4, C: 2}
		}
		if got, want := graph.Simplify(graphtest.Chain(in, c.ops...)), graphtest.Chain(in, c.want...); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got.Nodes[0].Op, want.Nodes[0].Op)
		}
	}
	// What another node reads stays.
	g := graphtest.Chain(in, conv(ones, nil), shuffle, both, graph.Add{})
	g.Nodes[3].Inputs = []graph.Value{3, 2}
	if got := graph.Simplify(g); !reflect.DeepEqual(got, g) {
		t.Errorf("%+v", got)
	}
}

// TestSlicesFirst: a Slice of rows and columns goes before all the convolutions of 1 x 1 that stand in a row.
func TestSlicesFirst(t *testing.T) {
	in, r := graph.Shape{H: 3, W: 4, C: 2}, source(8)
	conv := func(from, to int) *graph.Conv2D {
		return &graph.Conv2D{W: graphtest.Normal(r, from*to, 1), Geometry: plan.Conv2D{H: 3, W: 4, C: from, OutC: to, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}}
	}
	part := graph.Slice{H: graph.Range{From: 1, To: 3}, W: graph.Range{From: 3, To: 4}, C: graph.Range{To: 3}}
	x := graphtest.Normal(r, 2*in.Len(), 1)
	for _, ops := range [][]graph.Op{{conv(2, 3)}, {conv(2, 5), conv(5, 3)}, {conv(2, 1), conv(1, 4), conv(4, 3)}} {
		g := graphtest.Chain(in, append(slices.Clone(ops), part)...)
		s := graph.Simplify(g)
		if got, want := s.Nodes[0].Op, (graph.Slice{H: part.H, W: part.W, C: graph.Range{To: in.C}}); got != want {
			t.Errorf("behind %d convolutions: %+v is first, want %+v", len(ops), got, want)
		}
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		if got, want := graphtest.Run(s, x, 2), graphtest.Run(g, x, 2); !slices.Equal(got, want) {
			t.Errorf("behind %d convolutions: %v, want %v", len(ops), got, want)
		}
	}
}

// TestPoolFirst: what a MaxPool is moved before gives the same bits, whatever it is given.
func TestPoolFirst(t *testing.T) {
	in := graph.Shape{H: 9, W: 7, C: 3}
	r := source(7)
	x := graphtest.Normal(r, 20*in.Len(), 1)
	for i := range x { // every window has some of each
		switch r.IntN(12) {
		case 0:
			x[i] = 0
		case 1:
			x[i] = float32(math.Copysign(0, -1))
		case 2:
			x[i] = float32(math.Inf(1 - 2*r.IntN(2)))
		case 3:
			if i < 10*in.Len() {
				x[i] = float32(math.NaN())
			}
		}
	}
	for _, window := range []graph.Pool{pool(2, 2, 2, 2), pool(3, 3, 2, 1, 1, 1, 0, 2), pool(1, 1, 1, 1), pool(1, 5, 2, 2), pool(9, 7, 1, 1)} {
		for _, ops := range [][]graph.Op{{graph.ReLU{}}, {graph.Clip{Min: -0.5, Max: 0.5}}, {graph.Clip{Min: 0, Max: 6}, graph.ReLU{}}} {
			g := graphtest.Chain(in, append(slices.Clone(ops), graph.MaxPool{Pool: window})...)
			s := graph.Simplify(g)
			if _, ok := s.Nodes[0].Op.(graph.MaxPool); !ok {
				t.Fatalf("%v: %+v", ops, s.Nodes)
			}
			want, got := graphtest.Run(g, x, 20), graphtest.Run(s, x, 20)
			for i, v := range want {
				if math.Float32bits(got[i]) != math.Float32bits(v) && (v == v || got[i] == got[i]) {
					t.Errorf("%v, %+v: element %d is %v, want %v", ops, window, i, got[i], v)
				}
			}
		}
	}
}

// Nothing is folded into what another node reads, and what nothing reads goes.
func TestSimplifyReaders(t *testing.T) {
	d := graphtest.Dense(source(1), 2, 2)
	a := &graph.Affine{Scale: []float32{2, 2}}
	node := func(op graph.Op, in ...graph.Value) graph.Node { return graph.Node{Op: op, Inputs: in} }
	shared := &graph.Graph{Input: graph.Vector(2), Output: 3, Nodes: []graph.Node{node(d, 0), node(a, 1), node(graph.Add{}, 2, 1)}}
	if got := graph.Simplify(shared); !reflect.DeepEqual(got, shared) {
		t.Errorf("%+v", got)
	}
	twice := &graph.Graph{Input: graph.Vector(2), Output: 4, Nodes: []graph.Node{node(d, 0), node(a, 1), node(a, 1), node(graph.Add{}, 2, 3)}}
	if got := graph.Simplify(twice); !reflect.DeepEqual(got, twice) {
		t.Errorf("%+v", got)
	}
	// The other reader is itself unread.
	dead := &graph.Graph{Input: graph.Vector(2), Output: 4, Nodes: []graph.Node{
		node(d, 0), node(graph.ReLU{}, 1), node(graph.Tanh{}, 2), node(a, 1)}}
	got := graph.Simplify(dead)
	if len(got.Nodes) != 1 || got.Output != 1 || got.Nodes[0].Op.(*graph.Dense).W[0] != 2*d.W[0] {
		t.Errorf("%+v", got)
	}
}
