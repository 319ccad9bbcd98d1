package endtoend

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/invariants"
	"keyturn/workflows"
)

func TestRejectedRotationOfDeployments(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	d := s.Deploy(oneMember)
	s.StartWorker()
	input := s.DeploymentInput()
	input.RequireApproval = true
	run := s.StartDeployment(input)
	s.AwaitDeployment(run.GetID(), fixture.DeploymentInPhase(workflows.PhaseAwaitingApproval))
	_, err := s.UpdateDeployment(run.GetID(), workflows.RejectUpdate, workflows.OperatorRequest{By: "lee", Reason: "freeze"})
	require.NoError(t, err)
	_, err = s.DeploymentResult(run)
	fixture.RequireFailure(t, err, workflows.ErrorRejected)
	records, found := workflows.RotateDeploymentResultOf(err)
	require.True(t, found)
	assert.Equal(t, workflows.OutcomeNothingRotated, records.Outcome)
	assert.Empty(t, d.Puts())
}

// proving is a rotation of one replica set that a snapshot has to prove.
func proving(s fixture.Server) workflows.RotateDeploymentInput {
	input := s.DeploymentInput()
	input.Proof = workflows.ProofSnapshot
	return input
}

// A snapshot of a member whose agent has restarted it with its old key.
func TestUnchangedKeyOfADeployment(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	options := oneMember
	options.SnapshotEvery = time.Second
	d := s.Deploy(options)
	d.SetAgent("books-0", simulator.Agent{KeepsKey: true})
	s.StartWorker()
	_, err := s.DeploymentResult(s.StartDeployment(proving(s)))
	fixture.RequireFailure(t, err, workflows.ErrorPartialFailure)
	records, found := workflows.RotateDeploymentResultOf(err)
	require.True(t, found)
	assert.Equal(t, workflows.StatusFailed, records.Targets[0].Status)
	assert.Equal(t, workflows.ErrorKeyUnchanged, records.Targets[0].Error.Type)
	assert.Empty(t, records.Targets[0].NewKeyUUID)
	assert.Empty(t, d.Violations())
}

// Without a snapshot after the restart, a rotation is unproven, which is no failure. The
// one that continues it rotates nothing again.
func TestUnprovenRotationOfDeployments(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	d := s.Deploy(oneMember)
	s.StartWorker()
	input := proving(s)
	input.ProofTimeout = workflows.Duration(time.Second)
	unproven, err := s.DeploymentResult(s.StartDeployment(input))
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotatedUnproven, unproven.Outcome)
	assert.Equal(t, workflows.StatusRotated, unproven.Targets[0].Status)
	require.Len(t, unproven.ReplicaSets, 1)
	assert.NotEmpty(t, unproven.ReplicaSets[0].Reason)

	input = proving(s)
	input.Completed = workflows.ProcessRecordsToContinue(unproven.Targets)
	d.TakeMemberSnapshot(d.ClusterIDs[0], simulator.MemberSnapshot{From: []string{"books-0"}})
	proven, err := s.DeploymentResult(s.StartDeployment(input))
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, proven.Outcome)
	assert.Equal(t, workflows.StatusVerified, proven.Targets[0].Status)
	assert.Len(t, d.Rotations(""), 1)
	require.NoError(t, invariants.CheckPromise(d.Deployment, proven.Targets))
}
