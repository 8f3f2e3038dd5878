// Package child runs securenetsd as a child process.
package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/securenets/securenets/cmd/securenets/internal/cputime"
	"github.com/securenets/securenets/hostclient"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 20 * time.Second // past a daemon's own time to drain what its caller leaves
	pollPause    = 10 * time.Millisecond
)

// Daemon is a daemon that runs as a child.
type Daemon struct {
	Addr string
	Info hostclient.Info // once it is ready

	socket  string
	log     string // path
	process *os.Process
	exited  chan struct{}
	err     error // of the exit; valid once exited is closed
}

// Start runs the daemon at path binary on a socket in dir, which it makes, with a
// configuration.
func Start(binary, dir, config string) (*Daemon, error) {
	c := &Daemon{
		socket: filepath.Join(dir, "socket"),
		log:    filepath.Join(dir, "log"),
		exited: make(chan struct{}),
	}
	c.Addr = "unix:" + c.socket
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(c.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(binary, "serve", "--config", path, "--listen", c.Addr, "--state-dir", filepath.Join(dir, "state"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttr()
	started := make(chan error)
	go func() {
		// The child dies with the thread that started it: this one stays until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	c.process = cmd.Process
	return c, nil
}

// Ready waits until the daemon serves.
func (c *Daemon) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("the daemon does not serve after %v", startTimeout))
	defer cancel()
	for {
		if c.serves(ctx) {
			return nil
		}
		select {
		case <-time.After(pollPause):
		case <-c.exited:
			return errors.New("the daemon ended as it started")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// serves reports whether the daemon's health service says so.
func (c *Daemon) serves(ctx context.Context) bool {
	if _, err := os.Stat(c.socket); err != nil {
		return false
	}
	client, err := hostclient.Dial(c.Addr, hostclient.SharedMemory(0))
	if err != nil {
		return false
	}
	defer client.Close()
	c.Info, err = client.Info(ctx)
	return err == nil && c.Info.Serving
}

// CPUTime returns the processor time that the daemon has used so far.
func (c *Daemon) CPUTime() (time.Duration, error) { return cputime.Of(c.process.Pid) }

// Stop ends the daemon. It returns an error unless that exits with status 0 of
// its own.
func (c *Daemon) Stop() error {
	c.process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(stopTimeout):
		c.process.Kill()
		<-c.exited
	}
	if c.err != nil {
		return fmt.Errorf("the daemon: %w", c.err)
	}
	return nil
}

// ShowLog writes the last lines of the daemon's log.
func (c *Daemon) ShowLog(w io.Writer) {
	const most = 20
	text, err := os.ReadFile(c.log)
	if err != nil || len(text) == 0 {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	fmt.Fprintf(w, "the log of the daemon at %s:\n", c.Addr)
	for _, line := range lines[max(0, len(lines)-most):] {
		fmt.Fprintf(w, "  %s\n", line)
	}
}
