package simulator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
)

// deployed is a deployment, and the product's client of it.
type deployed struct {
	*simulator.Deployment
	t      *testing.T
	om     *simulator.Server
	client *opsmanager.Client
}

func deploy(t *testing.T, o simulator.DeploymentOptions, more ...simulator.Options) deployed {
	t.Helper()
	var options simulator.Options
	if len(more) > 0 {
		options = more[0]
	}
	om := simulator.Start(t, options)
	if o.Clusters == nil {
		o.Clusters = []simulator.DeployedCluster{{Name: "orders", Shards: 2, Mongos: 1}, {Name: "audit", Arbiters: 1}}
	}
	return deployed{om.AddDeployment(o), t, om, productClient(t, om, 20*time.Second)}
}

func productClient(t *testing.T, om *simulator.Server, timeout time.Duration) *opsmanager.Client {
	t.Helper()
	client, err := opsmanager.New(opsmanager.Config{BaseURL: om.URL, PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey, RequestTimeout: timeout})
	require.NoError(t, err)
	return client
}

// read is what a rotation reads before it publishes.
func (d deployed) read() opsmanager.AutomationConfig {
	d.t.Helper()
	config, err := d.client.AutomationConfig(d.t.Context(), d.ProjectID)
	require.NoError(d.t, err)
	return config
}

// rotate publishes a time for processes.
func (d deployed) rotate(at time.Time, processes ...string) error {
	d.t.Helper()
	changed, err := d.read().WithRotationTime(processes, at)
	require.NoError(d.t, err)
	return d.client.PutAutomationConfig(d.t.Context(), d.ProjectID, changed, nil)
}

func (d deployed) status() opsmanager.AutomationStatus {
	d.t.Helper()
	status, err := d.client.AutomationStatus(d.t.Context(), d.ProjectID)
	require.NoError(d.t, err)
	return status
}

func (d deployed) process(name string) opsmanager.ProcessStatus {
	d.t.Helper()
	for _, p := range d.status().Processes {
		if p.Name == name {
			return p
		}
	}
	require.Fail(d.t, "no process "+name)
	return opsmanager.ProcessStatus{}
}

func (d deployed) hosts(clusterID string) map[string]opsmanager.Host {
	d.t.Helper()
	hosts, err := d.client.Hosts(d.t.Context(), d.ProjectID, clusterID)
	require.NoError(d.t, err)
	byName := map[string]opsmanager.Host{}
	for _, h := range hosts {
		byName[fmt.Sprintf("%s:%d", h.Hostname, h.Port)] = h
	}
	return byName
}

// await waits until the ledger has so many new keys.
func (d deployed) await(rotations int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(d.t, d.om.Await(ctx, func(l simulator.Ledger) bool {
		return len(l.MemberRotationsOf(d.ProjectID, "")) >= rotations
	}))
}

func (d deployed) order() (processes []string) {
	for _, r := range d.Rotations("") {
		processes = append(processes, r.Process)
	}
	return processes
}

func TestADeploymentIsWhatTheClientReads(t *testing.T) {
	d := deploy(t, simulator.DeploymentOptions{})
	config := d.read()
	assert.True(t, config.HasNoSecrets())
	assert.EqualValues(t, d.Version(), config.Version())
	topology, err := config.Topology()
	require.NoError(t, err)
	require.Len(t, topology.Processes, 2*3+3+1+4)
	first := topology.Processes[0]
	assert.Equal(t, "orders-0-0", first.Name)
	assert.True(t, first.EncryptionEnabled)
	assert.True(t, first.KMIP)
	assert.False(t, first.KeyIdentifierPinned)
	assert.Empty(t, first.LastRotation)
	assert.Equal(t, "2025-06-01T03:00:00Z", topology.Processes[1].LastRotation)
	assert.Equal(t, []opsmanager.AutomatedShardedCluster{{Name: "orders", ConfigServer: "orders-config", Shards: []opsmanager.AutomatedShard{{Name: "orders-0", ReplicaSet: "orders-0"}, {Name: "orders-1", ReplicaSet: "orders-1"}}}}, topology.ShardedClusters)
	require.Len(t, topology.ReplicaSets, 4)
	assert.Equal(t, opsmanager.AutomatedMember{Process: "audit-3", ArbiterOnly: true}, topology.ReplicaSets[3].Members[3])

	status := d.status()
	assert.Equal(t, config.Version(), status.GoalVersion)
	require.Len(t, status.Processes, len(topology.Processes))
	for _, p := range status.Processes {
		assert.True(t, p.IsAtGoal(status.GoalVersion), p.Name)
	}

	clusters, err := d.client.Clusters(t.Context(), d.ProjectID)
	require.NoError(t, err)
	assert.Len(t, clusters, 1+2+1+1)
	hosts := d.hosts("")
	require.Len(t, hosts, len(topology.Processes))
	for _, p := range d.Processes() {
		h := hosts[p.Host]
		assert.Equal(t, p.ReplicaSet, h.ReplicaSetName)
		assert.WithinDuration(t, time.Now(), h.LastPing, time.Minute)
	}
	assert.Equal(t, "PRIMARY", hosts[d.Process("orders-0-0").Host].ReplicaStateName)
	assert.Len(t, d.hosts(d.Process("orders-0-0").ClusterID), 3)
	assert.Len(t, d.hosts(d.ClusterIDs[0]), 10)

	feature, err := d.client.ControlledFeature(t.Context(), d.ProjectID)
	require.NoError(t, err)
	assert.False(t, feature.IsExternallyManaged())

	snapshots, err := d.client.Snapshots(t.Context(), d.ProjectID, d.ClusterIDs[0], 3)
	require.NoError(t, err)
	require.Len(t, snapshots, 1)
	require.Len(t, snapshots[0].Parts, 3)
	assert.Equal(t, d.Process("orders-1-2").Host, snapshots[0].Parts[1].MachineID)
	assert.Equal(t, d.Process("orders-1-2").Key, snapshots[0].Parts[1].KeyUUID)
}

// The whole of a rotation: published, restarted one by one with the primary last,
// and shown by a snapshot.
func TestARotationOfADeployment(t *testing.T) {
	for name, o := range map[string]simulator.DeploymentOptions{
		"noSecrets": {}, "secrets": {WithoutNoSecrets: true}, "3 MB": {DocumentSize: 3 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			o.MemberTime = 5 * time.Millisecond
			d := deploy(t, o)
			before := d.Text()
			set := d.Members("orders-0")
			at := time.Now().Truncate(time.Second)
			require.NoError(t, d.rotate(at, set...))
			d.await(3)
			assert.Equal(t, []string{"orders-0-1", "orders-0-2", "orders-0-0"}, d.order())
			for _, p := range d.status().Processes {
				assert.True(t, p.IsAtGoal(d.Version()), p.Name)
			}
			hosts := d.hosts("")
			for _, p := range d.Processes() {
				assert.Equal(t, p.ReplicaSet == "orders-0", hosts[p.Host].LastRestart.After(at), p.Name)
				if rotations := d.Rotations(p.Name); p.ReplicaSet == "orders-0" {
					require.Len(t, rotations, 1)
					assert.Equal(t, p.Key, rotations[0].NewKey)
					assert.NotEqual(t, p.Key, rotations[0].PreviousKey)
				} else {
					assert.Empty(t, rotations)
				}
			}
			assert.Equal(t, "SECONDARY", hosts[d.Process("orders-0-0").Host].ReplicaStateName, "another one was elected")

			require.Len(t, d.Puts(), 1)
			put := d.Puts()[0]
			assert.True(t, put.Applied)
			assert.Equal(t, o.WithoutNoSecrets, !put.NoSecrets)
			assert.Equal(t, simulator.DefaultPublicKey, put.By)
			assert.Equal(t, put.VersionBefore+1, put.VersionAfter)
			assert.Empty(t, put.Changes)
			assert.Empty(t, put.Overwrote)
			value := `"` + opsmanager.RotationTime(at) + `"`
			assert.Equal(t, []simulator.RotationChange{
				{Process: "orders-0-0", After: value}, {Process: "orders-0-1", Before: `"2025-06-01T03:00:00Z"`, After: value}, {Process: "orders-0-2", After: value},
			}, put.Rotations)

			// What the project has now is what it had, but for the times and the version.
			after := d.Text()
			member := `"lastKmipMasterKeyRotation":` + value
			after = strings.Replace(after, member+",", "", 1)                                               // orders-0-0
			after = strings.Replace(after, member, `"lastKmipMasterKeyRotation":"2025-06-01T03:00:00Z"`, 1) // orders-0-1
			after = strings.Replace(after, member+",", "", 1)                                               // orders-0-2
			after = strings.Replace(after, fmt.Sprintf(`"version":%d`, put.VersionAfter), fmt.Sprintf(`"version":%d`, put.VersionBefore), 1)
			assert.True(t, before == after, "no other byte differs")

			shown := d.TakeMemberSnapshot(d.ClusterIDs[0], simulator.MemberSnapshot{From: []string{"orders-0-0"}})
			snapshots, err := d.client.Snapshots(t.Context(), d.ProjectID, d.ClusterIDs[0], 3)
			require.NoError(t, err)
			require.Len(t, snapshots, 2)
			assert.Equal(t, shown.ID, snapshots[0].ID)
			assert.Equal(t, d.Process("orders-0-0").Host, snapshots[0].Parts[0].MachineID)
			assert.Equal(t, d.Process("orders-0-0").Key, snapshots[0].Parts[0].KeyUUID)
			assert.True(t, snapshots[0].Created.After(d.Process("orders-0-0").LastRestart))

			events, err := d.client.Events(t.Context(), d.ProjectID, opsmanager.EventAutomationConfigPublished, at)
			require.NoError(t, err)
			require.Len(t, events, 1)
			assert.Equal(t, simulator.DefaultPublicKey, events[0].Actor())
		})
	}
}

// The text is one that a reader which decodes and encodes it does not give back.
func TestTheConfigurationDoesNotSurviveDecoding(t *testing.T) {
	d := deploy(t, simulator.DeploymentOptions{DocumentSize: 100_000})
	text := d.Text()
	assert.Greater(t, len(text), 100_000)
	var value any
	require.NoError(t, json.Unmarshal([]byte(text), &value))
	encoded, err := json.Marshal(value)
	require.NoError(t, err)
	assert.NotEqual(t, text, string(encoded))
	assert.GreaterOrEqual(t, strings.Count(text, simulator.PlantedConfigSecret), 4)
	hidden := newClient(t, d.om).get("/groups/" + project + "/automationConfig/noSecrets")
	assert.NotContains(t, string(hidden.body), simulator.PlantedConfigSecret)
	assert.Contains(t, string(hidden.body), `"key":"<redacted>"`)
}

func TestOneMemberOfAReplicaSetAtATime(t *testing.T) {
	d := deploy(t, simulator.DeploymentOptions{MemberTime: time.Hour})
	require.NoError(t, d.rotate(time.Now(), slices.Concat(d.Members("orders-0"), d.Members("orders-1"))...))
	states := map[string]string{}
	for _, h := range d.hosts("") {
		states[h.Hostname] = h.ReplicaStateName
	}
	down := 0
	for host, state := range states {
		if state == "DOWN" {
			down++
			assert.Contains(t, []string{"orders-0-1.db.example.net", "orders-1-1.db.example.net"}, host)
		}
	}
	assert.Equal(t, 2, down, "one of each replica set")
	assert.False(t, d.process("orders-0-0").IsAtGoal(d.Version()))
	assert.NotEmpty(t, d.process("orders-0-0").Plan)
	assert.True(t, d.process("audit-0").IsAtGoal(d.Version()))
}

func TestAgentsActOnALaterTimeOnly(t *testing.T) {
	d := deploy(t, simulator.DeploymentOptions{})
	at := time.Now()
	require.NoError(t, d.rotate(at, "audit-1"))
	d.await(1)
	for _, again := range []time.Time{at, at.Add(-time.Hour)} {
		require.NoError(t, d.rotate(again, "audit-1"))
		assert.True(t, d.process("audit-1").IsAtGoal(d.Version()))
	}
	assert.Len(t, d.Rotations("audit-1"), 1)
	require.NoError(t, d.rotate(at.Add(time.Hour), "audit-1"))
	d.await(2)
}

// The ledger reports every byte that a PUT changed, and what it undid.
func TestTheLedgerReportsEveryChangedByte(t *testing.T) {
	d := deploy(t, simulator.DeploymentOptions{})
	c := newClient(t, d.om)
	path := "/groups/" + project + "/automationConfig"
	text := string(c.get(path).body)
	changed := strings.Replace(text, `"timeoutMS":10000.0`, `"timeoutMS":10000`, 1)
	changed = strings.Replace(changed, `"hidden":false`, `"hidden": true`, 1)
	changed = string(simulator.SetRotationTime(time.Unix(0, 0), "audit-0")([]byte(changed)))
	require.Equal(t, 200, c.put(path, changed).StatusCode)
	put := d.Puts()[0]
	assert.Equal(t, []simulator.RotationChange{{Process: "audit-0", After: `"1970-01-01T00:00:00Z"`}}, put.Rotations)
	require.Len(t, put.Changes, 2)
	assert.Equal(t, "/replicaSets/0/members/0/hidden", put.Changes[0].Path)
	assert.Equal(t, "false", put.Changes[0].Removed)
	assert.Equal(t, " true", put.Changes[0].Added)
	assert.Equal(t, simulator.TextChange{Offset: strings.Index(text, "10000.0"), Path: "/ldap/timeoutMS", Removed: "10000.0", Added: "10000", RemovedBytes: 7, AddedBytes: 5}, put.Changes[1])

	// One that was read before somebody else's change undoes it.
	text = string(c.get(path).body)
	d.Publish("dana", simulator.SetField(`"cn=other"`, "ldap", "bindQueryUser"))
	require.Equal(t, 200, c.put(path, text).StatusCode)
	put = d.Puts()[1]
	assert.Empty(t, put.Changes)
	require.NotEmpty(t, put.Overwrote)
	assert.Equal(t, "/ldap/bindQueryUser", put.Overwrote[len(put.Overwrote)-1].Path)
	assert.Equal(t, `"cn=om"`, put.Overwrote[len(put.Overwrote)-1].Removed)

	// The text without secrets replaces them where they belong.
	hidden := string(c.get(path + "/noSecrets").body)
	require.Equal(t, 200, c.put(path, hidden).StatusCode)
	put = d.Puts()[2]
	assert.Equal(t, "/auth/autoPwd", put.Changes[0].Path)
	assert.Equal(t, `"<redacted>"`, put.Changes[0].Added)

	// One that has another order is a change as a whole.
	var value any
	require.NoError(t, json.Unmarshal([]byte(d.Text()), &value))
	encoded, err := json.Marshal(value)
	require.NoError(t, err)
	require.Equal(t, 200, c.put(path, string(encoded)).StatusCode)
	assert.NotEmpty(t, d.Puts()[3].Changes)
	require.Equal(t, 400, c.put(path, "{").StatusCode)
	assert.Equal(t, "INVALID_JSON", d.Puts()[4].Refused)
	assert.Len(t, d.om.Ledger().Puts(project), 5)
}

// put sends a configuration as it is.
func (c *client) put(path, text string) reply {
	c.t.Helper()
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodPut, c.base+root+path, strings.NewReader(text))
	require.NoError(c.t, err)
	request.Header.Set("Authorization", c.authorize(http.MethodPut, path))
	response, err := c.http.Do(request)
	require.NoError(c.t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(c.t, err)
	return reply{response, body, nil}
}
