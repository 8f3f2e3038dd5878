package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/securenets/securenets/internal/localsocket"
)

// unixSocket reads and writes a unix socket by system calls that Go's scheduler is not told of:
// they do not wait for the peer, and one that takes long because another process has got the
// processor would otherwise have the scheduler wake another thread. A read may take long after
// all: it drops descriptors that came with the bytes, and a file system of the peer's own may
// take its time for that. So the scheduler is told of reads from a peer that cannot stop this
// process by other means. One goroutine may read and one write at a time.
type unixSocket struct {
	raw     syscall.RawConn
	in, out transfer
}

// transfer is a read or a write in progress.
type transfer struct {
	from  func(fd uintptr, b []byte) (int, syscall.Errno)
	bytes []byte       // read
	parts *net.Buffers // written
	wait  bool         // for the peer to read
	n     int
	err   syscall.Errno
	try   func(fd uintptr) (done bool)
}

// unixSocketOf returns nil for a connection that is not a unix socket.
func unixSocketOf(c Conn) *unixSocket {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := u.SyscallConn()
	if err != nil { // it is closed
		return nil
	}
	s := &unixSocket{raw: raw}
	s.in.from, s.in.try, s.out.try = toldRead, s.in.read, s.out.write
	if peer, err := localsocket.Peer(u); err == nil && canStop(peer) {
		s.in.from = rawRead
	}
	return s
}

// canStop reports whether a user can stop this process by other means.
func canStop(user uint32) bool { return user == 0 || int64(user) == int64(os.Geteuid()) }

// toldRead reads bytes by a system call that the scheduler is told of.
func toldRead(fd uintptr, b []byte) (int, syscall.Errno) {
	return told(func() (int, error) { return syscall.Read(int(fd), b) })
}

// told makes a system call, again if a signal interrupts it.
func told(call func() (int, error)) (int, syscall.Errno) {
	for {
		n, err := call()
		var errno syscall.Errno
		if err == nil {
			return n, 0
		} else if errors.As(err, &errno); errno != syscall.EINTR {
			return 0, errno
		}
	}
}

// Read implements io.Reader.
func (s *unixSocket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	t := &s.in
	t.bytes = b
	err := s.raw.Read(t.try)
	t.bytes = nil
	switch {
	case err != nil:
		return 0, named("read", err)
	case t.err != 0:
		return 0, os.NewSyscallError("read", t.err)
	case t.n == 0:
		return 0, io.EOF
	}
	return t.n, nil
}

func (t *transfer) read(fd uintptr) (done bool) {
	t.n, t.err = t.from(fd, t.bytes)
	return t.err != syscall.EAGAIN
}

// Write writes parts, which it changes to what is left: nothing, unless it fails or may not
// wait for the peer to read.
func (s *unixSocket) Write(parts *net.Buffers, wait bool) error {
	t := &s.out
	t.parts, t.wait = parts, wait
	err := s.raw.Write(t.try)
	t.parts = nil
	if err == nil && t.err != 0 {
		err = os.NewSyscallError("writev", t.err)
	}
	return named("write", err)
}

// named returns an error of a raw connection with the name that the operation usually has.
func named(op string, err error) error {
	var e *net.OpError
	if errors.As(err, &e) {
		e.Op = op
	}
	return err
}

func (t *transfer) write(fd uintptr) (done bool) {
	t.err = 0
	for len(*t.parts) > 0 {
		written, err := rawWrite(fd, *t.parts)
		if err == syscall.EAGAIN {
			return !t.wait
		}
		if err != 0 {
			t.err = err
			return true
		}
		consume(t.parts, written)
	}
	return true
}

// consume drops n bytes from the start of parts, and empty ones.
func consume(parts *net.Buffers, n int) {
	for len(*parts) > 0 {
		if left := len((*parts)[0]) - n; left > 0 {
			(*parts)[0] = (*parts)[0][n:]
			return
		}
		n -= len((*parts)[0])
		(*parts)[0] = nil
		*parts = (*parts)[1:]
	}
}
