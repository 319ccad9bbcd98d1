package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"keyturn/activities"
	"keyturn/workflows"
)

// scheduledWork is what a schedule starts, by its workflow's type and input.
type scheduledWork interface {
	// subject says in words what is worked on.
	subject() string
	// obstacle is an error if a run that started now would fail at once, which
	// would pause the schedule.
	obstacle(ctx context.Context, a *app, s *session) error
	// rotation names the rotation that a run of this workflow id leads to, if
	// the input can be read.
	rotation(workflowID string) (rotationName, bool)
	// outcome says what a run's result is, in a word and in words.
	outcome(result json.RawMessage) (status, words string)
}

// scheduledWorks makes the work of an input, by the workflow's type: these are
// the schedules that are keyturn's.
var scheduledWorks = map[string]func(input json.RawMessage) scheduledWork{
	workflows.RotateClusterType: newClusterWork,
	workflows.RotateFleetType:   newFleetWork,
}

// watchLine is the command that follows a run.
func (a *app) watchLine(work scheduledWork, workflowID string) string {
	name, _ := work.rotation(workflowID)
	return a.commandLineFor(name, "watch")
}

// standing says in words how far a run is; empty = nobody can tell.
func (s *session) standing(ctx context.Context, work scheduledWork, workflowID string) string {
	name, isKnown := work.rotation(workflowID)
	if !isKnown {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	progress, err := s.progress(ctx, name, "")
	if err != nil {
		return ""
	}
	return strings.Join(progress.briefly(), "; ")
}

// clusterWork is the rotation of a cluster.
type clusterWork struct{ rotationName }

// newClusterWork reads what the Web UI has written as well, as far as it can be
// read: no more than the names is needed.
func newClusterWork(input json.RawMessage) scheduledWork {
	var names struct{ Connection, ProjectID, ClusterID string }
	if json.Unmarshal(input, &names) != nil {
		return clusterWork{}
	}
	return clusterWork{rotationName{
		connection: cmp.Or(names.Connection, workflows.DefaultConnection), project: names.ProjectID, cluster: names.ClusterID,
	}}
}

func (w clusterWork) isKnown() bool { return w.check() == nil }

func (w clusterWork) subject() string {
	if !w.isKnown() {
		return "an input that names no cluster"
	}
	return fmt.Sprintf("cluster %s of project %s, connection %s", w.cluster, w.project, w.connection)
}

// obstacle is a rotation of the cluster that somebody else has started.
func (w clusterWork) obstacle(ctx context.Context, a *app, s *session) error {
	if !w.isKnown() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	running, err := s.DescribeWorkflowExecution(ctx, w.workflowID(), "")
	switch {
	case isNotFound(err):
		return nil
	case err != nil:
		return s.explain(err)
	case isRunning(running.GetWorkflowExecutionInfo()):
		busy := fmt.Errorf("%s: a rotation of this cluster is running already, and a run that finds it would fail and pause the schedule: workflow id %s; look at it with",
			activities.ErrorClusterBusy, w.workflowID())
		return advise(busy, a.commandLineFor(w.rotationName, "watch"))
	}
	return nil
}

// rotation is handed over to the cluster's one id, whatever the run's is.
func (w clusterWork) rotation(string) (rotationName, bool) { return w.rotationName, w.isKnown() }

func (w clusterWork) outcome(raw json.RawMessage) (status, words string) {
	var result workflows.RotateClusterResult
	if json.Unmarshal(raw, &result) != nil || result.Outcome == "" {
		return statusUnknown, unreadableResult
	}
	verified, carriedOver := countVerified(result.Targets)
	counts := countsOf(result.Targets)
	switch result.Outcome {
	case workflows.OutcomePlanned:
		words = fmt.Sprintf("planned %s, changed nothing", targetCount(counts[workflows.StatusPlanned]))
	default:
		words = "rotated " + targetCount(verified)
	}
	if carriedOver > 0 {
		words += fmt.Sprintf(", carried over %d", carriedOver)
	}
	if skipped := counts[workflows.StatusSkipped]; skipped > 0 {
		words += fmt.Sprintf(", skipped %d", skipped)
	}
	return result.Outcome, words
}

func countVerified(records []workflows.TargetRecord) (verified, carriedOver int) {
	for _, record := range records {
		switch {
		case record.CarriedOver:
			carriedOver++
		case record.Status == workflows.StatusVerified:
			verified++
		}
	}
	return verified, carriedOver
}

func targetCount(n int) string { return manyOf(n, "target") }

func manyOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

const unreadableResult = "it has ended with a result that can't be read"

// Statuses of a run, beside the outcomes of its result.
const (
	statusRunning = "running"
	statusBusy    = "busy"
	statusFailed  = "failed"
	statusUnknown = "unknown"
)

// runOf tells what came of a schedule's action.
func (a *app) runOf(ctx context.Context, s *session, work scheduledWork, action client.ScheduleActionResult) (scheduledRun, error) {
	run := scheduledRun{ScheduledFor: recordTime(action.ScheduleTime), StartedAt: recordTime(action.ActualTime)}
	started := action.StartWorkflowResult
	if started == nil {
		run.Status, run.Outcome = statusUnknown, "it has started no workflow"
		return run, nil
	}
	run.WorkflowID, run.RunID = started.WorkflowID, started.FirstExecutionRunID
	var err error
	run.Status, run.Outcome, err = s.outcomeOf(ctx, work, run.WorkflowID, run.RunID)
	return run, err
}

func (s *session) outcomeOf(ctx context.Context, work scheduledWork, workflowID, runID string) (status, words string, err error) {
	requestContext, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	described, err := s.DescribeWorkflowExecution(requestContext, workflowID, runID)
	switch {
	case isNotFound(err):
		return statusUnknown, "unknown: the run is past Temporal's retention", nil
	case err != nil:
		return "", "", s.explain(err)
	case isRunning(described.GetWorkflowExecutionInfo()):
		return statusRunning, strings.TrimSuffix("running: "+s.standing(ctx, work, workflowID), ": "), nil
	}
	var result json.RawMessage
	err = s.GetWorkflow(requestContext, workflowID, runID).Get(requestContext, &result)
	var failed *temporal.WorkflowExecutionError
	switch {
	case err == nil:
		status, words = work.outcome(result)
		return status, words, nil
	case errors.As(err, &failed):
		status, words = failureOutcome(err)
		return status, words, nil
	default:
		return "", "", s.explain(err)
	}
}

// failureOutcome tells a run that found another rotation at work from one that
// has failed itself.
func failureOutcome(err error) (status, words string) {
	var application *temporal.ApplicationError
	if errors.As(err, &application) && application.Type() == activities.ErrorClusterBusy {
		return statusBusy, "busy: " + application.Message()
	}
	return statusFailed, "failed: " + failureText(err)
}
