package main

import (
	"context"

	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"

	"keyturn/workflows"
)

// maxRunsSearched bounds how far back the last rotation, or the last plan, is looked
// for.
const maxRunsSearched = 50

// isPlan reports whether a run is a plan, which changes nothing: by its memo or, if an
// earlier version has started it, by its result.
func (s *session) isPlan(ctx context.Context, name rotationName, run *workflowpb.WorkflowExecutionInfo) bool {
	if memo, described := workflows.ReadMemo(run.GetMemo().GetFields()); described {
		return memo.DryRun
	}
	if isRunning(run) {
		return false
	}
	ended := s.resultOf(ctx, name, run.GetExecution().GetRunId())
	return ended.records != nil && ended.records.isPlan()
}

// lastEnded is the last run that has ended and is a plan, or is none; nil = there is no
// such run.
func (a *app) lastEnded(ctx context.Context, s *session, plan bool) (*workflowpb.WorkflowExecutionInfo, error) {
	runs, err := a.closedRuns(ctx, s)
	if err != nil {
		return nil, err
	}
	for _, run := range runs {
		if s.isPlan(ctx, a.rotation, run) == plan {
			return run, nil
		}
	}
	return nil, nil
}

// closedRuns lists the closed runs, the latest first.
func (a *app) closedRuns(ctx context.Context, s *session) ([]*workflowpb.WorkflowExecutionInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	listed, err := s.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: maxRunsSearched, Query: "WorkflowId = " + quoted(a.rotation.workflowID()),
	})
	if err != nil {
		return nil, s.explain(err)
	}
	var closed []*workflowpb.WorkflowExecutionInfo
	for _, run := range listed.GetExecutions() {
		// The last run of a chain reports for those that continued as new.
		if !isRunning(run) && run.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW {
			closed = append(closed, run)
		}
	}
	return closed, nil
}
