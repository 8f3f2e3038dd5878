package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
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
	"github.com/securenets/securenets/cmd/securenets/internal/bench/benchtest"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/plan"
	"github.com/securenets/securenets/internal/ring"
	"github.com/securenets/securenets/internal/wire"
)

// fakeDaemon answers as a test tells it to.
type fakeDaemon struct {
	pb.UnimplementedSecureNetsServer
	answer func(*wire.Request) *wire.Response
	inside atomic.Int32 // requests without an answer
	most   atomic.Int32
}

func (f *fakeDaemon) Evaluate(stream grpc.BidiStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
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

// serveFake returns a fake daemon's address.
func serveFake(t *testing.T, answer func(*wire.Request) *wire.Response) (string, *fakeDaemon) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeDaemon{answer: answer}
	server := grpc.NewServer(wire.ServerOptions()...)
	pb.RegisterSecureNetsServer(server, f)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return "unix:" + path, f
}

// TestDrive: requests are timed from when they were due, answers are compared, and
// only typed refusals that say when to come back are taken for ones.
func TestDrive(t *testing.T) {
	op := plan.Dense(3, 2)
	of := target{op: op, x: randomRows(op, 1), want: []uint32{7, 8}}
	right := func(r *wire.Request) *wire.Response {
		return &wire.Response{ID: r.ID, QueueNS: 5, ComputeNS: 9, Words: wire.EncodeWords(ring.Q4(), of.want, nil)}
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
			callers := []traffic{{targets: []target{of}, rate: rate, depth: 2}, {targets: []target{of}, rate: rate, depth: 1}}
			answers, err := dialUnix(addr).drive(t.Context(), callers, time.Now().Add(100*time.Millisecond))
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
				if a.refused != test.refused || a.done.Before(a.due) || !a.refused && (a.queue != 5 || a.compute != 9) {
					t.Fatalf("%s at %v: %+v", test.name, rate, a)
				}
			}
		}
	}
}

// TestArrivals: a closed loop keeps as many requests open as it is told, an open one
// sends at its rate however slow the answers are, and what they wait for counts.
func TestArrivals(t *testing.T) {
	op := plan.Dense(3, 2)
	of := target{op: op, x: randomRows(op, 1)}
	slow := func(r *wire.Request) *wire.Response {
		time.Sleep(20 * time.Millisecond)
		return &wire.Response{ID: r.ID, Words: wire.EncodeWords(ring.Q4(), []uint32{0, 0}, nil)}
	}
	addr, f := serveFake(t, slow) // one at a time of each caller
	answers, err := dialUnix(addr).drive(t.Context(), []traffic{{targets: []target{of}, depth: 1}, {targets: []target{of}, depth: 3}}, time.Now().Add(200*time.Millisecond))
	if err != nil || f.most.Load() > 2 {
		t.Fatalf("%d at a time, %v", f.most.Load(), err)
	}
	var shortest [2]time.Duration
	for _, a := range answers {
		if d := a.done.Sub(a.due); shortest[a.caller] == 0 || d < shortest[a.caller] {
			shortest[a.caller] = d
		}
	}
	if shortest[0] < 20*time.Millisecond || len(answers) < 6 {
		t.Errorf("%d answers, the shortest took %v", len(answers), shortest)
	}
	const rate, span = 500, 200 * time.Millisecond
	start := time.Now()
	answers, err = dialUnix(addr).drive(t.Context(), []traffic{{targets: []target{of}, rate: rate}}, start.Add(span))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(answers); n < 60 || n > 140 { // 100, with a deviation of 10
		t.Errorf("%d requests in %v at %d a second", n, span, rate)
	}
	last := slices.MaxFunc(answers, func(a, b answer) int { return a.done.Compare(b.done) })
	if d := last.done.Sub(last.due); d < 20*time.Millisecond*time.Duration(len(answers))-2*span {
		t.Errorf("the last of %d waited %v", len(answers), d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dialUnix(addr).drive(ctx, []traffic{{targets: []target{of}, depth: 1}}, time.Now().Add(time.Minute)); err == nil {
		t.Error("a context that has ended is no error")
	}
}

// TestShared: words are in shared memory where that is asked for, at a daemon that takes it,
// for every request that is open.
func TestShared(t *testing.T) {
	op := plan.Dense(300, 200)
	of := target{op: op, x: randomRows(op, 7), want: make([]uint32, 7*200)}
	addr, _ := serveFake(t, func(r *wire.Request) *wire.Response { return &wire.Response{ID: r.ID} })
	shared := []traffic{{targets: []target{of}, depth: 3, shared: true}}
	if _, err := dialUnix(addr).drive(t.Context(), shared, time.Now().Add(time.Second)); !errors.Is(err, errNotShared) {
		t.Errorf("a daemon that shares nothing: %v", err)
	}
	if got, least := shared[0].memory(), int64(3*4*7*(300+200)); got < least || got%lane.Grain != 0 {
		t.Errorf("%d bytes for %d", got, least)
	}
}

// TestServeForms: names are those that are promised.
func TestServeForms(t *testing.T) {
	row := ServeRow{Load: "l", Callers: 2, Offered: 3, Goodput: 4, Refused: 5, Rest: 6, Queue: 7, Compute: 8, P50: 9, P90: 10, P95: 11, P99: 12, Daemon: 13.5}
	r := &ServeResult{CPU: "C", Threads: 1, Rows: 1, Loads: []ServeRow{row}, Transport: []TransportRow{{Rows: 64, Bytes: 1 << 20, Falls: 4.5}}}
	benchtest.CSV(t, r.CSV, strings.Join(serveColumns, ","), "l,2,3,4,5,6,7,8,9,10,11,12,13.5")
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var top map[string]any
	var parts struct{ Loads, Transport []map[string]any }
	if err := errors.Join(json.Unmarshal(text, &top), json.Unmarshal(text, &parts)); err != nil {
		t.Fatal(err)
	}
	for _, names := range [][2]string{
		{strings.Join(benchtest.Fields(top), " "), "batching_gain batching_gain_of_kernel batching_gain_of_kernel_cpu cpu cpu_over_kernel cpu_over_kernel_shared goodput_at_twice goodput_at_twice_cpu jain kernel_alone_us kernel_merged_us least_share loads most_share rows threads transport"},
		{strings.Join(benchtest.Fields(parts.Loads[0]), " "), "concurrency daemon_cpu_us inferences_per_second load network_and_server_send_recv_us offered_per_second p50_latency_us p90_latency_us p95_latency_us p99_latency_us refused_per_second server_compute_infer_us server_queue_us"},
		{strings.Join(benchtest.Fields(parts.Transport[0]), " "), "bytes frames_daemon_us frames_share frames_us kernel_us rows share_falls_by shared_daemon_us shared_share shared_us"},
	} {
		if names[0] != names[1] {
			t.Errorf("JSON has %q, want %q", names[0], names[1])
		}
	}
	var table bytes.Buffer
	if err := r.Table(&table); err != nil || !strings.Contains(table.String(), "Jain index") || !strings.Contains(table.String(), "64    1,048,576 ") {
		t.Errorf("%s: %v", &table, err)
	}
}

// TestMedianRow: each figure for itself.
func TestMedianRow(t *testing.T) {
	var rows []ServeRow
	for _, i := range rand.Perm(5) {
		rows = append(rows, ServeRow{Load: "l", Goodput: float64(i), P99: float64(-i)})
	}
	if got := medianRow(rows); got.Load != "l" || got.Goodput != 2 || got.P99 != -2 {
		t.Errorf("%+v", got)
	}
}
