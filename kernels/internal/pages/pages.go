// Package pages allocates memory for sequential reading.
package pages

import "unsafe"

// large is the size of a large page of memory.
const large = 2 << 20

// Zeros returns n zeros, aligned to a cache line. From 2 MiB on they are aligned to a large
// page and lie on large pages if the system grants them: reading them then has fewer TLB
// misses.
func Zeros(n int) []byte {
	align := 64
	if n >= large {
		align = large
	}
	b := make([]byte, n+align-1)
	b = b[-uintptr(unsafe.Pointer(&b[0]))&uintptr(align-1):][:n:n]
	if whole := n &^ (large - 1); whole > 0 {
		adviseLarge(b[:whole])
	}
	return b
}
