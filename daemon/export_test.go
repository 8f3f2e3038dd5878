package daemon

import (
	"context"
	"log/slog"
	"time"

	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// SetDevicePeriod sets the time between two checks of the devices.
func SetDevicePeriod(d time.Duration) (restore func()) {
	old := devicePeriod
	devicePeriod = d
	return func() { devicePeriod = old }
}

// SetLateTimeout sets how long a connection may take to begin once the daemon drains.
func SetLateTimeout(d time.Duration) (restore func()) {
	old := lateTimeout
	lateTimeout = d
	return func() { lateTimeout = old }
}

// SetSilence sets how long a host may be silent.
func SetSilence(d time.Duration) (restore func()) {
	old := silence
	silence = d
	return func() { silence = old }
}

// Charge returns the bytes that a request is charged.
func Charge(l config.Limits, r ring.Ring, op plan.Op, rows uint32, message int64, sharedOut bool) (int64, error) {
	c, err := newService(l, slog.New(slog.DiscardHandler), "", context.Background()).chargeOf(r, op, rows, message, sharedOut)
	return c.total(), err
}

// RunUnchecked is Run with any configuration.
var RunUnchecked = run
