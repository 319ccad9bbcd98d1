package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"keyturn/internal/ledgerentry"
)

const (
	// maxContendedAttempts of a transaction that fails because of others.
	maxContendedAttempts = 20
	// minContentionDelay before a repetition; it doubles up to
	// maxContentionDelay, and each is drawn from half of it to all of it.
	minContentionDelay = 5 * time.Millisecond
	maxContentionDelay = 500 * time.Millisecond
)

// Append adds a record to its chain, exactly once for each key: where the ledger
// has the key already, Append returns that entry and adds nothing. So a call
// whose answer was lost is simply repeated. It fails with a [ledgerentry.ConflictError] if
// the existing entry says something else, and with [ledgerentry.ErrInvalidRecord] if the
// record is incomplete; any other error may pass, and should be retried. The
// entry is on disk when Append returns.
func (l *Ledger) Append(ctx context.Context, record ledgerentry.Record) (ledgerentry.Entry, error) {
	record, err := record.Normalized()
	if err != nil {
		return ledgerentry.Entry{}, err
	}
	signer, err := newSigner(l.options.SigningKeyFile)
	if err != nil {
		return ledgerentry.Entry{}, err
	}
	var entry ledgerentry.Entry
	err = l.repeatContended(ctx, func() error {
		var err error
		entry, err = l.appendOnce(ctx, record, signer)
		return err
	})
	var conflict *ledgerentry.ConflictError
	if err != nil && !errors.As(err, &conflict) {
		err = l.described(err)
	}
	return entry, err
}

func (l *Ledger) appendOnce(ctx context.Context, record ledgerentry.Record, signer *signer) (entry ledgerentry.Entry, err error) {
	chain := record.ChainName()
	tx, err := l.database.BeginTx(ctx, nil)
	if err != nil {
		return ledgerentry.Entry{}, err
	}
	defer rollBack(tx, &err)
	if err := l.dialect.lockChain(ctx, tx, chain); err != nil {
		return ledgerentry.Entry{}, err
	}
	// A newer worker may have changed the schema since this one was started.
	if _, err := readSchemaVersion(ctx, tx); err != nil {
		return ledgerentry.Entry{}, err
	}
	existing, err := l.byKey(ctx, tx, record.Key)
	if err == nil {
		if !existing.SameAs(record) {
			return ledgerentry.Entry{}, &ledgerentry.ConflictError{Existing: existing}
		}
		return existing, nil
	}
	if !errors.Is(err, ErrNotFound) {
		return ledgerentry.Entry{}, err
	}
	entry, err = l.next(ctx, tx, record, signer)
	if err != nil {
		return ledgerentry.Entry{}, err
	}
	if err := l.insert(ctx, tx, entry); err != nil {
		return ledgerentry.Entry{}, err
	}
	return entry, tx.Commit()
}

// next makes the entry that follows the last one of its chain.
func (l *Ledger) next(ctx context.Context, q querier, record ledgerentry.Record, signer *signer) (ledgerentry.Entry, error) {
	entry := ledgerentry.Entry{
		Record: record, Version: ledgerentry.CurrentVersion, Chain: record.ChainName(),
		RecordedAt: l.now().UTC().Truncate(time.Millisecond), SigningKeyID: signer.keyID(),
	}
	err := q.QueryRowContext(ctx, l.dialect.bind(`SELECT sequence, hash FROM ledger_entries WHERE chain = ? ORDER BY sequence DESC LIMIT 1`), entry.Chain).
		Scan(&entry.Sequence, &entry.PreviousHash)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return ledgerentry.Entry{}, err
	}
	entry.Sequence++
	document, err := entry.Document()
	if err != nil {
		return ledgerentry.Entry{}, err
	}
	entry.Hash, entry.Signature = ledgerentry.HashOf(document), signer.sign(document)
	return entry, nil
}

func (l *Ledger) insert(ctx context.Context, tx *sql.Tx, entry ledgerentry.Entry) error {
	values, err := columnValues(entry)
	if err != nil {
		return err
	}
	placeholders := strings.Repeat(", ?", len(values))[len(", "):]
	_, err = tx.ExecContext(ctx, l.dialect.bind(`INSERT INTO ledger_entries (`+columnList+`) VALUES (`+placeholders+`)`), values...)
	return err
}

// repeatContended repeats a transaction that failed only because of another
// one.
func (l *Ledger) repeatContended(ctx context.Context, transaction func() error) error {
	delay := minContentionDelay
	for attempt := 1; ; attempt++ {
		err := transaction()
		if err == nil || !l.dialect.contended(err) {
			return err
		}
		if attempt == maxContendedAttempts {
			return fmt.Errorf("given up after %d attempts: %w", attempt, err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(delay/2 + rand.N(delay/2)):
		}
		delay = min(2*delay, maxContentionDelay)
	}
}
