package temporalserver

import "syscall"

// processAttributes keep the terminal's signals from the server, which its
// starter stops when it is time, and have the system end it with its starter.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
