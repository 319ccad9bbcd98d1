package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"keyturn/workflows"
)

// shortKey is how many characters of a key's ID a narrow screen shows.
const shortKey = 8

// rotationStatus is the status of a rotation that has targets.
type rotationStatus struct {
	records targetRecords
	failure string // of one that failed
	// workflowID and runID are empty in what is not a report.
	workflowID, runID string
}

// targetRecords are the progress or the result of a rotation that has targets:
// what differs by what is rotated.
type targetRecords interface {
	// value is the progress as its workflow has it, to decode it into and to encode
	// it; result is the result in it.
	value() any
	result() any
	common() commonRecords
	targets() []targetRecord
	// name is what people call what is rotated, title the same in a heading.
	name() string
	title() string
	workflowID() string
	// foreign says why these are not records of their kind, which were read from a
	// file; empty = they are.
	foreign() string
	// continueIn puts what was done into the input of a rotation that continues this
	// one, and says in words what that is.
	continueIn(*rotationInput) string
	// subject are the facts that say what is rotated.
	subject() []fact
	// proof says how much of what was rotated is proven besides; empty = nothing is to
	// be. warning says what is missing in a rotation that has not failed, as what the
	// command that continues it is for; empty = nothing.
	proof() string
	warning() string
	// columns are those of reports, and planColumns those of a plan's.
	columns() []column
	planColumns() []column
	// notes explain the terms of reports.
	notes() []htmlNote
	// remarks are those on anything but single targets.
	remarks() remarkSection
	// runColumns are the same in all rows of a spreadsheet, and targetColumns come
	// before targetLastColumns.
	runColumns() []csvRunColumn
	targetColumns() []csvColumn
}

// commonRecords are what the records of all rotations have.
type commonRecords struct {
	phase      *workflows.Phase
	waitingFor *string
	counts     *map[workflows.Status]int

	connection       string
	outcome          workflows.Outcome
	startedAt        time.Time
	finishedAt       *time.Time
	change           workflows.Change
	approval         *workflows.Approval
	actions          []workflows.Action
	actionsNotListed int
}

// csvRunColumn is a column with a value of the run.
type csvRunColumn struct{ name, value string }

// commonRunColumns are those of all rotations.
func (c commonRecords) commonRunColumns() []csvRunColumn {
	approval := workflows.Approval{}
	if c.approval != nil {
		approval = *c.approval
	}
	return []csvRunColumn{
		{"outcome", string(c.outcome)}, {"ticket", c.change.Ticket}, {"requestedBy", c.change.RequestedBy}, {"reason", c.change.Reason},
		{"approvedBy", approval.By}, {"approvedAt", timeText(&approval.At)}, {"startedAt", timeText(&c.startedAt)}, {"finishedAt", timeText(c.finishedAt)},
	}
}

// laterRunColumns are further ones of all rotations. They follow all that there were
// before them: scripts may count columns.
var laterRunColumns = table.Row{"approvalComment", "waitingFor"}

func (c commonRecords) laterRunValues() []string {
	comment := ""
	if c.approval != nil {
		comment = c.approval.Comment
	}
	return []string{comment, *c.waitingFor}
}

// remarkSection is a part of a report: what to know about some of its subjects.
type remarkSection struct {
	title, caption string
	columns        [3]string
	rows           []remark
}

// remark is what to know about a subject, whose state is a word or two.
type remark struct {
	subject string
	state   htmlLine
	text    string
}

func (s *rotationStatus) state() (workflows.Phase, string) {
	c := s.records.common()
	return *c.phase, *c.waitingFor
}

func (s *rotationStatus) outcome() (outcome, counts string) {
	targets := s.records.targets()
	counts = countsText(countsOf(targets))
	if carriedOver := countIf(targets, func(t targetRecord) bool { return t.carriedOver }); carriedOver > 0 {
		counts += fmt.Sprintf(" (%d carried over)", carriedOver)
	}
	return string(s.records.common().outcome), counts
}

func (s *rotationStatus) markEnded(failure string) {
	c := s.records.common()
	*c.phase, *c.waitingFor, *c.counts, s.failure = workflows.PhaseDone, "", countsOf(s.records.targets()), failure
}

func (s *rotationStatus) warning() string { return s.records.warning() }

func (s *rotationStatus) value() any { return s.records.value() }

func (s *rotationStatus) result() any { return s.records.result() }

func (s *rotationStatus) ofRun(workflowID, runID string) { s.workflowID, s.runID = workflowID, runID }

func (s *rotationStatus) isPlan() bool {
	return s.records.common().outcome == workflows.OutcomePlanned
}

func (s *rotationStatus) isUnfinished() bool {
	c := s.records.common()
	// A terminated rotation has no outcome.
	return *c.phase == workflows.PhaseDone && len(s.records.targets()) > 0 && (c.outcome == workflows.OutcomePartial || c.outcome == "")
}

// stateLine is the phase, or the outcome, and the counts in one line.
func (s *rotationStatus) stateLine() string {
	c := s.records.common()
	return strings.TrimSuffix(s.records.name()+" "+phaseWords(*c.phase, c.outcome)+": "+countsText(*c.counts), ": ")
}

func (s *rotationStatus) summary() []string {
	_, waitingFor := s.state()
	return summaryLines(s.stateLine(), waitingFor)
}

func (s *rotationStatus) nextCommands(a *app) []string {
	c := s.records.common()
	by := a.operatorOr("YOU")
	switch *c.phase {
	case workflows.PhaseAwaitingApproval:
		commands := []string{
			a.commandLine(workflows.ApproveUpdate, "--by", a.approver(c.change.RequestedBy)),
			a.commandLine(workflows.RejectUpdate, "--by", by, "--reason", "WHY"),
		}
		if c.isPaused() {
			commands = append(commands, a.resumeLine())
		}
		return commands
	case workflows.PhaseHeld:
		return append(a.retryOrSkip(s.records.targets()), a.abortLine())
	case workflows.PhasePaused:
		commands := []string{a.resumeLine()}
		if (*c.counts)[workflows.StatusFailed] > 0 { // held, too
			commands = append(commands, a.retryOrSkip(s.records.targets())...)
		}
		return append(commands, a.abortLine())
	}
	return nil
}

// isPaused reports whether operators have paused the rotation, whatever its phase
// is.
func (c commonRecords) isPaused() (paused bool) {
	for _, action := range c.actions {
		switch action.Action {
		case workflows.PauseUpdate:
			paused = true
		case workflows.ResumeUpdate:
			paused = false
		}
	}
	return paused
}

// retryOrSkip are the commands for failed targets.
func (a *app) retryOrSkip(targets []targetRecord) []string {
	by := a.operatorOr("YOU")
	return []string{
		a.commandLine(workflows.RetryUpdate, "--by", by),
		a.commandLine(workflows.SkipUpdate, "--by", by, "--targets", failedTargets(targets), "--reason", "WHY"),
	}
}

// approver is the user, unless the user is the requester.
func (a *app) approver(requestedBy string) string {
	if requestedBy == a.user {
		return "SOMEONE-ELSE"
	}
	return a.operatorOr("YOU")
}

func (s *rotationStatus) facts() []fact {
	c := s.records.common()
	_, counts := s.outcome()
	return nonEmpty(append(s.records.subject(), []fact{
		{"Connection", c.connection},
		{"Workflow ID", s.workflowID},
		{"Run ID", s.runID},
		{"Outcome", outcomeText(c.outcome, *c.phase)},
		{"Waiting for", *c.waitingFor},
		{"Failure", s.failure},
		{"Requested by", orDash(c.change.RequestedBy)},
		{"Ticket", orDash(c.change.Ticket)},
		{"Reason", orDash(c.change.Reason)},
		{"Approved by", approvalText(c.approval)},
		{"Started", timeText(&c.startedAt)},
		{"Finished", finishedText(c.startedAt, c.finishedAt)},
		{"Targets", counts},
		{"KMIP server", evidenceCounts(s.records.targets())},
	}...))
}

func approvalText(approval *workflows.Approval) string {
	if approval == nil {
		return "-"
	}
	approved := approval.By + " at " + timeText(&approval.At)
	if approval.Comment != "" {
		approved += ": " + approval.Comment
	}
	return approved
}

// reportColumns are those of the targets' table.
func (s *rotationStatus) reportColumns() []column {
	if s.isPlan() {
		return s.records.planColumns()
	}
	columns := s.records.columns()
	if hasEvidence(s.records.targets()) {
		columns = append(columns, evidenceColumn)
	}
	return columns
}

// allRemarks are the remarks on targets, such as the reason of a failure or a
// skip, and those on anything else.
func (s *rotationStatus) allRemarks() []remarkSection {
	onTargets := remarkSection{title: "Remarks", caption: "What to know about single targets", columns: [3]string{"Target", "Status", "Remark"}}
	var names []string
	targets := s.records.targets()
	for i, t := range targets {
		names = append(names, t.name)
		// The members of a replica set often have the same.
		if i+1 < len(targets) && targets[i+1].remark == t.remark && targets[i+1].status == t.status {
			continue
		}
		if t.remark != "" {
			onTargets.rows = append(onTargets.rows, remark{someOf(names), t.statusLine(), t.remark})
		}
		names = nil
	}
	return []remarkSection{onTargets, s.records.remarks()}
}

// maxNamed is how many names one line has.
const maxNamed = 10

func someOf(names []string) string {
	if more := len(names) - maxNamed; more > 0 {
		return strings.Join(names[:maxNamed], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(names, ", ")
}

// table is a report for a terminal.
func (s *rotationStatus) table(l layout) string {
	var b strings.Builder
	b.WriteString(l.head(s.facts(), s.verdict().Class))
	if targets := s.records.targets(); len(targets) > 0 {
		b.WriteString("\n" + tableOf(l, s.reportColumns(), targets) + "\n")
	}
	for _, section := range s.allRemarks() {
		if len(section.rows) > 0 {
			b.WriteString("\n" + section.title + "\n")
		}
		for _, r := range section.rows {
			b.WriteString(l.line(fmt.Sprintf("  %s (%s): %s", clean(r.subject), r.state.plain(), clean(r.text))) + "\n")
		}
	}
	c := s.records.common()
	b.WriteString(actionsTable(l, c.actions, c.actionsNotListed))
	return b.String()
}

// csvHeader names the columns of a spreadsheet.
func csvHeader(records targetRecords) (header table.Row) {
	for _, column := range records.runColumns() {
		header = append(header, column.name)
	}
	return slices.Concat(header, headerOf(records.targetColumns()), targetLastColumns, laterRunColumns)
}

// runIDColumns end the rows of a report, which is of one run.
var runIDColumns = table.Row{"workflowId", "runId"}

// csvRows has one self-contained row per target, whose first and last values are
// given. If there is none, one row says what is known of the run.
func csvRows(records targetRecords, first, after []string) (rows []table.Row) {
	first = slices.Clone(first)
	for _, column := range records.runColumns() {
		first = append(first, column.value)
	}
	c, columns := records.common(), records.targetColumns()
	after = append(c.laterRunValues(), after...)
	for _, t := range records.targets() {
		last := append([]string{actionsCell(actionsOn(t, c.actions), c.actionsNotListed)}, evidenceValues(t.kmip)...)
		rows = append(rows, cleanRow(slices.Concat(first, valuesOf(columns, t), last, after)...))
	}
	if len(rows) == 0 {
		rows = append(rows, cleanRow(slices.Concat(first, make([]string, len(columns)+len(targetLastColumns)), after)...))
	}
	return rows
}

func (s *rotationStatus) csv() string {
	t := newCSV()
	t.AppendHeader(slices.Concat(csvHeader(s.records), runIDColumns))
	if len(s.records.targets()) > 0 {
		t.AppendRows(csvRows(s.records, nil, []string{s.workflowID, s.runID}))
	}
	return t.RenderCSV()
}

// markdown is a report for a ticket.
func (s *rotationStatus) markdown() string {
	var b strings.Builder
	b.WriteString(markdownHead(s.records.title(), s.facts()))
	if targets := s.records.targets(); len(targets) > 0 {
		b.WriteString("\n## Targets\n\n" + markdownOf(s.reportColumns(), targets) + "\n")
	}
	for _, section := range s.allRemarks() {
		var rows []table.Row
		for _, r := range section.rows {
			rows = append(rows, table.Row{r.subject, r.state.plain(), r.text})
		}
		if len(rows) > 0 {
			header := table.Row{section.columns[0], section.columns[1], section.columns[2]}
			b.WriteString("\n## " + section.title + "\n\n" + markdownTable(header, rows) + "\n")
		}
	}
	c := s.records.common()
	b.WriteString(actionsMarkdown(c.actions, c.actionsNotListed))
	return b.String()
}

// verdict is how the rotation has ended.
func (s *rotationStatus) verdict() htmlMark {
	c := s.records.common()
	_, counts := s.outcome()
	return verdictOf(c.outcome, *c.phase, counts)
}

// page is a report for a browser.
func (s *rotationStatus) page() htmlPage {
	c := s.records.common()
	page := htmlPage{
		Title:   clean(s.records.title()),
		Verdict: s.verdict(),
		Facts:   s.facts(),
		Notes:   append(s.records.notes(), noteTimes),
	}
	targets := s.records.targets()
	if len(targets) > 0 {
		caption := "Each target with its key before and after the rotation"
		if s.isPlan() {
			caption = "What a rotation would change"
		}
		page.Sections = append(page.Sections, sectionOf("Targets", caption, s.reportColumns(), targets))
	}
	if hasEvidence(targets) {
		page.Notes = append(page.Notes, notesKMIP...)
	}
	for _, section := range s.allRemarks() {
		page.Sections = append(page.Sections, section.html())
	}
	page.Sections = append(page.Sections, actionSection(c.actions, c.actionsNotListed))
	return page
}

func (s *rotationStatus) statusLine(l layout, now time.Time) statusLine {
	c, targets := s.records.common(), s.records.targets()
	line := statusLine{name: s.records.name(), phase: *c.phase, done: countIf(targets, func(t targetRecord) bool { return t.isDone }), all: len(targets)}
	if line.all > 0 {
		line.add("%d/%d done", line.done, line.all)
	}
	if inProgress := countIf(targets, targetRecord.isInProgress); inProgress > 0 {
		line.add("%d in progress", inProgress)
	}
	if failed := (*c.counts)[workflows.StatusFailed]; failed > 0 {
		line.add("%s", l.paint(markBad, fmt.Sprintf("%d failed", failed)))
	}
	if proof := s.records.proof(); proof != "" {
		line.add("%s", proof)
	}
	line.add("%s", clock(elapsed(c.startedAt, c.finishedAt, now)))
	if left, known := s.estimateRemaining(); known {
		line.add("about %s left", clock(left))
	}
	return line
}

// estimateRemaining: how long a person takes is not known.
func (s *rotationStatus) estimateRemaining() (time.Duration, bool) {
	if phase, _ := s.state(); phase != workflows.PhaseRotating {
		return 0, false
	}
	return estimateRemaining(s.records.targets())
}

func (s *rotationStatus) rows(l layout, _ time.Time, room int) []string {
	targets := s.records.targets()
	if len(targets) == 0 {
		return nil
	}
	shown := topRows(targets, room)
	columns := []column{{targetField}, {statusField}, {livePreviousKey}, {liveNewKey}, {liveRemark}}
	if targets[0].replicaSet != "" {
		columns = slices.Insert(columns, 1, column{replicaSetField})
	}
	lines := liveTable(l, columns, shown)
	if more := len(targets) - len(shown); more > 0 {
		lines = append(lines, l.paint(markFaint, cut(fmt.Sprintf("and %d more: %s", more, countsText(remainingCounts(targets, shown))), l.width)))
	}
	return lines
}

// Fields of the live display, which has no room for the whole of a key's ID.
var (
	livePreviousKey = field{title: "Previous key", narrowest: shortKey + 1, isOptional: true, line: previousKeyField.line}
	liveNewKey      = field{title: "New key", narrowest: shortKey + 1, isOptional: true, line: newKeyField.line}
	liveRemark      = newTextField("Remark", targetRecord.shortRemark)
)

// changes has a line for a new phase, and one for each target with a new status.
func (s *rotationStatus) changes(since statusView) (lines []string) {
	known := map[string]workflows.Status{}
	var phaseBefore workflows.Phase
	if before, isKnown := since.(*rotationStatus); isKnown {
		phaseBefore, _ = before.state()
		for _, t := range before.records.targets() {
			known[t.id] = t.status
		}
	}
	targets := s.records.targets()
	for i, t := range targets {
		was, isKnown := known[t.id]
		if was == t.status || !isKnown && t.status == workflows.StatusPending {
			continue
		}
		lines = append(lines, t.change(i+1, len(targets)))
	}
	switch phase, _ := s.state(); {
	case phaseBefore == phase:
		return lines
	case phase == workflows.PhaseRecording || phase == workflows.PhaseDone: // after all that led to it
		return append(lines, s.phaseChange())
	default:
		return append([]string{s.phaseChange()}, lines...)
	}
}

func (s *rotationStatus) phaseChange() string {
	line := s.stateLine()
	if _, waitingFor := s.state(); waitingFor != "" {
		line += "; waiting for " + waitingFor
	}
	return clean(line)
}
