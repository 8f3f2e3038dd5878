package hostclient

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/ring"
)

// TestEmptiedMemory: zeros of a connection that has ended are no answer, as the cloud may
// have let go of the memory. All others are answers, to be tested.
func TestEmptiedMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan error, 1)
	var cloud *net.UnixConn
	var region *lane.Region
	go func() {
		var err error
		if cloud, err = l.AcceptUnix(); err == nil {
			region, _, err = lane.Accept(cloud, lane.AnyTerms())
		}
		accepted <- err
	}()
	direct, err := wire.DialDirect(t.Context(), "unix:"+path, lane.Grain)
	if err := errors.Join(err, <-accepted); err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	takeAt := func(offset int, words ...byte) error {
		a := &answer{ring: ring.Q4(), dst: make([]uint32, len(words)/4), down: lane.Slot{Offset: offset, Bytes: words}}
		return a.take(&wire.Response{Shared: span(a.down)}, direct)
	}
	take := func(words ...byte) error { return takeAt(0, words...) }
	if err := errors.Join(take(0, 0, 0, 0, 0, 0, 0, 0), take(1, 0, 0, 0)); err != nil {
		t.Error(err)
	}
	cloud.Close()
	region.Release()
	if err := take(0, 0, 0, 0, 0, 0, 0, 1); err != nil {
		t.Error(err)
	}
	if err := take(0, 0, 0, 0, 0, 0, 0, 0); !errors.Is(err, ErrUnavailable) {
		t.Errorf("zeros are an answer: %v", err)
	}
	// Pages are taken out one after the other, also while an answer is copied.
	page := os.Getpagesize()
	for _, gone := range []int{-1, 0, 1, 2} { // of three, of which the first and last are had in part
		words := bytes.Repeat([]byte{1, 0, 0, 0}, (3*page-128)/4)
		if gone >= 0 {
			clear(words[max(0, gone*page-64):min(len(words), (gone+1)*page-64)])
		}
		err := takeAt(7*page+64, words...)
		if gone < 0 && err != nil || gone >= 0 && !errors.Is(err, ErrUnavailable) {
			t.Errorf("without page %d: %v", gone, err)
		}
	}
}

// TestOpens: whether a cloud hangs is seen by the stream that a client has now, not by one that
// it had.
func TestOpens(t *testing.T) {
	silent, open := &stream{opened: make(chan struct{})}, &stream{opened: make(chan struct{})}
	close(open.opened)
	for s, want := range map[*stream]bool{silent: false, open: true} {
		if c := (&Client{stream: s}); c.opens() != want {
			t.Errorf("%v, want %v", !want, want)
		}
	}
}
