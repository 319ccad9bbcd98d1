package endtoend

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

// runScheduled has a schedule that a failure pauses start a workflow once.
func runScheduled(s fixture.Server, workflowType string, input any) (client.ScheduleHandle, client.WorkflowRun) {
	s.Helper()
	handle, err := s.Temporal.ScheduleClient().Create(s.Context(), client.ScheduleOptions{
		ID: "of-" + s.Project, Spec: client.ScheduleSpec{}, PauseOnFailure: true, TriggerImmediately: true,
		Action: &client.ScheduleWorkflowAction{ID: "scheduled-" + s.Project, Workflow: workflowType, Args: []any{input}, TaskQueue: s.TaskQueue},
	})
	require.NoError(s, err)
	s.Cleanup(func() { _ = handle.Delete(context.Background()) })
	var started []client.ScheduleActionResult
	waiting.UntilAnswer(s, func() (bool, error) {
		described, err := handle.Describe(s.Context())
		if err == nil {
			started = described.Info.RecentActions
		}
		return len(started) > 0, err
	}, "the schedule has started nothing")
	first := started[0].StartWorkflowResult
	return handle, s.Temporal.GetWorkflow(s.Context(), first.WorkflowID, first.FirstExecutionRunID)
}

// A decision about one rotation is none about the next.
func TestWhatPeopleEndDoesNotPauseItsSchedule(t *testing.T) {
	t.Parallel()
	cluster := func(s fixture.Server) (string, any, string) {
		input := s.Input(s.OM.AddReplicaSet(s.Project, "orders").ID)
		input.RequireApproval = true
		return workflows.RotateClusterType, input, workflows.RotateClusterID(workflows.DefaultConnection, s.Project, input.ClusterID)
	}
	fleet := func(s fixture.Server) (string, any, string) {
		_, input, id := cluster(s)
		fleet := fleetOf(s)
		fleet.Rotation.RequireApproval, fleet.Rotation.ApprovalTimeout = true, input.(workflows.RotateClusterInput).ApprovalTimeout
		return workflows.RotateFleetType, fleet, id
	}
	update := func(name string, request any) func(fixture.Server, client.WorkflowRun, string) {
		return func(s fixture.Server, _ client.WorkflowRun, id string) {
			s.Await(id, func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })
			_, err := s.Update(id, name, request)
			require.NoError(s, err)
		}
	}
	by := workflows.OperatorRequest{By: "lee", Reason: "not tonight"}
	for name, c := range map[string]struct {
		input  func(fixture.Server) (workflowType string, input any, rotationID string)
		end    func(s fixture.Server, run client.WorkflowRun, rotationID string)
		failed workflows.ErrorType
		pauses bool
	}{
		"rejected": {input: cluster, end: update(workflows.RejectUpdate, by), failed: workflows.ErrorRejected},
		"aborted":  {input: cluster, end: update(workflows.AbortUpdate, by), failed: workflows.ErrorAborted},
		"not approved": {
			input: func(s fixture.Server) (string, any, string) {
				workflowType, input, id := cluster(s)
				timed := input.(workflows.RotateClusterInput)
				timed.ApprovalTimeout = workflows.Duration(100 * time.Millisecond)
				return workflowType, timed, id
			},
			end: func(fixture.Server, client.WorkflowRun, string) {}, failed: workflows.ErrorApprovalTimedOut,
		},
		"rotation canceled": {
			input: cluster, failed: workflows.ErrorAborted,
			end: func(s fixture.Server, _ client.WorkflowRun, id string) {
				s.Await(id, func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })
				require.NoError(s, s.Temporal.CancelWorkflow(s.Context(), id, ""))
			},
		},
		"run canceled": {
			input: cluster, failed: workflows.ErrorAborted,
			end: func(s fixture.Server, run client.WorkflowRun, id string) {
				s.Await(id, func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })
				require.NoError(s, s.Temporal.CancelWorkflow(s.Context(), run.GetID(), ""))
			},
		},
		"fleet aborted": {
			input: fleet, failed: workflows.ErrorAborted,
			end: func(s fixture.Server, run client.WorkflowRun, id string) {
				s.Await(id, func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })
				_, err := s.UpdateFleet(run.GetID(), workflows.AbortUpdate, by)
				require.NoError(s, err)
			},
		},
		"fleet's only cluster rejected": {input: fleet, end: update(workflows.RejectUpdate, by), failed: workflows.ErrorPartialFailure},
		"failed": {
			input: func(s fixture.Server) (string, any, string) {
				cluster := s.OM.AddReplicaSet(s.Project, "orders")
				s.OM.Inject(simulator.AccessListRefusal(http.MethodPut, cluster.ID).Always())
				return workflows.RotateClusterType, s.Input(cluster.ID), ""
			},
			end: func(fixture.Server, client.WorkflowRun, string) {}, failed: workflows.ErrorPartialFailure, pauses: true,
		},
		"cluster of a fleet failed": {
			input: func(s fixture.Server) (string, any, string) {
				s.OM.Inject(simulator.AccessListRefusal(http.MethodPut, s.OM.AddReplicaSet(s.Project, "orders").ID).Always())
				return workflows.RotateFleetType, fleetOf(s), ""
			},
			end: func(fixture.Server, client.WorkflowRun, string) {}, failed: workflows.ErrorPartialFailure, pauses: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fixture.NewServer(t, simulator.Options{})
			s.StartWorker()
			workflowType, input, rotationID := c.input(s)
			schedule, run := runScheduled(s, workflowType, input)
			c.end(s, run, rotationID)
			err := run.Get(t.Context(), nil)
			s.SaveHistory(run, "")
			assert.Equal(t, c.failed, workflows.ErrorTypeOf(err), "%v", err)
			assert.Equal(t, !c.pauses, temporal.IsCanceledError(err))
			if workflowType == workflows.RotateClusterType {
				result, found := workflows.RotateClusterResultOf(err)
				require.True(t, found)
				assert.Len(t, result.Targets, 1)
			}
			if workflowType == workflows.RotateFleetType {
				result, found := workflows.RotateFleetResultOf(err)
				require.True(t, found)
				assert.Equal(t, 1, result.Counts.Clusters)
			}
			requireNoted(s, schedule, c.pauses)
		})
	}
}

// requireNoted waits until the schedule shows how its run has ended: Temporal pauses it
// some time after that.
func requireNoted(s fixture.Server, schedule client.ScheduleHandle, isPaused bool) {
	s.Helper()
	var state *client.ScheduleState
	waiting.UntilAnswer(s, func() (bool, error) {
		described, err := schedule.Describe(s.Context())
		if err != nil {
			return false, err
		}
		state = described.Schedule.State
		return len(described.Info.RunningWorkflows) == 0 && (state.Paused || !isPaused), nil
	}, "the schedule does not show that its run has ended")
	assert.Equal(s, isPaused, state.Paused, state.Note)
}

// A fleet's run is still the schedule's after it has continued as new.
func TestAScheduledFleetThatContinuedAsNewIsAborted(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "30"}}), simulator.Options{})
	s.Unrecorded = true
	for range 20 {
		s.OM.AddReplicaSet(s.Project, "orders")
	}
	waiting := s.OM.AddReplicaSet(s.Project, "orders")
	s.StartWorker()
	s.OM.Inject(simulator.PutsGated(waiting.ID))
	schedule, run := runScheduled(s, workflows.RotateFleetType, fleetOf(s))
	s.AwaitFleet(run.GetID(), func(p workflows.FleetProgress) bool { return p.Counts.Rotated == 20 })
	_, err := s.UpdateFleet(run.GetID(), workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"})
	require.NoError(t, err)
	s.OM.ClearFaults()
	last := s.Temporal.GetWorkflow(t.Context(), run.GetID(), "")
	err = last.Get(t.Context(), nil)
	assert.NotEqual(t, run.GetRunID(), last.GetRunID(), "it continued as new")
	assert.True(t, temporal.IsCanceledError(err), "%v", err)
	assert.Equal(t, workflows.ErrorAborted, workflows.ErrorTypeOf(err))
	requireNoted(s, schedule, false)
}
