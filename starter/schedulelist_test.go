package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"keyturn/activities"
	"keyturn/workflows"
)

// pausedRecord is of a schedule that a failure has paused, with names that mean
// harm.
func pausedRecord() scheduleRecord {
	failed := scheduledRun{
		ScheduledFor: began, StartedAt: *at(1), WorkflowID: "scheduled-1", RunID: "01a2093d-97c1-7cd5-86d0-e38265e51de0",
		Status: statusFailed, Outcome: "failed: PartialFailure: 1 of 3 targets verified; left: a|b\x1b[31m failed",
	}
	return scheduleRecord{
		ID: "=quarterly", WorkflowType: "RotateCluster", Subject: "cluster " + testCluster + " of project " + testProject + ", connection default",
		Times: "at 04:00 on day 1 of January (cron 0 4 1 1 *)", TimeZone: "Europe/Berlin", Jitter: "30m",
		CatchUpWindow: "1h", Overlap: "skip", PauseOnFailure: true, Paused: true, Note: "paused due to\nworkflow failure",
		NextTimes:  []time.Time{began, began.AddDate(1, 0, 0), began.AddDate(2, 0, 0), began.AddDate(3, 0, 0)},
		WorkflowID: "scheduled", TaskQueue: "key-rotation", Input: json.RawMessage(`{"projectId":"<p>"}`), CreatedAt: began, Runs: 2, Missed: 1,
		LastRun: &failed, RecentRuns: []scheduledRun{failed},
	}
}

func TestSchedulesAreListedInWords(t *testing.T) {
	never := scheduleRecord{ID: "plain", Subject: "an input that names no cluster", Times: "every 36h", TimeZone: "UTC", Jitter: "0s", Limits: "until 2030"}
	want := `=quarterly
  Rotates     cluster 5196e5b0e4b0fca9cc88334a of project 5196d3628d022db4cbc26d9e, connection default
  Times       at 04:00 on day 1 of January (cron 0 4 1 1 *), Europe/Berlin, up to 30m later
  State       PAUSED: paused due to workflow failure
  Next        Sun 2026-03-01 13:00:00 CET (2026-03-01T12:00:00Z), Mon 2027-03-01 13:00:00 CET (2027-03-01T12:00:00Z), Wed 2028-03-01 13:00:00 CET (2028-03-01T12:00:00Z)
  Last run    2026-03-01T12:00:01Z: failed: PartialFailure: 1 of 3 targets verified; left: a|b failed

plain
  Rotates     an input that names no cluster
  Times       every 36h, UTC, until 2030
  State       active
  Last run    never
`
	if got := schedulesText([]scheduleRecord{pausedRecord(), never}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := schedulesText(nil); !strings.Contains(got, "there are no schedules") {
		t.Errorf("got %q", got)
	}
}

func TestAScheduleIsShownInFull(t *testing.T) {
	got := scheduleText(pausedRecord())
	for _, want := range []string{
		"Schedule    =quarterly\n", "Catch-up    a time that was missed is made up for within 1h\n", "Overlap     skip\n", "On failure  the schedule pauses\n",
		"Starts      workflow RotateCluster, id scheduled, on task queue key-rotation\n", "Runs        2, 1 missed, 0 left out for an overlap\n",
		"\nNext times\n  Sun 2026-03-01 13:00:00 CET", "Thu 2029-03-01", "│ 01a2093d-97c1-7cd5-86d0-e38265e51de0 │ 2026-03-01T12:00:01Z │ failed: PartialFailure",
		"\nInput\n{\n  \"projectId\": \"<p>\"\n}\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if unread := scheduleText(scheduleRecord{}); !strings.Contains(unread, "Input\nnot to be read") || !strings.Contains(unread, "it does not run by itself") {
		t.Errorf("got\n%s", unread)
	}
}

func TestSchedulesForSpreadsheetsAndTickets(t *testing.T) {
	list := schedulesCSV([]scheduleRecord{pausedRecord(), {ID: "plain"}})
	if !strings.HasPrefix(list, "schedule,workflowType,subject,") || !strings.Contains(list, "\n'=quarterly,RotateCluster,") || strings.Count(list, "\n") != 2 {
		t.Errorf("got\n%s", list)
	}
	if runs := runsCSV(pausedRecord()); !strings.Contains(runs, "'=quarterly,2026-03-01T12:00:00Z,2026-03-01T12:00:01Z,scheduled-1,01a2093d") {
		t.Errorf("got\n%s", runs)
	}
	if table := schedulesMarkdown([]scheduleRecord{pausedRecord()}); !strings.Contains(table, `a\|b failed |`) || !strings.Contains(table, "PAUSED") {
		t.Errorf("got\n%s", table)
	}
	if full := scheduleMarkdown(pausedRecord()); !strings.Contains(full, "- **On failure:** the schedule pauses\n") || !strings.Contains(full, "```json\n{") {
		t.Errorf("got\n%s", full)
	}
}

func TestOutcomesAreToldInWords(t *testing.T) {
	skipped := target("03", "orders-3", workflows.StatusSkipped)
	carried := verified("02", "orders-2", 2)
	carried.CarriedOver = true
	for want, result := range map[string]workflows.RotateClusterResult{
		"rotated: rotated 1 target":                              {Outcome: workflows.OutcomeRotated, Targets: []workflows.TargetRecord{verified("00", "orders-0", 1)}},
		"rotatedWithSkips: rotated 2 targets, skipped 1":         {Outcome: workflows.OutcomeRotatedWithSkips, Targets: []workflows.TargetRecord{verified("00", "orders-0", 1), verified("01", "orders-1", 2), skipped}},
		"rotated: rotated 1 target, carried over 1":              {Outcome: workflows.OutcomeRotated, Targets: []workflows.TargetRecord{verified("00", "orders-0", 1), carried}},
		"planned: planned 1 target, changed nothing":             {Outcome: workflows.OutcomePlanned, Targets: []workflows.TargetRecord{target("00", "orders-0", workflows.StatusPlanned)}},
		"unknown: it has ended with a result that can't be read": {},
	} {
		text, err := json.Marshal(result)
		if err != nil {
			t.Fatal(err)
		}
		if status, words := newClusterWork(nil).outcome(text); status+": "+words != want {
			t.Errorf("got %q, %q, want %q", status, words, want)
		}
	}
}

func TestOutcomesOfFleetsAreToldInWords(t *testing.T) {
	for want, result := range map[string]workflows.RotateFleetResult{
		"rotated: rotated 12 clusters, 1 busy":                   {Outcome: workflows.OutcomeRotated, Counts: workflows.FleetCounts{Clusters: 13, Rotated: 12, Busy: 1}},
		"rotated: rotated 1 cluster, 2 not encrypted":            {Outcome: workflows.OutcomeRotated, Counts: workflows.FleetCounts{Clusters: 3, Rotated: 1, NotEncrypted: 2}},
		"planned: planned 3 clusters, changed nothing, 1 busy":   {Outcome: workflows.OutcomePlanned, Counts: workflows.FleetCounts{Clusters: 4, Planned: 3, Busy: 1}},
		"unknown: it has ended with a result that can't be read": {},
	} {
		text, err := json.Marshal(result)
		if err != nil {
			t.Fatal(err)
		}
		if status, words := newFleetWork(nil).outcome(text); status+": "+words != want {
			t.Errorf("got %q, %q, want %q", status, words, want)
		}
	}
}

func TestWhatAFleetsScheduleRotates(t *testing.T) {
	for input, want := range map[string]string{
		``:     "a fleet: every cluster, connection default",
		`{}`:   "a fleet: every cluster, connection default",
		`null`: "a fleet: every cluster, connection default",
		`{"connection":"berlin","projectIds":["` + testProject + `"]}`: "a fleet: every cluster of 1 project, connection berlin",
		`{"projectIds":["a","b"],"clusterNames":"^orders-"}`:           `a fleet: the clusters with names like "^orders-" of 2 projects, connection default`,
		`{"projectIds":7}`: "an input that is no fleet's",
		`[]`:               "an input that is no fleet's",
	} {
		if got := newFleetWork(json.RawMessage(input)).subject(); got != want {
			t.Errorf("%s: got %q, want %q", input, got, want)
		}
	}
}

func TestABusyClusterIsToldFromAFailure(t *testing.T) {
	for want, err := range map[string]error{
		"busy: busy: look at workflow x":              temporal.NewNonRetryableApplicationError("look at workflow x", activities.ErrorClusterBusy, nil),
		"failed: failed: PartialFailure: 1 of 3":      temporal.NewNonRetryableApplicationError("1 of 3", activities.ErrorPartialFailure, nil),
		"failed: failed: Canceled: the workflow was":  temporal.NewCanceledError(),
		"failed: failed: the workflow: something new": errors.New("something new"),
	} {
		if status, words := failureOutcome(fmt.Errorf("the workflow: %w", err)); !strings.HasPrefix(status+": "+words, want) {
			t.Errorf("got %q, %q, want %q", status, words, want)
		}
	}
}

func TestWhatAScheduleRotates(t *testing.T) {
	for input, want := range map[string]string{
		`{"projectId":"` + testProject + `","clusterId":"` + testCluster + `"}`:                       "cluster " + testCluster + " of project " + testProject + ", connection default",
		`{"projectId":"` + testProject + `","clusterId":"` + testCluster + `","connection":"berlin"}`: "cluster " + testCluster + " of project " + testProject + ", connection berlin",
		`{"projectId":"` + testProject + `"}`:                                                         "an input that names no cluster",
		`{"projectId":7}`:                                                                             "an input that names no cluster",
		`[]`:                                                                                          "an input that names no cluster",
		``:                                                                                            "an input that names no cluster",
	} {
		if got := newClusterWork(json.RawMessage(input)).subject(); got != want {
			t.Errorf("%s: got %q, want %q", input, got, want)
		}
	}
}
