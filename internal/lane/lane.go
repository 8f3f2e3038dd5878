// Package lane begins direct streams on unix sockets and manages memory that the two
// processes share, so that the words of requests and answers need not go through the socket.
//
//	host                                                     daemon
//	Offer: a preface, with a region's descriptor ───────────▶ Accept: checks it, maps it
//	       ◀────────────────────────────── a reply: a verdict on the region
//	       then a direct stream, on the same connection
//
// The region belongs to the connection: only its two ends may use it. Each end unmaps it
// when the connection has ended and its last user at that end has released it. Both sides may
// write to it at any time, so neither may assume that its content stays the same: words
// are copied out once, and only the copy is checked and used. See docs/spec.md, section 8.
package lane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"
)

const (
	// Grain divides the sizes of regions, in bytes: whole pages on every machine.
	Grain = 64 << 10
	// MaxSize is the largest size of a region in bytes.
	MaxSize = 1 << 40
	// Align divides the offsets of slots, in bytes.
	Align = 64
)

// Verdict is a daemon's reply to a preface. After every verdict but BadVersion the connection
// is a direct stream.
type Verdict uint64

const (
	Accepted   Verdict = 0 // the region is mapped, if one was offered
	Off        Verdict = 1 // the daemon shares no memory
	TooLarge   Verdict = 2 // above the limit for one connection
	NoRoom     Verdict = 3 // above what is left of the limit for all connections
	BadMemory  Verdict = 4 // not exactly one descriptor of sealed memory of the size offered
	BadVersion Verdict = 5 // a preface of another version: HTTP/2 may follow
)

var verdicts = [...]string{"accepted", "off", "too large", "no room", "bad memory", "another version"}

func (v Verdict) String() string {
	if v < Verdict(len(verdicts)) {
		return verdicts[v]
	}
	return fmt.Sprintf("verdict %d", uint64(v))
}

// Verdicts returns all verdicts.
func Verdicts() []Verdict {
	return []Verdict{Accepted, Off, TooLarge, NoRoom, BadMemory, BadVersion}
}

var (
	// ErrVersion reports a daemon that does not know direct streams of this version.
	ErrVersion = errors.New("lane: the daemon does not speak this version of direct streams")
	// ErrPreface reports bytes that are neither a preface nor HTTP/2, or that are not a reply
	// to a preface. The connection cannot be used any more.
	ErrPreface = errors.New("lane: bad preface")
	// ErrMemory reports a descriptor of something that cannot be shared safely.
	ErrMemory = errors.New("lane: bad memory")
	// ErrUnsupported reports a system that cannot share memory in this way.
	ErrUnsupported = errors.New("lane: sharing memory is not supported on this system")
)

// The preface is as long as HTTP/2's own, so that a server which does not know it reads it
// whole and ends the connection, rather than waiting for more bytes.
const (
	prefaceSize = 24
	replySize   = 16
)

// magic begins the preface and the reply; the digit is the version.
var magic = [8]byte([]byte("snlane3\n"))

// preface returns a preface that offers a region of size bytes; 0: none.
func preface(size int64) []byte {
	b := binary.LittleEndian.AppendUint64(magic[:], uint64(size))
	return append(b, make([]byte, prefaceSize-len(b))...)
}

// parsePreface decodes a preface. known is false if it is of another version.
func parsePreface(b []byte) (size int64, known bool, err error) {
	if len(b) != prefaceSize || !sameBut(b, 6) {
		return 0, false, fmt.Errorf("%w: %d bytes without the magic of a preface", ErrPreface, len(b))
	}
	if b[6] != magic[6] {
		return 0, false, nil
	}
	n := binary.LittleEndian.Uint64(b[8:])
	if n > MaxSize || n%Grain != 0 {
		return 0, false, fmt.Errorf("%w: memory of %d bytes, want a multiple of %d up to %d", ErrPreface, n, Grain, MaxSize)
	}
	if binary.LittleEndian.Uint64(b[16:]) != 0 {
		return 0, false, fmt.Errorf("%w: its reserved bytes are not 0", ErrPreface)
	}
	return int64(n), true, nil
}

// sameBut reports whether b begins with the magic of any version, in which byte at is a digit.
func sameBut(b []byte, at int) bool {
	return string(b[:at]) == string(magic[:at]) && b[at] >= '0' && b[at] <= '9' && string(b[at+1:len(magic)]) == string(magic[at+1:])
}

// reply returns the reply to a preface.
func reply(v Verdict) []byte {
	return binary.LittleEndian.AppendUint64(magic[:], uint64(v))
}

func parseReply(b []byte) (Verdict, error) {
	if len(b) != replySize || [8]byte(b) != magic {
		return 0, fmt.Errorf("%w: %d bytes that are not a reply to a preface", ErrPreface, len(b))
	}
	return Verdict(binary.LittleEndian.Uint64(b[8:])), nil
}

// Offer begins a direct stream on a connection on which nothing was sent yet. It offers a
// region of size bytes, a multiple of Grain; 0: none. The caller holds the region. If the
// daemon did not accept it, the region is nil and the verdict says why.
//
// After an error the caller must close the connection, unless the error wraps ErrUnsupported:
// then nothing was sent, and Offer may be called again with size 0. The error wraps ErrVersion
// if the daemon does not know direct streams of this version.
func Offer(ctx context.Context, c *net.UnixConn, size int64) (*Region, Verdict, error) {
	var region *Region
	var rights []byte
	if size > 0 {
		f, r, err := create(size)
		if err != nil {
			return nil, 0, fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		defer f.Close() // the mapping stays, and the daemon gets a descriptor of its own
		region, rights = r, rightsOf(f)
	}
	// A deadline in the past interrupts offer when ctx ends.
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	verdict, err := offer(c, preface(size), rights)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil && verdict == BadVersion {
		err = ErrVersion
	}
	if region != nil && (err != nil || verdict != Accepted) {
		region.Release()
		region = nil
	}
	return region, verdict, err
}

func offer(c *net.UnixConn, p, rights []byte) (Verdict, error) {
	n, _, err := c.WriteMsgUnix(p, rights, nil)
	if err == nil && n < len(p) {
		_, err = c.Write(p[n:])
	}
	if err != nil {
		return 0, err
	}
	var b [replySize]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrPreface, err)
	}
	return parseReply(b[:])
}

// Terms are the conditions on which a daemon shares memory.
type Terms struct {
	// Full reports whether no region of any size would be admitted now. Descriptors are then
	// not received.
	Full func() bool
	// Admit decides on a region of size bytes.
	Admit func(size int64) Verdict
	// Freed is called for each admitted region once it is unmapped or could not be mapped.
	// An error means that its pages may still exist and be charged to this process.
	Freed func(size int64, err error)
	// Told is called with the reply to each offer of a region.
	Told func(Verdict)
}

// AnyTerms returns the terms of a server that accepts every region.
func AnyTerms() Terms {
	return Terms{
		Full:  func() bool { return false },
		Admit: func(int64) Verdict { return Accepted },
		Freed: func(int64, error) {},
		Told:  func(Verdict) {},
	}
}

// Region is shared memory, mapped as long as it is held at this end. It may be used by
// several goroutines at once.
type Region struct {
	mem   []byte
	held  atomic.Int64
	freed func(error) // nil at the host, which need not take the pages out
	keep  atomic.Bool
}

// newRegion returns a region that the caller holds.
func newRegion(mem []byte, freed func(error)) *Region {
	r := &Region{mem: mem, freed: freed}
	r.held.Store(1)
	return r
}

// Size returns the region's size in bytes.
func (r *Region) Size() int { return len(r.mem) }

// Hold keeps the region mapped until Release. It returns false if the last holder has
// released the region already.
func (r *Region) Hold() bool {
	for {
		n := r.held.Load()
		if n == 0 {
			return false
		}
		if r.held.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release ends one hold on the region; the last one unmaps it. A daemon first takes all pages
// out: a page is charged to the process that touched it first as long as it exists, mapped or
// not, and the caller may keep a descriptor. By then the connection must have ended.
func (r *Region) Release() {
	switch n := r.held.Add(-1); {
	case n == 0 && r.freed == nil:
		unmap(r.mem)
	case n == 0:
		go r.end()
	case n < 0:
		panic("lane: a region that is not held is released")
	}
}

// Keep makes the daemon leave the pages as they are when the region ends.
func (r *Region) Keep() { r.keep.Store(true) }

// punching limits how many regions have their pages taken out at a time. A caller can block
// that with a write to the memory that does not complete; only the ends of other regions wait
// behind it.
var punching = make(chan struct{}, 4)

// end ends a daemon's region: it takes the pages out and unmaps it.
func (r *Region) end() {
	var err error
	if !r.keep.Load() {
		punching <- struct{}{}
		err = punch(r.mem)
		<-punching
	}
	unmap(r.mem)
	r.freed(err)
}

// Bytes returns length bytes of the region at offset, or false if they are not all within it.
// The caller must hold the region as long as it uses them.
func (r *Region) Bytes(offset, length uint64) ([]byte, bool) {
	size := uint64(len(r.mem))
	if length > size || offset > size-length {
		return nil, false
	}
	return r.mem[offset : offset+length : offset+length], true
}

// Touch runs f, which reads or writes parts of regions. It returns an error that wraps
// ErrMemory if the system has no page for one of them, which would otherwise be a fatal
// signal. On a system that does not overcommit memory the peer can cause that by punching
// holes in the region.
func Touch(f func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			if _, fault := v.(interface{ Addr() uintptr }); !fault {
				panic(v)
			}
			err = fmt.Errorf("%w: the system has no page for it", ErrMemory)
		}
	}()
	f()
	return nil
}
