package activities

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"keyturn/opsmanager"
)

// projectsAtATime is how many projects are listed at a time.
const projectsAtATime = 4

// ListClustersInput says which clusters are meant. The Scope's ProjectID is not
// used.
type ListClustersInput struct {
	Scope
	// ProjectIDs are the projects; none = every one that the key sees.
	ProjectIDs []string `json:"projectIds,omitempty"`
	// ClusterNames is a regular expression (RE2) on display names; empty =
	// all.
	ClusterNames string `json:"clusterNames,omitempty"`
	// After is the last cluster of the list before; nil = from the beginning.
	After *ClusterRef `json:"after,omitempty"`
	// Limit is how many clusters are given at the most.
	Limit int `json:"limit"`
	// Count asks how many clusters there are beyond the limit, too.
	Count bool `json:"count,omitempty"`
}

// ClusterRef names a top-level cluster.
type ClusterRef struct {
	ProjectID   string `json:"projectId"`
	ClusterID   string `json:"clusterId"`
	ClusterName string `json:"clusterName,omitempty"`
}

// ListClustersResult has the clusters in the order of their project's id and
// their own, which holds however often and how late the list is continued.
type ListClustersResult struct {
	Clusters []ClusterRef `json:"clusters"`
	// More tells that there are clusters after these.
	More bool `json:"more,omitempty"`
	// Total is set where it was asked for.
	Total int `json:"total,omitempty"`
}

// ListClusters lists top-level clusters over many projects: sharded ones as a
// whole, and replica sets that are not a part of one. Transient errors are
// retried within the attempt.
func (a *Activities) ListClusters(ctx context.Context, in ListClustersInput) (ListClustersResult, error) {
	names, err := regexp.Compile(in.ClusterNames)
	if err != nil {
		return ListClustersResult{}, permanent(ErrorInvalidInput, "clusterNames: %v", err)
	}
	ctx, at, err := a.begin(ctx, in.Scope)
	if err != nil {
		return ListClustersResult{}, err
	}
	defer at.end()
	listing := &fleetListing{at: at, in: in, names: names}
	result, err := listing.list(ctx)
	if err != nil {
		return ListClustersResult{}, at.failure(err)
	}
	return result, nil
}

type fleetListing struct {
	at    *attempt
	in    ListClustersInput
	names *regexp.Regexp
}

func (l *fleetListing) list(ctx context.Context) (ListClustersResult, error) {
	projects, err := l.projects(ctx)
	if err != nil {
		return ListClustersResult{}, err
	}
	var clusters []ClusterRef
	for first := 0; first < len(projects); first += projectsAtATime {
		if !l.in.Count && len(clusters) > l.in.Limit {
			break
		}
		some, err := l.clustersOf(ctx, projects[first:min(first+projectsAtATime, len(projects))])
		if err != nil {
			return ListClustersResult{}, err
		}
		clusters = append(clusters, some...)
	}
	result := ListClustersResult{Clusters: clusters[:min(len(clusters), l.in.Limit)], More: len(clusters) > l.in.Limit}
	if l.in.Count {
		result.Total = len(clusters)
	}
	return result, nil
}

// projects are those still to be listed, in the order of their ids.
func (l *fleetListing) projects(ctx context.Context) (ids []string, err error) {
	given := l.in.ProjectIDs
	if len(given) == 0 {
		err = l.at.persistently(ctx, func() error {
			given, err = l.at.client.Projects(ctx)
			return err
		})
	}
	for _, id := range given {
		if id = strings.ToLower(id); l.in.After == nil || id >= l.in.After.ProjectID {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), err
}

func (l *fleetListing) clustersOf(ctx context.Context, projects []string) ([]ClusterRef, error) {
	lists := make([][]ClusterRef, len(projects))
	group, groupCtx := errgroup.WithContext(ctx)
	for i, project := range projects {
		group.Go(func() (err error) {
			lists[i], err = l.clustersOfOne(groupCtx, project)
			return err
		})
	}
	err := group.Wait()
	return slices.Concat(lists...), err
}

func (l *fleetListing) clustersOfOne(ctx context.Context, project string) (refs []ClusterRef, err error) {
	var all []opsmanager.Cluster
	err = l.at.persistently(ctx, func() (err error) {
		all, err = l.at.client.Clusters(ctx, project)
		return err
	})
	if l.hasGone(err) {
		return nil, nil
	}
	for _, c := range all {
		ref := ClusterRef{ProjectID: project, ClusterID: strings.ToLower(c.ID), ClusterName: cmp.Or(c.ClusterName, c.ReplicaSetName, c.ID)}
		if c.IsTopLevel() && l.names.MatchString(ref.ClusterName) && l.isAfter(ref) {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b ClusterRef) int { return strings.Compare(a.ClusterID, b.ClusterID) })
	return refs, err
}

// hasGone tells of a project that was there a moment ago, and that nobody asked
// for by its id.
func (l *fleetListing) hasGone(err error) bool {
	apiError, ok := opsmanager.AsError(err)
	return ok && apiError.Kind == opsmanager.NotFound && len(l.in.ProjectIDs) == 0
}

func (l *fleetListing) isAfter(ref ClusterRef) bool {
	after := l.in.After
	return after == nil || ref.ProjectID > after.ProjectID || ref.ProjectID == after.ProjectID && ref.ClusterID > after.ClusterID
}
