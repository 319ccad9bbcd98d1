package workflows

import (
	"context"

	"github.com/nexus-rpc/sdk-go/nexus"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/temporalnexus"
	"go.temporal.io/sdk/worker"

	"keyturn/activities"
)

// Names of the Nexus service, by which other namespaces start a rotation. They
// are final.
const (
	NexusService               = "keyturn"
	RotateClusterOperationName = "rotate-cluster"
)

// RotateClusterOperation is the operation with the types of its input and
// result, for callers in Go. It fails as RotateCluster does, with the records
// for ResultOf; canceling it is aborting the rotation.
var RotateClusterOperation = nexus.NewOperationReference[RotateClusterInput, RotateClusterResult](RotateClusterOperationName)

// RegisterNexus registers the Nexus service.
func RegisterNexus(registry worker.NexusServiceRegistry) {
	service := nexus.NewService(NexusService)
	// The input stays raw, so that what does not fit is named as everywhere.
	service.MustRegister(temporalnexus.MustNewWorkflowRunOperationWithOptions(
		temporalnexus.WorkflowRunOperationOptions[converter.RawValue, *RotateClusterResult]{
			Name: RotateClusterOperationName, Handler: startRotateCluster,
		}))
	registry.RegisterNexusService(service)
}

// startRotateCluster starts the rotation under the one id that is its lock. An
// operation that Temporal asks for again, because the answer was lost, is known
// by its request id and gets the rotation that it has started.
func startRotateCluster(ctx context.Context, raw converter.RawValue, operation nexus.StartOperationOptions) (temporalnexus.WorkflowHandle[*RotateClusterResult], error) {
	input, err := parseRotateClusterInput(raw)
	if err != nil {
		return nil, refusal(err)
	}
	id := RotateClusterID(input.Connection, input.ProjectID, input.ClusterID)
	handle, err := temporalnexus.ExecuteUntypedWorkflow[*RotateClusterResult](ctx, operation, client.StartWorkflowOptions{
		ID:                       id,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		StaticSummary:            StaticSummary(input),
	}, RotateClusterType, raw)
	if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
		return nil, refusal(clusterBusy(id))
	}
	return handle, err
}

func clusterBusy(id string) error {
	return failure(activities.ErrorClusterBusy, nil, "a rotation of this cluster is running already: look at workflow %s", id)
}

// refusal gives the caller an application error at once. It is a handler's error
// rather than an operation's, around which later servers put an application
// error of their own: the caller would find that one's type first. It is always
// a bad request: a server that does not know a newer kind, as 1.29 does not know
// a conflict, would try again for ever.
func refusal(cause error) error {
	return &nexus.HandlerError{
		Type: nexus.HandlerErrorTypeBadRequest, Message: cause.Error(), Cause: cause,
		RetryBehavior: nexus.HandlerErrorRetryBehaviorNonRetryable,
	}
}
