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

// A direct stream is an Evaluate stream that has a connection to itself: of a unix socket,
// then with memory that both ends share, if they do; or by TLS. gRPC has no part in it: messages
// follow one another, each behind gRPC's prefix, a byte of flags and the size. The last one of
// the server's, with a flag of its own, is an Error and says how the stream has ended. See
// docs/spec.md, section 8.

// DirectProtocol is what a host that speaks TLS asks for, by ALPN, to have a direct stream
// instead of HTTP/2.
const DirectProtocol = "securenets-direct/3"

// Conn is the connection of a direct stream: a *net.UnixConn, or a *tls.Conn on a *net.TCPConn.
type Conn interface {
	net.Conn
	CloseWrite() error
}

// socket is a connection as the system has it.
type socket interface {
	Conn
	syscall.Conn
}

// socketOf returns what a connection sends and receives by.
func socketOf(c Conn) socket {
	if secured, ok := c.(*tls.Conn); ok {
		return secured.NetConn().(socket)
	}
	return c.(socket)
}

// prefix is the bytes before a message.
const prefix = 5

// lastFlag is the flag of the message that ends a direct stream, as gRPC-Web has it.
const lastFlag = 1 << 7

// messageSize returns the size in a message's prefix, and whether the message is the last.
// Its errors are statuses.
func messageSize(p [prefix]byte) (size int, last bool, err error) {
	if p[0]&^lastFlag != 0 {
		return 0, false, status.Error(codes.Internal, "message is compressed, or no message of gRPC's")
	}
	n := binary.BigEndian.Uint32(p[1:])
	if n > MaxMessage {
		return 0, false, status.Errorf(codes.ResourceExhausted, "message of %d bytes, at most %d", n, MaxMessage)
	}
	return int(n), p[0] == lastFlag, nil
}

// direct is an end of a direct stream.
type direct struct {
	server bool
	conn   Conn
	socket socket
	in     *bufio.Reader
	out    []byte // of the message that is sent, put together, up to so many bytes
	most   int
	ctx    context.Context
	cancel context.CancelFunc
}

const (
	// readAhead is how much may have been read of messages that nobody has asked for, in bytes.
	readAhead = 4 << 10
	// together is what is copied of a message to be sent in one piece, in bytes, and with TLS a
	// record. The words behind it leave from where they are.
	together, record = 4 << 10, 16 << 10
)

func newDirect(ctx context.Context, c Conn, server bool) direct {
	d := direct{server: server, conn: c, socket: socketOf(c), in: bufio.NewReaderSize(c, readAhead), most: together}
	if d.socket != c {
		d.most = record
	}
	d.ctx, d.cancel = context.WithCancel(ctx)
	return d
}

// Context returns the stream's context: it ends where the connection is found to have ended.
func (d *direct) Context() context.Context { return d.ctx }

// ReadMessageHeader and Read implement messages.
func (d *direct) ReadMessageHeader(header []byte) error {
	_, err := io.ReadFull(d.in, header)
	if err == io.EOF && !Gone(d.socket) {
		return err // nothing more is sent
	}
	return d.broken(err)
}

func (d *direct) Read(n int) (mem.BufferSlice, error) {
	pool := mem.DefaultBufferPool()
	b := pool.Get(n)
	if _, err := io.ReadFull(d.in, *b); err != nil {
		pool.Put(b)
		return nil, d.broken(err)
	}
	return mem.BufferSlice{mem.NewBuffer(b, pool)}, nil
}

// broken ends the stream if an error says that its connection has ended, and makes a status
// of it, as gRPC has it. A host that has sent half a message and no more may still receive.
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

// marshal returns a message's bytes. Its errors are statuses.
func marshal(m any) (mem.BufferSlice, error) {
	b, err := Codec{}.Marshal(m)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if n := b.Len(); n > MaxMessage {
		b.Free()
		return nil, status.Errorf(codes.ResourceExhausted, "message of %d bytes, at most %d", n, MaxMessage)
	}
	return b, nil
}

// send sends a message. It belongs to one goroutine at a time.
func (d *direct) send(flags byte, b mem.BufferSlice) (err error) {
	d.out = binary.BigEndian.AppendUint32(append(d.out[:0], flags), uint32(b.Len()))
	var rest net.Buffers
	for _, part := range b {
		p := part.ReadOnlyData()
		n := min(len(p), d.most-len(d.out))
		d.out = append(d.out, p[:n]...)
		if n < len(p) {
			rest = append(rest, p[n:])
		}
	}
	if rest == nil {
		_, err = d.conn.Write(d.out)
		return err
	}
	all := append(net.Buffers{d.out}, rest...)
	_, err = all.WriteTo(d.conn)
	return err
}

// Direct is the host's end of a direct stream: a Stream that may have shared memory, which the
// host allocates from. It ends when its context ends or it is closed.
type Direct struct {
	direct
	*lane.Slots // nil: it shares none
	// Verdict says what the daemon said to the memory that it was offered.
	Verdict lane.Verdict
	region  *lane.Region
	stop    func() bool
}

// DialDirect opens a direct stream to the daemon at an address that SocketPath accepts, with
// memory of size bytes, a multiple of lane.Grain, or without: where size is 0, this system
// shares none, or the daemon takes none. An error may be of a daemon that Dial reaches, as it
// does not know direct streams.
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

// DialDirectTLS is DialDirect for an address that HostPort accepts, with a configuration as
// DialTLS takes it. No memory is shared.
func DialDirectTLS(ctx context.Context, addr string, config *tls.Config) (*Direct, error) {
	hostport, c, err := clientTLS(addr, config)
	if err != nil {
		return nil, err
	}
	c.NextProtos = []string{DirectProtocol}
	within, cancel := context.WithTimeout(ctx, reconnect.MinConnectTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: c}).DialContext(within, "tcp", hostport)
	if err != nil {
		return nil, err
	}
	secured := conn.(*tls.Conn)
	if p := secured.ConnectionState().NegotiatedProtocol; p != DirectProtocol {
		conn.Close()
		return nil, fmt.Errorf("%w: the server speaks %q", lane.ErrVersion, p)
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

// end ends the connection. The memory stays as long as a slot is held.
func (d *Direct) end() {
	if c, tcp := d.socket.(*net.TCPConn); tcp {
		// The daemon is to know at once, and not behind what it has yet to read.
		_ = c.SetLinger(0)
	}
	d.socket.Close() // without a word of TLS's, which would wait until that is read
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

// Ended reports whether the daemon or the host has ended the connection. Only then may
// the memory be empty.
func (d *Direct) Ended() bool { return Ended(d.socket) }

// SendMsg implements Stream. Its error is io.EOF if RecvMsg says why, or else a status.
func (d *Direct) SendMsg(m any) error {
	b, err := marshal(m)
	if err != nil {
		return err
	}
	defer b.Free()
	if err := d.send(0, b); err != nil {
		return io.EOF
	}
	return nil
}

// CloseSend implements Stream.
func (d *Direct) CloseSend() error { return d.conn.CloseWrite() }

// RecvMsg implements Stream. Its error is io.EOF at the end of a stream that ended well,
// an *Error of the daemon's, or else a status.
func (d *Direct) RecvMsg(m any) error {
	var head [prefix]byte
	err := d.ReadMessageHeader(head[:])
	if err == io.EOF { // the daemon would have said how it ends
		err = d.broken(err)
	}
	if err != nil {
		return err
	}
	size, last, err := messageSize(head)
	if err != nil {
		return err
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
		return status.Errorf(codes.Internal, "no message of this call: %v", err)
	}
	return nil
}

// outcome returns how a stream has ended, by its last message.
func outcome(b mem.BufferSlice) error {
	var last pb.Error
	if err := (Codec{}).Unmarshal(b, &last); err != nil {
		return status.Errorf(codes.Internal, "no message of this call: %v", err)
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

// Protocols returns what a server that speaks TLS names by ALPN.
func Protocols() []string { return []string{DirectProtocol, http2} }

const http2 = "h2"

// Handshake is a server's part of TLS, with a configuration that names Protocols, up to where
// a direct stream begins, or HTTP/2. The caller has set a deadline. After an error the
// connection is closed.
func Handshake(c net.Conn, config *tls.Config) (secured *tls.Conn, direct bool, err error) {
	secured = tls.Server(c, config)
	err = secured.Handshake()
	p := secured.ConnectionState().NegotiatedProtocol
	if err == nil && p == "" {
		err = errors.New("wire: the client names no protocol")
	}
	if err != nil {
		secured.Close()
		return nil, false, err
	}
	return secured, p == DirectProtocol, nil
}

// ServeDirect returns the stream of a connection on which lane.Accept, or a handshake of TLS,
// has begun one, and its receiver. The caller must hold the region, nil for none, until it has
// called End or closed the connection.
func ServeDirect(ctx context.Context, c Conn, r *lane.Region) (*DirectServer, *Receiver) {
	d := &DirectServer{newDirect(ctx, c, true), r}
	return d, &Receiver{stream: d}
}

// Region returns the memory that is shared, nil for none.
func (d *DirectServer) Region() *lane.Region { return d.region }

// SendMsg sends a message. Its errors are statuses.
func (d *DirectServer) SendMsg(m any) error {
	b, err := marshal(m)
	if err != nil {
		return err
	}
	defer b.Free()
	return d.broken(d.send(0, b))
}

// End sends how the stream ended, a status or nil for success, and ends the connection.
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

// lingering is how long a host may take to read how a stream has ended.
const lingering = time.Second

// linger waits for the host to end a connection of TCP. Closed before, with something that
// was not read, the connection would take back what the host has yet to read.
func (d *DirectServer) linger() {
	if _, tcp := d.socket.(*net.TCPConn); !tcp {
		return
	}
	if d.conn.CloseWrite() != nil || d.socket.CloseWrite() != nil {
		return
	}
	// Not by a deadline: gRPC, which has just given the connection away, may still take that off.
	defer time.AfterFunc(lingering, func() { d.socket.Close() }).Stop()
	_, _ = io.Copy(io.Discard, d.socket)
}

// Watch hangs up once the host has gone, whether anybody reads then or not. It watches until
// stop is called.
func (d *DirectServer) Watch() (stop func(), err error) { return watch(d.socket, d.HangUp) }

// HangUp ends the connection. Nothing is sent from then on, not even by code that finds
// the context done.
func (d *DirectServer) HangUp() {
	_ = d.socket.CloseWrite() // at once, as Close need not
	d.cancel()
	d.socket.Close()
}
