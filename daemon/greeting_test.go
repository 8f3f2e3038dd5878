package daemon_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/internal/tlstest"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/plan"
)

// soon is much less than a connection may take for its handshake while the daemon serves.
const soon = 10 * time.Second

// mute is a connection that sends only the first bytes written to it.
type mute struct {
	net.Conn
	first int // bytes that are sent; 0: all
	said  bool
}

func (m *mute) Write(b []byte) (int, error) {
	if m.said {
		return len(b), nil
	}
	m.said = true
	if m.first > 0 {
		if _, err := m.Conn.Write(b[:m.first]); err != nil {
			return 0, err
		}
		return 0, net.ErrClosed
	}
	return m.Conn.Write(b)
}

// silent opens connections that begin in every possible way and then fall silent, and waits
// until the daemon has accepted them. It returns them by name.
func (d *certified) silent() map[string]net.Conn {
	t := d.t.(*testing.T)
	t.Helper()
	cert, err := d.ca.KeyPair(tlstest.Leaf{CommonName: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: d.ca.Pool(), ServerName: "127.0.0.1", NextProtos: []string{"h2"}}
	direct := config.Clone()
	direct.NextProtos = []string{wire.DirectProtocol}
	before, _ := opened(t)
	conns := map[string]net.Conn{}
	open := func(name, network, addr string, say func(net.Conn) error) {
		c, err := net.Dial(network, addr)
		if err == nil && say != nil {
			err = say(c)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(func() { c.Close() })
		conns[name] = c
	}
	says := func(text string) func(net.Conn) error {
		return func(c net.Conn) error {
			_, err := c.Write([]byte(text))
			return err
		}
	}
	shake := func(after string) func(net.Conn) error {
		return func(c net.Conn) error {
			secured := tls.Client(c, config)
			if err := secured.Handshake(); err != nil {
				return err
			}
			return says(after)(secured)
		}
	}
	const magic, preface = "snlane3\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	path, port := strings.TrimPrefix(d.cfg.Listen, "unix:"), strings.TrimPrefix(d.addr, "tls:")
	open("unix, nothing", "unix", path, nil)
	open("unix, half of an offer of memory", "unix", path, says(magic+"\x00\x00\x01\x00"))
	open("unix, a direct stream", "unix", path, func(c net.Conn) error {
		if err := says(magic + "\x00\x00\x01\x00\x00\x00\x00\x00" + strings.Repeat("\x00", 8))(c); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 16)) // the reply: the memory is missing, so it is refused
		return err
	})
	open("unix, half of HTTP/2's preface", "unix", path, says(preface[:12]))
	open("unix, HTTP/2's preface without settings", "unix", path, says(preface))
	open("TLS, nothing", "tcp", port, nil)
	open("TLS, half of a hello", "tcp", port, func(c net.Conn) error {
		if err := tls.Client(&mute{Conn: c, first: 100}, config).Handshake(); err == nil {
			return errors.New("a handshake with half of a hello")
		}
		return nil
	})
	open("TLS, half-way", "tcp", port, func(c net.Conn) error { // a TLS 1.3 client is done with its second message
		return tls.Client(&mute{Conn: c}, config).Handshake()
	})
	open("TLS and nothing", "tcp", port, shake(""))
	open("TLS and half of HTTP/2's preface", "tcp", port, shake(preface[:12]))
	open("TLS, a direct stream", "tcp", port, func(c net.Conn) error { return tls.Client(c, direct).Handshake() })
	waitForAccepted(t, before+2*len(conns)+2) // direct streams have one more each
	return conns
}

// waitForAccepted waits until this process, which has both ends of connections, has n
// descriptors.
func waitForAccepted(t *testing.T, fds int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if now, _ := opened(t); now >= fds {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the daemon does not accept")
		}
	}
}

// ended waits until the daemon has ended a connection.
func ended(t *testing.T, name string, c net.Conn, stopped time.Time) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	for b := make([]byte, 4096); ; {
		if _, err := c.Read(b); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: not ended", name)
			return
		} else if err != nil {
			break
		}
	}
	if took := time.Since(stopped); took > soon {
		t.Errorf("%s: ended after %v", name, took)
	}
}

// TestStopSilent: connections that have not begun a call do not delay the daemon's end. It
// closes them while it answers the requests in progress.
func TestStopSilent(t *testing.T) { eachWay(t, testStopSilent) }

func testStopSilent(t *testing.T, by way) {
	h := newHooked()
	d := startTLS(t, h, nil)
	m := smallModel(t)
	d.push(m)
	alice := d.by(d.as(tlstest.Leaf{CommonName: "alice"}))
	alice.push(m)
	if by == byTLS {
		d.secure = callerOf(t, d.ca, tlstest.Leaf{CommonName: "bob"})
		d.by(d.with(d.secure)).push(m)
	}
	begun, resume := make(chan struct{}, 2), make(chan struct{})
	fds, maps := opened(t)
	conns := d.silent()
	for _, c := range conns { // as the daemon serves, they may go on
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		for b := make([]byte, 4096); ; {
			if _, err := c.Read(b); errors.Is(err, os.ErrDeadlineExceeded) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	h.set(func(context.Context) error { begun <- struct{}{}; <-resume; return nil })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	here, far := by.open(d.running, ctx), evaluate(t, ctx, alice.cc)
	here.send(m.request(1, 3, 9))
	<-begun // only then send the other, which must not join its batch
	far.send(m.request(1, 3, 9))
	<-begun

	stopped := time.Now()
	d.stop()
	for name, c := range conns {
		ended(t, name, c, stopped)
	}
	select {
	case err := <-d.done:
		t.Fatalf("it ended with work in flight: %v", err)
	default:
	}
	close(resume)
	for _, e := range []*evaluation{here, far} {
		r, err := e.receive()
		if err != nil {
			t.Fatal(err)
		}
		m.check(t, r, 1, m.input(1, 3, 9))
	}
	d.wait()
	if took := time.Since(stopped); took > soon {
		t.Errorf("it ended after %v", took)
	}
	for _, c := range conns {
		c.Close()
	}
	cancel()
	waitForOpened(t, fds, maps)
}

// TestStopLate: a connection that is beginning when the daemon drains may go on for a while.
func TestStopLate(t *testing.T) {
	defer daemon.SetLateTimeout(patience)()
	d := start(t, nil, nil)
	before, _ := opened(t)
	c, err := net.Dial("unix", strings.TrimPrefix(d.cfg.Listen, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const offer = "snlane3\n\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	if _, err := c.Write([]byte(offer[:10])); err != nil {
		t.Fatal(err)
	}
	waitForAccepted(t, before+2)
	d.stop()
	d.waitForLog("draining", 1)
	if _, err := c.Write([]byte(offer[10:])); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 16)); err != nil {
		t.Errorf("no reply: %v", err)
	}
	c.Close()
	d.wait()
}

// TestStopSilentAtOnce: nor do they delay the end of an idle daemon, or of one that never served.
func TestStopSilentAtOnce(t *testing.T) {
	d := startTLS(t, nil, func(c *config.Config) { c.DrainTimeoutSeconds = 0 })
	conns := d.silent()
	stopped := time.Now()
	d.wait()
	if took := time.Since(stopped); took > soon {
		t.Errorf("it ended after %v", took)
	}
	for name, c := range conns {
		ended(t, name, c, stopped)
	}

	dir := t.TempDir()
	cfg := config.Default()
	cfg.Listen, cfg.StateDir = "unix:"+filepath.Join(dir, "s"), filepath.Join(dir, "state")
	h := newHooked()
	defer h.Close()
	testing, resume := make(chan struct{}, 1), make(chan struct{})
	h.setLoad(func(plan.Op) {
		select {
		case testing <- struct{}{}:
		default:
		}
		<-resume
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- daemon.Run(ctx, cfg, slog.New(slog.DiscardHandler), h) }()
	<-testing
	before, _ := opened(t)
	c, err := net.Dial("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("snlane")); err != nil {
		t.Fatal(err)
	}
	waitForAccepted(t, before+2)
	stopped = time.Now()
	stop()
	close(resume)
	ended(t, "before it served", c, stopped)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(stopped); took > soon {
		t.Errorf("it ended after %v", took)
	}
}
