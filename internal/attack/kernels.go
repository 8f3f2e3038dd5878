package attack

import (
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// Kernels recovers each kernel of a convolution whose masks act on channels, on its own: a
// kernel is its integers times one unit, so shrink finds them up to sign and common factor.
// It returns the integers in the order of What's words, zeros for kernels not found.
func Kernels(r ring.Ring, op plan.Op, what ring.Matrix) []int32 {
	channels := op.AsConv().C
	w := make([]int32, len(what.Data))
	var v []uint32
	for k := range what.Rows {
		row := what.Row(k)
		for c := range channels {
			v = v[:0]
			for t := c; t < what.Cols; t += channels {
				v = append(v, row[t])
			}
			unit := shrink(r, v, exact)
			for i, a := range v {
				w[k*what.Cols+i*channels+c] = r.Lift(r.Mul(unit, a))
			}
		}
	}
	return w
}

// Divisible marks the words that are zero modulo the prime p. Masks multiply by units, so
// these are the words of weights that p divides.
func Divisible(what ring.Matrix, p uint32) []bool {
	marks := make([]bool, len(what.Data))
	for i, a := range what.Data {
		marks[i] = a%p == 0
	}
	return marks
}
