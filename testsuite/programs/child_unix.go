//go:build unix && !linux

package programs

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// processAttributes can't have the system end a child with this process here:
// one that is killed with SIGKILL leaves its children.
func processAttributes(ownGroup bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: ownGroup}
}

// childrenOf returns the processes that a process has started.
func childrenOf(parent int) (children []int) {
	listed, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(listed)) {
		fields := strings.Fields(line)
		if len(fields) != 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(fields[0]); err == nil {
			children = append(children, pid)
		}
	}
	return children
}
