package main

import (
	"context"
	"crypto/x509"
	"io"
	"maps"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/setting"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/testca"
	"keyturn/testsuite/support/tlsproxy"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

// A whole rotation by a worker that is configured as for production: Temporal
// behind mutual TLS, another name and an API key, in a namespace of its own, and
// Ops Manager behind a private authority.
func TestRotationThroughMutualTLSAndAPIKey(t *testing.T) {
	t.Parallel()
	const namespace = "rotations"
	server := temporalserver.StartForTest(t, temporalserver.Options{Namespaces: []string{namespace}})
	site := tlsproxy.NewFixture(t, server.Address, secret)
	variables := setting.Environment(site.Variables())
	variables["TEMPORAL_NAMESPACE"] = namespace
	for name, configuration := range map[string]setting.Environment{
		"variables": variables,
		"profile":   {"TEMPORAL_CONFIG_FILE": site.Profile(t, "prod", namespace), "TEMPORAL_PROFILE": "prod"},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.StartTLS(t, simulator.Options{})
			cluster := om.AddShardedCluster(simulator.DefaultProjectID, "orders", 1)
			env := setting.Environment{
				"KEYTURN_TASK_QUEUE": t.Name(), "OPS_MANAGER_URL": om.URL, "OPS_MANAGER_CA_FILE": writeFile(t, "ca.pem", string(om.CAPEM)),
				"OPS_MANAGER_PUBLIC_KEY": simulator.DefaultPublicKey, "OPS_MANAGER_PRIVATE_KEY": simulator.DefaultPrivateKey,
			}
			maps.Copy(env, configuration)
			worker := startWorker(t, env)
			worker.waitFor(t, "polling")
			before := site.Passed()
			run := startRotationOf(t, server.NewClient(t), t.Name(), workflows.RotateClusterInput{
				Connection: workflows.DefaultConnection, ProjectID: simulator.DefaultProjectID, ClusterID: cluster.ID,
			})
			var result workflows.RotateClusterResult
			require.NoError(t, run.Get(t.Context(), &result), worker.stderr.String())
			assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
			assert.Len(t, om.Ledger().Rotations, 2)
			assert.NotEqual(t, before, site.Passed(), "the worker did not connect by the TLS proxy")
			worker.signal(t, syscall.SIGTERM)
			assert.Zero(t, worker.exitCode(t))
			assert.NotContains(t, worker.stderr.String(), secret)
			assert.NotContains(t, worker.stderr.String(), "PRIVATE KEY")
		})
	}
}

// What a server refuses ends the worker; what the worker refuses of a server, or
// can't make sense of, it waits for. Either is one line that names the setting.
func TestTroubleWithTemporalsTLSIsReported(t *testing.T) {
	t.Parallel()
	server := temporalserver.Shared(t)
	site := tlsproxy.NewFixture(t, server.Address, secret)
	foreign := testca.New(t, "foreign authority")
	client := func(name string, signer *testca.CA, adjust ...func(*x509.Certificate)) setting.Environment {
		certificate, key := site.Client(t, name, signer, adjust...)
		return setting.Environment{"TEMPORAL_TLS_CLIENT_CERT_PATH": certificate, "TEMPORAL_TLS_CLIENT_KEY_PATH": key}
	}
	impostor := func(signer *testca.CA, adjust ...func(*x509.Certificate)) setting.Environment {
		return setting.Environment{"TEMPORAL_ADDRESS": site.WithCertificate(t, signer.Issue(t, "impostor", adjust...)).Address}
	}
	for name, test := range map[string]struct {
		set  setting.Environment
		ends bool
		want string
	}{
		"no client certificate": {
			setting.Environment{"TEMPORAL_TLS_CLIENT_CERT_PATH": "", "TEMPORAL_TLS_CLIENT_KEY_PATH": ""}, true,
			"TEMPORAL_TLS_CLIENT_CERT_PATH: Temporal requires a client certificate (remote error: tls: certificate required)",
		},
		"foreign client certificate": {
			client("foreign", foreign), true, "TEMPORAL_TLS_CLIENT_CERT_PATH: Temporal refuses the client certificate (remote error: tls: certificate required)",
		},
		"expired client certificate": {
			client("expired", site.Authority, testca.Expired), true,
			"TEMPORAL_TLS_CLIENT_CERT_PATH: Temporal refuses the client certificate (remote error: tls: expired certificate)",
		},
		"no API key": {
			setting.Environment{"TEMPORAL_API_KEY": ""}, true, "TEMPORAL_API_KEY: Temporal refuses the credentials, or their use in this namespace (Unauthenticated)",
		},
		"wrong API key": {
			setting.Environment{"TEMPORAL_API_KEY": "wrong-" + secret}, true, "TEMPORAL_API_KEY: Temporal refuses the credentials, or their use in this namespace (PermissionDenied)",
		},
		"no private CA": {setting.Environment{"TEMPORAL_TLS_SERVER_CA_CERT_PATH": ""}, false, "TEMPORAL_TLS_SERVER_CA_CERT_PATH: Temporal's certificate is signed by an unknown authority"},
		"foreign CA":    {impostor(foreign, testca.For(tlsproxy.Host)), false, "TEMPORAL_TLS_SERVER_CA_CERT_PATH: Temporal's certificate is signed by an unknown authority"},
		"no server name": {
			setting.Environment{"TEMPORAL_TLS_SERVER_NAME": ""}, false, "TEMPORAL_TLS_SERVER_NAME: Temporal's certificate is not valid for this server name",
		},
		"expired server certificate": {
			impostor(site.Authority, testca.For(tlsproxy.Host), testca.Expired), false,
			"TEMPORAL_ADDRESS: Temporal's certificate at that address is not valid at this machine's time",
		},
		"TLS off": {setting.Environment{"TEMPORAL_TLS": "false"}, false, "TEMPORAL_TLS: Temporal speaks TLS at that address: set it to true"},
		"no TLS there": {
			setting.Environment{"TEMPORAL_ADDRESS": server.Address}, false, "TEMPORAL_TLS: TLS is on, but the server at that address does not speak TLS",
		},
	} {
		t.Run(name, func(t *testing.T) {
			env := processEnvironment(t, server, t.Name())
			maps.Copy(env, site.Variables())
			maps.Copy(env, test.set)
			ctx, cancel := context.WithCancel(waiting.Context(t))
			defer cancel()
			if test.ends {
				err := run(ctx, env, io.Discard)
				require.ErrorAs(t, err, new(*setting.Error))
				assert.EqualError(t, err, test.want)
				return
			}
			var stderr syncBuffer
			ended := make(chan error, 1)
			go func() { ended <- run(ctx, env, &stderr) }()
			waitForText(t, &stderr, test.want) // at the first attempt, unless the machine is too busy for the examination
			cancel()
			assert.NoError(t, <-ended)
			assert.Contains(t, stderr.String(), test.want)
			assert.NotContains(t, stderr.String(), secret)
		})
	}
}
