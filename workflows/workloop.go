package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// rotate works on the pending targets until none is left, or nothing more may
// be started and nobody can change that. Targets in progress are finished whatever
// happens to the workflow's context.
func (r *rotation) rotate(ctx workflow.Context) (records any, err error) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	r.enterPhase(ctx, PhaseRotating)
	for {
		r.draining = r.draining || workflow.GetInfo(ctx).GetContinueAsNewSuggested()
		r.kind.startBackground(ctx)
		for targets := r.nextWork(); targets != nil; targets = r.nextWork() {
			r.startWork(ctx, targets)
		}
		if r.inProgress == 0 {
			switch {
			case r.aborted != nil:
				r.kind.stopBackground()
				return nil, r.abortedFailure(ctx)
			case r.isFinished():
				r.kind.stopBackground()
				return r.complete(ctx)
			case r.draining && r.startingEvents == 0 && workflow.AllHandlersFinished(ctx):
				if !isSettled(ctx, &r.changes) {
					continue
				}
				r.kind.stopBackground()
				return nil, r.kind.continueAsNew(ctx)
			}
		}
		if held := r.awaitChange(ctx); held != nil {
			r.kind.stopBackground()
			return nil, held
		}
	}
}

// nextWork picks the targets to start on now; none if none may be started.
func (r *rotation) nextWork() []target {
	if r.draining || r.operators.Paused != nil || r.aborted != nil || r.failureStops() || r.pieces >= r.kind.parallelism() {
		return nil
	}
	return r.kind.nextWork()
}

// failureStops reports whether a failed target keeps others from being started.
func (r *rotation) failureStops() bool {
	return r.onFailure() != OnFailureContinue && r.count(StatusFailed) > 0
}

// onFailure is the input's, unless a target has failed in a way that no rotation
// goes on after by itself.
func (r *rotation) onFailure() OnFailure {
	if r.settings.OnFailure == OnFailureContinue {
		for _, t := range r.targets {
			if hasStatus(t, StatusFailed) && r.kind.holdsOn(failureOf(t)) {
				return OnFailureHold
			}
		}
	}
	return r.settings.OnFailure
}

// isFinished reports, with nothing in progress, whether the rotation is at its end.
func (r *rotation) isFinished() bool {
	failed, pending := r.count(StatusFailed), r.count(StatusPending)
	switch r.onFailure() {
	case OnFailureHold:
		return failed == 0 && pending == 0 && r.inBackground == 0
	case OnFailureStop:
		return failed > 0 || pending == 0 && r.inBackground == 0
	default:
		return pending == 0 && r.inBackground == 0
	}
}

// isHeld reports whether the rotation waits for an operator because of a failure.
func (r *rotation) isHeld() bool {
	return r.onFailure() == OnFailureHold && r.inProgress == 0 && r.count(StatusFailed) > 0
}

func (r *rotation) count(status Status) (n int) {
	for _, t := range r.targets {
		if hasStatus(t, status) {
			n++
		}
	}
	return n
}

// awaitChange waits until something has changed that may let the rotation go
// on. A held rotation fails when its time is up.
func (r *rotation) awaitChange(ctx workflow.Context) error {
	seen := r.changes
	changed := func() bool { return r.changes > seen }
	if !r.isHeld() {
		r.operators.HeldUntil = time.Time{}
		r.show(ctx)
		return workflow.Await(ctx, changed)
	}
	begins := r.operators.HeldUntil.IsZero()
	if begins {
		r.operators.HeldUntil = timestamp(ctx).Add(r.settings.HoldTimeout.Std())
	}
	r.show(ctx)
	if begins { // also where it is paused: the time runs
		r.sendWaiting(ctx, activities.EventRotationHeld)
	}
	left := max(r.operators.HeldUntil.Sub(workflow.Now(ctx)), 0)
	inTime, err := awaitWithin(ctx, left, "held: waiting for an operator", changed)
	if err != nil {
		return err
	}
	if !inTime {
		r.finish(ctx, r.failedOutcome(ctx))
		return failure(ErrorPartialFailure, r.kind.records(), "no operator action within %s: %s", r.settings.HoldTimeout, describeUnfinished(r.targets))
	}
	return nil
}

func (r *rotation) startWork(ctx workflow.Context, targets []target) {
	r.pieces++
	r.inProgress += len(targets)
	for _, t := range targets {
		setStatus(t, StatusRotating, failureOf(t))
	}
	r.changed(ctx)
	workflow.Go(ctx, func(ctx workflow.Context) {
		r.kind.work(ctx, targets)
		r.pieces--
		r.inProgress -= len(targets)
		r.changed(ctx)
	})
}

func failTarget(ctx workflow.Context, t target, err error) {
	failure := targetErrorOf(err)
	setStatus(t, StatusFailed, failure)
	workflow.GetLogger(ctx).Warn("target failed", "target", t.id(), "targetName", t.label(), "error", failure.Type, "message", failure.Message)
}

// complete is the result of a rotation that has nothing left to do.
func (r *rotation) complete(ctx workflow.Context) (records any, err error) {
	if r.countDone()+r.count(StatusSkipped) < len(r.targets) {
		r.finish(ctx, r.failedOutcome(ctx))
		return nil, failure(ErrorPartialFailure, r.kind.records(), "%s", r.describeEnd())
	}
	r.finish(ctx, r.kind.outcome())
	return r.kind.records(), nil
}

// countDone is the number of targets that are done.
func (r *rotation) countDone() (n int) {
	for _, t := range r.targets {
		if t.isDone() {
			n++
		}
	}
	return n
}

// describeEnd says how many targets a rotation that failed has done, and which it
// has not.
func (r *rotation) describeEnd() string {
	if len(r.targets) == 0 {
		return "its targets were not listed yet"
	}
	text := fmt.Sprintf("%d of %d targets %s", r.countDone(), len(r.targets), r.kind.doneWord())
	if names := describeUnfinished(r.targets); names != "" {
		text += "; not " + r.kind.doneWord() + ": " + names
	}
	return text
}

// failedOutcome is the outcome of a rotation that fails. The run that this one is
// a reset copy of may have sent PUTs, too.
func (r *rotation) failedOutcome(ctx workflow.Context) Outcome {
	if isResetCopy(ctx) {
		return OutcomePartial
	}
	for _, t := range r.targets {
		if t.mayHaveChanged() {
			return OutcomePartial
		}
	}
	return OutcomeNothingRotated
}

// nothingRotated ends the message of a failure before any PUT.
func nothingRotated(ctx workflow.Context) string {
	if isResetCopy(ctx) {
		return "this run rotated nothing, but it was reset: the run before the reset may have rotated targets"
	}
	return "nothing was rotated"
}

func (r *rotation) abortedFailure(ctx workflow.Context) error {
	r.finish(ctx, r.failedOutcome(ctx))
	if r.aborted == nil {
		r.actionLog().recordCancellation(ctx)
		r.aborted = &OperatorRequest{By: cancellationActor}
	}
	return failure(ErrorAborted, r.kind.records(), "aborted by %s: %s; %s", r.aborted.By, orNoReason(r.aborted.Reason), r.describeEnd())
}
