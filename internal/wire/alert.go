package wire

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// remote begins what crypto/tls says of an alert that the peer sent.
const remote = "remote error: "

// Alert returns the TLS alert that the peer sent, if a message of crypto/tls, or of gRPC,
// which passes on no more than the message, ends with one.
func Alert(message string) (tls.AlertError, bool) {
	_, text, ok := strings.Cut(message, remote)
	if !ok {
		return 0, false
	}
	for code := range 1 << 8 {
		if a := tls.AlertError(code); a.Error() == text {
			return a, true
		}
	}
	return 0, false
}

// alerting is the credentials of gRPC clients whose errors tell of alerts.
type alerting struct {
	credentials.TransportCredentials
}

func (a alerting) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := a.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	return &alerted{Conn: c, read: make(chan struct{})}, info, nil
}

func (a alerting) Clone() credentials.TransportCredentials {
	return alerting{a.TransportCredentials.Clone()}
}

// alerted is a client's connection. With TLS 1.3 the client is done with the handshake
// before the server has seen its certificate. If the server turns it down, what gRPC writes
// meanwhile fails, and it would report that instead of the alert, which is all that there is
// to read.
type alerted struct {
	net.Conn
	first sync.Once
	read  chan struct{} // closed once something was read, or that failed
	alert error         // what was read, if it was an alert
}

func (c *alerted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.first.Do(func() {
		if err != nil && strings.HasPrefix(err.Error(), remote) {
			c.alert = err
		}
		close(c.read)
	})
	return n, err
}

// Write writes, or returns the alert. gRPC reads at the same time.
func (c *alerted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil {
		return n, nil
	}
	const patience = time.Second // a read ends soon, too, where a write fails
	select {
	case <-c.read:
		if c.alert != nil {
			err = c.alert
		}
	case <-time.After(patience):
	}
	return n, err
}
