package graph

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/plan"
)

// Recurrence is the part of a recurrent layer that goes from step to step. Each row of the
// map is a sequence of W steps, whose channels are what a linear operator before it made of
// the layer's inputs, biases included: for each direction the gates, of Hidden channels each,
// in ONNX's order. With x those of a step and h the state before it, a gate's sum is x + R h, and
//
//	lstm  i, o, f, c   c' = f(f) c + f(i) g(c),  h' = f(o) h(c')
//	gru   z, r, h      h' = (1 - f(z)) g(x + R (f(r) h)) + f(z) h
//	                   or, with ResetAfter, g(x + f(r) (R h + B)) in its place
//	rnn   i            h' = f(i)
//
// where f, g and h are Functions. The result has the states h' of every step, Hidden channels
// a direction; with Cells, the last c' of each direction stand behind them, as one more step.
// What is reversed goes from the last step to the first.
//
// R, B and the first states are secrets of the model, as weights are.
type Recurrence struct {
	Cell       string   // "lstm", "gru" or "rnn"
	Direction  string   // "forward", "reverse" or "bidirectional"
	Functions  []string // f, g and h, as many as the cell has: "sigmoid", "tanh" or "relu"
	Hidden     int
	ResetAfter bool   // gru: the product comes before the reset
	R          Floats // directions x gates·Hidden x Hidden
	B          Floats // with ResetAfter: directions x Hidden; nil for 0
	H, C       Floats // the first states: directions x Hidden; nil for 0. C is of lstm.
	Cells      bool   // of lstm
}

// gates and functions are how many each cell has.
var (
	gates     = map[string]int{"lstm": 4, "gru": 3, "rnn": 1}
	functions = map[string]int{"lstm": 3, "gru": 2, "rnn": 1}
)

var activations = map[string]Elementary{"sigmoid": Sigmoid{}, "tanh": Tanh{}, "relu": ReLU{}}

// Gates returns how many gates a cell has, or 0 for what is none.
func Gates(cell string) int { return gates[cell] }

func (*Recurrence) Name() string  { return "recurrence" }
func (*Recurrence) InPlace() bool { return false }

// directions returns how many there are, or 0 for none that is known.
func (r *Recurrence) directions() int {
	return map[string]int{"forward": 1, "reverse": 1, "bidirectional": 2}[r.Direction]
}

func (r *Recurrence) OutShape(in ...Shape) (Shape, error) {
	s, err := single(in)
	if err != nil {
		return Shape{}, err
	}
	of, dirs := gates[r.Cell], r.directions()
	if of == 0 || dirs == 0 {
		return Shape{}, fmt.Errorf("%w: unknown cell %.8q or direction %.16q", ErrInvalid, r.Cell, r.Direction)
	}
	if r.Hidden <= 0 || r.Hidden > plan.MaxExtent/(dirs*of) || s.C != dirs*of*r.Hidden {
		return Shape{}, fmt.Errorf("%w: input of %v for %s, want channels for %d directions, %d gates and %d hidden", ErrInvalid, s, r.Cell, dirs, of, r.Hidden)
	}
	known := !slices.ContainsFunc(r.Functions, func(f string) bool { return activations[f] == nil })
	if len(r.Functions) != functions[r.Cell] || !known {
		return Shape{}, fmt.Errorf("%w: %d functions of %s, want %d of sigmoid, tanh and relu", ErrInvalid, len(r.Functions), r.Cell, functions[r.Cell])
	}
	if r.Cell != "lstm" && (r.C != nil || r.Cells) || r.Cell != "gru" && r.ResetAfter || !r.ResetAfter && r.B != nil {
		return Shape{}, fmt.Errorf("%w: %s with cells, a reset or biases, which it does not take", ErrInvalid, r.Cell)
	}
	if len(r.R) != s.C*r.Hidden {
		return Shape{}, fmt.Errorf("%w: %d weights, want %d x %d", ErrInvalid, len(r.R), s.C, r.Hidden)
	}
	for _, v := range []Floats{r.B, r.H, r.C} {
		if v != nil && len(v) != dirs*r.Hidden {
			return Shape{}, fmt.Errorf("%w: %d biases or states, want %d x %d", ErrInvalid, len(v), dirs, r.Hidden)
		}
	}
	for _, v := range []Floats{r.R, r.B, r.H, r.C} {
		if i := notFinite(v); i >= 0 {
			return Shape{}, fmt.Errorf("%w: weight, bias or state %d", ErrNotFinite, i)
		}
	}
	out := Shape{s.H, s.W, dirs * r.Hidden}
	if r.Cells {
		out.W++
	}
	return out, out.Check()
}

// Apply takes all sequences from step to step together, one direction after the other.
func (r *Recurrence) Apply(dst []float32, n int, shapes []Shape, in ...[]float32) {
	s := shapes[0]
	for d := range r.directions() {
		r.direction(d, dst, n*s.H, s.W, in[0])
	}
}

// direction computes direction d of n sequences.
func (r *Recurrence) direction(d int, dst []float32, n, steps int, src []float32) {
	size, of, dirs := r.Hidden, gates[r.Cell], r.directions()
	width := of * size // of all gates
	out := len(dst) / (n * dirs * size)

	weights := r.R[d*width*size:][:width*size]
	var all, reset columns // the latter of what follows a GRU's reset
	if r.Cell == "gru" {
		all, reset = newColumns(weights[:2*size*size], size), newColumns(weights[2*size*size:], size)
	} else {
		all = newColumns(weights, size)
	}
	state := func(first Floats) []float32 {
		v := make([]float32, n*size)
		for i := 0; first != nil && i < n; i++ {
			copy(v[i*size:], first[d*size:][:size])
		}
		return v
	}
	h, sums := state(r.H), make([]float32, n*width)
	var cell, other []float32
	switch r.Cell {
	case "lstm":
		cell = state(r.C)
	case "gru":
		other = make([]float32, n*size)
	}
	for k := range steps {
		t := k
		if r.Direction == "reverse" || d == 1 {
			t = steps - 1 - k
		}
		for i := range n {
			copy(sums[i*width:][:width], src[((i*steps+t)*dirs+d)*width:])
		}
		all.add(sums, width, h)
		switch r.Cell {
		case "lstm":
			r.lstm(h, cell, sums)
		case "gru":
			r.gru(h, other, sums, d, reset)
		default:
			r.activate(0, h, sums)
		}
		for i := range n {
			copy(dst[((i*out+t)*dirs+d)*size:][:size], h[i*size:])
		}
	}
	for i := 0; r.Cells && i < n; i++ {
		copy(dst[((i*out+steps)*dirs+d)*size:][:size], cell[i*size:])
	}
}

// columns is a matrix of rows of size floats, transposed: a panel of its rows after the other.
// A step reads all of it for each sequence, so that it matters how it lies in memory.
type columns struct {
	rows, size int
	m          []float32
}

func newColumns(r []float32, size int) columns {
	c := columns{rows: len(r) / size, size: size}
	c.m = make([]float32, (c.rows+panel-1)/panel*panel*size)
	for j := range c.rows {
		for k, v := range r[j*size:][:size] {
			c.m[(j/panel*size+k)*panel+j%panel] = v
		}
	}
	return c
}

// add adds the product with each state h to sums, stride apart. A sequence's do not depend on
// the others'.
func (c columns) add(sums []float32, stride int, h []float32) {
	n := len(h) / c.size
	for j := 0; j < c.rows; j += panel {
		m := c.m[j*c.size:][:panel*c.size]
		for i := range n {
			v := h[i*c.size:][:c.size]
			if dst := sums[i*stride+j:]; c.rows-j >= panel {
				vectors.accumulate(dst, v, m)
			} else {
				var all [panel]float32
				n := copy(all[:], dst[:c.rows-j])
				vectors.accumulate(all[:], v, m)
				copy(dst[:n], all[:])
			}
		}
	}
}

// activate sets dst to function f of v.
func (r *Recurrence) activate(f int, dst, v []float32) {
	activations[r.Functions[f]].Apply(dst, 0, nil, v)
}

// lstm sets the states h and cells of all sequences to those behind a step of the given sums.
func (r *Recurrence) lstm(h, cells, sums []float32) {
	size := r.Hidden
	for ; len(h) > 0; h, cells, sums = h[size:], cells[size:], sums[4*size:] {
		r.activate(0, sums[:3*size], sums[:3*size])
		r.activate(1, sums[3*size:4*size], sums[3*size:4*size])
		i, o, f, c := sums[:size], sums[size:][:size], sums[2*size:][:size], sums[3*size:][:size]
		cell, h := cells[:size], h[:size]
		for j := range cell {
			cell[j] = f[j]*cell[j] + i[j]*c[j]
		}
		r.activate(2, h, cell)
		for j := range h {
			h[j] *= o[j]
		}
	}
}

// gru does what lstm does for a GRU, whose last gate's sums have no product so far.
func (r *Recurrence) gru(h, other, sums []float32, d int, reset columns) {
	size := r.Hidden
	for i := range len(h) / size {
		row := sums[3*i*size:][:3*size]
		r.activate(0, row[:2*size], row[:2*size])
		o := other[i*size:][:size]
		switch {
		case !r.ResetAfter:
			for j, v := range row[size:][:size] {
				o[j] = v * h[i*size+j]
			}
		case r.B != nil:
			copy(o, r.B[d*size:])
		default:
			clear(o)
		}
	}
	if r.ResetAfter {
		reset.add(other, size, h)
	} else {
		reset.add(sums[2*size:], 3*size, other)
	}
	for i := range len(h) / size {
		z, f, c := sums[3*i*size:][:size], sums[(3*i+1)*size:][:size], sums[(3*i+2)*size:][:size]
		if r.ResetAfter {
			for j, v := range other[i*size:][:size] {
				c[j] += f[j] * v
			}
		}
		r.activate(1, c, c)
		for j, v := range h[i*size:][:size] {
			h[i*size+j] = (1-z[j])*c[j] + z[j]*v
		}
	}
}
