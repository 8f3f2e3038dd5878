// Package pages makes memory that is read through once, from its beginning on.
package pages

import "unsafe"

// large is the size of a large page of memory.
const large = 2 << 20

// Zeros returns n zeros from the beginning of a cache line on. Many begin with a
// large page and, where the system grants it, lie on such pages: reading through
// them then misses less in the cache of addresses.
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
