package main

import (
	"bytes"
	"fmt"
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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/support/childproc"
	"keyturn/testsuite/support/freeport"
	"keyturn/testsuite/support/temporalserver"
)

const (
	// waitTimeout limits the wait for a phase of the sandbox.
	waitTimeout = 60 * time.Second
	// stopTimeout limits the time until the sandbox has stopped.
	stopTimeout = 8 * time.Second

	// runVariable marks the processes of one test's sandbox, which inherit it.
	runVariable = "SANDBOX_TEST_RUN"
)

func TestOnceRotatesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, append(portFlags(t), "--once", "--shards=2", "--clusters=2", "--latency=10ms")...)
	s.start()
	s.mustEnd(waitTimeout, 0)
	for _, want := range []string{
		`Temporal +127\.0\.0\.1:\d+`, `Web UI +http://127\.0\.0\.1:\d+`, `Ops Manager +http://127\.0\.0\.1:\d+, simulated`,
		`keyturn rotate --project [0-9a-f]{24} --cluster [0-9a-f]{24}`, `orders-1`, `orders2-config`,
		`records match the ledger: 6 targets, 6 PUTs`, `rotated in \d+\.\d seconds`,
	} {
		s.mustShow(want)
	}
	assert.NotContains(t, s.output.String(), "Next steps", "the commands need a running sandbox")
}

func TestOnceRotatesADeployment(t *testing.T) {
	t.Parallel()
	s := startSandbox(t, "--once", "--deployment", "--shards=1", "--member-time=20ms", "--latency=10ms")
	s.mustEnd(waitTimeout, 0)
	for _, want := range []string{
		`deployment +audit, 3 members in audit`, `deployment +orders, 6 members in orders-0, orders-config`,
		`keyturn rotate --deployment --project [0-9a-f]{24}`, `orders-config-2`,
		`records match the ledger: 9 processes with one new key each; 2 PUTs, which changed 0 bytes besides the times; a new key of each of 3 replica sets is proven`,
		`rotated in \d+\.\d seconds`,
	} {
		s.mustShow(want)
	}
	assert.NotContains(t, s.output.String(), "Next steps", "the commands need a running sandbox")
}

// Ctrl-C in a terminal also reaches the command line.
func TestCtrlCDuringTheRotationLeavesNothing(t *testing.T) {
	t.Parallel()
	s := startSandbox(t, "--latency=20s")
	s.waitFor("is listing")
	s.signal(-s.command.Process.Pid, syscall.SIGINT)
	s.mustEnd(stopTimeout, 130)
	s.mustShow(`sandbox: interrupted by a signal \(interrupt\)`)
}

func TestSIGTERMDuringTheStartLeavesNothing(t *testing.T) {
	t.Parallel()
	s := startSandbox(t)
	s.waitFor("Temporal  ")
	s.signal(s.command.Process.Pid, syscall.SIGTERM)
	s.mustEnd(stopTimeout, 143)
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
	t.Parallel()
	for name, slow := range map[string]string{"worker and starter": "-exec cp", "Temporal's tool": "tool"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			started := filepath.Join(t.TempDir(), "started")
			s := newSandbox(t)
			s.setVariables("PATH="+slowGo(t, slow, started), "XDG_CACHE_HOME="+t.TempDir())
			s.start()
			for deadline := time.Now().Add(waitTimeout); !exists(started); time.Sleep(10 * time.Millisecond) {
				require.False(t, time.Now().After(deadline), "no build has started:\n%s", s.output.String())
			}
			s.waitFor("building ")
			s.waitFor("preparing ") // one does not wait for the other
			s.signal(s.command.Process.Pid, syscall.SIGINT)
			s.mustEnd(stopTimeout, 130)
		})
	}
}

func TestSandboxEndsWithGoRun(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("requires /proc")
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

func TestPortInUseFailsWithOneLine(t *testing.T) {
	t.Parallel()
	taken := occupy(t)
	s := newSandbox(t)
	s.command.Args = append(s.command.Args, fmt.Sprintf("--ui-port=%d", taken))
	s.start()
	s.mustEnd(stopTimeout, exitFailed)
	assert.Equal(t, fmt.Sprintf("sandbox: --ui-port: port %d is in use\n", taken), s.output.String())
}

func TestFailureNamesTheWorkersLog(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("finding the worker requires /proc")
	}
	s := startSandbox(t, "--once", "--latency=20s")
	s.waitFor("is listing")
	worker := s.processes("worker")
	require.Len(t, worker, 1)
	s.signal(worker[0], syscall.SIGKILL)
	s.mustEnd(stopTimeout, exitFailed)
	s.mustShow(`sandbox: the worker exited \(signal: killed\)`)
	log := s.mustShow(`sandbox: worker log: (.+)`)[1]
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	assert.Contains(t, string(text), "polling")
}

// sandboxProcess is a sandbox in a process group of its own.
type sandboxProcess struct {
	t         *testing.T
	command   *exec.Cmd
	output    syncBuffer
	ended     chan struct{}
	temporary string // parent of its directory
	marker    string
}

// startSandbox starts a sandbox on ports that no other test uses, with programs
// that are built once for all tests: linking takes more time than all the rest.
func startSandbox(t *testing.T, arguments ...string) *sandboxProcess {
	t.Helper()
	s := newSandbox(t, append(arguments, portFlags(t)...)...)
	s.setVariables("PATH=" + builtGo(t) + string(filepath.ListSeparator) + os.Getenv("PATH"))
	s.start()
	return s
}

func portFlags(t *testing.T) []string {
	t.Helper()
	return []string{
		fmt.Sprintf("--temporal-port=%d", freePort(t)), fmt.Sprintf("--ui-port=%d", freePort(t)), fmt.Sprintf("--simulator-port=%d", freePort(t)),
	}
}

func newSandbox(t *testing.T, arguments ...string) *sandboxProcess {
	t.Helper()
	s := &sandboxProcess{t: t, command: exec.Command(os.Args[0], arguments...), ended: make(chan struct{}), temporary: t.TempDir()}
	s.marker = runVariable + "=" + s.temporary
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.command.Stdout, s.command.Stderr = &s.output, &s.output
	s.command.WaitDelay = time.Second // a remaining process must not block the test
	s.setVariables(sandboxVariable+"=true", "TMPDIR="+s.temporary, s.marker,
		// These must have no effect.
		"TEMPORAL_ADDRESS=192.0.2.1:7233", "TEMPORAL_API_KEY=key", "OPS_MANAGER_URL=http://192.0.2.1", "KEYTURN_TASK_QUEUE=elsewhere")
	return s
}

func (s *sandboxProcess) setVariables(entries ...string) {
	s.command.Env = append(s.command.Environ(), entries...)
}

func (s *sandboxProcess) start() {
	s.t.Helper()
	require.NoError(s.t, s.command.Start())
	go func() {
		_ = s.command.Wait() // mustEnd checks the exit code
		close(s.ended)
	}()
	s.t.Cleanup(func() {
		for _, pid := range append(s.processes(""), s.command.Process.Pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // most have ended already
		}
		<-s.ended
	})
}

func (s *sandboxProcess) signal(pid int, signal syscall.Signal) {
	s.t.Helper()
	require.NoError(s.t, syscall.Kill(pid, signal))
}

func (s *sandboxProcess) waitFor(text string) {
	s.t.Helper()
	for deadline := time.Now().Add(waitTimeout); !strings.Contains(s.output.String(), text); time.Sleep(10 * time.Millisecond) {
		select {
		case <-s.ended:
			require.Fail(s.t, "the sandbox has ended", "without %q:\n%s", text, s.output.String())
		default:
		}
		require.False(s.t, time.Now().After(deadline), "timed out waiting for %q:\n%s", text, s.output.String())
	}
}

// mustEnd waits for the end of the sandbox and checks that nothing is left.
func (s *sandboxProcess) mustEnd(within time.Duration, exitCode int) {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(within):
		require.Fail(s.t, "the sandbox has not ended", "within %s:\n%s", within, s.output.String())
	}
	assert.Equal(s.t, exitCode, s.command.ProcessState.ExitCode(), s.output.String())
	if exitCode == exitFailed {
		s.mustLeaveNoProcess() // the worker's log remains
		return
	}
	s.mustLeaveNothing()
}

func (s *sandboxProcess) mustLeaveNothing() {
	s.t.Helper()
	s.mustLeaveNoProcess()
	left, err := filepath.Glob(filepath.Join(s.temporary, "keyturn-sandbox-*"))
	require.NoError(s.t, err)
	assert.Empty(s.t, left, "all files must be removed")
}

// mustLeaveNoProcess waits a moment for killed processes.
func (s *sandboxProcess) mustLeaveNoProcess() {
	s.t.Helper()
	for deadline := time.Now().Add(stopTimeout); len(s.processes("")) > 0; time.Sleep(20 * time.Millisecond) {
		require.False(s.t, time.Now().After(deadline), "processes that are still running: %v", s.processes(""))
	}
}

// processes returns the processes of this sandbox, itself included, with this
// name; none without /proc.
func (s *sandboxProcess) processes(name string) (found []int) {
	environments, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is valid
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

// slowGo is a directory with a go command that never completes one step, with a
// child process like in real builds, and skips the other step.
func slowGo(t *testing.T, slow, started string) string {
	t.Helper()
	script := fmt.Sprintf("#!/bin/sh\ncase \" $* \" in\n*' %s '*) %s 600 & : > '%s'; wait ;;\n*' -exec cp '*) ;;\n*) exec '%s' \"$@\" ;;\nesac\n",
		slow, lookPath(t, "sleep"), started, lookPath(t, "go"))
	directory := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(directory, "go"), []byte(script), 0o700))
	return directory
}

// programs are those that the sandbox builds, shared by the tests that currently
// use them.
var programs struct {
	mu     sync.Mutex
	users  int
	folder string
	// temporal is the executable of Temporal's tool.
	temporal string
}

// builtGo is a directory with a go command that copies the programs instead of
// building them, and knows where Temporal's tool is: finding it takes Go longer than
// the rest of its answers.
func builtGo(t *testing.T) string {
	t.Helper()
	p := &programs
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users == 0 {
		root, err := childproc.ModuleRoot(t.Context())
		require.NoError(t, err)
		p.folder, err = os.MkdirTemp("", "keyturn-programs-")
		require.NoError(t, err)
		require.NoError(t, childproc.Build(t.Context(), root, p.folder, t.TempDir(), os.Stderr, sandboxPrograms...))
		p.temporal, err = temporalserver.Executable(t.Context(), nil)
		require.NoError(t, err)
	}
	p.users++
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.users--; p.users == 0 {
			assert.NoError(t, os.RemoveAll(p.folder))
		}
	})
	script := fmt.Sprintf("#!/bin/sh\ncase \" $* \" in\n*' tool -n temporal '*) echo '%s'; exit ;;\n*' -exec cp '*) ;;\n*) exec '%s' \"$@\" ;;\nesac\n"+
		"for program; do :; done\nexec cp '%s'/\"${program##*/}\" \"$program\"\n", p.temporal, lookPath(t, "go"), p.folder)
	directory := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(directory, "go"), []byte(script), 0o700))
	return directory
}

func lookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	require.NoError(t, err)
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := freeport.Choose()
	require.NoError(t, err)
	return port
}

// syncBuffer is safe for concurrent use.
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
