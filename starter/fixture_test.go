package main

import (
	"bytes"
	"io"
	"testing"
	"time"

	"keyturn/activities"
	"keyturn/internal/setting"
	"keyturn/workflows"
)

const (
	testProject = "5196d3628d022db4cbc26d9e"
	testCluster = "5196e5b0e4b0fca9cc88334a"
)

// newTestApp is a command line about the test cluster.
func newTestApp() (a *app, stdout, stderr *bytes.Buffer) {
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	a = &app{env: setting.Environment{}, stdin: bytes.NewReader(nil), stdout: stdout, stderr: stderr, user: "dana", format: formatTable}
	a.rotation = rotationName{connection: workflows.DefaultConnection, project: testProject, cluster: testCluster}
	return a, stdout, stderr
}

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(seconds int) *time.Time {
	t := began.Add(time.Duration(seconds) * time.Second)
	return &t
}

func target(number, name string, status workflows.Status) workflows.TargetRecord {
	return workflows.TargetRecord{
		Target: activities.Target{ClusterID: "5196e5b0e4b0fca9cc8833" + number, Name: name, Role: "shard"}, Status: status, PreviousKeyUUID: "old-" + number,
	}
}

func verified(number, name string, second int) workflows.TargetRecord {
	record := target(number, name, workflows.StatusVerified)
	record.NewKeyUUID, record.Attempts = "new-"+number, 1
	record.RotatedAt, record.VerifiedAt = at(second-1), at(second)
	return record
}

// partialResult has a record of each kind, and names that mean harm.
func partialResult() workflows.RotateClusterResult {
	carried := verified("01", "orders-1", 2)
	carried.CarriedOver = true
	ambiguous := verified("02", "orders-2", 4)
	ambiguous.Ambiguous, ambiguous.Attempts, ambiguous.ReplacedOutside = true, 3, "older-02"
	ambiguous.FirstError = &workflows.TargetError{Type: workflows.ErrorForbidden, Message: "403"}
	skipped := target("03", "=cmd|' /C calc'!A0", workflows.StatusSkipped)
	skipped.Error = &workflows.TargetError{Type: "Skipped", Message: "skipped by erin: retired"}
	failed := target("04", "a|b\n\x1b[31mred\x1b[0m\u202e<b>", workflows.StatusFailed)
	failed.Error = &workflows.TargetError{Type: workflows.ErrorKeyUnchanged, Message: "accepted, \"never\" changed"}
	failed.RotatedAt, failed.Attempts = at(5), 1
	return workflows.RotateClusterResult{
		Connection: "default", ProjectID: testProject, ClusterID: testCluster, ClusterName: "orders", Outcome: workflows.OutcomePartial,
		StartedAt: began, FinishedAt: at(90),
		Change:   workflows.Change{Ticket: "CHG0031337", RequestedBy: "dana", Reason: "@quarterly"},
		Approval: &workflows.Approval{By: "erin", At: *at(-1), Comment: "go"},
		Actions: []workflows.Action{
			{At: *at(1), By: "dana", Action: workflows.PauseUpdate, Reason: "<i> | peak"},
			{At: *at(2), By: "erin", Action: workflows.RetryUpdate, Targets: []string{"orders-2"}},
		},
		ActionsNotListed: 7,
		Targets:          []workflows.TargetRecord{verified("00", "orders-0", 1), carried, ambiguous, skipped, failed},
	}
}

// progressOf makes a progress with the counts that fit its targets.
func progressOf(phase workflows.Phase, targets ...workflows.TargetRecord) workflows.Progress {
	p := workflows.Progress{
		RotateClusterResult: workflows.RotateClusterResult{
			Connection: "default", ProjectID: testProject, ClusterID: testCluster, ClusterName: "orders", StartedAt: began, Targets: targets,
		},
		Phase: phase,
	}
	p.Counts = countsOf((&clusterRecords{p}).targets())
	return p
}

// endedStatus is the status of a rotation that has ended.
func endedStatus(result workflows.RotateClusterResult, failure string) *rotationStatus {
	status := clusterStatusOf(workflows.Progress{RotateClusterResult: result})
	status.markEnded(failure)
	return status
}

// runHere runs a command line that needs no server.
func runHere(t *testing.T, env []string, stdin io.Reader, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, messages bytes.Buffer
	env = append([]string{"TEMPORAL_CONFIG_FILE=" + noProfile(t)}, env...)
	code = run(t.Context(), args, env, stdin, &out, &messages)
	return code, out.String(), messages.String()
}

// noProfile is a temporal.toml without profiles: the user's own must not matter.
func noProfile(t *testing.T) string {
	t.Helper()
	return writeFile(t, "temporal.toml", "# no profile\n")
}
