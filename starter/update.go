package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"keyturn/workflows"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
)

// updateCommand describes a command that sends an update to a running rotation.
type updateCommand struct {
	name, short, long string
	forFleets         bool   // also takes --fleet
	exampleFlags      string // required flags beside those of every update
	addFlags          func(*pflag.FlagSet)
	request           func(by string) any
}

func (a *app) updateCommand(u updateCommand) *cobra.Command {
	var by string
	command := &cobra.Command{
		Use:     u.name,
		GroupID: groupUpdate,
		Short:   u.short,
		Long:    strings.TrimSpace(u.short + ".\n\n" + u.long),
		Example: exampleFor(u.name, "--by erin"+u.exampleFlags),
		Args:    cobra.NoArgs,
	}
	command.RunE = a.action(func(ctx context.Context, _ *cobra.Command) error {
		if err := a.rotation.check(); err != nil {
			return err
		}
		if err := checkOperator(by); err != nil {
			return err
		}
		return a.withSession(ctx, func(s *session) error { return a.sendUpdate(ctx, s, u.name, u.request(by)) })
	})
	if u.forFleets {
		a.rotation.addFlagsOrFleet(a, command)
		command.Example += fmt.Sprintf("\n  %s %s --fleet --by erin", programName, u.name)
	} else {
		a.rotation.addFlags(command)
	}
	a.format.addFlag(command)
	a.addOperatorFlag(command.Flags(), &by)
	u.addFlags(command.Flags())
	return command
}

func (a *app) addOperatorFlag(flags *pflag.FlagSet, by *string) {
	flags.StringVar(by, "by", a.user, "operator name to record")
}

func checkOperator(by string) error {
	if strings.TrimSpace(by) == "" {
		return usageErrorf("--by is required: the operator name to record")
	}
	return nil
}

func addReasonFlag(flags *pflag.FlagSet, reason *string) {
	flags.StringVar(reason, "reason", "", "reason to record")
}

func addTargetsFlag(flags *pflag.FlagSet, targets *[]string) {
	flags.StringSliceVar(targets, "targets", nil, "names or IDs of targets, comma-separated or repeated; with --deployment processes, replica sets, or hosts with their ports")
}

// sendUpdate sends an update, waits until it is applied, and shows the progress.
func (a *app) sendUpdate(ctx context.Context, s *session, name string, request any) error {
	run, err := a.describe(ctx, s, "")
	if err != nil {
		return err
	}
	if !isRunning(run) {
		return a.rotationEnded()
	}
	progress, err := a.executeUpdate(ctx, s, name, request, run.GetTaskQueue())
	if err != nil {
		return err
	}
	// The update's own answer is from before the workflow has reacted to it.
	if polled := a.pollOnce(ctx, s); polled.err == nil {
		progress = polled.progress
	}
	if a.format != formatTable {
		return a.write(progress, progress.value())
	}
	lines := append([]string{name + ": accepted"}, progress.summary()...)
	if name == workflows.AbortUpdate || name == workflows.RejectUpdate {
		lines = append(lines, s.scheduleGoesOn(ctx, run)...)
	}
	return a.println(lines...)
}

// scheduleGoesOn says what becomes of the schedule that started a rotation which
// people end. It says nothing where there is none, or where it cannot be read.
func (s *session) scheduleGoesOn(ctx context.Context, run *workflowpb.WorkflowExecutionInfo) []string {
	if parent := run.GetParentExecution(); parent != nil {
		described, err := s.DescribeWorkflowExecution(ctx, parent.GetWorkflowId(), parent.GetRunId())
		if err != nil || described.GetWorkflowExecutionInfo().GetType().GetName() != run.GetType().GetName() {
			return nil // a fleet started it
		}
		run = described.GetWorkflowExecutionInfo()
	}
	var id string
	attribute := run.GetSearchAttributes().GetIndexedFields()[workflows.ScheduledByAttribute]
	if attribute == nil || converter.GetDefaultDataConverter().FromPayload(attribute, &id) != nil {
		return nil
	}
	found, err := s.findSchedule(ctx, id)
	if err != nil || found == nil {
		return nil
	}
	record := recordOf(found)
	line := "schedule " + id + " started this run; it stays " + record.state()
	if len(record.NextTimes) > 0 && !record.Paused {
		line += ", next run " + nextTimeText(record.NextTimes[0], record.TimeZone)
	}
	return []string{line}
}

func (a *app) rotationEnded() error {
	return withHint(fmt.Errorf("workflow %s has ended; see its records with", a.rotation.workflowID()), a.commandLine("report"))
}

func (a *app) executeUpdate(ctx context.Context, s *session, name string, request any, taskQueue string) (statusView, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	handle, err := s.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: a.rotation.workflowID(), UpdateName: name, Args: []any{request}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	progress := a.rotation.newStatus()
	if err == nil {
		err = handle.Get(ctx, progress.value())
	}
	var refusal *temporal.ApplicationError
	var unanswered *client.WorkflowUpdateServiceTimeoutOrCanceledError
	switch {
	case err == nil:
		return progress, nil
	case errors.As(err, &refusal):
		return nil, fmt.Errorf("%s refused: %s", name, refusal.Message())
	case errors.As(err, &unanswered):
		unknown := fmt.Errorf("no worker answered the %s within %s; start a worker on task queue %q. The update may still be applied; check with",
			name, requestTimeout, taskQueue)
		return nil, withHint(unknown, a.commandLine("watch"))
	case isNotFound(err):
		return nil, a.rotationEnded()
	}
	return nil, s.explain(err)
}
