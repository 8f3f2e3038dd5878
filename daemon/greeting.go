package daemon

import (
	"net"
	"sync"
	"time"
)

// handshakeTimeout is how long a connection may take to say who it is of, and to begin
// HTTP/2 or a direct stream.
const handshakeTimeout = 20 * time.Second

// lateTimeout is how long it may from when the daemon drains on, which waits for it: who is
// about to ask is still to be told that the daemon ends. Tests set it.
var lateTimeout = time.Second

// greetings are the connections that have yet to do so.
type greetings struct {
	mu    sync.Mutex
	until time.Time // the latest that any may take; zero: no such time
	open  map[*greeting]struct{}
}

// hurry gives all that are open, and all to come, so much time and no more.
func (g *greetings) hurry(left time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = time.Now().Add(left)
	for c := range g.open {
		c.Conn.SetDeadline(g.until)
	}
}

// listen returns l with greetings for connections.
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

// greeting is a connection from when it is accepted until gRPC, which has set its deadline to
// handshakeTimeout, takes that away again, as it does once HTTP/2 has begun, or someone else
// has the connection. It is gRPC's alone: transport goes on with the connection in it.
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
