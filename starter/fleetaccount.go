package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"keyturn/workflows"
)

// fleetAccount tells of a fleet's rotation.
type fleetAccount struct {
	workflows.FleetProgress
	failure string // of one that has failed
}

func (f *fleetAccount) state() (phase, waitingFor string) { return f.Phase, f.WaitingFor }

// conclude keeps the clusters in work: those of a fleet that was terminated go
// on.
func (f *fleetAccount) conclude(failure string) {
	f.Phase, f.WaitingFor, f.ClustersPerHour, f.SecondsLeft = workflows.PhaseDone, "", 0, 0
	f.failure = failure
}

func (f *fleetAccount) result() any { return f.RotateFleetResult }

// waysOn are none: a fleet waits for nobody. Its clusters may.
func (f *fleetAccount) waysOn(*app) []string { return nil }

func (f *fleetAccount) name() string { return "fleet " + f.Connection }

func (f *fleetAccount) briefly() []string {
	return inTwoLines(fmt.Sprintf("%s: %s: %s", f.name(), f.Phase, f.Counts), f.WaitingFor)
}

// pace is how fast it goes, and how long it takes; empty = not known.
func (f *fleetAccount) pace() string {
	if f.ClustersPerHour == 0 {
		return ""
	}
	pace := fmt.Sprintf("%.1f clusters an hour", f.ClustersPerHour)
	if f.SecondsLeft > 0 {
		pace = "about " + clock(time.Duration(f.SecondsLeft)*time.Second) + " left, " + pace
	}
	return pace
}

func (f *fleetAccount) facts() []fact {
	return knownOf([]fact{
		{"Fleet", "connection " + f.Connection},
		{"Outcome", outcomeText(f.Outcome, f.Phase)},
		{"Waiting for", f.WaitingFor},
		{"Failure", f.failure},
		{"Requested by", orDash(f.Change.RequestedBy)},
		{"Ticket", orDash(f.Change.Ticket)},
		{"Reason", orDash(f.Change.Reason)},
		{"Started", timeText(&f.StartedAt)},
		{"Finished", finishedText(f.StartedAt, f.FinishedAt)},
		{"Clusters", f.Counts.String()},
		{"Targets", f.verifiedText()},
		{"Pace", f.pace()},
	})
}

func (f *fleetAccount) verifiedText() string {
	if f.TargetsVerified == 0 {
		return ""
	}
	return fmt.Sprintf("%d verified", f.TargetsVerified)
}

// failureRows are the failed clusters, as they are.
func (f *fleetAccount) failureRows() (rows []table.Row) {
	for _, failed := range f.Failures {
		rows = append(rows, table.Row{failed.ClusterName, failed.ProjectID, failed.ClusterID, failed.WorkflowID, failed.RunID, failed.Error.Type, failed.Error.Message})
	}
	return rows
}

func (f *fleetAccount) inWorkRows() (rows []table.Row) {
	for _, c := range f.InWork {
		rows = append(rows, table.Row{c.ClusterName, timeText(&c.StartedAt), c.WorkflowID})
	}
	return rows
}

func (f *fleetAccount) table() string {
	var b strings.Builder
	b.WriteString(headOf(f.facts()))
	if len(f.InWork) > 0 {
		t := newTable()
		t.AppendHeader(table.Row{"In work", "Since", "Workflow"})
		for _, row := range f.inWorkRows() {
			t.AppendRow(cleaned(row))
		}
		b.WriteString("\n" + t.Render() + "\n")
	}
	if len(f.Failures) > 0 {
		b.WriteString("\nFailed\n")
	}
	for _, failed := range f.Failures {
		fmt.Fprintf(&b, "  %s: %s: %s\n    %s, run %s\n", clean(failed.ClusterName), clean(failed.Error.Type), clean(failed.Error.Message), clean(failed.WorkflowID), clean(failed.RunID))
	}
	b.WriteString(f.notListed("  "))
	return b.String()
}

// notListed tells of the failures that the records have no room for.
func (f *fleetAccount) notListed(indent string) string {
	if f.FailuresNotListed == 0 {
		return ""
	}
	return fmt.Sprintf("%sand %d more, which the records have no room for: see report --fleet --clusters\n", indent, f.FailuresNotListed)
}

func cleaned(row table.Row) table.Row {
	for i := range row {
		row[i] = clean(fmt.Sprint(row[i]))
	}
	return row
}

func (f *fleetAccount) markdown() string {
	var b strings.Builder
	b.WriteString(markdownHead("Key rotation of the "+f.name(), f.facts()))
	if rows := f.inWorkRows(); len(rows) > 0 {
		b.WriteString("\n## In work\n\n" + markdownTable(table.Row{"Cluster", "Since", "Workflow"}, rows) + "\n")
	}
	if rows := f.failureRows(); len(rows) > 0 {
		b.WriteString("\n## Failed\n\n" + markdownTable(failureColumns, rows) + "\n" + f.notListed("\n"))
	}
	return b.String()
}

// fleetColumns are the same in all rows of a fleet's report.
var (
	fleetColumns = table.Row{"connection", "outcome", "ticket", "requestedBy", "reason", "startedAt", "finishedAt",
		"clusters", "rotated", "planned", "busy", "notEncrypted", "failed", "notStarted", "targetsVerified"}
	failureColumns = table.Row{"cluster", "projectId", "clusterId", "workflowId", "runId", "errorType", "errorMessage"}
)

func (f *fleetAccount) fleetValues() []string {
	values := []string{f.Connection, f.Outcome, f.Change.Ticket, f.Change.RequestedBy, f.Change.Reason, timeText(&f.StartedAt), timeText(f.FinishedAt)}
	c := f.Counts
	for _, n := range []int{c.Clusters, c.Rotated, c.Planned, c.Busy, c.NotEncrypted, c.Failed, c.NotStarted, f.TargetsVerified} {
		values = append(values, strconv.Itoa(n))
	}
	return values
}

// csv has a row a failed cluster; one, with the counts, if there is none.
func (f *fleetAccount) csv() string {
	t := newCSV()
	t.AppendHeader(append(append(table.Row{}, fleetColumns...), failureColumns...))
	rows := f.failureRows()
	if len(rows) == 0 {
		rows = []table.Row{{"", "", "", "", "", "", ""}}
	}
	for _, row := range rows {
		t.AppendRow(append(cleanRow(f.fleetValues()...), cleaned(row)...))
	}
	return t.RenderCSV()
}

func (f *fleetAccount) statusLine(now time.Time) string {
	parts := []string{fmt.Sprintf("%d/%d clusters done", f.Counts.Ended(), f.Counts.Clusters)}
	if n := len(f.InWork); n > 0 {
		parts = append(parts, fmt.Sprintf("%d in work", n))
	}
	if f.Counts.Failed > 0 {
		parts = append(parts, text.FgRed.Sprintf("%d failed", f.Counts.Failed))
	}
	parts = append(parts, clock(elapsed(f.StartedAt, f.FinishedAt, now)))
	if pace := f.pace(); pace != "" {
		parts = append(parts, pace)
	}
	return fmt.Sprintf("%s %s  %s  %s", clean(f.name()), bar(f.Counts.Ended(), f.Counts.Clusters), phaseText(f.Phase), strings.Join(parts, ", "))
}

// rows are the clusters in work and the latest failures, which have half of the
// room at the most while there are others.
func (f *fleetAccount) rows(now time.Time, screen size) []string {
	room := max(screen.height-1-linesAround, 1)
	failed := min(len(f.Failures), max(room/2, room-len(f.InWork)))
	inWork := min(len(f.InWork), room-failed)
	if failed+inWork == 0 {
		return nil
	}
	lines := strings.Split(liveClusters(f.InWork[:inWork], f.Failures[len(f.Failures)-failed:], now), "\n")
	if more := len(f.InWork) - inWork; more > 0 {
		lines = append(lines, text.Faint.Sprintf("and %d more in work", more))
	}
	return lines
}

func liveClusters(inWork []workflows.FleetCluster, failed []workflows.ClusterFailure, now time.Time) string {
	t := newTable()
	t.Style().Options.DrawBorder = false
	t.AppendHeader(table.Row{"Cluster", "Status", "Remark", "Workflow"})
	for _, c := range inWork {
		status := text.FgCyan.Sprint("in work " + clock(elapsed(c.StartedAt, nil, now)))
		t.AppendRow(table.Row{text.Snip(clean(c.ClusterName), longestName, "…"), status, "", clean(c.WorkflowID)})
	}
	for _, c := range failed {
		t.AppendRow(table.Row{text.Snip(clean(c.ClusterName), longestName, "…"), statusText(workflows.StatusFailed), clean(c.Error.Type), clean(c.WorkflowID)})
	}
	return t.Render()
}

// changes are a line for the phase, or for the counts, and one for each new
// failure: clusters come and go too fast to name them all.
func (f *fleetAccount) changes(since account) (lines []string) {
	before, isKnown := since.(*fleetAccount)
	if !isKnown {
		before = &fleetAccount{}
	}
	if before.Phase != f.Phase || before.Counts != f.Counts {
		lines = append(lines, f.standing())
	}
	for _, failed := range f.Failures[min(len(before.Failures), len(f.Failures)):] {
		lines = append(lines, clean(fmt.Sprintf("%s failed: %s: %s (workflow id %s)", failed.ClusterName, failed.Error.Type, failed.Error.Message, failed.WorkflowID)))
	}
	return lines
}

// standing is the whole in a line.
func (f *fleetAccount) standing() string {
	line := fmt.Sprintf("%s is %s: %s", f.name(), f.Phase, f.Counts)
	if pace := f.pace(); pace != "" {
		line += "; " + pace
	}
	if f.WaitingFor != "" {
		line += "; waiting for " + f.WaitingFor
	}
	return clean(line)
}
