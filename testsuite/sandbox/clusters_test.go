package main

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

func TestMatchingRecordsOfClusters(t *testing.T) {
	found := verifyClusters(rotatedTwo())
	require.NoError(t, found.err())
	assert.Equal(t, "records match the ledger: 2 targets, 2 PUTs, each new key witnessed by the KMIP server", found.String())
	for _, want := range []string{"orders-0", "old-0", "new-0", "orders-config", "matches"} {
		assert.Contains(t, found.table(), want)
	}
}

func TestEveryProblemOfAClusterIsFound(t *testing.T) {
	type rotation struct {
		summary *simulator.Summary
		ledger  *simulator.Ledger
		records []workflows.TargetRecord
	}
	for name, test := range map[string]struct {
		change func(*rotation)
		want   string
	}{
		"another new key":      {func(r *rotation) { r.records[0].NewKeyUUID = "other" }, `orders-0: the record has new key "other", the ledger has "new-0"`},
		"another previous key": {func(r *rotation) { r.records[1].PreviousKeyUUID = "" }, `orders-config: the record has previous key "", the ledger has "old-1"`},
		"not verified":         {func(r *rotation) { r.records[0].Status = workflows.StatusRotated }, "orders-0: its record is rotated, expected verified"},
		"not asked about":      {func(r *rotation) { r.records[0].KMIP = nil }, "orders-0: the KMIP server has not witnessed its new key"},
		"not in the server":    {func(r *rotation) { r.records[1].KMIP.Outcome = workflows.EvidenceAbsent }, "orders-config: the KMIP server has not witnessed its new key"},
		"no record":            {func(r *rotation) { r.records = r.records[:1] }, "orders-config: it has 0 records, expected 1"},
		"two records":          {func(r *rotation) { r.records = append(r.records, r.records[0]) }, "orders-0: it has 2 records, expected 1"},
		"an unknown target":    {func(r *rotation) { r.records = append(r.records, recordOf("elsewhere", 7)) }, "elsewhere (id-7): Ops Manager has no such target"},
		"no PUT applied":       {func(r *rotation) { r.summary.Targets[0].Rotations = nil }, "orders-0: 0 PUTs were applied, expected 1"},
		"an additional PUT":    {func(r *rotation) { r.ledger.Requests = append(r.ledger.Requests, putOf(0)) }, "orders-0: the ledger has 2 PUTs, expected 1"},
		"a PUT on the parent":  {func(r *rotation) { r.ledger.Requests = append(r.ledger.Requests, putOf(8)) }, "the ledger has 3 PUTs for 2 targets"},
		"changed since":        {func(r *rotation) { r.summary.Targets[0].Key = "newer" }, `orders-0: its current key is "newer", the PUT created "new-0"`},
	} {
		t.Run(name, func(t *testing.T) {
			summary, ledger, records := rotatedTwo()
			changed := rotation{&summary, &ledger, records}
			test.change(&changed)
			found := verifyClusters(summary, ledger, changed.records)
			require.Error(t, found.err())
			assert.Contains(t, found.String(), "do NOT match")
			assert.Contains(t, found.String(), test.want)
		})
	}
}

// rotatedTwo is a correct rotation of two targets.
func rotatedTwo() (simulator.Summary, simulator.Ledger, []workflows.TargetRecord) {
	summary := simulator.Summary{Targets: []simulator.TargetSummary{targetOf("orders-0", 0), targetOf("orders-config", 1)}}
	ledger := simulator.Ledger{Requests: []simulator.Request{
		{Method: http.MethodGet, Kind: simulator.KindKey, ClusterID: "id-0", Authenticated: true},
		{Method: http.MethodPut, Kind: simulator.KindKey, ClusterID: "id-0"}, // the challenge
		putOf(0), putOf(1),
	}}
	return summary, ledger, []workflows.TargetRecord{recordOf("orders-0", 0), recordOf("orders-config", 1)}
}

func targetOf(name string, n int) simulator.TargetSummary {
	rotated := simulator.Rotation{ClusterID: numbered("id", n), PreviousKey: numbered("old", n), NewKey: numbered("new", n)}
	return simulator.TargetSummary{ID: rotated.ClusterID, Name: name, Key: rotated.NewKey, Rotations: []simulator.Rotation{rotated}}
}

func putOf(n int) simulator.Request {
	return simulator.Request{Method: http.MethodPut, Kind: simulator.KindKey, ClusterID: numbered("id", n), Authenticated: true}
}

func recordOf(name string, n int) workflows.TargetRecord {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return workflows.TargetRecord{
		Target: activities.Target{ClusterID: numbered("id", n), Name: name}, Status: workflows.StatusVerified,
		PreviousKeyUUID: numbered("old", n), NewKeyUUID: numbered("new", n), RotatedAt: &at, VerifiedAt: &at,
		KMIP: &workflows.KeyEvidence{Outcome: workflows.EvidenceWitnessed},
	}
}

func numbered(what string, n int) string { return what + "-" + string(rune('0'+n)) }

func TestRefusalIsAValidFault(t *testing.T) {
	cluster := simulator.ShardedCluster{ID: "c", ShardIDs: []string{"s"}, ConfigID: "config"}
	var read simulator.Fault
	require.NoError(t, json.Unmarshal([]byte(jsonOf(refusalFor(cluster))), &read))
	require.NoError(t, read.Validate())
	assert.Equal(t, "config", read.ClusterID)
}

func TestWorkflowIDOfACluster(t *testing.T) {
	cluster := simulator.ShardedCluster{ID: "c", ProjectID: "p"}
	assert.Equal(t, workflows.RotateClusterID("default", "p", "c"), rotationOf(cluster).workflowID)
}
