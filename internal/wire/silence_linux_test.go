package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/securenets/securenets/internal/tlstest"
)

// TestSilence: a connection ends once its peer has been silent for the given time, and not
// while the peer lives.
func TestSilence(t *testing.T) {
	const silence = 3 * time.Second
	for name, c := range map[string]struct{ gone, sent bool }{
		"gone":            {true, false},
		"gone, and asked": {true, true},
		"alive":           {false, false},
		"alive and asked": {false, true}, // does not read what it is sent
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := pair(t, "tcp")
			GiveUpAfter(near, silence)
			if c.gone {
				if err := tlstest.Mute(far.(*net.TCPConn)); err != nil {
					t.Fatal(err)
				}
			}
			begun := time.Now()
			if c.sent {
				if _, err := near.Write([]byte("a request")); err != nil {
					t.Fatal(err)
				}
			}
			if !c.gone {
				near.SetReadDeadline(begun.Add(2 * silence))
			}
			_, err := near.Read(make([]byte, 1))
			took := time.Since(begun)
			if lost := errors.Is(err, syscall.ETIMEDOUT); lost != c.gone || took < silence {
				t.Errorf("%v after %v", err, took)
			}
		})
	}
}

// TestHostSilence: a host gives up a daemon that has gone.
func TestHostSilence(t *testing.T) {
	ca, err := tlstest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	own, err := ca.KeyPair(tlstest.Leaf{Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: Protocols()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			c.(*tls.Conn).Handshake()
		}
	}()
	d, err := DialDirectTLS(context.Background(), "tls:"+l.Addr().String(), &tls.Config{RootCAs: ca.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	raw, err := d.socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for option, want := range map[int]int{
			unix.TCP_USER_TIMEOUT: int(Silence.Milliseconds()),
			unix.TCP_KEEPIDLE:     int(Silence.Seconds()) / 4,
		} {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); err != nil || got != want {
				t.Errorf("option %d is %d, want %d, %v", option, got, want, err)
			}
		}
	})
}
