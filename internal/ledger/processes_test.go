package ledger

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/ledgerentry"
)

// The test's own program, started with these variables, is another worker.
const (
	childRole    = "LEDGER_TEST_ROLE"
	childStore   = "LEDGER_TEST_STORE"
	roleWriter   = "writer"      // appends many records, also those of others
	roleAnswer   = "lost answer" // appends a record and hangs before it says so
	roleInMiddle = "in the middle"
)

const (
	writerProcesses  = 3
	writerGoroutines = 4
	recordsPerWriter = 12
)

// childSettings is what a child needs to open the same ledger.
type childSettings struct {
	URL     string
	Options Options
	Name    string
}

func startChild(t *testing.T, s *store, role, name string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	settings, err := json.Marshal(childSettings{s.url, s.options, name})
	require.NoError(t, err)
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), childRole+"="+role, childStore+"="+string(settings))
	command.Stderr = os.Stderr
	output, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	return command, bufio.NewScanner(output)
}

func runChild(role string) int {
	if err := childWork(context.Background(), role); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func childWork(ctx context.Context, role string) error {
	var settings childSettings
	if err := json.Unmarshal([]byte(os.Getenv(childStore)), &settings); err != nil {
		return err
	}
	ledger, err := Open(ctx, settings.URL, settings.Options)
	if err != nil {
		return err
	}
	defer ledger.Close()
	switch role {
	case roleWriter:
		return writeAsMany(ctx, ledger, settings.Name)
	case roleAnswer:
		if _, err := ledger.Append(ctx, rotation(ordersID, "orders", 1)); err != nil {
			return err
		}
		select {}
	case roleInMiddle:
		return insertWithoutCommit(ctx, ledger)
	default:
		return fmt.Errorf("no role %q", role)
	}
}

// writeAsMany appends records of its own and records that every process
// appends.
func writeAsMany(ctx context.Context, ledger *Ledger, name string) error {
	failures := make([]error, writerGoroutines)
	var group sync.WaitGroup
	for writer := range writerGoroutines {
		group.Go(func() {
			for number := range recordsPerWriter {
				own := rotation(ordersID, "orders", number)
				own.Key = fmt.Sprintf("%s-%d-%d", name, writer, number)
				shared := rotation(ordersID, "orders", number)
				for _, record := range []ledgerentry.Record{own, shared} {
					_, err := ledger.Append(ctx, record)
					failures[writer] = errors.Join(failures[writer], err)
				}
			}
		})
	}
	group.Wait()
	return errors.Join(failures...)
}

func insertWithoutCommit(ctx context.Context, ledger *Ledger) error {
	record, err := rotation(ordersID, "orders", 1).Normalized()
	if err != nil {
		return err
	}
	tx, err := ledger.database.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := ledger.dialect.lockChain(ctx, tx, record.ChainName()); err != nil {
		return err
	}
	entry, err := ledger.next(ctx, tx, record, nil)
	if err != nil {
		return err
	}
	if err := ledger.insert(ctx, tx, entry); err != nil {
		return err
	}
	fmt.Println("inserted")
	select {}
}

// Processes that start on an empty database create the tables once, and append
// to one chain without a gap, each key once.
func TestManyProcessesAppendToOneChain(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		keys := s.sign(t)
		writers := make([]*exec.Cmd, writerProcesses)
		for i := range writers {
			writers[i], _ = startChild(t, s, roleWriter, fmt.Sprint("process", i))
		}
		for _, writer := range writers {
			require.NoError(t, writer.Wait())
		}
		own, shared := writerProcesses*writerGoroutines*recordsPerWriter, recordsPerWriter
		requireIntact(t, s.open(t), VerifyOptions{PublicKeys: keys}, own+shared, 1)
	})
}

func TestAnswerLostWithTheProcess(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		ledger := s.open(t)
		record := rotation(ordersID, "orders", 1)
		child, _ := startChild(t, s, roleAnswer, "")
		require.Eventually(t, func() bool {
			_, err := ledger.ByKey(t.Context(), record.Key)
			return err == nil
		}, time.Minute, 10*time.Millisecond)
		kill(t, child)

		written, err := ledger.ByKey(t.Context(), record.Key)
		require.NoError(t, err)
		assert.Equal(t, written, appendAll(t, ledger, record)[0])
		appendAll(t, ledger, rotation(ordersID, "orders", 2))
		requireIntact(t, ledger, VerifyOptions{}, 2, 1)
	})
}

func TestProcessKilledInTheMiddleOfAnAppend(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		ledger := s.open(t)
		child, output := startChild(t, s, roleInMiddle, "")
		require.True(t, output.Scan())
		require.Equal(t, "inserted", output.Text())
		_, err := ledger.ByKey(t.Context(), rotation(ordersID, "orders", 1).Key)
		require.ErrorIs(t, err, ErrNotFound)
		kill(t, child)

		entry := appendAll(t, ledger, rotation(ordersID, "orders", 2))[0]
		assert.EqualValues(t, 1, entry.Sequence)
		requireIntact(t, ledger, VerifyOptions{}, 1, 1)
	})
}

func kill(t *testing.T, child *exec.Cmd) {
	t.Helper()
	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())
}

// Append fails while the database is away, and works when it is back, without a
// new Open.
func TestDatabaseThatIsAway(t *testing.T) {
	server := sharedPostgres.Server(t)
	s := postgresStore(t)
	ledger := s.open(t)
	appendAll(t, ledger, rotation(ordersID, "orders", 1))
	require.NoError(t, server.Crash())
	_, err := ledger.Append(t.Context(), rotation(ordersID, "orders", 2))
	require.ErrorContains(t, err, URLVariable)
	require.Error(t, ledger.Ping(t.Context()))
	_, err = Open(t.Context(), s.url, s.options)
	require.ErrorContains(t, err, URLVariable)
	require.NotErrorIs(t, err, ErrSettings, "it may pass")
	require.NoError(t, server.Restart())
	appendAll(t, ledger, rotation(ordersID, "orders", 1), rotation(ordersID, "orders", 2))
	require.NoError(t, ledger.Ping(t.Context()))
	requireIntact(t, ledger, VerifyOptions{}, 2, 1)
}

// A process that hangs with a chain's lock does not keep others from it for
// longer than the server's timeout.
func TestTransactionThatHangsIsBounded(t *testing.T) {
	ledger := postgresStore(t).open(t)
	tx, err := ledger.database.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer tx.Rollback()
	require.NoError(t, ledger.dialect.lockChain(t.Context(), tx, "chain"))
	var timeout string
	require.NoError(t, tx.QueryRow(`SHOW idle_in_transaction_session_timeout`).Scan(&timeout))
	assert.Equal(t, "1min", timeout)
}

func TestPasswordFileIsReadForEachConnection(t *testing.T) {
	s := postgresStore(t)
	s.open(t) // the superuser owns the tables
	s.exec(t, `CREATE ROLE rotated LOGIN SUPERUSER PASSWORD 'first'`)
	defer s.exec(t, `DROP ROLE rotated`)
	file := t.TempDir() + "/password"
	require.NoError(t, os.WriteFile(file, []byte("first\n"), 0o600))
	ledger, err := Open(t.Context(), strings.Replace(s.url, "keyturn@", "rotated@", 1), Options{PasswordFile: file})
	require.NoError(t, err)
	defer ledger.Close()

	s.exec(t, `ALTER ROLE rotated PASSWORD 'second'`)
	require.NoError(t, os.WriteFile(file, []byte("second"), 0o600))
	s.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated'`)
	require.Eventually(t, func() bool { return ledger.Ping(t.Context()) == nil }, time.Minute, 10*time.Millisecond)

	require.NoError(t, os.WriteFile(file, nil, 0o600)) // while it is being written
	s.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated'`)
	require.Eventually(t, func() bool { return ledger.Ping(t.Context()) == nil && ledger.FilesProblem() != nil }, time.Minute, 10*time.Millisecond)
	assert.ErrorContains(t, ledger.FilesProblem(), PasswordFileVariable)

	require.NoError(t, os.WriteFile(file, []byte("wrong-secret"), 0o600))
	s.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated'`)
	var failure error
	require.Eventually(t, func() bool {
		failure = ledger.Ping(t.Context())
		return failure != nil && strings.Contains(failure.Error(), "28P01")
	}, time.Minute, 10*time.Millisecond)
	assert.NotContains(t, failure.Error(), "wrong-secret")
}

// PostgreSQL's own password file is read again, too.
func TestPGPASSFILEIsReadForEachConnection(t *testing.T) {
	s := postgresStore(t)
	s.open(t)
	s.exec(t, `CREATE ROLE passfile LOGIN SUPERUSER PASSWORD 'first'`)
	defer s.exec(t, `DROP ROLE passfile`)
	file := t.TempDir() + "/pgpass"
	require.NoError(t, os.WriteFile(file, []byte("*:*:*:passfile:first\n"), 0o600))
	t.Setenv("PGPASSFILE", file)
	ledger, err := Open(t.Context(), strings.Replace(s.url, "keyturn@", "passfile@", 1), Options{})
	require.NoError(t, err)
	defer ledger.Close()

	s.exec(t, `ALTER ROLE passfile PASSWORD 'second'`)
	require.NoError(t, os.WriteFile(file, []byte("*:*:*:passfile:second\n"), 0o600))
	s.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'passfile'`)
	require.Eventually(t, func() bool { return ledger.Ping(t.Context()) == nil }, time.Minute, 10*time.Millisecond)
}
