package temporalserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
)

func TestMain(m *testing.M) {
	if os.Getenv(helperVariable) != "" {
		os.Exit(runHelper())
	}
	Main(m)
}

func TestSharedServerHasItsNamespace(t *testing.T) {
	server := Shared(t)
	if server.Namespace != "default" || server.UIAddress != "" || server.DatabaseFile != "" {
		t.Errorf("got %q, %q, %q; want the default namespace, no Web UI, in memory", server.Namespace, server.UIAddress, server.DatabaseFile)
	}
	describeNamespace(t, server.NewClient(t), "default")
}

func TestEveryNamespaceAskedForIsThere(t *testing.T) {
	server := StartForTest(t, Options{Namespaces: []string{"rotations", "other"}})
	if server.Namespace != "rotations" {
		t.Errorf("Namespace = %q, want the first one asked for", server.Namespace)
	}
	temporal := server.NewClient(t)
	for _, namespace := range []string{"rotations", "other", "default"} {
		describeNamespace(t, temporal, namespace)
	}
}

func TestDynamicConfigReachesTheServer(t *testing.T) {
	server := StartForTest(t, Options{DynamicConfig: map[string]string{"frontend.workerVersioningDataAPIs": "true", "limit.maxIDLength": "30"}})
	_, err := server.NewClient(t).ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: strings.Repeat("x", 31), TaskQueue: "nobody",
	}, "Anything")
	if err == nil || !strings.Contains(err.Error(), "length") {
		t.Errorf("starting a workflow with an id longer than limit.maxIDLength: got %v, want a refusal", err)
	}
}

func TestArgumentsReachTheServerAndItsMetricsAreServed(t *testing.T) {
	server := StartForTest(t, Options{Arguments: []string{"--namespace", "further"}})
	describeNamespace(t, server.NewClient(t), "further")
	answer, err := http.Get(server.MetricsAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || !strings.Contains(string(text), "service_requests") {
		t.Errorf("the metrics at %s can't be read: %v", server.MetricsAddress, err)
	}
}

func TestWebUIAnswersOnItsPort(t *testing.T) {
	server := StartForTest(t, Options{UI: true})
	connection, err := net.Dial("tcp", strings.TrimPrefix(server.UIAddress, "http://"))
	if err != nil {
		t.Fatalf("the Web UI at %q does not answer: %v", server.UIAddress, err)
	}
	connection.Close()
}

func TestKilledServerKeepsItsWorkflowsInTheDatabaseFile(t *testing.T) {
	server := StartForTest(t, Options{DatabaseFile: filepath.Join(t.TempDir(), "temporal.db")})
	temporal := server.NewClient(t)
	started, err := temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "survivor", TaskQueue: "nobody"}, "Anything")
	if err != nil {
		t.Fatal(err)
	}
	killed, address := server.PID(), server.Address
	server.Kill()
	if isRunning(killed) {
		t.Errorf("process %d runs after Kill", killed)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if server.Address != address {
		t.Errorf("the address was %s and is %s after the restart", address, server.Address)
	}
	// The client that was connected before the crash finds the server again.
	described, err := temporal.DescribeWorkflowExecution(t.Context(), "survivor", started.GetRunID())
	if err != nil {
		t.Fatalf("the workflow did not survive the crash: %v", err)
	}
	if status := described.GetWorkflowExecutionInfo().GetStatus(); status != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
		t.Errorf("the workflow's status is %s, want running", status)
	}
}

func TestStopLeavesNoProcess(t *testing.T) {
	server := StartForTest(t, Options{})
	begun := time.Now()
	server.Stop()
	if isRunning(server.PID()) {
		t.Errorf("process %d runs after Stop", server.PID())
	}
	if took := time.Since(begun); took >= stopTime {
		t.Errorf("stopping took %s: the server was killed, it did not end by itself", took)
	}
	server.Stop()
	server.Kill()
}

func TestTakenPortsAreTold(t *testing.T) {
	listener, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	for name, options := range map[string]Options{"Port": {Port: port}, "UIPort": {UI: true, UIPort: port}} {
		_, err := Start(t.Context(), withExecutable(options))
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), strconv.Itoa(port)) {
			t.Errorf("a taken %s: got %v, want an error naming the option and port %d", name, err, port)
		}
	}
}

func TestServerThatEndsAtItsStartShowsItsLastLines(t *testing.T) {
	_, err := Start(t.Context(), withExecutable(Options{DatabaseFile: filepath.Join(t.TempDir(), "missing", "temporal.db")}))
	if err == nil || !strings.Contains(err.Error(), "it ended") || !strings.Contains(err.Error(), "missing") {
		t.Errorf("got %v, want an error with what the server said about the database file", err)
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	sleeper := writeScript(t, "#!/bin/sh\necho still busy >&2\nexec sleep 600\n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := Start(ctx, Options{Executable: sleeper})
	if err == nil || !strings.Contains(err.Error(), "still busy") {
		t.Errorf("got %v, want an error with the last lines", err)
	}
}

func TestCLIRunsAgainstTheServer(t *testing.T) {
	server := Shared(t)
	stdout, stderr, err := server.CLI(t.Context(), "operator", "namespace", "describe", "--output", "json")
	if err != nil || !strings.Contains(stdout, `"default"`) {
		t.Errorf("got %q, %q, %v; want the namespace's description", stdout, stderr, err)
	}
	if _, stderr, err = server.CLI(t.Context(), "workflow", "describe", "--workflow-id", "nowhere"); err == nil || stderr == "" {
		t.Errorf("got %q, %v; want the tool's complaint about a workflow that is not there", stderr, err)
	}
}

func TestOutputGetsWhatTheServerWrites(t *testing.T) {
	var output syncBuffer
	server := StartForTest(t, Options{Output: &output})
	server.Stop()
	if got := output.String(); !strings.Contains(got, strconv.Itoa(server.ports.frontend)) {
		t.Errorf("got %q, want the line with the server's address", got)
	}
}

func TestTailKeepsTheLastLines(t *testing.T) {
	var kept tail
	for i := range 2 * tailLines {
		fmt.Fprintf(&kept, "line %d\nsecond ", i)
	}
	lines := strings.Split(kept.String(), "\n")
	if want := fmt.Sprintf("second line %d", 2*tailLines-1); lines[len(lines)-2] != want || len(lines) != tailLines+1 {
		t.Errorf("got %d lines ending in %q, want %d and %q", len(lines), lines[len(lines)-2], tailLines+1, want)
	}
}

func describeNamespace(t *testing.T, temporal client.Client, namespace string) {
	t.Helper()
	described, err := temporal.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	if err != nil || described.GetNamespaceInfo().GetName() != namespace {
		t.Errorf("describing %s: got %v, %v", namespace, described, err)
	}
}

func withExecutable(options Options) Options {
	options.Executable = shared.executable
	return options
}

// syncBuffer may be written and read at once.
type syncBuffer struct {
	mutex sync.Mutex
	text  strings.Builder
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
