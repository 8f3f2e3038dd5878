package main

import "golang.org/x/sys/unix"

// physicalMemory returns the bytes of memory that this machine has; 0: not known.
func physicalMemory() int64 {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return 0
	}
	return int64(uint64(s.Totalram) * uint64(s.Unit))
}
