package simulator_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
)

func challengeOf(t *testing.T, answered reply) string {
	t.Helper()
	require.Equal(t, http.StatusUnauthorized, answered.StatusCode)
	body := answered.object(t)
	assert.EqualValues(t, 401, body["error"])
	assert.Equal(t, "USER_UNAUTHORIZED", body["errorCode"])
	assert.Equal(t, "Unauthorized", body["reason"])
	return answered.Header.Get("WWW-Authenticate")
}

func TestChallengeIsWrittenAsDocumented(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	answered, err := newClient(t, om).raw(t.Context(), http.MethodGet, "/groups", "")
	require.NoError(t, err)
	assert.Regexp(t, `^Digest realm="MMS Public API", domain="", nonce="[^"]+", algorithm=MD5, qop="auth", stale=false$`, challengeOf(t, answered))
	assert.Empty(t, answered.Header.Get("X-MongoDB-Service-Version"))
	ledger := om.Ledger()
	assert.Equal(t, 1, ledger.Challenges())
	assert.Equal(t, simulator.RefusalNoCredentials, ledger.Requests[0].Refusal)
	assert.False(t, ledger.Requests[0].Authorization)
	assert.Zero(t, ledger.Count("", ""))
}

func TestProxyInFrontAuthenticates(t *testing.T) {
	om := simulator.Start(t, simulator.Options{NoAuthentication: true})
	answered, err := newClient(t, om).raw(t.Context(), http.MethodGet, "/groups", `Digest username="somebody", nonce="of the proxy"`)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, answered.StatusCode)
	assert.Equal(t, 1, om.Ledger().Count(http.MethodGet, ""))
	assert.Equal(t, simulator.DefaultPublicKey, om.Ledger().Requests[0].PublicKey)
}

func TestOneChallengeServesManyRequests(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	c := newClient(t, om)
	for range 5 {
		answered := c.get("/groups?pageNum=1&itemsPerPage=7")
		require.Equal(t, http.StatusOK, answered.StatusCode)
		assert.Equal(t, simulator.DefaultServiceVersion, answered.Header.Get("X-MongoDB-Service-Version"))
	}
	ledger := om.Ledger()
	assert.Equal(t, 1, ledger.Challenges())
	assert.Equal(t, 5, ledger.Count(http.MethodGet, ""))
	assert.EqualValues(t, 5, ledger.Requests[5].NonceCount)
	assert.Equal(t, ledger.Requests[1].Nonce, ledger.Requests[5].Nonce)
}

func TestRefusedCredentials(t *testing.T) {
	const path, uri = "/groups?pageNum=1", root + "/groups?pageNum=1"
	tests := []struct {
		name, refusal string
		header        func(*client, string) string
	}{
		{"wrong password", simulator.RefusalWrongKey, func(c *client, nonce string) string {
			c.password = "wrong"
			return c.sign("GET", uri, nonce, 1)
		}},
		{"unknown user", simulator.RefusalWrongKey, func(c *client, nonce string) string {
			c.user = "nobody"
			return c.sign("GET", uri, nonce, 1)
		}},
		{"uri without query", simulator.RefusalURI, func(c *client, nonce string) string {
			return c.sign("GET", root+"/groups", nonce, 1)
		}},
		{"another method", simulator.RefusalWrongKey, func(c *client, nonce string) string {
			return c.sign("PUT", uri, nonce, 1)
		}},
		{"wrong password with unknown nonce isn't stale", simulator.RefusalWrongKey, func(c *client, _ string) string {
			c.password = "wrong"
			return c.sign("GET", uri, "unknown", 1)
		}},
		{"basic", simulator.RefusalMalformed, func(*client, string) string { return "Basic b206a2V5" }},
		{"empty value", simulator.RefusalMalformed, func(*client, string) string { return "Digest username=" }},
		{"another realm", simulator.RefusalMalformed, func(c *client, nonce string) string {
			return strings.Replace(c.sign("GET", uri, nonce, 1), simulator.Realm, "another", 1)
		}},
		{"short nonce count", simulator.RefusalMalformed, func(c *client, nonce string) string {
			return strings.Replace(c.sign("GET", uri, nonce, 1), "nc=00000001", "nc=1", 1)
		}},
	}
	om := simulator.Start(t, simulator.Options{})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(t, om)
			answered, err := c.raw(t.Context(), http.MethodGet, path, test.header(c, c.freshNonce()))
			require.NoError(t, err)
			assert.Contains(t, challengeOf(t, answered), "stale=false")
			requests := om.Ledger().Requests
			assert.Equal(t, test.refusal, requests[len(requests)-1].Refusal)
			assert.True(t, requests[len(requests)-1].Authorization)
		})
	}
}

func TestStaleNonces(t *testing.T) {
	tests := []struct {
		name    string
		options simulator.Options
		wearOut func(*simulator.Server)
	}{
		{"used up", simulator.Options{NonceUses: 1}, func(*simulator.Server) {}},
		{"forgotten", simulator.Options{}, func(om *simulator.Server) { om.ForgetNonces() }},
		{"restart", simulator.Options{}, func(om *simulator.Server) { om.Restart() }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			om := simulator.Start(t, test.options)
			c := newClient(t, om)
			require.Equal(t, http.StatusOK, c.get("/groups").StatusCode)
			test.wearOut(om)
			assert.Contains(t, challengeOf(t, c.get("/groups")), "stale=true")
			c.nonce = ""
			assert.Equal(t, http.StatusOK, c.get("/groups").StatusCode)
		})
	}
}

func TestNonceExpires(t *testing.T) {
	om := simulator.Start(t, simulator.Options{NonceLifetime: 20 * time.Millisecond})
	c := newClient(t, om)
	require.Eventually(t, func() bool {
		return strings.Contains(c.get("/groups").Header.Get("WWW-Authenticate"), "stale=true")
	}, 10*time.Second, time.Millisecond)
}

func TestNonceCountMustGrow(t *testing.T) {
	for _, relaxed := range []bool{false, true} {
		om := simulator.Start(t, simulator.Options{RelaxedNonceCount: relaxed})
		c := newClient(t, om)
		nonce := c.freshNonce()
		send := func(count int) int {
			answered, err := c.raw(t.Context(), http.MethodGet, "/groups", c.sign("GET", root+"/groups", nonce, count))
			require.NoError(t, err)
			return answered.StatusCode
		}
		require.Equal(t, http.StatusOK, send(3))
		want := http.StatusUnauthorized
		if relaxed {
			want = http.StatusOK
		}
		assert.Equal(t, want, send(3), "repeated")
		assert.Equal(t, want, send(2), "out of order")
		assert.Equal(t, http.StatusOK, send(4), "a refused count doesn't spoil the nonce")
		if !relaxed {
			requests := om.Ledger().Requests
			assert.Equal(t, simulator.RefusalNonceCount, requests[2].Refusal)
			assert.False(t, requests[2].Stale)
		}
	}
}

func TestConcurrentClientsWithStrictNonceCount(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	orders := om.AddShardedCluster(project, "orders", 7)
	var group sync.WaitGroup
	for _, id := range orders.TargetIDs() {
		c := newClient(t, om)
		group.Go(func() {
			for range 5 {
				if answered, err := c.try(http.MethodPut, keyPath(id)); assert.NoError(t, err) {
					assert.Equal(t, http.StatusCreated, answered.StatusCode)
				}
			}
		})
	}
	group.Wait()
	ledger := om.Ledger()
	assert.Len(t, ledger.Applied(""), 40)
	for _, id := range orders.TargetIDs() {
		applied := ledger.Applied(id)
		require.Len(t, applied, 5)
		for i := range 4 {
			assert.Equal(t, applied[i].NewKey, applied[i+1].PreviousKey)
		}
		assert.Equal(t, applied[4].NewKey, om.Key(id))
	}
	assert.Equal(t, 8, ledger.Challenges())
}

func TestKeysAndAccessList(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	const other = "5196d3628d022db4cbc26dff"
	own, foreign := om.AddReplicaSet(project, "own"), om.AddReplicaSet(other, "foreign")
	om.AddAPIKey(simulator.APIKey{PublicKey: "limited", PrivateKey: "secret", ProjectIDs: []string{project}, ReadOnly: true})
	c := newClient(t, om)
	c.user, c.password = "limited", "secret"

	refused := c.get("/groups/" + other + "/clusters/" + foreign.ID)
	assert.Equal(t, http.StatusUnauthorized, refused.StatusCode)
	assert.Equal(t, "NOT_IN_GROUP", refused.object(t)["errorCode"])
	assert.EqualValues(t, 1, c.get("/groups").object(t)["totalCount"])
	assert.Equal(t, om.Key(own.ID), c.readKey(own.ID))
	assert.Equal(t, "USER_UNAUTHORIZED", c.rotate(own.ID).object(t)["errorCode"])
	assert.Empty(t, om.Ledger().Applied(""))

	om.SetAccessList("192.0.2.1", "198.51.100.0/24")
	refused = c.get("/groups")
	assert.Equal(t, http.StatusForbidden, refused.StatusCode)
	assert.Equal(t, "IP_ADDRESS_NOT_ON_ACCESS_LIST", refused.object(t)["errorCode"])
	om.SetAccessList("127.0.0.0/8")
	assert.Equal(t, http.StatusOK, c.get("/groups").StatusCode)

	om.RemoveAPIKey("limited")
	assert.Contains(t, challengeOf(t, c.get("/groups")), "stale=false")
}
