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
var ErrStream = errors.New("wire: no stream of gRPC's")

// Receiver reads the messages of a stream that a server handles, instead of RecvMsg, in
// two steps: a message's size is known before its bytes are let into memory, so that the
// server can wait for room. Until then a stream holds no more than its window.
//
// It belongs to one goroutine at a time. Its errors are io.EOF at the end of the stream,
// or else statuses.
type Receiver struct {
	stream messages
	header [prefix]byte // of the message begun
}

// messages is what a stream of gRPC's transport has, beside what gRPC shows of it:
// RecvMsg reads with these, one after the other. A direct stream has it, too.
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
		return 0, status.Error(codes.Internal, "message is no message of a client's")
	}
	return size, err
}

// Read reads the message that Next has announced, as Codec does.
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
		return status.Errorf(codes.Internal, "no message of this call: %v", err)
	}
	return nil
}

// streamError makes a status of an error of the transport.
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
