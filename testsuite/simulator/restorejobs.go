package simulator

import (
	"fmt"
	"time"
)

// RestoreJob is a restore of a snapshot. The answers leave out what is empty or
// nil.
type RestoreJob struct {
	// ID is 24 hex digits; empty means that AddRestoreJob makes one.
	ID string `json:"id"`
	// ClusterID is the cluster that the job is listed under.
	ClusterID  string `json:"clusterId"`
	SnapshotID string `json:"snapshotId,omitempty"`
	// StatusName is FINISHED, IN_PROGRESS, BROKEN, KILLED or any other string.
	StatusName        string    `json:"statusName,omitempty"`
	Created           time.Time `json:"created"`
	EncryptionEnabled *bool     `json:"encryptionEnabled,omitempty"`
	MasterKeyUUID     string    `json:"masterKeyUUID,omitempty"`
}

// AddRestoreJob adds a restore job. It panics if there is no such cluster.
func (s *Simulator) AddRestoreJob(added RestoreJob) RestoreJob {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustCluster(added.ClusterID)
	if added.ID == "" {
		s.data.NextID++
		added.ID = fmt.Sprintf("5b000000%016x", s.data.NextID)
	}
	if added.Created.IsZero() {
		added.Created = time.Now()
	}
	if s.data.RestoreJobs == nil {
		s.data.RestoreJobs = map[string][]*RestoreJob{}
	}
	s.data.RestoreJobs[added.ClusterID] = append(s.data.RestoreJobs[added.ClusterID], &added)
	s.mustSave()
	return added
}

func (s *Simulator) getRestoreJobs(c *call) answer {
	record, refused := s.backedUpCluster(c)
	if refused != nil {
		return *refused
	}
	return page(c, s.data.RestoreJobs[record.ID], func(job *RestoreJob) map[string]any {
		body := map[string]any{
			"id": job.ID, "clusterId": job.ClusterID, "groupId": record.ProjectID, "created": timestamp(job.Created),
			"links": []map[string]any{s.link(c, "self", "/groups/"+record.ProjectID+"/clusters/"+record.ID+"/restoreJobs/"+job.ID, nil)},
		}
		addIfSet(body, "snapshotId", job.SnapshotID)
		addIfSet(body, "statusName", job.StatusName)
		addIfSet(body, "masterKeyUUID", job.MasterKeyUUID)
		if job.EncryptionEnabled != nil {
			body["encryptionEnabled"] = *job.EncryptionEnabled
		}
		return body
	})
}
