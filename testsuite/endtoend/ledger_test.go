package endtoend

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/postgres"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

// reconcile adds what is missing in a ledger, and returns how many entries.
func reconcile(s fixture.Server, handle *ledger.Handle) workflows.Reconciliation {
	s.Helper()
	opened, err := handle.Open(s.Context())
	require.NoError(s, err)
	found, err := newReconciler(s, s.Temporal).Reconcile(s.Context(), opened)
	require.NoError(s, err)
	return found
}

func newReconciler(s fixture.Server, temporal client.Client) *workflows.Reconciler {
	return &workflows.Reconciler{Client: temporal, TaskQueue: s.TaskQueue, Logger: slog.New(slog.DiscardHandler)}
}

// awaitReconciled reconciles until Temporal, whose list of workflows may be late,
// shows what is missing.
func awaitReconciled(s fixture.Server, handle *ledger.Handle, added int) {
	s.Helper()
	waiting.Until(s, func() bool { added -= reconcile(s, handle).Added; return added <= 0 })
	require.Zero(s, added)
	require.Equal(s, workflows.Reconciliation{}, reconcile(s, handle))
}

func outcomesOf(entries []ledgerentry.Entry) map[string]int {
	outcomes := map[string]int{}
	for _, entry := range entries {
		outcomes[string(entry.Kind)+" "+entry.Outcome+" "+string(entry.Source)]++
	}
	return outcomes
}

// The lost ledger of rotations that closed with their entries is reconciled to the
// same entries.
func TestLedgerIsReconciledFromTemporal(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	recorded, lost := fixture.NewLedger(t), fixture.NewLedger(t)
	s.Ledger = recorded.Open
	s.OM.AddReplicaSet(s.Project, "audit")
	cluster := s.OM.AddReplicaSet(s.Project, "orders")
	s.StartWorker()
	fleet := s.StartFleet(fleetOf(s))
	_, err := s.FleetResult(fleet)
	require.NoError(t, err)
	plan, failing := s.Input(cluster.ID), s.Input(cluster.ID)
	plan.DryRun = true
	_, err = s.Result(s.Start(plan))
	require.NoError(t, err)
	failing.ExpectedTargets = 7
	_, err = s.Result(s.Start(failing))
	fixture.RequireFailure(t, err, workflows.ErrorUnexpectedTopology)

	entries := fixture.Entries(t, recorded.Open)
	require.Equal(t, map[string]int{"cluster rotated workflow": 2, "fleet rotated workflow": 1, "cluster nothingRotated workflow": 1}, outcomesOf(entries))
	awaitReconciled(s, lost, 4)
	restored := map[string]ledgerentry.Entry{}
	for _, entry := range fixture.Entries(t, lost.Open) {
		restored[entry.Key] = entry
	}
	for _, entry := range entries {
		again := restored[entry.Key]
		assert.Equal(t, ledgerentry.SourceReconciled, again.Source)
		assert.Equal(t, entry.Outcome, again.Outcome)
		if entry.Outcome == "rotated" {
			assert.JSONEq(t, string(entry.Body), string(again.Body))
		}
	}
	assert.Equal(t, workflows.Reconciliation{}, reconcile(s, recorded))
}

// historyCounter counts the histories that are read.
type historyCounter struct {
	client.Client
	read int
}

func (c *historyCounter) GetWorkflowHistory(ctx context.Context, workflowID, runID string, isLongPoll bool, filter enumspb.HistoryEventFilterType) client.HistoryEventIterator {
	if filter == enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT { // not that of a result
		c.read++
	}
	return c.Client.GetWorkflowHistory(ctx, workflowID, runID, isLongPoll, filter)
}

// refusingLedger has no entry, and takes none.
type refusingLedger struct{ refused int }

func (l *refusingLedger) HasRun(context.Context, string, string) (bool, error) { return false, nil }

func (l *refusingLedger) Append(context.Context, ledgerentry.Record) (ledgerentry.Entry, error) {
	l.refused++
	return ledgerentry.Entry{}, ledgerentry.ErrInvalidRecord
}

// What needs no entry is looked at once. What the ledger refuses is reported once, and
// tried again: the ledger may be restored.
func TestReconciliationRemembersWhatItHasLookedAt(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	set := s.OM.AddReplicaSet(s.Project, "orders")
	s.StartWorker()
	plan, wrong := s.Input(set.ID), s.Input(set.ID)
	plan.DryRun, wrong.Concurrency = true, -1
	for _, input := range []workflows.RotateClusterInput{plan, s.Input(set.ID)} {
		_, err := s.Result(s.Start(input))
		require.NoError(t, err)
	}
	_, err := s.Result(s.Start(wrong))
	fixture.RequireFailure(t, err, workflows.ErrorInvalidInput)

	counter := &historyCounter{Client: s.Temporal}
	reconciler, refusing := newReconciler(s, counter), &refusingLedger{}
	waiting.UntilAnswer(t, func() (bool, error) { // Temporal's list of workflows may be late
		_, err := reconciler.Reconcile(t.Context(), refusing)
		return refusing.refused > 0 && counter.read == refusing.refused+2, err // the plan and the wrong input
	}, "the reconciler has not read the workflows")
	read, refused := counter.read, refusing.refused
	found, err := reconciler.Reconcile(t.Context(), refusing)
	require.NoError(t, err)
	assert.Equal(t, workflows.Reconciliation{}, found, "the refusal is not reported again")
	assert.Equal(t, refused+1, refusing.refused, "it is tried again")
	assert.Equal(t, read+1, counter.read, "and nothing else is read")

	found, err = newReconciler(s, counter).Reconcile(t.Context(), refusing)
	require.NoError(t, err)
	assert.Equal(t, workflows.Reconciliation{Refused: 1}, found)
	opened, err := fixture.NewLedger(t).Open(t.Context())
	require.NoError(t, err)
	found, err = reconciler.Reconcile(t.Context(), opened)
	require.NoError(t, err)
	assert.Equal(t, workflows.Reconciliation{Added: 1}, found, "another ledger takes it")
	assert.Equal(t, read+1+3+1, counter.read, "what needs no entry is still remembered")
}

func TestTerminatedRotationIsReconciledOnce(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	handle := fixture.NewLedger(t)
	s.Ledger = handle.Open
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	s.BlockRotation(cluster.ShardIDs[1])
	s.StartWorker()
	input := s.Input(cluster.ID)
	run := s.Start(input)
	s.Await(run.GetID(), func(p workflows.Progress) bool { return p.Counts[workflows.StatusVerified] == 1 })
	require.NoError(t, s.Temporal.TerminateWorkflow(t.Context(), run.GetID(), "", "a test"))
	awaitReconciled(s, handle, 1)
	entries := fixture.Entries(t, handle.Open)
	require.Len(t, entries, 1)
	assert.Equal(t, map[string]int{"cluster partial reconciled": 1}, outcomesOf(entries))
	assert.Equal(t, ledgerentry.Key(run.GetID(), run.GetRunID()), entries[0].Key)
	var result workflows.RotateClusterResult
	failure, err := ledgerentry.ReadBody(entries[0].Body, &result)
	require.NoError(t, err)
	assert.Equal(t, "Terminated", failure.Type)
	assert.Equal(t, workflows.StatusVerified, result.Targets[0].Status, "the last known progress")
	assert.NotEmpty(t, result.Targets[0].NewKeyUUID)
}

// A copy that a reset made is a rotation of its own, wherever it begins.
func TestResetRotationHasAnEntryOfItsOwn(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	handle := fixture.NewLedger(t)
	s.Ledger = handle.Open
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 1)
	s.StartWorker()
	run := s.Start(s.Input(cluster.ID))
	s.RequireRotated(run, 2)
	afterReading := resetTo(s, run, afterFirstReading(t, s.History(run)))
	s.RequireRotated(afterReading, 2)
	afterRecording := resetTo(s, run, lastTask(s.History(run)))
	s.RequireRotated(afterRecording, 2)
	keys := map[string]bool{}
	for _, entry := range fixture.Entries(t, handle.Open) {
		keys[entry.Key] = true
	}
	assert.Equal(t, map[string]bool{
		ledgerentry.Key(run.GetID(), run.GetRunID()): true, ledgerentry.Key(run.GetID(), afterReading.GetRunID()): true,
		ledgerentry.Key(run.GetID(), afterRecording.GetRunID()): true,
	}, keys)
	assert.Equal(t, workflows.Reconciliation{}, reconcile(s, handle))
}

func TestContinuedRotationIsOneEntry(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, shortHistories(t), simulator.Options{})
	recorded, lost := fixture.NewLedger(t), fixture.NewLedger(t)
	s.Ledger = recorded.Open
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 11)
	s.StartWorker()
	run := s.Start(s.Input(cluster.ID))
	first := run.GetRunID()
	s.RequireRotated(run, 12)
	awaitReconciled(s, lost, 1)
	for _, open := range []fixture.OpenLedger{recorded.Open, lost.Open} {
		entries := fixture.Entries(t, open)
		require.Len(t, entries, 1)
		assert.Equal(t, ledgerentry.Key(run.GetID(), first), entries[0].Key)
		assert.NotEqual(t, first, entries[0].RunID)
	}
}

// A rotation waits for PostgreSQL, which crashes and comes back.
func TestRotationWaitsForPostgreSQL(t *testing.T) {
	t.Parallel()
	server := postgres.StartForTest(t)
	s := fixture.NewServer(t, simulator.Options{})
	database, _ := server.Database(t)
	handle := fixture.LedgerAt(t, database, ledger.Options{PasswordFile: server.PasswordFile()})
	s.Ledger = handle.Open
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 1)
	s.StartWorker()
	s.RequireRotated(s.Start(s.Input(cluster.ID)), 2)
	require.NoError(t, server.Crash())
	run := s.Start(s.Input(cluster.ID))
	waiting := s.Await(run.GetID(), func(p workflows.Progress) bool {
		return p.Phase == workflows.PhaseRecording && p.WaitingFor != "the ledger to record the rotation, which has ended"
	})
	assert.Contains(t, waiting.WaitingFor, ledger.URLVariable)
	require.NoError(t, server.Restart())
	_, err := s.Result(run)
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"cluster rotated workflow": 2}, outcomesOf(fixture.Entries(t, handle.Open)))
}

// lastTask is the last completed workflow task, which closed the run.
func lastTask(events []*historypb.HistoryEvent) (last int64) {
	var tasks []int64
	for _, event := range events {
		if event.GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED {
			tasks = append(tasks, event.GetEventId())
		}
	}
	return tasks[len(tasks)-1]
}
