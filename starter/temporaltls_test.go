package main

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/testca"
	"keyturn/testsuite/support/tlsproxy"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const testAPIKey = "s3cret-api-key-5f1b9c04"

// The command line as used in production: Temporal behind mutual TLS, another name and an
// API key, in a namespace of its own.
func TestRotationThroughMutualTLSAndAPIKey(t *testing.T) {
	t.Parallel()
	const namespace = "rotations"
	server := temporalserver.StartForTest(t, temporalserver.Options{Namespaces: []string{namespace}})
	site := tlsproxy.NewFixture(t, server.Address, testAPIKey)
	variables := site.Variables()
	variables["TEMPORAL_NAMESPACE"] = namespace
	variables["TEMPORAL_CONFIG_FILE"] = noProfile(t)
	profile := site.Profile(t, "prod", namespace)
	for name, configuration := range map[string]struct {
		variables map[string]string
		flags     []string
	}{
		"variables": {variables, nil},
		"profile":   {map[string]string{"TEMPORAL_CONFIG_FILE": profile, "TEMPORAL_PROFILE": "prod"}, nil},
		"flag":      {map[string]string{"TEMPORAL_CONFIG_FILE": profile}, []string{"--profile", "prod"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFixtureAt(t, server, 1)
			s.Connection, s.TaskQueue = "tls-"+name, "tls-"+name
			s.StartWorker()
			before := site.Passed()
			words := append([]string{"rotate", "--wait", "--project", s.cluster.ProjectID, "--cluster", s.cluster.ID, "--connection", s.Connection}, configuration.flags...)
			env := append(entries(configuration.variables), "KEYTURN_TASK_QUEUE="+s.Connection)
			var stdout, stderr bytes.Buffer
			require.Equal(t, exitDone, run(t.Context(), words, env, strings.NewReader(""), &stdout, &stderr))
			require.Len(t, s.OM.Ledger().Rotations, 2)
			assert.NotEqual(t, before, site.Passed())
			assert.NotContains(t, stdout.String()+stderr.String(), testAPIKey)
		})
	}
}

func entries(variables map[string]string) (entries []string) {
	for name, value := range variables {
		entries = append(entries, name+"="+value)
	}
	return entries
}

func TestTLSProblemsAreExplained(t *testing.T) {
	t.Parallel()
	server := temporalserver.Shared(t)
	site := tlsproxy.NewFixture(t, server.Address, testAPIKey)
	impostor := site.WithCertificate(t, testca.New(t, "foreign authority").Issue(t, "impostor", testca.For(tlsproxy.Host)))
	expired := site.WithCertificate(t, site.Authority.Issue(t, "impostor", testca.For(tlsproxy.Host), testca.Expired))
	foreignCertificate, foreignKey := site.Client(t, "foreign", testca.New(t, "foreign authority"))
	const unreachable, refused = "keyturn: cannot connect to Temporal at ", "keyturn: credentials refused by Temporal at "
	for name, test := range map[string]struct {
		set         map[string]string
		begin, want string
	}{
		"no client certificate": {
			map[string]string{"TEMPORAL_TLS_CLIENT_CERT_PATH": "", "TEMPORAL_TLS_CLIENT_KEY_PATH": ""}, unreachable,
			"TEMPORAL_TLS_CLIENT_CERT_PATH: Temporal requires a client certificate",
		},
		"foreign client certificate": {
			map[string]string{"TEMPORAL_TLS_CLIENT_CERT_PATH": foreignCertificate, "TEMPORAL_TLS_CLIENT_KEY_PATH": foreignKey}, unreachable,
			"TEMPORAL_TLS_CLIENT_CERT_PATH: Temporal refuses the client certificate",
		},
		"no API key":     {map[string]string{"TEMPORAL_API_KEY": ""}, refused, "TEMPORAL_API_KEY: "},
		"wrong API key":  {map[string]string{"TEMPORAL_API_KEY": "wrong-" + testAPIKey}, refused, "TEMPORAL_API_KEY: "},
		"no private CA":  {map[string]string{"TEMPORAL_TLS_SERVER_CA_CERT_PATH": ""}, unreachable, "TEMPORAL_TLS_SERVER_CA_CERT_PATH: "},
		"foreign CA":     {map[string]string{"TEMPORAL_ADDRESS": impostor.Address}, unreachable, "TEMPORAL_TLS_SERVER_CA_CERT_PATH: "},
		"no server name": {map[string]string{"TEMPORAL_TLS_SERVER_NAME": ""}, unreachable, "TEMPORAL_TLS_SERVER_NAME: "},
		"expired":        {map[string]string{"TEMPORAL_ADDRESS": expired.Address}, unreachable, "TEMPORAL_ADDRESS: "},
		"TLS off":        {map[string]string{"TEMPORAL_TLS": "false"}, unreachable, "TEMPORAL_TLS: Temporal speaks TLS"},
		"no TLS there":   {map[string]string{"TEMPORAL_ADDRESS": server.Address}, unreachable, "TEMPORAL_TLS: TLS is on"},
	} {
		t.Run(name, func(t *testing.T) {
			variables := site.Variables()
			maps.Copy(variables, test.set)
			code, stdout, stderr := runHere(t, entries(variables), nil, "watch", "--project", testProject, "--cluster", testCluster)
			assert.Equal(t, exitFailed, code, stderr)
			assert.Empty(t, stdout)
			assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
			assert.NotContains(t, stderr, testAPIKey)
			assert.True(t, strings.HasPrefix(stderr, test.begin), stderr)
			assert.Contains(t, stderr, test.want)
		})
	}
}
