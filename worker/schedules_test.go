package main

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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

// Each worker of the task queue sees that the schedule is paused, again and again. The
// event is one, and names the run that has failed.
func TestAPausedScheduleIsOneEvent(t *testing.T) {
	s, receiver := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{}).ReceivingEvents()
	s.StartWorker()
	handle, err := s.Temporal.ScheduleClient().Create(t.Context(), client.ScheduleOptions{
		ID: "failing-" + s.Project, Spec: client.ScheduleSpec{}, PauseOnFailure: true, TriggerImmediately: true,
		Action: &client.ScheduleWorkflowAction{ID: "scheduled-" + s.Project, Workflow: workflows.RotateClusterType, TaskQueue: s.TaskQueue, Args: []any{struct{}{}}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = handle.Delete(context.Background()) })

	monitors := make([]*monitor, 2)
	for i := range monitors {
		monitors[i] = &monitor{settings: settings{monitoring: defaultTimes, taskQueue: s.TaskQueue, events: s.Events.(*events.Sender)}, ctx: t.Context(), logger: slog.New(slog.DiscardHandler)}
	}
	for _, m := range monitors {
		waiting.Until(t, func() bool { // Temporal's list is late
			m.refresh(t.Context(), s.Temporal)
			found, _ := m.inTemporal()
			return slices.Contains(found.PausedSchedules, handle.GetID())
		}, "the schedule is not paused")
		m.refresh(t.Context(), s.Temporal)
	}
	received := s.AwaitEvents(receiver, 1)
	require.Len(t, received, 1)
	assert.Equal(t, string(activities.EventSchedulePaused), received[0].Type())
	assert.Equal(t, handle.GetID(), received[0].Subject())
	assert.Contains(t, string(received[0].Data()), "/workflows/scheduled-"+s.Project)
	assert.Contains(t, string(received[0].Data()), `"note":"paused due to workflow failure`)
}
