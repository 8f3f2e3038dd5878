//go:build !race

package wire

import (
	"net"
	"syscall"
	"unsafe"
)

// atOnce is how many bytes one system call transfers: while it copies, it holds up goroutines that
// wait for the processor, and the garbage collector.
const atOnce = 256 << 10

// rawRead reads bytes into b, which is not empty.
func rawRead(fd uintptr, b []byte) (int, syscall.Errno) {
	return raw(syscall.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(b)), min(len(b), atOnce))
}

// rawWrite writes bytes of parts, and returns how many.
func rawWrite(fd uintptr, parts net.Buffers) (int, syscall.Errno) {
	var vec [4]syscall.Iovec
	n, left := 0, atOnce
	for ; n < min(len(vec), len(parts)) && left > 0; n++ {
		p := parts[n]
		vec[n].Base = unsafe.SliceData(p)
		vec[n].SetLen(min(len(p), left))
		left -= int(vec[n].Len)
	}
	return raw(syscall.SYS_WRITEV, fd, unsafe.Pointer(&vec), n)
}

// raw is a system call, again if a signal interrupts it. It returns what it transferred.
func raw(call, fd uintptr, at unsafe.Pointer, n int) (int, syscall.Errno) {
	for {
		if r, _, err := syscall.RawSyscall(call, fd, uintptr(at), uintptr(n)); err == 0 {
			return int(r), 0
		} else if err != syscall.EINTR {
			return 0, err
		}
	}
}
