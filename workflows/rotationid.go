package workflows

import (
	"strings"

	"keyturn/opsmanager"
)

// ParseRotateClusterID takes a workflow's id apart that RotateClusterID made;
// false for any other.
func ParseRotateClusterID(id string) (connection, projectID, clusterID string, ok bool) {
	parts := strings.Split(id, ":")
	if len(parts) != 4 || !opsmanager.ValidID(parts[2]) || !opsmanager.ValidID(parts[3]) || RotateClusterID(parts[1], parts[2], parts[3]) != id {
		return "", "", "", false
	}
	return parts[1], parts[2], parts[3], true
}
