package workflows_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

func approvalInput(clusterID string) workflows.RotateClusterInput {
	input := fixture.Input(clusterID)
	input.RequireApproval = true
	return input
}

func TestApprovalBySomebodyElse(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	env := fixture.NewSDK(t, om)
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(p workflows.Progress) {
		assert.Contains(t, p.WaitingFor, "other than dana")
		assert.Len(t, p.Targets, 3)
		assert.Equal(t, om.Key(cluster.ShardIDs[0]), p.Targets[0].PreviousKeyUUID)
		env.Refused(workflows.ApproveUpdate, workflows.ApproveRequest{By: " Dana "}, "another person")
		env.Refused(workflows.ApproveUpdate, workflows.ApproveRequest{}, "by: is required")
		env.Refused(workflows.ApproveUpdate, map[string]any{"by": "lee", "coment": "x"}, "unknown field")
		env.Refused(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"}, "no target has failed")
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee", Comment: "window is open"})
	})
	result, err := env.Rotate(approvalInput(cluster.ID))
	require.NoError(t, err)
	require.NotNil(t, result.Approval)
	assert.Equal(t, "lee", result.Approval.By)
	assert.Equal(t, "window is open", result.Approval.Comment)
	requireTrue(t, om, result.Targets)
}

// What an operator says is kept in the records, which must go on fitting into a
// result, and is shown on terminals.
func TestWhatAnOperatorSaysIsBounded(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 1)
	env := fixture.NewSDK(t, om)
	long, hostile := strings.Repeat("x", 2001), "a\x1b[31m"
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		env.Refused(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee", Comment: long}, "comment: must have at most 2000 characters")
		env.Refused(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee", Reason: hostile}, "reason: must not contain control characters")
		env.Refused(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"orders-0"}, Reason: long}, "reason: must have at most 2000 characters")
		env.Refused(workflows.RetryUpdate, workflows.RetryRequest{By: hostile}, "by: must not contain control characters")
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee", Comment: long[1:]})
	})
	result, err := env.Rotate(approvalInput(cluster.ID))
	require.NoError(t, err)
	assert.Equal(t, long[1:], result.Approval.Comment)
}

func TestRejectionRotatesNothing(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	env := fixture.NewSDK(t, om)
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		env.Command(workflows.RejectUpdate, workflows.OperatorRequest{By: "lee", Reason: "not tonight"})
	})
	_, err := env.Rotate(approvalInput(cluster.ID))
	appErr := requireFailure(t, err, workflows.ErrorRejected)
	assert.Contains(t, appErr.Message(), "lee: not tonight")
	assert.Empty(t, om.Ledger().Rotations)
}

func TestApprovalTimesOut(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	_, err := fixture.NewSDK(t, om).Rotate(approvalInput(cluster.ID))
	requireFailure(t, err, workflows.ErrorApprovalTimedOut)
	assert.Empty(t, om.Ledger().Rotations)
}

func TestKeyChangedSinceThePlanIsApprovedAnew(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	env := fixture.NewSDK(t, om)
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		om.SetKey(cluster.ShardIDs[1], "someone-elses")
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
		env.When(func(p workflows.Progress) bool { return strings.Contains(p.WaitingFor, "changed after the approval") }, func(p workflows.Progress) {
			assert.Contains(t, p.WaitingFor, "orders-1")
			assert.Nil(t, p.Approval)
			assert.Equal(t, "someone-elses", p.Targets[1].PreviousKeyUUID)
			env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "kim"})
		})
	})
	result, err := env.Rotate(approvalInput(cluster.ID))
	require.NoError(t, err)
	assert.Equal(t, "kim", result.Approval.By)
	assert.Equal(t, "someone-elses", result.Targets[1].PreviousKeyUUID)
	requireTrue(t, om, result.Targets)
}

// held is a rotation of four targets whose second one is refused.
func held(t *testing.T) (fixture.SDK, simulator.ShardedCluster, workflows.RotateClusterInput) {
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 3)
	om.Inject(simulator.AccessListRefusal(http.MethodPut, cluster.ShardIDs[1]))
	input := fixture.Input(cluster.ID)
	input.OnFailure, input.Concurrency = workflows.OnFailureHold, 1
	return fixture.NewSDK(t, om), cluster, input
}

func TestHeldRotationGoesOnAfterRetry(t *testing.T) {
	t.Parallel()
	env, _, input := held(t)
	env.When(fixture.InPhase(workflows.PhaseHeld), func(p workflows.Progress) {
		assert.Equal(t, map[workflows.Status]int{"verified": 1, "failed": 1, "pending": 2}, p.Counts)
		assert.Contains(t, p.WaitingFor, "an operator to retry, skip or abort")
		assert.Contains(t, p.WaitingFor, "orders-1 failed (Forbidden)")
		env.Refused(workflows.RetryUpdate, workflows.RetryRequest{By: "lee", Targets: []string{"orders-0"}}, "orders-0 is verified, not failed")
		env.Refused(workflows.RetryUpdate, workflows.RetryRequest{By: "lee", Targets: []string{"orders-9"}}, `no target is named "orders-9"`)
		env.Refused(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"}, "is not waiting for approval")
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Equal(t, 2, result.Targets[1].Attempts)
	requireTrue(t, env.OM, result.Targets)
}

func TestHeldRotationGoesOnAfterSkip(t *testing.T) {
	t.Parallel()
	env, _, input := held(t)
	env.When(fixture.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.Refused(workflows.SkipUpdate, workflows.SkipRequest{By: "lee"}, "targets: is required")
		env.Command(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"orders-1", "orders-2"}, Reason: "decommissioned"})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotatedWithSkips, result.Outcome)
	assert.Equal(t, map[string]string{"orders-0": "verified", "orders-1": "skipped", "orders-2": "skipped", "orders-config": "verified"}, statusesOf(result.Targets))
	assert.Contains(t, result.Targets[1].Error.Message, "skipped by lee: decommissioned")
	assert.Contains(t, result.Targets[1].Error.Message, "Forbidden")
	requireTrue(t, env.OM, result.Targets)
}

func TestHeldRotationIsAborted(t *testing.T) {
	t.Parallel()
	env, _, input := held(t)
	env.When(fixture.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee", Reason: "enough"})
	})
	_, err := env.Rotate(input)
	records := requireRecords(t, err, workflows.ErrorAborted)
	assert.Equal(t, map[string]string{"orders-0": "verified", "orders-1": "failed", "orders-2": "pending", "orders-config": "pending"}, statusesOf(records.Targets))
	requireTrue(t, env.OM, records.Targets)
}

func TestHoldTimesOut(t *testing.T) {
	t.Parallel()
	env, _, input := held(t)
	_, err := env.Rotate(input)
	records := requireRecords(t, err, workflows.ErrorPartialFailure)
	assert.Equal(t, 1, len(env.OM.Ledger().Rotations))
	assert.Equal(t, workflows.StatusFailed, records.Targets[1].Status)
	assert.GreaterOrEqual(t, records.FinishedAt.Sub(records.StartedAt), 168*time.Hour)
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{Latency: 20 * time.Millisecond})
	cluster := om.AddShardedCluster(project, "orders", 5)
	env := fixture.NewSDK(t, om)
	env.When(func(p workflows.Progress) bool { return p.Counts[workflows.StatusVerified] >= 1 }, func(workflows.Progress) {
		env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee", Reason: "peak hour"})
		env.Refused(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee"}, "already paused")
		env.When(func(p workflows.Progress) bool {
			return p.Counts[workflows.StatusRotating]+p.Counts[workflows.StatusRotated] == 0
		}, func(p workflows.Progress) {
			assert.Equal(t, workflows.PhasePaused, p.Phase)
			assert.Contains(t, p.WaitingFor, "paused by lee (peak hour)")
			assert.Positive(t, p.Counts[workflows.StatusPending])
			env.Command(workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
			env.Refused(workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"}, "not paused")
		})
	})
	input := fixture.Input(cluster.ID)
	input.Concurrency = 2
	result, err := env.Rotate(input)
	require.NoError(t, err)
	requireTrue(t, om, result.Targets)
}

func TestAbortAndCancellationFinishWhatIsInWork(t *testing.T) {
	t.Parallel()
	for name, abort := range map[string]func(fixture.SDK){
		"abort": func(env fixture.SDK) {
			env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"})
		},
		"cancellation": func(env fixture.SDK) { env.CancelWorkflow() },
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{Latency: 50 * time.Millisecond})
			cluster := om.AddShardedCluster(project, "orders", 6)
			env := fixture.NewSDK(t, om)
			env.When(func(p workflows.Progress) bool { return p.Counts[workflows.StatusRotating] == 2 }, func(workflows.Progress) { abort(env) })
			input := fixture.Input(cluster.ID)
			input.Concurrency = 2
			_, err := env.Rotate(input)
			records := requireRecords(t, err, workflows.ErrorAborted)
			for _, record := range records.Targets {
				assert.Contains(t, []workflows.Status{workflows.StatusVerified, workflows.StatusPending}, record.Status, record.Name)
			}
			assert.Equal(t, 3, len(om.Ledger().Rotations))
			requireTrue(t, om, records.Targets)
		})
	}
}

func TestAbortBeforeAnythingWasRotated(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{Latency: 50 * time.Millisecond})
	cluster := om.AddShardedCluster(project, "orders", 2)
	for name, abort := range map[string]func(fixture.SDK){
		"abort": func(env fixture.SDK) {
			env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"})
		},
		"cancellation": func(env fixture.SDK) { env.CancelWorkflow() },
	} {
		for _, phase := range []workflows.Phase{workflows.PhaseListing, workflows.PhaseReading, workflows.PhaseAwaitingApproval} {
			t.Run(name+" while "+string(phase), func(t *testing.T) {
				env := fixture.NewSDK(t, om)
				env.When(fixture.InPhase(phase), func(workflows.Progress) { abort(env) })
				_, err := env.Rotate(approvalInput(cluster.ID))
				requireRecords(t, err, workflows.ErrorAborted)
				assert.NotContains(t, err.Error(), "0 of 0")
				assert.Empty(t, om.Ledger().Rotations)
			})
		}
	}
}

// What is read back only failed: a retry reads again and sends no second PUT.
func TestRetryOfAFailedVerificationSendsNoPut(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.KeyNotFound(set.ID).Skipping(1))
	env := fixture.NewSDK(t, om)
	env.When(fixture.InPhase(workflows.PhaseHeld), func(p workflows.Progress) {
		assert.Equal(t, workflows.ErrorNotFound, p.Targets[0].Error.Type)
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	})
	input := fixture.Input(set.ID)
	input.OnFailure = workflows.OnFailureHold
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, 1, om.Ledger().Count(http.MethodPut, set.ID))
	requireTrue(t, om, result.Targets)
}

func TestRetryOfAnUnchangedKeySendsAnotherPut(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.PutUnchanging(set.ID))
	env := fixture.NewSDK(t, om)
	env.When(fixture.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	})
	input := fixture.Input(set.ID)
	input.OnFailure = workflows.OnFailureHold
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, 2, om.Ledger().Count(http.MethodPut, set.ID))
	requireTrue(t, om, result.Targets)
}

// A retry acts at once where the PUT is known to have been refused; only an
// unknown outcome takes settleTime.
func TestRetryOfARefusedPutDoesNotSettle(t *testing.T) {
	t.Parallel()
	env, cluster, input := held(t)
	input.SettleTime = workflows.Duration(time.Hour)
	env.When(fixture.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	requireTrue(t, env.OM, result.Targets)
	assert.Equal(t, 3, env.OM.Ledger().Count(http.MethodGet, cluster.ShardIDs[1]), "read, read again before the second PUT, verified")
}

// A rotation that waits for approval continues as new with what it has read and
// with the records of an earlier run, and keeps its deadline.
func TestWaitingForApprovalContinuesAsNew(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	first, err := fixture.NewSDK(t, om).Rotate(fixture.Input(cluster.ID))
	require.NoError(t, err)
	om.SetKey(cluster.ShardIDs[1], "someone-elses")
	input := approvalInput(cluster.ID)
	input.Completed = first.Targets[:2]
	env := fixture.NewSDK(t, om)
	env.SetContinueAsNewSuggested(true)
	_, err = env.Rotate(input)
	var continued *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &continued)

	_, err = continueFrom(t, om, continued, input)
	records := requireRecords(t, err, workflows.ErrorApprovalTimedOut)
	assert.Less(t, records.FinishedAt.Sub(records.StartedAt), 73*time.Hour)

	om.SetKey(cluster.ShardIDs[1], first.Targets[1].NewKeyUUID)
	result, err := continueFrom(t, om, continued, input, func(next fixture.SDK) {
		next.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(p workflows.Progress) {
			assert.Equal(t, map[workflows.Status]int{"verified": 1, "pending": 2}, p.Counts)
			next.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
			next.When(func(p workflows.Progress) bool { return strings.Contains(p.WaitingFor, "changed after the approval") }, func(p workflows.Progress) {
				assert.True(t, p.Targets[1].CarriedOver, "it has the key of the earlier run again")
				next.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
			})
		})
	})
	require.NoError(t, err)
	assert.True(t, result.Targets[1].CarriedOver)
	assert.False(t, result.Targets[2].CarriedOver)
	assert.Len(t, om.Ledger().Applied(cluster.ShardIDs[0]), 1)
	assert.Len(t, om.Ledger().Applied(cluster.ShardIDs[1]), 1)
	assert.Len(t, om.Ledger().Applied(cluster.ConfigID), 2)
}
