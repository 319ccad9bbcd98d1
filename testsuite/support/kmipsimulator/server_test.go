package kmipsimulator_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/kmipevidence"
	"keyturn/testsuite/support/kmipsimulator"
)

// The keys and the authority outlive the server, so that clients' files stay valid.
func TestKeysAreKeptInTheDirectory(t *testing.T) {
	options := kmipsimulator.Options{Directory: t.TempDir()}
	ask := func(server *kmipsimulator.Server, id string) kmipevidence.Evidence {
		client, err := kmipevidence.New(kmipevidence.Config{
			Address: server.Address(), CAFile: options.Directory + "/ca.pem",
			ClientCertFile: options.Directory + "/client-keyturn.pem", ClientKeyFile: options.Directory + "/client-keyturn.key", Timeout: time.Minute,
		})
		require.NoError(t, err)
		defer client.Close()
		return client.Ask(t.Context(), id)
	}
	first := kmipsimulator.StartForTest(t, options)
	_, _, _, err := first.WriteClient(options.Directory, "keyturn")
	require.NoError(t, err)
	maker, err := first.Client("ops-manager")
	require.NoError(t, err)
	id, err := maker.NewActiveKey(t.Context(), "orders")
	require.NoError(t, err)
	before := ask(first, id)
	require.Equal(t, kmipevidence.OutcomeWitnessed, before.Outcome, before.Message)
	assert.Equal(t, "orders", before.Name)
	assert.Equal(t, kmipevidence.StateActive, before.State)
	assert.Equal(t, 256, before.Length)
	assert.NotNil(t, before.ActivationDate)
	first.Close()

	after := ask(kmipsimulator.StartForTest(t, options), id)
	require.Equal(t, kmipevidence.OutcomeWitnessed, after.Outcome, after.Message)
	assert.Equal(t, before.InitialDate, after.InitialDate)
	assert.Equal(t, before.State, after.State)
}

func TestKeysOfOthersAreHidden(t *testing.T) {
	server := kmipsimulator.StartForTest(t, kmipsimulator.Options{OwnersOnly: true})
	maker, err := server.Client("ops-manager")
	require.NoError(t, err)
	id, err := maker.NewActiveKey(t.Context(), "")
	require.NoError(t, err)
	client := server.EvidenceClient(t, "keyturn")
	assert.Equal(t, kmipevidence.OutcomeForbidden, client.Ask(t.Context(), id).Outcome)
	assert.Equal(t, kmipevidence.OutcomeForbidden, client.Ask(t.Context(), "no-such-key").Outcome)
	assert.Equal(t, kmipevidence.OutcomeWitnessed, server.EvidenceClient(t, "ops-manager").Ask(t.Context(), id).Outcome)
	assert.Equal(t, []string{id, "no-such-key", id}, server.Asked())
}
