// Package workflows holds RotateCluster, the Temporal workflow that rotates the
// KMIP master key of every shard and of the config server of a cluster, and the
// names, inputs and results that other programs need to start, watch and control
// it. RotateFleet rotates many clusters.
//
// Start it from Go as any workflow, by its type name and with its typed input:
//
//	client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
//		ID:        workflows.RotateClusterID("default", projectID, clusterID),
//		TaskQueue: workflows.DefaultTaskQueue,
//	}, workflows.RotateClusterType, workflows.RotateClusterInput{ProjectID: projectID, ClusterID: clusterID})
//
// A workflow in another namespace calls the Nexus service keyturn, operation
// rotate-cluster, with the same input and result; see RotateClusterOperation.
//
// A rotation that does not reach every target fails with an application error
// of type PartialFailure, whose details are a RotateClusterResult; see
// [RotateClusterResultOf].
package workflows
