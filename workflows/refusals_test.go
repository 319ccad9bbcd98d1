package workflows_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// refusal is an operator's command that makes no sense, and why.
type refusal struct {
	update  string
	request any
	reason  string
}

func refuse(env fixture.SDK, refusals ...[]refusal) {
	for _, group := range refusals {
		for _, r := range group {
			env.Refused(r.update, r.request, r.reason)
		}
	}
}

func reasonOf(update, reason string) refusal {
	return refusal{update, workflows.OperatorRequest{By: "lee"}, reason}
}

// notAwaiting is refused wherever nobody is asked for approval.
func notAwaiting(phase workflows.Phase) []refusal {
	why := "the rotation is not waiting for approval: it is " + string(phase)
	return []refusal{{workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"}, why}, reasonOf(workflows.RejectUpdate, why)}
}

var notPaused = []refusal{reasonOf(workflows.ResumeUpdate, "the rotation is not paused")}

var nothingFailed = []refusal{{workflows.RetryUpdate, workflows.RetryRequest{By: "lee"}, "no target has failed"}}

func skipOf(target, reason string) []refusal {
	return []refusal{{workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{target}}, reason}}
}

func TestUpdatesAreRefusedBeforeAnythingIsRotated(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{Latency: 50 * time.Millisecond})
	cluster := om.AddShardedCluster(project, "orders", 2)
	for phase, refusals := range map[workflows.Phase][][]refusal{
		workflows.PhaseListing:          {notAwaiting(workflows.PhaseListing), skipOf("orders-0", `no target is named "orders-0"`)},
		workflows.PhaseReading:          {notAwaiting(workflows.PhaseReading), skipOf("orders-9", `no target is named "orders-9"`)},
		workflows.PhaseAwaitingApproval: {skipOf("orders-9", `no target is named "orders-9"`)},
	} {
		t.Run(string(phase), func(t *testing.T) {
			env := fixture.NewSDK(t, om)
			env.When(fixture.InPhase(phase), func(workflows.Progress) {
				refuse(env, refusals...)
				refuse(env, notPaused, nothingFailed)
				env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"})
			})
			_, err := env.Rotate(approvalInput(cluster.ID))
			requireRecords(t, err, workflows.ErrorAborted)
			assert.Empty(t, om.Ledger().Rotations)
		})
	}
}

func TestUpdatesAreRefusedWhileTargetsAreInWork(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{Latency: 50 * time.Millisecond})
	cluster := om.AddShardedCluster(project, "orders", 3)
	env := fixture.NewSDK(t, om)
	inWork := func(p workflows.Progress) bool {
		return p.Counts[workflows.StatusVerified] == 1 && p.Counts[workflows.StatusRotating] == 1
	}
	env.When(inWork, func(workflows.Progress) {
		refuse(env, notAwaiting(workflows.PhaseRotating), notPaused, nothingFailed,
			skipOf("orders-0", "orders-0 is verified, not failed or pending"),
			skipOf("orders-1", "orders-1 is rotating, not failed or pending"))
		env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee"})
		refuse(env, notAwaiting(workflows.PhasePaused), nothingFailed, []refusal{reasonOf(workflows.PauseUpdate, "already paused")})
		env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"})
		const aborting = "the rotation is being aborted"
		refuse(env, notAwaiting(workflows.PhasePaused), []refusal{
			reasonOf(workflows.PauseUpdate, "already paused"),
			reasonOf(workflows.ResumeUpdate, aborting), reasonOf(workflows.AbortUpdate, aborting),
			{workflows.RetryUpdate, workflows.RetryRequest{By: "lee"}, aborting},
		}, skipOf("orders-2", aborting))
	})
	input := fixture.Input(cluster.ID)
	input.Concurrency = 1
	_, err := env.Rotate(input)
	records := requireRecords(t, err, workflows.ErrorAborted)
	requireTrue(t, om, records.Targets)
}

func TestUpdatesAreRefusedWhileARotationIsHeld(t *testing.T) {
	t.Parallel()
	env, _, input := held(t)
	env.When(fixture.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		refuse(env, notAwaiting(workflows.PhaseHeld), notPaused,
			skipOf("orders-0", "orders-0 is verified, not failed or pending"),
			[]refusal{{workflows.RetryUpdate, workflows.RetryRequest{By: "lee", Targets: []string{"orders-2"}}, "orders-2 is pending, not failed"}})
		env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"})
	})
	_, err := env.Rotate(input)
	requireRecords(t, err, workflows.ErrorAborted)
}

// A target that an earlier run has verified, and whose key is another one by
// the time of the approval, is reported once and then rotated like any other.
func TestACarriedOverKeyThatChangesDuringApprovalIsRotated(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	first, err := fixture.NewSDK(t, om).Rotate(fixture.Input(cluster.ID))
	require.NoError(t, err)

	env := fixture.NewSDK(t, om)
	input := approvalInput(cluster.ID)
	input.Completed = first.Targets
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(p workflows.Progress) {
		assert.True(t, p.Targets[1].CarriedOver)
		om.SetKey(cluster.ShardIDs[1], "someone-elses")
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
		env.When(func(p workflows.Progress) bool { return strings.Contains(p.WaitingFor, "changed after the approval") }, func(p workflows.Progress) {
			assert.Contains(t, p.WaitingFor, "keys of orders-1 changed")
			assert.Equal(t, workflows.TargetRecord{Target: p.Targets[1].Target, Status: workflows.StatusPending, PreviousKeyUUID: "someone-elses"}, p.Targets[1])
			env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "kim"})
		})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, "kim", result.Approval.By)
	assert.False(t, result.Targets[1].CarriedOver)
	assert.Equal(t, "someone-elses", result.Targets[1].PreviousKeyUUID)
	assert.Len(t, om.Ledger().Applied(cluster.ShardIDs[0]), 1, "carried over, and not rotated again")
	assert.Len(t, om.Ledger().Applied(cluster.ShardIDs[1]), 2)
}

// Someone who opens a rotation that waits for several things gets all of them.
func TestAPauseDoesNotHideWhatElseIsWaitedFor(t *testing.T) {
	t.Parallel()
	env, _, input := held(t)
	env.When(fixture.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee", Reason: "peak hour"})
		env.When(fixture.InPhase(workflows.PhasePaused), func(p workflows.Progress) {
			assert.Contains(t, p.WaitingFor, "an operator to resume: paused by lee (peak hour)")
			assert.Contains(t, p.WaitingFor, "an operator to retry, skip or abort, until ")
			assert.Contains(t, p.WaitingFor, "orders-1 failed (Forbidden)")
			env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"})
		})
	})
	_, err := env.Rotate(input)
	requireRecords(t, err, workflows.ErrorAborted)

	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	env = fixture.NewSDK(t, om)
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "lee", Reason: "peak hour"})
		env.When(func(p workflows.Progress) bool { return strings.Contains(p.WaitingFor, "paused by lee (peak hour)") }, func(p workflows.Progress) {
			assert.Contains(t, p.WaitingFor, "an operator other than dana to approve or reject the plan")
			env.Command(workflows.RejectUpdate, workflows.OperatorRequest{By: "lee"})
		})
	})
	_, err = env.Rotate(approvalInput(cluster.ID))
	requireFailure(t, err, workflows.ErrorRejected)
}
