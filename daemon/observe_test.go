package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	prom "github.com/prometheus/common/model"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// withMetrics makes the daemon serve its metrics on a unix socket beside its own.
func withMetrics(c *config.Config) { c.Metrics.Listen = c.Listen + "m" }

// read gets the metrics in a format.
func (d *running) read(accept string) (*http.Response, []byte) {
	d.t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			network, address, err := d.cfg.Metrics.Address()
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	req, err := http.NewRequestWithContext(d.ctx(), http.MethodGet, "http://localhost/metrics", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := client.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		d.t.Fatalf("%s: %s: %v", resp.Status, b, err)
	}
	return resp, b
}

type figures map[string]*dto.MetricFamily

// scrape reads the metrics as Prometheus does, with native histograms.
func (d *running) scrape() figures {
	d.t.Helper()
	resp, b := d.read(string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
	format := expfmt.ResponseFormat(resp.Header)
	if format.FormatType() != expfmt.TypeProtoDelim {
		d.t.Fatalf("format %q", format)
	}
	all := figures{}
	for dec := expfmt.NewDecoder(strings.NewReader(string(b)), format); ; {
		var f dto.MetricFamily
		if err := dec.Decode(&f); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			d.t.Fatal(err)
		}
		all[f.GetName()] = &f
	}
}

// series returns the names and labels of all metrics except the runtime's.
func (f figures) series() []string {
	var all []string
	for name, family := range f {
		for _, m := range family.Metric {
			if own(name) {
				all = append(all, fmt.Sprint(name, m.Label))
			}
		}
	}
	slices.Sort(all)
	return all
}

func own(name string) bool {
	return strings.HasPrefix(name, "nv_") || strings.HasPrefix(name, "securenets_")
}

// find returns the metric that has these labels, pairs of a name and a value.
func (f figures) find(name string, labels ...string) *dto.Metric {
	for _, m := range f[name].GetMetric() {
		has := map[string]string{}
		for _, l := range m.Label {
			has[l.GetName()] = l.GetValue()
		}
		match := len(has) == len(labels)/2
		for i := 0; i < len(labels); i += 2 {
			match = match && has[labels[i]] == labels[i+1]
		}
		if match {
			return m
		}
	}
	return nil
}

// value returns the value of a counter or gauge, NaN if there is none.
func (f figures) value(name string, labels ...string) float64 {
	switch m := f.find(name, labels...); {
	case m == nil:
		return math.NaN()
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	}
	return math.NaN()
}

// reporting is a backend with devices.
type reporting struct {
	*hooked
	mu   sync.Mutex
	list []kernels.Device
}

func newReporting() *reporting {
	return &reporting{hooked: newHooked(), list: []kernels.Device{
		{Name: "cuda0", ID: "GPU-a", Ready: true, Budget: 1000, Weights: 300, Work: 200, Evicted: 7, Memory: 5000,
			Usage: &kernels.Usage{Utilisation: 0.25, UsedBytes: 600, PowerWatts: 70, Celsius: 40}},
		{Name: "cuda1", ID: "GPU-b"},
		{Name: "cuda2", ID: "GPU-b", Memory: 1},
		{Name: "cuda3"},
	}}
}

func (r *reporting) Report() []kernels.Device {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

// TestDocumented: the daemon has exactly the metrics that docs/operations.md describes, and the
// official linter complains only about Triton's names.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{} // a name to its type and labels
	for _, row := range regexp.MustCompile("(?m)^\\| `((?:nv|securenets)_[a-z_]+)` \\| ([a-z ]+) \\| ([a-z_, `]*?) *\\|").FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = row[2] + " " + strings.ReplaceAll(row[3], "`", "")
	}
	d := startTLS(t, newReporting(), withMetrics)
	m := smallModel(t)
	d.push(m)
	d.works(m)
	got := map[string]string{}
	var all []*dto.MetricFamily
	for name, f := range d.scrape() {
		all = append(all, f)
		if !own(name) {
			continue
		}
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		kind := strings.ToLower(f.GetType().String())
		if f.GetType() == dto.MetricType_HISTOGRAM && f.Metric[0].Histogram.Schema != nil && len(f.Metric[0].Histogram.Bucket) == 0 {
			kind = "native histogram"
		}
		got[name] = strings.TrimSpace(kind + " " + strings.Join(labels, ", "))
	}
	for name, what := range documented {
		documented[name] = strings.TrimSpace(what)
	}
	if !maps.Equal(got, documented) {
		for name := range got {
			if got[name] != documented[name] {
				t.Errorf("%s is %q, documented as %q", name, got[name], documented[name])
			}
		}
		for name := range documented {
			if got[name] == "" {
				t.Errorf("%s is documented and not there", name)
			}
		}
	}
	problems, err := promlint.NewWithMetricFamilies(all).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "nv_") || !strings.Contains(p.Text, "suffix") && !strings.Contains(p.Text, "abbreviated") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}

	// The text format has the same metrics.
	resp, b := d.read("text/plain")
	if f := expfmt.ResponseFormat(resp.Header); f.FormatType() != expfmt.TypeTextPlain {
		t.Errorf("format %q", f)
	}
	parser := expfmt.NewTextParser(prom.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	for name := range got {
		if families[name] == nil {
			t.Errorf("the text has no %s", name)
		}
	}
}

// TestFigures: after a script of calls every metric has the value that follows from it.
func TestFigures(t *testing.T) { eachWay(t, testFigures) }

func testFigures(t *testing.T, by way) {
	b := newReporting()
	d := by.start(t, b, func(c *config.Config) {
		withMetrics(c)
		c.Batching.MaxQueueSize = 3
	})
	selfTest := d.scrape().value("securenets_backend_products_total")
	m := smallModel(t)
	name := m.digest.String()
	d.push(m)

	// One product is blocked; three requests wait and become one product, a fourth is refused.
	begun, resume := b.hold(t, 10)
	e := by.open(d, d.ctx())
	const rows = 2
	e.send(m.request(1, rows, 0))
	<-begun
	for id := range uint64(3) {
		e.send(m.request(1, rows, 1+id))
	}
	for d.scrape().value("securenets_queue_depth") != 3 {
		time.Sleep(time.Millisecond)
	}
	if f := d.scrape(); f.value("securenets_in_flight_bytes", "part", "requests") <= 0 || f.value("securenets_calls") != 1 {
		t.Errorf("%v bytes and %v calls in flight", f.value("securenets_in_flight_bytes", "part", "requests"), f.value("securenets_calls"))
	}
	const held = 20 * time.Millisecond
	time.Sleep(held)
	e.send(m.request(1, rows, 4))
	if r, err := e.receive(); err != nil || r.ID != 4 || r.Err == nil {
		t.Fatalf("answer %v, %v", r, err)
	}
	close(resume)
	for range 4 {
		r, err := e.receive()
		if err != nil {
			t.Fatal(err)
		}
		m.check(t, r, 1, m.input(1, rows, r.ID))
	}

	// A failure of the backend, a bad request, a model that does not exist.
	b.set(func(context.Context) error { return errors.New("broken") })
	e.send(m.request(1, 1, 5))
	if r, err := e.receive(); err != nil || r.Err.GetReason() != string(wire.ReasonInternal) {
		t.Errorf("answer %v, %v", r, err)
	}
	b.set(nil)
	bad := m.request(1, 1, 6)
	bad.Layer = 9
	sent := 6 * len(words(m, 1, rows)) // at least, see below
	e.send(bad)
	missing := m.request(1, 1, 7)
	missing.Model = make([]byte, 32)
	e.send(missing)
	for range 2 {
		if r, err := e.receive(); err != nil || r.Err == nil {
			t.Errorf("answer %v, %v", r, err)
		}
	}
	if err := e.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.receive(); err != io.EOF {
		t.Fatal(err)
	}
	if _, err := d.client().Remove(d.ctx(), &pb.RemoveRequest{Digest: make([]byte, 32)}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}

	d.waitForFigure(0, "securenets_calls") // gRPC ends a call a little later than its caller sees
	f := d.scrape()
	out := float64(m.Plan.Ops[1].OutLen() * m.Plan.Ring.WordBytes())
	for _, want := range []struct {
		value  float64
		name   string
		labels []string
	}{
		{4, "nv_inference_request_success", []string{"model", name}},
		{4 * rows, "nv_inference_count", []string{"model", name}},
		{2, "nv_inference_exec_count", []string{"model", name}},
		{1, "nv_inference_request_failure", []string{"model", name, "reason", "REJECTED"}},
		{1, "nv_inference_request_failure", []string{"model", name, "reason", "BACKEND"}},
		{1, "nv_inference_request_failure", []string{"model", name, "reason", "OTHER"}},
		{0, "nv_inference_request_failure", []string{"model", name, "reason", "CANCELED"}},
		{1, "securenets_refusals_total", []string{"reason", "OVERLOADED"}},
		{1, "securenets_refusals_total", []string{"reason", "INTERNAL"}},
		{1, "securenets_refusals_total", []string{"reason", "LAYER_NOT_FOUND"}},
		{2, "securenets_refusals_total", []string{"reason", "MODEL_NOT_FOUND"}},
		{0, "securenets_refusals_total", []string{"reason", "STRANGER"}},
		{1, "securenets_calls_total", []string{"method", "Upload", "code", "OK"}},
		{1, "securenets_calls_total", []string{"method", "Evaluate", "code", "OK"}},
		{1, "securenets_calls_total", []string{"method", "Remove", "code", "NotFound"}},
		{1, "securenets_uploads_total", nil},
		{4 * rows * out, "securenets_sent_bytes_total", nil},
		{1, "securenets_models", nil},
		{float64(len(m.bytes)), "securenets_models_bytes", nil},
		{1, "securenets_ready", nil},
		{0, "securenets_queue_depth", nil},
		{0, "securenets_calls", nil},
		{0, "securenets_in_flight_bytes", []string{"part", "requests"}},
		{0, "securenets_in_flight_bytes", []string{"part", "messages"}},
		{0, "securenets_in_flight_bytes", []string{"part", "parked"}},
		{float64(d.cfg.Limits.MaxBytesInFlight), "", nil},
		{1, "securenets_backend_info", []string{"backend", "cpu"}},
		{float64(len(m.Plan.Ops)), "securenets_backend_matrices", nil},
		{float64(b.Stats().Bytes), "securenets_backend_weights_bytes", nil},
		{selfTest + 2, "securenets_backend_products_total", nil},
		{float64(b.Stats().Samples), "securenets_backend_samples_total", nil},
		{float64(b.Stats().MulAdds), "securenets_backend_multiply_adds_total", nil},
		{0.25, "nv_gpu_utilization", []string{"gpu_uuid", "GPU-a"}},
		{5000, "nv_gpu_memory_total_bytes", []string{"gpu_uuid", "GPU-a"}},
		{600, "nv_gpu_memory_used_bytes", []string{"gpu_uuid", "GPU-a"}},
		{70, "nv_gpu_power_usage", []string{"gpu_uuid", "GPU-a"}},
		{1, "securenets_device_ready", []string{"device", "cuda0", "gpu_uuid", "GPU-a"}},
		{0, "securenets_device_ready", []string{"device", "cuda3", "gpu_uuid", ""}},
		{1000, "securenets_device_budget_bytes", []string{"device", "cuda0", "gpu_uuid", "GPU-a"}},
		{300, "securenets_device_weights_bytes", []string{"device", "cuda0", "gpu_uuid", "GPU-a"}},
		{200, "securenets_device_work_bytes", []string{"device", "cuda0", "gpu_uuid", "GPU-a"}},
		{7, "securenets_device_evictions_total", []string{"device", "cuda0", "gpu_uuid", "GPU-a"}},
		{40, "securenets_device_temperature_celsius", []string{"device", "cuda0", "gpu_uuid", "GPU-a"}},
	} {
		got := f.value(want.name, want.labels...)
		if want.name == "" { // the parts must add up to the limit
			got = 0
			for _, part := range []string{"messages", "parked", "requests"} {
				got += f.value("securenets_in_flight_limit_bytes", "part", part)
			}
		}
		if got != want.value {
			t.Errorf("%s%v is %v, want %v", want.name, want.labels, got, want.value)
		}
	}
	if got := f.value("securenets_received_bytes_total"); got < float64(len(m.bytes)+sent) {
		t.Errorf("%v bytes received of %d and more", got, len(m.bytes)+sent)
	}

	// Times: the first product, and so the requests in the queue, took longer than held.
	histogram := func(name string, labels ...string) *dto.Histogram {
		h := f.find(name, labels...).GetHistogram()
		if len(h.GetPositiveSpan()) == 0 && h.GetZeroCount() != h.GetSampleCount() {
			t.Errorf("%s is no native histogram", name)
		}
		return h
	}
	var sums [3]float64
	for i, of := range []struct {
		name, triton string
		least        float64
	}{
		{"securenets_request_duration_seconds", "nv_inference_request_duration_us", 4 * held.Seconds()},
		{"securenets_queue_duration_seconds", "nv_inference_queue_duration_us", 3 * held.Seconds()},
		{"securenets_compute_duration_seconds", "nv_inference_compute_infer_duration_us", held.Seconds()},
	} {
		h := histogram(of.name, "model", name)
		sums[i] = h.GetSampleSum()
		us := f.value(of.triton, "model", name)
		if h.GetSampleCount() != 4 || sums[i] < of.least || math.Abs(us-sums[i]*1e6) > 1 {
			t.Errorf("%s: %d in %v s, want 4 in %v s at least; %v us", of.name, h.GetSampleCount(), sums[i], of.least, us)
		}
	}
	if in := f.value("nv_inference_compute_input_duration_us", "model", name); in <= 0 || sums[1]+sums[2]+in/1e6 > sums[0] {
		t.Errorf("parts of %v s: %v s, %v s, %v us", sums[0], sums[1], sums[2], in)
	}
	if h := histogram("securenets_batch_rows"); h.GetSampleCount() != 2 || h.GetSampleSum() != 4*rows {
		t.Errorf("products: %d of %v rows", h.GetSampleCount(), h.GetSampleSum())
	}
	if h := histogram("securenets_transfer_duration_seconds", "direction", "sent"); h.GetSampleCount() != 4 {
		t.Errorf("%d answers sent", h.GetSampleCount())
	}
	if h := histogram("securenets_transfer_duration_seconds", "direction", "received"); h.GetSampleCount() != 8+3 {
		t.Errorf("%d messages received", h.GetSampleCount())
	}

	// A removed model has no metrics.
	if _, err := d.client().Remove(d.ctx(), &pb.RemoveRequest{Digest: m.digest[:]}); err != nil {
		t.Fatal(err)
	}
	for _, s := range d.scrape().series() {
		if strings.Contains(s, name) {
			t.Errorf("%s is still there", s)
		}
	}
}

// TestUnansweredProduct: a product counts once, even if all who asked for it have left.
func TestUnansweredProduct(t *testing.T) {
	h := newHooked()
	d := start(t, h, withMetrics)
	m := smallModel(t)
	name := m.digest.String()
	d.push(m)
	begun, resume := h.hold(t, 1)
	other := byDirect.open(d, d.ctx())
	other.send(m.request(1, 1, 0))
	<-begun
	var cuts []func()
	for id := range uint64(2) {
		e, _, cut := byDirect.openApart(d, d.ctx())
		e.send(m.request(1, 2, 1+id))
		cuts = append(cuts, cut)
	}
	d.waitForQueue(2)
	resume <- struct{}{}
	<-begun // with both, so it goes on without them
	for _, cut := range cuts {
		cut()
	}
	resume <- struct{}{}
	d.waitForFigure(2, "nv_inference_request_failure", "model", name, "reason", "CANCELED")
	d.waitForFigure(1, "nv_inference_request_success", "model", name)
	d.waitForFigure(2, "nv_inference_exec_count", "model", name)
	if h := d.scrape().find("securenets_batch_rows").GetHistogram(); h.GetSampleCount() != 2 || h.GetSampleSum() != 1+2*2 {
		t.Errorf("products: %d of %v rows", h.GetSampleCount(), h.GetSampleSum())
	}
}

// TestBoundedLabels: nothing that callers do adds metrics.
func TestBoundedLabels(t *testing.T) {
	d := start(t, nil, func(c *config.Config) {
		withMetrics(c)
		c.Limits.MaxModels = 2
	})
	kept := smallModel(t)
	d.push(kept)
	hostile := func(from int) []string {
		e := evaluate(t, d.ctx(), d.cc)
		for i := from; i < from+50; i++ {
			// Models and layers that do not exist, and bad seeds.
			r := kept.request(1, 1, uint64(i))
			r.Layer = uint32(i + 2)
			if i%2 == 0 {
				r.Model = fmt.Appendf(nil, "%032d", i)
			}
			e.send(r)
			if r, err := e.receive(); err != nil || r.Err == nil {
				t.Errorf("answer %v, %v", r, err)
			}
			// Methods and services that do not exist.
			var none []byte
			if err := d.cc.Invoke(d.ctx(), fmt.Sprintf("/securenets.v1.SecureNets/Call%d", i), []byte{}, &none, grpc.ForceCodecV2(anyBytes{})); status.Code(err) != codes.Unimplemented {
				t.Error(err)
			}
			if err := d.cc.Invoke(d.ctx(), fmt.Sprintf("/service%d/Call", i), []byte{}, &none, grpc.ForceCodecV2(anyBytes{})); status.Code(err) != codes.Unimplemented {
				t.Error(err)
			}
			_, err := healthpb.NewHealthClient(d.cc).Check(d.ctx(), &healthpb.HealthCheckRequest{Service: fmt.Sprint(i)})
			if status.Code(err) != codes.NotFound {
				t.Error(err)
			}
			// Models that come and go, one in use while it goes.
			m := newModel(t, ring.Q4(), plan.Dense(3, i+1))
			d.push(m)
			d.works(m)
			if _, err := d.client().Remove(d.ctx(), &pb.RemoveRequest{Digest: m.digest[:]}); err != nil {
				t.Error(err)
			}
		}
		if err := e.stream.CloseSend(); err != nil {
			t.Error(err)
		}
		if _, err := e.receive(); err != io.EOF {
			t.Error(err)
		}
		return d.scrape().series()
	}
	first, second := hostile(0), hostile(1000)
	if !slices.Equal(first, second) {
		t.Errorf("%d series became %d:\n%s", len(first), len(second), strings.Join(second, "\n"))
	}
	own := fmt.Sprint(os.Geteuid())
	for _, s := range second {
		for _, secret := range []string{"uid", "pid", `value:"` + own + `"`, d.cfg.StateDir} {
			if strings.Contains(s, secret) {
				t.Errorf("%s says %q", s, secret)
			}
		}
	}
}

// TestMetricsListener: the metrics are served at their own address, and nothing else is.
func TestMetricsListener(t *testing.T) {
	d := start(t, nil, func(c *config.Config) { c.Metrics.Listen = "tcp:127.0.0.1:0" })
	found := regexp.MustCompile(`msg=metrics network=tcp address=(\S+)`).FindStringSubmatch(d.log.String())
	if found == nil {
		t.Fatal("the log does not say where")
	}
	d.cfg.Metrics.Listen = "tcp:" + found[1]
	if v := d.scrape().value("securenets_ready"); v != 1 {
		t.Errorf("ready: %v", v)
	}
	for _, path := range []string{"/", "/metrics/x", "/debug/pprof/"} {
		resp, err := http.Get("http://" + found[1] + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	cfg := d.cfg
	cfg.Listen = "unix:" + filepath.Join(t.TempDir(), "s")
	cfg.StateDir = t.TempDir()
	if err := daemon.Run(t.Context(), cfg, slog.New(slog.DiscardHandler), d.backend); err == nil || !strings.Contains(err.Error(), "metrics") {
		t.Errorf("another daemon has the address: %v", err)
	}
	d.works(func() *testModel { m := smallModel(t); d.push(m); return m }())
}

// TestMetricsSocket: only the daemon's user may connect.
func TestMetricsSocket(t *testing.T) {
	d := start(t, nil, withMetrics)
	path := strings.TrimPrefix(d.cfg.Metrics.Listen, "unix:")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	d.wait()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end: %v", err)
	}
}

// TestHealth: the daemon, its service and each device have a health status.
func TestHealth(t *testing.T) {
	t.Cleanup(daemon.SetDevicePeriod(time.Millisecond))
	b := newReporting()
	d := start(t, b, nil)
	of := func(service string) healthpb.HealthCheckResponse_ServingStatus {
		resp, err := healthpb.NewHealthClient(d.cc).Check(d.ctx(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Error(service, err)
		}
		return resp.GetStatus()
	}
	const serving, not = healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING
	for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"": serving, "securenets.v1.SecureNets": serving, "device/cuda0": serving, "device/cuda1": not,
	} {
		if got := of(service); got != want {
			t.Errorf("%q is %v, want %v", service, got, want)
		}
	}
	b.mu.Lock()
	b.list[0].Ready = false
	b.mu.Unlock()
	for ctx := d.ctx(); of("device/cuda0") != not; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatal("a lost device is healthy")
		}
	}
	if of("") != serving {
		t.Error("the daemon is not healthy, though it goes on")
	}
}
