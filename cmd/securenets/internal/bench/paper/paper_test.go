package paper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/benchtest"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/demo"
	"github.com/securenets/securenets/internal/graph"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/transform"
)

func testOptions(t *testing.T, networks ...string) Options {
	t.Helper()
	return Options{Options: measure.Options{Daemon: benchtest.Daemon(t), Progress: benchtest.Quiet}, Networks: networks}
}

var tiny = scope{rounds: 1, batch: 8, large: 16, encrypted: 1}

// fakePython returns an interpreter that runs a shell script in the place of Python's.
func fakePython(t *testing.T, script string) string {
	path := filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// classes answers as onnxruntime does, with one class for all of 8 images.
const classes = `echo '{"version":"1.2.3"}'
while read line; do echo '{"elapsed_ns": 8000000, "cpu_ns": 16000000, "classes": [9,9,9,9,9,9,9,9]}'; done
`

// TestRun: both tables, end to end, on a network with a convolution.
func TestRun(t *testing.T) {
	o := testOptions(t, "mnist-cnn", CryptoNets)
	o.Python = fakePython(t, classes)
	gomaxprocs := runtime.GOMAXPROCS(0)
	sc := tiny
	sc.encrypted = 0
	r, err := o.measure(t.Context(), sc)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOMAXPROCS(0) != gomaxprocs {
		t.Error("GOMAXPROCS was changed")
	}
	if r.Partial {
		t.Error("partial")
	}
	threads := 1
	if gomaxprocs > 1 {
		threads = 2
	}
	rows := map[string]Row{}
	for _, row := range r.Rows {
		name := fmt.Sprint(row.Table, row.System, row.name())
		if _, twice := rows[name]; twice {
			t.Errorf("%s stands twice", name)
		}
		rows[name] = row
	}
	// Local twice; permute with weights masked once and at every call, pad, split and lagrange, each beside two baselines with four checks.
	if want := threads*(2+5*2*4) + 2 + 2*4 + 1; len(rows) != want {
		t.Errorf("%d rows, want %d", len(rows), want)
	}
	get := func(name string) Row {
		row, ok := rows[name]
		if !ok {
			t.Fatalf("no row %q", name)
		}
		return row
	}
	right := get("1localmnist-cnn, threads 1, beside reference").Accuracy
	if note := get("1localmnist-cnn, threads 1, beside onnxruntime").Note; note != "onnxruntime 1.2.3" {
		t.Error(note)
	}
	for name, row := range rows {
		if row.Table != 1 || row.System != "securenets" {
			continue
		}
		if row.Threads == nil || *row.LocalMS <= 0 || *row.TotalMS <= 0 || *row.CloudMS <= 0 || *row.TransferMS <= 0 || *row.HostOnlineMS < 0 || row.PerHour != nil {
			t.Errorf("%s: %+v", name, row)
		}
		if offline := *row.HostOfflineMS; (offline > 0) != (row.Scheme == "permute+pad") {
			t.Errorf("%s: %v ms offline", name, offline)
		}
		if *row.Accuracy != *right { // of so few images quantisation changes no class
			t.Errorf("%s: accuracy %v, want %v", name, *row.Accuracy, *right)
		}
		if row.Estimated != (row.Checks != "full" || row.Weights == "every call") || row.Confirms == nil || row.Verdict == "" {
			t.Errorf("%s: %+v", name, row)
		}
		if row.Baseline == "onnxruntime" && (*row.LocalMS != 1 || *row.LocalCPU != 2) {
			t.Errorf("%s: local %v, %v", name, *row.LocalMS, *row.LocalCPU)
		}
	}
	pad := get("1securenetsmnist-cnn, permute+pad, checks full, threads 1, beside reference")
	if *pad.BytesUp != 4*(784+12*12*16+512) || *pad.BytesDown != 4*(24*24*16+8*8*32+10) {
		t.Errorf("%v bytes up, %v down", *pad.BytesUp, *pad.BytesDown)
	}
	for scheme, n := range map[string]struct{ up, down float64 }{"permute+split": {1, 2}, "lagrange": {2, 3}} { // clouds that are sent words, and that answer
		row := get("1securenetsmnist-cnn, " + scheme + ", checks full, threads 1, beside reference")
		if up := *row.BytesUp - n.up**pad.BytesUp; up <= 0 || up > 32 || *row.BytesDown != n.down**pad.BytesDown { // a seed a call of 8 images
			t.Errorf("%s: %v bytes up, %v down", scheme, *row.BytesUp, *row.BytesDown)
		}
	}
	once, anew := get("1securenetsmnist-cnn, permute, checks full, threads 1, beside reference"), get("1securenetsmnist-cnn, permute, weights masked at every call, checks full, threads 1, beside reference")
	weights := 4 * (16*25 + 32*400 + 10*512) / 8. // bytes an image of the batch
	if more := *anew.BytesUp - *once.BytesUp; more < weights || more > weights+200 || *anew.TotalMS <= *once.TotalMS || *anew.HostOnlineMS <= *once.HostOnlineMS || *anew.TransferMS <= *once.TransferMS {
		t.Errorf("masked at every call: %v bytes more, want %v and a header; %+v", more, weights, anew)
	}
	for _, scheme := range []string{"permute", "permute+pad", "permute+split", "lagrange"} {
		var down [2]float64
		for i, r := range []string{"q4", "q3"} {
			row := get(fmt.Sprintf("2securenets%s, %s, %s, checks full, threads %d", CryptoNets, scheme, r, gomaxprocs))
			if row.LocalMS != nil || *row.PerHour <= 0 || math.Abs(*row.PerHour**row.TotalMS-3.6e6) > 1 || *row.Images != 16 {
				t.Errorf("%s: %+v", scheme, row)
			}
			down[i] = *row.BytesDown
		}
		if 4*down[1] != 3*down[0] {
			t.Errorf("%s: %v bytes down", scheme, down)
		}
	}
	if row := get("2TenSEAL" + CryptoNets); row.TotalMS != nil || !strings.Contains(row.Note, "quick") {
		t.Errorf("%+v", row)
	}
}

// TestMissing: what is not installed has a row that says how it can be.
func TestMissing(t *testing.T) {
	for name, python := range map[string]string{"no interpreter": "", "no module": fakePython(t, `echo '{"missing":"numpy"}'`)} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t, "mlp", CryptoNets)
			o.Python = python
			r, err := o.measure(t.Context(), tiny)
			if err != nil {
				t.Fatal(err)
			}
			var said []string
			for _, row := range r.Rows {
				if row.Note != "" && row.System != published[0].System && row.System != published[1].System {
					said = append(said, row.System+" "+row.Baseline)
					if row.LocalMS != nil || row.TotalMS != nil || row.PerHour != nil || !strings.Contains(row.Note, "bench/peers/venv.sh") {
						t.Errorf("%+v", row)
					}
				}
				if row.System == "securenets" && row.Baseline == "onnxruntime" {
					t.Errorf("beside nothing: %+v", row)
				}
			}
			if !slices.Equal(said, []string{"local onnxruntime", "TenSEAL "}) {
				t.Errorf("missing: %q", said)
			}
		})
	}
}

// TestFails: an interpreter that is not there, ends, or answers for other images is
// an error, and not a peer that is missing.
func TestFails(t *testing.T) {
	for name, c := range map[string]struct{ python, want string }{
		"not there":    {filepath.Join(t.TempDir(), "none"), "no such file"},
		"ends":         {fakePython(t, "echo why >&2; exit 3"), "why"},
		"ends later":   {fakePython(t, `echo '{"version":"1"}'; read line`), "onnxruntime: the interpreter ended"},
		"other images": {fakePython(t, strings.Replace(classes, "9,", "", 1)), "7 images of 8"},
	} {
		o := testOptions(t, "mlp")
		o.Python = c.python
		r, err := o.measure(t.Context(), tiny)
		if err == nil || !strings.Contains(err.Error(), c.want) || !r.Partial {
			t.Errorf("%s: %v, want %q; partial %v", name, err, c.want, r.Partial)
		}
	}
}

// TestInterrupted: what was measured before is there, and marked.
func TestInterrupted(t *testing.T) {
	for name, want := range map[string]struct {
		at   string // label of the progress, and round
		rows []string
	}{
		"in the second network": {"mnist-cnn 0", []string{"mlp"}},
		"in the second round":   {"mlp 1", []string{"mlp"}},
		"before all":            {"mlp: sealing 0", nil},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			o := testOptions(t, "mlp", "mnist-cnn")
			o.Progress = func(label string, done, _ int) {
				if fmt.Sprint(label, " ", done) == want.at {
					cancel()
				}
			}
			sc := tiny
			sc.rounds = 2
			r, err := o.measure(ctx, sc)
			if !errors.Is(err, context.Canceled) || !r.Partial {
				t.Fatalf("%v, partial %v", err, r.Partial)
			}
			measured := map[string]bool{}
			for _, row := range r.Rows {
				if row.System == "securenets" {
					measured[row.Network] = true
				}
			}
			if r.Measured() != (want.rows != nil) {
				t.Errorf("measured: %v", r.Measured())
			}
			if got := benchtest.Fields(measured); !slices.Equal(got, want.rows) {
				t.Errorf("rows of %q, want %q", got, want.rows)
			}
			var b bytes.Buffer
			if err := r.Table(&b); err != nil || !strings.Contains(b.String(), "PARTIAL") {
				t.Errorf("%v: %s", err, &b)
			}
		})
	}
}

// TestInterruptedInPython: a peer that is ended with the run is no error of its own.
func TestInterruptedInPython(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := testOptions(t, "mlp")
	o.Python = fakePython(t, `echo '{"version":"1"}'; read line; exec sleep 60`)
	o.Progress = func(label string, _, _ int) {
		if label == "mlp" {
			time.AfterFunc(500*time.Millisecond, cancel)
		}
	}
	if r, err := o.measure(ctx, tiny); !errors.Is(err, context.Canceled) || !r.Partial {
		t.Errorf("%v, partial %v", err, r.Partial)
	}
}

// TestChecking: the checks' costs are measured on right answers, and a spot check that
// finds one wrong is an error.
func TestChecking(t *testing.T) {
	n := &network{Options: testOptions(t), sc: tiny, name: "mnist-cnn"}
	var err error
	if n.local, err = demo.OpenLocal(n.options(transform.DefaultScheme(), "", 0)); err != nil {
		t.Fatal(err)
	}
	defer n.local.Close()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, s := range schemes[:2] {
		c, err := newChecking(t.Context(), n, s, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.layers) != 3 {
			t.Errorf("%v: %d layers", s, len(c.layers))
		}
		const rounds = 9
		for range rounds {
			if err := c.round(); err != nil {
				t.Fatal(err)
			}
		}
		// The least of each is what it takes where nothing else ran.
		if few, more := slices.Min(c.spot[0]), slices.Min(c.spot[1]); len(c.inputs) != rounds || slices.Min(c.inputs) <= 0 || few <= 0 || more <= few {
			t.Errorf("%v: %+v", s, c)
		}
		for i := range c.layers[0].W {
			c.layers[0].W[i]++
		}
		if err := c.round(); err == nil || !strings.Contains(err.Error(), "spot check") {
			t.Errorf("%v: other weights: %v", s, err)
		}
	}
}

// TestInstead: the check's time goes and the spot check's comes, also in the total.
func TestInstead(t *testing.T) {
	c := &checking{inputs: measure.Series{0.1}, answers: measure.Series{0.4}, spot: []measure.Series{{0.03}, {0.3}}}
	for _, test := range []struct {
		points, threads int
		want            float64
	}{{0, 1, -0.5}, {0, 2, -0.3}, {10, 1, -0.47}, {100, 1, -0.2}, {100, 4, 0.1}} {
		if got := c.instead(test.points, test.threads); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%d points, %d threads: %v, want %v", test.points, test.threads, got, test.want)
		}
	}
	full := Row{HostOnlineMS: of(2.), CloudMS: of(1.), TransferMS: of(1.), TotalMS: of(3.), HostCPU: of(9.), TotalQ: &[2]float64{}}
	got := full.instead(-1)
	if *got.HostOnlineMS != 1 || *got.TotalMS != 3*3./4 || !got.Estimated || got.HostCPU != nil || got.TotalQ != nil {
		t.Errorf("%+v", got)
	}
	if *full.HostOnlineMS != 2 || *full.TotalMS != 3 || full.Estimated {
		t.Errorf("the full row became %+v", full)
	}
	if got := full.instead(-5); *got.HostOnlineMS != 0 || *got.TotalMS != 1.5 { // no less than nothing
		t.Errorf("%+v", got)
	}
}

// TestVerdict: what confirms the paper, and what a difference comes from.
func TestVerdict(t *testing.T) {
	row := func(network, checks string, local, host, cloud, transfer, total float64) Row {
		return Row{Table: 1, Network: network, Checks: checks, LocalMS: &local, HostOnlineMS: &host, CloudMS: &cloud, TransferMS: &transfer, TotalMS: &total, HostOfflineMS: of(0.)}
	}
	padded := func(r Row, offline float64) Row {
		r.HostOfflineMS = &offline
		return r
	}
	throughput := func(perHour, kb float64) Row {
		return Row{Table: 2, PerHour: &perHour, TotalMS: of(3.6e6 / perHour), HostOfflineMS: of(0.), BytesUp: of(kb * 1024 / 2), BytesDown: of(kb * 1024 / 2)}
	}
	for _, test := range []struct {
		row      Row
		confirms bool
		verdict  string
	}{
		{row("cifar-cnn", "0", 10, 2, 1, 0.5, 3.5), true, "Confirms the paper's 63.43 % less time than local (its permute, c = 0): here 65.00 % less."},
		{row("cifar-cnn", "0", 10, 3, 0.4, 0.3, 3.7), false, "Does not confirm the paper's 63.43 % less time than local (its permute, c = 0): here 63.00 % less, as the host's work takes 30.0 % of local time, where the paper's took 15.6 %."},
		{row("cifar-cnn", "full", 10, 3, 0.4, 0.3, 3.7), true, "Confirms the paper's 61.54 % less time than local (its permute, c = 100): here 63.00 % less."},
		{row("mnist-cnn", "100", 10, 1, 2, 9, 12), false, "Does not confirm the paper's 60.46 % less time than local (its permute, c = 100): here 20.00 % more, as the transfer takes 90.0 % of local time, where the paper's took 0.3 %."},
		{row("mlp", "10", 10, 5, 3, 4, 12), true, "Confirms the paper's 94.13 % more time than local (its permute, c = 100): here 20.00 % more."},
		{row("mlp", "0", 10, 5, 1, 1, 7), false, "Does not confirm the paper's 93.78 % more time than local (its permute, c = 0): here 30.00 % less, as the cloud's work takes 10.0 % of local time, where the paper's took 97.7 %."},
		{padded(row("cifar-cnn", "0", 10, 2, 1, 0.5, 3.5), 0.1), true, "Confirms the paper's 63.43 % less time than local (its permute, c = 0): here 64.00 % less, pads counted."},
		{padded(row("cifar-cnn", "0", 10, 2, 1, 0.5, 3.5), 1), false, "Does not confirm the paper's 63.43 % less time than local (its permute, c = 0): here 55.00 % less, pads counted, as the host's work takes 30.0 % of local time, where the paper's took 15.6 %."},
		{padded(throughput(1.2*paperPerHour, 10), 30), false, "Does not confirm the paper's +104.45 % predictions an hour and -69.78 % bytes against CryptoNets: here 1.112 times the predictions an hour that CryptoNets had on a machine of 2016, pads counted, and 89.25 % less bytes, as an image takes 54.88 ms."},
		{row("cryptonets", "0", 1, 1, 1, 1, 1), false, "The paper has no such network."},
		{throughput(1000*cryptoNetsPerHour, 10.5), true, "Confirms the paper's +104.45 % predictions an hour and -69.78 % bytes against CryptoNets: here 1000 times the predictions an hour that CryptoNets had on a machine of 2016, and 88.72 % less bytes, fully checked."},
		{throughput(paperPerHour-1, 10.5), false, "Does not confirm the paper's +104.45 % predictions an hour and -69.78 % bytes against CryptoNets: here 2.045 times the predictions an hour that CryptoNets had on a machine of 2016, and 88.72 % less bytes, as an image takes 29.85 ms."},
		{throughput(1e8, 28.2), false, "Does not confirm the paper's +104.45 % predictions an hour and -69.78 % bytes against CryptoNets: here 1695 times the predictions an hour that CryptoNets had on a machine of 2016, and 69.69 % less bytes, as an image takes 28.2 KB."},
	} {
		got := test.row.judged()
		if *got.Confirms != test.confirms || got.Verdict != test.verdict {
			t.Errorf("%v: %s\nwant %s", *got.Confirms, got.Verdict, test.verdict)
		}
	}
	// The paper's own rows confirm it.
	for network, both := range paperSeconds {
		for i, checks := range []string{"0", "100"} {
			if s := both[i]; !*row(network, checks, s.local, s.host, s.cloud, s.transfer, s.total).judged().Confirms {
				t.Errorf("%s, %s points: the paper does not confirm itself", network, checks)
			}
		}
	}
	if !*throughput(paperPerHour, paperKB).judged().Confirms {
		t.Error("the paper's table 2 does not confirm itself")
	}
}

// TestForms: keys are those that are promised, and what does not apply is null.
func TestForms(t *testing.T) {
	r := &Result{CPU: "C", Threads: 2, Rows: []Row{
		{Table: 1, Network: "n", System: "local", Baseline: "reference", Threads: of(1), LocalMS: of(4.), Note: "a note"},
		{Table: 1, Network: "n", System: "securenets", Scheme: "permute", Weights: "once", Baseline: "reference", Checks: "10", Threads: of(1), LocalMS: of(4.), TotalMS: of(1.), Estimated: true, Confirms: of(true), Verdict: "Yes."},
		{Table: 1, Network: "n", System: "securenets", Scheme: "permute", Weights: "once", Baseline: "onnxruntime", Checks: "10", Threads: of(1), LocalMS: of(.5), TotalMS: of(1.), Confirms: of(false), Verdict: "No."},
		{Table: 2, Network: CryptoNets, System: "s", PerHour: of(1234567.), BytesUp: of(1024.), BytesDown: of(512.)},
	}}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var top map[string]any
	var parts struct{ Rows []map[string]any }
	if err := errors.Join(json.Unmarshal(text, &top), json.Unmarshal(text, &parts)); err != nil {
		t.Fatal(err)
	}
	if names := strings.Join(benchtest.Fields(top), " "); names != "batch batch_large cpu partial quick rounds rows threads version" {
		t.Errorf("JSON has %q", names)
	}
	want := append(slices.Clone(columns), "local_quartiles_ms", "total_quartiles_ms")
	slices.Sort(want)
	for _, row := range parts.Rows {
		if names := benchtest.Fields(row); !slices.Equal(names, want) {
			t.Errorf("JSON has %q, want %q", names, want)
		}
	}
	if row := parts.Rows[0]; row["local_ms"] != 4. || row["total_ms"] != nil || row["accuracy"] != nil || row["per_hour"] != nil || row["checks"] != "" || row["confirms"] != nil {
		t.Errorf("%v", row)
	}
	benchtest.CSV(t, r.CSV, strings.Join(columns, ","),
		"1,n,local,,,,reference,,1,4,,,,,,,,,,,,,,,false,,,a note",
		"1,n,securenets,permute,,once,reference,10,1,4,,,,,1,,,,,,,,,,true,true,Yes.,",
		"1,n,securenets,permute,,once,onnxruntime,10,1,0.5,,,,,1,,,,,,,,,,false,false,No.,",
		"2,cryptonets,s,,,,,,,,,,,,,,1024,512,1234567,,,,,,false,,,")
	var table, markdown bytes.Buffer
	if err := errors.Join(r.Table(&table), r.Markdown(&markdown, "command", "figure.png", "caption")); err != nil {
		t.Fatal(err)
	}
	cells := strings.Fields(strings.Split(table.String(), "\n")[2])
	if line := strings.Join(cells, " "); line != "n 1 permute once 10 ~1 0.250 2.000 yes" {
		t.Errorf("%q", line)
	}
	for _, part := range []string{"1,234,567", "1.00   0.50     1.50", "a note"} {
		if !strings.Contains(table.String(), part) {
			t.Errorf("no %q in\n%s", part, &table)
		}
	}
	for _, part := range []string{"    command\n", "| n | 1 | permute | once | 10 |", "- n, permute, checks 10, threads 1, beside onnxruntime: No.\n", "](figure.png)\n\ncaption\n", "local: a note."} {
		if !strings.Contains(markdown.String(), part) {
			t.Errorf("no %q in\n%s", part, &markdown)
		}
	}
}

// TestForTenSEAL: the network as the script has it gives what the reference does.
func TestForTenSEAL(t *testing.T) {
	n := &network{Options: testOptions(t), sc: tiny, name: CryptoNets}
	local, err := demo.OpenLocal(n.options(transform.DefaultScheme(), "", 0))
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	_, y, err := local.Infer(0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := forTenSEAL(local.Graph())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var network struct {
		Padding    [4]int
		Stride     int
		Kernels    [][][]float64
		KernelBias []float64 `json:"kernel_bias"`
		Dense      []struct {
			Weights [][]float64
			Bias    []float64
		}
	}
	if err := json.Unmarshal(b, &network); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		image := local.Images().Range(i, i+1)
		at := func(h, w int) float64 {
			if h -= network.Padding[0]; h < 0 || h >= 28 {
				return 0
			}
			if w -= network.Padding[1]; w < 0 || w >= 28 {
				return 0
			}
			return float64(image[h*28+w])
		}
		var v []float64 // maps, one after the other
		for k, kernel := range network.Kernels {
			side := (28+network.Padding[0]+network.Padding[2]-len(kernel))/network.Stride + 1
			for p := range side {
				for q := range side {
					sum := network.KernelBias[k]
					for a, row := range kernel {
						for b, w := range row {
							sum += w * at(p*network.Stride+a, q*network.Stride+b)
						}
					}
					v = append(v, sum)
				}
			}
		}
		for _, layer := range network.Dense {
			out := slices.Clone(layer.Bias)
			for j, row := range layer.Weights {
				for o, w := range row {
					out[o] += w * v[j] * v[j]
				}
			}
			v = out
		}
		scores := y[i*10 : (i+1)*10]
		top, sum := slices.Max(v), 0.0
		for _, s := range v {
			sum += math.Exp(s - top)
		}
		for o, s := range v {
			if p := math.Exp(s-top) / sum; math.Abs(p-float64(scores[o])) > 1e-3 {
				t.Errorf("image %d, class %d: %v, want %v", i, o, p, scores[o])
			}
		}
	}

	conv := &graph.Conv2D{Geometry: plan.Conv2D{H: 5, W: 5, C: 1, OutC: 1, KH: 3, KW: 3, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}, W: make([]float32, 9)}
	odd := *conv
	odd.Geometry.Top, odd.Geometry.Left, odd.Geometry.Bot, odd.Geometry.Right = 1, 2, 0, 1
	got, err = forTenSEAL(&graph.Graph{Nodes: []graph.Node{{Op: &odd}, {Op: graph.Square{}}, {Op: &graph.Dense{In: 1, Out: 1, W: make([]float32, 1)}}}})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := json.Marshal(got); err != nil || !strings.Contains(string(b), `"padding":[1,2,0,1]`) {
		t.Errorf("%s: %v", b, err)
	}
	two := *conv
	two.Geometry.C = 2
	dense := &graph.Dense{In: 9, Out: 2, W: make([]float32, 18)}
	for name, ops := range map[string][]graph.Op{
		"no square":      {conv, graph.Reshape{To: graph.Vector(9)}, dense},
		"another":        {conv, graph.ReLU{}, graph.Square{}, dense},
		"two channels":   {&two, graph.Square{}, dense},
		"no convolution": {graph.Square{}, dense},
		"no dense":       {conv, graph.Square{}},
	} {
		g := &graph.Graph{}
		for _, op := range ops {
			g.Nodes = append(g.Nodes, graph.Node{Op: op})
		}
		if _, err := forTenSEAL(g); !errors.Is(err, errNotCryptoNets) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTenSEAL: what the script says becomes a row.
func TestTenSEAL(t *testing.T) {
	o := testOptions(t, CryptoNets)
	o.Python = fakePython(t, `echo '{"version":"9.8","degree":16384,"modulus_bits":260,"keys_bytes":1000}'
while read line; do echo '{"encrypt_ns":2e6,"evaluate_ns":5e6,"decrypt_ns":1e6,"cpu_ns":9e6,"bytes_up":100,"bytes_down":10,"scores":[0,0,0,0,0,0,0,0,0,1]}'; done`)
	sc := tiny
	sc.encrypted = 2
	r, err := o.measure(t.Context(), sc)
	if err != nil {
		t.Fatal(err)
	}
	row := r.Rows[len(r.Rows)-1]
	if row.System != "TenSEAL 9.8" || *row.HostOnlineMS != 3 || *row.CloudMS != 5 || *row.TotalMS != 8 || *row.PerHour != 450_000 || *row.BytesUp != 100 || *row.BytesDown != 10 ||
		row.Accuracy != nil || !strings.Contains(row.Note, "1 of 2 images") { // the first is a boot (9), the second is not
		t.Errorf("%+v", row)
	}
}

// TestPeersInPython: the real ones, where bench/peers/venv.sh was run, classify as the
// reference does; TenSEAL not under -short, as it takes minutes.
func TestPeersInPython(t *testing.T) {
	python, err := filepath.Abs("../../../../.cache/peers-venv/bin/python")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(python); err != nil {
		t.Skip("bench/peers/venv.sh was not run")
	}
	networks := []string{"mnist-cnn", CryptoNets}
	if testing.Short() {
		networks = networks[:1]
	}
	o := testOptions(t, networks...)
	o.Python = python
	sc := tiny
	sc.batch = 64
	r, err := o.measure(t.Context(), sc)
	if err != nil {
		t.Fatal(err)
	}
	var right []float64
	for _, row := range r.Rows {
		if row.System == "local" {
			right = append(right, *row.Accuracy)
			if *row.LocalMS <= 0 || *row.LocalCPU <= 0 {
				t.Errorf("%+v", row)
			}
		}
		if strings.HasPrefix(row.System, "TenSEAL") && (row.TotalMS == nil || *row.BytesUp < 1000 || !strings.Contains(row.Note, "1 of 1 images")) {
			t.Errorf("%+v", row)
		}
	}
	if len(right) < 2 || slices.Min(right) != slices.Max(right) {
		t.Errorf("accuracies of the reference and of onnxruntime: %v", right)
	}
}

// TestFigure: a column for what each role gets, none of it the image.
func TestFigure(t *testing.T) {
	o := testOptions(t)
	m, columns, err := demo.DrawFigure(t.Context(), (&network{Options: o, name: "mlp", sc: tiny}).options(transform.Scheme{}, "", 0), FigureSchemes())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range columns {
		names = append(names, fmt.Sprint(c.Scheme, " ", c.Role))
	}
	if got := strings.Join(names, ", "); got != "permute 0, permute+pad 0, permute+split 0, permute+split 1, lagrange 0, lagrange 1, lagrange 2" {
		t.Error(got)
	}
	const lines, scale, cell, gap = 8, 4, 28, 2
	if b := m.Bounds(); b.Dx() != scale*(8*(cell+gap)+2*gap) || b.Dy() != scale*lines*(cell+2*gap) {
		t.Fatalf("a picture of %v", b)
	}
	// Zeros of an image stay zeros under permute, and under the others nothing does.
	black := make([]int, 1+len(columns))
	for line := range lines {
		for column := range black {
			for p := range cell * cell {
				x, y := gap+column*(cell+gap)+p%cell, gap+line*(cell+2*gap)+p/cell
				if r, _, _, _ := m.At(scale*x, scale*y).RGBA(); r>>8 == 0 {
					black[column]++
				}
			}
		}
	}
	all := lines * cell * cell
	if d := black[1] - black[0]; black[0] < all/3 || d < 0 || d > all/50 {
		t.Errorf("%d pixels of images are black, and %d under permute", black[0], black[1])
	}
	for i, n := range black[2:] {
		if n > all/100 { // 1 in 256
			t.Errorf("%s: %d of %d pixels are black", names[i+1], n, all)
		}
	}
}
