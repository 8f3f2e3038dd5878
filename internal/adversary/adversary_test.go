package adversary_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/adversary"
	"github.com/securenets/securenets/internal/prg"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cols is the number of words in the rows that honest sends, whatever the request.
const cols = 8

// honest answers each input word x of layer l with a row that counts up from x·(l+2)·1,000,003.
type honest struct {
	pb.UnimplementedSecureNetsServer
	ring ring.Ring
}

func (h honest) want(layer uint32, x []uint32) []uint32 {
	y := make([]uint32, len(x)*cols)
	for i := range y {
		y[i] = h.ring.Reduce(int64(x[i/cols])*int64(layer+2)*1_000_003 + int64(i%cols))
	}
	return y
}

func (h honest) Evaluate(stream grpc.BidiStreamingServer[pb.EvaluateRequest, pb.EvaluateResponse]) error {
	for {
		var req wire.Request
		if err := stream.RecvMsg(&req); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		x := make([]uint32, req.Rows)
		err := wire.DecodeWords(h.ring, x, req.Words)
		req.Free()
		resp := wire.Response{ID: req.ID, QueueNS: 7}
		if refused := (*wire.Error)(nil); errors.As(err, &refused) {
			resp.Err = refused.Proto()
		} else {
			resp.Words = wire.EncodeWords(h.ring, h.want(req.Layer, x), nil)
		}
		err = stream.SendMsg(&resp)
		resp.Free()
		if err != nil {
			return err
		}
	}
}

func (honest) Upload(stream grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
	resp := &pb.UploadResponse{Complete: true}
	for {
		req, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(resp)
		} else if err != nil {
			return err
		}
		resp.Received += uint64(len(req.Data))
	}
}

func (honest) Remove(context.Context, *pb.RemoveRequest) (*pb.RemoveResponse, error) {
	return nil, (&wire.Error{Code: codes.NotFound, Reason: wire.ReasonModelNotFound, Message: "none"}).Status()
}

// start returns a proxy in front of an honest daemon, and a connection to it.
func start(t *testing.T, r ring.Ring) (*adversary.Proxy, *grpc.ClientConn) {
	t.Helper()
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, "d"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(wire.ServerOptions()...)
	pb.RegisterSecureNetsServer(server, honest{ring: r})
	healthpb.RegisterHealthServer(server, health.NewServer())
	go server.Serve(listener)
	t.Cleanup(server.Stop)

	// Two positions of four channels.
	op := plan.Conv(plan.Conv2D{H: 2, W: 1, C: 1, OutC: cols / 2, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1})
	p, err := adversary.Start("unix:"+filepath.Join(dir, "p"), "unix:"+filepath.Join(dir, "d"), plan.Plan{Ring: r, Ops: []plan.Op{op, op}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	conn, err := wire.Dial(p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return p, conn
}

// caller is a host's Evaluate stream.
type caller struct {
	*testing.T
	ring   ring.Ring
	stream grpc.ClientStream
	id     uint64
}

func newCaller(t *testing.T, r ring.Ring, conn *grpc.ClientConn) *caller {
	t.Helper()
	stream, err := pb.NewSecureNetsClient(conn).Evaluate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &caller{T: t, ring: r, stream: stream}
}

// ask returns the words of one answer, which need not be canonical.
func (c *caller) ask(layer uint32, x []uint32) []uint32 {
	c.Helper()
	id, y := c.askOf("a", layer, x)
	if id != c.id || len(y) != len(x)*cols {
		c.Fatalf("answer %d of %d words to request %d", id, len(y), c.id)
	}
	return y
}

// askOf is ask for a given model. It also returns the answer's id.
func (c *caller) askOf(model string, layer uint32, x []uint32) (id uint64, y []uint32) {
	c.Helper()
	c.send(model, layer, x)
	var resp wire.Response
	if err := c.stream.RecvMsg(&resp); err != nil {
		c.Fatal(err)
	}
	defer resp.Free()
	b := resp.Words.Materialize()
	if resp.QueueNS != 7 || len(b)%c.ring.WordBytes() != 0 {
		c.Fatalf("answer of %d bytes", len(b))
	}
	y = make([]uint32, len(b)/c.ring.WordBytes())
	for i := range y {
		for j := range c.ring.WordBytes() {
			y[i] |= uint32(b[i*c.ring.WordBytes()+j]) << (8 * j)
		}
	}
	return resp.ID, y
}

func (c *caller) send(model string, layer uint32, x []uint32) {
	c.Helper()
	c.id++
	req := wire.Request{ID: c.id, Model: []byte(model), Layer: layer, Rows: uint32(len(x)), Words: wire.EncodeWords(c.ring, x, nil)}
	err := c.stream.SendMsg(&req)
	req.Free()
	if err != nil {
		c.Fatal(err)
	}
}

// TestForwards: everything except answers of Evaluate passes unchanged.
func TestForwards(t *testing.T) {
	_, conn := start(t, ring.Q4())
	rpc := pb.NewSecureNetsClient(conn)

	up, err := rpc.Upload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := up.Send(&pb.UploadRequest{Data: make([]byte, 1<<20)}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := up.CloseAndRecv(); err != nil || got.Received != 5<<20 || !got.Complete {
		t.Errorf("upload: %v, %v", got, err)
	}

	var refused *wire.Error
	_, err = rpc.Remove(t.Context(), &pb.RemoveRequest{})
	if !errors.As(wire.FromStatus(err), &refused) || refused.Reason != wire.ReasonModelNotFound {
		t.Errorf("remove: %v", err)
	}
	if h, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}

	// An error of one request, from a word that is not canonical.
	stream, err := rpc.Evaluate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	req := &pb.EvaluateRequest{Id: 3, Rows: 1, Input: &pb.EvaluateRequest_Words{Words: []byte{255, 255, 255, 255}}}
	if err := stream.Send(req); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.Recv(); err != nil || resp.Id != 3 || resp.GetError().GetReason() != string(wire.ReasonNonCanonical) {
		t.Errorf("bad request: %v, %v", resp, err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("end of stream: %v", err)
	}
}

// changed returns the number of words in which two answers differ.
func changed(a, b []uint32) (n int) {
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// TestLies: each lie makes the change that its name says, is told as often and in the layer as
// asked, and does not affect other answers.
func TestLies(t *testing.T) {
	x := []uint32{5, 6, 7, 8}
	words := len(x) * cols
	row := func(y []uint32, i int) []uint32 { return y[i*cols : (i+1)*cols] }
	older, foreign, theirs := []uint32{9, 10, 11, 12}, []uint32{13, 14, 15, 16}, []uint32{17, 18}
	// plusOne reports whether exactly the words for which where is true are 1 more.
	plusOne := func(r ring.Ring, lie, right []uint32, where func(i int) bool) bool {
		for i := range right {
			want := right[i]
			if where(i) {
				want = r.Add(want, 1)
			}
			if lie[i] != want {
				return false
			}
		}
		return true
	}
	// first returns the first word that differs.
	first := func(lie, right []uint32) int {
		for i := range right {
			if lie[i] != right[i] {
				return i
			}
		}
		return 0
	}
	checks := map[string]func(r ring.Ring, lie, right []uint32) bool{
		"one word off by one": func(r ring.Ring, lie, right []uint32) bool {
			at := first(lie, right)
			return plusOne(r, lie, right, func(i int) bool { return i == at })
		},
		"two errors that cancel": func(r ring.Ring, lie, right []uint32) bool {
			for i := range x {
				var a, b uint32
				for j := range cols {
					a, b = r.Add(a, row(lie, i)[j]), r.Add(b, row(right, i)[j])
				}
				if a != b {
					return false
				}
			}
			return changed(lie, right) == 2
		},
		"two samples swapped": func(r ring.Ring, lie, right []uint32) bool {
			return slices.Equal(row(lie, 0), row(right, 3)) && slices.Equal(row(lie, 3), row(right, 0)) &&
				slices.Equal(lie[cols:3*cols], right[cols:3*cols])
		},
		"all words zero": func(r ring.Ring, lie, right []uint32) bool { return slices.Max(lie) == 0 },
		"all signs flipped": func(r ring.Ring, lie, right []uint32) bool {
			for i := range lie {
				if r.Add(lie[i], right[i]) != 0 {
					return false
				}
			}
			return true
		},
		"random words":           func(r ring.Ring, lie, right []uint32) bool { return changed(lie, right) > words/2 },
		"the low 8 bits dropped": func(r ring.Ring, lie, right []uint32) bool { return right[0]-lie[0] == right[0]&255 },
		"one word wrong modulo one prime": func(r ring.Ring, lie, right []uint32) bool {
			at, differ := first(lie, right), 0
			for _, p := range r.Primes() {
				if lie[at]%p != right[at]%p {
					differ++
				}
			}
			return changed(lie, right) == 1 && differ == 1
		},
		"one channel wrong everywhere": func(r ring.Ring, lie, right []uint32) bool {
			channel := first(lie, right) % (cols / 2)
			return plusOne(r, lie, right, func(i int) bool { return i%(cols/2) == channel })
		},
		"one position wrong in all channels": func(r ring.Ring, lie, right []uint32) bool {
			position := first(lie, right) / (cols / 2)
			return plusOne(r, lie, right, func(i int) bool { return i/(cols/2) == position })
		},
		"the first sample's answer for all": func(r ring.Ring, lie, right []uint32) bool {
			return slices.Equal(lie, slices.Repeat(row(right, 0), len(x)))
		},
		"an older answer replayed": func(r ring.Ring, lie, right []uint32) bool {
			return slices.Equal(lie, honest{ring: r}.want(1, older))
		},
		"another layer's answer": func(r ring.Ring, lie, right []uint32) bool {
			return slices.Equal(lie, slices.Repeat(honest{ring: r}.want(0, x[:2]), 2))
		},
		"another model's answer": func(r ring.Ring, lie, right []uint32) bool {
			return slices.Equal(lie, honest{ring: r}.want(0, foreign))
		},
		"another role's answer": func(r ring.Ring, lie, right []uint32) bool {
			return slices.Equal(lie, slices.Repeat(honest{ring: r}.want(1, theirs), 2))
		},
		"one word y sent as y + M": func(r ring.Ring, lie, right []uint32) bool {
			at := first(lie, right)
			return changed(lie, right) == 1 && lie[at] == right[at]+r.Modulus()
		},
		"half an answer": func(r ring.Ring, lie, right []uint32) bool { return slices.Equal(lie, right[:words/2]) },
		"a frame of another call": func(r ring.Ring, lie, right []uint32) bool {
			return slices.Equal(lie, honest{ring: r}.want(1, older))
		},
	}
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		p, conn := start(t, r)
		peer, peerConn := start(t, r)
		p.Conspire(peer)
		newCaller(t, r, peerConn).ask(1, theirs)
		c := newCaller(t, r, conn)
		right := honest{ring: r}.want(1, x)
		if _, y := c.askOf("b", 0, foreign); !slices.Equal(y, honest{ring: r}.want(0, foreign)) {
			t.Fatal("an honest answer is wrong")
		}
		for _, lie := range adversary.Lies() {
			if lie.Kind == adversary.Late {
				continue // TestLate
			}
			check := checks[lie.Name]
			if check == nil {
				t.Errorf("lie %q is not tested", lie.Name)
				continue
			}
			p.Tell(lie, 1, 1)
			if y := c.ask(0, x[:2]); !slices.Equal(y, honest{ring: r}.want(0, x[:2])) || p.Told() != 0 {
				t.Errorf("%v %s: told in another layer", r, lie.Name)
			}
			p.BeHonest()
			c.ask(1, older)
			p.Tell(lie, 1, 1)
			id, y := c.askOf("a", 1, x)
			if slices.Equal(y, right) || !check(r, y, right) || p.Told() != 1 {
				t.Errorf("%v %s: told %d times: %v for %v", r, lie.Name, p.Told(), y, right)
			}
			if whole := id == c.id && len(y) == len(right); whole == (lie.Name == "half an answer" || lie.Name == "a frame of another call") {
				t.Errorf("%v %s: answer %d of %d words to request %d", r, lie.Name, id, len(y), c.id)
			}
			if wrong, all := p.Wrong(); all != words || len(y) == words && wrong != changed(y, right) {
				t.Errorf("%v %s: %d of %d words are said to be wrong", r, lie.Name, wrong, all)
			}
			if y := c.ask(1, x); !slices.Equal(y, right) || p.Told() != 1 {
				t.Errorf("%v %s: told a second time", r, lie.Name)
			}
		}
	}
}

// TestLate: a late answer does not arrive while the host waits.
func TestLate(t *testing.T) {
	p, conn := start(t, ring.Q4())
	lies := adversary.Lies()
	p.Tell(lies[slices.IndexFunc(lies, func(l adversary.Lie) bool { return l.Kind == adversary.Late })], 1, 1)
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	stream, err := pb.NewSecureNetsClient(conn).Evaluate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := &caller{T: t, ring: ring.Q4(), stream: stream}
	c.ask(0, []uint32{1})
	c.send("a", 1, []uint32{1})
	go func() {
		for p.Told() == 0 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond) // the answer must not come in this time
		hangUp()
	}()
	var resp wire.Response
	if err := stream.RecvMsg(&resp); ctx.Err() == nil || err == nil || p.Told() != 1 {
		t.Errorf("an answer, %v, with %d lies told", err, p.Told())
	}
}

func TestAlways(t *testing.T) {
	p, conn := start(t, ring.Q4())
	c := newCaller(t, ring.Q4(), conn)
	p.Tell(adversary.Lies()[0], adversary.AnyLayer, adversary.Always)
	for i := range 6 {
		layer := uint32(i % 2)
		if y := c.ask(layer, []uint32{1, 2}); slices.Equal(y, honest{ring: ring.Q4()}.want(layer, []uint32{1, 2})) || p.Told() != i+1 {
			t.Errorf("answer %d is right, %d lies told", i, p.Told())
		}
	}
}

// TestNoLie: a lie that would not change an answer is kept for the next one.
func TestNoLie(t *testing.T) {
	p, conn := start(t, ring.Q4())
	c := newCaller(t, ring.Q4(), conn)
	for _, lie := range adversary.Lies() {
		if lie.Name != "two samples swapped" {
			continue
		}
		p.Tell(lie, adversary.AnyLayer, 1)
		c.ask(0, []uint32{1})
		c.ask(0, []uint32{1, 1})
		if p.Told() != 0 {
			t.Error("a lie is told that changes nothing")
		}
		if c.ask(0, []uint32{1, 2}); p.Told() != 1 {
			t.Error("not told where it could be")
		}
	}
}

func TestRecord(t *testing.T) {
	p, conn := start(t, ring.Q4())
	c := newCaller(t, ring.Q4(), conn)
	c.ask(0, []uint32{1})
	p.Record(0, 3)
	c.ask(1, []uint32{2})
	c.ask(0, []uint32{3, 4})
	c.ask(0, []uint32{5, 6})
	if got, want := p.Seen(), []uint32{3, 4, 5}; !slices.Equal(got, want) {
		t.Errorf("saw %v, want %v", got, want)
	}

	// For a seed, the words are those that the daemon expands.
	seed := prg.Seed{1, 2, 3}
	var want []uint32
	for i := range uint64(2) {
		row := make([]uint32, 2) // a row of the layer's input
		prg.New(seed).Fill(ring.Q4(), row, 5+i)
		want = append(want, row...)
	}
	p.Record(0, 5)
	for _, s := range []*pb.Seed{{Key: seed[:3]}, {Key: seed[:], First: 5}} {
		c.id++
		req := wire.Request{ID: c.id, Model: []byte("a"), Rows: 2, Seed: s}
		if err := c.stream.SendMsg(&req); err != nil {
			t.Fatal(err)
		}
		var resp wire.Response
		if err := c.stream.RecvMsg(&resp); err != nil {
			t.Fatal(err)
		}
		resp.Free()
	}
	if got := p.Seen(); !slices.Equal(got, want) {
		t.Errorf("saw %v of a seed, want %v", got, want)
	}
}

func TestStart(t *testing.T) {
	dir := t.TempDir()
	good := "unix:" + filepath.Join(dir, "p")
	for _, c := range []struct{ addr, upstream string }{
		{"tcp:localhost:1", good}, {good, "localhost"}, {"unix:" + filepath.Join(dir, "no", "p"), good},
	} {
		if p, err := adversary.Start(c.addr, c.upstream, plan.Plan{Ring: ring.Q4()}); err == nil {
			p.Close()
			t.Errorf("%v started", c)
		}
	}
}

// TestUpstreamGone: a call to a missing daemon fails, and the proxy keeps running.
func TestUpstreamGone(t *testing.T) {
	dir := t.TempDir()
	p, err := adversary.Start("unix:"+filepath.Join(dir, "p"), "unix:"+filepath.Join(dir, "none"), plan.Plan{Ring: ring.Q4()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	conn, err := wire.Dial(p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2 {
		if _, err := pb.NewSecureNetsClient(conn).List(t.Context(), &pb.ListRequest{}); err == nil {
			t.Error("a daemon that is not there answered")
		}
	}
}
