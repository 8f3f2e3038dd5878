//go:build !linux

package lane

import (
	"context"
	"net"
)

// Supported says whether this system can share memory.
const Supported = false

// Offer offers nothing here.
func Offer(context.Context, *net.UnixConn, int64) (*Region, error) { return nil, ErrUnsupported }

// Accept waits for nothing here: HTTP/2 begins.
func Accept(*net.UnixConn, func(int64) Verdict, func(int64), func(Verdict)) (*Region, error) {
	return nil, nil
}

func unmap([]byte) {}
