package wire_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"google.golang.org/grpc/mem"

	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/ring"
)

// TestCopiedWords: for every number of contiguous words, a word equal to M at any index is
// found, the word M-1 is accepted, and nothing is written past the end.
func TestCopiedWords(t *testing.T) {
	r := ring.Q4()
	m := r.Modulus()
	for n := range 70 {
		src := make([]byte, 4*n)
		for i := range n {
			binary.LittleEndian.PutUint32(src[4*i:], m-1-uint32(i))
		}
		for at := -1; at < n; at++ {
			for _, word := range []uint32{m, math.MaxUint32, m - 1, 0} {
				good := binary.LittleEndian.AppendUint32(nil, m-1-uint32(max(0, at)))
				if at >= 0 {
					binary.LittleEndian.PutUint32(src[4*at:], word)
				}
				dst := make([]uint32, n+1)
				dst[n] = 12345
				err := wire.DecodeWords(r, dst[:n], mem.BufferSlice{mem.SliceBuffer(src)})
				var refused *wire.Error
				switch {
				case at >= 0 && word >= m:
					if !errors.As(err, &refused) || refused.Message != fmt.Sprintf("word %d is not canonical", at) {
						t.Fatalf("%d words, word %d is %d: %v", n, at, word, err)
					}
				case err != nil:
					t.Fatalf("%d words, word %d is %d: %v", n, at, word, err)
				default:
					want := make([]uint32, n)
					for i := range want {
						want[i] = binary.LittleEndian.Uint32(src[4*i:])
					}
					if !slices.Equal(dst[:n], want) {
						t.Fatalf("%d words, word %d is %d: copied otherwise", n, at, word)
					}
				}
				if dst[n] != 12345 {
					t.Fatalf("%d words: one more is written", n)
				}
				if at >= 0 {
					copy(src[4*at:], good)
				}
			}
		}
	}
}
