//go:build race

package wire

import (
	"net"
	"syscall"
)

// The race detector knows by these system calls that what comes before a message was sent comes
// before what follows its receipt.

func rawRead(fd uintptr, b []byte) (int, syscall.Errno) { return toldRead(fd, b) }

func rawWrite(fd uintptr, parts net.Buffers) (int, syscall.Errno) {
	return told(func() (int, error) { return syscall.Write(int(fd), parts[0]) })
}
