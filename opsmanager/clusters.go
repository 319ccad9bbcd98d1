package opsmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Types of clusters. The API's documentation names these four; a server may send
// others.
const (
	// TypeReplicaSet is a replica set, or a shard of a sharded cluster.
	TypeReplicaSet = "REPLICA_SET"
	// TypeSharded is a sharded cluster whose shards are all standalone.
	TypeSharded = "SHARDED"
	// TypeShardedReplicaSet is a sharded cluster whose shards are replica sets.
	TypeShardedReplicaSet = "SHARDED_REPLICA_SET"
	// TypeConfigServerReplicaSet is the config server of a sharded cluster.
	TypeConfigServerReplicaSet = "CONFIG_SERVER_REPLICA_SET"
)

const clustersPath = "/groups/%s/clusters"

// Cluster is one entity of a project: a replica set, a shard, a config server
// replica set, or the parent of a sharded cluster. There is no parent id: the
// parts of a sharded cluster have its ClusterName.
type Cluster struct {
	// ID is the cluster's id, usually 24 hex digits (see [ValidID]).
	ID string `json:"id"`
	// GroupID is the id of its project.
	GroupID string `json:"groupId"`
	// ClusterName is the display name, which can be edited and need not be unique;
	// empty if there is none.
	ClusterName string `json:"clusterName"`
	// ShardName is the name of the shard; a sharded cluster's parent may have one,
	// too.
	ShardName string `json:"shardName"`
	// ReplicaSetName is the name in the replica set's configuration.
	ReplicaSetName string `json:"replicaSetName"`
	// TypeName is one of the types above, or another one.
	TypeName string `json:"typeName"`
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
		return Cluster{}, c.unexpected(r, a, fmt.Sprintf("the response is about cluster %q of project %q", cluster.ID, cluster.GroupID))
	}
	return cluster, nil
}

// Clusters lists all clusters of a project, whatever their type. A list of one
// page takes one request. A longer one is read until two consecutive passes
// agree, because an entry that is added or removed between two pages hides or
// repeats another one; if the list keeps changing, the error is Unavailable.
//
// An entry that cannot be rotated and has an odd id, project or form is left out.
// An entry that can be rotated is included even if its ID is not valid, so that
// it is not overlooked: every call refuses such an id.
func (c *Client) Clusters(ctx context.Context, projectID string) ([]Cluster, error) {
	listed, err := c.ClusterList(ctx, projectID)
	return listed.Clusters, err
}

// ClusterList is a list of all clusters of a project, and what it can be compared
// with later.
type ClusterList struct {
	// Clusters are those of [Client.Clusters].
	Clusters []Cluster
	// TotalCount is the number of entries by the server, also of those that
	// Clusters leaves out; 0 if the server names none.
	TotalCount int
	// OnePage: all entries came with one response.
	OnePage bool
}

// ClusterList is [Client.Clusters] with more to tell about the list.
func (c *Client) ClusterList(ctx context.Context, projectID string) (ClusterList, error) {
	r, err := c.request(http.MethodGet, clustersPath, projectID)
	if err != nil {
		return ClusterList{}, err
	}
	p, err := readList(ctx, c, r, readCluster(projectID))
	if err != nil {
		return ClusterList{}, err
	}
	return ClusterList{Clusters: p.items, TotalCount: p.total, OnePage: p.pages == 1}, nil
}

// CountClusters reads the TotalCount of a project's [ClusterList] by one request,
// whose response has one entry.
func (c *Client) CountClusters(ctx context.Context, projectID string) (int, error) {
	r, err := c.request(http.MethodGet, clustersPath, projectID)
	if err != nil {
		return 0, err
	}
	r.query = url.Values{"itemsPerPage": {"1"}}
	p, err := readPages(ctx, c, r, 1, readEntry)
	if err != nil {
		return 0, err
	}
	return p.total, nil
}

// readEntry is for a list of which only the total matters.
func readEntry(raw json.RawMessage) (struct{}, entry) {
	return struct{}{}, entry{key: string(raw), leftOut: true}
}

// FirstClusters reads the first page of [Client.Clusters] by one request: up to
// 500 clusters (100 in Ops Manager 3.6 and 4.0). all reports whether there are no
// others.
func (c *Client) FirstClusters(ctx context.Context, projectID string) (clusters []Cluster, all bool, err error) {
	r, err := c.request(http.MethodGet, clustersPath, projectID)
	if err != nil {
		return nil, false, err
	}
	return firstPage(ctx, c, r, readCluster(projectID))
}

// readCluster reads an entry of a project's list.
func readCluster(projectID string) func(json.RawMessage) (Cluster, entry) {
	return func(raw json.RawMessage) (Cluster, entry) {
		var c Cluster
		err := json.Unmarshal(raw, &c)
		e := entry{key: strings.ToLower(c.ID)}
		switch {
		case err == nil && ValidID(c.ID) && strings.EqualFold(c.GroupID, projectID):
		case !mayBeTarget(raw):
			e = entry{key: string(raw), leftOut: true}
		case err != nil:
			e.problem = "the list contains a cluster that is not the API's: " + err.Error()
		case !strings.EqualFold(c.GroupID, projectID):
			e.problem = fmt.Sprintf("the list contains cluster %q of project %q", c.ID, c.GroupID)
		default:
			e.key = fmt.Sprintf("%+q", []string{c.ID, c.TypeName, c.ClusterName, c.ShardName, c.ReplicaSetName})
		}
		return c, e
	}
}

// mayBeTarget reports whether an entry can be rotated, or is a part of what can
// be. It reads no more than that of an entry that may be odd in other fields.
func mayBeTarget(raw json.RawMessage) bool {
	var fields map[string]any
	if json.Unmarshal(raw, &fields) != nil {
		return false
	}
	switch fields["typeName"] {
	case TypeReplicaSet, TypeSharded, TypeShardedReplicaSet, TypeConfigServerReplicaSet:
		return true
	}
	shard, _ := fields["shardName"].(string)
	return shard != ""
}

// IsSharded reports whether the cluster is a sharded one as a whole.
func (c Cluster) IsSharded() bool {
	return c.TypeName == TypeSharded || c.TypeName == TypeShardedReplicaSet
}

// IsTopLevel reports whether the cluster is not a part of a sharded one. A cluster
// of an unknown type is top-level unless it names a shard.
func (c Cluster) IsTopLevel() bool {
	return c.IsSharded() || c.ShardName == "" && c.TypeName != TypeConfigServerReplicaSet
}
