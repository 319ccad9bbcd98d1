package workflows

import (
	"errors"
	"strings"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// ScheduledByAttribute is a search attribute of type keyword, which Temporal sets in
// each workflow that a schedule has started: the schedule's ID.
const ScheduledByAttribute = "TemporalScheduledById"

var scheduledBy = temporal.NewSearchAttributeKeyKeyword(ScheduledByAttribute)

// IsPausedByFailure reports whether Temporal has paused a schedule because a run
// failed or timed out. note is the schedule's, which says so.
func IsPausedByFailure(isPaused bool, note string) bool {
	return isPaused && strings.HasPrefix(note, "paused due to workflow ")
}

// HasPaused reports whether the run of a schedule with this workflow ID is why Temporal
// has paused it. note is the schedule's.
func HasPaused(note, workflowID string) bool {
	return IsPausedByFailure(true, note) && strings.Contains(note+":", ": "+workflowID+":")
}

// cancelScheduledRuns is the version from which on a scheduled run that people ended
// closes as canceled.
const cancelScheduledRuns = "cancel-scheduled-runs-that-people-end"

// peoplesEnd is the error with which a run closes that people ended. Where a schedule
// has started the run, that is a cancellation: Temporal would pause the schedule after
// a failure. Its details are the records and the failure, which [FailureOf] finds.
func peoplesEnd(ctx workflow.Context, err error, records any) error {
	_, isScheduled := workflow.GetTypedSearchAttributes(ctx).GetKeyword(scheduledBy)
	if !isScheduled || workflow.GetVersion(ctx, cancelScheduledRuns, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return err
	}
	return temporal.NewCanceledError(records, targetErrorOf(err))
}

// isPeoplesEnd reports whether a rotation failed because of a decision, or because
// nobody made one in time.
func isPeoplesEnd(errorType ErrorType) bool {
	return errorType == ErrorRejected || errorType == ErrorApprovalTimedOut || errorType == ErrorAborted
}

// FailureOf returns the failure in the error of a workflow, as a client, a parent
// workflow or a Nexus caller receives it; false if it holds none. A run that a
// schedule has started and people ended (rejected, aborted, canceled, not approved in
// time) is closed as canceled, and holds its failure, too.
func FailureOf(err error) (*TargetError, bool) {
	var appErr *temporal.ApplicationError
	if errors.As(err, &appErr) {
		return &TargetError{Type: ErrorType(appErr.Type()), Message: appErr.Message()}, true
	}
	var canceled *temporal.CanceledError
	var records converter.RawValue
	var failed TargetError
	if errors.As(err, &canceled) && canceled.HasDetails() && canceled.Details(&records, &failed) == nil && failed.Type != "" {
		return &failed, true
	}
	return nil, false
}

// recordsIn reads the records in the error of a workflow; false if it holds none.
func recordsIn(err error, records any) bool {
	var appErr *temporal.ApplicationError
	var canceled *temporal.CanceledError
	switch {
	case errors.As(err, &appErr):
		return appErr.HasDetails() && appErr.Details(records) == nil
	case errors.As(err, &canceled):
		return canceled.HasDetails() && canceled.Details(records) == nil
	default:
		return false
	}
}
