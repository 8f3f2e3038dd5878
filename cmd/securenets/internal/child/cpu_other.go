//go:build !linux

package child

import (
	"errors"
	"time"
)

// CPUTime returns errors.ErrUnsupported: a child's processor time is known on Linux.
func (c *Daemon) CPUTime() (time.Duration, error) { return 0, errors.ErrUnsupported }
