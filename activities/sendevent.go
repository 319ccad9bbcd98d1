package activities

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"keyturn/internal/events"
)

// ErrorEventUndelivered: the receiver of events has not accepted the event, or its
// answer was lost. Always retryable: an operator may correct the receiver or the
// settings. No rotation fails with it.
const ErrorEventUndelivered ErrorType = "EventUndelivered"

// EventType is the CloudEvents type of an event.
type EventType string

// The types of events.
const (
	EventRotationAwaitingApproval EventType = "keyturn.rotation.awaiting-approval" // it waits for approval
	EventRotationHeld             EventType = "keyturn.rotation.held"              // targets have failed, and it waits for an operator
	EventRotationCompleted        EventType = "keyturn.rotation.completed"         // it has ended without a failure
	EventRotationFailed           EventType = "keyturn.rotation.failed"            // it has failed
	EventRotationAborted          EventType = "keyturn.rotation.aborted"           // an operator, or a cancellation, has ended it

	EventFleetCompleted EventType = "keyturn.fleet.completed" // a fleet rotation has ended without a failure
	EventFleetFailed    EventType = "keyturn.fleet.failed"    // a fleet rotation has failed

	EventSchedulePaused EventType = "keyturn.schedule.paused" // a failed run has paused the schedule
)

// EventTypes lists every type in the constants above.
var EventTypes = []EventType{
	EventRotationAwaitingApproval, EventRotationHeld, EventRotationCompleted, EventRotationFailed, EventRotationAborted,
	EventFleetCompleted, EventFleetFailed, EventSchedulePaused,
}

// EventSender sends events to the receiver.
type EventSender interface {
	// Send sends an event once. An [*events.Error] says whether the receiver asks for a
	// pause before the next attempt.
	Send(ctx context.Context, event events.Event) error
}

// SendEventInput is an event.
type SendEventInput struct {
	// ID is the event's, the same in each attempt.
	ID string `json:"id"`
	// Type is the event's.
	Type EventType `json:"type"`
	// Time is when it happened.
	Time time.Time `json:"time"`
	// Subject is what it is about, for example a cluster's ID.
	Subject string `json:"subject"`
	// WorkflowID and RunID name the workflow that the event is about.
	WorkflowID string `json:"workflowId"`
	RunID      string `json:"runId"` // see WorkflowID
	// Data is a JSON object. The worker adds "url", the address of the workflow's run
	// in the Web UI, if it knows that of the Web UI.
	Data json.RawMessage `json:"data"`
}

// SendEventResult says what became of the event.
type SendEventResult struct {
	// NoReceiver: the worker sends no events, and nothing was sent.
	NoReceiver bool `json:"noReceiver,omitempty"`
}

// SendEvent sends an event to the receiver that the worker is configured with. One
// attempt sends it once at most: Temporal retries it.
func (a *Activities) SendEvent(ctx context.Context, in SendEventInput) (SendEventResult, error) {
	if a.Events == nil {
		return SendEventResult{NoReceiver: true}, nil
	}
	err := a.Events.Send(ctx, events.Event{
		ID: in.ID, Type: string(in.Type), Time: in.Time, Subject: in.Subject,
		Namespace: activity.GetInfo(ctx).Namespace, WorkflowID: in.WorkflowID, RunID: in.RunID, Data: in.Data,
	})
	if err == nil {
		return SendEventResult{}, nil
	}
	activity.GetMetricsHandler(ctx).WithTags(map[string]string{EventTypeLabel: string(in.Type)}).Counter(EventFailuresMetric).Inc(1)
	return SendEventResult{}, eventFailure(err)
}

// eventFailure leaves the time of the next attempt to the retry policy unless the
// receiver has asked for one.
func eventFailure(err error) error {
	var options temporal.ApplicationErrorOptions
	var undelivered *events.Error
	if errors.As(err, &undelivered) && undelivered.RetryAfter > 0 {
		options.NextRetryDelay = undelivered.RetryAfter
	}
	return temporal.NewApplicationErrorWithOptions(err.Error(), string(ErrorEventUndelivered), options)
}
