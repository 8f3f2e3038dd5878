package cpu

import (
	"math/bits"

	"github.com/securenets/securenets/internal/ring"
)

// portable is the tier in plain Go. A scalar processor multiplies 64 bits as
// fast as 8, so it takes whole words and not their residues: a product in the
// ring is one multiply, where it would be one for each pair of residues, and a
// sum is reduced once. On one core that is 2.6 against 1.2 GMAC/s for residues
// modulo two primes at a time, or for two 8-bit lanes to a multiply.
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
	var lo, hi [tileRows * lanes]uint64
	var sums [tileRows * lanes]uint32
	for p := from; p < to; p++ {
		panel := w.panels[p*w.terms:][:w.terms]
		for i := range x.Rows {
			at := i * lanes
			lo[at], hi[at], lo[at+1], hi[at+1], lo[at+2], hi[at+2], lo[at+3], hi[at+3] = dot(panel, x.Row(i))
		}
		n := x.Rows * lanes
		w.r.ReduceSums(sums[:n], hi[:n], lo[:n])
		col, width := (p-from)*lanes, min(lanes, w.rows-p*lanes)
		for i := range x.Rows {
			copy(y[i*stride+col:][:width], sums[i*lanes:])
		}
	}
}

// dot returns Σ_k panel[k][j]·x[k] = hij·2^64 + loj, for j = 0 to 3.
func dot(panel [][lanes]uint32, x []uint32) (lo0, hi0, lo1, hi1, lo2, hi2, lo3, hi3 uint64) {
	panel = panel[:len(x)]
	// A sum is at most MaxTerms·(M-1)^2 < 2^16·2^64, so hi < 2^16.
	var carry uint64
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
	return
}
