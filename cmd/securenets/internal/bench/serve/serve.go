// Package serve measures a daemon under load: beside the bare kernel, for long, with many
// idle callers, and beside an echo of the same frames.
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/traffic"
	"github.com/securenets/securenets/cmd/securenets/internal/child"
	"github.com/securenets/securenets/cmd/securenets/internal/cputime"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels/cpu"
)

// Options say how to load a daemon.
type Options struct {
	measure.Options
	Threads int // of the daemon that compute, and of the bare kernel
	Callers int
	Rows    int // of a request
}

// Result are the figures of a daemon under load.
type Result struct {
	CPU     string `json:"cpu"`
	Threads int    `json:"threads"`
	Rows    int    `json:"rows"` // of a request
	Loads   []Row  `json:"loads"`
	// Kernel is the processor time in microseconds of a request's rows in the bare
	// kernel, in products of one request and of one of every caller.
	KernelAlone  float64 `json:"kernel_alone_us"`
	KernelMerged float64 `json:"kernel_merged_us"`
	// Overhead is the daemon's processor time for a request over the bare kernel's in
	// merged products, measured beside it; OverheadShared where memory is shared.
	Overhead       float64 `json:"cpu_over_kernel"`
	OverheadShared float64 `json:"cpu_over_kernel_shared"`
	// Batching is what batching multiplies the goodput by, and Gain the part of it of
	// what merging multiplies the bare kernel's by.
	Batching float64 `json:"batching_gain"`
	Gain     float64 `json:"batching_gain_of_kernel"`
	// Overload is goodput at twice the load that saturates, over the peak.
	Overload float64 `json:"goodput_at_twice"`
	// GainCPU and OverloadCPU are Gain and Overload of requests a second of the daemon's
	// processor time in the place of goodput: what else runs here matters less to them.
	GainCPU     float64 `json:"batching_gain_of_kernel_cpu"`
	OverloadCPU float64 `json:"goodput_at_twice_cpu"`
	// Jain is Jain's index of what ten callers get, of whom one asks for ten times as much as
	// each other, and Least and Most what the others get of a tenth.
	Jain  float64 `json:"jain"`
	Least float64 `json:"least_share"`
	Most  float64 `json:"most_share"`
	// Transport is what it costs to bring words to a product and back.
	Transport []Transport `json:"transport"`

	overhead, overheadShared, gain, overload [2]float64 // quartiles
}

// Row is one load: the columns of perf_analyzer, and what else there is to say.
// Times are in microseconds.
type Row struct {
	Load    string  `json:"load"`
	Callers int     `json:"concurrency"`
	Offered float64 `json:"offered_per_second,omitzero"`
	Goodput float64 `json:"inferences_per_second"` // requests answered
	Refused float64 `json:"refused_per_second"`    // OVERLOADED, with a time to come back
	Rest    float64 `json:"network_and_server_send_recv_us"`
	Queue   float64 `json:"server_queue_us"`
	Compute float64 `json:"server_compute_infer_us"`
	P50     float64 `json:"p50_latency_us"`
	P90     float64 `json:"p90_latency_us"`
	P95     float64 `json:"p95_latency_us"`
	P99     float64 `json:"p99_latency_us"`
	Daemon  float64 `json:"daemon_cpu_us"` // processor time of the daemon's process, a request

	client float64   // likewise, of this process
	shares []float64 // goodput of each caller
}

// Transport compares ways of a request's words, as many as rows of serveOp have, in
// microseconds of processor time. Frames and Shared are the daemon's process and the
// callers' together, less the bare kernel's; shares are those of a request of serveOp, with
// the bare kernel's time beside.
type Transport struct {
	Rows         int     `json:"rows"`
	Bytes        int     `json:"bytes"` // each way
	Kernel       float64 `json:"kernel_us"`
	Frames       float64 `json:"frames_us"`
	Shared       float64 `json:"shared_us"`
	FramesDaemon float64 `json:"frames_daemon_us"` // the daemon's part
	SharedDaemon float64 `json:"shared_daemon_us"`
	FramesShare  float64 `json:"frames_share"`
	SharedShare  float64 `json:"shared_share"`
	// Falls is FramesShare over SharedShare.
	Falls float64 `json:"share_falls_by"`

	falls [2]float64 // quartiles
}

// Names of loads.
const (
	loadClosed    = "closed"
	loadShared    = "closed, shared memory"
	loadFrames    = "closed, frames"
	loadUnbatched = "closed, batches of one request"
	loadAlone     = "closed, one caller"
	loadMixed     = "closed, mixed models"
	loadHalf      = "poisson, half the peak"
	loadTwice     = "poisson, twice the peak"
	loadUnfair    = "closed, one of ten callers asks for ten times as much"
)

// serveOp is what most loads ask for.
var serveOp = plan.Dense(4096, 4096)

// transportOp has little to multiply for the words that it takes and gives, so that a
// difference of times tells what their way costs. narrow of its rows have the words of one
// of serveOp's.
var (
	transportOp   = plan.Dense(64, 64)
	transportRows = []int{1, 64, 256} // of serveOp
)

const narrow = 64

// transportCallers keep a request in flight each, while transports are measured: as many
// as a host keeps in work.
const transportCallers = 2

// Where callers compete, a product has so many requests and each caller but the
// greedy one so many without an answer.
const contendedBatch, contendedDepth = 20, 6

// Run loads a daemon of its own from this process.
func Run(ctx context.Context, o Options) (*Result, error) {
	rounds, budget := 5, 4*time.Second
	if o.Quick {
		rounds, budget = 3, time.Second
	}
	return o.run(ctx, serveOp, rounds, budget)
}

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

func (o Options) run(ctx context.Context, op plan.Op, rounds int, budget time.Duration) (_ *Result, err error) {
	dir, err := os.MkdirTemp("", "securenets-bench")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &served{op: op, rows: o.Rows, budget: budget}
	if s.backend, err = cpu.Open(cpu.Options{Threads: o.Threads}); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.backend.Close()) }()
	stop, err := s.start(ctx, o, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()

	result := &Result{CPU: measure.Processor(), Threads: o.Threads, Rows: o.Rows}
	loads := map[string][]Row{}
	step := 0
	run := func(name string, callers []traffic.Caller) (Row, error) {
		o.Progress(name, step, 8*rounds)
		step++
		row, err := s.load(ctx, name, callers)
		if errors.Is(err, errNoAnswer) { // a machine full of other work may stand still for a second
			row, err = s.load(ctx, name, callers)
		}
		loads[name] = append(loads[name], row)
		return row, err
	}
	transports := make([]transportSeries, len(transportRows))
	var alone, merged, overhead, overheadShared, batching, gain, gainCPU, overload, overloadCPU, jain, least, most measure.Series
	for range rounds {
		k1, err := s.kernel(ctx, 1)
		if err != nil {
			return nil, err
		}
		before, err := s.kernel(ctx, o.Callers)
		if err != nil {
			return nil, err
		}
		closed, err := run(loadClosed, same(o.Callers, 0, s.merged))
		if err != nil {
			return nil, err
		}
		after, err := s.kernel(ctx, o.Callers)
		if err != nil {
			return nil, err
		}
		single, err := run(loadUnbatched, same(o.Callers, 0, s.single))
		if err != nil {
			return nil, err
		}
		kn := (before + after) / 2
		alone, merged = append(alone, k1), append(merged, kn)
		overhead = append(overhead, closed.Daemon/kn)
		batching = append(batching, closed.Goodput/single.Goodput)
		gain = append(gain, closed.Goodput/single.Goodput/(k1/kn))
		gainCPU = append(gainCPU, single.Daemon/closed.Daemon/(k1/kn))
		if _, err := run(loadAlone, same(1, 0, s.merged)); err != nil {
			return nil, err
		}
		shared := same(o.Callers, 0, s.merged)
		for i := range shared {
			shared[i].Shared = true
		}
		through, err := run(loadShared, shared)
		if err != nil {
			return nil, err
		}
		overheadShared = append(overheadShared, through.Daemon/kn)
		for i, n := range transportRows {
			if err := s.ways(ctx, n, kn/float64(s.rows), &transports[i]); err != nil {
				return nil, err
			}
		}
		if _, err := run(loadMixed, s.spread(o.Callers)); err != nil {
			return nil, err
		}
		peak := closed.Goodput
		if _, err := run(loadHalf, same(o.Callers, peak/2/float64(o.Callers), s.merged)); err != nil {
			return nil, err
		}
		twice, err := run(loadTwice, same(o.Callers, 2*peak/float64(o.Callers), s.merged))
		if err != nil {
			return nil, err
		}
		overload = append(overload, twice.Goodput/peak)
		overloadCPU = append(overloadCPU, closed.Daemon/twice.Daemon)
		// All have more waiting than a product takes of them: a tenth is their fair share.
		const others = 9
		unfair := same(others+1, 0, s.contended)
		for i := range unfair {
			unfair[i].Depth = contendedDepth
		}
		unfair[0].Depth *= 10
		row, err := run(loadUnfair, unfair)
		if err != nil {
			return nil, err
		}
		fair, sum, squares := 0.0, 0.0, 0.0
		for _, v := range row.shares {
			fair += v / (others + 1)
			sum, squares = sum+v, squares+v*v
		}
		jain = append(jain, sum*sum/((others+1)*squares))
		least = append(least, slices.Min(row.shares[1:])/fair)
		most = append(most, slices.Max(row.shares[1:])/fair)
	}
	for _, name := range []string{loadAlone, loadUnbatched, loadClosed, loadShared, loadMixed, loadHalf, loadTwice, loadUnfair} {
		result.Loads = append(result.Loads, medianRow(loads[name]))
	}
	for i, n := range transportRows {
		result.Transport = append(result.Transport, transports[i].row(n))
	}
	result.KernelAlone, result.KernelMerged = alone.Median(), merged.Median()
	result.Overhead, result.overhead = overhead.Median(), overhead.Spread()
	result.OverheadShared, result.overheadShared = overheadShared.Median(), overheadShared.Spread()
	result.Batching, result.Gain, result.gain = batching.Median(), gain.Median(), gain.Spread()
	result.Overload, result.overload = overload.Median(), overload.Spread()
	result.GainCPU, result.OverloadCPU = gainCPU.Median(), overloadCPU.Median()
	result.Jain, result.Least, result.Most = jain.Median(), least.Median(), most.Median()
	return result, nil
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
	text := fmt.Sprintf("backend = \"cpu\"\nthreads = %d\n[shared_memory]\nbytes = %d\n", o.Threads, int64(1<<36))
	for i, rows := range []int{max(1, o.Callers/2) * s.rows, 1, contendedBatch * s.rows} {
		text += fmt.Sprintf("[batching.models.%v]\nmax_batch_size = %d\n", digests[i], rows)
	}
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if s.daemon, err = child.Start(o.Daemon, filepath.Join(dir, "daemon"), "--config", config); err != nil {
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

// load measures a load for the budget, once it has run for a while.
func (s *served) load(ctx context.Context, name string, callers []traffic.Caller) (Row, error) {
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

// transportSeries are the rounds of a TransportRow.
type transportSeries struct {
	kernel, frames, shared, framesDaemon, sharedDaemon, framesShare, sharedShare, falls measure.Series
}

func (t *transportSeries) row(rows int) Transport {
	return Transport{
		Rows: rows, Bytes: ring.Q4().WordBytes() * rows * narrow * transportOp.InLen(), Kernel: t.kernel.Median(),
		Frames: t.frames.Median(), Shared: t.shared.Median(), FramesDaemon: t.framesDaemon.Median(), SharedDaemon: t.sharedDaemon.Median(),
		FramesShare: t.framesShare.Median(), SharedShare: t.sharedShare.Median(), Falls: t.falls.Median(), falls: t.falls.Spread(),
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
	frames, err := s.load(ctx, loadFrames, callers)
	if err != nil {
		return err
	}
	for i := range callers {
		callers[i].Shared = true
	}
	shared, err := s.load(ctx, loadShared, callers)
	if err != nil {
		return err
	}
	product := kernel * float64(rows)
	way := func(r Row) float64 { return max(0, r.Daemon+r.client-bare) }
	share := func(way float64) float64 { return way / (way + product) }
	a, b := way(frames), way(shared)
	t.kernel = append(t.kernel, product)
	t.frames, t.shared = append(t.frames, a), append(t.shared, b)
	t.framesDaemon, t.sharedDaemon = append(t.framesDaemon, max(0, frames.Daemon-bare)), append(t.sharedDaemon, max(0, shared.Daemon-bare))
	t.framesShare, t.sharedShare = append(t.framesShare, share(a)), append(t.sharedShare, share(b))
	t.falls = append(t.falls, share(a)/share(b))
	return nil
}

// medianRow returns the medians of one load's rounds, each figure for itself.
func medianRow(rows []Row) Row {
	r := rows[0]
	for _, figure := range []func(*Row) *float64{
		func(r *Row) *float64 { return &r.Offered }, func(r *Row) *float64 { return &r.Goodput },
		func(r *Row) *float64 { return &r.Refused }, func(r *Row) *float64 { return &r.Rest },
		func(r *Row) *float64 { return &r.Queue }, func(r *Row) *float64 { return &r.Compute },
		func(r *Row) *float64 { return &r.P50 }, func(r *Row) *float64 { return &r.P90 },
		func(r *Row) *float64 { return &r.P95 }, func(r *Row) *float64 { return &r.P99 },
		func(r *Row) *float64 { return &r.Daemon },
	} {
		var s measure.Series
		for i := range rows {
			s = append(s, *figure(&rows[i]))
		}
		*figure(&r) = math.Round(s.Median()*10) / 10
	}
	return r
}

var columns = []string{
	"Load", "Concurrency", "Offered/Second", "Inferences/Second", "Refused/Second", "Network+Server Send/Recv", "Server Queue",
	"Server Compute Infer", "p50 latency", "p90 latency", "p95 latency", "p99 latency", "Daemon CPU",
}

// Record is the row in CSV.
func (r Row) Record() []string {
	f := []string{r.Load, strconv.Itoa(r.Callers), ""}
	if r.Offered > 0 {
		f[2] = render.Decimal(r.Offered)
	}
	for _, v := range []float64{r.Goodput, r.Refused, r.Rest, r.Queue, r.Compute, r.P50, r.P90, r.P95, r.P99, r.Daemon} {
		f = append(f, render.Decimal(v))
	}
	return f
}

// CSV writes the rows.
func (s *Result) CSV(w io.Writer) error { return render.CSV(w, columns, s.Loads) }

// Table writes the figures for people.
func (s *Result) Table(w io.Writer) error {
	t := render.Table(w)
	fmt.Fprintln(t, "load\tcallers\toffered/s\tgoodput/s\trefused/s\tnetwork\tqueue\tcompute\tp50\tp90\tp95\tp99\tdaemon CPU")
	for _, r := range s.Loads {
		f := r.Record()
		for i := 2; i < len(f); i++ {
			if whole, _, ok := strings.Cut(f[i], "."); ok {
				f[i] = whole
			}
		}
		fmt.Fprintln(t, strings.Join(f, "\t"))
	}
	fmt.Fprintln(t)
	fmt.Fprintf(t, "bare kernel\t%.0f us alone, %.0f us merged\n", s.KernelAlone, s.KernelMerged)
	fmt.Fprintf(t, "daemon CPU over the bare kernel's\t%.2f (%.2f-%.2f); by shared memory %.2f (%.2f-%.2f)\n",
		s.Overhead, s.overhead[0], s.overhead[1], s.OverheadShared, s.overheadShared[0], s.overheadShared[1])
	fmt.Fprintf(t, "batching multiplies goodput by\t%.2f, %.2f (%.2f-%.2f) of the bare kernel's gain; %.2f by the daemon's CPU\n",
		s.Batching, s.Gain, s.gain[0], s.gain[1], s.GainCPU)
	fmt.Fprintf(t, "goodput at twice the peak's load\t%.2f (%.2f-%.2f) of the peak; %.2f by the daemon's CPU\n",
		s.Overload, s.overload[0], s.overload[1], s.OverloadCPU)
	fmt.Fprintf(t, "shares beside a caller with ten times the load\tJain index %.3f; %.3f to %.3f of a tenth\n", s.Jain, s.Least, s.Most)
	fmt.Fprintln(t)
	fmt.Fprintln(t, "rows\tbytes each way\tbare kernel\tframes\tshared memory\tshare by frames\tby shared memory\tfalls by")
	for _, r := range s.Transport {
		fmt.Fprintf(t, "%d\t%s\t%.0f us\t%.1f us (%.1f)\t%.1f us (%.1f)\t%.2f %%\t%.2f %%\t%.2f (%.2f-%.2f)\n", r.Rows, render.Count(r.Bytes), r.Kernel,
			r.Frames, r.FramesDaemon, r.Shared, r.SharedDaemon, 100*r.FramesShare, 100*r.SharedShare, r.Falls, r.falls[0], r.falls[1])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `
Requests are of %d row(s) of a dense layer of 4096 by 4096, or, mixed, half of them of
the layers of mnist-cnn, from one process over a connection for each caller. Every
answer is compared with the product; a refusal is one only if it says when to come
back. Times are in microseconds, medians over rounds, in which all loads take turns.
Latency is counted from when a request was due, network is what of it is neither
queue nor compute. Daemon CPU is its process' time for a request that is answered, with
%d thread(s) that compute; of the bare kernel, beside the load, with as many. Merged: a
request of every caller. The peak is the closed loop's goodput of the round. By the
daemon's CPU: requests answered for a second of it, not of elapsed time.

The last table is of the way of words to a product and back: processor time of a
request of the daemon's process and the callers' together (the daemon's alone in
brackets), less the bare kernel's, measured with a layer that has little to multiply,
64 by 64, and as many words as so many rows of 4096 by 4096; %d callers. Its share is that of
a request of 4096 by 4096: of its time and the bare kernel's, merged, together.
`, s.Rows, s.Threads, transportCallers)
	return err
}
