package endtoend

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// afterFirstReading returns the first workflow task that completed after a
// ReadKeys activity.
func afterFirstReading(t *testing.T, events []*historypb.HistoryEvent) int64 {
	t.Helper()
	readings, isRead := map[int64]bool{}, false
	for _, event := range events {
		switch event.GetEventType() {
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
			readings[event.GetEventId()] = event.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName() == activities.ReadKeysName
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
			isRead = isRead || readings[event.GetActivityTaskCompletedEventAttributes().GetScheduledEventId()]
		case enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
			if isRead {
				return event.GetEventId()
			}
		}
	}
	require.Fail(t, "no workflow task completed after the keys were read")
	return 0
}

// resetTo resets a run with Temporal's CLI and returns the new run.
func resetTo(s fixture.Server, run client.WorkflowRun, eventID int64) client.WorkflowRun {
	s.Helper()
	s.CLI("workflow", "reset", "-w", run.GetID(), "-r", run.GetRunID(), "--event-id", strconv.FormatInt(eventID, 10), "--reason", "a test")
	described, err := s.Temporal.DescribeWorkflowExecution(s.Context(), run.GetID(), "")
	require.NoError(s, err)
	again := described.GetWorkflowExecutionInfo().GetExecution().GetRunId()
	require.NotEqual(s, run.GetRunID(), again)
	return s.Temporal.GetWorkflow(s.Context(), run.GetID(), again)
}

// keysOf are the keys of all targets before and after.
func keysOf(result workflows.RotateClusterResult) (keys []string) {
	for _, t := range result.Targets {
		keys = append(keys, t.Name, t.PreviousKeyUUID, t.NewKeyUUID)
	}
	return keys
}

// A large cluster's rotation, reset to the first point after its first reading,
// sends no PUT again.
func TestResetBetweenReadingsOfALargeCluster(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 119)
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.Concurrency = 32
	run := s.Start(input)
	before := keysOf(s.RequireRotated(run, 120))
	again := s.RequireRotated(resetTo(s, run, afterFirstReading(t, s.History(run))), 120)
	assert.Equal(t, before, keysOf(again))
	assert.Len(t, s.OM.Ledger().Rotations, 120)
}

// A reset to between the two readings of a rotation that was approved: what the
// copy reads may be the effect of the first run's PUTs, and replaces nothing.
func TestResetBetweenApprovalAndReading(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.RequireApproval = true
	run := s.Start(input)
	approve := func() {
		p := s.Await(run.GetID(), func(p workflows.Progress) bool {
			return p.Phase == workflows.PhaseAwaitingApproval || p.Phase == workflows.PhaseDone
		})
		if p.Phase == workflows.PhaseAwaitingApproval {
			_, err := s.Update(run.GetID(), workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
			require.NoError(t, err)
		}
	}
	approve()
	before := keysOf(s.RequireRotated(run, 3))

	// The PUT of one of them does not show yet: an ID that has not changed proves
	// nothing either.
	s.OM.Inject(simulator.KeyStale(cluster.ConfigID))
	copied := resetTo(s, run, afterFirstReading(t, s.History(run)))
	approve() // unless the server applied the first approval once more
	result, err := s.Result(copied)
	require.NoError(t, err)
	s.RequireMatchesLedger(result.Targets)
	assert.Equal(t, before, keysOf(result))
	assert.Len(t, s.OM.Ledger().Rotations, 3)
	for _, record := range result.Targets {
		assert.True(t, record.Ambiguous, record.Name)
	}
}
