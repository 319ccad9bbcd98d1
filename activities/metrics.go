package activities

import (
	"time"

	"go.temporal.io/sdk/activity"

	"keyturn/opsmanager"
)

// RetriesMetric counts tries that are to be made again, by ErrorLabel. It is
// counted through the SDK's metrics handler, as the workflows' metrics are.
const RetriesMetric = "keyturn_retries_total"

// What is counted of the ledger.
const (
	// LedgerEntriesMetric counts records that the ledger has taken, by SourceLabel;
	// one that is repeated because its answer was lost counts again.
	LedgerEntriesMetric = "keyturn_ledger_entries_total"
	// LedgerFailuresMetric counts attempts to record that failed, by ErrorLabel.
	LedgerFailuresMetric = "keyturn_ledger_failures_total"
	// SourceLabel says who has recorded an entry.
	SourceLabel = "source"
)

// What is counted of events.
const (
	// EventFailuresMetric counts attempts to send an event that failed, by
	// EventTypeLabel.
	EventFailuresMetric = "keyturn_event_failures_total"
	// EventsEndedMetric counts events that were delivered or given up, by
	// EventTypeLabel and by their outcome: EventDelivered or EventUndelivered. The
	// workflow that delivers an event counts it.
	EventsEndedMetric = "keyturn_events_ended_total"
	// EventTypeLabel is an EventType.
	EventTypeLabel = "type"
	// EventDelivered: the receiver has accepted the event.
	EventDelivered = "delivered"
	// EventUndelivered: it has not, and the event is not sent again.
	EventUndelivered = "undelivered"
)

// ErrorLabel is the label that holds an error's type.
const ErrorLabel = "error"

// reportRetry counts and logs a try that is made again after a pause.
func (at *attempt) reportRetry(err *opsmanager.Error, pause time.Duration) {
	at.failedRequests.Add(1)
	m := classify(err)
	activity.GetMetricsHandler(at.ctx).WithTags(map[string]string{ErrorLabel: string(m.errorType)}).Counter(RetriesMetric).Inc(1)
	activity.GetLogger(at.ctx).Warn("retrying", "pause", pause, "error", m.errorType, "message", err.Error())
}
