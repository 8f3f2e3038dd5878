//go:build gpu && cgo && linux && amd64

package cuda

import "github.com/NVIDIA/go-nvml/pkg/nvml"

// figures fills in NVML's readings of the devices, if NVML is available.
func figures(list []Device) {
	if nvml.Init() != nvml.SUCCESS {
		return
	}
	defer nvml.Shutdown()
	driver, _ := nvml.SystemGetDriverVersion()
	for i := range list {
		h, ret := nvml.DeviceGetHandleByUUID(list[i].UUID)
		if ret != nvml.SUCCESS {
			continue
		}
		f := &Figures{Driver: driver}
		if u, ret := h.GetUtilizationRates(); ret == nvml.SUCCESS {
			f.Utilisation = int(u.Gpu)
		}
		if m, ret := h.GetMemoryInfo(); ret == nvml.SUCCESS {
			f.UsedBytes = int64(m.Used)
		}
		if p, ret := h.GetPowerUsage(); ret == nvml.SUCCESS {
			f.PowerWatts = float64(p) / 1000
		}
		if t, ret := h.GetTemperature(nvml.TEMPERATURE_GPU); ret == nvml.SUCCESS {
			f.Celsius = int(t)
		}
		list[i].Figures = f
	}
}
