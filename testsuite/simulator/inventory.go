package simulator

// getInventory is GET /clusters: the top-level clusters of every project, in a
// schema of its own.
func (s *Simulator) getInventory(c *call) answer {
	return page(c, s.visibleProjects(c, ""), s.inventoryOf)
}

func (s *Simulator) inventoryOf(p *Project) map[string]any {
	clusters := []map[string]any{}
	for _, record := range s.data.listed(p.ID, func(r *clusterRecord) bool { return r.IsTopLevel() }) {
		clusters = append(clusters, inventoryEntry(record))
	}
	return map[string]any{
		"groupId": p.ID, "groupName": p.Name, "tags": p.Tags, "clusters": clusters,
		"orgId": p.OrganizationID, "orgName": s.data.organization(p.OrganizationID).Name,
	}
}

func inventoryEntry(record *clusterRecord) map[string]any {
	return map[string]any{
		"clusterId": record.ID, "name": record.ClusterName, "type": inventoryType(record),
		"versions": record.Versions, "backupEnabled": record.Config != nil && record.Config.StatusName == StatusStarted,
		"availability": "available", "alertCount": 0, "authEnabled": true, "sslEnabled": true,
	}
}

func inventoryType(record *clusterRecord) string {
	switch {
	case record.IsParent():
		return "sharded cluster"
	case record.TypeName == TypeReplicaSet:
		return "replica set"
	}
	return "standalone"
}
