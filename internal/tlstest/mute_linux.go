package tlstest

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// Mute has an end of a connection lose all that comes for it, unacknowledged, and with it
// every answer, as if its machine had gone.
func Mute(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	lose := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K} // 0 bytes of each packet
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &lose})
	})
	return errors.Join(err, failed)
}
