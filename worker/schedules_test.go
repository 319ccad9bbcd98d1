package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

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
