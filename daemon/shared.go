package daemon

import (
	"context"
	"log/slog"
	"net"
	"sync"

	"google.golang.org/grpc/peer"

	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/internal/config"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/wire"
)

// sharing decides what memory callers share with the daemon. See package lane.
type sharing struct {
	limits   config.SharedMemory
	all      *budget
	regions  *budget // how many there are
	metrics  *metrics.Metrics
	log      *slog.Logger
	draining context.Context
}

// maxRegions is how many regions there may be. Each is a mapping, of which a process of
// Linux has 65,530 by default, and the Go runtime ends with the last one.
const maxRegions = 4096

func newSharing(limits config.SharedMemory, m *metrics.Metrics, log *slog.Logger, draining context.Context) *sharing {
	return &sharing{limits, newBudget(limits.Bytes), newBudget(maxRegions), m, log, draining}
}

func (s *sharing) terms() lane.Terms {
	return lane.Terms{Full: s.full, Admit: s.admit, Freed: s.freed, Told: s.metrics.Offered}
}

// full reports whether not even the smallest region would be admitted.
func (s *sharing) full() bool {
	return s.all.Limit()-s.all.Used() < lane.Grain || s.regions.Used() == s.regions.Limit()
}

// freed gives a region's bytes back. Where its pages could not be taken out they may
// still be charged to the daemon, so that nobody else gets them.
func (s *sharing) freed(size int64, err error) {
	s.regions.Release(1)
	if err != nil {
		s.log.Error("shared memory is lost", "bytes", size, "error", err)
		return
	}
	s.all.Release(size)
}

// admit sets a region's bytes aside where it says lane.Accepted.
func (s *sharing) admit(size int64) lane.Verdict {
	switch {
	case s.limits.Bytes == 0:
		return lane.Off
	case size > s.limits.BytesPerConnection:
		return lane.TooLarge
	case !s.regions.TryAcquire(1):
		return lane.NoRoom
	case !s.all.TryAcquire(size):
		s.regions.Release(1)
		return lane.NoRoom
	}
	return lane.Accepted
}

// localConn is a connection of the unix socket, and the memory that it shares.
type localConn struct {
	*net.UnixConn

	mu     sync.Mutex
	closed bool
	region *lane.Region // nil: none, or the connection is closed

	sharing *sharing // of the region
}

// share takes the memory that the caller offers, if it does.
func (c *localConn) share(s *sharing) (*lane.Region, error) {
	region, err := lane.Accept(c.UnixConn, s.terms())
	if err != nil || region == nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		region.Release()
		return nil, net.ErrClosed
	}
	c.region, c.sharing = region, s
	return region, nil
}

// Close ends the connection. Its memory is unmapped once no call uses it, and its pages
// are taken out: the caller finds zeros then, in answers that it has not read yet, too, and
// can tell by the connection, which has ended before. The answers of a daemon that drains
// stay: no caller comes back to have it pay for more.
func (c *localConn) Close() error {
	c.mu.Lock()
	region := c.region
	c.closed, c.region = true, nil
	c.mu.Unlock()
	if region != nil {
		if c.sharing.draining.Err() != nil {
			region.Keep()
		}
		_ = c.CloseWrite() // at once, as Close need not
		region.Release()
	}
	return c.UnixConn.Close()
}

// holdRegion returns the memory that a call's connection shares, which stays until
// release is called; nil for none.
func holdRegion(call context.Context) (region *lane.Region, release func()) {
	if p, ok := peer.FromContext(call); ok {
		if c, ok := p.AuthInfo.(caller); ok && c.region != nil && c.region.Hold() {
			return c.region, c.region.Release
		}
	}
	return nil, func() {}
}

// inRegion returns the part of a call's memory that a request names, which is to be of
// so many bytes.
func inRegion(region *lane.Region, s *wire.Span, want int64) ([]byte, error) {
	if region == nil {
		return nil, badRequest("the connection shares no memory")
	}
	if s.Length != uint64(want) {
		return nil, badLength(s.Length, want)
	}
	b, ok := region.Bytes(s.Offset, s.Length)
	if !ok {
		return nil, badRequest("%d bytes at %d of %d that are shared", s.Length, s.Offset, region.Size())
	}
	return b, nil
}
