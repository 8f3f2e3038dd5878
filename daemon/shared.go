package daemon

import (
	"context"
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
	limits  config.SharedMemory
	all     *budget
	metrics *metrics.Metrics
}

func newSharing(limits config.SharedMemory, m *metrics.Metrics) *sharing {
	return &sharing{limits, newBudget(limits.Bytes), m}
}

// admit sets a region's bytes aside where it says lane.Accepted.
func (s *sharing) admit(size int64) lane.Verdict {
	switch {
	case s.limits.Bytes == 0:
		return lane.Off
	case size > s.limits.BytesPerConnection:
		return lane.TooLarge
	case !s.all.TryAcquire(size):
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
}

// share takes the memory that the caller offers, if it does.
func (c *localConn) share(s *sharing) (*lane.Region, error) {
	region, err := lane.Accept(c.UnixConn, s.admit, s.all.Release, s.metrics.Offered)
	if err != nil || region == nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		region.Release()
		return nil, net.ErrClosed
	}
	c.region = region
	return region, nil
}

// Close ends the connection. Its memory is unmapped once no call uses it.
func (c *localConn) Close() error {
	c.mu.Lock()
	region := c.region
	c.closed, c.region = true, nil
	c.mu.Unlock()
	if region != nil {
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
