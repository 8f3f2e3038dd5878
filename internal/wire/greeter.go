package wire

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/securenets/securenets/internal/lane"
)

// Greeter is the transport credentials of a gRPC server that serves every caller, on a unix
// socket or with TLS. It serves direct streams itself, without gRPC. The daemon, which
// identifies callers, has credentials of its own.
type Greeter struct {
	credentials.TransportCredentials // for the methods that this type does not implement
	Terms                            lane.Terms

	ctx     context.Context
	tls     *tls.Config
	serve   func(*DirectStream) error
	streams sync.WaitGroup
}

// NewGreeter returns a greeter that calls serve for each direct stream, in a goroutine, until
// ctx ends. It accepts all memory that is offered. config must have Protocols as NextProtos;
// nil means no TLS.
func NewGreeter(ctx context.Context, config *tls.Config, serve func(*DirectStream) error) *Greeter {
	return &Greeter{TransportCredentials: insecure.NewCredentials(), Terms: lane.AnyTerms(), ctx: ctx, tls: config, serve: serve}
}

// Wait waits for all direct streams to end. Call it when no more can begin.
func (g *Greeter) Wait() { g.streams.Wait() }

// ServerHandshake implements credentials.TransportCredentials.
func (g *Greeter) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	var conn Conn
	var region *lane.Region
	var direct bool
	var err error
	switch local, ok := c.(*net.UnixConn); {
	case ok:
		conn = local
		region, direct, err = lane.Accept(local, g.Terms)
	case g.tls != nil:
		conn, direct, err = Handshake(c, g.tls)
	default:
		return c, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if !direct {
		return conn, nil, nil
	}
	stream, receiver := ServeDirect(g.ctx, conn, region)
	g.streams.Go(func() {
		defer context.AfterFunc(g.ctx, stream.HangUp)()
		stream.End(g.serve(&DirectStream{stream, receiver}))
		if region != nil {
			region.Release()
		}
	})
	return nil, nil, credentials.ErrConnDispatched
}

// ServerStream is a server's end of an Evaluate stream: a grpc.ServerStream, or DirectStream.
type ServerStream interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

// DirectStream is a server's end of a direct stream, used like a grpc.ServerStream.
type DirectStream struct {
	*DirectServer
	receiver *Receiver
}

// RecvMsg receives a message.
func (d *DirectStream) RecvMsg(m any) error {
	if _, err := d.receiver.Next(); err != nil {
		return err
	}
	return d.receiver.Read(m)
}
