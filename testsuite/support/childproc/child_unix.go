//go:build unix && !linux

package childproc

import "syscall"

// processAttributes cannot end a child with this process on this system: if
// this process is killed with SIGKILL, its children stay.
func processAttributes(ownGroup bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: ownGroup}
}
