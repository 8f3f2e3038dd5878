package wire_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/mem"

	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/ring"
)

// twice returns two mappings of the same memory, as two processes would have.
func twice(t *testing.T, size int) (a, b []byte) {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*[]byte{&a, &b} {
		if *m, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Munmap(*m) })
	}
	return a, b
}

// TestWordsThatChange: words that another process changes while they are decoded are
// canonical, or refused. The check looks at what was copied.
func TestWordsThatChange(t *testing.T) {
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		const n = 4096
		ours, theirs := twice(t, 4*n)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for good := true; ; good = !good {
				select {
				case <-stop:
					return
				default:
				}
				for i := range theirs {
					theirs[i] = map[bool]byte{true: 1, false: 0xff}[good]
				}
			}
		}()
		words := mem.BufferSlice{mem.SliceBuffer(ours[:n*r.WordBytes()])}
		dst := make([]uint32, n)
		accepted, refused := 0, 0
		for start := time.Now(); ; {
			if took := time.Since(start); took > time.Minute || took > time.Second/4 && accepted > 0 && refused > 0 {
				break
			}
			if err := wire.DecodeWords(r, dst, words); err != nil {
				refused++
				continue
			}
			accepted++
			if i := slices.IndexFunc(dst, func(w uint32) bool { return w >= r.Modulus() }); i >= 0 {
				t.Errorf("%v: word %d is %#x", r, i, dst[i])
				break
			}
		}
		close(stop)
		<-stopped
		t.Logf("%v: accepted %d times, refused %d", r, accepted, refused)
		if accepted == 0 || refused == 0 {
			t.Errorf("%v: nothing changed", r)
		}
	}
}

// TestPagesThatAreGone: access to shared memory that has lost a page is an error, not a crash.
func TestPagesThatAreGone(t *testing.T) {
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const n = 1000
	gone, err := unix.Mmap(fd, 0, 4*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(gone)
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		b, v := gone[:n*r.WordBytes()], make([]uint32, n)
		if err := lane.Touch(func() { wire.DecodeWords(r, v, mem.BufferSlice{mem.SliceBuffer(b)}) }); !errors.Is(err, lane.ErrMemory) {
			t.Errorf("%v: read: %v", r, err)
		}
		if err := lane.Touch(func() { wire.PutWords(r, b, v) }); !errors.Is(err, lane.ErrMemory) {
			t.Errorf("%v: written: %v", r, err)
		}
	}
}

// TestPutWords writes what EncodeWords sends.
func TestPutWords(t *testing.T) {
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3(), mustRing(t, 3, 5)} {
		v := randomWords(r, 1001)
		b := make([]byte, len(v)*r.WordBytes())
		wire.PutWords(r, b, v)
		if string(b) != string(wire.EncodeWords(r, v, nil).Materialize()) {
			t.Errorf("%v: other bytes", r)
		}
	}
}
