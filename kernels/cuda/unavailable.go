//go:build !(gpu && cgo && linux && amd64)

package cuda

import (
	"context"
	"fmt"
	"time"

	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"

	"github.com/securenets/securenets/kernels"
)

// Backend implements kernels.Backend. This build has no way to open one.
type Backend struct{ kernels.Base }

var errBuild = fmt.Errorf("%w: this program was built without tag gpu", ErrUnavailable)

// Open returns ErrUnavailable.
func Open(Options) (*Backend, error) { return nil, errBuild }

// Devices describes the backend's devices.
func (*Backend) Devices() []Device { return nil }

// Lend implements kernels.Lender.
func (*Backend) Lend(int) []uint32 { return nil }

// Reclaim implements kernels.Lender.
func (*Backend) Reclaim([]uint32) bool { return false }

// List returns ErrUnavailable.
func List(Options) ([]Device, error) { return nil, errBuild }

// Meter measures a device. In this build its methods return ErrUnavailable.
type Meter struct{}

// Product is a product that a Meter measures.
type Product = unmeasured

// Peer is a plain product that a Meter measures.
type Peer = unmeasured

type unmeasured struct{}

func (*unmeasured) Time() (time.Duration, error) { return 0, errBuild }
func (*unmeasured) Close() error                 { return nil }

// Meter returns ErrUnavailable.
func (*Backend) Meter(context.Context) (*Meter, error) { return nil, errBuild }

// NewProduct returns ErrUnavailable.
func (*Meter) NewProduct(ring.Ring, plan.Op, int, bool) (*Product, error) { return nil, errBuild }

// NewPeer returns ErrUnavailable.
func (*Meter) NewPeer(Kind, int, int, int) (*Peer, error) { return nil, errBuild }

// Copies returns ErrUnavailable.
func (*Meter) Copies(up, down int64) (time.Duration, error) { return 0, errBuild }

// Close does nothing.
func (*Meter) Close() {}
