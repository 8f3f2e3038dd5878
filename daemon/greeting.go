package daemon

import (
	"net"
	"sync"
	"time"
)

// handshakeTimeout is how long a connection may take for the handshake and to begin HTTP/2 or
// a direct stream.
const handshakeTimeout = 20 * time.Second

// lateTimeout is the same limit once the daemon drains. The drain waits that long so that a
// caller who is just connecting is still told that the daemon is shutting down. Tests set it.
var lateTimeout = time.Second

// greetings are the connections that have yet to begin HTTP/2 or a direct stream.
type greetings struct {
	mu    sync.Mutex
	until time.Time // the latest deadline of any connection; zero: no limit
	open  map[*greeting]struct{}
}

// hurry limits the time left to all open connections and to later ones.
func (g *greetings) hurry(left time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = time.Now().Add(left)
	for c := range g.open {
		c.Conn.SetDeadline(g.until)
	}
}

// listen returns a listener whose connections are greetings.
func (g *greetings) listen(l net.Listener) net.Listener { return greetingListener{l, g} }

type greetingListener struct {
	net.Listener
	of *greetings
}

func (l greetingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &greeting{c, l.of}
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	if l.of.open == nil {
		l.of.open = map[*greeting]struct{}{}
	}
	l.of.open[g] = struct{}{}
	return g, nil
}

// greeting is a connection that has been accepted. It is in greetings until it is closed or its
// deadline is cleared: gRPC sets a deadline of handshakeTimeout and clears it once HTTP/2 has
// begun or transport has taken the connection over. Only gRPC uses the greeting; transport
// uses the connection in it.
type greeting struct {
	net.Conn
	of *greetings
}

// SetDeadline implements net.Conn.
func (c *greeting) SetDeadline(t time.Time) error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	switch until := c.of.until; {
	case t.IsZero():
		delete(c.of.open, c)
	case !until.IsZero() && until.Before(t):
		t = until
	}
	return c.Conn.SetDeadline(t)
}

// Close implements net.Conn.
func (c *greeting) Close() error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	delete(c.of.open, c)
	return c.Conn.Close()
}
