package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The environment variables that errors name.
const (
	URLVariable            = "KEYTURN_LEDGER"                  // where the ledger is
	PasswordFileVariable   = "KEYTURN_LEDGER_PASSWORD_FILE"    // file with PostgreSQL's password
	SigningKeyFileVariable = "KEYTURN_LEDGER_SIGNING_KEY_FILE" // file with the signing key
)

var (
	// ErrNotFound: the ledger has no such entry.
	ErrNotFound = errors.New("the ledger has no such entry")
	// ErrSettings: a setting is wrong. Retrying does not help until it is fixed.
	ErrSettings = errors.New("wrong ledger setting")
	// ErrNewerSchema: the tables need a newer version of keyturn.
	ErrNewerSchema = errors.New("the ledger's tables need a newer version of keyturn")
)

// Options of a ledger.
type Options struct {
	// PasswordFile holds PostgreSQL's password. It is read for every connection,
	// so that a replaced file takes effect. Empty: PGPASSWORD, PGPASSFILE or
	// ~/.pgpass, as PostgreSQL's own programs.
	PasswordFile string
	// SigningKeyFile holds an Ed25519 private key (PEM, PKCS #8). It is read for
	// every entry. Empty: entries are not signed.
	SigningKeyFile string
	// ReadOnly opens an existing ledger to read from it. Its tables are neither
	// created nor upgraded, and Append fails.
	ReadOnly bool
	// ProgramVersion is noted beside each change of the schema.
	ProgramVersion string
}

// Ledger is a store of entries. Its methods may be called concurrently, and by
// several processes on one database.
type Ledger struct {
	database *sql.DB
	dialect  dialect
	options  Options
	now      func() time.Time
	// files are those that connections need; nil = none.
	files interface{ Problem() error }
}

// dialect is what SQLite and PostgreSQL do differently.
type dialect interface {
	// name of the directory with its migrations.
	name() string
	// bind turns the placeholders "?" into its own.
	bind(query string) string
	// contains is a condition: the text of a column contains a placeholder's.
	contains(column string) string
	// hasTable reports whether a table exists.
	hasTable(ctx context.Context, q querier, name string) (bool, error)
	// lockSchema waits until no other process changes the schema, until the
	// transaction ends.
	lockSchema(ctx context.Context, tx *sql.Tx) error
	// lockChain waits until no other process appends to the chain or changes the
	// schema, until the transaction ends.
	lockChain(ctx context.Context, tx *sql.Tx, chain string) error
	// snapshot is a transaction that reads one state of the database.
	snapshot() *sql.TxOptions
	// missingTriggers of those that keep entries from being changed.
	missingTriggers(ctx context.Context, q querier) ([]string, error)
	// contended reports whether a transaction failed only because of another.
	contended(err error) bool
	// readyForSchema refuses a database that can't hold the tables.
	readyForSchema(ctx context.Context, tx *sql.Tx) error
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, arguments ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, arguments ...any) *sql.Row
}

// Open opens the ledger at a URL, sqlite:///absolute/path or
// postgres://user@host/database, and creates or upgrades its tables. Errors name
// the variable to set right, and hold no secret. An error that is neither
// [ErrSettings] nor [ErrNewerSchema] may pass: the database may be away.
func Open(ctx context.Context, url string, options Options) (*Ledger, error) {
	// A wrong key is reported at the start, not by the first rotation.
	if _, err := newSigner(options.SigningKeyFile); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSettings, err)
	}
	ledger, err := open(url, options)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrSettings, URLVariable, err)
	}
	if err := ledger.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", URLVariable, err), ledger.Close())
	}
	return ledger, nil
}

func open(url string, options Options) (*Ledger, error) {
	scheme, _, _ := strings.Cut(url, "://")
	ledger := &Ledger{options: options, now: time.Now}
	var err error
	switch scheme {
	case "sqlite":
		ledger.dialect = sqliteDialect{}
		ledger.database, err = openSQLite(url, options)
	case "postgres", "postgresql":
		ledger.dialect = postgresDialect{}
		ledger.database, ledger.files, err = openPostgres(url, options)
	default:
		err = errors.New("must be sqlite:///absolute/path or postgres://user@host/database")
	}
	if err != nil {
		return nil, err
	}
	return ledger, nil
}

// Ping reports whether the database answers and has tables that this program can
// use: a newer worker may have changed them since they were opened, or a backup was
// restored. Errors as of [Open].
func (l *Ledger) Ping(ctx context.Context) error {
	current, err := readSchemaVersion(ctx, l.database)
	if err == nil && current < len(migrations) {
		err = fmt.Errorf("the tables have schema %d, this program needs %d: restart it, so that it upgrades them", current, len(migrations))
	}
	if err != nil {
		return l.described(err)
	}
	return nil
}

// FilesProblem is why the newest contents of a file with a password or certificates are
// not in use by new connections, which have the earlier ones; nil = they are.
func (l *Ledger) FilesProblem() error {
	if l.files == nil || l.files.Problem() == nil {
		return nil
	}
	return l.described(l.files.Problem())
}

// Close releases the connections.
func (l *Ledger) Close() error { return l.database.Close() }

// described names the setting that an operator looks at first.
func (l *Ledger) described(err error) error {
	return fmt.Errorf("%s (%s): %w", URLVariable, l.dialect.name(), err)
}
