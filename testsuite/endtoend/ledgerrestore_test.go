package endtoend

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/postgres"
)

// restorable is the database of a ledger. Nothing may have it open while restore
// runs.
type restorable struct {
	url             string
	options         ledger.Options
	backUp, restore func()
}

func restorableFile(t *testing.T) restorable {
	path := filepath.Join(t.TempDir(), "ledger.db")
	copied := path + ".backup"
	return restorable{url: "sqlite://" + path, backUp: func() {
		database, err := sql.Open("sqlite", "file:"+path)
		require.NoError(t, err)
		defer database.Close()
		_, err = database.Exec(`VACUUM INTO ?`, copied)
		require.NoError(t, err)
	}, restore: func() {
		for _, end := range []string{"", "-wal", "-shm"} {
			require.NoError(t, os.RemoveAll(path+end))
		}
		require.NoError(t, os.Rename(copied, path))
	}}
}

func restorableDatabase(t *testing.T) restorable {
	server := postgres.StartForTest(t)
	const database = "keyturn_ledger"
	server.Client(t, "createdb", database)
	file := filepath.Join(t.TempDir(), "ledger.dump")
	return restorable{
		url: server.URL(database), options: ledger.Options{PasswordFile: server.PasswordFile()},
		backUp: func() { server.Client(t, "pg_dump", "--format", "custom", "--file", file, database) },
		restore: func() {
			server.Client(t, "dropdb", "--force", database)
			server.Client(t, "createdb", database)
			server.Client(t, "pg_restore", "--dbname", database, "--exit-on-error", file)
		},
	}
}

// What an older ledger lacks comes back from Temporal: once, with the same result.
// Only a check against heads from after the backup shows that it was restored.
func TestRestoredLedgerIsCompletedFromTemporal(t *testing.T) {
	for name, newRestorable := range map[string]func(*testing.T) restorable{"sqlite": restorableFile, "postgres": restorableDatabase} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := newRestorable(t)
			s := fixture.NewServer(t, simulator.Options{})
			before := fixture.LedgerAt(t, database.url, database.options)
			s.Ledger = before.Open
			orders, audit := s.OM.AddReplicaSet(s.Project, "orders"), s.OM.AddReplicaSet(s.Project, "audit")
			rotate := func(cluster simulator.Cluster) {
				_, err := s.Result(s.Start(s.Input(cluster.ID)))
				require.NoError(t, err)
			}
			stop := s.StartWorker()
			rotate(orders)
			kept := fixture.Entries(t, before.Open)
			database.backUp()
			rotate(orders)
			rotate(audit)
			original := map[string]ledgerentry.Entry{}
			for _, entry := range fixture.Entries(t, before.Open) {
				original[entry.Key] = entry
			}
			opened, err := before.Open(t.Context())
			require.NoError(t, err)
			anchor, err := opened.Anchor(t.Context())
			require.NoError(t, err)
			stop()
			require.NoError(t, before.Close())
			database.restore()

			meanwhile := s.Start(s.Input(audit.ID))
			after := fixture.LedgerAt(t, database.url, database.options)
			require.Equal(t, kept, fixture.Entries(t, after.Open))
			s.Ledger = after.Open
			s.StartWorker()
			_, err = s.Result(meanwhile)
			require.NoError(t, err)
			awaitReconciled(s, after, 2)
			entries := fixture.Entries(t, after.Open)
			assert.Equal(t, map[string]int{"cluster rotated workflow": 2, "cluster rotated reconciled": 2}, outcomesOf(entries))
			for _, entry := range entries {
				if first, isBack := original[entry.Key]; isBack {
					assert.JSONEq(t, string(first.Body), string(entry.Body))
				}
			}
			opened, err = after.Open(t.Context())
			require.NoError(t, err)
			checked, err := opened.Verify(t.Context(), ledger.VerifyOptions{Anchor: &anchor})
			require.NoError(t, err)
			require.NotEmpty(t, checked.Faults)
			for _, fault := range checked.Faults {
				assert.Equal(t, ledger.ReasonAnchor, fault.Reason)
			}
		})
	}
}
