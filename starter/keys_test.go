package main

import (
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// The command answers which old keys are needed and until when, from a real
// Temporal server, after a real rotation.
func TestKeysOfARotatedCluster(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 2)
	s.StartWorker()
	shard := s.cluster.ShardIDs[0]
	old := s.OM.Key(shard)
	expires := time.Now().AddDate(0, 0, 30).UTC().Truncate(time.Second)
	s.OM.TakeSnapshot(s.cluster.ID, time.Now().Add(-time.Hour), expires)
	s.expect(s.keyturn("rotate", "--wait"), exitDone, "rotated")
	s.expect(s.keyturn("report", "-o", "html"), exitDone, "<!DOCTYPE html>", "<h1>Key rotation of orders</h1>", old, s.OM.Key(shard), "</html>")
	s.OM.TakeSnapshot(s.cluster.ID, time.Now(), expires.AddDate(1, 0, 0))
	keys := func(words ...string) answer {
		return s.run(append([]string{"keys", "--connection", s.Connection}, words...)...)
	}

	got := keys("--project", s.cluster.ProjectID)
	s.expect(got, exitDone, "1 of 1 projects listed: 1 cluster, 2 snapshots, 6 keys", old, s.OM.Key(shard), "needed", timeText(&expires), "in force", keysNote)
	assert.NotContains(t, got.stdout, "NOT COMPLETE")

	list := decoded[keyView](t, keys("--projects", s.cluster.ProjectID, "-o", "json"))
	assert.True(t, list.Complete)
	require.Len(t, list.Keys, 6)

	rows, err := csv.NewReader(strings.NewReader(keys("--expiring-before", "31d", "-o", "csv").stdout)).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 4, "a header and the three old keys")
	assert.Equal(t, []string{"needed", expires.Format(time.RFC3339), "1"}, rows[1][1:4])
	s.expect(keys("--expiring-before", "29d"), exitDone, "shown: 0 of 6 keys")
	s.expect(keys("--cluster", "orders", "-o", "markdown"), exitDone, "# Master keys", "| orders |", old)
	s.expect(keys("--cluster", "orders", "--expiring-before", "29d"), exitDone, "shown: 0 of 6 keys")

	// A name that is wrong must not look like a cluster without keys.
	s.expect(keys("--cluster", "other", "--cluster", "orders"), exitFailed, "NOT COMPLETE", "- cluster other: no key of a cluster with this ID or display name was found: check --cluster and --project", old)
	list = decoded[keyView](t, keys("--cluster", "other", "-o", "json"))
	assert.False(t, list.Complete)
	require.Len(t, list.Reasons, 1)
	assert.Equal(t, workflows.IncompleteReason{Reason: clusterNotFound, ClusterName: "other", Message: list.Reasons[0].Message}, list.Reasons[0])

	// What makes it incomplete stands above the table, and in the exit code.
	s.OM.AddSnapshot(simulator.Snapshot{ClusterID: s.cluster.ID, MissingShards: []string{"orders-1"}, Parts: []simulator.SnapshotPart{{EncryptionEnabled: new(false)}}})
	got = keys()
	s.expect(got, exitFailed, "NOT COMPLETE", "cluster orders of project "+s.cluster.ProjectID, "lacks shard orders-1")
	assert.Less(t, strings.Index(got.stdout, "NOT COMPLETE"), strings.Index(got.stdout, "Verdict"))
	got = keys("-o", "csv")
	s.expect(got, exitFailed, "lacks shard orders-1")
	assert.NotContains(t, got.stdout, "NOT COMPLETE")
	assert.Contains(t, got.stdout, ",false\n")
	s.expect(keys("--project", "5196d3628d022db4cbc26d00"), exitFailed, "GROUP_NOT_FOUND")
}

func TestUsageErrorsOfKeys(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	for _, c := range []struct{ flag, value string }{
		{"--project", "x"}, {"--exclude-projects", "x"}, {"--connection", "a b"}, {"--expiring-before", "soon"}, {"--expiring-before", "-1d"}, {"-o", "html"}, {"--task-queue", ""},
	} {
		s.expect(s.run("keys", c.flag, c.value), exitUsage)
	}
}

func TestDateOrDuration(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2027-01-31": time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC), "90d": now.AddDate(0, 0, 90), "12h": now.Add(12 * time.Hour),
		"2027-01-31T10:00:00Z": time.Date(2027, 1, 31, 10, 0, 0, 0, time.UTC),
	} {
		got, ok := dateOrDuration(text, now)
		assert.True(t, ok, text)
		assert.Equal(t, want, got, text)
	}
}

// No text about a key says that it may be destroyed, and a date in the past is no
// end.
func TestNoTextSaysThatAKeyMayGo(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	past := now.AddDate(0, 0, -1)
	v := &keyView{now: now, Complete: true}
	for verdict, want := range map[workflows.Verdict]string{
		workflows.VerdictCurrent: "in force", workflows.VerdictNeeded: "no end",
		workflows.VerdictUnknown: "not known", workflows.VerdictNamedByNoSnapshot: "not known",
	} {
		assert.Equal(t, want, v.neededUntil(workflows.KeyRecord{Verdict: verdict}))
	}
	assert.Equal(t, "2025-12-31T00:00:00Z (expired)", v.neededUntil(workflows.KeyRecord{Verdict: workflows.VerdictNeeded, NeededUntil: &past}))
	v.Keys = []workflows.KeyRecord{{KeyUUID: "=cmd()", Verdict: workflows.VerdictNamedByNoSnapshot, ClusterNames: []string{"a\x1b[2Jb"}}}
	for _, text := range []string{v.table(layout{}), v.markdown()} {
		assert.Contains(t, text, "No verdict says that a key may be destroyed")
		assert.NotContains(t, text, "\x1b")
	}
	assert.Contains(t, v.csv(), "'=cmd()")
}
