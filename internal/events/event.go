// Package events sends events to the receiver that the worker is configured with:
// as CloudEvents, signed by the Standard Webhooks scheme.
package events

import (
	"encoding/json"
	"time"
)

// Event is something that has happened to a workflow.
type Event struct {
	// ID is the same whenever the event is sent again. Required.
	ID string
	// Type is the CloudEvents type. Required.
	Type string
	// Time is when it happened.
	Time time.Time
	// Subject is what it happened to, within the workflow.
	Subject string
	// Namespace, WorkflowID and RunID name the workflow run. Required.
	Namespace, WorkflowID, RunID string
	// Data is a JSON object. Required.
	Data json.RawMessage
}

// Error is why an event is not known to be delivered. Sending it again may help. The
// error contains no secret, nothing of the receiver's URL but scheme and host, and
// nothing of the receiver's body.
type Error struct {
	// Problem says what the receiver answered, and which setting to check.
	Problem string
	// RetryAfter is how long the receiver asks to wait; 0 = it does not.
	RetryAfter time.Duration
}

// Error returns the problem.
func (e *Error) Error() string { return e.Problem }
