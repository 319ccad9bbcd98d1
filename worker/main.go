// Command keyturn-worker runs keyturn's workflows and activities: it is the process
// that calls Ops Manager. `keyturn-worker --help` describes its settings, which are
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

	"keyturn/internal/setting"
	"keyturn/internal/usage"
	"keyturn/internal/version"
)

const programName = "keyturn-worker"

// Exit codes.
const (
	exitFailed = 1 // also a wrong setting
	exitUsage  = 2 // a wrong flag or argument
)

func main() {
	os.Exit(execute(os.Args[1:], setting.NewEnvironment(os.Environ()), os.Stdout, os.Stderr))
}

// execute runs the command line and returns the exit code.
func execute(arguments []string, env setting.Environment, stdout, stderr io.Writer) int {
	code := exitUsage
	command := &cobra.Command{
		Use:           programName,
		Short:         "Run keyturn's workflows and activities",
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
		Short: "Check whether the local worker is ready",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			code = exitFailed
			return checkHealth(command.Context(), env)
		},
	})
	command.SetArgs(arguments)
	command.SetOut(stdout)
	command.SetErr(stderr)
	if ran, err := command.ExecuteContextC(context.Background()); err != nil {
		if code == exitUsage {
			err = usage.Explain(ran, err)
		}
		fmt.Fprintln(stderr, programName+":", oneLine(err.Error()))
		return code
	}
	return 0
}

// untilSignal returns a context that the first SIGTERM or SIGINT cancels, which
// drains the worker. A second one ends the process at once.
func untilSignal(stderr io.Writer) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		fmt.Fprintln(stderr, programName+": second signal: stopping at once; another worker will retry the activities in progress")
		os.Exit(exitFailed)
	}()
	return ctx, cancel
}

func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}

const help = `Run keyturn's workflows and activities until SIGTERM or SIGINT.

All settings are environment variables; an empty value counts as unset. If a
setting is wrong, the worker exits at startup with one line that names the
setting.

Ops Manager, as the connection "default":
  OPS_MANAGER_URL                  base URL, with a path prefix if there is one
  OPS_MANAGER_PUBLIC_KEY           public part of the programmatic API key
  OPS_MANAGER_PRIVATE_KEY          private part of the API key, or
  OPS_MANAGER_PRIVATE_KEY_FILE     a file that contains it
  OPS_MANAGER_CA_FILE              certificates (PEM) of a private authority
  OPS_MANAGER_CLIENT_CERT_FILE, OPS_MANAGER_CLIENT_KEY_FILE
                                   client certificate and its key (PEM), for an
                                   Ops Manager that requires one
  OPS_MANAGER_ALLOW_HTTP           true = allow plain http to any address
                                   (default: loopback only)
  OPS_MANAGER_REQUESTS_PER_SECOND  limit of this worker (default 0 = no limit)
  OPS_MANAGER_MAX_IN_FLIGHT        requests in parallel (default 0 = no limit)

The KMIP server that holds the keys of the connection "default", for evidence
about each new key that is independent of Ops Manager (optional):
  KMIP_ADDRESS                     host:port; without it, no KMIP server is
                                   asked
  KMIP_SERVER_NAME                 name in the server's certificate (default:
                                   the host of KMIP_ADDRESS)
  KMIP_CA_FILE                     certificates (PEM) of the only authorities to
                                   trust (default: the system's)
  KMIP_CLIENT_CERT_FILE, KMIP_CLIENT_KEY_FILE
                                   client certificate and its key (PEM)

Several Ops Managers:
  KEYTURN_CONNECTIONS_FILE         a TOML file with a table [connections.<name>]
                                   for each, and the settings above as url,
                                   public_key, private_key, private_key_file,
                                   ca_file, client_cert_file, client_key_file,
                                   allow_http, requests_per_second,
                                   max_in_flight. A table
                                   [connections.<name>.kmip] has address,
                                   server_name, ca_file, client_cert_file,
                                   client_key_file. Relative file names are
                                   relative to the TOML file's directory.

The ledger, in which every rotation that ends is recorded:
  KEYTURN_LEDGER                   sqlite:///absolute/path, or
                                   postgres://user@host/database for several
                                   workers (default: none; records are gone when
                                   Temporal's retention ends)
  KEYTURN_LEDGER_PASSWORD_FILE     file with PostgreSQL's password (default:
                                   PGPASSWORD, PGPASSFILE or ~/.pgpass)
  KEYTURN_LEDGER_SIGNING_KEY_FILE  Ed25519 private key (PEM) that signs the
                                   entries (default: not signed)

Events about rotations, fleets and schedules:
  KEYTURN_EVENTS_URL               URL of the receiver (default: none; no events are sent)
  KEYTURN_EVENTS_SECRET_FILE       file with the secrets that sign the events, one
                                   in each line, 1 to 4, each whsec_ and the base64
                                   of 24 to 64 bytes; required with the URL
  KEYTURN_EVENTS_ALLOW_HTTP        true = allow plain http
  KEYTURN_WEB_UI_URL               base URL of Temporal's Web UI, for links in
                                   events (default: none)

The worker:
  KEYTURN_TASK_QUEUE               task queue (default key-rotation)
  KEYTURN_TASK_QUEUE_ACTIVITIES_PER_SECOND
                                   activities per second for all workers of the
                                   task queue together, enforced by Temporal
                                   (default 0 = no limit). Set the same value
                                   for all workers: the last one applies
  KEYTURN_DEPLOYMENT               name of the worker deployment; turns worker
                                   versioning on. A rotation then ends on the
                                   version that it began with, and new rotations
                                   start on the deployment's current version
                                   (temporal worker deployment
                                   set-current-version)
  KEYTURN_BUILD_ID                 build ID of this version (default: the
                                   version of this binary)
  KEYTURN_LISTEN                   host:port or :port of /metrics, /healthz and
                                   /readyz (default: none)
  KEYTURN_LOG_FORMAT               text or json (default text)
  KEYTURN_LOG_LEVEL                debug, info, warn or error (default info)

Temporal, by its official environment configuration:
  TEMPORAL_ADDRESS                 host:port (default localhost:7233)
  TEMPORAL_NAMESPACE               namespace (default "default")
  TEMPORAL_API_KEY                 API key; turns TLS on
  TEMPORAL_TLS                     true or false
  TEMPORAL_TLS_CLIENT_CERT_PATH, TEMPORAL_TLS_CLIENT_KEY_PATH,
  TEMPORAL_TLS_SERVER_CA_CERT_PATH PEM files; or _DATA instead of _PATH for the
                                   PEM text
  TEMPORAL_TLS_SERVER_NAME         name in the server's certificate
  TEMPORAL_TLS_DISABLE_HOST_VERIFICATION
                                   true = accept any certificate
  TEMPORAL_CONFIG_FILE             configuration file (default: temporal.toml in
                                   the user's configuration directory)
  TEMPORAL_PROFILE                 profile in that file (default "default")
A remote codec is refused: the worker has no codec.

Files that settings name are read again when they change, within a minute. A file
that cannot be used changes nothing, and is a warning in the log and in /readyz.

/metrics is in the Prometheus text format. /healthz reports that the process is
alive. /readyz reports that the worker polls Temporal and that each Ops Manager
and the ledger have answered recently; otherwise its status is 503, with the
problems in JSON. /ledger/heads has the heads of the ledger's chains in JSON. A
KMIP server that cannot be asked, and a receiver that has not accepted the last
event, are warnings there, and do not make the worker unready. The command
"health" requests /readyz of the local worker: exit code 0 = ready, 1 = not
ready, with the reason in one line.

If Temporal cannot be reached, the worker logs a warning and keeps retrying, at
intervals of up to 10 seconds. It exits if the namespace does not exist, or if
Temporal refuses the credentials or the client certificate.

SIGTERM drains the worker: it accepts no new work and lets activities in
progress finish for up to 60 seconds (allow more than that before killing it). A
second SIGTERM or SIGINT ends it at once. Exit codes: 0 = stopped as requested,
1 = failed or wrong setting, 2 = usage error.`
