package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"keyturn/workflows"
)

// fleetStatus is the status of a fleet's rotation.
type fleetStatus struct {
	workflows.FleetProgress
	failure string // of one that failed
	// workflowID and runID are empty in what is not a report.
	workflowID, runID string
}

func (f *fleetStatus) value() any { return &f.FleetProgress }

// counts is a sentence about them.
func (f *fleetStatus) counts() string { return f.Counts.Text(f.Kind) }

func (f *fleetStatus) isOfDeployments() bool { return f.Kind == workflows.FleetOfDeployments }

// fleet is the connection's fleet of this kind, whatever this one's workflow ID is.
func (f *fleetStatus) fleet() rotationName {
	return rotationName{connection: f.Connection, fleet: true, deployment: f.isOfDeployments()}
}

func (f *fleetStatus) state() (workflows.Phase, string) { return f.Phase, f.WaitingFor }

func (f *fleetStatus) outcome() (outcome, counts string) {
	return string(f.Outcome), f.counts()
}

// markEnded keeps the clusters in progress: those of a terminated fleet
// continue.
func (f *fleetStatus) markEnded(failure string) {
	f.Phase, f.WaitingFor, f.ClustersPerHour, f.SecondsLeft = workflows.PhaseDone, "", 0, 0
	f.failure = failure
}

func (f *fleetStatus) result() any { return f.RotateFleetResult }

func (f *fleetStatus) warning() string {
	if f.Counts.Unproven == 0 {
		return ""
	}
	return pluralize(f.Counts.Unproven, f.Kind.Noun()) + " rotated, as the agents report, but not proven; to see which, and why, before you continue each with --deployment --project and --continue"
}

func (f *fleetStatus) ofRun(workflowID, runID string) { f.workflowID, f.runID = workflowID, runID }

func (f *fleetStatus) isPlan() bool {
	return f.Outcome == workflows.OutcomePlanned || f.Counts.Planned > 0
}

func (f *fleetStatus) isUnfinished() bool {
	return f.Phase == workflows.PhaseDone && !f.isPlan() && f.Counts.Clusters > f.Counts.Rotated && f.failure != ""
}

func (f *fleetStatus) nextCommands(a *app) []string {
	if f.Phase == workflows.PhasePaused {
		return []string{a.resumeLine(), a.abortLine()}
	}
	return nil
}

func (f *fleetStatus) name() string {
	if f.isOfDeployments() {
		return "fleet of deployments " + f.Connection
	}
	return "fleet " + f.Connection
}

// stateLine is the phase, or the outcome, and the counts in one line.
func (f *fleetStatus) stateLine() string {
	return fmt.Sprintf("%s %s: %s", f.name(), phaseWords(f.Phase, f.Outcome), f.counts())
}

func (f *fleetStatus) summary() []string {
	return summaryLines(f.stateLine(), f.WaitingFor)
}

// timeLeft is the estimated time left; empty = not known.
func (f *fleetStatus) timeLeft() string {
	if f.SecondsLeft == 0 || f.Phase != workflows.PhaseRotating {
		return ""
	}
	return "about " + clock(time.Duration(f.SecondsLeft)*time.Second)
}

func (f *fleetStatus) facts() []fact {
	kind, members := "", "Clusters"
	if f.isOfDeployments() {
		kind, members = "deployments of projects", "Projects"
	}
	return nonEmpty([]fact{
		{"Fleet", "connection " + f.Connection},
		{"Rotates", kind},
		{"Workflow ID", f.workflowID},
		{"Run ID", f.runID},
		{"Outcome", outcomeText(f.Outcome, f.Phase)},
		{"Waiting for", f.WaitingFor},
		{"Failure", f.failure},
		{"Requested by", orDash(f.Change.RequestedBy)},
		{"Ticket", orDash(f.Change.Ticket)},
		{"Reason", orDash(f.Change.Reason)},
		{"Started", timeText(&f.StartedAt)},
		{"Finished", finishedText(f.StartedAt, f.FinishedAt)},
		{members, f.counts()},
		{"Targets", f.targetsText()},
		{"Time left", f.timeLeft()},
	})
}

func (f *fleetStatus) targetsText() string {
	switch {
	case f.TargetsRotated > 0:
		return fmt.Sprintf("%d rotated, %d of them verified", f.TargetsRotated, f.TargetsVerified)
	case f.TargetsVerified > 0:
		return fmt.Sprintf("%d verified", f.TargetsVerified)
	default:
		return ""
	}
}

func (f *fleetStatus) failureRows() (rows [][]string) {
	for _, failed := range f.Failures {
		rows = append(rows, append(memberOf(failed.ClusterRef), failed.WorkflowID, failed.RunID, string(failed.Error.Type), failed.Error.Message))
	}
	return rows
}

// memberOf has the first columns of what is about a cluster or project of the fleet.
func memberOf(ref workflows.ClusterRef) []string {
	return []string{ref.ClusterName, ref.ProjectID, ref.ClusterID}
}

// markdownTable is a table of rows that begin with memberOf. Projects have neither name
// nor ID of a cluster.
func (f *fleetStatus) markdownTable(rows [][]string, more ...string) string {
	header, first := table.Row{"Cluster", "Project ID", "Cluster ID"}, []int{0, 1, 2}
	if f.isOfDeployments() {
		header, first = table.Row{"Project ID"}, []int{1}
	}
	for _, title := range more {
		header = append(header, title)
	}
	var cells []table.Row
	for _, row := range rows {
		var values []string
		for _, i := range first {
			values = append(values, row[i])
		}
		cells = append(cells, cleanRow(append(values, row[3:]...)...))
	}
	return markdownTable(header, cells) + "\n"
}

func (f *fleetStatus) leftOutRows() (rows [][]string) {
	for _, left := range f.LeftOut {
		rows = append(rows, append(memberOf(left.ClusterRef), string(left.Reason)))
	}
	return rows
}

func (f *fleetStatus) table(l layout) string {
	var b strings.Builder
	b.WriteString(l.head(f.facts(), verdictOf(f.Outcome, f.Phase, "").Class))
	if len(f.InProgress) > 0 {
		b.WriteString("\n" + tableOf(l, f.inProgressColumns(), f.InProgress) + "\n")
	}
	if len(f.Failures) > 0 {
		b.WriteString("\nFailed\n")
	}
	for _, failed := range f.Failures {
		lines := []string{fmt.Sprintf("  %s: %s: %s", failed.Name(), failed.Error.Type, failed.Error.Message)}
		if failed.WorkflowID != "" {
			lines = append(lines, "    "+failed.WorkflowID)
		}
		if failed.RunID != "" {
			lines = append(lines, "    run "+failed.RunID)
		}
		for _, line := range lines {
			b.WriteString(l.line(clean(line)) + "\n")
		}
	}
	if more := f.notListed("  "); more != "" {
		b.WriteString(l.line(strings.TrimRight(more, "\n")) + "\n")
	}
	if len(f.LeftOut) > 0 {
		b.WriteString("\nLeft out\n")
	}
	for _, left := range f.LeftOut {
		line := fmt.Sprintf("  %s: %s%s", workflows.NameOf(left.ClusterRef), left.Reason, idsBeside(left.ClusterRef))
		b.WriteString(l.line(clean(line)) + "\n")
	}
	b.WriteString(f.leftOutNotListed("  "))
	b.WriteString(actionsTable(l, f.Actions, f.ActionsNotListed))
	return b.String()
}

// idsBeside are the IDs of a cluster beside its name; empty for a project, whose ID is
// its name.
func idsBeside(ref workflows.ClusterRef) string {
	if ref.ClusterID == "" {
		return ""
	}
	return fmt.Sprintf(" (project %s, cluster %s)", ref.ProjectID, ref.ClusterID)
}

// leftOutNotListed mentions the clusters left out that did not fit into the
// records.
func (f *fleetStatus) leftOutNotListed(indent string) string {
	if f.LeftOutNotListed == 0 {
		return ""
	}
	return fmt.Sprintf("%sand %d more left out\n", indent, f.LeftOutNotListed)
}

// notListed mentions the failures that did not fit into the records.
func (f *fleetStatus) notListed(indent string) string {
	if f.FailuresNotListed == 0 {
		return ""
	}
	return fmt.Sprintf("%sand %d more that did not fit into the records; see %s report %s --each-cluster\n", indent, f.FailuresNotListed, programName, strings.Join(f.fleet().flags(), " "))
}

func (f *fleetStatus) markdown() string {
	var b strings.Builder
	b.WriteString(markdownHead("Key rotation of the "+f.name(), f.facts()))
	if len(f.InProgress) > 0 {
		var rows [][]string
		for _, c := range f.InProgress {
			rows = append(rows, append(memberOf(c.ClusterRef), timeText(&c.StartedAt), c.WorkflowID))
		}
		b.WriteString("\n## In progress\n\n" + f.markdownTable(rows, "Since", "Workflow ID"))
	}
	if failures := f.failureRows(); len(failures) > 0 {
		b.WriteString("\n## Failed\n\n" + f.markdownTable(failures, "Workflow ID", "Run ID", "Error", "Message") + f.notListed("\n"))
	}
	if left := f.leftOutRows(); len(left) > 0 {
		b.WriteString("\n## Left out\n\n" + f.markdownTable(left, "Reason"))
	}
	b.WriteString(f.leftOutNotListed("\n"))
	b.WriteString(actionsMarkdown(f.Actions, f.ActionsNotListed))
	return b.String()
}

var (
	// fleetColumns are the same in all rows of a fleet's report.
	fleetColumns = table.Row{"connection", "outcome", "ticket", "requestedBy", "reason", "startedAt", "finishedAt",
		"clusters", "rotated", "planned", "busy", "notEncrypted", "failed", "notStarted", "targetsVerified",
		"carriedOver", "gone", "failedProjects", "failuresNotListed", "leftOutNotListed", "unproven", "targetsRotated", "kind", "actions"}
	// fleetLastColumns follow those of a cluster that failed or was left out.
	fleetLastColumns = table.Row{"leftOut", "fleetWorkflowId", "fleetRunId"}
	failureColumns   = table.Row{"cluster", "projectId", "clusterId", "workflowId", "runId", "errorType", "errorMessage"}
)

func (f *fleetStatus) fleetValues() []string {
	values := []string{f.Connection, string(f.Outcome), f.Change.Ticket, f.Change.RequestedBy, f.Change.Reason, timeText(&f.StartedAt), timeText(f.FinishedAt)}
	c := f.Counts
	for _, n := range []int{c.Clusters, c.Rotated, c.Planned, c.Busy, c.NotEncrypted, c.Failed, c.NotStarted, f.TargetsVerified,
		c.CarriedOver, c.Gone, c.FailedProjects, f.FailuresNotListed, f.LeftOutNotListed, c.Unproven, f.TargetsRotated} {
		values = append(values, strconv.Itoa(n))
	}
	return append(values, string(cmp.Or(f.Kind, workflows.FleetOfClusters)), actionsCell(f.Actions, f.ActionsNotListed))
}

// csv has one row per cluster that failed or was left out; a single one, with the
// counts, if there is none.
func (f *fleetStatus) csv() string {
	t := newCSV()
	t.AppendHeader(slices.Concat(fleetColumns, failureColumns, fleetLastColumns))
	var rows [][]string
	for _, failure := range f.failureRows() {
		rows = append(rows, append(failure, ""))
	}
	for _, left := range f.leftOutRows() {
		rows = append(rows, []string{left[0], left[1], left[2], "", "", "", "", left[3]})
	}
	if len(rows) == 0 {
		rows = [][]string{make([]string, len(failureColumns)+1)}
	}
	for _, row := range rows {
		t.AppendRow(cleanRow(slices.Concat(f.fleetValues(), row, []string{f.workflowID, f.runID})...))
	}
	return t.RenderCSV()
}

// member is a cluster or project in the live display.
type member struct {
	workflows.ClusterRef
	class, status, remark string
}

func (f *fleetStatus) inProgressColumns() []columnOf[workflows.FleetCluster] {
	first := columnOf[workflows.FleetCluster]{newTextField("In progress", func(c workflows.FleetCluster) string { return workflows.NameOf(c.ClusterRef) })}
	if !f.isOfDeployments() {
		first = append(first, newIDField("Project ID", func(c workflows.FleetCluster) string { return c.ProjectID }),
			newIDField("Cluster ID", func(c workflows.FleetCluster) string { return c.ClusterID }))
	}
	return []columnOf[workflows.FleetCluster]{first, {newTimeField("Since", func(c workflows.FleetCluster) *time.Time { return &c.StartedAt })}}
}

func (f *fleetStatus) memberColumns() []columnOf[member] {
	name := "Cluster"
	if f.isOfDeployments() {
		name = "Project"
	}
	columns := []columnOf[member]{
		{newTextField(name, func(m member) string { return workflows.NameOf(m.ClusterRef) })},
		{newMarkField("Status", func(m member) (string, string) { return m.class, m.status })},
		{newTextField("Remark", func(m member) string { return m.remark })},
	}
	if !f.isOfDeployments() {
		columns = append(columns,
			columnOf[member]{{title: "Project ID", isOptional: true, line: func(m member) htmlLine { return idLine(m.ProjectID) }}},
			columnOf[member]{newIDField("Cluster ID", func(m member) string { return m.ClusterID })})
	}
	return columns
}

func (f *fleetStatus) statusLine(l layout, now time.Time) statusLine {
	line := statusLine{name: f.name(), phase: f.Phase, done: f.Counts.Ended(), all: f.Counts.Clusters}
	line.add("%d/%d %ss done", line.done, line.all, f.Kind.Noun())
	if n := len(f.InProgress); n > 0 {
		line.add("%d in progress", n)
	}
	if f.Counts.Failed > 0 {
		line.add("%s", l.paint(markBad, fmt.Sprintf("%d failed", f.Counts.Failed)))
	}
	if targets := f.targetsText(); targets != "" {
		line.add("targets: %s", targets)
	}
	line.add("%s", clock(elapsed(f.StartedAt, f.FinishedAt, now)))
	if left := f.timeLeft(); left != "" {
		line.add("%s left", left)
	}
	return line
}

// rows are the clusters in progress and the latest failures, which take at most
// half of the room unless there is room left.
func (f *fleetStatus) rows(l layout, now time.Time, room int) []string {
	failed := min(len(f.Failures), max(room/2, room-len(f.InProgress)))
	inProgress := min(len(f.InProgress), room-failed)
	var shown []member
	for _, c := range f.InProgress[:inProgress] {
		shown = append(shown, member{c.ClusterRef, markOpen, "in progress " + clock(elapsed(c.StartedAt, nil, now)), ""})
	}
	for _, c := range f.Failures[len(f.Failures)-failed:] {
		shown = append(shown, member{c.ClusterRef, markBad, string(workflows.StatusFailed), string(c.Error.Type)})
	}
	if len(shown) == 0 {
		return nil
	}
	lines := liveTable(l, f.memberColumns(), shown)
	if more := len(f.InProgress) - inProgress; more > 0 {
		lines = append(lines, l.paint(markFaint, fmt.Sprintf("and %d more in progress", more)))
	}
	return lines
}

// changes has a line for a new phase or new counts, and one for each new failure:
// there are too many clusters to name them all.
func (f *fleetStatus) changes(since statusView) (lines []string) {
	before, isKnown := since.(*fleetStatus)
	if !isKnown {
		before = &fleetStatus{}
	}
	for _, failed := range f.Failures[min(len(before.Failures), len(f.Failures)):] {
		lines = append(lines, failureChange(failed))
	}
	if before.Phase != f.Phase || before.Counts != f.Counts {
		lines = append(lines, f.phaseLine())
	}
	return lines
}

func failureChange(failed workflows.ClusterFailure) string {
	line := failed.Name() + " failed: " + string(failed.Error.Type) + ": " + failed.Error.Message
	if failed.WorkflowID != "" {
		line += " (workflow ID " + failed.WorkflowID + ")"
	}
	return clean(line)
}

// phaseLine is the whole fleet in one line.
func (f *fleetStatus) phaseLine() string {
	line := f.stateLine()
	if left := f.timeLeft(); left != "" {
		line += "; " + left + " left"
	}
	if f.WaitingFor != "" {
		line += "; waiting for " + f.WaitingFor
	}
	return clean(line)
}
