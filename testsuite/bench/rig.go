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

	"keyturn/testsuite/programs"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/temporalserver"
)

// logLines is how many of a worker's last lines are shown where something fails.
const logLines = 20

// rig is what all measurements share: the worker's program and a Temporal
// server with stock settings, in memory.
type rig struct {
	folder   string
	progress io.Writer
	server   *temporalserver.Server
	temporal client.Client
	sites    int
}

// newRig builds the worker and starts the server. The caller stops it.
func newRig(ctx context.Context, serverArguments []string, progress io.Writer) (*rig, error) {
	r := &rig{progress: progress}
	if err := r.start(ctx, serverArguments); err != nil {
		return nil, errors.Join(err, r.stop())
	}
	return r, nil
}

func (r *rig) start(ctx context.Context, serverArguments []string) (err error) {
	root, err := programs.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	if r.folder, err = os.MkdirTemp("", "keyturn-bench-"); err != nil {
		return err
	}
	r.tell("building the worker")
	if err := programs.Build(ctx, root, r.folder, r.folder, r.progress, "./worker"); err != nil {
		return err
	}
	executable, err := programs.TemporalExecutable(ctx, func(line string) { r.tell("%s", line) })
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

func (r *rig) stop() error {
	if r.temporal != nil {
		r.temporal.Close()
	}
	if r.server != nil {
		r.server.Kill() // its state is in memory: an orderly end would keep nothing
	}
	if r.folder == "" {
		return nil
	}
	return os.RemoveAll(r.folder)
}

// tell says on the way what is going on.
func (r *rig) tell(format string, arguments ...any) {
	fmt.Fprintf(r.progress, format+"\n", arguments...)
}

// machine is what figures depend on.
type machine struct {
	Cores          int       `json:"cores"`
	System         string    `json:"system"`
	GoVersion      string    `json:"goVersion"`
	TemporalServer string    `json:"temporalServer"`
	MeasuredAt     time.Time `json:"measuredAt"`
}

func (r *rig) machine(ctx context.Context) (machine, error) {
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
	return fmt.Sprintf("%s, %d cores, %s, %s, Temporal server %s (start-dev, stock settings)",
		m.MeasuredAt.Format(time.DateOnly), m.Cores, m.System, m.GoVersion, m.TemporalServer)
}

// site is a simulated Ops Manager and the workers that rotate there, on a task
// queue of their own, so that no figure is another site's.
type site struct {
	rig       *rig
	om        *simulator.Server
	taskQueue string
	workers   []*programs.Child
	// inFlight is each worker's OPS_MANAGER_MAX_IN_FLIGHT; 0 = no limit.
	inFlight int
}

// newSite starts an Ops Manager with clusters, and workers that have so many
// requests in flight at the most (0 = no limit). The caller closes it.
func (r *rig) newSite(ctx context.Context, latency time.Duration, workers, inFlight int, populate func(*simulator.Server)) (*site, error) {
	om := simulator.New(simulator.Options{Latency: latency})
	server, err := simulator.Listen(om, "127.0.0.1:0", nil)
	if err != nil {
		om.Close()
		return nil, fmt.Errorf("starting the simulated Ops Manager: %w", err)
	}
	populate(server)
	r.sites++
	s := &site{rig: r, om: server, taskQueue: "bench-" + strconv.Itoa(r.sites), inFlight: inFlight}
	if err := s.startWorkers(ctx, workers); err != nil {
		s.close()
		return nil, s.explain(err)
	}
	return s, nil
}

func (s *site) startWorkers(ctx context.Context, workers int) error {
	for range workers {
		log, err := os.Create(s.logOf(len(s.workers)))
		if err != nil {
			return err
		}
		worker, err := programs.StartWorker(filepath.Join(s.rig.folder, "worker"), log, s.variables()...)
		log.Close() // the worker has it, too
		if err != nil {
			return err
		}
		s.workers = append(s.workers, worker)
	}
	if err := programs.AwaitPolling(ctx, s.rig.server, s.taskQueue, s.workers...); err != nil {
		return fmt.Errorf("the worker did not come up: %w", err)
	}
	return nil
}

func (s *site) variables() []programs.Variable {
	return []programs.Variable{
		{Name: "TEMPORAL_ADDRESS", Value: s.rig.server.Address},
		{Name: "TEMPORAL_NAMESPACE", Value: s.rig.server.Namespace},
		{Name: "TEMPORAL_CONFIG_FILE", Value: os.DevNull}, // the user's own may ask for TLS
		{Name: "OPS_MANAGER_URL", Value: s.om.URL},
		{Name: "OPS_MANAGER_PUBLIC_KEY", Value: simulator.DefaultPublicKey},
		{Name: "OPS_MANAGER_PRIVATE_KEY", Value: simulator.DefaultPrivateKey},
		{Name: "OPS_MANAGER_MAX_IN_FLIGHT", Value: strconv.Itoa(s.inFlight)},
		{Name: "KEYTURN_TASK_QUEUE", Value: s.taskQueue},
	}
}

func (s *site) logOf(worker int) string {
	return filepath.Join(s.rig.folder, fmt.Sprintf("%s-worker-%d.log", s.taskQueue, worker))
}

// close ends what the site has started; it may be called again.
func (s *site) close() {
	for _, worker := range s.workers {
		worker.Kill()
	}
	s.om.Close()
}

// explain adds to an error what the workers said last.
func (s *site) explain(err error) error {
	if err == nil {
		return nil
	}
	for i := range s.workers {
		text, readErr := os.ReadFile(s.logOf(i))
		if readErr != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		err = fmt.Errorf("%w\nworker %d said last:\n%s", err, i+1, strings.Join(lines[max(0, len(lines)-logLines):], "\n"))
	}
	return err
}

// whileWorkersRun returns a context that ends with the first worker that does.
func (s *site) whileWorkersRun(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stops := []context.CancelFunc{cancel}
	for _, worker := range s.workers {
		var stop context.CancelFunc
		ctx, stop = programs.WhileWorkerRuns(ctx, worker)
		stops = append(stops, stop)
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
	}
}
