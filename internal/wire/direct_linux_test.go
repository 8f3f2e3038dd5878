package wire_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/tlstest"
	"github.com/securenets/securenets/internal/wire"
	"github.com/securenets/securenets/ring"
)

// listenUnix listens on a unix socket until the test ends, and returns its address.
func listenUnix(t testing.TB) (*net.UnixListener, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, "unix:" + path
}

// accept accepts a direct stream and the memory that it offers.
func accept(l *net.UnixListener) (*net.UnixConn, *lane.Region, error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, nil, err
	}
	region, direct, err := lane.Accept(c, lane.AnyTerms())
	if err == nil && !direct {
		err = errors.New("not a direct stream")
	}
	return c, region, err
}

// link is a kind of connection for direct streams.
type link string

const (
	overMemory link = "a socket with memory"
	overSocket link = "a socket"
	overTLS    link = "TLS"
)

// overAll runs a test over each link.
func overAll(t *testing.T, test func(t *testing.T, over link)) {
	for _, over := range []link{overMemory, overSocket, overTLS} {
		t.Run(string(over), func(t *testing.T) { test(t, over) })
	}
}

// server accepts direct streams.
type server struct {
	over    link
	l       net.Listener
	addr    string
	ca      *tlstest.CA
	secured *tls.Config
}

func (over link) listen(t testing.TB) *server {
	t.Helper()
	s := &server{over: over}
	if over != overTLS {
		s.l, s.addr = listenUnix(t)
		return s
	}
	var err error
	if s.ca, err = tlstest.NewCA(); err != nil {
		t.Fatal(err)
	}
	own, err := s.ca.KeyPair(tlstest.Leaf{Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	s.secured = &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: wire.Protocols()}
	if s.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.l.Close() })
	s.addr = "tls:" + s.l.Addr().String()
	return s
}

// accept accepts a connection and does the handshake.
func (s *server) accept() (wire.Conn, *lane.Region, error) {
	if s.over != overTLS {
		return accept(s.l.(*net.UnixListener))
	}
	c, err := s.l.Accept()
	if err != nil {
		return nil, nil, err
	}
	secured, direct, err := wire.Handshake(c, s.secured)
	if err == nil && !direct {
		err = errors.New("not a direct stream")
	}
	return secured, nil, err
}

func (s *server) config() *tls.Config { return &tls.Config{RootCAs: s.ca.Pool()} }

// dial returns a host's end.
func (s *server) dial(ctx context.Context) (*wire.Direct, error) {
	switch s.over {
	case overTLS:
		return wire.DialDirectTLS(ctx, s.addr, s.config())
	case overSocket:
		return wire.DialDirect(ctx, s.addr, 0)
	}
	return wire.DialDirect(ctx, s.addr, lane.Grain)
}

// raw returns the connection of a host's end, after the handshake, to send any bytes on.
func (s *server) raw(ctx context.Context) (wire.Conn, error) {
	if s.over == overTLS {
		c := s.config()
		c.NextProtos = []string{wire.DirectProtocol}
		conn, err := (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", s.l.Addr().String())
		if err != nil {
			return nil, err
		}
		return conn.(*tls.Conn), nil
	}
	c, err := net.DialUnix("unix", nil, s.l.Addr().(*net.UnixAddr))
	if err != nil {
		return nil, err
	}
	region, _, err := lane.Offer(ctx, c, map[link]int64{overMemory: lane.Grain}[s.over])
	if region != nil {
		region.Release()
	}
	return c, err
}

// release releases a region, if there is one.
func release(r *lane.Region) {
	if r != nil {
		r.Release()
	}
}

// pair returns both ends of a direct stream.
func (over link) pair(t testing.TB, ctx context.Context) (*wire.Direct, *wire.DirectServer, *wire.Receiver) {
	t.Helper()
	s := over.listen(t)
	var served *wire.DirectServer
	var receiver *wire.Receiver
	var both errgroup.Group
	both.Go(func() error {
		c, region, err := s.accept()
		if err == nil {
			served, receiver = wire.ServeDirect(t.Context(), c, region)
			t.Cleanup(func() { served.HangUp(); release(region) })
		}
		return err
	})
	host, err := s.dial(ctx)
	if err := errors.Join(err, both.Wait()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	if (host.Slots != nil) != (over == overMemory) || host.Verdict != lane.Accepted {
		t.Fatalf("memory: %v, %v", host.Slots, host.Verdict)
	}
	return host, served, receiver
}

// next reads the next request.
func next(r *wire.Receiver) (*wire.Request, error) {
	if _, err := r.Next(); err != nil {
		return nil, err
	}
	req := new(wire.Request)
	return req, r.Read(req)
}

// TestDirect: messages of all sizes pass a direct stream both ways, unchanged and in order,
// with words in shared memory or in messages, and a stream that succeeded ends with io.EOF.
func TestDirect(t *testing.T) { overAll(t, testDirect) }

func testDirect(t *testing.T, over link) {
	host, server, receiver := over.pair(t, t.Context())
	sizes := []int{0, 1, 200, 255, 256, 900, 1010, 1023, 1024, 5000, 1 << 17, wire.MaxPayload / 4}
	done := make(chan error, 1)
	go func() {
		for {
			req, err := next(receiver)
			if err == io.EOF {
				server.End(nil)
				done <- nil
				return
			}
			if err != nil {
				done <- err
				return
			}
			resp := &wire.Response{ID: req.ID, Words: req.Words, QueueNS: uint64(req.Rows)}
			if req.Shared != nil {
				b, _ := server.Region().Bytes(req.Shared.Offset, req.Shared.Length)
				slices.Reverse(b)
				resp.Shared = req.Shared
			}
			err = server.SendMsg(resp)
			req.Free()
			if err != nil {
				done <- err
				return
			}
		}
	}()
	r := ring.Q4()
	sent := make(chan error, 1)
	go func() { // concurrently with the answers
		for i, n := range sizes {
			req := wire.Request{ID: uint64(i), Rows: uint32(i + 1), Words: wire.EncodeWords(r, randomWords(r, n), nil)}
			err := host.SendMsg(&req)
			req.Free()
			if err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i, n := range sizes {
		var resp wire.Response
		if err := host.RecvMsg(&resp); err != nil {
			t.Fatal(err)
		}
		got := make([]uint32, n)
		if err := wire.DecodeWords(r, got, resp.Words); err != nil || resp.ID != uint64(i) || resp.QueueNS != uint64(i+1) || !slices.Equal(got, randomWords(r, n)) {
			t.Errorf("message %d of %d words: id %d, %v", i, n, resp.ID, err)
		}
		resp.Free()
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	var resp wire.Response
	if slot, ok := host.Get(3); ok != (over == overMemory) {
		t.Fatal("memory, or none")
	} else if ok {
		copy(slot.Bytes, "abc")
		if err := host.SendMsg(&wire.Request{ID: 99, Shared: &wire.Span{Offset: uint64(slot.Offset), Length: 3}}); err != nil {
			t.Fatal(err)
		}
		if err := host.RecvMsg(&resp); err != nil || resp.ID != 99 || string(slot.Bytes) != "cba" {
			t.Errorf("%v, memory has %q", err, slot.Bytes)
		}
		slot.Put()
	}
	if err := host.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := host.RecvMsg(&resp); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for begun := time.Now(); !host.Ended(); time.Sleep(time.Millisecond) { // with TLS, just after its last message
		if over != overTLS || time.Since(begun) > 10*time.Second {
			t.Error("the connection has not ended")
			break
		}
	}
	host.Close() // with TLS the server waits for this
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestDirectEnds: a host learns how its stream ended, whether the server says so or is cut off.
func TestDirectEnds(t *testing.T) { overAll(t, testDirectEnds) }

func testDirectEnds(t *testing.T, over link) {
	refusal := &wire.Error{Code: codes.ResourceExhausted, Reason: wire.ReasonOverloaded, Message: "full", RetryAfter: time.Second}
	raw := func(b ...byte) func(*wire.DirectServer, net.Conn) {
		return func(s *wire.DirectServer, c net.Conn) { c.Write(b); s.HangUp() }
	}
	last, err := proto.Marshal(&pb.Error{Code: 9, Message: "a\x1b[31mb"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		end  func(*wire.DirectServer, net.Conn)
		want error
	}{
		"well":          {func(s *wire.DirectServer, _ net.Conn) { s.End(nil) }, io.EOF},
		"with a reason": {func(s *wire.DirectServer, _ net.Conn) { s.End(refusal.Status()) }, refusal},
		"with a status": {func(s *wire.DirectServer, _ net.Conn) { s.End(status.Error(codes.Internal, "odd")) }, status.Error(codes.Internal, "odd")},
		"hung up":       {func(s *wire.DirectServer, _ net.Conn) { s.HangUp() }, status.Error(codes.Unavailable, "unexpected EOF")},
		"shut down": {func(s *wire.DirectServer, c net.Conn) {
			c.(wire.Conn).CloseWrite()
			c.Read(make([]byte, 1)) // until the host has gone
			s.HangUp()
		}, status.Error(codes.Unavailable, "unexpected EOF")},
		"in a prefix":         {raw(0, 0, 0), status.Error(codes.Unavailable, "unexpected EOF")},
		"in a message":        {raw(0, 0, 0, 0, 9, 8), status.Error(codes.Unavailable, "unexpected EOF")},
		"in the last one":     {raw(0x80, 0, 0, 0, 9, 8), status.Error(codes.Unavailable, "unexpected EOF")},
		"compressed":          {raw(1, 0, 0, 0, 0), status.Error(codes.Internal, "message has unknown flags or is compressed")},
		"too large":           {raw(0, 1, 0, 0, 1), status.Error(codes.ResourceExhausted, "message of 16777217 bytes, want at most 16777216")},
		"no message":          {raw(0, 0, 0, 0, 1, 0xff), status.Error(codes.Internal, "cannot decode message: wire: bad message: truncated")},
		"for a terminal":      {raw(slices.Concat([]byte{0x80, 0, 0, 0, byte(len(last))}, last)...), status.Error(codes.FailedPrecondition, "a\ufffd[31mb")},
		"with an absurd code": {raw(0x80, 0, 0, 0, 2, 8, 99), status.Error(codes.Unknown, "")},
	} {
		l := over.listen(t)
		go func() {
			conn, region, err := l.accept()
			if err != nil {
				t.Error(err)
				return
			}
			s, _ := wire.ServeDirect(context.Background(), conn, region)
			c.end(s, conn)
			release(region)
		}()
		host, err := l.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := host.RecvMsg(new(wire.Response))
		var e, want *wire.Error
		switch {
		case errors.As(c.want, &want):
			if !errors.As(got, &e) || *e != *want {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		case c.want == io.EOF:
			if got != io.EOF {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		default:
			if status.Code(got) != status.Code(c.want) || got.Error() != c.want.Error() && name != "no message" {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
		host.Close()
	}
}

// TestDirectLingers: a host that does not close its connection after the stream's result holds
// up the server no longer than lingering, even if the connection's deadline is cleared, as gRPC
// does just after it has handed a connection over.
func TestDirectLingers(t *testing.T) {
	l := overTLS.listen(t)
	ended := make(chan time.Duration, 1)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _, err := l.accept()
		if err != nil {
			t.Error(err)
			return
		}
		accepted <- c.(*tls.Conn).NetConn()
		s, _ := wire.ServeDirect(t.Context(), c, nil)
		begun := time.Now()
		s.End(nil)
		ended <- time.Since(begun)
	}()
	host, err := l.raw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if b, err := io.ReadAll(host); string(b) != "\x80\x00\x00\x00\x00" || err != nil {
		t.Errorf("it reads %q, %v", b, err)
	}
	(<-accepted).SetDeadline(time.Time{})
	select {
	case after := <-ended:
		if after < 500*time.Millisecond {
			t.Errorf("it ends after %v", after)
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
}

// TestDirectCut: nothing follows a message of which only a part could be sent, and the connection
// ends.
func TestDirectCut(t *testing.T) { overAll(t, testDirectCut) }

func testDirectCut(t *testing.T, over link) {
	l := over.listen(t)
	accepted := make(chan wire.Conn, 1)
	go func() {
		c, region, err := l.accept()
		if err != nil {
			t.Error(err)
		}
		release(region)
		accepted <- c
	}()
	host, err := l.raw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	c := <-accepted
	s, _ := wire.ServeDirect(t.Context(), c, nil)
	defer s.HangUp()
	const size = wire.MaxPayload // more than any socket takes
	sent := make(chan error)
	go func() { sent <- s.SendMsg(&wire.Response{Words: bufferOf(make([]byte, size))}) }()
	if _, err := io.ReadFull(host, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	c.SetWriteDeadline(time.Now())
	if err := <-sent; status.Code(err) != codes.Canceled {
		t.Errorf("part of a message: %v", err)
	}
	c.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if err := s.SendMsg(&wire.Response{ID: 1}); status.Code(err) != codes.Canceled {
		t.Errorf("behind it: %v", err)
	}
	if s.Context().Err() == nil {
		t.Error("the stream goes on")
	}
	host.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.Copy(io.Discard, host); got >= size || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes arrived, %v", got, err)
	}
}

// TestDirectHosts: a server gets an error for bad messages of a host and when the host has gone.
func TestDirectHosts(t *testing.T) { overAll(t, testDirectHosts) }

func testDirectHosts(t *testing.T, over link) {
	huge := binary.BigEndian.AppendUint32([]byte{0}, wire.MaxMessage+1)
	for name, c := range map[string]struct {
		sent []byte
		half bool // the host still receives
		code codes.Code
		gone bool // the stream's context ends
	}{
		"nothing":           {nil, true, codes.OK, false}, // io.EOF
		"gone":              {nil, false, codes.Canceled, true},
		"half a prefix":     {[]byte{0, 0}, true, codes.Internal, false},
		"half a message":    {[]byte{0, 0, 0, 0, 5, 1}, true, codes.Internal, false},
		"no message":        {[]byte{0, 0, 0, 0, 5}, true, codes.Internal, false},
		"gone in a prefix":  {[]byte{0, 0}, false, codes.Canceled, true},
		"gone in a message": {[]byte{0, 0, 0, 0, 5, 1}, false, codes.Canceled, true},
		"compressed":        {[]byte{1, 0, 0, 0, 0}, true, codes.Internal, false},
		"a server's last":   {[]byte{0x80, 0, 0, 0, 0}, true, codes.Internal, false},
		"all flags":         {[]byte{0xff, 0, 0, 0, 0}, true, codes.Internal, false},
		"too large":         {huge, true, codes.ResourceExhausted, false},
		"no protobuf":       {[]byte{0, 0, 0, 0, 1, 0xff}, true, codes.Internal, false},
		"HTTP/2's preface":  {[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), true, codes.Internal, false},
	} {
		l := over.listen(t)
		var conn wire.Conn
		begun := make(chan error, 1)
		go func() {
			var err error
			conn, err = l.raw(t.Context())
			begun <- err
		}()
		served, region, err := l.accept()
		if err := errors.Join(err, <-begun); err != nil {
			t.Fatal(err)
		}
		s, r := wire.ServeDirect(t.Context(), served, region)
		if _, err := conn.Write(c.sent); err != nil {
			t.Fatal(err)
		}
		if c.half {
			conn.CloseWrite()
		} else if secured, ok := conn.(*tls.Conn); ok {
			secured.NetConn().Close() // without a TLS message, as when the host's process dies
		} else {
			conn.Close()
		}
		_, err = next(r)
		if c.code == codes.OK && err != io.EOF || c.code != codes.OK && status.Code(err) != c.code {
			t.Errorf("%s: %v, want %v", name, err, c.code)
		}
		if gone := s.Context().Err() != nil; gone != c.gone {
			t.Errorf("%s: the stream has ended: %v", name, gone)
		}
		conn.Close()
		s.End(err)
		release(region)
	}
}

// TestDirectContexts: a stream ends for both ends when the host's context ends or the host
// closes it, and its memory stays mapped as long as a slot is held.
func TestDirectContexts(t *testing.T) { overAll(t, testDirectContexts) }

func testDirectContexts(t *testing.T, over link) {
	for _, closes := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		host, server, receiver := over.pair(t, ctx)
		slot, ok := host.Get(100)
		if ok != (over == overMemory) {
			t.Fatal("a slot, or none")
		}
		waits, serves := make(chan error, 1), make(chan error, 1)
		go func() { waits <- host.RecvMsg(new(wire.Response)) }()
		go func() { _, err := receiver.Next(); serves <- err }()
		if closes {
			host.Close()
		}
		cancel()
		if err := <-waits; status.Code(err) != codes.Unavailable {
			t.Errorf("the host waits: %v", err)
		}
		if err := <-serves; status.Code(err) != codes.Canceled {
			t.Errorf("the server waits: %v", err)
		}
		<-server.Context().Done()
		host.Close()
		if ok {
			slot.Bytes[99] = 1 // faults if it is not mapped
		}
		slot.Put()
		for { // the memory is unmapped after the connection has ended
			slot, ok := host.Get(100)
			if !ok {
				break
			}
			slot.Put()
			runtime.Gosched()
		}
		if err := host.SendMsg(new(wire.Request)); err != io.EOF {
			t.Errorf("sent to nobody: %v", err)
		}
	}
}

// TestDirectRefused: dialling what serves no direct streams is an error.
func TestDirectRefused(t *testing.T) {
	if _, err := wire.DialDirect(t.Context(), serve(t), lane.Grain); err == nil {
		t.Error("a server that knows nothing of it")
	}
	if _, err := wire.DialDirect(t.Context(), "tcp:1.2.3.4:5", lane.Grain); !errors.Is(err, wire.ErrAddress) {
		t.Errorf("another address: %v", err)
	}
	l, addr := listenUnix(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := wire.DialDirect(ctx, addr, lane.Grain); err == nil {
		t.Error("a server that does not reply")
	}
	l.Close()
	if _, err := wire.DialDirect(t.Context(), addr, lane.Grain); err == nil {
		t.Error("nobody")
	}
	host, _, _ := overMemory.pair(t, t.Context())
	words := make([]uint32, wire.MaxMessage/4)
	req := wire.Request{Words: wire.EncodeWords(ring.Q4(), words, nil)}
	if err := host.SendMsg(&req); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message that is too large: %v", err)
	}
	req.Free()
	if err := host.SendMsg(&wire.Request{Words: req.Words, Shared: new(wire.Span)}); status.Code(err) != codes.Internal {
		t.Errorf("two inputs: %v", err)
	}
}

// TestDirectReleases: words given to send are released once each, whether or not they are sent.
func TestDirectReleases(t *testing.T) { overAll(t, testDirectReleases) }

func testDirectReleases(t *testing.T, over link) {
	for _, breaks := range []bool{false, true} {
		host, server, receiver := over.pair(t, t.Context())
		if breaks {
			server.HangUp()
		}
		released := 0
		req := wire.Request{Words: wire.EncodeWords(ring.Q4(), make([]uint32, 20000), func() { released++ })}
		err := host.SendMsg(&req)
		for breaks && err == nil { // TCP accepts data until the peer's reset arrives
			err = host.SendMsg(&req)
		}
		if released != 0 || breaks == (err == nil) {
			t.Errorf("breaks %v: %v, released %d times", breaks, err, released)
		}
		if req.Free(); released != 1 {
			t.Errorf("breaks %v: released %d times", breaks, released)
		}
		if breaks {
			continue
		}
		got, err := next(receiver)
		if err != nil || got.Words.Len() != 80000 {
			t.Fatal(err)
		}
		got.Free()
	}
}

// FuzzDirect: whatever a host sends, a server reads the same messages or errors as from the
// bytes in one piece, and never past their end.
func FuzzDirect(f *testing.F) {
	good := []byte{0, 0, 0, 0, 4, 8, 1, 0x18, 2}
	f.Add(good, uint16(3))
	f.Add(slices.Concat(good, good, []byte{0, 0}), uint16(7))
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff}, uint16(1))
	f.Add([]byte{0x80, 0, 0, 0, 0}, uint16(2))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		if len(b) > 1<<16 {
			return
		}
		ends, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		defer ends[0].Close()
		go func() {
			at := min(int(cut), len(b))
			ends[1].Write(b[:at])
			ends[1].Write(b[at:])
			ends[1].CloseWrite()
		}()
		s, r := wire.ServeDirect(t.Context(), ends[0], nil)
		defer s.HangUp()
		defer ends[1].Close()
		for left := b; ; {
			req, err := next(r)
			var want wire.Request
			if len(left) == 0 {
				if err != io.EOF {
					t.Fatalf("at the end: %v", err)
				}
				return
			}
			size := 0
			if len(left) >= 5 {
				size = int(binary.BigEndian.Uint32(left[1:]))
			}
			whole := len(left) >= 5 && left[0] == 0 && size <= wire.MaxMessage && len(left)-5 >= size
			if whole {
				whole = wire.Codec{}.Unmarshal(bufferOf(left[5:5+size]), &want) == nil
			}
			if whole != (err == nil) {
				t.Fatalf("%x: %v", left, err)
			}
			if err != nil {
				return
			}
			if req.ID != want.ID || req.Rows != want.Rows || !bytes.Equal(req.Words.Materialize(), want.Words.Materialize()) {
				t.Fatalf("%x: another message", left)
			}
			req.Free()
			left = left[5+size:]
		}
	})
}

// TestDirectPieces: messages arrive the same however the socket cuts them.
func TestDirectPieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var sent []byte
	var want []int
	for range 40 {
		n := 4 * rng.IntN(3000)
		b, err := wire.Codec{}.Marshal(&wire.Request{ID: uint64(len(want) + 1), Words: bufferOf(make([]byte, n))})
		if err != nil {
			t.Fatal(err)
		}
		sent = binary.BigEndian.AppendUint32(append(sent, 0), uint32(b.Len()))
		sent = append(sent, b.Materialize()...)
		want = append(want, n)
	}
	ends, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ends[1].Close()
	go func() {
		for len(sent) > 0 {
			n := min(1+rng.IntN(700), len(sent))
			if _, err := ends[1].Write(sent[:n]); err != nil {
				t.Error(err)
				return
			}
			sent = sent[n:]
		}
	}()
	s, r := wire.ServeDirect(t.Context(), ends[0], nil)
	defer s.HangUp()
	for i, n := range want {
		req, err := next(r)
		if err != nil {
			t.Fatal(err)
		}
		if req.ID != uint64(i+1) || req.Words.Len() != n {
			t.Fatalf("message %d has id %d and %d bytes of %d", i, req.ID, req.Words.Len(), n)
		}
		req.Free()
	}
}

// TestDirectStart: what a socket takes at once is sent without waiting, and the rest later, in
// however many parts a message is.
func TestDirectStart(t *testing.T) {
	ends, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ends[1].Close()
	s, _ := wire.ServeDirect(t.Context(), ends[0], nil)
	defer s.HangUp()
	rng := rand.New(rand.NewPCG(3, 4))
	var want []byte
	started := 0
	for all := true; all; started++ {
		var parts mem.BufferSlice
		for range rng.IntN(12) {
			b := make([]byte, rng.IntN(3)*rng.IntN(3000))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			parts = append(parts, mem.SliceBuffer(b))
		}
		m := &wire.Response{ID: uint64(started), Words: parts}
		b, err := wire.Codec{}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		want = binary.BigEndian.AppendUint32(append(want, 0), uint32(b.Len()))[:len(want)+5]
		want = append(want, b.Materialize()...)
		if all, err = s.Start(m); err != nil {
			t.Fatal(err)
		}
	}
	if started < 5 {
		t.Errorf("%d messages fill the socket", started)
	}
	finished := make(chan error)
	go func() { finished <- s.Finish() }()
	select {
	case err := <-finished:
		t.Errorf("the socket is full, and the rest was sent: %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(ends[1], got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("other bytes arrived, %v", err)
	}
	if err := <-finished; err != nil {
		t.Error(err)
	}
	ends[1].Close()
	if all, err := s.Start(&wire.Response{}); !all || status.Code(err) != codes.Canceled {
		t.Errorf("to nobody: %v, %v", all, err)
	}
}

func bufferOf(b []byte) mem.BufferSlice { return mem.BufferSlice{mem.SliceBuffer(b)} }

// socketPair returns the ends of a connection.
func socketPair() (ends [2]*net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ends, err
	}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			return ends, err
		}
		ends[i] = c.(*net.UnixConn)
	}
	return ends, nil
}

// TestDirectPlaced: words of a response go where there is a place for them, and otherwise where
// others go; what follows is read as before.
func TestDirectPlaced(t *testing.T) {
	for _, over := range []link{overSocket, overTLS} {
		t.Run(string(over), func(t *testing.T) {
			host, server, _ := over.pair(t, t.Context())
			r := ring.Q4()
			const most = 100_000
			sizes := []int{1, 16, 300, 5000, most}
			sent := make(chan error, 1)
			go func() {
				for i, n := range append(sizes, 0) {
					resp := &wire.Response{ID: uint64(i), QueueNS: 9}
					if n == 0 {
						resp.Err = &pb.Error{Code: 3, Message: "none"}
					} else {
						resp.Words = wire.EncodeWords(r, randomWords(r, n), nil)
					}
					if err := server.SendMsg(resp); err != nil {
						sent <- err
						return
					}
					resp.Free()
				}
				sent <- nil
			}()
			memory := make([]uint32, most)
			for i, n := range sizes {
				place, _ := wire.AsBytes(r, memory[:n])
				clear(memory)
				asked := 0
				resp := wire.Response{Place: func(id uint64, bytes int) []byte {
					if asked++; id != uint64(i) || bytes != 4*n {
						t.Errorf("a place for %d bytes of response %d", bytes, id)
					}
					if i%2 == 1 {
						return nil
					}
					return place
				}}
				if err := host.RecvMsg(&resp); err != nil {
					t.Fatal(err)
				}
				want := randomWords(r, n)
				if placed := slices.Equal(memory[:n], want); placed != (i%2 == 0) || asked != 1 || resp.ID != uint64(i) || resp.QueueNS != 9 {
					t.Errorf("%d words: placed %v, asked %d times", n, placed, asked)
				}
				got := memory[:n]
				if err := wire.DecodeWords(r, got, resp.Words); err != nil || !slices.Equal(got, want) {
					t.Errorf("%d words: %v", n, err)
				}
				resp.Free()
			}
			resp := wire.Response{Place: func(uint64, int) []byte { t.Error("a place for an error"); return nil }}
			if err := host.RecvMsg(&resp); err != nil || resp.Err.GetMessage() != "none" {
				t.Error(err, resp.Err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			go func() {
				sent <- server.SendMsg(&wire.Response{ID: 1, Words: wire.EncodeWords(r, []uint32{1, 1<<32 - 1, 2}, nil)})
			}()
			place, _ := wire.AsBytes(r, memory[:3])
			resp = wire.Response{Place: func(uint64, int) []byte { return place }}
			if err := host.RecvMsg(&resp); err != nil {
				t.Fatal(err)
			}
			var wrong *wire.Error
			if err := wire.DecodeWords(r, memory[:3], resp.Words); !errors.As(err, &wrong) || wrong.Reason != wire.ReasonNonCanonical {
				t.Errorf("a word that is not canonical: %v", err)
			}
			<-sent
		})
	}
}

// TestArrived: a message has arrived once its last byte has.
func TestArrived(t *testing.T) {
	const size = 100
	for _, sent := range []int{0, size - 1, size, size + 1} {
		ends, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		defer ends[0].Close()
		server, receiver := wire.ServeDirect(t.Context(), ends[1], nil)
		if _, err := ends[0].Write(append([]byte{0, 0, 0, 0, size}, make([]byte, sent)...)); err != nil {
			t.Fatal(err)
		}
		if n, err := receiver.Next(); n != size || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if got := receiver.Arrived(); got != (sent >= size) {
			t.Errorf("of %d bytes %d were sent: arrived %v", size, sent, got)
		}
		server.HangUp()
	}
}
