package faultinjection

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/kmipsimulator"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"
)

// Another worker completes a listing whose worker was killed while it read, and
// asks the KMIP server about every key.
func TestListingOfKeysOutlivesItsWorker(t *testing.T) {
	t.Parallel()
	kmip := kmipsimulator.StartForTest(t, kmipsimulator.Options{})
	maker, err := kmip.Client("ops-manager")
	require.NoError(t, err)
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{NewKey: func() (string, error) { return maker.NewActiveKey(t.Context(), "") }})
	var expected []string
	last := ""
	for i := range 25 { // two activities
		last = s.OM.AddReplicaSet(s.Project, fmt.Sprintf("set-%02d", i)).ID
		expected = append(expected, s.OM.Key(last))
	}
	s.OM.Inject(simulator.KeyGated(last))
	ca, certificate, key, err := kmip.WriteClient(t.TempDir(), "keyturn")
	require.NoError(t, err)
	settings := []string{"KMIP_ADDRESS=" + kmip.Address(), "KMIP_CA_FILE=" + ca, "KMIP_CLIENT_CERT_FILE=" + certificate, "KMIP_CLIENT_KEY_FILE=" + key}
	first := startProcess(s, settings...)
	run, err := s.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: workflows.ListKeysID(workflows.DefaultConnection, s.Project), TaskQueue: s.TaskQueue,
	}, workflows.ListKeysType, workflows.ListKeysInput{ProjectIDs: []string{s.Project}})
	require.NoError(t, err)
	s.AwaitLedger(func(l simulator.Ledger) bool { return l.Count(http.MethodGet, last) > 0 })
	first.kill()
	s.OM.ClearFaults()
	startProcess(s, settings...)

	var result workflows.ListKeysResult
	require.NoError(t, run.Get(t.Context(), &result))
	assert.True(t, result.Complete, "%v", result.Reasons)
	require.Len(t, result.Pages, 1)
	page := s.Temporal.GetWorkflow(t.Context(), result.Pages[0].WorkflowID, result.Pages[0].RunID)
	var read workflows.KeyPage
	require.NoError(t, page.Get(t.Context(), &read))
	var found []string
	for _, record := range read.Keys {
		found = append(found, record.KeyUUID)
		require.NotNil(t, record.KMIP)
		assert.Equal(t, workflows.EvidenceWitnessed, record.KMIP.Outcome)
	}
	assert.ElementsMatch(t, expected, found)
	s.SaveHistory(page, "")
}
