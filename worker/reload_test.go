package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/testca"
	"keyturn/workflows"
)

// A worker whose API key is refused names its file, and recovers when the file
// does; a file that cannot be used changes nothing, and is a warning.
func TestWorkerReadsTheFilesOfAConnectionAgain(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	env := monitoredEnvironment(s)
	file := writeFile(t, "key", "wrong-"+secret+"\n")
	env["OPS_MANAGER_PRIVATE_KEY"], env["OPS_MANAGER_PRIVATE_KEY_FILE"] = "", file
	w := startMonitored(t, env, oftenLooking)
	awaitReadiness(t, w.address, hasProblem("opsManager.default", "OPS_MANAGER_PRIVATE_KEY_FILE: "))
	waitForText(t, &w.log, "OPS_MANAGER_PRIVATE_KEY_FILE: ")

	require.NoError(t, os.WriteFile(file, []byte(simulator.DefaultPrivateKey+"\n"), 0o600))
	awaitReadiness(t, w.address, isReady)
	waitForText(t, &w.log, "reloaded the files of a connection")

	require.NoError(t, os.WriteFile(file, nil, 0o600))
	waitForText(t, &w.log, "OPS_MANAGER_PRIVATE_KEY_FILE: the file is empty")
	awaitReadiness(t, w.address, func(r readiness) bool {
		return r.Ready && r.Checks["opsManager.default"].Warning == "OPS_MANAGER_PRIVATE_KEY_FILE: the file is empty"
	})

	require.NoError(t, os.WriteFile(file, []byte("wrong-"+secret), 0o600))
	awaitReadiness(t, w.address, hasProblem("opsManager.default", "OPS_MANAGER_PRIVATE_KEY_FILE: "))
	require.NotContains(t, w.log.String(), secret)
}

// changingTLS is a server's TLS whose certificate and accepted clients change.
type changingTLS struct{ now atomic.Pointer[tls.Config] }

func (c *changingTLS) set(t *testing.T, ca *testca.CA) {
	c.now.Store(&tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{ca.Issue(t, "Ops Manager")},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	})
}

func (c *changingTLS) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.now.Load(), nil }}
}

// credentialFiles are those of a connection in a directory of their own.
type credentialFiles struct {
	t         *testing.T
	directory string
}

func (f credentialFiles) path(name string) string { return f.directory + "/" + name }

func (f credentialFiles) write(name, text string) {
	require.NoError(f.t, os.WriteFile(f.path(name), []byte(text), 0o600))
}

// renew writes an API key, with both of its parts, and certificates of an authority.
func (f credentialFiles) renew(url, publicKey, privateKey string, ca *testca.CA) {
	certificate, key := testca.PEM(f.t, ca.Issue(f.t, "worker"))
	f.write("ca.pem", string(ca.PEM))
	f.write("client.pem", string(certificate))
	f.write("client.key", string(key))
	f.write("connections.toml", fmt.Sprintf(
		"[connections.default]\nurl = %q\npublic_key = %q\nprivate_key = %q\nca_file = \"ca.pem\"\nclient_cert_file = \"client.pem\"\nclient_key_file = \"client.key\"\n",
		url, publicKey, privateKey))
}

// Everything that Ops Manager knows a worker by is replaced while a rotation is in
// progress, and revoked before the worker has looked: the rotation goes on.
func TestCredentialsAreRenewedInTheMiddleOfARotation(t *testing.T) {
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	server := &changingTLS{}
	first, second := testca.New(t, "first"), testca.New(t, "second")
	server.set(t, first)
	om, err := simulator.Listen(s.OM.Simulator, "127.0.0.1:0", server.config())
	require.NoError(t, err)
	t.Cleanup(om.Close)
	files := credentialFiles{t, t.TempDir()}
	files.renew(om.URL, simulator.DefaultPublicKey, simulator.DefaultPrivateKey, first)
	env := monitoredEnvironment(s)
	for name := range env {
		if strings.HasPrefix(name, opsManagerPrefix) {
			delete(env, name)
		}
	}
	env[connectionsFileVariable] = files.path("connections.toml")
	times := oftenLooking
	times.reload = time.Hour // only what is refused has the files read again
	w := startMonitored(t, env, times)
	awaitReadiness(t, w.address, isReady)
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 3)
	s.BlockRotation(cluster.ShardIDs...)
	s.Connection = workflows.DefaultConnection
	run := s.Start(s.Input(cluster.ID))
	s.AwaitPut()

	s.OM.AddAPIKey(simulator.APIKey{PublicKey: "renewed", PrivateKey: "another-private-key"})
	files.renew(om.URL, "renewed", "another-private-key", second)
	s.OM.RemoveAPIKey(simulator.DefaultPublicKey)
	server.set(t, second)
	s.OM.ClearFaults()
	s.RequireRotated(run, 4)
	assert.NotContains(t, w.log.String(), "another-private-key")
}

// What only a restart can change is a warning.
func TestChangesOfTheConnectionsFileThatNeedARestartAreReported(t *testing.T) {
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	settings := func(more string) string {
		return fmt.Sprintf("[connections.default]\nurl = %q\npublic_key = %q\nprivate_key = %q\n%s", s.OM.URL, simulator.DefaultPublicKey, simulator.DefaultPrivateKey, more)
	}
	file := writeFile(t, "connections.toml", settings(""))
	env := monitoredEnvironment(s)
	for name := range env {
		if strings.HasPrefix(name, opsManagerPrefix) {
			delete(env, name)
		}
	}
	env[connectionsFileVariable] = file
	w := startMonitored(t, env, oftenLooking)
	awaitReadiness(t, w.address, isReady)
	for more, want := range map[string]string{
		"requests_per_second = 5":                             "connections.default.requests_per_second: cannot be changed without a restart",
		"max_in_flight = 5":                                   "connections.default.max_in_flight: cannot be changed without a restart",
		"[connections.default.kmip]\naddress = \"kmip:5696\"": "connections.default.kmip: cannot be changed without a restart",
		"public_kee = 1":                                      "connections.default.public_kee: unknown key",
	} {
		require.NoError(t, os.WriteFile(file, []byte(settings(more)), 0o600))
		awaitReadiness(t, w.address, func(r readiness) bool {
			return r.Ready && strings.HasPrefix(r.Checks["opsManager.default"].Warning, connectionsFileVariable+": "+want)
		})
	}
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(settings(""), "[connections.default]", "[connections.other]")), 0o600))
	awaitReadiness(t, w.address, func(r readiness) bool {
		return r.Ready && strings.Contains(r.Checks["opsManager.default"].Warning, "connections.default: the connection is gone from the file")
	})
	require.NoError(t, os.WriteFile(file, []byte(settings("")), 0o600))
	awaitReadiness(t, w.address, func(r readiness) bool { return r.Ready && r.Checks["opsManager.default"].Warning == "" })
}
