package wire_test

import (
	"bytes"
	"errors"
	"math"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/wire"
)

// pool counts the buffers that are out.
type pool struct{ out atomic.Int64 }

func (p *pool) Get(n int) *[]byte {
	p.out.Add(1)
	// Large enough for mem to count references.
	b := make([]byte, n, n+4096)
	return &b
}

func (p *pool) Put(b *[]byte) {
	if p.out.Add(-1) < 0 {
		panic("put twice")
	}
	clear((*b)[:cap(*b)]) // what is used after its return reads as zero
}

// split returns b in buffers of the pool, cut at the given places modulo its length.
func (p *pool) split(b []byte, cuts ...uint) mem.BufferSlice {
	s := mem.BufferSlice{}
	part := func(b []byte) {
		buf := p.Get(len(b))
		copy(*buf, b)
		s = append(s, mem.NewBuffer(buf, p))
	}
	for _, c := range cuts {
		k := int(c % uint(len(b)+1))
		part(b[:k])
		b = b[k:]
	}
	part(b)
	return s
}

// message is what Request and Response have in common.
type message interface{ Free() }

// toProto returns the generated message that m stands for.
func toProto(m message) proto.Message {
	switch m := m.(type) {
	case *wire.Request:
		p := &pb.EvaluateRequest{Id: m.ID, Model: m.Model, Layer: m.Layer, Rows: m.Rows, TimeoutNs: m.TimeoutNS, Priority: m.Priority}
		if m.Words != nil {
			p.Input = &pb.EvaluateRequest_Words{Words: m.Words.Materialize()}
		}
		if m.Seed != nil {
			p.Input = &pb.EvaluateRequest_Seed{Seed: m.Seed}
		}
		if m.Shared != nil {
			p.Input = &pb.EvaluateRequest_Shared{Shared: toShared(m.Shared)}
		}
		p.Answer = toShared(m.Answer)
		return p
	case *wire.Response:
		p := &pb.EvaluateResponse{Id: m.ID, QueueNs: m.QueueNS, ComputeNs: m.ComputeNS}
		if m.Words != nil {
			p.Result = &pb.EvaluateResponse_Words{Words: m.Words.Materialize()}
		}
		if m.Err != nil {
			p.Result = &pb.EvaluateResponse_Error{Error: m.Err}
		}
		if m.Shared != nil {
			p.Result = &pb.EvaluateResponse_Shared{Shared: toShared(m.Shared)}
		}
		return p
	}
	panic("unknown message")
}

func toShared(s *wire.Span) *pb.Shared {
	if s == nil {
		return nil
	}
	return &pb.Shared{Offset: s.Offset, Length: s.Length}
}

// kept is how many bytes are kept of a digest or key, which have one byte less if they are valid.
const kept = 33

// clearUnknown drops what Request and Response do not keep.
func clearUnknown(m proto.Message) {
	m.ProtoReflect().SetUnknown(nil)
	spans := []*pb.Shared{}
	switch m := m.(type) {
	case *pb.EvaluateRequest:
		spans = append(spans, m.GetShared(), m.Answer)
		m.Model = m.Model[:min(len(m.Model), kept)]
		if s := m.GetSeed(); s != nil {
			s.Key = s.Key[:min(len(s.Key), kept)]
			s.ProtoReflect().SetUnknown(nil)
		}
	case *pb.EvaluateResponse:
		spans = append(spans, m.GetShared())
	}
	for _, s := range spans {
		if s != nil {
			s.ProtoReflect().SetUnknown(nil)
		}
	}
}

// empty returns a fresh message of ours and of the generated code.
func empty(response bool) (message, proto.Message) {
	if response {
		return &wire.Response{}, &pb.EvaluateResponse{}
	}
	return &wire.Request{}, &pb.EvaluateRequest{}
}

var oneof = rapid.SampledFrom([]string{"words", "message", "shared", "none"})

func drawMessage(t *rapid.T, p *pool) message {
	words := func() mem.BufferSlice {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "words")
		return p.split(b, rapid.SliceOfN(rapid.Uint(), 0, 3).Draw(t, "cuts")...)
	}
	span := func() *wire.Span {
		return &wire.Span{Offset: rapid.Uint64().Draw(t, "offset"), Length: rapid.Uint64().Draw(t, "length")}
	}
	if rapid.Bool().Draw(t, "response") {
		m := &wire.Response{ID: rapid.Uint64().Draw(t, "id"),
			QueueNS: rapid.Uint64().Draw(t, "queue"), ComputeNS: rapid.Uint64().Draw(t, "compute")}
		switch oneof.Draw(t, "result") {
		case "words":
			m.Words = words()
		case "message":
			m.Err = &pb.Error{Code: rapid.Int32().Draw(t, "code"), Reason: rapid.String().Draw(t, "reason"), RetryNs: rapid.Uint64().Draw(t, "retry")}
		case "shared":
			m.Shared = span()
		}
		return m
	}
	m := &wire.Request{ID: rapid.Uint64().Draw(t, "id"), Model: rapid.SliceOfN(rapid.Byte(), 0, kept).Draw(t, "model"),
		Layer: rapid.Uint32().Draw(t, "layer"), Rows: rapid.Uint32().Draw(t, "rows"),
		TimeoutNS: rapid.Uint64().Draw(t, "timeout"), Priority: rapid.Uint32().Draw(t, "priority")}
	switch oneof.Draw(t, "input") {
	case "words":
		m.Words = words()
	case "message":
		m.Seed = &pb.Seed{Key: rapid.SliceOfN(rapid.Byte(), 0, kept).Draw(t, "key"), First: rapid.Uint64().Draw(t, "first")}
	case "shared":
		m.Shared = span()
	}
	if rapid.Bool().Draw(t, "answer") {
		m.Answer = span()
	}
	return m
}

// TestAgainstProtobuf: what we write, the generated code reads, and the other
// way round, however buffers are cut; and every buffer comes back once.
func TestAgainstProtobuf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p pool
		m := drawMessage(t, &p)
		_, response := m.(*wire.Response)
		want := toProto(m)

		b, err := wire.Codec{}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		m.Free()
		ours := b.Materialize()
		b.Free()
		if n := p.out.Load(); n != 0 {
			t.Fatalf("%d buffers are out after sending", n)
		}
		_, read := empty(response)
		if err := proto.Unmarshal(ours, read); err != nil || !proto.Equal(read, want) {
			t.Fatalf("protobuf read %v, want %v: %v", read, want, err)
		}

		theirs, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		in := p.split(theirs, rapid.SliceOfN(rapid.Uint(), 0, 5).Draw(t, "frames")...)
		got, _ := empty(response)
		err = wire.Codec{}.Unmarshal(in, got)
		in.Free()
		if err != nil || !proto.Equal(toProto(got), want) {
			t.Fatalf("read %v, want %v: %v", toProto(got), want, err)
		}
		got.Free()
		if n := p.out.Load(); n != 0 {
			t.Fatalf("%d buffers are out after receiving", n)
		}
	})
}

// TestWordsAreNotCopied: received words are views of what came in, and sent
// words are the memory that was given.
func TestWordsAreNotCopied(t *testing.T) {
	var p pool
	theirs, err := proto.Marshal(&pb.EvaluateRequest{Id: 1, Input: &pb.EvaluateRequest_Words{Words: make([]byte, 100)}})
	if err != nil {
		t.Fatal(err)
	}
	in := p.split(theirs, 50)
	var r wire.Request
	if err := (wire.Codec{}).Unmarshal(in, &r); err != nil {
		t.Fatal(err)
	}
	in.Free()
	if p.out.Load() != 2 {
		t.Fatalf("%d buffers held, want 2", p.out.Load())
	}
	b, err := wire.Codec{}.Marshal(&r)
	if err != nil {
		t.Fatal(err)
	}
	if got := b[len(b)-1].ReadOnlyData(); &got[0] != &r.Words[len(r.Words)-1].ReadOnlyData()[0] {
		t.Error("sent words are a copy")
	}
	r.Free()
	if p.out.Load() != 2 {
		t.Fatalf("%d buffers held while the transport sends, want 2", p.out.Load())
	}
	b.Free()
	if p.out.Load() != 0 {
		t.Fatalf("%d buffers held in the end", p.out.Load())
	}
}

// TestKeepsLittle: of a message without words little is kept, however long its fields are.
func TestKeepsLittle(t *testing.T) {
	long := make([]byte, 1<<20)
	m := &pb.EvaluateRequest{Model: long, Input: &pb.EvaluateRequest_Seed{Seed: &pb.Seed{Key: long}}}
	unknown := protowire.AppendBytes(protowire.AppendTag(nil, 100, protowire.BytesType), long)
	m.GetSeed().ProtoReflect().SetUnknown(unknown)
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var p pool
	in := p.split(b, 50)
	var r wire.Request
	if err := (wire.Codec{}).Unmarshal(in, &r); err != nil {
		t.Fatal(err)
	}
	in.Free()
	if n := cap(r.Model) + cap(r.Seed.Key) + len(r.Seed.ProtoReflect().GetUnknown()); n > 2*kept || p.out.Load() != 0 {
		t.Errorf("%d bytes and %d buffers are kept", n, p.out.Load())
	}
	if len(r.Model) != kept || len(r.Seed.Key) != kept {
		t.Errorf("a digest of %d bytes and a key of %d, want %d", len(r.Model), len(r.Seed.Key), kept)
	}
}

func TestMarshalRefuses(t *testing.T) {
	for _, m := range []any{
		&wire.Request{Words: mem.BufferSlice{}, Seed: &pb.Seed{}},
		&wire.Request{Words: mem.BufferSlice{}, Shared: &wire.Span{}},
		&wire.Request{Seed: &pb.Seed{}, Shared: &wire.Span{}},
		&wire.Response{Words: mem.BufferSlice{}, Shared: &wire.Span{}},
		&wire.Response{Words: mem.BufferSlice{}, Err: &pb.Error{}},
		&wire.Response{Err: &pb.Error{Reason: "\xff"}},
	} {
		if _, err := (wire.Codec{}).Marshal(m); !errors.Is(err, wire.ErrMessage) {
			t.Errorf("%T: error %v", m, err)
		}
	}
}

// TestOtherMessages go through the stock codec.
func TestOtherMessages(t *testing.T) {
	want := &pb.InfoResponse{Version: "1", MaxMessageBytes: 5}
	b, err := wire.Codec{}.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got := &pb.InfoResponse{}
	if err := (wire.Codec{}).Unmarshal(b, got); err != nil || !proto.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if name := (wire.Codec{}).Name(); name != "proto" {
		t.Errorf("name %q", name)
	}
	if _, err := (wire.Codec{}).Marshal(42); err == nil {
		t.Error("a number is no message")
	}
}

// hostile are messages that a correct sender would not write.
func hostile() map[string][]byte {
	field := func(num protowire.Number, typ protowire.Type, v ...byte) []byte {
		return append(protowire.AppendTag(nil, num, typ), v...)
	}
	join := func(b ...[]byte) []byte { return bytes.Join(b, nil) }
	words := func(b ...byte) []byte { return protowire.AppendBytes(field(5, protowire.BytesType), b) }
	seed := func(b ...byte) []byte { return protowire.AppendBytes(field(6, protowire.BytesType), b) }
	shared := func(b ...byte) []byte { return protowire.AppendBytes(field(9, protowire.BytesType), b) }
	answer := func(b ...byte) []byte { return protowire.AppendBytes(field(10, protowire.BytesType), b) }
	result := func(b ...byte) []byte { return protowire.AppendBytes(field(6, protowire.BytesType), b) } // a seed of a request
	group := func(n int) []byte {
		open, end := field(9, protowire.StartGroupType), field(9, protowire.EndGroupType)
		return join(bytes.Repeat(open, n), bytes.Repeat(end, n))
	}
	return map[string][]byte{
		"empty":                   nil,
		"reversed":                join(words(1, 2), field(4, 0, 7), field(3, 0, 6), field(1, 0, 5)),
		"words twice":             join(words(1, 2, 3), words(4)),
		"words then seed":         join(words(1, 2, 3), seed(0x10, 1)),
		"seed then words":         join(seed(0x10, 1), words(1, 2, 3)),
		"seeds merge":             join(seed(0x10, 1), seed(0x0a, 1, 9)),
		"seed, words, seed":       join(seed(0x10, 1), words(1), seed(0x0a, 1, 9)),
		"empty words":             words(),
		"id twice":                join(field(1, 0, 5), field(1, 0, 6)),
		"model twice":             join(field(2, 2, 1, 5), field(2, 2, 0)),
		"long model":              join(protowire.AppendBytes(field(2, 2), make([]byte, 50)), field(1, 0, 5)),
		"long model cut":          field(2, 2, 40, 1, 2),
		"long key":                join(seed(protowire.AppendBytes(field(1, 2), make([]byte, 50))...), field(1, 0, 5)),
		"seed, unknown":           seed(0x18, 1, 0x10, 64, 0x22, 1, 1),
		"seed past its end":       join(seed(0x0a, 5, 1), field(1, 0, 5)),
		"layer of 40 bits":        field(3, 0, 0x81, 0x80, 0x80, 0x80, 0x80, 0x01),
		"long zero":               field(1, 0, 0x80, 0x80, 0x00),
		"unknown fields":          join(field(100, 0, 1), field(101, 1, 1, 2, 3, 4, 5, 6, 7, 8), field(102, 2, 1, 1), field(103, 5, 1, 2, 3, 4), field(1, 0, 5)),
		"groups":                  join(field(9, 3), field(1, 0, 5), field(10, 3), field(10, 4), field(9, 4), words(1)),
		"another wire type":       join(field(1, 2, 1, 5), field(5, 0, 3), field(2, 0, 3), field(6, 5, 1, 2, 3, 4)),
		"1000 groups deep":        group(1000),
		"20000 groups deep":       group(20000),
		"group left open":         field(9, 3),
		"group ends as another":   join(field(9, 3), field(8, 4)),
		"end of no group":         field(9, 4),
		"field 0":                 {0x00, 0x01},
		"largest field":           field(protowire.MaxValidNumber, 0, 1),
		"field too large":         field(protowire.MaxValidNumber+1, 0, 1),
		"tag of 64 bits":          {0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00},
		"wire type 6":             field(1, 6, 1),
		"wire type 7":             field(100, 7, 1),
		"cut tag":                 {0x80},
		"cut number":              field(1, 0, 0x80),
		"no number":               field(1, 0),
		"10 bytes, all ones":      field(1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"number of 65 bits":       field(1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02),
		"number of 11 bytes":      field(1, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00),
		"cut words":               field(5, 2, 3, 1, 2),
		"length of 64 bits":       field(5, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"length of 63 bits":       field(100, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"words, then cut":         join(words(1, 2, 3), field(1, 0)),
		"words, then words cut":   join(words(1, 2, 3), field(5, 2, 3, 1)),
		"words, then a bad seed":  join(words(1, 2, 3), seed(0x10)),
		"seed cut":                seed(0x0a, 2, 1),
		"fixed32 cut":             field(100, 5, 1, 2, 3),
		"fixed64 cut":             field(100, 1, 1, 2, 3),
		"words and cut fixed":     join(words(1), field(100, 1, 1)),
		"error of a response":     protowire.AppendBytes(field(3, 2), []byte{0x12, 1, 'x'}),
		"shared":                  join(shared(0x08, 64, 0x10, 8), answer(0x08, 0x80, 1, 0x10, 8)),
		"shared, empty":           join(shared(), answer()),
		"shared merges":           join(shared(0x08, 64), shared(0x10, 8), answer(0x10, 8), answer(0x08, 64, 0x10, 9)),
		"shared, words, shared":   join(shared(0x08, 64), words(1), shared(0x10, 8)),
		"shared, seed, shared":    join(shared(0x08, 64), seed(0x10, 1), shared(0x10, 8)),
		"words then shared":       join(words(1, 2, 3), shared(0x08, 64)),
		"seed then shared":        join(seed(0x10, 1), shared(0x08, 64)),
		"shared, unknown":         join(shared(0x18, 1, 0x08, 64, 0x1a, 1, 1), answer(0x1b, 0x08, 1, 0x1c)),
		"shared, another type":    join(shared(0x0a, 1, 1), answer(0x11, 1, 2, 3, 4, 5, 6, 7, 8)),
		"shared, largest":         shared(0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"shared cut":              shared(0x08),
		"shared past its end":     join(shared(0x08), field(1, 0, 5)),
		"shared, bad field":       shared(0x00, 0x01),
		"shared, group past end":  join(shared(0x1b), field(3, 4)),
		"words, then bad shared":  join(words(1, 2, 3), shared(0x08)),
		"answer past the message": field(10, 2, 5, 0x08, 1),
		"result":                  join(result(0x08, 64), result(0x10, 8)),
		"words of a result":       join(protowire.AppendBytes(field(2, 2), []byte{1}), result(0x08, 64)),
		"reason that is not text": protowire.AppendBytes(field(3, 2), []byte{0x12, 1, 0xff}),
	}
}

// compare checks that both codecs accept b or neither, and read the same.
func compare(t testing.TB, b []byte, cuts ...uint) {
	t.Helper()
	for _, response := range []bool{false, true} {
		var p pool
		in := p.split(b, cuts...)
		got, want := empty(response)
		wantErr := proto.Unmarshal(b, want)
		err := wire.Codec{}.Unmarshal(in, got)
		in.Free()
		if (err == nil) != (wantErr == nil) || err != nil && !errors.Is(err, wire.ErrMessage) {
			t.Fatalf("%T of %x: error %v, protobuf's %v", got, b, err, wantErr)
		}
		if err == nil {
			clearUnknown(want)
			if !proto.Equal(toProto(got), want) {
				t.Fatalf("%T of %x: read %v, protobuf %v", got, b, toProto(got), want)
			}
		}
		got.Free()
		if n := p.out.Load(); n != 0 {
			t.Fatalf("%T of %x: %d buffers are out", got, b, n)
		}
	}
}

func TestHostile(t *testing.T) {
	for name, b := range hostile() {
		t.Run(name, func(t *testing.T) {
			compare(t, b)
			compare(t, b, 1, 1, 1, 0, 2, 1)
			for n := range min(len(b), 64) {
				compare(t, b[:n])
			}
		})
	}
}

func TestTruncated(t *testing.T) {
	b, err := proto.Marshal(&pb.EvaluateRequest{Id: math.MaxUint64, Model: make([]byte, 32), Layer: 300, Rows: math.MaxUint32,
		Input: &pb.EvaluateRequest_Words{Words: []byte("some words")}})
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		compare(t, b[:n], uint(n/2))
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, b := range hostile() {
		f.Add(b, uint(0), uint(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut1, cut2 uint) { compare(t, b, cut1, cut2) })
}
