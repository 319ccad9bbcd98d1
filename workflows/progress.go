package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"keyturn/internal/ellipsis"
	"keyturn/internal/markdown"
)

// maxRowsShown bounds the table in the current details, which the Web UI
// fetches as one piece; the progress query has every target.
const maxRowsShown = 100

// maxCellName is how many characters of a name a cell of that table has: the rest would
// run out at the right of the page.
const maxCellName = 40

// changed shows the main loop, and everybody who looks, that something has
// happened. While targets are in progress it is the main loop that shows it, once
// for all that one workflow task brings.
func (r *rotation) changed(ctx workflow.Context) {
	r.changes++
	if r.phase != PhaseRotating {
		r.show(ctx)
	}
}

func (r *rotation) enterPhase(ctx workflow.Context, phase Phase) {
	r.phase = phase
	r.changed(ctx)
}

// currentPhase refines the step that the run is at by what holds it up.
func (r *rotation) currentPhase() Phase {
	switch {
	case r.phase == PhaseRecording || r.phase == PhaseDone:
		return r.phase
	case r.phase == PhaseAwaitingApproval && r.rejected != nil:
		return PhaseDone
	case r.phase == PhaseAwaitingApproval && r.common.Approval != nil:
		return PhaseReading
	case r.phase == PhaseRotating && r.operators.Paused != nil:
		return PhasePaused
	case r.phase == PhaseRotating && r.isHeld():
		return PhaseHeld
	default:
		return r.phase
	}
}

// counts are the numbers of targets by status.
func (r *rotation) counts() map[Status]int {
	counts := map[Status]int{}
	for _, t := range r.targets {
		counts[statusOf(t)]++
	}
	return counts
}

// waitingFor says in one sentence what must happen next, and who can make it.
func (r *rotation) waitingFor() string {
	switch phase := r.currentPhase(); {
	case phase == PhaseDone:
		return ""
	case phase == PhaseRecording:
		return waitingForLedger(r.ledgerProblem)
	case r.aborted != nil:
		return fmt.Sprintf("%s to finish; then the rotation ends, aborted by %s", r.targetsInProgress(), r.aborted.By)
	case r.waitingForOperator(phase) != "":
		return r.waitingForOperator(phase) + r.inProgressSuffix()
	case phase == PhaseRotating && r.failureStops():
		return fmt.Sprintf("%s to finish; no more targets start after the failure of %s", r.targetsInProgress(), r.failedTargets())
	case phase == PhaseRotating && r.inProgress == 0 && r.inBackground > 0:
		return r.kind.waitingForBackground()
	default:
		return "Ops Manager" + r.inProgressSuffix()
	}
}

// waitingForOperator says what an operator must do for the rotation to go on; empty =
// nothing.
func (r *rotation) waitingForOperator(phase Phase) string {
	switch {
	case r.aborted != nil:
		return ""
	case phase == PhasePaused && r.isHeld():
		return r.waitingForResume() + "; and for " + r.waitingForDecision()
	case phase == PhasePaused:
		return r.waitingForResume()
	case phase == PhaseAwaitingApproval && r.operators.Paused != nil:
		return r.waitingForApproval() + "; and for " + r.waitingForResume()
	case phase == PhaseAwaitingApproval:
		return r.waitingForApproval()
	case phase == PhaseHeld:
		return r.waitingForDecision()
	default:
		return ""
	}
}

func (r *rotation) waitingForResume() string {
	return fmt.Sprintf("an operator to resume: paused by %s (%s)", r.operators.Paused.By, orNoReason(r.operators.Paused.Reason))
}

func (r *rotation) waitingForApproval() string {
	return "an operator" + r.otherThanRequester() + " to approve or reject the plan, until " + r.approvalDeadline.UTC().Format(time.RFC3339) + r.notice
}

func (r *rotation) waitingForDecision() string {
	return fmt.Sprintf("an operator to retry, skip or abort, until %s: %s", r.operators.HeldUntil.Format(time.RFC3339), r.failedTargets())
}

func (r *rotation) otherThanRequester() string {
	if r.settings.Change.RequestedBy == "" {
		return ""
	}
	return " other than " + r.settings.Change.RequestedBy
}

func (r *rotation) inProgressSuffix() string {
	if r.inProgress == 0 {
		return ""
	}
	return "; " + r.targetsInProgress()
}

func (r *rotation) targetsInProgress() string {
	if r.inProgress == 1 {
		return "1 target in progress"
	}
	return fmt.Sprintf("%d targets in progress", r.inProgress)
}

func (r *rotation) failedTargets() string {
	return describeUnfinished(r.selectTargets(nil, StatusFailed))
}

// show puts the progress into the workflow's current details, as Markdown, and into
// its memo.
func (r *rotation) show(ctx workflow.Context) {
	r.describe(ctx)
	workflow.SetCurrentDetails(ctx, r.markdown())
}

func (r *rotation) markdown() string {
	var b strings.Builder
	counts := r.counts()
	write(&b, "**%s**: %s", cell(r.kind.title()), r.currentPhase())
	for _, status := range statuses {
		if n := counts[status]; n > 0 {
			write(&b, ", %d %s", n, status)
		}
	}
	b.WriteString("\n\n")
	if waitingFor := r.waitingFor(); waitingFor != "" {
		write(&b, "Waiting for %s.\n\n", sentence(waitingFor))
	}
	if len(r.targets) == 0 {
		return b.String()
	}
	columns := r.kind.header()
	write(&b, "| Target | Status | %s |\n|---|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	rows := topRows(r.targets, maxRowsShown, statusOf)
	for _, t := range rows {
		write(&b, "| %s | %s |", cell(ellipsis.Cut(t.label(), maxCellName)), statusOf(t))
		for _, text := range t.cells() {
			write(&b, " %s |", cell(text))
		}
		b.WriteString("\n")
	}
	if more := len(r.targets) - len(rows); more > 0 {
		write(&b, "\nand %d more; the query `%s` returns all of them.\n", more, ProgressQuery)
	}
	writeRemarks(&b, rows)
	return b.String()
}

// writeRemarks stands below the table, whose half of the Web UI's page is
// narrow.
func writeRemarks(b *strings.Builder, targets []target) {
	b.WriteString("\n")
	for _, t := range targets {
		if remark := t.Remark(); remark != "" {
			write(b, "- **%s**: %s\n", sentence(t.label()), sentence(remark))
		}
	}
}

// write is fmt.Fprintf in the form that workflowcheck knows to be deterministic.
func write(b *strings.Builder, format string, args ...any) {
	b.WriteString(fmt.Sprintf(format, args...))
}

// topRows picks the rows to show where there are too many: failed ones and
// those in progress before the rest, in the records' order.
func topRows[T any](rows []T, n int, statusOf func(T) Status) []T {
	if len(rows) <= n {
		return rows
	}
	rank := map[Status]int{StatusFailed: 0, StatusRotating: 1, StatusRotated: 1, StatusSkipped: 2, StatusPending: 3}
	priority := func(row T) int {
		if n, known := rank[statusOf(row)]; known {
			return n
		}
		return len(rank)
	}
	sorted := slices.Clone(rows)
	slices.SortStableFunc(sorted, func(a, b T) int { return priority(a) - priority(b) })
	return sorted[:n]
}

// Remark is what a person should know of a record besides its status and keys.
func (t TargetRecord) Remark() string {
	remarks := failureRemarks(t.Error, t.FirstError)
	if t.ReplacedOutside != "" {
		remarks = append(remarks, "someone else replaced key "+t.ReplacedOutside+" before the PUT")
	}
	if t.Ambiguous {
		remarks = append(remarks, "PUT outcome was unknown and resolved by reading the key")
	}
	if t.CarriedOver {
		remarks = append(remarks, "verified in an earlier run")
	}
	if t.KMIP != nil && t.KMIP.Outcome == EvidenceAbsent {
		remarks = append(remarks, "the KMIP server does not have the new key")
	}
	return strings.Join(remarks, "; ")
}

// failureRemarks say why a target failed, and why it failed first, unless the
// message of a skipped target has that already.
func failureRemarks(failure, first *TargetError) (remarks []string) {
	text := func(e *TargetError) string { return string(e.Type) + ": " + e.Message }
	if failure != nil {
		remarks = append(remarks, text(failure))
	}
	if first != nil && !strings.Contains(strings.Join(remarks, ""), text(first)) {
		remarks = append(remarks, "failed first: "+text(first))
	}
	return remarks
}

// cell shows a text of other people within a Markdown table or list.
func cell(text string) string { return markdown.Cell(text) }

// sentence is the same for a text that may have long words: the Web UI does not break
// them by itself.
func sentence(text string) string { return markdown.Sentence(text) }
