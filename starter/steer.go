package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"keyturn/workflows"
)

// order is an operator's command as it is sent: an update and its request.
type order struct {
	update  string
	request any
}

// steerFlags are the flags of an operator's command.
type steerFlags struct {
	by, comment, reason string
	targets             []string
}

func (a *app) steerCommands() []*cobra.Command {
	return []*cobra.Command{
		a.approveCommand(),
		a.reasonCommand(workflows.RejectUpdate, "End a rotation that waits for approval; nothing is rotated", "", clusterOnly),
		a.reasonCommand(workflows.PauseUpdate, "Start no new target; those in work finish",
			`With --fleet, no new cluster is started either. The rotations that the fleet has in work
are paused with it: each shows that pause as its own, until the fleet is resumed. A
cluster that an operator has paused by itself stays paused through the fleet's resume.`, fleetToo),
		a.reasonCommand(workflows.ResumeUpdate, "Go on with a paused rotation",
			"To go on from a rotation that has ended, see rotate --resume.", fleetToo),
		a.retryCommand(),
		a.skipCommand(),
		a.reasonCommand(workflows.AbortUpdate, "End a rotation: targets in work finish, the others are left alone",
			"With --fleet, no new cluster is started, and the rotations in work are aborted so.", fleetToo),
	}
}

// Whose rotation an operator's command is for.
const (
	clusterOnly = false
	fleetToo    = true
)

func (a *app) approveCommand() *cobra.Command {
	f := &steerFlags{}
	command := a.steerCommand(workflows.ApproveUpdate, "Let a rotation that waits for approval go on",
		"Whoever has requested the rotation can't approve it.", clusterOnly,
		f, func() any { return workflows.ApproveRequest{By: f.by, Comment: f.comment} })
	command.Flags().StringVar(&f.comment, "comment", "", "what to record with the approval")
	return command
}

// reasonCommand makes one of those that take nothing but a reason.
func (a *app) reasonCommand(update, short, long string, fleetToo bool) *cobra.Command {
	f := &steerFlags{}
	command := a.steerCommand(update, short, long, fleetToo, f, func() any { return workflows.ReasonRequest{By: f.by, Reason: f.reason} })
	command.Flags().StringVar(&f.reason, "reason", "", "why, for the records")
	return command
}

func (a *app) retryCommand() *cobra.Command {
	f := &steerFlags{}
	command := a.steerCommand(workflows.RetryUpdate, "Put failed targets back to work",
		"Without --targets, all failed ones.", clusterOnly,
		f, func() any { return workflows.RetryRequest{By: f.by, Targets: f.targets} })
	addTargets(command, f)
	return command
}

func (a *app) skipCommand() *cobra.Command {
	f := &steerFlags{}
	command := a.steerCommand(workflows.SkipUpdate, "Leave failed or pending targets alone, and record that",
		"", clusterOnly,
		f, func() any { return workflows.SkipRequest{By: f.by, Targets: f.targets, Reason: f.reason} })
	addTargets(command, f)
	must(command.MarkFlagRequired("targets"))
	command.Example += " --targets orders-1 --reason decommissioned"
	command.Flags().StringVar(&f.reason, "reason", "", "why, for the records")
	return command
}

func addTargets(command *cobra.Command, f *steerFlags) {
	command.Flags().StringSliceVar(&f.targets, "targets", nil, "names or ids of targets, with commas or repeated")
}

func (a *app) steerCommand(update, short, long string, fleetToo bool, f *steerFlags, request func() any) *cobra.Command {
	command := &cobra.Command{
		Use:     update,
		GroupID: groupSteer,
		Short:   short,
		Long:    strings.TrimSpace(short + ".\n\n" + long),
		Example: fmt.Sprintf("  starter %s --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a --by erin", update),
		Args:    cobra.NoArgs,
	}
	command.RunE = a.do(func(ctx context.Context, _ *cobra.Command) error {
		if err := a.rotation.check(); err != nil {
			return err
		}
		if strings.TrimSpace(f.by) == "" {
			return wrongUse("--by: say who you are")
		}
		return a.steer(ctx, order{update, request()})
	})
	if fleetToo {
		a.addFlagsOrFleet(command)
		command.Example += fmt.Sprintf("\n  starter %s --fleet --by erin", update)
	} else {
		a.rotation.addFlags(command)
	}
	a.format.addFlag(command)
	command.Flags().StringVar(&f.by, "by", a.user, "who commands it, for the records")
	return command
}

// steer sends an order, waits until it is carried out, and shows the progress.
func (a *app) steer(ctx context.Context, o order) error {
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	run, err := a.describe(ctx, s, "")
	if err != nil {
		return err
	}
	if !isRunning(run) {
		return a.isOver()
	}
	progress, err := a.send(ctx, s, o, run.GetTaskQueue())
	if err != nil {
		return err
	}
	return a.showOrdered(o, a.latest(ctx, s, progress))
}

func (a *app) isOver() error {
	return advise(fmt.Errorf("the rotation is over: workflow %s has ended; see its records with", a.rotation.workflowID()), a.commandLine("report"))
}

func (a *app) send(ctx context.Context, s *session, o order, taskQueue string) (account, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	handle, err := s.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: a.rotation.workflowID(), UpdateName: o.update, Args: []any{o.request}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	progress := a.rotation.newAccount()
	if err == nil {
		err = handle.Get(ctx, progress)
	}
	if err != nil {
		return nil, a.explainOrder(s, o, taskQueue, err)
	}
	return progress, nil
}

// explainOrder tells a refusal from an order whose fate is unknown.
func (a *app) explainOrder(s *session, o order, taskQueue string, err error) error {
	var refusal *temporal.ApplicationError
	var unanswered *client.WorkflowUpdateServiceTimeoutOrCanceledError
	switch {
	case errors.As(err, &refusal):
		return fmt.Errorf("%s refused: %s", o.update, refusal.Message())
	case errors.As(err, &unanswered):
		unknown := fmt.Errorf("no worker has answered the %s within %s: is a worker running on task queue %q? It may still be carried out; look with",
			o.update, requestTime, taskQueue)
		return advise(unknown, a.commandLine("watch"))
	case isNotFound(err):
		return a.isOver()
	}
	return s.explain(err)
}

// latest is the progress after the workflow has acted on the order: the order's
// own answer is from before. It is that answer if there is no later one.
func (a *app) latest(ctx context.Context, s *session, answered account) account {
	polled := a.pollOnce(ctx, s)
	if polled.err != nil {
		return answered
	}
	return polled.progress
}

func (a *app) showOrdered(o order, p account) error {
	if a.format != formatTable {
		return a.write(p, p)
	}
	_, err := fmt.Fprintf(a.stdout, "%s: done\n%s\n", o.update, strings.Join(p.briefly(), "\n"))
	return err
}
