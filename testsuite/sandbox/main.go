// Command sandbox runs a rotation from beginning to end on one machine. It
// needs only Go: it starts a real Temporal server with its Web UI, a simulated
// Ops Manager, and the worker and the command line as processes, rotates, and
// verifies the records against the requests that Ops Manager received.
//
//	go run ./testsuite/sandbox
//
// `go run ./testsuite/sandbox --help` shows its flags.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"keyturn/internal/usage"
	"keyturn/testsuite/support/childproc"
)

// Exit codes. A failed command passes its exit code on; a signal gives 128 plus
// its number.
const (
	exitFailed = 1
	exitUsage  = 2
	exitSignal = 128
)

// Limits of the settings.
const (
	maxShards   = 1000
	maxClusters = 100
	maxPort     = 65535
	maxLatency  = time.Minute
	// maxMemberTime is less than the time without progress after which a rotation fails.
	maxMemberTime = deployTimeout / 2
)

func main() {
	ctx, stop := childproc.UntilSignal()
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// settings are the flags.
type settings struct {
	deployment       bool
	shards, clusters int
	memberTime       time.Duration
	latency          time.Duration
	once             bool

	temporalPort, uiPort, simulatorPort int // 0 = the default port, or a free one
}

// execute runs the command line and returns the exit code.
func execute(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	validFlags := false
	var s settings
	command := &cobra.Command{
		Use:           "sandbox",
		Short:         "Try keyturn on one machine, with a simulated Ops Manager",
		Long:          help,
		Example:       examples,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := s.check(); err != nil {
				return err
			}
			validFlags = true
			return run(command.Context(), s, stdout, stderr)
		},
	}
	command.CompletionOptions.DisableDefaultCmd = true
	usage.WrapFlags(command)
	s.addFlags(command)
	command.SetArgs(arguments)
	command.SetOut(stdout)
	command.SetErr(stderr)
	ran, err := command.ExecuteContextC(ctx)
	if err != nil {
		if !validFlags {
			err = usage.Explain(ran, err)
		}
		fmt.Fprintln(stderr, "sandbox:", err)
	}
	return exitCode(err, validFlags)
}

// exitCode returns the exit code for err; validFlags: the flags were valid.
func exitCode(err error, validFlags bool) int {
	var interrupted *childproc.Interruption
	var starter *commandError
	switch {
	case err == nil:
		return 0
	case !validFlags:
		return exitUsage
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
	flags.BoolVar(&s.deployment, "deployment", false, "rotate the keys of a project's deployments, not those of backups")
	flags.IntVar(&s.shards, "shards", 3, "shards of each cluster, besides its config server")
	flags.IntVar(&s.clusters, "clusters", 1, "number of sharded clusters (orders, orders2, ...), rotated one after the other")
	flags.DurationVar(&s.memberTime, "member-time", time.Second, "with --deployment: time that an agent takes to restart a member with a new key")
	flags.DurationVar(&s.latency, "latency", 150*time.Millisecond, "response time of the simulated Ops Manager: long enough to watch the progress")
	flags.BoolVar(&s.once, "once", false, "exit after the rotation with its exit code")
	flags.IntVar(&s.temporalPort, temporalPortFlag, 0, fmt.Sprintf("port of Temporal (default: %d, or a free port if it is in use)", defaultTemporalPort))
	flags.IntVar(&s.uiPort, uiPortFlag, 0, fmt.Sprintf("port of the Web UI (default: %d, or a free port if it is in use)", defaultUIPort))
	flags.IntVar(&s.simulatorPort, simulatorPortFlag, 0, fmt.Sprintf("port of the simulated Ops Manager (default: %d, or a free port if it is in use)", defaultSimulatorPort))
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
	switch {
	case s.latency < 0 || s.latency > maxLatency:
		return fmt.Errorf("--latency: must be 0s to %s", maxLatency)
	case s.memberTime <= 0 || s.memberTime > maxMemberTime:
		return fmt.Errorf("--member-time: must be more than 0s, up to %s", maxMemberTime)
	}
	return nil
}

const help = `Starts these on loopback addresses of this machine:

  - a real Temporal server with its Web UI: the program temporal on the PATH; else
    the official one, which is downloaded once; if that fails, the same version,
    whose first build takes 2 to 15 minutes
  - a simulated Ops Manager with a sharded cluster that has encrypted backups
  - a simulated KMIP server, in which that Ops Manager makes its keys
  - the worker, which rotates the keys and asks the KMIP server about each new one

Then it runs "keyturn rotate --wait", and checks the record of every target: the
simulated Ops Manager has applied exactly one PUT for it, and the KMIP server has
its new key. With --deployment, the simulated Ops Manager has a deployment instead:
a replica set and a sharded cluster, whose processes have keys of their own and whose
agents restart one member after the other. Then the records are right if each process
got exactly one new key, no PUT changed anything else of the configuration, and a
snapshot has proven a new key of each replica set. After that, it prints the address of the Web UI and commands to try
next, and keeps running until Ctrl-C or SIGTERM, which stop all of it.

TEMPORAL_*, OPS_MANAGER_*, KMIP_* and KEYTURN_* variables in the environment and
a temporal.toml are ignored, except for KEYTURN_TEMPORAL_DOWNLOAD: "off" never
downloads Temporal, and a URL names a mirror of https://temporal.download.

Exit codes: 0 = rotated, and the records are right; 1 = failed; 2 = usage error;
130 or 143 = ended by Ctrl-C or SIGTERM before the rotation was done; if a
command failed, its exit code. (go run turns every exit code but 0 into 1.)`

const examples = `  go run ./testsuite/sandbox

  # The keys of current deployments
  go run ./testsuite/sandbox --deployment

  # Exit after the rotation, with its exit code
  go run ./testsuite/sandbox --once

  # Two clusters and a slow Ops Manager
  go run ./testsuite/sandbox --shards 12 --clusters 2 --latency 1s`
