package workflows

import (
	"errors"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// The metrics of rotations, and their labels. They are counted through
// workflow.GetMetricsHandler, which counts nothing in a replay; a workflow task
// that fails is done again and counted again, which is rare.
const (
	RotationsEndedMetric   = "keyturn_rotations_ended_total"                   // by OutcomeLabel and ErrorLabel
	RotationDurationMetric = "keyturn_rotation_duration_seconds"               // by OutcomeLabel
	TargetsEndedMetric     = "keyturn_targets_ended_total"                     // by StatusLabel and ErrorLabel
	TargetsAmbiguousMetric = "keyturn_targets_ambiguous_total"                 // by StatusLabel
	LastVerifiedMetric     = "keyturn_cluster_last_verified_timestamp_seconds" // by connection, project, cluster

	OutcomeLabel    = "outcome"             // an Outcome, or OutcomeLabelFailed
	StatusLabel     = "status"              // a Status
	ErrorLabel      = activities.ErrorLabel // one of ErrorTypes, ErrorLabelNone or ErrorLabelOther
	ConnectionLabel = "connection"          // the input's Connection
	ProjectLabel    = "project"             // a project ID in lower case
	ClusterLabel    = "cluster"             // a cluster ID in lower case
)

// OutcomeLabelFailed labels a rotation that failed; ErrorLabel says with what.
const OutcomeLabelFailed = "failed"

// Values of ErrorLabel besides ErrorTypes.
const (
	ErrorLabelNone  = "none"  // no error
	ErrorLabelOther = "Other" // an error of any other type
)

type labels = map[string]string

// countEnd counts and logs the end of a run. One that continues as a new run has
// not ended.
func countEnd(ctx workflow.Context, r *rotation, err error) {
	var continued *workflow.ContinueAsNewError
	if errors.As(err, &continued) {
		return
	}
	outcome, errorType := string(r.common.Outcome), ErrorLabelNone
	if err != nil {
		outcome, errorType = OutcomeLabelFailed, errorLabelOf(err)
	}
	lasted := workflow.Now(ctx).Sub(r.common.StartedAt)
	metrics := workflow.GetMetricsHandler(ctx)
	metrics.WithTags(labels{OutcomeLabel: outcome, ErrorLabel: errorType}).Counter(RotationsEndedMetric).Inc(1)
	metrics.WithTags(labels{OutcomeLabel: outcome}).Timer(RotationDurationMetric).Record(lasted)
	memo := r.kind.newMemo()
	workflow.GetLogger(ctx).Info("rotation ended", "outcome", outcome, "error", errorType, "lasted", lasted.Round(time.Millisecond),
		"verified", r.count(StatusVerified), "targets", len(r.targets), "clusterName", memo.names(), "ticket", memo.Ticket, "requestedBy", memo.RequestedBy)
}

// logEnd logs the end of a fleet. Its clusters count themselves.
func (f *fleet) logEnd(ctx workflow.Context, err error) {
	if workflow.IsContinueAsNewError(err) {
		return
	}
	outcome, errorType := string(f.result.Outcome), ErrorLabelNone
	if err != nil {
		outcome, errorType = OutcomeLabelFailed, errorLabelOf(err)
	}
	workflow.GetLogger(ctx).Info("fleet rotation ended", "outcome", outcome, "error", errorType,
		"lasted", workflow.Now(ctx).Sub(f.result.StartedAt).Round(time.Millisecond),
		"clusters", f.counts().Text(f.input.Kind), "ticket", f.input.Change.Ticket, "requestedBy", f.input.Change.RequestedBy)
}

// countEvent counts an event that was delivered, or given up. A worker without a
// receiver sends none.
func countEvent(ctx workflow.Context, eventType activities.EventType, sent activities.SendEventResult, err error) {
	if err == nil && sent.NoReceiver {
		return
	}
	outcome := activities.EventDelivered
	if err != nil {
		outcome = activities.EventUndelivered
		workflow.GetLogger(ctx).Error("the event was not delivered within "+eventLifetime.String(), "type", eventType, "error", err)
	}
	workflow.GetMetricsHandler(ctx).WithTags(labels{activities.EventTypeLabel: string(eventType), OutcomeLabel: outcome}).Counter(activities.EventsEndedMetric).Inc(1)
}

// countRefusal counts an input that became no rotation.
func countRefusal(ctx workflow.Context, err error) {
	workflow.GetMetricsHandler(ctx).WithTags(labels{OutcomeLabel: OutcomeLabelFailed, ErrorLabel: errorLabelOf(err)}).Counter(RotationsEndedMetric).Inc(1)
	workflow.GetLogger(ctx).Warn("rotation refused", "error", errorLabelOf(err), "message", err.Error())
}

// countTarget counts the end of the work on a target: one that is put back to
// work ends again.
func countTarget(ctx workflow.Context, t target) {
	errorType := ErrorLabelNone
	if hasStatus(t, StatusFailed) {
		errorType = errorLabel(failureOf(t).Type)
	}
	workflow.GetMetricsHandler(ctx).WithTags(labels{StatusLabel: string(statusOf(t)), ErrorLabel: errorType}).Counter(TargetsEndedMetric).Inc(1)
}

// errorLabelOf is the value of ErrorLabel for a workflow's error.
func errorLabelOf(err error) string { return errorLabel(ErrorTypeOf(err)) }

// errorLabel keeps the values of ErrorLabel to the known types.
func errorLabel(errorType ErrorType) string {
	if slices.Contains(ErrorTypes, errorType) {
		return string(errorType)
	}
	return ErrorLabelOther
}
