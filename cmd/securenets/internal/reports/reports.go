// Package reports reads what securenets bench writes as JSON, and compares two reports
// figure by figure.
package reports

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// MaxBytes is the size of the largest report that is read.
const MaxBytes = 64 << 20

// ErrReport reports a file that is no report: not JSON, cut off, too large, or with
// figures that are none.
var ErrReport = errors.New("reports: not a report of securenets bench")

// KindError reports two reports of different kinds.
type KindError struct{ A, B string }

func (e *KindError) Error() string {
	return fmt.Sprintf("reports: reports of different kinds: %s and %s", e.A, e.B)
}

// ErrNothing reports two reports without a row in common.
var ErrNothing = errors.New("reports: no row is in both reports")

// Report is what is compared of one file.
type Report struct {
	Kind    string
	Machine []string // what it says of the machine and of settings, name and value in one
	Partial bool
	Noisy   bool
	Rows    []Row
}

// Row is one measurement: figures with their names.
type Row struct {
	Key     string // "" for figures of the whole run
	Figures []Figure
}

// Figure is a number, with quartiles where the report has them.
type Figure struct {
	Name           string
	Median, Q1, Q3 float64
	Spread         bool // Q1 and Q3 are known
}

// Columns that are numbers and say what was measured, and not how it went.
var identity = []string{"table", "m", "k", "n", "width", "depth", "rows", "callers", "concurrency", "threads", "batch", "layer", "role"}

// Columns that are text and say how it went, in words and figures.
var remarks = []string{"verdict", "note"}

// Columns that are numbers and say nothing of either.
var ignored = []string{
	"rounds", "calls", "mul_adds", "noise", "seconds", "price_per_hour", "checked", "rejected", "images", "batch_large", "right", "of",
}

// attacks is what the rows of "bench attacks" are called.
const attacks = "results"

// Objects of a report that hold no figures.
var notFigures = []string{"build", "machine", "daemon", "noise", "reference", "device"}

// Read reads a report. Its errors wrap ErrReport, or are those of r.
func Read(r io.Reader) (*Report, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrReport, MaxBytes)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var top map[string]any
	if err := d.Decode(&top); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: more follows its end", ErrReport)
	}
	out := &Report{Partial: top["partial"] == true, Machine: machine(top)}
	if noise, ok := top["noise"].(map[string]any); ok {
		out.Noisy = noise["noisy"] == true
	}
	list, name, err := rowsOf(top)
	if err != nil {
		return nil, err
	}
	whole, err := readRow(name, top)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	whole.Key = ""
	for _, column := range sortedKeys(top) {
		part, ok := top[column].(map[string]any)
		if !ok || slices.Contains(notFigures, column) {
			continue
		}
		inside, err := readRow(name, part)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrReport, column, err)
		}
		for _, f := range inside.Figures {
			f.Name = column + "." + f.Name
			whole.Figures = append(whole.Figures, f)
		}
	}
	if len(whole.Figures) > 0 {
		out.Rows = append(out.Rows, whole)
	}
	var keys []string // columns of text that say what a row is; numbers may be null, or left out
	seen := map[string]bool{}
	for i, row := range list {
		r, err := readRow(name, row)
		if err != nil {
			return nil, fmt.Errorf("%w: row %d: %w", ErrReport, i, err)
		}
		if r.Key == "" {
			return nil, fmt.Errorf("%w: row %d does not say what it is of", ErrReport, i)
		}
		if seen[r.Key] {
			return nil, fmt.Errorf("%w: two rows are %s", ErrReport, r.Key)
		}
		seen[r.Key] = true
		for column, v := range row {
			if _, text := v.(string); text && says(name, column, v) && !slices.Contains(keys, column) {
				keys = append(keys, column)
			}
		}
		out.Rows = append(out.Rows, r)
	}
	slices.Sort(keys)
	out.Kind = name + " of " + strings.Join(keys, ", ")
	if schema, ok := top["schema"].(string); ok {
		out.Kind = schema
	}
	return out, nil
}

// Open reads a file, or report.json of a folder.
func Open(path string) (*Report, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "report.json")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// rowsOf returns a report's rows, and what they are called there.
func rowsOf(top map[string]any) ([]map[string]any, string, error) {
	for _, name := range []string{"rows", "loads", attacks} {
		list, ok := top[name].([]any)
		if !ok {
			continue
		}
		var rows []map[string]any
		for i, v := range list {
			row, ok := v.(map[string]any)
			if !ok {
				return nil, "", fmt.Errorf("%w: row %d is not an object", ErrReport, i)
			}
			rows = append(rows, row)
		}
		return rows, name, nil
	}
	if v, there := top["rows"]; there && v == nil { // of a partial report, none
		return nil, "rows", nil
	}
	return nil, "", fmt.Errorf("%w: it has no rows", ErrReport)
}

// says reports whether a column of rows of a name says what a row is.
func says(rows, column string, v any) bool {
	switch v.(type) {
	case string:
		return !slices.Contains(remarks, column)
	case json.Number:
		// Elsewhere noise is how far rounds were apart; here it is added to a base model.
		return slices.Contains(identity, column) || rows == attacks && column == "noise"
	}
	return false
}

// readRow reads a row's figures, and names it by the rest.
func readRow(rows string, row map[string]any) (Row, error) {
	var r Row
	var key []string
	for _, column := range sortedKeys(row) {
		v := row[column]
		if says(rows, column, v) {
			if text := fmt.Sprint(v); text != "" { // as where it does not apply
				key = append(key, column+" "+text)
			}
			continue
		}
		switch v := v.(type) {
		case json.Number:
			if slices.Contains(ignored, column) {
				continue
			}
			f, err := number(v)
			if err != nil {
				return r, fmt.Errorf("%s: %w", column, err)
			}
			r.Figures = append(r.Figures, Figure{Name: column, Median: f})
		case map[string]any:
			if _, ok := v["median"]; !ok {
				continue
			}
			f, err := spread(v)
			if err != nil {
				return r, fmt.Errorf("%s: %w", column, err)
			}
			f.Name = column
			r.Figures = append(r.Figures, f)
		}
	}
	if err := r.quartiles(row); err != nil {
		return r, err
	}
	r.Key = strings.Join(key, ", ")
	return r, nil
}

// quartiles gives figures the quartiles that stand in columns of their own, as those of
// total_ms in total_quartiles_ms, and those of load in load_quartiles.
func (r *Row) quartiles(row map[string]any) error {
	for _, column := range sortedKeys(row) {
		of := strings.Replace(column, "_quartiles", "", 1)
		pair, ok := row[column].([]any)
		if !ok || of == column {
			continue
		}
		i := slices.IndexFunc(r.Figures, func(f Figure) bool { return f.Name == of })
		if i < 0 || len(pair) != 2 {
			return fmt.Errorf("%s: not two quartiles of a number %s", column, of)
		}
		f, err := spread(map[string]any{"median": row[of], "q1": pair[0], "q3": pair[1]})
		if err != nil {
			return fmt.Errorf("%s: %w", column, err)
		}
		f.Name = of
		r.Figures[i] = f
	}
	return nil
}

func number(v any) (float64, error) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, errors.New("not a number")
	}
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a number of 64 bits", n.String())
	}
	return f, nil
}

// spread reads a median with its quartiles.
func spread(v map[string]any) (Figure, error) {
	f := Figure{Spread: true}
	for name, to := range map[string]*float64{"median": &f.Median, "q1": &f.Q1, "q3": &f.Q3} {
		var err error
		if *to, err = number(v[name]); err != nil {
			return f, fmt.Errorf("%s: %w", name, err)
		}
	}
	if f.Q1 > f.Median || f.Median > f.Q3 {
		return f, fmt.Errorf("quartiles %v and %v of median %v", f.Q1, f.Q3, f.Median)
	}
	return f, nil
}

// machine returns what a report says of where it was made.
func machine(top map[string]any) []string {
	var all []string
	note := func(name string, v any) {
		switch v := v.(type) {
		case string:
			all = append(all, name+" "+v)
		case json.Number:
			all = append(all, name+" "+v.String())
		case bool:
			all = append(all, fmt.Sprint(name, " ", v))
		}
	}
	note("cpu", top["cpu"])
	for _, name := range []string{"threads", "rows", "batch", "batch_large", "images", "ring", "quick", "currency"} { // of the whole run
		note(name, top[name])
	}
	parts := map[string]any{"machine": top["machine"], "device": top["device"]}
	if d, ok := top["daemon"].(map[string]any); ok {
		note("backend", d["backend"])
		note("endpoint", d["endpoint"])
		if devices, ok := d["devices"].([]any); ok {
			for i, v := range devices {
				parts[fmt.Sprint("device ", i)] = v
			}
		}
	}
	for _, name := range sortedKeys(parts) {
		part, ok := parts[name].(map[string]any)
		if !ok {
			continue
		}
		for _, column := range []string{"host", "cpu", "threads", "memory_bytes", "system", "name", "uuid", "path"} {
			note(name+": "+column, part[column])
		}
	}
	return all
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

// Comparison is B over A.
type Comparison struct {
	Kind      string   `json:"kind"`
	Threshold float64  `json:"threshold"`
	Warnings  []string `json:"warnings"`
	OnlyA     []string `json:"only_a"` // rows
	OnlyB     []string `json:"only_b"`
	Rows      []Ratio  `json:"rows"`
}

// Ratio is one figure of B over that of A. Low and High are what the quartiles allow:
// B's lower one over A's upper one, and the reverse; without quartiles in both reports
// they are null.
type Ratio struct {
	Row     string   `json:"row"`
	Figure  string   `json:"figure"`
	A       float64  `json:"a"`
	B       float64  `json:"b"`
	Ratio   *float64 `json:"ratio"` // null where A's figure, or an end, is not above zero
	Low     *float64 `json:"low"`
	High    *float64 `json:"high"`
	Differs bool     `json:"differs"` // by more than the threshold, and the interval excludes 1
}

// Compare compares two reports of one kind. A ratio differs where it is further from 1
// than the threshold and, where there are quartiles, their interval excludes 1.
func Compare(a, b *Report, threshold float64) (*Comparison, error) {
	if a.Kind != b.Kind {
		return nil, &KindError{a.Kind, b.Kind}
	}
	c := &Comparison{Kind: a.Kind, Threshold: threshold}
	for _, r := range []struct {
		name string
		*Report
	}{{"A", a}, {"B", b}} {
		if r.Partial {
			c.Warnings = append(c.Warnings, r.name+" is a partial report")
		}
		if r.Noisy {
			c.Warnings = append(c.Warnings, r.name+" reports that it is noisy")
		}
	}
	if !slices.Equal(a.Machine, b.Machine) {
		missing := func(from, in []string) string {
			var all []string
			for _, v := range from {
				if !slices.Contains(in, v) {
					all = append(all, v)
				}
			}
			if all == nil {
				return "nothing more"
			}
			return strings.Join(all, "; ")
		}
		c.Warnings = append(c.Warnings, fmt.Sprintf("the machines or settings differ: A says %s; B says %s", missing(a.Machine, b.Machine), missing(b.Machine, a.Machine)))
	}
	matched := map[string]bool{}
	for _, ra := range a.Rows {
		i := slices.IndexFunc(b.Rows, func(r Row) bool { return r.Key == ra.Key })
		if i < 0 {
			c.OnlyA = append(c.OnlyA, name(ra.Key))
			continue
		}
		matched[ra.Key] = true
		for _, fa := range ra.Figures {
			j := slices.IndexFunc(b.Rows[i].Figures, func(f Figure) bool { return f.Name == fa.Name })
			if j >= 0 {
				c.Rows = append(c.Rows, ratio(ra.Key, fa, b.Rows[i].Figures[j], threshold))
			}
		}
	}
	for _, rb := range b.Rows {
		if !matched[rb.Key] {
			c.OnlyB = append(c.OnlyB, name(rb.Key))
		}
	}
	if len(c.Rows) == 0 {
		return nil, ErrNothing
	}
	return c, nil
}

func name(key string) string {
	if key == "" {
		return "the whole run"
	}
	return key
}

func ratio(key string, a, b Figure, threshold float64) Ratio {
	r := Ratio{Row: name(key), Figure: a.Name, A: a.Median, B: b.Median}
	r.Ratio = over(b.Median, a.Median)
	if r.Ratio == nil {
		r.Differs = a.Median != b.Median
		return r
	}
	r.Differs = math.Abs(math.Log(*r.Ratio)) > math.Log1p(threshold)
	if a.Spread && b.Spread {
		r.Low, r.High = over(b.Q1, a.Q3), over(b.Q3, a.Q1)
		if r.Low != nil && r.High != nil && *r.Low <= 1 && *r.High >= 1 {
			r.Differs = false
		}
	}
	return r
}

// over returns b/a; nil where that is no finite number above zero.
func over(b, a float64) *float64 {
	q := b / a
	if !(a > 0 && b > 0) || math.IsInf(q, 0) || q == 0 {
		return nil
	}
	return &q
}

// Table writes the ratios for people.
func (c *Comparison) Table(w io.Writer) error {
	for _, text := range c.Warnings {
		fmt.Fprintf(w, "WARNING: %s.\n", text)
	}
	if c.Warnings != nil {
		fmt.Fprintln(w)
	}
	const line = "  %-*s  %10s  %10s  %8s  %15s  %s\n"
	width := 0
	for _, r := range c.Rows {
		width = max(width, len(r.Figure))
	}
	fmt.Fprintf(w, line, width, "figure", "A", "B", "B/A", "interval", "")
	for i, r := range c.Rows {
		if i == 0 || r.Row != c.Rows[i-1].Row {
			fmt.Fprintln(w, r.Row)
		}
		ratio, interval, mark := "none", "", ""
		if r.Ratio != nil {
			ratio = strconv.FormatFloat(*r.Ratio, 'f', 3, 64)
		}
		if r.Low != nil && r.High != nil {
			interval = fmt.Sprintf("%.3f-%.3f", *r.Low, *r.High)
		}
		if r.Differs {
			mark = "differs"
		}
		fmt.Fprintf(w, line, width, r.Figure, significant(r.A), significant(r.B), ratio, interval, mark)
	}
	for _, only := range []struct {
		name string
		rows []string
	}{{"A", c.OnlyA}, {"B", c.OnlyB}} {
		for _, r := range only.rows {
			fmt.Fprintf(w, "only in %s: %s\n", only.name, r)
		}
	}
	differ := 0
	for _, r := range c.Rows {
		if r.Differs {
			differ++
		}
	}
	_, err := fmt.Fprintf(w, `
%d of %d figures differ by more than %.3g %% and, where both reports have quartiles,
by more than these allow. The interval goes from B's lower quartile over A's upper
one to B's upper quartile over A's lower one.
`, differ, len(c.Rows), 100*c.Threshold)
	return err
}

func significant(v float64) string { return strconv.FormatFloat(v, 'g', 5, 64) }
