package vectors_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels/gonum"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

type frameCase struct {
	Name string `json:"name"`
	// "model": a sealed model that the cloud holds. "request": what it is asked.
	// "response": what a host is answered to rows x cols words of a ring.
	Kind string   `json:"kind"`
	Hex  string   `json:"hex"`
	Ring []uint32 `json:"ring,omitempty"`
	Rows int      `json:"rows,omitempty"`
	Cols int      `json:"cols,omitempty"`
	// Of a request: "words" are answered, "error" is answered, or the "stream"
	// ends with the code. Of a response: it holds "words", an "error", or the host
	// must "refuse" it.
	Expect string   `json:"expect,omitempty"`
	ID     uint64   `json:"id,string,omitempty"`
	Words  []uint32 `json:"words,omitempty"`
	Code   int      `json:"code,omitempty"`
	Reason string   `json:"reason,omitempty"`
}

func frameCases(t *testing.T) (cases []any) {
	rng := random(600)
	q4, q3 := ring.Q4(), ring.Q3()
	conv := plan.Conv(plan.Conv2D{H: 3, W: 3, C: 2, OutC: 2, KH: 2, KW: 2, SH: 1, SW: 1, DH: 1, DW: 1, Top: 1, Left: 0, Bot: 0, Right: 0, Groups: 1})
	m := model(t, rng, q4, conv, plan.Dense(5, 3))
	third := model(t, rng, q3, plan.Dense(4, 2))
	wide := model(t, rng, newRing(t, 3), plan.Dense(1, 4096))
	d := start(t)
	digests := map[*sealed.Model][]byte{}
	for _, model := range []*sealed.Model{m, third, wide} {
		b := must[[]byte](t)(model.Marshal())
		digests[model] = d.push(model, b)
		cases = append(cases, frameCase{Name: "a model", Kind: "model", Hex: hexOf(b)})
	}

	words := func(r ring.Ring, n int) []byte {
		v := make([]uint32, n)
		for i := range v {
			v[i] = rng.Uint32N(r.Modulus())
		}
		return wire.EncodeWords(r, v, nil).Materialize()
	}
	good := &pb.EvaluateRequest{Id: 7, Model: digests[m], Layer: 1, Rows: 2, Input: &pb.EvaluateRequest_Words{Words: words(q4, 10)}}
	seeded := &pb.EvaluateRequest{Id: 8, Model: digests[m], Layer: 1, Rows: 3,
		Input: &pb.EvaluateRequest_Seed{Seed: &pb.Seed{Key: seedBytes(rng)}}}
	// with returns a changed copy's bytes, which are the same on every run.
	with := func(r *pb.EvaluateRequest, change func(r *pb.EvaluateRequest)) []byte {
		r = proto.Clone(r).(*pb.EvaluateRequest)
		change(r)
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	same := func(*pb.EvaluateRequest) {}
	setWords := func(b []byte) func(r *pb.EvaluateRequest) {
		return func(r *pb.EvaluateRequest) { r.Input = &pb.EvaluateRequest_Words{Words: b} }
	}
	setSeed := func(n int, first uint64, rows uint32) func(r *pb.EvaluateRequest) {
		return func(r *pb.EvaluateRequest) {
			r.Rows, r.Input = rows, &pb.EvaluateRequest_Seed{Seed: &pb.Seed{Key: make([]byte, n), First: first}}
		}
	}
	spoilt := func(at int, word uint32) []byte {
		b := append([]byte(nil), good.GetWords()...)
		q4.PutWords(b[4*at:4*at+4], []uint32{word})
		return b
	}
	b := with(good, same)
	field := func(num protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), v)
	}
	bare := with(good, func(r *pb.EvaluateRequest) { r.Input = nil })
	span := &pb.Shared{Offset: 64, Length: 40}
	sharedOnly := with(&pb.EvaluateRequest{Input: &pb.EvaluateRequest_Shared{Shared: span}}, same)
	seedOnly := with(seeded, func(r *pb.EvaluateRequest) { r.Id, r.Model, r.Layer, r.Rows = 0, nil, 0, 0 })
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}

	for _, c := range []struct {
		name   string
		b      []byte
		expect string
		code   codes.Code
		reason wire.Reason
	}{
		{"words", b, "words", 0, ""},
		{"a convolution", with(good, func(r *pb.EvaluateRequest) { r.Layer = 0; setWords(words(q4, 36))(r) }), "words", 0, ""},
		{"words of three bytes", with(good, func(r *pb.EvaluateRequest) { r.Model, r.Layer = digests[third], 0; setWords(words(q3, 8))(r) }), "words", 0, ""},
		{"a seed", with(seeded, same), "words", 0, ""},
		{"a seed, later rows", with(seeded, func(r *pb.EvaluateRequest) { r.GetSeed().First, r.Rows = 2, 1 }), "words", 0, ""},
		{"a seed, the last index", with(seeded, func(r *pb.EvaluateRequest) { r.GetSeed().First, r.Rows = 1<<64-1, 1 }), "words", 0, ""},
		{"the largest id", with(good, func(r *pb.EvaluateRequest) { r.Id = 1<<64 - 1 }), "words", 0, ""},
		{"fields in another order", join(field(5, good.GetWords()), bare), "words", 0, ""},
		{"unknown fields", join([]byte{0x78, 0x01}, b, field(99, []byte("x"))), "words", 0, ""},
		{"a number in more bytes than it needs", join([]byte{0x18, 0x81, 0x80, 0x00}, b), "words", 0, ""},
		{"words, then a seed: the last counts", join(with(seeded, setWords(nil)), seedOnly), "words", 0, ""},
		{"a seed, then words: the last count", join(seedOnly, b), "words", 0, ""},
		{"words twice: the last count", join(field(5, []byte{1}), b), "words", 0, ""},

		{"shared words, then words: the last count", join(sharedOnly, b), "words", 0, ""},
		{"shared words, then a seed: the last counts", join(sharedOnly, with(seeded, same)), "words", 0, ""},

		{"words, then shared words: the last count", join(b, sharedOnly), "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"shared words, where no memory is shared", with(good, func(r *pb.EvaluateRequest) { r.Input = &pb.EvaluateRequest_Shared{Shared: span} }), "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"shared words of no length, where no memory is shared", join(bare, field(9, nil)), "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"an answer in memory, where none is shared", with(good, func(r *pb.EvaluateRequest) { r.Answer = span }), "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"no field", nil, "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"no model", with(good, func(r *pb.EvaluateRequest) { r.Model = nil }), "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"a digest of 31 bytes", with(good, func(r *pb.EvaluateRequest) { r.Model = r.Model[:31] }), "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"a digest of 33 bytes", with(good, func(r *pb.EvaluateRequest) { r.Model = append(r.Model, 0) }), "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"a model that is not held", with(good, func(r *pb.EvaluateRequest) { r.Model[0] ^= 1 }), "error", codes.NotFound, wire.ReasonModelNotFound},
		{"a layer past the last", with(good, func(r *pb.EvaluateRequest) { r.Layer = 2 }), "error", codes.NotFound, wire.ReasonLayerNotFound},
		{"the words of another layer", with(good, func(r *pb.EvaluateRequest) { r.Layer = 0 }), "error", codes.InvalidArgument, wire.ReasonBadLength},
		{"no rows", with(good, func(r *pb.EvaluateRequest) { r.Rows = 0 }), "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"a row more than words", with(good, func(r *pb.EvaluateRequest) { r.Rows = 3 }), "error", codes.InvalidArgument, wire.ReasonBadLength},
		{"2^32 - 1 rows", with(good, func(r *pb.EvaluateRequest) { r.Rows = 1<<32 - 1 }), "error", codes.ResourceExhausted, wire.ReasonTooLarge},
		{"an answer past a message", with(good, func(r *pb.EvaluateRequest) { r.Model, r.Layer = digests[wide], 0; setSeed(32, 0, 4097)(r) }), "error", codes.ResourceExhausted, wire.ReasonTooLarge},
		{"neither words nor a seed", bare, "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"empty words", with(good, setWords([]byte{})), "error", codes.InvalidArgument, wire.ReasonBadLength},
		{"a byte less", with(good, setWords(good.GetWords()[1:])), "error", codes.InvalidArgument, wire.ReasonBadLength},
		{"a byte more", with(good, setWords(append(words(q4, 10), 0))), "error", codes.InvalidArgument, wire.ReasonBadLength},
		{"the modulus as a word", with(good, setWords(spoilt(0, q4.Modulus()))), "error", codes.InvalidArgument, wire.ReasonNonCanonical},
		{"all ones as the last word", with(good, setWords(spoilt(9, 1<<32-1))), "error", codes.InvalidArgument, wire.ReasonNonCanonical},
		{"an empty key", with(good, setSeed(0, 0, 1)), "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"a key of 31 bytes", with(good, setSeed(31, 0, 1)), "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"a key of 33 bytes", with(good, setSeed(33, 0, 1)), "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"a seed past the last index", with(good, setSeed(32, 1<<64-1, 2)), "error", codes.InvalidArgument, wire.ReasonBadRequest},
		{"a seed that expands past a message", with(good, setSeed(32, 0, 1<<20)), "error", codes.ResourceExhausted, wire.ReasonTooLarge},

		{"a byte missing at the end", b[:len(b)-1], "stream", codes.Internal, ""},
		{"cut inside the digest", b[:20], "stream", codes.Internal, ""},
		{"a place in memory that is cut", join(b, field(10, []byte{0x10})), "stream", codes.Internal, ""},
		{"text", []byte("GET / HTTP/1.1\r\n\r\n"), "stream", codes.Internal, ""},
		{"field 0", []byte{0, 0}, "stream", codes.Internal, ""},
		{"a number of 65 bits", append([]byte{0x08}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02), "stream", codes.Internal, ""},
		{"a length past the end", []byte{0x2a, 0xff, 0xff, 0x03, 1}, "stream", codes.Internal, ""},
		{"a group that does not end", []byte{0x7b, 0x08, 0x01}, "stream", codes.Internal, ""},
	} {
		got := d.ask(c.b)
		if got.Expect != c.expect || got.Code != int(c.code) || got.Reason != string(c.reason) {
			t.Fatalf("%s: answered %+v", c.name, got)
		}
		got.Name, got.Kind, got.Hex = c.name, "request", hexOf(c.b)
		cases = append(cases, got)
	}
	return append(cases, responseCases(t)...)
}

func responseCases(t *testing.T) (cases []any) {
	rng := random(601)
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		const rows, cols = 2, 3
		v := make([]uint32, rows*cols)
		for i := range v {
			v[i] = rng.Uint32N(r.Modulus())
		}
		marshal := func(p *wire.Response) []byte {
			b := must[mem.BufferSlice](t)(wire.Codec{}.Marshal(p))
			return b.Materialize()
		}
		holding := func(v []byte) []byte {
			return marshal(&wire.Response{ID: 9, Words: mem.BufferSlice{mem.SliceBuffer(v)}})
		}
		wordBytes := wire.EncodeWords(r, v, nil).Materialize()
		spoilt := append([]byte(nil), wordBytes...)
		for j := range r.WordBytes() { // the modulus, at word 4
			spoilt[4*r.WordBytes()+j] = byte(r.Modulus() >> (8 * j))
		}
		failed := marshal(&wire.Response{ID: 9, Err: &pb.Error{Code: int32(codes.NotFound), Reason: "MODEL_NOT_FOUND", Message: "no such model"}})
		good := marshal(&wire.Response{ID: 9, Words: wire.EncodeWords(r, v, nil), QueueNS: 1500, ComputeNS: 1 << 40})
		shared := marshal(&wire.Response{ID: 9, Shared: &wire.Span{Offset: 64, Length: uint64(len(wordBytes))}})
		for _, c := range []struct {
			name, expect, reason string
			b                    []byte
		}{
			{"words", "words", "", good},
			{"an unknown field", "words", "", append([]byte{0x70, 0x01}, good...)},
			{"an error, then words: the last count", "words", "", append(append([]byte(nil), failed...), good...)},
			{"shared words, then words: the last count", "words", "", append(append([]byte(nil), shared...), good...)},
			{"an error", "error", "MODEL_NOT_FOUND", failed},
			{"words, then an error: the last counts", "error", "MODEL_NOT_FOUND", append(append([]byte(nil), good...), failed...)},
			{"no field", "refuse", "BAD_LENGTH", nil},
			{"neither words nor an error", "refuse", "BAD_LENGTH", []byte{0x08, 9}},
			{"shared words that were not asked for", "refuse", "BAD_LENGTH", shared},
			{"words, then shared words that were not asked for", "refuse", "BAD_LENGTH", append(append([]byte(nil), good...), shared...)},
			{"a byte less", "refuse", "BAD_LENGTH", holding(wordBytes[1:])},
			{"a byte more", "refuse", "BAD_LENGTH", holding(append(wordBytes[:len(wordBytes):len(wordBytes)], 0))},
			{"a row more", "refuse", "BAD_LENGTH", holding(append(wordBytes[:len(wordBytes):len(wordBytes)], wordBytes[:cols*r.WordBytes()]...))},
			{"the modulus as a word", "refuse", "NON_CANONICAL", holding(spoilt)},
			{"cut", "refuse", "MALFORMED", good[:len(good)-1]},
			{"text", "refuse", "MALFORMED", []byte("HTTP/1.1 200 OK\r\n\r\n")},
		} {
			got := take(r, c.b, rows*cols)
			if got.Expect != c.expect || got.Reason != c.reason {
				t.Fatalf("%s: %+v", c.name, got)
			}
			got.Name, got.Kind, got.Hex = r.String()+", "+c.name, "response", hexOf(c.b)
			got.Ring, got.Rows, got.Cols = r.Primes(), rows, cols
			cases = append(cases, got)
		}
	}
	return cases
}

// take reads a response of n words as a host does.
func take(r ring.Ring, b []byte, n int) frameCase {
	var resp wire.Response
	if err := (wire.Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, &resp); err != nil {
		return frameCase{Expect: "refuse", Reason: "MALFORMED"}
	}
	var e *wire.Error
	if err := wire.FromProto(resp.Err); errors.As(err, &e) {
		return frameCase{Expect: "error", ID: resp.ID, Code: int(e.Code), Reason: string(e.Reason)}
	}
	words := make([]uint32, n)
	if err := wire.DecodeWords(r, words, resp.Words); errors.As(err, &e) {
		return frameCase{Expect: "refuse", Reason: string(e.Reason)}
	}
	return frameCase{Expect: "words", ID: resp.ID, Words: words}
}

// cloud is a daemon in this process.
type cloud struct {
	t     *testing.T
	cc    *grpc.ClientConn
	rings map[string]ring.Ring // by digest
}

func start(t *testing.T) *cloud {
	t.Helper()
	dir := must[string](t)(os.MkdirTemp("", "v")) // t.TempDir is too long for a socket
	cfg := config.Default()
	cfg.Listen, cfg.StateDir = "unix:"+filepath.Join(dir, "s"), filepath.Join(dir, "state")
	ctx, stop := context.WithCancel(context.Background())
	backend, done := gonum.New(), make(chan error, 1)
	go func() { done <- daemon.Run(ctx, cfg, slog.New(slog.DiscardHandler), backend) }()
	d := &cloud{t: t, cc: must[*grpc.ClientConn](t)(wire.Dial(cfg.Listen)), rings: map[string]ring.Ring{}}
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		d.cc.Close()
		if err := errors.Join(backend.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	for {
		resp := must[*healthpb.HealthCheckResponse](t)(healthpb.NewHealthClient(d.cc).Check(d.ctx(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)))
		if resp.Status == healthpb.HealthCheckResponse_SERVING {
			return d
		}
		time.Sleep(time.Millisecond)
	}
}

func (d *cloud) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	d.t.Cleanup(cancel)
	return ctx
}

// push uploads a sealed model and returns its digest.
func (d *cloud) push(m *sealed.Model, b []byte) []byte {
	d.t.Helper()
	digest := sealed.Sum(b)
	d.rings[string(digest[:])] = m.Plan.Ring
	stream := must[grpc.ClientStreamingClient[pb.UploadRequest, pb.UploadResponse]](d.t)(pb.NewSecureNetsClient(d.cc).Upload(d.ctx()))
	if err := stream.Send(&pb.UploadRequest{Digest: digest[:], Size: uint64(len(b)), Data: b}); err != nil {
		d.t.Fatal(err)
	}
	if resp := must[*pb.UploadResponse](d.t)(stream.CloseAndRecv()); !resp.Complete {
		d.t.Fatal("the upload is not complete")
	}
	return digest[:]
}

// asBytes is a codec that sends and takes bytes as they are.
type asBytes struct{}

func (asBytes) Name() string { return "proto" }
func (asBytes) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (asBytes) Unmarshal(b mem.BufferSlice, v any) error { *v.(*[]byte) = b.Materialize(); return nil }

// ask sends a frame on a stream of its own and returns what became of it.
func (d *cloud) ask(frame []byte) frameCase {
	d.t.Helper()
	stream := must[grpc.ClientStream](d.t)(d.cc.NewStream(d.ctx(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
		pb.SecureNets_Evaluate_FullMethodName, grpc.ForceCodecV2(asBytes{})))
	if err := stream.SendMsg(frame); err != nil {
		d.t.Fatal(err)
	}
	var b []byte
	if err := stream.RecvMsg(&b); err != nil {
		return frameCase{Expect: "stream", Code: int(status.Code(err))}
	}
	var resp pb.EvaluateResponse
	if err := proto.Unmarshal(b, &resp); err != nil {
		d.t.Fatal(err)
	}
	if e := resp.GetError(); e != nil {
		return frameCase{Expect: "error", ID: resp.Id, Code: int(e.Code), Reason: e.Reason}
	}
	var req pb.EvaluateRequest
	if err := proto.Unmarshal(frame, &req); err != nil {
		d.t.Fatal(err)
	}
	r := d.rings[string(req.Model)]
	words := make([]uint32, len(resp.GetWords())/r.WordBytes())
	if err := r.Words(words, resp.GetWords()); err != nil {
		d.t.Fatal(err)
	}
	return frameCase{Expect: "words", ID: resp.Id, Words: words}
}
