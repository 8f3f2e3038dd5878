package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/internal/config"
	"github.com/securenets/securenets/internal/lane"
)

// TestRegions: regions are bounded in number, too, and what is lost is not lent again.
func TestRegions(t *testing.T) {
	var log bytes.Buffer
	limits := config.SharedMemory{BytesPerConnection: 1 << 30, Bytes: 1 << 40}
	s := newSharing(limits, metrics.New(), slog.New(slog.NewTextHandler(&log, nil)), context.Background())
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
	s = newSharing(limits, metrics.New(), slog.New(slog.NewTextHandler(&log, nil)), context.Background())
	for range 2 * maxRegions { // what finds no room is no region
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

// TestEmptied: when a connection ends, its memory has no pages any more, and its caller can
// tell before it has none; what a daemon that drains has answered stays.
func TestEmptied(t *testing.T) {
	for _, drains := range []bool{false, true} {
		draining, drain := context.WithCancel(t.Context())
		defer drain()
		limits := config.SharedMemory{BytesPerConnection: lane.Grain, Bytes: lane.Grain}
		s := newSharing(limits, metrics.New(), slog.New(slog.DiscardHandler), draining)
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		host, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		accepted, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		d := newService(config.Default().Limits, slog.New(slog.DiscardHandler), "", draining)
		shared := make(chan error)
		go func() {
			region, err := lane.Accept(accepted, s.terms())
			if err == nil {
				d.serveDirect(accepted, region, "", "")
			}
			shared <- err
		}()
		region, err := lane.Offer(t.Context(), host, lane.Grain)
		if err := errors.Join(err, <-shared); err != nil {
			t.Fatal(err)
		}
		defer region.Release()
		b, _ := region.Bytes(0, lane.Grain)
		b[0], b[lane.Grain-1] = 1, 1

		// Somebody uses the connection, so that its close takes a while.
		raw, err := accepted.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		used, leave := make(chan struct{}), make(chan struct{})
		go raw.Control(func(uintptr) { close(used); <-leave })
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
		if !lane.Ended(host) {
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
