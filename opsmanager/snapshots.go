package opsmanager

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Snapshot is one snapshot of a cluster. Fields that the response leaves out, or
// that cannot be read, have the zero value.
type Snapshot struct {
	// ID is Ops Manager's, or "".
	ID string
	// Incomplete: the response says that the snapshot is not finished.
	Incomplete bool
	// Created is when it was taken; zero = not said.
	Created time.Time
	// Expires is when Ops Manager will delete it; zero = no end is known.
	// A snapshot with DoNotDelete has no end, whatever Expires is.
	Expires     time.Time
	DoNotDelete bool
	// MissingShards names the shards that the snapshot lacks.
	MissingShards []string
	// Parts are the replica sets that the snapshot holds.
	Parts []SnapshotPart
	// Unreadable: the entry is no snapshot that can be read. What was read of it
	// is kept.
	Unreadable bool
}

// SnapshotPart is the snapshot of one replica set.
type SnapshotPart struct {
	// ClusterID is Ops Manager's ID of the part.
	ClusterID string
	// TypeName is such as REPLICA_SET or CONFIG_SERVER_REPLICA_SET.
	TypeName string
	// ReplicaSetName is the part's name.
	ReplicaSetName string
	// MachineID is host:port of the member that the snapshot was taken from;
	// Ops Manager names it since 8.0.2.
	MachineID string
	// FCV is the feature compatibility version of the database.
	FCV string
	// EncryptionEnabled is nil where the response does not say it.
	EncryptionEnabled *bool
	// KeyUUID is the master key that the part is encrypted with; "" = it names
	// none that can be one.
	KeyUUID string
}

// End is when the snapshot will be gone; ok is false where no end is known.
func (s Snapshot) End() (end time.Time, ok bool) {
	return s.Expires, !s.DoNotDelete && !s.Expires.IsZero()
}

// LacksKeyID reports whether the part may be encrypted and names no key.
func (p SnapshotPart) LacksKeyID() bool {
	return p.KeyUUID == "" && (p.EncryptionEnabled == nil || *p.EncryptionEnabled)
}

const (
	snapshotsPath = clustersPath + "/%s/snapshots"
	// partSize is more than one part of a snapshot takes in a response, in bytes.
	partSize = 1 << 10
)

// SnapshotsPath returns the path of a cluster's snapshots below the base URL, for
// messages.
func SnapshotsPath(projectID, clusterID string) string {
	return fmt.Sprintf(apiPath+snapshotsPath, projectID, clusterID)
}

// Snapshots lists all snapshots of a cluster, finished or not. A sharded cluster
// has them under its own id, with a part for each shard and the config server.
// parts is how many parts a snapshot is expected to have, so that a page stays
// well below what the client reads of one response.
func (c *Client) Snapshots(ctx context.Context, projectID, clusterID string, parts int) ([]Snapshot, error) {
	r, err := c.request(http.MethodGet, snapshotsPath, projectID, clusterID)
	if err != nil {
		return nil, err
	}
	perPage := min(max(maxBody/4/partSize/max(parts, 1), 1), itemsPerPage)
	r.query = url.Values{"completed": {"all"}, "itemsPerPage": {strconv.Itoa(perPage)}}
	return listRecords(ctx, c, r, decodeSnapshot)
}

func decodeSnapshot(raw json.RawMessage) (Snapshot, string) {
	o, isObject := objectOf(raw)
	s := Snapshot{ID: o.text("id"), Created: o.time("created"), Expires: o.time("expires")}
	if complete := o.flag("complete"); complete != nil {
		s.Incomplete = !*complete
	}
	// Anything but a plain false may mean that the snapshot is kept.
	keep := o.flag("doNotDelete")
	s.DoNotDelete = o.has("doNotDelete") && (keep == nil || *keep)
	missing, missingRead := o.list("missingShards")
	for _, shard := range missing {
		s.MissingShards = append(s.MissingShards, shardName(shard))
	}
	parts, partsRead := o.list("parts")
	s.Unreadable = !isObject || !partsRead || !missingRead
	for _, raw := range parts {
		part, isObject := objectOf(raw)
		s.Unreadable = s.Unreadable || !isObject
		if isObject {
			s.Parts = append(s.Parts, decodePart(part))
		}
	}
	return s, s.ID
}

func decodePart(o object) SnapshotPart {
	return SnapshotPart{
		ClusterID: strings.ToLower(o.text("clusterId")), TypeName: o.text("typeName"), ReplicaSetName: o.text("replicaSetName"),
		MachineID: o.text("machineId"), FCV: o.text("fcv"), EncryptionEnabled: o.flag("encryptionEnabled"), KeyUUID: o.keyID("masterKeyUUID"),
	}
}

// shardName is the name of an entry of missingShards, an object or a string.
func shardName(raw json.RawMessage) string {
	o, _ := objectOf(raw)
	var name string
	_ = json.Unmarshal(raw, &name)
	return cmp.Or(o.text("shardName"), o.text("replicaSetName"), printable(name), o.text("clusterId"), o.text("id"), "a shard without a name")
}
