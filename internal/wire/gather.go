package wire

import (
	"crypto/tls"
	"net"
	"sync"
)

// gathering is a TCP connection under TLS, which writes one record at a time, of 16 KiB at most.
// It sends the records of a message together: fewer, larger writes cost the system less.
type gathering struct {
	*net.TCPConn

	mu   sync.Mutex // crypto/tls writes when it reads, too
	held *[]byte    // what is to be sent; nil: it is sent at once
}

// mostHeld is how many bytes are held, at most.
const mostHeld = 256 << 10

// under returns what TLS is to be spoken on for direct streams to gather records.
func under(c net.Conn) net.Conn {
	if tcp, ok := c.(*net.TCPConn); ok {
		return &gathering{TCPConn: tcp}
	}
	return c
}

// gathered calls write, which writes about n bytes to c, and sends what it writes together.
func gathered(c Conn, n int, write func() error) error {
	secured, ok := c.(*tls.Conn)
	if !ok || n <= record {
		return write()
	}
	g, ok := secured.NetConn().(*gathering)
	if !ok {
		return write()
	}
	g.begin(min(n, mostHeld))
	err := write()
	if sent := g.end(); err == nil {
		err = sent
	}
	return err
}

func (g *gathering) begin(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = buffers.Get(n)
	*g.held = (*g.held)[:0]
}

func (g *gathering) end() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.flush()
	buffers.Put(g.held)
	g.held = nil
	return err
}

// flush sends what is held.
func (g *gathering) flush() error {
	_, err := g.TCPConn.Write(*g.held)
	*g.held = (*g.held)[:0]
	return err
}

// Write implements net.Conn. While bytes are held, an error may be that of an earlier write.
func (g *gathering) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		return g.TCPConn.Write(b)
	}
	if len(*g.held)+len(b) > cap(*g.held) {
		if err := g.flush(); err != nil {
			return 0, err
		}
	}
	*g.held = append(*g.held, b...)
	return len(b), nil
}
