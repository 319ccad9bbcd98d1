package workflows_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// entryOf returns the only entry of a ledger, and the result in it.
func entryOf[Result any](t *testing.T, open fixture.OpenLedger) (ledgerentry.Entry, Result, *ledgerentry.RotationError) {
	t.Helper()
	entries := fixture.Entries(t, open)
	require.Len(t, entries, 1)
	var result Result
	failure, err := ledgerentry.ReadBody(entries[0].Body, &result)
	require.NoError(t, err)
	return entries[0], result, failure
}

func TestEveryEndOfARotationIsOneEntry(t *testing.T) {
	t.Parallel()
	by := workflows.OperatorRequest{By: "kim", Reason: "not today"}
	awaiting := fixture.InPhase(workflows.PhaseAwaitingApproval)
	for name, c := range map[string]struct {
		prepare func(env fixture.SDK, input *workflows.RotateClusterInput)
		outcome workflows.Outcome
		err     workflows.ErrorType
		check   func(t *testing.T, entry ledgerentry.Entry)
	}{
		"rotated": {func(fixture.SDK, *workflows.RotateClusterInput) {}, workflows.OutcomeRotated, "", nil},
		"approved": {func(env fixture.SDK, input *workflows.RotateClusterInput) {
			input.RequireApproval = true
			env.When(awaiting, func(workflows.Progress) { env.Command(workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"}) })
		}, workflows.OutcomeRotated, "", func(t *testing.T, entry ledgerentry.Entry) { assert.Equal(t, "lee", entry.ApprovedBy) }},
		"a failed target": {func(env fixture.SDK, _ *workflows.RotateClusterInput) {
			env.OM.Inject(simulator.AccessListRefusal(http.MethodPut, "").Always())
		}, workflows.OutcomePartial, workflows.ErrorPartialFailure, nil},
		"rejected": {func(env fixture.SDK, input *workflows.RotateClusterInput) {
			input.RequireApproval = true
			env.When(awaiting, func(workflows.Progress) { env.Command(workflows.RejectUpdate, by) })
		}, workflows.OutcomeNothingRotated, workflows.ErrorRejected, func(t *testing.T, entry ledgerentry.Entry) { assert.Equal(t, []string{"kim"}, entry.ActedBy) }},
		"not approved": {func(_ fixture.SDK, input *workflows.RotateClusterInput) {
			input.RequireApproval = true
		}, workflows.OutcomeNothingRotated, workflows.ErrorApprovalTimedOut, nil},
		"aborted": {func(env fixture.SDK, input *workflows.RotateClusterInput) {
			input.RequireApproval = true
			env.When(awaiting, func(workflows.Progress) { env.Command(workflows.AbortUpdate, by) })
		}, workflows.OutcomeNothingRotated, workflows.ErrorAborted, nil},
		"canceled": {func(env fixture.SDK, input *workflows.RotateClusterInput) {
			input.RequireApproval = true
			env.When(awaiting, func(workflows.Progress) { env.CancelWorkflow() })
		}, workflows.OutcomeNothingRotated, workflows.ErrorAborted, func(t *testing.T, entry ledgerentry.Entry) { assert.Empty(t, entry.ActedBy) }},
		"no such connection": {func(_ fixture.SDK, input *workflows.RotateClusterInput) {
			input.Connection = "emea"
		}, workflows.OutcomeNothingRotated, workflows.ErrorUnknownConnection, nil},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			cluster := om.AddShardedCluster(project, "orders", 2)
			env := fixture.NewSDK(t, om)
			open := fixture.OpenLedger(fixture.NewLedger(t).Open)
			env.Activities.Ledger = open
			input := fixture.Input(cluster.ID)
			c.prepare(env, &input)

			returned, err := env.Rotate(input)
			entry, recorded, failed := entryOf[workflows.RotateClusterResult](t, open)
			if c.err == "" {
				require.NoError(t, err)
				assert.Nil(t, failed)
				assert.Equal(t, returned, recorded)
			} else {
				failure := requireFailure(t, err, c.err)
				assert.Equal(t, &ledgerentry.RotationError{Type: string(c.err), Message: failure.Message()}, failed)
				if details, found := workflows.RotateClusterResultOf(err); found {
					assert.Equal(t, *details, recorded)
				}
			}
			assert.Equal(t, string(c.outcome), entry.Outcome)
			assert.Equal(t, ledgerentry.KindCluster, entry.Kind)
			assert.Equal(t, ledgerentry.SourceWorkflow, entry.Source)
			assert.Equal(t, cluster.ID, entry.Clusters[0].ID)
			assert.Equal(t, "CHG0031337", entry.Ticket)
			assert.Equal(t, "dana", entry.RequestedBy)
			assert.NotEmpty(t, entry.WorkerVersion)
			assert.Equal(t, ledgerentry.Key(entry.WorkflowID, entry.RunID), entry.Key)
			assert.Equal(t, workflows.PhaseDone, env.Progress().Phase)
			if c.check != nil {
				c.check(t, entry)
			}
		})
	}
}

func TestPlansAndRefusedInputsAreNoEntries(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 1)
	open := fixture.OpenLedger(fixture.NewLedger(t).Open)
	plan, invalid := fixture.Input(cluster.ID), fixture.Input(cluster.ID)
	plan.DryRun, invalid.Concurrency = true, 99
	for _, input := range []workflows.RotateClusterInput{plan, invalid} {
		env := fixture.NewSDK(t, om)
		env.Activities.Ledger = open
		_, _ = env.Rotate(input)
	}
	env := fixture.NewSDK(t, om)
	env.Activities.Ledger = open
	_, err := rotateFleet(env, workflows.RotateFleetInput{Rotation: workflows.FleetRotation{DryRun: true}})
	require.NoError(t, err)
	assert.Empty(t, fixture.Entries(t, open))
}

func TestFleetAndEachOfItsClustersAreAnEntry(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	om.AddReplicaSet(project, "audit")
	om.AddReplicaSet(project, "orders")
	env := fixture.NewSDK(t, om)
	open := fixture.OpenLedger(fixture.NewLedger(t).Open)
	env.Activities.Ledger = open
	_, err := rotateFleet(env, map[string]any{"change": map[string]any{"ticket": "CHG1"}, "rotation": map[string]any{"settleTime": "0s"}})
	require.NoError(t, err)
	kinds := map[ledgerentry.Kind]int{}
	for _, entry := range fixture.Entries(t, open) {
		kinds[entry.Kind]++
		assert.Equal(t, "rotated", entry.Outcome)
		assert.Equal(t, "CHG1", entry.Ticket)
	}
	assert.Equal(t, map[ledgerentry.Kind]int{ledgerentry.KindFleet: 1, ledgerentry.KindCluster: 2}, kinds)
}

func TestDeploymentIsAnEntryWithItsClusters(t *testing.T) {
	t.Parallel()
	env := fixture.NewDeployment(t, fixture.Deploy(t, twoSets))
	open := fixture.OpenLedger(fixture.NewLedger(t).Open)
	env.Activities.Ledger = open
	returned, err := env.Rotate(fixture.DeploymentInput())
	require.NoError(t, err)
	entry, recorded, failed := entryOf[workflows.RotateDeploymentResult](t, open)
	assert.Nil(t, failed)
	assert.Equal(t, returned, recorded)
	assert.Equal(t, ledgerentry.KindDeployment, entry.Kind)
	require.Len(t, entry.Clusters, 2)
	assert.Equal(t, "audit", entry.Clusters[0].Name)
}

// A rotation that has ended waits for its ledger, shows why, and takes no more
// requests.
func TestRotationWaitsForItsLedger(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 1)
	env := fixture.NewSDK(t, om)
	open := fixture.OpenLedger(fixture.NewLedger(t).Open)
	var isBack atomic.Bool
	env.Activities.Ledger = fixture.OpenLedger(func(ctx context.Context) (*ledger.Ledger, error) {
		if !isBack.Load() {
			return nil, errors.New("connection refused")
		}
		return open(ctx)
	})
	var waited workflows.Progress
	isWaiting := func(p workflows.Progress) bool {
		return p.Phase == workflows.PhaseRecording && p.WaitingFor != "the ledger to record the rotation, which has ended"
	}
	env.When(isWaiting, func(p workflows.Progress) {
		waited = p
		env.Refused(workflows.AbortUpdate, workflows.OperatorRequest{By: "kim"}, "has ended")
		env.CancelWorkflow()
		env.RegisterDelayedCallback(func() { isBack.Store(true) }, time.Hour)
	})
	returned, err := env.Rotate(fixture.Input(cluster.ID))
	require.NoError(t, err)
	assert.Contains(t, waited.WaitingFor, "connection refused")
	assert.Equal(t, workflows.OutcomeRotated, waited.Outcome)
	entry, recorded, _ := entryOf[workflows.RotateClusterResult](t, open)
	assert.Equal(t, returned, recorded)
	assert.Empty(t, recorded.Actions)
	assert.Equal(t, *returned.FinishedAt, entry.FinishedAt)
	assert.Equal(t, int64(1), env.Counts.Of()[activities.LedgerEntriesMetric+`{source="workflow"}`])
}

// What waiting does not help against must not keep a rotation open for ever.
func TestRotationClosesWithoutAnEntryThatCannotBe(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 1)
	for name, open := range map[string]fixture.OpenLedger{
		"no ledger": nil,
		"refused":   func(context.Context) (*ledger.Ledger, error) { return nil, ledgerentry.ErrInvalidRecord },
		"conflict":  func(context.Context) (*ledger.Ledger, error) { return nil, &ledgerentry.ConflictError{} },
		"defect":    func(context.Context) (*ledger.Ledger, error) { panic("a defect") },
	} {
		t.Run(name, func(t *testing.T) {
			env := fixture.NewSDK(t, om)
			if open != nil {
				env.Activities.Ledger = open
			}
			result, err := env.Rotate(fixture.Input(cluster.ID))
			require.NoError(t, err)
			assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
		})
	}
}

// The run that ends names the entry by the one that began.
func TestContinuedRotationIsNamedByItsFirstRun(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 3)
	open := fixture.OpenLedger(fixture.NewLedger(t).Open)
	input := fixture.Input(cluster.ID)
	env := fixture.NewSDK(t, om)
	env.Activities.Ledger = open
	env.SetContinueAsNewSuggested(true)
	_, err := env.Rotate(input)
	var continued *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &continued)
	assert.Empty(t, fixture.Entries(t, open))
	_, err = continueFrom(t, om, continued, input, func(env fixture.SDK) { env.Activities.Ledger = open })
	require.NoError(t, err)
	entry, _, _ := entryOf[workflows.RotateClusterResult](t, open)
	assert.Equal(t, ledgerentry.Key(entry.WorkflowID, "default-test-run-id"), entry.Key)
}
