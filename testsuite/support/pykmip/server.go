package pykmip

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"keyturn/testsuite/support/childproc"
	"keyturn/testsuite/support/freeport"
	"keyturn/testsuite/support/kmipkeys"
)

const (
	executableName = "pykmip-server"
	loopback       = "127.0.0.1"
	// startTime bounds a start: Python needs a second, and a busy machine many.
	startTime = time.Minute
	// startTries: another process may take the port first.
	startTries    = 3
	pollInterval  = 50 * time.Millisecond
	lastLines     = 20
	adminIdentity = "pykmip-administrator"
)

// startWithGuard starts the server beside a process that kills the whole group
// when this process is gone, however it ends: the system then ends the server,
// but not the two processes that the server itself has started.
const startWithGuard = `(read -r _ <&3; kill -KILL 0) & exec "$@" 3<&-`

// ErrMissing: there is no pykmip-server on this machine.
var ErrMissing = errors.New("pykmip-server is not installed (Debian: apt-get install python3-pykmip)")

// Executable finds pykmip-server; the error is [ErrMissing].
func Executable() (string, error) {
	path, err := exec.LookPath(executableName)
	if err != nil {
		return "", ErrMissing
	}
	return path, nil
}

// Server is a pykmip-server that ends with this process. It speaks TLS 1.2 only,
// demands a client certificate, and shows a key only to the client that made it:
// clients are distinguished by their certificates' common names.
type Server struct {
	executable string
	directory  string
	authority  *kmipkeys.Authority
	port       int
	child      *childproc.Child
	alive      *os.File // closed by the system when this process ends
}

// Start starts a server that keeps its files in the directory, and returns when
// it answers.
func Start(ctx context.Context, directory string) (*Server, error) {
	executable, err := Executable()
	if err != nil {
		return nil, err
	}
	s := &Server{executable: executable, directory: directory}
	if s.authority, err = kmipkeys.NewAuthority(); err != nil {
		return nil, fmt.Errorf("pykmip: %w", err)
	}
	if err := s.writeFiles(); err != nil {
		return nil, fmt.Errorf("pykmip: %w", err)
	}
	for range startTries {
		if s.port, err = freeport.Choose(); err != nil {
			return nil, fmt.Errorf("pykmip: %w", err)
		}
		if err = s.Restart(ctx); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Address is host:port.
func (s *Server) Address() string { return net.JoinHostPort(loopback, strconv.Itoa(s.port)) }

// CAFile holds the certificate of the authority that signed the server's.
func (s *Server) CAFile() string { return s.path("ca.pem") }

// ClientFiles writes a certificate and its key for a client of that name. Each
// call makes a new certificate for the same identity; each adjust may change what
// it says.
func (s *Server) ClientFiles(name string, adjust ...func(*x509.Certificate)) (certificateFile, keyFile string, err error) {
	return s.authority.WriteClient(s.directory, name, adjust...)
}

// NewKeyMaker connects to the server as the client of that name.
func (s *Server) NewKeyMaker(ctx context.Context, name string) (*kmipkeys.KeyMaker, error) {
	certificate, key, err := s.authority.Issue(name)
	if err != nil {
		return nil, fmt.Errorf("pykmip: %w", err)
	}
	return kmipkeys.Connection{Address: s.Address(), ServerName: loopback, CA: s.authority.PEM, Certificate: certificate, Key: key}.Connect(ctx)
}

// Restart starts the server where it is not running, with the port and the keys
// it had, and returns when it answers.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.writeConfiguration(); err != nil {
		return fmt.Errorf("pykmip: %w", err)
	}
	log, err := os.OpenFile(s.path("output.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("pykmip: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	ended, alive, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pykmip: %w", err)
	}
	defer func() { _ = ended.Close() }() // the child has its own
	s.alive = alive
	command := exec.Command("sh", "-c", startWithGuard, "sh", s.executable, "-f", s.path("server.conf"), "-l", s.path("server.log"))
	command.Dir = s.directory
	command.Stdout, command.Stderr = log, log
	command.ExtraFiles = []*os.File{ended} // file descriptor 3
	if s.child, err = childproc.StartInBackground(command); err != nil {
		return fmt.Errorf("pykmip: %w", err)
	}
	if err := s.awaitAnswer(ctx); err != nil {
		s.Stop()
		return fmt.Errorf("pykmip: the server does not answer: %w; its last lines:\n%s", err, s.LastLines())
	}
	return nil
}

// Stop ends the server at once, also one that hangs. The keys stay in its
// directory.
func (s *Server) Stop() {
	if s.child != nil {
		s.child.Kill() // asked to end, it takes up to ten seconds
		_ = s.alive.Close()
	}
}

// Hang has the server's processes stop where they are: connections are accepted
// by the system and nothing answers, until [Server.Continue].
func (s *Server) Hang() error { return syscall.Kill(-s.child.PID(), syscall.SIGSTOP) }

// Continue ends [Server.Hang].
func (s *Server) Continue() error { return syscall.Kill(-s.child.PID(), syscall.SIGCONT) }

// LastLines are the last ones that the server wrote.
func (s *Server) LastLines() string {
	var all []string
	for _, name := range []string{"output.log", "server.log"} {
		content, err := os.ReadFile(s.path(name))
		if err != nil {
			continue // it has written none
		}
		lines := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
		all = append(all, lines[max(0, len(lines)-lastLines):]...)
	}
	return strings.Join(all, "\n")
}

func (s *Server) path(name string) string { return filepath.Join(s.directory, name) }

func (s *Server) writeFiles() error {
	if err := os.MkdirAll(s.path("policies"), 0o700); err != nil {
		return err
	}
	certificate, key, err := s.authority.Issue(loopback)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"ca.pem": s.authority.PEM, "server.pem": certificate, "server.key": key} {
		if err := os.WriteFile(s.path(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) writeConfiguration() error {
	settings := []string{
		"[server]",
		"hostname=" + loopback,
		"port=" + strconv.Itoa(s.port),
		"certificate_path=" + s.path("server.pem"),
		"key_path=" + s.path("server.key"),
		"ca_path=" + s.path("ca.pem"),
		"auth_suite=TLS1.2",
		"policy_path=" + s.path("policies"),
		"enable_tls_client_auth=True",
		"logging_level=WARNING",
		"database_path=" + s.path("keys.sqlite"),
		"",
	}
	return os.WriteFile(s.path("server.conf"), []byte(strings.Join(settings, "\n")), 0o600)
}

func (s *Server) awaitAnswer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		err := s.tryAnswer(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.child.Ended():
			return fmt.Errorf("it has ended: %s", s.child.End())
		case <-ctx.Done():
			return err
		case <-time.After(pollInterval):
		}
	}
}

func (s *Server) tryAnswer(ctx context.Context) error {
	administrator, err := s.NewKeyMaker(ctx, adminIdentity)
	if err != nil {
		return err
	}
	defer administrator.Close()
	return administrator.Query(ctx)
}
