package gonum

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/kerneltest"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(testing.TB) kernels.Backend { return New() }

func TestConformance(t *testing.T) { kerneltest.Run(t, open) }

func BenchmarkEvaluate(b *testing.B) { kerneltest.Bench(b, open) }

// TestModuli: the moduli are coprime divisors of M below 2^16, their product is M, and the
// idempotents are 1 modulo their own modulus and 0 modulo the others.
func TestModuli(t *testing.T) {
	for _, primes := range [][]uint32{{251, 241, 239, 233}, {251, 241, 239}, {3, 5}, {3}, {251}, {3, 5, 7, 11}} {
		r, err := ring.New(primes...)
		if err != nil {
			t.Fatal(err)
		}
		product, sum := uint64(1), uint32(0)
		for _, mod := range moduli(r) {
			product *= uint64(mod.m)
			sum = r.Add(sum, mod.idempotent)
			if mod.m >= 1<<16 {
				t.Errorf("%v: modulus %d", r, mod.m)
			}
			if e := mod.idempotent; e%mod.m != 1 || e%(r.Modulus()/mod.m) != 0 && mod.m != r.Modulus() {
				t.Errorf("%v: %d is not the idempotent of %d", r, e, mod.m)
			}
			if top := float64(ring.MaxTerms) * float64(mod.m-1) * float64(mod.m-1); top >= 1<<53 {
				t.Errorf("%v: a sum of %g", r, top)
			}
		}
		if product != uint64(r.Modulus()) || sum != 1%r.Modulus() {
			t.Errorf("%v: product of the moduli %d, sum of the idempotents %d", r, product, sum)
		}
	}
}

// countdown is a context that is done after a number of looks at it.
type countdown struct {
	context.Context
	looks int
}

func (c *countdown) Err() error {
	if c.looks--; c.looks < 0 {
		return context.Canceled
	}
	return nil
}

// TestCancelBetweenChunks: a call that is cancelled while it runs stops at the next chunk.
func TestCancelBetweenChunks(t *testing.T) {
	b := New()
	op := plan.Dense(1, 3*chunkOuts)
	p, err := b.Load(t.Context(), ring.Q3(), op, ring.NewMatrix(op.Out, op.In))
	if err != nil {
		t.Fatal(err)
	}
	for looks := range 7 { // one before the first chunk, and one for each of 3 chunks by 2 moduli
		err := p.Evaluate(&countdown{t.Context(), looks}, ring.NewMatrix(1, op.Out), ring.NewMatrix(1, op.In))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("done after %d looks: error %v", looks, err)
		}
	}
	if err := p.Evaluate(&countdown{t.Context(), 7}, ring.NewMatrix(1, op.Out), ring.NewMatrix(1, op.In)); err != nil {
		t.Error(err)
	}
}
