//go:build !linux

package wire

import "syscall"

// Ended reports nothing here.
func Ended(syscall.Conn) bool { return false }

// Gone reports nothing here.
func Gone(syscall.Conn) bool { return false }

func watch(syscall.Conn, func()) (stop func(), err error) { return func() {}, nil }
