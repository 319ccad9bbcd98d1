package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"keyturn/internal/events"
	"keyturn/internal/setting"
	"keyturn/internal/temporalclient"
	"keyturn/internal/version"
	"keyturn/testsuite/support/parallel"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

// workerVariable makes this test program the worker itself, so that the tests
// can send signals to a worker in a process of its own.
const workerVariable = "KEYTURN_TEST_BE_THE_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(workerVariable) != "" {
		main()
	}
	parallel.Tests(8)
	temporalserver.Main(m)
}

func TestHelpDescribesEverySetting(t *testing.T) {
	var stdout, stderr bytes.Buffer
	assert.Zero(t, execute([]string{"--help"}, setting.Environment{}, &stdout, &stderr))
	assert.Empty(t, stderr.String())
	for _, key := range connectionKeys {
		for _, name := range []string{key, opsManagerPrefix + strings.ToUpper(key)} {
			assert.Regexp(t, `\b`+name+`\b`, stdout.String())
		}
	}
	for _, key := range kmipKeys {
		for _, name := range []string{key, kmipPrefix + strings.ToUpper(key)} {
			assert.Regexp(t, `\b`+name+`\b`, stdout.String())
		}
	}
	for _, name := range []string{connectionsFileVariable, temporalclient.TaskQueueVariable, queueLimitVariable, listenVariable, logFormatVariable, logLevelVariable, deploymentVariable, buildIDVariable, temporalclient.AddressVariable, temporalclient.NamespaceVariable, temporalclient.APIKeyVariable, temporalclient.ProfileVariable, temporalclient.ConfigFileVariable, events.URLVariable, events.SecretFileVariable, events.AllowHTTPVariable, events.WebUIVariable} {
		assert.Contains(t, stdout.String(), name)
	}
}

func TestVersionIsPrinted(t *testing.T) {
	var stdout bytes.Buffer
	assert.Zero(t, execute([]string{"--version"}, setting.Environment{}, &stdout, io.Discard))
	assert.Contains(t, stdout.String(), version.String())
}

func TestWrongUseIsRefused(t *testing.T) {
	for _, arguments := range [][]string{{"--task-queue", "x"}, {"start"}} {
		var stderr bytes.Buffer
		assert.Equal(t, exitUsage, execute(arguments, workingEnvironment(), io.Discard, &stderr), "%q", arguments)
		assert.Equal(t, 1, strings.Count(stderr.String(), "\n"), stderr.String())
	}
}

func TestWorkerPollsAndEndsAtSIGTERM(t *testing.T) {
	t.Parallel()
	server := temporalserver.Shared(t)
	worker := startWorker(t, processEnvironment(t, server, "polls-and-ends"))
	worker.waitFor(t, "polling")
	identities := pollersOf(t, server.NewClient(t), "polls-and-ends")
	require.NotEmpty(t, identities)
	assert.Regexp(t, `^[^@]+@\d+$`, identities[0], "must be host@pid")
	worker.signal(t, syscall.SIGTERM)
	assert.Zero(t, worker.exitCode(t))
	text := worker.stderr.String()
	first, _, _ := strings.Cut(text, "\n")
	for _, want := range []string{"version=", "taskQueue=polls-and-ends", "namespace=default", "address=" + server.Address, "default=ops.example.net:8443"} {
		assert.Contains(t, first, want)
	}
	assert.NotContains(t, text, secret)
	assert.Contains(t, text, "draining")
	assert.Contains(t, text, "msg=stopped")
}

func TestSIGTERMLetsAnActivityFinish(t *testing.T) {
	t.Parallel()
	server := temporalserver.Shared(t)
	opsManager := newSlowOpsManager(t)
	worker := startWorker(t, opsManager.environment(processEnvironment(t, server, "drains")))
	temporal := server.NewClient(t)
	rotation := startRotation(t, temporal, "drains", "5196e5b0e4b0fca9cc88334a")
	opsManager.waitForRequest(t)

	worker.signal(t, syscall.SIGTERM)
	worker.waitFor(t, "draining")
	opsManager.answer()
	assert.Zero(t, worker.exitCode(t), worker.stderr.String())
	assert.True(t, hasActivityEnd(t, temporal, rotation), "the activity's end did not reach Temporal")
}

func TestSecondSignalEndsTheWorkerAtOnce(t *testing.T) {
	t.Parallel()
	server := temporalserver.Shared(t)
	opsManager := newSlowOpsManager(t)
	worker := startWorker(t, opsManager.environment(processEnvironment(t, server, "ends-at-once")))
	startRotation(t, server.NewClient(t), "ends-at-once", "5196e5b0e4b0fca9cc88334b")
	opsManager.waitForRequest(t)

	worker.signal(t, syscall.SIGTERM)
	worker.waitFor(t, "draining")
	worker.signal(t, syscall.SIGINT)
	assert.Equal(t, exitFailed, worker.exitCode(t))
	assert.Contains(t, worker.stderr.String(), "second signal")
	assert.NotContains(t, worker.stderr.String(), "msg=stopped")
}

func TestWorkerWaitsForTemporal(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{})
	server.Stop()
	env := processEnvironment(t, server, "waits")
	var stderr syncBuffer
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, env, &stderr) }()

	waitForText(t, &stderr, "attempt=2")
	assert.Contains(t, stderr.String(), "level=WARN")
	assert.Contains(t, stderr.String(), server.Address)
	require.NoError(t, server.Restart(t.Context()))
	waitForText(t, &stderr, "polling")
	cancel()
	assert.NoError(t, <-ended)
}

func TestSIGTERMEndsTheWaitForTemporal(t *testing.T) {
	isolateFromUser(t)
	env := workingEnvironment()
	env["TEMPORAL_ADDRESS"] = "127.0.0.1:1"
	var stderr syncBuffer
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, env, &stderr) }()
	waitForText(t, &stderr, "attempt=1")
	cancel()
	assert.NoError(t, <-ended)
	assert.Contains(t, stderr.String(), "stopped before connecting to Temporal")
}

func TestMissingNamespaceIsAWrongSetting(t *testing.T) {
	t.Parallel()
	env := processEnvironment(t, temporalserver.Shared(t), "anything")
	env["TEMPORAL_NAMESPACE"] = "nowhere"
	err := run(t.Context(), env, io.Discard)
	var wrong *setting.Error
	require.ErrorAs(t, err, &wrong)
	assert.Equal(t, "TEMPORAL_NAMESPACE", wrong.Setting)
}

// The SDK gives up on an error that no retry fixes after two minutes of them:
// too long for a test with a real server.
func TestWorkerThatCannotGoOnEndsWithAnError(t *testing.T) {
	var stderr bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&stderr, nil))
	fatal := make(chan error, 1)
	fatal <- errors.New("the namespace is gone")
	worker := &stubWorker{}
	err := poll(t.Context(), worker, fatal, logger)
	assert.ErrorContains(t, err, "the namespace is gone")
	assert.Equal(t, 1, worker.stops)
	assert.Contains(t, stderr.String(), "level=ERROR", "the error must be logged before the worker drains")
}

func TestWorkerThatCannotStartEndsWithAnError(t *testing.T) {
	worker := &stubWorker{startErr: errors.New("no pollers")}
	err := poll(t.Context(), worker, nil, slog.New(slog.DiscardHandler))
	assert.ErrorContains(t, err, "no pollers")
}

type stubWorker struct {
	startErr error
	stops    int
}

func (s *stubWorker) Start() error { return s.startErr }
func (s *stubWorker) Stop()        { s.stops++ }

func TestTwoConnectionsToOneHostAreWarnedOf(t *testing.T) {
	isolateFromUser(t)
	env := workingEnvironment()
	env["TEMPORAL_ADDRESS"] = "127.0.0.1:1"
	env["KEYTURN_CONNECTIONS_FILE"] = writeFile(t, "connections.toml",
		"[connections.again]\nurl = \"https://ops.example.net:8443\"\npublic_key = \"a\"\nprivate_key = \"b\"\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr bytes.Buffer
	require.NoError(t, run(ctx, env, &stderr))
	assert.Contains(t, stderr.String(), "level=WARN")
	assert.Contains(t, stderr.String(), "connection=again other=default")
}

// processEnvironment is a worker's that polls a task queue of the server.
func processEnvironment(t *testing.T, server *temporalserver.Server, taskQueue string) setting.Environment {
	t.Helper()
	env := workingEnvironment()
	env["TEMPORAL_CONFIG_FILE"] = os.DevNull // not the file of whoever runs the tests
	env["TEMPORAL_ADDRESS"] = server.Address
	env["TEMPORAL_NAMESPACE"] = server.Namespace
	env["KEYTURN_TASK_QUEUE"] = taskQueue
	return env
}

// workerProcess is a worker in a process of its own.
type workerProcess struct {
	command *exec.Cmd
	stderr  syncBuffer
	ended   chan struct{}
}

func startWorker(t *testing.T, env setting.Environment) *workerProcess {
	t.Helper()
	return startProgram(t, os.Args[0], env)
}

func startProgram(t *testing.T, program string, env setting.Environment) *workerProcess {
	t.Helper()
	worker := &workerProcess{command: exec.Command(program), ended: make(chan struct{})}
	worker.command.Env = append(env.Environ(), workerVariable+"=true", "HOME="+t.TempDir())
	worker.command.Stderr = &worker.stderr
	require.NoError(t, worker.command.Start())
	go func() {
		_ = worker.command.Wait() // exitCode shows how it ended
		close(worker.ended)
	}()
	t.Cleanup(func() {
		_ = worker.command.Process.Kill() // most have ended
		<-worker.ended
		if t.Failed() {
			t.Logf("the worker's log:\n%s", worker.stderr.String())
		}
	})
	return worker
}

func (w *workerProcess) signal(t *testing.T, signal os.Signal) {
	t.Helper()
	require.NoError(t, w.command.Process.Signal(signal))
}

func (w *workerProcess) waitFor(t *testing.T, text string) {
	t.Helper()
	waitForText(t, &w.stderr, text)
}

func (w *workerProcess) exitCode(t *testing.T) int {
	t.Helper()
	waiting.For(t, w.ended, "the worker has not ended")
	return w.command.ProcessState.ExitCode()
}

// slowOpsManager holds back every answer until it may give them; what it
// answers then is "no such thing".
type slowOpsManager struct {
	url       string
	asked     chan struct{}
	firstAsk  sync.Once
	answering chan struct{}
	answer    func()
}

func newSlowOpsManager(t *testing.T) *slowOpsManager {
	t.Helper()
	slow := &slowOpsManager{asked: make(chan struct{}), answering: make(chan struct{})}
	slow.answer = sync.OnceFunc(func() { close(slow.answering) })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/public/v1.0" { // by which the worker checks its access
			slow.firstAsk.Do(func() { close(slow.asked) })
		}
		<-slow.answering
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"error": 404, "errorCode": "CLUSTER_NOT_FOUND", "reason": "Not Found", "detail": "none"}`)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(slow.answer)
	slow.url = server.URL
	return slow
}

func (s *slowOpsManager) environment(env setting.Environment) setting.Environment {
	env["OPS_MANAGER_URL"] = s.url
	return env
}

func (s *slowOpsManager) waitForRequest(t *testing.T) {
	t.Helper()
	waiting.For(t, s.asked, "no request came to Ops Manager")
}

// startRotation starts a rotation that asks for nothing but its cluster.
func startRotation(t *testing.T, temporal client.Client, taskQueue, cluster string) client.WorkflowRun {
	t.Helper()
	return startRotationOf(t, temporal, taskQueue, workflows.RotateClusterInput{
		Connection: workflows.DefaultConnection, ProjectID: "5196d3628d022db4cbc26d9e", ClusterID: cluster,
	})
}

// startRotationOf starts a rotation under its cluster's own id.
func startRotationOf(t *testing.T, temporal client.Client, taskQueue string, input workflows.RotateClusterInput) client.WorkflowRun {
	t.Helper()
	started, err := temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: workflows.RotateClusterID(input.Connection, input.ProjectID, input.ClusterID), TaskQueue: taskQueue,
	}, workflows.RotateClusterType, input)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = temporal.TerminateWorkflow(context.Background(), started.GetID(), "", "the test is over") // most have ended
	})
	return started
}

// hasActivityEnd reports whether an activity's result or failure is in the history.
func hasActivityEnd(t *testing.T, temporal client.Client, run client.WorkflowRun) bool {
	t.Helper()
	events := temporal.GetWorkflowHistory(t.Context(), run.GetID(), run.GetRunID(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		require.NoError(t, err)
		switch event.GetEventType() {
		case enums.EVENT_TYPE_ACTIVITY_TASK_COMPLETED, enums.EVENT_TYPE_ACTIVITY_TASK_FAILED:
			return true
		}
	}
	return false
}

// pollersOf waits until someone polls the task queue.
func pollersOf(t *testing.T, temporal client.Client, taskQueue string) []string {
	t.Helper()
	var identities []string
	waiting.UntilAnswer(t, func() (bool, error) {
		described, err := temporal.DescribeTaskQueue(t.Context(), taskQueue, enums.TASK_QUEUE_TYPE_ACTIVITY)
		for _, poller := range described.GetPollers() {
			identities = append(identities, poller.GetIdentity())
		}
		return len(identities) > 0, err
	}, "nobody polls "+taskQueue)
	return identities
}

func waitForText(t *testing.T, buffer *syncBuffer, text string) {
	t.Helper()
	isThere := func() bool { return strings.Contains(buffer.String(), text) }
	defer func() {
		if !isThere() {
			t.Logf("%q did not come; there is:\n%s", text, buffer.String())
		}
	}()
	waiting.Until(t, isThere)
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
