package workflows_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

func listClusters(env fixture.SDK, input any) (result workflows.ListClustersResult, err error) {
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: "list-clusters:default:1", TaskQueue: workflows.DefaultTaskQueue})
	env.ExecuteWorkflow(workflows.ListClustersType, input)
	if err := env.GetWorkflowError(); err != nil {
		return result, err
	}
	return result, env.GetWorkflowResult(&result)
}

func TestListClusters(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	orders := om.AddShardedCluster(project, "orders", 2)
	om.AddReplicaSet(project, "audit")
	result, err := listClusters(fixture.NewSDK(t, om), workflows.ListClustersInput{ClusterNames: "^ord"})
	require.NoError(t, err)
	assert.Equal(t, workflows.ListClustersResult{
		Connection: "default", Clusters: []workflows.ClusterRef{{ProjectID: project, ClusterID: orders.ID, ClusterName: "orders"}},
		Unlisted: []workflows.UnlistedProject{}, Last: result.Last,
	}, result)

	// What comes after a cluster does not contain it.
	all, err := listClusters(fixture.NewSDK(t, om), workflows.ListClustersInput{})
	require.NoError(t, err)
	require.Len(t, all.Clusters, 2)
	rest, err := listClusters(fixture.NewSDK(t, om), workflows.ListClustersInput{After: &all.Clusters[0]})
	require.NoError(t, err)
	assert.Equal(t, all.Clusters[1:], rest.Clusters)
}

func TestListClustersReportsWhatItCannotList(t *testing.T) {
	t.Parallel()
	om := simulator.Start(t, simulator.Options{})
	om.AddReplicaSet(project, "audit")
	_, err := listClusters(fixture.NewSDK(t, om), map[string]any{"connection": "no spaces", "projectIds": []string{"x"}, "excludeProjectIds": []string{"y"}, "clusterNames": "(", "clusterId": "z"})
	failed := requireFailure(t, err, workflows.ErrorInvalidInput)
	for _, field := range []string{"connection:", "projectIds[0]:", "excludeProjectIds[0]:", "clusterNames:", `"clusterId": unknown field`} {
		assert.Contains(t, failed.Message(), field)
	}
	fault := simulator.AccessListRefusal(http.MethodGet, "").On(simulator.KindClusters).Always()
	fault.ProjectID = addProject(om, 1)
	om.Inject(fault)
	result, err := listClusters(fixture.NewSDK(t, om), workflows.ListClustersInput{})
	require.NoError(t, err)
	require.Len(t, result.Unlisted, 1)
	assert.Equal(t, workflows.ErrorForbidden, result.Unlisted[0].Type)
	assert.Len(t, result.Clusters, 1)
}
