package daemon_test

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/internal/tlstest"
	"github.com/securenets/securenets/internal/wire"
)

// TestGone: if a host's machine is gone, its stream ends and frees its resources, whether or
// not an answer is in flight to it.
func TestGone(t *testing.T) {
	defer daemon.SetSilence(2 * time.Second)()
	h := newHooked()
	d := byTLS.start(t, h, func(c *config.Config) {
		withMetrics(c)
		c.Limits.StallTimeoutSeconds = 1
	})
	m := smallModel(t)
	d.push(m)
	secure := d.secure.Clone()
	secure.NextProtos, secure.ServerName = []string{wire.DirectProtocol}, "127.0.0.1"
	for _, asked := range []bool{false, true} {
		begun, resume := h.hold(t, 1)
		tcp, err := net.Dial("tcp", strings.TrimPrefix(d.tlsAddr(), "tls:"))
		if err != nil {
			t.Fatal(err)
		}
		host := tls.Client(tcp, secure)
		if err := host.HandshakeContext(d.ctx()); err != nil {
			t.Fatal(err)
		}
		if asked {
			b, err := wire.Codec{}.Marshal(m.request(1, 1, 1))
			if err != nil {
				t.Fatal(err)
			}
			message := b.Materialize()
			if _, err := host.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)); err != nil {
				t.Fatal(err)
			}
			<-begun
		}
		d.waitForFigure(1, "securenets_calls")
		if err := tlstest.Mute(tcp.(*net.TCPConn)); err != nil {
			t.Fatal(err)
		}
		h.set(nil)
		close(resume)
		d.waitForFigure(0, "securenets_calls")
		tcp.Close()
	}
	d.works(m)
}
