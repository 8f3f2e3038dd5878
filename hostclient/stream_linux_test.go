package hostclient

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"
)

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
