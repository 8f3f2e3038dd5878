package kernels

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"sync"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// ErrWrong reports a backend whose product is not the exact one.
var ErrWrong = errors.New("kernels: wrong product")

// selfTest is an operator with operands and their product.
type selfTest struct {
	op         plan.Op
	w, x, want ring.Matrix
}

// selfTests are a small dense operator and small convolutions, made once: a machine with many
// devices tests each, on each of its paths.
var selfTests = sync.OnceValue(func() []selfTest {
	r := ring.Q4()
	rng := rand.New(rand.NewPCG(0, 0)) // a test needs no secrets
	var tests []selfTest
	for _, op := range []plan.Op{
		plan.Dense(301, 67),
		plan.Conv(plan.Conv2D{
			H: 11, W: 9, C: 6, OutC: 10, KH: 3, KW: 2, SH: 2, SW: 1, DH: 1, DW: 2,
			Top: 1, Left: 0, Bot: 2, Right: 1, Groups: 2,
		}),
		plan.Conv(plan.Conv2D{ // with as many channels as vectors have bytes
			H: 4, W: 5, C: 32, OutC: 6, KH: 2, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Left: 1, Bot: 1, Groups: 2,
		}),
		plan.Conv(plan.Conv2D{ // with channels that a device may fill up
			H: 7, W: 5, C: 48, OutC: 9, KH: 3, KW: 2, SH: 2, SW: 1, DH: 1, DW: 2, Top: 2, Right: 1, Groups: 1,
		}),
		plan.Conv(plan.Conv2D{ // and ones with few and with many
			H: 4, W: 3, C: 16, OutC: 5, KH: 2, KW: 3, SH: 1, SW: 2, DH: 1, DW: 1, Left: 1, Bot: 1, Groups: 1,
		}),
		plan.Conv(plan.Conv2D{
			H: 3, W: 4, C: 128, OutC: 3, KH: 2, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Right: 1, Groups: 1,
		}),
	} {
		w, x := ring.NewMatrix(op.Rows(), op.Terms()), ring.NewMatrix(5, op.InLen())
		for _, m := range []ring.Matrix{w, x} {
			for i := range m.Data {
				m.Data[i] = rng.Uint32N(r.Modulus())
			}
		}
		for i := range op.Terms() { // the largest sum
			w.Data[i], x.Data[i] = r.Modulus()-1, r.Modulus()-1
		}
		tests = append(tests, selfTest{op, w, x, Direct(r, op, w, x)})
	}
	return tests
})

// SelfTest loads and evaluates a small dense operator and small convolutions on b and
// compares every word. It returns an error wrapping ErrWrong if one differs. A daemon
// runs it on each backend before it serves.
func SelfTest(ctx context.Context, b Backend) error {
	for _, t := range selfTests() {
		y := ring.NewMatrix(t.want.Rows, t.want.Cols)
		if err := evaluateOnce(ctx, b, ring.Q4(), t.op, t.w, y, t.x); err != nil {
			return fmt.Errorf("kernels: self-test of %s: %w", b.Name(), err)
		}
		for i, want := range t.want.Data {
			if y.Data[i] != want {
				return fmt.Errorf("%w: %s computes %v wrongly at word %d", ErrWrong, b.Name(), t.op, i)
			}
		}
	}
	return nil
}

func evaluateOnce(ctx context.Context, b Backend, r ring.Ring, op plan.Op, w, y, x ring.Matrix) error {
	p, err := b.Load(ctx, r, op, w)
	if err != nil {
		return err
	}
	return errors.Join(p.Evaluate(ctx, y, x), p.Close())
}

// Direct returns y = W x, with one row per row of x, by the definition of op: every sum as an
// integer, reduced once. Backends are compared with it. The arguments must be ones that a
// backend would accept.
func Direct(r ring.Ring, op plan.Op, w, x ring.Matrix) ring.Matrix {
	c := op.AsConv()
	y := ring.NewMatrix(x.Rows, op.OutLen())
	depth, width := c.C/c.Groups, c.OutC/c.Groups
	at := 0
	for s := range x.Rows {
		for p := range c.OutH() {
			for q := range c.OutW() {
				for o := range c.OutC {
					y.Data[at] = position(r, &c, w.Row(o), x.Row(s), p, q, o/width*depth)
					at++
				}
			}
		}
	}
	return y
}

// position returns the output at row p and column q for weights w, which read the channels
// from first on.
func position(r ring.Ring, c *plan.Conv2D, w, x []uint32, p, q, first int) uint32 {
	depth := c.C / c.Groups
	var hi, lo uint64 // the sum of at most ring.MaxTerms terms below 2^64
	for a := range c.KH {
		h := p*c.SH + a*c.DH - c.Top
		for b := range c.KW {
			v := q*c.SW + b*c.DW - c.Left
			if h < 0 || h >= c.H || v < 0 || v >= c.W {
				continue
			}
			words := x[(h*c.W+v)*c.C+first:][:depth]
			for i, e := range w[(a*c.KW+b)*depth:][:depth] {
				var carry uint64
				lo, carry = bits.Add64(lo, uint64(e)*uint64(words[i]), 0)
				hi += carry
			}
		}
	}
	return uint32(bits.Rem64(hi, lo, uint64(r.Modulus())))
}
