package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"keyturn/internal/setting"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/tlsproxy"
	"keyturn/workflows"
)

// temporalFile is the temporal.toml of a worker that reaches its Temporal by a proxy.
type temporalFile struct {
	t    *testing.T
	site *tlsproxy.Fixture
	path string
}

func newTemporalFile(s fixture.Server) temporalFile {
	site := tlsproxy.NewFixture(s.T, s.TemporalServer.Address, secret)
	return temporalFile{s.T, site, site.Profile(s.T, "prod", s.TemporalServer.Namespace)}
}

func (f temporalFile) environment(s fixture.Server) setting.Environment {
	env := monitoredEnvironment(s)
	delete(env, "TEMPORAL_ADDRESS")
	delete(env, "TEMPORAL_NAMESPACE")
	env["TEMPORAL_CONFIG_FILE"], env["TEMPORAL_PROFILE"] = f.path, "prod"
	return env
}

func (f temporalFile) replace(before, now string) {
	f.t.Helper()
	text, err := os.ReadFile(f.path)
	require.NoError(f.t, err)
	require.Contains(f.t, string(text), before)
	require.NoError(f.t, os.WriteFile(f.path, []byte(strings.ReplaceAll(string(text), before, now)), 0o600))
}

// A worker whose API key is revoked while it works is not ready and says why, and
// works on when its file has another one.
func TestWorkerWhoseAPIKeyOfTemporalIsRevoked(t *testing.T) {
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	file := newTemporalFile(s)
	env := file.environment(s)
	w := startMonitored(t, env, oftenLooking)
	awaitReadiness(t, w.address, isReady)
	s.Connection = workflows.DefaultConnection
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	s.BlockRotation(cluster.ShardIDs...)
	run := s.Start(s.Input(cluster.ID))
	s.AwaitPut()

	file.site.Change(func(o *tlsproxy.Options) { o.APIKey = "renewed-" + secret })
	const refused = "TEMPORAL_CONFIG_FILE: profile.prod.api_key: Temporal refuses the credentials"
	awaitReadiness(t, w.address, hasProblem("temporal", refused))
	waitForText(t, &w.log, refused)
	s.OM.ClearFaults()

	file.replace(secret, "renewed-"+secret)
	awaitReadiness(t, w.address, isReady)
	waitForText(t, &w.log, "reloaded the files of Temporal's settings")
	s.RequireRotated(run, 3)

	file.replace("[profile.prod]", "[profile.prod")
	awaitReadiness(t, w.address, func(r readiness) bool {
		return r.Ready && strings.Contains(r.Checks["temporal"].Warning, "TEMPORAL_CONFIG_FILE: the file is not valid TOML")
	})
	waitForText(t, &w.log, "cannot reload the files of Temporal's settings; the earlier contents stay in use")
	assert.NotContains(t, w.log.String(), secret)
}

// Also a worker that serves no probes says that it is refused.
func TestWorkerWithoutProbesLogsThatItIsRefused(t *testing.T) {
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	file := newTemporalFile(s)
	env := file.environment(s)
	delete(env, listenVariable)
	w := startMonitored(t, env, oftenLooking)
	waitForText(t, &w.log, "Temporal lists this worker as a poller")
	file.site.Change(func(o *tlsproxy.Options) { o.APIKey = "renewed-" + secret })
	waitForText(t, &w.log, "TEMPORAL_CONFIG_FILE: profile.prod.api_key: Temporal refuses the credentials")
}

// A worker whose file names another namespace works on there, without a restart; one
// that cannot be used changes nothing.
func TestWorkerFollowsItsFileToAnotherNamespace(t *testing.T) {
	const other = "other"
	server := temporalserver.StartForTest(t, temporalserver.Options{Namespaces: []string{"rotations", other}})
	s := fixture.NewServerOn(t, server, simulator.Options{})
	file := newTemporalFile(s)
	w := startMonitored(t, file.environment(s), oftenLooking)
	awaitReadiness(t, w.address, isReady)
	namespace := func(name string) string { return `namespace = "` + name + `"` }

	file.replace(namespace(server.Namespace), namespace("nowhere"))
	awaitReadiness(t, w.address, func(r readiness) bool {
		return r.Ready && strings.Contains(r.Checks["temporal"].Warning, "TEMPORAL_CONFIG_FILE: profile.prod.namespace: Temporal has no such namespace")
	})

	file.replace(namespace("nowhere"), namespace(other))
	waitForText(t, &w.log, "name another Temporal: draining, to continue there")
	awaitReadiness(t, w.address, func(r readiness) bool { return r.Ready && r.Checks["temporal"].Warning == "" })
	elsewhere, err := client.Dial(client.Options{HostPort: server.Address, Namespace: other})
	require.NoError(t, err)
	defer elsewhere.Close()
	cluster := s.OM.AddReplicaSet(simulator.DefaultProjectID, "audit")
	run := startRotationOf(t, elsewhere, s.TaskQueue, workflows.RotateClusterInput{
		Connection: workflows.DefaultConnection, ProjectID: simulator.DefaultProjectID, ClusterID: cluster.ID,
	})
	require.NoError(t, run.Get(t.Context(), nil), w.log.String())
}
