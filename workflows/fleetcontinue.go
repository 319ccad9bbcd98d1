package workflows

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// ContinuedFleet is a fleet that another one continues: clusters that were
// rotated since are not rotated again.
type ContinuedFleet struct {
	// WorkflowID is the fleet's workflow ID; required.
	WorkflowID string `json:"workflowId"`
	// RunID is the run of that workflow whose records are the fleet's; required, up
	// to 256 characters.
	RunID string `json:"runId"`
	// Since is when the fleet started or, if it continued another one itself,
	// when that one did.
	Since time.Time `json:"since"`
}

// FleetContinuation is the second argument of a RotateFleet that continues
// another fleet. It is not a part of the input: a schedule or a retry policy must
// not repeat it, and a worker that does not know it refuses to start.
type FleetContinuation struct {
	// Continues is the fleet to continue; nil = none.
	Continues *ContinuedFleet `json:"continues"`
}

// decodeContinuation returns the fleet to continue; nil if there is none. Like a
// carried state, it is only taken from the run that it is meant for: the first
// one.
//
// The argument is part of the history.
//
//workflowcheck:ignore
func decodeContinuation(ctx workflow.Context, second converter.RawValue) (*ContinuedFleet, error) {
	if second.Payload() == nil || workflow.GetInfo(ctx).ContinuedExecutionRunID != "" {
		return nil, nil
	}
	var continuation FleetContinuation
	if converter.GetDefaultDataConverter().FromPayload(second.Payload(), &continuation) != nil || continuation.Continues == nil {
		return nil, nil
	}
	continues := continuation.Continues
	var f fieldErrors
	f.checkText("continues.workflowId", continues.WorkflowID, maxFailureText)
	f.checkText("continues.runId", continues.RunID, maxName)
	if continues.Since.IsZero() {
		f.add("continues.since", "is required")
	}
	f.checkPast("continues.since", &continues.Since, workflow.Now(ctx))
	return continues, f.err()
}

// readRecordsName is the activity that reads what was done to a cluster since a
// time.
const readRecordsName = "ReadRecords"

const (
	// recordsTimeout limits one attempt to read records, and recordsAttempts the
	// attempts: about ten minutes.
	recordsTimeout  = time.Minute
	recordsAttempts = 20
	// recordsQueryTimeout limits the query of a run that ended without records.
	recordsQueryTimeout = 15 * time.Second
	// runsPerPage is how many runs of a cluster's rotation are listed at a time.
	runsPerPage = 100
)

// recordsUnreadable is the error of a cluster whose earlier rotation cannot be
// read: rotating it could rotate keys again.
const recordsUnreadable ErrorType = "RecordsUnreadable"

// readRecordsInput names a cluster's rotation, or a project's.
type readRecordsInput struct {
	// Kind is the fleet's; empty = FleetOfClusters.
	Kind       FleetKind `json:"kind,omitempty"`
	WorkflowID string    `json:"workflowId"`
	Since      time.Time `json:"since"`
}

// earlierRotation is what was done to a cluster since a time.
type earlierRotation struct {
	// Running: a rotation is running.
	Running bool `json:"running,omitempty"`
	// Rotated: the last rotation succeeded.
	Rotated bool `json:"rotated,omitempty"`
	// Outcome is that of the last rotation, if it succeeded; empty from a worker of an
	// earlier version.
	Outcome Outcome `json:"outcome,omitempty"`
	// Completed are the packed records of targets that were or may have been rotated.
	Completed []byte `json:"completed,omitempty"`
}

// readEarlierRotation reads what was done to a cluster since the continued fleet
// started. completed are the records to continue from; nil = none.
func (f *fleet) readEarlierRotation(ctx workflow.Context, w *clusterInProgress) (earlier earlierRotation, completed any, err error) {
	retries := retryPolicy()
	retries.MaximumAttempts = recordsAttempts
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		Summary:             shorten("read the records of " + NameOf(w.ClusterRef)),
		StartToCloseTimeout: recordsTimeout,
		RetryPolicy:         retries,
	})
	input := readRecordsInput{WorkflowID: w.WorkflowID, Since: f.result.Continues.Since}
	if f.input.Kind != FleetOfClusters {
		input.Kind = f.input.Kind
	}
	if err := workflow.ExecuteActivity(ctx, readRecordsName, input).Get(ctx, &earlier); err != nil {
		return earlier, nil, err
	}
	completed, err = f.kind.unpack(earlier.Completed)
	return earlier, completed, err
}

// settleEarlier records a cluster for which there is nothing to start, and
// reports whether it is one. Otherwise completed are the records to continue from.
func (f *fleet) settleEarlier(ctx workflow.Context, w *clusterInProgress) (completed any, settled bool) {
	if f.result.Continues == nil {
		return nil, false
	}
	earlier, completed, err := f.readEarlierRotation(ctx, w)
	switch {
	case f.paused != nil || f.isStopping(): // meanwhile
		f.listed.Next = slices.Insert(f.listed.Next, 0, w.ClusterRef)
	case err != nil:
		f.recordFailure(w, targetErrorOf(err))
	case earlier.Running:
		f.result.Counts.Busy++
		f.recordLeftOut(w.ClusterRef, LeftOutBusy)
	case earlier.Rotated:
		f.recordRotated(earlier.Outcome)
		f.result.Counts.CarriedOver++
	default:
		return completed, false
	}
	return nil, true
}

// RegisterActivities registers the activities that read the records of earlier
// rotations from Temporal.
func RegisterActivities(registry worker.ActivityRegistry) {
	registry.RegisterActivityWithOptions(readRecords, activity.RegisterOptions{Name: readRecordsName})
}

// readRecords finds out from Temporal what was done to a cluster since a time.
func readRecords(ctx context.Context, in readRecordsInput) (earlierRotation, error) {
	reader := recordReader{
		client: activity.GetClient(ctx), namespace: activity.GetInfo(ctx).Namespace, results: fleetKindOf(in.Kind), readRecordsInput: in,
	}
	earlier, err := reader.read(ctx)
	var appErr *temporal.ApplicationError
	if err == nil || errors.As(err, &appErr) {
		return earlier, err
	}
	return earlier, temporal.NewApplicationErrorWithCause(
		fmt.Sprintf("cannot read what was done to the cluster before: workflow %s: %v", in.WorkflowID, err), string(recordsUnreadable), err)
}

// CheckContinuable refuses to continue a fleet of which Temporal may have
// forgotten rotations: their clusters would be rotated again.
func CheckContinuable(ctx context.Context, c client.Client, namespace string, since time.Time) error {
	described, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	if err != nil {
		return err
	}
	kept := described.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
	if age := time.Since(since); kept > 0 && age > kept {
		return temporal.NewNonRetryableApplicationError(fmt.Sprintf("the fleet to continue started at %s, and Temporal keeps ended workflows for %s: "+
			"it may have forgotten which clusters were rotated; continue the clusters that are left one by one, or start a new fleet, which rotates every cluster",
			since.UTC().Format(time.RFC3339), Duration(kept)), string(ErrorInvalidInput), nil)
	}
	return nil
}

// recordReader reads the runs of a cluster's rotation.
type recordReader struct {
	client    client.Client
	namespace string
	results   rotationResults
	readRecordsInput
}

func (r recordReader) read(ctx context.Context) (earlier earlierRotation, err error) {
	if err := CheckContinuable(ctx, r.client, r.namespace, r.Since); err != nil {
		return earlier, err
	}
	runs, running, err := r.runs(ctx)
	if err != nil || running {
		return earlierRotation{Running: running}, err
	}
	var results []rotationResult
	for _, run := range runs {
		result, err := r.result(ctx, run)
		if err != nil {
			return earlier, fmt.Errorf("run %s: %w", run.GetExecution().GetRunId(), err)
		}
		if result == nil {
			continue
		}
		switch outcome := result.common().Outcome; outcome {
		case OutcomePlanned:
			continue
		case OutcomeRotated, OutcomeRotatedWithSkips, OutcomeRotatedUnproven:
			if len(results) == 0 {
				return earlierRotation{Rotated: true, Outcome: outcome}, nil
			}
		}
		results = append(results, result)
	}
	earlier.Completed, err = r.results.pack(results)
	return earlier, err
}

// runs are those that have ended since, newest first. The last run is known for
// certain; Temporal's list may be late.
func (r recordReader) runs(ctx context.Context) (ended []*workflowpb.WorkflowExecutionInfo, running bool, err error) {
	described, err := r.client.DescribeWorkflowExecution(ctx, r.WorkflowID, "")
	var notFound *serviceerror.NotFound
	if errors.As(err, &notFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	last := described.GetWorkflowExecutionInfo()
	switch {
	case last.GetCloseTime() == nil:
		return nil, true, nil
	case last.GetCloseTime().AsTime().Before(r.Since):
		return nil, false, nil
	}
	known := map[string]bool{}
	add := func(run *workflowpb.WorkflowExecutionInfo) {
		// The last run of a chain reports for those that continued as new.
		if id := run.GetExecution().GetRunId(); !known[id] && run.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW {
			known[id] = true
			ended = append(ended, run)
		}
	}
	add(last)
	request := &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: runsPerPage,
		Query:    fmt.Sprintf("WorkflowId = '%s' AND CloseTime >= '%s'", r.WorkflowID, r.Since.UTC().Format(time.RFC3339Nano)),
	}
	for {
		listed, err := r.client.ListWorkflow(ctx, request)
		if err != nil {
			return nil, false, err
		}
		for _, run := range listed.GetExecutions() {
			add(run)
		}
		if request.NextPageToken = listed.GetNextPageToken(); len(request.NextPageToken) == 0 {
			break
		}
	}
	slices.SortStableFunc(ended, func(a, b *workflowpb.WorkflowExecutionInfo) int {
		return b.GetCloseTime().AsTime().Compare(a.GetCloseTime().AsTime())
	})
	return ended, false, nil
}

// result returns the records of a run; nil if it ended before it had any.
func (r recordReader) result(ctx context.Context, run *workflowpb.WorkflowExecutionInfo) (rotationResult, error) {
	runID := run.GetExecution().GetRunId()
	result := r.results.newResult()
	err := r.client.GetWorkflow(ctx, r.WorkflowID, runID).GetWithOptions(ctx, result, client.WorkflowRunGetOptions{DisableFollowingRuns: true})
	var failed *temporal.WorkflowExecutionError
	switch {
	case err == nil:
		return result, nil
	case !errors.As(err, &failed):
		return nil, err
	}
	if records, found := r.results.resultOf(err); found {
		return records, nil
	}
	ctx, cancel := context.WithTimeout(ctx, recordsQueryTimeout)
	defer cancel()
	answer, err := r.client.QueryWorkflow(ctx, r.WorkflowID, runID, ProgressQuery)
	var noHandler *serviceerror.QueryFailed
	switch {
	case errors.As(err, &noHandler):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return result, answer.Get(result)
}

// RecordsToContinue returns the records that a rotation continues from, as
// [RotateClusterInput].Completed takes them: those of targets that are verified,
// and those to which a PUT may have been sent.
func RecordsToContinue(records []TargetRecord) (completed []TargetRecord) {
	for _, record := range records {
		if record.Status == StatusVerified || mayHaveBeenRotated(record) {
			record.Error, record.FirstError, record.compact = nil, nil, false
			completed = append(completed, record)
		}
	}
	return fittingRecords(completed)
}

// fittingRecords are records that fit into the input of a rotation.
func fittingRecords(records []TargetRecord) []TargetRecord {
	result := RotateClusterResult{Targets: slices.Clone(records)}
	result.fit(maxPayload)
	return result.Targets
}
