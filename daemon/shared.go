package daemon

import (
	"log/slog"

	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/wire"
)

// sharing admits the memory that callers offer to share. See package lane.
type sharing struct {
	limits  config.SharedMemory
	all     *budget // bytes of all regions
	regions *budget // number of regions
	metrics *metrics.Metrics
	log     *slog.Logger
}

// maxRegions limits the number of regions. Each is a mapping. Linux allows a process 65,530 by
// default, and the Go runtime crashes when it cannot get another.
const maxRegions = 4096

func newSharing(limits config.SharedMemory, m *metrics.Metrics, log *slog.Logger) *sharing {
	return &sharing{limits, newBudget(limits.Bytes), newBudget(maxRegions), m, log}
}

func (s *sharing) terms() lane.Terms {
	return lane.Terms{Full: s.full, Admit: s.admit, Freed: s.freed, Told: s.metrics.Offered}
}

// full reports whether even the smallest region would be refused.
func (s *sharing) full() bool {
	return s.all.Limit()-s.all.Used() < lane.Grain || s.regions.Used() == s.regions.Limit()
}

// freed gives a region's bytes back. If its pages could not be taken out they may still be
// charged to the daemon: then the bytes stay reserved.
func (s *sharing) freed(size int64, err error) {
	s.regions.Release(1)
	if err != nil {
		s.log.Error("cannot free shared memory", "bytes", size, "error", err)
		return
	}
	s.all.Release(size)
}

// admit reserves a region's bytes if it returns lane.Accepted.
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

// inRegion returns the part of the shared memory that a request names, which must have want
// bytes.
func inRegion(region *lane.Region, s *wire.Span, want int64) ([]byte, error) {
	if region == nil {
		return nil, badRequest("the connection has no shared memory")
	}
	if s.Length != uint64(want) {
		return nil, badLength(s.Length, want)
	}
	b, ok := region.Bytes(s.Offset, s.Length)
	if !ok {
		return nil, badRequest("%d bytes at offset %d are not within the %d bytes of shared memory", s.Length, s.Offset, region.Size())
	}
	return b, nil
}
