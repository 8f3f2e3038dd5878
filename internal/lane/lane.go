// Package lane begins direct streams on unix sockets, and manages memory that the two
// processes share, so that the words of requests and answers need not go through the socket.
//
//	host                                                     daemon
//	Offer: a preface, with a region's descriptor ───────────▶ Accept: checks it, maps it
//	       ◀────────────────────────────── a reply: a verdict on the region
//	       then a direct stream, on the same connection
//
// The region belongs to the connection: only its two ends may use it. Each end unmaps it
// when the connection has ended and nobody at that end uses it any more. Both sides may
// write to it at any time, so neither may assume that its content stays the same: words
// are copied out once, and only the copy is looked at. See docs/spec.md, section 8.
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

// Verdict is what a daemon says to a preface. After all but BadVersion the connection is a
// direct stream.
type Verdict uint64

const (
	Accepted   Verdict = 0 // the region, if there is one
	Off        Verdict = 1 // it shares memory with nobody
	TooLarge   Verdict = 2 // more than one connection may share
	NoRoom     Verdict = 3 // more than is left beside what others share
	BadMemory  Verdict = 4 // not exactly one descriptor, of sealed memory of that size
	BadVersion Verdict = 5 // a preface of another version: HTTP/2 may follow
)

var verdicts = [...]string{"accepted", "off", "too large", "no room", "bad memory", "another version"}

func (v Verdict) String() string {
	if v < Verdict(len(verdicts)) {
		return verdicts[v]
	}
	return fmt.Sprintf("verdict %d", uint64(v))
}

// Verdicts returns all that there are.
func Verdicts() []Verdict {
	return []Verdict{Accepted, Off, TooLarge, NoRoom, BadMemory, BadVersion}
}

var (
	// ErrVersion reports a daemon that knows prefaces of other versions alone.
	ErrVersion = errors.New("lane: another version")
	// ErrPreface reports bytes that are neither a preface nor HTTP/2's, or no reply to a
	// preface: the connection is of no use.
	ErrPreface = errors.New("lane: bad preface")
	// ErrMemory reports a descriptor that is not of memory that can be shared safely.
	ErrMemory = errors.New("lane: bad memory")
	// ErrUnsupported reports a system that cannot share memory so.
	ErrUnsupported = errors.New("lane: not supported on this system")
)

// The preface is as long as HTTP/2's own, so that a server which does not know it has
// read all that it waits for, and ends the connection.
const (
	prefaceSize = 24
	replySize   = 16
)

// magic begins both; the digit is the version.
var magic = [8]byte([]byte("snlane3\n"))

// preface returns what begins a direct stream, and offers a region of a size in bytes; 0: none.
func preface(size int64) []byte {
	b := binary.LittleEndian.AppendUint64(magic[:], uint64(size))
	return append(b, make([]byte, prefaceSize-len(b))...)
}

// parsePreface reads a preface. known is false where it is of another version.
func parsePreface(b []byte) (size int64, known bool, err error) {
	if len(b) != prefaceSize || !sameBut(b, 6) {
		return 0, false, fmt.Errorf("%w: %d bytes that are none", ErrPreface, len(b))
	}
	if b[6] != magic[6] {
		return 0, false, nil
	}
	n := binary.LittleEndian.Uint64(b[8:])
	if n > MaxSize || n%Grain != 0 {
		return 0, false, fmt.Errorf("%w: memory of %d bytes", ErrPreface, n)
	}
	if binary.LittleEndian.Uint64(b[16:]) != 0 {
		return 0, false, fmt.Errorf("%w: its last bytes are not 0", ErrPreface)
	}
	return int64(n), true, nil
}

// sameBut reports whether b begins with the magic of some version: byte at is a digit.
func sameBut(b []byte, at int) bool {
	return string(b[:at]) == string(magic[:at]) && b[at] >= '0' && b[at] <= '9' && string(b[at+1:len(magic)]) == string(magic[at+1:])
}

// reply returns what answers a preface.
func reply(v Verdict) []byte {
	return binary.LittleEndian.AppendUint64(magic[:], uint64(v))
}

func parseReply(b []byte) (Verdict, error) {
	if len(b) != replySize || [8]byte(b) != magic {
		return 0, fmt.Errorf("%w: %d bytes that are no reply", ErrPreface, len(b))
	}
	return Verdict(binary.LittleEndian.Uint64(b[8:])), nil
}

// Offer begins a direct stream on a connection on which nothing was sent yet, and offers a
// region of a size in bytes, a multiple of Grain; 0: none. The caller holds the region, which
// is nil where there is none, for the reason that the verdict gives.
//
// After an error the connection is to be closed, unless that wraps ErrUnsupported: then
// nothing was sent, and a stream without a region may be had. The error wraps ErrVersion
// where the daemon has no such streams.
func Offer(ctx context.Context, c *net.UnixConn, size int64) (*Region, Verdict, error) {
	var region *Region
	var rights []byte
	if size > 0 {
		f, r, err := create(size)
		if err != nil {
			return nil, 0, fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		defer f.Close() // the mapping stays, and the other end has a descriptor of its own
		region, rights = r, rightsOf(f)
	}
	// As gRPC has it, a connection that is not there in time is closed.
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

// Terms are what a daemon shares memory on.
type Terms struct {
	// Full says that no region of any size is wanted now: what is offered is not received.
	Full func() bool
	// Admit says whether a region of a size in bytes is wanted.
	Admit func(size int64) Verdict
	// Freed is told of each region that was admitted when it is not mapped any more, or was
	// not to be had, and with an error where its pages may still be there, at the cost of
	// this process.
	Freed func(size int64, err error)
	// Told is told what is replied to an offer of a region.
	Told func(Verdict)
}

// AnyTerms returns those of a server that takes all that it is offered.
func AnyTerms() Terms {
	return Terms{
		Full:  func() bool { return false },
		Admit: func(int64) Verdict { return Accepted },
		Freed: func(int64, error) {},
		Told:  func(Verdict) {},
	}
}

// Region is shared memory, mapped as long as someone at this end holds it. It may be
// used by several goroutines at once.
type Region struct {
	mem   []byte
	held  atomic.Int64
	freed func(error) // nil: the host's, whose pages are its own affair
	keep  atomic.Bool
}

// newRegion returns a region that its caller holds.
func newRegion(mem []byte, freed func(error)) *Region {
	r := &Region{mem: mem, freed: freed}
	r.held.Store(1)
	return r
}

// Size returns its size in bytes.
func (r *Region) Size() int { return len(r.mem) }

// Hold keeps the region mapped until Release. It returns false where that is too late.
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

// Release lets go of the region. The last one unmaps it, at a daemon after it took all
// pages out: a page is charged to who touched it first for as long as it is there, mapped or
// not, and the caller may keep a descriptor. The connection has ended before.
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

// Keep has the daemon leave the pages as they are when the region ends.
func (r *Region) Keep() { r.keep.Store(true) }

// punching are the regions whose pages are being taken out. A caller can have that wait, with
// a write to the memory that does not get on; others wait behind a few such, and nobody else.
var punching = make(chan struct{}, 4)

// end is the end of a daemon's region.
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

// Bytes returns the part of the region at an offset, of a length in bytes, and false
// where there is no such part. Its caller holds the region as long as it uses the part.
func (r *Region) Bytes(offset, length uint64) ([]byte, bool) {
	size := uint64(len(r.mem))
	if length > size || offset > size-length {
		return nil, false
	}
	return r.mem[offset : offset+length : offset+length], true
}

// Touch runs f, which reads or writes parts of regions. It returns an error that wraps
// ErrMemory where the system has no page for one of them, which is a signal otherwise:
// where memory must not be promised beyond what there is, whoever punches holes in a region
// could have that happen.
func Touch(f func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			if _, fault := v.(interface{ Addr() uintptr }); !fault {
				panic(v)
			}
			err = fmt.Errorf("%w: no page", ErrMemory)
		}
	}()
	f()
	return nil
}
