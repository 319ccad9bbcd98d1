package opsmanager

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
)

// Statuses of a backup. The API's documentation names five; a server may send
// others, or none.
const (
	BackupInactive     = "INACTIVE"     // not backed up; an active parent may have inactive shards
	BackupProvisioning = "PROVISIONING" // being set up
	BackupStarted      = "STARTED"      // backed up
	BackupStopped      = "STOPPED"      // interrupted, with its snapshots
	BackupTerminating  = "TERMINATING"  // its snapshots are being deleted
)

// BackupConfig is the backup configuration of one component: a replica set, a
// shard, a config server, or the parent of a sharded cluster.
type BackupConfig struct {
	// ClusterID is in lower case. It may be none: see [ValidID].
	ClusterID string
	// StatusName is "" where the response does not say it. A shard may be
	// INACTIVE under a parent that is STARTED.
	StatusName string
	// EncryptionEnabled is nil where the response does not say it. It is about
	// head databases: it is false where the deployment encrypts its snapshots.
	EncryptionEnabled *bool
}

// BackupConfigs lists the backup configurations of a project, of every status,
// also those of clusters that Ops Manager does not list any more.
func (c *Client) BackupConfigs(ctx context.Context, projectID string) ([]BackupConfig, error) {
	r, err := c.request(http.MethodGet, "/groups/%s/backupConfigs", projectID)
	if err != nil {
		return nil, err
	}
	return listRecords(ctx, c, r, func(raw json.RawMessage) (BackupConfig, string) {
		o, _ := objectOf(raw)
		b := BackupConfig{ClusterID: strings.ToLower(o.text("clusterId")), StatusName: o.text("statusName"), EncryptionEnabled: o.flag("encryptionEnabled")}
		return b, b.ClusterID
	})
}
