package wire

import (
	"context"
	"errors"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"

	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/ring"
)

// DialShared is Dial where each connection offers the server memory of so many bytes, a
// multiple of lane.Grain, to share. A server that does not take it, or does not know of
// it, is spoken to as Dial does.
func DialShared(addr string, size int64) (*grpc.ClientConn, error) {
	path, err := SocketPath(addr)
	if err != nil {
		return nil, err
	}
	dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dialShared(ctx, path, size) })
	return grpc.NewClient("passthrough:///localhost",
		append(DialOptions(), dial, grpc.WithTransportCredentials(sharing{insecure.NewCredentials()}))...)
}

func dialShared(ctx context.Context, path string, size int64) (net.Conn, error) {
	c, err := dialUnix(ctx, path)
	if err != nil {
		return nil, err
	}
	region, err := lane.Offer(ctx, c, size)
	switch {
	case err == nil:
		return &Shared{UnixConn: c, Slots: lane.NewSlots(region), region: region, closed: make(chan struct{})}, nil
	case errors.As(err, new(*lane.RefusedError)), errors.Is(err, lane.ErrUnsupported):
		return c, nil
	case ctx.Err() != nil:
		c.Close()
		return nil, err
	}
	// A server that knows of none of it has ended the connection.
	c.Close()
	return dialUnix(ctx, path)
}

func dialUnix(ctx context.Context, path string) (*net.UnixConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// Shared is a connection with memory that both of its ends have mapped, as its client has it.
type Shared struct {
	*net.UnixConn
	*lane.Slots
	region *lane.Region
	once   sync.Once
	closed chan struct{} // by Close
}

// Close ends the connection. The memory stays as long as a slot is held. It is gRPC that
// closes a connection.
func (s *Shared) Close() error {
	s.once.Do(func() {
		s.region.Release()
		close(s.closed)
	})
	return s.UnixConn.Close()
}

// HangUp ends the connection, for all its calls, and returns when gRPC makes new ones by
// another.
func (s *Shared) HangUp() {
	s.UnixConn.Close()
	<-s.closed
}

// Ended reports whether the server has ended the connection, or its client has. The memory
// may then be empty, and is not before.
func (s *Shared) Ended() bool { return lane.Ended(s.UnixConn) }

// SharedOf returns what the connection of a client's stream shares, nil for nothing.
// The context is the stream's.
func SharedOf(stream context.Context) *Shared {
	if p, ok := peer.FromContext(stream); ok {
		if i, ok := p.AuthInfo.(sharedInfo); ok {
			return i.shared
		}
	}
	return nil
}

// sharing are credentials that show calls the connection that they are made by.
type sharing struct {
	credentials.TransportCredentials
}

type sharedInfo struct {
	credentials.CommonAuthInfo
	shared *Shared
}

func (sharedInfo) AuthType() string { return "shared" }

// ClientHandshake implements credentials.TransportCredentials.
func (s sharing) ClientHandshake(ctx context.Context, authority string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if shared, ok := c.(*Shared); ok {
		return c, sharedInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, shared}, nil
	}
	return s.TransportCredentials.ClientHandshake(ctx, authority, c)
}

// Clone implements credentials.TransportCredentials.
func (s sharing) Clone() credentials.TransportCredentials {
	return sharing{s.TransportCredentials.Clone()}
}

// PutWords copies v to its wire bytes, len(v)·r.WordBytes() of them.
func PutWords(r ring.Ring, to []byte, v []uint32) {
	if b, ok := asBytes(r, v); ok {
		copy(to, b)
		return
	}
	r.PutWords(to, v)
}
