package activities_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	sdktestsuite "go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"keyturn/activities"
	"keyturn/internal/kmipevidence"
	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/kmipsimulator"
)

// activityAttempt is one attempt as Temporal would start it.
type activityAttempt struct {
	// info changes what the activity knows of itself.
	info func(*activity.Info)
	// details are those of the last heartbeat before; nil = there was none.
	details any
	// requestTimeout of the client; 0 = the fixture's.
	requestTimeout time.Duration
	// confirm is called for a heartbeat that must succeed; nil = it does.
	confirm func() error
	// stop is closed when the worker is to shut down.
	stop chan struct{}
	// context is the one that the activity is executed with; nil = the given one.
	context func(context.Context) context.Context
	// kmip is asked about keys; nil = there is none.
	kmip *kmipevidence.Client
	// log gets what the activity logs; nil = nobody.
	log io.Writer
}

// runAttempt runs one attempt, and returns its last heartbeat, too.
func runAttempt[R any](t *testing.T, om *simulator.Server, a activityAttempt, name string, input any) (result R, heartbeat json.RawMessage, err error) {
	t.Helper()
	var suite sdktestsuite.WorkflowTestSuite
	handler := slog.DiscardHandler
	if a.log != nil {
		handler = slog.NewTextHandler(a.log, nil)
	}
	suite.SetLogger(log.NewStructuredLogger(slog.New(handler)))
	env := suite.NewTestActivityEnvironment()
	if a.stop != nil {
		env.SetWorkerStopChannel(a.stop)
	}
	timeout := a.requestTimeout
	if timeout == 0 {
		timeout = time.Second
	}
	changes := &infoChanges{change: a.info}
	client, err := opsmanager.New(opsmanager.Config{
		BaseURL: om.URL, PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey, RequestTimeout: timeout,
	})
	require.NoError(t, err)
	activities.Register(env, &activities.Activities{
		Connections: map[string]*opsmanager.Client{"default": client},
		KMIP:        map[string]*kmipevidence.Client{"default": a.kmip},
		Heartbeat:   changes.confirm(a.confirm),
	})
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{
		&fixture.ActivityCalls{Wrap: changes.wrap}, &contextChange{change: a.context},
	}})
	env.SetTestTimeout(time.Minute)
	if a.details != nil {
		env.SetHeartbeatDetails(a.details)
	}
	value, err := env.ExecuteActivity(name, input)
	if err == nil {
		require.NoError(t, value.Get(&result))
	}
	return result, changes.lastHeartbeat(), err
}

// infoChanges changes what activities know of themselves, and keeps the last
// heartbeat.
type infoChanges struct {
	change    func(*activity.Info)
	mu        sync.Mutex // an activity sends heartbeats from several goroutines
	heartbeat json.RawMessage
}

// lastHeartbeat is the details of the last one; nil = there was none.
func (c *infoChanges) lastHeartbeat() json.RawMessage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heartbeat
}

func (c *infoChanges) wrap(next interceptor.ActivityOutboundInterceptor) interceptor.ActivityOutboundInterceptor {
	return &infoOutbound{interceptor.ActivityOutboundInterceptorBase{Next: next}, c}
}

type infoOutbound struct {
	interceptor.ActivityOutboundInterceptorBase
	changes *infoChanges
}

func (o *infoOutbound) GetInfo(ctx context.Context) activity.Info {
	info := o.Next.GetInfo(ctx)
	if o.changes.change != nil {
		o.changes.change(&info)
	}
	return info
}

func (o *infoOutbound) RecordHeartbeat(_ context.Context, details ...any) {
	o.changes.keep(details[0])
}

func (c *infoChanges) keep(details any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if text, err := json.Marshal(details); err == nil {
		c.heartbeat = text
	}
}

// confirm is a heartbeat that must succeed.
func (c *infoChanges) confirm(do func() error) func(context.Context, []byte, any) error {
	return func(_ context.Context, _ []byte, details any) error {
		if do != nil {
			if err := do(); err != nil {
				return err
			}
		}
		c.keep(details)
		return nil
	}
}

// contextChange is an interceptor that changes the context of activities.
type contextChange struct {
	interceptor.WorkerInterceptorBase
	change func(context.Context) context.Context
}

func (c *contextChange) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &contextInbound{interceptor.ActivityInboundInterceptorBase{Next: next}, c}
}

type contextInbound struct {
	interceptor.ActivityInboundInterceptorBase
	changes *contextChange
}

func (i *contextInbound) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	if i.changes.change != nil {
		ctx = i.changes.change(ctx)
	}
	return i.Next.ExecuteActivity(ctx, in)
}

// firstAttempt is one that can prove to be the first.
func firstAttempt(info *activity.Info) {
	info.HeartbeatTimeout = time.Hour
}

const runID = "default-test-run-id" // the test environment's

func firstAttemptInput(om *simulator.Server, id string, readAgo time.Duration) activities.RotateKeyInput {
	input := rotateInput(om, id)
	input.FirstAttemptToken, input.ReadAt = runID, time.Now().Add(-readAgo)
	return input
}

func getsAndPuts(om *simulator.Server, id string) (calls []string) {
	for _, r := range om.Ledger().Select(func(r simulator.Request) bool { return r.Authenticated && r.ClusterID == id }) {
		calls = append(calls, r.Method)
	}
	return calls
}

// A server that stands still, and carries out the PUT that it had taken when it
// goes on: nothing was observed meanwhile, however long it took.
func TestSettleTimeDoesNotCountWhileNothingCanBeRead(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.PutFrozen(set.ID, 400*time.Millisecond))
	om.Inject(simulator.KeyGated(set.ID))
	input := rotateInput(om, set.ID)
	input.SettleTime = activities.Duration(time.Second)
	input.FirstAttemptToken, input.ReadAt = runID, time.Now()
	go func() {
		// The second reading waits at the gate: it is answered with the old id.
		_ = om.Await(t.Context(), func(l simulator.Ledger) bool { return l.Count(http.MethodGet, set.ID) == 2 })
		om.ClearFaults()
	}()
	rotated, _, err := runAttempt[activities.RotateKeyResult](t, om, activityAttempt{info: firstAttempt}, activities.RotateKeyName, input)
	require.NoError(t, err)
	assert.True(t, rotated.Ambiguous)
	assert.Len(t, om.Ledger().Applied(set.ID), 1)
	assert.Equal(t, 1, om.Ledger().Count(http.MethodPut, set.ID))
}

// The PUT takes effect when the settle time is over since the first reading, but
// not since the last gap.
func TestSettleTimeBeginsAgainAfterAGap(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		gap     func(id string) simulator.Fault
		applied time.Duration
	}{
		"a response that took long": {func(id string) simulator.Fault {
			return simulator.KeyDelayed(id, 1200*time.Millisecond).Skipping(1)
		}, 1500 * time.Millisecond},
		"a response that is not the API's": {func(id string) simulator.Fault {
			return simulator.KeyGarbage(id).Skipping(10)
		}, 1100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			set := om.AddReplicaSet(project, "audit")
			om.Inject(simulator.PutServerError(set.ID, simulator.ApplyLate).AppliedAfter(c.applied))
			om.Inject(c.gap(set.ID))
			input := firstAttemptInput(om, set.ID, 0)
			input.SettleTime = activities.Duration(800 * time.Millisecond)
			rotated, _, err := runAttempt[activities.RotateKeyResult](t, om, activityAttempt{info: firstAttempt, requestTimeout: 5 * time.Second}, activities.RotateKeyName, input)
			require.NoError(t, err)
			assert.True(t, rotated.Ambiguous)
		})
	}
}

// Neither readings that fail now and then nor ones that always take long settle
// anything: that ends with the retry timeout, from the first of them on.
func TestAnOutcomeThatNeverSettlesIsAFailure(t *testing.T) {
	t.Parallel()
	for name, inject := range map[string]func(om *simulator.Server, id string){
		"a failure now and then": func(om *simulator.Server, id string) {
			for i := range 10 {
				om.Inject(simulator.InvalidState(http.MethodGet, id).On(simulator.KindKey).Skipping(1 + 2*i))
			}
		},
		"responses that take long": func(om *simulator.Server, id string) {
			om.Inject(simulator.KeyDelayed(id, 1200*time.Millisecond).Always())
		},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			set := om.AddReplicaSet(project, "audit")
			om.Inject(simulator.PutServerError(set.ID, simulator.ApplyNo))
			inject(om, set.ID)
			go func() { // so that even one that reads for ever ends
				if om.Await(t.Context(), func(l simulator.Ledger) bool { return l.Count(http.MethodGet, set.ID) > 12 }) == nil {
					om.ClearFaults()
				}
			}()
			input := firstAttemptInput(om, set.ID, 0)
			input.SettleTime, input.RetryTimeout = activities.Duration(2*time.Second), activities.Duration(2*time.Second)
			_, _, err := runAttempt[activities.RotateKeyResult](t, om, activityAttempt{info: firstAttempt, requestTimeout: 5 * time.Second}, activities.RotateKeyName, input)
			appErr := requireType(t, err, activities.ErrorOpsManagerUnavailable, false)
			assert.Contains(t, appErr.Message(), "unknown")
			assert.Contains(t, appErr.Message(), "retry the target")
			assert.NotContains(t, appErr.Message(), "<nil>")
			var details activities.FailureDetails
			require.NoError(t, appErr.Details(&details))
			assert.True(t, details.Ambiguous)
			assert.False(t, details.PutRefused)
			assert.Equal(t, 1, om.Ledger().Count(http.MethodPut, set.ID))
		})
	}
}

func TestAnOldReadingIsRepeatedBeforeThePut(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	for name, c := range map[string]struct {
		input func(*activities.RotateKeyInput)
		calls []string
	}{
		"fresh":           {func(in *activities.RotateKeyInput) { in.ReadAt = time.Now().Add(-9 * time.Minute) }, []string{"PUT"}},
		"old":             {func(in *activities.RotateKeyInput) { in.ReadAt = time.Now().Add(-11 * time.Minute) }, []string{"GET", "PUT"}},
		"of unknown age":  {func(in *activities.RotateKeyInput) { in.ReadAt = time.Time{} }, []string{"GET", "PUT"}},
		"after a refusal": {func(in *activities.RotateKeyInput) { in.NothingAppliedToken, in.FirstAttemptToken = runID, "" }, []string{"GET", "PUT"}},
	} {
		for _, replaced := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, replaced %t", name, replaced), func(t *testing.T) {
				set := om.AddReplicaSet(project, "audit")
				input := firstAttemptInput(om, set.ID, 0)
				c.input(&input)
				calls := c.calls
				if replaced && len(calls) > 1 {
					om.SetKey(set.ID, "someone-elses")
					calls = calls[:1]
				}
				rotated, _, err := runAttempt[activities.RotateKeyResult](t, om, activityAttempt{info: firstAttempt}, activities.RotateKeyName, input)
				require.NoError(t, err)
				assert.Equal(t, calls, getsAndPuts(om, set.ID))
				assert.False(t, rotated.Ambiguous)
				if len(calls) == 1 && calls[0] == http.MethodGet {
					assert.Equal(t, "someone-elses", rotated.ReplacedOutside)
					assert.Zero(t, rotated.RotatedAt)
				} else {
					assert.Empty(t, rotated.ReplacedOutside)
				}
			})
		}
	}
}

// A key that was replaced between a refused PUT and the next one was replaced by
// someone else, unless a PUT before that may have done it.
func TestAKeyReplacedAfterARefusal(t *testing.T) {
	for name, c := range map[string]struct {
		input   func(*activities.RotateKeyInput)
		outside bool
	}{
		"the first attempt":                {func(*activities.RotateKeyInput) {}, true},
		"no first-attempt token":           {func(in *activities.RotateKeyInput) { in.FirstAttemptToken = "" }, false},
		"an earlier outcome was ambiguous": {func(in *activities.RotateKeyInput) { in.Ambiguous = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			set := om.AddReplicaSet(project, "audit")
			om.Inject(simulator.InvalidState(http.MethodPut, set.ID))
			input := firstAttemptInput(om, set.ID, 0)
			c.input(&input)
			_, heartbeat, err := runAttempt[activities.RotateKeyResult](t, om, activityAttempt{info: firstAttempt}, activities.RotateKeyName, input)
			requireType(t, err, activities.ErrorOpsManagerUnavailable, true)
			require.NotEmpty(t, heartbeat)
			om.SetKey(set.ID, "another")
			second := activityAttempt{details: heartbeat, info: func(info *activity.Info) { firstAttempt(info); info.Attempt = 2 }}
			rotated, _, err := runAttempt[activities.RotateKeyResult](t, om, second, activities.RotateKeyName, input)
			require.NoError(t, err)
			assert.Equal(t, c.outside, rotated.ReplacedOutside != "")
			assert.Equal(t, !c.outside, rotated.Ambiguous)
			assert.Equal(t, 1, om.Ledger().Count(http.MethodPut, set.ID))
		})
	}
}

// Whatever a worker's clock shows, the times are Temporal's.
func TestTimesAreTemporals(t *testing.T) {
	kmip := kmipsimulator.StartForTest(t, kmipsimulator.Options{}).EvidenceClient(t, "keyturn")
	for _, skew := range []time.Duration{-3 * time.Minute, 3 * time.Minute} {
		om := simulator.Start(t, simulator.Options{})
		set := om.AddReplicaSet(project, "audit")
		started := time.Now().Add(-skew)
		skewed := activityAttempt{kmip: kmip, info: func(info *activity.Info) {
			firstAttempt(info)
			info.ScheduledTime, info.StartedTime = started, started
		}}
		require.WithinRange(t, readOne(t, om, skewed, set.ID).ReadAt, started.Add(-time.Second), started.Add(time.Minute))
		input := rotateInput(om, set.ID)
		input.FirstAttemptToken, input.ReadAt = runID, started
		rotated, _, err := runAttempt[activities.RotateKeyResult](t, om, skewed, activities.RotateKeyName, input)
		require.NoError(t, err)
		require.WithinRange(t, rotated.RotatedAt, started.Add(-time.Second), started.Add(time.Minute))
		verified, _, err := runAttempt[activities.VerifyKeyResult](t, om, skewed, activities.VerifyKeyName, verifyInput(set.ID, input.PreviousKeyUUID))
		require.NoError(t, err)
		require.WithinRange(t, verified.VerifiedAt, started.Add(-time.Second), started.Add(time.Minute))
		require.WithinRange(t, verified.KMIP.AskedAt, started.Add(-time.Second), started.Add(time.Minute))
		assert.Equal(t, []string{"GET", "PUT", "GET"}, getsAndPuts(om, set.ID), "the age of a reading is Temporal's, too")
	}
}

func readOne(t *testing.T, om *simulator.Server, a activityAttempt, id string) activities.Key {
	t.Helper()
	read, _, err := runAttempt[activities.ReadKeysResult](t, om, a, activities.ReadKeysName, activities.ReadKeysInput{Scope: scope(), ClusterIDs: []string{id}})
	require.NoError(t, err)
	return read.Keys[0]
}

func verifyInput(id, previous string) activities.VerifyKeyInput {
	return activities.VerifyKeyInput{Scope: scope(), ClusterID: id, PreviousKeyUUID: previous, VerifyTimeout: activities.Duration(time.Minute)}
}

// The attempts of a verification share one deadline, and one time for retries.
func TestVerifyKeyHasOneDeadlineForAllAttempts(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.InvalidState(http.MethodGet, set.ID))
	input := verifyInput(set.ID, om.Key(set.ID))
	input.VerifyTimeout = activities.Duration(200 * time.Millisecond)
	_, heartbeat, err := runAttempt[activities.VerifyKeyResult](t, om, activityAttempt{}, activities.VerifyKeyName, input)
	requireType(t, err, activities.ErrorOpsManagerUnavailable, true)

	later := activityAttempt{details: heartbeat, info: func(info *activity.Info) { info.Attempt, info.StartedTime = 2, info.StartedTime.Add(2*time.Minute) }}
	_, _, err = runAttempt[activities.VerifyKeyResult](t, om, later, activities.VerifyKeyName, input)
	requireType(t, err, activities.ErrorKeyUnchanged, false)
	assert.Greater(t, len(getsAndPuts(om, set.ID)), 2, "one reading after a gap proves nothing")

	om.Inject(simulator.InvalidState(http.MethodGet, set.ID))
	input.VerifyTimeout = activities.Duration(time.Hour)
	_, _, err = runAttempt[activities.VerifyKeyResult](t, om, later, activities.VerifyKeyName, input)
	requireType(t, err, activities.ErrorOpsManagerUnavailable, false)
}

// A server that stood still for longer than the deadline shows the new id after it.
func TestAKeyThatShowsAfterAnOutageIsVerified(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	previous := om.Key(set.ID)
	om.Inject(simulator.InvalidState(http.MethodGet, set.ID))
	input := verifyInput(set.ID, previous)
	input.VerifyTimeout = activities.Duration(5 * time.Second)
	_, heartbeat, err := runAttempt[activities.VerifyKeyResult](t, om, activityAttempt{}, activities.VerifyKeyName, input)
	requireType(t, err, activities.ErrorOpsManagerUnavailable, true)

	om.Inject(simulator.PutShownLate(set.ID, 700*time.Millisecond))
	client := fixture.Client(t, om)
	require.NoError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil))
	later := activityAttempt{details: heartbeat, info: func(info *activity.Info) { info.Attempt, info.StartedTime = 2, info.StartedTime.Add(2*time.Minute) }}
	verified, _, err := runAttempt[activities.VerifyKeyResult](t, om, later, activities.VerifyKeyName, input)
	require.NoError(t, err)
	assert.NotEqual(t, previous, verified.NewKeyUUID)
}

// A successful reading between two failures does not begin the time for retries
// again.
func TestASuccessDoesNotExtendTheRetries(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.InvalidState(http.MethodGet, set.ID).Skipping(1))
	input := verifyInput(set.ID, om.Key(set.ID))
	_, heartbeat, err := runAttempt[activities.VerifyKeyResult](t, om, activityAttempt{}, activities.VerifyKeyName, input)
	requireType(t, err, activities.ErrorOpsManagerUnavailable, true)

	om.Inject(simulator.InvalidState(http.MethodGet, set.ID).Skipping(1))
	input.VerifyTimeout = activities.Duration(time.Hour)
	input.RetryTimeout = activities.Duration(2 * time.Minute)
	later := activityAttempt{details: heartbeat, info: func(info *activity.Info) { info.Attempt, info.StartedTime = 2, info.StartedTime.Add(3*time.Minute) }}
	_, _, err = runAttempt[activities.VerifyKeyResult](t, om, later, activities.VerifyKeyName, input)
	appErr := requireType(t, err, activities.ErrorOpsManagerUnavailable, false)
	assert.Contains(t, appErr.Message(), "gave up after retrying for 2m")
}

// One GET that fails does not begin the whole reading again.
func TestReadKeysRetriesOneTargetAlone(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 4)
	om.Inject(simulator.InvalidState(http.MethodGet, cluster.ShardIDs[1]).On(simulator.KindKey).Repeated(2))
	read, err := run[activities.ReadKeysResult](t, om, activities.ReadKeysName, activities.ReadKeysInput{Scope: scope(), ClusterIDs: cluster.TargetIDs(), Concurrency: 1})
	require.NoError(t, err)
	require.Len(t, read.Keys, 5)
	for i, id := range cluster.TargetIDs() {
		assert.Equal(t, om.Key(id), read.Keys[i].KeyUUID)
		gets := map[bool]int{true: 3, false: 1}[i == 1]
		assert.Len(t, getsAndPuts(om, id), gets)
	}

	om.Inject(simulator.InvalidState(http.MethodGet, cluster.ShardIDs[1]).On(simulator.KindKey).Always())
	input := activities.ReadKeysInput{Scope: scope(), ClusterIDs: cluster.TargetIDs(), Concurrency: 1}
	input.RetryTimeout = activities.Duration(time.Millisecond)
	_, err = run[activities.ReadKeysResult](t, om, activities.ReadKeysName, input)
	appErr := requireType(t, err, activities.ErrorOpsManagerUnavailable, false)
	assert.Contains(t, appErr.Message(), "gave up after retrying for 1ms")
}

// Another attempt of ReadKeys trusts nothing that the one before has read.
func TestReadKeysReadsAllInEachAttempt(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	old := map[string]any{"keys": []activities.Key{{ClusterID: set.ID, KeyUUID: "of the attempt before"}}}
	assert.Equal(t, om.Key(set.ID), readOne(t, om, activityAttempt{details: old}, set.ID).KeyUUID)
}

// The keys of the largest cluster, with the longest ids that the client accepts,
// fit into one payload, and come out of it as they were.
func TestKeysOfTheLargestClusterFitIntoAPayload(t *testing.T) {
	const payloadLimit = 2 << 20
	rng := rand.New(rand.NewPCG(1, 2))
	const escaped = "<>&" // six bytes each in JSON for HTML
	result := activities.ReadKeysResult{ReadIn: runID}
	for i := range 5000 {
		var id strings.Builder
		for range 256 {
			c := byte(' ' + rng.IntN('~'-' '+1))
			if i%2 == 0 {
				c = escaped[rng.IntN(len(escaped))]
			}
			id.WriteByte(c)
		}
		result.Keys = append(result.Keys, activities.Key{
			ClusterID: fmt.Sprintf("%08x%016x", i, rng.Uint64()), KeyUUID: id.String(), ReadAt: time.UnixMilli(int64(1700000000000 + i)).UTC(),
		})
	}
	payload, err := converter.GetDefaultDataConverter().ToPayload(result)
	require.NoError(t, err)
	assert.Less(t, len(payload.GetData()), payloadLimit)
	t.Logf("%d bytes", len(payload.GetData()))
	var back activities.ReadKeysResult
	require.NoError(t, converter.GetDefaultDataConverter().FromPayload(payload, &back))
	assert.Equal(t, result, back)
}

// A small cluster's keys stay readable in the history.
func TestKeysOfASmallClusterAreReadable(t *testing.T) {
	data, err := json.Marshal(activities.ReadKeysResult{ReadIn: runID, Keys: []activities.Key{{ClusterID: fixture.Project, KeyUUID: "k"}}})
	require.NoError(t, err)
	assert.JSONEq(t, `{"keys":[{"clusterId":"`+fixture.Project+`","keyUUID":"k","readAt":"0001-01-01T00:00:00Z"}],"readIn":"`+runID+`"}`, string(data))
}

// A PUT that something other than the API answers is settled by reading: where
// the key stays, that is reported at once, and no other PUT is sent blindly.
func TestAPutAnsweredByAnotherServer(t *testing.T) {
	for _, applied := range []bool{false, true} {
		om := simulator.Start(t, simulator.Options{})
		set := om.AddReplicaSet(project, "audit")
		page := simulator.Fault{
			Method: http.MethodPut, Kind: simulator.KindKey, ClusterID: set.ID, Apply: simulator.ApplyNo,
			Status: http.StatusOK, Body: "<html><title>Log in</title></html>", ContentType: "text/html",
		}
		if applied {
			page.Apply = simulator.ApplyBefore
		}
		om.Inject(page)
		input := firstAttemptInput(om, set.ID, 0)
		rotated, _, err := runAttempt[activities.RotateKeyResult](t, om, activityAttempt{info: firstAttempt}, activities.RotateKeyName, input)
		if applied {
			require.NoError(t, err)
			assert.True(t, rotated.Ambiguous)
		} else {
			appErr := requireType(t, err, activities.ErrorUnexpectedResponse, false)
			assert.Contains(t, appErr.Message(), "PUT /api/public/v1.0/")
			var details activities.FailureDetails
			require.NoError(t, appErr.Details(&details))
			assert.True(t, details.Ambiguous && details.PutRefused)
		}
		assert.Equal(t, 1, om.Ledger().Count(http.MethodPut, set.ID))
	}
}

// A reading that fails before the next PUT does not take away the proof that no
// PUT has taken effect: a key that another reading shows is someone else's.
func TestProofOutlivesAFailedReading(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.Fault{
		Method: http.MethodGet, Kind: simulator.KindKey, ClusterID: set.ID, Apply: simulator.ApplyNo,
		Status: http.StatusNotFound, Body: `{"error":404,"errorCode":"BACKUP_CONFIG_NOT_FOUND","detail":"No backup configuration."}`, ContentType: "application/json",
	})
	input := firstAttemptInput(om, set.ID, 0)
	input.NothingAppliedToken, input.FirstAttemptToken = runID, ""
	_, _, err := runAttempt[activities.RotateKeyResult](t, om, activityAttempt{info: firstAttempt}, activities.RotateKeyName, input)
	var details activities.FailureDetails
	require.NoError(t, requireType(t, err, activities.ErrorNotFound, false).Details(&details))
	assert.True(t, details.PutRefused)
	assert.False(t, details.EarlierPut)
	assert.Zero(t, om.Ledger().Count(http.MethodPut, set.ID))
}
