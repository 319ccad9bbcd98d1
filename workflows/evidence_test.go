package workflows_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/kmipevidence"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/kmipsimulator"
	"keyturn/workflows"
)

// startWithKMIP starts an Ops Manager that makes its keys in a KMIP server.
func startWithKMIP(t *testing.T, options kmipsimulator.Options) (*simulator.Server, *kmipsimulator.Server) {
	t.Helper()
	kmip := kmipsimulator.StartForTest(t, options)
	maker, err := kmip.Client("ops-manager")
	require.NoError(t, err)
	om := simulator.Start(t, simulator.Options{NewKey: func() (string, error) { return maker.NewActiveKey(t.Context(), "backup") }})
	return om, kmip
}

// Each target is verified, and its record says what the KMIP server says about the
// new key. The server is asked once for each new key, and about no other one.
func TestRecordsHaveKMIPEvidence(t *testing.T) {
	t.Parallel()
	began := time.Now().UTC().Truncate(time.Second)
	om, kmip := startWithKMIP(t, kmipsimulator.Options{})
	orders := om.AddShardedCluster(project, "orders", 3)
	env := fixture.NewSDKWithKMIP(t, om, kmip.EvidenceClient(t, "keyturn"))
	result, err := env.Rotate(fixture.Input(orders.ID))
	require.NoError(t, err)
	requireTrue(t, om, result.Targets)
	var rotated []string
	for _, record := range result.Targets {
		rotated = append(rotated, record.NewKeyUUID)
		require.NotNil(t, record.KMIP, record.Name)
		assert.Equal(t, workflows.EvidenceWitnessed, record.KMIP.Outcome)
		assert.Equal(t, "Active", record.KMIP.State)
		assert.Equal(t, "AES", record.KMIP.Algorithm)
		assert.Equal(t, 256, record.KMIP.Length)
		assert.Equal(t, "backup", record.KMIP.Name)
		require.NotNil(t, record.KMIP.InitialDate)
		assert.False(t, record.KMIP.InitialDate.Before(began))
		assert.False(t, record.KMIP.AskedAt.Before(record.VerifiedAt.Truncate(time.Second)), "the key is verified before it is asked about")
	}
	assert.ElementsMatch(t, rotated, kmip.Asked())
}

// Whatever is wrong with the KMIP server, the rotation ends as it does without one.
func TestNoEvidenceFailsNoRotation(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options kmipsimulator.Options
		disturb func(*kmipsimulator.Server)
		outcome workflows.EvidenceOutcome
		asked   int
	}{
		"the server shows the keys of others to nobody": {kmipsimulator.Options{OwnersOnly: true}, func(*kmipsimulator.Server) {}, workflows.EvidenceForbidden, 6},
		"the server fails at once":                      {kmipsimulator.Options{}, func(s *kmipsimulator.Server) { s.Fail(errors.New("disk full")) }, workflows.EvidenceUnreachable, 6},
		"the server is gone":                            {kmipsimulator.Options{}, func(s *kmipsimulator.Server) { s.Close() }, workflows.EvidenceUnreachable, 0},
		// The rotation waits for it once, not at each target.
		"the server does not answer": {kmipsimulator.Options{}, func(s *kmipsimulator.Server) { s.Delay(time.Hour) }, workflows.EvidenceUnreachable, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kmip := kmipsimulator.StartForTest(t, test.options)
			kmip.MakeKey(t, "another")
			om := simulator.Start(t, simulator.Options{})
			orders := om.AddShardedCluster(project, "orders", 5)
			client := kmip.EvidenceClient(t, "keyturn")
			test.disturb(kmip)
			env := fixture.NewSDKWithKMIP(t, om, client)
			result, err := env.Rotate(fixture.Input(orders.ID))
			require.NoError(t, err)
			assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
			requireTrue(t, om, result.Targets)
			for _, record := range result.Targets {
				require.NotNil(t, record.KMIP)
				assert.Equal(t, test.outcome, record.KMIP.Outcome)
				assert.False(t, record.KMIP.AskedAt.IsZero())
			}
			assert.Len(t, kmip.Asked(), test.asked)
		})
	}
}

// Keys that the KMIP server does not have are in no way verified less, but the
// record and its remark say so.
func TestAbsentKeyIsRemarked(t *testing.T) {
	t.Parallel()
	kmip := kmipsimulator.StartForTest(t, kmipsimulator.Options{})
	kmip.MakeKey(t, "another")
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	env := fixture.NewSDKWithKMIP(t, om, kmip.EvidenceClient(t, "keyturn"))
	result, err := env.Rotate(fixture.Input(set.ID))
	require.NoError(t, err)
	require.Len(t, result.Targets, 1)
	assert.Equal(t, workflows.StatusVerified, result.Targets[0].Status)
	assert.Equal(t, workflows.EvidenceAbsent, result.Targets[0].KMIP.Outcome)
	assert.Contains(t, result.Targets[0].Remark(), "the KMIP server does not have the new key")
}

func TestWithoutKMIPServerRecordsHaveNoEvidence(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	result, err := fixture.NewSDK(t, om).Rotate(fixture.Input(set.ID))
	require.NoError(t, err)
	assert.Nil(t, result.Targets[0].KMIP)
}

// A target that an earlier rotation verified keeps its evidence. One that only
// this rotation verifies, by reading, gets evidence of its own.
func TestEvidenceOfCarriedOverTargets(t *testing.T) {
	t.Parallel()
	om, kmip := startWithKMIP(t, kmipsimulator.Options{})
	orders := om.AddShardedCluster(project, "orders", 2)
	first, err := fixture.NewSDKWithKMIP(t, om, kmip.EvidenceClient(t, "keyturn")).Rotate(fixture.Input(orders.ID))
	require.NoError(t, err)
	require.Len(t, first.Targets, 3)
	unverified := first.Targets[1]
	unverified.Status, unverified.NewKeyUUID, unverified.VerifiedAt = workflows.StatusRotated, "", nil
	unverified.KMIP = &workflows.KeyEvidence{Outcome: workflows.EvidenceWitnessed, Name: "forged"}
	asked := len(kmip.Asked())

	input := fixture.Input(orders.ID)
	input.Completed = []workflows.TargetRecord{first.Targets[0], unverified, first.Targets[2]}
	second, err := fixture.NewSDKWithKMIP(t, om, kmip.EvidenceClient(t, "keyturn")).Rotate(input)
	require.NoError(t, err)
	for i, record := range second.Targets {
		assert.True(t, record.CarriedOver)
		assert.Equal(t, first.Targets[i].NewKeyUUID, record.NewKeyUUID)
		require.NotNil(t, record.KMIP)
		assert.Equal(t, "backup", record.KMIP.Name)
	}
	assert.Equal(t, first.Targets[0].KMIP, second.Targets[0].KMIP)
	assert.Equal(t, []string{first.Targets[1].NewKeyUUID}, kmip.Asked()[asked:], "only the key that is verified again")
}

func TestForgedEvidenceIsRefused(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	later := time.Now().Add(time.Hour)
	for field, evidence := range map[string]workflows.KeyEvidence{
		"completed[0].kmip.outcome": {Outcome: "proven"},
		"completed[0].kmip.name":    {Outcome: workflows.EvidenceWitnessed, Name: string(make([]rune, 201))},
		"completed[0].kmip.askedAt": {Outcome: workflows.EvidenceWitnessed, AskedAt: later},
		"completed[0].kmip.length":  {Outcome: workflows.EvidenceWitnessed, Length: -1},
	} {
		input := fixture.Input(set.ID)
		input.Completed = []workflows.TargetRecord{{Target: workflows.Target{ClusterID: set.ID}, Status: workflows.StatusVerified, NewKeyUUID: "1", KMIP: &evidence}}
		_, err := fixture.NewSDK(t, om).Rotate(input)
		requireFailure(t, err, workflows.ErrorInvalidInput)
		assert.ErrorContains(t, err, field)
	}
}

// Each listed key is asked about once, also one that several clusters use.
func TestListedKeysHaveEvidence(t *testing.T) {
	t.Parallel()
	om, kmip := startWithKMIP(t, kmipsimulator.Options{})
	orders := om.AddShardedCluster(project, "orders", 3)
	audit := om.AddReplicaSet(project, "audit")
	shared := om.Key(orders.ShardIDs[0])
	om.SetKey(audit.ID, shared)
	om.TakeSnapshot(orders.ID, day1, late)
	om.SetKey(orders.ShardIDs[1], "nowhere")
	l := listKeys(t, fixture.NewSDKWithKMIP(t, om, kmip.EvidenceClient(t, "keyturn")), map[string]any{})
	require.NoError(t, l.err)
	require.Len(t, l.keys, 6)
	var listed []string
	for _, record := range l.keys {
		listed = append(listed, record.KeyUUID)
		want := workflows.EvidenceWitnessed
		if record.KeyUUID == "nowhere" {
			want = workflows.EvidenceAbsent
		}
		require.NotNil(t, record.KMIP, record.KeyUUID)
		assert.Equal(t, want, record.KMIP.Outcome, record.KeyUUID)
	}
	assert.ElementsMatch(t, listed, kmip.Asked())
	assert.True(t, l.result.Complete, "evidence is no part of completeness")
}

// A KMIP server that gives no answer is asked about one key of a listing.
func TestListingStopsAskingASilentServer(t *testing.T) {
	t.Parallel()
	om, kmip := startWithKMIP(t, kmipsimulator.Options{})
	om.AddShardedCluster(project, "orders", 12)
	kmip.Fail(errors.New("disk full"))
	l := listKeys(t, fixture.NewSDKWithKMIP(t, om, kmip.EvidenceClient(t, "keyturn")), map[string]any{})
	require.NoError(t, l.err)
	require.Len(t, l.keys, 13)
	for _, record := range l.keys {
		require.NotNil(t, record.KMIP)
		assert.Equal(t, kmipevidence.OutcomeUnreachable, record.KMIP.Outcome)
	}
	assert.Len(t, kmip.Asked(), 1)
}
