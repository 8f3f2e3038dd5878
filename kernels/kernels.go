// Package kernels defines the interface of backends: exact products of matrices over Z_M,
// with the same words from every backend. Each Backend must pass the conformance suite in
// kernels/kerneltest.
package kernels

import (
	"errors"
	"fmt"

	"github.com/securenets/securenets/plan"
)

// Failures of a device. Backends wrap them in their own errors.
var (
	// ErrOutOfMemory reports weights or work that do not fit on a device, even after
	// everything else was evicted.
	ErrOutOfMemory = errors.New("kernels: out of device memory")
	// ErrDeviceLost reports a device that failed for good when no other could take over.
	ErrDeviceLost = errors.New("kernels: device lost")
)

// Backend is one way to multiply, on one kind of device.
// It may be used by several goroutines at once.
type Backend interface {
	// Load checks its arguments, with typed errors of ring and plan, and prepares
	// products: see plan.Multiplier and plan.Product. Evaluate checks shapes, but not
	// that x is canonical: whoever reads x from the wire checks that.
	plan.Multiplier
	// Name is the backend's name in configuration, for example "cpu".
	Name() string
	// Stats returns counters since the backend was opened.
	Stats() Stats
	// Close frees the backend. All products must have been closed: with one
	// open it returns an error wrapping ErrClosed and does nothing.
	Close() error
}

// Panic is what a backend panics with if one of its own goroutines panicked.
type Panic struct {
	Value any
	Stack []byte // of that goroutine
}

func (p *Panic) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// A Lender is a Backend that lends memory which its devices read and write directly.
type Lender interface {
	// Lend returns n words of arbitrary content, or nil if it has no room for them.
	Lend(n int) []uint32
	// Reclaim takes back words that Lend returned. It reports whether Lend returned them.
	Reclaim(words []uint32) bool
}

// A Concurrent is a Backend that needs a certain number of products at a time to be busy.
// Others are given as many as the configuration has threads.
type Concurrent interface {
	// Parallel returns that number, at least 1.
	Parallel() int
}

// Sized is a plan.Product that reports the memory it holds. Products of a Base are Sized.
type Sized interface {
	// Bytes returns the bytes that the backend's Stats counts for this product. They
	// count until Close.
	Bytes() int64
}

// Stats are a backend's counters.
type Stats struct {
	Loaded    int   // products open now
	Bytes     int64 // bytes that they hold
	Calls     int64 // Evaluate calls finished without error
	Samples   int64 // rows evaluated in them
	MulAdds   int64 // ring multiply-adds in them, padding counted
	ComputeNS int64 // time spent in them, elapsed nanoseconds
}

// A Reporter is a Backend that can describe each of its devices.
type Reporter interface {
	// Report describes the devices, including those not in use.
	Report() []Device
}

// Device describes one device of a Backend.
type Device struct {
	Name   string // short and the same at every start, for example "cuda0"
	ID     string // of the hardware, for example a UUID; "" if it has none
	Ready  bool   // the device takes work
	Budget int64  // bytes of its memory that the backend may hold
	// Weights and Work are the bytes that the backend holds for each.
	Weights, Work int64
	Evicted       int64 // number of evictions of weights
	Memory        int64 // total bytes
	// Usage covers all programs that use the device; nil if it is not measured.
	Usage *Usage
}

// Usage is what a device's own sensors report.
type Usage struct {
	Utilisation float64 // 0 to 1
	UsedBytes   int64
	PowerWatts  float64
	Celsius     float64
}
