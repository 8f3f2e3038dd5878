package main

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"

	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/kernels/cuda"
	"github.com/securenets/securenets/kernels/gonum"
)

// openBackend opens what a configuration names. Its error wraps cuda.ErrUnavailable
// where CUDA devices are asked for and there are none.
func openBackend(cfg config.Config, log *slog.Logger) (kernels.Backend, error) {
	if cfg.Backend == config.BackendGonum {
		if cfg.Threads > 0 {
			runtime.GOMAXPROCS(cfg.Threads) // gonum takes all that there are
		}
		return gonum.New(), nil
	}
	processor := cpu.New(cpu.Options{Threads: cfg.Threads})
	if cfg.Backend == config.BackendCPU {
		return processor, nil
	}
	o := cudaOptions(cfg.CUDA, log)
	o.Fallback = processor
	devices, err := cuda.Open(o)
	if err == nil {
		for _, d := range devices.Devices() {
			log.Info("device", "ordinal", d.Ordinal, "name", d.Name, "state", d.State, "path", d.Path, "budget_bytes", d.Budget, "reason", d.Reason)
		}
		return withProcessor{devices, processor, cfg.CUDA.Streams}, nil
	}
	if cfg.Backend == config.BackendAuto && errors.Is(err, cuda.ErrUnavailable) {
		log.Info("no CUDA device: the processor multiplies", "reason", err)
		return processor, nil
	}
	return nil, errors.Join(err, processor.Close())
}

func cudaOptions(c config.CUDA, log *slog.Logger) cuda.Options {
	o := cuda.Options{Memory: c.MemoryBytes, Pinned: c.PinnedBytes, Streams: c.Streams, Path: c.Path, Log: log}
	if len(c.Devices) > 0 {
		o.Devices = c.Devices
	}
	return o
}

// withProcessor closes what takes over the devices' work, too.
type withProcessor struct {
	*cuda.Backend
	processor kernels.Backend
	streams   int // of each device
}

// Parallel implements kernels.Concurrent.
func (b withProcessor) Parallel() int {
	n := 0
	for _, d := range b.Devices() {
		if d.State == cuda.Ready {
			n += b.streams
		}
	}
	return max(1, n)
}

// Report implements kernels.Reporter.
func (b withProcessor) Report() []kernels.Device { return report(b.Devices()) }

func report(list []cuda.Device) []kernels.Device {
	devices := make([]kernels.Device, len(list))
	for i, d := range list {
		devices[i] = kernels.Device{
			Name: fmt.Sprintf("cuda%d", d.Ordinal), ID: d.UUID, Ready: d.State == cuda.Ready,
			Budget: d.Budget, Weights: d.Weights, Work: d.Work, Evicted: d.Evicted, Memory: d.Memory,
		}
		if f := d.Figures; f != nil {
			devices[i].Usage = &kernels.Usage{
				Utilisation: float64(f.Utilisation) / 100, UsedBytes: f.UsedBytes, PowerWatts: f.PowerWatts, Celsius: float64(f.Celsius),
			}
		}
	}
	return devices
}

func (b withProcessor) Close() error {
	if err := b.Backend.Close(); err != nil {
		return err
	}
	return b.processor.Close()
}
