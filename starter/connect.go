package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/pflag"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"google.golang.org/grpc/codes"

	"keyturn/internal/temporalclient"
	"keyturn/workflows"
)

const (
	// dialTimeout bounds the connection to Temporal.
	dialTimeout = 5 * time.Second
	// requestTimeout bounds one request.
	requestTimeout = 15 * time.Second
)

// serverFlags take precedence over the environment and temporal.toml.
type serverFlags struct{ address, namespace, profile string }

func (f *serverFlags) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&f.address, "address", "", "Temporal's host:port (default TEMPORAL_ADDRESS, temporal.toml or "+client.DefaultHostPort+")")
	flags.StringVar(&f.namespace, "namespace", "", "Temporal namespace (default TEMPORAL_NAMESPACE, temporal.toml or "+client.DefaultNamespace+")")
	flags.StringVar(&f.profile, "profile", "", "profile in temporal.toml (default TEMPORAL_PROFILE or default)")
}

// flags are the flags that were given, for a command shown to the user.
func (f serverFlags) flags() (words []string) {
	for _, flag := range []struct{ name, value string }{
		{"--address", f.address}, {"--namespace", f.namespace}, {"--profile", f.profile},
	} {
		if flag.value != "" {
			words = append(words, flag.name, flag.value)
		}
	}
	return words
}

func (a *app) defaultTaskQueue() string {
	return cmp.Or(a.env[temporalclient.TaskQueueVariable], workflows.DefaultTaskQueue)
}

// session is a connection to Temporal that explains its errors.
type session struct {
	client.Client
	address, namespace string
	configuration      *temporalclient.Configuration
}

// connect opens a session, which the caller closes.
func (a *app) connect(ctx context.Context) (*session, error) {
	configuration, options, err := a.clientOptions()
	if err != nil {
		return nil, err
	}
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	connected, err := client.DialContext(dialCtx, options)
	if err != nil {
		return nil, unreachable(ctx, configuration, options.HostPort, err)
	}
	return &session{connected, options.HostPort, options.Namespace, configuration}, nil
}

// withSession connects to Temporal for an action.
func (a *app) withSession(ctx context.Context, action func(*session) error) error {
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	return action(s)
}

func unreachable(ctx context.Context, configuration *temporalclient.Configuration, address string, err error) error {
	if isRefusal(err) {
		return refused(address, configuration.CredentialsSetting(err), err)
	}
	if problem := configuration.DiagnoseTLS(ctx); problem != nil {
		return fmt.Errorf("cannot connect to Temporal at %s: %w", address, problem)
	}
	return fmt.Errorf("cannot connect to Temporal at %s; check --address or %s: %w", address, temporalclient.AddressVariable, err)
}

// isRefusal reports whether Temporal refuses the credentials.
func isRefusal(err error) bool {
	code := temporalclient.CodeOf(err)
	return code == codes.Unauthenticated || code == codes.PermissionDenied
}

func refused(address, setting string, err error) error {
	return fmt.Errorf("credentials refused by Temporal at %s; check %s: %w", address, setting, err)
}

func (a *app) clientOptions() (*temporalclient.Configuration, client.Options, error) {
	if _, err := temporalclient.TaskQueue(a.env, workflows.DefaultTaskQueue); err != nil {
		return nil, client.Options{}, usageErrorf("%v", err)
	}
	configuration, err := temporalclient.Load(temporalclient.Request{
		Env: a.env, Address: a.server.address, Namespace: a.server.namespace, Profile: a.server.profile,
	})
	if err != nil {
		return nil, client.Options{}, usageErrorf("%v", err)
	}
	options, err := configuration.Options()
	if err != nil {
		return nil, client.Options{}, usageErrorf("%v", err)
	}
	// The SDK's own logger would write to standard output.
	options.Logger = log.NewStructuredLogger(slog.New(slog.DiscardHandler))
	return configuration, options, nil
}

// explain explains a request's error. Errors about a single workflow are left to
// the caller.
func (s *session) explain(err error) error {
	if err == nil {
		return nil
	}
	var noNamespace *serviceerror.NamespaceNotFound
	if errors.As(err, &noNamespace) {
		return fmt.Errorf("namespace %q does not exist at %s; check --namespace or %s", s.namespace, s.address, temporalclient.NamespaceVariable)
	}
	if isRefusal(err) {
		return refused(s.address, s.configuration.CredentialsSetting(err), err)
	}
	switch temporalclient.CodeOf(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return fmt.Errorf("no answer from Temporal at %s; try again: %w", s.address, err)
	}
	return err
}

// isTransient reports whether an error is one of the connection, which may pass.
func isTransient(err error) bool {
	switch temporalclient.CodeOf(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Internal:
		return true
	}
	return false
}

func isNotFound(err error) bool {
	var noNamespace *serviceerror.NamespaceNotFound
	return temporalclient.CodeOf(err) == codes.NotFound && !errors.As(err, &noNamespace)
}
