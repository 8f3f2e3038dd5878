// Package peer runs a second process of this program as the far end of a connection, and
// seals with it, so that what sending costs is measured as it will be.
package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/securenets/securenets/hostclient"
)

// Command is the name of the hidden command that serves, with a socket's path.
const Command = "echo"

// Seal is hostclient.Seal with o.Echo set where it is of use.
func Seal(ctx context.Context, model []byte, o hostclient.SealOptions) ([]hostclient.SealedModel, *hostclient.Secret, error) {
	if o.Place == hostclient.PlaceAuto {
		p, err := Start(ctx, Command)
		if err != nil {
			return nil, nil, fmt.Errorf("echo: %w", err)
		}
		defer p.Stop() // it has done what it is for
		o.Echo = p.Addr
	}
	return hostclient.Seal(ctx, model, o)
}

// Process is a second process of this program, which serves at an address.
type Process struct {
	Addr string
	PID  int
	Stop func() error // ends it
}

// Start runs a command of this program that takes a socket's path, says a line once it
// serves there, and ends with its input; until ctx ends at the latest.
func Start(ctx context.Context, command string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sn") // short: a socket's path is at most 107 bytes
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "s")
	cmd := exec.CommandContext(ctx, self, command, path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err, err2, cmd.Start()); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p := &Process{"unix:" + path, cmd.Process.Pid, func() error { return errors.Join(in.Close(), cmd.Wait(), os.RemoveAll(dir)) }}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// Serve is such a command: it says on out that it serves, and has serve do so until in
// ends, which it does with the process that holds its other end.
func Serve(ctx context.Context, path string, in io.Reader, out io.Writer, serve func(context.Context, net.Listener) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, in)
		cancel()
	}()
	fmt.Fprintln(out, "serving")
	return serve(ctx, l)
}
