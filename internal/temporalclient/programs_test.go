package temporalclient_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/support/programs"
	"keyturn/testsuite/support/testca"
)

// programTimeout is how long a program may take to refuse its settings.
const programTimeout = time.Minute

// secret stands wherever a secret can be, and where people put one by mistake.
const secret = "s3cret-5f1b9c04"

// Both built programs refuse each wrong setting with the same line.
func TestBothProgramsRefuseEachWrongSettingWithTheSameLine(t *testing.T) {
	programs := build(t)
	for name, test := range wrongSettings(t) {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			if test.userFile != "" {
				writeAt(t, filepath.Join(home, ".config", "temporalio", "temporal.toml"), test.userFile)
			}
			env := map[string]string{
				"HOME": home, "OPS_MANAGER_URL": "https://ops.example.net", "OPS_MANAGER_PUBLIC_KEY": "abcdefgh",
				"OPS_MANAGER_PRIVATE_KEY": secret, "TEMPORAL_API_KEY": secret,
			}
			maps.Copy(env, test.set)
			for _, program := range programs {
				assert.Equal(t, test.want, program.refusal(t, env), program.path)
			}
		})
	}
}

type program struct {
	path      string
	arguments []string
	exitCode  int
}

func build(t *testing.T) []program {
	t.Helper()
	return []program{
		{path: programs.Build(t, "./worker"), exitCode: 1},
		{path: programs.Build(t, "./starter"), exitCode: 2, arguments: []string{
			"watch", "--project", strings.Repeat("a", 24), "--cluster", strings.Repeat("b", 24),
		}},
	}
}

// refusal returns the one line that the program ends with, without its name.
func (p program) refusal(t *testing.T, env map[string]string) string {
	t.Helper()
	// A program that accepts the settings does not end by itself: nothing is there.
	ctx, cancel := context.WithTimeout(t.Context(), programTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, p.path, p.arguments...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr, command.Env = &stdout, &stderr, []string{}
	for name, value := range env {
		command.Env = append(command.Env, name+"="+value)
	}
	err := command.Run()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "%s", stderr.String())
	assert.Equal(t, p.exitCode, exit.ExitCode())
	assert.Empty(t, stdout.String())
	assert.NotContains(t, stderr.String(), secret)
	_, line, found := strings.Cut(stderr.String(), ": ")
	require.True(t, found, "%s", stderr.String())
	return strings.TrimSuffix(line, "\n")
}

type wrongSetting struct {
	set      map[string]string
	userFile string // the user's own temporal.toml
	want     string
}

func wrongSettings(t *testing.T) map[string]wrongSetting {
	t.Helper()
	missing := filepath.Join(t.TempDir(), "missing")
	empty := writeFile(t, "empty", "")
	authority := testca.New(t, "authority")
	certificatePEM, keyPEM := testca.PEM(t, authority.Issue(t, "client"))
	certificate, key := writeFile(t, "cert.pem", string(certificatePEM)), writeFile(t, "key.pem", string(keyPEM))
	_, otherKeyPEM := testca.PEM(t, authority.Issue(t, "other"))
	otherKey := writeFile(t, "other.pem", string(otherKeyPEM))
	variable := func(name, value, problem string) wrongSetting {
		return wrongSetting{set: map[string]string{name: value}, want: name + ": " + problem}
	}
	file := func(text, want string) wrongSetting {
		return wrongSetting{set: map[string]string{"TEMPORAL_CONFIG_FILE": writeFile(t, "temporal.toml", text)}, want: "TEMPORAL_CONFIG_FILE: " + want}
	}
	const (
		notThere = "cannot read the file: no such file or directory"
		hostPort = "must be host:port, without http:// or https://"
		port     = "the port must be a number from 1 to 65535"
		header   = "must be printable ASCII characters, without a line end or white space around them"
		keyPair  = "does not belong to the client certificate (the first certificate of its file)"
	)
	return map[string]wrongSetting{
		"TLS misspelled":            variable("TEMPORAL_TLS", "ture", "must be true or false"),
		"TLS in words":              variable("TEMPORAL_TLS", "yes", "must be true or false"),
		"verification misspelled":   variable("TEMPORAL_TLS_DISABLE_HOST_VERIFICATION", "no", "must be true or false"),
		"address with a scheme":     variable("TEMPORAL_ADDRESS", "http://temporal:7233", hostPort),
		"address without port":      variable("TEMPORAL_ADDRESS", "temporal", hostPort),
		"address with a line end":   variable("TEMPORAL_ADDRESS", "temporal\n:7233", hostPort),
		"address with port 0":       variable("TEMPORAL_ADDRESS", "temporal:0", port),
		"address with a named port": variable("TEMPORAL_ADDRESS", "temporal:grpc", port),
		"namespace with a space":    variable("TEMPORAL_NAMESPACE", "rotations ", "begins or ends with white space"),
		"namespace with a line end": variable("TEMPORAL_NAMESPACE", "rotations\n", "contains a control character, such as a line end"),
		"API key with a line end":   variable("TEMPORAL_API_KEY", secret+"\n", header),
		"API key with a space":      variable("TEMPORAL_API_KEY", secret+" ", header),
		"API key not ASCII":         variable("TEMPORAL_API_KEY", secret+"ü", header),
		"authority not a host":      variable("TEMPORAL_CLIENT_AUTHORITY", "https://temporal", "must be a host name"),
		"header's value":            variable("TEMPORAL_GRPC_META_TEAM", "a\nb", header),
		"header's name":             variable("TEMPORAL_GRPC_META_a b", "x", "is not the name of a gRPC header"),
		"task queue":                variable("KEYTURN_TASK_QUEUE", " q", "begins or ends with white space"),
		"task queue reserved":       variable("KEYTURN_TASK_QUEUE", "/_sys/q", "begins with /_sys/, which is reserved for Temporal"),
		"no file":                   variable("TEMPORAL_CONFIG_FILE", missing, notThere),
		"file is a directory":       variable("TEMPORAL_CONFIG_FILE", t.TempDir(), "cannot read the file: is a directory"),
		"no profile":                variable("TEMPORAL_PROFILE", "prod", "temporal.toml has no such profile"),
		"CA missing":                variable("TEMPORAL_TLS_SERVER_CA_CERT_PATH", missing, notThere),
		"CA empty":                  variable("TEMPORAL_TLS_SERVER_CA_CERT_PATH", empty, "the file is empty"),
		"CA no certificate":         variable("TEMPORAL_TLS_SERVER_CA_CERT_PATH", writeFile(t, "ca", secret), "contains no certificate in PEM"),
		"CA partly damaged": variable("TEMPORAL_TLS_SERVER_CA_CERT_PATH",
			writeFile(t, "ca", string(authority.PEM)+strings.Replace(string(certificatePEM), "MII", "M!I", 1)), fmt.Sprintf(
				"the PEM block around line %d cannot be read: it must begin and end with a line of its own, and contain only Base64", strings.Count(string(authority.PEM), "\n")+1)),
		"CA data": variable("TEMPORAL_TLS_SERVER_CA_CERT_DATA", secret, "contains no certificate in PEM"),
		"CA twice": {
			set:  map[string]string{"TEMPORAL_TLS_SERVER_CA_CERT_DATA": string(authority.PEM), "TEMPORAL_TLS_SERVER_CA_CERT_PATH": certificate},
			want: "TEMPORAL_TLS_SERVER_CA_CERT_PATH: TEMPORAL_TLS_SERVER_CA_CERT_DATA is also set: set only one of them",
		},
		"server name": variable("TEMPORAL_TLS_SERVER_NAME", "https://temporal", "must be a host name"),
		"certificate missing": {
			set:  map[string]string{"TEMPORAL_TLS_CLIENT_CERT_PATH": missing, "TEMPORAL_TLS_CLIENT_KEY_PATH": key},
			want: "TEMPORAL_TLS_CLIENT_CERT_PATH: " + notThere,
		},
		"key in place of its file": {
			set:  map[string]string{"TEMPORAL_TLS_CLIENT_CERT_PATH": certificate, "TEMPORAL_TLS_CLIENT_KEY_PATH": "-----BEGIN PRIVATE KEY-----\n" + secret},
			want: "TEMPORAL_TLS_CLIENT_KEY_PATH: " + notThere,
		},
		"certificate without key": {
			set:  map[string]string{"TEMPORAL_TLS_CLIENT_CERT_PATH": certificate},
			want: "TEMPORAL_TLS_CLIENT_KEY_PATH: is required: TEMPORAL_TLS_CLIENT_CERT_PATH is set",
		},
		"key without certificate": {
			set:  map[string]string{"TEMPORAL_TLS_CLIENT_KEY_PATH": key},
			want: "TEMPORAL_TLS_CLIENT_CERT_PATH: is required: TEMPORAL_TLS_CLIENT_KEY_PATH is set",
		},
		"key of another certificate": {
			set:  map[string]string{"TEMPORAL_TLS_CLIENT_CERT_PATH": certificate, "TEMPORAL_TLS_CLIENT_KEY_PATH": otherKey},
			want: "TEMPORAL_TLS_CLIENT_KEY_PATH: " + keyPair,
		},
		"certificate path, key data": {
			set:  map[string]string{"TEMPORAL_TLS_CLIENT_CERT_PATH": certificate, "TEMPORAL_TLS_CLIENT_KEY_DATA": string(keyPEM)},
			want: "TEMPORAL_TLS_CLIENT_KEY_DATA: must be of the same kind as TEMPORAL_TLS_CLIENT_CERT_PATH: both paths, or both data",
		},
		"certificate data not PEM": {
			set:  map[string]string{"TEMPORAL_TLS_CLIENT_CERT_DATA": secret, "TEMPORAL_TLS_CLIENT_KEY_DATA": secret},
			want: "TEMPORAL_TLS_CLIENT_CERT_DATA: contains no certificate in PEM",
		},
		"not TOML":          file("[profile.default]\napi_key = "+secret+"\n", "the file is not valid TOML: line 2"),
		"UTF-16":            file("[\x00p\x00]\x00", "the file is not valid TOML: line 1"),
		"other table":       file("[profiles.default]\naddress = \"temporal:7233\"\n", "profiles: unknown key: the file may only contain [profile.<name>]"),
		"profile no table":  file("[profile]\ndefault = 1\n", "profile.default: must be a table, [profile.<name>]"),
		"profiles no table": file("profile = 1\n", "profile: must be a table, [profile.<name>]"),
		"unknown key": file("[profile.default]\nadress = \"temporal:7233\"\n",
			"profile.default.adress: unknown key: must be one of address, api_key, authority, codec, grpc_meta, namespace, tls"),
		"unknown key of TLS": file("[profile.default.tls]\nserver_ca = \"ca.pem\"\n", "profile.default.tls.server_ca: unknown key: must be one of "+
			"client_cert_data, client_cert_path, client_key_data, client_key_path, disable_host_verification, disabled, server_ca_cert_data, server_ca_cert_path, server_name"),
		"number for a text":   file("[profile.default]\nnamespace = 1\n", `profile.default.namespace: must be a string, as in "text"`),
		"text for a switch":   file("[profile.default.tls]\ndisabled = \"true\"\n", "profile.default.tls.disabled: must be true or false"),
		"switch for a table":  file("[profile.default]\ntls = true\n", "profile.default.tls: must be a table"),
		"number as a header":  file("[profile.default.grpc_meta]\nteam = 1\n", `profile.default.grpc_meta.team: must be a string, as in "text"`),
		"address in the file": file("[profile.default]\naddress = \"temporal\"\n", "profile.default.address: "+hostPort),
		"CA in the file":      file("[profile.default.tls]\nserver_ca_cert_path = \""+empty+"\"\n", "profile.default.tls.server_ca_cert_path: the file is empty"),
		"the user's own file": {userFile: "[profile.default]\naddress = \"temporal\"\n", want: "temporal.toml: profile.default.address: " + hostPort},
		"profile not in file": {
			set:  map[string]string{"TEMPORAL_CONFIG_FILE": writeFile(t, "temporal.toml", "[profile.prod]\n"), "TEMPORAL_PROFILE": "test"},
			want: "TEMPORAL_PROFILE: TEMPORAL_CONFIG_FILE has no such profile",
		},
	}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	writeAt(t, path, text)
	return path
}

func writeAt(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}
