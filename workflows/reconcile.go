package workflows

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"keyturn/internal/ledgerentry"
	"keyturn/internal/version"
)

// maxQueryWait is for how long a rotation is left for later that ended without
// records and whose progress cannot be queried. After that it is recorded with
// what its input says.
const maxQueryWait = 30 * time.Minute

// Types of the errors in entries of rotations that Temporal ended.
const (
	errorTimedOut ErrorType = "TimedOut"
	errorCanceled ErrorType = "Canceled"
)

// Reconciliation is what [Reconciler.Reconcile] has found.
type Reconciliation struct {
	// Added is the number of entries that were added.
	Added int
	// Refused is the number of rotations that the ledger refuses, or whose records
	// are encoded, and that the reconciler has not reported before; each is logged.
	Refused int
	// Deferred is the number of rotations that are left for later, because no
	// worker has answered the query for their records.
	Deferred int
}

// RunLedger is a ledger that knows which runs it has.
type RunLedger interface {
	ledgerentry.Appender
	// HasRun reports whether there is an entry of this run of a workflow.
	HasRun(ctx context.Context, workflowID, runID string) (bool, error)
}

// maxRemembered limits the runs that a reconciler remembers, which are about 100 bytes
// each. It looks at others again.
const maxRemembered = 100_000

// Reconciler adds rotations to a ledger that have closed without an entry. It
// remembers what it has looked at, as long as Temporal lists it. It is for one
// goroutine.
type Reconciler struct {
	Client    client.Client // for Temporal
	TaskQueue string        // whose rotations are added
	Logger    *slog.Logger  // for each rotation that was added or refused

	// remembered are runs without an entry that need none, or that the ledger refuses,
	// by run ID.
	remembered map[string]remembered
}

// remembered is what a reconciler remembers of a run.
type remembered string

const (
	needsNoEntry remembered = "needsNoEntry" // a plan, or an input that was refused
	wasRefused   remembered = "wasRefused"   // by the ledger
	isEncoded    remembered = "isEncoded"    // and the worker has no codec
)

// Reconcile adds an entry for each rotation of the task queue that has closed without
// one, as far as Temporal still has it: terminated, timed out, or closed before there
// was a ledger or while another one was in use. Several processes may do it at the same
// time.
func (r *Reconciler) Reconcile(ctx context.Context, open RunLedger) (found Reconciliation, err error) {
	now := reconciliation{r, open, &found, map[string]remembered{}}
	request := &workflowservice.ListWorkflowExecutionsRequest{
		Query: fmt.Sprintf("ExecutionStatus IN ('Completed', 'Failed', 'Canceled', 'Terminated', 'TimedOut') AND WorkflowType IN ('%s', '%s', '%s')",
			RotateClusterType, RotateDeploymentType, RotateFleetType),
	}
	for {
		page, err := r.Client.ListWorkflow(ctx, request)
		if err != nil {
			return found, err
		}
		for _, info := range page.GetExecutions() {
			if info.GetTaskQueue() != r.TaskQueue {
				continue
			}
			if err := now.reconcile(ctx, info); err != nil {
				return found, err
			}
		}
		if request.NextPageToken = page.GetNextPageToken(); len(request.NextPageToken) == 0 {
			r.remembered = now.listed // what Temporal has forgotten is not listed any more
			return found, nil
		}
	}
}

// reconciliation is one run through Temporal's list.
type reconciliation struct {
	*Reconciler
	ledger RunLedger
	found  *Reconciliation
	// listed are the remembered runs that Temporal has listed.
	listed map[string]remembered
}

// remember keeps what is known of a run, and reports whether that is new.
func (r reconciliation) remember(runID string, what remembered) (isNew bool) {
	isNew = r.remembered[runID] != what
	if len(r.listed) >= maxRemembered {
		return isNew
	}
	r.listed[runID] = what
	if r.remembered == nil {
		r.remembered = map[string]remembered{}
	}
	r.remembered[runID] = what // also if this run through the list breaks off
	return isNew
}

// closedKind is what closed workflows of different types do differently.
type closedKind struct {
	// of reads an input; nil if it was refused, or is that of a plan.
	of func(raw converter.RawValue) ledgerResult
	// empty is a result to read into.
	empty func() ledgerResult
	// details finds the result in a failure.
	details func(err error) (ledgerResult, bool)
}

// closedKindOf is nil for a workflow that rotates nothing itself.
func closedKindOf(info *workflowpb.WorkflowExecutionInfo) *closedKind {
	id, closed := info.GetExecution().GetWorkflowId(), info.GetCloseTime().AsTime()
	switch info.GetType().GetName() {
	case RotateClusterType:
		if _, _, _, isRotation := ParseRotateClusterID(id); isRotation {
			return &closedKind{
				of: func(raw converter.RawValue) ledgerResult {
					in, err := parseRotateClusterInput(raw, closed)
					if err != nil || in.DryRun {
						return nil
					}
					return &RotateClusterResult{
						Connection: in.Connection, ProjectID: in.ProjectID, ClusterID: in.ClusterID, Change: in.Change,
						Actions: []Action{}, Targets: []TargetRecord{},
					}
				},
				empty:   func() ledgerResult { return &RotateClusterResult{} },
				details: func(err error) (ledgerResult, bool) { return RotateClusterResultOf(err) },
			}
		}
	case RotateDeploymentType:
		if _, _, isRotation := ParseRotateDeploymentID(id); isRotation {
			return &closedKind{
				of: func(raw converter.RawValue) ledgerResult {
					in, err := parseRotateDeploymentInput(raw, closed)
					if err != nil || in.DryRun {
						return nil
					}
					return &RotateDeploymentResult{
						Connection: in.Connection, ProjectID: in.ProjectID, Proof: in.Proof, Change: in.Change,
						Actions: []Action{}, Targets: []ProcessRecord{},
					}
				},
				empty:   func() ledgerResult { return &RotateDeploymentResult{} },
				details: func(err error) (ledgerResult, bool) { return RotateDeploymentResultOf(err) },
			}
		}
	case RotateFleetType:
		return &closedKind{
			of: func(raw converter.RawValue) ledgerResult {
				in, err := parseRotateFleetInput(raw)
				if err != nil || in.Rotation.DryRun {
					return nil
				}
				return &RotateFleetResult{
					Kind: in.Kind, Connection: in.Connection, Change: in.Change,
					Actions: []Action{}, Failures: []ClusterFailure{}, LeftOut: []ClusterLeftOut{},
				}
			},
			empty:   func() ledgerResult { return &RotateFleetResult{} },
			details: func(err error) (ledgerResult, bool) { return RotateFleetResultOf(err) },
		}
	}
	return nil
}

func (r reconciliation) reconcile(ctx context.Context, info *workflowpb.WorkflowExecutionInfo) error {
	kind := closedKindOf(info)
	if kind == nil {
		return nil
	}
	id, runID := info.GetExecution().GetWorkflowId(), info.GetExecution().GetRunId()
	if r.remembered[runID] == needsNoEntry {
		r.remember(runID, needsNoEntry)
		return nil
	}
	if recorded, err := r.ledger.HasRun(ctx, id, runID); err != nil || recorded {
		return err
	}
	record, err := r.recordOf(ctx, info, kind)
	if errors.Is(err, converter.ErrEncodingIsNotSupported) {
		if r.remember(runID, isEncoded) {
			r.found.Refused++
			r.Logger.Error("a closed rotation cannot be added to the ledger: its records are encoded, and the worker has no codec", "workflowID", id, "runID", runID, "error", err)
		}
		return nil
	}
	if err != nil || record == nil {
		return err
	}
	record.WorkerVersion = version.String()
	_, err = r.ledger.Append(ctx, *record)
	switch {
	case ledgerentry.IsRefused(err):
		// It is tried again each time: the ledger may be another one by then.
		if r.remember(runID, wasRefused) {
			r.found.Refused++
			r.Logger.Error("the ledger refuses the entry of a closed rotation", "workflowID", id, "runID", runID, "error", err)
		}
		return nil
	case err != nil:
		return err
	}
	r.found.Added++
	r.Logger.Info("added a closed rotation to the ledger", "workflowID", id, "runID", runID, "outcome", record.Outcome)
	return nil
}

// recordOf is nil for what is no rotation, what Temporal has forgotten meanwhile,
// and what is left for later.
func (r reconciliation) recordOf(ctx context.Context, info *workflowpb.WorkflowExecutionInfo, kind *closedKind) (*ledgerentry.Record, error) {
	started, err := r.startOf(ctx, info)
	if err != nil || started == nil {
		return nil, err
	}
	var asked ledgerResult
	if input := started.GetInput().GetPayloads(); len(input) > 0 {
		raw := converter.NewRawValue(input[0])
		asked = kind.of(raw)
		if _, encoded := jsonOf(raw); encoded != nil {
			// A worker without a codec has refused it, and another one has not.
			if _, failure, err := r.resultOf(ctx, info, kind); err != nil || failure == nil || failure.Type != ErrorInvalidInput {
				return nil, cmp.Or(err, fmt.Errorf("its input %w: %w", encoded, converter.ErrEncodingIsNotSupported))
			}
		}
	}
	if asked == nil {
		r.remember(info.GetExecution().GetRunId(), needsNoEntry)
		return nil, nil
	}
	result, failure, err := r.resultOf(ctx, info, kind)
	if err != nil {
		return nil, err
	}
	isKnown := result != nil
	if !isKnown {
		if time.Since(info.GetCloseTime().AsTime()) < maxQueryWait {
			r.found.Deferred++
			return nil, nil
		}
		result = asked
	}
	isCopy := started.GetOriginalExecutionRunId() != "" && started.GetOriginalExecutionRunId() != info.GetExecution().GetRunId()
	result.close(info.GetStartTime().AsTime(), info.GetCloseTime().AsTime(), isKnown && !isCopy)
	var acted actors // as far as the result lists their actions
	acted.addAll(result.common().Actions)
	record, err := newRecord(endedRun{
		workflowID: info.GetExecution().GetWorkflowId(), runID: info.GetExecution().GetRunId(),
		entryRunID: entryRunOfClosed(started, info.GetExecution().GetRunId(), isCopy), startedBy: started.GetParentWorkflowExecution().GetWorkflowId(),
	}, ledgerentry.SourceReconciled, acted, result, failure)
	return &record, err
}

// startOf is the first event of a run; nil if Temporal no longer has it.
func (r reconciliation) startOf(ctx context.Context, info *workflowpb.WorkflowExecutionInfo) (*historypb.WorkflowExecutionStartedEventAttributes, error) {
	event, err := r.Client.GetWorkflowHistory(ctx, info.GetExecution().GetWorkflowId(), info.GetExecution().GetRunId(), false,
		enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT).Next()
	var notFound *serviceerror.NotFound
	if errors.As(err, &notFound) {
		return nil, nil
	}
	return event.GetWorkflowExecutionStartedEventAttributes(), err
}

// entryRunOfClosed is entryRunOf for a closed run.
func entryRunOfClosed(started *historypb.WorkflowExecutionStartedEventAttributes, runID string, isCopy bool) string {
	payloads := started.GetInput().GetPayloads()
	if isCopy || len(payloads) < 2 || started.GetContinuedExecutionRunId() == "" {
		return runID
	}
	var state struct {
		Writer stateWriter `json:"writer"`
	}
	isOfAnother := func() bool {
		return state.Writer != stateWriter{} && state.Writer.RunID != started.GetContinuedExecutionRunId()
	}
	if converter.GetDefaultDataConverter().FromPayload(payloads[1], &state) != nil || isOfAnother() {
		return runID
	}
	return cmp.Or(state.Writer.EntryRunID, started.GetFirstExecutionRunId())
}

// resultOf is the result of a closed run, that in its failure, or its last known
// progress; nil if none can be had.
func (r reconciliation) resultOf(ctx context.Context, info *workflowpb.WorkflowExecutionInfo, kind *closedKind) (ledgerResult, *TargetError, error) {
	id, runID := info.GetExecution().GetWorkflowId(), info.GetExecution().GetRunId()
	result := kind.empty()
	err := r.Client.GetWorkflow(ctx, id, runID).GetWithOptions(ctx, result, client.WorkflowRunGetOptions{DisableFollowingRuns: true})
	var failed *temporal.WorkflowExecutionError
	switch {
	case err == nil:
		return result, nil, nil
	case !errors.As(err, &failed):
		return nil, nil, err
	}
	failure := closedErrorOf(err)
	if details, found := kind.details(err); found {
		return details, failure, nil
	}
	queryCtx, cancel := context.WithTimeout(ctx, recordsQueryTimeout)
	defer cancel()
	answer, err := r.Client.QueryWorkflow(queryCtx, id, runID, ProgressQuery)
	if err != nil {
		return nil, failure, ctx.Err()
	}
	err = answer.Get(result)
	switch {
	case errors.Is(err, converter.ErrEncodingIsNotSupported):
		return nil, failure, err
	case err != nil:
		return nil, failure, ctx.Err()
	}
	return result, failure, nil
}

// closedErrorOf is why a closed workflow has no result.
func closedErrorOf(err error) *TargetError {
	var terminated *temporal.TerminatedError
	var timedOut *temporal.TimeoutError
	switch {
	case ErrorTypeOf(err) != "":
		return targetErrorOf(err)
	case errors.As(err, &terminated):
		return &TargetError{Type: terminatedType, Message: "the workflow was terminated"}
	case errors.As(err, &timedOut):
		return &TargetError{Type: errorTimedOut, Message: "the workflow timed out"}
	default:
		return &TargetError{Type: errorCanceled, Message: err.Error()}
	}
}

// closedOutcome is the outcome of a rotation that did not close its own records.
func closedOutcome(targets []target, isKnown bool) Outcome {
	for _, t := range targets {
		isKnown = isKnown && !t.mayHaveChanged()
	}
	if isKnown {
		return OutcomeNothingRotated
	}
	return OutcomePartial
}

// closeTimes sets the times that a result lacks.
func closeTimes(started *time.Time, finished **time.Time, startedAt, closedAt time.Time) {
	if started.IsZero() {
		*started = startedAt.UTC().Truncate(time.Millisecond)
	}
	if *finished == nil {
		at := closedAt.UTC().Truncate(time.Millisecond)
		*finished = &at
	}
}

func (r *RotateClusterResult) close(startedAt, closedAt time.Time, isKnown bool) {
	closeTimes(&r.StartedAt, &r.FinishedAt, startedAt, closedAt)
	r.Outcome = cmp.Or(r.Outcome, closedOutcome(r.all(), isKnown))
}

func (r *RotateDeploymentResult) close(startedAt, closedAt time.Time, isKnown bool) {
	closeTimes(&r.StartedAt, &r.FinishedAt, startedAt, closedAt)
	r.Outcome = cmp.Or(r.Outcome, closedOutcome(r.all(), isKnown))
}

// close: the clusters of a fleet have entries of their own, which say more.
func (r *RotateFleetResult) close(startedAt, closedAt time.Time, _ bool) {
	closeTimes(&r.StartedAt, &r.FinishedAt, startedAt, closedAt)
	r.Outcome = cmp.Or(r.Outcome, OutcomePartial)
}
