package faults

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdktemporal "go.temporal.io/sdk/temporal"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/stage"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

// activityCommands are what an operator may do to a pending activity with
// Temporal's command line. One that is paused does not even time out, and a
// reset lets it go on only where no attempt is under way: so the last command of
// a row always lets it go on.
var activityCommands = map[string][][]string{
	"Reset":                       {{"reset"}},
	"ResetWithHeartbeats":         {{"reset", "--reset-heartbeats"}},
	"ResetTwiceWithHeartbeats":    {{"reset", "--reset-heartbeats"}, {"reset", "--reset-heartbeats"}},
	"PauseAndUnpause":             {{"pause"}, {"unpause"}},
	"PauseAndUnpauseFromScratch":  {{"pause"}, {"unpause", "--reset-attempts", "--reset-heartbeats"}},
	"PauseResetAndUnpause":        {{"pause"}, {"reset", "--reset-heartbeats"}, {"unpause"}},
	"PauseResetKeepingAndUnpause": {{"pause"}, {"reset", "--keep-paused", "--reset-heartbeats"}, {"unpause"}},
}

// command gives commands to the pending RotateKey of a rotation. The first one
// must be carried out; the others may come too late for it.
func command(s stage.Stage, run workflowRun, commands [][]string) {
	s.Helper()
	pending := awaitPending(s, run, func(p *workflowpb.PendingActivityInfo) bool {
		return p.GetActivityType().GetName() == activities.RotateKeyName
	})
	for i, arguments := range commands {
		arguments = slices.Concat([]string{"activity"}, arguments, []string{"-w", run.GetID(), "--activity-id", pending.GetActivityId()})
		_, stderr, err := s.Server.CLI(s.Context(), arguments...)
		if err != nil {
			require.NotZero(s, i, "%v: %s", err, stderr)
			s.Logf("%v: %s", arguments[1], stderr)
		}
	}
}

// A PUT has taken effect, and its worker is dead; then the activity is reset or
// paused, which can make its next attempt look like the first one: at once, or
// when Temporal has noticed the death and nobody is there to go on.
func TestActivityCommandedAfterItsWorkerWasKilled(t *testing.T) {
	t.Parallel()
	workerExecutable(t)
	for name, commands := range activityCommands {
		for moment, isNoticed := range map[string]bool{"AtOnce": false, "WhenItIsNoticed": true} {
			t.Run(name+"/"+moment, func(t *testing.T) {
				t.Parallel()
				s := stage.New(t, simulator.Options{})
				s.Unrecorded = isNoticed // what is written is the same
				cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
				target := cluster.ShardIDs[1]
				s.OM.Inject(simulator.PutHang(target, simulator.ApplyBefore))
				first := startProcess(s)
				run := s.Start(inputOf(s, cluster.ID))
				s.AwaitLedger(func(l simulator.Ledger) bool { return len(l.Applied(target)) == 1 })
				first.kill()
				if isNoticed {
					awaitPending(s, run, func(p *workflowpb.PendingActivityInfo) bool { return p.GetAttempt() > 1 })
				}
				command(s, run, commands)
				startProcess(s)
				result := s.RequireRotated(run, 3)
				assert.True(t, result.Targets[1].Ambiguous)
			})
		}
	}
}

// The activity is commanded while its attempt reads what became of its PUT, or
// waits for its next try after a refusal.
func TestActivityCommandedInTrouble(t *testing.T) {
	t.Parallel()
	for moment, fault := range map[string]func(id string) simulator.Fault{
		"WhileReadingWhatBecameOfItsPut": func(id string) simulator.Fault {
			f := simulator.PutServerError(id, simulator.ApplyBefore)
			f.ShowAfter = 6 * time.Second
			return f
		},
		"WhileItsPutHangs":     func(id string) simulator.Fault { return simulator.PutDelayed(id, 6*time.Second) },
		"WhileWaitingToRetry":  func(id string) simulator.Fault { return simulator.RateLimited(http.MethodPut, id, "6") },
		"BeforeASecondRefusal": func(id string) simulator.Fault { return simulator.RateLimited(http.MethodPut, id, "3").Repeated(2) },
	} {
		for name, commands := range activityCommands {
			t.Run(moment+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := stage.New(t, simulator.Options{})
				s.Unrecorded = name != "Reset" // what is written is the same
				cluster := s.OM.AddShardedCluster(s.Project, "orders", 1)
				s.OM.Inject(fault(cluster.ConfigID))
				s.StartWorkerWith(s.Temporal, clientOf(t, s.OM.URL), fewPollers)
				input := inputOf(s, cluster.ID)
				input.SettleTime = workflows.Duration(9 * time.Second)
				run := s.Start(input)
				s.AwaitLedger(func(l simulator.Ledger) bool { return l.Count(http.MethodPut, cluster.ConfigID) > 0 })
				command(s, run, commands)
				s.RequireRotated(run, 2)
			})
		}
	}
}

// resetPoints are the events that a run can be reset to without reading the keys
// anew: the ends of workflow tasks since the keys were read.
func resetPoints(events []*historypb.HistoryEvent) (ids []int64) {
	keysRead := eventsOfType(events, enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)
	if events[0].GetWorkflowExecutionStartedEventAttributes().GetContinuedExecutionRunId() != "" {
		keysRead = []int64{0, 0} // an earlier run has read them
	}
	if len(keysRead) < 2 {
		return nil
	}
	for _, id := range eventsOfType(events, enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED) {
		if id > keysRead[1] {
			ids = append(ids, id)
		}
	}
	return ids
}

func eventsOfType(events []*historypb.HistoryEvent, eventType enumspb.EventType) (ids []int64) {
	for _, event := range events {
		if event.GetEventType() == eventType {
			ids = append(ids, event.GetEventId())
		}
	}
	return ids
}

// reset resets a run with Temporal's command line, and gives the new run.
func reset(s stage.Stage, run workflowRun, arguments ...string) workflowRun {
	s.Helper()
	s.CLI(append([]string{"workflow", "reset", "-w", run.GetID(), "-r", run.GetRunID(), "--reason", "a test"}, arguments...)...)
	described, err := s.Temporal.DescribeWorkflowExecution(s.Context(), run.GetID(), "")
	require.NoError(s, err)
	again := described.GetWorkflowExecutionInfo().GetExecution().GetRunId()
	require.NotEqual(s, run.GetRunID(), again)
	return s.Temporal.GetWorkflow(s.Context(), run.GetID(), again)
}

func toEvent(id int64) []string { return []string{"--event-id", strconv.FormatInt(id, 10)} }

// Each reset of a finished rotation runs to the same records, and changes
// nothing; even if the first reading shows a stale id.
func TestFinishedRotationResetToEveryPoint(t *testing.T) {
	t.Parallel()
	s := stage.New(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	s.StartWorker()
	run := s.Start(inputOf(s, cluster.ID))
	before := keysOf(s.RequireRotated(run, 3))
	points := resetPoints(s.History(run))
	require.Greater(t, len(points), 4)
	for _, id := range points {
		s.OM.Inject(simulator.KeyStale(cluster.ConfigID))
		again := s.RequireRotated(reset(s, run, toEvent(id)...), 3)
		assert.Equal(t, before, keysOf(again), "reset to event %d", id)
	}
	last := s.RequireRotated(reset(s, run, "--type", "LastWorkflowTask"), 3)
	assert.Equal(t, before, keysOf(last))
	t.Logf("%d points", len(points)+1)
}

// keysOf are a result's keys: old and new of each target.
func keysOf(result workflows.RotateClusterResult) (keys []string) {
	for _, t := range result.Targets {
		keys = append(keys, t.Name, t.PreviousKeyUUID, t.NewKeyUUID)
	}
	return keys
}

// A running rotation is reset at every point after the keys were read, to the
// first or to the last point that it can be reset to; in a long run, to both.
// What the old run's worker has in work goes on, and counts.
func TestRunningRotationResetAtEveryPoint(t *testing.T) {
	t.Parallel()
	all := pointsOf(t, temporalserver.Shared(t))
	// The first task after the reading must have ended, and the last one not.
	points := all[indexOf(t, all, "PUT encryptionKey", 1) : len(all)-1]
	choices := []struct {
		name   string
		choose func([]int64) int64
	}{
		{"ToTheFirst", func(ids []int64) int64 { return ids[0] }},
		{"ToTheLast", func(ids []int64) int64 { return ids[len(ids)-1] }},
	}
	for _, p := range points {
		for i, c := range choices {
			if !*long && p.number%2 != i {
				continue
			}
			t.Run(p.String()+"-"+c.name, func(t *testing.T) {
				t.Parallel()
				resetAt(newScene(t, temporalserver.Shared(t)), p, c.choose)
			})
		}
	}
}

func resetAt(s scene, p point, choose func([]int64) int64) {
	h := newHold(p)
	g := newGate(s.Stage, h.reach)
	g.startWorker(s.Stage)
	s.Cleanup(h.release)
	run := s.Start(s.input())
	awaitPoint(s, run, h.reached)
	again := resetRunning(s.Stage, run, choose(resetPoints(s.History(run))))
	// The new run is at work, if it can be, before the old one's worker goes on.
	g.awaitMessages(p.number+3, time.Second)
	h.release()
	s.requireRotated(again)
}

// resetRunning is reset without the command line, which would take a second.
func resetRunning(s stage.Stage, run workflowRun, eventID int64) workflowRun {
	s.Helper()
	answer, err := s.Temporal.ResetWorkflowExecution(s.Context(), &workflowservice.ResetWorkflowExecutionRequest{
		Namespace:         s.Server.Namespace,
		WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: run.GetID(), RunId: run.GetRunID()},
		Reason:            "a test", RequestId: run.GetRunID() + strconv.FormatInt(eventID, 10),
		WorkflowTaskFinishEventId: eventID,
	})
	require.NoError(s, err)
	return s.Temporal.GetWorkflow(s.Context(), run.GetID(), answer.GetRunId())
}

// hold keeps a worker at a point until it is released.
type hold struct {
	point   point
	reached chan struct{}
	goOn    chan struct{}
	release func()
}

func newHold(p point) *hold {
	h := &hold{point: p, reached: make(chan struct{}), goOn: make(chan struct{})}
	h.release = sync.OnceFunc(func() { close(h.goOn) })
	return h
}

func (h *hold) reach(p point) (lost bool) {
	if p.is(h.point) {
		close(h.reached)
		<-h.goOn
	}
	return false
}

// A cancellation comes at every point: what is in work is finished and recorded,
// nothing else is begun.
func TestCanceledAtEveryPoint(t *testing.T) {
	t.Parallel()
	points := pointsOf(t, temporalserver.Shared(t))
	for _, p := range points {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			cancelAt(newScene(t, temporalserver.Shared(t)), p)
		})
	}
}

func cancelAt(s scene, p point) {
	h := newHold(p)
	g := newGate(s.Stage, h.reach)
	g.startWorker(s.Stage)
	s.Cleanup(h.release)
	run := s.Start(s.input())
	awaitPoint(s, run, h.reached)
	err := s.Temporal.CancelWorkflow(s.Context(), run.GetID(), "")
	if err != nil {
		var gone *serviceerror.NotFound
		require.ErrorAs(s, err, &gone, "only an end is too late for a cancellation")
	}
	begun := len(s.OM.Ledger().Select(func(r simulator.Request) bool { return r.Method == http.MethodPut }))
	h.release()
	result, err := s.Result(run)
	if err == nil {
		require.Equal(s, workflows.OutcomeRotated, result.Outcome)
		s.RequireTrue(result.Targets)
		return
	}
	stage.RequireFailure(s, err, activities.ErrorAborted)
	records, found := workflows.ResultOf(err)
	require.True(s, found)
	s.RequireTrue(records.Targets)
	rotated := len(s.OM.Ledger().Rotations)
	assert.Equal(s, rotated, countOf(records.Targets, workflows.StatusVerified), "nothing rotated is left unrecorded")
	// The PUT that the worker was about to send, or had in a task of its, still goes out.
	assert.LessOrEqual(s, rotated, begun+s.input().Concurrency)
}

func countOf(records []workflows.TargetRecord, status string) (n int) {
	for _, record := range records {
		if record.Status == status {
			n++
		}
	}
	return n
}

// The same cluster, started many times at once under other ids, and under its
// own, is rotated once; all others are told who does it.
func TestStartedManyTimesAtOnce(t *testing.T) {
	t.Parallel()
	s := stage.New(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 3)
	s.OM.Inject(simulator.PutCut(cluster.ShardIDs[1], simulator.ApplyBefore))
	s.Detain(cluster.ConfigID)
	s.StartWorker()
	s.StartWorker()
	const starts = 6
	type end struct {
		result workflows.RotateClusterResult
		err    error
	}
	ends := make(chan end, starts)
	for i := range starts {
		go func() {
			result, err := s.Result(s.StartAs(fmt.Sprintf("start-%d-%s", i, s.Project), inputOf(s, cluster.ID)))
			ends <- end{result, err}
		}()
	}
	for range starts - 1 {
		busy := stage.RequireFailure(t, (<-ends).err, activities.ErrorClusterBusy)
		assert.Contains(t, busy.Message(), workflows.RotateClusterID(workflows.DefaultConnection, s.Project, cluster.ID))
	}
	s.OM.ClearFaults()
	last := <-ends
	require.NoError(t, last.err)
	require.Len(t, last.result.Targets, 4)
	s.RequireTrue(last.result.Targets)
	assert.Len(t, s.OM.Ledger().Rotations, 4)
}

// A rotation under its own id is the lock for those who come by another one.
func TestStartedUnderItsOwnIDAndAnother(t *testing.T) {
	t.Parallel()
	s := stage.New(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 3)
	s.Detain(cluster.ConfigID)
	s.StartWorker()
	first := s.Start(inputOf(s, cluster.ID))
	_, err := s.Result(s.StartAs("another-"+s.Project, inputOf(s, cluster.ID)))
	stage.RequireFailure(t, err, activities.ErrorClusterBusy)
	_, err = s.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: first.GetID(), TaskQueue: s.TaskQueue, WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflows.RotateClusterType, inputOf(s, cluster.ID))
	require.True(t, sdktemporal.IsWorkflowExecutionAlreadyStartedError(err), "%v", err)
	s.OM.ClearFaults()
	s.RequireRotated(first, 4)
}
