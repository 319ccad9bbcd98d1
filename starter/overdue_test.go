package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/robfig/cron"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/workflows"
)

const policy = workflows.Duration(90 * 24 * time.Hour)

// currentKey is a key in force of a cluster.
func currentKey(uuid, clusterID, name string) workflows.KeyRecord {
	return workflows.KeyRecord{KeyUUID: uuid, Verdict: workflows.VerdictCurrent, ProjectID: testProject, ClusterIDs: []string{clusterID}, ClusterNames: []string{name}}
}

func ofHost(record workflows.KeyRecord, host string, newest time.Time) workflows.KeyRecord {
	record.Hosts, record.NewestSnapshot = []string{host}, &newest
	return record
}

// overdueOf compares a ledger with the keys in force.
func overdueOf(t *testing.T, l *testLedger, now time.Time, f overdueFlags, keys ...workflows.KeyRecord) *overdueView {
	t.Helper()
	f.connection, f.olderThan = "default", policy
	recorded, err := readRecordedKeys(t.Context(), l.Ledger, ledger.Filter{})
	require.NoError(t, err)
	return newOverdueView(recorded, &keyView{Connection: "default", Complete: true, Keys: keys}, &f, now)
}

func statusOf(t *testing.T, v *overdueView, clusterID string) keyAge {
	t.Helper()
	for _, age := range v.Clusters {
		if age.ClusterID == clusterID {
			return age
		}
	}
	require.Fail(t, "the cluster is not shown", "%s in %+v", clusterID, v.Clusters)
	return keyAge{}
}

// A policy that the documented schedule cannot keep alerts each quarter. The default
// leaves time for the approval, and the alert has the same limit.
func TestDefaultPolicyFitsTheDocumentedSchedule(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	documented := regexp.MustCompile(`--cron '([^']+)' --time-zone (\S+)`).FindStringSubmatch(string(readme))
	require.NotNil(t, documented)
	zone, err := time.LoadLocation(documented[2])
	require.NoError(t, err)
	schedule, err := cron.ParseStandard(documented[1])
	require.NoError(t, err)
	longest := time.Duration(0)
	for run := schedule.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, zone)); run.Year() < 2035; {
		next := schedule.Next(run)
		longest, run = max(longest, next.Sub(run)), next
	}
	assert.Greater(t, longest, 90*24*time.Hour, "three months")
	assert.Greater(t, defaultOlderThan.Std(), longest+workflows.DefaultRotateClusterInput().ApprovalTimeout.Std())

	alerts, err := os.ReadFile("../deploy/alerts.yml")
	require.NoError(t, err)
	days := fmt.Sprint(int(defaultOlderThan.Std() / (24 * time.Hour)))
	assert.Contains(t, string(alerts), "keyturn:cluster_last_verified_timestamp_seconds:max > "+days+" * 86400\n")
	assert.Contains(t, string(alerts), "was verified more than "+days+" days ago")
}

func TestEachStatusOfAClustersKeys(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	l.append(t, "r1", rotatedResult(usersCluster, "users", day("2026-01-01"), "1"), nil, nil)
	inForce := []workflows.KeyRecord{currentKey("users-0-1", usersCluster, "users"), currentKey("users-1-1", usersCluster, "users")}

	v := overdueOf(t, l, day("2026-04-01"), overdueFlags{}, inForce...)
	age := statusOf(t, v, usersCluster)
	assert.Equal(t, keyOK, age.Status, "90 days are not more than 90 days: %s", age.Reason)
	assert.Equal(t, "90d", age.Age.String())
	assert.Equal(t, 2, age.Checked)
	assert.NoError(t, v.failure())

	v = overdueOf(t, l, day("2026-04-02"), overdueFlags{}, inForce...)
	age = statusOf(t, v, usersCluster)
	assert.Equal(t, keyOverdue, age.Status)
	assert.Contains(t, age.Reason, "90d")
	assert.ErrorContains(t, v.failure(), "1 overdue")

	v = overdueOf(t, l, day("2026-02-01"), overdueFlags{}, currentKey("users-0-1", usersCluster, "users"), currentKey("other", usersCluster, "users"))
	age = statusOf(t, v, usersCluster)
	assert.Equal(t, keyDrifted, age.Status)
	assert.Equal(t, "the key of users-1 is no longer users-1-1", age.Reason)
	assert.ErrorContains(t, v.failure(), "1 drifted")

	v = overdueOf(t, l, day("2026-02-01"), overdueFlags{}, append(inForce, currentKey("k", testCluster, "orders"))...)
	age = statusOf(t, v, testCluster)
	assert.Equal(t, keyNever, age.Status)
	assert.Equal(t, "orders", age.ClusterName)
	assert.ErrorContains(t, v.failure(), "1 never")
}

// The oldest key counts: a rotation that reached only some targets leaves the age of
// the others as it was.
func TestTheOldestKeyOfAClusterCounts(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	l.append(t, "r1", rotatedResult(usersCluster, "users", day("2026-01-01"), "1"), nil, nil)
	partial := rotatedResult(usersCluster, "users", day("2026-03-01"), "2")
	partial.Outcome = workflows.OutcomePartial
	partial.Targets[1].Status, partial.Targets[1].NewKeyUUID, partial.Targets[1].VerifiedAt = workflows.StatusFailed, "", nil
	l.append(t, "r2", partial, &ledgerentry.RotationError{Type: "PartialFailure", Message: "x"}, nil)
	age := statusOf(t, overdueOf(t, l, day("2026-04-11"), overdueFlags{}, currentKey("users-0-2", usersCluster, "users"), currentKey("users-1-1", usersCluster, "users")), usersCluster)
	assert.Equal(t, keyOverdue, age.Status)
	assert.Equal(t, "users-1", age.Target)
	assert.Equal(t, "users-1-1", age.KeyUUID)

	// One that is gone does not count any more, one that is new was never rotated.
	last := rotatedResult(usersCluster, "users", day("2026-04-10"), "3")
	last.Targets = last.Targets[:1]
	l.append(t, "r3", last, nil, nil)
	age = statusOf(t, overdueOf(t, l, day("2026-04-11"), overdueFlags{}, currentKey("users-0-3", usersCluster, "users")), usersCluster)
	assert.Equal(t, keyOK, age.Status, age.Reason)
	last.Targets = append(last.Targets, target("09", "users-9", workflows.StatusSkipped))
	l.append(t, "r4", last, nil, func(r *ledgerentry.Record) { r.FinishedAt = r.FinishedAt.Add(time.Minute) })
	age = statusOf(t, overdueOf(t, l, day("2026-04-11"), overdueFlags{}, currentKey("users-0-3", usersCluster, "users")), usersCluster)
	assert.Equal(t, keyNever, age.Status)
	assert.Contains(t, age.Reason, "users-9")
}

// A target that was rotated and not read back has no recorded key.
func TestAnUnverifiedKeyIsNoRotation(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	l.append(t, "r1", partialResult(), &ledgerentry.RotationError{Type: "PartialFailure", Message: "x"}, nil)
	age := statusOf(t, overdueOf(t, l, began, overdueFlags{}, currentKey("new-00", testCluster, "orders")), testCluster)
	assert.Equal(t, keyDrifted, age.Status, "of the verified ones, three have another key")
	recorded, err := readRecordedKeys(t.Context(), l.Ledger, ledger.Filter{})
	require.NoError(t, err)
	ages := recorded.agesAt(began, policy.Std())
	require.Len(t, ages, 1)
	assert.Equal(t, keyNever, ages[0].Status)
	assert.Contains(t, ages[0].Reason, "=cmd", "the skipped one")
	assert.Contains(t, ages[0].Reason, "<b>", "the one that failed after its PUT")
}

// A process's key is known only from snapshots that were taken after its rotation.
func TestDriftOfADeployment(t *testing.T) {
	l := filledLedger(t, ledger.Options{})
	before, after := day("2026-05-09"), day("2026-05-11")
	for name, c := range map[string]struct {
		keys    []workflows.KeyRecord
		status  keyStatus
		checked int
		reason  string
	}{
		"no snapshot":                  {nil, keyOK, 0, ""},
		"an earlier snapshot":          {[]workflows.KeyRecord{ofHost(currentKey("old0", testCluster, "orders"), "h0:1", before)}, keyOK, 0, ""},
		"the recorded key":             {[]workflows.KeyRecord{ofHost(currentKey("new0", testCluster, "orders"), "h0:1", after)}, keyOK, 1, ""},
		"another key":                  {[]workflows.KeyRecord{ofHost(currentKey("x", testCluster, "orders"), "h0:1", after)}, keyDrifted, 1, "has key x, not new0"},
		"a key of an unproven process": {[]workflows.KeyRecord{ofHost(currentKey("x", testCluster, "orders"), "h1:1", after)}, keyOK, 0, ""},
		"the newest snapshot's counts": {[]workflows.KeyRecord{ofHost(currentKey("x", testCluster, "orders"), "h0:1", after), ofHost(currentKey("new0", testCluster, "orders"), "h0:1", after.Add(time.Hour))}, keyOK, 1, ""},
		"a key of another cluster":     {[]workflows.KeyRecord{ofHost(currentKey("x", usersCluster, "users"), "h0:1", after)}, keyOK, 0, ""},
		"a key that is no longer used": {[]workflows.KeyRecord{noLongerUsed(ofHost(currentKey("x", testCluster, "orders"), "h0:1", after))}, keyOK, 0, ""},
	} {
		age := statusOf(t, overdueOf(t, l, day("2026-06-01"), overdueFlags{}, c.keys...), testCluster)
		assert.Equal(t, c.status, age.Status, "%s: %s", name, age.Reason)
		assert.Equal(t, c.checked, age.Checked, name)
		assert.Contains(t, age.Reason, c.reason, name)
		assert.Equal(t, ledgerentry.KindDeployment, age.Kind, "the kind that was rotated last")
	}
}

func noLongerUsed(record workflows.KeyRecord) workflows.KeyRecord {
	record.Verdict = workflows.VerdictNeeded
	return record
}

func TestAnUnprovenProcessThatStillHasItsOldKeyHasDrifted(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	ended := day("2026-05-10")
	l.append(t, "r1", workflows.RotateDeploymentResult{
		Connection: "default", ProjectID: testProject, Proof: workflows.ProofSnapshot, Outcome: workflows.OutcomeRotatedUnproven, StartedAt: ended, FinishedAt: &ended,
		Targets: []workflows.ProcessRecord{processRotated("p0", "h0:1", "old0", "", ended)},
	}, nil, nil)
	key := currentKey("old0", testCluster, "orders")
	age := statusOf(t, overdueOf(t, l, ended, overdueFlags{}, ofHost(key, "h0:1", ended.Add(time.Hour))), testCluster)
	assert.Equal(t, keyDrifted, age.Status)
	assert.Contains(t, age.Reason, "still has key old0")
	age = statusOf(t, overdueOf(t, l, ended, overdueFlags{}, ofHost(key, "h0:1", ended.Add(-time.Hour))), testCluster)
	assert.Equal(t, keyOK, age.Status)
}

func TestAnIncompleteListIsNotOK(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	l.append(t, "r1", rotatedResult(usersCluster, "users", day("2026-01-01"), "1"), nil, nil)
	recorded, err := readRecordedKeys(t.Context(), l.Ledger, ledger.Filter{})
	require.NoError(t, err)
	list := &keyView{Connection: "default", Reasons: []workflows.IncompleteReason{{ProjectID: testProject, Message: "down"}}}
	f := &overdueFlags{olderThan: policy}
	f.connection = "default"
	v := newOverdueView(recorded, list, f, day("2026-01-02"))
	assert.Equal(t, keyOK, statusOf(t, v, usersCluster).Status, "a cluster whose keys cannot be read stays")
	assert.ErrorContains(t, v.failure(), "could not all be read")
	assert.Contains(t, v.table(layout{}), "down")
	assert.Contains(t, v.markdown(), "down")
	list.Complete = true
	v = newOverdueView(recorded, list, f, day("2026-01-02"))
	assert.Empty(t, v.Clusters, "a cluster that has no key any more is left out")
	assert.Contains(t, v.table(layout{}), "1 cluster, recorded and without a key in force now: users")
	assert.NoError(t, v.failure())
}

// What is gone from Ops Manager is not overdue for ever, whatever its kind. What Ops
// Manager still has stays, with keys or without.
func TestADeletedClusterIsNotOverdueForEver(t *testing.T) {
	l := filledLedger(t, ledger.Options{})
	recorded, err := readRecordedKeys(t.Context(), l.Ledger, ledger.Filter{})
	require.NoError(t, err)
	f := &overdueFlags{olderThan: policy}
	f.connection = "default"
	orders, users := projectCluster{testProject, testCluster}, projectCluster{testProject, usersCluster}
	shared := currentKey("shared", "5196e5b0e4b0fca9cc8833ff", "another")
	shared.NamesLeftOut = true // it may be any cluster's
	for name, c := range map[string]struct {
		list     keyView
		overdue  int
		leftOut  []string
		contains string
	}{
		"both are gone":         {keyView{Complete: true, clusters: map[projectCluster]bool{}}, 0, []string{leftOutGone, leftOutGone}, "2 clusters, recorded and gone from Ops Manager: "},
		"a deployment is gone":  {keyView{Complete: true, clusters: map[projectCluster]bool{users: true}}, 0, []string{leftOutNoKey, leftOutGone}, "1 cluster, recorded and gone from Ops Manager: orders"},
		"a deployment is there": {keyView{Complete: true, clusters: map[projectCluster]bool{orders: true}}, 1, []string{leftOutGone}, "1 cluster, recorded and gone from Ops Manager: users"},
		"a key of many":         {keyView{Complete: true, clusters: map[projectCluster]bool{}, Keys: []workflows.KeyRecord{shared}}, 1, []string{leftOutGone, leftOutGone}, "gone from Ops Manager"},
		"an incomplete list":    {keyView{clusters: map[projectCluster]bool{}}, 2, nil, ""},
		"an earlier worker":     {keyView{Complete: true}, 1, []string{leftOutNoKey}, "1 cluster, recorded and without a key in force now: users"},
	} {
		c.list.Connection = "default"
		v := newOverdueView(recorded, &c.list, f, day("2027-01-01"))
		assert.Len(t, v.Clusters, c.overdue, name)
		var reasons []string
		for _, age := range v.LeftOut {
			reasons = append(reasons, age.Reason)
		}
		assert.ElementsMatch(t, c.leftOut, reasons, name)
		assert.Contains(t, v.table(layout{}), c.contains, name)
		assert.Contains(t, v.markdown(), c.contains, name)
	}
}

func TestClustersOfPagesOfAnEarlierVersionAreNotKnown(t *testing.T) {
	page := workflows.KeyPage{ProjectID: testProject, Clusters: 1, ClusterIDs: []string{testCluster}}
	assert.Equal(t, map[projectCluster]bool{{testProject, testCluster}: true}, clustersOfPages([]workflows.KeyPage{page}))
	assert.Nil(t, clustersOfPages([]workflows.KeyPage{page, {ProjectID: testProject, Clusters: 1}}))
	assert.NotNil(t, clustersOfPages(nil))
}

func TestOverdueShowsWhatIsAskedFor(t *testing.T) {
	l := newTestLedger(t, ledger.Options{})
	l.append(t, "r1", rotatedResult(usersCluster, "users", day("2026-01-01"), "1"), nil, nil)
	keys := []workflows.KeyRecord{currentKey("users-0-1", usersCluster, "users"), currentKey("users-1-1", usersCluster, "users"), currentKey("k", testCluster, "orders")}
	f := overdueFlags{}
	f.clusters = []string{"users"}
	v := overdueOf(t, l, day("2026-01-02"), f, keys...)
	assert.Len(t, v.Clusters, 1)
	assert.NoError(t, v.failure())
	f.clusters = []string{"user"}
	assert.ErrorContains(t, overdueOf(t, l, day("2026-01-02"), f, keys...).failure(), "could not all be read")
	f.clusters, f.exclude = nil, []string{testProject}
	assert.Empty(t, overdueOf(t, l, day("2026-01-02"), f).Clusters)

	v = overdueOf(t, l, day("2026-01-02"), overdueFlags{}, keys...)
	assert.Contains(t, v.csv(), "never,default,"+testProject)
	assert.Contains(t, v.markdown(), "| never | orders |")
	text, err := json.Marshal(v)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"olderThan":"2160h0m0s"`)
}
