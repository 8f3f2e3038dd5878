package graph_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
	"github.com/securenets/securenets/plan"
)

func source(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func pool(kh, kw, sh, sw int, pads ...int) graph.Pool {
	p := graph.Pool{KH: kh, KW: kw, SH: sh, SW: sw}
	if pads != nil {
		p.Top, p.Left, p.Bot, p.Right = pads[0], pads[1], pads[2], pads[3]
	}
	return p
}

// near fails the test unless got is want but for float32's rounding: relative to
// the largest value, as sums of unlike signs have it.
func near(t *testing.T, what any, got []float32, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%v: %d outputs, want %d", what, len(got), len(want))
	}
	top := 1.0
	for _, v := range want {
		top = max(top, math.Abs(v))
	}
	for i := range want {
		if d := math.Abs(float64(got[i]) - want[i]); !(d <= 1e-5*top) {
			t.Fatalf("%v: output %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

// Every operator agrees with its definition in float64, on its own and in graphs
// that reuse buffers; a batch gives exactly what its samples give.
func TestApplyAgainstDefinition(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(1000) {
		r := source(seed)
		g := graphtest.Random(r, 1+r.IntN(3))
		for _, node := range g.Nodes {
			seen[node.Op.Name()]++
		}
		n := 1 + r.IntN(3)
		l := g.Input.Len()
		x := graphtest.Normal(r, n*l, 1)
		got := graphtest.Run(g, x, n)
		near(t, seed, got, graphtest.Evaluate(g, x, n))
		var single []float32
		for i := range n {
			single = append(single, graphtest.Run(g, x[i*l:(i+1)*l], 1)...)
		}
		if !slices.Equal(got, single) {
			t.Fatalf("seed %d: a batch differs from its samples", seed)
		}
	}
	if len(seen) != 42 {
		t.Fatalf("operators tried: %v", seen)
	}
}

// The same results by hand, so that the definitions themselves are tested.
func TestApplyByHand(t *testing.T) {
	ramp := []float32{1, 2, 3, 4, 5, 6, 7, 8, 9}
	inf := float32(math.Inf(1))
	square := graph.Shape{H: 3, W: 3, C: 1}
	for _, c := range []struct {
		name string
		op   graph.Elementary
		in   graph.Shape
		x    []float32
		want []float32
	}{
		{"relu", graph.ReLU{}, graph.Vector(4), []float32{-1, 0, 2, -3}, []float32{0, 0, 2, 0}},
		{"square", graph.Square{}, graph.Vector(3), []float32{-2, 0, 3}, []float32{4, 0, 9}},
		{"max pool", graph.MaxPool{Pool: pool(2, 2, 1, 1)}, square, ramp, []float32{5, 6, 8, 9}},
		{"max pool, two channels", graph.MaxPool{Pool: pool(1, 2, 1, 2)}, graph.Shape{H: 1, W: 4, C: 2},
			[]float32{1, 8, 2, 7, 3, 6, 4, 5}, []float32{2, 8, 4, 6}},
		{"max pool never takes padding", graph.MaxPool{Pool: pool(2, 2, 2, 2, 1, 1, 0, 0)}, square,
			[]float32{-1, -2, -3, -4, -5, -6, -7, -8, -9}, []float32{-1, -2, -4, -5}},
		{"max pool wider than its map", graph.MaxPool{Pool: pool(1, 3, 1, 2, 0, 0, 0, 1)}, graph.Shape{H: 2, W: 2, C: 1}, []float32{1, 2, 4, 3}, []float32{2, 4}},
		{"average of the map alone", graph.AvgPool{Pool: pool(2, 2, 2, 2, 1, 1, 0, 0)}, square, ramp, []float32{1, 2.5, 5.5, 7}},
		{"average counting padding", graph.AvgPool{Pool: pool(2, 2, 2, 2, 1, 1, 0, 0), CountPad: true}, square, ramp, []float32{.25, 1.25, 2.75, 7}},
		{"sum pool", graph.SumPool{Pool: pool(2, 2, 2, 2, 1, 1, 0, 0)}, square, ramp, []float32{1, 5, 11, 28}},
		{"elu", graph.ELU{Alpha: 2}, graph.Vector(3), []float32{float32(-math.Ln2), 0, 3}, []float32{-1, 0, 3}},
		{"softplus", graph.Softplus{}, graph.Vector(4), []float32{0, 100, -200, -inf}, []float32{float32(math.Ln2), 100, 0, 0}},
		{"erf", graph.Erf{}, graph.Vector(3), []float32{0, inf, -1}, []float32{0, 1, -0.8427008}},
		{"exponential", graph.Exp{}, graph.Vector(3), []float32{0, -inf, 1}, []float32{1, 0, math.E}},
		{"logarithm", graph.Log{}, graph.Vector(2), []float32{1, math.E}, []float32{0, 0.99999994}},
		{"magnitude", graph.Abs{}, graph.Vector(3), []float32{-2, 0, 3}, []float32{2, 0, 3}},
		{"reciprocal", graph.Reciprocal{}, graph.Vector(2), []float32{-2, 4}, []float32{-.5, .25}},
		{"square root", graph.Sqrt{}, graph.Vector(2), []float32{0, 9}, []float32{0, 3}},
		{"log softmax of large values", graph.LogSoftmax{}, graph.Vector(2), []float32{1000, 1000}, []float32{float32(-math.Ln2), float32(-math.Ln2)}},
		{"mean of channels", graph.ChannelMean{}, graph.Shape{H: 1, W: 2, C: 2}, []float32{1, 2, 3, 5}, []float32{1.5, 4}},
		{"slopes", &graph.PReLU{Slope: []float32{2, 3}}, graph.Shape{H: 1, W: 2, C: 2}, []float32{-1, -1, 5, -2}, []float32{-2, -3, 5, -6}},
		{"slice", graph.Slice{H: graph.Range{From: 1, To: 2}, W: graph.Range{To: 2}, C: graph.Range{To: 1}}, square, ramp, []float32{4, 5}},
		{"slice of channels", graph.Slice{H: graph.Range{To: 1}, W: graph.Range{To: 2}, C: graph.Range{From: 1, To: 2}},
			graph.Shape{H: 1, W: 2, C: 2}, []float32{1, 2, 3, 4}, []float32{2, 4}},
		{"pad", graph.Pad{Before: graph.Shape{H: 1}, After: graph.Shape{W: 1, C: 1}, Value: 7}, graph.Shape{H: 1, W: 1, C: 1},
			[]float32{5}, []float32{7, 7, 7, 7, 5, 7, 7, 7}},
		{"step", graph.Step{}, graph.Vector(4), []float32{-1, 0, 1e-45, inf}, []float32{0, 0, 1, 1}},
		{"gather of rows", &graph.Gather{Along: "H", From: []int{2, 0}}, square, ramp, []float32{7, 8, 9, 1, 2, 3}},
		{"gather of columns", &graph.Gather{Along: "W", From: []int{1, 1, 0, 2}}, graph.Shape{H: 1, W: 3, C: 2}, []float32{1, 2, 3, 4, 5, 6}, []float32{3, 4, 3, 4, 1, 2, 5, 6}},
		{"gather of channels", &graph.Gather{Along: "C", From: []int{2, 2, 0}}, graph.Shape{H: 1, W: 2, C: 3}, []float32{1, 2, 3, 4, 5, 6}, []float32{3, 3, 1, 6, 6, 4}},
		{"twice as wide", resize(2, 6, "nearest", "asymmetric", "floor"), graph.Shape{H: 2, W: 3, C: 1}, []float32{1, 2, 3, 4, 5, 6}, []float32{1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6}},
		{"between the corners", resize(3, 5, "linear", "align_corners", ""), graph.Shape{H: 2, W: 3, C: 1}, []float32{0, 2, 4, 8, 6, 12},
			[]float32{0, 1, 2, 3, 4, 4, 4, 4, 6, 8, 8, 7, 6, 9, 12}},
		{"halves of pixels", resize(1, 4, "linear", "half_pixel", ""), graph.Shape{H: 1, W: 2, C: 2}, []float32{0, 8, 4, 16}, []float32{0, 8, 1, 10, 3, 14, 4, 16}},
		{"in the middle, down", resize(1, 2, "nearest", "half_pixel", "round_prefer_floor"), graph.Shape{H: 1, W: 4, C: 1}, []float32{0, 1, 2, 3}, []float32{0, 2}},
		{"in the middle, up", resize(1, 2, "nearest", "half_pixel", "round_prefer_ceil"), graph.Shape{H: 1, W: 4, C: 1}, []float32{0, 1, 2, 3}, []float32{1, 3}},
		{"to one", resize(1, 1, "linear", "pytorch_half_pixel", ""), square, ramp, []float32{1}},
		{"to one, centred", resize(1, 1, "linear", "half_pixel", ""), square, ramp, []float32{5}},
		{"cubic", resize(1, 4, "cubic", "half_pixel", ""), graph.Shape{H: 1, W: 2, C: 1}, []float32{0, 128}, []float32{-13.5, 29, 99, 141.5}},
		// Channels 0 to 5 of two groups, at two positions each.
		{"shuffle", &graph.Transpose{Dims: []int{2, 3, 2}, Perm: []int{1, 0, 2}, To: graph.Shape{H: 1, W: 2, C: 6}}, graph.Shape{H: 1, W: 2, C: 6},
			[]float32{0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15}, []float32{0, 3, 1, 4, 2, 5, 10, 13, 11, 14, 12, 15}},
		{"channels last to first", &graph.Transpose{Dims: []int{4, 3}, Perm: []int{1, 0}, To: graph.Shape{H: 2, W: 2, C: 3}}, graph.Shape{H: 2, W: 3, C: 2},
			[]float32{0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11}, []float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
		{"leaky relu", graph.LeakyReLU{Alpha: .25}, graph.Vector(3), []float32{-4, 0, 4}, []float32{-1, 0, 4}},
		{"leaky relu of infinities", graph.LeakyReLU{Alpha: .25}, graph.Vector(2), []float32{-inf, inf}, []float32{-inf, inf}},
		{"clip", graph.Clip{Min: -1, Max: 2}, graph.Vector(4), []float32{-9, -.5, 1.5, 9}, []float32{-1, -.5, 1.5, 2}},
		{"clip to the lower maximum", graph.Clip{Min: 3, Max: 2}, graph.Vector(3), []float32{-9, 2.5, 9}, []float32{2, 2, 2}},
		{"sigmoid", graph.Sigmoid{}, graph.Vector(3), []float32{0, 1e30, -1e30}, []float32{.5, 1, 0}},
		{"tanh", graph.Tanh{}, graph.Vector(3), []float32{0, 1e30, -1e30}, []float32{0, 1, -1}},
		{"affine", &graph.Affine{Scale: []float32{2, 3}, Shift: []float32{1, -1}}, graph.Shape{H: 1, W: 2, C: 2},
			[]float32{1, 2, 3, 4}, []float32{3, 5, 7, 11}},
		{"affine of each element", &graph.ElementAffine{Extent: graph.Shape{H: 2, W: 1, C: 1}, Scale: []float32{2, 3}, Shift: []float32{1, -1}}, graph.Shape{H: 2, W: 1, C: 2},
			[]float32{1, 2, 3, 4}, []float32{3, 5, 8, 11}},
		{"affine repeated", &graph.ElementAffine{Extent: graph.Shape{H: 2, W: 1, C: 1}, Shift: []float32{10, 20}}, graph.Shape{H: 4, W: 1, C: 1},
			[]float32{1, 2, 3, 4}, []float32{11, 22, 13, 24}},
		{"flatten", graph.Reshape{To: graph.Vector(8)}, graph.Shape{H: 2, W: 2, C: 2},
			[]float32{1, 5, 2, 6, 3, 7, 4, 8}, []float32{1, 2, 3, 4, 5, 6, 7, 8}},
		{"unflatten", graph.Reshape{To: graph.Shape{H: 2, W: 2, C: 2}}, graph.Vector(8),
			[]float32{1, 2, 3, 4, 5, 6, 7, 8}, []float32{1, 5, 2, 6, 3, 7, 4, 8}},
		{"softmax", graph.Softmax{}, graph.Shape{H: 1, W: 2, C: 2}, []float32{0, 0, 1e30, -1e30}, []float32{.5, .5, 1, 0}},
		{"softmax of large values", graph.Softmax{}, graph.Vector(2), []float32{-3e38, -3e38}, []float32{.5, .5}},
	} {
		if r, ok := c.op.(graph.Resize); ok {
			r.ScaleH, r.ScaleW = float32(r.H)/float32(c.in.H), float32(r.W)/float32(c.in.W)
			c.op = r
		}
		out, err := c.op.OutShape(c.in)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got := make([]float32, out.Len())
		c.op.Apply(got, 1, []graph.Shape{c.in}, c.x)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// resize returns a Resize to h x w by the extents of any map whose quotients are exact.
func resize(h, w int, mode, places, rounding string) graph.Elementary {
	return graph.Resize{H: h, W: w, Mode: mode, Places: places, Rounding: rounding}
}

// A product of two values, for each of two rows of the map.
func TestProductByHand(t *testing.T) {
	a := []float32{1, 2, 3, 4, 5, 6, 1, 0, 0, 0, 0, 1} // 2 x 2 x 3
	for _, c := range []struct {
		op   graph.Product
		b    graph.Shape
		want []float32
	}{
		{graph.Product{}, graph.Shape{H: 2, W: 3, C: 2}, []float32{22, 28, 49, 64, 7, 8, 11, 12}},
		{graph.Product{Transposed: true}, graph.Shape{H: 2, W: 2, C: 3}, []float32{14, 32, 32, 77, 7, 10, 9, 12}},
	} {
		shapes := []graph.Shape{{H: 2, W: 2, C: 3}, c.b}
		out, err := c.op.OutShape(shapes...)
		if want := (graph.Shape{H: 2, W: 2, C: 2}); err != nil || out != want {
			t.Fatalf("%+v: %v, %v", c.op, out, err)
		}
		got := make([]float32, out.Len())
		c.op.Apply(got, 1, shapes, a, []float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.op, got, c.want)
		}
	}
}

func TestLayout(t *testing.T) {
	for _, s := range []graph.Shape{{H: 1, W: 1, C: 7}, {H: 3, W: 4, C: 1}, {H: 5, W: 3, C: 2}, {H: 28, W: 28, C: 33}} {
		const n = 3
		x := graphtest.Normal(source(1), n*s.Len(), 1)
		chw, back := make([]float32, len(x)), make([]float32, len(x))
		graph.HWCToCHW(chw, x, n, s)
		graph.CHWToHWC(back, chw, n, s)
		if !slices.Equal(back, x) {
			t.Errorf("%v: CHWToHWC does not invert HWCToCHW", s)
		}
		for i := range n {
			for h := range s.H {
				for w := range s.W {
					for c := range s.C {
						if chw[i*s.Len()+(c*s.H+h)*s.W+w] != x[i*s.Len()+(h*s.W+w)*s.C+c] {
							t.Fatalf("%v: element %d, %d, %d of sample %d is misplaced", s, h, w, c, i)
						}
					}
				}
			}
		}
	}
}

func TestShapes(t *testing.T) {
	g := graphtest.MNIST(source(1))
	if err := g.Validate(); err != nil {
		t.Fatal(err)
	}
	shapes, err := g.Shapes()
	want := []graph.Shape{{28, 28, 1}, {24, 24, 16}, {12, 12, 16}, {12, 12, 16}, {8, 8, 32}, {4, 4, 32}, {4, 4, 32}, {1, 1, 512}, {1, 1, 10}, {1, 1, 10}}
	if err != nil || !slices.Equal(shapes, want) {
		t.Fatalf("shapes %v, %v", shapes, err)
	}

	// Cryptonets' first layer pads one side only.
	g = graphtest.Chain(graph.Shape{H: 28, W: 28, C: 1}, graphtest.Conv(source(1), plan.Conv2D{
		H: 28, W: 28, C: 1, OutC: 5, KH: 5, KW: 5, SH: 2, SW: 2, DH: 1, DW: 1, Top: 1, Left: 1, Groups: 1}))
	if shapes, err = g.Shapes(); err != nil || shapes[1] != (graph.Shape{H: 13, W: 13, C: 5}) {
		t.Fatalf("shapes %v, %v", shapes, err)
	}
}

func TestShapesRejects(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	conv := plan.Conv2D{H: 4, W: 4, C: 1, OutC: 1, KH: 2, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}
	wrong := conv
	wrong.SW = 0
	chain := graphtest.Chain
	square := graph.Shape{H: 4, W: 4, C: 1}
	node := func(op graph.Op, in ...graph.Value) graph.Node { return graph.Node{Op: op, Inputs: in} }
	relu := node(graph.ReLU{}, 0)
	for name, c := range map[string]struct {
		g    *graph.Graph
		want error // beyond ErrInvalid
	}{
		"no operators":        {chain(square), nil},
		"empty input":         {chain(graph.Shape{H: 0, W: 4, C: 1}, graph.ReLU{}), nil},
		"negative input":      {chain(graph.Shape{H: -4, W: -4, C: 1}, graph.ReLU{}), nil},
		"overflowing input":   {chain(graph.Shape{H: 1 << 31, W: 1 << 31, C: 4}, graph.ReLU{}), nil},
		"no operator":         {&graph.Graph{Input: square, Nodes: []graph.Node{{Inputs: []graph.Value{0}}}, Output: 1}, nil},
		"output before":       {&graph.Graph{Input: square, Nodes: []graph.Node{relu}, Output: -1}, nil},
		"output past the end": {&graph.Graph{Input: square, Nodes: []graph.Node{relu}, Output: 2}, nil},
		"unread value":        {&graph.Graph{Input: square, Nodes: []graph.Node{relu, relu}, Output: 2}, nil},
		"unread output":       {&graph.Graph{Input: square, Nodes: []graph.Node{relu}, Output: 0}, nil},
		"reads itself":        {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.ReLU{}, 1)}, Output: 1}, nil},
		"reads a later value": {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.ReLU{}, 2), node(graph.ReLU{}, 1)}, Output: 2}, nil},
		"negative value":      {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.ReLU{}, -1)}, Output: 1}, nil},
		"no input":            {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.ReLU{})}, Output: 1}, nil},
		"two inputs":          {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.ReLU{}, 0, 0)}, Output: 1}, nil},
		"dense on a map":      {chain(square, &graph.Dense{In: 16, Out: 1}), nil},
		"dense of 0":          {chain(graph.Vector(4), &graph.Dense{In: 4}), plan.ErrInvalid},
		"dense too long":      {chain(graph.Vector(1<<16+1), &graph.Dense{In: 1<<16 + 1, Out: 1}), plan.ErrInvalid},
		"conv of another map": {chain(graph.Shape{H: 4, W: 5, C: 1}, &graph.Conv2D{Geometry: conv}), nil},
		"conv without stride": {chain(square, &graph.Conv2D{Geometry: wrong}), plan.ErrInvalid},
		"weights":             {chain(graph.Vector(2), &graph.Dense{In: 2, Out: 2, W: make([]float32, 3)}), nil},
		"empty weights":       {chain(graph.Vector(2), &graph.Dense{In: 2, Out: 2, W: []float32{}}), nil},
		"bias":                {chain(graph.Vector(2), &graph.Dense{In: 2, Out: 2, B: make([]float32, 1)}), nil},
		"NaN weight":          {chain(graph.Vector(1), &graph.Dense{In: 1, Out: 1, W: []float32{nan}}), graph.ErrNotFinite},
		"infinite bias":       {chain(square, &graph.Conv2D{Geometry: conv, B: []float32{inf}}), graph.ErrNotFinite},
		"pool of 0":           {chain(square, graph.MaxPool{}), nil},
		"pool too large":      {chain(square, graph.MaxPool{Pool: pool(5, 1, 1, 1)}), nil},
		"pool all padding":    {chain(square, graph.AvgPool{Pool: pool(2, 2, 1, 1, 0, 2, 0, 0)}), nil},
		"pool above the map":  {chain(square, graph.MaxPool{Pool: pool(2, 2, 1, 1, 2, 0, 0, 0)}), nil},
		"pool below the map":  {chain(square, graph.MaxPool{Pool: pool(2, 2, 1, 1, 0, 0, 2, 0)}), nil},
		"negative padding":    {chain(square, graph.AvgPool{Pool: pool(2, 2, 1, 1, 0, 0, -1, 0)}), nil},
		"sum of another map":  {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.Reshape{To: graph.Vector(16)}, 0), node(graph.Add{}, 0, 1)}, Output: 2}, nil},
		"sum of one":          {chain(square, graph.Add{}), nil},
		"sum of three":        {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.Add{}, 0, 0, 0)}, Output: 1}, nil},
		"concat of nothing":   {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.Concat{})}, Output: 1}, nil},
		"concat of two maps":  {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.Reshape{To: graph.Vector(16)}, 0), node(graph.Concat{}, 0, 1)}, Output: 2}, nil},
		"concat of columns":   {&graph.Graph{Input: graph.Shape{H: 4, W: 2, C: 2}, Nodes: []graph.Node{node(graph.Reshape{To: square}, 0), node(graph.Concat{}, 0, 1)}, Output: 2}, nil},
		"concat of too much":  {&graph.Graph{Input: graph.Vector(1 << 30), Nodes: []graph.Node{node(graph.Concat{}, 0, 0, 0)}, Output: 1}, nil},
		"affine of nothing":   {chain(square, &graph.Affine{}), nil},
		"affine scale":        {chain(square, &graph.Affine{Scale: make([]float32, 2)}), nil},
		"affine shift":        {chain(square, &graph.Affine{Scale: make([]float32, 1), Shift: []float32{}}), nil},
		"NaN scale":           {chain(square, &graph.Affine{Scale: []float32{nan}}), graph.ErrNotFinite},
		"infinite shift":      {chain(square, &graph.Affine{Shift: []float32{inf}}), graph.ErrNotFinite},
		"product of 1 value":  {chain(square, graph.Product{}), nil},
		"product of unlikes":  {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.Product{}, 0, 0)}, Output: 1}, nil},
		"product of rows":     {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.Reshape{To: graph.Shape{H: 2, W: 8, C: 1}}, 0), node(graph.Product{Transposed: true}, 0, 1)}, Output: 2}, nil},
		"product too large":   {&graph.Graph{Input: graph.Shape{H: 1, W: 1 << 17, C: 1}, Nodes: []graph.Node{node(graph.Product{Transposed: true}, 0, 0)}, Output: 1}, nil},
		"elements of nothing": {chain(square, &graph.ElementAffine{Extent: square}), nil},
		"elements of 0":       {chain(square, &graph.ElementAffine{Extent: graph.Shape{H: 4, W: 4}, Shift: []float32{}}), nil},
		"elements of thirds":  {chain(square, &graph.ElementAffine{Extent: graph.Shape{H: 3, W: 1, C: 1}, Shift: make([]float32, 3)}), nil},
		"few elements":        {chain(square, &graph.ElementAffine{Extent: square, Scale: make([]float32, 15)}), nil},
		"NaN element":         {chain(square, &graph.ElementAffine{Extent: graph.Vector(1), Scale: []float32{nan}}), graph.ErrNotFinite},
		"NaN bound":           {chain(square, graph.Clip{Max: nan}), graph.ErrNotFinite},
		"select of two":       {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.Select{}, 0, 0)}, Output: 1}, nil},
		"select of unlike":    {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.MaxPool{Pool: pool(2, 1, 1, 1)}, 0), node(graph.Select{}, 0, 0, 1)}, Output: 2}, nil},
		"select of too much":  {&graph.Graph{Input: graph.Shape{H: 1 << 16, W: 1, C: 1}, Nodes: []graph.Node{node(graph.Reshape{To: graph.Shape{H: 1, W: 1 << 16, C: 1}}, 0), node(graph.Select{}, 0, 1, 1)}, Output: 2}, nil},
		"gather of nothing":   {chain(square, &graph.Gather{Along: "H"}), nil},
		"gather past the end": {chain(square, &graph.Gather{Along: "H", From: []int{0, 4}}), nil},
		"gather before":       {chain(square, &graph.Gather{Along: "W", From: []int{0, -1}}), nil},
		"gather of samples":   {chain(square, &graph.Gather{Along: "N", From: []int{1, 0}}), nil},
		"gather in a row":     {chain(square, &graph.Gather{Along: "W", From: []int{1, 2}}), nil},
		"resize to nothing":   {chain(square, graph.Resize{W: 4, ScaleW: 1, Mode: "linear", Places: "half_pixel"}), nil},
		"resize to less":      {chain(square, graph.Resize{H: -8, W: 4, ScaleH: -2, ScaleW: 1, Mode: "linear", Places: "half_pixel"}), nil},
		"resize to too much":  {chain(square, graph.Resize{H: 1 << 20, W: 1 << 20, ScaleH: 1 << 18, ScaleW: 1 << 18, Mode: "linear", Places: "half_pixel"}), nil},
		"resize to a line":    {chain(graph.Vector(1), graph.Resize{H: 1<<22 + 1, W: 1, ScaleH: 1<<22 + 1, ScaleW: 1, Mode: "linear", Places: "half_pixel"}), nil},
		"resize to itself":    {chain(square, graph.Resize{H: 4, W: 4, ScaleH: 1, ScaleW: 1, Mode: "linear", Places: "half_pixel"}), nil},
		"resize by others":    {chain(square, graph.Resize{H: 8, W: 8, ScaleH: 2, ScaleW: 3, Mode: "linear", Places: "half_pixel"}), nil},
		"resize by some":      {chain(square, graph.Resize{H: 8, W: 8, ScaleH: 2, ScaleW: 2, Mode: "some", Places: "half_pixel"}), nil},
		"resize somewhere":    {chain(square, graph.Resize{H: 8, W: 8, ScaleH: 2, ScaleW: 2, Mode: "linear", Places: "some"}), nil},
		"resize and round":    {chain(square, graph.Resize{H: 8, W: 8, ScaleH: 2, ScaleW: 2, Mode: "linear", Places: "half_pixel", Rounding: "floor"}), nil},
		"resize, no rounding": {chain(square, graph.Resize{H: 8, W: 8, ScaleH: 2, ScaleW: 2, Mode: "nearest", Places: "half_pixel"}), nil},
		"resize by NaN":       {chain(square, graph.Resize{H: 8, W: 8, ScaleH: nan, ScaleW: 2, Mode: "linear", Places: "half_pixel"}), graph.ErrNotFinite},
		"transpose":           {chain(square, &graph.Transpose{Dims: []int{4, 5}, Perm: []int{1, 0}, To: square}), nil},
		"transpose to more":   {chain(square, &graph.Transpose{Dims: []int{4, 4}, Perm: []int{1, 0}, To: graph.Vector(15)}), nil},
		"transpose of 1":      {chain(square, &graph.Transpose{Dims: []int{4, 1, 4}, Perm: []int{2, 1, 0}, To: square}), nil},
		"transpose of little": {chain(square, &graph.Transpose{Dims: []int{2, 4, 2}, Perm: []int{1, 2, 0}, To: square}), nil},
		"transpose nothing":   {chain(square, &graph.Transpose{Dims: []int{4, 4}, Perm: []int{0, 1}, To: square}), nil},
		"no permutation":      {chain(square, &graph.Transpose{Dims: []int{4, 4}, Perm: []int{1, 1}, To: square}), nil},
		"short permutation":   {chain(square, &graph.Transpose{Dims: []int{4, 4}, Perm: []int{0}, To: square}), nil},
		"transpose overflows": {chain(square, &graph.Transpose{Dims: []int{1 << 62, 16}, Perm: []int{1, 0}, To: square}), nil},
		"transpose of many":   {chain(graph.Vector(512), &graph.Transpose{Dims: []int{2, 2, 2, 2, 2, 2, 2, 2, 2}, Perm: []int{8, 7, 6, 5, 4, 3, 2, 1, 0}, To: graph.Vector(512)}), nil},
		"slice of all":        {chain(square, graph.Slice{H: graph.Range{To: 4}, W: graph.Range{To: 4}, C: graph.Range{To: 1}}), nil},
		"slice of nothing":    {chain(square, graph.Slice{H: graph.Range{From: 2, To: 2}, W: graph.Range{To: 4}, C: graph.Range{To: 1}}), nil},
		"slice past the end":  {chain(square, graph.Slice{H: graph.Range{To: 5}, W: graph.Range{To: 4}, C: graph.Range{To: 1}}), nil},
		"slice from before":   {chain(square, graph.Slice{H: graph.Range{From: -1, To: 2}, W: graph.Range{To: 4}, C: graph.Range{To: 1}}), nil},
		"no pad":              {chain(square, graph.Pad{}), nil},
		"negative pad":        {chain(square, graph.Pad{Before: graph.Shape{H: -1}}), nil},
		"huge pad":            {chain(square, graph.Pad{Before: graph.Shape{H: math.MaxInt}}), nil},
		"too wide a pad":      {chain(square, graph.Pad{Before: graph.Shape{H: 1 << 20}, After: graph.Shape{W: 1 << 20}}), nil},
		"pad with NaN":        {chain(square, graph.Pad{Before: graph.Shape{H: 1}, Value: nan}), graph.ErrNotFinite},
		"too few slopes":      {chain(graph.Vector(2), &graph.PReLU{Slope: []float32{1}}), nil},
		"infinite slopes":     {chain(square, &graph.PReLU{Slope: []float32{inf}}), graph.ErrNotFinite},
		"infinite alpha":      {chain(square, graph.ELU{Alpha: inf}), graph.ErrNotFinite},
		"product of one":      {chain(square, graph.Mul{}), nil},
		"by more":             {&graph.Graph{Input: square, Nodes: []graph.Node{node(graph.MaxPool{Pool: pool(4, 4, 1, 1)}, 0), node(graph.Mul{}, 1, 0)}, Output: 2}, nil},
		"infinite slope":      {chain(square, graph.LeakyReLU{Alpha: inf}), graph.ErrNotFinite},
		"huge pool":           {chain(square, graph.AvgPool{Pool: pool(1<<40, 1<<40, 1, 1, 1<<39, 0, 1<<39, 0)}), nil},
		"reshape":             {chain(square, graph.Reshape{To: graph.Vector(15)}), nil},
		"reshape by overflow": {chain(square, graph.Reshape{To: graph.Shape{H: 1 << 62, W: 1 << 62, C: 1}}), nil},
	} {
		_, err := c.g.Shapes()
		if !errors.Is(err, graph.ErrInvalid) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if (c.want == graph.ErrNotFinite) != errors.Is(err, graph.ErrNotFinite) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The second of two counts for all of an axis along which it has one.
func TestPairs(t *testing.T) {
	in := graph.Shape{H: 2, W: 1, C: 2}
	x := []float32{1, 2, 3, 4, 5, 6, 7, 8} // two samples
	first := graph.Slice{H: graph.Range{To: 1}, W: graph.Range{To: 1}, C: graph.Range{To: 2}}
	for _, c := range []struct {
		name   string
		op, by graph.Op
		want   []float32
	}{
		{"one position", graph.Mul{}, first, []float32{1, 4, 3, 8, 25, 36, 35, 48}},
		{"one channel", graph.Sub{}, graph.ChannelMean{}, []float32{-.5, .5, -.5, .5, -.5, .5, -.5, .5}},
		{"both", graph.Div{}, graph.Slice{H: graph.Range{To: 1}, W: graph.Range{To: 1}, C: graph.Range{From: 1, To: 2}}, []float32{.5, 1, 1.5, 2, 5. / 6, 1, 7. / 6, 8. / 6}},
		{"all", graph.Add{}, graph.ReLU{}, []float32{2, 4, 6, 8, 10, 12, 14, 16}},
	} {
		g := &graph.Graph{Input: in, Output: 2, Nodes: []graph.Node{{Op: c.by, Inputs: []graph.Value{0}}, {Op: c.op, Inputs: []graph.Value{0, 1}}}}
		if got := graphtest.Run(g, x, 2); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// NewTranspose leaves as few axes as there can be, and what moves nothing is a Reshape.
// Each element is of the first of two where a third is above 0, and one counts for all along an axis.
func TestSelect(t *testing.T) {
	shapes := []graph.Shape{{H: 2, W: 1, C: 2}, {H: 1, W: 2, C: 1}, {H: 2, W: 2, C: 2}}
	test, a, b := []float32{1, -1, 0, 2}, []float32{10, 20}, []float32{1, 2, 3, 4, 5, 6, 7, 8}
	out, err := graph.Select{}.OutShape(shapes...)
	if err != nil || out != shapes[2] {
		t.Fatal(out, err)
	}
	got := make([]float32, 8)
	graph.Select{}.Apply(got, 1, shapes, test, a, b)
	if want := []float32{10, 2, 20, 4, 5, 10, 7, 20}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestNewTranspose(t *testing.T) {
	to := graph.Vector(24)
	for _, c := range []struct {
		dims, perm []int
		want       graph.Op
	}{
		{[]int{2, 3, 4}, []int{0, 1, 2}, graph.Reshape{To: to}},
		{[]int{1, 24, 1}, []int{2, 1, 0}, graph.Reshape{To: to}},
		{[]int{24}, []int{0}, graph.Reshape{To: to}},
		{[]int{2, 3, 4}, []int{1, 2, 0}, &graph.Transpose{Dims: []int{2, 12}, Perm: []int{1, 0}, To: to}},
		{[]int{2, 1, 3, 4}, []int{2, 3, 1, 0}, &graph.Transpose{Dims: []int{2, 12}, Perm: []int{1, 0}, To: to}},
		{[]int{2, 3, 1, 4}, []int{3, 1, 2, 0}, &graph.Transpose{Dims: []int{2, 3, 4}, Perm: []int{2, 1, 0}, To: to}},
		{[]int{3, 1, 2, 1, 4}, []int{2, 1, 0, 3, 4}, &graph.Transpose{Dims: []int{3, 2, 4}, Perm: []int{1, 0, 2}, To: to}},
	} {
		if got := graph.NewTranspose(c.dims, c.perm, to); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v by %v: %+v, want %+v", c.dims, c.perm, got, c.want)
		}
	}
}

func TestValidateWantsWeights(t *testing.T) {
	g := graphtest.Chain(graph.Vector(2), &graph.Dense{In: 2, Out: 2})
	if _, err := g.Shapes(); err != nil {
		t.Error(err)
	}
	if err := g.Validate(); !errors.Is(err, graph.ErrInvalid) {
		t.Errorf("%v", err)
	}
}

// A value may be read by several nodes, and by one node twice.
func TestLastUses(t *testing.T) {
	g := &graph.Graph{Input: graph.Vector(3), Output: 4, Nodes: []graph.Node{
		{Op: graph.ReLU{}, Inputs: []graph.Value{0}},
		{Op: graph.Square{}, Inputs: []graph.Value{0}},
		{Op: graph.Add{}, Inputs: []graph.Value{1, 2}},
		{Op: graph.Add{}, Inputs: []graph.Value{1, 3}},
	}}
	if err := g.Validate(); err != nil {
		t.Fatal(err)
	}
	want := [][]graph.Value{nil, {0}, {2}, {1, 3}}
	if got := g.LastUses(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// relu(x) + (relu(x) + x²)
	if got := graphtest.Run(g, []float32{-1, 2, 3}, 1); !slices.Equal(got, []float32{1, 8, 15}) {
		t.Errorf("%v", got)
	}
	g.Nodes[3].Inputs = []graph.Value{3, 3}
	want = [][]graph.Value{nil, {0}, {1, 2}, {3}}
	if got := g.LastUses(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestErrorNamesTheNode(t *testing.T) {
	g := graphtest.Chain(graph.Vector(2), graph.ReLU{}, &graph.Dense{In: 3, Out: 1})
	if _, err := g.Shapes(); err == nil || !strings.Contains(err.Error(), "node 1 (dense)") {
		t.Errorf("%v", err)
	}
}

func benchmark(b *testing.B, op graph.Elementary, s graph.Shape) {
	const n = 32
	out, err := op.OutShape(s)
	if err != nil {
		b.Fatal(err)
	}
	x, y := graphtest.Normal(source(1), n*s.Len(), 1), make([]float32, n*out.Len())
	b.SetBytes(int64(4 * len(x)))
	for b.Loop() {
		op.Apply(y, n, []graph.Shape{s}, x)
	}
}

func BenchmarkReLU(b *testing.B)    { benchmark(b, graph.ReLU{}, graph.Shape{H: 24, W: 24, C: 16}) }
func BenchmarkSquare(b *testing.B)  { benchmark(b, graph.Square{}, graph.Shape{H: 24, W: 24, C: 16}) }
func BenchmarkSoftmax(b *testing.B) { benchmark(b, graph.Softmax{}, graph.Vector(10)) }
func BenchmarkMaxPool(b *testing.B) {
	benchmark(b, graph.MaxPool{Pool: pool(2, 2, 2, 2)}, graph.Shape{H: 24, W: 24, C: 16})
}
func BenchmarkMaxPool64(b *testing.B) {
	benchmark(b, graph.MaxPool{Pool: pool(2, 2, 2, 2)}, graph.Shape{H: 24, W: 24, C: 64})
}
func BenchmarkAvgPool(b *testing.B) {
	benchmark(b, graph.AvgPool{Pool: pool(2, 2, 2, 2)}, graph.Shape{H: 24, W: 24, C: 16})
}
func BenchmarkSigmoid(b *testing.B) { benchmark(b, graph.Sigmoid{}, graph.Shape{H: 24, W: 24, C: 16}) }
func BenchmarkAffine(b *testing.B) {
	benchmark(b, &graph.Affine{Scale: make([]float32, 16), Shift: make([]float32, 16)}, graph.Shape{H: 24, W: 24, C: 16})
}
func BenchmarkFlatten(b *testing.B) {
	benchmark(b, graph.Reshape{To: graph.Vector(512)}, graph.Shape{H: 4, W: 4, C: 32})
}
