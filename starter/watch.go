package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"keyturn/workflows"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/temporal"
)

const (
	// pollInterval is the time between two queries for the progress.
	pollInterval = 500 * time.Millisecond
	// failedPollInterval is the same after a query that failed.
	failedPollInterval = 2 * time.Second
	// queryTimeout bounds one query: a worker may have to replay the workflow.
	queryTimeout = 5 * time.Second
	// redrawInterval keeps the clock of the live display running.
	redrawInterval = time.Second
)

func (a *app) watchCommand() *cobra.Command {
	var untilHeld bool
	command := &cobra.Command{
		Use:     "watch",
		GroupID: groupRotate,
		Short:   "Follow a rotation until it ends or waits for a person",
		Long: `Follows the rotation of a cluster, of a project's deployments or of a fleet,
however it was started: with a bar and a table on a terminal, with a line for
each change elsewhere. Ctrl-C stops watching; the rotation continues.

Watching ends with the rotation (exit code 0 or 1), or when the rotation is
held, paused or waiting for approval (exit code 3). It prints the commands to
continue a rotation that waits, or that ended before it was done. With
--until-held=false, it keeps watching through that. It also keeps watching a
rotation that is waiting for the ledger: no command helps there.

With -o json, standard output is one value, printed at the end: the result, or
for a rotation that waits, the same fields so far with phase, counts and
waitingFor.

A fleet neither waits for approval nor is held, but its clusters can be. To
watch one of them, use its own --project and --cluster, or --deployment and
--project.`,
		Example: exampleFor("watch", "") + "\n  keyturn watch --deployment --project 5196d3628d022db4cbc26d9e\n  keyturn watch --fleet\n  keyturn watch --fleet --deployment",
		Args:    cobra.NoArgs,
	}
	command.RunE = a.action(func(ctx context.Context, _ *cobra.Command) error {
		if err := a.rotation.check(); err != nil {
			return err
		}
		return a.withSession(ctx, func(s *session) error { return a.watchLatest(ctx, s, untilHeld) })
	})
	a.rotation.addFlagsOrFleet(a, command)
	a.format.addFlag(command)
	addUntilHeld(command.Flags(), &untilHeld)
	return command
}

func addUntilHeld(flags *pflag.FlagSet, untilHeld *bool) {
	flags.BoolVar(untilHeld, "until-held", true, "stop watching, with exit code 3, when the rotation is held, paused or waiting for approval")
}

func (a *app) watchLatest(ctx context.Context, s *session, untilHeld bool) error {
	latest, err := a.describe(ctx, s, "")
	if err != nil {
		return err
	}
	runID := latest.GetExecution().GetRunId()
	if !isRunning(latest) {
		return a.showResultAndNext(s.resultOf(ctx, a.rotation, runID))
	}
	return a.watch(ctx, s, watchOptions{runID: runID, taskQueue: latest.GetTaskQueue(), untilHeld: untilHeld, view: a.newView()})
}

// watchOptions say what to watch, and how.
type watchOptions struct {
	runID     string
	taskQueue string
	untilHeld bool
	dryRun    bool
	view      view
}

// watch follows a run, and those that it continues as, and shows how it ended.
func (a *app) watch(ctx context.Context, s *session, w watchOptions) error {
	ended, waiting, err := a.follow(ctx, s, w)
	w.view.close(err == nil)
	switch {
	case err != nil:
		return err
	case waiting != nil:
		return a.showWaiting(waiting)
	case w.dryRun:
		return a.showResult(ended)
	default:
		return a.showResultAndNext(ended)
	}
}

// follow returns the result, or the progress of a rotation that waits for a
// person.
func (a *app) follow(ctx context.Context, s *session, w watchOptions) (ended runResult, waiting statusView, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan runResult, 1)
	go func() { results <- s.finalResult(ctx, a.rotation, w.runID) }()
	polls := a.poll(ctx, s)
	redraw := time.NewTicker(redrawInterval)
	defer redraw.Stop()
	for {
		select {
		case ended := <-results:
			switch {
			case ctx.Err() != nil:
				return runResult{}, nil, a.watchInterrupted()
			case ended.records != nil:
				w.view.show(ended.records)
			}
			return ended, nil, ended.connection
		case polled := <-polls:
			if polled.err != nil {
				w.view.notice(s.explainQuery(polled.err, w.taskQueue).Error() + "; still trying")
				continue
			}
			w.view.notice("")
			w.view.show(polled.progress)
			if w.untilHeld && len(polled.progress.nextCommands(a)) > 0 {
				return runResult{}, polled.progress, nil
			}
		case <-redraw.C:
			w.view.tick()
		case <-ctx.Done():
			return runResult{}, nil, a.watchInterrupted()
		}
	}
}

func (a *app) watchInterrupted() error {
	return withHint(&interruptedError{"stopped watching; the rotation continues; watch it again with"}, a.commandLine("watch"))
}

// poll is the answer to one query.
type poll struct {
	progress statusView
	err      error
}

// poll queries the progress repeatedly, until ctx ends.
func (a *app) poll(ctx context.Context, s *session) <-chan poll {
	polls := make(chan poll)
	go func() {
		for {
			polled := a.pollOnce(ctx, s)
			select {
			case polls <- polled:
			case <-ctx.Done():
				return
			}
			pause := pollInterval
			if polled.err != nil {
				pause = failedPollInterval
			}
			if !sleep(ctx, pause) {
				return
			}
		}
	}()
	return polls
}

func (a *app) pollOnce(ctx context.Context, s *session) poll {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	// Without a run ID: the rotation may have continued as another run.
	progress, err := s.progress(ctx, a.rotation, "")
	return poll{progress, err}
}

// sleep returns false if ctx ended first.
func sleep(ctx context.Context, pause time.Duration) bool {
	select {
	case <-time.After(pause):
		return true
	case <-ctx.Done():
		return false
	}
}

// runResult is how a run ended.
type runResult struct {
	records statusView // nil = the run left none
	failure error      // the workflow's; nil = it succeeded
	// unread is why records that may exist could not be read.
	unread error
	// connection is why the result is not known.
	connection error
}

// finalResult waits for the end of a rotation. When the workflow is reset, the
// run that is watched ends as terminated, and a new run carries on.
func (s *session) finalResult(ctx context.Context, name rotationName, runID string) runResult {
	for {
		ended := s.resultOf(ctx, name, runID)
		var terminated *temporal.TerminatedError
		if !errors.As(ended.failure, &terminated) {
			return ended
		}
		next, err := s.runAfterReset(ctx, name, runID)
		switch {
		case err != nil:
			return runResult{connection: s.explain(err)}
		case next == "":
			return ended
		}
		runID = next
	}
}

// runAfterReset returns the run that carries on after a terminated one; empty =
// there is none.
func (s *session) runAfterReset(ctx context.Context, name rotationName, runID string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ended, err := s.DescribeWorkflowExecution(ctx, name.workflowID(), runID)
	if err != nil {
		return "", err
	}
	described, err := s.DescribeWorkflowExecution(ctx, name.workflowID(), "")
	if err != nil {
		return "", err
	}
	latest := described.GetWorkflowExecutionInfo()
	sameRotation := latest.GetFirstRunId() == ended.GetWorkflowExecutionInfo().GetFirstRunId()
	if !sameRotation || latest.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED {
		return "", nil
	}
	return latest.GetExecution().GetRunId(), nil
}

// resultOf waits for the end of a run, and of those that it continues as. If it
// failed without records, it queries the workflow for them, however it ended.
func (s *session) resultOf(ctx context.Context, name rotationName, runID string) runResult {
	ended := s.awaitResult(ctx, name, runID)
	if ended.failure == nil || ended.records != nil {
		return ended
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	progress, err := s.progress(ctx, name, runID)
	var failedQuery *serviceerror.QueryFailed
	switch {
	case errors.As(err, &failedQuery): // it ended before it had any
	case err != nil:
		ended.unread = err
	default:
		progress.markEnded(ended.failureText())
		ended.records = progress
	}
	return ended
}

// awaitResult waits for the result or the failure of a run. Connection errors
// that may pass are waited out.
func (s *session) awaitResult(ctx context.Context, name rotationName, runID string) runResult {
	for {
		records := name.newStatus()
		err := s.GetWorkflow(ctx, name.workflowID(), runID).Get(ctx, records.value())
		var failed *temporal.WorkflowExecutionError
		switch {
		case err == nil:
			records.markEnded("")
			return runResult{records: records}
		case errors.As(err, &failed):
			records, found := name.kind().inFailure(err)
			if found {
				records.markEnded(failureText(err))
			}
			return runResult{records: records, failure: err}
		case !isTransient(err) || !sleep(ctx, failedPollInterval):
			return runResult{connection: s.explain(err)}
		}
	}
}

// recordingTimeout is how long a command waits for a rotation that has ended and waits
// for its ledger.
const recordingTimeout = time.Minute

// awaitRecorded waits until a run has closed that has ended and waits for its ledger
// only: to whoever aborts a rotation and continues it, it is over. It reports whether
// the run has ended; one that has not is not waited for. notice gets what the waiting
// is for.
func (s *session) awaitRecorded(ctx context.Context, name rotationName, runID string, timeout time.Duration, notice func(waitingFor string)) (hasEnded bool, err error) {
	phase, waitingFor := s.phaseOf(ctx, name, runID)
	if phase != workflows.PhaseRecording {
		return phase == workflows.PhaseDone, nil
	}
	notice(waitingFor)
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ended := s.awaitResult(waiting, name, runID)
	if ended.connection == nil || waiting.Err() == nil || ctx.Err() != nil {
		return true, ended.connection
	}
	_, waitingFor = s.phaseOf(ctx, name, runID)
	return true, fmt.Errorf("run %s still waits for %s; its keys are rotated already: see KeyturnRotationUnrecorded in the runbook, and repeat this command when it has closed", runID, cmp.Or(waitingFor, "the ledger"))
}

// phaseOf is the phase of a running rotation, and what it waits for; empty = nobody
// answers.
func (s *session) phaseOf(ctx context.Context, name rotationName, runID string) (phase workflows.Phase, waitingFor string) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	progress, err := s.progress(ctx, name, runID)
	if err != nil {
		return "", ""
	}
	return progress.state()
}

// noticeRecording says why a command waits.
func (a *app) noticeRecording(waitingFor string) {
	fmt.Fprintf(a.stderr, "the last run waits for %s; this command continues as soon as it has closed\n", clean(waitingFor))
}

func (r runResult) failureText() string {
	if r.failure == nil {
		return ""
	}
	return failureText(r.failure)
}

// showResult writes the records; the error is the rotation's failure.
func (a *app) showResult(ended runResult) error {
	if ended.connection != nil {
		return ended.connection
	}
	if ended.records != nil {
		if err := a.write(ended.records, ended.records.result()); err != nil {
			return err
		}
	}
	if ended.failure != nil {
		return errors.New(ended.failureText())
	}
	return nil
}

// showResultAndNext is showResult; the error has the commands to continue an
// unfinished rotation.
func (a *app) showResultAndNext(ended runResult) error {
	err := a.showResult(ended)
	name := a.rotation
	// The fleet that a schedule has started is continued under the connection's ID.
	if fleet, isFleet := ended.records.(*fleetStatus); isFleet {
		name = fleet.fleet()
	}
	commands := []string{a.commandLineFor(name, "rotate", "--continue", "--wait")}
	if err == nil && ended.records != nil && ended.records.warning() != "" {
		command := commands[0]
		if name.fleet { // which would continue none of those that are rotated
			command = a.commandLine("report", "--each-cluster", "-o", "csv")
		}
		fmt.Fprintf(a.stderr, "warning: %s:\n  %s\n", clean(ended.records.warning()), command)
	}
	if err == nil || ended.failure == nil || ended.records == nil || !ended.records.isUnfinished() {
		return err
	}
	if name.fleet {
		commands = append([]string{a.commandLine("report")}, commands...)
	}
	return withHint(fmt.Errorf("%w; fix the cause, then continue with", err), commands...)
}

// showWaiting writes the records so far; the error has what the rotation waits
// for and the commands to continue.
func (a *app) showWaiting(waiting statusView) error {
	if err := a.write(waiting, waiting.value()); err != nil {
		return err
	}
	phase, waitingFor := waiting.state()
	return withHint(&waitingError{phase, waitingFor}, waiting.nextCommands(a)...)
}
