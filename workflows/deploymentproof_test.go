package workflows_test

import (
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

// deployWithKMIP is a deployment whose keys are made in a KMIP server. Its clock is real:
// Ops Manager's, which skips, is kept behind it.
func deployWithKMIP(t *testing.T, options simulator.DeploymentOptions) (fixture.Deployed, *kmipevidence.Client) {
	t.Helper()
	kmip := kmipsimulator.StartForTest(t, kmipsimulator.Options{})
	maker, err := kmip.Client("mongod")
	require.NoError(t, err)
	d := fixture.DeployWith(t, options, func() (string, error) { return maker.NewActiveKey(t.Context(), "mongod") })
	d.Clock.Skew(-40 * time.Second)
	return d, kmip.EvidenceClient(t, "keyturn")
}

// rotateAndSnapshot rotates, and takes a snapshot of the first cluster when its members
// have restarted.
func rotateAndSnapshot(env fixture.Deployment, input workflows.RotateDeploymentInput, snapshot simulator.MemberSnapshot) (workflows.RotateDeploymentResult, error) {
	env.When(func(p workflows.DeploymentProgress) bool { return p.Counts[workflows.StatusRotated] == 3 }, func(workflows.DeploymentProgress) {
		env.TakeMemberSnapshot(env.ClusterIDs[0], snapshot)
	})
	return env.Start(workflows.RotateDeploymentID(workflows.DefaultConnection, input.ProjectID), input)
}

func proofInput(proof workflows.Proof) workflows.RotateDeploymentInput {
	input := fixture.DeploymentInput()
	input.Proof, input.ProofTimeout = proof, workflows.Duration(2*time.Second)
	return input
}

// A snapshot that does not name its member proves the replica set by the KMIP server,
// and no process.
func TestTheKMIPServerProvesAReplicaSet(t *testing.T) {
	t.Parallel()
	d, client := deployWithKMIP(t, audit)
	env := fixture.NewDeploymentWithKMIP(t, d, client)
	result, err := rotateAndSnapshot(env, proofInput(workflows.ProofKMIP), simulator.MemberSnapshot{WithoutMachineID: true})
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Equal(t, allAre(workflows.StatusRotated, auditProcesses...), processStatuses(result.Targets))
	require.Len(t, result.ReplicaSets, 1)
	proven := result.ReplicaSets[0]
	assert.Equal(t, workflows.ProvenByKMIP, proven.ProvenBy)
	assert.Equal(t, "audit", proven.ReplicaSet)
	assert.Equal(t, d.ClusterIDs[0], proven.ClusterID)
	assert.NotEmpty(t, proven.SnapshotID)
	assert.NotNil(t, proven.ProvenAt)
	assert.Equal(t, workflows.EvidenceWitnessed, proven.KMIP.Outcome)
	assert.Equal(t, d.Process("audit-2").Key, proven.NewKeyUUID)
	assert.Empty(t, proven.Reason)
	requirePromise(t, d, result.Targets)
}

func TestTheKMIPServerAndASnapshotProveAProcess(t *testing.T) {
	t.Parallel()
	d, client := deployWithKMIP(t, audit)
	result, err := rotateAndSnapshot(fixture.NewDeploymentWithKMIP(t, d, client), proofInput(workflows.ProofKMIP), simulator.MemberSnapshot{})
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	record := recordOf(t, result.Targets, "audit-2")
	assert.Equal(t, workflows.ProvenByBoth, record.ProvenBy)
	assert.Equal(t, workflows.EvidenceWitnessed, record.KMIP.Outcome)
	assert.Empty(t, result.ReplicaSets)
	requirePromise(t, d, result.Targets)
}

// The snapshot of a member whose key was not known before proves nothing.
func TestTheKeyOfAnotherMemberProvesNothing(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	env := fixture.NewDeployment(t, d)
	result, err := rotateAndSnapshot(env, proofInput(workflows.ProofSnapshot), simulator.MemberSnapshot{From: []string{"audit-1"}})
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotatedUnproven, result.Outcome)
	assert.Contains(t, result.ReplicaSets[0].Reason, "no earlier snapshot shows the previous key of this member")
	assert.NotEmpty(t, result.ReplicaSets[0].SnapshotID)
	requirePromise(t, d, result.Targets)
}

// Ops Manager's clock may be ahead of Temporal's or behind, within a minute: the time is
// in its past when it is published, and a restart is after it.
func TestTheTimeIsOfOpsManagersClock(t *testing.T) {
	t.Parallel()
	for name, skew := range map[string]time.Duration{"ahead": 45 * time.Second, "behind": -45 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := fixture.Deploy(t, twoSets)
			d.Clock.Skew(skew)
			input := fixture.DeploymentInput()
			input.DeployTimeout = workflows.Duration(3 * time.Second)
			result, err := fixture.NewDeployment(t, d).Rotate(input)
			require.NoError(t, err)
			requirePromise(t, d, result.Targets)
			for _, record := range result.Targets {
				assert.WithinDuration(t, *record.RotateAt, *record.RotatedAt, 20*time.Second)
			}
		})
	}
}
