package main

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	"keyturn/testsuite/authority"
	"keyturn/testsuite/gateway"
	"keyturn/testsuite/temporalserver"
)

const testAPIKey = "s3cret-api-key-5f1b9c04"

// The starter as people have it: Temporal behind mutual TLS, another name and an
// API key, in a namespace of its own.
func TestRotationThroughMutualTLSAndAPIKey(t *testing.T) {
	const namespace = "rotations"
	server := temporalserver.StartForTest(t, temporalserver.Options{Namespaces: []string{namespace}})
	site := gateway.NewSite(t, server.Address, testAPIKey)
	variables := site.Variables()
	variables["TEMPORAL_NAMESPACE"] = namespace
	variables["TEMPORAL_CONFIG_FILE"] = t.TempDir() + "/none.toml"
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
			s := newStageAt(t, server, 1)
			s.connection = "tls-" + name
			s.startWorker()
			before := site.Passed()
			words := append([]string{"rotate", "--wait", "--project", s.cluster.ProjectID, "--cluster", s.cluster.ID, "--connection", s.connection}, configuration.flags...)
			env := append(entries(configuration.variables), "KEYTURN_TASK_QUEUE="+s.connection)
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), words, env, strings.NewReader(""), &stdout, &stderr); code != exitDone {
				t.Fatalf("exit code %d:\n%s%s", code, stdout.String(), stderr.String())
			}
			if len(s.om.Ledger().Rotations) != 2 || site.Passed() == before {
				t.Errorf("%d PUTs and %d calls, want 2 PUTs and calls through the gateway", len(s.om.Ledger().Rotations), site.Passed()-before)
			}
			if strings.Contains(stdout.String()+stderr.String(), testAPIKey) {
				t.Errorf("the API key is shown:\n%s%s", stdout.String(), stderr.String())
			}
		})
	}
}

func entries(variables map[string]string) (entries []string) {
	for name, value := range variables {
		entries = append(entries, name+"="+value)
	}
	return entries
}

func TestTroubleWithTemporalsTLSIsTold(t *testing.T) {
	server := temporalserver.Shared(t)
	site := gateway.NewSite(t, server.Address, testAPIKey)
	impostor := site.Impostor(t, authority.New(t, "foreign authority").Issue(t, "impostor", authority.For(gateway.Host)))
	expired := site.Impostor(t, site.Authority.Issue(t, "impostor", authority.For(gateway.Host), authority.Expired))
	foreignCertificate, foreignKey := site.Client(t, "foreign", authority.New(t, "foreign authority"))
	const unreachable, refused = "starter: can't reach Temporal at ", "starter: the credentials are refused by Temporal at "
	for name, test := range map[string]struct {
		set         map[string]string
		begin, want string
	}{
		"no client certificate": {
			map[string]string{"TEMPORAL_TLS_CLIENT_CERT_PATH": "", "TEMPORAL_TLS_CLIENT_KEY_PATH": ""}, unreachable,
			"TEMPORAL_TLS_CLIENT_CERT_PATH: Temporal demands a client certificate",
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
			if code != exitFailed || stdout != "" || strings.Count(stderr, "\n") != 1 || strings.Contains(stderr, testAPIKey) ||
				!strings.HasPrefix(stderr, test.begin) || !strings.Contains(stderr, test.want) {
				t.Errorf("exit code %d, %q, %q; want %d and one line with %q", code, stdout, stderr, exitFailed, test.want)
			}
			t.Log(stderr)
		})
	}
}
