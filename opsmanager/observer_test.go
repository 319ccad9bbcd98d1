package opsmanager_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
)

// recorder is an Observer that records everything.
type recorder struct {
	mu       sync.Mutex
	entries  []string
	waited   time.Duration
	inFlight int
	most     int
}

func (d *recorder) write(change int, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, fmt.Sprintf(format, args...))
	d.inFlight += change
	d.most = max(d.most, d.inFlight)
}

func (d *recorder) Waited(pause time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waited += pause
}

func (d *recorder) Sent(method string) { d.write(1, "%s sent", method) }

func (d *recorder) Answered(method string, statusCode int, _ time.Duration) {
	d.write(-1, "%s %d", method, statusCode)
}

func (d *recorder) Ended(method string, err *opsmanager.Error) {
	if err == nil {
		d.write(0, "%s ended", method)
		return
	}
	d.write(0, "%s ended: %s", method, err.Kind)
}

func (d *recorder) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.entries)
}

func newObserved(t *testing.T, config opsmanager.Config) (*opsmanager.Client, *recorder) {
	t.Helper()
	d := &recorder{}
	config.Observer = d
	return newClient(t, config), d
}

func TestObserverReceivesEachRequestAndCall(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	client, d := newObserved(t, configFor(om))

	require.NoError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil))
	assert.Equal(t, []string{"PUT sent", "PUT 401", "PUT sent", "PUT 201", "PUT ended"}, d.read(), "the challenge is a request of its own")

	om.Inject(simulator.ServerError(http.MethodGet, set.ID, ""))
	_, err := client.EncryptionKey(t.Context(), project, set.ID)
	requireError(t, err, opsmanager.Unavailable)
	assert.Equal(t, []string{"GET sent", "GET 500", "GET ended: Unavailable"}, d.read()[5:])

	om.Stop()
	_, err = client.EncryptionKey(t.Context(), project, set.ID)
	requireError(t, err, opsmanager.Unavailable)
	assert.Equal(t, []string{"GET sent", "GET 0", "GET ended: Unavailable"}, d.read()[8:])
}

// A login page has status 200: the request succeeded, the call did not.
func TestObserverReceivesAResponseThatIsNotTheAPIs(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.Fault{Method: http.MethodGet, Status: http.StatusOK, Body: "<title>Log in</title>", ContentType: "text/html"})
	client, d := newObserved(t, configFor(om))
	_, err := client.EncryptionKey(t.Context(), project, set.ID)
	requireError(t, err, opsmanager.UnexpectedResponse)
	assert.Contains(t, d.read(), "GET 200")
	assert.Contains(t, d.read(), "GET ended: UnexpectedResponse")
}

func TestObserverReceivesWaiting(t *testing.T) {
	const latency = 50 * time.Millisecond
	om := simulator.Start(t, simulator.Options{Latency: latency})
	config := configFor(om)
	config.MaxInFlight, config.RequestsPerSecond = 1, 20
	client, d := newObserved(t, config)
	var calls sync.WaitGroup
	for range 3 {
		calls.Go(func() { assert.NoError(t, client.CheckAccess(t.Context())) })
	}
	calls.Wait()
	// Four requests, one of them a challenge: the second call waits for the
	// first one's answer, the third for two.
	assert.GreaterOrEqual(t, d.waited, 3*latency)
	assert.Equal(t, 1, d.most, "in flight at a time")
	assert.Zero(t, d.inFlight)
}

func TestCheckAccess(t *testing.T) {
	om := simulator.Start(t, simulator.Options{PathPrefix: "/om"})
	client := newClient(t, configFor(om))
	require.NoError(t, client.CheckAccess(t.Context()))
	asked := om.Ledger().Select(func(r simulator.Request) bool { return r.Authenticated })
	require.Len(t, asked, 1)
	assert.Equal(t, simulator.KindRoot, asked[0].Kind)
	assert.Equal(t, http.MethodGet, asked[0].Method)

	om.Inject(simulator.Fault{Method: http.MethodGet, Status: http.StatusOK, Body: `{"error": "log in"}`})
	requireError(t, client.CheckAccess(t.Context()), opsmanager.UnexpectedResponse)
	om.SetAccessList("192.0.2.1")
	requireError(t, client.CheckAccess(t.Context()), opsmanager.Forbidden)
	om.RemoveAPIKey(simulator.DefaultPublicKey)
	requireError(t, client.CheckAccess(t.Context()), opsmanager.Unauthorized)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	requireError(t, client.CheckAccess(ctx), opsmanager.Unavailable)
}
