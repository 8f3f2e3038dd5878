package daemon_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/internal/sealed"
	"github.com/securenets/securenets/internal/tlstest"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/kernels"
	"github.com/securenets/securenets/plan"
	"github.com/securenets/securenets/ring"
)

// certified is a daemon that serves TLS too, and whose own caller uses the unix socket.
type certified struct {
	*running
	ca   *tlstest.CA
	addr string // of the TLS listener
}

// withTLS makes a daemon serve TLS, with certificates of a CA.
func withTLS(t testing.TB) (*tlstest.CA, func(*config.Config)) {
	t.Helper()
	ca, err := tlstest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	caFile, err := ca.WriteCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Write(dir, "daemon", tlstest.Leaf{Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	return ca, func(c *config.Config) {
		c.TLS = config.TLS{Listen: "tls:127.0.0.1:0", Certificate: cert, Key: key, ClientCA: caFile}
	}
}

func startTLS(t *testing.T, backend kernels.Backend, change func(*config.Config)) *certified {
	t.Helper()
	ca, serve := withTLS(t)
	d := start(t, backend, func(c *config.Config) {
		serve(c)
		if change != nil {
			change(c)
		}
	})
	return &certified{d, ca, d.tlsAddr()}
}

// as returns a connection with a certificate of the daemon's CA.
func (d *certified) as(l tlstest.Leaf) *grpc.ClientConn {
	d.t.Helper()
	return d.with(callerOf(d.t, d.ca, l))
}

// callerOf returns the TLS configuration of a caller with a certificate of a CA.
func callerOf(t testing.TB, ca *tlstest.CA, l tlstest.Leaf) *tls.Config {
	t.Helper()
	cert, err := ca.KeyPair(l)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: ca.Pool()}
}

func (d *certified) with(c *tls.Config) *grpc.ClientConn {
	d.t.Helper()
	cc, err := wire.DialTLS(d.addr, c)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { cc.Close() })
	return cc
}

// by is the daemon as another caller sees it.
func (d *certified) by(cc *grpc.ClientConn) *running {
	return &running{t: d.t, cfg: d.cfg, backend: d.backend, log: d.log, logged: d.logged, cc: cc}
}

// TestTLS: a caller with a certificate is served as on the unix socket.
func TestTLS(t *testing.T) {
	d := startTLS(t, nil, nil)
	m := smallModel(t)
	alice := d.by(d.as(tlstest.Leaf{CommonName: "alice"}))
	alice.push(m)
	alice.works(m)
	// Another connection with another certificate of the same name is the same caller.
	d.by(d.as(tlstest.Leaf{CommonName: "alice"})).works(m)
}

// TestTLSRefused: calls need TLS 1.3 and a certificate that the daemon's CA has signed and
// that names exactly one allowed caller.
func TestTLSRefused(t *testing.T) {
	d := startTLS(t, nil, func(c *config.Config) {
		withMetrics(c)
		c.TLS.AllowedNames = []string{"cn:alice", "dns:host.example", "uri:spiffe://example/host"}
	})
	stranger, err := tlstest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	pair := func(ca *tlstest.CA, l tlstest.Leaf) []tls.Certificate {
		c, err := ca.KeyPair(l)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{c}
	}
	alice := pair(d.ca, tlstest.Leaf{CommonName: "alice"})
	n := 0.0
	for name, certs := range map[string][]tls.Certificate{
		"none":                  nil,
		"another CA's":          pair(stranger, tlstest.Leaf{CommonName: "alice"}),
		"expired":               pair(d.ca, tlstest.Leaf{CommonName: "alice", Expires: -time.Hour}),
		"a server's":            pair(d.ca, tlstest.Leaf{CommonName: "alice", Server: true}),
		"not allowed":           pair(d.ca, tlstest.Leaf{CommonName: "bob"}),
		"of another kind":       pair(d.ca, tlstest.Leaf{CommonName: "host.example"}),
		"two names":             pair(d.ca, tlstest.Leaf{DNS: []string{"host.example", "other.example"}, CommonName: "alice"}),
		"a common name besides": pair(d.ca, tlstest.Leaf{DNS: []string{"other.example"}, CommonName: "alice"}),
		"no name":               pair(d.ca, tlstest.Leaf{}),
	} {
		by := &tls.Config{Certificates: certs, RootCAs: d.ca.Pool()}
		if _, err := pb.NewSecureNetsClient(d.with(by)).List(d.ctx(), &pb.ListRequest{}); err == nil {
			t.Errorf("%s: served", name)
		}
		// A caller's handshake succeeds before the daemon has checked its certificate.
		if direct, err := wire.DialDirectTLS(d.ctx(), d.addr, by); err == nil {
			_ = direct.SendMsg(new(wire.Request))
			if err := direct.RecvMsg(new(wire.Response)); status.Code(err) != codes.Unavailable {
				t.Errorf("%s: a direct stream: %v", name, err)
			}
			direct.Close()
		}
		n += 2
	}
	refused := func() float64 { return d.scrape().value("securenets_refusals_total", "reason", "STRANGER") }
	for ctx := d.ctx(); refused() < n; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("%v connections refused, of %v and more", refused(), n)
		}
	}
	if calls := d.scrape().value("securenets_calls_total", "method", "Evaluate"); calls > 0 {
		t.Errorf("%v calls of strangers", calls)
	}
	// Not TLS 1.3; an unknown ALPN protocol; not TLS.
	for _, c := range []*tls.Config{
		{MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}},
		{MaxVersion: tls.VersionTLS12, NextProtos: []string{wire.DirectProtocol}},
		{NextProtos: []string{"securenets-direct/2"}},
		{NextProtos: []string{"http/1.1"}},
		{},
	} {
		c.Certificates, c.RootCAs = alice, d.ca.Pool()
		raw, err := tls.Dial("tcp", strings.TrimPrefix(d.addr, "tls:"), c)
		if err != nil {
			continue
		}
		if b, err := io.ReadAll(raw); len(b) > 0 || err != nil {
			t.Errorf("%v of version %x: it reads %x, %v", c.NextProtos, c.MaxVersion, b, err)
		}
		raw.Close()
	}
	plain, err := net.Dial("tcp", strings.TrimPrefix(d.addr, "tls:"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := io.WriteString(plain, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(plain); err == nil && len(b) > 7 { // at most an alert
		t.Errorf("plain HTTP/2 is answered with %x", b)
	}
	// The host refuses a daemon whose certificate another CA has signed.
	cc := d.with(&tls.Config{Certificates: alice, RootCAs: stranger.Pool()})
	if _, err := pb.NewSecureNetsClient(cc).List(d.ctx(), &pb.ListRequest{}); err == nil {
		t.Error("another's daemon is trusted")
	}
	for _, l := range []tlstest.Leaf{
		{CommonName: "alice"}, {DNS: []string{"host.example"}, CommonName: "x"}, {URIs: []string{"spiffe://example/host"}, DNS: []string{"a", "b"}},
	} {
		if _, err := pb.NewSecureNetsClient(d.as(l)).List(d.ctx(), &pb.ListRequest{}); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

func TestCallerName(t *testing.T) {
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, c := range []struct {
		cert x509.Certificate
		want string
	}{
		{x509.Certificate{Subject: pkix.Name{CommonName: "a"}}, "cn:a"},
		{x509.Certificate{Subject: pkix.Name{CommonName: "dns:a"}}, "cn:dns:a"},
		{x509.Certificate{Subject: pkix.Name{CommonName: "a"}, DNSNames: []string{"b"}}, "dns:b"},
		{x509.Certificate{DNSNames: []string{"b", "c"}, URIs: []*url.URL{uri("spiffe://x/y")}}, "uri:spiffe://x/y"},
		{x509.Certificate{DNSNames: []string{"b", "c"}, Subject: pkix.Name{CommonName: "a"}}, ""},
		{x509.Certificate{URIs: []*url.URL{uri("spiffe://x/y"), uri("spiffe://x/z")}}, ""},
		{x509.Certificate{EmailAddresses: []string{"a@b"}, Subject: pkix.Name{Organization: []string{"a"}}}, ""},
	} {
		got, err := daemon.CallerName(&c.cert)
		if got != c.want || errors.Is(err, daemon.ErrNoName) != (c.want == "") {
			t.Errorf("%q, %v, want %q", got, err, c.want)
		}
	}
}

// TestCallersSeeTheirOwn: in every call, another caller's models seem not to exist, and
// nothing that one caller does changes the other's.
func TestCallersSeeTheirOwn(t *testing.T) {
	d := startTLS(t, nil, nil)
	m := smallModel(t)
	unfinished := newModel(t, ring.Q4(), plan.Dense(5, 6))
	as := func(name string) *running {
		secure := callerOf(t, d.ca, tlstest.Leaf{CommonName: name})
		r := d.by(d.with(secure))
		r.secure = secure
		return r
	}
	alice := as("alice")
	alice.push(m)
	if _, err := send(d.ctx(), alice.cc, unfinished.digest, len(unfinished.bytes), 0, unfinished.bytes[:50]); err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]*running{"bob": as("bob"), "a user": d.running} {
		// The answers are the same as for a model that no caller has.
		nobodys := newModel(t, ring.Q4(), plan.Dense(7, 8))
		list, err := other.client().List(d.ctx(), &pb.ListRequest{})
		if err != nil || len(list.Models) != 0 {
			t.Errorf("%s: list %v, %v", name, list, err)
		}
		streams := []*evaluation{evaluate(t, d.ctx(), other.cc)}
		if other.secure != nil {
			direct, _ := other.direct(d.ctx())
			streams = append(streams, direct)
		}
		var told []string
		for _, digest := range [][]byte{m.digest[:], unfinished.digest[:], nobodys.digest[:]} {
			text := ""
			for _, e := range streams {
				r := m.request(1, 1, 1)
				r.Model = digest
				e.send(r)
				resp, err := e.receive()
				if err != nil {
					t.Fatal(err)
				}
				text += strings.ReplaceAll(fmt.Sprint(wire.FromProto(resp.Err)), fmt.Sprintf("%x", digest), "X")
			}
			_, err = other.client().Remove(d.ctx(), &pb.RemoveRequest{Digest: digest})
			text += strings.ReplaceAll(fmt.Sprint(wire.FromStatus(err)), fmt.Sprintf("%x", digest), "X")
			told = append(told, text)
		}
		if told[0] != told[2] || told[1] != told[2] || !strings.Contains(told[0], string(wire.ReasonModelNotFound)) {
			t.Errorf("%s is told %q", name, told)
		}
		for _, of := range []*testModel{m, unfinished, nobodys} {
			resp, err := send(d.ctx(), other.cc, of.digest, len(of.bytes), 0)
			if err != nil || resp.Received != 0 || resp.Complete {
				t.Errorf("%s asks for %d bytes: %v, %v", name, len(of.bytes), resp, err)
			}
		}
		other.push(m)
		other.works(m)
		if _, err := other.client().Remove(d.ctx(), &pb.RemoveRequest{Digest: m.digest[:]}); err != nil {
			t.Error(err)
		}
		alice.works(m)
		direct, _ := alice.direct(d.ctx())
		direct.works(m)
	}
	resp, err := send(d.ctx(), alice.cc, unfinished.digest, len(unfinished.bytes), 50, unfinished.bytes[50:])
	if err != nil || !resp.Complete {
		t.Errorf("%v, %v", resp, err)
	}
}

// TestLimitOfModels and those that follow: one caller reaches a limit, and another does not.
func TestLimitOfModels(t *testing.T) {
	d := startTLS(t, nil, func(c *config.Config) { c.Limits.MaxModelsPerCaller = 1 })
	a, b := newModel(t, ring.Q4(), plan.Dense(3, 4)), newModel(t, ring.Q4(), plan.Dense(4, 5))
	alice, bob := d.by(d.as(tlstest.Leaf{CommonName: "alice"})), d.by(d.as(tlstest.Leaf{CommonName: "bob"}))
	alice.push(a)
	_, err := send(d.ctx(), alice.cc, b.digest, len(b.bytes), 0, b.bytes)
	wantReason(t, err, codes.ResourceExhausted, wire.ReasonTooLarge)
	bob.push(b)
	bob.works(b)
	alice.works(a)
}

func TestLimitOfBytes(t *testing.T) {
	a, b := newModel(t, ring.Q4(), plan.Dense(3, 4)), newModel(t, ring.Q4(), plan.Dense(4, 5))
	d := startTLS(t, nil, func(c *config.Config) { c.Limits.MaxModelBytesPerCaller = int64(len(a.bytes) + len(b.bytes) - 1) })
	alice, bob := d.by(d.as(tlstest.Leaf{CommonName: "alice"})), d.by(d.as(tlstest.Leaf{CommonName: "bob"}))
	alice.push(a)
	_, err := send(d.ctx(), alice.cc, b.digest, len(b.bytes), 0, b.bytes)
	wantReason(t, err, codes.ResourceExhausted, wire.ReasonTooLarge)
	bob.push(b)
	bob.works(b)
	alice.works(a)
}

func TestLimitOfUploadRate(t *testing.T) {
	const rate = 1 << 14
	d := startTLS(t, nil, func(c *config.Config) {
		withMetrics(c)
		c.Limits.MaxUploadBytesPerSecond = rate
		c.Limits.StallTimeoutSeconds = 1 // a paced upload must not count as stalled
	})
	// All messages are small, so that each arrives whole even on a slow machine.
	m := newModel(t, ring.Q4(), plan.Dense(64, 96)) // 24 KiB
	alice, bob := d.by(d.as(tlstest.Leaf{CommonName: "alice"})), d.by(d.as(tlstest.Leaf{CommonName: "bob"}))
	half := len(m.bytes) / 2
	begun := time.Now()
	if _, err := send(d.ctx(), alice.cc, m.digest, len(m.bytes), 0, m.bytes[:1<<14], m.bytes[1<<14:half+half/2], m.bytes[half+half/2:]); err != nil {
		t.Fatal(err)
	}
	// The last message begins once the ones before it are paid for.
	least := time.Duration(float64(half+half/2) / rate * float64(time.Second))
	if took := time.Since(begun); took < least {
		t.Errorf("alice took %v, want %v and more", took, least)
	}
	alice.works(m)

	// While alice waits for 15 s and more, bob does not.
	ctx, cancel := context.WithCancel(d.ctx())
	before := d.scrape().value("securenets_received_bytes_total")
	done := make(chan struct{})
	go func() {
		defer close(done)
		large := make([]byte, 15<<14)
		send(ctx, alice.cc, sealed.Sum(large), len(large)+1, 0, large, large[:1])
	}()
	for within := d.ctx(); d.scrape().value("securenets_received_bytes_total") < before+15<<14; time.Sleep(time.Millisecond) { // her first message
		if within.Err() != nil {
			t.Fatal("alice's message does not arrive")
		}
	}
	other := smallModel(t)
	bob.push(other)
	bob.works(other)
	select {
	case <-done:
		t.Error("alice is done before bob")
	default:
	}
	cancel()
	<-done
}

// TestSocketAccess: mode and group of the socket, and who may call.
func TestSocketAccess(t *testing.T) {
	group := os.Getegid()
	if os.Geteuid() == 0 {
		group = 12345
	}
	d := start(t, nil, func(c *config.Config) {
		c.Listen = "unix:" + filepath.Join(t.TempDir(), "run", "s")
		c.SocketMode, c.SocketGroup = "0660", fmt.Sprint(group)
	})
	path := strings.TrimPrefix(d.cfg.Listen, "unix:")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode, gid := info.Mode().Perm(), int(info.Sys().(*syscall.Stat_t).Gid); mode != 0o660 || gid != group {
		t.Errorf("mode %v, group %d", mode, gid)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("its folder: %v, %v", info.Mode(), err)
	}
	m := smallModel(t)
	d.push(m)
	d.works(m)
}

// TestRenewedTLS: a renewed certificate, and another CA for callers, count from the next connection on.
// While the files cannot be used, as between the writing of a certificate and of its key, what they
// were before does. Connections that are open go on.
func TestRenewedTLS(t *testing.T) {
	d := startTLS(t, nil, withMetrics)
	m := smallModel(t)
	alice := d.as(tlstest.Leaf{CommonName: "alice"})
	d.by(alice).push(m)
	served := func() (expires time.Time, err error) {
		c, err := tls.Dial("tcp", strings.TrimPrefix(d.addr, "tls:"), callerOf(t, d.ca, tlstest.Leaf{CommonName: "alice"}))
		if err != nil {
			return time.Time{}, err
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].NotAfter, nil
	}
	write := func(path string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, err := served()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := d.ca.Issue(tlstest.Leaf{Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Expires: 48 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	write(d.cfg.TLS.Certificate, cert)
	for range 2 {
		if now, err := served(); err != nil || !now.Equal(first) {
			t.Errorf("without its key: a certificate until %v, %v; want %v", now, err, first)
		}
	}
	d.waitForLog("cannot be used", 1)
	write(d.cfg.TLS.Key, key)
	second, err := served()
	if err != nil || second.Sub(first) < 40*time.Hour {
		t.Errorf("renewed: until %v, %v; before it was %v", second, err, first)
	}
	d.waitForFigure(float64(second.Unix()), "securenets_tls_certificate_expiry_timestamp_seconds")

	other, err := tlstest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	write(d.cfg.TLS.ClientCA, other.PEM())
	if _, err := pb.NewSecureNetsClient(d.as(tlstest.Leaf{CommonName: "alice"})).List(d.ctx(), &pb.ListRequest{}); err == nil {
		t.Error("served with a certificate of the CA before")
	}
	by := callerOf(t, other, tlstest.Leaf{CommonName: "alice"})
	by.RootCAs = d.ca.Pool()
	d.by(d.with(by)).works(m)
	d.by(alice).works(m) // connected before
	if n := strings.Count(d.log.String(), "cannot be used"); n != 1 {
		t.Errorf("%d failures logged, want 1", n)
	}
}

// TestCannotStartTLS: the daemon does not start with bad certificates or keys, an address in
// use or an unknown group, and leaves no socket.
func TestCannotStartTLS(t *testing.T) {
	d := startTLS(t, nil, nil)
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key, err := d.ca.Write(t.TempDir(), "other", tlstest.Leaf{Server: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*config.Config)
		want   string
	}{
		"no file":       {func(c *config.Config) { c.TLS.ClientCA = junk + "x" }, "client_ca"},
		"no CA":         {func(c *config.Config) { c.TLS.ClientCA = junk }, "contains no PEM certificate"},
		"no key":        {func(c *config.Config) { c.TLS.Key = junk }, "certificate and key"},
		"another key":   {func(c *config.Config) { c.TLS.Key = key }, "certificate and key"},
		"used":          {func(c *config.Config) { c.TLS.Listen, c.TLS.Certificate, c.TLS.Key = d.addr, cert, key }, "in use"},
		"no such group": {func(c *config.Config) { c.TLS = config.TLS{}; c.SocketGroup = "no-such-group" }, "no-such-group"},
	} {
		cfg := d.cfg
		cfg.Listen, cfg.StateDir = "unix:"+filepath.Join(t.TempDir(), "s"), t.TempDir()
		c.change(&cfg)
		if err := daemon.Run(t.Context(), cfg, slog.New(slog.DiscardHandler), d.backend); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(strings.TrimPrefix(cfg.Listen, "unix:")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the socket is left", name)
		}
	}
}
