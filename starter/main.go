// Command keyturn starts, watches and controls key rotations. See
// "keyturn --help".
package main

import (
	"cmp"
	"context"
	"io"
	"os"
	"os/signal"
	"os/user"
	"syscall"

	"github.com/spf13/cobra"

	"keyturn/internal/setting"
	"keyturn/internal/usage"
	"keyturn/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the command cleanly; a second one kills it.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// run runs the command line args with the environment env ("name=value") and
// returns the exit code. Canceling ctx interrupts it, as Ctrl-C does.
func run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{env: setting.NewEnvironment(env), stdin: stdin, stdout: stdout, stderr: stderr, user: userName()}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	if err != nil && !a.started {
		err = usage.Explain(command, err)
	}
	return a.handleError(ctx, err)
}

// programName is the name of the command line's binary.
const programName = "keyturn"

// app is one run of the command line: its surroundings, and the flags that
// several commands share.
type app struct {
	env            setting.Environment
	stdin          io.Reader
	stdout, stderr io.Writer
	user           string // the OS user's name; empty = unknown

	server   serverFlags
	rotation rotationName
	format   format

	started bool // the flags were parsed and the command has started
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           programName,
		Short:         "Rotate the KMIP master keys that Ops Manager uses for MongoDB",
		Long:          rootHelp,
		Example:       rootExamples,
		Version:       version.String(),
		RunE:          requireSubcommand,
		SilenceErrors: true,
		SilenceUsage:  true,
		// Before a command's own checks, which need the required flags.
		PersistentPreRunE: func(command *cobra.Command, _ []string) error {
			return cmp.Or(command.ValidateRequiredFlags(), command.ValidateFlagGroups())
		},
	}
	usage.WrapFlags(root)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	a.server.addFlags(root.PersistentFlags())
	root.AddGroup(
		&cobra.Group{ID: groupRotate, Title: "Rotate:"},
		&cobra.Group{ID: groupUpdate, Title: "Control a running rotation:"},
		&cobra.Group{ID: groupSchedule, Title: "Schedule:"},
		&cobra.Group{ID: groupLedger, Title: "Records and evidence:"},
	)
	root.AddCommand(
		a.clustersCommand(), a.rotateCommand(), a.planCommand(), a.listCommand(), a.watchCommand(), a.reportCommand(),
		a.approveCommand(), a.rejectCommand(), a.pauseCommand(), a.resumeCommand(), a.retryCommand(), a.skipCommand(), a.abortCommand(),
		a.keysCommand(), a.scheduleCommand(),
		a.historyCommand(), a.overdueCommand(), a.evidenceCommand(), a.ledgerCommand(),
	)
	return root
}

// Groups of commands in the help.
const (
	groupRotate   = "rotate"
	groupUpdate   = "update"
	groupSchedule = "schedule"
	groupLedger   = "ledger"
)

// action makes a function a command's action. Errors from before it, which are
// cobra's, are usage errors.
func (a *app) action(action func(context.Context, *cobra.Command) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, _ []string) error {
		a.started = true
		if err := a.resolveCluster(command.Context(), command); err != nil {
			return err
		}
		return action(command.Context(), command)
	}
}

// requireSubcommand is the action of a command that only groups others. It is an
// error, so that a script with an empty variable does not appear to succeed.
func requireSubcommand(command *cobra.Command, _ []string) error {
	return usageErrorf("a command is required; see %s --help", command.CommandPath())
}

func userName() string {
	current, err := user.Current()
	if err != nil {
		return ""
	}
	return current.Username
}

const rootHelp = `Rotate the KMIP master keys that encrypt MongoDB clusters and their backups in
Ops Manager.

Which keys to rotate depends on Ops Manager. From 8.0 on, and for every backup
at feature compatibility version (FCV) 4.2 or later, they are those of the
deployment: each mongod has a key of its own. Give --deployment --project.
Backups at FCV 4.0 or earlier have keys of their own: give --project and
--cluster. A fleet is all or some of the clusters, or with --deployment of the
projects, of an Ops Manager: give --fleet instead of --project and --cluster.

A rotation is a Temporal workflow. Each cluster has at most one at a time, and
so do the deployments of a project. Every command finds it by these flags and by
--connection. A rotation continues whether or not you watch it.

When a target fails for good, the rotation is HELD: verified targets stay
verified, no new target starts, and the rotation waits for an operator to retry,
skip or abort (see --on-failure and --hold-timeout of rotate). With
--require-approval, a rotation reads the current keys and then waits until
someone other than the requester approves it.

IDs are Ops Manager's, 24 hex digits; "keyturn clusters" lists them. --cluster
takes a display name, too, where only one cluster of the project has it or, if
--project is left out, only one of all projects. A worker looks it up. A
project's ID is in the address of its pages
(https://OPS-MANAGER/v2/PROJECT-ID#...).

Durations take days as well as Go's units: 90d, 1d12h, 45m.

Exit codes:
  0  done: rotated, planned, reported, the operation was accepted, or
     --continue found nothing left to do; also if every process of a deployment
     is rotated and only the proof is missing (rotatedUnproven, with a warning)
  1  failed: the rotation, the command or the connection; also if you stop
     watching, because the outcome is not known yet
  2  usage error: flags, IDs, files or settings; nothing was done
  3  the rotation is held, paused or waiting for approval; watch and
     rotate --wait print what it is waiting for and the commands to continue;
     list --waiting lists all such rotations

KEYTURN_LEDGER names the workers' ledger, which history, overdue, evidence and
ledger read. report reads it if Temporal has forgotten the run.

Connection settings are read like the temporal CLI's: TEMPORAL_ADDRESS,
TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS_*, TEMPORAL_PROFILE and
temporal.toml. The flags --address, --namespace and --profile take precedence.`

const rootExamples = `  # Show what would be rotated, with the current keys
  keyturn plan --project 5196d3628d022db4cbc26d9e \
    --cluster 5196e5b0e4b0fca9cc88334a

  # Rotate and follow progress
  keyturn rotate --project 5196d3628d022db4cbc26d9e \
    --cluster 5196e5b0e4b0fca9cc88334a --ticket CHG0031337 --wait

  # The rotation is held: retry the failed targets, then keep watching
  keyturn retry --project 5196d3628d022db4cbc26d9e \
    --cluster 5196e5b0e4b0fca9cc88334a
  keyturn watch --project 5196d3628d022db4cbc26d9e \
    --cluster 5196e5b0e4b0fca9cc88334a

  # Rotate the keys of the deployments of a project, on Ops Manager 8.0 or later
  keyturn rotate --deployment --project 5196d3628d022db4cbc26d9e --wait

  # Which rotations wait for a person, and how to continue them
  keyturn list --waiting

  # Rotate every cluster, eight at a time; stop after the third failure
  keyturn rotate --fleet --clusters-at-a-time 8 --max-failed-clusters 2 --wait

  # Rotate on the first day of each quarter
  keyturn schedule apply --project 5196d3628d022db4cbc26d9e \
    --cluster 5196e5b0e4b0fca9cc88334a \
    --cron '0 4 1 */3 *' --time-zone Europe/Berlin

  # Export the records for an auditor
  keyturn report --project 5196d3628d022db4cbc26d9e \
    --cluster 5196e5b0e4b0fca9cc88334a -o csv

  # From the ledger: past rotations, keys that are too old, a quarter's evidence
  keyturn history --ticket CHG0031337
  keyturn overdue
  keyturn evidence --since 2026-01-01 --until 2026-03-31 > evidence.html
  keyturn ledger verify --public-keys ledger-keys.pem`
