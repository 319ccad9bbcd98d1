// Command starter starts, watches and steers the rotations of keyturn.
// `starter --help` says how.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"os/user"
	"syscall"

	"github.com/spf13/cobra"

	"keyturn/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the command in order; a second one ends it at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// run runs the command line args with the environment env ("name=value") and
// returns the exit code. A canceled ctx ends it, as Ctrl-C does.
func run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{env: newEnvironment(env), stdin: stdin, stdout: stdout, stderr: stderr, user: userName()}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return a.conclude(ctx, root.ExecuteContext(ctx))
}

// app is one run of the command line: what it has from outside, and the flags
// that several commands share.
type app struct {
	env            environment
	stdin          io.Reader
	stdout, stderr io.Writer
	user           string // the OS user's name; empty if there is none

	server   serverFlags
	rotation rotationName
	format   format

	acting bool // the command line was right, and the command has begun
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "starter",
		Short:         "Start, watch and steer the rotation of backup master keys",
		Long:          rootHelp,
		Example:       rootExamples,
		Version:       version.String(),
		RunE:          commandIsMissing,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	a.server.addFlags(root.PersistentFlags())
	root.AddGroup(&cobra.Group{ID: groupRun, Title: "Start and watch:"}, &cobra.Group{ID: groupSteer, Title: "Operators' commands:"})
	root.AddCommand(a.rotateCommand(), a.planCommand(), a.fleetCommand(), a.watchCommand(), a.reportCommand(), a.scheduleCommand())
	root.AddCommand(a.steerCommands()...)
	return root
}

// Groups of commands in the help.
const (
	groupRun   = "run"
	groupSteer = "steer"
)

// do makes a command's action of a function. All errors from before it, which
// are cobra's, are about the command line.
func (a *app) do(action func(context.Context, *cobra.Command) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, _ []string) error {
		a.acting = true
		return action(command.Context(), command)
	}
}

// commandIsMissing is the action of what does nothing without a further command:
// a script whose variable is empty must not take it for done.
func commandIsMissing(command *cobra.Command, _ []string) error {
	return wrongUse("a command is missing: see %s --help", command.CommandPath())
}

func userName() string {
	current, err := user.Current()
	if err != nil {
		return ""
	}
	return current.Username
}

const rootHelp = `Start, watch and steer the rotation of the KMIP master keys that encrypt the
backups of MongoDB clusters in Ops Manager.

A rotation is a Temporal workflow, and there is one of a cluster at a time: every
command finds it by --project, --cluster and --connection. It goes on whether or
not anybody watches. A fleet is many clusters of an Ops Manager, each rotated so:
"starter fleet" starts it; watch, report, pause, resume, abort and schedule take
--fleet in place of --project and --cluster.

A rotation is HELD when a target has failed for good: nothing is lost, the targets
that are verified stay so, no other is started, and it waits for an operator to
retry, skip or abort (see --on-failure and --hold-timeout of rotate). With
--require-approval, a rotation waits after the keys were read and before anything
is changed, until somebody other than the requester approves.

Exit codes:
  0  done: rotated, planned, reported, or the operator's command was taken
  1  failed: the rotation, the command, or the connection; also when the watching
     was interrupted, since the outcome isn't known then
  2  wrong use: flags, ids, files or settings
  3  the rotation is held or waits for approval: watch and rotate --wait say what
     it waits for, and the commands to go on with

Temporal is found as its own tools find it: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE,
TEMPORAL_API_KEY, TEMPORAL_TLS_*, TEMPORAL_PROFILE and temporal.toml. The flags
--address, --namespace and --profile go before them.`

const rootExamples = `  # what would be rotated, with the keys of now
  starter plan --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a

  # rotate, and stay to see it
  starter rotate --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a \
    --ticket CHG0031337 --reason quarterly --wait

  # it is held: try the failed targets again, and watch on
  starter retry --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a
  starter watch --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a

  # rotate every cluster of the Ops Manager, eight at a time, and stop at the third that fails
  starter fleet --clusters-at-a-time 8 --max-failed-clusters 2 --ticket CHG0031337 --wait

  # rotate on the first of January, April, July and October
  starter schedule apply --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a \
    --cron '0 4 1 */3 *' --time-zone Europe/Berlin

  # the proof for the auditor
  starter report --project 5196d3628d022db4cbc26d9e --cluster 5196e5b0e4b0fca9cc88334a -o csv`
