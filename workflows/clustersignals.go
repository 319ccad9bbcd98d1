package workflows

import "go.temporal.io/sdk/workflow"

// This file is the rotation's side of the protocol that fleetsignals.go describes.

// receiveFleetSignals applies the signals of the fleet that started the rotation.
func (r *rotation) receiveFleetSignals(ctx workflow.Context) {
	signals := workflow.GetSignalChannel(ctx, fleetSignalName)
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var signal fleetSignal
			signals.Receive(ctx, &signal)
			r.applyFleetSignal(ctx, signal)
		}
	})
}

func (r *rotation) applyFleetSignal(ctx workflow.Context, signal fleetSignal) {
	info := workflow.GetInfo(ctx)
	if signal.FirstRunID != info.FirstRunID {
		// The signal is for an earlier rotation of this cluster, which has ended.
		report := clusterReport{
			WorkflowID: info.WorkflowExecution.ID, FirstRunID: signal.FirstRunID,
			Error: lostReport(),
		}
		workflow.Go(ctx, func(ctx workflow.Context) { sendReport(ctx, signal.FleetID, report) })
		return
	}
	if signal.Report {
		r.fleetID = signal.FleetID
	}
	if r.hasEnded() {
		return // only the report still matters
	}
	if signal.Aborted != nil && r.aborted == nil {
		r.recordFleetAction(ctx, AbortUpdate, *signal.Aborted)
		r.abort(ctx, *signal.Aborted)
	}
	if signal.Revision > r.operators.FleetRevision {
		r.operators.FleetRevision = signal.Revision
		r.applyFleetPause(ctx, signal)
	}
	r.changed(ctx)
}

// applyFleetPause applies the fleet's pause, or its end. A pause of this cluster
// alone stays.
func (r *rotation) applyFleetPause(ctx workflow.Context, signal fleetSignal) {
	if r.operators.Paused != nil && !r.operators.PausedByFleet {
		return
	}
	switch {
	case signal.Paused != nil:
		r.recordFleetAction(ctx, PauseUpdate, *signal.Paused)
	case r.operators.Paused != nil:
		r.recordFleetAction(ctx, ResumeUpdate, OperatorRequest{By: signal.FleetID})
	}
	r.operators.Paused, r.operators.PausedByFleet = signal.Paused, signal.Paused != nil
}

// reportEnd reports the rotation's end to the fleet that requested it. A request
// may arrive with the last workflow task: the receiver of signals may have it
// already, or it is still to be read.
func (r *rotation) reportEnd(ctx workflow.Context, err error) {
	if workflow.IsContinueAsNewError(err) {
		return
	}
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	yield(ctx)
	var signal fleetSignal
	signals := workflow.GetSignalChannel(ctx, fleetSignalName)
	for signals.ReceiveAsync(&signal) {
		r.applyFleetSignal(ctx, signal)
		signal = fleetSignal{}
	}
	if r.fleetID == "" {
		return
	}
	info := workflow.GetInfo(ctx)
	report := clusterReport{
		WorkflowID: info.WorkflowExecution.ID, FirstRunID: info.FirstRunID,
		Outcome: r.common.Outcome, NotEncrypted: r.notEncrypted, Gone: r.isGone,
	}
	report.Verified, report.Rotated = countChanged(r.targets)
	if err != nil {
		report.Error = targetErrorOf(err).shortened()
	}
	sendReport(ctx, r.fleetID, report)
}

// sendReport waits until Temporal has accepted the signal. It fails only where
// the fleet has ended and needs no report.
func sendReport(ctx workflow.Context, fleetID string, report clusterReport) {
	_ = workflow.SignalExternalWorkflow(ctx, fleetID, "", reportSignalName, report).Get(ctx, nil)
}
