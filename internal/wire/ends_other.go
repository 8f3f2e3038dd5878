//go:build !linux

package wire

import (
	"net"
	"syscall"
	"time"
)

// Ended always returns false on this system.
func Ended(syscall.Conn) bool { return false }

// Gone always returns false on this system.
func Gone(syscall.Conn) bool { return false }

func watch(syscall.Conn, func()) (stop func(), err error) { return func() {}, nil }

func setUserTimeout(*net.TCPConn, time.Duration) error { return nil }
