package child

import "syscall"

// childAttr keeps a terminal's signals from the child, which ends by stop, or
// with this process whatever ends that.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
