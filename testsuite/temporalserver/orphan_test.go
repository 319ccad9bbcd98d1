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

	"golang.org/x/sys/unix"
)

// helperVariable makes this test program a program that starts a child as a
// server is started, and then does nothing.
const helperVariable = "KEYTURN_TEST_START_A_CHILD"

// runHelper's child writes nothing: a server would also end of writing to a
// pipe that nobody reads any more, but only when it next has something to say.
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

func TestNoServerOutlivesItsKilledStarter(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("only Linux ends a child with its parent: nothing to test on", runtime.GOOS)
		return
	}
	helper := exec.Command(os.Args[0])
	helper.Env = append(os.Environ(), helperVariable+"=true")
	helper.Stderr = os.Stderr
	printed, err := helper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(printed).ReadString('\n')
	if err := helper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = helper.Wait() // it was killed: its status says nothing
	if readErr != nil {
		t.Fatalf("the helper did not start a child: %v", readErr)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); isRunning(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = unix.Kill(pid, unix.SIGKILL)
			t.Fatalf("child %d outlived the program that started it", pid)
		}
	}
}

// isRunning tells whether a process is there and no zombie: one whose parent
// was killed is for the system's first process to collect, at its leisure.
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
