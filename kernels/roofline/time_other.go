//go:build !linux

package roofline

import "time"

// ThreadTime returns elapsed time: how long a thread has run is known on Linux.
func ThreadTime() time.Duration { return elapsed() }
