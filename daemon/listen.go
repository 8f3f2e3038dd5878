package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/securenets/securenets/daemon/model"
)

// ErrAddressInUse reports a socket that another process serves.
var ErrAddressInUse = errors.New("daemon: another process serves this address")

// listen makes the socket, mode 0600, in the place of one that a daemon left
// behind when it died. turnedAway is told of connections of who may not call.
func listen(path string, log *slog.Logger, turnedAway func()) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
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
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	own := uint32(os.Geteuid())
	return &localListener{l, log, turnedAway, func(uid uint32) bool { return uid == own || uid == 0 }}, nil
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
		uid, err := user(c)
		if err == nil && l.admit(uid) {
			return c, nil
		}
		l.log.Warn("caller turned away", "uid", uid, "error", err)
		l.turnedAway()
		c.Close()
	}
}

// local is what gRPC needs to know of a unix socket: nothing is encrypted. It
// shows calls the connection that they came by, so that one can end it.
type local struct {
	credentials.TransportCredentials
}

// caller is who calls, and the connection of the call.
type caller struct {
	credentials.CommonAuthInfo
	owner model.Owner
	conn  net.Conn
}

func (caller) AuthType() string { return "local" }

// ServerHandshake implements credentials.TransportCredentials.
func (local) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	uid, err := user(c.(*net.UnixConn))
	if err != nil {
		return nil, nil, err
	}
	return c, caller{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, model.User(uid), c}, nil
}

// ownerOf returns who makes a call.
func ownerOf(call context.Context) (model.Owner, error) {
	if p, ok := peer.FromContext(call); ok {
		if c, ok := p.AuthInfo.(caller); ok {
			return c.owner, nil
		}
	}
	return "", errors.New("a call of nobody")
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

// user returns the user of the process at the other end.
func user(c *net.UnixConn) (uint32, error) {
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
