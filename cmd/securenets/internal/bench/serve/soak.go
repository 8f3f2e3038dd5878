package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/traffic"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
)

// SoakOptions say how to load a daemon for long.
type SoakOptions struct {
	measure.Options
	Threads int // of the daemon that compute
	Callers int
	Rows    int // of a request
	For     time.Duration
}

// SoakResult says what a daemon held before, during and after a long load.
type SoakResult struct {
	CPU     string  `json:"cpu"`
	Threads int     `json:"threads"`
	Seconds float64 `json:"seconds"`
	Load    Row     `json:"load"`
	// Visits are connections that came meanwhile, stored a model, used it, removed it
	// and left.
	Visits  int      `json:"visits"`
	Before  Figures  `json:"before"`
	After   Figures  `json:"after"`
	Samples []Sample `json:"samples"`
	// Growth is that of the line through the memory of the samples after WarmUp
	// seconds, from the first to the last, over their mean. By then the heap is to have
	// grown to what the garbage collector lets it.
	WarmUp float64 `json:"warm_up_seconds"`
	Growth float64 `json:"memory_growth"`
}

// Sample is what the daemon held at a time.
type Sample struct {
	At float64 `json:"seconds"`
	Figures
}

// mostGrowth is the most growth of memory that counts as none: what the garbage
// collector's cycles leave of a line through samples that have none.
const mostGrowth = 0.05

// Verdict returns an error that names what grew or was left behind.
func (s *SoakResult) Verdict() error {
	var all []error
	if s.Growth > mostGrowth {
		all = append(all, fmt.Errorf("bench: memory grew by %.1f %% after the warm-up, more than %.0f %%", 100*s.Growth, 100*mostGrowth))
	}
	if s.After.Goroutines > s.Before.Goroutines {
		all = append(all, fmt.Errorf("bench: %d goroutines before, %d after", s.Before.Goroutines, s.After.Goroutines))
	}
	if s.After.Descriptors > s.Before.Descriptors {
		all = append(all, fmt.Errorf("bench: %d descriptors before, %d after", s.Before.Descriptors, s.After.Descriptors))
	}
	return errors.Join(all...)
}

// Soak loads a daemon of its own from this process, with as much as it can do.
func Soak(ctx context.Context, o SoakOptions) (*SoakResult, error) {
	return o.soak(ctx, traffic.Model(0, serveOp))
}

func (o SoakOptions) soak(ctx context.Context, model sealed.Model) (_ *SoakResult, err error) {
	w, err := startWatched(ctx, o.Daemon, o.Threads, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Stop()) }()
	of, err := w.store(ctx, model, o.Rows)
	if err != nil {
		return nil, err
	}
	small := traffic.Model(1, traffic.MNIST...)
	if err := visit(ctx, w.Addr, small); err != nil { // what a first caller leaves for good
		return nil, err
	}
	r := &SoakResult{CPU: measure.Processor(), Threads: o.Threads, Seconds: o.For.Seconds(), WarmUp: (o.For * 2 / 5).Seconds()}
	if r.Before, err = w.settled(ctx, Figures{}); err != nil {
		return nil, err
	}

	load, stop := context.WithCancel(ctx)
	defer stop()
	var visited, sampled error
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		for load.Err() == nil && visited == nil {
			if visited = visit(ctx, w.Addr, small); visited == nil {
				r.Visits++
			}
			pause(load, 200*time.Millisecond)
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		start, every := time.Now(), max(o.For/150, 100*time.Millisecond)
		for pause(load, every); load.Err() == nil && sampled == nil; pause(load, every) {
			var f Figures
			f, sampled = w.figures(ctx)
			at := time.Since(start)
			o.Progress("soak", int(at/time.Millisecond), int(o.For/time.Millisecond))
			if at <= o.For {
				r.Samples = append(r.Samples, Sample{at.Seconds(), f})
			}
		}
	}()
	s := &served{daemon: w.Daemon, budget: o.For * 4 / 5} // of which it waits a quarter before
	r.Load, err = s.load(ctx, loadClosed, same(o.Callers, 0, of))
	stop()
	<-done
	<-done
	if err := errors.Join(err, visited, sampled); err != nil {
		return nil, err
	}
	if r.Growth, err = growth(r.Samples, r.WarmUp); err != nil {
		return nil, err
	}
	r.After, err = w.settled(ctx, r.Before)
	return r, err
}

// pause waits until ctx ends at the latest.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// settled returns the daemon's figures once they are no more than some, or do not fall
// any more.
func (w *watched) settled(ctx context.Context, most Figures) (f Figures, err error) {
	const tries, least = 100, 5
	for i := range tries {
		last := f
		if f, err = w.figures(ctx); err != nil {
			return f, err
		}
		if f.Goroutines <= most.Goroutines && f.Descriptors <= most.Descriptors {
			return f, nil
		}
		if most == (Figures{}) && i >= least && f.Goroutines == last.Goroutines && f.Descriptors == last.Descriptors {
			return f, nil
		}
		pause(ctx, 100*time.Millisecond)
	}
	return f, nil
}

// visit is a caller who comes, stores a model, asks for each of its layers, removes it
// and leaves.
func visit(ctx context.Context, addr string, m sealed.Model) (err error) {
	conn, err := wire.Dial(addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	b, err := m.Marshal()
	if err != nil {
		return err
	}
	digest := sealed.Sum(b)
	if err := traffic.Upload(ctx, conn, digest, b); err != nil {
		return err
	}
	var targets []traffic.Target
	for layer, op := range m.Plan.Ops {
		targets = append(targets, traffic.Target{Digest: digest, Layer: layer, Op: op, X: traffic.Rows(op, 1)})
	}
	if err := traffic.Once(ctx, conn, targets); err != nil {
		return err
	}
	_, err = pb.NewSecureNetsClient(conn).Remove(ctx, &pb.RemoveRequest{Digest: digest[:]})
	return wire.FromStatus(err)
}

// growth returns by what part of its mean the line through the samples' memory grows,
// from the first to the last of those after the warm-up.
func growth(samples []Sample, warmUp float64) (float64, error) {
	var n, t, m float64
	for _, s := range samples {
		if s.At >= warmUp {
			n, t, m = n+1, t+s.At, m+float64(s.Memory)
		}
	}
	const least = 10
	if n < least {
		return 0, fmt.Errorf("bench: %.0f samples after the warm-up, want %d", n, least)
	}
	t, m = t/n, m/n
	var tt, tm float64
	first, last := math.Inf(1), 0.0
	for _, s := range samples {
		if s.At >= warmUp {
			tt, tm = tt+(s.At-t)*(s.At-t), tm+(s.At-t)*(float64(s.Memory)-m)
			first, last = min(first, s.At), max(last, s.At)
		}
	}
	return tm / tt * (last - first) / m, nil
}

// CSV writes the samples.
func (s *SoakResult) CSV(w io.Writer) error {
	return render.CSV(w, []string{"seconds", "resident_memory_bytes", "goroutines", "open_fds"}, s.Samples)
}

// Record is the row in CSV.
func (s Sample) Record() []string {
	return []string{render.Decimal(s.At), strconv.FormatInt(s.Memory, 10), strconv.FormatInt(s.Goroutines, 10), strconv.FormatInt(s.Descriptors, 10)}
}

// Table writes the figures for people.
func (s *SoakResult) Table(w io.Writer) error {
	t := render.Table(w)
	fmt.Fprintln(t, "\tmemory, MiB\tgoroutines\tdescriptors")
	row := func(name string, f Figures) {
		fmt.Fprintf(t, "%s\t%.1f\t%d\t%d\n", name, float64(f.Memory)/(1<<20), f.Goroutines, f.Descriptors)
	}
	row("before", s.Before)
	const shown = 10
	for i := range shown {
		if at := (i + 1) * len(s.Samples) / shown; at > i*len(s.Samples)/shown {
			row(fmt.Sprintf("after %.0f s", s.Samples[at-1].At), s.Samples[at-1].Figures)
		}
	}
	row("callers gone", s.After)
	if err := t.Flush(); err != nil {
		return err
	}
	verdict := "kept: memory is flat, nothing is left behind"
	if err := s.Verdict(); err != nil {
		verdict = "broken"
	}
	_, err := fmt.Fprintf(w, `
%d callers, each with one request in flight, got %.0f answers per second with a median latency
of %.0f us. %d others came, stored a small model, used it, removed it and left.
Memory grew by %.1f %% of its mean, along a line fitted to its values after %.0f s.
Required are at most %.0f %%, and no more goroutines or descriptors than before: %s.
`, s.Load.Callers, s.Load.Goodput, s.Load.P50, s.Visits, 100*s.Growth, s.WarmUp, 100*mostGrowth, verdict)
	return err
}
