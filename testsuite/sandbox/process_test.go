package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// patience is how long a test waits for a phase of the sandbox.
	patience = 60 * time.Second
	// shortly is how long the sandbox may take to end when it is asked to.
	shortly = 8 * time.Second

	// runVariable marks the processes of one test's sandbox, which inherit it.
	runVariable = "SANDBOX_TEST_RUN"
)

func TestOnceRotatesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	s := startSandbox(t, "--once", "--shards=2", "--clusters=2", "--latency=10ms")
	s.mustEnd(patience, 0)
	for _, want := range []string{
		`Temporal +127\.0\.0\.1:\d+`, `Web UI +http://127\.0\.0\.1:\d+`, `Ops Manager +http://127\.0\.0\.1:\d+, simulated`,
		`starter rotate --project [0-9a-f]{24} --cluster [0-9a-f]{24}`, `orders-1`, `orders2-config`,
		`records and ledger agree: 6 targets, 6 PUTs`, `rotated in \d+\.\d seconds`,
	} {
		s.mustShow(want)
	}
	if strings.Contains(s.output.String(), "What to try next") {
		t.Error("it shows commands for what is gone already")
	}
}

// Ctrl-C on a terminal reaches the starter, too.
func TestCtrlCDuringTheRotationLeavesNothing(t *testing.T) {
	t.Parallel()
	s := startSandbox(t, "--latency=20s")
	s.waitFor("is listing")
	s.signal(-s.command.Process.Pid, syscall.SIGINT)
	s.mustEnd(shortly, 130)
	s.mustShow(`sandbox: ended by a signal \(interrupt\)`)
}

func TestSIGTERMDuringTheStartLeavesNothing(t *testing.T) {
	t.Parallel()
	s := startSandbox(t)
	s.waitFor("Temporal  ")
	s.signal(s.command.Process.Pid, syscall.SIGTERM)
	s.mustEnd(shortly, 143)
}

func TestKilledSandboxLeavesNoProcess(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a child with its parent")
	}
	s := startSandbox(t, "--latency=20s")
	s.waitFor("is listing")
	s.signal(s.command.Process.Pid, syscall.SIGKILL)
	<-s.ended
	s.mustLeaveNoProcess()
}

func TestCtrlCDuringABuildLeavesNothing(t *testing.T) {
	for name, slow := range map[string]string{"worker and starter": "build", "Temporal's tool": "tool"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := filepath.Join(t.TempDir(), "begun")
			s := newSandbox(t)
			s.setVariables("PATH="+slowGo(t, slow, begun), "XDG_CACHE_HOME="+t.TempDir())
			s.start()
			for deadline := time.Now().Add(patience); !exists(begun); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("no build has begun:\n%s", s.output.String())
				}
			}
			s.signal(s.command.Process.Pid, syscall.SIGINT)
			s.mustEnd(shortly, 130)
		})
	}
}

func TestEndOfGoRunEndsTheSandbox(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("it takes /proc")
	}
	s := newSandbox(t, "--latency=20s")
	s.command.Args = append([]string{"go", "run", "."}, s.command.Args[1:]...)
	s.command.Path, s.command.Err = lookPath(t, "go"), nil
	s.setVariables(sandboxVariable + "=")
	s.start()
	s.waitFor("building ")
	s.signal(s.command.Process.Pid, syscall.SIGTERM)
	<-s.ended
	s.mustLeaveNothing()
}

func TestTakenPortEndsItWithOneLine(t *testing.T) {
	t.Parallel()
	taken := occupy(t)
	s := newSandbox(t)
	s.command.Args = append(s.command.Args, fmt.Sprintf("--ui-port=%d", taken))
	s.start()
	s.mustEnd(shortly, exitFailed)
	if want := fmt.Sprintf("sandbox: --ui-port: port %d is taken\n", taken); s.output.String() != want {
		t.Errorf("got %q, want %q", s.output.String(), want)
	}
}

func TestFailureShowsTheWorkersLog(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("finding the worker takes /proc")
	}
	s := startSandbox(t, "--once", "--latency=20s")
	s.waitFor("is listing")
	worker := s.processes("worker")
	if len(worker) != 1 {
		t.Fatalf("got %d workers", len(worker))
	}
	s.signal(worker[0], syscall.SIGKILL)
	s.mustEnd(shortly, exitFailed)
	s.mustShow(`sandbox: the worker has ended \(signal: killed\)`)
	log := s.mustShow(`sandbox: the worker's log is (.+)`)[1]
	text, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(text), "polling") {
		t.Errorf("got %q, %v; want the worker's log", text, err)
	}
}

// sandboxProcess is a sandbox in a process, and a group, of its own.
type sandboxProcess struct {
	t         *testing.T
	command   *exec.Cmd
	output    syncBuffer
	ended     chan struct{}
	temporary string // where its folder is
	marker    string
}

// startSandbox starts one on ports that no other test's takes.
func startSandbox(t *testing.T, arguments ...string) *sandboxProcess {
	t.Helper()
	s := newSandbox(t, append(arguments, fmt.Sprintf("--temporal-port=%d", unusedPort(t)),
		fmt.Sprintf("--ui-port=%d", unusedPort(t)), fmt.Sprintf("--simulator-port=%d", unusedPort(t)))...)
	s.start()
	return s
}

func newSandbox(t *testing.T, arguments ...string) *sandboxProcess {
	t.Helper()
	s := &sandboxProcess{t: t, command: exec.Command(os.Args[0], arguments...), ended: make(chan struct{}), temporary: t.TempDir()}
	s.marker = runVariable + "=" + s.temporary
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.command.Stdout, s.command.Stderr = &s.output, &s.output
	s.command.WaitDelay = time.Second // a process that is left must not hang the test
	s.setVariables(sandboxVariable+"=true", "TMPDIR="+s.temporary, s.marker,
		// Nothing of these may have an influence.
		"TEMPORAL_ADDRESS=192.0.2.1:7233", "TEMPORAL_API_KEY=key", "OPS_MANAGER_URL=http://192.0.2.1", "KEYTURN_TASK_QUEUE=elsewhere")
	return s
}

func (s *sandboxProcess) setVariables(entries ...string) {
	s.command.Env = append(s.command.Environ(), entries...)
}

func (s *sandboxProcess) start() {
	s.t.Helper()
	if err := s.command.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		_ = s.command.Wait() // mustEnd looks at the exit code
		close(s.ended)
	}()
	s.t.Cleanup(func() {
		for _, pid := range append(s.processes(""), s.command.Process.Pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // most have ended
		}
		<-s.ended
	})
}

func (s *sandboxProcess) signal(pid int, signal syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(pid, signal); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sandboxProcess) waitFor(text string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(s.output.String(), text); time.Sleep(10 * time.Millisecond) {
		select {
		case <-s.ended:
			s.t.Fatalf("it has ended without %q:\n%s", text, s.output.String())
		default:
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%q did not come:\n%s", text, s.output.String())
		}
	}
}

// mustEnd waits for its end, with nothing left.
func (s *sandboxProcess) mustEnd(within time.Duration, exitCode int) {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(within):
		s.t.Fatalf("it has not ended within %s:\n%s", within, s.output.String())
	}
	if got := s.command.ProcessState.ExitCode(); got != exitCode {
		s.t.Errorf("exit code %d, want %d:\n%s", got, exitCode, s.output.String())
	}
	if exitCode == exitFailed {
		s.mustLeaveNoProcess() // but the worker's log
		return
	}
	s.mustLeaveNothing()
}

func (s *sandboxProcess) mustLeaveNothing() {
	s.t.Helper()
	s.mustLeaveNoProcess()
	left, err := filepath.Glob(filepath.Join(s.temporary, "keyturn-sandbox-*"))
	if err != nil || len(left) > 0 {
		s.t.Errorf("it has left files: %v, %v", left, err)
	}
}

// mustLeaveNoProcess gives the system a moment for the ones just killed.
func (s *sandboxProcess) mustLeaveNoProcess() {
	s.t.Helper()
	for deadline := time.Now().Add(shortly); len(s.processes("")) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("it has left processes: %v", s.processes(""))
		}
	}
}

// processes are those of this sandbox's, it included, with the given name; none
// where there is no /proc.
func (s *sandboxProcess) processes(name string) (found []int) {
	environments, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is right
	for _, path := range environments {
		environment, err := os.ReadFile(path)
		if err != nil || !slices.Contains(strings.Split(string(environment), "\x00"), s.marker) {
			continue
		}
		directory := filepath.Dir(path)
		command, err := os.ReadFile(filepath.Join(directory, "comm"))
		if err != nil || name != "" && strings.TrimSpace(string(command)) != name {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(directory)); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

// mustShow returns the match and its groups.
func (s *sandboxProcess) mustShow(pattern string) []string {
	s.t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(s.output.String())
	if match == nil {
		s.t.Fatalf("the output lacks %s:\n%s", pattern, s.output.String())
	}
	return match
}

// slowGo is a folder with a go that never ends doing one thing, with a child as
// Go's builds have them, and does another build at once.
func slowGo(t *testing.T, slow, begun string) string {
	t.Helper()
	script := fmt.Sprintf("#!/bin/sh\ncase \" $* \" in\n*' %s '*) %s 600 & : > '%s'; wait ;;\n*' build '*) ;;\n*) exec '%s' \"$@\" ;;\nesac\n",
		slow, lookPath(t, "sleep"), begun, lookPath(t, "go"))
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "go"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return directory
}

func lookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// usedPorts are those that tests have been given: no two get the same.
var usedPorts sync.Map

// unusedPort is below the range that systems take outgoing connections' ports
// from, and apart from the one that temporalserver chooses from.
func unusedPort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 10000 + rand.IntN(10000)
		if _, used := usedPorts.LoadOrStore(port, true); !used && tryPort(port) == nil {
			return port
		}
	}
	t.Fatal("found no free port")
	return 0
}

// syncBuffer may be written and read at once.
type syncBuffer struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (b *syncBuffer) Write(text []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.Write(text)
}

func (b *syncBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.String()
}
