package kerneltest_test

import (
	"context"
	"errors"
	"flag"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/kerneltest"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

var faultName = flag.String("fault", "", "the `name` of a fault for TestBig's backend")

// TestBig runs the suite on a backend with math/big, an independent check of the suite's
// own reference and digest. With -fault it must fail.
func TestBig(t *testing.T) {
	if testing.Short() {
		t.Skip("independent of build tags and of the race detector")
	}
	f, ok := faults[*faultName]
	if *faultName != "" && !ok {
		t.Fatalf("no fault %q", *faultName)
	}
	kerneltest.Run(t, func(testing.TB) kernels.Backend { return openBig(f) })
}

// TestFaults runs one test of the suite for each fault and wants it to fail. It runs in a
// process of its own, as a test that must fail cannot be a subtest.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("independent of build tags and of the race detector")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test := faults[name].caughtBy
			out, err := exec.Command(self, "-test.run=^TestBig$/^"+test+"$", "-fault="+name).CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !strings.Contains(string(out), "--- FAIL: TestBig/"+test) {
				t.Errorf("%s does not fail as a test: %v\n%s", test, err, out)
			}
		})
	}
}

// backend is math/big behind kernels.Backend, with a fault.
type backend struct {
	kernels.Base
	fault fault
}

func openBig(f fault) *backend {
	b := &backend{fault: f}
	b.Init("big", b.load)
	return b
}

func (b *backend) load(_ context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (kernels.Loaded, error) {
	own := w
	if !b.fault.keepsWeights {
		own.Data = slices.Clone(w.Data)
	}
	evaluate := b.fault.evaluate
	if evaluate == nil {
		evaluate = func(c call) { c.multiply() }
	}
	return kernels.Loaded{
		Bytes: int64(4 * len(w.Data)),
		Evaluate: func(ctx context.Context, y, x ring.Matrix) error {
			evaluate(call{r: r, op: op, w: own, x: x, y: y})
			return nil
		},
	}, nil
}

// call is one Evaluate.
type call struct {
	r       ring.Ring
	op      plan.Op
	w, x, y ring.Matrix
	wrap    uint // sums wrap at 2^wrap, if not 0
}

// multiply sets y by the definition of the operator.
func (c call) multiply() {
	var sum, a, b, product big.Int
	m := big.NewInt(int64(c.r.Modulus()))
	// dot returns Σ w[o, k]·x[s, at(k)], without the terms where at is negative.
	dot := func(o, s int, at func(k int) int) uint32 {
		sum.SetInt64(0)
		for k := range c.w.Cols {
			if i := at(k); i >= 0 {
				a.SetUint64(uint64(c.w.At(o, k)))
				b.SetUint64(uint64(c.x.At(s, i)))
				sum.Add(&sum, product.Mul(&a, &b))
			}
		}
		if c.wrap != 0 {
			sum.And(&sum, a.Sub(a.Lsh(big.NewInt(1), c.wrap), big.NewInt(1)))
		}
		return uint32(sum.Mod(&sum, m).Uint64())
	}
	g := c.op.Conv
	for s := range c.x.Rows {
		row := c.y.Row(s)
		if c.op.Kind == plan.KindDense {
			for o := range row {
				row[o] = dot(o, s, func(k int) int { return k })
			}
			continue
		}
		for n := range row {
			o, q, p := n%g.OutC, n/g.OutC%g.OutW(), n/g.OutC/g.OutW()
			depth, group := g.C/g.Groups, o/(g.OutC/g.Groups)
			row[n] = dot(o, s, func(k int) int {
				h := p*g.SH + k/depth/g.KW*g.DH - g.Top
				v := q*g.SW + k/depth%g.KW*g.DW - g.Left
				if h < 0 || h >= g.H || v < 0 || v >= g.W {
					return -1
				}
				return (h*g.W+v)*g.C + group*depth + k%depth
			})
		}
	}
}

// A fault is an error of a backend.
type fault struct {
	caughtBy     string // a test of the suite
	evaluate     func(c call)
	keepsWeights bool
}

// after computes the right product, then spoils it.
func after(spoil func(c call)) func(c call) {
	return func(c call) {
		c.multiply()
		spoil(c)
	}
}

// with multiplies with a changed operator or operands.
func with(change func(c *call)) func(c call) {
	return func(c call) {
		c.w.Data, c.x.Data = slices.Clone(c.w.Data), slices.Clone(c.x.Data)
		change(&c)
		c.multiply()
	}
}

// last removes the last term of every sum.
func last(c *call) {
	for o := range c.w.Rows {
		c.w.Row(o)[c.w.Cols-1] = 0
	}
}

var faults = map[string]fault{
	"one word off by one": {caughtBy: "Digest", evaluate: after(func(c call) {
		i := len(c.y.Data) / 2
		c.y.Data[i] = c.r.Add(c.y.Data[i], 1)
	})},
	"one word of a big product off by one": {caughtBy: "Tiles", evaluate: after(func(c call) {
		if i := len(c.y.Data) - 1; i > 5000 {
			c.y.Data[i] = c.r.Sub(c.y.Data[i], 1)
		}
	})},
	"no reduction": {caughtBy: "Extremes", evaluate: after(func(c call) {
		if c.y.Data[0] == 0 {
			c.y.Data[0] = c.r.Modulus()
		}
	})},
	"last term missing":   {caughtBy: "Operators", evaluate: with(last)},
	"last output missing": {caughtBy: "Operators", evaluate: after(func(c call) { c.y.Data[len(c.y.Data)-1] = 0 })},
	"outputs in fours":    {caughtBy: "Tails", evaluate: after(func(c call) { clear(c.y.Data[len(c.y.Data)/4*4:]) })},
	"terms in sixteens":   {caughtBy: "Tails", evaluate: with(func(c *call) { clear(c.x.Row(0)[c.x.Cols/16*16:]) })},
	"at most 65,535 terms": {caughtBy: "LongestSum", evaluate: with(func(c *call) {
		if c.w.Cols > 65535 {
			last(c)
		}
	})},
	"sum in 64 bits":          {caughtBy: "LongestSum", evaluate: with(func(c *call) { c.wrap = 64 })},
	"sum in 79 bits":          {caughtBy: "LongestSum", evaluate: with(func(c *call) { c.wrap = 79 })},
	"self-test, sum in 64":    {caughtBy: "SelfTest", evaluate: with(func(c *call) { c.wrap = 64 })},
	"self-test, no padding":   {caughtBy: "SelfTest", evaluate: with(func(c *call) { c.op.Conv.Top = 0 })},
	"padding below for above": {caughtBy: "Operators", evaluate: with(func(c *call) { g := &c.op.Conv; g.Top, g.Bot = g.Bot, g.Top })},
	"padding right for left":  {caughtBy: "Operators", evaluate: with(func(c *call) { g := &c.op.Conv; g.Left, g.Right = g.Right, g.Left })},
	"no dilation": {caughtBy: "Operators", evaluate: with(func(c *call) {
		g := &c.op.Conv
		g.Bot -= (g.DH - 1) * (g.KH - 1) // the output stays as high
		g.DH = min(1, g.DH)
	})},
	"every group reads the first": {caughtBy: "Operators", evaluate: with(func(c *call) {
		if g := c.op.Conv; g.Groups > 1 {
			for i := range c.x.Data {
				c.x.Data[i] = c.x.Data[i/g.C*g.C+i%g.C%(g.C/g.Groups)]
			}
		}
	})},
	"kernel mirrored": {caughtBy: "Operators", evaluate: with(func(c *call) {
		if c.op.Kind == plan.KindConv2D {
			for o := range c.w.Rows {
				slices.Reverse(c.w.Row(o))
			}
		}
	})},
	"odd rows like even ones": {caughtBy: "Batch", evaluate: after(func(c call) {
		for i := 1; i < c.y.Rows; i += 2 {
			copy(c.y.Row(i), c.y.Row(i-1))
		}
	})},
	"y added to": {caughtBy: "Memory", evaluate: func(c call) {
		old := slices.Clone(c.y.Data)
		c.multiply()
		for i := range old {
			c.y.Data[i] += old[i]
		}
	}},
	"x changed":          {caughtBy: "Memory", evaluate: after(func(c call) { c.x.Data[0] ^= 1 })},
	"word past y":        {caughtBy: "Memory", evaluate: after(func(c call) { c.y.Data[:len(c.y.Data)+1][len(c.y.Data)] = 0 })},
	"w kept":             {caughtBy: "Memory", keepsWeights: true},
	"one call at a time": {caughtBy: "Concurrent", evaluate: alone()},
}

// alone gives a fault that shows only in concurrent calls.
func alone() func(c call) {
	var running atomic.Int32
	return func(c call) {
		busy := running.Add(1) > 1
		time.Sleep(time.Millisecond) // so that another call comes in between, even on one processor
		c.multiply()
		busy = busy || running.Load() > 1
		running.Add(-1)
		if busy {
			clear(c.y.Data)
		}
	}
}
