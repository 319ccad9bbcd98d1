package opsmanager

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// AutomationTopology is what keyturn uses of an automation configuration. It holds
// no secret.
type AutomationTopology struct {
	Processes       []AutomatedProcess        // all processes, also disabled ones
	ReplicaSets     []AutomatedReplicaSet     // shards and config servers, too
	ShardedClusters []AutomatedShardedCluster // which replica sets form one
}

// Types of an automated process.
const (
	ProcessMongod = "mongod" // a database process, which has a key
	ProcessMongos = "mongos" // a router, which has none
)

// AutomatedProcess is a process of an automation configuration.
type AutomatedProcess struct {
	// Name identifies the process in the configuration.
	Name string
	// Hostname is that of the process's machine.
	Hostname string
	// Port is 0 if the configuration has none.
	Port int64
	// TypeName is ProcessMongod, ProcessMongos or another one.
	TypeName string
	// Version is that of MongoDB, for example "8.0.6-ent"; empty if the
	// configuration has none.
	Version string
	// Disabled processes are shut down, and in ManualMode the agent changes none.
	Disabled   bool
	ManualMode bool
	// EncryptionEnabled is security.enableEncryption.
	EncryptionEnabled bool
	// KMIP: there are settings of a KMIP server, so that the master key is there.
	KMIP bool
	// KeyIdentifierPinned: the settings name a key, which a rotation would not
	// replace.
	KeyIdentifierPinned bool
	// LastRotation is lastKmipMasterKeyRotation as the configuration has it; "" = none.
	LastRotation string
}

// AutomatedReplicaSet is a replica set of an automation configuration.
type AutomatedReplicaSet struct {
	// ID is the replica set's name.
	ID string
	// Members are in the order of the configuration.
	Members []AutomatedMember
}

// AutomatedMember is a member of a replica set.
type AutomatedMember struct {
	// Process is the name of its process.
	Process string
	// ArbiterOnly members hold no data.
	ArbiterOnly bool
}

// AutomatedShardedCluster is a sharded cluster of an automation configuration.
type AutomatedShardedCluster struct {
	// Name is the cluster's.
	Name string
	// ConfigServer is the id of the config server's replica set.
	ConfigServer string
	// Shards are in the order of the configuration.
	Shards []AutomatedShard
}

// AutomatedShard is a shard of a sharded cluster.
type AutomatedShard struct {
	// Name is the shard's.
	Name string
	// ReplicaSet is the id of its replica set.
	ReplicaSet string
}

// configText has the fields that are used, each strictly of its type. Values whose
// mere presence matters, or that may have several forms, stay as they are.
type configText struct {
	Processes []struct {
		Name        string         `json:"name"`
		Hostname    string         `json:"hostname"`
		ProcessType string         `json:"processType"`
		Version     string         `json:"version"`
		Disabled    bool           `json:"disabled"`
		ManualMode  bool           `json:"manualMode"`
		Rotation    jsontext.Value `json:"lastKmipMasterKeyRotation"`
		Args        struct {
			Net struct {
				Port int64 `json:"port"`
			} `json:"net"`
			Security struct {
				EnableEncryption bool                      `json:"enableEncryption"`
				KMIP             map[string]jsontext.Value `json:"kmip"`
			} `json:"security"`
		} `json:"args2_6"`
	} `json:"processes"`
	ReplicaSets []struct {
		ID      string `json:"_id"`
		Members []struct {
			Host        string `json:"host"`
			ArbiterOnly bool   `json:"arbiterOnly"`
		} `json:"members"`
	} `json:"replicaSets"`
	Sharding []struct {
		Name                string `json:"name"`
		ConfigServerReplica string `json:"configServerReplica"`
		Shards              []struct {
			ID string `json:"_id"`
			RS string `json:"rs"`
		} `json:"shards"`
	} `json:"sharding"`
}

// Topology reads the processes, and how they belong together. It is an error if
// two processes have one name, or if a field that is used has another type; the
// error names the field and quotes no value.
func (a AutomationConfig) Topology() (AutomationTopology, error) {
	var text configText
	err := json.Unmarshal(bytes.TrimPrefix(a.get().text, byteOrderMark), &text, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return AutomationTopology{}, unexpectedField(err)
	}
	var topology AutomationTopology
	names := map[string]bool{}
	for i, p := range text.Processes {
		if p.Name == "" || names[p.Name] {
			return AutomationTopology{}, fmt.Errorf("process %d of the automation configuration has no unique name", i)
		}
		names[p.Name] = true
		kmip := p.Args.Security.KMIP
		topology.Processes = append(topology.Processes, AutomatedProcess{
			Name: p.Name, Hostname: p.Hostname, Port: p.Args.Net.Port, TypeName: p.ProcessType, Version: p.Version,
			Disabled: p.Disabled, ManualMode: p.ManualMode,
			EncryptionEnabled:   p.Args.Security.EnableEncryption,
			KMIP:                isSet(kmip["serverName"]),
			KeyIdentifierPinned: isSet(kmip["keyIdentifier"]),
			LastRotation:        textOf(p.Rotation),
		})
	}
	for _, rs := range text.ReplicaSets {
		found := AutomatedReplicaSet{ID: rs.ID}
		for _, m := range rs.Members {
			found.Members = append(found.Members, AutomatedMember{Process: m.Host, ArbiterOnly: m.ArbiterOnly})
		}
		topology.ReplicaSets = append(topology.ReplicaSets, found)
	}
	for _, s := range text.Sharding {
		found := AutomatedShardedCluster{Name: s.Name, ConfigServer: s.ConfigServerReplica}
		for _, shard := range s.Shards {
			found.Shards = append(found.Shards, AutomatedShard{Name: shard.ID, ReplicaSet: shard.RS})
		}
		topology.ShardedClusters = append(topology.ShardedClusters, found)
	}
	return topology, nil
}

// unexpectedField names the field. Its pointer has no names but those above.
func unexpectedField(err error) error {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		return fmt.Errorf("field %s of the automation configuration has an unexpected type", semantic.JSONPointer)
	}
	return errors.New("the automation configuration cannot be decoded")
}

// isSet reports whether a setting has a value, of whatever type.
func isSet(value jsontext.Value) bool {
	switch string(value) {
	case "", "null", `""`, "[]", "{}":
		return false
	}
	return true
}

// textOf is a string's text. A value of another type is as it stands, in short.
func textOf(value jsontext.Value) string {
	if !isSet(value) {
		return ""
	}
	var text string
	if json.Unmarshal(value, &text) != nil {
		text = string(value)
	}
	return printable(text)
}

// rotationLayouts are forms in which Ops Manager may write a time.
var rotationLayouts = []string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05"}

// ParseRotationTime reads the text of a lastKmipMasterKeyRotation: ISO 8601, or
// milliseconds since 1970. ok is false if it is no time.
func ParseRotationTime(text string) (at time.Time, ok bool) {
	for _, layout := range rotationLayouts {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), true
		}
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.UnixMilli(ms).UTC(), true
	}
	return time.Time{}, false
}
