package localsocket

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// TestPeers: a connection is admitted by the user at the other end, whom the
// kernel names.
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
