package simulator

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// The type names that Ops Manager is known to use. A Cluster may have any other.
const (
	TypeReplicaSet             = "REPLICA_SET"
	TypeSharded                = "SHARDED" // all shards standalone
	TypeShardedReplicaSet      = "SHARDED_REPLICA_SET"
	TypeConfigServerReplicaSet = "CONFIG_SERVER_REPLICA_SET"
)

// Cluster is one entity of a project's list of clusters: a sharded cluster as a
// whole, one of its parts, or a replica set.
type Cluster struct {
	// ID is 24 hex digits; empty means that AddCluster makes one.
	ID string `json:"id"`
	// ProjectID is DefaultProjectID if it is empty; the project is made if
	// there is none.
	ProjectID string `json:"projectId"`
	// ClusterName is the display name, which the parts of a sharded cluster
	// share with it. Nothing keeps two clusters from having one name.
	ClusterName string `json:"clusterName"`
	// ShardName and ReplicaSetName are left out of the answers if empty.
	ShardName      string `json:"shardName,omitempty"`
	ReplicaSetName string `json:"replicaSetName,omitempty"`
	// TypeName is any string; empty means TypeReplicaSet.
	TypeName string `json:"typeName"`
	// ParentID is the sharded cluster that this is a part of, or empty. The API
	// never shows it: it joins the parts of a snapshot.
	ParentID string `json:"parentId,omitempty"`
	// LastHeartbeat is the time of adding if it is zero.
	LastHeartbeat time.Time `json:"lastHeartbeat"`
	// Versions are the MongoDB versions that GET /clusters shows; empty means
	// 8.0.4.
	Versions []string `json:"versions"`
	// Hidden entities are left out of lists, as one that hasn't pinged for days
	// is by old versions, but can be read by id.
	Hidden bool `json:"hidden,omitempty"`
	// Automated entities belong to a Deployment: their keys are those of its
	// processes, and they have none of their own.
	Automated bool `json:"automated,omitempty"`
	// EncryptionKeyUUID is the key that the entity has from the beginning, any
	// string; empty means a new one for TypeReplicaSet and
	// TypeConfigServerReplicaSet, and none for other types.
	EncryptionKeyUUID string `json:"-"`
}

// ShardedCluster has the IDs of a sharded cluster.
type ShardedCluster struct {
	// ID is the parent's, which has no key.
	ID, ProjectID, Name string
	// ShardIDs are those of the shards name-0, name-1 and so on.
	ShardIDs []string
	// ConfigID is the config server replica set's, name-config.
	ConfigID string
}

// TargetIDs are the ids that have a key: the shards' in order, then the config
// server's.
func (c ShardedCluster) TargetIDs() []string {
	return append(slices.Clone(c.ShardIDs), c.ConfigID)
}

// clusterRecord is an entity and all that belongs to it.
type clusterRecord struct {
	Cluster
	Config *BackupConfig `json:"backupConfig,omitempty"`
	// Keys is the history of keys, the current one last.
	Keys []heldKey `json:"keys"`

	// read is the latest place in Keys that a GET has shown, or -1.
	read int
}

// IsParent reports whether this is a sharded cluster as a whole, which a PUT
// must never name.
func (c *Cluster) IsParent() bool {
	return c.TypeName == TypeSharded || c.TypeName == TypeShardedReplicaSet
}

func (c *Cluster) isShard() bool {
	return c.TypeName == TypeReplicaSet && c.ShardName != ""
}

// IsTopLevel reports whether this is not a component of a sharded cluster.
func (c *Cluster) IsTopLevel() bool {
	return !c.isShard() && c.TypeName != TypeConfigServerReplicaSet
}

// AddCluster adds an entity as it is, with a started and encrypted backup, and
// returns it with what was filled in. It panics if the id is taken.
func (s *Simulator) AddCluster(c Cluster) Cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	added := s.addCluster(c)
	s.mustSave()
	return added
}

// AddReplicaSet adds a replica set that is no part of a sharded cluster; its
// replica set name is its display name.
func (s *Simulator) AddReplicaSet(projectID, name string) Cluster {
	return s.AddCluster(Cluster{
		ProjectID: projectID, ClusterName: name, ReplicaSetName: name, TypeName: TypeReplicaSet,
	})
}

// AddShardedCluster adds a sharded cluster: a parent without shardName, the
// given number of shards (name-0 and so on) and a config server replica set
// (name-config). Ids are counted, so that the same calls make the same ids.
func (s *Simulator) AddShardedCluster(projectID, name string, shards int) ShardedCluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	parent := s.addCluster(Cluster{ProjectID: projectID, ClusterName: name, TypeName: TypeShardedReplicaSet})
	part := Cluster{ProjectID: parent.ProjectID, ClusterName: name, ParentID: parent.ID}
	made := ShardedCluster{ID: parent.ID, ProjectID: parent.ProjectID, Name: name}
	for i := range shards {
		shard := part
		shard.TypeName = TypeReplicaSet
		shard.ShardName = name + "-" + strconv.Itoa(i)
		shard.ReplicaSetName = shard.ShardName
		made.ShardIDs = append(made.ShardIDs, s.addCluster(shard).ID)
	}
	part.TypeName = TypeConfigServerReplicaSet
	part.ReplicaSetName = name + "-config"
	made.ConfigID = s.addCluster(part).ID
	s.mustSave()
	return made
}

// Clusters gives every entity, hidden ones too, in the order of adding.
// EncryptionKeyUUID is empty in them: see Key.
func (s *Simulator) Clusters() []Cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	clusters := make([]Cluster, len(s.data.Clusters))
	for i, record := range s.data.Clusters {
		clusters[i] = record.Cluster
		clusters[i].EncryptionKeyUUID = ""
		clusters[i].Versions = slices.Clone(record.Versions)
	}
	return clusters
}

func (s *Simulator) addCluster(c Cluster) Cluster {
	c = s.fillIn(c)
	if s.data.cluster(c.ID) != nil {
		panic("simulator: there is a cluster " + c.ID + " already")
	}
	if s.data.project(c.ProjectID) == nil {
		s.data.putProject(Project{ID: c.ProjectID})
	}
	record := &clusterRecord{Cluster: c, Config: startedBackup(c), read: -1}
	if c.EncryptionKeyUUID != "" {
		record.Keys = []heldKey{{UUID: c.EncryptionKeyUUID}}
	}
	s.data.putCluster(record)
	return c
}

func (s *Simulator) fillIn(c Cluster) Cluster {
	if c.ID == "" {
		s.data.NextID++
		c.ID = fmt.Sprintf("65a1f1aa%016x", s.data.NextID)
	}
	if c.ProjectID == "" {
		c.ProjectID = DefaultProjectID
	}
	if c.TypeName == "" {
		c.TypeName = TypeReplicaSet
	}
	if c.LastHeartbeat.IsZero() {
		c.LastHeartbeat = time.Now()
	}
	c.Versions = slices.Clone(c.Versions)
	if len(c.Versions) == 0 {
		c.Versions = []string{"8.0.4"}
	}
	hasKey := !c.Automated && (c.TypeName == TypeReplicaSet || c.TypeName == TypeConfigServerReplicaSet)
	if c.EncryptionKeyUUID == "" && hasKey {
		made, err := s.options.NewKey()
		if err != nil {
			panic("simulator: the key of cluster " + c.ClusterName + " cannot be made: " + err.Error())
		}
		c.EncryptionKeyUUID = made
	}
	return c
}

// UpdateCluster changes an entity: its display name, the parent's shardName,
// whether lists show it. Its ID and ProjectID stay, its key is changed with
// SetKey. It panics if there is no such entity.
func (s *Simulator) UpdateCluster(clusterID string, change func(*Cluster)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	record := s.mustCluster(clusterID)
	changed := record.Cluster
	changed.Versions = slices.Clone(changed.Versions)
	change(&changed)
	changed.ID, changed.ProjectID = record.ID, record.ProjectID
	changed.Versions = slices.Clone(changed.Versions)
	record.Cluster = changed
	s.mustSave()
}

// RemoveCluster removes an entity with its key; what the ledger says of it
// stays. It panics if there is no such entity.
func (s *Simulator) RemoveCluster(clusterID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustCluster(clusterID)
	s.data.removeCluster(clusterID)
	s.mustSave()
}

func (s *Simulator) mustCluster(id string) *clusterRecord {
	record := s.data.cluster(id)
	if record == nil {
		panic("simulator: there is no cluster " + id)
	}
	return record
}

// clusterOf reads the path's cluster, in the path's project.
func (s *Simulator) clusterOf(c *call) (*clusterRecord, *answer) {
	if refused := s.checkProject(c); refused != nil {
		return nil, refused
	}
	id := c.route.clusterID
	if !idPattern.MatchString(id) {
		return nil, apiError(http.StatusNotFound, "INVALID_CLUSTER_ID", "An invalid cluster ID "+id+" was specified.", id)
	}
	record := s.data.cluster(id)
	if record == nil || record.ProjectID != c.route.projectID {
		return nil, apiError(http.StatusNotFound, "CLUSTER_NOT_FOUND",
			"No cluster with ID "+id+" exists in group "+c.route.projectID+".", id, c.route.projectID)
	}
	return record, nil
}

func (s *Simulator) getClusters(c *call) answer {
	if refused := s.checkProject(c); refused != nil {
		return *refused
	}
	listed := s.data.listed(c.route.projectID, func(*clusterRecord) bool { return true })
	return page(c, listed, func(record *clusterRecord) map[string]any { return s.clusterBody(c, record) })
}

func (s *Simulator) getCluster(c *call) answer {
	record, refused := s.clusterOf(c)
	if refused != nil {
		return *refused
	}
	return object(http.StatusOK, s.clusterBody(c, record))
}

func (s *Simulator) clusterBody(c *call, record *clusterRecord) map[string]any {
	path := "/groups/" + record.ProjectID + "/clusters/" + record.ID
	body := map[string]any{
		"id": record.ID, "groupId": record.ProjectID,
		"clusterName": record.ClusterName, "typeName": record.TypeName,
		"lastHeartbeat": timestamp(record.LastHeartbeat),
		"links":         []map[string]any{s.link(c, "self", path, nil)},
	}
	addIfSet(body, "shardName", record.ShardName)
	addIfSet(body, "replicaSetName", record.ReplicaSetName)
	return body
}

func addIfSet(body map[string]any, name, value string) {
	if value != "" {
		body[name] = value
	}
}

func timestamp(t time.Time) string {
	return t.UTC().Format(time.RFC3339)
}
