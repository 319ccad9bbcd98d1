package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"keyturn/workflows"
)

// maxPausedSchedules bounds the series of the schedules that failures have paused.
const maxPausedSchedules = 100

// scheduleWatch is what is remembered of schedules between two looks at them. It is
// of one goroutine.
type scheduleWatch struct {
	// settled are the schedules of which Temporal knows how their last run has ended,
	// by ID: that run.
	settled map[string]string
	// sent are the runs that have paused a schedule and whose event is on its way, or is
	// not sent any more: Temporal has forgotten the run.
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
		if entry.Paused && !workflows.IsPausedByFailure(entry.Paused, entry.Note) {
			continue
		}
		if last := lastRun(entry.RecentActions); !entry.Paused && m.schedules.settled[entry.ID] == last {
			settled[entry.ID] = last
			continue
		}
		described, err := temporal.ScheduleClient().GetHandle(ctx, entry.ID).Describe(ctx)
		switch {
		case ctx.Err() != nil:
			return paused, ctx.Err()
		case err != nil:
			continue // deleted meanwhile
		}
		action, isWorkflow := described.Schedule.Action.(*client.ScheduleWorkflowAction)
		isOurs := isWorkflow && action.TaskQueue == m.settings.taskQueue
		if len(described.Info.RunningWorkflows) == 0 || !isOurs {
			settled[entry.ID] = lastRun(described.Info.RecentActions)
		}
		state := described.Schedule.State // the list is late
		if isOurs && workflows.IsPausedByFailure(state.Paused, state.Note) {
			paused = append(paused, entry.ID)
			m.sendPaused(ctx, temporal, entry.ID, described)
		}
	}
	if err == nil {
		m.schedules.settled = settled
	}
	return paused, err
}

// watchSchedules only sends the events of paused schedules.
func (m *monitor) watchSchedules(ctx context.Context, temporal client.Client) bool {
	_, err := m.pausedSchedules(ctx, temporal)
	m.logSchedules(err)
	return err == nil
}

func (m *monitor) logSchedules(err error) {
	if err != nil && m.ctx.Err() == nil {
		m.logger.Debug("cannot list the schedules", "error", err)
	}
}

// lastRun is the newest run of a schedule; empty = it has started none.
func lastRun(actions []client.ScheduleActionResult) string {
	if len(actions) == 0 || actions[len(actions)-1].StartWorkflowResult == nil {
		return ""
	}
	return actions[len(actions)-1].StartWorkflowResult.FirstExecutionRunID
}

// pausingRun is the run that has failed and paused a schedule; nil = it is none of the
// recent ones. Later runs were started by hand.
func pausingRun(paused *client.ScheduleDescription) *client.ScheduleWorkflowExecution {
	for _, action := range paused.Info.RecentActions {
		if run := action.StartWorkflowResult; run != nil && workflows.HasPaused(paused.Schedule.State.Note, run.WorkflowID) {
			return run
		}
	}
	return nil
}

// sendPaused starts the delivery of the event of a paused schedule, once for each run
// that has paused it: each worker of the task queue sees the schedule, again and again,
// and Temporal keeps all but one of them from starting it. It does as long as it has the
// run, which closed before that.
func (m *monitor) sendPaused(ctx context.Context, temporal client.Client, id string, paused *client.ScheduleDescription) {
	run := pausingRun(paused)
	if m.settings.events == nil || run == nil || m.schedules.sent[run.FirstExecutionRunID] {
		return
	}
	err := m.startPaused(ctx, temporal, id, paused.Schedule.State.Note, run)
	var forgotten *serviceerror.NotFound
	if err != nil && !errors.As(err, &forgotten) {
		if m.ctx.Err() == nil {
			m.logger.Warn("cannot send that a schedule is paused", "schedule", id, "error", err)
		}
		return
	}
	if len(m.schedules.sent) >= maxPausedSchedules || m.schedules.sent == nil {
		m.schedules.sent = map[string]bool{}
	}
	m.schedules.sent[run.FirstExecutionRunID] = true
}

func (m *monitor) startPaused(ctx context.Context, temporal client.Client, id, note string, run *client.ScheduleWorkflowExecution) error {
	described, err := temporal.DescribeWorkflowExecution(ctx, run.WorkflowID, "") // the last run of its chain
	if err != nil {
		return err
	}
	at := time.Now()
	if closed := described.GetWorkflowExecutionInfo().GetCloseTime(); closed != nil {
		at = closed.AsTime()
	}
	event, err := workflows.SchedulePausedEvent(id, note, run.WorkflowID, run.FirstExecutionRunID, at)
	if err != nil {
		return err
	}
	return workflows.StartDelivery(ctx, temporal, m.settings.taskQueue, event)
}
