package workflows_test

import (
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

// refusal is an operator's command that makes no sense, and why.
type refusal struct {
	update  string
	request any
	reason  string
}

func refuse(env environment.Environment, refusals ...[]refusal) {
	for _, group := range refusals {
		for _, r := range group {
			env.Refused(r.update, r.request, r.reason)
		}
	}
}

func reasonOf(update, reason string) refusal {
	return refusal{update, workflows.ReasonRequest{By: "lee"}, reason}
}

// notAwaiting is refused wherever nobody is asked for approval.
func notAwaiting(phase string) []refusal {
	why := "the rotation does not wait for approval: it is " + phase
	return []refusal{{workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"}, why}, reasonOf(workflows.RejectUpdate, why)}
}

var notPaused = []refusal{reasonOf(workflows.ResumeUpdate, "the rotation is not paused")}

var nothingFailed = []refusal{{workflows.RetryUpdate, workflows.RetryRequest{By: "lee"}, "no target has failed"}}

func skipOf(target, reason string) []refusal {
	return []refusal{{workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{target}}, reason}}
}

func TestUpdatesAreRefusedBeforeAnythingIsRotated(t *testing.T) {
	om := simulator.Start(t, simulator.Options{Latency: 50 * time.Millisecond})
	cluster := om.AddShardedCluster(project, "orders", 2)
	for phase, refusals := range map[string][][]refusal{
		workflows.PhaseListing:          {notAwaiting(workflows.PhaseListing), skipOf("orders-0", `there is no "orders-0"`)},
		workflows.PhaseReading:          {notAwaiting(workflows.PhaseReading), skipOf("orders-9", `there is no "orders-9"`)},
		workflows.PhaseAwaitingApproval: {skipOf("orders-9", `there is no "orders-9"`)},
	} {
		t.Run(phase, func(t *testing.T) {
			env := environment.New(t, om)
			env.When(environment.InPhase(phase), func(workflows.Progress) {
				refuse(env, refusals...)
				refuse(env, notPaused, nothingFailed)
				env.Command(workflows.AbortUpdate, workflows.ReasonRequest{By: "lee"})
			})
			_, err := env.Rotate(approvalInput(cluster.ID))
			requireRecords(t, err, activities.ErrorAborted)
			assert.Empty(t, om.Ledger().Rotations)
		})
	}
}

func TestUpdatesAreRefusedWhileTargetsAreInWork(t *testing.T) {
	om := simulator.Start(t, simulator.Options{Latency: 50 * time.Millisecond})
	cluster := om.AddShardedCluster(project, "orders", 3)
	env := environment.New(t, om)
	inWork := func(p workflows.Progress) bool {
		return p.Counts[workflows.StatusVerified] == 1 && p.Counts[workflows.StatusRotating] == 1
	}
	env.When(inWork, func(workflows.Progress) {
		refuse(env, notAwaiting(workflows.PhaseRotating), notPaused, nothingFailed,
			skipOf("orders-0", "orders-0 is verified, not failed or pending"),
			skipOf("orders-1", "orders-1 is rotating, not failed or pending"))
		env.Command(workflows.PauseUpdate, workflows.ReasonRequest{By: "lee"})
		refuse(env, notAwaiting(workflows.PhasePaused), nothingFailed, []refusal{reasonOf(workflows.PauseUpdate, "paused already")})
		env.Command(workflows.AbortUpdate, workflows.ReasonRequest{By: "lee"})
		const aborting = "the rotation is being aborted"
		refuse(env, notAwaiting(workflows.PhasePaused), []refusal{
			reasonOf(workflows.PauseUpdate, "paused already"),
			reasonOf(workflows.ResumeUpdate, aborting), reasonOf(workflows.AbortUpdate, aborting),
			{workflows.RetryUpdate, workflows.RetryRequest{By: "lee"}, aborting},
		}, skipOf("orders-2", aborting))
	})
	input := environment.Input(cluster.ID)
	input.Concurrency = 1
	_, err := env.Rotate(input)
	records := requireRecords(t, err, activities.ErrorAborted)
	requireTrue(t, om, records.Targets)
}

func TestUpdatesAreRefusedWhileARotationIsHeld(t *testing.T) {
	env, _, input := held(t)
	env.When(environment.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		refuse(env, notAwaiting(workflows.PhaseHeld), notPaused,
			skipOf("orders-0", "orders-0 is verified, not failed or pending"),
			[]refusal{{workflows.RetryUpdate, workflows.RetryRequest{By: "lee", Targets: []string{"orders-2"}}, "orders-2 is pending, not failed"}})
		env.Command(workflows.AbortUpdate, workflows.ReasonRequest{By: "lee"})
	})
	_, err := env.Rotate(input)
	requireRecords(t, err, activities.ErrorAborted)
}

// A target that an earlier run has verified, and whose key is another one by
// the time of the approval, is told of once and then rotated like any other.
func TestACarriedOverKeyThatChangesDuringApprovalIsRotated(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	first, err := environment.New(t, om).Rotate(environment.Input(cluster.ID))
	require.NoError(t, err)

	env := environment.New(t, om)
	input := approvalInput(cluster.ID)
	input.Completed = first.Targets
	env.When(environment.InPhase(workflows.PhaseAwaitingApproval), func(p workflows.Progress) {
		assert.True(t, p.Targets[1].CarriedOver)
		om.SetKey(cluster.ShardIDs[1], "somebody-elses")
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
		env.When(func(p workflows.Progress) bool { return strings.Contains(p.WaitingFor, "changed since") }, func(p workflows.Progress) {
			assert.Contains(t, p.WaitingFor, "[orders-1]")
			assert.Equal(t, workflows.TargetRecord{Target: p.Targets[1].Target, Status: workflows.StatusPending, PreviousKeyUUID: "somebody-elses"}, p.Targets[1])
			env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "kim"})
		})
	})
	result, err := env.Rotate(input)
	require.NoError(t, err)
	assert.Equal(t, "kim", result.Approval.By)
	assert.False(t, result.Targets[1].CarriedOver)
	assert.Equal(t, "somebody-elses", result.Targets[1].PreviousKeyUUID)
	assert.Len(t, om.Ledger().Applied(cluster.ShardIDs[0]), 1, "carried over, and not rotated again")
	assert.Len(t, om.Ledger().Applied(cluster.ShardIDs[1]), 2)
}

// Someone who opens a rotation that waits for several things is told of all.
func TestAPauseDoesNotHideWhatElseIsWaitedFor(t *testing.T) {
	env, _, input := held(t)
	env.When(environment.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.Command(workflows.PauseUpdate, workflows.ReasonRequest{By: "lee", Reason: "peak hour"})
		env.When(environment.InPhase(workflows.PhasePaused), func(p workflows.Progress) {
			assert.Contains(t, p.WaitingFor, "somebody to resume it: paused by lee (peak hour)")
			assert.Contains(t, p.WaitingFor, "an operator to retry, skip or abort, until ")
			assert.Contains(t, p.WaitingFor, "orders-1 failed (Forbidden)")
			env.Command(workflows.AbortUpdate, workflows.ReasonRequest{By: "lee"})
		})
	})
	_, err := env.Rotate(input)
	requireRecords(t, err, activities.ErrorAborted)

	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	env = environment.New(t, om)
	env.When(environment.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		env.Command(workflows.PauseUpdate, workflows.ReasonRequest{By: "lee", Reason: "peak hour"})
		env.When(func(p workflows.Progress) bool { return strings.Contains(p.WaitingFor, "paused by lee (peak hour)") }, func(p workflows.Progress) {
			assert.Contains(t, p.WaitingFor, "somebody other than dana to approve or reject the plan")
			env.Command(workflows.RejectUpdate, workflows.ReasonRequest{By: "lee"})
		})
	})
	_, err = env.Rotate(approvalInput(cluster.ID))
	requireFailure(t, err, activities.ErrorRejected)
}
