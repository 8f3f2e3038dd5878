package lane_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/securenets/securenets/internal/lane"
)

// pair returns two ends of a connection, with a deadline.
func pair(t *testing.T) (host, daemon *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		ends[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return ends[0], ends[1]
}

// held is the descriptors and mappings of this process that tests make.
type held struct{ fds, maps int }

func holds(t *testing.T) (h held) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return held{len(fds), strings.Count(string(maps), "memfd:")}
}

// settled is holds once all descriptors of other tests are closed, their memory is unmapped,
// which a daemon does in the background, and the runtime's own descriptors are open.
func settled(t *testing.T) held {
	t.Helper()
	r, w, err := os.Pipe() // the first one opens them
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if h := holds(t); h.maps == 0 && lane.Closing() == 0 {
			return holds(t)
		} else if time.Now().After(end) {
			t.Fatalf("%+v, and descriptors that are not closed: %d", h, lane.Closing())
		}
	}
}

// waitForHeld waits until the process holds only what it did before, and nothing is admitted.
func waitForHeld(t *testing.T, before held, l *ledger) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Microsecond) {
		after, admitted := holds(t), l.left()
		if after == before && admitted == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%+v before, %+v after, %d bytes admitted", before, after, admitted)
		}
	}
}

// ledger counts what a daemon has admitted.
type ledger struct {
	mu       sync.Mutex
	verdict  lane.Verdict
	full     bool
	admitted int64
	lost     error
	told     []lane.Verdict
}

func (l *ledger) left() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.admitted
}

func (l *ledger) admit(size int64) lane.Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.verdict == lane.Accepted {
		l.admitted += size
	}
	return l.verdict
}

func (l *ledger) freed(size int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.admitted -= size
	l.lost = err
}

func (l *ledger) tell(v lane.Verdict) { l.told = append(l.told, v) }

func (l *ledger) accept(c *net.UnixConn) (r *lane.Region, direct bool, err error) {
	return lane.Accept(c, lane.Terms{Full: func() bool { return l.full }, Admit: l.admit, Freed: l.freed, Told: l.tell})
}

// memfd returns a descriptor of memory with seals.
func memfd(t *testing.T, size int64, flags, seals int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|flags)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return fd
}

const goodSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// TestOffer: both ends see the same memory, until both have released it.
func TestOffer(t *testing.T) {
	before := settled(t)
	host, daemon := pair(t)
	const size = 2 * lane.Grain
	var l ledger
	accepted := make(chan *lane.Region)
	go func() {
		r, direct, err := l.accept(daemon)
		if err != nil || !direct {
			t.Errorf("direct %v, %v", direct, err)
		}
		accepted <- r
	}()
	ours, v, err := lane.Offer(t.Context(), host, size)
	if err != nil || v != lane.Accepted {
		t.Fatal(v, err)
	}
	theirs := <-accepted
	if ours.Size() != size || theirs.Size() != size || l.admitted != size || l.told[0] != lane.Accepted {
		t.Fatalf("%d and %d bytes, %d admitted", ours.Size(), theirs.Size(), l.admitted)
	}
	a, _ := ours.Bytes(100, 5)
	b, _ := theirs.Bytes(100, 5)
	if copy(a, "hello"); string(b) != "hello" {
		t.Errorf("the daemon sees %q", b)
	}
	if copy(b, "HELLO"); string(a) != "HELLO" {
		t.Errorf("the host sees %q", a)
	}
	if _, err := host.Write([]byte("PRI")); err != nil {
		t.Fatal(err)
	}
	var next [3]byte
	if _, err := io.ReadFull(daemon, next[:]); err != nil || string(next[:]) != "PRI" {
		t.Errorf("then comes %q, %v", next, err)
	}

	// Any holder keeps a region mapped. Once it has no holder, it cannot be held again.
	if !theirs.Hold() {
		t.Fatal("not to be held")
	}
	theirs.Release()
	if l.left() != size {
		t.Error("freed while it is held")
	}
	b[0] = 'h'
	if a[0] != 'h' {
		t.Error("the other end lost its memory")
	}
	theirs.Release()
	if theirs.Hold() {
		t.Error("held after its end")
	}
	host.Close()
	daemon.Close()
	waitForHeld(t, held{before.fds, before.maps + 1}, &l)
	a[0] = 1 // still mapped: it is held here
	ours.Release()
	waitForHeld(t, before, &l)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("released twice")
			}
		}()
		theirs.Release()
	}()
}

// TestBytes: it returns only parts that are wholly in the region.
func TestBytes(t *testing.T) {
	const size = lane.Grain
	r, _ := offered(t, size)
	defer r.Release()
	for _, c := range []struct {
		offset, length uint64
		ok             bool
	}{
		{0, 0, true}, {0, size, true}, {size, 0, true}, {size - 1, 1, true}, {7, 9, true},
		{0, size + 1, false}, {1, size, false}, {size, 1, false}, {size + 1, 0, false}, {size - 1, 2, false},
		{math.MaxUint64, 1, false}, {1, math.MaxUint64, false}, {math.MaxUint64, math.MaxUint64, false},
		{math.MaxUint64 - 3, 8, false}, {8, math.MaxUint64 - 3, false}, {1 << 63, 1 << 63, false},
	} {
		b, ok := r.Bytes(c.offset, c.length)
		if ok != c.ok || ok && (uint64(len(b)) != c.length || uint64(cap(b)) != c.length) {
			t.Errorf("%d at %d: %v, %d bytes", c.length, c.offset, ok, len(b))
		}
	}
}

// TestHostileOffers: a bad preface, or an offer of memory that is not safe, is refused. No more
// than a preface is read, and no descriptor, mapping or admitted byte is left.
func TestHostileOffers(t *testing.T) {
	const size = lane.Grain
	good := lane.Preface(size)
	type offer struct {
		name    string
		bytes   []byte
		fds     func(t *testing.T) []int
		verdict lane.Verdict // if there is a reply
		err     error        // if there is none
	}
	one := func(fd int) []int { return []int{fd} }
	sealed := func(t *testing.T) []int { return one(memfd(t, size, 0, goodSeals)) }
	none := func(*testing.T) []int { return nil }
	many := func(n int) func(t *testing.T) []int {
		return func(t *testing.T) (fds []int) {
			for range n {
				fds = append(fds, memfd(t, size, 0, goodSeals))
			}
			return fds
		}
	}
	file := func(path string, flags int) func(t *testing.T) []int {
		return func(t *testing.T) []int {
			fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			return one(fd)
		}
	}
	regular := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(regular, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	onTmpfs, err := os.CreateTemp("/dev/shm", "securenets")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(onTmpfs.Name())
	defer onTmpfs.Close()
	if err := onTmpfs.Truncate(size); err != nil {
		t.Fatal(err)
	}
	offers := []offer{
		{"good", good, sealed, lane.Accepted, nil},
		{"not sealed against growing", good, func(t *testing.T) []int { return one(memfd(t, size, 0, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)) }, lane.Accepted, nil},
		{"not sealed against more seals", good, func(t *testing.T) []int { return one(memfd(t, size, 0, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)) }, lane.BadMemory, nil},
		{"another version", with(good, 6, '1'), sealed, lane.BadVersion, nil},
		{"no descriptor", good, none, lane.BadMemory, nil},
		{"two descriptors", good, many(2), lane.BadMemory, nil},
		{"three descriptors", good, many(3), 0, lane.ErrPreface},
		{"as many as there can be", good, many(253), 0, lane.ErrPreface},
		{"not sealed", good, func(t *testing.T) []int { return one(memfd(t, size, 0, 0)) }, lane.BadMemory, nil},
		{"sealed against growing", good, func(t *testing.T) []int { return one(memfd(t, size, 0, unix.F_SEAL_GROW|unix.F_SEAL_SEAL)) }, lane.BadMemory, nil},
		{"sealed against writing", good, func(t *testing.T) []int { return one(memfd(t, size, 0, goodSeals|unix.F_SEAL_WRITE)) }, lane.BadMemory, nil},
		{"sealed against writing later", good, func(t *testing.T) []int { return one(memfd(t, size, 0, goodSeals|unix.F_SEAL_FUTURE_WRITE)) }, lane.BadMemory, nil},
		{"a page less", good, func(t *testing.T) []int { return one(memfd(t, size-1, 0, goodSeals)) }, lane.BadMemory, nil},
		{"a page more", good, func(t *testing.T) []int { return one(memfd(t, size+1, 0, goodSeals)) }, lane.BadMemory, nil},
		{"empty", good, func(t *testing.T) []int { return one(memfd(t, 0, 0, goodSeals)) }, lane.BadMemory, nil},
		{"huge pages", lane.Preface(32 * lane.Grain), func(t *testing.T) []int {
			return one(memfd(t, 32*lane.Grain, unix.MFD_HUGETLB|unix.MFD_HUGE_2MB, goodSeals))
		}, lane.BadMemory, nil},
		{"a file", good, file(regular, unix.O_RDWR), lane.BadMemory, nil},
		{"a file of tmpfs", good, file(onTmpfs.Name(), unix.O_RDWR), lane.BadMemory, nil},
		{"a device", good, file("/dev/zero", unix.O_RDWR), lane.BadMemory, nil},
		{"a folder", good, file("/dev/shm", unix.O_RDONLY), lane.BadMemory, nil},
		{"a path alone", good, file(onTmpfs.Name(), unix.O_PATH), lane.BadMemory, nil},
		{"a pipe", good, func(t *testing.T) []int {
			var p [2]int
			if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			unix.Close(p[0])
			return one(p[1])
		}, lane.BadMemory, nil},
		{"read only", good, func(t *testing.T) []int {
			fd := memfd(t, size, 0, goodSeals)
			defer unix.Close(fd)
			return file(fmt.Sprint("/proc/self/fd/", fd), unix.O_RDONLY)(t)
		}, lane.BadMemory, nil},
		{"write only", good, func(t *testing.T) []int {
			fd := memfd(t, size, 0, goodSeals)
			defer unix.Close(fd)
			return file(fmt.Sprint("/proc/self/fd/", fd), unix.O_WRONLY)(t)
		}, lane.BadMemory, nil},
		{"cut", good[:23], sealed, 0, io.ErrUnexpectedEOF},
		{"one byte", good[:1], sealed, 0, io.ErrUnexpectedEOF},
	}
	for name, b := range badPrefaces() {
		offers = append(offers, offer{name, b, sealed, 0, lane.ErrPreface})
	}
	for _, o := range offers {
		t.Run(o.name, func(t *testing.T) {
			for _, chunk := range []int{len(o.bytes), 1, 10} { // bytes that are sent at a time
				before := settled(t)
				host, daemon := pair(t)
				fds := o.fds(t)
				var rights []byte
				if len(fds) > 0 {
					rights = unix.UnixRights(fds...)
				}
				for b := o.bytes; len(b) > 0; b = b[min(chunk, len(b)):] {
					if _, _, err := host.WriteMsgUnix(b[:min(chunk, len(b))], rights, nil); err != nil {
						t.Fatal(err)
					}
					rights = nil
				}
				for _, fd := range fds {
					unix.Close(fd)
				}
				if o.err == io.ErrUnexpectedEOF {
					host.CloseWrite()
				} else if _, err := host.Write([]byte("rest")); err != nil {
					t.Fatal(err)
				}
				var l ledger
				r, direct, err := l.accept(daemon)
				if o.err != nil {
					if !errors.Is(err, o.err) || r != nil || direct || len(l.told) > 0 {
						t.Errorf("in pieces of %d: %v, told %v", chunk, err, l.told)
					}
				} else {
					var b [16]byte
					_, err2 := io.ReadFull(host, b[:])
					v, err3 := lane.ParseReply(b[:])
					if err := errors.Join(err, err2, err3); err != nil || v != o.verdict || (r != nil) != (v == lane.Accepted) || direct != (v != lane.BadVersion) || l.told[0] != v {
						t.Errorf("in pieces of %d: %v, %v", chunk, v, err)
					}
					rest := make([]byte, 10)
					if n, err := daemon.Read(rest); err != nil || string(rest[:n]) != "rest" {
						t.Errorf("then comes %q, %v", rest[:n], err)
					}
				}
				if r != nil {
					r.Release()
				}
				host.Close()
				daemon.Close()
				waitForHeld(t, before, &l)
			}
		})
	}
}

// TestHugePages: memory of hugetlbfs is refused. It has seals like memory of tmpfs, but may
// lack pages. Whether it can be mapped at the moment does not matter.
func TestHugePages(t *testing.T) {
	const size = 32 * lane.Grain
	fd := memfd(t, size, unix.MFD_HUGETLB|unix.MFD_HUGE_2MB, goodSeals)
	defer unix.Close(fd)
	if err := lane.Check(fd, size); !errors.Is(err, lane.ErrMemory) {
		t.Errorf("accepted: %v", err)
	}
}

// TestLateDescriptors: descriptors that come with a later byte of the preface count too.
func TestLateDescriptors(t *testing.T) {
	before := settled(t)
	host, daemon := pair(t)
	b := lane.Preface(lane.Grain)
	for i := range b {
		fd := memfd(t, lane.Grain, 0, goodSeals)
		if _, _, err := host.WriteMsgUnix(b[i:i+1], unix.UnixRights(fd), nil); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	var l ledger
	r, direct, err := l.accept(daemon)
	if r != nil || !direct || err != nil || l.told[0] != lane.BadMemory {
		t.Errorf("%v, direct %v, %v", l.told, direct, err)
	}
	host.Close()
	daemon.Close()
	waitForHeld(t, before, &l)
}

// send offers descriptors and returns the reply.
func send(t *testing.T, l *ledger, fds ...int) (r *lane.Region, v lane.Verdict) {
	t.Helper()
	host, daemon := pair(t)
	if _, _, err := host.WriteMsgUnix(lane.Preface(lane.Grain), unix.UnixRights(fds...), nil); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, _, _ = l.accept(daemon)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("an offer is not answered")
	}
	var b [16]byte
	if _, err := io.ReadFull(host, b[:]); err != nil {
		t.Fatal(err)
	}
	v, err := lane.ParseReply(b[:])
	if err != nil {
		t.Fatal(err)
	}
	host.Close()
	daemon.Close()
	return r, v
}

// blocks returns the memory that a file occupies, in blocks.
func blocks(t *testing.T, fd int) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

// TestPages: a daemon that releases a region leaves no page of it, however long the caller
// keeps a descriptor, unless Keep was called.
func TestPages(t *testing.T) {
	for _, keep := range []bool{false, true} {
		before := settled(t)
		fd := memfd(t, lane.Grain, 0, goodSeals)
		var l ledger
		r, v := send(t, &l, fd)
		if v != lane.Accepted {
			t.Fatal(v)
		}
		b, _ := r.Bytes(0, lane.Grain)
		read := byte(0)
		for i := range b { // allocates all pages
			read |= b[i]
		}
		if blocks(t, fd)*512 != lane.Grain || read != 0 {
			t.Fatalf("%d blocks", blocks(t, fd))
		}
		if keep {
			r.Keep()
		}
		r.Release()
		waitForHeld(t, held{before.fds + 1, before.maps}, &l)
		if n := blocks(t, fd); (n != 0) != keep || l.lost != nil {
			t.Errorf("kept %v: %d blocks are left, %v", keep, n, l.lost)
		}
		unix.Close(fd)
	}
}

// TestLostPages: pages that cannot be taken out are reported. Only memory with other seals
// than check wants can have such pages.
func TestLostPages(t *testing.T) {
	fd := memfd(t, lane.Grain, 0, unix.F_SEAL_SHRINK)
	defer unix.Close(fd)
	lost := make(chan error)
	r, err := lane.Open(fd, lane.Grain, func(err error) { lost <- err })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); err != nil {
		t.Fatal(err)
	}
	r.Release()
	if err := <-lost; !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}

// TestNotReceived: a daemon that has no room for memory receives no descriptors.
func TestNotReceived(t *testing.T) {
	fd := memfd(t, lane.Grain, 0, goodSeals)
	defer unix.Close(fd)
	before := settled(t)
	for admits, want := range map[lane.Verdict]lane.Verdict{lane.Off: lane.Off, lane.NoRoom: lane.NoRoom, lane.Accepted: lane.BadMemory} {
		l := ledger{verdict: admits, full: true}
		if r, v := send(t, &l, fd); r != nil || v != want {
			t.Errorf("%v, want %v", v, want)
		}
		if after := holds(t); after.maps != before.maps {
			t.Error("it is mapped")
		}
		waitForHeld(t, before, &l)
	}
	// Too many descriptors, an error otherwise, do no harm here.
	host, daemon := pair(t)
	if _, _, err := host.WriteMsgUnix(lane.Preface(lane.Grain), unix.UnixRights(fd, fd, fd, fd), nil); err != nil {
		t.Fatal(err)
	}
	l := ledger{verdict: lane.Off, full: true}
	if r, direct, err := l.accept(daemon); r != nil || !direct || err != nil || l.told[0] != lane.Off {
		t.Errorf("%v, told %v", err, l.told)
	}
}

// TestSlowFileSystem: a descriptor of a file system that does not answer blocks nothing.
func TestSlowFileSystem(t *testing.T) {
	fuse, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("no file system can be made: ", err)
	}
	end := sync.OnceFunc(func() { unix.Close(fuse) }) // fails the calls that wait for it
	defer end()
	dir := t.TempDir()
	if err := unix.Mount("test", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse)); err != nil {
		t.Skip("no file system can be made: ", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	defer end() // before anything else
	var l ledger
	if _, v := send(t, &l, fd); v != lane.BadMemory {
		t.Error(v)
	}
}

// TestSlowClose: descriptors that take long to close delay no handshake. While the maximum
// number of them are being closed, no more are received.
func TestSlowClose(t *testing.T) {
	before := settled(t)
	hang := make(chan struct{})
	var hanging atomic.Int32
	defer lane.SetClose(func(fd int) error {
		if hanging.Add(1) > lane.MaxClosing {
			t.Error("too many hang")
		}
		<-hang
		hanging.Add(-1)
		return unix.Close(fd)
	})()
	var l ledger
	for i := range lane.MaxClosing {
		fd := memfd(t, lane.Grain, 0, goodSeals)
		if r, v := send(t, &l, fd); v != lane.Accepted {
			t.Fatal(v)
		} else {
			r.Release()
		}
		unix.Close(fd)
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		few := p[:1]
		if i == lane.MaxClosing-1 {
			few = p[:] // one of these waits
		}
		if _, v := send(t, &l, few...); v != lane.BadMemory {
			t.Error(v)
		}
		unix.Close(p[0])
		unix.Close(p[1])
	}
	waitForHeld(t, held{before.fds + lane.MaxClosing + 1, before.maps}, &l)
	fd := memfd(t, lane.Grain, 0, goodSeals)
	if r, v := send(t, &l, fd); r != nil || v != lane.BadMemory {
		t.Errorf("%v where descriptors hang", v)
	}
	close(hang)
	waitForHeld(t, held{before.fds + 1, before.maps}, &l)
	r, v := send(t, &l, fd)
	for ; v != lane.Accepted; r, v = send(t, &l, fd) { // until the last is counted as closed
		time.Sleep(time.Millisecond)
	}
	r.Release()
	unix.Close(fd)
	waitForHeld(t, before, &l)
}

// without begins a direct stream without a region and returns the verdict.
func (l *ledger) without(t *testing.T, size int64) lane.Verdict {
	t.Helper()
	host, daemon := pair(t)
	defer host.Close()
	defer daemon.Close()
	done := make(chan error)
	go func() {
		r, direct, err := l.accept(daemon)
		if r != nil || !direct {
			err = fmt.Errorf("a region: %v, direct %v, %w", r != nil, direct, err)
		}
		done <- err
	}()
	r, v, err := lane.Offer(t.Context(), host, size)
	if err := errors.Join(err, <-done); r != nil || err != nil {
		t.Errorf("%v, %v", v, err)
	}
	return v
}

// TestRefusals: a region that a daemon does not admit is not mapped, the host is told why, and
// the stream is still a direct one.
func TestRefusals(t *testing.T) {
	for _, v := range []lane.Verdict{lane.Off, lane.TooLarge, lane.NoRoom} {
		before := settled(t)
		l := ledger{verdict: v}
		if got := l.without(t, lane.Grain); got != v || l.told[0] != v {
			t.Errorf("%v: %v, told %v", v, got, l.told)
		}
		waitForHeld(t, before, &l)
	}
}

// TestNothingOffered: a direct stream need not offer memory; Told is then not called.
func TestNothingOffered(t *testing.T) {
	before := settled(t)
	for _, v := range []lane.Verdict{lane.Off, lane.Accepted} {
		l := ledger{verdict: v}
		if got := l.without(t, 0); got != lane.Accepted || len(l.told) > 0 || l.left() != 0 {
			t.Errorf("%v, told %v, %d bytes admitted", got, l.told, l.left())
		}
	}
	// A descriptor that nevertheless comes with it is closed.
	fd := memfd(t, lane.Grain, 0, goodSeals)
	host, daemon := pair(t)
	if _, _, err := host.WriteMsgUnix(lane.Preface(0), unix.UnixRights(fd), nil); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	var l ledger
	if r, direct, err := l.accept(daemon); r != nil || !direct || err != nil {
		t.Errorf("direct %v, %v", direct, err)
	}
	host.Close()
	daemon.Close()
	waitForHeld(t, before, &l)
}

// TestStockPeers: from a connection that begins otherwise nothing is read, and there is no reply.
func TestStockPeers(t *testing.T) {
	host, daemon := pair(t)
	const hello = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	if _, err := host.Write([]byte(hello)); err != nil {
		t.Fatal(err)
	}
	var l ledger
	if r, direct, err := l.accept(daemon); r != nil || direct || err != nil || len(l.told) > 0 {
		t.Errorf("%v, told %v", err, l.told)
	}
	b := make([]byte, 100)
	if n, err := daemon.Read(b); err != nil || string(b[:n]) != hello {
		t.Errorf("%q is left, %v", b[:n], err)
	}

	// A peer that sends nothing, or too little, is waited for until the deadline.
	for _, b := range [][]byte{nil, lane.Preface(lane.Grain)[:10]} {
		host, daemon := pair(t)
		if _, err := host.Write(b); err != nil {
			t.Fatal(err)
		}
		daemon.SetDeadline(time.Now().Add(30 * time.Millisecond))
		if r, direct, err := l.accept(daemon); r != nil || direct || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %d bytes: %v", len(b), err)
		}
	}
	host, daemon = pair(t)
	host.Close()
	if r, direct, err := l.accept(daemon); r != nil || direct || err != io.EOF {
		t.Errorf("of nobody: %v", err)
	}
}

// TestStrangeReplies: a bad reply is a typed error, and nothing is left mapped.
func TestStrangeReplies(t *testing.T) {
	before := settled(t)
	for name, b := range map[string][]byte{
		"HTTP/2": []byte("\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x04\x00"),
		"cut":    lane.Reply(lane.Accepted)[:9], "nothing": {},
	} {
		host, daemon := pair(t)
		if _, err := daemon.Write(b); err != nil {
			t.Fatal(err)
		}
		daemon.CloseWrite()
		if _, _, err := lane.Offer(t.Context(), host, lane.Grain); !errors.Is(err, lane.ErrPreface) {
			t.Errorf("%s: %v", name, err)
		}
		host.Close()
		daemon.Close()
	}
	for v, want := range map[lane.Verdict]error{99: nil, lane.BadVersion: lane.ErrVersion} {
		host, daemon := pair(t)
		if _, err := daemon.Write(lane.Reply(v)); err != nil {
			t.Fatal(err)
		}
		if r, got, err := lane.Offer(t.Context(), host, lane.Grain); r != nil || got != v || !errors.Is(err, want) {
			t.Errorf("%v: %v, %v", v, got, err)
		}
		host.Close()
		daemon.Close()
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	host, daemon := pair(t)
	if _, _, err := lane.Offer(ctx, host, lane.Grain); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a daemon that does not reply: %v", err)
	}
	host.Close()
	daemon.Close()
	waitForHeld(t, before, new(ledger))
}

// TestFileLimit: if files may not be as large as the region, Offer fails, nothing is sent, and
// no signal ends the process.
func TestFileLimit(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	less := limit
	less.Cur = 8*lane.Grain - 1
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &less); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &limit)
	host, daemon := pair(t)
	if _, _, err := lane.Offer(t.Context(), host, 8*lane.Grain); !errors.Is(err, lane.ErrUnsupported) {
		t.Error(err)
	}
	daemon.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := daemon.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) { // it may go on without
		t.Errorf("%d bytes were sent, %v", n, err)
	}
}

// TestHoles: the other end can punch holes, but they read as zeros.
func TestHoles(t *testing.T) {
	host, daemon := pair(t)
	fd := memfd(t, lane.Grain, 0, goodSeals)
	defer unix.Close(fd)
	if _, _, err := host.WriteMsgUnix(lane.Preface(lane.Grain), unix.UnixRights(fd), nil); err != nil {
		t.Fatal(err)
	}
	r, _, err := new(ledger).accept(daemon)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	b, _ := r.Bytes(0, lane.Grain)
	b[5] = 1
	if err := unix.Ftruncate(fd, 0); err != unix.EPERM {
		t.Errorf("cut: %v", err)
	}
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, lane.Grain); err != nil {
		t.Fatal(err)
	}
	if b[5] != 0 {
		t.Error("a hole has words")
	}
	stop := make(chan struct{})
	var punching sync.WaitGroup
	punching.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, lane.Grain)
			}
		}
	})
	for range 200 {
		for i := 0; i < len(b); i += 4096 {
			b[i]++
		}
	}
	close(stop)
	punching.Wait()
}

// TestTouch: a missing page is an error, later calls are not affected, and other panics are
// passed on.
func TestTouch(t *testing.T) {
	fd := memfd(t, lane.Grain, 0, 0)
	defer unix.Close(fd)
	r, err := lane.Open(fd, lane.Grain, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	b, _ := r.Bytes(0, lane.Grain)
	own := make([]byte, lane.Grain)
	if err := lane.Touch(func() { copy(own, b) }); err != nil {
		t.Error(err)
	}
	if err := unix.Ftruncate(fd, 0); err != nil { // which the seals prevent in use
		t.Fatal(err)
	}
	for range 3 {
		for name, f := range map[string]func(){"read": func() { copy(own, b) }, "written": func() { copy(b, own) }, "looked at": func() { own[0] = b[lane.Grain-1] }} {
			if err := lane.Touch(f); !errors.Is(err, lane.ErrMemory) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("another panic is gone")
		}
	}()
	lane.Touch(func() { panic("another") })
}

// offered returns the slots of a region of the given size.
func offered(t *testing.T, size int64) (*lane.Region, *lane.Slots) {
	host, daemon := pair(t)
	var l ledger
	released := make(chan struct{}) // closed when the other end has released it
	go func() {
		defer close(released)
		if r, _, err := l.accept(daemon); err == nil {
			r.Release()
		}
	}()
	r, _, err := lane.Offer(t.Context(), host, size)
	if err != nil {
		t.Fatal(err)
	}
	<-released
	for end := time.Now().Add(time.Minute); l.left() != 0; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) { // a daemon unmaps in the background
			t.Fatal("the other end does not unmap it")
		}
	}
	return r, lane.NewSlots(r)
}

// TestSlots: slots are aligned, within the region and disjoint, whatever the order in which
// they are taken and given back, and free room is found.
func TestSlots(t *testing.T) {
	const size = 4 * lane.Grain
	region, slots := offered(t, size)
	rnd := rand.New(rand.NewPCG(1, 2))
	used := make([]bool, size/lane.Align)
	var out []lane.Slot
	parts := func(s lane.Slot) []bool {
		return used[s.Offset/lane.Align : (s.Offset+len(s.Bytes)+lane.Align-1)/lane.Align]
	}
	longest := func() (most int) { // bytes free in one piece
		run := 0
		for _, u := range used {
			if run++; u {
				run = 0
			}
			most = max(most, run)
		}
		return most * lane.Align
	}
	for i := range 20_000 {
		if len(out) > 0 && rnd.IntN(100) < 49 {
			k := rnd.IntN(len(out))
			for j := range parts(out[k]) {
				parts(out[k])[j] = false
			}
			out[k].Put()
			out[k] = out[len(out)-1]
			out = out[:len(out)-1]
			continue
		}
		n := 1 + rnd.IntN(1<<(4+rnd.IntN(14)))
		s, ok := slots.Get(n)
		if want := n <= longest(); ok != want {
			t.Fatalf("step %d: %d bytes: %v, %d are free in one piece", i, n, ok, longest())
		}
		if !ok {
			continue
		}
		if len(s.Bytes) != n || s.Offset%lane.Align != 0 {
			t.Fatalf("%d bytes at %d", len(s.Bytes), s.Offset)
		}
		for j, u := range parts(s) {
			if u {
				t.Fatalf("step %d: %d bytes at %d are lent twice", i, n, s.Offset)
			}
			parts(s)[j] = true
		}
		out = append(out, s)
	}
	for _, s := range out {
		s.Put()
	}
	if free := slots.Free(); len(free) != 1 || free[0] != [2]int{0, size} {
		t.Errorf("in the end %v are free", free)
	}
	for _, n := range []int{0, -1, size + 1, math.MaxInt} {
		if _, ok := slots.Get(n); ok {
			t.Errorf("a slot of %d bytes", n)
		}
	}
	if _, ok := (*lane.Slots)(nil).Get(1); ok {
		t.Error("a slot of nothing")
	}
	lane.Slot{}.Put() // does nothing
	lane.Slot{}.Drop()
	region.Release()
	if _, ok := slots.Get(1); ok {
		t.Error("a slot of a region that is gone")
	}
}

// TestSlotsHold: a slot keeps its region mapped, and the room of a dropped one is not reused.
func TestSlotsHold(t *testing.T) {
	before := settled(t).maps
	region, slots := offered(t, lane.Grain)
	a, _ := slots.Get(100)
	b, _ := slots.Get(lane.Grain - 128)
	b.Drop()
	if _, ok := slots.Get(100); ok {
		t.Error("a slot of what was dropped")
	}
	region.Release()
	a.Bytes[99] = 1
	if maps := holds(t).maps; maps != before+1 {
		t.Errorf("%d mappings, %d before", maps, before)
	}
	a.Put()
	if maps := holds(t).maps; maps != before {
		t.Errorf("%d mappings in the end, %d before", maps, before)
	}
}
