package workflows

import (
	"errors"
	"time"

	"go.temporal.io/sdk/temporal"
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

	OutcomeLabel    = "outcome"
	StatusLabel     = "status"
	ErrorLabel      = activities.ErrorLabel
	ConnectionLabel = "connection"
	ProjectLabel    = "project"
	ClusterLabel    = "cluster"
)

// OutcomeFailed labels a rotation that failed; ErrorLabel says with what.
const OutcomeFailed = "failed"

// NoError is the value of ErrorLabel where there was none.
const NoError = "none"

type labels = map[string]string

// countEnd counts and logs the end of a run of RotateCluster. One that goes on
// as a new run has not ended.
func countEnd(ctx workflow.Context, r *rotation, err error) {
	var goesOn *workflow.ContinueAsNewError
	if errors.As(err, &goesOn) {
		return
	}
	outcome, errorType := r.result.Outcome, NoError
	if err != nil {
		outcome, errorType = OutcomeFailed, errorTypeOf(err)
	}
	lasted := workflow.Now(ctx).Sub(r.result.StartedAt)
	metrics := workflow.GetMetricsHandler(ctx)
	metrics.WithTags(labels{OutcomeLabel: outcome, ErrorLabel: errorType}).Counter(RotationsEndedMetric).Inc(1)
	metrics.WithTags(labels{OutcomeLabel: outcome}).Timer(RotationDurationMetric).Record(lasted)
	if outcome == OutcomeRotated {
		metrics.WithTags(labels{
			ConnectionLabel: r.input.Connection, ProjectLabel: lower(r.input.ProjectID), ClusterLabel: lower(r.input.ClusterID),
		}).Gauge(LastVerifiedMetric).Update(float64(r.result.FinishedAt.Unix()))
	}
	workflow.GetLogger(ctx).Info("rotation ended", "outcome", outcome, "error", errorType, "lasted", lasted.Round(time.Millisecond),
		"verified", r.count(StatusVerified), "targets", len(r.result.Targets))
}

// countRefusal counts an input that became no rotation.
func countRefusal(ctx workflow.Context, err error) {
	workflow.GetMetricsHandler(ctx).WithTags(labels{OutcomeLabel: OutcomeFailed, ErrorLabel: errorTypeOf(err)}).Counter(RotationsEndedMetric).Inc(1)
	workflow.GetLogger(ctx).Warn("rotation refused", "error", errorTypeOf(err), "message", err.Error())
}

// workAndCount works on a target, and counts and logs how that ended.
func (r *rotation) workAndCount(ctx workflow.Context, t *TargetRecord) {
	wasAmbiguous := t.Ambiguous
	r.work(ctx, t)
	countTarget(ctx, t)
	if t.Ambiguous && !wasAmbiguous {
		workflow.GetMetricsHandler(ctx).WithTags(labels{StatusLabel: t.Status}).Counter(TargetsAmbiguousMetric).Inc(1)
		workflow.GetLogger(ctx).Warn("a PUT's outcome was unknown", "target", t.ClusterID, "targetName", t.Name, "status", t.Status)
	}
	if t.Status == StatusVerified {
		workflow.GetLogger(ctx).Info("target verified", "target", t.ClusterID, "targetName", t.Name, "previousKey", t.PreviousKeyUUID, "newKey", t.NewKeyUUID)
	}
}

// countTarget counts the end of the work on a target: one that is put back to
// work ends again.
func countTarget(ctx workflow.Context, t *TargetRecord) {
	errorType := NoError
	if t.Status == StatusFailed {
		errorType = activities.LabelOf(t.Error.Type)
	}
	workflow.GetMetricsHandler(ctx).WithTags(labels{StatusLabel: t.Status, ErrorLabel: errorType}).Counter(TargetsEndedMetric).Inc(1)
}

func errorTypeOf(err error) string {
	var appErr *temporal.ApplicationError
	if errors.As(err, &appErr) {
		return activities.LabelOf(appErr.Type())
	}
	return activities.OtherError
}
