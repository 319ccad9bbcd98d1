// Package endtoend runs rotations on a real Temporal server, with the worker of
// production, against a simulated Ops Manager.
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

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/stage"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

func TestMain(m *testing.M) { temporalserver.Main(m) }

func TestSixtyFourTargets(t *testing.T) {
	s := stage.New(t, simulator.Options{Latency: 20 * time.Millisecond})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 63)
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.Concurrency = 8
	run := s.Start(input)
	s.RequireRotated(run, 64)

	ledger := s.OM.Ledger()
	for _, id := range cluster.TargetIDs() {
		assert.Equal(t, 2, ledger.Count(http.MethodGet, id))
		assert.Equal(t, 1, ledger.Count(http.MethodPut, id))
	}
	events := len(s.History(run))
	t.Logf("64 targets, 8 at a time: %d key requests, %d challenges, %d events, %.2f events a target",
		ledger.Count(http.MethodGet, "")+ledger.Count(http.MethodPut, ""), ledger.Challenges(), events, float64(events)/64)
	// How many completions share a workflow task is a matter of timing (7 to 8
	// events a target on an idle machine); two activities that share none take 12.
	assert.Less(t, float64(events)/64, 12.0)
	assert.LessOrEqual(t, ledger.Challenges(), 9)
}

func TestEveryActivityIsNamedAndDetailsAreLive(t *testing.T) {
	s := stage.New(t, simulator.Options{})
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

// Started from the command line, as JSON, under an id of its own choice.
func TestStartedByJSONUnderAnotherID(t *testing.T) {
	s := stage.New(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	s.StartWorker()
	id := "by-hand-" + s.Project
	s.CLI("workflow", "start", "--type", "RotateCluster", "--task-queue", s.TaskQueue, "-w", id,
		"--input", fmt.Sprintf(`{"projectId":%q,"clusterId":%q,"change":{"ticket":"CHG0031337"}}`, s.Project, cluster.ID))
	run := s.Temporal.GetWorkflow(t.Context(), id, "")
	s.RequireRotated(run, 3)
	lock := workflows.RotateClusterID("default", s.Project, cluster.ID)
	assert.Equal(t, workflows.PhaseDone, s.Progress(lock).Phase)
	assert.Contains(t, s.CLI("workflow", "describe", "-w", lock), "Rotate the KMIP master key of cluster "+cluster.ID+" (CHG0031337)")
}

func TestInputThatDoesNotFit(t *testing.T) {
	s := stage.New(t, simulator.Options{})
	s.StartWorker()
	for i, c := range []struct {
		arguments []string
		names     []string
	}{
		{nil, []string{"projectId: is required"}},
		{[]string{"--input", `{"projectId":7,"clusterId":"x","url":"http://x"}`}, []string{"projectId: must be a string", "clusterId: must be 24 hex digits", `"url": unknown field`}},
		{[]string{"--input", `"text"`}, []string{"input: must be an object"}},
		{[]string{"--input", "text", "--input-meta", "encoding=binary/plain"}, []string{"input: must be one JSON object"}},
	} {
		id := fmt.Sprintf("misfit-%d-%s", i, s.Project)
		started := time.Now()
		s.CLI(append([]string{"workflow", "start", "--type", "RotateCluster", "--task-queue", s.TaskQueue, "-w", id}, c.arguments...)...)
		_, err := s.Result(s.Temporal.GetWorkflow(t.Context(), id, ""))
		appErr := stage.RequireFailure(t, err, activities.ErrorInvalidInput)
		for _, name := range c.names {
			assert.Contains(t, appErr.Message(), name)
		}
		assert.Less(t, time.Since(started), 20*time.Second)
	}
	assert.Empty(t, s.OM.Ledger().Requests)
}

// The same cluster, started twice at once under different ids, is rotated once.
func TestOneRotationForEachCluster(t *testing.T) {
	s := stage.New(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 3)
	s.Detain(cluster.ConfigID)
	s.StartWorker()
	lock := workflows.RotateClusterID("default", s.Project, cluster.ID)
	input := s.Input(cluster.ID)
	input.RetryTimeout = workflows.Duration(s.Patience)
	ended := make(chan error)
	for _, id := range []string{"first-" + s.Project, "second-" + s.Project} {
		go func() {
			_, err := s.Result(s.StartAs(id, input))
			ended <- err
		}()
	}
	assert.Contains(t, stage.RequireFailure(t, <-ended, activities.ErrorClusterBusy).Message(), lock)
	s.OM.ClearFaults()
	require.NoError(t, <-ended, "one of them rotates")
	assert.Len(t, s.OM.Ledger().Rotations, 4)
}

// A history of more than 40 events is suggested to be continued as new, so that
// a rotation of 24 targets goes through several runs.
func TestContinuedAsNewManyTimes(t *testing.T) {
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "40"}})
	s := stage.On(t, server, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 23)
	s.StartWorker()
	run := s.Start(s.Input(cluster.ID))
	first := run.GetRunID()
	s.RequireRotated(run, 24)
	assert.NotEqual(t, first, run.GetRunID(), "it must have been continued as new")
	ledger := s.OM.Ledger()
	for _, id := range cluster.TargetIDs() {
		assert.Equal(t, 2, ledger.Count(http.MethodGet, id), "three requests, whichever run does them")
	}
}

func TestSteeredByTheCommandLine(t *testing.T) {
	s := stage.New(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.RequireApproval = true
	run := s.Start(input)
	s.Await(run.GetID(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })
	_, stderr, err := s.Server.CLI(t.Context(), "workflow", "update", "execute", "-w", run.GetID(), "--name", "approve", "--input", `{"by":"dana"}`)
	require.Error(t, err)
	assert.Contains(t, stderr, "somebody else must approve")
	answer := s.CLI("workflow", "update", "execute", "-w", run.GetID(), "--name", "approve", "--input", `{"by":"lee","comment":"go"}`)
	assert.Contains(t, answer, "clusterName")
	result := s.RequireRotated(run, 3)
	assert.Equal(t, "lee", result.Approval.By)
	assert.Contains(t, s.CLI("workflow", "query", "-w", run.GetID(), "--type", "progress"), `"outcome":"rotated"`)
}

func TestCancellationKeepsTheRecords(t *testing.T) {
	s := stage.New(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 7)
	inWork := cluster.ShardIDs[1:5]
	s.Detain(inWork...)
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.RetryTimeout = workflows.Duration(s.Patience)
	run := s.Start(input)
	s.Await(run.GetID(), func(p workflows.Progress) bool { return p.Counts[workflows.StatusRotating] == len(inWork) })
	require.NoError(t, s.Temporal.CancelWorkflow(t.Context(), run.GetID(), ""))
	s.AwaitAbort(run.GetID())
	s.OM.ClearFaults()
	_, err := s.Result(run)
	records := requireAborted(s, err)
	assert.Equal(t, map[string]int{workflows.StatusVerified: 1 + len(inWork), workflows.StatusPending: 3}, countsOf(records))
	assert.Len(t, s.OM.Ledger().Rotations, 1+len(inWork), "nothing rotated is left unrecorded")
}

// The hand-over passes a cancellation on, and its records back.
func TestCancellationOfTheHandingOver(t *testing.T) {
	s := stage.New(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 7)
	s.Detain(cluster.ShardIDs[0])
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.RetryTimeout = workflows.Duration(s.Patience)
	run := s.StartAs("outer-"+s.Project, input)
	lock := workflows.RotateClusterID("default", s.Project, cluster.ID)
	s.AwaitPut()
	require.NoError(t, s.Temporal.CancelWorkflow(t.Context(), run.GetID(), ""))
	s.AwaitAbort(lock)
	s.OM.ClearFaults()
	_, err := s.Result(run)
	records := requireAborted(s, err)
	assert.Equal(t, map[string]int{workflows.StatusVerified: 1, workflows.StatusPending: 7}, countsOf(records))
	assert.Equal(t, workflows.PhaseDone, s.Progress(lock).Phase)
}

// requireAborted gives the records of an aborted rotation, which must be true.
func requireAborted(s stage.Stage, err error) *workflows.RotateClusterResult {
	s.Helper()
	stage.RequireFailure(s, err, activities.ErrorAborted)
	records, found := workflows.ResultOf(err)
	require.True(s, found)
	s.RequireTrue(records.Targets)
	return records
}

func countsOf(records *workflows.RotateClusterResult) map[string]int {
	counts := map[string]int{}
	for _, record := range records.Targets {
		counts[record.Status]++
	}
	return counts
}
