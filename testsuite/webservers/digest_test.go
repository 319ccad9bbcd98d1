// Package webservers tests the client's digest authentication against servers
// that are none of keyturn's own: Apache httpd and lighttpd, each in front of a
// simulator. They run where they are installed.
package webservers

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/environment"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

const project = environment.Project

// kinds are the ways of asking for credentials that a client may meet.
var kinds = map[string]kind{
	"Apache": apache,
	// The count of each nonce must be the last one's successor.
	"Apache/counting": apache.with("AuthDigestNcCheck On"),
	// By default Apache remembers so few counts that parallel requests make it
	// forget each other's.
	"Apache/forgetful": apache.with("AuthDigestNcCheck On").remembering("1000"),
	// Each nonce is good for one request.
	"Apache/one-time": apache.with("AuthDigestNonceLifetime 0"),
	"lighttpd":        lighttpd,
	"lighttpd/SHA256": lighttpdSHA256(),
}

func newOpsManager(t *testing.T) *simulator.Server {
	t.Helper()
	return simulator.Start(t, simulator.Options{NoAuthentication: true, MaxItemsPerPage: 10})
}

// A rotation of 64 targets, 16 at a time: the pages of the listing, whose query
// is a part of what is signed, and each target's GET, PUT and GET.
func TestRotation(t *testing.T) {
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			om := newOpsManager(t)
			cluster := om.AddShardedCluster(project, "orders", 63)
			w := k.start(t, om, operator)
			input := environment.Input(cluster.ID)
			input.Concurrency = 16
			input.RetryTimeout, input.VerifyTimeout = workflows.Duration(patience), workflows.Duration(patience)

			result, err := environment.NewWithClient(t, om, w.client(t, operator)).Rotate(input)
			require.NoError(t, err)
			assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
			require.NoError(t, environment.CheckRecords(om.Ledger(), result.Targets))
			assert.Equal(t, 64, len(om.Ledger().Rotations))
			requests, served := len(om.Ledger().Requests), w.served(t)
			challenges := count(served, http.StatusUnauthorized)
			assert.Equal(t, requests, len(served)-challenges, "a request that is let through reaches Ops Manager, and no other")
			assert.Less(t, connections(served), requests/2, "connections are kept and used again")
			t.Logf("%d challenges for %d requests over %d connections", challenges, requests, connections(served))
			switch name {
			case "Apache/forgetful":
			case "Apache/one-time":
				assert.Equal(t, 1+7+3*64, requests, "the parent, its pages, and three requests for each target")
				assert.LessOrEqual(t, challenges, requests)
			default:
				assert.Equal(t, 1+7+3*64, requests, "the parent, its pages, and three requests for each target")
				assert.LessOrEqual(t, challenges, 16, "a nonce for each of the requests at a time")
			}
		})
	}
}

// rotateOnce does what a rotation does to a target whose key is read already.
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

// requireStalePut: the PUT was refused for its nonce alone, and sent once more.
func requireStalePut(t *testing.T, w *webServer) {
	t.Helper()
	assert.Equal(t, []int{http.StatusUnauthorized, http.StatusCreated}, statuses(w.served(t), http.MethodPut))
}

func TestWrongCredentialsAreToldAfterOneChallenge(t *testing.T) {
	for name, k := range kinds {
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
				assert.Equal(t, []int{http.StatusUnauthorized, http.StatusUnauthorized}, statuses(w.served(t), ""))
				assert.Empty(t, om.Ledger().Requests)
			})
		}
	}
}

func requireUnauthorized(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	apiError, ok := opsmanager.AsError(err)
	require.True(t, ok, "%T: %v", err, err)
	assert.Equal(t, opsmanager.Unauthorized, apiError.Kind, "%v", err)
}

// However many requests meet it at once, each is told within its own challenges.
func TestWrongCredentialsOfRequestsInParallel(t *testing.T) {
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			om := newOpsManager(t)
			set := om.AddReplicaSet(project, "audit")
			w := k.start(t, om, operator)
			client := w.client(t, user{operator.name, "wrong"})
			var unauthorized atomic.Int32
			together(16, func() {
				_, err := client.EncryptionKey(t.Context(), project, set.ID)
				if apiError, ok := opsmanager.AsError(err); ok && apiError.Kind == opsmanager.Unauthorized {
					unauthorized.Add(1)
				} else {
					t.Errorf("got %v, want Unauthorized", err)
				}
			})
			assert.EqualValues(t, 16, unauthorized.Load())
			if name != "Apache/forgetful" {
				assert.Len(t, w.served(t), 2*16, "a challenge and one answer to it")
			}
		})
	}
}

func TestCredentialsRevokedInBetween(t *testing.T) {
	for name, k := range kinds {
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

// Names and passwords with what a header, a quoted text or a user file may
// stumble over, but for a name's own separators, which the client refuses.
func TestUnusualCredentials(t *testing.T) {
	users := []user{
		{"name with spaces", "password with spaces"},
		{`it's, a=name;`, `a "quoted", \backslashed: password`},
		{"%41+&?#/@name", "%41+&?#/@password"},
		{"schlüssel-鍵-🔑", "schlüssel-鍵-🔑"},
		{"e\u0301", "no-break\u00a0space"},
	}
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			om := newOpsManager(t)
			set := om.AddReplicaSet(project, "audit")
			w := k.start(t, om, users...)
			for _, u := range users {
				if _, err := w.client(t, u).EncryptionKey(t.Context(), project, set.ID); err != nil {
					t.Errorf("%+q: %v", u.name, err)
				}
			}
		})
	}
}
