package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
)

// reportFlags select what is reported of a rotation.
type reportFlags struct {
	runID       string
	plan        bool
	eachCluster bool
}

func (a *app) reportCommand() *cobra.Command {
	f := &reportFlags{}
	command := &cobra.Command{
		Use:     "report",
		GroupID: groupRotate,
		Short:   "Print who rotated what and when, and the key before and after",
		Long: `Prints the records of the last rotation, or of the run that --run-id names: from
its result, from its failure, or while it runs, from what it has done so far.
Reading a running rotation requires a running worker.

If Temporal has no such run, or no longer has it, the report is read from the
ledger that KEYTURN_LEDGER names, and a message says so. Plans are not in the
ledger.

A plan is a run of the same workflow. --plan reports the last plan instead of
the last rotation; if there is a newer run of the other kind, a message says so.
"keyturn list" and "keyturn history" print the IDs of earlier runs as json and
csv.

Formats:
  table     for people
  markdown  the same, for a ticket
  csv       one row per target; a value that a spreadsheet would take for a
            formula (one that starts with = + - @) gets a leading '
  json      exactly the workflow's result; "rotate --continue-from" reads it
  html      one self-contained file for a browser or a printer

With --deployment, a target is a process: its host and replica set, the time
that was published for it, when it restarted, what proves its new key, and the
keys. A list of the replica sets says how each is proven, or why it is not.

With --fleet, prints the records of a fleet: who, when, how many clusters, and
which ones failed, with the workflow IDs of their own records, and which ones
were left out, with the reason. As csv, one row per cluster that failed or was
left out, or a single row if there is none. With --fleet --deployment, they are
projects.

--each-cluster prints the records of every cluster that the fleet started: as
csv, one row per target with the columns of a cluster's report; as json, a list.
With --deployment, those of every project: one row per process.
It finds the clusters in Temporal's list of workflows and, where Temporal has
forgotten the fleet or some of its clusters, in the ledger; a message says how
many. Clusters that were busy are not part of the fleet and are left out.

The exit code is that of the report, not of the rotation.`,
		Example: exampleFor("report", "-o html > orders.html") + `
  keyturn report --deployment --project 5196d3628d022db4cbc26d9e -o markdown
  keyturn report --fleet
  keyturn report --fleet --each-cluster -o csv > fleet.csv
  keyturn report --fleet --plan --each-cluster -o csv > plan.csv
  keyturn report --fleet --deployment --each-cluster -o csv > processes.csv`,
		Args: cobra.NoArgs,
	}
	command.RunE = a.action(func(ctx context.Context, _ *cobra.Command) error {
		if err := cmp.Or(a.rotation.check(), checkRunID(f.runID), a.checkEachCluster(f.eachCluster)); err != nil {
			return err
		}
		return a.withSession(ctx, func(s *session) error { return a.report(ctx, s, f) })
	})
	a.rotation.addFlagsOrFleet(a, command)
	a.format.addFlag(command, formatHTML)
	command.Flags().StringVar(&f.runID, "run-id", "", "the run to report (default the last rotation)")
	command.Flags().BoolVar(&f.plan, "plan", false, "report the last plan instead of the last rotation")
	command.MarkFlagsMutuallyExclusive("plan", "run-id")
	command.Flags().BoolVar(&f.eachCluster, "each-cluster", false, "with --fleet and -o csv or -o json: report every cluster, or with --deployment every project, that the fleet started")
	return command
}

func (a *app) checkEachCluster(eachCluster bool) error {
	switch {
	case !eachCluster:
		return nil
	case !a.rotation.fleet:
		return usageErrorf("--each-cluster requires --fleet")
	case a.format != formatCSV && a.format != formatJSON:
		return usageErrorf("--each-cluster requires -o csv or -o json")
	}
	return nil
}

func checkRunID(runID string) error {
	if runID != "" && uuid.Validate(runID) != nil {
		return usageErrorf("--run-id: must be a UUID")
	}
	return nil
}

func (a *app) report(ctx context.Context, s *session, f *reportFlags) error {
	run, err := a.runToReport(ctx, s, f)
	var gone *noRunError
	switch {
	case errors.As(err, &gone) && f.plan:
		return fmt.Errorf("%w; plans are not in the ledger", gone)
	case errors.As(err, &gone):
		return a.withFallback(ctx, gone, func(l *ledger.Ledger) error {
			if f.eachCluster {
				return a.reportEachRecordedCluster(ctx, l, f.runID, gone)
			}
			return a.reportRecorded(ctx, l, f.runID, gone)
		})
	case err != nil:
		return err
	case f.eachCluster:
		return a.reportEachCluster(ctx, s, run)
	case isRunning(run):
		return a.reportRunning(ctx, s, run)
	default:
		return a.reportClosed(ctx, s, run.GetExecution().GetRunId())
	}
}

// runToReport describes the requested run. If it continued as the run that is
// running now, that one reports for it.
func (a *app) runToReport(ctx context.Context, s *session, f *reportFlags) (*workflowpb.WorkflowExecutionInfo, error) {
	if f.runID == "" {
		return a.lastToReport(ctx, s, f.plan)
	}
	run, err := a.describe(ctx, s, f.runID)
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

// lastToReport describes the last rotation, or the last plan: both are runs of one
// workflow ID. If a run of the other kind is newer, a message says so.
func (a *app) lastToReport(ctx context.Context, s *session, plan bool) (*workflowpb.WorkflowExecutionInfo, error) {
	latest, err := a.describe(ctx, s, "")
	if err != nil || s.isPlan(ctx, a.rotation, latest) == plan {
		return latest, err
	}
	last, err := a.lastEnded(ctx, s, plan)
	started := latest.GetStartTime().AsTime()
	switch {
	case err != nil:
		return nil, err
	case last == nil && plan:
		return nil, fmt.Errorf("no plan is among the last %d runs of workflow %s; to make one, run %s plan", maxRunsSearched, a.rotation.workflowID(), programName)
	case last == nil:
		return nil, noRunErrorf("no rotation is among the last %d runs of workflow %s: they are plans, which changed nothing; to see the last one, give --plan", maxRunsSearched, a.rotation.workflowID())
	case plan:
		fmt.Fprintf(a.stderr, "a rotation has started after this plan, at %s; to see it, leave out --plan\n", timeText(&started))
	default:
		fmt.Fprintf(a.stderr, "a plan was made after this rotation, at %s; to see it, give --plan\n", timeText(&started))
	}
	return a.describe(ctx, s, last.GetExecution().GetRunId()) // a list lacks some of it
}

// withFallback opens the ledger for what Temporal does not have, or has forgotten.
func (a *app) withFallback(ctx context.Context, gone error, action func(*ledger.Ledger) error) (err error) {
	l, err := a.openLedger(ctx)
	switch {
	case err != nil:
		return err
	case l == nil:
		return fmt.Errorf("%w; set %s to read the report from the ledger", gone, ledger.URLVariable)
	}
	defer func() { err = cmp.Or(err, l.Close()) }()
	return action(l)
}

// reportRecorded reports a rotation from the ledger.
func (a *app) reportRecorded(ctx context.Context, l *ledger.Ledger, runID string, gone error) error {
	status, err := a.recordedStatus(ctx, l, runID, gone)
	if err != nil {
		return err
	}
	return a.write(status, status.result())
}

// recordedStatus is the status of a run of the rotation by the ledger; a message says
// so.
func (a *app) recordedStatus(ctx context.Context, l *ledger.Ledger, runID string, gone error) (statusView, error) {
	entry, err := a.recordedRun(ctx, l, runID)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return nil, fmt.Errorf("%w; the ledger has no such rotation either", gone)
	case err != nil:
		return nil, err
	}
	status, err := statusOfEntry(entry)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(a.stderr, "%s\nthis report is from the ledger: %s, entry %d, recorded at %s; %q checks that it was not changed\n",
		clean(gone.Error()), clean(entry.Chain), entry.Sequence, timeText(&entry.RecordedAt), programName+" ledger verify")
	return status, nil
}

// recordedRun is the entry of a run of the rotation; an empty run ID is the last one
// recorded. The ledger knows a rotation that continued as new by its first and its
// last run.
func (a *app) recordedRun(ctx context.Context, l *ledger.Ledger, runID string) (ledgerentry.Entry, error) {
	id := a.rotation.workflowID()
	for entry, err := range l.Entries(ctx, ledger.Filter{WorkflowID: id, RunID: runID, NewestFirst: true, Limit: 1}) {
		return entry, err
	}
	if runID == "" {
		return ledgerentry.Entry{}, ledger.ErrNotFound
	}
	return l.ByKey(ctx, ledgerentry.Key(id, runID))
}

func (a *app) reportRunning(ctx context.Context, s *session, run *workflowpb.WorkflowExecutionInfo) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	progress, err := s.progress(ctx, a.rotation, run.GetExecution().GetRunId())
	if err != nil {
		return s.explainQuery(err, run.GetTaskQueue())
	}
	progress.ofRun(a.rotation.workflowID(), run.GetExecution().GetRunId())
	return a.write(progress, progress.result())
}

func (a *app) reportClosed(ctx context.Context, s *session, runID string) error {
	ended := s.resultOf(ctx, a.rotation, runID)
	switch {
	case ended.connection != nil:
		return ended.connection
	case ended.unread != nil:
		return fmt.Errorf("run %s failed (%s), and its records cannot be read; start a worker and try again: %w", runID, ended.failureText(), ended.unread)
	case ended.records == nil:
		return fmt.Errorf("run %s has no records: it failed before it started to rotate: %s", runID, ended.failureText())
	}
	ended.records.ofRun(a.rotation.workflowID(), runID)
	if ended.failure != nil && (a.format == formatCSV || a.format == formatJSON) {
		fmt.Fprintf(a.stderr, "the run failed: %s\n", clean(ended.failureText()))
	}
	return a.write(ended.records, ended.records.result())
}
