// Command sandbox shows a rotation from beginning to end on one machine, which
// needs nothing but Go: it starts a real Temporal server with its Web UI, a
// simulated Ops Manager, the worker and the starter as the processes that users
// run, rotates, and compares what was recorded with what Ops Manager was asked.
//
//	go run ./testsuite/sandbox
//
// `go run ./testsuite/sandbox --help` has its flags.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"keyturn/testsuite/programs"
)

// Exit codes; one of the starter's that isn't 0 goes before, and a signal is
// told as shells tell it.
const (
	exitFailed   = 1
	exitWrongUse = 2
	exitSignal   = 128
)

// Limits of what is useful in a sandbox.
const (
	maxShards   = 1000
	maxClusters = 100
	maxPort     = 65535
	maxLatency  = time.Minute
)

func main() {
	ctx, stop := programs.UntilSignal()
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// settings are the flags.
type settings struct {
	shards, clusters int
	latency          time.Duration
	once             bool

	temporalPort, uiPort, simulatorPort int // 0 = the usual one, or else a free one
}

// execute runs the command line and returns the exit code.
func execute(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	begun := false
	var s settings
	command := &cobra.Command{
		Use:           "sandbox",
		Short:         "Rotate the keys of a simulated cluster with everything real but Ops Manager",
		Long:          help,
		Example:       examples,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := s.check(); err != nil {
				return err
			}
			begun = true
			return run(command.Context(), s, stdout, stderr)
		},
	}
	command.CompletionOptions.DisableDefaultCmd = true
	s.addFlags(command)
	command.SetArgs(arguments)
	command.SetOut(stdout)
	command.SetErr(stderr)
	err := command.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(stderr, "sandbox:", err)
	}
	return exitCode(err, begun)
}

// exitCode tells what err means; begun = the command line was right.
func exitCode(err error, begun bool) int {
	var interrupted *programs.Interruption
	var starter *starterError
	switch {
	case err == nil:
		return 0
	case !begun:
		return exitWrongUse
	case errors.As(err, &interrupted):
		return exitSignal + int(interrupted.Signal)
	case errors.As(err, &starter):
		return starter.exitCode()
	default:
		return exitFailed
	}
}

func (s *settings) addFlags(command *cobra.Command) {
	flags := command.Flags()
	flags.IntVar(&s.shards, "shards", 3, "shards of each cluster, beside its config server")
	flags.IntVar(&s.clusters, "clusters", 1, "sharded clusters, called orders, orders2 and so on; they are rotated one after the other")
	flags.DurationVar(&s.latency, "latency", 150*time.Millisecond, "how long the simulated Ops Manager takes for each answer, so that there is something to watch")
	flags.BoolVar(&s.once, "once", false, "end after the rotation, with its exit code, instead of staying up")
	flags.IntVar(&s.temporalPort, temporalPortFlag, 0, fmt.Sprintf("Temporal's port (default: %d, or a free one where that is taken)", usualTemporalPort))
	flags.IntVar(&s.uiPort, uiPortFlag, 0, fmt.Sprintf("the Web UI's port (default: %d, or a free one)", usualUIPort))
	flags.IntVar(&s.simulatorPort, simulatorPortFlag, 0, fmt.Sprintf("the simulated Ops Manager's port (default: %d, or a free one)", usualSimulatorPort))
}

func (s *settings) check() error {
	for _, number := range []struct {
		flag                   string
		value, least, greatest int
	}{
		{"shards", s.shards, 1, maxShards},
		{"clusters", s.clusters, 1, maxClusters},
		{temporalPortFlag, s.temporalPort, 0, maxPort},
		{uiPortFlag, s.uiPort, 0, maxPort},
		{simulatorPortFlag, s.simulatorPort, 0, maxPort},
	} {
		if number.value < number.least || number.value > number.greatest {
			return fmt.Errorf("--%s: must be %d to %d", number.flag, number.least, number.greatest)
		}
	}
	if s.latency < 0 || s.latency > maxLatency {
		return fmt.Errorf("--latency: must be 0s to %s", maxLatency)
	}
	return nil
}

const help = `Starts, on loopback addresses of this machine,

  - a real Temporal server with its Web UI: the temporal on the PATH, else the
    version pinned in tools/temporal, whose first build takes minutes, once
  - a simulated Ops Manager with a sharded cluster whose backups are encrypted
  - the worker, as a process of its own

then rotates with the starter, shows the rotation while it runs, and compares every
target's record with the simulated Ops Manager's own ledger: which PUTs really came.
It stays up until Ctrl-C, with commands to try next. Nothing of it outlives it.

Ctrl-C or SIGTERM ends everything at any time. Variables of the environment that
would lead elsewhere (TEMPORAL_*, OPS_MANAGER_*, KEYTURN_*) and a temporal.toml have
no influence.

Exit codes: 0 = rotated, and records and ledger agree; 1 = failed; 2 = wrong use;
the starter's own if its command has failed; 130 or 143 = ended by Ctrl-C or SIGTERM
before the rotation had. (go run makes 1 of all but 0, and of 0 after Ctrl-C.)`

const examples = `  go run ./testsuite/sandbox

  # as a check: no staying up, and the exit code tells
  go run ./testsuite/sandbox --once

  # something to watch: two clusters, and an Ops Manager that takes its time
  go run ./testsuite/sandbox --shards 12 --clusters 2 --latency 1s`
