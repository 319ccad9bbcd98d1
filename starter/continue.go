package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"keyturn/workflows"
)

// continueFlags select the records that a rotation continues from.
type continueFlags struct {
	lastRun bool
	file    string
}

func (f *continueFlags) addFlags(command *cobra.Command) {
	command.Flags().BoolVar(&f.lastRun, "continue", false, "continue from the records of the last run, or with --fleet of the last fleet")
	command.Flags().StringVar(&f.file, "continue-from", "", "continue from the records in this `file`, a saved JSON report; - = standard input")
	must(command.MarkFlagFilename("continue-from", "json"))
	command.MarkFlagsMutuallyExclusive("continue", "continue-from")
	for _, name := range selectionFlags { // of the last fleet
		command.MarkFlagsMutuallyExclusive("continue", name)
	}
	command.MarkFlagsMutuallyExclusive("fleet", "continue-from")
}

// check: what is continued says which clusters.
func (f *continueFlags) check(name rotationName, clusters []string) error {
	if name.deployment && len(clusters) > 0 && (f.lastRun || f.file != "") {
		return usageErrorf("--cluster: cannot be used with --deployment --continue: a continued rotation keeps its clusters")
	}
	return nil
}

// continueFromFile puts the completed targets of a saved report into the input.
func (a *app) continueFromFile(f continueFlags, input *rotationInput) error {
	if f.file == "" {
		return nil
	}
	text, err := a.readFile(f.file)
	if err != nil {
		return usageErrorf("--continue-from: %v", err)
	}
	// Fleets have no --continue-from.
	saved := a.rotation.newStatus().(*rotationStatus)
	if err := json.Unmarshal(text, saved.value()); err != nil {
		return usageErrorf("--continue-from: %s is not a JSON report: %v; save one with keyturn report -o json", f.file, err)
	}
	if problem := saved.records.foreign(); problem != "" {
		return usageErrorf("--continue-from: %s is not the report of %s: %s", f.file, a.rotation.kind().records, problem)
	}
	if id := saved.records.workflowID(); id != a.rotation.workflowID() {
		return usageErrorf("--continue-from: %s is the report of another %s: %s", f.file, a.rotation.kind().noun, id)
	}
	return a.continueFrom(saved.records, f.file, input)
}

func (a *app) readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(a.stdin)
	}
	return os.ReadFile(name)
}

// continueFrom puts the targets into the input that need not be rotated again, and
// those to which a PUT may have been sent.
func (a *app) continueFrom(saved targetRecords, source string, input *rotationInput) error {
	c := saved.common()
	if c.outcome == workflows.OutcomeRotated {
		// All would be carried over: a rotation that rotates nothing.
		status := &rotationStatus{records: saved}
		status.markEnded("")
		return &nothingLeftError{
			source + " rotated every target: nothing is left to continue; to rotate every target again, rotate without --continue", status,
		}
	}
	fmt.Fprintf(a.stderr, "continuing from %s, started %s: %s\n", clean(source), timeText(&c.startedAt), saved.continueIn(input))
	return nil
}

// continueFromLastRun puts the completed targets of the last run into the input.
// Plans do not count; any other run does: continuing from a run before a failed one
// could carry over keys that were to be rotated.
func (a *app) continueFromLastRun(ctx context.Context, s *session, input *rotationInput) error {
	last, err := a.describe(ctx, s, "")
	if err != nil {
		return fmt.Errorf("--continue: %w", err)
	}
	runID := last.GetExecution().GetRunId()
	if isRunning(last) {
		hasEnded, err := s.awaitRecorded(ctx, a.rotation, runID, recordingTimeout, a.noticeRecording)
		switch {
		case err != nil:
			return fmt.Errorf("--continue: %w", err)
		case !hasEnded:
			return a.busy(runID)
		}
	}
	if s.isPlan(ctx, a.rotation, last) {
		rotation, err := a.lastEnded(ctx, s, false)
		switch {
		case err != nil:
			return err
		case rotation == nil:
			return fmt.Errorf("--continue: all runs of workflow %s were plans: rotate without --continue", a.rotation.workflowID())
		}
		runID = rotation.GetExecution().GetRunId()
	}
	ended := s.resultOf(ctx, a.rotation, runID)
	if err := ended.cannotContinue(runID); err != nil {
		return err
	}
	if err := a.checkUnfinishedBefore(ctx, s, runID, ended); err != nil {
		return err
	}
	return a.continueFrom(ended.targetRecords(), "run "+runID, input)
}

// targetRecords are those of a rotation that has targets; nil = there are none.
func (r runResult) targetRecords() targetRecords {
	if status, hasTargets := r.records.(*rotationStatus); hasTargets {
		return status.records
	}
	return nil
}

// cannotContinue explains why there is nothing to continue from.
func (r runResult) cannotContinue(runID string) error {
	records := r.targetRecords()
	switch {
	case r.connection != nil:
		return r.connection
	case r.unread != nil:
		return fmt.Errorf("--continue: cannot read the records of run %s; start a worker and try again: %w", runID, r.unread)
	case records == nil || len(records.targets()) == 0:
		return fmt.Errorf("--continue: run %s has no records (%s): rotate without --continue, or name a saved report with --continue-from", runID, r.failureText())
	}
	return nil
}

// checkUnfinishedBefore refuses to guess where the last run rotated nothing and an
// unfinished rotation came before it: continuing from the last run would rotate
// that one's verified targets again, and continuing from the one before could
// carry over keys that were to be rotated.
func (a *app) checkUnfinishedBefore(ctx context.Context, s *session, lastID string, last runResult) error {
	if last.targetRecords().common().outcome != workflows.OutcomeNothingRotated {
		return nil
	}
	runs, err := a.closedRuns(ctx, s)
	if err != nil {
		return err
	}
	for _, run := range runs {
		runID := run.GetExecution().GetRunId()
		if runID == lastID {
			continue
		}
		records := s.resultOf(ctx, a.rotation, runID).targetRecords()
		if records == nil {
			continue
		}
		earlier := records.common()
		switch earlier.outcome {
		case workflows.OutcomePlanned, workflows.OutcomeNothingRotated:
			continue
		case workflows.OutcomePartial, workflows.OutcomeRotatedUnproven:
		default:
			return nil
		}
		return fmt.Errorf("--continue: the last run, %s, rotated nothing, and run %s, started %s, was left unfinished: "+
			"to continue that one, save its records with keyturn report --run-id %s -o json and name the file with --continue-from; to rotate every target, rotate without --continue",
			lastID, runID, timeText(&earlier.startedAt), runID)
	}
	return nil
}

// quoted quotes a value of a list query.
func quoted(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(value) + "'"
}
