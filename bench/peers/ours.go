package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

const oursPrefix = "securenets-"

// ours reports whether p is this project.
func (p peer) ours() bool { return strings.HasPrefix(p.name, oursPrefix) }

func init() {
	backend := cpu.New(cpu.Options{Threads: 1})
	for _, kernel := range []string{"q4", "small"} {
		register(peer{oursPrefix + kernel, backend.Tier(), func(s *shape) (product, error) { return newEvaluation(backend, s, kernel == "small") }})
	}
	register(peer{"gonum-dgemm", "v0.17.0", func(s *shape) (product, error) {
		p := s.float64s()
		p.run = func() error {
			var g gonum.Implementation
			if s.n == 1 {
				g.Dgemv(blas.NoTrans, s.m, s.k, 1, p.w, s.k, p.x, 1, 0, p.y, 1)
			} else {
				g.Dgemm(blas.NoTrans, blas.NoTrans, s.m, s.n, s.k, 1, p.w, s.k, p.x, s.n, 0, p.y, s.n)
			}
			return nil
		}
		return p, nil
	}})
}

// evaluation is a product over Z_M by this project's backend.
type evaluation struct {
	shape   *shape
	ring    ring.Ring
	loaded  plan.Product
	w, x, y ring.Matrix
}

// newEvaluation draws words, of weights those that lift to signed bytes if small.
func newEvaluation(b kernels.Backend, s *shape, small bool) (*evaluation, error) {
	r, rng := ring.Q4(), rand.New(rand.NewPCG(1, 2))
	e := &evaluation{
		shape: s, ring: r,
		w: ring.NewMatrix(s.m, s.k), x: ring.NewMatrix(s.batch, s.op.InLen()), y: ring.NewMatrix(s.batch, s.op.OutLen()),
	}
	for i := range e.w.Data {
		e.w.Data[i] = rng.Uint32N(r.Modulus())
		if small {
			e.w.Data[i] = r.FromSigned(int32(int8(e.w.Data[i])))
		}
	}
	for i := range e.x.Data {
		e.x.Data[i] = rng.Uint32N(r.Modulus())
	}
	var err error
	e.loaded, err = b.Load(context.Background(), r, s.op, e.w)
	return e, err
}

func (e *evaluation) multiply() error { return e.loaded.Evaluate(context.Background(), e.y, e.x) }

func (e *evaluation) close() error { return e.loaded.Close() }

func (e *evaluation) check(rng *rand.Rand) error {
	clear(e.y.Data)
	if err := e.multiply(); err != nil {
		return err
	}
	patch := make([]uint32, e.shape.k)
	for range 100 {
		row, at, sample := rng.IntN(e.shape.m), rng.IntN(e.shape.n/e.shape.batch), rng.IntN(e.shape.batch)
		if c := &e.shape.op.Conv; e.shape.op.Kind == plan.KindDense {
			copy(patch, e.x.Row(sample))
		} else {
			plan.Patch(patch, c, e.x.Row(sample), at/c.OutW(), at%c.OutW(), 0)
		}
		want := uint32(0)
		for k, w := range e.w.Row(row) {
			want = e.ring.Add(want, e.ring.Mul(w, patch[k]))
		}
		if got := e.y.Row(sample)[at*e.shape.m+row]; got != want {
			return fmt.Errorf("sample %d, position %d, row %d is %d, want %d", sample, at, row, got, want)
		}
	}
	return nil
}
