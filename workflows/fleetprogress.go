package workflows

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"
)

// changed tells the main loop, and everybody who looks, that something has
// happened.
func (f *fleet) changed(ctx workflow.Context) {
	f.changes++
	f.now = workflow.Now(ctx)
	if f.phase != PhaseRotating {
		f.show(ctx) // while clusters are in work, the main loop does it
	}
}

func (f *fleet) show(ctx workflow.Context) {
	workflow.SetCurrentDetails(ctx, f.markdown())
}

func (f *fleet) currentPhase() string {
	if f.phase == PhaseRotating && f.paused != nil {
		return PhasePaused
	}
	return f.phase
}

// counts are the result's, with what follows from the state of the list.
func (f *fleet) counts() FleetCounts {
	counts := f.result.Counts
	begun := counts.Ended() + f.starting + len(f.inWork)
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
	return &result
}

func (f *fleet) progress() *FleetProgress {
	p := &FleetProgress{RotateFleetResult: *f.records(), Phase: f.currentPhase(), WaitingFor: f.waitingFor(), InWork: []FleetCluster{}}
	for _, w := range f.inWork {
		p.InWork = append(p.InWork, FleetCluster{w.ClusterRef, w.WorkflowID, w.StartedAt})
	}
	p.ClustersPerHour, p.SecondsLeft = f.rate(p.Counts)
	return p
}

// rate is how fast clusters were rotated since the start, as of the last change,
// and how long the rest takes at that rate.
func (f *fleet) rate(counts FleetCounts) (perHour float64, secondsLeft int) {
	done := counts.Rotated + counts.Planned + counts.Failed
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

// waitingFor says in one sentence what must happen next, and who can make it.
func (f *fleet) waitingFor() string {
	inWork := f.clustersInWork()
	switch phase := f.currentPhase(); {
	case phase == PhaseDone:
		return ""
	case f.aborted != nil:
		return fmt.Sprintf("%s to end; then the fleet's rotation ends, aborted by %s", inWork, f.aborted.By)
	case phase == PhasePaused:
		return fmt.Sprintf("somebody to resume it: paused by %s (%s); %s", f.paused.By, orNoReason(f.paused.Reason), inWork)
	case phase == PhaseListing:
		return "Ops Manager to list the clusters"
	case f.isStopping():
		return fmt.Sprintf("%s to end: no other is started after %d failed, with maxFailedClusters %d", inWork, f.result.Counts.Failed, f.input.MaxFailedClusters)
	default:
		return inWork
	}
}

func (f *fleet) clustersInWork() string {
	if n := f.starting + len(f.inWork); n != 1 {
		return fmt.Sprintf("%d clusters in work", n)
	}
	return "1 cluster in work"
}

func (f *fleet) failedClusters() string {
	var names []string
	for _, failed := range f.result.Failures {
		names = append(names, failed.ClusterName+" ("+failed.Error.Type+")")
	}
	if more := f.result.Counts.Failed - maxReportedNames; more > 0 {
		names = append(names[:min(maxReportedNames, len(names))], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

func (f *fleet) markdown() string {
	var b strings.Builder
	p := f.progress()
	write(&b, "**Fleet**: %s, %s", p.Phase, p.Counts)
	if p.TargetsVerified > 0 {
		write(&b, "; %d targets verified", p.TargetsVerified)
	}
	b.WriteString("\n\n")
	if p.ClustersPerHour > 0 {
		write(&b, "%.1f clusters an hour", p.ClustersPerHour)
		if p.SecondsLeft > 0 {
			write(&b, ", about %s left", time.Duration(p.SecondsLeft)*time.Second)
		}
		b.WriteString("\n\n")
	}
	if p.WaitingFor != "" {
		write(&b, "Waiting for %s.\n\n", cell(p.WaitingFor))
	}
	writeInWork(&b, p.InWork)
	writeFailures(&b, p)
	return b.String()
}

func writeInWork(b *strings.Builder, clusters []FleetCluster) {
	if len(clusters) == 0 {
		return
	}
	b.WriteString("| In work | Since | Workflow |\n|---|---|---|\n")
	for _, c := range clusters {
		write(b, "| %s | %s | `%s` |\n", cell(c.ClusterName), c.StartedAt.Format(time.TimeOnly), cell(c.WorkflowID))
	}
	b.WriteString("\n")
}

func writeFailures(b *strings.Builder, p *FleetProgress) {
	for _, failed := range p.Failures {
		write(b, "- **%s** failed: %s: %s (`%s`)\n", cell(failed.ClusterName), failed.Error.Type, cell(failed.Error.Message), cell(failed.WorkflowID))
	}
	if p.FailuresNotListed > 0 {
		write(b, "- and %d more failures\n", p.FailuresNotListed)
	}
}
