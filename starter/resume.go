package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"

	"keyturn/workflows"
)

// maxRunsLookedAt bounds how far back --resume looks past plans.
const maxRunsLookedAt = 50

// resumeFlags say which records a rotation goes on from.
type resumeFlags struct {
	lastRun bool
	file    string
}

func (f *resumeFlags) addFlags(command *cobra.Command) {
	command.Flags().BoolVar(&f.lastRun, "resume", false, "go on from the records of the cluster's last run")
	command.Flags().StringVar(&f.file, "resume-from", "", "go on from the records in this file, a saved JSON report; - = standard input")
	must(command.MarkFlagFilename("resume-from", "json"))
	command.MarkFlagsMutuallyExclusive("resume", "resume-from")
}

// completedInFile gives the completed targets of a saved report.
func (a *app) completedInFile(f resumeFlags) ([]workflows.TargetRecord, error) {
	if f.file == "" {
		return nil, nil
	}
	text, err := a.readFile(f.file)
	if err != nil {
		return nil, wrongUse("--resume-from: %v", err)
	}
	var saved workflows.RotateClusterResult
	if err := json.Unmarshal(text, &saved); err != nil {
		return nil, wrongUse("--resume-from: %s is no JSON report: %v", f.file, err)
	}
	if err := a.checkSameCluster(saved); err != nil {
		return nil, wrongUse("--resume-from: %s %v", f.file, err)
	}
	completed, err := a.completedOf(saved, f.file)
	if err != nil {
		return nil, wrongUse("--resume-from: %v", err)
	}
	return completed, nil
}

func (a *app) readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(a.stdin)
	}
	return os.ReadFile(name)
}

func (a *app) checkSameCluster(saved workflows.RotateClusterResult) error {
	switch {
	case saved.ClusterID == "":
		return errors.New("is no report of a rotation: it has no clusterId")
	case workflows.RotateClusterID(saved.Connection, saved.ProjectID, saved.ClusterID) != a.rotation.workflowID():
		return fmt.Errorf("is about another cluster: %s", workflows.RotateClusterID(saved.Connection, saved.ProjectID, saved.ClusterID))
	}
	return nil
}

// completedOf picks the verified targets; the workflow has no use for others.
func (a *app) completedOf(saved workflows.RotateClusterResult, source string) ([]workflows.TargetRecord, error) {
	if saved.Outcome == workflows.OutcomeRotated {
		// All would be carried over: a rotation that rotates nothing.
		return nil, fmt.Errorf("%s has rotated every target: there is nothing to go on with", source)
	}
	var completed []workflows.TargetRecord
	for _, record := range saved.Targets {
		if record.Status == workflows.StatusVerified {
			record.Error = nil
			completed = append(completed, record)
		}
	}
	fmt.Fprintf(a.stderr, "resuming from %s, started %s: %d of %d targets are verified there and not rotated again if they still have that key\n",
		clean(source), timeText(&saved.StartedAt), len(completed), len(saved.Targets))
	return completed, nil
}

// completedInLastRun gives the completed targets of the last run. Plans in
// between don't count; anything else does: going on from a run before a failed
// one could carry over keys that were to be rotated.
func (a *app) completedInLastRun(ctx context.Context, s *session) ([]workflows.TargetRecord, error) {
	last, err := a.describe(ctx, s, "")
	if err != nil {
		return nil, fmt.Errorf("--resume: %w", err)
	}
	runID := last.GetExecution().GetRunId()
	if isRunning(last) {
		return nil, a.busy(runID)
	}
	ended := s.endOf(ctx, a.rotation, runID)
	if ended.isPlan() {
		if runID, ended, err = a.lastRotation(ctx, s); err != nil {
			return nil, err
		}
	}
	if err := ended.cantResume(runID); err != nil {
		return nil, err
	}
	return a.completedOf(*ended.clusterRecords(), "run "+runID)
}

// clusterRecords are those of a cluster's rotation; nil = there are none.
func (e ending) clusterRecords() *workflows.RotateClusterResult {
	if records, isCluster := e.records.(*clusterAccount); isCluster {
		return &records.RotateClusterResult
	}
	return nil
}

// cantResume tells why there is nothing to go on from.
func (e ending) cantResume(runID string) error {
	records := e.clusterRecords()
	switch {
	case e.connection != nil:
		return e.connection
	case e.unread != nil:
		return fmt.Errorf("--resume: the records of run %s can't be read, which takes a running worker: %w", runID, e.unread)
	case records == nil || len(records.Targets) == 0:
		return fmt.Errorf("--resume: run %s has no records to go on from (%s): start without --resume, or name a saved report with --resume-from", runID, e.failureText())
	}
	return nil
}

func (e ending) isPlan() bool {
	records := e.clusterRecords()
	return records != nil && records.Outcome == workflows.OutcomePlanned
}

// lastRotation finds the last run that was no plan.
func (a *app) lastRotation(ctx context.Context, s *session) (runID string, ended ending, err error) {
	runs, err := a.closedRuns(ctx, s)
	if err != nil {
		return "", ending{}, s.explain(err)
	}
	for _, run := range runs {
		runID = run.GetExecution().GetRunId()
		if ended = s.endOf(ctx, a.rotation, runID); !ended.isPlan() {
			return runID, ended, nil
		}
	}
	return "", ending{}, fmt.Errorf("--resume: the runs of workflow %s were all plans: start without --resume", a.rotation.workflowID())
}

// closedRuns lists the closed runs, the latest first.
func (a *app) closedRuns(ctx context.Context, s *session) ([]*workflowpb.WorkflowExecutionInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	listed, err := s.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: maxRunsLookedAt, Query: "WorkflowId = " + quoted(a.rotation.workflowID()),
	})
	if err != nil {
		return nil, err
	}
	var closed []*workflowpb.WorkflowExecutionInfo
	for _, run := range listed.GetExecutions() {
		// A run that continued as new is told by the run that it led to.
		if !isRunning(run) && run.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW {
			closed = append(closed, run)
		}
	}
	return closed, nil
}

// quoted makes a value of a list query.
func quoted(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(value) + "'"
}
