package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/timestamppb"

	"keyturn/internal/ledger"
	"keyturn/internal/setting"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// expectOnePut checks that each target was rotated once.
func (s *commandLine) expectOnePut(clusterIDs ...string) {
	s.T.Helper()
	for _, id := range clusterIDs {
		assert.Len(s.T, s.OM.Ledger().Applied(id), 1, "cluster ID %s", id)
	}
}

// A fleet fails twice before it is done. Neither a cluster that was rotated nor a
// shard of one that failed is rotated again.
func TestAFleetIsContinued(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 2)
	s.failPut(s.cluster.ConfigID)
	before := s.OM.AddReplicaSet(testProject, "before")
	audit := s.failedSet("audit")
	last := s.OM.AddReplicaSet(testProject, "last")
	other := "65a1f1aa00000000000000ff"
	s.StartWorker()
	atATime := []string{"--wait", "--clusters-at-a-time", "1"}
	s.expect(s.fleet("--continue", "--projects", testProject), exitUsage, "continue")
	s.expect(s.fleet("--continue"), exitFailed, "start a fleet without --continue")

	s.expect(s.fleet(append(atATime, "--max-failed-clusters", "1", "--exclude-projects", other, "--ticket", "CHG1", "--reason", "quarterly")...), exitFailed, "1 of 4 clusters rotated, 2 failed, 1 not started")
	s.expectOnePut(append(s.cluster.ShardIDs, before.ID)...)
	s.OM.ClearFaults()
	s.failPut(audit.ID)
	// A plan and a fleet with a wrong input do not count.
	s.expect(s.onFleet("plan", "--cluster-names", "before"), exitDone)
	wrong, err := s.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: s.fleetID() + "-wrong", TaskQueue: s.Connection}, workflows.RotateFleetType,
		map[string]any{"connection": s.Connection, "clustersAtATime": -1})
	require.NoError(t, err)
	require.Error(t, wrong.Get(t.Context(), nil))

	continued := s.fleet("--continue", "--wait", "--ticket", "CHG2", "--max-failed-clusters", "0")
	s.expect(continued, exitFailed, "continuing fleet "+s.fleetID(), "fleet "+s.Connection+" has ended (partial): 2 of 4 clusters rotated (1 before), 1 failed, 1 not started",
		"continue with:\n  keyturn report --fleet --connection "+s.Connection+"\n  keyturn rotate --fleet --connection "+s.Connection+" --continue --wait\n")
	result := decoded[workflows.RotateFleetResult](t, s.onFleet("report", "-o", "json"))
	require.NotNil(t, result.Continues)
	assert.Equal(t, "CHG2", result.Change.Ticket)
	assert.Equal(t, "quarterly", result.Change.Reason, "what no flag sets is the last fleet's")
	s.OM.ClearFaults()

	s.expect(s.fleet("--continue", "--wait"), exitDone, "4 of 4 clusters rotated")
	s.expectOnePut(append(s.cluster.TargetIDs(), before.ID, audit.ID, last.ID)...)
	s.expect(s.fleet("--continue"), exitDone, "left no cluster to rotate", "nothing is left to continue")
	left := decoded[workflows.RotateFleetResult](t, s.fleet("--continue", "--wait", "-o", "json"))
	assert.Equal(t, 4, left.Counts.Rotated)
	s.expectOnePut(append(s.cluster.TargetIDs(), before.ID, audit.ID, last.ID)...)
}

// The rotations of a terminated fleet continue. While one runs it is busy, and
// what it has done is known afterwards.
func TestATerminatedFleetIsContinued(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	blocked := s.failedSet("audit")
	s.StartWorker()
	started := decoded[map[string]string](t, s.fleet("-o", "json", "--on-failure", "hold", "--cluster-names", "audit"))
	named := []string{"--connection", s.Connection, "--project", testProject, "--cluster", blocked.ID}
	eventually(t, "the cluster's hold", func() bool { return s.run(append([]string{"watch"}, named...)...).code == exitWaiting })
	require.NoError(t, s.Temporal.TerminateWorkflow(t.Context(), s.fleetID(), "", "test"))
	s.expect(s.fleet("--continue", "--wait"), exitDone, "continuing fleet "+s.fleetID()+", run "+started["runId"], "0 of 1 clusters rotated, 1 busy")
	assert.Zero(t, s.childrenOf(s.fleetID()), "a rotation that ends in this moment must not be started again")

	s.OM.ClearFaults()
	s.expect(s.run(append([]string{"retry", "--by", "erin"}, named...)...), exitDone)
	s.expect(s.run(append([]string{"watch"}, named...)...), exitDone)
	s.expectOnePut(blocked.ID)
	s.expect(s.fleet("--continue", "--wait"), exitDone, "1 of 1 clusters rotated (1 before)")
	s.expectOnePut(blocked.ID)
}

// childrenOf counts the children that the last run of a workflow tried to start.
func (s *commandLine) childrenOf(id string) (children int) {
	s.T.Helper()
	events := s.Temporal.GetWorkflowHistory(s.T.Context(), id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		require.NoError(s.T, err)
		if event.GetEventType() == enumspb.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED {
			children++
		}
	}
	return children
}

// A reset of a fleet starts no second round, and continuing it afterwards neither.
func TestAFleetThatWasResetIsContinued(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	late := s.OM.AddReplicaSet(testProject, "late")
	s.StartWorker()
	s.expect(s.fleet("--wait", "--cluster-names", "orders"), exitDone)
	time.Sleep(time.Second) // a reset run starts in another second
	_, stderr, err := s.TemporalServer.CLI(t.Context(), "workflow", "reset", "-w", s.fleetID(), "--type", "FirstWorkflowTask", "--reason", "test")
	require.NoError(t, err, stderr)
	s.expect(s.onFleet("watch"), exitDone, "0 of 1 clusters rotated, 1 busy")
	s.expect(s.fleet("--continue", "--wait"), exitDone, "1 of 1 clusters rotated (1 before)")
	s.expectOnePut(s.cluster.TargetIDs()...)
	assert.Empty(t, s.OM.Ledger().Applied(late.ID))
}

// The rotation that a fleet had started was terminated with a PUT of which only
// its query shows: the fleet that continues reads before it rotates.
func TestATerminatedRotationOfAFleetIsContinued(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	s.OM.Inject(simulator.RateLimited("PUT", s.cluster.ConfigID, "1").Always())
	s.StartWorker()
	s.expect(s.fleet("--retry-timeout", "10m", "--settle-time", "100ms"), exitDone)
	eventually(t, "a verified shard", func() bool {
		return len(s.OM.Ledger().Applied(s.cluster.ShardIDs[0])) == 1 && s.inProgress(s.cluster.ConfigID)
	})
	require.NoError(t, s.Temporal.TerminateWorkflow(t.Context(), s.id(), "", "test"))
	s.expect(s.onFleet("watch"), exitFailed, "Terminated")
	s.OM.ClearFaults()
	s.expect(s.fleet("--continue", "--wait"), exitDone, "1 of 1 clusters rotated")
	s.expectOnePut(s.cluster.TargetIDs()...)
}

// inProgress reports whether a target of the fixture's cluster is being rotated.
func (s *commandLine) inProgress(target string) bool {
	records := decoded[workflows.RotateClusterResult](s.T, s.keyturn("report", "-o", "json"))
	for _, record := range records.Targets {
		if record.ClusterID == target {
			return record.Status == workflows.StatusRotating
		}
	}
	return false
}

// Where Temporal may have forgotten what the last fleet rotated, nothing starts.
func TestAFleetOlderThanTheRetentionIsNotContinued(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	err := workflows.CheckContinuable(t.Context(), s.Temporal, s.TemporalServer.Namespace, time.Now().Add(-20000*time.Hour))
	assert.Equal(t, workflows.ErrorInvalidInput, workflows.ErrorTypeOf(err))
	assert.ErrorContains(t, err, "start a new fleet")
	s.StartWorker()
	run, err := s.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: s.fleetID(), TaskQueue: s.Connection}, workflows.RotateFleetType,
		workflows.RotateFleetInput{Connection: s.Connection},
		workflows.FleetContinuation{Continues: &workflows.ContinuedFleet{WorkflowID: "fleet", RunID: "run", Since: time.Now().Add(-20000 * time.Hour)}})
	require.NoError(t, err)
	err = run.Get(t.Context(), nil)
	require.ErrorContains(t, err, "orders (InvalidInput)")
	assert.Zero(t, s.applied())
}

// forgetful is a client whose list of workflows begins with a run that Temporal no
// longer has.
type forgetful struct {
	client.Client
	run *workflowpb.WorkflowExecutionInfo
}

func (c forgetful) ListWorkflow(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	listed, err := c.Client.ListWorkflow(ctx, request)
	if err == nil && len(request.GetNextPageToken()) == 0 {
		listed.Executions = append([]*workflowpb.WorkflowExecutionInfo{c.run}, listed.GetExecutions()...)
	}
	return listed, err
}

// Temporal's list of workflows may be late when it has deleted a run.
func TestRunsThatTemporalHasForgottenSinceItListedThem(t *testing.T) {
	t.Parallel()
	s := newFixture(t, 1)
	audit := s.OM.AddReplicaSet(testProject, "audit")
	url := "sqlite://" + filepath.Join(t.TempDir(), "ledger.db")
	s.Ledger = fixture.LedgerAt(t, url, ledger.Options{}).Open
	s.StartWorker()
	s.expect(s.fleet("--wait"), exitDone)
	eventually(t, "Temporal's list of workflows", func() bool { return s.onFleet("report", "--each-cluster", "-o", "csv").code == exitDone })
	described, err := s.Temporal.DescribeWorkflowExecution(t.Context(), s.fleetID(), "")
	require.NoError(t, err)
	fleet := described.GetWorkflowExecutionInfo()
	a, stdout, _ := newTestApp()
	a.env, a.format = setting.Environment{ledger.URLVariable: url}, formatJSON
	a.rotation = rotationName{connection: s.Connection, fleet: true}
	listing := func(id string) *session {
		return &session{Client: forgetful{s.Temporal, &workflowpb.WorkflowExecutionInfo{
			Execution: &commonpb.WorkflowExecution{WorkflowId: id, RunId: uuid.NewString()}, StartTime: timestamppb.Now(),
			Status: enumspb.WORKFLOW_EXECUTION_STATUS_FAILED, ParentExecution: fleet.GetExecution(),
		}}}
	}

	last, err := a.lastFleet(t.Context(), listing(s.fleetID()))
	require.NoError(t, err)
	assert.Equal(t, fleet.GetExecution().GetRunId(), last.runID)

	rotation := workflows.RotateClusterID(s.Connection, testProject, audit.ID)
	s.forget(rotation)
	require.NoError(t, a.reportEachCluster(t.Context(), listing(rotation), fleet))
	var clusters []reportedCluster
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &clusters))
	ids := map[string]string{}
	for _, cluster := range clusters {
		ids[cluster.WorkflowID] = cluster.Status
	}
	assert.Equal(t, map[string]string{s.id(): "Completed", rotation: "Completed"}, ids, "the second one is from the ledger")
}
