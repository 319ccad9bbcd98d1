package endtoend

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

var twoSets = simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: "audit"}, {Name: "books", Members: 1}}}

// timesOf are the processes, their times and their states.
func timesOf(result workflows.RotateDeploymentResult) (times []string) {
	for _, t := range result.Targets {
		times = append(times, t.Process, string(t.Status), t.RotateAt.Format(time.RFC3339))
	}
	return times
}

func TestRotationOfADeployment(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	options := twoSets
	options.SnapshotEvery = time.Second
	d := s.Deploy(options)
	s.StartWorker()
	input := s.DeploymentInput()
	input.Proof = workflows.ProofSnapshot
	run := s.StartDeployment(input)
	result, err := s.DeploymentResult(run)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Len(t, d.Rotations(""), 4)
	assert.Empty(t, d.Violations())
}

func TestOneRotationOfDeploymentsForEachProject(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	d := s.Deploy(twoSets)
	d.SetAgent("audit-1", simulator.Agent{ErrorCode: 7, ErrorText: "stuck"})
	s.StartWorker()
	input := s.DeploymentInput()
	input.OnFailure = workflows.OnFailureHold
	run := s.StartDeployment(input)
	s.AwaitDeployment(run.GetID(), fixture.DeploymentInPhase(workflows.PhaseHeld))

	_, err := s.DeploymentResult(s.StartDeploymentAs("another id of "+s.Project, input))
	fixture.RequireFailure(t, err, workflows.ErrorClusterBusy)
	assert.ErrorContains(t, err, "a rotation of this project's deployments is already running: see workflow "+run.GetID())

	d.SetAgent("audit-1", simulator.Agent{})
	_, err = s.UpdateDeployment(run.GetID(), workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	require.NoError(t, err)
	_, err = s.DeploymentResult(run)
	require.NoError(t, err)
	assert.Empty(t, d.Violations())
	assert.Len(t, d.Rotations(""), 4)
}

// tasksAfterPlan are the workflow tasks that completed after the processes were listed.
func tasksAfterPlan(events []*historypb.HistoryEvent) (ids []int64) {
	listing, isListed := int64(0), false
	for _, event := range events {
		switch event.GetEventType() {
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
			if event.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName() == activities.ListProcessesName {
				listing = event.GetEventId()
			}
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
			isListed = isListed || event.GetActivityTaskCompletedEventAttributes().GetScheduledEventId() == listing
		case enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
			if isListed {
				ids = append(ids, event.GetEventId())
			}
		}
	}
	return ids
}

// A rotation that is reset to any point after its plan publishes no other time: not one
// that its history has, and not one that only the first run's history has.
func TestResetOfARotationOfDeployments(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	d := s.Deploy(twoSets)
	s.StartWorker()
	run := s.StartDeployment(s.DeploymentInput())
	first, err := s.DeploymentResult(run)
	require.NoError(t, err)
	puts := len(d.Puts())
	points := tasksAfterPlan(s.History(run))
	require.Greater(t, len(points), 4)
	for _, point := range points {
		again, err := s.DeploymentResult(resetTo(s, run, point))
		require.NoError(t, err, "event %d", point)
		assert.Equal(t, timesOf(first), timesOf(again), "event %d", point)
		assert.Len(t, d.Puts(), puts, "event %d", point)
	}
	assert.Len(t, d.Rotations(""), 4)
	assert.Empty(t, d.Violations())
}

// A rotation of many replica sets continues as new between two of them, with their
// times, and proves them in whichever run.
func TestRotationOfDeploymentsContinuesAsNew(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "40"}})
	s := fixture.NewServerOn(t, server, simulator.Options{})
	var clusters []simulator.DeployedCluster
	for _, name := range []string{"a", "b", "c", "d"} {
		clusters = append(clusters, simulator.DeployedCluster{Name: name, Members: 1})
	}
	d := s.Deploy(simulator.DeploymentOptions{Clusters: clusters, SnapshotEvery: time.Second})
	s.StartWorker()
	input := s.DeploymentInput()
	input.RequireApproval, input.Proof = true, workflows.ProofSnapshot
	run := s.StartDeployment(input)
	s.AwaitDeployment(run.GetID(), fixture.DeploymentInPhase(workflows.PhaseAwaitingApproval))
	_, err := s.UpdateDeployment(run.GetID(), workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
	require.NoError(t, err)
	first := run.GetRunID()
	result, err := s.DeploymentResult(run)
	require.NoError(t, err)
	saveEarlierRuns(s, run.GetID(), first)
	require.NotNil(t, s.History(s.Temporal.GetWorkflow(t.Context(), run.GetID(), first))[0])
	described, err := s.Temporal.DescribeWorkflowExecution(t.Context(), run.GetID(), "")
	require.NoError(t, err)
	assert.NotEqual(t, first, described.GetWorkflowExecutionInfo().GetExecution().GetRunId(), "it has continued as new")
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome, "%v", result.ReplicaSets)
	for _, record := range result.Targets {
		assert.Equal(t, workflows.StatusVerified, record.Status)
	}
	assert.Len(t, d.Puts(), 4)
	assert.Len(t, d.Rotations(""), 4)
	assert.Empty(t, d.Violations())
	assert.Equal(t, "lee", result.Approval.By)
}

// Whatever happens to the workers, the same time is published and waited for.
func TestRotationOfDeploymentsOutlivesItsWorker(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	d := s.Deploy(twoSets)
	d.SetAgent("audit-1", simulator.Agent{Waits: time.Hour})
	stop := s.StartWorker()
	run := s.StartDeployment(s.DeploymentInput())
	s.AwaitLedger(func(simulator.Ledger) bool { return true })
	waiting.Until(t, func() bool { d.Version(); return len(d.Rotations("")) == 1 })
	stop()
	d.SetAgent("audit-1", simulator.Agent{})
	s.StartWorker()
	result, err := s.DeploymentResult(run)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Len(t, d.Puts(), 2)
	assert.Len(t, d.Rotations(""), 4)
	assert.Empty(t, d.Violations())
}

// Others rotate, overwrite and drop times; operators pause, skip and retry.
func TestRotationOfDeploymentsAmongOthers(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	d := s.Deploy(twoSets)
	d.Edit(simulator.DropRotationTimes("audit-0", "audit-1", "audit-2"))
	s.OM.Inject(simulator.RivalAtPut(s.Project, simulator.Rival{When: simulator.RivalBefore, Change: simulator.RivalTouches, By: "dana"}))
	s.StartWorker()
	input := s.DeploymentInput()
	input.OnFailure = workflows.OnFailureHold
	run := s.StartDeployment(input)
	update := func(name string, request any) {
		t.Helper()
		_, err := s.UpdateDeployment(run.GetID(), name, request)
		require.NoError(t, err)
	}
	held := s.AwaitDeployment(run.GetID(), fixture.DeploymentInPhase(workflows.PhaseHeld))
	assert.Equal(t, workflows.ErrorOverwroteConcurrentChange, held.Targets[0].Error.Type)
	waiting.Until(t, func() bool { d.Version(); return len(d.Rotations("")) == 3 })

	d.SetAgent("audit-1", simulator.Agent{Waits: time.Hour})
	theirs := time.Now().Add(-time.Minute).UTC().Truncate(time.Second)
	d.Publish("dana", simulator.SetRotationTime(theirs, "books-0"))
	waiting.Until(t, func() bool { d.Version(); return len(d.Rotations("books-0")) == 1 })
	update(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee", Reason: "lunch"})
	update(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	update(workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
	d.SetAgent("audit-1", simulator.Agent{})
	held = s.AwaitDeployment(run.GetID(), func(p workflows.DeploymentProgress) bool {
		return p.Phase == workflows.PhaseHeld && p.Counts[workflows.StatusRotated] == 3
	})
	assert.Equal(t, workflows.ErrorRotatedByOthers, held.Targets[3].Error.Type)
	assert.Nil(t, held.Targets[3].RotateAt)
	update(workflows.RetryUpdate, workflows.RetryRequest{By: "lee", Targets: []string{"books-0"}})
	result, err := s.DeploymentResult(run)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Len(t, d.Rotations("books-0"), 2, "theirs and ours")
	assert.Empty(t, d.Violations())
	assert.Len(t, result.Actions, 4)
}
