package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"keyturn/workflows"
)

const maxNextTimes = 3 // shown of each schedule

// scheduleSettings are what apply sets and compares. The same schedule has the
// same settings, however it was written.
type scheduleSettings struct {
	Times          string          `json:"times"` // in words, in TimeZone
	TimeZone       string          `json:"timeZone"`
	Jitter         string          `json:"jitter"`
	CatchUpWindow  string          `json:"catchUpWindow"`
	Overlap        string          `json:"overlap"`
	PauseOnFailure bool            `json:"pauseOnFailure"`
	Paused         bool            `json:"paused"`
	Note           string          `json:"note"`
	WorkflowType   string          `json:"workflowType"`
	WorkflowID     string          `json:"workflowId"`
	TaskQueue      string          `json:"taskQueue"`
	Summary        string          `json:"summary"`
	Input          json.RawMessage `json:"input"` // null if there is none, or if it is not JSON
}

// scheduleRecord describes a schedule. Times are in UTC.
type scheduleRecord struct {
	ID      string `json:"id"`
	Subject string `json:"subject"`
	scheduleSettings
	NextTimes  []time.Time    `json:"nextTimes"`
	CreatedAt  time.Time      `json:"createdAt"`
	Runs       int            `json:"runs"`
	Missed     int            `json:"missed"`     // due too long ago after an outage
	Overlapped int            `json:"overlapped"` // skipped: the run before was still running
	LastRun    *scheduledRun  `json:"lastRun"`
	RecentRuns []scheduledRun `json:"recentRuns,omitempty"` // newest first; not in a list
}

// scheduledRun is one run of a schedule.
type scheduledRun struct {
	ScheduledFor time.Time `json:"scheduledFor"`
	StartedAt    time.Time `json:"startedAt"`
	WorkflowID   string    `json:"workflowId"`
	RunID        string    `json:"runId"`
	Status       string    `json:"status"`  // running, busy, stopped, failed, unknown, or the result's outcome
	Outcome      string    `json:"outcome"` // the counts, or the error
}

// Statuses of a run, beside the outcomes of its result. People ended a stopped one.
const statusRunning, statusBusy, statusStopped, statusFailed, statusUnknown = "running", "busy", "stopped", "failed", "unknown"

func settingsOf(s *client.Schedule) scheduleSettings {
	action := workflowOf(s)
	workflowType, _ := action.Workflow.(string)
	return scheduleSettings{
		Times: timesText(s.Spec), TimeZone: cmp.Or(s.Spec.TimeZoneName, defaultTimeZone), Jitter: workflows.Duration(s.Spec.Jitter).String(),
		CatchUpWindow: workflows.Duration(s.Policy.CatchupWindow).String(), Overlap: strings.ToLower(s.Policy.Overlap.String()), PauseOnFailure: s.Policy.PauseOnFailure,
		Paused: s.State.Paused, Note: s.State.Note,
		WorkflowType: workflowType, WorkflowID: action.ID, TaskQueue: action.TaskQueue, Summary: action.StaticSummary, Input: inputOf(action.Args),
	}
}

// workflowOf is what a schedule starts: Temporal has no other kind of action.
func workflowOf(s *client.Schedule) *client.ScheduleWorkflowAction {
	return s.Action.(*client.ScheduleWorkflowAction)
}

// inputOf is a workflow's input as JSON. Several arguments, which are a mistake,
// become a list.
func inputOf(args []any) json.RawMessage {
	texts := make([]json.RawMessage, len(args))
	for i, arg := range args {
		if data := arg.(*commonpb.Payload).GetData(); json.Valid(data) {
			texts[i] = data
		}
	}
	if len(texts) <= 1 {
		return slices.Concat(texts...)
	}
	return mustHave(json.Marshal(texts))
}

func recordOf(found *schedule) scheduleRecord {
	return scheduleRecord{
		ID: found.GetID(), Subject: found.subject, scheduleSettings: settingsOf(&found.Schedule),
		NextTimes: found.Info.NextActionTimes, CreatedAt: recordTime(found.Info.CreatedAt),
		Runs: found.Info.NumActions, Missed: found.Info.NumActionsMissedCatchupWindow, Overlapped: found.Info.NumActionsSkippedOverlap,
	}
}

// recordTime has the precision of the times in other records.
func recordTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// readRuns adds the outcomes of the last runs to a record. Workers are queried
// until queries ends.
func (s *session) readRuns(ctx, queries context.Context, found *schedule, limit int) scheduleRecord {
	record, actions := recordOf(found), found.Info.RecentActions
	for _, action := range slices.Backward(actions[max(0, len(actions)-limit):]) {
		run := scheduledRun{ScheduledFor: recordTime(action.ScheduleTime), StartedAt: recordTime(action.ActualTime), Status: statusUnknown, Outcome: "no workflow was started"}
		if started := action.StartWorkflowResult; started != nil {
			run.WorkflowID, run.RunID = started.WorkflowID, started.FirstExecutionRunID
			run.Status, run.Outcome = s.outcomeOf(ctx, queries, found, run.WorkflowID, run.RunID)
		}
		record.RecentRuns = append(record.RecentRuns, run)
	}
	if len(record.RecentRuns) > 0 {
		record.LastRun = &record.RecentRuns[0]
	}
	return record
}

func (s *session) outcomeOf(ctx, queries context.Context, found *schedule, workflowID, runID string) (status, outcome string) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	described, err := s.DescribeWorkflowExecution(ctx, workflowID, runID)
	switch {
	case isNotFound(err):
		return statusUnknown, "the run is past Temporal's retention"
	case err != nil:
		return statusUnknown, s.explain(err).Error()
	case isRunning(described.GetWorkflowExecutionInfo()):
		if running := s.progressOf(queries, found.rotationOf(workflowID), ""); running.unread == nil {
			outcome = strings.Join(running.records.summary(), "; ")
		}
		return statusRunning, outcome
	}
	run := found.rotation
	run.id = workflowID
	return scheduledOutcome(s.awaitResult(ctx, run, runID))
}

func scheduledOutcome(ended runResult) (status, outcome string) {
	switch {
	case ended.connection != nil:
		return statusUnknown, ended.connection.Error()
	case ended.failure == nil:
		status, outcome = ended.records.outcome()
		return cmp.Or(status, statusUnknown), outcome
	case workflows.ErrorTypeOf(ended.failure) == workflows.ErrorClusterBusy:
		return statusBusy, ended.failureText()
	case temporal.IsCanceledError(ended.failure):
		return statusStopped, ended.failureText()
	}
	return statusFailed, ended.failureText()
}

func (a *app) listSchedulesCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "list", Short: "List schedules, their next runs and the outcome of the last run", Args: cobra.NoArgs,
		Long: `Lists the schedules that start rotations, whoever created them: what they
rotate, their times, state and next runs, and the outcome of the last run:
rotated, rotatedWithSkips or planned with counts; running with its progress;
busy (another rotation of the cluster was running, nothing was done); stopped
(people rejected, aborted or canceled it, or did not approve it in time; the
schedule goes on); failed with the error; unknown (past Temporal's retention);
or never. Schedules that a failure has paused are named after the list.`,
		Example: "  keyturn schedule list\n  keyturn schedule list -o json | jq -r '.[] | select(.paused) | .id'",
	}
	command.RunE = a.action(func(ctx context.Context, _ *cobra.Command) error {
		return a.withSession(ctx, func(s *session) error {
			records, err := s.scheduleRecords(ctx)
			if err != nil && len(records) == 0 {
				return err
			}
			table := func(l layout) string { return records.table(l) + a.unpauseLines(l, records) }
			return cmp.Or(a.writeAs(records, table, records.csv, records.markdown), err)
		})
	})
	a.format.addFlag(command)
	return command
}

// unpauseLines are the commands for the schedules that failures have paused.
func (a *app) unpauseLines(l layout, all scheduleRecords) string {
	var lines []string
	for _, r := range all {
		if workflows.IsPausedByFailure(r.Paused, r.Note) {
			lines = append(lines, l.line("  "+clean(a.shellLine([]string{"schedule", "unpause", "--id", r.ID}))))
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return fmt.Sprintf("\npaused by a failure: %s; fix the cause, then run\n%s\n", pluralize(len(lines), "schedule"), strings.Join(lines, "\n"))
}

// scheduleIDs lists the schedules that start rotations.
func (s *session) scheduleIDs(ctx context.Context) (ids []string, err error) {
	entries, err := s.ScheduleClient().List(ctx, client.ScheduleListOptions{})
	for err == nil && entries.HasNext() {
		var entry *client.ScheduleListEntry
		if entry, err = entries.Next(); err == nil && slices.Contains(workflows.RotationTypes, entry.WorkflowType.Name) {
			ids = append(ids, entry.ID)
		}
	}
	slices.Sort(ids)
	return ids, s.explain(err)
}

// scheduleRecords describes all schedules: Temporal's list is late, and lacks
// the inputs. One that cannot be read does not hide the others. Without a worker,
// each running rotation would take its query's whole timeout, so all queries
// share one.
func (s *session) scheduleRecords(ctx context.Context) (scheduleRecords, error) {
	ids, err := s.scheduleIDs(ctx)
	if err != nil {
		return nil, err
	}
	queries, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	records := make(scheduleRecords, len(ids))
	var group errgroup.Group
	group.SetLimit(maxParallelReads)
	for i, id := range ids {
		group.Go(func() error {
			found, err := s.findSchedule(ctx, id)
			if err != nil {
				return fmt.Errorf("the list is not complete: cannot read schedule %s: %w", id, err)
			}
			if found != nil { // else it was deleted meanwhile
				records[i] = s.readRuns(ctx, queries, found, 1)
				records[i].RecentRuns = nil
			}
			return nil
		})
	}
	err = group.Wait()
	return slices.DeleteFunc(records, func(r scheduleRecord) bool { return r.ID == "" }), err
}

func (a *app) showScheduleCommand() *cobra.Command {
	command := a.onSchedule(&cobra.Command{
		Use: "show", Short: "Show a schedule's settings, next runs and last outcomes",
		Long: `Shows a schedule with all its settings, the input of the workflow that it
starts, its next runs, and the outcomes of its last ten runs. With -o csv, one
row per run.`,
	}, "", func(ctx context.Context, s *session, found *schedule) error {
		record := s.readRuns(ctx, ctx, found, len(found.Info.RecentActions))
		table := func(l layout) string { return record.table(l) + a.unpauseLines(l, scheduleRecords{record}) }
		return a.writeAs(record, table, record.csv, record.markdown)
	})
	a.format.addFlag(command)
	return command
}

func (r scheduleRecord) timesText() string {
	return strings.TrimSuffix(r.Times+", "+r.TimeZone+", up to "+r.Jitter+" later", ", up to 0s later")
}

func (r scheduleRecord) state() string {
	state := map[bool]string{false: "active", true: "PAUSED"}[r.Paused]
	return strings.TrimSuffix(state+": "+r.Note, ": ")
}

// facts describe a schedule.
func (r scheduleRecord) facts() []fact {
	facts := []fact{{"Rotates", r.Subject}, {"Times", r.timesText()}, {"State", r.state()}}
	for _, t := range r.NextTimes[:min(maxNextTimes, len(r.NextTimes))] {
		facts = append(facts, fact{"Next run", nextTimeText(t, r.TimeZone)})
	}
	if len(r.NextTimes) == 0 {
		facts = append(facts, fact{"Next run", "none: no date matches the schedule"})
	}
	return nonEmpty(facts)
}

// factsAndLastRun are for a record whose runs were read.
func (r scheduleRecord) factsAndLastRun() []fact {
	last := cmp.Or(r.LastRun, &scheduledRun{Status: "never"})
	text := strings.Trim(timeText(&last.StartedAt)+": "+last.Status+": "+last.Outcome, ": ")
	return append(r.facts(), fact{"Last run", clean(text)})
}

// printSchedule prints what was done to a schedule, and how it is now.
func (a *app) printSchedule(now scheduleRecord, done ...string) error {
	return cmp.Or(a.println(done...), writeLine(a.stdout, a.layoutOf(a.stdout).head(now.facts(), "")))
}

// table has the facts, and everything as YAML, whose long lines are wrapped on a terminal.
func (r scheduleRecord) table(l layout) string {
	text := l.head(r.factsAndLastRun(), "") + "\n"
	for line := range strings.Lines(yamlText(r)) {
		text += l.line(strings.TrimRight(line, "\n")) + "\n"
	}
	return text
}

func (r scheduleRecord) markdown() string {
	return markdownHead(r.ID, r.factsAndLastRun()) + "\n```yaml\n" + yamlText(r) + "```\n"
}

func (r scheduleRecord) csv() string {
	t := newCSV()
	t.AppendHeader(table.Row{"schedule", "scheduledFor", "startedAt", "workflowId", "runId", "status", "outcome"})
	for _, run := range r.RecentRuns {
		t.AppendRow(cleanRow(r.ID, timeText(&run.ScheduledFor), timeText(&run.StartedAt), run.WorkflowID, run.RunID, run.Status, run.Outcome))
	}
	return t.RenderCSV()
}

// scheduleRecords are those of a list.
type scheduleRecords []scheduleRecord

// stateMark is the state without the note.
func (r scheduleRecord) stateMark() (class, text string) {
	if r.Paused {
		return markWaiting, "PAUSED"
	}
	return "", "active"
}

// lastMark is the status of the last run.
func (r scheduleRecord) lastMark() (class, text string) {
	switch {
	case r.LastRun == nil:
		return "", "never"
	case r.LastRun.Status == statusFailed:
		return markBad, statusFailed
	case r.LastRun.Status == string(workflows.OutcomeRotated):
		return markGood, r.LastRun.Status
	default:
		return "", r.LastRun.Status
	}
}

var scheduleColumns = []columnOf[scheduleRecord]{
	{
		newTextField("Rotates", func(r scheduleRecord) string { return r.Subject }),
		newTextField("Schedule", func(r scheduleRecord) string { return r.ID }),
		newTextField("Times", scheduleRecord.timesText),
	},
	{
		newMarkField("State", scheduleRecord.stateMark),
		newTimeField("Next run", func(r scheduleRecord) *time.Time {
			if len(r.NextTimes) == 0 {
				return nil
			}
			return &r.NextTimes[0]
		}),
	},
	{
		newMarkField("Last run", scheduleRecord.lastMark),
		newTimeField("Started", func(r scheduleRecord) *time.Time {
			if r.LastRun == nil {
				return nil
			}
			return &r.LastRun.StartedAt
		}),
	},
}

// remarks are what is too long for the table.
func (r scheduleRecord) remarks() (lines []string) {
	if r.Note != "" {
		lines = append(lines, r.ID+": "+r.state())
	}
	if len(r.NextTimes) == 0 {
		lines = append(lines, r.ID+": has no next run: no date matches the schedule")
	}
	if r.LastRun != nil && r.LastRun.Outcome != "" {
		lines = append(lines, r.ID+": last run "+r.LastRun.Status+": "+r.LastRun.Outcome)
	}
	return lines
}

func (all scheduleRecords) table(l layout) string {
	if len(all) == 0 {
		return "there are no schedules; create one with " + programName + " schedule apply"
	}
	text := tableOf(l, scheduleColumns, all) + "\n"
	var remarks []string
	for _, r := range all {
		remarks = append(remarks, r.remarks()...)
	}
	for i, line := range remarks {
		if i == 0 {
			text += "\nRemarks\n"
		}
		text += l.line("  "+clean(line)) + "\n"
	}
	return text
}

func (all scheduleRecords) markdown() (text string) {
	for _, r := range all {
		text += markdownHead(r.ID, r.factsAndLastRun()) + "\n"
	}
	return text
}

func (all scheduleRecords) csv() string {
	t := newCSV()
	t.AppendHeader(table.Row{"schedule", "workflowType", "subject", "times", "timeZone", "paused", "note", "next", "lastRunAt", "lastStatus", "lastOutcome", "lastWorkflowId", "lastRunId"})
	for _, r := range all {
		last, next := cmp.Or(r.LastRun, &scheduledRun{}), ""
		if len(r.NextTimes) > 0 {
			next = timeText(&r.NextTimes[0])
		}
		t.AppendRow(cleanRow(r.ID, r.WorkflowType, r.Subject, r.timesText(), r.TimeZone, strconv.FormatBool(r.Paused), r.Note, next,
			timeText(&last.StartedAt), last.Status, last.Outcome, last.WorkflowID, last.RunID))
	}
	return t.RenderCSV()
}
