package main

import (
	"encoding/csv"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"keyturn/activities"
	"keyturn/workflows"
)

// fleetInputOf returns the JSON of the input that flags make.
func fleetInputOf(t *testing.T, a *app, args ...string) string {
	t.Helper()
	a.rotation.fleet, a.rotation.project, a.rotation.cluster = true, "", ""
	return jsonInputOf(t, a, args...)
}

func TestUnsetFlagsAreLeftOutOfAFleetsInput(t *testing.T) {
	a, _, _ := newTestApp()
	assert.Equal(t, `{"change":{"requestedBy":"dana"}}`, fleetInputOf(t, a))
}

func TestEveryFlagReachesAFleetsInput(t *testing.T) {
	a, _, _ := newTestApp()
	a.rotation.connection = "berlin"
	want := `{"connection":"berlin","projectIds":["` + testProject + `","` + testCluster + `"],"clusterNames":"^orders-","clustersAtATime":4,"maxFailedClusters":2,` +
		`"rotation":{"concurrency":8,"requireApproval":true,"approvalTimeout":"1h0m0s","allowUnserved":true,"onFailure":"stop",` +
		`"holdTimeout":"2h0m0s","retryTimeout":"3m0s","settleTime":"4s","verifyTimeout":"5m0s"},` +
		`"change":{"ticket":"CHG1","requestedBy":"erin","reason":"quarterly"}}`
	got := fleetInputOf(t, a, "--projects", testProject, "--projects", testCluster, "--cluster-names", "^orders-", "--clusters-at-a-time", "4", "--max-failed-clusters", "2",
		"--concurrency", "8", "--require-approval", "--approval-timeout", "1h", "--allow-unserved", "--on-failure", "stop",
		"--hold-timeout", "2h", "--retry-timeout", "3m", "--settle-time", "4s", "--verify-timeout", "5m",
		"--ticket", "CHG1", "--requested-by", "erin", "--reason", "quarterly")
	assert.Equal(t, want, got)
}

func TestEveryFlagReachesTheInputOfAFleetOfDeployments(t *testing.T) {
	a, _, _ := newTestApp()
	a.rotation.deployment = true
	assert.Equal(t, `{"kind":"deployment","change":{"requestedBy":"dana"}}`, fleetInputOf(t, a))
	a.rotation.connection, a.rotation.deployment = "berlin", true
	want := `{"kind":"deployment","connection":"berlin","projectIds":["` + testProject + `"],"excludeProjectIds":["` + testCluster + `"],"clustersAtATime":3,"maxFailedClusters":2,` +
		`"rotation":{"concurrency":8,"requireApproval":true,"approvalTimeout":"1h0m0s","onFailure":"hold","holdTimeout":"2h0m0s","retryTimeout":"3m0s","settleTime":"4s",` +
		`"proof":"kmip","deployTimeout":"6m0s","proofTimeout":"7m0s"},"change":{"requestedBy":"dana"}}`
	got := fleetInputOf(t, a, "--projects", testProject, "--exclude-projects", testCluster, "--clusters-at-a-time", "3", "--max-failed-clusters", "2",
		"--concurrency", "8", "--require-approval", "--approval-timeout", "1h", "--on-failure", "hold", "--hold-timeout", "2h", "--retry-timeout", "3m", "--settle-time", "4s",
		"--proof", "kmip", "--deploy-timeout", "6m", "--proof-timeout", "7m")
	assert.Equal(t, want, got)
}

// No flag that is common to both may show another default than the fleet's.
func TestTheHelpOfAFleetShowsItsDefaults(t *testing.T) {
	_, stdout, _ := runHere(t, nil, nil, "rotate", "--help")
	for _, want := range []string{`with --fleet "stop"`, "1 to 100 (default 4)"} {
		assert.Contains(t, strings.Join(strings.Fields(stdout), " "), want) // however it is wrapped
	}
}

func refOf(number, name string) activities.ClusterRef {
	return activities.ClusterRef{ProjectID: testProject, ClusterID: "5196e5b0e4b0fca9cc8833" + number, ClusterName: name}
}

func failureOf(number, name string) workflows.ClusterFailure {
	ref := refOf(number, name)
	return workflows.ClusterFailure{
		ClusterRef: ref, WorkflowID: workflows.RotateClusterID("default", ref.ProjectID, ref.ClusterID), RunID: "run-" + number,
		Error: &workflows.TargetError{Type: workflows.ErrorPartialFailure, Message: "1 of 2\ntargets"},
	}
}

func inProgress(number, name string, second int) workflows.FleetCluster {
	ref := refOf(number, name)
	return workflows.FleetCluster{ClusterRef: ref, WorkflowID: workflows.RotateClusterID("default", ref.ProjectID, ref.ClusterID), StartedAt: *at(second)}
}

// fleetAtWork is half done.
func fleetAtWork() *fleetStatus {
	return &fleetStatus{FleetProgress: workflows.FleetProgress{
		RotateFleetResult: workflows.RotateFleetResult{
			Connection: "default", StartedAt: began, Change: workflows.Change{Ticket: "CHG1", RequestedBy: "dana"},
			Counts: workflows.FleetCounts{Clusters: 10, Rotated: 3, Busy: 1, Failed: 1, NotStarted: 3}, TargetsVerified: 12,
			Failures: []workflows.ClusterFailure{failureOf("03", "=evil|\x1b[31m")},
		},
		Phase: workflows.PhaseRotating, WaitingFor: "2 clusters in progress", ClustersPerHour: 240, SecondsLeft: 75,
		InProgress: []workflows.FleetCluster{inProgress("04", "orders", 5), inProgress("05", "audit", 60)},
	}}
}

func TestLiveDisplayOfAFleet(t *testing.T) {
	got := plain(frame{progress: fleetAtWork(), now: began.Add(65 * time.Second)}.lines(size{140, 24}))
	want := `fleet default ████████████░░░░░░░░░░░░  rotating  5/10 clusters done, 2 in progress, 1 failed, targets: 12 verified, 1:05, about 1:15 left
waiting for 2 clusters in progress
 Cluster │ Status           │ Remark         │ Project ID               │ Cluster ID
─────────┼──────────────────┼────────────────┼──────────────────────────┼──────────────────────────
 orders  │ in progress 1:00 │                │ 5196d3628d022db4cbc26d9e │ 5196e5b0e4b0fca9cc883304
 audit   │ in progress 0:05 │                │ 5196d3628d022db4cbc26d9e │ 5196e5b0e4b0fca9cc883305
 =evil|  │ failed           │ PartialFailure │ 5196d3628d022db4cbc26d9e │ 5196e5b0e4b0fca9cc883303
Ctrl-C stops watching; the rotation continues.
`
	assert.Equal(t, want, got)
}

func TestLiveDisplayOfAFleetFitsEveryScreen(t *testing.T) {
	f := fleetAtWork()
	f.InProgress, f.Failures = nil, nil
	for i := range 100 {
		f.InProgress = append(f.InProgress, inProgress(fmt.Sprintf("%02x", i), strings.Repeat("生", 30), i))
		f.Failures = append(f.Failures, failureOf(fmt.Sprintf("%02x", i), fmt.Sprintf("failed-%d", i)))
	}
	for _, screen := range []size{{200, 60}, {80, 24}, {80, 12}, {40, 10}, {20, 5}, {1, 1}} {
		lines := frame{progress: f, notice: strings.Repeat("no worker ", 30), now: began}.lines(screen)
		assert.False(t, len(lines) > max(screen.height-1, 1))
		for _, line := range lines {
			assert.False(t, text.StringWidthWithoutEscSequences(line) > max(screen.width-1, 1))
		}
	}
	got := plain(frame{progress: f, now: began}.lines(size{120, 16}))
	assert.Contains(t, got, "failed-99", "a low screen shows\n%s", got)
	assert.NotContains(t, got, "failed-95", "a low screen shows\n%s", got)
	assert.Contains(t, got, "and 96 more in progress", "a low screen shows\n%s", got)
}

func TestChangesOfAFleet(t *testing.T) {
	id := "rotate-cluster:default:" + testProject + ":5196e5b0e4b0fca9cc8833"
	listing := &fleetStatus{FleetProgress: workflows.FleetProgress{RotateFleetResult: workflows.RotateFleetResult{Connection: "default"}, Phase: workflows.PhaseListing, WaitingFor: "Ops Manager to list the clusters"}}
	paused := fleetAtWork()
	paused.Phase, paused.WaitingFor, paused.ClustersPerHour = workflows.PhasePaused, "an operator to resume it", 0
	done := fleetAtWork()
	done.InProgress = nil
	done.Failures = append(done.Failures, failureOf("04", "orders"))
	done.markEnded("")
	var got []string
	var before statusView
	for _, now := range []statusView{listing, listing, fleetAtWork(), fleetAtWork(), paused, paused, done} {
		got = append(got, now.changes(before)...)
		before = now
	}
	counts := "3 of 10 clusters rotated, 1 busy, 1 failed, 3 not started"
	want := []string{
		"fleet default is listing: no clusters listed; waiting for Ops Manager to list the clusters",
		"=evil| failed: PartialFailure: 1 of 2 targets (workflow ID " + id + "03)",
		"fleet default is rotating: " + counts + "; about 1:15 left; waiting for 2 clusters in progress",
		"fleet default is paused: " + counts + "; waiting for an operator to resume it",
		"orders failed: PartialFailure: 1 of 2 targets (workflow ID " + id + "04)",
		"fleet default has ended: " + counts,
	}
	assert.Equal(t, want, got)
}

func TestReportsOfAFleet(t *testing.T) {
	f := fleetAtWork()
	f.FailuresNotListed, f.LeftOutNotListed = 7, 9
	f.ofRun("W", "R")
	f.Failures = append(f.Failures, workflows.ClusterFailure{
		ClusterRef: activities.ClusterRef{ProjectID: testCluster}, Error: &workflows.TargetError{Type: workflows.ErrorForbidden, Message: "403"},
	})
	f.LeftOut = []workflows.ClusterLeftOut{{ClusterRef: refOf("09", "audit|"), Reason: workflows.LeftOutBusy}}
	f.Actions = []workflows.Action{{At: *at(1), By: "erin", Action: workflows.PauseUpdate, Reason: "peak"}}
	assert.Contains(t, f.markdown(), "| Cluster | Project ID | Cluster ID | Workflow ID | Run ID | Error | Message |")
	for name, got := range map[string]string{"table": f.table(layout{}), "markdown": f.markdown()} {
		for _, want := range []string{"none yet: rotating", "3 of 10 clusters rotated", "12 verified", "orders", "PartialFailure", "run-03", "and 7 more", testCluster, "audit", "busy", "and 9 more left out", "pause", "erin", "peak", "5196e5b0e4b0fca9cc883305"} {
			assert.Contains(t, got, want, "%s: %q is missing in\n%s", name, want, got)
		}
		assert.NotContains(t, got, "\x1b", "%s: an escape sequence in %q", name, got)
	}
	rows, err := csv.NewReader(strings.NewReader(f.csv())).ReadAll()
	require.NoError(t, err, "CSV: %v, %q", err, rows)
	require.Len(t, rows, 4, "CSV: %v, %q", err, rows)
	require.Len(t, rows[1], len(fleetColumns)+len(failureColumns)+len(fleetLastColumns), "CSV: %v, %q", err, rows)
	assert.Equal(t, "2026-03-01T12:00:01Z pause by erin: peak", rows[1][len(fleetColumns)-1])
	assert.Equal(t, []string{"", testCluster, ""}, rows[2][len(fleetColumns):][:3])
	assert.Equal(t, []string{"audit|", testProject, "5196e5b0e4b0fca9cc883309"}, rows[3][len(fleetColumns):][:3])
	assert.Equal(t, []string{"busy", "W", "R"}, rows[3][len(rows[3])-3:])
	assert.Equal(t, "'=evil|", rows[1][len(fleetColumns)], "CSV: %v, %q", err, rows)
}

// fleetOfDeployments has ended, with a project of every kind.
func fleetOfDeployments() *fleetStatus {
	project := func(digits string) workflows.ClusterRef {
		return workflows.ClusterRef{ProjectID: "5196d3628d022db4cbc26d" + digits}
	}
	failed := workflows.ClusterFailure{
		ClusterRef: project("01"), WorkflowID: workflows.RotateDeploymentID("default", project("01").ProjectID), RunID: "run-01",
		Error: &workflows.TargetError{Type: workflows.ErrorMemberDown, Message: "books-1 is down"},
	}
	return &fleetStatus{FleetProgress: workflows.FleetProgress{
		RotateFleetResult: workflows.RotateFleetResult{
			Kind: workflows.FleetOfDeployments, Connection: "default", StartedAt: began, Outcome: workflows.OutcomePartial,
			Counts:          workflows.FleetCounts{Clusters: 6, Rotated: 3, Unproven: 2, Failed: 1, Busy: 1},
			TargetsVerified: 1, TargetsRotated: 9, FailuresNotListed: 7,
			Failures: []workflows.ClusterFailure{failed},
			LeftOut:  []workflows.ClusterLeftOut{{ClusterRef: project("02"), Reason: workflows.LeftOutBusy}},
		},
		Phase: workflows.PhaseRotating, ClustersPerHour: 6,
		InProgress: []workflows.FleetCluster{{ClusterRef: project("03"), WorkflowID: "w", StartedAt: began}},
	}}
}

func TestReportsOfAFleetOfDeployments(t *testing.T) {
	f := fleetOfDeployments()
	wantTable := `Fleet         connection default
Rotates       deployments of projects
Outcome       partial
Requested by  -
Ticket        -
Reason        -
Started       2026-03-01T12:00:00Z
Projects      3 of 6 projects rotated (2 unproven), 1 busy, 1 failed
Targets       9 rotated, 1 of them verified

┌──────────────────────────────────┬──────────────────────┐
│ In progress                      │ Since                │
├──────────────────────────────────┼──────────────────────┤
│ project 5196d3628d022db4cbc26d03 │ 2026-03-01T12:00:00Z │
└──────────────────────────────────┴──────────────────────┘

Failed
  project 5196d3628d022db4cbc26d01: MemberDown: books-1 is down
    rotate-deployment:default:5196d3628d022db4cbc26d01
    run run-01
  and 7 more that did not fit into the records; see keyturn report --fleet --deployment --each-cluster

Left out
  project 5196d3628d022db4cbc26d02: busy
`
	assert.Equal(t, wantTable, f.table(layout{}))
	markdown := f.markdown()
	assert.Contains(t, markdown, "# Key rotation of the fleet of deployments default")
	assert.Contains(t, markdown, "| Project ID | Workflow ID | Run ID | Error | Message |")
	assert.Contains(t, markdown, "| 5196d3628d022db4cbc26d02 | busy |")
	assert.Contains(t, markdown, "| 5196d3628d022db4cbc26d03 | 2026-03-01T12:00:00Z | w |")
	live := plain(frame{progress: f, now: began}.lines(size{140, 24}))
	assert.Contains(t, live, "5/6 projects done, 1 in progress, 1 failed")
	assert.Contains(t, live, " project 5196d3628d022db4cbc26d03 │ in progress")
	rows := rowsOf(t, answer{stdout: f.csv()})
	require.Len(t, rows, 2)
	for column, want := range map[string]string{"kind": "deployment", "unproven": "2", "targetsRotated": "9", "projectId": "5196d3628d022db4cbc26d01", "clusterId": "", "errorType": "MemberDown"} {
		assert.Equal(t, want, rows[0][column], column)
	}
	assert.Equal(t, "busy", rows[1]["leftOut"])
}

// A fleet that a schedule has started, and that is known by its workflow ID only.
func TestAScheduledFleetContinuesUnderTheConnectionsID(t *testing.T) {
	a, _, _ := newTestApp()
	a.rotation = rotationName{connection: workflows.DefaultConnection, fleet: true, id: "scheduled"}
	f := fleetOfDeployments()
	f.Connection = "berlin"
	failure := temporal.NewNonRetryableApplicationError("1 of 6 failed", string(workflows.ErrorPartialFailure), nil)
	f.markEnded("PartialFailure: 1 of 6 failed")
	err := a.showResultAndNext(runResult{records: f, failure: failure})
	var hinted *hintedError
	require.ErrorAs(t, err, &hinted)
	assert.Equal(t, []string{"keyturn report --fleet --workflow-id scheduled", "keyturn rotate --fleet --deployment --connection berlin --continue --wait"}, hinted.commands)
}

// Continuing the fleet would not wait for the missing proofs again.
func TestAnUnprovenFleetOfDeploymentsIsAWarning(t *testing.T) {
	a, _, stderr := newTestApp()
	a.rotation = rotationName{connection: workflows.DefaultConnection, fleet: true, deployment: true}
	require.NoError(t, a.showResultAndNext(runResult{records: fleetOfDeployments()}))
	assert.Equal(t, "warning: 2 projects rotated, as the agents report, but not proven; to see which, and why, before you continue each with --deployment --project and --continue:\n"+
		"  keyturn report --fleet --deployment --each-cluster -o csv\n", stderr.String())
}

// Clusters that the fleet did not start are not missing from the report of all.
func TestClustersThatAFleetStarted(t *testing.T) {
	fleet := fleetAtWork().RotateFleetResult
	fleet.Counts = workflows.FleetCounts{Clusters: 11, Rotated: 4, CarriedOver: 2, Busy: 1, Gone: 1, NotEncrypted: 1, Failed: 4, FailedProjects: 2}
	assert.Equal(t, 6, startedBy(fleet))
	fleet.Failures[0].RunID = "" // it could not be started
	assert.Equal(t, 5, startedBy(fleet))
	fleet.Failures[0].ClusterRef = workflows.ClusterRef{ProjectID: testProject} // nor could one of a project's deployments
	assert.Equal(t, 5, startedBy(fleet))
}

func TestClustersWithoutRecordsAreReportedByTheirIDs(t *testing.T) {
	a, stdout, _ := newTestApp()
	a.format = formatCSV
	id := workflows.RotateClusterID("berlin", testProject, testCluster)
	records := partialResult()
	clusters := []fleetCluster{{WorkflowID: id, RunID: "r", Status: "Failed", Failure: "Unauthorized: no"}, {WorkflowID: id, RunID: "r", targets: &clusterRecords{workflows.Progress{RotateClusterResult: records}}}}
	out := a.newClusterWriter(clusterKind)
	for range 2 { // pages
		require.NoError(t, out.write(clusters))
	}
	rows, err := csv.NewReader(stdout).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 1+2*(1+5))
	assert.Equal(t, []string{id, "r", "Failed", "Unauthorized: no", "berlin", testProject, testCluster}, rows[1][:7])
	assert.Empty(t, rows[1][len(rows[1])-5])
}

func TestAListOfClustersIsOneJSONValue(t *testing.T) {
	for _, pages := range [][]int{{}, {0}, {1}, {2, 0, 1}} {
		a, stdout, _ := newTestApp()
		a.format = formatJSON
		out, n := a.newClusterWriter(clusterKind), 0
		for _, size := range pages {
			n += size
			require.NoError(t, out.write(make([]fleetCluster, size)))
		}
		require.NoError(t, out.close())
		require.Len(t, decoded[[]fleetCluster](t, answer{stdout: stdout.String()}), n)
	}
}

func TestOnlyIDsOfRotationsWithTargetsAreParsed(t *testing.T) {
	id := workflows.RotateClusterID("berlin", testProject, testCluster)
	name, isOne := nameOf(id)
	assert.True(t, isOne)
	assert.Equal(t, (rotationName{connection: "berlin", project: testProject, cluster: testCluster}), name)
	name, isOne = nameOf(workflows.RotateDeploymentID("berlin", testProject))
	assert.True(t, isOne)
	assert.Equal(t, (rotationName{connection: "berlin", project: testProject, deployment: true}), name)
	for _, other := range []string{"", "rotate-fleet:berlin", "rotate-deployment-fleet:berlin", "scheduled-" + id, id + ":x"} {
		name, isOne := nameOf(other)
		assert.False(t, isOne, "%q is read as %+v", other, name)
	}
}
