package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon/batch"
	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/pool"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// maxInFlight is how many requests of one stream are in progress at a time. Beyond that the
// stream is not read, so that further requests wait at the caller and hold no memory here.
const maxInFlight = 64

// wordSize is the size of a word in memory, in bytes.
const wordSize = 4

// Evaluate implements the protocol. Each request is answered when it is done. An error is
// the answer to its request alone and does not affect others.
//
// Requests acquire resources in a fixed order, see admit, so that they cannot deadlock.
func (s *service) Evaluate(stream grpc.BidiStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
	ctx := stream.Context()
	receiver, err := wire.NewReceiver(ctx)
	if err != nil {
		return err
	}
	owner, name, err := callerOf(ctx)
	if err != nil {
		return err
	}
	return s.evaluate(owner, &evaluation{stream: stream, receiver: receiver, caller: name, hangUp: func() { hangUp(ctx) }})
}

// evaluate serves one stream of an owner.
func (s *service) evaluate(owner model.Owner, e *evaluation) error {
	e.service, e.models, e.slots = s, s.store.Of(owner), make(chan struct{}, maxInFlight)
	e.room = s.incoming.join(owner)
	e.calls = s.batcher.Stream(e.stream.Context(), e.caller)
	e.silent, e.deaf = s.onStall(e.hangUp, stallSending), s.onStall(e.hangUp, stallReading)
	defer e.end()
	// read returns when the stream ends, which is at the latest when this returns.
	read := make(chan error, 1)
	go func() {
		defer e.room.leave()
		read <- batch.Guard(e.read)
	}()
	select {
	case err := <-read:
		return err
	case <-s.draining.Done():
		return shuttingDown()
	}
}

// responder sends the answers of a stream: a gRPC stream or a direct one.
type responder interface {
	Context() context.Context
	SendMsg(m any) error
}

// evaluation is one stream.
type evaluation struct {
	*service
	stream   responder
	receiver *wire.Receiver
	caller   batch.Caller
	region   *lane.Region // shared memory of a direct stream; nil: none
	hangUp   func()       // ends the connection
	models   model.Space  // the caller's
	room     *room        // the caller's, of memory for messages
	calls    *batch.Stream
	silent   *time.Timer   // runs while the rest of a request is awaited
	deaf     *time.Timer   // runs while an answer waits for the caller to read it
	slots    chan struct{} // holds a token for each request in progress
	sending  sync.Mutex

	mu   sync.Mutex
	work sync.WaitGroup // requests that have begun
}

// begin counts one more request in work. It returns false if the daemon is draining: then
// no request may begin.
func (e *evaluation) begin() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining.Err() != nil {
		return false
	}
	e.work.Add(1)
	return true
}

// end waits for the requests that have begun. No more may begin: reading has ended, or the
// daemon is draining.
func (e *evaluation) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.work.Wait()
}

// read reads requests until the stream ends or the daemon drains, and starts the work on each.
func (e *evaluation) read() error {
	for {
		size, err := e.receiver.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if !e.begin() {
			return shuttingDown()
		}
		if err := e.request(size); err != nil {
			return err
		}
	}
}

// request reads a request of size bytes, which begin has counted, and begins to work on it.
func (e *evaluation) request(size int) error {
	passed := false
	defer func() {
		if !passed {
			e.work.Done()
		}
	}()
	ctx := e.stream.Context()
	e.slots <- struct{}{}                         // a slot becomes free at the latest when the stream ends
	j, held := &job{e: e}, int64(pool.Size(size)) // bytes of its buffer
	if err := e.receive(ctx, e.room, e.receiver, e.silent, &j.Request, size, held); err != nil {
		return err
	}
	j.arrived, j.received = time.Now(), j.Words.Len()
	j.left = time.Duration(min(j.TimeoutNS, math.MaxInt64))
	err := e.admit(ctx, j, held)
	e.room.Release(held)
	switch {
	case err != nil:
		j.freeWords()
		j.refuse(err)
	case j.parked > 0:
		go func() {
			err := e.await(ctx, j, false)
			e.parked.Release(j.parked)
			if err != nil {
				j.freeWords()
				j.refuse(err)
			} else {
				j.submit()
			}
		}()
	default:
		j.submit()
	}
	passed = true
	return nil
}

// job is a request, from its receipt until its response is sent. Once admitted, its sizes are
// checked, and its memory is reserved or it is parked.
type job struct {
	wire.Request
	e       *evaluation
	model   *model.Use // held until the product is computed; a parked job's has yet to begin
	op      plan.Op
	charge  charge
	parked  int64     // bytes reserved, instead of charge, while the job waits for its model
	arrived time.Time // when the request's last byte arrived
	// The parts of shared memory for the request's words and for the answer's; nil: they are
	// in messages. The caller may write to both at any time.
	in, out []byte
	// Bytes of words: received, copied between the transport and the product, and sent.
	received, copied, bytes int
	waited                  time.Duration // for its model and its memory
	left                    time.Duration // how long it may still wait; 0: as long as its policy says
	took                    metrics.Request
	answer                  batch.Answer // of a request that has succeeded
	response                wire.Response
	begun                   time.Time // when its answer was computed
	// written is closed once the transport has released the response's words; nil: it has by
	// the time they are sent, or there are none.
	written chan struct{}
}

// lane returns the lane that the request counts for.
func (j *job) lane() metrics.Lane {
	if j.in != nil || j.out != nil {
		return metrics.Shared
	}
	return metrics.Frames
}

// freeWords frees the message's buffers. It may be called more than once.
func (j *job) freeWords() {
	j.Words.Free()
	j.Words = nil
}

// overhead is an upper bound on the bytes that a request holds besides its words: a
// goroutine and gRPC's own memory.
const overhead = 8 << 10

// admit checks everything in a request except its words, and reserves the memory that it
// needs; a seed counts as the words that it expands to. A request whose weights are not loaded
// is parked. No size is used before it is checked.
//
// A request acquires the following in this order, and releases what it no longer needs:
//
//	incoming  for its message, which takes size     waits, holding nothing
//	parked    for its message, instead of incoming  if its weights are not loaded; never waits
//	a use     of the weights                        waits for their load, holding parked
//	memory    for the work and the message          waits, holding the use and incoming or parked
//
// A request with memory waits only for the processor and for its caller to read; a request
// with a use waits only for memory. So every use ends, and a load that waits for room gets it.
// A request that waits for a load holds no memory that others need.
func (e *evaluation) admit(ctx context.Context, j *job, size int64) error {
	digest, err := parseDigest(j.Model)
	if err != nil {
		return err
	}
	m, ok := e.models.Find(digest)
	if !ok {
		return model.NotFound(digest)
	}
	j.model = m
	if err := e.check(j, size); err != nil {
		return err
	}
	if m.Take() {
		if e.memory.TryAcquire(j.charge.total()) {
			return nil
		}
		return e.await(ctx, j, true)
	}
	if parked := overhead + size; e.parked.TryAcquire(parked) {
		j.parked = parked
		return nil
	}
	return &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonOverloaded, RetryAfter: max(m.Took(), time.Millisecond),
		Message: "too many requests wait for their models to be loaded; retry later"}
}

// check checks the request, whose message takes size, and sets op, charge, in and out of j.
func (e *evaluation) check(j *job, size int64) error {
	if int64(j.Layer) >= int64(len(j.model.Plan.Ops)) {
		return &wire.Error{Code: codes.NotFound, Reason: wire.ReasonLayerNotFound,
			Message: fmt.Sprintf("layer %d, want less than %d", j.Layer, len(j.model.Plan.Ops))}
	}
	if j.Rows == 0 {
		return badRequest("0 rows, want at least 1")
	}
	j.op = j.model.Plan.Ops[j.Layer]
	if j.Words == nil {
		size = 0 // only words keep their message in memory, and all of it on a direct stream
	}
	var err error
	if j.charge, err = e.chargeOf(j.model.Plan.Ring, j.op, j.Rows, size, j.Answer != nil); err != nil {
		return err
	}
	row := int64(j.Rows) * int64(j.model.Plan.Ring.WordBytes())
	want := row * int64(j.op.InLen())
	if j.Answer != nil {
		if j.out, err = inRegion(e.region, j.Answer, row*int64(j.op.OutLen())); err != nil {
			return err
		}
	}
	switch {
	case j.Shared != nil:
		if j.in, err = inRegion(e.region, j.Shared, want); err != nil {
			return err
		}
		j.received = len(j.in)
	case j.Seed != nil:
		if len(j.Seed.Key) != len(prg.Seed{}) {
			return badRequest("seed that is not of %d bytes", len(prg.Seed{}))
		}
		if j.Seed.First > math.MaxUint64-uint64(j.Rows-1) {
			return badRequest("seed index %d overflows after %d rows", j.Seed.First, j.Rows)
		}
	case j.Words == nil:
		return badRequest("no input: want words, a seed or shared memory")
	case int64(j.Words.Len()) != want:
		return badLength(uint64(j.Words.Len()), want)
	}
	return nil
}

// charge is the bytes of the service's memory that a request reserves.
type charge struct {
	in  int64 // for the received words and the product's input, until the product is done
	out int64 // for the answer, until all answers of the product are sent or given up
}

func (c charge) total() int64 { return c.in + c.out }

// chargeOf returns the charge of a request. message is the bytes of its message that stay in
// memory; sharedOut says whether its answer's words are in shared memory. It returns a
// *wire.Error if a limit is exceeded.
func (s *service) chargeOf(r ring.Ring, op plan.Op, rows uint32, message int64, sharedOut bool) (c charge, err error) {
	tooLarge := func(format string, a ...any) (charge, error) {
		return charge{}, &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonTooLarge, Message: fmt.Sprintf(format, a...)}
	}
	width := int64(r.WordBytes())
	// rows < 2^32 and a sample has at most 2^31 words (plan.MaxExtent).
	in, out := int64(rows)*int64(op.InLen()), int64(rows)*int64(op.OutLen())
	if most := wire.MaxPayload / width; in > most || out > most {
		return tooLarge("%d rows of %d words in and %d out, want at most %d words each way", rows, op.InLen(), op.OutLen(), most)
	}
	// out < 2^24 and a contraction has at most 2^16 terms (ring.MaxTerms).
	if work, most := out*int64(op.Terms()), s.limits.MaxMultiplyAdds; work > most {
		return tooLarge("%d multiply-adds, want at most %d", work, most)
	}
	encoded := int64(0)
	if width != wordSize && !sharedOut {
		encoded = out * width
	}
	// Pools round sizes up by at most an eighth (see internal/pool.Size). Memory for the
	// encoded answer is charged to out but serves the message until the product is done.
	rounded := func(bytes int64) int64 { return bytes + bytes/8 }
	c.in = rounded(wordSize*in) + max(0, message-rounded(encoded))
	c.out = overhead + rounded(wordSize*out) + rounded(encoded)
	if most := s.memory.limit; c.total() > most {
		return tooLarge("%d bytes of memory, want at most %d", c.total(), most)
	}
	return c, nil
}

// checkPlan returns a *wire.Error for a plan with an operator for which even a request of
// one row would exceed a limit.
func (s *service) checkPlan(p plan.Plan) error {
	for i, op := range p.Ops {
		var refused *wire.Error
		row := int64(op.InLen()) * int64(p.Ring.WordBytes())
		if _, err := s.chargeOf(p.Ring, op, 1, row, false); errors.As(err, &refused) {
			return &wire.Error{Code: refused.Code, Reason: refused.Reason, Message: fmt.Sprintf("operator %d: %s", i, refused.Message)}
		}
	}
	return nil
}

// submit asks for an admitted request's product.
func (j *job) submit() {
	j.e.calls.Submit(batch.Call{
		Op: j.op, Product: j.model.Product(int(j.Layer)), Policy: j.e.policy(j.model.Digest), Rows: int(j.Rows),
		Priority: j.Priority, Timeout: j.left, Task: j,
	})
}

// Done implements batch.Task: it answers a request and releases what it holds.
func (j *job) Done(answer batch.Answer, timing batch.Timing, err error) {
	e := j.e
	j.freeWords()
	j.model.Release()
	e.memory.Release(j.charge.in)
	if err != nil {
		e.memory.Release(j.charge.out)
		j.refuse(err)
		return
	}
	j.answer = answer
	if timing.Batch > 0 {
		j.model.Metrics.Computed(timing.Batch)
	}
	j.took.Rows, j.took.Queue, j.took.Compute = int(j.Rows), j.waited+timing.Queue, timing.Compute
	j.bytes = len(answer.Y.Data) * j.model.Plan.Ring.WordBytes()
	if _, direct := e.stream.(*wire.DirectServer); !direct || j.bytes > prompt {
		go j.succeed(e.sendLater)
	} else {
		j.succeed(e.send)
	}
}

// prompt is the size of answers, in bytes, that are sent one after the other. A larger one is
// copied by a goroutine of its own, for which other answers do not wait.
const prompt = 64 << 10

// succeed answers with words.
func (j *job) succeed(send func(*job)) {
	e, r, y := j.e, j.model.Plan.Ring, j.answer.Y.Data
	j.begun = time.Now()
	j.response = wire.Response{ID: j.ID, QueueNS: uint64(j.took.Queue.Nanoseconds()), ComputeNS: uint64(j.took.Compute.Nanoseconds())}
	if j.out != nil {
		err := lane.Touch(func() { wire.PutWords(r, j.out, y) })
		j.answer.Read()
		if err != nil {
			j.refuse(badRequest("%v", err))
			return
		}
		j.copied += j.bytes
		j.response.Shared = j.Answer
	} else {
		if _, direct := e.stream.(*wire.DirectServer); !direct {
			j.written = make(chan struct{})
		}
		j.copied += wire.Copies(r, len(y))
		j.response.Words = wire.EncodeWords(r, y, j.release)
	}
	e.counts[j.lane()].answered(j.bytes, j.received, j.copied)
	send(j)
}

// release releases the answer's words, which are in the response.
func (j *job) release() {
	j.answer.Read()
	if j.written != nil {
		close(j.written)
	}
}

// refuse answers with an error.
func (j *job) refuse(err error) {
	told, why := j.e.report(err)
	j.e.metrics.Refused(why)
	if j.model != nil {
		j.model.Metrics.Failed(why)
	}
	j.response = wire.Response{ID: j.ID, Err: told.Proto()}
	j.e.send(j)
}

// send sends a request's response, without waiting if it can, and otherwise in a goroutine. A
// caller that does not read the response in time loses its connection.
func (e *evaluation) send(j *job) {
	s, ok := e.stream.(*wire.DirectServer)
	if !ok || !e.sending.TryLock() {
		go e.sendLater(j)
		return
	}
	all, err := s.Start(&j.response)
	if !all {
		go e.wait(j, s.Finish)
		return
	}
	e.sending.Unlock()
	j.response.Free()
	j.end(err == nil)
}

// sendLater sends a request's response, and may wait for that.
func (e *evaluation) sendLater(j *job) {
	e.sending.Lock()
	e.wait(j, func() error { return e.stream.SendMsg(&j.response) })
}

// wait calls write, which waits for the caller to read a response. e.sending must be locked;
// it unlocks it.
func (e *evaluation) wait(j *job, write func() error) {
	ctx := e.stream.Context()
	e.deaf.Reset(e.limits.StallTimeout())
	err := write()
	j.response.Free()
	if j.written != nil {
		select {
		case <-j.written:
		case <-ctx.Done():
		}
	}
	e.deaf.Stop()
	e.sending.Unlock()
	j.end(err == nil && ctx.Err() == nil)
}

// end ends a request, whose response was sent or not.
func (j *job) end(sent bool) {
	e := j.e
	if j.response.Err == nil {
		if sent {
			end := time.Now()
			e.metrics.Sent(j.bytes, end.Sub(j.begun))
			e.metrics.Carried(j.lane(), j.received, j.bytes, j.copied)
			j.took.Total = end.Sub(j.arrived)
			j.model.Metrics.Answered(j.took)
		} else {
			e.metrics.Refused(metrics.Cancelled)
			j.model.Metrics.Failed(metrics.Cancelled)
		}
	}
	if j.answer.Y.Data != nil {
		j.answer.Drop(func() { e.memory.Release(j.charge.out) })
	}
	<-e.slots
	e.work.Done()
}

// await makes a request wait until its weights are loaded, unless it has a use of them, and its
// memory is reserved, for no longer than it may wait.
func (e *evaluation) await(ctx context.Context, j *job, loaded bool) (err error) {
	begun, timeout, all := time.Now(), j.left, ctx
	if p := e.policy(j.model.Digest); p.Timeout > 0 && (timeout == 0 || p.Timeout < timeout) {
		timeout = p.Timeout
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	if !loaded {
		err = j.model.Wait(ctx)
	}
	if err == nil {
		if err = e.memory.Acquire(ctx, j.charge.total()); err != nil {
			j.model.Release()
		}
	}
	j.waited = time.Since(begun)
	j.left = max(0, timeout-j.waited)
	if all.Err() == nil && timeout > 0 && (ctx.Err() != nil || j.left == 0) {
		if err == nil {
			j.model.Release()
			e.memory.Release(j.charge.total())
		}
		err = &wire.Error{Code: codes.DeadlineExceeded, Reason: wire.ReasonTimeout, Message: "the request timed out before its model was loaded and there was memory for it"}
	}
	return err
}

// Fill implements batch.Task: it fills x and frees the message.
func (j *job) Fill(x ring.Matrix) error {
	begun := time.Now()
	defer func() { j.took.Input = time.Since(begun) }()
	r := j.model.Plan.Ring
	if j.Seed == nil {
		if j.in != nil {
			return j.fetch(x)
		}
		defer j.freeWords()
		j.copied += j.Words.Len()
		return wire.DecodeWords(r, x.Data, j.Words)
	}
	e := prg.New(prg.Seed(j.Seed.Key))
	for i := range x.Rows {
		e.Fill(r, x.Row(i), j.Seed.First+uint64(i))
	}
	return nil
}

// fetch fills x from shared memory. It reads that once and checks the copy, as the caller may
// write to it at any time.
func (j *job) fetch(x ring.Matrix) (err error) {
	j.copied += len(j.in)
	touched := lane.Touch(func() {
		err = wire.DecodeWords(j.model.Plan.Ring, x.Data, mem.BufferSlice{mem.SliceBuffer(j.in)})
	})
	if touched != nil {
		return badRequest("%v", touched)
	}
	return err
}

// counts are totals of the requests that were answered with words.
type counts struct {
	requests, payload, copied atomic.Int64 // payload: bytes received and sent; copied: bytes
}

func (c *counts) answered(sent, received, copied int) {
	c.requests.Add(1)
	c.payload.Add(int64(sent + received))
	c.copied.Add(int64(copied))
}
