package prg

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"sync"

	"github.com/securenets/securenets/internal/ring"
)

// tier is one way to expand seeds. All give the same words.
type tier struct {
	name   string
	expand func(Seed) fill
}

// fill sets dst to the first words of sample i. Goroutines may call it at once.
type fill func(dst []uint32, i uint64, w words)

// words is how a ring cuts a keystream.
type words struct {
	m      uint32
	mask   uint32    // the bits of m
	width  int       // bytes of a word, 1 to 4
	turn   int       // 16 words at a time, how many are in turnBytes
	spread *[64]byte // of a vector of 16 words: where each of their 4 bytes is
}

func wordsOf(r ring.Ring) words {
	width := r.WordBytes()
	return words{
		m: r.Modulus(), mask: uint32(1)<<r.BitLen() - 1,
		width: width, turn: turnBytes / (16 * width), spread: &spreads[width],
	}
}

// turnBytes are the bytes of keystream that are made at a time, or a multiple of them:
// 16 words of every width fit a whole number of times.
const turnBytes = 6 * 64

// spreads holds the spread of each width. What a word's mask cuts off comes from
// the word after it.
var spreads = func() (s [5][64]byte) {
	for width := range s {
		for i := range s[width] {
			s[width][i] = byte(i/4*width + i%4)
		}
	}
	return
}()

// generic is the twin that others are compared with.
var generic = tier{
	name:   "generic",
	expand: func(seed Seed) fill { return byLibrary(seed, words.keep) },
}

// keystream sets buf, of whole turns, to what follows in that of a sample.
type keystream func(buf []byte)

// byLibrary has the standard library make the keystream of a seed, and keep cut it.
func byLibrary(seed Seed, keep keep) fill {
	block, err := aes.NewCipher(seed[:])
	if err != nil {
		panic(err) // a Seed has the length of a key
	}
	return func(dst []uint32, i uint64, w words) {
		var iv [aes.BlockSize]byte
		binary.BigEndian.PutUint64(iv[:], i)
		stream := cipher.NewCTR(block, iv[:])
		fillByChunks(func(buf []byte) { stream.XORKeyStream(buf, zeros[:len(buf)]) }, keep, dst, w)
	}
}

// keep cuts src into words and writes those below M to the front of dst: see words.keep.
type keep func(w words, dst []uint32, src []byte) (kept int)

// chunk is the most bytes of keystream that are made at a time: whole turns, and little
// enough to stay in the first-level cache.
const chunk = 16 * turnBytes

// spare bytes are behind a chunk, for keep to read.
const spare = 16

var (
	chunks = sync.Pool{New: func() any { return new([chunk + spare]byte) }}
	zeros  [chunk]byte
)

func fillByChunks(next keystream, keep keep, dst []uint32, w words) {
	buf := chunks.Get().(*[chunk + spare]byte)
	defer chunks.Put(buf)
	for len(dst) > 0 {
		// One more word in 4, and some: what is skipped rarely needs another turn.
		turns := ((len(dst)+len(dst)/4+16)*w.width + turnBytes - 1) / turnBytes
		size := min(chunk, turns*turnBytes)
		next(buf[:size])
		for b := buf[:size]; len(b) > 0 && len(dst) > 0; {
			n := min(len(dst), len(b)/w.width)
			dst = dst[keep(w, dst[:n], b[:n*w.width]):]
			b = b[n*w.width:]
		}
	}
}

// keep cuts src into words, masks them, writes those below m to the front of dst
// and returns their number. len(src) is len(dst)·width. Every word is written
// and the index moves on only past the kept ones: no branch to mispredict.
func (w words) keep(dst []uint32, src []byte) int {
	kept, m, mask := 0, uint64(w.m), uint64(w.mask)
	for len(src) >= 4 { // words may be shorter: the mask cuts off what follows
		v := uint64(binary.LittleEndian.Uint32(src)) & mask
		src = src[w.width:]
		dst[kept] = uint32(v)
		kept += int((v - m) >> 63)
	}
	for ; len(src) > 0; src = src[w.width:] {
		var last [4]byte
		copy(last[:], src[:w.width])
		v := uint64(binary.LittleEndian.Uint32(last[:])) & mask
		dst[kept] = uint32(v)
		kept += int((v - m) >> 63)
	}
	return kept
}
