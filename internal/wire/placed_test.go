package wire

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	pb "github.com/securenets/securenets/api/securenets/v1"
)

// checkWordsLast checks that wordsLast accepts no response, from its first bytes, that the codec
// reads otherwise. It reports whether it accepts this one.
func checkWordsLast(t *testing.T, b []byte, head int) bool {
	t.Helper()
	got, at, ok := wordsLast(b[:min(head, len(b))], len(b))
	if !ok {
		return false
	}
	var want Response
	if err := (Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, &want); err != nil {
		t.Fatalf("%x: accepted, and the codec says %v", b, err)
	}
	if got.ID != want.ID || got.QueueNS != want.QueueNS || got.ComputeNS != want.ComputeNS || want.Err != nil || want.Shared != nil || !bytes.Equal(b[at:], want.Words.Materialize()) {
		t.Fatalf("%x: another message, words at %d", b, at)
	}
	return true
}

func TestWordsLast(t *testing.T) {
	for _, r := range []Response{{}, {ID: 1}, {ID: 1<<64 - 1, QueueNS: 1<<64 - 1, ComputeNS: 1<<64 - 1}, {ComputeNS: 7}} {
		for _, n := range []int{1, 4, 200, 5000} {
			r.Words = mem.BufferSlice{mem.SliceBuffer(bytes.Repeat([]byte{8, 1}, n)[:n])}
			b, err := Codec{}.Marshal(&r)
			if err != nil {
				t.Fatal(err)
			}
			if !checkWordsLast(t, b.Materialize(), headBytes) {
				t.Errorf("refused: id %d and %d bytes of words", r.ID, n)
			}
		}
	}
	words := []byte{0x12, 2, 1, 2}
	for name, b := range map[string][]byte{
		"nothing":            {},
		"no words":           {8, 1},
		"words, then others": append(bytes.Clone(words), 8, 1),
		"words twice":        append(bytes.Clone(words), words...),
		"an error before":    append([]byte{0x1a, 0}, words...),
		"memory before":      append([]byte{0x32, 0}, words...),
		"an unknown field":   append([]byte{0x38, 1}, words...),
		"an id of 4 bytes":   append([]byte{0x0d, 1, 2, 3, 4}, words...),
		"cut":                words[:3],
		"a number too large": append(protowire.AppendVarint([]byte{8}, 1<<63), 0x12, 0x80),
	} {
		if checkWordsLast(t, b, headBytes) {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzWordsLast(f *testing.F) {
	for _, r := range []Response{{ID: 3, QueueNS: 5, Words: mem.BufferSlice{mem.SliceBuffer("words")}}, {ID: 3, Err: &pb.Error{Code: 3}}, {Shared: &Span{1, 2}}} {
		b, err := Codec{}.Marshal(&r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b.Materialize(), uint8(headBytes))
	}
	f.Fuzz(func(t *testing.T, b []byte, head uint8) { checkWordsLast(t, b, int(head)) })
}
