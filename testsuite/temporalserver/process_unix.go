//go:build unix && !linux

package temporalserver

import "syscall"

// processAttributes keep the terminal's signals from the server, which its
// starter stops when it is time.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
