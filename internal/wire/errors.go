package wire

import (
	"math"
	"strings"
	"time"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/securenets/securenets/api/securenets/v1"
)

// Reason is the stable name of an error, for programs.
type Reason string

const (
	ReasonBadRequest    Reason = "BAD_REQUEST"     // a field is missing or invalid
	ReasonBadLength     Reason = "BAD_LENGTH"      // the number of words is not rows times the operator's length
	ReasonNonCanonical  Reason = "NON_CANONICAL"   // a word is not in [0, M)
	ReasonModelNotFound Reason = "MODEL_NOT_FOUND" // no such model for this caller
	ReasonLayerNotFound Reason = "LAYER_NOT_FOUND" // the model has fewer operators
	ReasonTooLarge      Reason = "TOO_LARGE"       // a size exceeds a limit
	ReasonBadModel      Reason = "BAD_MODEL"       // the upload is not a sealed model, or its digest is wrong
	ReasonBadOffset     Reason = "BAD_OFFSET"      // an upload does not continue where it stopped
	ReasonOverloaded    Reason = "OVERLOADED"      // a queue is full; try again later
	ReasonTimeout       Reason = "TIMEOUT"         // an upload stalled, or a request waited longer than it may
	ReasonShuttingDown  Reason = "SHUTTING_DOWN"   // the daemon is draining
	ReasonStorage       Reason = "STORAGE"         // the daemon's disk failed or is full
	ReasonInternal      Reason = "INTERNAL"        // the backend failed
)

// Reasons lists all reasons of the protocol.
var Reasons = []Reason{
	ReasonBadRequest, ReasonBadLength, ReasonNonCanonical, ReasonModelNotFound, ReasonLayerNotFound, ReasonTooLarge, ReasonBadModel,
	ReasonBadOffset, ReasonOverloaded, ReasonTimeout, ReasonShuttingDown, ReasonStorage, ReasonInternal,
}

// domain is the ErrorInfo domain of Reasons.
const domain = "securenets"

// Error is a failure that the peer reported or that is to be reported to it.
type Error struct {
	Code    codes.Code
	Reason  Reason
	Message string
	// RetryAfter is how long to wait before another try; 0 if unknown.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return string(e.Reason) + ": " + e.Message }

// Status returns e as a gRPC status error with a google.rpc.ErrorInfo
// (domain "securenets"), so that stock clients can read the reason, and a
// google.rpc.RetryInfo if RetryAfter is set.
func (e *Error) Status() error {
	s := status.New(e.Code, strings.ToValidUTF8(e.Message, "\uFFFD"))
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: string(e.Reason), Domain: domain}}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	d, err := s.WithDetails(details...)
	if err != nil { // only for codes.OK
		return status.Error(codes.Internal, err.Error())
	}
	return d.Err()
}

// Proto returns e as the error of one request of a stream.
func (e *Error) Proto() *pb.Error {
	return &pb.Error{Code: int32(e.Code), Reason: string(e.Reason), Message: strings.ToValidUTF8(e.Message, "\uFFFD"),
		RetryNs: uint64(max(0, e.RetryAfter))}
}

// FromStatus returns the *Error that a gRPC status error carries, or err itself if it
// carries none.
func FromStatus(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	var info *errdetails.ErrorInfo
	var retry time.Duration
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.Domain == domain {
				info = d
			}
		case *errdetails.RetryInfo:
			retry = d.RetryDelay.AsDuration()
		}
	}
	if info == nil {
		return err
	}
	return received(s.Code(), info.Reason, s.Message(), retry)
}

// FromProto returns the error of one request of a stream as an *Error; nil for nil.
func FromProto(p *pb.Error) error {
	if p == nil {
		return nil
	}
	return received(codes.Code(p.Code), p.Reason, p.Message, time.Duration(min(p.RetryNs, math.MaxInt64)))
}

// received returns an Error with sanitised fields: the peer may lie.
func received(c codes.Code, reason, message string, retry time.Duration) *Error {
	if c == codes.OK || c > codes.Unauthenticated {
		c = codes.Unknown
	}
	const longest = time.Minute
	return &Error{c, Reason(Printable(reason)), Printable(message), min(max(0, retry), longest)}
}

// Printable sanitises foreign text so that it cannot control a terminal or flood a log.
func Printable(s string) string {
	const most = 512
	s = s[:min(len(s), most)]
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
