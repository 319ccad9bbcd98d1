package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"keyturn/activities"
	"keyturn/workflows"
)

// fleetInputOf gives the JSON of the input that flags make.
func fleetInputOf(t *testing.T, a *app, args ...string) string {
	t.Helper()
	a.rotation.fleet, a.rotation.project, a.rotation.cluster = true, "", ""
	each, f, command := &rotateFlags{}, &fleetFlags{}, &cobra.Command{}
	f.addFlags(command.Flags())
	each.addCommonFlags(command.Flags(), a)
	each.addRotateFlags(command)
	if err := command.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	input, err := json.Marshal(f.input(each.input(a.rotation, command.Flags()), command.Flags()))
	if err != nil {
		t.Fatal(err)
	}
	return string(input)
}

func TestUnsetFlagsAreLeftOutOfAFleetsInput(t *testing.T) {
	a, _, _ := newTestApp()
	if got, want := fleetInputOf(t, a), `{"change":{"requestedBy":"dana"}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEveryFlagReachesAFleetsInput(t *testing.T) {
	a, _, _ := newTestApp()
	a.rotation.connection = "berlin"
	want := `{"connection":"berlin","projectIds":["` + testProject + `","` + testCluster + `"],"clusterNames":"^orders-","clustersAtATime":4,"maxFailedClusters":2,` +
		`"rotation":{"concurrency":8,"requireApproval":true,"approvalTimeout":"1h0m0s","onFailure":"stop",` +
		`"holdTimeout":"2h0m0s","retryTimeout":"3m0s","settleTime":"4s","verifyTimeout":"5m0s"},` +
		`"change":{"ticket":"CHG1","requestedBy":"erin","reason":"quarterly"}}`
	got := fleetInputOf(t, a, "--projects", testProject, "--projects", testCluster, "--cluster-names", "^orders-", "--clusters-at-a-time", "4", "--max-failed-clusters", "2",
		"--concurrency", "8", "--require-approval", "--approval-timeout", "1h", "--on-failure", "stop",
		"--hold-timeout", "2h", "--retry-timeout", "3m", "--settle-time", "4s", "--verify-timeout", "5m",
		"--ticket", "CHG1", "--requested-by", "erin", "--reason", "quarterly")
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// No flag that is common to both may show another default than the fleet's.
func TestTheHelpOfAFleetShowsItsDefaults(t *testing.T) {
	_, stdout, _ := runHere(t, nil, nil, "fleet", "--help")
	for _, want := range []string{`then fail (default "stop")`, "1 to 100 (default 4)", "--dry-run", "rotate-fleet:CONNECTION"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is missing in\n%s", want, stdout)
		}
	}
}

func refOf(number, name string) activities.ClusterRef {
	return activities.ClusterRef{ProjectID: testProject, ClusterID: "5196e5b0e4b0fca9cc8833" + number, ClusterName: name}
}

func failureOf(number, name string) workflows.ClusterFailure {
	ref := refOf(number, name)
	return workflows.ClusterFailure{
		ClusterRef: ref, WorkflowID: workflows.RotateClusterID("default", ref.ProjectID, ref.ClusterID), RunID: "run-" + number,
		Error: &workflows.TargetError{Type: activities.ErrorPartialFailure, Message: "1 of 2\ntargets"},
	}
}

func inWork(number, name string, second int) workflows.FleetCluster {
	ref := refOf(number, name)
	return workflows.FleetCluster{ClusterRef: ref, WorkflowID: workflows.RotateClusterID("default", ref.ProjectID, ref.ClusterID), StartedAt: *at(second)}
}

// fleetAtWork is half done.
func fleetAtWork() *fleetAccount {
	return &fleetAccount{FleetProgress: workflows.FleetProgress{
		RotateFleetResult: workflows.RotateFleetResult{
			Connection: "default", StartedAt: began, Change: workflows.Change{Ticket: "CHG1", RequestedBy: "dana"},
			Counts: workflows.FleetCounts{Clusters: 10, Rotated: 3, Busy: 1, Failed: 1, NotStarted: 3}, TargetsVerified: 12,
			Failures: []workflows.ClusterFailure{failureOf("03", "=evil|\x1b[31m")},
		},
		Phase: workflows.PhaseRotating, WaitingFor: "2 clusters in work", ClustersPerHour: 240, SecondsLeft: 75,
		InWork: []workflows.FleetCluster{inWork("04", "orders", 5), inWork("05", "audit", 60)},
	}}
}

func TestLiveDisplayOfAFleet(t *testing.T) {
	got := plain(scene{progress: fleetAtWork(), now: began.Add(65 * time.Second)}.lines(size{140, 24}))
	id := "rotate-cluster:default:" + testProject + ":5196e5b0e4b0fca9cc8833"
	want := `fleet default ████████████░░░░░░░░░░░░  rotating  5/10 clusters done, 2 in work, 1 failed, 1:05, about 1:15 left, 240.0 clusters an hour
waiting for 2 clusters in work
 Cluster │ Status       │ Remark         │ Workflow
─────────┼──────────────┼────────────────┼──────────────────────────────────────────────────────────────────────────
 orders  │ in work 1:00 │                │ ` + id + `04
 audit   │ in work 0:05 │                │ ` + id + `05
 =evil|  │ failed       │ PartialFailure │ ` + id + `03
Ctrl-C ends the watching, not the rotation.
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLiveDisplayOfAFleetFitsEveryScreen(t *testing.T) {
	f := fleetAtWork()
	f.InWork, f.Failures = nil, nil
	for i := range 100 {
		f.InWork = append(f.InWork, inWork(fmt.Sprintf("%02x", i), strings.Repeat("生", 30), i))
		f.Failures = append(f.Failures, failureOf(fmt.Sprintf("%02x", i), fmt.Sprintf("failed-%d", i)))
	}
	for _, screen := range []size{{200, 60}, {80, 24}, {80, 12}, {40, 10}, {20, 5}, {1, 1}} {
		lines := scene{progress: f, notice: strings.Repeat("no worker ", 30), now: began}.lines(screen)
		if len(lines) > max(screen.height-1, 1) {
			t.Errorf("%v: %d lines", screen, len(lines))
		}
		for _, line := range lines {
			if width := text.StringWidthWithoutEscSequences(line); width > max(screen.width-1, 1) {
				t.Errorf("%v: a line of %d: %q", screen, width, line)
			}
		}
	}
	got := plain(scene{progress: f, now: began}.lines(size{120, 16}))
	if !strings.Contains(got, "failed-99") || strings.Contains(got, "failed-95") || !strings.Contains(got, "and 96 more in work") {
		t.Errorf("a low screen shows\n%s", got)
	}
}

func TestChangesOfAFleet(t *testing.T) {
	listing := &fleetAccount{FleetProgress: workflows.FleetProgress{RotateFleetResult: workflows.RotateFleetResult{Connection: "default"}, Phase: workflows.PhaseListing, WaitingFor: "Ops Manager to list the clusters"}}
	paused := fleetAtWork()
	paused.Phase, paused.WaitingFor, paused.ClustersPerHour = workflows.PhasePaused, "somebody to resume it", 0
	done := fleetAtWork()
	done.InWork = nil
	done.Failures = append(done.Failures, failureOf("04", "orders"))
	done.conclude("")
	var got []string
	var before account
	for _, now := range []account{listing, listing, fleetAtWork(), fleetAtWork(), paused, paused, done} {
		got = append(got, now.changes(before)...)
		before = now
	}
	counts := "3 of 10 clusters rotated, 1 busy, 1 failed, 3 not started"
	id := "rotate-cluster:default:" + testProject + ":5196e5b0e4b0fca9cc8833"
	want := []string{
		"fleet default is listing: 0 of 0 clusters rotated; waiting for Ops Manager to list the clusters",
		"fleet default is rotating: " + counts + "; about 1:15 left, 240.0 clusters an hour; waiting for 2 clusters in work",
		"=evil| failed: PartialFailure: 1 of 2 targets (workflow id " + id + "03)",
		"fleet default is paused: " + counts + "; waiting for somebody to resume it",
		"fleet default is done: " + counts,
		"orders failed: PartialFailure: 1 of 2 targets (workflow id " + id + "04)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestReportsOfAFleet(t *testing.T) {
	f := fleetAtWork()
	f.FailuresNotListed = 7
	for name, got := range map[string]string{"table": f.table(), "markdown": f.markdown()} {
		for _, want := range []string{"none yet: rotating", "3 of 10 clusters rotated", "12 verified", "orders", "PartialFailure", "run-03", "and 7 more"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is missing in\n%s", name, want, got)
			}
		}
		if strings.Contains(got, "\x1b") {
			t.Errorf("%s: an escape sequence in %q", name, got)
		}
	}
	rows, err := csv.NewReader(strings.NewReader(f.csv())).ReadAll()
	if err != nil || len(rows) != 2 || len(rows[1]) != len(fleetColumns)+len(failureColumns) || rows[1][len(fleetColumns)] != "'=evil|" {
		t.Errorf("CSV: %v, %q", err, rows)
	}
}

func TestClustersWithoutRecordsAreReportedByTheirIDs(t *testing.T) {
	a, stdout, _ := newTestApp()
	a.format = formatCSV
	id := workflows.RotateClusterID("berlin", testProject, testCluster)
	records := partialResult()
	clusters := []fleetCluster{{WorkflowID: id, RunID: "r", Status: "Failed", Failure: "Unauthorized: no"}, {WorkflowID: id, RunID: "r", Records: &records}}
	out := a.newClusterWriter()
	for range 2 { // pages
		if err := out.write(clusters); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := csv.NewReader(stdout).ReadAll()
	if err != nil || len(rows) != 1+2*(1+5) {
		t.Fatalf("%v, %d rows: %q", err, len(rows), rows)
	}
	if first := rows[1]; !slices.Equal(first[:7], []string{id, "r", "Failed", "Unauthorized: no", "berlin", testProject, testCluster}) || first[len(first)-5] != "" {
		t.Errorf("got %q", first)
	}
}

func TestAListOfClustersIsOneJSONValue(t *testing.T) {
	for _, pages := range [][]int{{}, {0}, {1}, {2, 0, 1}} {
		a, stdout, _ := newTestApp()
		a.format = formatJSON
		out, n := a.newClusterWriter(), 0
		for _, size := range pages {
			n += size
			if err := out.write(make([]fleetCluster, size)); err != nil {
				t.Fatal(err)
			}
		}
		if err := out.close(); err != nil {
			t.Fatal(err)
		}
		if got := decoded[[]fleetCluster](t, answer{stdout: stdout.String()}); len(got) != n {
			t.Errorf("%v: %d clusters in\n%s", pages, len(got), stdout)
		}
	}
}

func TestOnlyTheIdsOfClustersAreRead(t *testing.T) {
	id := workflows.RotateClusterID("berlin", testProject, testCluster)
	if name, isOne := nameOf(id); !isOne || name != (rotationName{connection: "berlin", project: testProject, cluster: testCluster}) {
		t.Errorf("got %+v, %v", name, isOne)
	}
	for _, other := range []string{"", "rotate-fleet:berlin", "scheduled-" + id, id + ":x"} {
		if name, isOne := nameOf(other); isOne {
			t.Errorf("%q is read as %+v", other, name)
		}
	}
}
