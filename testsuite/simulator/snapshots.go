package simulator

import (
	"fmt"
	"slices"
	"time"
)

// Snapshot is one snapshot of a cluster. The answers leave out what is empty,
// nil or zero, as Ops Manager may.
type Snapshot struct {
	// ID is 24 hex digits; empty means that AddSnapshot makes one.
	ID string `json:"id"`
	// ClusterID is the cluster that the snapshot is listed under: of a sharded
	// cluster, the parent.
	ClusterID string `json:"clusterId"`
	// Created is the time of adding if it is zero.
	Created time.Time `json:"created"`
	// Expires is left out of the answers if it is zero, and if DoNotDelete is
	// set.
	Expires     time.Time `json:"expires,omitzero"`
	DoNotDelete bool      `json:"doNotDelete,omitempty"`
	// Running snapshots are not complete: completed=true leaves them out.
	Running bool `json:"running,omitempty"`
	// MissingShards are the names of shards that it lacks.
	MissingShards []string       `json:"missingShards,omitempty"`
	Parts         []SnapshotPart `json:"parts"`
}

// SnapshotPart is the snapshot of one replica set.
type SnapshotPart struct {
	ClusterID      string `json:"clusterId"`
	TypeName       string `json:"typeName"`
	ReplicaSetName string `json:"replicaSetName,omitempty"`
	// MachineID is host:port of the member that it was taken from.
	MachineID         string `json:"machineId,omitempty"`
	FCV               string `json:"fcv,omitempty"`
	EncryptionEnabled *bool  `json:"encryptionEnabled,omitempty"`
	MasterKeyUUID     string `json:"masterKeyUUID,omitempty"`
	// Completed is left out of the answers if it is zero.
	Completed time.Time `json:"completed,omitzero"`
}

// AddSnapshot adds a snapshot as it is. A cluster that has any shows these, and
// no longer those of getSnapshots. It panics if there is no such cluster.
func (s *Simulator) AddSnapshot(added Snapshot) Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustCluster(added.ClusterID)
	added = s.addSnapshot(added)
	s.mustSave()
	return added
}

// TakeSnapshot takes a snapshot of a cluster at a time, under the keys that its
// components have now. A zero expires means that it has no end. It panics if
// there is no such cluster.
func (s *Simulator) TakeSnapshot(clusterID string, at, expires time.Time) Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := Snapshot{ClusterID: clusterID, Created: at, Expires: expires}
	for _, part := range s.componentsOf(s.mustCluster(clusterID)) {
		key := part.keyAt(part.current())
		taken.Parts = append(taken.Parts, SnapshotPart{
			ClusterID: part.ID, TypeName: part.TypeName, ReplicaSetName: part.ReplicaSetName,
			EncryptionEnabled: new(key != ""), MasterKeyUUID: key,
		})
	}
	taken = s.addSnapshot(taken)
	s.mustSave()
	return taken
}

func (s *Simulator) addSnapshot(added Snapshot) Snapshot {
	if added.ID == "" {
		s.data.NextID++
		added.ID = fmt.Sprintf("5a000000%016x", s.data.NextID)
	}
	if added.Created.IsZero() {
		added.Created = time.Now()
	}
	if s.data.Snapshots == nil {
		s.data.Snapshots = map[string][]*Snapshot{}
	}
	s.data.Snapshots[added.ClusterID] = append(s.data.Snapshots[added.ClusterID], &added)
	return added
}

// RemoveSnapshot removes a snapshot, as Ops Manager does when it has expired.
func (s *Simulator) RemoveSnapshot(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for cluster, of := range s.data.Snapshots {
		s.data.Snapshots[cluster] = slices.DeleteFunc(of, func(other *Snapshot) bool { return other.ID == id })
	}
	s.mustSave()
}

// getSnapshots answers the snapshots that were added, the newest first. For a
// cluster without any, it answers one completed snapshot from before any
// rotation, under the keys of that time, and, once a component has been rotated,
// a newer one under the keys of now. A sharded cluster's snapshot has a part for
// each component.
func (s *Simulator) getSnapshots(c *call) answer {
	record, refused := s.backedUpCluster(c)
	if refused != nil {
		return *refused
	}
	s.advance(record.ProjectID)
	added, found := s.data.Snapshots[record.ID]
	if !found && !record.Automated {
		added = s.impliedSnapshots(record)
	}
	wanted := c.r.URL.Query().Get("completed")
	shown := slices.DeleteFunc(slices.Clone(added), func(one *Snapshot) bool {
		return wanted == "false" && !one.Running || wanted != "all" && wanted != "false" && one.Running
	})
	slices.SortStableFunc(shown, func(a, b *Snapshot) int { return b.Created.Compare(a.Created) })
	return page(c, shown, func(one *Snapshot) map[string]any { return s.snapshotBody(c, record, one) })
}

func (s *Simulator) impliedSnapshots(record *clusterRecord) []*Snapshot {
	parts := s.componentsOf(record)
	first := func(r *clusterRecord) int { return min(r.current(), 0) }
	implied := []*Snapshot{impliedSnapshot(record, 0, parts, first)}
	if anyRotated(parts) {
		implied = append(implied, impliedSnapshot(record, 1, parts, (*clusterRecord).current))
	}
	return implied
}

func (s *Simulator) componentsOf(record *clusterRecord) []*clusterRecord {
	if !record.IsParent() {
		return []*clusterRecord{record}
	}
	var parts []*clusterRecord
	for _, other := range s.data.clustersOf(record.ProjectID) {
		if other.ParentID == record.ID {
			parts = append(parts, other)
		}
	}
	return parts
}

func anyRotated(parts []*clusterRecord) bool {
	return slices.ContainsFunc(parts, func(part *clusterRecord) bool { return part.current() > 0 })
}

func impliedSnapshot(of *clusterRecord, number int, parts []*clusterRecord, place func(*clusterRecord) int) *Snapshot {
	implied := &Snapshot{
		// The cluster's id with another beginning: 24 hex digits of its own.
		ID: fmt.Sprintf("5a%02x%s", number, of.ID[4:]), ClusterID: of.ID,
		Created: of.LastHeartbeat.Add(time.Duration(number) * time.Second),
	}
	for _, part := range parts {
		key := part.keyAt(place(part))
		implied.Parts = append(implied.Parts, SnapshotPart{
			ClusterID: part.ID, TypeName: part.TypeName, ReplicaSetName: part.ReplicaSetName,
			EncryptionEnabled: new(key != ""), MasterKeyUUID: key,
		})
	}
	return implied
}

func (s *Simulator) snapshotBody(c *call, of *clusterRecord, one *Snapshot) map[string]any {
	parts := []map[string]any{}
	for _, part := range one.Parts {
		body := partBody(part)
		if !part.Completed.IsZero() {
			body["completedTime"] = s.exactTimestamp(of.ProjectID, part.Completed)
		}
		parts = append(parts, body)
	}
	path := "/groups/" + of.ProjectID + "/clusters/" + of.ID + "/snapshots/" + one.ID
	body := map[string]any{
		"id": one.ID, "clusterId": of.ID, "groupId": of.ProjectID,
		"complete": !one.Running, "doNotDelete": one.DoNotDelete, "parts": parts,
		"created": map[string]any{"date": s.exactTimestamp(of.ProjectID, one.Created), "increment": 1},
		"links":   []map[string]any{s.link(c, "self", path, nil)},
	}
	if !one.Expires.IsZero() && !one.DoNotDelete {
		body["expires"] = timestamp(one.Expires)
	}
	missing := []map[string]any{}
	for _, name := range one.MissingShards {
		missing = append(missing, map[string]any{"shardName": name, "groupId": of.ProjectID, "clusterName": of.ClusterName, "typeName": TypeReplicaSet})
	}
	if len(missing) > 0 {
		body["missingShards"] = missing
	}
	return body
}

func partBody(part SnapshotPart) map[string]any {
	body := map[string]any{
		"clusterId": part.ClusterID, "typeName": part.TypeName, "replicaState": "SECONDARY", "mongodVersion": "8.0.4",
		"dataSizeBytes": 17344, "storageSizeBytes": 10240, "fileSizeBytes": 10240,
	}
	addIfSet(body, "replicaSetName", part.ReplicaSetName)
	addIfSet(body, "machineId", part.MachineID)
	addIfSet(body, "fcv", part.FCV)
	addIfSet(body, "masterKeyUUID", part.MasterKeyUUID)
	if part.EncryptionEnabled != nil {
		body["encryptionEnabled"] = *part.EncryptionEnabled
	}
	return body
}
