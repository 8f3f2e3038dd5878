package wire

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Ended reports whether the other end of a connection has ended it, or this one has. What
// came before that need not have been read.
func Ended(c syscall.Conn) bool { return polled(c, unix.POLLRDHUP) }

// Gone is Ended where the other end does not receive any more either. By TLS, which has a
// message of its own for having no more to send, an end of TCP either way is that.
func Gone(c syscall.Conn) bool { return polled(c, going(c)) }

// going returns the state of a connection, beside its end both ways, in which the other end
// has gone.
func going(c syscall.Conn) int16 {
	if _, tcp := c.(*net.TCPConn); tcp {
		return unix.POLLRDHUP
	}
	return 0
}

// polled reports whether a connection is in one of the states that are asked for, or has
// ended both ways.
func polled(c syscall.Conn, states int16) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	is := true
	if err := raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: states}}
		n, err := unix.Poll(p, 0)
		is = n != 0 && err != unix.EINTR // by a signal, where it is in none
	}); err != nil {
		return true
	}
	return is
}

// watch calls gone once the other end of a connection has gone, whether anybody reads it then
// or not. What comes on the connection wakes nobody here. It watches until stop is called, and
// gone may still be called then.
func watch(c syscall.Conn, gone func()) (stop func(), err error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that it costs no thread
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "epoll")
	watched, err := c.SyscallConn()
	if err == nil {
		var failed error
		err = watched.Control(func(conn uintptr) {
			// EPOLLHUP is told unasked, and nothing is wanted of what comes.
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

// setUserTimeout has a connection end once what was sent by it was not acknowledged, or not
// taken, for so long (TCP_USER_TIMEOUT, RFC 5482).
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
