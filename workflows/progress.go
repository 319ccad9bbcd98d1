package workflows

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"
)

// maxRowsShown bounds the table in the current details, which the Web UI
// fetches as one piece; the progress query has every target.
const maxRowsShown = 100

// changed tells the main loop, and everybody who looks, that something has
// happened. While targets are in work it is the main loop that shows it, once
// for all that one workflow task brings.
func (r *rotation) changed(ctx workflow.Context) {
	r.changes++
	if r.phase != PhaseRotating {
		r.show(ctx)
	}
}

func (r *rotation) enter(ctx workflow.Context, phase string) {
	r.phase = phase
	r.changed(ctx)
}

// currentPhase refines the step that the run is at by what holds it up.
func (r *rotation) currentPhase() string {
	switch {
	case r.phase == PhaseDone:
		return PhaseDone
	case r.phase == PhaseAwaitingApproval && r.rejected != nil:
		return PhaseDone
	case r.phase == PhaseAwaitingApproval && r.result.Approval != nil:
		return PhaseReading
	case r.phase == PhaseRotating && r.steering.Paused != nil:
		return PhasePaused
	case r.phase == PhaseRotating && r.isHeld():
		return PhaseHeld
	default:
		return r.phase
	}
}

func (r *rotation) progress() *Progress {
	p := &Progress{RotateClusterResult: *r.records(), Phase: r.currentPhase(), Counts: map[string]int{}, WaitingFor: r.waitingFor()}
	for _, t := range r.result.Targets {
		p.Counts[t.Status]++
	}
	return p
}

// waitingFor says in one sentence what must happen next, and who can make it.
func (r *rotation) waitingFor() string {
	switch phase := r.currentPhase(); {
	case phase == PhaseDone:
		return ""
	case r.aborted != nil:
		return fmt.Sprintf("%s to finish; then the rotation ends, aborted by %s", r.targetsInWork(), r.aborted.By)
	case phase == PhasePaused && r.isHeld():
		return r.resuming() + "; and for " + r.deciding()
	case phase == PhasePaused:
		return r.resuming() + r.stillInWork()
	case phase == PhaseAwaitingApproval && r.steering.Paused != nil:
		return r.approving() + "; and for " + r.resuming()
	case phase == PhaseAwaitingApproval:
		return r.approving()
	case phase == PhaseHeld:
		return r.deciding()
	case phase == PhaseRotating && r.failureStops():
		return fmt.Sprintf("%s to finish: no other is started after the failure of %s", r.targetsInWork(), r.failedTargets())
	default:
		return "Ops Manager" + r.stillInWork()
	}
}

func (r *rotation) resuming() string {
	return fmt.Sprintf("somebody to resume it: paused by %s (%s)", r.steering.Paused.By, orNoReason(r.steering.Paused.Reason))
}

func (r *rotation) approving() string {
	return r.notice + "somebody" + r.otherThanRequester() + " to approve or reject the plan"
}

func (r *rotation) deciding() string {
	return fmt.Sprintf("an operator to retry, skip or abort, until %s: %s", r.steering.HeldUntil.Format(time.RFC3339), r.failedTargets())
}

func (r *rotation) otherThanRequester() string {
	if r.input.Change.RequestedBy == "" {
		return ""
	}
	return " other than " + r.input.Change.RequestedBy
}

func (r *rotation) stillInWork() string {
	if r.inWork == 0 {
		return ""
	}
	return "; " + r.targetsInWork()
}

func (r *rotation) targetsInWork() string {
	if r.inWork == 1 {
		return "1 target in work"
	}
	return fmt.Sprintf("%d targets in work", r.inWork)
}

func (r *rotation) failedTargets() string {
	var failed []TargetRecord
	for _, t := range r.result.Targets {
		if t.Status == StatusFailed {
			failed = append(failed, t)
		}
	}
	return unverified(failed)
}

// show puts the progress into the workflow's current details, as Markdown.
func (r *rotation) show(ctx workflow.Context) {
	workflow.SetCurrentDetails(ctx, r.markdown())
}

func (r *rotation) markdown() string {
	var b strings.Builder
	p := r.progress()
	write(&b, "**%s**: %s", cell(cmp.Or(r.result.ClusterName, r.input.ClusterID)), p.Phase)
	for _, status := range statuses {
		if n := p.Counts[status]; n > 0 {
			write(&b, ", %d %s", n, status)
		}
	}
	b.WriteString("\n\n")
	if p.WaitingFor != "" {
		write(&b, "Waiting for %s.\n\n", cell(p.WaitingFor))
	}
	if len(p.Targets) == 0 {
		return b.String()
	}
	b.WriteString("| Target | Status | Previous key | New key |\n|---|---|---|---|\n")
	rows := mostTelling(p.Targets)
	for _, t := range rows {
		write(&b, "| %s | %s | %s | %s |\n", cell(t.Name), t.Status, cell(t.PreviousKeyUUID), cell(t.NewKeyUUID))
	}
	if more := len(p.Targets) - len(rows); more > 0 {
		write(&b, "\nand %d more: the query `%s` has them all.\n", more, ProgressQuery)
	}
	writeRemarks(&b, rows)
	return b.String()
}

// writeRemarks stands below the table, whose half of the Web UI's page is
// narrow.
func writeRemarks(b *strings.Builder, records []TargetRecord) {
	b.WriteString("\n")
	for _, t := range records {
		if remark := t.Remark(); remark != "" {
			write(b, "- **%s**: %s\n", cell(t.Name), cell(remark))
		}
	}
}

// write is fmt.Fprintf in the form that workflowcheck knows to be deterministic.
func write(b *strings.Builder, format string, args ...any) {
	b.WriteString(fmt.Sprintf(format, args...))
}

// mostTelling picks the rows to show where there are too many: failed ones and
// those in work before the rest, in the records' order.
func mostTelling(records []TargetRecord) []TargetRecord {
	if len(records) <= maxRowsShown {
		return records
	}
	rank := map[string]int{StatusFailed: 0, StatusRotating: 1, StatusRotated: 1, StatusSkipped: 2, StatusPending: 3}
	sorted := slices.Clone(records)
	slices.SortStableFunc(sorted, func(a, b TargetRecord) int { return rankOf(rank, a) - rankOf(rank, b) })
	return sorted[:maxRowsShown]
}

func rankOf(rank map[string]int, t TargetRecord) int {
	if n, known := rank[t.Status]; known {
		return n
	}
	return len(rank)
}

// Remark is what a person should know of a record besides its status and keys.
func (t TargetRecord) Remark() string {
	var remarks []string
	if t.Error != nil {
		remarks = append(remarks, t.Error.Type+": "+t.Error.Message)
	}
	if t.Ambiguous {
		remarks = append(remarks, "a PUT's outcome was unknown and settled by reading")
	}
	if t.CarriedOver {
		remarks = append(remarks, "verified by an earlier run")
	}
	return strings.Join(remarks, "; ")
}

// cell makes foreign text fit for a cell of a Markdown table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "\r", " ", "<", "&lt;").Replace(text)
}
