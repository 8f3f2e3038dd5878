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

	w := words{m: uint64(r.Modulus()), mask: 1<<r.BitLen() - 1, width: r.WordBytes()}
	for len(dst) > 0 {
		// One more word in 4, and some: what is skipped rarely needs another turn.
		size := min(chunk, (len(dst)+len(dst)/4+16)*w.width)
		stream.XORKeyStream(buf[:size], zeros[:size])
		for b := buf[:size]; len(b) > 0 && len(dst) > 0; {
			n := min(len(dst), len(b)/w.width)
			dst = dst[w.keep(dst[:n], b[:n*w.width]):]
			b = b[n*w.width:]
		}
	}
}

// words is how a ring cuts a keystream.
type words struct {
	m     uint64
	mask  uint64 // the bits of m
	width int    // bytes, at most 4
}

// keep cuts src into words, masks them, writes those below m to the front of dst
// and returns their number. len(src) is len(dst)·width. Every word is written
// and the index moves on only past the kept ones: no branch to mispredict.
func (w words) keep(dst []uint32, src []byte) int {
	kept := 0
	for len(src) >= 4 { // words may be shorter: the mask cuts off what follows
		v := uint64(binary.LittleEndian.Uint32(src)) & w.mask
		src = src[w.width:]
		dst[kept] = uint32(v)
		kept += int((v - w.m) >> 63)
	}
	for ; len(src) > 0; src = src[w.width:] {
		var last [4]byte
		copy(last[:], src[:w.width])
		v := uint64(binary.LittleEndian.Uint32(last[:])) & w.mask
		dst[kept] = uint32(v)
		kept += int((v - w.m) >> 63)
	}
	return kept
}
