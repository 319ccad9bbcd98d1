package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/testsuite/support/schemas"
	"keyturn/workflows"
)

const attack = `<script>alert("1")</script>`

// quarterLedger has a filled ledger, with an attack in each text that somebody chooses.
func quarterLedger(t *testing.T) *testLedger {
	signing, _ := keyFiles(t)
	l := filledLedger(t, ledger.Options{SigningKeyFile: signing})
	result := rotatedResult("5196e5b0e4b0fca9cc88334d", attack, day("2026-03-20"), attack)
	result.Change.Ticket, result.Change.RequestedBy, result.Change.Reason = attack, attack, attack
	l.append(t, attack, result, &ledgerentry.RotationError{Type: attack, Message: attack}, func(r *ledgerentry.Record) { r.WorkerVersion = attack })
	return l
}

func TestEvidenceIsOneFileWithAllThatAnAuditorNeeds(t *testing.T) {
	l := quarterLedger(t)
	code, page, stderr := l.run(t, "evidence", "--until", "2026-06-30", "--older-than", "60d", "--time-zone", "UTC")
	require.Equal(t, exitDone, code, stderr)
	for _, contents := range []string{
		"Evidence of key rotations", "2026-07-01T00:00:00Z (UTC time)", "CHG0031337", "dana", "erin", "old-00", "new-00", // who and what
		"PartialFailure", "retry", "quarterly", // failures and actions
		"<svg", `role="img"`, "policy: 60d", "overdue</text>", // the chart
		"Overdue", "Appendix: entries of the ledger", "Signing key ID", "Appendix: heads of the chains", "How to verify", "ledger verify",
		"deployments: orders", "fleet default", "h0:1",
	} {
		assert.Contains(t, page, contents)
	}
	for _, entry := range allEntries(t, l) {
		assert.Contains(t, page, entry.Hash)
		assert.Contains(t, page, "<dt>Workflow ID</dt><dd>"+entry.WorkflowID+"</dd>")
	}
	assert.NotContains(t, page, "<script", "every text is escaped")
	assert.NotRegexp(t, regexp.MustCompile(`(?i)(src|href|@import|url)\s*[=(]\s*["']?(https?:)?//`), page, "nothing outside the file")
	assert.NotRegexp(t, regexp.MustCompile(`<(link|img|iframe|object)\b`), page)
	assert.Equal(t, 1, strings.Count(page, "<h1"))
	assert.Equal(t, 5, strings.Count(page, "<h3>"), "one section for each rotation")
	assert.NotContains(t, page, "ZgotmplZ")
}

func allEntries(t *testing.T, l *testLedger) (entries []ledgerentry.Entry) {
	t.Helper()
	for entry, err := range l.Entries(t.Context(), ledger.Filter{}) {
		require.NoError(t, err)
		entries = append(entries, entry)
	}
	return entries
}

// Rotations of before the period determine the ages of keys, those of after it are not
// known at its end.
func TestEvidenceKeepsToItsPeriod(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	l.append(t, "r1", rotatedResult(usersCluster, "users", day("2026-01-01"), "1"), nil, nil)
	l.append(t, "r2", rotatedResult(usersCluster, "users", day("2026-05-01"), "2"), nil, nil)
	l.append(t, "r3", rotatedResult(testCluster, "orders", day("2026-04-10"), "1"), nil, nil)
	code, stdout, stderr := l.run(t, "evidence", "--since", "2026-04-01", "--until", "2026-04-14", "--time-zone", "UTC", "-o", "json")
	require.Equal(t, exitDone, code, stderr)
	var e struct {
		Summary      evidenceSummary
		KeyAges      []keyAge
		Verification struct {
			Intact  bool
			Entries int
		}
		Entries []ledgerentry.Entry
		Anchor  ledger.Anchor
		Until   time.Time
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &e), stdout)
	require.Len(t, e.Entries, 1)
	requireEntries(t, stdout, "entries", 1)
	assert.Equal(t, "r3", e.Entries[0].RunID)
	assert.Contains(t, string(e.Entries[0].Body), "orders-0-before-1")
	assert.Equal(t, evidenceSummary{Rotations: 1, Outcomes: map[string]int{"rotated": 1}, Clusters: 1, KeysRotated: 2}, e.Summary)
	require.Len(t, e.KeyAges, 2)
	assert.Equal(t, keyOverdue, e.KeyAges[0].Status)
	assert.Equal(t, "users-0-1", e.KeyAges[0].KeyUUID, "the key in force at the end of the period")
	assert.Equal(t, keyOK, e.KeyAges[1].Status)
	assert.True(t, e.Verification.Intact)
	assert.Equal(t, 3, e.Verification.Entries, "the whole ledger is verified")
	assert.Len(t, e.Anchor.Heads, 2)
	assert.Equal(t, "2026-04-15T00:00:00Z", timeText(&e.Until))
	// The entries can be verified by another program.
	original := allEntries(t, l)[1]
	assert.Equal(t, original.Hash, e.Entries[0].Hash)
	canonical, err := ledgerentry.Canonicalize(e.Entries[0].Body)
	require.NoError(t, err)
	assert.Equal(t, string(original.Body), string(canonical))
}

// requireEntries checks the entries of a command's JSON with their schema.
func requireEntries(t *testing.T, stdout, field string, count int) {
	t.Helper()
	var shown map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(stdout), &shown))
	var entries []json.RawMessage
	require.NoError(t, json.Unmarshal(shown[field], &entries))
	require.Len(t, entries, count)
	for _, entry := range entries {
		require.NoError(t, schemas.Check("ledger-entry.json", entry))
	}
}

func TestEvidenceOfAChangedLedgerSaysSo(t *testing.T) {
	l := filledLedger(t, ledger.Options{})
	l.tamper(t, `UPDATE ledger_entries SET body = '{"x":1}' WHERE run_id = 'r2'`)
	for _, format := range []string{"html", "json"} {
		code, stdout, stderr := l.run(t, "evidence", "-o", format)
		assert.Equal(t, exitFailed, code)
		assert.Contains(t, stderr, "the ledger was changed")
		if format == "html" {
			assert.Contains(t, stdout, "NOT INTACT")
			assert.Contains(t, stdout, "Appendix: faults of the ledger")
			assert.Contains(t, stdout, "cannot be read", "the others are shown all the same")
			assert.Contains(t, stdout, "new-00")
		}
	}
}

// An entry that cannot be read is named among the faults, and hides no other one.
func TestEvidenceOfAnEntryThatCannotBeRead(t *testing.T) {
	for _, change := range []string{`finished_at = '2026-04-10T12:00:00.0Z'`, `clusters = '[ ]'`, `clusters = '[]'`} {
		l := filledLedger(t, ledger.Options{})
		l.tamper(t, `UPDATE ledger_entries SET `+change+` WHERE run_id = 'r2'`)
		code, stdout, stderr := l.run(t, "evidence", "--since", "2026-01-01")
		assert.Equal(t, exitFailed, code)
		assert.Contains(t, stderr, "the ledger was changed: 1 fault")
		assert.Contains(t, stdout, "NOT INTACT")
		assert.Contains(t, stdout, "<h3>deployments: orders", "the others are shown all the same")
		assert.Contains(t, stdout, "</html>")
		code, stdout, _ = l.run(t, "evidence", "--since", "2026-01-01", "-o", "json")
		assert.Equal(t, exitFailed, code)
		assert.True(t, json.Valid([]byte(stdout)), stdout)
	}
}

// A rotation that was added later than it ended replaces nothing that is newer.
func TestKeyAgesDoNotDependOnTheOrderOfEntries(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	partial := rotatedResult(usersCluster, "users", day("2026-03-01"), "2")
	partial.Targets[1].Status, partial.Targets[1].NewKeyUUID = workflows.StatusFailed, ""
	partial.Targets[0].Name = "renamed"
	gone := rotatedResult(usersCluster, "old name", day("2026-02-01"), "x")
	gone.Targets = append(gone.Targets, verified("09", "gone", 0))
	l.append(t, "r1", partial, nil, nil)
	l.append(t, "r2", gone, nil, nil)
	l.append(t, "r3", rotatedResult(usersCluster, "users", day("2026-01-01"), "1"), nil, nil)
	code, stdout, stderr := l.run(t, "evidence", "--until", "2026-03-05", "-o", "json")
	require.Equal(t, exitDone, code, stderr)
	var e struct {
		KeyAges []keyAge
		Entries []ledgerentry.Entry
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &e))
	require.Len(t, e.Entries, 3)
	assert.Equal(t, []string{"r3", "r2", "r1"}, []string{e.Entries[0].RunID, e.Entries[1].RunID, e.Entries[2].RunID}, "by their end")
	require.Len(t, e.KeyAges, 1)
	age := e.KeyAges[0]
	assert.Equal(t, "users", age.ClusterName)
	assert.Equal(t, 2, age.Targets, "one is gone")
	assert.Equal(t, "old name-1-x", age.KeyUUID, "the newest rotation of the target that failed in the last one")
	assert.Equal(t, day("2026-03-01"), age.LastRotation.FinishedAt)
}

func TestEvidenceOfNothing(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	code, stdout, stderr := l.run(t, "evidence")
	assert.Equal(t, exitDone, code, stderr)
	assert.Contains(t, stdout, "0 rotations")
	assert.NotContains(t, stdout, "<svg")
	code, stdout, _ = l.run(t, "evidence", "-o", "json")
	assert.Equal(t, exitDone, code)
	assert.True(t, json.Valid([]byte(stdout)), stdout)
}

// A chart shows the worst clusters, and says how many it leaves out.
func TestChartOfManyClusters(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	for i := range maxBars + 2 {
		id := "5196e5b0e4b0fca9cc8800" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		l.append(t, "r", rotatedResult(id, id, day("2026-01-01").AddDate(0, 0, i), "1"), nil, nil)
	}
	recorded, err := readRecordedKeys(t.Context(), l.Ledger, ledger.Filter{})
	require.NoError(t, err)
	chart := newAgeChart(recorded.agesAt(day("2026-04-11"), policy.Std()), policy)
	assert.Len(t, chart.Bars, maxBars)
	assert.Contains(t, chart.Note, "2 more clusters")
	assert.Contains(t, chart.Description, "10 overdue, 22 ok")
	for i, bar := range chart.Bars {
		assert.Equal(t, i < 10, bar.Bad)
		assert.Equal(t, bar.Bad, strings.HasSuffix(bar.Value, ", overdue"), "said in words, too")
		assert.Equal(t, bar.Bad, barStart+bar.Length > chart.LimitX, "%d", i)
	}
}
