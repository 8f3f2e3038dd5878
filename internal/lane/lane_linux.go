package lane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Supported says whether this system can share memory.
const Supported = true

// seals are what a region is offered with: it can neither shrink, which is what makes a
// mapping safe to read, nor grow, and no more seals can be set, which would keep a daemon
// from writing, and from taking pages out.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// create returns a descriptor of new memory of a size in bytes, sealed.
func create(size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("securenets", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:securenets")
	if err := unix.Ftruncate(fd, size); err != nil {
		f.Close()
		return nil, os.NewSyscallError("ftruncate", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	return f, nil
}

// check returns an error that wraps ErrMemory for a descriptor that is not of memory
// that stays readable and writable, of exactly this size.
//
// A read of a mapping past the end of its file is a SIGBUS. The seal against shrinking
// is the file's and cannot be taken back, so that no holder of any descriptor can cut
// it. A hole that somebody punches reads as zeros: tmpfs makes its page at the next
// access. Files of hugetlbfs can have seals too, and no page then: they are refused.
//
// A descriptor can be of a file system that its sender serves, and does not: nothing is
// called that asks one before it is known that the file has seals, which is for the kernel's own.
func check(fd int, size int64) error {
	set, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMemory, os.NewSyscallError("fcntl", err))
	}
	if set&unix.F_SEAL_SHRINK == 0 {
		return fmt.Errorf("%w: it can shrink", ErrMemory)
	}
	if set&unix.F_SEAL_SEAL == 0 || set&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
		return fmt.Errorf("%w: it is or can be sealed against writing", ErrMemory)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fmt.Errorf("%w: %w", ErrMemory, os.NewSyscallError("fstatfs", err))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%w: %w", ErrMemory, os.NewSyscallError("fstat", err))
	}
	if int64(fs.Type) != unix.TMPFS_MAGIC || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%w: no file of tmpfs", ErrMemory)
	}
	if st.Size != size {
		return fmt.Errorf("%w: it has %d bytes, not %d", ErrMemory, st.Size, size)
	}
	return nil
}

// open maps memory, which its caller then holds. For freed see Region.
func open(fd int, size int64, freed func(error)) (*Region, error) {
	mem, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMemory, os.NewSyscallError("mmap", err))
	}
	return newRegion(mem, freed), nil
}

func unmap(mem []byte) {
	if err := unix.Munmap(mem); err != nil { // only of what is not mapped
		panic(err)
	}
}

// punch takes all pages out of memory.
func punch(mem []byte) error {
	return os.NewSyscallError("madvise", unix.Madvise(mem, unix.MADV_REMOVE))
}

// Ended reports whether the other end of a connection has ended it, or this one has. What
// came before that need not have been read.
func Ended(c syscall.Conn) bool { return polled(c, unix.POLLRDHUP) }

// Gone is Ended where the other end does not receive any more either.
func Gone(c syscall.Conn) bool { return polled(c, 0) }

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
		is = n != 0 || err != nil
	}); err != nil {
		return true
	}
	return is
}

// Watch calls gone once the other end of a connection has ended it both ways, whether anybody
// reads it then or not. What comes on the connection wakes nobody here. It watches until stop
// is called, and gone may still be called then.
func Watch(c syscall.Conn, gone func()) (stop func(), err error) {
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
			// EPOLLHUP is told unasked, and nothing else is wanted.
			failed = os.NewSyscallError("epoll_ctl", unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, int(conn), new(unix.EpollEvent)))
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

// Offer offers a region of a size in bytes, a multiple of Grain, on a connection on which
// nothing was sent yet. After an error, a *RefusedError or another, the connection is to be
// closed. The caller holds the region.
func Offer(ctx context.Context, c *net.UnixConn, size int64) (*Region, error) {
	f, err := create(size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	defer f.Close() // the mapping stays, and the other end has a descriptor of its own
	region, err := open(int(f.Fd()), size, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	// As gRPC has it, a connection that is not there in time is closed.
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	verdict, err := offer(c, int(f.Fd()), size)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil && verdict != Accepted {
		err = &RefusedError{verdict}
	}
	if err != nil {
		region.Release()
		return nil, err
	}
	return region, nil
}

func offer(c *net.UnixConn, fd int, size int64) (Verdict, error) {
	p := preface(size)
	n, _, err := c.WriteMsgUnix(p, unix.UnixRights(fd), nil)
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

// Accept waits for the first byte that comes on a connection. Where it begins a preface,
// Accept reads it, and nothing more, and replies. It returns nil and no error where HTTP/2
// is to begin without a region: a preface need not be there.
//
// The caller holds the region, and has set a deadline. It ends the connection before it
// lets go of the region.
func Accept(c *net.UnixConn, t Terms) (*Region, error) {
	first, err := peek(c)
	if err != nil || first != magic[0] {
		return nil, err
	}
	fds, b, err := readPreface(c, !t.Full() && !strangers.full())
	defer closeAll(fds)
	if err != nil {
		return nil, err
	}
	size, known, err := parsePreface(b)
	if err != nil {
		return nil, err
	}
	verdict := BadVersion
	var region *Region
	if known {
		region, verdict = take(fds, size, t)
	}
	t.Told(verdict)
	if _, err := c.Write(reply(verdict)); err != nil {
		if region != nil {
			region.Release()
		}
		return nil, err
	}
	return region, nil
}

// take maps the one descriptor that came, if that is wanted and as it was said to be.
func take(fds []int, size int64, t Terms) (*Region, Verdict) {
	if v := t.Admit(size); v != Accepted {
		return nil, v
	}
	err := error(ErrMemory)
	if len(fds) == 1 {
		err = check(fds[0], size)
	}
	var r *Region
	if err == nil {
		r, err = open(fds[0], size, func(err error) { t.Freed(size, err) })
	}
	if err != nil {
		t.Freed(size, nil)
		return nil, BadMemory
	}
	return r, Accepted
}

// peek returns the first byte that comes, and leaves it. Descriptors that come with
// it stay, too.
func peek(c *net.UnixConn) (byte, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var b [1]byte
	var n int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, failed = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK)
			if failed != unix.EINTR {
				return failed != unix.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case failed != nil:
		return 0, os.NewSyscallError("recvfrom", failed)
	case n == 0:
		return 0, io.EOF
	}
	return b[0], nil
}

// errCut reports descriptors that there was no room for: the system has closed them.
var errCut = errors.New("descriptors were cut off")

// readPreface reads a preface, and the descriptors that come with it, which are the
// caller's to close whatever the error; where they are not to be received, the system
// drops them.
func readPreface(c *net.UnixConn, receive bool) (fds []int, b []byte, err error) {
	b = make([]byte, prefaceSize)
	if !receive {
		_, err = io.ReadFull(c, b)
		return nil, b, err
	}
	oob := make([]byte, unix.CmsgSpace(4)) // room for one or, with padding, two
	for at := 0; at < len(b); {
		// net sets MSG_CMSG_CLOEXEC.
		n, oobn, flags, _, err := c.ReadMsgUnix(b[at:], oob)
		more, err2 := descriptors(oob[:oobn])
		fds = append(fds, more...)
		if err == nil {
			err = err2
		}
		if err == nil && flags&unix.MSG_CTRUNC != 0 {
			err = fmt.Errorf("%w: %w", ErrPreface, errCut)
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fds, nil, err
		}
		at += n
	}
	return fds, b, nil
}

// descriptors returns those in a control message.
func descriptors(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPreface, err)
	}
	for i := range messages {
		if more, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, more...)
		}
	}
	return fds, nil
}

// closeAll closes descriptors. It does not wait for the file systems of others.
func closeAll(fds []int) {
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err == nil {
			unix.Close(fd)
		} else {
			strangers.close(fd)
		}
	}
}

// strangers closes what is no memory, which may take as long as its sender likes.
var strangers = closer{shut: unix.Close}

// maxClosing is how many descriptors may hang as they are closed.
const maxClosing = 4

// closer closes descriptors in goroutines, of which there are at most maxClosing.
type closer struct {
	shut    func(fd int) error
	mu      sync.Mutex
	running int
	waiting []int
}

// full reports whether another descriptor would have to wait.
func (c *closer) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running == maxClosing
}

func (c *closer) close(fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, fd)
	if c.running < maxClosing {
		c.running++
		go c.run()
	}
}

func (c *closer) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.waiting) > 0 {
		fd := c.waiting[0]
		c.waiting = c.waiting[1:]
		shut := c.shut
		c.mu.Unlock()
		shut(fd)
		c.mu.Lock()
	}
	c.running--
}
