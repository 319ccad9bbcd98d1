package workflows

import (
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// operatorState is what operators have set and the rotation keeps to.
type operatorState struct {
	Paused *OperatorRequest `json:"paused,omitempty"`
	// PausedByFleet: the pause is the whole fleet's, and ends with that.
	PausedByFleet bool `json:"pausedByFleet,omitempty"`
	// FleetRevision is that of the last pause, or its end, that the fleet has
	// reported.
	FleetRevision int `json:"fleetRevision,omitempty"`
	// HeldUntil ends the waiting for an operator; zero = not held.
	HeldUntil time.Time `json:"heldUntil,omitzero"`
	// Actors are all who acted: see actionLog.
	Actors actors `json:"actors,omitempty"`
}

// settings are the fields that the inputs of all rotations have.
type settings struct {
	Connection      string
	ProjectID       string
	Concurrency     int
	DryRun          bool
	RequireApproval bool
	ApprovalTimeout Duration
	ExpectedTargets int
	OnFailure       OnFailure
	HoldTimeout     Duration
	RetryTimeout    Duration
	SettleTime      Duration
	Change          Change
}

// commonResult is what the results of all rotations have.
type commonResult struct {
	Outcome          Outcome
	StartedAt        time.Time
	FinishedAt       *time.Time
	Change           Change
	Approval         *Approval
	Actions          []Action
	ActionsNotListed int
}

// rotation is one run of a rotation, of whatever kind.
type rotation struct {
	settings settings
	// raw is the input as it came, for the run that this one continues as.
	raw converter.RawValue
	// kind is what this rotation does differently.
	kind      kind
	common    commonResult
	targets   []target
	operators operatorState
	// phase is the step that the run is at; see currentPhase.
	phase     Phase
	continued bool
	// fleetID: see carriedState.
	fleetID string
	// entryRunID: see entryRunOf.
	entryRunID string
	// sendsEvents: the worker that listed the targets, or recorded the end, has a
	// receiver of events.
	sendsEvents bool
	// startingEvents are the events that Temporal has not started to deliver yet.
	startingEvents int
	// ledgerProblem is why the ledger has not recorded the rotation yet.
	ledgerProblem string
	memo          memoKeeper
	// notEncrypted: no target of the cluster has a key.
	notEncrypted bool
	// isGone: Ops Manager no longer has the cluster.
	isGone bool

	rejected *OperatorRequest
	aborted  *OperatorRequest
	// notice is shown with the request for approval.
	notice           string
	approvalDeadline time.Time

	inProgress        int // targets
	pieces            int // pieces of work in progress; see kind.nextWork
	inBackground      int // see kind.startBackground
	changes           int // counts what may let the run go on
	draining          bool
	cancelPreparation workflow.CancelFunc
}

// newRotation is the part that rotations of all kinds have; kind is still to be
// set.
func newRotation(ctx workflow.Context, s settings, raw converter.RawValue) *rotation {
	return &rotation{
		settings: s,
		raw:      raw,
		phase:    PhaseListing,
		common:   commonResult{StartedAt: timestamp(ctx), Change: s.Change},

		entryRunID: entryRunOf(ctx, nil),
	}
}

// restore takes over what the previous run has carried over.
func (r *rotation) restore(common commonResult, operators operatorState, approval *carriedApproval, fleetID string) {
	r.continued, r.phase = true, PhaseRotating
	r.common, r.operators, r.fleetID = common, operators, fleetID
	r.operators.Actors.addAll(common.Actions)
	if approval != nil {
		r.phase = PhaseAwaitingApproval
		r.approvalDeadline, r.notice = approval.Deadline, approval.Notice
	}
}

func (r *rotation) run(ctx workflow.Context) (records any, err error) {
	r.memo = newMemoKeeper(ctx, r.continued)
	records, err = r.runMain(ctx)
	r.closeMemo(ctx, err)
	r.record(ctx, err)
	r.sendEnd(ctx, err)
	r.reportEnd(ctx, err)
	return records, err
}

func (r *rotation) runMain(ctx workflow.Context) (records any, err error) {
	workCtx, cancel := workflow.WithCancel(ctx)
	r.cancelPreparation = cancel
	if err := r.registerHandlers(ctx); err != nil {
		return nil, err
	}
	r.watchCancellation(ctx)
	r.receiveFleetSignals(ctx)
	r.changed(ctx)
	if r.phase != PhaseRotating {
		if err := r.prepare(workCtx); err != nil {
			return nil, r.failBeforeStart(ctx, err)
		}
		if r.settings.DryRun {
			return r.completePlan(ctx), nil
		}
	}
	return r.rotate(ctx)
}

// watchCancellation makes a cancellation the same as an abort.
func (r *rotation) watchCancellation(ctx workflow.Context) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		_ = ctx.Done().Receive(ctx, nil)
		if r.aborted == nil && !r.hasEnded() {
			r.actionLog().recordCancellation(ctx)
			r.aborted = &OperatorRequest{By: cancellationActor}
		}
		r.changed(ctx)
	})
}

// prepare finds the targets, reads their keys and gets the approval. Nothing
// is changed by it.
func (r *rotation) prepare(ctx workflow.Context) error {
	if r.continued {
		return r.getApproval(ctx)
	}
	if err := r.kind.plan(ctx); err != nil {
		return err
	}
	if r.settings.RequireApproval && !r.settings.DryRun {
		r.approvalDeadline = workflow.Now(ctx).Add(r.settings.ApprovalTimeout.Std())
		return r.getApproval(ctx)
	}
	return nil
}

// failBeforeStart is the failure of a run that has rotated nothing.
func (r *rotation) failBeforeStart(ctx workflow.Context, err error) error {
	if workflow.IsContinueAsNewError(err) {
		return err
	}
	if r.aborted != nil || temporal.IsCanceledError(err) {
		return r.abortedFailure(ctx)
	}
	r.finish(ctx, r.failedOutcome(ctx))
	cause := causeOf(err)
	r.notEncrypted, r.isGone = isNotEncrypted(err), isClusterGone(err)
	return cause
}

func (r *rotation) scope() activities.Scope {
	return activities.Scope{Connection: r.settings.Connection, ProjectID: r.settings.ProjectID, RetryTimeout: r.settings.RetryTimeout}
}

// getApproval waits until someone else approves what was read, and reads it
// again: what has changed since is approved again.
func (r *rotation) getApproval(ctx workflow.Context) error {
	for {
		if err := r.awaitApproval(ctx); err != nil {
			return err
		}
		changed, err := r.kind.confirmPlan(ctx)
		if err != nil || changed == "" {
			return err
		}
		r.common.Approval = nil
		r.notice = " (" + changed + ")"
	}
}

func (r *rotation) awaitApproval(ctx workflow.Context) error {
	r.enterPhase(ctx, PhaseAwaitingApproval)
	decided := func() bool { return r.common.Approval != nil || r.rejected != nil }
	left := max(r.approvalDeadline.Sub(workflow.Now(ctx)), 0)
	inTime, err := r.awaitDecision(ctx, left, decided)
	switch {
	case err != nil:
		return err
	case inTime && !decided():
		return r.kind.continueAsNew(ctx)
	case r.rejected != nil:
		r.finish(ctx, r.failedOutcome(ctx))
		return failure(ErrorRejected, r.kind.records(), "rejected by %s: %s; %s", r.rejected.By, orNoReason(r.rejected.Reason), nothingRotated(ctx))
	case !inTime:
		r.finish(ctx, r.failedOutcome(ctx))
		return failure(ErrorApprovalTimedOut, r.kind.records(), "not approved within %s; %s", r.settings.ApprovalTimeout, nothingRotated(ctx))
	}
	r.notice = ""
	return nil
}

// awaitDecision waits like awaitWithin, but also ends where the history is long:
// each update's answer is a part of it.
func (r *rotation) awaitDecision(ctx workflow.Context, left time.Duration, decided func() bool) (inTime bool, err error) {
	over, isLong := false, false
	defer func() { over = true }()
	workflow.Go(ctx, func(ctx workflow.Context) {
		err := workflow.Await(ctx, func() bool {
			return over || workflow.GetInfo(ctx).GetContinueAsNewSuggested() && r.startingEvents == 0 && workflow.AllHandlersFinished(ctx)
		})
		isLong = err == nil && !over && !decided() && continuesWhileAwaiting(ctx)
	})
	return awaitWithin(ctx, left, "waiting for approval", func() bool { return decided() || isLong })
}

// continuesWhileAwaiting is false in histories that were recorded when a
// rotation that waited for approval did not continue as new.
func continuesWhileAwaiting(ctx workflow.Context) bool {
	return workflow.GetVersion(ctx, "continue-as-new-while-awaiting-approval", workflow.DefaultVersion, 1) == 1
}

func (r *rotation) completePlan(ctx workflow.Context) any {
	for _, t := range r.targets {
		if hasStatus(t, StatusPending) {
			setStatus(t, StatusPlanned, failureOf(t))
			countTarget(ctx, t)
		}
	}
	r.finish(ctx, OutcomePlanned)
	return r.kind.records()
}

// finish closes the records.
func (r *rotation) finish(ctx workflow.Context, outcome Outcome) {
	finished := timestamp(ctx)
	r.common.Outcome, r.common.FinishedAt = outcome, &finished
	r.enterPhase(ctx, PhaseDone)
}

// withinRotation limits a time that an activity returned to the time between the
// rotation's start and now: a record has one clock, Temporal's.
func (r *rotation) withinRotation(ctx workflow.Context, at time.Time) time.Time {
	now := timestamp(ctx)
	switch at = at.UTC(); {
	case at.After(now):
		return now
	case at.Before(r.common.StartedAt):
		return r.common.StartedAt
	default:
		return at
	}
}
