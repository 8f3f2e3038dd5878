package daemon_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/tlstest"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// rawDirect is a direct stream of raw messages: a wire.Stream of []byte and *[]byte.
type rawDirect struct{ *net.UnixConn }

func (d *running) rawDirect() rawDirect {
	d.t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: strings.TrimPrefix(d.cfg.Listen, "unix:")})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	region, _, err := lane.Offer(d.ctx(), c, lane.Grain)
	if err != nil {
		d.t.Fatal(err)
	}
	region.Release()
	c.SetDeadline(time.Now().Add(patience))
	return rawDirect{c}
}

func (r rawDirect) SendMsg(m any) error {
	b := m.([]byte)
	_, err := r.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...))
	return err
}

func (r rawDirect) CloseSend() error { return r.CloseWrite() }

// RecvMsg returns the status in the stream's last message as its error, io.ErrUnexpectedEOF
// if the stream ends without one.
func (r rawDirect) RecvMsg(m any) error {
	var prefix [5]byte
	if _, err := io.ReadFull(r, prefix[:]); err == io.EOF {
		return io.ErrUnexpectedEOF
	} else if err != nil {
		return err
	}
	b := make([]byte, binary.BigEndian.Uint32(prefix[1:]))
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if prefix[0] == 0 {
		*m.(*[]byte) = b
		return nil
	}
	var last pb.Error
	if err := proto.Unmarshal(b, &last); err != nil {
		return err
	}
	if n, err := r.Read(make([]byte, 1)); n > 0 || err == nil {
		return errors.New("something came after the last message")
	}
	if last.Code == 0 {
		return io.EOF
	}
	return status.Error(codes.Code(last.Code), last.Message)
}

// TestVanishes: a caller's requests leave the queue as soon as it closes its connection or
// dies, whatever its stream waits for then, and what they held is free.
func TestVanishes(t *testing.T) {
	const most = 64 // requests of a stream in progress at a time
	for name, c := range map[string]struct {
		requests int
		large    bool
		closes   bool // its sending side, first
		received int
		queued   int
	}{
		"waits for a request":  {4, false, false, 4, 3},
		"has no more requests": {4, false, true, 4, 3},
		"waits for its turn":   {most + 4, false, false, most, most - 1}, // which a socket takes, even one that was full before
		"waits for memory":     {5, true, false, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, by way) {
				h := newHooked()
				d := by.start(t, h, func(c *config.Config) {
					withMetrics(c)
					c.Limits.MaxBytesInFlight = 144 << 20
					c.Batching.MaxBatchSize = 1
				})
				m := newModel(t, ring.Q4(), plan.Dense(1024, 1))
				d.push(m)
				begun, resume := h.hold(t, 1)
				e, _, cut := by.openApart(d, d.ctx())
				rows := 1
				if c.large {
					rows = 4090 // which needs 34 MiB of 78
				}
				sent := make(chan struct{})
				x := m.input(0, rows, 1)
				go func() {
					defer close(sent)
					for id := range uint64(c.requests) {
						r := &wire.Request{ID: id, Model: m.digest[:], Rows: uint32(rows), Words: wire.EncodeWords(m.Plan.Ring, x.Data, nil)}
						_ = e.stream.SendMsg(r)
						r.Free()
					}
					if c.closes {
						_ = e.stream.CloseSend()
					}
				}()
				<-begun
				d.waitForQueue(c.queued)
				d.waitForReceived(c.received)
				if !c.large {
					<-sent
				}
				time.Sleep(10 * time.Millisecond) // until it waits
				cut()
				d.waitForQueue(0)
				h.set(nil)
				close(resume)
				<-sent
				d.waitForFigure(0, "securenets_calls")
				for _, part := range []string{"messages", "requests", "parked"} {
					d.waitForFigure(0, "securenets_in_flight_bytes", "part", part)
				}
				d.waitForFigure(0, "securenets_shared_memory_bytes")
				// The caller left, which does not count as an error.
				if !c.closes {
					d.waitForFigure(1, "securenets_calls_total", "method", "Evaluate", "code", "Canceled")
				}
				if got := d.scrape().value("securenets_refusals_total", "reason", "PROTOCOL"); got != 0 {
					t.Errorf("%v calls broke the protocol", got)
				}
				d.works(m)
			})
		})
	}
}

// TestVanishesUnread: a call whose message waits for memory that others hold also ends when
// its caller vanishes.
func TestVanishesUnread(t *testing.T) {
	eachWay(t, func(t *testing.T, by way) {
		d := by.start(t, nil, func(c *config.Config) {
			withMetrics(c)
			c.Limits.MaxBytesInFlight = 144 << 20
		})
		m := smallModel(t)
		d.push(m)
		const halves, message = 3, 1 << 24 // bytes that each takes, of 48 MiB for messages
		for range halves {
			if _, err := d.rawDirect().Write([]byte("\x00\x00\xff\xff\xffand no more")); err != nil {
				t.Fatal(err)
			}
		}
		d.waitForFigure(halves*message, "securenets_in_flight_bytes", "part", "messages")
		e, _, cut := by.openApart(d, d.ctx())
		e.send(m.request(1, 1, 1))
		d.waitForFigure(halves+1, "securenets_calls")
		time.Sleep(10 * time.Millisecond) // until it waits
		cut()
		d.waitForFigure(halves, "securenets_calls")
		if got := d.scrape().value("securenets_in_flight_bytes", "part", "messages"); got != halves*message {
			t.Errorf("%v bytes of messages are in memory, want %v", got, halves*message)
		}
	})
}

// TestVanishesInDrain: a draining daemon does no work for callers that have gone.
func TestVanishesInDrain(t *testing.T) {
	eachWay(t, func(t *testing.T, by way) {
		h := newHooked()
		d := by.start(t, h, func(c *config.Config) {
			withMetrics(c)
			c.Batching.MaxBatchSize = 1
		})
		m := smallModel(t)
		d.push(m)
		begun, resume := h.hold(t, 10)
		e, _, cut := by.openApart(d, d.ctx())
		for id := range uint64(5) {
			e.send(m.request(1, 1, id))
		}
		<-begun
		d.waitForQueue(4)
		d.stop()
		d.waitForLog("draining", 1)
		cut()
		d.waitForQueue(0)
		close(resume)
		d.wait()
		if products := len(begun); products != 0 {
			t.Errorf("%d products for who has gone", products)
		}
	})
}

// TestHalfClosed: a caller that has closed its sending side still gets all its answers, and
// then the stream's result: success.
func TestHalfClosed(t *testing.T) {
	eachWay(t, func(t *testing.T, by way) {
		h := newHooked()
		d := by.start(t, h, withMetrics)
		m := smallModel(t)
		d.push(m)
		begun, resume := h.hold(t, 10)
		e := by.open(d, d.ctx())
		const requests = 5
		for id := range uint64(requests) {
			e.send(m.request(1, 2, id))
		}
		if err := e.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		<-begun
		d.waitForReceived(requests)
		time.Sleep(10 * time.Millisecond) // until it has read the end
		close(resume)
		for range requests {
			r, err := e.receive()
			if err != nil {
				t.Fatal(err)
			}
			m.check(t, r, 1, m.input(1, 2, r.ID))
		}
		if _, err := e.receive(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
		d.waitForFigure(1, "securenets_calls_total", "method", "Evaluate", "code", "OK")
	})
}

// TestAnsweredBeforeGarbage: requests before a malformed message are answered, even if they
// are in progress when it arrives.
func TestAnsweredBeforeGarbage(t *testing.T) {
	h := newHooked()
	d := start(t, h, withMetrics)
	m := smallModel(t)
	d.push(m)
	request, err := proto.Marshal(&pb.EvaluateRequest{Id: 1, Model: m.digest[:], Layer: 1, Rows: 2,
		Input: &pb.EvaluateRequest_Words{Words: words(m, 1, 2)}})
	if err != nil {
		t.Fatal(err)
	}
	for garbage, code := range map[string]codes.Code{
		"\x00\x00\x00\x00\x05":  codes.Internal, // and no more
		"\x00\x00":              codes.Internal,
		"\x01\x00\x00\x00\x00":  codes.Internal,
		"\x00\x02\x00\x00\x00":  codes.ResourceExhausted,
		"\x00\x00\x00\x00\x01z": codes.Internal,
	} {
		begun, resume := h.hold(t, 0)
		r := d.rawDirect()
		if err := r.SendMsg(request); err != nil {
			t.Fatal(err)
		}
		<-begun
		if _, err := r.Write([]byte(garbage)); err != nil {
			t.Fatal(err)
		}
		if err := r.CloseSend(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // until it is read
		close(resume)
		var b []byte
		if err := r.RecvMsg(&b); err != nil {
			t.Errorf("%q: no answer: %v", garbage, err)
			continue
		}
		var resp pb.EvaluateResponse
		if err := proto.Unmarshal(b, &resp); err != nil || len(resp.GetWords()) == 0 {
			t.Errorf("%q: answer %v, %v", garbage, &resp, err)
		}
		if err := r.RecvMsg(&b); status.Code(err) != code {
			t.Errorf("%q: the stream ended with %v", garbage, err)
		}
	}
	d.waitForFigure(5, "securenets_refusals_total", "reason", "PROTOCOL")
}

// TestUnreadSmall: a caller that does not read its answers loses its connection, and its memory
// is freed, even if the answers are a few bytes each, with their words in shared memory.
func TestUnreadSmall(t *testing.T) {
	d := start(t, nil, func(c *config.Config) {
		withMetrics(c)
		c.Limits.StallTimeoutSeconds = 1
	})
	m := smallModel(t)
	d.push(m)
	s := d.evaluateShared(lane.Grain)
	up, down := s.slot(37*4), s.slot(11*4)
	m.Plan.Ring.PutWords(up.Bytes, m.input(1, 1, 1).Data)
	sent := make(chan uint64)
	go func() {
		for id := uint64(0); ; id++ {
			if s.stream.SendMsg(&wire.Request{ID: id, Model: m.digest[:], Layer: 1, Rows: 1, Shared: spanOf(up), Answer: spanOf(down)}) != nil {
				sent <- id
				return
			}
		}
	}()
	d.waitForLog("does not read answers", 1)
	requests := <-sent
	d.waitForFigure(0, "securenets_calls")
	d.waitForFigure(0, "securenets_shared_memory_bytes")
	answers := uint64(0)
	for {
		if _, err := s.evaluation.receive(); err != nil {
			if status.Code(err) != codes.Unavailable {
				t.Errorf("the stream ended with %v", err)
			}
			break
		}
		answers++
	}
	t.Logf("%d requests, %d answers", requests, answers)
	if answers < 10 || answers >= requests {
		t.Errorf("%d answers to %d requests", answers, requests)
	}
	d.waitForFigure(1, "securenets_refusals_total", "reason", "STALLED")
	d.works(m)
}

// TestUnreadBeside: no answer waits for a caller that does not read its own, of the same product.
func TestUnreadBeside(t *testing.T) {
	eachWay(t, func(t *testing.T, by way) {
		const requests = 60
		h := newHooked()
		d := by.start(t, h, func(c *config.Config) {
			withMetrics(c)
			c.Limits.StallTimeoutSeconds = 300 // longer than patience
		})
		m := newModel(t, ring.Q4(), plan.Dense(1, 1024))
		d.push(m)
		for _, rows := range []int{4, 64} { // answers of 16 KiB and of 256 KiB, in all more than a socket takes unread
			begun, resume := h.hold(t, 100)
			unread, reads := by.open(d, d.ctx()), by.open(d, d.ctx())
			unread.send(m.request(0, rows, 0))
			<-begun
			for id := range uint64(requests) {
				unread.send(m.request(0, rows, 1+id))
			}
			d.waitForQueue(requests)
			reads.send(m.request(0, 1, 1000))
			d.waitForQueue(requests + 1)
			close(resume)
			r, err := reads.receive()
			if err != nil || r.ID != 1000 {
				t.Fatalf("%+v, %v", r, err)
			}
			r.Free()
		}
	})
}

// TestUnreadDrain: a caller that reads no answers does not delay the daemon's end beyond the
// drain timeout.
func TestUnreadDrain(t *testing.T) {
	eachWay(t, func(t *testing.T, by way) {
		d := by.start(t, nil, func(c *config.Config) {
			withMetrics(c)
			c.Limits.StallTimeoutSeconds = 300 // longer than patience
			c.DrainTimeoutSeconds = 0
		})
		m := newModel(t, ring.Q4(), plan.Dense(1, 1024))
		d.push(m)
		e := by.open(d, t.Context())
		for id := range uint64(4) { // twice what gRPC would read ahead
			e.send(m.request(0, 4090, id))
		}
		d.waitForReceived(4)
		time.Sleep(50 * time.Millisecond) // until an answer is being sent
		d.wait()
	})
}

// TestArrivals: direct streams that arrive while the daemon drains or is stopped are served,
// told that it is shutting down, or cannot connect; none hangs, and none is left over.
func TestArrivals(t *testing.T) {
	for _, drain := range []int{0, 30} {
		d := start(t, nil, func(c *config.Config) { c.DrainTimeoutSeconds = drain })
		m := smallModel(t)
		d.push(m)
		d.works(m)
		fds, maps := opened(t)
		var answered, told, cut, nobody atomic.Int32
		arrive := func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			s, err := wire.DialDirect(ctx, d.cfg.Listen, lane.Grain)
			if err != nil {
				nobody.Add(1)
				time.Sleep(100 * time.Microsecond)
				return
			}
			defer s.Close()
			r := m.request(1, 1, 3)
			_ = s.SendMsg(r)
			r.Free()
			var resp wire.Response
			err = s.RecvMsg(&resp)
			var e *wire.Error
			switch {
			case err == nil && resp.Err == nil:
				m.check(t, &resp, 1, m.input(1, 1, 3))
				answered.Add(1)
			case err == nil && resp.Err.Reason == string(wire.ReasonShuttingDown),
				errors.As(err, &e) && e.Reason == wire.ReasonShuttingDown:
				told.Add(1)
			case ctx.Err() == nil && status.Code(err) == codes.Unavailable:
				cut.Add(1)
			default:
				t.Errorf("answer %v, %v", resp.Err, err)
			}
		}
		for i := 0; i < 25 || answered.Load() == 0 || told.Load() == 0 || nobody.Load() == 0; i++ {
			if i == 1000 {
				t.Fatal("nothing came in the moment")
			}
			var arriving sync.WaitGroup
			stop := make(chan struct{})
			for range 4 {
				arriving.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							arrive()
						}
					}
				})
			}
			time.Sleep(time.Duration(i%5) * time.Millisecond)
			d.wait()
			close(stop)
			arriving.Wait()
			d.run()
		}
		t.Logf("drain timeout %d s: %d answered, %d told, %d cut, %d found nobody", drain, answered.Load(), told.Load(), cut.Load(), nobody.Load())
		if drain > 0 && cut.Load() > 0 {
			t.Errorf("%d streams were cut by a daemon that drains", cut.Load())
		}
		d.works(m)
		waitForOpened(t, fds, maps)
	}
}

// TestWaitsInVain: a daemon that cannot start ends the direct streams that wait for it.
func TestWaitsInVain(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Default()
	cfg.Listen, cfg.StateDir = "unix:"+filepath.Join(dir, "s"), filepath.Join(dir, "state")
	withMetrics(&cfg)
	h := newHooked()
	defer h.Close()
	_, resume := h.holdLoads(t, 100)
	done := make(chan error, 1)
	fds, maps := opened(t)
	go func() { done <- daemon.Run(t.Context(), cfg, slog.New(slog.DiscardHandler), wrong{h}) }()
	d := &running{t: t, cfg: cfg}
	d.cc = d.connect()
	d.waitFor(healthpb.HealthCheckResponse_NOT_SERVING)
	var streams []*shared
	for i := range 5 {
		s := d.evaluateShared(lane.Grain)
		if i > 0 {
			s.send(smallModel(t).request(1, 1, 1))
		}
		streams = append(streams, s)
	}
	d.waitForFigure(5, "securenets_calls")
	if err := streams[4].stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	close(resume)
	select {
	case err := <-done:
		if !errors.Is(err, kernels.ErrWrong) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the daemon does not end")
	}
	for i, s := range streams {
		if !s.memory.Ended() {
			t.Fatalf("stream %d is left", i)
		}
		if _, err := s.receive(); status.Code(err) != codes.Unavailable {
			t.Errorf("stream %d: %v", i, err)
		}
		s.memory.Close()
	}
	d.cc.Close()
	waitForOpened(t, fds, maps)
}

// TestThousands: direct streams that are opened and dropped, in any state, leave no goroutine,
// descriptor, mapping or reserved byte behind.
func TestThousands(t *testing.T) {
	d := start(t, nil, func(c *config.Config) {
		withMetrics(c)
		c.Limits.MaxCalls = 100        // some are refused
		c.Limits.MaxBytesInFlight *= 2 // half-sent messages do not hold up the others
	})
	m := smallModel(t)
	d.push(m)
	d.works(m)
	d.scrape()
	goroutines := runtime.NumGoroutine()
	fds, maps := opened(t)
	request, err := wire.Codec{}.Marshal(m.request(1, 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	good := request.Materialize()
	const streams = 1000
	var kept []rawDirect
	for i := range streams {
		r := d.rawDirect()
		switch i % 8 {
		case 1:
			r.SendMsg(good)
		case 2: // many, none of which it reads
			for range 100 {
				r.SendMsg(good)
			}
		case 3: // one is answered
			r.SendMsg(good)
			r.RecvMsg(new([]byte))
		case 4:
			r.SendMsg(good)
			r.CloseSend()
		case 5: // to the end
			r.SendMsg(good)
			r.CloseSend()
			for r.RecvMsg(new([]byte)) == nil {
			}
		case 6:
			r.Write([]byte("\x00\x00\xff\xff\xffand no more"))
		case 7:
			r.Write([]byte("spam, ham and eggs"))
		}
		if kept = append(kept, r); i%100 < 50 || i%100 == 99 { // the others stay for a while
			for _, r := range kept {
				r.Close()
			}
			kept = nil
		}
	}
	d.waitForFigure(0, "securenets_calls")
	d.waitForFigure(0, "securenets_queue_depth")
	for _, part := range []string{"messages", "requests", "parked"} {
		d.waitForFigure(0, "securenets_in_flight_bytes", "part", part)
	}
	d.waitForFigure(0, "securenets_shared_memory_bytes")
	if got := d.scrape().value("securenets_shared_memory_offers_total", "verdict", "accepted"); got != streams {
		t.Errorf("%v streams were taken, of %d", got, streams)
	}
	waitForOpened(t, fds, maps)
	for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), goroutines, b[:runtime.Stack(b, true)])
		}
	}
	d.works(m)
}

// waitForReceived waits until n requests were received.
func (d *running) waitForReceived(requests int) {
	d.t.Helper()
	for ctx := d.ctx(); ; time.Sleep(time.Millisecond) {
		f := d.scrape()
		got := f.find("securenets_transfer_duration_seconds", "direction", "received").GetHistogram().GetSampleCount()
		if int(got) == uploaded+requests {
			return
		}
		if ctx.Err() != nil {
			d.t.Fatalf("%d messages were received, want %d and the model's %d", got, requests, uploaded)
		}
	}
}

// TestClientOfSpec: a client in another language, written from the spec alone, is served.
func TestClientOfSpec(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is missing: ", err)
	}
	d := startTLS(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	alice := tlstest.Leaf{CommonName: "alice"}
	d.by(d.as(alice)).push(m)
	dir := t.TempDir()
	ca, err := d.ca.WriteCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := d.ca.Write(dir, "alice", alice)
	if err != nil {
		t.Fatal(err)
	}
	given, err := json.Marshal(map[string]any{
		"socket": strings.TrimPrefix(d.cfg.Listen, "unix:"), "tls": strings.TrimPrefix(d.addr, "tls:"), "ca": ca, "certificate": cert, "key": key,
		"digest": m.digest.String(), "modulus": m.Plan.Ring.Modulus(), "weights": m.Weights[1].Data, "columns": m.Weights[1].Cols,
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "given.json")
	if err := os.WriteFile(file, given, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(d.ctx(), python, "testdata/direct.py", file).CombinedOutput()
	if want := "socket: 10 products\nTLS: 10 products\nTLS, either: 10 products\n"; err != nil || string(out) != want {
		t.Errorf("%v\n%s", err, out)
	}
}
