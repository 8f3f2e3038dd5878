package daemon

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/wire"
)

// uploadCopies is how many copies of a message's bytes are in memory while protobuf decodes
// it: the received buffers, one contiguous copy, and the decoded field.
const uploadCopies = 3

// Upload implements the protocol.
func (s *service) Upload(stream grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
	ctx := stream.Context()
	owner, _, err := callerOf(ctx)
	if err != nil {
		return err
	}
	room := s.incoming.join(owner)
	defer room.leave()
	in, err := s.inbox(ctx, room)
	if err != nil {
		return err
	}
	r := &uploadReader{inbox: in, owner: owner}
	defer r.release()
	if err := r.next(ctx); err == io.EOF {
		return badRequest("upload without a message")
	} else if err != nil {
		return err
	}
	digest, err := parseDigest(r.message.Digest)
	if err != nil {
		return err
	}
	offset, data := r.message.Offset, len(r.message.Data) > 0
	// While it waits for another upload, it holds nothing that the other one's messages need.
	u, err := s.store.Of(owner).Upload(ctx, digest, int64(min(r.message.Size, math.MaxInt64)), r.release)
	if err != nil {
		return err
	}
	defer u.Close()
	r.idle = time.AfterFunc(s.limits.StallTimeout(), func() {
		u.Cancel(&wire.Error{Code: codes.DeadlineExceeded, Reason: wire.ReasonTimeout, Message: "the upload stalled"})
	})
	defer r.idle.Stop()
	if r.message == nil && data && !u.Stored() {
		return badOffset("the data came during another upload of the model, which held %d bytes at its end", u.Held())
	}
	if err := r.copyTo(u, offset); err != nil {
		return err
	}
	if err := u.Finish(); err != nil {
		return err
	}
	return stream.SendAndClose(&pb.UploadResponse{Received: uint64(u.Held()), Complete: u.Stored()})
}

func badOffset(format string, a ...any) error {
	return &wire.Error{Code: codes.FailedPrecondition, Reason: wire.ReasonBadOffset, Message: fmt.Sprintf(format, a...)}
}

// uploadReader reads the messages of an upload, one at a time.
type uploadReader struct {
	*inbox
	owner   model.Owner
	message *pb.UploadRequest // the current one; nil: none
	held    int64             // bytes of room reserved for it
	idle    *time.Timer       // runs while the next message is awaited; nil before the first
}

// release drops the current message and gives its memory back.
func (r *uploadReader) release() {
	r.room.Release(r.held)
	r.message, r.held = nil, 0
}

// next releases the current message and reads the next one, at the caller's pace; io.EOF after
// the last.
func (r *uploadReader) next(ctx context.Context) error {
	r.release()
	size, err := r.inbox.next(ctx)
	if r.idle != nil {
		r.idle.Stop()
	}
	if err != nil {
		return err
	}
	if err := r.pace(ctx, r.owner, size); err != nil {
		return err
	}
	m, bytes := new(pb.UploadRequest), uploadCopies*int64(size)
	if err := r.receive(m, size, bytes); err != nil {
		return err
	}
	r.message, r.held = m, bytes
	return nil
}

// copyTo writes the data of the current message, whose offset is given, and of those that follow
// to u.
func (r *uploadReader) copyTo(u *model.Upload, offset uint64) error {
	begun := false
	for !u.Stored() {
		if m := r.message; m != nil && len(m.Data) > 0 {
			if at := uint64(u.Held()); !begun && offset != at {
				return badOffset("offset %d, want %d", offset, at)
			}
			begun = true
			if err := u.Write(m.Data); err != nil {
				return err
			}
		}
		r.idle.Reset(r.limits.StallTimeout())
		if err := r.next(u.Context()); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if m := r.message; len(m.Digest) > 0 || m.Size != 0 || m.Offset != 0 {
			return badRequest("digest, size or offset set in a message after the first")
		}
	}
	return nil
}

// inbox receives the messages of a stream's caller.
type inbox struct {
	*service
	ctx      context.Context
	room     *room
	receiver *wire.Receiver
	silent   *time.Timer   // runs while the rest of a message is awaited
	begun    chan int      // the size of each message that begins; closed after the last
	read     chan struct{} // a token for each message that was read
	err      error         // why begun was closed; set before that
}

// inbox returns the inbox of the stream whose handler has ctx and whose owner has room. A
// goroutine waits for messages, so that the handler can wait for other events too. It ends at
// the latest when the handler has returned.
func (s *service) inbox(ctx context.Context, room *room) (*inbox, error) {
	receiver, err := wire.NewReceiver(ctx)
	if err != nil {
		return nil, err
	}
	in := &inbox{s, ctx, room, receiver, s.onStall(func() { hangUp(ctx) }, stallSending), make(chan int), make(chan struct{}), nil}
	go func() {
		defer close(in.begun)
		for {
			var size int
			if size, in.err = receiver.Next(); in.err != nil {
				return
			}
			select {
			case in.begun <- size:
			case <-ctx.Done():
				in.err = ctx.Err()
				return
			}
			select {
			case <-in.read:
			case <-ctx.Done():
				in.err = ctx.Err()
				return
			}
		}
	}()
	return in, nil
}

// next waits until a message begins or ctx ends. It returns the size of the message, which
// receive then reads; io.EOF after the last one.
func (in *inbox) next(ctx context.Context) (size int, err error) {
	select {
	case size, ok := <-in.begun:
		if !ok {
			return 0, in.err
		}
		return size, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-in.draining.Done():
		return 0, shuttingDown()
	}
}

// receive reads the message that next has announced into m; see service.receive.
func (in *inbox) receive(m any, size int, bytes int64) error {
	if err := in.service.receive(in.ctx, in.room, in.receiver, in.silent, m, size, bytes); err != nil {
		return err
	}
	select {
	case in.read <- struct{}{}:
	case <-in.ctx.Done():
	}
	return nil
}
