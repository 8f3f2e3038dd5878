package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/layer"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/kernels/roofline"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
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
func Host(ctx context.Context, o measure.Options) (*HostResult, error) {
	return newScope(o, hostShapes).host(ctx, o.Progress)
}

func (sc scope) host(ctx context.Context, progress func(string, int, int)) (_ *HostResult, err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b := cpu.New(cpu.Options{Threads: 1})
	defer func() { err = errors.Join(err, b.Close()) }()
	result := &HostResult{CPU: measure.Processor()}
	for i, s := range sc.shapes {
		progress(s.name, i, len(sc.shapes))
		call, err := layer.New(ctx, b, s.op, s.n, transform.DefaultScheme())
		if err != nil {
			return nil, err
		}
		c := &caller{Call: call}
		if err := measure.Rounds(sc.budget, func() error { return errors.Join(ctx.Err(), c.round()) }); err != nil {
			return nil, err
		}
		for pass, times := range c.times {
			result.Rows = append(result.Rows, HostRow{
				Pass: passNames[pass], Shape: s.name, Threads: 1, PerWord: times.Median(), spread: times.Spread(),
			})
		}
	}
	return result, nil
}

// caller makes one call of a sealed layer, again and again.
type caller struct {
	*layer.Call
	times [passes]measure.Series
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
			pads, err = c.Masks.RestorePads(c.Pads)
		}
	}
	var call *transform.Call
	var candidate verify.Candidate
	open := func(expected verify.Expected, samples []float32) func() error {
		return func() error { return c.Key.OpenFloats(c.Floats, candidate, expected, samples, c.To) }
	}

	restore()
	took[total] = clock(func() (err error) {
		if call, err = c.Masks.MaskFloats(c.Values, c.N, layer.XMax, c.Key, pads); err != nil {
			return err
		}
		defer call.Close()
		if candidate, err = call.UnmaskDecoded(c.Answers); err != nil {
			return err
		}
		return open(call.Expected(), call.Scales())()
	})

	took[quantize] = clock(func() error { return transform.QuantizeInputs(c.X, c.Samples, c.Values, c.N, layer.XMax) })
	took[expand] = clock(func() error {
		seed := prg.New(c.Pads.Seed)
		for i := range c.N {
			seed.Fill(ring.Q4(), c.R, c.Pads.First+uint64(i))
		}
		return nil
	})
	restore()
	took[mask] = clock(func() (err error) { call, err = c.Masks.Mask(c.X, c.N, pads); return err }) - took[expand]
	expected := c.Key.Expect(c.N)
	sums := clock(func() error {
		in := len(c.R)
		for i := range c.N {
			expected.Add(i, 0, c.X[i*in:(i+1)*in])
		}
		return nil
	})
	all := clock(func() (err error) {
		if candidate, err = call.UnmaskDecoded(c.Answers); err != nil {
			return err
		}
		return open(expected, c.Samples)()
	})
	if err != nil {
		return err
	}
	if c.Y == nil { // of every round
		if c.Y, err = c.Key.Open(candidate, c.X); err != nil {
			return err
		}
	}
	call.Close()
	candidate = verify.NewCandidate(c.Y, c.N)
	unmasked := clock(open(expected, c.Samples))
	took[dequantize] = clock(func() error { c.To.Floats(c.Floats, c.Y, c.Samples); return nil })
	took[unmask], took[check] = all-unmasked, sums+unmasked-took[dequantize]
	if err != nil {
		return err
	}
	words := float64(c.N * (c.Op.InLen() + c.Op.OutLen()))
	for pass, t := range took {
		c.times[pass] = append(c.times[pass], float64(t.Nanoseconds())/words)
	}
	return nil
}

// Table writes the figures for people.
func (h *HostResult) Table(w io.Writer) error {
	t := render.Table(w)
	fmt.Fprintln(t, "pass\tshape\tthreads\tns per word\tquartiles")
	for _, r := range h.Rows {
		fmt.Fprintf(t, "%s\t%s\t%d\t%.3f\t%.3f-%.3f\n", r.Pass, r.Shape, r.Threads, r.PerWord, r.spread[0], r.spread[1])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `
ns per word is the thread's own CPU time for each word that the call sends or receives;
medians over rounds. The scheme is %v, with pads in stock and r made again from its
seed (prg). total is all of the host's online work for the layer, from floats to
floats, as package hostclient does it: tiles of samples go through all passes, in
reused memory. The other rows are one pass alone over the whole batch: quantize, prg
and dequantize are timed, mask, unmask and check are differences. They do not add up
to the total. Every answer is right, and checked.
`, transform.DefaultScheme())
	return err
}

// CSV writes the rows.
func (h *HostResult) CSV(w io.Writer) error {
	return render.CSV(w, []string{"pass", "shape", "threads", "ns_per_word"}, h.Rows)
}

// Record is the row in CSV.
func (r HostRow) Record() []string {
	return []string{r.Pass, r.Shape, strconv.Itoa(r.Threads), render.Decimal(r.PerWord)}
}
