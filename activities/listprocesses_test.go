package activities_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
)

// deployed is a simulated deployment, and what the activities have logged and
// returned.
type deployed struct {
	*simulator.Deployment
	om  *simulator.Server
	log *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// deploy starts a deployment. At the end of the test, no log has any of its document.
func deploy(t testing.TB, o simulator.DeploymentOptions, options simulator.Options) deployed {
	t.Helper()
	om := simulator.Start(t, options)
	if o.Clusters == nil {
		o.Clusters = []simulator.DeployedCluster{{Name: "orders", Shards: 2, Mongos: 1}, {Name: "audit", Arbiters: 1}}
	}
	if o.MemberTime == 0 {
		o.MemberTime = 5 * time.Millisecond
	}
	d := deployed{om.AddDeployment(o), om, &lockedBuffer{}}
	t.Cleanup(func() { requireNoDocument(t, d.log.String()) })
	return d
}

// requireNoDocument fails if a text has a secret, or a part of an automation
// configuration that only its document has.
func requireNoDocument(t testing.TB, text string) {
	t.Helper()
	for _, part := range []string{simulator.PlantedConfigSecret, "mms-automation", "bindQueryUser", "deploymentAuthMechanisms", "futureAuth", "args2_6", "redacted"} {
		assert.NotContains(t, text, part)
	}
}

// runDeployment runs one attempt of an activity on a deployment. Whatever it leaves
// has nothing of the document.
func runDeployment[R any](t *testing.T, d deployed, a activityAttempt, name string, input any) (result R, heartbeat json.RawMessage, err error) {
	t.Helper()
	a.log = d.log
	result, heartbeat, err = runAttempt[R](t, d.om, a, name, input)
	encoded, encodeErr := json.Marshal(result)
	require.NoError(t, encodeErr)
	requireNoDocument(t, string(encoded))
	requireNoDocument(t, string(heartbeat))
	requireNoDocument(t, errorText(err))
	return result, heartbeat, err
}

// errorText is an error's message and details.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	var appErr *temporal.ApplicationError
	var details activities.FailureDetails
	if errors.As(err, &appErr) && appErr.HasDetails() {
		_ = appErr.Details(&details)
	}
	encoded, _ := json.Marshal(details)
	return err.Error() + string(encoded)
}

func listInput(d deployed, clusterIDs ...string) activities.ListProcessesInput {
	return activities.ListProcessesInput{Scope: scope(), ClusterIDs: clusterIDs, Proof: activities.ProofSnapshot}
}

func list(t *testing.T, d deployed, in activities.ListProcessesInput) (activities.ListProcessesResult, error) {
	t.Helper()
	result, _, err := runDeployment[activities.ListProcessesResult](t, d, activityAttempt{}, activities.ListProcessesName, in)
	assert.Empty(t, d.Puts(), "listing publishes nothing")
	return result, err
}

func namesOf(processes []activities.Process) (names []string) {
	for _, p := range processes {
		names = append(names, p.Process)
	}
	return names
}

func TestProcessesAreListedInOrder(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{
		{Name: "orders", Shards: 11, Members: 2, Mongos: 2}, {Name: "audit", Arbiters: 1}, {Name: "audit-9"}, {Name: "audit-10"},
	}}, simulator.Options{ServiceVersion: simulator.UnservedServiceVersion})
	listed, err := list(t, d, listInput(d))
	require.NoError(t, err)
	var sets []string
	for _, p := range listed.Processes {
		sets = append(sets, p.ReplicaSet)
		assert.Equal(t, d.Process(p.Process).Host, p.Host)
		assert.Equal(t, d.Process(p.Process).ReplicaSet, p.ReplicaSet)
	}
	want := []string{"audit", "audit-9", "audit-10"}
	for i := range 11 {
		want = append(want, fmt.Sprintf("orders-%d", i))
	}
	assert.Equal(t, append(want, "orders-config"), slices.Compact(sets), "the config server of a cluster goes last")
	assert.Len(t, listed.Processes, 4+3+3+11*2+2, "arbiters have keys, a mongos has none")
	first, last := listed.Processes[0], listed.Processes[len(listed.Processes)-1]
	assert.Equal(t, []string{"audit-0", "audit-1", "audit-2", "audit-3"}, namesOf(listed.Processes)[:4])
	assert.Equal(t, activities.RoleReplicaSet, first.Role)
	assert.Equal(t, activities.RoleConfigServer, last.Role)
	assert.Equal(t, d.ClusterIDs[0], last.ClusterID)
	assert.Equal(t, "orders", last.ClusterName)
	assert.Equal(t, activities.RoleShard, listed.Processes[10].Role)

	assert.Empty(t, first.PreviousRotateAt)
	assert.Equal(t, "2025-06-01T03:00:00Z", listed.Processes[1].PreviousRotateAt)
	assert.Equal(t, "2025-06-01T03:00:00Z", listed.LatestRotation.Format(time.RFC3339))
	assert.Empty(t, first.PreviousKeyUUID, "no snapshot of this member")
	assert.Equal(t, d.Process("audit-2").Key, listed.Processes[2].PreviousKeyUUID)
	assert.NotEmpty(t, listed.Processes[2].PreviousSnapshotID)
	require.Len(t, listed.EarlierKeys, 15)
	assert.Equal(t, activities.EarlierKeys{ClusterID: d.ClusterIDs[1], ReplicaSet: "audit", KeyUUIDs: []string{d.Process("audit-2").Key}}, listed.EarlierKeys[0])

	assert.Equal(t, d.Version(), listed.ConfigVersion)
	assert.Equal(t, 8, listed.ServiceVersion.Major)
	assert.WithinDuration(t, time.Now(), listed.ServerTime, 3*time.Second)
	assert.Empty(t, listed.LeftOut)
}

func TestProcessesOfSomeClusters(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	for name, c := range map[string]struct {
		ids   []string
		count int
	}{
		"one":                 {[]string{d.ClusterIDs[1]}, 4},
		"in any spelling":     {[]string{strings.ToUpper(d.ClusterIDs[0])}, 9},
		"named twice":         {[]string{d.ClusterIDs[1], d.ClusterIDs[1]}, 4},
		"all, in their order": {[]string{d.ClusterIDs[0], d.ClusterIDs[1]}, 13},
	} {
		listed, err := list(t, d, listInput(d, c.ids...))
		require.NoError(t, err, name)
		assert.Len(t, listed.Processes, c.count, name)
	}
	before := d.om.Ledger().Select(func(r simulator.Request) bool { return r.Kind == simulator.KindSnapshots })
	in := listInput(d)
	in.Proof = activities.ProofAgent
	listed, err := list(t, d, in)
	require.NoError(t, err)
	assert.Empty(t, listed.EarlierKeys)
	assert.Len(t, d.om.Ledger().Select(func(r simulator.Request) bool { return r.Kind == simulator.KindSnapshots }), len(before), "without a proof, no snapshot is read")
}

// What is not to be rotated may be odd.
func TestOtherClustersRefuseNothing(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	d.Edit(simulator.SetProcessField("orders-0-0", "", "args2_6", "security", "enableEncryption"))
	d.Edit(simulator.SetProcessField("orders-0-1", `"7"`, "args2_6", "security", "kmip", "keyIdentifier"))
	d.Edit(simulator.SetProcessField("orders-0-1", `"2099-01-01T00:00:00Z"`, "lastKmipMasterKeyRotation"))
	d.SetAgent("orders-0-2", simulator.Agent{Down: true, SilentSince: time.Now().Add(-time.Hour)})
	d.om.AddCluster(simulator.Cluster{ProjectID: project, ClusterName: "orders", TypeName: simulator.TypeShardedReplicaSet})
	d.om.AddReplicaSet(project, "not-automated")
	listed, err := list(t, d, listInput(d, d.ClusterIDs[1]))
	require.NoError(t, err)
	assert.Len(t, listed.Processes, 4)
	assert.Equal(t, 2025, listed.LatestRotation.Year(), "that of others is ignored where it is in the future")
}

func TestProcessesThatMustNotBeRotated(t *testing.T) {
	t.Parallel()
	security := func(process, value string, path ...string) func(deployed) {
		return func(d deployed) {
			d.Edit(simulator.SetProcessField(process, value, append([]string{"args2_6", "security"}, path...)...))
		}
	}
	for name, c := range map[string]struct {
		disturb   func(d deployed)
		in        func(d deployed, in *activities.ListProcessesInput)
		options   simulator.Options
		errorType activities.ErrorType
		says      []string
	}{
		"a pinned key": {disturb: security("orders-1-2", `"7"`, "kmip", "keyIdentifier"), errorType: activities.ErrorKeyIdentifierPinned,
			says: []string{"orders-1-2", "keyIdentifier", "remove"}},
		"a pinned key that is a number": {disturb: security("orders-1-2", `7`, "kmip", "keyIdentifier"), errorType: activities.ErrorKeyIdentifierPinned},
		"a member that is not encrypted": {disturb: security("audit-1", `false`, "enableEncryption"), errorType: activities.ErrorEncryptionOff,
			says: []string{"audit-1;", "clusterIds"}},
		"a member with a local key": {disturb: security("audit-1", "", "kmip"), errorType: activities.ErrorEncryptionOff},
		"no cluster is encrypted": {disturb: func(d deployed) {
			for _, p := range d.Processes() {
				if !p.Mongos {
					security(p.Name, "", "enableEncryption")(d)
				}
			}
		}, errorType: activities.ErrorEncryptionOff, says: []string{"no process of a replica set"}},
		"a named cluster is not encrypted": {disturb: func(d deployed) {
			for _, name := range d.Members("audit") {
				security(name, "", "enableEncryption")(d)
			}
		}, in: func(d deployed, in *activities.ListProcessesInput) { in.ClusterIDs = d.ClusterIDs }, errorType: activities.ErrorEncryptionOff, says: []string{"audit-0, audit-1, audit-2;"}},
		"the operator's lock": {disturb: func(d deployed) { d.ExternallyManaged("mongodb-enterprise-operator", 401) }, errorType: activities.ErrorExternallyManaged,
			says: []string{"/controlledFeature", "mongodb-enterprise-operator", "do not remove"}},
		"a cluster that is not automated": {in: func(d deployed, in *activities.ListProcessesInput) {
			in.ClusterIDs = []string{d.om.AddReplicaSet(project, "manual").ID}
		}, errorType: activities.ErrorNotAutomated, says: []string{`"manual"`, "automation"}},
		"manual mode": {disturb: func(d deployed) { d.Edit(simulator.SetProcessField("audit-2", `true`, "manualMode")) }, errorType: activities.ErrorNotAutomated,
			says: []string{"audit-2", "manual mode"}},
		"a member that is down": {disturb: func(d deployed) { d.SetAgent("orders-0-1", simulator.Agent{Down: true}) }, errorType: activities.ErrorMemberDown,
			says: []string{"orders-0-1 (state DOWN)", "/hosts"}},
		"an arbiter that is down": {disturb: func(d deployed) { d.SetAgent("audit-3", simulator.Agent{Down: true}) }, errorType: activities.ErrorMemberDown},
		"an agent that is silent": {disturb: func(d deployed) {
			d.SetAgent("orders-0-1", simulator.Agent{Silent: true, SilentSince: time.Now().Add(-10 * time.Minute)})
		}, errorType: activities.ErrorMemberDown, says: []string{"orders-0-1 (last reported at 20"}},
		"a disabled process": {disturb: func(d deployed) { d.Edit(simulator.SetProcessField("audit-2", `true`, "disabled")) }, errorType: activities.ErrorMemberDown,
			says: []string{"audit-2 (disabled"}},
		"a process that is not monitored": {disturb: func(d deployed) {
			d.Edit(simulator.SetProcessField("audit-2", `"elsewhere.example.net"`, "hostname"))
		}, errorType: activities.ErrorMemberDown, says: []string{"audit-2 (Ops Manager monitors no elsewhere.example.net:"}},
		"a deployment in progress": {disturb: func(d deployed) {
			d.SetAgent("audit-1", simulator.Agent{Silent: true})
			d.Publish("dana", simulator.SetField(`1`, "x"))
		}, errorType: activities.ErrorNotInGoalState, says: []string{"audit-1 (at version 41)", "goal version 42", "/automationStatus"}},
		"an agent's error": {disturb: func(d deployed) {
			d.SetAgent("audit-1", simulator.Agent{ErrorCode: 20, ErrorText: "disk full"})
			d.Publish("dana", simulator.SetRotationTime(time.Now().Add(-time.Minute), "audit-1"))
			require.NoError(t, awaitStatus(d, func(p opsmanager.ProcessStatus) bool { return p.ErrorCode == 20 }))
		}, errorType: activities.ErrorNotInGoalState, says: []string{"audit-1 (agent's error 20: disk full)"}},
		"Ops Manager's clock is ahead": {options: simulator.Options{Now: func() time.Time { return time.Now().Add(2 * time.Minute) }},
			errorType: activities.ErrorClockSkew, says: []string{"the worker's differ by at least ", "Date"}},
		"Ops Manager's clock is behind": {options: simulator.Options{Now: func() time.Time { return time.Now().Add(-2 * time.Minute) }},
			errorType: activities.ErrorClockSkew},
		"a rotation in the future": {disturb: func(d deployed) {
			d.Edit(simulator.SetProcessField("audit-1", `"2099-01-01T00:00:00Z"`, "lastKmipMasterKeyRotation"))
		}, errorType: activities.ErrorClockSkew, says: []string{"audit-1 (2099-01-01T00:00:00Z)", "later"}},
		"a rotation at no time": {disturb: func(d deployed) {
			d.Edit(simulator.SetProcessField("audit-1", `"soon"`, "lastKmipMasterKeyRotation"))
		}, errorType: activities.ErrorUnexpectedTopology, says: []string{"audit-1 (soon)"}},
		"a shard instead of its cluster": {in: func(d deployed, in *activities.ListProcessesInput) {
			in.ClusterIDs = []string{d.Process("orders-0-0").ClusterID}
		}, errorType: activities.ErrorUnexpectedTopology, says: []string{"use the ID of the sharded cluster"}},
		"an unknown cluster": {in: func(_ deployed, in *activities.ListProcessesInput) {
			in.ClusterIDs = []string{"65a1f0c2d3e4b5a697889999"}
		}, errorType: activities.ErrorNotFound, says: []string{"CLUSTER_NOT_FOUND"}},
		"an id that is none": {in: func(_ deployed, in *activities.ListProcessesInput) { in.ClusterIDs = []string{"orders"} }, errorType: activities.ErrorInvalidInput},
		"two clusters of one name": {disturb: func(d deployed) {
			d.om.AddCluster(simulator.Cluster{ProjectID: project, ClusterName: "orders", TypeName: simulator.TypeShardedReplicaSet})
		}, errorType: activities.ErrorUnexpectedTopology, says: []string{`expected one sharded cluster of the name "orders"`, "found 2"}},
		"two replica sets of one name": {disturb: func(d deployed) { d.om.AddReplicaSet(project, "audit") }, errorType: activities.ErrorUnexpectedTopology,
			says: []string{`replica set name "audit"`, "found 2"}},
		"a replica set that is not listed": {disturb: func(d deployed) {
			d.om.UpdateCluster(d.Process("orders-1-0").ClusterID, func(c *simulator.Cluster) { c.Hidden = true })
		}, errorType: activities.ErrorUnexpectedTopology, says: []string{`"orders-1"`, "found 0"}},
		"a member without a process": {disturb: func(d deployed) {
			d.Edit(simulator.SetField(`"gone-0"`, "replicaSets", "0", "members", "0", "host"))
		}, errorType: activities.ErrorUnexpectedTopology, says: []string{"gone-0"}},
		"no KMIP server to ask": {in: func(_ deployed, in *activities.ListProcessesInput) { in.Proof = activities.ProofKMIP }, errorType: activities.ErrorInvalidInput,
			says: []string{"KMIP_ADDRESS", `"snapshot"`}},
		"a field of another type": {disturb: func(d deployed) {
			d.Edit(simulator.SetProcessField("audit-2", `"`+simulator.PlantedConfigSecret+`"`, "disabled"))
		}, errorType: activities.ErrorUnexpectedResponse, says: []string{"disabled"}},
		"no role for automation": {disturb: func(d deployed) {
			d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: simulator.KindAutomationConfig, Status: http.StatusForbidden, Body: `{"errorCode":"USER_UNAUTHORIZED"}`}.Always())
		}, errorType: activities.ErrorForbidden, says: []string{"Project Automation Admin"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, simulator.DeploymentOptions{}, c.options)
			if c.disturb != nil {
				c.disturb(d)
			}
			in := listInput(d)
			if c.in != nil {
				c.in(d, &in)
			}
			_, err := list(t, d, in)
			appErr := requireType(t, err, c.errorType, false)
			for _, part := range c.says {
				assert.Contains(t, appErr.Message(), part)
			}
			assert.Contains(t, appErr.Message(), "; ", "and what to do")
			assert.Less(t, len(appErr.Message()), 1_500)
		})
	}
}

// awaitStatus waits until the status of a process is as wanted.
func awaitStatus(d deployed, wanted func(opsmanager.ProcessStatus) bool) error {
	client, err := opsmanager.New(opsmanager.Config{BaseURL: d.om.URL, PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey})
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		status, err := client.AutomationStatus(context.Background(), d.ProjectID)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(status.Processes, wanted) {
			return nil
		}
	}
	return errors.New("no process has the wanted status")
}

// A message names the first of many processes, in short.
func TestManyProcessesInOneMessage(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: strings.Repeat("a-very-long-name", 20), Shards: 5}}}, simulator.Options{})
	for _, p := range d.Processes() {
		d.Edit(simulator.SetProcessField(p.Name, `"7"`, "args2_6", "security", "kmip", "keyIdentifier"))
	}
	_, err := list(t, d, listInput(d))
	appErr := requireType(t, err, activities.ErrorKeyIdentifierPinned, false)
	assert.Contains(t, appErr.Message(), "and 13 more")
	assert.Less(t, len(appErr.Message()), 1_500)
}

func TestTransientErrorsOfAListingAreRetried(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	for _, kind := range []simulator.Kind{simulator.KindAutomationConfig, simulator.KindAutomationStatus, simulator.KindHosts, simulator.KindControlledFeature, simulator.KindClusters, simulator.KindSnapshots} {
		d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: kind, Status: http.StatusServiceUnavailable})
	}
	d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: simulator.KindAutomationConfig, Status: http.StatusOK, Body: "<html>", ContentType: "text/html"})
	listed, err := list(t, d, listInput(d))
	require.NoError(t, err)
	assert.Len(t, listed.Processes, 13)
	assert.Zero(t, d.om.FaultsLeft())

	d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: simulator.KindHosts, Status: http.StatusServiceUnavailable}.Always())
	in := listInput(d)
	in.RetryTimeout = activities.Duration(time.Second)
	_, err = list(t, d, in)
	requireType(t, err, activities.ErrorOpsManagerUnavailable, false)
}

// An Ops Manager that does not know controlledFeature refuses the PUT, if anything.
func TestControlledFeatureMayBeMissing(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{WithoutNoSecrets: true}, simulator.Options{})
	d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: simulator.KindControlledFeature, Status: http.StatusNotFound})
	_, err := list(t, d, listInput(d))
	require.NoError(t, err)
}

// A listing of the largest rotation fits into one of Temporal's payloads.
func TestTheLargestListingFits(t *testing.T) {
	listed := activities.ListProcessesResult{ConfigVersion: 7, ServerTime: time.Unix(1, 0).UTC()}
	for i := range 5_000 {
		set := fmt.Sprintf("replica-set-with-a-long-name-%d", i/3)
		key := fmt.Sprintf("%08x-0000-4000-8000-%012x", i*2654435761, i*40503)
		listed.Processes = append(listed.Processes, activities.Process{
			Process: fmt.Sprintf("%s_%d", set, i), Host: fmt.Sprintf("%s-%d.mongodb.svc.cluster.local:27017", set, i), ReplicaSet: set,
			ClusterID: fmt.Sprintf("%024x", i), ClusterName: set, Role: activities.RoleShard, PreviousRotateAt: "2025-06-01T03:00:00Z",
			PreviousKeyUUID: key, PreviousSnapshotID: fmt.Sprintf("%024x", i*7919),
		})
		if i%3 == 0 {
			listed.EarlierKeys = append(listed.EarlierKeys, activities.EarlierKeys{ClusterID: fmt.Sprintf("%024x", i), ReplicaSet: set, KeyUUIDs: []string{key}})
		}
	}
	for _, n := range []int{0, 100, 101, 5_000} {
		part := listed
		part.Processes = listed.Processes[:n]
		encoded, err := json.Marshal(part)
		require.NoError(t, err)
		assert.Less(t, len(encoded), 1<<20)
		assert.Equal(t, n > 100, !strings.Contains(string(encoded), "previousKeyUUID") && n > 0)
		var decoded activities.ListProcessesResult
		require.NoError(t, json.Unmarshal(encoded, &decoded))
		assert.Equal(t, len(part.Processes), len(decoded.Processes))
		if n > 0 {
			assert.Equal(t, part, decoded)
		}
	}
}
