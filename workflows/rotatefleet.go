package workflows

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

const (
	// listBatchSize is the number of clusters in one list.
	listBatchSize = 200
	// maxFleetHistory is the number of events at which a run continues as new,
	// if the server has not suggested it before. It leaves room for the
	// clusters in progress.
	maxFleetHistory = 3_500
	// fleetPriority is below the default of 3: a rotation that was started on its
	// own goes before a fleet's.
	fleetPriority = 4
)

// RotateFleet rotates every cluster of some projects, each by a child workflow
// under the cluster's own ID, or the deployments of these projects, each by one under
// the project's. What follows, and the names in the code, say cluster for either.
// Its input is a RotateFleetInput, its result a RotateFleetResult. If a cluster fails, or a project cannot be listed, it fails
// with PartialFailure, whose details are the result. second is the
// FleetContinuation of a fleet that continues another one, or internal: the
// carriedFleet of a run that continues as new.
func RotateFleet(ctx workflow.Context, raw, second converter.RawValue) (*RotateFleetResult, error) {
	input, err := parseRotateFleetInput(raw)
	if err != nil {
		return nil, err
	}
	continues, err := decodeContinuation(ctx, second)
	if err != nil {
		return nil, err
	}
	var carried *carriedFleet
	if continues == nil {
		if carried, err = decodeCarried[carriedFleet](ctx, second); err != nil {
			return nil, err
		}
	}
	f := newFleet(ctx, input, raw, carried)
	if continues != nil {
		f.result.Continues = continues
	}
	f.memo = newMemoKeeper(ctx, f.continued)
	result, err := f.run(ctx)
	f.closeMemo(ctx, err)
	f.record(ctx, err)
	f.sendEnd(ctx, err)
	f.logEnd(ctx, err)
	if f.isPeoplesEnd(err) {
		err = peoplesEnd(ctx, err, f.records())
	}
	return result, err
}

// listedClusters is the part of the fleet's list that is known.
type listedClusters struct {
	// Next are the clusters to start next, in this order.
	Next []activities.ClusterRef `json:"next"`
	// Last is the position at which the next list continues.
	Last *activities.ClusterRef `json:"last,omitempty"`
	// More reports that there are others after Last.
	More bool `json:"more"`
}

// clusterInProgress is a rotation that was started and has not ended.
type clusterInProgress struct {
	activities.ClusterRef
	WorkflowID string    `json:"workflowId"`
	RunID      string    `json:"runId"`
	StartedAt  time.Time `json:"startedAt"`
	// inherited: an earlier run started it. The rotation itself, not Temporal,
	// reports its end to this one.
	inherited bool
	// reports: it was asked to report its end.
	reports bool
	ended   bool
}

// fleet is one run of RotateFleet.
type fleet struct {
	input RotateFleetInput
	// kind is what this fleet does differently.
	kind fleetKind
	// raw is the input as it came, for the run that this one continues as.
	raw    converter.RawValue
	fields map[string]json.RawMessage
	// isCopy: see carriedFleet.
	isCopy bool

	result     RotateFleetResult
	listed     listedClusters
	inProgress []*clusterInProgress
	paused     *OperatorRequest
	aborted    *OperatorRequest
	phase      Phase
	continued  bool

	// revision: see carriedFleet.
	revision int
	// mayHaveRotated: see carriedFleet.
	mayHaveRotated bool
	// actors: see carriedFleet.
	actors actors
	// entryRunID: see entryRunOf.
	entryRunID string
	// ledgerProblem is why the ledger has not recorded the fleet yet.
	ledgerProblem string
	// sendsEvents: the worker that recorded the end has a receiver of events.
	sendsEvents bool
	memo        memoKeeper

	starting  int
	signaling int
	listing   bool
	listError error
	// detached is not canceled with the workflow.
	detached workflow.Context
	// cancelList cancels listing.
	cancelList workflow.CancelFunc
	listCtx    workflow.Context
	changes    int
	// now is the time of the last change, for queries.
	now      time.Time
	draining bool
}

func newFleet(ctx workflow.Context, input RotateFleetInput, raw converter.RawValue, carried *carriedFleet) *fleet {
	f := &fleet{
		input: input, kind: fleetKindOf(input.Kind), raw: raw, fields: rotationFields(raw), phase: PhaseListing,
		result: RotateFleetResult{
			Kind: input.Kind, Connection: input.Connection, StartedAt: timestamp(ctx), Change: input.Change, Failures: []ClusterFailure{},
		},
		isCopy: isResetCopy(ctx), entryRunID: entryRunOf(ctx, nil),
	}
	if carried != nil {
		f.continued, f.phase = true, PhaseRotating
		f.result, f.listed, f.inProgress = carried.Result, carried.Listed, carried.InProgress
		f.result.Kind = input.Kind // an earlier version has written none
		f.paused, f.aborted, f.revision = carried.Paused, carried.Aborted, carried.Revision
		f.actors = carried.Actors
		f.actors.addAll(f.result.Actions)
		f.isCopy = f.isCopy || carried.IsCopy
		f.entryRunID = entryRunOf(ctx, &carried.Writer)
		fromEarlierVersion := carried.Writer == stateWriter{}
		f.mayHaveRotated = carried.MayHaveRotated || fromEarlierVersion
		for _, w := range f.inProgress {
			w.inherited, w.reports = true, true
		}
	}
	return f
}

func (f *fleet) run(ctx workflow.Context) (*RotateFleetResult, error) {
	// It is never canceled: at a continue-as-new, that would cancel the rotations
	// in progress.
	f.detached, _ = workflow.NewDisconnectedContext(ctx)
	f.listCtx, f.cancelList = workflow.WithCancel(ctx)
	if err := f.registerHandlers(ctx); err != nil {
		return nil, err
	}
	f.receiveReports(ctx)
	f.watchCancellation(ctx)
	f.changed(ctx)
	if !f.continued {
		if err := f.listAll(f.listCtx); err != nil {
			return nil, f.failBeforeStart(ctx, err)
		}
	}
	return f.rotate(f.detached)
}

// watchCancellation makes a cancellation the same as an abort.
func (f *fleet) watchCancellation(ctx workflow.Context) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		_ = ctx.Done().Receive(ctx, nil)
		if f.aborted == nil && !f.isClosed() {
			f.actionLog().recordCancellation(ctx)
			f.abort(ctx, OperatorRequest{By: cancellationActor})
			f.changed(ctx)
		}
	})
}

// failBeforeStart returns the failure of a fleet that has started no cluster.
func (f *fleet) failBeforeStart(ctx workflow.Context, err error) error {
	if f.aborted != nil || temporal.IsCanceledError(err) {
		return f.abortedFailure(ctx)
	}
	f.finish(ctx, f.failedOutcome())
	return causeOf(err)
}

// listAll counts the whole fleet, and starts its list. More projects that cannot
// be listed than may fail are recorded at once: no cluster starts.
func (f *fleet) listAll(ctx workflow.Context) error {
	listed, err := f.list(ctx, true)
	switch {
	case err != nil:
		return err
	case listed.Total == 0 && f.input.ClusterNames != "":
		return failure(ErrorUnexpectedTopology, nil, "clusterNames: no cluster's display name matches %q; nothing was rotated", f.input.ClusterNames)
	case listed.Total == 0 && workflow.GetVersion(ctx, refuseEmptyFleet, workflow.DefaultVersion, 1) > workflow.DefaultVersion:
		return failure(ErrorUnexpectedTopology, nil, "%s", f.kind.nothingListed())
	}
	f.result.Counts.Clusters = listed.Total
	if listed.TotalUnlisted > f.input.MaxFailedClusters {
		f.recordUnlisted(listed.UnlistedAhead)
		more := listed.TotalUnlisted - f.result.Counts.FailedProjects
		f.result.Counts.Failed += more
		f.result.Counts.FailedProjects += more
		f.result.FailuresNotListed += more
	}
	return nil
}

// refuseEmptyFleet is the version from which on a fleet without clusters fails.
const refuseEmptyFleet = "refuse-empty-fleet"

// list gets the next clusters.
func (f *fleet) list(ctx workflow.Context, count bool) (listed activities.ListClustersResult, err error) {
	if listed, err = f.kind.list(ctx, f.input, f.listed.Last, count); err != nil {
		return listed, err
	}
	for _, ref := range listed.Clusters {
		// A worker of an earlier version does not know ExcludeProjectIDs.
		if !slices.Contains(f.input.ExcludeProjectIDs, ref.ProjectID) {
			f.listed.Next = append(f.listed.Next, ref)
		}
	}
	f.recordUnlisted(listed.Unlisted)
	f.listed.More = listed.More
	if n := len(listed.Clusters); n > 0 {
		f.listed.Last = &listed.Clusters[n-1]
	}
	if listed.Last != nil { // nil from a worker of an earlier version
		f.listed.Last = listed.Last
	}
	return listed, nil
}

// listAhead gets the next clusters before they are needed.
func (f *fleet) listAhead() {
	if f.listing || !f.listed.More || len(f.listed.Next) > f.input.ClustersAtATime || !f.canStart() {
		return
	}
	f.listing = true
	workflow.Go(f.listCtx, func(ctx workflow.Context) {
		_, f.listError = f.list(ctx, false)
		f.listing = false
		f.changed(ctx)
	})
}

// rotate starts clusters until none is left, or no more may start, and waits for
// those in progress, even if the workflow is canceled.
func (f *fleet) rotate(ctx workflow.Context) (*RotateFleetResult, error) {
	f.phase = PhaseRotating
	f.checkInherited(ctx)
	for {
		f.draining = f.draining || isHistoryLong(ctx)
		f.listAhead()
		for f.canStartNext() {
			f.startCluster(ctx)
		}
		f.show(ctx)
		seen := f.changes
		switch {
		case f.isFinished():
			return f.complete(ctx)
		case f.draining && f.isIdle(ctx):
			f.requestReports(ctx)
			if f.changes == seen && isSettled(ctx, &f.changes) && f.isIdle(ctx) {
				return nil, f.continueAsNew(ctx)
			}
			continue
		}
		if err := workflow.Await(ctx, func() bool { return f.changes > seen }); err != nil {
			return nil, err
		}
	}
}

// isIdle reports whether the fleet waits only for the clusters in progress.
func (f *fleet) isIdle(ctx workflow.Context) bool {
	return f.starting == 0 && f.signaling == 0 && !f.listing && workflow.AllHandlersFinished(ctx)
}

// canStart reports whether a new cluster may start, if there is one.
func (f *fleet) canStart() bool {
	return !f.draining && f.paused == nil && !f.isStopping()
}

// canStartNext reports whether the next cluster starts now. A fleet that
// continues another one starts one at a time: the records that it passes on are in
// its history, which must not grow by those of all clusters at once.
func (f *fleet) canStartNext() bool {
	return f.canStart() && len(f.listed.Next) > 0 && f.starting+len(f.inProgress) < f.input.ClustersAtATime &&
		(f.result.Continues == nil || f.starting == 0)
}

// isStopping reports that no more clusters will start.
func (f *fleet) isStopping() bool {
	return f.aborted != nil || f.listError != nil || f.result.Counts.Failed > f.input.MaxFailedClusters
}

func (f *fleet) isFinished() bool {
	if f.starting > 0 || len(f.inProgress) > 0 || f.listing {
		return false
	}
	return f.isStopping() || len(f.listed.Next) == 0 && !f.listed.More
}

// startCluster starts the next cluster's rotation under its own ID, which is the
// cluster's lock. The child outlives this run, and even the fleet: a rotation is
// ended by its own ID only.
func (f *fleet) startCluster(ctx workflow.Context) {
	ref := f.listed.Next[0]
	f.listed.Next = f.listed.Next[1:]
	f.starting++
	w := &clusterInProgress{ClusterRef: ref, WorkflowID: f.kind.workflowID(f.input, ref), StartedAt: timestamp(ctx)}
	workflow.Go(ctx, func(ctx workflow.Context) {
		f.rotateCluster(ctx, w)
		f.changed(ctx)
	})
}

func (f *fleet) rotateCluster(ctx workflow.Context, w *clusterInProgress) {
	completed, settled := f.settleEarlier(ctx, w)
	if settled {
		f.starting--
		return
	}
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            w.WorkflowID,
		WorkflowIDReusePolicy: f.reusePolicy(),
		ParentClosePolicy:     parentClosePolicy,
		StaticSummary:         f.kind.summary(f.input, w.ClusterRef),
		Priority:              temporal.Priority{PriorityKey: fleetPriority},
	})
	child := workflow.ExecuteChildWorkflow(ctx, f.kind.workflowType(), f.input.inputOf(w.ClusterRef, f.fields, completed))
	var execution workflow.Execution
	err := child.GetChildWorkflowExecution().Get(ctx, &execution)
	f.starting--
	switch {
	case temporal.IsWorkflowExecutionAlreadyStartedError(err):
		f.result.Counts.Busy++
		f.recordLeftOut(w.ClusterRef, LeftOutBusy)
		return
	case err != nil:
		f.recordFailure(w, targetErrorOf(err))
		return
	}
	w.RunID = execution.RunID
	f.inProgress = append(f.inProgress, w)
	f.changed(ctx)
	if f.revision > 0 {
		f.signalCluster(ctx, w, false)
		f.changed(ctx)
	}
	result := f.kind.newResult()
	err = child.Get(ctx, result)
	f.recordEnd(w, reportOf(f.kind, result, err))
}

// reusePolicy keeps a copy of a fleet, made by a reset, from a second round: it
// starts no cluster that has a rotation, running or ended. The original run may
// have started any of them.
func (f *fleet) reusePolicy() enumspb.WorkflowIdReusePolicy {
	if f.isCopy {
		return enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
	}
	return enumspb.WORKFLOW_ID_REUSE_POLICY_UNSPECIFIED
}

// recordEnd counts a rotation that has ended, once, whether Temporal or the
// rotation itself reports it.
func (f *fleet) recordEnd(w *clusterInProgress, report clusterReport) {
	if w.ended {
		return
	}
	w.ended = true
	f.inProgress = slices.DeleteFunc(f.inProgress, func(other *clusterInProgress) bool { return other == w })
	f.result.TargetsVerified += report.Verified
	f.result.TargetsRotated += report.Rotated
	f.mayHaveRotated = f.mayHaveRotated || report.mayHaveRotated()
	counts := &f.result.Counts
	switch {
	case report.NotEncrypted:
		counts.NotEncrypted++
		f.recordLeftOut(w.ClusterRef, LeftOutNotEncrypted)
	case report.Gone && f.kind.isKnown(f.input):
		counts.Gone++
		f.recordLeftOut(w.ClusterRef, LeftOutGone)
	case report.Error != nil:
		f.recordFailure(w, report.Error)
	case report.Outcome == OutcomePlanned:
		counts.Planned++
	default:
		f.recordRotated(report.Outcome)
	}
}

// recordRotated counts a cluster whose rotation succeeded.
func (f *fleet) recordRotated(outcome Outcome) {
	f.result.Counts.Rotated++
	switch outcome {
	case OutcomeRotatedWithSkips:
		f.result.WithSkips = true
	case OutcomeRotatedUnproven:
		f.result.Counts.Unproven++
	}
}

// recordFailure counts a failed cluster, and lists it as long as there is room.
func (f *fleet) recordFailure(w *clusterInProgress, err *TargetError) {
	f.result.Counts.Failed++
	if len(f.result.Failures) >= maxFailuresListed {
		f.result.FailuresNotListed++
		return
	}
	f.result.Failures = append(f.result.Failures, ClusterFailure{
		ClusterRef: w.ClusterRef, WorkflowID: w.WorkflowID, RunID: w.RunID, Error: err.shortened(),
	})
}

// recordLeftOut lists a cluster that is left out, if there is room for more with
// its reason.
func (f *fleet) recordLeftOut(ref ClusterRef, reason LeftOutReason) {
	listed := 0
	for _, other := range f.result.LeftOut {
		if other.Reason == reason {
			listed++
		}
	}
	if listed < maxLeftOutListed {
		f.result.LeftOut = append(f.result.LeftOut, ClusterLeftOut{ref, reason})
	}
}

// recordUnlisted counts projects that cannot be listed as failures.
func (f *fleet) recordUnlisted(projects []activities.UnlistedProject) {
	for _, p := range projects {
		f.result.Counts.FailedProjects++
		f.recordFailure(&clusterInProgress{ClusterRef: ClusterRef{ProjectID: p.ProjectID}}, &TargetError{Type: p.Type, Message: p.Message})
	}
}

// complete returns the result of a fleet that has nothing left to do.
func (f *fleet) complete(ctx workflow.Context) (*RotateFleetResult, error) {
	switch counts := f.counts(); {
	case f.aborted != nil:
		return nil, f.abortedFailure(ctx)
	case f.listError != nil:
		f.finish(ctx, f.failedOutcome())
		return nil, f.failure(ErrorPartialFailure, "cannot continue the %s list: %v; %s", f.input.Kind.Noun(), causeOf(f.listError), counts.Text(f.input.Kind))
	case counts.Failed > 0:
		f.finish(ctx, f.failedOutcome())
		return nil, f.failure(ErrorPartialFailure, "%s; failed: %s", counts.Text(f.input.Kind), f.failedClusters())
	case f.input.Rotation.DryRun:
		f.finish(ctx, OutcomePlanned)
	case f.result.WithSkips:
		f.finish(ctx, OutcomeRotatedWithSkips)
	case counts.Unproven > 0:
		f.finish(ctx, OutcomeRotatedUnproven)
	default:
		f.finish(ctx, OutcomeRotated)
	}
	return f.records(), nil
}

// isPeoplesEnd: or because all rotations that failed did for that reason.
func (f *fleet) isPeoplesEnd(err error) bool {
	return isPeoplesEnd(ErrorTypeOf(err)) ||
		ErrorTypeOf(err) == ErrorPartialFailure && f.listError == nil && f.result.FailuresNotListed == 0 &&
			!slices.ContainsFunc(f.result.Failures, func(failure ClusterFailure) bool { return !isPeoplesEnd(failure.Error.Type) })
}

func (f *fleet) abortedFailure(ctx workflow.Context) error {
	f.finish(ctx, f.failedOutcome())
	if f.aborted == nil {
		f.actionLog().recordCancellation(ctx)
		f.aborted = &OperatorRequest{By: cancellationActor}
	}
	return f.failure(ErrorAborted, "aborted by %s: %s; %s", f.aborted.By, orNoReason(f.aborted.Reason), f.counts().Text(f.input.Kind))
}

func (f *fleet) failure(errorType ErrorType, format string, args ...any) error {
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf(format, args...), string(errorType), temporal.ApplicationErrorOptions{
		NonRetryable: true, Details: []any{f.records()},
	})
}

// failedOutcome is the outcome of a fleet that fails.
func (f *fleet) failedOutcome() Outcome {
	if f.mayHaveRotated || f.isCopy {
		return OutcomePartial
	}
	return OutcomeNothingRotated
}

// finish closes the records. The clusters that are known and were not started
// are left out.
func (f *fleet) finish(ctx workflow.Context, outcome Outcome) {
	finished := timestamp(ctx)
	f.result.Outcome, f.result.FinishedAt = outcome, &finished
	f.phase = PhaseDone
	for _, ref := range f.listed.Next {
		f.recordLeftOut(ref, LeftOutNotStarted)
	}
	f.changed(ctx)
}
