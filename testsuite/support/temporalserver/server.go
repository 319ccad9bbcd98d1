package temporalserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"keyturn/testsuite/support/freeport"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
)

const (
	// readyTime limits the start of a server: about two seconds on an idle
	// machine.
	readyTime = 90 * time.Second
	// readyInterval is the time between two probes during the start.
	readyInterval = 100 * time.Millisecond
	// probeTimeout is the timeout of a probe.
	probeTimeout = 5 * time.Second
	// commandTime is the timeout of a CLI command if its context has no
	// deadline.
	commandTime = time.Minute

	defaultNamespace = "default"
)

// Options of a server. The zero value is an in-memory server on free ports,
// without Web UI, with the executable of [Executable].
type Options struct {
	// Executable is the path of Temporal's CLI; empty means the result of
	// [Executable], which may build it for minutes.
	Executable string
	// Port of the frontend (gRPC) on 127.0.0.1; 0 means a free port.
	Port int
	// UI enables the Web UI.
	UI bool
	// UIPort of the Web UI on 127.0.0.1; 0 means a free port.
	UIPort int
	// DatabaseFile stores the state across restarts; empty means in memory. Its
	// directory must exist.
	DatabaseFile string
	// DynamicConfig is the server's dynamic configuration; values are JSON, for
	// example "limit.historyCount.suggestContinueAsNew": "50".
	DynamicConfig map[string]string
	// Namespaces are created at the start; the first one is the Server's
	// Namespace. Empty means "default", which always exists.
	Namespaces []string
	// Arguments are added to `temporal server start-dev`.
	Arguments []string
	// postgresql runs Temporal's own server, not the development server.
	postgresql *postgresqlStore
	// Output receives the server's log (warnings and errors); nil discards it.
	// One goroutine at a time writes to it until the server is stopped.
	Output io.Writer
}

// Server is a running Temporal development server. It is safe for concurrent
// use.
type Server struct {
	// Address of the frontend, host:port.
	Address string
	// Namespace is the first namespace in the options, or "default".
	Namespace string
	// UIAddress is the http address of the Web UI; empty without Web UI.
	UIAddress string
	// MetricsAddress is the http address of the server's Prometheus metrics.
	MetricsAddress string
	// DatabaseFile as in the options; empty means in memory.
	DatabaseFile string

	options   Options
	ports     ports
	program   string // with its arguments
	arguments []string

	mutex    sync.Mutex // held while the process starts or stops
	process  *process
	attached bool // somebody else runs it: it has no process here
}

// Start starts a server and returns when it responds and its namespaces exist,
// within 90 seconds. If that fails, the error contains the last lines of the
// log, and no process is left. ctx limits only the start.
func Start(ctx context.Context, options Options) (*Server, error) {
	if options.Executable == "" {
		path, err := Executable(ctx, nil)
		if err != nil {
			return nil, err
		}
		options.Executable = path
	}
	if len(options.Namespaces) == 0 {
		options.Namespaces = []string{defaultNamespace}
	}
	chosen, err := choosePorts(options)
	if err != nil {
		return nil, err
	}
	server := &Server{
		Address: freeport.Address(chosen.frontend), Namespace: options.Namespaces[0], DatabaseFile: options.DatabaseFile,
		MetricsAddress: "http://" + freeport.Address(chosen.metrics) + "/metrics",
		options:        options, ports: chosen,
	}
	if options.UI {
		server.UIAddress = "http://" + freeport.Address(chosen.ui)
	}
	if err := server.prepare(); err != nil {
		return nil, err
	}
	if err := server.launch(ctx); err != nil {
		return nil, err
	}
	return server, nil
}

// attach returns a server that this package does not run.
func attach(ctx context.Context, executable, address, namespace string) (*Server, error) {
	server := &Server{Address: address, Namespace: namespace, attached: true, options: Options{Executable: executable, Namespaces: []string{namespace}}}
	temporal, err := server.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("temporalserver: connecting to %s: %w", address, err)
	}
	defer temporal.Close()
	if err := server.probe(ctx, temporal); err != nil {
		return nil, fmt.Errorf("temporalserver: the server at %s, namespace %s: %w", address, namespace, err)
	}
	return server, nil
}

// Stop stops the server with SIGTERM, and kills it after 15 seconds. Stopping a
// stopped server, or one that this package does not run, does nothing.
func (s *Server) Stop() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.attached {
		return
	}
	s.process.stop()
}

// Kill ends the server with SIGKILL, like a crash of its machine.
func (s *Server) Kill() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.process.kill()
}

// Restart starts the server again on the same ports and database file, and
// stops it first if it is running. It returns, and fails, like [Start].
func (s *Server) Restart(ctx context.Context) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.process.stop()
	return s.launch(ctx)
}

// PID is the process ID of the server's current or last process.
func (s *Server) PID() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.process.command.Process.Pid
}

// LastLines returns the last 30 lines of the log since the last start.
func (s *Server) LastLines() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.attached {
		return "(the log of " + s.Address + " is not here)"
	}
	return s.process.tail.String()
}

// Dial returns a client for the server's namespace that logs nothing. The
// caller must close it.
func (s *Server) Dial(ctx context.Context) (client.Client, error) {
	return client.DialContext(ctx, s.clientOptions())
}

// CLI runs Temporal's CLI against this server and its namespace, for example
// CLI(ctx, "workflow", "list", "--output", "json"). The timeout is one minute
// unless ctx has a deadline. err is an [*exec.ExitError] if the command failed.
func (s *Server) CLI(ctx context.Context, arguments ...string) (stdout, stderr string, err error) {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, commandTime)
		defer cancel()
	}
	var out, messages bytes.Buffer
	command := exec.CommandContext(ctx, s.options.Executable, arguments...)
	command.Env = append(toolEnvironment(), "TEMPORAL_ADDRESS="+s.Address, "TEMPORAL_NAMESPACE="+s.Namespace)
	command.Stdout, command.Stderr = &out, &messages
	command.WaitDelay = outputTime
	err = command.Run()
	return out.String(), messages.String(), err
}

// Environment is that of a program which uses the server by Temporal's CLI, which is
// then in a directory of the PATH. The directory is made.
func (s *Server) Environment(directory string) ([]string, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	if err := os.Symlink(s.options.Executable, filepath.Join(directory, "temporal")); err != nil {
		return nil, err
	}
	path := directory + string(os.PathListSeparator) + os.Getenv("PATH")
	return append(toolEnvironment(), "PATH="+path, "TEMPORAL_ADDRESS="+s.Address, "TEMPORAL_NAMESPACE="+s.Namespace), nil
}

// launch starts the process and waits until it is ready.
func (s *Server) launch(ctx context.Context) error {
	started, err := startProcess(s.program, s.arguments, toolEnvironment(), s.options.Output)
	if err != nil {
		return fmt.Errorf("temporalserver: starting %s: %w", s.program, err)
	}
	s.process = started
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := s.waitUntilReady(ctx); err != nil {
		started.kill()
		return fmt.Errorf("temporalserver: the server at %s did not start: %w; last log lines:\n%s", s.Address, err, started.tail)
	}
	return nil
}

// prepare decides which program runs, and makes what it needs.
func (s *Server) prepare() (err error) {
	if s.options.postgresql == nil {
		s.program, s.arguments = s.options.Executable, s.developmentArguments()
		return nil
	}
	if s.program, s.arguments, err = s.options.postgresql.command(s); err != nil {
		return fmt.Errorf("temporalserver: %w", err)
	}
	return nil
}

func (s *Server) developmentArguments() []string {
	arguments := []string{
		"server", "start-dev", "--ip", freeport.Loopback,
		"--port", strconv.Itoa(s.ports.frontend),
		"--http-port", strconv.Itoa(s.ports.http),
		"--metrics-port", strconv.Itoa(s.ports.metrics),
		// The version check would send a request to the Internet at every
		// start.
		"--dynamic-config-value", "frontend.enableServerVersionCheck=false",
	}
	if s.options.UI {
		arguments = append(arguments, "--ui-port", strconv.Itoa(s.ports.ui))
	} else {
		arguments = append(arguments, "--headless")
	}
	if s.DatabaseFile != "" {
		arguments = append(arguments, "--db-filename", s.DatabaseFile)
	}
	for _, namespace := range s.options.Namespaces {
		if namespace != defaultNamespace {
			arguments = append(arguments, "--namespace", namespace)
		}
	}
	for key, value := range s.options.DynamicConfig {
		arguments = append(arguments, "--dynamic-config-value", key+"="+value)
	}
	return append(arguments, s.options.Arguments...)
}

// toolEnvironment removes everything that depends on the machine: settings for
// other servers, and the home directory, whose files the server would read and
// write.
func toolEnvironment() []string {
	kept := environmentWithout(os.Environ(), "TEMPORAL_*", "HOME", "XDG_CONFIG_HOME")
	return append(kept, "NO_COLOR=1", "TEMPORAL_CONFIG_FILE="+os.DevNull)
}

func (s *Server) clientOptions() client.Options {
	return client.Options{
		HostPort: s.Address, Namespace: s.Namespace,
		Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	}
}

// waitUntilReady probes the server until it is ready, its process ends, or ctx
// ends.
func (s *Server) waitUntilReady(ctx context.Context) error {
	temporal, err := client.NewLazyClient(s.clientOptions())
	if err != nil {
		return err
	}
	defer temporal.Close()
	for {
		lastErr := s.probe(ctx, temporal)
		if lastErr == nil {
			return nil
		}
		select {
		case <-s.process.ended:
			return fmt.Errorf("the process exited (%w)", s.process.err)
		case <-ctx.Done():
			return fmt.Errorf("%w; last error: %w", ctx.Err(), lastErr)
		case <-time.After(readyInterval):
		}
	}
}

// probe calls each service of the server: the frontend responds earlier than
// the others, and the start of the first workflow would wait for them.
func (s *Server) probe(ctx context.Context, temporal client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if !s.attached && s.process.isEnded() {
		return errors.New("the process has exited")
	}
	if _, err := temporal.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return err
	}
	if s.options.postgresql != nil {
		if err := s.registerNamespaces(ctx, temporal); err != nil {
			return err
		}
	}
	for _, namespace := range s.options.Namespaces {
		request := &workflowservice.DescribeNamespaceRequest{Namespace: namespace}
		if _, err := temporal.WorkflowService().DescribeNamespace(ctx, request); err != nil {
			return err
		}
	}
	if _, err := temporal.DescribeTaskQueueEnhanced(ctx, client.DescribeTaskQueueEnhancedOptions{TaskQueue: "is-matching-ready"}); err != nil {
		return err
	}
	_, err := temporal.DescribeWorkflowExecution(ctx, "is-history-ready", "")
	var notFound *serviceerror.NotFound
	if !errors.As(err, &notFound) {
		return err
	}
	return nil
}

// PriorityMatching is the dynamic configuration that enables task priorities in
// the pinned version of the server.
const PriorityMatching = "matching.useNewMatcher"
