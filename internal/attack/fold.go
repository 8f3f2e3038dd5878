package attack

import "github.com/securenets/securenets/ring"

// The paper folds the bias into the product: a column of W, and a row of ones in Y. We
// add biases on the host. A folded bias makes one input the same in every sample, and its
// masked words then show F_Y up to one constant: Folded looks for it.

// Folded returns the column of a dense call that looks most like a masked column of ones,
// with its words, which are the units F_Y of rows up to a constant; or -1 if there is none.
//
// Divided by that column, every other column is one unit times the integers of an input in
// all samples.
func Folded(r ring.Ring, xhat ring.Matrix) (column int, units []uint32) {
	const tried = 12 // other columns, to decide by
	column, most := -1, tried/2
	inverses, v := make([]uint32, xhat.Rows), make([]uint32, xhat.Rows)
	for j := range xhat.Cols {
		constant := true
		for i := range inverses {
			inverses[i] = invert(r.Modulus(), xhat.At(i, j))
			constant = constant && inverses[i] != 0
		}
		if !constant {
			continue
		}
		short, seen := 0, 0
		for k := 0; k < xhat.Cols && seen < tried; k++ {
			nonzero := 0
			for i, inv := range inverses {
				if v[i] = r.Mul(xhat.At(i, k), inv); v[i] != 0 {
					nonzero++
				}
			}
			if k == j || nonzero < 8 {
				continue
			}
			seen++
			if shrink(r, v, exact) != 0 {
				short++
			}
		}
		if short > most {
			column, most = j, short
			units = make([]uint32, xhat.Rows)
			for i := range units {
				units[i] = xhat.At(i, j)
			}
		}
	}
	return column, units
}
