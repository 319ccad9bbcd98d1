package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keyturn/internal/handshake"
)

const (
	addressVariable    = "TEMPORAL_ADDRESS"
	namespaceVariable  = "TEMPORAL_NAMESPACE"
	profileVariable    = "TEMPORAL_PROFILE"
	apiKeyVariable     = "TEMPORAL_API_KEY"
	configFileVariable = "TEMPORAL_CONFIG_FILE"
	tlsVariables       = "TEMPORAL_TLS_*"

	firstPause   = time.Second
	longestPause = 10 * time.Second
	// answerTime is how long Temporal may take to describe the namespace.
	answerTime = 10 * time.Second
)

// readTemporal reads Temporal's own environment configuration, which names no
// variable in its errors and passes over some mistakes: those are checked here.
func readTemporal(env environment) (client.Options, error) {
	profile, err := readProfile(env)
	if err != nil {
		return client.Options{}, err
	}
	if profile.Address == "" {
		profile.Address = client.DefaultHostPort
	}
	if profile.Namespace == "" {
		profile.Namespace = client.DefaultNamespace
	}
	if err := checkAddress(profile.Address); err != nil {
		return client.Options{}, err
	}
	if err := checkTLSFiles(profile.TLS); err != nil {
		return client.Options{}, err
	}
	options, err := profile.ToClientOptions(envconfig.ToClientOptionsRequest{})
	if err != nil {
		return client.Options{}, wrong(tlsVariables, "%v", err)
	}
	return options, nil
}

func readProfile(env environment) (envconfig.ClientConfigProfile, error) {
	none := envconfig.ClientConfigProfile{}
	for _, name := range []string{"TEMPORAL_TLS", "TEMPORAL_TLS_DISABLE_HOST_VERIFICATION"} {
		if err := checkSwitch(env, name); err != nil {
			return none, err
		}
	}
	if path, set := env.LookupEnv(configFileVariable); set {
		if _, err := readFile(configFileVariable, path); err != nil {
			return none, err
		}
	}
	config, err := envconfig.LoadClientConfig(envconfig.LoadClientConfigOptions{EnvLookup: env})
	if err != nil {
		return none, wrong(configFileVariable, "%s", configFileProblem(err))
	}
	if name, set := env.LookupEnv(profileVariable); set && config.Profiles[name] == nil {
		return none, wrong(profileVariable, "there is no such profile in the configuration file")
	}
	profile, err := envconfig.LoadClientConfigProfile(envconfig.LoadClientConfigProfileOptions{EnvLookup: env})
	if err != nil {
		return none, wrong(configFileVariable, "%s", configFileProblem(err))
	}
	return profile, nil
}

// checkSwitch refuses what envconfig would take for "not set": a security
// setting must not be lost to a misspelling.
func checkSwitch(env environment, name string) error {
	text, set := env.LookupEnv(name)
	if !set {
		return nil
	}
	switch strings.ToLower(text) {
	case "true", "false", "1", "0":
		return nil
	}
	return wrong(name, "must be true or false")
}

// configFileProblem is without the file's text, which may be an API key.
func configFileProblem(err error) string {
	if parseErr := (toml.ParseError{}); errors.As(err, &parseErr) {
		return syntaxProblem(err)
	}
	return "the configuration file can't be used: " + withoutPath(err).Error()
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(address, "dns:///"))
	if err != nil || host == "" || strings.ContainsAny(host, "/@ ") {
		return wrong(addressVariable, "must be host:port, without http:// or https://")
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return wrong(addressVariable, "the port must be a number from 1 to 65535")
	}
	return nil
}

// checkTLSFiles reads the files that envconfig is going to read, whose errors
// would show the paths.
func checkTLSFiles(tls *envconfig.ClientConfigTLS) error {
	if tls == nil || tls.Disabled {
		return nil
	}
	files := []struct{ variable, path string }{
		{"TEMPORAL_TLS_CLIENT_CERT_PATH", tls.ClientCertPath},
		{"TEMPORAL_TLS_CLIENT_KEY_PATH", tls.ClientKeyPath},
		{"TEMPORAL_TLS_SERVER_CA_CERT_PATH", tls.ServerCACertPath},
	}
	for _, file := range files {
		if file.path == "" {
			continue
		}
		if _, err := readFile(file.variable, file.path); err != nil {
			return err
		}
	}
	return nil
}

// connect returns a client of a Temporal that answers and has the namespace. It
// tries for as long as it takes, since worker and Temporal may be started in any
// order; only what no waiting mends ends it early, as a *settingError. The error
// is ctx's when ctx ends first.
func connect(ctx context.Context, options client.Options, logger *slog.Logger) (client.Client, error) {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		temporal, err := dial(ctx, options)
		if err == nil {
			return temporal, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if final := wrongSetting(err); final != nil {
			return nil, final
		}
		if fault, found := handshake.Examine(ctx, options).(*handshake.Fault); found {
			if fault.Refused {
				return nil, wrong(fault.Setting, "%s", fault.Problem)
			}
			err = fault
		}
		logger.Warn("Temporal can't be reached, trying again", "address", options.HostPort, "attempt", attempt, "pause", pause, "error", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// dial connects and asks for the namespace, as the worker's start will do: that
// one would give up at the first error.
func dial(ctx context.Context, options client.Options) (client.Client, error) {
	temporal, err := client.DialContext(ctx, options)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	request := &workflowservice.DescribeNamespaceRequest{Namespace: options.Namespace}
	if _, err := temporal.WorkflowService().DescribeNamespace(ctx, request); err != nil && codeOf(err) != codes.Unimplemented {
		temporal.Close()
		return nil, err
	}
	return temporal, nil
}

// wrongSetting tells which setting Temporal's answer speaks of; nil = none, it
// may answer otherwise in a while.
func wrongSetting(err error) error {
	switch code := codeOf(err); code {
	case codes.NotFound, codes.InvalidArgument:
		return wrong(namespaceVariable, "Temporal has no such namespace (%s)", code)
	case codes.Unauthenticated, codes.PermissionDenied:
		return wrong(apiKeyVariable, "Temporal refuses the credentials, or their use in this namespace (%s)", code)
	}
	return nil
}

func codeOf(err error) codes.Code {
	var serviceErr serviceerror.ServiceError
	if errors.As(err, &serviceErr) {
		return serviceErr.Status().Code()
	}
	return status.Code(err)
}
