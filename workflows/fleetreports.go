package workflows

import (
	"errors"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// A fleet and the rotations that it has started talk by two signals. A run of
// the fleet that continues as new is no parent of the rotations in work any
// more: those are asked to report their end to whatever run there is then. And
// a pause or an abort of the whole reaches them so.
const (
	// fleetSignal is what a rotation is told by the fleet that has started it.
	fleetSignal = "fleet"
	// reportSignal is what a fleet is told by a rotation that ends.
	reportSignal = "rotation-ended"
)

const (
	// inheritedCheckInterval is how often a run looks whether the rotations
	// that it was left with still run, in case that one was terminated.
	inheritedCheckInterval = 10 * time.Minute
	// longestListing is how long one listing may take beside its retries.
	longestListing = 6 * time.Hour
)

// fleetOrder is what a fleet tells a rotation.
type fleetOrder struct {
	FleetID string `json:"fleetId"`
	// FirstRunID names the rotation that is meant: under the same id there may
	// be another one by now.
	FirstRunID string `json:"firstRunId"`
	// Report asks for a report at the rotation's end.
	Report bool `json:"report,omitempty"`
	// Revision orders what the fleet's operators have commanded: signals may
	// overtake each other.
	Revision int `json:"revision,omitempty"`
	// Paused and Aborted are the state of the whole as of that revision.
	Paused  *ReasonRequest `json:"paused,omitempty"`
	Aborted *ReasonRequest `json:"aborted,omitempty"`
}

// clusterReport is how a rotation has ended, in short.
type clusterReport struct {
	WorkflowID   string       `json:"workflowId"`
	FirstRunID   string       `json:"firstRunId"`
	Outcome      string       `json:"outcome,omitempty"`
	Verified     int          `json:"verified,omitempty"`
	NotEncrypted bool         `json:"notEncrypted,omitempty"`
	Error        *TargetError `json:"error,omitempty"`
}

func reportOf(result *RotateClusterResult, err error) clusterReport {
	if err == nil {
		return clusterReport{Outcome: result.Outcome, Verified: rotatedTargets(result)}
	}
	report := clusterReport{Error: childErrorOf(err).shortened()}
	if records, found := ResultOf(err); found {
		report.Outcome, report.Verified = records.Outcome, rotatedTargets(records)
	}
	report.NotEncrypted = failureDetailsOf(err).SaysNotEncrypted(report.Error.Type)
	return report
}

func rotatedTargets(result *RotateClusterResult) (n int) {
	for _, t := range result.Targets {
		if t.Status == StatusVerified && !t.CarriedOver {
			n++
		}
	}
	return n
}

// Types in a report of what only Temporal itself does to a rotation.
const (
	terminatedType = "Terminated"
	lostType       = "Lost"
)

func childErrorOf(err error) *TargetError {
	var terminated *temporal.TerminatedError
	if errors.As(err, &terminated) {
		return &TargetError{Type: terminatedType, Message: "the rotation was terminated; its history tells what was done"}
	}
	return targetErrorOf(err)
}

// tell tells a rotation in work the state of the whole, and may ask it for a
// report; false = it has ended.
func (f *fleet) tell(ctx workflow.Context, w *clusterInWork, report bool) bool {
	order := fleetOrder{
		FleetID: workflow.GetInfo(ctx).WorkflowExecution.ID, FirstRunID: w.RunID, Report: report,
		Revision: f.revision, Paused: f.paused, Aborted: f.aborted,
	}
	f.telling++ // a run that ends before Temporal has sent it would take it back
	err := workflow.SignalExternalWorkflow(ctx, w.WorkflowID, "", fleetSignal, order).Get(ctx, nil)
	f.telling--
	return err == nil
}

// tellAll tells all rotations in work that the state of the whole has changed,
// without waiting. One that has not begun yet is told as soon as it has.
func (f *fleet) tellAll() {
	f.revision++
	for _, w := range f.inWork {
		workflow.Go(f.detached, func(ctx workflow.Context) {
			f.tell(ctx, w, false)
			f.changed(ctx)
		})
	}
}

// askForReports makes all rotations in work report their end, so that the run
// that this one continues as will know of it. One that can't be told has ended:
// Temporal tells this run.
func (f *fleet) askForReports(ctx workflow.Context) {
	group := workflow.NewWaitGroup(ctx)
	for _, w := range f.inWork {
		if w.reports {
			continue
		}
		group.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer group.Done()
			if f.tell(ctx, w, true) {
				w.reports = true
				return
			}
			_ = workflow.Await(ctx, func() bool { return w.ended })
			f.changes++
		})
	}
	group.Wait(ctx)
}

// hearReports takes up the reports of the rotations' ends.
func (f *fleet) hearReports(ctx workflow.Context) {
	reports := workflow.GetSignalChannel(ctx, reportSignal)
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var report clusterReport
			reports.Receive(ctx, &report)
			f.hear(report)
			f.changed(ctx)
		}
	})
}

func (f *fleet) hear(report clusterReport) {
	for _, w := range f.inWork {
		if w.WorkflowID == report.WorkflowID && w.RunID == report.FirstRunID {
			f.ended(w, report)
			return
		}
	}
}

// watchInherited looks now and then whether the rotations that this run was
// left with are still there: one that was terminated has no last word.
func (f *fleet) watchInherited(ctx workflow.Context) {
	if len(f.inherited()) == 0 {
		return
	}
	workflow.Go(ctx, func(ctx workflow.Context) {
		for len(f.inherited()) > 0 && workflow.Sleep(ctx, inheritedCheckInterval) == nil {
			for _, w := range f.inherited() {
				if !f.tell(ctx, w, true) {
					f.ended(w, clusterReport{Error: lost()})
					f.changed(ctx)
				}
			}
		}
	})
}

func (f *fleet) inherited() (left []*clusterInWork) {
	for _, w := range f.inWork {
		if w.inherited {
			left = append(left, w)
		}
	}
	return left
}

// lost is why a rotation counts as failed that has ended without a report.
func lost() *TargetError {
	return &TargetError{Type: lostType, Message: "the rotation has ended without a word, as one that is terminated does; its history tells what was done"}
}

// followFleet makes a rotation obey the fleet that has started it.
func (r *rotation) followFleet(ctx workflow.Context) {
	orders := workflow.GetSignalChannel(ctx, fleetSignal)
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var order fleetOrder
			orders.Receive(ctx, &order)
			r.obey(ctx, order)
		}
	})
}

func (r *rotation) obey(ctx workflow.Context, order fleetOrder) {
	info := workflow.GetInfo(ctx)
	if order.FirstRunID != info.FirstRunID {
		// The one that is meant has ended; this is another one.
		report := clusterReport{
			WorkflowID: info.WorkflowExecution.ID, FirstRunID: order.FirstRunID,
			Error: lost(),
		}
		workflow.Go(ctx, func(ctx workflow.Context) { sendReport(ctx, order.FleetID, report) })
		return
	}
	if order.Report {
		r.fleetID = order.FleetID
	}
	if order.Aborted != nil && r.aborted == nil {
		r.abort(ctx, *order.Aborted)
	}
	if order.Revision > r.steering.FleetRevision {
		r.steering.FleetRevision = order.Revision
		r.followPause(order.Paused)
	}
	r.changed(ctx)
}

// followPause takes over the fleet's pause, or its end; an operator's own pause
// of this cluster stays.
func (r *rotation) followPause(paused *ReasonRequest) {
	if r.steering.Paused == nil || r.steering.PausedByFleet {
		r.steering.Paused, r.steering.PausedByFleet = paused, paused != nil
	}
}

// report tells the fleet that has asked for it how the rotation has ended. An
// order that came with the end's own workflow task is heard before.
func (r *rotation) report(ctx workflow.Context, err error) {
	if workflow.IsContinueAsNewError(err) {
		return
	}
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	var order fleetOrder
	orders := workflow.GetSignalChannel(ctx, fleetSignal)
	for orders.ReceiveAsync(&order) {
		r.obey(ctx, order)
		order = fleetOrder{}
	}
	if r.fleetID == "" {
		return
	}
	info := workflow.GetInfo(ctx)
	report := clusterReport{
		WorkflowID: info.WorkflowExecution.ID, FirstRunID: info.FirstRunID,
		Outcome: r.result.Outcome, Verified: rotatedTargets(&r.result), NotEncrypted: r.notEncrypted,
	}
	if err != nil {
		report.Error = targetErrorOf(err).shortened()
	}
	sendReport(ctx, r.fleetID, report)
}

// sendReport waits until Temporal has it. A fleet that is gone misses nothing.
func sendReport(ctx workflow.Context, fleetID string, report clusterReport) {
	_ = workflow.SignalExternalWorkflow(ctx, fleetID, "", reportSignal, report).Get(ctx, nil)
}
