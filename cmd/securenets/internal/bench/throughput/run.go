package throughput

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/traffic"
	"github.com/securenets/securenets/cmd/securenets/internal/child"
	"github.com/securenets/securenets/cmd/securenets/internal/cputime"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/kernels/cuda"
	"github.com/securenets/securenets/plan"
)

// running is a bench of throughput under way.
type running struct {
	o         Options
	report    *Report
	sweep     sweep
	dir       string
	daemons   []*child.Daemon // its own, one a role
	multiply  *cpu.Backend
	limit     limit
	reference plan.Product
	deployed  []*deployed
	loads     []*load
	closers   []func() error // in the order of opening
}

// close ends everything, the last opened first.
func (r *running) close() error {
	var errs []error
	for _, f := range slices.Backward(r.closers) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func (r *running) defers(f func() error) { r.closers = append(r.closers, f) }

// measure does it all: what it opened is for close to close.
func (r *running) measure(ctx context.Context, plan func(device bool) sweep) error {
	r.multiply = cpu.New(cpu.Options{})
	r.defers(r.multiply.Close)
	if err := r.start(ctx); err != nil {
		return err
	}
	device := strings.HasPrefix(r.report.Daemon.Backend, "cuda")
	r.sweep = plan(device)
	r.sweep.several = r.o.Endpoint == ""
	r.report.Rounds = r.sweep.rounds
	for r.sweep.several && len(r.daemons) < r.sweep.clouds() { // those of the other roles
		if _, err := r.daemon(ctx); err != nil {
			return err
		}
	}
	if err := r.openReference(ctx); err != nil {
		return err
	}
	points := r.sweep.points()
	for i, p := range points {
		r.o.Progress("sealing and pushing "+p.network.String(), i, len(points))
		if err := r.prepare(ctx, p); err != nil {
			return fmt.Errorf("%v with %v: %w", p.network, p.scheme, err)
		}
	}
	if err := r.openLimit(ctx, device); err != nil {
		return err
	}
	for i, l := range r.loads {
		r.o.Progress("warming up", i, len(r.loads))
		if err := r.warm(ctx, l); err != nil {
			return l.errorf(err)
		}
	}
	for round := range r.sweep.rounds {
		if err := r.readReference(ctx); err != nil {
			return err
		}
		for i, l := range r.loads {
			r.o.Progress(fmt.Sprintf("round %d: %s", round+1, l.label()), round*len(r.loads)+i, r.sweep.rounds*len(r.loads))
			if err := r.round(ctx, l); err != nil {
				return l.errorf(err)
			}
		}
	}
	return r.readReference(ctx)
}

func (p point) label() string {
	return fmt.Sprintf("%s, %v, %d rows, %d callers", p.side, p.network, p.rows, p.callers)
}

func (p point) errorf(err error) error { return fmt.Errorf("%s: %w", p.label(), err) }

// start runs a daemon, or asks one that is there who it is.
func (r *running) start(ctx context.Context) error {
	d := &r.report.Daemon
	if r.o.Endpoint != "" {
		d.Endpoint = r.o.Endpoint
		client, err := r.client(0)
		if err != nil {
			return err
		}
		info, err := client.Info(ctx)
		d.Version, d.Backend = info.Version, info.Backend
		return errors.Join(err, client.Close())
	}
	var err error
	if r.dir, err = os.MkdirTemp("", "securenets-bench"); err != nil {
		return err
	}
	r.defers(func() error { return os.RemoveAll(r.dir) })
	if d.Devices, err = devices(ctx, r.o.Daemon); err != nil {
		return err
	}
	own, err := r.daemon(ctx)
	if err != nil {
		return err
	}
	d.Version, d.Backend = own.Info.Version, own.Info.Backend
	return nil
}

// devices asks a daemon's program for the CUDA devices here; there are none where it
// says so, or was built without CUDA.
func devices(ctx context.Context, binary string) ([]cuda.Device, error) {
	out, err := exec.CommandContext(ctx, binary, "devices", "--json").Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		return []cuda.Device{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("devices: %w", err)
	}
	var list []cuda.Device
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("devices: %w", err)
	}
	return list, nil
}

// sharedBytes is the memory that callers may share with a daemon of its own: all sessions
// do until the end, and the callers of raw frames meanwhile.
const sharedBytes = 4 << 30

// daemon starts one more of its own.
func (r *running) daemon(ctx context.Context) (*child.Daemon, error) {
	d, err := child.Start(r.o.Daemon, filepath.Join(r.dir, fmt.Sprint("cloud-", len(r.daemons))), fmt.Sprintf("backend = %q\n[shared_memory]\nbytes = %d\n", r.o.Backend, int64(sharedBytes)))
	if err != nil {
		return nil, err
	}
	r.daemons = append(r.daemons, d)
	r.defers(d.Stop)
	if err := d.Ready(ctx); err != nil {
		if ctx.Err() == nil {
			d.ShowLog(os.Stderr)
		}
		return nil, err
	}
	return d, nil
}

// client connects to the cloud of a role.
func (r *running) client(role int) (*hostclient.Client, error) {
	switch {
	case r.o.TLS != nil:
		return hostclient.DialTLS(r.o.Endpoint, "", r.o.TLS)
	case r.o.Endpoint != "":
		return hostclient.Dial(r.o.Endpoint)
	default:
		return hostclient.Dial(r.daemons[role].Addr)
	}
}

// dial connects to the first role's cloud for raw frames.
func (r *running) dialer() traffic.Dialer {
	switch {
	case r.o.TLS != nil:
		return traffic.TLS(r.o.Endpoint, r.o.TLS)
	case r.o.Endpoint != "":
		return traffic.Unix(r.o.Endpoint)
	default:
		return traffic.Unix(r.daemons[0].Addr)
	}
}

// maxPadBytes bounds the pads that are in stock for one window.
const maxPadBytes = 256 << 20

// warm runs a load once for connections and buffers, and again to see how many calls
// fill a window.
func (r *running) warm(ctx context.Context, l *load) error {
	if l.side == sideCloud {
		_, err := r.frames(ctx, l, time.Millisecond)
		return err
	}
	d := r.of(l.point)
	l.calls = l.callers
	w, err := r.call(ctx, l)
	if err == nil {
		w, err = r.call(ctx, l)
	}
	if err != nil {
		return err
	}
	// Pads may take three windows.
	times := min(r.sweep.window.Seconds()/w.elapsed.Seconds(), 3*r.sweep.window.Seconds()/max(1e-9, w.padElapsed.Seconds()))
	if d.padBytes > 0 {
		times = min(times, float64(maxPadBytes/d.padBytes)/float64(l.calls*l.rows))
	}
	const most = 20000
	l.calls = max(l.calls, min(most, int(times*float64(l.calls))))
	return nil
}

// window is what was measured of one.
type window struct {
	elapsed, hostCPU, daemonCPU time.Duration
	padElapsed, padCPU          time.Duration
	bytesUp, bytesDown          int64
	images                      float64
	macs                        float64   // in one cloud
	latencies                   []float64 // ms, sorted
}

// round measures a load once, between two readings of the limit.
func (r *running) round(ctx context.Context, l *load) error {
	runtime.GC() // nobody pays for another's garbage
	before, err := r.limit.read()
	if err != nil {
		return err
	}
	var w window
	if l.side == sideCloud {
		w, err = r.frames(ctx, l, r.sweep.window)
	} else {
		w, err = r.call(ctx, l)
	}
	if err != nil {
		return err
	}
	after, err := r.limit.read()
	if err != nil {
		return err
	}
	all, one := (before.all+after.all)/2, (before.one+after.one)/2
	clouds := float64(1)
	if l.side == sideHost {
		clouds = float64(l.scheme.Roles()) // each multiplies all, and all are on this machine
	}
	seconds := w.elapsed.Seconds()
	gmacs := w.macs / seconds / 1e9
	l.add("images_per_second", w.images/seconds)
	l.add("gmacs", gmacs)
	if all > 0 {
		l.add("limit_gmacs", all)
		l.add("share_of_limit", clouds*gmacs/all)
	}
	if one > 0 && w.daemonCPU > 0 {
		l.add("share_of_limit_by_cpu", clouds*w.macs/float64(w.daemonCPU.Nanoseconds())/one)
	}
	if w.daemonCPU > 0 {
		l.add("daemon_cpu_us", measure.Micros(w.daemonCPU)/w.images)
	}
	for name, q := range map[string]float64{"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99} {
		l.add(name, percentile(w.latencies, q))
	}
	if l.row.Calls == 0 || len(w.latencies) < l.row.Calls {
		l.row.Calls = len(w.latencies)
	}
	if l.side == sideHost {
		l.add("host_cpu_us", measure.Micros(w.hostCPU)/w.images)
		l.add("host_pads_us", measure.Micros(w.padCPU)/w.images)
		up, down := w.bytesUp/int64(w.images), w.bytesDown/int64(w.images)
		l.row.BytesUp, l.row.BytesDown = &up, &down
	}
	if r.o.PerHour > 0 && l.scheme.Roles() == 1 { // the price is of one provider's instance
		l.add("cost_per_million", costPerMillion(r.o.PerHour, seconds/w.images))
		if l.side == sideHost {
			l.add("cost_per_million_with_pads", costPerMillion(r.o.PerHour, (seconds+w.padElapsed.Seconds())/w.images))
		}
	}
	return nil
}

// call makes pads, and then a load's calls with them.
func (r *running) call(ctx context.Context, l *load) (w window, err error) {
	d := r.of(l.point)
	w.images = float64(l.calls * l.rows)
	w.macs = w.images * float64(d.mulAdds)
	if d.padBytes > 0 {
		start, used := time.Now(), cputime.Self()
		if err := d.session.Precompute(ctx, l.calls*l.rows); err != nil {
			return w, err
		}
		w.padElapsed, w.padCPU = time.Since(start), cputime.Self()-used
		runtime.GC()
	}
	x := d.images[:l.rows*d.input]
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		next atomic.Int64
	)
	stats := d.session.Stats()
	daemon, err := r.daemonCPU(l.scheme.Roles())
	if err != nil {
		return w, err
	}
	start, used := time.Now(), cputime.Self()
	for range l.callers {
		wg.Go(func() {
			var mine []float64
			for next.Add(1) <= int64(l.calls) {
				began := time.Now()
				if _, err := d.session.Infer(ctx, x, l.rows); err != nil {
					cancel(err)
					return
				}
				mine = append(mine, float64(time.Since(began).Nanoseconds())/1e6)
			}
			mu.Lock()
			defer mu.Unlock()
			w.latencies = append(w.latencies, mine...)
		})
	}
	wg.Wait()
	w.elapsed, w.hostCPU = time.Since(start), cputime.Self()-used
	if ctx.Err() != nil {
		return w, context.Cause(ctx)
	}
	after, err := r.daemonCPU(l.scheme.Roles())
	if err != nil {
		return w, err
	}
	w.daemonCPU = after - daemon
	now := d.session.Stats()
	w.bytesUp, w.bytesDown = now.BytesUp-stats.BytesUp, now.BytesDown-stats.BytesDown
	if got, want := now.Checked-stats.Checked, int64(l.calls*l.rows*len(d.ops)); got != want {
		return w, fmt.Errorf("bench: %d products were checked, want %d", got, want)
	}
	slices.Sort(w.latencies)
	return w, nil
}

// framesDepth is how many frames a caller has without an answer: while one is
// multiplied, another is on its way.
const framesDepth = 2

// frames sends frames of random words, for the layers in turn.
func (r *running) frames(ctx context.Context, l *load, budget time.Duration) (w window, err error) {
	d := r.of(l.point)
	var targets []traffic.Target
	for layer, op := range d.ops {
		targets = append(targets, traffic.Target{Digest: d.digest, Layer: layer, Op: op, X: traffic.Rows(op, l.rows)})
	}
	callers := make([]traffic.Caller, l.callers)
	by := traffic.Direct
	if r.o.Endpoint == "" {
		by = traffic.Shared
	}
	for i := range callers {
		callers[i] = traffic.Caller{Targets: targets, Depth: framesDepth, By: by}
	}
	daemon, err := r.daemonCPU(1)
	if err != nil {
		return w, err
	}
	answers, err := r.dialer().Drive(ctx, callers, time.Now().Add(budget))
	if err != nil {
		return w, err
	}
	after, err := r.daemonCPU(1)
	if err != nil {
		return w, err
	}
	w.daemonCPU = after - daemon
	// From the first frame to the last answer there was always something to multiply.
	first, last := answers[0].Due, answers[0].Done
	for _, a := range answers {
		if a.Refused {
			return w, errors.New("bench: the daemon refused frames, as it had too many")
		}
		if a.Due.Before(first) {
			first = a.Due
		}
		if a.Done.After(last) {
			last = a.Done
		}
		w.macs += float64(l.rows) * float64(d.ops[a.Of].MulAdds())
		w.latencies = append(w.latencies, float64(a.Done.Sub(a.Due).Nanoseconds())/1e6)
	}
	w.elapsed = last.Sub(first)
	w.images = w.macs / float64(d.mulAdds)
	slices.Sort(w.latencies)
	return w, nil
}

// daemonCPU returns the processor time of the first daemons of its own; 0 where it is
// not known.
func (r *running) daemonCPU(clouds int) (sum time.Duration, err error) {
	for _, d := range r.daemons[:min(clouds, len(r.daemons))] {
		t, err := d.CPUTime()
		if errors.Is(err, errors.ErrUnsupported) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}
