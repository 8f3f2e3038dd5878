package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon/batch"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/version"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
)

// service implements the protocol. Its methods return a *wire.Error, or the error
// of a context, and the interceptors convert them to gRPC statuses.
type service struct {
	pb.UnimplementedSecureNetsServer

	backend string
	log     *slog.Logger
	limits  config.Limits
	store   *model.Store
	batcher *batch.Queue
	policy  func(sealed.Digest) *batch.Policy
	counts  [2]counts // by lane
	metrics *metrics.Metrics
	pacer   pacer
	// The three parts of max_bytes_in_flight: for messages being received, for requests
	// that wait for their model to be loaded, and for admitted requests.
	incoming *incoming           // bytes of messages, from the first byte until they are decoded
	parked   *budget             // bytes of requests that wait for their model
	memory   *budget             // bytes of requests: see charge
	calls    *semaphore.Weighted // one for each call in progress
	ready    chan struct{}       // closed once calls can be served
	serving  atomic.Bool         // true from then until the drain begins
	draining context.Context     // done once the drain begins
	directs  directs
}

// newService returns a service without store, batcher and policy, which the caller sets.
func newService(l config.Limits, log *slog.Logger, backend string, draining context.Context) *service {
	incoming, parked := incomingBytes(l), parkedBytes(l)
	return &service{
		backend: backend, log: log, limits: l,
		metrics:  metrics.New(),
		pacer:    pacer{rate: l.MaxUploadBytesPerSecond, paid: map[model.Owner]time.Time{}},
		incoming: newIncoming(incoming),
		parked:   newBudget(parked),
		memory:   newBudget(l.MaxBytesInFlight - incoming - parked),
		calls:    semaphore.NewWeighted(int64(l.MaxCalls)),
		ready:    make(chan struct{}), draining: draining,
	}
}

// incomingBytes returns the part of max_bytes_in_flight for messages being received.
func incomingBytes(l config.Limits) int64 {
	return max(uploadCopies*wire.MaxMessage, l.MaxBytesInFlight/4)
}

// parkedBytes returns the part of max_bytes_in_flight for requests that wait for their model
// to be loaded.
func parkedBytes(l config.Limits) int64 {
	return max(overhead+wire.MaxMessage, l.MaxBytesInFlight/8)
}

// budget is an amount that is reserved before it is used, and counts how much is reserved.
type budget struct {
	*semaphore.Weighted
	limit int64
	used  atomic.Int64
}

func newBudget(limit int64) *budget {
	return &budget{Weighted: semaphore.NewWeighted(limit), limit: limit}
}

// Acquire waits until n bytes are free and reserves them.
func (b *budget) Acquire(ctx context.Context, n int64) error {
	err := b.Weighted.Acquire(ctx, n)
	if err == nil {
		b.used.Add(n)
	}
	return err
}

// TryAcquire reserves n bytes if they are free. It does not wait.
func (b *budget) TryAcquire(n int64) bool {
	ok := b.Weighted.TryAcquire(n)
	if ok {
		b.used.Add(n)
	}
	return ok
}

// Release gives n reserved bytes back.
func (b *budget) Release(n int64) {
	b.used.Add(-n)
	b.Weighted.Release(n)
}

// Used and Limit implement metrics.Budget.
func (b *budget) Used() int64 { return b.used.Load() }

// Limit implements metrics.Budget.
func (b *budget) Limit() int64 { return b.limit }

func badRequest(format string, a ...any) error {
	return &wire.Error{Code: codes.InvalidArgument, Reason: wire.ReasonBadRequest, Message: fmt.Sprintf(format, a...)}
}

func badLength(got uint64, want int64) error {
	return &wire.Error{Code: codes.InvalidArgument, Reason: wire.ReasonBadLength, Message: fmt.Sprintf("%d bytes of words, want %d", got, want)}
}

func shuttingDown() *wire.Error {
	return &wire.Error{Code: codes.Unavailable, Reason: wire.ReasonShuttingDown, Message: "the daemon is shutting down"}
}

// retryAfter is what a caller is told to wait where it is not known when there is room again.
const retryAfter = 100 * time.Millisecond

// enter counts a call until leave, or refuses it.
func (s *service) enter() (leave func(), err *wire.Error) {
	if !s.calls.TryAcquire(1) {
		s.metrics.Refused(wire.ReasonOverloaded)
		return nil, &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonOverloaded, RetryAfter: retryAfter, Message: "too many concurrent calls; retry later"}
	}
	s.metrics.CallBegan()
	return func() {
		s.metrics.CallEnded()
		s.calls.Release(1)
	}, nil
}

// tap is enter for a gRPC call. gRPC calls it when only the call's headers have been read.
func (s *service) tap(ctx context.Context, _ *tap.Info) (context.Context, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err.Status()
	}
	context.AfterFunc(ctx, leave)
	return ctx, nil
}

func (s *service) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	err = s.call(ctx, info.FullMethod, func() error {
		resp, err = handler(ctx, req)
		return err
	})
	return resp, err
}

func (s *service) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !own(info.FullMethod) {
		// Health's Watch would not end by itself when the daemon drains.
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		defer context.AfterFunc(s.draining, cancel)()
		stream = &endingStream{stream, ctx}
	}
	return s.call(stream.Context(), info.FullMethod, func() error { return handler(srv, stream) })
}

// endingStream is a stream with a context of its own.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *endingStream) Context() context.Context { return s.ctx }

// own reports whether a method belongs to the protocol.
func own(method string) bool {
	return strings.HasPrefix(method, "/"+pb.SecureNets_ServiceDesc.ServiceName+"/")
}

// call runs a handler once the daemon is ready. It recovers panics, converts errors to
// gRPC statuses, and counts and logs the call.
func (s *service) call(ctx context.Context, method string, handler func() error) error {
	start := time.Now()
	if own(method) {
		select {
		case <-s.ready:
		case <-ctx.Done():
			s.metrics.Refused(metrics.Cancelled)
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	err := batch.Guard(handler)
	if _, ok := status.FromError(err); !ok {
		told, why := s.report(err)
		s.metrics.Refused(why)
		err = told.Status()
		if ctx.Err() != nil {
			err = status.FromContextError(ctx.Err()).Err()
		}
	} else if c := status.Code(err); c != codes.OK && c != codes.Canceled && c != codes.DeadlineExceeded && own(method) { // not counted if the caller has left
		s.metrics.Refused(metrics.Protocol)
	}
	s.metrics.Called(path.Base(method), status.Code(err).String())
	s.log.Debug("call", "method", method, "code", status.Code(err), "duration", time.Since(start))
	return err
}

// report returns what the caller is told of an error, and the reason that metrics count.
// Internal errors are logged, not told. A panic's value is not even logged, as it may hold a
// caller's words.
func (s *service) report(err error) (told *wire.Error, why wire.Reason) {
	var reported *wire.Error
	var panicked *batch.PanicError
	switch {
	case errors.As(err, &reported):
		return reported, reported.Reason
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// Either the drain cancelled the call, or the caller has gone and does not read this.
		if s.draining.Err() != nil {
			return shuttingDown(), wire.ReasonShuttingDown
		}
		return shuttingDown(), metrics.Cancelled
	case errors.Is(err, kernels.ErrOutOfMemory):
		s.log.Warn("no device has room", "error", err)
		return &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonOverloaded, RetryAfter: retryAfter, Message: "no device has room for this request now; retry later"}, wire.ReasonOverloaded
	case errors.As(err, &panicked):
		s.log.Error("panic", "type", fmt.Sprintf("%T", panicked.Value), "stack", string(panicked.Stack))
	default:
		s.log.Error("internal error", "error", err)
	}
	return &wire.Error{Code: codes.Internal, Reason: wire.ReasonInternal, Message: "internal error"}, wire.ReasonInternal
}

// receive waits until room has bytes free, then reads the message of the given
// size that from has announced into m. On success the caller must release the bytes. If the
// message does not arrive before the timer silent runs out, its sender loses the connection,
// as others need the memory.
func (s *service) receive(ctx context.Context, room *room, from *wire.Receiver, silent *time.Timer, m any, size int, bytes int64) error {
	if err := room.Acquire(ctx, bytes); err != nil {
		return err
	}
	var took time.Duration
	var err error
	if from.Arrived() {
		err = from.Read(m)
	} else {
		silent.Reset(s.limits.StallTimeout())
		begun := time.Now()
		err = from.Read(m)
		took = time.Since(begun)
		silent.Stop()
	}
	if err != nil {
		room.Release(bytes)
		return err
	}
	s.metrics.Received(size, took)
	return nil
}

// How a caller can stall.
const (
	stallSending = "does not send the rest of a message"
	stallReading = "does not read answers"
)

// onStall returns a stopped timer that calls hangUp when it runs out.
func (s *service) onStall(hangUp func(), what string) *time.Timer {
	t := time.AfterFunc(time.Hour, func() {
		s.log.Warn("connection closed: the caller " + what)
		s.metrics.Refused(metrics.Stalled)
		hangUp()
	})
	t.Stop()
	return t
}

func parseDigest(b []byte) (sealed.Digest, error) {
	if len(b) != len(sealed.Digest{}) {
		return sealed.Digest{}, badRequest("digest that is not of %d bytes", len(sealed.Digest{}))
	}
	return sealed.Digest(b), nil
}

// List implements the protocol.
func (s *service) List(ctx context.Context, _ *pb.ListRequest) (*pb.ListResponse, error) {
	owner, _, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListResponse{}
	for _, m := range s.store.Of(owner).List() {
		resp.Models = append(resp.Models, &pb.Model{Digest: m.Digest[:], Size: uint64(m.Bytes), Layers: uint32(m.Layers)})
	}
	return resp, nil
}

// Remove implements the protocol.
func (s *service) Remove(ctx context.Context, req *pb.RemoveRequest) (*pb.RemoveResponse, error) {
	owner, _, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	digest, err := parseDigest(req.Digest)
	if err != nil {
		return nil, err
	}
	if err := s.store.Of(owner).Remove(ctx, digest); err != nil {
		return nil, err
	}
	return &pb.RemoveResponse{}, nil
}

// Info implements the protocol.
func (s *service) Info(context.Context, *pb.InfoRequest) (*pb.InfoResponse, error) {
	return &pb.InfoResponse{Version: version.Version, Backend: s.backend, MaxMessageBytes: wire.MaxMessage}, nil
}
