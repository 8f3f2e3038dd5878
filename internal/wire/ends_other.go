//go:build !linux

package wire

import (
	"net"
	"syscall"
	"time"
)

// Ended reports nothing here.
func Ended(syscall.Conn) bool { return false }

// Gone reports nothing here.
func Gone(syscall.Conn) bool { return false }

func watch(syscall.Conn, func()) (stop func(), err error) { return func() {}, nil }

func setUserTimeout(*net.TCPConn, time.Duration) error { return nil }
