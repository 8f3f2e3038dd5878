package roofline

import (
	"time"

	"golang.org/x/sys/unix"
)

// ThreadTime returns the time that the calling thread has run, on Linux. The
// goroutine should be locked to it.
func ThreadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return elapsed()
	}
	return time.Duration(t.Nano())
}
