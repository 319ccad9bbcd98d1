package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"keyturn/internal/setting"
	"keyturn/workflows"
)

// waitList waits until Temporal's list of workflows has caught up.
func (s *commandLine) waitList(what string, is func(listView) bool, args ...string) (v listView) {
	s.T.Helper()
	eventually(s.T, what, func() bool {
		v = decoded[listView](s.T, s.run(append([]string{"list", "--connection", s.Connection, "-o", "json"}, args...)...))
		return is(v)
	})
	return v
}

func TestListOfWhatWaitsNeedsNoWorker(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 3)
	billing := s.OM.AddReplicaSet(testProject, "billing")
	stop := s.StartWorker()
	s.failPut(s.cluster.ShardIDs[1])
	s.expect(s.keyturn("rotate", "--wait", "--requested-by", "dana", "--ticket", "CHG7"), exitWaiting)
	onBilling := []string{"--project", billing.ProjectID, "--cluster", billing.ID, "--connection", s.Connection}
	s.expect(s.run(append([]string{"rotate", "--wait", "--require-approval", "--requested-by", "dana"}, onBilling...)...), exitWaiting)
	stop()

	v := s.waitList("both rotations that wait", func(v listView) bool { return v.Waiting == 2 }, "--open")
	held := v.Rotations[0]
	assert.Equal(t, workflows.PhaseHeld, held.Phase)
	assert.Equal(t, []string{"orders"}, held.Clusters)
	assert.Equal(t, "CHG7", held.Ticket)
	assert.Equal(t, 4, held.Targets)
	assert.Contains(t, held.WaitingFor, "orders-1 failed (NotFound)")
	waiting := s.run("list", "--waiting", "--connection", s.Connection)
	s.expect(waiting, exitWaiting, "orders (", "billing (", "2 waiting for a person", "keyturn: 2 rotations wait for a person", "  keyturn retry --project ", "  keyturn approve --project ")
	s.expect(s.run("list", "--connection", s.Connection), exitDone, "keyturn retry --project")
	s.expect(s.run("list", "--waiting", "--connection", s.Connection, "--ticket", "CHG7"), exitWaiting, "keyturn: 1 rotation waits for a person")

	// The commands work as they are printed.
	s.StartWorker()
	s.OM.ClearFaults()
	s.expect(s.keyturn("retry", "--by", "erin"), exitDone)
	s.expect(s.run(append([]string{"reject", "--by", "erin"}, onBilling...)...), exitDone)
	v = s.waitList("both ends", func(v listView) bool { return len(v.Rotations) == 2 }, "--ended")
	ends := map[string]string{}
	for _, r := range v.Rotations {
		ends[r.Clusters[0]] = fmt.Sprint(r.Outcome, " ", r.Error)
		assert.NotNil(t, r.FinishedAt)
		assert.Empty(t, r.Command)
	}
	assert.Equal(t, map[string]string{"orders": "rotated ", "billing": "nothingRotated Rejected"}, ends)
	s.expect(s.run("list", "--waiting", "--connection", s.Connection), exitDone, "Rotations     0 waiting for a person\n")

	// However many pages there are, and however many are asked for.
	a, _, _ := newTestApp()
	a.env = setting.NewEnvironment(s.environment())
	session, err := a.connect(t.Context())
	require.NoError(t, err)
	defer session.Close()
	for limit, want := range map[int]int{0: 2, 1: 2, 2: 2} {
		l := &rotationList{session: session, flags: &listFlags{filterFlags: filterFlags{connection: s.Connection, limit: limit}}, reads: t.Context(), pageSize: 1}
		require.NoError(t, l.findAll(t.Context()))
		assert.Len(t, l.found, want, "limit %d: one more is found than is shown", limit)
	}
}

// A workflow of an earlier version has no memo: it is asked. One that no worker has
// taken up has none either, and does not keep the list from being printed.
func TestListOfWorkflowsWithoutMemo(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	start := func(id string, input workflows.RotateClusterInput) {
		_, err := s.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: s.TaskQueue}, workflows.RotateClusterType, input)
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Temporal.TerminateWorkflow(context.Background(), id, "", "test ended") })
	}
	start(s.id(), workflows.RotateClusterInput{ClusterID: s.cluster.ID})
	unknown := s.waitList("the rotation", func(v listView) bool { return len(v.Rotations) == 1 })
	assert.Contains(t, unknown.Rotations[0].Problem, "start a worker on task queue")
	assert.Equal(t, s.cluster.ID, unknown.Rotations[0].ClusterID)
	s.expect(s.run("list", "--connection", s.Connection), exitDone, "unknown", s.cluster.ID, "start a worker on task queue")

	// A worker of an earlier version.
	earlier := sdkworker.New(s.Temporal, s.TaskQueue, sdkworker.Options{})
	earlier.RegisterWorkflowWithOptions(func(ctx workflow.Context, input workflows.RotateClusterInput) (*workflows.RotateClusterResult, error) {
		result := workflows.RotateClusterResult{
			Connection: s.Connection, ProjectID: testProject, ClusterID: input.ClusterID, ClusterName: "orders", Change: workflows.Change{Ticket: "CHG8"},
		}
		if input.DryRun {
			result.Outcome = workflows.OutcomePlanned
			return &result, nil
		}
		progress := workflows.Progress{RotateClusterResult: result, Phase: workflows.PhaseHeld, WaitingFor: "an operator to retry"}
		if err := workflow.SetQueryHandler(ctx, workflows.ProgressQuery, func() (workflows.Progress, error) { return progress, nil }); err != nil {
			return nil, err
		}
		return nil, workflow.Await(ctx, func() bool { return false })
	}, workflow.RegisterOptions{Name: workflows.RotateClusterType})
	require.NoError(t, earlier.Start())
	t.Cleanup(earlier.Stop)
	const other = "5196e5b0e4b0fca9cc88334b"
	start(workflows.RotateClusterID(s.Connection, testProject, other), workflows.RotateClusterInput{ClusterID: other, DryRun: true})
	v := s.waitList("both rotations", func(v listView) bool { return len(v.Rotations) == 2 && v.Rotations[1].FinishedAt != nil }, "--ticket", "CHG8")
	assert.Equal(t, 1, v.Waiting)
	assert.Equal(t, workflows.PhaseHeld, v.Rotations[0].Phase)
	assert.Equal(t, []string{"orders"}, v.Rotations[0].Clusters)
	assert.Contains(t, v.Rotations[0].Command, "keyturn retry --project")
	assert.Equal(t, workflows.OutcomePlanned, v.Rotations[1].Outcome)
	assert.Equal(t, other, v.Rotations[1].ClusterID)
}
