package paper

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
)

// lines returns the rows of a table as cells, names first: rows beside onnxruntime are one
// line with those beside the reference.
func (p *Result) lines(table int) (lines [][]string) {
	ms := func(v *float64) string { return number(v, 1, "%.4g") }
	kb := func(v *float64) string { return number(v, 1./bytesOfKB, "%.2f") }
	percent := func(v *float64) string { return number(v, 100, "%.2f %%") }
	if table == 1 {
		lines = append(lines, []string{
			"network", "threads", "scheme", "weights masked", "checks", "local", "total", "quartiles", "host online", "host offline", "cloud", "transfer",
			"of reference", "of onnxruntime", "accuracy", "KB up", "KB down", "CPU host + daemon", "confirms",
		})
	} else {
		lines = append(lines, []string{
			"system", "scheme", "ring", "checks", "threads", "predictions/hour", "total", "quartiles", "host online", "host offline", "cloud", "transfer", "accuracy", "KB up", "KB down", "KB", "CPU host + daemon", "confirms",
		})
	}
	for _, r := range p.Rows {
		if r.Table != table || r.System == "securenets" && r.Baseline == "onnxruntime" {
			continue
		}
		cpu := ""
		if r.HostCPU != nil && r.DaemonCPU != nil {
			cpu = ms(r.HostCPU) + " + " + ms(r.DaemonCPU)
		}
		if r.System == "local" {
			cpu = ms(r.LocalCPU)
		}
		confirms := ""
		if r.Confirms != nil {
			confirms = map[bool]string{true: "yes", false: "no"}[*r.Confirms]
		}
		total := ms(r.TotalMS)
		if r.Estimated {
			total = "~" + total
		}
		if table == 2 {
			var both *float64
			if r.BytesUp != nil && r.BytesDown != nil {
				both = of(*r.BytesUp + *r.BytesDown)
			}
			perHour := ""
			if r.PerHour != nil {
				perHour = render.Count(int64(math.Round(*r.PerHour)))
			}
			lines = append(lines, []string{
				r.System, r.Scheme, r.Ring, r.Checks, count(r.Threads), perHour, total, span(r.TotalQ), ms(r.HostOnlineMS), ms(r.HostOfflineMS), ms(r.CloudMS), ms(r.TransferMS),
				percent(r.Accuracy), kb(r.BytesUp), kb(r.BytesDown), kb(both), cpu, confirms,
			})
			continue
		}
		scheme, spread, local := r.Scheme, span(r.TotalQ), ""
		if r.System == "local" {
			scheme, spread, local = "local, "+r.Baseline, span(r.LocalQ), ms(r.LocalMS)
			if r.LocalMS == nil {
				local = "not measured"
			}
		}
		lines = append(lines, []string{
			r.Network, count(r.Threads), scheme, r.Weights, r.Checks, local, total, spread, ms(r.HostOnlineMS), ms(r.HostOfflineMS), ms(r.CloudMS), ms(r.TransferMS),
			r.ratio(), p.beside(r, "onnxruntime").ratio(), percent(r.Accuracy), kb(r.BytesUp), kb(r.BytesDown), cpu, confirms,
		})
	}
	return lines
}

// beside returns the row that r is beside another baseline; of no times where there is none.
func (p *Result) beside(r Row, baseline string) Row {
	for _, o := range p.Rows {
		if o.System == "securenets" && o.Baseline == baseline && o.Table == r.Table && o.Network == r.Network && o.Scheme == r.Scheme && o.Weights == r.Weights &&
			o.Checks == r.Checks && o.Threads != nil && r.Threads != nil && *o.Threads == *r.Threads {
			return o
		}
	}
	return Row{}
}

// ratio returns the total as a multiple of local time.
func (r Row) ratio() string {
	if r.TotalMS == nil || r.LocalMS == nil {
		return ""
	}
	return fmt.Sprintf("%.3f", *r.TotalMS / *r.LocalMS)
}

// number formats v times a factor; nothing for nil.
func number(v *float64, times float64, format string) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf(format, *v*times)
}

func count(n *int) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}

func span(q *[2]float64) string {
	if q == nil {
		return ""
	}
	return fmt.Sprintf("%.4g-%.4g", q[0], q[1])
}

// notes returns what rows have to say beside their figures, each once.
func (p *Result) notes() (notes []string) {
	seen := map[string]bool{"": true}
	for _, r := range p.Rows {
		if !seen[r.Note] {
			seen[r.Note] = true
			notes = append(notes, fmt.Sprintf("%s: %s.", r.System, r.Note))
		}
	}
	return notes
}

// about says what figures are, in paragraphs.
func (p *Result) about() []string {
	all := []string{
		fmt.Sprintf("%s; securenets %s. Times are in milliseconds per image: medians with quartiles over %d interleaved rounds, each after a warm-up batch. A call has %d images in table 1, %s in table 2. "+
			"The host runs with GOMAXPROCS threads, and every daemon computes on as many (its sockets and codec use whatever processors there are). KB are 1,024 bytes of payload.",
			p.CPU, p.Version, p.Rounds, p.Batch, render.Count(p.Large)),
		"Total is the elapsed time of a batch as the product runs it: with two parts of the batch in flight at once. Host online, cloud and transfer are elapsed times of the same batch with its parts " +
			"one after the other. These three add up; total is less than their sum where they overlap. Cloud is the time of the products by the daemon's own account, that of the slowest daemon where there are several. Transfer is whatever else the host waits for: " +
			"encoding, sockets, decoding at both ends and the daemon's queue. Host offline (pads) is not in the total. CPU is that of the host's process online and of all daemons, for a batch as the product runs it.",
		"Every product is checked: that is the row \"full\". Rows of 0, 10 and 100 entries (marked ~) are estimates, because an unchecked value cannot be had: from the measured times of \"full\" the time of the check is subtracted, " +
			"and that of verify.SpotCheck of so many entries of every call is added. Both are measured here, in the same rounds, on layers of the same shapes with random weights. Unmasking, which is where schemes differ, stays as it was measured. The total changes as the sum of parts does. " +
			"Such a check of c entries detects a single wrong entry among N with probability c/N.",
		"Weights masked at every call (also ~): the time of masking all weights is added to host online, and that of pushing them to transfer, once per batch. Both are measured here; after a push the daemon stores the weights durably and loads them. Reference is gorgonia float32 on gonum's BLAS. All securenets rows of a network in one ring gave the same results bit for bit. " +
			"Networks are trained on Fashion-MNIST, so their accuracy cannot be compared with the paper's on MNIST and CIFAR-10. Accuracy is over " + p.images() + " test images. " +
			"Verdicts count pads in the time of permute+pad.",
	}
	if p.Partial {
		all = append([]string{"PARTIAL: the run was cut short; these are the rounds that were done."}, all...)
	}
	return all
}

// images says how many accuracies are of, by table.
func (p *Result) images() string {
	var counts []string
	for table := 1; table <= 2; table++ {
		most := 0
		for _, r := range p.Rows {
			if r.Table == table && r.System == "securenets" && r.Images != nil {
				most = max(most, *r.Images)
			}
		}
		if most > 0 {
			counts = append(counts, fmt.Sprintf("%s (table %d)", render.Count(most), table))
		}
	}
	return strings.Join(counts, " and ")
}

// Table writes the figures for people.
func (p *Result) Table(w io.Writer) error {
	for table := 1; table <= 2; table++ {
		lines := p.lines(table)
		if len(lines) == 1 {
			continue
		}
		t := render.Table(w)
		for _, line := range lines {
			fmt.Fprintln(t, strings.Join(line, "\t"))
		}
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	const width = 110
	for _, paragraph := range append(p.notes(), p.about()...) {
		if _, err := fmt.Fprintf(w, "%s\n\n", strings.Join(render.Wrap(paragraph, width), "\n")); err != nil {
			return err
		}
	}
	return nil
}

// Markdown writes a report with the figure at a path beside it, "" for none.
func (p *Result) Markdown(w io.Writer, command, figure, caption string) error {
	fmt.Fprintf(w, "# The paper's tables, measured\n\n    %s\n\n", command)
	for table := 1; table <= 2; table++ {
		lines := p.lines(table)
		if len(lines) == 1 {
			continue
		}
		fmt.Fprintf(w, "## Table %d\n\n", table)
		for i, line := range lines {
			for j := range line {
				line[j] = render.Cell(line[j])
			}
			fmt.Fprintf(w, "| %s |\n", strings.Join(line, " | "))
			if i == 0 {
				fmt.Fprintf(w, "|%s\n", strings.Repeat("---|", len(line)))
			}
		}
		fmt.Fprintln(w)
		for _, r := range p.Rows {
			if r.Table == table && r.Verdict != "" {
				fmt.Fprintf(w, "- %s: %s\n", r.name(), r.Verdict)
			}
		}
		fmt.Fprintln(w)
	}
	if figure != "" {
		fmt.Fprintf(w, "## Figure 2\n\n![%s](%s)\n\n%s\n\n", "What the cloud sees", figure, caption)
	}
	fmt.Fprint(w, "## What the figures are\n\n")
	for _, paragraph := range append(p.notes(), p.about()...) {
		if _, err := fmt.Fprintf(w, "%s\n\n", paragraph); err != nil {
			return err
		}
	}
	return nil
}

// name tells a row by what it is of.
func (r Row) name() string {
	parts := []string{r.Network}
	if r.Scheme != "" {
		parts = append(parts, r.Scheme)
	}
	if r.Table == 2 && r.Ring != "" { // table 1 has one
		parts = append(parts, r.Ring)
	}
	if r.Weights == "every call" {
		parts = append(parts, "weights masked at every call")
	}
	if r.Checks != "" {
		parts = append(parts, "checks "+r.Checks)
	}
	if r.Threads != nil {
		parts = append(parts, fmt.Sprintf("threads %d", *r.Threads))
	}
	if r.Baseline != "" {
		parts = append(parts, "beside "+r.Baseline)
	}
	return strings.Join(parts, ", ")
}

// columns are those of the CSV: the keys of a row in JSON.
var columns = []string{
	"table", "network", "system", "scheme", "ring", "weights", "baseline", "checks", "threads",
	"local_ms", "host_online_ms", "host_offline_ms", "cloud_ms", "transfer_ms", "total_ms", "accuracy", "bytes_up", "bytes_down", "per_hour",
	"images", "local_cpu_ms", "host_cpu_ms", "host_offline_cpu_ms", "daemon_cpu_ms", "estimated", "confirms", "verdict", "note",
}

// CSV writes the rows, without quartiles.
func (p *Result) CSV(w io.Writer) error { return render.CSV(w, columns, p.Rows) }

// Record is the row in CSV.
func (r Row) Record() []string {
	b, err := json.Marshal(r)
	var fields map[string]any
	if err == nil {
		err = json.Unmarshal(b, &fields)
	}
	if err != nil {
		panic(err) // a row has numbers and texts alone
	}
	record := make([]string, len(columns))
	for i, name := range columns {
		switch v := fields[name].(type) {
		case nil:
		case float64:
			record[i] = render.Decimal(v)
		default:
			record[i] = fmt.Sprint(v)
		}
	}
	return record
}
