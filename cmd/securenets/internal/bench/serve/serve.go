// Package serve measures a daemon under load: beside the bare kernel, over minutes, with
// many idle callers, and beside an echo of the same frames.
package serve

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/plan"
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
// microseconds of processor time.
type Transport struct {
	Rows   int     `json:"rows"`
	Bytes  int     `json:"bytes"` // each way
	Kernel float64 `json:"kernel_us"`
	GRPC   Path    `json:"grpc"`
	Socket Path    `json:"socket"` // direct
	Shared Path    `json:"shared"`
	// Falls is the share by gRPC over that by shared memory.
	Falls float64 `json:"share_falls_by"`

	falls [2]float64 // quartiles
}

// Path is what one way takes: the daemon's process and the callers' together, less the bare
// kernel's; the daemon's part; and the share in a request of serveOp, with the bare kernel's
// time beside.
type Path struct {
	All    float64 `json:"us"`
	Daemon float64 `json:"daemon_us"`
	Share  float64 `json:"share"`
}

// Names of loads.
const (
	loadClosed    = "closed"
	loadShared    = "closed, shared memory"
	loadGRPC      = "closed, gRPC"
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

// How long a load is measured, with Quick and without.
const quickBudget, fullBudget = 400 * time.Millisecond, 4 * time.Second

// Run loads a daemon of its own from this process.
func Run(ctx context.Context, o Options) (*Result, error) {
	rounds := 5
	if o.Quick {
		rounds = 3
	}
	return o.run(ctx, serveOp, rounds, o.Each(quickBudget, fullBudget))
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

	all := series{Options: o, on: s, rounds: rounds, loads: map[string][]Row{}, transports: make([]transportSeries, len(transportRows))}
	for range rounds {
		if err := all.round(ctx); err != nil {
			return nil, err
		}
	}
	return all.result(), nil
}
