package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// ErrStream reports a context that does not belong to a stream served by gRPC.
var ErrStream = errors.New("wire: the context is not that of a gRPC server stream")

// Receiver replaces RecvMsg in a server's stream handler. It reads a message in two steps:
// its size is known before its bytes are read into memory, so that the server can wait for
// memory. Until then a stream holds at most its window.
//
// It belongs to one goroutine at a time. Its errors are io.EOF at the end of the stream and
// gRPC statuses otherwise.
type Receiver struct {
	stream messages
	header [prefix]byte // of the current message
}

// messages is the part of gRPC's transport stream that its interface does not show: RecvMsg
// calls these two, in this order. A direct stream implements it too.
type messages interface {
	ReadMessageHeader(header []byte) error
	Read(n int) (mem.BufferSlice, error)
}

// NewReceiver returns the receiver of the stream whose handler was given ctx.
func NewReceiver(ctx context.Context) (*Receiver, error) {
	s, ok := grpc.ServerTransportStreamFromContext(ctx).(messages)
	if !ok {
		return nil, ErrStream
	}
	return &Receiver{stream: s}, nil
}

// Next waits until a message begins and returns its size in bytes, at most MaxMessage.
func (r *Receiver) Next() (size int, err error) {
	if err := r.stream.ReadMessageHeader(r.header[:]); err != nil {
		return 0, streamError(err)
	}
	size, last, err := messageSize(r.header)
	if last {
		return 0, status.Error(codes.Internal, "a client must not send the message that ends a stream")
	}
	return size, err
}

// Arrived reports whether all of the message that Next has announced is known to be here.
func (r *Receiver) Arrived() bool {
	s, ok := r.stream.(interface{ Buffered() int })
	return ok && s.Buffered() >= int(binary.BigEndian.Uint32(r.header[1:]))
}

// Read reads the message that Next has announced and decodes it with Codec.
func (r *Receiver) Read(m any) error {
	b, err := r.stream.Read(int(binary.BigEndian.Uint32(r.header[1:])))
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return streamError(err)
	}
	defer b.Free()
	if err := (Codec{}).Unmarshal(b, m); err != nil {
		return status.Errorf(codes.Internal, "cannot decode message: %v", err)
	}
	return nil
}

// streamError converts an error of the transport to a gRPC status. It leaves io.EOF as it is.
func streamError(err error) error {
	if err == io.EOF {
		return err
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Internal, err.Error())
}
