// Package wire carries the protocol of api/ over gRPC: a codec that moves
// payload words without copying them, addresses, limits, and errors with stable
// reasons. Both sides use it; it knows nothing of masks. See docs/spec.md, section 8.
//
// Payload travels as *Request and *Response, given to the SendMsg and RecvMsg of an
// Evaluate stream instead of the generated messages:
//
//	req := wire.Request{ID: 1, Model: digest, Rows: n, Words: wire.EncodeWords(r, v, release)}
//	err := stream.SendMsg(&req)
//	req.Free() // whatever err is; release runs once the transport is done too
//
//	var resp wire.Response
//	err = stream.RecvMsg(&resp)
//	err = wire.DecodeWords(r, dst, resp.Words)
//	resp.Free()
package wire

import (
	"google.golang.org/grpc/mem"

	pb "github.com/securenets/securenets/api/securenets/v1"
)

const (
	// MaxMessage is the largest message in bytes. Callers split batches by rows.
	MaxMessage = 16 << 20
	// MaxPayload is the largest words field in bytes: it leaves room for the
	// message's other fields.
	MaxPayload = MaxMessage - 1<<10
)

// Request is an EvaluateRequest whose words stay in the buffers that they were received
// in or are sent from. Codec reads and writes it as protobuf.
type Request struct {
	ID    uint64
	Model []byte // digest
	Layer uint32
	Rows  uint32
	// Exactly one of Words (may be empty but not nil), Seed and Shared is set.
	Words  mem.BufferSlice
	Seed   *pb.Seed
	Shared *Span // where the words are in the connection's shared memory
	Answer *Span // where the answer's words go in shared memory; nil: into the response
	// How long the request may wait for its product, in nanoseconds, and its priority
	// among the caller's own requests; 0: the daemon decides.
	TimeoutNS uint64
	Priority  uint32
}

// Free drops the caller's reference to the words, received or to be sent. The
// transport has its own.
func (r *Request) Free() { r.Words.Free() }

// Response is an EvaluateResponse whose words stay in their buffers, as in Request.
type Response struct {
	ID                 uint64
	Words              mem.BufferSlice
	Err                *pb.Error // set instead of Words
	Shared             *Span     // set instead of Words: the request's Answer, where the words are
	QueueNS, ComputeNS uint64
	// Place, if set when a response is received, returns memory for the n bytes of words of the
	// response with an ID, or nil. Words on a direct stream are read there, not copied: Words are
	// then that memory, as the peer sent it.
	Place func(id uint64, n int) []byte
}

// Free drops the caller's reference to the words, received or to be sent.
func (r *Response) Free() { r.Words.Free() }

// Span is a range of the connection's shared memory, in bytes.
type Span struct{ Offset, Length uint64 }
