package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/childproc"
	"keyturn/testsuite/support/temporalserver"
)

// logLines is how many of the last log lines of a worker are shown in an error.
const logLines = 20

// harness is shared by all measurements: the worker executable and an in-memory
// Temporal server with default settings.
type harness struct {
	folder   string
	progress io.Writer
	server   *temporalserver.Server
	temporal client.Client
	targets  int
}

// newHarness builds the worker and starts the server. The caller must stop it.
func newHarness(ctx context.Context, serverArguments []string, progress io.Writer) (*harness, error) {
	r := &harness{progress: progress}
	if err := r.start(ctx, serverArguments); err != nil {
		return nil, errors.Join(err, r.stop())
	}
	return r, nil
}

func (r *harness) start(ctx context.Context, serverArguments []string) (err error) {
	root, err := childproc.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	if r.folder, err = os.MkdirTemp("", "keyturn-bench-"); err != nil {
		return err
	}
	r.progressf("building the worker")
	if err := childproc.Build(ctx, root, r.folder, r.folder, r.progress, "./worker"); err != nil {
		return err
	}
	executable, err := temporalserver.ExecutableForProgram(ctx, func(line string) { r.progressf("%s", line) })
	if err != nil {
		return err
	}
	r.server, err = temporalserver.Start(ctx, temporalserver.Options{Executable: executable, Arguments: serverArguments})
	if err != nil {
		return err
	}
	r.temporal, err = r.server.Dial(ctx)
	return err
}

func (r *harness) stop() error {
	if r.temporal != nil {
		r.temporal.Close()
	}
	if r.server != nil {
		r.server.Kill() // its state is in memory: there is nothing to save
	}
	if r.folder == "" {
		return nil
	}
	return os.RemoveAll(r.folder)
}

// progressf reports progress.
func (r *harness) progressf(format string, arguments ...any) {
	fmt.Fprintf(r.progress, format+"\n", arguments...)
}

// machine is the environment of the measurements.
type machine struct {
	Cores          int       `json:"cores"`
	System         string    `json:"system"`
	GoVersion      string    `json:"goVersion"`
	TemporalServer string    `json:"temporalServer"`
	MeasuredAt     time.Time `json:"measuredAt"`
}

func (r *harness) machine(ctx context.Context) (machine, error) {
	info, err := r.temporal.WorkflowService().GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{})
	if err != nil {
		return machine{}, err
	}
	return machine{
		Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, GoVersion: runtime.Version(),
		TemporalServer: info.GetServerVersion(), MeasuredAt: time.Now().UTC().Truncate(time.Second),
	}, nil
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores, %s, %s, Temporal server %s (start-dev, default settings)",
		m.MeasuredAt.Format(time.DateOnly), m.Cores, m.System, m.GoVersion, m.TemporalServer)
}

// target is a simulated Ops Manager with workers on a task queue of their own,
// so that measurements do not affect each other.
type target struct {
	harness   *harness
	om        *simulator.Server
	taskQueue string
	workers   []*childproc.Child
	// inFlight is the OPS_MANAGER_MAX_IN_FLIGHT of each worker; 0 means no
	// limit.
	inFlight int
}

// newTarget starts an Ops Manager with clusters, and workers with a limit of
// requests in flight (0 means no limit). The caller must close it.
func (r *harness) newTarget(ctx context.Context, latency time.Duration, workers, inFlight int, populate func(*simulator.Server)) (*target, error) {
	om := simulator.New(simulator.Options{Latency: latency})
	server, err := simulator.Listen(om, "127.0.0.1:0", nil)
	if err != nil {
		om.Close()
		return nil, fmt.Errorf("starting the simulated Ops Manager: %w", err)
	}
	populate(server)
	r.targets++
	s := &target{harness: r, om: server, taskQueue: "bench-" + strconv.Itoa(r.targets), inFlight: inFlight}
	if err := s.startWorkers(ctx, workers); err != nil {
		s.close()
		return nil, s.withWorkerLogs(err)
	}
	return s, nil
}

func (s *target) startWorkers(ctx context.Context, workers int) error {
	for range workers {
		log, err := os.Create(s.logOf(len(s.workers)))
		if err != nil {
			return err
		}
		worker, err := childproc.StartWorker(filepath.Join(s.harness.folder, "worker"), log, s.variables()...)
		log.Close() // the worker has its own handle
		if err != nil {
			return err
		}
		s.workers = append(s.workers, worker)
	}
	if err := childproc.AwaitPolling(ctx, s.harness.server, s.taskQueue, s.workers...); err != nil {
		return fmt.Errorf("the worker did not start: %w", err)
	}
	return nil
}

func (s *target) variables() []childproc.Variable {
	return []childproc.Variable{
		{Name: "TEMPORAL_ADDRESS", Value: s.harness.server.Address},
		{Name: "TEMPORAL_NAMESPACE", Value: s.harness.server.Namespace},
		{Name: "TEMPORAL_CONFIG_FILE", Value: os.DevNull}, // the user's file may require TLS
		{Name: "OPS_MANAGER_URL", Value: s.om.URL},
		{Name: "OPS_MANAGER_PUBLIC_KEY", Value: simulator.DefaultPublicKey},
		{Name: "OPS_MANAGER_PRIVATE_KEY", Value: simulator.DefaultPrivateKey},
		{Name: "OPS_MANAGER_MAX_IN_FLIGHT", Value: strconv.Itoa(s.inFlight)},
		{Name: "KEYTURN_TASK_QUEUE", Value: s.taskQueue},
	}
}

func (s *target) logOf(worker int) string {
	return filepath.Join(s.harness.folder, fmt.Sprintf("%s-worker-%d.log", s.taskQueue, worker))
}

// close stops everything that the target has started. It may be called again.
func (s *target) close() {
	for _, worker := range s.workers {
		worker.Kill()
	}
	s.om.Close()
}

// withWorkerLogs adds the last log lines of the workers to an error.
func (s *target) withWorkerLogs(err error) error {
	if err == nil {
		return nil
	}
	for i := range s.workers {
		text, readErr := os.ReadFile(s.logOf(i))
		if readErr != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		err = fmt.Errorf("%w\nlast log lines of worker %d:\n%s", err, i+1, strings.Join(lines[max(0, len(lines)-logLines):], "\n"))
	}
	return err
}

// whileWorkersRun returns a context that ends when one of the workers ends.
func (s *target) whileWorkersRun(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stops := []context.CancelFunc{cancel}
	for _, worker := range s.workers {
		var stop context.CancelFunc
		ctx, stop = childproc.WhileWorkerRuns(ctx, worker)
		stops = append(stops, stop)
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
	}
}
