package daemon

import (
	"context"
	"sync"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon/batch"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/wire"
)

// directs are the direct streams. See package wire.
type directs struct {
	mu   sync.Mutex
	over bool // none begins any more
	open map[*wire.DirectServer]struct{}
	work sync.WaitGroup
}

// begin takes a stream, which calls end. It returns false where none begins any more.
func (d *directs) begin(s *wire.DirectServer) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return false
	}
	if d.open == nil {
		d.open = map[*wire.DirectServer]struct{}{}
	}
	d.open[s] = struct{}{}
	d.work.Add(1)
	return true
}

func (d *directs) end(s *wire.DirectServer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, s)
	d.work.Done()
}

// cut ends the connections of all streams, and lets no other begin.
func (d *directs) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	for s := range d.open {
		s.HangUp()
	}
}

// wait waits for all streams to end.
func (d *directs) wait() { d.work.Wait() }

// silence is how long a host by TLS may be silent. It is at least as long as it may stall, which
// to a system looks the same. Tests set it.
var silence = wire.Silence

// serveDirect has a goroutine serve the direct stream of a connection, to its end. The region,
// which the caller holds, is released once the connection has ended; nil: it shares none.
func (s *service) serveDirect(c wire.Conn, region *lane.Region, owner model.Owner, name batch.Caller) {
	wire.GiveUpAfter(c, max(silence, s.limits.StallTimeout()))
	stream, receiver := wire.ServeDirect(context.Background(), c, region)
	if !s.directs.begin(stream) {
		stream.HangUp()
		if region != nil {
			region.Release()
		}
		return
	}
	go func() {
		defer s.directs.end(stream)
		err := s.direct(stream, owner, &evaluation{stream: stream, receiver: receiver, caller: name, region: region, hangUp: stream.HangUp})
		unread := s.onStall(stream.HangUp, stallReading)
		unread.Reset(s.limits.StallTimeout())
		stream.End(err)
		unread.Stop()
		if region == nil {
			return
		}
		// The caller finds zeros in the memory now, in answers that it has not read yet, too, and
		// can tell by the connection, which has ended before. The answers of a daemon that drains
		// stay: no caller comes back to have it pay for more.
		if s.draining.Err() != nil {
			region.Keep()
		}
		region.Release()
	}()
}

// direct is a call of Evaluate by the direct stream of a connection. It ends when its caller
// has gone, whatever it waits for then. Its errors are statuses.
func (s *service) direct(stream *wire.DirectServer, owner model.Owner, e *evaluation) error {
	leave, refused := s.enter()
	if refused != nil {
		return refused.Status()
	}
	defer leave()
	stop, err := stream.Watch()
	if err != nil {
		told, why := s.report(err)
		s.metrics.Refused(why)
		return told.Status()
	}
	defer stop()
	return s.call(e.stream.Context(), pb.SecureNets_Evaluate_FullMethodName, func() error { return s.evaluate(owner, e) })
}
