// Package prg expands 32-byte seeds to ring elements, alike on both sides of
// the wire. See docs/spec.md, section 4.
//
//	PRG(seed, i): AES-256 with key = seed, CTR with initial block BE64(i) || BE64(0).
//
// The keystream is cut into little-endian words of WordBytes bytes, each masked
// to BitLen bits; words >= M are skipped. A seed that any cloud receives serves
// nothing else. The number of words skipped shows in the time taken; it tells
// nothing of the words kept.
package prg

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/securenets/securenets/internal/ring"
)

// Seed is a secret AES-256 key. It prints redacted.
type Seed [32]byte

const redacted = "prg.Seed(redacted)"

func (Seed) String() string   { return redacted }
func (Seed) GoString() string { return redacted }

// Format prints s redacted, whatever the verb.
func (Seed) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// MarshalText keeps s out of JSON and structured logs: its text is redacted too.
func (Seed) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// NewSeed draws a seed from crypto/rand.
func NewSeed() Seed {
	var s Seed
	rand.Read(s[:]) // never fails: the process would end
	return s
}

// Expander fills samples from one seed. It may be used by several goroutines at once.
type Expander struct{ block cipher.Block }

// New returns the expander of a seed.
func New(seed Seed) *Expander {
	block, err := aes.NewCipher(seed[:])
	if err != nil {
		panic(err) // a Seed has the length of a key
	}
	return &Expander{block}
}

// chunk is the bytes of keystream made at a time: whole words of every width,
// whole blocks, and little enough to stay in the first-level cache.
const chunk = 3 * 2048

var (
	chunks = sync.Pool{New: func() any { return new([chunk]byte) }}
	zeros  [chunk]byte
)

// Fill sets dst to the first len(dst) words of PRG(seed, i) over r.
func (e *Expander) Fill(r ring.Ring, dst []uint32, i uint64) {
	var iv [aes.BlockSize]byte
	binary.BigEndian.PutUint64(iv[:], i)
	stream := cipher.NewCTR(e.block, iv[:])
	buf := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buf)

	width := r.WordBytes()
	for len(dst) > 0 {
		// One more word in 4, and some: what is skipped rarely needs another turn.
		size := min(chunk, (len(dst)+len(dst)/4+16)*width)
		stream.XORKeyStream(buf[:size], zeros[:size])
		for b := buf[:size]; len(b) > 0 && len(dst) > 0; {
			n := min(len(dst), len(b)/width)
			dst = dst[compact(r, dst[:n], b[:n*width], width):]
			b = b[n*width:]
		}
	}
}

// compact cuts src into words, masks them, writes those below M to the front of
// dst and returns their number. len(src) is len(dst)·width. Every word is
// written and the index moves on only past the kept ones: no branch to mispredict.
func compact(r ring.Ring, dst []uint32, src []byte, width int) int {
	m, mask := uint64(r.Modulus()), uint32(1)<<r.BitLen()-1 // all ones for 32 bits
	kept := 0
	switch width {
	case 4:
		for len(src) >= 4 {
			w := binary.LittleEndian.Uint32(src) & mask
			src = src[4:]
			dst[kept] = w
			kept += int((uint64(w) - m) >> 63)
		}
	default:
		for len(src) >= width {
			var w uint32
			for j, c := range src[:width] {
				w |= uint32(c) << (8 * j)
			}
			w &= mask
			src = src[width:]
			dst[kept] = w
			kept += int((uint64(w) - m) >> 63)
		}
	}
	return kept
}
