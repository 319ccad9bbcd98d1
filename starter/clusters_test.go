package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"keyturn/internal/ledger"
	"keyturn/workflows"
)

// The last rotation of a cluster may be one of its project's deployments, whose memo
// names the clusters or, if there are many, only some.
func TestLastRotationOfACluster(t *testing.T) {
	r := &clusterRotations{map[clusterName]latestRotation{}, map[clusterName]string{}}
	other := strings.Replace(testProject, "5", "6", 1)
	for _, info := range listedWorkflows(t) {
		if found, isOne := rotationListed(info); isOne {
			r.add(found)
		}
	}
	ended := at(300)
	for _, finished := range []int{350, 390, 370} {
		r.add(listedRotation{Kind: kindDeployment, Memo: workflows.Memo{ProjectID: other, Clusters: []string{"thrice"}}, FinishedAt: at(finished)})
	}
	r.add(listedRotation{Kind: kindDeployment, Memo: workflows.Memo{
		ProjectID: other, Clusters: []string{"orders"}, ClustersNotListed: 9, Outcome: workflows.OutcomeRotated, Ticket: "CHG9",
	}, FinishedAt: ended})
	r.add(listedRotation{Kind: kindDeployment, Memo: workflows.Memo{ProjectID: other, Clusters: []string{"orders"}, DryRun: true}, FinishedAt: at(400)})

	of := func(project, last, name string) rotatableCluster {
		return r.of(workflows.ClusterRef{ProjectID: project, ClusterID: testCluster[:23] + last, ClusterName: name})
	}
	assert.Equal(t, "nothingRotated", of(testProject, "4", "a").LastRotation.Outcome)
	assert.Equal(t, "terminated", of(testProject, "5", "legacy").LastRotation.Outcome)
	assert.Equal(t, "held", of(testProject, "9", "orders").Current, "by its name, in the deployment's memo")
	assert.Nil(t, of(testProject, "9", "never").LastRotation)
	assert.Equal(t, "CHG9", of(other, "9", "one of many").LastRotation.Ticket)
	assert.Equal(t, *ended, of(other, "9", "orders").LastRotation.FinishedAt, "a plan is no rotation")

	assert.Equal(t, *at(390), of(other, "9", "thrice").LastRotation.FinishedAt)

	v := &clustersView{Connection: "default", Complete: false, Unlisted: []workflows.UnlistedProject{{ProjectID: other, Type: workflows.ErrorForbidden, Message: "no\x1b[2J access"}}}
	for _, name := range []string{"audit", "orders", strings.Repeat("o", 60)} {
		v.Clusters = append(v.Clusters, of(testProject, "3", name))
	}
	expectOnTerminal(t, "clusters", v.table)
	assert.NotContains(t, v.table(layout{})+v.markdown()+v.csv(), "\x1b")
}

func TestClustersAreListedWithTheirLastRotation(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	billing := s.OM.AddReplicaSet(testProject, "billing")
	stop := s.StartWorker()
	s.expect(s.keyturn("rotate", "--wait", "--ticket", "CHG7"), exitDone)
	list := func() map[string]rotatableCluster {
		v := decoded[clustersView](t, s.run("clusters", "--connection", s.Connection, "-o", "json"))
		require.True(t, v.Complete)
		byName := map[string]rotatableCluster{}
		for _, c := range v.Clusters {
			byName[c.ClusterName] = c
		}
		require.Len(t, byName, 2)
		return byName
	}
	var found map[string]rotatableCluster
	eventually(t, "the rotation in Temporal's list", func() bool {
		found = list()
		return found["orders"].LastRotation != nil
	})
	last := *found["orders"].LastRotation
	assert.WithinDuration(t, time.Now(), last.FinishedAt, time.Hour)
	last.FinishedAt, last.RunID = time.Time{}, ""
	assert.Equal(t, latestRotation{Kind: "cluster", Outcome: "rotated", Ticket: "CHG7", WorkflowID: s.id()}, last)
	assert.Equal(t, s.cluster.ID, found["orders"].ClusterID)
	assert.Nil(t, found["billing"].LastRotation)
	s.expect(s.run("clusters", "--connection", s.Connection, "--cluster-names", "^b"), exitDone, "1 cluster", "billing", "never")

	// The ledger has rotations that Temporal has forgotten.
	l := newTestLedger(t, ledger.Options{})
	recorded := rotatedResult(billing.ID, "billing", day("2025-04-01"), "1")
	recorded.Connection, recorded.ProjectID = s.Connection, testProject
	l.append(t, firstRun, recorded, nil, nil)
	s.settings = l.env
	found = list()
	assert.Equal(t, "2025-04-01", found["billing"].LastRotation.FinishedAt.Format(time.DateOnly))
	assert.Equal(t, "CHG7", found["orders"].LastRotation.Ticket)

	// Without a worker, it does not wait for ever.
	stop()
	s.expect(s.run("clusters", "--connection", s.Connection), exitFailed, "start a worker on task queue")
}

// A worker of an earlier version fails the workflow's tasks, again and again.
func TestClustersNeedAWorkerThatKnowsTheWorkflow(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	earlier := sdkworker.New(s.Temporal, s.TaskQueue, sdkworker.Options{})
	earlier.RegisterWorkflowWithOptions(workflows.RotateCluster, workflow.RegisterOptions{Name: workflows.RotateClusterType})
	require.NoError(t, earlier.Start())
	t.Cleanup(earlier.Stop)
	s.expect(s.run("clusters", "--connection", s.Connection), exitFailed, "upgrade it if its version does not know workflow type ListClusters")
}

func TestClusterByItsDisplayName(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.StartWorker()
	twin := s.OM.AddReplicaSet(testProject, "twin")
	other := s.OM.AddReplicaSet(testProject, "twin")
	named := func(words ...string) answer { return s.run(append(words, "--connection", s.Connection)...) }
	s.expect(named("rotate", "--cluster", "orders", "--project", testProject, "--wait"), exitDone, "Outcome       rotated")
	described, err := s.Temporal.DescribeWorkflow(t.Context(), s.id(), "")
	require.NoError(t, err)
	summary, err := described.GetStaticSummary()
	require.NoError(t, err)
	assert.Equal(t, "Rotate the KMIP master key of cluster orders", summary)
	s.expect(named("report", "--cluster", "orders"), exitDone, s.cluster.ID)
	s.expect(named("watch", "--cluster", "twin", "--project", testProject), exitUsage, `2 clusters have the name "twin"`,
		"--project "+testProject+" --cluster "+twin.ID, "--project "+testProject+" --cluster "+other.ID)
	s.expect(named("watch", "--cluster", "order"), exitUsage, `no cluster has the display name or ID "order"`)
	s.expect(named("schedule", "show", "--cluster", "orders", "--project", testProject), exitFailed, "schedule "+s.id()+" does not exist")
	s.expect(named("schedule", "apply", "--cluster", "twin", "--every", "90d"), exitUsage, `2 clusters have the name "twin"`)
	assert.Equal(t, 2, s.applied())
}
