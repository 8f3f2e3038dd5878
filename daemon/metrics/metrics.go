// Package metrics counts what the daemon does, for Prometheus. docs/operations.md
// describes every metric.
//
// Metrics whose names begin with nv_ have the names, meanings and units of Triton Inference
// Server, so that Triton's tools can read them. All others are the daemon's own.
//
// Label values are bounded: digests by the stored models, all others by lists in the program
// or by the hardware. Nothing that a caller chooses becomes a label, except the digest of a
// stored model. No label identifies a caller.
package metrics

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/version"
	"github.com/securenets/securenets/internal/wire"
)

// Reasons of refusals besides the protocol's own.
const (
	Cancelled wire.Reason = "CANCELLED" // the caller left before it was answered
	Protocol  wire.Reason = "PROTOCOL"  // invalid or too large messages
	Stalled   wire.Reason = "STALLED"   // a connection whose caller stopped reading or sending for too long
	Stranger  wire.Reason = "STRANGER"  // a connection of someone who may not connect
)

// reasons are all values of the label "reason"; any other counts as INTERNAL.
var reasons = append([]wire.Reason{Cancelled, Protocol, Stalled, Stranger}, wire.Reasons...)

// Triton's reasons for failed requests.
const (
	tritonRejected  = "REJECTED"
	tritonCancelled = "CANCELED"
	tritonBackend   = "BACKEND"
	tritonOther     = "OTHER"
)

// Lane is where the words of a request and its answer travel.
type Lane int

const (
	Frames Lane = iota // all in messages
	Shared             // some in shared memory
)

func (l Lane) String() string { return [...]string{"frames", "shared"}[l] }

// carried are the counters of a lane.
type carried struct{ requests, received, sent, copied prometheus.Counter }

// Metrics holds the metrics of one daemon. Methods may be called by several goroutines at
// once.
type Metrics struct {
	registry *prometheus.Registry

	calls          *prometheus.CounterVec
	inProgress     prometheus.Gauge
	refusals       map[wire.Reason]prometheus.Counter
	uploads        prometheus.Counter
	loading        prometheus.Histogram
	loadsFailed    prometheus.Counter
	evictions      prometheus.Counter
	received, sent prometheus.Counter
	receiving      prometheus.Observer
	sending        prometheus.Observer
	batch          prometheus.Histogram
	lanes          [2]carried
	offers         map[lane.Verdict]prometheus.Counter

	// By model.
	success, failure, rows, products           *prometheus.CounterVec
	requestUS, queueUS, inputUS, inferUS       *prometheus.CounterVec
	requestSeconds, queueSeconds, inferSeconds *prometheus.HistogramVec

	mu     sync.Mutex
	models map[sealed.Digest]*Model
}

// native returns the options of a native histogram: each bucket is at most a tenth wider
// than the one before, and there are at most 160.
func native(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help,
		NativeHistogramBucketFactor:    1.1,
		NativeHistogramMaxBucketNumber: 160,
		// When there would be more buckets, they are reset, but at most this often, or widened.
		NativeHistogramMinResetDuration: time.Hour,
	}
}

// New returns metrics that are all 0.
func New() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), models: map[sealed.Digest]*Model{}}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		m.registry.MustRegister(c)
		return c
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	histograms := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(native(name, help), labels)
		m.registry.MustRegister(h)
		return h
	}

	m.success = counters("nv_inference_request_success", "Requests answered with their product.", "model")
	m.failure = counters("nv_inference_request_failure", "Requests for a stored model that were not answered with a product, by reason.", "model", "reason")
	m.rows = counters("nv_inference_count", "Samples in answered requests.", "model")
	m.products = counters("nv_inference_exec_count", "Products computed; one has the samples of one request or of several.", "model")
	m.requestUS = counters("nv_inference_request_duration_us", "Microseconds from the last byte of a request to the last byte of its answer, for answered requests.", "model")
	m.queueUS = counters("nv_inference_queue_duration_us", "Microseconds of the request duration spent waiting for the model to be loaded, for memory, and in the queue.", "model")
	m.inputUS = counters("nv_inference_compute_input_duration_us", "Microseconds of the request duration spent decoding words or expanding a seed.", "model")
	m.inferUS = counters("nv_inference_compute_infer_duration_us", "Microseconds of the request duration spent computing the product that the request was part of.", "model")

	m.requestSeconds = histograms("securenets_request_duration_seconds", "Time from the last byte of a request to the last byte of its answer, for answered requests.", "model")
	m.queueSeconds = histograms("securenets_queue_duration_seconds", "Part of the request duration spent waiting for the model to be loaded, for memory, and in the queue.", "model")
	m.inferSeconds = histograms("securenets_compute_duration_seconds", "Part of the request duration spent computing the product that the request was part of.", "model")
	transfer := histograms("securenets_transfer_duration_seconds", "Time to receive a message, once it had begun, or to send an answer, once it was computed.", "direction")
	m.receiving, m.sending = transfer.WithLabelValues("received"), transfer.WithLabelValues("sent")
	m.batch = prometheus.NewHistogram(native("securenets_batch_rows", "Samples in a product."))
	m.registry.MustRegister(m.batch)

	m.calls = counters("securenets_calls_total", "Calls that ended, by method and by gRPC code.", "method", "code")
	m.inProgress = prometheus.NewGauge(prometheus.GaugeOpts{Name: "securenets_calls", Help: "Calls in progress, idle streams included."})
	m.registry.MustRegister(m.inProgress)
	refusals := counters("securenets_refusals_total", "Calls, requests and connections that were refused or failed, by reason.", "reason")
	m.refusals = map[wire.Reason]prometheus.Counter{}
	for _, r := range reasons {
		m.refusals[r] = refusals.WithLabelValues(string(r))
	}
	m.uploads = counter("securenets_uploads_total", "Models made visible by an upload.")
	m.loading = prometheus.NewHistogram(native("securenets_model_load_duration_seconds", "Time to load a model once there was room for it, for successful loads."))
	m.registry.MustRegister(m.loading)
	m.loadsFailed = counter("securenets_model_load_failures_total", "Loads of models that failed.")
	m.evictions = counter("securenets_model_evictions_total", "Evictions of models to make room for others.")
	m.received = counter("securenets_received_bytes_total", "Bytes of request and upload messages.")
	m.sent = counter("securenets_sent_bytes_total", "Bytes of words in answers.")
	requests := counters("securenets_lane_requests_total", "Requests answered with their product, by where their words were: all in messages, or some in shared memory.", "lane")
	payload := counters("securenets_lane_payload_bytes_total", "Bytes of the words of answered requests, received and sent.", "lane", "direction")
	copied := counters("securenets_lane_copied_bytes_total", "Bytes of words that the daemon copied for answered requests, between message or shared memory and product.", "lane")
	for _, l := range []Lane{Frames, Shared} {
		name := l.String()
		m.lanes[l] = carried{requests.WithLabelValues(name), payload.WithLabelValues(name, "received"), payload.WithLabelValues(name, "sent"), copied.WithLabelValues(name)}
	}
	offers := counters("securenets_shared_memory_offers_total", "Memory regions that callers offered to share, by the daemon's reply.", "verdict")
	m.offers = map[lane.Verdict]prometheus.Counter{}
	for _, v := range lane.Verdicts() {
		m.offers[v] = offers.WithLabelValues(v.String())
	}

	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "securenets_build_info", Help: "Always 1; the label is the version.",
		ConstLabels: prometheus.Labels{"version": version.Version}})
	build.Set(1)
	m.registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the metrics. It is for whoever runs the daemon, not for callers.
func (m *Metrics) Handler(log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4,
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelError),
		ErrorHandling:       promhttp.ContinueOnError,
		// For promhttp's metrics of itself.
		Registry: m.registry,
	})
}

// CallBegan counts a call in progress until CallEnded.
func (m *Metrics) CallBegan() { m.inProgress.Inc() }

// CallEnded ends what CallBegan counted.
func (m *Metrics) CallEnded() { m.inProgress.Dec() }

// Called counts a finished call. method must be one that the daemon implements.
func (m *Metrics) Called(method, code string) { m.calls.WithLabelValues(method, code).Inc() }

// Refused counts a call, request or connection that was refused.
func (m *Metrics) Refused(why wire.Reason) {
	c, ok := m.refusals[why]
	if !ok {
		c = m.refusals[wire.ReasonInternal]
	}
	c.Inc()
}

// Uploaded counts a completed upload of a model.
func (m *Metrics) Uploaded() { m.uploads.Inc() }

// Loaded counts a successful load of a model, and its duration.
func (m *Metrics) Loaded(took time.Duration) { m.loading.Observe(took.Seconds()) }

// LoadFailed counts a load that failed.
func (m *Metrics) LoadFailed() { m.loadsFailed.Inc() }

// Evicted counts an eviction of a model.
func (m *Metrics) Evicted() { m.evictions.Inc() }

// Received counts a message by its size in bytes and the time that it took to receive.
func (m *Metrics) Received(bytes int, took time.Duration) {
	m.received.Add(float64(bytes))
	m.receiving.Observe(took.Seconds())
}

// Sent counts an answer by its bytes of words and the time that it took to send.
func (m *Metrics) Sent(bytes int, took time.Duration) {
	m.sent.Add(float64(bytes))
	m.sending.Observe(took.Seconds())
}

// Carried counts an answered request in its lane: bytes of words received, sent and copied.
func (m *Metrics) Carried(l Lane, received, sent, copied int) {
	c := m.lanes[l]
	c.requests.Inc()
	c.received.Add(float64(received))
	c.sent.Add(float64(sent))
	c.copied.Add(float64(copied))
}

// Offered counts a region that a caller offered.
func (m *Metrics) Offered(v lane.Verdict) { m.offers[v].Inc() }

// Model holds the metrics of one model, however many callers store it.
type Model struct {
	m       *Metrics
	digest  sealed.Digest
	holders int // guarded by m.mu

	success, rows, products            prometheus.Counter
	requestUS, queueUS, inputUS, infUS prometheus.Counter
	requestS, queueS, inferS           prometheus.Observer
	failure                            map[string]prometheus.Counter
}

// Model returns the metrics of a model. The caller must call Drop.
func (m *Metrics) Model(d sealed.Digest) *Model {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.models[d]
	if !ok {
		name := d.String()
		f = &Model{
			m: m, digest: d,
			success: m.success.WithLabelValues(name), rows: m.rows.WithLabelValues(name), products: m.products.WithLabelValues(name),
			requestUS: m.requestUS.WithLabelValues(name), queueUS: m.queueUS.WithLabelValues(name),
			inputUS: m.inputUS.WithLabelValues(name), infUS: m.inferUS.WithLabelValues(name),
			requestS: m.requestSeconds.WithLabelValues(name), queueS: m.queueSeconds.WithLabelValues(name), inferS: m.inferSeconds.WithLabelValues(name),
			failure: map[string]prometheus.Counter{},
		}
		for _, r := range []string{tritonRejected, tritonCancelled, tritonBackend, tritonOther} {
			f.failure[r] = m.failure.WithLabelValues(name, r)
		}
		m.models[d] = f
	}
	f.holders++
	return f
}

// Drop ends one holder's use of the metrics; the last holder's Drop removes them. Requests in
// flight may still count after that, but are not shown.
func (f *Model) Drop() {
	m := f.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if f.holders--; f.holders > 0 {
		return
	}
	delete(m.models, f.digest)
	only := prometheus.Labels{"model": f.digest.String()}
	for _, v := range []interface{ DeletePartialMatch(prometheus.Labels) int }{
		m.success, m.failure, m.rows, m.products, m.requestUS, m.queueUS, m.inputUS, m.inferUS, m.requestSeconds, m.queueSeconds, m.inferSeconds,
	} {
		v.DeletePartialMatch(only)
	}
}

// Request holds the size and times of an answered request.
type Request struct {
	Rows int
	// Total is from the request's last byte to its answer's last byte; the others are parts
	// of it.
	Total, Input, Queue, Compute time.Duration
}

// Computed counts a product and its rows, whatever becomes of its answers.
func (f *Model) Computed(rows int) {
	f.products.Inc()
	f.m.batch.Observe(float64(rows))
}

// Answered counts a request that was answered with its product.
func (f *Model) Answered(r Request) {
	f.success.Inc()
	f.rows.Add(float64(r.Rows))
	for _, of := range []struct {
		us      prometheus.Counter
		seconds prometheus.Observer
		took    time.Duration
	}{{f.requestUS, f.requestS, r.Total}, {f.queueUS, f.queueS, r.Queue}, {f.infUS, f.inferS, r.Compute}} {
		of.us.Add(microseconds(of.took))
		of.seconds.Observe(of.took.Seconds())
	}
	f.inputUS.Add(microseconds(r.Input))
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// Failed counts a request that was not answered with its product.
func (f *Model) Failed(why wire.Reason) {
	reason := tritonOther
	switch why {
	case wire.ReasonOverloaded:
		reason = tritonRejected
	case Cancelled:
		reason = tritonCancelled
	case wire.ReasonInternal:
		reason = tritonBackend
	}
	f.failure[reason].Inc()
}
