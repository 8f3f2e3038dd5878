package cputime

import (
	"time"

	"golang.org/x/sys/unix"
)

// Of returns the processor time that a process has used so far.
func Of(pid int) (time.Duration, error) {
	const processTime = 2 // of clock_getcpuclockid(3)
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|processTime, &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}
