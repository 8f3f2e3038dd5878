// Package cputime reads the CPU time that processes have used.
package cputime

import (
	"time"

	"golang.org/x/sys/unix"
)

// Self returns the user and system time of all threads of this process.
func Self() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // it fails for bad arguments alone
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
