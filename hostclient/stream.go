package hostclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/ring"
	"github.com/securenets/securenets/transform"
)

// rowsPerMessage returns how many rows of a batch fit one message in both
// directions, given the bytes of one row each way.
func rowsPerMessage(up, down int) int { return wire.MaxPayload / max(up, down) }

// stream is one Evaluate stream, shared by all callers of a client. One goroutine sends
// requests; another hands each answer to the call that waits for its id. A failed stream
// stays failed, and the client opens another for the next call.
type stream struct {
	ctx      context.Context // ends with the stream; its cause says why
	fail     context.CancelCauseFunc
	requests chan *wire.Request
	opened   chan struct{} // closed once direct is set
	direct   *wire.Direct  // nil: a gRPC stream

	mu      sync.Mutex
	last    uint64             // last id used
	waiting map[uint64]*answer // by id; nil once the stream has ended
}

// answer is where the words of one answer should go.
type answer struct {
	ring ring.Ring
	dst  []uint32
	done chan<- taken // has room; nil if the caller gave up
	// The request's slots of shared memory, for its words and for its answer. The cloud may
	// use both until it answers: they must not be reused before that, unless the request was
	// never sent.
	up, down lane.Slot
	overdue  *time.Timer // nil as long as the caller waits, who then notices
}

// taken is the outcome of decoding an answer.
type taken struct {
	err            error
	queue, compute uint64 // nanoseconds, as the cloud claims
}

// put gives the slots back.
func (a *answer) put() {
	a.up.Put()
	a.down.Put()
}

// open returns the client's stream, or begins a new one.
func (c *Client) open() (*stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.barred != nil {
		return nil, c.barred
	}
	if c.stream != nil && c.stream.ctx.Err() == nil {
		return c.stream, nil
	}
	s := &stream{requests: make(chan *wire.Request), opened: make(chan struct{}), waiting: map[uint64]*answer{}}
	s.ctx, s.fail = context.WithCancelCause(context.Background())
	c.stream = s
	c.running.Go(func() { c.send(s) })
	return s, nil
}

// send opens s and sends requests until it fails.
func (c *Client) send(s *stream) {
	defer s.end()
	conn, err := c.connect(s)
	if err != nil {
		if !errors.Is(err, errDistrusted) {
			err = classify(s.ctx, err)
		}
		s.fail(err)
		return
	}
	close(s.opened)
	c.running.Go(func() { c.receive(s, conn) })
	for {
		select {
		case req := <-s.requests:
			err := conn.SendMsg(req)
			req.Free()
			if err != nil && err != io.EOF { // on io.EOF, receive gets the reason
				s.fail(classify(s.ctx, err))
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// connect opens s: a direct stream, or a gRPC stream if the cloud knows no direct ones.
func (c *Client) connect(s *stream) (wire.Stream, error) {
	d, err := c.dialDirect(s.ctx)
	if err == nil {
		s.direct = d
		return d, nil
	}
	if errors.As(err, new(*tls.CertificateVerificationError)) {
		return nil, fmt.Errorf("%w: %.256q", errDistrusted, err)
	}
	if unreachable(err) {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return nil, status.Error(codes.DeadlineExceeded, mute)
	}
	desc := &grpc.StreamDesc{StreamName: "Evaluate", ClientStreams: true, ServerStreams: true}
	return c.conn.NewStream(s.ctx, desc, pb.SecureNets_Evaluate_FullMethodName)
}

// errDistrusted: the host does not accept the cloud's certificate. Neither gRPC nor another
// try would change that.
var errDistrusted = fmt.Errorf("%w", ErrUnavailable)

// unreachable reports whether dialling a direct stream failed because the cloud cannot be
// reached at all. A try with gRPC would fail too, as where the cloud says nothing, after the same time.
func unreachable(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// receive hands out answers until the stream fails.
func (c *Client) receive(s *stream, conn wire.Stream) {
	for {
		resp := wire.Response{Place: s.into}
		if err := conn.RecvMsg(&resp); err != nil {
			if err == io.EOF {
				err = fmt.Errorf("%w: the cloud ended the stream", ErrUnavailable)
			} else {
				err = classify(s.ctx, err)
			}
			s.fail(err)
			return
		}
		a := s.remove(resp.ID)
		if a == nil {
			resp.Free()
			s.fail(fmt.Errorf("%w: it is for a request that was not made", ErrBadAnswer))
			return
		}
		got := taken{queue: resp.QueueNS, compute: resp.ComputeNS}
		if a.done != nil {
			got.err = a.take(&resp, s.direct)
		}
		resp.Free()
		a.put()
		if a.done != nil {
			a.done <- got
		}
	}
}

// into returns the memory where the words of an answer should go, if their n bytes are on the
// wire as they are in memory, and nil otherwise.
func (s *stream) into(id uint64, n int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.waiting[id]
	if a == nil || a.done == nil {
		return nil
	}
	if b, ok := wire.AsBytes(a.ring, a.dst); ok && len(b) == n {
		return b
	}
	return nil
}

// take decodes the answer into dst, where its words may be already. Words in shared memory are copied before they are
// checked: the cloud may change them at any time. It may also have taken the memory's pages
// out, once it has ended the connection; that does not count as a wrong answer.
func (a *answer) take(resp *wire.Response, from *wire.Direct) error {
	if resp.Err != nil {
		return wire.FromProto(resp.Err)
	}
	words := resp.Words
	if resp.Shared != nil {
		if want := span(a.down); want == nil || *resp.Shared != *want {
			return fmt.Errorf("%w: it is not in the memory named for it", ErrBadAnswer)
		}
		words = mem.BufferSlice{mem.SliceBuffer(a.down.Bytes)}
	}
	var err error
	var gone bool // pages were missing, checked after the copy
	if touched := lane.Touch(func() {
		err = wire.DecodeWords(a.ring, a.dst, words)
		gone = resp.Shared != nil && emptied(a.down)
	}); touched != nil {
		err = touched
	}
	if gone && from.Ended() {
		return fmt.Errorf("%w: the cloud ended the connection before its answer was read", ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("%w: %v", ErrBadAnswer, err)
	}
	return nil
}

// emptied reports whether a slot's part of any page of shared memory is all zeros.
func emptied(slot lane.Slot) bool {
	page := os.Getpagesize()
	for b, at := slot.Bytes, slot.Offset; len(b) > 0; {
		n := min(len(b), page-at%page)
		if !slices.ContainsFunc(b[:n], func(b byte) bool { return b != 0 }) {
			return true
		}
		b, at = b[n:], at+n
	}
	return false
}

// place puts words in a slot of shared memory. It returns the zero Slot if there is no room.
func (s *stream) place(r ring.Ring, words []uint32) lane.Slot {
	slot, ok := s.slot(len(words) * r.WordBytes())
	if ok && lane.Touch(func() { wire.PutWords(r, slot.Bytes, words) }) != nil {
		slot.Put()
		return lane.Slot{}
	}
	return slot
}

// slot returns a slot of n bytes of shared memory. It does not wait: if there is no room, the
// words go in messages.
func (s *stream) slot(n int) (lane.Slot, bool) {
	if s.direct == nil {
		return lane.Slot{}, false
	}
	return s.direct.Get(n)
}

// span returns the span of a slot, nil for the zero Slot.
func span(slot lane.Slot) *wire.Span {
	if slot.Bytes == nil {
		return nil
	}
	return &wire.Span{Offset: uint64(slot.Offset), Length: uint64(len(slot.Bytes))}
}

// expect returns a new id, for a request whose answer goes to a. The stream now owns a's
// slots. It returns false if the stream has ended.
func (s *stream) expect(a *answer) (id uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == nil {
		return 0, false
	}
	s.last++
	s.waiting[s.last] = a
	return s.last, true
}

// remove returns the answer that waits for an id and stops the wait; nil for none.
func (s *stream) remove(id uint64) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.waiting[id]
	delete(s.waiting, id)
	a.timeless()
	return a
}

// withdraw stops the wait for a request that was not sent, and gives its slots back.
func (s *stream) withdraw(id uint64) {
	if a := s.remove(id); a != nil {
		a.put()
	}
}

// end ends the wait for all answers. The cloud may still read and write the slots of their
// requests, so they are not reused; the next stream has memory of its own.
func (s *stream) end() {
	s.mu.Lock()
	left := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, a := range left {
		a.timeless()
		a.up.Drop()
		a.down.Drop()
	}
	if s.direct != nil {
		s.direct.Close()
	}
}

// forget makes the answers to ids be dropped when they arrive. It calls hung for those that have
// not arrived when they are due.
func (s *stream) forget(ids []uint64, due time.Time, hung func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if a := s.waiting[id]; a != nil {
			s.waiting[id] = &answer{up: a.up, down: a.down, overdue: time.AfterFunc(time.Until(due), hung)}
		}
	}
}

// timeless stops the time of an answer that is no longer awaited.
func (a *answer) timeless() {
	if a != nil && a.overdue != nil {
		a.overdue.Stop()
	}
}

// errHung: the cloud took longer for one layer than the session's timeout.
var errHung = fmt.Errorf("%w", ErrTimeout)

// traffic is the payload of a call in bytes, and the times that its requests waited and were
// computed at the cloud, as the cloud claims, limited to the time that the call took.
type traffic struct {
	up, down       int64
	queue, compute time.Duration
}

// atMost returns a time of ns nanoseconds that a cloud claims, limited to d.
func atMost(d time.Duration, ns uint64) time.Duration { return time.Duration(min(ns, uint64(d))) }

// evaluate has the cloud multiply a masked batch with a layer's weights. It sets
// dst, one row for each row of the batch; after an error dst must not be used, as answers
// may still be written there. A batch is cut so that no message exceeds the limit; all its
// parts are in flight at once.
//
// A cloud that has not answered at the time due hangs, whether or not the call still waits: the
// stream is given up, for all its callers, and moveOn is called. ctx then ends because of
// errHung. If it ends for another reason, the other callers are not affected before that.
func (c *Client) evaluate(ctx context.Context, due time.Time, moveOn func(), r ring.Ring, model sealed.Digest, layer int, m transform.Masked, dst ring.Matrix) (t traffic, err error) {
	start := time.Now()
	s, err := c.open()
	if err != nil {
		return t, err
	}
	hung := func() {
		s.fail(fmt.Errorf("%w: the stream was closed as another call timed out", ErrUnavailable))
		moveOn()
	}
	if err := s.wait(ctx); err != nil {
		if s.ctx.Err() == nil {
			time.AfterFunc(time.Until(due), func() {
				if !c.opens() {
					hung()
				}
			})
		}
		return t, err
	}
	// A cloud counts a seed as the words that it expands to.
	step := rowsPerMessage(m.Cols()*r.WordBytes(), dst.Cols*r.WordBytes())
	parts := (dst.Rows + step - 1) / step
	done := make(chan taken, parts)
	ids := make([]uint64, 0, parts)
	defer func() {
		if err == nil {
			return
		}
		if errors.Is(err, errHung) {
			hung()
		}
		s.forget(ids, due, hung)
	}()
	for from := 0; from < dst.Rows; from += step {
		to := min(from+step, dst.Rows)
		a := &answer{ring: r, dst: dst.RowRange(from, to).Data, done: done}
		req, up := s.request(a, m, from, to)
		t.up += up
		req.Model, req.Layer = model[:], uint32(layer)
		id, err := s.submit(ctx, req, a)
		if err != nil {
			return t, err
		}
		ids = append(ids, id)
	}
	for range parts {
		select {
		case part := <-done:
			if part.err != nil {
				return t, part.err
			}
			took := time.Since(start)
			t.queue = min(took, t.queue+atMost(took, part.queue))
			t.compute = min(took, t.compute+atMost(took, part.compute))
		case <-s.ctx.Done():
			return t, context.Cause(s.ctx)
		case <-ctx.Done():
			return t, stopped(ctx)
		}
	}
	t.down = int64(len(dst.Data) * r.WordBytes())
	return t, nil
}

// wait waits until the stream is open.
func (s *stream) wait(ctx context.Context) error {
	select {
	case <-s.opened:
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	case <-ctx.Done():
		return stopped(ctx)
	}
}

// opens reports whether the cloud has opened the client's last stream, even if it has failed since.
func (c *Client) opens() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.stream.opened:
		return true
	default:
		return false
	}
}

// request returns a request for rows [from, to) of a batch, and the bytes of its payload.
// It gives a slots of shared memory where there is room.
func (s *stream) request(a *answer, m transform.Masked, from, to int) (req *wire.Request, up int64) {
	req = &wire.Request{Rows: uint32(to - from)}
	if words, ok := m.Words(); ok {
		part := words.RowRange(from, to).Data
		a.up = s.place(a.ring, part)
		if req.Shared = span(a.up); req.Shared == nil {
			req.Words = wire.EncodeWords(a.ring, part, m.Hold())
		}
		up = int64(len(part) * a.ring.WordBytes())
	} else {
		seed, _ := m.Seed()
		req.Seed = &pb.Seed{Key: seed[:], First: uint64(from)}
		up = int64(len(seed))
	}
	a.down, _ = s.slot(len(a.dst) * a.ring.WordBytes())
	req.Answer = span(a.down)
	return req, up
}

// submit gives a request an id, under which a waits for its answer, and has it sent. After
// an error the request was not sent, and its words and slots are free.
func (s *stream) submit(ctx context.Context, req *wire.Request, a *answer) (id uint64, err error) {
	id, ok := s.expect(a)
	if !ok {
		req.Free()
		a.put()
		return 0, context.Cause(s.ctx)
	}
	req.ID = id
	select {
	case s.requests <- req:
		return id, nil
	case <-s.ctx.Done():
		err = context.Cause(s.ctx)
	case <-ctx.Done():
		err = stopped(ctx)
	}
	req.Free()
	s.withdraw(id)
	return 0, err
}
