package workflows

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"keyturn/internal/ellipsis"
)

// changed wakes the main loop and updates what the Web UI shows.
func (f *fleet) changed(ctx workflow.Context) {
	f.changes++
	f.now = workflow.Now(ctx)
	if f.phase != PhaseRotating {
		f.show(ctx) // while clusters are in progress, the main loop does it
	}
}

func (f *fleet) show(ctx workflow.Context) {
	f.describe(ctx)
	workflow.SetCurrentDetails(ctx, f.markdown())
}

func (f *fleet) currentPhase() Phase {
	if f.phase == PhaseRotating && f.paused != nil {
		return PhasePaused
	}
	return f.phase
}

// counts returns the result's counts, with those that depend on the list.
func (f *fleet) counts() FleetCounts {
	counts := f.result.Counts
	begun := counts.Ended() + f.starting + len(f.inProgress)
	known := begun + len(f.listed.Next)
	if counts.Clusters < known || !f.listed.More && f.phase != PhaseListing {
		counts.Clusters = known
	}
	counts.NotStarted = counts.Clusters - begun
	return counts
}

// records is a copy of the result so far.
func (f *fleet) records() *RotateFleetResult {
	result := f.result
	result.Counts = f.counts()
	result.Failures = slices.Clone(f.result.Failures)
	result.LeftOut = append([]ClusterLeftOut{}, f.result.LeftOut...)
	result.LeftOutNotListed = result.Counts.leftOut() - len(result.LeftOut)
	if f.isClosed() {
		result.LeftOutNotListed += result.Counts.NotStarted
	}
	result.Actions = append([]Action{}, f.result.Actions...)
	result.fit(maxFleetRecords)
	return &result
}

func (f *fleet) progress() *FleetProgress {
	p := &FleetProgress{RotateFleetResult: *f.records(), Phase: f.currentPhase(), WaitingFor: f.waitingFor(), InProgress: []FleetCluster{}}
	for _, w := range f.inProgress {
		p.InProgress = append(p.InProgress, FleetCluster{w.ClusterRef, w.WorkflowID, w.StartedAt})
	}
	p.ClustersPerHour, p.SecondsLeft = f.rate(p.Counts)
	return p
}

// rate returns the average rate since the start, as of the last change, and how
// long the rest takes at that rate.
func (f *fleet) rate(counts FleetCounts) (perHour float64, secondsLeft int) {
	done := counts.Rotated - counts.CarriedOver + counts.Planned + counts.Failed
	elapsed := f.now.Sub(f.result.StartedAt)
	if done == 0 || elapsed <= 0 {
		return 0, 0
	}
	perSecond := float64(done) / elapsed.Seconds()
	if left := counts.Clusters - counts.Ended(); f.phase == PhaseRotating && !f.isStopping() {
		secondsLeft = int(math.Ceil(float64(left) / perSecond))
	}
	return math.Round(perSecond*3600*10) / 10, secondsLeft
}

// waitingFor describes in one sentence what must happen next.
func (f *fleet) waitingFor() string {
	inProgress := f.clustersInProgress()
	switch phase := f.currentPhase(); {
	case phase == PhaseDone:
		return ""
	case phase == PhaseRecording:
		return waitingForLedger(f.ledgerProblem)
	case f.aborted != nil:
		return fmt.Sprintf("%s to end; then the fleet rotation ends, aborted by %s", inProgress, f.aborted.By)
	case f.isWaitingForResume():
		return f.waitingForResume() + "; " + inProgress
	case phase == PhaseListing:
		return "Ops Manager to list the " + f.input.Kind.Noun() + "s"
	case f.isStopping():
		return fmt.Sprintf("%s to end; no more %ss start, because %d failed and maxFailedClusters is %d", inProgress, f.input.Kind.Noun(), f.result.Counts.Failed, f.input.MaxFailedClusters)
	default:
		return inProgress
	}
}

func (f *fleet) isWaitingForResume() bool { return f.aborted == nil && f.currentPhase() == PhasePaused }

func (f *fleet) waitingForResume() string {
	return fmt.Sprintf("an operator to resume: paused by %s (%s)", f.paused.By, orNoReason(f.paused.Reason))
}

func (f *fleet) clustersInProgress() string {
	return f.input.Kind.count(f.starting+len(f.inProgress)) + " in progress"
}

func (f *fleet) failedClusters() string {
	var names []string
	for _, failed := range f.result.Failures {
		names = append(names, failed.Name()+" ("+string(failed.Error.Type)+")")
	}
	if more := f.result.Counts.Failed - maxReportedNames; more > 0 {
		names = append(names[:min(maxReportedNames, len(names))], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

func (f *fleet) markdown() string {
	var b strings.Builder
	p := f.progress()
	write(&b, "**Fleet**: %s, %s", p.Phase, p.Counts.Text(f.input.Kind))
	if p.TargetsRotated > 0 {
		write(&b, "; %d processes rotated", p.TargetsRotated)
	}
	if p.TargetsVerified > 0 {
		write(&b, "; %d targets verified", p.TargetsVerified)
	}
	b.WriteString("\n\n")
	if p.SecondsLeft > 0 && p.Phase == PhaseRotating {
		write(&b, "About %s left.\n\n", time.Duration(p.SecondsLeft)*time.Second)
	}
	if p.WaitingFor != "" {
		write(&b, "Waiting for %s.\n\n", sentence(p.WaitingFor))
	}
	writeInProgress(&b, p.InProgress)
	writeFailures(&b, p)
	writeLeftOut(&b, p)
	return b.String()
}

func writeInProgress(b *strings.Builder, clusters []FleetCluster) {
	if len(clusters) == 0 {
		return
	}
	b.WriteString("| In progress | Since | IDs |\n|---|---|---|\n")
	for _, c := range clusters {
		write(b, "| %s | %s | %s |\n", memberName(c.ClusterRef), c.StartedAt.Format(time.TimeOnly), memberIDs(c.ClusterRef))
	}
	b.WriteString("\n")
}

// memberName is short: see maxCellName.
func memberName(ref ClusterRef) string { return cell(ellipsis.Cut(NameOf(ref), maxCellName)) }

// memberIDs are those of the project and the cluster, in a narrow cell below each
// other; the workflow ID has them, too, and would be too wide.
func memberIDs(ref ClusterRef) string {
	return strings.TrimSpace(cell(ref.ProjectID) + " " + cell(ref.ClusterID))
}

func writeFailures(b *strings.Builder, p *FleetProgress) {
	for _, failed := range p.Failures {
		write(b, "- **%s** failed: %s: %s", sentence(failed.Name()), failed.Error.Type, sentence(failed.Error.Message))
		if failed.ClusterID != "" {
			write(b, " (project %s, cluster %s)", cell(failed.ProjectID), cell(failed.ClusterID))
		}
		b.WriteString("\n")
	}
	if p.FailuresNotListed > 0 {
		write(b, "- and %d more failures\n", p.FailuresNotListed)
	}
}

func writeLeftOut(b *strings.Builder, p *FleetProgress) {
	if len(p.LeftOut) == 0 {
		return
	}
	b.WriteString("\n| Left out | Reason | IDs |\n|---|---|---|\n")
	for _, c := range p.LeftOut[:min(len(p.LeftOut), maxRowsShown)] {
		write(b, "| %s | %s | %s |\n", memberName(c.ClusterRef), c.Reason, memberIDs(c.ClusterRef))
	}
	if more := p.LeftOutNotListed + max(len(p.LeftOut)-maxRowsShown, 0); more > 0 {
		write(b, "\nand %d more.\n", more)
	}
}
