package throughput

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/benchtest"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/measure"
	"github.com/securenets/securenets/cmd/securenets/internal/bench/traffic"
	"github.com/securenets/securenets/cmd/securenets/internal/child"
	"github.com/securenets/securenets/cmd/securenets/internal/reports"
	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/adversary"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/tlstest"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels/roofline"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
	"github.com/securenets/securenets/verify"
)

func TestSummary(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   Figure
	}{
		{[]float64{7}, Figure{7, 7, 7}},
		{[]float64{2, 1}, Figure{1.5, 1.25, 1.75}},
		{[]float64{9, 1, 3}, Figure{3, 2, 6}}, // not the median as upper quartile
		{[]float64{5, 1, 4, 2, 3}, Figure{3, 2, 4}},
		{[]float64{0, 0, 0}, Figure{}},
		{[]float64{1.23456e-7, 1.23456e-7}, Figure{1.2346e-7, 1.2346e-7, 1.2346e-7}},
	} {
		got := *summary(test.values)
		for _, v := range [][2]float64{{got.Median, test.want.Median}, {got.Q1, test.want.Q1}, {got.Q3, test.want.Q3}} {
			if math.Abs(v[0]-v[1]) > 1e-12*math.Abs(v[1]) {
				t.Errorf("%v: %+v, want %+v", test.values, got, test.want)
			}
		}
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for q, want := range map[float64]float64{0.5: 50, 0.9: 90, 0.99: 99, 0.991: 100, 1: 100, 0: 1} {
		if got := percentile(hundred, q); got != want {
			t.Errorf("%v of 1 to 100: %v, want %v", q, got, want)
		}
	}
	if got := percentile([]float64{3}, 0.99); got != 3 {
		t.Errorf("of one: %v", got)
	}
}

// TestCost: an hour at 3.60 that does a thousand images a second does 3.6 million.
func TestCost(t *testing.T) {
	if got := costPerMillion(3.6, 1./1000); math.Abs(got-1) > 1e-12 {
		t.Errorf("%v, want 1", got)
	}
	if got := costPerMillion(3.6, 1./1000+3./1000); math.Abs(got-4) > 1e-12 { // its pads take three times as long
		t.Errorf("%v, want 4", got)
	}
}

// TestNoise: a row is flagged whose quartiles are further apart than the threshold, and
// the report with it; so is one whose reference drifted.
func TestNoise(t *testing.T) {
	of := func(images ...float64) *load {
		return &load{figures: map[string]measure.Series{"images_per_second": images}}
	}
	for _, test := range []struct {
		name      string
		loads     []*load
		reference []float64
		rows      int
		drifted   bool
		says      string
	}{
		{"quiet", []*load{of(100, 101, 102), of(50, 51)}, []float64{10, 10.5, 10.9}, 0, false, "Quiet"},
		{"at the threshold", []*load{of(90, 100, 110)}, []float64{10}, 0, false, "Quiet"},
		{"one row", []*load{of(100, 101, 102), of(80, 100, 120)}, []float64{10, 10}, 1, false, "NOISY: in 1 of 2 rows"},
		{"drift", []*load{of(100, 100)}, []float64{10, 9, 10.5}, 0, true, "DRIFT"},
		{"nothing measured", []*load{of()}, nil, 0, false, "Quiet"},
	} {
		r := &Report{Noise: Noise{Threshold: noisy}, Reference: Reference{GMACs: test.reference}}
		r.sum(test.loads)
		if r.Noise.Rows != test.rows || r.Reference.Drifted != test.drifted || r.Noise.Noisy != (test.rows > 0 || test.drifted) {
			t.Errorf("%s: %+v, %+v", test.name, r.Noise, r.Reference)
		}
		for i, row := range r.Rows {
			if row.Noisy != (i >= len(r.Rows)-test.rows) || row.Noisy != (row.Noise > noisy) {
				t.Errorf("%s: row %d: %v, noisy is %v", test.name, i, row.Noise, row.Noisy)
			}
		}
		if text := strings.Join(r.verdict(), "\n"); !strings.Contains(text, test.says) {
			t.Errorf("%s: %s", test.name, text)
		}
	}
}

// TestSweep: every load once, the axes that are promised, and no frame too large.
func TestSweep(t *testing.T) {
	for _, device := range []bool{false, true} {
		for _, quick := range []bool{false, true} {
			s := sweepFor(device, quick)
			s.several = true
			if s.rounds < 3 || !slices.Contains(s.rows, s.at.rows) || !slices.Contains(s.callers, s.at.callers) || !slices.Contains(s.widths, s.base.width) {
				t.Errorf("%+v", s)
			}
			if n := s.clouds(); n != 3 {
				t.Errorf("%d clouds", n)
			}
			points := s.points()
			sessions, frames := map[point]bool{}, 0
			for _, p := range points {
				sessions[point{network: p.network, scheme: p.scheme}] = true
				if p.side == sideCloud {
					frames = max(frames, p.callers*framesDepth*2*4*p.rows*max(p.network.width, 1<<14)) // a map of mnist-cnn has less
				}
			}
			if shared := len(sessions)*hostclient.DefaultSharedMemory + frames; shared > sharedBytes {
				t.Errorf("%d sessions and frames share %d bytes", len(sessions), shared)
			}
			for _, scheme := range []string{"permute+pad", "permute+split", "lagrange"} {
				seen := map[network]bool{}
				for _, p := range points {
					if p.scheme.String() == scheme && p.side == sideHost && p.rows == s.at.rows && p.callers == s.at.callers {
						seen[p.network] = true
					}
				}
				for _, w := range s.widths {
					if !seen[network{width: w, depth: s.base.depth}] {
						t.Errorf("%s: no layers of width %d", scheme, w)
					}
				}
				if !seen[network{model: s.model}] {
					t.Errorf("%s: no %s", scheme, s.model)
				}
			}
			for i, p := range points {
				if slices.Index(points, p) != i {
					t.Errorf("%v twice", p)
				}
				if bytes := 4 * p.rows * p.network.width; p.side == sideCloud && bytes > 15<<20 {
					t.Errorf("%v: frames of %d bytes", p, bytes)
				}
			}
			for axis, least := range map[string]int{"rows": 3, "callers": 2, "widths": 3, "depths": 3, "schemes": 3, "models": 2} {
				seen := map[any]bool{}
				for _, p := range points {
					seen[map[string]any{
						"rows": p.rows, "callers": p.callers, "widths": p.network.width, "depths": p.network.depth, "schemes": p.scheme, "models": p.network.model,
					}[axis]] = true
				}
				if len(seen) < least {
					t.Errorf("%d %s", len(seen), axis)
				}
			}
			s.several = false
			if slices.ContainsFunc(s.points(), func(p point) bool { return p.scheme.Roles() > 1 }) || s.clouds() != 1 {
				t.Error("schemes of several clouds where there is one")
			}
		}
	}
}

// tinySweep has all kinds of loads, in two seconds.
func tinySweep(bool) sweep {
	s := sweep{
		base: network{width: 24, depth: 2}, model: "cryptonets", rounds: 3, window: 5 * time.Millisecond,
		rows: []int{1, 4}, callers: []int{1, 3}, widths: []int{16, 24}, depths: []int{1, 2}, readings: 1, peer: 64,
	}
	s.at.rows, s.at.callers = 4, 3
	return s
}

func tinyOptions(t *testing.T) Options {
	return Options{
		Options: measure.Options{Daemon: benchtest.Daemon(t), Progress: benchtest.Quiet},
		Backend: "cpu", PerHour: 3.6, Currency: "EUR", Command: []string{"a", "b|c"},
	}
}

// TestRun runs everything on real daemons, and reads back what it writes. Of one
// round, figures are what they follow from.
func TestRun(t *testing.T) {
	o := tinyOptions(t)
	s := tinySweep(false)
	s.rounds = 1
	r, err := o.run(t.Context(), func(bool) sweep { return s })
	if err != nil {
		t.Fatal(err)
	}
	s.several = true
	points := s.points()
	if r.Partial || r.Stopped != "" || len(r.Rows) != len(points) || r.Rounds != 1 || len(r.Reference.GMACs) != 2 || r.Checked == 0 || r.Rejected != 0 {
		t.Fatalf("%d rows of %d points: %+v", len(r.Rows), len(points), r)
	}
	for i, row := range r.Rows {
		p := points[i]
		if row.Side != p.side || row.Network != p.network.String() || row.Scheme != p.scheme.String() || row.Rows != p.rows || row.Callers != p.callers || row.Rounds != 1 || row.Calls < p.callers {
			t.Errorf("row %d is %+v, want one of %+v", i, row, p)
		}
		if p.network.width > 0 && row.MulAdds != int64(p.network.width*p.network.width*p.network.depth) {
			t.Errorf("%s: %d multiply-adds", p.label(), row.MulAdds)
		}
		for _, f := range figures {
			v := *f.of(&row)
			want := true
			switch f.name {
			case "limit_gmacs", "share_of_limit", "share_of_limit_by_cpu":
				want = roofline.Available()
			case "host_cpu_us", "host_pads_us":
				want = row.Side == sideHost
			case "cost_per_million":
				want = p.scheme.Roles() == 1
			case "cost_per_million_with_pads":
				want = row.Side == sideHost && p.scheme.Roles() == 1
			}
			if (v != nil) != want {
				t.Errorf("%s: %s is %v", p.label(), f.name, v)
			}
			if v == nil {
				continue
			}
			none := f.name == "host_pads_us" && p.scheme.Inputs != transform.InputPad
			if none != (v.Median == 0) || v.Q1 > v.Median || v.Median > v.Q3 || math.IsNaN(v.Median) || math.IsInf(v.Median, 0) {
				t.Errorf("%s: %s is %+v", p.label(), f.name, *v)
			}
		}
		if want := row.Images.Median * float64(row.MulAdds) / 1e9; math.Abs(row.GMACs.Median-want) > 0.001*want {
			t.Errorf("%s: %v GMAC/s at %v images/s", p.label(), row.GMACs.Median, row.Images.Median)
		}
		if want := 1e3 / row.Images.Median; row.Cost != nil && math.Abs(row.Cost.Median-want) > 0.001*want { // at 3.6 an hour
			t.Errorf("%s: a million cost %v, want %v", p.label(), row.Cost.Median, want)
		}
		if clouds := float64(p.scheme.Roles()); row.Share != nil {
			if p.side == sideCloud {
				clouds = 1
			}
			if want := clouds * row.GMACs.Median / row.Limit.Median; math.Abs(row.Share.Median-want) > 0.001*want {
				t.Errorf("%s: share %v, want %v", p.label(), row.Share.Median, want)
			}
		}
		if row.Side == sideHost {
			// A word of 4 bytes for each value of each layer: to every cloud that is not sent a seed, and from all.
			words := int64(4 * p.network.width * p.network.depth)
			up, down, seed := words*map[int]int64{1: 1, 2: 1, 3: 2}[p.scheme.Roles()], words*int64(p.scheme.Roles()), int64(0)
			if p.scheme.Roles() > 1 {
				seed = 128 // of each layer, for all rows of a call
			}
			if p.network.width > 0 && (*row.BytesUp < up || *row.BytesUp > up+seed || *row.BytesDown != down) {
				t.Errorf("%s: %d bytes up, %d down, want %d and %d", p.label(), *row.BytesUp, *row.BytesDown, up, down)
			}
			if row.Cost != nil && row.CostPadded.Median < row.Cost.Median || row.P50.Median > row.P90.Median || row.P90.Median > row.P95.Median || row.P95.Median > row.P99.Median {
				t.Errorf("%+v", row)
			}
		} else if row.BytesUp != nil || row.BytesDown != nil {
			t.Errorf("%+v", row)
		}
	}

	var lines []string
	for _, c := range r.charts() {
		for _, l := range c.Lines {
			if c.file == "host-cpu-width" && len(l.Points) == len(s.widths) {
				lines = append(lines, l.Name)
			}
		}
	}
	if got := strings.Join(lines, "; "); got != "permute+pad, online; permute+pad, for pads; permute+split; lagrange" {
		t.Errorf("host CPU time is drawn of %q", got)
	}

	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	checkReport(t, dir, r, []string{"throughput-batch", "throughput-latency", "gmacs-width", "host-cpu-width"})
	for i := range r.Rows { // as by a clock that stands still
		r.Rows[i].HostCPU, r.Rows[i].HostPads = &Figure{}, &Figure{}
	}
	if err := r.Write(dir); err != nil { // in the place of the other
		t.Fatal(err)
	}
	checkReport(t, dir, r, []string{"throughput-batch", "throughput-latency", "gmacs-width"})
	if _, err := os.Stat(filepath.Join(dir, "host-cpu-width.png")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a chart is left: %v", err)
	}
	var table bytes.Buffer
	if err := r.Table(&table); err != nil || !strings.Contains(table.String(), "The cloud alone") {
		t.Errorf("%v: %s", err, &table)
	}
}

// checkReport reads a report's files back.
func checkReport(t *testing.T, dir string, r *Report, charts []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(back)
	if err != nil {
		t.Fatal(err)
	}
	want, err := json.Marshal(r)
	if err != nil || !bytes.Equal(again, want) {
		t.Errorf("report.json is %s, want %s", again, want)
	}
	if back.Schema != Schema || back.Build.Go == "" || back.Machine.Threads < 1 || back.Machine.CPU == "" || back.Daemon.Version == "" || back.Began.IsZero() {
		t.Errorf("%+v", back)
	}
	f, err := os.Open(filepath.Join(dir, "report.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil || len(lines) != 1+len(r.Rows) {
		t.Errorf("report.csv: %d lines, %v", len(lines), err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "report.md"))
	if err != nil {
		t.Fatal(err)
	}
	if cells := strings.Count(string(text), "\n| dense-"); len(r.Rows) > 0 && cells == 0 || r.Partial != strings.Contains(string(text), "PARTIAL") {
		t.Errorf("%s", text)
	}
	if r.PerHour != nil != strings.Contains(string(text), "permute+split and lagrange have neither") {
		t.Errorf("why a scheme has no cost: %s", text)
	}
	if slices.Contains(r.Command, "b|c") != strings.Contains(string(text), "a b\\|c`") {
		t.Errorf("the command is no cell: %s", text)
	}
	var linked []string
	for _, m := range regexp.MustCompile(`\]\(([a-z-]+)\.png\)`).FindAllStringSubmatch(string(text), -1) {
		linked = append(linked, m[1])
		f, err := os.Open(filepath.Join(dir, m[1]+".png"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := png.Decode(f); err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
		f.Close()
		if _, err := os.Stat(filepath.Join(dir, m[1]+".svg")); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(linked, charts) {
		t.Errorf("charts %q, want %q", linked, charts)
	}
	if _, err := reports.Open(dir); err != nil {
		t.Error(err)
	}
}

// startDaemon starts a daemon that stays, with a configuration, and returns its log and
// a client of it.
func startDaemon(t *testing.T, config string) (*child.Daemon, string, *hostclient.Client) {
	t.Helper()
	dir := t.TempDir()
	d, err := child.Start(benchtest.Daemon(t), filepath.Join(dir, "d"), "backend = \"cpu\"\n"+config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Ready(t.Context()); err != nil {
		d.ShowLog(os.Stderr)
		t.Fatal(err)
	}
	c, err := hostclient.Dial(d.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	log, err := os.ReadFile(filepath.Join(dir, "d", "log"))
	if err != nil {
		t.Fatal(err)
	}
	return d, string(log), c
}

// TestEndpoint: a daemon that is there is measured, with what can be known of
// it, and is left without a model.
func TestEndpoint(t *testing.T) {
	dir := t.TempDir()
	ca, err := tlstest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ca.WriteCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := ca.Write(dir, "daemon", tlstest.Leaf{Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	own, ownKey, err := ca.Write(dir, "host", tlstest.Leaf{CommonName: "host"})
	if err != nil {
		t.Fatal(err)
	}
	d, log, unix := startDaemon(t, fmt.Sprintf("[tls]\nlisten = \"tls:127.0.0.1:0\"\ncertificate = %q\nkey = %q\nclient_ca = %q\n", certificate, key, authority))
	at := regexp.MustCompile(`msg=tls address=(\S+)`).FindStringSubmatch(log)
	if at == nil {
		t.Fatalf("no address in %s", log)
	}
	config, err := hostclient.LoadTLS(own, ownKey, authority)
	if err != nil {
		t.Fatal(err)
	}
	overTLS, err := hostclient.DialTLS("tls:"+at[1], "", config)
	if err != nil {
		t.Fatal(err)
	}
	defer overTLS.Close()
	for _, test := range []struct {
		endpoint string
		client   *hostclient.Client
		options  func(*Options)
		stop     bool // in the second round
	}{
		{d.Addr, unix, func(*Options) {}, false},
		{"tls:" + at[1], overTLS, func(o *Options) { o.TLS = config }, false},
		{d.Addr, unix, func(*Options) {}, true},
	} {
		o := tinyOptions(t)
		o.Daemon, o.Endpoint = "", test.endpoint
		test.options(&o)
		ctx, cancel := context.WithCancel(t.Context())
		held := 0
		o.Progress = func(label string, _, _ int) {
			if !strings.HasPrefix(label, "round 2") || held > 0 {
				return
			}
			models, err := test.client.Models(ctx)
			if err != nil {
				t.Error(err)
			}
			held = len(models)
			if test.stop {
				cancel()
			}
		}
		r, err := o.run(ctx, tinySweep)
		cancel()
		if test.stop != errors.Is(err, context.Canceled) || !test.stop && err != nil {
			t.Fatalf("%s: %v", test.endpoint, err)
		}
		if held == 0 {
			t.Errorf("%s: no models while it ran", test.endpoint)
		}
		if left, err := test.client.Models(t.Context()); err != nil || len(left) > 0 {
			t.Errorf("%s: %d models are left, %v", test.endpoint, len(left), err)
		}
		if rounds := r.Rows[0].Rounds; test.stop && rounds != 1 || !test.stop && (rounds != 3 || len(r.Reference.GMACs) != 4) {
			t.Errorf("%s: %d rounds, %v", test.endpoint, rounds, r.Reference)
		}
		if r.Daemon.Endpoint != test.endpoint || r.Daemon.LimitOf != "" || r.Daemon.Backend != "cpu" || len(r.Rows) == 0 {
			t.Errorf("%+v", r.Daemon)
		}
		for _, row := range r.Rows {
			if row.Limit != nil || row.Share != nil || row.DaemonCPU != nil || row.Scheme != transform.DefaultScheme().String() {
				t.Errorf("%+v", row)
			}
		}
	}
}

// TestLiar: a daemon that answers wrongly is not measured.
func TestLiar(t *testing.T) {
	d, _, _ := startDaemon(t, "")
	i := slices.IndexFunc(adversary.Lies(), func(l adversary.Lie) bool { return l.Name == "random words" })
	if i < 0 {
		t.Fatalf("%v", adversary.Lies())
	}
	path := filepath.Join(t.TempDir(), "s")
	proxy, err := adversary.Start("unix:"+path, d.Addr, plan.Plan{Ring: ring.Q4()})
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	proxy.Tell(adversary.Lies()[i], adversary.AnyLayer, adversary.Always)
	o := tinyOptions(t)
	o.Endpoint = "unix:" + path
	r, err := o.run(t.Context(), tinySweep)
	if !errors.Is(err, verify.ErrRejected) || !r.Partial || r.Rejected == 0 || len(r.Rows) > 0 {
		t.Errorf("%v: %+v", err, r)
	}
}

// TestStopped: what was measured before an interruption is a report.
func TestStopped(t *testing.T) {
	for _, test := range []struct {
		at     string
		rows   int // with a round, at least
		charts []string
	}{
		{"sealing", 0, nil},
		{"warming", 0, nil},
		{"round 1: cloud", 4, []string{"throughput-batch", "throughput-latency"}},
		{"round 2: cloud", 8, []string{"throughput-batch", "throughput-latency", "gmacs-width", "host-cpu-width"}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		o := tinyOptions(t)
		o.Progress = func(label string, _, _ int) {
			if strings.HasPrefix(label, test.at) {
				cancel()
			}
		}
		r, err := o.run(ctx, tinySweep)
		cancel()
		if !errors.Is(err, context.Canceled) || !r.Partial || r.Stopped == "" || len(r.Rows) < test.rows || test.rows == 0 && len(r.Rows) > 0 {
			t.Fatalf("%s: %v, %+v", test.at, err, r)
		}
		for _, row := range r.Rows {
			if row.Rounds < 1 || row.Rounds > 2 || row.Images == nil {
				t.Errorf("%s: %+v", test.at, row)
			}
		}
		dir := t.TempDir()
		if err := r.Write(dir); err != nil {
			t.Fatalf("%s: %v", test.at, err)
		}
		checkReport(t, dir, r, test.charts)
	}
}

// TestFails: a daemon that cannot be had is an error, and a report of nothing.
func TestFails(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no program":  func(o *Options) { o.Daemon = "/no/such/program" },
		"no endpoint": func(o *Options) { o.Endpoint = "unix:/no/such/socket" },
		"no backend":  func(o *Options) { o.Backend = "cuda" },
	} {
		o := tinyOptions(t)
		change(&o)
		r, err := o.run(t.Context(), tinySweep)
		if err == nil || !r.Partial || r.Stopped != err.Error() || len(r.Rows) > 0 {
			t.Errorf("%s: %v, %+v", name, err, r)
		}
		if err := r.Write(t.TempDir()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSharedMixed: where shared memory has room in pieces that are too small, words go by
// messages.
func TestSharedMixed(t *testing.T) {
	d, _, _ := startDaemon(t, "")
	m := traffic.Model(7, traffic.MNIST...)
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := wire.Dial(d.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	digest := sealed.Sum(b)
	if err := traffic.Upload(t.Context(), conn, digest, b); err != nil {
		t.Fatal(err)
	}
	var targets []traffic.Target
	for layer, op := range m.Plan.Ops {
		targets = append(targets, traffic.Target{Digest: digest, Layer: layer, Op: op, X: traffic.Rows(op, 32)})
	}
	callers := []traffic.Caller{{Targets: targets, Depth: 2, By: traffic.Shared}, {Targets: targets, Depth: 7, By: traffic.Shared}}
	answers, err := traffic.Unix(d.Addr).Drive(t.Context(), callers, time.Now().Add(time.Second))
	if err != nil || len(answers) < 3*len(targets) {
		t.Errorf("%d answers, %v", len(answers), err)
	}
}
