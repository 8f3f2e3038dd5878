package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// shared is a direct stream.
type shared struct {
	*evaluation
	memory *wire.Direct
	down   map[uint64]lane.Slot // by id
	up     map[uint64]lane.Slot
}

// evaluateShared opens a direct stream with the given size of shared memory.
func (d *running) evaluateShared(size int64) *shared {
	d.t.Helper()
	return d.evaluateSharedUntil(d.ctx(), size)
}

// evaluateSharedUntil is evaluateShared until ctx ends.
func (d *running) evaluateSharedUntil(ctx context.Context, size int64) *shared {
	d.t.Helper()
	m, err := wire.DialDirect(ctx, d.cfg.Listen, size)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(m.Close)
	return &shared{&evaluation{d.t, m}, m, map[uint64]lane.Slot{}, map[uint64]lane.Slot{}}
}

func (s *shared) slot(n int) lane.Slot {
	s.t.Helper()
	slot, ok := s.memory.Get(n)
	if !ok {
		s.t.Fatalf("no room for %d bytes", n)
	}
	return slot
}

func spanOf(s lane.Slot) *wire.Span {
	return &wire.Span{Offset: uint64(s.Offset), Length: uint64(len(s.Bytes))}
}

// share moves a request's words, its answer, or both to shared memory.
func (s *shared) share(m *testModel, r *wire.Request, words, answer bool) {
	s.t.Helper()
	if words && r.Words != nil {
		slot := s.slot(r.Words.Len())
		r.Words.CopyTo(slot.Bytes)
		r.Words.Free()
		r.Words, r.Shared = nil, spanOf(slot)
		s.up[r.ID] = slot
	}
	if answer {
		slot := s.slot(int(r.Rows) * m.Plan.Ops[r.Layer].OutLen() * m.Plan.Ring.WordBytes())
		r.Answer = spanOf(slot)
		s.down[r.ID] = slot
	}
}

// receive returns the next answer, with its words copied out of shared memory.
func (s *shared) receive() (*wire.Response, error) {
	r, err := s.evaluation.receive()
	if err != nil {
		return nil, err
	}
	slot, wanted := s.down[r.ID]
	if wanted && r.Err == nil {
		if r.Shared == nil || *r.Shared != *spanOf(slot) || r.Words != nil {
			s.t.Errorf("answer %d is in %v, want %v", r.ID, r.Shared, spanOf(slot))
		}
		r.Words = memWords(slices.Clone(slot.Bytes))
	} else if r.Shared != nil {
		s.t.Errorf("answer %d is in shared memory", r.ID)
	}
	slot.Put()
	s.up[r.ID].Put()
	delete(s.up, r.ID)
	delete(s.down, r.ID)
	return r, nil
}

func (s *shared) works(m *testModel) {
	s.t.Helper()
	for layer := range m.Plan.Ops {
		r := m.request(layer, 3, uint64(layer))
		s.share(m, r, true, true)
		s.send(r)
		resp, err := s.receive()
		if err != nil {
			s.t.Fatal(err)
		}
		m.check(s.t, resp, layer, m.input(layer, 3, uint64(layer)))
	}
}

func memWords(b []byte) mem.BufferSlice { return mem.BufferSlice{mem.SliceBuffer(b)} }

// TestShared: answers do not depend on where the words are, on one stream and on several,
// beside callers without shared memory.
func TestShared(t *testing.T) {
	d := start(t, nil, withMetrics)
	models := []*testModel{smallModel(t), newModel(t, ring.Q3(), plan.Dense(37, 11), plan.Dense(3, 300))}
	for _, m := range models {
		d.push(m)
	}
	var wg sync.WaitGroup
	const requests = 60
	for k := range 3 {
		s := d.evaluateShared(4 * lane.Grain)
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(k), 9))
			asked := map[uint64]func(*wire.Response){}
			for id := range uint64(requests) {
				m := models[rnd.IntN(2)]
				layer, rows := rnd.IntN(2), 1+rnd.IntN(4)
				r := m.request(layer, rows, id)
				x := m.input(layer, rows, id)
				if rnd.IntN(4) == 0 {
					var key [32]byte
					r.Words.Free()
					r.Words, r.Seed = nil, &pb.Seed{Key: key[:], First: id}
					x = expand(m.Plan.Ring, key, id, rows, m.Plan.Ops[layer].InLen())
				}
				s.share(m, r, rnd.IntN(3) > 0, rnd.IntN(3) > 0)
				asked[id] = func(r *wire.Response) { m.check(t, r, layer, x) }
				s.send(r)
				for len(asked) > 5 || id == requests-1 && len(asked) > 0 {
					r, err := s.receive()
					if err != nil {
						t.Error(err)
						return
					}
					asked[r.ID](r)
					delete(asked, r.ID)
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			d.works(models[0])
		}
	})
	wg.Wait()
	f := d.scrape()
	if got := f.value("securenets_lane_requests_total", "lane", "shared"); got < requests || got > 3*requests {
		t.Errorf("%v requests in shared memory", got)
	}
	if got := f.value("securenets_shared_memory_bytes"); got != 3*4*lane.Grain {
		t.Errorf("%v bytes are shared", got)
	}
	if got := f.value("securenets_shared_memory_offers_total", "verdict", "accepted"); got != 3 {
		t.Errorf("%v regions were accepted", got)
	}
}

// TestLaneFigures: requests, bytes and copies are counted in the right lane.
func TestLaneFigures(t *testing.T) {
	d := start(t, nil, withMetrics)
	const in, out = 300, 500
	m := newModel(t, ring.Q4(), plan.Dense(in, out))
	d.push(m)
	s := d.evaluateShared(4 * lane.Grain)
	for id, shared := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
		r := m.request(0, 2, uint64(id))
		s.share(m, r, shared[0], shared[1])
		s.send(r)
		resp, err := s.receive()
		if err != nil {
			t.Fatal(err)
		}
		m.check(t, resp, 0, m.input(0, 2, uint64(id)))
	}
	if err := s.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.receive(); err != io.EOF { // by then all has been counted
		t.Fatal(err)
	}
	const up, down = 2 * 4 * in, 2 * 4 * out
	f := d.scrape()
	for lane, want := range map[string][4]float64{"frames": {1, up, down, up}, "shared": {3, 3 * up, 3 * down, 3*up + 2*down}} {
		got := [4]float64{
			f.value("securenets_lane_requests_total", "lane", lane),
			f.value("securenets_lane_payload_bytes_total", "lane", lane, "direction", "received"),
			f.value("securenets_lane_payload_bytes_total", "lane", lane, "direction", "sent"),
			f.value("securenets_lane_copied_bytes_total", "lane", lane),
		}
		if got != want {
			t.Errorf("%s: %v, want %v", lane, got, want)
		}
	}
}

// TestBadSpans: spans outside the region or of the wrong length are refused, each by an answer
// of its own, and nothing is written there.
func TestBadSpans(t *testing.T) {
	d := start(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	const layer, rows, size = 1, 2, lane.Grain
	in, out := uint64(rows*37*4), uint64(rows*11*4)
	s := d.evaluateShared(size)
	other := d.evaluateShared(2 * size)
	span := func(offset, length uint64) *wire.Span { return &wire.Span{Offset: offset, Length: length} }
	for _, c := range []struct {
		name   string
		on     *evaluation
		change func(r *wire.Request)
		reason wire.Reason
	}{
		{"words past the end", s.evaluation, func(r *wire.Request) { r.Shared = span(size-in+1, in) }, wire.ReasonBadRequest},
		{"words at the end", s.evaluation, func(r *wire.Request) { r.Shared = span(size, in) }, wire.ReasonBadRequest},
		{"words of a larger region", s.evaluation, func(r *wire.Request) { r.Shared = span(size, in) }, wire.ReasonBadRequest},
		{"words at an absurd offset", s.evaluation, func(r *wire.Request) { r.Shared = span(math.MaxUint64, in) }, wire.ReasonBadRequest},
		{"words that wrap around", s.evaluation, func(r *wire.Request) { r.Shared = span(math.MaxUint64-in+1, in) }, wire.ReasonBadRequest},
		{"a byte less", s.evaluation, func(r *wire.Request) { r.Shared = span(0, in-1) }, wire.ReasonBadLength},
		{"a byte more", s.evaluation, func(r *wire.Request) { r.Shared = span(0, in+1) }, wire.ReasonBadLength},
		{"no words", s.evaluation, func(r *wire.Request) { r.Shared = span(0, 0) }, wire.ReasonBadLength},
		{"absurd length", s.evaluation, func(r *wire.Request) { r.Shared = span(0, math.MaxUint64) }, wire.ReasonBadLength},
		{"an answer past the end", s.evaluation, func(r *wire.Request) { r.Answer = span(size-out+1, out) }, wire.ReasonBadRequest},
		{"an answer that wraps around", s.evaluation, func(r *wire.Request) { r.Answer = span(math.MaxUint64-7, out) }, wire.ReasonBadRequest},
		{"a short answer", s.evaluation, func(r *wire.Request) { r.Answer = span(0, out-4) }, wire.ReasonBadLength},
		{"a long answer", s.evaluation, func(r *wire.Request) { r.Answer = span(0, out+4) }, wire.ReasonBadLength},
		{"an empty answer", s.evaluation, func(r *wire.Request) { r.Answer = span(0, 0) }, wire.ReasonBadLength},
		{"words in nothing", evaluate(t, d.ctx(), d.cc), func(*wire.Request) {}, wire.ReasonBadRequest},
		{"an answer in nothing", evaluate(t, d.ctx(), d.cc), func(r *wire.Request) {
			r.Words, r.Shared = wire.EncodeWords(m.Plan.Ring, m.input(layer, rows, 1).Data, nil), nil
		}, wire.ReasonBadRequest},
	} {
		r := &wire.Request{ID: 7, Model: m.digest[:], Layer: layer, Rows: rows, Shared: span(0, in), Answer: span(512, out)}
		c.change(r)
		c.on.send(r)
		resp, err := c.on.receive()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		t.Run(c.name, func(t *testing.T) { wantReason(t, wire.FromProto(resp.Err), codes.InvalidArgument, c.reason) })
		s.works(m)
	}
	other.works(m)

	// Spans may reach the region's end and may overlap: only the caller is affected.
	x := m.input(layer, rows, 1)
	all := s.slot(size)
	m.Plan.Ring.PutWords(all.Bytes[size-in:], x.Data)
	s.send(&wire.Request{ID: 8, Model: m.digest[:], Layer: layer, Rows: rows, Shared: span(size-in, in), Answer: span(size-out, out)})
	resp, err := s.evaluation.receive()
	if err != nil || resp.Shared == nil {
		t.Fatalf("answer %v, %v", resp, err)
	}
	resp.Words = memWords(all.Bytes[size-out:])
	m.check(t, resp, layer, x)
	// A word that is not canonical, and odd offsets.
	all.Bytes[5], all.Bytes[6], all.Bytes[7], all.Bytes[8] = 0xff, 0xff, 0xff, 0xff
	s.send(&wire.Request{ID: 9, Model: m.digest[:], Layer: layer, Rows: rows, Shared: span(1, in)})
	if resp, err = s.evaluation.receive(); err != nil || resp.Err.GetReason() != string(wire.ReasonNonCanonical) {
		t.Errorf("answer %v, %v", resp, err)
	}
}

// TestGeneratedClient: the generated code alone, and the fields that need memory.
func TestGeneratedClient(t *testing.T) {
	d := start(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	stream, err := d.client().Evaluate(d.ctx())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *pb.EvaluateRequest) *pb.EvaluateResponse {
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	r := &pb.EvaluateRequest{Id: 1, Model: m.digest[:], Layer: 1, Rows: 2, Input: &pb.EvaluateRequest_Words{Words: words(m, 1, 2)}}
	if resp := ask(r); len(resp.GetWords()) != 2*11*4 {
		t.Errorf("answer %v", resp)
	}
	r.Answer = &pb.Shared{Length: 2 * 11 * 4}
	if resp := ask(r); resp.GetError().GetReason() != "BAD_REQUEST" {
		t.Errorf("answer %v", resp)
	}
	r.Input, r.Answer = &pb.EvaluateRequest_Shared{Shared: &pb.Shared{Length: 2 * 37 * 4}}, nil
	if resp := ask(r); resp.GetError().GetReason() != "BAD_REQUEST" {
		t.Errorf("answer %v", resp)
	}
}

// canonical is a backend that reports words that are not canonical.
type canonical struct {
	*hooked
	t *testing.T
}

func (c *canonical) Load(ctx context.Context, r ring.Ring, op plan.Op, w ring.Matrix) (plan.Product, error) {
	p, err := c.hooked.Load(ctx, r, op, w)
	return &canonicalProduct{p, r, c.t}, err
}

type canonicalProduct struct {
	plan.Product
	ring ring.Ring
	t    *testing.T
}

func (p *canonicalProduct) Evaluate(ctx context.Context, y, x ring.Matrix) error {
	if err := p.ring.CheckCanonical(x.Data); err != nil {
		p.t.Error(err)
	}
	return p.Product.Evaluate(ctx, y, x)
}

// TestScribbles: a caller that keeps writing to its shared memory, words and answers alike,
// harms only itself: it is answered, or refused for words that are not canonical.
func TestScribbles(t *testing.T) {
	d := start(t, &canonical{newHooked(), t}, nil)
	m := newModel(t, ring.Q4(), plan.Dense(500, 300))
	d.push(m)
	s := d.evaluateShared(4 * lane.Grain)
	const rows = 20
	up, down := s.slot(rows*500*4), s.slot(rows*300*4)
	stop := make(chan struct{})
	var scribbling sync.WaitGroup
	scribbling.Go(func() {
		for v := byte(0); ; v += 51 { // words of 0xffffffff are among them
			select {
			case <-stop:
				return
			default:
			}
			for i := range up.Bytes {
				up.Bytes[i] = v
			}
			for i := range down.Bytes {
				down.Bytes[i] = v
			}
		}
	})
	honest := d.evaluateShared(4 * lane.Grain)
	var others sync.WaitGroup
	others.Go(func() {
		for range 20 {
			honest.works(m)
		}
	})
	answered, refused := 0, 0
	for id := range uint64(100) {
		s.send(&wire.Request{ID: id, Model: m.digest[:], Rows: rows, Shared: spanOf(up), Answer: spanOf(down)})
		r, err := s.evaluation.receive()
		switch {
		case err != nil:
			t.Fatal(err)
		case r.Err == nil:
			answered++
		case r.Err.Reason == string(wire.ReasonNonCanonical):
			refused++
		default:
			t.Fatal(wire.FromProto(r.Err))
		}
	}
	close(stop)
	scribbling.Wait()
	others.Wait()
	t.Logf("answered %d times, refused %d", answered, refused)
	if strings.Contains(d.log.String(), "panic") {
		t.Error(d.log.String())
	}
	d.works(m)
}

// TestSharedLimits: limits on the memory of one connection and of all. Callers that get none are
// still served, and a connection's memory is free for others once it has ended.
func TestSharedLimits(t *testing.T) {
	d := start(t, nil, func(c *config.Config) {
		withMetrics(c)
		c.SharedMemory = config.SharedMemory{BytesPerConnection: 2 * lane.Grain, Bytes: 5 * lane.Grain}
	})
	m := smallModel(t)
	d.push(m)
	unshared := func(d *running, size int64, want lane.Verdict) {
		t.Helper()
		s, err := wire.DialDirect(d.ctx(), d.cfg.Listen, size)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if s.Slots != nil || s.Verdict != want {
			t.Errorf("%d bytes: %v, want %v", size, s.Verdict, want)
		}
		(&evaluation{t, s}).works(m)
	}
	unshared(d, 3*lane.Grain, lane.TooLarge)
	first := d.evaluateShared(2 * lane.Grain)
	first.works(m)
	d.evaluateShared(2 * lane.Grain).works(m)
	unshared(d, 2*lane.Grain, lane.NoRoom)
	d.evaluateShared(lane.Grain).works(m)
	unshared(d, lane.Grain, lane.NoRoom)
	unshared(d, 0, lane.Accepted)
	f := d.scrape()
	for verdict, want := range map[string]float64{"accepted": 3, "too large": 1, "no room": 2, "off": 0, "bad memory": 0} {
		if got := f.value("securenets_shared_memory_offers_total", "verdict", verdict); got != want {
			t.Errorf("%v offers were %s, want %v", got, verdict, want)
		}
	}
	if got := f.value("securenets_shared_memory_limit_bytes"); got != 5*lane.Grain {
		t.Errorf("a limit of %v", got)
	}
	first.memory.Close()
	d.waitForFigure(3*lane.Grain, "securenets_shared_memory_bytes")
	d.evaluateShared(2 * lane.Grain).works(m)

	off := start(t, nil, func(c *config.Config) { c.SharedMemory.Bytes = 0 })
	off.push(m)
	unshared(off, lane.Grain, lane.Off)
}

// opened returns the number of this process's descriptors and of its mappings of shared memory.
func opened(t *testing.T) (fds, maps int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries), strings.Count(string(b), "memfd:")
}

// waitForOpened waits until neither number exceeds the given one.
func waitForOpened(t *testing.T, fds, maps int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		f, m := opened(t)
		if f <= fds && m <= maps {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d descriptors and %d mappings, %d and %d before", f, m, fds, maps)
		}
	}
}

// TestReconnects: connections that come and go, with or without requests in progress, leave no
// descriptor and no mapping at either end; both ends are in this process.
func TestReconnects(t *testing.T) {
	d := start(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	d.works(m)
	fds, maps := opened(t)
	for i := range 100 {
		s := d.evaluateShared(lane.Grain)
		s.works(m)
		if i%2 == 0 {
			for id := range uint64(5) {
				r := m.request(0, 3, id)
				s.share(m, r, true, true)
				s.send(r)
			}
			for id := range uint64(5) {
				s.up[id].Drop()
				s.down[id].Drop()
			}
		}
		if i%3 == 0 {
			if err := s.memory.CloseSend(); err != nil {
				t.Fatal(err)
			}
		}
		s.memory.Close()
	}
	waitForOpened(t, fds, maps)
	d.works(m)
}

// TestCutInWork: a connection that is cut keeps its shared memory until its requests in progress
// have ended.
func TestCutInWork(t *testing.T) {
	h := newHooked()
	d := start(t, h, nil)
	m := smallModel(t)
	d.push(m)
	d.works(m)
	fds, maps := opened(t)
	begun, resume := h.hold(t, 0)
	s := d.evaluateShared(lane.Grain)
	r := m.request(0, 3, 0)
	s.share(m, r, true, true)
	s.send(r)
	<-begun
	s.up[0].Drop()
	s.down[0].Drop()
	s.memory.Close()
	waitForOpened(t, math.MaxInt, maps+1) // the caller's mapping is gone
	time.Sleep(20 * time.Millisecond)     // until the daemon has noticed
	if _, now := opened(t); now != maps+1 {
		t.Errorf("%d mappings, %d before", now, maps)
	}
	h.set(nil)
	close(resume)
	waitForOpened(t, fds, maps)
	d.works(m)
}

// TestHostilePrefaces: a bad preface ends its connection or gets a verdict. Others are served
// meanwhile, and nothing is left open.
func TestHostilePrefaces(t *testing.T) {
	d := start(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	d.works(m)
	fds, maps := opened(t)
	good := []byte("snlane3\n\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	memory := func() int {
		fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Ftruncate(fd, lane.Grain); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	raw := func(b []byte, n int) *net.UnixConn {
		c, err := net.Dial("unix", strings.TrimPrefix(d.cfg.Listen, "unix:"))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		var rights []int
		for range n {
			rights = append(rights, memory())
		}
		if _, _, err := c.(*net.UnixConn).WriteMsgUnix(b, unix.UnixRights(rights...), nil); err != nil {
			t.Fatal(err)
		}
		for _, fd := range rights {
			unix.Close(fd)
		}
		return c.(*net.UnixConn)
	}
	slow := raw(good[:10], 2)
	for name, b := range map[string][]byte{"garbage": []byte("spam and more spam, ham and eggs"), "cut": good[:23], "too many": good} {
		n := 1
		if name == "too many" {
			n = 200
		}
		c := raw(b, n)
		c.CloseWrite()
		if n, err := c.Read(make([]byte, 100)); err == nil {
			t.Errorf("%s: %d bytes are replied", name, n)
		}
		c.Close()
	}
	for verdict, c := range map[lane.Verdict]*net.UnixConn{
		lane.BadMemory:  raw(good, 1), // not sealed
		lane.BadVersion: raw(slices.Concat([]byte("snlane7\n"), good[8:]), 1),
	} {
		b := make([]byte, 16)
		if _, err := c.Read(b); err != nil || b[8] != byte(verdict) {
			t.Errorf("%v: reply %x, %v", verdict, b, err)
		}
		// After that it is a direct stream or, with a preface of another version, a gRPC connection.
		if _, err := c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err != nil {
			t.Error(err)
		}
		if n, err := c.Read(b); err != nil || n < 9 || (b[0] == 1<<7) != (verdict == lane.BadMemory) {
			t.Errorf("%v: %x, %v", verdict, b, err)
		}
		c.Close()
	}
	d.works(m)
	slow.Close()
	waitForOpened(t, fds, maps)
}

// TestCharges: a request is charged for its words, whether they come in a message or not, for all
// of the message that stays in memory with them, and for its answer, with the eighth by which
// pools round up.
func TestCharges(t *testing.T) {
	limits := config.Default().Limits
	const rows, in, out = 10, 300, 500
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		eighth := func(bytes int64) int64 { return bytes + bytes/8 }
		input, output, encoded := eighth(4*rows*in), eighth(4*rows*out)+8<<10, int64(0)
		if r.WordBytes() != 4 {
			encoded = eighth(int64(rows * out * r.WordBytes()))
		}
		for _, message := range []int64{0, rows * in * 4, 1 << 24} {
			for _, c := range []struct {
				shared bool // the answer's words
				want   int64
			}{
				{false, input + output + max(message, encoded)}, // which are not there at the same time
				{true, input + output + message},
			} {
				got, err := daemon.Charge(limits, r, plan.Dense(in, out), rows, message, c.shared)
				if err != nil || got != c.want {
					t.Errorf("%v, a message of %d bytes, answer in shared memory %v: charged %d, want %d, %v", r, message, c.shared, got, c.want, err)
				}
			}
		}
	}
}

// TestPadding: what a message has besides its words is charged as long as they keep it in memory,
// and not where there are none.
func TestPadding(t *testing.T) { eachWay(t, testPadding) }

func testPadding(t *testing.T, by way) {
	h := newHooked()
	d := by.start(t, h, withMetrics)
	m := smallModel(t)
	d.push(m)
	e := by.open(d, d.ctx())
	const padding = 15 << 20
	for kept, input := range map[bool]*pb.EvaluateRequest{
		true:  {Input: &pb.EvaluateRequest_Words{Words: words(m, 1, 2)}},
		false: {Input: &pb.EvaluateRequest_Seed{Seed: &pb.Seed{Key: make([]byte, 32)}}},
	} {
		begun, resume := h.hold(t, 1)
		input.Model, input.Layer, input.Rows = m.digest[:], 1, 2
		input.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 100, protowire.BytesType), make([]byte, padding)))
		if err := e.stream.SendMsg(input); err != nil {
			t.Fatal(err)
		}
		<-begun
		if got := d.scrape().value("securenets_in_flight_bytes", "part", "requests"); (got >= padding) != kept {
			t.Errorf("%v bytes are charged; %d are held: %v", got, padding, kept)
		}
		close(resume)
		resp, err := e.receive()
		if err != nil {
			t.Fatal(err)
		}
		if kept {
			m.check(t, resp, 1, m.input(1, 2, 1))
		}
		d.waitForFigure(0, "securenets_in_flight_bytes", "part", "requests")
	}
}

// TestSharedDrain: a draining daemon answers its requests, in shared memory too.
func TestSharedDrain(t *testing.T) {
	h := newHooked()
	d := start(t, h, nil)
	m := smallModel(t)
	d.push(m)
	begun, resume := h.hold(t, 0)
	s := d.evaluateShared(lane.Grain)
	r := m.request(1, 3, 9)
	s.share(m, r, true, true)
	s.send(r)
	<-begun
	d.stop()
	close(resume)
	resp, err := s.receive()
	if err != nil {
		t.Fatal(err)
	}
	m.check(t, resp, 1, m.input(1, 3, 9))
	if _, err := s.receive(); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Error(fmt.Errorf("then %w", err))
	}
	d.wait()
	want := fmt.Sprintf("shared_requests=1 shared_payload_bytes=%d shared_copied_bytes=%[1]d\n", 3*4*(37+11))
	if !strings.Contains(d.log.String(), want) {
		t.Errorf("want %s in %s", want, d.log.String())
	}
}
