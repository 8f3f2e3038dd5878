package attack

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// Match returns, for each row and input (channel) of g, its index in a base model of floats,
// rows x terms. The base model is the one that the network was fine-tuned from, so that its
// weights are close.
//
// Rows are first compared by their sorted magnitudes divided by their sum: no permutation of
// inputs and no scale of rows changes these. Inputs are then compared by their magnitudes in
// matched rows, and rows again by matched inputs.
func (g *Weights) Match(base []float32) (rows, inputs []int) {
	ours, theirs := g.magnitudes(nil), g.magnitudes(base)
	sorted := func(m *mat.Dense) *mat.Dense {
		s := mat.DenseCopyOf(m)
		for k := range g.Rows {
			slices.Sort(s.RawRowView(k))
		}
		return s
	}
	rows = nearest(sorted(ours), sorted(theirs))
	byInput := g.byInput(ours, nil)
	for range 4 {
		inputs = nearest(byInput, g.byInput(theirs, rows))
		before := rows
		if rows = nearest(ours, g.byTerm(theirs, inputs)); slices.Equal(rows, before) {
			break
		}
	}
	return rows, inputs
}

// magnitudes returns |w| divided by its row's sum of them, for base, or for g if base is nil.
func (g *Weights) magnitudes(base []float32) *mat.Dense {
	m := mat.NewDense(g.Rows, g.Terms, nil)
	for k := range g.Rows {
		row, sum := m.RawRowView(k), 0.0
		for t := range row {
			if i := k*g.Terms + t; base != nil {
				row[t] = math.Abs(float64(base[i]))
			} else {
				row[t] = math.Abs(float64(g.W[i]))
			}
			sum += row[t]
		}
		for t := range row {
			row[t] /= max(sum, math.SmallestNonzeroFloat64)
		}
	}
	return m
}

// byInput returns one row per input (channel): its weights, kernel by kernel, in the given
// rows of m, or in all of them in order if rows is nil.
func (g *Weights) byInput(m *mat.Dense, rows []int) *mat.Dense {
	inputs := len(g.Column)
	each := g.Terms / inputs
	v := mat.NewDense(inputs, g.Rows*each, nil)
	for k := range g.Rows {
		from := k
		if rows != nil {
			from = rows[k]
		}
		for t := range g.Terms {
			v.Set(t%inputs, k*each+t/inputs, m.At(from, t))
		}
	}
	return v
}

// byTerm returns m with its inputs in the given order.
func (g *Weights) byTerm(m *mat.Dense, inputs []int) *mat.Dense {
	v := mat.NewDense(g.Rows, g.Terms, nil)
	for k := range g.Rows {
		for t := range g.Terms {
			v.Set(k, t, m.At(k, t-t%len(inputs)+inputs[t%len(inputs)]))
		}
	}
	return v
}

// nearest returns, for each row of a, the index of the row of b at the least Euclidean distance.
func nearest(a, b *mat.Dense) []int {
	var products mat.Dense
	products.Mul(a, b.T())
	n, _ := b.Dims()
	norms := make([]float64, n)
	for i := range norms {
		norms[i] = mat.Dot(b.RowView(i), b.RowView(i))
	}
	rows, _ := a.Dims()
	best := make([]int, rows)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	for k := range best {
		best[k] = slices.MinFunc(order, func(i, j int) int {
			return cmp.Compare(norms[i]-2*products.At(k, i), norms[j]-2*products.At(k, j))
		})
	}
	return best
}
