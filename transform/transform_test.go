package transform_test

import (
	"context"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// oracle computes W x over the integers by the definition in package plan.
func oracle(op plan.Op, w, x []int32) []*big.Int {
	y := make([]*big.Int, op.OutLen())
	for i := range y {
		y[i] = new(big.Int)
	}
	add := func(y *big.Int, w, x int32) {
		y.Add(y, new(big.Int).Mul(big.NewInt(int64(w)), big.NewInt(int64(x))))
	}
	if op.Kind == plan.KindDense {
		for o := range op.Out {
			for i := range op.In {
				add(y[o], w[o*op.In+i], x[i])
			}
		}
		return y
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
							add(y[(p*c.OutW()+q)*c.OutC+o], w[o*op.Terms()+(a*c.KW+b)*cg+i], x[(h*c.W+v)*c.C+g*cg+i])
						}
					}
				}
			}
		}
	}
	return y
}

// bigProduct is a plan.Product that uses the oracle, modulo M.
type bigProduct struct {
	r  ring.Ring
	op plan.Op
	w  []int32 // lifted
}

func newProduct(r ring.Ring, op plan.Op, w ring.Matrix) *bigProduct {
	p := &bigProduct{r: r, op: op}
	for _, a := range w.Data {
		p.w = append(p.w, r.Lift(a))
	}
	return p
}

func (p *bigProduct) Evaluate(_ context.Context, y, x ring.Matrix) error {
	if err := x.Want("x", x.Rows, p.op.InLen()); err != nil {
		return err
	}
	if err := y.Want("y", x.Rows, p.op.OutLen()); err != nil {
		return err
	}
	m := big.NewInt(int64(p.r.Modulus()))
	for s := range x.Rows {
		v := make([]int32, x.Cols)
		for i, a := range x.Row(s) {
			v[i] = p.r.Lift(a)
		}
		for i, e := range oracle(p.op, p.w, v) {
			y.Row(s)[i] = uint32(e.Mod(e, m).Uint64())
		}
	}
	return nil
}

func (p *bigProduct) Close() error { return nil }

var ops = []struct {
	name string
	op   plan.Op
}{
	{"dense 1x1", plan.Dense(1, 1)},
	{"dense 7->3", plan.Dense(7, 3)},
	{"dense 300->5", plan.Dense(300, 5)},
	{"conv 1x1", plan.Conv(plan.Conv2D{H: 3, W: 4, C: 5, OutC: 2, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1})},
	{"conv one channel", plan.Conv(plan.Conv2D{H: 6, W: 5, C: 1, OutC: 3, KH: 3, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1})},
	{"conv stride", plan.Conv(plan.Conv2D{H: 7, W: 8, C: 3, OutC: 4, KH: 3, KW: 3, SH: 2, SW: 3, DH: 1, DW: 1, Groups: 1})},
	{"conv one-sided padding", plan.Conv(plan.Conv2D{H: 6, W: 6, C: 2, OutC: 3, KH: 3, KW: 3, SH: 2, SW: 1, DH: 1, DW: 1, Top: 1, Left: 2, Right: 1, Groups: 1})},
	{"conv dilation", plan.Conv(plan.Conv2D{H: 9, W: 9, C: 2, OutC: 2, KH: 3, KW: 2, SH: 1, SW: 2, DH: 2, DW: 3, Top: 2, Bot: 3, Left: 1, Right: 2, Groups: 1})},
	{"conv groups", plan.Conv(plan.Conv2D{H: 5, W: 5, C: 6, OutC: 9, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Left: 1, Bot: 1, Right: 1, Groups: 3})},
	{"conv depthwise", plan.Conv(plan.Conv2D{H: 5, W: 4, C: 7, OutC: 7, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Left: 1, Bot: 1, Right: 1, Groups: 7})},
	{"conv depthwise, two outputs each", plan.Conv(plan.Conv2D{H: 4, W: 4, C: 3, OutC: 6, KH: 2, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 3})},
	{"conv dilation, no padding", plan.Conv(plan.Conv2D{H: 9, W: 8, C: 2, OutC: 2, KH: 3, KW: 2, SH: 2, SW: 1, DH: 2, DW: 3, Groups: 1})},
	{"conv patches of vectors", plan.Conv(plan.Conv2D{H: 5, W: 5, C: 4, OutC: 16, KH: 2, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1})},
}

func supported(s transform.Scheme, op plan.Op) bool {
	return s.Inputs != transform.InputPermute || op.Kind == plan.KindDense || op.Conv.Groups == 1
}

// fill returns n integers of at most most in magnitude, with the bounds among them.
func fill(rng *rand.Rand, n int, most int32) []int32 {
	v := make([]int32, n)
	for i := range v {
		switch rng.IntN(8) {
		case 0:
			v[i] = most
		case 1:
			v[i] = -most
		case 2: // zero
		default:
			v[i] = int32(rng.Int64N(2*int64(most)+1) - int64(most))
		}
	}
	return v
}

// sealed is a layer with its weights, masks, key and products.
type sealed struct {
	r     ring.Ring
	op    plan.Op
	layer *transform.Layer
	w     []int32
	whats []ring.Matrix  // one per role
	prods []plan.Product // of whats
	what  ring.Matrix    // role 0's
	prod  plan.Product   // of what
	key   *verify.Key
}

func seal(t testing.TB, r ring.Ring, s transform.Scheme, op plan.Op, w []int32) *sealed {
	t.Helper()
	layer, err := transform.NewLayer(r, s, op)
	if err != nil {
		t.Fatal(err)
	}
	whats, err := layer.Seal(w)
	if err != nil {
		t.Fatal(err)
	}
	if len(whats) != s.Roles() {
		t.Fatalf("%d sealed matrices for %d roles", len(whats), s.Roles())
	}
	var prods []plan.Product
	for _, what := range whats {
		const enough = 16 // words, to differ in any ring
		same, shares := slices.Equal(what.Data, whats[0].Data), s.Weights == transform.WeightLagrange
		if len(prods) > 0 && same == shares && (!shares || len(what.Data) >= enough) {
			t.Fatalf("%v: roles hold the same weights: %v", s, same)
		}
		prods = append(prods, newProduct(r, layer.CloudOp(), what))
	}
	key, err := verify.NewKey(verify.DefaultField(), op, w)
	if err != nil {
		t.Fatal(err)
	}
	return &sealed{r, op, layer, w, whats, prods, whats[0], prods[0], key}
}

func (l *sealed) pads(t testing.TB, s transform.Scheme, n int) *transform.Pads {
	t.Helper()
	if s.Inputs != transform.InputPad {
		return nil
	}
	pads, err := l.layer.NewPads(t.Context(), l.prod, n)
	if err != nil {
		t.Fatal(err)
	}
	return pads
}

// received returns the words that a role's cloud multiplies, expanding a seed.
func (l *sealed) received(t testing.TB, m transform.Masked) ring.Matrix {
	t.Helper()
	x, ok := m.Words()
	seed, isSeed := m.Seed()
	if ok == isSeed {
		t.Fatal("neither words nor a seed, or both")
	}
	if isSeed {
		x = ring.NewMatrix(m.Rows(), m.Cols())
		for i := range x.Rows {
			prg.New(seed).Fill(l.r, x.Row(i), uint64(i))
		}
	}
	if err := l.r.CheckCanonical(x.Data); err != nil {
		t.Fatal(err)
	}
	if err := x.Want("masked", m.Rows(), m.Cols()); err != nil {
		t.Fatal(err)
	}
	return x
}

// answers returns honest clouds' answers to a call.
func (l *sealed) answers(t testing.TB, call *transform.Call) []ring.Matrix {
	t.Helper()
	var answers []ring.Matrix
	for role, m := range call.Masked() {
		y := ring.NewMatrix(m.Rows(), l.layer.CloudOp().OutLen())
		if err := l.prods[role].Evaluate(t.Context(), y, l.received(t, m)); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, y)
	}
	return answers
}

// run masks, evaluates, unmasks and checks n samples.
func (l *sealed) run(t testing.TB, x []int32, n int, pads *transform.Pads) []int32 {
	t.Helper()
	call, err := l.layer.Mask(x, n, pads)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range call.Masked() {
		if m.Rows() != l.layer.CloudRows(n) || m.Cols() != l.layer.CloudOp().InLen() {
			t.Fatalf("%d rows of %d, want %d of %d", m.Rows(), m.Cols(), l.layer.CloudRows(n), l.layer.CloudOp().InLen())
		}
	}
	c, err := call.Unmask(l.answers(t, call))
	if err != nil {
		t.Fatal(err)
	}
	y, err := l.key.Open(c, x)
	if err != nil {
		t.Fatal(err)
	}
	return y
}

// TestMaskedIsPlain: seal, mask, evaluate, unmask, open gives W x over the
// integers, for every scheme and operator, batched and one by one alike.
func TestMaskedIsPlain(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		for _, s := range transform.Schemes() {
			for _, c := range ops {
				if !supported(s, c.op) {
					continue
				}
				t.Run(fmt.Sprintf("%v/%v/%s", r, s, c.name), func(t *testing.T) {
					// The largest magnitudes that are sure to fit.
					xmax := int32(1000)
					wmax := min(r.Max()/xmax/int32(c.op.Terms()), 1<<20)
					const n = 3
					w := fill(rng, c.op.Rows()*c.op.Terms(), wmax)
					x := fill(rng, n*c.op.InLen(), xmax)
					l := seal(t, r, s, c.op, w)
					pads := l.pads(t, s, 2*n)
					in, out := c.op.InLen(), c.op.OutLen()

					take := func(n int) *transform.Pads {
						if pads == nil {
							return nil
						}
						p, err := pads.Take(n)
						if err != nil {
							t.Fatal(err)
						}
						return p
					}
					batch := l.run(t, x, n, take(n))
					for i := range n {
						single := l.run(t, x[i*in:(i+1)*in], 1, take(1))
						for j, want := range oracle(c.op, w, x[i*in:(i+1)*in]) {
							if got := batch[i*out+j]; int64(got) != want.Int64() {
								t.Fatalf("sample %d, output %d: %d, want %v", i, j, got, want)
							}
							if single[j] != batch[i*out+j] {
								t.Fatalf("sample %d, output %d: alone %d, in a batch %d", i, j, single[j], batch[i*out+j])
							}
						}
					}
				})
			}
		}
	}
}
