package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"go.temporal.io/sdk/temporal"

	"keyturn/workflows"
)

// pausedRecord is of a schedule that a failure has paused, with hostile names.
func pausedRecord() scheduleRecord {
	failed := scheduledRun{
		ScheduledFor: began, StartedAt: *at(1), WorkflowID: "scheduled-1", RunID: "01a2093d-97c1-7cd5-86d0-e38265e51de0",
		Status: statusFailed, Outcome: "PartialFailure: 1 of 3 targets verified; left: a|b\x1b[31m failed",
	}
	return scheduleRecord{
		ID: "=quarterly", Subject: "cluster " + testCluster + " of project " + testProject + ", connection default",
		scheduleSettings: scheduleSettings{
			Times: "at 04:00 on day 1, in January (cron 0 4 1 1 *)", TimeZone: "Europe/Berlin", Jitter: "30m",
			CatchUpWindow: "1h", Overlap: "skip", PauseOnFailure: true, Paused: true, Note: "paused due to\nworkflow failure",
			WorkflowType: "RotateCluster", WorkflowID: "scheduled", TaskQueue: "key-rotation", Input: json.RawMessage(`{"projectId":"<p>"}`),
		},
		NextTimes: []time.Time{began, began.AddDate(1, 0, 0), began.AddDate(2, 0, 0), began.AddDate(3, 0, 0)},
		CreatedAt: began, Runs: 2, Missed: 1, LastRun: &failed, RecentRuns: []scheduledRun{failed},
	}
}

func TestSchedulesAreListedInWords(t *testing.T) {
	never := scheduleRecord{ID: "plain", Subject: "unknown", scheduleSettings: scheduleSettings{Times: "every 1d12h", TimeZone: "UTC", Jitter: "0s"}}
	got := scheduleRecords{pausedRecord(), never}.table(layout{})
	for _, want := range []string{
		"│ cluster " + testCluster + " of project " + testProject + ", connection default", "│ =quarterly ", "│ at 04:00 on day 1, in January (cron 0 4 1 1 *), Europe/Berlin, up to 30m later",
		"│ PAUSED ", "│ 2026-03-01T12:00:00Z │ 2026-03-01T12:00:01Z │", "│ failed ", "│ unknown ", "│ plain ", "│ every 1d12h, UTC ", "│ active ", "│ never ",
		"  =quarterly: PAUSED: paused due to workflow failure\n  =quarterly: last run failed: PartialFailure: 1 of 3 targets verified; left: a|b failed\n  plain: has no next run: no date matches the schedule\n",
	} {
		assert.Contains(t, got, want)
	}
	assert.Contains(t, scheduleRecords{}.table(layout{}), "there are no schedules; create one with keyturn schedule apply")
}

func TestAScheduleIsShownInFull(t *testing.T) {
	for _, got := range []string{pausedRecord().table(layout{}), pausedRecord().markdown()} {
		for _, want := range []string{
			"catchUpWindow: 1h\n", "overlap: skip\n", "pauseOnFailure: true\n", "workflowType: RotateCluster\n", "workflowId: scheduled\n", "taskQueue: key-rotation\n",
			"runs: 2\n", "missed: 1\n", "overlapped: 0\n", "2029-03-01T12:00:00Z", "runId: 01a2093d-97c1-7cd5-86d0-e38265e51de0\n", "input:\n    projectId: <p>\n",
		} {
			assert.Contains(t, got, want)
		}
		assert.NotContains(t, got, "\x1b")
	}
	assert.Contains(t, scheduleRecord{}.table(layout{}), "input: null\n")
}

func TestSchedulesForSpreadsheetsAndTickets(t *testing.T) {
	list := scheduleRecords{pausedRecord(), {ID: "plain"}}.csv()
	assert.True(t, strings.HasPrefix(list, "schedule,workflowType,subject,"), list)
	assert.Contains(t, list, "\n'=quarterly,RotateCluster,")
	assert.Equal(t, 2, strings.Count(list, "\n"))
	assert.Contains(t, pausedRecord().csv(), "'=quarterly,2026-03-01T12:00:00Z,2026-03-01T12:00:01Z,scheduled-1,01a2093d")
	assert.Contains(t, scheduleRecords{pausedRecord()}.markdown(), "# =quarterly\n\n- **Rotates:** cluster ")
	assert.Contains(t, pausedRecord().markdown(), "- **State:** PAUSED: paused due to workflow failure\n")
}

func TestOutcomesOfScheduledRuns(t *testing.T) {
	carried := verified("02", "orders-2", 2)
	carried.CarriedOver = true
	cluster := func(outcome workflows.Outcome, targets ...workflows.TargetRecord) runResult {
		return runResult{records: clusterStatusOf(workflows.Progress{RotateClusterResult: workflows.RotateClusterResult{Outcome: outcome, Targets: targets}})}
	}
	fleet := func(outcome workflows.Outcome, counts workflows.FleetCounts) runResult {
		return runResult{records: &fleetStatus{FleetProgress: workflows.FleetProgress{RotateFleetResult: workflows.RotateFleetResult{Outcome: outcome, Counts: counts}}}}
	}
	failed := func(err error) runResult { return runResult{failure: fmt.Errorf("the workflow: %w", err)} }
	for want, ended := range map[string]runResult{
		"rotated: 1 verified":                        cluster(workflows.OutcomeRotated, verified("00", "orders-0", 1)),
		"rotatedWithSkips: 1 verified, 1 skipped":    cluster(workflows.OutcomeRotatedWithSkips, verified("00", "orders-0", 1), target("03", "orders-3", workflows.StatusSkipped)),
		"rotated: 2 verified (1 carried over)":       cluster(workflows.OutcomeRotated, verified("00", "orders-0", 1), carried),
		"planned: 1 planned":                         cluster(workflows.OutcomePlanned, target("00", "orders-0", workflows.StatusPlanned)),
		"rotated: 12 of 13 clusters rotated, 1 busy": fleet(workflows.OutcomeRotated, workflows.FleetCounts{Clusters: 13, Rotated: 12, Busy: 1}),
		"unknown: ":                                    cluster(""),
		"unknown: not JSON":                            {connection: errors.New("not JSON")},
		"busy: ClusterBusy: look at workflow x":        failed(temporal.NewNonRetryableApplicationError("look at workflow x", string(workflows.ErrorClusterBusy), nil)),
		"failed: PartialFailure: 1 of 3":               failed(temporal.NewNonRetryableApplicationError("1 of 3", string(workflows.ErrorPartialFailure), nil)),
		"stopped: Canceled: the workflow was canceled": failed(temporal.NewCanceledError()),
		"failed: the workflow: something new":          failed(errors.New("something new")),
	} {
		status, outcome := scheduledOutcome(ended)
		assert.Equal(t, want, status+": "+outcome)
	}
}

func TestWhatAFleetsScheduleRotates(t *testing.T) {
	for input, want := range map[string]string{
		``:     "a fleet: every cluster, connection default",
		`{}`:   "a fleet: every cluster, connection default",
		`null`: "a fleet: every cluster, connection default",
		`{"connection":"berlin","projectIds":["` + testProject + `"]}`:                     "a fleet: every cluster of 1 project, connection berlin",
		`{"projectIds":["a","b"],"clusterNames":"^orders-"}`:                               `a fleet: clusters matching "^orders-" of 2 projects, connection default`,
		`{"kind":"deployment"}`:                                                            "a fleet: the deployments of every project, connection default",
		`{"kind":"deployment","connection":"berlin","projectIds":["` + testProject + `"]}`: "a fleet: the deployments of 1 project, connection berlin",
		`{"projectIds":7}`: "unknown: the input does not name a fleet",
		`[]`:               "unknown: the input does not name a fleet",
	} {
		_, subject := scheduledRotation(workflows.RotateFleetType, json.RawMessage(input))
		assert.Equal(t, want, subject, input)
	}
}

func TestWhatAScheduleRotates(t *testing.T) {
	const unknown = "unknown: the input does not name a cluster"
	for input, want := range map[string]string{
		`{"projectId":"` + testProject + `","clusterId":"` + testCluster + `"}`:                       "cluster " + testCluster + " of project " + testProject + ", connection default",
		`{"projectId":"` + testProject + `","clusterId":"` + testCluster + `","connection":"berlin"}`: "cluster " + testCluster + " of project " + testProject + ", connection berlin",
		`{"projectId":"` + testProject + `"}`:                                                         unknown,
		`{"projectId":7}`:                                                                             unknown,
		`[]`:                                                                                          unknown,
		``:                                                                                            unknown,
	} {
		_, subject := scheduledRotation(workflows.RotateClusterType, json.RawMessage(input))
		assert.Equal(t, want, subject, input)
	}
}
