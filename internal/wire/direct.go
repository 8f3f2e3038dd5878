package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/securenets/securenets/api/securenets/v1"
	"github.com/securenets/securenets/internal/lane"
)

// Stream is the host's end of an Evaluate stream: a grpc.ClientStream, or Direct.
type Stream interface {
	SendMsg(m any) error
	RecvMsg(m any) error
	CloseSend() error
}

// A direct stream is an Evaluate stream with a connection to itself: a unix socket, possibly
// with memory that both ends share, or TLS. It does not use gRPC. Messages follow one another,
// each behind a prefix as in gRPC: a byte of flags and the size. The server's last message,
// marked by a flag, is an Error that says how the stream ended. See docs/spec.md, section 8.

// DirectProtocol is the ALPN protocol that a host asks for to get a direct stream over TLS
// instead of HTTP/2.
const DirectProtocol = "securenets-direct/3"

// Conn is the connection of a direct stream: a *net.UnixConn, or a *tls.Conn on a *net.TCPConn.
type Conn interface {
	net.Conn
	CloseWrite() error
}

// socket is a connection of the operating system.
type socket interface {
	Conn
	CloseRead() error
	syscall.Conn
}

// socketOf returns the socket under a connection.
func socketOf(c Conn) socket {
	if secured, ok := c.(*tls.Conn); ok {
		if g, ok := secured.NetConn().(*gathering); ok {
			return g.TCPConn
		}
		return secured.NetConn().(socket)
	}
	return c.(socket)
}

// prefix is the size in bytes of what precedes a message.
const prefix = 5

// lastFlag marks the message that ends a direct stream, as in gRPC-Web.
const lastFlag = 1 << 7

// messageSize returns the size in a message's prefix, and whether lastFlag is set. Its
// errors are gRPC statuses.
func messageSize(p [prefix]byte) (size int, last bool, err error) {
	if p[0]&^lastFlag != 0 {
		return 0, false, status.Error(codes.Internal, "message has unknown flags or is compressed")
	}
	n := binary.BigEndian.Uint32(p[1:])
	if n > MaxMessage {
		return 0, false, status.Errorf(codes.ResourceExhausted, "message of %d bytes, want at most %d", n, MaxMessage)
	}
	return int(n), p[0] == lastFlag, nil
}

// direct is an end of a direct stream.
type direct struct {
	server bool
	conn   Conn
	socket socket
	unix   *unixSocket // conn; nil: it is read and written as any connection
	in     *bufio.Reader
	ctx    context.Context
	cancel context.CancelFunc

	// The message being sent.
	message mem.BufferSlice
	out     []byte      // its start, copied together
	most    int         // bytes that out may have
	parts   net.Buffers // out and the rest
	left    net.Buffers // of parts: not yet sent
}

const (
	// readAhead is how many bytes may be buffered before a message is asked for.
	readAhead = 4 << 10
	// together is how many bytes from the start of a message are copied so that they are sent in
	// one piece; record is the same with TLS, one TLS record. The words after them are sent from
	// their own memory.
	together, record = 4 << 10, 16 << 10
)

func newDirect(ctx context.Context, c Conn, server bool) direct {
	d := direct{server: server, conn: c, socket: socketOf(c), unix: unixSocketOf(c), most: together}
	if d.unix != nil {
		d.in = bufio.NewReaderSize(d.unix, readAhead)
	} else {
		d.in = bufio.NewReaderSize(c, readAhead)
	}
	if d.socket != c {
		d.most = record
	}
	d.ctx, d.cancel = context.WithCancel(ctx)
	return d
}

// Context returns the stream's context. It ends once the connection is found to have ended.
func (d *direct) Context() context.Context { return d.ctx }

// ReadMessageHeader and Read implement messages.
func (d *direct) ReadMessageHeader(header []byte) error {
	_, err := io.ReadFull(d.in, header)
	if err == io.EOF && !Gone(d.socket) {
		return err // the peer sends nothing more, but still receives
	}
	return d.broken(err)
}

// Buffered returns the number of bytes that Read returns without waiting.
func (d *direct) Buffered() int { return d.in.Buffered() }

func (d *direct) Read(n int) (mem.BufferSlice, error) {
	b := buffers.Get(n)
	if _, err := io.ReadFull(d.in, *b); err != nil {
		buffers.Put(b)
		return nil, d.broken(err)
	}
	return mem.BufferSlice{mem.NewBuffer(b, buffers)}, nil
}

// broken converts an error of the connection to a gRPC status, and ends the stream if the
// connection has ended. A host that stopped in the middle of a message may still receive.
func (d *direct) broken(err error) error {
	if err == nil {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if d.server && err == io.ErrUnexpectedEOF && !Gone(d.socket) {
		return status.Error(codes.Internal, err.Error())
	}
	d.cancel()
	if d.server {
		return status.Error(codes.Canceled, err.Error())
	}
	return status.Error(codes.Unavailable, err.Error())
}

// marshal encodes a message. Its errors are gRPC statuses.
func marshal(m any) (mem.BufferSlice, error) {
	b, err := Codec{}.Marshal(m)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if n := b.Len(); n > MaxMessage {
		b.Free()
		return nil, status.Errorf(codes.ResourceExhausted, "message of %d bytes, want at most %d", n, MaxMessage)
	}
	return b, nil
}

// start begins to send a message, which it takes over, and reports whether it has ended; if not,
// finish must be called next. It waits for the peer only if it may. Sending belongs to one
// goroutine at a time.
func (d *direct) start(flags byte, b mem.BufferSlice, wait bool) (all bool, err error) {
	d.message = b
	d.out = binary.BigEndian.AppendUint32(append(d.out[:0], flags), uint32(b.Len()))
	d.parts = append(d.parts[:0], nil)
	for _, part := range b {
		p := part.ReadOnlyData()
		n := min(len(p), d.most-len(d.out))
		d.out = append(d.out, p[:n]...)
		if n < len(p) {
			d.parts = append(d.parts, p[n:])
		}
	}
	d.parts[0] = d.out
	d.left = d.parts
	if d.unix == nil {
		return false, nil
	}
	if err := d.unix.Write(&d.left, wait); err != nil || len(d.left) == 0 {
		return true, d.sent(err)
	}
	return false, nil
}

// finish sends the rest of a message.
func (d *direct) finish() (err error) {
	switch {
	case d.unix != nil:
		err = d.unix.Write(&d.left, true)
	case len(d.left) == 1:
		_, err = d.conn.Write(d.out)
	default:
		err = gathered(d.conn, d.message.Len(), func() error {
			_, err := d.left.WriteTo(d.conn)
			return err
		})
	}
	return d.sent(err)
}

// sent frees the message, which has been sent or has failed with err, which it returns.
func (d *direct) sent(err error) error {
	d.message.Free()
	d.message, d.left = nil, nil
	clear(d.parts)
	return err
}

// send sends a message, which it takes over.
func (d *direct) send(flags byte, b mem.BufferSlice) error {
	if all, err := d.start(flags, b, true); all {
		return err
	}
	return d.finish()
}

// Direct is the host's end of a direct stream: a Stream that may have shared memory, from
// which the host allocates. It ends when its context ends or it is closed.
type Direct struct {
	direct
	*lane.Slots // nil: no shared memory
	// Verdict is the daemon's reply to the memory that was offered.
	Verdict lane.Verdict
	region  *lane.Region
	stop    func() bool
}

// DialDirect opens a direct stream to the daemon at an address that SocketPath accepts, with
// size bytes of shared memory, a multiple of lane.Grain. The stream has no shared memory if
// size is 0, this system cannot share memory, or the daemon refuses it. A daemon that Dial
// reaches may know no direct streams: then DialDirect fails.
func DialDirect(ctx context.Context, addr string, size int64) (*Direct, error) {
	path, err := SocketPath(addr)
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, reconnect.MinConnectTimeout)
	defer cancel()
	c, err := dialUnix(within, path)
	if err != nil {
		return nil, err
	}
	region, verdict, err := lane.Offer(within, c, size)
	if errors.Is(err, lane.ErrUnsupported) {
		region, verdict, err = lane.Offer(within, c, 0)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	d := &Direct{direct: newDirect(ctx, c, false), Verdict: verdict, region: region}
	if region != nil {
		d.Slots = lane.NewSlots(region)
	}
	d.stop = context.AfterFunc(d.ctx, d.end)
	return d, nil
}

// DialDirectTLS is DialDirect for an address that HostPort accepts, with config as in
// DialTLS. No memory is shared.
func DialDirectTLS(ctx context.Context, addr string, config *tls.Config) (*Direct, error) {
	hostport, c, err := clientTLS(addr, config)
	if err != nil {
		return nil, err
	}
	c.NextProtos = []string{DirectProtocol}
	within, cancel := context.WithTimeout(ctx, reconnect.MinConnectTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(within, "tcp", hostport)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(under(conn), c)
	if err := secured.HandshakeContext(within); err != nil {
		conn.Close()
		return nil, err
	}
	if p := secured.ConnectionState().NegotiatedProtocol; p != DirectProtocol {
		conn.Close()
		return nil, fmt.Errorf("%w: it chose ALPN protocol %q", lane.ErrVersion, p)
	}
	GiveUpAfter(secured, Silence)
	d := &Direct{direct: newDirect(ctx, secured, false)}
	d.stop = context.AfterFunc(d.ctx, d.end)
	return d, nil
}

func dialUnix(ctx context.Context, path string) (*net.UnixConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// end ends the connection. The memory stays mapped as long as a slot is held.
func (d *Direct) end() {
	if c, tcp := d.socket.(*net.TCPConn); tcp {
		// A reset reaches the daemon at once, not after the data that it has yet to read.
		_ = c.SetLinger(0)
	}
	d.socket.Close() // not conn.Close: TLS would first send a message, which may block
	if d.region != nil {
		d.region.Release()
	}
}

// Close ends the stream and its connection.
func (d *Direct) Close() {
	if d.stop() {
		d.end()
	}
	d.cancel()
}

// Ended reports whether the daemon or the host has ended the connection. Only then may the
// daemon have taken the memory's pages away.
func (d *Direct) Ended() bool { return Ended(d.socket) }

// SendMsg implements Stream. Its error is io.EOF if RecvMsg returns the reason, and a gRPC
// status otherwise.
func (d *Direct) SendMsg(m any) error {
	b, err := marshal(m)
	if err != nil {
		return err
	}
	if d.send(0, b) != nil {
		return io.EOF
	}
	return nil
}

// CloseSend implements Stream.
func (d *Direct) CloseSend() error { return d.conn.CloseWrite() }

// RecvMsg implements Stream. Its error is io.EOF at the end of a stream that succeeded, an
// *Error that the daemon sent, or a gRPC status.
func (d *Direct) RecvMsg(m any) error {
	var head [prefix]byte
	err := d.ReadMessageHeader(head[:])
	if err == io.EOF { // without the daemon's last message
		err = d.broken(err)
	}
	if err != nil {
		return err
	}
	size, last, err := messageSize(head)
	if err != nil {
		return err
	}
	if r, ok := m.(*Response); ok && r.Place != nil && !last {
		if done, err := d.placed(r, size); done || err != nil {
			return err
		}
	}
	b, err := d.Read(size)
	if err != nil {
		return err
	}
	defer b.Free()
	if last {
		return outcome(b)
	}
	if err := (Codec{}).Unmarshal(b, m); err != nil {
		return status.Errorf(codes.Internal, "cannot decode message: %v", err)
	}
	return nil
}

// placed receives a response of size bytes if its words have a place. Otherwise it leaves the
// message where it is.
func (d *Direct) placed(r *Response, size int) (done bool, err error) {
	head, err := d.in.Peek(min(size, headBytes))
	if err != nil {
		return false, d.broken(err)
	}
	found, at, ok := wordsLast(head, size)
	if !ok {
		return false, nil
	}
	to := r.Place(found.ID, size-at)
	if to == nil {
		return false, nil
	}
	_, _ = d.in.Discard(at)
	if _, err := io.ReadFull(d.in, to); err != nil {
		return false, d.broken(err)
	}
	found.Words = mem.BufferSlice{mem.SliceBuffer(to)}
	*r = found
	return true, nil
}

// outcome returns the result of a stream, which its last message holds.
func outcome(b mem.BufferSlice) error {
	var last pb.Error
	if err := (Codec{}).Unmarshal(b, &last); err != nil {
		return status.Errorf(codes.Internal, "cannot decode the last message: %v", err)
	}
	switch {
	case last.Code == int32(codes.OK):
		return io.EOF
	case last.Reason == "":
		e := received(codes.Code(last.Code), "", last.Message, 0)
		return status.Error(e.Code, e.Message)
	}
	return FromProto(&last)
}

// DirectServer is the server's end of a direct stream.
type DirectServer struct {
	direct
	region *lane.Region
}

// Protocols returns the ALPN protocols of a server.
func Protocols() []string { return []string{DirectProtocol, http2} }

const http2 = "h2"

// Handshake does a server's TLS handshake with config, whose NextProtos must be Protocols. It
// reports whether a direct stream follows, or HTTP/2. The caller must have set a deadline.
// After an error the connection is closed.
func Handshake(c net.Conn, config *tls.Config) (secured *tls.Conn, direct bool, err error) {
	secured = tls.Server(under(c), config)
	err = secured.Handshake()
	p := secured.ConnectionState().NegotiatedProtocol
	if err == nil && p == "" {
		err = errors.New("wire: the client offers no ALPN protocol")
	}
	if err != nil {
		secured.Close()
		return nil, false, err
	}
	return secured, p == DirectProtocol, nil
}

// ServeDirect returns the direct stream that lane.Accept or Handshake has begun on a
// connection, and its receiver. The caller must hold the region, nil for none, until it has
// called End or closed the connection.
func ServeDirect(ctx context.Context, c Conn, r *lane.Region) (*DirectServer, *Receiver) {
	d := &DirectServer{newDirect(ctx, c, true), r}
	return d, &Receiver{stream: d}
}

// Region returns the shared memory, nil for none.
func (d *DirectServer) Region() *lane.Region { return d.region }

// SendMsg sends a message. Its errors are gRPC statuses.
func (d *DirectServer) SendMsg(m any) error {
	if all, err := d.begin(m, true); all {
		return err
	}
	return d.Finish()
}

// Start begins to send a message. It sends what it can without waiting for the host to read,
// and reports whether that is all or has failed; if not, Finish must be called before anything
// else is sent. Its errors are gRPC statuses.
func (d *DirectServer) Start(m any) (all bool, err error) {
	return d.begin(m, false)
}

func (d *DirectServer) begin(m any, wait bool) (all bool, err error) {
	b, err := marshal(m)
	if err != nil {
		return true, err
	}
	all, err = d.start(0, b, wait)
	return all, d.cut(err)
}

// Finish sends the rest of the message that Start has begun. Its errors are gRPC statuses.
func (d *DirectServer) Finish() error { return d.cut(d.finish()) }

// cut is broken for an error of sending: nothing may follow a part of a message.
func (d *DirectServer) cut(err error) error {
	if err != nil {
		d.mute()
		_ = d.socket.CloseRead() // the stream's reader may wait for what never comes
	}
	return d.broken(err)
}

// End sends the stream's result, a gRPC status or nil for success, and ends the connection.
func (d *DirectServer) End(err error) {
	last := new(pb.Error)
	if err != nil {
		var e *Error
		if s := status.Convert(err); errors.As(FromStatus(err), &e) {
			last = e.Proto()
		} else {
			last.Code, last.Message = int32(s.Code()), s.Message()
		}
	}
	if b, err := proto.Marshal(last); err == nil {
		if d.send(lastFlag, mem.BufferSlice{mem.SliceBuffer(b)}) == nil {
			d.linger()
		}
	}
	d.HangUp()
}

// lingering is how long a host may take to read a stream's result.
const lingering = time.Second

// linger waits for the host to close a TCP connection. Closing it first, with received data
// unread, would send a reset, and the host would lose what it has yet to read.
func (d *DirectServer) linger() {
	if _, tcp := d.socket.(*net.TCPConn); !tcp {
		return
	}
	if d.conn.CloseWrite() != nil || d.socket.CloseWrite() != nil {
		return
	}
	// A deadline will not do: gRPC, which has just handed the connection over, may still clear it.
	defer time.AfterFunc(lingering, func() { d.socket.Close() }).Stop()
	_, _ = io.Copy(io.Discard, d.socket)
}

// Watch hangs up once the host has gone, whether or not the stream is being read then. It
// watches until stop is called.
func (d *DirectServer) Watch() (stop func(), err error) { return watch(d.socket, d.HangUp) }

// HangUp ends the connection. Nothing is sent after that, not even by code that finds the
// context done.
func (d *DirectServer) HangUp() {
	d.mute()
	d.socket.Close() // waits for a read to return
}

// mute ends sending at once, and the stream.
func (d *DirectServer) mute() {
	_ = d.socket.CloseWrite()
	d.cancel()
}
