package simulator_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
)

func resultsOf(t *testing.T, answered reply) []map[string]any {
	t.Helper()
	require.Equal(t, http.StatusOK, answered.StatusCode, "%s", answered.body)
	var results []map[string]any
	for _, result := range answered.object(t)["results"].([]any) {
		results = append(results, result.(map[string]any))
	}
	return results
}

func TestShardedClusterIsListedAsItsParts(t *testing.T) {
	om := simulator.Start(t, simulator.Options{PathPrefix: "/om/"})
	orders := om.AddShardedCluster(project, "orders", 2)
	audit := om.AddReplicaSet(project, "audit")
	assert.True(t, strings.HasSuffix(om.URL, "/om"))
	c := newClient(t, om)
	listed := resultsOf(t, c.get("/groups/"+project+"/clusters"))
	require.Len(t, listed, 5)
	assert.Equal(t, orders.ID, listed[0]["id"])
	assert.Equal(t, "SHARDED_REPLICA_SET", listed[0]["typeName"])
	assert.NotContains(t, listed[0], "shardName")
	assert.NotContains(t, listed[0], "replicaSetName")
	for i := range 2 {
		shard := listed[i+1]
		assert.Equal(t, orders.ShardIDs[i], shard["id"])
		assert.Equal(t, "orders", shard["clusterName"])
		assert.Equal(t, fmt.Sprintf("orders-%d", i), shard["shardName"])
		assert.Equal(t, "REPLICA_SET", shard["typeName"])
		assert.NotContains(t, shard, "parentId")
	}
	assert.Equal(t, orders.ConfigID, listed[3]["id"])
	assert.Equal(t, "CONFIG_SERVER_REPLICA_SET", listed[3]["typeName"])
	assert.NotContains(t, listed[3], "shardName")
	assert.Equal(t, audit.ID, listed[4]["id"])
	assert.NotContains(t, listed[4], "encryptionKeyUUID")
	assert.Equal(t, listed[1]["id"], c.get("/groups/" + project + "/clusters/" + orders.ShardIDs[0]).object(t)["id"])
}

func TestPathPrefixIsPartOfTheSignedURI(t *testing.T) {
	om := simulator.Start(t, simulator.Options{PathPrefix: "om"})
	c := newClient(t, om)
	nonce := c.freshNonce()
	answered, err := c.raw(t.Context(), http.MethodGet, "/groups", c.sign("GET", root+"/groups", nonce, 1))
	require.NoError(t, err)
	assert.Equal(t, http.StatusUnauthorized, answered.StatusCode)
	assert.Equal(t, http.StatusOK, c.get("/groups").StatusCode)
	c.base = om.Address
	answered, err = c.raw(t.Context(), http.MethodGet, "/groups", "")
	require.NoError(t, err)
	assert.Equal(t, http.StatusNotFound, answered.StatusCode)
}

func TestIDsAreTheSameEachTime(t *testing.T) {
	first, second := simulator.New(simulator.Options{}), simulator.New(simulator.Options{})
	defer first.Close()
	defer second.Close()
	made := first.AddShardedCluster(project, "orders", 3)
	assert.Equal(t, made, second.AddShardedCluster(project, "orders", 3))
	for _, id := range append(made.TargetIDs(), made.ID) {
		assert.True(t, simulator.IsID(id))
	}
	assert.Panics(t, func() { first.AddCluster(simulator.Cluster{ID: made.ID}) })
}

func TestUnusualClusters(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	c := newClient(t, om)
	first, second := om.AddShardedCluster(project, "orders", 1), om.AddShardedCluster(project, "orders", 1)
	om.UpdateCluster(second.ID, func(k *simulator.Cluster) { k.ShardName = "orders-0" })
	unknown := om.AddCluster(simulator.Cluster{ClusterName: "new", TypeName: "SOMETHING_NEW"})
	om.UpdateCluster(first.ShardIDs[0], func(k *simulator.Cluster) { k.Hidden = true })
	assert.NotEqual(t, first.ID, second.ID)

	path := "/groups/" + project + "/clusters"
	assert.Len(t, resultsOf(t, c.get(path)), 6)
	assert.Equal(t, http.StatusOK, c.get(path+"/"+first.ShardIDs[0]).StatusCode, "hidden from lists only")
	assert.Equal(t, "orders-0", c.get(path + "/" + second.ID).object(t)["shardName"])
	assert.Equal(t, "SOMETHING_NEW", c.get(path + "/" + unknown.ID).object(t)["typeName"])
	om.RemoveCluster(unknown.ID)
	assert.Equal(t, "CLUSTER_NOT_FOUND", c.get(path + "/" + unknown.ID).object(t)["errorCode"])
	assert.Len(t, resultsOf(t, c.get(path+"?parentClusterId="+first.ID)), 5, "the parameter is ignored")
}

func TestPages(t *testing.T) {
	om := simulator.Start(t, simulator.Options{MaxItemsPerPage: 4, CentralURL: "https://om.example.net:8443"})
	om.AddShardedCluster(project, "orders", 7)
	c := newClient(t, om)
	path := "/groups/" + project + "/clusters"
	seen := map[any]bool{}
	for number, want := range []string{1: "self next", 2: "previous self next", 3: "previous self"} {
		if number == 0 {
			continue
		}
		answered := c.get(fmt.Sprintf("%s?pageNum=%d&itemsPerPage=1000&pretty=false", path, number))
		for _, result := range resultsOf(t, answered) {
			seen[result["id"]] = true
		}
		object := answered.object(t)
		assert.EqualValues(t, 9, object["totalCount"])
		var relations []string
		for _, each := range object["links"].([]any) {
			link := each.(map[string]any)
			relations = append(relations, link["rel"].(string))
			href, err := url.Parse(link["href"].(string))
			require.NoError(t, err)
			assert.Equal(t, "om.example.net:8443", href.Host)
			assert.Equal(t, root+path, href.Path)
			assert.Equal(t, "4", href.Query().Get("itemsPerPage"), "clamped")
		}
		assert.Equal(t, want, strings.Join(relations, " "))
	}
	assert.Len(t, seen, 9)
	assert.Empty(t, resultsOf(t, c.get(path+"?pageNum=9223372036854775807")))
	for _, query := range []string{"pageNum=0", "pageNum=x", "itemsPerPage=0", "itemsPerPage=-1"} {
		refused := c.get(path + "?" + query)
		assert.Equal(t, http.StatusBadRequest, refused.StatusCode)
		assert.Equal(t, "INVALID_QUERY_PARAMETER", refused.object(t)["errorCode"])
	}
}

func TestDefaultPageSizeIsAHundred(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	om.AddShardedCluster(project, "orders", 550)
	c := newClient(t, om)
	assert.Len(t, resultsOf(t, c.get("/groups/"+project+"/clusters")), 100)
	assert.Len(t, resultsOf(t, c.get("/groups/"+project+"/clusters?itemsPerPage=501")), 500)
}

func TestEnvelopeAndPretty(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	audit := om.AddReplicaSet(project, "audit")
	c := newClient(t, om)
	path := "/groups/" + project + "/clusters"

	one := c.get(path + "/" + audit.ID + "?envelope=true").object(t)
	assert.EqualValues(t, 200, one["status"])
	assert.Equal(t, audit.ID, one["content"].(map[string]any)["id"])
	list := c.get(path + "?envelope=true").object(t)
	assert.EqualValues(t, 200, list["status"])
	assert.Len(t, list["results"], 1)
	missing := c.get(path + "/65a1f1aaffffffffffffffff?envelope=true")
	assert.Equal(t, http.StatusOK, missing.StatusCode)
	assert.EqualValues(t, 404, missing.object(t)["status"])
	assert.NotContains(t, string(c.get(path).body), "\n")
	assert.Contains(t, string(c.get(path+"?pretty=true").body), "\n  ")
}

func TestErrors(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	orders := om.AddShardedCluster(project, "orders", 1)
	c := newClient(t, om)
	const absent = "65a1f1aaffffffffffffffff"
	tests := []struct {
		method, path, code string
		status             int
	}{
		{"GET", "/groups/nonsense/clusters", "INVALID_GROUP_ID", 404},
		{"GET", "/groups/" + absent, "GROUP_NOT_FOUND", 404},
		{"GET", "/groups/" + project + "/clusters/nonsense", "INVALID_CLUSTER_ID", 404},
		{"GET", "/groups/" + project + "/clusters/" + absent, "CLUSTER_NOT_FOUND", 404},
		{"GET", keyPath(absent), "CLUSTER_NOT_FOUND", 404},
		{"GET", keyPath(orders.ID), "BACKUP_CONFIG_NOT_FOUND", 404},
		{"PUT", keyPath(orders.ID), "BACKUP_CONFIG_NOT_FOUND", 404},
		{"GET", "/nonsense", "RESOURCE_NOT_FOUND", 404},
		{"GET", "/orgs/" + absent + "/groups", "RESOURCE_NOT_FOUND", 404},
		{"DELETE", keyPath(orders.ConfigID), "", 405},
		{"POST", "/groups/" + project + "/clusters", "", 405},
	}
	for _, test := range tests {
		refused := c.do(test.method, test.path)
		body := refused.object(t)
		assert.Equal(t, test.status, refused.StatusCode, test.path)
		assert.EqualValues(t, test.status, body["error"])
		assert.Equal(t, http.StatusText(test.status), body["reason"])
		assert.NotEmpty(t, body["detail"])
		assert.Contains(t, body, "parameters")
		if test.code == "" {
			assert.NotContains(t, body, "errorCode")
			assert.NotEmpty(t, refused.Header.Get("Allow"))
		} else {
			assert.Equal(t, test.code, body["errorCode"])
		}
	}
	puts := om.Ledger().PutsOnParents()
	require.Len(t, puts, 1)
	assert.Equal(t, orders.ID, puts[0].ClusterID)
	assert.Empty(t, om.Ledger().Applied(""))
}

func TestRotation(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	orders := om.AddShardedCluster(project, "orders", 1)
	om.SetKey(orders.ConfigID, "1234-3456-4567-abcd-def0")
	c := newClient(t, om)
	shard := orders.ShardIDs[0]
	before := om.Key(shard)

	answered := c.rotate(shard)
	assert.Equal(t, http.StatusCreated, answered.StatusCode)
	assert.JSONEq(t, `{}`, string(answered.body))
	after := c.readKey(shard)
	assert.NotEqual(t, before, after)
	assert.Equal(t, "1234-3456-4567-abcd-def0", c.readKey(orders.ConfigID))
	body := c.get(keyPath(shard)).object(t)
	assert.Equal(t, map[string]any{"clusterId": shard, "groupId": project, "encryptionKeyUUID": after}, body)

	applied := om.Ledger().Applied(shard)
	require.Len(t, applied, 1)
	assert.Equal(t, before, applied[0].PreviousKey)
	assert.Equal(t, after, applied[0].NewKey)
	put := om.Ledger().Requests[applied[0].Request-1]
	assert.Equal(t, http.MethodPut, put.Method)
	assert.True(t, put.Applied)
	assert.Equal(t, simulator.OutcomeAnswered, put.Outcome)
	assert.False(t, put.End.Before(put.Start))
	assert.WithinDuration(t, time.Now(), applied[0].AppliedAt, time.Minute)
}

func TestWithoutKeyOrEncryption(t *testing.T) {
	om := simulator.Start(t, simulator.Options{NewKey: func() (string, error) { return "made", nil }})
	first, off, none := om.AddReplicaSet(project, "a"), om.AddReplicaSet(project, "b"), om.AddReplicaSet(project, "c")
	om.SetKey(first.ID, "")
	om.DisableEncryption(off.ID)
	om.RemoveBackupConfig(none.ID)
	c := newClient(t, om)

	assert.Nil(t, c.readKey(first.ID))
	c.rotate(first.ID)
	assert.Equal(t, "made", c.readKey(first.ID), "the first key")
	assert.Equal(t, http.StatusCreated, c.rotate(off.ID).StatusCode)
	assert.Nil(t, c.readKey(off.ID))
	assert.Equal(t, "BACKUP_CONFIG_NOT_FOUND", c.rotate(none.ID).object(t)["errorCode"])
	assert.Len(t, om.Ledger().Applied(""), 1)
}

func TestBackupConfigs(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	orders := om.AddShardedCluster(project, "orders", 1)
	c := newClient(t, om)
	path := "/groups/" + project + "/backupConfigs"
	assert.Len(t, resultsOf(t, c.get(path)), 3)
	full := c.get(path + "/" + orders.ID).object(t)
	assert.Equal(t, "STARTED", full["statusName"])
	assert.Equal(t, true, full["encryptionEnabled"])
	assert.Empty(t, full["excludedNamespaces"])
	assert.Contains(t, full, "excludedNamespaces")
	for _, status := range []string{
		simulator.StatusInactive, simulator.StatusProvisioning, simulator.StatusStarted,
		simulator.StatusStopped, simulator.StatusTerminating, "",
	} {
		om.SetBackupConfig(simulator.BackupConfig{ClusterID: orders.ID, StatusName: status})
		bare := c.get(path + "/" + orders.ID).object(t)
		delete(bare, "links")
		want := map[string]any{"clusterId": orders.ID, "groupId": project}
		if status != "" {
			want["statusName"] = status
		}
		assert.Equal(t, want, bare)
	}
	om.RemoveBackupConfig(orders.ID)
	assert.Equal(t, http.StatusNotFound, c.get(path+"/"+orders.ID).StatusCode)
	assert.Len(t, resultsOf(t, c.get(path)), 2)
}

func TestProjectsOrganizationsAndInventory(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	om.AddOrganization(simulator.Organization{ID: "5196d3628d022db4cbc26daa", Name: "sales"})
	om.AddProject(simulator.Project{ID: project, Name: "shop", OrganizationID: "5196d3628d022db4cbc26daa", Tags: []string{"PROD"}})
	om.AddProject(simulator.Project{ID: "5196d3628d022db4cbc26dbb"})
	orders := om.AddShardedCluster(project, "orders", 2)
	audit := om.AddReplicaSet(project, "audit")
	om.AddCluster(simulator.Cluster{ClusterName: "odd", TypeName: "SOMETHING_NEW", Versions: []string{"3.4.24"}})
	c := newClient(t, om)

	shop := c.get("/groups/" + project).object(t)
	assert.Equal(t, simulator.PlantedSecret, shop["agentApiKey"])
	assert.EqualValues(t, 2, shop["shardCount"])
	assert.EqualValues(t, 1, shop["replicaSetCount"])
	assert.Len(t, resultsOf(t, c.get("/groups")), 2)
	assert.Len(t, resultsOf(t, c.get("/groups?itemsPerPage=1")), 1)
	assert.Len(t, resultsOf(t, c.get("/orgs")), 2)
	assert.Equal(t, project, resultsOf(t, c.get("/orgs/5196d3628d022db4cbc26daa/groups"))[0]["id"])

	inventory := resultsOf(t, c.get("/clusters"))
	require.Len(t, inventory, 2)
	assert.Equal(t, "sales", inventory[0]["orgName"])
	clusters := inventory[0]["clusters"].([]any)
	require.Len(t, clusters, 3)
	for i, want := range []struct{ id, kind, version string }{
		{orders.ID, "sharded cluster", "8.0.4"}, {audit.ID, "replica set", "8.0.4"}, {"", "standalone", "3.4.24"},
	} {
		entry := clusters[i].(map[string]any)
		assert.Equal(t, want.kind, entry["type"])
		assert.Equal(t, []any{want.version}, entry["versions"])
		if want.id != "" {
			assert.Equal(t, want.id, entry["clusterId"])
		}
	}
}

func TestSnapshotsFollowTheKeys(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	orders := om.AddShardedCluster(project, "orders", 1)
	c := newClient(t, om)
	shard := orders.ShardIDs[0]
	before := om.Key(shard)
	keysOf := func(snapshot map[string]any) map[any]any {
		keys := map[any]any{}
		for _, each := range snapshot["parts"].([]any) {
			part := each.(map[string]any)
			assert.Equal(t, true, part["encryptionEnabled"])
			keys[part["clusterId"]] = part["masterKeyUUID"]
		}
		return keys
	}
	path := "/groups/" + project + "/clusters/" + orders.ID + "/snapshots?completed=true"
	require.Len(t, resultsOf(t, c.get(path)), 1)
	c.rotate(shard)
	snapshots := resultsOf(t, c.get(path))
	require.Len(t, snapshots, 2)
	config := om.Key(orders.ConfigID)
	assert.Equal(t, map[any]any{shard: om.Key(shard), orders.ConfigID: config}, keysOf(snapshots[0]))
	assert.Equal(t, map[any]any{shard: before, orders.ConfigID: config}, keysOf(snapshots[1]))
}
