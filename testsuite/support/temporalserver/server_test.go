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

	"keyturn/testsuite/support/freeport"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
)

func TestMain(m *testing.M) {
	if os.Getenv(helperVariable) != "" {
		os.Exit(runHelper())
	}
	if os.Getenv(findVariable) != "" {
		os.Exit(printExecutable())
	}
	Main(m)
}

func TestSharedServerHasItsNamespace(t *testing.T) {
	server := Shared(t)
	assert.Equal(t, "default", server.Namespace)
	assert.Empty(t, server.UIAddress)
	assert.Empty(t, server.DatabaseFile)
	describeNamespace(t, server.NewClient(t), "default")
}

func TestNamespacesAreCreated(t *testing.T) {
	t.Parallel()
	server := StartForTest(t, Options{Namespaces: []string{"rotations", "other"}})
	assert.Equal(t, "rotations", server.Namespace)
	temporal := server.NewClient(t)
	for _, namespace := range []string{"rotations", "other", "default"} {
		describeNamespace(t, temporal, namespace)
	}
}

func TestDynamicConfig(t *testing.T) {
	t.Parallel()
	server := StartForTest(t, Options{DynamicConfig: map[string]string{"frontend.workerVersioningDataAPIs": "true", "limit.maxIDLength": "30"}})
	_, err := server.NewClient(t).ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: strings.Repeat("x", 31), TaskQueue: "nobody",
	}, "Anything")
	assert.ErrorContains(t, err, "length", "a workflow ID longer than limit.maxIDLength must be rejected")
}

func TestArgumentsAndMetrics(t *testing.T) {
	t.Parallel()
	server := StartForTest(t, Options{Arguments: []string{"--namespace", "further"}})
	describeNamespace(t, server.NewClient(t), "further")
	response, err := http.Get(server.MetricsAddress)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Contains(t, string(text), "service_requests")
}

func TestWebUIListensOnItsPort(t *testing.T) {
	t.Parallel()
	server := StartForTest(t, Options{UI: true})
	connection, err := net.Dial("tcp", strings.TrimPrefix(server.UIAddress, "http://"))
	require.NoError(t, err)
	connection.Close()
}

func TestKilledServerKeepsItsDatabaseFile(t *testing.T) {
	t.Parallel()
	server := StartForTest(t, Options{DatabaseFile: filepath.Join(t.TempDir(), "temporal.db")})
	temporal := server.NewClient(t)
	started, err := temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "survivor", TaskQueue: "nobody"}, "Anything")
	require.NoError(t, err)
	killed, address := server.PID(), server.Address
	server.Kill()
	assert.False(t, isRunning(killed), "process %d", killed)
	require.NoError(t, server.Restart(t.Context()))
	assert.Equal(t, address, server.Address)
	// The client that was connected before the crash reconnects.
	described, err := temporal.DescribeWorkflowExecution(t.Context(), "survivor", started.GetRunID())
	require.NoError(t, err)
	assert.Equal(t, enums.WORKFLOW_EXECUTION_STATUS_RUNNING, described.GetWorkflowExecutionInfo().GetStatus())
}

func TestStopLeavesNoProcess(t *testing.T) {
	t.Parallel()
	server := StartForTest(t, Options{})
	started := time.Now()
	server.Stop()
	assert.False(t, isRunning(server.PID()), "process %d", server.PID())
	assert.Less(t, time.Since(started), stopTime, "the server must end on SIGTERM, without being killed")
	server.Stop()
	server.Kill()
}

func TestPortsInUseAreReported(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", freeport.Address(0))
	require.NoError(t, err)
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	for name, options := range map[string]Options{"Port": {Port: port}, "UIPort": {UI: true, UIPort: port}} {
		_, err := Start(t.Context(), withExecutable(options))
		assert.ErrorContains(t, err, name)
		assert.ErrorContains(t, err, strconv.Itoa(port))
	}
}

func TestFailedStartShowsLastLines(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), withExecutable(Options{DatabaseFile: filepath.Join(t.TempDir(), "missing", "temporal.db")}))
	assert.ErrorContains(t, err, "the process exited")
	assert.ErrorContains(t, err, "missing")
}

func TestStartEndsWithItsContext(t *testing.T) {
	sleeper := writeScript(t, "#!/bin/sh\necho still busy >&2\nexec sleep 600\n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := Start(ctx, Options{Executable: sleeper})
	assert.ErrorContains(t, err, "still busy")
}

func TestCLIRunsAgainstTheServer(t *testing.T) {
	t.Parallel()
	server := Shared(t)
	stdout, stderr, err := server.CLI(t.Context(), "operator", "namespace", "describe", "--output", "json")
	require.NoError(t, err, stderr)
	assert.Contains(t, stdout, `"default"`)
	_, stderr, err = server.CLI(t.Context(), "workflow", "describe", "--workflow-id", "nowhere")
	require.Error(t, err)
	assert.NotEmpty(t, stderr)
}

func TestOutputReceivesServerLog(t *testing.T) {
	t.Parallel()
	var output syncBuffer
	server := StartForTest(t, Options{Output: &output})
	server.Stop()
	assert.Contains(t, output.String(), strconv.Itoa(server.ports.frontend))
}

func TestTailKeepsTheLastLines(t *testing.T) {
	var kept tail
	for i := range 2 * tailLines {
		fmt.Fprintf(&kept, "line %d\nsecond ", i)
	}
	lines := strings.Split(kept.String(), "\n")
	require.Len(t, lines, tailLines+1)
	assert.Equal(t, fmt.Sprintf("second line %d", 2*tailLines-1), lines[len(lines)-2])
}

func describeNamespace(t *testing.T, temporal client.Client, namespace string) {
	t.Helper()
	described, err := temporal.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	require.NoError(t, err, namespace)
	assert.Equal(t, namespace, described.GetNamespaceInfo().GetName())
}

func withExecutable(options Options) Options {
	options.Executable = shared.executable
	return options
}

// syncBuffer is safe for concurrent use.
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
