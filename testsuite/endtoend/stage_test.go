// Package endtoend runs rotations on a real Temporal server, with the worker of
// production, against a simulated Ops Manager.
package endtoend

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/testsuite/environment"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/temporalserver"
	"keyturn/worker/rotationworker"
	"keyturn/workflows"
)

func TestMain(m *testing.M) { temporalserver.Main(m) }

// stage is what one test plays on: a task queue and a project of its own, so
// that no test's rotation is another one's.
type stage struct {
	*testing.T
	server    *temporalserver.Server
	temporal  client.Client
	om        *simulator.Server
	project   string
	taskQueue string
}

func newStage(t *testing.T, options simulator.Options) stage {
	t.Helper()
	return newStageOn(t, temporalserver.Shared(t), options)
}

func newStageOn(t *testing.T, server *temporalserver.Server, options simulator.Options) stage {
	t.Helper()
	id := make([]byte, 12)
	_, _ = rand.Read(id)
	return stage{t, server, server.NewClient(t), simulator.Start(t, options), hex.EncodeToString(id), t.Name()}
}

// startWorker runs a worker in this process until the test ends, or its
// stopping is asked for.
func (s stage) startWorker() (stop func()) {
	s.Helper()
	w := rotationworker.New(s.temporal, s.taskQueue, &activities.Activities{Connections: map[string]*opsmanager.Client{
		workflows.DefaultConnection: environment.Client(s.T, s.om),
	}})
	require.NoError(s, w.Start())
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			w.Stop()
		}
	}
	s.Cleanup(stop)
	return stop
}

func (s stage) input(clusterID string) workflows.RotateClusterInput {
	input := environment.Input(clusterID)
	input.ProjectID = s.project
	return input
}

// start starts a rotation under its own id.
func (s stage) start(input workflows.RotateClusterInput) client.WorkflowRun {
	s.Helper()
	return s.startAs(workflows.RotateClusterID(workflows.DefaultConnection, input.ProjectID, input.ClusterID), input)
}

func (s stage) startAs(id string, input any) client.WorkflowRun {
	s.Helper()
	run, err := s.temporal.ExecuteWorkflow(s.Context(), client.StartWorkflowOptions{
		ID: id, TaskQueue: s.taskQueue, WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflows.RotateClusterType, input)
	require.NoError(s, err)
	s.Cleanup(func() {
		_ = s.temporal.TerminateWorkflow(context.Background(), id, "", "the test has ended")
	})
	return run
}

func (s stage) result(run client.WorkflowRun) (result workflows.RotateClusterResult, err error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 2*time.Minute)
	defer cancel()
	err = run.Get(ctx, &result)
	s.keep(run)
	return result, err
}

// requireRotated waits for the end of a rotation and compares its records with
// the simulator's ledger.
func (s stage) requireRotated(run client.WorkflowRun, targets int) workflows.RotateClusterResult {
	s.Helper()
	result, err := s.result(run)
	require.NoError(s, err)
	require.Equal(s, workflows.OutcomeRotated, result.Outcome)
	require.Len(s, result.Targets, targets)
	s.requireTrue(result.Targets)
	return result
}

func (s stage) requireTrue(records []workflows.TargetRecord) {
	s.Helper()
	require.NoError(s, environment.CheckRecords(s.om.Ledger(), records))
}

func (s stage) progress(id string) workflows.Progress {
	s.Helper()
	value, err := s.temporal.QueryWorkflow(s.Context(), id, "", workflows.ProgressQuery)
	require.NoError(s, err)
	var p workflows.Progress
	require.NoError(s, value.Get(&p))
	return p
}

// await polls the progress until a condition holds.
func (s stage) await(id string, holds func(workflows.Progress) bool) workflows.Progress {
	s.Helper()
	var p workflows.Progress
	require.Eventually(s, func() bool { p = s.progress(id); return holds(p) }, time.Minute, 20*time.Millisecond)
	return p
}

func (s stage) update(id, name string, request any) (workflows.Progress, error) {
	s.Helper()
	handle, err := s.temporal.UpdateWorkflow(s.Context(), client.UpdateWorkflowOptions{
		WorkflowID: id, UpdateName: name, Args: []any{request}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return workflows.Progress{}, err
	}
	var p workflows.Progress
	err = handle.Get(s.Context(), &p)
	return p, err
}

func (s stage) history(run client.WorkflowRun) []*historypb.HistoryEvent {
	s.Helper()
	var events []*historypb.HistoryEvent
	pages := s.temporal.GetWorkflowHistory(s.Context(), run.GetID(), run.GetRunID(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for pages.HasNext() {
		event, err := pages.Next()
		require.NoError(s, err)
		events = append(events, event)
	}
	return events
}

func (s stage) cli(arguments ...string) string {
	s.Helper()
	stdout, stderr, err := s.server.CLI(s.Context(), arguments...)
	require.NoError(s, err, "%s%s", stdout, stderr)
	return stdout
}
