package hostclient_test

import (
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/tlstest"
	"github.com/securenets/securenets/internal/wire"
)

// TestTLS: by TLS, too, streams are direct, and gRPC's of a cloud that has no others; results are
// the same; and who is not the cloud gets nothing.
func TestTLS(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	c := r.clouds[0]
	x := gaussian(rand.New(rand.NewPCG(6, 5)), 7)
	want := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, 1)
	ca, err := tlstest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	own, err := ca.KeyPair(tlstest.Leaf{Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := tlstest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	c.secure = &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: wire.Protocols()}
	for _, old := range []bool{false, true} {
		c.stop()
		c.old, c.addr = old, "tls:127.0.0.1:0"
		if err := c.start(); err != nil {
			t.Fatal(err)
		}
		c.streams.Store(0)
		dial := func(by *tlstest.CA) *hostclient.Client {
			config := &tls.Config{RootCAs: by.Pool()}
			client, err := hostclient.DialTLS(c.addr, r.clients[0].Provider(), config)
			if err != nil {
				t.Fatal(err)
			}
			config.RootCAs = nil // which is its own affair by then
			t.Cleanup(func() { client.Close() })
			return client
		}
		honest := r.clients[0]
		r.clients[0] = dial(ca)
		s := r.open(t, hostclient.Options{Multiplier: kernel})
		for range 3 {
			if y := infer(t, s, x, 1); !slices.Equal(bits(y), bits(want)) {
				t.Errorf("old %v: other results", old)
			}
		}
		if streams := c.streams.Load(); streams != map[bool]int64{false: 1, true: 0}[old] {
			t.Errorf("old %v: %d direct streams", old, streams)
		}
		asked := c.requests.Load()
		r.clients[0] = dial(stranger)
		if _, err := r.open(t, hostclient.Options{Multiplier: kernel}).Infer(t.Context(), x, 1); !errors.Is(err, hostclient.ErrUnavailable) {
			t.Errorf("old %v: a cloud that another CA vouches for: %v", old, err)
		}
		if c.requests.Load() != asked {
			t.Errorf("old %v: it was asked", old)
		}
		r.clients[0] = honest
	}
}

// TestSilentCloud: a cloud that accepts connections and says nothing is found out in the time
// of one attempt.
func TestSilentCloud(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := hostclient.DialTLS("tls:"+l.Addr().String(), r.clients[0].Provider(), new(tls.Config))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	r.clients[0] = client
	s := r.open(t, hostclient.Options{Multiplier: kernel})
	begun := time.Now()
	if _, err := s.Infer(t.Context(), make([]float32, 7), 1); !errors.Is(err, hostclient.ErrUnavailable) {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
	accepted := 0
	l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Millisecond))
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		c.Close()
		accepted++
	}
	if accepted != 1 {
		t.Errorf("%d attempts", accepted)
	}
}
