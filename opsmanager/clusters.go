package opsmanager

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// Types of clusters. The API's documentation names four; a server may send
// others.
const (
	TypeReplicaSet             = "REPLICA_SET"
	TypeSharded                = "SHARDED" // all shards standalone
	TypeShardedReplicaSet      = "SHARDED_REPLICA_SET"
	TypeConfigServerReplicaSet = "CONFIG_SERVER_REPLICA_SET"
)

const clustersPath = "/groups/%s/clusters"

// Cluster is one entity of a project: a replica set, a shard, a config server
// replica set, or the parent of a sharded cluster. There is no parent id:
// a sharded cluster's parts share its ClusterName.
type Cluster struct {
	ID             string `json:"id"`
	GroupID        string `json:"groupId"`
	ClusterName    string `json:"clusterName"`
	ShardName      string `json:"shardName"`
	ReplicaSetName string `json:"replicaSetName"`
	TypeName       string `json:"typeName"`
}

// Cluster reads one cluster of a project.
func (c *Client) Cluster(ctx context.Context, projectID, clusterID string) (Cluster, error) {
	r, err := c.request(http.MethodGet, clustersPath+"/%s", projectID, clusterID)
	if err != nil {
		return Cluster{}, err
	}
	var cluster Cluster
	a, err := c.read(ctx, r, &cluster)
	if err != nil {
		return Cluster{}, err
	}
	if !strings.EqualFold(cluster.ID, clusterID) || !strings.EqualFold(cluster.GroupID, projectID) {
		return Cluster{}, c.unexpected(r, a, fmt.Sprintf("the answer is about cluster %q of project %q", cluster.ID, cluster.GroupID))
	}
	return cluster, nil
}

// Clusters lists all clusters of a project, whatever their type, over as many
// pages as there are. A list that ends before its totalCount is an error.
func (c *Client) Clusters(ctx context.Context, projectID string) ([]Cluster, error) {
	r, err := c.request(http.MethodGet, clustersPath, projectID)
	if err != nil {
		return nil, err
	}
	return list(ctx, c, r, checkCluster(projectID))
}

// FirstClusters is the first page of Clusters, by one request: up to 500, and
// whether these are all.
func (c *Client) FirstClusters(ctx context.Context, projectID string) (clusters []Cluster, all bool, err error) {
	r, err := c.request(http.MethodGet, clustersPath, projectID)
	if err != nil {
		return nil, false, err
	}
	return listPages(ctx, c, r, 1, checkCluster(projectID))
}

func checkCluster(projectID string) func(Cluster) (id, problem string) {
	return func(cluster Cluster) (id, problem string) {
		if !ValidID(cluster.ID) || !strings.EqualFold(cluster.GroupID, projectID) {
			problem = fmt.Sprintf("the list holds cluster %q of project %q", cluster.ID, cluster.GroupID)
		}
		return cluster.ID, problem
	}
}

// IsSharded tells a sharded cluster as a whole from its parts and from others.
func (c Cluster) IsSharded() bool {
	return c.TypeName == TypeSharded || c.TypeName == TypeShardedReplicaSet
}

// IsTopLevel tells a cluster of its own from the parts of a sharded one. One of
// an unknown type is taken for a cluster of its own unless it names a shard.
func (c Cluster) IsTopLevel() bool {
	return c.IsSharded() || c.ShardName == "" && c.TypeName != TypeConfigServerReplicaSet
}
