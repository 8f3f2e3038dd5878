// Package wire carries the protocol of api/ over gRPC: a codec that moves
// payload words without copying them, addresses, limits, and errors with stable
// reasons. Both sides use it; it knows nothing of masks. See docs/spec.md, section 8.
package wire

import (
	"errors"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/ring"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
)

// MaxMessage is the largest message in bytes. Callers split batches by rows.
const MaxMessage = 16 << 20

var errTODO = errors.New("wire: not written yet")

// Request is an EvaluateRequest whose words stay in the buffers that they came
// in or are to be sent from. Codec reads and writes it as protobuf.
type Request struct {
	ID    uint64
	Model []byte // digest
	Layer uint32
	Rows  uint32
	// Exactly one of Words (may be empty but not nil) and Seed is set.
	Words mem.BufferSlice
	Seed  *pb.Seed
}

// Free releases the buffers of a received request.
func (r *Request) Free() { r.Words.Free() }

// Response is an EvaluateResponse, likewise.
type Response struct {
	ID                 uint64
	Words              mem.BufferSlice
	Err                *pb.Error // set instead of Words
	QueueNS, ComputeNS uint64
}

// Free releases the buffers of a received response.
func (r *Response) Free() { r.Words.Free() }

// EncodeWords returns v as wire bytes. Where memory holds them as the wire does
// the bytes are v's own memory, and v must not change until release (which may
// be nil) is called, once, from any goroutine, after the last use.
func EncodeWords(r ring.Ring, v []uint32, release func()) mem.BufferSlice { return nil }

// DecodeWords copies exactly len(dst) words from b to dst. It returns an *Error
// with ReasonBadLength or ReasonNonCanonical; dst is then not to be used.
func DecodeWords(r ring.Ring, dst []uint32, b mem.BufferSlice) error { return errTODO }

// Reason is a stable name of an error, for programs.
type Reason string

const (
	ReasonBadRequest    Reason = "BAD_REQUEST"     // a field is missing, or not as the protocol has it
	ReasonBadLength     Reason = "BAD_LENGTH"      // the words are not rows times the operator's length
	ReasonNonCanonical  Reason = "NON_CANONICAL"   // a word is not in [0, M)
	ReasonModelNotFound Reason = "MODEL_NOT_FOUND" // no such model for this caller
	ReasonLayerNotFound Reason = "LAYER_NOT_FOUND" // the model has fewer operators
	ReasonTooLarge      Reason = "TOO_LARGE"       // a limit on sizes is passed
	ReasonBadModel      Reason = "BAD_MODEL"       // the upload is no sealed model, or not the one it is named
	ReasonBadOffset     Reason = "BAD_OFFSET"      // an upload goes on at another place than where it stopped
	ReasonOverloaded    Reason = "OVERLOADED"      // a queue is full; try again later
	ReasonShuttingDown  Reason = "SHUTTING_DOWN"   // the daemon drains
	ReasonStorage       Reason = "STORAGE"         // the daemon's disk failed or is full
	ReasonInternal      Reason = "INTERNAL"        // the backend failed
)

// Error is a failure that the other side reported, or that is to be reported to it.
type Error struct {
	Code    codes.Code
	Reason  Reason
	Message string
}

func (e *Error) Error() string { return string(e.Reason) + ": " + e.Message }

// Status returns e as a gRPC status error with a google.rpc.ErrorInfo
// (domain "securenets"), so that stock clients can read the reason.
func (e *Error) Status() error { return errTODO }

// Proto returns e as the error of one request of a stream.
func (e *Error) Proto() *pb.Error { return nil }

// FromStatus returns the *Error that a gRPC status error carries, or err itself
// where it carries none. FromProto does the same for an error of a stream.
func FromStatus(err error) error  { return errTODO }
func FromProto(p *pb.Error) error { return errTODO }

// ServerOptions and DialOptions set the codec, MaxMessage and window sizes.
func ServerOptions() []grpc.ServerOption { return nil }
func DialOptions() []grpc.DialOption     { return nil }

// Dial connects lazily to an address: "unix:/path". TCP is refused until it has mTLS.
func Dial(addr string) (*grpc.ClientConn, error) { return nil, errTODO }
