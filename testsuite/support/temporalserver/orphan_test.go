package temporalserver

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// helperVariable makes this test binary start a child like a server and then
// wait.
const helperVariable = "KEYTURN_TEST_START_A_CHILD"

// runHelper's child writes nothing: a server would also end when it writes to a
// pipe without a reader, but only with its next output.
func runHelper() int {
	child, err := startProcess("sleep", []string{"600"}, os.Environ(), nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(child.command.Process.Pid)
	time.Sleep(time.Hour)
	return 0
}

func TestServerEndsWithItsKilledParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("only Linux ends a child with its parent; nothing to test on", runtime.GOOS)
		return
	}
	helper := exec.Command(os.Args[0])
	helper.Env = append(os.Environ(), helperVariable+"=true")
	helper.Stderr = os.Stderr
	printed, err := helper.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, helper.Start())
	line, readErr := bufio.NewReader(printed).ReadString('\n')
	require.NoError(t, helper.Process.Kill())
	_ = helper.Wait() // it was killed
	require.NoError(t, readErr, "the helper must start a child")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err)
	for deadline := time.Now().Add(10 * time.Second); isRunning(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = unix.Kill(pid, unix.SIGKILL)
			require.Fail(t, "the child outlived the program that started it", "process %d", pid)
		}
	}
}

// isRunning reports whether a process exists and is not a zombie: if the parent
// was killed, the system's first process reaps it at any later time.
func isRunning(pid int) bool {
	if unix.Kill(pid, 0) != nil {
		return false
	}
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return !os.IsNotExist(err) || runtime.GOOS != "linux"
	}
	_, afterName, _ := strings.Cut(string(status), ") ")
	return !strings.HasPrefix(afterName, "Z")
}
