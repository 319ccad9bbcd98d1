package workflows_test

import (
	"testing"

	"github.com/nexus-rpc/sdk-go/nexus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// callRotateDeployment is a workflow that does nothing but call the operation.
func callRotateDeployment(ctx workflow.Context, input any) (result *workflows.RotateDeploymentResult, err error) {
	keyturn := workflow.NewNexusClient("an-endpoint", workflows.NexusService)
	err = keyturn.ExecuteOperation(ctx, workflows.RotateDeploymentOperation.Name(), input, workflow.NexusOperationOptions{}).Get(ctx, &result)
	return result, err
}

func deploymentOperation(t *testing.T, d fixture.Deployed, input any) (result workflows.RotateDeploymentResult, err error) {
	t.Helper()
	env := fixture.NewDeployment(t, d)
	workflows.RegisterNexus(env)
	env.RegisterWorkflow(callRotateDeployment)
	env.ExecuteWorkflow(callRotateDeployment, input)
	require.True(t, env.IsWorkflowCompleted())
	if err := env.GetWorkflowError(); err != nil {
		return result, err
	}
	require.NoError(t, env.GetWorkflowResult(&result))
	return result, nil
}

func TestNexusOperationRotatesADeployment(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	result, err := deploymentOperation(t, d, fixture.DeploymentInput())
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	requirePromise(t, d, result.Targets)
}

func TestNexusOperationOfADeploymentFailsWithItsRecords(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	failOn(d, "audit-1")
	_, err := deploymentOperation(t, d, fixture.DeploymentInput())
	records := deploymentRecords(t, err, workflows.ErrorPartialFailure)
	assert.Equal(t, workflows.ErrorDeploymentFailed, records.Targets[0].Error.Type)
}

func TestNexusOperationOfADeploymentNamesEveryFault(t *testing.T) {
	t.Parallel()
	d := fixture.Deploy(t, audit)
	_, err := deploymentOperation(t, d, map[string]any{"projectId": "x", "proof": "none", "url": "http://x"})
	refused := requireFailure(t, err, workflows.ErrorInvalidInput)
	for _, fault := range []string{"projectId: must be 24 hex digits", "proof: must be agent, snapshot or kmip", `"url": unknown field`} {
		assert.Contains(t, refused.Message(), fault)
	}
	var handler *nexus.HandlerError
	require.ErrorAs(t, err, &handler)
	assert.False(t, handler.Retryable())
	assert.Empty(t, d.OM.Ledger().Requests)
}
