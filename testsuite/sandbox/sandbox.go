package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

const (
	// workerTime is how long the worker may take until it polls.
	workerTime = 60 * time.Second
	// workerInterval is the time between two looks at whether it does.
	workerInterval = 200 * time.Millisecond
)

// sandbox is all that runs, and what it was started with.
type sandbox struct {
	settings       settings
	stdout, stderr io.Writer

	ports  ports
	root   string // of the module
	folder folder

	executable string // Temporal's tool
	temporal   *temporalserver.Server
	om         *simulator.Server
	clusters   []simulator.ShardedCluster
	worker     *child
}

// run is the sandbox's whole life. Nothing that it has started is left when it
// returns, and the temporary folder only if something has failed.
func run(ctx context.Context, configured settings, stdout, stderr io.Writer) error {
	s := &sandbox{settings: configured, stdout: stdout, stderr: stderr}
	err := s.live(ctx)
	s.stop()
	return errors.Join(err, s.cleanUp(err))
}

func (s *sandbox) live(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return causeOf(ctx, err)
	}
	err := s.rotateAndCompare(ctx)
	if s.settings.once || ctx.Err() != nil {
		return causeOf(ctx, err)
	}
	s.stayUp(ctx, err)
	return err
}

// causeOf is err, unless it is but a consequence of ctx having ended.
func causeOf(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (s *sandbox) start(ctx context.Context) (err error) {
	if s.ports, err = choosePorts(s.settings); err != nil {
		return err
	}
	if s.root, err = moduleRoot(ctx); err != nil {
		return err
	}
	if s.folder, err = newFolder(); err != nil {
		return err
	}
	s.tell("building", "the worker and the starter")
	if err := buildPrograms(ctx, s.root, s.folder, s.stderr); err != nil {
		return err
	}
	if err := s.startTemporal(ctx); err != nil {
		return err
	}
	if err := s.startOpsManager(); err != nil {
		return err
	}
	return s.startWorker(ctx)
}

func (s *sandbox) startTemporal(ctx context.Context) (err error) {
	s.executable, err = temporalExecutable(ctx, func(line string) { s.tell("building", line) })
	if err != nil {
		return err
	}
	s.temporal, err = temporalserver.Start(ctx, temporalserver.Options{
		Executable: s.executable, Port: s.ports.temporal, UI: true, UIPort: s.ports.ui,
	})
	if err != nil {
		return err
	}
	s.tell("Temporal", s.temporal.Address+unlessTaken(s.ports.temporal, usualTemporalPort))
	s.tell("Web UI", s.temporal.UIAddress+unlessTaken(s.ports.ui, usualUIPort))
	return nil
}

func (s *sandbox) startOpsManager() (err error) {
	if s.om, err = startOpsManager(s.ports.simulator, s.settings.latency); err != nil {
		return err
	}
	s.clusters = addClusters(s.om, s.settings.clusters, s.settings.shards)
	s.tell("Ops Manager", s.om.URL+", simulated"+unlessTaken(s.ports.simulator, usualSimulatorPort))
	for _, cluster := range s.clusters {
		s.tell("cluster", fmt.Sprintf("%s, %d targets: its shards and its config server", cluster.Name, len(cluster.TargetIDs())))
	}
	return nil
}

// startWorker returns when the worker polls.
func (s *sandbox) startWorker(ctx context.Context) error {
	if err := os.WriteFile(s.folder.privateKey(), []byte(simulator.DefaultPrivateKey+"\n"), 0o600); err != nil {
		return err
	}
	log, err := os.Create(s.folder.workerLog())
	if err != nil {
		return err
	}
	defer log.Close() // the worker has it, too
	command := exec.Command(s.folder.binary("worker"))
	command.Env = s.environment()
	command.Stdout, command.Stderr = log, log
	worker, err := startInBackground(command)
	if err != nil {
		return fmt.Errorf("starting the worker: %w", err)
	}
	s.worker = worker
	if err := s.awaitPolling(ctx); err != nil {
		return fmt.Errorf("the worker did not come up: %w", err)
	}
	s.tell("worker", "polls task queue "+workflows.DefaultTaskQueue)
	return nil
}

// awaitPolling returns when somebody polls the task queue: the worker, since
// nobody else knows of this Temporal yet.
func (s *sandbox) awaitPolling(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, workerTime, fmt.Errorf("it does not poll after %s", workerTime))
	defer cancel()
	ctx, stopWatching := s.whileWorkerRuns(ctx)
	defer stopWatching()
	temporal, err := s.temporal.Dial(ctx)
	if err != nil {
		return err
	}
	defer temporal.Close()
	for !isPolled(ctx, temporal) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(workerInterval):
		}
	}
	return nil
}

// isPolled is false, too, as long as Temporal can't tell.
func isPolled(ctx context.Context, temporal client.Client) bool {
	described, err := temporal.DescribeTaskQueue(ctx, workflows.DefaultTaskQueue, enums.TASK_QUEUE_TYPE_ACTIVITY)
	return err == nil && len(described.GetPollers()) > 0
}

// whileWorkerRuns returns a context that ends with the worker, too.
func (s *sandbox) whileWorkerRuns(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-s.worker.ended:
			cancel(fmt.Errorf("the worker has ended (%s)", endOf(s.worker)))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// endOf tells how a child that has ended did so.
func endOf(c *child) string {
	if c.err == nil {
		return "exit status 0"
	}
	return c.err.Error()
}

// stayUp returns when ctx ends.
func (s *sandbox) stayUp(ctx context.Context, failure error) {
	if failure != nil {
		fmt.Fprintln(s.stderr, "sandbox:", failure)
	}
	fmt.Fprint(s.stdout, s.hints(ctx))
	fmt.Fprintln(s.stdout, "\nAll of it stays up until Ctrl-C.")
	select {
	case <-ctx.Done():
	case <-s.worker.ended:
		// Somebody may have wanted to see what happens: no reason to end.
		fmt.Fprintf(s.stderr, "sandbox: the worker has ended (%s), its log is %s; with the variables above, go run ./worker starts another one\n",
			endOf(s.worker), s.folder.workerLog())
		<-ctx.Done()
	}
	fmt.Fprintln(s.stdout, "\nending")
}

// stop ends all that was started; the order keeps each from complaining of the
// other's end.
func (s *sandbox) stop() {
	if s.worker != nil {
		s.worker.stop()
	}
	if s.temporal != nil {
		s.temporal.Kill() // its state is in memory: an orderly end would keep nothing
	}
	if s.om != nil {
		s.om.Close()
	}
}

// cleanUp removes the folder. Where something has failed, the worker's log stays
// and is named.
func (s *sandbox) cleanUp(failure error) error {
	var interrupted *interruption
	switch {
	case s.folder == "":
		return nil
	case failure == nil, s.worker == nil, errors.As(failure, &interrupted):
		return s.folder.removeAll()
	}
	fmt.Fprintln(s.stderr, "sandbox: the worker's log is", s.folder.workerLog())
	return s.folder.removeAllButLog()
}

// environment is that of the worker and the starter: the user's own without what
// would lead elsewhere.
func (s *sandbox) environment() []string {
	var kept []string
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); !leadsElsewhere(name) {
			kept = append(kept, entry)
		}
	}
	for _, variable := range append(s.temporalVariables(), s.opsManagerVariables()...) {
		kept = append(kept, variable.name+"="+variable.value)
	}
	return kept
}

func leadsElsewhere(name string) bool {
	for _, prefix := range []string{"TEMPORAL_", "OPS_MANAGER_", "KEYTURN_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

type variable struct{ name, value string }

func (s *sandbox) temporalVariables() []variable {
	return []variable{
		{"TEMPORAL_ADDRESS", s.temporal.Address},
		{"TEMPORAL_NAMESPACE", s.temporal.Namespace},
		{"TEMPORAL_CONFIG_FILE", os.DevNull}, // the user's own may ask for TLS
	}
}

func (s *sandbox) opsManagerVariables() []variable {
	return []variable{
		{"OPS_MANAGER_URL", s.om.URL},
		{"OPS_MANAGER_PUBLIC_KEY", simulator.DefaultPublicKey},
		{"OPS_MANAGER_PRIVATE_KEY_FILE", s.folder.privateKey()},
	}
}

// tell prints a line about a part of the sandbox.
func (s *sandbox) tell(part, text string) {
	fmt.Fprintf(s.stdout, "%-12s %s\n", part, text)
}
