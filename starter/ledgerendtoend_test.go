package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/internal/setting"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

// A rotation that Temporal has forgotten is reported from the ledger, in each format,
// and a message says so.
func TestReportFallsBackToTheLedger(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 2)
	s.expect(s.keyturn("report"), exitFailed, "does not exist", "set "+ledger.URLVariable)
	l := newTestLedger(t, ledger.Options{})
	s.settings = l.env
	s.expect(s.keyturn("report"), exitFailed, "does not exist", "the ledger has no such rotation either")

	result := partialResult()
	result.Connection, result.ProjectID, result.ClusterID = s.Connection, strings.ToLower(s.cluster.ProjectID), s.cluster.ID
	l.append(t, firstRun, result, &ledgerentry.RotationError{Type: "PartialFailure", Message: "1 of 5 targets"}, nil)
	newer := rotatedResult(s.cluster.ID, "orders", day("2026-04-01"), "2")
	newer.Connection = s.Connection
	first := uuid.NewString()
	l.append(t, secondRun, newer, nil, func(r *ledgerentry.Record) { r.Key = ledgerentry.Key(r.WorkflowID, first) })

	got := s.keyturn("report")
	s.expect(got, exitDone, "orders-0-2", "this report is from the ledger")
	assert.NotContains(t, got.stdout, "from the ledger", "messages go to standard error")
	s.expect(s.keyturn("report", "--run-id", first), exitDone, "orders-0-2")
	s.expect(s.keyturn("report", "--run-id", firstRun), exitDone, "PartialFailure: 1 of 5 targets", "new-00", "erin")
	s.expect(s.keyturn("report", "--run-id", firstRun, "-o", "csv"), exitDone, "new-00,")
	s.expect(s.keyturn("report", "--run-id", firstRun, "-o", "markdown"), exitDone, "# Key rotation of orders")
	s.expect(s.keyturn("report", "--run-id", firstRun, "-o", "html"), exitDone, "<h1>Key rotation of orders</h1>")
	s.expect(s.keyturn("report", "--run-id", uuid.NewString()), exitFailed, "the ledger has no such rotation either")
	assert.Equal(t, newer.Targets, decoded[workflows.RotateClusterResult](t, s.keyturn("report", "-o", "json")).Targets)
	s.settings = []string{ledger.URLVariable + "=mysql://x"}
	s.expect(s.keyturn("report"), exitUsage, ledger.URLVariable)
}

// What a terminated rotation leaves is little, and shown.
func TestReportOfAnEntryWithoutAResult(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	result := rotatedResult(usersCluster, "users", day("2026-04-01"), "1")
	empty, err := ledgerentry.NewBody(nil, &ledgerentry.RotationError{Type: "Terminated", Message: "by an operator"}, "")
	require.NoError(t, err)
	entry := l.append(t, firstRun, result, nil, func(r *ledgerentry.Record) { r.Body, r.Outcome = empty, "partial" })
	status, err := statusOfEntry(entry)
	require.NoError(t, err)
	for _, contents := range []string{"users (" + usersCluster + ")", "partial", "Terminated: by an operator", "CHG1", "dana", "2026-04-01T12:00:00Z"} {
		assert.Contains(t, status.table(layout{}), contents)
	}
}

// overdue reads the keys in force from Ops Manager, by a real worker.
func TestOverdueReadsTheKeysInForce(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.StartWorker()
	l := newTestLedger(t, ledger.Options{})
	s.settings = l.env
	overdue := func(words ...string) answer {
		return s.run(append([]string{"overdue", "--connection", s.Connection, "--project", s.cluster.ProjectID}, words...)...)
	}
	s.expect(overdue(), exitFailed, "never", "orders", "not ok: 1 of 1 cluster: 1 never")
	s.expect(s.keyturn("rotate", "--wait"), exitDone, "rotated")
	result := decoded[workflows.RotateClusterResult](t, s.keyturn("report", "-o", "json"))
	l.append(t, firstRun, result, nil, nil)
	s.expect(overdue(), exitDone, "1 ok", "2 of 2 checked")
	assert.Equal(t, keyOK, decoded[overdueView](t, overdue("-o", "json")).Clusters[0].Status)
	time.Sleep(time.Until(result.Targets[0].RotatedAt.Add(time.Second)))
	s.expect(overdue("--older-than", "1ms"), exitFailed, "1 overdue")
	require.NoError(t, fixture.Client(t, s.OM).RotateEncryptionKey(t.Context(), s.cluster.ProjectID, s.cluster.ShardIDs[0], nil))
	s.expect(overdue("-o", "csv"), exitFailed, "drifted,"+s.Connection)
}

// Who continues a rotation that waits only for its ledger means the one that has ended.
func TestContinueWaitsForTheLedger(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	handle := fixture.NewLedger(t)
	var isAway atomic.Bool
	s.Ledger = func(ctx context.Context) (*ledger.Ledger, error) {
		if isAway.Load() {
			return nil, errors.New("the database is away")
		}
		return handle.Open(ctx)
	}
	s.StartWorker()
	const waits = "the last run waits for the ledger"
	untilThere := func(words ...string) answer {
		return s.runUntil(t.Context(), waits, func() { isAway.Store(false) }, append(words, "--connection", s.Connection, "--continue")...)
	}
	cluster := []string{"--project", s.cluster.ProjectID, "--cluster", s.cluster.ID}

	isAway.Store(true)
	s.failPut(s.cluster.ConfigID)
	s.expect(s.keyturn("rotate", "--on-failure", "stop"), exitDone)
	eventually(t, "the end", func() bool { return strings.Contains(s.keyturn("report").stdout, "the database is away") })
	s.OM.ClearFaults()
	require.NoError(t, (&app{env: setting.NewEnvironment(s.environment())}).withSession(t.Context(), func(session *session) error {
		name := rotationName{connection: s.Connection, project: s.cluster.ProjectID, cluster: s.cluster.ID}
		hasEnded, err := session.awaitRecorded(waiting.Context(t), name, "", time.Millisecond, func(string) {})
		assert.True(t, hasEnded)
		assert.ErrorContains(t, err, "the database is away", "it is not waited for without end")
		return nil
	}))
	s.expect(untilThere(append([]string{"rotate", "--wait"}, cluster...)...), exitDone, waits, "the database is away", "continuing from run", "(rotated)")
	s.expectOnePut(s.cluster.TargetIDs()...)
	require.Len(t, fixture.Entries(t, handle.Open), 2)

	isAway.Store(true)
	s.expect(s.fleet("--cluster-names", "^none$"), exitDone)
	eventually(t, "the end", func() bool { return strings.Contains(s.onFleet("report").stdout, "the database is away") })
	s.expect(untilThere("rotate", "--fleet"), exitDone, waits, "continuing fleet")
}

// forget lets Temporal forget a workflow, as after its retention.
func (s *commandLine) forget(workflowID string) {
	s.T.Helper()
	eventually(s.T, "the deletion", func() bool {
		listed, err := s.Temporal.ListWorkflow(s.T.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: "WorkflowId = " + quoted(workflowID)})
		require.NoError(s.T, err)
		for _, run := range listed.GetExecutions() {
			_, err := s.Temporal.WorkflowService().DeleteWorkflowExecution(s.T.Context(), &workflowservice.DeleteWorkflowExecutionRequest{
				Namespace: s.TemporalServer.Namespace, WorkflowExecution: run.GetExecution(),
			})
			if !isNotFound(err) {
				require.NoError(s.T, err)
			}
		}
		_, err = s.Temporal.DescribeWorkflowExecution(s.T.Context(), workflowID, "")
		return len(listed.GetExecutions()) == 0 && isNotFound(err)
	})
}

// What Temporal has forgotten of a fleet is read from the ledger.
func TestEachClusterFallsBackToTheLedger(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.OM.AddReplicaSet(testProject, "audit")
	s.OM.AddReplicaSet(testProject, "archive") // of the earlier fleet alone
	failing := s.failedSet("broken")
	url := "sqlite://" + filepath.Join(t.TempDir(), "ledger.db")
	handle := fixture.LedgerAt(t, url, ledger.Options{})
	s.Ledger = handle.Open
	s.StartWorker()
	// A rotation before the fleet, and an earlier fleet under the same ID, are not of it.
	s.expect(s.keyturn("rotate", "--wait"), exitDone)
	s.expect(s.fleet("--wait", "--cluster-names", "audit|archive"), exitDone)
	earlier, err := s.Temporal.DescribeWorkflow(t.Context(), s.fleetID(), "")
	require.NoError(t, err)
	s.expect(s.fleet("--wait", "--max-failed-clusters", "9", "--cluster-names", "audit|broken|orders"), exitFailed, "2 of 3 clusters rotated, 1 failed")
	inLedger := []string{ledger.URLVariable + "=" + url}
	report := func(settings []string, code int, saying ...string) (rows []map[string]string) {
		s.settings = settings
		got := s.onFleet("report", "--each-cluster", "-o", "csv")
		s.expect(got, code, saying...)
		if code == exitDone {
			rows = rowsOf(t, got)
			slices.SortFunc(rows, func(a, b map[string]string) int { return strings.Compare(a["clusterId"], b["clusterId"]) })
		}
		return rows
	}
	eventually(t, "Temporal's list of workflows", func() bool { return s.onFleet("report", "--each-cluster", "-o", "csv").code == exitDone })
	want := report(nil, exitDone)
	require.Len(t, want, 4)

	s.forget(workflows.RotateClusterID(s.Connection, testProject, failing.ID))
	report(nil, exitFailed, "the fleet started 3 clusters, but Temporal lists 2", ledger.URLVariable)
	assert.Equal(t, want, report(inLedger, exitDone, "1 rotation from the ledger"))

	s.forget(s.fleetID())
	report(nil, exitFailed, "does not exist", "set "+ledger.URLVariable)
	assert.Equal(t, want, report(inLedger, exitDone, "this report is from the ledger"))
	clusters := decoded[[]reportedCluster](t, s.onFleet("report", "--each-cluster", "-o", "json"))
	assert.Len(t, clusters, 3)
	s.settings = inLedger
	assert.Len(t, rowsOf(t, s.onFleet("report", "--each-cluster", "--run-id", earlier.WorkflowExecution.RunID, "-o", "csv")), 2, "without those of later fleets")
	report([]string{ledger.URLVariable + "=sqlite://" + newTestLedger(t, ledger.Options{}).path}, exitFailed, "the ledger has no such rotation either")
}

// An entry of a version that did not know who started its rotation is not found.
func TestEachClusterOfAnEarlierVersion(t *testing.T) {
	s := newFixture(t, 1)
	l := newTestLedger(t, ledger.Options{})
	s.settings = l.env
	ended := day("2026-04-01")
	cluster := rotatedResult(usersCluster, "users", ended, "1")
	cluster.Connection = s.Connection
	l.append(t, "r1", cluster, nil, nil)
	fleet := workflows.RotateFleetResult{Connection: s.Connection, Outcome: workflows.OutcomeRotated, StartedAt: cluster.StartedAt, FinishedAt: &ended}
	fleet.Counts = workflows.FleetCounts{Clusters: 1, Rotated: 1}
	l.append(t, "r2", fleet, nil, nil)
	s.expect(s.onFleet("report", "--each-cluster", "-o", "csv"), exitFailed, "incomplete report: the fleet started 1 cluster, but the ledger names it in the entries of 0")
}

// Temporal's statuses are those of rotations that it has forgotten, too.
func TestStatusOfARecordedCluster(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	for runID, c := range map[string]struct {
		failure *ledgerentry.RotationError
		status  string
	}{
		"r1": {nil, "Completed"},
		"r2": {&ledgerentry.RotationError{Type: "PartialFailure", Message: "x"}, "Failed"},
		"r3": {&ledgerentry.RotationError{Type: "Terminated", Message: "x"}, "Terminated"},
		"r4": {&ledgerentry.RotationError{Type: "TimedOut", Message: "x"}, "TimedOut"},
		"r5": {&ledgerentry.RotationError{Type: "Canceled", Message: "x"}, "Canceled"},
	} {
		entry := l.append(t, runID, rotatedResult(usersCluster, "users", day("2026-04-01"), "1"), c.failure, nil)
		assert.Equal(t, c.status, recordedCluster(entry).Status, runID)
	}
}
