package reports_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/securenets/securenets/cmd/securenets/internal/reports"
)

// report returns one row with a figure of so much, and one without quartiles.
func report(median, q1, q3, plain any) string {
	return fmt.Sprintf(`{"schema": "s/1", "machine": {"cpu": "C", "threads": 2}, "noise": {"noisy": false, "threshold": 0.1},
		"rows": [{"network": "n", "rows": 8, "rounds": 5, "rate": {"median": %v, "q1": %v, "q3": %v}, "bytes": %v, "share": null}]}`, median, q1, q3, plain)
}

func read(t *testing.T, text string) *reports.Report {
	t.Helper()
	r, err := reports.Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestCompare: ratios, the interval that quartiles allow, and what differs.
func TestCompare(t *testing.T) {
	for _, test := range []struct {
		name                  string
		a, b                  string
		threshold             float64
		rate, low, high       float64
		rateDiffers, byteDiff bool
	}{
		{"the same", report(10, 9, 11, 5), report(10, 9, 11, 5), 0.05, 1, 9. / 11, 11. / 9, false, false},
		{"apart", report(10, 9, 11, 5), report(20, 18, 22, 5), 0.05, 2, 18. / 11, 22. / 9, true, false},
		{"apart, downwards", report(20, 18, 22, 5), report(10, 9, 11, 5), 0.05, 0.5, 9. / 22, 11. / 18, true, false},
		{"noisy", report(10, 5, 20, 5), report(20, 9, 30, 5), 0.05, 2, 9. / 20, 30. / 5, false, false},
		{"just overlapping", report(10, 9, 12, 5), report(14, 12, 15, 5), 0.05, 1.4, 1, 15. / 9, false, false},
		{"below the threshold", report(100, 100, 100, 100), report(104, 104, 104, 104), 0.05, 1.04, 1.04, 1.04, false, false},
		{"above the threshold", report(100, 100, 100, 100), report(106, 106, 106, 106), 0.05, 1.06, 1.06, 1.06, true, true},
		{"below, downwards", report(104, 104, 104, 104), report(100, 100, 100, 100), 0.05, 100. / 104, 100. / 104, 100. / 104, false, false},
		{"above twice", report(100, 100, 100, 100), report(210, 210, 210, 210), 1, 2.1, 2.1, 2.1, true, true},
		{"no threshold", report(100, 100, 100, 100), report(101, 101, 101, 101), 0, 1.01, 1.01, 1.01, true, true},
	} {
		c, err := reports.Compare(read(t, test.a), read(t, test.b), test.threshold)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if len(c.Rows) != 2 || len(c.Warnings) != 0 || c.Rows[0].Figure != "bytes" || c.Rows[1].Figure != "rate" || c.Rows[0].Row != "network n, rows 8" {
			t.Fatalf("%s: %+v", test.name, c)
		}
		bytes, rate := c.Rows[0], c.Rows[1]
		for _, v := range []struct{ got, want float64 }{{*rate.Ratio, test.rate}, {*rate.Low, test.low}, {*rate.High, test.high}} {
			if d := v.got - v.want; d > 1e-12 || d < -1e-12 {
				t.Errorf("%s: %v, want %v", test.name, v.got, v.want)
			}
		}
		if rate.Differs != test.rateDiffers || bytes.Differs != test.byteDiff || bytes.Low != nil {
			t.Errorf("%s: %+v, %+v", test.name, rate, bytes)
		}
	}
}

// paper is a report of "bench paper": a baseline, and a row that is compared with it.
func paper(total float64, q1, q3 any, verdict, note string) string {
	return fmt.Sprintf(`{"cpu": "C", "version": "1", "threads": 2, "batch": 256, "batch_large": 4096, "rounds": 5, "quick": false, "partial": false, "rows": [
		{"table": 1, "network": "mlp", "system": "local", "scheme": "", "ring": "", "baseline": "onnxruntime", "checks": "", "threads": 2,
			"local_ms": 2, "local_quartiles_ms": [1, 4], "total_ms": null, "total_quartiles_ms": null, "images": 512, "estimated": false, "confirms": null, "verdict": "", "note": %q},
		{"table": 1, "network": "mlp", "system": "securenets", "scheme": "permute", "ring": "q4", "baseline": "onnxruntime", "checks": "full", "threads": 2,
			"local_ms": 2, "local_quartiles_ms": [1, 4], "total_ms": %v, "total_quartiles_ms": [%v, %v], "images": 512, "estimated": false, "confirms": true, "verdict": %q, "note": ""}]}`,
		note, total, q1, q3, verdict)
}

// TestPaper: what a paper's rows say of how it went tells none apart, and quartiles in
// columns of their own are those of the figure that they name.
func TestPaper(t *testing.T) {
	a := paper(10, 8, 12, "Confirms the paper's 93.79 % more: here 20 % more.", "onnxruntime 1.2")
	b := paper(20, 16, 30, "Does not confirm: here 40 % more.", "onnxruntime 1.3")
	c, err := reports.Compare(read(t, a), read(t, b), 0.05)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.OnlyA) != 0 || len(c.OnlyB) != 0 || len(c.Warnings) != 0 || len(c.Rows) != 3 {
		t.Fatalf("%+v", c)
	}
	for i, want := range []struct {
		row, figure      string
		ratio, low, high float64
		differs          bool
	}{
		{"baseline onnxruntime, network mlp, system local, table 1, threads 2", "local_ms", 1, 1. / 4, 4, false},
		{"baseline onnxruntime, checks full, network mlp, ring q4, scheme permute, system securenets, table 1, threads 2", "local_ms", 1, 1. / 4, 4, false},
		{"baseline onnxruntime, checks full, network mlp, ring q4, scheme permute, system securenets, table 1, threads 2", "total_ms", 2, 16. / 12, 30. / 8, true},
	} {
		got := c.Rows[i]
		if got.Low == nil || got.High == nil || got.Row != want.row || got.Figure != want.figure || *got.Ratio != want.ratio || *got.Low != want.low || *got.High != want.high || got.Differs != want.differs {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if c, err = reports.Compare(read(t, a), read(t, strings.Replace(b, `"batch_large": 4096`, `"batch_large": 512`, 1)), 0.05); err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "B says batch_large 512") {
		t.Errorf("%+v, %v", c, err)
	}
	// A part of a run may have no row with threads: it is of the same kind.
	part := `{"cpu": "C", "partial": true, "rows": [{"table": 1, "network": "mlp", "system": "local", "scheme": "", "ring": "", "baseline": "onnxruntime", "checks": "", "threads": null, "local_ms": null}]}`
	if _, err := reports.Compare(read(t, a), read(t, part), 0.05); !errors.Is(err, reports.ErrNothing) {
		t.Error(err)
	}
}

// attacks is a report of "bench attacks": one base model with noise and without, and an
// attack of two clouds.
func attacks(rate float64, verdict string) string {
	row := `{"target": "weights", "attack": "base model", "network": "n", "layer": %d, "scheme": "permute", "role": %d, %s "what": "rows", "right": 1, "of": 9, "rate": %v, "chance": 0.5, "verdict": %q, "seconds": 3}`
	return `{"ring": "Z_7", "images": 32, "results": [` + strings.Join([]string{
		fmt.Sprintf(row, 0, 0, "", 1, "broken"), fmt.Sprintf(row, 0, 0, `"noise": 0.1,`, rate, verdict),
		fmt.Sprintf(row, 1, 0, "", 1, "broken"), fmt.Sprintf(row, 1, 1, "", 1, "broken"),
	}, ",") + `]}`
}

// TestAttacks: results are rows, which layer, role and noise tell apart.
func TestAttacks(t *testing.T) {
	c, err := reports.Compare(read(t, attacks(0.8, "leaks")), read(t, attacks(0.4, "chance")), 0.05)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.OnlyA) != 0 || len(c.OnlyB) != 0 || len(c.Warnings) != 0 || len(c.Rows) != 8 {
		t.Fatalf("%+v", c)
	}
	for i, r := range c.Rows {
		ratio, row := 1.0, "attack base model, layer 0, network n, role 0, scheme permute, target weights, what rows"
		if i == 3 {
			ratio = 0.5
		}
		switch i / 2 {
		case 1:
			row = strings.Replace(row, "network n,", "network n, noise 0.1,", 1)
		case 2:
			row = strings.Replace(row, "layer 0", "layer 1", 1)
		case 3:
			row = strings.NewReplacer("layer 0", "layer 1", "role 0", "role 1").Replace(row)
		}
		if r.Figure != []string{"chance", "rate"}[i%2] || r.Row != row || *r.Ratio != ratio || r.Differs != (i == 3) || r.Low != nil {
			t.Errorf("%d: %+v, want %s of %s", i, r, row, []string{"chance", "rate"}[i%2])
		}
	}
	if c, err = reports.Compare(read(t, attacks(1, "broken")), read(t, strings.Replace(attacks(1, "broken"), "Z_7", "Z_5", 1)), 0.05); err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "B says ring Z_5") {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestNoRatio: of figures that are not above zero there is none.
func TestNoRatio(t *testing.T) {
	for _, test := range []struct {
		a, b    string
		differs bool
	}{
		{report(0, 0, 0, 0), report(0, 0, 0, 0), false},
		{report(0, 0, 0, 0), report(1, 1, 1, 1), true},
		{report(1, 1, 1, 1), report(-1, -1, -1, -1), true},
		{report("1e-300", "1e-300", "1e-300", "1e-300"), report("1e300", "1e300", "1e300", "1e300"), true},
	} {
		c, err := reports.Compare(read(t, test.a), read(t, test.b), 0.05)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range c.Rows {
			if r.Ratio != nil || r.Differs != test.differs {
				t.Errorf("%+v", r)
			}
		}
		if err := c.Table(io.Discard); err != nil {
			t.Error(err)
		}
	}
}

// TestKinds: reports of different kinds are refused with both named.
func TestKinds(t *testing.T) {
	kernel := `{"cpu": "C", "rows": [{"kernel": "q4", "shape": "s", "gmacs": 1}]}`
	host := `{"cpu": "C", "rows": [{"pass": "mask", "shape": "s", "ns_per_word": 1}]}`
	load := `{"cpu": "C", "rows": 1, "loads": [{"load": "closed", "p50": 1}]}`
	all := []string{kernel, host, load, paper(1, 1, 1, "", ""), attacks(1, "broken"), report(1, 1, 1, 1), strings.Replace(report(1, 1, 1, 1), "s/1", "s/2", 1)}
	for i, a := range all {
		for j, b := range all {
			_, err := reports.Compare(read(t, a), read(t, b), 0.05)
			var kind *reports.KindError
			if different := errors.As(err, &kind); different != (i != j) || !different && err != nil {
				t.Errorf("%d and %d: %v", i, j, err)
			}
			if kind != nil && (kind.A == kind.B || kind.A == "" || kind.B == "") {
				t.Errorf("%+v", kind)
			}
		}
	}
}

// TestWarnings: what makes a comparison doubtful is said, and rows of one report alone
// are named.
func TestWarnings(t *testing.T) {
	a := report(1, 1, 1, 1)
	for _, test := range []struct {
		old, new string
		want     string
	}{
		{`"cpu": "C"`, `"cpu": "D"`, "the machines or settings differ: A says machine: cpu C; B says machine: cpu D"},
		{`"threads": 2`, `"threads": 4`, "the machines or settings differ: A says machine: threads 2; B says machine: threads 4"},
		{`"schema"`, `"quick": true, "schema"`, "A says nothing more; B says quick true"},
		{`"schema"`, `"partial": true, "schema"`, "B is a partial report"},
		{`"noisy": false`, `"noisy": true`, "B reports that it is noisy"},
		{`"schema"`, `"daemon": {"backend": "cuda", "devices": [{"name": "N"}]}, "schema"`, "A says nothing more; B says backend cuda; device 0: name N"},
	} {
		c, err := reports.Compare(read(t, a), read(t, strings.Replace(a, test.old, test.new, 1)), 0.05)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], test.want) {
			t.Errorf("%q, want %q", c.Warnings, test.want)
		}
		var table strings.Builder
		if err := c.Table(&table); err != nil || !strings.Contains(table.String(), "WARNING: "+c.Warnings[0]) {
			t.Errorf("%v: %s", err, &table)
		}
	}
	two := strings.Replace(a, `"rows": [`, `"rows": [{"network": "m", "rows": 8, "rate": 1},`, 1)
	c, err := reports.Compare(read(t, a), read(t, two), 0.05)
	if err != nil || len(c.OnlyA) != 0 || len(c.OnlyB) != 1 || c.OnlyB[0] != "network m, rows 8" {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err = reports.Compare(read(t, two), read(t, a), 0.05); err != nil || len(c.OnlyA) != 1 || len(c.OnlyB) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := reports.Compare(read(t, a), read(t, strings.Replace(a, `"n"`, `"m"`, 1)), 0.05); !errors.Is(err, reports.ErrNothing) {
		t.Error(err)
	}
}

// TestRefuses: files that are no reports are told apart from those that are.
func TestRefuses(t *testing.T) {
	good := report(1, 1, 1, 1)
	for name, text := range map[string]string{
		"empty":              "",
		"no object":          "[1]",
		"null":               "null",
		"truncated":          good[:len(good)-3],
		"more":               good + "{}",
		"NaN":                report("NaN", 1, 1, 1),
		"infinite":           report(1, 1, 1, "Infinity"),
		"out of range":       report(1, 1, 1, "1e999"),
		"quartiles in words": report(1, `"one"`, 1, 1),
		"quartiles missing":  `{"rows": [{"n": "a", "f": {"median": 1, "q1": 1}}]}`,
		"quartiles crossed":  report(2, 3, 4, 1),
		"quartiles below":    report(5, 3, 4, 1),
		"one quartile":       `{"rows": [{"n": "a", "f": 1, "f_quartiles": [1]}]}`,
		"a quartile in text": `{"rows": [{"n": "a", "f": 1, "f_quartiles": ["1", 1]}]}`,
		"quartiles of text":  `{"rows": [{"n": "a", "f": "1", "f_quartiles": [1, 1]}]}`,
		"quartiles of none":  `{"rows": [{"n": "a", "f": null, "f_quartiles": [1, 1]}]}`,
		"quartiles of calls": `{"rows": [{"n": "a", "calls": 1, "calls_quartiles": [1, 1]}]}`,
		"quartiles twice":    `{"rows": [{"n": "a", "f": {"median": 1, "q1": 1, "q3": 1}, "f_quartiles": [1, 1]}]}`,
		"quartiles above":    paper(1, 2, 3, "", ""),
		"a remark alone":     `{"rows": [{"note": "a", "verdict": "b", "n": "", "f": 1}]}`,
		"no rows":            `{"cpu": "C"}`,
		"rows of numbers":    `{"rows": [1]}`,
		"a nameless row":     `{"rows": [{"f": 1}]}`,
		"a row twice":        `{"rows": [{"n": "a", "f": 1}, {"n": "a", "f": 2}]}`,
		"whole run":          `{"rows": [], "gain": 1e999}`,
		"part of the run":    `{"rows": [], "roofline": {"fma": 1e999}}`,
		"deep":               `{"rows": ` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`,
	} {
		if _, err := reports.Read(strings.NewReader(text)); !errors.Is(err, reports.ErrReport) {
			t.Errorf("%s: %v", name, err)
		}
	}
	huge := io.MultiReader(strings.NewReader(good), io.LimitReader(spaces{}, reports.MaxBytes))
	if _, err := reports.Read(huge); !errors.Is(err, reports.ErrReport) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("huge: %v", err)
	}
	broken := errors.New("broken")
	if _, err := reports.Read(io.MultiReader(strings.NewReader("{"), failing{broken})); !errors.Is(err, broken) || errors.Is(err, reports.ErrReport) {
		t.Errorf("failing: %v", err)
	}
}

type spaces struct{}

func (spaces) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestKept: reports that are kept can be read, and are as they are.
func TestKept(t *testing.T) {
	files, err := filepath.Glob("../../../../bench/results/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, suffix := range []string{"-kernel.json", "-host.json", "-place.json", "-serve.json", "-gpu.json", "-attacks.json", "-paper.json"} {
		for _, f := range files {
			if !strings.HasSuffix(f, suffix) {
				continue
			}
			r, err := reports.Open(f)
			if err != nil {
				t.Fatal(err)
			}
			c, err := reports.Compare(r, r, 0)
			if err != nil || len(r.Machine) == 0 || len(c.Rows) < len(r.Rows) {
				t.Fatalf("%s: %v, %q, %d figures of %d rows", f, err, r.Machine, len(c.Rows), len(r.Rows))
			}
			for _, row := range c.Rows {
				if row.Differs || row.Ratio != nil && *row.Ratio != 1 {
					t.Errorf("%s: %+v", f, row)
				}
			}
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "report.json"), []byte(report(1, 1, 1, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := reports.Open(dir); err != nil {
		t.Error(err)
	}
	if _, err := reports.Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(report(1, 1, 1, 1)))
	f.Add([]byte(`{"cpu": "C", "rows": 1, "gain": 2, "roofline": {"a": 1}, "loads": [{"load": "closed", "concurrency": 4, "p50": 1}]}`))
	f.Add([]byte(paper(2, 1, 3, "a", "b")))
	f.Add([]byte(attacks(0.5, "leaks")))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := reports.Read(strings.NewReader(string(b)))
		if err != nil {
			if !errors.Is(err, reports.ErrReport) {
				t.Fatal(err)
			}
			return
		}
		c, err := reports.Compare(r, r, 0)
		if errors.Is(err, reports.ErrNothing) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Table(io.Discard); err != nil {
			t.Fatal(err)
		}
	})
}
