package faults

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/stage"
)

// workerBinary is the worker's program, built for those who use it at a time.
var workerBinary struct {
	mu     sync.Mutex
	users  int
	folder string
}

// workerExecutable builds the worker, once for all tests that use it at a time.
// The last one of them to end removes it.
func workerExecutable(t testing.TB) string {
	t.Helper()
	b := &workerBinary
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users == 0 {
		folder, err := os.MkdirTemp("", "keyturn-faults-")
		require.NoError(t, err)
		b.folder = folder
	}
	b.users++
	t.Cleanup(releaseWorkerExecutable)
	path := filepath.Join(b.folder, "worker")
	if b.users == 1 {
		output, err := exec.Command("go", "build", "-o", path, "keyturn/worker").CombinedOutput()
		require.NoError(t, err, "%s", output)
	}
	return path
}

func releaseWorkerExecutable() {
	b := &workerBinary
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users--; b.users == 0 {
		_ = os.RemoveAll(b.folder)
	}
}

// workerProcess is a worker in a process of its own.
type workerProcess struct {
	command *exec.Cmd
	log     bytes.Buffer // to be read when the process has ended
	ended   chan struct{}
}

// startWorkerProcess starts a worker of the stage's task queue with the two
// servers at these addresses.
func startWorkerProcess(s stage.Stage, temporalAddress, opsManagerURL string) *workerProcess {
	s.Helper()
	w := &workerProcess{command: exec.Command(workerExecutable(s)), ended: make(chan struct{})}
	home := s.TempDir()
	w.command.Env = append(environmentWithout("TEMPORAL_", "OPS_MANAGER_", "KEYTURN_", "HOME=", "XDG_"),
		"HOME="+home,
		"TEMPORAL_ADDRESS="+temporalAddress,
		"TEMPORAL_NAMESPACE="+s.Server.Namespace,
		"KEYTURN_TASK_QUEUE="+s.TaskQueue,
		"OPS_MANAGER_URL="+opsManagerURL,
		"OPS_MANAGER_PUBLIC_KEY="+simulator.DefaultPublicKey,
		"OPS_MANAGER_PRIVATE_KEY="+simulator.DefaultPrivateKey,
	)
	w.command.Stdout, w.command.Stderr = &w.log, &w.log
	w.command.SysProcAttr = processAttributes()
	started := make(chan error, 1)
	go w.run(started)
	require.NoError(s, <-started)
	s.Cleanup(func() {
		w.kill()
		if s.Failed() {
			s.Logf("worker %d wrote:\n%s", w.command.Process.Pid, w.log.String())
		}
	})
	return w
}

// startProcess starts a worker that has nothing between it and its servers.
func startProcess(s stage.Stage) *workerProcess {
	s.Helper()
	return startWorkerProcess(s, s.Server.Address, s.OM.URL)
}

func environmentWithout(prefixes ...string) []string {
	var kept []string
	for _, entry := range os.Environ() {
		unwanted := false
		for _, prefix := range prefixes {
			unwanted = unwanted || strings.HasPrefix(entry, prefix)
		}
		if !unwanted {
			kept = append(kept, entry)
		}
	}
	return kept
}

// run waits on the thread that has started the process: Linux ends the process
// with that thread.
func (w *workerProcess) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := w.command.Start()
	started <- err
	if err == nil {
		_ = w.command.Wait() // it is killed
	}
	close(w.ended)
}

// kill ends the process with -9 and returns when it is gone.
func (w *workerProcess) kill() {
	_ = w.command.Process.Kill() // it may be gone
	<-w.ended
}

// fewPollers suit a worker of one small rotation among many.
func fewPollers(options *sdkworker.Options) {
	options.MaxConcurrentActivityTaskPollers, options.MaxConcurrentWorkflowTaskPollers = 2, 2
}
