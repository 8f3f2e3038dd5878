//go:build !linux

package wire

import (
	"io"
	"net"
)

// unixSocket is a unix socket that is read and written otherwise here.
type unixSocket struct{ io.Reader }

func unixSocketOf(Conn) *unixSocket { return nil }

func (*unixSocket) Write(*net.Buffers, bool) error { panic("wire: no unix socket") }
