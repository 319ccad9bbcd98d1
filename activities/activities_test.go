package activities_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	sdktestsuite "go.temporal.io/sdk/testsuite"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
)

const project = fixture.Project

func run[R any](t *testing.T, om *simulator.Server, name string, input any) (result R, err error) {
	t.Helper()
	var suite sdktestsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	activities.Register(env, &activities.Activities{
		Connections: map[string]*opsmanager.Client{"default": fixture.Client(t, om)},
		Heartbeat:   func(context.Context, []byte, any) error { return nil },
	})
	value, err := env.ExecuteActivity(name, input)
	if err == nil {
		require.NoError(t, value.Get(&result))
	}
	return result, err
}

func scope() activities.Scope {
	return activities.Scope{Connection: "default", ProjectID: project, RetryTimeout: activities.Duration(time.Minute)}
}

func requireType(t *testing.T, err error, errorType activities.ErrorType, retryable bool) *temporal.ApplicationError {
	t.Helper()
	var appErr *temporal.ApplicationError
	require.ErrorAs(t, err, &appErr)
	require.Equal(t, errorType, activities.ErrorType(appErr.Type()), "%v", err)
	require.Equal(t, !retryable, appErr.NonRetryable(), "%v", err)
	return appErr
}

func TestTopologies(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	add := func(name, shard, set, typeName string) string {
		return om.AddCluster(simulator.Cluster{ProjectID: project, ClusterName: name, ShardName: shard, ReplicaSetName: set, TypeName: typeName}).ID
	}
	whole := func(name, parentShard string) string {
		parent := add(name, parentShard, "", simulator.TypeShardedReplicaSet)
		add(name, name+"-10", name+"-10", simulator.TypeReplicaSet)
		add(name, name+"-9", name+"-9", simulator.TypeReplicaSet)
		add(name, "", name+"-config", simulator.TypeConfigServerReplicaSet)
		return parent
	}
	hidden := whole("hidden", "")
	om.UpdateCluster(hidden, func(c *simulator.Cluster) { c.Hidden = true })
	twice := whole("twice", "")
	whole("twice", "")
	noConfig := add("noconfig", "", "", simulator.TypeShardedReplicaSet)
	add("noconfig", "s0", "s0", simulator.TypeReplicaSet)
	twoConfigs := whole("twoconfigs", "")
	add("twoconfigs", "", "second", simulator.TypeConfigServerReplicaSet)
	noShards := add("noshards", "", "", simulator.TypeShardedReplicaSet)
	add("noshards", "", "c", simulator.TypeConfigServerReplicaSet)
	standalone := add("standalones", "", "", simulator.TypeSharded)
	unknownShard := whole("unknownshard", "")
	add("unknownshard", "x", "x", "QUANTUM_SET")
	sameShard := whole("sameshard", "")
	add("sameshard", "sameshard-9", "y", simulator.TypeReplicaSet)
	withUnknown := whole("withunknown", "withunknown-9")
	add("withunknown", "", "", "STANDALONE_OF_TOMORROW")
	add("withunknown", "", "plain", simulator.TypeReplicaSet)

	for name, c := range map[string]struct {
		id      string
		targets []string
		problem string
	}{
		"whole":                         {whole("whole", ""), []string{"whole-9", "whole-10", "whole-config"}, ""},
		"parent with a shardName":       {whole("named", "named-9"), []string{"named-9", "named-10", "named-config"}, ""},
		"others of its display name":    {withUnknown, []string{"withunknown-9", "withunknown-10", "withunknown-config"}, ""},
		"plain replica set":             {om.AddReplicaSet(project, "audit").ID, []string{"audit"}, ""},
		"two clusters of one name":      {twice, nil, "expected one sharded cluster of this name, found 2"},
		"parent is not listed":          {hidden, nil, "missing from the project's cluster list"},
		"no config server":              {noConfig, nil, "expected one config server, found 0"},
		"two config servers":            {twoConfigs, nil, "expected one config server, found 2"},
		"no shard":                      {noShards, nil, "none of its shards"},
		"standalone shards":             {standalone, nil, "none of its shards"},
		"a shard of an unknown type":    {unknownShard, nil, "QUANTUM_SET"},
		"one shard twice":               {sameShard, nil, `"sameshard-9"`},
		"a shard instead of its parent": {add("elsewhere", "elsewhere-0", "elsewhere-0", simulator.TypeReplicaSet), nil, "use the ID of the sharded cluster, which keyturn clusters lists"},
		"a config server":               {add("x", "", "x", simulator.TypeConfigServerReplicaSet), nil, "neither a sharded cluster nor a replica set"},
		"an unknown type":               {add("x", "", "x", "TOMORROW"), nil, "neither"},
	} {
		t.Run(name, func(t *testing.T) {
			listed, err := run[activities.ListTargetsResult](t, om, activities.ListTargetsName, activities.ListTargetsInput{Scope: scope(), ClusterID: c.id})
			if c.problem != "" {
				appErr := requireType(t, err, activities.ErrorUnexpectedTopology, false)
				assert.Contains(t, appErr.Message(), c.problem)
				return
			}
			require.NoError(t, err)
			var names []string
			for _, target := range listed.Targets {
				names = append(names, target.Name)
			}
			assert.Equal(t, c.targets, names)
		})
	}
}

func rotateInput(om *simulator.Server, id string) activities.RotateKeyInput {
	return activities.RotateKeyInput{
		Scope: scope(), ClusterID: id, PreviousKeyUUID: om.Key(id),
		SettleTime: activities.Duration(300 * time.Millisecond),
	}
}

// Without anybody's word that no PUT was sent before, a GET decides.
func TestRotateKeyReadsBeforeAnUnprovenPut(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	input := rotateInput(om, set.ID)
	started := time.Now()
	rotated, err := run[activities.RotateKeyResult](t, om, activities.RotateKeyName, input)
	require.NoError(t, err)
	assert.False(t, rotated.Ambiguous)
	assert.GreaterOrEqual(t, time.Since(started), 300*time.Millisecond, "the old id must last for settleTime")
	assert.Len(t, om.Ledger().Applied(set.ID), 1)

	again, err := run[activities.RotateKeyResult](t, om, activities.RotateKeyName, input)
	require.NoError(t, err)
	assert.True(t, again.Ambiguous)
	assert.Len(t, om.Ledger().Applied(set.ID), 1, "the id has changed: no other PUT")
}

func TestRotateKeySettlesAPutOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault   func(id string) simulator.Fault
		applied bool
	}{
		"500 after it took effect":     {func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyBefore) }, true},
		"500 and no effect":            {func(id string) simulator.Fault { return simulator.PutServerError(id, simulator.ApplyNo) }, false},
		"answer lost":                  {func(id string) simulator.Fault { return simulator.PutCut(id, simulator.ApplyBefore) }, true},
		"request lost":                 {func(id string) simulator.Fault { return simulator.PutCut(id, simulator.ApplyNo) }, false},
		"502 after it took effect":     {func(id string) simulator.Fault { return simulator.PutBadGateway(id, simulator.ApplyBefore) }, true},
		"timeout after it took effect": {func(id string) simulator.Fault { return simulator.PutHang(id, simulator.ApplyBefore) }, true},
		"takes effect while it is settled": {func(id string) simulator.Fault {
			return simulator.PutServerError(id, simulator.ApplyLate).AppliedAfter(150 * time.Millisecond)
		}, true},
		"shows while it is settled": {func(id string) simulator.Fault {
			f := simulator.PutServerError(id, simulator.ApplyBefore)
			f.ShowAfter = 150 * time.Millisecond
			return f
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			set := om.AddReplicaSet(project, "audit")
			om.Inject(c.fault(set.ID))
			input := rotateInput(om, set.ID)
			rotated, err := run[activities.RotateKeyResult](t, om, activities.RotateKeyName, input)
			if c.applied {
				require.NoError(t, err)
				assert.True(t, rotated.Ambiguous)
			} else {
				requireType(t, err, activities.ErrorOpsManagerUnavailable, true)
			}
			assert.Equal(t, 1, om.Ledger().Count(http.MethodPut, set.ID), "one attempt never sends two")
		})
	}
}

func TestEveryKindOfErrorHasAMeaning(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	input := activities.ReadKeysInput{Scope: scope(), ClusterIDs: []string{set.ID}, Concurrency: 1}
	for errorType, c := range map[activities.ErrorType]struct {
		fault     simulator.Fault
		retryable bool
	}{
		activities.ErrorUnauthorized:       {simulator.Unauthorized(http.MethodGet, set.ID), false},
		activities.ErrorForbidden:          {simulator.AccessListRefusal(http.MethodGet, set.ID), false},
		activities.ErrorNotFound:           {simulator.KeyNotFound(set.ID), false},
		activities.ErrorEncryptionOff:      {simulator.KeyNull(set.ID), false},
		activities.ErrorUnexpectedResponse: {simulator.KeyGarbage(set.ID).Always(), false},
	} {
		om.ClearFaults()
		om.Inject(c.fault)
		_, err := run[activities.ReadKeysResult](t, om, activities.ReadKeysName, input)
		appErr := requireType(t, err, errorType, c.retryable)
		assert.Contains(t, appErr.Message(), "GET /api/public/v1.0/")
		assert.Contains(t, appErr.Message(), "; ", "and what to do")
	}
	input.ClusterIDs = []string{"x"}
	_, err := run[activities.ReadKeysResult](t, om, activities.ReadKeysName, input)
	requireType(t, err, activities.ErrorInvalidInput, false)
}

// A 429 makes the worker wait, and look again before another PUT, but costs no
// attempt.
func TestARateLimitCostsNoAttempt(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.RateLimited(http.MethodPut, set.ID, "1"))
	om.Inject(simulator.RateLimited(http.MethodGet, set.ID, "1"))
	input := rotateInput(om, set.ID)
	input.SettleTime = 0
	rotated, err := run[activities.RotateKeyResult](t, om, activities.RotateKeyName, input)
	require.NoError(t, err)
	assert.Equal(t, 1, rotated.Attempts)
	assert.False(t, rotated.Ambiguous)
	ledger := om.Ledger()
	assert.Len(t, ledger.Applied(set.ID), 1)
	var calls []string
	var sent []time.Time
	for _, r := range ledger.Select(func(r simulator.Request) bool { return r.Authenticated && r.ClusterID == set.ID }) {
		calls = append(calls, fmt.Sprint(r.Method, r.Status))
		sent = append(sent, r.Start)
	}
	require.Equal(t, []string{"GET429", "GET200", "PUT429", "GET200", "PUT201"}, calls, "a GET shows the previous key before each PUT")
	assert.GreaterOrEqual(t, sent[1].Sub(sent[0]), time.Second)
	assert.GreaterOrEqual(t, sent[3].Sub(sent[2]), time.Second)
}

// A 503 or 409 that asks for a pause gets it, though it slows no other request
// down: the next attempt comes no sooner.
func TestTheNextAttemptKeepsToRetryAfter(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	busy := simulator.InvalidState(http.MethodGet, set.ID)
	busy.Header = map[string]string{"Retry-After": "7"}
	om.Inject(busy)
	_, err := run[activities.VerifyKeyResult](t, om, activities.VerifyKeyName, activities.VerifyKeyInput{
		Scope: scope(), ClusterID: set.ID, VerifyTimeout: activities.Duration(time.Second),
	})
	appErr := requireType(t, err, activities.ErrorOpsManagerUnavailable, true)
	assert.Equal(t, 7*time.Second, appErr.NextRetryDelay())
}

func TestRetryAfterBeyondTheRetryTimeoutIsNotWaitedFor(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	om.Inject(simulator.RateLimited(http.MethodGet, set.ID, "3600"))
	_, err := run[activities.ReadKeysResult](t, om, activities.ReadKeysName, activities.ReadKeysInput{Scope: scope(), ClusterIDs: []string{set.ID}})
	appErr := requireType(t, err, activities.ErrorRateLimited, false)
	assert.Contains(t, appErr.Message(), "not retried: Ops Manager requests a pause of 1h, longer than the retryTimeout of 1m")
}

func TestOnePassingOddAnswerIsForgiven(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	previous := om.Key(set.ID)
	om.SetKey(set.ID, "a-newer-one")
	for _, fault := range []simulator.Fault{simulator.KeyGarbage(set.ID), simulator.KeyHalfBody(set.ID), simulator.KeyEmptyObject(set.ID), simulator.KeyMissing(set.ID), simulator.KeyNull(set.ID)} {
		om.Inject(fault)
		verified, err := run[activities.VerifyKeyResult](t, om, activities.VerifyKeyName, activities.VerifyKeyInput{
			Scope: scope(), ClusterID: set.ID, PreviousKeyUUID: previous, VerifyTimeout: activities.Duration(time.Second),
		})
		require.NoError(t, err, fault.Answer)
		assert.Equal(t, "a-newer-one", verified.NewKeyUUID)
	}
}

func TestVerifyKeyWaitsForANewIDToShow(t *testing.T) {
	om := simulator.Start(t, simulator.Options{ShowAfter: 150 * time.Millisecond})
	set := om.AddReplicaSet(project, "audit")
	previous := om.Key(set.ID)
	require.NoError(t, fixture.Client(t, om).RotateEncryptionKey(t.Context(), project, set.ID, nil))
	verified, err := run[activities.VerifyKeyResult](t, om, activities.VerifyKeyName, activities.VerifyKeyInput{
		Scope: scope(), ClusterID: set.ID, PreviousKeyUUID: previous, VerifyTimeout: activities.Duration(5 * time.Second),
	})
	require.NoError(t, err)
	assert.Equal(t, om.Key(set.ID), verified.NewKeyUUID)
}

func TestDurationsAreStrings(t *testing.T) {
	data, err := json.Marshal(activities.Duration(90 * time.Minute))
	require.NoError(t, err)
	assert.Equal(t, `"1h30m0s"`, string(data))
	var d activities.Duration
	require.NoError(t, json.Unmarshal([]byte(`"15m"`), &d))
	assert.Equal(t, 15*time.Minute, d.Std())
	for _, bad := range []string{`15`, `"15"`, `"soon"`, `{}`} {
		assert.Error(t, json.Unmarshal([]byte(bad), &d), bad)
	}
}

// The list of a fleet can be continued at any time: clusters that are added or
// removed in between neither repeat another one nor hide it.
func TestClustersAreListedInPages(t *testing.T) {
	om := simulator.Start(t, simulator.Options{MaxItemsPerPage: 3})
	projects := []string{"65a1f0c2d3e4b5a697880002", "65a1f0c2d3e4b5a697880001"}
	var want []string
	for _, id := range projects {
		om.AddProject(simulator.Project{ID: id})
		want = append(want, om.AddShardedCluster(id, "orders", 2).ID, om.AddReplicaSet(id, "orders").ID, om.AddReplicaSet(id, "audit").ID)
		om.AddReplicaSet(id, "left-out")
		om.AddCluster(simulator.Cluster{ProjectID: id, ClusterName: "orders", TypeName: "QUANTUM_SET"})
	}
	input := activities.ListClustersInput{
		Scope: activities.Scope{Connection: "default", RetryTimeout: activities.Duration(time.Minute)}, ClusterNames: "^(orders|audit)$", Limit: 3, Count: true,
	}
	var found []string
	for {
		listed, err := run[activities.ListClustersResult](t, om, activities.ListClustersName, input)
		require.NoError(t, err)
		if input.Count {
			assert.Equal(t, 8, listed.Total, "and those of unknown types, which fail loudly")
		}
		for _, c := range listed.Clusters {
			found = append(found, c.ClusterID)
			assert.Regexp(t, "^(orders|audit)$", c.ClusterName)
		}
		if !listed.More {
			break
		}
		require.Len(t, listed.Clusters, 3)
		input.After, input.Count = &listed.Clusters[2], false
		om.AddProject(simulator.Project{ID: "65a1f0c2d3e4b5a697880000"}) // before all others
	}
	assert.Len(t, found, 8)
	assert.Subset(t, found, want)

	input.ProjectIDs, input.After = []string{"65a1f0c2d3e4b5a69788ffff"}, nil
	_, err := run[activities.ListClustersResult](t, om, activities.ListClustersName, input)
	requireType(t, err, activities.ErrorNotFound, false)
	input.ProjectIDs, input.ClusterNames = nil, "("
	_, err = run[activities.ListClustersResult](t, om, activities.ListClustersName, input)
	requireType(t, err, activities.ErrorInvalidInput, false)
}

// Each project that cannot be listed is reported once, at its place in the order,
// wherever the list is continued. All of them are known at once where the totals
// are requested.
func TestUnlistedProjectsHaveTheirPlaceInTheList(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	var want, failing []string
	for i := range 9 {
		id := fmt.Sprintf("65a1f0c2d3e4b5a69788%04x", i)
		om.AddProject(simulator.Project{ID: id})
		set := om.AddReplicaSet(id, "audit")
		if i%3 == 2 {
			failing = append(failing, id)
			fault := simulator.AccessListRefusal(http.MethodGet, "").On(simulator.KindClusters).Always()
			fault.ProjectID = id
			om.Inject(fault)
			continue
		}
		want = append(want, set.ID)
	}
	for limit := 1; limit <= 10; limit++ {
		input := activities.ListClustersInput{Scope: scope(), Limit: limit, Count: true, ReportUnlisted: true}
		var found, unlisted []string
		for {
			listed, err := run[activities.ListClustersResult](t, om, activities.ListClustersName, input)
			require.NoError(t, err)
			for _, c := range listed.Clusters {
				found = append(found, c.ClusterID)
			}
			for _, p := range listed.Unlisted {
				unlisted = append(unlisted, p.ProjectID)
				assert.Equal(t, activities.ErrorForbidden, p.Type)
			}
			if input.Count {
				assert.Equal(t, 9, listed.Total)
				assert.Equal(t, 3, listed.TotalUnlisted)
				assert.Len(t, listed.UnlistedAhead, 3-len(listed.Unlisted))
			}
			if !listed.More {
				break
			}
			input.After, input.Count = listed.Last, false
			require.LessOrEqual(t, len(found)+len(unlisted), 9, "a list must not begin again")
		}
		assert.Equal(t, want, found, "limit %d", limit)
		assert.Equal(t, failing, unlisted, "limit %d", limit)
	}

	_, err := run[activities.ListClustersResult](t, om, activities.ListClustersName, activities.ListClustersInput{Scope: scope(), Limit: 10})
	requireType(t, err, activities.ErrorForbidden, false)
}

// However many projects fail with transient errors, one retryTimeout is all that
// they cost, and those that recover within it are listed.
func TestTransientErrorsOfManyProjectsShareOneTimeout(t *testing.T) {
	t.Parallel()
	const projects = 24
	om := simulator.Start(t, simulator.Options{})
	in := activities.ListClustersInput{Scope: scope(), Limit: 100, Count: true, ReportUnlisted: true}
	in.RetryTimeout = activities.Duration(1500 * time.Millisecond)
	for i := range projects {
		id := fmt.Sprintf("65a1f0c2d3e4b5a69788%04x", i)
		om.AddProject(simulator.Project{ID: id})
		om.AddReplicaSet(id, "audit")
		fault := simulator.ServerError(http.MethodGet, "", simulator.ApplyNo).On(simulator.KindClusters)
		fault.ProjectID = id
		switch i % 3 {
		case 0:
			om.Inject(fault.Always())
		case 1:
			om.Inject(fault)
		}
	}
	listed, err := run[activities.ListClustersResult](t, om, activities.ListClustersName, in)
	require.NoError(t, err)
	assert.Len(t, listed.Clusters, projects*2/3)
	require.Len(t, listed.Unlisted, projects/3)
	assert.Equal(t, activities.ErrorOpsManagerUnavailable, listed.Unlisted[0].Type)
	assert.Contains(t, listed.Unlisted[0].Message, "gave up after retrying for 1.5s")
	requests := om.Ledger().Count(http.MethodGet, "")
	assert.LessOrEqual(t, requests, 2*(1+projects+4*projects/2), "each project is retried a few times only")
}

// An outage is the fleet's error, not that of each project.
func TestAnOutageIsNotAFailureOfEachProject(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	in := activities.ListClustersInput{Scope: scope(), Limit: 100, Count: true, ReportUnlisted: true}
	in.RetryTimeout = activities.Duration(100 * time.Millisecond)
	for i := range 12 {
		in.ProjectIDs = append(in.ProjectIDs, fmt.Sprintf("65a1f0c2d3e4b5a69788%04x", i))
		om.AddProject(simulator.Project{ID: in.ProjectIDs[i]})
	}
	om.Inject(simulator.ServerError(http.MethodGet, "", simulator.ApplyNo).On(simulator.KindClusters).Always())
	_, err := run[activities.ListClustersResult](t, om, activities.ListClustersName, in)
	failed := requireType(t, err, activities.ErrorOpsManagerUnavailable, false)
	assert.Contains(t, failed.Message(), "none of 12 projects can be listed: gave up after retrying")
	in.After = &activities.ClusterRef{ProjectID: in.ProjectIDs[3], ClusterID: "f"}
	listed, err := run[activities.ListClustersResult](t, om, activities.ListClustersName, in)
	require.NoError(t, err)
	assert.Len(t, listed.Unlisted, 9, "after the beginning of the list, each project is reported")
}

func TestListingRetriesTransientErrors(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	om.AddReplicaSet(project, "audit")
	om.Inject(simulator.ProxyError(http.MethodGet, "", http.StatusServiceUnavailable, simulator.ApplyNo).On(simulator.KindClusters))
	listed, err := run[activities.ListClustersResult](t, om, activities.ListClustersName, activities.ListClustersInput{Scope: scope(), Limit: 10})
	require.NoError(t, err)
	assert.Len(t, listed.Clusters, 1)
}

// Whether any target has a key distinguishes a cluster that is not encrypted from one
// that is broken.
func TestATargetWithoutAKeyIsDistinguishedFromAClusterWithoutAny(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	cluster := om.AddShardedCluster(project, "orders", 2)
	om.Inject(simulator.KeyNull(cluster.ShardIDs[1]).Always())
	for _, without := range []int{1, 3} {
		keys := 3 - without
		if keys == 0 {
			om.Inject(simulator.KeyNotFound(cluster.ShardIDs[0]).Always())
			om.Inject(simulator.KeyNull(cluster.ConfigID).Always())
		}
		_, err := run[activities.ReadKeysResult](t, om, activities.ReadKeysName, activities.ReadKeysInput{Scope: scope(), ClusterIDs: cluster.TargetIDs(), Concurrency: 2})
		var appErr *temporal.ApplicationError
		require.ErrorAs(t, err, &appErr)
		assert.True(t, appErr.NonRetryable())
		assert.Contains(t, appErr.Message(), fmt.Sprintf("(%d of 3 targets have no key)", without))
		var details activities.FailureDetails
		require.NoError(t, appErr.Details(&details))
		assert.Equal(t, keys, details.KeysRead)
		assert.Equal(t, keys == 0, details.IsNotEncrypted(activities.ErrorType(appErr.Type())))
	}
}
