package opsmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Host is a process that Ops Manager monitors. Fields that the response leaves out,
// or that cannot be read, have the zero value.
type Host struct {
	// ID is Ops Manager's ID of the process.
	ID string
	// ClusterID is that of the replica set or the sharded cluster's part.
	ClusterID string
	// Hostname and Port are where it listens.
	Hostname string
	Port     int64
	// TypeName is such as REPLICA_PRIMARY or SHARD_MONGOS.
	TypeName string
	// ReplicaSetName is empty for a process of none.
	ReplicaSetName string
	// ReplicaStateName is such as PRIMARY or SECONDARY.
	ReplicaStateName string
	// Version is that of MongoDB, such as "8.0.6-ent".
	Version string
	// LastPing is when the agent last reported the process.
	LastPing time.Time
	// LastRestart is when the process was last started.
	LastRestart time.Time
	// Deactivated processes are not monitored any more.
	Deactivated bool
}

const hostsPath = "/groups/%s/hosts"

// HostsPath returns the path of a project's monitored processes below the base URL,
// for messages.
func HostsPath(projectID string) string { return fmt.Sprintf(apiPath+hostsPath, projectID) }

// Hosts lists the monitored processes of a cluster, or with an empty clusterID of
// the project.
func (c *Client) Hosts(ctx context.Context, projectID, clusterID string) ([]Host, error) {
	r, err := c.request(http.MethodGet, hostsPath, projectID)
	if err != nil {
		return nil, err
	}
	if clusterID != "" {
		if !ValidID(clusterID) {
			return nil, invalidID(r.method, r.path)
		}
		r.query = url.Values{"clusterId": {clusterID}}
	}
	// Processes are heard of all the time, and restart while a list of several pages is
	// read: only what identifies them must be the same in two readings.
	latest := map[string]Host{}
	hosts, err := listRecords(ctx, c, r, func(raw json.RawMessage) (Host, string) {
		o, _ := objectOf(raw)
		h := Host{
			ID: o.text("id"), ClusterID: o.text("clusterId"), Hostname: o.text("hostname"),
			TypeName: o.text("typeName"), ReplicaSetName: o.text("replicaSetName"), ReplicaStateName: o.text("replicaStateName"),
			Version: o.text("version"), LastPing: o.time("lastPing"), LastRestart: o.time("lastRestart"),
		}
		h.Port, _ = o.integer("port")
		deactivated := o.flag("deactivated")
		h.Deactivated = deactivated != nil && *deactivated
		if h.ID == "" {
			return h, ""
		}
		latest[h.ID] = h
		return Host{ID: h.ID, ClusterID: h.ClusterID, Hostname: h.Hostname, Port: h.Port}, h.ID
	})
	if err != nil {
		return nil, err
	}
	for i, h := range hosts {
		if read, found := latest[h.ID]; found {
			hosts[i] = read
		}
	}
	return hosts, nil
}
