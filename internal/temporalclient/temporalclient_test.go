package temporalclient_test

import (
	"os"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"

	"keyturn/internal/setting"
	"keyturn/internal/temporalclient"
	"keyturn/testsuite/support/testca"
)

func TestFlagsTakePrecedenceOverVariablesAndThoseOverTheFile(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	file := writeFile(t, "temporal.toml", "\ufeff[profile.default]\naddress = \"file:1\"\nnamespace = \"file\"\n[profile.other]\naddress = \"dns:///other:1\"\n[profile.other.oauth]\nx = 1\n")
	for name, test := range map[string]struct {
		request            temporalclient.Request
		address, namespace string
	}{
		"defaults": {temporalclient.Request{}, "localhost:7233", "default"},
		"no file":  {temporalclient.Request{Env: setting.Environment{"TEMPORAL_CONFIG_FILE": os.DevNull}}, "localhost:7233", "default"},
		"file":     {temporalclient.Request{Env: setting.Environment{"TEMPORAL_CONFIG_FILE": file}}, "file:1", "file"},
		"variable": {temporalclient.Request{Env: setting.Environment{"TEMPORAL_CONFIG_FILE": file, "TEMPORAL_ADDRESS": "v:1", "TEMPORAL_NAMESPACE": ""}}, "v:1", "file"},
		"flag": {
			temporalclient.Request{Env: setting.Environment{"TEMPORAL_CONFIG_FILE": file, "TEMPORAL_ADDRESS": "v:1"}, Address: "flag:1", Namespace: "flag"}, "flag:1", "flag",
		},
		"profile":         {temporalclient.Request{Env: setting.Environment{"TEMPORAL_CONFIG_FILE": file, "TEMPORAL_PROFILE": "other"}}, "dns:///other:1", "default"},
		"flag of profile": {temporalclient.Request{Env: setting.Environment{"TEMPORAL_CONFIG_FILE": file}, Profile: "other"}, "dns:///other:1", "default"},
	} {
		t.Run(name, func(t *testing.T) {
			options := load(t, test.request)
			assert.Equal(t, test.address, options.HostPort)
			assert.Equal(t, test.namespace, options.Namespace)
		})
	}
}

func load(t *testing.T, request temporalclient.Request) client.Options {
	t.Helper()
	configuration, err := temporalclient.Load(request)
	require.NoError(t, err)
	options, err := configuration.Options()
	require.NoError(t, err)
	return options
}

func TestWrongFlagIsNamed(t *testing.T) {
	env := setting.Environment{"TEMPORAL_CONFIG_FILE": writeFile(t, "temporal.toml", "[profile.default]\n"), "TEMPORAL_ADDRESS": "temporal:7233"}
	for want, request := range map[string]temporalclient.Request{
		"--address: must be host:port, without http:// or https://":                                             {Env: env, Address: "temporal"},
		"--namespace: begins or ends with white space":                                                          {Env: env, Namespace: " x"},
		"--profile: TEMPORAL_CONFIG_FILE has no such profile":                                                   {Env: env, Profile: "x"},
		"TEMPORAL_CODEC_AUTH: requires TEMPORAL_CODEC_ENDPOINT":                                                 {Env: setting.Environment{"TEMPORAL_CODEC_AUTH": "x"}},
		"TEMPORAL_CODEC_ENDPOINT: must be an http:// or https:// address, without user name, password or query": {Env: setting.Environment{"TEMPORAL_CODEC_ENDPOINT": "codec:80"}},
	} {
		_, err := temporalclient.Load(request)
		assert.EqualError(t, err, want)
	}
}

// The keys that a profile may have are those that envconfig writes: a key that it
// learns must be added here.
func TestProfileMayHaveEveryKeyThatEnvconfigKnows(t *testing.T) {
	authority := testca.New(t, "authority")
	config := envconfig.ClientConfig{Profiles: map[string]*envconfig.ClientConfigProfile{"default": {
		Address: "temporal:7233", Namespace: "n", APIKey: "k", Authority: "a", GRPCMeta: map[string]string{"x": "y"},
		TLS: &envconfig.ClientConfigTLS{
			Disabled: true, DisableHostVerification: true, ServerName: "s", ClientCertPath: "c", ClientCertData: []byte("c"),
			ClientKeyPath: "k", ClientKeyData: []byte("k"), ServerCACertPath: "p", ServerCACertData: authority.PEM,
		},
		Codec: &envconfig.ClientConfigCodec{Endpoint: "https://codec", Auth: "x"},
	}}}
	text, err := config.ToTOML(envconfig.ClientConfigToTOMLOptions{})
	require.NoError(t, err)
	var written map[string]any
	require.NoError(t, toml.Unmarshal(text, &written))
	options := load(t, temporalclient.Request{Env: setting.Environment{"TEMPORAL_CONFIG_FILE": writeFile(t, "temporal.toml", string(text))}})
	assert.True(t, options.ConnectionOptions.TLSDisabled)
	assert.NotNil(t, options.Credentials)
}

func TestWorkerRefusesACodecOfTheFileByItsKey(t *testing.T) {
	env := setting.Environment{"TEMPORAL_CONFIG_FILE": writeFile(t, "temporal.toml", "[profile.default.codec]\nendpoint = \"https://codec\"\n")}
	_, err := temporalclient.Load(temporalclient.Request{Env: env, Worker: true})
	assert.ErrorContains(t, err, "TEMPORAL_CONFIG_FILE: profile.default.codec.endpoint: not supported by the worker")
	_, err = temporalclient.Load(temporalclient.Request{Env: env})
	assert.NoError(t, err)
}
