package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"keyturn/workflows"
)

func (a *app) scheduleCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "schedule", GroupID: groupSchedule, Short: "Manage rotation schedules",
		Long: scheduleHelp, Example: scheduleExamples, Args: cobra.NoArgs, RunE: requireSubcommand,
	}
	command.AddCommand(
		a.applyScheduleCommand(), a.listSchedulesCommand(), a.showScheduleCommand(), a.triggerScheduleCommand(),
		a.pauseScheduleCommand(true, "pause", "Pause a schedule: start no runs until it is unpaused",
			"A running rotation continues. The reason becomes the schedule's note, which list\nand show print.", "year-end freeze"),
		a.pauseScheduleCommand(false, "unpause", "Unpause a schedule", unpauseHelp, "access list corrected"),
		a.deleteScheduleCommand(),
	)
	return command
}

// schedule is a schedule that starts rotations, as Temporal describes it.
type schedule struct {
	client.ScheduleHandle
	*client.ScheduleDescription
	rotation rotationName // what it rotates; empty if its input cannot be read
	subject  string       // the same in words
}

// findSchedule returns nil if the schedule does not exist.
func (s *session) findSchedule(ctx context.Context, id string) (*schedule, error) {
	handle := s.ScheduleClient().GetHandle(ctx, id)
	described, err := handle.Describe(ctx)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, s.explain(err)
	}
	settings := settingsOf(&described.Schedule)
	if !slices.Contains(workflows.RotationTypes, settings.WorkflowType) {
		return nil, fmt.Errorf("schedule %s starts workflow type %q, not a rotation: use the temporal CLI for it", id, settings.WorkflowType)
	}
	rotation, subject := scheduledRotation(settings.WorkflowType, settings.Input)
	return &schedule{handle, described, rotation, subject}, nil
}

// scheduledRotation reads what a schedule rotates from its workflow's input, which
// may have been written in the Web UI.
func scheduledRotation(workflowType string, input json.RawMessage) (name rotationName, subject string) {
	var names struct {
		Connection, ProjectID, ClusterID, ClusterNames string
		ProjectIDs, ClusterIDs                         []string
		Kind                                           workflows.FleetKind
	}
	isRead := len(input) == 0 || json.Unmarshal(input, &names) == nil
	name = rotationName{
		connection: cmp.Or(names.Connection, workflows.DefaultConnection), project: names.ProjectID, cluster: names.ClusterID,
		fleet: workflowType == fleetKind.workflowType,
	}
	name.deployment = workflowType == deploymentKind.workflowType || name.fleet && names.Kind == workflows.FleetOfDeployments
	if !isRead || name.check() != nil {
		return rotationName{}, "unknown: the input does not name a " + name.kind().noun
	}
	switch {
	case name.fleet && name.deployment && len(names.ProjectIDs) > 0:
		subject = fmt.Sprintf("a fleet: the deployments of %s", pluralize(len(names.ProjectIDs), "project"))
	case name.fleet && name.deployment:
		subject = "a fleet: the deployments of every project"
	case name.deployment && len(names.ClusterIDs) > 0:
		subject = fmt.Sprintf("the deployments of %s of project %s", pluralize(len(names.ClusterIDs), "cluster"), name.project)
	case name.deployment:
		subject = "the deployments of project " + name.project
	case !name.fleet:
		subject = fmt.Sprintf("cluster %s of project %s", name.cluster, name.project)
	case names.ClusterNames != "":
		subject = fmt.Sprintf("a fleet: clusters matching %q", names.ClusterNames)
	default:
		subject = "a fleet: every cluster"
	}
	if n := len(names.ProjectIDs); name.fleet && !name.deployment && n > 0 {
		subject += " of " + pluralize(n, "project")
	}
	return name, subject + ", connection " + name.connection
}

// rotationOf names the rotation that a run leads to. A fleet stays under the run's
// workflow ID; others are handed over to the rotation's own.
func (s *schedule) rotationOf(workflowID string) rotationName {
	name := s.rotation
	if name.fleet {
		name.id = workflowID
	}
	return name
}

// scheduleAction is an action on the schedule that the flags name, which need not
// exist.
func (a *app) scheduleAction(command *cobra.Command, action func(ctx context.Context, s *session, id string, found *schedule) error) {
	id := command.Flags().String("id", "", "the schedule's ID (default the workflow ID of the rotation that it starts)")
	must(command.RegisterFlagCompletionFunc("id", a.completeIDs((*session).scheduleIDs)))
	command.RunE = a.action(func(ctx context.Context, _ *cobra.Command) error {
		if *id == "" {
			if command.Flags().Changed("id") {
				return usageErrorf("--id: must not be empty")
			}
			if err := a.rotation.check(); err != nil {
				return err
			}
			*id = a.rotation.workflowID()
		}
		return a.withSession(ctx, func(s *session) error {
			found, err := s.findSchedule(ctx, *id)
			if err != nil {
				return err
			}
			return action(ctx, s, *id, found)
		})
	})
}

// onSchedule makes a command on an existing schedule, named by its ID, or by what
// apply named it after.
func (a *app) onSchedule(command *cobra.Command, flags string, action func(context.Context, *session, *schedule) error) *cobra.Command {
	command.Args, command.Example = cobra.NoArgs, exampleFor("schedule "+command.Use, flags)
	a.scheduleAction(command, func(ctx context.Context, s *session, id string, found *schedule) error {
		if found == nil {
			return s.explainSchedule(id, serviceerror.NewNotFound("no schedule"))
		}
		return action(ctx, s, found)
	})
	a.rotation.addTargetFlags(command)
	a.rotation.addFleetFlag(command)
	command.MarkFlagsOneRequired("id", "cluster", "deployment", "fleet")
	for _, other := range []string{"project", "cluster", "deployment", "fleet", "connection"} {
		command.MarkFlagsMutuallyExclusive("id", other)
	}
	return command
}

// explainSchedule explains the error of a request about a schedule.
func (s *session) explainSchedule(id string, err error) error {
	if isNotFound(err) {
		return fmt.Errorf("schedule %s does not exist in namespace %q; %s schedule list shows the existing ones", id, s.namespace, programName)
	}
	return s.explain(err)
}

func (a *app) showScheduleLine(id string) string {
	return a.shellLine([]string{"schedule", "show", "--id", id})
}

// awaitSchedule waits until a request shows in the schedule, which Temporal
// updates asynchronously; nil = it does not.
func (s *session) awaitSchedule(ctx context.Context, id string, isDone func(*schedule) bool) (*schedule, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for ; ; sleep(ctx, scheduleInterval) {
		found, err := s.findSchedule(ctx, id)
		switch {
		case ctx.Err() != nil:
			return nil, nil
		case err != nil || found != nil && isDone(found):
			return found, err
		}
	}
}

func (a *app) triggerScheduleCommand() *cobra.Command {
	return a.onSchedule(&cobra.Command{
		Use: "trigger", Short: "Start a run now, even if the schedule is paused",
		Long: `Starts a run of the schedule now, even if the schedule is paused. It is refused
while a run of the schedule, or another rotation that it would conflict with, is
running: such a run would fail with ClusterBusy and pause the schedule.`,
	}, "", func(ctx context.Context, s *session, found *schedule) error {
		if err := a.conflict(ctx, s, found); err != nil {
			return err
		}
		if err := found.Trigger(ctx, client.ScheduleTriggerOptions{}); err != nil {
			return s.explainSchedule(found.GetID(), err)
		}
		after, err := s.awaitSchedule(ctx, found.GetID(), func(now *schedule) bool { return now.Info.NumActions > found.Info.NumActions })
		switch {
		case err != nil:
			return err
		case after == nil:
			return withHint(fmt.Errorf("triggered, but Temporal shows no new run: an earlier one may still be running; check with"), a.showScheduleLine(found.GetID()))
		}
		lines := []string{"triggered schedule " + found.GetID()}
		if run := after.Info.RecentActions[len(after.Info.RecentActions)-1].StartWorkflowResult; run != nil {
			lines = append(lines, "  workflow ID  "+run.WorkflowID, "  run ID       "+run.FirstExecutionRunID,
				"watch it with", "  "+a.commandLineFor(found.rotationOf(run.WorkflowID), "watch"))
		}
		return a.println(append(lines, "see its outcome with", "  "+a.showScheduleLine(found.GetID()))...)
	})
}

// conflict is an error if a run that starts now would be skipped, or would fail
// and thereby pause the schedule.
func (a *app) conflict(ctx context.Context, s *session, found *schedule) error {
	if running := found.Info.RunningWorkflows; len(running) > 0 && found.Schedule.Policy.Overlap == enumspb.SCHEDULE_OVERLAP_POLICY_SKIP {
		id := running[0].WorkflowID
		return withHint(fmt.Errorf("a run of schedule %s is already running: workflow ID %s; watch it with", found.GetID(), id), a.commandLineFor(found.rotationOf(id), "watch"))
	}
	if found.rotation.fleet || found.rotation.check() != nil {
		return nil
	}
	described, err := s.DescribeWorkflowExecution(ctx, found.rotation.workflowID(), "")
	if run := described.GetWorkflowExecutionInfo(); isRunning(run) {
		a.rotation = found.rotation
		return a.busy(run.GetExecution().GetRunId())
	}
	if isNotFound(err) {
		return nil
	}
	return s.explain(err)
}

// pauseScheduleCommand makes pause or unpause.
func (a *app) pauseScheduleCommand(pause bool, name, short, long, exampleReason string) *cobra.Command {
	var by, reason string
	command := a.onSchedule(&cobra.Command{Use: name, Short: short, Long: short + ".\n\n" + long}, "--reason '"+exampleReason+"'", func(ctx context.Context, s *session, found *schedule) (err error) {
		record := recordOf(found)
		was := record.state()
		if record.Paused == pause {
			return a.println(fmt.Sprintf("unchanged: schedule %s is %s", found.GetID(), was))
		}
		record.Paused, record.Note = pause, strings.TrimSuffix(name+"d by "+by+": "+reason, ": ")
		if pause {
			err = found.Pause(ctx, client.SchedulePauseOptions{Note: record.Note})
		} else {
			err = found.Unpause(ctx, client.ScheduleUnpauseOptions{Note: record.Note})
		}
		if err != nil {
			return s.explainSchedule(found.GetID(), err)
		}
		return a.printSchedule(record, fmt.Sprintf("%sd schedule %s; it was %s", name, found.GetID(), was))
	})
	command.PreRunE = func(*cobra.Command, []string) error { return checkOperator(by) }
	a.addOperatorFlag(command.Flags(), &by)
	addReasonFlag(command.Flags(), &reason)
	return command
}

func (a *app) deleteScheduleCommand() *cobra.Command {
	return a.onSchedule(&cobra.Command{
		Use: "delete", Short: "Delete a schedule; its running rotation continues",
		Long: `Deletes a schedule without asking for confirmation. Its running rotation
continues, and Temporal keeps the records of its runs for the retention period.`,
	}, "", func(ctx context.Context, s *session, found *schedule) error {
		if err := found.Delete(ctx); err != nil {
			return s.explainSchedule(found.GetID(), err)
		}
		lines := []string{"deleted schedule " + found.GetID(), "  it rotated " + found.subject, "  " + recordOf(found).timesText()}
		for _, running := range found.Info.RunningWorkflows {
			lines = append(lines, "  its run continues: workflow ID "+running.WorkflowID)
		}
		return a.println(lines...)
	})
}

const unpauseHelp = `Runs that were missed during the pause are not made up for. After a pause on
failure, fix the cause (see "keyturn schedule show" and "keyturn report"), then
continue with "keyturn rotate --continue" or let the next run rotate everything.`

const scheduleHelp = `A schedule is a Temporal schedule that starts rotations of a cluster, with
--deployment of a project's deployments, or with --fleet of a fleet of either.
Those created in the Web UI for the workflow types RotateCluster,
RotateDeployment and RotateFleet can be managed here, too. "schedule apply --id
ID" gives them the settings described below.

Runs of a schedule created by apply never overlap, and a run that fails PAUSES
the schedule until someone unpauses it. A run that people ended does not: one
that was rejected, aborted, canceled or not approved in time. It closes as
canceled, and the schedule goes on.

"unpause" lets the schedule start runs again, the first one at its next time.
"trigger" starts one run now, and leaves a paused schedule paused. After a
failure: fix the cause, run "trigger" or "keyturn rotate --continue" if the
cluster should not wait for the next time, then run "unpause".

A run that finds another rotation of the cluster running fails with ClusterBusy
and changes nothing, and so pauses the schedule. To avoid this, give each
cluster one schedule, and pause it before a manual rotation that may run into
its next time. A fleet counts busy clusters and continues; failed clusters fail
the fleet.`

const scheduleExamples = `  keyturn schedule list
  keyturn schedule show --id orders-90-days
  keyturn schedule unpause --id orders-90-days --by erin`
