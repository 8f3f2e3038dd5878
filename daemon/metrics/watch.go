package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/securenets/securenets/kernels"
)

// Sources are what is looked at when the figures are read.
type Sources struct {
	Ready   func() bool // calls are served
	Waiting func() int  // requests for their product to begin
	Models  func() (stored int, bytes int64)
	Loaded  func() Loaded
	Backend kernels.Backend
	// Messages, Parked and Requests are the three parts of max_bytes_in_flight.
	Messages, Parked, Requests Budget
	Shared                     Budget // memory that callers share
}

// Loaded says which models are loaded, with what memory.
type Loaded struct {
	Resident int   // models
	Bytes    int64 // of their weights, and of what loads may take
	Limit    int64 // the most
	Waiting  int   // models that wait for room
}

// Budget is memory that is set aside, in bytes.
type Budget interface {
	Used() int64
	Limit() int64
}

// Watch adds the figures of sources, once.
func (m *Metrics) Watch(s Sources) { m.registry.MustRegister(watcher{s}) }

type watcher struct{ Sources }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	ready    = describe("securenets_ready", "1 while calls are served: from the end of the self-test and the load of the stored models to the begin of the drain.")
	waiting  = describe("securenets_queue_depth", "Requests that wait for their product to begin.")
	stored   = describe("securenets_models", "Models that are stored.")
	files    = describe("securenets_models_bytes", "Bytes of their files.")
	models   = describe("securenets_models_resident", "Models that are loaded.")
	unloaded = describe("securenets_models_waiting", "Models that requests wait for and for which there is no room yet.")
	taken    = describe("securenets_resident_bytes", "Bytes of loaded weights, and those that loads under way may take.")
	limit    = describe("securenets_resident_limit_bytes", "The most of these.")
	inFlight = describe("securenets_in_flight_bytes", "Bytes set aside for messages, and for requests, that are in work.", "part")
	most     = describe("securenets_in_flight_limit_bytes", "The most of these.", "part")
	shared   = describe("securenets_shared_memory_bytes", "Bytes of memory that callers share with the daemon.")
	mostOf   = describe("securenets_shared_memory_limit_bytes", "The most of these.")

	backend  = describe("securenets_backend_info", "1; the label has the backend's name.", "backend")
	loaded   = describe("securenets_backend_matrices", "Weight matrices that the backend has loaded.")
	resident = describe("securenets_backend_weights_bytes", "Bytes that it holds of them.")
	products = describe("securenets_backend_products_total", "Products that it has computed, self-test included.")
	samples  = describe("securenets_backend_samples_total", "Samples in these.")
	mulAdds  = describe("securenets_backend_multiply_adds_total", "Multiply-adds over Z_M in these, padding counted.")
	busy     = describe("securenets_backend_compute_seconds_total", "Time of these, the sum of those at a time.")

	utilisation = describe("nv_gpu_utilization", "Part of the time in which the device was busy, of 1, whoever used it.", "gpu_uuid")
	memory      = describe("nv_gpu_memory_total_bytes", "Bytes of the device's memory.", "gpu_uuid")
	used        = describe("nv_gpu_memory_used_bytes", "Bytes of it that are in use, whoever uses them.", "gpu_uuid")
	power       = describe("nv_gpu_power_usage", "Watts.", "gpu_uuid")

	devReady   = describe("securenets_device_ready", "1 where the device takes work, 0 where it was refused or is lost.", "device", "gpu_uuid")
	devBudget  = describe("securenets_device_budget_bytes", "Bytes of its memory that the daemon may hold.", "device", "gpu_uuid")
	devWeights = describe("securenets_device_weights_bytes", "Bytes that it holds of weights.", "device", "gpu_uuid")
	devWork    = describe("securenets_device_work_bytes", "Bytes that it holds for work.", "device", "gpu_uuid")
	devEvicted = describe("securenets_device_evictions_total", "Times that weights made room for others.", "device", "gpu_uuid")
	celsius    = describe("securenets_device_temperature_celsius", "Temperature.", "device", "gpu_uuid")
)

// Describe implements prometheus.Collector.
func (w watcher) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		ready, waiting, stored, files, models, unloaded, taken, limit, inFlight, most, shared, mostOf, backend, loaded, resident, products, samples, mulAdds, busy,
		utilisation, memory, used, power, devReady, devBudget, devWeights, devWork, devEvicted, celsius,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (w watcher) Collect(to chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		m, err := prometheus.NewConstMetric(d, t, v, labels...)
		if err != nil { // a name of a device that is no text
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
	seen := map[string]bool{"": true} // figures without an ID would not say whose they are
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
