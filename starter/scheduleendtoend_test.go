package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

// quarterly is what no test waits for: its time must not come while one runs.
var quarterly = []string{"--cron", "0 4 1 */3 *", "--time-zone", "Europe/Berlin", "--requested-by", "dana"}

// apply applies the quarterly schedule with more flags, and sees to it that
// nothing is left of it.
func (s *commandLine) apply(more ...string) answer {
	s.T.Helper()
	s.deleteLater(s.id())
	return s.keyturn("schedule apply", slices.Concat(quarterly, more)...)
}

func (s *commandLine) deleteLater(id string) {
	s.T.Cleanup(func() {
		// It may be gone already.
		_ = s.Temporal.ScheduleClient().GetHandle(context.Background(), id).Delete(context.Background())
	})
}

// shown is the record of a schedule when it is as it should be.
func (s *commandLine) shown(id, what string, is func(scheduleRecord) bool) scheduleRecord {
	s.T.Helper()
	var record scheduleRecord
	eventually(s.T, what, func() bool {
		record = decoded[scheduleRecord](s.T, s.run("schedule", "show", "--id", id, "-o", "json"))
		return is(record)
	})
	return record
}

func (s *commandLine) listed(id, what string, is func(scheduleRecord) bool) (record scheduleRecord) {
	s.T.Helper()
	eventually(s.T, what, func() bool {
		records := decoded[[]scheduleRecord](s.T, s.run("schedule", "list", "-o", "json"))
		i := slices.IndexFunc(records, func(r scheduleRecord) bool { return r.ID == id })
		if i < 0 {
			return false
		}
		record = records[i]
		return is(record)
	})
	return record
}

// eventually polls: Temporal updates schedules asynchronously.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	waiting.Until(t, is, what)
}

func isThere(scheduleRecord) bool { return true }

func hasEnded(r scheduleRecord) bool { return r.LastRun != nil && r.LastRun.Status != statusRunning }

func TestApplyIsIdempotentAndShowsWhatItChanges(t *testing.T) {
	s := newFixture(t, 1)
	s.expect(s.apply("--diff"), exitDone, "would create schedule "+s.id(), "at 04:00 on day 1, in January, April, July, October (cron 0 4 1 */3 *)")
	s.expect(s.keyturn("schedule show"), exitFailed, "schedule "+s.id()+" does not exist in namespace")

	s.expect(s.apply("--reason", "quarterly", "--note", "audited"), exitDone, "created schedule "+s.id(), "Europe/Berlin", "skip",
		"Next run ", "-01 04:00:00 CE", workflows.RotateClusterSummary(workflows.RotateClusterInput{ClusterID: s.cluster.ID}))
	made := s.describe(s.id())
	assert.Equal(t, enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, made.Schedule.Policy.Overlap, "policy %+v", made.Schedule.Policy)
	assert.True(t, made.Schedule.Policy.PauseOnFailure, "policy %+v", made.Schedule.Policy)
	assert.Equal(t, time.Hour, made.Schedule.Policy.CatchupWindow, "policy %+v", made.Schedule.Policy)

	s.expect(s.apply("--reason", "quarterly"), exitDone, "unchanged: schedule "+s.id(), "Next run ")
	another := slices.Replace(slices.Clone(quarterly), 1, 2, "0 4 1 jan,APR,7,10 *")
	s.expect(s.keyturn("schedule apply", append(another, "--reason", "quarterly")...), exitDone, "unchanged")
	// Without --requested-by, whoever confirms a schedule is not its requester.
	s.expect(s.keyturn("schedule apply", append(slices.Clone(quarterly[:4]), "--reason", "quarterly")...), exitDone, "unchanged")
	assert.True(t, s.describe(s.id()).Info.LastUpdateAt.Equal(made.Info.LastUpdateAt), "an update was sent for nothing")

	changed := []string{"--cron", "30 5 1 */3 *", "--jitter", "30m", "--catch-up", "10s", "--on-failure", "stop", "--requested-by", "erin", "--task-queue", "elsewhere"}
	want := []string{"- times: at 04:00", "+ times: at 05:30", "- jitter: 0s\n+ jitter: 30m", "- catchUpWindow: 1h\n+ catchUpWindow: 10s", "- timeZone: Europe/Berlin", "+ timeZone: UTC",
		"+     onFailure: stop", "-         requestedBy: dana", "+         requestedBy: erin", "-         reason: quarterly", "+ taskQueue: elsewhere"}
	s.expect(s.keyturn("schedule apply", append(changed, "--diff")...), exitDone, append(want, "would update schedule "+s.id())...)
	assert.True(t, s.describe(s.id()).Info.LastUpdateAt.Equal(made.Info.LastUpdateAt), "--diff has updated the schedule")
	s.expect(s.keyturn("schedule apply", changed...), exitDone, append(want, "updated schedule "+s.id(), "Next run ")...)
	s.expect(s.keyturn("schedule apply", changed...), exitDone, "unchanged")

	s.expect(s.keyturn("schedule apply", "--every", "90d", "--offset", "26h", "--requested-by", "erin"), exitDone, "+ times: every 90d, offset 1d2h")
	record := s.shown(s.id(), "the interval", isThere)
	assert.Equal(t, "audited", record.Note, "record %+v", record)
	assert.Equal(t, 0, record.Runs, "record %+v", record)
	assert.Nil(t, record.LastRun)
	assert.NotEmpty(t, record.NextTimes, "record %+v", record)
	s.expect(s.keyturn("schedule apply", "--cron", "0 4 31 2 *", "--requested-by", "erin"), exitUsage, `"0 4 31 2 *" never runs: no date from now on matches`)
}

func (s *commandLine) describe(id string) *client.ScheduleDescription {
	s.T.Helper()
	described, err := s.Temporal.ScheduleClient().GetHandle(s.T.Context(), id).Describe(s.T.Context())
	require.NoError(s.T, err)
	return described
}

func TestATriggeredScheduleRotates(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 2)
	s.StartWorker()
	s.expect(s.apply("--ticket", "CHG7"), exitDone, "created schedule")
	s.listed(s.id(), "the new schedule in the list", func(r scheduleRecord) bool { return r.LastRun == nil && len(r.NextTimes) > 0 })
	s.expect(s.run("schedule", "list"), exitDone, s.id(), "│ cluster "+s.cluster.ID+" of project", "│ active ", "│ never ")

	s.expect(s.keyturn("schedule trigger"), exitDone, "triggered schedule "+s.id(), "workflow ID  scheduled-"+s.id()+"-", "keyturn watch --project "+s.cluster.ProjectID)
	record := s.listed(s.id(), "the run's end in the list", hasEnded)
	assert.Equal(t, string(workflows.OutcomeRotated), record.LastRun.Status)
	assert.Equal(t, "3 verified", record.LastRun.Outcome)
	assert.Equal(t, 3, s.applied())
	s.expect(s.keyturn("report"), exitDone, "Outcome       rotated", "Requested by  dana", "Ticket        CHG7")
	s.expect(s.run("schedule", "list"), exitDone, s.id()+": last run rotated: 3 verified")
	s.expect(s.run("schedule", "list", "-o", "markdown"), exitDone, "# "+s.id()+"\n", "rotated: 3 verified")
	s.expect(s.keyturn("schedule show"), exitDone, "Rotates       cluster "+s.cluster.ID, "3 verified", record.LastRun.RunID, "ticket: CHG7", "Next run ")
	s.expect(s.keyturn("schedule show", "-o", "markdown"), exitDone, "# "+s.id()+"\n", "recentRuns:", "input:")
	for _, command := range [][]string{{"schedule", "list"}, {"schedule", "show", "--id", s.id()}} {
		rows, err := csv.NewReader(strings.NewReader(s.run(append(command, "-o", "csv")...).stdout)).ReadAll()
		require.NoError(t, err)
		assert.True(t, slices.ContainsFunc(rows, func(row []string) bool { return row[0] == s.id() && slices.Contains(row, "3 verified") }))
	}
	ids := s.run("__complete", "schedule", "show", "--id", "")
	s.expect(ids, exitDone, s.id())
}

func TestAFailedRunPausesTheSchedule(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 2)
	s.StartWorker()
	s.failPut(s.cluster.ShardIDs[1])
	s.expect(s.apply("--on-failure", "stop"), exitDone)
	s.expect(s.keyturn("schedule trigger"), exitDone)
	record := s.listed(s.id(), "the pause", func(r scheduleRecord) bool { return r.Paused && hasEnded(r) })
	assert.Equal(t, statusFailed, record.LastRun.Status, "record %+v, last run %+v", record, record.LastRun)
	assert.True(t, strings.HasPrefix(record.LastRun.Outcome, "PartialFailure: 2 of 3"), "record %+v, last run %+v", record, record.LastRun)
	assert.Contains(t, record.Note, "paused due to workflow failure", "record %+v, last run %+v", record, record.LastRun)
	for _, command := range [][]string{{"schedule", "list"}, {"schedule", "show", "--id", s.id()}} {
		s.expect(s.run(command...), exitDone, "paused by a failure: ", "; fix the cause, then run\n", "  keyturn schedule unpause --id "+s.id())
	}
	// Applying it again must not unpause it, nor forget why it is paused.
	s.expect(s.apply("--on-failure", "stop", "--note", "audited"), exitDone, "unchanged", "State         PAUSED: paused due to workflow failure")
	s.expect(s.keyturn("schedule pause", "--by", "erin"), exitDone, "is PAUSED: paused due to workflow failure")

	s.OM.ClearFaults()
	s.expect(s.keyturn("schedule trigger"), exitDone) // a paused one, too
	s.shown(s.id(), "the second run's end", func(r scheduleRecord) bool { return hasEnded(r) && r.LastRun.Outcome == "3 verified" })
	s.expect(s.keyturn("schedule unpause", "--by", "erin", "--reason", "fixed"), exitDone, "unpaused schedule "+s.id(), "it was PAUSED: paused due to workflow failure", "Next run ")
	s.shown(s.id(), "the end of the pause", func(r scheduleRecord) bool { return !r.Paused && r.Note == "unpaused by erin: fixed" })
	s.expect(s.keyturn("schedule unpause"), exitDone, "is active")
}

func TestADecisionPausesNoSchedule(t *testing.T) {
	for command, failed := range map[string]workflows.ErrorType{"reject": workflows.ErrorRejected, "abort": workflows.ErrorAborted} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, 1)
			s.StartWorker()
			s.expect(s.apply("--require-approval"), exitDone)
			s.expect(s.keyturn("schedule trigger"), exitDone)
			s.Await(s.id(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })
			s.expect(s.keyturn(command, "--by", "erin", "--reason", "freeze"), exitDone, command+": accepted", "schedule "+s.id()+" started this run; it stays active, next run ")
			record := s.listed(s.id(), "the run's end", hasEnded)
			assert.False(t, record.Paused, record.Note)
			assert.Equal(t, statusStopped, record.LastRun.Status)
			assert.True(t, strings.HasPrefix(record.LastRun.Outcome, string(failed)+": "), record.LastRun.Outcome)
			assert.NotContains(t, s.run("schedule", "list").stdout, "unpause --id "+s.id())
		})
	}
}

func TestAScheduleIsPausedAndDeleted(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.expect(s.apply(), exitDone)
	s.expect(s.keyturn("schedule pause", "--by", "erin", "--reason", "freeze"), exitDone, "paused schedule "+s.id()+"; it was active", "State         PAUSED: paused by erin: freeze")
	s.listed(s.id(), "the pause", func(r scheduleRecord) bool { return r.Paused && r.Note == "paused by erin: freeze" })
	s.expect(s.apply("--paused=false"), exitDone, "- paused: true\n+ paused: false", "- note: 'paused by erin: freeze'", "Next run ")
	s.expect(s.keyturn("schedule delete"), exitDone, "deleted schedule "+s.id(), "cluster "+s.cluster.ID, "at 04:00 on day 1, in January")
	eventually(t, "its absence from the list", func() bool {
		return !strings.Contains(s.run("schedule", "list", "-o", "csv").stdout, s.id())
	})
	s.expect(s.apply("--paused", "--note", "not yet"), exitDone, "created schedule", "State         PAUSED: not yet")
}

func TestASchedulesRunFindsTheClusterBusy(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.StartWorker()
	s.expect(s.apply(), exitDone)
	s.expect(s.keyturn("rotate", "--wait", "--require-approval", "--requested-by", "dana"), exitWaiting)
	s.expect(s.keyturn("schedule trigger"), exitFailed, "keyturn: ClusterBusy: ", s.id(), "keyturn watch --project")
	// Its time comes all the same.
	require.NoError(t, s.Temporal.ScheduleClient().GetHandle(t.Context(), s.id()).Trigger(t.Context(), client.ScheduleTriggerOptions{}))
	record := s.shown(s.id(), "the pause", func(r scheduleRecord) bool { return r.Paused && hasEnded(r) })
	assert.Equal(t, statusBusy, record.LastRun.Status, "last run %+v", record.LastRun)
	assert.True(t, strings.HasPrefix(record.LastRun.Outcome, "ClusterBusy: a rotation of this cluster"), "last run %+v", record.LastRun)
}

func TestARunThatIsHeldIsReportedSo(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.StartWorker()
	s.failPut(s.cluster.ShardIDs[0])
	s.expect(s.apply(), exitDone)
	s.expect(s.keyturn("schedule trigger"), exitDone)
	s.listed(s.id(), "the hold", func(r scheduleRecord) bool {
		return r.LastRun != nil && strings.Contains(r.LastRun.Outcome, "orders is held: ") && strings.Contains(r.LastRun.Outcome, "waiting for an operator")
	})
	s.expect(s.keyturn("schedule trigger"), exitFailed, "a run of schedule "+s.id()+" is already running", "keyturn watch --project")
	s.expect(s.keyturn("schedule delete"), exitDone, "its run continues: workflow ID scheduled-"+s.id())
}

func TestAScheduleOfTheWebUI(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.StartWorker()
	id := "Quarterly " + s.Connection
	s.deleteLater(id)
	input, err := json.Marshal(map[string]any{"connection": s.Connection, "projectId": s.cluster.ProjectID, "clusterId": s.cluster.ID, "concurrency": 2})
	require.NoError(t, err)
	s.create(id, workflows.RotateClusterType, json.RawMessage(input))
	record := s.listed(id, "the schedule in the list", isThere)
	want := "at 22:15 on Saturday, in March (cron 15 22 * 3 6); every 7d, offset 1h"
	assert.Equal(t, want, record.Times, "record %+v", record)
	assert.Equal(t, "UTC", record.TimeZone, "record %+v", record)
	assert.Contains(t, record.Subject, s.cluster.ID, "record %+v", record)
	assert.Equal(t, "365d", record.CatchUpWindow, "record %+v", record)
	s.expect(s.run("schedule", "trigger", "--id", id), exitDone, "triggered schedule "+id, "keyturn schedule show --id '"+id+"'")
	s.shown(id, "the run's end", func(r scheduleRecord) bool { return hasEnded(r) && r.LastRun.Outcome == "2 verified" })
	s.expect(s.keyturn("schedule apply", append([]string{"--id", id}, quarterly...)...), exitDone,
		"updated schedule "+id, "times: "+want, "+ times: at 04:00", "- catchUpWindow: 365d\n+ catchUpWindow: 1h", "+ pauseOnFailure: true", "-     concurrency: 2", "+ workflowId: scheduled-"+s.id())
	s.expect(s.keyturn("schedule apply", append([]string{"--id", id}, quarterly...)...), exitDone, "unchanged")
}

// create makes a schedule as others do.
func (s *commandLine) create(id, workflowType string, args ...any) {
	s.T.Helper()
	_, err := s.Temporal.ScheduleClient().Create(s.T.Context(), client.ScheduleOptions{
		ID: id,
		Spec: client.ScheduleSpec{
			Calendars: []client.ScheduleCalendarSpec{{
				Minute: []client.ScheduleRange{{Start: 15}}, Hour: []client.ScheduleRange{{Start: 22}}, Month: []client.ScheduleRange{{Start: 3}},
				DayOfWeek: []client.ScheduleRange{{Start: 6}},
			}},
			Intervals: []client.ScheduleIntervalSpec{{Every: 7 * 24 * time.Hour, Offset: time.Hour}},
		},
		Action: &client.ScheduleWorkflowAction{ID: "by-hand-" + s.Connection, Workflow: workflowType, TaskQueue: s.Connection, Args: args},
	})
	require.NoError(s.T, err)
}

func TestAScheduleWithAnInputThatDoesNotFit(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.StartWorker()
	for name, args := range map[string][]any{
		"none": nil, "two": {map[string]string{"projectId": s.cluster.ProjectID}, nil}, "text": {"rotate, please"}, "number": {7}, "null": {nil},
	} {
		id := name + "-" + s.Connection
		s.deleteLater(id)
		s.create(id, workflows.RotateClusterType, args...)
		s.expect(s.run("schedule", "show", "--id", id), exitDone, "the input does not name a cluster", "input:")
		s.expect(s.run("schedule", "trigger", "--id", id), exitDone)
		s.listed(id, "the run's failure", func(r scheduleRecord) bool {
			return hasEnded(r) && strings.HasPrefix(r.LastRun.Outcome, "InvalidInput: ")
		})
	}
}

func TestSchedulesThatAreNotThere(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	other := "backup-" + s.Connection
	s.deleteLater(other)
	s.create(other, "BackupEverything")
	for _, command := range []string{"show", "trigger", "pause", "unpause", "delete"} {
		missing := s.run("schedule", command, "--id", "nowhere")
		s.expect(missing, exitFailed, "keyturn: schedule nowhere does not exist in namespace")
		assert.Empty(t, missing.stdout)
		assert.Equal(t, 1, strings.Count(missing.stderr, "\n"))
		s.expect(s.run("schedule", command, "--id", other), exitFailed, `starts workflow type "BackupEverything", not a rotation`)
	}
	s.expect(s.keyturn("schedule apply", append([]string{"--id", other}, quarterly...)...), exitFailed, "not a rotation: use the temporal CLI")
	for _, command := range []string{"schedule show", "schedule delete"} {
		s.expect(s.keyturn(command), exitFailed, "schedule "+s.id()+" does not exist in namespace")
	}
	assert.Equal(t, exitDone, s.run("schedule", "list").code)
	assert.NotContains(t, s.run("schedule", "list").stdout, other)
	s.expect(s.run("schedule", "list", "--namespace", "nowhere"), exitFailed, `namespace "nowhere" does not exist`)
	s.expect(s.keyturn("schedule apply", append([]string{"--namespace", "nowhere"}, quarterly...)...), exitFailed, `namespace "nowhere" does not exist`)
}

// unreadable is a client to which one schedule cannot be described.
type unreadable struct {
	client.Client
	id string
}

func (c unreadable) ScheduleClient() client.ScheduleClient {
	return unreadableSchedule{c.Client.ScheduleClient(), c.id}
}

type unreadableSchedule struct {
	client.ScheduleClient
	id string
}

func (c unreadableSchedule) GetHandle(ctx context.Context, id string) client.ScheduleHandle {
	handle := c.ScheduleClient.GetHandle(ctx, id)
	if id == c.id {
		return unreadableHandle{handle}
	}
	return handle
}

type unreadableHandle struct{ client.ScheduleHandle }

func (unreadableHandle) Describe(context.Context) (*client.ScheduleDescription, error) {
	return nil, serviceerror.NewDeadlineExceeded("too slow")
}

func TestAScheduleThatCannotBeReadDoesNotHideTheOthers(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.expect(s.apply(), exitDone)
	broken := "broken-" + s.Connection
	s.deleteLater(broken)
	s.create(broken, workflows.RotateClusterType)
	s.listed(broken, "the schedules in the list", isThere)
	s.listed(s.id(), "the schedules in the list", isThere)

	records, err := (&session{Client: unreadable{s.Temporal, broken}, address: "temporal:7233", namespace: "default"}).scheduleRecords(t.Context())
	require.ErrorContains(t, err, "the list is not complete: cannot read schedule "+broken+": no answer from Temporal")
	ids := make([]string, len(records))
	for i, record := range records {
		ids[i] = record.ID
	}
	assert.Contains(t, ids, s.id())
	assert.NotContains(t, ids, broken)
}
