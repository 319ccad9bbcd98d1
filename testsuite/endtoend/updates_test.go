package endtoend

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"
)

// An update that is sent while a rotation continues as new reaches the next
// run, and its effect lasts.
func TestNoUpdateIsLostAcrossContinueAsNew(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "30"}})
	s := fixture.NewServerOn(t, server, simulator.Options{Latency: 20 * time.Millisecond})
	s.Unrecorded = true
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 29)
	s.StartWorker()
	run := s.Start(s.Input(cluster.ID))
	first := run.GetRunID()
	id := run.GetID()
	s.Await(id, func(p workflows.Progress) bool { return p.Phase == workflows.PhaseRotating })

	updates := 0
	for {
		paused, err := s.Update(id, workflows.PauseUpdate, workflows.OperatorRequest{By: "lee", Reason: "test"})
		if err != nil {
			require.Equal(t, workflows.PhaseDone, s.Progress(id).Phase, "rejected, but the rotation is not done: %v", err)
			break
		}
		assert.Contains(t, []workflows.Phase{workflows.PhasePaused, workflows.PhaseDone}, paused.Phase)
		if paused.Counts[workflows.StatusPending] == 0 {
			break // the last targets are in progress: there is nothing to pause
		}
		p := s.Progress(id)
		require.Equal(t, workflows.PhasePaused, p.Phase, "an accepted pause must hold in the next run")
		_, err = s.Update(id, workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
		require.NoError(t, err)
		updates += 2
		time.Sleep(time.Duration(updates%7) * 5 * time.Millisecond) // varies the time within a run
	}
	s.RequireRotated(run, 30)
	assert.NotEqual(t, first, run.GetRunID(), "the rotation must have continued as new")
	assert.Greater(t, updates, 10)
	t.Logf("%d updates while %d targets were rotated", updates, 30)
}

// If a rejection and an abort reach a rotation with the same workflow task, the
// first one is accepted and decides the outcome, and the other one is rejected.
func TestConcurrentDecisions(t *testing.T) {
	t.Parallel()
	for _, inOrder := range [][]string{{workflows.RejectUpdate, workflows.AbortUpdate}, {workflows.AbortUpdate, workflows.RejectUpdate}} {
		t.Run(inOrder[0]+"First", func(t *testing.T) { decideTwice(t, inOrder) })
	}
}

// decideTwice sends both updates while no worker is running. The network may
// change their order.
func decideTwice(t *testing.T, inOrder []string) {
	s := fixture.NewServer(t, simulator.Options{})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 2)
	stop := s.StartWorker()
	input := s.Input(cluster.ID)
	input.RequireApproval = true
	run := s.Start(input)
	s.Await(run.GetID(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })
	stop()

	refused := map[string]error{}
	var mutex sync.Mutex
	var sent sync.WaitGroup
	for _, update := range inOrder {
		sent.Go(func() {
			_, err := s.Update(run.GetID(), update, workflows.OperatorRequest{By: "lee"})
			mutex.Lock()
			defer mutex.Unlock()
			refused[update] = err
		})
		time.Sleep(20 * time.Millisecond) // only for the order; the test holds for the other order, too
	}
	s.StartWorker()
	sent.Wait()
	_, err := s.Result(run)
	if refused[workflows.RejectUpdate] == nil {
		fixture.RequireFailure(t, err, workflows.ErrorRejected)
		assert.Error(t, refused[workflows.AbortUpdate])
	} else {
		fixture.RequireFailure(t, err, workflows.ErrorAborted)
		assert.NoError(t, refused[workflows.AbortUpdate])
	}
	assert.Empty(t, s.OM.Ledger().Rotations)
}

// The reasons of one skip are in the records of all its targets, in the update's
// answer and in the result: more than Temporal takes, if they were not shortened.
func TestSkipOfManyTargetsWithLongReasons(t *testing.T) {
	t.Parallel()
	const skipped, most = 280, 2_000
	s := fixture.NewServer(t, simulator.Options{})
	s.Unrecorded = true
	cluster := s.OM.AddShardedCluster(s.Project, "orders", skipped+5)
	s.StartWorker()
	input := s.Input(cluster.ID)
	input.RequireApproval, input.Concurrency = true, 16
	run := s.Start(input)
	id := run.GetID()
	s.Await(id, func(p workflows.Progress) bool { return p.Phase == workflows.PhaseAwaitingApproval })
	reason := strings.Repeat("\U0001F511", most)
	p, err := s.Update(id, workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: cluster.ShardIDs[:skipped], Reason: reason})
	require.NoError(t, err)
	assert.Equal(t, skipped, p.Counts[workflows.StatusSkipped])
	assert.Len(t, s.Progress(id).Targets, skipped+6)
	_, err = s.Update(id, workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee", Comment: reason})
	require.NoError(t, err)

	result, err := s.Result(run)
	require.NoError(t, err)
	assert.Equal(t, workflows.OutcomeRotatedWithSkips, result.Outcome)
	require.Len(t, result.Targets, skipped+6)
	skips := 0
	for _, record := range result.Targets {
		assert.NotEmpty(t, record.PreviousKeyUUID, record.Name)
		if record.Status == workflows.StatusSkipped {
			skips++
			assert.Contains(t, record.Error.Message, "skipped by lee")
		}
	}
	assert.Equal(t, skipped, skips)
	assert.Len(t, s.OM.Ledger().Rotations, 6)
	require.NotEmpty(t, result.Actions)
	assert.Equal(t, skipped, len(result.Actions[0].Targets)+result.Actions[0].TargetsNotListed)
}
