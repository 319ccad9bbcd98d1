package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// RotateCluster rotates the master key of every target of a cluster. Its input
// is a RotateClusterInput, its result a RotateClusterResult; it takes the raw
// input so that one that does not fit is InvalidInput like any other. second is
// its own, a carriedState for continue-as-new.
func RotateCluster(ctx workflow.Context, raw, second converter.RawValue) (*RotateClusterResult, error) {
	input, err := parseRotateClusterInput(raw)
	if err != nil {
		countRefusal(ctx, err)
		return nil, err
	}
	carried, err := carriedBy[carriedState](ctx, second)
	if err != nil {
		return nil, err
	}
	id := RotateClusterID(input.Connection, input.ProjectID, input.ClusterID)
	if workflow.GetInfo(ctx).WorkflowExecution.ID != id {
		return handOver(ctx, id, raw, StaticSummary(input))
	}
	if carried != nil && carried.Targets != nil {
		if carried.Result.Targets, err = carried.Targets.unpack(); err != nil {
			return nil, unreadable(err)
		}
	}
	r := newRotation(ctx, input, raw, carried)
	result, err := r.run(ctx)
	countEnd(ctx, r, err)
	return result, err
}

// handOver has the rotation done under the one id that is its lock. The child
// outlives this workflow: a rotation is ended by its own id only.
func handOver(ctx workflow.Context, id string, input converter.RawValue, summary string) (*RotateClusterResult, error) {
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("Handed over to workflow `%s`: look there, and address every query and update to that id.", id))
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:        id,
		ParentClosePolicy: parentClosePolicy,
		StaticSummary:     summary,
	})
	var result RotateClusterResult
	err := workflow.ExecuteChildWorkflow(ctx, RotateClusterType, input).Get(ctx, &result)
	if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
		return nil, clusterBusy(id)
	}
	if err != nil {
		return nil, causeOf(err)
	}
	return &result, nil
}

// StaticSummary is the summary that a rotation should be started with: the Web
// UI shows it beside the workflow's id.
func StaticSummary(input RotateClusterInput) string {
	summary := "Rotate the KMIP master key of cluster " + input.ClusterID
	if input.DryRun {
		summary = "Plan the rotation of the KMIP master key of cluster " + input.ClusterID
	}
	if input.Change.Ticket != "" {
		summary += " (" + input.Change.Ticket + ")"
	}
	return shorten(summary)
}

// maxSummary is well within the server's limit of 400 bytes for a summary.
const maxSummary = 90 // characters, of up to 4 bytes

func shorten(summary string) string {
	if runes := []rune(summary); len(runes) > maxSummary {
		return string(runes[:maxSummary-1]) + "…"
	}
	return summary
}

// carriedState is what a run hands to the one that it continues as.
type carriedState struct {
	// Result has no targets where Targets has them.
	Result   RotateClusterResult `json:"result"`
	Targets  packedRecords       `json:"targets,omitempty"`
	Steering steering            `json:"steering"`
	// UntouchedIn is the run that vouches that the pending targets without an
	// attempt have had no PUT; empty = nobody does.
	UntouchedIn string `json:"untouchedIn"`
	// FleetID is the fleet that has asked for a report at the end.
	FleetID string `json:"fleetId,omitempty"`
}

// steering is what operators have set and the rotation keeps to.
type steering struct {
	Paused *ReasonRequest `json:"paused,omitempty"`
	// PausedByFleet: the pause is the whole fleet's, and ends with that.
	PausedByFleet bool `json:"pausedByFleet,omitempty"`
	// FleetRevision is that of the last pause, or its end, that the fleet has
	// told of.
	FleetRevision int `json:"fleetRevision,omitempty"`
	// HeldUntil ends the waiting for an operator; zero = not held.
	HeldUntil time.Time `json:"heldUntil,omitzero"`
}

// rotation is one run of RotateCluster.
type rotation struct {
	input RotateClusterInput
	// raw is the input as it came, for the run that this one continues as.
	raw      converter.RawValue
	result   RotateClusterResult
	steering steering
	// phase is the step that the run is at; see currentPhase.
	phase string
	// untouchedIn: see carriedState.
	untouchedIn string
	// refused are the targets, by id, whose last PUT is known to have been
	// refused.
	refused   map[string]bool
	continued bool
	// fleetID: see carriedState.
	fleetID string
	// notEncrypted: no target of the cluster has a key.
	notEncrypted bool

	rejected *ReasonRequest
	aborted  *ReasonRequest
	// notice is told with what the rotation waits for.
	notice string

	inWork     int
	changes    int // counts what may let the run go on
	draining   bool
	cancelWork workflow.CancelFunc
}

func newRotation(ctx workflow.Context, input RotateClusterInput, raw converter.RawValue, carried *carriedState) *rotation {
	r := &rotation{
		input:   input,
		raw:     raw,
		phase:   PhaseListing,
		refused: map[string]bool{},
		result: RotateClusterResult{
			Connection: input.Connection, ProjectID: input.ProjectID, ClusterID: input.ClusterID,
			StartedAt: timestamp(ctx), Change: input.Change, Targets: []TargetRecord{},
		},
	}
	if carried != nil {
		r.continued, r.phase = true, PhaseRotating
		r.result, r.steering = carried.Result, carried.Steering
		r.untouchedIn, r.fleetID = inheritedVouching(ctx, carried), carried.FleetID
	}
	return r
}

// inheritedVouching passes the vouching on where this run directly continues
// the one that vouched, and is no copy of such a run made by a reset.
func inheritedVouching(ctx workflow.Context, carried *carriedState) string {
	info := workflow.GetInfo(ctx)
	isCopy := info.OriginalRunID != info.WorkflowExecution.RunID
	if carried.UntouchedIn == "" || carried.UntouchedIn != info.ContinuedExecutionRunID || isCopy {
		return ""
	}
	return info.WorkflowExecution.RunID
}

// timestamp is the workflow's time as records show it.
func timestamp(ctx workflow.Context) time.Time {
	return workflow.Now(ctx).UTC().Truncate(time.Millisecond)
}

func (r *rotation) run(ctx workflow.Context) (*RotateClusterResult, error) {
	result, err := r.runToItsEnd(ctx)
	r.report(ctx, err)
	return result, err
}

func (r *rotation) runToItsEnd(ctx workflow.Context) (*RotateClusterResult, error) {
	workCtx, cancel := workflow.WithCancel(ctx)
	r.cancelWork = cancel
	if err := r.serveOperators(ctx); err != nil {
		return nil, err
	}
	r.watchCancellation(ctx)
	r.followFleet(ctx)
	r.changed(ctx)
	if !r.continued {
		if err := r.prepare(workCtx); err != nil {
			return nil, r.endedEarly(ctx, err)
		}
		if r.input.DryRun {
			return r.planned(ctx), nil
		}
	}
	return r.rotate(ctx)
}

// canceler is who aborts by canceling the workflow, which names nobody.
const canceler = "a cancellation of the workflow"

// watchCancellation makes a cancellation the same as an abort.
func (r *rotation) watchCancellation(ctx workflow.Context) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		_ = ctx.Done().Receive(ctx, nil)
		if r.aborted == nil {
			r.aborted = &ReasonRequest{By: canceler}
		}
		r.changed(ctx)
	})
}

// prepare lists the targets, reads their keys and gets the approval. Nothing
// is changed by it.
func (r *rotation) prepare(ctx workflow.Context) error {
	if err := r.listTargets(ctx); err != nil {
		return err
	}
	keys, err := r.readKeys(ctx)
	if err != nil {
		return err
	}
	r.recordKeys(ctx, keys)
	if r.input.RequireApproval && !r.input.DryRun {
		return r.getApproval(ctx)
	}
	return nil
}

// endedEarly is the failure of a run that has rotated nothing.
func (r *rotation) endedEarly(ctx workflow.Context, err error) error {
	if r.aborted != nil || temporal.IsCanceledError(err) {
		return r.abortedFailure(ctx)
	}
	r.finish(ctx, OutcomePartial)
	cause := causeOf(err)
	r.notEncrypted = saysNotEncrypted(err)
	return cause
}

func (r *rotation) scope() activities.Scope {
	return activities.Scope{Connection: r.input.Connection, ProjectID: r.input.ProjectID, RetryTimeout: r.input.RetryTimeout}
}

func (r *rotation) listTargets(ctx workflow.Context) error {
	r.enter(ctx, PhaseListing)
	ctx = activityOptions(ctx, "list the targets of cluster "+r.input.ClusterID, lasting())
	var listed activities.ListTargetsResult
	err := workflow.ExecuteActivity(ctx, activities.ListTargetsName, activities.ListTargetsInput{
		Scope: r.scope(), ClusterID: r.input.ClusterID,
	}).Get(ctx, &listed)
	if err != nil {
		return err
	}
	if n := len(listed.Targets); n > maxTargets {
		return failure(activities.ErrorUnexpectedTopology, nil, "cluster %s (%s) has %d targets, and no more than %d can be recorded; nothing was rotated",
			listed.ClusterName, r.input.ClusterID, n, maxTargets)
	}
	r.result.ClusterName = listed.ClusterName
	for _, target := range listed.Targets {
		r.result.Targets = append(r.result.Targets, TargetRecord{Target: target, Status: StatusPending})
	}
	if expected := r.input.ExpectedTargets; expected != 0 && expected != len(listed.Targets) {
		return failure(activities.ErrorUnexpectedTopology, nil,
			"expectedTargets: %d expected, but Ops Manager lists %d for cluster %s (%s): %s; nothing was rotated",
			expected, len(listed.Targets), listed.ClusterName, r.input.ClusterID, unverified(r.result.Targets))
	}
	return nil
}

// readKeys reads the key of every target, in the order of the records. The run
// that reads vouches from then on for what has not been touched.
func (r *rotation) readKeys(ctx workflow.Context) ([]activities.Key, error) {
	r.enter(ctx, PhaseReading)
	var keys []activities.Key
	for first := 0; first < len(r.result.Targets); first += readKeysAtATime {
		batch := r.result.Targets[first:min(first+readKeysAtATime, len(r.result.Targets))]
		read, err := r.readBatch(ctx, batch, len(keys))
		if err != nil {
			return nil, err
		}
		keys = append(keys, read.Keys...)
		r.untouchedIn = read.ReadIn
	}
	return keys, nil
}

func (r *rotation) readBatch(ctx workflow.Context, batch []TargetRecord, readBefore int) (activities.ReadKeysResult, error) {
	summary := fmt.Sprintf("read the keys of %d targets, from %s", len(batch), batch[0].Name)
	ctx = activityOptions(ctx, shorten(summary), lasting())
	input := activities.ReadKeysInput{Scope: r.scope(), Concurrency: r.input.Concurrency, ReadBefore: readBefore}
	for _, t := range batch {
		input.ClusterIDs = append(input.ClusterIDs, t.ClusterID)
	}
	var read activities.ReadKeysResult
	err := workflow.ExecuteActivity(ctx, activities.ReadKeysName, input).Get(ctx, &read)
	if err == nil && len(read.Keys) != len(batch) {
		err = failure(activities.ErrorUnexpectedResponse, nil, "ReadKeys gave %d keys for %d targets", len(read.Keys), len(batch))
	}
	return read, err
}

// recordKeys writes down each target's key, and carries over what an earlier
// run has verified and what still has that run's key.
func (r *rotation) recordKeys(ctx workflow.Context, keys []activities.Key) {
	earlier := map[string]TargetRecord{}
	for _, record := range r.input.Completed {
		if record.Status == StatusVerified {
			earlier[lower(record.ClusterID)] = record
		}
	}
	for i := range r.result.Targets {
		t := &r.result.Targets[i]
		if t.CarriedOver && t.NewKeyUUID != keys[i].KeyUUID && leavesCarriedOver(ctx) {
			*t = TargetRecord{Target: t.Target, Status: StatusPending}
		}
		t.PreviousKeyUUID = keys[i].KeyUUID
		if done, found := earlier[lower(t.ClusterID)]; found && done.NewKeyUUID == keys[i].KeyUUID {
			done.Target, done.CarriedOver, done.Error = t.Target, true, nil
			done.RotatedAt, done.VerifiedAt = inUTC(done.RotatedAt), inUTC(done.VerifiedAt)
			*t = done
		}
	}
}

func inUTC(at *time.Time) *time.Time {
	if at == nil {
		return nil
	}
	utc := at.UTC()
	return &utc
}

// leavesCarriedOver tells whether a target that was carried over, and has lost
// that key while approval was waited for, is to be rotated like any other. Before
// this version it stayed as it was, and no approval could let the rotation go on.
func leavesCarriedOver(ctx workflow.Context) bool {
	const change = "2026-11-25: a carried-over key that changes before the approval is rotated"
	return workflow.GetVersion(ctx, change, workflow.DefaultVersion, 1) == 1
}

// getApproval waits until somebody else approves what was read, and reads it
// again: what has changed since is approved anew.
func (r *rotation) getApproval(ctx workflow.Context) error {
	deadline := workflow.Now(ctx).Add(r.input.ApprovalTimeout.Std())
	for {
		if err := r.awaitApproval(ctx, deadline); err != nil {
			return err
		}
		keys, err := r.readKeys(ctx)
		if err != nil {
			return err
		}
		changed := r.changedSincePlan(keys)
		if len(changed) == 0 {
			return nil
		}
		r.result.Approval = nil
		r.recordKeys(ctx, keys)
		r.notice = fmt.Sprintf("the keys of %v have changed since the plan was approved: ", changed)
	}
}

func (r *rotation) awaitApproval(ctx workflow.Context, deadline time.Time) error {
	r.enter(ctx, PhaseAwaitingApproval)
	decided := func() bool { return r.result.Approval != nil || r.rejected != nil }
	left := max(deadline.Sub(workflow.Now(ctx)), 0)
	inTime, err := awaitWithin(ctx, left, "waits for approval", decided)
	switch {
	case err != nil:
		return err
	case r.rejected != nil:
		r.finish(ctx, OutcomePartial)
		return failure(activities.ErrorRejected, r.records(), "rejected by %s: %s; nothing was rotated", r.rejected.By, orNoReason(r.rejected.Reason))
	case !inTime:
		r.finish(ctx, OutcomePartial)
		return failure(activities.ErrorApprovalTimedOut, r.records(), "nobody approved within %s; nothing was rotated", r.input.ApprovalTimeout)
	}
	r.notice = ""
	return nil
}

// awaitWithin waits for a condition, by a timer that the Web UI's timeline shows
// with what the rotation waits for.
func awaitWithin(ctx workflow.Context, left time.Duration, summary string, condition func() bool) (inTime bool, err error) {
	return workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{
		Timeout: left, TimerOptions: workflow.TimerOptions{Summary: summary},
	}, condition)
}

func orNoReason(reason string) string {
	if reason == "" {
		return "no reason given"
	}
	return reason
}

func (r *rotation) changedSincePlan(keys []activities.Key) (names []string) {
	for i, t := range r.result.Targets {
		known := t.PreviousKeyUUID
		if t.Status == StatusVerified {
			known = t.NewKeyUUID
		}
		if keys[i].KeyUUID != known {
			names = append(names, t.Name)
		}
	}
	return names
}

func (r *rotation) planned(ctx workflow.Context) *RotateClusterResult {
	for i := range r.result.Targets {
		if t := &r.result.Targets[i]; t.Status == StatusPending {
			t.Status = StatusPlanned
			countTarget(ctx, t)
		}
	}
	r.finish(ctx, OutcomePlanned)
	return r.records()
}

// finish closes the records.
func (r *rotation) finish(ctx workflow.Context, outcome string) {
	finished := timestamp(ctx)
	r.result.Outcome, r.result.FinishedAt = outcome, &finished
	r.enter(ctx, PhaseDone)
}

// records is a copy of the result so far.
func (r *rotation) records() *RotateClusterResult {
	result := r.result
	result.Targets = append([]TargetRecord{}, r.result.Targets...)
	return &result
}
