package activities

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"keyturn/internal/ellipsis"
	"keyturn/opsmanager"
)

const (
	// maxKeyPartsListed bounds the result of ListKeyClusters, in clusters and
	// parts; a cluster with more parts comes alone.
	maxKeyPartsListed = 3_000
	// maxKeyClusterName bounds a name in that result, in characters.
	maxKeyClusterName = 100
)

// ListKeyClustersInput names a project, by its Scope.
type ListKeyClustersInput struct {
	Scope
	// After is the id of the last cluster of the list before; "" = from the
	// beginning.
	After string `json:"after,omitempty"`
}

// ListKeyClustersResult has the project's clusters in the order of their ids.
type ListKeyClustersResult struct {
	// Clusters have about 3,000 parts in total at the most; a cluster with more
	// comes alone.
	Clusters []KeyCluster `json:"clusters"`
	// More: there are clusters after these.
	More bool `json:"more,omitempty"`
	// Total is how many clusters there are, whatever After is.
	Total int `json:"total"`
	// Reasons why the list is not complete.
	Reasons []IncompleteReason `json:"reasons"`
}

// KeyCluster is a top-level cluster that may have snapshots and keys.
type KeyCluster struct {
	// ClusterID is Ops Manager's, in lower case.
	ClusterID string `json:"clusterId"`
	// ClusterName is the display name, up to 100 characters; empty if it is not
	// known.
	ClusterName string `json:"clusterName,omitempty"`
	// Parts are the shards and the config server, or the replica set itself.
	Parts []KeyPart `json:"parts"`
	// Inactive: no backup of the cluster is in force, so that the keys that Ops
	// Manager shows for it are not.
	Inactive bool `json:"inactive,omitempty"`
	// NoBackup: the cluster has no backup configuration.
	NoBackup bool `json:"noBackup,omitempty"`
}

// KeyPart is a component that may have a key of its own: a shard, a config server
// or a replica set.
type KeyPart struct {
	// ClusterID is Ops Manager's ID of this part, in lower case.
	ClusterID string `json:"clusterId"`
	// ReplicaSet is its name, as snapshots name it; "" = not known.
	ReplicaSet string `json:"replicaSet,omitempty"`
	// Encrypted: its backup configuration says so.
	Encrypted bool `json:"encrypted,omitempty"`
}

// ListKeyClusters lists the clusters of a project from one listing of its clusters
// and one of its backup configurations, of every status. Clusters that only a
// backup configuration names are included. Transient errors are retried within
// the attempt.
func (a *Activities) ListKeyClusters(ctx context.Context, in ListKeyClustersInput) (ListKeyClustersResult, error) {
	ctx, at, err := a.startAttempt(ctx, in.Scope)
	if err != nil {
		return ListKeyClustersResult{}, err
	}
	defer at.finish()
	var clusters []opsmanager.Cluster
	var configs []opsmanager.BackupConfig
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return at.retryTransient(groupCtx, func() (err error) {
			clusters, err = at.client.Clusters(groupCtx, in.ProjectID)
			return err
		})
	})
	group.Go(func() error {
		return at.retryTransient(groupCtx, func() (err error) {
			configs, err = at.client.BackupConfigs(groupCtx, in.ProjectID)
			return err
		})
	})
	if err := group.Wait(); err != nil {
		return ListKeyClustersResult{}, at.failure(err)
	}
	return newKeyTopology(in.ProjectID, clusters, configs).page(in.After), nil
}

// keyTopology joins a project's clusters with their parts and backups.
type keyTopology struct {
	projectID string
	clusters  map[string]*KeyCluster // by id
	configs   map[string]opsmanager.BackupConfig
	reasons   []IncompleteReason
}

func newKeyTopology(projectID string, listed []opsmanager.Cluster, configs []opsmanager.BackupConfig) *keyTopology {
	t := &keyTopology{projectID: projectID, clusters: map[string]*KeyCluster{}, configs: map[string]opsmanager.BackupConfig{}}
	for _, config := range configs {
		if !opsmanager.ValidID(config.ClusterID) {
			t.incomplete(IncompleteNotListed, KeyCluster{}, "a backup configuration names no cluster id (%q)", config.ClusterID)
			continue
		}
		t.configs[config.ClusterID] = config
	}
	known := map[string]bool{}
	parents := map[string]*KeyCluster{} // sharded clusters by display name
	for _, c := range listed {
		if !opsmanager.ValidID(c.ID) {
			t.incomplete(IncompleteNotListed, KeyCluster{ClusterName: cmp.Or(c.ClusterName, c.ReplicaSetName)}, "Ops Manager lists a cluster whose id (%q) is not 24 hex digits", c.ID)
			continue
		}
		known[strings.ToLower(c.ID)] = true
		if !c.IsTopLevel() {
			continue
		}
		k := t.add(c.ID, cmp.Or(c.ClusterName, c.ReplicaSetName))
		if !c.IsSharded() {
			t.addPart(k, c.ID, c.ReplicaSetName)
		} else if parents[c.ClusterName] == nil {
			parents[c.ClusterName] = k
		}
	}
	for _, c := range listed {
		if c.IsTopLevel() || !opsmanager.ValidID(c.ID) {
			continue
		}
		name := cmp.Or(c.ReplicaSetName, c.ShardName)
		parent := parents[c.ClusterName]
		if parent == nil {
			parent = t.add(c.ID, cmp.Or(c.ClusterName, name))
			t.incomplete(IncompleteNotListed, *parent, "Ops Manager lists %s (%s) without its sharded cluster, whose snapshots cannot be read", name, c.TypeName)
		}
		t.addPart(parent, c.ID, name)
	}
	for _, id := range sortedKeys(t.configs) {
		if !known[id] {
			k := t.add(id, "")
			t.addPart(k, id, "")
			t.incomplete(IncompleteNotListed, *k, "Ops Manager has a backup configuration of this cluster (%s) and does not list the cluster; of a sharded one, its snapshots may be missing here",
				cmp.Or(t.configs[id].StatusName, "no status"))
		}
	}
	return t
}

func (t *keyTopology) add(id, name string) *KeyCluster {
	id = strings.ToLower(id)
	t.clusters[id] = &KeyCluster{ClusterID: id, ClusterName: ellipsis.Cut(name, maxKeyClusterName), Parts: []KeyPart{}}
	return t.clusters[id]
}

func (t *keyTopology) addPart(k *KeyCluster, id, replicaSet string) {
	id = strings.ToLower(id)
	encrypted := t.configs[id].EncryptionEnabled
	k.Parts = append(k.Parts, KeyPart{ClusterID: id, ReplicaSet: ellipsis.Cut(replicaSet, maxKeyClusterName), Encrypted: encrypted != nil && *encrypted})
}

// page is the list after a cluster, as far as one result has room for it.
func (t *keyTopology) page(after string) ListKeyClustersResult {
	result := ListKeyClustersResult{Clusters: []KeyCluster{}, Total: len(t.clusters), Reasons: []IncompleteReason{}}
	if after == "" {
		result.Reasons = append(result.Reasons, t.reasons...)
	}
	room := maxKeyPartsListed
	for _, id := range sortedKeys(t.clusters) {
		if id <= after {
			continue
		}
		k := t.clusters[id]
		t.judgeBackup(k)
		room -= 1 + len(k.Parts)
		if room < 0 && len(result.Clusters) > 0 {
			result.More = true
			break
		}
		result.Clusters = append(result.Clusters, *k)
	}
	return result
}

// judgeBackup says whether the cluster has a backup, and whether that is in force.
// A sharded cluster's own status counts: its shards may be INACTIVE under it.
func (t *keyTopology) judgeBackup(k *KeyCluster) {
	var statuses []string
	if own, found := t.configs[k.ClusterID]; found {
		statuses = append(statuses, own.StatusName)
	} else {
		for _, part := range k.Parts {
			if config, found := t.configs[part.ClusterID]; found {
				statuses = append(statuses, config.StatusName)
			}
		}
	}
	k.NoBackup = len(statuses) == 0
	// A status that is missing or unknown counts as one in force.
	k.Inactive = !slices.ContainsFunc(statuses, func(status string) bool {
		return status != opsmanager.BackupInactive && status != opsmanager.BackupTerminating
	})
}

// maxListReasons bounds the reasons of one listing of a project.
const maxListReasons = 100

func (t *keyTopology) incomplete(code IncompleteCode, k KeyCluster, format string, args ...any) {
	if len(t.reasons) < maxListReasons {
		t.reasons = append(t.reasons, IncompleteReason{
			Reason: code, ProjectID: t.projectID, ClusterID: k.ClusterID, ClusterName: k.ClusterName,
			Message: ellipsis.Cut(fmt.Sprintf(format, args...), maxReasonText),
		})
	}
}

func sortedKeys[V any](of map[string]V) []string {
	keys := make([]string, 0, len(of))
	for key := range of {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
