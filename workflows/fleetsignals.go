package workflows

import (
	"errors"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// A fleet and the rotations that it has started communicate by two signals. When
// the fleet continues as new, its next run is not the parent of the rotations in
// progress: they are asked to report their end to the fleet's workflow ID. A pause
// or an abort of the fleet reaches them by signal, too.
const (
	// fleetSignalName is the signal from a fleet to a rotation that it started.
	fleetSignalName = "fleet"
	// reportSignalName is the signal from a rotation that ends to its fleet.
	reportSignalName = "rotation-ended"
)

const (
	// inheritedCheckInterval is how often a run checks whether the rotations that
	// an earlier run started still run: one may have been terminated.
	inheritedCheckInterval = 10 * time.Minute
	// maxListingTime is how long one list may take, without its retries.
	maxListingTime = 6 * time.Hour
)

// fleetSignal is the fleet's signal to a rotation.
type fleetSignal struct {
	FleetID string `json:"fleetId"`
	// FirstRunID identifies the rotation: another one may have the same workflow
	// ID by now.
	FirstRunID string `json:"firstRunId"`
	// Report asks for a report at the rotation's end.
	Report bool `json:"report,omitempty"`
	// Revision is the order of the changes of Paused and Aborted: signals may
	// overtake each other.
	Revision int `json:"revision,omitempty"`
	// Paused and Aborted are the fleet's state as of that revision.
	Paused  *OperatorRequest `json:"paused,omitempty"`
	Aborted *OperatorRequest `json:"aborted,omitempty"`
}

// clusterReport is how a rotation ended.
type clusterReport struct {
	WorkflowID   string       `json:"workflowId"`
	FirstRunID   string       `json:"firstRunId"`
	Outcome      Outcome      `json:"outcome,omitempty"`
	Verified     int          `json:"verified,omitempty"`
	Rotated      int          `json:"rotated,omitempty"` // only of processes
	NotEncrypted bool         `json:"notEncrypted,omitempty"`
	Gone         bool         `json:"gone,omitempty"`
	Error        *TargetError `json:"error,omitempty"`
}

func reportOf(kind fleetKind, result rotationResult, err error) (report clusterReport) {
	found := true
	if err != nil {
		report.Error = childErrorOf(err).shortened()
		result, found = kind.resultOf(err)
	}
	if found {
		report.Outcome = result.common().Outcome
		report.Verified, report.Rotated = countChanged(result.all())
	}
	if err == nil {
		return report
	}
	details := failureDetailsOf(err)
	report.NotEncrypted, report.Gone = details.IsNotEncrypted(report.Error.Type), details.ClusterGone
	return report
}

// mayHaveRotated reports whether the rotation may have sent a PUT. One that fails
// without records has failed before it read a key.
func (r clusterReport) mayHaveRotated() bool {
	switch {
	case r.Error == nil:
		return r.Outcome != OutcomePlanned
	case r.Error.Type == terminatedType || r.Error.Type == lostType:
		return true
	default:
		return r.Outcome == OutcomePartial
	}
}

// countChanged counts the targets that a rotation has verified, without those of
// earlier runs. Of processes, it also counts those that it has rotated.
func countChanged(targets []target) (verified, rotated int) {
	for _, t := range targets {
		if t.isCarriedOver() {
			continue
		}
		if hasStatus(t, StatusVerified) {
			verified++
		}
		if _, isProcess := t.(*ProcessRecord); isProcess && t.isDone() {
			rotated++
		}
	}
	return verified, rotated
}

// Types of errors that Temporal, not the rotation, causes.
const (
	terminatedType ErrorType = "Terminated"
	lostType       ErrorType = "Lost"
)

func childErrorOf(err error) *TargetError {
	var terminated *temporal.TerminatedError
	if errors.As(err, &terminated) {
		return &TargetError{Type: terminatedType, Message: "the rotation was terminated; see its history"}
	}
	return targetErrorOf(err)
}

// signalCluster sends a rotation in progress the state of the fleet, and may ask it
// for a report. It returns false if the rotation has ended.
func (f *fleet) signalCluster(ctx workflow.Context, w *clusterInProgress, report bool) bool {
	signal := fleetSignal{
		FleetID: workflow.GetInfo(ctx).WorkflowExecution.ID, FirstRunID: w.RunID, Report: report,
		Revision: f.revision, Paused: f.paused, Aborted: f.aborted,
	}
	f.signaling++ // a run that ends before the signal is sent would cancel it
	err := workflow.SignalExternalWorkflow(ctx, w.WorkflowID, "", fleetSignalName, signal).Get(ctx, nil)
	f.signaling--
	return err == nil
}

// broadcast signals all rotations in progress that the state of the fleet has
// changed, without waiting. One that is being started gets its signal afterwards.
func (f *fleet) broadcast() {
	f.revision++
	for _, w := range f.inProgress {
		workflow.Go(f.detached, func(ctx workflow.Context) {
			f.signalCluster(ctx, w, false)
			f.changed(ctx)
		})
	}
}

// requestReports asks all rotations in progress to report their end, so that the
// next run learns of it. One that cannot be signaled has ended: Temporal reports
// its end to this run.
func (f *fleet) requestReports(ctx workflow.Context) {
	group := workflow.NewWaitGroup(ctx)
	for _, w := range f.inProgress {
		if w.reports {
			continue
		}
		group.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer group.Done()
			if f.signalCluster(ctx, w, true) {
				w.reports = true
				return
			}
			_ = workflow.Await(ctx, func() bool { return w.ended })
			f.changes++
		})
	}
	group.Wait(ctx)
}

// receiveReports handles the reports of rotations that have ended.
func (f *fleet) receiveReports(ctx workflow.Context) {
	reports := workflow.GetSignalChannel(ctx, reportSignalName)
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var report clusterReport
			reports.Receive(ctx, &report)
			f.handleReport(report)
			f.changed(ctx)
		}
	})
}

func (f *fleet) handleReport(report clusterReport) {
	for _, w := range f.inProgress {
		if w.WorkflowID == report.WorkflowID && w.RunID == report.FirstRunID {
			f.recordEnd(w, report)
			return
		}
	}
}

// checkInherited checks from time to time whether the rotations that an earlier
// run started still run: one that was terminated sends no report.
func (f *fleet) checkInherited(ctx workflow.Context) {
	if len(f.inherited()) == 0 {
		return
	}
	workflow.Go(ctx, func(ctx workflow.Context) {
		for len(f.inherited()) > 0 && workflow.Sleep(ctx, inheritedCheckInterval) == nil {
			for _, w := range f.inherited() {
				if !f.signalCluster(ctx, w, true) {
					f.recordEnd(w, clusterReport{Error: lostReport()})
					f.changed(ctx)
				}
			}
		}
	})
}

func (f *fleet) inherited() (left []*clusterInProgress) {
	for _, w := range f.inProgress {
		if w.inherited {
			left = append(left, w)
		}
	}
	return left
}

// lostReport is the error of a rotation that ended without a report.
func lostReport() *TargetError {
	return &TargetError{Type: lostType, Message: "the rotation ended without reporting (probably terminated); see its history"}
}
