package workflows

import (
	"context"
	"time"

	"github.com/nexus-rpc/sdk-go/nexus"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/temporalnexus"
	"go.temporal.io/sdk/worker"
)

// Names of the Nexus service, by which other namespaces start a rotation. They
// are final.
const (
	NexusService                  = "keyturn"           // the service
	RotateClusterOperationName    = "rotate-cluster"    // its operation that rotates one cluster
	RotateDeploymentOperationName = "rotate-deployment" // its operation that rotates a project's deployments
)

// RotateClusterOperation is the operation with the types of its input and
// result, for callers in Go. It fails as RotateCluster does, with the records
// for RotateClusterResultOf; canceling it aborts the rotation. Temporal delivers no
// failure of more than about 1.5 MB through Nexus, which the records of more than some
// 4,000 targets need: set ScheduleToCloseTimeout for so large a cluster, and read the
// rotation's own records where it is over.
var RotateClusterOperation = nexus.NewOperationReference[RotateClusterInput, RotateClusterResult](RotateClusterOperationName)

// RotateDeploymentOperation is the same for RotateDeployment, with the records for
// RotateDeploymentResultOf, and more than some 2,000 targets.
var RotateDeploymentOperation = nexus.NewOperationReference[RotateDeploymentInput, RotateDeploymentResult](RotateDeploymentOperationName)

// RegisterNexus registers the Nexus service.
func RegisterNexus(registry worker.NexusServiceRegistry) {
	service := nexus.NewService(NexusService)
	service.MustRegister(
		rotationOperation[*RotateClusterResult](RotateClusterOperationName, startOfCluster),
		rotationOperation[*RotateDeploymentResult](RotateDeploymentOperationName, startOfDeployment),
	)
	registry.RegisterNexusService(service)
}

// maxWorkerSkew is more than a worker's clock may be behind.
const maxWorkerSkew = 366 * 24 * time.Hour

// startOfRotation is how an operation starts a rotation.
type startOfRotation struct {
	workflowType, id, summary string
	busy                      func(id string) error
}

// rotationOperation starts a rotation under the one id that is its lock. An operation
// that Temporal asks for again, because the answer was lost, is known by its request
// id and gets the rotation that it has started. The input stays raw, so that what
// does not fit is named as everywhere.
func rotationOperation[Result any](name string, prepare func(raw converter.RawValue, now time.Time) (startOfRotation, error)) nexus.RegisterableOperation {
	return temporalnexus.MustNewWorkflowRunOperationWithOptions(temporalnexus.WorkflowRunOperationOptions[converter.RawValue, Result]{
		Name: name,
		Handler: func(ctx context.Context, raw converter.RawValue, operation nexus.StartOperationOptions) (temporalnexus.WorkflowHandle[Result], error) {
			// Whether a record's times are to come, the rotation checks by Temporal's
			// clock: this worker's may be behind.
			start, err := prepare(raw, time.Now().Add(maxWorkerSkew))
			if err != nil {
				return nil, refusal(err)
			}
			handle, err := temporalnexus.ExecuteUntypedWorkflow[Result](ctx, operation, client.StartWorkflowOptions{
				ID:                       start.id,
				WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
				StaticSummary:            start.summary,
			}, start.workflowType, raw)
			if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
				return nil, refusal(start.busy(start.id))
			}
			return handle, err
		},
	})
}

func startOfCluster(raw converter.RawValue, now time.Time) (startOfRotation, error) {
	input, err := parseRotateClusterInput(raw, now)
	return startOfRotation{RotateClusterType, RotateClusterID(input.Connection, input.ProjectID, input.ClusterID), RotateClusterSummary(input), clusterBusy}, err
}

func startOfDeployment(raw converter.RawValue, now time.Time) (startOfRotation, error) {
	input, err := parseRotateDeploymentInput(raw, now)
	return startOfRotation{RotateDeploymentType, RotateDeploymentID(input.Connection, input.ProjectID), RotateDeploymentSummary(input), deploymentBusy}, err
}

func clusterBusy(id string) error {
	return failure(ErrorClusterBusy, nil, "a rotation of this cluster is already running: see workflow %s", id)
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
