// Package postgres runs a private PostgreSQL server for tests.
package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/maruel/natural"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/support/childproc"
	"keyturn/testsuite/support/freeport"
)

// ErrNotInstalled: the machine has no PostgreSQL server. Tests skip then.
var ErrNotInstalled = errors.New("PostgreSQL is not installed (Debian: apt-get install postgresql)")

const (
	// startTimeout is how long a server may take to accept connections.
	startTimeout = time.Minute
	pollInterval = 50 * time.Millisecond
	// Superuser is the role that every server has.
	Superuser = "keyturn"
	// serverUser runs the server where the tests run as root, which PostgreSQL
	// refuses.
	serverUser = "postgres"
)

// Server is a PostgreSQL server on the loopback interface with its data in a
// temporary directory.
type Server struct {
	binaries  string
	directory string
	port      int
	password  string

	process *childproc.Child
	output  bytes.Buffer
}

// Start makes and starts a server. The caller ends it with Stop; it doesn't
// outlive the process either.
func Start() (*Server, error) {
	binaries, err := findBinaries()
	if err != nil {
		return nil, err
	}
	directory, err := os.MkdirTemp("", "keyturn-postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{binaries: binaries, directory: directory, password: rand.Text()}
	if err := s.initialize(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	if err := s.Restart(); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// StartForTest starts a server for one test, which is skipped where PostgreSQL is
// not installed.
func StartForTest(t testing.TB) *Server {
	t.Helper()
	server, err := Start()
	if errors.Is(err, ErrNotInstalled) {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	return server
}

// findBinaries returns the directory with the newest version's programs. Debian
// has only some of them in PATH.
func findBinaries() (string, error) {
	candidates, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	newest := ""
	for _, candidate := range candidates {
		if newest == "" || natural.Less(newest, candidate) {
			newest = candidate
		}
	}
	if newest == "" {
		if newest, err = exec.LookPath("initdb"); err != nil {
			return "", ErrNotInstalled
		}
	}
	return filepath.Dir(newest), nil
}

func (s *Server) initialize() error {
	if err := os.WriteFile(s.PasswordFile(), []byte(s.password+"\n"), 0o600); err != nil {
		return err
	}
	if err := s.giveToServerUser(); err != nil {
		return err
	}
	output, err := s.command("initdb", "--pgdata", s.data(), "--username", Superuser, "--pwfile", s.PasswordFile(),
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, output)
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.directory, "data") }

// giveToServerUser lets the user that the server runs as own its directory.
func (s *Server) giveToServerUser() error {
	if os.Geteuid() != 0 {
		return nil
	}
	owner, err := user.Lookup(serverUser)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		return err
	}
	for _, path := range []string{s.directory, s.PasswordFile()} {
		if err := os.Chown(path, uid, -1); err != nil {
			return err
		}
	}
	return nil
}

// command runs one of PostgreSQL's programs, not as root. setpriv also renews
// the parent-death signal, which a change of the user clears.
func (s *Server) command(program string, arguments ...string) *exec.Cmd {
	path := filepath.Join(s.binaries, program)
	if os.Geteuid() != 0 {
		return exec.Command(path, arguments...)
	}
	prefix := []string{"--reuid", serverUser, "--regid", serverUser, "--init-groups", "--pdeathsig", "QUIT", "--", path}
	command := exec.Command("setpriv", append(prefix, arguments...)...)
	command.Dir = s.directory
	return command
}

// Restart starts the server again after Crash, at the same address.
func (s *Server) Restart() error {
	if s.port == 0 {
		port, err := freeport.Choose()
		if err != nil {
			return err
		}
		s.port = port
	}
	command := s.command("postgres", "-D", s.data(), "-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=1000")
	s.output.Reset()
	command.Stdout, command.Stderr = &s.output, &s.output
	process, err := childproc.StartInBackground(command)
	if err != nil {
		return err
	}
	s.process = process
	return s.awaitConnections()
}

func (s *Server) awaitConnections() error {
	database, err := s.open()
	if err != nil {
		return err
	}
	defer database.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := database.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.process.Ended():
			return fmt.Errorf("PostgreSQL ended at its start: %s", s.output.String())
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not accept connections: %w", err)
		case <-time.After(pollInterval):
		}
	}
}

// open connects as the superuser.
func (s *Server) open() (*sql.DB, error) {
	return sql.Open("pgx", s.url("postgres"))
}

// url of the superuser with its password.
func (s *Server) url(database string) string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s", Superuser, s.password, s.port, database)
}

// Crash ends the server at once, as a power cut does.
func (s *Server) Crash() error {
	if err := syscall.Kill(s.process.PID(), syscall.SIGQUIT); err != nil {
		return err
	}
	<-s.process.Ended()
	return nil
}

// Stop ends the server and removes its data.
func (s *Server) Stop() error {
	var err error
	if s.process != nil {
		select {
		case <-s.process.Ended():
		default:
			err = s.Crash()
		}
	}
	return errors.Join(err, os.RemoveAll(s.directory))
}

// Port of the server on the loopback interface.
func (s *Server) Port() int { return s.port }

// Password of the superuser.
func (s *Server) Password() string { return s.password }

// Run runs a statement as the superuser. The database "postgres" always exists.
func (s *Server) Run(database, statement string) error {
	connected, err := sql.Open("pgx", s.url(database))
	if err != nil {
		return err
	}
	defer connected.Close()
	_, err = connected.Exec(statement)
	return err
}

// Client runs one of PostgreSQL's client programs as the superuser.
func (s *Server) Client(t testing.TB, program string, arguments ...string) {
	t.Helper()
	command := exec.Command(filepath.Join(s.binaries, program), arguments...)
	command.Env = append(os.Environ(), "PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(s.port), "PGUSER="+Superuser, "PGPASSWORD="+s.password)
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s: %s", program, output)
}

// PasswordFile holds the superuser's password.
func (s *Server) PasswordFile() string { return filepath.Join(s.directory, "password") }

// Database makes an empty database for a test. The URL is the superuser's and
// has no password; superuser is connected to the same database.
func (s *Server) Database(t testing.TB) (url string, superuser *sql.DB) {
	t.Helper()
	server, err := s.open()
	require.NoError(t, err)
	defer server.Close()
	name := "test_" + rand.Text()
	_, err = server.Exec(fmt.Sprintf(`CREATE DATABASE %q`, name))
	require.NoError(t, err)
	superuser, err = sql.Open("pgx", s.url(name))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, superuser.Close()) })
	return s.URL(name), superuser
}

// URL of a database, of the superuser without its password.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s", Superuser, s.port, database)
}

// Shared is one server for the tests of a package, started by the first that
// needs it. The package's TestMain ends it with Stop.
type Shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Server skips the test where PostgreSQL is not installed.
func (s *Shared) Server(t testing.TB) *Server {
	t.Helper()
	s.once.Do(func() { s.server, s.err = Start() })
	if errors.Is(s.err, ErrNotInstalled) {
		t.Skip(s.err)
	}
	require.NoError(t, s.err)
	return s.server
}

// Stop ends the server if a test has started it.
func (s *Shared) Stop() error {
	if s.server == nil {
		return nil
	}
	return s.server.Stop()
}
