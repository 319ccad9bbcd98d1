package opsmanager_test

import (
	"context"
	"errors"
	"fmt"
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
	"keyturn/testsuite/support/freeport"
)

const project = simulator.DefaultProjectID

func configFor(om *simulator.Server) opsmanager.Config {
	return opsmanager.Config{
		BaseURL: om.URL, PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey,
		RequestTimeout: 5 * time.Second, CAPEM: om.CAPEM,
	}
}

func newClient(t *testing.T, config opsmanager.Config) *opsmanager.Client {
	t.Helper()
	client, err := opsmanager.New(config)
	require.NoError(t, err)
	return client
}

func requireError(t *testing.T, err error, kind opsmanager.Kind) *opsmanager.Error {
	t.Helper()
	require.Error(t, err)
	apiError, ok := opsmanager.AsError(err)
	require.True(t, ok, "%T: %v", err, err)
	require.Equal(t, kind, apiError.Kind, "%v", err)
	return apiError
}

func TestRotationTakesEffectAndIsReadBack(t *testing.T) {
	om := simulator.Start(t, simulator.Options{PathPrefix: "/om"})
	set := om.AddReplicaSet(project, "audit")
	client := newClient(t, configFor(om))

	before, err := client.EncryptionKey(t.Context(), project, set.ID)
	require.NoError(t, err)
	require.NoError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil))
	after, err := client.EncryptionKey(t.Context(), project, set.ID)
	require.NoError(t, err)

	assert.NotEqual(t, before, after)
	assert.Equal(t, om.Key(set.ID), after)
	assert.Len(t, om.Ledger().Applied(set.ID), 1)
	assert.Equal(t, 1, om.Ledger().Challenges(), "one challenge serves all three requests")
}

func TestAcceptsTheResponsesOfThePut(t *testing.T) {
	for name, fault := range map[string]func(string) simulator.Fault{
		"201 {}":         simulator.PutEmptyObject,
		"201 empty":      simulator.PutEmptyBody,
		"202":            simulator.PutAccepted,
		"200 and object": simulator.PutOKWithObject,
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			set := om.AddReplicaSet(project, "audit")
			om.Inject(fault(set.ID))
			require.NoError(t, newClient(t, configFor(om)).RotateEncryptionKey(t.Context(), project, set.ID, nil))
			assert.Len(t, om.Ledger().Applied(set.ID), 1)
		})
	}
}

func TestClassifiesAnswers(t *testing.T) {
	type want struct {
		kind    opsmanager.Kind
		unknown bool
		code    string
	}
	id := func(om *simulator.Server) string { return om.Clusters()[0].ID }
	put, get := http.MethodPut, http.MethodGet
	for name, c := range map[string]struct {
		fault func(id string) simulator.Fault
		put   bool
		want  want
	}{
		"400":              {func(id string) simulator.Fault { return simulator.APIError(get, id, 400, "INVALID_ATTRIBUTE", "") }, false, want{opsmanager.UnexpectedResponse, false, "INVALID_ATTRIBUTE"}},
		"401":              {func(id string) simulator.Fault { return simulator.Unauthorized(get, id) }, false, want{opsmanager.Unauthorized, false, "USER_UNAUTHORIZED"}},
		"403":              {func(id string) simulator.Fault { return simulator.AccessListRefusal(put, id) }, true, want{opsmanager.Forbidden, false, "IP_ADDRESS_NOT_ON_ACCESS_LIST"}},
		"404":              {simulator.KeyNotFound, false, want{opsmanager.NotFound, false, "BACKUP_CONFIG_NOT_FOUND"}},
		"409 to GET":       {func(id string) simulator.Fault { return simulator.InvalidState(get, id) }, false, want{opsmanager.Unavailable, false, "CANNOT_GET_BACKUP_CONFIG_INVALID_STATE"}},
		"409 to PUT":       {func(id string) simulator.Fault { return simulator.InvalidState(put, id) }, true, want{opsmanager.Unavailable, false, "CANNOT_GET_BACKUP_CONFIG_INVALID_STATE"}},
		"429":              {func(id string) simulator.Fault { return simulator.RateLimited(put, id, "7") }, true, want{opsmanager.RateLimited, false, "RATE_LIMITED"}},
		"500 to PUT":       {func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyNo) }, true, want{opsmanager.Unavailable, true, "UNEXPECTED_ERROR"}},
		"500 to GET":       {func(id string) simulator.Fault { return simulator.ServerError(get, id, "") }, false, want{opsmanager.Unavailable, false, "UNEXPECTED_ERROR"}},
		"502 in HTML":      {func(id string) simulator.Fault { return simulator.PutBadGateway(id, simulator.ApplyBefore) }, true, want{opsmanager.Unavailable, true, ""}},
		"cut PUT":          {func(id string) simulator.Fault { return simulator.PutCut(id, simulator.ApplyBefore) }, true, want{opsmanager.Unavailable, true, ""}},
		"hanging PUT":      {func(id string) simulator.Fault { return simulator.PutHang(id, simulator.ApplyBefore) }, true, want{opsmanager.Unavailable, true, ""}},
		"hanging GET":      {simulator.KeyHang, false, want{opsmanager.Unavailable, false, ""}},
		"half a body":      {simulator.KeyCutHalfBody, false, want{opsmanager.Unavailable, false, ""}},
		"half a JSON":      {simulator.KeyHalfBody, false, want{opsmanager.UnexpectedResponse, false, ""}},
		"garbage":          {simulator.KeyGarbage, false, want{opsmanager.UnexpectedResponse, false, ""}},
		"no key":           {simulator.KeyMissing, false, want{opsmanager.EncryptionOff, false, ""}},
		"null key":         {simulator.KeyNull, false, want{opsmanager.EncryptionOff, false, ""}},
		"empty object":     {simulator.KeyEmptyObject, false, want{opsmanager.EncryptionOff, false, ""}},
		"redirect of PUT":  {func(id string) simulator.Fault { return simulator.RedirectElsewhere(put, id, "http://127.0.0.1:9/") }, true, want{opsmanager.UnexpectedResponse, true, ""}},
		"half a PUT body":  {func(id string) simulator.Fault { return simulator.PutCutHalfBody(id, simulator.ApplyBefore) }, true, want{opsmanager.Unavailable, true, ""}},
		"redirect of GET":  {func(id string) simulator.Fault { return simulator.RedirectElsewhere(get, id, "http://127.0.0.1:9/") }, false, want{opsmanager.UnexpectedResponse, false, ""}},
		"always stale PUT": {func(id string) simulator.Fault { return simulator.StaleNonce(put, id).Always() }, true, want{opsmanager.Unavailable, false, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			om.AddReplicaSet(project, "audit")
			om.Inject(c.fault(id(om)))
			config := configFor(om)
			config.RequestTimeout = 300 * time.Millisecond
			client := newClient(t, config)
			var err error
			if c.put {
				err = client.RotateEncryptionKey(t.Context(), project, id(om), nil)
			} else {
				_, err = client.EncryptionKey(t.Context(), project, id(om))
			}
			apiError := requireError(t, err, c.want.kind)
			assert.Equal(t, c.want.unknown, apiError.OutcomeUnknown)
			assert.Equal(t, c.want.code, apiError.ErrorCode)
			assert.Contains(t, err.Error(), opsmanager.KeyPath(project, id(om)))
			assert.NotContains(t, err.Error(), "<html", "a proxy's HTML is not quoted as it is")
		})
	}
}

func TestRetryAfter(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	for value, want := range map[string]time.Duration{
		"7": 7 * time.Second, "": 0, "soon": 0, "-3": 0, "99999999": 24 * time.Hour,
		time.Now().Add(time.Minute).UTC().Format(http.TimeFormat): time.Minute,
	} {
		om.Inject(simulator.RateLimited(http.MethodGet, set.ID, value))
		_, err := newClient(t, configFor(om)).EncryptionKey(t.Context(), project, set.ID)
		assert.InDelta(t, want, requireError(t, err, opsmanager.RateLimited).RetryAfter, float64(2*time.Second), value)
	}
}

func TestRefusesInvalidIDs(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	client := newClient(t, configFor(om))
	for _, id := range []string{"", "../../users", "5196d3628d022db4cbc26d9", "5196d3628d022db4cbc26d9g", "5196d3628d022db4cbc26d9e/x", "5196d3628d022db4cbc26d9e?", strings.Repeat("a", 1<<20)} {
		_, err := client.EncryptionKey(t.Context(), project, id)
		requireError(t, err, opsmanager.InvalidID)
		requireError(t, client.RotateEncryptionKey(t.Context(), id, project, nil), opsmanager.InvalidID)
		_, err = client.Clusters(t.Context(), id)
		requireError(t, err, opsmanager.InvalidID)
	}
	assert.Empty(t, om.Ledger().Requests)
}

func TestResponseMustBeAboutTheRequestedKey(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	other := strings.Repeat("e", 24)
	for name, body := range map[string]string{
		"another cluster":    fmt.Sprintf(`{"clusterId":%q,"groupId":%q,"encryptionKeyUUID":"k"}`, other, project),
		"another project":    fmt.Sprintf(`{"clusterId":%q,"groupId":%q,"encryptionKeyUUID":"k"}`, set.ID, other),
		"no ids":             `{"encryptionKeyUUID":"k"}`,
		"a number for a key": fmt.Sprintf(`{"clusterId":%q,"groupId":%q,"encryptionKeyUUID":7}`, set.ID, project),
		"control characters": fmt.Sprintf(`{"clusterId":%q,"groupId":%q,"encryptionKeyUUID":"a\nb"}`, set.ID, project),
		"a key without end":  fmt.Sprintf(`{"clusterId":%q,"groupId":%q,"encryptionKeyUUID":%q}`, set.ID, project, strings.Repeat("k", 300)),
		"a list":             `[]`,
		"HTML":               `<html><head><title>Log in</title></head></html>`,
		"nothing":            ``,
		"two objects":        `{}{}`,
	} {
		t.Run(name, func(t *testing.T) {
			om.Inject(simulator.Fault{Method: http.MethodGet, ClusterID: set.ID, Status: 200, Body: body})
			_, err := newClient(t, configFor(om)).EncryptionKey(t.Context(), project, set.ID)
			requireError(t, err, opsmanager.UnexpectedResponse)
		})
	}
}

func TestParallelRequestsAreNeverUnauthorized(t *testing.T) {
	for name, options := range map[string]simulator.Options{
		"strict count":          {},
		"short-lived nonces":    {NonceLifetime: 300 * time.Millisecond},
		"three uses of a nonce": {NonceUses: 3},
		"one use of a nonce":    {NonceUses: 1},
		"any count":             {RelaxedNonceCount: true},
	} {
		t.Run(name, func(t *testing.T) {
			options.Latency = 10 * time.Millisecond
			om := simulator.Start(t, options)
			cluster := om.AddShardedCluster(project, "orders", 31)
			client := newClient(t, configFor(om))
			var group sync.WaitGroup
			for _, id := range cluster.TargetIDs() {
				group.Go(func() {
					for range 25 {
						_, err := client.EncryptionKey(t.Context(), project, id)
						assert.NoError(t, err)
					}
				})
			}
			group.Wait()
		})
	}
}

func TestReusesChallenges(t *testing.T) {
	om := simulator.Start(t, simulator.Options{Latency: time.Millisecond})
	cluster := om.AddShardedCluster(project, "orders", 15)
	client := newClient(t, configFor(om))
	const parallel = 8
	turns := make(chan struct{}, parallel)
	var group sync.WaitGroup
	for range 20 {
		for _, id := range cluster.TargetIDs() {
			turns <- struct{}{}
			group.Go(func() {
				defer func() { <-turns }()
				_, err := client.EncryptionKey(t.Context(), project, id)
				assert.NoError(t, err)
			})
		}
	}
	group.Wait()
	assert.LessOrEqual(t, om.Ledger().Challenges(), parallel, "one for each request in flight, not for each request")
}

// A server may give the same nonce to all requests, whether or not it insists on
// growing counts.
func TestOneNonceForAllRequests(t *testing.T) {
	for name, strict := range map[string]bool{"any order": false, "insists on the order": true} {
		t.Run(name, func(t *testing.T) {
			server := newSharedNonceServer(t, strict)
			client := newClient(t, opsmanager.Config{BaseURL: server.URL, PublicKey: "u", PrivateKey: "pr1vate"})
			var group sync.WaitGroup
			for range 16 {
				group.Go(func() {
					for range 10 {
						_, err := client.EncryptionKey(t.Context(), project, project)
						assert.NoError(t, err)
					}
				})
			}
			group.Wait()
		})
	}
}

func newSharedNonceServer(t *testing.T, strict bool) *httptest.Server {
	var mu sync.Mutex
	var last string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, after, found := strings.Cut(r.Header.Get("Authorization"), "nc=")
		time.Sleep(time.Millisecond) // lets requests overtake each other
		mu.Lock()
		defer mu.Unlock()
		if !found || strict && after[:8] <= last {
			w.Header().Set("WWW-Authenticate", `Digest realm="MMS Public API", nonce="shared", qop="auth"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		last = after[:8]
		_, _ = fmt.Fprintf(w, `{"clusterId":%q,"groupId":%q,"encryptionKeyUUID":"k"}`, project, project)
	}))
	t.Cleanup(server.Close)
	return server
}

// A refused answer of a fresh challenge is repeated, because a balancer may have
// sent it to another server, but not for long.
func TestWrongCredentialsAreReportedSoon(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	config := configFor(om)
	config.PrivateKey = "wrong"
	_, err := newClient(t, config).EncryptionKey(t.Context(), project, set.ID)
	requireError(t, err, opsmanager.Unauthorized)
	assert.Len(t, om.Ledger().Requests, 13, "a challenge and twelve answers")
}

func TestRevokedKeyIsReported(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	client := newClient(t, configFor(om))
	_, err := client.EncryptionKey(t.Context(), project, set.ID)
	require.NoError(t, err)
	om.RemoveAPIKey(simulator.DefaultPublicKey)
	_, err = client.EncryptionKey(t.Context(), project, set.ID)
	requireError(t, err, opsmanager.Unauthorized)
}

func TestARequestThatNetHTTPRepeatsIsNotUnauthorized(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	client := newClient(t, configFor(om))
	om.Inject(simulator.KeyCut(set.ID))
	_, err := client.EncryptionKey(t.Context(), project, set.ID)
	require.NoError(t, err)
}

func TestServerRestartForgetsNonces(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	client := newClient(t, configFor(om))
	_, err := client.EncryptionKey(t.Context(), project, set.ID)
	require.NoError(t, err)
	om.Restart()
	_, err = client.EncryptionKey(t.Context(), project, set.ID)
	require.NoError(t, err)
	require.NoError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil))
	assert.Len(t, om.Ledger().Applied(set.ID), 1)
}

func TestAnswersNoOtherAuthentication(t *testing.T) {
	var authorizations []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorizations = append(authorizations, r.Header.Get("Authorization"))
		w.Header().Add("WWW-Authenticate", `Basic realm="x"`)
		w.Header().Add("WWW-Authenticate", `Negotiate`)
		w.Header().Add("WWW-Authenticate", `Digest realm="x", nonce="n", algorithm=TOKEN, qop="auth"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	client := newClient(t, opsmanager.Config{BaseURL: server.URL, PublicKey: "u", PrivateKey: "pr1vate"})
	_, err := client.EncryptionKey(t.Context(), project, project)
	apiError := requireError(t, err, opsmanager.UnexpectedResponse)
	assert.Contains(t, apiError.Error(), `Basic realm="x", Negotiate, Digest realm="x", nonce="n", algorithm=TOKEN`, "the challenge is quoted")
	assert.Equal(t, []string{""}, authorizations)
}

func TestErrorsHoldNoSecret(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte(`{"errorCode":"X-s3cret","detail":"your key s3cret is \u001b[31mred` + strings.Repeat("é", 2000) + `"}`))
	}))
	defer server.Close()
	client := newClient(t, opsmanager.Config{BaseURL: server.URL, PublicKey: "u", PrivateKey: "s3cret"})
	_, err := client.EncryptionKey(t.Context(), project, project)
	requireError(t, err, opsmanager.Unavailable)
	assert.NotContains(t, err.Error(), "s3cret")
	assert.NotContains(t, err.Error(), "\x1b")
	assert.Less(t, len(err.Error()), 700)
}

func TestListsAllPages(t *testing.T) {
	for _, perPage := range []int{100, 500} {
		om := simulator.Start(t, simulator.Options{MaxItemsPerPage: perPage})
		om.AddShardedCluster(project, "orders", 620)
		clusters, err := newClient(t, configFor(om)).Clusters(t.Context(), project)
		require.NoError(t, err)
		assert.Len(t, clusters, 622)
	}
}

func TestRefusesIncompleteLists(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	next := `{"rel":"next","href":"http://127.0.0.1:9/steal"}`
	one := fmt.Sprintf(`{"id":%q,"groupId":%q,"clusterName":"a","typeName":"REPLICA_SET"}`, set.ID, project)
	for name, body := range map[string]string{
		"fewer than the total": `{"results":[` + one + `],"totalCount":2}`,
		"no results":           `{"totalCount":0}`,
		"never ending":         `{"links":[` + next + `],"results":[` + one + `],"totalCount":9}`,
		"another project's":    `{"results":[{"id":"` + set.ID + `","groupId":"` + set.ID + `","typeName":"REPLICA_SET"}],"totalCount":1}`,
		"a malformed shard":    `{"results":[{"id":5,"groupId":"` + project + `","shardName":"orders-0"}],"totalCount":1}`,
		"one cluster twice":    `{"results":[` + one + `,` + one + `],"totalCount":2}`,
	} {
		t.Run(name, func(t *testing.T) {
			om.ClearFaults()
			om.Inject(simulator.Fault{Kind: simulator.KindClusters, Status: 200, Body: body, Times: simulator.Forever})
			_, err := newClient(t, configFor(om)).Clusters(t.Context(), project)
			requireError(t, err, opsmanager.UnexpectedResponse)
		})
	}
}

func TestReadsOneCluster(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	client := newClient(t, configFor(om))
	got, err := client.Cluster(t.Context(), project, cluster.ID)
	require.NoError(t, err)
	assert.Equal(t, opsmanager.TypeShardedReplicaSet, got.TypeName)
	assert.Equal(t, "orders", got.ClusterName)
	_, err = client.Cluster(t.Context(), project, strings.Repeat("f", 24))
	requireError(t, err, opsmanager.NotFound)
}

func TestNothingIsSentWithoutAConnection(t *testing.T) {
	port, err := freeport.Choose()
	require.NoError(t, err)
	for _, url := range []string{"http://" + freeport.Address(port), "https://name.invalid"} {
		client := newClient(t, opsmanager.Config{BaseURL: url, PublicKey: "u", PrivateKey: "pr1vate"})
		apiError := requireError(t, client.RotateEncryptionKey(t.Context(), project, project, nil), opsmanager.Unavailable)
		assert.False(t, apiError.OutcomeUnknown, url)
		assert.Empty(t, apiError.CertificateFault(), url)
	}
}

func TestBeforeSendPreventsAPut(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	refusal := errors.New("not now")
	err := newClient(t, configFor(om)).RotateEncryptionKey(t.Context(), project, set.ID, func() error { return refusal })
	require.ErrorIs(t, err, refusal)
	assert.Empty(t, om.Ledger().Requests)
}

func TestACanceledContextDoesNotInterruptAPut(t *testing.T) {
	om := simulator.Start(t, simulator.Options{Latency: 100 * time.Millisecond})
	set := om.AddReplicaSet(project, "audit")
	ctx, cancel := context.WithCancel(t.Context())
	client := newClient(t, configFor(om))
	err := client.RotateEncryptionKey(ctx, project, set.ID, func() error { time.AfterFunc(20*time.Millisecond, cancel); return nil })
	require.NoError(t, err)
}

func TestLimitsOfRequests(t *testing.T) {
	om := simulator.Start(t, simulator.Options{Latency: 20 * time.Millisecond})
	cluster := om.AddShardedCluster(project, "orders", 11)
	config := configFor(om)
	config.MaxInFlight, config.RequestsPerSecond = 3, 200
	client := newClient(t, config)
	var group sync.WaitGroup
	for _, id := range cluster.TargetIDs() {
		group.Go(func() {
			_, err := client.EncryptionKey(t.Context(), project, id)
			assert.NoError(t, err)
		})
	}
	group.Wait()
	ledger := om.Ledger()
	assert.LessOrEqual(t, ledger.MaxInFlight(), 3)
	assert.LessOrEqual(t, ledger.MaxPer(50*time.Millisecond), 13)
}

// No response can direct a request, with or without credentials, to another host.
func TestNothingIsSentToAnotherHost(t *testing.T) {
	visits := make(chan string, 100)
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		visits <- r.Method + " " + r.URL.String() + " " + r.Header.Get("Authorization")
		w.Header().Set("WWW-Authenticate", `Digest realm="MMS Public API", nonce="stolen", qop="auth"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer thief.Close()
	om := simulator.Start(t, simulator.Options{CentralURL: thief.URL, MaxItemsPerPage: 2})
	cluster := om.AddShardedCluster(project, "orders", 3)
	client := newClient(t, configFor(om))

	clusters, err := client.Clusters(t.Context(), project)
	require.NoError(t, err, "the pages' links to another host are not followed")
	assert.Len(t, clusters, 5)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, method := range []string{http.MethodGet, http.MethodPut} {
			fault := simulator.RedirectElsewhere(method, cluster.ConfigID, thief.URL+"/api/public/v1.0/x")
			fault.Status = status
			om.Inject(fault)
		}
		_, err := client.EncryptionKey(t.Context(), project, cluster.ConfigID)
		requireError(t, err, opsmanager.UnexpectedResponse)
		requireError(t, client.RotateEncryptionKey(t.Context(), project, cluster.ConfigID, nil), opsmanager.UnexpectedResponse)
	}
	for header, value := range map[string]string{
		"Proxy-Authenticate": `Digest realm="MMS Public API", nonce="n", qop="auth"`,
		"Location":           thief.URL,
		"Content-Location":   thief.URL,
		"Refresh":            "0; url=" + thief.URL,
		"Alt-Svc":            `h2="` + strings.TrimPrefix(thief.URL, "http://") + `"`,
	} {
		om.Inject(simulator.Fault{Method: http.MethodGet, ClusterID: cluster.ConfigID, Status: 407, Header: map[string]string{header: value}})
		_, err := client.EncryptionKey(t.Context(), project, cluster.ConfigID)
		requireError(t, err, opsmanager.UnexpectedResponse)
	}
	assert.Empty(t, visits)
}

// A challenge that names another realm or domain is answered only to the server
// that it came from.
func TestChallengeOfAnotherDomain(t *testing.T) {
	hosts := map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts[r.Host] = true
		w.Header().Set("WWW-Authenticate", `Digest realm="elsewhere", domain="http://127.0.0.1:9/", nonce="n", qop="auth"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	client := newClient(t, opsmanager.Config{BaseURL: server.URL, PublicKey: "u", PrivateKey: "pr1vate"})
	_, err := client.EncryptionKey(t.Context(), project, project)
	requireError(t, err, opsmanager.Unauthorized)
	assert.Equal(t, map[string]bool{strings.TrimPrefix(server.URL, "http://"): true}, hosts)
}

// The response that calls a nonce stale may come after the request's timeout.
func TestStaleNonceIsReportedLate(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	fault := simulator.StaleNonce(http.MethodGet, set.ID)
	fault.Delay = time.Minute
	om.Inject(fault)
	config := configFor(om)
	config.RequestTimeout = 200 * time.Millisecond
	_, err := newClient(t, config).EncryptionKey(t.Context(), project, set.ID)
	requireError(t, err, opsmanager.Unavailable)
}

// Projects come with a secret of each, which is neither kept nor quoted.
func TestProjectsAreListedByTheirIDsOnly(t *testing.T) {
	om := simulator.Start(t, simulator.Options{MaxItemsPerPage: 2})
	var want []string
	for i := range 5 {
		id := fmt.Sprintf("65a1f0c2d3e4b5a69788000%d", i)
		om.AddProject(simulator.Project{ID: id})
		want = append(want, id)
	}
	client := newClient(t, configFor(om))
	ids, err := client.Projects(t.Context())
	require.NoError(t, err)
	assert.Subset(t, ids, want)

	for _, body := range []string{
		`[{"agentApiKey": "` + simulator.PlantedSecret + `"}]`,
		`{"results": "` + simulator.PlantedSecret + `"}`,
		`{"results": [{"id": "` + simulator.PlantedSecret + `"}]}`,
		`{"results": [{"id": 5, "agentApiKey": "` + simulator.PlantedSecret + `"}]`,
	} {
		for status, kind := range map[int]opsmanager.Kind{http.StatusOK: opsmanager.UnexpectedResponse, http.StatusNotFound: opsmanager.NotFound} {
			om.Inject(simulator.Fault{Method: http.MethodGet, Status: status, Body: body, ContentType: "application/json"})
			_, err := client.Projects(t.Context())
			assert.NotContains(t, requireError(t, err, kind).Error(), simulator.PlantedSecret[:8])
		}
	}
}
