// Package digestinterop tests the client's digest authentication against
// independent servers: Apache httpd and lighttpd, each in front of a simulator.
// The tests are skipped where these servers are not installed.
package digestinterop

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/invariants"
	"keyturn/workflows"
)

const project = fixture.Project

// serverConfigs are the configurations of digest authentication that a client
// may meet.
var serverConfigs = map[string]serverConfig{
	"Apache": apache,
	// The nonce count must increase by one.
	"Apache/nonce-count": apache.with("AuthDigestNcCheck On"),
	// By default, Apache has so little memory for nonce counts that parallel
	// requests displace each other.
	"Apache/small-memory": apache.with("AuthDigestNcCheck On").withNonceMemory("1000"),
	// Each nonce is valid for one request.
	"Apache/one-time": apache.with("AuthDigestNonceLifetime 0"),
	"lighttpd":        lighttpd,
	"lighttpd/SHA256": lighttpdSHA256(),
}

func newOpsManager(t *testing.T) *simulator.Server {
	t.Helper()
	return simulator.Start(t, simulator.Options{NoAuthentication: true, MaxItemsPerPage: 10})
}

// allRequests of a rotation of 64 targets: the first page, all seven pages twice,
// and three requests for each target.
const allRequests = 1 + 2*7 + 3*64

// A rotation of 64 targets, 16 at a time: the pages of the listing, whose query
// is a part of what is signed, and each target's GET, PUT and GET.
func TestRotation(t *testing.T) {
	t.Parallel()
	for name, k := range serverConfigs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			om := newOpsManager(t)
			cluster := om.AddShardedCluster(project, "orders", 63)
			w := k.start(t, om, operator)
			input := fixture.Input(cluster.ID)
			input.Concurrency = 16
			input.RetryTimeout, input.VerifyTimeout = workflows.Duration(timeout), workflows.Duration(timeout)

			result, err := fixture.NewSDKWithClient(t, om, w.client(t, operator)).Rotate(input)
			require.NoError(t, err)
			assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
			require.NoError(t, invariants.CheckRecords(om.Ledger(), result.Targets))
			assert.Equal(t, 64, len(om.Ledger().Rotations))
			requests, served := len(om.Ledger().Requests), w.served(t)
			challenges := count(served, http.StatusUnauthorized)
			assert.Equal(t, requests, len(served)-challenges, "exactly the authenticated requests reach Ops Manager")
			assert.Less(t, connections(served), requests/2, "connections must be reused")
			t.Logf("%d challenges for %d requests over %d connections", challenges, requests, connections(served))
			switch name {
			case "Apache/small-memory":
			case "Apache/one-time":
				assert.Equal(t, allRequests, requests)
				assert.LessOrEqual(t, challenges, requests)
			default:
				assert.Equal(t, allRequests, requests)
				assert.LessOrEqual(t, challenges, 16, "a nonce for each of the requests at a time")
			}
		})
	}
}

// rotateOnce sends the PUT for a target whose key was read before, and verifies
// it.
func rotateOnce(t *testing.T, client *opsmanager.Client, om *simulator.Server, clusterID string) {
	t.Helper()
	require.NoError(t, client.RotateEncryptionKey(t.Context(), project, clusterID, nil))
	key := readKey(t, client, clusterID)
	assert.Equal(t, om.Key(clusterID), key)
	assert.Len(t, om.Ledger().Applied(clusterID), 1)
}

func readKey(t *testing.T, client *opsmanager.Client, clusterID string) string {
	t.Helper()
	key, err := client.EncryptionKey(t.Context(), project, clusterID)
	require.NoError(t, err)
	return key
}

// requireStalePut: the PUT was refused only for its nonce, and repeated.
func requireStalePut(t *testing.T, w *webServer) {
	t.Helper()
	assert.Equal(t, []int{http.StatusUnauthorized, http.StatusCreated}, statuses(w.served(t), http.MethodPut))
}

func TestWrongCredentialsAreReportedSoon(t *testing.T) {
	t.Parallel()
	for name, k := range serverConfigs {
		for wrong, u := range map[string]user{
			"password": {operator.name, "wrong"}, "name": {"nobody", operator.password},
		} {
			t.Run(name+"/"+wrong, func(t *testing.T) {
				t.Parallel()
				om := newOpsManager(t)
				set := om.AddReplicaSet(project, "audit")
				w := k.start(t, om, operator)
				err := w.client(t, u).RotateEncryptionKey(t.Context(), project, set.ID, nil)
				requireUnauthorized(t, err)
				assert.Len(t, w.served(t), requestsRefused)
				assert.Empty(t, om.Ledger().Requests)
			})
		}
	}
}

// requestsRefused: a challenge, and the answers after which a client no longer
// takes a refusal for a balancer's.
const requestsRefused = 1 + 12

func requireUnauthorized(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	apiError, ok := opsmanager.AsError(err)
	require.True(t, ok, "%T: %v", err, err)
	assert.Equal(t, opsmanager.Unauthorized, apiError.Kind, "%v", err)
}

// Each of several parallel requests is refused on its own.
func TestWrongCredentialsOfRequestsInParallel(t *testing.T) {
	t.Parallel()
	for name, k := range serverConfigs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			om := newOpsManager(t)
			set := om.AddReplicaSet(project, "audit")
			w := k.start(t, om, operator)
			client := w.client(t, user{operator.name, "wrong"})
			var unauthorized atomic.Int32
			inParallel(16, func() {
				_, err := client.EncryptionKey(t.Context(), project, set.ID)
				if apiError, ok := opsmanager.AsError(err); ok && apiError.Kind == opsmanager.Unauthorized {
					unauthorized.Add(1)
				} else {
					assert.Fail(t, "want Unauthorized", "got %v", err)
				}
			})
			assert.EqualValues(t, 16, unauthorized.Load())
			if name != "Apache/small-memory" {
				served := len(w.served(t))
				assert.GreaterOrEqual(t, served, requestsRefused*16)
				// A request is sent once more over another connection if the
				// server closes its own meanwhile.
				assert.LessOrEqual(t, served, (requestsRefused+1)*16)
			}
		})
	}
}

func TestRevokedCredentials(t *testing.T) {
	t.Parallel()
	for name, k := range serverConfigs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			om := newOpsManager(t)
			set := om.AddReplicaSet(project, "audit")
			w := k.start(t, om, operator)
			client := w.client(t, operator)
			readKey(t, client, set.ID)
			w.setUsers(t, user{operator.name, "another"})
			requireUnauthorized(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil))
			assert.Empty(t, om.Ledger().Rotations)
			for _, status := range statuses(w.served(t), http.MethodPut) {
				assert.Equal(t, http.StatusUnauthorized, status)
			}
		})
	}
}

// Names and passwords with characters that have a meaning in a header, a quoted
// text or a user file. The client refuses spaces, quotes and invisible characters.
func TestUnusualCredentials(t *testing.T) {
	users := []user{
		{`it's,a=name;`, `a\backslashed:password`},
		{"%41+&?#/@name", "%41+&?#/@password"},
		{"schlüssel-鍵-🔑", "schlüssel-鍵-🔑"},
		{"e\u0301", "e\u0301"},
	}
	for name, k := range serverConfigs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			om := newOpsManager(t)
			set := om.AddReplicaSet(project, "audit")
			w := k.start(t, om, users...)
			for _, u := range users {
				_, err := w.client(t, u).EncryptionKey(t.Context(), project, set.ID)
				assert.NoError(t, err, "%+q", u.name)
			}
		})
	}
}
