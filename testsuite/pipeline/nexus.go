package pipeline

import (
	"go.temporal.io/sdk/workflow"

	"keyturn/workflows"
)

// Nexus rotates by the Nexus operation: for pipelines in another namespace than
// the rotation's worker.
type Nexus struct {
	// Endpoint leads to the namespace and the task queue of the rotation's
	// worker.
	Endpoint string
}

// Rotate gives the rotation's result, or the records in its failure.
func (n Nexus) Rotate(ctx workflow.Context, change Change) (any, error) {
	keyturn := workflow.NewNexusClient(n.Endpoint, workflows.NexusService)
	var result workflows.RotateClusterResult
	err := keyturn.ExecuteOperation(ctx, workflows.RotateClusterOperation, rotationOf(change), workflow.NexusOperationOptions{}).Get(ctx, &result)
	return recordsOf(&result, err), err
}
