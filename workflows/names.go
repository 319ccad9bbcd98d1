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
	RotateFleetType   = "RotateFleet"

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

// RotateFleetID is the id that a fleet's rotation should be started under: one
// of a connection at a time. Others work, too; the clusters have locks of their
// own.
func RotateFleetID(connection string) string { return "rotate-fleet:" + connection }

// FleetSummary is the summary that a fleet's rotation should be started with.
func FleetSummary(input RotateFleetInput) string {
	summary := "Rotate the KMIP master keys of a fleet"
	if input.Rotation.DryRun {
		summary = "Plan the rotation of the KMIP master keys of a fleet"
	}
	if input.Change.Ticket != "" {
		summary += " (" + input.Change.Ticket + ")"
	}
	return shorten(summary)
}

// Register registers the workflows under their names.
func Register(registry worker.WorkflowRegistry) {
	registry.RegisterWorkflowWithOptions(RotateCluster, workflow.RegisterOptions{Name: RotateClusterType})
	registry.RegisterWorkflowWithOptions(RotateFleet, workflow.RegisterOptions{Name: RotateFleetType})
}
