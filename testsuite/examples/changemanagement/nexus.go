package changemanagement

import (
	"go.temporal.io/sdk/workflow"

	"keyturn/workflows"
)

// Nexus rotates with the Nexus operation: for pipelines in another namespace
// than keyturn's worker.
type Nexus struct {
	// Endpoint has the namespace and the task queue of keyturn's worker as its
	// target.
	Endpoint string
}

// Rotate returns the result of the rotation, or the records in its failure.
func (n Nexus) Rotate(ctx workflow.Context, change Change) (any, error) {
	keyturn := workflow.NewNexusClient(n.Endpoint, workflows.NexusService)
	var result workflows.RotateClusterResult
	err := keyturn.ExecuteOperation(ctx, workflows.RotateClusterOperation, rotationOf(change), workflow.NexusOperationOptions{}).Get(ctx, &result)
	return recordsOf(&result, err), err
}
