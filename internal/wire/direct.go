package wire

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"

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

// A direct stream is an Evaluate stream that has a connection of a unix socket to itself,
// with memory that both ends share. gRPC has no part in it: messages follow one another,
// each behind gRPC's prefix, a byte of flags and the size. The last one of the server's, with a
// flag of its own, is an Error and says how the stream has ended. See docs/spec.md, section 8.

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
	conn   *net.UnixConn
	in     *bufio.Reader
	out    []byte // of the message that is sent, put together
	ctx    context.Context
	cancel context.CancelFunc
}

const (
	// readAhead is how much may have been read of messages that nobody has asked for, in bytes.
	readAhead = 4 << 10
	// together is what is copied to be sent in one piece, in bytes; the words of larger messages
	// leave from where they are.
	together = 4 << 10
)

func newDirect(ctx context.Context, c *net.UnixConn, server bool) direct {
	d := direct{server: server, conn: c, in: bufio.NewReaderSize(c, readAhead)}
	d.ctx, d.cancel = context.WithCancel(ctx)
	return d
}

// Context returns the stream's context: it ends where the connection is found to have ended.
func (d *direct) Context() context.Context { return d.ctx }

// ReadMessageHeader and Read implement messages.
func (d *direct) ReadMessageHeader(header []byte) error {
	_, err := io.ReadFull(d.in, header)
	if err == io.EOF && !lane.Gone(d.conn) {
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
	if d.server && err == io.ErrUnexpectedEOF && !lane.Gone(d.conn) {
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
	size := b.Len()
	d.out = binary.BigEndian.AppendUint32(append(d.out[:0], flags), uint32(size))
	if prefix+size > together {
		parts := net.Buffers{d.out}
		for _, part := range b {
			parts = append(parts, part.ReadOnlyData())
		}
		_, err = parts.WriteTo(d.conn)
		return err
	}
	for _, part := range b {
		d.out = append(d.out, part.ReadOnlyData()...)
	}
	_, err = d.conn.Write(d.out)
	return err
}

// Direct is the host's end of a direct stream: a Stream with shared memory, which the
// host allocates from. It ends when its context ends or it is closed.
type Direct struct {
	direct
	*lane.Slots
	region *lane.Region
	stop   func() bool
}

// DialDirect opens a direct stream to the daemon at an address that SocketPath accepts,
// with memory of size bytes, a multiple of lane.Grain. If the daemon does not take the
// memory, the error is a *lane.RefusedError; if it does not know direct streams, another
// error. Dial may still reach either daemon.
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
	region, err := lane.Offer(within, c, size)
	if err != nil {
		c.Close()
		return nil, err
	}
	d := &Direct{direct: newDirect(ctx, c, false), Slots: lane.NewSlots(region), region: region}
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
	d.conn.Close()
	d.region.Release()
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
func (d *Direct) Ended() bool { return lane.Ended(d.conn) }

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

// ServeDirect returns the stream of a connection on which a region was accepted, and its
// receiver. The caller must hold the region until it has called End or closed the
// connection.
func ServeDirect(ctx context.Context, c *net.UnixConn, r *lane.Region) (*DirectServer, *Receiver) {
	d := &DirectServer{newDirect(ctx, c, true), r}
	return d, &Receiver{stream: d}
}

// Region returns the memory that is shared.
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
		_ = d.send(lastFlag, mem.BufferSlice{mem.SliceBuffer(b)})
	}
	d.HangUp()
}

// HangUp ends the connection. Nothing is sent from then on, not even by code that finds
// the context done.
func (d *DirectServer) HangUp() {
	_ = d.conn.CloseWrite() // at once, as Close need not
	d.cancel()
	d.conn.Close()
}
