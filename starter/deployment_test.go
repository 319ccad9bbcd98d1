package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/workflows"
)

// newDeploymentApp is a command line about the deployments of the test project.
func newDeploymentApp() (a *app, stdout, stderr *strings.Builder) {
	a, _, _ = newTestApp()
	stdout, stderr = &strings.Builder{}, &strings.Builder{}
	a.stdout, a.stderr = stdout, stderr
	a.rotation = rotationName{connection: workflows.DefaultConnection, project: testProject, deployment: true}
	return a, stdout, stderr
}

// process is a member of the replica set that its name begins with.
func process(name string, status workflows.Status) workflows.ProcessRecord {
	set := name[:strings.LastIndex(name, "-")]
	return workflows.ProcessRecord{
		Process: name, Host: "host-" + name + ":27017", ReplicaSet: set, ClusterID: testCluster, ClusterName: "orders", Role: workflows.RoleShard, Status: status,
		PreviousRotateAt: "2025-06-01T03:00:00Z",
	}
}

func rotatedProcess(name string, second int) workflows.ProcessRecord {
	record := process(name, workflows.StatusRotated)
	record.RotateAt, record.RotatedAt = at(0), at(second)
	return record
}

func verifiedProcess(name string, second int) workflows.ProcessRecord {
	record := rotatedProcess(name, second)
	record.Status, record.VerifiedAt, record.ProvenBy = workflows.StatusVerified, at(second+60), workflows.ProvenBySnapshot
	record.PreviousKeyUUID, record.NewKeyUUID, record.SnapshotID = "old-"+name, "new-"+name, "65a1f1aa0000000000000001"
	return record
}

func deploymentProgress(phase workflows.Phase, records ...workflows.ProcessRecord) workflows.DeploymentProgress {
	p := workflows.DeploymentProgress{
		RotateDeploymentResult: workflows.RotateDeploymentResult{
			Connection: "default", ProjectID: testProject, Proof: workflows.ProofSnapshot, StartedAt: began,
			Change: workflows.Change{Ticket: "CHG0031337", RequestedBy: "dana"}, Targets: records,
		},
		Phase: phase,
	}
	p.Counts = countsOf((&deploymentRecords{p}).targets())
	return p
}

// unprovenDeployment has a replica set that is proven and one that is not, and names
// that mean harm.
func unprovenDeployment() workflows.DeploymentProgress {
	carried := rotatedProcess("orders-0-0", 3)
	carried.CarriedOver = true
	failedFirst := rotatedProcess("orders-1-0", 8)
	failedFirst.FirstError, failedFirst.Ambiguous = &workflows.TargetError{Type: workflows.ErrorDeploymentFailed, Message: "143"}, true
	foreign := rotatedProcess("=cmd|<b>\x1b[31m-1", 9)
	foreign.ReplicaSet = failedFirst.ReplicaSet
	p := deploymentProgress(workflows.PhaseDone, carried, verifiedProcess("orders-0-1", 5), failedFirst, foreign)
	p.Outcome, p.FinishedAt = workflows.OutcomeRotatedUnproven, at(3600)
	p.ReplicaSets = []workflows.ReplicaSetRecord{{ClusterID: testCluster, ReplicaSet: "orders-1", Reason: "no snapshot was begun after its last member restarted"}}
	p.Actions = []workflows.Action{{At: *at(6), By: "erin", Action: workflows.RetryUpdate, Targets: []string{"orders-1"}}}
	return p
}

func endedDeployment(p workflows.DeploymentProgress) *rotationStatus {
	status := deploymentStatusOf(p)
	status.markEnded("")
	return status
}

func TestTableOfADeployment(t *testing.T) {
	want := `Project       5196d3628d022db4cbc26d9e
Clusters      orders
Proof         snapshot: 1 of 2 replica sets proven
Connection    default
Outcome       rotatedUnproven
Requested by  dana
Ticket        CHG0031337
Reason        -
Approved by   -
Started       2026-03-01T12:00:00Z
Finished      2026-03-01T13:00:00Z (after 1h0m0s)
Targets       1 verified, 3 rotated (1 carried over)

┌───────────────────────┬─────────────┬──────────┬──────────────────────┬──────────────────────┬────────────────┐
│ Process               │ Replica set │ Status   │ Rotate at            │ Verified             │ Previous key   │
│ Host                  │ Cluster     │ Role     │ Rotated              │ Proven by            │ New key        │
├───────────────────────┼─────────────┼──────────┼──────────────────────┼──────────────────────┼────────────────┤
│ orders-0-0            │ orders-0    │ rotated  │ 2026-03-01T12:00:00Z │ -                    │ -              │
│ host-orders-0-0:27017 │ orders      │ shard    │ 2026-03-01T12:00:03Z │ -                    │ -              │
├───────────────────────┼─────────────┼──────────┼──────────────────────┼──────────────────────┼────────────────┤
│ orders-0-1            │ orders-0    │ verified │ 2026-03-01T12:00:00Z │ 2026-03-01T12:01:05Z │ old-orders-0-1 │
│ host-orders-0-1:27017 │ orders      │ shard    │ 2026-03-01T12:00:05Z │ snapshot             │ new-orders-0-1 │
├───────────────────────┼─────────────┼──────────┼──────────────────────┼──────────────────────┼────────────────┤
│ orders-1-0            │ orders-1    │ rotated  │ 2026-03-01T12:00:00Z │ -                    │ -              │
│ host-orders-1-0:27017 │ orders      │ shard    │ 2026-03-01T12:00:08Z │ -                    │ -              │
├───────────────────────┼─────────────┼──────────┼──────────────────────┼──────────────────────┼────────────────┤
│ =cmd|<b>-1            │ orders-1    │ rotated  │ 2026-03-01T12:00:00Z │ -                    │ -              │
│ host-=cmd|<b>-1:27017 │ orders      │ shard    │ 2026-03-01T12:00:09Z │ -                    │ -              │
└───────────────────────┴─────────────┴──────────┴──────────────────────┴──────────────────────┴────────────────┘

Remarks
  orders-0-0 (rotated): rotated in an earlier run
  orders-1-0 (rotated): failed first: DeploymentFailed: 143; PUT outcome was unknown and resolved by reading the configuration

Replica sets
  orders-0 (proven by snapshot): member host-orders-0-1:27017; snapshot 65a1f1aa0000000000000001
  orders-1 (not proven): no snapshot was begun after its last member restarted

Actions
  2026-03-01T12:00:06Z retry by erin: orders-1
`
	assert.Equal(t, want, endedDeployment(unprovenDeployment()).table(layout{}))
}

// The members of a replica set fail together.
func TestTheSameRemarkOfManyTargetsIsOneLine(t *testing.T) {
	var records []workflows.ProcessRecord
	for i := range 12 {
		record := process(fmt.Sprintf("orders-0-%d", i), workflows.StatusFailed)
		record.Error = &workflows.TargetError{Type: workflows.ErrorDeploymentFailed, Message: "143"}
		records = append(records, record)
	}
	records = append(records, process("orders-1-0", workflows.StatusPending), process("orders-1-1", workflows.StatusPending))
	skipped := process("orders-1-2", workflows.StatusSkipped)
	skipped.Error = records[0].Error
	got := deploymentStatusOf(deploymentProgress(workflows.PhaseHeld, append(records, skipped)...)).table(layout{})
	_, got, _ = strings.Cut(got, "\nRemarks\n")
	assert.True(t, strings.HasPrefix(got, "  orders-0-0, orders-0-1, orders-0-2, orders-0-3, orders-0-4, orders-0-5, orders-0-6, orders-0-7, orders-0-8, orders-0-9 and 2 more (failed): DeploymentFailed: 143\n"+
		"  orders-1-2 (skipped): DeploymentFailed: 143\n\n"), got)
}

func TestMarkdownOfADeployment(t *testing.T) {
	got := endedDeployment(unprovenDeployment()).markdown()
	for _, want := range []string{
		"# Key rotation of the deployments of project " + testProject + "\n",
		"| Process | Host | Replica set | Cluster | Status | Role | Rotate at | Rotated | Verified | Proven by | Previous key | New key |\n",
		"| orders-0-1 | host-orders-0-1:27017 | orders-0 | orders | verified | shard | 2026-03-01T12:00:00Z | 2026-03-01T12:00:05Z | 2026-03-01T12:01:05Z | snapshot | old-orders-0-1 | new-orders-0-1 |\n",
		"## Replica sets\n\n| Replica set | Proof | Remark |\n",
		"| orders-1 | not proven | no snapshot was begun after its last member restarted |\n",
		`=cmd\|&lt;b&gt;-1`,
	} {
		assert.Contains(t, got, want)
	}
	assert.NotContains(t, got, "\x1b")
}

func TestCSVOfADeployment(t *testing.T) {
	rows, err := csv.NewReader(strings.NewReader(endedDeployment(unprovenDeployment()).csv())).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 5)
	values := func(row []string) map[string]string {
		named := map[string]string{}
		for i, name := range rows[0] {
			named[name] = row[i]
		}
		return named
	}
	proven, unproven := values(rows[2]), values(rows[3])
	assert.Equal(t, map[string]string{
		"connection": "default", "projectId": testProject, "proof": "snapshot", "outcome": "rotatedUnproven", "ticket": "CHG0031337", "requestedBy": "dana", "reason": "",
		"approvedBy": "", "approvedAt": "", "approvalComment": "", "waitingFor": "", "workflowId": "", "runId": "", "startedAt": "2026-03-01T12:00:00Z", "finishedAt": "2026-03-01T13:00:00Z",
		"process": "orders-0-1", "host": "host-orders-0-1:27017", "replicaSet": "orders-0", "clusterId": testCluster, "clusterName": "orders", "role": "shard",
		"status": "verified", "previousRotateAt": "2025-06-01T03:00:00Z", "rotateAt": "2026-03-01T12:00:00Z", "rotatedAt": "2026-03-01T12:00:05Z", "verifiedAt": "2026-03-01T12:01:05Z",
		"previousKeyUUID": "old-orders-0-1", "newKeyUUID": "new-orders-0-1", "provenBy": "snapshot", "snapshotId": "65a1f1aa0000000000000001",
		"replicaSetProvenBy": "snapshot", "replicaSetReason": "", "ambiguous": "false", "carriedOver": "false",
		"errorType": "", "errorMessage": "", "firstErrorType": "", "firstErrorMessage": "", "actions": "",
		"kmipOutcome": "", "kmipState": "", "kmipInitialDate": "", "kmipAskedAt": "",
	}, proven)
	assert.Equal(t, "no snapshot was begun after its last member restarted", unproven["replicaSetReason"])
	assert.Equal(t, "DeploymentFailed", unproven["firstErrorType"])
	assert.Equal(t, "true", unproven["ambiguous"])
	assert.Equal(t, "2026-03-01T12:00:06Z retry by erin: orders-1", unproven["actions"], "an operator has named its replica set")
	assert.Equal(t, "true", values(rows[1])["carriedOver"])
	assert.Equal(t, "'=cmd|<b>-1", values(rows[4])["process"])
}

func TestPlanOfADeployment(t *testing.T) {
	known := process("orders-0-0", workflows.StatusPlanned)
	known.PreviousKeyUUID = "old"
	p := deploymentProgress(workflows.PhaseDone, known, process("orders-0-1", workflows.StatusPlanned))
	p.Outcome = workflows.OutcomePlanned
	got := endedDeployment(p).table(layout{})
	assert.Contains(t, got, "│ Process    │ Host                  │ Replica set │ Cluster │ Role  │ Status  │ Last rotation        │ Current key │")
	assert.Contains(t, got, "│ orders-0-0 │ host-orders-0-0:27017 │ orders-0    │ orders  │ shard │ planned │ 2025-06-01T03:00:00Z │ old         │")
	assert.Contains(t, got, "│ -           │", "no snapshot shows the key")
	assert.NotContains(t, got, "proven", "a plan has nothing to prove")
	assert.Empty(t, endedDeployment(p).warning())
}

func TestLiveDisplayOfADeployment(t *testing.T) {
	failed := process("orders-1-0", workflows.StatusFailed)
	failed.Error = &workflows.TargetError{Type: workflows.ErrorDeploymentFailed, Message: "143"}
	rotating := process("orders-1-1", workflows.StatusRotating)
	rotating.RotateAt = at(10)
	p := deploymentProgress(workflows.PhaseRotating, rotatedProcess("orders-0-0", 10), verifiedProcess("orders-0-1", 20), failed, rotating, process("orders-2-0", workflows.StatusPending))
	p.WaitingFor = "Ops Manager; 1 target in progress"
	got := plain(frame{progress: deploymentStatusOf(p), now: began.Add(65 * time.Second)}.lines(size{160, 24}))
	want := `project 5196d3628d022db4cbc26d9e █████████░░░░░░░░░░░░░░░  rotating  2/5 done, 1 in progress, 1 failed, 1 of 3 replica sets proven, 1:05, about 0:20 left
waiting for Ops Manager; 1 target in progress
 Target     │ Replica set │ Status   │ Previous key   │ New key        │ Remark
────────────┼─────────────┼──────────┼────────────────┼────────────────┼──────────────────
 orders-0-0 │ orders-0    │ rotated  │                │                │
 orders-0-1 │ orders-0    │ verified │ old-orders-0-1 │ new-orders-0-1 │
 orders-1-0 │ orders-1    │ failed   │                │                │ DeploymentFailed
 orders-1-1 │ orders-1    │ rotating │                │                │
 orders-2-0 │ orders-2    │ pending  │                │                │
Ctrl-C stops watching; the rotation continues.
`
	assert.Equal(t, want, got)
}

func TestChangesOfADeployment(t *testing.T) {
	unknownBefore := verifiedProcess("orders-0-1", 5)
	unknownBefore.PreviousKeyUUID, unknownBefore.ProvenBy = "", workflows.ProvenByKMIP
	rotating := deploymentProgress(workflows.PhaseRotating, rotatedProcess("orders-0-0", 3), process("orders-0-1", workflows.StatusRotating))
	done := deploymentProgress(workflows.PhaseDone, rotatedProcess("orders-0-0", 3), unknownBefore)
	done.Outcome = workflows.OutcomeRotated
	lines := append(deploymentStatusOf(rotating).changes(nil), deploymentStatusOf(done).changes(deploymentStatusOf(rotating))...)
	assert.Equal(t, []string{
		"project " + testProject + " is rotating: 1 rotated, 1 rotating", "orders-0-0 (1 of 2) rotated", "orders-0-1 (2 of 2) rotating",
		"orders-0-1 (2 of 2) verified: key new-orders-0-1", "project " + testProject + " has ended (rotated): 1 verified, 1 rotated",
	}, lines)
}

// What the agents report is done; only what they were asked to prove is missing. A
// script must not rotate again for that.
func TestUnprovenIsAWarningAndNoFailure(t *testing.T) {
	a, stdout, stderr := newDeploymentApp()
	a.format = formatJSON
	err := a.showResultAndNext(runResult{records: endedDeployment(unprovenDeployment())})
	assert.Equal(t, exitDone, a.handleError(t.Context(), err))
	assert.Equal(t, "warning: every process is rotated, as its agent reports, but no snapshot proves the new key of orders-1; "+
		"to wait for the proof again, without rotating again:\n  keyturn rotate --deployment --project "+testProject+" --continue --wait\n", stderr.String())
	var result workflows.RotateDeploymentResult
	require.NoError(t, json.Unmarshal([]byte(stdout.String()), &result))
	assert.Equal(t, workflows.OutcomeRotatedUnproven, result.Outcome)

	a, _, stderr = newDeploymentApp()
	proven := unprovenDeployment()
	proven.Proof, proven.Outcome = workflows.ProofAgent, workflows.OutcomeRotated
	require.NoError(t, a.showResultAndNext(runResult{records: endedDeployment(proven)}))
	assert.Empty(t, stderr.String(), "nothing was to be proven")
}

func TestAHeldDeploymentNamesTheCommands(t *testing.T) {
	a, _, _ := newDeploymentApp()
	hostile := process("a b,c-0", workflows.StatusFailed)
	p := deploymentProgress(workflows.PhaseHeld, process("orders-1-0", workflows.StatusFailed), hostile)
	hostile.Host = "host:27017"
	p.Targets[1] = hostile
	named := " --deployment --project " + testProject
	assert.Equal(t, []string{
		"keyturn retry" + named + " --by dana",
		"keyturn skip" + named + " --by dana --targets orders-1-0,host:27017 --reason WHY",
		"keyturn abort" + named + " --by dana --reason WHY",
	}, deploymentStatusOf(p).nextCommands(a))
}

func TestUnsetFlagsAreLeftOutOfADeploymentsInput(t *testing.T) {
	a, _, _ := newDeploymentApp()
	assert.Equal(t, `{"projectId":"`+testProject+`","change":{"requestedBy":"dana"}}`, jsonInputOf(t, a, "--deployment", "--project", testProject))
}

func TestEveryFlagReachesADeploymentsInput(t *testing.T) {
	a, _, _ := newDeploymentApp()
	a.rotation.connection = "berlin"
	want := `{"connection":"berlin","projectId":"` + testProject + `","clusterIds":["` + testCluster + `","` + testProject + `","` + testProject + `"],` +
		`"concurrency":8,"proof":"kmip","deployTimeout":"6h0m0s","proofTimeout":"48h0m0s","requireApproval":true,"approvalTimeout":"1h0m0s","expectedTargets":13,"onFailure":"stop",` +
		`"holdTimeout":"2h0m0s","retryTimeout":"3m0s","settleTime":"4s",` +
		`"change":{"ticket":"CHG1","requestedBy":"erin","reason":"yearly"}}`
	got := jsonInputOf(t, a, "--deployment", "--cluster", testCluster+","+testProject, "--cluster", testProject,
		"--concurrency", "8", "--proof", "kmip", "--deploy-timeout", "6h", "--proof-timeout", "2d", "--require-approval", "--approval-timeout", "1h", "--expected-targets", "13",
		"--on-failure", "stop", "--hold-timeout", "2h", "--retry-timeout", "3m", "--settle-time", "4s",
		"--ticket", "CHG1", "--requested-by", "erin", "--reason", "yearly")
	assert.JSONEq(t, want, got)
}

// The help must show what the workflow does without a flag.
func TestTheHelpShowsADeploymentsDefaults(t *testing.T) {
	_, stdout, _ := runHere(t, nil, nil, "rotate", "--help")
	for _, want := range []string{"(default 4, with --deployment 1)", `(default "snapshot")`, "(default 2h)", "(default 1d2h)"} {
		assert.Contains(t, strings.Join(strings.Fields(stdout), " "), want)
	}
}

// A rotation of some clusters does not become one of all when it is continued.
func TestContinuingADeployment(t *testing.T) {
	rotating, pending, unchanged := process("orders-2-0", workflows.StatusFailed), process("orders-3-0", workflows.StatusPending), rotatedProcess("orders-4-0", 5)
	rotating.RotateAt, rotating.Error = at(20), &workflows.TargetError{Type: workflows.ErrorDeploymentFailed, Message: "143"}
	unchanged.Status, unchanged.Error = workflows.StatusFailed, &workflows.TargetError{Type: workflows.ErrorKeyUnchanged, Message: "the same"}
	p := deploymentProgress(workflows.PhaseDone, verifiedProcess("orders-0-1", 5), rotatedProcess("orders-1-0", 6), rotating, pending, unchanged)
	p.Outcome = workflows.OutcomePartial
	for name, value := range map[string]any{"a result": p.RotateDeploymentResult, "a progress": p} {
		a, _, stderr := newDeploymentApp()
		var input rotationInput
		require.NoError(t, a.continueFromFile(continueFlags{file: writeFile(t, "report.json", saved(t, value))}, &input), name)
		assert.Equal(t, []string{testCluster}, input.deployment.ClusterIDs)
		var processes []string
		for _, record := range input.deployment.Completed {
			processes = append(processes, record.Process)
			assert.Nil(t, record.Error)
		}
		assert.Equal(t, []string{"orders-0-1", "orders-1-0", "orders-2-0"}, processes, "what was shown to be unchanged must be rotated again")
		assert.Contains(t, stderr.String(), "2 of 5 processes are rotated and not rotated again")
		assert.Contains(t, stderr.String(), "a time may have been published for 1 more")
	}
	// One that only lacks its proof waits for it again.
	a, _, stderr := newDeploymentApp()
	var input rotationInput
	require.NoError(t, a.continueFromFile(continueFlags{file: writeFile(t, "report.json", saved(t, unprovenDeployment()))}, &input))
	assert.Len(t, input.deployment.Completed, 4)
	assert.Contains(t, stderr.String(), "4 of 4 processes are rotated")
}

func TestADeploymentIsContinuedFromItsOwnRecordsOnly(t *testing.T) {
	other := unprovenDeployment()
	other.ProjectID = testCluster
	rotated := unprovenDeployment()
	rotated.Outcome = workflows.OutcomeRotated
	for want, value := range map[string]any{
		"is not the report of a rotation of deployments: it has no proof": partialResult(),
		"is the report of another project: rotate-deployment:default:":    other,
		"nothing is left to continue":                                     rotated,
	} {
		a, _, _ := newDeploymentApp()
		err := a.continueFromFile(continueFlags{file: writeFile(t, "report.json", saved(t, value))}, &rotationInput{})
		assert.ErrorContains(t, err, want)
	}
	a, _, _ := newTestApp()
	err := a.continueFromFile(continueFlags{file: writeFile(t, "report.json", saved(t, unprovenDeployment()))}, &rotationInput{})
	assert.ErrorContains(t, err, "is not the report of a cluster's rotation: it has no clusterId")
}

func TestWhatADeploymentsScheduleRotates(t *testing.T) {
	for input, want := range map[string]string{
		`{"projectId":"` + testProject + `"}`:                                              "the deployments of project " + testProject + ", connection default",
		`{"projectId":"` + testProject + `","clusterIds":["a","b"],"connection":"berlin"}`: "the deployments of 2 clusters of project " + testProject + ", connection berlin",
		`{}`: "unknown: the input does not name a project",
	} {
		_, subject := scheduledRotation(workflows.RotateDeploymentType, json.RawMessage(input))
		assert.Equal(t, want, subject, input)
	}
}
