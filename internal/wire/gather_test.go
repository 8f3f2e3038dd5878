package wire

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

const patience = 10 * time.Second // for what must arrive

// tcpPair returns both ends of a TCP connection.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near.(*net.TCPConn), far.(*net.TCPConn)
}

// TestGathering: what is written between begin and end arrives whole and in order, nothing of it
// before there is as much as may be held; before and after, it arrives at once.
func TestGathering(t *testing.T) {
	near, far := tcpPair(t)
	g := under(near).(*gathering)
	_ = far.SetReadDeadline(time.Now().Add(patience))
	want := func(text string) {
		t.Helper()
		b := make([]byte, len(text))
		if _, err := io.ReadFull(far, b); err != nil || string(b) != text {
			t.Fatalf("%q, %v; want %q", b, err, text)
		}
	}
	write := func(b []byte) {
		t.Helper()
		if n, err := g.Write(b); n != len(b) || err != nil {
			t.Fatal(n, err)
		}
	}
	write([]byte("one"))
	want("one")
	g.begin(mostHeld)
	write([]byte("two"))
	write([]byte("three"))
	_ = far.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := far.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("it is not held")
	}
	_ = far.SetReadDeadline(time.Now().Add(patience))
	if err := g.end(); err != nil {
		t.Fatal(err)
	}
	want("twothree")
	write([]byte("four"))
	want("four")

	sent := make([]byte, 3*mostHeld+5)
	for i := range sent {
		sent[i] = byte(i * i >> 8)
	}
	go func() {
		g.begin(mostHeld)
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), 10_007)
			g.Write(rest[:n])
			rest = rest[n:]
		}
		g.end()
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("other bytes, %v", err)
	}
}

// TestGatheringFails: the end of a connection is an error of what was held at the latest.
func TestGatheringFails(t *testing.T) {
	near, _ := tcpPair(t)
	g := under(near).(*gathering)
	near.Close()
	g.begin(mostHeld)
	if _, err := g.Write([]byte("held")); err != nil {
		t.Error(err)
	}
	if err := g.end(); err == nil {
		t.Error("no error")
	}
	g.begin(8)
	_, _ = g.Write([]byte("eight by"))
	if _, err := g.Write([]byte("te")); err == nil {
		t.Error("no error of what was held before")
	}
	if err := g.end(); err == nil {
		t.Error("no error")
	}
}
