package workflows_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/log"
	sdktestsuite "go.temporal.io/sdk/testsuite"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// afterListing returns the environment of a worker that has just listed a project
// of several pages for another rotation, and two clusters of three targets.
func afterListing(t *testing.T, om *simulator.Server) (env fixture.SDK, orders, other simulator.ShardedCluster) {
	t.Helper()
	orders, other = om.AddShardedCluster(project, "orders", 2), om.AddShardedCluster(project, "other", 2)
	env = fixture.NewSDK(t, om)
	var suite sdktestsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	before := suite.NewTestActivityEnvironment()
	activities.Register(before, env.Activities)
	_, err := before.ExecuteActivity(activities.ListTargetsName, activities.ListTargetsInput{
		Scope: activities.Scope{Connection: workflows.DefaultConnection, ProjectID: project}, ClusterID: other.ID, AllowShared: true,
	})
	require.NoError(t, err)
	om.ResetLedger()
	return env, orders, other
}

// requirePages checks how many pages of the project's list were requested; a count
// of its entries is none.
func requirePages(t *testing.T, om *simulator.Server, want int) {
	t.Helper()
	assert.Len(t, om.Ledger().Select(func(r simulator.Request) bool {
		return r.Authenticated && r.Kind == simulator.KindClusters && !strings.Contains(r.Path, "itemsPerPage=1&")
	}), want)
}

func TestARotationSharesTheListOfAnother(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{MaxItemsPerPage: 5})
	env, orders, _ := afterListing(t, om)
	result, err := env.Rotate(fixture.Input(orders.ID))
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Len(t, result.Targets, 3)
	requirePages(t, om, 0)
}

// Shards have moved since, so that the list is wrong and the number of its entries
// is right.
func TestARefusalBecauseOfASharedListIsReadAfresh(t *testing.T) {
	t.Parallel()
	for name, expect := range map[string]func(in *workflows.RotateClusterInput, moved string){
		"expectedTargets": func(in *workflows.RotateClusterInput, _ string) { in.ExpectedTargets = 4 },
		"completed": func(in *workflows.RotateClusterInput, moved string) {
			in.Completed = []workflows.TargetRecord{{Target: workflows.Target{ClusterID: moved}, Status: workflows.StatusPending}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{MaxItemsPerPage: 5})
			env, orders, other := afterListing(t, om)
			moved := other.ShardIDs[0]
			om.UpdateCluster(moved, func(c *simulator.Cluster) { c.ClusterName = orders.Name })
			input := fixture.Input(orders.ID)
			expect(&input, moved)
			result, err := env.Rotate(input)
			require.NoError(t, err)
			assert.Len(t, result.Targets, 4)
			assert.Len(t, om.Ledger().Applied(moved), 1)
		})
	}
}

// A shard is gone, and another cluster has come: the list has as many entries.
func TestATargetOfASharedListThatIsGoneIsNoFailure(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{MaxItemsPerPage: 5})
	env, orders, _ := afterListing(t, om)
	om.RemoveCluster(orders.ShardIDs[1])
	om.AddReplicaSet(project, "added")
	result, err := env.Rotate(fixture.Input(orders.ID))
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotated, result.Outcome)
	assert.Len(t, result.Targets, 2)
	for _, id := range []string{orders.ShardIDs[0], orders.ConfigID} {
		assert.Len(t, om.Ledger().Applied(id), 1)
	}
}

// One that is still listed has no key: that is a failure, and found out once.
func TestATargetOfASharedListWithoutAKeyFails(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{MaxItemsPerPage: 5})
	env, orders, _ := afterListing(t, om)
	om.Inject(simulator.KeyNotFound(orders.ShardIDs[1]).Always())
	_, err := env.Rotate(fixture.Input(orders.ID))
	requireFailure(t, err, workflows.ErrorNotFound)
	assert.Equal(t, 1, len(om.Ledger().Select(func(r simulator.Request) bool { return r.Authenticated && r.ClusterID == orders.ShardIDs[1] })))
	assert.Empty(t, om.Ledger().Rotations)
}

// A cluster that goes after it was listed for a fleet is gone for its rotation.
func TestAClusterOfASharedListThatIsGone(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{MaxItemsPerPage: 5})
	env, orders, _ := afterListing(t, om)
	for _, id := range append(orders.TargetIDs(), orders.ID) {
		om.RemoveCluster(id)
	}
	_, err := env.Rotate(fixture.Input(orders.ID))
	requireFailure(t, err, workflows.ErrorNotFound)
}
