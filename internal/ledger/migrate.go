package ledger

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"time"
)

//go:embed migrations
var migrationFiles embed.FS

// migration is one step of the schema.
type migration struct {
	file string
	// compatibleFrom is the oldest schema that a program may have been written
	// for and still read and append after this step. Raise it only for a step
	// that such a program could not keep a valid ledger with: every worker of an
	// older version then refuses to start, and its appends fail.
	compatibleFrom int
}

// migrations in their order: the first makes schema 1. Never change one that was
// released. Columns are only added, with a default.
var migrations = []migration{
	{file: "0001_entries.sql", compatibleFrom: 1},
}

const schemaTable = "ledger_schema"

// createSchemaTable is understood by both databases.
const createSchemaTable = `CREATE TABLE ` + schemaTable + ` (
	version INTEGER NOT NULL PRIMARY KEY,
	compatible_from INTEGER NOT NULL,
	applied_at TEXT NOT NULL,
	applied_by TEXT NOT NULL
)`

// migrate brings the tables to this program's schema. Tables that are newer are
// left alone, and refused only if they are marked as incompatible with it.
func (l *Ledger) migrate(ctx context.Context) error {
	return l.repeatContended(ctx, func() error {
		current, err := l.schemaVersion(ctx, l.database)
		if err != nil || current >= len(migrations) {
			return err
		}
		if l.options.ReadOnly {
			return fmt.Errorf("%w: the tables have schema %d, this program reads schema %d: start a worker of this version first",
				ErrSettings, current, len(migrations))
		}
		return l.applyMigrations(ctx)
	})
}

// schemaVersion is 0 where there are no tables yet.
func (l *Ledger) schemaVersion(ctx context.Context, q querier) (int, error) {
	exists, err := l.dialect.hasTable(ctx, q, schemaTable)
	if err != nil || !exists {
		return 0, err
	}
	return readSchemaVersion(ctx, q)
}

// readSchemaVersion refuses a schema that this program can't use.
func readSchemaVersion(ctx context.Context, q querier) (int, error) {
	var current, compatibleFrom sql.NullInt64
	err := q.QueryRowContext(ctx, `SELECT MAX(version), MAX(compatible_from) FROM `+schemaTable).Scan(&current, &compatibleFrom)
	if err != nil {
		return 0, err
	}
	if int(compatibleFrom.Int64) > len(migrations) {
		return 0, fmt.Errorf("%w: they have schema %d and take programs of schema %d or later, this one has %d: upgrade keyturn",
			ErrNewerSchema, current.Int64, compatibleFrom.Int64, len(migrations))
	}
	return int(current.Int64), nil
}

// applyMigrations does all missing steps in one transaction, so that a process
// that ends in the middle leaves the tables as they were.
func (l *Ledger) applyMigrations(ctx context.Context) (err error) {
	tx, err := l.database.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer rollBack(tx, &err)
	if err := l.dialect.lockSchema(ctx, tx); err != nil {
		return err
	}
	// Another worker may have done it while this one waited for the lock.
	current, err := l.schemaVersion(ctx, tx)
	if err != nil {
		return err
	}
	if current == 0 {
		if err := l.createSchemaTable(ctx, tx); err != nil {
			return err
		}
	}
	for version := current + 1; version <= len(migrations); version++ {
		if err := l.applyMigration(ctx, tx, version); err != nil {
			return fmt.Errorf("schema %d: %w", version, err)
		}
	}
	return tx.Commit()
}

func (l *Ledger) createSchemaTable(ctx context.Context, tx *sql.Tx) error {
	if err := l.dialect.readyForSchema(ctx, tx); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, createSchemaTable)
	return err
}

func (l *Ledger) applyMigration(ctx context.Context, tx *sql.Tx, version int) error {
	step := migrations[version-1]
	text, err := migrationFiles.ReadFile("migrations/" + l.dialect.name() + "/" + step.file)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, string(text)); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, l.dialect.bind(`INSERT INTO `+schemaTable+` (version, compatible_from, applied_at, applied_by) VALUES (?, ?, ?, ?)`),
		version, step.compatibleFrom, l.now().UTC().Format(time.RFC3339), l.options.ProgramVersion)
	return err
}

// rollBack ends a transaction that was not committed.
func rollBack(tx *sql.Tx, err *error) {
	if rollbackErr := tx.Rollback(); rollbackErr != nil && !errors.Is(rollbackErr, sql.ErrTxDone) {
		*err = errors.Join(*err, rollbackErr)
	}
}
