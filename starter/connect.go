package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/log"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keyturn/internal/handshake"
	"keyturn/workflows"
)

const (
	// dialTime is how long Temporal may take to be reached at all.
	dialTime = 5 * time.Second
	// requestTime is how long it may take to answer a request.
	requestTime = 15 * time.Second

	taskQueueVariable = "KEYTURN_TASK_QUEUE"
	apiKeyVariable    = "TEMPORAL_API_KEY"
)

// environment holds environment variables by name. An empty one is as good as
// none.
type environment map[string]string

func newEnvironment(entries []string) environment {
	env := make(environment, len(entries))
	for _, entry := range entries {
		if name, value, found := strings.Cut(entry, "="); found {
			env[name] = value
		}
	}
	return env
}

// LookupEnv is what [envconfig.EnvLookup] asks for.
func (e environment) LookupEnv(name string) (string, bool) { return e[name], e[name] != "" }

// Environ is what [envconfig.EnvLookup] asks for.
func (e environment) Environ() []string {
	entries := make([]string, 0, len(e))
	for name, value := range e {
		entries = append(entries, name+"="+value)
	}
	return entries
}

func (e environment) taskQueue() string {
	return cmp.Or(e[taskQueueVariable], workflows.DefaultTaskQueue)
}

// serverFlags go before what the environment says of Temporal.
type serverFlags struct{ address, namespace, profile string }

func (f *serverFlags) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&f.address, "address", "", "Temporal's host:port (default: TEMPORAL_ADDRESS, temporal.toml or "+client.DefaultHostPort+")")
	flags.StringVar(&f.namespace, "namespace", "", "Temporal's namespace (default: TEMPORAL_NAMESPACE, temporal.toml or "+client.DefaultNamespace+")")
	flags.StringVar(&f.profile, "profile", "", "profile of temporal.toml (default: TEMPORAL_PROFILE or default)")
}

// asGiven repeats the flags for a command that is shown to the user.
func (f serverFlags) asGiven() (words []string) {
	for _, flag := range []struct{ name, value string }{
		{"--address", f.address}, {"--namespace", f.namespace}, {"--profile", f.profile},
	} {
		if flag.value != "" {
			words = append(words, flag.name, flag.value)
		}
	}
	return words
}

// session is a connection to Temporal that explains its errors.
type session struct {
	client.Client
	address, namespace string
}

// connect gives a session; its owner closes it.
func (a *app) connect(ctx context.Context) (*session, error) {
	options, err := a.clientOptions()
	if err != nil {
		return nil, err
	}
	dialCtx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	connected, err := client.DialContext(dialCtx, options)
	if err != nil {
		return nil, unreachable(ctx, options, err)
	}
	return &session{connected, options.HostPort, options.Namespace}, nil
}

func unreachable(ctx context.Context, options client.Options, err error) error {
	if code := codeOf(err); code == codes.Unauthenticated || code == codes.PermissionDenied {
		return refused(options.HostPort, err)
	}
	err = cmp.Or(handshake.Examine(ctx, options), err)
	return fmt.Errorf("can't reach Temporal at %s: %w", options.HostPort, err)
}

func refused(address string, err error) error {
	return fmt.Errorf("the credentials are refused by Temporal at %s: %s: %w", address, apiKeyVariable, err)
}

func (a *app) clientOptions() (client.Options, error) {
	profile, err := envconfig.LoadClientConfigProfile(envconfig.LoadClientConfigProfileOptions{
		ConfigFileProfile: a.server.profile, EnvLookup: a.env,
	})
	if err != nil {
		return client.Options{}, wrongUse("Temporal's configuration can't be used: %s", withoutContents(err))
	}
	profile.Address = cmp.Or(a.server.address, profile.Address, client.DefaultHostPort)
	profile.Namespace = cmp.Or(a.server.namespace, profile.Namespace, client.DefaultNamespace)
	options, err := profile.ToClientOptions(envconfig.ToClientOptionsRequest{})
	if err != nil {
		return client.Options{}, wrongUse("Temporal's configuration can't be used: %v", err)
	}
	// The SDK's own logger would write to standard output.
	options.Logger = log.NewStructuredLogger(slog.New(slog.DiscardHandler))
	return options, nil
}

// withoutContents keeps the text of a configuration file, which may be an API
// key, out of an error.
func withoutContents(err error) string {
	var parseError toml.ParseError
	if errors.As(err, &parseError) {
		return fmt.Sprintf("the file is not TOML: line %d, column %d", parseError.Position.Line, parseError.Position.Col)
	}
	return err.Error()
}

// explain says in a person's words what a request's error means. What is left
// to the caller: the errors that are about the one workflow.
func (s *session) explain(err error) error {
	var noNamespace *serviceerror.NamespaceNotFound
	if errors.As(err, &noNamespace) {
		return fmt.Errorf("namespace %q does not exist at %s", s.namespace, s.address)
	}
	switch codeOf(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		return refused(s.address, err)
	case codes.Unavailable, codes.DeadlineExceeded:
		return fmt.Errorf("no answer from Temporal at %s: %w", s.address, err)
	}
	return err
}

// isTransient tells an error of the connection, which may be over soon.
func isTransient(err error) bool {
	switch codeOf(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Internal:
		return true
	}
	return false
}

func isNotFound(err error) bool {
	var noNamespace *serviceerror.NamespaceNotFound
	return codeOf(err) == codes.NotFound && !errors.As(err, &noNamespace)
}

func codeOf(err error) codes.Code {
	var serviceError serviceerror.ServiceError
	switch {
	case err == nil:
		return codes.OK
	case errors.As(err, &serviceError):
		return serviceError.Status().Code()
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	default:
		return status.Code(err)
	}
}
