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
	"strconv"
	"sync"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
)

const (
	// readyTime is how long a server may take until it answers: about two
	// seconds on a quiet machine.
	readyTime = 90 * time.Second
	// readyInterval is the time between two questions whether it does.
	readyInterval = 100 * time.Millisecond
	// answerTime is how long one such question may take.
	answerTime = 5 * time.Second
	// commandTime is how long a run of the command line tool may take when its
	// context sets no limit.
	commandTime = time.Minute

	defaultNamespace = "default"
)

// Options of a server. The zero value is a server in memory on free ports,
// without Web UI, of the executable that [Executable] finds.
type Options struct {
	// Executable is the path of Temporal's command line tool; empty = the one
	// that [Executable] finds, which may have to build it for minutes.
	Executable string
	// Port of the frontend (gRPC) on 127.0.0.1; 0 = a free one.
	Port int
	// UI turns the Web UI on.
	UI bool
	// UIPort of the Web UI on 127.0.0.1; 0 = a free one.
	UIPort int
	// DatabaseFile keeps the state over restarts; empty = in memory. Its
	// directory must be there.
	DatabaseFile string
	// DynamicConfig sets the server's dynamic configuration; values are JSON,
	// as in "limit.historyCount.suggestContinueAsNew": "50".
	DynamicConfig map[string]string
	// Namespaces to have; the first one is the Server's Namespace. Empty =
	// "default", which is always there.
	Namespaces []string
	// Arguments are further ones of `temporal server start-dev`.
	Arguments []string
	// Output gets what the server writes (its warnings and errors); nil =
	// nothing. It is used by one goroutine at a time, until the server is
	// stopped.
	Output io.Writer
}

// Server is a running Temporal development server. Its methods may be called
// from several goroutines.
type Server struct {
	// Address of the frontend, host:port.
	Address string
	// Namespace is the first one asked for, else "default".
	Namespace string
	// UIAddress is the Web UI's http address; empty = no Web UI.
	UIAddress string
	// MetricsAddress is the http address of the server's own metrics, as
	// Prometheus reads them.
	MetricsAddress string
	// DatabaseFile as in the options; empty = in memory.
	DatabaseFile string

	options Options
	ports   ports

	mutex   sync.Mutex // held while the process is started or ended
	process *process
}

// Start starts a server and returns when it answers and its namespaces are
// there, within 90 seconds. The error of a server that doesn't come up shows the
// last lines that it wrote; no process is left then. ctx bounds the start only.
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
		Address: address(chosen.frontend), Namespace: options.Namespaces[0], DatabaseFile: options.DatabaseFile,
		MetricsAddress: "http://" + address(chosen.metrics) + "/metrics",
		options:        options, ports: chosen,
	}
	if options.UI {
		server.UIAddress = "http://" + address(chosen.ui)
	}
	if err := server.launch(ctx); err != nil {
		return nil, err
	}
	return server, nil
}

// Stop has the server end by itself, and kills it if that takes longer than 15
// seconds. Stopping a stopped server does nothing.
func (s *Server) Stop() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.process.stop()
}

// Kill ends the server at once (SIGKILL), as a crash of its machine would.
func (s *Server) Kill() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.process.kill()
}

// Restart starts the server again on the same ports and database file, stopping
// it first if it runs. It returns, and fails, as [Start] does.
func (s *Server) Restart(ctx context.Context) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.process.stop()
	return s.launch(ctx)
}

// PID is the number of the server's latest process.
func (s *Server) PID() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.process.command.Process.Pid
}

// LastLines returns the last 30 lines that the server wrote since its latest
// start.
func (s *Server) LastLines() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.process.tail.String()
}

// Dial returns a client of the server's namespace that logs nothing. The caller
// closes it.
func (s *Server) Dial(ctx context.Context) (client.Client, error) {
	return client.DialContext(ctx, s.clientOptions())
}

// CLI runs Temporal's command line tool against this server and its namespace,
// as in CLI(ctx, "workflow", "list", "--output", "json"), for a minute at most
// if ctx sets no other limit. err is an [*exec.ExitError] if the tool failed.
func (s *Server) CLI(ctx context.Context, arguments ...string) (stdout, stderr string, err error) {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, commandTime)
		defer cancel()
	}
	var out, complaints bytes.Buffer
	command := exec.CommandContext(ctx, s.options.Executable, arguments...)
	command.Env = append(toolEnvironment(), "TEMPORAL_ADDRESS="+s.Address, "TEMPORAL_NAMESPACE="+s.Namespace)
	command.Stdout, command.Stderr = &out, &complaints
	command.WaitDelay = outputTime
	err = command.Run()
	return out.String(), complaints.String(), err
}

// launch starts the process and waits until it answers.
func (s *Server) launch(ctx context.Context) error {
	started, err := startProcess(s.options.Executable, s.arguments(), toolEnvironment(), s.options.Output)
	if err != nil {
		return fmt.Errorf("temporalserver: starting %s: %w", s.options.Executable, err)
	}
	s.process = started
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := s.waitUntilReady(ctx); err != nil {
		started.kill()
		return fmt.Errorf("temporalserver: the server at %s did not come up: %w; its last lines:\n%s", s.Address, err, started.tail)
	}
	return nil
}

func (s *Server) arguments() []string {
	arguments := []string{
		"server", "start-dev", "--ip", loopback,
		"--port", strconv.Itoa(s.ports.frontend),
		"--http-port", strconv.Itoa(s.ports.http),
		"--metrics-port", strconv.Itoa(s.ports.metrics),
		// The check would tell a server on the Internet of every start.
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

// toolEnvironment is without what would make the tool depend on the machine it
// runs on: settings for another server, and the files in the home directory,
// which the server would also write to.
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

// waitUntilReady asks until the server answers, its process ends, or ctx does.
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
			return fmt.Errorf("it ended (%w)", s.process.err)
		case <-ctx.Done():
			return fmt.Errorf("%w; its last answer: %w", ctx.Err(), lastErr)
		case <-time.After(readyInterval):
		}
	}
}

// probe asks each of the server's services something: the frontend answers well
// before the others do, and the first workflow's start would wait for them.
func (s *Server) probe(ctx context.Context, temporal client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if s.process.isEnded() {
		return errors.New("the process is gone")
	}
	if _, err := temporal.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return err
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

// PriorityMatching is the dynamic configuration by which the pinned version of
// the server orders its task queues by priority.
const PriorityMatching = "matching.useNewMatcher"
