package simulator_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
)

// long is a time that no test waits for.
const long = time.Hour

// onReplicaSet starts a simulator with one replica set.
func onReplicaSet(t *testing.T, o simulator.Options) (*simulator.Server, *client, string) {
	om := simulator.Start(t, o)
	return om, newClient(t, om), om.AddReplicaSet(project, "audit").ID
}

func TestFaultsThatAnswerAPut(t *testing.T) {
	tests := []struct {
		name    string
		fault   func(clusterID string) simulator.Fault
		status  int
		body    string // empty: not compared
		applied bool
	}{
		{"201 {}", simulator.PutEmptyObject, 201, "{}", true},
		{"201 empty", simulator.PutEmptyBody, 201, "", true},
		{"202", simulator.PutAccepted, 202, "{}", true},
		{"200 object", simulator.PutOKWithObject, 200, "", true},
		{"unchanging", simulator.PutUnchanging, 201, "{}", false},
		{"500 applied", func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyBefore) }, 500, "", true},
		{"500 not applied", func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyNo) }, 500, "", false},
		{"502 applied", func(id string) simulator.Fault { return simulator.PutBadGateway(id, simulator.ApplyBefore) }, 502, "", true},
		{"502 not applied", func(id string) simulator.Fault { return simulator.PutBadGateway(id, simulator.ApplyNo) }, 502, "", false},
		{"409", func(id string) simulator.Fault { return simulator.InvalidState("PUT", id) }, 409, "", false},
		{"429", func(id string) simulator.Fault { return simulator.RateLimited("PUT", id, "") }, 429, "", false},
		{"302", func(id string) simulator.Fault {
			return simulator.RedirectElsewhere("PUT", id, "https://elsewhere.example.net/")
		}, 302, "", false},
		{"stale nonce", func(id string) simulator.Fault { return simulator.StaleNonce("PUT", id) }, 401, "", false},
		{"401", func(id string) simulator.Fault { return simulator.Unauthorized("PUT", id) }, 401, "", false},
		{"403", func(id string) simulator.Fault { return simulator.AccessListRefusal("PUT", id) }, 403, "", false},
		{"any error", func(id string) simulator.Fault {
			return simulator.APIError("PUT", id, 403, "FEATURE_UNSUPPORTED", simulator.ApplyNo)
		}, 403, "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			om, c, id := onReplicaSet(t, simulator.Options{})
			before := om.Key(id)
			om.Inject(test.fault(id))
			assert.Equal(t, 1, om.FaultsLeft())
			c.readKey(id)
			assert.Equal(t, 1, om.FaultsLeft(), "a GET doesn't meet it")
			answered := c.rotate(id)
			assert.Equal(t, test.status, answered.StatusCode)
			if test.body != "" {
				assert.Equal(t, test.body, string(answered.body))
			}
			assert.Equal(t, test.applied, om.Key(id) != before)
			requests := om.Ledger().Requests
			put := requests[len(requests)-1]
			assert.Equal(t, test.applied, put.Applied)
			assert.NotEmpty(t, put.Fault)
			assert.Equal(t, test.status, put.Status)
			assert.Zero(t, om.FaultsLeft())

			c.nonce = ""
			assert.Equal(t, http.StatusCreated, c.rotate(id).StatusCode, "the fault is over")
		})
	}
}

func TestBodiesAndHeadersOfFaults(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{})
	om.Inject(simulator.PutEmptyBody(id))
	answered := c.rotate(id)
	assert.Empty(t, answered.body)
	assert.Empty(t, answered.Header.Get("Content-Type"))

	om.Inject(simulator.PutOKWithObject(id))
	shown := c.rotate(id).object(t)["encryptionKeyUUID"]
	assert.Equal(t, om.Key(id), shown)

	om.Inject(simulator.RateLimited("", "", "7"))
	answered = c.get("/groups")
	assert.Equal(t, "7", answered.Header.Get("Retry-After"))
	assert.Equal(t, "RATE_LIMITED", answered.object(t)["errorCode"])

	om.Inject(simulator.ProxyError("", "", 503, simulator.ApplyNo).On(simulator.KindProjects))
	answered = c.get("/groups")
	assert.Equal(t, 503, answered.StatusCode)
	assert.Contains(t, answered.Header.Get("Content-Type"), "text/html")
	assert.Contains(t, string(answered.body), "<h1>503 Service Unavailable</h1>")

	om.Inject(simulator.RedirectElsewhere("", "", "https://elsewhere.example.net/"))
	assert.Equal(t, "https://elsewhere.example.net/", c.get("/groups").Header.Get("Location"))

	om.Inject(simulator.Unauthorized("", ""))
	answered = c.get("/groups")
	assert.Empty(t, answered.Header.Get("WWW-Authenticate"))

	om.Inject(simulator.StaleNonce("", ""))
	assert.Contains(t, challengeOf(t, c.get("/groups")), "stale=true")
	assert.Contains(t, challengeOf(t, c.get("/groups")), "stale=true", "the nonce stays stale")
}

func TestFaultsThatAnswerARead(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{})
	read := func(f simulator.Fault) reply {
		om.Inject(f)
		return c.get(keyPath(id))
	}
	ids := map[string]any{"clusterId": id, "groupId": project}
	assert.Equal(t, ids, read(simulator.KeyMissing(id)).object(t))
	ids["encryptionKeyUUID"] = nil
	assert.Equal(t, ids, read(simulator.KeyNull(id)).object(t))
	assert.Equal(t, "{}", string(read(simulator.KeyEmptyObject(id)).body))
	half := read(simulator.KeyHalfBody(id))
	assert.NoError(t, half.bodyErr)
	assert.False(t, json.Valid(half.body))
	assert.Contains(t, string(half.body), id)
	garbage := read(simulator.KeyGarbage(id))
	assert.Equal(t, http.StatusOK, garbage.StatusCode)
	assert.False(t, json.Valid(garbage.body))
	assert.Equal(t, "BACKUP_CONFIG_NOT_FOUND", read(simulator.KeyNotFound(id)).object(t)["errorCode"])
	assert.ErrorIs(t, read(simulator.KeyCutHalfBody(id)).bodyErr, io.ErrUnexpectedEOF)
	assert.Equal(t, om.Key(id), read(simulator.KeyDelayed(id, time.Millisecond)).object(t)["encryptionKeyUUID"])
	assert.Zero(t, om.FaultsLeft())
}

func TestStaleReadAfterNewerRead(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{})
	om.Inject(simulator.KeyStale(id))
	before := c.readKey(id)
	assert.Equal(t, before, c.readKey(id))
	c.rotate(id)
	after := c.readKey(id)
	assert.NotEqual(t, before, after)
	assert.Equal(t, before, c.readKey(id), "stale")
	assert.Equal(t, after, c.readKey(id))
}

func TestKeyThatShowsLate(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{ShowAfter: long})
	before := om.Key(id)
	c.rotate(id)
	assert.Equal(t, before, c.readKey(id))
	assert.Equal(t, before, om.ShownKey(id))
	applied := om.Ledger().Applied(id)
	require.Len(t, applied, 1)
	assert.Equal(t, applied[0].NewKey, om.Key(id))

	om.Inject(simulator.PutShownLate(id, 20*time.Millisecond))
	c.rotate(id)
	require.Eventually(t, func() bool { return c.readKey(id) == om.Key(id) }, 10*time.Second, time.Millisecond)
}

func TestCutConnections(t *testing.T) {
	for _, apply := range []simulator.Apply{simulator.ApplyNo, simulator.ApplyBefore} {
		om, c, id := onReplicaSet(t, simulator.Options{})
		om.Inject(simulator.PutCut(id, apply))
		om.Inject(simulator.PutCutHalfBody(id, apply))
		_, err := c.try(http.MethodPut, keyPath(id))
		require.ErrorIs(t, err, io.EOF)
		assert.ErrorIs(t, c.rotate(id).bodyErr, io.ErrUnexpectedEOF)

		cut := om.Ledger().Select(func(r simulator.Request) bool { return r.Outcome == simulator.OutcomeCut })
		require.Len(t, cut, 2)
		assert.Zero(t, cut[0].Status)
		assert.Equal(t, http.StatusOK, cut[1].Status)
		assert.Len(t, om.Ledger().Applied(id), map[simulator.Apply]int{simulator.ApplyNo: 0, simulator.ApplyBefore: 2}[apply])
	}
}

// giveUp sends a PUT and abandons it when the ledger fulfils a condition.
func giveUp(t *testing.T, om *simulator.Server, c *client, id string, when func(simulator.Ledger) bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	authorization := c.authorize(http.MethodPut, keyPath(id))
	go func() {
		_, err := c.raw(ctx, http.MethodPut, keyPath(id), authorization)
		ended <- err
	}()
	await(t, om, when)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func outcomes(l simulator.Ledger, outcome simulator.Outcome) int {
	return len(l.Select(func(r simulator.Request) bool { return r.Outcome == outcome }))
}

func TestHang(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{})
	om.Inject(simulator.PutHang(id, simulator.ApplyBefore))
	giveUp(t, om, c, id, func(l simulator.Ledger) bool {
		return len(l.Applied(id)) == 1 && outcomes(l, simulator.OutcomeHung) == 1
	})
	await(t, om, func(l simulator.Ledger) bool {
		hung := l.Select(func(r simulator.Request) bool { return r.Outcome == simulator.OutcomeHung })
		return !hung[0].End.IsZero()
	})
	om.Inject(simulator.KeyHang(id))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.raw(ctx, http.MethodGet, keyPath(id), c.authorize(http.MethodGet, keyPath(id)))
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}

// What waits at a gate goes on when it is opened, and what comes then meets none.
func TestGate(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{})
	om.Inject(simulator.PutsGated(id).Skipping(1))
	assert.Equal(t, http.StatusCreated, c.rotate(id).StatusCode, "the first one is let through")
	authorization := c.authorize(http.MethodPut, keyPath(id))
	ended := make(chan reply, 1)
	go func() {
		answered, err := c.raw(context.Background(), http.MethodPut, keyPath(id), authorization)
		assert.NoError(t, err)
		ended <- answered
	}()
	await(t, om, func(l simulator.Ledger) bool { return len(l.Applied(id)) == 2 })
	assert.Equal(t, om.Key(id), c.readKey(id), "a read passes by")
	assert.Empty(t, ended)
	om.ClearFaults()
	assert.Equal(t, http.StatusCreated, (<-ended).StatusCode)
	assert.Equal(t, http.StatusCreated, c.rotate(id).StatusCode)

	om.Inject(simulator.PutsGated(id))
	giveUp(t, om, c, id, func(l simulator.Ledger) bool { return len(l.Applied(id)) == 4 })
	await(t, om, func(l simulator.Ledger) bool { return outcomes(l, simulator.OutcomeAbandoned) == 1 })
}

func TestAbandonedDelay(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{})
	om.Inject(simulator.PutDelayed(id, long))
	giveUp(t, om, c, id, func(l simulator.Ledger) bool { return len(l.Applied(id)) == 1 })
	await(t, om, func(l simulator.Ledger) bool { return outcomes(l, simulator.OutcomeAbandoned) == 1 })
}

func TestPutAppliedAfterItsCallerHasGone(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{})
	om.Inject(simulator.PutAppliedLate(id, 50*time.Millisecond))
	before := om.Key(id)
	giveUp(t, om, c, id, func(l simulator.Ledger) bool { return outcomes(l, simulator.OutcomeHung) == 1 })
	await(t, om, func(l simulator.Ledger) bool { return len(l.Applied(id)) == 1 })
	assert.NotEqual(t, before, om.Key(id))

	om.Inject(simulator.PutServerError(id, simulator.ApplyNo).AppliedAfter(time.Millisecond))
	assert.Equal(t, 500, c.rotate(id).StatusCode)
	await(t, om, func(l simulator.Ledger) bool { return len(l.Applied(id)) == 2 })
}

func TestCloseGivesUpLateApplications(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{})
	om.Inject(simulator.PutServerError(id, simulator.ApplyNo).AppliedAfter(long))
	c.rotate(id)
	om.Close()
	assert.Empty(t, om.Ledger().Applied(""))
}

func TestFaultsComposeInOrder(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{})
	om.Inject(simulator.ServerError("GET", id, simulator.ApplyNo).Skipping(1).Repeated(2))
	om.Inject(simulator.InvalidState("GET", id))
	om.Inject(simulator.RateLimited("", "", "").On(simulator.KindKey).Always())
	var statuses []int
	for range 5 {
		statuses = append(statuses, c.get(keyPath(id)).StatusCode)
	}
	assert.Equal(t, []int{409, 500, 500, 429, 429}, statuses)
	assert.Equal(t, http.StatusOK, c.get("/groups").StatusCode)
	assert.Zero(t, om.FaultsLeft())
	om.ClearFaults()
	assert.Equal(t, http.StatusOK, c.get(keyPath(id)).StatusCode)
}

func TestFaultBeforeAuthentication(t *testing.T) {
	om, c, _ := onReplicaSet(t, simulator.Options{})
	f := simulator.ProxyError("", "", 502, simulator.ApplyNo)
	f.BeforeAuthentication = true
	om.Inject(f)
	answered, err := c.raw(t.Context(), http.MethodGet, "/groups", "")
	require.NoError(t, err)
	assert.Equal(t, 502, answered.StatusCode)
	assert.Zero(t, om.Ledger().Challenges())
}

func TestFaultOnAParentAppliesNothing(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	orders := om.AddShardedCluster(project, "orders", 1)
	om.Inject(simulator.PutServerError("", simulator.ApplyBefore))
	assert.Equal(t, 500, newClient(t, om).rotate(orders.ID).StatusCode)
	assert.Empty(t, om.Ledger().Applied(""))
	assert.Len(t, om.Ledger().PutsOnParents(), 1)
}

func TestInvalidFaults(t *testing.T) {
	get := func(change func(*simulator.Fault)) simulator.Fault {
		f := simulator.Fault{Method: "GET"}
		change(&f)
		return f
	}
	invalid := map[string]simulator.Fault{
		"unsaid apply":        {},
		"unknown apply":       {Apply: "perhaps"},
		"unknown kind":        get(func(f *simulator.Fault) { f.Kind = "keys" }),
		"negative skip":       get(func(f *simulator.Fault) { f.Skip = -1 }),
		"times":               get(func(f *simulator.Fault) { f.Times = -2 }),
		"stale clusters":      get(func(f *simulator.Fault) { f.StaleReads, f.Kind = true, simulator.KindClusters }),
		"open door":           get(func(f *simulator.Fault) { f.BeforeAuthentication = true }),
		"applied stale nonce": {StaleNonce: true, Apply: simulator.ApplyBefore},
		"apply after":         {Apply: simulator.ApplyNo, ApplyAfter: 1},
		"show after":          {Apply: simulator.ApplyNo, ShowAfter: 1},
		"status":              get(func(f *simulator.Fault) { f.Status = 100 }),
		"body":                get(func(f *simulator.Fault) { f.Body = "x" }),
		"content type":        get(func(f *simulator.Fault) { f.ContentType = "text/plain" }),
		"answer":              get(func(f *simulator.Fault) { f.Answer = "x" }),
		"cut":                 get(func(f *simulator.Fault) { f.Cut = "x" }),
		"delay":               get(func(f *simulator.Fault) { f.Delay = -1 }),
		"gated stale nonce":   get(func(f *simulator.Fault) { f.Gated, f.StaleNonce = true, true }),
		"hang and cut":        get(func(f *simulator.Fault) { f.Hang, f.Cut = true, simulator.CutNoAnswer }),
		"hang and status":     get(func(f *simulator.Fault) { f.Hang, f.Status = true, 500 }),
	}
	om := simulator.New(simulator.Options{})
	defer om.Close()
	for name, fault := range invalid {
		assert.Error(t, fault.Validate(), name)
		assert.Panics(t, func() { om.Inject(fault) }, name)
	}
}

func TestFaultJSON(t *testing.T) {
	f := simulator.PutShownLate("65a1f1aa0000000000000001", 1500*time.Millisecond)
	f.Delay, f.Header = 2*time.Second, map[string]string{"Retry-After": "3"}
	text, err := json.Marshal(f)
	require.NoError(t, err)
	assert.JSONEq(t, `{"name":"put shown late","method":"PUT","kind":"key","clusterId":"65a1f1aa0000000000000001",
		"apply":"before","showAfter":"1.5s","delay":"2s","header":{"Retry-After":"3"}}`, string(text))
	var read simulator.Fault
	require.NoError(t, json.Unmarshal(text, &read))
	assert.Equal(t, f, read)
	for _, refused := range []string{`{"unknown":1}`, `{"delay":"soon"}`, `{"delay":2}`} {
		assert.Error(t, json.Unmarshal([]byte(refused), &read), refused)
	}
}

func TestLatency(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{Latency: 10 * time.Millisecond})
	began := time.Now()
	c.readKey(id)
	assert.GreaterOrEqual(t, time.Since(began), 10*time.Millisecond)
	for _, r := range om.Ledger().Requests {
		assert.Equal(t, r.Authenticated, r.End.Sub(r.Start) >= 10*time.Millisecond, "a challenge isn't delayed")
	}
}

func TestGoSendsACutGetAgain(t *testing.T) {
	om, c, id := onReplicaSet(t, simulator.Options{})
	c.readKey(id)
	om.Inject(simulator.KeyCut(id))
	answered := c.get(keyPath(id))
	assert.Equal(t, http.StatusUnauthorized, answered.StatusCode, "its nonce count is used up")
}
