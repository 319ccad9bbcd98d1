package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"keyturn/workflows"
)

// quarterly is what no test waits for: its time must not come while one runs.
var quarterly = []string{"--cron", "0 4 1 */3 *", "--time-zone", "Europe/Berlin", "--requested-by", "dana"}

// apply applies the quarterly schedule with more flags, and sees to it that
// nothing is left of it.
func (s *stage) apply(more ...string) answer {
	s.t.Helper()
	s.deleteLater(s.id())
	return s.starter("schedule apply", slices.Concat(quarterly, more)...)
}

func (s *stage) deleteLater(id string) {
	s.t.Cleanup(func() {
		// It may be gone already.
		_ = s.client.ScheduleClient().GetHandle(context.Background(), id).Delete(context.Background())
	})
}

// shown is the record of a schedule when it is as it should be.
func (s *stage) shown(id, what string, is func(scheduleRecord) bool) scheduleRecord {
	s.t.Helper()
	var record scheduleRecord
	eventually(s.t, what, func() bool {
		record = decoded[scheduleRecord](s.t, s.run("schedule", "show", "--id", id, "-o", "json"))
		return is(record)
	})
	return record
}

func (s *stage) listed(id, what string, is func(scheduleRecord) bool) (record scheduleRecord) {
	s.t.Helper()
	eventually(s.t, what, func() bool {
		records := decoded[[]scheduleRecord](s.t, s.run("schedule", "list", "-o", "json"))
		i := slices.IndexFunc(records, func(r scheduleRecord) bool { return r.ID == id })
		if i < 0 {
			return false
		}
		record = records[i]
		return is(record)
	})
	return record
}

// eventually polls: what schedules tell of themselves is late.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for %s", patience, what)
		}
		sleep(t.Context(), scheduleInterval)
	}
}

func isThere(scheduleRecord) bool { return true }

func hasEnded(r scheduleRecord) bool { return r.LastRun != nil && r.LastRun.Status != statusRunning }

func TestApplyIsIdempotentAndShowsWhatItChanges(t *testing.T) {
	s := newStage(t, 1)
	s.expect(s.apply("--dry-run"), exitDone, "would make schedule "+s.id(), "at 04:00 on day 1 of January, April, July, October (cron 0 4 1 */3 *)")
	s.expect(s.starter("schedule show"), exitFailed, "there is no schedule "+s.id())

	s.expect(s.apply("--reason", "quarterly", "--note", "audited"), exitDone, "made schedule "+s.id(), "Europe/Berlin", "skip",
		"next times\n", "-01 04:00:00 CE", workflows.StaticSummary(workflows.RotateClusterInput{ClusterID: s.cluster.ID}))
	made := s.describe(s.id())
	if made.Schedule.Policy.Overlap != enumspb.SCHEDULE_OVERLAP_POLICY_SKIP || !made.Schedule.Policy.PauseOnFailure || made.Schedule.Policy.CatchupWindow != time.Hour {
		t.Errorf("policy %+v", made.Schedule.Policy)
	}

	s.expect(s.apply("--reason", "quarterly"), exitDone, "unchanged: schedule "+s.id(), "next times\n")
	another := slices.Replace(slices.Clone(quarterly), 1, 2, "0 4 1 jan,APR,7,10 *")
	s.expect(s.starter("schedule apply", append(another, "--reason", "quarterly")...), exitDone, "unchanged")
	// Without --requested-by, whoever confirms a schedule is not its requester.
	s.expect(s.starter("schedule apply", append(slices.Clone(quarterly[:4]), "--reason", "quarterly")...), exitDone, "unchanged")
	if now := s.describe(s.id()); !now.Info.LastUpdateAt.Equal(made.Info.LastUpdateAt) {
		t.Errorf("an update was sent for nothing, at %s", now.Info.LastUpdateAt)
	}

	changed := []string{"--cron", "30 5 1 */3 *", "--jitter", "30m", "--catch-up", "10s", "--on-failure", "stop", "--requested-by", "erin", "--task-queue", "elsewhere"}
	want := []string{"cron 0 4 1 */3 *) -> at 05:30", "0s -> 30m", "1h -> 10s", "Europe/Berlin -> UTC", `(none) -> "stop"`, `"dana" -> "erin"`, `"quarterly" -> (none)`, " -> elsewhere"}
	s.expect(s.starter("schedule apply", append(changed, "--dry-run")...), exitDone, append(want, "would change schedule "+s.id())...)
	if now := s.describe(s.id()); !now.Info.LastUpdateAt.Equal(made.Info.LastUpdateAt) {
		t.Errorf("a dry run has updated the schedule at %s", now.Info.LastUpdateAt)
	}
	s.expect(s.starter("schedule apply", changed...), exitDone, append(want, "changed schedule "+s.id(), "next times\n")...)
	s.expect(s.starter("schedule apply", changed...), exitDone, "unchanged")

	s.expect(s.starter("schedule apply", "--every", "2160h", "--offset", "26h", "--requested-by", "erin"), exitDone, "-> every 2160h (90 days), offset 26h")
	record := s.shown(s.id(), "the interval", isThere)
	if record.Note != "audited" || record.Runs != 0 || record.LastRun != nil || len(record.NextTimes) == 0 {
		t.Errorf("record %+v", record)
	}
	s.expect(s.starter("schedule apply", "--cron", "0 4 31 2 *", "--requested-by", "erin"), exitDone, "no next time")
}

func (s *stage) describe(id string) *client.ScheduleDescription {
	s.t.Helper()
	described, err := s.client.ScheduleClient().GetHandle(s.t.Context(), id).Describe(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return described
}

func TestATriggeredScheduleRotates(t *testing.T) {
	s := newStage(t, 2)
	s.startWorker()
	s.expect(s.apply("--ticket", "CHG7"), exitDone, "made schedule")
	s.listed(s.id(), "the new schedule in the list", func(r scheduleRecord) bool { return r.LastRun == nil && len(r.NextTimes) > 0 })
	s.expect(s.run("schedule", "list"), exitDone, s.id(), "Rotates     cluster "+s.cluster.ID, "State       active", "Last run    never")

	s.expect(s.starter("schedule trigger"), exitDone, "triggered schedule "+s.id(), "workflow id  scheduled-"+s.id()+"-", "starter watch --project "+s.cluster.ProjectID)
	record := s.listed(s.id(), "the run's end in the list", hasEnded)
	if record.LastRun.Status != workflows.OutcomeRotated || record.LastRun.Outcome != "rotated 3 targets" || s.applied() != 3 {
		t.Errorf("last run %+v, with %d rotations", record.LastRun, s.applied())
	}
	s.expect(s.starter("report"), exitDone, "Outcome       rotated", "Requested by  dana", "Ticket        CHG7")
	s.expect(s.run("schedule", "list"), exitDone, ": rotated 3 targets")
	s.expect(s.run("schedule", "list", "-o", "markdown"), exitDone, "# Schedules", "| "+s.id()+" |", "rotated 3 targets")
	s.expect(s.starter("schedule show"), exitDone, "Rotates     cluster "+s.cluster.ID, "rotated 3 targets", record.LastRun.RunID, `"ticket": "CHG7"`, "Next times\n")
	s.expect(s.starter("schedule show", "-o", "markdown"), exitDone, "# Schedule of a key rotation", "## Runs", "## Input")
	for _, command := range [][]string{{"schedule", "list"}, {"schedule", "show", "--id", s.id()}} {
		rows, err := csv.NewReader(strings.NewReader(s.run(append(command, "-o", "csv")...).stdout)).ReadAll()
		if err != nil || !slices.ContainsFunc(rows, func(row []string) bool { return row[0] == s.id() && slices.Contains(row, "rotated 3 targets") }) {
			t.Errorf("%v as CSV: %v, %q", command, err, rows)
		}
	}
	ids := s.run("__complete", "schedule", "show", "--id", "")
	s.expect(ids, exitDone, s.id())
}

func TestAFailedRunPausesTheSchedule(t *testing.T) {
	s := newStage(t, 2)
	s.startWorker()
	s.failPut(s.cluster.ShardIDs[1])
	s.expect(s.apply("--on-failure", "stop"), exitDone)
	s.expect(s.starter("schedule trigger"), exitDone)
	record := s.listed(s.id(), "the pause", func(r scheduleRecord) bool { return r.Paused && hasEnded(r) })
	if record.LastRun.Status != statusFailed || !strings.HasPrefix(record.LastRun.Outcome, "failed: PartialFailure: 2 of 3") || !strings.Contains(record.Note, "paused due to workflow failure") {
		t.Errorf("record %+v, last run %+v", record, record.LastRun)
	}
	// Applying it again must not unpause it, nor forget why it is paused.
	s.expect(s.apply("--on-failure", "stop", "--note", "audited"), exitDone, "unchanged", "it is PAUSED: paused due to workflow failure")
	s.expect(s.starter("schedule pause", "--by", "erin"), exitDone, "is paused already: paused due to workflow failure")

	s.om.ClearFaults()
	s.expect(s.starter("schedule trigger"), exitDone) // a paused one, too
	s.shown(s.id(), "the second run's end", func(r scheduleRecord) bool { return hasEnded(r) && r.LastRun.Outcome == "rotated 3 targets" })
	s.expect(s.starter("schedule unpause", "--by", "erin", "--reason", "mended"), exitDone, "unpaused schedule "+s.id(), "it was paused: paused due to workflow failure", "next times")
	s.shown(s.id(), "the end of the pause", func(r scheduleRecord) bool { return !r.Paused && r.Note == "unpaused by erin: mended" })
	s.expect(s.starter("schedule unpause"), exitDone, "is not paused")
}

func TestAScheduleIsPausedAndDeleted(t *testing.T) {
	s := newStage(t, 1)
	s.expect(s.apply(), exitDone)
	s.expect(s.starter("schedule pause", "--by", "erin", "--reason", "freeze"), exitDone, "paused schedule "+s.id()+": paused by erin: freeze")
	s.listed(s.id(), "the pause", func(r scheduleRecord) bool { return r.Paused && r.Note == "paused by erin: freeze" })
	s.expect(s.apply("--paused=false"), exitDone, "true -> false", "paused by erin: freeze -> (none)", "next times")
	s.expect(s.starter("schedule delete"), exitDone, "deleted schedule "+s.id(), "cluster "+s.cluster.ID, "at 04:00 on day 1")
	eventually(t, "its absence from the list", func() bool {
		return !strings.Contains(s.run("schedule", "list", "-o", "csv").stdout, s.id())
	})
	s.expect(s.apply("--paused", "--note", "not yet"), exitDone, "made schedule", "it is PAUSED: not yet")
}

func TestASchedulesRunFindsTheClusterBusy(t *testing.T) {
	s := newStage(t, 1)
	s.startWorker()
	s.expect(s.apply(), exitDone)
	s.expect(s.starter("rotate", "--wait", "--require-approval", "--requested-by", "dana"), exitWaiting)
	s.expect(s.starter("schedule trigger"), exitFailed, "starter: ClusterBusy: ", s.id(), "starter watch --project")
	// Its time comes all the same.
	if err := s.client.ScheduleClient().GetHandle(t.Context(), s.id()).Trigger(t.Context(), client.ScheduleTriggerOptions{}); err != nil {
		t.Fatal(err)
	}
	record := s.shown(s.id(), "the pause", func(r scheduleRecord) bool { return r.Paused && hasEnded(r) })
	if record.LastRun.Status != statusBusy || !strings.HasPrefix(record.LastRun.Outcome, "busy: a rotation of this cluster is running already") {
		t.Errorf("last run %+v", record.LastRun)
	}
}

func TestARunThatIsHeldIsToldSo(t *testing.T) {
	s := newStage(t, 1)
	s.startWorker()
	s.failPut(s.cluster.ShardIDs[0])
	s.expect(s.apply(), exitDone)
	s.expect(s.starter("schedule trigger"), exitDone)
	s.listed(s.id(), "the hold", func(r scheduleRecord) bool {
		return r.LastRun != nil && strings.Contains(r.LastRun.Outcome, "running: orders: held: ") && strings.Contains(r.LastRun.Outcome, "waiting for an operator")
	})
	s.expect(s.starter("schedule trigger"), exitFailed, "a run of schedule "+s.id()+" is at work already", "starter watch --project")
	s.expect(s.starter("schedule delete"), exitDone, "its run goes on: workflow id scheduled-"+s.id())
}

func TestAScheduleOfTheWebUI(t *testing.T) {
	s := newStage(t, 1)
	s.startWorker()
	id := "Quarterly " + s.connection
	s.deleteLater(id)
	input, err := json.Marshal(map[string]any{"connection": s.connection, "projectId": s.cluster.ProjectID, "clusterId": s.cluster.ID, "concurrency": 2})
	if err != nil {
		t.Fatal(err)
	}
	s.create(id, workflows.RotateClusterType, json.RawMessage(input))
	record := s.listed(id, "the schedule in the list", isThere)
	want := "at 22:15 on Saturday in March (cron 15 22 * 3 6); every 168h (7 days), offset 1h"
	if record.Times != want || record.TimeZone != "UTC" || !strings.Contains(record.Subject, s.cluster.ID) || record.CatchUpWindow != "8760h" {
		t.Errorf("record %+v", record)
	}
	s.expect(s.run("schedule", "trigger", "--id", id), exitDone, "triggered schedule "+id, "starter schedule show --id '"+id+"'")
	s.shown(id, "the run's end", func(r scheduleRecord) bool { return hasEnded(r) && r.LastRun.Outcome == "rotated 2 targets" })
	s.expect(s.starter("schedule apply", append([]string{"--id", id}, quarterly...)...), exitDone,
		"changed schedule "+id, want+" -> at 04:00", "8760h -> 1h", "pause on failure", "input.concurrency         2 -> (none)", "-> scheduled-"+s.id())
	s.expect(s.starter("schedule apply", append([]string{"--id", id}, quarterly...)...), exitDone, "unchanged")
}

// create makes a schedule as others do.
func (s *stage) create(id, workflowType string, args ...any) {
	s.t.Helper()
	_, err := s.client.ScheduleClient().Create(s.t.Context(), client.ScheduleOptions{
		ID: id,
		Spec: client.ScheduleSpec{
			Calendars: []client.ScheduleCalendarSpec{{
				Minute: []client.ScheduleRange{{Start: 15}}, Hour: []client.ScheduleRange{{Start: 22}}, Month: []client.ScheduleRange{{Start: 3}},
				DayOfWeek: []client.ScheduleRange{{Start: 6}},
			}},
			Intervals: []client.ScheduleIntervalSpec{{Every: 7 * 24 * time.Hour, Offset: time.Hour}},
		},
		Action: &client.ScheduleWorkflowAction{ID: "by-hand-" + s.connection, Workflow: workflowType, TaskQueue: s.connection, Args: args},
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestAScheduleWithAnInputThatDoesNotFit(t *testing.T) {
	s := newStage(t, 1)
	s.startWorker()
	for name, args := range map[string][]any{
		"none": nil, "two": {map[string]string{"projectId": s.cluster.ProjectID}, nil}, "text": {"rotate, please"}, "number": {7}, "null": {nil},
	} {
		id := name + "-" + s.connection
		s.deleteLater(id)
		s.create(id, workflows.RotateClusterType, args...)
		s.expect(s.run("schedule", "show", "--id", id), exitDone, "an input that names no cluster", "Input")
		s.expect(s.run("schedule", "trigger", "--id", id), exitDone)
		s.listed(id, "the run's failure", func(r scheduleRecord) bool {
			return hasEnded(r) && strings.HasPrefix(r.LastRun.Outcome, "failed: InvalidInput: ")
		})
	}
}

func TestSchedulesThatAreNotThere(t *testing.T) {
	s := newStage(t, 1)
	other := "backup-" + s.connection
	s.deleteLater(other)
	s.create(other, "BackupEverything")
	for _, command := range []string{"show", "trigger", "pause", "unpause", "delete"} {
		missing := s.run("schedule", command, "--id", "nowhere")
		s.expect(missing, exitFailed, "starter: there is no schedule nowhere in namespace")
		if missing.stdout != "" || strings.Count(missing.stderr, "\n") != 1 {
			t.Errorf("%s: %q and %q; want one line", command, missing.stdout, missing.stderr)
		}
		s.expect(s.run("schedule", command, "--id", other), exitFailed, `starts workflow type "BackupEverything", which is none of keyturn's`)
	}
	s.expect(s.starter("schedule apply", append([]string{"--id", other}, quarterly...)...), exitFailed, "none of keyturn's")
	for _, command := range []string{"schedule show", "schedule delete"} {
		s.expect(s.starter(command), exitFailed, "there is no schedule "+s.id())
	}
	if listed := s.run("schedule", "list"); listed.code != exitDone || strings.Contains(listed.stdout, other) {
		t.Errorf("exit code %d, %s", listed.code, listed.stdout)
	}
	s.expect(s.run("schedule", "list", "--namespace", "nowhere"), exitFailed, `namespace "nowhere" does not exist`)
	s.expect(s.starter("schedule apply", append([]string{"--namespace", "nowhere"}, quarterly...)...), exitFailed, `namespace "nowhere" does not exist`)
}
