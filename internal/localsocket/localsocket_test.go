package localsocket

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// TestPeers: a connection is admitted by the user at the other end, as the kernel names it.
func TestPeers(t *testing.T) {
	var turnedAway atomic.Int32
	path := filepath.Join(t.TempDir(), "run", "s")
	own := uint32(os.Geteuid())
	l, err := Listen(path, Access{Mode: 0o600, UIDs: []int{12345}}, func(uid uint32, err error) {
		if uid != own || err != nil {
			t.Errorf("turned away: user %d, %v", uid, err)
		}
		turnedAway.Add(1)
	})
	if err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[uint32]bool{own: true, 0: true, own + 1: false, 12345: true, 12346: false, 65534: own == 65534} {
		if l.admit(uid) != want {
			t.Errorf("user %d: admitted %v", uid, !want)
		}
	}

	var seen atomic.Uint32
	var calls atomic.Int32
	l.admit = func(uid uint32) bool {
		seen.Store(uid)
		return calls.Add(1) > 1
	}
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	stranger, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a stranger reads: %v", err)
	}
	friend, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer friend.Close()
	c := <-accepted
	c.Close()
	if seen.Load() != own {
		t.Errorf("user %d, want %d", seen.Load(), own)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if n := turnedAway.Load(); n != 1 {
		t.Errorf("%d turned away, want 1", n)
	}
	if c, err := l.Accept(); err == nil {
		c.Close()
		t.Error("accepted after it was closed")
	}
}

// TestListen: a socket that nothing listens on is replaced; one that is served, or a file that
// is not a socket, is not. The new socket has the mode that was asked for.
func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	for _, mode := range []os.FileMode{0o600, 0o666} {
		l, err := Listen(path, Access{Mode: mode}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %v, %v, want %v", info.Mode(), err, mode)
		}
		if _, err := Listen(path, Private, nil); !errors.Is(err, ErrInUse) {
			t.Errorf("it is served: %v", err)
		}
		if c, err := net.Dial("unix", path); err != nil {
			t.Errorf("afterwards: %v", err)
		} else {
			c.Close()
		}
		l.Close()
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, Private, nil); err == nil {
		t.Error("listens in the place of a file")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "x" {
		t.Errorf("the file: %q, %v", b, err)
	}
}
