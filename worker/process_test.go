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
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"keyturn/internal/version"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

// workerVariable makes this test program the worker itself, so that the tests
// can send signals to a worker in a process of its own.
const workerVariable = "KEYTURN_TEST_BE_THE_WORKER"

// patience is how long a test waits for what takes a moment.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(workerVariable) != "" {
		main()
	}
	temporalserver.Main(m)
}

func TestHelpDescribesEverySetting(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := execute([]string{"--help"}, environment{}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Errorf("exit code %d, %q; want 0 and no complaint", code, stderr.String())
	}
	for _, key := range connectionKeys {
		for _, name := range []string{key, opsManagerPrefix + strings.ToUpper(key)} {
			if !regexp.MustCompile(`\b` + name + `\b`).MatchString(stdout.String()) {
				t.Errorf("--help does not speak of %s", name)
			}
		}
	}
	for _, name := range []string{connectionsFileVariable, taskQueueVariable, queueLimitVariable, listenVariable, logFormatVariable, logLevelVariable, deploymentVariable, buildIDVariable, addressVariable, namespaceVariable, apiKeyVariable, profileVariable, configFileVariable} {
		if !strings.Contains(stdout.String(), name) {
			t.Errorf("--help does not speak of %s", name)
		}
	}
}

func TestVersionIsPrinted(t *testing.T) {
	var stdout bytes.Buffer
	if code := execute([]string{"--version"}, environment{}, &stdout, io.Discard); code != 0 || !strings.Contains(stdout.String(), version.String()) {
		t.Errorf("exit code %d, %q; want 0 and the version", code, stdout.String())
	}
}

func TestWrongUseIsRefused(t *testing.T) {
	for _, arguments := range [][]string{{"--task-queue", "x"}, {"start"}} {
		var stderr bytes.Buffer
		if code := execute(arguments, workingEnvironment(), io.Discard, &stderr); code != exitWrongUse || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%q: exit code %d, %q; want %d and one line", arguments, code, stderr.String(), exitWrongUse)
		}
	}
}

func TestWorkerPollsAndEndsAtSIGTERM(t *testing.T) {
	server := temporalserver.Shared(t)
	worker := startWorker(t, processEnvironment(t, server, "polls-and-ends"))
	worker.waitFor(t, "polling")
	identities := pollersOf(t, server.NewClient(t), "polls-and-ends")
	if len(identities) == 0 || !regexp.MustCompile(`^[^@]+@\d+$`).MatchString(identities[0]) {
		t.Errorf("pollers %q, want one that is host@pid", identities)
	}
	worker.signal(t, syscall.SIGTERM)
	if code := worker.exitCode(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	text := worker.stderr.String()
	first, _, _ := strings.Cut(text, "\n")
	for _, want := range []string{"version=", "taskQueue=polls-and-ends", "namespace=default", "address=" + server.Address, "default=ops.example.net:8443"} {
		if !strings.Contains(first, want) {
			t.Errorf("the first line %q lacks %q", first, want)
		}
	}
	if strings.Contains(text, secret) {
		t.Errorf("the log shows the private key:\n%s", text)
	}
	if !strings.Contains(text, "draining") || !strings.Contains(text, "msg=stopped") {
		t.Errorf("the log does not tell of the end:\n%s", text)
	}
}

func TestSIGTERMLetsAnActivityFinish(t *testing.T) {
	server := temporalserver.Shared(t)
	opsManager := newSlowOpsManager(t)
	worker := startWorker(t, opsManager.environment(processEnvironment(t, server, "drains")))
	temporal := server.NewClient(t)
	rotation := startRotation(t, temporal, "drains", "5196e5b0e4b0fca9cc88334a")
	opsManager.waitForRequest(t)

	worker.signal(t, syscall.SIGTERM)
	worker.waitFor(t, "draining")
	opsManager.answer()
	if code := worker.exitCode(t); code != 0 {
		t.Errorf("exit code %d, want 0; the log:\n%s", code, worker.stderr.String())
	}
	if !hasActivityEnd(t, temporal, rotation) {
		t.Error("the activity's end did not reach Temporal: it was cut off")
	}
}

func TestSecondSignalEndsTheWorkerAtOnce(t *testing.T) {
	server := temporalserver.Shared(t)
	opsManager := newSlowOpsManager(t)
	worker := startWorker(t, opsManager.environment(processEnvironment(t, server, "ends-at-once")))
	startRotation(t, server.NewClient(t), "ends-at-once", "5196e5b0e4b0fca9cc88334b")
	opsManager.waitForRequest(t)

	worker.signal(t, syscall.SIGTERM)
	worker.waitFor(t, "draining")
	worker.signal(t, syscall.SIGINT)
	if code := worker.exitCode(t); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if text := worker.stderr.String(); !strings.Contains(text, "second signal") || strings.Contains(text, "msg=stopped") {
		t.Errorf("the log does not tell of an end at once:\n%s", text)
	}
}

func TestWorkerWaitsForTemporal(t *testing.T) {
	server := temporalserver.StartForTest(t, temporalserver.Options{})
	server.Stop()
	env := processEnvironment(t, server, "waits")
	var stderr syncBuffer
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, env, &stderr) }()

	waitForText(t, &stderr, "attempt=2")
	if got := stderr.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, server.Address) {
		t.Errorf("the log does not warn of the address:\n%s", got)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitForText(t, &stderr, "polling")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v, want a quiet end", err)
	}
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
	if err := <-ended; err != nil || !strings.Contains(stderr.String(), "stopped before Temporal was reached") {
		t.Errorf("got %v, want a quiet end; the log:\n%s", err, stderr.String())
	}
}

func TestMissingNamespaceIsAWrongSetting(t *testing.T) {
	env := processEnvironment(t, temporalserver.Shared(t), "anything")
	env["TEMPORAL_NAMESPACE"] = "nowhere"
	err := run(t.Context(), env, io.Discard)
	var wrong *settingError
	if !errors.As(err, &wrong) || wrong.setting != "TEMPORAL_NAMESPACE" {
		t.Errorf("got %v, want one naming TEMPORAL_NAMESPACE", err)
	}
}

// The SDK gives up on an error that no retry mends after two minutes of them:
// too long for a test with a real server.
func TestWorkerThatCannotGoOnEndsWithAnError(t *testing.T) {
	var stderr bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&stderr, nil))
	fatal := make(chan error, 1)
	fatal <- errors.New("the namespace is gone")
	worker := &stubWorker{}
	err := poll(t.Context(), worker, fatal, logger)
	if err == nil || !strings.Contains(err.Error(), "the namespace is gone") || worker.stops != 1 {
		t.Errorf("got %v and %d stops, want the reason and one stop", err, worker.stops)
	}
	if !strings.Contains(stderr.String(), "level=ERROR") {
		t.Errorf("the error is not logged before the draining:\n%s", stderr.String())
	}
}

func TestWorkerThatCannotStartEndsWithAnError(t *testing.T) {
	worker := &stubWorker{startErr: errors.New("no pollers")}
	err := poll(t.Context(), worker, nil, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "no pollers") {
		t.Errorf("got %v, want the reason", err)
	}
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
	if err := run(ctx, env, &stderr); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(stderr.String(), "level=WARN") || !strings.Contains(stderr.String(), "connection=again other=default") {
		t.Errorf("no warning:\n%s", stderr.String())
	}
}

// processEnvironment is a worker's that polls a task queue of the server.
func processEnvironment(t *testing.T, server *temporalserver.Server, taskQueue string) environment {
	t.Helper()
	isolateFromUser(t)
	env := workingEnvironment()
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

func startWorker(t *testing.T, env environment) *workerProcess {
	t.Helper()
	worker := &workerProcess{command: exec.Command(os.Args[0]), ended: make(chan struct{})}
	worker.command.Env = append(env.Environ(), workerVariable+"=true", "HOME="+t.TempDir())
	worker.command.Stderr = &worker.stderr
	if err := worker.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = worker.command.Wait() // exitCode tells how it ended
		close(worker.ended)
	}()
	t.Cleanup(func() {
		_ = worker.command.Process.Kill() // most have ended
		<-worker.ended
	})
	return worker
}

func (w *workerProcess) signal(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := w.command.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

func (w *workerProcess) waitFor(t *testing.T, text string) {
	t.Helper()
	waitForText(t, &w.stderr, text)
}

func (w *workerProcess) exitCode(t *testing.T) int {
	t.Helper()
	select {
	case <-w.ended:
	case <-time.After(patience):
		t.Fatalf("the worker has not ended; its log:\n%s", w.stderr.String())
	}
	return w.command.ProcessState.ExitCode()
}

// slowOpsManager holds back every answer until it is told to give them; what it
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
		slow.firstAsk.Do(func() { close(slow.asked) })
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

func (s *slowOpsManager) environment(env environment) environment {
	env["OPS_MANAGER_URL"] = s.url
	return env
}

func (s *slowOpsManager) waitForRequest(t *testing.T) {
	t.Helper()
	select {
	case <-s.asked:
	case <-time.After(patience):
		t.Fatal("no request came to Ops Manager")
	}
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
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = temporal.TerminateWorkflow(context.Background(), started.GetID(), "", "the test is over") // most have ended
	})
	return started
}

// hasActivityEnd tells whether an activity's result or failure is in the history.
func hasActivityEnd(t *testing.T, temporal client.Client, run client.WorkflowRun) bool {
	t.Helper()
	events := temporal.GetWorkflowHistory(t.Context(), run.GetID(), run.GetRunID(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			t.Fatal(err)
		}
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
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		described, err := temporal.DescribeTaskQueue(t.Context(), taskQueue, enums.TASK_QUEUE_TYPE_ACTIVITY)
		if err != nil {
			t.Fatal(err)
		}
		var identities []string
		for _, poller := range described.GetPollers() {
			identities = append(identities, poller.GetIdentity())
		}
		if len(identities) > 0 {
			return identities
		}
	}
	return nil
}

func waitForText(t *testing.T, buffer *syncBuffer, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(buffer.String(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q did not come; there is:\n%s", text, buffer.String())
		}
	}
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
