package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

func TestMatchingRecordsOfADeployment(t *testing.T) {
	found := verifyDeployment(rotatedDeployment())
	require.NoError(t, found.err())
	assert.Equal(t, "records match the ledger: 2 processes with one new key each; 1 PUTs, which changed 0 bytes besides the times; a new key of each of 1 replica sets is proven", found.String())
	for _, want := range []string{"New keys", "audit-0", "old-0", "new-1", "matches"} {
		assert.Contains(t, found.table(), want)
	}
	assert.NotContains(t, found.table(), "mongos")
}

// A snapshot that does not name its member proves a key of the replica set.
func TestProofOfAReplicaSetAsAWhole(t *testing.T) {
	deployment, puts, result := rotatedDeployment()
	result.Targets[1].Status, result.Targets[1].NewKeyUUID = workflows.StatusRotated, ""
	result.ReplicaSets = []workflows.ReplicaSetRecord{{ReplicaSet: "audit", ProvenBy: workflows.ProvenByKMIP, NewKeyUUID: "new-0"}}
	require.NoError(t, verifyDeployment(deployment, puts, result).err())
}

func TestEveryProblemOfADeploymentIsFound(t *testing.T) {
	type rotated struct {
		deployment *simulator.DeploymentSummary
		puts       []simulator.Publication
		result     *workflows.RotateDeploymentResult
	}
	for name, test := range map[string]struct {
		change func(*rotated)
		want   string
	}{
		"two keys": {func(r *rotated) {
			p := &r.deployment.Processes[0]
			p.Rotations = append(p.Rotations, p.Rotations[0])
		}, "audit-0: it got 2 new keys, expected 1"},
		"no key":             {func(r *rotated) { r.deployment.Processes[1].Rotations = nil }, "audit-1: it got 0 new keys, expected 1"},
		"no record":          {func(r *rotated) { r.result.Targets = r.result.Targets[1:] }, "audit-0: it has no record"},
		"an unknown process": {func(r *rotated) { r.result.Targets[0].Process = "other" }, "other: Ops Manager has no such process"},
		"another key":        {func(r *rotated) { r.result.Targets[1].NewKeyUUID = "other" }, `audit-1: the record has new key "other", the ledger has "new-1"`},
		"not proven":         {func(r *rotated) { r.result.Targets[1].Status = workflows.StatusRotated }, `replica set audit: the proven key is "", which is none of its new ones`},
		"a lost PUT":         {func(r *rotated) { r.puts[0].Applied = false }, "a PUT was not applied"},
		"other bytes": {func(r *rotated) {
			r.puts[0].Changes = []simulator.TextChange{{Path: "/ldap", Removed: "a", Added: "b", RemovedBytes: 1, AddedBytes: 1}}
		}, `a PUT changed "a" to "b" at /ldap`},
		"another's change": {func(r *rotated) {
			r.puts[0].Overwrote = []simulator.TextChange{{Path: "/auth", Removed: "a", Added: "b"}}
		}, `a PUT changed "a" to "b" at /auth`},
		"a violation": {func(r *rotated) { r.deployment.Violations = []string{"audit-0 got two keys"} }, "audit-0 got two keys"},
	} {
		t.Run(name, func(t *testing.T) {
			deployment, puts, result := rotatedDeployment()
			changed := rotated{&deployment, puts, &result}
			test.change(&changed)
			found := verifyDeployment(deployment, changed.puts, result)
			require.Error(t, found.err())
			assert.Contains(t, found.String(), "do NOT match")
			assert.Contains(t, found.String(), test.want)
		})
	}
}

// rotatedDeployment is a correct rotation of a replica set of two members, of which
// a snapshot was taken from the second one.
func rotatedDeployment() (simulator.DeploymentSummary, []simulator.Publication, workflows.RotateDeploymentResult) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	restarted := at.Add(2 * time.Second)
	deployment := simulator.DeploymentSummary{Processes: []simulator.ProcessSummary{{Name: "orders-mongos-0"}}}
	var result workflows.RotateDeploymentResult
	for i := range 2 {
		name := numbered("audit", i)
		deployment.Processes = append(deployment.Processes, simulator.ProcessSummary{Name: name, ReplicaSet: "audit", Key: numbered("new", i), Rotations: []simulator.MemberRotation{
			{Process: name, Time: `"2026-03-01T12:00:00Z"`, PreviousKey: numbered("old", i), NewKey: numbered("new", i)},
		}})
		result.Targets = append(result.Targets, workflows.ProcessRecord{Process: name, ReplicaSet: "audit", Status: workflows.StatusRotated, RotateAt: &at, RotatedAt: &restarted})
	}
	proven := &result.Targets[1]
	proven.Status, proven.VerifiedAt, proven.ProvenBy = workflows.StatusVerified, &restarted, workflows.ProvenBySnapshot
	proven.PreviousKeyUUID, proven.NewKeyUUID, proven.SnapshotID = "old-1", "new-1", "snapshot"
	deployment.Processes = append(deployment.Processes[1:], deployment.Processes[0])
	return deployment, []simulator.Publication{{Applied: true}}, result
}

func TestAgentsAreAValidOrder(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	k := deploymentKind{settings: settings{shards: 1, clusters: 1, memberTime: time.Second}}
	k.populate(om)
	assert.Contains(t, k.deployment.Members("orders-0"), stuckProcess)
	var order struct {
		Agents map[string]simulator.Agent `json:"agents"`
	}
	require.NoError(t, json.Unmarshal([]byte(jsonOf(agentsOf(stuckProcess, stuckAgent))), &order))
	assert.Equal(t, stuckAgent, order.Agents[stuckProcess])
}

func TestWorkflowIDOfADeployment(t *testing.T) {
	k := deploymentKind{}
	assert.Equal(t, workflows.RotateDeploymentID("default", project), k.rotations()[0].workflowID)
}
