package workflows

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/internal/ellipsis"
)

// DeliverEventType is the workflow that delivers one event. Rotations start it and do
// not wait for it.
const DeliverEventType = "DeliverEvent"

const (
	// eventLifetime is how long the delivery of an event is retried.
	eventLifetime = 24 * time.Hour
	// eventTimeout limits one attempt.
	eventTimeout = 30 * time.Second
	// maxEventRecords limits the records in an event's data, in bytes of JSON. Receivers
	// commonly take some 100 kB.
	maxEventRecords = 16_000
)

// eventRetries leave a receiver time to recover, and notice soon that it has.
var eventRetries = temporal.RetryPolicy{
	InitialInterval:    5 * time.Second,
	BackoffCoefficient: 2,
	MaximumInterval:    5 * time.Minute,
}

// eventPriority is below that of rotations, and of a fleet's, for which the task queue
// and the workers have limits.
var eventPriority = temporal.Priority{PriorityKey: 5}

// DeliverEvent delivers an event to the receiver that the worker is configured with.
// It retries for a day.
func DeliverEvent(ctx workflow.Context, event activities.SendEventInput) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		Summary: shorten("send " + string(event.Type)), StartToCloseTimeout: eventTimeout, ScheduleToCloseTimeout: eventLifetime, RetryPolicy: &eventRetries,
	})
	var sent activities.SendEventResult
	err := workflow.ExecuteActivity(ctx, activities.SendEventName, event).Get(ctx, &sent)
	countEvent(ctx, event.Type, sent, err)
	return err
}

// SchedulePausedEvent is the event of a schedule that Temporal has paused because this
// run failed. note is the schedule's. Its ID is the same whoever makes it.
//
// Nothing of it is encoded by a workflow; workflowcheck distrusts encoding/json.
//
//workflowcheck:ignore
func SchedulePausedEvent(scheduleID, note, workflowID, runID string, at time.Time) (activities.SendEventInput, error) {
	data, err := json.Marshal(map[string]string{"scheduleId": scheduleID, "note": note})
	return activities.SendEventInput{
		ID: eventID(activities.EventSchedulePaused, runID), Type: activities.EventSchedulePaused,
		Time: at.UTC().Truncate(time.Millisecond), Subject: scheduleID, WorkflowID: workflowID, RunID: runID, Data: data,
	}, err
}

// StartDelivery starts the delivery of an event that no workflow sends, unless Temporal
// has one with its ID.
func StartDelivery(ctx context.Context, temporal client.Client, taskQueue string, event activities.SendEventInput) error {
	_, err := temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: event.ID, TaskQueue: taskQueue, StaticSummary: deliverySummary(event),
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE, WorkflowExecutionErrorWhenAlreadyStarted: true, Priority: eventPriority,
	}, DeliverEventType, event)
	var isKnown *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &isKnown) {
		return nil
	}
	return err
}

func deliverySummary(event activities.SendEventInput) string {
	return shorten("Deliver " + string(event.Type) + " about " + event.Subject)
}

// sendEvent starts the delivery of an event about this workflow. The returned future
// is ready when Temporal has started it.
func sendEvent(ctx workflow.Context, eventType activities.EventType, subject string, data json.RawMessage) workflow.Future {
	info := workflow.GetInfo(ctx)
	now := timestamp(ctx)
	event := activities.SendEventInput{
		// No run has two events of a type in one millisecond.
		ID: eventID(eventType, info.WorkflowExecution.RunID, strconv.FormatInt(now.UnixMilli(), 10)), Type: eventType, Time: now, Subject: subject,
		WorkflowID: info.WorkflowExecution.ID, RunID: info.WorkflowExecution.RunID, Data: data,
	}
	ctx, _ = workflow.NewDisconnectedContext(ctx) // an event is about what has happened
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: event.ID, StaticSummary: deliverySummary(event), ParentClosePolicy: parentClosePolicy, Priority: eventPriority,
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
	})
	return workflow.ExecuteChildWorkflow(ctx, DeliverEventType, event).GetChildWorkflowExecution()
}

// eventID names an event by its type and by what it is about, such as
// deliver-event:rotation-held:RUN-ID:TIME.
func eventID(eventType activities.EventType, about ...string) string {
	name := strings.ReplaceAll(strings.TrimPrefix(string(eventType), "keyturn."), ".", "-")
	return strings.Join(append([]string{"deliver-event", name}, about...), ":")
}

// sendsEvents is false in histories whose first event would have been due when a
// worker ran them that knows no events.
func sendsEvents(ctx workflow.Context) bool {
	return workflow.GetVersion(ctx, "send-events", workflow.DefaultVersion, 1) == 1
}

// sendWaiting sends that the rotation has begun to wait for a person. Nothing waits
// for that but a continue-as-new: Temporal starts no child of a run that has closed.
func (r *rotation) sendWaiting(ctx workflow.Context, eventType activities.EventType) {
	if !r.sendsEvents || !sendsEvents(ctx) {
		return
	}
	started := sendEvent(ctx, eventType, r.subject(ctx), eventData(r.kind.eventProgress(), nil))
	r.startingEvents++
	workflow.Go(ctx, func(ctx workflow.Context) {
		awaitDelivery(ctx, started)
		r.startingEvents--
		if r.draining {
			r.changed(ctx)
		}
	})
}

// sendEnd sends how the rotation has ended.
func (r *rotation) sendEnd(ctx workflow.Context, err error) {
	if r.settings.DryRun || workflow.IsContinueAsNewError(err) || !r.sendsEvents || r.isLeftOut(ctx) || !sendsEvents(ctx) {
		return
	}
	eventType := activities.EventRotationCompleted
	switch {
	case ErrorTypeOf(err) == ErrorAborted:
		eventType = activities.EventRotationAborted
	case err != nil:
		eventType = activities.EventRotationFailed
	}
	awaitDelivery(ctx, sendEvent(ctx, eventType, r.subject(ctx), eventData(r.kind.eventProgress(), err)))
}

// isLeftOut reports whether a fleet counts the rotation among those that it leaves
// out: it has an event of its own. A project that is gone may count as failed.
func (r *rotation) isLeftOut(ctx workflow.Context) bool {
	info := workflow.GetInfo(ctx)
	isOfFleet := r.fleetID != "" || info.ParentWorkflowExecution != nil && info.Priority.PriorityKey == fleetPriority
	_, isCluster := r.kind.(*clusterRotation)
	return isOfFleet && (r.notEncrypted || r.isGone && isCluster)
}

// subject is what an event is about.
func (r *rotation) subject(ctx workflow.Context) string {
	memo := r.kind.newMemo()
	return cmp.Or(memo.ClusterID, memo.ProjectID, workflow.GetInfo(ctx).WorkflowExecution.ID)
}

// sendEnd is that of a rotation.
func (f *fleet) sendEnd(ctx workflow.Context, err error) {
	if f.input.Rotation.DryRun || workflow.IsContinueAsNewError(err) || !f.sendsEvents || !sendsEvents(ctx) {
		return
	}
	eventType := activities.EventFleetCompleted
	if err != nil {
		eventType = activities.EventFleetFailed
	}
	progress := f.progress()
	progress.fit(maxEventRecords)
	awaitDelivery(ctx, sendEvent(ctx, eventType, workflow.GetInfo(ctx).WorkflowExecution.ID, eventData(progress, err)))
}

// awaitDelivery waits until Temporal has started the delivery, before the workflow that
// it is a child of closes. It fails only if there is such a delivery.
func awaitDelivery(ctx workflow.Context, started workflow.Future) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	_ = started.Get(ctx, nil)
}

func (r *clusterRotation) eventProgress() any {
	p := r.progress()
	p.Targets = nil
	p.fit(maxEventRecords)
	return p
}

func (r *deploymentRotation) eventProgress() any {
	p := r.progress()
	p.Targets, p.ReplicaSets = nil, nil
	p.fit(maxEventRecords)
	return p
}

// eventData is the data of an event: the progress without its lists of targets and, of
// a rotation that has failed, the error.
//
// It depends on nothing but its input; workflowcheck distrusts encoding/json.
//
//workflowcheck:ignore
func eventData(progress any, failed error) json.RawMessage {
	encoded, err := json.Marshal(progress)
	fields := map[string]json.RawMessage{}
	if err == nil {
		err = json.Unmarshal(encoded, &fields)
	}
	delete(fields, "targets")
	delete(fields, "replicaSets")
	if failed != nil && err == nil {
		failure := targetErrorOf(failed)
		failure.Message = ellipsis.Cut(failure.Message, maxText)
		fields["error"], err = json.Marshal(failure)
	}
	if err == nil {
		encoded, err = json.Marshal(fields)
	}
	if err != nil {
		return json.RawMessage("{}")
	}
	return encoded
}
