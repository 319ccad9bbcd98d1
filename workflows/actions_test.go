package workflows_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// actionsOf are the actions without their times, which must lie within the
// rotation.
func actionsOf(t *testing.T, result *workflows.RotateClusterResult) []workflows.Action {
	t.Helper()
	var actions []workflows.Action
	last := result.StartedAt
	for _, action := range result.Actions {
		assert.False(t, action.At.Before(last), "%+v", action)
		assert.False(t, action.At.After(*result.FinishedAt), "%+v", action)
		last, action.At = action.At, time.Time{}
		actions = append(actions, action)
	}
	return actions
}

func TestResultListsEveryAction(t *testing.T) {
	t.Parallel()
	env, _, input := held(t)
	input.RequireApproval = true
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "kim", Reason: "peak hour"})
		env.Command(workflows.ResumeUpdate, workflows.OperatorRequest{By: "kim"})
		env.Refused(workflows.ApproveUpdate, workflows.ApproveRequest{By: "dana"}, "another person")
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee", Comment: "window is open"})
	})
	env.When(fixture.InPhase(workflows.PhaseHeld), func(p workflows.Progress) {
		assert.Len(t, p.Actions, 3)
		env.Command(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{p.Targets[2].ClusterID}, Reason: "decommissioned"})
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, []workflows.Action{
		{By: "kim", Action: "pause", Reason: "peak hour"},
		{By: "kim", Action: "resume"},
		{By: "lee", Action: "approve", Reason: "window is open"},
		{By: "lee", Action: "skip", Targets: []string{"orders-2"}, Reason: "decommissioned"},
		{By: "lee", Action: "retry", Targets: []string{"orders-1"}},
	}, actionsOf(t, &result))
	assert.Zero(t, result.ActionsNotListed)
	require.NotNil(t, result.Targets[1].FirstError, "it failed before it was verified")
	assert.Equal(t, workflows.ErrorForbidden, result.Targets[1].FirstError.Type)
	assert.Nil(t, result.Targets[1].Error)
	assert.Nil(t, result.Targets[0].FirstError)
}

func TestFailureListsTheActionThatEndedTheRotation(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	for _, test := range []struct {
		want workflows.Action
		end  func(fixture.SDK)
	}{
		{workflows.Action{By: "lee", Action: "reject", Reason: "not tonight"}, func(env fixture.SDK) {
			env.Command(workflows.RejectUpdate, workflows.OperatorRequest{By: "lee", Reason: "not tonight"})
		}},
		{workflows.Action{By: "lee", Action: "abort", Reason: "enough"}, func(env fixture.SDK) {
			env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee", Reason: "enough"})
		}},
		{workflows.Action{By: "workflow cancellation", Action: "cancel"}, func(env fixture.SDK) { env.CancelWorkflow() }},
	} {
		t.Run(test.want.Action, func(t *testing.T) {
			env := fixture.NewSDK(t, om)
			env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) { test.end(env) })
			_, err := env.Rotate(approvalInput(cluster.ID))
			records, found := workflows.RotateClusterResultOf(err)
			require.True(t, found, "%v", err)
			assert.Equal(t, []workflows.Action{test.want}, actionsOf(t, records))
			assert.Equal(t, workflows.OutcomeNothingRotated, records.Outcome)
		})
	}
}

// The newest actions are the ones that are kept, also by the next run. The ledger has
// all who acted.
func TestOlderActionsAreCounted(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	env := fixture.NewSDK(t, om)
	pauses := 0
	var pause func()
	pause = func() {
		if pauses++; pauses == 1 {
			env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "erin"})
			env.Command(workflows.ResumeUpdate, workflows.OperatorRequest{By: "frank"})
		}
		if pauses > 110 {
			env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "kim"})
			env.RegisterDelayedCallback(func() { env.SetContinueAsNewSuggested(true) }, time.Millisecond)
			return
		}
		env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee", Reason: fmt.Sprint(pauses)})
		env.Command(workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee", Reason: fmt.Sprint(pauses)})
		env.RegisterDelayedCallback(pause, time.Millisecond)
	}
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) { pause() })
	_, err := env.Rotate(approvalInput(set.ID))
	var continued *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &continued)
	open := fixture.OpenLedger(fixture.NewLedger(t).Open)
	result, err := continueFrom(t, om, continued, approvalInput(set.ID), func(next fixture.SDK) {
		next.SetStartTime(env.Now())
		next.Activities.Ledger = open
		next.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(p workflows.Progress) {
			assert.Contains(t, p.WaitingFor, "paused by kim")
			next.Refused(workflows.ApproveUpdate, workflows.ApproveRequest{By: "dana"}, "another person")
			next.Command(workflows.ResumeUpdate, workflows.OperatorRequest{By: "kim"})
			next.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
		})
	})
	require.NoError(t, err)
	actions := actionsOf(t, &result)
	require.Len(t, actions, 200)
	assert.Equal(t, 25, result.ActionsNotListed)
	assert.Equal(t, workflows.Action{By: "lee", Action: "resume", Reason: "12"}, actions[0])
	assert.Equal(t, workflows.Action{By: "lee", Action: "approve"}, actions[199])
	entry, _, _ := entryOf[workflows.RotateClusterResult](t, open)
	assert.Equal(t, []string{"erin", "frank", "kim", "lee"}, entry.ActedBy)
}

// A failure before any PUT rotated nothing, whatever an earlier run did.
func TestFailureSaysWhetherAnythingWasRotated(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	first, err := fixture.NewSDK(t, om).Rotate(fixture.Input(cluster.ID))
	require.NoError(t, err)
	env := fixture.NewSDK(t, om)
	input := approvalInput(cluster.ID)
	input.Completed = first.Targets[:1]
	_, err = env.Rotate(input)
	records := requireRecords(t, err, workflows.ErrorApprovalTimedOut)
	assert.Equal(t, workflows.OutcomeNothingRotated, records.Outcome)
	assert.True(t, records.Targets[0].CarriedOver)
}
