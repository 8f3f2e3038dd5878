package wire_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/wire"
)

func TestErrorRoundTrip(t *testing.T) {
	e := &wire.Error{Code: codes.NotFound, Reason: wire.ReasonModelNotFound, Message: "no model 12ab", RetryAfter: 1500 * time.Millisecond}
	for name, err := range map[string]error{
		"status":         wire.FromStatus(e.Status()),
		"wrapped status": wire.FromStatus(fmt.Errorf("push: %w", e.Status())),
		"proto":          wire.FromProto(e.Proto()),
	} {
		var got *wire.Error
		if !errors.As(err, &got) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Code != e.Code || got.Reason != e.Reason || got.RetryAfter != e.RetryAfter || !strings.Contains(got.Message, e.Message) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	// What a stock client sees.
	s := status.Convert(e.Status())
	info, ok := s.Details()[0].(*errdetails.ErrorInfo)
	if s.Code() != codes.NotFound || !ok || info.Reason != "MODEL_NOT_FOUND" || info.Domain != "securenets" {
		t.Errorf("status %v with %v", s, s.Details())
	}
	if retry, ok := s.Details()[1].(*errdetails.RetryInfo); !ok || retry.RetryDelay.AsDuration() != e.RetryAfter {
		t.Errorf("details %v", s.Details())
	}
	e.RetryAfter = 0
	if d := status.Convert(e.Status()).Details(); len(d) != 1 || e.Proto().RetryNs != 0 {
		t.Errorf("no time to retry became %v", d)
	}
}

func TestOtherErrors(t *testing.T) {
	foreign, err := status.New(codes.NotFound, "x").WithDetails(&errdetails.ErrorInfo{Reason: "R", Domain: "example"})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{nil, context.Canceled, errors.New("x"), status.Error(codes.Unavailable, "x"), foreign.Err()} {
		if got := wire.FromStatus(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
	if err := wire.FromProto(nil); err != nil {
		t.Errorf("no error became %v", err)
	}
	if s := status.Convert((&wire.Error{Message: "no code"}).Status()); s.Code() != codes.Internal {
		t.Errorf("an error without a code became %v", s)
	}
}

// TestHostileErrors: the peer may send anything.
func TestHostileErrors(t *testing.T) {
	for _, code := range []int32{0, -1, 17, 1 << 30} {
		var e *wire.Error
		if err := wire.FromProto(&pb.Error{Code: code}); !errors.As(err, &e) || e.Code != codes.Unknown {
			t.Errorf("code %d: %v", code, err)
		}
	}
	err := wire.FromProto(&pb.Error{Code: 5, Reason: "\x1b[2J", Message: "a\nb\x00" + strings.Repeat("é", 1<<20)})
	if s := err.Error(); strings.ContainsAny(s, "\x1b\n\x00") || len(s) > 2048 {
		t.Errorf("%d bytes: %.60q", len(s), s)
	}
	var e *wire.Error
	if err := wire.FromProto(&pb.Error{Code: 8, RetryNs: math.MaxUint64}); !errors.As(err, &e) || e.RetryAfter != time.Minute {
		t.Errorf("a retry in 584 years became %+v", e)
	}
	negative, err := status.New(codes.ResourceExhausted, "x").WithDetails(&errdetails.ErrorInfo{Reason: "R", Domain: "securenets"},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if !errors.As(wire.FromStatus(negative.Err()), &e) || e.RetryAfter != 0 {
		t.Errorf("a retry in the past became %+v", e)
	}
	p := (&wire.Error{Code: 5, Message: "\xff"}).Proto()
	if _, err := proto.Marshal(p); err != nil {
		t.Errorf("a message that is not UTF-8 cannot be sent: %v", err)
	}
}
