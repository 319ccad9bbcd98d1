// Package stage is what a test of whole rotations plays on: a real Temporal
// server, the worker of production and a simulated Ops Manager.
package stage

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/testsuite/environment"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/temporalserver"
	"keyturn/worker/rotationworker"
	"keyturn/workflows"
)

// Stage is what one test plays on: a task queue and a project of its own, so
// that no test's rotation is another one's.
type Stage struct {
	*testing.T
	Server    *temporalserver.Server
	Temporal  client.Client
	OM        *simulator.Server
	Project   string
	TaskQueue string
	// Patience is how long a rotation may take.
	Patience time.Duration
	// Unrecorded rotations are no golden histories, even if those are asked for.
	Unrecorded bool
}

// New makes a stage on the server that the package's tests share.
func New(t *testing.T, options simulator.Options) Stage {
	t.Helper()
	return On(t, temporalserver.Shared(t), options)
}

// On makes a stage on a server of the test's own.
func On(t *testing.T, server *temporalserver.Server, options simulator.Options) Stage {
	t.Helper()
	return With(t, server, simulator.Start(t, options))
}

// With makes a stage with an Ops Manager that is there already.
func With(t *testing.T, server *temporalserver.Server, om *simulator.Server) Stage {
	t.Helper()
	return Stage{
		T: t, Server: server, Temporal: server.NewClient(t), OM: om,
		Project: newID(), TaskQueue: t.Name(), Patience: 2 * time.Minute,
	}
}

// AddProject adds a further project, and gives its id.
func (s Stage) AddProject() string {
	id := newID()
	s.OM.AddProject(simulator.Project{ID: id, Name: "project " + id})
	return id
}

// newID makes an id as Ops Manager's are, which nothing else has.
func newID() string {
	id := make([]byte, 12)
	_, _ = rand.Read(id)
	return hex.EncodeToString(id)
}

// StartWorker runs a worker in this process until the test ends, or its
// stopping is asked for.
func (s Stage) StartWorker() (stop func()) {
	s.Helper()
	return s.StartWorkerWith(s.Temporal, environment.Client(s.T, s.OM))
}

// StartWorkerWith is StartWorker with clients and options of the caller's.
func (s Stage) StartWorkerWith(temporal client.Client, om *opsmanager.Client, adjust ...func(*sdkworker.Options)) (stop func()) {
	s.Helper()
	w := rotationworker.New(temporal, s.TaskQueue, &activities.Activities{Connections: map[string]*opsmanager.Client{
		workflows.DefaultConnection: om,
	}}, adjust...)
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

// Input has times that suit a test.
func (s Stage) Input(clusterID string) workflows.RotateClusterInput {
	input := environment.Input(clusterID)
	input.ProjectID = s.Project
	return input
}

// Start starts a rotation under its own id.
func (s Stage) Start(input workflows.RotateClusterInput) client.WorkflowRun {
	s.Helper()
	return s.StartAs(workflows.RotateClusterID(workflows.DefaultConnection, input.ProjectID, input.ClusterID), input)
}

// StartAs starts a rotation under any id and with any input.
func (s Stage) StartAs(id string, input any) client.WorkflowRun {
	s.Helper()
	return s.start(id, workflows.RotateClusterType, input)
}

// StartFleet starts the rotation of a fleet, under an id of the test's own.
func (s Stage) StartFleet(input any) client.WorkflowRun {
	s.Helper()
	return s.start(workflows.RotateFleetID(s.Project), workflows.RotateFleetType, input)
}

func (s Stage) start(id, workflowType string, input any) client.WorkflowRun {
	s.Helper()
	run, err := s.Temporal.ExecuteWorkflow(s.Context(), client.StartWorkflowOptions{
		ID: id, TaskQueue: s.TaskQueue, WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflowType, input)
	require.NoError(s, err)
	s.Cleanup(func() {
		if s.Failed() {
			s.logState(id)
		}
		_ = s.Temporal.TerminateWorkflow(context.Background(), id, "", "the test has ended")
	})
	return run
}

// logState tells where a rotation is, for who looks into a failure.
func (s Stage) logState(id string) {
	s.Helper()
	described, err := s.Temporal.DescribeWorkflowExecution(context.Background(), id, "")
	if err != nil {
		s.Logf("%s: %v", id, err)
		return
	}
	s.Logf("%s is %s, run %s", id, described.GetWorkflowExecutionInfo().GetStatus(), described.GetWorkflowExecutionInfo().GetExecution().GetRunId())
	for _, pending := range described.GetPendingActivities() {
		s.Logf("pending: %v", pending)
	}
	if task := described.GetPendingWorkflowTask(); task != nil {
		s.Logf("pending: %v", task)
	}
}

// Result waits for the end of a rotation.
func (s Stage) Result(run client.WorkflowRun) (workflows.RotateClusterResult, error) {
	s.Helper()
	return resultOf[workflows.RotateClusterResult](s, run)
}

// FleetResult is Result of a fleet.
func (s Stage) FleetResult(run client.WorkflowRun) (workflows.RotateFleetResult, error) {
	s.Helper()
	return resultOf[workflows.RotateFleetResult](s, run)
}

func resultOf[R any](s Stage, run client.WorkflowRun) (result R, err error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), s.Patience)
	defer cancel()
	err = run.Get(ctx, &result)
	s.keep(run)
	return result, err
}

// RequireRotated waits for the end of a rotation and compares its records with
// the simulator's ledger.
func (s Stage) RequireRotated(run client.WorkflowRun, targets int) workflows.RotateClusterResult {
	s.Helper()
	result, err := s.Result(run)
	require.NoError(s, err)
	require.Equal(s, workflows.OutcomeRotated, result.Outcome)
	require.Len(s, result.Targets, targets)
	s.RequireTrue(result.Targets)
	return result
}

// RequireTrue compares records with the simulator's ledger.
func (s Stage) RequireTrue(records []workflows.TargetRecord) {
	s.Helper()
	require.NoError(s, environment.CheckRecords(s.OM.Ledger(), records))
}

// RequireFailure finds the application error that a rotation must have failed
// with.
func RequireFailure(t testing.TB, err error, errorType string) *temporal.ApplicationError {
	t.Helper()
	require.Error(t, err)
	var appErr *temporal.ApplicationError
	require.ErrorAs(t, err, &appErr)
	require.Equal(t, errorType, appErr.Type(), "%v", err)
	return appErr
}

// Progress asks the progress query.
func (s Stage) Progress(id string) workflows.Progress {
	s.Helper()
	return query[workflows.Progress](s, id)
}

// FleetProgress is Progress of a fleet.
func (s Stage) FleetProgress(id string) workflows.FleetProgress {
	s.Helper()
	return query[workflows.FleetProgress](s, id)
}

func query[P any](s Stage, id string) (p P) {
	s.Helper()
	value, err := s.Temporal.QueryWorkflow(s.Context(), id, "", workflows.ProgressQuery)
	require.NoError(s, err)
	require.NoError(s, value.Get(&p))
	return p
}

// Await polls the progress until a condition holds.
func (s Stage) Await(id string, holds func(workflows.Progress) bool) workflows.Progress {
	s.Helper()
	return await(s, id, holds)
}

// AwaitFleet is Await of a fleet.
func (s Stage) AwaitFleet(id string, holds func(workflows.FleetProgress) bool) workflows.FleetProgress {
	s.Helper()
	return await(s, id, holds)
}

func await[P any](s Stage, id string, holds func(P) bool) (p P) {
	s.Helper()
	require.Eventually(s, func() bool { p = query[P](s, id); return holds(p) }, time.Minute, 20*time.Millisecond, "%s", id)
	return p
}

// AwaitLedger waits until the simulator's ledger fulfils a condition.
func (s Stage) AwaitLedger(fulfilled func(simulator.Ledger) bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), s.Patience)
	defer cancel()
	require.NoError(s, s.OM.Await(ctx, fulfilled))
}

// AwaitPut waits until the first PUT of a key has been sent.
func (s Stage) AwaitPut() {
	s.Helper()
	s.AwaitLedger(func(l simulator.Ledger) bool { return l.Count(http.MethodPut, "") > 0 })
}

// AwaitAbort waits until a rotation that has targets in work knows that it is
// aborted.
func (s Stage) AwaitAbort(id string) {
	s.Helper()
	s.Await(id, func(p workflows.Progress) bool { return strings.Contains(p.WaitingFor, "aborted by") })
}

// Detain keeps targets from being rotated until the simulator's faults are
// cleared: their PUTs are turned away, for as long as the input's RetryTimeout
// lets them be tried again. So a test can meet a rotation at work, however slow
// the machine is.
func (s Stage) Detain(clusterIDs ...string) {
	for _, id := range clusterIDs {
		s.OM.Inject(simulator.RateLimited(http.MethodPut, id, "1").Always())
	}
}

// Update sends an operator's command and waits for its answer.
func (s Stage) Update(id, name string, request any) (workflows.Progress, error) {
	s.Helper()
	return update[workflows.Progress](s, id, name, request)
}

// UpdateFleet is Update of a fleet.
func (s Stage) UpdateFleet(id, name string, request any) (workflows.FleetProgress, error) {
	s.Helper()
	return update[workflows.FleetProgress](s, id, name, request)
}

func update[P any](s Stage, id, name string, request any) (p P, err error) {
	s.Helper()
	handle, err := s.Temporal.UpdateWorkflow(s.Context(), client.UpdateWorkflowOptions{
		WorkflowID: id, UpdateName: name, Args: []any{request}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return p, err
	}
	err = handle.Get(s.Context(), &p)
	return p, err
}

// History reads a run's events.
func (s Stage) History(run client.WorkflowRun) []*historypb.HistoryEvent {
	s.Helper()
	var events []*historypb.HistoryEvent
	pages := s.Temporal.GetWorkflowHistory(s.Context(), run.GetID(), run.GetRunID(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for pages.HasNext() {
		event, err := pages.Next()
		require.NoError(s, err)
		events = append(events, event)
	}
	return events
}

// CLI runs Temporal's command line tool, which must succeed.
func (s Stage) CLI(arguments ...string) string {
	s.Helper()
	stdout, stderr, err := s.Server.CLI(s.Context(), arguments...)
	require.NoError(s, err, "%s%s", stdout, stderr)
	return stdout
}
