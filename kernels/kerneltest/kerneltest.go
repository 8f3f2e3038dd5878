package kerneltest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// Run tests the backends that open returns, one per subtest, against the definition of
// the operators (kernels.Direct) and the contract of kernels.Backend. Run it with the
// race detector too. A test of a backend of one's own is
//
//	func TestBackend(t *testing.T) {
//		kerneltest.Run(t, func(testing.TB) kernels.Backend { return newBackend() })
//	}
func Run(t *testing.T, open func(testing.TB) kernels.Backend) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, kernels.Backend)
	}{
		{"Digest", testDigest},
		{"Operators", testOperators},
		{"Extremes", testExtremes},
		{"Tails", testTails},
		{"Tiles", testTiles},
		{"LongestSum", testLongestSum},
		{"SelfTest", func(t *testing.T, b kernels.Backend) { noError(t, kernels.SelfTest(t.Context(), b)) }},
		{"Batch", testBatch},
		{"Memory", testMemory},
		{"Concurrent", testConcurrent},
		{"BadLoad", testBadLoad},
		{"BadEvaluate", testBadEvaluate},
		{"Context", testContext},
		{"Lifecycle", testLifecycle},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := open(t)
			test.run(t, b)
			if s := b.Stats(); s.Loaded != 0 || s.Bytes != 0 {
				t.Errorf("%d products and %d bytes are left after every Close", s.Loaded, s.Bytes)
			}
			noError(t, b.Close())
		})
	}
}

func testDigest(t *testing.T, b kernels.Backend) {
	got, err := Digest(t.Context(), b)
	noError(t, err)
	if hex.EncodeToString(got[:]) != WantDigest {
		t.Errorf("digest %x, want %s", got, WantDigest)
	}
}

// example is a pair of operands with the right product.
type example struct {
	r          ring.Ring
	op         plan.Op
	w, x, want ring.Matrix
}

// examples returns a test of the examples that list adds. They are computed once for all
// backends of a process, as that takes longer than most backends do. All share the operands:
// testMemory checks that backends do not change them.
func examples(list func(add func(r ring.Ring, op plan.Op, w, x ring.Matrix))) func(*testing.T, kernels.Backend) {
	all := sync.OnceValue(func() (all []example) {
		list(func(r ring.Ring, op plan.Op, w, x ring.Matrix) {
			all = append(all, example{r, op, w, x, kernels.Direct(r, op, w, x)})
		})
		return all
	})
	return func(t *testing.T, b kernels.Backend) {
		for _, e := range all() {
			y, err := product(t.Context(), b, e.r, e.op, e.w, e.x)
			noError(t, err)
			compare(t, fmt.Sprintf("%v over %v, %d rows", e.op, e.r, e.x.Rows), y, e.want)
		}
	}
}

var testOperators = examples(func(add func(ring.Ring, plan.Op, ring.Matrix, ring.Matrix)) {
	for _, r := range rings {
		rng := rand.New(rand.NewPCG(1, uint64(r.Modulus())))
		for _, op := range operators {
			add(r, op, uniform(rng, r, op.Rows(), op.Terms()), uniform(rng, r, 2, op.InLen()))
		}
	}
})

// testExtremes takes operands of all zeros, of all M-1, and with a single 1, which picks
// one column of w and so shows misplaced words.
var testExtremes = examples(func(add func(ring.Ring, plan.Op, ring.Matrix, ring.Matrix)) {
	for _, r := range rings {
		rng := rand.New(rand.NewPCG(2, uint64(r.Modulus())))
		for _, op := range operators {
			top := r.Modulus() - 1
			add(r, op, constant(op.Rows(), op.Terms(), top), constant(2, op.InLen(), top))
			add(r, op, constant(op.Rows(), op.Terms(), 0), constant(2, op.InLen(), top))
			add(r, op, uniform(rng, r, op.Rows(), op.Terms()), constant(2, op.InLen(), 0))
			hot := ring.NewMatrix(3, op.InLen())
			for i := range hot.Rows {
				hot.Row(i)[rng.Uint64()%uint64(hot.Cols)] = 1
			}
			add(r, op, uniform(rng, r, op.Rows(), op.Terms()), hot)
		}
	}
})

// testTails takes sizes around the powers of two that kernels use as block sizes.
var testTails = examples(func(add func(ring.Ring, plan.Op, ring.Matrix, ring.Matrix)) {
	sizes := []int{31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129}
	for n := 1; n <= 20; n++ {
		sizes = append(sizes, n)
	}
	r := ring.Q4()
	rng := rand.New(rand.NewPCG(3, 0))
	dense := func(in, out, rows int) {
		add(r, plan.Dense(in, out), uniform(rng, r, out, in), uniform(rng, r, rows, in))
	}
	for _, n := range sizes {
		dense(n, 7, 3)
		dense(21, n, 3)
		dense(21, 7, n)
		dense(n, n, 1)
	}
	for _, n := range []int{255, 256, 257, 1023, 1025} {
		dense(n, 7, 3)
	}
})

// testTiles takes products large enough to be cut into tiles in every direction.
var testTiles = examples(func(add func(ring.Ring, plan.Op, ring.Matrix, ring.Matrix)) {
	rng := rand.New(rand.NewPCG(4, 0))
	for _, test := range []struct {
		op   plan.Op
		rows int
	}{
		{plan.Dense(1100, 67), 33},
		{plan.Dense(3, 4999), 67},
		{plan.Dense(40_001, 3), 15},
		{conv(plan.Conv2D{H: 7, W: 9, C: 40, OutC: 61, KH: 3, KW: 3, Top: 1, Left: 1, Bot: 1, Right: 1}), 2},
		{conv(plan.Conv2D{H: 30, W: 40, C: 16, OutC: 2, KH: 2, KW: 2}), 8},
		{conv(plan.Conv2D{H: 9, W: 13, C: 128, OutC: 70, KH: 3, KW: 2, SW: 2, DH: 2, Top: 1, Left: 1, Bot: 2}), 5},
		{conv(plan.Conv2D{H: 10, W: 7, C: 160, OutC: 130, KH: 2, KW: 3, SH: 3, DW: 2, Left: 1, Right: 2}), 6},
		{conv(plan.Conv2D{H: 11, W: 12, C: 64, OutC: 65, KH: 4, KW: 3, SH: 2, SW: 3, Top: 2, Left: 1, Bot: 1, Right: 1}), 9},
		{conv(plan.Conv2D{H: 8, W: 8, C: 300, OutC: 300, KH: 3, KW: 3, Groups: 300}), 1},
	} {
		r := ring.Q4()
		add(r, test.op, uniform(rng, r, test.op.Rows(), test.op.Terms()), uniform(rng, r, test.rows, test.op.InLen()))
	}
})

// testLongestSum takes contractions of ring.MaxTerms terms, in one run, in several, and in runs of
// one, of the words whose residues are nearest to 0 and furthest from it.
var testLongestSum = examples(func(add func(ring.Ring, plan.Op, ring.Matrix, ring.Matrix)) {
	for _, r := range rings {
		rng := rand.New(rand.NewPCG(5, uint64(r.Modulus())))
		for _, op := range []plan.Op{
			plan.Dense(ring.MaxTerms, 5),
			conv(plan.Conv2D{H: 5, W: 4, C: ring.MaxTerms / 16, OutC: 2, KH: 4, KW: 4}),
			conv(plan.Conv2D{H: 256, W: 511, C: 1, OutC: 2, KH: 256, KW: 256, DW: 2}),
		} {
			for _, word := range []uint32{r.Modulus() - 1, r.Modulus() / 2} {
				add(r, op, constant(op.Rows(), op.Terms(), word), constant(1, op.InLen(), word))
			}
			add(r, op, uniform(rng, r, op.Rows(), op.Terms()), uniform(rng, r, 1, op.InLen()))
		}
	}
})

// testBatch: a batch gives the same words as its rows one by one.
func testBatch(t *testing.T, b kernels.Backend) {
	r := ring.Q4()
	rng := rand.New(rand.NewPCG(6, 0))
	for _, op := range operators {
		const rows = 9
		p, err := b.Load(t.Context(), r, op, uniform(rng, r, op.Rows(), op.Terms()))
		noError(t, err)
		x := uniform(rng, r, rows, op.InLen())
		y, single := ring.NewMatrix(rows, op.OutLen()), ring.NewMatrix(rows, op.OutLen())
		noError(t, p.Evaluate(t.Context(), y, x))
		for i := range rows {
			noError(t, p.Evaluate(t.Context(), single.RowRange(i, i+1), x.RowRange(i, i+1)))
		}
		compare(t, fmt.Sprintf("%v: batch against single rows", op), y, single)
		noError(t, p.Evaluate(t.Context(), ring.NewMatrix(0, op.OutLen()), ring.NewMatrix(0, op.InLen())))
		noError(t, p.Close())
	}
}

// testMemory: y is overwritten whatever it holds, words beside it are not, x and w are
// unchanged, and w may change after Load.
func testMemory(t *testing.T, b kernels.Backend) {
	r := ring.Q4()
	rng := rand.New(rand.NewPCG(7, 0))
	for _, op := range operators {
		const rows, guard = 3, 64
		w, x := uniform(rng, r, op.Rows(), op.Terms()), uniform(rng, r, rows, op.InLen())
		want := kernels.Direct(r, op, w, x)
		wCopy, xCopy := slices.Clone(w.Data), slices.Clone(x.Data)

		p, err := b.Load(t.Context(), r, op, w)
		noError(t, err)
		if !slices.Equal(w.Data, wCopy) {
			t.Errorf("%v: Load changes w", op)
		}
		clear(w.Data)
		// x and y side by side, between guards.
		words := constant(1, guard+len(x.Data)+guard+len(want.Data)+guard, ^uint32(0)).Data
		in := words[guard:][:len(x.Data)]
		out := words[guard+len(in)+guard:][:len(want.Data)]
		copy(in, x.Data)
		noError(t, p.Evaluate(t.Context(),
			ring.Matrix{Rows: rows, Cols: op.OutLen(), Data: out}, ring.Matrix{Rows: rows, Cols: op.InLen(), Data: in}))
		compare(t, fmt.Sprintf("%v: with y full of ones, and w cleared after Load", op),
			ring.Matrix{Rows: rows, Cols: op.OutLen(), Data: slices.Clone(out)}, want)
		if !slices.Equal(in, xCopy) {
			t.Errorf("%v: Evaluate changes x", op)
		}
		copy(in, constant(1, len(in), ^uint32(0)).Data)
		copy(out, constant(1, len(out), ^uint32(0)).Data)
		for i, a := range words {
			if a != ^uint32(0) {
				t.Errorf("%v: Evaluate writes beside y, at word %d of %d", op, i, len(words))
				break
			}
		}
		noError(t, p.Close())
	}
}

// testConcurrent: products are loaded and evaluated by many goroutines at once.
func testConcurrent(t *testing.T, b kernels.Backend) {
	r := ring.Q4()
	for _, op := range []plan.Op{
		plan.Dense(67, 33),
		conv(plan.Conv2D{H: 8, W: 7, C: 4, OutC: 6, KH: 3, KW: 3, Top: 1, Groups: 2}),
	} {
		rng := rand.New(rand.NewPCG(8, 0))
		w, x := uniform(rng, r, op.Rows(), op.Terms()), uniform(rng, r, 6, op.InLen())
		want := kernels.Direct(r, op, w, x)
		shared, err := b.Load(t.Context(), r, op, w)
		noError(t, err)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				own, err := b.Load(t.Context(), r, op, w)
				if err != nil {
					t.Error(err)
					return
				}
				for j := range 3 {
					from := (i + j) % x.Rows
					rows := x.RowRange(from, x.Rows)
					for _, p := range []plan.Product{shared, own} {
						y := ring.NewMatrix(rows.Rows, op.OutLen())
						if err := p.Evaluate(t.Context(), y, rows); err != nil {
							t.Error(err)
						}
						compare(t, fmt.Sprintf("%v: concurrent", op), y, want.RowRange(from, x.Rows))
					}
				}
				if err := own.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		noError(t, shared.Close())
	}
}

func testBadLoad(t *testing.T, b kernels.Backend) {
	r, op := ring.Q4(), plan.Dense(6, 6)
	good := ring.NewMatrix(6, 6)
	nonCanonical := constant(6, 6, r.Modulus()-1)
	nonCanonical.Data[35] = r.Modulus()

	for _, test := range []struct {
		name string
		ring ring.Ring
		op   plan.Op
		w    ring.Matrix
		is   error // nil: a *ring.ShapeError
	}{
		{"no ring", ring.Ring{}, op, good, ring.ErrParameters},
		{"no operator", r, plan.Op{}, good, plan.ErrInvalid},
		{"no stride", r, plan.Conv(plan.Conv2D{H: 6, W: 1, C: 1, OutC: 6, KH: 6, KW: 1, DH: 1, DW: 1, Groups: 1}), good, plan.ErrInvalid},
		{"sum too long", r, plan.Dense(ring.MaxTerms+1, 6), good, plan.ErrInvalid},
		{"column-major", r, op, good.T(), nil},
		{"too few rows", r, op, ring.NewMatrix(5, 6), nil},
		{"too few columns", r, op, ring.NewMatrix(6, 5), nil},
		{"data cut short", r, op, ring.Matrix{Rows: 6, Cols: 6, Data: make([]uint32, 35)}, nil},
		{"data too long", r, op, ring.Matrix{Rows: 6, Cols: 6, Data: make([]uint32, 37)}, nil},
		{"no data", r, op, ring.Matrix{}, nil},
	} {
		before := b.Stats()
		p, err := b.Load(t.Context(), test.ring, test.op, test.w)
		wantError(t, "Load: "+test.name, err, test.is)
		if p != nil {
			t.Errorf("Load: %s: both a product and an error", test.name)
		}
		if after := b.Stats(); after != before {
			t.Errorf("Load: %s: counters go from %+v to %+v", test.name, before, after)
		}
	}
	_, err := b.Load(t.Context(), r, op, nonCanonical)
	if e := (*ring.NonCanonicalError)(nil); !errors.As(err, &e) || e.Index != 35 {
		t.Errorf("Load with word 35 = M: error %v, want a *ring.NonCanonicalError at 35", err)
	}
}

func testBadEvaluate(t *testing.T, b kernels.Backend) {
	p, err := b.Load(t.Context(), ring.Q4(), plan.Dense(4, 3), ring.NewMatrix(3, 4))
	noError(t, err)
	x, y := ring.NewMatrix(4, 4), ring.NewMatrix(4, 3)
	huge := ring.Matrix{Rows: 1 << 62, Cols: 4} // 4·2^62 words wrap to 0
	for _, test := range []struct {
		name string
		y, x ring.Matrix
	}{
		{"column-major x", y, x.T()},
		{"column-major y", ring.NewMatrix(3, 4).T(), x},
		{"fewer rows of y", y.RowRange(0, 3), x},
		{"fewer rows of x", y, x.RowRange(0, 3)},
		{"columns of x", y, ring.NewMatrix(4, 5)},
		{"columns of y", ring.NewMatrix(4, 4), x},
		{"x cut short", y, ring.Matrix{Rows: 4, Cols: 4, Data: x.Data[:15]}},
		{"y cut short", ring.Matrix{Rows: 4, Cols: 3, Data: y.Data[:11]}, x},
		{"no x", y, ring.Matrix{}},
		{"no y", ring.Matrix{}, x},
		{"negative rows", ring.Matrix{Rows: -1, Cols: 3}, ring.Matrix{Rows: -1, Cols: 4}},
		{"rows that overflow", ring.Matrix{Rows: 1 << 62, Cols: 3}, huge},
	} {
		before := b.Stats()
		wantError(t, "Evaluate: "+test.name, p.Evaluate(t.Context(), test.y, test.x), nil)
		if after := b.Stats(); after != before {
			t.Errorf("Evaluate: %s: counters go from %+v to %+v", test.name, before, after)
		}
	}
	noError(t, p.Close())
}

// testContext: nothing is loaded or counted once the caller has cancelled.
func testContext(t *testing.T, b kernels.Backend) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	r, op := ring.Q4(), plan.Dense(5, 4)
	if _, err := b.Load(gone, r, op, ring.NewMatrix(4, 5)); !errors.Is(err, context.Canceled) {
		t.Errorf("Load with a cancelled context: error %v", err)
	}
	p, err := b.Load(t.Context(), r, op, ring.NewMatrix(4, 5))
	noError(t, err)
	x, y := ring.NewMatrix(3, 5), ring.NewMatrix(3, 4)
	if err := p.Evaluate(gone, y, x); !errors.Is(err, context.Canceled) {
		t.Errorf("Evaluate with a cancelled context: error %v", err)
	}
	if s := b.Stats(); s.Calls != 0 || s.Samples != 0 || s.MulAdds != 0 {
		t.Errorf("cancelled work is counted: %+v", s)
	}
	noError(t, p.Evaluate(t.Context(), y, x))
	noError(t, p.Close())
}

// testLifecycle: the counters, and the calls that are allowed after Close.
func testLifecycle(t *testing.T, b kernels.Backend) {
	if b.Name() == "" {
		t.Error("no name")
	}
	if s := b.Stats(); s != (kernels.Stats{}) {
		t.Errorf("a new backend counts %+v", s)
	}
	r, op := ring.Q4(), plan.Dense(50, 40)
	load := func() plan.Product {
		p, err := b.Load(t.Context(), r, op, constant(40, 50, 1))
		noError(t, err)
		return p
	}
	p := load()
	one := b.Stats()
	if one.Loaded != 1 || one.Bytes <= 0 {
		t.Errorf("with one product loaded: %+v", one)
	}
	q := load()
	if s := b.Stats(); s.Loaded != 2 || s.Bytes != 2*one.Bytes {
		t.Errorf("with two equal products loaded: %+v, with one %+v", s, one)
	}
	evaluate := func(p plan.Product, rows int) error {
		return p.Evaluate(t.Context(), ring.NewMatrix(rows, 40), ring.NewMatrix(rows, 50))
	}
	noError(t, evaluate(p, 7))
	noError(t, evaluate(q, 0))
	noError(t, evaluate(q, 4))
	if s := b.Stats(); s.Calls != 3 || s.Samples != 11 || s.MulAdds != 11*op.MulAdds() || s.ComputeNS <= 0 {
		t.Errorf("after 3 calls of 7, 0 and 4 rows: %+v", s)
	}
	noError(t, p.Close())
	noError(t, p.Close())
	if s := b.Stats(); s.Loaded != 1 || s.Bytes != one.Bytes {
		t.Errorf("after closing one of two products, twice: %+v", s)
	}
	if err := evaluate(p, 1); !errors.Is(err, kernels.ErrClosed) {
		t.Errorf("Evaluate after Close: error %v", err)
	}
	if err := b.Close(); !errors.Is(err, kernels.ErrClosed) {
		t.Errorf("Close with a product open: error %v", err)
	}
	noError(t, evaluate(q, 1))
	noError(t, q.Close())
	noError(t, b.Close())
	if _, err := b.Load(t.Context(), r, op, constant(40, 50, 1)); !errors.Is(err, kernels.ErrClosed) {
		t.Errorf("Load after Close: error %v", err)
	}
}

func compare(t *testing.T, what string, got, want ring.Matrix) {
	t.Helper()
	for i := range want.Data {
		if got.Data[i] != want.Data[i] {
			t.Errorf("%s: row %d, word %d is %d, want %d",
				what, i/want.Cols, i%want.Cols, got.Data[i], want.Data[i])
			return
		}
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantError wants an error that wraps is, or a *ring.ShapeError if is is nil.
func wantError(t *testing.T, what string, err, is error) {
	t.Helper()
	if shape := (*ring.ShapeError)(nil); is == nil && !errors.As(err, &shape) {
		t.Errorf("%s: error %v, want a *ring.ShapeError", what, err)
	}
	if is != nil && !errors.Is(err, is) {
		t.Errorf("%s: error %v, want %v", what, err, is)
	}
}

func constant(rows, cols int, a uint32) ring.Matrix {
	m := ring.NewMatrix(rows, cols)
	for i := range m.Data {
		m.Data[i] = a
	}
	return m
}
