package ledger

import (
	"context"

	"keyturn/internal/ledgerentry"
)

// Handle opens a ledger when it is first needed, and keeps it open: a program
// may start while the database is away. Its methods may be called concurrently.
type Handle struct {
	settings Settings
	// opened holds the ledger, nil until it is open; whoever has received it opens.
	opened chan *Ledger
}

// NewHandle returns the handle of a ledger that is configured.
func NewHandle(s Settings) *Handle {
	h := &Handle{settings: s, opened: make(chan *Ledger, 1)}
	h.opened <- nil
	return h
}

// Open returns the ledger. The caller does not close it. Errors as of [Open], and
// ctx's.
func (h *Handle) Open(ctx context.Context) (ledger *Ledger, err error) {
	select {
	case ledger = <-h.opened:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { h.opened <- ledger }()
	if ledger == nil {
		ledger, err = h.settings.Open(ctx)
	}
	return ledger, err
}

// Append is [Ledger.Append]; it opens the ledger if necessary.
func (h *Handle) Append(ctx context.Context, record ledgerentry.Record) (ledgerentry.Entry, error) {
	ledger, err := h.Open(ctx)
	if err != nil {
		return ledgerentry.Entry{}, err
	}
	return ledger.Append(ctx, record)
}

// Close closes the ledger if it was opened. Open would open it again.
func (h *Handle) Close() error {
	ledger := <-h.opened
	defer func() { h.opened <- nil }()
	if ledger == nil {
		return nil
	}
	return ledger.Close()
}
