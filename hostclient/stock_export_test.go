package hostclient

import "github.com/securenets/securenets/internal/padstock"

// On returns the stock on another file system.
func (d DurableStock) On(fs padstock.FS) *DurableStock {
	d.fs = fs
	return &d
}
