package workflows

import (
	"fmt"

	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// Names that others build on. They are final.
const (
	DefaultTaskQueue  = "key-rotation"
	DefaultConnection = "default"

	RotateClusterType = "RotateCluster"

	ProgressQuery = "progress"

	ApproveUpdate = "approve"
	RejectUpdate  = "reject"
	PauseUpdate   = "pause"
	ResumeUpdate  = "resume"
	RetryUpdate   = "retry"
	SkipUpdate    = "skip"
	AbortUpdate   = "abort"
)

// RotateClusterID is the id of the one rotation of a cluster: whoever wants to
// rotate, look or steer uses it, and Temporal keeps a second one from running.
// Ids are taken in lower case, so that no spelling goes round the lock.
func RotateClusterID(connection, projectID, clusterID string) string {
	return fmt.Sprintf("rotate-cluster:%s:%s:%s", connection, lower(projectID), lower(clusterID))
}

// Register registers the workflows under their names.
func Register(registry worker.WorkflowRegistry) {
	registry.RegisterWorkflowWithOptions(RotateCluster, workflow.RegisterOptions{Name: RotateClusterType})
}
