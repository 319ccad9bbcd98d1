package main

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/temporal"

	"keyturn/workflows"
)

const (
	// pollInterval is the time between two queries for the progress.
	pollInterval = 500 * time.Millisecond
	// failedPollInterval is the same after one that failed.
	failedPollInterval = 2 * time.Second
	// queryTime is how long one may take: a worker may have to replay.
	queryTime = 5 * time.Second
	// redrawInterval keeps the clock of the live display going.
	redrawInterval = time.Second
)

func (a *app) watchCommand() *cobra.Command {
	var untilHeld bool
	command := &cobra.Command{
		Use:     "watch",
		GroupID: groupRun,
		Short:   "Follow the rotation of a cluster, or of a fleet, until it ends, or waits for somebody",
		Long: `Follows the rotation of a cluster, however it was started, or with --fleet that of a
fleet: on a terminal with a bar and a table, elsewhere with a line for each change.
Ctrl-C ends the watching, not the rotation.

It ends with the rotation (exit code 0 or 1), or when the rotation is held or waits
for approval (exit code 3), with the commands to go on with. --until-held=false
watches on through that.

With -o json, standard output has one value, at the end: the result, or, of a rotation
that waits for somebody, the same fields so far with phase, counts and waitingFor.

A fleet does not wait for approval, nor is it held: its clusters are, each by itself,
and a cluster that is long in work may be. Watch that one by its own ids.`,
		Example: "  starter watch --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a\n  starter watch --fleet",
		Args:    cobra.NoArgs,
	}
	command.RunE = a.do(func(ctx context.Context, _ *cobra.Command) error {
		if err := a.rotation.check(); err != nil {
			return err
		}
		return a.watchLatest(ctx, untilHeld)
	})
	a.addFlagsOrFleet(command)
	a.format.addFlag(command)
	addUntilHeld(command.Flags(), &untilHeld)
	command.MarkFlagsMutuallyExclusive("fleet", "until-held")
	return command
}

func addUntilHeld(flags *pflag.FlagSet, untilHeld *bool) {
	flags.BoolVar(untilHeld, "until-held", true, "stop watching, with exit code 3, when it is held or waits for approval")
}

func (a *app) watchLatest(ctx context.Context, untilHeld bool) error {
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	latest, err := a.describe(ctx, s, "")
	if err != nil {
		return err
	}
	runID := latest.GetExecution().GetRunId()
	if !isRunning(latest) {
		return a.showEnd(s.endOf(ctx, a.rotation, runID))
	}
	return a.watch(ctx, s, watching{runID: runID, taskQueue: latest.GetTaskQueue(), untilHeld: untilHeld, view: a.newView()})
}

// view shows a rotation while it runs. Its methods are called by one goroutine.
type view interface {
	show(account)
	// notice tells what keeps the progress from being known; "" = it is known
	// again.
	notice(string)
	// tick is called now and then.
	tick()
	// close ends it; erase takes away what the final table replaces.
	close(erase bool)
}

// watching is what to watch, and how.
type watching struct {
	runID     string // of the chain's first run that is of interest
	taskQueue string
	untilHeld bool
	view      view
}

// watch follows a run, and those that it continues as, and shows how it ended.
func (a *app) watch(ctx context.Context, s *session, w watching) error {
	ended, waiting, err := a.follow(ctx, s, w)
	w.view.close(err == nil)
	switch {
	case err != nil:
		return err
	case waiting != nil:
		return a.showWaiting(waiting)
	default:
		return a.showEnd(ended)
	}
}

// follow gives the end, or the progress of a rotation that waits for somebody.
func (a *app) follow(ctx context.Context, s *session, w watching) (ended ending, waiting account, err error) {
	pollContext, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := s.awaitEnd(pollContext, a.rotation, w.runID)
	polls := a.poll(pollContext, s)
	redraw := time.NewTicker(redrawInterval)
	defer redraw.Stop()
	for {
		select {
		case ended := <-ends:
			if ended.records != nil {
				w.view.show(ended.records)
			}
			return ended, nil, ended.connection
		case polled := <-polls:
			if polled.err != nil {
				w.view.notice(s.unanswered(polled.err, w.taskQueue).Error() + " Still trying.")
				continue
			}
			w.view.notice("")
			w.view.show(polled.progress)
			if w.untilHeld && len(polled.progress.waysOn(a)) > 0 {
				return ending{}, polled.progress, nil
			}
		case <-redraw.C:
			w.view.tick()
		case <-ctx.Done():
			return ending{}, nil, a.watchingEnded()
		}
	}
}

func (a *app) watchingEnded() error {
	return advise(&interruptedError{"the watching has ended, the rotation goes on; watch it again with"}, a.commandLine("watch"))
}

// poll is the answer to one query.
type poll struct {
	progress account
	err      error
}

// poll asks for the progress again and again, until ctx ends.
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
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	// Without a run id: the rotation may have continued as another run.
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

// ending is how a rotation has ended.
type ending struct {
	records account // nil: it left none
	failure error   // the workflow's; nil = it has succeeded
	// unread is why records that there may be could not be read.
	unread error
	// connection is why the end could not be known.
	connection error
}

// awaitEnd tells the end of a run, and of those that it continues as.
func (s *session) awaitEnd(ctx context.Context, name rotationName, runID string) <-chan ending {
	ends := make(chan ending, 1)
	go func() { ends <- s.endOf(ctx, name, runID) }()
	return ends
}

// endOf waits for the end of a run, and of those that it continues as. Errors
// of the connection are waited through.
func (s *session) endOf(ctx context.Context, name rotationName, runID string) ending {
	for {
		records := name.newAccount()
		err := s.GetWorkflow(ctx, name.workflowID(), runID).Get(ctx, records)
		var failed *temporal.WorkflowExecutionError
		switch {
		case err == nil:
			records.conclude("")
			return ending{records: records}
		case errors.As(err, &failed):
			return s.failedEnd(ctx, name, runID, err)
		case !isTransient(err) || !sleep(ctx, failedPollInterval):
			return ending{connection: s.explain(err)}
		}
	}
}

// failedEnd finds the records of a failed run: in its failure, or where that
// has none, by asking the workflow, whatever ended it.
func (s *session) failedEnd(ctx context.Context, name rotationName, runID string, failure error) ending {
	if records, found := name.accountIn(failure); found {
		records.conclude(failureText(failure))
		return ending{records: records, failure: failure}
	}
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	progress, err := s.progress(ctx, name, runID)
	var failedQuery *serviceerror.QueryFailed
	switch {
	case errors.As(err, &failedQuery): // it ended before it could have any
		return ending{failure: failure}
	case err != nil:
		return ending{failure: failure, unread: err}
	default:
		progress.conclude(failureText(failure))
		return ending{records: progress, failure: failure}
	}
}

// showEnd writes the records; the error is the rotation's failure.
func (a *app) showEnd(ended ending) error {
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

func (e ending) failureText() string {
	if e.failure == nil {
		return ""
	}
	return failureText(e.failure)
}

// showWaiting writes the records so far; the error tells what is waited for and
// the commands to go on with.
func (a *app) showWaiting(waiting account) error {
	if err := a.write(waiting, waiting); err != nil {
		return err
	}
	phase, waitingFor := waiting.state()
	return advise(&waitingError{phase, waitingFor}, waiting.waysOn(a)...)
}

func (c *clusterAccount) waysOn(a *app) []string {
	by := a.userOr("YOU")
	switch c.Phase {
	case workflows.PhaseAwaitingApproval:
		return []string{
			a.commandLine(workflows.ApproveUpdate, "--by", a.approver(c.Change.RequestedBy)),
			a.commandLine(workflows.RejectUpdate, "--by", by, "--reason", "WHY"),
		}
	case workflows.PhaseHeld:
		return []string{
			a.commandLine(workflows.RetryUpdate, "--by", by),
			a.commandLine(workflows.SkipUpdate, "--by", by, "--targets", namesOf(c.Targets, workflows.StatusFailed), "--reason", "WHY"),
			a.commandLine(workflows.AbortUpdate, "--by", by, "--reason", "WHY"),
		}
	}
	return nil
}

// approver is the user, unless it must be somebody else.
func (a *app) approver(requestedBy string) string {
	if requestedBy == a.user {
		return "SOMEBODY-ELSE"
	}
	return a.userOr("YOU")
}

func (a *app) userOr(placeholder string) string {
	if a.user == "" {
		return placeholder
	}
	return a.user
}

// newView is the display that fits where it is shown: beside records for a
// program on standard output, it goes to standard error.
func (a *app) newView() view {
	out := a.stdout
	if a.format != formatTable {
		out = a.stderr
	}
	if screen, found := a.terminal(out); found {
		return newLiveView(screen)
	}
	return &lineView{out: out, now: time.Now}
}

// namesOf are the names of the targets of a status, as --targets takes them; by
// id where a name would need quoting.
func namesOf(records []workflows.TargetRecord, status string) string {
	var names []string
	for _, record := range records {
		switch {
		case record.Status != status:
		case plainName.MatchString(record.Name):
			names = append(names, record.Name)
		default:
			names = append(names, record.ClusterID)
		}
	}
	return strings.Join(names, ",")
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
