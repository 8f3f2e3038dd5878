//go:build !linux

package lane

import (
	"net"
	"os"
)

func create(int64) (*os.File, *Region, error) { return nil, nil, ErrUnsupported }

func rightsOf(*os.File) []byte { return nil }

// Accept accepts no direct streams on this system: HTTP/2 should follow.
func Accept(*net.UnixConn, Terms) (*Region, bool, error) { return nil, false, nil }

func unmap([]byte) {}

func punch([]byte) error { return ErrUnsupported }
