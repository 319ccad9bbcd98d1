package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"keyturn/workflows"
)

var order = request{
	ProjectID: "5196d3628d022db4cbc26d9e", ClusterID: "65a1f1aa0000000000000001",
	Ticket: "CHG0031337", RequestedBy: "dana",
}

// rotateCluster has the type of keyturn's workflow RotateCluster, as callers see it.
type rotateCluster func(workflow.Context, workflows.RotateClusterInput) (*workflows.RotateClusterResult, error)

// run executes Maintain with a rotation in place of keyturn's worker, which a
// test of another team does not have.
func run(t *testing.T, rotate rotateCluster) (*report, error) {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.RegisterWorkflowWithOptions(maintain, workflow.RegisterOptions{Name: maintainType})
	env.RegisterWorkflowWithOptions(rotate, workflow.RegisterOptions{Name: workflows.RotateClusterType})
	env.ExecuteWorkflow(maintainType, order)
	require.True(t, env.IsWorkflowCompleted())
	if err := env.GetWorkflowError(); err != nil {
		return nil, err
	}
	var got report
	require.NoError(t, env.GetWorkflowResult(&got))
	return &got, nil
}

// records is the result of a rotation with one verified and one failed target.
func records() *workflows.RotateClusterResult {
	return &workflows.RotateClusterResult{
		ProjectID: order.ProjectID, ClusterID: order.ClusterID, Outcome: workflows.OutcomePartial,
		StartedAt: time.Date(2026, 11, 1, 2, 0, 0, 0, time.UTC),
		Targets: []workflows.TargetRecord{
			{Status: workflows.StatusVerified, PreviousKeyUUID: "a", NewKeyUUID: "b"},
			{Status: workflows.StatusFailed, PreviousKeyUUID: "c"},
		},
	}
}

func TestMaintainReturnsTheResult(t *testing.T) {
	var input workflows.RotateClusterInput
	got, err := run(t, func(_ workflow.Context, in workflows.RotateClusterInput) (*workflows.RotateClusterResult, error) {
		input = in
		result := records()
		result.Outcome, result.Targets = workflows.OutcomeRotated, result.Targets[:1]
		return result, nil
	})
	require.NoError(t, err)
	assert.Equal(t, workflows.RotateClusterInput{
		ProjectID: order.ProjectID, ClusterID: order.ClusterID, OnFailure: workflows.OnFailureStop,
		Change: workflows.Change{Ticket: order.Ticket, RequestedBy: order.RequestedBy},
	}, input)
	require.NotNil(t, got.Rotation)
	assert.Equal(t, workflows.OutcomeRotated, got.Rotation.Outcome)
	assert.Empty(t, got.Problem)
}

func TestMaintainReturnsTheRecordsOfAFailedRotation(t *testing.T) {
	got, err := run(t, func(workflow.Context, workflows.RotateClusterInput) (*workflows.RotateClusterResult, error) {
		return nil, temporal.NewNonRetryableApplicationError("1 of 2 targets verified", string(workflows.ErrorPartialFailure), nil, records())
	})
	require.NoError(t, err)
	assert.Equal(t, records(), got.Rotation)
	assert.Contains(t, got.Problem, "1 of 2 targets verified")
}

func TestMaintainPostponesWhenTheClusterIsBusy(t *testing.T) {
	got, err := run(t, func(workflow.Context, workflows.RotateClusterInput) (*workflows.RotateClusterResult, error) {
		return nil, temporal.NewNonRetryableApplicationError("a rotation of this cluster is running", string(workflows.ErrorClusterBusy), nil)
	})
	require.NoError(t, err)
	assert.Equal(t, &report{Postponed: true}, got)
}

func TestMaintainFailsWithoutRecords(t *testing.T) {
	_, err := run(t, func(workflow.Context, workflows.RotateClusterInput) (*workflows.RotateClusterResult, error) {
		return nil, temporal.NewNonRetryableApplicationError("projectId: must be 24 hex digits", string(workflows.ErrorInvalidInput), nil)
	})
	require.ErrorContains(t, err, "must be 24 hex digits")
}
