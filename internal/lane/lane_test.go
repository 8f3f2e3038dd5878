package lane_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/securenets/securenets/internal/lane"
)

// with returns b with other bytes at an index.
func with(b []byte, at int, other ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[at:], other)
	return b
}

// withSize returns a preface with any size, valid or not.
func withSize(size uint64) []byte {
	return with(lane.Preface(lane.Grain), 8, binary.LittleEndian.AppendUint64(nil, size)...)
}

// badPrefaces have the right length but are not prefaces.
func badPrefaces() map[string][]byte {
	good := lane.Preface(lane.Grain)
	return map[string][]byte{
		"no magic":         with(good, 1, 'N'),
		"no version":       with(good, 6, 'x'),
		"no line feed":     with(good, 7, '\r'),
		"size of no page":  withSize(lane.Grain + 1),
		"half a grain":     withSize(lane.Grain / 2),
		"absurd size":      withSize(lane.MaxSize + lane.Grain),
		"negative size":    withSize(math.MaxUint64 - lane.Grain + 1),
		"more at the end":  with(good, 23, 1),
		"more after size":  with(good, 16, 1),
		"a line of HTTP/1": []byte("some GET / HTTP/1.1\r\n\r\nx"),
	}
}

func TestPreface(t *testing.T) {
	for _, size := range []int64{0, lane.Grain, 3 * lane.Grain, lane.MaxSize} {
		b := lane.Preface(size)
		if got, known, err := lane.ParsePreface(b); got != size || !known || err != nil || len(b) != len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
			t.Errorf("%d bytes: %x is %d, %v, %v", size, b, got, known, err)
		}
		for _, cut := range [][]byte{nil, b[:1], b[:23], append(bytes.Clone(b), 0)} {
			if _, _, err := lane.ParsePreface(cut); !errors.Is(err, lane.ErrPreface) {
				t.Errorf("%x: %v", cut, err)
			}
		}
	}
	for name, b := range badPrefaces() {
		if _, _, err := lane.ParsePreface(b); !errors.Is(err, lane.ErrPreface) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, known, err := lane.ParsePreface(with(lane.Preface(lane.Grain), 6, '1')); known || err != nil {
		t.Errorf("version 1: %v, %v", known, err)
	}
	for _, v := range lane.Verdicts() {
		if got, err := lane.ParseReply(lane.Reply(v)); got != v || err != nil {
			t.Errorf("%v: %v, %v", v, got, err)
		}
	}
	for _, b := range [][]byte{nil, lane.Reply(0)[:15], with(lane.Reply(0), 6, '1'), []byte("\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00")} {
		if _, err := lane.ParseReply(b); !errors.Is(err, lane.ErrPreface) {
			t.Errorf("%x: %v", b, err)
		}
	}
	if v := lane.Verdict(77).String(); v != "verdict 77" {
		t.Error(v)
	}
}

// FuzzPreface: only bytes that preface or reply writes are accepted.
func FuzzPreface(f *testing.F) {
	f.Add(lane.Preface(lane.Grain))
	f.Add(with(lane.Preface(lane.MaxSize), 6, '1'))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	f.Add(lane.Reply(lane.NoRoom))
	for _, b := range badPrefaces() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		size, known, err := lane.ParsePreface(b)
		switch {
		case err != nil && !errors.Is(err, lane.ErrPreface):
			t.Errorf("an error of no kind: %v", err)
		case err == nil && known && !bytes.Equal(b, lane.Preface(size)):
			t.Errorf("%x is taken for %d bytes", b, size)
		case (err != nil || !known) && size != 0:
			t.Errorf("%d bytes without a preface", size)
		}
		if v, err := lane.ParseReply(b); err == nil && !bytes.Equal(b, lane.Reply(v)) {
			t.Errorf("%x is taken for %v", b, v)
		}
	})
}
