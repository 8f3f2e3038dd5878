//go:build unix && !purego

package prg

import (
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/cpuid"
	"github.com/securenets/securenets/internal/fence"
	"github.com/securenets/securenets/ring"
)

// TestKeepReadsNoMoreThanIsSpare: keepAVX2 reads at most spare bytes past a chunk.
func TestKeepReadsNoMoreThanIsSpare(t *testing.T) {
	if !cpuid.AVX2() {
		t.Skip("no AVX2")
	}
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3(), mustRing(t, 251, 241), mustRing(t, 251)} {
		w := wordsOf(r)
		for _, n := range []int{8, 16, 21} {
			src := fence.Slice[byte](t, n*w.width+spare, true)
			for i := range src {
				src[i] = byte(i * 37)
			}
			got, want := make([]uint32, n), make([]uint32, n)
			kept := w.keep(want, src[:n*w.width])
			if k := w.keepAVX2(got, src[:n*w.width]); k != kept || !slices.Equal(got[:k], want[:k]) {
				t.Errorf("%v, %d words: %d kept, want %d, or others", r, n, k, kept)
			}
		}
	}
}
