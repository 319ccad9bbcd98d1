package simulator

import (
	"net/http"
	"slices"
)

// The states of a backup.
const (
	StatusInactive     = "INACTIVE"
	StatusProvisioning = "PROVISIONING"
	StatusStarted      = "STARTED"
	StatusStopped      = "STOPPED"
	StatusTerminating  = "TERMINATING"
)

// BackupConfig is a component's backup configuration. The answers leave out
// what is empty or nil, as Ops Manager may leave out all but the ids.
type BackupConfig struct {
	ClusterID string `json:"clusterId"`
	// ProjectID is filled in by SetBackupConfig.
	ProjectID         string `json:"groupId"`
	StatusName        string `json:"statusName,omitempty"`
	StorageEngineName string `json:"storageEngineName,omitempty"`
	EncryptionEnabled *bool  `json:"encryptionEnabled,omitempty"`
	SSLEnabled        *bool  `json:"sslEnabled,omitempty"`
	// ExcludedNamespaces is shown when it is not nil, be it empty.
	ExcludedNamespaces []string `json:"excludedNamespaces,omitzero"`
}

// startedBackup is that of an entity. Its encryption is that of head databases,
// which a deployment of today has none of.
func startedBackup(c Cluster) *BackupConfig {
	return &BackupConfig{
		ClusterID: c.ID, ProjectID: c.ProjectID, StatusName: StatusStarted, StorageEngineName: "WIRED_TIGER",
		EncryptionEnabled: new(!c.Automated), SSLEnabled: new(true), ExcludedNamespaces: []string{},
	}
}

func (b *BackupConfig) clone() *BackupConfig {
	copied := *b
	copied.ExcludedNamespaces = slices.Clone(b.ExcludedNamespaces)
	if b.EncryptionEnabled != nil {
		copied.EncryptionEnabled = new(*b.EncryptionEnabled)
	}
	if b.SSLEnabled != nil {
		copied.SSLEnabled = new(*b.SSLEnabled)
	}
	return &copied
}

func (b *BackupConfig) encryptionIsOff() bool {
	return b.EncryptionEnabled != nil && !*b.EncryptionEnabled
}

// SetBackupConfig replaces the backup configuration of the entity b.ClusterID.
// The status has no influence on the key: what it would have is undocumented.
// It panics if there is no such entity.
func (s *Simulator) SetBackupConfig(b BackupConfig) {
	s.mu.Lock()
	defer s.mu.Unlock()
	record := s.mustCluster(b.ClusterID)
	record.Config = b.clone()
	record.Config.ProjectID = record.ProjectID
	s.mustSave()
}

// RemoveBackupConfig leaves an entity without backup: its configuration and its
// key are answered with 404 BACKUP_CONFIG_NOT_FOUND. It panics if there is no
// such entity.
func (s *Simulator) RemoveBackupConfig(clusterID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustCluster(clusterID).Config = nil
	s.mustSave()
}

// DisableEncryption leaves an entity with a backup that isn't encrypted: no key
// is shown, and a PUT is accepted and changes nothing. It panics if there is no
// such entity, or if that has no backup configuration.
func (s *Simulator) DisableEncryption(clusterID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	record := s.mustCluster(clusterID)
	if record.Config == nil {
		panic("simulator: cluster " + clusterID + " has no backup configuration")
	}
	record.Config.EncryptionEnabled = new(false)
	record.Keys, record.read = nil, -1
	s.mustSave()
}

func (s *Simulator) getBackupConfigs(c *call) answer {
	if refused := s.checkProject(c); refused != nil {
		return *refused
	}
	// A hidden cluster has a backup all the same.
	configured := slices.DeleteFunc(s.data.clustersOf(c.route.projectID), func(record *clusterRecord) bool { return record.Config == nil })
	return page(c, configured, func(record *clusterRecord) map[string]any { return s.backupConfigBody(c, record.Config) })
}

func (s *Simulator) getBackupConfig(c *call) answer {
	record, refused := s.backedUpCluster(c)
	if refused != nil {
		return *refused
	}
	return object(http.StatusOK, s.backupConfigBody(c, record.Config))
}

// backedUpCluster reads the path's cluster, which must have a backup.
func (s *Simulator) backedUpCluster(c *call) (*clusterRecord, *answer) {
	record, refused := s.clusterOf(c)
	if refused != nil {
		return nil, refused
	}
	if record.Config == nil {
		return nil, noBackupConfig(c)
	}
	return record, nil
}

func noBackupConfig(c *call) *answer {
	return apiError(http.StatusNotFound, "BACKUP_CONFIG_NOT_FOUND",
		"No backup configuration exists for cluster "+c.route.clusterID+" in group "+c.route.projectID+".",
		c.route.clusterID, c.route.projectID)
}

func (s *Simulator) backupConfigBody(c *call, b *BackupConfig) map[string]any {
	path := "/groups/" + b.ProjectID + "/backupConfigs/" + b.ClusterID
	body := map[string]any{
		"groupId": b.ProjectID, "clusterId": b.ClusterID,
		"links": []map[string]any{s.link(c, "self", path, nil)},
	}
	addIfSet(body, "statusName", b.StatusName)
	addIfSet(body, "storageEngineName", b.StorageEngineName)
	if b.EncryptionEnabled != nil {
		body["encryptionEnabled"] = *b.EncryptionEnabled
	}
	if b.SSLEnabled != nil {
		body["sslEnabled"] = *b.SSLEnabled
	}
	if b.ExcludedNamespaces != nil {
		body["excludedNamespaces"] = slices.Clone(b.ExcludedNamespaces)
	}
	return body
}
