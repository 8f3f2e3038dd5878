//go:build !linux

package child

import "syscall"

// childAttr keeps a terminal's signals from the child, which ends by stop.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
