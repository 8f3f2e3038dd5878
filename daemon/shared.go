package daemon

import (
	"log/slog"

	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/internal/config"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/wire"
)

// sharing decides what memory callers share with the daemon. See package lane.
type sharing struct {
	limits  config.SharedMemory
	all     *budget
	regions *budget // how many there are
	metrics *metrics.Metrics
	log     *slog.Logger
}

// maxRegions is how many regions there may be. Each is a mapping, of which a process of
// Linux has 65,530 by default, and the Go runtime ends with the last one.
const maxRegions = 4096

func newSharing(limits config.SharedMemory, m *metrics.Metrics, log *slog.Logger) *sharing {
	return &sharing{limits, newBudget(limits.Bytes), newBudget(maxRegions), m, log}
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
