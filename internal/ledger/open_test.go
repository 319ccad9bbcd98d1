package ledger

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/ledgerentry"
)

func TestWrongSettings(t *testing.T) {
	directory := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(directory, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	require.NoError(t, err)
	rsaFile := write("rsa", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	valid := "sqlite://" + filepath.Join(directory, "ledger.db")
	missing := filepath.Join(directory, "missing")

	for _, c := range []struct {
		name, url string
		options   Options
		want      []string
	}{
		{"empty", "", Options{}, []string{URLVariable, "sqlite:///"}},
		{"another database", "mysql://h/d", Options{}, []string{URLVariable, "postgres://"}},
		{"relative path", "sqlite://ledger.db", Options{}, []string{URLVariable, "absolute path"}},
		{"a directory", "sqlite:///tmp/", Options{}, []string{URLVariable, "absolute path"}},
		{"parameters", valid + "?mode=memory", Options{}, []string{URLVariable, "no parameters"}},
		{"no directory", "sqlite://" + missing + "/ledger.db", Options{}, []string{URLVariable, missing, "create it"}},
		{"nothing to read", valid, Options{ReadOnly: true}, []string{URLVariable, "does not exist"}},
		{"password", "postgres://keyturn:s3cret@h/d", Options{}, []string{URLVariable, PasswordFileVariable}},
		{"password with a slash", "postgres://keyturn:s3cret/more@h/d", Options{}, []string{URLVariable, PasswordFileVariable}},
		{"password as parameter", "postgres://keyturn@h/d?password=s3cret", Options{}, []string{URLVariable, PasswordFileVariable}},
		{"not a URL", "postgres://keyturn@h:port/d", Options{}, []string{URLVariable}},
		{"wrong TLS mode", "postgres://keyturn@h/d?sslmode=maybe", Options{}, []string{URLVariable, "sslmode"}},
		{"no password file", "postgres://keyturn@h/d", Options{PasswordFile: missing}, []string{URLVariable, PasswordFileVariable, missing}},
		{"empty password file", "postgres://keyturn@h/d", Options{PasswordFile: write("empty", "\n")}, []string{PasswordFileVariable, "is empty"}},
		{"no signing key", valid, Options{SigningKeyFile: missing}, []string{SigningKeyFileVariable, missing}},
		{"signing key not in PEM", valid, Options{SigningKeyFile: write("text", "s3cret")}, []string{SigningKeyFileVariable, "openssl"}},
		{"damaged signing key", valid, Options{SigningKeyFile: write("damaged", "-----BEGIN PRIVATE KEY-----\nczNjcmV0\n-----END PRIVATE KEY-----\n")}, []string{SigningKeyFileVariable, "openssl"}},
		{"RSA signing key", valid, Options{SigningKeyFile: rsaFile}, []string{SigningKeyFileVariable, "Ed25519"}},
	} {
		ledger, err := Open(t.Context(), c.url, c.options)
		require.ErrorIs(t, err, ErrSettings, c.name)
		require.Nil(t, ledger, c.name)
		for _, part := range c.want {
			assert.ErrorContains(t, err, part, c.name)
		}
		assert.NotContains(t, err.Error(), "s3cret", c.name)
	}
}

func TestTLSIsRequiredOfAnotherMachine(t *testing.T) {
	t.Setenv("PGSSLMODE", "")
	t.Setenv("PGSERVICE", "")
	for url, plain := range map[string]bool{
		"postgres://keyturn@db.example/ledger":                             false,
		"postgres://keyturn@db.example/ledger?application_name=x":          false,
		"postgres://keyturn@127.0.0.1,db.example/ledger":                   false,
		"postgres://keyturn@db.example/ledger?sslmode=require":             false,
		"postgres://keyturn@db.example/ledger?sslmode=prefer":              true,
		"postgres://keyturn@db.example/ledger?sslmode=disable":             true,
		"postgres://keyturn@127.0.0.1:5432/ledger":                         true,
		"postgres://keyturn@localhost/ledger":                              true,
		"postgres://keyturn@[::1]/ledger":                                  true,
		"postgres://keyturn@/ledger?host=/var/run/postgresql":              true,
		"postgres://keyturn@db.example/ledger?sslmode%3Ddisable=x&other=1": false,
	} {
		config, err := postgresConfig(url)
		if err != nil {
			assert.False(t, plain, "%s: %s", url, err)
			continue
		}
		hasPlain := config.TLSConfig == nil
		for _, fallback := range config.Fallbacks {
			hasPlain = hasPlain || fallback.TLSConfig == nil
		}
		assert.Equal(t, plain, hasPlain, url)
	}
	config, err := postgresConfig("postgres://keyturn@db.example/ledger")
	require.NoError(t, err)
	assert.False(t, config.TLSConfig.InsecureSkipVerify)
	assert.Equal(t, "db.example", config.TLSConfig.ServerName)
	t.Setenv("PGSSLMODE", "disable")
	config, err = postgresConfig("postgres://keyturn@db.example/ledger")
	require.NoError(t, err)
	assert.Nil(t, config.TLSConfig)
}

func TestSQLiteFileIsPrivate(t *testing.T) {
	s := sqliteStore(t)
	appendAll(t, s.open(t), rotation(ordersID, "orders", 1))
	parsed, err := url.Parse(s.url)
	require.NoError(t, err)
	for _, path := range []string{parsed.Path, parsed.Path + "-wal"} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(ledgerFileMode), info.Mode().Perm(), path)
	}
}

func TestSQLitePathWithSpecialCharacters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b#c?d%e&mode=memory.db")
	ledger, err := Open(t.Context(), (&url.URL{Scheme: "sqlite", Path: path}).String(), Options{})
	require.NoError(t, err)
	defer ledger.Close()
	appendAll(t, ledger, rotation(ordersID, "orders", 1))
	assert.FileExists(t, path)
}

func TestReadOnly(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		s.options.ReadOnly = true
		if s.name() == "postgres" {
			_, err := Open(t.Context(), s.url, s.options)
			require.ErrorContains(t, err, "start a worker")
		}
		s.options.ReadOnly = false
		entry := appendAll(t, s.open(t), rotation(ordersID, "orders", 1))[0]
		s.options.ReadOnly = true
		reader := s.open(t)
		assert.Equal(t, []ledgerentry.Entry{entry}, collect(t, reader.Entries(t.Context(), Filter{})))
		requireIntact(t, reader, VerifyOptions{}, 1, 1)
		_, err := reader.Append(t.Context(), rotation(ordersID, "orders", 2))
		assert.Error(t, err)
	})
}

func TestManyOpenAnEmptyDatabaseAtOnce(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		var group sync.WaitGroup
		failures := make([]error, 12)
		for i := range failures {
			group.Go(func() {
				ledger, err := Open(t.Context(), s.url, s.options)
				if err == nil {
					_, err = ledger.Append(t.Context(), rotation(ordersID, "orders", i))
					_ = ledger.Close()
				}
				failures[i] = err
			})
		}
		group.Wait()
		for _, err := range failures {
			require.NoError(t, err)
		}
		var steps int
		require.NoError(t, s.raw.QueryRow(`SELECT COUNT(*) FROM ledger_schema`).Scan(&steps))
		assert.Equal(t, len(migrations), steps)
		requireIntact(t, s.open(t), VerifyOptions{}, len(failures), 1)
	})
}

// A worker of this version goes on beside a newer one, unless the newer schema
// says that it can't.
func TestNewerSchema(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		old := s.open(t)
		appendAll(t, old, rotation(ordersID, "orders", 1))
		newer := len(migrations) + 1
		s.exec(t, `ALTER TABLE ledger_entries ADD COLUMN note TEXT NOT NULL DEFAULT ''`)
		s.exec(t, insertSchema, newer, 1)
		require.NoError(t, old.Ping(t.Context()))
		appendAll(t, old, rotation(ordersID, "orders", 2))
		appendAll(t, s.open(t), rotation(ordersID, "orders", 3))
		requireIntact(t, old, VerifyOptions{}, 3, 1)

		s.exec(t, insertSchema, newer+1, newer)
		for _, readOnly := range []bool{false, true} {
			s.options.ReadOnly = readOnly
			_, err := Open(t.Context(), s.url, s.options)
			require.ErrorIs(t, err, ErrNewerSchema)
			assert.ErrorContains(t, err, "upgrade keyturn")
		}
		_, err := old.Append(t.Context(), rotation(ordersID, "orders", 4))
		require.ErrorIs(t, err, ErrNewerSchema)
		err = old.Ping(t.Context())
		require.ErrorIs(t, err, ErrNewerSchema)
		assert.ErrorContains(t, err, "upgrade keyturn")
	})
}

const insertSchema = `INSERT INTO ledger_schema (version, compatible_from, applied_at, applied_by) VALUES (?, ?, '', '')`

// An append that begins while a newer worker changes the schema waits for it, and
// does not write into tables that it does not know.
func TestAppendWaitsForAChangeOfTheSchema(t *testing.T) {
	s := postgresStore(t)
	old := s.open(t)
	change, err := s.raw.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer change.Rollback()
	require.NoError(t, s.lockSchema(t.Context(), change))
	ended := make(chan error, 1)
	go func() {
		_, err := old.Append(t.Context(), rotation(ordersID, "orders", 1))
		ended <- err
	}()
	require.Eventually(t, func() bool {
		var waiting int
		require.NoError(t, s.raw.QueryRow(`SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&waiting))
		return waiting == 1 || len(ended) == 1
	}, time.Minute, 10*time.Millisecond)
	newer := len(migrations) + 1
	_, err = change.Exec(s.bind(insertSchema), newer, newer)
	require.NoError(t, err)
	require.NoError(t, change.Commit())
	require.ErrorIs(t, <-ended, ErrNewerSchema)
}

// Tables that a restore has replaced behind an open ledger are reported.
func TestPingSeesTablesThatWereReplaced(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		ledger := s.open(t)
		require.NoError(t, ledger.Ping(t.Context()))
		s.exec(t, `DELETE FROM ledger_schema`)
		require.ErrorContains(t, ledger.Ping(t.Context()), "the tables have schema 0")
		s.exec(t, `DROP TABLE ledger_schema`)
		require.ErrorContains(t, ledger.Ping(t.Context()), URLVariable)
	})
}

// A step that fails leaves the tables as they were.
func TestFailedMigrationChangesNothing(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		s.exec(t, `CREATE TABLE ledger_entries (chain TEXT)`)
		_, err := Open(t.Context(), s.url, s.options)
		require.ErrorContains(t, err, "schema 1")
		exists, err := s.hasTable(t.Context(), s.raw, schemaTable)
		require.NoError(t, err)
		assert.False(t, exists)
		s.exec(t, `DROP TABLE ledger_entries`)
		requireIntact(t, s.open(t), VerifyOptions{}, 0, 0)
	})
}

// The privileges that the package documents are enough.
func TestPostgresPrivileges(t *testing.T) {
	s := postgresStore(t)
	owner := s.open(t)
	const password = "'role-password'"
	s.exec(t, `CREATE ROLE ledger_worker LOGIN PASSWORD `+password+`; CREATE ROLE ledger_reader LOGIN PASSWORD `+password+`;
		GRANT SELECT, INSERT ON ledger_entries TO ledger_worker; GRANT SELECT ON ledger_schema TO ledger_worker;
		GRANT SELECT ON ledger_entries, ledger_schema TO ledger_reader`)
	defer s.exec(t, `DROP OWNED BY ledger_worker, ledger_reader; DROP ROLE ledger_worker, ledger_reader`)
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("role-password"), 0o600))
	as := func(role string, readOnly bool) *Ledger {
		parsed, err := url.Parse(s.url)
		require.NoError(t, err)
		parsed.User = url.User(role)
		ledger, err := Open(t.Context(), parsed.String(), Options{PasswordFile: file, ReadOnly: readOnly})
		require.NoError(t, err)
		return ledger
	}
	worker, reader := as("ledger_worker", false), as("ledger_reader", true)
	defer worker.Close()
	defer reader.Close()
	appendAll(t, worker, rotation(ordersID, "orders", 1), rotation(ordersID, "orders", 2))
	requireIntact(t, reader, VerifyOptions{}, 2, 1)
	for _, statement := range []string{
		`UPDATE ledger_entries SET outcome = ''`, `DELETE FROM ledger_entries`, `TRUNCATE ledger_entries`, `DROP TABLE ledger_entries`,
		`DROP TRIGGER ledger_entries_append_only ON ledger_entries`, `ALTER TABLE ledger_entries DISABLE TRIGGER ALL`,
	} {
		_, err := worker.database.Exec(statement)
		assert.ErrorContains(t, err, "42501", statement)
	}
	requireIntact(t, owner, VerifyOptions{}, 2, 1)
}
