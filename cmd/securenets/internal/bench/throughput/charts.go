package throughput

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/securenets/securenets/cmd/securenets/internal/chart"
	"github.com/securenets/securenets/transform"
)

// namedChart is a chart and its file, without a suffix.
type namedChart struct {
	chart.Chart
	file string
}

// charts returns those of the report, with what rows there are.
func (t *Report) charts() []namedChart {
	base := t.baseNetwork()
	byBatch := chart.Chart{
		Title: "Throughput against batch: " + base + ", through the host, permute+pad", X: "images per request", Y: "images per second",
	}
	byLatency := chart.Chart{
		Title: "Throughput against latency: " + base + ", through the host, permute+pad", X: "request latency, ms", Y: "images per second",
	}
	pad := transform.DefaultScheme().String()
	grid := func(r *Row) bool { return r.Side == sideHost && r.Network == base && r.Scheme == pad }
	for i, callers := range t.distinct(grid, func(r *Row) int { return r.Callers }) {
		of := func(r *Row) bool { return grid(r) && r.Callers == callers }
		name := fmt.Sprintf("%d callers", callers)
		if callers == 1 {
			name = "1 caller"
		}
		byBatch.Lines = append(byBatch.Lines, chart.Line{Name: name, Colour: i, Points: t.line(of, func(r *Row) float64 { return float64(r.Rows) }, images)})
		for _, p := range []struct {
			name   string
			of     func(*Row) *Figure
			dashed bool
		}{
			{"p50", func(r *Row) *Figure { return r.P50 }, false},
			{"p99", func(r *Row) *Figure { return r.P99 }, true},
		} {
			byLatency.Lines = append(byLatency.Lines, chart.Line{
				Name: name + ", " + p.name, Colour: i, Dashed: p.dashed,
				Points: plain(t.line(of, func(r *Row) float64 { return p.of(r).Median }, images)),
			})
		}
	}
	byBatch.Ticks = floats(t.distinct(grid, func(r *Row) int { return r.Rows }))

	depth, rows, callers := t.widthSweep()
	sized := func(side, scheme string) func(*Row) bool {
		return func(r *Row) bool {
			return r.Side == side && r.Scheme == scheme && r.Width > 0 && r.Depth == depth && r.Rows == rows && r.Callers == callers
		}
	}
	width := func(r *Row) float64 { return float64(r.Width) }
	gmacs := func(r *Row) *Figure { return r.GMACs }
	cpu := func(r *Row) *Figure { return r.HostCPU }
	pads := func(r *Row) *Figure { return r.HostPads }
	byWidth := []chart.Line{
		{Name: pad + ", online", Colour: 0, Points: sorted(t.line(sized(sideHost, pad), width, cpu))},
		{Name: pad + ", for pads", Colour: 0, Dashed: true, Points: sorted(t.line(sized(sideHost, pad), width, pads))},
	}
	for i, s := range ofSeveral { // online is all that there is
		byWidth = append(byWidth, chart.Line{Name: s.String(), Colour: 1 + i, Points: sorted(t.line(sized(sideHost, s.String()), width, cpu))})
	}
	of := fmt.Sprintf(": %d dense layers, %d rows, %d callers", depth, rows, callers)
	ticks := floats(t.distinct(sized(sideHost, pad), func(r *Row) int { return r.Width }))
	return []namedChart{
		{byBatch, "throughput-batch"},
		{byLatency, "throughput-latency"},
		{chart.Chart{
			Title: "Ring multiply-adds against width" + of, X: "width of a layer", Y: "10^9 ring multiply-adds per second", Ticks: ticks,
			Lines: []chart.Line{
				{Name: "the cloud alone", Colour: 0, Points: sorted(t.line(sized(sideCloud, pad), width, gmacs))},
				{Name: "through the host", Colour: 1, Points: sorted(t.line(sized(sideHost, pad), width, gmacs))},
				{Name: "the device's limit", Colour: 6, Dashed: true, Points: sorted(t.line(sized(sideCloud, pad), width, func(r *Row) *Figure { return r.Limit }))},
			},
		}, "gmacs-width"},
		{chart.Chart{
			Title: "Host CPU time against width" + of, X: "width of a layer", Y: "microseconds of host CPU time per image", Ticks: ticks,
			Lines: byWidth,
		}, "host-cpu-width"},
	}
}

func images(r *Row) *Figure { return r.Images }

// baseNetwork is that of the first row, from which all others differ.
func (t *Report) baseNetwork() string {
	if len(t.Rows) == 0 {
		return ""
	}
	return t.Rows[0].Network
}

// widthSweep returns what the rows of several widths share.
func (t *Report) widthSweep() (depth, rows, callers int) {
	for _, r := range t.Rows {
		if r.Width > 0 && r.Width != t.Rows[0].Width {
			return r.Depth, r.Rows, r.Callers
		}
	}
	return 0, 0, 0
}

// distinct returns a number of the rows that are meant, each once and sorted.
func (t *Report) distinct(of func(*Row) bool, number func(*Row) int) []int {
	var all []int
	for i := range t.Rows {
		if of(&t.Rows[i]) {
			all = append(all, number(&t.Rows[i]))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func floats(v []int) []float64 {
	var all []float64
	for _, n := range v {
		all = append(all, float64(n))
	}
	return all
}

// line returns a figure of the rows that are meant, in their order. What is not above
// zero has no place on a chart.
func (t *Report) line(of func(*Row) bool, x func(*Row) float64, y func(*Row) *Figure) []chart.Point {
	var points []chart.Point
	for i := range t.Rows {
		r := &t.Rows[i]
		if !of(r) {
			continue
		}
		if f := y(r); f != nil && f.Q1 > 0 {
			points = append(points, chart.Point{X: x(r), Y: f.Median, Low: f.Q1, High: f.Q3})
		}
	}
	return points
}

// plain returns points without their spread.
func plain(points []chart.Point) []chart.Point {
	for i, p := range points {
		points[i].Low, points[i].High = p.Y, p.Y
	}
	return points
}

// sorted returns points from left to right.
func sorted(points []chart.Point) []chart.Point {
	slices.SortStableFunc(points, func(a, b chart.Point) int { return cmp.Compare(a.X, b.X) })
	return points
}
