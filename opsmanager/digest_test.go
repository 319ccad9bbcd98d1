package opsmanager_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
)

// balancers are the ways in which several servers with nonces of their own can be
// behind one address.
func balancers() map[string]simulator.Options {
	options := map[string]simulator.Options{}
	for name, o := range map[string]simulator.Options{
		"two servers":                         {Servers: 2},
		"three servers":                       {Servers: 3},
		"two servers, by requests":            {Servers: 2, BalanceRequests: true},
		"three servers, by requests":          {Servers: 3, BalanceRequests: true},
		"two servers, by requests, one use":   {Servers: 2, BalanceRequests: true, NonceUses: 1},
		"two servers, by requests, any order": {Servers: 2, BalanceRequests: true, RelaxedNonceCount: true},
	} {
		options[name] = o
		o.NeverStale = true
		options[name+", never stale"] = o
	}
	return options
}

// A rotation's requests, 16 at a time, through a balancer: none is Unauthorized,
// and each PUT is applied once.
func TestBalancedServers(t *testing.T) {
	for name, options := range balancers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options.Latency = time.Millisecond
			om := simulator.Start(t, options)
			cluster := om.AddShardedCluster(project, "orders", 47)
			client := newClient(t, configFor(om))
			slots := make(chan struct{}, 16)
			var group sync.WaitGroup
			for _, id := range cluster.TargetIDs() {
				slots <- struct{}{}
				group.Go(func() {
					defer func() { <-slots }()
					_, err := client.EncryptionKey(t.Context(), project, id)
					assert.NoError(t, err)
					assert.NoError(t, client.RotateEncryptionKey(t.Context(), project, id, nil))
					_, err = client.EncryptionKey(t.Context(), project, id)
					assert.NoError(t, err)
				})
			}
			group.Wait()
			for _, id := range cluster.TargetIDs() {
				assert.Len(t, om.Ledger().Applied(id), 1)
			}
			if !options.BalanceRequests {
				assert.LessOrEqual(t, om.Ledger().Challenges(), 16+1, "an answer is sent over the connection that brought the challenge")
			}
		})
	}
}

// One request at a time meets the balancer in step, which never takes it to the
// server whose challenge it answers last.
func TestBalancedServersOneRequestAtATime(t *testing.T) {
	for name, options := range balancers() {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, options)
			set := om.AddReplicaSet(project, "audit")
			client := newClient(t, configFor(om))
			for range 10 {
				_, err := client.EncryptionKey(t.Context(), project, set.ID)
				require.NoError(t, err)
			}
			require.NoError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil))
			assert.Len(t, om.Ledger().Applied(set.ID), 1)
		})
	}
}

// Several servers explain only so many refusals: wrong credentials are reported
// within a bounded number of requests.
func TestWrongCredentialsBehindABalancer(t *testing.T) {
	for name, options := range balancers() {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, options)
			set := om.AddReplicaSet(project, "audit")
			config := configFor(om)
			client := newClient(t, config)
			_, err := client.EncryptionKey(t.Context(), project, set.ID)
			require.NoError(t, err)
			om.RemoveAPIKey(simulator.DefaultPublicKey)
			om.ResetLedger()
			requireError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil), opsmanager.Unauthorized)
			assert.LessOrEqual(t, len(om.Ledger().Requests), 32)
			assert.Empty(t, om.Ledger().Applied(set.ID))
		})
	}
}

func TestAnswersEveryFormOfAChallenge(t *testing.T) {
	const nonce = `nonce="{nonce}"`
	one := func(line string) []string { return []string{line} }
	for name, form := range map[string]simulator.ChallengeForm{
		"auth-int before auth":    {Lines: one(`Digest realm="x", ` + nonce + `, qop="auth-int, auth"`), QOP: "auth"},
		"auth-int only":           {Lines: one(`Digest realm="x", ` + nonce + `, qop="auth-int"`), QOP: "auth-int"},
		"qop in capitals":         {Lines: one(`Digest realm="x", ` + nonce + `, qop="AUTH"`), QOP: "auth"},
		"unquoted qop":            {Lines: one(`Digest realm="x", ` + nonce + `, qop=auth`), QOP: "auth"},
		"no qop":                  {Lines: one(`Digest realm="x", ` + nonce)},
		"basic in the same line":  {Lines: one(`Basic realm="x", Digest realm="x", ` + nonce + `, qop="auth"`), QOP: "auth"},
		"digest before basic":     {Lines: one(`Digest realm="x", ` + nonce + `, qop="auth", Basic realm="y", charset="UTF-8"`), QOP: "auth"},
		"negotiate with a token":  {Lines: one(`Negotiate YWJj/+==, Digest realm="x", ` + nonce + `, qop="auth"`), QOP: "auth"},
		"several headers":         {Lines: []string{`Basic realm="x"`, `Negotiate`, `Digest realm="x", ` + nonce + `, qop="auth"`}, QOP: "auth"},
		"MD5-sess":                {Lines: one(`Digest realm="x", ` + nonce + `, qop="auth", algorithm=MD5-sess`), QOP: "auth", Algorithm: "MD5-sess"},
		"SHA-256":                 {Lines: one(`Digest realm="x", ` + nonce + `, qop="auth", algorithm="SHA-256"`), QOP: "auth", Algorithm: "SHA-256"},
		"SHA-256-sess":            {Lines: one(`Digest realm="x", ` + nonce + `, qop="auth", algorithm=SHA-256-sess`), QOP: "auth", Algorithm: "SHA-256-sess"},
		"SHA-512-256-sess":        {Lines: one(`Digest realm="x", ` + nonce + `, qop="auth-int", algorithm=SHA-512-256-sess`), QOP: "auth-int", Algorithm: "SHA-512-256-sess"},
		"unknown algorithm first": {Lines: []string{`Digest realm="x", ` + nonce + `, qop="auth", algorithm=SHA-3`, `Digest realm="x", ` + nonce + `, qop="auth", algorithm=MD5`}, QOP: "auth", Algorithm: "MD5"},
		"comma at the end":        {Lines: one(`Digest realm="x", ` + nonce + `, qop="auth",`), QOP: "auth"},
		"empty list elements":     {Lines: one(`, ,Digest realm="x",, ` + nonce + ` , ,qop="auth" , `), QOP: "auth"},
		"spaces around =":         {Lines: one("Digest\trealm = \"x\", " + `nonce ="{nonce}", qop= "auth"`), QOP: "auth"},
		"no comma":                {Lines: one(`Digest realm="x" ` + nonce + ` qop="auth"`), QOP: "auth"},
		"names in capitals":       {Lines: one(`DIGEST REALM="x", NONCE="{nonce}", QOP="auth", STALE=FALSE`), QOP: "auth"},
		"quoted pairs":            {Lines: one(`Digest realm="a \"quoted\", \\realm", ` + nonce + `, qop="auth"`), Realm: `a "quoted", \realm`, QOP: "auth"},
		"a realm in UTF-8":        {Lines: one(`Digest realm="schlüssel ` + "\u00a0" + `", ` + nonce + `, qop="auth"`), Realm: "schlüssel \u00a0", QOP: "auth"},
		"unknown parameters":      {Lines: one(`Digest realm="x", x_y.z="1", ` + nonce + `, domain="/ http://elsewhere.example.net/", qop="auth"`), QOP: "auth"},
		"no realm":                {Lines: one(`Digest ` + nonce + `, qop="auth"`), Realm: "none", QOP: "auth"},
	} {
		t.Run(name, func(t *testing.T) {
			switch form.Realm {
			case "":
				form.Realm = "x"
			case "none":
				form.Realm = ""
			}
			om := simulator.Start(t, simulator.Options{ChallengeForm: &form, MaxItemsPerPage: 2})
			cluster := om.AddShardedCluster(project, "orders", 2)
			client := newClient(t, configFor(om))
			_, err := client.Clusters(t.Context(), project)
			require.NoError(t, err, "the query is part of the digest")
			require.NoError(t, client.RotateEncryptionKey(t.Context(), project, cluster.ConfigID, nil))
			assert.Equal(t, 1, om.Ledger().Challenges())
		})
	}
}

// What cannot be answered is quoted, and is never called wrong credentials.
func TestQuotesAChallengeThatCannotBeAnswered(t *testing.T) {
	for _, line := range []string{
		`Basic realm="x"`, `Negotiate`, `Digest realm="x", qop="auth"`, `Digest realm="x, nonce="n"`, `Digest realm="x", nonce="n", nonce="m"`,
		`Digest realm="x", nonce="n", algorithm=TOKEN`, `Digest realm="x", nonce="n", qop="auth-conf"`, `=`, `Digest`, `Bearer realm="x", nonce="n"`,
	} {
		t.Run(line, func(t *testing.T) {
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				requests++
				w.Header().Set("WWW-Authenticate", line)
				w.WriteHeader(http.StatusUnauthorized)
			}))
			defer server.Close()
			client := newClient(t, opsmanager.Config{BaseURL: server.URL, PublicKey: "u", PrivateKey: "pr1vate"})
			err := client.RotateEncryptionKey(t.Context(), project, project, nil)
			apiError := requireError(t, err, opsmanager.UnexpectedResponse)
			assert.Contains(t, apiError.Detail, line)
			assert.False(t, apiError.OutcomeUnknown)
			assert.Equal(t, 1, requests)
		})
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	defer server.Close()
	_, err := newClient(t, opsmanager.Config{BaseURL: server.URL, PublicKey: "u", PrivateKey: "pr1vate"}).EncryptionKey(t.Context(), project, project)
	assert.Contains(t, requireError(t, err, opsmanager.UnexpectedResponse).Detail, "no WWW-Authenticate header")
}

// Bytes of a realm that are not UTF-8 are sent back as they came.
func TestReturnsTheBytesOfARealm(t *testing.T) {
	var authorization string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if authorization = r.Header.Get("Authorization"); authorization == "" {
			w.Header().Set("WWW-Authenticate", "Digest realm=\"Z\xfcrich\", nonce=\"n\", opaque=\"\", qop=\"auth\"")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusCreated)
	}))
	defer server.Close()
	require.NoError(t, newClient(t, opsmanager.Config{BaseURL: server.URL, PublicKey: "u", PrivateKey: "pr1vate"}).RotateEncryptionKey(t.Context(), project, project, nil))
	assert.Contains(t, authorization, "realm=\"Z\xfcrich\"")
	assert.Contains(t, authorization, `opaque=""`)
}

// A nonce that the server names in advance costs no challenge, also where each is
// good for one request.
func TestUsesTheNextNonce(t *testing.T) {
	om := simulator.Start(t, simulator.Options{NextNonce: true, NonceUses: 1})
	set := om.AddReplicaSet(project, "audit")
	client := newClient(t, configFor(om))
	for range 5 {
		_, err := client.EncryptionKey(t.Context(), project, set.ID)
		require.NoError(t, err)
	}
	assert.Equal(t, 1, om.Ledger().Challenges())
}

// A proxy or a server may close each connection after one response.
func TestConnectionsThatAreClosedAfterEachResponse(t *testing.T) {
	for name, options := range balancers() {
		t.Run(name, func(t *testing.T) {
			om := simulator.New(options)
			defer om.Close()
			set := om.AddReplicaSet(project, "audit")
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "close")
				om.ServeHTTP(w, r)
			}))
			defer server.Close()
			config := configFor(&simulator.Server{URL: server.URL})
			client := newClient(t, config)
			for range 5 {
				_, err := client.EncryptionKey(t.Context(), project, set.ID)
				require.NoError(t, err)
			}
			require.NoError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil))
			assert.Len(t, om.Ledger().Applied(set.ID), 1)
		})
	}
}

// A PUT whose response is lost after a challenge is not sent again.
func TestAPutWithoutAResponseIsNotSentAgain(t *testing.T) {
	for name, options := range balancers() {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, options)
			set := om.AddReplicaSet(project, "audit")
			om.Inject(simulator.PutCut(set.ID, simulator.ApplyBefore))
			apiError := requireError(t, newClient(t, configFor(om)).RotateEncryptionKey(t.Context(), project, set.ID, nil), opsmanager.Unavailable)
			assert.True(t, apiError.OutcomeUnknown)
			assert.Len(t, om.Ledger().Applied(set.ID), 1)
			assert.Equal(t, 1, om.Ledger().Count(http.MethodPut, set.ID))
		})
	}
}

// The context ends the exchange of challenges between two sendings.
func TestChallengesEndWithTheContext(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.StaleNonce(http.MethodPut, set.ID).Always())
	config := configFor(om)
	config.RequestsPerSecond = 0.001
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := newClient(t, config)
	err := client.RotateEncryptionKey(ctx, project, set.ID, func() error { cancel(); return nil })
	assert.False(t, requireError(t, err, opsmanager.Unavailable).OutcomeUnknown)
	assert.True(t, strings.Contains(err.Error(), "context canceled"), err)
}
