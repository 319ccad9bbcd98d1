package faultinjection

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
	"keyturn/testsuite/support/childproc"
	"keyturn/testsuite/support/fixture"
)

// workerBinary is the worker's program, shared by the tests that currently use
// it.
var workerBinary struct {
	mu     sync.Mutex
	users  int
	folder string
}

// workerExecutable builds the worker once for all tests that use it at the same
// time. The last of them removes it.
func workerExecutable(t testing.TB) string {
	t.Helper()
	b := &workerBinary
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users == 0 {
		folder, err := os.MkdirTemp("", "keyturn-faultinjection-")
		require.NoError(t, err)
		b.folder = folder
	}
	b.users++
	t.Cleanup(releaseWorkerExecutable)
	if b.users == 1 {
		root, err := childproc.ModuleRoot(t.Context())
		require.NoError(t, err)
		require.NoError(t, childproc.Build(t.Context(), root, b.folder, b.folder, os.Stderr, "./worker"))
	}
	return filepath.Join(b.folder, "worker")
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
	log     bytes.Buffer // complete when the process has ended
	ended   chan struct{}
}

// startWorkerProcess starts a worker of the fixture's task queue with these
// servers, and with more variables.
func startWorkerProcess(s fixture.Server, temporalAddress, opsManagerURL string, more ...string) *workerProcess {
	s.Helper()
	w := &workerProcess{command: exec.Command(workerExecutable(s)), ended: make(chan struct{})}
	home := s.TempDir()
	w.command.Env = append(environWithout("TEMPORAL_", "OPS_MANAGER_", "KMIP_", "KEYTURN_", "HOME=", "XDG_"),
		"HOME="+home,
		"TEMPORAL_ADDRESS="+temporalAddress,
		"TEMPORAL_NAMESPACE="+s.TemporalServer.Namespace,
		"KEYTURN_TASK_QUEUE="+s.TaskQueue,
		"OPS_MANAGER_URL="+opsManagerURL,
		"OPS_MANAGER_PUBLIC_KEY="+simulator.DefaultPublicKey,
		"OPS_MANAGER_PRIVATE_KEY="+simulator.DefaultPrivateKey,
	)
	w.command.Env = append(w.command.Env, more...)
	w.command.Stdout, w.command.Stderr = &w.log, &w.log
	w.command.SysProcAttr = processAttributes()
	started := make(chan error, 1)
	go w.run(started)
	require.NoError(s, <-started)
	s.Cleanup(func() {
		w.kill()
		if s.Failed() {
			s.Logf("log of worker %d:\n%s", w.command.Process.Pid, w.log.String())
		}
	})
	return w
}

// startProcess starts a worker without a proxy.
func startProcess(s fixture.Server, more ...string) *workerProcess {
	s.Helper()
	return startWorkerProcess(s, s.TemporalServer.Address, s.OM.URL, more...)
}

func environWithout(prefixes ...string) []string {
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
		_ = w.command.Wait() // it was killed
	}
	close(w.ended)
}

// kill ends the process with SIGKILL and returns when it is gone.
func (w *workerProcess) kill() {
	_ = w.command.Process.Kill() // it may have ended already
	<-w.ended
}

// fewPollers is for a worker with one small rotation among many.
func fewPollers(options *sdkworker.Options) {
	options.MaxConcurrentActivityTaskPollers, options.MaxConcurrentWorkflowTaskPollers = 2, 2
}
