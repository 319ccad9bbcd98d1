package workflows

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/internal/ellipsis"
	"keyturn/internal/ledgerentry"
)

const (
	// recordTimeout limits one attempt to record a rotation in the ledger.
	recordTimeout = 30 * time.Second
	// quickRecordAttempts are made before the progress says what is wrong.
	quickRecordAttempts = 3
	// maxRecord limits the record of a rotation, in bytes of JSON. The result in it
	// may be as large as maxPayload.
	maxRecord = 2_050_000
)

// ledgerResult is a result that the ledger records.
type ledgerResult interface {
	common() commonResult
	// describe sets what the result says about what was rotated.
	describe(record *ledgerentry.Record)
	// fit makes a copy fit into limit bytes of JSON.
	fit(limit int)
	// close sets what the result lacks of a workflow that Temporal has closed. isKnown:
	// it shows all that was done.
	close(startedAt, closedAt time.Time, isKnown bool)
}

func (r *RotateClusterResult) describe(record *ledgerentry.Record) {
	record.Kind, record.Connection, record.ProjectID = ledgerentry.KindCluster, r.Connection, lower(r.ProjectID)
	record.Clusters = []ledgerentry.Cluster{{ID: lower(r.ClusterID), Name: r.ClusterName}}
}

func (r *RotateDeploymentResult) describe(record *ledgerentry.Record) {
	record.Kind, record.Connection, record.ProjectID = ledgerentry.KindDeployment, r.Connection, lower(r.ProjectID)
	for _, t := range r.Targets {
		if cluster := (ledgerentry.Cluster{ID: lower(t.ClusterID), Name: t.ClusterName}); !slices.Contains(record.Clusters, cluster) {
			record.Clusters = append(record.Clusters, cluster)
		}
	}
}

func (r *RotateFleetResult) describe(record *ledgerentry.Record) {
	record.Kind, record.Connection = ledgerentry.KindFleet, r.Connection
}

func (r *RotateFleetResult) common() commonResult {
	return commonResult{
		Outcome: r.Outcome, StartedAt: r.StartedAt, FinishedAt: r.FinishedAt, Change: r.Change,
		Actions: r.Actions, ActionsNotListed: r.ActionsNotListed,
	}
}

// endedRun is the run with which a rotation has ended.
type endedRun struct {
	workflowID, runID string
	// entryRunID: see entryRunOf.
	entryRunID string
	// startedBy is the ID of the parent; empty = there is none.
	startedBy string
}

// entryRunOf names the rotation in the ledger by one of its runs: the one that
// began it. A copy that a reset made is a rotation of its own. carried is the writer
// of the state that the run continues with; nil if it begins a rotation, as each run
// of a cron schedule does.
func entryRunOf(ctx workflow.Context, carried *stateWriter) string {
	info := workflow.GetInfo(ctx)
	if carried == nil || isResetCopy(ctx) {
		return info.WorkflowExecution.RunID
	}
	return cmp.Or(carried.EntryRunID, info.FirstRunID)
}

func endedRunOf(ctx workflow.Context, entryRunID string) endedRun {
	execution := workflow.GetInfo(ctx).WorkflowExecution
	run := endedRun{workflowID: execution.ID, runID: execution.RunID, entryRunID: entryRunID}
	if parent := workflow.GetInfo(ctx).ParentWorkflowExecution; parent != nil {
		run.startedBy = parent.ID
	}
	return run
}

// newRecord is the ledger's record of a rotation that has ended with this result, and
// in which these people acted. It may change the result to make the record fit into a
// payload.
//
// It depends on nothing but its input; workflowcheck distrusts encoding/json.
//
//workflowcheck:ignore
func newRecord(run endedRun, source ledgerentry.Source, acted actors, result ledgerResult, failure *TargetError) (ledgerentry.Record, error) {
	common := result.common()
	record := ledgerentry.Record{
		Key: ledgerentry.Key(run.workflowID, run.entryRunID), Source: source, WorkflowID: run.workflowID, RunID: run.runID,
		Outcome: string(common.Outcome), Ticket: common.Change.Ticket, RequestedBy: common.Change.RequestedBy,
		StartedAt: common.StartedAt, ActedBy: append([]string{}, acted...), Clusters: []ledgerentry.Cluster{},
	}
	if common.FinishedAt != nil {
		record.FinishedAt = *common.FinishedAt
	}
	if common.Approval != nil {
		record.ApprovedBy = common.Approval.By
	}
	result.describe(&record)
	var ended *ledgerentry.RotationError
	if failure != nil {
		ended = &ledgerentry.RotationError{Type: string(failure.Type), Message: failure.Message}
	}
	if room := maxRecord - jsonBytes(record) - jsonBytes(ended) - len(`{"result":,"error":,"startedBy":}`) - jsonBytes(run.startedBy); jsonBytes(result) > room {
		result.fit(room)
	}
	body, err := ledgerentry.NewBody(result, ended, run.startedBy)
	record.Body = body
	return record, err
}

// record has the ledger record the end of the rotation, and waits for it. Plans
// are not recorded: they change nothing.
func (r *rotation) record(ctx workflow.Context, err error) {
	if r.settings.DryRun || !recordsEnd(ctx, err) {
		return
	}
	r.enterPhase(ctx, PhaseRecording)
	result := r.kind.records()
	if fitted, isRotation := result.(rotationResult); isRotation && err != nil {
		result = fittedForFailure(fitted)
	}
	mayHaveReceiver := recordEnd(ctx, endedRunOf(ctx, r.entryRunID), r.operators.Actors, result.(ledgerResult), err, func(problem string) {
		r.ledgerProblem = problem
		r.changed(ctx)
	})
	r.sendsEvents = r.sendsEvents || mayHaveReceiver // workers are replaced one after the other
	r.enterPhase(ctx, PhaseDone)
}

func (f *fleet) record(ctx workflow.Context, err error) {
	if f.input.Rotation.DryRun || !recordsEnd(ctx, err) {
		return
	}
	f.phase = PhaseRecording
	f.changed(ctx)
	f.sendsEvents = recordEnd(ctx, endedRunOf(ctx, f.entryRunID), f.actors, f.records(), err, func(problem string) {
		f.ledgerProblem = problem
		f.changed(ctx)
	})
	f.phase = PhaseDone
	f.changed(ctx)
}

// DeploymentsLabel is the value of ClusterLabel for a project's deployments.
const DeploymentsLabel = "deployments"

// keysSince is when the oldest of the cluster's keys was verified, which may be by an
// earlier run. It is not known where a record that was carried over does not say it:
// such a key may have any age.
func (r *RotateClusterResult) keysSince() (oldest time.Time, known bool) {
	var times []*time.Time
	for _, t := range r.Targets {
		times = append(times, t.VerifiedAt)
	}
	return oldestOf(r.common(), times)
}

// keysSince is when the process started that has the oldest key: of most members no
// snapshot is taken that would verify it.
func (r *RotateDeploymentResult) keysSince() (oldest time.Time, known bool) {
	var times []*time.Time
	for _, t := range r.Targets {
		times = append(times, t.RotatedAt)
	}
	return oldestOf(r.common(), times)
}

// oldestOf is known for rotations that have left no key out.
func oldestOf(common commonResult, times []*time.Time) (oldest time.Time, known bool) {
	if common.Outcome != OutcomeRotated || common.FinishedAt == nil {
		return time.Time{}, false
	}
	oldest = *common.FinishedAt
	for _, at := range times {
		if at == nil {
			return time.Time{}, false
		}
		if at.Before(oldest) {
			oldest = *at
		}
	}
	return oldest, true
}

// lastVerifiedLabels are those of LastVerifiedMetric.
func lastVerifiedLabels(connection, projectID, cluster string) labels {
	return labels{ConnectionLabel: connection, ProjectLabel: lower(projectID), ClusterLabel: lower(cluster)}
}

// LastVerified returns what LastVerifiedMetric shows of an entry: when the oldest of
// the keys was verified or, for a deployment, when the process with the oldest key
// started; false where the entry leaves a key's age open, as that of a fleet does.
func LastVerified(entry ledgerentry.Entry) (at time.Time, known bool) {
	switch entry.Kind {
	case ledgerentry.KindCluster:
		var result RotateClusterResult
		if _, err := ledgerentry.ReadBody(entry.Body, &result); err == nil {
			at, known = result.keysSince()
		}
	case ledgerentry.KindDeployment:
		var result RotateDeploymentResult
		if _, err := ledgerentry.ReadBody(entry.Body, &result); err == nil {
			at, known = result.keysSince()
		}
	}
	return at, known
}

// LastVerifiedLabels returns the labels of LastVerifiedMetric for what an entry is
// about, whether or not its records can be read; false for a fleet.
func LastVerifiedLabels(entry ledgerentry.Entry) (labels map[string]string, known bool) {
	switch {
	case entry.Kind == ledgerentry.KindCluster && len(entry.Clusters) > 0:
		return lastVerifiedLabels(entry.Connection, entry.ProjectID, entry.Clusters[0].ID), true
	case entry.Kind == ledgerentry.KindDeployment:
		return lastVerifiedLabels(entry.Connection, entry.ProjectID, DeploymentsLabel), true
	default:
		return nil, false
	}
}

// recordsEnd reports whether a run that ends with err is recorded: the rotation
// goes on if it continues as new. Histories that were recorded before there was a
// ledger have no record of it.
func recordsEnd(ctx workflow.Context, err error) bool {
	return !workflow.IsContinueAsNewError(err) && workflow.GetVersion(ctx, "record-in-ledger", workflow.DefaultVersion, 1) == 1
}

// recordEnd has a worker record the end of a rotation, and waits until the ledger
// has it, also where the workflow is canceled. If that takes longer, show gets the
// reason. A record that the ledger refuses, and a defect, end the waiting: the
// rotation would wait for ever.
//
// It reports whether the worker sends events; where that is not known, it may.
func recordEnd(ctx workflow.Context, run endedRun, acted actors, result ledgerResult, failed error, show func(problem string)) (sendsEvents bool) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	var failure *TargetError
	if failed != nil {
		failure = targetErrorOf(failed)
	}
	record, err := newRecord(run, ledgerentry.SourceWorkflow, acted, result, failure)
	var recorded activities.RecordRotationResult
	if err == nil {
		input := activities.RecordRotationInput{Record: record}
		for recorded, err = recordOnce(ctx, quickRecordAttempts, input); isLedgerAway(err); recorded, err = recordOnce(ctx, 0, input) {
			show(causeOf(err).Error())
		}
	}
	if err != nil {
		workflow.GetLogger(ctx).Error("the rotation closes without an entry in the ledger", "key", record.Key, "error", err)
	}
	return recorded.SendsEvents || err != nil
}

// recordOnce runs the activity, with up to this many attempts; 0 = without end. A
// result about another rotation is that of the run that this one is a reset copy of.
func recordOnce(ctx workflow.Context, attempts int32, input activities.RecordRotationInput) (recorded activities.RecordRotationResult, err error) {
	retries := retryPolicy()
	retries.MaximumAttempts = attempts
	retries.NonRetryableErrorTypes = []string{panicError}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		Summary: "record the rotation in the ledger", StartToCloseTimeout: recordTimeout, RetryPolicy: retries,
	})
	for {
		recorded = activities.RecordRotationResult{}
		err = workflow.ExecuteActivity(ctx, activities.RecordRotationName, input).Get(ctx, &recorded)
		if err != nil || recorded.Key == input.Record.Key || !isResetCopy(ctx) {
			return recorded, err
		}
	}
}

// panicError is the type of the SDK's error for an activity that panics.
const panicError = "PanicError"

// isLedgerAway reports whether waiting helps: also for a worker that does not know
// the activity yet.
func isLedgerAway(err error) bool {
	var failed *temporal.ApplicationError
	switch {
	case err == nil, temporal.IsPanicError(err), temporal.IsCanceledError(err):
		return false
	case errors.As(err, &failed):
		return !failed.NonRetryable()
	default:
		return temporal.IsTimeoutError(err)
	}
}

// waitingForLedger says in a sentence what a rotation waits for that has ended.
func waitingForLedger(problem string) string {
	if problem == "" {
		return "the ledger to record the rotation, which has ended"
	}
	return "the ledger to record the rotation, which has ended: " + ellipsis.Cut(problem, maxFailureText)
}
