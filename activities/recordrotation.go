package activities

import (
	"context"
	"fmt"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"keyturn/internal/ledgerentry"
	"keyturn/internal/version"
)

// Types of the errors of RecordRotation. No rotation fails with them.
const (
	// ErrorLedgerUnavailable: the ledger cannot be reached or written now.
	// Retryable.
	ErrorLedgerUnavailable ErrorType = "LedgerUnavailable"
	// ErrorLedgerRefused: the ledger refuses this record for good, because it is
	// incomplete or differs from the entry that the ledger has for the rotation.
	// Non-retryable.
	ErrorLedgerRefused ErrorType = "LedgerRefused"
)

// RecordRotationInput has the record of a rotation that has ended.
type RecordRotationInput struct {
	// Record lacks only the worker's version.
	Record ledgerentry.Record `json:"record"`
}

// RecordRotationResult says what became of the record.
type RecordRotationResult struct {
	// Key is the record's.
	Key string `json:"key"`
	// NoLedger: the worker has no ledger, and nothing was recorded.
	NoLedger bool `json:"noLedger,omitempty"`
	// Chain and Sequence name the entry.
	Chain    string `json:"chain,omitempty"`
	Sequence int64  `json:"sequence,omitempty"` // see Chain
	// SendsEvents: the worker has a receiver of events.
	SendsEvents bool `json:"sendsEvents,omitempty"`
}

// RecordRotation records the end of a rotation in the ledger, once, however often
// it is repeated. One attempt tries once: Temporal retries it.
func (a *Activities) RecordRotation(ctx context.Context, in RecordRotationInput) (RecordRotationResult, error) {
	result := RecordRotationResult{Key: in.Record.Key, SendsEvents: a.Events != nil}
	if a.Ledger == nil {
		result.NoLedger = true
		return result, nil
	}
	record := in.Record
	record.WorkerVersion = version.String()
	metrics := activity.GetMetricsHandler(ctx)
	entry, err := a.Ledger.Append(ctx, record)
	if err != nil {
		errorType, failure := ledgerFailure(err)
		metrics.WithTags(map[string]string{ErrorLabel: string(errorType)}).Counter(LedgerFailuresMetric).Inc(1)
		return RecordRotationResult{}, failure
	}
	metrics.WithTags(map[string]string{SourceLabel: string(entry.Source)}).Counter(LedgerEntriesMetric).Inc(1)
	result.Chain, result.Sequence = entry.Chain, entry.Sequence
	return result, nil
}

// ledgerFailure says whether another attempt may help, and what to do.
func ledgerFailure(err error) (ErrorType, error) {
	if ledgerentry.IsRefused(err) {
		return ErrorLedgerRefused, permanent(ErrorLedgerRefused, "%v; the rotation closes without this entry; its records are in Temporal until their retention ends", err)
	}
	return ErrorLedgerUnavailable, temporal.NewApplicationError(fmt.Sprintf("%v; check the database, and the worker's settings of the ledger", err), string(ErrorLedgerUnavailable))
}
