package transform_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

var padded = []transform.Scheme{
	{Weights: transform.WeightPermute, Inputs: transform.InputPad},
	{Weights: transform.WeightNone, Inputs: transform.InputPad},
}

// TestPadsSplit: pads taken in any portions serve once each, and r never repeats.
func TestPadsSplit(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 1))
	op := plan.Dense(9, 4)
	for _, s := range padded {
		w := fill(rng, 36, 1000)
		l := seal(t, ring.Q4(), s, op, w)
		pads := l.pads(t, s, 20)
		seen, left := map[string]bool{}, 20
		for _, n := range []int{1, 5, 2, 7, 5} {
			part, err := pads.Take(n)
			if err != nil {
				t.Fatal(err)
			}
			left -= n
			if part.Len() != n || pads.Len() != left {
				t.Fatalf("%d taken and %d left, want %d and %d", part.Len(), pads.Len(), n, left)
			}
			// Pads taken from taken pads serve, too.
			first, err := part.Take(1)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range []*transform.Pads{part, first} {
				if p.Len() == 0 {
					continue
				}
				x := make([]int32, p.Len()*9) // masked zeros are r
				call, err := l.layer.Mask(x, p.Len(), p)
				if err != nil {
					t.Fatal(err)
				}
				m, _ := call.Masked()[0].Words()
				for i := range m.Rows {
					seen[fmt.Sprint(m.Row(i))] = true
				}
				c, err := call.Unmask(l.answers(t, call))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := l.key.Open(c, x); err != nil {
					t.Fatal(err)
				}
			}
		}
		if len(seen) != 20 {
			t.Errorf("%v: %d different r of 20", s, len(seen))
		}
		if _, err := pads.Take(1); !errors.Is(err, transform.ErrPads) {
			t.Errorf("Take from none: %v", err)
		}
	}
}

func TestPadsServeOnce(t *testing.T) {
	s := transform.DefaultScheme()
	op := plan.Dense(3, 2)
	l := seal(t, ring.Q4(), s, op, []int32{1, 2, 3, 4, 5, 6})
	other := seal(t, ring.Q4(), s, op, []int32{1, 2, 3, 4, 5, 6})
	x := make([]int32, 6)
	refused := func(why string, pads *transform.Pads, n int) {
		t.Helper()
		if call, err := l.layer.Mask(x[:3*n], n, pads); !errors.Is(err, transform.ErrPads) || call != nil {
			t.Errorf("%s: %v, want ErrPads", why, err)
		}
	}

	pads := l.pads(t, s, 2)
	duplicate := *pads
	refused("none", nil, 2)
	refused("another layer's", other.pads(t, s, 2), 2)
	refused("too many", pads, 1)
	refused("too few", l.pads(t, s, 1), 2)
	if pads.Len() != 2 {
		t.Fatal("a refusal used pads up")
	}
	l.run(t, x, 2, pads)
	refused("used before", pads, 2)
	refused("a copy of used ones", &duplicate, 2)
	if _, err := pads.Take(1); !errors.Is(err, transform.ErrPads) {
		t.Errorf("Take from used pads: %v", err)
	}
	if pads.Len() != 0 {
		t.Errorf("%d left of used pads", pads.Len())
	}

	pads = l.pads(t, s, 3)
	for _, n := range []int{0, -1, 4, math.MinInt64, math.MaxInt64} {
		if _, err := pads.Take(n); !errors.Is(err, transform.ErrPads) {
			t.Errorf("Take(%d) of 3: %v", n, err)
		}
	}
	part, err := pads.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	l.run(t, x, 2, pads)
	l.run(t, x[:3], 1, part)

	paper := transform.Scheme{Weights: transform.WeightPermute, Inputs: transform.InputPermute}
	p := seal(t, ring.Q4(), paper, op, make([]int32, 6))
	if _, err := p.layer.NewPads(t.Context(), p.prod, 1); !errors.Is(err, transform.ErrPads) {
		t.Errorf("pads under %v: %v", paper, err)
	}
	if _, err := p.layer.Mask(x, 2, l.pads(t, s, 2)); !errors.Is(err, transform.ErrPads) {
		t.Errorf("Mask with pads under %v: %v", paper, err)
	}
	for _, n := range []int{0, -1} {
		if _, err := l.layer.NewPads(t.Context(), l.prod, n); !errors.Is(err, transform.ErrShape) {
			t.Errorf("NewPads of %d: %v", n, err)
		}
	}
}

// TestPadsState: pads restored from their state are the same pads, and the original is empty.
func TestPadsState(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 2))
	for _, s := range padded {
		l := seal(t, ring.Q4(), s, plan.Dense(9, 4), fill(rng, 36, 1000))
		pads := l.pads(t, s, 5)
		if _, err := pads.Take(1); err != nil {
			t.Fatal(err)
		}
		duplicate := *pads
		st := pads.State()
		if pads.Len() != 0 || duplicate.Len() != 0 || len(st.U) != 4 || st.First != 1 {
			t.Fatalf("%d left, %d samples from %d in the state", pads.Len(), len(st.U), st.First)
		}
		if text := fmt.Sprintf("%v %+v %#v %s %x", st, st, &st, st, st); strings.ContainsAny(text, "0123456789") {
			t.Errorf("printed %s", text)
		}
		if empty := pads.State(); len(empty.U) != 0 {
			t.Errorf("%d samples in a second state", len(empty.U))
		}
		if _, err := l.layer.Mask(make([]int32, 4*9), 4, pads); !errors.Is(err, transform.ErrPads) {
			t.Errorf("Mask after State: %v", err)
		}
		again, err := l.layer.RestorePads(st)
		if err != nil {
			t.Fatal(err)
		}
		r := make([]uint32, 4*9)
		for i := range 4 {
			prg.New(st.Seed).Fill(ring.Q4(), r[i*9:(i+1)*9], uint64(1+i))
		}
		call, err := l.layer.Mask(make([]int32, 4*9), 4, again)
		if err != nil {
			t.Fatal(err)
		}
		if m, _ := call.Masked()[0].Words(); !slices.Equal(m.Data, r) {
			t.Error("zero is not masked by the r of the state")
		}
		again, err = l.layer.RestorePads(st)
		if err != nil {
			t.Fatal(err)
		}
		l.run(t, fill(rng, 4*9, 1000), 4, again)

		row := func(v ...uint32) [][]uint32 { return [][]uint32{st.U[0], v} }
		for what, bad := range map[string]transform.PadsState{
			"nothing":         {Seed: st.Seed},
			"a short row":     {Seed: st.Seed, U: row(1, 2, 3)},
			"a long row":      {Seed: st.Seed, U: row(1, 2, 3, 4, 5)},
			"not canonical":   {Seed: st.Seed, U: row(1, 2, 3, ring.Q4().Modulus())},
			"indices run out": {Seed: st.Seed, First: math.MaxUint64, U: st.U[:2]},
		} {
			if _, err := l.layer.RestorePads(bad); !errors.Is(err, transform.ErrPads) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	split := transform.Scheme{Weights: transform.WeightPermute, Inputs: transform.InputSplit}
	l := seal(t, ring.Q4(), split, plan.Dense(9, 4), make([]int32, 36))
	if _, err := l.layer.RestorePads(transform.PadsState{U: [][]uint32{make([]uint32, 4)}}); !errors.Is(err, transform.ErrPads) {
		t.Errorf("pads under %v: %v", split, err)
	}
}

func TestPadsConcurrently(t *testing.T) {
	s := transform.DefaultScheme()
	l := seal(t, ring.Q4(), s, plan.Dense(8, 3), make([]int32, 24))
	pads := l.pads(t, s, 100)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		seen = map[string]bool{}
		dry  atomic.Int32
	)
	for range 8 {
		wg.Go(func() {
			for {
				part, err := pads.Take(3)
				if err != nil {
					dry.Add(1)
					return
				}
				call, err := l.layer.Mask(make([]int32, 24), 3, part)
				if err != nil {
					t.Error(err)
					return
				}
				m, _ := call.Masked()[0].Words()
				mu.Lock()
				for i := range m.Rows {
					seen[fmt.Sprint(m.Row(i))] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 99 || dry.Load() != 8 || pads.Len() != 1 {
		t.Errorf("%d different r, %d left", len(seen), pads.Len())
	}

	pads = l.pads(t, s, 1)
	var served atomic.Int32
	for range 16 {
		wg.Go(func() {
			if _, err := l.layer.Mask(make([]int32, 8), 1, pads); err == nil {
				served.Add(1)
			} else if !errors.Is(err, transform.ErrPads) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if served.Load() != 1 {
		t.Errorf("pads of one call served %d", served.Load())
	}
}

// countingProduct notes the sizes of the batches that it evaluates.
type countingProduct struct {
	plan.Product
	rows []int
	err  error
}

func (p *countingProduct) Evaluate(ctx context.Context, y, x ring.Matrix) error {
	p.rows = append(p.rows, x.Rows)
	if p.err != nil && len(p.rows) == 2 {
		return p.err
	}
	return p.Product.Evaluate(ctx, y, x)
}

// TestPadsInChunks: large layers evaluate pads a bounded number of words at a time, which does
// not change the pads.
func TestPadsInChunks(t *testing.T) {
	s := transform.DefaultScheme()
	op := plan.Conv(plan.Conv2D{H: 500, W: 800, C: 1, OutC: 1, KH: 1, KW: 1, SH: 100, SW: 100, DH: 1, DW: 1, Groups: 1})
	l := seal(t, ring.Q4(), s, op, []int32{3})
	count := &countingProduct{Product: l.prod}
	pads, err := l.layer.NewPads(t.Context(), count, 5)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(count.rows, []int{2, 2, 1}) {
		t.Errorf("batches of %v rows", count.rows)
	}
	x := make([]int32, 5*op.InLen())
	for i := range x {
		x[i] = int32(i % 1000)
	}
	y := l.run(t, x, 5, pads)
	for i, want := range oracle(op, l.w, x[4*op.InLen():]) {
		if int64(y[4*op.OutLen()+i]) != want.Int64() {
			t.Fatalf("output %d of the last sample: %d, want %v", i, y[4*op.OutLen()+i], want)
		}
	}
	broken := &countingProduct{Product: l.prod, err: context.Canceled}
	if pads, err := l.layer.NewPads(t.Context(), broken, math.MaxInt); !errors.Is(err, context.Canceled) || pads != nil {
		t.Errorf("a product that fails: %v", err)
	}
}

// TestPaddedWordsAreUniform: under pads, the words that the cloud receives do not depend on the
// inputs: equal inputs give different words, uniform modulo each prime, for the lowest and the
// highest inputs alike. The limit is 8 standard deviations.
func TestPaddedWordsAreUniform(t *testing.T) {
	const n, in = 32, 2048
	r := ring.Q4()
	for _, s := range padded {
		l, err := transform.NewLayer(r, s, plan.Dense(in, 1))
		if err != nil {
			t.Fatal(err)
		}
		for _, value := range []int32{0, 1, r.Max(), -r.Max()} {
			pads, err := l.NewPads(t.Context(), zeroProduct{}, n)
			if err != nil {
				t.Fatal(err)
			}
			call, err := l.Mask(slices.Repeat([]int32{value}, n*in), n, pads)
			if err != nil {
				t.Fatal(err)
			}
			m, _ := call.Masked()[0].Words()
			if slices.Equal(m.Row(0), m.Row(1)) {
				t.Errorf("%v: equal inputs give equal words", s)
			}
			wantUniform(t, fmt.Sprintf("%v, inputs of %d", s, value), r, m)
		}
	}
}

// wantUniform compares counts of residues with uniform words, modulo each prime.
func wantUniform(t *testing.T, what string, r ring.Ring, m ring.Matrix) {
	t.Helper()
	for _, p := range r.Primes() {
		counts := make([]float64, p)
		for _, a := range m.Data {
			counts[a%p]++
		}
		chi, want := 0.0, float64(len(m.Data))/float64(p)
		for _, c := range counts {
			chi += (c - want) * (c - want) / want
		}
		if limit := float64(p-1) + 8*math.Sqrt(2*float64(p-1)); chi > limit {
			t.Errorf("%s, mod %d: chi-square %.0f > %.0f", what, p, chi, limit)
		}
	}
}
