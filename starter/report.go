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
	var eachCluster bool
	command := &cobra.Command{
		Use:     "report",
		GroupID: groupRun,
		Short:   "Write the records of a cluster's or a fleet's last rotation: who, when, which key before and after",
		Long: `Writes the records of the last run, or of the one that --run-id names: from its
result, from its failure if it has failed, or, while it runs, from what it has done so
far (which takes a running worker).

  table     for people
  markdown  the same, for a ticket
  csv       one row a target. A value that a spreadsheet would take for a formula
            (it begins with = + - @) has a ' before it
  json      exactly the workflow's result; "rotate --resume-from" reads it

With --fleet, the records are those of a fleet's rotation: who, when, how many clusters,
and which ones have failed, with the workflow ids of their own records; as csv, one row
a failed cluster, or a single one if there is none. --clusters goes on from there to the
records of every cluster that the fleet has started: as csv, one row a target, with the
columns of a cluster's report; as json, a list. It finds them by Temporal's list of
workflows, as long as that keeps them. Clusters that were busy are none of the fleet's,
and not in it.

The exit code is about the report, not about the rotation that it tells of.`,
		Example: `  starter report --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a -o csv > orders.csv
  starter report --fleet
  starter report --fleet --clusters -o csv > fleet.csv`,
		Args: cobra.NoArgs,
	}
	command.RunE = a.do(func(ctx context.Context, _ *cobra.Command) error {
		if err := cmp.Or(a.rotation.check(), checkRunID(runID), a.checkClusters(eachCluster)); err != nil {
			return err
		}
		return a.report(ctx, runID, eachCluster)
	})
	a.addFlagsOrFleet(command)
	a.format.addFlag(command)
	command.Flags().StringVar(&runID, "run-id", "", "the run to report (default: the last one)")
	command.Flags().BoolVar(&eachCluster, "clusters", false, "with --fleet and -o csv or json: the records of every cluster that the fleet has started")
	return command
}

func (a *app) checkClusters(eachCluster bool) error {
	switch {
	case !eachCluster:
		return nil
	case !a.rotation.fleet:
		return wrongUse("--clusters: goes with --fleet only")
	case a.format != formatCSV && a.format != formatJSON:
		return wrongUse("--clusters: goes with -o csv or -o json only")
	}
	return nil
}

func checkRunID(runID string) error {
	if runID != "" && uuid.Validate(runID) != nil {
		return wrongUse("--run-id: must be a run's id, a UUID")
	}
	return nil
}

func (a *app) report(ctx context.Context, runID string, eachCluster bool) error {
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	run, err := a.runToReport(ctx, s, runID)
	if err != nil {
		return err
	}
	switch {
	case eachCluster:
		return a.reportClusters(ctx, s, run)
	case isRunning(run):
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
	progress, err := s.progress(ctx, a.rotation, run.GetExecution().GetRunId())
	if err != nil {
		return s.unanswered(err, run.GetTaskQueue())
	}
	return a.write(progress, progress.result())
}

func (a *app) reportClosed(ctx context.Context, s *session, runID string) error {
	ended := s.endOf(ctx, a.rotation, runID)
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
	return a.write(ended.records, ended.records.result())
}
