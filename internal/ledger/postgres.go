package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"keyturn/internal/reload"
)

const (
	// postgresConnections of one process: many workers share a server that takes
	// 100 by default.
	postgresConnections = 8
	// postgresIdleTime after which a connection that nobody uses is closed.
	postgresIdleTime = 5 * time.Minute
	// connectTimeout where neither the URL nor PGCONNECT_TIMEOUT has one.
	connectTimeout = 10 * time.Second
)

type postgresDialect struct{}

// openPostgres configures a pool and connects to nothing yet. The files are those that
// the URL, the options or PostgreSQL's own variables name: passwords and certificates.
func openPostgres(url string, options Options) (*sql.DB, *reload.Value[*pgx.ConnConfig], error) {
	if holdsPassword(url) {
		return nil, nil, fmt.Errorf("must not hold a password: put it into a file and name that in %s", PasswordFileVariable)
	}
	files, err := reload.New(reload.Options[*pgx.ConnConfig]{
		Load:     func() (*pgx.ConnConfig, error) { return loadPostgres(url, options) },
		Same:     func(_, _ *pgx.ConnConfig) bool { return false }, // it costs nothing to apply
		Interval: time.Nanosecond,                                  // each connection has them read again
	})
	if err != nil {
		return nil, nil, err
	}
	database := stdlib.OpenDB(*files.Latest(), stdlib.OptionBeforeConnect(func(_ context.Context, connection *pgx.ConnConfig) error {
		now := files.Latest().Copy()
		connection.Password, connection.TLSConfig, connection.Fallbacks = now.Password, now.TLSConfig, now.Fallbacks
		return nil
	}))
	database.SetMaxOpenConns(postgresConnections)
	// database/sql keeps two by default, and would connect again all the time.
	database.SetMaxIdleConns(postgresConnections)
	database.SetConnMaxIdleTime(postgresIdleTime)
	return database, files, nil
}

func loadPostgres(url string, options Options) (*pgx.ConnConfig, error) {
	config, err := postgresConfig(url)
	if err != nil {
		return nil, err
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "keyturn"
	}
	if options.ReadOnly {
		config.RuntimeParams["default_transaction_read_only"] = "on"
	}
	if options.PasswordFile != "" {
		config.Password, err = readPassword(options.PasswordFile)
	}
	return config, err
}

// holdsPassword reports whether a URL holds one, also a URL that can't be
// parsed because of the password's characters.
func holdsPassword(url string) bool {
	_, rest, _ := strings.Cut(url, "://")
	if end := strings.LastIndexByte(rest, '@'); end >= 0 && strings.Contains(rest[:end], ":") {
		return true
	}
	return strings.Contains(strings.ToLower(rest), "password=")
}

// postgresConfig parses the URL. TLS with a verified certificate is the default
// for a server on another machine, where PostgreSQL's own default would do
// without TLS if an attacker asks for that.
func postgresConfig(url string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("cannot be used: %w", err)
	}
	if choosesTLS(url) || onThisMachine(&config.Config) {
		return config, nil
	}
	separator := "?"
	if strings.Contains(url, "?") {
		separator = "&"
	}
	config, err = pgx.ParseConfig(url + separator + "sslmode=verify-full")
	if err != nil {
		return nil, fmt.Errorf("cannot be used with sslmode=verify-full, the default for another machine: %w", err)
	}
	return config, nil
}

// choosesTLS reports whether the URL, the environment or a service file may say
// how TLS is to be used.
func choosesTLS(url string) bool {
	_, parameters, _ := strings.Cut(url, "?")
	for _, parameter := range strings.Split(parameters, "&") {
		name, _, _ := strings.Cut(parameter, "=")
		if slices.Contains([]string{"sslmode", "ssl", "service"}, name) {
			return true
		}
	}
	return os.Getenv("PGSSLMODE") != "" || os.Getenv("PGSERVICE") != ""
}

func onThisMachine(config *pgconn.Config) bool {
	hosts := []string{config.Host}
	for _, fallback := range config.Fallbacks {
		hosts = append(hosts, fallback.Host)
	}
	return !slices.ContainsFunc(hosts, func(host string) bool {
		return !strings.HasPrefix(host, "/") && host != "localhost" && !net.ParseIP(host).IsLoopback()
	})
}

func readPassword(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", PasswordFileVariable, err)
	}
	password := string(bytes.TrimRight(text, "\r\n"))
	if password == "" {
		return "", fmt.Errorf("%s: %s is empty", PasswordFileVariable, path)
	}
	return password, nil
}

func (postgresDialect) name() string { return "postgres" }

func (postgresDialect) bind(query string) string {
	var bound strings.Builder
	number := 0
	for _, char := range query {
		if char != '?' {
			bound.WriteRune(char)
			continue
		}
		number++
		bound.WriteString("$" + strconv.Itoa(number))
	}
	return bound.String()
}

func (postgresDialect) contains(column string) string { return "strpos(" + column + ", ?) > 0" }

// hasTable reads the catalog as a table: to_regclass may answer from the
// session's cache, without a table that was created meanwhile.
func (postgresDialect) hasTable(ctx context.Context, q querier, name string) (found bool, err error) {
	err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_class WHERE relname = $1 AND relkind = 'r' AND pg_table_is_visible(oid))`, name).Scan(&found)
	return found, err
}

// schemaLock is the advisory lock of the schema.
const schemaLock = `hashtextextended('keyturn ledger schema', 0)`

// lockSchema takes a lock of the transaction, not of the session: those don't
// work through a pooler.
func (postgresDialect) lockSchema(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(`+schemaLock+`)`)
	return err
}

// lockChain also has the server end the transaction of a process that hangs
// while it holds the locks.
func (postgresDialect) lockChain(ctx context.Context, tx *sql.Tx, chain string) error {
	_, err := tx.ExecContext(ctx, `SELECT set_config('idle_in_transaction_session_timeout', '60s', true),
		pg_advisory_xact_lock_shared(`+schemaLock+`), pg_advisory_xact_lock(hashtextextended($1, 1))`, chain)
	return err
}

func (postgresDialect) snapshot() *sql.TxOptions {
	return &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
}

var postgresTriggers = []string{"ledger_entries_append_only", "ledger_entries_next_only"}

// missingTriggers counts a trigger as missing that is disabled, or that is not
// enabled ALWAYS.
func (postgresDialect) missingTriggers(ctx context.Context, q querier) ([]string, error) {
	return missing(ctx, q, postgresTriggers,
		`SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass('ledger_entries') AND tgenabled = 'A'`)
}

// SQLSTATE codes of transactions that may succeed when they are repeated.
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	uniqueViolation      = "23505"
)

func (postgresDialect) contended(err error) bool {
	var failure *pgconn.PgError
	return errors.As(err, &failure) &&
		slices.Contains([]string{serializationFailure, deadlockDetected, uniqueViolation}, failure.Code)
}

func (postgresDialect) readyForSchema(ctx context.Context, tx *sql.Tx) error {
	var encoding string
	if err := tx.QueryRowContext(ctx, `SHOW server_encoding`).Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("%w: the database has encoding %s: create one with ENCODING 'UTF8'", ErrSettings, encoding)
	}
	return nil
}
