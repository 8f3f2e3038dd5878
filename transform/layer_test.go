package transform_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// TestSealIsTheEquation: What = E D W F U, element by element from the state.
func TestSealIsTheEquation(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 1))
	for _, s := range transform.Schemes() {
		for _, c := range ops {
			if !supported(s, c.op) {
				continue
			}
			r := ring.Q4()
			w := fill(rng, c.op.Rows()*c.op.Terms(), r.Max())
			l := seal(t, r, s, c.op, w)
			st := l.layer.State()
			if s.Weights != transform.WeightPermute {
				if st.D != nil || st.F != nil || st.E != nil || st.U != nil {
					t.Fatalf("%v %s: masks", s, c.name)
				}
			}
			if s.Weights == transform.WeightLagrange {
				continue // TestLagrangeIsTheEquation
			}
			if s.Weights == transform.WeightNone {
				for i, a := range l.what.Data {
					if r.Lift(a) != w[i] {
						t.Fatalf("%v %s: What is not W", s, c.name)
					}
				}
				continue
			}
			// The input channel of a weight, and back.
			groups, each := 1, c.op.Terms()
			if l.layer.CloudOp().Kind == plan.KindConv2D {
				groups, each = c.op.Conv.Groups, c.op.Conv.C/c.op.Conv.Groups
			}
			rows := c.op.Rows() / groups
			if len(st.F) != groups*each || len(st.D) != groups*rows {
				t.Fatalf("%v %s: %d and %d units", s, c.name, len(st.F), len(st.D))
			}
			m := big.NewInt(int64(r.Modulus()))
			for k := range c.op.Rows() {
				row := int(st.E[k])
				for col := range c.op.Terms() {
					window, i := col/each, col%each
					channel := int(st.U[k/rows*each+i])
					if channel/each != row/rows {
						t.Fatalf("%v %s: row %d is of group %d, its input %d is not", s, c.name, row, row/rows, channel)
					}
					want := big.NewInt(int64(w[row*c.op.Terms()+window*each+channel%each]))
					want.Mul(want, big.NewInt(int64(st.D[row])))
					want.Mul(want, big.NewInt(int64(st.F[channel])))
					if want.Mod(want, m).Int64() != int64(l.what.At(k, col)) {
						t.Fatalf("%v %s: What[%d, %d] is not E D W F U", s, c.name, k, col)
					}
				}
			}
		}
	}
}

func TestUnsealInvertsSeal(t *testing.T) {
	rng := rand.New(rand.NewPCG(22, 1))
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		for _, s := range transform.Schemes() {
			for _, c := range ops {
				if !supported(s, c.op) {
					continue
				}
				w := fill(rng, c.op.Rows()*c.op.Terms(), r.Max())
				l := seal(t, r, s, c.op, w)
				again, err := transform.RestoreLayer(r, s, l.layer.State())
				if err != nil {
					t.Fatal(err)
				}
				for _, layer := range []*transform.Layer{l.layer, again} {
					if got, err := layer.Unseal(l.whats); err != nil || !slices.Equal(got, w) {
						t.Errorf("%v %v %s: Unseal(Seal(w)) is not w: %v", r, s, c.name, err)
					}
				}
				whats, err := again.Seal(w)
				if s.Weights == transform.WeightLagrange {
					continue // drawn anew
				}
				if err != nil || !slices.Equal(whats[0].Data, l.what.Data) {
					t.Errorf("%v %v %s: a restored layer seals otherwise: %v", r, s, c.name, err)
				}
			}
		}
	}
}

func TestSealAndUnsealRefuse(t *testing.T) {
	r := ring.Q3()
	l, err := transform.NewLayer(r, transform.DefaultScheme(), plan.Dense(3, 2))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 5, 7} {
		if _, err := l.Seal(make([]int32, n)); !errors.Is(err, transform.ErrShape) {
			t.Errorf("Seal of %d weights: %v", n, err)
		}
	}
	for _, bad := range []int32{r.Max() + 1, -r.Max() - 1, math.MaxInt32, math.MinInt32} {
		w := make([]int32, 6)
		w[4] = bad
		if _, err := l.Seal(w); !errors.Is(err, transform.ErrRange) {
			t.Errorf("Seal of %d: %v", bad, err)
		}
		w[4] = max(-r.Max(), min(r.Max(), bad))
		if _, err := l.Seal(w); err != nil {
			t.Errorf("Seal of %d: %v", w[4], err)
		}
	}
	var shape *ring.ShapeError
	if _, err := l.Unseal([]ring.Matrix{ring.NewMatrix(3, 2)}); !errors.As(err, &shape) {
		t.Errorf("Unseal of another shape: %v", err)
	}
	what := ring.NewMatrix(2, 3)
	what.Data[5] = r.Modulus()
	var canonical *ring.NonCanonicalError
	if _, err := l.Unseal([]ring.Matrix{what}); !errors.As(err, &canonical) || canonical.Index != 5 {
		t.Errorf("Unseal of a word that is not canonical: %v", err)
	}
	for _, s := range transform.Schemes() {
		l := seal(t, r, s, plan.Dense(3, 2), []int32{1, 2, 3, 4, 5, 6})
		for _, whats := range [][]ring.Matrix{nil, l.whats[1:], append(slices.Clone(l.whats), l.what)} {
			if _, err := l.layer.Unseal(whats); !errors.Is(err, transform.ErrShape) {
				t.Errorf("%v: Unseal of %d roles: %v", s, len(whats), err)
			}
		}
		if s.Roles() == 1 {
			continue
		}
		for role := range l.whats {
			whats := slices.Clone(l.whats)
			whats[role] = ring.NewMatrix(2, 3)
			copy(whats[role].Data, l.whats[role].Data)
			whats[role].Data[4] = r.Add(whats[role].Data[4], 1)
			if _, err := l.layer.Unseal(whats); !errors.Is(err, transform.ErrMasks) {
				t.Errorf("%v: Unseal with another word of role %d: %v", s, role, err)
			}
		}
	}
}

func TestNewLayerRefuses(t *testing.T) {
	grouped := ops[8].op
	if grouped.Conv.Groups < 2 {
		t.Fatal("no groups")
	}
	paper := transform.Scheme{Weights: transform.WeightPermute, Inputs: transform.InputPermute}
	if _, err := transform.NewLayer(ring.Q4(), paper, grouped); !errors.Is(err, transform.ErrUnsupported) {
		t.Errorf("groups under permute: %v", err)
	}
	if _, err := transform.NewLayer(ring.Q4(), paper, plan.Op{}); !errors.Is(err, plan.ErrInvalid) {
		t.Errorf("no operator: %v", err)
	}
	if _, err := transform.NewLayer(ring.Ring{}, paper, plan.Dense(1, 1)); !errors.Is(err, ring.ErrParameters) {
		t.Errorf("no ring: %v", err)
	}
}

func TestRestoreLayerRefuses(t *testing.T) {
	r, s := ring.Q4(), transform.DefaultScheme()
	grouped := plan.Conv(plan.Conv2D{H: 2, W: 2, C: 6, OutC: 4, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 2})
	for _, op := range []plan.Op{plan.Dense(6, 4), grouped} {
		l, err := transform.NewLayer(r, s, op)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name string
			harm func(*transform.LayerState)
		}{
			{"no masks", func(st *transform.LayerState) { *st = transform.LayerState{Op: op} }},
			{"short D", func(st *transform.LayerState) { st.D = st.D[1:] }},
			{"long F", func(st *transform.LayerState) { st.F = append(st.F, 1) }},
			{"short E", func(st *transform.LayerState) { st.E = st.E[1:] }},
			{"long U", func(st *transform.LayerState) { st.U = append(st.U, 6) }},
			{"zero in D", func(st *transform.LayerState) { st.D[1] = 0 }},
			{"zero divisor in F", func(st *transform.LayerState) { st.F[2] = 251 * 7 }},
			{"D not canonical", func(st *transform.LayerState) { st.D[0] = r.Modulus() + 1 }},
			{"F not canonical", func(st *transform.LayerState) { st.F[0] = math.MaxUint32 }},
			{"E repeats", func(st *transform.LayerState) { st.E[0] = st.E[1] }},
			{"U repeats", func(st *transform.LayerState) { st.U[0] = st.U[5] }},
			{"E out of range", func(st *transform.LayerState) { st.E[slices.Index(st.E, 3)] = 4 }},
			{"U far out of range", func(st *transform.LayerState) { st.U[0] = math.MaxUint32 }},
			{"another operator", func(st *transform.LayerState) { st.Op = plan.Dense(7, 4) }},
		} {
			st := l.State()
			st.D, st.F, st.E, st.U = slices.Clone(st.D), slices.Clone(st.F), slices.Clone(st.E), slices.Clone(st.U)
			c.harm(&st)
			if _, err := transform.RestoreLayer(r, s, st); !errors.Is(err, transform.ErrMasks) {
				t.Errorf("%v, %s: error %v, want ErrMasks", op, c.name, err)
			}
		}
	}
	l, err := transform.NewLayer(r, s, grouped)
	if err != nil {
		t.Fatal(err)
	}
	for _, torn := range []func(*transform.LayerState){
		func(st *transform.LayerState) { st.E[0], st.E[3] = st.E[3], st.E[0] },
		func(st *transform.LayerState) { st.E[1], st.E[3] = st.E[3], st.E[1] },
		func(st *transform.LayerState) { st.U[0], st.U[5] = st.U[5], st.U[0] },
		func(st *transform.LayerState) { // whole groups, but on one side only
			st.E = append(slices.Clone(st.E[2:]), st.E[:2]...)
		},
	} {
		st := l.State()
		st.E, st.U = slices.Clone(st.E), slices.Clone(st.U)
		torn(&st)
		if _, err := transform.RestoreLayer(r, s, st); !errors.Is(err, transform.ErrMasks) {
			t.Errorf("torn groups: error %v, want ErrMasks", err)
		}
	}
	none := transform.Scheme{Weights: transform.WeightNone, Inputs: transform.InputPad}
	for _, other := range []transform.Scheme{none, lagrange} {
		if _, err := transform.RestoreLayer(r, other, l.State()); !errors.Is(err, transform.ErrMasks) {
			t.Errorf("masks under %v, which has none: %v", other, err)
		}
	}
	if _, err := transform.RestoreLayer(r, s, transform.LayerState{}); !errors.Is(err, plan.ErrInvalid) {
		t.Errorf("no operator: %v", err)
	}
}

// TestGroupsMove: with groups, all orders of groups and channels occur, and both sides have the
// same order of groups.
func TestGroupsMove(t *testing.T) {
	op := plan.Conv(plan.Conv2D{H: 1, W: 1, C: 6, OutC: 9, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 3})
	orders, inside := map[string]int{}, map[string]int{}
	for range 400 {
		l, err := transform.NewLayer(ring.Q4(), transform.DefaultScheme(), op)
		if err != nil {
			t.Fatal(err)
		}
		st := l.State()
		orders[fmt.Sprint(st.E[0]/3, st.E[3]/3, st.E[6]/3)]++
		inside[fmt.Sprint(st.U[0]%2, st.E[0]%3, st.E[1]%3)]++
		for g := range 3 {
			if st.E[3*g]/3 != st.U[2*g]/2 {
				t.Fatal("rows and inputs move differently")
			}
		}
	}
	if len(orders) != 6 || len(inside) != 12 {
		t.Errorf("%d of 6 orders of groups, %d of 12 inside one", len(orders), len(inside))
	}

	depthwise := plan.Conv(plan.Conv2D{H: 1, W: 1, C: 5, OutC: 5, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 5})
	l, err := transform.NewLayer(ring.Q4(), transform.DefaultScheme(), depthwise)
	if err != nil {
		t.Fatal(err)
	}
	if st := l.State(); !slices.Equal(st.E, st.U) {
		t.Error("a depthwise layer has two permutations")
	}
}

// TestExtremes: products of exactly ±Max(ring) are recovered.
func TestExtremes(t *testing.T) {
	toy, err := ring.New(3, 5)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3(), toy} {
		for _, s := range transform.Schemes() {
			for _, c := range []struct{ w, x []int32 }{
				{[]int32{r.Max()}, []int32{1}},
				{[]int32{1}, []int32{r.Max()}},
				{[]int32{-r.Max()}, []int32{1}},
				{[]int32{-1}, []int32{-r.Max()}},
				{[]int32{r.Max() - 1, -1, 0}, []int32{1, -1, r.Max()}},
				{[]int32{0, 0}, []int32{r.Max(), -r.Max()}},
			} {
				op := plan.Dense(len(c.w), 1)
				l := seal(t, r, s, op, c.w)
				y := l.run(t, c.x, 1, l.pads(t, s, 1))
				if want := oracle(op, c.w, c.x)[0].Int64(); int64(y[0]) != want {
					t.Errorf("%v %v: %v · %v = %d, want %d", r, s, c.w, c.x, y[0], want)
				}
			}
		}
	}
}

// TestTamperedAnswersAreRejected changes each word of every role's answer. The
// check rejects it, and Liars names the role, before and after Unmask.
func TestTamperedAnswersAreRejected(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 1))
	op := plan.Conv(plan.Conv2D{H: 4, W: 4, C: 2, OutC: 3, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1})
	for _, s := range transform.Schemes() {
		const n = 2
		w, x := fill(rng, op.Rows()*op.Terms(), 1000), fill(rng, n*op.InLen(), 1000)
		l := seal(t, ring.Q4(), s, op, w)
		for role := range s.Roles() {
			for i := range n * op.OutLen() {
				call, err := l.layer.Mask(x, n, l.pads(t, s, n))
				if err != nil {
					t.Fatal(err)
				}
				answers := l.answers(t, call)
				wantLiars(t, l, call, answers, 0, nil)
				wantLiars(t, l, call, answers, 1, nil)
				d := answers[role].Data
				d[i] = ring.Q4().Add(d[i], 1+rng.Uint32N(ring.Q4().Modulus()-1))
				told := slices.Clone(d)
				c, err := call.Unmask(answers)
				if err != nil {
					t.Fatal(err)
				}
				y, err := l.key.Open(c, x)
				var rejected *verify.RejectedError
				if !errors.As(err, &rejected) || len(rejected.Samples) != 1 || y != nil {
					t.Fatalf("%v: a change of word %d of role %d: %v", s, i, role, err)
				}
				if !slices.Equal(d, told) {
					t.Fatalf("%v: Unmask changed the answers", s)
				}
				wantLiars(t, l, call, answers, rejected.Samples[0], []int{role})
				wantLiars(t, l, call, answers, 1-rejected.Samples[0], nil)
			}
		}
	}
}

func wantLiars(t *testing.T, l *sealed, call *transform.Call, answers []ring.Matrix, sample int, want []int) {
	t.Helper()
	if got, err := call.Liars(t.Context(), l.prods, answers, sample); err != nil || !slices.Equal(got, want) {
		t.Fatalf("liars %v, %v, want %v", got, err, want)
	}
}

func TestLiarsRefuses(t *testing.T) {
	op := plan.Dense(3, 2)
	for _, s := range transform.Schemes() {
		l := seal(t, ring.Q4(), s, op, make([]int32, 6))
		call, err := l.layer.Mask(make([]int32, 6), 2, l.pads(t, s, 2))
		if err != nil {
			t.Fatal(err)
		}
		good := l.answers(t, call)
		for _, sample := range []int{-1, 2, math.MaxInt} {
			if _, err := call.Liars(t.Context(), l.prods, good, sample); !errors.Is(err, transform.ErrShape) {
				t.Errorf("%v, sample %d: %v", s, sample, err)
			}
		}
		var shape *ring.ShapeError
		if _, err := call.Liars(t.Context(), l.prods, make([]ring.Matrix, len(good)), 0); !errors.As(err, &shape) {
			t.Errorf("%v, no matrices: %v", s, err)
		}
		if _, err := call.Liars(t.Context(), l.prods, nil, 0); !errors.Is(err, transform.ErrShape) {
			t.Errorf("%v, no answers: %v", s, err)
		}
		if _, err := call.Liars(t.Context(), l.prods[1:], good, 0); !errors.Is(err, transform.ErrShape) {
			t.Errorf("%v, a product too few: %v", s, err)
		}
		broken := slices.Clone(l.prods)
		broken[s.Roles()-1] = &countingProduct{Product: l.prods[s.Roles()-1], err: context.Canceled, rows: make([]int, 1)}
		if _, err := call.Liars(t.Context(), broken, good, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, a product that fails: %v", s, err)
		}
	}
}

func TestMaskRefuses(t *testing.T) {
	r := ring.Q3()
	op := plan.Dense(3, 2)
	for _, s := range transform.Schemes() {
		l := seal(t, r, s, op, make([]int32, 6))
		pads := l.pads(t, s, 2)
		for _, c := range []struct{ words, n int }{{6, 1}, {6, 3}, {5, 2}, {7, 2}, {0, 0}, {6, -2}, {0, math.MinInt64}, {3, 2}} {
			if _, err := l.layer.Mask(make([]int32, c.words), c.n, pads); !errors.Is(err, transform.ErrShape) {
				t.Errorf("%v, %+v: error %v, want ErrShape", s, c, err)
			}
		}
		for _, bad := range []int32{r.Max() + 1, -r.Max() - 1, math.MaxInt32, math.MinInt32} {
			x := make([]int32, 6)
			x[5] = bad
			if _, err := l.layer.Mask(x, 2, pads); !errors.Is(err, transform.ErrRange) {
				t.Errorf("%v, input %d: error %v, want ErrRange", s, bad, err)
			}
		}
		// Refused answers do not use the call up.
		l.run(t, make([]int32, 6), 2, pads)
	}
}

func TestUnmaskRefuses(t *testing.T) {
	op := plan.Conv(plan.Conv2D{H: 3, W: 3, C: 2, OutC: 2, KH: 2, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1})
	rng := rand.New(rand.NewPCG(24, 1))
	r := ring.Q4()
	for _, s := range transform.Schemes() {
		w, x := fill(rng, op.Rows()*op.Terms(), 100), fill(rng, 2*op.InLen(), 100)
		l := seal(t, r, s, op, w)
		call, err := l.layer.Mask(x, 2, l.pads(t, s, 2))
		if err != nil {
			t.Fatal(err)
		}
		good := l.answers(t, call)
		for _, answers := range [][]ring.Matrix{nil, {}, good[1:], append(slices.Clone(good), good[0])} {
			if _, err := call.Unmask(answers); !errors.Is(err, transform.ErrShape) {
				t.Errorf("%v, %d answers: %v", s, len(answers), err)
			}
		}
		for role, answer := range good {
			// with returns the answers with the role's replaced.
			with := func(a ring.Matrix) []ring.Matrix {
				answers := slices.Clone(good)
				answers[role] = a
				return answers
			}
			short := answer
			short.Data = short.Data[1:]
			for name, bad := range map[string]ring.Matrix{
				"no matrix": {}, "fewer rows": answer.RowRange(0, answer.Rows-1), "short": short,
				"turned": answer.T(), "another shape": ring.NewMatrix(answer.Cols, answer.Rows+1),
			} {
				for _, unmask := range []func([]ring.Matrix) (verify.Candidate, error){call.Unmask, call.UnmaskDecoded} {
					var shape *ring.ShapeError
					if _, err := unmask(with(bad)); !errors.As(err, &shape) {
						t.Errorf("%v, role %d, %s: error %v, want a *ring.ShapeError", s, role, name, err)
					} else if strings.Contains(err.Error(), fmt.Sprint(answer.Data[0])) {
						t.Errorf("%v: the error names words", s)
					}
				}
			}
			for _, word := range []uint32{r.Modulus(), math.MaxUint32} {
				bad := answer
				bad.Data = slices.Clone(answer.Data)
				bad.Data[3] = word
				var canonical *ring.NonCanonicalError
				if _, err := call.Unmask(with(bad)); !errors.As(err, &canonical) || canonical.Index != 3 {
					t.Errorf("%v, role %d, word %d: error %v, want a *ring.NonCanonicalError", s, role, word, err)
				} else if !strings.Contains(err.Error(), fmt.Sprintf("role %d", role)) {
					t.Errorf("%v: the error does not name role %d: %v", s, role, err)
				}
			}
		}
		// The right answers are still accepted, once.
		c, err := call.Unmask(good)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.key.Open(c, x); err != nil {
			t.Error(err)
		}
		if _, err := call.Unmask(good); !errors.Is(err, transform.ErrUnmasked) {
			t.Errorf("%v: unmasked again: %v", s, err)
		}
	}
}

// TestPermuteIsFreshPerCall: F_Y and U_Y differ from call to call, and between the rows of a
// call.
func TestPermuteIsFreshPerCall(t *testing.T) {
	s := transform.Scheme{Weights: transform.WeightPermute, Inputs: transform.InputPermute}
	const n = 8
	l := seal(t, ring.Q4(), s, plan.Dense(16, 1), make([]int32, 16))
	x := slices.Repeat([]int32{5}, n*16)
	seen := map[string]bool{}
	for range 4 {
		call, err := l.layer.Mask(x, n, nil)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := call.Masked()[0].Words()
		for i := range n {
			seen[fmt.Sprint(m.Row(i))] = true
		}
	}
	if len(seen) != 4*n {
		t.Errorf("%d of %d masked rows of one input differ", len(seen), 4*n)
	}
	// Rows that are marked by the place of their zero come in any order.
	orders := map[string]bool{}
	for range 8 {
		for i := range n {
			x[i*16+i] = 0
		}
		call, err := l.layer.Mask(x, n, nil)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := call.Masked()[0].Words()
		var order []int
		for i := range n {
			order = append(order, slices.Index(m.Row(i), 0))
		}
		orders[fmt.Sprint(order)] = true
	}
	if len(orders) < 7 {
		t.Errorf("%d orders of rows in 8 calls", len(orders))
	}
}

// TestPrintsRedacted prints every secret with every verb, as value and pointer.
func TestPrintsRedacted(t *testing.T) {
	op := plan.Dense(3, 2)
	w := []int32{1, 2, 3, 4, 5, 6}
	q, err := transform.QuantizeWeights(ring.Q4(), op, []float32{1, 2, 3, 4, 5, 6}, 7)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range transform.Schemes() {
		l := seal(t, ring.Q4(), s, op, w)
		pads := l.pads(t, s, 2)
		call, err := l.layer.Mask(make([]int32, 3), 1, l.pads(t, s, 1))
		if err != nil {
			t.Fatal(err)
		}
		st := l.layer.State()
		args := map[string][]any{
			"transform.Layer(redacted)":     {l.layer, *l.layer, st, &st},
			"transform.Call(redacted)":      {call, *call},
			"transform.Masked(redacted)":    {call.Masked()[0], &call.Masked()[0]},
			"transform.Quantized(redacted)": {q, *q},
		}
		if pads != nil {
			args["transform.Pads(redacted)"] = []any{pads, *pads}
		}
		for want, values := range args {
			for _, v := range values {
				for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%d", "%s", "%q", "%o", "%b", "%08.3f"} {
					if got := fmt.Sprintf(verb, v); got != want {
						t.Errorf("%s of %T prints %q", verb, v, got)
					}
				}
			}
		}
		marshalled := []any{l.layer, call, pads, call.Masked(), st, &st, q, *q, []transform.LayerState{st}}
		if pads != nil {
			left := pads.State()
			marshalled = append(marshalled, left, &left)
		}
		for _, v := range marshalled {
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if strings.ContainsAny(string(text), "0123456789") {
				t.Errorf("%T marshals to %s", v, text)
			}
		}
	}
}

// TestSealRows: rows come in parts, in order, and satisfy the equation. Their memory is reused,
// and an error ends the sealing.
func TestSealRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(44, 1))
	r, op := ring.Q4(), plan.Dense(601, 1001)
	w := fill(rng, op.In*op.Out, r.Max())
	for _, s := range transform.Schemes() {
		l, err := transform.NewLayer(r, s, op)
		if err != nil {
			t.Fatal(err)
		}
		whats, calls := make([]ring.Matrix, s.Roles()), 0
		err = l.SealRows(w, func(rows []ring.Matrix) error {
			calls++
			for role, m := range rows {
				if m.Rows != rows[0].Rows || m.Want("rows", m.Rows, op.In) != nil {
					t.Errorf("%v: role %d has %dx%d", s, role, m.Rows, m.Cols)
				}
				whats[role].Rows, whats[role].Cols = whats[role].Rows+m.Rows, op.In
				whats[role].Data = append(whats[role].Data, m.Data...)
			}
			return nil
		})
		if err != nil || calls < 3 {
			t.Fatalf("%v: %d calls, %v", s, calls, err)
		}
		if got, err := l.Unseal(whats); err != nil || !slices.Equal(got, w) {
			t.Errorf("%v: Unseal of the rows is not w: %v", s, err)
		}
		if st := l.State(); st.D != nil {
			for k := range op.Out {
				for j := range op.In {
					row, in := st.E[k], st.U[j]
					want := r.Mul(r.Mul(st.D[row], st.F[in]), r.FromSigned(w[int(row)*op.In+int(in)]))
					if whats[0].At(k, j) != want {
						t.Fatalf("%v: What[%d, %d] is not of the equation", s, k, j)
					}
				}
			}
		}
		full := errors.New("disk full")
		calls = 0
		if err := l.SealRows(w, func([]ring.Matrix) error { calls++; return full }); err != full || calls != 1 {
			t.Errorf("%v: %d calls, %v", s, calls, err)
		}
	}
}
