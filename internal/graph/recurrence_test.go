package graph_test

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/graph/graphtest"
)

func TestRecurrenceAgainstDefinition(t *testing.T) {
	r := source(7)
	for range 300 {
		op, channels := graphtest.Recurrence(r)
		s := graph.Shape{H: 1 + r.IntN(3), W: 1 + r.IntN(5), C: channels}
		n := 1 + r.IntN(4)
		g := graphtest.Chain(s, op)
		x := graphtest.Normal(r, n*s.Len(), 1)
		was := slices.Clone(x)
		got := graphtest.Run(g, x, n)
		near(t, op, got, graphtest.Evaluate(g, x, n))
		if !slices.Equal(x, was) {
			t.Fatal("the input has changed")
		}
		// A sample is computed alone as it is among others, bit for bit.
		l := len(got) / n
		if alone := graphtest.Run(g, x[(n-1)*s.Len():], 1); !slices.Equal(alone, got[(n-1)*l:]) {
			t.Fatalf("%+v: a sample alone is %v, among others %v", op, alone, got[(n-1)*l:])
		}
	}
}

// Of many columns and sequences too, with columns left over that are no whole panel.
func TestRecurrenceOfManyIsThatOfOne(t *testing.T) {
	const size, n = 100, 50
	r := source(8)
	for _, op := range []*graph.Recurrence{
		{Cell: "lstm", Functions: []string{"sigmoid", "tanh", "tanh"}},
		{Cell: "gru", Functions: []string{"sigmoid", "tanh"}},
		{Cell: "gru", Functions: []string{"sigmoid", "tanh"}, ResetAfter: true},
	} {
		op.Direction, op.Hidden = "bidirectional", size
		s := graph.Shape{H: 1, W: 3, C: 2 * graph.Gates(op.Cell) * size}
		op.R = graphtest.Normal(r, s.C*size, 0.1)
		g := graphtest.Chain(s, op)
		x := graphtest.Normal(r, n*s.Len(), 1)
		got := graphtest.Run(g, x, n)
		l := len(got) / n
		for _, i := range []int{0, n / 2, n - 1} {
			if alone := graphtest.Run(g, x[i*s.Len():][:s.Len()], 1); !slices.Equal(alone, got[i*l:][:l]) {
				t.Errorf("%s, reset after: %v: sample %d differs alone", op.Cell, op.ResetAfter, i)
			}
		}
		near(t, op.Cell, got[:l], graphtest.Evaluate(g, x[:s.Len()], 1))
	}
}

func TestRecurrenceByHand(t *testing.T) {
	for _, c := range []struct {
		op   *graph.Recurrence
		x    []float32
		want []float32
	}{
		// h' = x + 2 h
		{&graph.Recurrence{Cell: "rnn", Direction: "forward", R: graph.Floats{2}, H: graph.Floats{1}}, []float32{1, 2, 3}, []float32{3, 8, 19}},
		{&graph.Recurrence{Cell: "rnn", Direction: "reverse", R: graph.Floats{2}}, []float32{1, 2, 3}, []float32{17, 8, 3}},
		{&graph.Recurrence{Cell: "rnn", Direction: "bidirectional", R: graph.Floats{2, 1}, H: graph.Floats{0, 1}}, []float32{1, 1, 2, 2}, []float32{1, 4, 4, 3}},
		// i, o, f, c: c' = f c + i c = 2 1 + 3 1 = 5, h' = o c' = 5, then 1 5 + 1 (1 + 5) = 11 and 2 11 = 22
		{&graph.Recurrence{Cell: "lstm", Direction: "forward", R: graph.Floats{0, 0, 0, 1}, C: graph.Floats{1}, Cells: true}, []float32{3, 1, 2, 1, 1, 2, 1, 1}, []float32{5, 22, 11}},
		// z, r, h: h' = (1 - z) (x + R (r h)) + z h = -1 (1 + 2 (3 1)) + 2 1
		{&graph.Recurrence{Cell: "gru", Direction: "forward", R: graph.Floats{0, 0, 2}, H: graph.Floats{1}}, []float32{2, 3, 1}, []float32{-5}},
		// (1 - z) (x + r (R h + B)) + z h = -1 (1 + 3 (2 + 4)) + 2
		{&graph.Recurrence{Cell: "gru", Direction: "forward", R: graph.Floats{0, 0, 2}, H: graph.Floats{1}, B: graph.Floats{4}, ResetAfter: true}, []float32{2, 3, 1}, []float32{-17}},
	} {
		c.op.Hidden = 1
		c.op.Functions = []string{"relu", "relu", "relu"}[:map[string]int{"lstm": 3, "gru": 2, "rnn": 1}[c.op.Cell]]
		dirs := 1
		if c.op.Direction == "bidirectional" {
			dirs = 2
		}
		channels := dirs * graph.Gates(c.op.Cell)
		g := graphtest.Chain(graph.Shape{H: 1, W: len(c.x) / channels, C: channels}, c.op)
		if got := graphtest.Run(g, c.x, 1); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.op, got, c.want)
		}
	}
}

func TestRecurrenceRejects(t *testing.T) {
	s := graph.Shape{H: 1, W: 2, C: 16}
	valid := func() *graph.Recurrence {
		return &graph.Recurrence{Cell: "lstm", Direction: "bidirectional", Hidden: 2, Functions: []string{"sigmoid", "tanh", "tanh"},
			R: make(graph.Floats, 32), H: make(graph.Floats, 4), C: make(graph.Floats, 4), Cells: true}
	}
	if err := graphtest.Chain(s, valid()).Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*graph.Recurrence){
		"another cell":     func(r *graph.Recurrence) { r.Cell = "sru" },
		"no direction":     func(r *graph.Recurrence) { r.Direction = "" },
		"one direction":    func(r *graph.Recurrence) { r.Direction = "reverse" },
		"more hidden":      func(r *graph.Recurrence) { r.Hidden = 3 },
		"none hidden":      func(r *graph.Recurrence) { r.Hidden = 0 },
		"negative":         func(r *graph.Recurrence) { r.Hidden = -2 },
		"huge":             func(r *graph.Recurrence) { r.Hidden = 1<<62 + 2 },
		"few functions":    func(r *graph.Recurrence) { r.Functions = r.Functions[:2] },
		"another function": func(r *graph.Recurrence) { r.Functions[1] = "erf" },
		"few weights":      func(r *graph.Recurrence) { r.R = r.R[:31] },
		"no weights":       func(r *graph.Recurrence) { r.R = nil },
		"few states":       func(r *graph.Recurrence) { r.H = r.H[:2] },
		"empty states":     func(r *graph.Recurrence) { r.C = graph.Floats{} },
		"NaN weight":       func(r *graph.Recurrence) { r.R[3] = float32(math.NaN()) },
		"infinite state":   func(r *graph.Recurrence) { r.C[3] = float32(math.Inf(1)) },
		"reset of LSTM":    func(r *graph.Recurrence) { r.ResetAfter = true },
		"bias of LSTM":     func(r *graph.Recurrence) { r.B = make(graph.Floats, 4) },
		"gates of a GRU":   func(r *graph.Recurrence) { r.Cell = "gru" },
		"cells of an RNN": func(r *graph.Recurrence) {
			r.Cell, r.Hidden, r.Functions, r.R, r.H, r.C = "rnn", 8, []string{"tanh"}, make(graph.Floats, 128), nil, nil
		},
		"cells of a state": func(r *graph.Recurrence) {
			r.Cell, r.Hidden, r.Functions, r.R, r.H, r.Cells = "rnn", 8, []string{"tanh"}, make(graph.Floats, 128), nil, false
			r.C = make(graph.Floats, 16)
		},
	} {
		op := valid()
		change(op)
		if err := graphtest.Chain(s, op).Validate(); !errors.Is(err, graph.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFloatsAsJSON(t *testing.T) {
	for _, v := range []graph.Floats{nil, {}, {1, -0.5, math.MaxFloat32}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		back := graph.Floats{7}
		if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, v) {
			t.Errorf("%v became %s became %v, %v", v, b, back, err)
		}
	}
	if b, err := json.Marshal(graph.Floats{1}); err != nil || string(b) != `"AACAPw=="` {
		t.Errorf("%s, %v", b, err)
	}
	for _, b := range []string{`"AAA="`, `[1]`, `1`, `"AACAPw"`, `"!"`} {
		var v graph.Floats
		if err := json.Unmarshal([]byte(b), &v); err == nil {
			t.Errorf("%s became %v", b, v)
		}
	}
}

func BenchmarkRecurrence(b *testing.B) {
	const size = 256
	r := source(1)
	op := &graph.Recurrence{Cell: "lstm", Direction: "bidirectional", Functions: []string{"sigmoid", "tanh", "tanh"}, Hidden: size, R: graphtest.Normal(r, 8*size*size, 0.05)}
	s := graph.Shape{H: 1, W: 100, C: 8 * size}
	x, y := graphtest.Normal(r, s.Len(), 1), make([]float32, 100*2*size)
	for b.Loop() {
		op.Apply(y, 1, []graph.Shape{s}, x)
	}
}
