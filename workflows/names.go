package workflows

import (
	"fmt"
	"strings"

	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"keyturn/opsmanager"
)

// Names that others build on. They are final.
const (
	DefaultTaskQueue  = "key-rotation" // the task queue of the workers, unless KEYTURN_TASK_QUEUE names another
	DefaultConnection = "default"      // the connection of the OPS_MANAGER_* variables

	RotateClusterType    = "RotateCluster"    // workflow that rotates one cluster
	RotateFleetType      = "RotateFleet"      // workflow that rotates many clusters, or the deployments of many projects
	RotateDeploymentType = "RotateDeployment" // workflow that rotates the keys of a project's deployments
	ListKeysType         = "ListKeys"         // workflow that lists keys and what still needs them
	ListClustersType     = "ListClusters"     // workflow that lists a page of the clusters that can be rotated

	ProgressQuery = "progress" // returns Progress, FleetProgress or ListKeysProgress

	ApproveUpdate = "approve" // takes ApproveRequest
	RejectUpdate  = "reject"  // takes OperatorRequest
	PauseUpdate   = "pause"   // takes OperatorRequest
	ResumeUpdate  = "resume"  // takes OperatorRequest
	RetryUpdate   = "retry"   // takes RetryRequest
	SkipUpdate    = "skip"    // takes SkipRequest
	AbortUpdate   = "abort"   // takes OperatorRequest
)

// RotationTypes are the types of the workflows that rotate.
var RotationTypes = []string{RotateClusterType, RotateDeploymentType, RotateFleetType}

// RotateClusterID is the id of the one rotation of a cluster: whoever wants to
// rotate, look or steer uses it, and Temporal keeps a second one from running.
// Ids are taken in lower case, so that no spelling goes round the lock.
func RotateClusterID(connection, projectID, clusterID string) string {
	return fmt.Sprintf("rotate-cluster:%s:%s:%s", connection, lower(projectID), lower(clusterID))
}

// RotateDeploymentID is the id of the one rotation of a project's deployments, as
// RotateClusterID is that of a cluster: the automation configuration is the whole
// project's.
func RotateDeploymentID(connection, projectID string) string {
	return fmt.Sprintf("rotate-deployment:%s:%s", connection, lower(projectID))
}

// RotateFleetID is the id that a fleet's rotation should be started under: one
// of a connection at a time. Others work, too; the clusters have locks of their
// own.
func RotateFleetID(connection string) string { return "rotate-fleet:" + connection }

// RotateDeploymentFleetID is RotateFleetID for a fleet of deployments, which has other
// keys: it may run at the same time.
func RotateDeploymentFleetID(connection string) string {
	return "rotate-deployment-fleet:" + connection
}

// ListKeysID is the id that a listing of keys should be started under. Any number
// may run at the same time: run distinguishes them.
func ListKeysID(connection, run string) string { return "list-keys:" + connection + ":" + run }

// ListClustersID is the id that a listing of clusters should be started under, as
// ListKeysID is that of keys.
func ListClustersID(connection, run string) string { return "list-clusters:" + connection + ":" + run }

// RotateFleetSummary is the summary that a fleet's rotation should be started with.
func RotateFleetSummary(input RotateFleetInput) string {
	what := "keys of a fleet"
	if input.Kind == FleetOfDeployments {
		what += " of deployments"
	}
	return rotationSummary(what, input.Rotation.DryRun, input.Change)
}

// rotationSummary is the summary of the rotation of some KMIP master keys, or of its
// plan.
func rotationSummary(what string, dryRun bool, change Change) string {
	summary := "Rotate the KMIP master " + what
	if dryRun {
		summary = "Plan the rotation of the KMIP master " + what
	}
	if change.Ticket != "" {
		summary += " (" + change.Ticket + ")"
	}
	return shorten(summary)
}

// Register registers the workflows under their names.
func Register(registry worker.WorkflowRegistry) {
	registry.RegisterWorkflowWithOptions(RotateCluster, workflow.RegisterOptions{Name: RotateClusterType})
	registry.RegisterWorkflowWithOptions(RotateFleet, workflow.RegisterOptions{Name: RotateFleetType})
	registry.RegisterWorkflowWithOptions(RotateDeployment, workflow.RegisterOptions{Name: RotateDeploymentType})
	registry.RegisterWorkflowWithOptions(ListKeys, workflow.RegisterOptions{Name: ListKeysType})
	registry.RegisterWorkflowWithOptions(ListClusters, workflow.RegisterOptions{Name: ListClustersType})
	registry.RegisterWorkflowWithOptions(listProjectKeys, workflow.RegisterOptions{Name: ListProjectKeysType})
	registry.RegisterWorkflowWithOptions(listKeyPage, workflow.RegisterOptions{Name: ListKeyPageType})
	// A delivery lasts up to a day: it must not keep an earlier version's workers.
	registry.RegisterWorkflowWithOptions(DeliverEvent, workflow.RegisterOptions{Name: DeliverEventType, VersioningBehavior: workflow.VersioningBehaviorAutoUpgrade})
}

// ParseRotateClusterID takes a workflow's id apart that RotateClusterID made;
// false for any other.
func ParseRotateClusterID(id string) (connection, projectID, clusterID string, ok bool) {
	parts := strings.Split(id, ":")
	if len(parts) != 4 || !opsmanager.ValidID(parts[2]) || !opsmanager.ValidID(parts[3]) || RotateClusterID(parts[1], parts[2], parts[3]) != id {
		return "", "", "", false
	}
	return parts[1], parts[2], parts[3], true
}

// ParseRotateDeploymentID takes a workflow's id apart that RotateDeploymentID made;
// false for any other.
func ParseRotateDeploymentID(id string) (connection, projectID string, ok bool) {
	parts := strings.Split(id, ":")
	if len(parts) != 3 || !opsmanager.ValidID(parts[2]) || RotateDeploymentID(parts[1], parts[2]) != id {
		return "", "", false
	}
	return parts[1], parts[2], true
}

// RotateDeploymentSummary is the summary that a rotation of deployments should be
// started with.
func RotateDeploymentSummary(input RotateDeploymentInput) string {
	return rotationSummary("keys of the deployments of project "+input.ProjectID, input.DryRun, input.Change)
}

// RotateClusterSummary is the summary that a rotation should be started with: the Web
// UI shows it beside the workflow's id.
func RotateClusterSummary(input RotateClusterInput) string {
	return rotationSummary("key of cluster "+input.ClusterID, input.DryRun, input.Change)
}
