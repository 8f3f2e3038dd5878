//go:build race

package wire

import (
	"errors"
	"net"
	"syscall"
)

// The race detector knows by these system calls that what comes before a message was sent comes
// before what follows its receipt.

func rawRead(fd uintptr, b []byte) (int, syscall.Errno) {
	return told(func() (int, error) { return syscall.Read(int(fd), b) })
}

func rawWrite(fd uintptr, parts net.Buffers) (int, syscall.Errno) {
	return told(func() (int, error) { return syscall.Write(int(fd), parts[0]) })
}

func told(call func() (int, error)) (int, syscall.Errno) {
	for {
		n, err := call()
		var errno syscall.Errno
		if err == nil {
			return n, 0
		} else if errors.As(err, &errno); errno != syscall.EINTR {
			return 0, errno
		}
	}
}
