package opsmanager_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
)

func readConfig(t *testing.T, text string) (opsmanager.AutomationConfig, error) {
	t.Helper()
	client, _ := serveConfig(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, text) })
	return client.AutomationConfig(t.Context(), anyID)
}

func TestTopology(t *testing.T) {
	config, err := readConfig(t, "\ufeff"+`{"version":12,"odd":[1.0,1e400],"processes":[
		{"name":"m-0","hostname":"h0","processType":"mongod","version":"8.0.4","x":1.0,"Name":"other","lastKmipMasterKeyRotation":"2026-01-02T03:04:05Z",
		 "args2_6":{"net":{"port":27017,"tls":{"mode":5}},"security":{"enableEncryption":true,"kmip":{"serverName":"k","port":"5696"}}}},
		{"name":"m-1","disabled":true,"manualMode":true,"lastKmipMasterKeyRotation":1767323045000,
		 "args2_6":{"security":{"enableEncryption":true,"kmip":{"serverName":["k"],"keyIdentifier":7}}}},
		{"name":"s-0","processType":"mongos","lastKmipMasterKeyRotation":null,"args2_6":null},
		{"name":"m-2","args2_6":{"security":{"enableEncryption":true,"encryptionKeyFile":"/k","kmip":{"keyIdentifier":""}}}}],
		"replicaSets":[{"_id":"rs0","members":[{"host":"m-0","_id":0},{"host":"m-1","arbiterOnly":true}]}],
		"sharding":[{"name":"orders","configServerReplica":"cfg","shards":[{"_id":"s0","rs":"rs0"}]}]}`)
	require.NoError(t, err)
	topology, err := config.Topology()
	require.NoError(t, err)
	assert.Equal(t, opsmanager.AutomationTopology{
		Processes: []opsmanager.AutomatedProcess{
			{Name: "m-0", Hostname: "h0", Port: 27017, TypeName: opsmanager.ProcessMongod, Version: "8.0.4", EncryptionEnabled: true, KMIP: true, LastRotation: "2026-01-02T03:04:05Z"},
			{Name: "m-1", Disabled: true, ManualMode: true, EncryptionEnabled: true, KMIP: true, KeyIdentifierPinned: true, LastRotation: "1767323045000"},
			{Name: "s-0", TypeName: opsmanager.ProcessMongos},
			{Name: "m-2", EncryptionEnabled: true},
		},
		ReplicaSets:     []opsmanager.AutomatedReplicaSet{{ID: "rs0", Members: []opsmanager.AutomatedMember{{Process: "m-0"}, {Process: "m-1", ArbiterOnly: true}}}},
		ShardedClusters: []opsmanager.AutomatedShardedCluster{{Name: "orders", ConfigServer: "cfg", Shards: []opsmanager.AutomatedShard{{Name: "s0", ReplicaSet: "rs0"}}}},
	}, topology)
}

func TestATopologyThatIsNotUnderstoodIsRefused(t *testing.T) {
	for text, mentions := range map[string]string{
		`{"version":1,"processes":[{"name":"` + configSecret + `","disabled":"yes"}]}`:                                "/processes/0/disabled",
		`{"version":1,"processes":[{"name":"a","args2_6":{"security":{"enableEncryption":"` + configSecret + `"}}}]}`: "/processes/0/args2_6/security/enableEncryption",
		`{"version":1,"processes":[{"name":"a","args2_6":{"security":{"kmip":"` + configSecret + `"}}}]}`:             "/processes/0/args2_6/security/kmip",
		`{"version":1,"processes":[{"name":"a","args2_6":{"net":{"port":1.5}}}]}`:                                     "/processes/0/args2_6/net/port",
		`{"version":1,"processes":[{"hostname":"` + configSecret + `"}]}`:                                             "process 0",
		`{"version":1,"processes":[{"name":"` + configSecret + `"},{"name":"` + configSecret + `"}]}`:                 "process 1",
		`{"version":1,"processes":[],"replicaSets":{"` + configSecret + `":1}}`:                                       "/replicaSets",
		`{"version":1,"processes":[],"sharding":[{"shards":[{"_id":1,"rs":"` + configSecret + `"}]}]}`:                "/sharding/0/shards/0/_id",
	} {
		config, err := readConfig(t, text)
		require.NoError(t, err)
		_, err = config.Topology()
		require.ErrorContains(t, err, mentions)
		assert.NotContains(t, err.Error(), configSecret)
	}
}

func TestParseRotationTime(t *testing.T) {
	want := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, text := range []string{"2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z", "2026-01-02T05:04:05+02:00", "2026-01-02T03:04:05.000+0000", "2026-01-02T03:04:05", "1767323045000", opsmanager.RotationTime(want.Add(time.Millisecond))} {
		at, ok := opsmanager.ParseRotationTime(text)
		assert.True(t, ok, text)
		assert.Equal(t, want, at, text)
	}
	for _, text := range []string{"", "soon", `{"$date":1}`} {
		_, ok := opsmanager.ParseRotationTime(text)
		assert.False(t, ok, text)
	}
}

func TestAutomationStatus(t *testing.T) {
	answer := ""
	client, _ := serveConfig(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, answer) })
	answer = `{"goalVersion":9,"processes":[
		{"name":"a","hostname":"h","lastGoalVersionAchieved":9,"plan":[],"errorCode":0},
		{"name":"b","lastGoalVersionAchieved":8,"plan":["Move",{"x":1}],"errorCode":null,"errorString":null},
		{"name":"c","lastGoalVersionAchieved":10,"errorCode":143,"errorString":"cannot\nstart"},
		{"name":"d","errorCode":"E"},
		{"name":"e","lastGoalVersionAchieved":"9"}]}`
	status, err := client.AutomationStatus(t.Context(), anyID)
	require.NoError(t, err)
	assert.EqualValues(t, 9, status.GoalVersion)
	assert.Equal(t, []opsmanager.ProcessStatus{
		{Name: "a", Hostname: "h", AchievedVersion: 9},
		{Name: "b", AchievedVersion: 8, Plan: []string{"Move", "?"}},
		{Name: "c", AchievedVersion: 10, ErrorCode: 143, ErrorText: "cannotstart"},
		{Name: "d", AchievedVersion: -1, ErrorCode: -1},
		{Name: "e", AchievedVersion: -1},
	}, status.Processes)
	var atGoal []bool
	for _, p := range status.Processes {
		atGoal = append(atGoal, p.IsAtGoal(9))
	}
	assert.Equal(t, []bool{true, false, false, false, false}, atGoal)
	for _, answer = range []string{`{}`, `{"goalVersion":"9","processes":[]}`, `{"goalVersion":9}`, `{"goalVersion":9,"processes":null}`, `{"goalVersion":9,"processes":{}}`, `{"goalVersion":9,"processes":[{}]}`, `{"goalVersion":9,"processes":[{"name":"a"},{"name":"a"}]}`, `{"goalVersion":9,"processes":[7]}`, `[]`, `<html>`} {
		_, err := client.AutomationStatus(t.Context(), anyID)
		requireError(t, err, opsmanager.UnexpectedResponse)
	}
}

func TestHostsAndEvents(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	client := listing(t, `{"id":"1","clusterId":"c","hostname":"h","port":27017,"typeName":"REPLICA_SECONDARY","replicaSetName":"rs","replicaStateName":"SECONDARY","version":"8.0.4","lastPing":"2026-01-02T03:04:05Z","lastRestart":"2026-01-02T03:04:05Z","deactivated":true}`,
		`{"id":"2","port":"x","lastPing":7}`)
	hosts, err := client.Hosts(t.Context(), anyID, anyID)
	require.NoError(t, err)
	assert.Equal(t, []opsmanager.Host{
		{ID: "1", ClusterID: "c", Hostname: "h", Port: 27017, TypeName: "REPLICA_SECONDARY", ReplicaSetName: "rs", ReplicaStateName: "SECONDARY", Version: "8.0.4", LastPing: at, LastRestart: at, Deactivated: true},
		{ID: "2"},
	}, hosts)
	_, err = client.Hosts(t.Context(), anyID, "../x")
	requireError(t, err, opsmanager.InvalidID)

	events, err := listing(t, `{"id":"1","eventTypeName":"AUTOMATION_CONFIG_PUBLISHED_AUDIT","created":"2026-01-02T03:04:05Z","username":"dana","remoteAddress":"10.0.0.1"}`, `{"id":"2","publicKey":"abc"}`, `{}`).
		Events(t.Context(), anyID, opsmanager.EventAutomationConfigPublished, at)
	require.NoError(t, err)
	require.Len(t, events, 3)
	assert.Equal(t, opsmanager.Event{ID: "1", TypeName: opsmanager.EventAutomationConfigPublished, Created: at, Username: "dana", RemoteAddress: "10.0.0.1"}, events[0])
	assert.Equal(t, []string{"dana", "abc", ""}, []string{events[0].Actor(), events[1].Actor(), events[2].Actor()})

	var query string
	asking, _ := serveConfig(t, func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.RawQuery
		_, _ = io.WriteString(w, `{"results":[],"totalCount":0}`)
	})
	_, err = asking.Events(t.Context(), anyID, opsmanager.EventAutomationConfigPublished, at)
	require.NoError(t, err)
	assert.Contains(t, query, "eventType=AUTOMATION_CONFIG_PUBLISHED_AUDIT")
	assert.Contains(t, query, "minDate=2026-01-02T03%3A04%3A05Z")
	_, err = asking.Hosts(t.Context(), anyID, "")
	require.NoError(t, err)
	assert.NotContains(t, query, "clusterId")
}

func TestControlledFeature(t *testing.T) {
	answer := ""
	client, _ := serveConfig(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, answer) })
	answer = `{"externalManagementSystem":{"name":"operator","version":"1"},"policies":[{"policy":"EXTERNALLY_MANAGED_LOCK","disabledParams":[]},{"policy":"DISABLE_SET_MONGOD_VERSION"}]}`
	feature, err := client.ControlledFeature(t.Context(), anyID)
	require.NoError(t, err)
	assert.Equal(t, opsmanager.ControlledFeature{System: "operator", Policies: []string{"EXTERNALLY_MANAGED_LOCK", "DISABLE_SET_MONGOD_VERSION"}}, feature)
	assert.True(t, feature.IsExternallyManaged())
	for _, answer = range []string{`{"policies":[],"externalManagementSystem":null}`, `{"policies":[{"policy":"DISABLE_SET_MONGOD_VERSION"}]}`} {
		feature, err = client.ControlledFeature(t.Context(), anyID)
		require.NoError(t, err)
		assert.False(t, feature.IsExternallyManaged())
	}
	for _, answer = range []string{`{}`, `{"policies":null}`, `{"policies":{}}`, `{"policies":[{}]}`, `{"policies":["x"]}`} {
		_, err = client.ControlledFeature(t.Context(), anyID)
		requireError(t, err, opsmanager.UnexpectedResponse)
	}
}
