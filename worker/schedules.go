package main

import (
	"context"
	"slices"

	"go.temporal.io/sdk/client"

	"keyturn/workflows"
)

// maxPausedSchedules bounds the series of the schedules that failures have paused.
const maxPausedSchedules = 100

// pausedSchedules are the IDs of the schedules that a failure has paused and that start
// rotations on the task queue; the first ones where there are too many.
func (m *monitor) pausedSchedules(ctx context.Context, temporal client.Client) (paused []string, err error) {
	entries, err := temporal.ScheduleClient().List(ctx, client.ScheduleListOptions{})
	for err == nil && entries.HasNext() && len(paused) < maxPausedSchedules {
		var entry *client.ScheduleListEntry
		if entry, err = entries.Next(); err != nil {
			break
		}
		if !workflows.IsPausedByFailure(entry.Paused, entry.Note) || !slices.Contains(workflows.RotationTypes, entry.WorkflowType.Name) {
			continue
		}
		described, err := temporal.ScheduleClient().GetHandle(ctx, entry.ID).Describe(ctx)
		if err != nil {
			continue // deleted meanwhile
		}
		action, isWorkflow := described.Schedule.Action.(*client.ScheduleWorkflowAction)
		state := described.Schedule.State // the list is late
		if isWorkflow && action.TaskQueue == m.settings.taskQueue && workflows.IsPausedByFailure(state.Paused, state.Note) {
			paused = append(paused, entry.ID)
		}
	}
	return paused, err
}
