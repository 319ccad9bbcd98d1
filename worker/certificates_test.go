package main

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"go.temporal.io/sdk/client"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/testca"
	"keyturn/workflows"
)

// An Ops Manager whose certificate isn't accepted is one that is out of reach,
// since certificates are renewed; but the error says what a person has to do.
func TestCertificateOfOpsManagerThatIsNotAcceptedIsReported(t *testing.T) {
	t.Parallel()
	private, foreign := testca.New(t, "private authority"), testca.New(t, "foreign authority")
	opsManagers := map[string]struct {
		certificate tls.Certificate
		want        []string // nil = it is accepted
	}{
		"right":   {private.Issue(t, "Ops Manager"), nil},
		"foreign": {foreign.Issue(t, "Ops Manager"), []string{"signed by unknown authority", "OPS_MANAGER_CA_FILE"}},
		"expired": {private.Issue(t, "Ops Manager", testca.Expired), []string{"has expired", "renew Ops Manager's certificate"}},
		"other":   {private.Issue(t, "Ops Manager", testca.For("om.example.net")), []string{"127.0.0.1", "OPS_MANAGER_URL"}},
	}
	ca := writeFile(t, "ca.pem", string(private.PEM))
	var file strings.Builder
	clusters := map[string]simulator.Cluster{}
	for name, o := range opsManagers {
		om := simulator.StartWith(t, simulator.Options{}, o.certificate)
		clusters[name] = om.AddReplicaSet(simulator.DefaultProjectID, "audit")
		fmt.Fprintf(&file, "[connections.%s]\nurl = %q\npublic_key = %q\nprivate_key = %q\nca_file = %q\n",
			name, om.URL, simulator.DefaultPublicKey, simulator.DefaultPrivateKey, ca)
	}
	env := processEnvironment(t, temporalserver.Shared(t), t.Name())
	for name := range workingEnvironment() {
		delete(env, name)
	}
	env["KEYTURN_CONNECTIONS_FILE"] = writeFile(t, "connections.toml", file.String())
	startWorker(t, env)

	temporal := temporalserver.Shared(t).NewClient(t)
	runs := map[string]client.WorkflowRun{}
	for name, cluster := range clusters {
		input := workflows.RotateClusterInput{
			Connection: name, ProjectID: simulator.DefaultProjectID, ClusterID: cluster.ID,
			RetryTimeout: workflows.Duration(time.Second), OnFailure: workflows.OnFailureStop,
		}
		runs[name] = startRotationOf(t, temporal, t.Name(), input)
	}
	for name, run := range runs {
		err := run.Get(t.Context(), nil)
		if opsManagers[name].want == nil {
			assert.NoError(t, err, name)
			continue
		}
		failed := fixture.RequireFailure(t, err, workflows.ErrorOpsManagerUnavailable)
		for _, want := range append(opsManagers[name].want, "GET /api/public/v1.0/") {
			assert.Contains(t, failed.Message(), want, name)
		}
		t.Logf("%s: %s", name, failed.Message())
	}
}
