package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
)

func (a *app) reportCommand() *cobra.Command {
	var runID string
	command := &cobra.Command{
		Use:     "report",
		GroupID: groupRun,
		Short:   "Write the records of a cluster's last rotation: who, when, which key before and after",
		Long: `Writes the records of the last run, or of the one that --run-id names: from its
result, from its failure if it has failed, or, while it runs, from what it has done so
far (which takes a running worker).

  table     for people
  markdown  the same, for a ticket
  csv       one row a target. A value that a spreadsheet would take for a formula
            (it begins with = + - @) has a ' before it
  json      exactly the workflow's result; "rotate --resume-from" reads it

The exit code is about the report, not about the rotation that it tells of.`,
		Example: `  starter report --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a -o csv > orders.csv`,
		Args:    cobra.NoArgs,
	}
	command.RunE = a.do(func(ctx context.Context, _ *cobra.Command) error {
		if err := cmp.Or(a.rotation.check(), checkRunID(runID)); err != nil {
			return err
		}
		return a.report(ctx, runID)
	})
	a.rotation.addFlags(command)
	a.format.addFlag(command)
	command.Flags().StringVar(&runID, "run-id", "", "the run to report (default: the last one)")
	return command
}

func checkRunID(runID string) error {
	if runID != "" && uuid.Validate(runID) != nil {
		return wrongUse("--run-id: must be a run's id, a UUID")
	}
	return nil
}

func (a *app) report(ctx context.Context, runID string) error {
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	run, err := a.runToReport(ctx, s, runID)
	if err != nil {
		return err
	}
	if isRunning(run) {
		return a.reportRunning(ctx, s, run)
	}
	return a.reportClosed(ctx, s, run.GetExecution().GetRunId())
}

// runToReport describes the run that is asked for. One that has continued as
// the run that goes on now is told by that one.
func (a *app) runToReport(ctx context.Context, s *session, runID string) (*workflowpb.WorkflowExecutionInfo, error) {
	run, err := a.describe(ctx, s, runID)
	if err != nil || run.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW {
		return run, err
	}
	latest, err := a.describe(ctx, s, "")
	if err != nil {
		return nil, err
	}
	if latest.GetFirstRunId() == run.GetFirstRunId() {
		return latest, nil
	}
	return run, nil
}

func (a *app) reportRunning(ctx context.Context, s *session, run *workflowpb.WorkflowExecutionInfo) error {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	progress, err := a.queryProgress(ctx, s, run.GetExecution().GetRunId())
	if err != nil {
		return s.unanswered(err, run.GetTaskQueue())
	}
	return a.write(findingsSoFar(*progress), progress.RotateClusterResult)
}

func (a *app) reportClosed(ctx context.Context, s *session, runID string) error {
	ended := a.endOf(ctx, s, runID)
	switch {
	case ended.connection != nil:
		return ended.connection
	case ended.unread != nil:
		return fmt.Errorf("run %s has failed (%s), and its records can't be read, which takes a running worker: %w", runID, ended.failureText(), ended.unread)
	case ended.records == nil:
		return fmt.Errorf("run %s has no records: %s", runID, ended.failureText())
	}
	if ended.failure != nil && a.format != formatTable && a.format != formatMarkdown {
		fmt.Fprintf(a.stderr, "the run has failed: %s\n", clean(ended.failureText()))
	}
	return a.write(findings{RotateClusterResult: *ended.records, failure: ended.failureText()}, ended.records)
}
