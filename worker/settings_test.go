package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// secret is planted wherever a secret can be, and where people put one by
// mistake; no message may show it.
const secret = "s3cret-5f1b9c04"

// workingEnvironment is the least that a worker needs.
func workingEnvironment() environment {
	return environment{
		"OPS_MANAGER_URL":         "https://ops.example.net:8443",
		"OPS_MANAGER_PUBLIC_KEY":  "abcdefgh",
		"OPS_MANAGER_PRIVATE_KEY": secret,
	}
}

func TestWrongSettingIsNamedInOneLine(t *testing.T) {
	isolateFromUser(t)
	missing := filepath.Join(t.TempDir(), "missing")
	empty := writeFile(t, "empty", "")
	certificate, key := writeCertificate(t)
	temporalConfig := writeFile(t, "temporal.toml", "[profile.prod]\naddress = \"temporal:7233\"\n")
	cases := map[string]struct {
		set  environment // over the working environment; an empty value takes one away
		want string      // the whole line, after "worker: "
	}{
		"no Ops Manager": {
			environment{"OPS_MANAGER_URL": "", "OPS_MANAGER_PUBLIC_KEY": "", "OPS_MANAGER_PRIVATE_KEY": ""},
			"OPS_MANAGER_URL: is missing (no Ops Manager is configured, in KEYTURN_CONNECTIONS_FILE neither)",
		},
		"no address":           {environment{"OPS_MANAGER_URL": ""}, "OPS_MANAGER_URL: is missing"},
		"address without http": {environment{"OPS_MANAGER_URL": "ops.example.net"}, "OPS_MANAGER_URL: must begin with https:// or http://"},
		"address with a password": {
			environment{"OPS_MANAGER_URL": "https://me:" + secret + "@ops.example.net"}, "OPS_MANAGER_URL: must not hold a user name or a password",
		},
		"key as address": {environment{"OPS_MANAGER_URL": secret}, "OPS_MANAGER_URL: must begin with https:// or http://"},
		"plain http": {
			environment{"OPS_MANAGER_URL": "http://ops.example.net:8080"},
			"OPS_MANAGER_URL: plain http is refused for an address that is not loopback (OPS_MANAGER_ALLOW_HTTP is not true)",
		},
		"no public key":                {environment{"OPS_MANAGER_PUBLIC_KEY": ""}, "OPS_MANAGER_PUBLIC_KEY: is missing"},
		"no private key":               {environment{"OPS_MANAGER_PRIVATE_KEY": ""}, "OPS_MANAGER_PRIVATE_KEY: is missing"},
		"private key with a line end":  {environment{"OPS_MANAGER_PRIVATE_KEY": secret + "\n"}, "OPS_MANAGER_PRIVATE_KEY: holds a control character"},
		"both private key and file":    {environment{"OPS_MANAGER_PRIVATE_KEY_FILE": empty}, "OPS_MANAGER_PRIVATE_KEY_FILE: the private key is also set by itself: one of the two must go"},
		"empty private key file":       {environment{"OPS_MANAGER_PRIVATE_KEY": "", "OPS_MANAGER_PRIVATE_KEY_FILE": empty}, "OPS_MANAGER_PRIVATE_KEY_FILE: the file that it names is empty"},
		"private key as its file name": {environment{"OPS_MANAGER_PRIVATE_KEY": "", "OPS_MANAGER_PRIVATE_KEY_FILE": secret}, "OPS_MANAGER_PRIVATE_KEY_FILE: the file that it names can't be read: no such file or directory"},
		"private key file of two lines": {
			environment{"OPS_MANAGER_PRIVATE_KEY": "", "OPS_MANAGER_PRIVATE_KEY_FILE": writeFile(t, "two", secret+"\n"+secret)},
			"OPS_MANAGER_PRIVATE_KEY_FILE: holds a control character",
		},
		"no CA file":                  {environment{"OPS_MANAGER_CA_FILE": missing}, "OPS_MANAGER_CA_FILE: the file that it names can't be read: no such file or directory"},
		"empty CA file":               {environment{"OPS_MANAGER_CA_FILE": empty}, "OPS_MANAGER_CA_FILE: the file that it names is empty"},
		"CA file without certificate": {environment{"OPS_MANAGER_CA_FILE": writeFile(t, "ca", secret)}, "OPS_MANAGER_CA_FILE: holds no certificate in PEM"},
		"unclear boolean":             {environment{"OPS_MANAGER_ALLOW_HTTP": "yes"}, "OPS_MANAGER_ALLOW_HTTP: must be true or false"},
		"boolean in capitals":         {environment{"OPS_MANAGER_ALLOW_HTTP": "TRUE"}, "OPS_MANAGER_ALLOW_HTTP: must be true or false"},
		"rate no number":              {environment{"OPS_MANAGER_REQUESTS_PER_SECOND": "2/s"}, "OPS_MANAGER_REQUESTS_PER_SECOND: must be a number"},
		"rate negative":               {environment{"OPS_MANAGER_REQUESTS_PER_SECOND": "-1"}, "OPS_MANAGER_REQUESTS_PER_SECOND: must be 0 (no limit) or more"},
		"rate NaN":                    {environment{"OPS_MANAGER_REQUESTS_PER_SECOND": "NaN"}, "OPS_MANAGER_REQUESTS_PER_SECOND: must be 0 (no limit) or more"},
		"rate infinite":               {environment{"OPS_MANAGER_REQUESTS_PER_SECOND": "Inf"}, "OPS_MANAGER_REQUESTS_PER_SECOND: must be 0 (no limit) or more"},
		"rate too big":                {environment{"OPS_MANAGER_REQUESTS_PER_SECOND": "1e999"}, "OPS_MANAGER_REQUESTS_PER_SECOND: must be a number"},
		"in flight fraction":          {environment{"OPS_MANAGER_MAX_IN_FLIGHT": "1.5"}, "OPS_MANAGER_MAX_IN_FLIGHT: must be a whole number"},
		"in flight negative":          {environment{"OPS_MANAGER_MAX_IN_FLIGHT": "-1"}, "OPS_MANAGER_MAX_IN_FLIGHT: must be 0 (no limit) or more"},
		"a queue's limit below 0":     {environment{"KEYTURN_TASK_QUEUE_ACTIVITIES_PER_SECOND": "-1"}, "KEYTURN_TASK_QUEUE_ACTIVITIES_PER_SECOND: must be a number, 0 (no limit) or more"},
		"a queue's limit in words":    {environment{"KEYTURN_TASK_QUEUE_ACTIVITIES_PER_SECOND": "few"}, "KEYTURN_TASK_QUEUE_ACTIVITIES_PER_SECOND: must be a number, 0 (no limit) or more"},
		"listening at a port alone":   {environment{"KEYTURN_LISTEN": "9090"}, "KEYTURN_LISTEN: must be host:port or :port"},
		"listening at a URL":          {environment{"KEYTURN_LISTEN": "http://127.0.0.1:9090"}, "KEYTURN_LISTEN: must be host:port or :port"},
		"listening at port 0":         {environment{"KEYTURN_LISTEN": "127.0.0.1:0"}, "KEYTURN_LISTEN: the port must be a number from 1 to 65535"},
		"listening at a named port":   {environment{"KEYTURN_LISTEN": ":http"}, "KEYTURN_LISTEN: the port must be a number from 1 to 65535"},
		"listening elsewhere":         {environment{"KEYTURN_LISTEN": "192.0.2.1:9090"}, "KEYTURN_LISTEN: can't be listened at: cannot assign requested address"},
		"log format unknown":          {environment{"KEYTURN_LOG_FORMAT": "JSON"}, "KEYTURN_LOG_FORMAT: must be text or json"},
		"log level unknown":           {environment{"KEYTURN_LOG_LEVEL": "verbose"}, "KEYTURN_LOG_LEVEL: must be debug, info, warn or error"},
		"queue with spaces":           {environment{"KEYTURN_TASK_QUEUE": " key-rotation"}, "KEYTURN_TASK_QUEUE: begins or ends with white space"},
		"queue with a line end":       {environment{"KEYTURN_TASK_QUEUE": "key\nrotation"}, "KEYTURN_TASK_QUEUE: holds a control character"},
		"queue of Temporal's own":     {environment{"KEYTURN_TASK_QUEUE": "/_sys/q/1"}, "KEYTURN_TASK_QUEUE: begins with /_sys/, which Temporal keeps for itself"},
		"queue too long":              {environment{"KEYTURN_TASK_QUEUE": strings.Repeat("q", 1001)}, "KEYTURN_TASK_QUEUE: is longer than 1000 bytes"},
		"deployment with a dot":       {environment{"KEYTURN_DEPLOYMENT": "key.turn", "KEYTURN_BUILD_ID": "v1"}, "KEYTURN_DEPLOYMENT: must be 1 to 100 letters, digits, - or _, and begin with a letter or a digit"},
		"deployment of Temporal's":    {environment{"KEYTURN_DEPLOYMENT": "__keyturn", "KEYTURN_BUILD_ID": "v1"}, "KEYTURN_DEPLOYMENT: must be 1 to 100 letters, digits, - or _, and begin with a letter or a digit"},
		"build id with a space":       {environment{"KEYTURN_DEPLOYMENT": "keyturn", "KEYTURN_BUILD_ID": "v1 final"}, "KEYTURN_BUILD_ID: must be 1 to 100 letters, digits, ., +, - or _, and begin with a letter or a digit"},
		"build id without deployment": {environment{"KEYTURN_BUILD_ID": "v1"}, "KEYTURN_BUILD_ID: is of no use without KEYTURN_DEPLOYMENT"},
		"no build id": {
			environment{"KEYTURN_DEPLOYMENT": "keyturn"},
			"KEYTURN_BUILD_ID: is missing, and this program has no version of its own: it was not built from a release or a clean checkout",
		},
		"no connections file": {environment{"KEYTURN_CONNECTIONS_FILE": missing}, "KEYTURN_CONNECTIONS_FILE: the file that it names can't be read: no such file or directory"},
		"connections file a directory": {
			environment{"KEYTURN_CONNECTIONS_FILE": t.TempDir()}, "KEYTURN_CONNECTIONS_FILE: the file that it names can't be read: is a directory",
		},
		"address with a scheme":   {environment{"TEMPORAL_ADDRESS": "http://temporal:7233"}, "TEMPORAL_ADDRESS: must be host:port, without http:// or https://"},
		"address without port":    {environment{"TEMPORAL_ADDRESS": "temporal"}, "TEMPORAL_ADDRESS: must be host:port, without http:// or https://"},
		"address with port 0":     {environment{"TEMPORAL_ADDRESS": "temporal:0"}, "TEMPORAL_ADDRESS: the port must be a number from 1 to 65535"},
		"address with named port": {environment{"TEMPORAL_ADDRESS": "temporal:grpc"}, "TEMPORAL_ADDRESS: the port must be a number from 1 to 65535"},
		"TLS unclear":             {environment{"TEMPORAL_TLS": "yes"}, "TEMPORAL_TLS: must be true or false"},
		"verification unclear":    {environment{"TEMPORAL_TLS_DISABLE_HOST_VERIFICATION": "no"}, "TEMPORAL_TLS_DISABLE_HOST_VERIFICATION: must be true or false"},
		"no Temporal file":        {environment{"TEMPORAL_CONFIG_FILE": missing}, "TEMPORAL_CONFIG_FILE: the file that it names can't be read: no such file or directory"},
		"Temporal file not TOML": {
			environment{"TEMPORAL_CONFIG_FILE": writeFile(t, "bad.toml", "[profile.default]\napi_key = "+secret+"\n")},
			"TEMPORAL_CONFIG_FILE: the file is not TOML: line 2",
		},
		"unknown profile": {
			environment{"TEMPORAL_CONFIG_FILE": temporalConfig, "TEMPORAL_PROFILE": "test"}, "TEMPORAL_PROFILE: there is no such profile in the configuration file",
		},
		"profile without a file": {environment{"TEMPORAL_PROFILE": "prod"}, "TEMPORAL_PROFILE: there is no such profile in the configuration file"},
		"client certificate missing": {
			environment{"TEMPORAL_TLS_CLIENT_CERT_PATH": missing, "TEMPORAL_TLS_CLIENT_KEY_PATH": key},
			"TEMPORAL_TLS_CLIENT_CERT_PATH: the file that it names can't be read: no such file or directory",
		},
		"client key as its file name": {
			environment{"TEMPORAL_TLS_CLIENT_CERT_PATH": certificate, "TEMPORAL_TLS_CLIENT_KEY_PATH": "-----BEGIN PRIVATE KEY-----\n" + secret},
			"TEMPORAL_TLS_CLIENT_KEY_PATH: the file that it names can't be read: no such file or directory",
		},
		"server CA missing": {
			environment{"TEMPORAL_TLS_SERVER_CA_CERT_PATH": missing}, "TEMPORAL_TLS_SERVER_CA_CERT_PATH: the file that it names can't be read: no such file or directory",
		},
		"server CA no certificate": {
			environment{"TEMPORAL_TLS_SERVER_CA_CERT_PATH": empty}, "TEMPORAL_TLS_*: invalid TLS config: failed adding server CA to CA pool",
		},
		"client certificate without key": {
			environment{"TEMPORAL_TLS_CLIENT_CERT_PATH": certificate},
			"TEMPORAL_TLS_*: invalid TLS config: if either client cert or key path is present, other must be present too",
		},
		"client key data no PEM": {
			environment{"TEMPORAL_TLS_CLIENT_CERT_DATA": secret, "TEMPORAL_TLS_CLIENT_KEY_DATA": secret},
			"TEMPORAL_TLS_*: invalid TLS config: failed loading client cert/key data: tls: failed to find any PEM data in certificate input",
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			env := workingEnvironment()
			env["TEMPORAL_API_KEY"] = secret
			maps.Copy(env, test.set)
			requireOneLine(t, env, test.want)
		})
	}
}

func TestWrongConnectionsFileIsNamedInOneLine(t *testing.T) {
	isolateFromUser(t)
	const whole = "url = \"https://emea.example.net\"\npublic_key = \"abcdefgh\"\nprivate_key = \"" + secret + "\"\n"
	const keys = "url, public_key, private_key, private_key_file, ca_file, allow_http, requests_per_second, max_in_flight"
	cases := map[string]struct{ file, want string }{
		"not TOML":              {"[connections.emea]\nprivate_key = " + secret, "the file is not TOML: line 2"},
		"key twice":             {"[connections.emea]\n" + whole + whole, "the file is not TOML: line 5"},
		"empty":                 {"", "the file holds no [connections.<name>]"},
		"no connection":         {"[connections]\n", "the file holds no [connections.<name>]"},
		"other table":           {"[connection.emea]\n" + whole, "connection: unknown key: the file holds only [connections.<name>]"},
		"no table":              {"connections = 1\n", "connections: must be a table"},
		"a value as connection": {"[connections]\nemea = 1\n", "connections.emea: must be a table, [connections.emea]"},
		"unknown key":           {"[connections.emea]\n" + whole + "requests_per_sec = 2\n", "connections.emea.requests_per_sec: unknown key: it must be one of " + keys},
		"key in capitals":       {"[connections.emea]\nURL = \"https://emea.example.net\"\n", "connections.emea.URL: unknown key: it must be one of " + keys},
		"quoted unknown key":    {"[connections.emea]\n\"two\\nlines\" = 2\n", `connections.emea."two\nlines": unknown key: it must be one of ` + keys},
		"table in a connection": {"[connections.emea.url]\nx = 1\n", `connections.emea.url: must be a text, as in "text"`},
		"name with a colon":     {"[connections.\"emea:1\"]\n" + whole, `connections."emea:1": a connection's name must be 1 to 64 letters, digits, - or _`},
		"name too long": {
			"[connections." + strings.Repeat("n", 65) + "]\n" + whole,
			"connections." + strings.Repeat("n", 65) + ": a connection's name must be 1 to 64 letters, digits, - or _",
		},
		"default twice":      {"[connections.default]\n" + whole, "connections.default: this connection is also set by OPS_MANAGER_* variables: one of the two must go"},
		"no address":         {"[connections.emea]\npublic_key = \"a\"\n", "connections.emea.url: is missing"},
		"plain http":         {"[connections.emea]\nurl = \"http://emea.example.net\"\n", "connections.emea.url: plain http is refused for an address that is not loopback (KEYTURN_CONNECTIONS_FILE: connections.emea.allow_http is not true)"},
		"number for a text":  {"[connections.emea]\nurl = 1\n", `connections.emea.url: must be a text, as in "text"`},
		"text for a boolean": {"[connections.emea]\n" + whole + "allow_http = \"" + secret + "\"\n", "connections.emea.allow_http: must be true or false"},
		"text for a number":  {"[connections.emea]\n" + whole + "requests_per_second = \"2\"\n", "connections.emea.requests_per_second: must be a number"},
		"rate NaN":           {"[connections.emea]\n" + whole + "requests_per_second = nan\n", "connections.emea.requests_per_second: must be 0 (no limit) or more"},
		"rate infinite":      {"[connections.emea]\n" + whole + "requests_per_second = +inf\n", "connections.emea.requests_per_second: must be 0 (no limit) or more"},
		"in flight fraction": {"[connections.emea]\n" + whole + "max_in_flight = 1.0\n", "connections.emea.max_in_flight: must be a whole number"},
		"in flight negative": {"[connections.emea]\n" + whole + "max_in_flight = -1\n", "connections.emea.max_in_flight: must be 0 (no limit) or more"},
		"both private keys":  {"[connections.emea]\n" + whole + "private_key_file = \"k\"\n", "connections.emea.private_key_file: the private key is also set by itself: one of the two must go"},
		"no key file":        {"[connections.emea]\nprivate_key_file = \"" + secret + "\"\n", "connections.emea.private_key_file: the file that it names can't be read: no such file or directory"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			env := workingEnvironment()
			env["KEYTURN_CONNECTIONS_FILE"] = writeFile(t, "connections.toml", test.file)
			requireOneLine(t, env, "KEYTURN_CONNECTIONS_FILE: "+test.want)
		})
	}
}

func TestFileErrorsNeverShowThePath(t *testing.T) {
	if err := withoutPath(errors.New("other")); err.Error() != "other" {
		t.Errorf("got %v, want an error without a path as it is", err)
	}
}

func TestDefaultsNeedOnlyOpsManager(t *testing.T) {
	isolateFromUser(t)
	got, err := readSettings(workingEnvironment())
	if err != nil {
		t.Fatal(err)
	}
	if got.taskQueue != "key-rotation" || got.temporal.HostPort != "localhost:7233" || got.temporal.Namespace != "default" {
		t.Errorf("got %q, %q, %q; want the documented defaults", got.taskQueue, got.temporal.HostPort, got.temporal.Namespace)
	}
	if len(got.connections) != 1 || got.connections[0].name != "default" || got.connections[0].host != "ops.example.net:8443" {
		t.Errorf("got %+v, want the connection default", got.connections)
	}
}

func TestConnectionsOfVariablesAndFileAddUp(t *testing.T) {
	isolateFromUser(t)
	file := writeFile(t, "connections.toml", `
[connections.emea]
url = "https://emea.example.net/prefix"
public_key = "abcdefgh"
private_key_file = "emea.key"
requests_per_second = 2
max_in_flight = 4

[connections.apac]
url = "http://apac.example.net:8080"
public_key = "abcdefgh"
private_key = "x"
allow_http = true
requests_per_second = 0.5
`)
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "emea.key"), []byte(secret+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := workingEnvironment()
	env["KEYTURN_CONNECTIONS_FILE"] = file
	got, err := readConnections(env)
	if err != nil {
		t.Fatal(err)
	}
	var described []string
	for _, connection := range got {
		if connection.client == nil {
			t.Errorf("%s has no client", connection.name)
		}
		described = append(described, connection.name+"="+connection.host)
	}
	if want := "apac=apac.example.net:8080 default=ops.example.net:8443 emea=emea.example.net"; strings.Join(described, " ") != want {
		t.Errorf("got %q, want %q", described, want)
	}
	activities := settings{connections: got}.activities()
	if len(activities.Connections) != 3 || activities.Connections["emea"] == nil {
		t.Errorf("the activities have %v, want all three", activities.Connections)
	}
}

func TestEverySettingOfAConnectionReachesTheClient(t *testing.T) {
	certificate, _ := writeCertificate(t)
	env := environment{
		"OPS_MANAGER_URL": "http://ops.example.net", "OPS_MANAGER_PUBLIC_KEY": "abcdefgh",
		"OPS_MANAGER_PRIVATE_KEY_FILE": writeFile(t, "key", secret+"\n"), "OPS_MANAGER_CA_FILE": certificate,
		"OPS_MANAGER_ALLOW_HTTP": "true", "OPS_MANAGER_REQUESTS_PER_SECOND": "2.5", "OPS_MANAGER_MAX_IN_FLIGHT": "3",
	}
	raw, err := variableConnection(env)
	if err != nil {
		t.Fatal(err)
	}
	config, err := raw.config()
	if err != nil {
		t.Fatal(err)
	}
	if config.BaseURL != "http://ops.example.net" || config.PublicKey != "abcdefgh" || config.PrivateKey != secret ||
		!bytes.Contains(config.CAPEM, []byte("CERTIFICATE")) || !config.AllowHTTP || config.RequestsPerSecond != 2.5 || config.MaxInFlight != 3 ||
		!strings.HasPrefix(config.UserAgent, "keyturn/") {
		t.Errorf("got %+v", config)
	}
}

func TestTemporalSettingsComeFromProfileAndVariables(t *testing.T) {
	isolateFromUser(t)
	env := environment{
		"TEMPORAL_CONFIG_FILE": writeFile(t, "temporal.toml", "[profile.prod]\naddress = \"temporal:7233\"\nnamespace = \"rotations\"\n"),
		"TEMPORAL_PROFILE":     "prod", "TEMPORAL_NAMESPACE": "override", "TEMPORAL_ADDRESS": "", "TEMPORAL_API_KEY": secret,
	}
	got, err := readTemporal(env)
	if err != nil {
		t.Fatal(err)
	}
	if got.HostPort != "temporal:7233" || got.Namespace != "override" || got.Credentials == nil || got.ConnectionOptions.TLS == nil {
		t.Errorf("got %q, %q; want the profile's address, the variable's namespace, and TLS for the API key", got.HostPort, got.Namespace)
	}
}

func TestAddressForDNSLoadBalancing(t *testing.T) {
	if err := checkAddress("dns:///temporal.example.net:7233"); err != nil {
		t.Error(err)
	}
}

// requireOneLine runs the worker's command line, which must fail at once.
func requireOneLine(t *testing.T, env environment, want string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := execute(nil, env, &stdout, &stderr)
	if got := stderr.String(); got != "worker: "+want+"\n" || strings.Contains(got, secret) {
		t.Errorf("got  %q\nwant %q", got, "worker: "+want+"\n")
	}
	if code != exitFailed || stdout.Len() > 0 {
		t.Errorf("exit code %d and output %q, want %d and none", code, stdout.String(), exitFailed)
	}
}

// isolateFromUser keeps the temporal.toml of whoever runs the tests out.
func isolateFromUser(t *testing.T) {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeCertificate writes a self-signed certificate and its key, in PEM.
func writeCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate = writeFile(t, "certificate.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})))
	return certificate, writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})))
}
