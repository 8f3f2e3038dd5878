// Package throughput measures an instance: the rate that callers get from its cloud
// through a host that checks every product, the rate of the cloud alone, and what both
// cost.
package throughput

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/kernels/cuda"
	"github.com/securenets/securenets/transform"
)

// Options say what to measure, and where.
type Options struct {
	measure.Options
	// Endpoint is a daemon to use; "" for daemons of its own. TLS is for tls:HOST:PORT.
	Endpoint string
	TLS      *tls.Config
	Backend  string // of daemons of its own: auto, cuda or cpu
	// PerHour is what an hour of the instance costs in Currency; 0: not known. It is that of
	// one provider: schemes of several have no cost in the report.
	PerHour  float64
	Currency string
	Command  []string // the command line, for the report

	driver []string // paths of libraries in place of CUDA's, for tests
}

// Schema names the report's form.
const Schema = "securenets/throughput/1"

// Report is the report. A partial one has what was measured before Stopped.
type Report struct {
	Schema   string          `json:"schema"`
	Partial  bool            `json:"partial"`
	Stopped  string          `json:"stopped,omitempty"` // why a report is partial
	Began    time.Time       `json:"began"`
	Seconds  float64         `json:"seconds"`
	Command  []string        `json:"command"`
	Quick    bool            `json:"quick"`
	Rounds   int             `json:"rounds"` // planned
	Build    measure.Build   `json:"build"`
	Machine  measure.Machine `json:"machine"`
	Daemon   Daemon          `json:"daemon"`
	PerHour  *float64        `json:"price_per_hour"`
	Currency string          `json:"currency,omitempty"`
	// Checked are products of a layer and an image that the host checked, Rejected those
	// that were wrong.
	Checked   int64     `json:"checked"`
	Rejected  int64     `json:"rejected"`
	Noise     Noise     `json:"noise"`
	Reference Reference `json:"reference"`
	Rows      []Row     `json:"rows"`
}

// Daemon is who multiplied.
type Daemon struct {
	Endpoint string        `json:"endpoint,omitempty"` // where it is not of the bench's own
	Version  string        `json:"version"`
	Backend  string        `json:"backend"`
	Devices  []cuda.Device `json:"devices"` // CUDA devices of this machine
	// LimitOf says what rows' limit_gmacs is a measure of; "" where there is none.
	LimitOf string `json:"limit_of,omitempty"`
}

// noisy is the part of the median that quartiles may be apart, and the reference
// readings from each other.
const noisy = 0.10

// Noise says which rows spread too far to be relied on.
type Noise struct {
	Threshold float64 `json:"threshold"`
	Rows      int     `json:"noisy_rows"`
	Noisy     bool    `json:"noisy"` // there are such rows, or the reference drifted
}

// Reference is one small product of the processor, measured between rounds, when
// nothing else of the bench runs.
type Reference struct {
	GMACs   []float64 `json:"gmacs"` // before each round, and at the end
	Drift   float64   `json:"drift"` // the widest difference, over the median
	Drifted bool      `json:"drifted"`
}

// Figure is a median over rounds with its quartiles.
type Figure struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"`
	Q3     float64 `json:"q3"`
}

// Sides.
const (
	sideHost  = "host"  // through hostclient, every product checked
	sideCloud = "cloud" // raw frames to the daemon, whose answers nobody unmasks
)

// Row is one load. What does not apply, or cannot be had, is null.
type Row struct {
	Side    string `json:"side"`
	Network string `json:"network"`
	Scheme  string `json:"scheme"`
	Width   int    `json:"width"` // of a network of dense layers of one width; 0 of others
	Depth   int    `json:"depth"`
	Rows    int    `json:"rows"`    // images of a request
	Callers int    `json:"callers"` // at a time
	// MulAdds are the ring multiply-adds of one image in one cloud.
	MulAdds int64 `json:"mul_adds"`
	Rounds  int   `json:"rounds"` // measured
	Calls   int   `json:"calls"`  // the fewest of a round, which latencies are of
	// Images, of side cloud, are those whose every layer was multiplied.
	Images *Figure `json:"images_per_second"`
	// GMACs are 10^9 ring multiply-adds a second in one cloud, Limit the most that the device
	// does, and Share the part of it that all clouds reach, in the same round.
	GMACs *Figure `json:"gmacs"`
	Limit *Figure `json:"limit_gmacs"`
	Share *Figure `json:"share_of_limit"`
	// ShareCPU is the part of one thread's limit that the daemons reach in their processor
	// time.
	ShareCPU *Figure `json:"share_of_limit_by_cpu"`
	// Microseconds of processor time an image: of the host's process, online and for pads,
	// and of all daemons.
	HostCPU    *Figure `json:"host_cpu_us"`
	HostPads   *Figure `json:"host_pads_us"`
	DaemonCPU  *Figure `json:"daemon_cpu_us"`
	BytesUp    *int64  `json:"bytes_up"` // payload an image
	BytesDown  *int64  `json:"bytes_down"`
	P50        *Figure `json:"p50_ms"` // of a call or, of side cloud, of a frame
	P90        *Figure `json:"p90_ms"`
	P95        *Figure `json:"p95_ms"`
	P99        *Figure `json:"p99_ms"`
	Cost       *Figure `json:"cost_per_million"` // of schemes with one role: the price is of one provider
	CostPadded *Figure `json:"cost_per_million_with_pads"`
	// Noise is the difference of the quartiles of Images over their median.
	Noise float64 `json:"noise"`
	Noisy bool    `json:"noisy"`
}

// figures are those of a row, in the order of columns.
var figures = []struct {
	name string
	of   func(*Row) **Figure
}{
	{"images_per_second", func(r *Row) **Figure { return &r.Images }},
	{"gmacs", func(r *Row) **Figure { return &r.GMACs }},
	{"limit_gmacs", func(r *Row) **Figure { return &r.Limit }},
	{"share_of_limit", func(r *Row) **Figure { return &r.Share }},
	{"share_of_limit_by_cpu", func(r *Row) **Figure { return &r.ShareCPU }},
	{"host_cpu_us", func(r *Row) **Figure { return &r.HostCPU }},
	{"host_pads_us", func(r *Row) **Figure { return &r.HostPads }},
	{"daemon_cpu_us", func(r *Row) **Figure { return &r.DaemonCPU }},
	{"p50_ms", func(r *Row) **Figure { return &r.P50 }},
	{"p90_ms", func(r *Row) **Figure { return &r.P90 }},
	{"p95_ms", func(r *Row) **Figure { return &r.P95 }},
	{"p99_ms", func(r *Row) **Figure { return &r.P99 }},
	{"cost_per_million", func(r *Row) **Figure { return &r.Cost }},
	{"cost_per_million_with_pads", func(r *Row) **Figure { return &r.CostPadded }},
}

// point is one load to measure.
type point struct {
	side    string
	network network
	scheme  transform.Scheme
	rows    int
	callers int
}

// network is a chain of dense layers of one width, or one of package models.
type network struct {
	width, depth int
	model        string
}

func (n network) String() string {
	if n.model != "" {
		return n.model
	}
	return fmt.Sprintf("dense-%dx%d", n.width, n.depth)
}

// sweep is what is measured: all rows with all callers, and from one network all else.
type sweep struct {
	base    network
	rows    []int
	callers []int
	widths  []int
	depths  []int
	model   string // a network with convolutions
	at      struct{ rows, callers int }
	rounds  int
	window  time.Duration // that a row takes in a round
	several bool          // also schemes of several clouds

	readings int // of a processor's limit at a time
	peer     int // rows, terms and columns of the plain product that is a device's limit
}

// sweepFor returns what suits a backend.
func sweepFor(device, quick bool) sweep {
	s := sweep{
		base: network{width: 1024, depth: 2}, model: "mnist-cnn", rounds: 5, window: 500 * time.Millisecond, readings: 3, peer: 4096,
		rows: []int{1, 8, 64, 256}, callers: []int{1, 4, 16}, widths: []int{256, 512, 1024, 2048, 4096}, depths: []int{1, 2, 4, 8},
	}
	s.at.rows, s.at.callers = 64, 4
	if device {
		s.base.width, s.at.rows = 4096, 128
		s.rows, s.widths, s.depths = []int{1, 16, 128, 512}, []int{1024, 2048, 4096, 8192}, []int{1, 2, 4}
	}
	if quick {
		s.rounds, s.window = 3, 120*time.Millisecond
		s.rows, s.callers, s.depths = []int{1, s.at.rows / 8, s.at.rows}, []int{1, 4}, []int{1, 2, 4}
		s.widths = s.widths[:len(s.widths)-1]
	}
	return s
}

// ofSeveral are the schemes that several clouds are measured with, each with its own daemon.
var ofSeveral = []transform.Scheme{
	{Weights: transform.WeightPermute, Inputs: transform.InputSplit},
	{Weights: transform.WeightLagrange, Inputs: transform.InputLagrange},
}

// clouds returns the number of clouds that the sweep needs.
func (s sweep) clouds() int {
	n := 1
	for _, p := range s.points() {
		n = max(n, p.scheme.Roles())
	}
	return n
}

// points returns the loads, each once.
func (s sweep) points() []point {
	pad := transform.DefaultScheme()
	var all []point
	add := func(p point) {
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	host := func(n network, scheme transform.Scheme) {
		add(point{sideHost, n, scheme, s.at.rows, s.at.callers})
	}
	cloud := func(n network, rows int) { add(point{sideCloud, n, pad, rows, s.at.callers}) }
	for _, callers := range s.callers {
		for _, rows := range s.rows {
			add(point{sideHost, s.base, pad, rows, callers})
		}
	}
	for _, rows := range s.rows {
		cloud(s.base, rows)
	}
	var others []network
	for _, w := range s.widths {
		others = append(others, network{width: w, depth: s.base.depth})
	}
	others = append(others, network{model: s.model})
	for _, n := range others {
		host(n, pad)
		cloud(n, s.at.rows)
		if s.several {
			for _, scheme := range ofSeveral {
				host(n, scheme)
			}
		}
	}
	for _, d := range s.depths {
		host(network{width: s.base.width, depth: d}, pad)
	}
	return all
}

// Run measures what callers of a cloud get, and what the cloud itself does. With
// an error there is a partial report, of what was measured before it.
func Run(ctx context.Context, o Options) (*Report, error) {
	return o.run(ctx, func(device bool) sweep { return sweepFor(device, o.Quick) })
}

func (o Options) run(ctx context.Context, plan func(device bool) sweep) (_ *Report, err error) {
	t := &Report{
		Schema: Schema, Partial: true, Began: time.Now().UTC().Truncate(time.Second), Command: o.Command, Quick: o.Quick,
		Build: measure.ThisBuild(), Machine: measure.ThisMachine(), Daemon: Daemon{Devices: []cuda.Device{}}, Noise: Noise{Threshold: noisy},
		Reference: Reference{GMACs: []float64{}}, Rows: []Row{},
	}
	if o.PerHour > 0 {
		t.PerHour, t.Currency = &o.PerHour, o.Currency
	}
	began := time.Now()
	r := &running{o: o, report: t}
	err = r.measure(ctx, plan)
	err = errors.Join(err, r.close())
	if ctx.Err() != nil {
		err = context.Cause(ctx) // whatever it broke off
	}
	t.Partial = err != nil
	if err != nil {
		t.Stopped = err.Error()
	}
	t.Seconds = math.Round(time.Since(began).Seconds()*10) / 10
	t.sum(r.loads)
	return t, err
}

// load is a row in the making.
type load struct {
	point
	row     Row
	figures map[string]measure.Series // one value a round
	calls   int                       // of a window
}

// add notes a round's figure.
func (l *load) add(name string, v float64) { l.figures[name] = append(l.figures[name], v) }

// sum makes the report's rows of what was measured.
func (t *Report) sum(loads []*load) {
	for _, l := range loads {
		if len(l.figures["images_per_second"]) == 0 {
			continue
		}
		r := l.row
		r.Rounds = len(l.figures["images_per_second"])
		for _, f := range figures {
			if v := l.figures[f.name]; len(v) > 0 {
				*f.of(&r) = summary(v)
			}
		}
		r.Noise = spreadOf(*r.Images)
		if r.Noisy = r.Noise > t.Noise.Threshold; r.Noisy {
			t.Noise.Rows++
		}
		t.Rows = append(t.Rows, r)
	}
	t.Reference.judge(t.Noise.Threshold)
	t.Noise.Noisy = t.Noise.Rows > 0 || t.Reference.Drifted
}

// judge says whether the readings differ by more than a part of their median.
func (r *Reference) judge(threshold float64) {
	if len(r.GMACs) == 0 {
		return
	}
	r.Drift = measure.Round((slices.Max(r.GMACs) - slices.Min(r.GMACs)) / summary(r.GMACs).Median)
	r.Drifted = r.Drift > threshold
}

// summary returns the median and the quartiles, between two values where they fall
// there.
func summary(v []float64) *Figure {
	s := measure.Series(v)
	return &Figure{Median: s.Median(), Q1: s.Quartile(1), Q3: s.Quartile(3)}
}

// spreadOf is the difference of the quartiles over the median.
func spreadOf(f Figure) float64 { return measure.Round((f.Q3 - f.Q1) / f.Median) }

// costPerMillion is what a million images cost at a price an hour, where one takes so
// many seconds of the instance.
func costPerMillion(perHour, seconds float64) float64 { return perHour / 3600 * seconds * 1e6 }

// percentile returns the nearest rank of q in sorted values.
func percentile(sorted []float64, q float64) float64 {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// checked adds a session's counters to the report.
func (t *Report) checked(s hostclient.Stats) {
	t.Checked += s.Checked
	t.Rejected += s.Rejected
}
