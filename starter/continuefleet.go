package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"

	"keyturn/workflows"
)

// fleetRun is a run of a fleet, with what it was started with.
type fleetRun struct {
	id, runID string
	status    enumspb.WorkflowExecutionStatus
	input     workflows.RotateFleetInput
	// continues is the fleet that it continues; nil = none.
	continues *workflows.ContinuedFleet
	startedAt time.Time
}

// continuedFleet is the request for a fleet that continues the last one. given
// has the values of the flags that are set; all others are the last fleet's.
func (a *app) continuedFleet(ctx context.Context, s *session, f *rotateFlags, given workflows.RotateFleetInput, flags *pflag.FlagSet) (request startRequest, err error) {
	last, err := a.lastFleet(ctx, s)
	if err != nil {
		return request, fmt.Errorf("--continue: %w", err)
	}
	if err := a.checkContinuable(ctx, s, last); err != nil {
		return request, fmt.Errorf("--continue: %w", err)
	}
	input, err := mergedInput(last.input, given, flags)
	if err != nil {
		return request, err
	}
	request = f.fleetRequest(a.rotation, input)
	request.continues = &workflows.ContinuedFleet{WorkflowID: last.id, RunID: last.runID, Since: last.since()}
	fmt.Fprintf(a.stderr, "continuing fleet %s, run %s: %ss that were rotated since %s are not rotated again\n",
		last.id, last.runID, input.Kind.Noun(), request.continues.Since.UTC().Format(time.RFC3339))
	return request, nil
}

// mergedInput is the last fleet's input with the values of the flags that are set.
func mergedInput(last, given workflows.RotateFleetInput, flags *pflag.FlagSet) (workflows.RotateFleetInput, error) {
	// In JSON, a value that is not set is left out.
	text, err := json.Marshal(given)
	if err != nil {
		return last, err
	}
	if err := json.Unmarshal(text, &last); err != nil {
		return last, err
	}
	// So is one that is set to zero.
	for flag, reset := range map[string]func(){
		"max-failed-clusters": func() { last.MaxFailedClusters = given.MaxFailedClusters },
		"require-approval":    func() { last.Rotation.RequireApproval = given.Rotation.RequireApproval },
		"ticket":              func() { last.Change.Ticket = given.Change.Ticket },
		"reason":              func() { last.Change.Reason = given.Change.Reason },
		"requested-by":        func() { last.Change.RequestedBy = given.Change.RequestedBy },
	} {
		if flags.Changed(flag) {
			reset()
		}
	}
	return last, nil
}

func (r fleetRun) since() time.Time {
	if r.continues != nil {
		return r.continues.Since
	}
	return r.startedAt
}

// checkContinuable refuses a fleet of which nothing is left, and one of which
// Temporal may have forgotten rotations.
func (a *app) checkContinuable(ctx context.Context, s *session, last fleetRun) error {
	if last.status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		hasEnded, err := s.awaitRecorded(ctx, last.name(), last.runID, recordingTimeout, a.noticeRecording)
		switch {
		case err != nil:
			return err
		case !hasEnded:
			return fmt.Errorf("a fleet of this connection is running: workflow ID %s, run ID %s", last.id, last.runID)
		}
	}
	ended := s.resultOf(ctx, last.name(), last.runID)
	if ended.connection != nil {
		return ended.connection
	}
	if records, isFleet := ended.records.(*fleetStatus); isFleet && ended.failure == nil {
		if remaining, complete := records.Remaining(); complete && len(remaining) == 0 {
			return &nothingLeftError{
				fmt.Sprintf("fleet %s, run %s, left no %[3]s to rotate (%[4]s): nothing is left to continue; to rotate every %[3]s again, start a fleet without --continue", last.id, last.runID, last.input.Kind.Noun(), records.counts()), records,
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return s.explain(workflows.CheckContinuable(ctx, s, s.namespace, last.since()))
}

// lastFleet finds the connection's last fleet, whoever started it. Plans do not
// count.
func (a *app) lastFleet(ctx context.Context, s *session) (fleetRun, error) {
	runs, err := a.fleetRuns(ctx, s)
	if err != nil {
		return fleetRun{}, s.explain(err)
	}
	for _, info := range runs {
		run, isRotation, err := a.fleetOf(ctx, s, info)
		switch {
		case isNotFound(err): // Temporal's list still has a run that it has forgotten since
		case err != nil:
			return fleetRun{}, s.explain(err)
		case isRotation:
			return run, nil
		}
	}
	return fleetRun{}, fmt.Errorf("none of the last %d fleets was a rotation of %s of connection %s: start a fleet without --continue", len(runs), a.rotation.kind().records, a.rotation.connection)
}

// fleetOf reads a run of a fleet, and reports whether it is a rotation of the named
// connection and kind.
func (a *app) fleetOf(ctx context.Context, s *session, info *workflowpb.WorkflowExecutionInfo) (run fleetRun, isRotation bool, err error) {
	run, err = s.startOf(ctx, info)
	if err != nil {
		return run, false, err
	}
	if name := run.name(); name.connection != a.rotation.connection || name.deployment != a.rotation.deployment || run.input.Rotation.DryRun {
		return run, false, nil
	}
	wasRefused, err := a.wasRefused(ctx, s, run)
	return run, !wasRefused, err
}

// wasRefused reports whether a fleet never was one, because its input was wrong.
func (a *app) wasRefused(ctx context.Context, s *session, run fleetRun) (bool, error) {
	if run.status != enumspb.WORKFLOW_EXECUTION_STATUS_FAILED {
		return false, nil
	}
	ended := s.awaitResult(ctx, run.name(), run.runID)
	return workflows.ErrorTypeOf(ended.failure) == workflows.ErrorInvalidInput, ended.connection
}

func (r fleetRun) name() rotationName {
	return rotationName{connection: r.input.Connection, fleet: true, deployment: r.input.Kind == workflows.FleetOfDeployments, id: r.id}
}

// fleetRuns are the last runs of all fleets, newest first. The list of workflows
// may be late: the fleet's own workflow ID is read directly.
func (a *app) fleetRuns(ctx context.Context, s *session) ([]*workflowpb.WorkflowExecutionInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	listed, err := s.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: maxRunsSearched, Query: "WorkflowType = " + quoted(workflows.RotateFleetType) + " AND ExecutionStatus != 'ContinuedAsNew'",
	})
	if err != nil {
		return nil, err
	}
	runs := listed.GetExecutions()
	described, err := s.DescribeWorkflowExecution(ctx, a.rotation.workflowID(), "")
	switch {
	case isNotFound(err):
	case err != nil:
		return nil, err
	default:
		own := described.GetWorkflowExecutionInfo()
		runs = slices.DeleteFunc(runs, func(run *workflowpb.WorkflowExecutionInfo) bool {
			return run.GetExecution().GetRunId() == own.GetExecution().GetRunId()
		})
		runs = append(runs, own)
	}
	slices.SortStableFunc(runs, func(x, y *workflowpb.WorkflowExecutionInfo) int {
		return y.GetStartTime().AsTime().Compare(x.GetStartTime().AsTime())
	})
	return runs, nil
}

// startOf reads what a run was started with.
func (s *session) startOf(ctx context.Context, info *workflowpb.WorkflowExecutionInfo) (fleetRun, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	run := fleetRun{
		id: info.GetExecution().GetWorkflowId(), runID: info.GetExecution().GetRunId(), status: info.GetStatus(),
		input: workflows.RotateFleetInput{Connection: workflows.DefaultConnection}, startedAt: info.GetStartTime().AsTime(),
	}
	// The list of workflows may be late: it shows ended runs as running.
	if run.status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		described, err := s.DescribeWorkflowExecution(ctx, run.id, run.runID)
		if err != nil {
			return fleetRun{}, err
		}
		if now := described.GetWorkflowExecutionInfo().GetStatus(); now != enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW {
			run.status = now
		}
	}

	events := s.GetWorkflowHistory(ctx, run.id, run.runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	first, err := events.Next()
	if err != nil {
		return run, err
	}
	// A run that a reset has started has the first event of the original run.
	if at := first.GetEventTime().AsTime(); at.Before(run.startedAt) {
		run.startedAt = at
	}
	payloads := first.GetWorkflowExecutionStartedEventAttributes().GetInput().GetPayloads()
	if len(payloads) == 0 {
		return run, nil
	}
	if converter.GetDefaultDataConverter().FromPayload(payloads[0], &run.input) != nil {
		return run, nil // the worker has refused it, too
	}
	// The second argument says what the fleet continues or, in a run that
	// continues as new, what its earlier runs did.
	var second struct {
		workflows.FleetContinuation
		Result workflows.RotateFleetResult `json:"result"`
	}
	if len(payloads) == 1 {
		return run, nil
	}
	if err := converter.GetDefaultDataConverter().FromPayload(payloads[1], &second); err != nil {
		return run, fmt.Errorf("cannot read the state of fleet %s, run %s: %w", run.id, run.runID, err)
	}
	run.continues = second.Continues
	if !second.Result.StartedAt.IsZero() {
		run.continues, run.startedAt = second.Result.Continues, second.Result.StartedAt
	}
	return run, nil
}
