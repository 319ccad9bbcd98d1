package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/workflows"
)

// testLedger is a ledger in a SQLite file.
type testLedger struct {
	*ledger.Ledger
	path string
	env  []string
}

func newTestLedger(t testing.TB, options ledger.Options) *testLedger {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	url := "sqlite://" + path
	opened, err := ledger.Open(context.Background(), url, options)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, opened.Close()) })
	return &testLedger{opened, path, []string{ledger.URLVariable + "=" + url}}
}

// tamper changes the database behind the ledger's back.
func (l *testLedger) tamper(t *testing.T, statements ...string) {
	t.Helper()
	raw, err := sql.Open("sqlite", "file:"+l.path)
	require.NoError(t, err)
	defer func() { require.NoError(t, raw.Close()) }()
	rows, err := raw.Query(`SELECT name, sql FROM sqlite_master WHERE type = 'trigger'`)
	require.NoError(t, err)
	triggers := map[string]string{}
	for rows.Next() {
		var name, definition string
		require.NoError(t, rows.Scan(&name, &definition))
		triggers[name] = definition
	}
	require.NoError(t, rows.Err())
	for name := range triggers {
		_, err = raw.Exec("DROP TRIGGER " + name)
		require.NoError(t, err)
	}
	for _, statement := range statements {
		_, err = raw.Exec(statement)
		require.NoError(t, err)
	}
	for _, definition := range triggers {
		_, err = raw.Exec(definition)
		require.NoError(t, err)
	}
}

// append records the end of a rotation; change, if not nil, changes its record.
func (l *testLedger) append(t testing.TB, runID string, result any, failure *ledgerentry.RotationError, change func(*ledgerentry.Record)) ledgerentry.Entry {
	t.Helper()
	body, err := ledgerentry.NewBody(result, failure, "")
	require.NoError(t, err)
	record := ledgerentry.Record{Source: ledgerentry.SourceWorkflow, RunID: runID, Body: body, WorkerVersion: "v1", ActedBy: []string{}, Clusters: []ledgerentry.Cluster{}}
	var requested workflows.Change
	switch r := result.(type) {
	case workflows.RotateClusterResult:
		record.Kind, record.Connection, record.ProjectID, record.Outcome = ledgerentry.KindCluster, r.Connection, r.ProjectID, string(r.Outcome)
		record.Clusters = []ledgerentry.Cluster{{ID: r.ClusterID, Name: r.ClusterName}}
		record.WorkflowID = workflows.RotateClusterID(r.Connection, r.ProjectID, r.ClusterID)
		record.StartedAt, record.FinishedAt, requested = r.StartedAt, timeOf(r.FinishedAt), r.Change
		if r.Approval != nil {
			record.ApprovedBy = r.Approval.By
		}
		for _, action := range r.Actions {
			record.ActedBy = append(record.ActedBy, action.By)
		}
	case workflows.RotateDeploymentResult:
		record.Kind, record.Connection, record.ProjectID, record.Outcome = ledgerentry.KindDeployment, r.Connection, r.ProjectID, string(r.Outcome)
		record.WorkflowID = workflows.RotateDeploymentID(r.Connection, r.ProjectID)
		record.StartedAt, record.FinishedAt, requested = r.StartedAt, timeOf(r.FinishedAt), r.Change
		for _, id := range (&deploymentRecords{workflows.DeploymentProgress{RotateDeploymentResult: r}}).clusterIDs() {
			record.Clusters = append(record.Clusters, ledgerentry.Cluster{ID: id, Name: "orders"})
		}
	case workflows.RotateFleetResult:
		record.Kind, record.Connection, record.Outcome = ledgerentry.KindFleet, r.Connection, string(r.Outcome)
		record.WorkflowID = workflows.RotateFleetID(r.Connection)
		record.StartedAt, record.FinishedAt, requested = r.StartedAt, timeOf(r.FinishedAt), r.Change
	}
	record.Ticket, record.RequestedBy = requested.Ticket, requested.RequestedBy
	record.Key = ledgerentry.Key(record.WorkflowID, runID)
	if change != nil {
		change(&record)
	}
	entry, err := l.Append(context.Background(), record)
	require.NoError(t, err)
	return entry
}

// rotatedResult is that of a cluster with two shards that was rotated at a time.
func rotatedResult(clusterID, name string, ended time.Time, round string) workflows.RotateClusterResult {
	result := workflows.RotateClusterResult{
		Connection: "default", ProjectID: testProject, ClusterID: clusterID, ClusterName: name, Outcome: workflows.OutcomeRotated,
		StartedAt: ended.Add(-time.Minute), FinishedAt: &ended, Change: workflows.Change{Ticket: "CHG1", RequestedBy: "dana"},
	}
	for i := range 2 {
		record := verified(fmt.Sprintf("%02d", i), fmt.Sprintf("%s-%d", name, i), 0)
		record.RotatedAt, record.VerifiedAt = &ended, &ended
		record.PreviousKeyUUID, record.NewKeyUUID = fmt.Sprintf("%s-%d-before-%s", name, i, round), fmt.Sprintf("%s-%d-%s", name, i, round)
		result.Targets = append(result.Targets, record)
	}
	return result
}

const (
	usersCluster = "5196e5b0e4b0fca9cc88334b"
	firstRun     = "0195c0de-0000-7000-8000-000000000001"
	secondRun    = "0195c0de-0000-7000-8000-000000000002"
)

func day(text string) time.Time {
	at, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return at.Add(12 * time.Hour)
}

// filledLedger has a rotation of orders with every kind of record, one of users, one of
// a deployment, and a fleet.
func filledLedger(t *testing.T, options ledger.Options) *testLedger {
	l := newTestLedger(t, options)
	l.append(t, firstRun, partialResult(), &ledgerentry.RotationError{Type: "PartialFailure", Message: "1 of 5 targets"}, nil)
	l.append(t, "r2", rotatedResult(usersCluster, "users", day("2026-04-10"), "1"), nil, func(r *ledgerentry.Record) {
		r.Ticket, r.RequestedBy, r.Source = "CHG2", "kim", ledgerentry.SourceReconciled
	})
	ended := day("2026-05-10")
	l.append(t, "r3", workflows.RotateDeploymentResult{
		Connection: "default", ProjectID: testProject, Proof: workflows.ProofSnapshot, Outcome: workflows.OutcomeRotated, StartedAt: ended, FinishedAt: &ended,
		Targets: []workflows.ProcessRecord{processRotated("p0", "h0:1", "old0", "new0", ended), processRotated("p1", "h1:1", "", "", ended)},
	}, nil, nil)
	l.append(t, "r4", workflows.RotateFleetResult{Connection: "default", Outcome: workflows.OutcomeRotated, StartedAt: ended, FinishedAt: &ended}, nil, nil)
	return l
}

// processRotated is a process that was rotated, and verified if its new key is known.
func processRotated(name, host, previous, now string, at time.Time) workflows.ProcessRecord {
	record := workflows.ProcessRecord{Status: workflows.StatusRotated, RotatedAt: &at, PreviousKeyUUID: previous, NewKeyUUID: now}
	record.Process, record.Host, record.ReplicaSet, record.ClusterID, record.ClusterName = name, host, "rs0", testCluster, "orders"
	if now != "" {
		record.Status, record.VerifiedAt, record.ProvenBy = workflows.StatusVerified, &at, "snapshot"
	}
	return record
}

func (l *testLedger) run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return runHere(t, l.env, nil, args...)
}

// keyFiles are a signing key, and its public key.
func keyFiles(t testing.TB) (signing, public string) {
	t.Helper()
	publicKey, privateKey, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(privateKey)
	require.NoError(t, err)
	signing = writeFile(t, "signing.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	require.NoError(t, os.Chmod(signing, 0o600))
	der, err = x509.MarshalPKIXPublicKey(publicKey)
	require.NoError(t, err)
	return signing, writeFile(t, "public.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
}

func TestVerifySaysWhatItHasCheckedAndFindsAChange(t *testing.T) {
	signing, public := keyFiles(t)
	l := filledLedger(t, ledger.Options{SigningKeyFile: signing})
	code, stdout, stderr := l.run(t, "ledger", "verify")
	assert.Equal(t, exitDone, code, stdout+stderr)
	assert.Contains(t, stdout, "intact")
	assert.Contains(t, stdout, "without --public-keys")
	assert.Contains(t, stdout, "without --against-anchor")

	code, anchor, _ := l.run(t, "ledger", "anchor")
	require.Equal(t, exitDone, code)
	file := writeFile(t, "anchor.json", anchor)
	code, stdout, stderr = l.run(t, "ledger", "verify", "--public-keys", public, "--against-anchor", file)
	assert.Equal(t, exitDone, code, stdout+stderr)
	assert.NotContains(t, stdout, "NOT CHECKED")

	l.tamper(t, `DELETE FROM ledger_entries WHERE run_id = 'r2'`)
	code, stdout, _ = l.run(t, "ledger", "verify", "--public-keys", public)
	assert.Equal(t, exitDone, code, "a removed end cannot be found without an anchor: %s", stdout)
	code, stdout, stderr = l.run(t, "ledger", "verify", "--against-anchor", file)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, stdout, usersCluster)
	assert.Contains(t, stderr, "the ledger was changed")

	l.tamper(t, `UPDATE ledger_entries SET ticket = 'CHG9' WHERE run_id = 'r3'`)
	for format, contents := range map[string]string{"table": "hash", "csv": ",1,", "markdown": "| hash |", "json": `"intact": false`} {
		code, stdout, _ = l.run(t, "ledger", "verify", "-o", format)
		assert.Equal(t, exitFailed, code, format)
		assert.Contains(t, stdout, contents, format)
	}
}

func TestVerifyFindsSignaturesOfAnotherKey(t *testing.T) {
	signing, _ := keyFiles(t)
	_, other := keyFiles(t)
	l := filledLedger(t, ledger.Options{SigningKeyFile: signing})
	code, stdout, _ := l.run(t, "ledger", "verify", "--public-keys", other)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, stdout, "signature")
}

func TestLedgerCommandsRefuseWrongSettings(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	for _, command := range [][]string{{"history"}, {"evidence"}, {"ledger", "verify"}, {"ledger", "anchor"}, {"overdue"}} {
		code, _, stderr := runHere(t, nil, nil, command...)
		assert.Equal(t, exitUsage, code, command)
		assert.Contains(t, stderr, ledger.URLVariable+" is required", command)
		code, _, stderr = runHere(t, []string{ledger.URLVariable + "=sqlite://" + l.path + "-missing"}, nil, command...)
		assert.Equal(t, exitUsage, code, command)
		assert.Contains(t, stderr, ledger.URLVariable, command)
		assert.NoFileExists(t, l.path+"-missing", "a command that reads creates no ledger")
	}
	for _, wrong := range []struct {
		args []string
		name string
	}{
		{[]string{"history", "--since", "yesterday"}, "--since"},
		{[]string{"history", "--since", "2026-02-01", "--until", "2026-01-01"}, "--since"},
		{[]string{"history", "--time-zone", "Berlin"}, "--time-zone"},
		{[]string{"history", "--project", "x"}, "--project"},
		{[]string{"history", "--connection", "a:b"}, "--connection"},
		{[]string{"history", "--limit", "-1"}, "--limit"},
		{[]string{"evidence", "--older-than", "0s"}, "--older-than"},
		{[]string{"evidence", "-o", "csv"}, "--output"},
		{[]string{"overdue", "--older-than", "-1d"}, "--older-than"},
		{[]string{"ledger"}, "a command is required"},
		{[]string{"ledger", "verify", "--public-keys", l.path}, "--public-keys"},
		{[]string{"ledger", "verify", "--against-anchor", l.path}, "--against-anchor"},
		{[]string{"ledger", "verify", "--allow-unsigned"}, "--public-keys"},
	} {
		code, _, stderr := l.run(t, wrong.args...)
		assert.Equal(t, exitUsage, code, "%v: %s", wrong.args, stderr)
		assert.Contains(t, stderr, wrong.name)
	}
}

// An auditor's command needs no signing key, even if the workers' settings name one.
func TestReadingNeedsNoSigningKey(t *testing.T) {
	l := filledLedger(t, ledger.Options{})
	code, _, stderr := runHere(t, append(l.env, ledger.SigningKeyFileVariable+"="+filepath.Join(t.TempDir(), "none")), nil, "history")
	assert.Equal(t, exitDone, code, stderr)
}

func TestHistoryFilters(t *testing.T) {
	l := filledLedger(t, ledger.Options{})
	for _, c := range []struct {
		args []string
		runs string
	}{
		{nil, "r4 r3 r2 " + firstRun},
		{[]string{"--limit", "2"}, "r4 r3"},
		{[]string{"--since", "2026-04-10", "--until", "2026-04-10", "--time-zone", "UTC"}, "r2"},
		{[]string{"--since", "2026-04-10T12:00:00Z", "--until", "2026-05-10T14:00:00+02:00"}, "r2"},
		{[]string{"--until", "2026-03-31"}, firstRun},
		{[]string{"--ticket", "CHG2"}, "r2"},
		{[]string{"--person", "kim"}, "r2"},
		{[]string{"--person", "erin"}, firstRun},
		{[]string{"--project", strings.ToUpper(testProject)}, "r3 r2 " + firstRun},
		{[]string{"--cluster", "orders"}, "r3 " + firstRun},
		{[]string{"--cluster", strings.ToUpper(usersCluster)}, "r2"},
		{[]string{"--deployment"}, "r3"},
		{[]string{"--fleet"}, "r4"},
		{[]string{"--outcome", "partial,planned"}, firstRun},
		{[]string{"--connection", "other"}, ""},
	} {
		code, stdout, stderr := l.run(t, append([]string{"history", "-o", "json"}, c.args...)...)
		require.Equal(t, exitDone, code, stderr)
		var v struct {
			Entries []struct{ RunID, Hash string }
		}
		require.NoError(t, json.Unmarshal([]byte(stdout), &v))
		var runs []string
		for _, entry := range v.Entries {
			runs = append(runs, entry.RunID)
			assert.Len(t, entry.Hash, 64)
		}
		assert.Equal(t, c.runs, strings.Join(runs, " "), "%v", c.args)
		assert.NotContains(t, stdout, `"body"`)
	}
}

func TestDatesAreOfTheTimeZone(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	// Midnight in Berlin is an hour before that in UTC.
	ended := time.Date(2026, 1, 31, 23, 30, 0, 0, time.UTC)
	l.append(t, "r1", rotatedResult(usersCluster, "users", ended, "1"), nil, nil)
	for zone, isIn := range map[string]bool{"UTC": true, "Europe/Berlin": false} {
		_, stdout, _ := l.run(t, "history", "--until", "2026-01-31", "--time-zone", zone)
		assert.Equal(t, isIn, strings.Contains(stdout, "r1"), stdout)
		assert.Contains(t, stdout, zone, "the output names the time zone")
	}
	_, stdout, _ := l.run(t, "history", "--since", "2026-02-01", "--time-zone", "Europe/Berlin")
	assert.Contains(t, stdout, "since 2026-02-01T00:00:00+01:00 (Europe/Berlin time)")
}

// A misspelled outcome finds nothing; a newer worker may have recorded others.
func TestAnUnknownOutcomeIsAWarning(t *testing.T) {
	l := filledLedger(t, ledger.Options{})
	code, stdout, stderr := l.run(t, "history", "--outcome", "partially,partial")
	require.Equal(t, exitDone, code, stderr)
	assert.Contains(t, stdout, firstRun)
	assert.Equal(t, "warning: --outcome: \"partially\" is none of rotated, rotatedWithSkips, rotatedUnproven, partial, nothingRotated\n", stderr)
}

func TestHistoryFormats(t *testing.T) {
	l := filledLedger(t, ledger.Options{})
	_, stdout, _ := l.run(t, "history")
	for _, contents := range []string{"orders", "deployments: orders", "fleet default", "reconciled", "4 rotations"} {
		assert.Contains(t, stdout, contents)
	}
	_, stdout, _ = l.run(t, "history", "-o", "csv")
	rows, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
	require.NoError(t, err)
	assert.Len(t, rows, 5)
	_, stdout, _ = l.run(t, "history", "-o", "markdown")
	assert.Contains(t, stdout, "| 2026-04-10T12:00:00Z |")
	_, stdout, _ = l.run(t, "history", "--ticket", "none")
	assert.Contains(t, stdout, "the ledger has no such rotation")
}

// A table has the newest rotations and says that there are others; a spreadsheet and
// JSON have all.
func TestALongHistory(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	const count = maxListed + 1
	for i := range count {
		l.append(t, fmt.Sprintf("run-%04d", i), rotatedResult(usersCluster, "users", day("2026-01-01").Add(time.Duration(i)*time.Minute), "1"), nil, nil)
	}
	const hint = "there are older ones"
	for _, format := range []string{"table", "markdown"} {
		_, stdout, _ := l.run(t, "history", "-o", format)
		assert.Contains(t, stdout, "the newest 1000 rotations; "+hint)
		assert.Contains(t, stdout, "run-0001")
		assert.NotContains(t, stdout, "run-0000")
	}
	_, stdout, _ := l.run(t, "history", "--limit", "1")
	assert.Contains(t, stdout, "the newest 1 rotation; "+hint)
	_, stdout, _ = l.run(t, "history", "--limit", fmt.Sprint(count))
	assert.Contains(t, stdout, "1001 rotations, the newest first")
	assert.Contains(t, stdout, "run-0000")

	_, stdout, _ = l.run(t, "history", "-o", "csv")
	rows, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 1+count)
	assert.Equal(t, "finishedAt", rows[0][0])
	assert.Equal(t, "2026-01-01T12:00:00Z", rows[count][0])
	_, stdout, _ = l.run(t, "history", "-o", "json")
	var v struct{ Entries []struct{ RunID string } }
	require.NoError(t, json.Unmarshal([]byte(stdout), &v))
	require.Len(t, v.Entries, count)
	assert.Equal(t, "run-0000", v.Entries[maxListed].RunID)
	_, stdout, _ = l.run(t, "history", "-o", "json", "--ticket", "none")
	assert.Contains(t, stdout, `"entries": []`)
}
