package serve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/traffic"
	"github.com/securenets/securenets/cmd/securenets/internal/child"
	"github.com/securenets/securenets/cmd/securenets/internal/cputime"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// served is a daemon with models, and the bare kernel with the same weights.
type served struct {
	daemon    *child.Daemon
	backend   *cpu.Backend
	product   plan.Product // of the first model
	op        plan.Op
	rows      int
	merged    traffic.Target // batched
	single    traffic.Target // one request a product
	contended traffic.Target // in products of contendedBatch requests
	transport traffic.Target // of transportOp
	narrow    plan.Product
	mixed     []traffic.Target // of several models
	budget    time.Duration
}

// start runs the daemon with its models, and loads the bare kernel.
func (s *served) start(ctx context.Context, o Options, dir string) (stop func() error, err error) {
	models := []sealed.Model{traffic.Model(0, s.op), traffic.Model(1, s.op), traffic.Model(2, s.op), traffic.Model(3, traffic.MNIST...), traffic.Model(4, transportOp)}
	var files [][]byte
	var digests []sealed.Digest
	for i := range models {
		b, err := models[i].Marshal()
		if err != nil {
			return nil, err
		}
		files, digests = append(files, b), append(digests, sealed.Sum(b))
	}
	// While one half of the callers is computed for, the other half sends.
	config := fmt.Sprintf("backend = \"cpu\"\nthreads = %d\n[shared_memory]\nbytes = %d\n", o.Threads, int64(1<<36))
	for i, rows := range []int{max(1, o.Callers/2) * s.rows, 1, contendedBatch * s.rows} {
		config += fmt.Sprintf("[batching.models.%v]\nmax_batch_size = %d\n", digests[i], rows)
	}
	if s.daemon, err = child.Start(o.Daemon, filepath.Join(dir, "daemon"), config); err != nil {
		return nil, err
	}
	var opened []plan.Product
	stop = func() (err error) {
		for _, p := range opened {
			err = errors.Join(err, p.Close())
		}
		return errors.Join(err, s.daemon.Stop())
	}
	defer func() {
		if err != nil {
			s.daemon.ShowLog(os.Stderr)
			err = errors.Join(err, stop())
		}
	}()
	if err := s.daemon.Ready(ctx); err != nil {
		return nil, err
	}
	conn, err := wire.Dial(s.daemon.Addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for i, m := range models {
		if err := traffic.Upload(ctx, conn, digests[i], files[i]); err != nil {
			return nil, err
		}
		for layer, op := range m.Plan.Ops {
			p, err := s.backend.Load(ctx, m.Plan.Ring, op, m.Weights[layer])
			if err != nil {
				return nil, err
			}
			opened = append(opened, p)
			x := traffic.Rows(op, s.rows)
			y := ring.NewMatrix(s.rows, op.OutLen())
			if err := p.Evaluate(ctx, y, x); err != nil {
				return nil, err
			}
			s.mixed = append(s.mixed, traffic.Target{Digest: digests[i], Layer: layer, Op: op, X: x, Want: y.Data})
		}
	}
	s.product, s.merged, s.single, s.contended = opened[0], s.mixed[0], s.mixed[1], s.mixed[2]
	last := len(s.mixed) - 1
	s.transport, s.narrow = s.mixed[last], opened[last]
	s.mixed = slices.Delete(s.mixed[:last], 1, 3)
	return stop, nil
}

// same returns callers who all ask alike.
func same(callers int, rate float64, of traffic.Target) []traffic.Caller {
	all := make([]traffic.Caller, callers)
	for i := range all {
		all[i] = traffic.Caller{Targets: []traffic.Target{of}, Rate: rate, Depth: 1}
	}
	return all
}

// by returns callers who ask as others do, by a way.
func by(way traffic.Way, callers []traffic.Caller) []traffic.Caller {
	callers = slices.Clone(callers)
	for i := range callers {
		callers[i].By = way
	}
	return callers
}

// spread returns callers of whom every other asks for one model, and the rest for the
// layers of another, in turn.
func (s *served) spread(callers int) []traffic.Caller {
	all := make([]traffic.Caller, callers)
	for i := range all {
		all[i] = traffic.Caller{Targets: s.mixed[:1], Depth: 1}
		if i%2 == 1 {
			all[i].Targets = s.mixed[1:]
		}
	}
	return all
}

// errNoAnswer reports a load of which nothing was answered while it was measured.
var errNoAnswer = errors.New("bench: no answer")

// again calls load until there was an answer, a few times with ever longer pauses: a machine full
// of other work may stand still for a second or two.
func again[T any](pause time.Duration, load func() (T, error)) (v T, err error) {
	for range 4 {
		if v, err = load(); !errors.Is(err, errNoAnswer) {
			return v, err
		}
		time.Sleep(pause)
		pause *= 2
	}
	return load()
}

// standstill is the first pause.
const standstill = 250 * time.Millisecond

// load measures a load for the budget, once it has run for a while.
func (s *served) load(ctx context.Context, name string, callers []traffic.Caller) (Row, error) {
	return again(standstill, func() (Row, error) { return s.once(ctx, name, callers) })
}

func (s *served) once(ctx context.Context, name string, callers []traffic.Caller) (Row, error) {
	type reading struct {
		at       time.Time
		cpu, own time.Duration
		err      error
	}
	read := func(at time.Time) reading {
		time.Sleep(time.Until(at))
		cpu, err := s.daemon.CPUTime()
		if errors.Is(err, errors.ErrUnsupported) {
			err = nil
		}
		return reading{time.Now(), cpu, cputime.Self(), err}
	}
	begin := time.Now().Add(s.budget / 4)
	end := begin.Add(s.budget)
	readings := make(chan [2]reading, 1)
	go func() { readings <- [2]reading{read(begin), read(end)} }()
	answers, err := traffic.Unix(s.daemon.Addr).Drive(ctx, callers, end.Add(s.budget/20))
	r := <-readings
	if err := errors.Join(err, r[0].err, r[1].err); err != nil {
		return Row{}, fmt.Errorf("%s: %w", name, err)
	}
	row := Row{Load: name, Callers: len(callers), shares: make([]float64, len(callers))}
	for _, t := range callers {
		row.Offered += t.Rate
	}
	seconds := r[1].at.Sub(r[0].at).Seconds()
	var latency, queue, compute, rest measure.Series
	refused := 0
	for _, a := range answers {
		if a.Done.Before(r[0].at) || a.Done.After(r[1].at) {
			continue
		}
		if a.Refused {
			refused++
			continue
		}
		row.shares[a.Caller] += 1 / seconds
		took := a.Done.Sub(a.Due)
		latency, queue, compute = append(latency, measure.Micros(took)), append(queue, measure.Micros(a.Queue)), append(compute, measure.Micros(a.Compute))
		rest = append(rest, measure.Micros(took-a.Queue-a.Compute))
	}
	n := float64(len(latency))
	if n == 0 {
		return Row{}, fmt.Errorf("%w in %v: %s", errNoAnswer, s.budget, name)
	}
	row.Goodput, row.Refused = n/seconds, float64(refused)/seconds
	row.Queue, row.Compute, row.Rest = queue.Mean(), compute.Mean(), rest.Mean()
	slices.Sort(latency)
	at := func(q float64) float64 { return latency[int(q*(n-1))] }
	row.P50, row.P90, row.P95, row.P99 = at(0.5), at(0.9), at(0.95), at(0.99)
	row.Daemon, row.client = measure.Micros(r[1].cpu-r[0].cpu)/n, measure.Micros(r[1].own-r[0].own)/n
	return row, nil
}

// kernel returns the bare kernel's processor time for one request's rows, in products
// of so many requests.
func (s *served) kernel(ctx context.Context, requests int) (float64, error) {
	took, err := s.bare(ctx, s.product, traffic.Rows(s.op, requests*s.rows), ring.NewMatrix(requests*s.rows, s.op.OutLen()))
	return took / float64(requests), err
}

// bare returns the bare kernel's processor time for a product: this process does nothing
// else meanwhile.
func (s *served) bare(ctx context.Context, p plan.Product, x, y ring.Matrix) (float64, error) {
	if err := p.Evaluate(ctx, y, x); err != nil { // once for the caches
		return 0, err
	}
	before := cputime.Self()
	products := 0
	for start := time.Now(); time.Since(start) < s.budget/4; products++ {
		if err := p.Evaluate(ctx, y, x); err != nil {
			return 0, err
		}
	}
	return measure.Micros(cputime.Self()-before) / float64(products), nil
}

// transportSeries are the rounds of a Transport.
type transportSeries struct {
	kernel, falls        measure.Series
	grpc, socket, shared pathSeries
}

// pathSeries are the rounds of a Path.
type pathSeries struct{ all, daemon, share measure.Series }

func (p *pathSeries) path() Path {
	return Path{All: p.all.Median(), Daemon: p.daemon.Median(), Share: p.share.Median()}
}

func (t *transportSeries) row(rows int) Transport {
	return Transport{
		Rows: rows, Bytes: ring.Q4().WordBytes() * rows * narrow * transportOp.InLen(), Kernel: t.kernel.Median(),
		GRPC: t.grpc.path(), Socket: t.socket.path(), Shared: t.shared.path(), Falls: t.falls.Median(), falls: t.falls.Spread(),
	}
}

// ways measures a round of what it costs to bring the words of rows of serveOp to a product
// and back, of which one takes the bare kernel so long.
func (s *served) ways(ctx context.Context, rows int, kernel float64, t *transportSeries) error {
	of := s.transport
	of.X = traffic.Rows(transportOp, rows*narrow)
	y := ring.NewMatrix(of.X.Rows, transportOp.OutLen())
	bare, err := s.bare(ctx, s.narrow, of.X, y)
	if err != nil {
		return err
	}
	of.Want, of.Every = y.Data, 64 // what comparing costs is no transport's
	callers := same(transportCallers, 0, of)
	product := kernel * float64(rows)
	way := func(name string, way traffic.Way, p *pathSeries) (share float64, err error) {
		r, err := s.load(ctx, name, by(way, callers))
		if err != nil {
			return 0, err
		}
		all := max(0, r.Daemon+r.client-bare)
		share = all / (all + product)
		p.all, p.daemon, p.share = append(p.all, all), append(p.daemon, max(0, r.Daemon-bare)), append(p.share, share)
		return share, nil
	}
	most, err := way(loadGRPC, traffic.GRPC, &t.grpc)
	if err != nil {
		return err
	}
	if _, err := way(loadClosed, traffic.Direct, &t.socket); err != nil {
		return err
	}
	least, err := way(loadShared, traffic.Shared, &t.shared)
	if err != nil {
		return err
	}
	t.kernel, t.falls = append(t.kernel, product), append(t.falls, most/least)
	return nil
}
