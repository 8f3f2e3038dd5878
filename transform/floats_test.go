package transform_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// tiled are operators whose inputs or products take more than one tile, or one unusually long
// tile.
var tiled = []struct {
	name string
	op   plan.Op
}{
	{"dense 2600->2", plan.Dense(2600, 2)},
	{"dense 2->2600", plan.Dense(2, 2600)},
	{"conv of tiles", plan.Conv(plan.Conv2D{H: 30, W: 45, C: 3, OutC: 4, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1})},
}

// within returns weights with Σ |w| over each row of at most budget.
func within(rng *rand.Rand, op plan.Op, budget int32) []int32 {
	terms := op.Terms()
	if each := min(budget/int32(terms), 1000); each > 0 {
		return fill(rng, op.Rows()*terms, each)
	}
	w := make([]int32, op.Rows()*terms)
	for row := range slices.Chunk(w, terms) {
		row[rng.IntN(terms)] = budget - 2*budget*rng.Int32N(2)
	}
	return w
}

// TestMaskFloats: masked floats have the products of their integers, for every scheme and
// operator, and for small and large integers.
func TestMaskFloats(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 1))
	for _, s := range transform.Schemes() {
		for _, c := range slices.Concat(ops, tiled) {
			if !supported(s, c.op) {
				continue
			}
			bounds := []int32{1000, 1 << 20, 1<<20 + 1, ring.Q4().Max()}
			if testing.Short() {
				bounds = bounds[1:3]
			}
			for _, xmax := range bounds {
				t.Run(fmt.Sprintf("%v/%s/%d", s, c.name, xmax), func(t *testing.T) {
					const n = 3
					r := ring.Q4()
					in, out := c.op.InLen(), c.op.OutLen()
					w := within(rng, c.op, r.Max()/xmax)
					l := seal(t, r, s, c.op, w)
					x := make([]float32, n*in)
					for i := range x {
						x[i] = float32(rng.NormFloat64())
					}
					clear(x[in : 2*in])
					q, scale := make([]int32, len(x)), make([]float32, n)
					if err := transform.QuantizeInputs(q, scale, x, n, xmax); err != nil {
						t.Fatal(err)
					}
					want := l.run(t, q, n, l.pads(t, s, n))

					call, err := l.layer.MaskFloats(x, n, xmax, l.key, l.pads(t, s, n))
					if err != nil {
						t.Fatal(err)
					}
					defer call.Close()
					if !slices.Equal(call.Scales(), scale) {
						t.Errorf("scales %v, want %v", call.Scales(), scale)
					}
					answers := l.answers(t, call)
					candidate, err := call.UnmaskDecoded(answers)
					if err != nil {
						t.Fatal(err)
					}
					if got, err := l.key.Open(candidate, q); err != nil || !slices.Equal(got, want) {
						t.Fatalf("other products: %v", err)
					}
					row := make([]float32, c.op.Rows())
					for i := range row {
						row[i] = float32(rng.ExpFloat64())
					}
					to, err := verify.NewScale(row, nil)
					if err != nil {
						t.Fatal(err)
					}
					got, floats := make([]float32, n*out), make([]float32, n*out)
					to.Floats(floats, want, scale)
					if err := l.key.OpenFloats(got, candidate, call.Expected(), call.Scales(), to); err != nil || !slices.Equal(got, floats) {
						t.Errorf("other floats: %v", err)
					}
					answers[0].Data[len(answers[0].Data)-1] ^= 1 // candidates read the answers when they are opened
					if err := l.key.OpenFloats(got, candidate, call.Expected(), call.Scales(), to); !errors.Is(err, verify.ErrRejected) {
						t.Errorf("a wrong answer: %v", err)
					}
				})
			}
		}
	}
}

// TestMaskFloatsRefuses: on an error nothing is masked. Pads are unchanged, unless values are not
// finite.
func TestMaskFloatsRefuses(t *testing.T) {
	op, s := plan.Dense(4, 2), transform.DefaultScheme()
	l, other := seal(t, ring.Q4(), s, op, make([]int32, 8)), seal(t, ring.Q4(), s, plan.Dense(2, 4), make([]int32, 8))
	pads := l.pads(t, s, 2)
	good := []float32{1, 2, 3, 4, 5, 6, 7, 8}
	for name, c := range map[string]struct {
		x    []float32
		xmax int32
		key  *verify.Key
		want error
	}{
		"fewer inputs":        {good[1:], 100, l.key, transform.ErrShape},
		"no bound":            {good, 0, l.key, transform.ErrRange},
		"past the ring":       {good, ring.Q4().Max() + 1, l.key, transform.ErrRange},
		"another layer's key": {good, 100, other.key, transform.ErrShape},
	} {
		if _, err := l.layer.MaskFloats(c.x, 2, c.xmax, c.key, pads); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", name, err, c.want)
		}
	}
	if pads.Len() != 2 {
		t.Errorf("pads of %d samples are left", pads.Len())
	}
	if _, err := l.layer.MaskFloats(good, 2, 100, l.key, pads); err != nil {
		t.Error(err)
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		x, pads := slices.Clone(good), l.pads(t, s, 2)
		x[6] = float32(bad)
		var e *transform.NotFiniteError
		if call, err := l.layer.MaskFloats(x, 2, 100, l.key, pads); !errors.As(err, &e) || e.Index != 1 || call != nil {
			t.Errorf("%v: error %v, want sample 1", bad, err)
		}
		if pads.Len() != 0 {
			t.Errorf("%v: pads of %d samples are left", bad, pads.Len())
		}
	}
}

// TestMaskedWordsLive: masked words are unchanged until their call is closed and their holders
// have released them. Only then can another call get them.
func TestMaskedWordsLive(t *testing.T) {
	const n = 40
	op := plan.Dense(300, 5)
	s := transform.Scheme{Weights: transform.WeightPermute, Inputs: transform.InputSplit}
	l := seal(t, ring.Q4(), s, op, make([]int32, 1500))
	mask := func() (*transform.Call, []uint32) {
		call, err := l.layer.Mask(make([]int32, n*op.In), n, nil)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := call.Masked()[0].Words()
		return call, m.Data
	}
	// others masks several calls at once, enough to use any free memory.
	others := func() (used map[*uint32]bool) {
		used = map[*uint32]bool{}
		var calls []*transform.Call
		for range 20 {
			call, words := mask()
			calls = append(calls, call)
			if used[&words[0]] {
				t.Error("two calls have one memory")
			}
			used[&words[0]] = true
		}
		for _, call := range calls {
			call.Close()
		}
		return used
	}
	call, words := mask()
	was := slices.Clone(words)
	same := func(id string) {
		t.Helper()
		if others()[&words[0]] || !slices.Equal(words, was) {
			t.Errorf("%s: the words serve another call", id)
		}
	}
	release, again := call.Masked()[0].Hold(), call.Masked()[0].Hold()
	call.Masked()[1].Hold()() // of a seed
	same("open, held")
	release()
	same("open, held once")
	call.Close()
	same("closed, held once")
	if call.Masked() != nil {
		t.Error("a closed call can be sent again")
	}
	if _, err := call.Unmask(nil); !errors.Is(err, transform.ErrUnmasked) {
		t.Errorf("a closed call: %v", err)
	}
	call.Close() // does nothing
	same("closed twice")
	again()
	defer func() {
		if recover() == nil {
			t.Error("a hold can be let go twice")
		}
	}()
	again()
}
