//go:build !linux

package main

// physicalMemory returns the bytes of memory that this machine has; 0: not known.
func physicalMemory() int64 { return 0 }
