package graphtest

import (
	"math"
	"math/rand/v2"

	"github.com/securenets/securenets/internal/graph"
)

// recurrence sets y to what op computes of x: ONNX's equations of its LSTM, GRU and RNN, of
// one hidden unit after the other.
func recurrence(op *graph.Recurrence, x, y sample) {
	f := func(i int, v float64) float64 {
		switch op.Functions[i] {
		case "sigmoid":
			return 1 - 1/(math.Exp(v)+1)
		case "tanh":
			return 1 - 2/(math.Exp(2*v)+1)
		}
		return math.Max(v, 0)
	}
	size, gates := op.Hidden, graph.Gates(op.Cell)
	dirs := x.C / (gates * size)
	for row := range x.H {
		for d := range dirs {
			h, c := make([]float64, size), make([]float64, size)
			for j := range size {
				if op.H != nil {
					h[j] = float64(op.H[d*size+j])
				}
				if op.C != nil {
					c[j] = float64(op.C[d*size+j])
				}
			}
			for k := range x.W {
				t := k
				if d == 1 || op.Direction == "reverse" {
					t = x.W - 1 - k
				}
				in := func(gate, j int) float64 { return *x.at(row, t, (d*gates+gate)*size+j) }
				times := func(gate, j int, v []float64) (sum float64) { // row j of the gate's R by v
					for i := range v {
						sum += float64(op.R[((d*gates+gate)*size+j)*size+i]) * v[i]
					}
					return sum
				}
				next := make([]float64, size)
				reset := make([]float64, size)
				for j := range size {
					if op.Cell == "gru" {
						reset[j] = f(0, in(1, j)+times(1, j, h)) * h[j]
					}
				}
				for j := range size {
					switch op.Cell {
					case "lstm":
						i, o, forget := f(0, in(0, j)+times(0, j, h)), f(0, in(1, j)+times(1, j, h)), f(0, in(2, j)+times(2, j, h))
						c[j] = forget*c[j] + i*f(1, in(3, j)+times(3, j, h))
						next[j] = o * f(2, c[j])
					case "gru":
						z := f(0, in(0, j)+times(0, j, h))
						sum := in(2, j) + times(2, j, reset)
						if op.ResetAfter {
							b := 0.0
							if op.B != nil {
								b = float64(op.B[d*size+j])
							}
							sum = in(2, j) + f(0, in(1, j)+times(1, j, h))*(times(2, j, h)+b)
						}
						next[j] = (1-z)*f(1, sum) + z*h[j]
					default:
						next[j] = f(0, in(0, j)+times(0, j, h))
					}
				}
				h = next
				for j, v := range h {
					*y.at(row, t, d*size+j) = v
				}
			}
			for j := 0; op.Cells && j < size; j++ {
				*y.at(row, x.W, d*size+j) = c[j]
			}
		}
	}
}

// Recurrence returns a random recurrence, and the channels that it takes.
func Recurrence(r *rand.Rand) (*graph.Recurrence, int) {
	op := &graph.Recurrence{
		Cell:      []string{"lstm", "gru", "rnn"}[r.IntN(3)],
		Direction: []string{"forward", "reverse", "bidirectional"}[r.IntN(3)],
		Hidden:    1 + r.IntN(9),
	}
	dirs, functions := 1, []string{"sigmoid", "tanh", "tanh"}
	if op.Direction == "bidirectional" {
		dirs = 2
	}
	values := func(n int) graph.Floats { return Normal(r, dirs*n, 1/math.Sqrt(float64(op.Hidden))) }
	maybe := func() graph.Floats {
		if r.IntN(2) == 0 {
			return nil
		}
		return values(op.Hidden)
	}
	switch op.Cell {
	case "lstm":
		op.C, op.Cells = maybe(), r.IntN(3) == 0
	case "gru":
		functions = functions[:2]
		if op.ResetAfter = r.IntN(2) == 0; op.ResetAfter {
			op.B = maybe()
		}
	default:
		functions = functions[1:2]
	}
	for _, f := range functions {
		if r.IntN(8) == 0 {
			f = []string{"sigmoid", "tanh", "relu"}[r.IntN(3)]
		}
		op.Functions = append(op.Functions, f)
	}
	op.H, op.R = maybe(), values(graph.Gates(op.Cell)*op.Hidden*op.Hidden)
	return op, dirs * graph.Gates(op.Cell) * op.Hidden
}
