package wire

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
)

// TestCopyBelow: every number of words, and a word too large at every place, told apart from
// the largest that is not; nothing is written past the end.
func TestCopyBelow(t *testing.T) {
	for _, m := range []uint32{1, 3, 1 << 31, 1<<31 + 1, 3368562317, math.MaxUint32} {
		for n := range 70 {
			src := make([]byte, 4*n+4)
			for i := range n {
				binary.LittleEndian.PutUint32(src[4*i:], m-1)
			}
			for at := -1; at < n; at++ {
				for _, word := range []uint32{m, math.MaxUint32, m - 1, 0} {
					if at >= 0 {
						binary.LittleEndian.PutUint32(src[4*at:], word)
					}
					dst := make([]uint32, n+1)
					dst[n] = 12345
					want := at < 0 || word < m
					if got := copyBelow(dst[:n], src[:4*n], m); got != want {
						t.Fatalf("%d words below %d, word %d is %d: %v", n, m, at, word, got)
					}
					generic := make([]uint32, n+1)
					generic[n] = 12345
					if got := copyBelowGeneric(generic[:n], src[:4*n], m); got != want || !slices.Equal(dst, generic) {
						t.Fatalf("%d words below %d, word %d is %d: generic %v", n, m, at, word, got)
					}
				}
				if at >= 0 {
					binary.LittleEndian.PutUint32(src[4*at:], m-1)
				}
			}
		}
	}
}
