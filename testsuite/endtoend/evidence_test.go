package endtoend

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/kmipevidence"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/kmipkeys"
	"keyturn/testsuite/support/kmipsimulator"
	"keyturn/testsuite/support/pykmip"
	"keyturn/workflows"
)

// requireWitnessed rotates a cluster and requires evidence that each new key was
// made during the rotation.
func requireWitnessed(s fixture.Server) {
	s.Helper()
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 3)
	s.StartWorker()
	result := s.RequireRotated(s.Start(s.Input(cluster.ID)), 4)
	for _, record := range result.Targets {
		require.NotNil(s, record.KMIP, record.Name)
		assert.Equal(s, workflows.EvidenceWitnessed, record.KMIP.Outcome, record.Name)
		assert.Equal(s, kmipevidence.StateActive, record.KMIP.State, record.Name)
		require.NotNil(s, record.KMIP.InitialDate, record.Name)
		assert.False(s, record.KMIP.InitialDate.Before(result.StartedAt.Truncate(time.Second)), record.Name)
		assert.False(s, record.KMIP.InitialDate.After(*record.VerifiedAt), record.Name)
	}
}

func TestRotationIsWitnessedByAKMIPServer(t *testing.T) {
	t.Parallel()
	kmip := kmipsimulator.StartForTest(t, kmipsimulator.Options{})
	maker, err := kmip.Client("ops-manager")
	require.NoError(t, err)
	s := fixture.NewServer(t, simulator.Options{NewKey: func() (string, error) { return maker.NewActiveKey(t.Context(), "backup") }})
	s.KMIP = kmip.EvidenceClient(t, "keyturn")
	requireWitnessed(s)
}

// The same with a KMIP server that has nothing in common with keyturn. It shows a
// key only to the client that made it.
func TestRotationIsWitnessedByPyKMIP(t *testing.T) {
	t.Parallel()
	server := pykmip.StartForTest(t)
	maker := server.KeyMakerForTest(t, "ops-manager")
	certificate, key, err := server.ClientFiles("ops-manager")
	require.NoError(t, err)
	client, err := kmipevidence.New(kmipevidence.Config{Address: server.Address(), CAFile: server.CAFile(), ClientCertFile: certificate, ClientKeyFile: key})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	s := fixture.NewServer(t, simulator.Options{NewKey: func() (string, error) { return newActiveKey(t.Context(), maker) }})
	s.KMIP, s.Unrecorded = client, true
	requireWitnessed(s)
}

func newActiveKey(ctx context.Context, maker *kmipkeys.KeyMaker) (string, error) {
	id, err := maker.Create(ctx, "")
	if err != nil {
		return "", err
	}
	return id, maker.Activate(ctx, id)
}
