package child

import (
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime returns the processor time that the daemon has used so far.
func (c *Daemon) CPUTime() (time.Duration, error) {
	const processTime = 2 // of clock_getcpuclockid(3)
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^c.process.Pid)<<3|processTime, &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}
