package throughput

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/securenets/securenets/cmd/securenets/internal/chart"
	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/kernels/cuda"
)

// Write writes the report to a folder: report.json, report.csv, report.md, and charts as
// PNG and SVG, those without a point left out.
func (t *Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := func(name string, write func(io.Writer) error) error {
		return render.File(filepath.Join(dir, name), write)
	}
	err := errors.Join(file("report.json", func(w io.Writer) error { return render.JSON(w, t) }), file("report.csv", t.CSV))
	var drawn []namedChart
	for _, c := range t.charts() {
		switch e := c.Write(filepath.Join(dir, c.file)); {
		case e == nil:
			drawn = append(drawn, c)
		case !errors.Is(e, chart.ErrEmpty): // which is one of what was not measured
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, file("report.md", func(w io.Writer) error { return t.markdown(w, drawn) }))
}

// CSV writes the rows, each figure with its quartiles.
func (t *Report) CSV(w io.Writer) error {
	names := []string{"side", "network", "scheme", "width", "depth", "rows", "callers", "mul_adds", "rounds", "calls"}
	for _, f := range figures {
		names = append(names, f.name, f.name+"_q1", f.name+"_q3")
	}
	c := csv.NewWriter(w)
	c.Write(append(names, "bytes_up", "bytes_down", "noise", "noisy"))
	for _, r := range t.Rows {
		line := []string{r.Side, r.Network, r.Scheme}
		for _, n := range []int{r.Width, r.Depth, r.Rows, r.Callers, int(r.MulAdds), r.Rounds, r.Calls} {
			line = append(line, strconv.Itoa(n))
		}
		for _, f := range figures {
			if v := *f.of(&r); v != nil {
				line = append(line, render.Decimal(v.Median), render.Decimal(v.Q1), render.Decimal(v.Q3))
			} else {
				line = append(line, "", "", "")
			}
		}
		for _, n := range []*int64{r.BytesUp, r.BytesDown} {
			if n != nil {
				line = append(line, strconv.FormatInt(*n, 10))
			} else {
				line = append(line, "")
			}
		}
		c.Write(append(line, render.Decimal(r.Noise), strconv.FormatBool(r.Noisy)))
	}
	c.Flush()
	return c.Error()
}

// verdict says what the report is worth, in lines.
func (t *Report) verdict() []string {
	var lines []string
	if t.Partial {
		lines = append(lines, fmt.Sprintf("PARTIAL: %s. Rows have what was measured until then.", t.Stopped))
	}
	if t.Noise.Rows > 0 {
		lines = append(lines, fmt.Sprintf("NOISY: in %d of %d rows, marked with !, the quartiles are more than %.0f %% of the median apart.",
			t.Noise.Rows, len(t.Rows), 100*t.Noise.Threshold))
	}
	if t.Reference.Drifted {
		lines = append(lines, fmt.Sprintf("DRIFT: one small product, measured between rounds, varied by %.0f %% of its median: the speed of this machine was not constant. Do not compare this report with others.",
			100*t.Reference.Drift))
	}
	if lines == nil {
		lines = []string{fmt.Sprintf("Quiet: in no row are the quartiles more than %.0f %% of the median apart, and the reference product varied by %.1f %%.",
			100*t.Noise.Threshold, 100*t.Reference.Drift)}
	}
	return lines
}

// facts are what the report says of itself, name and value.
func (t *Report) facts() [][2]string {
	commit := t.Build.Commit
	if commit == "" {
		commit = "not known"
	} else if t.Build.Modified {
		commit += ", modified"
	}
	f := [][2]string{
		{"date", t.Began.Format("2006-01-02 15:04:05 UTC")},
		{"took", fmt.Sprintf("%.0f s, %d rounds", t.Seconds, t.Rounds)},
		{"machine", fmt.Sprintf("%s; %s, %d thread(s), %.1f GiB of memory; %s", t.Machine.Host, t.Machine.CPU, t.Machine.Threads, float64(t.Machine.Memory)/(1<<30), t.Machine.System)},
		{"securenets", fmt.Sprintf("%s, commit %s, %s", t.Build.Version, commit, t.Build.Go)},
		{"daemon", fmt.Sprintf("%s, %s kernel%s", t.Daemon.Version, t.Daemon.Backend, prefixed(" at ", t.Daemon.Endpoint))},
	}
	for _, d := range t.Daemon.Devices {
		f = append(f, [2]string{"device", device(d)})
	}
	limit := t.Daemon.LimitOf
	if limit == "" {
		limit = "none could be measured"
	}
	f = append(f, [2]string{"limit", limit}, [2]string{"checked", fmt.Sprintf("%s products, %s rejected", render.Count(t.Checked), render.Count(t.Rejected))})
	if t.PerHour != nil {
		f = append(f, [2]string{"price", fmt.Sprintf("%s %s per hour", render.Decimal(*t.PerHour), t.Currency)})
	}
	return append(f, [2]string{"command", "`" + strings.Join(t.Command, " ") + "`"})
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

func device(d cuda.Device) string {
	text := fmt.Sprintf("%v, %s, compute capability %s, %d MiB, path %s, CUDA %s, cuBLAS %s", d, d.State, d.Capability, d.Memory>>20, d.Path, d.CUDA, d.BLAS)
	if d.Figures != nil {
		text += ", driver " + d.Figures.Driver
	}
	return text
}

// cells are a row for people.
func (r *Row) cells() []string {
	mark := ""
	if r.Noisy {
		mark = " !"
	}
	up, down := "", ""
	if r.BytesUp != nil {
		up, down = render.Count(*r.BytesUp), render.Count(*r.BytesDown)
	}
	return []string{
		r.Network, r.Scheme, strconv.Itoa(r.Rows), strconv.Itoa(r.Callers),
		r.Images.text() + mark, r.Images.quartiles(), r.GMACs.text(), r.Share.percent(), r.ShareCPU.percent(),
		r.HostCPU.text(), r.HostPads.text(), r.DaemonCPU.text(), up, down,
		r.P50.text(), r.P90.text(), r.P95.text(), r.P99.text(), r.Cost.text(), r.CostPadded.text(),
	}
}

var cellNames = []string{
	"network", "scheme", "rows", "callers", "images/s", "quartiles", "GMAC/s", "of limit", "by CPU",
	"host us", "pads us", "daemon us", "bytes up", "bytes down", "p50 ms", "p90", "p95", "p99", "cost/million", "with pads",
}

// table returns a side's names of columns and rows, without columns that no row has.
func (t *Report) table(side string) [][]string {
	rows := [][]string{cellNames}
	for i := range t.Rows {
		if t.Rows[i].Side == side {
			rows = append(rows, t.Rows[i].cells())
		}
	}
	if len(rows) == 1 {
		return nil
	}
	var used []int
	for column := range cellNames {
		if slices.ContainsFunc(rows[1:], func(r []string) bool { return r[column] != "" }) {
			used = append(used, column)
		}
	}
	for i, r := range rows {
		rows[i] = nil
		for _, column := range used {
			rows[i] = append(rows[i], r[column])
		}
	}
	return rows
}

// sides are the tables, with what heads them.
var sides = []struct{ side, title string }{
	{sideHost, "Through the host, every product checked"},
	{sideCloud, "The cloud alone, raw frames"},
}

// Table writes the figures for people.
func (t *Report) Table(w io.Writer) error {
	tab := render.Table(w)
	for _, f := range t.facts() {
		fmt.Fprintf(tab, "%s\t%s\n", f[0], f[1])
	}
	tab.Flush()
	for _, s := range sides {
		rows := t.table(s.side)
		if rows == nil {
			continue
		}
		fmt.Fprintf(w, "\n%s\n", s.title)
		tab := render.Table(w)
		for _, r := range rows {
			fmt.Fprintln(tab, strings.Join(r, "\t"))
		}
		tab.Flush()
	}
	_, err := fmt.Fprintf(w, "\n%s\n", strings.Join(t.verdict(), "\n"))
	return err
}

// markdown writes the report with the charts that were drawn.
func (t *Report) markdown(w io.Writer, drawn []namedChart) error {
	var b strings.Builder
	b.WriteString("# Throughput\n\n")
	for _, line := range t.verdict() {
		fmt.Fprintf(&b, "**%s**\n\n", render.Cell(line))
	}
	b.WriteString("| | |\n|---|---|\n")
	for _, f := range t.facts() {
		fmt.Fprintf(&b, "| %s | %s |\n", f[0], render.Cell(f[1]))
	}
	for _, s := range sides {
		rows := t.table(s.side)
		if rows == nil {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n", s.title)
		for i, r := range rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(r, " | "))
			if i == 0 {
				b.WriteString(strings.Repeat("|---", len(r)) + "|\n")
			}
		}
	}
	for _, c := range drawn {
		fmt.Fprintf(&b, "\n## %s\n\n![%s](%s.png)\n\n[SVG](%s.svg)\n", c.Title, c.Title, c.file, c.file)
	}
	fmt.Fprintf(&b, "\n## What the figures are\n\n%s", definitions)
	if t.PerHour != nil {
		fmt.Fprintf(&b, "\n%s\n", costFormula)
	}
	fmt.Fprintf(&b, "\nThe reference product, %d rows of %v on one thread, before each round and at the end: %s GMAC/s; the largest difference is %.1f %% of the median.\n",
		referenceRows, referenceOp, joined(t.Reference.GMACs), 100*t.Reference.Drift)
	b.WriteString("\nAll figures with their quartiles: [report.json](report.json), [report.csv](report.csv). `securenets bench compare A B` compares two reports.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func joined(v []float64) string {
	var all []string
	for _, f := range v {
		all = append(all, render.Decimal(f))
	}
	return strings.Join(all, ", ")
}

const definitions = `Each figure is the median over rounds, in which all rows take turns; quartiles are those of the rounds.

- **rows** is the number of images per request, **callers** the number of requests in flight.
- **images/s** is in elapsed time. Through the host: sealed real networks, with inputs masked, every product unmasked and checked, and pads made beforehand. The cloud alone: a load generator that neither masks nor checks
  sends frames of random words for the layers in turn, two in flight per caller; an image is one frame of each layer. Callers, host and the benchmark's own daemons share this machine.
- **GMAC/s** is 10^9 multiply-adds over Z_M per second in one cloud, padding counted. **of limit** is the rate of all clouds as a fraction of the limit, which is measured just before and after. **by CPU** is given where the
  processor multiplies: the multiply-adds done in the daemon's own CPU time over the most that one thread can do in that time. It depends less on what else runs.
- **host us** and **pads us** are the CPU time of the host's process per image, online and for pads beforehand. **daemon us** is that of the daemons' processes, of all roles.
- **bytes** are payload per image, to and from all clouds.
- **p50** to **p99** are latencies by nearest rank in each round, of a whole call of so many rows through all layers, or of a frame. Where a round has fewer than 100 calls, p99 is the slowest; report.json gives their number (calls).
`

const costFormula = `**cost/million** is price per hour / 3600 / (images/s) x 10^6. **with pads** is price per hour / 3600 x (1 / (images/s) + elapsed seconds of an image's pads) x 10^6: the cost where pads are made on the same instance before they are used. permute+split and lagrange have neither, as they need instances of two and three providers and the price is that of one.`

// text writes the median, "" for no figure.
func (f *Figure) text() string {
	if f == nil {
		return ""
	}
	return short(f.Median)
}

func (f *Figure) percent() string {
	if f == nil {
		return ""
	}
	return strconv.FormatFloat(100*f.Median, 'f', 1, 64) + " %"
}

func (f *Figure) quartiles() string {
	if f == nil {
		return ""
	}
	return short(f.Q1) + "-" + short(f.Q3)
}

// short writes a number with three or more digits.
func short(v float64) string {
	switch {
	case v >= 1000:
		return render.Count(int64(v + 0.5))
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	default:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
}
