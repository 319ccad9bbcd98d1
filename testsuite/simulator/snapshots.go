package simulator

import "fmt"

// getSnapshots answers one completed snapshot from before any rotation, under
// the keys of that time, and, once a component has been rotated, a newer one
// before it, under the keys of now. A sharded cluster's snapshot has a part for
// each component.
func (s *Simulator) getSnapshots(c *call) answer {
	record, refused := s.backedUpCluster(c)
	if refused != nil {
		return *refused
	}
	parts := s.componentsOf(record)
	first := func(r *clusterRecord) int { return min(r.current(), 0) }
	snapshots := []map[string]any{snapshotBody(record, 0, parts, first)}
	if anyRotated(parts) {
		newer := snapshotBody(record, 1, parts, (*clusterRecord).current)
		snapshots = append([]map[string]any{newer}, snapshots...)
	}
	return page(c, snapshots, func(body map[string]any) map[string]any { return body })
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
	for _, part := range parts {
		if part.current() > 0 {
			return true
		}
	}
	return false
}

func snapshotBody(of *clusterRecord, number int, parts []*clusterRecord, place func(*clusterRecord) int) map[string]any {
	bodies := []map[string]any{}
	for _, part := range parts {
		bodies = append(bodies, partBody(part, part.keyAt(place(part))))
	}
	return map[string]any{
		// The cluster's id with another beginning: 24 hex digits of its own.
		"id": fmt.Sprintf("5a%02x%s", number, of.ID[4:]), "clusterId": of.ID, "groupId": of.ProjectID,
		"complete": true, "doNotDelete": false, "links": []any{},
		"created": map[string]any{"date": timestamp(of.LastHeartbeat), "increment": number + 1},
		"parts":   bodies,
	}
}

func partBody(part *clusterRecord, key string) map[string]any {
	body := map[string]any{
		"clusterId": part.ID, "typeName": part.TypeName,
		"replicaState": "SECONDARY", "encryptionEnabled": key != "",
		"dataSizeBytes": 17344, "storageSizeBytes": 10240, "fileSizeBytes": 10240,
	}
	addIfSet(body, "replicaSetName", part.ReplicaSetName)
	addIfSet(body, "masterKeyUUID", key)
	if len(part.Versions) > 0 {
		body["mongodVersion"] = part.Versions[0]
	}
	return body
}
