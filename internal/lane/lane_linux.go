package lane

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// seals are the seals of an offered region. It cannot shrink, which makes a mapping safe to
// read, nor grow. No more seals can be set: one against writing would keep the daemon from
// writing and from taking pages out.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// create returns a descriptor of size bytes of new, sealed memory, and a mapping of it, which
// the caller holds.
func create(size int64) (_ *os.File, _ *Region, err error) {
	fd, err := unix.MemfdCreate("securenets", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:securenets")
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := unix.Ftruncate(fd, size); err != nil {
		return nil, nil, os.NewSyscallError("ftruncate", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	r, err := open(fd, size, nil)
	return f, r, err
}

// rightsOf returns the control message that passes a descriptor to another process.
func rightsOf(f *os.File) []byte { return unix.UnixRights(int(f.Fd())) }

// check returns an error that wraps ErrMemory unless a descriptor is of memory of exactly
// this size that stays readable and writable.
//
// Reading a mapping past the end of its file raises SIGBUS. The seal against shrinking
// belongs to the file and cannot be removed, so that no holder of any descriptor can truncate
// it. A hole that somebody punches reads as zeros: tmpfs allocates its page at the next
// access. Files of hugetlbfs can have seals too, but the next access may find no page: they
// are refused.
//
// A descriptor may be of a file system that its sender serves and that never answers. Only
// files of the kernel's own file systems have seals, so no call that could ask the file
// system is made before the seals are checked.
func check(fd int, size int64) error {
	set, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMemory, os.NewSyscallError("fcntl", err))
	}
	if set&unix.F_SEAL_SHRINK == 0 {
		return fmt.Errorf("%w: it can shrink", ErrMemory)
	}
	if set&unix.F_SEAL_SEAL == 0 || set&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
		return fmt.Errorf("%w: it is, or can be, sealed against writing", ErrMemory)
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
		return fmt.Errorf("%w: it is not a file of tmpfs", ErrMemory)
	}
	if st.Size != size {
		return fmt.Errorf("%w: it has %d bytes, want %d", ErrMemory, st.Size, size)
	}
	return nil
}

// open maps memory, which the caller then holds. For freed see Region.
func open(fd int, size int64, freed func(error)) (*Region, error) {
	mem, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMemory, os.NewSyscallError("mmap", err))
	}
	return newRegion(mem, freed), nil
}

func unmap(mem []byte) {
	if err := unix.Munmap(mem); err != nil { // fails only if mem is not mapped
		panic(err)
	}
}

// punch frees all pages of a region.
func punch(mem []byte) error {
	return os.NewSyscallError("madvise", unix.Madvise(mem, unix.MADV_REMOVE))
}

// Accept waits for the first byte on a connection. If it begins a preface, Accept reads the
// preface, and nothing more, and replies. Otherwise it reads nothing, and direct is false:
// HTTP/2 should follow. The region of a direct stream may be nil.
//
// The caller must have set a deadline. It holds the region, and must end the connection before
// it releases the region.
func Accept(c *net.UnixConn, t Terms) (r *Region, direct bool, err error) {
	first, err := peek(c)
	if err != nil || first != magic[0] {
		return nil, false, err
	}
	fds, b, err := readPreface(c, !t.Full() && !strangers.full())
	defer closeAll(fds)
	if err != nil {
		return nil, false, err
	}
	size, known, err := parsePreface(b)
	if err != nil {
		return nil, false, err
	}
	verdict := Accepted
	switch {
	case !known:
		verdict = BadVersion
	case size > 0:
		r, verdict = take(fds, size, t)
	}
	if size > 0 || !known {
		t.Told(verdict)
	}
	if _, err := c.Write(reply(verdict)); err != nil {
		if r != nil {
			r.Release()
		}
		return nil, false, err
	}
	return r, known, nil
}

// take maps the region if it is admitted and exactly one good descriptor was received.
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

// peek returns the first byte on a connection without receiving it, or the descriptors that
// come with it.
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

// errCut reports more descriptors than were asked for: the system has closed them.
var errCut = errors.New("too many descriptors")

// readPreface reads a preface and, if receive is true, the descriptors that come with it,
// which the caller must close whatever the error. Otherwise the system drops them.
func readPreface(c *net.UnixConn, receive bool) (fds []int, b []byte, err error) {
	b = make([]byte, prefaceSize)
	if !receive {
		_, err = io.ReadFull(c, b)
		return nil, b, err
	}
	oob := make([]byte, unix.CmsgSpace(4)) // for one descriptor or, with padding, two
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

// descriptors returns the descriptors in a control message.
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

// closeAll closes descriptors. It does not wait for file systems that other processes serve.
func closeAll(fds []int) {
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err == nil {
			unix.Close(fd)
		} else {
			strangers.close(fd)
		}
	}
}

// strangers closes descriptors that are not of memory. Closing one may take as long as its
// sender likes.
var strangers = closer{shut: unix.Close}

// maxClosing is how many descriptors are closed at a time.
const maxClosing = 4

// closer closes descriptors in at most maxClosing goroutines.
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
