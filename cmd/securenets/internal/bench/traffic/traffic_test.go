package traffic

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// fakeDaemon answers as a test tells it to.
type fakeDaemon struct {
	pb.UnimplementedSecureNetsServer
	answer func(*wire.Request) *wire.Response
	inside atomic.Int32 // requests without an answer
	most   atomic.Int32
}

func (f *fakeDaemon) Evaluate(stream grpc.BidiStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
	return f.serve(stream)
}

func (f *fakeDaemon) serve(stream wire.ServerStream) error {
	for {
		var r wire.Request
		if err := stream.RecvMsg(&r); err != nil {
			return nil
		}
		r.Free()
		f.most.Store(max(f.most.Load(), f.inside.Add(1)))
		resp := f.answer(&r)
		f.inside.Add(-1)
		if err := stream.SendMsg(resp); err != nil {
			return err
		}
		resp.Free()
	}
}

// serveFake returns the address of a fake daemon that shares no memory.
func serveFake(t *testing.T, answer func(*wire.Request) *wire.Response) (string, *fakeDaemon) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeDaemon{answer: answer}
	ctx, cut := context.WithCancel(context.Background())
	greeter := wire.NewGreeter(ctx, nil, func(s *wire.DirectStream) error { return f.serve(s) })
	greeter.Terms.Admit = func(int64) lane.Verdict { return lane.Off }
	server := grpc.NewServer(append(wire.ServerOptions(), grpc.Creds(greeter))...)
	pb.RegisterSecureNetsServer(server, f)
	go server.Serve(l)
	t.Cleanup(func() {
		server.Stop()
		cut()
		greeter.Wait()
	})
	return "unix:" + path, f
}

// TestDrive: requests are timed from when they were due, answers are compared, and
// only typed refusals that say when to come back are taken for ones.
func TestDrive(t *testing.T) {
	op := plan.Dense(3, 2)
	of := Target{Op: op, X: Rows(op, 1), Want: []uint32{7, 8}}
	right := func(r *wire.Request) *wire.Response {
		return &wire.Response{ID: r.ID, QueueNS: 5, ComputeNS: 9, Words: wire.EncodeWords(ring.Q4(), of.Want, nil)}
	}
	refusal := func(retry uint64) func(*wire.Request) *wire.Response {
		return func(r *wire.Request) *wire.Response {
			return &wire.Response{ID: r.ID, Err: &pb.Error{Code: int32(codes.ResourceExhausted), Reason: string(wire.ReasonOverloaded), RetryNs: retry}}
		}
	}
	for _, test := range []struct {
		name    string
		answer  func(*wire.Request) *wire.Response
		err     error
		refused bool
	}{
		{"right", right, nil, false},
		{"refused", refusal(1), nil, true},
		{"wrong", func(r *wire.Request) *wire.Response {
			return &wire.Response{ID: r.ID, Words: wire.EncodeWords(ring.Q4(), []uint32{7, 9}, nil)}
		}, errWrong, false},
		{"what was not asked", func(r *wire.Request) *wire.Response { r.ID += 1000; return right(r) }, errWrong, false},
		{"refused without a time", refusal(0), errors.New(string(wire.ReasonOverloaded)), false},
	} {
		for _, rate := range []float64{0, 300} {
			addr, _ := serveFake(t, test.answer)
			callers := []Caller{{Targets: []Target{of}, Rate: rate, Depth: 2}, {Targets: []Target{of}, Rate: rate, Depth: 1}}
			answers, err := driven(t, addr, callers, 300*time.Millisecond, 10)
			if test.err != nil {
				if err == nil || !errors.Is(err, test.err) && !strings.Contains(err.Error(), test.err.Error()) {
					t.Errorf("%s at %v: %v", test.name, rate, err)
				}
				continue
			}
			if err != nil || len(answers) < 10 {
				t.Fatalf("%s at %v: %d answers, %v", test.name, rate, len(answers), err)
			}
			for _, a := range answers {
				if a.Refused != test.refused || a.Done.Before(a.Due) || !a.Refused && (a.Queue != 5 || a.Compute != 9) {
					t.Fatalf("%s at %v: %+v", test.name, rate, a)
				}
			}
		}
	}
}

// driven is Drive for span, or for longer where a slow machine has fewer answers in that.
func driven(t *testing.T, addr string, callers []Caller, span time.Duration, least int) (answers []Answer, err error) {
	t.Helper()
	for ; ; span *= 2 {
		answers, err = Unix(addr).Drive(t.Context(), callers, time.Now().Add(span))
		if err != nil || len(answers) >= least || span > 10*time.Second {
			return answers, err
		}
	}
}

// TestArrivals: a closed loop keeps as many requests open as it is told, an open one
// sends at its rate however slow the answers are, and what they wait for counts.
func TestArrivals(t *testing.T) {
	op := plan.Dense(3, 2)
	of := Target{Op: op, X: Rows(op, 1)}
	slow := func(r *wire.Request) *wire.Response {
		time.Sleep(20 * time.Millisecond)
		return &wire.Response{ID: r.ID, Words: wire.EncodeWords(ring.Q4(), []uint32{0, 0}, nil)}
	}
	addr, f := serveFake(t, slow) // one at a time of each caller
	answers, err := driven(t, addr, []Caller{{Targets: []Target{of}, Depth: 1}, {Targets: []Target{of}, Depth: 3}}, 400*time.Millisecond, 6)
	if err != nil || f.most.Load() > 2 {
		t.Fatalf("%d at a time, %v", f.most.Load(), err)
	}
	var shortest [2]time.Duration
	for _, a := range answers {
		if d := a.Done.Sub(a.Due); shortest[a.Caller] == 0 || d < shortest[a.Caller] {
			shortest[a.Caller] = d
		}
	}
	if shortest[0] < 20*time.Millisecond || len(answers) < 6 {
		t.Errorf("%d answers, the shortest took %v", len(answers), shortest)
	}
	const rate, span = 250, 400 * time.Millisecond
	start := time.Now()
	answers, err = Unix(addr).Drive(t.Context(), []Caller{{Targets: []Target{of}, Rate: rate}}, start.Add(span))
	if err != nil {
		t.Fatal(err)
	}
	// 100 are due, of a fixed stream; who waits for answers sends 20, and who is held up fewer.
	due := func(a, b Answer) int { return a.Due.Compare(b.Due) }
	n, over := len(answers), slices.MaxFunc(answers, due).Due.Sub(slices.MinFunc(answers, due).Due)
	if got := float64(n-1) / over.Seconds(); n <= 30 || got < 0.75*rate || got > 1.25*rate {
		t.Errorf("%d requests in %v at %d a second", n, over, rate)
	}
	last := slices.MaxFunc(answers, func(a, b Answer) int { return a.Done.Compare(b.Done) })
	if d := last.Done.Sub(last.Due); d < 20*time.Millisecond*time.Duration(len(answers))-2*span {
		t.Errorf("the last of %d waited %v", len(answers), d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Unix(addr).Drive(ctx, []Caller{{Targets: []Target{of}, Depth: 1}}, time.Now().Add(time.Minute)); err == nil {
		t.Error("a context that has ended is no error")
	}
}

// TestShared: words are in shared memory where that is asked for, at a daemon that takes it,
// for every request that is open.
func TestShared(t *testing.T) {
	op := plan.Dense(300, 200)
	of := Target{Op: op, X: Rows(op, 7), Want: make([]uint32, 7*200)}
	addr, _ := serveFake(t, func(r *wire.Request) *wire.Response { return &wire.Response{ID: r.ID} })
	shared := []Caller{{Targets: []Target{of}, Depth: 3, By: Shared}}
	if _, err := Unix(addr).Drive(t.Context(), shared, time.Now().Add(time.Second)); !errors.Is(err, errNotShared) {
		t.Errorf("a daemon that shares nothing: %v", err)
	}
	if got, least := shared[0].memory(), int64(3*4*7*(300+200)); got < least || got%lane.Grain != 0 {
		t.Errorf("%d bytes for %d", got, least)
	}
}
