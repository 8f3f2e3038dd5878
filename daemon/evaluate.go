package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/daemon/pool"
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
// Memory is taken in a fixed order, so that no two requests wait for each other:
// for the message, then for the work, after which the message is let go of.
func (s *service) Evaluate(stream grpc.BidiStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
	ctx := stream.Context()
	in, err := s.inbox(ctx)
	if err != nil {
		return err
	}
	owner, err := ownerOf(ctx)
	if err != nil {
		return err
	}
	e := &evaluation{service: s, stream: stream, models: s.store.Of(owner)}
	defer e.work.Wait()
	slots := make(chan struct{}, maxInFlight)
	for {
		size, err := in.next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		slots <- struct{}{} // freed by work that ends with the stream at the latest
		r := new(wire.Request)
		if err := in.receive(r, size, int64(size)); err != nil {
			return err
		}
		j := &job{Request: r, arrived: time.Now()}
		received := func() {
			r.Free()
			s.incoming.Release(int64(size))
		}
		err = e.admit(ctx, j)
		if err != nil {
			received()
		}
		e.work.Go(func() {
			defer func() { <-slots }()
			if err != nil {
				e.refuse(j, err)
				return
			}
			e.answer(ctx, j, received)
		})
	}
}

// evaluation is one stream.
type evaluation struct {
	*service
	stream  grpc.ServerStream
	models  model.Space    // the caller's
	work    sync.WaitGroup // requests being answered
	sending sync.Mutex
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
	stalled := e.onStall(ctx, "does not read answers")
	defer stalled.Stop()
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

// job is a request whose sizes are good and whose memory is set aside.
type job struct {
	*wire.Request
	model   *model.Model // in use until the product is there, or the job is refused
	op      plan.Op
	bytes   int64     // of the service's memory
	arrived time.Time // when the request's last byte did
}

// overhead is more than the bytes that a request of no words holds: its goroutine
// and what gRPC keeps.
const overhead = 8 << 10

// admit checks all of a request but its words, and waits for the memory that it
// needs, a seed counted as what it expands to. No size is used before it is checked.
func (e *evaluation) admit(ctx context.Context, j *job) error {
	digest, err := parseDigest(j.Model)
	if err != nil {
		return err
	}
	var ok bool
	if j.model, ok = e.models.Acquire(digest); !ok {
		return model.NotFound(digest)
	}
	err = e.check(j)
	if err == nil {
		err = e.memory.Acquire(ctx, j.bytes)
	}
	if err != nil {
		j.model.Release()
	}
	return err
}

// check sets op and bytes of j.
func (s *service) check(j *job) error {
	if int64(j.Layer) >= int64(len(j.model.Plan.Ops)) {
		return &wire.Error{Code: codes.NotFound, Reason: wire.ReasonLayerNotFound,
			Message: fmt.Sprintf("layer %d of %d", j.Layer, len(j.model.Plan.Ops))}
	}
	if j.Rows == 0 {
		return badRequest("no rows")
	}
	j.op = j.model.Plan.Ops[j.Layer]
	var err error
	if j.bytes, err = s.charge(j.model.Plan.Ring, j.op, j.Rows); err != nil {
		return err
	}
	want := int(j.Rows) * j.op.InLen() * j.model.Plan.Ring.WordBytes()
	switch {
	case j.Seed != nil:
		if len(j.Seed.Key) != len(prg.Seed{}) {
			return badRequest("a seed of %d bytes, want %d", len(j.Seed.Key), len(prg.Seed{}))
		}
		if j.Seed.First > math.MaxUint64-uint64(j.Rows-1) {
			return badRequest("a seed whose index overflows")
		}
	case j.Words == nil:
		return badRequest("neither words nor a seed")
	case j.Words.Len() != want:
		return &wire.Error{Code: codes.InvalidArgument, Reason: wire.ReasonBadLength,
			Message: fmt.Sprintf("%d bytes of words, want %d", j.Words.Len(), want)}
	}
	return nil
}

// charge returns the bytes that a request holds between its admission and the
// end of its answer, at most: words in and out, their copies in a merged product,
// and the answer as it is sent, where that is not the words' own memory. It
// returns a *wire.Error where a limit is passed.
func (s *service) charge(r ring.Ring, op plan.Op, rows uint32) (bytes int64, err error) {
	tooLarge := func(format string, a ...any) (int64, error) {
		return 0, &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonTooLarge, Message: fmt.Sprintf(format, a...)}
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
	words := in + out
	if s.batcher.Copies(op, int(rows)) {
		words *= 2
	}
	bytes = overhead + wordSize*(words+words/8) // see pool.Size
	if width != wordSize {
		bytes += out * width
	}
	if most := s.limits.MaxBytesInFlight - incomingBytes(s.limits); bytes > most {
		return tooLarge("%d bytes of memory, want at most %d", bytes, most)
	}
	return bytes, nil
}

// checkPlan returns a *wire.Error for a plan with an operator that not even one
// row can be asked of.
func (s *service) checkPlan(p plan.Plan) error {
	for i, op := range p.Ops {
		var refused *wire.Error
		if _, err := s.charge(p.Ring, op, 1); errors.As(err, &refused) {
			return &wire.Error{Code: refused.Code, Reason: refused.Reason, Message: fmt.Sprintf("operator %d: %s", i, refused.Message)}
		}
	}
	return nil
}

// answer evaluates an admitted request, answers it, and gives back what it holds.
// It calls decoded when the words of the request are not needed any more.
func (e *evaluation) answer(ctx context.Context, j *job, decoded func()) {
	defer e.memory.Release(j.bytes)
	x := matrix(&e.inputs, int(j.Rows), j.op.InLen())
	took := metrics.Request{Rows: int(j.Rows)}
	begun := time.Now()
	err := guard(func() error { return j.input(x) })
	took.Input = time.Since(begun)
	decoded()
	y := matrix(&e.outputs, int(j.Rows), j.op.OutLen())
	if err == nil {
		err = guard(func() error { return e.evaluate(ctx, j, y, x, &took) })
	}
	e.inputs.Put(x.Data)
	j.model.Release()
	if err != nil {
		e.outputs.Put(y.Data)
		e.refuse(j, err)
		return
	}
	resp := &wire.Response{ID: j.ID, QueueNS: uint64(took.Queue.Nanoseconds()), ComputeNS: uint64(took.Compute.Nanoseconds())}
	begun = time.Now()
	written := make(chan struct{})
	resp.Words = wire.EncodeWords(j.model.Plan.Ring, y.Data, func() {
		e.outputs.Put(y.Data)
		close(written)
	})
	bytes := resp.Words.Len()
	if !e.send(resp, written) {
		e.metrics.Refused(metrics.Cancelled)
		j.model.Metrics.Failed(metrics.Cancelled)
		return
	}
	e.metrics.Sent(bytes, time.Since(begun))
	took.Total = time.Since(j.arrived)
	j.model.Metrics.Answered(took)
}

// evaluate sets y and the times that it took.
func (s *service) evaluate(ctx context.Context, j *job, y, x ring.Matrix, took *metrics.Request) error {
	timing, err := s.batcher.Evaluate(ctx, j.model.Product(int(j.Layer)), y, x)
	took.Queue, took.Compute, took.Batch = timing.Queue, timing.Compute, timing.Batch
	return err
}

// input fills x.
func (j *job) input(x ring.Matrix) error {
	r := j.model.Plan.Ring
	if j.Seed == nil {
		return wire.DecodeWords(r, x.Data, j.Words)
	}
	e := prg.New(prg.Seed(j.Seed.Key))
	for i := range x.Rows {
		e.Fill(r, x.Row(i), j.Seed.First+uint64(i))
	}
	return nil
}

func matrix(from *pool.Words, rows, cols int) ring.Matrix {
	return ring.Matrix{Rows: rows, Cols: cols, Data: from.Get(rows * cols)}
}
