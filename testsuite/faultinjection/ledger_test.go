package faultinjection

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"

	"keyturn/activities"
	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
)

// A worker that is killed while it records a rotation leaves the rotation to
// another one, and there is one entry.
func TestWorkerKilledWhileRecording(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddReplicaSet(s.Project, "audit")
	file := filepath.Join(t.TempDir(), "ledger.db")
	handle := fixture.LedgerAt(t, "sqlite://"+file, ledger.Options{})
	_, err := handle.Open(t.Context())
	require.NoError(t, err)
	release := lockSQLite(t, file)
	first := startProcess(s, ledger.URLVariable+"=sqlite://"+file)
	run := s.Start(inputOf(s, cluster.ID))
	awaitPending(s, run, func(p *workflowpb.PendingActivityInfo) bool {
		return p.GetActivityType().GetName() == activities.RecordRotationName && p.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED
	})
	first.kill()
	release()
	startProcess(s, ledger.URLVariable+"=sqlite://"+file)
	s.RequireRotated(run, 1)
	entries := fixture.Entries(t, handle.Open)
	require.Len(t, entries, 1)
	assert.Equal(t, ledgerentry.SourceWorkflow, entries[0].Source)
	assert.Equal(t, ledgerentry.Key(run.GetID(), run.GetRunID()), entries[0].Key)
}

// lockSQLite keeps everybody else from writing to a SQLite file until release.
func lockSQLite(t *testing.T, file string) (release func()) {
	t.Helper()
	database, err := sql.Open("sqlite", file+"?_txlock=immediate")
	require.NoError(t, err)
	transaction, err := database.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	return func() {
		require.NoError(t, transaction.Rollback())
		require.NoError(t, database.Close())
	}
}
