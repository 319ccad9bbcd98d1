package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
)

func (a *app) scheduleCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "schedule",
		GroupID: groupRun,
		Short:   "Rotate by the calendar: apply, list, show, trigger, pause, unpause, delete",
		Long:    scheduleHelp,
		Example: scheduleExamples,
		Args:    cobra.NoArgs,
		RunE:    commandIsMissing,
	}
	command.AddCommand(
		a.applyScheduleCommand(), a.listSchedulesCommand(), a.showScheduleCommand(), a.triggerScheduleCommand(),
		a.pauseScheduleCommand(), a.unpauseScheduleCommand(), a.deleteScheduleCommand(),
	)
	return command
}

// schedule is one that starts something of keyturn's, as Temporal describes it.
type schedule struct {
	*client.ScheduleDescription
	id     string
	action *client.ScheduleWorkflowAction
	work   scheduledWork
}

// noScheduleError tells that an id is none of a schedule of keyturn's.
type noScheduleError struct {
	problem string
	exists  bool // but it starts something else
}

func (e *noScheduleError) Error() string { return e.problem }

func (s *session) noSchedule(id string) error {
	return &noScheduleError{problem: fmt.Sprintf("there is no schedule %s in namespace %q; starter schedule list shows those there are", id, s.namespace)}
}

// findSchedule describes a schedule, and refuses those of others.
func (s *session) findSchedule(ctx context.Context, id string) (*schedule, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	described, err := s.ScheduleClient().GetHandle(ctx, id).Describe(ctx)
	switch {
	case isNotFound(err):
		return nil, s.noSchedule(id)
	case err != nil:
		return nil, s.explain(err)
	}
	action := workflowOf(&described.Schedule)
	newWork, isOurs := scheduledWorks[workflowType(action)]
	if !isOurs {
		return nil, &noScheduleError{exists: true, problem: fmt.Sprintf("schedule %s starts workflow type %q, which is none of keyturn's: use Temporal's own tools on it", id, workflowType(action))}
	}
	return &schedule{ScheduleDescription: described, id: id, action: action, work: newWork(inputAsJSON(action.Args))}, nil
}

// addScheduleName adds the flags that name a schedule: its id, or the cluster, or
// the fleet, that apply has given its own id to.
func (a *app) addScheduleName(command *cobra.Command, id *string) {
	a.addScheduleID(command, id)
	a.rotation.define(command.Flags(), " (instead of --id)")
	a.rotation.defineFleet(command)
	command.MarkFlagsOneRequired("id", "cluster", "fleet")
	command.MarkFlagsRequiredTogether("project", "cluster")
	for _, other := range []string{"project", "cluster", "fleet", "connection"} {
		command.MarkFlagsMutuallyExclusive("id", other)
	}
}

func (a *app) addScheduleID(command *cobra.Command, id *string) {
	command.Flags().StringVar(id, "id", "", "the schedule's id (default: "+workflowIDPattern+")")
	must(command.RegisterFlagCompletionFunc("id", a.completeIDs((*session).scheduleIDs)))
}

const workflowIDPattern = "rotate-cluster:CONNECTION:PROJECT:CLUSTER, of a fleet rotate-fleet:CONNECTION"

// completeIDs offers the ids that there are; none if Temporal can't be asked.
func (a *app) completeIDs(list func(*session, context.Context) ([]string, error)) cobra.CompletionFunc {
	return func(command *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		s, err := a.connect(command.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer s.Close()
		ids, err := list(s, command.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}

// scheduleID is the id that is given, or the one that is the cluster's or the
// fleet's.
func (a *app) scheduleID(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	return a.rotation.workflowID(), a.rotation.check()
}

// onSchedule makes a command's action of one on a schedule that is there.
func (a *app) onSchedule(given *string, action func(context.Context, *session, *schedule) error) func(*cobra.Command, []string) error {
	return a.do(func(ctx context.Context, _ *cobra.Command) error {
		id, err := a.scheduleID(*given)
		if err != nil {
			return err
		}
		s, err := a.connect(ctx)
		if err != nil {
			return err
		}
		defer s.Close()
		found, err := s.findSchedule(ctx, id)
		if err != nil {
			return err
		}
		return action(ctx, s, found)
	})
}

// scheduleLine is a command about a schedule, to be copied by the user.
func (a *app) scheduleLine(command, id string) string {
	return a.shellLine([]string{"schedule", command, "--id", id})
}

// say writes lines for people.
func (a *app) say(lines ...string) error {
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	return writeLine(a.stdout, strings.Join(lines, "\n"))
}

func (a *app) triggerScheduleCommand() *cobra.Command {
	var id string
	command := &cobra.Command{
		Use:   "trigger",
		Short: "Start a run now, also of a paused schedule",
		Long: `Starts what the schedule starts, now; also if the schedule is paused. It is refused
while a run of the schedule, or any other rotation of the cluster, is at work: such a
run would fail with ClusterBusy, and that would pause the schedule. Of a fleet, only a
run of the schedule is in the way.`,
		Example: "  starter schedule trigger --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a",
		Args:    cobra.NoArgs,
	}
	command.RunE = a.onSchedule(&id, a.triggerSchedule)
	a.addScheduleName(command, &id)
	return command
}

func (a *app) triggerSchedule(ctx context.Context, s *session, found *schedule) error {
	if err := a.ownRun(found); err != nil {
		return err
	}
	if err := found.work.obstacle(ctx, a, s); err != nil {
		return err
	}
	err := s.onHandle(ctx, found.id, func(ctx context.Context, handle client.ScheduleHandle) error {
		return handle.Trigger(ctx, client.ScheduleTriggerOptions{})
	})
	if err != nil {
		return err
	}
	after, err := s.awaitSchedule(ctx, found.id, func(now *schedule) bool {
		return now.Info.NumActions > found.Info.NumActions || now.Info.NumActionsSkippedOverlap > found.Info.NumActionsSkippedOverlap
	})
	switch {
	case err != nil:
		return err
	case after == nil:
		return advise(errors.New("triggered, but no run is known yet; look with"), a.scheduleLine("show", found.id))
	case after.Info.NumActions == found.Info.NumActions:
		return advise(errors.New("a run of the schedule was at work already, so no other was started; look with"), a.scheduleLine("show", found.id))
	}
	return a.say(append(startedLines(after), "watch it with", "  "+a.watchLine(found.work, startedOf(after).WorkflowID), "and see what comes of it with", "  "+a.scheduleLine("show", found.id))...)
}

// ownRun is an error if a run would be left out for one that is at work.
func (a *app) ownRun(found *schedule) error {
	running := found.Info.RunningWorkflows
	if len(running) == 0 || found.Schedule.Policy.Overlap != enumspb.SCHEDULE_OVERLAP_POLICY_SKIP {
		return nil
	}
	return advise(fmt.Errorf("a run of schedule %s is at work already: workflow id %s; look at it with", found.id, running[0].WorkflowID), a.watchLine(found.work, running[0].WorkflowID))
}

func startedLines(after *schedule) []string {
	lines := []string{"triggered schedule " + after.id}
	if started := startedOf(after); started.WorkflowID != "" {
		lines = append(lines, "  workflow id  "+started.WorkflowID, "  run id       "+started.FirstExecutionRunID)
	}
	return lines
}

// startedOf is the workflow that a schedule has started last; empty = none is
// known.
func startedOf(s *schedule) (started client.ScheduleWorkflowExecution) {
	actions := s.Info.RecentActions
	if len(actions) > 0 && actions[len(actions)-1].StartWorkflowResult != nil {
		started = *actions[len(actions)-1].StartWorkflowResult
	}
	return started
}

// onHandle sends a request about a schedule.
func (s *session) onHandle(ctx context.Context, id string, request func(context.Context, client.ScheduleHandle) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	err := request(ctx, s.ScheduleClient().GetHandle(ctx, id))
	switch {
	case isNotFound(err):
		return s.noSchedule(id)
	case err != nil:
		return s.explain(err)
	}
	return nil
}

// awaitSchedule waits, for a while, until a schedule is as a request has made
// it: Temporal takes requests about schedules before it acts on them. nil = it
// was not.
func (s *session) awaitSchedule(ctx context.Context, id string, is func(*schedule) bool) (*schedule, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	for {
		found, err := s.findSchedule(ctx, id)
		switch {
		case err == nil && is(found):
			return found, nil
		case ctx.Err() != nil:
			return nil, nil
		case err != nil:
			return nil, err
		}
		if !sleep(ctx, scheduleInterval) {
			return nil, nil
		}
	}
}

// pausing are the flags of pause and unpause.
type pausing struct{ id, by, reason string }

func (p pausing) note(what string) string {
	note := what + " by " + p.by
	if p.reason != "" {
		note += ": " + p.reason
	}
	return note
}

func (a *app) pauseScheduleCommand() *cobra.Command {
	return a.pausingCommand("pause", "Let a schedule start nothing until it is unpaused",
		"A run at work goes on. The reason is the schedule's note, which list and show tell.",
		func(ctx context.Context, s *session, found *schedule, p pausing) error {
			if found.Schedule.State.Paused {
				return a.say(fmt.Sprintf("schedule %s is paused already: %s", found.id, orNone(found.Schedule.State.Note)))
			}
			note := p.note("paused")
			err := s.onHandle(ctx, found.id, func(ctx context.Context, handle client.ScheduleHandle) error {
				return handle.Pause(ctx, client.SchedulePauseOptions{Note: note})
			})
			if err != nil {
				return err
			}
			return a.say(fmt.Sprintf("paused schedule %s: %s", found.id, note))
		})
}

func (a *app) unpauseScheduleCommand() *cobra.Command {
	return a.pausingCommand("unpause", "Let a paused schedule go on",
		`Times that have passed while it was paused are not made up for. After a pause on
failure, see first to what has failed (see "schedule show" and "starter report"): a
rotation that is left half done goes on with "starter rotate --resume", or is done anew
by the next run.`,
		func(ctx context.Context, s *session, found *schedule, p pausing) error {
			if !found.Schedule.State.Paused {
				return a.say(fmt.Sprintf("schedule %s is not paused", found.id))
			}
			err := s.onHandle(ctx, found.id, func(ctx context.Context, handle client.ScheduleHandle) error {
				return handle.Unpause(ctx, client.ScheduleUnpauseOptions{Note: p.note("unpaused")})
			})
			if err != nil {
				return err
			}
			said := []string{"unpaused schedule " + found.id, "it was paused: " + orNone(found.Schedule.State.Note)}
			return a.say(append(said, nextLines(found)...)...)
		})
}

// pausingCommand makes pause or unpause, which take the same flags.
func (a *app) pausingCommand(name, short, long string, action func(context.Context, *session, *schedule, pausing) error) *cobra.Command {
	p := &pausing{}
	command := &cobra.Command{
		Use:     name,
		Short:   short,
		Long:    short + ".\n\n" + long,
		Example: fmt.Sprintf("  starter schedule %s --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a --reason 'year-end freeze'", name),
		Args:    cobra.NoArgs,
	}
	onSchedule := a.onSchedule(&p.id, func(ctx context.Context, s *session, found *schedule) error { return action(ctx, s, found, *p) })
	command.RunE = func(command *cobra.Command, args []string) error {
		if strings.TrimSpace(p.by) == "" {
			return wrongUse("--by: say who you are")
		}
		return onSchedule(command, args)
	}
	a.addScheduleName(command, &p.id)
	command.Flags().StringVar(&p.by, "by", a.user, "who commands it, for the schedule's note")
	command.Flags().StringVar(&p.reason, "reason", "", "why, for the schedule's note")
	return command
}

func (a *app) deleteScheduleCommand() *cobra.Command {
	var id string
	command := &cobra.Command{
		Use:   "delete",
		Short: "Delete a schedule; what it has started goes on",
		Long: `Deletes a schedule, without asking. What it has started goes on, and the records of
its runs stay as long as Temporal keeps them.`,
		Example: "  starter schedule delete --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a",
		Args:    cobra.NoArgs,
	}
	command.RunE = a.onSchedule(&id, a.deleteSchedule)
	a.addScheduleName(command, &id)
	return command
}

func (a *app) deleteSchedule(ctx context.Context, s *session, found *schedule) error {
	err := s.onHandle(ctx, found.id, func(ctx context.Context, handle client.ScheduleHandle) error { return handle.Delete(ctx) })
	if err != nil {
		return err
	}
	record := recordOf(found)
	said := []string{"deleted schedule " + found.id, "  it rotated " + record.Subject, "  " + timesOf(record)}
	for _, running := range found.Info.RunningWorkflows {
		said = append(said, "  its run goes on: workflow id "+running.WorkflowID)
	}
	return a.say(said...)
}

// nextLines are the next times of a schedule, for people.
func nextLines(found *schedule) []string {
	zone := zoneOf(found.Schedule.Spec)
	texts := nextTimeTexts(found.Info.NextActionTimes, zone, nextTimesListed)
	if len(texts) == 0 {
		return []string{"it has no next time: no day fits its times"}
	}
	lines := []string{"next times"}
	for _, text := range texts {
		lines = append(lines, "  "+text)
	}
	return lines
}

const scheduleHelp = `A schedule is Temporal's, and starts rotations by the calendar: of one cluster each, or
of a fleet (--fleet). Those that were made in the Web UI for the workflows RotateCluster
and RotateFleet are listed, shown, triggered, paused and deleted like those made with
apply.

One that apply has made starts no second run while one is at work, and after a run that
has failed it PAUSES: nothing more is rotated until somebody has looked and unpauses it.
(One made elsewhere may have Temporal's own defaults: no pause on failure, and a catch-up
window of a year. "schedule apply" with its --id gives it those of here.)

That includes a run that finds another rotation of the cluster at work, started by
hand or by another schedule: it fails with ClusterBusy, changes nothing, and pauses the
schedule. "schedule list" says so: busy. When the other rotation has ended well, the
keys are new and nothing was missed: unpause the schedule. When it was a plan, or has
failed, trigger the schedule and then unpause it. To avoid it, pause the schedule
before a rotation by hand that may last until its time, and give a cluster one
schedule only.

A fleet counts such clusters as busy and goes on, so that nothing but a run of its own is
in its way; clusters that have failed fail the fleet, and pause its schedule.`

const scheduleExamples = `  # the quarterly rotation: on the first of January, April, July and October
  starter schedule apply --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a \
    --cron '0 4 1 */3 *' --time-zone Europe/Berlin --reason quarterly

  # and of all the other clusters
  starter schedule apply --fleet --cron '0 4 2 */3 *' --time-zone Europe/Berlin --reason quarterly

  # what runs when, and what came of it
  starter schedule list

  # it has failed, and is mended
  starter schedule unpause --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a --by erin`
