// Package gonum is the backend that multiplies in float64 through gonum's BLAS. It is
// portable, simple, and the reference that other backends are compared with.
//
// The primes of the ring are taken in pairs, so that each modulus m is below 2^16. A sum
// of products of residues is then below MaxTerms·2^32 = 2^48 < 2^53: float64 holds it
// exactly, in any order of summation.
//
// Taking residues costs one division per word, whose time may depend on the word.
package gonum

import (
	"context"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// Backend implements kernels.Backend. gonum spreads a product over GOMAXPROCS goroutines.
type Backend struct{ kernels.Base }

var _ kernels.Backend = (*Backend)(nil)

// New opens the backend.
func New() *Backend {
	b := new(Backend)
	b.Init("gonum", load)
	return b
}

// A modulus is a divisor m of M, with its idempotent for the Chinese remainder theorem.
type modulus struct {
	m          uint32 // < 2^16
	idempotent uint32 // 1 mod m, 0 mod M/m
}

// moduli returns the products of the ring's primes, taken two by two.
func moduli(r ring.Ring) []modulus {
	primes := r.Primes()
	var ms []modulus
	for i := 0; i < len(primes); i += 2 {
		m := modulus{m: 1}
		unit := make([]uint8, len(primes))
		for j := i; j < min(i+2, len(primes)); j++ {
			m.m *= primes[j]
			unit[j] = 1
		}
		m.idempotent = r.Combine(unit)
		ms = append(ms, m)
	}
	return ms
}

// matrix is a loaded weight matrix: one image modulo each modulus.
type matrix struct {
	r      ring.Ring
	op     plan.Op
	groups int
	moduli []modulus
	images [][]float64
}

func load(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (kernels.Loaded, error) {
	m := &matrix{r: r, op: op, groups: 1, moduli: moduli(r)}
	if op.Kind == plan.KindConv2D {
		m.groups = op.Conv.Groups
	}
	for _, mod := range m.moduli {
		if err := ctx.Err(); err != nil {
			return kernels.Loaded{}, err
		}
		image := make([]float64, len(w.Data))
		mod.residues(image, w.Data)
		m.images = append(m.images, image)
	}
	return kernels.Loaded{
		Bytes:    8 * int64(len(m.moduli)) * int64(len(w.Data)),
		Evaluate: m.evaluate,
	}, nil
}

func (m modulus) residues(dst []float64, v []uint32) {
	for i, a := range v {
		dst[i] = float64(a % m.m)
	}
}

// A chunk of a product has at most chunkWords residues and as many sums, unless it is a
// single longer row.
const (
	chunkWords = 1 << 19
	chunkOuts  = 1 << 12
)

// evaluate computes y in chunks: some rows of the contraction (samples, or output positions
// of samples) by some weight rows of one group. It adds up the parts of the moduli.
func (m *matrix) evaluate(ctx context.Context, y, x ring.Matrix) error {
	rows, outs, terms := x.Rows, m.op.Rows(), m.op.Terms()
	if m.op.Kind == plan.KindConv2D {
		rows *= m.op.Conv.Positions()
	}
	groupOuts := outs / m.groups
	wide := min(groupOuts, chunkOuts)
	high := min(rows, max(1, chunkWords/max(terms, wide)))
	residues := make([]float64, high*terms)
	sums := make([]float64, high*wide)
	var patches []uint32
	if m.op.Kind == plan.KindConv2D {
		patches = make([]uint32, high*terms)
	}

	clear(y.Data)
	for i0 := 0; i0 < rows; i0 += high {
		n := min(high, rows-i0)
		a := blas64.General{Rows: n, Cols: terms, Stride: terms, Data: residues}
		for g := range m.groups {
			words := m.rows(patches, x, i0, n, g)
			for i, mod := range m.moduli {
				mod.residues(residues, words)
				for j0 := g * groupOuts; j0 < (g+1)*groupOuts; j0 += wide {
					if err := ctx.Err(); err != nil {
						return err
					}
					k := min(wide, (g+1)*groupOuts-j0)
					b := blas64.General{Rows: k, Cols: terms, Stride: terms, Data: m.images[i][j0*terms:]}
					c := blas64.General{Rows: n, Cols: k, Stride: k, Data: sums}
					blas64.Gemm(blas.NoTrans, blas.Trans, 1, a, b, 0, c)
					for s := range n {
						m.add(y.Data[(i0+s)*outs+j0:][:k], sums[s*k:], mod)
					}
				}
			}
		}
	}
	return nil
}

// rows returns rows [i0, i0 + n) of the contraction for group g: those of x, or patches made
// in buf.
func (m *matrix) rows(buf []uint32, x ring.Matrix, i0, n, g int) []uint32 {
	terms := m.op.Terms()
	if m.op.Kind == plan.KindDense {
		return x.Data[i0*terms : (i0+n)*terms]
	}
	c := &m.op.Conv
	positions, outW := c.Positions(), c.OutW()
	for i := range n {
		at := (i0 + i) % positions
		plan.Patch(buf[i*terms:][:terms], c, x.Row((i0+i)/positions), at/outW, at%outW, g)
	}
	return buf[:n*terms]
}

// add adds to y the part of mod in the Chinese remainder theorem: the sums, known modulo
// mod, times the idempotent.
func (m *matrix) add(y []uint32, sums []float64, mod modulus) {
	for i := range y {
		part := m.r.Mul(m.r.Reduce(int64(sums[i])), mod.idempotent) // sum < 2^48
		y[i] = m.r.Add(y[i], part)
	}
}
