// Package endtoend runs rotations on a real Temporal server with the production
// worker, against a simulated Ops Manager.
package endtoend

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/parallel"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"
)

func TestMain(m *testing.M) {
	parallel.Tests(16)
	temporalserver.Main(m)
}

func TestSixtyFourTargets(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{Latency: 20 * time.Millisecond})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 63)
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.Concurrency = 8
	run := s.Start(input)
	s.RequireRotated(run, 64)

	ledger := s.OM.Ledger()
	repeated := repeatedAttempts(s, run)
	for _, id := range cluster.TargetIDs() {
		if !strings.Contains(repeated, id) {
			assert.Equal(t, 2, ledger.Count(http.MethodGet, id))
		}
		assert.Equal(t, 1, ledger.Count(http.MethodPut, id))
	}
	events := len(s.History(run))
	t.Logf("64 targets, 8 at a time: %d key requests, %d challenges, %d events, %.2f events a target",
		ledger.Count(http.MethodGet, "")+ledger.Count(http.MethodPut, ""), ledger.Challenges(), events, float64(events)/64)
	// How many completions share a workflow task depends on timing (7 to 8
	// events per target on an idle machine). Two activities that share no
	// workflow task take 12 events.
	assert.Less(t, float64(events)/64, 12.0)
	assert.LessOrEqual(t, ledger.Challenges(), 9)
}

func TestActivitySummariesAndCurrentDetails(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	s.OM.Inject(simulator.AccessListRefusal(http.MethodPut, cluster.ShardIDs[1]))
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.OnFailure = workflows.OnFailureHold
	run := s.Start(input)
	p := s.Await(run.GetID(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseHeld })
	assert.Contains(t, p.WaitingFor, "orders-1")

	details := s.CLI("workflow", "metadata", "-w", run.GetID(), "-o", "json")
	assert.Contains(t, details, "| orders-0 | verified |")
	assert.Contains(t, details, "an operator to retry, skip or abort")

	summaries := map[string]int{}
	for _, event := range s.History(run) {
		if event.GetEventType() == enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED {
			summaries[strings.Trim(string(event.GetUserMetadata().GetSummary().GetData()), `"`)]++
		}
	}
	assert.Equal(t, 2, summaries["orders-0"])
	assert.Equal(t, 1, summaries["orders-1"])

	_, err := s.Update(run.GetID(), workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	require.NoError(t, err)
	s.RequireRotated(run, 3)
}

// Started with the Temporal CLI and JSON input, under another workflow ID.
func TestStartByJSONUnderAnotherID(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	s.StartWorker()
	id := "manual-" + s.Project
	s.CLI("workflow", "start", "--type", "RotateCluster", "--task-queue", s.TaskQueue, "-w", id,
		"--input", fmt.Sprintf(`{"projectId":%q,"clusterId":%q,"change":{"ticket":"CHG0031337"}}`, s.Project, cluster.ID))
	run := s.Temporal.GetWorkflow(t.Context(), id, "")
	s.RequireRotated(run, 3)
	lock := workflows.RotateClusterID("default", s.Project, cluster.ID)
	assert.Equal(t, workflows.PhaseDone, s.Progress(lock).Phase)
	assert.Contains(t, s.CLI("workflow", "describe", "-w", lock), "Rotate the KMIP master key of cluster "+cluster.ID+" (CHG0031337)")
}

func TestInvalidInput(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	s.StartWorker()
	for i, c := range []struct {
		arguments []string
		names     []string
	}{
		{nil, []string{"projectId: is required"}},
		{[]string{"--input", `{"projectId":7,"clusterId":"x","url":"http://x"}`}, []string{"projectId: must be a string", "clusterId: must be 24 hex digits", `"url": unknown field`}},
		{[]string{"--input", `"text"`}, []string{"input: must be an object"}},
		{[]string{"--input", "text", "--input-meta", "encoding=binary/plain"}, []string{"input: must be a JSON object"}},
	} {
		id := fmt.Sprintf("invalid-%d-%s", i, s.Project)
		started := time.Now()
		s.CLI(append([]string{"workflow", "start", "--type", "RotateCluster", "--task-queue", s.TaskQueue, "-w", id}, c.arguments...)...)
		_, err := s.Result(s.Temporal.GetWorkflow(t.Context(), id, ""))
		appErr := fixture.RequireFailure(t, err, workflows.ErrorInvalidInput)
		for _, name := range c.names {
			assert.Contains(t, appErr.Message(), name)
		}
		assert.Less(t, time.Since(started), 20*time.Second)
	}
	assert.Empty(t, s.OM.Ledger().Requests)
}

// A cluster that is started twice at the same time under different IDs is
// rotated once.
func TestOneRotationForEachCluster(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 3)
	s.BlockRotation(cluster.ConfigID)
	s.StartWorker()
	lock := workflows.RotateClusterID("default", s.Project, cluster.ID)
	input := s.Input(cluster.ID)
	ended := make(chan error)
	for _, id := range []string{"first-" + s.Project, "second-" + s.Project} {
		go func() {
			_, err := s.Result(s.StartAs(id, input))
			ended <- err
		}()
	}
	assert.Contains(t, fixture.RequireFailure(t, <-ended, workflows.ErrorClusterBusy).Message(), lock)
	s.OM.ClearFaults()
	require.NoError(t, <-ended, "one of them rotates")
	assert.Len(t, s.OM.Ledger().Rotations, 4)
}

// Temporal suggests continue-as-new at 40 events, so that a rotation of 24
// targets has several runs.
func TestManyContinueAsNews(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "40"}})
	s := fixture.NewServerOn(t, server, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 23)
	s.StartWorker()
	run := s.Start(s.Input(cluster.ID))
	first := run.GetRunID()
	s.RequireRotated(run, 24)
	assert.NotEqual(t, first, run.GetRunID(), "the rotation must have continued as new")
	ledger := s.OM.Ledger()
	repeated := repeatedAttempts(s, s.Temporal.GetWorkflow(t.Context(), run.GetID(), first))
	for _, id := range cluster.TargetIDs() {
		if !strings.Contains(repeated, id) {
			assert.Equal(t, 2, ledger.Count(http.MethodGet, id), "requests are not repeated by later runs")
		}
	}
}

// repeatedAttempts returns the inputs of the activities that have had more than one
// attempt, in a run and those that continue it. Where no request fails for good, there
// is one reason for that: on a busy machine, an attempt may miss its heartbeat.
func repeatedAttempts(s fixture.Server, run client.WorkflowRun) (inputs string) {
	s.Helper()
	for runID, more := run.GetRunID(), true; more; more = runID != "" {
		scheduled := map[int64]string{}
		events := s.History(s.Temporal.GetWorkflow(s.Context(), run.GetID(), runID))
		for _, event := range events {
			for _, payload := range event.GetActivityTaskScheduledEventAttributes().GetInput().GetPayloads() {
				scheduled[event.GetEventId()] += string(payload.GetData())
			}
			if started := event.GetActivityTaskStartedEventAttributes(); started.GetAttempt() > 1 {
				assert.NotNil(s, started.GetLastFailure().GetTimeoutFailureInfo(), "%v", started.GetLastFailure())
				inputs += scheduled[started.GetScheduledEventId()]
			}
		}
		runID = events[len(events)-1].GetWorkflowExecutionContinuedAsNewEventAttributes().GetNewExecutionRunId()
	}
	return inputs
}

func TestTemporalCLIUpdates(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.RequireApproval = true
	run := s.Start(input)
	s.Await(run.GetID(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })
	_, stderr, err := s.TemporalServer.CLI(t.Context(), "workflow", "update", "execute", "-w", run.GetID(), "--name", "approve", "--input", `{"by":"dana"}`)
	require.Error(t, err)
	assert.Contains(t, stderr, "another person must approve")
	answer := s.CLI("workflow", "update", "execute", "-w", run.GetID(), "--name", "approve", "--input", `{"by":"lee","comment":"go"}`)
	assert.Contains(t, answer, "clusterName")
	result := s.RequireRotated(run, 3)
	assert.Equal(t, "lee", result.Approval.By)
	assert.Contains(t, s.CLI("workflow", "query", "-w", run.GetID(), "--type", "progress"), `"outcome":"rotated"`)
}

func TestCancellationKeepsTheRecords(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 7)
	inProgress := cluster.ShardIDs[1:5]
	s.BlockRotation(inProgress...)
	s.StartWorker()
	input := s.Input(cluster.ID)
	run := s.Start(input)
	s.Await(run.GetID(), func(p workflows.Progress) bool { return p.Counts[workflows.StatusRotating] == len(inProgress) })
	require.NoError(t, s.Temporal.CancelWorkflow(t.Context(), run.GetID(), ""))
	s.AwaitAbort(run.GetID())
	s.OM.ClearFaults()
	_, err := s.Result(run)
	records := requireAborted(s, err)
	assert.Equal(t, map[workflows.Status]int{workflows.StatusVerified: 1 + len(inProgress), workflows.StatusPending: 3}, countsOf(records))
	assert.Len(t, s.OM.Ledger().Rotations, 1+len(inProgress), "every rotated target is recorded")
}

// The outer workflow passes a cancellation on, and returns the records.
func TestCancellationOfOuterWorkflow(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 7)
	s.BlockRotation(cluster.ShardIDs[0])
	s.StartWorker()
	input := s.Input(cluster.ID)
	run := s.StartAs("outer-"+s.Project, input)
	lock := workflows.RotateClusterID("default", s.Project, cluster.ID)
	s.AwaitPut()
	require.NoError(t, s.Temporal.CancelWorkflow(t.Context(), run.GetID(), ""))
	s.AwaitAbort(lock)
	s.OM.ClearFaults()
	_, err := s.Result(run)
	records := requireAborted(s, err)
	assert.Equal(t, map[workflows.Status]int{workflows.StatusVerified: 1, workflows.StatusPending: 7}, countsOf(records))
	assert.Equal(t, workflows.PhaseDone, s.Progress(lock).Phase)
}

// requireAborted returns the records of an aborted rotation, which must match
// the ledger.
func requireAborted(s fixture.Server, err error) *workflows.RotateClusterResult {
	s.Helper()
	fixture.RequireFailure(s, err, workflows.ErrorAborted)
	records, found := workflows.RotateClusterResultOf(err)
	require.True(s, found)
	s.RequireMatchesLedger(records.Targets)
	return records
}

func countsOf(records *workflows.RotateClusterResult) map[workflows.Status]int {
	counts := map[workflows.Status]int{}
	for _, record := range records.Targets {
		counts[record.Status]++
	}
	return counts
}
