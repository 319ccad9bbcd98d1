package opsmanager

import (
	"context"
	"encoding/json"
	"net/http"
)

// RestoreJob is one restore of a snapshot. Fields that the response leaves out,
// or that cannot be read, have the zero value.
type RestoreJob struct {
	// ID is Ops Manager's, or "".
	ID string
	// SnapshotID is that of the restored snapshot.
	SnapshotID string
	// StatusName is FINISHED, IN_PROGRESS, BROKEN or KILLED; a server may send
	// others.
	StatusName string
	// EncryptionEnabled is nil where the response does not say it.
	EncryptionEnabled *bool
	// KeyUUID is the master key that the restored data is encrypted with; "" =
	// the job names none that can be one.
	KeyUUID string
}

// HasEnded reports whether the job is known to do nothing more.
func (j RestoreJob) HasEnded() bool {
	switch j.StatusName {
	case "FINISHED", "BROKEN", "KILLED":
		return true
	}
	return false
}

// RestoreJobs lists all restore jobs of a cluster that Ops Manager still knows.
func (c *Client) RestoreJobs(ctx context.Context, projectID, clusterID string) ([]RestoreJob, error) {
	r, err := c.request(http.MethodGet, clustersPath+"/%s/restoreJobs", projectID, clusterID)
	if err != nil {
		return nil, err
	}
	return listRecords(ctx, c, r, func(raw json.RawMessage) (RestoreJob, string) {
		o, _ := objectOf(raw)
		j := RestoreJob{
			ID: o.text("id"), SnapshotID: o.text("snapshotId"), StatusName: o.text("statusName"),
			EncryptionEnabled: o.flag("encryptionEnabled"), KeyUUID: o.keyID("masterKeyUUID"),
		}
		return j, j.ID
	})
}
