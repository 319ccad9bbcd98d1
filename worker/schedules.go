package main

import (
	"context"
	"slices"
	"time"

	"go.temporal.io/sdk/client"

	"keyturn/workflows"
)

// maxPausedSchedules bounds the series of the schedules that failures have paused.
const maxPausedSchedules = 100

// scheduleWatch is what is remembered of schedules between two looks at them. It is
// of refresh alone.
type scheduleWatch struct {
	// settled are the schedules of which Temporal knows how their last run has ended,
	// by ID: that run.
	settled map[string]string
	// sent are the IDs of the events whose delivery has started.
	sent map[string]bool
}

// pausedSchedules are the IDs of the schedules that a failure has paused and that start
// rotations on the task queue; the first ones where there are too many. For each, it
// starts the delivery of an event.
//
// Temporal looks whether a run of a schedule has failed when the next one is due, which
// may be in months, or when somebody asks about the schedule: so it is asked, from each
// run on until that has ended.
func (m *monitor) pausedSchedules(ctx context.Context, temporal client.Client) (paused []string, err error) {
	settled := map[string]string{}
	entries, err := temporal.ScheduleClient().List(ctx, client.ScheduleListOptions{})
	for err == nil && entries.HasNext() && len(paused) < maxPausedSchedules {
		var entry *client.ScheduleListEntry
		if entry, err = entries.Next(); err != nil {
			break
		}
		if !slices.Contains(workflows.RotationTypes, entry.WorkflowType.Name) {
			continue
		}
		if last := lastRun(entry.RecentActions); !entry.Paused && m.schedules.settled[entry.ID] == last {
			settled[entry.ID] = last
			continue
		} else if entry.Paused && !workflows.IsPausedByFailure(entry.Paused, entry.Note) {
			continue
		}
		described, err := temporal.ScheduleClient().GetHandle(ctx, entry.ID).Describe(ctx)
		if err != nil {
			continue // deleted meanwhile
		}
		action, isWorkflow := described.Schedule.Action.(*client.ScheduleWorkflowAction)
		if len(described.Info.RunningWorkflows) == 0 || !isWorkflow || action.TaskQueue != m.settings.taskQueue {
			settled[entry.ID] = lastRun(described.Info.RecentActions)
		}
		state := described.Schedule.State // the list is late
		if isWorkflow && action.TaskQueue == m.settings.taskQueue && workflows.IsPausedByFailure(state.Paused, state.Note) {
			paused = append(paused, entry.ID)
			m.sendPaused(ctx, temporal, entry.ID, described)
		}
	}
	if err == nil {
		m.schedules.settled = settled
	}
	return paused, err
}

// lastRun is the newest run of a schedule; empty = it has started none.
func lastRun(actions []client.ScheduleActionResult) string {
	if len(actions) == 0 || actions[len(actions)-1].StartWorkflowResult == nil {
		return ""
	}
	return actions[len(actions)-1].StartWorkflowResult.FirstExecutionRunID
}

// sendPaused starts the delivery of the event of a paused schedule, once for each run
// that has failed: each worker of the task queue sees the schedule, again and again,
// and Temporal keeps all but one of them from starting it.
func (m *monitor) sendPaused(ctx context.Context, temporal client.Client, id string, paused *client.ScheduleDescription) {
	recent := paused.Info.RecentActions
	if m.settings.events == nil || lastRun(recent) == "" {
		return
	}
	failed := recent[len(recent)-1].StartWorkflowResult
	event, err := workflows.SchedulePausedEvent(id, paused.Schedule.State.Note, failed.WorkflowID, failed.FirstExecutionRunID, time.Now())
	if m.schedules.sent[event.ID] {
		return
	}
	if err == nil {
		err = workflows.StartDelivery(ctx, temporal, m.settings.taskQueue, event)
	}
	if err != nil {
		if m.ctx.Err() == nil {
			m.logger.Warn("cannot send that a schedule is paused", "schedule", id, "error", err)
		}
		return
	}
	if len(m.schedules.sent) >= maxPausedSchedules || m.schedules.sent == nil {
		m.schedules.sent = map[string]bool{}
	}
	m.schedules.sent[event.ID] = true
}
