package wire

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Ended reports whether either end has closed the connection. Data received before that may
// still be unread.
func Ended(c syscall.Conn) bool { return polled(c, unix.POLLRDHUP) }

// Gone reports whether the peer no longer receives either. TLS has a message of its own for
// the end of sending, so there a TCP connection closed in either direction means that the
// peer has gone.
func Gone(c syscall.Conn) bool { return polled(c, going(c)) }

// going returns the poll events, besides POLLHUP, that mean that the peer has gone.
func going(c syscall.Conn) int16 {
	if _, tcp := c.(*net.TCPConn); tcp {
		return unix.POLLRDHUP
	}
	return 0
}

// polled reports whether a connection has one of the given poll events, or is closed in both
// directions.
func polled(c syscall.Conn, states int16) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	is := true
	if err := raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: states}}
		n, err := unix.Poll(p, 0)
		is = n != 0 && err != unix.EINTR // a signal says nothing about the connection
	}); err != nil {
		return true
	}
	return is
}

// watch calls gone once the peer of a connection has gone, whether or not the connection is
// being read then. Data that arrives does not wake it. It watches until stop is called; gone
// may still be called shortly after that.
func watch(c syscall.Conn, gone func()) (stop func(), err error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that waiting blocks no thread
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "epoll")
	watched, err := c.SyscallConn()
	if err == nil {
		var failed error
		err = watched.Control(func(conn uintptr) {
			// EPOLLHUP is always reported. EPOLLIN is left out: data must not wake this.
			wanted := &unix.EpollEvent{Events: uint32(going(c))}
			failed = os.NewSyscallError("epoll_ctl", unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, int(conn), wanted))
		})
		err = errors.Join(err, failed)
	}
	var events syscall.RawConn
	if err == nil {
		events, err = f.SyscallConn()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	go func() {
		var is [1]unix.EpollEvent
		if events.Read(func(fd uintptr) bool {
			n, err := unix.EpollWait(int(fd), is[:], 0)
			return n > 0 && err == nil
		}) == nil {
			gone()
		}
	}()
	return func() { f.Close() }, nil
}

// setUserTimeout makes a connection end once sent data has been unacknowledged, or not
// accepted, for the given time (TCP_USER_TIMEOUT, RFC 5482).
func setUserTimeout(c *net.TCPConn, after time.Duration) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds())))
	})
	return errors.Join(err, failed)
}
