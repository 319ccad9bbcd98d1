package workflows_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/activities"
	"keyturn/testsuite/environment"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

func approvalInput(clusterID string) workflows.RotateClusterInput {
	input := environment.Input(clusterID)
	input.RequireApproval = true
	return input
}

func TestApprovalBySomebodyElse(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	env := environment.New(t, om)
	env.When(environment.InPhase(workflows.PhaseAwaitingApproval), func(p workflows.Progress) {
		assert.Contains(t, p.WaitingFor, "other than dana")
		assert.Len(t, p.Targets, 3)
		assert.Equal(t, om.Key(cluster.ShardIDs[0]), p.Targets[0].PreviousKeyUUID)
		env.Refused(workflows.ApproveUpdate, workflows.ApproveRequest{By: " Dana "}, "somebody else")
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
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 1)
	env := environment.New(t, om)
	long, hostile := strings.Repeat("x", 2001), "a\x1b[31m"
	env.When(environment.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		env.Refused(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee", Comment: long}, "comment: must have 2000 characters at the most")
		env.Refused(workflows.PauseUpdate, workflows.ReasonRequest{By: "lee", Reason: hostile}, "reason: must not hold control characters")
		env.Refused(workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"orders-0"}, Reason: long}, "reason: must have 2000 characters at the most")
		env.Refused(workflows.RetryUpdate, workflows.RetryRequest{By: hostile}, "by: must not hold control characters")
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee", Comment: long[1:]})
	})
	result, err := env.Rotate(approvalInput(cluster.ID))
	require.NoError(t, err)
	assert.Equal(t, long[1:], result.Approval.Comment)
}

func TestRejectionRotatesNothing(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	env := environment.New(t, om)
	env.When(environment.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		env.Command(workflows.RejectUpdate, workflows.ReasonRequest{By: "lee", Reason: "not tonight"})
	})
	_, err := env.Rotate(approvalInput(cluster.ID))
	appErr := requireFailure(t, err, activities.ErrorRejected)
	assert.Contains(t, appErr.Message(), "lee: not tonight")
	assert.Empty(t, om.Ledger().Rotations)
}

func TestApprovalTimesOut(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	_, err := environment.New(t, om).Rotate(approvalInput(cluster.ID))
	requireFailure(t, err, activities.ErrorApprovalTimedOut)
	assert.Empty(t, om.Ledger().Rotations)
}

func TestKeyChangedSinceThePlanIsApprovedAnew(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	env := environment.New(t, om)
	env.When(environment.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		om.SetKey(cluster.ShardIDs[1], "somebody-elses")
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
		env.When(func(p workflows.Progress) bool { return strings.Contains(p.WaitingFor, "changed since") }, func(p workflows.Progress) {
			assert.Contains(t, p.WaitingFor, "orders-1")
			assert.Nil(t, p.Approval)
			assert.Equal(t, "somebody-elses", p.Targets[1].PreviousKeyUUID)
			env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "kim"})
		})
	})
	result, err := env.Rotate(approvalInput(cluster.ID))
	require.NoError(t, err)
	assert.Equal(t, "kim", result.Approval.By)
	assert.Equal(t, "somebody-elses", result.Targets[1].PreviousKeyUUID)
	requireTrue(t, om, result.Targets)
}

// held is a rotation of four targets whose second one is refused.
func held(t *testing.T) (environment.Environment, simulator.ShardedCluster, workflows.RotateClusterInput) {
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 3)
	om.Inject(simulator.AccessListRefusal(http.MethodPut, cluster.ShardIDs[1]))
	input := environment.Input(cluster.ID)
	input.OnFailure, input.Concurrency = workflows.OnFailureHold, 1
	return environment.New(t, om), cluster, input
}

func TestHeldRotationGoesOnAfterRetry(t *testing.T) {
	env, _, input := held(t)
	env.When(environment.InPhase(workflows.PhaseHeld), func(p workflows.Progress) {
		assert.Equal(t, map[string]int{"verified": 1, "failed": 1, "pending": 2}, p.Counts)
		assert.Contains(t, p.WaitingFor, "an operator to retry, skip or abort")
		assert.Contains(t, p.WaitingFor, "orders-1 failed (Forbidden)")
		env.Refused(workflows.RetryUpdate, workflows.RetryRequest{By: "lee", Targets: []string{"orders-0"}}, "orders-0 is verified, not failed")
		env.Refused(workflows.RetryUpdate, workflows.RetryRequest{By: "lee", Targets: []string{"orders-9"}}, `there is no "orders-9"`)
		env.Refused(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"}, "does not wait for approval")
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Equal(t, 2, result.Targets[1].Attempts)
	requireTrue(t, env.OM, result.Targets)
}

func TestHeldRotationGoesOnAfterSkip(t *testing.T) {
	env, _, input := held(t)
	env.When(environment.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.Refused(workflows.SkipUpdate, workflows.SkipRequest{By: "lee"}, "name the targets")
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
	env, _, input := held(t)
	env.When(environment.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.Command(workflows.AbortUpdate, workflows.ReasonRequest{By: "lee", Reason: "enough"})
	})
	_, err := env.Rotate(input)
	records := requireRecords(t, err, activities.ErrorAborted)
	assert.Equal(t, map[string]string{"orders-0": "verified", "orders-1": "failed", "orders-2": "pending", "orders-config": "pending"}, statusesOf(records.Targets))
	requireTrue(t, env.OM, records.Targets)
}

func TestHoldTimesOut(t *testing.T) {
	env, _, input := held(t)
	_, err := env.Rotate(input)
	records := requireRecords(t, err, activities.ErrorPartialFailure)
	assert.Equal(t, 1, len(env.OM.Ledger().Rotations))
	assert.Equal(t, "failed", records.Targets[1].Status)
	assert.GreaterOrEqual(t, records.FinishedAt.Sub(records.StartedAt), 168*time.Hour)
}

func TestPauseAndResume(t *testing.T) {
	om := simulator.Start(t, simulator.Options{Latency: 20 * time.Millisecond})
	cluster := om.AddShardedCluster(project, "orders", 5)
	env := environment.New(t, om)
	env.When(func(p workflows.Progress) bool { return p.Counts[workflows.StatusVerified] >= 1 }, func(workflows.Progress) {
		env.Command(workflows.PauseUpdate, workflows.ReasonRequest{By: "lee", Reason: "peak hour"})
		env.Refused(workflows.PauseUpdate, workflows.ReasonRequest{By: "lee"}, "paused already")
		env.When(func(p workflows.Progress) bool {
			return p.Counts[workflows.StatusRotating]+p.Counts[workflows.StatusRotated] == 0
		}, func(p workflows.Progress) {
			assert.Equal(t, workflows.PhasePaused, p.Phase)
			assert.Contains(t, p.WaitingFor, "paused by lee (peak hour)")
			assert.Positive(t, p.Counts[workflows.StatusPending])
			env.Command(workflows.ResumeUpdate, workflows.ReasonRequest{By: "lee"})
			env.Refused(workflows.ResumeUpdate, workflows.ReasonRequest{By: "lee"}, "not paused")
		})
	})
	input := environment.Input(cluster.ID)
	input.Concurrency = 2
	result, err := env.Rotate(input)
	require.NoError(t, err)
	requireTrue(t, om, result.Targets)
}

func TestAbortAndCancellationFinishWhatIsInWork(t *testing.T) {
	for name, abort := range map[string]func(environment.Environment){
		"abort": func(env environment.Environment) {
			env.Command(workflows.AbortUpdate, workflows.ReasonRequest{By: "lee"})
		},
		"cancellation": func(env environment.Environment) { env.CancelWorkflow() },
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{Latency: 50 * time.Millisecond})
			cluster := om.AddShardedCluster(project, "orders", 6)
			env := environment.New(t, om)
			env.When(func(p workflows.Progress) bool { return p.Counts[workflows.StatusRotating] == 2 }, func(workflows.Progress) { abort(env) })
			input := environment.Input(cluster.ID)
			input.Concurrency = 2
			_, err := env.Rotate(input)
			records := requireRecords(t, err, activities.ErrorAborted)
			for _, record := range records.Targets {
				assert.Contains(t, []string{workflows.StatusVerified, workflows.StatusPending}, record.Status, record.Name)
			}
			assert.Equal(t, 3, len(om.Ledger().Rotations))
			requireTrue(t, om, records.Targets)
		})
	}
}

func TestAbortBeforeAnythingWasRotated(t *testing.T) {
	om := simulator.Start(t, simulator.Options{Latency: 50 * time.Millisecond})
	cluster := om.AddShardedCluster(project, "orders", 2)
	for name, abort := range map[string]func(environment.Environment){
		"abort": func(env environment.Environment) {
			env.Command(workflows.AbortUpdate, workflows.ReasonRequest{By: "lee"})
		},
		"cancellation": func(env environment.Environment) { env.CancelWorkflow() },
	} {
		for _, phase := range []string{workflows.PhaseListing, workflows.PhaseReading, workflows.PhaseAwaitingApproval} {
			t.Run(name+" while "+phase, func(t *testing.T) {
				env := environment.New(t, om)
				env.When(environment.InPhase(phase), func(workflows.Progress) { abort(env) })
				_, err := env.Rotate(approvalInput(cluster.ID))
				requireRecords(t, err, activities.ErrorAborted)
				assert.Empty(t, om.Ledger().Rotations)
			})
		}
	}
}

// What is read back only failed: a retry reads again and sends no second PUT.
func TestRetryOfAFailedVerificationSendsNoPut(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.KeyNotFound(set.ID).Skipping(1))
	env := environment.New(t, om)
	env.When(environment.InPhase(workflows.PhaseHeld), func(p workflows.Progress) {
		assert.Equal(t, activities.ErrorNotFound, p.Targets[0].Error.Type)
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	})
	input := environment.Input(set.ID)
	input.OnFailure = workflows.OnFailureHold
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, 1, om.Ledger().Count(http.MethodPut, set.ID))
	requireTrue(t, om, result.Targets)
}

func TestRetryOfAnUnchangedKeySendsAnotherPut(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.PutUnchanging(set.ID))
	env := environment.New(t, om)
	env.When(environment.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	})
	input := environment.Input(set.ID)
	input.OnFailure = workflows.OnFailureHold
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, 2, om.Ledger().Count(http.MethodPut, set.ID))
	requireTrue(t, om, result.Targets)
}

// A retry acts at once where the PUT is known to have been refused; only an
// unknown outcome takes settleTime.
func TestRetryOfARefusedPutDoesNotSettle(t *testing.T) {
	env, cluster, input := held(t)
	input.SettleTime = workflows.Duration(time.Hour)
	env.When(environment.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	requireTrue(t, env.OM, result.Targets)
	assert.Equal(t, 3, env.OM.Ledger().Count(http.MethodGet, cluster.ShardIDs[1]), "read, read again before the second PUT, verified")
}
