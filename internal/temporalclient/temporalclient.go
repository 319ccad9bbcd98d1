// Package temporalclient is how all of keyturn's programs reach Temporal. It reads
// Temporal's official environment configuration (TEMPORAL_ADDRESS and so on, and
// temporal.toml), refuses what is wrong in it with one line that names the
// setting, and explains why a connection fails.
//
// The configuration itself is read by
// [go.temporal.io/sdk/contrib/envconfig]. That package ignores some mistakes, such
// as TEMPORAL_TLS=ture, names no variable in its errors, and shows values in them;
// everything is therefore checked here first.
package temporalclient

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keyturn/internal/setting"
	"keyturn/internal/temporalclient/tlsdiag"
)

// Variables of Temporal's environment configuration.
const (
	AddressVariable    = "TEMPORAL_ADDRESS"     // host:port of Temporal
	NamespaceVariable  = "TEMPORAL_NAMESPACE"   // the namespace
	APIKeyVariable     = "TEMPORAL_API_KEY"     // an API key
	ConfigFileVariable = "TEMPORAL_CONFIG_FILE" // the file with profiles, temporal.toml
	ProfileVariable    = "TEMPORAL_PROFILE"     // one of its profiles

	authorityVariable = "TEMPORAL_CLIENT_AUTHORITY"
	metaPrefix        = "TEMPORAL_GRPC_META_"
)

// Request says which settings to read.
type Request struct {
	// Env has the environment variables.
	Env setting.Environment
	// Address, Namespace and Profile are the values of the flags --address,
	// --namespace and --profile, which take precedence over the environment and
	// temporal.toml. Empty means not given.
	Address, Namespace, Profile string
	// Worker refuses a remote codec: a worker would call it for every payload, also
	// at each replay.
	Worker bool
	// rereadAfter is [reload.Interval], except in tests.
	rereadAfter time.Duration
}

// settings are a profile with the environment and the flags applied to it, and
// where each of its values comes from.
type settings struct {
	request     Request
	file        configFile
	profileName string
	found       bool // the file has this profile
	profile     envconfig.ClientConfigProfile
	// contents is what profile holds and what its files do, checked.
	contents contents
	options  client.Options // of these contents
}

func readSettings(request Request) (settings, error) {
	s := settings{request: request}
	if err := s.checkSwitches("TEMPORAL_TLS", "TEMPORAL_TLS_DISABLE_HOST_VERIFICATION"); err != nil {
		return s, err
	}
	var err error
	if s.file, err = readConfigFile(request.Env); err != nil {
		return s, err
	}
	given := cmp.Or(request.Profile, request.Env[ProfileVariable])
	s.profileName = cmp.Or(given, envconfig.DefaultConfigFileProfile)
	selected, found, err := s.file.profile(s.profileName)
	if err != nil {
		return s, err
	}
	s.found = found
	if given != "" && !found {
		return s, setting.Errorf(s.name(ProfileVariable), "%s has no such profile", s.file.label)
	}
	s.profile, err = envconfig.LoadClientConfigProfile(envconfig.LoadClientConfigProfileOptions{
		ConfigFileData: selected, ConfigFileProfile: s.profileName, DisableFile: !found, EnvLookup: request.Env,
	})
	if err != nil {
		return s, setting.Errorf(s.file.label, "the profile cannot be read")
	}
	s.profile.Address = cmp.Or(request.Address, s.profile.Address, client.DefaultHostPort)
	s.profile.Namespace = cmp.Or(request.Namespace, s.profile.Namespace, client.DefaultNamespace)
	return s, nil
}

// checkSwitches refuses what envconfig takes for "not set": a security setting
// must not be lost to a misspelling.
func (s settings) checkSwitches(variables ...string) error {
	for _, variable := range variables {
		text, set := s.request.Env.LookupEnv(variable)
		if !set {
			continue
		}
		switch strings.ToLower(text) {
		case "true", "false", "1", "0":
		default:
			return setting.Errorf(variable, "must be true or false")
		}
	}
	return nil
}

// name returns what the user calls a setting: the flag or the variable that sets
// it, or else its key in the configuration file.
func (s settings) name(variable string, key ...string) string {
	flags := map[string]struct{ name, value string }{
		AddressVariable:   {"--address", s.request.Address},
		NamespaceVariable: {"--namespace", s.request.Namespace},
		ProfileVariable:   {"--profile", s.request.Profile},
	}
	if flag := flags[variable]; flag.value != "" {
		return flag.name
	}
	if _, set := s.request.Env.LookupEnv(variable); set || !s.file.has(s.profileName, key...) {
		return variable
	}
	return s.file.name(s.profileName, key...)
}

func (s *settings) check() error {
	return cmp.Or(
		checkAddress(s.name(AddressVariable, "address"), s.profile.Address),
		setting.CheckText(s.name(NamespaceVariable, "namespace"), s.profile.Namespace),
		checkHeaderValue(s.name(APIKeyVariable, "api_key"), s.profile.APIKey),
		checkAuthority(s.name(authorityVariable, "authority"), s.profile.Authority),
		s.checkMeta(),
		s.checkTLS(),
		s.checkCodec(),
	)
}

func checkAddress(name, address string) error {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(address, "dns:///"))
	if err != nil || host == "" || strings.ContainsAny(host, "/@ \t\r\n") {
		return setting.Errorf(name, "must be host:port, without http:// or https://")
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return setting.Errorf(name, "the port must be a number from 1 to 65535")
	}
	return nil
}

var (
	hostPattern = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	metaPattern = regexp.MustCompile(`^[a-z0-9._-]+$`)
	printable   = regexp.MustCompile(`^[ -~]*$`)
)

// checkHost accepts a host name or an IP address.
func checkHost(name, host string) error {
	if host != "" && !hostPattern.MatchString(host) && net.ParseIP(host) == nil {
		return setting.Errorf(name, "must be a host name")
	}
	return nil
}

// checkAuthority accepts a host, with or without a port.
func checkAuthority(name, authority string) error {
	if host, port, err := net.SplitHostPort(authority); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return setting.Errorf(name, "must be a host name")
		}
		authority = host
	}
	return checkHost(name, authority)
}

// checkHeaderValue accepts what a gRPC header can hold.
func checkHeaderValue(name, value string) error {
	if !printable.MatchString(value) || strings.TrimSpace(value) != value {
		return setting.Errorf(name, "must be printable ASCII characters, without a line end or white space around them")
	}
	return nil
}

func (s settings) checkMeta() error {
	variables := map[string]string{}
	for variable := range s.request.Env {
		if key, isMeta := strings.CutPrefix(variable, metaPrefix); isMeta {
			variables[envconfig.NormalizeGRPCMetaKey(key)] = variable
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.profile.GRPCMeta)) {
		name := cmp.Or(variables[key], s.file.name(s.profileName, "grpc_meta", key))
		if !metaPattern.MatchString(key) {
			return setting.Errorf(name, "is not the name of a gRPC header")
		}
		if err := checkHeaderValue(name, s.profile.GRPCMeta[key]); err != nil {
			return err
		}
	}
	return nil
}

// Diagnose finds the setting that explains why a connection or a request failed
// with err. It returns nil if there is none: Temporal may answer if it is tried
// again. It may connect to Temporal's address to find out.
func (c *Configuration) Diagnose(ctx context.Context, err error) *tlsdiag.Problem {
	s := c.files.Latest()
	switch code := CodeOf(err); code {
	case codes.NotFound, codes.InvalidArgument:
		return &tlsdiag.Problem{Setting: s.name(NamespaceVariable, "namespace"), Text: "Temporal has no such namespace (" + code.String() + ")", Refused: true}
	case codes.Unauthenticated, codes.PermissionDenied:
		return &tlsdiag.Problem{Setting: c.CredentialsSetting(err), Text: "Temporal refuses the credentials, or their use in this namespace (" + code.String() + ")", Refused: true}
	}
	return c.DiagnoseTLS(ctx)
}

// DiagnoseTLS finds the setting that explains why no TLS connection can be made; nil =
// TLS is not the problem. It connects to Temporal's address.
func (c *Configuration) DiagnoseTLS(ctx context.Context) *tlsdiag.Problem {
	s := c.files.Latest()
	problem := tlsdiag.Diagnose(ctx, s.profile.Address, s.options.ConnectionOptions.TLS)
	if problem != nil {
		problem.Setting = s.tlsName(problem.Setting)
	}
	return problem
}

// CredentialsSetting is what the user calls the setting that Temporal refuses with
// err. A client certificate can only be not permitted: Unauthenticated misses an API
// key.
func (c *Configuration) CredentialsSetting(err error) string {
	s := c.files.Latest()
	if s.profile.APIKey == "" && len(s.contents.tls.ClientCertData) > 0 && CodeOf(err) == codes.PermissionDenied {
		return s.tlsName(tlsdiag.ClientVariable)
	}
	return s.name(APIKeyVariable, "api_key")
}

// CodeOf returns the gRPC code of an error of Temporal's client.
func CodeOf(err error) codes.Code {
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
