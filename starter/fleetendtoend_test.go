package main

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// onFleet runs a command for the fleet of the fixture's connection.
func (s *commandLine) onFleet(command string, args ...string) answer {
	return s.run(slices.Concat(strings.Fields(command), []string{"--connection", s.Connection, "--fleet"}, args)...)
}

// fleet rotates the fleet.
func (s *commandLine) fleet(args ...string) answer {
	return s.run(append([]string{"rotate", "--fleet", "--connection", s.Connection, "--requested-by", "dana"}, args...)...)
}

func (s *commandLine) fleetID() string { return workflows.RotateFleetID(s.Connection) }

// rowsOf reads CSV, without its header, by its columns' names.
func rowsOf(t *testing.T, got answer) (rows []map[string]string) {
	t.Helper()
	all, err := csv.NewReader(strings.NewReader(got.stdout)).ReadAll()
	require.NoError(t, err)
	require.NotEqual(t, 0, len(all))
	for _, values := range all[1:] {
		row := map[string]string{}
		for i, value := range values {
			row[all[0][i]] = value
		}
		rows = append(rows, row)
	}
	return rows
}

// reportedCluster is a cluster in the JSON of a fleet's report.
type reportedCluster struct {
	WorkflowID, RunID, Status, Failure string
	Records                            *workflows.RotateClusterResult
}

// failedSet adds a replica set whose PUTs fail for good until clearFaults.
func (s *commandLine) failedSet(name string) simulator.Cluster {
	set := s.OM.AddReplicaSet(testProject, name)
	s.failPut(set.ID)
	return set
}

func TestAFleetIsPlannedRotatedAndReported(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 2)
	audit := s.OM.AddReplicaSet(testProject, "audit")
	plain := s.OM.AddReplicaSet(testProject, "plain")
	s.OM.Inject(simulator.KeyNull(plain.ID).Always())
	s.OM.AddReplicaSet(testProject, "left-out")
	s.StartWorker()
	names := []string{"--cluster-names", "^(orders|audit|plain)$"}

	s.expect(s.onFleet("plan", names...), exitDone, "Outcome       planned", "2 of 3 clusters planned, 1 not encrypted",
		"keyturn report --fleet --connection "+s.Connection+" --plan --each-cluster -o csv")
	s.expect(s.onFleet("report"), exitFailed, "they are plans, which changed nothing; to see the last one, give --plan")
	s.expect(s.onFleet("report", "--plan"), exitDone, "Outcome       planned")
	require.Equal(t, 0, s.applied())
	before := s.OM.Key(audit.ID)
	rotated := s.fleet(append(names, "--wait", "--ticket", "CHG7", "--reason", "quarterly", "--projects", testProject, "--clusters-at-a-time", "2")...)
	s.expect(rotated, exitDone, "fleet "+s.Connection+" is rotating: 0 of 3 clusters rotated", "fleet "+s.Connection+" has ended (rotated): 2 of 3 clusters rotated, 1 not encrypted", "Outcome       rotated")
	assert.Equal(t, 4, s.applied())

	s.expect(s.onFleet("watch"), exitDone, "Clusters      2 of 3 clusters rotated, 1 not encrypted", "Targets       4 verified")
	s.expect(s.onFleet("report"), exitDone, "Requested by  dana", "Ticket        CHG7", "Reason        quarterly", "Finished")
	s.expect(s.onFleet("report", "-o", "markdown"), exitDone, "# Key rotation of the fleet "+s.Connection, "- **Ticket:** CHG7")
	result := decoded[workflows.RotateFleetResult](t, s.onFleet("report", "-o", "json"))
	assert.Equal(t, (workflows.FleetCounts{Clusters: 3, Rotated: 2, NotEncrypted: 1}), result.Counts, "result %+v", result)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome, "result %+v", result)
	rows := rowsOf(t, s.onFleet("report", "-o", "csv"))
	require.Len(t, rows, 1, "rows %v", rows)
	assert.Equal(t, "2", rows[0]["rotated"], "rows %v", rows)
	assert.Equal(t, "CHG7", rows[0]["ticket"], "rows %v", rows)
	assert.Empty(t, rows[0]["workflowId"], "rows %v", rows)
	s.expectEveryCluster(plain.ID, audit.ID, before)
	// The plan has a report of its own, though the rotation has the same ids.
	var planned answer
	eventually(t, "the plan in Temporal's list", func() bool {
		planned = s.onFleet("report", "--plan", "--each-cluster", "-o", "csv")
		require.NotContains(t, planned.stdout, ",rotated,", "it is the report of the rotation")
		return strings.Contains(planned.stderr, "a rotation has started after this plan")
	})
	require.NotEmpty(t, rowsOf(t, planned))
	for _, row := range rowsOf(t, planned) {
		assert.False(t, row["outcome"] != string(workflows.OutcomePlanned) && row["failure"] == "", "row %v", row)
		assert.Empty(t, row["ticket"], "row %v", row)
	}
	s.expect(s.onFleet("pause"), exitFailed, s.fleetID()+" has ended", "keyturn report --fleet --connection "+s.Connection)
}

// expectEveryCluster checks the report of all clusters, in which those of the
// plan before have no place.
func (s *commandLine) expectEveryCluster(plain, audit, auditBefore string) {
	s.T.Helper()
	rows := rowsOf(s.T, s.onFleet("report", "--each-cluster", "-o", "csv"))
	byTarget := map[string]map[string]string{}
	for _, row := range rows {
		byTarget[row["clusterId"]] = row
	}
	require.Len(s.T, rows, 5)
	require.Len(s.T, byTarget, 5)
	row := byTarget[audit]
	assert.Equal(s.T, auditBefore, row["previousKeyUUID"], "row %v", row)
	assert.Equal(s.T, s.OM.Key(audit), row["newKeyUUID"], "row %v", row)
	assert.Equal(s.T, "Completed", row["workflowStatus"], "row %v", row)
	assert.Equal(s.T, "CHG7", row["ticket"], "row %v", row)
	assert.Equal(s.T, s.id(), byTarget[s.cluster.ConfigID]["workflowId"], "row %v", byTarget[s.cluster.ConfigID])
	assert.Equal(s.T, s.OM.Key(s.cluster.ConfigID), byTarget[s.cluster.ConfigID]["newKeyUUID"], "row %v", byTarget[s.cluster.ConfigID])
	clusters := decoded[[]reportedCluster](s.T, s.onFleet("report", "--each-cluster", "-o", "json"))
	i := slices.IndexFunc(clusters, func(c reportedCluster) bool { return strings.HasSuffix(c.WorkflowID, plain) })
	require.Len(s.T, clusters, 3, "clusters %+v", clusters)
	assert.False(s.T, i < 0, "clusters %+v", clusters)
	assert.True(s.T, strings.HasPrefix(clusters[i].Failure, "EncryptionOff: "), "clusters %+v", clusters)
}

func TestStartingAFleetSaysWhereToLook(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.expect(s.onFleet("watch"), exitFailed, "workflow "+s.fleetID()+" does not exist", "this fleet was never rotated under this ID")
	started := decoded[map[string]string](t, s.fleet("-o", "json", "--ticket", "CHG7"))
	assert.Equal(t, s.fleetID(), started["workflowId"])
	assert.NotEmpty(t, started["runId"])
	s.expect(s.fleet(), exitFailed, "a rotation of this connection's fleet is already running: workflow ID "+s.fleetID(), started["runId"], "keyturn watch --fleet --connection "+s.Connection)
	described, err := s.Temporal.DescribeWorkflow(t.Context(), s.fleetID(), "")
	require.NoError(t, err)
	summary, err := described.GetStaticSummary()
	require.NoError(t, err, "static summary %q, %v", summary, err)
	assert.Equal(t, "Rotate the KMIP master keys of a fleet (CHG7)", summary, "static summary %q, %v", summary, err)
	eventually(t, "the fleet among those that the shell offers", func() bool {
		return strings.Contains(s.run("__complete", "watch", "--fleet", "--workflow-id", "").stdout, s.fleetID()+"\n")
	})
	s.expect(s.run("watch", "--fleet", "--workflow-id", "nowhere"), exitFailed, "workflow nowhere does not exist")
	s.expect(s.keyturn("rotate"), exitDone)
	s.expect(s.run("watch", "--fleet", "--workflow-id", s.id()), exitFailed, "has type RotateCluster, want RotateFleet")
}

func TestAFailedFleetShowsItsFailures(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	failing := s.failedSet("audit")
	s.OM.AddReplicaSet(testProject, "busy")
	s.StartWorker()

	failed := s.fleet("--wait", "--clusters-at-a-time", "1", "--cluster-names", "audit|busy")
	s.expect(failed, exitFailed, "keyturn: PartialFailure: 0 of 2 clusters rotated, 1 failed, 1 not started; failed: audit (PartialFailure)",
		"audit failed: PartialFailure: ", " --continue --wait", "Failed\n  audit: PartialFailure: ", workflows.RotateClusterID(s.Connection, testProject, failing.ID))
	s.expect(s.onFleet("watch"), exitFailed, "PartialFailure")
	s.expect(s.onFleet("report"), exitDone, "Failure       PartialFailure: 0 of 2 clusters rotated", "not started")
	s.expect(s.onFleet("report", "-o", "markdown"), exitDone, "## Failed", "| audit |")
	rows := rowsOf(t, s.onFleet("report", "-o", "csv"))
	require.Len(t, rows, 2, "rows %v", rows)
	assert.Equal(t, "notStarted", rows[1]["leftOut"], "rows %v", rows)
	assert.Equal(t, "PartialFailure", rows[0]["errorType"], "rows %v", rows)
	assert.Equal(t, failing.ID, rows[0]["clusterId"], "rows %v", rows)
	assert.Equal(t, "1", rows[0]["notStarted"], "rows %v", rows)
	assert.NotEmpty(t, rows[0]["runId"], "rows %v", rows)
	rows = rowsOf(t, s.onFleet("report", "--each-cluster", "-o", "csv"))
	require.Len(t, rows, 1, "rows %v", rows)
	assert.Equal(t, string(workflows.StatusFailed), rows[0]["status"], "rows %v", rows)
	assert.True(t, strings.HasPrefix(rows[0]["failure"], "PartialFailure: "), "rows %v", rows)
	assert.Equal(t, string(workflows.OutcomePartial), rows[0]["outcome"], "rows %v", rows)
}

func TestAFleetCountsBusyClusters(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.OM.AddReplicaSet(testProject, "audit")
	s.StartWorker()
	s.expect(s.keyturn("rotate", "--wait", "--require-approval", "--requested-by", "dana"), exitWaiting)
	s.expect(s.fleet("--wait"), exitDone, "1 of 2 clusters rotated, 1 busy")
	require.Len(t, rowsOf(t, s.onFleet("report", "--each-cluster", "-o", "csv")), 1)
	assert.Equal(t, "audit", rowsOf(t, s.onFleet("report", "--each-cluster", "-o", "csv"))[0]["cluster"])
}

func TestAFleetIsPausedResumedAndAborted(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	held := s.failedSet("audit")
	s.StartWorker()
	s.expect(s.fleet("--on-failure", "hold", "--cluster-names", "audit"), exitDone, "keyturn watch --fleet --connection "+s.Connection)
	eventually(t, "the cluster's hold", func() bool {
		return s.run("watch", "--connection", s.Connection, "--project", testProject, "--cluster", held.ID).code == exitWaiting
	})

	s.expect(s.onFleet("resume", "--by", "erin"), exitFailed, "resume refused: the fleet rotation is not paused")
	paused := s.onFleet("pause", "--by", "erin", "--reason", "peak hour")
	s.expect(paused, exitDone, "pause: accepted", "fleet "+s.Connection+" is paused: 0 of 1 clusters rotated", "paused by erin (peak hour)")
	s.expect(s.onFleet("watch"), exitWaiting, "keyturn resume --fleet")
	var watched answer
	var watching sync.WaitGroup
	isPaused := make(chan struct{})
	watching.Go(func() {
		watched = s.runUntil(t.Context(), "is paused: ", func() { close(isPaused) }, "watch", "--fleet", "--connection", s.Connection, "--until-held=false")
	})
	<-isPaused
	progress := decoded[workflows.RotateFleetResult](t, s.onFleet("report", "-o", "json"))
	assert.Empty(t, progress.Outcome, "the report of a running fleet is %+v", progress)
	assert.Equal(t, 1, progress.Counts.Clusters, "the report of a running fleet is %+v", progress)
	s.expect(s.onFleet("report"), exitDone, "none yet: paused", "In progress", "│ "+held.ID+" ")
	clusters := decoded[[]reportedCluster](t, s.onFleet("report", "--each-cluster", "-o", "json"))
	require.Len(t, clusters, 1, "clusters %+v", clusters)
	assert.Equal(t, "Running", clusters[0].Status, "clusters %+v", clusters)
	assert.Equal(t, workflows.StatusFailed, clusters[0].Records.Targets[0].Status, "clusters %+v", clusters)
	s.expect(s.onFleet("resume", "--by", "erin"), exitDone, "resume: accepted", " is rotating")
	aborted := decoded[workflows.FleetProgress](t, s.onFleet("abort", "--by", "erin", "--reason", "enough", "-o", "json"))
	assert.Equal(t, s.Connection, aborted.Connection, "progress %+v", aborted)
	watching.Wait()
	s.expect(s.onFleet("report"), exitDone, "Actions\n", " pause by erin: peak hour\n", " resume by erin\n", " abort by erin: enough\n")
	s.expect(watched, exitFailed, "is paused: ", "keyturn: Aborted: aborted by erin: enough", "audit failed: Aborted")
}

// After a fleet is terminated, its clusters continue, and the report shows them.
func TestATerminatedFleetShowsItsClusters(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	held := s.failedSet("audit")
	s.StartWorker()
	s.expect(s.fleet("--on-failure", "hold", "--cluster-names", "audit"), exitDone)
	eventually(t, "the cluster in progress", func() bool { return strings.Contains(s.onFleet("report").stdout, "In progress") })
	require.NoError(t, s.Temporal.TerminateWorkflow(t.Context(), s.fleetID(), "", "test"))
	id := workflows.RotateClusterID(s.Connection, testProject, held.ID)
	s.expect(s.onFleet("watch"), exitFailed, "keyturn: Terminated: ", "In progress", "│ "+held.ID+" ")
	clusters := decoded[[]reportedCluster](t, s.onFleet("report", "--each-cluster", "-o", "json"))
	require.Len(t, clusters, 1, "clusters %+v", clusters)
	assert.Equal(t, id, clusters[0].WorkflowID, "clusters %+v", clusters)
	assert.Equal(t, "Running", clusters[0].Status, "clusters %+v", clusters)
}

// A fleet that continues as new has several runs, and one of its clusters, too:
// each cluster is reported once, with all of its targets.
func TestTheReportOfAFleetThatContinuesAsNew(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "40"}})
	s := newFixtureAt(t, server, 15)
	const sets = 12
	for i := range sets {
		s.OM.AddReplicaSet(testProject, fmt.Sprintf("set-%02d", i))
	}
	started := decoded[map[string]string](t, s.fleet("-o", "json", "--clusters-at-a-time", "3", "--concurrency", "2"))
	s.StartWorker()
	s.expect(s.onFleet("watch"), exitDone, "13 of 13 clusters rotated")
	described, err := s.Temporal.DescribeWorkflowExecution(t.Context(), s.fleetID(), "")
	require.NoError(t, err, "the fleet did not continue as new: %v, %v", described, err)
	require.NotEqual(t, started["runId"], described.GetWorkflowExecutionInfo().GetExecution().GetRunId(), "the fleet did not continue as new: %v, %v", described, err)
	var rows []map[string]string
	eventually(t, "the last ones in the list of workflows", func() bool {
		got := s.onFleet("report", "--each-cluster", "-o", "csv", "--run-id", started["runId"])
		rows = rowsOf(t, got)
		return got.code == exitDone
	})
	targets := map[string]bool{}
	for _, row := range rows {
		targets[row["clusterId"]] = row["status"] == string(workflows.StatusVerified) && row["newKeyUUID"] == s.OM.Key(row["clusterId"])
	}
	require.Len(t, rows, sets+16)
	require.Len(t, targets, sets+16)
	for id, isProven := range targets {
		assert.True(t, isProven, "target %s is not proven", id)
	}
}

// applyFleet applies the quarterly schedule of a fleet.
func (s *commandLine) applyFleet(more ...string) answer {
	s.T.Helper()
	s.deleteLater(s.fleetID())
	return s.onFleet("schedule apply", slices.Concat(quarterly, more)...)
}

func TestAScheduleOfAFleet(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.OM.AddReplicaSet(testProject, "audit")
	s.OM.AddReplicaSet(testProject, "metrics")
	s.StartWorker()
	flags := []string{"--ticket", "CHG7", "--clusters-at-a-time", "2", "--cluster-names", "orders|audit|metrics"}
	s.expect(s.applyFleet(append(flags, "--diff")...), exitDone, "would create schedule "+s.fleetID())
	s.expect(s.applyFleet(flags...), exitDone, "created schedule "+s.fleetID(), "RotateFleet", "scheduled-"+s.fleetID(), "Rotate the KMIP master keys of a fleet (CHG7)", "clustersAtATime: 2", "overlap: skip")
	s.expect(s.applyFleet(flags...), exitDone, "unchanged: schedule "+s.fleetID())
	s.expect(s.applyFleet(append(flags, "--max-failed-clusters", "3", "--on-failure", "continue")...), exitDone, "updated schedule", "+         onFailure: continue", "+     maxFailedClusters: 3")

	s.expect(s.keyturn("rotate", "--wait", "--require-approval", "--requested-by", "dana"), exitWaiting)
	triggered := s.onFleet("schedule trigger")
	s.expect(triggered, exitDone, "workflow ID  scheduled-"+s.fleetID()+"-", "keyturn watch --fleet --workflow-id scheduled-"+s.fleetID()+"-")
	record := s.listed(s.fleetID(), "the run's end in the list", hasEnded)
	assert.Equal(t, string(workflows.OutcomeRotated), record.LastRun.Status, "last run %+v", record.LastRun)
	assert.Equal(t, "2 of 3 clusters rotated, 1 busy", record.LastRun.Outcome, "last run %+v", record.LastRun)
	named := []string{"--fleet", "--workflow-id", record.LastRun.WorkflowID}
	s.expect(s.run(append([]string{"watch"}, named...)...), exitDone, "2 of 3 clusters rotated, 1 busy", "Requested by  dana")
	require.Len(t, rowsOf(t, s.run(append([]string{"report", "--each-cluster", "-o", "csv"}, named...)...)), 2)
	s.expect(s.onFleet("schedule show"), exitDone, `Rotates       a fleet: clusters matching "orders|audit|metrics", connection `+s.Connection, "2 of 3 clusters rotated, 1 busy")
	s.expect(s.onFleet("schedule pause", "--by", "erin", "--reason", "freeze"), exitDone, "paused schedule "+s.fleetID())
	s.expect(s.onFleet("schedule unpause", "--by", "erin"), exitDone, "unpaused schedule "+s.fleetID())
	s.expect(s.onFleet("schedule delete"), exitDone, "deleted schedule "+s.fleetID(), "it rotated a fleet")
}

func TestARunningFleetOfAScheduleOfTheWebUI(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.failPut(s.cluster.ConfigID)
	s.StartWorker()
	id := "Fleet " + s.Connection
	s.deleteLater(id)
	s.create(id, workflows.RotateFleetType, map[string]any{"connection": s.Connection, "projectIds": []string{testProject}, "rotation": map[string]any{"onFailure": "hold"}})
	s.expect(s.run("schedule", "trigger", "--id", id), exitDone, "keyturn watch --fleet --workflow-id ")
	record := s.listed(id, "the fleet at work", func(r scheduleRecord) bool {
		return r.LastRun != nil && strings.Contains(r.LastRun.Outcome, "fleet "+s.Connection+" is rotating: 0 of 1 clusters rotated; waiting for 1 cluster in progress")
	})
	s.expect(s.run("schedule", "trigger", "--id", id), exitFailed, "a run of schedule "+id+" is already running", record.LastRun.WorkflowID)
	s.expect(s.run("abort", "--fleet", "--workflow-id", record.LastRun.WorkflowID, "--by", "erin", "--reason", "enough"), exitDone, "abort: accepted")
	s.shown(id, "the run's end", func(r scheduleRecord) bool {
		return hasEnded(r) && strings.HasPrefix(r.LastRun.Outcome, "Aborted: aborted by erin: enough")
	})
}
