package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/securenets/securenets/daemon/model"
)

// pacer limits each caller's uploads to a rate.
type pacer struct {
	rate int64 // bytes a second; 0: no limit

	mu   sync.Mutex
	paid map[model.Owner]time.Time // when, at this rate, all bytes so far have been transferred
}

// take counts a caller's next bytes and returns how long they must wait.
func (p *pacer) take(o model.Owner, bytes int, now time.Time) time.Duration {
	if p.rate == 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for other, until := range p.paid { // a time in the past limits nothing
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

// pace waits until a caller may upload the given number of bytes.
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
