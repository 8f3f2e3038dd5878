package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/wire"
)

// TestRegions: the number of regions is limited too, and bytes of regions whose pages could not
// be freed stay reserved.
func TestRegions(t *testing.T) {
	var log bytes.Buffer
	limits := config.SharedMemory{BytesPerConnection: 1 << 30, Bytes: 1 << 40}
	s := newSharing(limits, metrics.New(), slog.New(slog.NewTextHandler(&log, nil)))
	for i := range maxRegions {
		if v := s.admit(lane.Grain); v != lane.Accepted || s.full() != (i == maxRegions-1) {
			t.Fatalf("region %d: %v, full %v", i, v, s.full())
		}
	}
	if v := s.admit(lane.Grain); v != lane.NoRoom {
		t.Errorf("one more: %v", v)
	}
	s.freed(lane.Grain, nil)
	if v := s.admit(lane.Grain); v != lane.Accepted {
		t.Errorf("after one was freed: %v", v)
	}

	limits = config.SharedMemory{BytesPerConnection: 2 * lane.Grain, Bytes: 2*lane.Grain + 1}
	s = newSharing(limits, metrics.New(), slog.New(slog.NewTextHandler(&log, nil)))
	for range 2 * maxRegions { // refused ones do not count
		if v := s.admit(2 * lane.Grain); v != lane.Accepted {
			t.Fatal(v)
		}
		if v := s.admit(lane.Grain); v != lane.NoRoom || !s.full() {
			t.Fatal(v)
		}
		s.freed(2*lane.Grain, nil)
	}
	if s.full() || s.all.Used() != 0 || s.regions.Used() != 0 {
		t.Errorf("%d bytes, %d regions", s.all.Used(), s.regions.Used())
	}
	if log.Len() > 0 {
		t.Error(log.String())
	}
	s.admit(lane.Grain)
	s.freed(lane.Grain, errors.New("no punch"))
	if s.all.Used() != lane.Grain || s.regions.Used() != 0 || !strings.Contains(log.String(), "no punch") {
		t.Errorf("%d bytes, log %q", s.all.Used(), log.String())
	}
	if v := s.admit(2 * lane.Grain); v != lane.NoRoom {
		t.Errorf("what is lost is lent again: %v", v)
	}
}

// share returns the ends of a connection that shares memory, and the region of each end.
func share(t *testing.T, s *sharing) (host, accepted *net.UnixConn, offered, taken *lane.Region) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if host, err = net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	if accepted, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	shared := make(chan error)
	go func() {
		var err error
		taken, _, err = lane.Accept(accepted, s.terms())
		shared <- err
	}()
	offered, _, err = lane.Offer(t.Context(), host, lane.Grain)
	if err := errors.Join(err, <-shared); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(offered.Release)
	return host, accepted, offered, taken
}

// TestEmptied: the pages of shared memory are freed once the connection has ended, which the
// caller can see before that. A draining daemon keeps them, with its answers.
func TestEmptied(t *testing.T) {
	for _, drains := range []bool{false, true} {
		draining, drain := context.WithCancel(t.Context())
		defer drain()
		limits := config.SharedMemory{BytesPerConnection: lane.Grain, Bytes: lane.Grain}
		s := newSharing(limits, metrics.New(), slog.New(slog.DiscardHandler))
		d := newService(config.Default().Limits, slog.New(slog.DiscardHandler), "", draining)
		host, accepted, region, ours := share(t, s)
		d.serveDirect(accepted, ours, "", "")
		b, _ := region.Bytes(0, lane.Grain)
		b[0], b[lane.Grain-1] = 1, 1

		// A concurrent writer makes closing the connection take a while; the stream's end waits
		// for the writer to begin.
		raw, err := accepted.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		used, leave := make(chan struct{}), make(chan struct{})
		go raw.Write(func(uintptr) bool { close(used); <-leave; return true })
		<-used
		if drains {
			drain()
		}
		closed := make(chan struct{})
		go func() { d.directs.cut(); close(closed) }()
		for end := time.Now().Add(20 * time.Second); s.all.Used() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("bytes are not given back")
			}
		}
		if !wire.Ended(host) {
			t.Error("the memory has gone before the connection ends")
		}
		if (b[0] == 1) != drains || (b[lane.Grain-1] == 1) != drains {
			t.Errorf("drains %v: the memory has %d and %d", drains, b[0], b[lane.Grain-1])
		}
		close(leave)
		<-closed
		d.directs.wait()
	}
}

// TestUnreadEnd: a caller that does not read the stream's result does not keep the stream open.
func TestUnreadEnd(t *testing.T) {
	for _, reads := range []bool{false, true} {
		var log bytes.Buffer
		limits := config.Default().Limits
		limits.MaxCalls, limits.StallTimeoutSeconds = 0, 1 // every call is refused
		if reads {
			limits.StallTimeoutSeconds = 60
		}
		d := newService(limits, slog.New(slog.NewTextHandler(&log, nil)), "", t.Context())
		s := newSharing(config.SharedMemory{BytesPerConnection: lane.Grain, Bytes: lane.Grain}, metrics.New(), slog.New(slog.DiscardHandler))
		host, accepted, _, taken := share(t, s)
		raw, err := accepted.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		filled := 0
		if err := raw.Write(func(fd uintptr) bool {
			for {
				n, err := unix.Write(int(fd), make([]byte, 1<<10))
				if err == unix.EAGAIN { // it is full
					return true
				}
				if err != nil {
					t.Error(err)
					return true
				}
				filled += n
			}
		}); err != nil {
			t.Fatal(err)
		}
		d.serveDirect(accepted, taken, "", "")
		if reads {
			host.SetDeadline(time.Now().Add(20 * time.Second))
			b, err := io.ReadAll(host)
			if err != nil || len(b) <= filled || b[filled] != 1<<7 || !bytes.Contains(b[filled:], []byte("OVERLOADED")) {
				t.Errorf("read %q, %v", b[min(filled, len(b)):], err)
			}
		}
		ended := make(chan struct{})
		go func() { d.directs.wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("the stream does not end")
		}
		if n := len(d.directs.open); n > 0 {
			t.Errorf("%d streams are kept", n)
		}
		if stalled := strings.Contains(log.String(), stallReading); stalled == reads {
			t.Errorf("reads %v: log %q", reads, log.String())
		}
		if !wire.Ended(host) {
			t.Error("the connection has not ended")
		}
		for end := time.Now().Add(20 * time.Second); s.all.Used() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("bytes are not given back")
			}
		}
	}
}

// TestTooLate: a stream that arrives when none may begin ends, and its region is released.
func TestTooLate(t *testing.T) {
	d := newService(config.Default().Limits, slog.New(slog.DiscardHandler), "", t.Context())
	s := newSharing(config.SharedMemory{BytesPerConnection: lane.Grain, Bytes: lane.Grain}, metrics.New(), slog.New(slog.DiscardHandler))
	host, accepted, _, taken := share(t, s)
	d.directs.cut()
	d.serveDirect(accepted, taken, "", "")
	if !wire.Gone(host) {
		t.Fatal("the connection has not ended")
	}
	d.directs.wait()
	for end := time.Now().Add(20 * time.Second); s.all.Used() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("bytes are not given back")
		}
	}
}
