package daemon

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// ends is a listener of one end of each pipe.
type ends struct {
	net.Listener
	far []net.Conn
}

func (e *ends) Accept() (net.Conn, error) {
	near, far := net.Pipe()
	e.far = append(e.far, far)
	return near, nil
}

// TestGreetings: a connection accepted after hurry has no more time than the others, the limit
// ends once a connection has begun, and nothing is kept of connections that have ended.
func TestGreetings(t *testing.T) {
	var g greetings
	l := g.listen(&ends{})
	accept := func() net.Conn {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	timesOut := func(c net.Conn, within time.Duration) bool {
		read := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			read <- err
		}()
		select {
		case err := <-read:
			return errors.Is(err, os.ErrDeadlineExceeded)
		case <-time.After(within):
			return false
		}
	}
	early := accept()
	early.SetDeadline(time.Now().Add(time.Hour))
	g.hurry(0)
	late := accept()
	late.SetDeadline(time.Now().Add(time.Hour))
	for name, c := range map[string]net.Conn{"early": early, "late": late} {
		if !timesOut(c, 10*time.Second) {
			t.Errorf("%s: it is waited for", name)
		}
	}
	late.SetDeadline(time.Time{})
	if timesOut(late, 50*time.Millisecond) {
		t.Error("it has begun, and is held to a time")
	}
	if len(g.open) != 1 {
		t.Errorf("%d are beginning, want the early one", len(g.open))
	}
	early.Close()
	if len(g.open) != 0 {
		t.Errorf("%d are kept", len(g.open))
	}
}
