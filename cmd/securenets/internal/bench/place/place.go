// Package place measures what whole networks cost the host, with every layer sent, and
// with the layers kept that do not pay to send.
package place

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/demo"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/transform"
)

// Options say what to measure, beside Options.
type Options struct {
	measure.Options
	Networks []string
	Schemes  []transform.Scheme
	Daemon   string // path of securenetsd
}

// Result are the figures of whole networks: what they cost the host.
type Result struct {
	CPU     string `json:"cpu"`
	Threads int    `json:"threads"`
	Batch   int    `json:"batch"` // images a call
	Rounds  int    `json:"rounds"`
	Rows    []Row  `json:"rows"`
}

// Row is a network under a scheme and a placement. Times are CPU time of the
// host's process in nanoseconds an image.
type Row struct {
	Network string `json:"network"`
	Scheme  string `json:"scheme"`
	Place   string `json:"place"`
	Sent    int    `json:"layers_sent"` // linear ones
	Kept    int    `json:"layers_kept"`
	Online  int64  `json:"host_online_ns"`
	Offline int64  `json:"host_offline_ns"`
	Total   int64  `json:"host_total_ns"` // the median of sums
	Local   int64  `json:"local_ns"`      // plain float32 through the reference
	// Expected is the online saving over sending all, as sealing measured it; 0 for "all".
	Expected int64 `json:"expected_saving_ns"`

	spread [2]int64 // of Total
}

const costBatch = 256

// Run measures what networks cost the host with every layer sent and with those
// that do not pay kept, and in the same rounds in plain float32, all on one thread:
// GOMAXPROCS is 1 meanwhile, for sealing too. Figures are medians over rounds. Results
// that differ in a bit between schemes or placements are an error.
func Run(ctx context.Context, o Options) (*Result, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	result := &Result{CPU: measure.Processor(), Threads: 1, Batch: costBatch, Rounds: 7}
	if o.Quick {
		result.Rounds = 3
	}
	for _, network := range o.Networks {
		rows, err := o.network(ctx, network, result.Rounds)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", network, err)
		}
		result.Rows = append(result.Rows, rows...)
	}
	return result, nil
}

// costs are one row in the making.
type costs struct {
	*demo.Costs
	row                    Row
	online, offline, total measure.Series
}

func (o Options) network(ctx context.Context, network string, rounds int) (_ []Row, err error) {
	options := demo.Options{Network: network, Batch: costBatch, Daemon: o.Daemon, Out: io.Discard, Progress: func(string, int, int) {}}
	var all []*costs
	defer func() {
		for _, c := range all {
			err = errors.Join(err, c.Close())
		}
	}()
	places := []hostclient.Place{hostclient.PlaceAll, hostclient.PlaceAuto}
	for _, options.Scheme = range o.Schemes {
		for _, options.Place = range places {
			o.Progress(network+": sealing", len(all), len(o.Schemes)*len(places))
			d, err := demo.OpenCosts(ctx, options, 1)
			if err != nil {
				return nil, err
			}
			c := &costs{Costs: d, row: Row{Network: network, Scheme: options.Scheme.String(), Place: string(options.Place)}}
			all = append(all, c)
			for _, l := range d.Description().Layers {
				switch {
				case l.Kept:
					c.row.Kept++
				case l.Cloud != "":
					c.row.Sent++
				}
			}
			if p := d.Description().Placement; p != nil {
				c.row.Expected = p.AllOnline - p.Online
			}
		}
	}
	local, err := demo.OpenLocal(options)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, local.Close()) }()

	var floats measure.Series
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / costBatch }
	for round := range 1 + rounds {
		o.Progress(network, round, 1+rounds)
		took, err := local.Batch(round)
		if err != nil {
			return nil, err
		}
		var first []float32
		for _, c := range all {
			offline, online, y, err := c.Batch(ctx, round)
			if err != nil {
				return nil, err
			}
			if first == nil {
				first = y
			} else if !measure.SameBits(first, y) {
				return nil, fmt.Errorf("bench: %s with %s differs from %s with %s", c.row.Scheme, c.row.Place, all[0].row.Scheme, all[0].row.Place)
			}
			if round > 0 { // the first connects
				c.online, c.offline = append(c.online, each(online)), append(c.offline, each(offline))
				c.total = append(c.total, each(online+offline))
			}
		}
		if round > 0 {
			floats = append(floats, each(took))
		}
	}
	var rows []Row
	for _, c := range all {
		c.row.Online, c.row.Offline, c.row.Total = int64(c.online.Median()), int64(c.offline.Median()), int64(c.total.Median())
		c.row.Local = int64(floats.Median())
		c.row.spread = [2]int64{int64(c.total.Quartile(1)), int64(c.total.Quartile(3))}
		rows = append(rows, c.row)
	}
	return rows, nil
}

// Table writes the figures for people.
func (p *Result) Table(w io.Writer) error {
	micros := func(ns int64) string { return fmt.Sprintf("%.1f", float64(ns)/1000) }
	t := render.Table(w)
	fmt.Fprintln(t, "network\tscheme\tplace\tsent\tkept\tonline\toffline\ttotal\tquartiles\tlocal float32\ttotal/local\texpected saving")
	for _, r := range p.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s-%s\t%s\t%.2f\t%s\n", r.Network, r.Scheme, r.Place, r.Sent, r.Kept,
			micros(r.Online), micros(r.Offline), micros(r.Total), micros(r.spread[0]), micros(r.spread[1]),
			micros(r.Local), float64(r.Total)/float64(max(1, r.Local)), micros(r.Expected))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `
CPU time of the host's process in microseconds per image, system time and garbage
collection included: one thread, %d images a call, two calls in a row after a warm-up
call; medians over %d interleaved rounds.
Offline is pads. Local float32 is the reference, gorgonia on gonum BLAS, which is not
the fastest there is. Expected saving is what "auto" saves online over "all", as
sealing measured it. All rows of a network gave the same results bit for bit.
`, p.Batch, p.Rounds)
	return err
}

// CSV writes the rows.
func (p *Result) CSV(w io.Writer) error {
	return render.CSV(w, []string{
		"network", "scheme", "place", "layers_sent", "layers_kept",
		"host_online_ns", "host_offline_ns", "host_total_ns", "local_ns", "expected_saving_ns",
	}, p.Rows)
}

// Record is the row in CSV.
func (r Row) Record() []string {
	fields := []string{r.Network, r.Scheme, r.Place}
	for _, n := range []int64{int64(r.Sent), int64(r.Kept), r.Online, r.Offline, r.Total, r.Local, r.Expected} {
		fields = append(fields, strconv.FormatInt(n, 10))
	}
	return fields
}
