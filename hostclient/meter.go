package hostclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

const (
	// placeBatch, placeWords and placeMulAdds bound a call that is measured: as many
	// samples as a batch usually has, unless they take more words or work.
	placeBatch   = 256
	placeWords   = 1 << 20
	placeMulAdds = 1 << 28
	// placeRounds is how many rounds a median is of; the least where they take long.
	placeRounds, placeLeast = 7, 3
	// placeTime is for all layers of a network, where it is enough for placeLeast.
	placeTime = time.Second
)

// meter measures what layers cost the host.
type meter struct {
	ring       ring.Ring
	scheme     transform.Scheme
	multiplier plan.Multiplier
	links      []LinkCost            // the first is that of sessions
	budget     time.Duration         // for a layer
	known      map[plan.Op]LayerCost // what costs the same is measured once
}

func newMeter(ctx context.Context, r ring.Ring, o SealOptions, layers []graph.Linear) (*meter, error) {
	if o.Multiplier == nil {
		return nil, fmt.Errorf("%w for what layers cost here", ErrMultiplier)
	}
	links, err := measureLinks(ctx, r, o.Link, o.Echo)
	if err != nil {
		return nil, fmt.Errorf("what sending costs: %w", err)
	}
	distinct := map[plan.Op]bool{}
	for _, l := range layers {
		distinct[l.Plan()] = true
	}
	return &meter{
		ring: r, scheme: o.Scheme, multiplier: o.Multiplier, links: links,
		budget: placeTime / time.Duration(len(distinct)), known: map[plan.Op]LayerCost{},
	}, nil
}

// cost measures a layer with integer weights w, and whats as the masked ones of each role.
func (m *meter) cost(ctx context.Context, l layer, op plan.Op, w ring.Matrix, whats []ring.Matrix) (LayerCost, error) {
	if c, ok := m.known[op]; ok {
		return c, nil
	}
	t, err := m.newTrial(ctx, l, op, w, whats)
	if err != nil {
		return LayerCost{}, err
	}
	start := time.Now()
	for i := 1; err == nil && i <= placeRounds && (i <= placeLeast || time.Since(start) < m.budget); i++ {
		err = t.round(ctx)
	}
	if err := errors.Join(err, t.close()); err != nil {
		return LayerCost{}, err
	}
	n, rows := int64(t.n), int64(l.masks.CloudRows(1))
	cloud, roles := l.masks.CloudOp(), int64(m.scheme.Roles())
	c := LayerCost{
		Batch:     t.n,
		WordsUp:   int64(m.scheme.WordRoles()) * rows * int64(cloud.InLen()),
		WordsDown: roles * rows * int64(cloud.OutLen()),
		Passes:    median(t.passes) / n,
		Pads:      median(t.pads) / n,
		Keep:      median(t.keep) / n,
		Product:   median(t.product) / n,
	}
	bytes := m.ring.WordBytes()
	step := int64(rowsPerMessage(cloud.InLen()*bytes, cloud.OutLen()*bytes))
	messages := roles * ((n*rows + step - 1) / step)
	link := m.links[0]
	c.Transport = int64(link.Message*float64(messages)/float64(n) + link.Word*float64(c.WordsUp+c.WordsDown))
	m.known[op] = c
	return c, nil
}

func median(v []time.Duration) int64 {
	v = slices.Sorted(slices.Values(v))
	return v[(len(v)-1)/2].Nanoseconds()
}

// trial is one call of a layer, again and again, sent and kept.
type trial struct {
	layer
	op     plan.Op
	to     verify.Scale // without the bias, which would hide small differences
	ring   ring.Ring
	padded bool
	n      int // samples
	x      []float32
	w      plan.Product
	whats  roleProducts

	passes, pads, keep, product []time.Duration // one a round
}

// timedProduct tells what Evaluate takes.
type timedProduct struct {
	plan.Product
	took *[]time.Duration
}

func (p timedProduct) Evaluate(ctx context.Context, y, x ring.Matrix) error {
	return timed(p.took, func() error { return p.Product.Evaluate(ctx, y, x) })
}

func (m *meter) newTrial(ctx context.Context, l layer, op plan.Op, w ring.Matrix, whats []ring.Matrix) (*trial, error) {
	cloud, rows := l.masks.CloudOp(), l.masks.CloudRows(1)
	words := rows * (cloud.InLen() + cloud.OutLen())
	t := &trial{layer: l, op: op, ring: m.ring, padded: m.scheme.Inputs == transform.InputPad}
	t.n = max(1, min(placeBatch, placeWords/words, int(placeMulAdds/op.MulAdds())))
	t.x = make([]float32, t.n*op.InLen())
	rnd := rand.New(rand.NewPCG(0, 0)) // values that decide nothing: time depends on shapes
	for i := range t.x {
		t.x[i] = float32(rnd.NormFloat64())
	}
	var err error
	if t.to, err = verify.NewScale(l.scale, nil); err != nil {
		return nil, err
	}
	if t.w, err = m.multiplier.Load(ctx, m.ring, op, w); err != nil {
		return nil, err
	}
	if t.whats, err = loadRoles(ctx, m.multiplier, m.ring, cloud, whats); err != nil {
		return nil, errors.Join(err, t.w.Close())
	}
	return t, nil
}

func (t *trial) close() error { return errors.Join(t.w.Close(), t.whats.close()) }

// round sends the call to itself, which shows that masks and check are right, and
// keeps it, which gives the same.
func (t *trial) round(ctx context.Context) error {
	var pads *transform.Pads
	if t.padded {
		err := timed(&t.pads, func() (err error) { pads, err = t.masks.NewPads(ctx, t.whats.of[0], t.n); return err })
		if err != nil {
			return err
		}
	} else {
		t.pads = append(t.pads, 0)
	}
	var (
		call         *transform.Call
		sent, kept   []float32
		before, then []time.Duration
	)
	err := timed(&before, func() (err error) {
		call, err = t.masks.MaskFloats(t.x, t.n, t.xmax, t.key, pads)
		return err
	})
	if err != nil {
		return err
	}
	defer call.Close()
	answers, err := t.answer(ctx, call)
	if err != nil {
		return err
	}
	err = timed(&then, func() error {
		candidate, err := call.Unmask(answers)
		if err != nil {
			return err
		}
		sent = floats.Get(t.n * t.op.OutLen())
		return t.key.OpenFloats(sent, candidate, call.Expected(), call.Scales(), t.to)
	})
	defer func() { floats.Put(sent) }()
	if err != nil {
		return err
	}
	t.passes = append(t.passes, before[0]+then[0])
	err = timed(&t.keep, func() (err error) {
		kept, err = inClear(ctx, t.ring, timedProduct{t.w, &t.product}, t.op, t.to, t.xmax, t.x, 0, t.n)
		return err
	})
	defer func() { floats.Put(kept) }()
	if err == nil && !slices.Equal(sent, kept) {
		err = errors.New("a layer that is sent differs from itself")
	}
	return err
}

// answer computes what honest clouds would, which costs the host nothing.
func (t *trial) answer(ctx context.Context, call *transform.Call) ([]ring.Matrix, error) {
	var answers []ring.Matrix
	for role, m := range call.Masked() {
		x, _ := m.Words()
		if seed, ok := m.Seed(); ok {
			x = ring.NewMatrix(m.Rows(), m.Cols())
			expand := prg.New(seed)
			for i := range x.Rows {
				expand.Fill(t.ring, x.Row(i), uint64(i))
			}
		}
		y := ring.NewMatrix(x.Rows, t.masks.CloudOp().OutLen())
		if err := t.whats.of[role].Evaluate(ctx, y, x); err != nil {
			return nil, err
		}
		answers = append(answers, y)
	}
	return answers, nil
}

// timed appends the CPU time that the process takes while f runs.
func timed(to *[]time.Duration, f func() error) error {
	start := cpuTime()
	err := f()
	*to = append(*to, cpuTime()-start)
	return err
}

// cpuTime returns the CPU time of all threads of this process, the system's
// share included.
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil { // it fails for bad arguments alone
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
