package paper

import (
	"fmt"
	"slices"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/transform"
)

// Result are the paper's tables, measured.
type Result struct {
	CPU     string `json:"cpu"`
	Version string `json:"version"`
	Threads int    `json:"threads"`     // all that there are
	Batch   int    `json:"batch"`       // images a call, table 1
	Large   int    `json:"batch_large"` // table 2
	Rounds  int    `json:"rounds"`
	Quick   bool   `json:"quick"`
	Partial bool   `json:"partial"` // it was interrupted
	Rows    []Row  `json:"rows"`
}

// Row is a row of one of the tables. Times are in milliseconds an image, medians over
// rounds, and elapsed where they do not say CPU. What does not apply is null.
type Row struct {
	Table   int    `json:"table"`
	Network string `json:"network"`
	// System says whose figures these are: "securenets", "local", or another's name, with
	// "published" where they were not measured here.
	System   string `json:"system"`
	Scheme   string `json:"scheme"`   // "" without a cloud
	Ring     string `json:"ring"`     // of securenets
	Weights  string `json:"weights"`  // under permute: masked "once" or "every call"
	Baseline string `json:"baseline"` // what LocalMS is of
	Checks   string `json:"checks"`   // entries of a call that are checked: "0", "10", "100", or "full"
	Threads  *int   `json:"threads"`  // of the host, and of each daemon

	LocalMS       *float64 `json:"local_ms"`
	HostOnlineMS  *float64 `json:"host_online_ms"`
	HostOfflineMS *float64 `json:"host_offline_ms"`
	CloudMS       *float64 `json:"cloud_ms"`
	TransferMS    *float64 `json:"transfer_ms"`
	TotalMS       *float64 `json:"total_ms"` // without offline
	Accuracy      *float64 `json:"accuracy"` // a fraction
	BytesUp       *float64 `json:"bytes_up"` // payload an image
	BytesDown     *float64 `json:"bytes_down"`
	PerHour       *float64 `json:"per_hour"` // images

	Images     *int        `json:"images"` // that accuracy is of, and TenSEAL's bytes
	LocalCPU   *float64    `json:"local_cpu_ms"`
	HostCPU    *float64    `json:"host_cpu_ms"` // online
	OfflineCPU *float64    `json:"host_offline_cpu_ms"`
	DaemonCPU  *float64    `json:"daemon_cpu_ms"`
	LocalQ     *[2]float64 `json:"local_quartiles_ms"`
	TotalQ     *[2]float64 `json:"total_quartiles_ms"`
	// Estimated: checked in full with weights masked once, as it was measured, with the
	// time of that check taken away and that of these checks added, or that of masking and
	// sending weights.
	Estimated bool   `json:"estimated"`
	Confirms  *bool  `json:"confirms"` // the paper's figure that Verdict names
	Verdict   string `json:"verdict"`
	Note      string `json:"note"`
}

// Measured reports whether any row has figures that were measured here.
func (r *Result) Measured() bool {
	return slices.ContainsFunc(r.Rows, func(row Row) bool { return row.LocalMS != nil || row.TotalMS != nil })
}

func of[T any](v T) *T { return &v }

// median returns that of s, nil for none.
func median(s measure.Series) *float64 {
	if len(s) == 0 {
		return nil
	}
	return of(s.Median())
}

func quartiles(s measure.Series) *[2]float64 {
	if len(s) == 0 {
		return nil
	}
	return of(s.Spread())
}

// per returns part/all, nil of none.
func per[N int | int64](part N, all int) *float64 {
	if all == 0 {
		return nil
	}
	return of(float64(part) / float64(all))
}

// checks are those of table 1, by points; full stands last.
var checks = []struct {
	name   string
	points int // -1: the real check
}{{"0", 0}, {"10", 10}, {"100", 100}, {"full", -1}}

// rows returns what was measured of n, which may be part of it.
func (n *network) rows() []Row {
	if n.name == CryptoNets {
		return n.tableTwo()
	}
	var rows []Row
	for _, b := range n.baselines {
		if len(b.elapsed) == 0 {
			continue
		}
		r := Row{
			Table: 1, Network: n.name, System: "local", Baseline: b.name, Threads: of(b.threads), LocalMS: median(b.elapsed), LocalCPU: median(b.spent),
			LocalQ: quartiles(b.elapsed), Accuracy: per(b.right, b.images), Images: of(b.images),
		}
		if b.name == "onnxruntime" {
			r.Note = "onnxruntime " + n.version
		}
		rows = append(rows, r)
	}
	if n.missing != nil {
		rows = append(rows, Row{Table: 1, Network: n.name, System: "local", Baseline: "onnxruntime", Note: n.missing.Error()})
	}
	for _, anew := range []bool{false, true} {
		for _, o := range n.outsourced {
			var r *remasking
			for _, each := range n.remask {
				if anew && each.outsourced == o && len(each.mask) > 0 {
					r = each
				}
			}
			if len(o.total) > 0 && (r != nil) == anew {
				rows = append(rows, n.compared(o, r)...)
			}
		}
	}
	return rows
}

// row returns that of o, checked in full.
func (o *outsourced) row(table int) Row {
	r := Row{
		Table: table, Network: o.network.name, System: "securenets", Scheme: o.scheme.String(), Ring: string(o.in), Checks: "full", Threads: of(o.threads),
		HostOnlineMS: median(o.host), HostOfflineMS: median(o.offline), CloudMS: median(o.cloud), TransferMS: median(o.transfer), TotalMS: median(o.total),
		Accuracy: per(o.right, o.images), BytesUp: per(o.up, o.batches*o.network.batch()), BytesDown: per(o.down, o.batches*o.network.batch()), Images: of(o.images),
		HostCPU: median(o.hostCPU), OfflineCPU: median(o.offlineCPU), DaemonCPU: median(o.daemonCPU), TotalQ: quartiles(o.total),
	}
	if o.scheme.Inputs == transform.InputPermute {
		r.Weights = "once"
	}
	return r
}

// compared returns the rows of o beside each baseline and with each check; with the
// weights masked anew at every call where r is not nil.
func (n *network) compared(o *outsourced, r *remasking) (rows []Row) {
	row := o.row(1)
	if r != nil {
		row.Weights = "every call"
		mask, push := r.mask.Median(), r.push.Median()
		*row.HostOnlineMS += mask
		*row.TransferMS += push
		*row.TotalMS += mask + push
		*row.BytesUp += float64(r.bytes) / float64(n.batch())
		row.HostCPU, row.DaemonCPU, row.TotalQ = nil, nil, nil // of which this is no part
		row.Estimated = true                                   // by adding it
	}
	cost := n.checks[checkedAs(o.scheme)]
	for _, b := range n.baselines {
		if b.threads != o.threads || len(b.elapsed) == 0 {
			continue
		}
		for _, c := range checks {
			row := row
			row.Baseline, row.Checks, row.LocalMS, row.LocalCPU, row.LocalQ = b.name, c.name, median(b.elapsed), median(b.spent), quartiles(b.elapsed)
			if c.points >= 0 {
				if len(cost.inputs) == 0 {
					continue
				}
				row = row.instead(cost.instead(c.points, o.threads))
			}
			rows = append(rows, row.judged())
		}
	}
	return rows
}

// instead returns the row where checks take the host so much longer, in milliseconds an
// image. The total changes as the sum of the parts does: they may overlap in it.
func (r Row) instead(longer float64) Row {
	host, sum := *r.HostOnlineMS, *r.HostOnlineMS+*r.CloudMS+*r.TransferMS
	longer = max(longer, -host)
	r.HostOnlineMS = of(host + longer)
	r.TotalMS = of(*r.TotalMS * (sum + longer) / sum)
	r.HostCPU, r.DaemonCPU, r.TotalQ = nil, nil, nil // of the check that was measured
	r.Estimated = true
	return r
}

// tableTwo returns the rows of CryptoNets' network.
func (n *network) tableTwo() []Row {
	rows := slices.Clone(published)
	for _, o := range n.outsourced {
		if len(o.total) > 0 {
			r := o.row(2)
			r.PerHour = of(3.6e6 / *r.TotalMS)
			rows = append(rows, r.judged())
		}
	}
	if n.encrypted != nil {
		rows = append(rows, n.encrypted.row(n.name))
	}
	return rows
}

// row returns that of an image a ciphertext.
func (e *encrypted) row(network string) Row {
	r := Row{Table: 2, Network: network, System: "TenSEAL"}
	if e.absent != "" {
		r.Note = e.absent
		return r
	}
	if e.images == 0 {
		r.Note = "interrupted before an image was done"
		return r
	}
	r.System += " " + e.version
	host := make(measure.Series, len(e.encrypt))
	total := make(measure.Series, len(e.encrypt))
	for i := range host {
		host[i] = e.encrypt[i] + e.decrypt[i]
		total[i] = host[i] + e.evaluate[i]
	}
	r.HostOnlineMS, r.CloudMS, r.TotalMS, r.TotalQ = median(host), median(e.evaluate), median(total), quartiles(total)
	r.HostOfflineMS = of(0.0)
	r.BytesUp, r.BytesDown, r.Images = per(e.up, e.images), per(e.down, e.images), of(e.images)
	r.PerHour = of(3.6e6 / *r.TotalMS)
	r.Note = fmt.Sprintf("CKKS, degree %s, modulus of %d bits (128 bits of security), as many threads as TenSEAL takes; one image per ciphertext, its patches laid out by the client before encryption; "+
		"weights and shapes are in the clear at the cloud, and nothing is checked; keys of %s bytes are sent once and not counted; %d of %d images have the class of plain float32",
		render.Count(e.degree), e.modulusBits, render.Count(e.keyBytes), e.same, e.images)
	return r
}
