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
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/wire"
)

// maxInFlight is how many requests of one stream are worked on at a time. The
// stream is not read further meanwhile, so that the caller waits, not the memory.
const maxInFlight = 64

// wordSize is the bytes of a word in memory.
const wordSize = 4

// Evaluate implements the protocol. Each request is answered when it is done; an
// error of one is its answer and leaves the others alone.
//
// What requests hold is taken in a fixed order, see admit, so that none wait for each other.
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

// evaluate serves a stream of an owner's.
func (s *service) evaluate(owner model.Owner, e *evaluation) error {
	e.service, e.models, e.slots = s, s.store.Of(owner), make(chan struct{}, maxInFlight)
	e.silent, e.deaf = s.onStall(e.hangUp, stallSending), s.onStall(e.hangUp, stallReading)
	defer e.end()
	// Reading ends with the stream, which ends at the latest when this returns.
	read := make(chan error, 1)
	go func() { read <- batch.Guard(e.read) }()
	select {
	case err := <-read:
		return err
	case <-s.draining.Done():
		return shuttingDown()
	}
}

// responder is a stream of gRPC's, or a direct one.
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
	region   *lane.Region  // that a direct stream shares; nil: none
	hangUp   func()        // ends the connection
	models   model.Space   // the caller's
	silent   *time.Timer   // runs while the rest of a request is to come
	deaf     *time.Timer   // runs while an answer is to be read
	slots    chan struct{} // one a request
	sending  sync.Mutex

	mu   sync.Mutex
	work sync.WaitGroup // requests begun
}

// begin says whether one more request is to be read and answered: work counts it.
func (e *evaluation) begin() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining.Err() != nil {
		return false
	}
	e.work.Add(1)
	return true
}

// end waits for the requests that have begun. It is called where no more begin: all were
// read, or the daemon drains.
func (e *evaluation) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.work.Wait()
}

// read reads requests until the stream ends or the daemon drains, and has each answered.
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

// request reads a request that has begun, of size bytes, and has it answered.
func (e *evaluation) request(size int) error {
	passed := false
	defer func() {
		if !passed {
			e.work.Done()
		}
	}()
	ctx := e.stream.Context()
	e.slots <- struct{}{} // freed by work that ends with the stream at the latest
	r := new(wire.Request)
	if err := e.receive(ctx, e.receiver, e.silent, r, size, int64(size)); err != nil {
		return err
	}
	j := &job{Request: r, arrived: time.Now(), received: r.Words.Len()}
	err := e.admit(ctx, j, int64(size))
	e.incoming.Release(int64(size))
	passed = true
	go func() {
		defer e.work.Done()
		defer func() { <-e.slots }()
		if err != nil {
			r.Free()
			e.refuse(j, err)
			return
		}
		e.answer(ctx, j)
	}()
	return nil
}

// refuse answers a request with an error.
func (e *evaluation) refuse(j *job, err error) {
	told, why := e.report(err)
	e.metrics.Refused(why)
	if j.model != nil {
		j.model.Metrics.Failed(why)
	}
	e.send(&wire.Response{ID: j.ID, Err: told.Proto()}, nil)
}

// send sends a response and frees it. It returns when the transport holds the
// words no more: written is closed, or the stream has ended. Receiving says so
// too. A caller that does not take the response in time loses its connection.
func (e *evaluation) send(r *wire.Response, written <-chan struct{}) (ok bool) {
	e.sending.Lock()
	defer e.sending.Unlock()
	ctx := e.stream.Context()
	e.deaf.Reset(e.limits.StallTimeout())
	defer e.deaf.Stop()
	err := e.stream.SendMsg(r)
	r.Free()
	if written == nil {
		return err == nil
	}
	select {
	case <-written:
	case <-ctx.Done():
	}
	return err == nil && ctx.Err() == nil
}

// job is a request whose sizes are good and whose memory is set aside, or parked.
type job struct {
	*wire.Request
	model   *model.Use // begun until the product is there, once the job is not parked
	op      plan.Op
	charge  charge
	parked  int64     // bytes that it holds while it waits for its model, instead of charge
	arrived time.Time // when the request's last byte did
	// Where in shared memory the words are, and where the answer's are to go; nil: in
	// messages. The caller may write to both at any time.
	in, out []byte
	// Bytes of words: received, and copied between the transport and the product.
	received, copied int
}

// lane returns where the words are.
func (j *job) lane() metrics.Lane {
	if j.in != nil || j.out != nil {
		return metrics.Shared
	}
	return metrics.Frames
}

// freeWords lets go of the message. It may be called again.
func (j *job) freeWords() {
	j.Words.Free()
	j.Words = nil
}

// overhead is more than the bytes that a request of no words holds: its goroutine
// and what gRPC keeps.
const overhead = 8 << 10

// admit checks all of a request but its words, and sets aside the memory that it needs, a
// seed counted as what it expands to; a request whose weights are not there is parked. No
// size is used before it is checked.
//
// A request takes, in this order, and gives back what it does not need any more:
//
//	incoming  for its message, of size bytes        waits, and holds nothing
//	parked    for its message, instead of incoming  where its weights are away; never waits
//	a use     of the weights                        waits for their load, and holds parked
//	memory    for the work, and the message         waits, and holds the use, and incoming or parked
//
// Who has memory waits for the processor and for its caller to read, and for no more; who has
// a use, for memory at most; so all uses end, and with them the wait of a load for room. And
// who waits for a load has no memory that others need.
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
	if err := e.check(j); err != nil {
		return err
	}
	if m.Take() {
		err := e.memory.Acquire(ctx, j.charge.total())
		if err != nil {
			m.Release()
		}
		return err
	}
	if parked := overhead + size; e.parked.TryAcquire(parked) {
		j.parked = parked
		return nil
	}
	return &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonOverloaded, RetryAfter: max(m.Took(), time.Millisecond),
		Message: "there is no memory for another request that waits for its model to be loaded"}
}

// check sets op, charge, in and out of j.
func (e *evaluation) check(j *job) error {
	if int64(j.Layer) >= int64(len(j.model.Plan.Ops)) {
		return &wire.Error{Code: codes.NotFound, Reason: wire.ReasonLayerNotFound,
			Message: fmt.Sprintf("layer %d of %d", j.Layer, len(j.model.Plan.Ops))}
	}
	if j.Rows == 0 {
		return badRequest("no rows")
	}
	j.op = j.model.Plan.Ops[j.Layer]
	var err error
	if j.charge, err = e.chargeOf(j.model.Plan.Ring, j.op, j.Rows, j.Shared != nil, j.Answer != nil); err != nil {
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
			return badRequest("a seed of %d bytes, want %d", len(j.Seed.Key), len(prg.Seed{}))
		}
		if j.Seed.First > math.MaxUint64-uint64(j.Rows-1) {
			return badRequest("a seed whose index overflows")
		}
	case j.Words == nil:
		return badRequest("neither words nor a seed")
	case int64(j.Words.Len()) != want:
		return badLength(uint64(j.Words.Len()), want)
	}
	return nil
}

// charge is the bytes that a request holds of the service's memory.
type charge struct {
	in  int64 // until its product is done: the words as they came, and as they go in
	out int64 // until its answer, and all others of its product, are sent or given up
}

func (c charge) total() int64 { return c.in + c.out }

// chargeOf returns what a request is charged, whose words, or whose answer's, are in
// shared memory or else in messages. It returns a *wire.Error where a limit is passed.
func (s *service) chargeOf(r ring.Ring, op plan.Op, rows uint32, sharedIn, sharedOut bool) (c charge, err error) {
	tooLarge := func(format string, a ...any) (charge, error) {
		return charge{}, &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonTooLarge, Message: fmt.Sprintf(format, a...)}
	}
	width := int64(r.WordBytes())
	// rows < 2^32 and a sample has at most 2^31 words (plan.MaxExtent).
	in, out := int64(rows)*int64(op.InLen()), int64(rows)*int64(op.OutLen())
	if most := wire.MaxPayload / width; in > most || out > most {
		return tooLarge("%d rows of %d words in, %d out: want at most %d words each way", rows, op.InLen(), op.OutLen(), most)
	}
	// out < 2^24 and a contraction has at most 2^16 terms (ring.MaxTerms).
	if work, most := out*int64(op.Terms()), s.limits.MaxMultiplyAdds; work > most {
		return tooLarge("%d multiply-adds, want at most %d", work, most)
	}
	message, encoded := in*width, int64(0)
	if sharedIn {
		message = 0
	}
	if width != wordSize && !sharedOut {
		encoded = out * width
	}
	c.in = wordSize*(in+in/8) + max(0, message-encoded) // see internal/pool.Size; out's part is for the message, meanwhile
	c.out = overhead + wordSize*(out+out/8) + encoded
	if most := s.memory.limit; c.total() > most {
		return tooLarge("%d bytes of memory, want at most %d", c.total(), most)
	}
	return c, nil
}

// checkPlan returns a *wire.Error for a plan with an operator that not even one
// row can be asked of.
func (s *service) checkPlan(p plan.Plan) error {
	for i, op := range p.Ops {
		var refused *wire.Error
		if _, err := s.chargeOf(p.Ring, op, 1, false, false); errors.As(err, &refused) {
			return &wire.Error{Code: refused.Code, Reason: refused.Reason, Message: fmt.Sprintf("operator %d: %s", i, refused.Message)}
		}
	}
	return nil
}

// answer evaluates an admitted request, answers it, and gives back what it holds.
func (e *evaluation) answer(ctx context.Context, j *job) {
	took := metrics.Request{Rows: int(j.Rows)}
	fill := func(x ring.Matrix) error {
		begun := time.Now()
		err := j.input(x)
		took.Input = time.Since(begun)
		return err
	}
	policy := e.policy(j.model.Digest)
	waited, timeout, err := e.waitForModel(ctx, j, policy)
	if err != nil {
		j.freeWords()
		e.refuse(j, err)
		return
	}
	answer, timing, err := e.batcher.Evaluate(ctx, batch.Call{
		Caller: e.caller, Op: j.op, Product: j.model.Product(int(j.Layer)), Policy: policy, Rows: int(j.Rows),
		Fill: fill, Priority: j.Priority, Timeout: timeout,
	})
	took.Queue, took.Compute, took.Batch = waited+timing.Queue, timing.Compute, timing.Batch
	j.freeWords()
	j.model.Release()
	e.memory.Release(j.charge.in)
	if err != nil {
		e.memory.Release(j.charge.out)
		e.refuse(j, err)
		return
	}
	defer answer.Drop(func() { e.memory.Release(j.charge.out) })
	resp := &wire.Response{ID: j.ID, QueueNS: uint64(took.Queue.Nanoseconds()), ComputeNS: uint64(took.Compute.Nanoseconds())}
	r, y := j.model.Plan.Ring, answer.Y.Data
	bytes := len(y) * r.WordBytes()
	begun := time.Now()
	var written chan struct{}
	if j.out != nil {
		err := lane.Touch(func() { wire.PutWords(r, j.out, y) })
		answer.Read()
		if err != nil {
			e.refuse(j, badRequest("%v", err))
			return
		}
		j.copied += bytes
		resp.Shared = j.Answer
	} else {
		written = make(chan struct{})
		j.copied += wire.Copies(r, len(y))
		resp.Words = wire.EncodeWords(r, y, func() {
			answer.Read()
			close(written)
		})
	}
	e.counts[j.lane()].answered(bytes, j.received, j.copied)
	if !e.send(resp, written) {
		e.metrics.Refused(metrics.Cancelled)
		j.model.Metrics.Failed(metrics.Cancelled)
		return
	}
	e.metrics.Sent(bytes, time.Since(begun))
	e.metrics.Carried(j.lane(), j.received, bytes, j.copied)
	took.Total = time.Since(j.arrived)
	j.model.Metrics.Answered(took)
}

// waitForModel has a parked request wait until its weights are there and its memory is set
// aside. It returns for how long it did, and how long the request may wait for the rest; 0:
// as long as its policy has it.
func (e *evaluation) waitForModel(ctx context.Context, j *job, p *batch.Policy) (waited, timeout time.Duration, err error) {
	timeout = time.Duration(min(j.TimeoutNS, math.MaxInt64))
	if j.parked == 0 {
		return 0, timeout, nil
	}
	defer e.parked.Release(j.parked)
	if p.Timeout > 0 && (timeout == 0 || p.Timeout < timeout) {
		timeout = p.Timeout
	}
	begun, all := time.Now(), ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	if err = j.model.Wait(ctx); err == nil {
		if err = e.memory.Acquire(ctx, j.charge.total()); err != nil {
			j.model.Release()
		}
	}
	waited = time.Since(begun)
	if all.Err() == nil && timeout > 0 && (ctx.Err() != nil || waited >= timeout) {
		if err == nil {
			j.model.Release()
			e.memory.Release(j.charge.total())
		}
		err = &wire.Error{Code: codes.DeadlineExceeded, Reason: wire.ReasonTimeout, Message: "the request waited for its model for too long"}
	}
	return waited, max(0, timeout-waited), err
}

// input fills x and lets go of the message.
func (j *job) input(x ring.Matrix) error {
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

// fetch fills x from shared memory, which is read once: the caller may write to it, and what
// is looked at is x.
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
	requests, payload, copied atomic.Int64 // bytes: of words received and sent, and copied on the way
}

func (c *counts) answered(sent, received, copied int) {
	c.requests.Add(1)
	c.payload.Add(int64(sent + received))
	c.copied.Add(int64(copied))
}
