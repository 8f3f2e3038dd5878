package plan_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// small is a valid convolution that differs in every size.
func small() plan.Conv2D {
	return plan.Conv2D{
		H: 20, W: 30, C: 4, OutC: 6, KH: 3, KW: 5, SH: 2, SW: 3, DH: 4, DW: 2,
		Top: 1, Left: 2, Bot: 3, Right: 4, Groups: 2,
	}
}

// geometry draws a valid convolution of small sizes.
func geometry(t *rapid.T) plan.Conv2D {
	size := func(name string, low, high int) int { return rapid.IntRange(low, high).Draw(t, name) }
	g := size("groups", 1, 3)
	c := plan.Conv2D{
		C: g * size("c", 1, 3), OutC: g * size("outc", 1, 3), Groups: g,
		KH: size("kh", 1, 4), KW: size("kw", 1, 4), SH: size("sh", 1, 4), SW: size("sw", 1, 4), DH: size("dh", 1, 3), DW: size("dw", 1, 3),
	}
	kh, kw := c.DH*(c.KH-1)+1, c.DW*(c.KW-1)+1
	c.Top, c.Bot = size("top", 0, kh-1), size("bot", 0, kh-1)
	c.Left, c.Right = size("left", 0, kw-1), size("right", 0, kw-1)
	c.H = size("h", max(1, kh-c.Top-c.Bot), kh+9)
	c.W = size("w", max(1, kw-c.Left-c.Right), kw+9)
	return c
}

// slide counts the places at which a dilated kernel lies inside a padded line, by trying each.
func slide(line, before, after, kernel, stride, dilation int) int {
	n := 0
	for start := -before; ; start += stride {
		for k := range kernel {
			if at := start + k*dilation; at < -before || at >= line+after {
				return n
			}
		}
		n++
	}
}

func TestSizes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := geometry(t)
		op := plan.Conv(c)
		if err := op.Validate(); err != nil {
			t.Fatal(err)
		}
		h := slide(c.H, c.Top, c.Bot, c.KH, c.SH, c.DH)
		w := slide(c.W, c.Left, c.Right, c.KW, c.SW, c.DW)
		if c.OutH() != h || c.OutW() != w || c.Positions() != h*w {
			t.Fatalf("%+v: output %dx%d, want %dx%d", c, c.OutH(), c.OutW(), h, w)
		}
		// One multiply-add for each output, kernel element and channel of the group.
		var muladds int64
		for range h * w {
			for range c.OutC {
				muladds += int64(c.KH * c.KW * (c.C / c.Groups))
			}
		}
		if op.MulAdds() != muladds {
			t.Fatalf("%+v: %d multiply-adds, want %d", c, op.MulAdds(), muladds)
		}
		if op.InLen() != c.H*c.W*c.C || op.OutLen() != h*w*c.OutC || op.Rows() != c.OutC || op.Terms() != c.Patch() {
			t.Fatalf("%+v: in %d, out %d, weights %dx%d", c, op.InLen(), op.OutLen(), op.Rows(), op.Terms())
		}
	})
}

func TestDense(t *testing.T) {
	op := plan.Dense(784, 10)
	if op.InLen() != 784 || op.OutLen() != 10 || op.Rows() != 10 || op.Terms() != 784 || op.MulAdds() != 7840 {
		t.Errorf("%v: in %d, out %d, weights %dx%d, %d multiply-adds",
			op, op.InLen(), op.OutLen(), op.Rows(), op.Terms(), op.MulAdds())
	}
	if err := op.Validate(); err != nil {
		t.Error(err)
	}
}

// TestAsConv: a dense operator becomes a convolution of the same sizes, which AsConv keeps.
func TestAsConv(t *testing.T) {
	op := plan.Dense(784, 10)
	conv := plan.Conv(op.AsConv())
	if err := conv.Validate(); err != nil {
		t.Fatal(err)
	}
	if conv.InLen() != 784 || conv.OutLen() != 10 || conv.Rows() != 10 || conv.Terms() != 784 || conv.Conv.Positions() != 1 {
		t.Errorf("%v", conv)
	}
	if conv.AsConv() != conv.Conv {
		t.Errorf("%v became %v", conv, conv.AsConv())
	}
}

// TestLimits takes the largest operators in each dimension, and one step beyond.
func TestLimits(t *testing.T) {
	line := func(c plan.Conv2D) plan.Op { // sizes left out are 1
		for _, v := range []*int{&c.H, &c.W, &c.C, &c.OutC, &c.KH, &c.KW, &c.SH, &c.SW, &c.DH, &c.DW, &c.Groups} {
			*v = max(*v, 1)
		}
		return plan.Conv(c)
	}
	for name, test := range map[string]struct{ good, bad plan.Op }{
		"terms":        {plan.Dense(ring.MaxTerms, 1), plan.Dense(ring.MaxTerms+1, 1)},
		"outputs":      {plan.Dense(1, plan.MaxExtent), plan.Dense(1, plan.MaxExtent+1)},
		"weights":      {plan.Dense(1<<16, 1<<15), plan.Dense(1<<16, 1<<15+1)},
		"kernel":       {line(plan.Conv2D{H: 256, W: 256, KH: 256, KW: 256}), line(plan.Conv2D{H: 256, W: 257, KH: 256, KW: 257})},
		"map":          {line(plan.Conv2D{H: 1 << 16, W: 1 << 15}), line(plan.Conv2D{H: 1 << 16, W: 1<<15 + 1})},
		"channels":     {line(plan.Conv2D{C: 1 << 16}), line(plan.Conv2D{C: 1<<16 + 1})},
		"output map":   {line(plan.Conv2D{H: 1 << 16, OutC: 1 << 15}), line(plan.Conv2D{H: 1 << 16, OutC: 1<<15 + 1})},
		"dilation":     {line(plan.Conv2D{H: 11, KH: 6, DH: 2}), line(plan.Conv2D{H: 10, KH: 6, DH: 2})},
		"padding":      {line(plan.Conv2D{H: 5, KH: 3, Top: 2, Bot: 2}), line(plan.Conv2D{H: 5, KH: 3, Top: 3})},
		"padding, far": {line(plan.Conv2D{W: 5, KW: 3, Left: 2, Right: 2}), line(plan.Conv2D{W: 5, KW: 3, Right: 3})},
		"stride":       {line(plan.Conv2D{SH: math.MaxInt32, SW: math.MaxInt32}), line(plan.Conv2D{SH: math.MaxInt32 + 1})},
		"groups":       {line(plan.Conv2D{C: 1 << 20, OutC: 1 << 20, Groups: 1 << 20}), line(plan.Conv2D{C: 1 << 20, OutC: 1 << 20, Groups: 3})},
	} {
		if err := test.good.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := test.good.MulAdds(); n <= 0 {
			t.Errorf("%s: %d multiply-adds", name, n)
		}
		if err := test.bad.Validate(); !errors.Is(err, plan.ErrInvalid) {
			t.Errorf("%s: %v is taken: %v", name, test.bad, err)
		}
	}
}

// TestHostileSizes sets each size, and each pair of sizes, to values that overflow.
func TestHostileSizes(t *testing.T) {
	fields := func(c *plan.Conv2D) []*int {
		return []*int{&c.H, &c.W, &c.C, &c.OutC, &c.KH, &c.KW, &c.SH, &c.SW, &c.DH, &c.DW, &c.Top, &c.Left, &c.Bot, &c.Right, &c.Groups}
	}
	hostile := []int{
		math.MinInt64, math.MinInt64 + 1, math.MinInt32, -1, 0, 1, math.MaxInt32 - 1, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32,
		1 << 16, 1 << 21, 1 << 32, 1 << 33, 1 << 62, math.MaxInt64 - 1, math.MaxInt64,
	}
	var c plan.Conv2D
	for i := range fields(&c) {
		for j := range i + 1 {
			for _, a := range hostile {
				for _, b := range hostile {
					c = small()
					*fields(&c)[i], *fields(&c)[j] = a, b
					hold(t, plan.Conv(c))
				}
			}
		}
	}
	for _, a := range hostile {
		for _, b := range hostile {
			hold(t, plan.Dense(a, b))
		}
	}
}

// hold wants an operator to be refused with ErrInvalid, or to have the sizes that Validate
// promises. String must work in both cases.
func hold(t *testing.T, op plan.Op) {
	t.Helper()
	_ = op.String()
	if err := op.Validate(); err != nil {
		if !errors.Is(err, plan.ErrInvalid) {
			t.Errorf("%+v: %v", op, err)
		}
		return
	}
	for _, n := range []int{op.InLen(), op.OutLen(), op.Rows(), op.Terms(), op.Rows() * op.Terms()} {
		if n <= 0 || n > plan.MaxExtent {
			t.Errorf("%+v: valid, with a size of %d", op, n)
		}
	}
	if op.Terms() > ring.MaxTerms || op.MulAdds() <= 0 {
		t.Errorf("%+v: valid, with %d terms and %d multiply-adds", op, op.Terms(), op.MulAdds())
	}
}

func FuzzValidate(f *testing.F) {
	f.Add("dense", 784, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	f.Add("conv2d", 0, 0, 28, 28, 1, 16, 5, 5, 1, 1, 1, 1, 0, 0, 0, 0, 1)
	f.Add("conv2d", 0, 0, 20, 30, 4, 6, 3, 5, 2, 3, 4, 2, 1, 2, 3, 4, 2)
	f.Fuzz(func(t *testing.T, kind string, in, out, h, w, c, outC, kh, kw, sh, sw, dh, dw, top, left, bot, right, groups int) {
		hold(t, plan.Op{Kind: plan.Kind(kind), In: in, Out: out, Conv: plan.Conv2D{
			H: h, W: w, C: c, OutC: outC, KH: kh, KW: kw, SH: sh, SW: sw, DH: dh, DW: dw,
			Top: top, Left: left, Bot: bot, Right: right, Groups: groups,
		}})
	})
}

func TestKinds(t *testing.T) {
	for name, op := range map[string]plan.Op{
		"none":                   {},
		"unknown":                {Kind: plan.Kind(strings.Repeat("pool", 1000)), In: 1, Out: 1},
		"dense with convolution": {Kind: plan.KindDense, In: 1, Out: 1, Conv: small()},
		"convolution with dense": {Kind: plan.KindConv2D, In: 1, Out: 1, Conv: small()},
	} {
		err := op.Validate()
		if !errors.Is(err, plan.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		} else if len(err.Error()) > 200 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func TestString(t *testing.T) {
	for want, op := range map[string]plan.Op{
		"dense 784->10": plan.Dense(784, 10),
		"conv2d 28x28x1->24x24x16 kernel 5x5": plan.Conv(plan.Conv2D{
			H: 28, W: 28, C: 1, OutC: 16, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}),
	} {
		if got := op.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestPlan(t *testing.T) {
	many := make([]plan.Op, plan.MaxLayers+1)
	for i := range many {
		many[i] = plan.Dense(1, 1)
	}
	for name, test := range map[string]struct {
		plan plan.Plan
		ok   bool
	}{
		"one":      {plan.Plan{Ring: ring.Q4(), Ops: many[:1]}, true},
		"most":     {plan.Plan{Ring: ring.Q3(), Ops: many[:plan.MaxLayers]}, true},
		"too many": {plan.Plan{Ring: ring.Q4(), Ops: many}, false},
		"none":     {plan.Plan{Ring: ring.Q4()}, false},
		"no ring":  {plan.Plan{Ops: many[:1]}, false},
		"bad":      {plan.Plan{Ring: ring.Q4(), Ops: []plan.Op{plan.Dense(1, 1), plan.Dense(0, 1)}}, false},
	} {
		err := test.plan.Validate()
		if test.ok && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !test.ok && !errors.Is(err, plan.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
		if name == "bad" && !strings.Contains(err.Error(), "operator 1") {
			t.Errorf("%s: %v names no operator", name, err)
		}
	}
}
