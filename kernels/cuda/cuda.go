// Package cuda is the backend that multiplies on CUDA devices, through cuBLAS and kernels
// of its own. It exists in builds with tag gpu and cgo on linux/amd64; elsewhere Open
// reports ErrUnavailable. The driver and cuBLAS are opened at run time, so the program also
// starts without them; Open's error then says what is missing.
//
// # Products
//
// A device holds the weights as residues: for each prime an image, which is a matrix of
// centred bytes. For a batch it splits positions of x (rows, or patches of a convolution's
// maps) in the same way, multiplies image by image, exactly in int32, and combines the
// sums to words by the Chinese remainder theorem. If all weights lift to 8 bits, one image
// serves for all primes. There are three paths:
//
//	fused    kernels for Hopper's tensor cores that do the last two steps, and gather patches
//	int8     cuBLAS, a strided batch of int8 products, then a kernel for the words
//	float64  cuBLAS, float64 products modulo pairs of primes: sums stay below 2^48
//
// Before a device is used, the paths that it may take are tested in this order; it takes
// the first that is exact.
//
// # Devices
//
// A device has a few streams, each with its own thread, buffers and pinned staging memory:
// while one computes, others copy in and out. Batches are cut so that any batch fits.
// Weights stay on a device until others need the room. Their words stay in the host's
// memory, and are loaded again when needed.
//
// A device that fails for good is given up: its products move to another device or to the
// processor, and calls in flight are repeated there.
//
// No branch and no address in a kernel depends on the words that are multiplied.
package cuda

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/securenets/securenets/plan"
)

// ErrUnavailable reports that there is no device to multiply on, and why.
var ErrUnavailable = errors.New("cuda: no usable device")

// Paths that Options can name.
const (
	PathAuto    = "auto"
	PathFused   = "fused"
	PathInt8    = "int8"
	PathFloat64 = "float64"
)

// Options of a Backend. The zero value stands for all devices and defaults.
type Options struct {
	// Devices are ordinals of the devices to use, as the driver numbers them; nil
	// stands for all.
	Devices []int
	// Memory is the maximum number of bytes held on each device. 0 stands for nine tenths
	// of what is free at the start.
	Memory int64
	// Pinned is the number of bytes of pinned memory for Lend.
	Pinned int64
	// Streams is the number of streams of a device: calls, or parts of one, that run at a
	// time. 0 stands for 8.
	Streams int
	// Path is the path of products; "" and PathAuto stand for the first of fused, int8
	// and float64 that a device computes exactly.
	Path string
	// Fallback takes over the products when the last device is lost. If it is nil, they
	// fail with kernels.ErrDeviceLost.
	Fallback plan.Multiplier
	// Log records devices that are refused or lost; nil stands for none.
	Log *slog.Logger
	// Driver and BLAS are paths of libraries to try in place of the system's.
	Driver, BLAS []string
}

// State is the state of a device.
type State string

// States of a device.
const (
	Ready   State = "ready"
	Refused State = "refused" // it failed its test, or lacks something that is needed
	Lost    State = "lost"    // it failed after it was ready
)

// Device describes a CUDA device.
type Device struct {
	Ordinal    int      `json:"ordinal"`
	Name       string   `json:"name"`
	UUID       string   `json:"uuid"`
	Capability string   `json:"compute_capability"`
	Processors int      `json:"multiprocessors"`
	CUDA       string   `json:"cuda"`   // version that the driver supports
	BLAS       string   `json:"cublas"` // version that was opened
	Memory     int64    `json:"memory_bytes"`
	State      State    `json:"state"`
	Reason     string   `json:"reason,omitempty"` // why the state is not Ready
	Path       string   `json:"path,omitempty"`
	Budget     int64    `json:"budget_bytes,omitempty"`
	Weights    int64    `json:"weights_bytes"` // held on the device
	Work       int64    `json:"work_bytes"`
	Evicted    int64    `json:"evicted"`           // number of evictions of weights
	Figures    *Figures `json:"figures,omitempty"` // nil without NVML
}

// Figures are NVML's readings of a device.
type Figures struct {
	Driver      string  `json:"driver"`
	Utilisation int     `json:"utilisation_percent"`
	UsedBytes   int64   `json:"used_bytes"`
	PowerWatts  float64 `json:"power_watts"`
	Celsius     int     `json:"temperature_celsius"`
}

func (d Device) String() string {
	return fmt.Sprintf("device %d (%s)", d.Ordinal, d.Name)
}

// Kind is the element type of a plain product, which ring products are compared with.
type Kind string

// Kinds of plain products, all by cuBLAS.
const (
	BF16 Kind = "bf16" // summed in float32
	FP32 Kind = "fp32"
	FP64 Kind = "fp64"
	Int8 Kind = "int8" // summed in int32
)
