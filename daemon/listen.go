package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/securenets/securenets/daemon/batch"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/daemon/metrics"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/localsocket"
	"github.com/securenets/securenets/internal/wire"
)

// ErrAddressInUse reports a socket on which another process listens.
var ErrAddressInUse = localsocket.ErrInUse

// listen opens the unix socket at path and, where it is configured, the TLS listener.
func (s *service) listen(path string, cfg config.Config) (listeners []net.Listener, secure *tlsFiles, err error) {
	access, err := accessOf(cfg)
	if err != nil {
		return nil, nil, err
	}
	socket, err := localsocket.Listen(path, access, s.stranger)
	if err != nil {
		return nil, nil, fmt.Errorf("daemon: %w", err)
	}
	port, secure, err := s.listenTLS(cfg.TLS)
	if err != nil {
		socket.Close()
		return nil, nil, err
	}
	if port == nil {
		return []net.Listener{socket}, nil, nil
	}
	s.log.Info("tls", "address", port.Addr().String())
	return []net.Listener{socket, port}, secure, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// accessOf returns who may connect to the daemon's unix socket.
func accessOf(c config.Config) (localsocket.Access, error) {
	mode, err := strconv.ParseUint(c.SocketMode, 8, 9)
	return localsocket.Access{Mode: fs.FileMode(mode), Group: c.SocketGroup, UIDs: c.AllowedUIDs}, err
}

// errUID: the user on the other end of the unix socket may not call.
var errUID = errors.New("daemon: neither the daemon's user, nor root, nor among allowed_uids")

// stranger logs and counts a connection of a user who may not connect.
func (s *service) stranger(uid uint32, err error) {
	if err == nil {
		err = errUID
	}
	s.log.Warn("caller turned away", "uid", uid, "error", err)
	s.metrics.Refused(metrics.Stranger)
}

// transport is the server's transport credentials. It identifies callers, on a unix socket or
// over TLS, and gives each call its connection, so that the call can end it. Unix sockets are
// not encrypted.
type transport struct {
	credentials.TransportCredentials           // for the methods that this type does not implement
	tls                              *tlsFiles // nil: no TLS
	turnedAway                       func(from net.Addr, why error)
	connections                      *atomic.Uint64 // unix connections so far
	sharing                          *sharing
	// direct serves a direct stream with its region, nil for none.
	direct func(wire.Conn, *lane.Region, model.Owner, batch.Caller)
}

// caller identifies the caller and the connection of a call. On a unix socket each connection
// counts as one caller in the queue, so that a user's programs share fairly too. Over TLS an
// owner has one share, however many connections it opens.
type caller struct {
	credentials.CommonAuthInfo
	owner model.Owner
	conn  net.Conn
	name  batch.Caller
}

func (caller) AuthType() string { return "securenets" }

// ServerHandshake implements credentials.TransportCredentials. Direct streams it serves
// without gRPC.
func (t transport) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if g, ok := c.(*greeting); ok {
		c = g.Conn
	}
	local, ok := c.(*net.UnixConn)
	if !ok {
		secured, owner, direct, err := t.handshake(c)
		if err != nil {
			t.turnedAway(c.RemoteAddr(), err)
			return nil, nil, err
		}
		name := batch.Caller(owner)
		if direct {
			t.direct(secured, nil, owner, name)
			return nil, nil, credentials.ErrConnDispatched
		}
		level := credentials.PrivacyAndIntegrity
		return secured, caller{credentials.CommonAuthInfo{SecurityLevel: level}, owner, secured, name}, nil
	}
	uid, err := localsocket.Peer(local)
	if err != nil {
		return nil, nil, err
	}
	region, direct, err := lane.Accept(local, t.sharing.terms())
	if err != nil {
		return nil, nil, err
	}
	owner := model.User(uid)
	name := batch.Caller(fmt.Sprintf("%s, connection %d", owner, t.connections.Add(1)))
	if direct {
		t.direct(local, region, owner, name)
		return nil, nil, credentials.ErrConnDispatched
	}
	return c, caller{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, owner, c, name}, nil
}

// callerOf returns the caller of a call: the owner, whose models it may use, and its name in
// the queue.
func callerOf(call context.Context) (model.Owner, batch.Caller, error) {
	if p, ok := peer.FromContext(call); ok {
		if c, ok := p.AuthInfo.(caller); ok {
			return c.owner, c.name, nil
		}
	}
	return "", "", errors.New("daemon: call without a caller")
}

// hangUp ends the connection of a call. Ending the call alone would not free the answers that
// the caller does not read: gRPC queues the call's status behind them.
func hangUp(call context.Context) {
	if p, ok := peer.FromContext(call); ok {
		if c, ok := p.AuthInfo.(caller); ok {
			c.conn.Close()
		}
	}
}
