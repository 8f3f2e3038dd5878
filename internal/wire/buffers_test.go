package wire

import "testing"

// TestBuffers: a buffer takes little more memory than it is asked for, whatever was lent before.
func TestBuffers(t *testing.T) {
	for range 2 {
		for _, n := range []int{0, 1, 1 << 10, 1<<10 + 1, 9 << 10, 33 << 10, 36_864, 1<<20 + 1, MaxMessage} {
			b := buffers.Get(n)
			if len(*b) != n || cap(*b) > n+n/8+8 {
				t.Errorf("%d bytes of %d, want %d", len(*b), cap(*b), n)
			}
			if n > 1<<10 {
				buffers.Put(b)
			}
		}
	}
}
