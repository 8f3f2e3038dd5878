package daemon

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/securenets/securenets/internal/wire"
)

// TestReadAsItDrains: a request that arrives while the daemon drains does not end its stream
// with success, which would mislead its caller.
func TestReadAsItDrains(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		ends[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer ends[i].Close()
	}
	if _, err := ends[0].Write([]byte{0, 0, 0, 0, 1}); err != nil { // a request of a byte
		t.Fatal(err)
	}
	draining, drain := context.WithCancel(t.Context())
	drain()
	_, receiver := wire.ServeDirect(t.Context(), ends[1].(*net.UnixConn), nil)
	e := &evaluation{service: &service{draining: draining}, receiver: receiver}
	var told *wire.Error
	if err := e.read(); !errors.As(err, &told) || told.Reason != wire.ReasonShuttingDown {
		t.Errorf("%v, want %s", err, wire.ReasonShuttingDown)
	}
}
