package ledgerentry

import (
	"errors"
	"fmt"
	"time"
)

// ErrInvalidRecord: a record lacks what every entry has. Retrying is of no use.
var ErrInvalidRecord = errors.New("invalid ledger record")

// ConflictError: an append has the key of an entry that says something else.
// Retrying does not help.
type ConflictError struct {
	// Existing is the entry that stays.
	Existing Entry
}

// Error names the existing entry.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("the ledger already has another entry with key %s: entry %d of chain %s (%s, recorded %s)",
		e.Existing.Key, e.Existing.Sequence, e.Existing.Chain, e.Existing.Source, e.Existing.RecordedAt.Format(time.RFC3339))
}

// IsRefused reports whether an error of an [Appender] stays, however often the record
// is appended again.
func IsRefused(err error) bool {
	var conflict *ConflictError
	return errors.As(err, &conflict) || errors.Is(err, ErrInvalidRecord)
}
