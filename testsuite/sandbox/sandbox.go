package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/childproc"
	"keyturn/testsuite/support/freeport"
	"keyturn/testsuite/support/kmipkeys"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"
)

// sandbox has everything that runs and its settings.
type sandbox struct {
	settings       settings
	stdout, stderr io.Writer
	printing       sync.Mutex // of a status

	ports  ports
	root   string // of the module
	folder folder

	executable string // Temporal's CLI
	temporal   *temporalserver.Server
	kmip       *childproc.Child
	om         *simulator.Server
	kind       kind
	worker     *childproc.Child

	kmipAddress string
	monitoring  string              // where the worker serves metrics and probes
	keyMaker    kmipkeys.Connection // as which Ops Manager makes keys
}

// run runs the sandbox. When it returns, everything that it started has ended;
// the temporary directory remains only after a failure.
func run(ctx context.Context, configured settings, stdout, stderr io.Writer) error {
	s := &sandbox{settings: configured, kind: configured.kind(), stdout: stdout, stderr: stderr}
	err := s.runUntilDone(ctx)
	s.stop()
	return errors.Join(err, s.cleanUp(err))
}

func (s *sandbox) runUntilDone(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return causeOf(ctx, err)
	}
	err := s.rotateAndVerify(ctx)
	if s.settings.once || ctx.Err() != nil {
		return causeOf(ctx, err)
	}
	s.stayUp(ctx, err)
	return err
}

// causeOf is err, or the cause of ctx if err is a consequence of its end.
func causeOf(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// sandboxPrograms are the packages of the programs that a sandbox builds.
var sandboxPrograms = []string{"./worker", "./starter", "./testsuite/simulator/kmip-simulator"}

func (s *sandbox) start(ctx context.Context) (err error) {
	if s.ports, err = choosePorts(s.settings); err != nil {
		return err
	}
	if s.root, err = childproc.ModuleRoot(ctx); err != nil {
		return err
	}
	if s.folder, err = newFolder(); err != nil {
		return err
	}
	if err := s.preparePrograms(ctx); err != nil {
		return err
	}
	if err := s.startTemporal(ctx); err != nil {
		return err
	}
	if err := s.startKMIP(ctx); err != nil {
		return err
	}
	if err := s.startOpsManager(); err != nil {
		return err
	}
	return s.startWorker(ctx)
}

// preparePrograms builds them while Temporal's CLI is downloaded.
func (s *sandbox) preparePrograms(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		s.printStatus("building", "the worker, the command line and the KMIP server")
		return childproc.Build(ctx, s.root, s.folder.binaries(), s.folder.scratch(), s.stderr, sandboxPrograms...)
	})
	group.Go(func() (err error) {
		s.executable, err = temporalserver.ExecutableForProgram(ctx, func(line string) { s.printStatus("preparing", line) })
		return err
	})
	return group.Wait()
}

func (s *sandbox) startTemporal(ctx context.Context) (err error) {
	s.temporal, err = temporalserver.Start(ctx, temporalserver.Options{
		Executable: s.executable, Port: s.ports.temporal, UI: true, UIPort: s.ports.ui,
		DynamicConfig: map[string]string{temporalserver.PriorityMatching: "true"},
	})
	if err != nil {
		return err
	}
	s.printStatus("Temporal", s.temporal.Address+portInUseNote(s.ports.temporal, defaultTemporalPort))
	s.printStatus("Web UI", s.temporal.UIAddress+portInUseNote(s.ports.ui, defaultUIPort))
	return nil
}

func (s *sandbox) startOpsManager() (err error) {
	options := simulator.Options{Latency: s.settings.latency, NewKey: newKey(s.keyMaker), ServiceVersion: s.kind.serviceVersion()}
	if s.om, err = startOpsManager(s.ports.simulator, options); err != nil {
		return err
	}
	s.printStatus("Ops Manager", s.om.URL+", simulated"+portInUseNote(s.ports.simulator, defaultSimulatorPort))
	for _, part := range s.kind.populate(s.om) {
		s.printStatus(part.name, part.text)
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
	defer log.Close() // the worker has its own handle
	port, err := freeport.Choose()
	if err != nil {
		return err
	}
	s.monitoring = freeport.Address(port)
	// Not among the variables for the user's shell: a second worker needs an address of its own.
	listen := childproc.Variable{Name: "KEYTURN_LISTEN", Value: s.monitoring}
	worker, err := childproc.StartWorker(s.folder.binary("worker"), log, append(s.variables(), listen)...)
	if err != nil {
		return err
	}
	s.worker = worker
	if err := childproc.AwaitPolling(ctx, s.temporal, workflows.DefaultTaskQueue, worker); err != nil {
		return fmt.Errorf("the worker did not start: %w", err)
	}
	s.printStatus("worker", "polls task queue "+workflows.DefaultTaskQueue)
	return nil
}

// stayUp returns when ctx ends.
func (s *sandbox) stayUp(ctx context.Context, failure error) {
	if failure != nil {
		fmt.Fprintln(s.stderr, "sandbox:", failure)
	}
	fmt.Fprint(s.stdout, s.nextStepsText(ctx))
	fmt.Fprintln(s.stdout, "\nThe sandbox runs until Ctrl-C.")
	select {
	case <-ctx.Done():
	case <-s.worker.Ended():
		// The user may have killed the worker on purpose: keep running.
		fmt.Fprintf(s.stderr, "sandbox: the worker exited (%s), see its log %s; to start another one, set the variables above and run go run ./worker\n",
			s.worker.End(), s.folder.workerLog())
		<-ctx.Done()
	}
	fmt.Fprintln(s.stdout, "\nstopping")
}

// stop stops everything that was started, in an order in which no process
// reports the end of another one.
func (s *sandbox) stop() {
	if s.worker != nil {
		s.worker.Stop()
	}
	if s.temporal != nil {
		s.temporal.Kill() // its state is in memory: there is nothing to save
	}
	if s.om != nil {
		s.om.Close()
	}
	if s.kmip != nil {
		s.kmip.Kill() // asked to end, it waits for its clients; its keys are thrown away
	}
}

// cleanUp removes the temporary directory. After a failure, it keeps and names
// the worker's log.
func (s *sandbox) cleanUp(failure error) error {
	var interrupted *childproc.Interruption
	switch {
	case s.folder == "":
		return nil
	case failure == nil, s.worker == nil, errors.As(failure, &interrupted):
		return s.folder.removeAll()
	}
	fmt.Fprintln(s.stderr, "sandbox: worker log:", s.folder.workerLog())
	return s.folder.removeAllButLog()
}

// variables configure the worker and the command line.
func (s *sandbox) variables() []childproc.Variable {
	return slices.Concat(s.temporalVariables(), s.opsManagerVariables(), s.kmipVariables(), s.ledgerVariables())
}

func (s *sandbox) temporalVariables() []childproc.Variable {
	return []childproc.Variable{
		{Name: "TEMPORAL_ADDRESS", Value: s.temporal.Address},
		{Name: "TEMPORAL_NAMESPACE", Value: s.temporal.Namespace},
		{Name: "TEMPORAL_CONFIG_FILE", Value: os.DevNull}, // the user's file may require TLS
	}
}

func (s *sandbox) opsManagerVariables() []childproc.Variable {
	return []childproc.Variable{
		{Name: "OPS_MANAGER_URL", Value: s.om.URL},
		{Name: "OPS_MANAGER_PUBLIC_KEY", Value: simulator.DefaultPublicKey},
		{Name: "OPS_MANAGER_PRIVATE_KEY_FILE", Value: s.folder.privateKey()},
	}
}

func (s *sandbox) ledgerVariables() []childproc.Variable {
	return []childproc.Variable{{Name: "KEYTURN_LEDGER", Value: "sqlite://" + filepath.Join(s.folder.ledger(), "ledger.db")}}
}

// printStatus prints a line about a part of the sandbox.
func (s *sandbox) printStatus(part, text string) {
	s.printing.Lock()
	defer s.printing.Unlock()
	fmt.Fprintf(s.stdout, "%-12s %s\n", part, text)
}
