package workflows

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

const (
	// clustersListedAtATime bounds what a run knows of the fleet ahead.
	clustersListedAtATime = 200
	// longestFleetHistory is where a run continues as new, if the server has
	// not suggested it before: well below 5,000 events with all that may still
	// be in work.
	longestFleetHistory = 3_500
	// fleetPriority is below the default of 3: a rotation that somebody has
	// started on its own goes before a fleet's.
	fleetPriority = 4
)

// RotateFleet rotates every cluster of some projects, each by a child workflow
// under the cluster's own id. Its input is a RotateFleetInput, its result a
// RotateFleetResult; a fleet of which a cluster has failed fails with
// PartialFailure, whose details are the same. second is its own, a carriedFleet
// for continue-as-new.
func RotateFleet(ctx workflow.Context, raw, second converter.RawValue) (*RotateFleetResult, error) {
	input, err := parseRotateFleetInput(raw)
	if err != nil {
		return nil, err
	}
	carried, err := carriedBy[carriedFleet](ctx, second)
	if err != nil {
		return nil, err
	}
	return newFleet(ctx, input, raw, carried).run(ctx)
}

// carriedFleet is what a run hands to the one that it continues as.
type carriedFleet struct {
	Result  RotateFleetResult `json:"result"`
	Listed  listedClusters    `json:"listed"`
	InWork  []*clusterInWork  `json:"inWork"`
	Paused  *ReasonRequest    `json:"paused,omitempty"`
	Aborted *ReasonRequest    `json:"aborted,omitempty"`
	// Revision counts what operators have commanded.
	Revision int `json:"revision,omitempty"`
}

// listedClusters is how far the fleet's list is known.
type listedClusters struct {
	// Next are to be started, in this order.
	Next []activities.ClusterRef `json:"next"`
	// Last is the last one listed.
	Last *activities.ClusterRef `json:"last,omitempty"`
	// More tells that there are others after the last one.
	More bool `json:"more"`
}

// clusterInWork is a rotation that was started and has not ended.
type clusterInWork struct {
	activities.ClusterRef
	WorkflowID string    `json:"workflowId"`
	RunID      string    `json:"runId"`
	StartedAt  time.Time `json:"startedAt"`
	// inherited: an earlier run has started it, so that this one is not told
	// of its end by Temporal, but by the rotation itself.
	inherited bool
	// reports: it was asked to tell of its end.
	reports bool
	ended   bool
}

// fleet is one run of RotateFleet.
type fleet struct {
	input RotateFleetInput
	// raw is the input as it came, for the run that this one continues as.
	raw    converter.RawValue
	fields map[string]json.RawMessage

	result    RotateFleetResult
	listed    listedClusters
	inWork    []*clusterInWork
	paused    *ReasonRequest
	aborted   *ReasonRequest
	phase     string
	continued bool

	// revision: see carriedFleet.
	revision  int
	starting  int
	telling   int
	listing   bool
	listError error
	// detached goes on after a cancellation of the workflow.
	detached workflow.Context
	// cancelList ends the listing that is under way.
	cancelList workflow.CancelFunc
	listCtx    workflow.Context
	changes    int
	// now is the time of the last change: a query has none of its own.
	now      time.Time
	draining bool
}

func newFleet(ctx workflow.Context, input RotateFleetInput, raw converter.RawValue, carried *carriedFleet) *fleet {
	f := &fleet{
		input: input, raw: raw, fields: rotationFields(raw), phase: PhaseListing,
		result: RotateFleetResult{
			Connection: input.Connection, StartedAt: timestamp(ctx), Change: input.Change, Failures: []ClusterFailure{},
		},
	}
	if carried != nil {
		f.continued, f.phase = true, PhaseRotating
		f.result, f.listed, f.inWork = carried.Result, carried.Listed, carried.InWork
		f.paused, f.aborted, f.revision = carried.Paused, carried.Aborted, carried.Revision
		for _, w := range f.inWork {
			w.inherited, w.reports = true, true
		}
	}
	return f
}

func (f *fleet) run(ctx workflow.Context) (*RotateFleetResult, error) {
	// Never canceled, since that would cancel, at a continue-as-new, the
	// rotations in work.
	f.detached, _ = workflow.NewDisconnectedContext(ctx)
	f.listCtx, f.cancelList = workflow.WithCancel(ctx)
	if err := f.serveOperators(ctx); err != nil {
		return nil, err
	}
	f.hearReports(ctx)
	f.watchCancellation(ctx)
	f.changed(ctx)
	if !f.continued {
		if err := f.listAll(f.listCtx); err != nil {
			return nil, f.endedEarly(ctx, err)
		}
	}
	return f.rotate(f.detached)
}

// watchCancellation makes a cancellation the same as an abort.
func (f *fleet) watchCancellation(ctx workflow.Context) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		_ = ctx.Done().Receive(ctx, nil)
		if f.aborted == nil {
			f.abort(ctx, ReasonRequest{By: canceler})
			f.changed(ctx)
		}
	})
}

// endedEarly is the failure of a fleet of which no cluster was started.
func (f *fleet) endedEarly(ctx workflow.Context, err error) error {
	if f.aborted != nil || temporal.IsCanceledError(err) {
		return f.abortedFailure(ctx)
	}
	f.finish(ctx, OutcomePartial)
	return causeOf(err)
}

// listAll counts the whole fleet, and begins its list.
func (f *fleet) listAll(ctx workflow.Context) error {
	listed, err := f.list(ctx, true)
	switch {
	case err != nil:
		return err
	case listed.Total == 0 && f.input.ClusterNames != "":
		return failure(activities.ErrorUnexpectedTopology, nil, "clusterNames: no cluster's display name matches %q; nothing was rotated", f.input.ClusterNames)
	}
	f.result.Counts.Clusters = listed.Total
	return nil
}

// list gets the next clusters.
func (f *fleet) list(ctx workflow.Context, count bool) (listed activities.ListClustersResult, err error) {
	summary := "list the next clusters"
	if count {
		summary = "list and count the clusters"
	}
	err = workflow.ExecuteActivity(activityOptions(ctx, summary, lasting(f.input.Rotation.RetryTimeout, Duration(longestListing))),
		activities.ListClustersName, activities.ListClustersInput{
			Scope:      activities.Scope{Connection: f.input.Connection, RetryTimeout: f.input.Rotation.RetryTimeout},
			ProjectIDs: f.input.ProjectIDs, ClusterNames: f.input.ClusterNames,
			After: f.listed.Last, Limit: clustersListedAtATime, Count: count,
		}).Get(ctx, &listed)
	if err != nil {
		return listed, err
	}
	f.listed.Next = append(f.listed.Next, listed.Clusters...)
	f.listed.More = listed.More
	if n := len(listed.Clusters); n > 0 {
		f.listed.Last = &listed.Clusters[n-1]
	}
	return listed, nil
}

// listAhead gets the next clusters in good time, while others are rotated.
func (f *fleet) listAhead() {
	if f.listing || !f.listed.More || len(f.listed.Next) > f.input.ClustersAtATime || !f.mayStart() {
		return
	}
	f.listing = true
	workflow.Go(f.listCtx, func(ctx workflow.Context) {
		_, f.listError = f.list(ctx, false)
		f.listing = false
		f.changed(ctx)
	})
}

// rotate starts clusters until none is left, or nothing more may be started,
// and waits for those in work, whatever happens to the workflow's context.
func (f *fleet) rotate(ctx workflow.Context) (*RotateFleetResult, error) {
	f.phase = PhaseRotating
	f.watchInherited(ctx)
	for {
		f.draining = f.draining || f.isLong(ctx)
		f.listAhead()
		for f.mayStart() && f.starting+len(f.inWork) < f.input.ClustersAtATime && len(f.listed.Next) > 0 {
			f.start(ctx)
		}
		f.show(ctx)
		seen := f.changes
		switch {
		case f.isOver():
			return f.end(ctx)
		case f.draining && f.isSettled(ctx):
			if f.askForReports(ctx); f.changes == seen {
				return nil, f.continueAsNew(ctx)
			}
			continue
		}
		if err := workflow.Await(ctx, func() bool { return f.changes > seen }); err != nil {
			return nil, err
		}
	}
}

// isSettled tells that nothing is under way but the clusters in work.
func (f *fleet) isSettled(ctx workflow.Context) bool {
	return f.starting == 0 && f.telling == 0 && !f.listing && workflow.AllHandlersFinished(ctx)
}

func (f *fleet) isLong(ctx workflow.Context) bool {
	info := workflow.GetInfo(ctx)
	return info.GetContinueAsNewSuggested() || info.GetCurrentHistoryLength() > longestFleetHistory
}

// mayStart tells whether a new cluster may be started, if there is one.
func (f *fleet) mayStart() bool {
	return !f.draining && f.paused == nil && !f.isStopping()
}

// isStopping tells that no new cluster will be started any more.
func (f *fleet) isStopping() bool {
	return f.aborted != nil || f.listError != nil || f.result.Counts.Failed > f.input.MaxFailedClusters
}

func (f *fleet) isOver() bool {
	if f.starting > 0 || len(f.inWork) > 0 || f.listing {
		return false
	}
	return f.isStopping() || len(f.listed.Next) == 0 && !f.listed.More
}

// start begins the next cluster's rotation under its own id, which nobody else
// can have at the same time. The child outlives this run, and even the fleet: a
// rotation is ended by its own id only.
func (f *fleet) start(ctx workflow.Context) {
	ref := f.listed.Next[0]
	f.listed.Next = f.listed.Next[1:]
	f.starting++
	w := &clusterInWork{ClusterRef: ref, WorkflowID: RotateClusterID(f.input.Connection, ref.ProjectID, ref.ClusterID), StartedAt: timestamp(ctx)}
	workflow.Go(ctx, func(ctx workflow.Context) {
		f.rotateCluster(ctx, w)
		f.changed(ctx)
	})
}

func (f *fleet) rotateCluster(ctx workflow.Context, w *clusterInWork) {
	summary := f.input.cluster()
	summary.ClusterID = w.ClusterName
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:        w.WorkflowID,
		ParentClosePolicy: parentClosePolicy,
		StaticSummary:     StaticSummary(summary),
		Priority:          temporal.Priority{PriorityKey: fleetPriority},
	})
	child := workflow.ExecuteChildWorkflow(ctx, RotateClusterType, f.input.inputOf(w.ClusterRef, f.fields))
	var execution workflow.Execution
	err := child.GetChildWorkflowExecution().Get(ctx, &execution)
	f.starting--
	switch {
	case temporal.IsWorkflowExecutionAlreadyStartedError(err):
		f.result.Counts.Busy++
		return
	case err != nil:
		f.fail(w, targetErrorOf(err))
		return
	}
	w.RunID = execution.RunID
	f.inWork = append(f.inWork, w)
	f.changed(ctx)
	if f.revision > 0 {
		f.tell(ctx, w, false)
		f.changed(ctx)
	}
	var result RotateClusterResult
	err = child.Get(ctx, &result)
	f.ended(w, reportOf(&result, err))
}

// ended counts a rotation that has ended, once, whoever tells of it.
func (f *fleet) ended(w *clusterInWork, report clusterReport) {
	if w.ended {
		return
	}
	w.ended = true
	f.inWork = slices.DeleteFunc(f.inWork, func(other *clusterInWork) bool { return other == w })
	f.result.TargetsVerified += report.Verified
	counts := &f.result.Counts
	switch {
	case report.NotEncrypted:
		counts.NotEncrypted++
	case report.Error != nil:
		f.fail(w, report.Error)
	case report.Outcome == OutcomePlanned:
		counts.Planned++
	default:
		counts.Rotated++
		f.result.WithSkips = f.result.WithSkips || report.Outcome == OutcomeRotatedWithSkips
	}
}

// fail counts a failed cluster, and lists it as long as there is room.
func (f *fleet) fail(w *clusterInWork, err *TargetError) {
	f.result.Counts.Failed++
	if len(f.result.Failures) >= maxFailuresListed {
		f.result.FailuresNotListed++
		return
	}
	f.result.Failures = append(f.result.Failures, ClusterFailure{
		ClusterRef: w.ClusterRef, WorkflowID: w.WorkflowID, RunID: w.RunID, Error: err.shortened(),
	})
}

// end is the result of a fleet that has nothing left to do.
func (f *fleet) end(ctx workflow.Context) (*RotateFleetResult, error) {
	switch counts := f.counts(); {
	case f.aborted != nil:
		return nil, f.abortedFailure(ctx)
	case f.listError != nil:
		f.finish(ctx, OutcomePartial)
		return nil, f.failure(activities.ErrorPartialFailure, "the list of clusters could not be continued: %v; %s", causeOf(f.listError), counts)
	case counts.Failed > 0:
		f.finish(ctx, OutcomePartial)
		return nil, f.failure(activities.ErrorPartialFailure, "%s; failed: %s", counts, f.failedClusters())
	case f.input.Rotation.DryRun:
		f.finish(ctx, OutcomePlanned)
	case f.result.WithSkips:
		f.finish(ctx, OutcomeRotatedWithSkips)
	default:
		f.finish(ctx, OutcomeRotated)
	}
	return f.records(), nil
}

func (f *fleet) abortedFailure(ctx workflow.Context) error {
	f.finish(ctx, OutcomePartial)
	if f.aborted == nil {
		f.aborted = &ReasonRequest{By: canceler}
	}
	return f.failure(activities.ErrorAborted, "aborted by %s: %s; %s", f.aborted.By, orNoReason(f.aborted.Reason), f.counts())
}

func (f *fleet) failure(errorType, format string, args ...any) error {
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf(format, args...), errorType, temporal.ApplicationErrorOptions{
		NonRetryable: true, Details: []any{f.records()},
	})
}

// finish closes the records.
func (f *fleet) finish(ctx workflow.Context, outcome string) {
	finished := timestamp(ctx)
	f.result.Outcome, f.result.FinishedAt = outcome, &finished
	f.phase = PhaseDone
	f.changed(ctx)
}

// continueAsNew starts a fresh history with what is known, and with the
// rotations that are in work.
func (f *fleet) continueAsNew(ctx workflow.Context) error {
	return workflow.NewContinueAsNewError(ctx, RotateFleetType, f.raw, carriedFleet{
		Result: *f.records(), Listed: f.listed, InWork: f.inWork, Paused: f.paused, Aborted: f.aborted, Revision: f.revision,
	})
}
