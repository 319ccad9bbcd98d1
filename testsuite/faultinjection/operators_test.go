package faultinjection

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
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
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

// activityCommands are commands of Temporal's CLI for a pending activity. A
// paused activity does not even time out, and a reset resumes it only if no
// attempt is running: so the last command of each list resumes it.
var activityCommands = map[string][][]string{
	"Reset":                       {{"reset"}},
	"ResetWithHeartbeats":         {{"reset", "--reset-heartbeats"}},
	"ResetTwiceWithHeartbeats":    {{"reset", "--reset-heartbeats"}, {"reset", "--reset-heartbeats"}},
	"PauseAndUnpause":             {{"pause"}, {"unpause"}},
	"PauseAndUnpauseFromScratch":  {{"pause"}, {"unpause", "--reset-attempts", "--reset-heartbeats"}},
	"PauseResetAndUnpause":        {{"pause"}, {"reset", "--reset-heartbeats"}, {"unpause"}},
	"PauseResetKeepingAndUnpause": {{"pause"}, {"reset", "--keep-paused", "--reset-heartbeats"}, {"unpause"}},
}

// sendActivityCommands sends commands for the pending RotateKey of a rotation.
// The first one must succeed; the activity may complete before the others.
func sendActivityCommands(s fixture.Server, run workflowRun, commands [][]string) {
	s.Helper()
	sendActivityCommandsTo(s, run, activities.RotateKeyName, commands)
}

// sendActivityCommandsTo sends them for a pending activity of another type.
func sendActivityCommandsTo(s fixture.Server, run workflowRun, activity string, commands [][]string) {
	s.Helper()
	pending := awaitPending(s, run, func(p *workflowpb.PendingActivityInfo) bool { return p.GetActivityType().GetName() == activity })
	for i, arguments := range commands {
		arguments = slices.Concat([]string{"activity"}, arguments, []string{"-w", run.GetID(), "--activity-id", pending.GetActivityId()})
		stderr, err := runCommand(s, arguments)
		if err != nil {
			require.NotZero(s, i, "%v: %s", err, stderr)
			s.Logf("%v: %s", arguments[1], stderr)
		}
	}
}

// runCommand retries a command that Temporal refuses because the workflow is
// busy: a lost unpause would leave the activity paused.
func runCommand(s fixture.Server, arguments []string) (stderr string, err error) {
	s.Helper()
	waiting.Until(s, func() bool {
		_, stderr, err = s.TemporalServer.CLI(s.Context(), arguments...)
		return err == nil || !strings.Contains(stderr, "Workflow is busy")
	}, "%v", arguments)
	return stderr, err
}

// A PUT has been applied and its worker was killed. Then the activity is reset
// or paused, which can make its next attempt look like the first one:
// immediately, or after Temporal has noticed the loss and no worker is left.
func TestActivityResetAfterWorkerKill(t *testing.T) {
	t.Parallel()
	workerExecutable(t)
	for name, commands := range activityCommands {
		for moment, isNoticed := range map[string]bool{"Immediately": false, "AfterHeartbeatTimeout": true} {
			t.Run(name+"/"+moment, func(t *testing.T) {
				t.Parallel()
				s := fixture.NewServer(t, simulator.Options{})
				s.Unrecorded = isNoticed // the history is the same
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
				sendActivityCommands(s, run, commands)
				startProcess(s)
				result := s.RequireRotated(run, 3)
				assert.True(t, result.Targets[1].Ambiguous)
			})
		}
	}
}

// The commands arrive while the attempt resolves the outcome of its PUT, or
// waits for its next try after a refusal.
func TestActivityResetDuringRetries(t *testing.T) {
	t.Parallel()
	for moment, fault := range map[string]func(id string) simulator.Fault{
		"WhileResolvingThePut": func(id string) simulator.Fault {
			f := simulator.PutServerError(id, simulator.ApplyBefore)
			f.ShowAfter = 6 * time.Second
			return f
		},
		"WhileThePutHangs":     func(id string) simulator.Fault { return simulator.PutDelayed(id, 6*time.Second) },
		"WhileWaitingToRetry":  func(id string) simulator.Fault { return simulator.RateLimited(http.MethodPut, id, "6") },
		"BeforeASecondRefusal": func(id string) simulator.Fault { return simulator.RateLimited(http.MethodPut, id, "3").Repeated(2) },
	} {
		for name, commands := range activityCommands {
			t.Run(moment+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := fixture.NewServer(t, simulator.Options{})
				s.Unrecorded = name != "Reset" // the history is the same
				cluster := s.OM.AddShardedCluster(s.Project, "orders", 1)
				s.OM.Inject(fault(cluster.ConfigID))
				s.StartWorkerWith(s.Temporal, clientOf(t, s.OM.URL), fewPollers)
				input := inputOf(s, cluster.ID)
				input.SettleTime = workflows.Duration(9 * time.Second)
				run := s.Start(input)
				s.AwaitLedger(func(l simulator.Ledger) bool { return l.Count(http.MethodPut, cluster.ConfigID) > 0 })
				sendActivityCommands(s, run, commands)
				s.RequireRotated(run, 2)
			})
		}
	}
}

// resetPoints returns the events to which a run can be reset without reading
// again what is to be rotated: the completed workflow tasks after that was read,
// by the given number of activities.
func resetPoints(events []*historypb.HistoryEvent, readings int) (ids []int64) {
	read := eventsOfType(events, enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)
	if events[0].GetWorkflowExecutionStartedEventAttributes().GetContinuedExecutionRunId() != "" {
		read = make([]int64, readings) // by a previous run
	}
	if len(read) < readings {
		return nil
	}
	for _, id := range eventsOfType(events, enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED) {
		if id > read[readings-1] {
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

// reset resets a run with Temporal's CLI and returns the new run.
func reset(s fixture.Server, run workflowRun, arguments ...string) workflowRun {
	s.Helper()
	s.CLI(append([]string{"workflow", "reset", "-w", run.GetID(), "-r", run.GetRunID(), "--reason", "a test"}, arguments...)...)
	described, err := s.Temporal.DescribeWorkflowExecution(s.Context(), run.GetID(), "")
	require.NoError(s, err)
	again := described.GetWorkflowExecutionInfo().GetExecution().GetRunId()
	require.NotEqual(s, run.GetRunID(), again)
	return s.Temporal.GetWorkflow(s.Context(), run.GetID(), again)
}

func toEvent(id int64) []string { return []string{"--event-id", strconv.FormatInt(id, 10)} }

// Every reset of a completed rotation ends with the same records and changes
// nothing, even if the first read shows a stale ID.
func TestFinishedRotationResetToEveryPoint(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	startWorker(s)
	run := s.Start(inputOf(s, cluster.ID))
	before := keysOf(s.RequireRotated(run, 3))
	points := resetPoints(s.History(run), clusterReadings)
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

// keysOf returns the previous and the new key of each target.
func keysOf(result workflows.RotateClusterResult) (keys []string) {
	for _, t := range result.Targets {
		keys = append(keys, t.Name, t.PreviousKeyUUID, t.NewKeyUUID)
	}
	return keys
}

// A running rotation is reset at points after it was read what is to be rotated, to
// the first or to the last possible event; with -long at every point, to both. What the
// worker of the old run has in progress continues, and counts.
func TestRunningRotationResetAtEveryPoint(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			resetAtEveryPoint(t, k)
		})
	}
}

func resetAtEveryPoint(t *testing.T, k kind) {
	all := killPointsOf(t, temporalserver.Shared(t), k)
	// The first workflow task after the read must have completed, and the last
	// one must not.
	points := all[indexOf(t, all, k.change, 1) : len(all)-1]
	choices := []struct {
		name    string
		toFirst bool
		choose  func([]int64) int64
	}{
		{"ToTheFirst", true, func(ids []int64) int64 { return ids[0] }},
		{"ToTheLast", false, func(ids []int64) int64 { return ids[len(ids)-1] }},
	}
	for _, p := range points {
		for _, c := range choices {
			if !*long && !k.isResetAt(p, c.toFirst) {
				continue
			}
			t.Run(p.String()+"-"+c.name, func(t *testing.T) {
				t.Parallel()
				resetAt(newRotationFixture(t, temporalserver.Shared(t), k), p, c.choose)
			})
		}
	}
}

func resetAt(s rotationFixture, p killPoint, choose func([]int64) int64) {
	h := newBlocker(p)
	g := newInterceptProxy(s.Server, h.onPoint)
	g.startWorker(s.Server)
	s.Cleanup(h.release)
	run := s.start()
	awaitPoint(s, run, h.reached)
	again := resetRunning(s.Server, run, choose(resetPoints(s.History(run), s.readings)))
	// The new run makes progress, if it can, before the old run's worker
	// continues.
	g.awaitMessages(p.number+3, time.Second)
	h.release()
	s.requireRotated(again)
}

// resetRunning resets a run without the CLI, which would take a second.
func resetRunning(s fixture.Server, run workflowRun, eventID int64) workflowRun {
	s.Helper()
	answer, err := s.Temporal.ResetWorkflowExecution(s.Context(), &workflowservice.ResetWorkflowExecutionRequest{
		Namespace:         s.TemporalServer.Namespace,
		WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: run.GetID(), RunId: run.GetRunID()},
		Reason:            "a test", RequestId: run.GetRunID() + strconv.FormatInt(eventID, 10),
		WorkflowTaskFinishEventId: eventID,
	})
	require.NoError(s, err)
	return s.Temporal.GetWorkflow(s.Context(), run.GetID(), answer.GetRunId())
}

// blocker blocks a worker at a point until it is released.
type blocker struct {
	isAt     func(killPoint) bool
	reach    func()
	reached  chan struct{}
	released chan struct{}
	release  func()
}

func newBlocker(p killPoint) *blocker { return newBlockerOf(p.equals) }

// newBlockerOf blocks at every point that fulfils a condition.
func newBlockerOf(isAt func(killPoint) bool) *blocker {
	h := &blocker{isAt: isAt, reached: make(chan struct{}), released: make(chan struct{})}
	h.reach = sync.OnceFunc(func() { close(h.reached) })
	h.release = sync.OnceFunc(func() { close(h.released) })
	return h
}

func (h *blocker) onPoint(p killPoint) (lost bool) {
	if h.isAt(p) {
		h.reach()
		<-h.released
	}
	return false
}

// A rotation is reset to before its first time was chosen, while the PUT with that time
// is under way. The PUT arrives when the copy has looked for the times of the run before
// and has chosen another one: it takes over the first one, and publishes nothing.
func TestResetWhileAPublicationIsUnderWay(t *testing.T) {
	t.Parallel()
	server := temporalserver.Shared(t)
	s := newRotationFixture(t, server, deploymentKind)
	h := newBlockerOf(func(p killPoint) bool { return p.name == deploymentKind.change && !p.after })
	s.Cleanup(h.release)
	g := newInterceptProxy(s.Server, h.onPoint)
	g.startWorker(s.Server)
	run := s.start()
	awaitPoint(s, run, h.reached)
	again := resetRunning(s.Server, run, resetPoints(s.History(run), s.readings)[0])
	waiting.Until(t, func() bool {
		return len(eventsOfType(s.History(again), enumspb.EVENT_TYPE_TIMER_STARTED)) > 0
	}, "the copy chooses a time")
	h.release()
	s.requireRotated(again)
}

// A rotation is canceled at every point: targets in progress are completed and
// recorded, no other target is started.
func TestCanceledAtEveryPoint(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			for _, p := range testedPointsOf(t, temporalserver.Shared(t), k) {
				t.Run(p.String(), func(t *testing.T) {
					t.Parallel()
					cancelAt(newRotationFixture(t, temporalserver.Shared(t), k), p)
				})
			}
		})
	}
}

func cancelAt(s rotationFixture, p killPoint) {
	h := newBlocker(p)
	g := newInterceptProxy(s.Server, h.onPoint)
	g.startWorker(s.Server)
	s.Cleanup(h.release)
	run := s.start()
	awaitPoint(s, run, h.reached)
	err := s.Temporal.CancelWorkflow(s.Context(), run.GetID(), "")
	if err != nil {
		var gone *serviceerror.NotFound
		require.ErrorAs(s, err, &gone, "only a completed rotation cannot be canceled")
	}
	started := len(s.OM.Ledger().Select(func(r simulator.Request) bool { return r.Method == http.MethodPut }))
	h.release()
	s.requireRotatedOrAborted(run, started)
}

func countOf(records []workflows.TargetRecord, status workflows.Status) (n int) {
	for _, record := range records {
		if record.Status == status {
			n++
		}
	}
	return n
}

// The same cluster is started many times in parallel, under other IDs and under
// its own. It is rotated once; all others fail as ClusterBusy.
func TestConcurrentStarts(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 3)
	s.OM.Inject(simulator.PutCut(cluster.ShardIDs[1], simulator.ApplyBefore))
	s.BlockRotation(cluster.ConfigID)
	startWorker(s)
	startWorker(s)
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
		busy := fixture.RequireFailure(t, (<-ends).err, workflows.ErrorClusterBusy)
		assert.Contains(t, busy.Message(), workflows.RotateClusterID(workflows.DefaultConnection, s.Project, cluster.ID))
	}
	s.OM.ClearFaults()
	last := <-ends
	require.NoError(t, last.err)
	require.Len(t, last.result.Targets, 4)
	s.RequireMatchesLedger(last.result.Targets)
	assert.Len(t, s.OM.Ledger().Rotations, 4)
}

// A rotation under its own ID is the lock for rotations that are started under
// other IDs.
func TestStartUnderAnotherIDIsBusy(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 3)
	s.BlockRotation(cluster.ConfigID)
	startWorker(s)
	first := s.Start(inputOf(s, cluster.ID))
	_, err := s.Result(s.StartAs("another-"+s.Project, inputOf(s, cluster.ID)))
	fixture.RequireFailure(t, err, workflows.ErrorClusterBusy)
	_, err = s.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: first.GetID(), TaskQueue: s.TaskQueue, WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflows.RotateClusterType, inputOf(s, cluster.ID))
	require.True(t, sdktemporal.IsWorkflowExecutionAlreadyStartedError(err), "%v", err)
	s.OM.ClearFaults()
	s.RequireRotated(first, 4)
}
