package daemon_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/tlstest"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// anyBytes is a codec that sends bytes as they are and takes any.
type anyBytes struct{}

func (anyBytes) Name() string { return "proto" }
func (anyBytes) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (anyBytes) Unmarshal(b mem.BufferSlice, v any) error {
	*v.(*[]byte) = b.Materialize()
	return nil
}

// words returns the bytes of request i's rows, for a test to spoil.
func words(m *testModel, layer, rows int) []byte {
	x := m.input(layer, rows, 1)
	b := make([]byte, len(x.Data)*m.Plan.Ring.WordBytes())
	m.Plan.Ring.PutWords(b, x.Data)
	return b
}

// TestBadRequests: each is refused by an answer of its own with a stable reason,
// among good requests of the same stream, which are answered rightly.
func TestBadRequests(t *testing.T) { eachWay(t, testBadRequests) }

func testBadRequests(t *testing.T, by way) {
	d := by.start(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	absent := sealed.Digest{1}
	q3 := newModel(t, ring.Q3(), plan.Dense(37, 11))
	d.push(q3)
	wide := newModel(t, ring.Q4(), plan.Dense(1, 1<<16), plan.Dense(1<<16, 1))
	d.push(wide)

	good := func() *pb.EvaluateRequest {
		return &pb.EvaluateRequest{Model: m.digest[:], Layer: 1, Rows: 2, Input: &pb.EvaluateRequest_Words{Words: words(m, 1, 2)}}
	}
	setWords := func(b []byte) func(r *pb.EvaluateRequest) {
		return func(r *pb.EvaluateRequest) { r.Input = &pb.EvaluateRequest_Words{Words: b} }
	}
	setSeed := func(n int, first uint64, rows uint32) func(r *pb.EvaluateRequest) {
		return func(r *pb.EvaluateRequest) {
			r.Rows, r.Input = rows, &pb.EvaluateRequest_Seed{Seed: &pb.Seed{Key: make([]byte, n), First: first}}
		}
	}
	spoilt := func(word int) []byte {
		b := words(m, 1, 2)
		copy(b[4*word:], "\xff\xff\xff\xff")
		return b
	}
	modulus := words(m, 1, 2)
	m.Plan.Ring.PutWords(modulus[:4], []uint32{m.Plan.Ring.Modulus()})

	for _, c := range []struct {
		name   string
		change func(r *pb.EvaluateRequest)
		code   codes.Code
		reason wire.Reason
	}{
		{"empty", func(r *pb.EvaluateRequest) { r.Reset() }, codes.InvalidArgument, wire.ReasonBadRequest},
		{"no model", func(r *pb.EvaluateRequest) { r.Model = nil }, codes.InvalidArgument, wire.ReasonBadRequest},
		{"short digest", func(r *pb.EvaluateRequest) { r.Model = r.Model[:31] }, codes.InvalidArgument, wire.ReasonBadRequest},
		{"long digest", func(r *pb.EvaluateRequest) { r.Model = append(m.digest[:], 0) }, codes.InvalidArgument, wire.ReasonBadRequest},
		{"unknown model", func(r *pb.EvaluateRequest) { r.Model = absent[:] }, codes.NotFound, wire.ReasonModelNotFound},
		{"unknown layer", func(r *pb.EvaluateRequest) { r.Layer = 2 }, codes.NotFound, wire.ReasonLayerNotFound},
		{"absurd layer", func(r *pb.EvaluateRequest) { r.Layer = math.MaxUint32 }, codes.NotFound, wire.ReasonLayerNotFound},
		{"another layer", func(r *pb.EvaluateRequest) { r.Layer = 0 }, codes.InvalidArgument, wire.ReasonBadLength},
		{"another model", func(r *pb.EvaluateRequest) { r.Model, r.Layer = q3.digest[:], 0 }, codes.InvalidArgument, wire.ReasonBadLength},
		{"no rows", func(r *pb.EvaluateRequest) { r.Rows = 0 }, codes.InvalidArgument, wire.ReasonBadRequest},
		{"a row more", func(r *pb.EvaluateRequest) { r.Rows = 3 }, codes.InvalidArgument, wire.ReasonBadLength},
		{"absurd rows", func(r *pb.EvaluateRequest) { r.Rows = math.MaxUint32 }, codes.ResourceExhausted, wire.ReasonTooLarge},
		{"rows past a message", func(r *pb.EvaluateRequest) { r.Rows = wire.MaxPayload/4/37 + 1 }, codes.ResourceExhausted, wire.ReasonTooLarge},
		{"no input", func(r *pb.EvaluateRequest) { r.Input = nil }, codes.InvalidArgument, wire.ReasonBadRequest},
		{"no words", setWords(nil), codes.InvalidArgument, wire.ReasonBadLength},
		{"a byte less", setWords(words(m, 1, 2)[1:]), codes.InvalidArgument, wire.ReasonBadLength},
		{"a byte more", setWords(append(words(m, 1, 2), 0)), codes.InvalidArgument, wire.ReasonBadLength},
		{"first word", setWords(spoilt(0)), codes.InvalidArgument, wire.ReasonNonCanonical},
		{"last word", setWords(spoilt(73)), codes.InvalidArgument, wire.ReasonNonCanonical},
		{"the modulus", setWords(modulus), codes.InvalidArgument, wire.ReasonNonCanonical},
		{"no key", setSeed(0, 0, 1), codes.InvalidArgument, wire.ReasonBadRequest},
		{"short key", setSeed(31, 0, 1), codes.InvalidArgument, wire.ReasonBadRequest},
		{"long key", setSeed(33, 0, 1), codes.InvalidArgument, wire.ReasonBadRequest},
		{"seed of absurd rows", setSeed(32, 0, math.MaxUint32), codes.ResourceExhausted, wire.ReasonTooLarge},
		{"seed that overflows", setSeed(32, math.MaxUint64, 2), codes.InvalidArgument, wire.ReasonBadRequest},
		{"an answer past a message", func(r *pb.EvaluateRequest) {
			r.Model, r.Layer, r.Rows = wide.digest[:], 0, 64
			setWords(make([]byte, 4*64))(r)
		}, codes.ResourceExhausted, wire.ReasonTooLarge},
		{"a seed past a message", func(r *pb.EvaluateRequest) {
			r.Model = wide.digest[:]
			setSeed(32, 0, 64)(r)
		}, codes.ResourceExhausted, wire.ReasonTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := by.open(d, t.Context())
			e.t = t
			e.works(m)
			r := good()
			c.change(r)
			r.Id = 1234
			if err := e.stream.SendMsg(r); err != nil {
				t.Fatal(err)
			}
			resp, err := e.receive()
			if err != nil {
				t.Fatal(err)
			}
			wantReason(t, wire.FromProto(resp.Err), c.code, c.reason)
			if resp.ID != 1234 || resp.Words != nil {
				t.Errorf("answer %d has %d bytes", resp.ID, resp.Words.Len())
			}
			e.works(m)
		})
	}
	d.works(m)
}

// direct names Evaluate on a direct stream.
const direct = "direct"

// TestForeignFrames: gRPC messages that cannot be decoded end their stream, with gRPC's own
// status, and nothing else.
func TestForeignFrames(t *testing.T) {
	d := start(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	request, err := proto.Marshal(&pb.EvaluateRequest{Id: 1, Model: m.digest[:], Layer: 1, Rows: 2,
		Input: &pb.EvaluateRequest_Words{Words: words(m, 1, 2)}})
	if err != nil {
		t.Fatal(err)
	}
	frames := map[string][]byte{
		"truncated":  request[:len(request)-1],
		"cut in two": request[:20],
		"text":       []byte("GET / HTTP/1.1\r\n\r\n"),
		"ones":       bytes.Repeat([]byte{0xff}, 1000),
		"field 0":    {0x00, 0x00},
	}
	for name, frame := range frames {
		for _, method := range []string{"Evaluate", "Upload", direct} {
			var stream wire.Stream
			if method == direct {
				stream = d.rawDirect()
			} else if stream, err = d.cc.NewStream(d.ctx(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
				"/securenets.v1.SecureNets/"+method, grpc.ForceCodecV2(anyBytes{})); err != nil {
				t.Fatal(err)
			}
			if method != "Upload" { // what came before is answered
				if err := stream.SendMsg(request); err != nil {
					t.Fatal(err)
				}
				var b []byte
				if err := stream.RecvMsg(&b); err != nil {
					t.Fatal(err)
				}
				var resp pb.EvaluateResponse
				if err := proto.Unmarshal(b, &resp); err != nil || len(resp.GetWords()) == 0 {
					t.Errorf("%s: answer %v, %v", name, &resp, err)
				}
			}
			if err := stream.SendMsg(frame); err != nil {
				t.Fatal(err)
			}
			if err := stream.RecvMsg(new([]byte)); status.Code(err) != codes.Internal {
				t.Errorf("%s: %s: %v", name, method, err)
			}
		}
		d.works(m)
	}
}

// plainHTTP returns a plain HTTP/2 client.
func (d *running) plainHTTP() *http.Transport {
	transport := &http.Transport{
		Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(d.cfg.Listen, "unix:"))
		},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return transport
}

// TestTruncatedFrames: gRPC frames that end early, lie about their length or are
// compressed, over plain HTTP/2 and on a direct stream.
func TestTruncatedFrames(t *testing.T) {
	d := start(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	transport := d.plainHTTP()
	defer transport.CloseIdleConnections()
	for name, c := range map[string]struct {
		body string
		code codes.Code
	}{
		"prefix cut":      {"\x00\x00\x00", codes.Internal},
		"message cut":     {"\x00\x00\x00\x01\x00abc", codes.Internal},
		"message missing": {"\x00\x00\x00\x00\x05", codes.Internal},
		"4 GiB":           {"\x00\xff\xff\xff\xffabc", codes.ResourceExhausted},
		"compressed":      {"\x01\x00\x00\x00\x03abc", codes.Internal},
		"unknown flag":    {"\x7f\x00\x00\x00\x03abc", codes.Internal},
		"a last message":  {"\x80\x00\x00\x00\x00", codes.Internal},
	} {
		for _, method := range []string{"Evaluate", "Upload", "List"} {
			req, err := http.NewRequestWithContext(d.ctx(), http.MethodPost, "http://localhost/securenets.v1.SecureNets/"+method, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/grpc")
			req.Header.Set("TE", "trailers")
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatalf("%s: %s: %v", name, method, err)
			}
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			s := resp.Trailer.Get("Grpc-Status") + resp.Header.Get("Grpc-Status")
			if err != nil || s == "" || s == "0" || method == "Evaluate" && s != fmt.Sprint(int(c.code)) {
				t.Errorf("%s: %s: status %q, %v", name, method, s, err)
			}
		}
		r := d.rawDirect()
		if _, err := r.Write([]byte(c.body)); err != nil {
			t.Fatal(err)
		}
		if err := r.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if err := r.RecvMsg(new([]byte)); status.Code(err) != c.code {
			t.Errorf("%s: a direct stream: %v", name, err)
		}
		d.works(m)
	}
}

// TestOversized: a message past the limit ends its call, with gRPC's own status.
func TestOversized(t *testing.T) {
	d := start(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	big := make([]byte, wire.MaxMessage+1)
	anySize := grpc.MaxCallSendMsgSize(1 << 30)

	stream, err := d.client().Evaluate(d.ctx(), anySize)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pb.EvaluateRequest{Input: &pb.EvaluateRequest_Words{Words: big}}); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("evaluate: %v", err)
	}

	r := d.rawDirect()
	if err := r.SendMsg(big); err == nil {
		t.Error("all of it was read")
	}
	if err := r.RecvMsg(new([]byte)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a direct stream: %v", err)
	}

	upload, err := d.client().Upload(d.ctx(), anySize)
	if err != nil {
		t.Fatal(err)
	}
	if err := upload.Send(&pb.UploadRequest{Data: big}); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if _, err := upload.CloseAndRecv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("upload: %v", err)
	}
	if _, err := d.client().Remove(d.ctx(), &pb.RemoveRequest{Digest: big}, anySize); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("remove: %v", err)
	}
	d.works(m)
}

// TestNotGRPC: whatever one caller writes to the socket, others are served.
func TestNotGRPC(t *testing.T) {
	d := start(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	rnd := rand.New(rand.NewPCG(1, 1))
	noise := make([]byte, 1<<16)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for _, b := range []string{
		"", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", string(noise), preface[:10], preface, preface + string(noise),
		preface + settings + "\xff\xff\xff\x01\x05\x00\x00\x00\x01" + string(noise),         // headers of 16 MiB
		preface + settings + strings.Repeat("\x00\x00\x00\x04\x00\x00\x00\x00\x00", 10000),  // settings for ever
		preface + settings + "\x00\x00\x05\x00\x00\x00\x00\x00\x01\x00\xff\xff\xff\xff",     // data of no stream
		preface + settings + strings.Repeat("\x00\x00\x04\x03\x00\x00\x00\x00\x01abcd", 99), // resets of no stream
	} {
		c, err := net.Dial("unix", strings.TrimPrefix(d.cfg.Listen, "unix:"))
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, c) }()
		_ = c.SetWriteDeadline(time.Now().Add(patience))
		_, _ = c.Write([]byte(b)) // may well be cut off
		d.works(m)
		c.Close()
	}
	d.works(m)
}

func TestForeignCalls(t *testing.T) {
	d := start(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	for _, method := range []string{"/securenets.v1.SecureNets/Decrypt", "/x", "/securenets.v2.SecureNets/List"} {
		if err := d.cc.Invoke(d.ctx(), method, &pb.ListRequest{}, &pb.ListResponse{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", method, err)
		}
	}
	d.works(m)
}

// TestBadUploads: each is refused with a stable reason and leaves no model behind; the model
// can then be uploaded correctly.
func TestBadUploads(t *testing.T) {
	d := start(t, nil, nil)
	other := newModel(t, ring.Q4(), plan.Dense(4, 4))
	d.push(other)
	m := smallModel(t)
	n := len(m.bytes)
	flipped := bytes.Clone(m.bytes)
	flipped[n-1] ^= 1
	long := append(bytes.Clone(m.bytes), 0)
	notAModel := []byte("\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
	uncanonical := bytes.Clone(m.bytes)
	copy(uncanonical[n-4:], "\xff\xff\xff\xff")

	for _, c := range []struct {
		name         string
		digest       sealed.Digest
		size, offset int
		parts        [][]byte
		code         codes.Code
		reason       wire.Reason
	}{
		{"wrong digest", sealed.Sum(long), n, 0, [][]byte{m.bytes}, codes.InvalidArgument, wire.ReasonBadModel},
		{"one bit", m.digest, n, 0, [][]byte{flipped[:9], flipped[9:]}, codes.InvalidArgument, wire.ReasonBadModel},
		{"another model", m.digest, len(other.bytes), 0, [][]byte{other.bytes}, codes.InvalidArgument, wire.ReasonBadModel},
		{"garbage", m.digest, n, 0, [][]byte{make([]byte, n)}, codes.InvalidArgument, wire.ReasonBadModel},
		{"cut", m.digest, n - 1, 0, [][]byte{m.bytes[:n-1]}, codes.InvalidArgument, wire.ReasonBadModel},
		{"more than its size", m.digest, n - 1, 0, [][]byte{m.bytes}, codes.InvalidArgument, wire.ReasonBadModel},
		{"trailing byte", sealed.Sum(long), n + 1, 0, [][]byte{long}, codes.InvalidArgument, wire.ReasonBadModel},
		{"not a model", sealed.Sum(notAModel), len(notAModel), 0, [][]byte{notAModel}, codes.InvalidArgument, wire.ReasonBadModel},
		{"not canonical", sealed.Sum(uncanonical), n, 0, [][]byte{uncanonical}, codes.InvalidArgument, wire.ReasonBadModel},
		{"no size", m.digest, 0, 0, [][]byte{m.bytes}, codes.InvalidArgument, wire.ReasonBadModel},
		{"past the limit", m.digest, 1<<30 + 1, 0, [][]byte{m.bytes}, codes.ResourceExhausted, wire.ReasonTooLarge},
		{"absurd size", m.digest, -1, 0, nil, codes.ResourceExhausted, wire.ReasonTooLarge}, // 2^64 - 1
		{"offset of nothing", m.digest, n, 5, [][]byte{m.bytes[5:]}, codes.FailedPrecondition, wire.ReasonBadOffset},
		{"absurd offset", m.digest, n, -1, [][]byte{m.bytes}, codes.FailedPrecondition, wire.ReasonBadOffset},
	} {
		_, err := send(d.ctx(), d.cc, c.digest, c.size, c.offset, c.parts...)
		t.Run(c.name, func(t *testing.T) { wantReason(t, err, c.code, c.reason) })
		d.works(other)
	}

	for name, messages := range map[string][]*pb.UploadRequest{
		"no message":      {},
		"no digest":       {{Size: 5, Data: []byte("hello")}},
		"digest again":    {{Digest: m.digest[:], Size: uint64(n)}, {Digest: m.digest[:], Data: m.bytes}},
		"size again":      {{Digest: m.digest[:], Size: uint64(n)}, {Size: 5, Data: m.bytes}},
		"another offset":  {{Digest: m.digest[:], Size: uint64(n)}, {Offset: 5, Data: m.bytes}},
		"digest of digit": {{Digest: []byte(m.digest.String()), Size: uint64(n)}},
	} {
		stream, err := d.client().Upload(d.ctx())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range messages {
			if err := stream.Send(r); err != nil {
				break
			}
		}
		_, err = stream.CloseAndRecv()
		t.Run(name, func(t *testing.T) { wantReason(t, wire.FromStatus(err), codes.InvalidArgument, wire.ReasonBadRequest) })
	}

	entries, err := os.ReadDir(d.cfg.StateDir)
	if err != nil || len(entries) != 2 { // the lock and the good model
		t.Errorf("left behind: %v, %v", entries, err)
	}
	d.push(m)
	d.works(m)
}

// TestUselessModels: a model that no request can use, or that needs too much memory to load, is
// refused when it is uploaded.
func TestUselessModels(t *testing.T) {
	d := start(t, nil, func(c *config.Config) {
		c.Limits.MaxLoadedBytes = 64 << 20
		c.Limits.MaxMultiplyAdds = 1 << 24
	})
	good := smallModel(t)
	d.push(good)
	const c = 1 << 18
	for name, op := range map[string]plan.Op{
		"a row in past a message":  plan.Conv(plan.Conv2D{H: 2049, W: 2049, C: 1, OutC: 1, KH: 1, KW: 1, SH: 999, SW: 999, DH: 1, DW: 1, Groups: 1}),
		"a row out past a message": plan.Conv(plan.Conv2D{H: 2049, W: 2049, C: 1, OutC: 1, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: 1}),
		"work from nothing": plan.Conv(plan.Conv2D{H: 1, W: 1, C: 1, OutC: 1, KH: 256, KW: 256, SH: 1, SW: 1, DH: 1, DW: 1,
			Top: 255, Left: 255, Bot: 255, Right: 255, Groups: 1}),
		"groups": plan.Conv(plan.Conv2D{H: 1, W: 1, C: c, OutC: c, KH: 1, KW: 1, SH: 1, SW: 1, DH: 1, DW: 1, Groups: c}),
	} {
		m := newModel(t, ring.Q4(), op)
		_, err := send(d.ctx(), d.cc, m.digest, len(m.bytes), 0, m.bytes)
		t.Run(name, func(t *testing.T) { wantReason(t, err, codes.ResourceExhausted, wire.ReasonTooLarge) })
		if n := d.backend.Stats().Loaded; n != len(good.Plan.Ops) {
			t.Errorf("%s: %d products open", name, n)
		}
	}
	busy := newModel(t, ring.Q4(), plan.Dense(1<<10, 1<<10)) // 2^20 multiply-adds a row
	d.push(busy)
	e := evaluate(t, d.ctx(), d.cc)
	for rows, want := range map[int]string{16: "", 17: string(wire.ReasonTooLarge)} {
		e.send(busy.request(0, rows, 1))
		r, err := e.receive()
		if err != nil || r.Err.GetReason() != want {
			t.Errorf("%d rows: %v, %v", rows, r, err)
		}
		r.Free()
	}
	d.works(good)
}

// TestUploadResumes goes on after its connection was cut, again and again, and at last over a
// restart, after which nothing of an earlier connection can arrive.
func TestUploadResumes(t *testing.T) {
	d := start(t, nil, nil)
	m := newModel(t, ring.Q4(), plan.Dense(100, 1000))
	const rounds = 5
	held := 0
	for i := range rounds {
		cc := d.connect()
		stream, err := pb.NewSecureNetsClient(cc).Upload(d.ctx())
		if err != nil {
			t.Fatal(err)
		}
		req := &pb.UploadRequest{Digest: m.digest[:], Size: uint64(len(m.bytes)), Offset: uint64(held)}
		for part := range slices.Chunk(m.bytes[held:held+50_000], 7000) {
			req.Data = part
			if err := stream.Send(req); err == io.EOF {
				break // it is refused: what was sent before has arrived since held was asked for
			} else if err != nil {
				t.Fatal(err)
			}
			req = &pb.UploadRequest{}
		}
		least := held
		if i%2 == 0 { // some of it arrives
			least++
			d.waitForPart(m, int64(least))
		}
		cc.Close()
		if i == rounds-1 {
			d.wait()
			d.run()
		}
		resp, err := send(d.ctx(), d.cc, m.digest, len(m.bytes), 0)
		if err != nil || resp.Complete || int(resp.Received) < least || int(resp.Received) > held+50_000 {
			t.Fatalf("held %v after %d, %v", resp, held, err)
		}
		held = int(resp.Received)
	}
	_, err := send(d.ctx(), d.cc, m.digest, len(m.bytes), held+1, m.bytes[held+1:])
	wantReason(t, err, codes.FailedPrecondition, wire.ReasonBadOffset)
	resp, err := send(d.ctx(), d.cc, m.digest, len(m.bytes), held, m.bytes[held:])
	if err != nil || !resp.Complete {
		t.Fatalf("upload %v, %v", resp, err)
	}
	d.works(m)
}

// TestIdleUpload: an upload that stalls ends, at the latest when its model is removed, so that
// others get their turn.
func TestIdleUpload(t *testing.T) {
	d := start(t, nil, func(c *config.Config) { c.Limits.StallTimeoutSeconds = 1 })
	m := smallModel(t)
	begin := func() grpc.ClientStreamingClient[pb.UploadRequest, pb.UploadResponse] {
		stream, err := d.client().Upload(d.ctx())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&pb.UploadRequest{Digest: m.digest[:], Size: uint64(len(m.bytes)), Data: m.bytes[:9]}); err != nil {
			t.Fatal(err)
		}
		d.waitForPart(m, 9)
		return stream
	}
	idle := begin()
	resp, err := send(d.ctx(), d.cc, m.digest, len(m.bytes), 0) // waits for its turn
	if err != nil || resp.Received != 9 {
		t.Errorf("upload: %v, %v", resp, err)
	}
	_, err = idle.CloseAndRecv()
	wantReason(t, wire.FromStatus(err), codes.DeadlineExceeded, wire.ReasonTimeout)
	if _, err := d.client().Remove(d.ctx(), &pb.RemoveRequest{Digest: m.digest[:]}); err != nil {
		t.Error(err)
	}

	// With a long stall timeout, which even a slow machine does not reach, a removal ends it.
	d.wait()
	d.cfg.Limits.StallTimeoutSeconds = 60
	d.run()
	removed := begin()
	if _, err := d.client().Remove(d.ctx(), &pb.RemoveRequest{Digest: m.digest[:]}); err != nil {
		t.Error(err)
	}
	_, err = removed.CloseAndRecv()
	wantReason(t, wire.FromStatus(err), codes.NotFound, wire.ReasonModelNotFound)
	d.push(m)
	d.works(m)
}

// TestUploadsAtATime: uploads of one model do not deadlock, however little memory there is: one
// that waits for another holds none. It must then ask where to go on, unless the model is complete.
func TestUploadsAtATime(t *testing.T) {
	d := start(t, nil, func(c *config.Config) {
		withMetrics(c)
		c.Limits.MaxBytesInFlight = 144 << 20
		c.Limits.StallTimeoutSeconds = 300 // longer than patience
	})
	m := newModel(t, ring.Q4(), plan.Dense(1000, 1000))
	received := 0
	begin := func(req *pb.UploadRequest) (grpc.ClientStreamingClient[pb.UploadRequest, pb.UploadResponse], context.CancelFunc) {
		req.Digest, req.Size = m.digest[:], uint64(len(m.bytes))
		ctx, cancel := context.WithCancel(d.ctx())
		stream, err := d.client().Upload(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		received += proto.Size(req)
		d.waitForFigure(float64(received), "securenets_received_bytes_total")
		return stream, cancel
	}
	all := make([]byte, wire.MaxMessage-100) // takes all memory for messages

	first, cancel := begin(&pb.UploadRequest{Data: m.bytes[:9]})
	d.waitForPart(m, 9)
	second, _ := begin(&pb.UploadRequest{Data: all})
	d.waitForFigure(0, "securenets_in_flight_bytes", "part", "messages")
	cancel()
	_, err := second.CloseAndRecv()
	wantReason(t, wire.FromStatus(err), codes.FailedPrecondition, wire.ReasonBadOffset)
	if _, err := first.CloseAndRecv(); status.Code(err) != codes.Canceled {
		t.Error(err)
	}

	first, _ = begin(&pb.UploadRequest{Offset: 9, Data: m.bytes[9:10]})
	d.waitForPart(m, 10)
	second, _ = begin(&pb.UploadRequest{Data: all})
	third, _ := begin(&pb.UploadRequest{})
	if err := first.Send(&pb.UploadRequest{Data: m.bytes[10:]}); err != nil {
		t.Fatal(err)
	}
	for _, stream := range []grpc.ClientStreamingClient[pb.UploadRequest, pb.UploadResponse]{first, second, third} {
		if resp, err := stream.CloseAndRecv(); err != nil || !resp.Complete {
			t.Errorf("upload: %v, %v", resp, err)
		}
	}
	d.works(m)
}

// TestCallersThatVanish: streams and connections that are cut with requests in flight or
// answers unread do not hold resources for good.
func TestCallersThatVanish(t *testing.T) { eachWay(t, testCallersThatVanish) }

func testCallersThatVanish(t *testing.T, by way) {
	d := by.start(t, nil, func(c *config.Config) { c.Limits.MaxBytesInFlight = 144 << 20 })
	m := smallModel(t)
	d.push(m)
	big := newModel(t, ring.Q4(), plan.Dense(1, 1024))
	d.push(big)
	// Answers of 16 MB each, more than the windows of an unread stream hold.
	ask := func(e *evaluation, requests int) {
		for id := range uint64(requests) {
			e.send(big.request(0, 4000, id))
		}
	}
	for i := range 8 { // three of them need more memory than there is
		ctx, cancel := context.WithCancel(t.Context())
		e, leave, cut := by.openApart(d, ctx)
		ask(e, 5)
		r, err := e.receive()
		if err != nil || r.Err != nil {
			t.Fatalf("answer %v, %v", r, err)
		}
		r.Free()
		time.Sleep(10 * time.Millisecond) // until answers fill all windows
		switch {
		case i == 0:
			cancel()
		case i == 1:
			leave()
		default:
			cut()
		}
		cancel()
	}
	unread := by.open(d, d.ctx())
	const held = 4 // all at once, of a direct stream, with memory to spare
	ask(unread, held)
	e, _, _ := by.openApart(d, d.ctx())
	for range 5 {
		e.works(m)
	}
	for range held {
		r, err := unread.receive()
		if err != nil || r.Err != nil {
			t.Fatalf("answer %v, %v", r, err)
		}
		r.Free()
	}
}

// TestUnreadAnswers: callers that send requests and never read an answer, their sending side
// open or closed, lose their connections, so that others need not wait.
func TestUnreadAnswers(t *testing.T) { eachWay(t, testUnreadAnswers) }

func testUnreadAnswers(t *testing.T, by way) {
	d := by.start(t, nil, func(c *config.Config) {
		c.Limits.MaxBytesInFlight = 144 << 20
		c.Limits.StallTimeoutSeconds = 1
	})
	m := newModel(t, ring.Q4(), plan.Dense(1, 1024))
	d.push(m)
	for i, requests := range []int{12, 3} {
		unread, _, _ := by.openApart(d, d.ctx())
		for id := range uint64(requests) { // each answer is 16 MiB, the caller's window 32
			unread.send(m.request(0, 4090, id))
		}
		if i == 1 {
			_ = unread.stream.CloseSend()
		}
		d.waitForLog("does not read answers", i+1)
		d.works(m) // there is memory again
		var err error
		for n := 0; err == nil; n++ {
			var r *wire.Response
			if r, err = unread.receive(); err == nil {
				r.Free()
			} else if n >= requests || status.Code(err) != codes.Unavailable {
				t.Errorf("%d answers of %d, then %v", n, requests, err)
			}
		}
	}
}

// TestRoomForOthers: a caller that announces messages and does not send them leaves memory for
// those of others.
func TestRoomForOthers(t *testing.T) {
	d := startTLS(t, nil, func(c *config.Config) {
		withMetrics(c)
		c.Limits.StallTimeoutSeconds = 300 // longer than patience
	})
	m := smallModel(t)
	alice := d.by(d.as(tlstest.Leaf{CommonName: "alice"}))
	alice.push(m)
	const streams, most = 10, 64 << 20 // bytes, half of what is for messages
	for range streams {
		if _, err := d.rawDirect().Write([]byte("\x00\x01\x00\x00\x00")); err != nil { // 16 MiB
			t.Fatal(err)
		}
	}
	d.waitForFigure(most, "securenets_in_flight_bytes", "part", "messages")
	upload, err := d.client().Upload(d.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if err := upload.Send(&pb.UploadRequest{Data: make([]byte, 1<<20)}); err != nil {
		t.Fatal(err)
	}
	d.waitForFigure(streams+1, "securenets_calls")
	time.Sleep(10 * time.Millisecond) // until all wait
	alice.works(m)
	if got := d.scrape().value("securenets_in_flight_bytes", "part", "messages"); got != most {
		t.Errorf("%v bytes are one caller's, want %v", got, most)
	}
}

// TestWaitsForMemory: waiting for memory counts as waiting, both for a request's timeout and in
// its answer.
func TestWaitsForMemory(t *testing.T) {
	h := newHooked()
	d := start(t, h, func(c *config.Config) {
		withMetrics(c)
		c.Limits.MaxBytesInFlight = 144 << 20
	})
	m := newModel(t, ring.Q4(), plan.Dense(1024, 1))
	d.push(m)
	begun, resume := h.hold(t, 10)
	ask := func(id uint64, timeout time.Duration) *evaluation {
		e := evaluate(t, d.ctx(), d.cc)
		r := m.request(0, 4090, id) // takes 34 MiB of 78
		r.TimeoutNS = uint64(timeout)
		e.send(r)
		return e
	}
	answered := func(e *evaluation, id uint64) *wire.Response {
		t.Helper()
		r, err := e.receive()
		if err != nil {
			t.Fatal(err)
		}
		m.check(t, r, 0, m.input(0, 4090, id))
		return r
	}
	first, second := ask(1, 0), ask(2, 0)
	<-begun
	d.waitForReceived(2)
	d.waitForFigure(0, "securenets_in_flight_bytes", "part", "messages")
	r, err := ask(3, time.Millisecond).receive()
	if err != nil || r.Err.GetReason() != string(wire.ReasonTimeout) {
		t.Fatalf("answer %v, %v", r, err)
	}
	patient := ask(4, time.Hour)
	d.waitForReceived(4)
	d.waitForFigure(16<<20, "securenets_in_flight_bytes", "part", "messages")
	const held = 20 * time.Millisecond
	time.Sleep(held)
	close(resume)
	answered(first, 1)
	answered(second, 2)
	if r := answered(patient, 4); r.QueueNS < uint64(held) {
		t.Errorf("it waited for %v of %v", time.Duration(r.QueueNS), held)
	}
}

// TestMemory: the daemon's memory stays near its budget, whatever callers send and leave
// unread. The measurement includes the callers' own buffers, as they are in this process.
func TestMemory(t *testing.T) { eachWay(t, testMemory) }

func testMemory(t *testing.T, by way) {
	const budget, perConnection = 144 << 20, 6 << 20
	h := newHooked()
	d := by.start(t, h, func(c *config.Config) { c.Limits.MaxBytesInFlight = budget })
	up, down := newModel(t, ring.Q4(), plan.Dense(1024, 1)), newModel(t, ring.Q4(), plan.Dense(1, 1024))
	d.push(up)
	d.push(down)
	_, resume := h.hold(t, 1000)
	x := up.input(0, 4090, 1)
	part, err := proto.Marshal(&pb.UploadRequest{Digest: make([]byte, 32), Size: 1 << 30, Data: make([]byte, 15<<20)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := liveHeap()
	const connections, streams = 5, 8
	var sending sync.WaitGroup
	for range connections {
		cc := d.connect()
		for s := range streams {
			e := by.openOn(d, ctx, cc)
			sending.Go(func() {
				for id := range uint64(4) {
					r := &wire.Request{ID: id, Model: up.digest[:], Rows: 4090, Words: wire.EncodeWords(up.Plan.Ring, x.Data, nil)}
					if s%2 == 1 {
						r = down.request(0, 4090, id)
					}
					if e.stream.SendMsg(r) != nil {
						return
					}
				}
			})
		}
		upload, err := pb.NewSecureNetsClient(cc).Upload(ctx, grpc.ForceCodecV2(anyBytes{}))
		if err != nil {
			t.Fatal(err)
		}
		sending.Go(func() {
			for upload.SendMsg(part) == nil {
			}
		})
	}
	for range 4 {
		time.Sleep(250 * time.Millisecond)
		grown := liveHeap() - before
		t.Logf("budget %d MiB, live heap grown by %d MiB", budget>>20, grown>>20)
		if grown > budget+connections*perConnection {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
	}
	close(resume)
	cancel()
	sending.Wait()
	d.works(up)
}

func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestTooManyCalls: one call more than there may be is refused, and those in
// progress go on.
func TestTooManyCalls(t *testing.T) { eachWay(t, testTooManyCalls) }

func testTooManyCalls(t *testing.T, by way) {
	d := by.start(t, nil, func(c *config.Config) { c.Limits.MaxCalls = 3 })
	m := smallModel(t)
	d.push(m)
	ctx, cancel := context.WithCancel(t.Context())
	// The daemon notices the end of a call, such as this upload, a little later than its caller.
	taken := func(ctx context.Context) *evaluation {
		t.Helper()
		for within := d.ctx(); ; {
			e, leave, _ := by.openApart(d, ctx)
			e.send(m.request(1, 1, 5))
			r, err := e.receive()
			if err == nil {
				m.check(t, r, 1, m.input(1, 1, 5))
				return e
			}
			wantReason(t, err, codes.ResourceExhausted, wire.ReasonOverloaded)
			leave()
			if within.Err() != nil {
				t.Fatal("the end of other calls does not arrive")
			}
		}
	}
	var streams []*evaluation
	for range 3 {
		streams = append(streams, taken(ctx))
	}
	refused, _, _ := by.openApart(d, d.ctx())
	_, err := refused.receive()
	wantReason(t, err, codes.ResourceExhausted, wire.ReasonOverloaded)
	_, err = d.client().List(d.ctx(), &pb.ListRequest{})
	wantReason(t, wire.FromStatus(err), codes.ResourceExhausted, wire.ReasonOverloaded)
	for _, e := range streams {
		e.works(m)
	}
	cancel()
	for range 3 { // as many as before
		taken(d.ctx()).works(m)
	}
}

// TestHalfSent: a caller that does not send the rest of a message loses its connection, and
// holds no resources for good.
func TestHalfSent(t *testing.T) { eachWay(t, testHalfSent) }

func testHalfSent(t *testing.T, by way) {
	d := by.start(t, nil, func(c *config.Config) {
		c.Limits.MaxBytesInFlight = 144 << 20
		c.Limits.StallTimeoutSeconds = 1
	})
	m := smallModel(t)
	d.push(m)
	const half = "\x00\x00\xff\xff\xffand no more"
	for range 4 { // together more than there is for messages
		if by == byDirect {
			r := d.rawDirect()
			if _, err := r.Write([]byte(half)); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := r.RecvMsg(new([]byte)); err != io.ErrUnexpectedEOF {
					t.Errorf("the stream ended with %v", err)
				}
			}()
			continue
		}
		body, rest := io.Pipe()
		transport := d.plainHTTP()
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(d.ctx(), http.MethodPost, "http://localhost/securenets.v1.SecureNets/Evaluate", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("TE", "trailers")
		go func() { _, _ = rest.Write([]byte(half)) }()
		go func() {
			if resp, err := transport.RoundTrip(req); err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err == nil {
					t.Error("the connection ended well")
				}
			}
			rest.Close()
		}()
	}
	d.waitForLog("does not send the rest", 4)
	d.works(m)
}

// TestGoodAmongBad: hostile and honest streams at once.
func TestGoodAmongBad(t *testing.T) { eachWay(t, testGoodAmongBad) }

func testGoodAmongBad(t *testing.T, by way) {
	d := by.start(t, nil, nil)
	m := smallModel(t)
	d.push(m)
	var wg sync.WaitGroup
	for s := range uint64(3) {
		wg.Go(func() {
			e := by.open(d, d.ctx())
			for id := range uint64(60) {
				e.send(m.request(1, 2, id))
				r, err := e.receive()
				if err != nil {
					t.Error(err)
					return
				}
				m.check(t, r, 1, m.input(1, 2, id))
			}
		})
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(s, 4))
			e := by.open(d, d.ctx())
			for id := range uint64(60) {
				b := make([]byte, rnd.IntN(2000))
				for i := range b {
					b[i] = byte(rnd.Uint32())
				}
				e.send(&wire.Request{ID: id, Model: m.digest[:], Layer: rnd.Uint32N(3), Rows: rnd.Uint32N(12), Words: mem.BufferSlice{mem.SliceBuffer(b)}})
				r, err := e.receive()
				if err != nil || r.Err == nil && r.Words.Len() == 0 {
					t.Error(fmt.Errorf("answer %v: %w", r, err))
					return
				}
				r.Free()
			}
		})
	}
	wg.Wait()
}
