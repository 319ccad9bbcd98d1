package opsmanager_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
)

// All snapshots are read, finished or not, over all pages, and each once.
func TestSnapshotsOfAllPages(t *testing.T) {
	om := simulator.Start(t, simulator.Options{MaxItemsPerPage: 2})
	orders := om.AddShardedCluster(project, "orders", 2)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for day := range 4 {
		om.TakeSnapshot(orders.ID, at.AddDate(0, 0, day), at.AddDate(1, 0, day))
	}
	om.AddSnapshot(simulator.Snapshot{ClusterID: orders.ID, Running: true, DoNotDelete: true, Created: at, MissingShards: []string{"orders-1"}})

	snapshots, err := newClient(t, configFor(om)).Snapshots(t.Context(), project, orders.ID, 3)
	require.NoError(t, err)
	require.Len(t, snapshots, 5)
	newest, running := snapshots[0], snapshots[4]
	end, hasEnd := newest.End()
	assert.True(t, hasEnd)
	assert.Equal(t, at.AddDate(1, 0, 3), end)
	assert.Equal(t, at.AddDate(0, 0, 3), newest.Created)
	require.Len(t, newest.Parts, 3)
	assert.Equal(t, om.Key(orders.ShardIDs[0]), newest.Parts[0].KeyUUID)
	assert.Equal(t, "orders-0", newest.Parts[0].ReplicaSetName)
	assert.True(t, running.Incomplete)
	assert.Equal(t, []string{"orders-1"}, running.MissingShards)
	_, hasEnd = running.End()
	assert.False(t, hasEnd)
	for _, r := range om.Ledger().Select(func(r simulator.Request) bool { return r.Authenticated }) {
		assert.Contains(t, r.Path, "completed=all")
	}
}

// A page of a cluster with very many parts stays within what the client reads.
func TestPagesOfManyPartsAreSmall(t *testing.T) {
	const parts, taken = 1000, 50
	om := simulator.Start(t, simulator.Options{})
	orders := om.AddShardedCluster(project, "orders", parts)
	for range taken {
		om.TakeSnapshot(orders.ID, time.Now(), time.Time{})
	}
	client := newClient(t, configFor(om))
	snapshots, err := client.Snapshots(t.Context(), project, orders.ID, parts+1)
	require.NoError(t, err)
	require.Len(t, snapshots, taken)
	for _, s := range snapshots {
		require.Len(t, s.Parts, parts+1)
	}
}

func listing(t *testing.T, entries ...string) *opsmanager.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"links":[],"results":[%s],"totalCount":%d}`, strings.Join(entries, ","), len(entries))
	}))
	t.Cleanup(server.Close)
	return newClient(t, opsmanager.Config{BaseURL: server.URL, PublicKey: "p", PrivateKey: "s", RequestTimeout: 5 * time.Second})
}

const anyID = "65a1f1aa0000000000000a01"

// What is missing or odd in one entry hides no other entry, and never makes a
// key look less needed than it is.
func TestOddSnapshotsAreRead(t *testing.T) {
	client := listing(t,
		`{"id":"a","parts":[{"masterKeyUUID":"k","encryptionEnabled":true,"machineId":7,"typeName":["x"]}],"created":{"date":"2026-01-02T03:04:05Z"}}`,
		`{"id":"b","doNotDelete":"yes","expires":"2027-01-01T00:00:00Z","parts":[]}`,
		`{"id":"c","expires":"soon","complete":"?","parts":[{"encryptionEnabled":false},{"encryptionEnabled":"?"},{"encryptionEnabled":true,"masterKeyUUID":5}]}`,
		`{"id":"d","parts":{}}`, `17`, `null`,
		`{"parts":[{"masterKeyUUID":"bad\u0007id"}],"missingShards":["x",{"shardName":"y"},{}]}`,
	)
	snapshots, err := client.Snapshots(t.Context(), anyID, anyID, 0)
	require.NoError(t, err)
	require.Len(t, snapshots, 7)
	assert.Equal(t, "k", snapshots[0].Parts[0].KeyUUID)
	assert.Equal(t, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), snapshots[0].Created)
	assert.False(t, snapshots[0].Unreadable)
	assert.True(t, snapshots[1].DoNotDelete, "anything but a plain false")
	_, hasEnd := snapshots[1].End()
	assert.False(t, hasEnd, "what is kept has no end, whatever its expiry")
	_, hasEnd = snapshots[2].End()
	assert.False(t, hasEnd, "a date that cannot be read is no end")
	var lacking []bool
	for _, part := range snapshots[2].Parts {
		lacking = append(lacking, part.LacksKeyID())
	}
	assert.Equal(t, []bool{false, true, true}, lacking)
	for _, i := range []int{3, 4, 5} {
		assert.True(t, snapshots[i].Unreadable, "%d", i)
	}
	assert.Empty(t, snapshots[6].Parts[0].KeyUUID)
	assert.Equal(t, []string{"x", "y", "a shard without a name"}, snapshots[6].MissingShards)
}

func TestOddRestoreJobsAndBackupConfigsAreRead(t *testing.T) {
	jobs, err := listing(t, `{"id":"1","statusName":"FINISHED","masterKeyUUID":"k"}`, `{"id":"2","statusName":"NEW_STATE"}`, `{"id":"3"}`, `[]`).
		RestoreJobs(t.Context(), anyID, anyID)
	require.NoError(t, err)
	require.Len(t, jobs, 4)
	assert.True(t, jobs[0].HasEnded())
	assert.Equal(t, "k", jobs[0].KeyUUID)
	for _, job := range jobs[1:] {
		assert.False(t, job.HasEnded(), "an unknown status is no end")
	}
	configs, err := listing(t, `{"clusterId":"65A1F1AA0000000000000A01"}`, `{"clusterId":5,"statusName":"STARTED"}`, `{"clusterId":"x","encryptionEnabled":true}`).
		BackupConfigs(t.Context(), anyID)
	require.NoError(t, err)
	require.Len(t, configs, 3)
	assert.Equal(t, anyID, configs[0].ClusterID)
	assert.Empty(t, configs[0].StatusName)
	assert.Nil(t, configs[0].EncryptionEnabled)
	assert.True(t, *configs[2].EncryptionEnabled)
}
