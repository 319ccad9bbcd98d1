package endtoend

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/stage"
	"keyturn/testsuite/temporalserver"
	"keyturn/workflows"
)

// An update that is sent while a rotation continues as new reaches the run that
// goes on, and what it has set stays set.
func TestNoUpdateIsLostAcrossContinueAsNew(t *testing.T) {
	server := temporalserver.StartForTest(t, temporalserver.Options{DynamicConfig: map[string]string{"limit.historyCount.suggestContinueAsNew": "30"}})
	s := stage.On(t, server, simulator.Options{Latency: 20 * time.Millisecond})
	s.Unrecorded = true
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 29)
	s.StartWorker()
	run := s.Start(s.Input(cluster.ID))
	first := run.GetRunID()
	id := run.GetID()
	s.Await(id, func(p workflows.Progress) bool { return p.Phase == workflows.PhaseRotating })

	commands := 0
	for {
		paused, err := s.Update(id, workflows.PauseUpdate, workflows.ReasonRequest{By: "lee", Reason: "now and then"})
		if err != nil {
			require.Equal(t, workflows.PhaseDone, s.Progress(id).Phase, "refused, and the rotation is not over: %v", err)
			break
		}
		assert.Contains(t, []string{workflows.PhasePaused, workflows.PhaseDone}, paused.Phase)
		if paused.Counts[workflows.StatusPending] == 0 {
			break // the last targets are in work, and finish: there is nothing to pause
		}
		p := s.Progress(id)
		require.Equal(t, workflows.PhasePaused, p.Phase, "it was accepted, so it holds in whatever run goes on")
		_, err = s.Update(id, workflows.ResumeUpdate, workflows.ReasonRequest{By: "lee"})
		require.NoError(t, err)
		commands += 2
		time.Sleep(time.Duration(commands%7) * 5 * time.Millisecond) // meets the runs at different moments
	}
	s.RequireRotated(run, 30)
	assert.NotEqual(t, first, run.GetRunID(), "it must have been continued as new")
	assert.Greater(t, commands, 10)
	t.Logf("%d commands while %d targets were rotated", commands, 30)
}

// Of a rejection and an abort that reach a plan with the same workflow task, the
// first one is taken and decides how it ends, and the other is refused.
func TestOfDecisionsThatComeTogetherOneIsTaken(t *testing.T) {
	t.Parallel()
	for _, inOrder := range [][]string{{workflows.RejectUpdate, workflows.AbortUpdate}, {workflows.AbortUpdate, workflows.RejectUpdate}} {
		t.Run(inOrder[0]+"First", func(t *testing.T) { decideTwice(t, inOrder) })
	}
}

// decideTwice sends both updates while no worker runs, in that order as far as
// the network keeps to it.
func decideTwice(t *testing.T, inOrder []string) {
	s := stage.New(t, simulator.Options{})
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
			_, err := s.Update(run.GetID(), update, workflows.ReasonRequest{By: "lee"})
			mutex.Lock()
			defer mutex.Unlock()
			refused[update] = err
		})
		time.Sleep(20 * time.Millisecond) // for the order alone: the other one is told as truly
	}
	s.StartWorker()
	sent.Wait()
	_, err := s.Result(run)
	if refused[workflows.RejectUpdate] == nil {
		stage.RequireFailure(t, err, activities.ErrorRejected)
		assert.Error(t, refused[workflows.AbortUpdate])
	} else {
		stage.RequireFailure(t, err, activities.ErrorAborted)
		assert.NoError(t, refused[workflows.AbortUpdate])
	}
	assert.Empty(t, s.OM.Ledger().Rotations)
}
