package wire_test

import (
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"unsafe"

	"google.golang.org/grpc/mem"

	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/ring"
)

func randomWords(r ring.Ring, n int) []uint32 {
	rnd := rand.New(rand.NewPCG(uint64(n), uint64(r.Modulus())))
	v := make([]uint32, n)
	for i := range v {
		v[i] = rnd.Uint32N(r.Modulus())
	}
	return v
}

func mustRing(t *testing.T, primes ...uint32) ring.Ring {
	t.Helper()
	r, err := ring.New(primes...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWords(t *testing.T) {
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3(), mustRing(t, 3, 5), mustRing(t, 251, 241)} {
		for _, n := range []int{0, 1, 2, 3, 255, 256, 257, 341, 1000, 5000} {
			v := randomWords(r, n)
			released := 0
			b := wire.EncodeWords(r, v, func() { released++ })
			want := make([]byte, n*r.WordBytes())
			r.PutWords(want, v)
			if b == nil || string(b.Materialize()) != string(want) {
				t.Fatalf("%v, %d words: wrong bytes", r, n)
			}
			if n > 0 {
				copied := len(want)
				if data := b[0].ReadOnlyData(); len(data) > 0 && unsafe.Pointer(&data[0]) == unsafe.Pointer(&v[0]) {
					copied = 0
				}
				if got := wire.Copies(r, n); got != copied {
					t.Fatalf("%v, %d words: told of %d bytes copied, %d were", r, n, got, copied)
				}
			}
			b.Ref()
			b.Free()
			b.Free()
			if released != 1 {
				t.Fatalf("%v, %d words: released %d times", r, n, released)
			}
			// Any cut, also within a word.
			var p pool
			for cut := range uint(7) {
				in := p.split(want, cut, 1, 5*cut, 1024)
				got := make([]uint32, n)
				if err := wire.DecodeWords(r, got, in); err != nil || !reflect.DeepEqual(got, v) {
					t.Fatalf("%v, %d words: %v", r, n, err)
				}
				in.Free()
			}
			if p.out.Load() != 0 {
				t.Fatalf("%v, %d words: buffers are out", r, n)
			}
		}
	}
	if b := wire.EncodeWords(ring.Q4(), randomWords(ring.Q4(), 3), nil); b.Len() != 12 {
		t.Errorf("without a release: %d bytes", b.Len())
	}
}

func TestEncodeDoesNotCopy(t *testing.T) {
	v := randomWords(ring.Q4(), 1000)
	released := false
	b := wire.EncodeWords(ring.Q4(), v, func() { released = true })
	if unsafe.Pointer(&b[0].ReadOnlyData()[0]) != unsafe.Pointer(&v[0]) {
		t.Error("words were copied")
	}
	if released {
		t.Error("released while in use")
	}
	b.Free()
}

func TestDecodeWordsRefuses(t *testing.T) {
	var e *wire.Error
	for _, r := range []ring.Ring{ring.Q4(), ring.Q3()} {
		for _, n := range []int{0, r.WordBytes()*4 - 1, r.WordBytes()*4 + 1, r.WordBytes() * 5} {
			err := wire.DecodeWords(r, make([]uint32, 4), mem.BufferSlice{mem.SliceBuffer(make([]byte, n))})
			if !errors.As(err, &e) || e.Reason != wire.ReasonBadLength {
				t.Errorf("%v, %d bytes: %v", r, n, err)
			}
		}
		for _, at := range []int{0, 7, 338, 339, 340, 341, 999} {
			b := make([]byte, 1000*r.WordBytes())
			for i := range r.WordBytes() {
				b[at*r.WordBytes()+i] = 0xff
			}
			err := wire.DecodeWords(r, make([]uint32, 1000), mem.BufferSlice{mem.SliceBuffer(b)})
			want := (&ring.NonCanonicalError{Index: at}).Error()
			if !errors.As(err, &e) || e.Reason != wire.ReasonNonCanonical || "ring: "+e.Message != want {
				t.Errorf("%v, word %d: %v", r, at, err)
			}
		}
	}
}

func TestHostPort(t *testing.T) {
	for addr, want := range map[string][2]string{
		"tls:host.example:7443": {"host.example", "7443"},
		"tls:10.0.0.1:1":        {"10.0.0.1", "1"},
		"tls:[fe80::1]:65535":   {"fe80::1", "65535"},
		"tls::7443":             {"", "7443"},
		"tls:[::]:0":            {"::", "0"},
	} {
		host, port, err := wire.HostPort(addr)
		if err != nil || host != want[0] || port != want[1] {
			t.Errorf("%s: %q %q, %v", addr, host, port, err)
		}
	}
	for _, addr := range []string{
		"", "tls:", "tls:host", "tls:host:", "tls:host:x", "tls:host:65536", "tls:host:-1", "tls:host:+1", "tls:host:01", "tls:::1:1", "tls:a b:1", "tls:a/b:1",
		"tls:a%20:1", "tls:[fe80::1%eth0]:1", "tls:h\x00:1", "tcp:host:1", "host:1", "https://host:1", "TLS:host:1",
	} {
		if _, _, err := wire.HostPort(addr); !errors.Is(err, wire.ErrAddress) {
			t.Errorf("%q: %v", addr, err)
		}
		if _, err := wire.DialTLS(addr, nil); !errors.Is(err, wire.ErrAddress) {
			t.Errorf("dial %q: %v", addr, err)
		}
	}
	for _, addr := range []string{"tls::7443", "tls:host:0"} { // only for servers
		if _, err := wire.DialTLS(addr, new(tls.Config)); !errors.Is(err, wire.ErrAddress) {
			t.Errorf("dial %q: %v", addr, err)
		}
	}
}

func TestSocketPath(t *testing.T) {
	for addr, want := range map[string]string{
		"unix:/run/securenets.sock": "/run/securenets.sock",
		"unix:here.sock":            "here.sock",
		"unix:/a b%20?#c":           "/a b%20?#c",
	} {
		if got, err := wire.SocketPath(addr); err != nil || got != want {
			t.Errorf("%s: %q, %v", addr, got, err)
		}
	}
	long := make([]byte, 108)
	for i := range long {
		long[i] = 'x'
	}
	for _, addr := range []string{"", "/run/s.sock", "tcp:1.2.3.4:5", "dns:///x", "unix:", "unix:@abstract", "unix:\x00", "unix:" + string(long)} {
		if _, err := wire.SocketPath(addr); !errors.Is(err, wire.ErrAddress) {
			t.Errorf("%q: %v", addr, err)
		}
		if _, err := wire.Dial(addr); !errors.Is(err, wire.ErrAddress) {
			t.Errorf("dial %q: %v", addr, err)
		}
	}
}
