package serve

import (
	"context"
	"slices"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/traffic"
)

// series are what the rounds of a Result measured.
type series struct {
	Options
	on     *served
	rounds int // in all

	step       int              // loads so far
	loads      map[string][]Row // by name, one a round
	transports []transportSeries

	kernelAlone, kernelMerged                         measure.Series
	overhead, overheadShared, batching, gain, gainCPU measure.Series
	overload, overloadCPU, jain, least, most          measure.Series
}

// load loads the daemon once, as a round does under that name.
func (s *series) load(ctx context.Context, name string, callers []traffic.Caller) (Row, error) {
	s.Progress(name, s.step, 8*s.rounds)
	s.step++
	row, err := s.on.load(ctx, name, callers)
	s.loads[name] = append(s.loads[name], row)
	return row, err
}

// round measures everything once.
func (s *series) round(ctx context.Context) error {
	closed, kernel, err := s.batched(ctx)
	if err != nil {
		return err
	}
	if err := s.ways(ctx, kernel); err != nil {
		return err
	}
	if _, err := s.load(ctx, loadMixed, s.on.spread(s.Callers)); err != nil {
		return err
	}
	if err := s.overloaded(ctx, closed); err != nil {
		return err
	}
	return s.unfair(ctx)
}

// batched measures what batching gains, and what the daemon costs beside the bare kernel.
// It returns the load that saturates, and the bare kernel's time for a request in it.
func (s *series) batched(ctx context.Context) (closed Row, kernel float64, err error) {
	alone, err := s.on.kernel(ctx, 1)
	if err != nil {
		return Row{}, 0, err
	}
	before, err := s.on.kernel(ctx, s.Callers)
	if err != nil {
		return Row{}, 0, err
	}
	if closed, err = s.load(ctx, loadClosed, same(s.Callers, 0, s.on.merged)); err != nil {
		return Row{}, 0, err
	}
	after, err := s.on.kernel(ctx, s.Callers)
	if err != nil {
		return Row{}, 0, err
	}
	single, err := s.load(ctx, loadUnbatched, same(s.Callers, 0, s.on.single))
	if err != nil {
		return Row{}, 0, err
	}
	kernel = (before + after) / 2
	s.kernelAlone, s.kernelMerged = append(s.kernelAlone, alone), append(s.kernelMerged, kernel)
	s.overhead = append(s.overhead, closed.Daemon/kernel)
	s.batching = append(s.batching, closed.Goodput/single.Goodput)
	s.gain = append(s.gain, closed.Goodput/single.Goodput/(alone/kernel))
	s.gainCPU = append(s.gainCPU, single.Daemon/closed.Daemon/(alone/kernel))
	return closed, kernel, nil
}

// ways measures one caller alone, and what ways to bring words cost, given the bare
// kernel's time for a request.
func (s *series) ways(ctx context.Context, kernel float64) error {
	if _, err := s.load(ctx, loadAlone, same(1, 0, s.on.merged)); err != nil {
		return err
	}
	shared, err := s.load(ctx, loadShared, by(traffic.Shared, same(s.Callers, 0, s.on.merged)))
	if err != nil {
		return err
	}
	s.overheadShared = append(s.overheadShared, shared.Daemon/kernel)
	for i, n := range transportRows {
		if err := s.on.ways(ctx, n, kernel/float64(s.on.rows), &s.transports[i]); err != nil {
			return err
		}
	}
	return nil
}

// overloaded measures half and twice the load that saturates.
func (s *series) overloaded(ctx context.Context, closed Row) error {
	each := closed.Goodput / float64(s.Callers)
	if _, err := s.load(ctx, loadHalf, same(s.Callers, each/2, s.on.merged)); err != nil {
		return err
	}
	twice, err := s.load(ctx, loadTwice, same(s.Callers, 2*each, s.on.merged))
	if err != nil {
		return err
	}
	s.overload = append(s.overload, twice.Goodput/closed.Goodput)
	s.overloadCPU = append(s.overloadCPU, closed.Daemon/twice.Daemon)
	return nil
}

// unfair measures the shares of ten callers, of whom one is greedy.
func (s *series) unfair(ctx context.Context) error {
	// All have more waiting than a product takes of them: a tenth is their fair share.
	const others = 9
	callers := same(others+1, 0, s.on.contended)
	for i := range callers {
		callers[i].Depth = contendedDepth
	}
	callers[0].Depth *= 10
	row, err := s.load(ctx, loadUnfair, callers)
	if err != nil {
		return err
	}
	fair, sum, squares := 0.0, 0.0, 0.0
	for _, v := range row.shares {
		fair += v / (others + 1)
		sum, squares = sum+v, squares+v*v
	}
	s.jain = append(s.jain, sum*sum/((others+1)*squares))
	s.least = append(s.least, slices.Min(row.shares[1:])/fair)
	s.most = append(s.most, slices.Max(row.shares[1:])/fair)
	return nil
}

// result returns the medians of all rounds.
func (s *series) result() *Result {
	r := &Result{
		CPU: measure.Processor(), Threads: s.Threads, Rows: s.Rows,
		KernelAlone: s.kernelAlone.Median(), KernelMerged: s.kernelMerged.Median(),
		Overhead: s.overhead.Median(), overhead: s.overhead.Spread(),
		OverheadShared: s.overheadShared.Median(), overheadShared: s.overheadShared.Spread(),
		Batching: s.batching.Median(), Gain: s.gain.Median(), gain: s.gain.Spread(), GainCPU: s.gainCPU.Median(),
		Overload: s.overload.Median(), overload: s.overload.Spread(), OverloadCPU: s.overloadCPU.Median(),
		Jain: s.jain.Median(), Least: s.least.Median(), Most: s.most.Median(),
	}
	for _, name := range []string{loadAlone, loadUnbatched, loadClosed, loadShared, loadMixed, loadHalf, loadTwice, loadUnfair} {
		r.Loads = append(r.Loads, medianRow(s.loads[name]))
	}
	for i, n := range transportRows {
		r.Transport = append(r.Transport, s.transports[i].row(n))
	}
	return r
}
