package serve

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
)

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
	fmt.Fprintln(t, "rows\tbytes each way\tbare kernel\tgRPC\tshare\tdirect, socket\tshare\tshared memory\tshare\tgRPC's over it")
	for _, r := range s.Transport {
		fmt.Fprintf(t, "%d\t%s\t%.0f us", r.Rows, render.Count(r.Bytes), r.Kernel)
		for _, p := range []Path{r.GRPC, r.Socket, r.Shared} {
			fmt.Fprintf(t, "\t%.1f us (%.1f)\t%.2f %%", p.All, p.Daemon, 100*p.Share)
		}
		fmt.Fprintf(t, "\t%.2f (%.2f-%.2f)\n", r.Falls, r.falls[0], r.falls[1])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `
Requests have %d row(s) for a dense layer of 4096 by 4096; in the mixed load, half of them
are for the layers of mnist-cnn. One process sends them, over one connection per caller: direct
streams on the socket, but where it says otherwise.
Every answer is compared with the product. A refusal counts as one only if it says when
to come back. Times are in microseconds: medians over rounds, in which all loads take turns.
Latency counts from when a request was due; network is the part of it that is neither
queue nor compute. Daemon CPU is its process' CPU time per answered request, with %d
compute thread(s); the bare kernel's is measured beside the load, with as many. Merged
means one request of every caller together. The peak is the closed loop's goodput in the
same round. By the daemon's CPU means requests per second of its CPU time, not of elapsed time.

The last table is about the path of words to a product and back: CPU time per request of
the daemon's process and the callers' together (the daemon's alone in brackets), less the
bare kernel's. It is measured with a layer that has little to multiply, 64 by 64, with as
many words as so many rows of 4096 by 4096, and with %d callers. Its share is that in
a request of 4096 by 4096: of its own time and the merged bare kernel's together.
`, s.Rows, s.Threads, transportCallers)
	return err
}
