package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/cputime"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/dataset"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/internal/reference"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/plan"
)

// Costs runs batches of a network on daemons of its own, for what they cost the host
// to be measured.
type Costs struct {
	r       *run
	session *session
	apart   *Costs // see Apart
}

// OpenCosts seals a network as o says, and starts and loads its daemons. The host
// multiplies on so many threads.
func OpenCosts(ctx context.Context, o Options, threads int) (_ *Costs, err error) {
	c := &Costs{r: &run{Options: o, multiply: cpu.New(cpu.Options{Threads: threads})}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := c.r.read(); err != nil {
		return nil, err
	}
	if c.r.dir, err = os.MkdirTemp("", "securenets-costs-"); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{c.r.seal, c.r.start, c.r.push} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	c.session, err = c.r.openSession(ctx, c.r.addrs(), hostclient.Options{})
	return c, err
}

// Apart returns costs of the same network on the same daemons, in a session that has one
// part of a batch in work at a time. It is closed with c.
func (c *Costs) Apart(ctx context.Context) (*Costs, error) {
	if c.apart == nil {
		s, err := c.r.openSession(ctx, c.r.addrs(), hostclient.Options{Parts: 1})
		if err != nil {
			return nil, err
		}
		c.apart = &Costs{r: c.r, session: s}
	}
	return c.apart, nil
}

// Description is what the network was sealed to.
func (c *Costs) Description() hostclient.Description { return c.r.secret.Describe() }

// Batch runs batch i of the test set, which begins again at its end, a few times: pads
// first, then the rest. It returns the CPU time of one, and the results.
func (c *Costs) Batch(ctx context.Context, i int) (offline, online time.Duration, y []float32, err error) {
	from, n := c.r.batch(i), c.r.Batch
	if c.r.padded() {
		if offline, err = steady(func() error { return c.session.Precompute(ctx, n) }); err != nil {
			return 0, 0, nil, err
		}
	}
	online, err = steady(func() (err error) { y, err = c.session.Infer(ctx, c.r.images.Range(from, from+n), n); return err })
	return offline, online, y, err
}

// Spent is what a phase took: elapsed time, and processor time of this process and of
// all daemons. Daemons is negative where the system does not tell.
type Spent struct{ Elapsed, Host, Daemons time.Duration }

// spend measures f. Nothing else may run beside it.
func spend(f func() error) (Spent, error) {
	cpu, start := cputime.Self(), time.Now()
	err := f()
	return Spent{Elapsed: time.Since(start), Host: cputime.Self() - cpu, Daemons: -1}, err
}

// spend is spend with the daemons' time.
func (c *Costs) spend(f func() error) (Spent, error) {
	before := c.daemons()
	took, err := spend(f)
	if before >= 0 {
		took.Daemons = c.daemons() - before
	}
	return took, err
}

// daemons returns the processor time of the daemons, negative where it is not known.
func (c *Costs) daemons() (sum time.Duration) {
	for _, d := range c.r.clouds {
		t, err := d.CPUTime()
		if err != nil {
			return -1
		}
		sum += t
	}
	return sum
}

// Precompute makes pads for n images, where the scheme has such.
func (c *Costs) Precompute(ctx context.Context, n int) (Spent, error) {
	return c.spend(func() error { return c.session.Precompute(ctx, n) })
}

// Infer runs n images of the test set, from one on, in calls of so many.
func (c *Costs) Infer(ctx context.Context, from, n, call int) (took Spent, y []float32, err error) {
	took, err = c.spend(func() error {
		return batches(from, from+n, call, func(i, j int) error {
			part, err := c.session.Infer(ctx, c.r.images.Range(i, j), j-i)
			y = append(y, part...)
			return err
		})
	})
	return took, y, err
}

// Plan returns what the clouds evaluate.
func (c *Costs) Plan() (plan.Plan, error) {
	m, err := sealed.Parse(c.r.models[0].Bytes)
	if err != nil {
		return plan.Plan{}, err
	}
	return m.Plan, nil
}

// Session returns the session that the images run in.
func (c *Costs) Session() *hostclient.Session { return c.session.Session }

// Cloud returns the client of a role's cloud.
func (c *Costs) Cloud(role int) *hostclient.Client { return c.session.clients[role] }

// steady returns the CPU time that f takes when it runs again and again: without the
// first, which takes memory.
func steady(f func() error) (time.Duration, error) {
	runtime.GC() // nobody pays for another's garbage
	if err := f(); err != nil {
		return 0, err
	}
	const times = 2
	start := cputime.Self()
	for range times {
		if err := f(); err != nil {
			return 0, err
		}
	}
	return (cputime.Self() - start) / times, nil
}

// Close stops the daemons.
func (c *Costs) Close() error {
	var errs []error
	if c.apart != nil {
		errs = append(errs, c.apart.session.Close())
	}
	if c.session != nil {
		errs = append(errs, c.session.Close())
	}
	for _, cloud := range c.r.clouds {
		errs = append(errs, cloud.Stop())
	}
	if c.r.dir != "" {
		errs = append(errs, os.RemoveAll(c.r.dir))
	}
	return errors.Join(errs...)
}

// batch returns where batch i of the test set begins.
func (r *run) batch(i int) int { return i % (r.images.N / r.Batch) * r.Batch }

// Local runs the same batches in float32 and without a cloud.
type Local struct {
	r     *run
	model *reference.Model
}

// OpenLocal compiles a network for batches as o says.
func OpenLocal(o Options) (*Local, error) {
	l := &Local{r: &run{Options: o}}
	if err := l.r.read(); err != nil {
		return nil, err
	}
	var err error
	if l.model, err = reference.New(l.r.graph, o.Batch); err != nil {
		return nil, fmt.Errorf("demo: local inference: %w", err)
	}
	return l, nil
}

// input returns the batch of images from one on, as the model takes it.
func (l *Local) input(from int) []float32 {
	in, n := l.r.graph.Input, l.r.Batch
	x := make([]float32, n*in.Len())
	graph.CHWToHWC(x, l.r.images.Range(from, from+n), n, in)
	return x
}

// Batch is that of Costs.
func (l *Local) Batch(i int) (time.Duration, error) {
	x := l.input(l.r.batch(i))
	return steady(func() error { _, err := l.model.Forward(x); return err })
}

// Infer runs the batch of images from one on, twice, and returns what the second took,
// and the outputs.
func (l *Local) Infer(from int) (took Spent, y []float32, err error) {
	x := l.input(from)
	runtime.GC()
	if _, err := l.model.Forward(x); err != nil { // it takes memory
		return Spent{}, nil, err
	}
	took, err = spend(func() error { y, err = l.model.Forward(x); return err })
	return took, slices.Clone(y), err
}

// Graph returns the network, Images the test set as it takes it, Labels their classes.
func (l *Local) Graph() *graph.Graph     { return l.r.graph }
func (l *Local) Images() *dataset.Images { return l.r.images }
func (l *Local) Labels() []uint8         { return l.r.labels }

// Close frees the compiled network.
func (l *Local) Close() error { return l.model.Close() }
