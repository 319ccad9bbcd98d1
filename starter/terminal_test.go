package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/workflows"
)

// expectOnTerminal compares what terminals of two widths show with golden files:
// testdata/NAME-80.txt and testdata/NAME-120.txt, which -update rewrites. No line is
// wider than the terminal, colors change nothing but the colors, and a pipe gets
// everything.
func expectOnTerminal(t *testing.T, name string, show func(layout) string) {
	t.Helper()
	for _, width := range []int{80, 120} {
		got := strings.TrimRight(show(layout{width: width}), "\n") + "\n"
		file := filepath.Join("testdata", fmt.Sprintf("%s-%d.txt", name, width))
		if *updateGolden {
			require.NoError(t, os.WriteFile(file, []byte(got), 0o600))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, string(want), got, file)
		for line := range strings.Lines(got) {
			assert.LessOrEqual(t, text.StringWidthWithoutEscSequences(strings.TrimRight(line, "\n")), width, "%s: %s", file, line)
		}
		assert.NotContains(t, got, "\x1b", "%s: names are other people's", file)
		colored := strings.TrimRight(show(layout{width: width, colored: true}), "\n") + "\n"
		assert.Equal(t, got, escapeSequence.ReplaceAllString(colored, ""), file)
	}
	piped := show(layout{})
	assert.NotContains(t, piped, "\x1b")
	assert.NotContains(t, piped, "…")
}

const (
	longName  = "a-cluster-with-a-very-long-display-name-that-somebody-has-chosen-once"
	longShard = "a-cluster-with-a-long-display-name-shard-1"
	longKey   = "001c36b3-c519-4c3b-a5e0-b1ff12bef66"
	longRun   = "6f1c1a52-8a3f-4d5c-9c0b-3a53a8a2f001"
)

// longError is what a proxy and an Ops Manager have to say.
const longError = "PUT /api/public/v1.0/groups/5196d3628d022db4cbc26d9e/backup/masterkey/5196e5b0e4b0fca9cc883303 was answered with 403 Forbidden, " +
	"USER_UNAUTHORIZED: the API key lacks the role Project Backup Admin in this project; grant it, or give the worker another key, and retry"

func longTarget(record workflows.TargetRecord, name string, n int) workflows.TargetRecord {
	record.Name, record.PreviousKeyUUID = name, fmt.Sprintf("%s%d", longKey, n)
	if record.NewKeyUUID != "" {
		record.NewKeyUUID = fmt.Sprintf("%s%d", longKey, n+1)
	}
	return record
}

// heldCluster is held, by long errors on targets with long names.
func heldCluster() *rotationStatus {
	first := longTarget(verified("00", "", 5), "orders-0", 0)
	failed := longTarget(target("01", "", workflows.StatusFailed), longShard, 4)
	failed.Error, failed.Attempts = &workflows.TargetError{Type: workflows.ErrorForbidden, Message: longError}, 1
	p := progressOf(workflows.PhaseHeld, first, failed, longTarget(target("02", "", workflows.StatusPending), "生命"+longName, 6))
	p.ClusterName, p.Outcome = longName, ""
	p.Change = workflows.Change{Ticket: "CHG0031337", RequestedBy: "dana", Reason: strings.Repeat("quarterly rotation, as the policy asks; ", 4)}
	p.Approval = &workflows.Approval{By: "erin", At: *at(-1), Comment: "go, but not between 08:00 and 18:00 of any time zone that has customers in it, please"}
	p.Actions = []workflows.Action{{At: *at(1), By: "erin", Action: workflows.RetryUpdate, Targets: []string{longShard}, Reason: "the role was granted, as the security team says"}}
	p.WaitingFor = "an operator to retry, skip or abort, until 2026-03-08T12:00:07Z: " + longShard + " failed (Forbidden)"
	return reported(clusterStatusOf(p))
}

func reported(status *rotationStatus) *rotationStatus {
	status.ofRun(status.records.workflowID(), longRun)
	return status
}

func heldDeployment() *rotationStatus {
	failed := process("orders-1-0", workflows.StatusFailed)
	failed.Error, failed.Host, failed.RotateAt = &workflows.TargetError{Type: workflows.ErrorDeploymentFailed, Message: longError}, longName+".db.example.net:27017", at(60)
	proven := verifiedProcess("orders-0-1", 5)
	proven.PreviousKeyUUID, proven.NewKeyUUID = longKey+"1", longKey+"2"
	p := deploymentProgress(workflows.PhaseHeld, rotatedProcess("orders-0-0", 3), proven, failed, process("orders-1-1", workflows.StatusPending))
	p.WaitingFor = "an operator to retry, skip or abort, until 2026-03-08T12:00:07Z: orders-1-0 failed (DeploymentFailed)"
	p.Targets[3].ClusterName = longName
	return reported(deploymentStatusOf(p))
}

func plannedCluster() *rotationStatus {
	planned := progressOf(workflows.PhaseDone, longTarget(target("00", "", workflows.StatusPlanned), longName+"-shard-0", 1), longTarget(target("01", "", workflows.StatusPlanned), "orders-1", 2))
	planned.Outcome = workflows.OutcomePlanned
	return reported(clusterStatusOf(planned))
}

func plannedDeployment() *rotationStatus {
	planned := deploymentProgress(workflows.PhaseDone, process("orders-0-0", workflows.StatusPlanned), process("orders-0-1", workflows.StatusPlanned))
	planned.Targets[1].PreviousKeyUUID = longKey + "1"
	planned.Outcome = workflows.OutcomePlanned
	return reported(deploymentStatusOf(planned))
}

func fleetWithTroubles() *fleetStatus {
	f := fleetAtWork()
	failed := failureOf("06", longName)
	failed.RunID, failed.Error = longRun, &workflows.TargetError{Type: workflows.ErrorPartialFailure, Message: longError}
	f.Failures = append(f.Failures, failed)
	f.InProgress = append(f.InProgress, inProgress("07", longName, 30))
	f.LeftOut = []workflows.ClusterLeftOut{{ClusterRef: refOf("08", longName), Reason: workflows.LeftOutNotEncrypted}}
	f.FailuresNotListed, f.LeftOutNotListed = 7, 9
	f.Actions = heldCluster().records.common().actions
	f.ofRun(workflows.RotateFleetID("default"), longRun)
	return f
}

// A rotation is shown alike by report, watch and rotate --wait.
func TestReportsOnTerminals(t *testing.T) {
	for name, status := range map[string]statusView{
		"report-cluster": reported(endedStatus(witnessedResult(), "PartialFailure: 3 of 5 targets verified")), "report-cluster-held": heldCluster(), "plan-cluster": plannedCluster(),
		"report-deployment": endedDeployment(unprovenDeployment()), "report-deployment-held": heldDeployment(), "plan-deployment": plannedDeployment(),
		"report-fleet": fleetWithTroubles(), "report-fleet-deployments": fleetOfDeployments(),
	} {
		t.Run(name, func(t *testing.T) { expectOnTerminal(t, name, status.table) })
	}
}

func TestLiveDisplaysOnTerminals(t *testing.T) {
	for name, status := range map[string]statusView{
		"watch-cluster": clusterStatusOf(halfDone()), "watch-cluster-held": heldCluster(), "watch-deployment-held": heldDeployment(),
		"watch-fleet": fleetWithTroubles(), "watch-fleet-deployments": fleetOfDeployments(),
	} {
		t.Run(name, func(t *testing.T) {
			show := func(l layout) string {
				width := l.width
				if width == 0 {
					width = 400
				}
				f := frame{progress: status, notice: "no worker answers the query: start a worker on task queue \"key-rotation\"; still trying", now: began.Add(65 * time.Second), colored: l.colored}
				return strings.Join(f.lines(size{width, 24}), "\n")
			}
			expectOnTerminal(t, name, show)
		})
	}
}

// What a command says that waits, fails, or is accepted.
func TestMessagesOnTerminals(t *testing.T) {
	a, _, _ := newTestApp()
	held := heldCluster()
	expectOnTerminal(t, "error-held", func(l layout) string {
		return errorText(l, withHint(&waitingError{workflows.PhaseHeld, *held.records.common().waitingFor}, held.nextCommands(a)...))
	})
	expectOnTerminal(t, "error", func(l layout) string { return errorText(l, errors.New(longError)) })
	for _, name := range []string{"approve", "reject", "pause", "resume", "retry", "skip", "abort"} {
		expectOnTerminal(t, name, func(l layout) string {
			var lines []string
			for _, line := range append([]string{name + ": accepted"}, held.summary()...) {
				lines = append(lines, l.line(line))
			}
			return strings.Join(lines, "\n")
		})
	}
}

func TestSchedulesOnTerminals(t *testing.T) {
	a, _, _ := newTestApp()
	paused := pausedRecord()
	paused.ID, paused.LastRun.Outcome = workflows.RotateClusterID("default", testProject, testCluster), "PartialFailure: "+longError
	paused.Summary = strings.Repeat("Rotate the KMIP master key: all of it; ", 4)
	records := scheduleRecords{paused, {ID: "plain", Subject: "unknown", scheduleSettings: scheduleSettings{Times: "every 1d12h", TimeZone: "UTC", Jitter: "0s"}}}
	expectOnTerminal(t, "schedule-list", func(l layout) string { return records.table(l) + a.unpauseLines(l, records) })
	expectOnTerminal(t, "schedule-show", paused.table)
	expectOnTerminal(t, "schedule-apply", func(l layout) string {
		lines := []string{l.line("updated schedule " + paused.ID)}
		for _, line := range changedLines("note: x\n", yamlText(paused)) {
			lines = append(lines, l.line("  "+line))
		}
		return strings.Join(lines, "\n") + "\n" + l.head(paused.facts(), "")
	})
}

func TestKeysAndRecordsOnTerminals(t *testing.T) {
	past, until := began.AddDate(0, -1, 0), began.AddDate(1, 0, 0)
	keys := &keyView{now: began, Reasons: []workflows.IncompleteReason{{ProjectID: testProject, ClusterName: longName, Message: longError}}, Keys: []workflows.KeyRecord{
		{KeyUUID: longKey + "1", Verdict: workflows.VerdictCurrent, ClusterNames: []string{"orders"}, ReplicaSets: []string{"orders-0", "orders-1", "orders-2", "orders-3"}, Snapshots: 12, NewestSnapshot: &began},
		{KeyUUID: longKey + "2", Verdict: workflows.VerdictNeeded, NeededUntil: &past, ClusterNames: []string{longName}, Snapshots: 3, NewestSnapshot: &past,
			KMIP: &workflows.KeyEvidence{Outcome: workflows.EvidenceWitnessed, State: "Deactivated", InitialDate: at(0), AskedAt: *at(1)}},
		{KeyUUID: longKey + "3", Verdict: workflows.VerdictNamedByNoSnapshot, NeededUntil: &until, ClusterIDs: []string{testCluster}},
	}}
	expectOnTerminal(t, "keys", keys.table)

	age := workflows.Duration(100 * 24 * time.Hour)
	overdue := &overdueView{Connection: "default", OlderThan: workflows.Duration(95 * 24 * time.Hour), CheckedAt: began, Reasons: keys.Reasons, Clusters: []keyAge{
		{Status: keyDrifted, ClusterID: testCluster, ClusterName: longName, Target: "orders-config", KeyUUID: longKey + "1", RotatedAt: at(0), Age: &age, Targets: 4, Checked: 4,
			Reason: "the key of orders-config is no longer " + longKey + "1"},
		{Status: keyOK, ClusterID: testCluster, ClusterName: "audit", Target: "audit", KeyUUID: longKey + "2", RotatedAt: at(0), Age: &age, Targets: 1, Checked: 1},
		{Status: keyNever, ClusterID: testCluster, ClusterName: "billing", Reason: "the ledger has no rotation of it"},
	}}
	expectOnTerminal(t, "overdue", overdue.table)

	entry := ledgerentry.Entry{Record: ledgerentry.Record{
		Kind: ledgerentry.KindCluster, Connection: "default", ProjectID: testProject, Clusters: []ledgerentry.Cluster{{ID: testCluster, Name: longName}}, Outcome: "rotatedWithSkips",
		Ticket: "CHG0031337", RequestedBy: "dana", ApprovedBy: "erin", ActedBy: []string{"erin", "kim"}, StartedAt: began, FinishedAt: *at(90), RunID: longRun, Source: "workflow",
	}}
	history := &historyView{period: "from 2026-01-01 to 2026-03-31 (UTC)", entries: []historyEntry{{Entry: entry}}}
	expectOnTerminal(t, "history", history.table)

	chain := ledgerentry.Chain("default", testProject, testCluster)
	verification := &verificationView{Verification: ledger.Verification{Entries: 3, Chains: 1, Unsigned: 3, Faults: []ledger.Fault{
		{Chain: chain, Sequence: 2, Reason: "hash", Detail: "its content was changed: its hash is " + strings.Repeat("0", 64) + ", and its content has " + strings.Repeat("f", 64)},
	}, MissingTriggers: []string{"entries_no_update"}}}
	expectOnTerminal(t, "ledger-verify", verification.table)
}

func TestColorsShowStatuses(t *testing.T) {
	got := heldCluster().table(layout{width: 80, colored: true})
	assert.Contains(t, got, "\x1b[32mverified\x1b[0m")
	assert.Contains(t, got, "\x1b[31mfailed\x1b[0m")
	assert.Contains(t, got, "Outcome       \x1b[36mnone yet: held\x1b[0m")
}

// A command that is wrapped can be pasted: a shell joins its lines.
func TestWrappedCommandsCanBePasted(t *testing.T) {
	command := "  keyturn skip --project " + testProject + " --cluster " + testCluster + " --targets 'orders-0 --orders-1-with-a-name-that-is-longer-than-the-rest-of-the-line' --reason WHY --by dana"
	wrapped := layout{width: 80}.line(command)
	assert.Contains(t, wrapped, " \\\n      --")
	assert.NotContains(t, wrapped, "orders-0 \\\n")
	assert.Equal(t, strings.Fields(command), strings.Fields(strings.ReplaceAll(wrapped, "\\\n", " ")))
	assert.Equal(t, command, layout{}.line(command))
}
