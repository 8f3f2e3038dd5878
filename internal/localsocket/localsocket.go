// Package localsocket listens on unix sockets that only chosen users of the machine may use.
package localsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// ErrInUse reports a socket that another process serves.
var ErrInUse = errors.New("another process serves this address")

// Access says who may connect.
type Access struct {
	Mode  fs.FileMode // of the socket
	Group string      // of the socket, a name or a number; "": the process's group
	UIDs  []int       // besides the process's own user and root
}

// Private admits only the process's user and root.
var Private = Access{Mode: 0o600}

// Listener accepts connections only from permitted users, by the peer credentials that the
// kernel gives. On a system without them (see Peer) only the socket's mode protects it.
type Listener struct {
	*net.UnixListener
	turnedAway func(uid uint32, err error)
	admit      func(uid uint32) bool
}

// Listen makes a socket and, if it is missing, its folder. It replaces a socket that nothing
// listens on. turnedAway is called for each connection of a user who may not connect.
func Listen(path string, to Access, turnedAway func(uid uint32, err error)) (*Listener, error) {
	dirMode := fs.FileMode(0o700)
	if to.Mode != Private.Mode {
		dirMode = 0o711 // others can reach the socket but not list the folder
	}
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return nil, fmt.Errorf("folder of the socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, err
	}
	// A connection made before this is checked by its credentials too.
	if err := to.apply(path); err != nil {
		l.Close()
		return nil, err
	}
	own := uint32(os.Geteuid())
	return &Listener{l, turnedAway, func(uid uint32) bool {
		return uid == own || uid == 0 || slices.Contains(to.UIDs, int(uid))
	}}, nil
}

// apply sets a socket's group and mode.
func (a Access) apply(path string) error {
	if a.Group != "" {
		id := a.Group
		if _, err := strconv.ParseUint(id, 10, 31); err != nil {
			g, err := user.LookupGroup(a.Group)
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
	return os.Chmod(path, a.Mode)
}

// removeStale removes a socket that nothing listens on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return &fs.PathError{Op: "listen", Path: path, Err: errors.New("exists and is not a socket")}
	}
	c, err := net.Dial("unix", path)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("%w: %s", ErrInUse, path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	default:
		return err
	}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := Peer(c)
		if err == nil && l.admit(uid) {
			return c, nil
		}
		l.turnedAway(uid, err)
		c.Close()
	}
}
