package hostclient

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/wire"
)

// TestEmptiedMemory: zeros of a connection that has ended are no answer, as the cloud may
// have let go of the memory. All others are answers, to be tested.
func TestEmptiedMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cloud, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	shared := &wire.Shared{UnixConn: c.(*net.UnixConn)}
	take := func(words ...byte) error {
		a := &answer{ring: ring.Q4(), dst: make([]uint32, len(words)/4), down: lane.Slot{Bytes: words}}
		return a.take(&wire.Response{Shared: span(a.down)}, shared)
	}
	if err := errors.Join(take(0, 0, 0, 0, 0, 0, 0, 0), take(1, 0, 0, 0)); err != nil {
		t.Error(err)
	}
	cloud.Close()
	if err := take(0, 0, 0, 0, 0, 0, 0, 1); err != nil {
		t.Error(err)
	}
	if err := take(0, 0, 0, 0, 0, 0, 0, 0); !errors.Is(err, ErrUnavailable) {
		t.Errorf("zeros are an answer: %v", err)
	}
}

// TestStreamThatLingers: who waits for the end of the last stream gives up in time, and keeps
// nobody from closing the client.
func TestStreamThatLingers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path) // and answers nobody, so that the next stream waits
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Dial("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	last := &stream{over: make(chan struct{})}
	last.ctx, last.fail = context.WithCancelCause(t.Context())
	last.fail(ErrUnavailable)
	c.stream = last
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.open(ctx); !errors.Is(err, ErrTimeout) {
		t.Errorf("a call that ran out of time: %v", err)
	}
	opened := make(chan *stream)
	for range 2 {
		go func() {
			s, err := c.open(t.Context())
			if err != nil {
				t.Error(err)
			}
			opened <- s
		}()
	}
	select {
	case <-opened:
		t.Error("opened beside the last one")
	case <-time.After(20 * time.Millisecond):
	}
	close(last.over)
	if a, b := <-opened, <-opened; a != b || a == last {
		t.Error("not one stream for both")
	}

	c.stream = &stream{ctx: last.ctx, fail: last.fail, over: make(chan struct{})}
	ctx, cancel = context.WithCancel(t.Context())
	waiting := make(chan error)
	go func() {
		_, err := c.open(ctx)
		waiting <- err
	}()
	time.Sleep(20 * time.Millisecond) // until it waits
	closed := make(chan error)
	go func() { closed <- c.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a client that does not close")
	}
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("who waited meanwhile: %v", err)
	}
}
