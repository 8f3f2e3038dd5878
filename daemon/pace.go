package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/securenets/securenets/daemon/model"
)

// pacer holds uploads to so many bytes a second of each caller.
type pacer struct {
	rate int64 // 0: as fast as they come

	mu   sync.Mutex
	paid map[model.Owner]time.Time // when all bytes up to now are worked off
}

// take returns how long a caller's next bytes have to wait. They count from now on.
func (p *pacer) take(o model.Owner, bytes int, now time.Time) time.Duration {
	if p.rate == 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for other, until := range p.paid { // who has waited enough needs no entry
		if !until.After(now) {
			delete(p.paid, other)
		}
	}
	begin, ok := p.paid[o]
	if !ok {
		begin = now
	}
	p.paid[o] = begin.Add(time.Duration(float64(bytes) / float64(p.rate) * float64(time.Second)))
	return begin.Sub(now)
}

// pace waits until a caller may upload so many bytes more.
func (s *service) pace(ctx context.Context, o model.Owner, bytes int) error {
	wait := time.NewTimer(s.pacer.take(o, bytes, time.Now()))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.draining.Done():
		return shuttingDown()
	}
}
