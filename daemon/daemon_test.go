package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/version"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/kernels/cpu"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// TestEvaluate: words and seeds, over rings of 4- and 3-byte words.
func TestEvaluate(t *testing.T) { eachWay(t, testEvaluate) }

func testEvaluate(t *testing.T, by way) {
	d := by.start(t, nil, nil)
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		m := newModel(t, r, smallModel(t).Plan.Ops...)
		d.push(m)
		d.works(m)
		e := by.open(d, d.ctx())
		key := [32]byte{1, 2, 3}
		for layer, op := range m.Plan.Ops {
			for _, first := range []uint64{0, 5, math.MaxUint64 - 8} {
				e.send(&wire.Request{ID: 7, Model: m.digest[:], Layer: uint32(layer), Rows: 9, Seed: &pb.Seed{Key: key[:], First: first}})
				resp, err := e.receive()
				if err != nil {
					t.Fatal(err)
				}
				m.check(t, resp, layer, expand(r, key, first, 9, op.InLen()))
				if resp.ID != 7 || resp.ComputeNS == 0 {
					t.Errorf("answer %d took %d ns", resp.ID, resp.ComputeNS)
				}
			}
		}
	}
}

// TestManyAtATime: with many requests in flight on several streams, batched over all streams,
// each answer is right for its request.
func TestManyAtATime(t *testing.T) { eachWay(t, testManyAtATime) }

func testManyAtATime(t *testing.T, by way) {
	d := by.start(t, nil, func(c *config.Config) {
		c.Batching.MaxBatchSize = 20
		c.Batching.MaxQueueDelayMicroseconds = 300
		c.Batching.MaxQueueSize = 1000
	})
	m := smallModel(t)
	d.push(m)
	var streams sync.WaitGroup
	for s := range uint64(4) {
		streams.Go(func() {
			e := by.open(d, d.ctx())
			const n = 150
			size := func(id uint64) (layer, rows int) { return int(id % 2), 1 + int(id*7%11) }
			go func() {
				for id := range uint64(n) {
					layer, rows := size(id + s<<32)
					e.send(m.request(layer, rows, id+s<<32))
				}
				if err := e.stream.CloseSend(); err != nil {
					t.Error(err)
				}
			}()
			seen := map[uint64]bool{}
			for {
				r, err := e.receive()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
				if seen[r.ID] || r.ID>>32 != s {
					t.Errorf("answer %d", r.ID)
				}
				seen[r.ID] = true
				layer, rows := size(r.ID)
				m.check(t, r, layer, m.input(layer, rows, r.ID))
			}
			if len(seen) != n {
				t.Errorf("%d answers to %d requests", len(seen), n)
			}
		})
	}
	streams.Wait()
}

// TestLargest: requests of the largest size, more at a time than there is memory for.
func TestLargest(t *testing.T) { eachWay(t, testLargest) }

func testLargest(t *testing.T, by way) {
	d := by.start(t, nil, func(c *config.Config) { c.Limits.MaxBytesInFlight = 144 << 20 })
	const width = 32
	m := newModel(t, ring.Q4(), plan.Dense(width, width))
	d.push(m)
	const rows = wire.MaxPayload / (4 * width)
	const n = 5 // each takes 32 MiB
	x := m.input(0, rows, 1)
	want := m.product(0, x)
	got := make([]uint32, len(want.Data))
	e := by.open(d, d.ctx())
	go func() {
		for id := range uint64(n) {
			e.send(&wire.Request{ID: id, Model: m.digest[:], Rows: rows, Words: wire.EncodeWords(m.Plan.Ring, x.Data, nil)})
		}
	}()
	for range n {
		r, err := e.receive()
		if err != nil {
			t.Fatal(err)
		}
		if err := wire.DecodeWords(m.Plan.Ring, got, r.Words); err != nil || !slices.Equal(got, want.Data) {
			t.Errorf("wrong product: %v, %v", wire.FromProto(r.Err), err)
		}
		r.Free()
	}
}

// TestStockClient: a client that uses only the generated code.
func TestStockClient(t *testing.T) {
	d := start(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	cc, err := grpc.NewClient(d.cfg.Listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	stream, err := pb.NewSecureNetsClient(cc).Evaluate(d.ctx())
	if err != nil {
		t.Fatal(err)
	}
	x := m.input(1, 2, 5)
	words := make([]byte, 4*len(x.Data))
	m.Plan.Ring.PutWords(words, x.Data)
	if err := stream.Send(&pb.EvaluateRequest{Id: 5, Model: m.digest[:], Layer: 1, Rows: 2, Input: &pb.EvaluateRequest_Words{Words: words}}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	want := kernels.Direct(m.Plan.Ring, m.Plan.Ops[1], m.Weights[1], x)
	got := make([]uint32, len(want.Data))
	if err := m.Plan.Ring.Words(got, resp.GetWords()); err != nil || !slices.Equal(got, want.Data) {
		t.Errorf("wrong product: %v", err)
	}
}

func TestModels(t *testing.T) {
	d := start(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	d.push(m) // again changes nothing
	for range 2 {
		resp, err := d.client().List(d.ctx(), &pb.ListRequest{})
		if err != nil || len(resp.Models) != 1 || !bytes.Equal(resp.Models[0].Digest, m.digest[:]) ||
			resp.Models[0].Size != uint64(len(m.bytes)) || resp.Models[0].Layers != 2 {
			t.Fatalf("list %v, %v", resp, err)
		}
		d.works(m)
		d.wait()
		d.run() // it survives a restart
	}
	info, err := d.client().Info(d.ctx(), &pb.InfoRequest{})
	if err != nil || info.Version != version.Version || info.Backend != "cpu" || info.MaxMessageBytes != wire.MaxMessage {
		t.Errorf("info %v, %v", info, err)
	}
	if _, err := d.client().Remove(d.ctx(), &pb.RemoveRequest{Digest: m.digest[:]}); err != nil {
		t.Fatal(err)
	}
	_, err = d.client().Remove(d.ctx(), &pb.RemoveRequest{Digest: m.digest[:]})
	wantReason(t, wire.FromStatus(err), codes.NotFound, wire.ReasonModelNotFound)
	_, err = d.client().Remove(d.ctx(), &pb.RemoveRequest{Digest: []byte("short")})
	wantReason(t, wire.FromStatus(err), codes.InvalidArgument, wire.ReasonBadRequest)
	resp, err := d.client().List(d.ctx(), &pb.ListRequest{})
	if err != nil || len(resp.Models) != 0 {
		t.Errorf("list %v, %v", resp, err)
	}
	for ctx := d.ctx(); d.backend.Stats().Loaded != 0; time.Sleep(time.Millisecond) { // freed in the background
		if ctx.Err() != nil {
			t.Fatalf("%d products loaded", d.backend.Stats().Loaded)
		}
	}
}

// TestRemoveInUse: a call in progress keeps its model.
func TestRemoveInUse(t *testing.T) { eachWay(t, testRemoveInUse) }

func testRemoveInUse(t *testing.T, by way) {
	h := newHooked()
	d := by.start(t, h, nil)
	m := smallModel(t)
	d.push(m)
	begun, resume := h.hold(t, 0)
	e := by.open(d, d.ctx())
	e.send(m.request(1, 3, 9))
	<-begun
	if _, err := d.client().Remove(d.ctx(), &pb.RemoveRequest{Digest: m.digest[:]}); err != nil {
		t.Fatal(err)
	}
	e.send(m.request(1, 3, 10))
	r, err := e.receive()
	if err != nil || r.ID != 10 || r.Err.GetReason() != string(wire.ReasonModelNotFound) {
		t.Errorf("after removal: %v, %v", r, err)
	}
	close(resume)
	if r, err = e.receive(); err != nil || r.ID != 9 {
		t.Fatalf("answer %v, %v", r, err)
	}
	m.check(t, r, 1, m.input(1, 3, 9))
}

// TestBackendFailures: a failure of the backend is an answer to its request, without the
// backend's error; the daemon and the stream go on.
func TestBackendFailures(t *testing.T) { eachWay(t, testBackendFailures) }

func testBackendFailures(t *testing.T, by way) {
	h := newHooked()
	d := by.start(t, h, nil)
	m := smallModel(t)
	d.push(m)
	const secret = "the payload was 12345"
	for _, hook := range []func(context.Context) error{
		func(context.Context) error { return errors.New("device lost") },
		func(context.Context) error { panic(secret) },
	} {
		e := by.open(d, d.ctx())
		h.set(hook)
		e.send(m.request(0, 1, 4))
		r, err := e.receive()
		if err != nil || r.ID != 4 || r.Err.GetReason() != string(wire.ReasonInternal) || codes.Code(r.Err.GetCode()) != codes.Internal {
			t.Errorf("answer %v, %v", r, err)
		}
		if strings.Contains(r.Err.GetMessage(), "device") {
			t.Errorf("answer %v", r.Err)
		}
		h.set(nil)
		e.works(m)
	}
	log := d.log.String()
	if !strings.Contains(log, "device lost") || !strings.Contains(log, "hookedProduct") || strings.Contains(log, secret) {
		t.Errorf("log: %s", log)
	}
}

// TestOverload: a full queue refuses, typed, and serves on.
func TestOverload(t *testing.T) { eachWay(t, testOverload) }

func testOverload(t *testing.T, by way) {
	h := newHooked()
	d := by.start(t, h, func(c *config.Config) { c.Batching.MaxQueueSize = 2 })
	m := smallModel(t)
	d.push(m)
	begun, resume := h.hold(t, 10)
	e := by.open(d, d.ctx())
	e.send(m.request(1, 1, 0))
	<-begun
	for id := range uint64(3) {
		e.send(m.request(1, 1, 1+id))
	}
	r, err := e.receive()
	if err != nil || r.Err.GetReason() != string(wire.ReasonOverloaded) || codes.Code(r.Err.GetCode()) != codes.ResourceExhausted || r.Err.RetryNs == 0 {
		t.Errorf("answer %v, %v", r, err)
	}
	// Another connection to a unix socket is another caller: it gets room, at the cost of the
	// caller with the most calls.
	other, _, _ := by.openApart(d, d.ctx())
	other.send(m.request(1, 1, 7))
	refused, answered := e, other
	if by == byTLS {
		refused, answered = other, e
	}
	if r, err = refused.receive(); err != nil || r.Err.GetReason() != string(wire.ReasonOverloaded) {
		t.Errorf("answer %v, %v", r, err)
	}
	close(resume)
	for _, e := range []*evaluation{e, e, answered} {
		r, err := e.receive()
		if err != nil {
			t.Fatal(err)
		}
		m.check(t, r, 1, m.input(1, 1, r.ID))
	}
	h.set(nil)
	e.works(m)
}

// TestQueue: a request's timeout and priority, and a configuration for one model.
func TestQueue(t *testing.T) {
	h := newHooked()
	m, other := smallModel(t), newModel(t, ring.Q4(), plan.Dense(3, 5))
	d := start(t, h, func(c *config.Config) {
		withMetrics(c)
		c.Threads = 1
		c.Batching.MaxBatchSize, c.Batching.PriorityLevels, c.Batching.DefaultPriorityLevel = 1, 3, 2
		timeout, levels := 1000, 0
		c.Batching.Models = map[string]config.Override{other.digest.String(): {
			DefaultTimeoutMicroseconds: &timeout, PriorityLevels: &levels, DefaultPriorityLevel: &levels}}
	})
	d.push(m)
	d.push(other)
	begun, resume := h.hold(t, 10)
	e := evaluate(t, d.ctx(), d.cc)
	e.send(m.request(1, 1, 0))
	<-begun
	late := m.request(1, 1, 100)
	late.TimeoutNS = 1
	e.send(late)
	e.send(other.request(0, 1, 101))
	for range 2 {
		r, err := e.receive()
		if err != nil || r.ID < 100 || r.Err.GetReason() != string(wire.ReasonTimeout) || codes.Code(r.Err.GetCode()) != codes.DeadlineExceeded {
			t.Errorf("answer %v, %v", r, err)
		}
	}
	for id, priority := range []uint32{1: 3, 2: 0, 3: 1, 4: 9} { // 0 and 9 are 2
		if id > 0 {
			r := m.request(1, 1, uint64(id))
			r.Priority = priority
			e.send(r)
			d.waitForQueue(id)
		}
	}
	var order []uint64
	for range 5 {
		resume <- struct{}{}
		r, err := e.receive()
		if err != nil {
			t.Fatal(err)
		}
		m.check(t, r, 1, m.input(1, 1, r.ID))
		order = append(order, r.ID)
	}
	if want := []uint64{0, 3, 2, 4, 1}; !slices.Equal(order, want) {
		t.Errorf("answered in the order %v, want %v", order, want)
	}
}

// TestCopies: a request's words are copied once, from the transport's memory to the product's,
// and its answer's words not at all, whether the request is merged with others or not.
func TestCopies(t *testing.T) {
	const in, out, merged = 300, 500, 5
	for _, alone := range []bool{true, false} {
		h := newHooked()
		d := start(t, h, withMetrics)
		m := newModel(t, ring.Q4(), plan.Dense(in, out))
		d.push(m)
		begun, resume := h.hold(t, 10)
		e := evaluate(t, d.ctx(), d.cc)
		e.send(m.request(0, 1, 0))
		<-begun
		requests := 1
		if !alone {
			for id := range uint64(merged) {
				e.send(m.request(0, 1, 1+id))
			}
			d.waitForQueue(merged)
			requests += merged
		}
		close(resume)
		for range requests {
			r, err := e.receive()
			if err != nil {
				t.Fatal(err)
			}
			m.check(t, r, 0, m.input(0, 1, r.ID))
		}
		if products := 1 + len(begun); products != min(requests, 2) {
			t.Errorf("%d products of %d requests", products, requests)
		}
		d.wait()
		want := fmt.Sprintf("requests=%d payload_bytes=%d copied_bytes=%d shared_requests=0", requests, requests*4*(in+out), requests*4*in)
		if !strings.Contains(d.log.String(), want) {
			t.Errorf("%d requests: want %s in %s", requests, want, d.log.String())
		}
	}
}

// TestDrain: requests received are answered, later ones refused, and the socket is removed.
func TestDrain(t *testing.T) { eachWay(t, testDrain) }

func testDrain(t *testing.T, by way) {
	h := newHooked()
	d := by.start(t, h, nil)
	m := smallModel(t)
	d.push(m)
	begun, resume := h.hold(t, 2)
	busy, idle := by.open(d, d.ctx()), by.open(d, d.ctx())
	busy.send(m.request(1, 3, 9))
	<-begun
	watch, err := healthpb.NewHealthClient(d.cc).Watch(d.ctx(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := watch.Recv(); err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health %v, %v", r, err)
	}
	upload, err := d.client().Upload(d.ctx())
	if err != nil {
		t.Fatal(err)
	}
	other := newModel(t, ring.Q4(), plan.Dense(5, 5))
	if err := upload.Send(&pb.UploadRequest{Digest: other.digest[:], Size: uint64(len(other.bytes)), Data: other.bytes[:9]}); err != nil {
		t.Fatal(err)
	}
	d.waitForPart(other, 9)

	d.stop()
	_, err = idle.receive()
	wantReason(t, err, codes.Unavailable, wire.ReasonShuttingDown)
	busy.send(m.request(1, 3, 10))
	_, err = upload.CloseAndRecv()
	wantReason(t, wire.FromStatus(err), codes.Unavailable, wire.ReasonShuttingDown)
	for err = nil; err == nil; { // NOT_SERVING may come first
		_, err = watch.Recv()
	}
	if _, err := net.Dial("unix", strings.TrimPrefix(d.cfg.Listen, "unix:")); err == nil {
		t.Error("it still accepts")
	}
	select {
	case err := <-d.done:
		t.Fatalf("it ended with work in flight: %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	close(resume)
	r, err := busy.receive()
	if err != nil {
		t.Fatal(err)
	}
	m.check(t, r, 1, m.input(1, 3, 9))
	_, err = busy.receive()
	wantReason(t, err, codes.Unavailable, wire.ReasonShuttingDown)
	d.wait()
	if _, err := os.Lstat(strings.TrimPrefix(d.cfg.Listen, "unix:")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket: %v", err)
	}
	if n := h.Stats().Loaded; n != 0 {
		t.Errorf("%d products open", n)
	}
	// The upload goes on after a restart.
	h.set(nil)
	d.run()
	if resp, err := send(d.ctx(), d.cc, other.digest, len(other.bytes), 0); err != nil || resp.Received != 9 || resp.Complete {
		t.Errorf("upload: %v, %v", resp, err)
	}
}

// TestDrainTimeout: work that does not end is cancelled, alone or merged.
func TestDrainTimeout(t *testing.T) { eachWay(t, testDrainTimeout) }

func testDrainTimeout(t *testing.T, by way) {
	h := newHooked()
	d := by.start(t, h, func(c *config.Config) { c.DrainTimeoutSeconds = 0 })
	m := smallModel(t)
	d.push(m)
	begun := make(chan struct{}, 10)
	h.set(func(ctx context.Context) error { begun <- struct{}{}; <-ctx.Done(); return ctx.Err() })
	e := by.open(d, d.ctx())
	for id := range uint64(5) {
		e.send(m.request(1, 1, id))
	}
	<-begun
	d.wait()
	for {
		r, err := e.receive()
		if err != nil {
			break
		}
		if r.Err == nil {
			t.Error("an answer")
		}
	}
}

// TestStartsNotReady: before the models are loaded its health says so, and calls wait.
func TestStartsNotReady(t *testing.T) { eachWay(t, testStartsNotReady) }

func testStartsNotReady(t *testing.T, by way) {
	d := by.start(t, nil, withMetrics)
	m := smallModel(t)
	d.push(m)
	d.wait()

	h := &slowLoad{Backend: cpu.New(cpu.Options{}), resume: make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	run := func(ctx context.Context) {
		d.logged = len(d.log.String())
		go func() { done <- daemon.Run(ctx, d.cfg, slog.New(slog.NewTextHandler(d.log, nil)), h) }()
		d.cc = d.connect()
		d.waitFor(healthpb.HealthCheckResponse_NOT_SERVING)
	}
	run(ctx)
	listed := make(chan int)
	go func() {
		resp, err := d.client().List(d.ctx(), &pb.ListRequest{})
		if err != nil {
			t.Error(err)
		}
		listed <- len(resp.GetModels())
	}()
	e := by.open(d, d.ctx())
	e.send(m.request(1, 2, 3))
	_, _, cut := by.openApart(d, d.ctx())
	d.waitForFigure(3, "securenets_calls")
	cut() // a waiting call may leave
	d.waitForFigure(2, "securenets_calls")
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		r, err := e.receive()
		if err != nil {
			t.Error(err)
			return
		}
		m.check(t, r, 1, m.input(1, 2, 3))
	}()
	select {
	case <-listed:
		t.Error("a call did not wait")
	case <-answered:
		t.Error("a stream did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	close(h.resume)
	if n := <-listed; n != 1 {
		t.Errorf("%d models", n)
	}
	<-answered
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}

	// A signal before it is ready ends it too.
	h.resume = make(chan struct{})
	ctx, stop = context.WithCancel(t.Context())
	run(ctx)
	e = by.open(d, d.ctx())
	e.send(m.request(1, 2, 3))
	d.waitForFigure(1, "securenets_calls")
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := e.receive(); status.Code(err) != codes.Unavailable {
		t.Errorf("a stream that waited: %v", err)
	}
	d.run()
}

// slowLoad is a backend whose loads wait for the test.
type slowLoad struct {
	kernels.Backend
	resume chan struct{}
}

func (b *slowLoad) Load(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (plan.Product, error) {
	select {
	case <-b.resume:
	case <-ctx.Done():
	}
	return b.Backend.Load(ctx, r, op, w)
}

// wrong is a backend with wrong results.
type wrong struct{ *hooked }

func (w wrong) Load(ctx context.Context, r ring.Ring, op plan.Op, m ring.Matrix) (plan.Product, error) {
	m.Data = slices.Clone(m.Data)
	m.Data[0] = r.Add(m.Data[0], 1)
	return w.hooked.Load(ctx, r, op, m)
}

func TestCannotStart(t *testing.T) {
	d := start(t, nil, nil)
	path := strings.TrimPrefix(d.cfg.Listen, "unix:")
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change  func(*config.Config)
		backend kernels.Backend
		want    error
	}{
		"state directory in use":    {func(c *config.Config) { c.Listen = "unix:" + filepath.Join(dir, "s") }, newHooked(), model.ErrLocked},
		"address in use":            {func(c *config.Config) { c.StateDir = filepath.Join(dir, "1") }, newHooked(), daemon.ErrAddressInUse},
		"address is a file":         {func(c *config.Config) { c.StateDir, c.Listen = filepath.Join(dir, "2"), "unix:"+file }, newHooked(), new(fs.PathError)},
		"state directory is a file": {func(c *config.Config) { c.StateDir = file }, newHooked(), new(fs.PathError)},
		"another scheme":            {func(c *config.Config) { c.Listen = "tcp:127.0.0.1:1" }, newHooked(), config.ErrInvalid},
		"a socket for all":          {func(c *config.Config) { c.SocketMode = "0777" }, newHooked(), config.ErrInvalid},
		"a model without a digest":  {func(c *config.Config) { c.Residency.Pinned = []string{"a"} }, newHooked(), config.ErrInvalid},
		"policies of no model":      {func(c *config.Config) { c.Batching.Models = map[string]config.Override{"a": {}} }, newHooked(), config.ErrInvalid},
		"no limits":                 {func(c *config.Config) { c.Limits = config.Limits{} }, newHooked(), config.ErrInvalid},
		"less than no memory":       {func(c *config.Config) { c.SharedMemory.Bytes = -1 }, newHooked(), config.ErrInvalid},
		"a backend that is wrong": {func(c *config.Config) {
			c.StateDir, c.Listen = filepath.Join(dir, "3"), "unix:"+filepath.Join(dir, "t")
		},
			wrong{newHooked()}, kernels.ErrWrong},
	} {
		cfg := d.cfg
		c.change(&cfg)
		err := daemon.Run(t.Context(), cfg, slog.New(slog.DiscardHandler), c.backend)
		var path *fs.PathError
		if _, ok := c.want.(*fs.PathError); ok && !errors.As(err, &path) || !ok && !errors.Is(err, c.want) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the file: %v", err)
	}
	m := smallModel(t)
	d.push(m)
	d.works(m)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
}

// TestNoLog: a daemon runs without a log.
func TestNoLog(t *testing.T) {
	dir := t.TempDir()
	d := &running{t: t, cfg: config.Default()}
	d.cfg.Listen, d.cfg.StateDir = "unix:"+filepath.Join(dir, "s"), filepath.Join(dir, "state")
	h := newHooked()
	defer h.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- daemon.Run(ctx, d.cfg, nil, h) }()
	d.cc = d.connect()
	d.waitFor(healthpb.HealthCheckResponse_SERVING)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestStaleSocket: the socket of a daemon that died is replaced.
func TestStaleSocket(t *testing.T) {
	d := start(t, nil, nil)
	d.wait()
	path := strings.TrimPrefix(d.cfg.Listen, "unix:")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	d.run()
}

func wantReason(t testing.TB, err error, code codes.Code, want wire.Reason) {
	t.Helper()
	var e *wire.Error
	if !errors.As(err, &e) || e.Reason != want || e.Code != code {
		t.Errorf("error %v (%v), want %s", err, status.Code(err), want)
		return
	}
	if want == wire.ReasonOverloaded && e.RetryAfter == 0 {
		t.Errorf("%v does not say when to try again", err)
	}
}
