package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon/batch"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/daemon/pool"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/version"
	"github.com/securenets/securenets/internal/wire"
)

// service implements the protocol. Its methods return *wire.Error, or the error
// of a context, and the interceptors make gRPC statuses of them.
type service struct {
	pb.UnimplementedSecureNetsServer

	backend  string
	log      *slog.Logger
	store    *model.Store
	batcher  batch.Batcher
	memory   *semaphore.Weighted // bytes of inputs and outputs
	stall    time.Duration       // that a caller may keep the daemon waiting
	words    pool.Words
	ready    chan struct{}   // closed once calls can be served
	draining context.Context // done once no more are taken
}

func badRequest(format string, a ...any) error {
	return &wire.Error{Code: codes.InvalidArgument, Reason: wire.ReasonBadRequest, Message: fmt.Sprintf(format, a...)}
}

func shuttingDown() *wire.Error {
	return &wire.Error{Code: codes.Unavailable, Reason: wire.ReasonShuttingDown, Message: "the daemon is shutting down"}
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
		// A watch of the daemon's health has no end of its own.
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		defer context.AfterFunc(s.draining, cancel)()
		stream = &endingStream{stream, ctx}
	}
	return s.call(stream.Context(), info.FullMethod, func() error { return handler(srv, stream) })
}

// endingStream is a stream with a context that ends earlier.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *endingStream) Context() context.Context { return s.ctx }

// own says whether a method is one of the protocol.
func own(method string) bool {
	return strings.HasPrefix(method, "/"+pb.SecureNets_ServiceDesc.ServiceName+"/")
}

// call runs a handler once the daemon is ready. It keeps a panic from ending the
// daemon, makes statuses of errors, and logs.
func (s *service) call(ctx context.Context, method string, handler func() error) error {
	start := time.Now()
	if own(method) {
		select {
		case <-s.ready:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	err := guard(handler)
	if _, ok := status.FromError(err); !ok {
		if ctx.Err() != nil {
			err = status.FromContextError(ctx.Err()).Err()
		} else {
			err = s.report(err).Status()
		}
	}
	s.log.Debug("call", "method", method, "code", status.Code(err), "duration", time.Since(start))
	return err
}

// guard runs f and returns its panic as a *batch.PanicError.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &batch.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}

// report returns what a caller is told of an error. What is the daemon's own
// affair is logged; a panic's value is not, as it may hold a caller's words.
func (s *service) report(err error) *wire.Error {
	var reported *wire.Error
	var panicked *batch.PanicError
	switch {
	case errors.As(err, &reported):
		return reported
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// At the end of the drain, or the caller is gone and does not read this.
		return shuttingDown()
	case errors.As(err, &panicked):
		s.log.Error("panic", "type", fmt.Sprintf("%T", panicked.Value), "stack", string(panicked.Stack))
	default:
		s.log.Error("internal error", "error", err)
	}
	return &wire.Error{Code: codes.Internal, Reason: wire.ReasonInternal, Message: "internal error"}
}

// receive reads a stream's messages in a goroutine of its own, so that a handler
// can wait for other things too. After the last one the channel is closed and end
// returns why (gRPC has told the caller of a frame that is too large or no
// protobuf); the goroutine ends at the latest when the handler has returned.
func receive[M any](stream grpc.ServerStream, free func(*M)) (messages <-chan *M, end func() error) {
	c := make(chan *M)
	var err error
	go func() {
		defer close(c)
		for {
			m := new(M)
			if err = stream.RecvMsg(m); err != nil {
				return
			}
			select {
			case c <- m:
			case <-stream.Context().Done():
				free(m)
				err = stream.Context().Err()
				return
			}
		}
	}()
	return c, func() error {
		if err == io.EOF {
			return nil
		}
		return err
	}
}

func parseDigest(b []byte) (sealed.Digest, error) {
	if len(b) != len(sealed.Digest{}) {
		return sealed.Digest{}, badRequest("a digest of %d bytes, want %d", len(b), len(sealed.Digest{}))
	}
	return sealed.Digest(b), nil
}

// Upload implements the protocol.
func (s *service) Upload(stream grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
	ctx := stream.Context()
	messages, end := receive(stream, func(*pb.UploadRequest) {})
	next := func() (*pb.UploadRequest, error) {
		select {
		case m, ok := <-messages:
			if !ok {
				return nil, end()
			}
			return m, nil
		case <-s.draining.Done():
			return nil, shuttingDown()
		}
	}
	first, err := next()
	if err != nil {
		return err
	}
	if first == nil {
		return badRequest("an upload without a message")
	}
	digest, err := parseDigest(first.Digest)
	if err != nil {
		return err
	}
	u, err := s.store.Upload(ctx, digest, int64(min(first.Size, math.MaxInt64)))
	if err != nil {
		return err
	}
	defer u.Close()
	begun := false
	for m := first; m != nil && !u.Stored(); {
		if len(m.Data) > 0 {
			if at := uint64(u.Held()); !begun && first.Offset != at {
				return &wire.Error{Code: codes.FailedPrecondition, Reason: wire.ReasonBadOffset,
					Message: fmt.Sprintf("offset %d, want %d", first.Offset, at)}
			}
			begun = true
			if err := u.Write(m.Data); err != nil {
				return err
			}
		}
		if m, err = next(); err != nil {
			return err
		}
		if m != nil && (len(m.Digest) > 0 || m.Size != 0 || m.Offset != 0) {
			return badRequest("digest, size or offset in a message that is not the first")
		}
	}
	if err := u.Finish(ctx); err != nil {
		return err
	}
	return stream.SendAndClose(&pb.UploadResponse{Received: uint64(u.Held()), Complete: u.Stored()})
}

// List implements the protocol.
func (s *service) List(context.Context, *pb.ListRequest) (*pb.ListResponse, error) {
	resp := &pb.ListResponse{}
	for _, m := range s.store.List() {
		resp.Models = append(resp.Models, &pb.Model{Digest: m.Digest[:], Size: uint64(m.Bytes), Layers: uint32(m.Layers)})
	}
	return resp, nil
}

// Remove implements the protocol.
func (s *service) Remove(ctx context.Context, req *pb.RemoveRequest) (*pb.RemoveResponse, error) {
	digest, err := parseDigest(req.Digest)
	if err != nil {
		return nil, err
	}
	if err := s.store.Remove(ctx, digest); err != nil {
		return nil, err
	}
	return &pb.RemoveResponse{}, nil
}

// Info implements the protocol.
func (s *service) Info(context.Context, *pb.InfoRequest) (*pb.InfoResponse, error) {
	return &pb.InfoResponse{Version: version.Version, Backend: s.backend, MaxMessageBytes: wire.MaxMessage}, nil
}
