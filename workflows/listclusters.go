package workflows

import (
	"regexp"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// UnlistedProject is a project whose clusters cannot be listed, and why.
type UnlistedProject = activities.UnlistedProject

// ListClustersInput selects clusters. No field is required.
type ListClustersInput struct {
	// Connection names an Ops Manager that the worker is configured with; "" =
	// "default".
	Connection string `json:"connection,omitempty"`
	// ProjectIDs are the projects, up to 1,000; none = every one that the key
	// sees.
	ProjectIDs []string `json:"projectIds,omitempty"`
	// ExcludeProjectIDs are left out, up to 1,000.
	ExcludeProjectIDs []string `json:"excludeProjectIds,omitempty"`
	// ClusterNames is a regular expression (RE2) on display names; "" = every cluster.
	ClusterNames string `json:"clusterNames,omitempty"`
	// After is Last of the previous page; nil = the first page.
	After *ClusterRef `json:"after,omitempty"`
}

// ListClustersResult is a page of clusters, by project ID and cluster ID.
type ListClustersResult struct {
	// Connection is the input's.
	Connection string `json:"connection"`
	// Clusters are up to 2,000.
	Clusters []ClusterRef `json:"clusters"`
	// Unlisted are the projects of this page that cannot be listed.
	Unlisted []UnlistedProject `json:"unlisted"`
	// Last is the position at which the next page continues.
	Last *ClusterRef `json:"last,omitempty"`
	// More reports that there is another page.
	More bool `json:"more"`
}

const (
	// clustersPerPage keeps a page within a payload.
	clustersPerPage = 2_000
	// clusterRetryTimeout is short: a person waits for the list.
	clusterRetryTimeout = Duration(30 * time.Second)
)

func parseListClustersInput(raw converter.RawValue) (ListClustersInput, error) {
	input := ListClustersInput{Connection: DefaultConnection}
	var f fieldErrors
	if !decodeStrictly(raw, &input, &f) {
		return input, f.err()
	}
	if !ValidConnection(input.Connection) {
		f.add("connection", ConnectionRule)
	}
	f.checkProjects("projectIds", input.ProjectIDs)
	f.checkProjects("excludeProjectIds", input.ExcludeProjectIDs)
	lowerAll(input.ProjectIDs)
	lowerAll(input.ExcludeProjectIDs)
	if _, err := regexp.Compile(input.ClusterNames); err != nil {
		f.add("clusterNames", "must be a regular expression (RE2): %v", err)
	}
	return input, f.err()
}

// ListClusters lists a page of the clusters that can be rotated. It changes nothing.
// Its input is a ListClustersInput, its result a ListClustersResult.
func ListClusters(ctx workflow.Context, raw converter.RawValue) (*ListClustersResult, error) {
	input, err := parseListClustersInput(raw)
	if err != nil {
		return nil, err
	}
	var listed activities.ListClustersResult
	err = workflow.ExecuteActivity(
		activityOptions(ctx, "list the clusters", totalOf(clusterRetryTimeout, Duration(maxListingTime))), activities.ListClustersName, activities.ListClustersInput{
			Scope:      activities.Scope{Connection: input.Connection, RetryTimeout: clusterRetryTimeout},
			ProjectIDs: input.ProjectIDs, ExcludeProjectIDs: input.ExcludeProjectIDs, ClusterNames: input.ClusterNames,
			After: input.After, Limit: clustersPerPage, ReportUnlisted: true,
		}).Get(ctx, &listed)
	if err != nil {
		return nil, causeOf(err)
	}
	return &ListClustersResult{
		Connection: input.Connection, Clusters: append([]ClusterRef{}, listed.Clusters...), Unlisted: append([]UnlistedProject{}, listed.Unlisted...),
		Last: listed.Last, More: listed.More,
	}, nil
}
