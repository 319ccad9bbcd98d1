package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/stage"
	"keyturn/testsuite/temporalserver"
	"keyturn/worker/metrics"
	"keyturn/workflows"
)

func TestLastChangeIsTheLatestThatIsRecorded(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	at := func(minutes int) *time.Time {
		moment := start.Add(time.Duration(minutes) * time.Minute)
		return &moment
	}
	p := workflows.Progress{RotateClusterResult: workflows.RotateClusterResult{StartedAt: start}}
	assert.Equal(t, start, lastChange(p))
	p.Approval = &workflows.Approval{At: *at(10)}
	assert.Equal(t, *at(10), lastChange(p))
	p.Targets = []workflows.TargetRecord{{RotatedAt: at(20), VerifiedAt: at(30)}, {RotatedAt: at(25)}, {}}
	assert.Equal(t, *at(30), lastChange(p))
}

func TestCensusIsSummedByPhase(t *testing.T) {
	hourAgo, dayAgo := time.Now().Add(-time.Hour), time.Now().Add(-24*time.Hour)
	sums := summed(map[string]sighting{
		"a": {phase: workflows.PhaseHeld, since: hourAgo}, "b": {phase: workflows.PhaseHeld, since: dayAgo},
		"c": {phase: phaseUnknown, since: hourAgo}, "d": {phase: workflows.PhaseDone, since: dayAgo},
	})
	assert.Len(t, sums, len(phases), "every phase, and none besides")
	assert.Equal(t, 2, sums[workflows.PhaseHeld].Count)
	assert.InDelta(t, 24*time.Hour, sums[workflows.PhaseHeld].Idle, float64(time.Minute))
	assert.Equal(t, 1, sums[phaseUnknown].Count)
	assert.Equal(t, metrics.Open{}, sums[workflows.PhaseRotating])
}

func TestOldCensusIsNotBelieved(t *testing.T) {
	m := &monitor{settings: settings{monitoring: usualTimes}}
	_, known := m.open()
	assert.False(t, known, "none was taken")
	m.census = census{taken: time.Now()}
	_, known = m.open()
	assert.True(t, known)
	m.census.taken = time.Now().Add(-censusLasts * usualTimes.census)
	_, known = m.open()
	assert.False(t, known)
}

func TestOpsManagerIsForgivenSilenceButNoRefusal(t *testing.T) {
	m := &monitor{settings: settings{monitoring: usualTimes}}
	silent, refused := check{problem: "no answer", at: time.Now()}, check{problem: "401", refused: true, at: time.Now()}
	lately, longAgo := time.Now().Add(-usualTimes.fresh/2), time.Now().Add(-2*usualTimes.fresh)
	assert.True(t, m.judge(silent, lately).OK)
	assert.False(t, m.judge(silent, longAgo).OK)
	assert.Equal(t, "no answer", m.judge(silent, time.Time{}).Problem)
	assert.NotEmpty(t, m.judge(check{}, longAgo).Problem)
	assert.False(t, m.judge(refused, lately).OK)
	refused.at = lately.Add(-time.Second)
	assert.True(t, m.judge(refused, lately).OK, "it has been read since")
}

func TestOnlyAPollingWorkerIsReady(t *testing.T) {
	for _, state := range []string{stateStarting, statePolling, stateDraining} {
		m := &monitor{settings: settings{monitoring: usualTimes}, state: state}
		assert.Equal(t, state == statePolling, m.readiness().Ready, state)
	}
}

// Temporal answers, and somebody polls the task queue, but not this worker.
func TestPollersOfOthersDoNotCount(t *testing.T) {
	s := stage.On(t, temporalserver.Shared(t), simulator.Options{})
	s.StartWorker()
	m := &monitor{settings: settings{monitoring: usualTimes, taskQueue: s.TaskQueue}, state: statePolling, ends: t.Context()}
	m.settings.temporal.Identity = pollersOf(t, s.Temporal, s.TaskQueue)[0]
	assert.Eventually(t, func() bool { return m.lookAtPollers(t.Context(), s.Temporal) }, patience, 20*time.Millisecond)
	assert.True(t, m.readiness().Ready)
	m.settings.temporal.Identity = "another@1"
	assert.False(t, m.lookAtPollers(t.Context(), s.Temporal))
	assert.Equal(t, "this worker does not poll for tasks of kind Workflow; this worker does not poll for tasks of kind Activity", m.readiness().Checks["temporal"].Problem)
}
