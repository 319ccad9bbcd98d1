package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"keyturn/testsuite/programs"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
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
	worker     *programs.Child
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
	if s.root, err = programs.ModuleRoot(ctx); err != nil {
		return err
	}
	if s.folder, err = newFolder(); err != nil {
		return err
	}
	s.tell("building", "the worker and the starter")
	if err := programs.Build(ctx, s.root, s.folder.binaries(), s.folder.scratch(), s.stderr, "./worker", "./starter"); err != nil {
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
	s.executable, err = programs.TemporalExecutable(ctx, func(line string) { s.tell("building", line) })
	if err != nil {
		return err
	}
	s.temporal, err = temporalserver.Start(ctx, temporalserver.Options{
		Executable: s.executable, Port: s.ports.temporal, UI: true, UIPort: s.ports.ui,
		DynamicConfig: map[string]string{temporalserver.PriorityMatching: "true"},
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
	worker, err := programs.StartWorker(s.folder.binary("worker"), log, s.variables()...)
	if err != nil {
		return err
	}
	s.worker = worker
	if err := programs.AwaitPolling(ctx, s.temporal, workflows.DefaultTaskQueue, worker); err != nil {
		return fmt.Errorf("the worker did not come up: %w", err)
	}
	s.tell("worker", "polls task queue "+workflows.DefaultTaskQueue)
	return nil
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
	case <-s.worker.Ended():
		// Somebody may have wanted to see what happens: no reason to end.
		fmt.Fprintf(s.stderr, "sandbox: the worker has ended (%s), its log is %s; with the variables above, go run ./worker starts another one\n",
			s.worker.End(), s.folder.workerLog())
		<-ctx.Done()
	}
	fmt.Fprintln(s.stdout, "\nending")
}

// stop ends all that was started; the order keeps each from complaining of the
// other's end.
func (s *sandbox) stop() {
	if s.worker != nil {
		s.worker.Stop()
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
	var interrupted *programs.Interruption
	switch {
	case s.folder == "":
		return nil
	case failure == nil, s.worker == nil, errors.As(failure, &interrupted):
		return s.folder.removeAll()
	}
	fmt.Fprintln(s.stderr, "sandbox: the worker's log is", s.folder.workerLog())
	return s.folder.removeAllButLog()
}

// variables configure the worker and the starter.
func (s *sandbox) variables() []programs.Variable {
	return append(s.temporalVariables(), s.opsManagerVariables()...)
}

func (s *sandbox) temporalVariables() []programs.Variable {
	return []programs.Variable{
		{Name: "TEMPORAL_ADDRESS", Value: s.temporal.Address},
		{Name: "TEMPORAL_NAMESPACE", Value: s.temporal.Namespace},
		{Name: "TEMPORAL_CONFIG_FILE", Value: os.DevNull}, // the user's own may ask for TLS
	}
}

func (s *sandbox) opsManagerVariables() []programs.Variable {
	return []programs.Variable{
		{Name: "OPS_MANAGER_URL", Value: s.om.URL},
		{Name: "OPS_MANAGER_PUBLIC_KEY", Value: simulator.DefaultPublicKey},
		{Name: "OPS_MANAGER_PRIVATE_KEY_FILE", Value: s.folder.privateKey()},
	}
}

// tell prints a line about a part of the sandbox.
func (s *sandbox) tell(part, text string) {
	fmt.Fprintf(s.stdout, "%-12s %s\n", part, text)
}
