package simulator_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
)

func curl(t *testing.T, environment []string, arguments ...string) string {
	t.Helper()
	path, err := exec.LookPath("curl")
	require.NoError(t, err, "curl is missing: install it, this test sends the documented calls with it")
	command := exec.CommandContext(t.Context(), path, arguments...)
	command.Env = append(os.Environ(), environment...)
	out, err := command.Output()
	require.NoError(t, err, "%s", out)
	return string(out)
}

func TestDocumentedCurlCalls(t *testing.T) {
	for name, begin := range map[string]func(testing.TB, simulator.Options) *simulator.Server{
		"http": simulator.Start, "https": simulator.StartTLS,
	} {
		t.Run(name, func(t *testing.T) {
			om := begin(t, simulator.Options{})
			id := om.AddCluster(simulator.Cluster{ID: "5196e5b0e4b0fca9cc88334a"}).ID
			authority := filepath.Join(t.TempDir(), "ca.pem")
			require.NoError(t, os.WriteFile(authority, om.CAPEM, 0o600))
			environment := []string{"CURL_CA_BUNDLE=" + authority}
			if name == "http" {
				environment = nil
			}
			before := om.Key(id)
			address := om.URL + "/api/public/v1.0/groups/5196d3628d022db4cbc26d9e/backupConfigs/5196e5b0e4b0fca9cc88334a/encryptionKey"
			user := simulator.DefaultPublicKey + ":" + simulator.DefaultPrivateKey
			put := curl(t, environment, "-i", "-u", user, "-H", "Content-Type: application/json", "--digest", "-X", "PUT", address)
			assert.Contains(t, put, "HTTP/1.1 401")
			assert.Contains(t, put, "HTTP/1.1 201")
			get := curl(t, environment, "-i", "-u", user, "--digest", address)
			assert.Contains(t, get, "HTTP/1.1 200")
			assert.Contains(t, get, om.Key(id))
			assert.NotEqual(t, before, om.Key(id))
			assert.Len(t, om.Ledger().Applied(id), 1)
			assert.Equal(t, 2, om.Ledger().Challenges())

			wrong := curl(t, environment, "-i", "-u", user+"x", "--digest", "-X", "PUT", address)
			assert.NotContains(t, wrong, "HTTP/1.1 2")
			assert.Len(t, om.Ledger().Applied(id), 1)
		})
	}
}

func TestTLS(t *testing.T) {
	om := simulator.StartTLS(t, simulator.Options{})
	id := om.AddReplicaSet(project, "audit").ID
	c := newClient(t, om)
	_, err := c.raw(t.Context(), http.MethodGet, "/groups", "")
	require.ErrorAs(t, err, new(*tls.CertificateVerificationError))
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(om.CAPEM))
	c.http.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
	assert.Equal(t, om.Key(id), c.readKey(id))
	assert.True(t, strings.HasPrefix(om.URL, "https://127.0.0.1:"))
	self := c.get("/groups").object(t)["links"].([]any)[0].(map[string]any)["href"]
	assert.True(t, strings.HasPrefix(self.(string), om.URL+root))
	om.Restart()
	c.nonce = ""
	assert.Equal(t, om.Key(id), c.readKey(id))
}

func TestRestartCutsConnectionsAndKeepsData(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{})
	om.Inject(simulator.PutHang(id, simulator.ApplyBefore))
	authorization := c.authorize(http.MethodPut, keyPath(id))
	ended := make(chan error, 1)
	go func() {
		_, err := c.raw(context.Background(), http.MethodPut, keyPath(id), authorization)
		ended <- err
	}()
	await(t, om, func(l simulator.Ledger) bool { return outcomes(l, simulator.OutcomeHung) == 1 })
	om.Stop()
	require.Error(t, <-ended)
	_, err := c.raw(t.Context(), http.MethodGet, "/groups", "")
	require.Error(t, err, "nobody listens")
	om.Restart()
	c.nonce = ""
	assert.Equal(t, om.Key(id), c.readKey(id))
	assert.Len(t, om.Ledger().Applied(id), 1)
}

func TestNothingIsLeftAfterClose(t *testing.T) {
	before := runtime.NumGoroutine()
	om, c, id := onReplicaSet(t, simulator.Options{})
	om.Inject(simulator.PutServerError(id, simulator.ApplyNo).AppliedAfter(long))
	c.rotate(id)
	om.Inject(simulator.KeyHang(id))
	authorization := c.authorize(http.MethodGet, keyPath(id))
	ended := make(chan struct{})
	go func() {
		_, _ = c.raw(context.Background(), http.MethodGet, keyPath(id), authorization)
		close(ended)
	}()
	await(t, om, func(l simulator.Ledger) bool { return outcomes(l, simulator.OutcomeHung) == 1 })
	om.Close()
	<-ended
	c.http.CloseIdleConnections()
	awaitGoroutines(t, before)
	om.Close()
}

// awaitGoroutines polls in the test's own goroutine: those of an assertion that
// polls would count.
func awaitGoroutines(t *testing.T, most int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > most; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			require.Fail(t, "goroutines are left", "%s", stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func TestStateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	first := simulator.Start(t, simulator.Options{})
	orders := first.AddShardedCluster(project, "orders", 2)
	restored, err := first.UseStateFile(path)
	require.NoError(t, err)
	assert.False(t, restored)
	c := newClient(t, first)
	c.rotate(orders.ShardIDs[0])
	first.Inject(simulator.PutShownLate(orders.ConfigID, long))
	c.rotate(orders.ConfigID)
	first.DisableEncryption(orders.ShardIDs[1])

	second := simulator.Start(t, simulator.Options{})
	second.AddReplicaSet(project, "replaced")
	restored, err = second.UseStateFile(path)
	require.NoError(t, err)
	assert.True(t, restored)
	for _, id := range orders.TargetIDs() {
		assert.Equal(t, first.Key(id), second.Key(id))
		assert.Equal(t, first.ShownKey(id), second.ShownKey(id))
	}
	require.Len(t, second.Ledger().Rotations, 2)
	for i, r := range first.Ledger().Rotations {
		other := second.Ledger().Rotations[i]
		assert.True(t, r.AppliedAt.Equal(other.AppliedAt))
		r.AppliedAt = other.AppliedAt
		assert.Equal(t, r, other)
	}
	for i, each := range first.Clusters() {
		assert.Equal(t, each.ID, second.Clusters()[i].ID)
	}
	next := second.AddReplicaSet(project, "next")
	assert.NotContains(t, append(orders.TargetIDs(), orders.ID), next.ID, "ids go on")
	assert.Equal(t, http.StatusOK, newClient(t, second).get("/groups/"+project+"/clusters/"+next.ID).StatusCode)
}

func TestStateFileThatCannotBeUsed(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{})
	folder := filepath.Join(t.TempDir(), "state")
	require.NoError(t, os.Mkdir(folder, 0o700))
	path := filepath.Join(folder, "state.json")
	for _, text := range []string{"{", `{"version": 99}`} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := om.UseStateFile(path)
		require.ErrorContains(t, err, "state file")
	}
	require.NoError(t, os.Remove(path))
	_, err := om.UseStateFile(path)
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(folder))
	before := om.Key(id)
	assert.Equal(t, "UNEXPECTED_ERROR", c.rotate(id).object(t)["errorCode"])
	assert.Equal(t, before, om.Key(id))
	assert.Empty(t, om.Ledger().Rotations)
}

func TestControlEndpoints(t *testing.T) {
	om := simulator.Start(t, simulator.Options{PathPrefix: "/om"})
	orders := om.AddShardedCluster(project, "orders", 1)
	audit := om.AddReplicaSet(project, "audit")
	odd := om.AddCluster(simulator.Cluster{ClusterName: "odd", TypeName: "SOMETHING_NEW"})
	c := newClient(t, om)

	status, _ := control(t, om, "POST", "/simulator/faults", `[{"method":"PUT","apply":"before","status":502,"skip":1},{"method":"GET","delay":"1ms"}]`)
	require.Equal(t, http.StatusCreated, status)
	assert.Equal(t, http.StatusCreated, c.rotate(orders.ShardIDs[0]).StatusCode)
	assert.Equal(t, 502, c.rotate(orders.ConfigID).StatusCode)
	status, text := control(t, om, "GET", "/simulator/faults", "")
	require.Equal(t, http.StatusOK, status)
	assert.Contains(t, string(text), `"spent": true`)

	_, text = control(t, om, "GET", "/simulator/ledger", "")
	var summary simulator.Summary
	require.NoError(t, json.Unmarshal(text, &summary))
	require.Len(t, summary.Targets, 4)
	for i, want := range []struct{ id, name, role string }{
		{orders.ShardIDs[0], "orders-0", "shard"}, {orders.ConfigID, "orders-config", "configServer"},
		{audit.ID, "audit", "replicaSet"}, {odd.ID, "odd", ""},
	} {
		target := summary.Targets[i]
		assert.Equal(t, want.id, target.ID)
		assert.Equal(t, want.name, target.Name)
		assert.Equal(t, want.role, target.Role)
		assert.Equal(t, om.Key(want.id), target.Key)
		assert.Len(t, target.Rotations, len(om.Ledger().Applied(want.id)))
	}
	assert.Equal(t, 2, summary.RotationsApplied)
	assert.Equal(t, 3, summary.Requests)
	assert.Equal(t, 1, summary.Challenges)
	assert.Equal(t, 1, summary.MaxInFlight)

	_, text = control(t, om, "GET", "/simulator/requests", "")
	var ledger simulator.Ledger
	require.NoError(t, json.Unmarshal(text, &ledger))
	assert.Len(t, ledger.Requests, 3)
	assert.NotContains(t, string(text), simulator.DefaultPrivateKey)

	status, _ = control(t, om, "DELETE", "/simulator/faults", "")
	assert.Equal(t, http.StatusNoContent, status)
	assert.Zero(t, om.FaultsLeft())
	for _, refused := range []string{"", "{", `{"nonsense":1}`, `{}`, `[{"method":"GET","times":-5}]`} {
		status, _ = control(t, om, "POST", "/simulator/faults", refused)
		assert.Equal(t, http.StatusBadRequest, status, refused)
	}
	status, _ = control(t, om, "GET", "/simulator/nonsense", "")
	assert.Equal(t, http.StatusNotFound, status)
}

func TestLedgerIsACopy(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{KeepRequests: 3})
	for range 3 {
		c.rotate(id)
	}
	ledger := om.Ledger()
	assert.Len(t, ledger.Requests, 3)
	assert.Equal(t, 1, ledger.Dropped)
	assert.Equal(t, 4, ledger.Requests[2].Seq)
	ledger.Requests[0].Method, ledger.Rotations[0].NewKey = "", ""
	assert.Equal(t, http.MethodPut, om.Ledger().Requests[0].Method)
	assert.NotEmpty(t, om.Ledger().Rotations[0].NewKey)
	om.ResetLedger()
	assert.Empty(t, om.Ledger().Requests)
	assert.Empty(t, om.Ledger().Applied(id))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, om.Await(ctx, func(simulator.Ledger) bool { return false }), context.Canceled)
}

func TestFiguresOfTheLedger(t *testing.T) {
	start := time.Now()
	at := func(from, to int) simulator.Request {
		r := simulator.Request{Authenticated: true, Method: "GET", Start: start.Add(time.Duration(from) * time.Second)}
		if to > 0 {
			r.End = start.Add(time.Duration(to) * time.Second)
		}
		return r
	}
	ledger := simulator.Ledger{Requests: []simulator.Request{at(0, 2), at(1, 3), at(2, 4), at(3, 0), {Start: start}}}
	assert.Equal(t, 2, ledger.MaxInFlight())
	assert.Equal(t, 2, ledger.MaxPer(2*time.Second))
	assert.Equal(t, 4, ledger.MaxPer(time.Minute))
	assert.Equal(t, 4, ledger.Count("GET", ""))
	assert.Zero(t, ledger.Count("PUT", ""))
}

func TestRequestsInFlightAreCounted(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	orders := om.AddShardedCluster(project, "orders", 3)
	om.Inject(simulator.PutHang("", simulator.ApplyNo).Always())
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, id := range orders.TargetIDs() {
		c := newClient(t, om)
		authorization := c.authorize(http.MethodPut, keyPath(id))
		group.Go(func() { _, _ = c.raw(ctx, http.MethodPut, keyPath(id), authorization) })
	}
	await(t, om, func(l simulator.Ledger) bool { return l.MaxInFlight() == 4 })
	cancel()
	group.Wait()
}
