package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/securenets/securenets/daemon/batch"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/config"
	"github.com/securenets/securenets/internal/lane"
)

// ErrAddressInUse reports a socket that another process serves.
var ErrAddressInUse = errors.New("daemon: another process serves this address")

// access says who may connect to a unix socket.
type access struct {
	mode  fs.FileMode // of the socket
	group string      // its group, a name or a number; "": the daemon's
	uids  []int       // beside the daemon's own user and root
}

// private is for the daemon's user and root.
var private = access{mode: 0o600}

// accessOf returns that to the daemon's own socket.
func accessOf(c config.Config) (access, error) {
	mode, err := strconv.ParseUint(c.SocketMode, 8, 9)
	return access{fs.FileMode(mode), c.SocketGroup, c.AllowedUIDs}, err
}

// listen makes a socket in the place of one that a daemon left behind when it died.
// turnedAway is told of connections of who may not call.
func listen(path string, to access, log *slog.Logger, turnedAway func()) (net.Listener, error) {
	dirMode := fs.FileMode(0o700)
	if to.mode != private.mode {
		dirMode = 0o711 // others find the socket, and nothing else
	}
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, err
	}
	// Who connected before this is turned away by its credentials.
	if err := to.apply(path); err != nil {
		l.Close()
		return nil, err
	}
	own := uint32(os.Geteuid())
	return &localListener{l, log, turnedAway, func(uid uint32) bool {
		return uid == own || uid == 0 || slices.Contains(to.uids, int(uid))
	}}, nil
}

// apply sets group and mode of a socket.
func (a access) apply(path string) error {
	if a.group != "" {
		id := a.group
		if _, err := strconv.ParseUint(id, 10, 31); err != nil {
			g, err := user.LookupGroup(a.group)
			if err != nil {
				return err
			}
			id = g.Gid
		}
		gid, err := strconv.Atoi(id)
		if err != nil {
			return err
		}
		if err := os.Chown(path, -1, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, a.mode)
}

// removeStale removes a socket that no one listens on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return &fs.PathError{Op: "listen", Path: path, Err: errors.New("is there and is no socket")}
	}
	c, err := net.Dial("unix", path)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("%w: %s", ErrAddressInUse, path)
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(path)
	default:
		return err
	}
}

// localListener accepts the connections of users who may call, by the peer
// credentials that the kernel vouches for.
type localListener struct {
	*net.UnixListener
	log        *slog.Logger
	turnedAway func() // is told of each
	admit      func(uid uint32) bool
}

func (l *localListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peerUser(c)
		if err == nil && l.admit(uid) {
			return c, nil
		}
		l.log.Warn("caller turned away", "uid", uid, "error", err)
		l.turnedAway()
		c.Close()
	}
}

// transport finds out who connects, by a unix socket or by TLS, and shows calls the
// connection that they came by, so that one can end it. On a unix socket nothing is
// encrypted.
type transport struct {
	credentials.TransportCredentials // of what this type leaves out
	tls                              credentials.TransportCredentials
	turnedAway                       func(from net.Addr, why error)
	connections                      *atomic.Uint64 // so far
	sharing                          *sharing
	// direct takes a connection that is a direct stream, and its region.
	direct func(*net.UnixConn, *lane.Region, model.Owner, batch.Caller)
}

// caller is who calls, and the connection of the call. To the queue each connection of a
// unix socket is a caller of its own, so that shares are between the programs of a user,
// too; by TLS an owner has one share, whatever it opens.
type caller struct {
	credentials.CommonAuthInfo
	owner model.Owner
	conn  net.Conn
	name  batch.Caller
}

func (caller) AuthType() string { return "securenets" }

// ServerHandshake implements credentials.TransportCredentials. It takes direct streams away
// from gRPC.
func (t transport) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	local, ok := c.(*net.UnixConn)
	if !ok {
		secured, owner, err := t.handshake(c)
		if err != nil {
			t.turnedAway(c.RemoteAddr(), err)
			return nil, nil, err
		}
		level := credentials.PrivacyAndIntegrity
		return secured, caller{credentials.CommonAuthInfo{SecurityLevel: level}, owner, secured, batch.Caller(owner)}, nil
	}
	uid, err := peerUser(local)
	if err != nil {
		return nil, nil, err
	}
	region, err := lane.Accept(local, t.sharing.terms())
	if err != nil {
		return nil, nil, err
	}
	owner := model.User(uid)
	name := batch.Caller(fmt.Sprintf("%s, connection %d", owner, t.connections.Add(1)))
	if region != nil {
		t.direct(local, region, owner, name)
		return nil, nil, credentials.ErrConnDispatched
	}
	return c, caller{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, owner, c, name}, nil
}

// callerOf returns who makes a call: whose models it may use, and who it is to the queue.
func callerOf(call context.Context) (model.Owner, batch.Caller, error) {
	if p, ok := peer.FromContext(call); ok {
		if c, ok := p.AuthInfo.(caller); ok {
			return c.owner, c.name, nil
		}
	}
	return "", "", errors.New("a call of nobody")
}

// hangUp ends the connection of a call. Only then does gRPC let go of what the
// caller does not read: the status of a call waits behind its answers.
func hangUp(call context.Context) {
	if p, ok := peer.FromContext(call); ok {
		if c, ok := p.AuthInfo.(caller); ok {
			c.conn.Close()
		}
	}
}

// peerUser returns the user of the process at the other end.
func peerUser(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}
