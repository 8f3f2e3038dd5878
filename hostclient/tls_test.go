package hostclient_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/securenets/securenets/hostclient"
	"github.com/securenets/securenets/internal/tlstest"
	"github.com/securenets/securenets/internal/wire"
)

// localCA returns a CA and a certificate of its for a cloud on this machine.
func localCA(t *testing.T) (*tlstest.CA, tls.Certificate) {
	t.Helper()
	ca, err := tlstest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	own, err := ca.KeyPair(tlstest.Leaf{Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	return ca, own
}

// TestTLS: by TLS, too, streams are direct, and gRPC's of a cloud that has no others; results are
// the same; and who is not the cloud gets nothing.
func TestTLS(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	c := r.clouds[0]
	x := gaussian(rand.New(rand.NewPCG(6, 5)), 7)
	want := infer(t, r.open(t, hostclient.Options{Multiplier: kernel}), x, 1)
	ca, own := localCA(t)
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

// TestDistrustedCloud: one handshake shows that another CA vouches for a cloud, however many
// tries a call has; a spare is asked, once, in its place.
func TestDistrustedCloud(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	honest := r.clients[0]
	_, own := localCA(t)
	c := r.clouds[0]
	c.stop()
	c.addr, c.secure = "tls:127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: wire.Protocols()}
	var handshakes atomic.Int64
	c.secure.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		handshakes.Add(1)
		return nil, nil
	}
	var err error
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	if r.clients[0], err = hostclient.DialTLS(c.addr, honest.Provider(), &tls.Config{RootCAs: x509.NewCertPool()}); err != nil {
		t.Fatal(err)
	}
	defer r.clients[0].Close()
	x := make([]float32, 7)
	_, err = r.open(t, hostclient.Options{Multiplier: kernel, Retries: 3}).Infer(t.Context(), x, 1)
	if !errors.Is(err, hostclient.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Error(err)
	}
	if n := handshakes.Swap(0); n != 1 {
		t.Errorf("%d handshakes", n)
	}
	_, spare := r.withSpare(t, 0)
	infer(t, r.open(t, hostclient.Options{Multiplier: kernel, Retries: 1, Spares: [][]*hostclient.Client{{spare}}}), x, 1)
	if n := handshakes.Load(); n != 1 {
		t.Errorf("%d handshakes, with a spare", n)
	}
}

// TestAlert: a cloud that does not accept the host's certificate is found out as such, by
// streams of either kind and by short calls, in one handshake each.
func TestAlert(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	c := r.clouds[0]
	ca, own := localCA(t)
	stranger, err := tlstest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	issued := func(by *tlstest.CA, l tlstest.Leaf) []tls.Certificate {
		cert, err := by.KeyPair(l)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{cert}
	}
	var handshakes atomic.Int64
	for name, test := range map[string]struct {
		own  []tls.Certificate
		want tls.AlertError
	}{
		"of another CA": {issued(stranger, tlstest.Leaf{CommonName: "host"}), 48},
		"expired":       {issued(ca, tlstest.Leaf{CommonName: "host", Expires: -time.Minute}), 45},
		"a server's":    {issued(ca, tlstest.Leaf{Server: true}), 42},
		"none":          {nil, 116},
	} {
		for _, old := range []bool{false, true} {
			c.stop()
			c.secure = &tls.Config{
				Certificates: []tls.Certificate{own}, NextProtos: wire.Protocols(), ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
				GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { handshakes.Add(1); return nil, nil },
			}
			c.old, c.addr = old, "tls:127.0.0.1:0"
			if err := c.start(); err != nil {
				t.Fatal(err)
			}
			dial := func() *hostclient.Client {
				client, err := hostclient.DialTLS(c.addr, r.clients[0].Provider(), &tls.Config{RootCAs: ca.Pool(), Certificates: test.own})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { client.Close() })
				return client
			}
			check := func(err error) {
				t.Helper()
				var alert *hostclient.AlertError
				if !errors.As(err, &alert) || alert.Alert != test.want || !errors.Is(err, hostclient.ErrUnavailable) ||
					!strings.Contains(err.Error(), "the cloud does not accept this host's certificate: tls: ") {
					t.Errorf("%s, old %v: %v", name, old, err)
				}
			}
			for range 5 {
				client := dial()
				_, err := client.Info(t.Context())
				check(err)
				client.Close()
			}
			handshakes.Store(0)
			honest := r.clients[0]
			r.clients[0] = dial()
			_, err := r.open(t, hostclient.Options{Multiplier: kernel, Retries: 3}).Infer(t.Context(), make([]float32, 7), 1)
			check(err)
			r.clients[0].Close()
			r.clients[0] = honest
			if n := handshakes.Load(); n != map[bool]int64{false: 1, true: 2}[old] { // one finds no direct streams
				t.Errorf("%s, old %v: %d handshakes", name, old, n)
			}
		}
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
	if _, err := s.Infer(t.Context(), make([]float32, 7), 1); !errors.Is(err, hostclient.ErrTimeout) {
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

// TestSilentClouds: a cloud that says nothing, however far it has come, holds up neither who
// gives up nor who closes the client.
func TestSilentClouds(t *testing.T) {
	r := newRig(t, nets()["mlp"], permutePad)
	honest := r.clients[0]
	ca, own := localCA(t)
	secure := &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: wire.Protocols()}
	for name, c := range map[string]struct {
		network string
		greet   func(net.Conn) error // all that the cloud says
	}{
		"TCP":      {"tcp", nil},
		"TLS":      {"tcp", func(c net.Conn) error { return tls.Server(c, secure).Handshake() }},
		"a socket": {"unix", nil},
		"a direct stream": {"unix", func(c net.Conn) error {
			_, err := c.Write([]byte("snlane3\n\x01\x00\x00\x00\x00\x00\x00\x00"))
			return err
		}},
	} {
		for end, want := range map[string]error{"closes": hostclient.ErrUnavailable, "gives up": context.Canceled, "waits": hostclient.ErrTimeout} {
			addr := "127.0.0.1:0"
			if c.network == "unix" {
				addr = filepath.Join(t.TempDir(), "s")
			}
			l, err := net.Listen(c.network, addr)
			if err != nil {
				t.Fatal(err)
			}
			silent := make(chan net.Conn, 1)
			go func() {
				conn, err := l.Accept()
				if err == nil && c.greet != nil {
					err = c.greet(conn)
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				silent <- conn
			}()
			var client *hostclient.Client
			if c.network == "unix" {
				client, err = hostclient.DialProvider("unix:"+addr, honest.Provider())
			} else {
				client, err = hostclient.DialTLS("tls:"+l.Addr().String(), honest.Provider(), &tls.Config{RootCAs: ca.Pool()})
			}
			if err != nil {
				t.Fatal(err)
			}
			r.clients[0] = client
			o := hostclient.Options{Multiplier: kernel, Timeout: time.Minute}
			if end == "waits" {
				o.Timeout = 100 * time.Millisecond
			}
			s := r.open(t, o)
			ctx, cancel := context.WithCancel(t.Context())
			got := make(chan error, 1)
			begun := time.Now()
			go func() {
				_, err := s.Infer(ctx, make([]float32, 7), 1)
				got <- err
			}()
			conn := <-silent
			switch end {
			case "closes":
				client.Close()
			case "gives up":
				cancel()
			}
			if err := <-got; !errors.Is(err, want) {
				t.Errorf("%s, %s: %v, want %v", name, end, err, want)
			}
			client.Close()
			if took := time.Since(begun); took > 4*time.Second { // an attempt to connect takes five
				t.Errorf("%s, %s: %v", name, end, took)
			}
			cancel()
			l.Close()
			conn.Close()
		}
	}
}

// TestLoadTLS: each connection presents the certificate that the files have by then, and while
// they have none, the one before.
func TestLoadTLS(t *testing.T) {
	ca, own := localCA(t)
	dir := t.TempDir()
	write := func(name string) (certificate, key string) {
		t.Helper()
		certificate, key, err := ca.Write(dir, "host", tlstest.Leaf{CommonName: name})
		if err != nil {
			t.Fatal(err)
		}
		return certificate, key
	}
	authority, err := ca.WriteCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key := write("first")
	config, err := hostclient.LoadTLS(certificate, key, authority)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	presented := func() string {
		t.Helper()
		go func() {
			if c, err := tls.Dial("tcp", l.Addr().String(), config); err == nil {
				defer c.Close()
				_, _ = c.Read(make([]byte, 1)) // until the other end closes
			}
		}()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.(*tls.Conn).HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		return c.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	check := func(want string) {
		t.Helper()
		if got := presented(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	check("first")
	write("second")
	check("second")
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	check("second")
	write("third")
	check("third")
	for _, files := range [][3]string{{key, key, authority}, {certificate, dir, authority}, {certificate, key, key}, {certificate, key, dir}} {
		if _, err := hostclient.LoadTLS(files[0], files[1], files[2]); err == nil {
			t.Errorf("%v: no error", files)
		}
	}
}
