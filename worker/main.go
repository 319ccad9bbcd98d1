// Command worker runs keyturn's workflows and activities: it is the process that
// talks to Ops Manager. `worker --help` describes its settings, all of which are
// environment variables.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"keyturn/internal/version"
)

// exit codes
const (
	exitFailed   = 1 // also a wrong setting
	exitWrongUse = 2 // a wrong flag or argument
)

func main() {
	os.Exit(execute(os.Args[1:], newEnvironment(os.Environ()), os.Stdout, os.Stderr))
}

// execute runs the command line and returns the exit code.
func execute(arguments []string, env environment, stdout, stderr io.Writer) int {
	code := exitWrongUse
	command := &cobra.Command{
		Use:           "worker",
		Short:         "Runs keyturn's workflows and activities",
		Long:          help,
		Args:          cobra.NoArgs,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(*cobra.Command, []string) error {
			code = exitFailed
			ctx, stop := untilSignal(stderr)
			defer stop()
			return run(ctx, env, stderr)
		},
	}
	command.CompletionOptions.DisableDefaultCmd = true
	command.AddCommand(&cobra.Command{
		Use:   "health",
		Short: "Asks the worker on this machine, at KEYTURN_LISTEN, whether it is ready",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			code = exitFailed
			return askReadiness(command.Context(), env)
		},
	})
	command.SetArgs(arguments)
	command.SetOut(stdout)
	command.SetErr(stderr)
	if err := command.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(stderr, "worker:", oneLine(err.Error()))
		return code
	}
	return 0
}

// untilSignal returns a context that the first SIGTERM or SIGINT ends, which
// drains the worker. A second one ends the process at once.
func untilSignal(stderr io.Writer) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		fmt.Fprintln(stderr, "worker: second signal: ending at once; the activities under way will be retried by another worker")
		os.Exit(exitFailed)
	}()
	return ctx, cancel
}

func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}

const help = `Runs keyturn's workflows and activities until SIGTERM or SIGINT.

The settings are environment variables; an empty one is as good as none. A wrong
setting ends the worker at its start with one line that names it.

Ops Manager, as the connection "default":
  OPS_MANAGER_URL                  base address, with a path prefix if there is one
  OPS_MANAGER_PUBLIC_KEY           the programmatic key's public part
  OPS_MANAGER_PRIVATE_KEY          its private part, or
  OPS_MANAGER_PRIVATE_KEY_FILE     a file that holds it
  OPS_MANAGER_CA_FILE              certificates (PEM) of a private authority
  OPS_MANAGER_ALLOW_HTTP           true = plain http to other than loopback addresses
  OPS_MANAGER_REQUESTS_PER_SECOND  this worker's share; 0 or none = no limit
  OPS_MANAGER_MAX_IN_FLIGHT        requests at a time; 0 or none = no limit

Further Ops Managers:
  KEYTURN_CONNECTIONS_FILE         a TOML file with a table [connections.<name>] for
                                   each, and the settings above as url, public_key,
                                   private_key, private_key_file, ca_file, allow_http,
                                   requests_per_second, max_in_flight. Relative file
                                   names begin at the TOML file's directory.

The worker:
  KEYTURN_TASK_QUEUE               the task queue (key-rotation)
  KEYTURN_TASK_QUEUE_ACTIVITIES_PER_SECOND
                                   how many activities a second all workers of the queue
                                   get together, kept to by Temporal; 0 or none = no limit.
                                   Give all workers the same: the last one counts
  KEYTURN_DEPLOYMENT               turns worker versioning on: the deployment's name. A
                                   rotation then ends on the version that it began with,
                                   and a new one begins on the deployment's current version
                                   (temporal worker deployment set-current-version)
  KEYTURN_BUILD_ID                 this version's name in it (the program's own version)
  KEYTURN_LISTEN                   host:port or :port of /metrics, /healthz and /readyz
                                   (nowhere)
  KEYTURN_LOG_FORMAT               text or json (text)
  KEYTURN_LOG_LEVEL                debug, info, warn or error (info)

Temporal, by its usual environment configuration:
  TEMPORAL_ADDRESS                 host:port (localhost:7233)
  TEMPORAL_NAMESPACE               (default)
  TEMPORAL_API_KEY                 turns TLS on
  TEMPORAL_TLS                     true, false
  TEMPORAL_TLS_CLIENT_CERT_PATH, TEMPORAL_TLS_CLIENT_KEY_PATH,
  TEMPORAL_TLS_SERVER_CA_CERT_PATH, or the same ending in _DATA with the PEM itself
  TEMPORAL_TLS_SERVER_NAME, TEMPORAL_TLS_DISABLE_HOST_VERIFICATION
  TEMPORAL_CONFIG_FILE             temporal.toml (in the user's configuration directory)
  TEMPORAL_PROFILE                 a profile of that file (default)

/metrics is in Prometheus' text format, /healthz tells that the process is alive,
/readyz that it polls Temporal and that each Ops Manager has answered lately, or
else (503) what is wrong, in JSON. The sub-command health asks /readyz on this
machine: exit code 0 = ready, else 1 and the reason in one line.

A Temporal that can't be reached is no wrong setting: the worker says so and tries
again, at growing intervals up to 10 seconds, for as long as it takes. A namespace
that isn't there, refused credentials and a refused client certificate do end it.

SIGTERM drains the worker: it takes no new work and lets activities under way finish
for up to 60 seconds (give it more than that before it is killed). A second SIGTERM
or SIGINT ends it at once. Exit code: 0 = stopped as asked, 1 = failed or wrong
setting, 2 = wrong flag.`
