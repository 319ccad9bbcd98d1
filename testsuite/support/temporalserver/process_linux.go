package temporalserver

import "syscall"

// processAttributes shield the server from the terminal's signals (its parent
// stops it), and end it with its parent.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
