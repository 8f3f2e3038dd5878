package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/internal/cpuid/tiertest"
	"github.com/securenets/securenets/plan"
)

var ops = []struct {
	name string
	op   plan.Op
}{
	{"dense 1x1", plan.Dense(1, 1)},
	{"dense 7->3", plan.Dense(7, 3)},
	{"dense 65->129", plan.Dense(65, 129)},
	{"dense 259->301", plan.Dense(259, 301)}, // several goroutines
	{"conv 1x1", plan.Conv(plan.Conv2D{H: 3, W: 4, C: 5, OutC: 2, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1})},
	{"conv stride", plan.Conv(plan.Conv2D{H: 7, W: 8, C: 3, OutC: 4, KH: 3, KW: 3, SH: 2, SW: 3, DH: 1, DW: 1, Groups: 1})},
	{"conv one-sided padding", plan.Conv(plan.Conv2D{H: 6, W: 6, C: 2, OutC: 3, KH: 3, KW: 3, SH: 2, SW: 1, DH: 1, DW: 1, Top: 1, Left: 2, Right: 1, Groups: 1})},
	{"conv dilation", plan.Conv(plan.Conv2D{H: 9, W: 9, C: 2, OutC: 2, KH: 3, KW: 2, SH: 1, SW: 2, DH: 2, DW: 3, Top: 2, Bot: 3, Left: 1, Right: 2, Groups: 1})},
	{"conv groups", plan.Conv(plan.Conv2D{H: 5, W: 5, C: 6, OutC: 9, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Left: 1, Bot: 1, Right: 1, Groups: 3})},
	{"conv depthwise", plan.Conv(plan.Conv2D{H: 5, W: 4, C: 7, OutC: 7, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Left: 1, Bot: 1, Right: 1, Groups: 7})},
	{"conv of many channels", plan.Conv(plan.Conv2D{H: 5, W: 4, C: 70, OutC: 67, KH: 3, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Right: 1, Groups: 1})},
	{"conv of large groups", plan.Conv(plan.Conv2D{H: 3, W: 4, C: 130, OutC: 66, KH: 2, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Left: 1, Groups: 2})},
	{"conv stride past the map", plan.Conv(plan.Conv2D{H: 8, W: 8, C: 1, OutC: 2, KH: 3, KW: 3, SH: 4, SW: 4, DH: 1, DW: 1, Groups: 1})},
}

func fields(t testing.TB) []Field {
	t.Helper()
	small, err := NewField(17)
	if err != nil {
		t.Fatal(err)
	}
	return []Field{DefaultField(), small}
}

// terms calls do for every product w·x in an output's sum, by the definition in package plan,
// with the places of the output, the weight and the input.
func terms(op plan.Op, do func(out, w, in int)) {
	if op.Kind == plan.KindDense {
		for o := range op.Out {
			for i := range op.In {
				do(o, o*op.In+i, i)
			}
		}
		return
	}
	c := op.Conv
	cg := c.C / c.Groups
	for p := range c.OutH() {
		for q := range c.OutW() {
			for o := range c.OutC {
				g := o / (c.OutC / c.Groups)
				for a := range c.KH {
					for b := range c.KW {
						for i := range cg {
							h, v := p*c.SH+a*c.DH-c.Top, q*c.SW+b*c.DW-c.Left
							if h < 0 || h >= c.H || v < 0 || v >= c.W {
								continue
							}
							do((p*c.OutW()+q)*c.OutC+o, o*op.Terms()+(a*c.KW+b)*cg+i, (h*c.W+v)*c.C+g*cg+i)
						}
					}
				}
			}
		}
	}
}

// product computes W x over the integers.
func product(op plan.Op, w, x []int32) []*big.Int {
	y := make([]*big.Int, op.OutLen())
	for i := range y {
		y[i] = new(big.Int)
	}
	terms(op, func(out, wi, in int) {
		y[out].Add(y[out], new(big.Int).Mul(big.NewInt(int64(w[wi])), big.NewInt(int64(x[in]))))
	})
	return y
}

// signed returns n integers of at most most in magnitude, or any int32 if most is 0, with the
// extremes among them.
func signed(rng *mathrand.Rand, n int, most int64) []int32 {
	lo, hi := -most, most
	if most == 0 {
		lo, hi = math.MinInt32, math.MaxInt32
	}
	v := make([]int32, n)
	for i := range v {
		switch rng.IntN(8) {
		case 0:
			v[i] = int32(lo)
		case 1:
			v[i] = int32(hi)
		case 2: // zero
		default:
			v[i] = int32(lo + rng.Int64N(hi-lo+1))
		}
	}
	return v
}

func elements(rng *mathrand.Rand, f Field, n int) []uint64 {
	v := make([]uint64, n)
	for i := range v {
		if v[i] = rng.Uint64N(f.p); rng.IntN(4) == 0 {
			v[i] = f.p - 1
		}
	}
	return v
}

func bigDot(f Field, a []uint64, y []*big.Int) uint64 {
	p, s := new(big.Int).SetUint64(f.p), new(big.Int)
	for i, e := range a {
		s.Add(s, new(big.Int).Mul(new(big.Int).SetUint64(e), y[i]))
	}
	return s.Mod(s, p).Uint64()
}

func bigs(v []int32) []*big.Int {
	out := make([]*big.Int, len(v))
	for i, e := range v {
		out[i] = big.NewInt(int64(e))
	}
	return out
}

func TestNewField(t *testing.T) {
	for _, p := range []uint64{3, 5, 17, 65537, 1<<31 - 1, 1<<52 - 47} {
		f, err := NewField(p)
		if err != nil || f.P() != p {
			t.Errorf("NewField(%d) = %v, %v", p, f, err)
		}
	}
	// 1<<52 + 21 is a prime too large.
	for _, p := range []uint64{0, 1, 2, 4, 9, 15, 1<<52 - 1, 1 << 52, 1<<52 + 21, 1<<61 - 1, math.MaxUint64} {
		if _, err := NewField(p); !errors.Is(err, ErrField) {
			t.Errorf("NewField(%d): error %v, want ErrField", p, err)
		}
	}
	if f, err := NewField(DefaultField().P()); err != nil || f != DefaultField() {
		t.Errorf("the default is not a field: %v", err)
	}
}

func TestFieldArithmetic(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(1, 1))
	for _, f := range fields(t) {
		p := new(big.Int).SetUint64(f.p)
		for range 2000 {
			e := elements(rng, f, 2)
			a, b := new(big.Int).SetUint64(e[0]), new(big.Int).SetUint64(e[1])
			if got, want := f.sub(e[0], e[1]), new(big.Int).Sub(a, b); got != want.Mod(want, p).Uint64() {
				t.Fatalf("%d - %d mod %d = %d", e[0], e[1], f.p, got)
			}
			if got, want := f.add(e[0], e[1]), new(big.Int).Add(a, b); got != want.Mod(want, p).Uint64() {
				t.Fatalf("%d + %d mod %d = %d", e[0], e[1], f.p, got)
			}
			if got, want := f.mul(e[0], e[1]), new(big.Int).Mul(a, b); got != want.Mod(want, p).Uint64() {
				t.Fatalf("%d · %d mod %d = %d", e[0], e[1], f.p, got)
			}
		}
	}
}

// dot returns Σ a[i]·y[i] mod P, added in two parts.
func dot(f Field, t tier, a []uint64, y []int32) uint64 {
	var s sum
	half := len(a) / 2
	s.add(t, a[half:], y[half:])
	s.add(t, a[:half], y[:half])
	return s.mod(f, f.sum(a))
}

// TestTier: what is to test one tier must not pass on another.
func TestTier(t *testing.T) { tiertest.Fastest(t, tiers[0].name) }

func TestDotIsExact(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(2, 1))
	for _, f := range fields(t) {
		for _, n := range []int{0, 1, 2, 3, 4, 5, 63, 64, 65, 1000} {
			a, y := elements(rng, f, n), signed(rng, n, 0)
			want := bigDot(f, a, bigs(y))
			for _, tier := range tiers {
				if got := dot(f, tier, a, y); got != want {
					t.Fatalf("%s: P = %d, %d terms: %d, want %d", tier.name, f.p, n, got, want)
				}
			}
		}
	}
	// All extremes at once, in a long sum.
	f, n := DefaultField(), 1<<17
	a := slices.Repeat([]uint64{f.p - 1}, n)
	for _, e := range []int32{math.MinInt32, math.MaxInt32} {
		y := slices.Repeat([]int32{e}, n)
		want := bigDot(f, a, bigs(y))
		for _, tier := range tiers {
			if got := dot(f, tier, a, y); got != want {
				t.Errorf("%s: %d terms of %d: %d, want %d", tier.name, n, e, got, want)
			}
			for _, s := range tier.sumPairs(a, slices.Repeat(y, 2)) {
				if got := s.mod(f, f.sum(a)); got != want {
					t.Errorf("%s: %d pairs of %d: %d, want %d", tier.name, n, e, got, want)
				}
			}
		}
	}
}

// TestAdjoint compares V with S·W by the definition, and S·y with V·x.
func TestAdjoint(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(3, 1))
	for _, f := range fields(t) {
		p := new(big.Int).SetUint64(f.p)
		for _, c := range ops {
			w, x := signed(rng, c.op.Rows()*c.op.Terms(), 0), signed(rng, c.op.InLen(), 0)
			k, err := NewKey(f, c.op, w)
			if err != nil {
				t.Fatal(err)
			}
			s, v := k.Vectors()
			if len(s) != c.op.OutLen() || len(v) != c.op.InLen() {
				t.Fatalf("%s: %d and %d elements", c.name, len(s), len(v))
			}
			want := make([]*big.Int, len(v))
			for i := range want {
				want[i] = new(big.Int)
			}
			terms(c.op, func(out, wi, in int) {
				e := new(big.Int).SetUint64(s[out])
				want[in].Add(want[in], e.Mul(e, big.NewInt(int64(w[wi]))))
			})
			for i := range v {
				if got := want[i].Mod(want[i], p).Uint64(); v[i] != got {
					t.Fatalf("%s: V[%d] = %d, want %d", c.name, i, v[i], got)
				}
			}
			if sy, vx := bigDot(f, s, product(c.op, w, x)), bigDot(f, v, bigs(x)); sy != vx {
				t.Fatalf("%s: S·y = %d, V·x = %d", c.name, sy, vx)
			}
		}
	}
}

// answers returns honest products of n samples, which fit int32.
func answers(op plan.Op, w, x []int32, n int) []int32 {
	var y []int32
	for i := range n {
		for _, e := range product(op, w, x[i*op.InLen():(i+1)*op.InLen()]) {
			y = append(y, int32(e.Int64()))
		}
	}
	return y
}

func TestOpen(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(4, 1))
	for _, c := range ops {
		t.Run(c.name, func(t *testing.T) {
			const n = 5
			w, x := signed(rng, c.op.Rows()*c.op.Terms(), 1000), signed(rng, n*c.op.InLen(), 1000)
			k, err := NewKey(DefaultField(), c.op, w)
			if err != nil {
				t.Fatal(err)
			}
			y := answers(c.op, w, x, n)
			if got, err := k.Open(NewCandidate(slices.Clone(y), n), x); err != nil || !slices.Equal(got, y) {
				t.Fatalf("honest answers: %v", err)
			}
			out := c.op.OutLen()
			rejected := func(bad []int32, x []int32, want ...int) {
				t.Helper()
				got, err := k.Open(NewCandidate(bad, n), x)
				var e *RejectedError
				if !errors.Is(err, ErrRejected) || !errors.As(err, &e) || !slices.Equal(e.Samples, want) || got != nil {
					t.Errorf("got %v, %v; want samples %v rejected", got, err, want)
				}
			}
			// Every single element, by the least and by the most.
			for i := range y {
				for _, d := range []int32{1, -1, math.MinInt32} {
					bad := slices.Clone(y)
					bad[i] += d
					rejected(bad, x, i/out)
				}
			}
			bad := slices.Clone(y)
			bad[0]++
			bad[3*out]--
			bad[4*out] += 7
			rejected(bad, x, 0, 3, 4)
			for i := range bad {
				bad[i] = y[i] + 1
			}
			rejected(bad, x, 0, 1, 2, 3, 4)
		})
	}
}

// TestOpenInParallel has enough work for several goroutines.
func TestOpenInParallel(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(5, 1))
	op, n := plan.Dense(700, 3), 400
	w, x := signed(rng, op.In*op.Out, 1000), signed(rng, n*op.In, 1000)
	k, err := NewKey(DefaultField(), op, w)
	if err != nil {
		t.Fatal(err)
	}
	y := answers(op, w, x, n)
	if got, err := k.Open(NewCandidate(y, n), x); err != nil || !slices.Equal(got, y) {
		t.Fatalf("honest answers: %v", err)
	}
	want := []int{0, 1, 57, 199, 200, 399}
	for _, i := range want {
		y[i*op.Out+i%op.Out]++
	}
	var e *RejectedError
	if _, err := k.Open(NewCandidate(y, n), x); !errors.As(err, &e) || !slices.Equal(e.Samples, want) {
		t.Errorf("got %v, want samples %v", err, want)
	}
}

func TestLengths(t *testing.T) {
	op := plan.Dense(4, 2)
	w := make([]int32, 8)
	k, err := NewKey(DefaultField(), op, w)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ y, n, x int }{
		{3, 2, 8}, {5, 2, 8}, {2, 2, 8}, {4, 2, 7}, {4, 2, 9}, {4, 1, 8}, {4, 3, 8}, {4, -2, 8}, {4, 2, 0}, {0, 2, 8},
		{0, math.MinInt64, 0}, {0, 1 << 62, 0}, // n·2 and n·4 wrap to 0
	} {
		var e *LengthError
		if _, err := k.Open(NewCandidate(make([]int32, c.y), c.n), make([]int32, c.x)); !errors.As(err, &e) {
			t.Errorf("Open of %+v: error %v, want a *LengthError", c, err)
		}
	}
	for _, n := range []int{0, 7, 9} {
		var e *LengthError
		if _, err := NewKey(DefaultField(), op, make([]int32, n)); !errors.As(err, &e) {
			t.Errorf("NewKey of %d weights: error %v, want a *LengthError", n, err)
		}
	}
	if _, err := NewKey(DefaultField(), plan.Op{}, nil); !errors.Is(err, plan.ErrInvalid) {
		t.Errorf("NewKey of no operator: error %v", err)
	}
	if _, err := NewKey(Field{}, op, w); !errors.Is(err, ErrField) {
		t.Errorf("NewKey over no field: error %v", err)
	}
}

func TestRestoreKey(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(6, 1))
	op := plan.Dense(4, 2)
	w, x := signed(rng, 8, 100), signed(rng, 4, 100)
	k, err := NewKey(DefaultField(), op, w)
	if err != nil {
		t.Fatal(err)
	}
	s, v := k.Vectors()
	again, err := RestoreKey(DefaultField(), op, slices.Clone(s), slices.Clone(v))
	if err != nil {
		t.Fatal(err)
	}
	y := answers(op, w, x, 1)
	if _, err := again.Open(NewCandidate(y, 1), x); err != nil {
		t.Error(err)
	}
	y[1]++
	if _, err := again.Open(NewCandidate(y, 1), x); !errors.Is(err, ErrRejected) {
		t.Errorf("a wrong answer passed: %v", err)
	}

	p := DefaultField().P()
	var length *LengthError
	if _, err := RestoreKey(DefaultField(), op, s[:1], v); !errors.As(err, &length) {
		t.Errorf("short S: %v", err)
	}
	if _, err := RestoreKey(DefaultField(), op, s, append(slices.Clone(v), 1)); !errors.As(err, &length) {
		t.Errorf("long V: %v", err)
	}
	if _, err := RestoreKey(DefaultField(), op, []uint64{1, p}, v); !errors.Is(err, ErrKey) {
		t.Errorf("S out of the field: %v", err)
	}
	if _, err := RestoreKey(DefaultField(), op, s, []uint64{1, 2, math.MaxUint64, 3}); !errors.Is(err, ErrKey) {
		t.Errorf("V out of the field: %v", err)
	}
	if _, err := RestoreKey(Field{}, op, s, v); !errors.Is(err, ErrField) {
		t.Errorf("no field: %v", err)
	}
	if _, err := RestoreKey(DefaultField(), plan.Op{}, s, v); !errors.Is(err, plan.ErrInvalid) {
		t.Errorf("no operator: %v", err)
	}
}

// TestRekey: the new key fits the same weights, by definition, and no others; the old key is
// unchanged.
func TestRekey(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(7, 1))
	for _, f := range fields(t) {
		for _, c := range ops {
			w, x := signed(rng, c.op.Rows()*c.op.Terms(), 1000), signed(rng, c.op.InLen(), 1000)
			old, err := NewKey(f, c.op, w)
			if err != nil {
				t.Fatal(err)
			}
			s, v := slices.Clone(old.s), slices.Clone(old.v)
			k, err := old.Rekey(w)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if !slices.Equal(old.s, s) || !slices.Equal(old.v, v) {
				t.Errorf("%s: the old key has changed", c.name)
			}
			want := make([]*big.Int, c.op.InLen())
			for i := range want {
				want[i] = new(big.Int)
			}
			terms(c.op, func(out, wi, in int) {
				want[in].Add(want[in], new(big.Int).Mul(new(big.Int).SetUint64(k.s[out]), big.NewInt(int64(w[wi]))))
			})
			for i, e := range want {
				if e.Mod(e, new(big.Int).SetUint64(f.p)).Uint64() != k.v[i] {
					t.Fatalf("%s: V[%d] is not that of S and W", c.name, i)
				}
			}
			y := answers(c.op, w, x, 1)
			if _, err := k.Open(NewCandidate(slices.Clone(y), 1), x); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if f != DefaultField() {
				continue // in a small field the rest happens by chance
			}
			if slices.Equal(k.s, s) {
				t.Errorf("%s: the same S", c.name)
			}
			y[len(y)-1]++
			if _, err := k.Open(NewCandidate(y, 1), x); !errors.Is(err, ErrRejected) {
				t.Errorf("%s: a wrong answer passed: %v", c.name, err)
			}
		}
	}

	op := plan.Dense(5, 3)
	w := signed(rng, 15, 1000)
	k, err := NewKey(DefaultField(), op, w)
	if err != nil {
		t.Fatal(err)
	}
	for i := range w {
		wrong := slices.Clone(w)
		wrong[i]++
		if again, err := k.Rekey(wrong); again != nil || !errors.Is(err, ErrKey) {
			t.Errorf("weight %d is another: %v", i, err)
		}
	}
	var length *LengthError
	if again, err := k.Rekey(w[1:]); again != nil || !errors.As(err, &length) {
		t.Errorf("short weights: %v", err)
	}
}

// TestUniform draws S over fields that reject little and nearly half.
func TestUniform(t *testing.T) {
	for _, p := range []uint64{3, 17, 19} {
		f, err := NewField(p)
		if err != nil {
			t.Fatal(err)
		}
		const n = 1 << 16
		v := make([]uint64, n)
		if err := f.uniform(v, mathrand.NewChaCha8([32]byte{1})); err != nil {
			t.Fatal(err)
		}
		counts := make([]float64, p)
		for _, e := range v {
			counts[e]++
		}
		chi, want := 0.0, float64(n)/float64(p)
		for _, c := range counts {
			chi += (c - want) * (c - want) / want
		}
		if limit := float64(p-1) + 6*math.Sqrt(2*float64(p-1)); chi > limit {
			t.Errorf("P = %d: chi-square %.0f > %.0f", p, chi, limit)
		}
	}
	f := DefaultField()
	v := make([]uint64, 1<<16)
	if err := f.uniform(v, mathrand.NewChaCha8([32]byte{2})); err != nil {
		t.Fatal(err)
	}
	if top := slices.Max(v); top >= f.p || top < f.p-f.p/1024 {
		t.Errorf("the largest of %d elements is %d", len(v), top)
	}
	slices.Sort(v)
	if len(slices.Compact(v)) < 1<<16-1 {
		t.Error("elements repeat")
	}
}

func TestPrintsRedacted(t *testing.T) {
	op := plan.Dense(2, 2)
	k, err := RestoreKey(DefaultField(), op, []uint64{987654321, 987654321}, []uint64{987654321, 987654321})
	if err != nil {
		t.Fatal(err)
	}
	c := NewCandidate([]int32{987654321, 987654321}, 1)
	e := k.Expect(1)
	e.Add(0, 0, []int32{1, 0})
	scale, err := NewScale([]float32{987654321}, nil)
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		K *Key
		C Candidate
		E Expected
		S Scale
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%d", "%s", "%q", "%o", "%b"} {
		for _, arg := range []any{k, *k, c, &c, e, &e, scale, []Key{*k}, holder{k, c, e, scale}} {
			mustHide(t, fmt.Sprintf(verb, arg))
		}
	}
	text, err := json.Marshal(holder{k, c, e, scale})
	if err != nil {
		t.Fatal(err)
	}
	mustHide(t, string(text))
}

func mustHide(t *testing.T, text string) {
	t.Helper()
	for _, verb := range []string{"%d", "%x", "%X", "%o", "%b"} {
		if strings.Contains(text, fmt.Sprintf(verb, 987654321)) {
			t.Errorf("a secret shows in %q", text)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, c := range []struct {
		name string
		op   plan.Op
		n    int
	}{
		{"dense 4096x4096 by 32", plan.Dense(4096, 4096), 32},
		{"mnist-cnn conv2 by 256", plan.Conv(plan.Conv2D{H: 12, W: 12, C: 16, OutC: 32, KH: 5, KW: 5, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}), 256},
	} {
		b.Run(c.name, func(b *testing.B) {
			f := DefaultField()
			s, v := make([]uint64, c.op.OutLen()), make([]uint64, c.op.InLen())
			for i := range s {
				s[i] = f.p - 1
			}
			k, err := RestoreKey(f, c.op, s, v)
			if err != nil {
				b.Fatal(err)
			}
			y, x := make([]int32, c.n*len(s)), make([]int32, c.n*len(v))
			for b.Loop() {
				if _, err := k.Open(NewCandidate(y, c.n), x); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(y)+len(x)), "ns/word")
		})
	}
}

func BenchmarkNewKey(b *testing.B) {
	for _, op := range []plan.Op{
		plan.Dense(1024, 1024),
		plan.Conv(plan.Conv2D{H: 28, W: 28, C: 128, OutC: 128, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Left: 1, Bot: 1, Right: 1, Groups: 1}),
		plan.Conv(plan.Conv2D{H: 28, W: 28, C: 128, OutC: 128, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Left: 1, Bot: 1, Right: 1, Groups: 128}),
	} {
		b.Run(op.String(), func(b *testing.B) {
			w := make([]int32, op.Rows()*op.Terms())
			for b.Loop() {
				if _, err := NewKey(DefaultField(), op, w); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(op.MulAdds()), "ns/muladd")
		})
	}
}
