package workflows

import (
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// FleetKind says what a fleet rotates.
type FleetKind string

// Values of FleetKind.
const (
	// FleetOfClusters: clusters, each by a RotateCluster under the cluster's ID.
	FleetOfClusters FleetKind = "cluster"
	// FleetOfDeployments: projects, each by a RotateDeployment under the project's ID.
	// Where names and fields of a fleet say cluster, a project is meant; ClusterID and
	// ClusterName are empty.
	FleetOfDeployments FleetKind = "deployment"
)

// Noun is what a fleet counts: "cluster" or "project".
func (k FleetKind) Noun() string {
	if k == FleetOfDeployments {
		return "project"
	}
	return "cluster"
}

// count is a number of what the fleet counts.
func (k FleetKind) count(n int) string { return plural(n, k.Noun()) }

// fleetKind is what fleets of different kinds do differently. The rest is the same.
type fleetKind interface {
	// list gets the next members of the fleet after a position, and counts all of
	// them where count is set.
	list(ctx workflow.Context, in RotateFleetInput, after *ClusterRef, count bool) (activities.ListClustersResult, error)
	// isKnown reports whether what was listed did exist. What is not known to have
	// existed cannot be gone: it is a mistake in the input.
	isKnown(in RotateFleetInput) bool
	// nothingListed describes a fleet that has no members, and what to check.
	nothingListed() string
	workflowType() string
	workflowID(in RotateFleetInput, ref ClusterRef) string
	summary(in RotateFleetInput, ref ClusterRef) string
	// inputFields are those of a rotation's input that name the member.
	inputFields(ref ClusterRef) map[string]string
	rotationResults
}

// rotationResults reads the results of a fleet's rotations.
type rotationResults interface {
	// newResult is one to read a rotation's into.
	newResult() rotationResult
	// resultOf finds the records in a rotation's failure.
	resultOf(err error) (rotationResult, bool)
	// pack makes of results, newest first, the records to continue from; nil if there
	// are none.
	pack(newestFirst []rotationResult) ([]byte, error)
	// unpack returns them as they fit into an input.
	unpack(packed []byte) (completed any, err error)
}

// rotationResult is the result of a rotation of any kind.
type rotationResult interface {
	common() commonResult
	// all are its targets' records.
	all() []target
	// copied is a copy that fit can change.
	copied() rotationResult
	// fit makes a copy fit into limit bytes of JSON.
	fit(limit int)
}

func (r *RotateClusterResult) all() []target    { return targetsOf(r.Targets) }
func (r *RotateDeploymentResult) all() []target { return targetsOf(r.Targets) }

func targetsOf[Record any, T interface {
	*Record
	target
}](records []Record) []target {
	targets := make([]target, len(records))
	for i := range records {
		targets[i] = T(&records[i])
	}
	return targets
}

func fleetKindOf(kind FleetKind) fleetKind {
	if kind == FleetOfDeployments {
		return projectFleet{}
	}
	return clusterFleet{}
}

// clusterFleet is a fleet of clusters.
type clusterFleet struct{}

func (clusterFleet) list(ctx workflow.Context, in RotateFleetInput, after *ClusterRef, count bool) (listed activities.ListClustersResult, err error) {
	summary := "list the next clusters"
	if count {
		summary = "list and count the clusters"
	}
	err = workflow.ExecuteActivity(listOptions(ctx, in, summary), activities.ListClustersName, activities.ListClustersInput{
		Scope:      listScope(in),
		ProjectIDs: in.ProjectIDs, ExcludeProjectIDs: in.ExcludeProjectIDs, ClusterNames: in.ClusterNames,
		After: after, Limit: listBatchSize, Count: count, ReportUnlisted: true,
	}).Get(ctx, &listed)
	return listed, err
}

func listOptions(ctx workflow.Context, in RotateFleetInput, summary string) workflow.Context {
	return activityOptions(ctx, summary, totalOf(in.Rotation.RetryTimeout, Duration(maxListingTime)))
}

func listScope(in RotateFleetInput) activities.Scope {
	return activities.Scope{Connection: in.Connection, RetryTimeout: in.Rotation.RetryTimeout}
}

func (clusterFleet) isKnown(RotateFleetInput) bool { return true }

func (clusterFleet) nothingListed() string {
	return "the projects have no clusters; nothing was rotated; check projectIds, excludeProjectIds and the projects that the worker's API key can read"
}

func (clusterFleet) workflowType() string { return RotateClusterType }

func (clusterFleet) workflowID(in RotateFleetInput, ref ClusterRef) string {
	return RotateClusterID(in.Connection, ref.ProjectID, ref.ClusterID)
}

func (clusterFleet) summary(in RotateFleetInput, ref ClusterRef) string {
	summary := in.cluster()
	summary.ClusterID = ref.ClusterName
	return RotateClusterSummary(summary)
}

func (clusterFleet) inputFields(ref ClusterRef) map[string]string {
	return map[string]string{"projectId": ref.ProjectID, "clusterId": ref.ClusterID}
}

func (clusterFleet) newResult() rotationResult { return &RotateClusterResult{} }

func (clusterFleet) resultOf(err error) (rotationResult, bool) {
	return RotateClusterResultOf(err)
}

func (clusterFleet) pack(newestFirst []rotationResult) ([]byte, error) {
	return packMerged(RecordsToContinue(mergeRecords(newestFirst, func(result rotationResult) []TargetRecord {
		return result.(*RotateClusterResult).Targets
	}, func(t TargetRecord) (string, bool) {
		return lower(t.ClusterID), t.Status == StatusVerified || mayHaveBeenRotated(t)
	})))
}

func (clusterFleet) unpack(packed []byte) (any, error) {
	return unpackFitting(packed, fittingRecords)
}

// projectFleet is a fleet of projects, whose deployments are rotated.
type projectFleet struct{}

// list lists the projects. Whether they have anything to rotate is known when their
// rotations have read it.
func (projectFleet) list(ctx workflow.Context, in RotateFleetInput, after *ClusterRef, _ bool) (listed activities.ListClustersResult, err error) {
	input := activities.ListProjectsInput{
		Scope: listScope(in), ProjectIDs: in.ProjectIDs, ExcludeProjectIDs: in.ExcludeProjectIDs, Limit: listBatchSize,
	}
	if after != nil {
		input.After = after.ProjectID
	}
	var projects activities.ListProjectsResult
	if err := workflow.ExecuteActivity(listOptions(ctx, in, "list the projects"), activities.ListProjectsName, input).Get(ctx, &projects); err != nil {
		return listed, err
	}
	listed.More, listed.Total = projects.More, projects.Total
	for _, id := range projects.ProjectIDs {
		listed.Clusters = append(listed.Clusters, ClusterRef{ProjectID: id})
	}
	return listed, nil
}

// isKnown: the projects that an input names are not looked up.
func (projectFleet) isKnown(in RotateFleetInput) bool { return len(in.ProjectIDs) == 0 }

func (projectFleet) nothingListed() string {
	return "there are no projects; nothing was rotated; check projectIds, excludeProjectIds and the projects that the worker's API key can read"
}

func (projectFleet) workflowType() string { return RotateDeploymentType }

func (projectFleet) workflowID(in RotateFleetInput, ref ClusterRef) string {
	return RotateDeploymentID(in.Connection, ref.ProjectID)
}

func (projectFleet) summary(in RotateFleetInput, ref ClusterRef) string {
	summary := in.deployment()
	summary.ProjectID = ref.ProjectID
	return RotateDeploymentSummary(summary)
}

func (projectFleet) inputFields(ref ClusterRef) map[string]string {
	return map[string]string{"projectId": ref.ProjectID}
}

func (projectFleet) newResult() rotationResult { return &RotateDeploymentResult{} }

func (projectFleet) resultOf(err error) (rotationResult, bool) {
	return RotateDeploymentResultOf(err)
}

// pack: a time that may have been published makes records of earlier runs outdated,
// also where the process has to be rotated again.
func (projectFleet) pack(newestFirst []rotationResult) ([]byte, error) {
	return packMerged(ProcessRecordsToContinue(mergeRecords(newestFirst, func(result rotationResult) []ProcessRecord {
		return result.(*RotateDeploymentResult).Targets
	}, func(t ProcessRecord) (string, bool) {
		return t.Process, t.RotateAt != nil
	})))
}

func (projectFleet) unpack(packed []byte) (any, error) {
	return unpackFitting(packed, fittingProcesses)
}

// mergeRecords takes for each target what the newest run reports about its rotation.
// identify returns what distinguishes a target from others, and whether its record
// says what was done to it.
func mergeRecords[Record any](newestFirst []rotationResult, of func(rotationResult) []Record, identify func(Record) (id string, done bool)) (merged []Record) {
	known := map[string]bool{}
	for _, result := range newestFirst {
		for _, record := range of(result) {
			if id, done := identify(record); done && !known[id] {
				known[id] = true
				merged = append(merged, record)
			}
		}
	}
	return merged
}

func packMerged[Record any](records []Record) ([]byte, error) {
	if len(records) == 0 {
		return nil, nil
	}
	return pack(records)
}

// unpackFitting unpacks records as fit returns them; nil if there are none.
func unpackFitting[Record any](packedRecords []byte, fit func([]Record) []Record) (any, error) {
	if packedRecords == nil {
		return nil, nil
	}
	records, err := packed[Record](packedRecords).unpack()
	if err != nil || len(records) == 0 {
		return nil, err
	}
	return fit(records), nil
}
