package opsmanager

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
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

const (
	// itemsPerPage is the most that current versions give; 3.6 and 4.0 give
	// 100, whatever is asked for.
	itemsPerPage = 500
	// maxPages ends a listing whose pages never end.
	maxPages = 1000
)

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
	r, err := c.request(http.MethodGet, "/groups/%s/clusters/%s", projectID, clusterID)
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
	var clusters []Cluster
	seen := map[string]bool{}
	for page := 1; page <= maxPages; page++ {
		r, err := c.request(http.MethodGet, "/groups/%s/clusters", projectID)
		if err != nil {
			return nil, err
		}
		r.query = url.Values{"pageNum": {strconv.Itoa(page)}, "itemsPerPage": {strconv.Itoa(itemsPerPage)}}
		var list clusterPage
		a, err := c.read(ctx, r, &list)
		if err != nil {
			return nil, err
		}
		if problem := list.problem(projectID); problem != "" {
			return nil, c.unexpected(r, a, problem)
		}
		before := len(clusters)
		for _, cluster := range list.Results {
			if !seen[cluster.ID] {
				seen[cluster.ID] = true
				clusters = append(clusters, cluster)
			}
		}
		if list.isLast(len(clusters)) || len(clusters) == before {
			if len(clusters) < list.TotalCount {
				return nil, c.unexpected(r, a, fmt.Sprintf("the list ends after %d of %d clusters", len(clusters), list.TotalCount))
			}
			return clusters, nil
		}
	}
	return nil, &Error{Kind: UnexpectedResponse, Method: http.MethodGet, Path: apiPath + "/groups/" + projectID + "/clusters", Detail: fmt.Sprintf("the list does not end within %d pages", maxPages)}
}

type clusterPage struct {
	Links []struct {
		Rel string `json:"rel"`
	} `json:"links"`
	Results    []Cluster `json:"results"`
	TotalCount int       `json:"totalCount"`
}

func (p clusterPage) problem(projectID string) string {
	if p.Results == nil {
		return "the answer holds no results"
	}
	for _, cluster := range p.Results {
		if !ValidID(cluster.ID) || !strings.EqualFold(cluster.GroupID, projectID) {
			return fmt.Sprintf("the list holds cluster %q of project %q", cluster.ID, cluster.GroupID)
		}
	}
	return ""
}

// isLast goes by the page's next link only to see whether there is one: its
// address is the server's own idea of itself.
func (p clusterPage) isLast(collected int) bool {
	if len(p.Results) == 0 {
		return true
	}
	for _, link := range p.Links {
		if link.Rel == "next" {
			return false
		}
	}
	return collected >= p.TotalCount
}
