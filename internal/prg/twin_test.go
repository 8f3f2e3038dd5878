//go:build unix

package prg

import (
	"slices"
	"testing"

	"github.com/securenets/securenets/internal/fence"
	"github.com/securenets/securenets/ring"
)

// FuzzFill compares every tier with the generic one. The words are fenced on one side, and
// words beside them on the other must not change.
func FuzzFill(f *testing.F) {
	for n := range uint16(35) {
		f.Add([]byte{byte(n)}, uint64(n), 37*n, uint8(n), n%2 == 0)
	}
	for n := range uint16(64) { // around whole turns
		f.Add([]byte{byte(n)}, uint64(n), 64+n, uint8(0), true)
	}
	all := []ring.Ring{ring.Q4(), ring.Q3(), mustRing(f, 3, 5), mustRing(f, 251, 241), mustRing(f, 3), mustRing(f, 5, 13), mustRing(f, 251, 3, 89)}
	f.Fuzz(func(t *testing.T, key []byte, i uint64, n uint16, which uint8, atEnd bool) {
		r := all[int(which)%len(all)]
		var seed Seed
		copy(seed[:], key)
		want := make([]uint32, n)
		generic.expand(seed)(want, i, wordsOf(r))
		const guard = 0xa5a5a5a5
		for _, tier := range tiers {
			got := fence.Slice[uint32](t, int(n)+16, atEnd)
			for j := range got {
				got[j] = guard
			}
			dst, beside := got[16:], got[:16]
			if !atEnd {
				dst, beside = got[:n], got[n:]
			}
			tier.expand(seed)(dst, i, wordsOf(r))
			if !slices.Equal(dst, want) {
				t.Errorf("%s: %d words over %v: differ from the twin's", tier.name, n, r)
			}
			if slices.ContainsFunc(beside, func(a uint32) bool { return a != guard }) {
				t.Errorf("%s: %d words over %v: wrote beside them", tier.name, n, r)
			}
		}
	})
}
