package activities

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/maruel/natural"

	"keyturn/opsmanager"
)

// Role is the part that a target plays in its cluster.
type Role string

// Roles of a target.
const (
	RoleShard        Role = "shard"        // one shard of a sharded cluster
	RoleConfigServer Role = "configServer" // the config server replica set of a sharded cluster
	RoleReplicaSet   Role = "replicaSet"   // a replica set that is not part of a sharded cluster
)

// Target is a backup with a key of its own: a shard, the config server of a
// sharded cluster, or a plain replica set.
type Target struct {
	ClusterID string `json:"clusterId"` // Ops Manager's ID of this part of the cluster, in lower case
	Name      string `json:"name"`      // the name of the shard or replica set
	Role      Role   `json:"role"`      // the part that it plays in the cluster
}

// ListTargetsInput names a sharded cluster or a plain replica set.
type ListTargetsInput struct {
	Scope
	// ClusterID is Ops Manager's ID of the cluster; required.
	ClusterID string `json:"clusterId"`
	// AllowShared permits a list of the project's clusters that this worker has
	// read for another activity within the last minute, if the project still has as
	// many clusters and shards, and if nothing is refused because of it. Without
	// it, the list is read afresh.
	AllowShared bool `json:"allowShared,omitempty"`
}

// ListTargetsResult has the shards in natural order of their names and the
// config server last.
type ListTargetsResult struct {
	// ClusterName is the display name.
	ClusterName string `json:"clusterName"`
	// Targets are one for a replica set, and at least two for a sharded cluster.
	Targets []Target `json:"targets"`
	// ServiceVersion is the version of the Ops Manager that listed them; zero if
	// it names none, and in results that were recorded before there was this field.
	ServiceVersion opsmanager.ServiceVersion `json:"serviceVersion,omitzero"`
	// Shared: the targets are from a list that was read before the activity
	// started. Before anything is refused because of them, list them without
	// AllowShared.
	Shared bool `json:"shared,omitempty"`
	// SendsEvents: the worker that listed them has a receiver of events.
	SendsEvents bool `json:"sendsEvents,omitempty"`
}

// maxRecentLists is how many lists that others have read are tried.
const maxRecentLists = 2

// ListTargets finds all that must be rotated of a cluster. Ops Manager links a
// sharded cluster's parts by nothing but their display name, so anything that
// leaves room for doubt is UnexpectedTopology.
func (a *Activities) ListTargets(ctx context.Context, in ListTargetsInput) (ListTargetsResult, error) {
	ctx, at, err := a.startAttempt(ctx, in.Scope)
	if err != nil {
		return ListTargetsResult{}, err
	}
	defer at.finish()
	var listed ListTargetsResult
	err = at.retryRateLimited(ctx, func() (err error) {
		listed, err = a.findTargets(ctx, at, in)
		return err
	})
	switch {
	case isClusterGone(err):
		return ListTargetsResult{}, at.clusterGone(err)
	case err != nil:
		return ListTargetsResult{}, at.failure(err)
	}
	listed.ServiceVersion, listed.SendsEvents = at.client.ServiceVersion(), a.Events != nil
	return listed, nil
}

func (a *Activities) findTargets(ctx context.Context, at *attempt, in ListTargetsInput) (ListTargetsResult, error) {
	if in.AllowShared {
		listed, found, err := a.findTargetsInRecentList(ctx, at, in.ClusterID)
		if found || err != nil {
			return listed, err
		}
	}
	cluster, all, err := a.find(ctx, at, in.ClusterID)
	switch {
	case err != nil:
		return ListTargetsResult{}, err
	case cluster.IsSharded():
		return targetsOf(cluster, all)
	default:
		return onlyTarget(cluster)
	}
}

// findTargetsInRecentList finds nothing where a recent list would be a reason to
// refuse the cluster. Of a replica set, the list only says that it is one: reading
// it again takes no more than confirming the list. Where a list no longer matches
// the project, another activity may be reading it again.
func (a *Activities) findTargetsInRecentList(ctx context.Context, at *attempt, clusterID string) (listed ListTargetsResult, found bool, err error) {
	user := at.listUser(at.scope.ProjectID)
	for range maxRecentLists {
		last, err := a.lists.lastOf(ctx, user)
		if last == nil || err != nil {
			return listed, false, err
		}
		cluster, found := withID(last.Clusters, clusterID)
		switch {
		case !found:
			return listed, false, nil
		case !cluster.IsSharded():
			cluster, err = at.client.Cluster(ctx, at.scope.ProjectID, clusterID)
			if err != nil || cluster.IsSharded() {
				return listed, false, err
			}
			listed, err = onlyTarget(cluster)
			return listed, true, err
		}
		isRecent, err := a.lists.confirm(ctx, user, last)
		switch {
		case err != nil:
			return listed, false, err
		case isRecent:
			listed, err = targetsOf(cluster, last.Clusters)
			listed.Shared = true
			return listed, err == nil, nil
		}
	}
	return listed, false, nil
}

// isClusterGone reports whether Ops Manager's API says that it does not know a
// cluster or its project.
func isClusterGone(err error) bool {
	apiError, ok := opsmanager.AsError(err)
	return ok && apiError.Kind == opsmanager.NotFound && apiError.ErrorCode != "" && apiError.ErrorCode != codeNoResource
}

// clusterGone is the failure of an attempt where isClusterGone.
func (at *attempt) clusterGone(err error) error {
	apiError, _ := opsmanager.AsError(err)
	details := at.failureDetails(apiError)
	details.ClusterGone = true
	return finalFailureWith(apiError, "", details)
}

// find gives a cluster and, if it is a sharded one, all clusters of its project, as
// they are now. Most projects fit on the first page, so that one request is all it
// takes.
func (a *Activities) find(ctx context.Context, at *attempt, clusterID string) (cluster opsmanager.Cluster, all []opsmanager.Cluster, err error) {
	project, asked := at.scope.ProjectID, at.moment()
	all, complete, err := at.client.FirstClusters(ctx, project)
	if err != nil {
		return cluster, nil, err
	}
	cluster, found := withID(all, clusterID)
	if !found {
		if cluster, err = at.client.Cluster(ctx, project, clusterID); err != nil {
			return cluster, nil, err
		}
	}
	if cluster.IsSharded() && !complete {
		list, err := a.lists.readSince(ctx, at.listUser(project), asked)
		if err != nil {
			return cluster, nil, err
		}
		all = list.Clusters
	}
	return cluster, all, nil
}

func withID(clusters []opsmanager.Cluster, id string) (opsmanager.Cluster, bool) {
	i := slices.IndexFunc(clusters, func(c opsmanager.Cluster) bool { return strings.EqualFold(c.ID, id) })
	if i < 0 {
		return opsmanager.Cluster{}, false
	}
	return clusters[i], true
}

func unexpectedTopology(cluster opsmanager.Cluster, format string, args ...any) error {
	return permanent(ErrorUnexpectedTopology, "cluster %q (%s, %s): %s; nothing was rotated; check the project's deployment in Ops Manager",
		cluster.ClusterName, cluster.ID, cluster.TypeName, fmt.Sprintf(format, args...))
}

// onlyTarget is a plain replica set; a part of a sharded cluster is refused.
func onlyTarget(c opsmanager.Cluster) (ListTargetsResult, error) {
	switch {
	case c.TypeName != opsmanager.TypeReplicaSet:
		return ListTargetsResult{}, unexpectedTopology(c, "it is neither a sharded cluster nor a replica set")
	case c.ShardName != "":
		return ListTargetsResult{}, unexpectedTopology(c, "it is shard %q of a sharded cluster; use the ID of the sharded cluster, which keyturn clusters lists", c.ShardName)
	}
	target := Target{ClusterID: c.ID, Name: cmp.Or(c.ReplicaSetName, c.ClusterName, c.ID), Role: RoleReplicaSet}
	return ListTargetsResult{ClusterName: cmp.Or(c.ClusterName, target.Name), Targets: []Target{target}}, nil
}

// targetsOf picks a sharded cluster's parts out of its project. A plain replica
// set may legally carry the same display name.
func targetsOf(parent opsmanager.Cluster, all []opsmanager.Cluster) (ListTargetsResult, error) {
	if parent.ClusterName == "" {
		return ListTargetsResult{}, unexpectedTopology(parent, "it has no display name to find its shards by")
	}
	var parents int
	listed, oddShard := false, ""
	var shards, configServers []Target
	names := map[string]bool{}
	for _, c := range all {
		switch {
		case c.ClusterName != parent.ClusterName:
		case c.IsSharded():
			parents++
			listed = listed || strings.EqualFold(c.ID, parent.ID)
		case c.TypeName == opsmanager.TypeConfigServerReplicaSet:
			configServers = append(configServers, Target{c.ID, cmp.Or(c.ReplicaSetName, c.ClusterName), RoleConfigServer})
		case c.ShardName == "":
		case c.TypeName != opsmanager.TypeReplicaSet:
			oddShard = fmt.Sprintf("its shard %q has the unknown type %q", c.ShardName, c.TypeName)
		case names[c.ShardName]:
			oddShard = fmt.Sprintf("two replica sets have the shard name %q", c.ShardName)
		default:
			names[c.ShardName] = true
			shards = append(shards, Target{c.ID, c.ShardName, RoleShard})
		}
	}
	switch {
	case !listed:
		return ListTargetsResult{}, unexpectedTopology(parent, "it is missing from the project's cluster list")
	case parents != 1:
		return ListTargetsResult{}, unexpectedTopology(parent, "expected one sharded cluster of this name, found %d", parents)
	case oddShard != "":
		return ListTargetsResult{}, unexpectedTopology(parent, "%s", oddShard)
	case len(shards) == 0:
		return ListTargetsResult{}, unexpectedTopology(parent, "none of its shards is listed")
	case len(configServers) != 1:
		return ListTargetsResult{}, unexpectedTopology(parent, "expected one config server, found %d", len(configServers))
	}
	slices.SortFunc(shards, byNaturalOrder)
	return ListTargetsResult{ClusterName: parent.ClusterName, Targets: append(shards, configServers...)}, nil
}

func byNaturalOrder(a, b Target) int {
	switch {
	case natural.Less(a.Name, b.Name):
		return -1
	case natural.Less(b.Name, a.Name):
		return 1
	default:
		return strings.Compare(a.ClusterID, b.ClusterID)
	}
}
