package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// window is how many bytes a server may send before the client reads, on one
	// stream and on one connection: one message in flight while another is read.
	window = 2 * MaxMessage
	// serverWindow is how many bytes a client may send, on one stream, before the
	// server begins to read the message. gRPC widens it by the message being read.
	serverWindow = 64 << 10
	// buffer is the size in bytes of the socket's read and write buffers. They are
	// pooled: an idle connection has none.
	buffer = 1 << 20
	// maxStreams limits the concurrent calls of one connection, maxHeaders the
	// bytes of one call's headers.
	maxStreams = 128
	maxHeaders = 16 << 10

	clientPing  = 30 * time.Second // of silence before the peer is pinged
	serverPing  = 2 * time.Minute
	pingTimeout = 20 * time.Second // for the reply to a ping
	minPing     = 10 * time.Second // between a client's pings; more frequent ones are abuse
)

// reconnect is quick at first, as a daemon on the same machine may just be starting, and never
// slow: resetting the delay before a call (ResetConnectBackoff) is a data race in gRPC.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// ServerOptions returns gRPC options that set the codec, MaxMessage, window sizes, and
// pings that detect a hung peer.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(Codec{}),
		grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage),
		grpc.InitialWindowSize(serverWindow), grpc.InitialConnWindowSize(window),
		grpc.ReadBufferSize(buffer), grpc.WriteBufferSize(buffer),
		grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(maxHeaders),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: serverPing, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	}
}

// DialOptions returns the client's counterpart of ServerOptions.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(Codec{}),
			grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		grpc.WithReadBufferSize(buffer), grpc.WithWriteBufferSize(buffer),
		grpc.WithConnectParams(reconnect),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: clientPing, Timeout: pingTimeout}),
	}
}

// ErrAddress reports an address that is not of the form that the function wants.
var ErrAddress = errors.New("wire: bad address")

// maxSocketPath is the longest path of a unix socket in bytes (sun_path less its NUL).
const maxSocketPath = 107

// SocketPath returns the path in an address "unix:/path". Its errors wrap ErrAddress: the
// scheme is a different one, or a socket file cannot have this path.
func SocketPath(addr string) (string, error) {
	path, ok := strings.CutPrefix(addr, "unix:")
	switch {
	case !ok:
		return "", fmt.Errorf("%w %q: want unix:/path", ErrAddress, addr)
	case path == "" || path[0] == '@' || strings.ContainsRune(path, 0):
		return "", fmt.Errorf("%w %q: want unix: and the path of a file", ErrAddress, addr)
	case len(path) > maxSocketPath:
		return "", fmt.Errorf("%w %q: path of %d bytes, want at most %d", ErrAddress, addr, len(path), maxSocketPath)
	}
	return path, nil
}

// HostPort returns the host and port of an address "tls:HOST:PORT". Its errors wrap
// ErrAddress. HOST is a name or an IP address, in brackets if it has colons. For a server
// it may be empty, which stands for all addresses of the machine.
func HostPort(addr string) (host, port string, err error) {
	hostport, ok := strings.CutPrefix(addr, "tls:")
	if !ok {
		return "", "", fmt.Errorf("%w %q: want tls:HOST:PORT", ErrAddress, addr)
	}
	host, port, err = net.SplitHostPort(hostport)
	if err != nil {
		return "", "", fmt.Errorf("%w %q: want tls:HOST:PORT", ErrAddress, addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return "", "", fmt.Errorf("%w %q: want a port from 0 to 65535, in decimal", ErrAddress, addr)
	}
	for _, r := range host {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:", r) {
			return "", "", fmt.Errorf("%w %q: want a host name or an IP address", ErrAddress, addr)
		}
	}
	return host, port, nil
}

// clientTLS returns the host and port to connect to for an address that HostPort accepts,
// and the TLS configuration for it: see DialTLS.
func clientTLS(addr string, config *tls.Config) (hostport string, c *tls.Config, err error) {
	host, port, err := HostPort(addr)
	if err == nil && (host == "" || port == "0") {
		err = fmt.Errorf("%w %q: want a host and a port", ErrAddress, addr)
	}
	if err != nil {
		return "", nil, err
	}
	c = config.Clone()
	c.MinVersion = tls.VersionTLS13
	if c.ServerName == "" {
		c.ServerName = host
	}
	return net.JoinHostPort(host, port), c, nil
}

// DialTLS connects lazily to an address that HostPort accepts, with TLS 1.3 and never
// through a proxy. The server must have a certificate for HOST, unless config names
// another server.
func DialTLS(addr string, config *tls.Config) (*grpc.ClientConn, error) {
	hostport, c, err := clientTLS(addr, config)
	if err != nil {
		return nil, err
	}
	dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", hostport)
	})
	return grpc.NewClient("passthrough:///localhost",
		append(DialOptions(), dial, grpc.WithTransportCredentials(alerting{credentials.NewTLS(c)}))...)
}

// Dial connects lazily to an address that SocketPath accepts.
func Dial(addr string) (*grpc.ClientConn, error) {
	path, err := SocketPath(addr)
	if err != nil {
		return nil, err
	}
	// The path does not go through gRPC's target syntax, which would unescape it.
	dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dialUnix(ctx, path) })
	return grpc.NewClient("passthrough:///localhost",
		append(DialOptions(), dial, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
}
