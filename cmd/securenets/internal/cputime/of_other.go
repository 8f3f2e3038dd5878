//go:build !linux

package cputime

import (
	"errors"
	"time"
)

// Of returns errors.ErrUnsupported: a process' processor time is known on Linux.
func Of(int) (time.Duration, error) { return 0, errors.ErrUnsupported }
