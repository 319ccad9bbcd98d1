package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"
)

const (
	// describedAtOnce bounds how many schedules are asked for at a time.
	describedAtOnce = 8
	// nextTimesListed is how many next times are shown of each of several
	// schedules.
	nextTimesListed = 3
)

// scheduleRecord is what there is to tell of a schedule. Times are in UTC.
type scheduleRecord struct {
	ID           string `json:"id"`
	WorkflowType string `json:"workflowType"`
	Subject      string `json:"subject"`
	// Times, in words, are by the clocks of TimeZone.
	Times    string `json:"times"`
	Limits   string `json:"limits"`
	TimeZone string `json:"timeZone"`
	Jitter   string `json:"jitter"`

	CatchUpWindow  string `json:"catchUpWindow"`
	Overlap        string `json:"overlap"`
	PauseOnFailure bool   `json:"pauseOnFailure"`

	Paused    bool        `json:"paused"`
	Note      string      `json:"note"`
	NextTimes []time.Time `json:"nextTimes"`

	WorkflowID string          `json:"workflowId"`
	TaskQueue  string          `json:"taskQueue"`
	Input      json.RawMessage `json:"input"`

	CreatedAt time.Time `json:"createdAt"`
	Runs      int       `json:"runs"`
	// Missed are those whose catch-up window has passed, Overlapped those that
	// were left out because the one before was still at work.
	Missed     int `json:"missed"`
	Overlapped int `json:"overlapped"`

	LastRun *scheduledRun `json:"lastRun"`
	// RecentRuns, the latest first, are known of a schedule that is shown, not
	// of one that is listed.
	RecentRuns []scheduledRun `json:"recentRuns,omitempty"`
}

// scheduledRun is what came of one time that a schedule has started something.
type scheduledRun struct {
	ScheduledFor time.Time `json:"scheduledFor"`
	StartedAt    time.Time `json:"startedAt"`
	WorkflowID   string    `json:"workflowId"`
	RunID        string    `json:"runId"`
	// Status is running, busy, failed, unknown, or the outcome in the result.
	Status string `json:"status"`
	// Outcome is the same in words.
	Outcome string `json:"outcome"`
}

func recordOf(found *schedule) scheduleRecord {
	s, info := &found.Schedule, found.Info
	return scheduleRecord{
		ID: found.id, WorkflowType: workflowType(found.action), Subject: found.work.subject(),
		Times: timesWords(s.Spec), Limits: limitsWords(s.Spec), TimeZone: zoneOf(s.Spec), Jitter: plainDuration(s.Spec.Jitter),
		CatchUpWindow: plainDuration(s.Policy.CatchupWindow), Overlap: strings.ToLower(s.Policy.Overlap.String()), PauseOnFailure: s.Policy.PauseOnFailure,
		Paused: s.State.Paused, Note: s.State.Note, NextTimes: info.NextActionTimes,
		WorkflowID: found.action.ID, TaskQueue: found.action.TaskQueue, Input: inputAsJSON(found.action.Args),
		CreatedAt: recordTime(info.CreatedAt),
		Runs:      info.NumActions, Missed: info.NumActionsMissedCatchupWindow, Overlapped: info.NumActionsSkippedOverlap,
	}
}

// recordTime is as precise as the times of the other records.
func recordTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

func (a *app) listSchedulesCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "list",
		Short: "List the schedules: when they run next, and what came of the last run",
		Long: `Lists the schedules that start rotations, whoever has made them: with "schedule apply",
in the Web UI, or otherwise. Of each, what it rotates, its times, whether it is paused
and why, the next times by the clocks of its time zone and in UTC, and the last run's
outcome:

  rotated ...   with the number of targets; skipped and carried-over ones apart. Of a
                fleet, with the number of clusters; busy ones apart
  planned ...   a dry run
  running       and how far it is; "held" waits for an operator
  busy          another rotation of the cluster was running: nothing was done
  failed ...    with the error's type and message
  unknown       the run is past Temporal's retention
  never         there was no run yet`,
		Example: "  starter schedule list\n  starter schedule list -o json | jq -r '.[] | select(.paused) | .id'",
		Args:    cobra.NoArgs,
	}
	command.RunE = a.do(func(ctx context.Context, _ *cobra.Command) error { return a.listSchedules(ctx) })
	a.format.addFlag(command)
	return command
}

func (a *app) listSchedules(ctx context.Context) error {
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	ids, err := s.scheduleIDs(ctx)
	if err != nil {
		return err
	}
	records, err := a.recordsOf(ctx, s, ids)
	if err != nil {
		return err
	}
	return a.writeSchedules(records)
}

// scheduleIDs lists the ids of keyturn's schedules.
func (s *session) scheduleIDs(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	entries, err := s.ScheduleClient().List(ctx, client.ScheduleListOptions{})
	if err != nil {
		return nil, s.explain(err)
	}
	var ids []string
	for entries.HasNext() {
		entry, err := entries.Next()
		if err != nil {
			return nil, s.explain(err)
		}
		if _, isOurs := scheduledWorks[entry.WorkflowType.Name]; isOurs {
			ids = append(ids, entry.ID)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// recordsOf describes schedules: the list that they were found in is late, and
// has no inputs.
func (a *app) recordsOf(ctx context.Context, s *session, ids []string) ([]scheduleRecord, error) {
	records := make([]*scheduleRecord, len(ids))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(describedAtOnce)
	for i, id := range ids {
		group.Go(func() error {
			record, err := a.briefRecord(ctx, s, id)
			records[i] = record
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	known := []scheduleRecord{}
	for _, record := range records {
		if record != nil {
			known = append(known, *record)
		}
	}
	return known, nil
}

// briefRecord tells the last run of a schedule; nil = it isn't there any more,
// or starts something else by now.
func (a *app) briefRecord(ctx context.Context, s *session, id string) (*scheduleRecord, error) {
	found, err := s.findSchedule(ctx, id)
	var notOurs *noScheduleError
	switch {
	case errors.As(err, &notOurs):
		return nil, nil
	case err != nil:
		return nil, err
	}
	record := recordOf(found)
	actions := found.Info.RecentActions
	if len(actions) == 0 {
		return &record, nil
	}
	last, err := a.runOf(ctx, s, found.work, actions[len(actions)-1])
	record.LastRun = &last
	return &record, err
}

func (a *app) showScheduleCommand() *cobra.Command {
	var id string
	command := &cobra.Command{
		Use:   "show",
		Short: "Show a schedule in full: its settings, its next times, its runs and what came of them",
		Long: `Shows a schedule with all its settings, the input of the workflow that it starts, its
next ten times, and its last ten runs with their outcomes (see "schedule list").

With -o csv, one row a run.`,
		Example: "  starter schedule show --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a\n  starter schedule show --id quarterly-orders -o json",
		Args:    cobra.NoArgs,
	}
	command.RunE = a.onSchedule(&id, a.showSchedule)
	a.addScheduleName(command, &id)
	a.format.addFlag(command)
	return command
}

func (a *app) showSchedule(ctx context.Context, s *session, found *schedule) error {
	record := recordOf(found)
	for _, action := range slices.Backward(found.Info.RecentActions) {
		run, err := a.runOf(ctx, s, found.work, action)
		if err != nil {
			return err
		}
		record.RecentRuns = append(record.RecentRuns, run)
	}
	if len(record.RecentRuns) > 0 {
		record.LastRun = &record.RecentRuns[0]
	}
	return a.writeSchedule(record)
}

func (a *app) writeSchedules(records []scheduleRecord) error {
	switch a.format {
	case formatJSON:
		return writeJSON(a.stdout, records)
	case formatCSV:
		return writeLine(a.stdout, schedulesCSV(records))
	case formatMarkdown:
		return writeLine(a.stdout, schedulesMarkdown(records))
	default:
		return writeLine(a.stdout, schedulesText(records))
	}
}

func (a *app) writeSchedule(record scheduleRecord) error {
	switch a.format {
	case formatJSON:
		return writeJSON(a.stdout, record)
	case formatCSV:
		return writeLine(a.stdout, runsCSV(record))
	case formatMarkdown:
		return writeLine(a.stdout, scheduleMarkdown(record))
	default:
		return writeLine(a.stdout, scheduleText(record))
	}
}

// briefFacts tell a schedule to somebody who looks through many.
func briefFacts(r scheduleRecord) []fact {
	return []fact{
		{"Rotates", r.Subject},
		{"Times", timesOf(r)},
		{"State", stateOf(r)},
		{"Next", strings.Join(nextTimeTexts(r.NextTimes, r.TimeZone, nextTimesListed), ", ")},
		{"Last run", lastRunOf(r)},
	}
}

func timesOf(r scheduleRecord) string {
	times := r.Times + ", " + r.TimeZone
	if r.Limits != "" {
		times += ", " + r.Limits
	}
	if r.Jitter != "0s" {
		times += ", up to " + r.Jitter + " later"
	}
	return times
}

func stateOf(r scheduleRecord) string {
	state := "active"
	if r.Paused {
		state = "PAUSED"
	}
	if r.Note != "" {
		state += ": " + r.Note
	}
	return state
}

func lastRunOf(r scheduleRecord) string {
	if r.LastRun == nil {
		return "never"
	}
	return timeText(&r.LastRun.StartedAt) + ": " + r.LastRun.Outcome
}

// fullFacts tell a schedule in full, but for its runs and its input.
func fullFacts(r scheduleRecord) []fact {
	return []fact{
		{"Schedule", r.ID},
		{"Rotates", r.Subject},
		{"Times", timesOf(r)},
		{"State", stateOf(r)},
		{"Catch-up", "a time that was missed is made up for within " + r.CatchUpWindow},
		{"Overlap", r.Overlap},
		{"On failure", onFailureOf(r)},
		{"Starts", fmt.Sprintf("workflow %s, id %s, on task queue %s", r.WorkflowType, r.WorkflowID, r.TaskQueue)},
		{"Made", timeText(&r.CreatedAt)},
		{"Runs", fmt.Sprintf("%d, %d missed, %d left out for an overlap", r.Runs, r.Missed, r.Overlapped)},
		{"Last run", lastRunOf(r)},
	}
}

func onFailureOf(r scheduleRecord) string {
	if r.PauseOnFailure {
		return "the schedule pauses"
	}
	return "the schedule goes on"
}

// factLines leaves out what is empty.
func factLines(indent string, all []fact) string {
	var b strings.Builder
	for _, one := range all {
		if one.value != "" {
			fmt.Fprintf(&b, "%s%-11s %s\n", indent, one.label, clean(one.value))
		}
	}
	return b.String()
}

func schedulesText(records []scheduleRecord) string {
	if len(records) == 0 {
		return "there are no schedules; make one with starter schedule apply"
	}
	var parts []string
	for _, r := range records {
		parts = append(parts, clean(r.ID)+"\n"+factLines("  ", briefFacts(r)))
	}
	return strings.Join(parts, "\n")
}

func scheduleText(r scheduleRecord) string {
	var b strings.Builder
	b.WriteString(factLines("", fullFacts(r)))
	b.WriteString("\nNext times\n" + indented(nextTimeTexts(r.NextTimes, r.TimeZone, len(r.NextTimes))))
	if len(r.RecentRuns) > 0 {
		b.WriteString("\n" + runsTable(r.RecentRuns) + "\n")
	}
	b.WriteString("\nInput\n" + inputText(r.Input) + "\n")
	return b.String()
}

func indented(lines []string) string {
	if len(lines) == 0 {
		lines = []string{"none: it does not run by itself"}
	}
	return "  " + strings.Join(lines, "\n  ") + "\n"
}

// runsTable has two lines a run, so that the ids fit on a screen.
func runsTable(runs []scheduledRun) string {
	t := newTable()
	t.AppendHeader(table.Row{"Run", "Started", "Outcome"})
	t.SetColumnConfigs([]table.ColumnConfig{{Name: "Outcome", WidthMax: 60}})
	for _, run := range runs {
		t.AppendRow(cleanRow(run.RunID, timeText(&run.StartedAt), run.Outcome))
	}
	return t.Render()
}

func inputText(input json.RawMessage) string {
	var text bytes.Buffer
	if json.Indent(&text, input, "", "  ") != nil {
		return unreadable
	}
	return escapeControls(text.String())
}

var scheduleColumns = table.Row{"schedule", "workflowType", "subject", "times", "timeZone", "paused", "note", "next", "lastRunAt", "lastStatus", "lastOutcome", "lastWorkflowId", "lastRunId"}

func scheduleValues(r scheduleRecord) []string {
	var last scheduledRun
	if r.LastRun != nil {
		last = *r.LastRun
	}
	var next time.Time
	if len(r.NextTimes) > 0 {
		next = r.NextTimes[0]
	}
	return []string{
		r.ID, r.WorkflowType, r.Subject, timesOf(r), r.TimeZone, strconv.FormatBool(r.Paused), r.Note, timeText(&next),
		timeText(&last.StartedAt), last.Status, last.Outcome, last.WorkflowID, last.RunID,
	}
}

func schedulesCSV(records []scheduleRecord) string {
	t := newCSV()
	t.AppendHeader(scheduleColumns)
	for _, r := range records {
		t.AppendRow(cleanRow(scheduleValues(r)...))
	}
	return t.RenderCSV()
}

func runsCSV(r scheduleRecord) string {
	t := newCSV()
	t.AppendHeader(table.Row{"schedule", "scheduledFor", "startedAt", "workflowId", "runId", "status", "outcome"})
	for _, run := range r.RecentRuns {
		t.AppendRow(cleanRow(r.ID, timeText(&run.ScheduledFor), timeText(&run.StartedAt), run.WorkflowID, run.RunID, run.Status, run.Outcome))
	}
	return t.RenderCSV()
}

func schedulesMarkdown(records []scheduleRecord) string {
	var rows []table.Row
	for _, r := range records {
		next := strings.Join(nextTimeTexts(r.NextTimes, r.TimeZone, 1), "")
		rows = append(rows, table.Row{r.ID, r.Subject, timesOf(r), stateOf(r), orDash(next), lastRunOf(r)})
	}
	return "# Schedules\n\n" + markdownTable(table.Row{"Schedule", "Rotates", "Times", "State", "Next", "Last run"}, rows)
}

func scheduleMarkdown(r scheduleRecord) string {
	var b strings.Builder
	b.WriteString("# Schedule of a key rotation\n\n")
	next := fact{"Next", strings.Join(nextTimeTexts(r.NextTimes, r.TimeZone, nextTimesListed), ", ")}
	for _, one := range append(fullFacts(r), next) {
		if one.value != "" {
			fmt.Fprintf(&b, "- **%s:** %s\n", one.label, markdownText(one.value))
		}
	}
	var rows []table.Row
	for _, run := range r.RecentRuns {
		rows = append(rows, table.Row{timeText(&run.StartedAt), run.RunID, run.Outcome})
	}
	if len(rows) > 0 {
		b.WriteString("\n## Runs\n\n" + markdownTable(table.Row{"Started", "Run", "Outcome"}, rows) + "\n")
	}
	b.WriteString("\n## Input\n\n```json\n" + inputText(r.Input) + "\n```\n")
	return b.String()
}
