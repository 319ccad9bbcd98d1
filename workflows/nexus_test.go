package workflows_test

import (
	"testing"
	"time"

	"github.com/nexus-rpc/sdk-go/nexus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// callOperation is a workflow that does nothing but call the operation.
func callOperation(ctx workflow.Context, input any) (result *workflows.RotateClusterResult, err error) {
	keyturn := workflow.NewNexusClient("an-endpoint", workflows.NexusService)
	err = keyturn.ExecuteOperation(ctx, workflows.RotateClusterOperationName, input, workflow.NexusOperationOptions{}).Get(ctx, &result)
	return result, err
}

// call has the operation called by another workflow.
func call(t *testing.T, om *simulator.Server, input any, prepare ...func(fixture.SDK)) (result workflows.RotateClusterResult, err error) {
	t.Helper()
	env := fixture.NewSDK(t, om)
	for _, p := range prepare {
		p(env)
	}
	workflows.RegisterNexus(env)
	env.RegisterWorkflow(callOperation)
	env.ExecuteWorkflow(callOperation, input)
	require.True(t, env.IsWorkflowCompleted())
	if err := env.GetWorkflowError(); err != nil {
		return result, err
	}
	require.NoError(t, env.GetWorkflowResult(&result))
	return result, nil
}

func TestNexusNamesAreFinal(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "keyturn", workflows.NexusService)
	assert.Equal(t, "rotate-cluster", workflows.RotateClusterOperation.Name())
	assert.Equal(t, "rotate-deployment", workflows.RotateDeploymentOperation.Name())
}

func TestNexusOperationRotates(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	result, err := call(t, om, fixture.Input(cluster.ID))
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	require.Len(t, result.Targets, 3)
	requireTrue(t, om, result.Targets)
}

func TestNexusOperationFailsWithItsRecords(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	om.Inject(simulator.AccessListRefusal("PUT", cluster.ShardIDs[1]))
	_, err := call(t, om, fixture.Input(cluster.ID))
	var operation *temporal.NexusOperationError
	require.ErrorAs(t, err, &operation)
	records := requireRecords(t, err, workflows.ErrorPartialFailure)
	assert.Equal(t, workflows.StatusFailed, records.Targets[1].Status)
	requireTrue(t, om, records.Targets)
}

// What a typed input would lose or refuse by itself is named, and the caller is
// informed at once.
func TestNexusOperationNamesEveryFault(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	for name, c := range map[string]struct {
		input any
		names []string
	}{
		"nothing":        {nil, []string{"projectId: is required", "clusterId: is required"}},
		"unknown fields": {map[string]any{"projectId": "x", "url": "http://x"}, []string{"projectId: must be 24 hex digits", `"url": unknown field`}},
		"wrong types":    {map[string]any{"concurrency": "4"}, []string{"concurrency: must be a whole number"}},
		"a list":         {[]string{"x"}, []string{"input: must be an object"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := call(t, om, c.input)
			refused := requireFailure(t, err, workflows.ErrorInvalidInput)
			for _, fault := range c.names {
				assert.Contains(t, refused.Message(), fault)
			}
			var handler *nexus.HandlerError
			require.ErrorAs(t, err, &handler)
			assert.False(t, handler.Retryable())
			_, found := workflows.RotateClusterResultOf(err)
			assert.False(t, found)
		})
	}
	assert.Empty(t, om.Ledger().Requests)
}

// The times of records are Temporal's. A worker whose clock is behind does not take
// them for times to come.
func TestNexusOperationTakesRecordsWhateverTheWorkersClock(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 1)
	first, err := fixture.NewSDK(t, om).Rotate(fixture.Input(cluster.ID))
	require.NoError(t, err)
	input := fixture.Input(cluster.ID)
	input.Completed = first.Targets
	at := time.Now().Add(30 * time.Minute)
	for i := range input.Completed {
		input.Completed[i].VerifiedAt = &at
	}
	result, err := call(t, om, input, func(env fixture.SDK) { env.SetStartTime(time.Now().Add(time.Hour)) })
	require.NoError(t, err)
	assert.True(t, result.Targets[0].CarriedOver)
	_, err = call(t, om, input)
	assert.ErrorContains(t, requireFailure(t, err, workflows.ErrorInvalidInput), "completed[0].verifiedAt: must not be in the future")
}
