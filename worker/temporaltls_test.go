package main

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"strings"
	"syscall"
	"testing"

	"keyturn/testsuite/authority"
	"keyturn/testsuite/gateway"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

// A whole rotation by a worker that is configured as for production: Temporal
// behind mutual TLS, another name and an API key, in a namespace of its own, and
// Ops Manager behind a private authority.
func TestRotationThroughMutualTLSAndAPIKey(t *testing.T) {
	const namespace = "rotations"
	server := temporalserver.StartForTest(t, temporalserver.Options{Namespaces: []string{namespace}})
	site := gateway.NewSite(t, server.Address, secret)
	variables := environment(site.Variables())
	variables["TEMPORAL_NAMESPACE"] = namespace
	for name, configuration := range map[string]environment{
		"variables": variables,
		"profile":   {"TEMPORAL_CONFIG_FILE": site.Profile(t, "prod", namespace), "TEMPORAL_PROFILE": "prod"},
	} {
		t.Run(name, func(t *testing.T) {
			isolateFromUser(t)
			om := simulator.StartTLS(t, simulator.Options{})
			cluster := om.AddShardedCluster(simulator.DefaultProjectID, "orders", 1)
			env := environment{
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
			if err := run.Get(t.Context(), &result); err != nil {
				t.Fatalf("%v; the worker's log:\n%s", err, worker.stderr.String())
			}
			if result.Outcome != workflows.OutcomeRotated || len(om.Ledger().Rotations) != 2 {
				t.Errorf("%s with %d PUTs, want rotated with 2", result.Outcome, len(om.Ledger().Rotations))
			}
			if site.Passed() == before {
				t.Error("the worker has found another way to Temporal than the gateway")
			}
			worker.signal(t, syscall.SIGTERM)
			if code := worker.exitCode(t); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			if text := worker.stderr.String(); strings.Contains(text, secret) || strings.Contains(text, "PRIVATE KEY") {
				t.Errorf("the log shows a secret:\n%s", text)
			}
		})
	}
}

// What a server refuses ends the worker; what the worker refuses of a server, or
// can't make sense of, it waits for. Either is one line that names the setting.
func TestTroubleWithTemporalsTLSIsTold(t *testing.T) {
	server := temporalserver.Shared(t)
	site := gateway.NewSite(t, server.Address, secret)
	foreign := authority.New(t, "foreign authority")
	client := func(name string, signer *authority.Authority, adjust ...func(*x509.Certificate)) environment {
		certificate, key := site.Client(t, name, signer, adjust...)
		return environment{"TEMPORAL_TLS_CLIENT_CERT_PATH": certificate, "TEMPORAL_TLS_CLIENT_KEY_PATH": key}
	}
	impostor := func(signer *authority.Authority, adjust ...func(*x509.Certificate)) environment {
		return environment{"TEMPORAL_ADDRESS": site.Impostor(t, signer.Issue(t, "impostor", adjust...)).Address}
	}
	for name, test := range map[string]struct {
		set  environment
		ends bool
		want string
	}{
		"no client certificate": {
			environment{"TEMPORAL_TLS_CLIENT_CERT_PATH": "", "TEMPORAL_TLS_CLIENT_KEY_PATH": ""}, true,
			"TEMPORAL_TLS_CLIENT_CERT_PATH: Temporal demands a client certificate (remote error: tls: certificate required)",
		},
		"foreign client certificate": {
			client("foreign", foreign), true, "TEMPORAL_TLS_CLIENT_CERT_PATH: Temporal refuses the client certificate (remote error: tls: certificate required)",
		},
		"expired client certificate": {
			client("expired", site.Authority, authority.Expired), true,
			"TEMPORAL_TLS_CLIENT_CERT_PATH: Temporal refuses the client certificate (remote error: tls: expired certificate)",
		},
		"no API key": {
			environment{"TEMPORAL_API_KEY": ""}, true, "TEMPORAL_API_KEY: Temporal refuses the credentials, or their use in this namespace (Unauthenticated)",
		},
		"wrong API key": {
			environment{"TEMPORAL_API_KEY": "wrong-" + secret}, true, "TEMPORAL_API_KEY: Temporal refuses the credentials, or their use in this namespace (PermissionDenied)",
		},
		"no private CA": {environment{"TEMPORAL_TLS_SERVER_CA_CERT_PATH": ""}, false, "TEMPORAL_TLS_SERVER_CA_CERT_PATH: Temporal's certificate is signed by an authority that is not trusted"},
		"foreign CA":    {impostor(foreign, authority.For(gateway.Host)), false, "TEMPORAL_TLS_SERVER_CA_CERT_PATH: Temporal's certificate is signed by an authority that is not trusted"},
		"no server name": {
			environment{"TEMPORAL_TLS_SERVER_NAME": ""}, false, "TEMPORAL_TLS_SERVER_NAME: Temporal's certificate is not for the name that was called",
		},
		"expired server certificate": {
			impostor(site.Authority, authority.For(gateway.Host), authority.Expired), false,
			"TEMPORAL_ADDRESS: the certificate of the Temporal there is not valid by this machine's clock",
		},
		"TLS off": {environment{"TEMPORAL_TLS": "false"}, false, "TEMPORAL_TLS: Temporal speaks TLS at that address: set it to true"},
		"no TLS there": {
			environment{"TEMPORAL_ADDRESS": server.Address}, false, "TEMPORAL_TLS: TLS is on, and is not spoken at that address",
		},
	} {
		t.Run(name, func(t *testing.T) {
			env := processEnvironment(t, server, t.Name())
			maps.Copy(env, site.Variables())
			maps.Copy(env, test.set)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if test.ends {
				err := run(ctx, env, io.Discard)
				if !errors.As(err, new(*settingError)) || err.Error() != test.want {
					t.Errorf("got  %v\nwant %s", err, test.want)
				}
				return
			}
			var stderr syncBuffer
			ended := make(chan error, 1)
			go func() { ended <- run(ctx, env, &stderr) }()
			waitForText(t, &stderr, test.want) // at the first attempt, unless the machine is too busy for the examination
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("got %v, want a quiet end", err)
			}
			if got := stderr.String(); !strings.Contains(got, test.want) || strings.Contains(got, secret) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}
