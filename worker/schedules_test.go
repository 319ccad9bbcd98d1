package main

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"keyturn/activities"
	"keyturn/internal/events"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

const pausedByFailure = "paused due to workflow failure: rotate-cluster: 1 of 3 targets verified"

// addSchedule adds a schedule that starts nothing; one with a note is paused.
func addSchedule(s fixture.Server, id, taskQueue, workflowType, note string) string {
	s.Helper()
	handle, err := s.Temporal.ScheduleClient().Create(s.Context(), client.ScheduleOptions{
		ID: id + "-" + s.Project, Spec: client.ScheduleSpec{}, Paused: note != "", Note: note,
		Action: &client.ScheduleWorkflowAction{ID: "scheduled-" + id + s.Project, Workflow: workflowType, TaskQueue: taskQueue},
	})
	require.NoError(s, err)
	s.Cleanup(func() { _ = handle.Delete(context.Background()) })
	return handle.GetID()
}

func TestSchedulesThatFailuresHavePausedAreCounted(t *testing.T) {
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	want := []string{
		addSchedule(s, "failed", s.TaskQueue, workflows.RotateClusterType, pausedByFailure),
		addSchedule(s, "timed-out", s.TaskQueue, workflows.RotateFleetType, "paused due to workflow timeout: rotate-fleet"),
	}
	addSchedule(s, "active", s.TaskQueue, workflows.RotateClusterType, "")
	addSchedule(s, "paused-by-erin", s.TaskQueue, workflows.RotateClusterType, "paused by erin: freeze")
	addSchedule(s, "of-others", "another-queue", workflows.RotateClusterType, pausedByFailure)
	addSchedule(s, "of-another-type", s.TaskQueue, "Backup", pausedByFailure)

	m := &monitor{settings: settings{monitoring: defaultTimes, taskQueue: s.TaskQueue}, ctx: t.Context(), logger: slog.New(slog.DiscardHandler)}
	waiting.Until(t, func() bool { // Temporal's list is late
		listed := 0
		entries, err := s.Temporal.ScheduleClient().List(t.Context(), client.ScheduleListOptions{})
		for err == nil && entries.HasNext() {
			var entry *client.ScheduleListEntry
			if entry, err = entries.Next(); err == nil && strings.HasSuffix(entry.ID, s.Project) {
				listed++
			}
		}
		return listed == 6
	})
	require.True(t, m.refresh(t.Context(), s.Temporal))
	found, known := m.inTemporal()
	assert.True(t, known)
	assert.ElementsMatch(t, want, found.PausedSchedules)
}

// failingSchedule adds a schedule whose run has failed, and which is therefore paused.
func failingSchedule(s fixture.Server) client.ScheduleHandle {
	s.Helper()
	return scheduleNow(s, struct{}{})
}

// scheduleNow adds a schedule that runs at once, and never again.
func scheduleNow(s fixture.Server, input any) client.ScheduleHandle {
	s.Helper()
	handle, err := s.Temporal.ScheduleClient().Create(s.Context(), client.ScheduleOptions{
		ID: "failing-" + s.Project, Spec: client.ScheduleSpec{}, PauseOnFailure: true, TriggerImmediately: true,
		Action: &client.ScheduleWorkflowAction{ID: "scheduled-" + s.Project, Workflow: workflows.RotateClusterType, TaskQueue: s.TaskQueue, Args: []any{input}},
	})
	require.NoError(s, err)
	s.Cleanup(func() { _ = handle.Delete(context.Background()) })
	return handle
}

// sendingMonitor is that of a worker that has a receiver of events.
func sendingMonitor(s fixture.Server) *monitor {
	return &monitor{settings: settings{monitoring: defaultTimes, taskQueue: s.TaskQueue, events: s.Events.(*events.Sender)}, ctx: s.Context(), logger: slog.New(slog.DiscardHandler)}
}

// awaitPaused waits until a monitor has found the paused schedule, and has looked twice.
func awaitPaused(s fixture.Server, m *monitor, id string) {
	s.Helper()
	waiting.Until(s, func() bool { // Temporal's list is late
		m.refresh(s.Context(), s.Temporal)
		found, _ := m.inTemporal()
		return slices.Contains(found.PausedSchedules, id)
	}, "the schedule is not paused")
	m.refresh(s.Context(), s.Temporal)
}

// starts is a Temporal that remembers the IDs of the workflows that it was to start.
type starts struct {
	client.Client
	ids map[string]bool
}

func (s starts) ExecuteWorkflow(ctx context.Context, options client.StartWorkflowOptions, workflow any, arguments ...any) (client.WorkflowRun, error) {
	s.ids[options.ID] = true
	return s.Client.ExecuteWorkflow(ctx, options, workflow, arguments...)
}

// A run that is open when it is looked at first is looked at until it has ended.
func TestARunThatFailsLaterPausesItsSchedule(t *testing.T) {
	s, receiver := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{}).ReceivingEvents()
	s.StartWorker()
	set := s.OM.AddReplicaSet(s.Project, "orders")
	s.BlockRotation(set.ID)
	input := s.Input(set.ID)
	input.OnFailure = workflows.OnFailureStop
	handle := scheduleNow(s, input)
	m := sendingMonitor(s)
	waiting.UntilAnswer(t, func() (bool, error) { // the list says that it has started a run
		m.refresh(t.Context(), s.Temporal)
		entries, err := s.Temporal.ScheduleClient().List(t.Context(), client.ScheduleListOptions{})
		for err == nil && entries.HasNext() {
			var entry *client.ScheduleListEntry
			if entry, err = entries.Next(); err == nil && entry.ID == handle.GetID() && len(entry.RecentActions) > 0 {
				return true, nil
			}
		}
		return false, err
	}, "the schedule has started nothing")
	m.refresh(t.Context(), s.Temporal)
	s.OM.ClearFaults()
	s.OM.Inject(simulator.AccessListRefusal(http.MethodPut, set.ID))
	awaitPaused(s, m, handle.GetID())
	assert.Contains(t, eventTypes(s.AwaitEvents(receiver, 2)), string(activities.EventSchedulePaused))
}

// eventTypes are the types of events, in their order.
func eventTypes(received []event.Event) (types []string) {
	for _, e := range received {
		types = append(types, e.Type())
	}
	return types
}

// Each worker of the task queue sees that the schedule is paused, again and again. The
// event is one, and names the run that has failed.
func TestAPausedScheduleIsOneEvent(t *testing.T) {
	s, receiver := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{}).ReceivingEvents()
	s.StartWorker()
	handle := failingSchedule(s)
	temporal := starts{s.Temporal, map[string]bool{}}
	s.Temporal = temporal
	for range 2 {
		awaitPaused(s, sendingMonitor(s), handle.GetID())
	}
	received := s.AwaitEvents(receiver, 1)
	require.Len(t, received, 1)
	assert.Equal(t, map[string]bool{received[0].ID(): true}, temporal.ids)
	assert.Equal(t, string(activities.EventSchedulePaused), received[0].Type())
	assert.Equal(t, handle.GetID(), received[0].Subject())
	assert.Contains(t, string(received[0].Data()), "/workflows/scheduled-"+s.Project)
	assert.Contains(t, string(received[0].Data()), `"note":"paused due to workflow failure`)
	failed, err := s.Temporal.DescribeWorkflowExecution(t.Context(), strings.TrimPrefix(received[0].Source(), "/namespaces/"+s.TemporalServer.Namespace+"/workflows/"), "")
	require.NoError(t, err)
	assert.Equal(t, failed.GetWorkflowExecutionInfo().GetCloseTime().AsTime().Truncate(time.Millisecond), received[0].Time())
}

// A run that somebody starts while the schedule is paused is not why it is paused.
func TestARunOfAPausedScheduleIsNoEvent(t *testing.T) {
	s, receiver := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{}).ReceivingEvents()
	s.StartWorker()
	handle := failingSchedule(s)
	m := sendingMonitor(s)
	awaitPaused(s, m, handle.GetID())
	waiting.UntilAnswer(t, func() (bool, error) { // workflow IDs have the second
		if err := handle.Trigger(t.Context(), client.ScheduleTriggerOptions{}); err != nil {
			return false, err
		}
		described, err := handle.Describe(t.Context())
		return err == nil && len(described.Info.RecentActions) > 1, err
	}, "the schedule has started no second run")
	awaitPaused(s, m, handle.GetID())
	assert.Len(t, m.schedules.sent, 1)
	assert.Len(t, s.AwaitEvents(receiver, 1), 1)
}

// forgetful is a Temporal that has removed closed workflows after their retention
// period.
type forgetful struct{ starts }

func (forgetful) DescribeWorkflowExecution(context.Context, string, string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	return nil, serviceerror.NewNotFound("workflow execution not found")
}

// Temporal forgets the delivery of an event after its retention period. A worker that
// starts later does not send the event again.
func TestAScheduleThatHasLongBeenPausedIsNoEvent(t *testing.T) {
	s, receiver := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{}).ReceivingEvents()
	s.StartWorker()
	handle := failingSchedule(s)
	temporal := forgetful{starts{s.Temporal, map[string]bool{}}}
	s.Temporal = temporal
	awaitPaused(s, sendingMonitor(s), handle.GetID())
	assert.Empty(t, temporal.ids)
	assert.Empty(t, receiver.Received())
}

// Nobody scrapes a worker that does not listen. Its events are sent all the same.
func TestAWorkerThatDoesNotListenSendsPausedSchedules(t *testing.T) {
	s, receiver := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{}).ReceivingEvents()
	env := monitoredEnvironment(s)
	delete(env, listenVariable)
	maps.Copy(env, eventSettings(t, receiver))
	startMonitored(t, env, oftenLooking)
	failingSchedule(s)
	assert.Equal(t, string(activities.EventSchedulePaused), s.AwaitEvents(receiver, 1)[0].Type())
}

// slowSchedules is a Temporal whose answers about single schedules take all the time
// that there is.
type slowSchedules struct {
	client.Client
	timeIsUp func()
}

type slowScheduleClient struct {
	client.ScheduleClient
	timeIsUp func()
}

type slowSchedule struct {
	client.ScheduleHandle
	timeIsUp func()
}

func (s slowSchedules) ScheduleClient() client.ScheduleClient {
	return slowScheduleClient{s.Client.ScheduleClient(), s.timeIsUp}
}

func (s slowScheduleClient) GetHandle(ctx context.Context, id string) client.ScheduleHandle {
	return slowSchedule{s.ScheduleClient.GetHandle(ctx, id), s.timeIsUp}
}

func (slow slowSchedule) Describe(ctx context.Context) (*client.ScheduleDescription, error) {
	slow.timeIsUp()
	return nil, ctx.Err()
}

// Schedules must not take the time in which the open rotations are counted.
func TestOpenRotationsAreCountedBesideSlowSchedules(t *testing.T) {
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	s.StartWorker()
	handle := failingSchedule(s)
	m := &monitor{settings: settings{monitoring: defaultTimes, taskQueue: s.TaskQueue}, ctx: t.Context(), logger: slog.New(slog.DiscardHandler)}
	awaitPaused(s, m, handle.GetID())
	input := s.Input(s.OM.AddReplicaSet(s.Project, "orders").ID)
	input.RequireApproval = true
	run := s.Start(input)
	s.Await(run.GetID(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })
	waiting.Until(t, func() bool { // Temporal's list is late
		m.refresh(t.Context(), s.Temporal)
		found, _ := m.inTemporal()
		return found.Open[string(workflows.PhaseAwaitingApproval)].Count == 1
	})
	limited, timeIsUp := context.WithCancel(t.Context())
	m.refresh(limited, slowSchedules{s.Temporal, timeIsUp})
	found, _ := m.inTemporal()
	assert.Equal(t, 1, found.Open[string(workflows.PhaseAwaitingApproval)].Count)
}
