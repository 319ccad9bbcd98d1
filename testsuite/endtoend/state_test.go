package endtoend

import (
	"flag"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

// reset resets a workflow to its first workflow task and returns the new run.
func reset(s fixture.Server, run client.WorkflowRun) client.WorkflowRun {
	s.Helper()
	s.CLI("workflow", "reset", "-w", run.GetID(), "--type", "FirstWorkflowTask", "--reason", "test")
	return s.Temporal.GetWorkflow(s.Context(), run.GetID(), "")
}

// A workflow that handed its rotation over and is reset starts no second
// rotation, whether the first one has ended or not.
func TestResetOfAHandOverStartsNoSecondRotation(t *testing.T) {
	t.Parallel()
	for name, blocked := range map[string]bool{"rotation has ended": false, "rotation is running": true} {
		t.Run(name, func(t *testing.T) {
			s := fixture.NewServer(t, simulator.Options{})
			s.Unrecorded = true
			cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
			if blocked {
				s.BlockRotation(cluster.ConfigID)
			}
			s.StartWorker()
			input := s.Input(cluster.ID)
			run := s.StartAs("a schedule's "+s.Project, input)
			lock := workflows.RotateClusterID("default", s.Project, cluster.ID)
			if blocked {
				s.AwaitLedger(func(l simulator.Ledger) bool { return l.Count(http.MethodPut, cluster.ConfigID) > 0 })
			} else {
				s.RequireRotated(run, 3)
			}
			_, err := s.Result(reset(s, run))
			if !blocked {
				message := fixture.RequireFailure(t, err, workflows.ErrorClusterBusy).Message()
				assert.Contains(t, message, "this workflow was reset")
				assert.Contains(t, message, lock)
			}
			s.OM.ClearFaults()
			s.RequireRotated(s.Temporal.GetWorkflow(t.Context(), lock, ""), 3)
			assert.Len(t, s.OM.Ledger().Rotations, 3)
		})
	}
}

// shortHistories is a server that suggests continue-as-new at 40 events.
func shortHistories(t *testing.T) *temporalserver.Server {
	return temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "40"}})
}

// A cron schedule starts each run with the arguments of the run before, and as
// its continuation: nobody can start a rotation from a state of their own so.
func TestCronRunsTakeUpNoState(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, shortHistories(t), simulator.Options{})
	s.Unrecorded = true
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 11)
	s.StartWorker()
	id := workflows.RotateClusterID("default", s.Project, cluster.ID)
	start := func(arguments ...any) {
		_, err := s.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
			ID: id, TaskQueue: s.TaskQueue, CronSchedule: "@every 1s",
		}, workflows.RotateClusterType, arguments...)
		require.NoError(t, err)
	}
	count := func(status string) int {
		counted, err := s.Temporal.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{
			Query: "WorkflowId = '" + id + "' AND ExecutionStatus = '" + status + "'",
		})
		require.NoError(t, err)
		return int(counted.GetCount())
	}
	stop := func() { require.NoError(t, s.Temporal.TerminateWorkflow(t.Context(), id, "", "enough")) }

	start(s.Input(cluster.ID), map[string]any{"result": map[string]any{
		"targets": []any{map[string]any{"clusterId": cluster.ConfigID, "status": "pending", "previousKeyUUID": "forged"}},
	}})
	waiting.Until(t, func() bool { return count("Failed") >= 3 })
	stop()
	assert.Empty(t, s.OM.Ledger().Requests, "a forged state is refused by every run")

	// Temporal ends the schedule where a run continues as new.
	start(s.Input(cluster.ID))
	s.RequireRotated(s.Temporal.GetWorkflow(t.Context(), id, ""), 12)
}

// A listing that Temporal may start again takes up its own state where it continues
// as new.
func TestAListingWithARetryPolicyContinuesAsNew(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, shortHistories(t), simulator.Options{})
	s.Unrecorded = true
	projects := []string{s.Project}
	s.OM.AddReplicaSet(s.Project, "orders")
	for i := range 9 {
		projects = append(projects, fmt.Sprintf("65a1f0c2d3e4b5a6978800%02d", i))
		s.OM.AddReplicaSet(projects[i+1], "orders")
	}
	s.StartWorker()
	run, err := s.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: workflows.ListKeysID("default", "retried-"+s.Project), TaskQueue: s.TaskQueue, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 2},
	}, workflows.ListKeysType, workflows.ListKeysInput{ProjectIDs: projects})
	require.NoError(t, err)
	first := run.GetRunID()
	var result workflows.ListKeysResult
	require.NoError(t, run.Get(t.Context(), &result))
	assert.NotEqual(t, first, run.GetRunID(), "it continues as new")
	assert.True(t, result.Complete, "%+v", result.Reasons)
	assert.Equal(t, 10, result.Counts.Listed)
	assert.Len(t, result.Pages, 10)
}

var updates = flag.Int("updates", 50, "updates that a rotation waiting for approval answers; it continues as new after some 30")

// Each answer of an update is a part of the history. A rotation that waits for
// approval is not ended by Temporal for that, however often operators pause it.
func TestManyUpdatesWhileAwaitingApproval(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	s.Unrecorded = true
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 1000)
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.RequireApproval, input.Concurrency = true, 64
	run := s.Start(input)
	first := run.GetRunID()
	s.Await(run.GetID(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })
	for range *updates / 2 {
		p, err := s.Update(run.GetID(), workflows.PauseUpdate, workflows.OperatorRequest{By: "lee", Reason: strings.Repeat("\U0001F511", 2000)})
		require.NoError(t, err)
		require.Equal(t, 1001, len(p.Targets)+p.TargetsNotListed)
		_, err = s.Update(run.GetID(), workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
		require.NoError(t, err)
	}
	p := s.Progress(run.GetID())
	assert.Equal(t, workflows.PhaseAwaitingApproval, p.Phase)
	assert.Len(t, p.Targets, 1001)
	assert.Equal(t, *updates/2*2, len(p.Actions)+p.ActionsNotListed)
	_, err := s.Update(run.GetID(), workflows.RejectUpdate, workflows.OperatorRequest{By: "lee"})
	require.NoError(t, err)
	_, err = s.Result(run)
	fixture.RequireFailure(t, err, workflows.ErrorRejected)
	assert.NotEqual(t, first, run.GetRunID(), "the rotation must have continued as new")
}
