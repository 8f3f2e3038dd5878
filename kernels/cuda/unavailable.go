//go:build !(gpu && cgo && linux && amd64)

package cuda

import (
	"fmt"

	"github.com/securenets/securenets/kernels"
)

// Backend implements kernels.Backend. In this build there is none.
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
