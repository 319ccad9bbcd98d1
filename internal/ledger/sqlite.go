package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	neturl "net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

const (
	// sqliteConnections leave room to append while entries are read.
	sqliteConnections = 4
	// ledgerFileMode: entries name people, so others on the machine don't read it.
	ledgerFileMode = 0o600
)

type sqliteDialect struct{}

// openSQLite opens a file in WAL mode, so that reading doesn't wait for writing.
// An append is on disk when it returns (synchronous FULL).
func openSQLite(url string, options Options) (*sql.DB, error) {
	path, err := sqlitePath(url)
	if err != nil {
		return nil, err
	}
	if err := requireFile(path, options.ReadOnly); err != nil {
		return nil, err
	}
	parameters := neturl.Values{
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)"},
		"_txlock": {"immediate"},
		"mode":    {"rw"},
	}
	if options.ReadOnly {
		parameters["_pragma"] = []string{"busy_timeout(10000)", "query_only(1)"}
	}
	name := neturl.URL{Scheme: "file", Path: path, RawQuery: parameters.Encode()}
	database, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	database.SetMaxOpenConns(sqliteConnections)
	database.SetMaxIdleConns(sqliteConnections)
	return database, nil
}

func sqlitePath(url string) (string, error) {
	parsed, err := neturl.Parse(url)
	if err != nil || parsed.Host != "" || !filepath.IsAbs(parsed.Path) || strings.HasSuffix(parsed.Path, "/") {
		return "", errors.New("must be sqlite:// followed by an absolute path, such as sqlite:///var/lib/keyturn/ledger.db")
	}
	if parsed.RawQuery != "" || parsed.Fragment != "" {
		return "", errors.New("a sqlite URL takes no parameters")
	}
	return parsed.Path, nil
}

func requireFile(path string, readOnly bool) error {
	if readOnly {
		_, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s does not exist: a worker with this setting creates it", path)
		}
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, ledgerFileMode)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the directory %s does not exist: create it, or mount the volume there", filepath.Dir(path))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s cannot be written: let the user that runs the worker own the directory %s", path, filepath.Dir(path))
	case err != nil:
		return err
	}
	return file.Close()
}

func (sqliteDialect) name() string { return "sqlite" }

func (sqliteDialect) bind(query string) string { return query }

func (sqliteDialect) contains(column string) string { return "instr(" + column + ", ?) > 0" }

func (sqliteDialect) hasTable(ctx context.Context, q querier, name string) (found bool, err error) {
	err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?)`, name).Scan(&found)
	return found, err
}

// lockSchema has nothing to do: every transaction that writes begins IMMEDIATE,
// and SQLite lets one at a time do so.
func (sqliteDialect) lockSchema(context.Context, *sql.Tx) error { return nil }

// lockChain has nothing to do, as lockSchema.
func (sqliteDialect) lockChain(context.Context, *sql.Tx, string) error { return nil }

// snapshot: a transaction in WAL mode reads the state at its first reading.
func (sqliteDialect) snapshot() *sql.TxOptions { return &sql.TxOptions{ReadOnly: true} }

var sqliteTriggers = []string{"ledger_entries_next_only", "ledger_entries_no_delete", "ledger_entries_no_update"}

func (sqliteDialect) missingTriggers(ctx context.Context, q querier) ([]string, error) {
	return missing(ctx, q, sqliteTriggers, `SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'ledger_entries'`)
}

func (sqliteDialect) contended(err error) bool {
	var failure *sqlite.Error
	if !errors.As(err, &failure) {
		return false
	}
	code := failure.Code() & 0xff // the rest is the extended code
	return code == sqlitelib.SQLITE_BUSY || code == sqlitelib.SQLITE_LOCKED
}

func (sqliteDialect) readyForSchema(context.Context, *sql.Tx) error { return nil }

// missing returns the wanted names that a query does not list.
func missing(ctx context.Context, q querier, wanted []string, query string) ([]string, error) {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	absent := slices.Clone(wanted)
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		absent = slices.DeleteFunc(absent, func(one string) bool { return one == name })
	}
	return absent, rows.Err()
}
