package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strconv"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/kernels/roofline"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

// HostResult are the figures of the host's online work.
type HostResult struct {
	CPU  string    `json:"cpu"`
	Rows []HostRow `json:"rows"`
}

// HostRow is one pass of the host's over a call.
type HostRow struct {
	Pass    string `json:"pass"`
	Shape   string `json:"shape"`
	Threads int    `json:"threads"`
	// PerWord are nanoseconds for each word that the call sends or receives,
	// whichever of them the pass is over.
	PerWord float64 `json:"ns_per_word"`

	spread [2]float64 // of PerWord
}

// The passes, in the order of rows.
const (
	quantize = iota
	expand
	mask
	unmask
	check
	dequantize
	total // the call itself: all of them in one, a tile at a time
	passes
)

var passNames = [passes]string{"quantize", "prg", "mask", "unmask", "check", "dequantize", "total"}

var hostShapes = []shape{
	{"dense-4096-batch32", plan.Dense(4096, 4096), 32},
	{"mnist-cnn-conv2-batch256", conv(12, 16, 32, 5, 0), 256},
}

// Host measures what the host does for a call under the default scheme, on one
// thread: GOMAXPROCS is 1 meanwhile. Figures are medians over rounds.
func Host(ctx context.Context, o Options) (*HostResult, error) {
	return o.scope(hostShapes).host(ctx, o.Progress)
}

func (sc scope) host(ctx context.Context, progress func(string, int, int)) (_ *HostResult, err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b := cpu.New(cpu.Options{Threads: 1})
	defer func() { err = errors.Join(err, b.Close()) }()
	result := &HostResult{CPU: processor()}
	for i, s := range sc.shapes {
		progress(s.name, i, len(sc.shapes))
		c, err := newCaller(ctx, b, s, transform.DefaultScheme())
		if err != nil {
			return nil, err
		}
		if err := rounds(sc.budget, func() error { return errors.Join(ctx.Err(), c.round()) }); err != nil {
			return nil, err
		}
		for pass, times := range c.times {
			result.Rows = append(result.Rows, HostRow{
				Pass: passNames[pass], Shape: s.name, Threads: 1, PerWord: times.median(), spread: times.spread(),
			})
		}
	}
	return result, nil
}

// xmax is the largest magnitude of an input's integer.
const xmax = 1<<11 - 1

// caller makes one call of a sealed layer, again and again: with the same pads, which
// are for that alone, so that the same answers are right.
type caller struct {
	shape
	masks   *transform.Layer
	key     *verify.Key
	pads    transform.PadsState
	first   *transform.Call // that was answered
	answers []ring.Matrix
	to      verify.Scale
	weights []float32
	w       []int32 // the weights' integers
	values  []float32
	floats  []float32 // the call's products

	// Of single passes.
	x       []int32
	y       []int32
	samples []float32 // scales
	r       []uint32  // of one sample

	times [passes]series
}

// newCaller seals a layer of random weights for a scheme of one role, has pads made where
// there are some, and a call of random values answered.
func newCaller(ctx context.Context, b plan.Multiplier, s shape, scheme transform.Scheme) (_ *caller, err error) {
	rng := rand.New(rand.NewPCG(0, 0))
	normal := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		return v
	}
	in, out := s.op.InLen(), s.op.OutLen()
	c := &caller{
		shape: s, weights: normal(s.op.Rows() * s.op.Terms()), values: normal(s.n * in), x: make([]int32, s.n*in), samples: make([]float32, s.n),
		r: make([]uint32, in), floats: make([]float32, s.n*out),
	}
	q, err := transform.QuantizeWeights(ring.Q4(), s.op, c.weights, xmax)
	if err != nil {
		return nil, err
	}
	c.w = q.W
	if c.to, err = verify.NewScale(q.Scale, nil); err != nil {
		return nil, err
	}
	if c.key, err = verify.NewKey(verify.DefaultField(), s.op, q.W); err != nil {
		return nil, err
	}
	if c.masks, err = transform.NewLayer(ring.Q4(), scheme, s.op); err != nil {
		return nil, err
	}
	what, err := c.masks.Seal(q.W)
	if err != nil {
		return nil, err
	}
	product, err := b.Load(ctx, ring.Q4(), c.masks.CloudOp(), what[0])
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, product.Close()) }()
	if err := transform.QuantizeInputs(c.x, c.samples, c.values, s.n, xmax); err != nil {
		return nil, err
	}
	var pads *transform.Pads
	if scheme.Inputs == transform.InputPad {
		if pads, err = c.masks.NewPads(ctx, product, s.n); err != nil {
			return nil, err
		}
		c.pads = pads.State()
		if pads, err = c.masks.RestorePads(c.pads); err != nil {
			return nil, err
		}
	}
	if c.first, err = c.masks.Mask(c.x, s.n, pads); err != nil {
		return nil, err
	}
	xhat, _ := c.first.Masked()[0].Words()
	c.answers = []ring.Matrix{ring.NewMatrix(xhat.Rows, c.masks.CloudOp().OutLen())}
	return c, product.Evaluate(ctx, c.answers[0], xhat)
}

// round takes the time of the call once, and of each of its passes alone.
func (c *caller) round() error {
	var took [passes]time.Duration
	var err error
	clock := func(do func() error) (took time.Duration) {
		if err != nil {
			return 0
		}
		start := roofline.ThreadTime()
		err = do()
		return roofline.ThreadTime() - start
	}
	// Pads are restored outside of the clock: they are in stock.
	var pads *transform.Pads
	restore := func() {
		if err == nil {
			pads, err = c.masks.RestorePads(c.pads)
		}
	}
	var call *transform.Call
	var candidate verify.Candidate
	open := func(expected verify.Expected, samples []float32) func() error {
		return func() error { return c.key.OpenFloats(c.floats, candidate, expected, samples, c.to) }
	}

	restore()
	took[total] = clock(func() (err error) {
		if call, err = c.masks.MaskFloats(c.values, c.n, xmax, c.key, pads); err != nil {
			return err
		}
		defer call.Close()
		if candidate, err = call.UnmaskDecoded(c.answers); err != nil {
			return err
		}
		return open(call.Expected(), call.Scales())()
	})

	took[quantize] = clock(func() error { return transform.QuantizeInputs(c.x, c.samples, c.values, c.n, xmax) })
	took[expand] = clock(func() error {
		seed := prg.New(c.pads.Seed)
		for i := range c.n {
			seed.Fill(ring.Q4(), c.r, c.pads.First+uint64(i))
		}
		return nil
	})
	restore()
	took[mask] = clock(func() (err error) { call, err = c.masks.Mask(c.x, c.n, pads); return err }) - took[expand]
	expected := c.key.Expect(c.n)
	sums := clock(func() error {
		in := len(c.r)
		for i := range c.n {
			expected.Add(i, 0, c.x[i*in:(i+1)*in])
		}
		return nil
	})
	all := clock(func() (err error) {
		if candidate, err = call.UnmaskDecoded(c.answers); err != nil {
			return err
		}
		return open(expected, c.samples)()
	})
	if err != nil {
		return err
	}
	if c.y == nil { // of every round
		if c.y, err = c.key.Open(candidate, c.x); err != nil {
			return err
		}
	}
	call.Close()
	candidate = verify.NewCandidate(c.y, c.n)
	unmasked := clock(open(expected, c.samples))
	took[dequantize] = clock(func() error { c.to.Floats(c.floats, c.y, c.samples); return nil })
	took[unmask], took[check] = all-unmasked, sums+unmasked-took[dequantize]
	if err != nil {
		return err
	}
	words := float64(c.n * (c.op.InLen() + c.op.OutLen()))
	for pass, t := range took {
		c.times[pass] = append(c.times[pass], float64(t.Nanoseconds())/words)
	}
	return nil
}

// Table writes the figures for people.
func (h *HostResult) Table(w io.Writer) error {
	t := render.Table(w)
	fmt.Fprintln(t, "pass\tshape\tthreads\tns a word\tquartiles")
	for _, r := range h.Rows {
		fmt.Fprintf(t, "%s\t%s\t%d\t%.3f\t%.3f-%.3f\n", r.Pass, r.Shape, r.Threads, r.PerWord, r.spread[0], r.spread[1])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `
ns a word: the thread's own processor time, for each word that the call sends or
receives; medians over rounds. Scheme %v, pads in stock, r made again from its
seed (prg). total: all of the host's online work for the layer, from floats to
floats, as package hostclient does it: tiles of samples go through all passes, in
memory that is used again. The other rows are one pass alone, over the whole batch:
quantize, prg and dequantize by the clock, mask, unmask and check by difference.
They do not add up to the total. Every answer is right, and checked.
`, transform.DefaultScheme())
	return err
}

// CSV writes the rows.
func (h *HostResult) CSV(w io.Writer) error {
	return writeCSV(w, []string{"pass", "shape", "threads", "ns_per_word"}, h.Rows)
}

func (r HostRow) record() []string {
	return []string{r.Pass, r.Shape, strconv.Itoa(r.Threads), decimal(r.PerWord)}
}
