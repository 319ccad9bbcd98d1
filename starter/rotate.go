package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"keyturn/activities"
	"keyturn/workflows"
)

var onFailureValues = []string{workflows.OnFailureHold, workflows.OnFailureContinue, workflows.OnFailureStop}

// rotateFlags are the flags of rotate, and some of them those of plan.
type rotateFlags struct {
	// values are the defaults until a flag is set.
	values    workflows.RotateClusterInput
	taskQueue string
	wait      bool
	untilHeld bool
	resume    resumeFlags
	// fields are those of the input that a flag can set.
	fields []inputFlag
}

// inputFlag is a flag of one field of the input.
type inputFlag struct {
	name string
	copy func(to *workflows.RotateClusterInput)
}

// addPlanFlags adds what the plan of a cluster, too, can be told.
func (f *rotateFlags) addPlanFlags(flags *pflag.FlagSet, a *app) {
	f.addCommonFlags(flags, a)
	v := &f.values
	flags.IntVar(&v.ExpectedTargets, "expected-targets", 0, "how many targets there must be; 0 = don't check")
	f.fields = append(f.fields, inputFlag{"expected-targets", func(to *workflows.RotateClusterInput) { to.ExpectedTargets = v.ExpectedTargets }})
}

// addCommonFlags adds what everything that is started can be told.
func (f *rotateFlags) addCommonFlags(flags *pflag.FlagSet, a *app) {
	v := &f.values
	*v = workflows.DefaultRotateClusterInput()
	flags.StringVar(&f.taskQueue, "task-queue", a.env.taskQueue(), "the worker's task queue ("+taskQueueVariable+")")
	flags.IntVar(&v.Concurrency, "concurrency", v.Concurrency, fmt.Sprintf("targets of a cluster in work at a time, 1 to %d; the first one always goes alone", workflows.MaxConcurrency))
	durationVar(flags, &v.RetryTimeout, "retry-timeout", "how long a target's transient errors are retried")
	flags.StringVar(&v.Change.Ticket, "ticket", "", "the change's ticket, for the records")
	flags.StringVar(&v.Change.RequestedBy, "requested-by", a.user, "who asks for it, for the records; may not approve it")
	flags.StringVar(&v.Change.Reason, "reason", "", "why, for the records")
	f.fields = append(f.fields, []inputFlag{
		{"concurrency", func(to *workflows.RotateClusterInput) { to.Concurrency = v.Concurrency }},
		{"retry-timeout", func(to *workflows.RotateClusterInput) { to.RetryTimeout = v.RetryTimeout }},
	}...)
}

// addRotateFlags adds what only a rotation can be told.
func (f *rotateFlags) addRotateFlags(command *cobra.Command) {
	v, flags := &f.values, command.Flags()
	flags.BoolVar(&v.RequireApproval, "require-approval", false, "wait, before anything is changed, until somebody else approves")
	durationVar(flags, &v.ApprovalTimeout, "approval-timeout", "how long to wait for the approval")
	flags.StringVar(&v.OnFailure, "on-failure", v.OnFailure, "when a target has failed for good: hold = start no other and wait for an operator; continue = do the others, then fail; stop = start no other, then fail")
	durationVar(flags, &v.HoldTimeout, "hold-timeout", "how long a held rotation waits for an operator")
	durationVar(flags, &v.SettleTime, "settle-time", "after a PUT of unknown outcome: how long the key must keep its old id before another PUT")
	durationVar(flags, &v.VerifyTimeout, "verify-timeout", "how long a new key may take to show")
	completeWith(command, "on-failure", onFailureValues)
	f.fields = append(f.fields, []inputFlag{
		{"require-approval", func(to *workflows.RotateClusterInput) { to.RequireApproval = v.RequireApproval }},
		{"approval-timeout", func(to *workflows.RotateClusterInput) { to.ApprovalTimeout = v.ApprovalTimeout }},
		{"on-failure", func(to *workflows.RotateClusterInput) { to.OnFailure = v.OnFailure }},
		{"hold-timeout", func(to *workflows.RotateClusterInput) { to.HoldTimeout = v.HoldTimeout }},
		{"settle-time", func(to *workflows.RotateClusterInput) { to.SettleTime = v.SettleTime }},
		{"verify-timeout", func(to *workflows.RotateClusterInput) { to.VerifyTimeout = v.VerifyTimeout }},
	}...)
}

func durationVar(flags *pflag.FlagSet, value *workflows.Duration, name, usage string) {
	flags.DurationVar((*time.Duration)(value), name, value.Std(), usage)
}

// input has the fields whose flags are set; the others are left to the
// workflow's defaults.
func (f *rotateFlags) input(name rotationName, flags *pflag.FlagSet) workflows.RotateClusterInput {
	input := workflows.RotateClusterInput{ProjectID: name.project, ClusterID: name.cluster, Change: f.values.Change}
	if name.connection != workflows.DefaultConnection {
		input.Connection = name.connection
	}
	for _, field := range f.fields {
		if flags.Changed(field.name) {
			field.copy(&input)
		}
	}
	return input
}

// check refuses values that the workflow would refuse, before it is started.
func (f *rotateFlags) check(flags *pflag.FlagSet) error {
	v := f.values
	switch {
	case v.Concurrency < 1 || v.Concurrency > workflows.MaxConcurrency:
		return wrongUse("--concurrency: must be 1 to %d", workflows.MaxConcurrency)
	case v.ExpectedTargets < 0:
		return wrongUse("--expected-targets: must not be negative")
	case !slices.Contains(onFailureValues, v.OnFailure):
		return wrongUse("--on-failure: must be one of %s", strings.Join(onFailureValues, ", "))
	case f.taskQueue == "":
		return wrongUse("--task-queue: must not be empty")
	}
	for _, field := range f.fields {
		// In an input, zero is a field left out: the default would apply.
		if duration, err := flags.GetDuration(field.name); err == nil && duration <= 0 {
			return wrongUse("--%s: must be more than 0", field.name)
		}
	}
	return nil
}

func (a *app) rotateCommand() *cobra.Command {
	f := &rotateFlags{}
	command := &cobra.Command{
		Use:     "rotate",
		GroupID: groupRun,
		Short:   "Rotate the master key of every shard of a cluster, or of a replica set",
		Long:    rotateHelp,
		Example: rotateExamples,
		Args:    cobra.NoArgs,
	}
	command.RunE = a.do(func(ctx context.Context, command *cobra.Command) error {
		if err := a.checkRotate(f, command.Flags()); err != nil {
			return err
		}
		return a.rotate(ctx, f, f.input(a.rotation, command.Flags()))
	})
	a.rotation.addFlags(command)
	a.format.addFlag(command)
	f.addPlanFlags(command.Flags(), a)
	f.addRotateFlags(command)
	f.resume.addFlags(command)
	command.Flags().BoolVar(&f.wait, "wait", false, "follow it until it ends, or waits for somebody")
	addUntilHeld(command.Flags(), &f.untilHeld)
	return command
}

func (a *app) checkRotate(f *rotateFlags, flags *pflag.FlagSet) error {
	if err := a.rotation.check(); err != nil {
		return err
	}
	if !f.wait && (a.format == formatCSV || a.format == formatMarkdown) {
		return wrongUse("-o %s: there are no records yet without --wait", a.format)
	}
	return f.check(flags)
}

func (a *app) rotate(ctx context.Context, f *rotateFlags, input workflows.RotateClusterInput) error {
	fromFile, err := a.completedInFile(f.resume)
	if err != nil {
		return err
	}
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	input.Completed = fromFile
	if f.resume.lastRun {
		if input.Completed, err = a.completedInLastRun(ctx, s); err != nil {
			return err
		}
	}
	return a.startAndWatch(ctx, s, f, f.begin(a.rotation, input))
}

// startAndWatch starts a rotation, and follows it with --wait.
func (a *app) startAndWatch(ctx context.Context, s *session, f *rotateFlags, b beginning) error {
	started, err := a.start(ctx, s, b)
	if err != nil {
		return err
	}
	if !f.wait {
		return a.showStarted(started)
	}
	watched := watching{runID: started.GetRunID(), taskQueue: b.taskQueue, untilHeld: f.untilHeld, view: a.newView()}
	return a.watch(ctx, s, watched)
}

func (a *app) planCommand() *cobra.Command {
	f := &rotateFlags{}
	command := &cobra.Command{
		Use:     "plan",
		GroupID: groupRun,
		Short:   "Show what a rotation would rotate, and change nothing",
		Long: `Lists the targets of a cluster, reads the id of the key that each has now, and
shows them. Nothing is changed. A plan is a dry run of the rotation, under the same
workflow id: where a rotation is running, it fails with ClusterBusy.`,
		Example: "  starter plan --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a",
		Args:    cobra.NoArgs,
	}
	command.RunE = a.do(func(ctx context.Context, command *cobra.Command) error {
		if err := cmp.Or(a.rotation.check(), f.check(command.Flags())); err != nil {
			return err
		}
		input := f.input(a.rotation, command.Flags())
		input.DryRun = true
		return a.plan(ctx, f.begin(a.rotation, input))
	})
	a.rotation.addFlags(command)
	a.format.addFlag(command)
	f.addPlanFlags(command.Flags(), a)
	return command
}

func (a *app) plan(ctx context.Context, b beginning) error {
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	started, err := a.start(ctx, s, b)
	if err != nil {
		return err
	}
	return a.watch(ctx, s, watching{runID: started.GetRunID(), taskQueue: b.taskQueue, view: &noticesOnly{out: a.stderr}})
}

// beginning is a workflow to be started.
type beginning struct {
	name      rotationName
	taskQueue string
	summary   string
	input     any
}

func (f *rotateFlags) begin(name rotationName, input workflows.RotateClusterInput) beginning {
	return beginning{name: name, taskQueue: f.taskQueue, summary: workflows.StaticSummary(input), input: input}
}

// start starts the one rotation of the cluster, or of the connection's fleet; it
// is an error if one is running.
func (a *app) start(ctx context.Context, s *session, b beginning) (client.WorkflowRun, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	started, err := s.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                                       b.name.workflowID(),
		TaskQueue:                                b.taskQueue,
		WorkflowIDReusePolicy:                    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		StaticSummary:                            b.summary,
	}, b.name.workflowType(), b.input)
	var busy *serviceerror.WorkflowExecutionAlreadyStarted
	switch {
	case errors.As(err, &busy):
		return nil, a.busy(busy.RunId)
	case err != nil:
		return nil, s.explain(err)
	}
	return started, nil
}

func (a *app) busy(runID string) error {
	what := activities.ErrorClusterBusy + ": a rotation of this cluster"
	if a.rotation.fleet {
		what = "a rotation of this connection's fleet"
	}
	busy := fmt.Errorf("%s is running already: workflow id %s, run id %s; look at it with", what, a.rotation.workflowID(), runID)
	return advise(busy, a.commandLine("watch"))
}

// showStarted tells where to look on.
func (a *app) showStarted(started client.WorkflowRun) error {
	if a.format == formatJSON {
		return json.NewEncoder(a.stdout).Encode(struct {
			WorkflowID string `json:"workflowId"`
			RunID      string `json:"runId"`
		}{started.GetID(), started.GetRunID()})
	}
	_, err := fmt.Fprintf(a.stdout, "started\n  workflow id  %s\n  run id       %s\nwatch it with\n  %s\nand see its records with\n  %s\n",
		started.GetID(), started.GetRunID(), a.commandLine("watch"), a.commandLine("report"))
	return err
}

const rotateHelp = `Starts the rotation of a cluster, under the one workflow id that the cluster has:
while one is running, another fails with ClusterBusy.

Of each target, the key's id is read before anything is changed; one PUT rotates it;
and it is read until the new id shows. The first target goes alone.

A flag that isn't set is left out of the workflow's input, so that the worker's
defaults apply, which are those shown here.

--resume goes on where the last run of the cluster has ended (plans don't count):
the targets that were verified there are read once more and, if they still have that
key, not rotated again. --resume-from does the same with a report that was saved
with "starter report -o json".

With --wait, the exit code tells how it ended: 0 = rotated, 1 = failed, 3 = held or
waiting for approval.`

const rotateExamples = `  starter rotate --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a --ticket CHG0031337 --wait

  # somebody else must approve it, and there must be 12 shards and a config server
  starter rotate --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a --require-approval --expected-targets 13

  # go on where the last run has failed
  starter rotate --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a --resume --wait`
