package pages

import (
	"testing"
	"unsafe"
)

func TestZeros(t *testing.T) {
	for _, n := range []int{0, 1, 64, 4095, large - 1, large, large + 1, 3*large + 7} {
		b := Zeros(n)
		align := uintptr(64)
		if n >= large {
			align = large
		}
		if at := uintptr(unsafe.Pointer(unsafe.SliceData(b))); len(b) != n || cap(b) != n || at%align != 0 {
			t.Errorf("%d bytes: got %d, at %#x", n, len(b), at)
		}
		for i, a := range b {
			if a != 0 {
				t.Fatalf("%d bytes: %d at %d", n, a, i)
			}
			b[i] = 1
		}
	}
}
