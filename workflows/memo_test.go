package workflows_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"keyturn/internal/ledger"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// memosOf collects what a workflow writes into its memo.
func memosOf(env fixture.SDK) *[]workflows.Memo {
	memos := &[]workflows.Memo{}
	env.OnUpsertMemo(mock.Anything).Run(func(args mock.Arguments) {
		*memos = append(*memos, args.Get(0).(map[string]any)[workflows.MemoKey].(workflows.Memo))
	}).Return(nil)
	return memos
}

func phasesOf(memos []workflows.Memo) (phases []workflows.Phase) {
	for _, memo := range memos {
		phases = append(phases, memo.Phase)
	}
	return phases
}

// Each change is an event of the history, so there are no more of them than a list of
// rotations needs.
func TestMemoDescribesARotationWithoutMoreEventsThanPhases(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 20)
	env := fixture.NewSDK(t, om)
	memos := memosOf(env)
	_, err := env.Rotate(fixture.Input(cluster.ID))
	require.NoError(t, err)
	assert.Equal(t, []workflows.Phase{workflows.PhaseListing, workflows.PhaseReading, workflows.PhaseRotating, workflows.PhaseDone}, phasesOf(*memos))

	first, last := (*memos)[0], (*memos)[3]
	assert.False(t, first.Since.IsZero())
	first.Since = last.Since
	known := workflows.Memo{
		Connection: workflows.DefaultConnection, ProjectID: project, ClusterID: cluster.ID, Ticket: "CHG0031337", RequestedBy: "dana",
		Phase: workflows.PhaseListing, Since: last.Since,
	}
	assert.Equal(t, known, first)
	known.Phase, known.Clusters, known.Targets, known.Outcome = workflows.PhaseDone, []string{"orders"}, 21, workflows.OutcomeRotated
	assert.Equal(t, known, last)
}

// What a rotation waits for is in the memo, so that a list needs no worker.
func TestMemoSaysWhatARotationWaitsFor(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	om.Inject(simulator.AccessListRefusal(http.MethodPut, cluster.ShardIDs[1]))
	env := fixture.NewSDK(t, om)
	memos := memosOf(env)
	input := approvalInput(cluster.ID)
	input.OnFailure = workflows.OnFailureHold
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
	})
	env.When(fixture.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "kim", Reason: "lunch"})
	})
	env.When(fixture.InPhase(workflows.PhasePaused), func(workflows.Progress) {
		env.Command(workflows.ResumeUpdate, workflows.OperatorRequest{By: "kim"})
		env.Command(workflows.RetryUpdate, workflows.RetryRequest{By: "kim"})
	})
	_, err := env.Rotate(input)
	require.NoError(t, err)

	waits := map[workflows.Phase]string{}
	for _, memo := range *memos {
		if memo.WaitingFor != "" {
			waits[memo.Phase] = memo.WaitingFor
		}
	}
	require.Len(t, waits, 3, "%v", waits)
	assert.Regexp(t, `^an operator other than dana to approve or reject the plan, until 20\d\d-\S+Z$`, waits[workflows.PhaseAwaitingApproval])
	assert.Contains(t, waits[workflows.PhaseHeld], "an operator to retry, skip or abort, until ")
	assert.Contains(t, waits[workflows.PhaseHeld], "orders-1 failed (Forbidden)")
	assert.Contains(t, waits[workflows.PhasePaused], "an operator to resume: paused by kim (lunch); and for an operator to retry")
	last := (*memos)[len(*memos)-1]
	assert.Equal(t, workflows.OutcomeRotated, last.Outcome)
	assert.Empty(t, last.WaitingFor)

	// The worker adds connection, project and cluster ID; see rotationAttrs.
	assert.Regexp(t, `level=WARN msg="the rotation waits for a person".* phase=held clusterName=orders ticket=CHG0031337 requestedBy=dana waitingFor="an operator to retry`, env.Log)
	assert.Equal(t, 1, strings.Count(env.Log.String(), "phase=awaitingApproval"))
}

func TestMemoHasTheOutcomeOfEveryEnd(t *testing.T) {
	t.Parallel()
	by := workflows.OperatorRequest{By: "kim", Reason: "not today"}
	awaiting := fixture.InPhase(workflows.PhaseAwaitingApproval)
	for name, c := range map[string]struct {
		prepare func(env fixture.SDK, input *workflows.RotateClusterInput)
		outcome workflows.Outcome
		err     workflows.ErrorType
	}{
		"planned": {func(_ fixture.SDK, input *workflows.RotateClusterInput) { input.DryRun = true }, workflows.OutcomePlanned, ""},
		"a failed target": {func(env fixture.SDK, _ *workflows.RotateClusterInput) {
			env.OM.Inject(simulator.AccessListRefusal(http.MethodPut, "").Always())
		}, workflows.OutcomePartial, workflows.ErrorPartialFailure},
		"rejected": {func(env fixture.SDK, input *workflows.RotateClusterInput) {
			input.RequireApproval = true
			env.When(awaiting, func(workflows.Progress) { env.Command(workflows.RejectUpdate, by) })
		}, workflows.OutcomeNothingRotated, workflows.ErrorRejected},
		"canceled": {func(env fixture.SDK, input *workflows.RotateClusterInput) {
			input.RequireApproval = true
			env.When(awaiting, func(workflows.Progress) { env.CancelWorkflow() })
		}, workflows.OutcomeNothingRotated, workflows.ErrorAborted},
		"a plan that cannot be made": {func(_ fixture.SDK, input *workflows.RotateClusterInput) {
			input.DryRun, input.Connection = true, "emea"
		}, workflows.OutcomeNothingRotated, workflows.ErrorUnknownConnection},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			env := fixture.NewSDK(t, om)
			input := fixture.Input(om.AddShardedCluster(project, "orders", 2).ID)
			memos := memosOf(env)
			c.prepare(env, &input)
			_, _ = env.Rotate(input)
			last := (*memos)[len(*memos)-1]
			assert.Equal(t, c.outcome, last.Outcome)
			assert.Equal(t, c.err, last.Error)
			for _, memo := range (*memos)[:len(*memos)-1] {
				assert.NotEqual(t, workflows.PhaseDone, memo.Phase, "the end is one event")
			}
		})
	}
}

// A rotation that the ledger does not take waits for a person, too. The outcome is in
// the memo before that: Temporal may close the workflow meanwhile.
func TestMemoHasTheOutcomeBeforeTheLedgerHasIt(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 1)
	env := fixture.NewSDK(t, om)
	memos := memosOf(env)
	open := fixture.OpenLedger(fixture.NewLedger(t).Open)
	var isBack atomic.Bool
	env.Activities.Ledger = fixture.OpenLedger(func(ctx context.Context) (*ledger.Ledger, error) {
		if !isBack.Load() {
			return nil, errors.New("connection refused")
		}
		return open(ctx)
	})
	env.When(func(p workflows.Progress) bool {
		return p.Phase == workflows.PhaseRecording && strings.Contains(p.WaitingFor, "connection refused")
	}, func(workflows.Progress) {
		env.RegisterDelayedCallback(func() { isBack.Store(true) }, time.Hour)
	})
	_, err := env.Rotate(fixture.Input(cluster.ID))
	require.NoError(t, err)
	phases := phasesOf(*memos)
	assert.Equal(t, []workflows.Phase{workflows.PhaseDone, workflows.PhaseRecording, workflows.PhaseDone}, phases[len(phases)-3:])
	for _, memo := range (*memos)[len(*memos)-3:] {
		assert.Equal(t, workflows.OutcomeRotated, memo.Outcome)
	}
	recording := (*memos)[len(*memos)-2]
	assert.Contains(t, recording.WaitingFor, "connection refused")
}

func TestMemoOfAWorkflowThatHandsOver(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 1)
	id := workflows.RotateClusterID(workflows.DefaultConnection, project, cluster.ID)
	env := fixture.NewSDK(t, om)
	memos := memosOf(env)
	_, err := env.Start("nightly", fixture.Input(cluster.ID))
	require.NoError(t, err)
	var parent []workflows.Memo
	for _, memo := range *memos { // the child's are among them
		if memo.HandedOverTo != "" {
			parent = append(parent, memo)
		}
	}
	require.Len(t, parent, 2)
	assert.Equal(t, id, parent[0].HandedOverTo)
	assert.Equal(t, "CHG0031337", parent[0].Ticket)
	assert.Equal(t, workflows.OutcomeRotated, parent[1].Outcome)
	assert.Equal(t, []string{"orders"}, parent[1].Clusters)
}

func TestMemoOfAFleet(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	om.AddReplicaSet(project, "audit")
	om.AddReplicaSet(project, "orders")
	env := fixture.NewSDK(t, om)
	memos := memosOf(env)
	_, err := rotateFleet(env, map[string]any{"change": map[string]any{"ticket": "CHG0031337"}, "rotation": map[string]any{"settleTime": "0s"}})
	require.NoError(t, err)
	var own []workflows.Memo
	for _, memo := range *memos {
		if memo.FleetOf != "" {
			own = append(own, memo)
		}
	}
	assert.Equal(t, []workflows.Phase{workflows.PhaseListing, workflows.PhaseRotating, workflows.PhaseDone}, phasesOf(own))
	last := own[len(own)-1]
	assert.Equal(t, workflows.FleetOfClusters, last.FleetOf)
	assert.Equal(t, 2, last.Targets)
	assert.Equal(t, "CHG0031337", last.Ticket)
	assert.Equal(t, workflows.OutcomeRotated, last.Outcome)
}

// Temporal carries a memo over to the next run.
func TestMemoIsNotWrittenAgainByTheNextRun(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 1)
	env := fixture.NewSDK(t, om)
	memos := memosOf(env)
	input := approvalInput(cluster.ID)
	env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
		env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: "kim"})
		env.RegisterDelayedCallback(func() { env.SetContinueAsNewSuggested(true) }, time.Millisecond)
	})
	_, err := env.Rotate(input)
	var continued *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &continued)
	carried := (*memos)[len(*memos)-1]
	assert.Empty(t, carried.Outcome, "the rotation goes on")

	var next *[]workflows.Memo
	_, err = continueFrom(t, om, continued, input, func(env fixture.SDK) {
		require.NoError(t, env.SetMemoOnStart(map[string]any{workflows.MemoKey: carried}))
		next = memosOf(env)
		env.When(fixture.InPhase(workflows.PhaseAwaitingApproval), func(workflows.Progress) {
			assert.Empty(t, *next)
			env.Command(workflows.RejectUpdate, workflows.OperatorRequest{By: "kim"})
		})
	})
	requireFailure(t, err, workflows.ErrorRejected)
	assert.Equal(t, []workflows.Phase{workflows.PhaseDone}, phasesOf(*next))
}

// Temporal warns of memos of more than 2 KiB.
func TestMemoIsBounded(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	name := strings.Repeat("o", 300)
	cluster := om.AddShardedCluster(project, name, 1)
	env := fixture.NewSDK(t, om)
	memos := memosOf(env)
	input := fixture.Input(cluster.ID)
	input.Change = workflows.Change{Ticket: strings.Repeat("T", 256), RequestedBy: strings.Repeat("r", 256)}
	input.OnFailure = workflows.OnFailureHold
	om.Inject(simulator.AccessListRefusal(http.MethodPut, "").Always())
	env.When(fixture.InPhase(workflows.PhaseHeld), func(workflows.Progress) {
		env.Command(workflows.PauseUpdate, workflows.OperatorRequest{By: strings.Repeat("k", 256), Reason: strings.Repeat("x", 2000)})
		env.Command(workflows.AbortUpdate, workflows.OperatorRequest{By: "kim"})
	})
	_, err := env.Rotate(input)
	requireFailure(t, err, workflows.ErrorAborted)
	for _, memo := range *memos {
		text, err := json.Marshal(memo)
		require.NoError(t, err)
		assert.Less(t, len(text), 2048)
		assert.Len(t, memo.Ticket, 256, "the ticket is whole: it is what a rotation is found by")
	}
}

func TestMemoOfADeploymentNamesItsClusters(t *testing.T) {
	t.Parallel()
	env := fixture.NewDeployment(t, fixture.Deploy(t, twoSets))
	memos := memosOf(env.SDK)
	_, err := env.Rotate(fixture.DeploymentInput())
	require.NoError(t, err)
	last := (*memos)[len(*memos)-1]
	require.Len(t, last.Clusters, 2)
	assert.Contains(t, last.Clusters, "audit")
	assert.Empty(t, last.ClusterID)
	assert.Equal(t, project, last.ProjectID)
	assert.Equal(t, workflows.OutcomeRotated, last.Outcome)
	assert.LessOrEqual(t, len(*memos), 5)
}
