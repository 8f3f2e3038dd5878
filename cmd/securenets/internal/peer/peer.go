// Package peer runs a second process of this program as the far end of a connection, and
// seals with it, so that the cost of sending is measured between two processes, as it
// will be in use.
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
	"strings"

	"github.com/securenets/securenets/hostclient"
)

// EchoCommand is the name of the hidden command that runs hostclient.ServeEcho, with an
// address.
const EchoCommand = "echo"

// Seal is hostclient.Seal with o.Echo set where it is of use.
func Seal(ctx context.Context, model []byte, o hostclient.SealOptions) (models []hostclient.SealedModel, secret *hostclient.Secret, err error) {
	err = WithEcho(ctx, o, func(o hostclient.SealOptions) error {
		models, secret, err = hostclient.Seal(ctx, model, o)
		return err
	})
	return models, secret, err
}

// WithEcho calls do with o.Echo set where it is of use, until do returns.
func WithEcho(ctx context.Context, o hostclient.SealOptions, do func(hostclient.SealOptions) error) error {
	if o.Place == hostclient.PlaceAuto {
		start := Start
		if o.Link == hostclient.LinkTLS {
			start = StartTLS
		}
		p, err := start(ctx, EchoCommand)
		if err != nil {
			return fmt.Errorf("echo: %w", err)
		}
		defer p.Stop() // it has done what it is for
		o.Echo = p.Addr
	}
	return do(o)
}

// Process is a second process of this program, which serves at an address.
type Process struct {
	Addr string
	PID  int
	Stop func() error // ends it
}

// Start runs a command of this program that takes an address, says a line of where it
// serves once it does, and ends with its input; until ctx ends at the latest.
func Start(ctx context.Context, command string) (*Process, error) {
	dir, err := os.MkdirTemp("", "sn") // short: a socket's path is at most 107 bytes
	if err != nil {
		return nil, err
	}
	return start(ctx, command, unixScheme+filepath.Join(dir, "s"), func() error { return os.RemoveAll(dir) })
}

// StartTLS is Start at a port of this machine.
func StartTLS(ctx context.Context, command string) (*Process, error) {
	return start(ctx, command, tlsScheme+"127.0.0.1:0", func() error { return nil })
}

const unixScheme, tlsScheme = "unix:", "tls:"

// start runs a command at an address, and cleans up once it has ended.
func start(ctx context.Context, command, addr string, clean func() error) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, errors.Join(err, clean())
	}
	cmd := exec.CommandContext(ctx, self, command, addr)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err, err2, cmd.Start()); err != nil {
		return nil, errors.Join(err, clean())
	}
	p := &Process{PID: cmd.Process.Pid, Stop: func() error { return errors.Join(in.Close(), cmd.Wait(), clean()) }}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	p.Addr = strings.TrimSuffix(line, "\n")
	return p, nil
}

// Serve is such a command: it says on out where it serves, and has serve do so until in
// ends, which it does with the process that holds its other end.
func Serve(ctx context.Context, addr string, in io.Reader, out io.Writer, serve func(context.Context, net.Listener) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	network, scheme := "unix", unixScheme
	if strings.HasPrefix(addr, tlsScheme) {
		network, scheme = "tcp", tlsScheme
	}
	l, err := net.Listen(network, strings.TrimPrefix(addr, scheme))
	if err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, in)
		cancel()
	}()
	fmt.Fprintln(out, scheme+l.Addr().String())
	return serve(ctx, l)
}
