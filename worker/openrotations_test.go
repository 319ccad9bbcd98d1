package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/worker/metrics"
	"keyturn/workflows"
)

func TestLastChangeIsTheLatestThatIsRecorded(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	at := func(minutes int) *time.Time {
		moment := start.Add(time.Duration(minutes) * time.Minute)
		return &moment
	}
	p := progress{StartedAt: start}
	assert.Equal(t, start, p.lastChange())
	p.Approval = &workflows.Approval{At: *at(10)}
	assert.Equal(t, *at(10), p.lastChange())
	p.Targets = []targetTimes{{RotatedAt: at(20), VerifiedAt: at(30)}, {RotatedAt: at(25)}, {}}
	assert.Equal(t, *at(30), p.lastChange())
}

// The progress of both kinds of rotations is read, as it is in JSON.
func TestProgressOfBothKindsIsObserved(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	rotated := start.Add(time.Minute)
	read := func(of any) (p progress) {
		text, err := json.Marshal(of)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &p))
		return p
	}
	cluster := workflows.Progress{
		RotateClusterResult: workflows.RotateClusterResult{StartedAt: start, Targets: []workflows.TargetRecord{{Status: workflows.StatusRotated, RotatedAt: &rotated}}},
		Phase:               workflows.PhaseRotating, Counts: map[workflows.Status]int{workflows.StatusRotated: 1},
	}
	assert.Equal(t, observation{phase: workflows.PhaseRotating, ended: "[0 0 0]", since: rotated}, read(cluster).observe())

	deployment := workflows.DeploymentProgress{
		RotateDeploymentResult: workflows.RotateDeploymentResult{
			Proof: workflows.ProofSnapshot, StartedAt: start, Targets: []workflows.ProcessRecord{{Status: workflows.StatusRotated, RotatedAt: &rotated}, {Status: workflows.StatusFailed}},
		},
		Phase: workflows.PhaseHeld, Counts: map[workflows.Status]int{workflows.StatusRotated: 1, workflows.StatusFailed: 1},
	}
	assert.Equal(t, observation{phase: workflows.PhaseHeld, ended: "[0 1 0 1]", since: rotated}, read(deployment).observe())
	deployment.Phase = workflows.PhaseRotating
	deployment.Counts = map[workflows.Status]int{workflows.StatusRotated: 1, workflows.StatusRotating: 1}
	assert.False(t, read(deployment).observe().isProving)
	deployment.Counts = map[workflows.Status]int{workflows.StatusRotated: 1, workflows.StatusSkipped: 1}
	proving := read(deployment).observe()
	assert.True(t, proving.isProving)
	assert.Less(t, time.Since(proving.since), time.Minute, "to wait for a snapshot is no lack of progress")
}

func TestLogsNameWhatIsRotated(t *testing.T) {
	names := func(id string) string { return fmt.Sprint(namesIn(slog.String(workflowIDKey, id))) }
	assert.Equal(t, "[connection=default project=5196d3628d022db4cbc26d9e cluster=65a1f1aa0000000000000001]", names(workflows.RotateClusterID("default", "5196d3628d022db4cbc26d9e", "65a1f1aa0000000000000001")))
	assert.Equal(t, "[connection=emea project=5196d3628d022db4cbc26d9e]", names(workflows.RotateDeploymentID("emea", "5196d3628d022db4cbc26d9e")))
	assert.Equal(t, "[]", names("nightly"))
}

func TestOpenRotationsAreSummedByPhase(t *testing.T) {
	hourAgo, dayAgo := time.Now().Add(-time.Hour), time.Now().Add(-24*time.Hour)
	sums := aggregate(map[string]observation{
		"a": {phase: workflows.PhaseHeld, since: hourAgo}, "b": {phase: workflows.PhaseHeld, since: dayAgo},
		"c": {phase: phaseUnknown, since: hourAgo}, "d": {phase: workflows.PhaseDone, since: dayAgo},
	})
	assert.Len(t, sums, len(phases), "every phase, and none besides")
	assert.Equal(t, 2, sums[string(workflows.PhaseHeld)].Count)
	assert.InDelta(t, 24*time.Hour, sums[string(workflows.PhaseHeld)].Idle, float64(time.Minute))
	assert.Equal(t, 1, sums[phaseUnknown].Count)
	assert.Equal(t, metrics.Open{}, sums[string(workflows.PhaseRotating)])
}

func TestOldCountsOfOpenRotationsAreNotBelieved(t *testing.T) {
	m := &monitor{settings: settings{monitoring: defaultTimes}}
	_, known := m.inTemporal()
	assert.False(t, known, "none was taken")
	m.open = snapshot{taken: time.Now()}
	_, known = m.inTemporal()
	assert.True(t, known)
	m.open.taken = time.Now().Add(-staleAfter * defaultTimes.openRotations)
	_, known = m.inTemporal()
	assert.False(t, known)
}

func TestOpsManagerIsForgivenSilenceButNoRefusal(t *testing.T) {
	m := &monitor{settings: settings{monitoring: defaultTimes}}
	silent, refused := checkResult{problem: "no answer", at: time.Now()}, checkResult{problem: "401", refused: true, at: time.Now()}
	lately, longAgo := time.Now().Add(-defaultTimes.maxAge/2), time.Now().Add(-2*defaultTimes.maxAge)
	assert.True(t, m.connectionStatus(silent, lately).OK)
	assert.False(t, m.connectionStatus(silent, longAgo).OK)
	assert.Equal(t, "no answer", m.connectionStatus(silent, time.Time{}).Problem)
	assert.NotEmpty(t, m.connectionStatus(checkResult{}, longAgo).Problem)
	assert.False(t, m.connectionStatus(refused, lately).OK)
	refused.at = lately.Add(-time.Second)
	assert.True(t, m.connectionStatus(refused, lately).OK, "it has been read since")
}

func TestOnlyAPollingWorkerIsReady(t *testing.T) {
	for _, state := range []string{stateStarting, statePolling, stateDraining} {
		m := &monitor{settings: settings{monitoring: defaultTimes}, state: state}
		assert.Equal(t, state == statePolling, m.readiness().Ready, state)
	}
}

// Temporal answers, and another worker polls the task queue, but not this worker.
func TestPollersOfOthersDoNotCount(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	s.StartWorker()
	m := &monitor{settings: settings{monitoring: defaultTimes, taskQueue: s.TaskQueue}, state: statePolling, ctx: t.Context(), logger: slog.New(slog.DiscardHandler)}
	m.settings.temporal.Identity = pollersOf(t, s.Temporal, s.TaskQueue)[0]
	waiting.Until(t, func() bool { return m.checkPollers(t.Context(), s.Temporal) })
	assert.True(t, m.readiness().Ready)
	m.settings.temporal.Identity = "another@1"
	assert.False(t, m.checkPollers(t.Context(), s.Temporal))
	assert.Equal(t, "this worker does not poll for tasks of kind Workflow; this worker does not poll for tasks of kind Activity", m.readiness().Checks["temporal"].Problem)
}
