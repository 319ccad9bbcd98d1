package main

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

// onFleet runs a command for the fleet of the stage's connection.
func (s *stage) onFleet(command string, args ...string) answer {
	return s.run(slices.Concat(strings.Fields(command), []string{"--connection", s.connection, "--fleet"}, args)...)
}

// fleet runs the command fleet.
func (s *stage) fleet(args ...string) answer {
	return s.run(append([]string{"fleet", "--connection", s.connection, "--requested-by", "dana"}, args...)...)
}

func (s *stage) fleetID() string { return workflows.RotateFleetID(s.connection) }

// rowsOf reads CSV, without its header, by its columns' names.
func rowsOf(t *testing.T, got answer) (rows []map[string]string) {
	t.Helper()
	all, err := csv.NewReader(strings.NewReader(got.stdout)).ReadAll()
	if err != nil || len(all) == 0 {
		t.Fatalf("%v in\n%s\nstandard error:\n%s", err, got.stdout, got.stderr)
	}
	for _, values := range all[1:] {
		row := map[string]string{}
		for i, value := range values {
			row[all[0][i]] = value
		}
		rows = append(rows, row)
	}
	return rows
}

// failedSet adds a replica set whose PUTs fail for good until clearFaults.
func (s *stage) failedSet(name string) simulator.Cluster {
	set := s.om.AddReplicaSet(testProject, name)
	s.failPut(set.ID)
	return set
}

func TestAFleetIsPlannedRotatedAndReported(t *testing.T) {
	t.Parallel()
	s := newStage(t, 2)
	audit := s.om.AddReplicaSet(testProject, "audit")
	plain := s.om.AddReplicaSet(testProject, "plain")
	s.om.Inject(simulator.KeyNull(plain.ID).Always())
	s.om.AddReplicaSet(testProject, "left-out")
	s.startWorker()
	names := []string{"--cluster-names", "^(orders|audit|plain)$"}

	s.expect(s.fleet(append(names, "--dry-run", "--wait")...), exitDone, "Outcome       planned", "0 of 3 clusters rotated, 2 planned, 1 not encrypted")
	plan, err := s.client.DescribeWorkflowExecution(t.Context(), s.fleetID(), "")
	if err != nil {
		t.Fatal(err)
	}
	if s.applied() != 0 {
		t.Fatalf("a plan has rotated %d times", s.applied())
	}
	before := s.om.Key(audit.ID)
	rotated := s.fleet(append(names, "--wait", "--ticket", "CHG7", "--reason", "quarterly", "--projects", testProject, "--clusters-at-a-time", "2")...)
	s.expect(rotated, exitDone, "fleet "+s.connection+" is rotating: 0 of 3 clusters rotated", "fleet "+s.connection+" is done: 2 of 3 clusters rotated, 1 not encrypted", "Outcome       rotated")
	if s.applied() != 4 {
		t.Errorf("%d rotations, want 4", s.applied())
	}

	s.expect(s.onFleet("watch"), exitDone, "Clusters      2 of 3 clusters rotated, 1 not encrypted", "Targets       4 verified")
	s.expect(s.onFleet("report"), exitDone, "Requested by  dana", "Ticket        CHG7", "Reason        quarterly", "Finished")
	s.expect(s.onFleet("report", "-o", "markdown"), exitDone, "# Key rotation of the fleet "+s.connection, "- **Ticket:** CHG7")
	result := decoded[workflows.RotateFleetResult](t, s.onFleet("report", "-o", "json"))
	if want := (workflows.FleetCounts{Clusters: 3, Rotated: 2, NotEncrypted: 1}); result.Counts != want || result.Outcome != workflows.OutcomeRotated {
		t.Errorf("result %+v", result)
	}
	rows := rowsOf(t, s.onFleet("report", "-o", "csv"))
	if len(rows) != 1 || rows[0]["rotated"] != "2" || rows[0]["ticket"] != "CHG7" || rows[0]["workflowId"] != "" {
		t.Errorf("rows %v", rows)
	}
	s.expectEveryCluster(plain.ID, audit.ID, before)
	// The plan has a report of its own, though the rotation has the same ids.
	for _, row := range rowsOf(t, s.onFleet("report", "--clusters", "-o", "csv", "--run-id", plan.GetWorkflowExecutionInfo().GetExecution().GetRunId())) {
		if row["outcome"] != workflows.OutcomePlanned && row["failure"] == "" || row["ticket"] != "" {
			t.Errorf("row %v", row)
		}
	}
	s.expect(s.onFleet("pause"), exitFailed, "the rotation is over", s.fleetID(), "starter report --fleet --connection "+s.connection)
}

// expectEveryCluster checks the report of all clusters, in which those of the
// plan before have no place.
func (s *stage) expectEveryCluster(plain, audit, auditBefore string) {
	s.t.Helper()
	rows := rowsOf(s.t, s.onFleet("report", "--clusters", "-o", "csv"))
	byTarget := map[string]map[string]string{}
	for _, row := range rows {
		byTarget[row["clusterId"]] = row
	}
	if len(rows) != 5 || len(byTarget) != 5 {
		s.t.Fatalf("%d rows, want one for each of 5 targets: %v", len(rows), rows)
	}
	row := byTarget[audit]
	if row["previousKeyUUID"] != auditBefore || row["newKeyUUID"] != s.om.Key(audit) || row["workflowStatus"] != "Completed" || row["ticket"] != "CHG7" {
		s.t.Errorf("row %v", row)
	}
	if byTarget[s.cluster.ConfigID]["workflowId"] != s.id() || byTarget[s.cluster.ConfigID]["newKeyUUID"] != s.om.Key(s.cluster.ConfigID) {
		s.t.Errorf("row %v", byTarget[s.cluster.ConfigID])
	}
	clusters := decoded[[]fleetCluster](s.t, s.onFleet("report", "--clusters", "-o", "json"))
	i := slices.IndexFunc(clusters, func(c fleetCluster) bool { return strings.HasSuffix(c.WorkflowID, plain) })
	if len(clusters) != 3 || i < 0 || !strings.HasPrefix(clusters[i].Failure, "EncryptionOff: ") {
		s.t.Errorf("clusters %+v", clusters)
	}
}

func TestStartingAFleetTellsWhereToLook(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1)
	s.expect(s.onFleet("watch"), exitFailed, "there is no workflow "+s.fleetID(), "no rotation of this fleet was started under this id")
	started := decoded[map[string]string](t, s.fleet("-o", "json", "--ticket", "CHG7"))
	if started["workflowId"] != s.fleetID() || started["runId"] == "" {
		t.Errorf("got %v", started)
	}
	s.expect(s.fleet(), exitFailed, "a rotation of this connection's fleet is running already: workflow id "+s.fleetID(), started["runId"], "starter watch --fleet --connection "+s.connection)
	described, err := s.client.DescribeWorkflow(t.Context(), s.fleetID(), "")
	if err != nil {
		t.Fatal(err)
	}
	if summary, err := described.GetStaticSummary(); err != nil || summary != "Rotate the KMIP master keys of a fleet (CHG7)" {
		t.Errorf("static summary %q, %v", summary, err)
	}
	eventually(t, "the fleet among those that the shell offers", func() bool {
		return strings.Contains(s.run("__complete", "watch", "--fleet", "--workflow-id", "").stdout, s.fleetID()+"\n")
	})
	s.expect(s.run("watch", "--fleet", "--workflow-id", "nowhere"), exitFailed, "there is no workflow nowhere")
	s.expect(s.starter("rotate"), exitDone)
	s.expect(s.run("watch", "--fleet", "--workflow-id", s.id()), exitFailed, "is a RotateCluster, no RotateFleet")
}

func TestAFailedFleetShowsItsFailures(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1)
	failing := s.failedSet("audit")
	s.om.AddReplicaSet(testProject, "busy")
	s.startWorker()

	failed := s.fleet("--wait", "--clusters-at-a-time", "1", "--cluster-names", "audit|busy")
	s.expect(failed, exitFailed, "starter: PartialFailure: 0 of 2 clusters rotated, 1 failed, 1 not started; failed: audit (PartialFailure)",
		"audit failed: PartialFailure: ", "Failed\n  audit: PartialFailure: ", workflows.RotateClusterID(s.connection, testProject, failing.ID))
	s.expect(s.onFleet("watch"), exitFailed, "PartialFailure")
	s.expect(s.onFleet("report"), exitDone, "Failure       PartialFailure: 0 of 2 clusters rotated", "not started")
	s.expect(s.onFleet("report", "-o", "markdown"), exitDone, "## Failed", "| audit |")
	rows := rowsOf(t, s.onFleet("report", "-o", "csv"))
	if len(rows) != 1 || rows[0]["errorType"] != "PartialFailure" || rows[0]["clusterId"] != failing.ID || rows[0]["notStarted"] != "1" || rows[0]["runId"] == "" {
		t.Errorf("rows %v", rows)
	}
	rows = rowsOf(t, s.onFleet("report", "--clusters", "-o", "csv"))
	if len(rows) != 1 || rows[0]["status"] != workflows.StatusFailed || !strings.HasPrefix(rows[0]["failure"], "PartialFailure: ") || rows[0]["outcome"] != workflows.OutcomePartial {
		t.Errorf("rows %v", rows)
	}
}

func TestAFleetCountsBusyClusters(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1)
	s.om.AddReplicaSet(testProject, "audit")
	s.startWorker()
	s.expect(s.starter("rotate", "--wait", "--require-approval", "--requested-by", "dana"), exitWaiting)
	s.expect(s.fleet("--wait"), exitDone, "1 of 2 clusters rotated, 1 busy")
	if rows := rowsOf(t, s.onFleet("report", "--clusters", "-o", "csv")); len(rows) != 1 || rows[0]["cluster"] != "audit" {
		t.Errorf("rows %v", rows)
	}
}

func TestAFleetIsPausedResumedAndAborted(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1)
	held := s.failedSet("audit")
	s.startWorker()
	s.expect(s.fleet("--on-failure", "hold", "--cluster-names", "audit"), exitDone, "starter watch --fleet --connection "+s.connection)
	eventually(t, "the cluster's hold", func() bool {
		return s.run("watch", "--connection", s.connection, "--project", testProject, "--cluster", held.ID).code == exitWaiting
	})

	s.expect(s.onFleet("resume", "--by", "erin"), exitFailed, "resume refused: the fleet's rotation is not paused")
	paused := s.onFleet("pause", "--by", "erin", "--reason", "peak hour")
	s.expect(paused, exitDone, "pause: done", "fleet "+s.connection+": paused: 0 of 1 clusters rotated", "paused by erin (peak hour)")
	// A pause does not end the watching.
	var watched answer
	var watching sync.WaitGroup
	heard := make(chan struct{})
	watching.Go(func() {
		watched = s.runSaying(t.Context(), "is paused: ", func() { close(heard) }, "watch", "--fleet", "--connection", s.connection)
	})
	<-heard
	progress := decoded[workflows.RotateFleetResult](t, s.onFleet("report", "-o", "json"))
	if progress.Outcome != "" || progress.Counts.Clusters != 1 {
		t.Errorf("the report of a running fleet is %+v", progress)
	}
	s.expect(s.onFleet("report"), exitDone, "none yet: paused", "In work", workflows.RotateClusterID(s.connection, testProject, held.ID))
	clusters := decoded[[]fleetCluster](t, s.onFleet("report", "--clusters", "-o", "json"))
	if len(clusters) != 1 || clusters[0].Status != "Running" || clusters[0].Records.Targets[0].Status != workflows.StatusFailed {
		t.Errorf("clusters %+v", clusters)
	}
	s.expect(s.onFleet("resume", "--by", "erin"), exitDone, "resume: done", ": rotating")
	aborted := decoded[workflows.FleetProgress](t, s.onFleet("abort", "--by", "erin", "--reason", "enough", "-o", "json"))
	if aborted.Connection != s.connection {
		t.Errorf("progress %+v", aborted)
	}
	watching.Wait()
	s.expect(watched, exitFailed, "is paused: ", "starter: Aborted: aborted by erin: enough", "audit failed: Aborted")
}

// Whoever terminates a fleet must learn what goes on.
func TestATerminatedFleetShowsWhatGoesOn(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1)
	held := s.failedSet("audit")
	s.startWorker()
	s.expect(s.fleet("--on-failure", "hold", "--cluster-names", "audit"), exitDone)
	eventually(t, "the cluster in work", func() bool { return strings.Contains(s.onFleet("report").stdout, "In work") })
	if err := s.client.TerminateWorkflow(t.Context(), s.fleetID(), "", "test"); err != nil {
		t.Fatal(err)
	}
	id := workflows.RotateClusterID(s.connection, testProject, held.ID)
	s.expect(s.onFleet("watch"), exitFailed, "starter: Terminated: ", "In work", id)
	clusters := decoded[[]fleetCluster](t, s.onFleet("report", "--clusters", "-o", "json"))
	if len(clusters) != 1 || clusters[0].WorkflowID != id || clusters[0].Status != "Running" {
		t.Errorf("clusters %+v", clusters)
	}
}

// A fleet that continues as new has several runs, and one of its clusters, too:
// each cluster is reported once, with all of its targets.
func TestTheReportOfAFleetThatContinuesAsNew(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "40"}})
	s := newStageAt(t, server, 15)
	const sets = 12
	for i := range sets {
		s.om.AddReplicaSet(testProject, fmt.Sprintf("set-%02d", i))
	}
	started := decoded[map[string]string](t, s.fleet("-o", "json", "--clusters-at-a-time", "3", "--concurrency", "2"))
	s.startWorker()
	s.expect(s.onFleet("watch"), exitDone, "13 of 13 clusters rotated")
	described, err := s.client.DescribeWorkflowExecution(t.Context(), s.fleetID(), "")
	if err != nil || described.GetWorkflowExecutionInfo().GetExecution().GetRunId() == started["runId"] {
		t.Fatalf("the fleet did not continue as new: %v, %v", described, err)
	}
	var rows []map[string]string
	eventually(t, "the last ones in the list of workflows", func() bool {
		got := s.onFleet("report", "--clusters", "-o", "csv", "--run-id", started["runId"])
		rows = rowsOf(t, got)
		return got.code == exitDone
	})
	targets := map[string]bool{}
	for _, row := range rows {
		targets[row["clusterId"]] = row["status"] == workflows.StatusVerified && row["newKeyUUID"] == s.om.Key(row["clusterId"])
	}
	if len(rows) != sets+16 || len(targets) != sets+16 {
		t.Errorf("%d rows of %d targets, want %d", len(rows), len(targets), sets+16)
	}
	for id, isProven := range targets {
		if !isProven {
			t.Errorf("target %s is not proven", id)
		}
	}
}

// applyFleet applies the quarterly schedule of a fleet.
func (s *stage) applyFleet(more ...string) answer {
	s.t.Helper()
	s.deleteLater(s.fleetID())
	return s.onFleet("schedule apply", slices.Concat(quarterly, more)...)
}

func TestAScheduleOfAFleet(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1)
	s.om.AddReplicaSet(testProject, "audit")
	s.om.AddReplicaSet(testProject, "metrics")
	s.startWorker()
	flags := []string{"--ticket", "CHG7", "--clusters-at-a-time", "2", "--cluster-names", "orders|audit|metrics"}
	s.expect(s.applyFleet(append(flags, "--dry-run")...), exitDone, "would make schedule "+s.fleetID())
	s.expect(s.applyFleet(flags...), exitDone, "made schedule "+s.fleetID(), "RotateFleet", "scheduled-"+s.fleetID(), "Rotate the KMIP master keys of a fleet (CHG7)", "input.clustersAtATime", "skip")
	s.expect(s.applyFleet(flags...), exitDone, "unchanged: schedule "+s.fleetID())
	s.expect(s.applyFleet(append(flags, "--max-failed-clusters", "3", "--on-failure", "continue")...), exitDone, "changed schedule", `input.rotation.onFailure  (none) -> "continue"`, "input.maxFailedClusters   (none) -> 3")

	s.expect(s.starter("rotate", "--wait", "--require-approval", "--requested-by", "dana"), exitWaiting)
	triggered := s.onFleet("schedule trigger")
	s.expect(triggered, exitDone, "workflow id  scheduled-"+s.fleetID()+"-", "starter watch --fleet --workflow-id scheduled-"+s.fleetID()+"-")
	record := s.listed(s.fleetID(), "the run's end in the list", hasEnded)
	if record.LastRun.Status != workflows.OutcomeRotated || record.LastRun.Outcome != "rotated 2 clusters, 1 busy" {
		t.Errorf("last run %+v", record.LastRun)
	}
	named := []string{"--fleet", "--workflow-id", record.LastRun.WorkflowID}
	s.expect(s.run(append([]string{"watch"}, named...)...), exitDone, "2 of 3 clusters rotated, 1 busy", "Requested by  dana")
	if rows := rowsOf(t, s.run(append([]string{"report", "--clusters", "-o", "csv"}, named...)...)); len(rows) != 2 {
		t.Errorf("rows %v", rows)
	}
	s.expect(s.onFleet("schedule show"), exitDone, `Rotates     a fleet: the clusters with names like "orders|audit|metrics", connection `+s.connection, "rotated 2 clusters, 1 busy")
	s.expect(s.onFleet("schedule pause", "--by", "erin", "--reason", "freeze"), exitDone, "paused schedule "+s.fleetID())
	s.expect(s.onFleet("schedule unpause", "--by", "erin"), exitDone, "unpaused schedule "+s.fleetID())
	s.expect(s.onFleet("schedule delete"), exitDone, "deleted schedule "+s.fleetID(), "it rotated a fleet")
}

func TestARunningFleetOfAScheduleOfTheWebUI(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1)
	s.failPut(s.cluster.ConfigID)
	s.startWorker()
	id := "Fleet " + s.connection
	s.deleteLater(id)
	s.create(id, workflows.RotateFleetType, map[string]any{"connection": s.connection, "projectIds": []string{testProject}, "rotation": map[string]any{"onFailure": "hold"}})
	s.expect(s.run("schedule", "trigger", "--id", id), exitDone, "starter watch --fleet --workflow-id ")
	record := s.listed(id, "the fleet at work", func(r scheduleRecord) bool {
		return r.LastRun != nil && strings.Contains(r.LastRun.Outcome, "running: fleet "+s.connection+": rotating: 0 of 1 clusters rotated; waiting for 1 cluster in work")
	})
	s.expect(s.run("schedule", "trigger", "--id", id), exitFailed, "a run of schedule "+id+" is at work already", record.LastRun.WorkflowID)
	s.expect(s.run("abort", "--fleet", "--workflow-id", record.LastRun.WorkflowID, "--by", "erin", "--reason", "enough"), exitDone, "abort: done")
	s.shown(id, "the run's end", func(r scheduleRecord) bool {
		return hasEnded(r) && strings.HasPrefix(r.LastRun.Outcome, "failed: Aborted: aborted by erin: enough")
	})
}
