package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/kmipevidence"
	"keyturn/internal/setting"
	"keyturn/opsmanager"
	"keyturn/testsuite/support/kmipsimulator"
)

// secret is planted wherever a secret can be, and where people put one by
// mistake; no message may show it.
const secret = "s3cret-5f1b9c04"

// workingEnvironment is the least that a worker needs.
func workingEnvironment() setting.Environment {
	return setting.Environment{
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
	cases := map[string]struct {
		set  setting.Environment // over the working environment; an empty value takes one away
		want string              // the whole line, after "keyturn-worker: "
	}{
		"no Ops Manager": {
			setting.Environment{"OPS_MANAGER_URL": "", "OPS_MANAGER_PUBLIC_KEY": "", "OPS_MANAGER_PRIVATE_KEY": ""},
			"OPS_MANAGER_URL: is required: no Ops Manager is configured here or in KEYTURN_CONNECTIONS_FILE",
		},
		"no address":           {setting.Environment{"OPS_MANAGER_URL": ""}, "OPS_MANAGER_URL: is missing"},
		"address without http": {setting.Environment{"OPS_MANAGER_URL": "ops.example.net"}, "OPS_MANAGER_URL: must begin with https:// or http://"},
		"address with a password": {
			setting.Environment{"OPS_MANAGER_URL": "https://me:" + secret + "@ops.example.net"}, "OPS_MANAGER_URL: must not contain a user name or a password",
		},
		"key as address": {setting.Environment{"OPS_MANAGER_URL": secret}, "OPS_MANAGER_URL: must begin with https:// or http://"},
		"plain http": {
			setting.Environment{"OPS_MANAGER_URL": "http://ops.example.net:8080"},
			"OPS_MANAGER_URL: plain http is refused except for a loopback address (OPS_MANAGER_ALLOW_HTTP is not true)",
		},
		"no public key":                {setting.Environment{"OPS_MANAGER_PUBLIC_KEY": ""}, "OPS_MANAGER_PUBLIC_KEY: is missing"},
		"no private key":               {setting.Environment{"OPS_MANAGER_PRIVATE_KEY": ""}, "OPS_MANAGER_PRIVATE_KEY: is missing"},
		"private key with a line end":  {setting.Environment{"OPS_MANAGER_PRIVATE_KEY": secret + "\n"}, "OPS_MANAGER_PRIVATE_KEY: contains a line end"},
		"both private key and file":    {setting.Environment{"OPS_MANAGER_PRIVATE_KEY_FILE": empty}, "OPS_MANAGER_PRIVATE_KEY_FILE: the private key itself is also set: set only one of them"},
		"empty private key file":       {setting.Environment{"OPS_MANAGER_PRIVATE_KEY": "", "OPS_MANAGER_PRIVATE_KEY_FILE": empty}, "OPS_MANAGER_PRIVATE_KEY_FILE: the file is empty"},
		"private key as its file name": {setting.Environment{"OPS_MANAGER_PRIVATE_KEY": "", "OPS_MANAGER_PRIVATE_KEY_FILE": secret}, "OPS_MANAGER_PRIVATE_KEY_FILE: cannot read the file: no such file or directory"},
		"private key file of two lines": {
			setting.Environment{"OPS_MANAGER_PRIVATE_KEY": "", "OPS_MANAGER_PRIVATE_KEY_FILE": writeFile(t, "two", secret+"\n"+secret)},
			"OPS_MANAGER_PRIVATE_KEY_FILE: contains a control character (U+000A) at character 16",
		},
		"no CA file":                  {setting.Environment{"OPS_MANAGER_CA_FILE": missing}, "OPS_MANAGER_CA_FILE: cannot read the file: no such file or directory"},
		"empty CA file":               {setting.Environment{"OPS_MANAGER_CA_FILE": empty}, "OPS_MANAGER_CA_FILE: the file is empty"},
		"CA file without certificate": {setting.Environment{"OPS_MANAGER_CA_FILE": writeFile(t, "ca", secret)}, "OPS_MANAGER_CA_FILE: contains no certificate in PEM"},
		"CA file with a damaged block": {
			setting.Environment{"OPS_MANAGER_CA_FILE": writeFile(t, "ca", "-----BEGIN CERTIFICATE-----\nM!I\n-----END CERTIFICATE-----\n"+readText(t, certificate))},
			"OPS_MANAGER_CA_FILE: the PEM block around line 1 cannot be read: it must begin and end with a line of its own, and contain only Base64",
		},
		"CA file a directory":        {setting.Environment{"OPS_MANAGER_CA_FILE": t.TempDir()}, "OPS_MANAGER_CA_FILE: cannot read the file: is a directory"},
		"client certificate alone":   {setting.Environment{"OPS_MANAGER_CLIENT_CERT_FILE": certificate}, "OPS_MANAGER_CLIENT_KEY_FILE: is required with a client certificate"},
		"client key alone":           {setting.Environment{"OPS_MANAGER_CLIENT_KEY_FILE": key}, "OPS_MANAGER_CLIENT_CERT_FILE: is required with a client key"},
		"client key empty":           {setting.Environment{"OPS_MANAGER_CLIENT_CERT_FILE": certificate, "OPS_MANAGER_CLIENT_KEY_FILE": empty}, "OPS_MANAGER_CLIENT_KEY_FILE: the file is empty"},
		"private key with a mark":    {setting.Environment{"OPS_MANAGER_PRIVATE_KEY": "", "OPS_MANAGER_PRIVATE_KEY_FILE": writeFile(t, "bom", "\ufeff"+secret)}, "OPS_MANAGER_PRIVATE_KEY_FILE: contains a byte order mark (U+FEFF) at character 1"},
		"private key file of quotes": {setting.Environment{"OPS_MANAGER_PRIVATE_KEY": "", "OPS_MANAGER_PRIVATE_KEY_FILE": writeFile(t, "quoted", `"`+secret+`"`)}, "OPS_MANAGER_PRIVATE_KEY_FILE: begins or ends with a quote"},
		"address with an escape":     {setting.Environment{"OPS_MANAGER_URL": "https://ops.example.net/a%20b"}, "OPS_MANAGER_URL: must not contain an escape (%)"},
		"unclear boolean":            {setting.Environment{"OPS_MANAGER_ALLOW_HTTP": "yes"}, "OPS_MANAGER_ALLOW_HTTP: must be true or false"},
		"boolean in capitals":        {setting.Environment{"OPS_MANAGER_ALLOW_HTTP": "TRUE"}, "OPS_MANAGER_ALLOW_HTTP: must be true or false"},
		"rate no number":             {setting.Environment{"OPS_MANAGER_REQUESTS_PER_SECOND": "2/s"}, "OPS_MANAGER_REQUESTS_PER_SECOND: must be a number"},
		"rate negative":              {setting.Environment{"OPS_MANAGER_REQUESTS_PER_SECOND": "-1"}, "OPS_MANAGER_REQUESTS_PER_SECOND: must be 0 (no limit) or more"},
		"rate NaN":                   {setting.Environment{"OPS_MANAGER_REQUESTS_PER_SECOND": "NaN"}, "OPS_MANAGER_REQUESTS_PER_SECOND: must be 0 (no limit) or more"},
		"rate infinite":              {setting.Environment{"OPS_MANAGER_REQUESTS_PER_SECOND": "Inf"}, "OPS_MANAGER_REQUESTS_PER_SECOND: must be 0 (no limit) or more"},
		"rate too big":               {setting.Environment{"OPS_MANAGER_REQUESTS_PER_SECOND": "1e999"}, "OPS_MANAGER_REQUESTS_PER_SECOND: must be a number"},
		"in flight fraction":         {setting.Environment{"OPS_MANAGER_MAX_IN_FLIGHT": "1.5"}, "OPS_MANAGER_MAX_IN_FLIGHT: must be a whole number"},
		"in flight negative":         {setting.Environment{"OPS_MANAGER_MAX_IN_FLIGHT": "-1"}, "OPS_MANAGER_MAX_IN_FLIGHT: must be 0 (no limit) or more"},
		"a queue's limit below 0":    {setting.Environment{"KEYTURN_TASK_QUEUE_ACTIVITIES_PER_SECOND": "-1"}, "KEYTURN_TASK_QUEUE_ACTIVITIES_PER_SECOND: must be a number, 0 (no limit) or more"},
		"a queue's limit in words":   {setting.Environment{"KEYTURN_TASK_QUEUE_ACTIVITIES_PER_SECOND": "few"}, "KEYTURN_TASK_QUEUE_ACTIVITIES_PER_SECOND: must be a number, 0 (no limit) or more"},
		"KMIP without an address":    {setting.Environment{"KMIP_SERVER_NAME": "kmip"}, "KMIP_ADDRESS: is required"},
		"KMIP without a port":        {setting.Environment{"KMIP_ADDRESS": "kmip.example.net"}, "KMIP_ADDRESS: must be host:port, such as kmip.example.com:5696"},
		"KMIP as a URL":              {setting.Environment{"KMIP_ADDRESS": "https://" + secret + "@kmip.example.net:5696"}, "KMIP_ADDRESS: must be host:port, such as kmip.example.com:5696"},
		"KMIP server name":           {setting.Environment{"KMIP_ADDRESS": "kmip:5696", "KMIP_SERVER_NAME": "kmip:5696"}, "KMIP_SERVER_NAME: must be a host name or an IP address, without a port"},
		"no KMIP CA file":            {setting.Environment{"KMIP_ADDRESS": "kmip:5696", "KMIP_CA_FILE": secret}, "KMIP_CA_FILE: cannot read the file: no such file or directory"},
		"KMIP CA file damaged": {
			setting.Environment{"KMIP_ADDRESS": "kmip:5696", "KMIP_CA_FILE": writeFile(t, "ca", "-----BEGIN CERTIFICATE-----\nM!I\n-----END CERTIFICATE-----\n"+readText(t, certificate))},
			"KMIP_CA_FILE: the PEM block around line 1 cannot be read: it must begin and end with a line of its own, and contain only Base64",
		},
		"KMIP client certificate alone": {setting.Environment{"KMIP_ADDRESS": "kmip:5696", "KMIP_CLIENT_CERT_FILE": certificate}, "KMIP_CLIENT_KEY_FILE: is required with a client certificate"},
		"KMIP client key alone":         {setting.Environment{"KMIP_ADDRESS": "kmip:5696", "KMIP_CLIENT_KEY_FILE": key}, "KMIP_CLIENT_CERT_FILE: is required with a client key"},
		"KMIP client key empty":         {setting.Environment{"KMIP_ADDRESS": "kmip:5696", "KMIP_CLIENT_CERT_FILE": certificate, "KMIP_CLIENT_KEY_FILE": empty}, "KMIP_CLIENT_KEY_FILE: the file is empty"},
		"KMIP client key not a key":     {setting.Environment{"KMIP_ADDRESS": "kmip:5696", "KMIP_CLIENT_CERT_FILE": certificate, "KMIP_CLIENT_KEY_FILE": certificate}, "KMIP_CLIENT_KEY_FILE: the PEM block at line 1 is not a private key but CERTIFICATE"},
		"KMIP without an Ops Manager": {
			setting.Environment{"OPS_MANAGER_URL": "", "OPS_MANAGER_PUBLIC_KEY": "", "OPS_MANAGER_PRIVATE_KEY": "", "KMIP_ADDRESS": "kmip:5696"},
			"KMIP_ADDRESS: requires OPS_MANAGER_URL: for a connection of KEYTURN_CONNECTIONS_FILE, set [connections.<name>.kmip] there",
		},
		"listening at a port alone":   {setting.Environment{"KEYTURN_LISTEN": "9464"}, "KEYTURN_LISTEN: must be host:port or :port"},
		"listening at a URL":          {setting.Environment{"KEYTURN_LISTEN": "http://127.0.0.1:9464"}, "KEYTURN_LISTEN: must be host:port or :port"},
		"listening at port 0":         {setting.Environment{"KEYTURN_LISTEN": "127.0.0.1:0"}, "KEYTURN_LISTEN: the port must be a number from 1 to 65535"},
		"listening at a named port":   {setting.Environment{"KEYTURN_LISTEN": ":http"}, "KEYTURN_LISTEN: the port must be a number from 1 to 65535"},
		"listening elsewhere":         {setting.Environment{"KEYTURN_LISTEN": "192.0.2.1:9464"}, "KEYTURN_LISTEN: cannot listen on this address: cannot assign requested address"},
		"log format unknown":          {setting.Environment{"KEYTURN_LOG_FORMAT": "JSON"}, "KEYTURN_LOG_FORMAT: must be text or json"},
		"log level unknown":           {setting.Environment{"KEYTURN_LOG_LEVEL": "verbose"}, "KEYTURN_LOG_LEVEL: must be debug, info, warn or error"},
		"queue with spaces":           {setting.Environment{"KEYTURN_TASK_QUEUE": " key-rotation"}, "KEYTURN_TASK_QUEUE: begins or ends with white space"},
		"queue with a line end":       {setting.Environment{"KEYTURN_TASK_QUEUE": "key\nrotation"}, "KEYTURN_TASK_QUEUE: contains a control character, such as a line end"},
		"queue of Temporal's own":     {setting.Environment{"KEYTURN_TASK_QUEUE": "/_sys/q/1"}, "KEYTURN_TASK_QUEUE: begins with /_sys/, which is reserved for Temporal"},
		"queue too long":              {setting.Environment{"KEYTURN_TASK_QUEUE": strings.Repeat("q", 1001)}, "KEYTURN_TASK_QUEUE: is longer than 1000 bytes"},
		"deployment with a dot":       {setting.Environment{"KEYTURN_DEPLOYMENT": "key.turn", "KEYTURN_BUILD_ID": "v1"}, "KEYTURN_DEPLOYMENT: must be 1 to 100 letters, digits, - or _, and begin with a letter or a digit"},
		"deployment of Temporal's":    {setting.Environment{"KEYTURN_DEPLOYMENT": "__keyturn", "KEYTURN_BUILD_ID": "v1"}, "KEYTURN_DEPLOYMENT: must be 1 to 100 letters, digits, - or _, and begin with a letter or a digit"},
		"build id with a space":       {setting.Environment{"KEYTURN_DEPLOYMENT": "keyturn", "KEYTURN_BUILD_ID": "v1 final"}, "KEYTURN_BUILD_ID: must be 1 to 100 letters, digits, ., +, - or _, and begin with a letter or a digit"},
		"build id without deployment": {setting.Environment{"KEYTURN_BUILD_ID": "v1"}, "KEYTURN_BUILD_ID: requires KEYTURN_DEPLOYMENT"},
		"no build id": {
			setting.Environment{"KEYTURN_DEPLOYMENT": "keyturn"},
			"KEYTURN_BUILD_ID: is required: this binary was built without version information",
		},
		"no connections file": {setting.Environment{"KEYTURN_CONNECTIONS_FILE": missing}, "KEYTURN_CONNECTIONS_FILE: cannot read the file: no such file or directory"},
		"connections file a directory": {
			setting.Environment{"KEYTURN_CONNECTIONS_FILE": t.TempDir()}, "KEYTURN_CONNECTIONS_FILE: cannot read the file: is a directory",
		},
		"events over http": {
			setting.Environment{"KEYTURN_EVENTS_URL": "http://relay/" + secret, "KEYTURN_EVENTS_SECRET_FILE": writeFile(t, "events", secret)},
			"KEYTURN_EVENTS_URL: plain http is refused (KEYTURN_EVENTS_ALLOW_HTTP is not true)",
		},
		"events with a password": {
			setting.Environment{"KEYTURN_EVENTS_URL": "https://me:" + secret + "@relay"}, "KEYTURN_EVENTS_URL: must not contain a user name or a password",
		},
		"events without a secret": {
			setting.Environment{"KEYTURN_EVENTS_URL": "https://relay/" + secret},
			`KEYTURN_EVENTS_SECRET_FILE: is required with KEYTURN_EVENTS_URL; generate a secret with: echo "whsec_$(openssl rand -base64 32)"`,
		},
		"secret of events for its file": {
			setting.Environment{"KEYTURN_EVENTS_URL": "https://relay", "KEYTURN_EVENTS_SECRET_FILE": "whsec_" + secret},
			"KEYTURN_EVENTS_SECRET_FILE: cannot read the file: no such file or directory",
		},
		"secret of events in another form": {
			setting.Environment{"KEYTURN_EVENTS_URL": "https://relay", "KEYTURN_EVENTS_SECRET_FILE": writeFile(t, "events", "whsec_"+secret)},
			`KEYTURN_EVENTS_SECRET_FILE: line 1 is not whsec_ followed by base64; generate a secret with: echo "whsec_$(openssl rand -base64 32)"`,
		},
		"Web UI without events": {setting.Environment{"KEYTURN_WEB_UI_URL": "https://ui"}, "KEYTURN_WEB_UI_URL: requires KEYTURN_EVENTS_URL"},
		"codec": {setting.Environment{"TEMPORAL_CODEC_ENDPOINT": "https://codec.example.net"},
			"TEMPORAL_CODEC_ENDPOINT: not supported by the worker, which has no codec: it could not read what this codec encodes; remove this setting"},
		"codec's credentials": {setting.Environment{"TEMPORAL_CODEC_AUTH": secret}, "TEMPORAL_CODEC_AUTH: not supported by the worker, which has no codec: remove this setting"},
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
	const keys = "url, public_key, private_key, private_key_file, ca_file, client_cert_file, client_key_file, allow_http, requests_per_second, max_in_flight"
	cases := map[string]struct{ file, want string }{
		"not TOML":              {"[connections.emea]\nprivate_key = " + secret, "the file is not valid TOML: line 2"},
		"key twice":             {"[connections.emea]\n" + whole + whole, "the file is not valid TOML: line 5"},
		"empty":                 {"", "the file is empty"},
		"no connection":         {"[connections]\n", "the file contains no [connections.<name>]"},
		"other table":           {"[connection.emea]\n" + whole, "connection: unknown key: the file may only contain [connections.<name>]"},
		"no table":              {"connections = 1\n", "connections: must be a table"},
		"a value as connection": {"[connections]\nemea = 1\n", "connections.emea: must be a table, [connections.emea]"},
		"unknown key":           {"[connections.emea]\n" + whole + "requests_per_sec = 2\n", "connections.emea.requests_per_sec: unknown key: must be one of " + keys},
		"key in capitals":       {"[connections.emea]\nURL = \"https://emea.example.net\"\n", "connections.emea.URL: unknown key: must be one of " + keys},
		"quoted unknown key":    {"[connections.emea]\n\"two\\nlines\" = 2\n", `connections.emea."two\nlines": unknown key: must be one of ` + keys},
		"table in a connection": {"[connections.emea.url]\nx = 1\n", `connections.emea.url: must be a string, as in "text"`},
		"name with a colon":     {"[connections.\"emea:1\"]\n" + whole, `connections."emea:1": a connection's name must be 1 to 64 letters, digits, - or _`},
		"name too long": {
			"[connections." + strings.Repeat("n", 65) + "]\n" + whole,
			"connections." + strings.Repeat("n", 65) + ": a connection's name must be 1 to 64 letters, digits, - or _",
		},
		"default twice":      {"[connections.default]\n" + whole, "connections.default: this connection is also configured by OPS_MANAGER_* variables: set only one of them"},
		"no address":         {"[connections.emea]\npublic_key = \"a\"\n", "connections.emea.url: is missing"},
		"plain http":         {"[connections.emea]\nurl = \"http://emea.example.net\"\n", "connections.emea.url: plain http is refused except for a loopback address (KEYTURN_CONNECTIONS_FILE: connections.emea.allow_http is not true)"},
		"number for a text":  {"[connections.emea]\nurl = 1\n", `connections.emea.url: must be a string, as in "text"`},
		"text for a boolean": {"[connections.emea]\n" + whole + "allow_http = \"" + secret + "\"\n", "connections.emea.allow_http: must be true or false"},
		"text for a number":  {"[connections.emea]\n" + whole + "requests_per_second = \"2\"\n", "connections.emea.requests_per_second: must be a number"},
		"rate NaN":           {"[connections.emea]\n" + whole + "requests_per_second = nan\n", "connections.emea.requests_per_second: must be 0 (no limit) or more"},
		"rate infinite":      {"[connections.emea]\n" + whole + "requests_per_second = +inf\n", "connections.emea.requests_per_second: must be 0 (no limit) or more"},
		"in flight fraction": {"[connections.emea]\n" + whole + "max_in_flight = 1.0\n", "connections.emea.max_in_flight: must be a whole number"},
		"in flight negative": {"[connections.emea]\n" + whole + "max_in_flight = -1\n", "connections.emea.max_in_flight: must be 0 (no limit) or more"},
		"KMIP no table":      {"[connections.emea]\n" + whole + "kmip = 1\n", "connections.emea.kmip: must be a table"},
		"KMIP unknown key":   {"[connections.emea]\n" + whole + "[connections.emea.kmip]\nadress = \"kmip:5696\"\n", "connections.emea.kmip.adress: unknown key: must be one of address, server_name, ca_file, client_cert_file, client_key_file"},
		"KMIP no address":    {"[connections.emea]\n" + whole + "[connections.emea.kmip]\n", "connections.emea.kmip.address: is required"},
		"KMIP number":        {"[connections.emea]\n" + whole + "[connections.emea.kmip]\naddress = 5696\n", `connections.emea.kmip.address: must be a string, as in "text"`},
		"KMIP no file":       {"[connections.emea]\n" + whole + "[connections.emea.kmip]\naddress = \"kmip:5696\"\nca_file = \"" + secret + "\"\n", "connections.emea.kmip.ca_file: cannot read the file: no such file or directory"},
		"both private keys":  {"[connections.emea]\n" + whole + "private_key_file = \"k\"\n", "connections.emea.private_key_file: the private key itself is also set: set only one of them"},
		"no key file":        {"[connections.emea]\nprivate_key_file = \"" + secret + "\"\n", "connections.emea.private_key_file: cannot read the file: no such file or directory"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			env := workingEnvironment()
			env["KEYTURN_CONNECTIONS_FILE"] = writeFile(t, "connections.toml", test.file)
			requireOneLine(t, env, "KEYTURN_CONNECTIONS_FILE: "+test.want)
		})
	}
}

func TestDefaultsNeedOnlyOpsManager(t *testing.T) {
	isolateFromUser(t)
	got, err := readSettings(workingEnvironment())
	require.NoError(t, err)
	assert.Equal(t, "key-rotation", got.taskQueue)
	assert.Equal(t, "localhost:7233", got.temporal.HostPort)
	assert.Equal(t, "default", got.temporal.Namespace)
	require.Len(t, got.connections, 1)
	assert.Equal(t, "default", got.connections[0].name)
	assert.Equal(t, "ops.example.net:8443", got.connections[0].host)
}

// An editor may begin a file with a byte order mark, which TOML allows.
func TestConnectionsFileWithAByteOrderMark(t *testing.T) {
	env := setting.Environment{"KEYTURN_CONNECTIONS_FILE": writeFile(t, "connections.toml",
		"\ufeff[connections.emea]\nurl = \"https://emea.example.net\"\npublic_key = \"abcdefgh\"\nprivate_key = \"x\"\n")}
	got, err := readConnections(env)
	require.NoError(t, err)
	assert.Equal(t, "emea", got[0].name)
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
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(file), "emea.key"), []byte(secret+"\r\n"), 0o600))
	env := workingEnvironment()
	env["KEYTURN_CONNECTIONS_FILE"] = file
	got, err := readConnections(env)
	require.NoError(t, err)
	var described []string
	for _, connection := range got {
		assert.NotNil(t, connection.client, connection.name)
		described = append(described, connection.name+"="+connection.host)
	}
	assert.Equal(t, []string{"apac=apac.example.net:8080", "default=ops.example.net:8443", "emea=emea.example.net"}, described)
	activities := settings{connections: got}.activities()
	assert.Len(t, activities.Connections, 3)
	assert.NotNil(t, activities.Connections["emea"])
}

func TestEverySettingOfAConnectionReachesTheClient(t *testing.T) {
	certificate, key := writeCertificate(t)
	env := setting.Environment{
		"OPS_MANAGER_URL": "http://ops.example.net", "OPS_MANAGER_PUBLIC_KEY": "abcdefgh",
		"OPS_MANAGER_PRIVATE_KEY_FILE": writeFile(t, "key", secret+"\n"), "OPS_MANAGER_CA_FILE": certificate,
		"OPS_MANAGER_CLIENT_CERT_FILE": certificate, "OPS_MANAGER_CLIENT_KEY_FILE": key,
		"OPS_MANAGER_ALLOW_HTTP": "true", "OPS_MANAGER_REQUESTS_PER_SECOND": "2.5", "OPS_MANAGER_MAX_IN_FLIGHT": "3",
	}
	raw, err := readVariables(env, opsManagerPrefix, connectionKeys)
	require.NoError(t, err)
	config, err := raw.config()
	require.NoError(t, err)
	for _, block := range []struct{ pem, kind string }{
		{string(config.CAPEM), "CERTIFICATE"}, {string(config.ClientCertPEM), "CERTIFICATE"}, {string(config.ClientKeyPEM), "PRIVATE KEY"},
	} {
		assert.Contains(t, block.pem, block.kind)
	}
	assert.True(t, strings.HasPrefix(config.UserAgent, "keyturn/"), config.UserAgent)
	config.CAPEM, config.ClientCertPEM, config.ClientKeyPEM, config.UserAgent = nil, nil, nil, ""
	assert.Equal(t, opsmanager.Config{
		BaseURL: "http://ops.example.net", PublicKey: "abcdefgh", PrivateKey: secret, AllowHTTP: true, RequestsPerSecond: 2.5, MaxInFlight: 3,
	}, config)
}

// The KMIP settings of a connection reach its activities, also relative file names
// of the connections file.
func TestKMIPServerOfEachConnection(t *testing.T) {
	isolateFromUser(t)
	kmip := kmipsimulator.StartForTest(t, kmipsimulator.Options{})
	id := kmip.MakeKey(t, "key")
	directory := t.TempDir()
	ca, certificate, key, err := kmip.WriteClient(directory, "keyturn")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(kmip.Address())
	require.NoError(t, err)
	file := filepath.Join(directory, "connections.toml")
	require.NoError(t, os.WriteFile(file, []byte(`
[connections.emea]
url = "https://emea.example.net"
public_key = "abcdefgh"
private_key = "x"

[connections.emea.kmip]
address = "127.0.0.1:`+port+`"
server_name = "localhost"
ca_file = "ca.pem"
client_cert_file = "client-keyturn.pem"
client_key_file = "client-keyturn.key"

[connections.apac]
url = "https://apac.example.net"
public_key = "abcdefgh"
private_key = "x"
`), 0o600))
	env := workingEnvironment()
	maps.Copy(env, setting.Environment{
		"KEYTURN_CONNECTIONS_FILE": file, "KMIP_ADDRESS": kmip.Address(), "KMIP_CA_FILE": ca, "KMIP_CLIENT_CERT_FILE": certificate, "KMIP_CLIENT_KEY_FILE": key,
	})
	got, err := readConnections(env)
	require.NoError(t, err)
	clients := settings{connections: got}.activities().KMIP
	require.Len(t, clients, 2)
	for _, name := range []string{"default", "emea"} {
		require.NoError(t, clients[name].Check(t.Context()), name)
		assert.Equal(t, kmipevidence.OutcomeWitnessed, clients[name].Ask(t.Context(), id).Outcome, name)
	}

	env["KMIP_SERVER_NAME"] = "kmip.example.net"
	got, err = readConnections(env)
	require.NoError(t, err)
	assert.ErrorContains(t, settings{connections: got}.activities().KMIP["default"].Check(t.Context()), "KMIP_SERVER_NAME: ")
}

// requireOneLine runs the worker's command line, which must fail at once.
func requireOneLine(t *testing.T, env setting.Environment, want string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := execute(nil, env, &stdout, &stderr)
	assert.Equal(t, "keyturn-worker: "+want+"\n", stderr.String())
	assert.NotContains(t, stderr.String(), secret)
	assert.Equal(t, exitFailed, code)
	assert.Empty(t, stdout.String())
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
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// writeCertificate writes a self-signed certificate and its key, in PEM.
func writeCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	certificate = writeFile(t, "certificate.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})))
	return certificate, writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})))
}
