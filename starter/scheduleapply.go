package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // --time-zone is checked where the system has no database of its own

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"keyturn/workflows"
)

const (
	defaultCatchUp = time.Hour
	// shortestCatchUp is Temporal's: it makes a shorter one this long.
	shortestCatchUp = 10 * time.Second
	// longestNote is Temporal's limit, in bytes.
	longestNote = 1000
	// scheduleInterval is the time between two looks whether a schedule has
	// changed.
	scheduleInterval = 200 * time.Millisecond

	scheduledPrefix = "scheduled-"
)

// applyFlags are the flags of apply.
type applyFlags struct {
	rotation rotateFlags
	fleet    fleetFlags

	id            string
	crons         []string
	every, offset time.Duration
	timeZone      string
	jitter        time.Duration
	catchUp       time.Duration
	paused        bool
	note          string
	dryRun        bool
}

func (f *applyFlags) addFlags(command *cobra.Command, a *app) {
	f.rotation.addPlanFlags(command.Flags(), a)
	f.rotation.addRotateFlags(command)
	flags := command.Flags()
	flags.Lookup("on-failure").Usage += " (of a fleet: default stop)"
	f.fleet.addFlags(flags)
	flags.StringArrayVar(&f.crons, "cron", nil, "when: minute, hour, day, month, weekday, by the clocks of --time-zone; may be repeated")
	flags.DurationVar(&f.every, "every", 0, "or how often, counted from 1970-01-01 UTC on: 2160h is every 90 days")
	flags.DurationVar(&f.offset, "offset", 0, "how much later than that, less than --every")
	flags.StringVar(&f.timeZone, "time-zone", defaultTimeZone, "IANA name, such as Europe/Berlin")
	flags.DurationVar(&f.jitter, "jitter", 0, "start up to this much later, at random")
	flags.DurationVar(&f.catchUp, "catch-up", defaultCatchUp, "how late a run may still start when Temporal was away at its time, 10s or more")
	flags.BoolVar(&f.paused, "paused", false, "pause it, or with =false unpause it (default: a new one runs, an existing one stays as it is)")
	flags.StringVar(&f.note, "note", "", "a note on the schedule; a paused one keeps the note that says why, unless --paused is given")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show what would change, and change nothing")
	command.MarkFlagsOneRequired("cron", "every")
	command.MarkFlagsMutuallyExclusive("cron", "every")
}

func (f *applyFlags) check(flags *pflag.FlagSet) error {
	return cmp.Or(f.rotation.check(flags), f.fleet.check(), f.checkTimes(flags), f.checkRest())
}

func (f *applyFlags) checkTimes(flags *pflag.FlagSet) error {
	for _, cron := range f.crons {
		if _, err := parseCron(cron); err != nil {
			return wrongUse("--cron: %v", err)
		}
	}
	switch {
	case flags.Changed("every") && f.every < time.Second:
		return wrongUse("--every: must be 1s or more")
	case flags.Changed("offset") && !flags.Changed("every"):
		return wrongUse("--offset: goes with --every only")
	case f.offset < 0 || f.every > 0 && f.offset >= f.every:
		return wrongUse("--offset: must be 0s or more, and less than --every")
	case f.every%time.Second != 0 || f.offset%time.Second != 0:
		return wrongUse("--every, --offset: must be whole seconds")
	}
	return nil
}

func (f *applyFlags) checkRest() error {
	// Local would be another zone on each machine.
	if _, err := time.LoadLocation(f.timeZone); err != nil || f.timeZone == "" || f.timeZone == "Local" {
		return wrongUse("--time-zone: %q is no time zone of the IANA database, such as Europe/Berlin", f.timeZone)
	}
	switch {
	case f.jitter < 0:
		return wrongUse("--jitter: must not be negative")
	case f.catchUp < shortestCatchUp:
		return wrongUse("--catch-up: must be %s or more", shortestCatchUp)
	case len(f.note) > longestNote:
		return wrongUse("--note: must have %d bytes at the most", longestNote)
	}
	return nil
}

func (a *app) applyScheduleCommand() *cobra.Command {
	f := &applyFlags{}
	command := &cobra.Command{
		Use:     "apply",
		Short:   "Make a schedule, or change it to what the flags say",
		Long:    applyHelp,
		Example: applyExamples,
		Args:    cobra.NoArgs,
	}
	command.RunE = a.do(func(ctx context.Context, command *cobra.Command) error {
		flags := command.Flags()
		if err := cmp.Or(a.rotation.check(), f.check(flags)); err != nil {
			return err
		}
		id, err := a.scheduleID(f.id)
		if err != nil {
			return err
		}
		return a.applySchedule(ctx, id, f.wanted(a.rotation, flags))
	})
	a.rotation.define(command.Flags(), "")
	a.rotation.defineFleet(command)
	command.MarkFlagsOneRequired("cluster", "fleet")
	command.MarkFlagsRequiredTogether("project", "cluster")
	a.addScheduleID(command, &f.id)
	f.addFlags(command, a)
	command.MarkFlagsMutuallyExclusive("fleet", "expected-targets")
	for _, ofFleet := range fleetFlagNames {
		command.MarkFlagsMutuallyExclusive("cluster", ofFleet)
	}
	return command
}

// scheduledStart is what a schedule is to start.
type scheduledStart struct {
	beginning
	requestedBy string
	inputBy     func(requestedBy string) any
}

// scheduledID is the workflow id, to which Temporal appends the time.
func (s scheduledStart) scheduledID() string { return scheduledPrefix + s.name.workflowID() }

func scheduledRotation(name rotationName, f *applyFlags, flags *pflag.FlagSet) scheduledStart {
	input := f.rotation.input(name, flags)
	return scheduledStart{
		beginning:   f.rotation.begin(name, input),
		requestedBy: input.Change.RequestedBy,
		inputBy: func(requestedBy string) any {
			input.Change.RequestedBy = requestedBy
			return input
		},
	}
}

func scheduledFleet(name rotationName, f *applyFlags, flags *pflag.FlagSet) scheduledStart {
	input := f.fleet.input(f.rotation.input(name, flags), flags)
	return scheduledStart{
		beginning:   f.rotation.beginFleet(name, input),
		requestedBy: input.Change.RequestedBy,
		inputBy: func(requestedBy string) any {
			input.Change.RequestedBy = requestedBy
			return input
		},
	}
}

// wantedSchedule is what the flags ask for. What they can't say stays as it is.
type wantedSchedule struct {
	flags *applyFlags
	given func(flag string) bool
	start scheduledStart
}

func (f *applyFlags) wanted(name rotationName, flags *pflag.FlagSet) wantedSchedule {
	start := scheduledRotation
	if name.fleet {
		start = scheduledFleet
	}
	return wantedSchedule{f, flags.Changed, start(name, f, flags)}
}

// over is an existing schedule changed to the one that is wanted. Whoever only
// confirms a schedule doesn't become its requester by that.
func (w wantedSchedule) over(existing *client.Schedule) *client.Schedule {
	confirmed := w.with(existing, cmp.Or(requesterOf(existing), w.start.requestedBy))
	if !w.given("requested-by") && len(changesBetween(settingsOf(existing), settingsOf(confirmed))) == 0 {
		return confirmed
	}
	return w.with(existing, w.start.requestedBy)
}

func (w wantedSchedule) with(existing *client.Schedule, requestedBy string) *client.Schedule {
	return &client.Schedule{
		Spec: w.spec(*existing.Spec),
		Policy: &client.SchedulePolicies{
			Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: w.flags.catchUp, PauseOnFailure: true,
		},
		State:  w.state(*existing.State),
		Action: w.action(*workflowOf(existing), requestedBy),
	}
}

func (w wantedSchedule) spec(spec client.ScheduleSpec) *client.ScheduleSpec {
	spec.Calendars, spec.Intervals = calendarsOf(w.flags.crons), nil
	if w.flags.every > 0 {
		spec.Intervals = []client.ScheduleIntervalSpec{{Every: w.flags.every, Offset: w.flags.offset}}
	}
	spec.TimeZoneName, spec.Jitter = w.flags.timeZone, w.flags.jitter
	return &spec
}

// calendarsOf are those of expressions that have been checked.
func calendarsOf(crons []string) (calendars []client.ScheduleCalendarSpec) {
	for _, cron := range crons {
		c, err := parseCron(cron)
		must(err)
		calendars = append(calendars, c.spec())
	}
	return calendars
}

// state unpauses nothing unless it is told to: a failure may have paused it, and
// the note says which.
func (w wantedSchedule) state(state client.ScheduleState) *client.ScheduleState {
	if w.given("paused") && state.Paused != w.flags.paused {
		state.Paused, state.Note = w.flags.paused, ""
	}
	if w.given("note") && (!state.Paused || w.given("paused")) {
		state.Note = w.flags.note
	}
	return &state
}

func (w wantedSchedule) action(action client.ScheduleWorkflowAction, requestedBy string) *client.ScheduleWorkflowAction {
	action.Workflow, action.ID, action.TaskQueue = w.start.name.workflowType(), w.start.scheduledID(), w.start.taskQueue
	action.StaticSummary, action.Args = w.start.summary, []any{w.start.inputBy(requestedBy)}
	return &action
}

func requesterOf(s *client.Schedule) string {
	var input struct{ Change workflows.Change }
	if json.Unmarshal(inputAsJSON(workflowOf(s).Args), &input) != nil {
		return ""
	}
	return input.Change.RequestedBy
}

func (a *app) applySchedule(ctx context.Context, id string, wanted wantedSchedule) error {
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	existing, err := s.findSchedule(ctx, id)
	var missing *noScheduleError
	switch {
	case errors.As(err, &missing) && !missing.exists:
		return a.createSchedule(ctx, s, id, wanted)
	case err != nil:
		return err
	}
	return a.updateSchedule(ctx, s, existing, wanted)
}

func (a *app) createSchedule(ctx context.Context, s *session, id string, wanted wantedSchedule) error {
	none := &client.Schedule{Spec: &client.ScheduleSpec{}, Policy: &client.SchedulePolicies{}, State: &client.ScheduleState{}}
	created := wanted.with(none, wanted.start.requestedBy)
	lines := changeLines(changesBetween(nil, settingsOf(created)), true)
	if wanted.flags.dryRun {
		return a.say(append([]string{"would make schedule " + id}, lines...)...)
	}
	if err := s.createSchedule(ctx, id, created); err != nil {
		return err
	}
	return a.sayApplied(ctx, s, id, append([]string{"made schedule " + id}, lines...), created)
}

func (s *session) createSchedule(ctx context.Context, id string, created *client.Schedule) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	_, err := s.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID: id, Spec: *created.Spec, Action: created.Action,
		Overlap: created.Policy.Overlap, CatchupWindow: created.Policy.CatchupWindow, PauseOnFailure: created.Policy.PauseOnFailure,
		Note: created.State.Note, Paused: created.State.Paused,
	})
	switch {
	case errors.Is(err, temporal.ErrScheduleAlreadyRunning):
		return fmt.Errorf("somebody else has just made schedule %s: apply again", id)
	case err != nil:
		return s.explain(err)
	}
	return nil
}

func (a *app) updateSchedule(ctx context.Context, s *session, existing *schedule, wanted wantedSchedule) error {
	updated := wanted.over(&existing.Schedule)
	changes := changesBetween(settingsOf(&existing.Schedule), settingsOf(updated))
	lines := changeLines(changes, false)
	switch {
	case len(changes) == 0:
		return a.say(append([]string{"unchanged: schedule " + existing.id}, nextOf(existing)...)...)
	case wanted.flags.dryRun:
		return a.say(append([]string{"would change schedule " + existing.id}, lines...)...)
	}
	err := s.onHandle(ctx, existing.id, func(ctx context.Context, handle client.ScheduleHandle) error {
		return handle.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(latest client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			// It may have been paused since it was looked at.
			updated = wanted.over(&latest.Description.Schedule)
			return &client.ScheduleUpdate{Schedule: updated}, nil
		}})
	})
	if err != nil {
		return err
	}
	return a.sayApplied(ctx, s, existing.id, append([]string{"changed schedule " + existing.id}, lines...), updated)
}

// sayApplied reads the schedule back: it is Temporal that has understood the
// times, and knows the next ones.
func (a *app) sayApplied(ctx context.Context, s *session, id string, lines []string, wanted *client.Schedule) error {
	settings := settingsOf(wanted)
	applied, err := s.awaitSchedule(ctx, id, func(now *schedule) bool {
		return len(changesBetween(settingsOf(&now.Schedule), settings)) == 0
	})
	switch {
	case err != nil:
		return err
	case applied == nil:
		return advise(fmt.Errorf("schedule %s was sent, but Temporal shows other settings; compare them with", id), a.scheduleLine("show", id))
	}
	return a.say(append(lines, nextOf(applied)...)...)
}

// nextOf says when a schedule runs next, or that it doesn't.
func nextOf(s *schedule) []string {
	if s.Schedule.State.Paused {
		return []string{strings.TrimSuffix("it is PAUSED: "+s.Schedule.State.Note, ": ")}
	}
	return nextLines(s)
}

const applyHelp = `Makes the schedule of a cluster's rotation, or with --fleet of a fleet's, or changes it
to what the flags say. The changes are shown field by field, and what is already so is
left alone: applying the same again changes nothing. --dry-run shows the changes only. What no flag can say,
such as days left out in the Web UI, stays as it is.

Times are by the clocks of --time-zone, and Temporal's way of reading cron: where day
of the month and weekday are both given, both must fit. A time that the clocks jump
over, in the night when summer time begins, is left out: choose one after 03:00. --every
counts from 1970-01-01 UTC on, whatever the zone is.

--catch-up: after an outage of Temporal, a run that has missed its time starts late, or
not at all if it is later than this. (Temporal's own default is a year: that would
rotate on any day.)

Runs don't overlap, and a run that fails pauses the schedule; also one that finds
another rotation of the cluster at work (ClusterBusy): see "starter schedule --help".
apply leaves a paused schedule paused: unpause it with "schedule unpause", or with
--paused=false.

The workflow is started as scheduled-rotate-cluster:... with the time appended, and has
the rotation done under the cluster's one id: watch, report and the operators' commands
find it as always. The input flags are those of rotate. Whoever makes the schedule, or
changes it, is its requester unless --requested-by names another, and may not approve
its rotations.

A fleet is started as scheduled-rotate-fleet:... with the time appended, and stays under
that id: watch it with --fleet --workflow-id, as "schedule trigger" and "schedule show"
tell. Its input flags are those of starter fleet.`

const applyExamples = `  # quarterly, on the first day, at 04:00 in Berlin
  starter schedule apply --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a \
    --cron '0 4 1 */3 *' --time-zone Europe/Berlin

  # on the first Saturday of a quarter, within two hours after 22:00, stopping at a failure
  starter schedule apply --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a \
    --cron '0 22 1-7 */3 SAT' --jitter 2h --on-failure stop

  # every 90 days, under an id of its own
  starter schedule apply --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a \
    --id orders-90-days --every 2160h --offset 4h

  # every cluster that the key sees, eight at a time
  starter schedule apply --fleet --clusters-at-a-time 8 --cron '0 22 1-7 */3 SAT' --time-zone Europe/Berlin

  # what would change?
  starter schedule apply --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a \
    --cron '0 5 1 */3 *' --time-zone Europe/Berlin --dry-run`
