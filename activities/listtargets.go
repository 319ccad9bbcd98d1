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

// Roles of a target.
const (
	RoleShard        = "shard"
	RoleConfigServer = "configServer"
	RoleReplicaSet   = "replicaSet"
)

// Target is a backup with a key of its own: a shard, the config server of a
// sharded cluster, or a plain replica set.
type Target struct {
	ClusterID string `json:"clusterId"`
	Name      string `json:"name"`
	Role      string `json:"role"`
}

// ListTargetsInput names a sharded cluster or a plain replica set.
type ListTargetsInput struct {
	Scope
	ClusterID string `json:"clusterId"`
}

// ListTargetsResult has the shards in natural order of their names and the
// config server last.
type ListTargetsResult struct {
	ClusterName string   `json:"clusterName"`
	Targets     []Target `json:"targets"`
}

// ListTargets finds all that must be rotated of a cluster. Ops Manager links a
// sharded cluster's parts by nothing but their display name, so anything that
// leaves room for doubt is UnexpectedTopology.
func (a *Activities) ListTargets(ctx context.Context, in ListTargetsInput) (ListTargetsResult, error) {
	ctx, at, err := a.begin(ctx, in.Scope)
	if err != nil {
		return ListTargetsResult{}, err
	}
	defer at.end()
	var cluster opsmanager.Cluster
	var all []opsmanager.Cluster
	err = at.patiently(ctx, func() (err error) {
		cluster, all, err = find(ctx, at.client, in.ProjectID, in.ClusterID)
		return err
	})
	switch {
	case err != nil:
		return ListTargetsResult{}, at.failure(err)
	case !cluster.IsSharded():
		return onlyTarget(cluster)
	default:
		return targetsOf(cluster, all)
	}
}

// find gives a cluster and, if it is a sharded one, all clusters of its project.
// Most projects fit on the first page, so that one request is all it takes.
func find(ctx context.Context, client *opsmanager.Client, projectID, clusterID string) (cluster opsmanager.Cluster, all []opsmanager.Cluster, err error) {
	all, complete, err := client.FirstClusters(ctx, projectID)
	if err != nil {
		return cluster, nil, err
	}
	at := slices.IndexFunc(all, func(c opsmanager.Cluster) bool { return strings.EqualFold(c.ID, clusterID) })
	if at >= 0 {
		cluster = all[at]
	} else if cluster, err = client.Cluster(ctx, projectID, clusterID); err != nil {
		return cluster, nil, err
	}
	if cluster.IsSharded() && !complete {
		all, err = client.Clusters(ctx, projectID)
	}
	return cluster, all, err
}

func unexpectedTopology(cluster opsmanager.Cluster, format string, args ...any) error {
	return permanent(ErrorUnexpectedTopology, "cluster %q (%s, %s): %s; nothing was rotated: compare the project's deployment in Ops Manager",
		cluster.ClusterName, cluster.ID, cluster.TypeName, fmt.Sprintf(format, args...))
}

// onlyTarget is a plain replica set; a part of a sharded cluster is refused.
func onlyTarget(c opsmanager.Cluster) (ListTargetsResult, error) {
	switch {
	case c.TypeName != opsmanager.TypeReplicaSet:
		return ListTargetsResult{}, unexpectedTopology(c, "it is neither a sharded cluster nor a replica set")
	case c.ShardName != "":
		return ListTargetsResult{}, unexpectedTopology(c, "it is shard %q of a sharded cluster: give the sharded cluster's id", c.ShardName)
	}
	target := Target{ClusterID: c.ID, Name: cmp.Or(c.ReplicaSetName, c.ClusterName, c.ID), Role: RoleReplicaSet}
	return ListTargetsResult{ClusterName: cmp.Or(c.ClusterName, target.Name), Targets: []Target{target}}, nil
}

// targetsOf picks a sharded cluster's parts out of its project. A plain replica
// set may legally carry the same display name.
func targetsOf(parent opsmanager.Cluster, all []opsmanager.Cluster) (ListTargetsResult, error) {
	if parent.ClusterName == "" {
		return ListTargetsResult{}, unexpectedTopology(parent, "it has no display name, by which its parts could be found")
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
			oddShard = fmt.Sprintf("its shard %q is of the unknown type %q", c.ShardName, c.TypeName)
		case names[c.ShardName]:
			oddShard = fmt.Sprintf("two replica sets are its shard %q", c.ShardName)
		default:
			names[c.ShardName] = true
			shards = append(shards, Target{c.ID, c.ShardName, RoleShard})
		}
	}
	switch {
	case !listed:
		return ListTargetsResult{}, unexpectedTopology(parent, "the project's list of clusters leaves it out")
	case parents != 1:
		return ListTargetsResult{}, unexpectedTopology(parent, "%d sharded clusters of its name are listed, not one", parents)
	case oddShard != "":
		return ListTargetsResult{}, unexpectedTopology(parent, "%s", oddShard)
	case len(shards) == 0:
		return ListTargetsResult{}, unexpectedTopology(parent, "no shard of it is listed")
	case len(configServers) != 1:
		return ListTargetsResult{}, unexpectedTopology(parent, "%d config servers of it are listed, not one", len(configServers))
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
