package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/internal/setting"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/postgres"
	"keyturn/workflows"
)

// nextStep is what the next version of this program adds to the ledger's tables.
const nextStep = "ALTER TABLE ledger_entries ADD COLUMN note TEXT NOT NULL DEFAULT '';\n"

// buildNextVersion builds a worker that has one more step of the schema, which this
// version can use or not.
func buildNextVersion(t *testing.T, thisVersionCanUseIt bool) (program string) {
	t.Helper()
	folder := t.TempDir()
	const steps = "../internal/ledger/migrations/"
	files, err := filepath.Glob(steps + "sqlite/*.sql")
	require.NoError(t, err)
	step, compatibleFrom := fmt.Sprintf("%04d_note.sql", len(files)+1), len(files)+1
	if thisVersionCanUseIt {
		compatibleFrom--
	}
	source := readText(t, "../internal/ledger/migrate.go")
	const list = "var migrations = []migration{"
	before, after, found := strings.Cut(source, list)
	require.True(t, found)
	known, rest, found := strings.Cut(after, "\n}\n")
	require.True(t, found)
	next := fmt.Sprintf("%s%s%s\n\t{file: %q, compatibleFrom: %d},\n}\n%s", before, list, known, step, compatibleFrom, rest)
	overlay := map[string]map[string]string{"Replace": {}}
	replace := func(path, name, text string) {
		from, err := filepath.Abs(path)
		require.NoError(t, err)
		to := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(to, []byte(text), 0o600))
		overlay["Replace"][from] = to
	}
	replace("../internal/ledger/migrate.go", "migrate.go", next)
	for _, database := range []string{"sqlite", "postgres"} {
		replace(steps+database+"/"+step, step, nextStep)
	}
	text, err := json.Marshal(overlay)
	require.NoError(t, err)
	overlayFile := filepath.Join(folder, "overlay.json")
	require.NoError(t, os.WriteFile(overlayFile, text, 0o600))
	program = filepath.Join(folder, "keyturn-worker")
	output, err := exec.Command("go", "build", "-ldflags=-w", "-overlay", overlayFile, "-o", program, ".").CombinedOutput()
	require.NoError(t, err, string(output))
	return program
}

// onEachDatabase runs a test with the environment of a worker whose ledger is an
// empty database.
func onEachDatabase(t *testing.T, test func(*testing.T, fixture.Server, setting.Environment)) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s := fixture.NewServer(t, simulator.Options{})
			env := monitoredEnvironment(s)
			if database == "sqlite" {
				env[ledger.URLVariable] = "sqlite://" + filepath.Join(t.TempDir(), "ledger.db")
			} else {
				server := postgres.StartForTest(t)
				env[ledger.URLVariable], _ = server.Database(t)
				env[ledger.PasswordFileVariable] = server.PasswordFile()
			}
			test(t, s, env)
		})
	}
}

// besides is the environment of another worker with the same settings.
func besides(t *testing.T, env setting.Environment) setting.Environment {
	t.Helper()
	other := maps.Clone(env)
	other[listenVariable] = freeAddress(t)
	return other
}

func awaitLedger(t *testing.T, address string) {
	t.Helper()
	awaitReadiness(t, address, func(r readiness) bool { return r.Ready && r.Checks["ledger"].OK })
}

func rotateReplicaSet(s fixture.Server, name string) {
	s.Helper()
	s.RequireRotated(s.Start(s.Input(s.OM.AddReplicaSet(s.Project, name).ID)), 1)
}

// requireRecorded requires an entry of each rotation, which its workflow has written.
func requireRecorded(t *testing.T, env setting.Environment, rotations int) {
	t.Helper()
	entries := fixture.Entries(t, fixture.LedgerAt(t, env[ledger.URLVariable], ledger.Options{PasswordFile: env[ledger.PasswordFileVariable]}).Open)
	require.Len(t, entries, rotations)
	for _, entry := range entries {
		assert.Equal(t, ledgerentry.SourceWorkflow, entry.Source)
	}
}

// Workers of two versions start at once on an empty database, and both record
// rotations; the older one also after a restart, as for a rollback.
func TestTwoVersionsShareALedger(t *testing.T) {
	t.Parallel()
	program := buildNextVersion(t, true)
	onEachDatabase(t, func(t *testing.T, s fixture.Server, env setting.Environment) {
		newerEnv := besides(t, env)
		newer := startProgram(t, program, newerEnv)
		older := startMonitored(t, env, oftenLooking)
		awaitLedger(t, newerEnv[listenVariable])
		awaitLedger(t, older.address)
		rotateReplicaSet(s, "both")
		older.stop()
		rotateReplicaSet(s, "newer")
		newer.signal(t, syscall.SIGTERM)
		require.Zero(t, newer.exitCode(t), newer.stderr.String())
		older = startMonitored(t, env, oftenLooking)
		awaitLedger(t, older.address)
		rotateReplicaSet(s, "older")
		requireRecorded(t, env, 3)
	})
}

// A worker that can't use the tables of a newer one is not ready and says why, and
// its rotations wait for the newer one.
func TestOlderWorkerRefusesTablesThatItCannotUse(t *testing.T) {
	t.Parallel()
	program := buildNextVersion(t, false)
	onEachDatabase(t, func(t *testing.T, s fixture.Server, env setting.Environment) {
		older := startMonitored(t, env, oftenLooking)
		awaitLedger(t, older.address)
		rotateReplicaSet(s, "before")
		newerEnv := besides(t, env)
		newer := startProgram(t, program, newerEnv)
		awaitLedger(t, newerEnv[listenVariable])
		newer.signal(t, syscall.SIGTERM)
		require.Zero(t, newer.exitCode(t), newer.stderr.String())

		requireRefused := func() {
			awaitReadiness(t, older.address, func(r readiness) bool {
				return !r.Ready && strings.Contains(r.Checks["ledger"].Problem, "upgrade keyturn")
			})
		}
		requireRefused()
		older.stop()
		older = startMonitored(t, env, oftenLooking)
		requireRefused()
		run := s.Start(s.Input(s.OM.AddReplicaSet(s.Project, "meanwhile").ID))
		s.Await(run.GetID(), func(p workflows.Progress) bool {
			return p.Phase == workflows.PhaseRecording && strings.Contains(p.WaitingFor, "upgrade keyturn")
		})
		older.stop() // its share of the attempts is a matter of luck
		startProgram(t, program, newerEnv)
		s.RequireRotated(run, 1)
	})
}
