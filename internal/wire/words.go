package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unsafe"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"

	"github.com/securenets/securenets/ring"
)

// littleEndian reports whether this machine is little-endian, as the wire is.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// AsBytes returns v's memory as bytes, or false if the wire format differs from it.
func AsBytes(r ring.Ring, v []uint32) ([]byte, bool) {
	if !littleEndian || r.WordBytes() != 4 {
		return nil, false
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v)), true
}

// Copies returns the number of bytes that EncodeWords copies for n words.
func Copies(r ring.Ring, n int) int {
	bytes := n * r.WordBytes()
	if littleEndian && r.WordBytes() == 4 && !mem.IsBelowBufferPoolingThreshold(bytes) {
		return 0
	}
	return bytes
}

// releasePool is a buffer pool that calls a function when a buffer is returned to it.
type releasePool func()

func (releasePool) Get(n int) *[]byte { b := make([]byte, n); return &b }
func (p releasePool) Put(*[]byte)     { p() }

// copyPool is the pool of a buffer that holds a copy of words.
type copyPool struct {
	mem.BufferPool
	release releasePool
}

func (p copyPool) Put(b *[]byte) {
	p.BufferPool.Put(b)
	p.release()
}

// EncodeWords returns v as wire bytes, which the caller frees. If words have the same
// format in memory as on the wire, the bytes are v's own memory: v must not change until
// release (which may be nil) is called. It is called once, from any goroutine, after the
// last use of the words or of a copy. Short vectors are copied.
//
// Do not wait for release. gRPC never frees the buffers of a message that a broken
// connection cuts off, nor those of a message that is being sent when the stream's first
// answer arrives. The garbage collector then frees v.
func EncodeWords(r ring.Ring, v []uint32, release func()) mem.BufferSlice {
	if release == nil {
		release = func() {}
	}
	if len(v) == 0 {
		release()
		return mem.BufferSlice{}
	}
	n := len(v) * r.WordBytes()
	if mem.IsBelowBufferPoolingThreshold(n) { // mem does not count references to such a buffer
		b := make(mem.SliceBuffer, n)
		r.PutWords(b, v)
		release()
		return mem.BufferSlice{b}
	}
	if b, ok := AsBytes(r, v); ok {
		return mem.BufferSlice{mem.NewBuffer(&b, releasePool(release))}
	}
	pool := copyPool{buffers, release}
	b := pool.Get(n)
	r.PutWords(*b, v)
	return mem.BufferSlice{mem.NewBuffer(b, pool)}
}

// PutWords encodes v into to, which has len(v)·r.WordBytes() bytes.
func PutWords(r ring.Ring, to []byte, v []uint32) {
	if b, ok := AsBytes(r, v); ok {
		copy(to, b)
		return
	}
	r.PutWords(to, v)
}

// DecodeWords copies exactly len(dst) words from b to dst. Its error is an *Error with
// ReasonBadLength or ReasonNonCanonical; dst must then not be used. b may be the memory of dst.
func DecodeWords(r ring.Ring, dst []uint32, b mem.BufferSlice) error {
	if got, want := b.Len(), len(dst)*r.WordBytes(); got != want {
		return &Error{Code: codes.InvalidArgument, Reason: ReasonBadLength, Message: fmt.Sprintf("%d bytes of words, want %d", got, want)}
	}
	if d, ok := AsBytes(r, dst); ok {
		if len(b) == 1 {
			return copyWords(r, dst, d, b[0].ReadOnlyData())
		}
		b.CopyTo(d)
		return nonCanonical(r.CheckCanonical(dst), 0)
	}
	reader := b.Reader()
	defer reader.Close()
	var part [1020]byte // a whole number of words of 1, 2, 3 or 4 bytes
	for at := 0; at < len(dst); {
		n := min(len(dst)-at, len(part)/r.WordBytes())
		p := part[:n*r.WordBytes()]
		if _, err := io.ReadFull(reader, p); err != nil {
			return &Error{Code: codes.InvalidArgument, Reason: ReasonBadLength, Message: err.Error()}
		}
		if err := r.Words(dst[at:at+n], p); err != nil {
			return nonCanonical(err, at)
		}
		at += n
	}
	return nil
}

// copyWords copies contiguous words and checks the copies, so that a concurrent write to src
// cannot change what was checked. d is dst's memory.
func copyWords(r ring.Ring, dst []uint32, d, src []byte) error {
	n, good := copyBelow(dst, src, r.Modulus())
	copy(d[4*n:], src[4*n:])
	if good {
		return nonCanonical(r.CheckCanonical(dst[n:]), n)
	}
	return nonCanonical(r.CheckCanonical(dst), 0)
}

// nonCanonical converts an error of package ring to an *Error. The checked words begin at
// index at.
func nonCanonical(err error, at int) error {
	if err == nil {
		return nil
	}
	var word *ring.NonCanonicalError
	if !errors.As(err, &word) {
		return err
	}
	return &Error{Code: codes.InvalidArgument, Reason: ReasonNonCanonical, Message: fmt.Sprintf("word %d is not canonical", at+word.Index)}
}
