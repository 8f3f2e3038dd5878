package cpu

import (
	"context"
	"math/bits"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// portable is the tier in plain Go. A scalar processor multiplies 64 bits as fast as 8, so
// this tier multiplies words and not residues: a product in the ring takes one instruction
// in place of one per modulus, and a sum is reduced once. On one core that gives 2.6 GMAC/s,
// against 1.2 for residues modulo two primes at a time, or for two 8-bit lanes in one
// multiply.
var portable = tier{"portable", packWords}

const lanes = 4

// The size of a block of staged positions. It is read again for every panel and should stay
// in a cache of 256 KiB.
const (
	blockWords     = 1 << 15
	blockPositions = 64
)

// words holds panels of terms entries each, one after the other, group by group. Entry k of
// panel p of a group is column k of the group's weight rows 4p to 4p + 3.
type words struct {
	r        ring.Ring
	op       plan.Op
	groups   int
	rows     int // weight rows of a group
	terms    int
	perGroup int // panels
	packed   [][lanes]uint32
}

func packWords(r ring.Ring, op plan.Op, w ring.Matrix) weights {
	groups := op.AsConv().Groups
	rows := w.Rows / groups
	p := &words{r: r, op: op, groups: groups, rows: rows, terms: w.Cols, perGroup: (rows + lanes - 1) / lanes}
	p.packed = make([][lanes]uint32, p.panels()*p.terms)
	for j := range w.Rows {
		g, in := j/rows, j%rows
		panel, lane := p.panel(g*p.perGroup+in/lanes), in%lanes
		for k, a := range w.Row(j) {
			panel[k][lane] = a
		}
	}
	return p
}

func (w *words) panel(i int) [][lanes]uint32 { return w.packed[i*w.terms:][:w.terms] }

func (w *words) bytes() int64 { return int64(len(w.packed)) * lanes * 4 }

func (w *words) panels() int { return w.groups * w.perGroup }

func (w *words) high() int { return min(blockPositions, max(1, blockWords/w.terms)) }

// take stages the rows of a dense operator as they are, and the patches of a
// convolution one after the other, group by group.
func (w *words) take(s *scratch, x ring.Matrix, i0, i1 int) {
	if w.op.Kind == plan.KindDense {
		s.words = x.RowRange(i0, i1)
		return
	}
	c := &w.op.Conv
	n := i1 - i0
	if size := w.groups * n * w.terms; cap(s.patches) < size {
		s.patches = make([]uint32, size)
	}
	s.words = ring.Matrix{Rows: w.groups * n, Cols: w.terms, Data: s.patches[:w.groups*n*w.terms]}
	positions, width := c.Positions(), c.OutW()
	for g := range w.groups {
		for i := range n {
			at := (i0 + i) % positions
			plan.Patch(s.words.Row(g*n+i), c, x.Row((i0+i)/positions), at/width, at%width, g)
		}
	}
}

func (w *words) multiply(ctx context.Context, s *scratch, y []uint32, from, to int) {
	var lo, hi [blockPositions * lanes]uint64
	var sums [blockPositions * lanes]uint32
	n, stride := s.words.Rows/w.groups, w.groups*w.rows
	for panel := from; panel < to && ctx.Err() == nil; panel++ {
		g, p := panel/w.perGroup, panel%w.perGroup
		packed := w.panel(panel)
		for i := range n {
			at := i * lanes
			lo[at], hi[at], lo[at+1], hi[at+1], lo[at+2], hi[at+2], lo[at+3], hi[at+3] = dot(packed, s.words.Row(g*n+i))
		}
		w.r.ReduceSums(sums[:n*lanes], hi[:n*lanes], lo[:n*lanes])
		col, width := g*w.rows+p*lanes, min(lanes, w.rows-p*lanes)
		for i := range n {
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
