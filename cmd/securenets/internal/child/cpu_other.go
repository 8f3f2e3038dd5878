//go:build !linux

package child

import (
	"errors"
	"time"
)

// CPUTime returns errors.ErrUnsupported: a process' processor time is known on Linux.
func CPUTime(int) (time.Duration, error) { return 0, errors.ErrUnsupported }
