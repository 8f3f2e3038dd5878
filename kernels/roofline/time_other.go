//go:build !linux

package roofline

import "time"

// ThreadTime returns elapsed time: the CPU time of a thread is known on Linux only.
func ThreadTime() time.Duration { return elapsed() }
