package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/securenets/securenets/kernels"
)

// Sources provide the metrics that are read on each scrape.
type Sources struct {
	Ready   func() bool // whether calls are served
	Waiting func() int  // requests whose product has yet to begin
	Models  func() (stored int, bytes int64)
	Loaded  func() Loaded
	Backend kernels.Backend
	// Messages, Parked and Requests are the three parts of max_bytes_in_flight.
	Messages, Parked, Requests Budget
	Shared                     Budget // memory shared with callers
	// Expires returns when the daemon's certificate expires; nil: it has none.
	Expires func() time.Time
}

// Loaded is the number of loaded models and their memory.
type Loaded struct {
	Resident int   // models loaded
	Bytes    int64 // of their weights, and the most that loads in progress may take
	Limit    int64 // on Bytes
	Waiting  int   // models that wait for room
}

// Budget is memory that is reserved, in bytes.
type Budget interface {
	Used() int64
	Limit() int64
}

// Watch adds the metrics of s. It may be called only once.
func (m *Metrics) Watch(s Sources) { m.registry.MustRegister(watcher{s}) }

type watcher struct{ Sources }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	ready    = describe("securenets_ready", "1 while calls are served: from when the self-test has passed and the pinned models are loaded until the drain begins.")
	waiting  = describe("securenets_queue_depth", "Requests waiting for their product to begin.")
	stored   = describe("securenets_models", "Models stored.")
	files    = describe("securenets_models_bytes", "Bytes of the files of stored models.")
	models   = describe("securenets_models_resident", "Models loaded.")
	unloaded = describe("securenets_models_waiting", "Models that requests wait for and that have no room yet.")
	taken    = describe("securenets_resident_bytes", "Bytes of loaded weights, and the most that loads in progress may take.")
	limit    = describe("securenets_resident_limit_bytes", "Limit on securenets_resident_bytes.")
	inFlight = describe("securenets_in_flight_bytes", "Bytes reserved in flight, by part: messages, messages parked until their model is loaded, requests.", "part")
	most     = describe("securenets_in_flight_limit_bytes", "Limit on securenets_in_flight_bytes, by part.", "part")
	shared   = describe("securenets_shared_memory_bytes", "Bytes of memory that callers share with the daemon.")
	mostOf   = describe("securenets_shared_memory_limit_bytes", "Limit on securenets_shared_memory_bytes.")
	expires  = describe("securenets_tls_certificate_expiry_timestamp_seconds", "When the daemon's TLS certificate expires, in seconds since 1970.")

	backend  = describe("securenets_backend_info", "Always 1; the label is the backend's name.", "backend")
	loaded   = describe("securenets_backend_matrices", "Weight matrices loaded by the backend.")
	resident = describe("securenets_backend_weights_bytes", "Bytes that the backend holds of weight matrices.")
	products = describe("securenets_backend_products_total", "Products computed by the backend, self-test included.")
	samples  = describe("securenets_backend_samples_total", "Samples in the backend's products.")
	mulAdds  = describe("securenets_backend_multiply_adds_total", "Multiply-adds over Z_M in the backend's products, padding counted.")
	busy     = describe("securenets_backend_compute_seconds_total", "Time spent in the backend's products; products that run at the same time each count.")

	utilisation = describe("nv_gpu_utilization", "Fraction of the time that the device was busy, 0 to 1, whoever used it.", "gpu_uuid")
	memory      = describe("nv_gpu_memory_total_bytes", "Bytes of the device's memory.", "gpu_uuid")
	used        = describe("nv_gpu_memory_used_bytes", "Bytes of the device's memory in use, whoever uses them.", "gpu_uuid")
	power       = describe("nv_gpu_power_usage", "Watts.", "gpu_uuid")

	devReady   = describe("securenets_device_ready", "1 if the device takes work, 0 if it was refused or is lost.", "device", "gpu_uuid")
	devBudget  = describe("securenets_device_budget_bytes", "Bytes of the device's memory that the daemon may hold.", "device", "gpu_uuid")
	devWeights = describe("securenets_device_weights_bytes", "Bytes of the device's memory held for weights.", "device", "gpu_uuid")
	devWork    = describe("securenets_device_work_bytes", "Bytes of the device's memory held for work.", "device", "gpu_uuid")
	devEvicted = describe("securenets_device_evictions_total", "Evictions of weights to make room for others.", "device", "gpu_uuid")
	celsius    = describe("securenets_device_temperature_celsius", "Temperature.", "device", "gpu_uuid")
)

// Describe implements prometheus.Collector.
func (w watcher) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		ready, waiting, stored, files, models, unloaded, taken, limit, inFlight, most, shared, mostOf, expires, backend, loaded, resident, products, samples, mulAdds, busy,
		utilisation, memory, used, power, devReady, devBudget, devWeights, devWork, devEvicted, celsius,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (w watcher) Collect(to chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		m, err := prometheus.NewConstMetric(d, t, v, labels...)
		if err != nil { // a device name that is not valid UTF-8
			m = prometheus.NewInvalidMetric(d, err)
		}
		to <- m
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { send(d, prometheus.GaugeValue, v, labels...) }
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		send(d, prometheus.CounterValue, float64(v), labels...)
	}

	gauge(ready, flag(w.Ready()))
	gauge(waiting, float64(w.Waiting()))
	n, bytes := w.Models()
	gauge(stored, float64(n))
	gauge(files, float64(bytes))
	held := w.Loaded()
	gauge(models, float64(held.Resident))
	gauge(unloaded, float64(held.Waiting))
	gauge(taken, float64(held.Bytes))
	gauge(limit, float64(held.Limit))
	for part, b := range map[string]Budget{"messages": w.Messages, "parked": w.Parked, "requests": w.Requests} {
		gauge(inFlight, float64(b.Used()), part)
		gauge(most, float64(b.Limit()), part)
	}
	gauge(shared, float64(w.Shared.Used()))
	gauge(mostOf, float64(w.Shared.Limit()))
	if w.Expires != nil {
		gauge(expires, float64(w.Expires().Unix()))
	}

	s := w.Backend.Stats()
	gauge(backend, 1, w.Backend.Name())
	gauge(loaded, float64(s.Loaded))
	gauge(resident, float64(s.Bytes))
	counter(products, s.Calls)
	counter(samples, s.Samples)
	counter(mulAdds, s.MulAdds)
	send(busy, prometheus.CounterValue, float64(s.ComputeNS)/1e9)

	r, ok := w.Backend.(kernels.Reporter)
	if !ok {
		return
	}
	seen := map[string]bool{"": true} // a device without an ID has no metrics by gpu_uuid
	for _, d := range r.Report() {
		labels := []string{d.Name, d.ID}
		gauge(devReady, flag(d.Ready), labels...)
		gauge(devBudget, float64(d.Budget), labels...)
		gauge(devWeights, float64(d.Weights), labels...)
		gauge(devWork, float64(d.Work), labels...)
		counter(devEvicted, d.Evicted, labels...)
		if seen[d.ID] {
			continue
		}
		seen[d.ID] = true
		gauge(memory, float64(d.Memory), d.ID)
		if u := d.Usage; u != nil {
			gauge(utilisation, u.Utilisation, d.ID)
			gauge(used, float64(u.UsedBytes), d.ID)
			gauge(power, u.PowerWatts, d.ID)
			gauge(celsius, u.Celsius, labels...)
		}
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
