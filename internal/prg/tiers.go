package prg

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"sync"

	"github.com/securenets/securenets/ring"
)

// tier is one way to expand seeds. All give the same words.
type tier struct {
	name   string
	expand func(Seed) fill
}

// fill sets dst to the first words of sample i. Several goroutines may call it at once.
type fill func(dst []uint32, i uint64, w words)

// words is how a ring cuts a keystream.
type words struct {
	m      uint32
	mask   uint32    // the bits of m
	width  int       // bytes of a word, 1 to 4
	turn   int       // groups of 16 words in turnBytes
	spread *[64]byte // for each of the 4 bytes of 16 words, its place in the keystream
}

func wordsOf(r ring.Ring) words {
	width := r.WordBytes()
	return words{
		m: r.Modulus(), mask: uint32(1)<<r.BitLen() - 1,
		width: width, turn: turnBytes / (16 * width), spread: &spreads[width],
	}
}

// turnBytes is the unit in which keystream is made, in bytes. It is a multiple of 16 words of
// every width.
const turnBytes = 6 * 64

// spreads holds the spread of each width. Bytes beyond a word's width are those of the next
// word, which the mask removes.
var spreads = func() (s [5][64]byte) {
	for width := range s {
		for i := range s[width] {
			s[width][i] = byte(i/4*width + i%4)
		}
	}
	return
}()

// generic is the tier that others are compared with.
var generic = tier{
	name:   "generic",
	expand: func(seed Seed) fill { return byLibrary(seed, words.keep) },
}

// keystream sets buf, of whole turns, to the next bytes of a sample's keystream.
type keystream func(buf []byte)

// byLibrary makes the keystream of a seed with the standard library, and cuts it with keep.
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

// keep cuts src into words and writes the words below M to the front of dst: see words.keep.
type keep func(w words, dst []uint32, src []byte) (kept int)

// chunk is the maximum number of bytes of keystream that are made at a time: whole turns, few
// enough to stay in the first-level cache.
const chunk = 16 * turnBytes

// spare is the number of bytes after a chunk that keep may read.
const spare = 16

var (
	chunks = sync.Pool{New: func() any { return new([chunk + spare]byte) }}
	zeros  [chunk]byte
)

func fillByChunks(next keystream, keep keep, dst []uint32, w words) {
	buf := chunks.Get().(*[chunk + spare]byte)
	defer chunks.Put(buf)
	for len(dst) > 0 {
		// A quarter more words and 16: then skipped words rarely need another turn.
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

// keep cuts src into words, masks them, writes the words below m to the front of dst and
// returns their number. len(src) is len(dst)·width. Every word is written, and the index
// advances past kept ones alone: no branch to mispredict.
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
