package activities_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	sdktestsuite "go.temporal.io/sdk/testsuite"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
)

// bigProject is a project whose list has several pages, and the activities of one
// worker.
type bigProject struct {
	*testing.T
	om       *simulator.Server
	client   *opsmanager.Client
	worker   *activities.Activities
	clusters []simulator.ShardedCluster
	// later is added to Temporal's time.
	later time.Duration
}

// newBigProject has 12 clusters with 4 entries each, of which 10 are on a page.
func newBigProject(t *testing.T) *bigProject {
	om := simulator.Start(t, simulator.Options{MaxItemsPerPage: 10})
	config := fixture.ClientConfig(om)
	config.RequestTimeout = time.Minute // also of a request that waits for others
	client, err := opsmanager.New(config)
	require.NoError(t, err)
	p := &bigProject{T: t, om: om, client: client}
	p.worker = &activities.Activities{
		Connections: map[string]*opsmanager.Client{"default": p.client},
		Heartbeat:   func(context.Context, []byte, any) error { return nil },
	}
	for i := range 12 {
		p.clusters = append(p.clusters, om.AddShardedCluster(project, fmt.Sprint("orders-", i), 2))
	}
	return p
}

// Requests for the whole list: two passes of 5 pages, and the first page of one
// that asks for its own cluster first.
const (
	wholeList = 2 * 5
	firstPage = 1
)

type laterTime struct {
	interceptor.ActivityOutboundInterceptorBase
	later time.Duration
}

func (i *laterTime) GetInfo(ctx context.Context) activity.Info {
	info := i.Next.GetInfo(ctx)
	info.StartedTime = info.StartedTime.Add(i.later)
	return info
}

func (p *bigProject) execute(name string, input, result any) error {
	var suite sdktestsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(sdkworker.Options{Interceptors: []interceptor.WorkerInterceptor{&fixture.ActivityCalls{
		Wrap: func(next interceptor.ActivityOutboundInterceptor) interceptor.ActivityOutboundInterceptor {
			return &laterTime{interceptor.ActivityOutboundInterceptorBase{Next: next}, p.later}
		},
	}}})
	activities.Register(env, p.worker)
	value, err := env.ExecuteActivity(name, input)
	if err != nil {
		return err
	}
	return value.Get(result)
}

func (p *bigProject) list(id string, allowShared bool) (listed activities.ListTargetsResult, err error) {
	err = p.execute(activities.ListTargetsName, activities.ListTargetsInput{Scope: scope(), ClusterID: id, AllowShared: allowShared}, &listed)
	return listed, err
}

// share lists a cluster from the list that another activity has read.
func (p *bigProject) share(id string) activities.ListTargetsResult {
	p.Helper()
	listed, err := p.list(id, true)
	require.NoError(p, err)
	return listed
}

// pages returns the number of pages that were read, and of counts, and forgets
// them.
func (p *bigProject) requests() (pages, counts int) {
	for _, r := range p.om.Ledger().Select(func(r simulator.Request) bool { return r.Authenticated && r.Kind == simulator.KindClusters }) {
		if strings.Contains(r.Path, "itemsPerPage=1&") {
			counts++
		} else {
			pages++
		}
	}
	p.om.ResetLedger()
	return pages, counts
}

func (p *bigProject) requireRequests(pages, counts int) {
	p.Helper()
	gotPages, gotCounts := p.requests()
	assert.Equal(p, []int{pages, counts}, []int{gotPages, gotCounts}, "pages, and counts of the entries")
}

func TestOneListServesManyClusters(t *testing.T) {
	p := newBigProject(t)
	for i, cluster := range p.clusters {
		listed := p.share(cluster.ID)
		assert.Equal(t, i > 0, listed.Shared)
		var ids []string
		for _, target := range listed.Targets {
			ids = append(ids, target.ClusterID)
		}
		assert.ElementsMatch(t, cluster.TargetIDs(), ids)
	}
	p.requireRequests(firstPage+wholeList, len(p.clusters)-1)
}

func TestClustersAtTheSameTimeShareOneReading(t *testing.T) {
	p := newBigProject(t)
	p.om.Inject(simulator.Fault{Kind: simulator.KindClusters, Gated: true, Times: simulator.Forever})
	var rotations sync.WaitGroup
	for _, cluster := range p.clusters {
		rotations.Go(func() {
			listed, err := p.list(cluster.ID, true)
			assert.NoError(t, err)
			assert.False(t, listed.Shared, "it was read after they asked")
		})
	}
	require.NoError(t, p.om.Await(t.Context(), func(l simulator.Ledger) bool {
		return len(l.Select(func(r simulator.Request) bool { return r.Authenticated })) == len(p.clusters)
	}))
	p.om.ClearFaults()
	rotations.Wait()
	p.requireRequests(len(p.clusters)*firstPage+wholeList, 0)
}

func TestAListIsReadAfreshWhereItMustNotBeShared(t *testing.T) {
	p := newBigProject(t)
	for range 2 {
		listed, err := p.list(p.clusters[0].ID, false)
		require.NoError(t, err)
		assert.False(t, listed.Shared)
		p.requireRequests(firstPage+wholeList, 0)
	}
}

func TestAListOlderThanAMinuteIsReadAfresh(t *testing.T) {
	p := newBigProject(t)
	p.share(p.clusters[0].ID)
	p.requests()
	p.later = 50 * time.Second
	assert.True(t, p.share(p.clusters[1].ID).Shared)
	p.requireRequests(0, 1)
	p.later = 61 * time.Second
	assert.False(t, p.share(p.clusters[1].ID).Shared)
	p.requireRequests(firstPage+wholeList, 0)
}

// A shard is found that was added since the list was read, and one that was removed
// is not.
func TestChangedShardsAreNoticedWithinTheMinute(t *testing.T) {
	p := newBigProject(t)
	p.share(p.clusters[0].ID)
	added := p.om.AddCluster(simulator.Cluster{
		ProjectID: project, ClusterName: p.clusters[1].Name, ShardName: "added", ReplicaSetName: "added", TypeName: simulator.TypeReplicaSet,
	})
	listed := p.share(p.clusters[1].ID)
	assert.False(t, listed.Shared)
	assert.Len(t, listed.Targets, 4)
	p.om.RemoveCluster(added.ID)
	listed = p.share(p.clusters[1].ID)
	assert.False(t, listed.Shared)
	assert.Len(t, listed.Targets, 3)
	p.requests()
	assert.True(t, p.share(p.clusters[1].ID).Shared)
	p.requireRequests(0, 1)
}

// Of many that notice a change, one reads the list again.
func TestAChangedListIsReadAgainOnce(t *testing.T) {
	p := newBigProject(t)
	p.share(p.clusters[0].ID)
	p.requests()
	p.om.AddReplicaSet(project, "added")
	p.om.Inject(simulator.Fault{Kind: simulator.KindClusters, Gated: true, Times: simulator.Forever, Skip: 2})
	var rotations sync.WaitGroup
	list := func(id string) {
		rotations.Go(func() {
			_, err := p.list(id, true)
			assert.NoError(t, err)
		})
	}
	list(p.clusters[0].ID)
	require.NoError(t, p.om.Await(t.Context(), func(l simulator.Ledger) bool {
		return len(l.Select(func(r simulator.Request) bool { return r.Authenticated })) == 3
	}), "it has counted, read the first page, and begun to read the list")
	for _, cluster := range p.clusters[1:] {
		list(cluster.ID)
	}
	p.om.ClearFaults()
	rotations.Wait()
	p.requireRequests(firstPage+wholeList, len(p.clusters))
}

// One that notices the change later takes the list that another has read since.
func TestAChangeThatOthersHaveNoticedIsNotReadAgain(t *testing.T) {
	p := newBigProject(t)
	p.share(p.clusters[0].ID)
	p.requests()
	p.om.AddReplicaSet(project, "added")
	p.om.Inject(simulator.Fault{Kind: simulator.KindClusters, Gated: true, Times: 1})
	var later sync.WaitGroup
	later.Go(func() {
		listed, err := p.list(p.clusters[0].ID, true)
		assert.NoError(t, err)
		assert.True(t, listed.Shared)
	})
	require.NoError(t, p.om.Await(t.Context(), func(l simulator.Ledger) bool {
		return len(l.Select(func(r simulator.Request) bool { return r.Authenticated })) == 1
	}))
	assert.False(t, p.share(p.clusters[1].ID).Shared)
	p.om.ClearFaults()
	later.Wait()
}

// Nothing is refused because of a list that was read for someone else.
func TestARefusalIsReadAfresh(t *testing.T) {
	p := newBigProject(t)
	config := p.clusters[1].ConfigID
	p.om.UpdateCluster(config, func(c *simulator.Cluster) { c.ClusterName = "elsewhere" })
	p.share(p.clusters[0].ID)
	p.om.UpdateCluster(config, func(c *simulator.Cluster) { c.ClusterName = p.clusters[1].Name })
	listed := p.share(p.clusters[1].ID)
	assert.False(t, listed.Shared)
	assert.Len(t, listed.Targets, 3)
}

func TestAClusterMissingFromASharedListIsReadAfresh(t *testing.T) {
	p := newBigProject(t)
	p.share(p.clusters[0].ID)
	for _, id := range append(p.clusters[1].TargetIDs(), p.clusters[1].ID) {
		p.om.RemoveCluster(id)
	}
	added := p.om.AddShardedCluster(project, "added", 2) // as many entries as before
	assert.Len(t, p.share(added.ID).Targets, 3)

	_, err := p.list(p.clusters[1].ID, true)
	requireType(t, err, activities.ErrorNotFound, false)
}

// Of a replica set, the list only says that it is one.
func TestAReplicaSetIsReadByItself(t *testing.T) {
	p := newBigProject(t)
	set := p.om.AddReplicaSet(project, "audit")
	p.share(p.clusters[0].ID)
	p.requests()
	p.om.UpdateCluster(set.ID, func(c *simulator.Cluster) { c.ClusterName = "renamed" })
	listed := p.share(set.ID)
	assert.Equal(t, "renamed", listed.ClusterName)
	assert.False(t, listed.Shared)
	p.requireRequests(0, 0)

	p.om.UpdateCluster(set.ID, func(c *simulator.Cluster) { c.ShardName = "shard" })
	_, err := p.list(set.ID, true)
	requireType(t, err, activities.ErrorUnexpectedTopology, false)
	p.om.RemoveCluster(set.ID)
	_, err = p.list(set.ID, true)
	requireType(t, err, activities.ErrorNotFound, false)
}

func TestAnotherAPIKeyReadsListsOfItsOwn(t *testing.T) {
	p := newBigProject(t)
	p.share(p.clusters[0].ID)
	p.requests()
	config := fixture.ClientConfig(p.om)
	require.NoError(t, p.client.Reconfigure(config))
	assert.False(t, p.share(p.clusters[0].ID).Shared)
	p.requireRequests(firstPage+wholeList, 0)

	p.worker.Connections["default"] = fixture.Client(t, p.om)
	assert.False(t, p.share(p.clusters[0].ID).Shared)
	p.requireRequests(firstPage+wholeList, 0)
}

func TestAFailedListIsReadAgain(t *testing.T) {
	p := newBigProject(t)
	p.om.Inject(simulator.APIError(http.MethodGet, "", http.StatusServiceUnavailable, "BUSY", "").On(simulator.KindClusters).Skipping(5))
	_, err := p.list(p.clusters[0].ID, true)
	requireType(t, err, activities.ErrorOpsManagerUnavailable, true)
	p.requests()
	assert.False(t, p.share(p.clusters[0].ID).Shared)
	p.requireRequests(firstPage+wholeList, 0)

	p.om.Inject(simulator.APIError(http.MethodGet, "", http.StatusServiceUnavailable, "BUSY", "").On(simulator.KindClusters))
	_, err = p.list(p.clusters[0].ID, true)
	requireType(t, err, activities.ErrorOpsManagerUnavailable, true)
	assert.True(t, p.share(p.clusters[0].ID).Shared, "the list is not what failed")
}

// A fleet begins with a list as it is then, which its rotations and its next lists
// share.
func TestAFleetsListIsShared(t *testing.T) {
	p := newBigProject(t)
	input := activities.ListClustersInput{Scope: scope(), ProjectIDs: []string{strings.ToUpper(project)}, Limit: 5, Count: true}
	list := func() (listed activities.ListClustersResult) {
		require.NoError(t, p.execute(activities.ListClustersName, input, &listed))
		return listed
	}
	list()
	p.requireRequests(wholeList, 0)
	listed := list()
	p.requireRequests(wholeList, 0)
	assert.True(t, p.share(listed.Clusters[0].ClusterID).Shared)
	p.requireRequests(0, 1)

	input.After, input.Count = listed.Last, false
	listed = list()
	assert.Len(t, listed.Clusters, 5)
	p.requireRequests(0, 1)

	p.om.AddReplicaSet(project, "added")
	listed = list()
	assert.Len(t, listed.Clusters, 5)
	p.requireRequests(wholeList, 1)
}
