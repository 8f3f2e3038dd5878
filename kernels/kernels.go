// Package kernels holds what a daemon multiplies with: exact products of
// matrices over Z_M, by several backends that give the same words.
// kernels/kerneltest is the conformance suite that each must pass.
package kernels

import "github.com/securenets/securenets/internal/plan"

// Backend is one way to multiply, on one kind of device.
// It may be used by several goroutines at once.
type Backend interface {
	// Load checks its arguments, with typed errors of ring and plan, and
	// prepares products. See plan.Multiplier and plan.Product. Evaluate checks
	// shapes; that x is canonical is checked by who reads it from the wire.
	plan.Multiplier
	// Name is the backend's name in configuration, for example "cpu".
	Name() string
	// Stats returns counters since the backend was opened.
	Stats() Stats
	// Close frees the backend. All products must have been closed: with one
	// open it returns an error wrapping ErrClosed and does nothing.
	Close() error
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
