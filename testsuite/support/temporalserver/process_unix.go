//go:build unix && !linux

package temporalserver

import "syscall"

// processAttributes shield the server from the terminal's signals; its parent
// stops it.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
