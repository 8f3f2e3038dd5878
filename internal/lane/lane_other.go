//go:build !linux

package lane

import (
	"context"
	"net"
	"syscall"
)

// Supported says whether this system can share memory.
const Supported = false

// Offer offers nothing here.
func Offer(context.Context, *net.UnixConn, int64) (*Region, error) { return nil, ErrUnsupported }

// Accept waits for nothing here: HTTP/2 begins.
func Accept(*net.UnixConn, Terms) (*Region, error) { return nil, nil }

// Ended reports nothing here.
func Ended(syscall.Conn) bool { return false }

// Gone reports nothing here.
func Gone(syscall.Conn) bool { return false }

func unmap([]byte) {}

func punch([]byte) error { return ErrUnsupported }
