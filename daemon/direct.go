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

// directs are the open direct streams. See package wire.
type directs struct {
	mu   sync.Mutex
	over bool // no more may begin
	open map[*wire.DirectServer]struct{}
	work sync.WaitGroup
}

// begin adds a stream, whose owner must call end. It returns false if no more may begin.
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

// cut ends the connections of all streams. No more may begin.
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

// silence is how long a TLS peer may be silent: this or the stall timeout, whichever is longer,
// as the system cannot tell a stalled peer from a silent one. Tests set it.
var silence = wire.Silence

// serveDirect starts a goroutine that serves the direct stream of a connection. It takes over
// the caller's hold on region, nil for none, which it releases once the connection has ended.
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
		// Release takes the pages out: the caller then reads zeros, also in answers that it has
		// not read yet. It can tell by the connection, which ended before. A draining daemon keeps
		// the pages: no caller can come back and make it pay for more.
		if s.draining.Err() != nil {
			region.Keep()
		}
		region.Release()
	}()
}

// direct serves Evaluate on a direct stream. It ends when the caller has gone, whatever it is
// waiting for. Its errors are gRPC statuses.
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
