package cpu

import (
	"math/bits"

	"github.com/securenets/securenets/internal/ring"
)

// portable is the tier in plain Go. A scalar processor multiplies 64 bits as
// fast as 8, so it takes whole words and not their residues: one multiply for
// each product in the ring, where a pair of residues to a multiply would take
// two, and one reduction for each sum. The sum is exact in 128 bits.
var portable = tier{lanes: lanes, pack: packWords}

const lanes = 4

// words holds panels one after the other, k entries each: entry (p, k) is
// column k of weight rows 4p to 4p + 3.
type words struct {
	r      ring.Ring
	rows   int
	terms  int
	panels [][lanes]uint32
}

func packWords(r ring.Ring, w ring.Matrix) weights {
	n := (w.Rows + lanes - 1) / lanes
	p := &words{r: r, rows: w.Rows, terms: w.Cols, panels: make([][lanes]uint32, n*w.Cols)}
	for j := range w.Rows {
		panel, lane := p.panels[j/lanes*w.Cols:][:w.Cols], j%lanes
		for k, a := range w.Row(j) {
			panel[k][lane] = a
		}
	}
	return p
}

func (w *words) bytes() int64 { return int64(len(w.panels)) * lanes * 4 }

func (w *words) multiply(y []uint32, stride int, x ring.Matrix, from, to int) {
	for p := from; p < to; p++ {
		panel := w.panels[p*w.terms:][:w.terms]
		col := (p - from) * lanes
		n := min(lanes, w.rows-p*lanes)
		for i := range x.Rows {
			var out [lanes]uint32
			lo, hi := dot(panel, x.Row(i))
			w.r.ReduceSums(out[:], hi[:], lo[:])
			copy(y[i*stride+col:][:n], out[:])
		}
	}
}

// dot returns Σ_k panel[k][j]·x[k] = hi[j]·2^64 + lo[j].
func dot(panel [][lanes]uint32, x []uint32) (lo, hi [lanes]uint64) {
	panel = panel[:len(x)]
	// A sum is at most MaxTerms·(M-1)^2 < 2^16·2^64, so hi < 2^16.
	// Eight variables, since an array would live in memory.
	var lo0, hi0, lo1, hi1, lo2, hi2, lo3, hi3, carry uint64
	for k, word := range x {
		a, b := uint64(word), &panel[k]
		lo0, carry = bits.Add64(lo0, a*uint64(b[0]), 0)
		hi0, _ = bits.Add64(hi0, 0, carry)
		lo1, carry = bits.Add64(lo1, a*uint64(b[1]), 0)
		hi1, _ = bits.Add64(hi1, 0, carry)
		lo2, carry = bits.Add64(lo2, a*uint64(b[2]), 0)
		hi2, _ = bits.Add64(hi2, 0, carry)
		lo3, carry = bits.Add64(lo3, a*uint64(b[3]), 0)
		hi3, _ = bits.Add64(hi3, 0, carry)
	}
	return [lanes]uint64{lo0, lo1, lo2, lo3}, [lanes]uint64{hi0, hi1, hi2, hi3}
}
