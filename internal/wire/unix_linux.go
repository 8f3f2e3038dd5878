package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// unixSocket reads and writes a unix socket by system calls that Go's scheduler is not told of:
// they do not wait for the peer, and one that takes long because another process has got the
// processor would otherwise have the scheduler wake another thread. One goroutine may read and
// one write at a time.
type unixSocket struct {
	raw     syscall.RawConn
	in, out transfer
}

// transfer is a read or a write in progress.
type transfer struct {
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
	s.in.try, s.out.try = s.in.read, s.out.write
	return s
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
	t.n, t.err = rawRead(fd, t.bytes)
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
