package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // --time-zone must work on systems without a time zone database

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.yaml.in/yaml/v3"

	"keyturn/workflows"
)

const (
	minCatchUp       = workflows.Duration(10 * time.Second) // Temporal raises a shorter one to this
	scheduleInterval = 200 * time.Millisecond               // between two reads of a schedule that changes
	defaultTimeZone  = "UTC"
)

// applyFlags are the schedule that apply makes. What no flag sets stays as it is.
type applyFlags struct {
	startFlags
	set                            *pflag.FlagSet
	calendars                      []client.ScheduleCalendarSpec
	every, offset, jitter, catchUp workflows.Duration
	timeZone, note                 string
	paused, diff                   bool
}

func (f *applyFlags) addFlags(a *app, command *cobra.Command) {
	f.addPlanFlags(a, command)
	f.addRotateFlags(command)
	f.set, f.catchUp = command.Flags(), workflows.Duration(time.Hour)
	f.set.Func("cron", "when: minute, hour, day of month, month and weekday in --time-zone; can be repeated", func(text string) error {
		calendar, err := parseCron(text)
		f.calendars = append(f.calendars, calendar)
		return err
	})
	f.set.Var(&f.every, "every", "how often, such as 90d, counted from 1970-01-01 UTC and not from today; see --offset")
	f.set.Lookup("every").DefValue = "" // there is none
	f.set.Var(&f.offset, "offset", "delay after each multiple of --every, less than --every")
	f.set.StringVar(&f.timeZone, "time-zone", defaultTimeZone, "IANA time zone, such as Europe/Berlin")
	f.set.Var(&f.jitter, "jitter", "start each run up to this much later, at random")
	f.set.Var(&f.catchUp, "catch-up", "how late a run may start after an outage of Temporal, 10s or more")
	f.set.BoolVar(&f.paused, "paused", false, "pause the schedule, or with =false unpause it (default: a new schedule is active, an existing one keeps its state)")
	f.set.StringVar(&f.note, "note", "", "note on the schedule; a paused one keeps the note with the reason unless --paused is given")
	f.set.BoolVar(&f.diff, "diff", false, "show what would change; changes nothing")
	command.MarkFlagsOneRequired("cron", "every")
	command.MarkFlagsMutuallyExclusive("cron", "every")
}

func (f *applyFlags) check(name rotationName) error {
	_, zoneErr := time.LoadLocation(f.timeZone)
	switch {
	case f.set.Changed("every") && f.every.Std() < time.Second || f.every.Std()%time.Second != 0:
		return usageErrorf("--every: must be 1s or more, in whole seconds")
	case f.offset < 0 || f.offset > 0 && f.offset >= f.every || f.offset.Std()%time.Second != 0:
		return usageErrorf("--offset: must be whole seconds, 0s or more and less than --every")
	// Local would be a different zone on each machine.
	case zoneErr != nil || f.timeZone == "" || f.timeZone == "Local":
		return usageErrorf("--time-zone: %q is not an IANA time zone, such as Europe/Berlin", f.timeZone)
	case f.jitter < 0:
		return usageErrorf("--jitter: must not be negative")
	case f.catchUp < minCatchUp:
		return usageErrorf("--catch-up: must be %s or more", minCatchUp)
	case len(f.note) > 1000: // Temporal's limit
		return usageErrorf("--note: must be at most 1000 bytes")
	}
	return f.startFlags.check(name, f.set)
}

func (a *app) applyScheduleCommand() *cobra.Command {
	f := &applyFlags{}
	command := &cobra.Command{Use: "apply", Short: "Create or update a schedule", Long: applyHelp, Example: applyExamples, Args: cobra.NoArgs}
	command.PreRunE = func(command *cobra.Command, _ []string) error {
		if err := a.resolveCluster(command.Context(), command); err != nil {
			return err
		}
		return cmp.Or(a.rotation.check(), f.check(a.rotation))
	}
	a.scheduleAction(command, func(ctx context.Context, s *session, id string, found *schedule) error {
		return a.applySchedule(ctx, s, id, found, f)
	})
	f.addFlags(a, command)
	return command
}

// merge changes an existing schedule to the wanted one. Someone who applies a
// schedule without changing it does not become its requester.
func (f *applyFlags) merge(existing *client.Schedule, name rotationName) *client.Schedule {
	var input struct{ Change workflows.Change }
	// An input that cannot be read has no requester.
	_ = json.Unmarshal(settingsOf(existing).Input, &input)
	confirmed := f.apply(existing, name, cmp.Or(input.Change.RequestedBy, f.values.cluster.Change.RequestedBy))
	if !f.set.Changed("requested-by") && yamlText(settingsOf(existing)) == yamlText(settingsOf(confirmed)) {
		return confirmed
	}
	return f.apply(existing, name, f.values.cluster.Change.RequestedBy)
}

func (f *applyFlags) apply(existing *client.Schedule, name rotationName, requestedBy string) *client.Schedule {
	spec, state, action := *existing.Spec, *existing.State, *workflowOf(existing)
	spec.Calendars, spec.Intervals, spec.TimeZoneName, spec.Jitter = f.calendars, nil, f.timeZone, f.jitter.Std()
	if f.every > 0 {
		spec.Intervals = []client.ScheduleIntervalSpec{{Every: f.every.Std(), Offset: f.offset.Std()}}
	}
	// A failure may have paused it, and the note says which one.
	if f.set.Changed("paused") && state.Paused != f.paused {
		state.Paused, state.Note = f.paused, ""
	}
	if f.set.Changed("note") && (!state.Paused || f.set.Changed("paused")) {
		state.Note = f.note
	}
	input := f.input(name, f.set)
	input.cluster.Change.RequestedBy, input.deployment.Change.RequestedBy = requestedBy, requestedBy
	request := f.request(name, input, f.set)
	action.Workflow, action.ID, action.TaskQueue = name.kind().workflowType, "scheduled-"+name.workflowID(), request.taskQueue
	action.StaticSummary, action.Args = request.summary, []any{mustHave(converter.GetDefaultDataConverter().ToPayload(request.input))}
	policy := &client.SchedulePolicies{Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: f.catchUp.Std(), PauseOnFailure: true}
	return &client.Schedule{Spec: &spec, Policy: policy, State: &state, Action: &action}
}

// applySchedule creates the schedule if existing is nil.
func (a *app) applySchedule(ctx context.Context, s *session, id string, existing *schedule, f *applyFlags) (err error) {
	current := &client.Schedule{Spec: &client.ScheduleSpec{}, Policy: &client.SchedulePolicies{}, State: &client.ScheduleState{}, Action: &client.ScheduleWorkflowAction{}}
	verb, before := "create", ""
	if existing != nil {
		current, verb, before = &existing.Schedule, "update", yamlText(settingsOf(&existing.Schedule))
	}
	applied := f.merge(current, a.rotation)
	changes := changedLines(before, yamlText(settingsOf(applied)))
	switch {
	case len(changes) == 0:
		return a.printSchedule(recordOf(existing), "unchanged: schedule "+id)
	case f.diff:
		return a.println(append([]string{"would " + verb + " schedule " + id}, changes...)...)
	case existing == nil:
		_, err = s.ScheduleClient().Create(ctx, client.ScheduleOptions{
			ID: id, Spec: *applied.Spec, Action: applied.Action,
			Overlap: applied.Policy.Overlap, CatchupWindow: applied.Policy.CatchupWindow, PauseOnFailure: applied.Policy.PauseOnFailure,
			Note: applied.State.Note, Paused: applied.State.Paused,
		})
	default:
		err = existing.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(latest client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			applied = f.merge(&latest.Description.Schedule, a.rotation) // it may have been paused meanwhile
			return &client.ScheduleUpdate{Schedule: applied}, nil
		}})
	}
	switch {
	case errors.Is(err, temporal.ErrScheduleAlreadyRunning):
		return fmt.Errorf("schedule %s was created concurrently; run apply again", id)
	case err != nil:
		return s.explainSchedule(id, err)
	}
	// Temporal has interpreted the times, and knows the next ones.
	found, err := s.awaitSchedule(ctx, id, func(now *schedule) bool {
		return yamlText(settingsOf(&now.Schedule)) == yamlText(settingsOf(applied))
	})
	switch {
	case err != nil:
		return err
	case found == nil:
		return withHint(fmt.Errorf("%sd schedule %s, but Temporal shows other settings; compare them with", verb, id), a.showScheduleLine(id))
	}
	return a.printSchedule(recordOf(found), append([]string{verb + "d schedule " + id}, changes...)...)
}

// yamlText is the YAML of a value's JSON, for people.
func yamlText(value any) string {
	var generic any
	must(yaml.Unmarshal([]byte(clean(string(mustHave(json.Marshal(value))))), &generic)) // JSON is YAML
	return string(mustHave(yaml.Marshal(generic)))
}

// changedLines are the lines that go (-) and that are new (+).
func changedLines(before, after string) (lines []string) {
	diff := mustHave(udiff.ToUnifiedDiff("", "", before, udiff.Lines(before, after), 0))
	signs := map[udiff.OpKind]string{udiff.Delete: "- ", udiff.Insert: "+ "}
	for _, hunk := range diff.Hunks {
		for _, line := range hunk.Lines {
			lines = append(lines, signs[line.Kind]+strings.TrimRight(line.Content, "\n"))
		}
	}
	return lines
}

const applyHelp = `Creates a schedule, or updates it to match the flags, and prints what changes.
The schedule rotates a cluster, with --deployment a project's deployments, or
with --fleet a fleet of either. Give all flags each time: a setting whose flag
is left out gets the flag's default, even if the schedule had another value.
Check with --diff. Only --paused and --note keep what the schedule has: a paused
schedule stays paused unless you give --paused=false. What has no flag, such as
days excluded in the Web UI, stays as it is.

--cron follows Temporal: if both day of month and weekday are given, both must
match. An expression that no date matches is refused. A time that does not exist
because daylight saving time begins is skipped: choose a time after 03:00.

The workflow ID of a run is scheduled-rotate-cluster:... or
scheduled-rotate-deployment:... with the time appended; the rotation runs under
its own workflow ID, where watch, report and the other commands find it. A fleet
keeps the ID scheduled-rotate-fleet:...: watch it with --fleet --workflow-id.
That of a fleet of deployments is scheduled-rotate-deployment-fleet:...: add
--deployment.
Whoever creates or changes a schedule is its requester, unless --requested-by
names someone else, and cannot approve its rotations.`

const applyExamples = `  # On the first Saturday of each quarter, within two hours after 22:00
  keyturn schedule apply --project 5196d3628d022db4cbc26d9e \
    --cluster 5196e5b0e4b0fca9cc88334a --cron '0 22 1-7 */3 SAT' \
    --jitter 2h --time-zone Europe/Berlin --reason quarterly

  # The deployments of a project, once a year
  keyturn schedule apply --deployment --project 5196d3628d022db4cbc26d9e \
    --cron '0 22 1 9 *' --time-zone Europe/Berlin

  # The deployments of every project, once a year
  keyturn schedule apply --fleet --deployment --clusters-at-a-time 20 \
    --cron '0 22 1 9 *' --time-zone Europe/Berlin

  # Every cluster, eight at a time, every 90 days; show what would change
  keyturn schedule apply --fleet --clusters-at-a-time 8 --every 90d --diff`
