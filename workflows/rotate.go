package workflows

import (
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// parentClosePolicy lets a rotation go on when the workflow that handed it over
// is closed: it is ended by its own id.
const parentClosePolicy = enumspb.PARENT_CLOSE_POLICY_ABANDON

// rotate works on the pending targets until none is left, or nothing more may
// be started and nobody can change that. Targets in work are finished whatever
// happens to the workflow's context.
func (r *rotation) rotate(ctx workflow.Context) (*RotateClusterResult, error) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	r.enter(ctx, PhaseRotating)
	for {
		r.draining = r.draining || workflow.GetInfo(ctx).GetContinueAsNewSuggested()
		for t := r.next(); t != nil; t = r.next() {
			r.start(ctx, t)
		}
		if r.inWork == 0 {
			switch {
			case r.aborted != nil:
				return nil, r.abortedFailure(ctx)
			case r.isOver():
				return r.end(ctx)
			case r.draining && workflow.AllHandlersFinished(ctx):
				return nil, r.continueAsNew(ctx)
			}
		}
		if held := r.awaitChange(ctx); held != nil {
			return nil, held
		}
	}
}

// next is the target to start now; nil = none may be started.
func (r *rotation) next() *TargetRecord {
	if r.draining || r.steering.Paused != nil || r.aborted != nil || r.failureStops() || r.inWork >= r.width() {
		return nil
	}
	for i := range r.result.Targets {
		if t := &r.result.Targets[i]; t.Status == StatusPending {
			return t
		}
	}
	return nil
}

// failureStops tells whether a failed target keeps others from being started.
func (r *rotation) failureStops() bool {
	return r.input.OnFailure != OnFailureContinue && r.count(StatusFailed) > 0
}

// width is how many targets may be in work: one until a canary is verified.
func (r *rotation) width() int {
	for i := range r.result.Targets {
		if t := &r.result.Targets[i]; t.Status == StatusVerified && !t.CarriedOver {
			return r.input.Concurrency
		}
	}
	return 1
}

// isOver tells, with nothing in work, whether the rotation is at its end.
func (r *rotation) isOver() bool {
	failed, pending := r.count(StatusFailed), r.count(StatusPending)
	switch r.input.OnFailure {
	case OnFailureHold:
		return failed == 0 && pending == 0
	case OnFailureStop:
		return failed > 0 || pending == 0
	default:
		return pending == 0
	}
}

// isHeld tells whether the rotation waits for an operator because of a failure.
func (r *rotation) isHeld() bool {
	return r.input.OnFailure == OnFailureHold && r.inWork == 0 && r.count(StatusFailed) > 0
}

func (r *rotation) count(status string) (n int) {
	for i := range r.result.Targets {
		if r.result.Targets[i].Status == status {
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
		r.steering.HeldUntil = time.Time{}
		r.show(ctx)
		return workflow.Await(ctx, changed)
	}
	if r.steering.HeldUntil.IsZero() {
		r.steering.HeldUntil = timestamp(ctx).Add(r.input.HoldTimeout.Std())
	}
	r.show(ctx)
	left := max(r.steering.HeldUntil.Sub(workflow.Now(ctx)), 0)
	inTime, err := awaitWithin(ctx, left, "held: waits for an operator", changed)
	if err != nil {
		return err
	}
	if !inTime {
		r.finish(ctx, OutcomePartial)
		return failure(activities.ErrorPartialFailure, r.records(), "no operator decided within %s: %s", r.input.HoldTimeout, unverified(r.result.Targets))
	}
	return nil
}

func (r *rotation) start(ctx workflow.Context, t *TargetRecord) {
	r.inWork++
	t.Status = StatusRotating
	r.changed(ctx)
	workflow.Go(ctx, func(ctx workflow.Context) {
		r.workAndCount(ctx, t)
		r.inWork--
		r.changed(ctx)
	})
}

// work rotates and verifies one target. A PUT that was accepted before, in a
// try whose reading back failed, is only read back.
func (r *rotation) work(ctx workflow.Context, t *TargetRecord) {
	if t.RotatedAt == nil {
		if err := r.rotateKey(ctx, t); err != nil {
			r.failTarget(ctx, t, err)
			return
		}
	}
	t.Status = StatusRotated
	r.changed(ctx)
	if err := r.verifyKey(ctx, t); err != nil {
		r.failTarget(ctx, t, err)
		return
	}
	t.Status = StatusVerified
}

func (r *rotation) failTarget(ctx workflow.Context, t *TargetRecord, err error) {
	t.Status, t.Error = StatusFailed, targetErrorOf(err)
	workflow.GetLogger(ctx).Warn("target failed", "target", t.ClusterID, "targetName", t.Name, "error", t.Error.Type, "message", t.Error.Message)
}

// rotateKey runs RotateKey until its outcome is known.
func (r *rotation) rotateKey(ctx workflow.Context, t *TargetRecord) error {
	ctx = activityOptions(ctx, shorten(t.Name), lasting(r.input.RetryTimeout, r.input.SettleTime, r.input.SettleTime))
	for {
		var rotated activities.RotateKeyResult
		err := workflow.ExecuteActivity(ctx, activities.RotateKeyName, r.rotateKeyInput(t)).Get(ctx, &rotated)
		if err != nil {
			details := failureDetailsOf(err)
			t.Ambiguous = t.Ambiguous || details.Ambiguous
			t.Attempts += max(details.Attempts, 1)
			r.refused[t.ClusterID] = details.PutRefused
			return err
		}
		t.Ambiguous = t.Ambiguous || rotated.Ambiguous
		t.Attempts += rotated.Attempts
		if !rotated.Unsettled {
			at := rotated.RotatedAt.UTC()
			t.RotatedAt = &at
			return nil
		}
	}
}

// rotateKeyInput vouches for a target before its first attempt, and for less
// after one whose PUT was refused.
func (r *rotation) rotateKeyInput(t *TargetRecord) activities.RotateKeyInput {
	input := activities.RotateKeyInput{
		Scope: r.scope(), ClusterID: t.ClusterID, PreviousKeyUUID: t.PreviousKeyUUID, SettleTime: r.input.SettleTime,
	}
	switch {
	case t.Attempts == 0:
		input.UntouchedIn = r.untouchedIn
	case r.refused[t.ClusterID]:
		input.RefusedIn = r.untouchedIn
	}
	r.refused[t.ClusterID] = false
	return input
}

func (r *rotation) verifyKey(ctx workflow.Context, t *TargetRecord) error {
	ctx = activityOptions(ctx, shorten(t.Name), lasting(r.input.VerifyTimeout, r.input.RetryTimeout))
	var verified activities.VerifyKeyResult
	err := workflow.ExecuteActivity(ctx, activities.VerifyKeyName, activities.VerifyKeyInput{
		Scope: r.scope(), ClusterID: t.ClusterID, PreviousKeyUUID: t.PreviousKeyUUID, VerifyTimeout: r.input.VerifyTimeout,
	}).Get(ctx, &verified)
	if err != nil {
		return err
	}
	at := verified.VerifiedAt.UTC()
	t.NewKeyUUID, t.VerifiedAt = verified.NewKeyUUID, &at
	return nil
}

func keyIsUnchanged(err *TargetError) bool { return err.Type == activities.ErrorKeyUnchanged }

// end is the result of a rotation that has nothing left to do.
func (r *rotation) end(ctx workflow.Context) (*RotateClusterResult, error) {
	verified, skipped := r.count(StatusVerified), r.count(StatusSkipped)
	switch all := len(r.result.Targets); {
	case verified == all:
		r.finish(ctx, OutcomeRotated)
	case verified+skipped == all:
		r.finish(ctx, OutcomeRotatedWithSkips)
	default:
		r.finish(ctx, OutcomePartial)
		return nil, failure(activities.ErrorPartialFailure, r.records(), "%d of %d targets verified%s", verified, all, left(r.result.Targets))
	}
	return r.records(), nil
}

func (r *rotation) abortedFailure(ctx workflow.Context) error {
	r.finish(ctx, OutcomePartial)
	if r.aborted == nil {
		r.aborted = &ReasonRequest{By: canceler}
	}
	return failure(activities.ErrorAborted, r.records(), "aborted by %s: %s; %d of %d targets verified%s",
		r.aborted.By, orNoReason(r.aborted.Reason), r.count(StatusVerified), len(r.result.Targets), left(r.result.Targets))
}

// continueAsNew starts a fresh history, with every record and with what
// operators have set.
func (r *rotation) continueAsNew(ctx workflow.Context) error {
	targets, err := pack(r.result.Targets)
	if err != nil {
		return err
	}
	carried := carriedState{Result: *r.records(), Targets: targets, Steering: r.steering, FleetID: r.fleetID}
	carried.Result.Targets = nil
	if r.untouchedIn == workflow.GetInfo(ctx).WorkflowExecution.RunID {
		carried.UntouchedIn = r.untouchedIn
	}
	return workflow.NewContinueAsNewError(ctx, RotateClusterType, r.raw, carried)
}
